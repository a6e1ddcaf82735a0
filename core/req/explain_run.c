/* SPDX-License-Identifier: Apache-2.0 */
/* A run of a profile in an explanation: a head, the candidates that were picked, a column
 * of scores for each scorer (of the first candidates, then of those that were picked) and
 * who of them has a match.  The names are the roster's. */
#include "base/compiler.h"
#include "req/explain_priv.h"
#include "req/roster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run_head {
    uint32_t rows;
    uint32_t shown;         /* candidates with scores, beside the picked ones */
    uint32_t without;
    uint32_t matches;
    uint8_t kind;
    uint8_t roster;
    uint8_t picks;
    uint8_t zero;
};
_Static_assert(sizeof(struct run_head) == HEAD && offsetof(struct run_head, kind) == offsetof(struct packed, kind),
               "both heads have the kind in the same place");

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

static inline bool is_picked(const struct pd_explain_run *run, uint32_t candidate)
{
    for (uint32_t k = 0; k < run->picks; k++) {
        if (run->picked[k] == candidate)
            return true;
    }
    return false;
}

typedef double doubles_t __attribute__((vector_size(4 * sizeof(double))));
typedef float floats_t __attribute__((vector_size(4 * sizeof(float))));

static inline uint8_t *put_score(uint8_t *at, double score)
{
    float v = (float)score;

    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

/* A column: of the candidates that are shown, then of those that were picked. */
static inline uint8_t *put_scores(uint8_t *at, const struct pd_explain_run *run, const double *score,
                                  uint32_t shown)
{
    uint32_t i = 0;

    for (; i + 4 <= shown; i += 4, at += sizeof(floats_t)) {
        doubles_t from;
        memcpy(&from, score + i, sizeof from);
        floats_t to = __builtin_convertvector(from, floats_t);
        memcpy(at, &to, sizeof to);
    }
    for (; i < shown; i++)
        at = put_score(at, score[i]);
    for (uint32_t k = 0; k < run->picks; k++)
        at = put_score(at, score[run->picked[k]]);
    return at;
}

/* Those of them that are shown. */
static inline uint32_t put_matches(uint8_t *at, const struct pd_explain_run *run, uint32_t shown)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < run->matched_n; m++) {
        uint32_t i = run->matched[m], numbers[2] = { i, run->views[i].match_blocks };
        if (i < shown || is_picked(run, i))
            memcpy(at + 8 * n++, numbers, 8);
    }
    return n;
}

/* How many of the rows fit beside `fixed` bytes; what was picked may use the room of the
 * result. */
static uint32_t rows_that_fit(const struct pd_explain_run *run, uint32_t rows, uint32_t each, uint32_t fixed,
                              uint32_t room)
{
    fixed += PD_EXPLAIN_RESERVE;
    if (fixed + rows * each <= room)
        return rows;
    return PD_MIN(rows, PD_MAX(room < fixed ? 0 : (room - fixed) / PD_MAX(each, 1u), run->picks));
}

bool pd_explain_add_run(struct pd_explain *e, const struct pd_explain_run *run)
{
    const struct pd_explain_roster *r = run->roster;
    uint32_t each = 4u * r->columns, picks = run->picks, rows = PD_MIN(PD_MAX(run->rows, picks), r->n);
    uint32_t place = hold(e, run->roster), room = e->max - e->used;
    uint32_t fixed = HEAD + picks * (4u + each) + 8u * PD_MIN(run->matched_n, rows + picks);

    if (place == PD_EXPLAIN_ROSTERS)
        return false;
    uint32_t fit = rows_that_fit(run, rows, each, fixed, room), shown = fit > picks ? fit : 0;
    uint32_t need = fixed + shown * each;
    if (need > room || (e->used + need > e->cap && !pd_explain_room(e, need))) {
        e->lost += 1 + drops_shown(r, run->without) + r->is_stale + rows * (1 + r->columns) + picks;
        return true;
    }
    e->lost += (rows - fit) * (1 + r->columns);
    uint8_t *from = e->bytes + e->used, *at = from + HEAD;
    for (uint32_t k = 0; k < picks; k++, at += 4)
        memcpy(at, &run->picked[k], 4);
    for (uint32_t k = 0; k < r->columns; k++)
        at = put_scores(at, run, run->score + (size_t)k * run->stride, shown);
    struct run_head head = { fit, shown, run->without, put_matches(at, run, shown), RUN, (uint8_t)place,
                             (uint8_t)picks, 0 };
    memcpy(from, &head, HEAD);
    e->used += (uint32_t)(at - from) + 8u * head.matches;
    return true;
}

