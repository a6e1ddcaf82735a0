/* SPDX-License-Identifier: Apache-2.0 */
/* Explanation lines.  Each is a head of fixed size with three short strings
 * behind it, one after the other in the record's memory; a line is there whole
 * or not at all, and scores never follow a candidate that is not theirs.
 *
 * Candidates usually come as a table: a head, the columns (weight, plugin), the
 * rows (total, match, scores, name).  Where a roster has the names a whole run of a
 * profile is a head and rows of numbers (candidate, match, scores).  Reading makes lines
 * of both again; reading is rare, so it walks from the start for each line. */
#include "req/explain.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "req/roster.h"

#include <stdio.h>
#include <stdlib.h>
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
#define TABLE 0xffu             /* kind of a table; subject, plugin: columns and rows, extra: bytes */
#define RUN 0xfeu               /* kind of a run; subject: its roster, plugin: picks, value: rows, extra: without */

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
    e->first_cap = cap;
    e->max = max;
    pd_explain_reset(e);
}

/* Makes sure that `need` more bytes, which max allows, have a place. */
static bool make_room(struct pd_explain *e, uint32_t need)
{
    if (e->used + need <= e->cap)
        return true;
    uint8_t *own = e->own == NULL ? pd_alloc(e->max) : NULL;
    if (own == NULL)
        return false;
    memcpy(own, e->bytes, e->used);
    e->bytes = e->own = own;
    e->cap = e->max;
    return true;
}

void pd_explain_reset(struct pd_explain *e)
{
    if (e->own != NULL)
        pd_free(e->own);
    for (uint32_t i = 0; i < PD_EXPLAIN_ROSTERS && e->roster[i] != NULL; i++) {
        pd_explain_roster_put(e->roster[i]);
        e->roster[i] = NULL;
    }
    e->own = NULL;
    e->bytes = e->first;
    e->cap = e->first_cap;
    e->used = 0;
    e->lost = 0;
    e->skip_scores = false;
}

