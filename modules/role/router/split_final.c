/* SPDX-License-Identifier: Apache-2.0 */
/* A prefill server's answer that is all there is to say: the client gets it as it came,
 * without the members that are none of its business.  When the client wants a stream, its
 * parts stand in one event, and its usage in another one if that is asked for. */
#include "split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/json.h>

/* The answer under way. */
struct final {
    const struct split *split;
    const struct pd_json_api *json;
    bool is_stream;
    bool is_short;             /* of memory */
    char *p;
    size_t n, cap;
};

static void put(struct final *f, struct pd_str text)
{
    if (f->n + text.n > f->cap) {
        size_t cap = (f->n + text.n) * 2;
        char *p = f->is_short ? NULL : realloc(f->p, cap);
        if (p == NULL) {
            f->is_short = true;
            return;
        }
        f->p = p;
        f->cap = cap;
    }
    memcpy(f->p + f->n, text.p, text.n);
    f->n += text.n;
}

/* JSON of the answer: in an event it has to be one line, and strings hold no line ends. */
static void put_json(struct final *f, struct pd_str text)
{
    size_t at = f->n;
    put(f, text);
    for (size_t i = at; f->is_stream && !f->is_short && i < f->n; i++) {
        if (f->p[i] == '\n' || f->p[i] == '\r')
            f->p[i] = ' ';
    }
}

static void put_member(struct final *f, const struct pd_json_value *key, const struct pd_json_value *value, bool *some)
{
    if (*some)
        put(f, PD_STR(","));
    *some = true;
    put_json(f, (struct pd_str){ key->text.p, (size_t)(value->text.p + value->text.n - key->text.p) });
}

static bool is_hidden(const struct final *f, const struct pd_json_value *key)
{
    for (uint32_t i = 0; i < f->split->n_hidden; i++) {
        if (f->json->is_str(key, f->split->hidden[i]))
            return true;
    }
    return false;
}

static bool is_key(const struct final *f, const struct pd_json_value *key, const char *name)
{
    return f->json->is_str(key, name);
}

/* Calls of tools are numbered in a stream, and a list of none does not stand there. */
static void put_calls(struct final *f, const struct pd_json_value *calls, bool *some)
{
    struct pd_json_iter it;
    struct pd_json_value call;
    uint32_t n = 0;
    if (f->json->count(calls) == 0 || f->json->iter_init(&it, calls) != PD_OK)
        return;
    put(f, *some ? PD_STR(",\"tool_calls\":[") : PD_STR("\"tool_calls\":["));
    *some = true;
    while (f->json->iter_next(&it, NULL, &call)) {
        char text[32];
        if (call.type != PD_JSON_OBJECT)
            continue;
        int length = snprintf(text, sizeof text, "%s{\"index\":%u%s", n > 0 ? "," : "", n,
                              f->json->count(&call) > 0 ? "," : "");
        put(f, (struct pd_str){ text, (size_t)length });
        put_json(f, (struct pd_str){ call.text.p + 1, call.text.n - 1 });
        n++;
    }
    put(f, PD_STR("]"));
}

static void put_delta(struct final *f, const struct pd_json_value *message)
{
    struct pd_json_iter it;
    struct pd_json_value key, value;
    bool some = false;
    put(f, PD_STR("\"delta\":{"));
    if (f->json->iter_init(&it, message) == PD_OK) {
        while (f->json->iter_next(&it, &key, &value)) {
            if (is_key(f, &key, "tool_calls"))
                put_calls(f, &value, &some);
            else
                put_member(f, &key, &value, &some);
        }
    }
    put(f, PD_STR("}"));
}

/* The choice; there is one. */
static void put_choice(struct final *f, const struct pd_json_value *choices)
{
    struct pd_json_iter it;
    struct pd_json_value choice, key, value;
    bool some = false;
    put(f, PD_STR("{"));
    if (f->json->iter_init(&it, choices) == PD_OK && f->json->iter_next(&it, NULL, &choice) &&
        f->json->iter_init(&it, &choice) == PD_OK) {
        while (f->json->iter_next(&it, &key, &value)) {
            if (is_hidden(f, &key))
                continue;
            if (f->is_stream && is_key(f, &key, "message")) {
                put(f, some ? PD_STR(",") : PD_STR(""));
                put_delta(f, &value);
                some = true;
            } else {
                put_member(f, &key, &value, &some);
            }
        }
    }
    put(f, PD_STR("}"));
}

