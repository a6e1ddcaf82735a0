/* SPDX-License-Identifier: Apache-2.0 */
/* The door to OpenSSL's digests.  Nothing here depends on global state of the
 * library; failures of it other than memory do not occur with these algorithms
 * and are reported as PD_ENOMEM all the same. */
#include "net/digest.h"

#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#define BLOCK 64
#define MAX_RUNS 64

struct pd_sha256 {
    EVP_MD_CTX *ctx;
};

struct pd_sha256 *pd_sha256_create(void)
{
    struct pd_sha256 *h = pd_calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->ctx = EVP_MD_CTX_new();
    if (h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1) {
        pd_sha256_destroy(h);
        return NULL;
    }
    return h;
}

void pd_sha256_destroy(struct pd_sha256 *h)
{
    if (h == NULL)
        return;
    EVP_MD_CTX_free(h->ctx);
    pd_free(h);
}

pd_status pd_sha256_update(struct pd_sha256 *h, const void *p, size_t n)
{
    return EVP_DigestUpdate(h->ctx, p, n) == 1 ? PD_OK : PD_ENOMEM;
}

pd_status pd_sha256_final(struct pd_sha256 *h, uint8_t out[PD_SHA256_BYTES])
{
    if (EVP_DigestFinal_ex(h->ctx, out, NULL) != 1 ||
        EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1)
        return PD_ENOMEM;
    return PD_OK;
}

pd_status pd_sha256(const void *p, size_t n, uint8_t out[PD_SHA256_BYTES])
{
    return EVP_Digest(p, n, out, NULL, EVP_sha256(), NULL) == 1 ? PD_OK : PD_ENOMEM;
}

/* One pass of HMAC: digest(pad || runs). */
static pd_status keyed(const uint8_t pad[BLOCK], const struct pd_iov *iov, size_t n,
                       uint8_t out[PD_SHA256_BYTES])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(ctx, pad, BLOCK) == 1;

    for (size_t i = 0; ok && i < n; i++)
        ok = EVP_DigestUpdate(ctx, iov[i].base, iov[i].len) == 1;
    ok = ok && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? PD_OK : PD_ENOMEM;
}

pd_status pd_hmac_sha256(const void *key, size_t key_n, const struct pd_iov *iov, size_t n,
                         uint8_t out[PD_SHA256_BYTES])
{
    uint8_t inner[BLOCK] = { 0 }, outer[BLOCK], digest[PD_SHA256_BYTES];
    struct pd_iov second = { digest, sizeof(digest) };
    pd_status status = PD_OK;

    if (n > MAX_RUNS)
        return PD_EINVAL;
    if (key_n > BLOCK)
        status = pd_sha256(key, key_n, inner);
    else if (key_n > 0)
        memcpy(inner, key, key_n);
    for (size_t i = 0; i < BLOCK; i++) {
        outer[i] = inner[i] ^ 0x5c;
        inner[i] ^= 0x36;
    }
    if (status == PD_OK)
        status = keyed(inner, iov, n, digest);
    if (status == PD_OK)
        status = keyed(outer, &second, 1, out);
    pd_secret_wipe(inner, sizeof(inner));
    pd_secret_wipe(outer, sizeof(outer));
    return status;
}

bool pd_secret_equal(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

bool pd_secret_equal_str(struct pd_str a, struct pd_str b)
{
    uint8_t da[PD_SHA256_BYTES], db[PD_SHA256_BYTES];

    /* Digests have one length, so that neither content nor length shows. */
    if (pd_sha256(a.p, a.n, da) != PD_OK || pd_sha256(b.p, b.n, db) != PD_OK)
        return false;
    return pd_secret_equal(da, db, sizeof(da)) && a.n == b.n;
}

void pd_secret_wipe(void *p, size_t n)
{
    OPENSSL_cleanse(p, n);
}

const char *pd_sha256_format(const uint8_t digest[PD_SHA256_BYTES], char out[PD_SHA256_TEXT])
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < PD_SHA256_BYTES; i++) {
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 15];
    }
    out[2 * PD_SHA256_BYTES] = '\0';
    return out;
}
