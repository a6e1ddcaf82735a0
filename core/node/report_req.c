/* SPDX-License-Identifier: Apache-2.0 */
/* Reports on work: requests and why they went where they went, transfers of KV,
 * leases. */
#include "node/report.h"

#include <stdio.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"

#define EXPLAIN_SCORERS_MAX 24u
#define SPARSE_RIGHT (PD_VIEW_SPARSE | PD_VIEW_RIGHT)

static pd_time since(pd_time from, pd_time to)
{
    return from == 0 || to < from ? PD_TIME_NEVER : to - from;
}

static void put_count_or_none(struct pd_view *v, uint64_t n)
{
    if (n != 0)
        pd_view_count(v, n);
    else
        pd_view_none(v);
}

/* ---- requests ------------------------------------------------------------------------------ */

static const char *state_of(const struct pd_req *r)
{
    return r->outcome == PD_REQ_LIVE ? pd_req_stage_name(r->stage) : pd_req_outcome_name(r->outcome);
}

static const char *decision_of(const struct pd_req *r)
{
    if (r->role == PD_ROLE_PREFILL)
        return "";
    if (r->remote != 0)
        return "remote";
    return r->decision != 0 || r->output_tokens > 0 ? "local" : "";
}

static pd_time duration_of(const struct pd_node *node, const struct pd_req *r)
{
    return since(r->at[PD_REQ_ACCEPTED],
                 r->outcome == PD_REQ_LIVE ? pd_loop_now(node->loop) : r->at[PD_REQ_ENDED]);
}

