/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors beside the bytes of a unix stream.
 *
 * A message carries at least one byte, so that its descriptors have a place in the order.
 * Received ones are the caller's or closed, also where the kernel cut the message, and
 * are never inherited by a program that is started. */
#include "loop/uv_stream_int.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * UVL_FDS_MAX)];
};

pd_status pd_loop_uvs_send_fds(struct pd_stream *base, const struct pd_iov *iov, size_t n, const int *fds,
                               size_t nfds, size_t *sent)
{
    struct uvs *s = uvs_of(base);
    union fd_control control;
    struct cmsghdr *c;
    struct msghdr msg;
    ssize_t r;

    *sent = 0;
    if (s->family != PD_AF_UNIX)
        return PD_ENOSYS;
    if (nfds == 0 || nfds > UVL_FDS_MAX || n == 0 || n > UVL_IOV_MAX || uvs_iov_bytes(iov, n) == 0)
        return PD_EINVAL;
    if (s->state != OPEN)
        return s->state == CONNECTING ? PD_EAGAIN : PD_EPEER;
    memset(&control, 0, sizeof control);
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = (struct iovec *)(uintptr_t)iov;
    msg.msg_iovlen = n;
    msg.msg_control = control.bytes;
    msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
    c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    do {
        uvs_loop(s)->st.writes++;
        r = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return pd_loop_uvs_sent(s, r, uvs_iov_bytes(iov, n), sent);
}

/* Moves received descriptors to fds, closes those that do not fit. */
static bool take_fds(struct msghdr *msg, int *fds, size_t max, size_t *nfds)
{
    bool complete = (msg->msg_flags & MSG_CTRUNC) == 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t count;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (*nfds < max) {
                fds[(*nfds)++] = fd;
            } else {
                close(fd);
                complete = false;
            }
        }
    }
    return complete;
}

pd_status pd_loop_uvs_recv_fds(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *got,
                               int *fds, size_t max, size_t *nfds)
{
    struct uvs *s = uvs_of(base);
    struct uvl *l = uvs_loop(s);
    union fd_control control;
    struct msghdr msg;
    ssize_t r;

    *got = 0;
    *nfds = 0;
    if (s->family != PD_AF_UNIX)
        return PD_ENOSYS;
    if (n == 0 || n > UVL_IOV_MAX || uvs_iov_bytes(iov, n) == 0)
        return PD_EINVAL;
    if (s->state != OPEN)
        return s->state == CONNECTING ? PD_EAGAIN : PD_EPEER;
    if (s->read_ended)
        return s->failure != PD_OK ? s->failure : PD_EEOF;
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = (struct iovec *)(uintptr_t)iov;
    msg.msg_iovlen = n;
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof control.bytes;
    do {
        l->st.reads++;
        r = recvmsg(s->fd, &msg, MSG_CMSG_CLOEXEC);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return PD_EAGAIN;
    if (r <= 0) {
        s->read_ended = true;
        s->failure = r < 0 ? pd_status_from_errno(errno) : PD_OK;
        return r < 0 ? s->failure : PD_EEOF;
    }
    *got = (size_t)r;
    l->st.read_bytes += (uint64_t)r;
    return take_fds(&msg, fds, max, nfds) ? PD_OK : PD_ELIMIT;
}
