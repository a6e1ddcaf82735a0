/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing of a stream of TLS. */
#include "net/tls_stream.h"

#include <openssl/err.h>
#include <string.h>

#define ROUND (4 * PD_TLS_RECORD)       /* plaintext taken before the stream below is asked */
#define TURN (256 * 1024)               /* plaintext taken in one call */
#define IOV_MAX_LOOKED 64

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
        s->end = pd_tls_status_of(fail);
        s->broken = true;
        if (fail != PD_TLS_FAIL_CLOSED) {
            if (!s->got_bytes)
                s->tls->stats.failed[fail]++;
            pd_tls_log_failure(s, text);
        }
    }
    pd_tls_update_inner(s);
}

pd_status pd_tls_readv(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *got)
{
    struct tls_stream *s = pd_tls_of(base);
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
    pd_tls_flush(s);
    if (*got > 0) {
        if (!s->drained)
            pd_tls_wake(s);
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

pd_status pd_tls_writev(struct pd_stream *base, const struct pd_iov *iov, size_t n, size_t *sent)
{
    struct tls_stream *s = pd_tls_of(base);
    struct cursor c = { iov, n < IOV_MAX_LOOKED ? n : IOV_MAX_LOOKED, 0, 0 };
    size_t asked = 0;

    *sent = 0;
    if (s->state == CONNECTING || s->state == HANDSHAKE) {
        s->wants_write = true;
        return PD_EAGAIN;
    }
    if (s->state != OPEN || s->write_shut || s->broken)
        return s->state == FAILED || s->broken ? s->end : PD_EPEER;
    pd_tls_flush(s);
    if (s->write_status != PD_OK)
        return s->write_status;
    for (size_t i = 0; i < n; i++)
        asked += iov[i].len;
    while (s->out.n == 0 && s->write_status == PD_OK && *sent < TURN) {
        bool more = take_round(s, &c, sent);
        pd_tls_flush(s);
        if (!more)
            break;
    }
    if (*sent == 0 && s->write_status != PD_OK)
        return s->write_status;
    if (*sent < asked) {
        s->wants_write = true;
        if (s->out.n == 0)
            pd_tls_wake(s);
    }
    return *sent > 0 || asked == 0 ? PD_OK : PD_EAGAIN;
}

pd_status pd_tls_shutdown_write(struct pd_stream *base)
{
    struct tls_stream *s = pd_tls_of(base);

    if (s->state == HANDSHAKE) {
        s->shut_pending = true;
        return PD_OK;
    }
    if (s->state != OPEN)
        return PD_EPEER;
    if (s->write_status != PD_OK || s->broken)
        return s->broken ? s->end : s->write_status;
    if (!s->write_shut)
        pd_tls_shut_now(s);
    return PD_OK;
}
