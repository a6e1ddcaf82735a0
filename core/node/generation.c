/* SPDX-License-Identifier: Apache-2.0 */
/* Generations: who holds which, and the end of what they leave.
 *
 * The oldest goes first.  When nobody holds it, its roles and engines are
 * destroyed; an engine whose blocks a hand-over still uses is looked at again a
 * little later. */
#include "node/generation.h"

#include "base/mem.h"
#include "base/status.h"
#include "node/node.h"

#define AGAIN (20 * PD_MS)

struct pd_node_generation *pd_node_generation_make(struct pd_node *node, struct pd_conf *conf)
{
    struct pd_node_generation *g = pd_calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    pd_list_init(&g->link);
    g->node = node;
    g->conf = pd_conf_get(conf);
    return g;
}

void pd_node_generation_drop(struct pd_node_generation *g)
{
    if (g == NULL)
        return;
    pd_list_remove(&g->link);
    pd_conf_put(g->conf);
    pd_free(g);
}

void pd_node_generation_switch(struct pd_node *node, struct pd_node_generation *g)
{
    g->number = ++node->generation_number;
    g->since = pd_loop_now(node->loop);
    if (node->generation != NULL)
        node->generation->replaced_at = g->since;
    pd_list_append(&node->generations, &g->link);
    node->generation = g;
    node->root = pd_conf_root(g->conf);
}

void pd_node_generation_leave_engine(struct pd_node_generation *g, struct pd_node_engine_unit *e)
{
    pd_log_notice(g->node->log, "engine \"%s\" of generation %llu ends with its last request", e->e.name,
                  (unsigned long long)g->number);
    g->engines[g->n_engines++] = e;
}

void pd_node_generation_leave_role(struct pd_node_generation *g, const struct pd_node_role *r)
{
    g->roles[g->n_roles++] = *r;
}

struct pd_node_generation *pd_node_generation_hold(struct pd_node *node)
{
    node->generation->holds++;
    return node->generation;
}

void pd_node_generation_release(struct pd_node_generation *g)
{
    if (--g->holds == 0 && g != g->node->generation)
        pd_node_generations_sweep(g->node);
}

void pd_node_generations_sweep(struct pd_node *node)
{
    if (!node->is_closing)
        pd_loop_defer(node->loop, &node->sweep_task);
}

/* ---- ending what is left ------------------------------------------------------------- */

static struct pd_node_generation *oldest(struct pd_node *node)
{
    return PD_LIST_ENTRY(pd_list_first(&node->generations), struct pd_node_generation, link);
}

static void one_ended(struct pd_node_generation *g)
{
    struct pd_node *node = g->node;
    g->n_ending--;
    if (!node->is_closing) {
        pd_node_generations_sweep(node);
    } else if (node->waits_for_generations) {
        node->waits_for_generations = false;
        pd_loop_defer(node->loop, &node->close_task);
    }
}

static void engine_ended(void *arg)
{
    one_ended(arg);
}

static void role_ended(void *arg)
{
    struct pd_node_role *r = arg;
    struct pd_node_generation *g = r->left_by;
    pd_node_role_fini(r);
    one_ended(g);
}

/* Whether the engine's blocks are out of the KV plane. */
static bool region_is_gone(struct pd_node *node, struct pd_node_engine_unit *e)
{
    if (e->region == NULL)
        return true;
    pd_kv_region_uses(node->kv, e->region, &e->leases, &e->transfers);
    if (pd_kv_region_remove(node->kv, e->region) != PD_OK)
        return false;
    e->region = NULL;
    return true;
}

static void end_roles(struct pd_node_generation *g)
{
    uint32_t n = g->n_roles;
    g->n_roles = 0;
    g->n_ending += n;
    for (uint32_t i = 0; i < n; i++) {
        g->roles[i].left_by = g;
        pd_node_role_destroy(&g->roles[i], role_ended, &g->roles[i]);
    }
}