static void put_request(struct pd_node *node, struct pd_view *v, const struct pd_req *r)
{
    pd_time now = pd_loop_now(node->loop);
    pd_view_row(v);
    pd_view_count(v, r->number);
    pd_view_str(v, r->id);
    pd_view_str(v, pd_req_role_name(r->role));
    pd_view_str(v, state_of(r));
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
    pd_view_str(v, decision_of(r));
    pd_view_str(v, r->reason);
    pd_view_count(v, r->attempts);
    pd_view_count(v, r->prompt_tokens);
    pd_view_count(v, r->cached_tokens);
    pd_view_count(v, r->output_tokens);
    pd_view_duration(v, since(r->at[PD_REQ_ACCEPTED], r->first_token));
    pd_view_duration(v, duration_of(node, r));
    pd_view_duration(v, r->outcome == PD_REQ_LIVE ? PD_TIME_NEVER : since(r->at[PD_REQ_ENDED], now));
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

void pd_report_requests(struct pd_node *node, struct pd_view *v, uint32_t max)
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
    const struct pd_req *r;
    uint64_t cursor = 0;
    uint32_t n = 0;
    pd_view_table(v, "requests", NULL, columns, "no requests yet");
    while (n < max && pd_reqs_next(node->reqs, &cursor, &r)) {
        put_request(node, v, r);
        n++;
    }
    pd_view_end(v);
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

/* ---- explain: the request itself ----------------------------------------------------------------- */

static void put_name(struct pd_view *v, const char *key, const char *title, const char *value)
{
    pd_view_field(v, key, value[0] != '\0' ? title : NULL);
    pd_view_str(v, value);
}

static void put_time(struct pd_view *v, const char *key, const char *title, pd_time ns)
{
    pd_view_field(v, key, ns != PD_TIME_NEVER ? title : NULL);
    pd_view_duration(v, ns);
}

static void put_tokens(struct pd_view *v, const struct pd_req *r)
{
    pd_view_field(v, "prompt_tokens", NULL);
    pd_view_count(v, r->prompt_tokens);
    pd_view_field(v, "cached_tokens", NULL);
    pd_view_count(v, r->cached_tokens);
    pd_view_field(v, "output_tokens", NULL);
    pd_view_count(v, r->output_tokens);
    pd_view_field(v, NULL, "tokens");
    pd_view_format(v, "%u prompt (%u of them cached), %u output", r->prompt_tokens, r->cached_tokens,
                   r->output_tokens);
}

static void put_handover(struct pd_view *v, const struct pd_req *r)
{
    char bytes[PD_UNITS_TEXT], took[PD_UNITS_TEXT], text[160];
    int n;
    pd_view_field(v, "kv_bytes", NULL);
    pd_view_count(v, r->kv_bytes);
    pd_view_field(v, "kv_blocks", NULL);
    pd_view_count(v, r->kv_blocks);
    pd_view_field(v, "digests_verified", NULL);
    pd_view_count(v, r->digests);
    pd_view_field(v, "transport", NULL);
    pd_view_str(v, r->transport);
    pd_view_field(v, "handover_seconds", NULL);
    pd_view_duration(v, r->handover_ns != 0 ? r->handover_ns : PD_TIME_NEVER);
    if (r->kv_bytes == 0)
        return;
    pd_view_field(v, NULL, "kv handed over");
    n = snprintf(text, sizeof text, "%s over %s", pd_units_format_bytes(r->kv_bytes, bytes),
                 r->transport[0] != '\0' ? r->transport : "?");
    if (r->handover_ns != 0)
        n += snprintf(text + n, sizeof text - (size_t)n, " in %s",
                      pd_units_format_duration(r->handover_ns, took));
    if (r->digests != 0)
        snprintf(text + n, sizeof text - (size_t)n, ", %u digests verified", r->digests);
    pd_view_str(v, text);
}

static void put_record(struct pd_node *node, struct pd_view *v, const struct pd_req *r)
{
    pd_view_object(v, "request", NULL);
    pd_view_field(v, "id", "request");
    pd_view_str(v, r->id);
    pd_view_field(v, "number", NULL);
    pd_view_count(v, r->number);
    put_name(v, "role", "role", pd_req_role_name(r->role));
    put_name(v, "api", NULL, pd_req_api_name(r->api));
    put_name(v, "model", "model", r->model);
    put_name(v, "key", "key", r->key);
    put_name(v, "state", "state", state_of(r));
    put_name(v, "code", "code", r->code);
    pd_view_field(v, "http_status", r->http_status != 0 ? "http status" : NULL);
    pd_view_count(v, r->http_status);
    put_name(v, "decode", "decode", r->decode);
    put_name(v, "prefill", "prefill", r->prefill);
    put_name(v, "decision", "decision", decision_of(r));
    put_name(v, "reason", "because", r->reason);
    pd_view_field(v, "attempts", r->attempts > 1 ? "attempts" : NULL);
    pd_view_count(v, r->attempts);
    put_tokens(v, r);
    put_time(v, "ttft_seconds", "first token", since(r->at[PD_REQ_ACCEPTED], r->first_token));
    put_time(v, "duration_seconds", "took", duration_of(node, r));
    put_handover(v, r);
    pd_view_end(v);
}

/* ---- explain: the steps --------------------------------------------------------------------------- */

/* A walk over the lines with one line of outlook. */
struct steps {
    const struct pd_req *req;
    uint32_t cursor;
    uint32_t here;              /* cursor of `line` itself */
    bool is_there;
    struct pd_explain_line line;
};

static void steps_next(struct steps *s)
{
    s->here = s->cursor;
    s->is_there = pd_req_explain_next(s->req, &s->cursor, &s->line);
}

/* Whether the line belongs to the profile that is open; a note behind the pick
 * is about what came later. */
static bool in_profile(const struct steps *s, bool picked)
{
    if (!s->is_there)
        return false;
    switch (s->line.kind) {
    case PD_EXPLAIN_DROPPED:
    case PD_EXPLAIN_CANDIDATE:
    case PD_EXPLAIN_SCORE:
    case PD_EXPLAIN_PICKED:
        return true;
    case PD_EXPLAIN_NOTE:
        return !picked;
    default:
        return false;
    }
}

static void json_str(struct pd_view *v, const char *key, struct pd_str s)
{
    pd_json_add_str(&v->json, key, s);
}

/* A list of the lines of one kind, from `from` to the end of the profile. */
static void json_lines(struct pd_view *v, const struct pd_req *req, uint32_t from, uint32_t to,
                       uint32_t kind, const char *key)
{
    struct pd_explain_line l;
    pd_json_begin_array(&v->json, key);
    while (from < to && pd_req_explain_next(req, &from, &l)) {
        if (l.kind != kind)
            continue;
        if (kind == PD_EXPLAIN_NOTE) {
            json_str(v, NULL, l.text);
            continue;
        }
        pd_json_begin_object(&v->json, NULL);
        json_str(v, "endpoint", l.subject);
        json_str(v, "by", l.plugin);
        if (kind == PD_EXPLAIN_PICKED)
            pd_json_add_double(&v->json, "total", l.value);
        pd_json_end(&v->json);
    }
    pd_json_end(&v->json);
}

static void json_scores(struct pd_view *v, const struct pd_req *req, uint32_t from, uint32_t to)
{
    struct pd_explain_line l;
    bool is_open = false;
    pd_json_begin_array(&v->json, "candidates");
    while (from < to && pd_req_explain_next(req, &from, &l)) {
        if (l.kind == PD_EXPLAIN_CANDIDATE) {
            if (is_open) {
                pd_json_end(&v->json);
                pd_json_end(&v->json);
            }
            is_open = true;
            pd_json_begin_object(&v->json, NULL);
            json_str(v, "endpoint", l.subject);
            pd_json_add_double(&v->json, "total", l.value);
            pd_json_add_u64(&v->json, "matched_blocks", l.extra > 0 ? (uint64_t)l.extra : 0);
            pd_json_begin_array(&v->json, "scores");
        } else if (l.kind == PD_EXPLAIN_SCORE && is_open) {
            pd_json_begin_object(&v->json, NULL);
            json_str(v, "plugin", l.plugin);
            pd_json_add_double(&v->json, "score", l.value);
            pd_json_add_double(&v->json, "weight", l.extra);
            pd_json_end(&v->json);
        }
    }
    if (is_open) {
        pd_json_end(&v->json);
        pd_json_end(&v->json);
    }
    pd_json_end(&v->json);
}

static void json_profile(struct pd_view *v, const struct pd_req *req, const struct pd_explain_line *head,
                         uint32_t from, uint32_t to)
{
    pd_json_begin_object(&v->json, NULL);
    pd_json_add_cstr(&v->json, "step", "profile");
    json_str(v, "profile", head->subject);
    pd_json_add_u64(&v->json, "endpoints", head->value > 0 ? (uint64_t)head->value : 0);
    json_lines(v, req, from, to, PD_EXPLAIN_DROPPED, "dropped");
    json_scores(v, req, from, to);
    json_lines(v, req, from, to, PD_EXPLAIN_PICKED, "picked");
    json_lines(v, req, from, to, PD_EXPLAIN_NOTE, "notes");
    pd_json_end(&v->json);
}

/* The scorers of a profile: those of its first candidate. */
static uint32_t scorers_of(const struct pd_req *req, uint32_t from, uint32_t to, char titles[][64])
{
    struct pd_explain_line l;
    uint32_t n = 0, candidates = 0;
    while (from < to && n < EXPLAIN_SCORERS_MAX && pd_req_explain_next(req, &from, &l)) {
        if (l.kind == PD_EXPLAIN_CANDIDATE && ++candidates > 1)
            break;
        if (l.kind == PD_EXPLAIN_SCORE)
            snprintf(titles[n++], sizeof titles[0], "%.*s x %g", (int)PD_MIN(l.plugin.n, (size_t)40),
                     l.plugin.p, l.extra);
    }
    return n;
}

static void text_scores(struct pd_view *v, const struct pd_req *req, uint32_t from, uint32_t to)
{
    char titles[EXPLAIN_SCORERS_MAX][64];
    struct pd_view_column columns[EXPLAIN_SCORERS_MAX + 4];
    struct pd_explain_line l;
    uint32_t n = scorers_of(req, from, to, titles), at = n;
    memset(columns, 0, sizeof columns);
    columns[0] = (struct pd_view_column){ NULL, "  CANDIDATE", 0 };
    columns[1] = (struct pd_view_column){ NULL, "TOTAL", PD_VIEW_RIGHT };
    columns[2] = (struct pd_view_column){ NULL, "MATCHED BLOCKS", PD_VIEW_RIGHT };
    for (uint32_t i = 0; i < n; i++)
        columns[3 + i] = (struct pd_view_column){ NULL, titles[i], PD_VIEW_RIGHT };
    v->has_text = false;
    pd_view_table(v, NULL, NULL, columns, NULL);
    while (from < to && pd_req_explain_next(req, &from, &l)) {
        if (l.kind == PD_EXPLAIN_CANDIDATE) {
            for (; at < n; at++)
                pd_view_none(v);
            at = 0;
            pd_view_row(v);
            pd_view_format(v, "  %.*s", PD_STR_ARG(l.subject));
            pd_view_number(v, l.value);
            pd_view_count(v, l.extra > 0 ? (uint64_t)l.extra : 0);
        } else if (l.kind == PD_EXPLAIN_SCORE && at < n) {
            pd_view_number(v, l.value);
            at++;
        }
    }
    for (; at < n; at++)
        pd_view_none(v);
    pd_view_end(v);
}

static void text_profile(struct pd_view *v, const struct pd_req *req, const struct pd_explain_line *head,
                         uint32_t from, uint32_t to)
{
    struct pd_explain_line l;
    pd_view_line(v, "profile %.*s: %.0f endpoint%s", PD_STR_ARG(head->subject), head->value,
                 head->value >= 2 || head->value < 1 ? "s" : "");
    for (uint32_t at = from; at < to && pd_req_explain_next(req, &at, &l);) {
        if (l.kind == PD_EXPLAIN_DROPPED)
            pd_view_line(v, "  dropped %.*s: %.*s", PD_STR_ARG(l.subject), PD_STR_ARG(l.plugin));
        else if (l.kind == PD_EXPLAIN_NOTE)
            pd_view_line(v, "  note: %.*s", PD_STR_ARG(l.text));
    }
    text_scores(v, req, from, to);
    while (from < to && pd_req_explain_next(req, &from, &l)) {
        if (l.kind == PD_EXPLAIN_PICKED)
            pd_view_line(v, "  picked %.*s by %.*s, total %.3f", PD_STR_ARG(l.subject),
                         PD_STR_ARG(l.plugin), l.value);
    }
}

/* A decision or a note. */
static void put_step(struct pd_view *v, const struct pd_explain_line *l)
{
    bool is_decision = l->kind == PD_EXPLAIN_DECISION;
    if (!v->is_json) {
        if (is_decision && l->plugin.n > 0)
            pd_view_line(v, "decision %.*s by %.*s: %.*s", PD_STR_ARG(l->subject), PD_STR_ARG(l->plugin),
                         PD_STR_ARG(l->text));
        else if (is_decision)
            pd_view_line(v, "decision %.*s: %.*s", PD_STR_ARG(l->subject), PD_STR_ARG(l->text));
        else
            pd_view_line(v, "note: %.*s", PD_STR_ARG(l->text));
        return;
    }
    pd_json_begin_object(&v->json, NULL);
    pd_json_add_cstr(&v->json, "step", is_decision ? "decision" : "note");
    if (is_decision) {
        json_str(v, "decision", l->subject);
        json_str(v, "by", l->plugin);
    }
    json_str(v, is_decision ? "reason" : "text", l->text);
    pd_json_end(&v->json);
}

static void put_profile(struct pd_view *v, struct steps *s)
{
    struct pd_explain_line head = s->line;
    bool picked = false;
    steps_next(s);
    uint32_t from = s->here;
    while (in_profile(s, picked)) {
        picked = picked || s->line.kind == PD_EXPLAIN_PICKED;
        steps_next(s);
    }
    if (v->is_json)
        json_profile(v, s->req, &head, from, s->here);
    else
        text_profile(v, s->req, &head, from, s->here);
}

pd_status pd_report_explain(struct pd_node *node, struct pd_view *v, struct pd_str id)
{
    struct steps s = { .req = pd_reqs_find(node->reqs, id) };
    if (s.req == NULL)
        return PD_ENOENT;
    uint32_t lost = pd_req_explain_lost(s.req);
    put_record(node, v, s.req);
    if (v->is_json)
        pd_json_begin_array(&v->json, "steps");
    steps_next(&s);
    pd_view_line(v, "%s", "");
    if (!s.is_there)
        pd_view_line(v, "no scheduling took place on this node");
    while (s.is_there) {
        if (s.line.kind == PD_EXPLAIN_PROFILE) {
            put_profile(v, &s);
        } else {
            put_step(v, &s.line);
            steps_next(&s);
        }
    }
    if (v->is_json) {
        pd_json_end(&v->json);
        pd_json_add_u64(&v->json, "lines_lost", lost);
    } else if (lost > 0) {
        pd_view_line(v, "%u more lines did not fit, see requests.explain", lost);
    }
    return PD_OK;
}
