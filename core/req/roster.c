/* SPDX-License-Identifier: Apache-2.0 */
/* A roster is one allocation: the struct, its arrays, their texts. */
#include "req/roster.h"

#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"

struct pd_explain_roster *pd_explain_roster_make(uint32_t n, uint32_t columns, uint32_t drops, size_t bytes)
{
    size_t names = n * sizeof(struct pd_str), weights = columns * sizeof(struct pd_explain_column);
    size_t dropped = drops * sizeof(struct pd_explain_drop);
    struct pd_explain_roster *r = pd_alloc(sizeof *r + names + weights + dropped + bytes);

    if (r == NULL)
        return NULL;
    *r = (struct pd_explain_roster){ .refs = 1, .n = n, .columns = columns, .drops = drops };
    r->name = (struct pd_str *)(void *)(r + 1);
    r->column = (struct pd_explain_column *)(void *)(r->name + n);
    r->drop = (struct pd_explain_drop *)(void *)(r->column + columns);
    r->texts = (char *)(r->drop + drops);
    return r;
}

struct pd_str pd_explain_roster_text(struct pd_explain_roster *r, const char *text)
{
    struct pd_str s = { r->texts + r->used, strlen(text) };

    memcpy(r->texts + r->used, text, s.n);
    r->used += s.n;
    return s;
}

void pd_explain_roster_free(struct pd_explain_roster *r)
{
    pd_free(r);
}
