/* SPDX-License-Identifier: Apache-2.0 */
/* Request bodies: every parameter, every refusal, and what reaches a server
 * behind an adapter. */
#include "unit.h"

#include <stdarg.h>

#include "api/api.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT(more) "{\"model\":\"tiny\"," HI more "}"
#define COMP(more) "{\"model\":\"tiny\",\"prompt\":\"once\"" more "}"

static const struct pd_api_limits limits = {
    .size = sizeof limits, .max_choices = 8, .max_prompts = 4, .max_messages = 3, .max_output = 1000,
};

static struct pd_api *api;
static struct pd_api_request *req;

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

static struct pd_api_request *parse(uint32_t kind, const char *body)
{
    struct pd_api_error e;
    memset(&e, 0, sizeof e);
    if (pd_api_request_parse(api, kind, pd_str_from(body), &limits, &req, &e) != PD_OK) {
        print_error("%s: %s (%s)\n", body, e.message, e.param);
        fail();
    }
    assert_int_equal(pd_api_request_texts(api, req), PD_OK);
    return req;
}

static void drop(void)
{
    pd_api_request_free(api, req);
    req = NULL;
}

static void test_defaults(void **state)
{
    (void)state;
    struct pd_api_request *r = parse(PD_API_CHAT, CHAT(""));
    assert_int_equal(r->kind, PD_API_CHAT);
    assert_true(pd_str_is(r->model, "tiny"));
    assert_int_equal(r->n_messages, 1);
    assert_true(pd_str_is(r->messages[0].role, "user"));
    assert_true(pd_str_is(r->messages[0].content, "hi"));
    assert_true(pd_str_is(r->prompt_json, "[{\"role\":\"user\",\"content\":\"hi\"}]"));
    assert_int_equal(r->n_prompts, 1);
    assert_int_equal(r->n_choices, 1);
    assert_int_equal(r->n_legs, 1);
    assert_int_equal(r->stream, 0);
    assert_int_equal(r->include_usage, 0);
    assert_int_equal(r->has_seed, 0);
    assert_int_equal(r->max_output, 0);
    assert_int_equal(r->n_stops, 0);
    assert_int_equal(r->sampling.size, sizeof r->sampling);
    assert_true(r->sampling.temperature == 1 && r->sampling.top_p == 1 && r->sampling.min_p == 0);
    assert_int_equal(r->sampling.want_logprob, 0);
    assert_int_equal(r->unsupported.http, 0);
    drop();
    r = parse(PD_API_COMPLETIONS, COMP(""));
    assert_int_equal(r->max_output, 16);
    assert_true(pd_str_is(r->prompts[0].text, "once"));
    assert_null(r->prompts[0].tokens);
    drop();
}

static void test_chat_parameters(void **state)
{
    (void)state;
    struct pd_api_request *r = parse(PD_API_CHAT, CHAT(
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\":3,\"max_tokens\":7,"
        "\"temperature\":0.5,\"top_p\":0.25,\"top_k\":40,\"min_p\":0.125,\"seed\":-9007199254740993,"
        "\"stop\":[\"a\",\"\\u00e9\\n\"],\"logprobs\":true,\"top_logprobs\":5,\"user\":\"u\","
        "\"prompt_cache_key\":\"k\",\"cache_salt\":\"s\",\"frequency_penalty\":-1.5,"
        "\"presence_penalty\":2,\"priority\":3"));
    assert_int_equal(r->stream, 1);
    assert_int_equal(r->include_usage, 1);
    assert_int_equal(r->n_choices, 3);
    assert_int_equal(r->n_legs, 3);
    assert_int_equal(r->max_output, 7);
    assert_true(r->sampling.temperature == 0.5 && r->sampling.top_p == 0.25);
    assert_true(r->sampling.min_p == 0.125 && r->sampling.top_k == 40);
    assert_true(r->sampling.frequency_penalty == -1.5 && r->sampling.presence_penalty == 2);
    assert_int_equal(r->has_seed, 1);
    assert_true(r->sampling.seed == (uint64_t)-9007199254740993);
    assert_int_equal(r->n_stops, 2);
    assert_true(pd_str_is(r->stops[0], "a") && pd_str_is(r->stops[1], "\xc3\xa9\n"));
    assert_int_equal(r->sampling.want_logprob, 1);
    assert_int_equal(r->sampling.logprobs, 5);
    assert_true(pd_str_is(r->user, "u") && pd_str_is(r->session, "k") && pd_str_is(r->cache_salt, "s"));
    assert_int_equal(r->priority, 3);
    assert_int_equal(r->unsupported.http, 0);
    drop();
    /* The newer name wins; null is not given. */
    r = parse(PD_API_CHAT, CHAT(",\"max_tokens\":7,\"max_completion_tokens\":9,\"stop\":null,\"n\":null,"
                                "\"temperature\":null,\"stream_options\":null,\"seed\":9223372036854775807"));
    assert_int_equal(r->max_output, 9);
    assert_int_equal(r->n_choices, 1);
    assert_true(r->sampling.temperature == 1);
    assert_true(r->sampling.seed == INT64_MAX);
    drop();
    r = parse(PD_API_CHAT, CHAT(",\"stop\":\"end\",\"top_k\":-1,\"priority\":-5"));
    assert_int_equal(r->n_stops, 1);
    assert_int_equal(r->sampling.top_k, 0);
    assert_int_equal(r->priority, 0);
    drop();
}

