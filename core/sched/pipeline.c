/* SPDX-License-Identifier: Apache-2.0 */
/* Scores a shortlist and picks from it.  Scores that only loads change stand in the list
 * already, those that need a match are asked for candidates that have one.  Plugins are
 * third-party code: what they return is clamped (scores to 0..1, NaN to 0), and indices
 * of a picker are checked.
 *
 *     total(c) = sum over scorers of weight * clamp(score(c)) */
#include "sched/pipeline.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"
#include "sched/prefix.h"
#include "sched/shortlist.h"

#include <math.h>
#include <string.h>

pd_status pd_pipeline_scratch_init(struct pd_pipeline_scratch *s, uint32_t cap)
{
    memset(s, 0, sizeof *s);
    s->cap = cap;
    s->keep = pd_calloc(cap, sizeof *s->keep);
    s->total = pd_calloc(cap, sizeof *s->total);
    s->holders = pd_calloc(cap, sizeof *s->holders);
    s->index = pd_calloc(PD_PIPELINE_PICKS_MAX, sizeof *s->index);
    if (s->keep == NULL || s->total == NULL || s->holders == NULL || s->index == NULL) {
        pd_pipeline_scratch_fini(s);
        return PD_ENOMEM;
    }
    return PD_OK;
}

void pd_pipeline_scratch_fini(struct pd_pipeline_scratch *s)
{
    pd_free(s->keep);
    pd_free(s->total);
    pd_free(s->holders);
    pd_free(s->index);
    memset(s, 0, sizeof *s);
}

pd_status pd_profile_add_filter(struct pd_profile *p, const char *name,
                                const struct pd_filter_ops *ops, struct pd_filter *instance)
{
    if (p->filters_n == PD_PROFILE_FILTERS_MAX)
        return PD_ELIMIT;
    p->filters[p->filters_n].name = name;
    p->filters[p->filters_n].ops = ops;
    p->filters[p->filters_n++].instance = instance;
    return PD_OK;
}

pd_status pd_profile_add_scorer(struct pd_profile *p, const char *name,
                                const struct pd_scorer_ops *ops, struct pd_scorer *instance,
                                double weight)
{
    if (p->scorers_n == PD_PROFILE_SCORERS_MAX)
        return PD_ELIMIT;
    p->scorers[p->scorers_n].name = name;
    p->scorers[p->scorers_n].ops = ops;
    p->scorers[p->scorers_n].weight = weight;
    p->scorers[p->scorers_n].instance = instance;
    if ((ops->flags & PD_SCORER_BY_LOAD) == 0)
        p->asked[p->asked_n++] = (uint8_t)p->scorers_n;
    p->has_picked = p->has_picked || ops->picked != NULL;
    p->scorers_n++;
    return PD_OK;
}

/* Written so that it becomes two instructions without a jump. */
static inline double clamp(double score)
{
    double low = score > 0 ? score : 0;     /* NaN is 0 too */
    return low < 1 ? low : 1;
}

static inline double *column_of(const struct pd_shortlist *l, uint32_t scorer)
{
    return l->scores + (size_t)scorer * l->cap;
}

/* What the request before left. */
static void forget_matches(struct pd_shortlist *l)
{
    const struct pd_profile *p = l->profile;

    for (uint32_t m = 0; m < l->matched_n; m++) {
        uint32_t i = l->matched[m];
        l->views[i].match_blocks = 0;
        for (uint32_t k = 0; k < p->asked_n; k++)
            column_of(l, p->asked[k])[i] = 0;
    }
    l->matched_n = 0;
}

void pd_pipeline_match(const struct pd_pipeline_scratch *s, struct pd_shortlist *l)
{
    forget_matches(l);
    for (uint32_t h = 0; h < s->holders_n; h++) {
        uint32_t i = pd_shortlist_find(l, s->holders[h].slot);
        if (i >= l->n)
            continue;
        l->views[i].match_blocks = s->holders[h].blocks;
        l->matched[l->matched_n++] = i;
    }
}

