/* SPDX-License-Identifier: Apache-2.0 */
/* The report on one request: its record, where its time went, and why it went
 * where it went. */
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/str.h"
#include "base/units.h"
#include "node/report.h"
#include "node/report_req.h"

#define EXPLAIN_SCORERS_MAX 24u

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
    put_name(v, "state", "state", pd_report_state(r));
    put_name(v, "code", "code", r->code);
    pd_view_field(v, "http_status", r->http_status != 0 ? "http status" : NULL);
    pd_view_count(v, r->http_status);
    put_name(v, "decode", "decode", r->decode);
    put_name(v, "prefill", "prefill", r->prefill);
    put_name(v, "decision", "decision", pd_report_decision(r));
    put_name(v, "reason", "because", r->reason);
    pd_view_field(v, "attempts", r->attempts > 1 ? "attempts" : NULL);
    pd_view_count(v, r->attempts);
    put_tokens(v, r);
    put_time(v, "ttft_seconds", "first token", pd_report_since(r->at[PD_REQ_ACCEPTED], r->first_token));
    put_time(v, "duration_seconds", "took", pd_report_duration(node, r));
    put_handover(v, r);
    pd_view_end(v);
}

/* ---- explain: where the time went ---------------------------------------------------------------- */

struct mark {
    const char *name;
    pd_time at;
};

static void mark_put(struct mark *marks, uint32_t *n, const char *name, pd_time at)
{
    uint32_t i = *n;
    if (at == 0)
        return;
    for (; i > 0 && marks[i - 1].at > at; i--)
        marks[i] = marks[i - 1];
    marks[i] = (struct mark){ name, at };
    ++*n;
}

/* Stages and the first token in the order of time; a stage that was entered
 * again counts from then. */
static uint32_t marks_of(const struct pd_req *r, struct mark marks[PD_REQ_STAGES + 1])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < PD_REQ_STAGES; i++) {
        mark_put(marks, &n, pd_req_stage_name(i), r->at[i]);
        if (i == PD_REQ_DECODING)
            mark_put(marks, &n, "first token", r->first_token);
    }
    return n;
}

static void put_stages(struct pd_node *node, struct pd_view *v, const struct pd_req *r)
{
    static const struct pd_view_column columns[] = {
        { "stage", "STAGE", 0 }, { "at_seconds", "AT", PD_VIEW_RIGHT },
        { "lasted_seconds", "LASTED", PD_VIEW_RIGHT }, { NULL, NULL, 0 },
    };
    struct mark marks[PD_REQ_STAGES + 1];
    uint32_t n = marks_of(r, marks);
    pd_view_table(v, "stages", NULL, columns, NULL);
    for (uint32_t i = 0; i < n; i++) {
        bool is_last = i + 1 == n;
        pd_time until = !is_last ? marks[i + 1].at
                                 : r->outcome == PD_REQ_LIVE ? pd_loop_now(node->loop) : PD_TIME_NEVER;
        pd_view_row(v);
        pd_view_str(v, marks[i].name);
        pd_view_duration(v, marks[i].at - r->at[PD_REQ_ACCEPTED]);
        pd_view_duration(v, until == PD_TIME_NEVER ? until : pd_report_since(marks[i].at, until));
    }
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
    put_stages(node, v, s.req);
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