static void test_messages(void **state)
{
    (void)state;
    struct pd_api_request *r = parse(PD_API_CHAT,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\\t\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]},{\"content\":null,\"role\":\"assistant\"},"
        "{\"role\":\"user\",\"content\":\"\\ud83d\\ude00\",\"name\":\"x\"}]}");
    assert_int_equal(r->n_messages, 3);
    assert_true(pd_str_is(r->messages[0].role, "system"));
    assert_true(pd_str_is(r->messages[0].content, "a\tb"));
    assert_int_equal(r->messages[1].content.n, 0);
    assert_true(pd_str_is(r->messages[2].content, "\xf0\x9f\x98\x80"));
    drop();
    /* Nothing of one message is taken for the next one's. */
    r = parse(PD_API_CHAT,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"tool\",\"tool_calls\":[]},"
        "{\"content\":\"b\",\"role\":\"d\\u0065veloper\"}],\"model\":\"m\"}");
    static const char *const roles[] = { "user", "tool", "system" };
    static const char *const contents[] = { "a", "", "b" };
    assert_int_equal(r->n_messages, PD_ARRAY_LEN(roles));
    for (size_t i = 0; i < PD_ARRAY_LEN(roles); i++) {
        assert_true(pd_str_is(r->messages[i].role, roles[i]));
        assert_true(pd_str_is(r->messages[i].content, contents[i]));
    }
    assert_int_equal(r->unsupported.http, 0);
    drop();
}

static void test_prompts(void **state)
{
    (void)state;
    struct pd_api_request *r = parse(PD_API_COMPLETIONS,
        "{\"model\":\"m\",\"n\":2,\"prompt\":[\"a\",\"b\"],\"echo\":true}");
    assert_int_equal(r->n_prompts, 2);
    assert_int_equal(r->n_legs, 4);
    assert_int_equal(r->echo, 1);
    assert_true(pd_str_is(r->prompts[1].text, "b"));
    drop();
    r = parse(PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[1,2,2147483647]}");
    assert_int_equal(r->n_prompts, 1);
    assert_int_equal(r->prompts[0].n_tokens, 3);
    assert_int_equal(r->prompts[0].tokens[2], INT32_MAX);
    drop();
    r = parse(PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[[1,2],[3]],\"logprobs\":0}");
    assert_int_equal(r->n_prompts, 2);
    assert_int_equal(r->prompts[1].tokens[0], 3);
    assert_int_equal(r->sampling.want_logprob, 1);
    assert_int_equal(r->sampling.logprobs, 0);
    drop();
    r = parse(PD_API_COMPLETIONS, COMP(",\"logprobs\":3,\"max_tokens\":1000"));
    assert_int_equal(r->sampling.logprobs, 3);
    assert_int_equal(r->max_output, 1000);
    drop();
}

