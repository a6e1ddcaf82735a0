/* SPDX-License-Identifier: Apache-2.0 */
/* What both ends of a hand-over have in common: keys, verdict, progress, what is told of one. */
#include "kv/priv.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"

pd_status pd_kv_end_init(struct pd_kv_end *e, struct pd_kv *kv, struct pd_kv_region *region,
                         const struct pd_peer_info *peer, struct pd_str request_id)
{
    e->kv = kv;
    e->region = region;
    e->peer_id = peer->desc->id;
    e->peer = peer->ref;
    memcpy(e->peer_name, peer->desc->name, sizeof e->peer_name);
    (void)pd_str_copy(request_id, e->request_id, sizeof e->request_id);
    pd_list_init(&e->node);
    pd_list_init(&e->job.node);
    e->opened_at = pd_loop_now(kv->loop);
    pd_gauge_add(kv->metric_inflight, 1);
    pd_status st = pd_kv_digester_init(&e->digester, region->base);
    e->has_digester = st == PD_OK;
    return st;
}

pd_status pd_kv_end_keys(struct pd_kv_end *e, const int32_t *tokens, bool digests, uint64_t *tag)
{
    e->n_wire = pd_kv_wire_blocks(e->from, e->to, e->wire_tokens);
    e->bytes_expected = (e->to - e->from) * pd_kv_layout_token_bytes(&e->region->layout);
    uint64_t *keys = (uint64_t *)pd_calloc(e->n_wire, sizeof *keys);
    if (keys == NULL)
        return PD_ENOMEM;
    *tag = pd_kv_digest_keys(e->region->layout.model, tokens, e->from, e->to, e->wire_tokens, keys);
    if (!digests) {
        pd_free(keys);
        return PD_OK;
    }
    e->keys = keys;
    e->digests = (uint64_t *)pd_calloc(e->n_wire, sizeof *e->digests);
    return e->digests == NULL ? PD_ENOMEM : PD_OK;
}

void pd_kv_end_fini(struct pd_kv_end *e)
{
    pd_task_cancel(e->kv->loop, &e->task);
    pd_list_remove(&e->job.node);
    if (e->has_digester)
        pd_kv_digester_fini(&e->digester);
    pd_gauge_add(e->kv->metric_inflight, -1);
    pd_free(e->keys);
    pd_free(e->digests);
}

void pd_kv_end_decide(struct pd_kv_end *e, uint32_t verdict, pd_status status, const char *reason)
{
    if (e->verdict != 0)
        return;
    e->verdict = verdict;
    e->status = status;
    (void)pd_str_copy(pd_str_from(reason), e->reason, sizeof e->reason);
}

void pd_kv_end_moved(struct pd_kv_end *e)
{
    e->last_at = pd_loop_clock(e->kv->loop);
    if (e->first_at == 0)
        e->first_at = e->last_at;
}

void pd_kv_end_row(const struct pd_kv_end *e, bool outbound, const char *state,
                   struct pd_kv_transfer_row *row)
{
    memset(row, 0, sizeof *row);
    row->xid = e->xid;
    row->outbound = outbound;
    row->verdict = e->verdict;
    row->bytes = e->bytes;
    row->bytes_expected = e->bytes_expected;
    row->age_ns = pd_loop_now(e->kv->loop) - e->opened_at;
    row->tokens = e->to - e->from;
    row->verified = e->is_verified;
    (void)pd_str_copy(pd_str_from(state), row->state, sizeof row->state);
    memcpy(row->transport, e->transport, sizeof row->transport);
    memcpy(row->peer, e->peer_name, sizeof row->peer);
    memcpy(row->request_id, e->request_id, sizeof row->request_id);
    memcpy(row->reason, e->reason, sizeof row->reason);
}

static void note_speed(struct pd_kv *kv, pd_peer_ref peer, uint64_t bytes, pd_time ns)
{
    if (ns < PD_US || bytes == 0)
        return;
    uint64_t speed = (uint64_t)((double)bytes * 1e9 / (double)ns);
    for (uint32_t i = 0; i < PD_KV_SPEEDS; i++)
        if (kv->speeds[i].peer == peer) {
            kv->speeds[i].bytes_per_s = (kv->speeds[i].bytes_per_s * 7 + speed) / 8;
            return;
        }
    kv->speeds[kv->next_speed] = (struct pd_kv_speed){ peer, speed };
    kv->next_speed = (kv->next_speed + 1) % PD_KV_SPEEDS;
}

static void count_end(struct pd_kv_end *e, bool outbound, pd_time total)
{
    struct pd_kv *kv = e->kv;
    kv->results[outbound][e->verdict]++;
    pd_histogram_observe_ns(kv->metric_seconds, total);
    for (uint32_t i = 0; i < kv->n_transports; i++) {
        struct pd_kv_transport *t = &kv->transports[i];
        /* One that never moved a byte is booked with the first. */
        if (strcmp(t->name, e->transport) == 0 || (e->transport[0] == '\0' && i == 0)) {
            pd_counter_add(t->metric_bytes, e->bytes);
            pd_counter_inc(t->metric_result[e->verdict]);
        }
    }
    if (e->verdict == PD_KV_VALID)
        note_speed(kv, e->peer, e->bytes, e->last_at - e->opened_at);
}

void pd_kv_end_report(struct pd_kv_end *e, bool outbound, struct pd_kv_result *out)
{
    struct pd_kv *kv = e->kv;
    pd_time now = pd_loop_now(kv->loop);
    struct pd_str req = pd_str_from(e->request_id);
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->verdict = e->verdict;
    out->status = e->status;
    out->blocks = e->is_verified ? e->n_wire : e->at_block;
    out->xid = e->xid;
    out->bytes = e->bytes;
    out->bytes_expected = e->bytes_expected;
    out->first_byte_ns = e->first_at == 0 ? 0 : PD_MAX(e->first_at - e->opened_at, (pd_time)1);
    out->transfer_ns = e->last_at - e->first_at;
    out->verify_ns = e->verify_ns;
    out->total_ns = now - e->opened_at;
    out->verified = e->is_verified;
    out->fenced = e->is_fenced;
    memcpy(out->transport, e->transport, sizeof out->transport);
    memcpy(out->reason, e->reason, sizeof out->reason);
    struct pd_kv_ended *ended = &kv->history[kv->history_next];
    pd_kv_end_row(e, outbound, "ended", &ended->row);
    ended->row.took_ns = out->total_ns;
    ended->opened_at = e->opened_at;
    kv->history_next = (kv->history_next + 1) % kv->conf.history;
    kv->history_n = PD_MIN(kv->history_n + 1, kv->conf.history);
    count_end(e, outbound, out->total_ns);
    if (e->verdict == PD_KV_VALID || e->verdict == PD_KV_ABORTED ||
        e->verdict == PD_KV_PEER_ABORTED)
        pd_log_req(kv->log, PD_LOG_DEBUG, req, "kv %s peer \"%s\" by \"%s\": %llu bytes, %s",
                   outbound ? "to" : "from", e->peer_name, e->transport,
                   (unsigned long long)e->bytes,
                   pd_kv_verdict_text(e->verdict));
    else
        pd_log_req(kv->log, PD_LOG_WARN, req, "kv %s peer \"%s\" by \"%s\" is %s: %s",
                   outbound ? "to" : "from", e->peer_name, e->transport,
                   pd_kv_verdict_text(e->verdict),
                   e->reason);
}
