/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the answer of a request: events while it streams, or one body at the
 * end.  The beginning of an event is the same for all events of an answer and
 * is made once; a token then costs one copy of it and the escaped text.
 *
 * Laws kept here: a finish_reason comes once for each choice, [DONE] only
 * through answer_done, and nothing follows an error event. */
#include "api/api.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/utf8.h"

#define HEAD_MAX 4096u
#define EVENT_MAX (16u << 20)
#define BODY_MAX (64u << 20)

struct choice {
    struct pd_buf text;        /* not streaming: the whole text */
    struct pd_buf logprobs;    /* not streaming: the entries, comma separated */
    struct pd_buf tops;        /* completions: "top_logprobs" entries */
    struct pd_buf values;      /* completions: "token_logprobs" entries */
    struct pd_buf offsets;     /* completions: "text_offset" entries */
    uint64_t text_chars;       /* characters that came so far, for text_offset */
    bool is_started;
    bool is_finished;
    uint32_t reason;
    uint32_t prompt_tokens, cached_tokens, output_tokens;
};

struct pd_answer {
    const struct pd_api_request *request;
    struct pd_buf head;        /* {"id":...,"object":...,"created":...,"model":..., */
    struct pd_buf out;
    bool is_chat;
    bool is_over;              /* an error event or [DONE] was written */
    uint32_t n_choices;
    struct choice choices[];
};

pd_status pd_api_answer_create(struct pd_api *api, const struct pd_api_request *request,
                               struct pd_str id, struct pd_str model, uint64_t created,
                               struct pd_answer **out)
{
    (void)api;
    uint32_t n = request->n_legs;
    struct pd_answer *a = pd_calloc(1, sizeof *a + n * sizeof a->choices[0]);
    if (a == NULL)
        return PD_ENOMEM;
    a->request = request;
    a->is_chat = request->kind == PD_API_CHAT;
    a->n_choices = n;
    pd_buf_init(&a->head, HEAD_MAX);
    pd_buf_init(&a->out, BODY_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct choice *c = &a->choices[i];
        pd_buf_init(&c->text, EVENT_MAX);
        pd_buf_init(&c->logprobs, EVENT_MAX);
        pd_buf_init(&c->tops, EVENT_MAX);
        pd_buf_init(&c->values, EVENT_MAX);
        pd_buf_init(&c->offsets, EVENT_MAX);
    }
    pd_buf_append_cstr(&a->head, "{\"id\":");
    pd_json_put_str(&a->head, id);
    pd_buf_appendf(&a->head, ",\"object\":\"%s\",\"created\":%llu,\"model\":",
                   !a->is_chat ? "text_completion"
                   : request->stream ? "chat.completion.chunk" : "chat.completion",
                   (unsigned long long)created);
    pd_json_put_str(&a->head, model);
    pd_buf_append_char(&a->head, ',');
    if (a->head.status != PD_OK) {
        pd_status status = a->head.status;
        pd_api_answer_destroy(api, a);
        return status;
    }
    *out = a;
    return PD_OK;
}

void pd_api_answer_destroy(struct pd_api *api, struct pd_answer *answer)
{
    (void)api;
    if (answer == NULL)
        return;
    for (uint32_t i = 0; i < answer->n_choices; i++) {
        struct choice *c = &answer->choices[i];
        pd_buf_fini(&c->text);
        pd_buf_fini(&c->logprobs);
        pd_buf_fini(&c->tops);
        pd_buf_fini(&c->values);
        pd_buf_fini(&c->offsets);
    }
    pd_buf_fini(&answer->head);
    pd_buf_fini(&answer->out);
    pd_free(answer);
}

/* Whether a leg may still add to the answer. */
static bool is_open(const struct pd_answer *a, uint32_t leg)
{
    return !a->is_over && leg < a->n_choices && !a->choices[leg].is_finished;
}

static const char *reason_text(uint32_t reason)
{
    return reason == PD_FINISH_LENGTH ? "length" : "stop";
}

static void put_logprob(struct pd_buf *b, float v)
{
    /* JSON has no infinity; the least value that clients know is used. */
    pd_buf_appendf(b, "%.9g", isfinite(v) ? (double)v : -9999.0);
}

