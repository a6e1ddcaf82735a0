/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between nodes: what goes in comes out, every cut and many damaged
 * forms are an error or a struct within its limits, and nothing is sent that
 * the other side would refuse. */
#include "unit.h"

#include <math.h>

#include <pdplane/scheduler.h>

#include "api/api.h"
#include "base/mem.h"
#include "base/str.h"

static struct pd_api *api;

static int setup(void **state)
{
    (void)state;
    return pd_api_create(&api) == PD_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pd_api_destroy(api);
    return 0;
}

static uint64_t rng = 0x9e3779b97f4a7c15u;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static bool same(struct pd_str a, struct pd_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* A copy outside the scratch memory, of its exact size so that a sanitizer
 * sees a read behind it. */
static struct pd_str copy(struct pd_str s)
{
    char *p = pd_memdup(s.p, s.n);
    assert_non_null(p);
    return (struct pd_str){ p, s.n };
}

static const struct pd_sampling sampling = {
    .size = sizeof sampling, .top_k = 40, .temperature = 0.7, .top_p = 0.9, .min_p = 0.05,
    .frequency_penalty = -0.5, .presence_penalty = 1.5, .seed = 0xfedcba9876543210u, .logprobs = 20,
    .want_logprob = 1,
};
static const int32_t tokens[] = { 1, 0, INT32_MAX, 7 };
static const struct pd_message messages[] = {
    { PD_STR("system"), PD_STR("be brief") }, { PD_STR("user"), PD_STR("") },
    { PD_STR("user"), PD_STR("caf\xc3\xa9") },
};

static struct pd_leg a_leg(void)
{
    struct pd_leg leg = {
        .size = sizeof leg, .kind = PD_API_CHAT, .request_id = PD_STR("req-1"), .index = 3,
        .model = PD_STR("tiny"), .engine = PD_STR("e0"), .cache_salt = PD_STR("salt"), .sampling = sampling,
        .max_output = 160, .priority = 2, .deadline_ms = 600000, .n_stops = 2, .n_messages = 3,
        .stops = { PD_STR("\n\n"), PD_STR("END") }, .messages = messages,
        .prompt = { .text = PD_STR("raw"), .tokens = tokens, .n_tokens = 4 },
        .decide = PD_DECIDE_EXACT, .n_prefills = 2, .min_tokens = (uint64_t)1 << 40,
        .decide_reason = PD_STR("exact"),
        .prefills = { { .name = PD_STR("p0"), .address = PD_STR("[::1]:7001"), .engine = PD_STR("x") },
                      { .name = PD_STR("p1"), .address = PD_STR("127.0.0.1:7002"), .engine = PD_STR("y") } },
    };
    leg.prefills[0].node.uuid.b[0] = 0xab;
    leg.prefills[0].node.epoch = 0x1122334455667788u;
    leg.prefills[1].node.uuid.b[15] = 0xcd;
    return leg;
}

static struct pd_leg_order an_order(void)
{
    return (struct pd_leg_order){
        .size = sizeof(struct pd_leg_order), .upto = 4, .request_id = PD_STR("req-1/3"),
        .engine = PD_STR("e1"), .cache_salt = PD_STR(""), .tokens = tokens, .n_tokens = 4, .from = 1,
        .sample = 1, .priority = 9, .deadline_ms = 5, .sampling = sampling, .grant = PD_STR("\0grant\xff"),
    };
}

static void check_sampling(const struct pd_sampling *s)
{
    assert_int_equal(s->size, sizeof *s);
    assert_int_equal(s->top_k, sampling.top_k);
    assert_true(s->temperature == sampling.temperature && s->top_p == sampling.top_p);
    assert_true(s->min_p == sampling.min_p && s->frequency_penalty == sampling.frequency_penalty);
    assert_true(s->presence_penalty == sampling.presence_penalty && s->seed == sampling.seed);
    assert_int_equal(s->logprobs, sampling.logprobs);
    assert_int_equal(s->want_logprob, 1);
}

static void test_leg(void **state)
{
    (void)state;
    struct pd_leg in = a_leg();
    struct pd_str wire;
    struct pd_api_message *m;
    assert_int_equal(pd_api_leg_encode(api, &in, &wire), PD_OK);
    assert_int_equal(pd_api_leg_decode(api, wire, &m), PD_OK);
    /* The message keeps a copy: the scratch memory may be used again. */
    struct pd_leg_started other = { .reason = PD_STR("something else") };
    assert_int_equal(pd_api_started_encode(api, &other, &wire), PD_OK);
    const struct pd_leg *out = m->leg;
    assert_non_null(out);
    assert_null(m->order);
    assert_int_equal(out->kind, in.kind);
    assert_true(same(out->request_id, in.request_id) && same(out->model, in.model));
    assert_true(same(out->engine, in.engine) && same(out->cache_salt, in.cache_salt));
    assert_int_equal(out->index, 3);
    check_sampling(&out->sampling);
    assert_int_equal(out->max_output, 160);
    assert_int_equal(out->priority, 2);
    assert_int_equal(out->deadline_ms, 600000);
    assert_int_equal(out->n_stops, 2);
    assert_true(same(out->stops[0], in.stops[0]) && same(out->stops[1], in.stops[1]));
    assert_int_equal(out->n_messages, 3);
    for (int i = 0; i < 3; i++)
        assert_true(same(out->messages[i].role, messages[i].role) &&
                    same(out->messages[i].content, messages[i].content));
    assert_true(same(out->prompt.text, in.prompt.text));
    assert_int_equal(out->prompt.n_tokens, 4);
    assert_memory_equal(out->prompt.tokens, tokens, sizeof tokens);
    assert_int_equal(out->decide, PD_DECIDE_EXACT);
    assert_true(out->min_tokens == (uint64_t)1 << 40);
    assert_true(same(out->decide_reason, in.decide_reason));
    assert_int_equal(out->n_prefills, 2);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(&out->prefills[i].node, &in.prefills[i].node, sizeof in.prefills[i].node);
        assert_true(same(out->prefills[i].name, in.prefills[i].name) &&
                    same(out->prefills[i].address, in.prefills[i].address) &&
                    same(out->prefills[i].engine, in.prefills[i].engine));
    }
    pd_api_message_free(api, m);
    pd_api_message_free(api, NULL);
}

