/* SPDX-License-Identifier: Apache-2.0 */
/* Explanation lines.  Each is a head of fixed size with three short strings
 * behind it, one after the other in the record's memory; a line is there whole
 * or not at all, and scores never follow a candidate that is not theirs. */
#include "req/explain.h"

#include <string.h>

struct packed {
    double value;
    double extra;
    uint8_t kind;
    uint8_t subject;        /* lengths */
    uint8_t plugin;
    uint8_t text;
};

#define HEAD 20u

static uint8_t cut(struct pd_str s)
{
    return s.n > 255 ? 255 : (uint8_t)s.n;
}

static uint8_t *put(uint8_t *at, const void *p, size_t n)
{
    if (n > 0)
        memcpy(at, p, n);
    return at + n;
}

void pd_explain_init(struct pd_explain *e, uint8_t *bytes, uint32_t cap)
{
    e->bytes = bytes;
    e->cap = cap;
    pd_explain_reset(e);
}

void pd_explain_reset(struct pd_explain *e)
{
    e->used = 0;
    e->lost = 0;
    e->skip_scores = false;
}

static bool is_detail(uint32_t kind)
{
    return kind == PD_EXPLAIN_DROPPED || kind == PD_EXPLAIN_CANDIDATE || kind == PD_EXPLAIN_SCORE;
}

void pd_explain_add(struct pd_explain *e, const struct pd_explain_line *line)
{
    struct packed head = {
        .value = line->value,
        .extra = line->extra,
        .kind = (uint8_t)line->kind,
        .subject = cut(line->subject),
        .plugin = cut(line->plugin),
        .text = cut(line->text),
    };
    uint32_t need = HEAD + head.subject + head.plugin + head.text;
    uint32_t reserve = is_detail(line->kind) ? PD_EXPLAIN_RESERVE : 0;
    bool fits = e->used + need + reserve <= e->cap;

    if (line->kind == PD_EXPLAIN_SCORE)
        fits = fits && !e->skip_scores;
    else
        e->skip_scores = line->kind == PD_EXPLAIN_CANDIDATE && !fits;
    if (!fits) {
        e->lost++;
        return;
    }
    uint8_t *at = put(e->bytes + e->used, &head, HEAD);
    at = put(at, line->subject.p, head.subject);
    at = put(at, line->plugin.p, head.plugin);
    put(at, line->text.p, head.text);
    e->used += need;
}

bool pd_explain_next(const struct pd_explain *e, uint32_t *cursor, struct pd_explain_line *out)
{
    struct packed head;

    if (*cursor >= e->used)
        return false;
    const uint8_t *at = e->bytes + *cursor;
    memset(&head, 0, sizeof head);
    memcpy(&head, at, HEAD);
    at += HEAD;
    memset(out, 0, sizeof *out);
    out->kind = head.kind;
    out->value = head.value;
    out->extra = head.extra;
    out->subject = (struct pd_str){ (const char *)at, head.subject };
    out->plugin = (struct pd_str){ (const char *)at + head.subject, head.plugin };
    out->text = (struct pd_str){ (const char *)at + head.subject + head.plugin, head.text };
    *cursor += HEAD + head.subject + head.plugin + head.text;
    return true;
}
