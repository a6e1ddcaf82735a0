/* SPDX-License-Identifier: Apache-2.0 */
/* Reports on work: requests, transfers of KV, leases. */
#include "node/report.h"
#include "node/report_req.h"

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"

#define SPARSE_RIGHT (PD_VIEW_SPARSE | PD_VIEW_RIGHT)

static void put_count_or_none(struct pd_view *v, uint64_t n)
{
    if (n != 0)
        pd_view_count(v, n);
    else
        pd_view_none(v);
}

/* ---- requests ------------------------------------------------------------------------------ */

static void put_request(struct pd_node *node, struct pd_view *v, const struct pd_req *r)
{
    pd_time now = pd_loop_now(node->loop);
    pd_view_row(v);
    pd_view_count(v, r->number);
    pd_view_str(v, r->id);
    pd_view_str(v, pd_req_role_name(r->role));
    pd_view_str(v, pd_report_state(r));
    pd_view_bool(v, r->outcome == PD_REQ_LIVE);
    pd_view_str(v, pd_req_stage_name(r->stage));
    pd_view_str(v, pd_req_outcome_name(r->outcome));
    put_count_or_none(v, r->http_status);
    pd_view_str(v, r->code);
    pd_view_str(v, pd_req_api_name(r->api));
    pd_view_bool(v, r->stream != 0);
    pd_view_str(v, r->model);
    pd_view_str(v, r->key);
    pd_view_str(v, r->decode);
    pd_view_str(v, r->prefill);
    pd_view_str(v, pd_report_decision(r));
    pd_view_str(v, r->reason);
    pd_view_count(v, r->attempts);
    pd_view_count(v, r->prompt_tokens);
    pd_view_count(v, r->cached_tokens);
    pd_view_count(v, r->output_tokens);
    pd_view_duration(v, pd_report_since(r->at[PD_REQ_ACCEPTED], r->first_token));
    pd_view_duration(v, pd_report_duration(node, r));
    pd_view_duration(v, r->outcome == PD_REQ_LIVE ? PD_TIME_NEVER : pd_report_since(r->at[PD_REQ_ENDED], now));
    if (r->kv_bytes != 0)
        pd_view_bytes(v, r->kv_bytes);
    else if (v->is_json)
        pd_view_count(v, 0);
    else
        pd_view_none(v);
    pd_view_count(v, r->kv_blocks);
    put_count_or_none(v, r->digests);
    pd_view_str(v, r->transport);
    pd_view_duration(v, r->handover_ns != 0 ? r->handover_ns : PD_TIME_NEVER);
    if (!v->is_json)
        return;
    pd_json_begin_array(&v->json, "stages");
    for (uint32_t i = 0; i < PD_REQ_STAGES; i++) {
        if (r->at[i] == 0)
            continue;
        pd_json_begin_object(&v->json, NULL);
        pd_json_add_cstr(&v->json, "stage", pd_req_stage_name(i));
        pd_json_add_double(&v->json, "at_seconds", (double)(r->at[i] - r->at[PD_REQ_ACCEPTED]) / 1e9);
        pd_json_end(&v->json);
    }
    pd_json_end(&v->json);
}

/* The max slowest records, slowest first; *n is how many. */
static const struct pd_req **slowest(const struct pd_node *node, uint32_t max, uint32_t *n)
{
    const struct pd_req **found = pd_calloc(max, sizeof(const struct pd_req *)), *r;
    uint64_t cursor = 0;
    *n = 0;
    while (found != NULL && pd_reqs_next(node->reqs, &cursor, &r)) {
        pd_time took = pd_report_duration(node, r);
        uint32_t at = *n;
        while (at > 0 && pd_report_duration(node, found[at - 1]) < took)
            at--;
        if (at == max)
            continue;
        uint32_t behind = PD_MIN(*n, max - 1) - at;
        memmove(&found[at + 1], &found[at], behind * sizeof(const struct pd_req *));
        found[at] = r;
        *n = at + behind + 1;
    }
    return found;
}

pd_status pd_report_requests(struct pd_node *node, struct pd_view *v, uint32_t max,
                             enum pd_report_order order)
{
    static const struct pd_view_column columns[] = {
        { "number", NULL, 0 }, { "id", "REQUEST", 0 }, { "role", "ROLE", 0 }, { NULL, "STATE", 0 },
        { "live", NULL, 0 }, { "stage", NULL, 0 }, { "outcome", NULL, 0 },
        { "http_status", "HTTP", SPARSE_RIGHT }, { "code", "CODE", PD_VIEW_SPARSE }, { "api", NULL, 0 },
        { "stream", NULL, 0 }, { "model", "MODEL", 0 }, { "key", "KEY", PD_VIEW_SPARSE },
        { "decode", "DECODE", PD_VIEW_SPARSE },
        { "prefill", "PREFILL", PD_VIEW_SPARSE }, { "decision", "DECISION", PD_VIEW_SPARSE },
        { "reason", NULL, 0 },
        { "attempts", NULL, 0 }, { "prompt_tokens", "PROMPT", PD_VIEW_RIGHT },
        { "cached_tokens", "CACHED", PD_VIEW_RIGHT }, { "output_tokens", "OUTPUT", PD_VIEW_RIGHT },
        { "ttft_seconds", "TTFT", PD_VIEW_RIGHT }, { "duration_seconds", "TOOK", PD_VIEW_RIGHT },
        { "ended_seconds_ago", NULL, 0 }, { "kv_bytes", "KV", SPARSE_RIGHT },
        { "kv_blocks", NULL, 0 }, { "digests_verified", "DIGESTS", SPARSE_RIGHT },
        { "transport", "TRANSPORT", PD_VIEW_SPARSE }, { "handover_seconds", "HANDOVER", SPARSE_RIGHT },
        { NULL, NULL, 0 },
    };
    const struct pd_req **sorted = NULL, *r;
    uint64_t cursor = 0;
    uint32_t n = 0, n_sorted = 0;
    max = PD_MAX(max, 1u);
    if (order == PD_REPORT_SLOWEST && (sorted = slowest(node, max, &n_sorted)) == NULL)
        return PD_ENOMEM;
    pd_view_table(v, "requests", NULL, columns, "no requests yet");
    if (sorted != NULL) {
        while (n < n_sorted)
            put_request(node, v, sorted[n++]);
    } else {
        while (n < max && pd_reqs_next(node->reqs, &cursor, &r)) {
            put_request(node, v, r);
            n++;
        }
    }
    pd_view_end(v);
    pd_free(sorted);
    return PD_OK;
}