static void test_order(void **state)
{
    (void)state;
    struct pd_leg_order in = an_order();
    struct pd_str wire;
    struct pd_api_message *m;
    assert_int_equal(pd_api_order_encode(api, &in, &wire), PD_OK);
    assert_int_equal(pd_api_order_decode(api, wire, &m), PD_OK);
    const struct pd_leg_order *out = m->order;
    assert_non_null(out);
    assert_null(m->leg);
    assert_true(same(out->request_id, in.request_id) && same(out->engine, in.engine));
    assert_true(same(out->cache_salt, in.cache_salt) && same(out->grant, in.grant));
    assert_int_equal(out->from, 1);
    assert_int_equal(out->upto, 4);
    assert_int_equal(out->sample, 1);
    assert_int_equal(out->priority, 9);
    assert_int_equal(out->deadline_ms, 5);
    check_sampling(&out->sampling);
    assert_int_equal(out->n_tokens, 4);
    assert_memory_equal(out->tokens, tokens, sizeof tokens);
    pd_api_message_free(api, m);
}

static void test_events(void **state)
{
    (void)state;
    struct pd_str wire;
    struct pd_leg_started s = { .prompt_tokens = 9, .cached_tokens = 4, .remote = 1, .reason = PD_STR("why"),
                                .prefill = PD_STR("p0") }, s2;
    assert_int_equal(pd_api_started_encode(api, &s, &wire), PD_OK);
    assert_int_equal(pd_api_started_decode(api, wire, &s2), PD_OK);
    assert_true(s2.prompt_tokens == 9 && s2.cached_tokens == 4 && s2.remote == 1);
    assert_true(same(s2.reason, s.reason) && same(s2.prefill, s.prefill));

    struct pd_leg_handover h = { .verdict = 1, .blocks = 12, .bytes = (uint64_t)1 << 33, .prefill_ns = 5,
                                 .transfer_ns = 6, .tokens = 7, .cached_tokens = 8,
                                 .transport = PD_STR("shm"), .prefill = PD_STR("p0"), .detail = PD_STR("") }, h2;
    assert_int_equal(pd_api_handover_encode(api, &h, &wire), PD_OK);
    assert_int_equal(pd_api_handover_decode(api, wire, &h2), PD_OK);
    assert_true(h2.verdict == 1 && h2.blocks == 12 && h2.bytes == h.bytes && h2.prefill_ns == 5);
    assert_true(h2.transfer_ns == 6 && h2.tokens == 7 && h2.cached_tokens == 8);
    assert_true(same(h2.transport, h.transport) && same(h2.prefill, h.prefill) && h2.detail.n == 0);

    static const struct pd_leg_top top[] = { { PD_STR("a"), 5, -0.5f }, { PD_STR("\xe2\x82"), 6, -INFINITY } };
    struct pd_leg_token t = { .id = 5, .index = 77, .text = PD_STR("\xc3\xa9"), .bytes = PD_STR("\xa9"),
                              .has_logprob = 1, .logprob = -0.25f, .n_top = 2, .top = top }, t2;
    assert_int_equal(pd_api_token_encode(api, &t, &wire), PD_OK);
    assert_int_equal(pd_api_token_decode(api, wire, &t2), PD_OK);
    assert_true(t2.id == 5 && t2.index == 77 && t2.has_logprob == 1 && t2.logprob == -0.25f && t2.n_top == 2);
    assert_true(same(t2.text, t.text) && same(t2.bytes, t.bytes));
    assert_true(t2.top[1].token == 6 && t2.top[1].logprob == -INFINITY && same(t2.top[1].bytes, top[1].bytes));

    struct pd_leg_end e = { .reason = PD_FINISH_LENGTH, .prompt_tokens = 1, .cached_tokens = 2,
                            .output_tokens = 3, .text = PD_STR("held") }, e2;
    assert_int_equal(pd_api_end_encode(api, &e, &wire), PD_OK);
    assert_int_equal(pd_api_end_decode(api, wire, &e2), PD_OK);
    assert_true(e2.reason == PD_FINISH_LENGTH && e2.prompt_tokens == 1 && e2.cached_tokens == 2);
    assert_true(e2.output_tokens == 3 && same(e2.text, e.text) && e2.error.http == 0);

    e.reason = PD_FINISH_ERROR;
    pd_api_error_set(&e.error, 400, "invalid_request_error", "context_length_exceeded", "%0300d", 1);
    snprintf(e.error.param, sizeof e.error.param, "messages");
    e.error.retry_after_ms = 250;
    e.error.no_retry = 1;
    assert_int_equal(pd_api_end_encode(api, &e, &wire), PD_OK);
    assert_int_equal(pd_api_end_decode(api, wire, &e2), PD_OK);
    assert_int_equal(e2.error.http, 400);
    assert_string_equal(e2.error.type, "invalid_request_error");
    assert_string_equal(e2.error.code, "context_length_exceeded");
    assert_string_equal(e2.error.param, "messages");
    assert_string_equal(e2.error.message, e.error.message);
    assert_true(e2.error.retry_after_ms == 250 && e2.error.no_retry == 1);
}

