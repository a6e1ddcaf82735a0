/* SPDX-License-Identifier: Apache-2.0 */
/* How a source begins: the destination's grant is checked against the peer that sent it,
 * the prompt and our layout, and its ways are matched with our transports.
 *
 * A grant is a peer's word: nothing is made of it before it is checked.  A source that comes
 * to nothing is freed here and was never in the plane's list. */
#include "kv/source_int.h"

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"

static pd_status check_grant(struct pd_kv *kv, const struct pd_kv_source_params *p,
                             const struct pd_kv_grant_full *f, const struct pd_peer_info *peer,
                             struct pd_err *err)
{
    const struct pd_kv_grant *g = &f->g;
    if (!pd_node_id_eq(&g->owner, &peer->desc->id))
        return pd_err_set(err, PD_ESTALE, "the grant is of another node than sent it");
    if (g->to > p->n_tokens)
        return pd_err_set(err, PD_EINVAL, "the grant is for %u tokens, the prompt has %u", g->to,
                          p->n_tokens);
    if (g->ttl_ms > kv->conf.lease_max / PD_MS)
        return pd_err_set(err, PD_EINVAL, "the grant's lease of %u ms is too long", g->ttl_ms);
    if (g->ttl_ms < PD_KV_LEASE_MIN / PD_MS)
        return pd_err_set(err, PD_EINVAL, "the grant's lease of %u ms is too short", g->ttl_ms);
    return pd_kv_layout_compatible(&g->layout, &p->region->layout, err);
}

/* Matches the grant's ways with our transports, in our order. */
static uint32_t find_candidates(struct pd_kv *kv, const struct pd_kv_region *region,
                                const struct pd_kv_grant_full *f, const struct pd_peer_info *peer,
                                struct pd_kv_candidate *out)
{
    uint32_t chosen[PD_KV_MAX_TRANSPORTS], count = 0;
    uint32_t n = pd_kv_choose(kv, region, peer, chosen);
    for (uint32_t i = 0; i < n; i++) {
        const char *name = kv->transports[chosen[i]].name;
        const struct pd_peer_transport *there = pd_kv_peer_transport(peer, name);
        for (uint32_t w = 0; w < f->g.n_transports && count < PD_KV_GRANT_WAYS; w++) {
            if (!pd_str_is(f->ways[w].transport, name) || f->ways[w].blob.n == 0)
                continue;
            struct pd_kv_candidate *c = &out[count++];
            c->transport = chosen[i];
            c->way = w;
            c->address_len = there->address_len;
            memcpy(c->address, there->address, there->address_len);
            c->blob_len = (uint32_t)f->ways[w].blob.n;
            memcpy(c->blob, f->ways[w].blob.p, f->ways[w].blob.n);
            break;
        }
    }
    return count;
}

/* "[::1]:7000" gives "::1", "10.0.0.1:7000" gives "10.0.0.1". */
static void host_of(const char *address, char *out, size_t size)
{
    struct pd_str s = pd_str_from(address);
    size_t end = s.n;
    while (end > 0 && s.p[end - 1] != ':')
        end--;
    s = pd_str_sub(s, 0, end > 0 ? end - 1 : 0);
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        s = pd_str_sub(s, 1, s.n - 2);
    if (pd_str_copy(s, out, size) != PD_OK || pd_str_starts_with(s, PD_STR("unix")))
        out[0] = '\0';
}

static struct pd_kv_source *source_create(struct pd_kv *kv, const struct pd_kv_source_params *p,
                                          const struct pd_kv_grant_full *f,
                                          const struct pd_peer_info *peer, uint64_t *tag,
                                          pd_status *status)
{
    struct pd_kv_source *source = (struct pd_kv_source *)pd_calloc(1, sizeof *source);
    *status = PD_ENOMEM;
    if (source == NULL)
        return NULL;
    struct pd_kv_end *e = &source->e;
    *status = pd_kv_end_init(e, kv, p->region, peer, p->request_id);
    e->xid = f->g.xid;
    e->generation = f->generation;
    e->from = f->g.from;
    e->to = f->g.to;
    e->wire_tokens = f->g.wire_block_tokens;
    source->ttl = f->g.ttl_ms * PD_MS;
    e->job.run = pd_kv_source_digest;
    pd_list_init(&source->way_node);
    pd_list_init(&source->posts);
    pd_kv_plan_init(&source->plan);
    pd_task_init(&e->task, "kv source", pd_kv_source_on_task, source);
    pd_timer_init(&source->timer, kv->loop, "kv source", pd_kv_source_on_timer, source);
    if (peer->flags & PD_PEER_SELF)
        snprintf(source->host, sizeof source->host, "127.0.0.1");
    else
        host_of(peer->address, source->host, sizeof source->host);
    source->candidates = (struct pd_kv_candidate *)pd_calloc(PD_KV_GRANT_WAYS,
                                                             sizeof *source->candidates);
    if (*status == PD_OK)
        *status = pd_kv_end_keys(e, p->tokens, f->digests != 0, tag);
    if (*status == PD_OK && source->candidates == NULL)
        *status = PD_ENOMEM;
    if (*status == PD_OK)
        return source;
    pd_kv_source_free(source);
    return NULL;
}

pd_status pd_kv_source_open(struct pd_kv *kv, const struct pd_kv_source_params *p,
                            const struct pd_kv_source_events *events, void *arg,
                            struct pd_kv_source **out, struct pd_err *err)
{
    struct pd_peer_info peer;
    struct pd_kv_grant_full f;
    uint64_t tag = 0;
    struct pd_str grant = { (const char *)p->grant, p->grant_len };
    if (p->region == NULL || p->tokens == NULL || kv->is_closing)
        return pd_err_set(err, PD_EINVAL, "no region or no tokens");
    pd_status st = pd_kv_grant_parse(grant, &f);
    if (st != PD_OK)
        return pd_err_set(err, st, "the grant is malformed");
    st = kv->conf.peer_api->info(kv->conf.peers, p->peer, &peer);
    if (st != PD_OK)
        return pd_err_set(err, st, "the peer that granted is gone");
    st = check_grant(kv, p, &f, &peer, err);
    if (st != PD_OK)
        return st;
    if (kv->n_sources >= kv->conf.max_handovers)
        return pd_err_set(err, PD_ELIMIT, "too many hand-overs at a time");
    struct pd_kv_source *source = source_create(kv, p, &f, &peer, &tag, &st);
    if (source == NULL)
        return pd_err_set(err, st, "out of memory");
    if (tag != f.tag) {
        pd_kv_source_free(source);
        return pd_err_set(err, PD_EINVAL, "the grant is for another prompt");
    }
    source->n_candidates = find_candidates(kv, p->region, &f, &peer, source->candidates);
    if (source->n_candidates == 0) {
        pd_kv_source_free(source);
        return pd_err_set(err, PD_ENOENT, "no transport in common with peer \"%s\"",
                          peer.desc->name);
    }
    source->events = *events;
    source->arg = arg;
    pd_list_append(&kv->sources, &source->e.node);
    kv->n_sources++;
    pd_timer_start(&source->timer, source->ttl / 3);
    pd_kv_source_try(source);
    *out = source;
    return PD_OK;
}