/* Noted, not refused: a server behind an adapter may be able to. */
static void test_unsupported(void **state)
{
    (void)state;
    static const struct {
        uint32_t kind;
        const char *body, *param;   /* NULL: nothing is noted */
    } rows[] = {
        { PD_API_CHAT, CHAT(",\"tools\":[{\"type\":\"function\"}]"), "tools" },
        { PD_API_CHAT, CHAT(",\"functions\":[{}]"), "functions" },
        { PD_API_CHAT, CHAT(",\"response_format\":{\"type\":\"json_object\"}"), "response_format" },
        { PD_API_CHAT, CHAT(",\"logit_bias\":{\"5\":1}"), "logit_bias" },
        { PD_API_CHAT, CHAT(",\"audio\":{}"), "audio" },
        { PD_API_CHAT, CHAT(",\"modalities\":[\"text\",\"audio\"]"), "modalities" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":"
                       "[{\"type\":\"image_url\",\"image_url\":{}}]}]}", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}", "messages" },
        { PD_API_COMPLETIONS, COMP(",\"suffix\":\"x\""), "suffix" },
        { PD_API_COMPLETIONS, COMP(",\"best_of\":2"), "best_of" },
        { PD_API_COMPLETIONS, COMP(",\"echo\":true,\"logprobs\":1"), "echo" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[1],\"echo\":true}", "echo" },
        { PD_API_CHAT, CHAT(",\"tools\":[],\"functions\":[],\"logit_bias\":{},\"modalities\":[\"text\"],"
                            "\"response_format\":{\"type\":\"text\"},\"audio\":null"), NULL },
        { PD_API_COMPLETIONS, COMP(",\"best_of\":2,\"n\":2,\"suffix\":null,\"echo\":false"), NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pd_api_request *r = parse(rows[i].kind, rows[i].body);
        if (rows[i].param == NULL) {
            assert_int_equal(r->unsupported.http, 0);
        } else {
            assert_int_equal(r->unsupported.http, 400);
            assert_string_equal(r->unsupported.type, "invalid_request_error");
            assert_string_equal(r->unsupported.code, "unsupported_parameter");
            assert_string_equal(r->unsupported.param, rows[i].param);
        }
        drop();
    }
}

struct refusal {
    uint32_t kind;
    const char *body, *code, *param;
};

static void refuse_all(const struct refusal *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct pd_api_error e;
        memset(&e, 0xff, sizeof e);
        pd_status status = pd_api_request_parse(api, rows[i].kind, pd_str_from(rows[i].body), &limits, &req, &e);
        if (status != PD_EINVAL || e.http != 400 || strcmp(e.type, "invalid_request_error") != 0 ||
            e.code == NULL || strcmp(e.code, rows[i].code) != 0 || strcmp(e.param, rows[i].param) != 0 ||
            e.message[0] == '\0' || e.retry_after_ms != 0) {
            print_error("%s: status %d", rows[i].body, (int)status);
            if (status != PD_OK)
                print_error(" http %u code %s param %s: %s", e.http, e.code, e.param, e.message);
            print_error("\n");
            fail();
        }
    }
}

static void test_refused_json(void **state)
{
    (void)state;
    static const struct refusal rows[] = {
        { PD_API_CHAT, "", "invalid_json", "" },
        { PD_API_CHAT, "{", "invalid_json", "" },
        { PD_API_CHAT, "[]", "invalid_json", "" },
        { PD_API_CHAT, "\"x\"", "invalid_json", "" },
        { PD_API_CHAT, "{\"model\":\"m\"}x", "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"user\":\"\xff\""), "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"user\":\"\xc0\xaf\""), "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"x\":\"\xed\xa0\x80\""), "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"x\":\"\\ud800\""), "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"x\":01"), "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"x\":NaN"), "invalid_json", "" },
        { PD_API_CHAT, CHAT(",\"model\":\"other\""), "duplicate_key", "" },
        { PD_API_CHAT, CHAT("," HI), "duplicate_key", "" },
        { PD_API_CHAT, CHAT(",\"stream\":true,\"stream\":false"), "duplicate_key", "" },
        { PD_API_CHAT, CHAT(",\"n\":1,\"\\u006e\":2"), "duplicate_key", "" },
        { PD_API_CHAT, CHAT(",\"max_tokens\":1,\"max_tokens\":1"), "duplicate_key", "" },
        { PD_API_CHAT, CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_usage\":true}"),
          "duplicate_key", "" },
        { PD_API_CHAT, CHAT(",\"kv_transfer_params\":1,\"kv_transfer_params\":2"), "duplicate_key", "" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"role\":\"system\",\"content\":\"\"}]}",
          "duplicate_key", "" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\"},"
                       "{\"role\":\"user\",\"content\":\"a\",\"content\":\"b\"}]}", "duplicate_key", "" },
    };
    refuse_all(rows, sizeof rows / sizeof rows[0]);
}

static void test_depth(void **state)
{
    (void)state;
    char body[512];
    for (int depth = 60; depth < 70; depth++) {
        size_t n = (size_t)snprintf(body, sizeof body, "%s", "{\"model\":\"m\"," HI ",\"x\":");
        for (int i = 1; i < depth; i++)
            body[n++] = '[';
        for (int i = 1; i < depth; i++)
            body[n++] = ']';
        snprintf(body + n, sizeof body - n, "}");
        if (depth <= 64) {
            parse(PD_API_CHAT, body);
            drop();
        } else {
            refuse_all(&(struct refusal){ PD_API_CHAT, body, "invalid_json", "" }, 1);
        }
    }
}

