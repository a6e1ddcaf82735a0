/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of the uv backend, for the files that it is made of.
 *
 * State: CONNECTING -> OPEN -> CLOSED.  After CLOSED only pd_loop_uvl_streams_closed
 * touches the stream; it calls on_closed and frees. */
#ifndef PD_LOOP_UV_STREAM_INT_H
#define PD_LOOP_UV_STREAM_INT_H

#include "loop/uv_impl.h"

#include <sys/types.h>

enum { CONNECTING, OPEN, CLOSED };

/* What can be watched. */
enum { UVS_READ = EPOLLIN, UVS_WRITE = EPOLLOUT, UVS_HANGUP = EPOLLRDHUP };

struct uvs {
    struct pd_stream base;      /* first */
    struct uvl_handle handle;
    const struct pd_stream_events *ev;
    void *arg;
    struct uvl_source source;
    struct pd_task task;        /* tells a failed connect, or that it cannot be watched */
    pd_status failure;
    int fd;
    uint16_t family;
    bool told_hangup;
    union {
        struct {
            uint16_t armed;     /* UVS_READ | UVS_WRITE | UVS_HANGUP */
            uint8_t state;
            bool paused, read_ended, wants_write;
            uint16_t unused;
        };
        uint64_t how;           /* all of these, for one look */
    };
};

static inline struct uvs *uvs_of(struct pd_stream *s) { return (struct uvs *)s; }
static inline struct uvl *uvs_loop(struct uvs *s) { return uvl_of(s->base.loop); }

static inline size_t uvs_iov_bytes(const struct pd_iov *iov, size_t n)
{
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += iov[i].len;
    return bytes;
}

/* ---- uv_stream.c */
/* Takes fd, also on failure.  Nothing of it is watched yet. */
pd_status pd_loop_uvs_make(struct uvl *l, int fd, uint16_t family, uint8_t state,
                           const struct pd_stream_events *ev, void *arg, struct uvs **out);
/* Begins to watch what the stream needs and is not watched. */
void pd_loop_uvs_watch(struct uvs *s);
/* What comes of a write of `asked` bytes that returned r; when it was not taken as a whole,
 * on_writable follows. */
pd_status pd_loop_uvs_sent(struct uvs *s, ssize_t r, size_t asked, size_t *sent);

/* ---- uv_sockopt.c */
pd_status pd_loop_uvs_set_option(struct pd_stream *s, uint32_t opt, uint64_t value);
pd_status pd_loop_uvs_local_addr(struct pd_stream *s, struct pd_addr *out);
pd_status pd_loop_uvs_peer_addr(struct pd_stream *s, struct pd_addr *out);
pd_status pd_loop_uvs_peer_cred(struct pd_stream *s, pid_t *pid, uid_t *uid, gid_t *gid);

/* ---- uv_fds.c */
pd_status pd_loop_uvs_send_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n, const int *fds,
                               size_t nfds, size_t *sent);
pd_status pd_loop_uvs_recv_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n, size_t *got,
                               int *fds, size_t max, size_t *nfds);

#endif
