/* SPDX-License-Identifier: Apache-2.0 */
/* A context of OpenSSL made of files that were read, and the rules that all of ours keep:
 * versions, suites, application protocol, whom to believe.
 *
 * Nothing is ever asked of a terminal.  OpenSSL's queue of errors is empty afterwards. */
#include "net/tls_int.h"

#include "base/status.h"
#include "base/str.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#define CHAIN_MAX 10
#define CA_MAX 1000

static const char suites[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

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

static pd_status use_certificate(SSL_CTX *ctx, const struct pd_tls_conf *c, const struct pd_tls_files *f,
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

static pd_status use_key(SSL_CTX *ctx, const struct pd_tls_conf *c, const struct pd_tls_files *f,
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

static pd_status use_ca(SSL_CTX *ctx, const struct pd_tls_conf *c, const struct pd_tls_files *f,
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

pd_status pd_tls_context_make(struct pd_tls *tls, const struct pd_tls_files *f, SSL_CTX **out,
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
