/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts of TLS: files, rules, and the words for what goes wrong.
 *
 * Invariant: tls->ctx is always whole.  Changed files make a new one; when they
 * are bad, the old one stays.  Key bytes are wiped as soon as they are parsed
 * and never reach a message. */
#include "net/tls_int.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "net/digest.h"
#include "os/file.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX (1024 * 1024)
#define PASSPHRASE_MAX 1000     /* OpenSSL has room for 1024 */
#define CHAIN_MAX 10
#define CA_MAX 1000
#define CHECK_NS (3 * PD_SEC)

static const char suites[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

const char *pd_tls_fail_label(enum pd_tls_fail fail)
{
    static const char *const labels[] = {
#define LABEL(sym, label, text) label,
        PD_TLS_FAIL_TABLE(LABEL)
    };
    return (unsigned)fail < PD_TLS_FAILS ? labels[fail] : "unknown";
}

static const char *fail_text(enum pd_tls_fail fail)
{
    static const char *const texts[] = {
#define TEXT(sym, label, text) text,
        PD_TLS_FAIL_TABLE(TEXT)
    };
    return texts[fail];
}

/* ---- files ---- */

struct files {
    struct pd_buf certificate, key, ca, passphrase;
    uint8_t digest[PD_SHA256_BYTES];
};

static void secret_fini(struct pd_buf *b)
{
    if (b->base != NULL)
        pd_secret_wipe(b->base, b->cap);
    pd_buf_fini(b);
}

static void files_fini(struct files *f)
{
    secret_fini(&f->key);
    secret_fini(&f->passphrase);
    pd_buf_fini(&f->certificate);
    pd_buf_fini(&f->ca);
}

static pd_status digest_of(struct files *f)
{
    struct pd_sha256 *h = pd_sha256_create();
    const struct pd_buf *all[] = { &f->certificate, &f->key, &f->ca, &f->passphrase };
    pd_status st = h != NULL ? PD_OK : PD_ENOMEM;

    for (size_t i = 0; i < sizeof all / sizeof all[0] && st == PD_OK; i++) {
        uint64_t n = all[i]->n;
        st = pd_sha256_update(h, &n, sizeof n);
        if (st == PD_OK && n > 0)
            st = pd_sha256_update(h, all[i]->p, all[i]->n);
    }
    if (st == PD_OK)
        st = pd_sha256_final(h, f->digest);
    pd_sha256_destroy(h);
    return st;
}

static pd_status passphrase_read(const char *path, struct pd_buf *out, struct pd_err *err)
{
    pd_status st = pd_file_read_secret(path, PASSPHRASE_MAX, out, err);

    if (st != PD_OK || (out->n > 0 && memchr(out->p, '\0', out->n) == NULL))
        return st;
    pd_err_set(err, PD_EINVAL, "\"%s\" %s", path, out->n == 0 ? "is empty" : "contains a zero byte");
    return pd_err_hint(err, "it holds the passphrase of the key, and nothing else");
}

static pd_status files_read(const struct pd_tls_conf *c, struct files *f, struct pd_err *err)
{
    pd_status st = PD_OK;

    pd_buf_init(&f->certificate, FILE_MAX);
    pd_buf_init(&f->key, FILE_MAX);
    pd_buf_init(&f->ca, FILE_MAX);
    pd_buf_init(&f->passphrase, PASSPHRASE_MAX);
    if (c->certificate != NULL)
        st = pd_file_read(c->certificate, FILE_MAX, &f->certificate, err);
    if (st == PD_OK && c->key != NULL)
        st = pd_file_read_secret(c->key, FILE_MAX, &f->key, err);
    if (st == PD_OK && c->passphrase != NULL)
        st = passphrase_read(c->passphrase, &f->passphrase, err);
    if (st == PD_OK && c->ca != NULL)
        st = pd_file_read(c->ca, FILE_MAX, &f->ca, err);
    if (st == PD_OK && (st = digest_of(f)) != PD_OK)
        pd_err_set(err, st, "out of memory");
    return st;
}

/* ---- the context ---- */

static int no_passphrase(char *buf, int size, int rw, void *arg)
{
    (void)buf;
    (void)size;
    (void)rw;
    (void)arg;
    return 0;
}

/* OpenSSL asks for the passphrase of an encrypted key.  It is never left to ask
 * a terminal. */
struct asked {
    const struct pd_buf *passphrase;
    bool is_asked;
};

static int tell_passphrase(char *buf, int size, int rw, void *arg)
{
    struct asked *a = arg;

    (void)rw;
    a->is_asked = true;
    if (a->passphrase->n == 0 || a->passphrase->n > (size_t)size)
        return -1;
    memcpy(buf, a->passphrase->p, a->passphrase->n);
    return (int)a->passphrase->n;
}

/* The end of a PEM file is an error of OpenSSL's too. */
static bool at_end(void)
{
    unsigned long e = ERR_peek_last_error();
    bool is_end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;

    ERR_clear_error();
    return is_end;
}

static pd_status use_certificate(SSL_CTX *ctx, const struct pd_tls_conf *c, const struct files *f,
                                 struct pd_err *err)
{
    BIO *in = BIO_new_mem_buf(f->certificate.p, (int)f->certificate.n);
    X509 *x = in == NULL ? NULL : PEM_read_bio_X509_AUX(in, NULL, no_passphrase, NULL);
    int ok = x != NULL && SSL_CTX_use_certificate(ctx, x) == 1, n = 0;

    X509_free(x);
    while (ok && n < CHAIN_MAX && (x = PEM_read_bio_X509(in, NULL, no_passphrase, NULL)) != NULL) {
        n++;
        ok = SSL_CTX_add0_chain_cert(ctx, x) == 1;
        if (!ok)
            X509_free(x);
    }
    BIO_free(in);
    if (ok && n < CHAIN_MAX)
        ok = at_end();
    ERR_clear_error();
    return ok ? PD_OK : pd_err_set(err, PD_EINVAL, "%s holds no usable certificate in PEM form",
                                   c->certificate);
}

static pd_status use_key(SSL_CTX *ctx, const struct pd_tls_conf *c, const struct files *f,
                         struct pd_err *err)
{
    struct asked asked = { &f->passphrase, false };
    BIO *in = BIO_new_mem_buf(f->key.p, (int)f->key.n);
    EVP_PKEY *key = in == NULL ? NULL : PEM_read_bio_PrivateKey(in, NULL, tell_passphrase, &asked);
    int ok = key != NULL;

    BIO_free(in);
    if (!ok && asked.is_asked && c->passphrase == NULL) {
        pd_err_set(err, PD_EINVAL, "the private key in %s has a passphrase", c->key);
        pd_err_hint(err, "set key_passphrase_file to a file of mode 0640 or less that holds it");
    } else if (!ok && asked.is_asked) {
        pd_err_set(err, PD_EINVAL, "the passphrase in %s does not open the private key in %s",
                   c->passphrase, c->key);
        pd_err_hint(err, "openssl pkey -in KEY -passin file:PASSPHRASE -noout tells whether it does");
    } else if (!ok) {
        pd_err_set(err, PD_EINVAL, "%s holds no usable private key in PEM form", c->key);
    } else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        ok = 0;
        pd_err_set(err, PD_EINVAL, "the key in %s does not belong to the certificate in %s", c->key,
                   c->certificate);
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok ? PD_OK : PD_EINVAL;
}

static pd_status use_ca(SSL_CTX *ctx, const struct pd_tls_conf *c, const struct files *f,
                        struct pd_err *err)
{
    BIO *in = BIO_new_mem_buf(f->ca.p, (int)f->ca.n);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    X509 *x;
    int n = 0, ok = in != NULL;

    while (ok && n < CA_MAX && (x = PEM_read_bio_X509(in, NULL, no_passphrase, NULL)) != NULL) {
        ok = X509_STORE_add_cert(store, x) == 1 &&
             (!c->is_server || SSL_CTX_add_client_CA(ctx, x) == 1);
        X509_free(x);
        n++;
    }
    BIO_free(in);
    if (ok && n < CA_MAX)
        ok = at_end() && n > 0;
    ERR_clear_error();
    return ok ? PD_OK : pd_err_set(err, PD_EINVAL,
                                   "%s holds no usable certificates of authorities in PEM form", c->ca);
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *n,
                       const unsigned char *in, unsigned int in_n, void *arg)
{
    const struct pd_tls *tls = arg;

    (void)ssl;
    for (unsigned int i = 0; i < in_n; i += 1u + in[i]) {
        if (in[i] == tls->alpn[0] && i + in[i] < in_n &&
            memcmp(in + i + 1, tls->alpn + 1, in[i]) == 0) {
            *out = in + i + 1;
            *n = in[i];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool is_address(const char *name)
{
    ASN1_OCTET_STRING *a = a2i_IPADDRESS(name);

    ASN1_OCTET_STRING_free(a);
    ERR_clear_error();
    return a != NULL;
}

static bool set_rules(struct pd_tls *tls, SSL_CTX *ctx)
{
    const struct pd_tls_conf *c = &tls->conf;
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);

    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                             SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_QUERY_MTU);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    SSL_CTX_set_max_cert_list(ctx, 64 * 1024);
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(ctx, suites) != 1 || SSL_CTX_set_num_tickets(ctx, 0) != 1)
        return false;
    if (c->is_server)
        SSL_CTX_set_alpn_select_cb(ctx, select_alpn, tls);
    else if (SSL_CTX_set_alpn_protos(ctx, tls->alpn, tls->alpn[0] + 1u) != 0)
        return false;
    if (c->name != NULL) {
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        if ((is_address(c->name) ? X509_VERIFY_PARAM_set1_ip_asc(param, c->name)
                                 : X509_VERIFY_PARAM_set1_host(param, c->name, 0)) != 1)
            return false;
    }
    if (!c->is_server)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    else if (c->ca != NULL)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return true;
}

static pd_status context_make(struct pd_tls *tls, const struct files *f, SSL_CTX **out,
                              struct pd_err *err)
{
    const struct pd_tls_conf *c = &tls->conf;
    SSL_CTX *ctx = SSL_CTX_new(c->is_server ? TLS_server_method() : TLS_client_method());
    pd_status st = PD_OK;

    if (ctx == NULL || !set_rules(tls, ctx))
        st = pd_err_set(err, PD_ENOMEM, "TLS cannot be set up");
    if (st == PD_OK && c->certificate != NULL)
        st = use_certificate(ctx, c, f, err);
    if (st == PD_OK && c->key != NULL)
        st = use_key(ctx, c, f, err);
    if (st == PD_OK && c->ca != NULL)
        st = use_ca(ctx, c, f, err);
    else if (st == PD_OK && !c->is_server && SSL_CTX_set_default_verify_paths(ctx) != 1)
        st = pd_err_set(err, PD_EIO, "the system's certificates of authorities cannot be read");
    ERR_clear_error();
    if (st != PD_OK)
        SSL_CTX_free(ctx);
    else
        *out = ctx;
    return st;
}

/* ---- the object ---- */

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
    struct files files;
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
    st = files_read(&tls->conf, &files, err);
    if (st == PD_OK)
        st = context_make(tls, &files, &tls->ctx, err);
    memcpy(tls->seen, files.digest, sizeof tls->seen);
    files_fini(&files);
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
    struct files files;
    SSL_CTX *fresh;

    if (now - tls->checked < CHECK_NS)
        return tls->ctx;
    tls->checked = now;
    memset(files.digest, 0, sizeof files.digest);
    pd_status st = files_read(&tls->conf, &files, &err);
    bool changed = memcmp(files.digest, tls->seen, sizeof tls->seen) != 0;
    if (changed) {
        memcpy(tls->seen, files.digest, sizeof tls->seen);
        if (st == PD_OK)
            st = context_make(tls, &files, &fresh, &err);
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
    files_fini(&files);
    return tls->ctx;
}

/* ---- words ---- */

static enum pd_tls_fail verify_fail(long v)
{
    switch (v) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return PD_TLS_FAIL_EXPIRED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        return PD_TLS_FAIL_AUTHORITY;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
    case X509_V_ERR_EMAIL_MISMATCH:
        return PD_TLS_FAIL_NAME;
    default:
        return PD_TLS_FAIL_CERTIFICATE;
    }
}

