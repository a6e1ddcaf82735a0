/* SPDX-License-Identifier: Apache-2.0 */
/* Files of keys: a table that is accepted has plain labels, the same text gives
 * the same table, its lines in the form that the guide shows give it again, and
 * no message of a refusal has anything of the text in it.
 *
 * Input: the text of a file. */
#include "fuzz.h"

#include "base/buf.h"
#include "base/mem.h"
#include "net/keys_file.h"

#define NAME "keys"

/* Lines of the table in the form that the guide shows. */
static void write_back(const struct pd_key *keys, size_t n, struct pd_buf *out)
{
    pd_buf_clear(out);
    for (size_t i = 0; i < n; i++) {
        pd_buf_append_cstr(out, "sha256:");
        for (size_t k = 0; k < sizeof keys[i].digest; k++)
            pd_buf_appendf(out, "%02x", keys[i].digest[k]);
        pd_buf_appendf(out, " %s\n", keys[i].label);
    }
    FUZZ_CHECK(out->status == PD_OK);
}

static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

static void accepted(const struct pd_key *keys, size_t n)
{
    static struct pd_buf text = { .limit = 1 << 20 };
    struct pd_key *again = NULL;
    struct pd_err err = { 0 };
    size_t m = 0;
    FUZZ_CHECK(n > 0 && n <= PD_KEYS_MAX);
    for (size_t i = 0; i < n; i++) {
        size_t room = strnlen(keys[i].label, sizeof keys[i].label);
        FUZZ_CHECK(room > 0 && room <= PD_KEYS_LABEL);
        FUZZ_CHECK(strspn(keys[i].label, plain) == room);
    }
    write_back(keys, n, &text);
    FUZZ_CHECK(pd_keys_file_read(NAME, pd_buf_str(&text), &again, &m, &err) == PD_OK && m == n);
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(memcmp(keys[i].digest, again[i].digest, sizeof keys[i].digest) == 0 &&
                   strcmp(keys[i].label, again[i].label) == 0);
    pd_free(again);
}

static void refused(pd_status status, const struct pd_err *err)
{
    unsigned line = 0;
    int at = 0;
    FUZZ_CHECK(status == PD_EINVAL || status == PD_ELIMIT);
    if (sscanf(err->text, NAME " line %u %n", &line, &at) == 1)
        FUZZ_CHECK(line > 0 && strcmp(err->text + at, "is not \"sha256:HEX LABEL\"") == 0);
    else
        FUZZ_CHECK(strcmp(err->text, NAME " has no key") == 0 ||
                   strcmp(err->text, NAME " has more than 4096 keys") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct pd_key *keys = NULL;
    struct pd_err err = { 0 };
    size_t n = 0, bytes;
    char *p = fuzz_rest(&in, &bytes);
    pd_status status = pd_keys_file_read(NAME, (struct pd_str){ p, bytes }, &keys, &n, &err);
    if (status == PD_OK) {
        accepted(keys, n);
        pd_free(keys);
    } else {
        refused(status, &err);
    }
    fuzz_back(p, bytes);
    return 0;
}
