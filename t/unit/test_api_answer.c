/* SPDX-License-Identifier: Apache-2.0 */
/* Answers, streamed and whole: valid JSON with the members of OpenAI's API,
 * honest ends, and counts that add up. */
#include "unit.h"

#include <math.h>

#include "api/api.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

static struct pd_api *api;
static struct pd_api_request *req;
static struct pd_answer *answer;
static struct pd_json_value v[16];
static struct pd_str doc;          /* what v was read from */

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

static void begin(uint32_t kind, const char *body)
{
    static const struct pd_api_limits limits = {
        .size = sizeof limits, .max_choices = 8, .max_prompts = 8, .max_messages = 8, .max_output = 100,
    };
    struct pd_api_error e;
    assert_int_equal(pd_api_request_parse(api, kind, pd_str_from(body), &limits, &req, &e), PD_OK);
    assert_int_equal(pd_api_request_texts(api, req), PD_OK);
    assert_int_equal(pd_api_answer_create(api, req, PD_STR("id-\"1\""), PD_STR("tiny"), 1700000000, &answer), PD_OK);
}

static void end(void)
{
    pd_api_answer_destroy(api, answer);
    pd_api_request_free(api, req);
}

#define CHAT(more) "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"
#define STREAM ",\"stream\":true"
#define USAGE ",\"stream_options\":{\"include_usage\":true}"

/* Reads paths, separated by spaces, into v. */
static void read_json(struct pd_str json, const char *paths)
{
    char names[512];
    const char *list[16];
    size_t n = 0;
    struct pd_json_error e;
    snprintf(names, sizeof names, "%s", paths);
    for (char *p = strtok(names, " "); p != NULL; p = strtok(NULL, " "))
        list[n++] = p;
    doc = json;
    if (pd_json_scan(json, NULL, list, n, v, &e) != PD_OK) {
        print_error("%.*s: %s\n", PD_STR_ARG(json), e.text);
        fail();
    }
}

static uint64_t number(int i)
{
    uint64_t n = 0;
    if (pd_json_get_u64(&v[i], &n) != PD_OK) {
        print_error("%.*s: value %d is no count\n", PD_STR_ARG(doc), i);
        fail();
    }
    return n;
}

static bool text_is(int i, const char *s)
{
    return pd_json_is_str(&v[i], s);
}

/* Cuts one event off *events; false at the end. */
static bool next_event(struct pd_str *events, struct pd_str *data)
{
    if (events->n == 0)
        return false;
    size_t at = pd_str_find(*events, PD_STR("\n\n"));
    assert_true(at != PD_STR_NPOS && at > 6);
    assert_memory_equal(events->p, "data: ", 6);
    *data = (struct pd_str){ events->p + 6, at - 6 };
    assert_true(memchr(data->p, '\n', data->n) == NULL);
    *events = (struct pd_str){ events->p + at + 2, events->n - at - 2 };
    return true;
}

static struct pd_str token(uint32_t leg, const char *text, pd_status want)
{
    struct pd_leg_token t = { .text = pd_str_from(text), .bytes = pd_str_from(text) };
    struct pd_str out;
    assert_int_equal(pd_api_answer_token(answer, leg, &t, &out), want);
    return out;
}

static struct pd_str finish(uint32_t leg, uint32_t reason, const char *held, pd_status want)
{
    struct pd_leg_end e = { .reason = reason, .prompt_tokens = 10, .cached_tokens = 4, .output_tokens = 2,
                            .text = pd_str_from(held) };
    struct pd_str out;
    assert_int_equal(pd_api_answer_end(answer, leg, &e, &out), want);
    return out;
}

#define CHUNK "id object created model choices[].index choices[].delta.role choices[].delta.content " \
              "choices[].finish_reason choices[].logprobs usage choices"

static void check_chunk_head(void)
{
    assert_true(text_is(0, "id-\"1\"") && text_is(1, "chat.completion.chunk") && text_is(3, "tiny"));
    assert_int_equal(number(2), 1700000000);
}