/* Looks at everything that a decoded struct points to. */
static uint64_t touched;

static void touch(struct pd_str s)
{
    for (size_t i = 0; i < s.n; i++)
        touched += (unsigned char)s.p[i];
}

static void check_limits(const struct pd_api_message *m)
{
    if (m->leg != NULL) {
        const struct pd_leg *l = m->leg;
        assert_true(l->kind == PD_API_CHAT || l->kind == PD_API_COMPLETIONS);
        assert_true(l->n_stops <= PD_API_MAX_STOPS && l->n_prefills <= PD_API_MAX_PREFILLS);
        assert_true(l->request_id.n <= 64 && l->model.n <= PD_API_NAME_MAX);
        assert_true(l->sampling.temperature >= 0 && l->sampling.logprobs <= PD_API_MAX_TOP);
        touch(l->request_id), touch(l->model), touch(l->engine), touch(l->cache_salt), touch(l->decide_reason);
        touch(l->prompt.text);
        for (uint32_t i = 0; i < l->n_stops; i++)
            touch(l->stops[i]);
        for (uint32_t i = 0; i < l->n_messages; i++)
            touch(l->messages[i].role), touch(l->messages[i].content);
        for (uint32_t i = 0; i < l->n_prefills; i++)
            touch(l->prefills[i].name), touch(l->prefills[i].address), touch(l->prefills[i].engine);
        for (uint32_t i = 0; i < l->prompt.n_tokens; i++)
            assert_true(l->prompt.tokens[i] >= 0);
    } else {
        const struct pd_leg_order *o = m->order;
        assert_true(o->from < o->upto && o->upto <= o->n_tokens && o->sample <= 1);
        assert_true(o->sample == 0 || o->upto == o->n_tokens);
        touch(o->request_id), touch(o->engine), touch(o->cache_salt), touch(o->grant);
        for (uint32_t i = 0; i < o->n_tokens; i++)
            assert_true(o->tokens[i] >= 0);
    }
}

enum { LEG, ORDER, STARTED, HANDOVER, TOKEN, END, KINDS };