/* Those whose blocks nothing uses; all says that none waits for that. */
static void end_engines(struct pd_node_generation *g, bool all)
{
    uint32_t kept = 0, n = g->n_engines;
    for (uint32_t i = 0; i < n; i++) {
        struct pd_node_engine_unit *e = g->engines[i];
        if (!all && !region_is_gone(g->node, e)) {
            g->engines[kept++] = e;
            continue;
        }
        g->n_ending++;
        pd_node_engine_destroy(e, engine_ended, g);
    }
    g->n_engines = kept;
}

void pd_node_sweep(struct pd_node *node)
{
    struct pd_node_generation *g;
    while ((g = oldest(node)) != node->generation && g->holds == 0) {
        end_roles(g);
        end_engines(g, false);
        if (g->n_engines > 0)
            pd_timer_start(&node->sweep_timer, AGAIN);
        if (g->n_engines > 0 || g->n_ending > 0)
            return;
        pd_log_notice(node->log, "generation %llu has ended", (unsigned long long)g->number);
        pd_node_generation_drop(g);
    }
}

/* ---- the limit ------------------------------------------------------------------------ */

static void end_with(const struct pd_node_role *roles, uint32_t n, const struct pd_node_generation *g)
{
    for (uint32_t i = 0; i < n; i++) {
        if (roles[i].ops->end_generation != NULL)
            roles[i].ops->end_generation(roles[i].role, g);
    }
}

/* Nothing is freed meanwhile: generations are swept from the loop. */
static void end_overdue(struct pd_node *node, struct pd_node_generation *g)
{
    g->is_overdue = true;
    node->reloads.ended += g->holds;
    pd_log_warn(node->log, "generation %llu was replaced %.1f s ago, its %u request%s ended now",
                (unsigned long long)g->number,
                (double)(pd_loop_now(node->loop) - g->replaced_at) / (double)PD_SEC, g->holds,
                g->holds == 1 ? " is" : "s are");
    end_with(node->roles, node->n_roles, g);
    PD_LIST_EACH(&node->generations, link) {
        const struct pd_node_generation *other = PD_LIST_ENTRY(link, struct pd_node_generation, link);
        end_with(other->roles, other->n_roles, g);
    }
}

void pd_node_generations_overdue(struct pd_node *node)
{
    pd_time now = pd_loop_now(node->loop), next = PD_TIME_NEVER, due;
    if (node->is_closing)
        return;
    PD_LIST_EACH(&node->generations, link) {
        struct pd_node_generation *g = PD_LIST_ENTRY(link, struct pd_node_generation, link);
        if (g == node->generation || g->holds == 0 || g->is_overdue)
            continue;
        due = g->replaced_at + node->root->reload_drain;
        if (due <= now)
            end_overdue(node, g);
        else if (due < next)
            next = due;
    }
    if (next == PD_TIME_NEVER)
        pd_timer_stop(&node->overdue_timer);
    else
        pd_timer_start(&node->overdue_timer, next - now);
}

/* ---- the node's own end --------------------------------------------------------------- */

static bool waits(struct pd_node *node, void (*end)(struct pd_node_generation *g))
{
    uint32_t n = 0;
    PD_LIST_EACH(&node->generations, link) {
        struct pd_node_generation *g = PD_LIST_ENTRY(link, struct pd_node_generation, link);
        end(g);
        n += g->n_ending;
    }
    node->waits_for_generations = n > 0;
    return n > 0;
}

bool pd_node_generations_close_roles(struct pd_node *node)
{
    return waits(node, end_roles);
}

static void end_all_engines(struct pd_node_generation *g)
{
    end_engines(g, true);
}

bool pd_node_generations_close_engines(struct pd_node *node)
{
    return waits(node, end_all_engines);
}

void pd_node_generations_free(struct pd_node *node)
{
    struct pd_list *link;
    while ((link = pd_list_first(&node->generations)) != NULL)
        pd_node_generation_drop(PD_LIST_ENTRY(link, struct pd_node_generation, link));
}