void pd_explain_begin(struct pd_explain *e, uint32_t max)
{
    pd_explain_reset(e);
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
    if (!fits || !make_room(e, need)) {
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

    if (rows > 0 && !make_room(e, need))
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

static uint32_t row_bytes(const struct pd_explain_roster *r)
{
    return 8u + 4u * r->columns;
}

static uint32_t drops_shown(const struct pd_explain_roster *r, uint32_t without)
{
    uint32_t n = r->drops;

    for (uint32_t i = 0; i < r->drops && without != 0; i++)
        n -= r->drop[i].slot + 1 == without;
    return PD_MIN(n, r->drops_max);
}

/* The place of the roster among those that are held; PD_EXPLAIN_ROSTERS: there is none. */
static uint32_t hold(struct pd_explain *e, struct pd_explain_roster *r)
{
    uint32_t i = 0;

    while (i < PD_EXPLAIN_ROSTERS && e->roster[i] != NULL && e->roster[i] != r)
        i++;
    if (i < PD_EXPLAIN_ROSTERS && e->roster[i] == NULL) {
        r->refs++;
        e->roster[i] = r;
    }
    return i;
}

static inline uint8_t *put_row(uint8_t *at, const struct pd_explain_run *run, uint32_t columns,
                               uint32_t candidate)
{
    const double *score = run->score + candidate;
    const uint32_t numbers[2] = { candidate, run->views[candidate].match_blocks };

    memcpy(at, numbers, 8);
    at += 8;
    for (uint32_t k = 0; k < columns; k++, score += run->stride, at += 4) {
        float v = (float)*score;
        memcpy(at, &v, 4);
    }
    return at;
}

static inline bool is_picked(const struct pd_explain_run *run, uint32_t candidate)
{
    for (uint32_t k = 0; k < run->picks; k++) {
        if (run->picked[k] == candidate)
            return true;
    }
    return false;
}

bool pd_explain_add_run(struct pd_explain *e, const struct pd_explain_run *run)
{
    const struct pd_explain_roster *r = run->roster;
    uint32_t each = row_bytes(r), rows = PD_MIN(PD_MAX(run->rows, run->picks), r->n);
    uint32_t place = hold(e, run->roster), room = e->max - e->used, need;

    if (place == PD_EXPLAIN_ROSTERS)
        return false;
    /* What was picked may use the room of the result. */
    uint32_t free_rows = room < HEAD + PD_EXPLAIN_RESERVE ? 0 : (room - HEAD - PD_EXPLAIN_RESERVE) / each;
    uint32_t fit = PD_MIN(rows, PD_MAX(free_rows, run->picks));
    need = HEAD + fit * each;
    if (need > room || !make_room(e, need)) {
        e->lost += 1 + drops_shown(r, run->without) + r->is_stale + rows * (1 + r->columns) + run->picks;
        return true;
    }
    e->lost += (rows - fit) * (1 + r->columns);
    struct packed head = { .value = fit, .extra = run->without, .kind = RUN, .subject = (uint8_t)place,
                           .plugin = (uint8_t)run->picks };
    uint8_t *at = put(e->bytes + e->used, &head, HEAD);
    for (uint32_t k = 0; k < run->picks; k++)
        at = put_row(at, run, r->columns, run->picked[k]);
    for (uint32_t i = 0, n = run->picks; n < fit; i++) {
        if (is_picked(run, i))
            continue;
        at = put_row(at, run, r->columns, i);
        n++;
    }
    e->used += need;
    return true;
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

/* A score as it would be written: 0.1 and not the nearest float. */
static double get_score(const uint8_t *at)
{
    char text[32];
    float v;

    memcpy(&v, at, sizeof v);
    snprintf(text, sizeof text, "%.7g", (double)v);
    return strtod(text, NULL);
}

static double total_of(const struct pd_explain_roster *r, const uint8_t *row)
{
    double total = 0;

    for (uint32_t k = 0; k < r->columns; k++)
        total += r->column[k].weight * get_score(row + 8 + 4u * k);
    return total;
}

static uint32_t run_lines(const struct pd_explain *e, const struct packed *head)
{
    const struct pd_explain_roster *r = e->roster[head->subject];
    return 1 + drops_shown(r, (uint32_t)head->extra) + r->is_stale + (uint32_t)head->value * (1 + r->columns) +
           head->plugin;
}

static void dropped_line(const struct pd_explain_roster *r, uint32_t without, uint32_t want,
                         struct pd_explain_line *out)
{
    uint32_t i = 0;

    while (r->drop[i].slot + 1 == without || want-- > 0)
        i++;
    out->kind = PD_EXPLAIN_DROPPED;
    out->subject = r->drop[i].name;
    out->plugin = r->drop[i].plugin;
}

/* Line number `want` of the run whose head is given and whose rows are at `at`. */
static void run_line(const struct pd_explain *e, const struct packed *head, const uint8_t *at, uint32_t want,
                     struct pd_explain_line *out)
{
    const struct pd_explain_roster *r = e->roster[head->subject];
    uint32_t without = (uint32_t)head->extra, drops = drops_shown(r, without), numbers[2];
    uint32_t first = 1 + drops + r->is_stale, lines = (uint32_t)head->value * (1 + r->columns);

    if (want == 0) {
        out->kind = PD_EXPLAIN_PROFILE;
        out->subject = r->profile;
        out->value = r->candidates - (without != 0);
    } else if (want <= drops) {
        dropped_line(r, without, want - 1, out);
    } else if (want < first) {
        out->kind = PD_EXPLAIN_NOTE;
        out->text = PD_STR("every load report is stale, used anyway");
    } else {
        bool is_pick = want >= first + lines;
        uint32_t row = is_pick ? want - first - lines : (want - first) / (1 + r->columns);
        uint32_t column = is_pick ? 0 : (want - first) % (1 + r->columns);
        at += row * row_bytes(r);
        memcpy(numbers, at, sizeof numbers);
        out->kind = is_pick ? PD_EXPLAIN_PICKED : column == 0 ? PD_EXPLAIN_CANDIDATE : PD_EXPLAIN_SCORE;
        if (column == 0) {
            out->subject = r->name[numbers[0]];
            out->plugin = is_pick ? r->picker : PD_STR("");
            out->value = total_of(r, at);
            out->extra = is_pick ? 0 : numbers[1];
        } else {
            out->plugin = r->column[column - 1].plugin;
            out->value = get_score(at + 4 + 4u * column);
            out->extra = r->column[column - 1].weight;
        }
    }
}

/* Lines that an entry stands for, and its bytes behind the head. */
static uint32_t measure_entry(const struct pd_explain *e, const struct packed *head, uint32_t *bytes)
{
    if (head->kind == RUN) {
        *bytes = (uint32_t)head->value * row_bytes(e->roster[head->subject]);
        return run_lines(e, head);
    }
    *bytes = head->kind == TABLE ? (uint32_t)head->extra - HEAD
                                 : (uint32_t)head->subject + head->plugin + head->text;
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
        at += HEAD;
        uint32_t bytes, lines = measure_entry(e, &head, &bytes);
        from += HEAD + bytes;
        if (skip >= lines) {
            skip -= lines;
            continue;
        }
        memset(out, 0, sizeof *out);
        ++*cursor;
        if (head.kind == TABLE || head.kind == RUN) {
            if (head.kind == TABLE)
                table_line(&head, at, skip, out);
            else
                run_line(e, &head, at, skip, out);
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
