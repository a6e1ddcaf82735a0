/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a TLS configuration, read whole and at once, so that a change of any of them
 * is seen by one digest.
 *
 * Key and passphrase are wiped when they are given back, and never reach a message. */
#include "net/tls_int.h"

#include "base/status.h"
#include "base/str.h"
#include "net/digest.h"
#include "os/file.h"

#include <string.h>

#define FILE_MAX (1024 * 1024)
#define PASSPHRASE_MAX 1000     /* OpenSSL has room for 1024 */

static void secret_fini(struct pd_buf *b)
{
    if (b->base != NULL)
        pd_secret_wipe(b->base, b->cap);
    pd_buf_fini(b);
}

void pd_tls_files_fini(struct pd_tls_files *f)
{
    secret_fini(&f->key);
    secret_fini(&f->passphrase);
    pd_buf_fini(&f->certificate);
    pd_buf_fini(&f->ca);
}

static pd_status digest_of(struct pd_tls_files *f)
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

pd_status pd_tls_files_read(const struct pd_tls_conf *c, struct pd_tls_files *f, struct pd_err *err)
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