static void test_chat_stream(void **state)
{
    (void)state;
    struct pd_str out, data;
    begin(PD_API_CHAT, CHAT(STREAM USAGE));
    out = token(0, "h\"\xc3\xa9\n", PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, CHUNK);
    check_chunk_head();
    assert_int_equal(number(4), 0);
    assert_true(text_is(5, "assistant") && text_is(6, ""));
    assert_true(v[7].type == PD_JSON_NULL && v[8].type == PD_JSON_NULL && v[9].type == PD_JSON_NULL);
    assert_true(next_event(&out, &data));
    read_json(data, CHUNK);
    check_chunk_head();
    assert_true(v[5].type == PD_JSON_NONE && text_is(6, "h\"\xc3\xa9\n"));
    assert_int_equal(v[7].type, PD_JSON_NULL);
    assert_false(next_event(&out, &data));
    /* A token without text yet is no event. */
    out = token(0, "", PD_OK);
    assert_int_equal(out.n, 0);
    out = finish(0, PD_FINISH_STOP, "held", PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, CHUNK);
    assert_true(text_is(6, "held") && v[7].type == PD_JSON_NULL);
    assert_true(next_event(&out, &data));
    read_json(data, CHUNK);
    assert_true(v[6].type == PD_JSON_NONE && text_is(7, "stop"));
    assert_false(next_event(&out, &data));
    assert_int_equal(pd_api_answer_done(answer, &out), PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, "choices usage.prompt_tokens usage.completion_tokens usage.total_tokens "
                    "usage.prompt_tokens_details.cached_tokens object");
    assert_true(v[0].type == PD_JSON_ARRAY && pd_json_count(&v[0]) == 0);
    assert_true(number(1) == 10 && number(2) == 2 && number(3) == 12 && number(4) == 4);
    assert_true(text_is(5, "chat.completion.chunk"));
    assert_true(next_event(&out, &data));
    assert_true(pd_str_is(data, "[DONE]"));
    assert_false(next_event(&out, &data));
    end();
}

/* Without include_usage no event has the member. */
static void test_no_usage(void **state)
{
    (void)state;
    struct pd_str out, data;
    begin(PD_API_CHAT, CHAT(STREAM));
    out = token(0, "a", PD_OK);
    while (next_event(&out, &data)) {
        read_json(data, CHUNK);
        assert_int_equal(v[9].type, PD_JSON_NONE);
    }
    finish(0, PD_FINISH_LENGTH, "", PD_OK);
    assert_int_equal(pd_api_answer_done(answer, &out), PD_OK);
    assert_true(pd_str_is(out, "data: [DONE]\n\n"));
    end();
}

/* Choices interleave, each with one role, one finish_reason. */
static void test_choices(void **state)
{
    (void)state;
    struct pd_str out, data;
    unsigned roles[3] = { 0 }, ends[3] = { 0 };
    begin(PD_API_CHAT, CHAT(STREAM USAGE ",\"n\":3"));
    for (int i = 0; i < 12; i++) {
        uint32_t leg = (uint32_t)(i % 3);
        out = i < 9 ? token(leg, "x", PD_OK) : finish(leg, PD_FINISH_LENGTH, "", PD_OK);
        while (next_event(&out, &data)) {
            read_json(data, CHUNK);
            assert_int_equal(number(4), leg);
            roles[leg] += v[5].type != PD_JSON_NONE;
            ends[leg] += text_is(7, "length");
        }
        if (i == 10)
            assert_int_equal(pd_api_answer_done(answer, &out), PD_EPROTO);
    }
    for (int i = 0; i < 3; i++)
        assert_true(roles[i] == 1 && ends[i] == 1);
    assert_int_equal(pd_api_answer_done(answer, &out), PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, "usage.prompt_tokens usage.completion_tokens usage.total_tokens");
    /* One prompt counts once. */
    assert_true(number(0) == 10 && number(1) == 6 && number(2) == 16);
    end();
}

