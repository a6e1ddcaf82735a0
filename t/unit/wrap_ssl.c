/* SPDX-License-Identifier: Apache-2.0 */
/* See wrap_ssl.h. */
#include "wrap_ssl.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

static uint64_t at, count;
static const char *fired, *only;
static int reason;
static bool says_ssl;           /* SSL_get_error of the call that failed */

void wrap_ssl_arm(uint64_t n)
{
    count = 0;
    fired = NULL;
    at = n;
    says_ssl = false;
}

uint64_t wrap_ssl_disarm(const char **failed)
{
    *failed = fired;
    at = 0;
    says_ssl = false;
    return count;
}

void wrap_ssl_reason(int which)
{
    reason = which;
}

void wrap_ssl_only(const char *name)
{
    only = name;
}

static bool fails(const char *name)
{
    if ((only != NULL && strcmp(only, name) != 0) || ++count != at)
        return false;
    fired = name;
    if (reason == 0)
        ERR_raise(ERR_LIB_SSL, ERR_R_MALLOC_FAILURE);
    else
        ERR_raise(ERR_LIB_SSL, reason);
    return true;
}

#define WRAP(type, name, wrong, params, args)                                                      \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return fails(#name) ? wrong : __real_##name args;                                          \
    }

WRAP(SSL_CTX *, SSL_CTX_new, NULL, (const SSL_METHOD *m), (m))
WRAP(long, SSL_CTX_ctrl, 0, (SSL_CTX *c, int cmd, long n, void *p), (c, cmd, n, p))
WRAP(int, SSL_CTX_set_cipher_list, 0, (SSL_CTX *c, const char *s), (c, s))
WRAP(int, SSL_CTX_set_num_tickets, 0, (SSL_CTX *c, size_t n), (c, n))
WRAP(int, SSL_CTX_set_alpn_protos, 1, (SSL_CTX *c, const unsigned char *p, unsigned n), (c, p, n))
WRAP(int, SSL_CTX_use_certificate, 0, (SSL_CTX *c, X509 *x), (c, x))
WRAP(int, SSL_CTX_use_PrivateKey, 0, (SSL_CTX *c, EVP_PKEY *k), (c, k))
WRAP(int, SSL_CTX_check_private_key, 0, (const SSL_CTX *c), (c))
WRAP(int, SSL_CTX_add_client_CA, 0, (SSL_CTX *c, X509 *x), (c, x))
WRAP(int, SSL_CTX_set_default_verify_paths, 0, (SSL_CTX *c), (c))
WRAP(int, X509_STORE_add_cert, 0, (X509_STORE *s, X509 *x), (s, x))
WRAP(int, X509_VERIFY_PARAM_set1_ip_asc, 0, (X509_VERIFY_PARAM *p, const char *s), (p, s))
WRAP(int, X509_VERIFY_PARAM_set1_host, 0, (X509_VERIFY_PARAM *p, const char *s, size_t n), (p, s, n))
WRAP(void *, X509_get_ext_d2i, NULL, (const X509 *x, int nid, int *crit, int *idx), (x, nid, crit, idx))
WRAP(X509 *, PEM_read_bio_X509, NULL, (BIO *b, X509 **x, pem_password_cb *cb, void *u), (b, x, cb, u))
WRAP(X509 *, PEM_read_bio_X509_AUX, NULL, (BIO *b, X509 **x, pem_password_cb *cb, void *u), (b, x, cb, u))
WRAP(EVP_PKEY *, PEM_read_bio_PrivateKey, NULL, (BIO *b, EVP_PKEY **k, pem_password_cb *cb, void *u), (b, k, cb, u))
WRAP(BIO *, BIO_new_mem_buf, NULL, (const void *p, int n), (p, n))
WRAP(BIO *, BIO_new, NULL, (const BIO_METHOD *m), (m))
WRAP(BIO_METHOD *, BIO_meth_new, NULL, (int type, const char *name), (type, name))
WRAP(int, BIO_meth_set_read_ex, 0, (BIO_METHOD *m, int (*f)(BIO *, char *, size_t, size_t *)), (m, f))
WRAP(int, BIO_meth_set_write_ex, 0, (BIO_METHOD *m, int (*f)(BIO *, const char *, size_t, size_t *)), (m, f))
WRAP(int, BIO_meth_set_ctrl, 0, (BIO_METHOD *m, long (*f)(BIO *, int, long, void *)), (m, f))
WRAP(EVP_MD_CTX *, EVP_MD_CTX_new, NULL, (void), ())
WRAP(int, EVP_DigestInit_ex, 0, (EVP_MD_CTX *c, const EVP_MD *t, ENGINE *e), (c, t, e))
WRAP(int, EVP_DigestUpdate, 0, (EVP_MD_CTX *c, const void *p, size_t n), (c, p, n))
WRAP(int, EVP_DigestFinal_ex, 0, (EVP_MD_CTX *c, unsigned char *p, unsigned *n), (c, p, n))
WRAP(SSL *, SSL_new, NULL, (SSL_CTX *c), (c))

#define WRAP_IO(name, params, args)                                                                \
    int __real_##name params;                                                                      \
    int __wrap_##name params;                                                                      \
    int __wrap_##name params                                                                       \
    {                                                                                              \
        if (!fails(#name))                                                                         \
            return __real_##name args;                                                             \
        says_ssl = true;                                                                           \
        return 0;                                                                                  \
    }

WRAP_IO(SSL_do_handshake, (SSL *s), (s))
WRAP_IO(SSL_read_ex, (SSL *s, void *p, size_t n, size_t *got), (s, p, n, got))
WRAP_IO(SSL_write_ex, (SSL *s, const void *p, size_t n, size_t *sent), (s, p, n, sent))

int __real_SSL_get_error(const SSL *s, int r);
int __wrap_SSL_get_error(const SSL *s, int r);
int __wrap_SSL_get_error(const SSL *s, int r)
{
    bool is_ours = says_ssl;
    says_ssl = false;
    return is_ours ? SSL_ERROR_SSL : __real_SSL_get_error(s, r);
}
