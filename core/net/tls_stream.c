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
 * CLOSING: the owner is gone, `out` (or an alert) is still on its way. */
#include "net/tls_int.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

#define ROUND (4 * PD_TLS_RECORD)       /* plaintext taken before the stream below is asked */
#define TURN (256 * 1024)               /* plaintext taken in one call */
#define IOV_MAX_LOOKED 64
#define CLOSE_NS (5 * PD_SEC)
#define DRAIN_NS (1 * PD_SEC)
#define DRAIN_BYTES (64 * 1024)

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

static struct tls_stream *of(struct pd_stream *s) { return (struct tls_stream *)s; }

static const struct pd_stream_ops ops;

/* ---- the stream below, as OpenSSL sees it ---- */

static int bio_read(BIO *b, char *p, size_t n, size_t *got)
{
    struct tls_stream *s = BIO_get_data(b);
    pd_status st = pd_stream_read(s->inner, p, n, got);

    BIO_clear_retry_flags(b);
    if (st == PD_OK)
        return 1;
    *got = 0;
    if (st == PD_EAGAIN) {
        BIO_set_retry_read(b);
    } else if (st == PD_EEOF) {
        s->inner_eof = true;
        return 0;
    } else {
        s->inner_status = st;
    }
    return -1;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *sent)
{
    struct tls_stream *s = BIO_get_data(b);

    BIO_clear_retry_flags(b);
    if (s->out.base == NULL && s->tls->spare.base != NULL) {
        s->out = s->tls->spare;
        pd_buf_init(&s->tls->spare, PD_TLS_OUT);
    }
    if (pd_buf_append(&s->out, p, n) != PD_OK)
        return -1;
    *sent = n;
    return 1;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *p)
{
    const struct tls_stream *s = BIO_get_data(b);

    (void)num;
    (void)p;
    switch (cmd) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return s->inner_eof;
    default:
        return 0;
    }
}

BIO_METHOD *pd_tls_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pd_stream");

    if (m != NULL && (BIO_meth_set_read_ex(m, bio_read) != 1 ||
                      BIO_meth_set_write_ex(m, bio_write) != 1 ||
                      BIO_meth_set_ctrl(m, bio_ctrl) != 1)) {
        BIO_meth_free(m);
        return NULL;
    }
    return m;
}

/* ---- downwards ---- */

static void update_inner(struct tls_stream *s)
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

static void flush(struct tls_stream *s)
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

static void close_inner(struct tls_stream *s)
{
    s->state = CLOSED;
    pd_timer_stop(&s->timer);
    pd_task_cancel(s->base.loop, &s->task);
    pd_stream_close(s->inner);
}

/* ---- upwards; from loop callbacks only ---- */

static void wake(struct tls_stream *s)
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

static void deliver_readable(struct tls_stream *s)
{
    if (wants_read(s) && s->ev != NULL && s->ev->on_readable != NULL)
        s->ev->on_readable(&s->base, s->arg);
    if (wants_read(s) && s->ev != NULL)
        wake(s);
}

static void deliver_writable(struct tls_stream *s)
{
    if (!is_live(s) || !s->wants_write || s->ev == NULL)
        return;
    if (s->state == OPEN && s->write_status == PD_OK && !s->broken && s->out.n > 0)
        return;
    s->wants_write = false;
    if (s->ev->on_writable != NULL)
        s->ev->on_writable(&s->base, s->arg);
}

/* ---- handshake ---- */

static void count_end(struct tls_stream *s)
{
    pd_timer_stop(&s->timer);
    if (s->is_counted)
        s->tls->stats.handshaking--;
    s->is_counted = false;
}

/* Lines about strangers on a public listener are for those who look for them. */
static void log_failure(struct tls_stream *s, const char *text)
{
    const struct pd_tls_conf *c = &s->tls->conf;
    struct pd_addr addr;
    char where[PD_ADDR_TEXT] = "a peer";

    if (pd_stream_peer_addr(s->inner, &addr) == PD_OK)
        pd_addr_format(s->base.loop, &addr, where, sizeof where);
    if (c->is_server && c->ca == NULL)
        pd_log_info(s->tls->log, "TLS for %s: no connection with %s: %s", c->what, where, text);
    else
        pd_log_warn(s->tls->log, "TLS for %s: no connection with %s: %s", c->what, where, text);
}

