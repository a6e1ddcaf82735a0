/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of a file of keys.
 *
 * Invariant: no part of a line ever gets into a message, because people put keys
 * where their digests belong. */
#include "net/keys_file.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <string.h>

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool digest_read(struct pd_str hex, uint8_t out[PD_SHA256_BYTES])
{
    if (hex.n != 2 * PD_SHA256_BYTES)
        return false;
    for (size_t i = 0; i < PD_SHA256_BYTES; i++) {
        int hi = hex_digit(hex.p[2 * i]), lo = hex_digit(hex.p[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool label_is_plain(struct pd_str s)
{
    if (s.n == 0 || s.n > PD_KEYS_LABEL)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

static bool line_read(struct pd_str line, struct pd_key *k)
{
    const struct pd_str prefix = PD_STR("sha256:");
    size_t blank = 0;

    if (!pd_str_starts_with(line, prefix))
        return false;
    line = pd_str_sub(line, prefix.n, line.n);
    while (blank < line.n && line.p[blank] != ' ' && line.p[blank] != '\t')
        blank++;
    struct pd_str label = pd_str_trim(pd_str_sub(line, blank, line.n));
    if (!digest_read(pd_str_sub(line, 0, blank), k->digest) || !label_is_plain(label))
        return false;
    memcpy(k->label, label.p, label.n);
    k->label[label.n] = '\0';
    return true;
}

/* Room for one more; the table doubles. */
static bool has_room(struct pd_key **all, size_t n, size_t *room)
{
    if (n < *room)
        return true;
    size_t more = *room == 0 ? 8 : *room * 2;
    struct pd_key *grown = pd_realloc(*all, more * sizeof **all);
    if (grown == NULL)
        return false;
    *all = grown;
    *room = more;
    return true;
}

pd_status pd_keys_file_read(const char *path, struct pd_str text, struct pd_key **out, size_t *n,
                            struct pd_err *err)
{
    struct pd_key *all = NULL;
    struct pd_str line;
    size_t room = 0;
    pd_status st = PD_OK;

    *n = 0;
    for (unsigned number = 1; st == PD_OK && text.n > 0 && pd_str_split(&text, '\n', &line); number++) {
        line = pd_str_trim(line);
        if (line.n == 0 || line.p[0] == '#')
            continue;
        if (*n == PD_KEYS_MAX) {
            st = pd_err_set(err, PD_ELIMIT, "%s has more than %d keys", path, PD_KEYS_MAX);
        } else if (!has_room(&all, *n, &room)) {
            st = pd_err_set(err, PD_ENOMEM, "out of memory");
        } else if (!line_read(line, &all[*n])) {
            st = pd_err_set(err, PD_EINVAL, "%s line %u is not \"sha256:HEX LABEL\"", path, number);
            pd_err_hint(err, "printf %%s KEY | sha256sum gives HEX; "
                             "a label has letters, digits, '.', '_' and '-'");
        } else {
            ++*n;
        }
    }
    if (st == PD_OK && *n == 0)
        st = pd_err_set(err, PD_EINVAL, "%s has no key", path);
    if (st == PD_OK)
        *out = all;
    else
        pd_free(all);
    return st;
}
