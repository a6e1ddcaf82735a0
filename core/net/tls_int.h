/* SPDX-License-Identifier: Apache-2.0 */
/* What the context and the streams of TLS share. */
#ifndef PD_NET_TLS_INT_H
#define PD_NET_TLS_INT_H

#include "base/buf.h"
#include "net/digest.h"
#include "net/tls.h"

#include <openssl/ssl.h>

#define PD_TLS_RECORD (16 * 1024)       /* most plaintext of one record */
#define PD_TLS_OUT (96 * 1024)          /* most ciphertext that waits for the stream below */

struct pd_tls {
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_tls_conf conf;
    struct pd_tls_stats stats;
    SSL_CTX *ctx;
    uint32_t holds;
    bool is_dead;               /* the last stream or holder frees it */
    BIO_METHOD *bio;
    pd_time checked;            /* when the files were last looked at */
    uint8_t seen[32];           /* digest of what the files held then */
    unsigned char alpn[64];     /* length byte and name */
    char *gather;               /* PD_TLS_RECORD bytes: small runs become one record */
    struct pd_buf spare;        /* memory of the last output buffer that ran empty */
};

/* What the files of a configuration hold. */
struct pd_tls_files {
    struct pd_buf certificate, key, ca, passphrase;
    uint8_t digest[PD_SHA256_BYTES];    /* of all of them */
};

/* ---- tls_files.c */
/* Reads them.  To be given back, also after an error. */
pd_status pd_tls_files_read(const struct pd_tls_conf *c, struct pd_tls_files *f, struct pd_err *err);
void pd_tls_files_fini(struct pd_tls_files *f);

/* ---- tls_context.c */
/* Gives a whole context, or err says what is wrong with the files. */
pd_status pd_tls_context_make(struct pd_tls *tls, const struct pd_tls_files *f, SSL_CTX **out,
                              struct pd_err *err);

/* ---- tls.c */
/* The context for a new handshake, after a look at the files; borrowed. */
SSL_CTX *pd_tls_current(struct pd_tls *tls);
/* A stream has gone. */
void pd_tls_stream_gone(struct pd_tls *tls);
/* ---- tls_fail.c */
/* Why the handshake of ssl failed, from OpenSSL's queue, which is emptied; text
 * gets the words. */
enum pd_tls_fail pd_tls_reason(SSL *ssl, char *text, size_t size);
/* ---- tls_bio.c */
BIO_METHOD *pd_tls_bio_method(void);

#endif