static void test_honest_end(void **state)
{
    (void)state;
    struct pd_str out, data;
    struct pd_api_error e;
    pd_api_error_set(&e, 502, "server_error", "kv_integrity", "a block was altered");
    begin(PD_API_CHAT, CHAT(STREAM ",\"n\":2"));
    token(0, "a", PD_OK);
    assert_int_equal(pd_api_answer_done(answer, &out), PD_EPROTO);
    assert_int_equal(out.n, 0);
    /* A leg that failed has no finish_reason. */
    finish(0, PD_FINISH_ERROR, "", PD_EPROTO);
    finish(0, 0, "", PD_EPROTO);
    finish(0, PD_FINISH_STOP, "", PD_OK);
    /* Nothing after a leg's end, nothing for legs that do not exist. */
    token(0, "late", PD_EPROTO);
    finish(0, PD_FINISH_STOP, "", PD_EPROTO);
    token(2, "who", PD_EPROTO);
    finish(2, PD_FINISH_STOP, "", PD_EPROTO);
    assert_int_equal(pd_api_answer_error(answer, &e, &out), PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, "error.message error.type error.param error.code");
    assert_true(text_is(0, "a block was altered") && text_is(1, "server_error") && text_is(3, "kv_integrity"));
    assert_int_equal(v[2].type, PD_JSON_NULL);
    assert_false(next_event(&out, &data));
    /* Nothing after the error. */
    token(1, "late", PD_EPROTO);
    assert_int_equal(finish(1, PD_FINISH_STOP, "", PD_EPROTO).n, 0);
    assert_int_equal(pd_api_answer_done(answer, &out), PD_EPROTO);
    assert_int_equal(pd_api_answer_error(answer, &e, &out), PD_EPROTO);
    assert_int_equal(out.n, 0);
    end();
    /* Nothing after [DONE]. */
    begin(PD_API_CHAT, CHAT(STREAM));
    finish(0, PD_FINISH_STOP, "", PD_OK);
    assert_int_equal(pd_api_answer_done(answer, &out), PD_OK);
    assert_int_equal(pd_api_answer_done(answer, &out), PD_EPROTO);
    assert_int_equal(pd_api_answer_error(answer, &e, &out), PD_EPROTO);
    end();
}

static void test_chat_body(void **state)
{
    (void)state;
    struct pd_str out;
    begin(PD_API_CHAT, CHAT(",\"n\":2"));
    assert_int_equal(token(0, "one ", PD_OK).n, 0);
    token(1, "x", PD_OK);
    token(0, "t\"wo", PD_OK);
    assert_int_equal(pd_api_answer_body(answer, &out), PD_EPROTO);
    assert_int_equal(finish(0, PD_FINISH_STOP, " held", PD_OK).n, 0);
    finish(1, PD_FINISH_LENGTH, "", PD_OK);
    assert_int_equal(pd_api_answer_body(answer, &out), PD_OK);
    read_json(out, "id object created model choices usage.prompt_tokens usage.completion_tokens usage.total_tokens "
                   "usage.prompt_tokens_details.cached_tokens");
    assert_true(text_is(0, "id-\"1\"") && text_is(1, "chat.completion") && text_is(3, "tiny"));
    assert_true(number(2) == 1700000000 && number(5) == 10 && number(6) == 4 && number(7) == 14 && number(8) == 4);
    assert_int_equal(pd_json_count(&v[4]), 2);
    struct pd_json_iter it;
    struct pd_json_value item;
    pd_json_iter_init(&it, &v[4]);
    for (uint64_t i = 0; pd_json_iter_next(&it, NULL, &item); i++) {
        read_json(item.text, "index message.role message.content message.refusal finish_reason logprobs");
        assert_int_equal(number(0), i);
        assert_true(text_is(1, "assistant") && text_is(2, i == 0 ? "one t\"wo held" : "x"));
        assert_true(v[3].type == PD_JSON_NULL && v[5].type == PD_JSON_NULL);
        assert_true(text_is(4, i == 0 ? "stop" : "length"));
    }
    end();
}

static const struct pd_leg_top top[] = {
    { PD_STR("\xe2\x82"), 5, -0.5f }, { PD_STR("b"), 6, -INFINITY },
};
static const struct pd_leg_token scored = {
    .id = 5, .text = PD_STR(""), .bytes = PD_STR("\xe2\x82"), .has_logprob = 1, .logprob = -0.5f, .n_top = 2, .top = top,
};