/* What the answer says of itself.  choices: NULL for an event that has none. */
static void put_answer(struct final *f, const struct pd_json_value *root, const struct pd_json_value *choices,
                       bool has_usage)
{
    struct pd_json_iter it;
    struct pd_json_value key, value;
    bool some = false;
    put(f, f->is_stream ? PD_STR("data: {") : PD_STR("{"));
    for (bool more = f->json->iter_init(&it, root) == PD_OK; more && f->json->iter_next(&it, &key, &value);) {
        bool is_object = is_key(f, &key, "object");
        if (is_hidden(f, &key) || is_key(f, &key, "choices") || (is_key(f, &key, "usage") && !has_usage))
            continue;
        if (is_object && f->is_stream && f->split->request->kind == PD_API_CHAT) {
            put(f, some ? PD_STR(",") : PD_STR(""));
            put(f, PD_STR("\"object\":\"chat.completion.chunk\""));
            some = true;
        } else {
            put_member(f, &key, &value, &some);
        }
    }
    put(f, some ? PD_STR(",\"choices\":[") : PD_STR("\"choices\":["));
    if (choices != NULL)
        put_choice(f, choices);
    put(f, f->is_stream ? PD_STR("]}\n\n") : PD_STR("]}"));
}

static pd_status answer_make(struct final *f, uint64_t *tokens)
{
    static const char *const paths[] = { "", "choices", "usage", "usage.completion_tokens" };
    const struct split *s = f->split;
    struct pd_json_value v[4];
    pd_status status = f->json->scan((struct pd_str){ s->answer, s->answer_n }, NULL, paths, 4, v, NULL);
    if (status != PD_OK)
        return status;
    if (f->json->get_u64(&v[3], tokens) != PD_OK)
        *tokens = 1;
    if (!f->is_stream) {
        put_answer(f, &v[0], &v[1], true);
    } else {
        put_answer(f, &v[0], &v[1], false);
        if (s->request->api->include_usage && v[2].type == PD_JSON_OBJECT)
            put_answer(f, &v[0], NULL, true);
        put(f, PD_STR("data: [DONE]\n\n"));
    }
    return f->is_short ? PD_ENOMEM : PD_OK;
}

bool split_final(struct request *q)
{
    static const struct pd_http_header headers[] = {
        { { "content-type", 12 }, { "text/event-stream; charset=utf-8", 32 } },
        { { "cache-control", 13 }, { "no-cache", 8 } },
    };
    static const struct pd_http_header json_type = { { "content-type", 12 }, { "application/json", 16 } };
    struct router *r = q->router;
    struct final f = { .split = q->split, .json = r->json, .is_stream = q->api->stream };
    uint64_t tokens = 0;
    if (answer_make(&f, &tokens) != PD_OK) {
        free(f.p);
        return false;
    }
    pd_counter_inc(r->split_finals);
    r->sched->end(r->scheds, &q->legs[0].decode, PD_DISPATCH_CANCELLED, now_of(q));
    set_name(q, &q->record->decode, "");
    q->record->remote = 1;
    q->is_begun = true;
    r->req->stage(r->reqs, q->record, PD_REQ_DECODING, now_of(q));
    if (tokens > 0 && tokens <= UINT32_MAX)
        r->req->tokens(r->reqs, q->record, (uint32_t)tokens, now_of(q));
    if (f.is_stream) {
        r->net->begin(q->http, 200, headers, 2, PD_HTTP_UNKNOWN_LENGTH);
        r->net->write(q->http, (struct pd_str){ f.p, f.n });
        r->net->end(q->http);
    } else {
        r->net->respond(q->http, 200, &json_type, 1, (struct pd_str){ f.p, f.n });
    }
    free(f.p);
    request_done(q, 200);
    return true;
}
