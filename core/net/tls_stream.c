/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of TLS over another stream: events, ends, and how they are made.  The
 * whole picture is in tls_stream.h. */
#include "net/tls_stream.h"

#include "base/mem.h"
#include "base/str.h"

#include <openssl/err.h>

#define CLOSE_NS (5 * PD_SEC)
#define DRAIN_NS (1 * PD_SEC)
#define DRAIN_BYTES (64 * 1024)

static const struct pd_stream_ops ops;

/* ---- downwards ---- */

void pd_tls_update_inner(struct tls_stream *s)
{
    bool pause = s->state == CLOSING ? !s->draining
               : s->state == OPEN ? s->paused || s->end != PD_OK
               : s->state == FAILED;

    if (s->state == CLOSED || pause == s->inner_paused)
        return;
    s->inner_paused = pause;
    if (pause)
        pd_stream_pause_read(s->inner);
    else
        pd_stream_resume_read(s->inner);
}

static void out_is_empty(struct tls_stream *s)
{
    if (s->out.base != NULL && s->tls->spare.base == NULL) {
        s->tls->spare = s->out;
        pd_buf_init(&s->out, PD_TLS_OUT);
    } else {
        pd_buf_fini(&s->out);
        pd_buf_init(&s->out, PD_TLS_OUT);
    }
    if (s->write_shut && !s->inner_shut) {
        s->inner_shut = true;
        (void)pd_stream_shutdown_write(s->inner);
    }
}

void pd_tls_flush(struct tls_stream *s)
{
    while (s->out.n > 0 && !s->inner_blocked && s->write_status == PD_OK) {
        size_t sent = 0, asked = s->out.n;
        pd_status st = pd_stream_write(s->inner, s->out.p, asked, &sent);
        if (st != PD_OK && st != PD_EAGAIN) {
            s->write_status = st;
            return;
        }
        pd_buf_consume(&s->out, sent);
        s->inner_blocked = sent < asked;
    }
    if (s->out.n == 0 && s->write_status == PD_OK)
        out_is_empty(s);
}

void pd_tls_close_inner(struct tls_stream *s)
{
    s->state = CLOSED;
    pd_timer_stop(&s->timer);
    pd_task_cancel(s->base.loop, &s->task);
    pd_stream_close(s->inner);
}

/* ---- upwards; from loop callbacks only ---- */

void pd_tls_wake(struct tls_stream *s)
{
    pd_loop_defer(s->base.loop, &s->task);
}

static bool is_live(const struct tls_stream *s)
{
    return s->state == OPEN || s->state == FAILED;
}

static bool wants_read(const struct tls_stream *s)
{
    return is_live(s) && !s->paused && !s->end_told && !s->drained;
}

void pd_tls_deliver_readable(struct tls_stream *s)
{
    if (wants_read(s) && s->ev != NULL && s->ev->on_readable != NULL)
        s->ev->on_readable(&s->base, s->arg);
    if (wants_read(s) && s->ev != NULL)
        pd_tls_wake(s);
}

void pd_tls_deliver_writable(struct tls_stream *s)
{
    if (!is_live(s) || !s->wants_write || s->ev == NULL)
        return;
    if (s->state == OPEN && s->write_status == PD_OK && !s->broken && s->out.n > 0)
        return;
    s->wants_write = false;
    if (s->ev->on_writable != NULL)
        s->ev->on_writable(&s->base, s->arg);
}

/* ---- events of the stream below ---- */

static void inner_connected(struct pd_stream *inner, pd_status status, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    if (s->state != CONNECTING)
        return;
    if (status == PD_OK)
        status = pd_tls_begin(s);
    if (status != PD_OK)
        pd_tls_tell_failure(s, status);
    else
        pd_tls_handshake_step(s);
}

static void drain_inner(struct tls_stream *s)
{
    size_t got;
    pd_status st = pd_stream_read(s->inner, s->tls->gather, PD_TLS_RECORD, &got);

    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK || got > s->drain_left)
        pd_tls_close_inner(s);
    else
        s->drain_left -= got;
}

static void inner_readable(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    if (s->state == HANDSHAKE) {
        pd_tls_handshake_step(s);
    } else if (s->state == OPEN) {
        s->drained = false;
        pd_tls_deliver_readable(s);
    } else if (s->state == CLOSING && s->draining) {
        drain_inner(s);
    }
}