static void test_refused_values(void **state)
{
    (void)state;
    static const struct refusal rows[] = {
        { PD_API_CHAT, "{" HI "}", "missing_required_parameter", "model" },
        { PD_API_CHAT, "{\"model\":null," HI "}", "missing_required_parameter", "model" },
        { PD_API_CHAT, "{\"model\":5," HI "}", "invalid_value", "model" },
        { PD_API_CHAT, "{\"model\":\"m\"}", "missing_required_parameter", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":null}", "missing_required_parameter", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[]}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":{}}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":{\"a\":1}}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":\"hi\"}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[1]}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{}]}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":5}]}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"\"}]}", "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":5}]}", "invalid_value",
          "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[5]}]}", "invalid_value",
          "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
          "invalid_value", "messages" },
        { PD_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\"},{\"role\":\"user\"},"
                       "{\"role\":\"user\"},{\"role\":\"user\"}]}", "invalid_value", "messages" },
        { PD_API_CHAT, CHAT(",\"stream\":1"), "invalid_value", "stream" },
        { PD_API_CHAT, CHAT(",\"stream\":\"true\""), "invalid_value", "stream" },
        { PD_API_CHAT, CHAT(",\"stream_options\":{}"), "invalid_value", "stream_options" },
        { PD_API_CHAT, CHAT(",\"stream\":true,\"stream_options\":[]"), "invalid_value", "stream_options" },
        { PD_API_CHAT, CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":1}"), "invalid_value",
          "stream_options.include_usage" },
        { PD_API_CHAT, CHAT(",\"n\":0"), "invalid_value", "n" },
        { PD_API_CHAT, CHAT(",\"n\":9"), "invalid_value", "n" },
        { PD_API_CHAT, CHAT(",\"n\":1.0"), "invalid_value", "n" },
        { PD_API_CHAT, CHAT(",\"n\":18446744073709551617"), "invalid_value", "n" },
        { PD_API_CHAT, CHAT(",\"n\":\"1\""), "invalid_value", "n" },
        { PD_API_CHAT, CHAT(",\"max_tokens\":0"), "invalid_value", "max_tokens" },
        { PD_API_CHAT, CHAT(",\"max_tokens\":-1"), "invalid_value", "max_tokens" },
        { PD_API_CHAT, CHAT(",\"max_tokens\":1001"), "invalid_value", "max_tokens" },
        { PD_API_CHAT, CHAT(",\"max_completion_tokens\":4294967297"), "invalid_value", "max_completion_tokens" },
        { PD_API_CHAT, CHAT(",\"temperature\":-0.1"), "invalid_value", "temperature" },
        { PD_API_CHAT, CHAT(",\"temperature\":2.1"), "invalid_value", "temperature" },
        { PD_API_CHAT, CHAT(",\"temperature\":\"0\""), "invalid_value", "temperature" },
        { PD_API_CHAT, CHAT(",\"temperature\":1e999"), "invalid_value", "temperature" },
        { PD_API_CHAT, CHAT(",\"top_p\":1.5"), "invalid_value", "top_p" },
        { PD_API_CHAT, CHAT(",\"min_p\":-1"), "invalid_value", "min_p" },
        { PD_API_CHAT, CHAT(",\"top_k\":1.5"), "invalid_value", "top_k" },
        { PD_API_CHAT, CHAT(",\"frequency_penalty\":3"), "invalid_value", "frequency_penalty" },
        { PD_API_CHAT, CHAT(",\"presence_penalty\":-3"), "invalid_value", "presence_penalty" },
        { PD_API_CHAT, CHAT(",\"priority\":2147483648"), "invalid_value", "priority" },
        { PD_API_CHAT, CHAT(",\"seed\":1.5"), "invalid_value", "seed" },
        { PD_API_CHAT, CHAT(",\"seed\":9223372036854775808"), "invalid_value", "seed" },
        { PD_API_CHAT, CHAT(",\"stop\":5"), "invalid_value", "stop" },
        { PD_API_CHAT, CHAT(",\"stop\":{}"), "invalid_value", "stop" },
        { PD_API_CHAT, CHAT(",\"stop\":[5]"), "invalid_value", "stop" },
        { PD_API_CHAT, CHAT(",\"stop\":\"\""), "invalid_value", "stop" },
        { PD_API_CHAT, CHAT(",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\","
                            "\"d\",\"e\",\"f\",\"g\",\"h\"]"), "invalid_value", "stop" },
        { PD_API_CHAT, CHAT(",\"logprobs\":5"), "invalid_value", "logprobs" },
        { PD_API_CHAT, CHAT(",\"logprobs\":true,\"top_logprobs\":21"), "invalid_value", "top_logprobs" },
        { PD_API_CHAT, CHAT(",\"top_logprobs\":2"), "invalid_value", "top_logprobs" },
        { PD_API_CHAT, CHAT(",\"user\":5"), "invalid_value", "user" },
        { PD_API_CHAT, CHAT(",\"cache_salt\":5"), "invalid_value", "cache_salt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\"}", "missing_required_parameter", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[[]]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":5}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":{\"a\":1}}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[1,\"a\"]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[\"a\",1]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[-1]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[2147483648]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[1.0]}", "invalid_value", "prompt" },
        { PD_API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[\"1\",\"2\",\"3\",\"4\",\"5\"]}", "invalid_value",
          "prompt" },
        { PD_API_COMPLETIONS, COMP(",\"logprobs\":true"), "invalid_value", "logprobs" },
        { PD_API_COMPLETIONS, COMP(",\"logprobs\":21"), "invalid_value", "logprobs" },
        { PD_API_COMPLETIONS, COMP(",\"best_of\":0"), "invalid_value", "best_of" },
        { PD_API_COMPLETIONS, COMP(",\"echo\":1"), "invalid_value", "echo" },
    };
    refuse_all(rows, sizeof rows / sizeof rows[0]);
}