static void put_bytes(struct pd_buf *b, struct pd_str bytes)
{
    pd_buf_append_char(b, '[');
    for (size_t i = 0; i < bytes.n; i++)
        pd_buf_appendf(b, "%s%u", i > 0 ? "," : "", (unsigned)(unsigned char)bytes.p[i]);
    pd_buf_append_char(b, ']');
}

/* "token":...,"logprob":...,"bytes":[...] as chat answers have it. */
static void put_chat_token(struct pd_buf *b, struct pd_str bytes, float logprob)
{
    pd_buf_append_cstr(b, "{\"token\":");
    pd_json_put_str(b, bytes);
    pd_buf_append_cstr(b, ",\"logprob\":");
    put_logprob(b, logprob);
    pd_buf_append_cstr(b, ",\"bytes\":");
    put_bytes(b, bytes);
}

static void put_chat_entry(struct pd_buf *b, const struct pd_leg_token *t)
{
    put_chat_token(b, t->bytes, t->logprob);
    pd_buf_append_cstr(b, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < t->n_top; i++) {
        if (i > 0)
            pd_buf_append_char(b, ',');
        put_chat_token(b, t->top[i].bytes, t->top[i].logprob);
        pd_buf_append_char(b, '}');
    }
    pd_buf_append_cstr(b, "]}");
}

static void put_top_object(struct pd_buf *b, const struct pd_leg_token *t)
{
    pd_buf_append_char(b, '{');
    for (uint32_t i = 0; i < t->n_top; i++) {
        if (i > 0)
            pd_buf_append_char(b, ',');
        pd_json_put_str(b, t->top[i].bytes);
        pd_buf_append_char(b, ':');
        put_logprob(b, t->top[i].logprob);
    }
    pd_buf_append_char(b, '}');
}

