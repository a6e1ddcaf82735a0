/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of JSON: strings, numbers, words and the space between them; private
 * to the scan.  What most tokens are is told here, in line; what is left to tell of
 * the others stands in json_lex.c.
 *
 * Nothing right of end is ever read. */
#ifndef PD_BASE_JSON_LEX_H
#define PD_BASE_JSON_LEX_H

#include "base/compiler.h"
#include "base/json.h"
#include "base/json_run.h"

struct pd_json_lex {
    const char *start;
    const char *end;
    struct pd_json_error *error;    /* may be NULL */
    pd_status status;
};

/* Notes the error at `at`; returns NULL so that callers can return it. */
const char *pd_json_fail(struct pd_json_lex *l, pd_status status, const char *at, const char *expected);

const char *pd_json_space(const char *p, const char *end);
/* The first byte from p that is no space, or end. */
static inline const char *pd_json_skip(const char *p, const char *end)
{
    return pd_likely(p < end && (unsigned char)*p > ' ') ? p : pd_json_space(p, end);
}

/* The rest of a string from p, all before which is plain; returns what follows its closing
 * quote, or NULL.  *is_plain: the rest has no escapes. */
const char *pd_json_text_rest(struct pd_json_lex *l, const char *p, bool *is_plain);
/* The number at p (a digit or a minus); returns what follows it, or NULL. */
const char *pd_json_any_number(struct pd_json_lex *l, const char *p);
/* The number at p (a digit). */
static inline const char *pd_json_number(struct pd_json_lex *l, const char *p)
{
    const char *q = p + 1;

    if (*p != '0')
        while (q < l->end && *q >= '0' && *q <= '9')
            q++;
    if (pd_likely(q < l->end)) {
        if (*q == ',')
            return q;
        if (*q == '}')
            return q;
    }
    return pd_json_any_number(l, p);
}

/* The word, which *p is the first letter of; returns what follows it, or NULL. */
const char *pd_json_word(struct pd_json_lex *l, const char *p, struct pd_str word);

#endif