static pd_status status_of(enum pd_tls_fail fail)
{
    switch (fail) {
    case PD_TLS_FAIL_TIMEOUT:
        return PD_ETIMEDOUT;
    case PD_TLS_FAIL_CLOSED:
        return PD_EPEER;
    case PD_TLS_FAIL_MEMORY:
        return PD_ENOMEM;
    case PD_TLS_FAIL_NO_CERTIFICATE:
    case PD_TLS_FAIL_EXPIRED:
    case PD_TLS_FAIL_AUTHORITY:
    case PD_TLS_FAIL_NAME:
    case PD_TLS_FAIL_CERTIFICATE:
    case PD_TLS_FAIL_REFUSED:
        return PD_EPERM;
    default:
        return PD_EPROTO;
    }
}

static void tell_failure(struct tls_stream *s, pd_status status)
{
    s->state = FAILED;
    s->end = status;
    s->drained = false;
    update_inner(s);
    if (s->is_client) {
        s->end_told = true;
        if (s->ev != NULL && s->ev->on_connected != NULL)
            s->ev->on_connected(&s->base, status, s->arg);
        return;
    }
    deliver_writable(s);
    deliver_readable(s);
}

static void handshake_failed(struct tls_stream *s, enum pd_tls_fail fail, const char *text)
{
    s->tls->stats.failed[fail]++;
    count_end(s);
    log_failure(s, text);
    s->draining = fail != PD_TLS_FAIL_CLOSED && fail != PD_TLS_FAIL_TIMEOUT;
    flush(s);
    tell_failure(s, status_of(fail));
}

/* Reads the node's uuid from the certificate of the other side. */
static void read_node(struct tls_stream *s)
{
    const struct pd_str prefix = PD_STR("urn:uuid:");
    X509 *x = SSL_get0_peer_certificate(s->ssl);
    GENERAL_NAMES *names = x == NULL ? NULL : X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names) && !s->has_node; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type != GEN_URI)
            continue;
        struct pd_str uri = { (const char *)ASN1_STRING_get0_data(g->d.ia5),
                              (size_t)ASN1_STRING_length(g->d.ia5) };
        if (pd_str_starts_with(uri, prefix))
            s->has_node = pd_uuid_parse(pd_str_sub(uri, prefix.n, uri.n), &s->node) == PD_OK;
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
}

static void shut_now(struct tls_stream *s)
{
    s->write_shut = true;
    ERR_clear_error();
    (void)SSL_shutdown(s->ssl);
    ERR_clear_error();
    flush(s);
}

static void handshake_done(struct tls_stream *s)
{
    s->tls->stats.ok++;
    count_end(s);
    read_node(s);
    s->state = OPEN;
    s->drained = false;
    update_inner(s);
    if (s->shut_pending)
        shut_now(s);
    if (s->is_client) {
        wake(s);
        if (s->ev != NULL && s->ev->on_connected != NULL)
            s->ev->on_connected(&s->base, PD_OK, s->arg);
        return;
    }
    deliver_writable(s);
    deliver_readable(s);
}

static void handshake_step(struct tls_stream *s)
{
    char text[200];
    int r, why;

    ERR_clear_error();
    r = SSL_do_handshake(s->ssl);
    why = r == 1 ? SSL_ERROR_NONE : SSL_get_error(s->ssl, r);
    flush(s);
    if (r == 1) {
        handshake_done(s);
    } else if (why != SSL_ERROR_WANT_READ) {
        enum pd_tls_fail fail = pd_tls_reason(s->ssl, text, sizeof text);
        handshake_failed(s, fail, text);
    }
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct tls_stream *s = arg;

    (void)timer;
    if (s->state == HANDSHAKE)
        handshake_failed(s, PD_TLS_FAIL_TIMEOUT, "the handshake took too long");
    else if (s->state == CLOSING)
        close_inner(s);
}

