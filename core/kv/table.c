/* SPDX-License-Identifier: Apache-2.0 */
/* The KV plane as roles see it: the table of <pdplane/kv.h>. */
#include "kv/priv.h"

#include "base/str.h"

static struct pd_kv_region *region_find(struct pd_kv *kv, const char *engine)
{
    for (uint32_t i = 0; i < kv->n_regions; i++)
        if (strcmp(kv->regions[i]->engine, engine) == 0)
            return kv->regions[i];
    return NULL;
}

static const struct pd_layout *region_layout(const struct pd_kv_region *region)
{
    return &region->layout;
}

static pd_status can_receive(struct pd_kv *kv, pd_peer_ref peer, const struct pd_kv_region *region)
{
    struct pd_peer_info info;
    uint32_t chosen[PD_KV_MAX_TRANSPORTS];
    pd_status st = kv->conf.peer_api->info(kv->conf.peers, peer, &info);
    if (st != PD_OK)
        return st;
    if (pd_kv_choose(kv, region, &info, chosen) == 0)
        return PD_ENOENT;
    for (uint32_t i = 0; i < info.desc->n_engines; i++)
        if (pd_kv_layout_compatible(&region->layout, &info.desc->engines[i].layout, NULL) == PD_OK)
            return PD_OK;
    return PD_ENOENT;
}

static uint32_t match(struct pd_kv *kv, pd_peer_ref peer, const struct pd_kv_region *region,
                      struct pd_str engine)
{
    struct pd_peer_info info;
    uint32_t chosen[PD_KV_MAX_TRANSPORTS];
    const struct pd_layout *there = NULL;
    if (kv->conf.peer_api->info(kv->conf.peers, peer, &info) != PD_OK)
        return PD_KV_MATCH_GONE;
    for (uint32_t i = 0; i < info.desc->n_engines; i++)
        if (pd_str_is(engine, info.desc->engines[i].name))
            there = &info.desc->engines[i].layout;
    if (there == NULL)
        return PD_KV_MATCH_GONE;
    if (memcmp(there->model, region->layout.model, sizeof there->model) != 0)
        return PD_KV_MATCH_MODEL;
    if (pd_kv_layout_compatible(&region->layout, there, NULL) != PD_OK)
        return PD_KV_MATCH_LAYOUT;
    return pd_kv_choose(kv, region, &info, chosen) == 0 ? PD_KV_MATCH_TRANSPORT : PD_KV_MATCH_OK;
}

static pd_status grant_read(struct pd_str bytes, struct pd_kv_grant *out)
{
    struct pd_kv_grant_full f;
    pd_status st = pd_kv_grant_parse(bytes, &f);
    if (st == PD_OK)
        *out = f.g;
    return st;
}

static uint32_t transfers(struct pd_kv *kv, struct pd_kv_transfer_row *out, uint32_t cap)
{
    uint32_t n = 0;
    PD_LIST_EACH(&kv->dests, l) {
        struct pd_kv_dest *d = PD_LIST_ENTRY(l, struct pd_kv_dest, e.node);
        if (n < cap)
            pd_kv_end_row(&d->e, false, pd_kv_dest_state_text(d), &out[n]);
        n++;
    }
    PD_LIST_EACH(&kv->sources, l) {
        struct pd_kv_source *s = PD_LIST_ENTRY(l, struct pd_kv_source, e.node);
        if (n < cap)
            pd_kv_end_row(&s->e, true, pd_kv_source_state_text(s), &out[n]);
        n++;
    }
    for (uint32_t i = 0; i < kv->history_n; i++) {
        uint32_t at = (kv->history_next + kv->conf.history - 1 - i) % kv->conf.history;
        if (n < cap) {
            out[n] = kv->history[at].row;
            out[n].age_ns = pd_loop_now(kv->loop) - kv->history[at].opened_at;
        }
        n++;
    }
    return n;
}

static uint32_t leases(struct pd_kv *kv, struct pd_kv_lease_row *out, uint32_t cap)
{
    return pd_leases_list(&kv->leases, out, cap);
}

static uint64_t bandwidth(struct pd_kv *kv, pd_peer_ref peer)
{
    for (uint32_t i = 0; i < PD_KV_SPEEDS; i++)
        if (kv->speeds[i].peer == peer)
            return kv->speeds[i].bytes_per_s;
    return 0;
}

const struct pd_kv_api *pd_kv_table(void)
{
    static const struct pd_kv_api table = {
        .size = sizeof table,
        .version = PD_KV_VERSION,
        .region = region_find,
        .region_layout = region_layout,
        .layout_compatible = pd_kv_layout_compatible,
        .token_bytes = pd_kv_layout_token_bytes,
        .can_receive = can_receive,
        .dest_open = pd_kv_dest_open,
        .dest_grant = pd_kv_dest_grant,
        .dest_message = pd_kv_dest_message,
        .dest_renew = pd_kv_dest_renew,
        .dest_abort = pd_kv_dest_abort,
        .grant_read = grant_read,
        .source_open = pd_kv_source_open,
        .source_push = pd_kv_source_push,
        .source_message = pd_kv_source_message,
        .source_abort = pd_kv_source_abort,
        .transfers = transfers,
        .leases = leases,
        .bandwidth = bandwidth,
        .verdict_text = pd_kv_verdict_text,
        .match = match,
    };
    return &table;
}