/* A string member one byte too long. */
static void test_long_strings(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t max;
    } rows[] = {
        { "user", PD_API_NAME_MAX }, { "prompt_cache_key", PD_API_NAME_MAX },
        { "cache_salt", PD_API_SALT_MAX }, { "stop", PD_API_STOP_MAX },
    };
    static char body[4096];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t more = 0; more < 2; more++) {
            snprintf(body, sizeof body, "{\"model\":\"m\"," HI ",\"%s\":\"%0*d\"}", rows[i].key,
                     (int)(rows[i].max + more), 0);
            if (more == 0) {
                parse(PD_API_CHAT, body);
                drop();
            } else {
                refuse_all(&(struct refusal){ PD_API_CHAT, body, "invalid_value", rows[i].key }, 1);
            }
        }
    }
    /* A text longer than a message between nodes is for other servers only. */
    size_t n = (size_t)PD_API_PROMPT_MAX + 1;
    char *big = pd_alloc(n + 100);
    assert_non_null(big);
    int head = sprintf(big, "{\"model\":\"m\",\"prompt\":\"");
    memset(big + head, 'a', n);
    memcpy(big + (size_t)head + n, "\"}", 3);
    parse(PD_API_COMPLETIONS, big);
    assert_string_equal(req->unsupported.param, "prompt");
    drop();
    pd_free(big);
}

static void check_forward(const char *body, const char *model, const char *want)
{
    struct pd_str out;
    parse(PD_API_CHAT, body);
    assert_int_equal(pd_api_request_forward(api, req, pd_str_from(model), false, &out), PD_OK);
    if (!pd_str_is(out, want)) {
        print_error("%.*s\nwant %s\n", PD_STR_ARG(out), want);
        fail();
    }
    if (strcmp(body, want) == 0)
        assert_ptr_equal(out.p, req->body.p);
    drop();
}

/* The salt of a tenant that sends this one (NULL: none); and what goes on. */
static const char *scoped(const char *tenant, const char *salt, bool adds, char sent[4096])
{
    static char text[8][64];
    static unsigned at;
    char body[1024];
    struct pd_str out;
    char *to = text[at++ % 8];
    snprintf(body, sizeof body, "{\"model\":\"m\"," HI "%s%s%s}", salt != NULL ? ",\"cache_salt\":\"" : "",
             salt != NULL ? salt : "", salt != NULL ? "\"" : "");
    parse(PD_API_CHAT, body);
    assert_int_equal(pd_api_request_scope(api, req, pd_str_from(tenant)), PD_OK);
    snprintf(to, sizeof text[0], "%.*s", PD_STR_ARG(req->cache_salt));
    assert_int_equal(pd_api_request_forward(api, req, PD_STR(""), adds, &out), PD_OK);
    snprintf(sent, 4096, "%.*s", PD_STR_ARG(out));
    /* No byte of the client's salt goes on, and ours is harmless anywhere. */
    assert_true(req->cache_salt.n == 0 || req->cache_salt.n == PD_API_SCOPE_BYTES);
    assert_int_equal(strspn(to, "0123456789abcdef"), strlen(to));
    char raw[64];
    snprintf(raw, sizeof raw, "\"cache_salt\":\"%s\"", salt == NULL ? "" : salt);
    if (salt != NULL && salt[0] != '\0')
        assert_null(strstr(sent, raw));
    drop();
    return to;
}