static pd_status begin(struct tls_stream *s)
{
    struct pd_tls *tls = s->tls;
    const char *name = tls->conf.name;
    BIO *bio;

    if (tls->stats.handshaking >= tls->conf.max_handshakes) {
        tls->stats.failed[PD_TLS_FAIL_LIMIT]++;
        return PD_ELIMIT;
    }
    s->ssl = SSL_new(pd_tls_current(tls));
    bio = s->ssl == NULL ? NULL : BIO_new(tls->bio);
    if (bio == NULL) {
        tls->stats.failed[PD_TLS_FAIL_MEMORY]++;
        return PD_ENOMEM;
    }
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(s->ssl, bio, bio);
    if (s->is_client)
        SSL_set_connect_state(s->ssl);
    else
        SSL_set_accept_state(s->ssl);
    if (s->is_client && name != NULL && name[strspn(name, "0123456789.")] != '\0' &&
        strchr(name, ':') == NULL)
        (void)SSL_set_tlsext_host_name(s->ssl, name);
    s->state = HANDSHAKE;
    s->is_counted = true;
    tls->stats.handshaking++;
    pd_timer_start(&s->timer, tls->conf.handshake_ns);
    return PD_OK;
}

/* ---- events of the stream below ---- */

static void inner_connected(struct pd_stream *inner, pd_status status, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    if (s->state != CONNECTING)
        return;
    if (status == PD_OK)
        status = begin(s);
    if (status != PD_OK)
        tell_failure(s, status);
    else
        handshake_step(s);
}

static void drain_inner(struct tls_stream *s)
{
    size_t got;
    pd_status st = pd_stream_read(s->inner, s->tls->gather, PD_TLS_RECORD, &got);

    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK || got > s->drain_left)
        close_inner(s);
    else
        s->drain_left -= got;
}

static void inner_readable(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    if (s->state == HANDSHAKE) {
        handshake_step(s);
    } else if (s->state == OPEN) {
        s->drained = false;
        deliver_readable(s);
    } else if (s->state == CLOSING && s->draining) {
        drain_inner(s);
    }
}

/* After the last bytes of a stream that its owner has closed. */
static void settle_close(struct tls_stream *s)
{
    if (s->write_status != PD_OK) {
        close_inner(s);
    } else if (s->out.n == 0 && s->draining) {
        if (!s->inner_shut)
            (void)pd_stream_shutdown_write(s->inner);
        s->inner_shut = true;
    } else if (s->out.n == 0) {
        close_inner(s);
    }
}

static void inner_writable(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    s->inner_blocked = false;
    if (s->state == CLOSED)
        return;
    flush(s);
    if (s->state == CLOSING)
        settle_close(s);
    else
        deliver_writable(s);
}

