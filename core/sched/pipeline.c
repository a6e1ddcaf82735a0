/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one profile.  Candidates stand in one array; each filter marks and the
 * array is compacted in place, so scorers and picker see what is left and
 * nothing else.  Plugins are third-party code: what they return is clamped
 * (scores to 0..1, NaN to 0), and indices of a picker are checked.
 *
 *     total(c) = sum over scorers of weight * clamp(score(c)) */
#include "sched/pipeline.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"

#include <math.h>
#include <string.h>

pd_status pd_pipeline_scratch_init(struct pd_pipeline_scratch *s, uint32_t cap,
                                   uint32_t scorers_max)
{
    memset(s, 0, sizeof *s);
    s->cap = cap;
    s->scorers_max = PD_MAX(scorers_max, 1u);
    s->views = pd_calloc(cap, sizeof *s->views);
    s->keep = pd_calloc(cap, sizeof *s->keep);
    s->total = pd_calloc(cap, sizeof *s->total);
    s->scores = pd_calloc((size_t)cap * s->scorers_max, sizeof *s->scores);
    s->index = pd_calloc(PD_PIPELINE_PICKS_MAX, sizeof *s->index);
    if (s->views == NULL || s->keep == NULL || s->total == NULL || s->scores == NULL ||
        s->index == NULL) {
        pd_pipeline_scratch_fini(s);
        return PD_ENOMEM;
    }
    return PD_OK;
}

void pd_pipeline_scratch_fini(struct pd_pipeline_scratch *s)
{
    pd_free(s->views);
    pd_free(s->keep);
    pd_free(s->total);
    pd_free(s->scores);
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
    p->scorers[p->scorers_n++].instance = instance;
    return PD_OK;
}

/* Removes candidates that are not marked, keeps the order of the others. */
static uint32_t compact(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run,
                        uint32_t n, const char *plugin, uint32_t *explained)
{
    uint32_t left = 0;

    if (memchr(s->keep, 0, n) == NULL)
        return n;
    for (uint32_t i = 0; i < n; i++) {
        if (s->keep[i] != 0) {
            if (left != i)
                s->views[left] = s->views[i];
            left++;
        } else if (run->explain.line != NULL && *explained < run->explain_max) {
            (*explained)++;
            pd_explain_emit(&run->explain, PD_EXPLAIN_DROPPED, s->views[i].name, plugin, "", 0, 0);
        }
    }
    return left;
}

/* Reports that stopped coming mislead: such candidates step back behind the
 * others.  When all have stopped, old numbers are better than none.  A
 * candidate that never reports (a server without load reports) is not stale. */
static uint32_t drop_stale(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run, uint32_t n,
                           uint32_t *explained)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < n; i++) {
        pd_time age = s->views[i].report_age_ns;
        s->keep[i] = age == PD_TIME_NEVER || age <= run->stale_ns;
        good += s->keep[i];
    }
    run->stale = good == 0 && n > 0;
    if (good == n || good == 0)
        return n;
    return compact(s, run, n, "stale load report", explained);
}

/* Whatever the profile filters by: nothing goes to an endpoint that is down or
 * draining. */
static uint32_t drop_closed(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run, uint32_t n,
                            uint32_t *explained)
{
    for (uint32_t i = 0; i < n; i++)
        s->keep[i] = s->views[i].state != PD_ENDPOINT_DOWN &&
                     s->views[i].state != PD_ENDPOINT_DRAINING;
    return compact(s, run, n, "down or draining", explained);
}

/* Mostly neither has anything to drop. */
static bool all_open_and_fresh(const struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run,
                               uint32_t n)
{
    uint32_t others = 0;

    /* Without a report the age is the greatest there is, and one more makes it 0. */
    _Static_assert(PD_TIME_NEVER == UINT64_MAX, "adding 1 gives 0");
    for (uint32_t i = 0; i < n; i++) {
        const struct pd_endpoint_view *v = &s->views[i];
        others |= (uint32_t)(v->state >= PD_ENDPOINT_DOWN) |
                  (uint32_t)(v->report_age_ns + 1 > run->stale_ns + (run->stale_ns != PD_TIME_NEVER));
    }
    return others == 0;
}

