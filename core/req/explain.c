/* SPDX-License-Identifier: Apache-2.0 */
/* Explanation lines.  Each is a head of fixed size with three short strings
 * behind it, one after the other in the record's memory; a line is there whole
 * or not at all, and scores never follow a candidate that is not theirs.
 *
 * Candidates usually come as a table: a head, the columns (weight, plugin), the
 * rows (total, match, scores, name).  Where a roster has the names a whole run of a
 * profile is numbers (explain_run.c).  Reading makes lines of both again; reading is rare,
 * so it walks from the start for each line. */
#include "req/explain_priv.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "req/roster.h"

#include <string.h>

#define STEP 64u                /* in which memory grows */
#define KEEP PD_EXPLAIN_MIN     /* most that is kept for the next request */

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

void pd_explain_init(struct pd_explain *e, uint8_t *bytes, uint32_t cap, uint32_t max)
{
    e->first = bytes;
    e->own = NULL;
    for (uint32_t i = 0; i < PD_EXPLAIN_ROSTERS; i++)
        e->roster[i] = NULL;
    e->bytes = bytes;
    e->cap = e->first_cap = cap;
    e->max = max;
    pd_explain_reset(e);
}

static void drop_own(struct pd_explain *e)
{
    pd_free(e->own);
    e->own = NULL;
    e->bytes = e->first;
    e->cap = e->first_cap;
}

void pd_explain_fini(struct pd_explain *e)
{
    pd_explain_reset(e);
    drop_own(e);
}

bool pd_explain_room(struct pd_explain *e, uint32_t need)
{
    need += e->used;
    if (need <= e->cap)
        return true;
    uint32_t cap = PD_MIN(e->max, (need + need / 4 + STEP - 1) / STEP * STEP);
    uint8_t *own = pd_realloc(e->own, cap);
    if (own == NULL)
        return false;
    if (e->own == NULL)
        memcpy(own, e->bytes, e->used);
    e->bytes = e->own = own;
    e->cap = cap;
    return true;
}

static inline void empty(struct pd_explain *e)
{
    if (e->own != NULL && e->cap > KEEP)
        drop_own(e);
    for (uint32_t i = 0; i < PD_EXPLAIN_ROSTERS && e->roster[i] != NULL; i++)
        pd_explain_roster_put(PD_TAKE(&e->roster[i]));
    e->used = 0;
    e->lost = 0;
    e->skip_scores = false;
}

void pd_explain_reset(struct pd_explain *e)
{
    empty(e);
}

void pd_explain_begin(struct pd_explain *e, uint32_t max)
{
    empty(e);
    e->max = max;
    if (e->cap > max)
        e->cap = max;
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
    bool fits = e->used + need + reserve <= e->max;

    if (line->kind == PD_EXPLAIN_SCORE)
        fits = fits && !e->skip_scores;
    else
        e->skip_scores = line->kind == PD_EXPLAIN_CANDIDATE && !fits;
    if (!fits || (e->used + need > e->cap && !pd_explain_room(e, need))) {
        e->lost++;
        return;
    }
    uint8_t *at = put(e->bytes + e->used, &head, HEAD);
    at = put(at, line->subject.p, head.subject);
    at = put(at, line->plugin.p, head.plugin);
    put(at, line->text.p, head.text);
    e->used += need;
}

