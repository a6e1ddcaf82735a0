/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for discovery that hold for every source: what it tells, and in which
 * order. */
#include "conform/discovery_source.h"

#include "base/str.h"

static void run_flags(const struct cf_unit *u)
{
    const struct pd_discovery_ops *ops = source_ops(u);
    struct cf_world w;
    struct source o;

    CF_NEED((ops->flags & ~(uint32_t)(PD_DISCOVERY_FIXED | PD_DISCOVERY_REFRESH)) == 0,
            "flags has bits that mean nothing");
    CF_NEED((ops->flags & PD_DISCOVERY_REFRESH) == 0 || ops->refresh != NULL, "REFRESH is claimed without refresh");
    CF_NEED((ops->flags & PD_DISCOVERY_REFRESH) != 0 || ops->refresh == NULL, "refresh is there and not claimed");
    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &o, 0);
    source_first(&o);
    if (ops->flags & PD_DISCOVERY_REFRESH) {
        o.s->tells = 0;
        source_refresh(&o);
        CF_NEED(cf_wait(&w, source_has_told, &o, FIRST_SECONDS * PD_SEC), "nothing is told after refresh");
    }
    source_end(&o);
    cf_world_close(&w);
}

static void run_set(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &o, 0);
    source_first(&o);
    for (int i = 0; i < 50; i++)
        cf_turn(&w, PD_MS);
    CF_NEED(!o.s->has_begun || o.s->synced > 0, "a set is begun and not ended");
    source_end(&o);
    cf_world_close(&w);
}

/* Ends after 0, 1, 2 ... turns: in the middle of whatever it does. */
static void run_any_moment(const struct cf_unit *u)
{
    struct cf_world w;

    world_fill();
    cf_world_open(&w, u);
    for (int turns = 0; turns < 60; turns++) {
        struct source o;
        source_start(&w, &o, 0);
        for (int i = 0; i < turns; i++)
            cf_turn(&w, i % 3 == 0 ? PD_MS / 4 : 0);
        if (turns % 5 == 4)
            source_refresh(&o);
        source_end(&o);
    }
    cf_world_close(&w);
}

static void run_two_alike(const struct cf_unit *u)
{
    struct cf_world w;
    struct source a, b;

    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &a, 0);
    source_start(&w, &b, 1);
    source_first(&a);
    source_first(&b);
    CF_NEED(a.s->n == b.s->n, "two instances with the same options name %u and %u entries", a.s->n, b.s->n);
    for (uint32_t i = 0; i < a.s->n; i++)
        CF_NEED(told_find(b.s->set, b.s->n, pd_str_from(a.s->set[i].name)) != NULL,
                "the second instance has no entry \"%s\"", a.s->set[i].name);
    source_end(&a);
    source_end(&b);
    cf_world_close(&w);
}

/* What is under way when the last refresh was asked for ends by and by. */
static bool memory_is_back(void *arg)
{
    return cf_memory() < *(const uint64_t *)arg + 65536;
}

static void run_refreshes(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;
    uint64_t before = 0;

    if ((source_ops(u)->flags & PD_DISCOVERY_REFRESH) == 0)
        cf_skip("the source cannot look again");
    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &o, 0);
    source_first(&o);
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < 10; k++)
            source_refresh(&o);
        cf_turn(&w, PD_MS);
        if (i == 100)
            before = cf_memory();
    }
    CF_NEED(cf_wait(&w, memory_is_back, &before, 2 * PD_SEC), "refreshes keep memory");
    o.s->tells = 0;
    source_refresh(&o);
    CF_NEED(cf_wait(&w, source_has_told, &o, FIRST_SECONDS * PD_SEC), "nothing is told after many refreshes");
    source_end(&o);
    cf_world_close(&w);
}

/* Two that look at the same; one goes. */
void cf_discovery_beside(const struct cf_unit *u)
{
    struct cf_world w;
    struct source a, b;
    uint32_t n;

    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &a, 0);
    source_start(&w, &b, 1);
    source_first(&a);
    source_first(&b);
    n = b.s->n;
    source_end(&a);
    b.s->tells = 0;
    source_refresh(&b);
    CF_NEED((source_ops(u)->flags & PD_DISCOVERY_REFRESH) == 0 || cf_wait(&w, source_has_told, &b, FIRST_SECONDS * PD_SEC),
            "nothing is told when another instance has ended");
    CF_NEED(b.s->n == n && !b.s->is_lost, "%u of %u entries are there when another instance has ended%s", b.s->n, n,
            b.s->is_lost ? ", and the source is lost" : "");
    source_end(&b);
    cf_world_close(&w);
}

const struct cf_case cf_discovery_cases[] = {
    { "flags", "flags fit the operations; the first word comes in time, and one after refresh", run_flags },
    { "order", "sets begin and end, the sink is never called from inside", run_set },
    { "any_moment", "a source is ended in the middle of whatever it does, and tells nothing more", run_any_moment },
    { "two_alike", "two instances with the same options name the same", run_two_alike },
    { "refreshes", "many refreshes keep no memory, and the last one is answered", run_refreshes },
    { NULL, NULL, NULL },
};