static struct pd_str encode(int kind)
{
    struct pd_leg leg = a_leg();
    struct pd_leg_order order = an_order();
    static const struct pd_leg_top top[] = { { PD_STR("a"), 5, -0.5f }, { PD_STR("bc"), 6, -1.5f } };
    struct pd_leg_started s = { .prompt_tokens = 9, .remote = 1, .reason = PD_STR("why"), .prefill = PD_STR("p") };
    struct pd_leg_handover h = { .verdict = 1, .transport = PD_STR("shm"), .prefill = PD_STR("p"),
                                 .detail = PD_STR("fine") };
    struct pd_leg_token t = { .id = 5, .text = PD_STR("hello"), .bytes = PD_STR("lo"), .has_logprob = 1,
                              .n_top = 2, .top = top };
    struct pd_leg_end e = { .reason = PD_FINISH_ERROR, .text = PD_STR("held") };
    struct pd_str out = { NULL, 0 };
    pd_status status = PD_EINVAL;
    pd_api_error_set(&e.error, 502, "server_error", "kv_integrity", "a block was altered");
    switch (kind) {
    case LEG: status = pd_api_leg_encode(api, &leg, &out); break;
    case ORDER: status = pd_api_order_encode(api, &order, &out); break;
    case STARTED: status = pd_api_started_encode(api, &s, &out); break;
    case HANDOVER: status = pd_api_handover_encode(api, &h, &out); break;
    case TOKEN: status = pd_api_token_encode(api, &t, &out); break;
    case END: status = pd_api_end_encode(api, &e, &out); break;
    }
    assert_int_equal(status, PD_OK);
    return copy(out);
}

static pd_status decode(int kind, struct pd_str bytes)
{
    struct pd_api_message *m = NULL;
    struct pd_leg_started s;
    struct pd_leg_handover h;
    struct pd_leg_token t;
    struct pd_leg_end e;
    pd_status status = PD_EINVAL;
    switch (kind) {
    case LEG: status = pd_api_leg_decode(api, bytes, &m); break;
    case ORDER: status = pd_api_order_decode(api, bytes, &m); break;
    case STARTED:
        if ((status = pd_api_started_decode(api, bytes, &s)) == PD_OK)
            touch(s.reason), touch(s.prefill);
        break;
    case HANDOVER:
        if ((status = pd_api_handover_decode(api, bytes, &h)) == PD_OK)
            touch(h.transport), touch(h.prefill), touch(h.detail);
        break;
    case TOKEN:
        if ((status = pd_api_token_decode(api, bytes, &t)) == PD_OK) {
            assert_true(t.n_top <= PD_API_MAX_TOP);
            touch(t.text), touch(t.bytes);
            for (uint32_t i = 0; i < t.n_top; i++)
                touch(t.top[i].bytes);
        }
        break;
    case END:
        if ((status = pd_api_end_decode(api, bytes, &e)) == PD_OK) {
            assert_true(e.reason >= PD_FINISH_STOP && e.reason <= PD_FINISH_ERROR);
            assert_non_null(e.error.type);
            assert_true(memchr(e.error.message, 0, sizeof e.error.message) != NULL);
            touch(e.text);
        }
        break;
    }
    if (m != NULL) {
        check_limits(m);
        pd_api_message_free(api, m);
    }
    assert_true(status == PD_OK || status == PD_EPROTO);
    return status;
}

static void test_cut(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct pd_str whole = encode(kind);
        assert_int_equal(decode(kind, whole), PD_OK);
        for (size_t n = 0; n < whole.n; n++) {
            struct pd_str part = n > 0 ? copy((struct pd_str){ whole.p, n }) : (struct pd_str){ NULL, 0 };
            assert_int_equal(decode(kind, part), PD_EPROTO);
            pd_free((void *)(uintptr_t)part.p);
        }
        /* One byte too many. */
        char *more = pd_alloc(whole.n + 1);
        assert_non_null(more);
        memcpy(more, whole.p, whole.n);
        more[whole.n] = 0;
        assert_int_equal(decode(kind, (struct pd_str){ more, whole.n + 1 }), PD_EPROTO);
        pd_free(more);
        pd_free((void *)(uintptr_t)whole.p);
    }
}

