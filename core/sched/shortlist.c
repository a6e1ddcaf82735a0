/* SPDX-License-Identifier: Apache-2.0 */
/* Making a list and keeping it up to date.  Candidates stand in one array; each filter
 * marks and the array is compacted in place, so the next one, scorers and picker see
 * what is left and nothing else.  Plugins are third-party code: scores are clamped to
 * 0..1, NaN to 0. */
#include "sched/shortlist.h"

#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "req/roster.h"

pd_status pd_shortlist_reserve(struct pd_shortlist *l, uint32_t n, uint32_t columns, uint32_t slots)
{
    if (n <= l->cap && columns <= l->columns && slots <= l->slots)
        return PD_OK;
    struct pd_shortlist more = { .cap = PD_MAX(n, l->cap), .columns = PD_MAX(columns, l->columns),
                                 .slots = PD_MAX(slots, l->slots) };
    more.views = pd_calloc(more.cap, sizeof *more.views);
    more.base = pd_calloc(more.cap, sizeof *more.base);
    more.scores = pd_calloc((size_t)more.cap * PD_MAX(more.columns, 1u), sizeof *more.scores);
    more.matched = pd_calloc(more.cap, sizeof *more.matched);
    more.drops = pd_calloc(more.cap, sizeof *more.drops);
    more.at = pd_calloc(more.slots, sizeof *more.at);
    bool is_good = more.views != NULL && more.base != NULL && more.scores != NULL && more.matched != NULL &&
                   more.drops != NULL && more.at != NULL;
    pd_shortlist_fini(is_good ? l : &more);
    if (is_good)
        *l = more;
    return is_good ? PD_OK : PD_ENOMEM;
}

void pd_shortlist_fini(struct pd_shortlist *l)
{
    pd_explain_roster_put(l->roster);
    pd_free(l->views);
    pd_free(l->base);
    pd_free(l->scores);
    pd_free(l->matched);
    pd_free(l->drops);
    pd_free(l->at);
    memset(l, 0, sizeof *l);
}

void pd_shortlist_begin(struct pd_shortlist *l, const struct pd_profile *profile, uint32_t slots)
{
    pd_assert(slots <= l->slots && profile->scorers_n <= l->columns);
    memset(l->at, 0, slots * sizeof *l->at);
    pd_explain_roster_put(l->roster);
    l->roster = NULL;
    l->explained = 0;
    l->version = 0;
    l->profile = profile;
    l->n = l->matched_n = l->drops_n = 0;
    l->has_base = l->has_partners = l->shows_age = l->is_stale = false;
    l->until = 0;
}

/* ---- filters ---- */

/* Removes candidates that are not marked, keeps the order of the others. */
static void compact(struct pd_shortlist *l, const struct pd_pipeline_scratch *s, const char *plugin,
                    uint32_t drops_max, bool is_alone)
{
    uint32_t left = 0;

    if (memchr(s->keep, 0, l->n) == NULL)
        return;
    for (uint32_t i = 0; i < l->n; i++) {
        const struct pd_endpoint_view *v = &l->views[i];
        if (s->keep[i] != 0) {
            if (left != i)
                l->views[left] = *v;
            left++;
            continue;
        }
        l->at[v->slot] = is_alone ? PD_SHORTLIST_ALONE : PD_SHORTLIST_DROPPED;
        if (l->drops_n < drops_max)
            l->drops[l->drops_n++] = (struct pd_shortlist_drop){ v->slot, v->name, plugin };
    }
    l->n = left;
}

/* Reports that stopped coming mislead: such candidates step back behind the
 * others.  When all have stopped, old numbers are better than none.  A
 * candidate that never reports (a server without load reports) is not stale. */
static void drop_stale(struct pd_shortlist *l, const struct pd_pipeline_scratch *s, pd_time stale_ns,
                       uint32_t drops_max)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < l->n; i++) {
        pd_time age = l->views[i].report_age_ns;
        s->keep[i] = age == PD_TIME_NEVER || age <= stale_ns;
        good += s->keep[i];
    }
    l->is_stale = good == 0 && l->n > 0;
    if (good > 0)
        compact(l, s, "stale load report", drops_max, false);
}

/* Whatever the profile filters by: nothing goes to an endpoint that is down or
 * draining. */