static void inner_hangup(struct pd_stream *inner, void *arg)
{
    struct tls_stream *s = arg;

    (void)inner;
    if (s->state == CLOSING) {
        close_inner(s);
    } else if (s->state == OPEN && s->paused && s->end == PD_OK && !s->told_hangup) {
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
    count_end(s);
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
    deliver_writable(s);
    deliver_readable(s);
}

/* ---- reading ---- */

/* OpenSSL gave no byte: what that means. */
static void read_stopped(struct tls_stream *s)
{
    char text[200];
    int why = SSL_get_error(s->ssl, 0);

    if (why == SSL_ERROR_WANT_READ) {
        s->drained = true;
        return;
    }
    if (why == SSL_ERROR_ZERO_RETURN) {
        s->end = PD_EEOF;
    } else if (s->inner_status != PD_OK) {
        s->end = s->inner_status;
        ERR_clear_error();
    } else {
        /* An end without a word of farewell may have been made by anyone. */
        enum pd_tls_fail fail = pd_tls_reason(s->ssl, text, sizeof text);
        s->end = status_of(fail);
        s->broken = true;
        if (fail != PD_TLS_FAIL_CLOSED) {
            if (!s->got_bytes)
                s->tls->stats.failed[fail]++;
            log_failure(s, text);
        }
    }
    update_inner(s);
}

static pd_status tls_readv(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *got)
{
    struct tls_stream *s = of(base);
    bool stopped = false, room = false;

    *got = 0;
    if (s->state >= CLOSING)
        return PD_EPEER;
    if (s->state == CONNECTING || s->state == HANDSHAKE)
        return PD_EAGAIN;
    for (size_t i = 0; s->end == PD_OK && i < n && i < IOV_MAX_LOOKED && !stopped; i++) {
        size_t at = 0, k;
        while (at < iov[i].len && !stopped) {
            room = true;
            ERR_clear_error();
            stopped = SSL_read_ex(s->ssl, (char *)iov[i].base + at, iov[i].len - at, &k) != 1;
            if (!stopped) {
                at += k;
                *got += k;
                s->got_bytes = true;
            }
        }
    }
    if (stopped)
        read_stopped(s);
    flush(s);
    if (*got > 0) {
        if (!s->drained)
            wake(s);
        return PD_OK;
    }
    if (s->end != PD_OK) {
        s->end_told = true;
        return s->end;
    }
    return room ? PD_EAGAIN : PD_EINVAL;
}

/* ---- writing ---- */

/* A place in the caller's runs. */
struct cursor {
    const struct pd_iov *iov;
    size_t n, i, at;
};

/* The next run of plaintext for one record: straight from the caller when it is
 * large, else gathered. */
static const char *next_run(struct tls_stream *s, struct cursor *c, size_t *n)
{
    const char *direct;

    while (c->i < c->n && c->at == c->iov[c->i].len) {
        c->i++;
        c->at = 0;
    }
    *n = 0;
    if (c->i == c->n)
        return NULL;
    direct = (const char *)c->iov[c->i].base + c->at;
    if (c->i + 1 == c->n || c->iov[c->i].len - c->at >= PD_TLS_RECORD) {
        *n = c->iov[c->i].len - c->at;
        *n = *n < PD_TLS_RECORD ? *n : PD_TLS_RECORD;
        c->at += *n;
        return direct;
    }
    while (c->i < c->n && *n < PD_TLS_RECORD) {
        size_t left = c->iov[c->i].len - c->at, room = PD_TLS_RECORD - *n;
        size_t k = left < room ? left : room;
        if (k > 0)
            memcpy(s->tls->gather + *n, (const char *)c->iov[c->i].base + c->at, k);
        *n += k;
        c->at += k;
        if (c->at == c->iov[c->i].len) {
            c->i++;
            c->at = 0;
        }
    }
    return s->tls->gather;
}

/* Takes one round of plaintext; false when no more is to be had or possible. */
static bool take_round(struct tls_stream *s, struct cursor *c, size_t *sent)
{
    size_t taken = 0, n, k;

    while (taken < ROUND) {
        const char *p = next_run(s, c, &n);
        if (n == 0)
            return false;
        ERR_clear_error();
        if (SSL_write_ex(s->ssl, p, n, &k) != 1 || k != n) {
            ERR_clear_error();
            s->write_status = s->out.status == PD_ENOMEM ? PD_ENOMEM : PD_EPROTO;
            return false;
        }
        taken += n;
        *sent += n;
    }
    return true;
}

static pd_status tls_writev(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *sent)
{
    struct tls_stream *s = of(base);
    struct cursor c = { iov, n < IOV_MAX_LOOKED ? n : IOV_MAX_LOOKED, 0, 0 };
    size_t asked = 0;

    *sent = 0;
    if (s->state == CONNECTING || s->state == HANDSHAKE) {
        s->wants_write = true;
        return PD_EAGAIN;
    }
    if (s->state != OPEN || s->write_shut || s->broken)
        return s->state == FAILED || s->broken ? s->end : PD_EPEER;
    flush(s);
    if (s->write_status != PD_OK)
        return s->write_status;
    for (size_t i = 0; i < n; i++)
        asked += iov[i].len;
    while (s->out.n == 0 && s->write_status == PD_OK && *sent < TURN) {
        bool more = take_round(s, &c, sent);
        flush(s);
        if (!more)
            break;
    }
    if (*sent == 0 && s->write_status != PD_OK)
        return s->write_status;
    if (*sent < asked) {
        s->wants_write = true;
        if (s->out.n == 0)
            wake(s);
    }
    return *sent > 0 || asked == 0 ? PD_OK : PD_EAGAIN;
}

static pd_status tls_shutdown_write(struct pd_stream *base)
{
    struct tls_stream *s = of(base);

    if (s->state == HANDSHAKE) {
        s->shut_pending = true;
        return PD_OK;
    }
    if (s->state != OPEN)
        return PD_EPEER;
    if (s->write_status != PD_OK || s->broken)
        return s->broken ? s->end : s->write_status;
    if (!s->write_shut)
        shut_now(s);
    return PD_OK;
}

/* ---- the rest of the table ---- */

static void tls_pause_read(struct pd_stream *base)
{
    of(base)->paused = true;
    update_inner(of(base));
}

static void tls_resume_read(struct pd_stream *base)
{
    struct tls_stream *s = of(base);

    s->paused = false;
    update_inner(s);
    if (wants_read(s))
        wake(s);
}

static void tls_close(struct pd_stream *base)
{
    struct tls_stream *s = of(base);
    bool can_talk = s->ssl != NULL && !s->reset && s->write_status == PD_OK;

    if (s->state >= CLOSING)
        return;
    count_end(s);
    pd_task_cancel(base->loop, &s->task);
    if (s->state == OPEN && can_talk && !s->write_shut && !s->broken) {
        ERR_clear_error();
        (void)SSL_shutdown(s->ssl);
        ERR_clear_error();
    }
    if (s->state != FAILED)
        s->draining = false;
    if (can_talk && (s->state == OPEN || s->state == FAILED))
        flush(s);
    if (!can_talk || s->write_status != PD_OK || (s->out.n == 0 && !s->draining) ||
        (s->state != OPEN && s->state != FAILED)) {
        close_inner(s);
        return;
    }
    s->drain_left = DRAIN_BYTES;
    s->state = CLOSING;
    update_inner(s);
    settle_close(s);
    if (s->state == CLOSING)
        pd_timer_start(&s->timer, s->draining ? DRAIN_NS : CLOSE_NS);
}

static void tls_set_events(struct pd_stream *base, const struct pd_stream_events *ev, void *arg)
{
    struct tls_stream *s = of(base);

    s->ev = ev;
    s->arg = arg;
    if (wants_read(s))
        wake(s);
}

static pd_status tls_set_option(struct pd_stream *base, uint32_t opt, uint64_t value)
{
    struct tls_stream *s = of(base);

    if (s->state >= CLOSING)
        return PD_EPEER;
    if (opt == PD_STREAM_LINGER_RESET)
        s->reset = value != 0;
    return pd_stream_set_option(s->inner, opt, value);
}

static pd_status tls_local_addr(struct pd_stream *base, struct pd_addr *out)
{
    return of(base)->state == CLOSED ? PD_EPEER : pd_stream_local_addr(of(base)->inner, out);
}

static pd_status tls_peer_addr(struct pd_stream *base, struct pd_addr *out)
{
    return of(base)->state == CLOSED ? PD_EPEER : pd_stream_peer_addr(of(base)->inner, out);
}

static pd_status tls_peer_cred(struct pd_stream *base, pid_t *pid, uid_t *uid, gid_t *gid)
{
    return of(base)->state == CLOSED ? PD_EPEER : pd_stream_peer_cred(of(base)->inner, pid, uid, gid);
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
    return of(base)->state == CLOSED ? -1 : pd_stream_fd(of(base)->inner);
}

static const struct pd_stream_ops ops = {
    .size = sizeof(struct pd_stream_ops),
    .readv = tls_readv,
    .writev = tls_writev,
    .pause_read = tls_pause_read,
    .resume_read = tls_resume_read,
    .shutdown_write = tls_shutdown_write,
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
    pd_timer_init(&s->timer, tls->loop, "tls", on_timer, s);
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
        st = begin(s);
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
