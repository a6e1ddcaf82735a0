/* SPDX-License-Identifier: Apache-2.0 */
/* Wire form of the two requests between nodes: a leg (router to decode node)
 * and an order (decode node to prefill node).  Fixed little-endian layout,
 * every count and length capped; the byte tables stand in
 * doc/guide/messages.md.  A decoded message owns a copy of its bytes and
 * its arrays; its strings point into the copy. */
#include "api/api.h"

#include <string.h>

#include <pdplane/scheduler.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/wire.h"

#define LEG_VERSION 1u
#define ORDER_VERSION 1u
#define SAMPLING_BYTES (4 + 5 * 8 + 8 + 4 + 4)
#define FIXED_BYTES 1024u       /* more than all members of fixed size take */
#define REQUEST_ID_MAX 64u
#define ADDRESS_MAX 256u
#define REASON_MAX 256u
#define GRANT_MAX (256u << 10)

struct decoded {
    struct pd_api_message message;
    struct pd_leg leg;
    struct pd_leg_order order;
    struct pd_arena arena;
};

static void put_sampling(struct pd_writer *w, const struct pd_sampling *s)
{
    pd_writer_u32(w, s->top_k);
    pd_writer_double(w, s->temperature);
    pd_writer_double(w, s->top_p);
    pd_writer_double(w, s->min_p);
    pd_writer_double(w, s->frequency_penalty);
    pd_writer_double(w, s->presence_penalty);
    pd_writer_u64(w, s->seed);
    pd_writer_u32(w, s->logprobs);
    pd_writer_u32(w, s->want_logprob);
}

static bool is_between(double v, double lo, double hi)
{
    return v >= lo && v <= hi;
}

static void get_sampling(struct pd_reader *r, struct pd_sampling *s)
{
    memset(s, 0, sizeof *s);
    s->size = sizeof *s;
    s->top_k = pd_reader_u32(r);
    s->temperature = pd_reader_double(r);
    s->top_p = pd_reader_double(r);
    s->min_p = pd_reader_double(r);
    s->frequency_penalty = pd_reader_double(r);
    s->presence_penalty = pd_reader_double(r);
    s->seed = pd_reader_u64(r);
    s->logprobs = pd_reader_u32(r);
    s->want_logprob = pd_reader_u32(r);
    if (!is_between(s->temperature, 0, 100) || !is_between(s->top_p, 0, 1) ||
        !is_between(s->min_p, 0, 1) || !is_between(s->frequency_penalty, -100, 100) ||
        !is_between(s->presence_penalty, -100, 100) || s->logprobs > PD_API_MAX_TOP ||
        s->want_logprob > 1)
        r->failed = true;
}

static void put_str32(struct pd_writer *w, struct pd_str s, size_t max)
{
    if (s.n > max)
        w->failed = true;
    pd_writer_str32(w, s);
}

static void put_tokens(struct pd_writer *w, const int32_t *tokens, uint32_t n)
{
    pd_writer_u32(w, n);
    for (uint32_t i = 0; i < n; i++)
        pd_writer_u32(w, (uint32_t)tokens[i]);
}

static const int32_t *get_tokens(struct pd_reader *r, struct pd_arena *arena, uint32_t *n_out)
{
    uint32_t n = pd_reader_u32(r);
    if (n > PD_API_TOKENS_MAX || (size_t)n * 4 > pd_reader_left(r)) {
        r->failed = true;
        return NULL;
    }
    int32_t *tokens = pd_arena_alloc(arena, ((size_t)n + 1) * sizeof *tokens);
    if (tokens == NULL) {
        r->failed = true;
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)pd_reader_u32(r);
        if (tokens[i] < 0)
            r->failed = true;
    }
    *n_out = n;
    return tokens;
}

static void put_node(struct pd_writer *w, const struct pd_node_id *id)
{
    pd_writer_uuid(w, &id->uuid);
    pd_writer_u64(w, id->epoch);
}

