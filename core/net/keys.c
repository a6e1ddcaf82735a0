/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of clients as digests.
 *
 * Invariant: the table in use came from one whole valid file.  A changed file
 * with a fault in it leaves the old table in use, and a line in the log. */
#include "net/keys.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "net/digest.h"
#include "net/keys_file.h"
#include "os/file.h"

#include <pdplane/net.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX ((size_t)1 << 20)
#define KEY_MAX 1024
#define CHECK_NS (2 * PD_SEC)

struct pd_keys {
    struct pd_loop *loop;
    struct pd_log *log;
    char *path;
    struct pd_key *all;
    size_t n;
    pd_time checked;
    uint32_t holds;
    bool is_dead;                       /* the last holder frees it */
    uint8_t seen[PD_SHA256_BYTES];      /* digest of the file as it was read last */
};

/* Reads the file; *changed tells whether it holds something else than before. */
static pd_status load(struct pd_keys *k, bool *changed, struct pd_err *err)
{
    struct pd_buf text;
    struct pd_key *all;
    uint8_t digest[PD_SHA256_BYTES];
    size_t n;

    memset(digest, 0, sizeof digest);
    pd_buf_init(&text, FILE_MAX);
    pd_status st = pd_file_read_secret(k->path, FILE_MAX, &text, err);
    if (st == PD_OK)
        st = pd_sha256(text.n > 0 ? text.p : "", text.n, digest);
    *changed = memcmp(digest, k->seen, sizeof digest) != 0;
    memcpy(k->seen, digest, sizeof digest);
    if (st == PD_OK && *changed)
        st = pd_keys_file_read(k->path, pd_buf_str(&text), &all, &n, err);
    if (st == PD_OK && *changed) {
        pd_free(k->all);
        k->all = all;
        k->n = n;
    }
    if (text.base != NULL)
        pd_secret_wipe(text.base, text.cap);
    pd_buf_fini(&text);
    return st;
}

pd_status pd_keys_create(struct pd_loop *loop, struct pd_log *log, const char *path,
                         struct pd_keys **out, struct pd_err *err)
{
    struct pd_keys *k = pd_calloc(1, sizeof *k);
    bool changed;

    if (k == NULL || (k->path = pd_strdup(path)) == NULL) {
        pd_free(k);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    k->loop = loop;
    k->log = log;
    k->checked = pd_loop_now(loop);
    pd_status st = load(k, &changed, err);
    if (st != PD_OK) {
        pd_keys_destroy(k);
        return st;
    }
    *out = k;
    return PD_OK;
}

void pd_keys_destroy(struct pd_keys *k)
{
    if (k == NULL)
        return;
    k->is_dead = true;
    k->log = NULL;
    if (k->holds > 0)
        return;
    pd_free(k->all);
    pd_free(k->path);
    pd_free(k);
}

void pd_keys_look(struct pd_keys *k)
{
    k->checked = pd_loop_now(k->loop) - CHECK_NS;
}

void pd_keys_hold(struct pd_keys *k)
{
    if (k != NULL)
        k->holds++;
}

void pd_keys_release(struct pd_keys *k)
{
    if (k == NULL)
        return;
    k->holds--;
    if (k->is_dead)
        pd_keys_destroy(k);
}

static void look_again(struct pd_keys *k)
{
    pd_time now = pd_loop_now(k->loop);
    struct pd_err err = { 0 };
    bool changed;

    if (now - k->checked < CHECK_NS)
        return;
    k->checked = now;
    pd_status st = load(k, &changed, &err);
    if (changed && st == PD_OK)
        pd_log_notice(k->log, "%s has changed: %zu keys are in use", k->path, k->n);
    else if (changed)
        pd_log_error(k->log, "the changed keys cannot be used, the old ones stay: %s", err.text);
}

const char *pd_keys_find(struct pd_keys *k, struct pd_str key)
{
    uint8_t digest[PD_SHA256_BYTES];
    const char *label = NULL;

    look_again(k);
    if (key.n > KEY_MAX || pd_sha256(key.n > 0 ? key.p : "", key.n, digest) != PD_OK)
        return NULL;
    /* All of them, so that the time does not tell which one it was. */
    for (size_t i = 0; i < k->n; i++)
        if (pd_secret_equal(digest, k->all[i].digest, sizeof digest))
            label = k->all[i].label;
    return key.n > 0 ? label : NULL;
}

static bool is_bearer(struct pd_str s)
{
    static const char word[] = "bearer ";

    for (size_t i = 0; i < sizeof word - 1; i++)
        if (i >= s.n || (s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + 32 : s.p[i]) != word[i])
            return false;
    return true;
}

struct pd_str pd_keys_shown(const struct pd_http_head *head)
{
    struct pd_str other = { "", 0 };

    for (size_t i = 0; i < head->n_headers; i++) {
        const struct pd_http_header *h = &head->headers[i];
        if (pd_str_is(h->name, "authorization") && is_bearer(h->value))
            return pd_str_trim(pd_str_sub(h->value, 7, h->value.n));
        if (other.n == 0 && pd_str_is(h->name, "x-api-key"))
            other = h->value;
    }
    return other;
}