static void drop_closed(struct pd_shortlist *l, const struct pd_pipeline_scratch *s, uint32_t drops_max)
{
    for (uint32_t i = 0; i < l->n; i++)
        s->keep[i] = l->views[i].state != PD_ENDPOINT_DOWN && l->views[i].state != PD_ENDPOINT_DRAINING;
    compact(l, s, "down or draining", drops_max, false);
}

bool pd_shortlist_is_steady(const struct pd_profile *profile)
{
    bool is_steady = true;

    for (uint32_t f = 0; f < profile->filters_n; f++)
        is_steady = is_steady && (profile->filters[f].ops->flags & PD_FILTER_STEADY) != 0;
    return is_steady;
}

pd_time pd_shortlist_until(const struct pd_shortlist *l, const struct pd_endpoints *t, pd_time stale_ns,
                           pd_time now)
{
    pd_time until = PD_TIME_NEVER;

    /* Also of those that were dropped: they may come back. */
    for (uint32_t slot = 0; slot < t->used; slot++) {
        const struct pd_endpoint *e = t->slots[slot];
        if (e == NULL || l->at[slot] == PD_SHORTLIST_NONE)
            continue;
        if (now < e->suspect_until)
            until = PD_MIN(until, e->suspect_until);
        if (e->reported < PD_TIME_NEVER - stale_ns && now <= e->reported + stale_ns)
            until = PD_MIN(until, e->reported + stale_ns + 1);
    }
    return until;
}

/* ---- scores that only loads change ---- */

static double clamp(double score)
{
    return score > 0 ? PD_MIN(score, 1.0) : 0;      /* NaN is 0 too */
}

static void set_base(struct pd_shortlist *l, const struct pd_sched_request *request)
{
    const struct pd_profile *p = l->profile;

    memset(l->base, 0, l->n * sizeof *l->base);
    for (uint32_t k = 0; k < p->scorers_n; k++) {
        if ((p->scorers[k].ops->flags & PD_SCORER_BY_LOAD) == 0)
            continue;
        double *column = l->scores + (size_t)k * l->cap, weight = p->scorers[k].weight;
        memset(column, 0, l->n * sizeof *column);
        p->scorers[k].ops->score(p->scorers[k].instance, request, l->views, l->n, column);
        for (uint32_t i = 0; i < l->n; i++)
            l->base[i] += weight * (column[i] = clamp(column[i]));
    }
}

/* The same of one. */
static void set_one(struct pd_shortlist *l, const struct pd_sched_request *request, uint32_t i)
{
    const struct pd_profile *p = l->profile;
    double base = 0;

    for (uint32_t k = 0; k < p->scorers_n; k++) {
        if ((p->scorers[k].ops->flags & PD_SCORER_BY_LOAD) == 0)
            continue;
        double score = 0;
        p->scorers[k].ops->score(p->scorers[k].instance, request, &l->views[i], 1, &score);
        score = clamp(score);
        l->scores[(size_t)k * l->cap + i] = score;
        base += p->scorers[k].weight * score;
    }
    l->base[i] = base;
}

/* What the scorers promise; scores that need a match are 0 from here on. */
static void look_at_plugins(struct pd_shortlist *l)
{
    const struct pd_profile *p = l->profile;
    const uint64_t ageless = PD_SCORER_BY_LOAD | PD_SCORER_BY_MATCH | PD_SCORER_NO_AGE;
    bool looks = (p->picker_ops->flags & PD_PICKER_NO_AGE) == 0, has_reports = false;

    for (uint32_t k = 0; k < p->scorers_n; k++) {
        l->has_base = l->has_base || (p->scorers[k].ops->flags & PD_SCORER_BY_LOAD) != 0;
        looks = looks || (p->scorers[k].ops->flags & ageless) == 0;
        memset(l->scores + (size_t)k * l->cap, 0, l->n * sizeof *l->scores);
    }
    for (uint32_t i = 0; i < l->n && looks && !has_reports; i++)
        has_reports = l->views[i].report_age_ns != PD_TIME_NEVER;
    l->shows_age = looks && has_reports;
}

