/* SPDX-License-Identifier: Apache-2.0 */
/* What a listener, a server or the links have of TLS: its configuration, the context in
 * use, and who still holds it.
 *
 * Invariant: tls->ctx is always whole.  Changed files make a new one; when they
 * are bad, the old one stays. */
#include "net/tls_int.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <string.h>

#define CHECK_NS (3 * PD_SEC)

static bool copy(const char **member)
{
    if (*member == NULL)
        return true;
    *member = pd_strdup(*member);
    return *member != NULL;
}

static bool copy_conf(struct pd_tls *tls, const struct pd_tls_conf *c)
{
    const char **all[] = { &tls->conf.what, &tls->conf.certificate, &tls->conf.key, &tls->conf.ca,
                           &tls->conf.passphrase, &tls->conf.name, &tls->conf.alpn };
    bool ok = true;

    tls->conf = *c;
    if (c->alpn == NULL)
        tls->conf.alpn = "http/1.1";
    if (c->what == NULL)
        tls->conf.what = "TLS";
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!copy(all[i]))
            ok = false;
    if (tls->conf.handshake_ns == 0)
        tls->conf.handshake_ns = 5 * PD_SEC;
    if (tls->conf.max_handshakes == 0)
        tls->conf.max_handshakes = 1024;
    return ok;
}

static pd_status check_conf(const struct pd_tls_conf *c, struct pd_err *err)
{
    if ((c->certificate == NULL) != (c->key == NULL))
        return pd_err_set(err, PD_EINVAL, "certificate and key must be given together");
    if (c->passphrase != NULL && c->key == NULL)
        return pd_err_set(err, PD_EINVAL, "key_passphrase_file is given, but no key");
    if (c->is_server && c->certificate == NULL)
        return pd_err_set(err, PD_EINVAL, "a TLS listener needs a certificate and its key");
    if (!c->is_server && c->name == NULL && c->ca == NULL)
        return pd_err_set(err, PD_EINVAL, "without a name to check, ca must be given");
    if (c->alpn != NULL && (c->alpn[0] == '\0' || strlen(c->alpn) > 62))
        return pd_err_set(err, PD_EINVAL, "the application protocol is not valid");
    return PD_OK;
}

pd_status pd_tls_create(struct pd_loop *loop, struct pd_log *log, const struct pd_tls_conf *conf,
                        struct pd_tls **out, struct pd_err *err)
{
    struct pd_tls *tls = pd_calloc(1, sizeof *tls);
    struct pd_tls_files files;
    pd_status st = check_conf(conf, err);

    if (tls == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    if (st != PD_OK) {
        pd_free(tls);
        return st;
    }
    tls->loop = loop;
    tls->log = log;
    pd_buf_init(&tls->spare, PD_TLS_OUT);
    tls->gather = pd_alloc(PD_TLS_RECORD);
    tls->bio = pd_tls_bio_method();
    if (!copy_conf(tls, conf) || tls->gather == NULL || tls->bio == NULL) {
        pd_tls_destroy(tls);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    tls->alpn[0] = (unsigned char)strlen(tls->conf.alpn);
    memcpy(tls->alpn + 1, tls->conf.alpn, tls->alpn[0]);
    st = pd_tls_files_read(&tls->conf, &files, err);
    if (st == PD_OK)
        st = pd_tls_context_make(tls, &files, &tls->ctx, err);
    memcpy(tls->seen, files.digest, sizeof tls->seen);
    pd_tls_files_fini(&files);
    tls->checked = pd_loop_now(loop);
    if (st != PD_OK) {
        pd_tls_destroy(tls);
        return st;
    }
    *out = tls;
    return PD_OK;
}

void pd_tls_stream_gone(struct pd_tls *tls)
{
    tls->stats.streams--;
    if (tls->is_dead)
        pd_tls_destroy(tls);
}

void pd_tls_look(struct pd_tls *tls)
{
    if (tls != NULL)
        tls->checked = pd_loop_now(tls->loop) - CHECK_NS;
}

void pd_tls_hold(struct pd_tls *tls)
{
    if (tls != NULL)
        tls->holds++;
}

void pd_tls_release(struct pd_tls *tls)
{
    if (tls == NULL)
        return;
    tls->holds--;
    if (tls->is_dead)
        pd_tls_destroy(tls);
}

void pd_tls_destroy(struct pd_tls *tls)
{
    if (tls == NULL)
        return;
    tls->is_dead = true;
    tls->log = NULL;
    if (tls->stats.streams > 0 || tls->holds > 0)
        return;
    SSL_CTX_free(tls->ctx);
    BIO_meth_free(tls->bio);
    pd_free(tls->gather);
    pd_buf_fini(&tls->spare);
    const char *all[] = { tls->conf.what, tls->conf.certificate, tls->conf.key, tls->conf.ca,
                          tls->conf.passphrase, tls->conf.name, tls->conf.alpn };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        pd_free((void *)(uintptr_t)all[i]);
    pd_free(tls);
}

const struct pd_tls_stats *pd_tls_stats(const struct pd_tls *tls)
{
    return &tls->stats;
}

/* Files that are being replaced one after the other may not fit together for a
 * moment; the next look finds them whole. */
SSL_CTX *pd_tls_current(struct pd_tls *tls)
{
    pd_time now = pd_loop_now(tls->loop);
    struct pd_err err = { 0 };
    struct pd_tls_files files;
    SSL_CTX *fresh;

    if (now - tls->checked < CHECK_NS)
        return tls->ctx;
    tls->checked = now;
    memset(files.digest, 0, sizeof files.digest);
    pd_status st = pd_tls_files_read(&tls->conf, &files, &err);
    bool changed = memcmp(files.digest, tls->seen, sizeof tls->seen) != 0;
    if (changed) {
        memcpy(tls->seen, files.digest, sizeof tls->seen);
        if (st == PD_OK)
            st = pd_tls_context_make(tls, &files, &fresh, &err);
        if (st == PD_OK) {
            SSL_CTX_free(tls->ctx);
            tls->ctx = fresh;
            tls->stats.reloads++;
            pd_log_notice(tls->log, "TLS for %s: changed certificates are in use", tls->conf.what);
        } else {
            tls->stats.reload_failures++;
            pd_log_error(tls->log, "TLS for %s: changed certificates cannot be used, the old ones stay: %s",
                         tls->conf.what, err.text);
        }
    }
    pd_tls_files_fini(&files);
    return tls->ctx;
}
