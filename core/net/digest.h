/* SPDX-License-Identifier: Apache-2.0 */
/* Cryptographic digests; with TLS the only users of OpenSSL.  Any thread, one
 * at a time per object. */
#ifndef PD_NET_DIGEST_H
#define PD_NET_DIGEST_H

#include <pdplane/types.h>

#define PD_SHA256_BYTES 32
#define PD_SHA256_TEXT 65       /* lower-case hex with a final zero byte */

/* SHA-256 over parts.  Gives: pd_sha256_destroy; NULL when memory is short. */
struct pd_sha256;
struct pd_sha256 *pd_sha256_create(void);
void pd_sha256_destroy(struct pd_sha256 *h);
/* PD_OK or PD_ENOMEM. */
pd_status pd_sha256_update(struct pd_sha256 *h, const void *p, size_t n);
/* Writes the digest of what was fed and starts anew. */
pd_status pd_sha256_final(struct pd_sha256 *h, uint8_t out[PD_SHA256_BYTES]);

/* PD_OK or PD_ENOMEM. */
pd_status pd_sha256(const void *p, size_t n, uint8_t out[PD_SHA256_BYTES]);
/* HMAC-SHA-256 over n runs (at most 64), one after the other.  PD_OK,
 * PD_EINVAL or PD_ENOMEM. */
pd_status pd_hmac_sha256(const void *key, size_t key_n, const struct pd_iov *iov, size_t n,
                         uint8_t out[PD_SHA256_BYTES]);
/* Equality in a time that depends on n alone. */
bool pd_secret_equal(const void *a, const void *b, size_t n);
/* As pd_secret_equal for texts of any length; the time tells nothing about
 * where they differ. */
bool pd_secret_equal_str(struct pd_str a, struct pd_str b);
/* Overwrites a secret so that the compiler cannot leave it out. */
void pd_secret_wipe(void *p, size_t n);
/* The digest as text; returns out. */
const char *pd_sha256_format(const uint8_t digest[PD_SHA256_BYTES], char out[PD_SHA256_TEXT]);

#endif