/* The body with some changes. */
static void edited(const char *body, const struct pd_api_edit *changes, uint32_t n, const char *want)
{
    struct pd_iov iov[64];
    size_t n_iov = PD_ARRAY_LEN(iov), at = 0;
    char out[4096];
    parse(PD_API_CHAT, body);
    assert_int_equal(pd_api_request_edit(api, req, changes, n, iov, &n_iov), PD_OK);
    for (size_t i = 0; i < n_iov; i++) {
        memcpy(out + at, iov[i].base, iov[i].len);
        at += iov[i].len;
    }
    out[at] = '\0';
    assert_string_equal(out, want);
    drop();
}

static void test_edit(void **state)
{
    static const struct pd_api_edit changes[] = {
        { .op = PD_API_EDIT_SET, .key = "kv_transfer_params", .text = PD_STR("{\"a\":1}") },
        { .op = PD_API_EDIT_SET, .key = "stream", .text = PD_STR("false") },
        { .op = PD_API_EDIT_REMOVE, .key = "stream_options" },
        { .op = PD_API_EDIT_SET, .key = "max_tokens", .text = PD_STR("1") },
        { .op = PD_API_EDIT_GIVEN, .key = "max_completion_tokens", .text = PD_STR("1") },
        { .op = PD_API_EDIT_REMOVE, .key = "min_tokens" },
        { .op = PD_API_EDIT_SET, .key = "odd", .text = PD_STR("7") },
    };
    uint32_t n = PD_ARRAY_LEN(changes);
    struct pd_iov few[3];
    size_t n_few = PD_ARRAY_LEN(few);
    (void)state;
    edited("{\"model\":\"m\"," HI "}", changes, n,
           "{\"kv_transfer_params\":{\"a\":1},\"stream\":false,\"max_tokens\":1,\"odd\":7,\"model\":\"m\"," HI "}");
    edited("{\"model\":\"m\",\"str\\u0065am\": true ,\"stream_options\":{}, " HI ",\"max_completion_tokens\":9,"
           "\"odd\":[1], \"min_tokens\" : 3,\"kv_transfer_params\":{\"mine\":2}}", changes, n,
           "{\"kv_transfer_params\":{\"a\":1},\"max_tokens\":1,\"model\":\"m\",\"str\\u0065am\": false , " HI
           ",\"max_completion_tokens\":1,\"odd\":7}");
    edited("{\"model\":\"m\"," HI ",\"kv_transfer_params\":{\"mine\":2}}", changes, 1,
           "{\"kv_transfer_params\":{\"a\":1},\"model\":\"m\"," HI "}");
    parse(PD_API_CHAT, "{\"model\":\"m\"," HI ",\"use_beam_search\":false,\"prompt_logprobs\":0,\"odd\":null}");
    assert_false(pd_api_request_has(api, req, "use_beam_search"));
    assert_true(pd_api_request_has(api, req, "prompt_logprobs"));
    assert_false(pd_api_request_has(api, req, "odd"));
    assert_true(pd_api_request_has(api, req, "messages"));
    assert_int_equal(pd_api_request_edit(api, req, changes, n, few, &n_few), PD_ELIMIT);
    drop();
}

static void test_scope(void **state)
{
    static const char *const salts[] = { NULL, "a", "b", "ab", "\\u0061\\u0000b", "{}\\n", "1bob" };
    static const char *const tenants[] = { "", "alice", "bob", "alicea", "alic", "1" };
    char all[64][64], sent[4096];
    unsigned n = 0;
    (void)state;
    for (size_t t = 0; t < PD_ARRAY_LEN(tenants); t++) {
        for (size_t s = 0; s < PD_ARRAY_LEN(salts); s++) {
            snprintf(all[n], sizeof all[n], "%s", scoped(tenants[t], salts[s], false, sent));
            /* The same again is the same. */
            assert_string_equal(all[n], scoped(tenants[t], salts[s], true, sent));
            assert_int_equal(all[n][0] == '\0', t == 0 && s == 0);
            for (unsigned k = 0; k < n; k++)
                assert_string_not_equal(all[n], all[k]);
            n++;
        }
    }
    /* Where the server does not ask for one, only a client's is replaced. */
    scoped("alice", NULL, false, sent);
    assert_null(strstr(sent, "cache_salt"));
    scoped("", NULL, true, sent);
    assert_null(strstr(sent, "cache_salt"));
    const char *salt = scoped("alice", NULL, true, sent);
    assert_non_null(strstr(sent, salt));
    salt = scoped("alice", "x", false, sent);
    assert_non_null(strstr(sent, salt));
    assert_non_null(strstr(sent, ",\"cache_salt\":\""));
    /* An empty salt is none. */
    assert_string_equal(scoped("alice", "", false, sent), scoped("alice", NULL, false, sent));
}

