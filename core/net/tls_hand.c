/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes of a stream of TLS, and how they fail. */
#include "net/tls_stream.h"

#include "base/str.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

/* ---- handshake ---- */

void pd_tls_count_end(struct tls_stream *s)
{
    pd_timer_stop(&s->timer);
    if (s->is_counted)
        s->tls->stats.handshaking--;
    s->is_counted = false;
}

/* Lines about strangers on a public listener are for those who look for them. */
void pd_tls_log_failure(struct tls_stream *s, const char *text)
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

pd_status pd_tls_status_of(enum pd_tls_fail fail)
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

void pd_tls_tell_failure(struct tls_stream *s, pd_status status)
{
    s->state = FAILED;
    s->end = status;
    s->drained = false;
    pd_tls_update_inner(s);
    if (s->is_client) {
        s->end_told = true;
        if (s->ev != NULL && s->ev->on_connected != NULL)
            s->ev->on_connected(&s->base, status, s->arg);
        return;
    }
    pd_tls_deliver_writable(s);
    pd_tls_deliver_readable(s);
}

static void handshake_failed(struct tls_stream *s, enum pd_tls_fail fail, const char *text)
{
    s->tls->stats.failed[fail]++;
    pd_tls_count_end(s);
    pd_tls_log_failure(s, text);
    s->draining = fail != PD_TLS_FAIL_CLOSED && fail != PD_TLS_FAIL_TIMEOUT;
    pd_tls_flush(s);
    pd_tls_tell_failure(s, pd_tls_status_of(fail));
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

void pd_tls_shut_now(struct tls_stream *s)
{
    s->write_shut = true;
    ERR_clear_error();
    (void)SSL_shutdown(s->ssl);
    ERR_clear_error();
    pd_tls_flush(s);
}

static void handshake_done(struct tls_stream *s)
{
    s->tls->stats.ok++;
    pd_tls_count_end(s);
    read_node(s);
    s->state = OPEN;
    s->drained = false;
    pd_tls_update_inner(s);
    if (s->shut_pending)
        pd_tls_shut_now(s);
    if (s->is_client) {
        pd_tls_wake(s);
        if (s->ev != NULL && s->ev->on_connected != NULL)
            s->ev->on_connected(&s->base, PD_OK, s->arg);
        return;
    }
    pd_tls_deliver_writable(s);
    pd_tls_deliver_readable(s);
}

void pd_tls_handshake_step(struct tls_stream *s)
{
    char text[200];
    int r, why;

    ERR_clear_error();
    r = SSL_do_handshake(s->ssl);
    why = r == 1 ? SSL_ERROR_NONE : SSL_get_error(s->ssl, r);
    pd_tls_flush(s);
    if (r == 1) {
        handshake_done(s);
    } else if (why != SSL_ERROR_WANT_READ) {
        enum pd_tls_fail fail = pd_tls_reason(s->ssl, text, sizeof text);
        handshake_failed(s, fail, text);
    }
}

void pd_tls_on_timer(struct pd_timer *timer, void *arg)
{
    struct tls_stream *s = arg;

    (void)timer;
    if (s->state == HANDSHAKE)
        handshake_failed(s, PD_TLS_FAIL_TIMEOUT, "the handshake took too long");
    else if (s->state == CLOSING)
        pd_tls_close_inner(s);
}

pd_status pd_tls_begin(struct tls_stream *s)
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