static enum pd_tls_fail reason_fail(int reason)
{
    switch (reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
        return PD_TLS_FAIL_NOT_TLS;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY:
    case SSL_AD_REASON_OFFSET + TLS1_AD_NO_APPLICATION_PROTOCOL:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        return PD_TLS_FAIL_NOTHING_SHARED;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return PD_TLS_FAIL_NO_CERTIFICATE;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return PD_TLS_FAIL_CLOSED;
    default:
        return reason >= SSL_AD_REASON_OFFSET ? PD_TLS_FAIL_REFUSED : PD_TLS_FAIL_PROTOCOL;
    }
}

enum pd_tls_fail pd_tls_reason(SSL *ssl, char *text, size_t size)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
    long verify = SSL_get_verify_result(ssl);
    enum pd_tls_fail fail;

    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK)
        fail = verify_fail(verify);
    else if (e == 0)
        fail = PD_TLS_FAIL_CLOSED;
    else if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
        fail = PD_TLS_FAIL_MEMORY;
    else
        fail = reason_fail(reason);
    const char *more = fail == PD_TLS_FAIL_CERTIFICATE ? X509_verify_cert_error_string(verify)
                     : fail == PD_TLS_FAIL_REFUSED || fail == PD_TLS_FAIL_PROTOCOL
                       ? ERR_reason_error_string(e) : NULL;
    snprintf(text, size, "%s%s%s", fail_text(fail), more != NULL ? ": " : "", more != NULL ? more : "");
    ERR_clear_error();
    return fail;
}
