/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of TLS over another stream.
 *
 *   CONNECTING -> HANDSHAKE -> OPEN -> CLOSING -> CLOSED
 *                          `-> FAILED ---^
 *
 * Ciphertext that OpenSSL writes goes to `out`, which always takes it (up to its
 * limit), and from there to the stream below; plaintext is taken only while
 * `out` is empty, so at most one round of records waits.  Ciphertext is read
 * straight from the stream below.
 *
 * `drained` says that OpenSSL has nothing left and waits for bytes from below;
 * while it is false and the owner wants to read, on_readable comes again from
 * our task, as the stream below would do it.
 *
 * CLOSING: the owner is gone, `out` (or an alert) is still on its way.
 *
 * tls_bio.c is what OpenSSL sees below, tls_hand.c the handshake, tls_io.c reading
 * and writing, tls_stream.c the rest.  Private to these files.  Loop thread. */
#ifndef PD_NET_TLS_STREAM_H
#define PD_NET_TLS_STREAM_H

#include "net/tls_int.h"

#include "base/str.h"
#include "base/uuid.h"

enum state { CONNECTING, HANDSHAKE, OPEN, FAILED, CLOSING, CLOSED };

struct tls_stream {
    struct pd_stream base;      /* first */
    struct pd_tls *tls;
    struct pd_stream *inner;
    SSL *ssl;
    const struct pd_stream_events *ev;
    void *arg;
    struct pd_buf out;
    struct pd_timer timer;
    struct pd_task task;
    pd_status end;              /* of reading; PD_OK: not yet */
    pd_status write_status;     /* of the stream below, when a write of ours failed */
    pd_status inner_status;     /* of its last read, when it was an error */
    size_t drain_left;
    struct pd_uuid node;
    uint8_t state;
    bool is_client, has_node, is_counted;
    bool inner_eof, inner_blocked, inner_paused, inner_shut;
    bool paused, wants_write, drained, end_told, told_hangup, got_bytes;
    bool write_shut, shut_pending, draining, reset;
    bool broken;                /* by the other side: OpenSSL says no more */
};

static inline struct tls_stream *pd_tls_of(struct pd_stream *s)
{
    return (struct tls_stream *)s;
}

/* ---- tls_stream.c: the stream below, and the owner ---- */

/* Reads below as much as the owner wants. */
void pd_tls_update_inner(struct tls_stream *s);
/* Sends what is in `out`. */
void pd_tls_flush(struct tls_stream *s);
void pd_tls_close_inner(struct tls_stream *s);
/* The task runs soon. */
void pd_tls_wake(struct tls_stream *s);
/* From loop callbacks only. */
void pd_tls_deliver_readable(struct tls_stream *s);
void pd_tls_deliver_writable(struct tls_stream *s);

/* ---- tls_hand.c: the handshake ---- */

/* PD_OK, PD_ENOMEM, PD_EIO. */
pd_status pd_tls_begin(struct tls_stream *s);
void pd_tls_handshake_step(struct tls_stream *s);
/* The handshake took too long, or the end did. */
void pd_tls_on_timer(struct pd_timer *timer, void *arg);
/* A handshake has ended, however it did. */
void pd_tls_count_end(struct tls_stream *s);
void pd_tls_log_failure(struct tls_stream *s, const char *text);
pd_status pd_tls_status_of(enum pd_tls_fail fail);
/* The owner learns that there is no connection. */
void pd_tls_tell_failure(struct tls_stream *s, pd_status status);
/* Sends our alert of the end of writing. */
void pd_tls_shut_now(struct tls_stream *s);

/* ---- tls_io.c: the table's reading and writing ---- */

pd_status pd_tls_readv(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *got);
pd_status pd_tls_writev(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *sent);
pd_status pd_tls_shutdown_write(struct pd_stream *base);

#endif