static void check_chat_logprobs(struct pd_str choice, size_t n)
{
    read_json(choice, "logprobs.content logprobs.refusal logprobs.content[].token logprobs.content[].logprob "
                      "logprobs.content[].bytes logprobs.content[].top_logprobs "
                      "logprobs.content[].top_logprobs[].token logprobs.content[].top_logprobs[].logprob");
    double p;
    assert_int_equal(pd_json_count(&v[0]), n);
    assert_int_equal(v[1].type, PD_JSON_NULL);
    assert_true(text_is(2, "\xef\xbf\xbd\xef\xbf\xbd") || text_is(2, "\xef\xbf\xbd"));
    assert_int_equal(pd_json_get_double(&v[3], &p), PD_OK);
    assert_true(p == -0.5);
    assert_true(pd_str_is(v[4].text, "[226,130]"));
    assert_int_equal(pd_json_count(&v[5]), 2);
    assert_non_null(strstr(v[5].text.p, "-9999"));
}

static void test_chat_logprobs(void **state)
{
    (void)state;
    struct pd_str out, data;
    struct pd_json_iter it;
    struct pd_json_value item;
    begin(PD_API_CHAT, CHAT(STREAM ",\"logprobs\":true,\"top_logprobs\":2"));
    assert_int_equal(pd_api_answer_token(answer, 0, &scored, &out), PD_OK);
    assert_true(next_event(&out, &data));
    assert_true(next_event(&out, &data));
    read_json(data, "choices");
    pd_json_iter_init(&it, &v[0]);
    assert_true(pd_json_iter_next(&it, NULL, &item));
    check_chat_logprobs(item.text, 1);
    end();
    begin(PD_API_CHAT, CHAT(",\"logprobs\":true,\"top_logprobs\":2"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pd_api_answer_token(answer, 0, &scored, &out), PD_OK);
    finish(0, PD_FINISH_STOP, "", PD_OK);
    assert_int_equal(pd_api_answer_body(answer, &out), PD_OK);
    read_json(out, "choices");
    pd_json_iter_init(&it, &v[0]);
    assert_true(pd_json_iter_next(&it, NULL, &item));
    check_chat_logprobs(item.text, 3);
    end();
}

static void test_completions(void **state)
{
    (void)state;
    static const char body[] = "{\"model\":\"tiny\",\"prompt\":[\"caf\xc3\xa9\",\"b\"],\"echo\":true%s}";
    char text[256];
    struct pd_str out, data;
    struct pd_json_iter it;
    struct pd_json_value item;
    /* Two prompts, whole. */
    snprintf(text, sizeof text, body, "");
    begin(PD_API_COMPLETIONS, text);
    token(0, " one", PD_OK);
    token(1, " two", PD_OK);
    finish(1, PD_FINISH_STOP, "", PD_OK);
    finish(0, PD_FINISH_LENGTH, "", PD_OK);
    assert_int_equal(pd_api_answer_body(answer, &out), PD_OK);
    read_json(out, "object choices usage.prompt_tokens usage.completion_tokens "
                   "usage.prompt_tokens_details.cached_tokens id");
    assert_true(text_is(0, "text_completion") && number(2) == 20 && number(3) == 4 && number(4) == 8);
    pd_json_iter_init(&it, &v[1]);
    for (uint64_t i = 0; pd_json_iter_next(&it, NULL, &item); i++) {
        read_json(item.text, "index text finish_reason logprobs");
        assert_int_equal(number(0), i);
        assert_true(text_is(1, i == 0 ? "caf\xc3\xa9 one" : "b two") && text_is(2, i == 0 ? "length" : "stop"));
        assert_int_equal(v[3].type, PD_JSON_NULL);
    }
    end();
    /* The same streamed: the prompt is the first event of its choice. */
    snprintf(text, sizeof text, body, STREAM);
    begin(PD_API_COMPLETIONS, text);
    out = token(0, " one", PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, "object choices[].text choices[].index choices[].finish_reason choices[].logprobs");
    assert_true(text_is(0, "text_completion") && text_is(1, "caf\xc3\xa9") && number(2) == 0);
    assert_true(v[3].type == PD_JSON_NULL && v[4].type == PD_JSON_NULL);
    assert_true(next_event(&out, &data));
    read_json(data, "choices[].text");
    assert_true(text_is(0, " one"));
    out = finish(0, PD_FINISH_STOP, "", PD_OK);
    assert_true(next_event(&out, &data));
    read_json(data, "choices[].text choices[].finish_reason");
    assert_true(text_is(0, "") && text_is(1, "stop"));
    end();
}

static void test_completions_logprobs(void **state)
{
    (void)state;
    struct pd_str out, data;
    static const char *const paths = "choices[].logprobs.tokens choices[].logprobs.token_logprobs "
                                     "choices[].logprobs.top_logprobs choices[].logprobs.text_offset";
    struct pd_leg_token t = { .text = PD_STR("\xc3\xa9" "a"), .bytes = PD_STR("\xc3\xa9" "a"), .has_logprob = 1,
                              .logprob = -1, .n_top = 2, .top = top };
    begin(PD_API_COMPLETIONS, "{\"model\":\"tiny\",\"prompt\":\"p\",\"logprobs\":2}");
    for (int i = 0; i < 3; i++)
        assert_int_equal(pd_api_answer_token(answer, 0, &t, &out), PD_OK);
    finish(0, PD_FINISH_STOP, "", PD_OK);
    assert_int_equal(pd_api_answer_body(answer, &out), PD_OK);
    read_json(out, paths);
    assert_true(pd_json_count(&v[0]) == 3 && pd_json_count(&v[2]) == 3);
    assert_true(pd_str_is(v[1].text, "[-1,-1,-1]") && pd_str_is(v[3].text, "[0,2,4]"));
    end();
    begin(PD_API_COMPLETIONS, "{\"model\":\"tiny\",\"prompt\":\"p\",\"logprobs\":2" STREAM "}");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pd_api_answer_token(answer, 0, &t, &out), PD_OK);
        assert_true(next_event(&out, &data));
        read_json(data, paths);
        assert_true(pd_json_count(&v[0]) == 1 && pd_json_count(&v[2]) == 1);
        char offset[8];
        snprintf(offset, sizeof offset, "[%d]", 2 * i);
        assert_true(pd_str_is(v[3].text, offset));
    }
    end();
}