static uint64_t count_chars(struct pd_str s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static void begin_event(struct pd_answer *a)
{
    pd_buf_append_cstr(&a->out, "data: ");
    pd_buf_append_str(&a->out, pd_buf_str(&a->head));
}

/* With include_usage every event has the member, null but in the last. */
static void end_event(struct pd_answer *a)
{
    pd_buf_append_cstr(&a->out, a->request->include_usage != 0 ? ",\"usage\":null}\n\n" : "}\n\n");
}

/* One event for one choice; text may be empty, token NULL, reason 0. */
static void put_choice_event(struct pd_answer *a, uint32_t leg, struct pd_str text,
                             const struct pd_leg_token *token, uint32_t reason)
{
    struct choice *c = &a->choices[leg];
    struct pd_buf *b = &a->out;
    bool has_logprob = token != NULL && token->has_logprob != 0;
    begin_event(a);
    pd_buf_appendf(b, "\"choices\":[{\"index\":%u,", leg);
    if (a->is_chat) {
        pd_buf_append_cstr(b, "\"delta\":{");
        if (text.n > 0 || reason == 0) {
            pd_buf_append_cstr(b, "\"content\":");
            pd_json_put_str(b, text);
        }
        pd_buf_append_char(b, '}');
    } else {
        pd_buf_append_cstr(b, "\"text\":");
        pd_json_put_str(b, text);
    }
    if (!has_logprob) {
        pd_buf_append_cstr(b, ",\"logprobs\":null");
    } else if (a->is_chat) {
        pd_buf_append_cstr(b, ",\"logprobs\":{\"content\":[");
        put_chat_entry(b, token);
        pd_buf_append_cstr(b, "],\"refusal\":null}");
    } else {
        pd_buf_append_cstr(b, ",\"logprobs\":{\"tokens\":[");
        pd_json_put_str(b, token->bytes);
        pd_buf_append_cstr(b, "],\"token_logprobs\":[");
        put_logprob(b, token->logprob);
        pd_buf_append_cstr(b, "],\"top_logprobs\":[");
        put_top_object(b, token);
        pd_buf_appendf(b, "],\"text_offset\":[%llu]}", (unsigned long long)c->text_chars);
    }
    if (reason != 0)
        pd_buf_appendf(b, ",\"finish_reason\":\"%s\"}]", reason_text(reason));
    else
        pd_buf_append_cstr(b, ",\"finish_reason\":null}]");
    end_event(a);
    if (token != NULL)
        c->text_chars += count_chars(token->bytes);
}

/* What comes before the first token of a choice. */
static void start_choice(struct pd_answer *a, uint32_t leg)
{
    const struct pd_api_request *r = a->request;
    struct choice *c = &a->choices[leg];
    if (c->is_started)
        return;
    c->is_started = true;
    struct pd_str echoed = { "", 0 };
    if (!a->is_chat && r->echo != 0)
        echoed = r->prompts[leg / r->n_choices].text;
    c->text_chars = count_chars(echoed);
    if (!r->stream) {
        pd_buf_append_str(&c->text, echoed);
        return;
    }
    if (a->is_chat) {
        begin_event(a);
        pd_buf_appendf(&a->out,
                       "\"choices\":[{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                       "\"logprobs\":null,\"finish_reason\":null}]", leg);
        end_event(a);
    } else if (echoed.n > 0) {
        put_choice_event(a, leg, echoed, NULL, 0);
    }
}

static void collect(struct pd_answer *a, struct choice *c, const struct pd_leg_token *t)
{
    pd_buf_append_str(&c->text, t->text);
    if (t->has_logprob == 0)
        return;
    if (c->logprobs.n > 0)
        pd_buf_append_char(&c->logprobs, ',');
    if (a->is_chat) {
        put_chat_entry(&c->logprobs, t);
        return;
    }
    const char *comma = c->values.n > 0 ? "," : "";
    pd_json_put_str(&c->logprobs, t->bytes);
    pd_buf_append_cstr(&c->values, comma);
    put_logprob(&c->values, t->logprob);
    pd_buf_append_cstr(&c->tops, comma);
    put_top_object(&c->tops, t);
    pd_buf_appendf(&c->offsets, "%s%llu", comma, (unsigned long long)c->text_chars);
    c->text_chars += count_chars(t->bytes);
}

pd_status pd_api_answer_token(struct pd_answer *answer, uint32_t leg,
                              const struct pd_leg_token *token, struct pd_str *out)
{
    pd_buf_clear(&answer->out);
    *out = (struct pd_str){ "", 0 };
    if (!is_open(answer, leg))
        return PD_EPROTO;
    struct choice *c = &answer->choices[leg];
    start_choice(answer, leg);
    c->output_tokens++;
    if (!answer->request->stream) {
        collect(answer, c, token);
        return c->text.status != PD_OK ? c->text.status : c->logprobs.status;
    }
    if (token->text.n > 0 || token->has_logprob != 0)
        put_choice_event(answer, leg, token->text, token, 0);
    else
        c->text_chars += count_chars(token->bytes);
    *out = pd_buf_str(&answer->out);
    return answer->out.status;
}

pd_status pd_api_answer_end(struct pd_answer *answer, uint32_t leg, const struct pd_leg_end *end,
                            struct pd_str *out)
{
    pd_buf_clear(&answer->out);
    *out = (struct pd_str){ "", 0 };
    if (!is_open(answer, leg) || (end->reason != PD_FINISH_STOP && end->reason != PD_FINISH_LENGTH))
        return PD_EPROTO;
    struct choice *c = &answer->choices[leg];
    start_choice(answer, leg);
    c->is_finished = true;
    c->reason = end->reason;
    c->prompt_tokens = end->prompt_tokens;
    c->cached_tokens = end->cached_tokens;
    c->output_tokens = end->output_tokens;
    if (!answer->request->stream)
        return pd_buf_append_str(&c->text, end->text);
    if (end->text.n > 0)
        put_choice_event(answer, leg, end->text, NULL, 0);
    put_choice_event(answer, leg, (struct pd_str){ "", 0 }, NULL, end->reason);
    *out = pd_buf_str(&answer->out);
    return answer->out.status;
}

/* A prompt counts once, however many choices it has. */
static void put_usage(struct pd_answer *a)
{
    uint64_t prompt = 0, cached = 0, output = 0;
    for (uint32_t i = 0; i < a->n_choices; i++) {
        output += a->choices[i].output_tokens;
        if (i % a->request->n_choices == 0) {
            prompt += a->choices[i].prompt_tokens;
            cached += a->choices[i].cached_tokens;
        }
    }
    pd_buf_appendf(&a->out,
                   "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
                   (unsigned long long)prompt, (unsigned long long)output,
                   (unsigned long long)(prompt + output), (unsigned long long)cached);
}

pd_status pd_api_answer_done(struct pd_answer *answer, struct pd_str *out)
{
    pd_buf_clear(&answer->out);
    *out = (struct pd_str){ "", 0 };
    for (uint32_t i = 0; i < answer->n_choices; i++) {
        if (!answer->choices[i].is_finished)
            return PD_EPROTO;
    }
    if (answer->is_over)
        return PD_EPROTO;
    answer->is_over = true;
    if (answer->request->include_usage != 0) {
        begin_event(answer);
        pd_buf_append_cstr(&answer->out, "\"choices\":[],");
        put_usage(answer);
        pd_buf_append_cstr(&answer->out, "}\n\n");
    }
    pd_buf_append_cstr(&answer->out, "data: [DONE]\n\n");
    *out = pd_buf_str(&answer->out);
    return answer->out.status;
}

pd_status pd_api_answer_error(struct pd_answer *answer, const struct pd_api_error *error,
                              struct pd_str *out)
{
    pd_buf_clear(&answer->out);
    *out = (struct pd_str){ "", 0 };
    if (answer->is_over)
        return PD_EPROTO;
    answer->is_over = true;
    pd_buf_append_cstr(&answer->out, "data: {\"error\":");
    pd_api_error_put(&answer->out, error);
    pd_buf_append_cstr(&answer->out, "}\n\n");
    *out = pd_buf_str(&answer->out);
    return answer->out.status;
}

static void put_collected(struct pd_answer *a, uint32_t leg)
{
    struct choice *c = &a->choices[leg];
    struct pd_buf *b = &a->out;
    pd_buf_appendf(b, "%s{\"index\":%u,", leg > 0 ? "," : "", leg);
    if (a->is_chat) {
        pd_buf_append_cstr(b, "\"message\":{\"role\":\"assistant\",\"content\":");
        pd_json_put_str(b, pd_buf_str(&c->text));
        pd_buf_append_cstr(b, ",\"refusal\":null}");
    } else {
        pd_buf_append_cstr(b, "\"text\":");
        pd_json_put_str(b, pd_buf_str(&c->text));
    }
    if (a->request->sampling.want_logprob == 0) {
        pd_buf_append_cstr(b, ",\"logprobs\":null");
    } else if (a->is_chat) {
        pd_buf_append_cstr(b, ",\"logprobs\":{\"content\":[");
        pd_buf_append_str(b, pd_buf_str(&c->logprobs));
        pd_buf_append_cstr(b, "],\"refusal\":null}");
    } else {
        pd_buf_append_cstr(b, ",\"logprobs\":{\"tokens\":[");
        pd_buf_append_str(b, pd_buf_str(&c->logprobs));
        pd_buf_append_cstr(b, "],\"token_logprobs\":[");
        pd_buf_append_str(b, pd_buf_str(&c->values));
        pd_buf_append_cstr(b, "],\"top_logprobs\":[");
        pd_buf_append_str(b, pd_buf_str(&c->tops));
        pd_buf_append_cstr(b, "],\"text_offset\":[");
        pd_buf_append_str(b, pd_buf_str(&c->offsets));
        pd_buf_append_cstr(b, "]}");
    }
    pd_buf_appendf(b, ",\"finish_reason\":\"%s\"}", reason_text(c->reason));
}

static bool is_whole(const struct choice *c)
{
    return c->text.status == PD_OK && c->logprobs.status == PD_OK && c->tops.status == PD_OK &&
           c->values.status == PD_OK && c->offsets.status == PD_OK;
}

pd_status pd_api_answer_body(struct pd_answer *answer, struct pd_str *out)
{
    pd_buf_clear(&answer->out);
    *out = (struct pd_str){ "", 0 };
    if (answer->is_over)
        return PD_EPROTO;
    pd_buf_append_str(&answer->out, pd_buf_str(&answer->head));
    pd_buf_append_cstr(&answer->out, "\"choices\":[");
    for (uint32_t i = 0; i < answer->n_choices; i++) {
        const struct choice *c = &answer->choices[i];
        if (!c->is_finished)
            return PD_EPROTO;
        if (!is_whole(c))
            return PD_ELIMIT;
        put_collected(answer, i);
    }
    pd_buf_append_cstr(&answer->out, "],");
    put_usage(answer);
    pd_buf_append_char(&answer->out, '}');
    *out = pd_buf_str(&answer->out);
    return answer->out.status;
}
