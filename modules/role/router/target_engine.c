/* SPDX-License-Identifier: Apache-2.0 */
/* Engines of peers: what a peer says it has is what the scheduler may choose.
 *
 * A target is known by its peer and the engine's name.  One that begins anew, with another
 * serial, stays the same endpoint with nothing known of it. */
#include <stdio.h>
#include <string.h>

#include "targets_int.h"

static struct target **bucket_of(struct router *r, pd_peer_ref peer)
{
    return &r->by_peer[peer % ROUTER_PEER_BUCKETS];
}

static void belongs_to(struct target *t, pd_peer_ref peer)
{
    struct target **bucket = bucket_of(t->router, peer);
    t->peer = peer;
    t->peer_next = *bucket;
    if (t->peer_next != NULL)
        t->peer_next->peer_link = &t->peer_next;
    *bucket = t;
    t->peer_link = bucket;
}

static struct target *target_of(struct router *r, pd_peer_ref peer, const char *engine)
{
    for (struct target *t = *bucket_of(r, peer); t != NULL; t = t->peer_next) {
        if (t->peer == peer && strcmp(t->engine, engine) == 0)
            return t;
    }
    return NULL;
}

static uint32_t state_of(const struct pd_peer_info *info)
{
    if (info->flags & (PD_PEER_DRAINING | PD_PEER_RESTING))
        return PD_ENDPOINT_DRAINING;
    return info->state == PD_PEER_UP ? PD_ENDPOINT_UP
           : info->state == PD_PEER_SUSPECT ? PD_ENDPOINT_SUSPECT : PD_ENDPOINT_DOWN;
}

/* Whether the scheduler knows the engine as it is. */
static bool engine_is_known(const struct target *t, const struct pd_peer_engine *e)
{
    return t != NULL && t->serial == e->serial && t->roles == e->roles && strcmp(t->model, e->model) == 0;
}

static void engine_put(struct router *r, const struct pd_peer_info *info, uint32_t index)
{
    const struct pd_peer_engine *e = &info->desc->engines[index];
    struct target *t = target_of(r, info->ref, e->name);
    bool is_new = t == NULL, is_another = t != NULL && t->serial != e->serial;
    char key[160], name[64];
    struct pd_str model = str_of(e->model);
    int at = 0;
    if ((e->roles & (PD_ROLE_PREFILL | PD_ROLE_DECODE)) == 0)
        return;
    if (is_new)
        t = target_add(r);
    if (t == NULL)
        return;
    for (size_t i = 0; i < sizeof info->desc->id.uuid.b; i++)
        at += snprintf(key + at, sizeof key - (size_t)at, "%02x", info->desc->id.uuid.b[i]);
    snprintf(key + at, sizeof key - (size_t)at, "/%llx/%s", (unsigned long long)info->desc->id.epoch,
             e->name);
    /* A node with one engine goes by the node's name. */
    if (info->desc->n_engines == 1)
        snprintf(name, sizeof name, "%s", info->desc->name);
    else
        snprintf(name, sizeof name, "%.31s/%.30s", info->desc->name, e->name);
    if (is_new)
        belongs_to(t, info->ref);
    t->node = info->desc->id;
    t->context_tokens = e->context_tokens;
    t->flags = e->flags;
    t->roles = e->roles;
    t->serial = e->serial;
    memcpy(t->fingerprint, e->fingerprint, sizeof t->fingerprint);
    snprintf(t->engine, sizeof t->engine, "%s", e->name);
    snprintf(t->name, sizeof t->name, "%s", info->desc->name);
    snprintf(t->address, sizeof t->address, "%s", info->listener);
    snprintf(t->model, sizeof t->model, "%s", e->model);
    struct pd_endpoint_info put = {
        .size = sizeof put, .roles = e->roles, .key = str_of(key), .name = str_of(name),
        .models = &model, .models_n = 1, .state = state_of(info), .blocks_total = e->blocks,
        .block_tokens = e->layout.block_tokens, .user = t,
    };
    pd_status status = r->sched->endpoint_put(r->scheds, &put, &t->ref);
    if (status != PD_OK) {
        pd_log_error(r->log, "engine \"%s\" of peer \"%s\" is left out: %s", e->name, info->desc->name,
                     status == PD_ENOMEM ? "out of memory" : "the table of endpoints is full");
        if (is_new)
            target_free(t);
        return;
    }
    if (is_another)
        r->sched->endpoint_forget(r->scheds, t->ref);
    router_model_add(r, model);
}

static void engines_report(struct router *r, const struct pd_peer_info *info, uint32_t what)
{
    for (uint32_t i = 0; i < info->desc->n_engines; i++) {
        struct target *t = target_of(r, info->ref, info->desc->engines[i].name);
        if (t == NULL)
            continue;
        if (what != PD_PEER_ON_LOAD)
            r->sched->endpoint_state(r->scheds, t->ref, state_of(info));
        if (info->load == NULL || info->load_at == PD_TIME_NEVER)
            continue;
        struct pd_endpoint_load load = {
            .size = sizeof load, .running = info->load[i].running, .waiting = info->load[i].waiting,
            .blocks_total = info->load[i].blocks_total, .blocks_free = info->load[i].blocks_free,
        };
        r->sched->endpoint_report(r->scheds, t->ref, &load, info->load_at);
    }
}

void target_engines_lost(struct router *r, pd_peer_ref peer)
{
    struct target *next;
    for (struct target *t = *bucket_of(r, peer); t != NULL; t = next) {
        next = t->peer_next;
        if (t->peer != peer)
            continue;
        r->sched->endpoint_remove(r->scheds, t->ref);
        target_free(t);
    }
}

/* The peer does not have them any more, or not for requests. */
static void engines_gone(struct router *r, const struct pd_peer_info *info)
{
    struct target *next;
    for (struct target *t = *bucket_of(r, info->ref); t != NULL; t = next) {
        bool is_there = false;
        next = t->peer_next;
        for (uint32_t i = 0; i < info->desc->n_engines && t->peer == info->ref; i++)
            is_there |= strcmp(t->engine, info->desc->engines[i].name) == 0 &&
                        (info->desc->engines[i].roles & (PD_ROLE_PREFILL | PD_ROLE_DECODE)) != 0;
        if (t->peer != info->ref || is_there)
            continue;
        r->sched->endpoint_drain(r->scheds, t->ref);
        target_free(t);
    }
}

/* Puts those that the scheduler does not know as they are; whether there were some. */
static bool engines_put(struct router *r, const struct pd_peer_info *info, bool all)
{
    bool has_put = false;
    for (uint32_t i = 0; i < info->desc->n_engines; i++) {
        const struct pd_peer_engine *e = &info->desc->engines[i];
        if (!all && engine_is_known(target_of(r, info->ref, e->name), e))
            continue;
        engine_put(r, info, i);
        has_put = true;
    }
    return has_put;
}

bool target_engines_follow(struct router *r, const struct pd_peer_info *info, uint32_t what)
{
    bool has_put = false;
    /* With each load those that were left out, too: there was no memory, or no room. */
    if (what == PD_PEER_ON_UP || info->state == PD_PEER_UP)
        has_put = engines_put(r, info, what == PD_PEER_ON_UP);
    if (what == PD_PEER_ON_UP || (what == PD_PEER_ON_CHANGED && info->state == PD_PEER_UP))
        engines_gone(r, info);
    engines_report(r, info, what);
    return has_put;
}