/* After the last bytes of a stream that its owner has closed. */
static void settle_close(struct tls_stream *s)
{
    if (s->write_status != PD_OK) {
        pd_tls_close_inner(s);
    } else if (s->out.n == 0 && s->draining) {
        if (!s->inner_shut)
            (void)pd_stream_shutdown_write(s->inner);
        s->inner_shut = true;
    } else if (s->out.n == 0) {
        pd_tls_close_inner(s);
    }
}

static void inner_writable(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    s->inner_blocked = false;
    if (s->state == CLOSED)
        return;
    pd_tls_flush(s);
    if (s->state == CLOSING)
        settle_close(s);
    else
        pd_tls_deliver_writable(s);
}

static void inner_hangup(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    /* Of a stream that its owner has closed, `out` is still on its way: the other side may
     * have ended its own half only; if it is gone, the next write fails. */
    if (s->state == OPEN && s->paused && s->end == PD_OK && !s->told_hangup) {
        s->told_hangup = true;
        if (s->ev != NULL && s->ev->on_hangup != NULL)
            s->ev->on_hangup(&s->base, s->arg);
    }
}

static void stream_free(struct tls_stream *s)
{
    SSL_free(s->ssl);
    pd_buf_fini(&s->out);
    pd_tls_stream_gone(s->tls);
    pd_free(s);
}

static void inner_closed(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    pd_tls_count_end(s);
    pd_task_cancel(s->base.loop, &s->task);
    if (s->ev != NULL && s->ev->on_closed != NULL)
        s->ev->on_closed(&s->base, s->arg);
    stream_free(s);
}

static const struct pd_stream_events inner_events = {
    .name = "tls",
    .on_connected = inner_connected,
    .on_readable = inner_readable,
    .on_writable = inner_writable,
    .on_hangup = inner_hangup,
    .on_closed = inner_closed,
};

static void on_task(struct pd_task *task, void *arg)
{
    struct tls_stream *s = arg;

    (void)task;
    pd_tls_deliver_writable(s);
    pd_tls_deliver_readable(s);
}

/* ---- the rest of the table ---- */

static void tls_pause_read(struct pd_stream *base)
{
    pd_tls_of(base)->paused = true;
    pd_tls_update_inner(pd_tls_of(base));
}

static void tls_resume_read(struct pd_stream *base)
{
    struct tls_stream *s = pd_tls_of(base);

    s->paused = false;
    pd_tls_update_inner(s);
    if (wants_read(s))
        pd_tls_wake(s);
}

static void tls_close(struct pd_stream *base)
{
    struct tls_stream *s = pd_tls_of(base);
    bool can_talk = s->ssl != NULL && !s->reset && s->write_status == PD_OK;

    if (s->state >= CLOSING)
        return;
    pd_tls_count_end(s);
    pd_task_cancel(base->loop, &s->task);
    if (s->state == OPEN && can_talk && !s->write_shut && !s->broken) {
        ERR_clear_error();
        (void)SSL_shutdown(s->ssl);
        ERR_clear_error();
    }
    if (s->state != FAILED)
        s->draining = false;
    if (can_talk && (s->state == OPEN || s->state == FAILED))
        pd_tls_flush(s);
    if (!can_talk || s->write_status != PD_OK || (s->out.n == 0 && !s->draining) ||
        (s->state != OPEN && s->state != FAILED)) {
        pd_tls_close_inner(s);
        return;
    }
    s->drain_left = DRAIN_BYTES;
    s->state = CLOSING;
    pd_tls_update_inner(s);
    settle_close(s);
    if (s->state == CLOSING)
        pd_timer_start(&s->timer, s->draining ? DRAIN_NS : CLOSE_NS);
}

static void tls_set_events(struct pd_stream *base, const struct pd_stream_events *ev, void *arg)
{
    struct tls_stream *s = pd_tls_of(base);

    s->ev = ev;
    s->arg = arg;
    if (wants_read(s))
        pd_tls_wake(s);
}

static pd_status tls_set_option(struct pd_stream *base, uint32_t opt, uint64_t value)
{
    struct tls_stream *s = pd_tls_of(base);

    if (s->state >= CLOSING)
        return PD_EPEER;
    if (opt == PD_STREAM_LINGER_RESET)
        s->reset = value != 0;
    return pd_stream_set_option(s->inner, opt, value);
}