/* ---- transfers and leases ---------------------------------------------------------------------- */

static void put_transfer(struct pd_view *v, const struct pd_kv_transfer_row *t)
{
    pd_view_row(v);
    pd_view_format(v, "%llx", (unsigned long long)t->xid);
    pd_view_str(v, t->request_id);
    pd_view_str(v, t->outbound != 0 ? "out" : "in");
    pd_view_str(v, t->peer);
    pd_view_str(v, t->state);
    pd_view_str(v, t->verdict != 0 ? pd_kv_table()->verdict_text(t->verdict) : "");
    pd_view_str(v, t->transport);
    pd_view_bytes(v, t->bytes);
    pd_view_bytes(v, t->bytes_expected);
    pd_view_count(v, t->tokens);
    pd_view_bool(v, t->verified != 0);
    pd_view_duration(v, t->took_ns != 0 ? t->took_ns : PD_TIME_NEVER);
    pd_view_duration(v, t->age_ns);
    pd_view_str(v, t->reason);
}

pd_status pd_report_transfers(struct pd_node *node, struct pd_view *v, uint32_t max)
{
    static const struct pd_view_column columns[] = {
        { "xid", "TRANSFER", 0 }, { "request", "REQUEST", 0 }, { "direction", "WAY", 0 },
        { "peer", "PEER", 0 }, { "state", "STATE", 0 }, { "verdict", "VERDICT", PD_VIEW_SPARSE },
        { "transport", "TRANSPORT", PD_VIEW_SPARSE }, { "bytes", "BYTES", PD_VIEW_RIGHT },
        { "bytes_expected", "OF", PD_VIEW_RIGHT }, { "tokens", "TOKENS", PD_VIEW_RIGHT },
        { "verified", "VERIFIED", 0 }, { "took_seconds", "TOOK", PD_VIEW_RIGHT },
        { "age_seconds", "AGE", PD_VIEW_RIGHT }, { "reason", "REASON", PD_VIEW_SPARSE }, { NULL, NULL, 0 },
    };
    struct pd_kv_transfer_row *rows = pd_calloc(max > 0 ? max : 1, sizeof *rows);
    if (rows == NULL)
        return PD_ENOMEM;
    uint32_t n = pd_kv_table()->transfers(node->kv, rows, max);
    pd_view_table(v, "transfers", NULL, columns, "no transfers yet");
    for (uint32_t i = 0; i < PD_MIN(n, max); i++)
        put_transfer(v, &rows[i]);
    pd_view_end(v);
    pd_free(rows);
    return PD_OK;
}

pd_status pd_report_leases(struct pd_node *node, struct pd_view *v, uint32_t max)
{
    static const struct pd_view_column columns[] = {
        { "xid", "LEASE", 0 }, { "generation", "GENERATION", PD_VIEW_RIGHT }, { "state", "STATE", 0 },
        { "holder", "HOLDER", 0 }, { "blocks", "BLOCKS", PD_VIEW_RIGHT },
        { "left_seconds", "LEFT", PD_VIEW_RIGHT }, { "age_seconds", "AGE", PD_VIEW_RIGHT },
        { "renewals", "RENEWALS", PD_VIEW_RIGHT }, { "verdict", "VERDICT", PD_VIEW_SPARSE },
        { NULL, NULL, 0 },
    };
    struct pd_kv_lease_row *rows = pd_calloc(max > 0 ? max : 1, sizeof *rows);
    if (rows == NULL)
        return PD_ENOMEM;
    uint32_t n = pd_kv_table()->leases(node->kv, rows, max);
    pd_view_table(v, "leases", NULL, columns, "no leases yet");
    for (uint32_t i = 0; i < PD_MIN(n, max); i++) {
        const struct pd_kv_lease_row *l = &rows[i];
        pd_view_row(v);
        pd_view_format(v, "%llx", (unsigned long long)l->xid);
        pd_view_count(v, l->generation);
        pd_view_str(v, l->state);
        pd_view_str(v, l->holder);
        pd_view_count(v, l->blocks);
        pd_view_duration(v, l->left_ns);
        pd_view_duration(v, l->age_ns);
        pd_view_count(v, l->renewals);
        pd_view_str(v, l->verdict != 0 ? pd_kv_table()->verdict_text(l->verdict) : "");
    }
    pd_view_end(v);
    pd_free(rows);
    return PD_OK;
}