static void test_forward(void **state)
{
    (void)state;
    /* Spaces, escapes, long numbers, unknown members: every byte as it came. */
    static const char odd[] =
        "\n{ \"zeta\" : [ 1.50, 1e400, 18446744073709551615, -0 ] ,\t\"model\":\"ti\\u006ey\" , " HI
        ",\"u\\u00e9\":\"\\/\\u0041\",\"x\":{\"model\":\"inner\",\"kv_transfer_params\":{\"a\":1}},\"z\":[],"
        "\"x\":\"twice\" }\r\n";
    check_forward(odd, "", odd);
    check_forward("{\"a\":1, \"model\" : \"m\" ," HI ",\"b\":123456789012345678901234567890}", "new \"name\"",
                  "{\"a\":1, \"model\" : \"new \\\"name\\\"\" ," HI ",\"b\":123456789012345678901234567890}");
    check_forward("{\"kv_transfer_params\":{\"do_remote_decode\":true},\"model\":\"m\"," HI
                  ",\"bootstrap_room\":9223372036854775807,\"keep\":1,\"nvext\":{\"x\":[1]}}", "",
                  "{\"model\":\"m\"," HI ",\"keep\":1}");
    check_forward("{\"model\":\"m\"," HI ",\"extra_body\":{\"a\":1,\"kv_transfer_params\":{},\"b\":2},"
                  "\"sampling_params\":{\"kv_transfer_params\":null}}", "n",
                  "{\"model\":\"n\"," HI ",\"extra_body\":{\"a\":1,\"b\":2},\"sampling_params\":{}}");
    static const char *const hints[] = {
        "kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room", "do_remote_prefill",
        "do_remote_decode", "remote_engine_id", "remote_block_ids", "remote_host", "remote_port",
        "ec_transfer_params", "disaggregated_params", "dp_rank", "routed_dp_rank",
        "disagg_prefill_dp_rank", "data_parallel_rank", "nvext", "\\u006evext", "tp_size", "remote_anything",
        "disagg_x", "\\u0072emote_y", "remote\\u005fz",
    };
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"model\":\"m\"," HI ",\"%s\":[{\"a\":[1]}],\"k\":0}", hints[i]);
        check_forward(body, "", "{\"model\":\"m\"," HI ",\"k\":0}");
        snprintf(body, sizeof body, "{\"%s\":null,\"model\":\"m\"," HI "}", hints[i]);
        check_forward(body, "", "{\"model\":\"m\"," HI "}");
        for (int k = 0; k < 2; k++) {
            static const char *const holders[] = { "extra_body", "sampling_par\\u0061ms" };
            char want[256];
            snprintf(body, sizeof body, "{\"model\":\"m\"," HI ",\"%s\":{\"a\":\"%s\",\"%s\":[{}]}}", holders[k],
                     hints[i], hints[i]);
            snprintf(want, sizeof want, "{\"model\":\"m\"," HI ",\"%s\":{\"a\":\"%s\"}}", holders[k], hints[i]);
            check_forward(body, "", want);
            parse(PD_API_CHAT, body);
            assert_true(pd_str_is(pd_api_request_hint(api, req), hints[i]));
            drop();
        }
    }
    /* Names that only look alike stay. */
    check_forward("{\"model\":\"m\"," HI ",\"remotely\":1,\"x_remote_host\":2,\"disagg\":3}", "",
                  "{\"model\":\"m\"," HI ",\"remotely\":1,\"x_remote_host\":2,\"disagg\":3}");
    parse(PD_API_CHAT, "{\"model\":\"m\"," HI ",\"user\":\"remote_host\"}");
    assert_int_equal(pd_api_request_hint(api, req).n, 0);
    drop();
}

