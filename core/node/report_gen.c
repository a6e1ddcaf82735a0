/* SPDX-License-Identifier: Apache-2.0 */
/* The report on generations: which configuration holds, which still have
 * requests, and what each waits for. */
#include "node/report.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"

static pd_time age_of(const struct pd_node *node, pd_time then)
{
    pd_time now = pd_loop_now(node->loop);
    return now > then ? now - then : 0;
}

struct waits {
    char text[200];
    size_t n;
};

static void PD_PRINTF(2, 3) waits_add(struct waits *w, const char *fmt, ...)
{
    va_list args;
    if (w->n > 0 && w->n < sizeof w->text)
        w->n += (size_t)snprintf(w->text + w->n, sizeof w->text - w->n, ", ");
    if (w->n >= sizeof w->text)
        return;
    va_start(args, fmt);
    w->n += (size_t)vsnprintf(w->text + w->n, sizeof w->text - w->n, fmt, args);
    va_end(args);
}

static void uses_add(struct pd_node *node, const struct pd_node_engine_unit *e, uint32_t *leases,
                     uint32_t *transfers)
{
    uint32_t l, t;
    if (e->region == NULL)
        return;
    pd_kv_region_uses(node->kv, e->region, &l, &t);
    *leases += l;
    *transfers += t;
}

static void put_generation(struct pd_node *node, struct pd_view *v, const struct pd_node_generation *g,
                           const struct pd_node_generation *before)
{
    struct waits w = { .text = "" };
    uint32_t leases = 0, transfers = 0;
    bool is_current = g == node->generation;
    for (uint32_t i = 0; is_current && i < node->n_engines; i++)
        uses_add(node, node->engines[i], &leases, &transfers);
    for (uint32_t i = 0; i < g->n_engines; i++)
        uses_add(node, g->engines[i], &leases, &transfers);
    if (!is_current && g->holds > 0)
        waits_add(&w, "%u request%s", g->holds, g->holds == 1 ? "" : "s");
    if (!is_current && before != NULL)
        waits_add(&w, "generation %llu", (unsigned long long)before->number);
    for (uint32_t i = 0; i < g->n_engines; i++)
        waits_add(&w, "engine %s", g->engines[i]->e.name);
    for (uint32_t i = 0; i < g->n_roles; i++)
        waits_add(&w, "role %s", g->roles[i].unit->unit->name);
    if (g->n_ending > 0)
        waits_add(&w, "%u to end", g->n_ending);
    pd_view_row(v);
    pd_view_count(v, g->number);
    pd_view_str(v, is_current ? (node->is_draining ? "draining" : "serving") : "ending");
    pd_view_duration(v, age_of(node, g->since));
    pd_view_count(v, g->holds);
    pd_view_count(v, leases);
    pd_view_count(v, transfers);
    pd_view_str(v, w.text);
}

void pd_report_generations(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "generation", "GENERATION", PD_VIEW_RIGHT }, { "state", "STATE", 0 },
        { "age_seconds", "AGE", PD_VIEW_RIGHT }, { "requests", "REQUESTS", PD_VIEW_RIGHT },
        { "leases", "LEASES", PD_VIEW_RIGHT }, { "transfers", "TRANSFERS", PD_VIEW_RIGHT },
        { "waits_for", "WAITS FOR", PD_VIEW_WIDE | PD_VIEW_SPARSE }, { NULL, NULL, 0 },
    };
    const struct pd_node_reloads *r = &node->reloads;
    const struct pd_node_generation *before = NULL;
    pd_view_table(v, "generations", NULL, columns, NULL);
    PD_LIST_EACH(&node->generations, link) {
        const struct pd_node_generation *g = PD_LIST_ENTRY(link, struct pd_node_generation, link);
        if (g->number == 0)
            continue; /* it never held */
        put_generation(node, v, g, before);
        before = g;
    }
    pd_view_end(v);
    pd_view_object(v, "reloads", NULL);
    pd_view_field(v, "done", "reloads");
    pd_view_count(v, r->done);
    pd_view_field(v, "refused", "refused");
    pd_view_count(v, r->refused);
    pd_view_field(v, "ended", "requests ended");
    pd_view_count(v, r->ended);
    pd_view_field(v, "took_seconds", "last one took");
    pd_view_duration(v, r->done > 0 ? r->took_ns : PD_TIME_NEVER);
    pd_view_field(v, "refused_why", "last refusal");
    pd_view_str(v, r->refused_at != PD_TIME_NEVER ? r->why : "");
    pd_view_end(v);
}