static void score_matched(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run, uint32_t k)
{
    const struct pd_shortlist *l = run->list;
    const struct pd_scorer_ops *ops = l->profile->scorers[k].ops;
    double *column = column_of(l, k), weight = l->profile->scorers[k].weight;

    for (uint32_t m = 0; m < l->matched_n; m++) {
        uint32_t i = l->matched[m];
        ops->score(l->profile->scorers[k].instance, run->request, &l->views[i], 1, &column[i]);
        column[i] = clamp(column[i]);
        s->total[i] += weight * column[i];
    }
}

static void score_all(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run, uint32_t k)
{
    const struct pd_shortlist *l = run->list;
    double *column = column_of(l, k), *total = s->total, weight = l->profile->scorers[k].weight;
    uint32_t n = l->n;

    memset(column, 0, n * sizeof *column);
    l->profile->scorers[k].ops->score(l->profile->scorers[k].instance, run->request, l->views, n, column);
    for (uint32_t i = 0; i < n; i++) {
        column[i] = clamp(column[i]);
        total[i] += weight * column[i];
    }
}

static void score(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run)
{
    const struct pd_shortlist *l = run->list;
    const struct pd_profile *p = l->profile;

    memcpy(s->total, l->base, l->n * sizeof *s->total);
    for (uint32_t a = 0; a < p->asked_n; a++) {
        uint32_t k = p->asked[a];
        if ((p->scorers[k].ops->flags & PD_SCORER_BY_MATCH) != 0 && l->matched_n < l->n / 4 + 1)
            score_matched(s, run, k);
        else
            score_all(s, run, k);
    }
}

/* Keeps the legal and distinct indices of what the picker wrote.  A picker
 * that gives nothing although there are candidates gets the first one. */
static uint32_t pick(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run)
{
    const struct pd_shortlist *l = run->list;
    const struct pd_profile *p = l->profile;
    uint32_t want = PD_MIN(PD_MIN(run->want, l->n), PD_PIPELINE_PICKS_MAX);
    uint32_t legal = 0;

    if (want == 0)
        return 0;
    uint32_t got = p->picker_ops->pick(p->picker, run->request, l->views, s->total, l->n, want, s->index);
    got = PD_MIN(got, want);
    if (got == 1 && s->index[0] < l->n)
        return 1;
    for (uint32_t i = 0; i < got; i++) {
        bool good = s->index[i] < l->n;
        for (uint32_t j = 0; j < legal && good; j++)
            good = s->index[j] != s->index[i];
        if (good)
            s->index[legal++] = s->index[i];
    }
    if (legal == 0)
        s->index[legal++] = 0;
    return legal;
}

/* Rows on their way to the sink. */
struct rows {
    const struct pd_pipeline_scratch *s;
    const struct pd_pipeline_run *run;
    struct pd_explain_table table;
    struct pd_explain_row row[PD_EXPLAIN_ROWS];
    struct pd_explain_column column[PD_EXPLAIN_COLUMNS];
    double score[PD_EXPLAIN_ROWS * PD_EXPLAIN_COLUMNS];
};

_Static_assert(PD_PROFILE_SCORERS_MAX <= PD_EXPLAIN_COLUMNS, "a row must have room for all scorers");

static void rows_flush(struct rows *r)
{
    const struct pd_explain_sink *sink = &r->run->explain;
    const struct pd_explain_table *t = &r->table;

    if (sink->table != NULL && t->rows > 0)
        sink->table(sink->arg, t);
    for (uint32_t i = 0; i < t->rows && sink->table == NULL; i++) {
        struct pd_explain_line line = { .kind = PD_EXPLAIN_CANDIDATE, .subject = t->row[i].subject,
                                        .value = t->row[i].total, .extra = t->row[i].match };
        sink->line(sink->arg, &line);
        for (uint32_t k = 0; k < t->columns; k++) {
            line = (struct pd_explain_line){ .kind = PD_EXPLAIN_SCORE, .plugin = t->column[k].plugin,
                                             .value = t->score[i * t->columns + k],
                                             .extra = t->column[k].weight };
            sink->line(sink->arg, &line);
        }
    }
    r->table.rows = 0;
}