static uint32_t filter(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run)
{
    const struct pd_profile *p = run->profile;
    uint32_t n = run->candidates;
    uint32_t explained = 0;

    for (uint32_t f = 0; f < p->filters_n && n > 0; f++) {
        memset(s->keep, 1, n);
        p->filters[f].ops->apply(p->filters[f].instance, run->request, s->views, n, s->keep);
        n = compact(s, run, n, p->filters[f].name, &explained);
    }
    if (all_open_and_fresh(s, run, n))
        return n;
    n = drop_closed(s, run, n, &explained);
    return drop_stale(s, run, n, &explained);
}

/* Written so that it becomes two instructions without a jump. */
static inline double clamp(double score)
{
    double low = score > 0 ? score : 0;     /* NaN is 0 too */
    return low < 1 ? low : 1;
}

static void score(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run)
{
    const struct pd_profile *p = run->profile;
    uint32_t n = run->left;

    memset(s->total, 0, n * sizeof *s->total);
    for (uint32_t k = 0; k < p->scorers_n; k++) {
        double *row = s->scores + (size_t)k * s->cap;
        memset(row, 0, n * sizeof *row);
        p->scorers[k].ops->score(p->scorers[k].instance, run->request, s->views, n, row);
        double weight = p->scorers[k].weight;
        double *total = s->total;
        for (uint32_t i = 0; i < n; i++) {
            row[i] = clamp(row[i]);
            total[i] += weight * row[i];
        }
    }
}

/* Keeps the legal and distinct indices of what the picker wrote.  A picker
 * that gives nothing although there are candidates gets the first one. */
static uint32_t pick(struct pd_pipeline_scratch *s, const struct pd_pipeline_run *run)
{
    const struct pd_profile *p = run->profile;
    uint32_t want = PD_MIN(PD_MIN(run->want, run->left), PD_PIPELINE_PICKS_MAX);
    uint32_t legal = 0;

    if (want == 0)
        return 0;
    uint32_t got = p->picker_ops->pick(p->picker, run->request, s->views, s->total, run->left, want,
                                       s->index);
    got = PD_MIN(got, want);
    for (uint32_t i = 0; i < got; i++) {
        bool good = s->index[i] < run->left;
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
    uint32_t at = r->table.rows++, columns = r->table.columns, cap = r->s->cap;
    const struct pd_endpoint_view *view = &r->s->views[candidate];
    const double *from = &r->s->scores[candidate];
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
    const struct pd_profile *p = run->profile;
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
    for (uint32_t i = 0; i < run->left && shown < run->explain_max; i++) {
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
        pd_explain_emit(&run->explain, PD_EXPLAIN_PICKED, s->views[s->index[k]].name,
                        p->picker_name, "", s->total[s->index[k]], 0);
}

void pd_pipeline_run(struct pd_pipeline_scratch *s, struct pd_pipeline_run *run)
{
    pd_assert(run->candidates <= s->cap && run->profile->scorers_n <= s->scorers_max);
    run->stale = false;
    run->picks = 0;
    pd_explain_emit(&run->explain, PD_EXPLAIN_PROFILE, run->profile->name, "", "", run->candidates,
                    0);
    run->left = filter(s, run);
    if (run->stale)
        pd_explain_emit(&run->explain, PD_EXPLAIN_NOTE, "", "",
                        "every load report is stale, used anyway", 0, 0);
    if (run->left == 0) {
        pd_explain_emit(&run->explain, PD_EXPLAIN_NOTE, "", "", "no candidate is left", 0, 0);
        return;
    }
    score(s, run);
    run->picks = pick(s, run);
    explain(s, run);
}