void pd_shortlist_filter(struct pd_shortlist *l, struct pd_pipeline_scratch *s,
                         const struct pd_sched_request *request, pd_time stale_ns, uint32_t drops_max)
{
    const struct pd_profile *p = l->profile;
    bool is_alone = true;

    l->candidates = l->n;
    for (uint32_t f = 0; f < p->filters_n && l->n > 0; f++) {
        memset(s->keep, 1, l->n);
        p->filters[f].ops->apply(p->filters[f].instance, request, l->views, l->n, s->keep);
        is_alone = is_alone && (p->filters[f].ops->flags & PD_FILTER_EACH) != 0;
        compact(l, s, p->filters[f].name, drops_max, is_alone);
    }
    drop_closed(l, s, drops_max);
    drop_stale(l, s, stale_ns, drops_max);
    for (uint32_t i = 0; i < l->n; i++)
        l->at[l->views[i].slot] = i + 1;
    look_at_plugins(l);
    if (l->n > 0)
        set_base(l, request);
}

/* ---- names ---- */

static size_t text_bytes(const struct pd_shortlist *l)
{
    const struct pd_profile *p = l->profile;
    size_t n = strlen(p->name) + strlen(p->picker_name);

    for (uint32_t k = 0; k < p->scorers_n; k++)
        n += strlen(p->scorers[k].name);
    for (uint32_t i = 0; i < l->n; i++)
        n += strlen(l->views[i].name);
    for (uint32_t i = 0; i < l->drops_n; i++)
        n += strlen(l->drops[i].name) + strlen(l->drops[i].plugin);
    return n;
}

struct pd_explain_roster *pd_shortlist_roster(struct pd_shortlist *l, uint32_t drops_max)
{
    const struct pd_profile *p = l->profile;

    if (l->roster != NULL || l->version == 0 || ++l->explained < PD_SHORTLIST_ROSTER_AFTER)
        return l->roster;
    struct pd_explain_roster *r = pd_explain_roster_make(l->n, p->scorers_n, l->drops_n, text_bytes(l));
    l->explained = 0;
    if (r == NULL)
        return NULL;
    r->candidates = l->candidates;
    r->is_stale = l->is_stale;
    r->drops_max = drops_max;
    r->profile = pd_explain_roster_text(r, p->name);
    r->picker = pd_explain_roster_text(r, p->picker_name);
    for (uint32_t k = 0; k < p->scorers_n; k++)
        r->column[k] = (struct pd_explain_column){ pd_explain_roster_text(r, p->scorers[k].name),
                                                   p->scorers[k].weight };
    for (uint32_t i = 0; i < l->n; i++)
        r->name[i] = pd_explain_roster_text(r, l->views[i].name);
    for (uint32_t i = 0; i < l->drops_n; i++)
        r->drop[i] = (struct pd_explain_drop){ l->drops[i].slot, pd_explain_roster_text(r, l->drops[i].name),
                                               pd_explain_roster_text(r, l->drops[i].plugin) };
    l->roster = r;
    return r;
}

/* ---- loads ---- */

/* Whether anything about it has changed. */
static inline bool take_load(struct pd_endpoint_view *v, const struct pd_endpoint_view *now)
{
    const size_t from = offsetof(struct pd_endpoint_view, running);
    const size_t n = offsetof(struct pd_endpoint_view, report_age_ns) - from;

    if (memcmp((char *)v + from, (const char *)now + from, n) == 0)
        return false;
    memcpy((char *)v + from, (const char *)now + from, n);
    return true;
}

/* Loads that came and went before anybody looked cost nothing. */
static void take_change(struct pd_shortlist *l, const struct pd_endpoints *t,
                        const struct pd_sched_request *request, uint32_t slot)
{
    uint32_t i = pd_shortlist_find(l, slot);

    if (i < l->n && take_load(&l->views[i], &t->slots[slot]->view) && l->has_base)
        set_one(l, request, i);
}

void pd_shortlist_refresh(struct pd_shortlist *l, const struct pd_endpoints *t,
                          const struct pd_sched_request *request, pd_time now)
{
    bool is_all = t->changes - l->seen > PD_ENDPOINTS_CHANGES;

    for (uint32_t i = 0; i < l->n && is_all; i++)
        (void)take_load(&l->views[i], &t->slots[l->views[i].slot]->view);
    if (is_all && l->n > 0)
        set_base(l, request);
    for (uint64_t c = is_all ? t->changes : l->seen; c != t->changes; c++)
        take_change(l, t, request, t->changed[c % PD_ENDPOINTS_CHANGES]);
    l->seen = t->changes;
    for (uint32_t i = 0; i < l->n && l->shows_age; i++)
        l->views[i].report_age_ns = pd_endpoint_age(t->slots[l->views[i].slot], now);
}