static void get_node(struct pd_reader *r, struct pd_node_id *id)
{
    id->uuid = pd_reader_uuid(r);
    id->epoch = pd_reader_u64(r);
}

static size_t leg_bound(const struct pd_leg *leg)
{
    size_t n = FIXED_BYTES + SAMPLING_BYTES + leg->request_id.n + leg->model.n + leg->engine.n +
               leg->cache_salt.n + leg->decide_reason.n + leg->prompt.text.n +
               (size_t)leg->prompt.n_tokens * 4 + (size_t)leg->n_output * 4;
    for (uint32_t i = 0; i < leg->n_stops; i++)
        n += 4 + leg->stops[i].n;
    for (uint32_t i = 0; i < leg->n_messages; i++)
        n += 8 + leg->messages[i].role.n + leg->messages[i].content.n;
    for (uint32_t i = 0; i < leg->n_prefills; i++)
        n += 64 + leg->prefills[i].name.n + leg->prefills[i].address.n + leg->prefills[i].engine.n;
    return n;
}

pd_status pd_api_leg_encode(struct pd_api *api, const struct pd_leg *leg, struct pd_str *out)
{
    struct pd_writer w;
    if (leg->n_stops > PD_API_MAX_STOPS || leg->n_prefills > PD_API_MAX_PREFILLS ||
        leg->n_messages > PD_API_MESSAGES_MAX || leg->prompt.n_tokens > PD_API_TOKENS_MAX)
        return PD_EINVAL;
    pd_status status = pd_api_scratch_open(api, leg_bound(leg), &w);
    if (status != PD_OK)
        return status;
    pd_writer_u8(&w, LEG_VERSION);
    pd_writer_u8(&w, (uint8_t)leg->kind);
    pd_api_put_str16(&w, leg->request_id, REQUEST_ID_MAX);
    pd_writer_u32(&w, leg->index);
    pd_writer_u32(&w, leg->flags);
    pd_api_put_str16(&w, leg->model, PD_API_NAME_MAX);
    pd_api_put_str16(&w, leg->engine, PD_API_NAME_MAX);
    pd_api_put_str16(&w, leg->cache_salt, PD_API_SALT_MAX);
    put_sampling(&w, &leg->sampling);
    pd_writer_u32(&w, leg->max_output);
    pd_writer_u32(&w, leg->priority);
    pd_writer_u64(&w, leg->deadline_ms);
    pd_writer_u8(&w, (uint8_t)leg->decide);
    pd_writer_u64(&w, leg->min_tokens);
    pd_api_put_str16(&w, leg->decide_reason, REASON_MAX);
    pd_writer_u8(&w, (uint8_t)leg->n_stops);
    for (uint32_t i = 0; i < leg->n_stops; i++)
        pd_api_put_str16(&w, leg->stops[i], PD_API_STOP_MAX);
    pd_writer_u8(&w, (uint8_t)leg->n_prefills);
    for (uint32_t i = 0; i < leg->n_prefills; i++) {
        put_node(&w, &leg->prefills[i].node);
        pd_api_put_str16(&w, leg->prefills[i].name, PD_API_NAME_MAX);
        pd_api_put_str16(&w, leg->prefills[i].address, ADDRESS_MAX);
        pd_api_put_str16(&w, leg->prefills[i].engine, PD_API_NAME_MAX);
    }
    pd_writer_u32(&w, leg->n_messages);
    for (uint32_t i = 0; i < leg->n_messages; i++) {
        pd_api_put_str16(&w, leg->messages[i].role, PD_API_NAME_MAX);
        put_str32(&w, leg->messages[i].content, PD_API_PROMPT_MAX);
    }
    put_str32(&w, leg->prompt.text, PD_API_PROMPT_MAX);
    put_tokens(&w, leg->prompt.tokens, leg->prompt.tokens != NULL ? leg->prompt.n_tokens : 0);
    put_tokens(&w, leg->output, leg->n_output);
    return pd_api_scratch_close(api, &w, out);
}