static void test_damaged(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct pd_str whole = encode(kind);
        char *bytes = pd_alloc(whole.n);
        assert_non_null(bytes);
        /* Every byte with the values that matter most, then at random. */
        for (size_t i = 0; i < whole.n; i++) {
            static const unsigned char values[] = { 0, 1, 0x7f, 0x80, 0xff };
            for (size_t v = 0; v < sizeof values; v++) {
                memcpy(bytes, whole.p, whole.n);
                bytes[i] = (char)values[v];
                decode(kind, (struct pd_str){ bytes, whole.n });
            }
        }
        for (int round = 0; round < 10000; round++) {
            memcpy(bytes, whole.p, whole.n);
            for (uint64_t k = 1 + next() % 4; k > 0; k--)
                bytes[next() % whole.n] ^= (char)(1 + next() % 255);
            decode(kind, (struct pd_str){ bytes, 1 + next() % whole.n });
            decode(kind, (struct pd_str){ bytes, whole.n });
        }
        for (int round = 0; round < 2000; round++) {
            for (size_t i = 0; i < whole.n; i++)
                bytes[i] = (char)next();
            decode(kind, (struct pd_str){ bytes, whole.n });
        }
        pd_free(bytes);
        pd_free((void *)(uintptr_t)whole.p);
    }
}

/* What one side sends at its limits the other side takes; more is not sent. */
static void test_limits(void **state)
{
    (void)state;
    static char big[8192];
    memset(big, 'a', sizeof big);
    static const struct {
        size_t at, max;
    } names[] = {
        { offsetof(struct pd_leg, request_id), 64 }, { offsetof(struct pd_leg, model), PD_API_NAME_MAX },
        { offsetof(struct pd_leg, engine), PD_API_NAME_MAX }, { offsetof(struct pd_leg, cache_salt), PD_API_SALT_MAX },
        { offsetof(struct pd_leg, stops[0]), PD_API_STOP_MAX }, { offsetof(struct pd_leg, decide_reason), 256 },
        { offsetof(struct pd_leg, prefills[0].name), PD_API_NAME_MAX },
        { offsetof(struct pd_leg, prefills[0].address), 256 },
    };
    struct pd_str wire;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct pd_leg leg = a_leg();
        *(struct pd_str *)(void *)((char *)&leg + names[i].at) = (struct pd_str){ big, names[i].max };
        assert_int_equal(pd_api_leg_encode(api, &leg, &wire), PD_OK);
        wire = copy(wire);
        assert_int_equal(decode(LEG, wire), PD_OK);
        pd_free((void *)(uintptr_t)wire.p);
        *(struct pd_str *)(void *)((char *)&leg + names[i].at) = (struct pd_str){ big, names[i].max + 1 };
        assert_int_equal(pd_api_leg_encode(api, &leg, &wire), PD_ELIMIT);
    }
    struct pd_leg leg = a_leg();
    leg.n_stops = PD_API_MAX_STOPS + 1;
    assert_int_equal(pd_api_leg_encode(api, &leg, &wire), PD_EINVAL);
    leg = a_leg();
    leg.n_prefills = PD_API_MAX_PREFILLS + 1;
    assert_int_equal(pd_api_leg_encode(api, &leg, &wire), PD_EINVAL);

    /* Sentences are cut, at a character. */
    struct pd_leg_started s = { .reason = { big, 300 } }, s2;
    memcpy(big + 255, "\xc3\xa9", 2);
    assert_int_equal(pd_api_started_encode(api, &s, &wire), PD_OK);
    assert_int_equal(pd_api_started_decode(api, wire, &s2), PD_OK);
    assert_int_equal(s2.reason.n, 255);
    struct pd_leg_handover h = { .detail = { big, 300 } }, h2;
    assert_int_equal(pd_api_handover_encode(api, &h, &wire), PD_OK);
    assert_int_equal(pd_api_handover_decode(api, wire, &h2), PD_OK);
    assert_int_equal(h2.detail.n, 255);
    struct pd_leg_token t = { .bytes = { big, 4097 } };
    assert_int_equal(pd_api_token_encode(api, &t, &wire), PD_ELIMIT);
    t = (struct pd_leg_token){ .n_top = PD_API_MAX_TOP + 1 };
    assert_int_equal(pd_api_token_encode(api, &t, &wire), PD_EINVAL);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct pd_str wire = encode(LEG);
    struct pd_api_message *m;
    uint64_t n = 0;
    for (pd_status status = PD_ENOMEM; status != PD_OK; ) {
        pd_mem_fault_set(++n);
        status = pd_api_leg_decode(api, wire, &m);
        pd_mem_fault_set(0);
        assert_true(n < 20);
        assert_true(status == PD_OK || status == PD_ENOMEM);
    }
    assert_true(n > 1);
    pd_api_message_free(api, m);
    pd_free((void *)(uintptr_t)wire.p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leg), cmocka_unit_test(test_order), cmocka_unit_test(test_events),
        cmocka_unit_test(test_cut), cmocka_unit_test(test_damaged), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