static pd_status tls_local_addr(struct pd_stream *base, struct pd_addr *out)
{
    return pd_tls_of(base)->state == CLOSED ? PD_EPEER : pd_stream_local_addr(pd_tls_of(base)->inner, out);
}

static pd_status tls_peer_addr(struct pd_stream *base, struct pd_addr *out)
{
    return pd_tls_of(base)->state == CLOSED ? PD_EPEER : pd_stream_peer_addr(pd_tls_of(base)->inner, out);
}

static pd_status tls_peer_cred(struct pd_stream *base, pid_t *pid, uid_t *uid, gid_t *gid)
{
    return pd_tls_of(base)->state == CLOSED ? PD_EPEER : pd_stream_peer_cred(pd_tls_of(base)->inner, pid, uid, gid);
}

static pd_status tls_send_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n, const int *fds,
                              size_t nfds, size_t *sent)
{
    (void)s;
    (void)iov;
    (void)n;
    (void)fds;
    (void)nfds;
    *sent = 0;
    return PD_ENOSYS;
}

static pd_status tls_recv_fds(struct pd_stream *s, const struct pd_iov *iov, size_t n, size_t *got,
                              int *fds, size_t max, size_t *nfds)
{
    (void)s;
    (void)iov;
    (void)n;
    (void)fds;
    (void)max;
    *got = *nfds = 0;
    return PD_ENOSYS;
}

static int tls_fd(struct pd_stream *base)
{
    return pd_tls_of(base)->state == CLOSED ? -1 : pd_stream_fd(pd_tls_of(base)->inner);
}

static const struct pd_stream_ops ops = {
    .size = sizeof(struct pd_stream_ops),
    .readv = pd_tls_readv,
    .writev = pd_tls_writev,
    .pause_read = tls_pause_read,
    .resume_read = tls_resume_read,
    .shutdown_write = pd_tls_shutdown_write,
    .close = tls_close,
    .set_events = tls_set_events,
    .set_option = tls_set_option,
    .local_addr = tls_local_addr,
    .peer_addr = tls_peer_addr,
    .peer_cred = tls_peer_cred,
    .send_fds = tls_send_fds,
    .recv_fds = tls_recv_fds,
    .fd = tls_fd,
};

/* ---- making them ---- */

static struct tls_stream *stream_make(struct pd_tls *tls, bool is_client)
{
    struct tls_stream *s = pd_calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->base.ops = &ops;
    s->base.loop = tls->loop;
    s->tls = tls;
    s->is_client = is_client;
    pd_buf_init(&s->out, PD_TLS_OUT);
    pd_timer_init(&s->timer, tls->loop, "tls", pd_tls_on_timer, s);
    pd_task_init(&s->task, "tls", on_task, s);
    tls->stats.streams++;
    return s;
}

static const struct pd_stream_events refused_events = { .name = "tls refused" };

pd_status pd_tls_accept(struct pd_tls *tls, struct pd_stream *inner, struct pd_stream **out)
{
    struct tls_stream *s = stream_make(tls, false);
    pd_status st = s == NULL ? PD_ENOMEM : PD_OK;

    if (s != NULL) {
        s->inner = inner;
        st = pd_tls_begin(s);
        if (st != PD_OK)
            stream_free(s);
    }
    if (st != PD_OK) {
        pd_stream_set_events(inner, &refused_events, NULL);
        pd_stream_close(inner);
        return st;
    }
    pd_stream_set_events(inner, &inner_events, s);
    *out = &s->base;
    return PD_OK;
}

pd_status pd_tls_connect(struct pd_tls *tls, const struct pd_addr *to,
                         const struct pd_stream_events *ev, void *arg, struct pd_stream **out)
{
    struct tls_stream *s = stream_make(tls, true);
    pd_status st;

    if (s == NULL)
        return PD_ENOMEM;
    s->ev = ev;
    s->arg = arg;
    st = pd_stream_connect(tls->loop, to, &inner_events, s, &s->inner);
    if (st != PD_OK) {
        stream_free(s);
        return st;
    }
    *out = &s->base;
    return PD_OK;
}

bool pd_tls_stream_node(const struct pd_stream *base, struct pd_uuid *out)
{
    const struct tls_stream *s = (const struct tls_stream *)(const void *)base;

    if (base == NULL || base->ops != &ops || !s->has_node)
        return false;
    *out = s->node;
    return true;
}