static void get_messages(struct pd_reader *r, struct pd_arena *arena, struct pd_leg *leg)
{
    uint32_t n = pd_reader_u32(r);
    if (n > PD_API_MESSAGES_MAX || (size_t)n * 6 > pd_reader_left(r)) {
        r->failed = true;
        return;
    }
    struct pd_message *messages = pd_arena_calloc(arena, (size_t)n + 1, sizeof *messages);
    if (messages == NULL) {
        r->failed = true;
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        messages[i].role = pd_reader_str16(r, PD_API_NAME_MAX);
        messages[i].content = pd_reader_str32(r, PD_API_PROMPT_MAX);
    }
    leg->messages = messages;
    leg->n_messages = n;
}

static void get_leg(struct pd_reader *r, struct pd_arena *arena, struct pd_leg *leg)
{
    leg->size = sizeof *leg;
    if (pd_reader_u8(r) != LEG_VERSION)
        r->failed = true;
    leg->kind = pd_reader_u8(r);
    leg->request_id = pd_reader_str16(r, REQUEST_ID_MAX);
    leg->index = pd_reader_u32(r);
    leg->flags = pd_reader_u32(r);
    leg->model = pd_reader_str16(r, PD_API_NAME_MAX);
    leg->engine = pd_reader_str16(r, PD_API_NAME_MAX);
    leg->cache_salt = pd_reader_str16(r, PD_API_SALT_MAX);
    get_sampling(r, &leg->sampling);
    leg->max_output = pd_reader_u32(r);
    leg->priority = pd_reader_u32(r);
    leg->deadline_ms = pd_reader_u64(r);
    leg->decide = pd_reader_u8(r);
    leg->min_tokens = pd_reader_u64(r);
    leg->decide_reason = pd_reader_str16(r, REASON_MAX);
    leg->n_stops = pd_reader_u8(r);
    if (leg->n_stops > PD_API_MAX_STOPS ||
        (leg->kind != PD_API_CHAT && leg->kind != PD_API_COMPLETIONS) ||
        leg->decide < PD_DECIDE_LOCAL || leg->decide > PD_DECIDE_EXACT) {
        r->failed = true;
        return;
    }
    for (uint32_t i = 0; i < leg->n_stops; i++)
        leg->stops[i] = pd_reader_str16(r, PD_API_STOP_MAX);
    leg->n_prefills = pd_reader_u8(r);
    if (leg->n_prefills > PD_API_MAX_PREFILLS) {
        r->failed = true;
        return;
    }
    for (uint32_t i = 0; i < leg->n_prefills; i++) {
        get_node(r, &leg->prefills[i].node);
        leg->prefills[i].name = pd_reader_str16(r, PD_API_NAME_MAX);
        leg->prefills[i].address = pd_reader_str16(r, ADDRESS_MAX);
        leg->prefills[i].engine = pd_reader_str16(r, PD_API_NAME_MAX);
    }
    get_messages(r, arena, leg);
    leg->prompt.text = pd_reader_str32(r, PD_API_PROMPT_MAX);
    leg->prompt.tokens = get_tokens(r, arena, &leg->prompt.n_tokens);
    if (leg->prompt.n_tokens == 0)
        leg->prompt.tokens = NULL;
    leg->output = get_tokens(r, arena, &leg->n_output);
}

static struct decoded *decoded_create(struct pd_str bytes, struct pd_reader *r)
{
    struct decoded *d = pd_calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    pd_arena_init(&d->arena, 4096, 2 * (size_t)PD_API_SCRATCH_MAX + (64u << 10));
    void *copy = pd_arena_memdup(&d->arena, bytes.p, bytes.n);
    if (copy == NULL) {
        pd_arena_fini(&d->arena);
        pd_free(d);
        return NULL;
    }
    pd_reader_init(r, copy, bytes.n);
    return d;
}

void pd_api_message_free(struct pd_api *api, struct pd_api_message *message)
{
    (void)api;
    if (message == NULL)
        return;
    struct decoded *d = pd_container_of(message, struct decoded, message);
    pd_arena_fini(&d->arena);
    pd_free(d);
}