/* ---- reading ---- */

/* A score as it would be written: 0.1 and not the nearest float. */
static double get_score(const uint8_t *at)
{
    char text[32];
    float v;

    memcpy(&v, at, sizeof v);
    snprintf(text, sizeof text, "%.7g", (double)v);
    return strtod(text, NULL);
}

/* A run that was packed. */
struct run {
    struct run_head head;
    const struct pd_explain_roster *roster;
    const uint8_t *at;              /* behind the head */
};

static struct run run_at(const struct pd_explain *e, const uint8_t *at)
{
    struct run run = { .at = at + HEAD };

    memcpy(&run.head, at, HEAD);
    run.roster = e->roster[run.head.roster];
    return run;
}

static uint32_t get_index(const uint8_t *at, uint32_t i)
{
    uint32_t v;

    memcpy(&v, at + 4 * (size_t)i, sizeof v);
    return v;
}

/* The candidate of a row: those that were picked, then the others in their order.  *place
 * is where it stands in a column. */
static uint32_t candidate_of(const struct run *run, uint32_t row, uint32_t *place)
{
    uint32_t picks = run->head.picks, i = 0;

    *place = run->head.shown + row;
    if (row < picks)
        return get_index(run->at, row);
    for (uint32_t left = row - picks;; i++) {
        bool is_pick = false;
        for (uint32_t k = 0; k < picks && !is_pick; k++)
            is_pick = get_index(run->at, k) == i;
        if (!is_pick && left-- == 0)
            break;
    }
    *place = i;
    return i;
}

static const uint8_t *behind_column(const struct run *run, uint32_t column)
{
    return run->at + 4u * (run->head.picks + column * (run->head.shown + run->head.picks));
}

static double score_of(const struct run *run, uint32_t column, uint32_t place)
{
    return get_score(behind_column(run, column) + 4u * place);
}

static double total_of(const struct run *run, uint32_t place)
{
    double total = 0;

    for (uint32_t k = 0; k < run->roster->columns; k++)
        total += run->roster->column[k].weight * score_of(run, k, place);
    return total;
}

static uint32_t match_of(const struct run *run, uint32_t candidate)
{
    const uint8_t *at = behind_column(run, run->roster->columns);

    for (uint32_t m = 0; m < run->head.matches; m++) {
        if (get_index(at, 2 * m) == candidate)
            return get_index(at, 2 * m + 1);
    }
    return 0;
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

uint32_t pd_explain_run_lines(const struct pd_explain *e, const uint8_t *at, uint32_t *bytes)
{
    const struct run run = run_at(e, at);
    const struct pd_explain_roster *r = run.roster;

    *bytes = (uint32_t)(behind_column(&run, r->columns) - at) + 8u * run.head.matches;
    return 1 + drops_shown(r, run.head.without) + r->is_stale + run.head.rows * (1 + r->columns) + run.head.picks;
}

void pd_explain_run_line(const struct pd_explain *e, const uint8_t *at, uint32_t want,
                         struct pd_explain_line *out)
{
    const struct run run = run_at(e, at);
    const struct pd_explain_roster *r = run.roster;
    uint32_t drops = drops_shown(r, run.head.without), place;
    uint32_t first = 1 + drops + r->is_stale, lines = run.head.rows * (1 + r->columns);

    if (want == 0) {
        out->kind = PD_EXPLAIN_PROFILE;
        out->subject = r->profile;
        out->value = r->candidates - (run.head.without != 0);
    } else if (want <= drops) {
        dropped_line(r, run.head.without, want - 1, out);
    } else if (want < first) {
        out->kind = PD_EXPLAIN_NOTE;
        out->text = PD_STR("every load report is stale, used anyway");
    } else {
        bool is_pick = want >= first + lines;
        uint32_t row = is_pick ? want - first - lines : (want - first) / (1 + r->columns);
        uint32_t column = is_pick ? 0 : (want - first) % (1 + r->columns);
        uint32_t candidate = candidate_of(&run, row, &place);
        out->kind = is_pick ? PD_EXPLAIN_PICKED : column == 0 ? PD_EXPLAIN_CANDIDATE : PD_EXPLAIN_SCORE;
        if (column == 0) {
            out->subject = r->name[candidate];
            out->plugin = is_pick ? r->picker : PD_STR("");
            out->value = total_of(&run, place);
            out->extra = is_pick ? 0 : match_of(&run, candidate);
        } else {
            out->plugin = r->column[column - 1].plugin;
            out->value = score_of(&run, column - 1, place);
            out->extra = r->column[column - 1].weight;
        }
    }
}