/* Each allocation fails once; nothing leaks and the answer is 503. */
static void test_no_memory(void **state)
{
    (void)state;
    static const struct pd_str body = PD_STR(CHAT(",\"stop\":[\"\\u0041\",\"b\"],\"user\":\"\\u0041\""));
    for (uint64_t n = 1; n < 100; n++) {
        struct pd_api_error e;
        /* A fresh one: its pool is empty. */
        pd_api_destroy(api);
        assert_int_equal(pd_api_create(&api), PD_OK);
        pd_mem_fault_set(n);
        pd_status status = pd_api_request_parse(api, PD_API_CHAT, body, &limits, &req, &e);
        if (status == PD_OK && pd_api_request_texts(api, req) != PD_OK) {
            /* May be asked for again. */
            pd_mem_fault_set(0);
            assert_int_equal(pd_api_request_texts(api, req), PD_OK);
            drop();
            continue;
        }
        pd_mem_fault_set(0);
        if (status == PD_OK) {
            drop();
            assert_true(n > 1);
            return;
        }
        assert_int_equal(status, PD_ENOMEM);
        assert_int_equal(e.http, 503);
        assert_string_equal(e.type, "server_error");
    }
    fail();
}

static void test_error_body(void **state)
{
    (void)state;
    struct pd_api_error e;
    struct pd_str out;
    pd_api_error_set(&e, 404, "not_found_error", "model_not_found", "no \"%s\"\n", "x");
    assert_int_equal(e.http, 404);
    assert_int_equal(pd_api_error_write(api, &e, &out), PD_OK);
    assert_true(pd_str_is(out, "{\"error\":{\"message\":\"no \\\"x\\\"\\n\",\"type\":\"not_found_error\","
                               "\"param\":null,\"code\":\"model_not_found\"}}"));
    pd_api_error_set(&e, 500, "server_error", NULL, "%0300d", 1);
    snprintf(e.param, sizeof e.param, "n");
    assert_int_equal(pd_api_error_write(api, &e, &out), PD_OK);
    struct pd_json_value v[2];
    assert_int_equal(pd_json_scan(out, NULL, (const char *const[]){ "error.code", "error.param" }, 2, v, NULL),
                     PD_OK);
    assert_int_equal(v[0].type, PD_JSON_NULL);
    assert_true(pd_json_is_str(&v[1], "n"));
}

static void test_models(void **state)
{
    (void)state;
    static const struct pd_api_model models[] = {
        { PD_STR("a\"b"), 5, 4096 }, { PD_STR("c"), 6, 0 },
    };
    struct pd_str out, ids[4];
    uint32_t n;
    assert_int_equal(pd_api_models_write(api, models, 2, &out), PD_OK);
    assert_true(pd_str_is(out, "{\"object\":\"list\",\"data\":[{\"id\":\"a\\\"b\",\"object\":\"model\",\"created\":5,"
                               "\"owned_by\":\"pdplane\",\"max_model_len\":4096},{\"id\":\"c\",\"object\":\"model\","
                               "\"created\":6,\"owned_by\":\"pdplane\"}]}"));
    char copy[512];
    snprintf(copy, sizeof copy, "%.*s", PD_STR_ARG(out));
    assert_int_equal(pd_api_models_read(api, pd_str_from(copy), ids, 4, &n), PD_OK);
    assert_int_equal(n, 2);
    assert_true(pd_str_is(ids[0], "a\"b") && pd_str_is(ids[1], "c"));
    assert_int_equal(pd_api_models_read(api, pd_str_from(copy), ids, 1, &n), PD_OK);
    assert_int_equal(n, 1);
    assert_int_equal(pd_api_model_write(api, &models[1], &out), PD_OK);
    assert_true(pd_str_is(out, "{\"id\":\"c\",\"object\":\"model\",\"created\":6,\"owned_by\":\"pdplane\"}"));
    assert_int_equal(pd_api_models_write(api, NULL, 0, &out), PD_OK);
    assert_true(pd_str_is(out, "{\"object\":\"list\",\"data\":[]}"));
    assert_int_equal(pd_api_models_read(api, PD_STR("{\"data\":[{\"id\":\"\"}]}"), ids, 4, &n), PD_OK);
    assert_true(n == 1 && ids[0].n == 0 && ids[0].p != NULL);
    static const char *const bad[] = { "", "{}", "[]", "{\"data\":{}}", "{\"data\":[{}]}", "{\"data\":[{\"id\":5}]}",
                                       "{\"data\":[1]}" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(pd_api_models_read(api, pd_str_from(bad[i]), ids, 4, &n), PD_EPROTO);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_chat_parameters),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_unsupported), cmocka_unit_test(test_refused_json),
        cmocka_unit_test(test_depth), cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_long_strings), cmocka_unit_test(test_scope),
        cmocka_unit_test(test_edit),
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_error_body),
        cmocka_unit_test(test_models),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
