/* SPDX-License-Identifier: Apache-2.0 */
/* Editing a JSON document without rebuilding it: edits become ranges of the
 * original that are left out and texts that stand there instead; everything
 * between them is passed on as it came.
 *
 * The care is in the commas.  A removed member takes the comma behind it along;
 * the last member of an object takes the one before it, and when that one went
 * with its neighbour, both removals become one that begins further left. */
#include "base/json.h"

#include "base/compiler.h"
#include "base/str.h"

enum kind {
    INSERT,                 /* sorts before what begins at the same place */
    REPLACE,
    REMOVE
};

struct action {
    enum kind kind;
    size_t start;           /* the range that is left out */
    size_t end;
    const struct pd_json_edit *edit;
};

struct sink {
    struct pd_iov *iov;
    size_t room;
    size_t n;
    size_t bytes;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_inside(struct pd_str doc, struct pd_str part)
{
    uintptr_t base = (uintptr_t)doc.p;
    uintptr_t at = (uintptr_t)part.p;
    return part.n != 0 && at >= base && at - base <= doc.n && part.n <= doc.n - (at - base);
}

static pd_status plan_edit(struct pd_str doc, const struct pd_json_edit *edit, struct action *out,
                           size_t *n)
{
    const struct pd_json_value *v = edit->value;
    bool is_there = v != NULL && v->type != PD_JSON_NONE;
    struct action a = { REPLACE, 0, 0, edit };
    struct pd_str range;
    if (edit->op == PD_JSON_REMOVE) {
        if (!is_there)
            return PD_OK;
        a.kind = REMOVE;
        range = v->member;
    } else if (is_there) {
        range = v->text;
    } else {
        const struct pd_json_value *object = edit->object;
        if (object == NULL || object->type != PD_JSON_OBJECT || edit->key == NULL ||
            !is_inside(doc, object->text))
            return PD_EINVAL;
        a.kind = INSERT;
        range = object->text;
    }
    if (!is_inside(doc, range) || (edit->op == PD_JSON_SET && edit->text.n == 0))
        return PD_EINVAL;
    a.start = (size_t)(range.p - doc.p) + (a.kind == INSERT ? 1 : 0);
    a.end = a.kind == INSERT ? a.start : a.start + range.n;
    out[(*n)++] = a;
    return PD_OK;
}

static bool comes_before(const struct action *a, const struct action *b)
{
    if (a->start != b->start)
        return a->start < b->start;
    return a->kind == INSERT && b->kind != INSERT;
}

/* Sorts by place, keeping the order of inserts at one place; PD_EINVAL when
 * ranges overlap. */
static pd_status sort_actions(struct action *actions, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct action a = actions[i];
        size_t k = i;
        for (; k > 0 && comes_before(&a, &actions[k - 1]); k--)
            actions[k] = actions[k - 1];
        actions[k] = a;
    }
    for (size_t i = 1; i < n; i++) {
        if (actions[i].start < actions[i - 1].end)
            return PD_EINVAL;
    }
    return PD_OK;
}

/* Extends the removals over their commas.  Returns the number of actions. */
static size_t take_commas(struct pd_str doc, struct action *actions, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct action a = actions[i];
        if (a.kind == REMOVE) {
            size_t behind = a.end;
            while (behind < doc.n && is_space(doc.p[behind]))
                behind++;
            if (behind < doc.n && doc.p[behind] == ',') {
                a.end = behind + 1;
            } else {
                for (;;) {
                    size_t before = a.start;
                    while (before > 0 && is_space(doc.p[before - 1]))
                        before--;
                    if (before == 0 || doc.p[before - 1] != ',')
                        break;
                    if (kept == 0 || actions[kept - 1].kind != REMOVE ||
                        actions[kept - 1].end < before) {
                        a.start = before - 1;
                        break;
                    }
                    a.start = actions[--kept].start;
                }
            }
        }
        actions[kept++] = a;
    }
    return kept;
}

/* Whether the object whose first member would stand at actions[i].start keeps
 * any member. */
static bool keeps_members(struct pd_str doc, const struct action *actions, size_t i, size_t n)
{
    size_t at = actions[i].start;
    for (i++;; i++) {
        while (at < doc.n && is_space(doc.p[at]))
            at++;
        if (i >= n || actions[i].kind != REMOVE || actions[i].start > at)
            return at < doc.n && doc.p[at] != '}';
        at = PD_MAX(at, actions[i].end);
    }
}

static void put(struct sink *sink, const char *p, size_t n)
{
    if (n == 0)
        return;
    if (sink->n < sink->room)
        sink->iov[sink->n] = (struct pd_iov){ (void *)(uintptr_t)p, n };
    sink->n++;
    sink->bytes += n;
}

static void put_insert(struct pd_str doc, const struct action *actions, size_t i, size_t n,
                       struct sink *sink)
{
    const struct pd_json_edit *edit = actions[i].edit;
    put(sink, "\"", 1);
    put(sink, edit->key, strlen(edit->key));
    put(sink, "\":", 2);
    put(sink, edit->text.p, edit->text.n);
    bool is_last = i + 1 == n || actions[i + 1].kind != INSERT ||
                   actions[i + 1].start != actions[i].start;
    if (!is_last || keeps_members(doc, actions, i, n))
        put(sink, ",", 1);
}

pd_status pd_json_splice(struct pd_str doc, const struct pd_json_edit *edits, size_t n_edits,
                         struct pd_iov *iov, size_t *n_iov, size_t *bytes)
{
    struct action actions[PD_JSON_MAX_EDITS];
    struct sink sink = { iov, *n_iov, 0, 0 };
    size_t n = 0;
    size_t at = 0;
    if (n_edits > PD_JSON_MAX_EDITS)
        return PD_ELIMIT;
    for (size_t i = 0; i < n_edits; i++) {
        pd_status status = plan_edit(doc, &edits[i], actions, &n);
        if (status != PD_OK)
            return status;
    }
    pd_status status = sort_actions(actions, n);
    if (status != PD_OK)
        return status;
    n = take_commas(doc, actions, n);
    for (size_t i = 0; i < n; i++) {
        put(&sink, doc.p + at, actions[i].start - at);
        at = actions[i].end;
        if (actions[i].kind == REPLACE)
            put(&sink, actions[i].edit->text.p, actions[i].edit->text.n);
        else if (actions[i].kind == INSERT)
            put_insert(doc, actions, i, n, &sink);
    }
    put(&sink, doc.p + at, doc.n - at);
    if (sink.n > sink.room)
        return PD_ELIMIT;
    *n_iov = sink.n;
    if (bytes != NULL)
        *bytes = sink.bytes;
    return PD_OK;
}

pd_status pd_json_splice_buf(struct pd_str doc, const struct pd_json_edit *edits, size_t n_edits,
                             struct pd_buf *out)
{
    struct pd_iov iov[PD_JSON_MAX_EDITS * 6 + 1];
    size_t n = PD_ARRAY_LEN(iov);
    size_t bytes;
    pd_status status = pd_json_splice(doc, edits, n_edits, iov, &n, &bytes);
    if (status == PD_OK)
        status = pd_buf_reserve(out, bytes);
    for (size_t i = 0; status == PD_OK && i < n; i++)
        status = pd_buf_append(out, iov[i].base, iov[i].len);
    return status;
}