static pd_status decoded_finish(struct decoded *d, const struct pd_reader *r,
                                struct pd_api_message **out)
{
    pd_status status = pd_reader_finish(r);
    if (status != PD_OK) {
        pd_api_message_free(NULL, &d->message);
        return status;
    }
    *out = &d->message;
    return PD_OK;
}

pd_status pd_api_leg_decode(struct pd_api *api, struct pd_str bytes, struct pd_api_message **out)
{
    (void)api;
    struct pd_reader r;
    if (bytes.n == 0 || bytes.n > PD_API_SCRATCH_MAX)
        return PD_EPROTO;
    struct decoded *d = decoded_create(bytes, &r);
    if (d == NULL)
        return PD_ENOMEM;
    d->message.leg = &d->leg;
    get_leg(&r, &d->arena, &d->leg);
    return decoded_finish(d, &r, out);
}

pd_status pd_api_order_encode(struct pd_api *api, const struct pd_leg_order *order,
                              struct pd_str *out)
{
    struct pd_writer w;
    if (order->n_tokens > PD_API_TOKENS_MAX)
        return PD_EINVAL;
    size_t bound = FIXED_BYTES + SAMPLING_BYTES + order->request_id.n + order->engine.n +
                   order->cache_salt.n + (size_t)order->n_tokens * 4 + order->grant.n;
    pd_status status = pd_api_scratch_open(api, bound, &w);
    if (status != PD_OK)
        return status;
    pd_writer_u8(&w, ORDER_VERSION);
    pd_api_put_str16(&w, order->request_id, REQUEST_ID_MAX);
    pd_api_put_str16(&w, order->engine, PD_API_NAME_MAX);
    pd_api_put_str16(&w, order->cache_salt, PD_API_SALT_MAX);
    pd_writer_u32(&w, order->from);
    pd_writer_u32(&w, order->upto);
    pd_writer_u32(&w, order->n_output);
    pd_writer_u8(&w, (uint8_t)order->sample);
    pd_writer_u32(&w, order->priority);
    pd_writer_u64(&w, order->deadline_ms);
    put_sampling(&w, &order->sampling);
    put_tokens(&w, order->tokens, order->n_tokens);
    put_str32(&w, order->grant, GRANT_MAX);
    return pd_api_scratch_close(api, &w, out);
}

pd_status pd_api_order_decode(struct pd_api *api, struct pd_str bytes, struct pd_api_message **out)
{
    (void)api;
    struct pd_reader r;
    if (bytes.n == 0 || bytes.n > PD_API_SCRATCH_MAX)
        return PD_EPROTO;
    struct decoded *d = decoded_create(bytes, &r);
    if (d == NULL)
        return PD_ENOMEM;
    struct pd_leg_order *o = &d->order;
    d->message.order = o;
    o->size = sizeof *o;
    if (pd_reader_u8(&r) != ORDER_VERSION)
        r.failed = true;
    o->request_id = pd_reader_str16(&r, REQUEST_ID_MAX);
    o->engine = pd_reader_str16(&r, PD_API_NAME_MAX);
    o->cache_salt = pd_reader_str16(&r, PD_API_SALT_MAX);
    o->from = pd_reader_u32(&r);
    o->upto = pd_reader_u32(&r);
    o->n_output = pd_reader_u32(&r);
    o->sample = pd_reader_u8(&r);
    o->priority = pd_reader_u32(&r);
    o->deadline_ms = pd_reader_u64(&r);
    get_sampling(&r, &o->sampling);
    o->tokens = get_tokens(&r, &d->arena, &o->n_tokens);
    o->grant = pd_reader_str32(&r, GRANT_MAX);
    if (o->n_tokens == 0 || o->from >= o->upto || o->upto > o->n_tokens || o->sample > 1 ||
        o->n_output >= o->n_tokens ||
        (o->sample == 1 && o->upto != o->n_tokens))
        r.failed = true;
    return decoded_finish(d, &r, out);
}