static inline void rows_add(struct rows *r, uint32_t candidate)
{
    uint32_t at = r->table.rows++, columns = r->table.columns, cap = r->run->list->cap;
    const struct pd_endpoint_view *view = &r->run->list->views[candidate];
    const double *from = &r->run->list->scores[candidate];
    double *to = &r->score[at * columns];

    r->row[at] = (struct pd_explain_row){ pd_str_from(view->name), r->s->total[candidate],
                                          view->match_blocks };
    for (uint32_t k = 0; k < columns; k++, from += cap)
        to[k] = *from;
    if (r->table.rows == PD_EXPLAIN_ROWS)
        rows_flush(r);
}

/* The picked ones first, so that room for lines never hides them. */
static void explain(const struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run)
{
    const struct pd_shortlist *l = run->list;
    const struct pd_profile *p = l->profile;
    uint32_t shown = 0;
    struct rows r;

    if (run->explain.line == NULL)
        return;
    r.s = s;
    r.run = run;
    r.table = (struct pd_explain_table){ 0, p->scorers_n, r.row, r.column, r.score };
    for (uint32_t k = 0; k < p->scorers_n; k++)
        r.column[k] = (struct pd_explain_column){ pd_str_from(p->scorers[k].name), p->scorers[k].weight };
    for (uint32_t k = 0; k < run->picks; k++, shown++)
        rows_add(&r, s->index[k]);
    for (uint32_t i = 0; i < l->n && shown < run->explain_max; i++) {
        bool picked = false;
        for (uint32_t k = 0; k < run->picks && !picked; k++)
            picked = s->index[k] == i;
        if (picked)
            continue;
        rows_add(&r, i);
        shown++;
    }
    rows_flush(&r);
    for (uint32_t k = 0; k < run->picks; k++)
        pd_explain_emit(&run->explain, PD_EXPLAIN_PICKED, l->views[s->index[k]].name,
                        p->picker_name, "", s->total[s->index[k]], 0);
}

static void explain_filters(const struct pd_pipeline_run *run)
{
    const struct pd_shortlist *l = run->list;
    uint32_t shown = 0;

    pd_explain_emit(&run->explain, PD_EXPLAIN_PROFILE, l->profile->name, "", "",
                    l->candidates - (run->without != 0), 0);
    for (uint32_t i = 0; i < l->drops_n && shown < run->explain_max; i++) {
        if (l->drops[i].slot + 1 == run->without)
            continue;
        pd_explain_emit(&run->explain, PD_EXPLAIN_DROPPED, l->drops[i].name, l->drops[i].plugin, "", 0, 0);
        shown++;
    }
    if (l->is_stale)
        pd_explain_emit(&run->explain, PD_EXPLAIN_NOTE, "", "", "every load report is stale, used anyway", 0, 0);
    if (l->n == 0)
        pd_explain_emit(&run->explain, PD_EXPLAIN_NOTE, "", "", "no candidate is left", 0, 0);
}

/* The short way, where the names of the list stand in a roster. */
static bool explain_run(const struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run)
{
    struct pd_shortlist *l = run->list;

    if (run->explain.run == NULL ||
        (l->roster == NULL && pd_shortlist_roster(l, run->explain_max) == NULL))
        return false;
    const struct pd_explain_run all = {
        .roster = l->roster, .picked = s->index, .picks = run->picks, .rows = run->explain_max,
        .without = (uint32_t)run->without, .stride = l->cap, .views = l->views, .score = l->scores,
        .matched = l->matched, .matched_n = l->matched_n,
    };
    return run->explain.run(run->explain.arg, &all);
}

void pd_pipeline_run(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run)
{
    run->picks = 0;
    if (run->list->n > 0) {
        score(s, run);
        run->picks = pick(s, run);
        if (explain_run(s, run))
            return;
    }
    if (run->explain.line != NULL)
        explain_filters(run);
    if (run->list->n > 0)
        explain(s, run);
}
