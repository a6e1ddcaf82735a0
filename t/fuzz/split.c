/* SPDX-License-Identifier: Apache-2.0 */
/* What a prefill server answers: what goes into the decode leg is JSON with the members
 * that are ours once and all others as they came; an answer that goes to the client is
 * JSON too, of one line an event in a stream, without what is hidden.
 *
 * Input: bits (chat, stream, usage, one token, context usage), then the answer. */
#include "fuzz.h"

#include "base/buf.h"
#include "base/json.h"
#include "split.h"

enum { CHAT = 1, STREAM = 2, USAGE = 4, ONE = 8, CONTEXT_USAGE = 16 };

static struct pd_buf given;        /* to the client */
static bool is_done;

/* ---- the rest of the router ------------------------------------------------------------ */

static pd_status net_begin(struct pd_http_req *req, uint32_t status, const struct pd_http_header *headers, size_t n,
                           uint64_t length)
{
    (void)req, (void)headers;
    FUZZ_CHECK(status == 200 && n == 2 && length == PD_HTTP_UNKNOWN_LENGTH);
    return PD_OK;
}

static size_t net_write(struct pd_http_req *req, struct pd_str bytes)
{
    (void)req;
    pd_buf_append_str(&given, bytes);
    return 0;
}

static void net_end(struct pd_http_req *req)
{
    (void)req;
}

static void net_respond(struct pd_http_req *req, uint32_t status, const struct pd_http_header *headers, size_t n,
                        struct pd_str body)
{
    (void)headers;
    FUZZ_CHECK(status == 200 && n == 1);
    net_write(req, body);
}

static void req_text(struct pd_reqs *reqs, struct pd_req *req, const char **field, struct pd_str text)
{
    (void)reqs, (void)req, (void)field, (void)text;
}

static void req_stage(struct pd_reqs *reqs, struct pd_req *req, uint32_t stage, pd_time now)
{
    (void)reqs, (void)req, (void)stage, (void)now;
}

static void req_tokens(struct pd_reqs *reqs, struct pd_req *req, uint32_t n, pd_time now)
{
    (void)reqs, (void)req, (void)now;
    FUZZ_CHECK(n > 0);
}

static void sched_end(struct pd_sched *sched, struct pd_dispatch *dispatch, uint32_t result, pd_time now)
{
    (void)sched, (void)dispatch, (void)result, (void)now;
}

void request_done(struct request *q, uint32_t http_status)
{
    (void)q;
    FUZZ_CHECK(http_status == 200);
    is_done = true;
}

/* ---- checks ------------------------------------------------------------------------------ */

static void name(char *out, const char *text)
{
    memcpy(out, text, strlen(text) + 1);
}

/* The decode leg's share, as the adapter for TensorRT-LLM has it. */
static void prepare(struct split *s, uint32_t bits)
{
    struct split_body *b = &s->bodies[1];
    name(s->take, "choices[].disaggregated_params");
    name(s->needs, "choices[].disaggregated_params.ctx_request_id");
    name(s->finish, "choices[].finish_reason");
    name(s->follows[s->n_follows++], "length");
    name(s->follows[s->n_follows++], "not_finished");
    name(s->hidden[s->n_hidden++], "disaggregated_params");
    name(s->hidden[s->n_hidden++], "prompt_token_ids");
    s->is_one = (bits & ONE) != 0;
    b->edits[0].key = "disaggregated_params";
    b->edits[1].key = "prompt_token_ids";
    b->from[1] = "prompt_token_ids";
    b->n = 2;
    b->inner[0] = (struct split_inner){ .key = "request_type", .text = PD_STR("\"generation_only\"") };
    b->inner[1] = (struct split_inner){ .key = "ctx_usage", .from = "usage" };
    b->n_inner = (bits & CONTEXT_USAGE) != 0 ? 2 : 1;
}

static struct pd_json_value scan_one(struct pd_str doc, const char *path)
{
    static const struct pd_json_limits limits = { .depth = PD_JSON_MAX_DEPTH, .keys = UINT32_MAX };
    struct pd_json_value v;
    FUZZ_CHECK(pd_json_scan(doc, &limits, &path, 1, &v, NULL) == PD_OK);
    return v;
}