static uint8_t *put_number(uint8_t *at, double v)
{
    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

static uint8_t *put_text(uint8_t *at, struct pd_str s)
{
    uint8_t n = cut(s);
    return put(put(at, &n, 1), s.p, n);
}

/* Bytes of the first rows that fit, and how many these are. */
static uint32_t measure(const struct pd_explain *e, const struct pd_explain_table *t, uint32_t *rows)
{
    uint32_t room = e->max - e->used < PD_EXPLAIN_RESERVE ? 0 : e->max - e->used - PD_EXPLAIN_RESERVE;
    uint32_t need = HEAD;

    *rows = 0;
    for (uint32_t k = 0; k < t->columns; k++)
        need += 9u + cut(t->column[k].plugin);
    for (uint32_t i = 0; i < t->rows && i < PD_EXPLAIN_ROWS; i++) {
        uint32_t more = 8u * (2 + t->columns) + 1u + cut(t->row[i].subject);
        if (need + more > room)
            break;
        need += more;
        ++*rows;
    }
    return need;
}

void pd_explain_add_table(struct pd_explain *e, const struct pd_explain_table *t)
{
    uint32_t rows, need = measure(e, t, &rows);

    if (rows > 0 && !pd_explain_room(e, need))
        rows = 0;
    e->lost += (t->rows - rows) * (1 + t->columns);
    e->skip_scores = rows < t->rows;
    if (rows == 0)
        return;
    struct packed head = { .extra = need, .kind = TABLE, .subject = (uint8_t)t->columns,
                           .plugin = (uint8_t)rows };
    uint8_t *at = put(e->bytes + e->used, &head, HEAD);
    for (uint32_t k = 0; k < t->columns; k++)
        at = put_text(put_number(at, t->column[k].weight), t->column[k].plugin);
    const double *score = t->score;
    for (uint32_t i = 0; i < rows; i++) {
        at = put_number(put_number(at, t->row[i].total), t->row[i].match);
        for (uint32_t k = 0; k < t->columns; k++)
            at = put_number(at, *score++);
        at = put_text(at, t->row[i].subject);
    }
    e->used += need;
}

static double get_number(const uint8_t **at)
{
    double v;
    memcpy(&v, *at, sizeof v);
    *at += sizeof v;
    return v;
}

static struct pd_str get_text(const uint8_t **at)
{
    struct pd_str s = { (const char *)*at + 1, **at };
    *at += 1u + s.n;
    return s;
}

/* Line number `want` of the table whose head is given and whose rest is at `at`. */
static void table_line(const struct packed *head, const uint8_t *at, uint32_t want,
                       struct pd_explain_line *out)
{
    uint32_t columns = head->subject, row = want / (1 + columns), column = want % (1 + columns);

    for (uint32_t k = 0; k < columns; k++) {
        double weight = get_number(&at);
        struct pd_str plugin = get_text(&at);
        if (k + 1 == column) {
            out->extra = weight;
            out->plugin = plugin;
        }
    }
    for (uint32_t i = 0; i < row; i++) {
        at += 8u * (2 + columns);
        (void)get_text(&at);
    }
    out->kind = column == 0 ? PD_EXPLAIN_CANDIDATE : PD_EXPLAIN_SCORE;
    if (column > 0) {
        at += 8u * (1 + column);
        out->value = get_number(&at);
        return;
    }
    out->value = get_number(&at);
    out->extra = get_number(&at);
    at += 8u * columns;
    out->subject = get_text(&at);
}

/* Lines that an entry stands for, and its bytes. */
static uint32_t measure_entry(const struct pd_explain *e, const uint8_t *at, const struct packed *head,
                              uint32_t *bytes)
{
    if (head->kind == RUN)
        return pd_explain_run_lines(e, at, bytes);
    *bytes = head->kind == TABLE ? (uint32_t)head->extra
                                 : HEAD + (uint32_t)head->subject + head->plugin + head->text;
    return head->kind == TABLE ? head->plugin * (1u + head->subject) : 1u;
}

/* The cursor is the number of the line. */
bool pd_explain_next(const struct pd_explain *e, uint32_t *cursor, struct pd_explain_line *out)
{
    uint32_t skip = *cursor;

    for (uint32_t from = 0; from < e->used;) {
        struct packed head;
        const uint8_t *at = e->bytes + from;
        memset(&head, 0, sizeof head);
        memcpy(&head, at, HEAD);
        uint32_t bytes, lines = measure_entry(e, at, &head, &bytes);
        from += bytes;
        if (skip >= lines) {
            skip -= lines;
            continue;
        }
        memset(out, 0, sizeof *out);
        ++*cursor;
        if (head.kind == RUN) {
            pd_explain_run_line(e, at, skip, out);
            return true;
        }
        at += HEAD;
        if (head.kind == TABLE) {
            table_line(&head, at, skip, out);
            return true;
        }
        out->kind = head.kind;
        out->value = head.value;
        out->extra = head.extra;
        out->subject = (struct pd_str){ (const char *)at, head.subject };
        out->plugin = (struct pd_str){ (const char *)at + head.subject, head.plugin };
        out->text = (struct pd_str){ (const char *)at + head.subject + head.plugin, head.text };
        return true;
    }
    return false;
}