static void test_no_memory(void **state)
{
    (void)state;
    struct pd_api_error e;
    static const struct pd_api_limits limits = {
        .size = sizeof limits, .max_choices = 1, .max_prompts = 1, .max_messages = 8, .max_output = 100,
    };
    assert_int_equal(pd_api_request_parse(api, PD_API_CHAT, PD_STR(CHAT("")), &limits, &req, &e), PD_OK);
    bool whole = false;
    for (uint64_t n = 1; !whole; n++) {
        struct pd_str out;
        struct pd_leg_end fin = { .reason = PD_FINISH_STOP };
        assert_true(n < 30);
        pd_mem_fault_set(n);
        pd_status status = pd_api_answer_create(api, req, PD_STR("i"), PD_STR("m"), 1, &answer);
        if (status == PD_OK) {
            pd_status a = pd_api_answer_token(answer, 0, &scored, &out);
            pd_status b = pd_api_answer_end(answer, 0, &fin, &out);
            pd_status c = a != PD_OK || b != PD_OK ? PD_ENOMEM : pd_api_answer_body(answer, &out);
            whole = c == PD_OK;
            pd_api_answer_destroy(api, answer);
        }
        pd_mem_fault_set(0);
    }
    pd_api_request_free(api, req);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_stream), cmocka_unit_test(test_no_usage), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_honest_end), cmocka_unit_test(test_chat_body), cmocka_unit_test(test_chat_logprobs),
        cmocka_unit_test(test_completions), cmocka_unit_test(test_completions_logprobs),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