static void check_taken(const struct split *s)
{
    const struct split_body *b = &s->bodies[1];
    struct pd_iov iov[SPLIT_RUNS] = { { "<", 1 }, { (void *)(uintptr_t)b->edits[0].text.p, b->edits[0].text.n }, { ">", 1 } };
    size_t n = 3;
    struct pd_buf out;
    FUZZ_CHECK(split_taken_put(s, iov, &n, SPLIT_RUNS) == PD_OK);
    FUZZ_CHECK(n == 2 + s->taken.n && n > 3);
    pd_buf_init(&out, 1 << 24);
    for (size_t i = 1; i + 1 < n; i++)
        pd_buf_append(&out, iov[i].base, iov[i].len);
    FUZZ_CHECK(out.status == PD_OK);
    /* A path that is there twice would be refused. */
    struct pd_json_value type = scan_one(pd_buf_str(&out), "request_type");
    FUZZ_CHECK(pd_json_is_str(&type, "generation_only"));
    if (b->n_inner > 1 && b->inner[1].text.n > 0) {
        struct pd_json_value usage = scan_one(pd_buf_str(&out), "ctx_usage");
        FUZZ_CHECK(fuzz_same(usage.text, b->inner[1].text));
    }
    /* The others: as many as before, byte for byte. */
    struct pd_json_value before = { .type = PD_JSON_OBJECT, .text = b->edits[0].text }, key, value, k, v;
    struct pd_json_value after = scan_one(pd_buf_str(&out), "");
    struct pd_json_iter it, jt;
    FUZZ_CHECK(pd_json_iter_init(&it, &before) == PD_OK && pd_json_iter_init(&jt, &after) == PD_OK);
    for (uint32_t i = 0; i < b->n_inner; i++)
        FUZZ_CHECK(b->inner[i].text.n == 0 || pd_json_iter_next(&jt, &k, &v));
    while (pd_json_iter_next(&it, &key, &value)) {
        bool is_ours = false;
        for (uint32_t i = 0; i < b->n_inner; i++)
            is_ours |= b->inner[i].text.n > 0 && pd_json_is_str(&key, b->inner[i].key);
        if (is_ours)
            continue;
        FUZZ_CHECK(pd_json_iter_next(&jt, &k, &v));
        FUZZ_CHECK(fuzz_same(key.text, k.text) && fuzz_same(value.text, v.text));
    }
    FUZZ_CHECK(!pd_json_iter_next(&jt, &k, &v));
    pd_buf_fini(&out);
}

static void check_object(struct pd_str doc)
{
    struct pd_json_value root = scan_one(doc, ""), key, value;
    struct pd_json_iter it;
    FUZZ_CHECK(pd_json_iter_init(&it, &root) == PD_OK && root.type == PD_JSON_OBJECT);
    while (pd_json_iter_next(&it, &key, &value))
        FUZZ_CHECK(!pd_json_is_str(&key, "disaggregated_params") && !pd_json_is_str(&key, "prompt_token_ids"));
    (void)scan_one(doc, "choices");
}

static void check_given(uint32_t bits)
{
    struct pd_str left = pd_buf_str(&given);
    FUZZ_CHECK(given.status == PD_OK);
    if ((bits & STREAM) == 0) {
        check_object(left);
        return;
    }
    for (uint32_t n = 0;; n++) {
        const char *end = memchr(left.p, '\n', left.n);
        FUZZ_CHECK(end != NULL && end - left.p > 6 && memcmp(left.p, "data: ", 6) == 0);
        struct pd_str event = { left.p + 6, (size_t)(end - left.p) - 6 };
        FUZZ_CHECK(end + 1 < left.p + left.n && end[1] == '\n' && memchr(event.p, '\r', event.n) == NULL);
        left.n -= (size_t)(end + 2 - left.p);
        left.p = end + 2;
        if (left.n == 0) {
            FUZZ_CHECK(fuzz_same(event, PD_STR("[DONE]")) && n >= 1 && n <= 2);
            return;
        }
        check_object(event);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pd_net_api net = { .size = sizeof net, .respond = net_respond, .begin = net_begin,
                                           .write = net_write, .end = net_end };
    static const struct pd_req_api reqs = { .size = sizeof reqs, .text = req_text, .stage = req_stage,
                                            .tokens = req_tokens };
    static const struct pd_sched_api sched = { .size = sizeof sched, .end = sched_end };
    static struct pd_counter finals;
    static struct pd_loop loop;
    struct fuzz_in in = { data, size };
    uint32_t bits = fuzz_u8(&in);
    struct router r = { .loop = &loop, .net = &net, .req = &reqs, .sched = &sched, .json = pd_json_functions(),
                        .split_finals = &finals };
    struct pd_api_request api = { .size = sizeof api, .stream = (bits & STREAM) != 0,
                                  .include_usage = (bits & USAGE) != 0 };
    struct pd_req record = { 0 };
    struct split *s = calloc(1, sizeof *s);
    struct request *q = calloc(1, sizeof *q + sizeof q->legs[0]);
    FUZZ_CHECK(s != NULL && q != NULL);
    q->router = &r;
    q->api = &api;
    q->record = &record;
    q->kind = (bits & CHAT) != 0 ? PD_API_CHAT : PD_API_COMPLETIONS;
    q->split = s;
    s->request = q;
    s->answer = fuzz_rest(&in, &s->answer_n);
    prepare(s, bits);
    size_t n = s->answer_n;
    if (given.limit == 0)
        pd_buf_init(&given, 1 << 24);
    pd_buf_clear(&given);
    is_done = false;
    pd_status status = split_take(s);
    FUZZ_CHECK(status == PD_OK || status == PD_ENOENT || status == PD_EPROTO);
    if (status == PD_OK && !s->is_final) {
        check_taken(s);
    } else if (status == PD_OK) {
        bool is_given = split_final(q);
        FUZZ_CHECK(is_given == is_done);
        if (is_given)
            check_given(bits);
        else
            FUZZ_CHECK(given.n == 0);
    }
    fuzz_back(s->answer, n);
    free(s);
    free(q);
    return 0;
}
