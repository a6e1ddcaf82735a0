/* SPDX-License-Identifier: Apache-2.0 */
/* The fake engine.  Each port has a server of its own with the same routes.
 * What is sent for a token is made once; a stream in progress is one timer in
 * the request's arena, stopped when the request goes. */
#include "bench/engine.h"

#include <math.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/server.h"

#define EVENT_MAX (1u << 20)
#define HIGH_WATER (256u * 1024u)

struct pd_bench_engine {
    struct pd_loop *loop;
    struct pd_bench_engine_opts opts;
    struct pd_http_server **servers;
    uint32_t n_servers;
    uint32_t n_closed;
    struct pd_buf event[2];         /* of one token: completions, chat */
    struct pd_buf models;
    struct pd_buf scratch;          /* of whole answers */
    struct pd_bench_engine_stats stats;
    void (*on_closed)(void *arg);
    void *arg;
};

struct job {
    struct pd_bench_engine *engine;
    struct pd_http_req *req;
    struct pd_timer timer;
    pd_time due;
    uint64_t prompt_tokens;
    uint32_t tokens;
    uint32_t sent;
    bool is_chat;
    bool is_stream;
    bool has_usage;
    bool is_full;           /* waits for on_drain */
    bool is_prefill;        /* kv_transfer_params are asked for */
    uint32_t fault;         /* PD_BENCH_FAULTS: none */
    uint64_t dice;          /* of this completion */
};

static const struct pd_http_header header_json = { { "content-type", 12 }, { "application/json", 16 } };
static const struct pd_http_header header_sse = { { "content-type", 12 }, { "text/event-stream", 17 } };

static const char *const fault_names[PD_BENCH_FAULTS] = {
    "refuse", "reset", "hang", "slow", "malformed", "429", "503", "error", "cut",
};

const char *pd_bench_fault_name(uint32_t fault)
{
    return fault < PD_BENCH_FAULTS ? fault_names[fault] : NULL;
}

/* ---- chance, from the seed and the number of the completion ------------------------- */

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Between 0 and 1, neither. */
static double unit_of(uint64_t *dice)
{
    *dice = mix(*dice);
    return ((double)(*dice >> 11) + 0.5) / 9007199254740992.0;
}

static uint32_t fault_of(const struct pd_bench_engine_opts *o, uint64_t *dice)
{
    double u = unit_of(dice);
    for (uint32_t f = PD_BENCH_FAULT_REFUSE + 1; f < PD_BENCH_FAULTS; f++) {
        if (u < o->faults[f])
            return f;
        u -= o->faults[f];
    }
    return PD_BENCH_FAULTS;
}

static double normal_of(uint64_t *dice)
{
    double a = unit_of(dice), b = unit_of(dice);
    return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
}

/* How many times as long as set a delay is. */
static double stretch_of(const struct pd_bench_engine_opts *o, uint64_t *dice)
{
    double f;
    switch (o->spread) {
    case PD_BENCH_NORMAL: f = 1 + o->jitter * normal_of(dice); break;
    case PD_BENCH_LOGNORMAL: f = exp(o->jitter * normal_of(dice)); break;
    case PD_BENCH_EXPONENTIAL: f = -log(unit_of(dice)); break;
    default: f = o->jitter > 0 ? 1 + o->jitter * (2 * unit_of(dice) - 1) : 1; break;
    }
    return f > 0 ? f : 0;
}

/* ---- what is sent ---------------------------------------------------------------------- */

static void put_pad(struct pd_buf *b, uint32_t n)
{
    if (n == 0)
        return;
    pd_buf_append_cstr(b, ",\"pad\":\"");
    for (uint32_t i = 0; i < n; i++)
        pd_buf_append_char(b, 'x');
    pd_buf_append_char(b, '"');
}

static pd_status event_make(struct pd_bench_engine *e, bool is_chat)
{
    struct pd_buf *b = &e->event[is_chat];
    pd_buf_init(b, EVENT_MAX);
    pd_buf_appendf(b, "data: {\"id\":\"%s-0123456789abcdef\",\"object\":\"%s\",\"created\":1700000000,\"model\":",
                   is_chat ? "chatcmpl" : "cmpl", is_chat ? "chat.completion.chunk" : "text_completion");
    pd_json_put_cstr(b, e->opts.model);
    pd_buf_append_cstr(b, is_chat ? ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,"
                                    "\"finish_reason\":null}]"
                                  : ",\"choices\":[{\"index\":0,\"text\":\" token\",\"logprobs\":null,"
                                    "\"finish_reason\":null}]");
    put_pad(b, e->opts.pad);
    pd_buf_append_cstr(b, "}\n\n");
    return b->status;
}

static void put_usage(struct pd_buf *b, const struct job *j)
{
    pd_buf_appendf(b, "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%u,\"total_tokens\":%llu}",
                   (unsigned long long)j->prompt_tokens, j->tokens,
                   (unsigned long long)(j->prompt_tokens + j->tokens));
}

static void put_start(struct pd_buf *b, const struct job *j, const char *object)
{
    pd_buf_appendf(b, "{\"id\":\"%s-0123456789abcdef\",\"object\":\"%s\",\"created\":1700000000,\"model\":",
                   j->is_chat ? "chatcmpl" : "cmpl", object);
    pd_json_put_cstr(b, j->engine->opts.model);
    pd_buf_append_char(b, ',');
}

/* The answer's part of a hand-over between servers, in the shape of vLLM's NIXL
 * connector. */
static void put_transfer(struct pd_buf *b, const struct job *j)
{
    if (!j->is_prefill)
        return;
    uint64_t blocks = (j->prompt_tokens + 15) / 16;
    pd_buf_append_cstr(b, "\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,"
                          "\"remote_engine_id\":\"pdbench\",\"remote_host\":\"127.0.0.1\",\"remote_port\":5600,"
                          "\"remote_block_ids\":[");
    for (uint64_t i = 0; i < blocks && i < 256; i++)
        pd_buf_appendf(b, "%s%llu", i > 0 ? "," : "", (unsigned long long)i);
    pd_buf_append_cstr(b, "]},");
}

static const char *finish_of(const struct job *j)
{
    return j->fault == PD_BENCH_FAULT_ERROR ? "error" : "length";
}

static void answer_whole(struct job *j)
{
    struct pd_bench_engine *e = j->engine;
    struct pd_buf *b = &e->scratch;
    pd_buf_clear(b);
    put_start(b, j, j->is_chat ? "chat.completion" : "text_completion");
    pd_buf_append_cstr(b, j->is_chat ? "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
                                     : "\"choices\":[{\"index\":0,\"text\":\"");
    for (uint32_t i = 0; i < j->tokens && b->n < EVENT_MAX / 2; i++)
        pd_buf_append_cstr(b, " token");
    pd_buf_appendf(b, "%s,\"finish_reason\":\"%s\"}],", j->is_chat ? "\"}" : "\"", finish_of(j));
    put_transfer(b, j);
    put_usage(b, j);
    put_pad(b, e->opts.pad);
    if (j->fault == PD_BENCH_FAULT_MALFORMED)
        pd_buf_truncate(b, b->n / 2);
    else
        pd_buf_append_char(b, '}');
    if (b->status != PD_OK) {
        pd_http_error(j->req, 503, NULL, "overloaded", "Out of memory.", NULL);
        return;
    }
    e->stats.answers++;
    pd_http_respond(j->req, 200, &header_json, 1, pd_buf_str(b));
}

static void stream_end(struct job *j)
{
    struct pd_bench_engine *e = j->engine;
    struct pd_buf *b = &e->scratch;
    const char *object = j->is_chat ? "chat.completion.chunk" : "text_completion";
    pd_buf_clear(b);
    pd_buf_append_cstr(b, "data: ");
    put_start(b, j, object);
    put_transfer(b, j);
    pd_buf_appendf(b, "\"choices\":[{\"index\":0,%s,\"finish_reason\":\"%s\"}]}\n\n",
                   j->is_chat ? "\"delta\":{}" : "\"text\":\"\"", finish_of(j));
    if (j->has_usage) {
        pd_buf_append_cstr(b, "data: ");
        put_start(b, j, object);
        pd_buf_append_cstr(b, "\"choices\":[],");
        put_usage(b, j);
        pd_buf_append_cstr(b, "}\n\n");
    }
    pd_buf_append_cstr(b, "data: [DONE]\n\n");
    if (b->status != PD_OK) {
        pd_http_abort(j->req);
        return;
    }
    e->stats.answers++;
    pd_http_write_str(j->req, pd_buf_str(b));
    pd_http_end(j->req);
}

/* ---- one completion ------------------------------------------------------------------- */

static pd_time stretched(struct job *j, pd_time d)
{
    double f = d == 0 ? 0 : stretch_of(&j->engine->opts, &j->dice);
    return (pd_time)((double)d * (j->fault == PD_BENCH_FAULT_SLOW ? 10 * f : f));
}

static void job_next(struct job *j)
{
    struct pd_bench_engine *e = j->engine;
    if (e->opts.itl == 0) {
        pd_timer_start(&j->timer, 0);
        return;
    }
    /* From the time that was meant, so that delays do not add up. */
    j->due += stretched(j, e->opts.itl);
    pd_timer_start_at(&j->timer, j->due);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct job *j = arg;
    struct pd_bench_engine *e = j->engine;
    (void)timer;
    if (!j->is_stream) {
        answer_whole(j);
        return;
    }
    if (j->sent == j->tokens) {
        stream_end(j);
        return;
    }
    if (j->fault == PD_BENCH_FAULT_MALFORMED && j->sent == j->tokens / 2)
        pd_http_write_str(j->req, PD_STR("data: {\"choices\":[{\"index\":\n\n"));
    if ((e->opts.break_after > 0 && j->sent >= e->opts.break_after) ||
        (j->fault == PD_BENCH_FAULT_CUT && j->sent >= (j->tokens + 1) / 2)) {
        e->stats.broken++;
        pd_http_abort(j->req);
        return;
    }
    size_t queued = pd_http_write_str(j->req, pd_buf_str(&e->event[j->is_chat]));
    j->sent++;
    e->stats.events++;
    if (j->sent == j->tokens)
        pd_timer_start(&j->timer, 0);
    else if (queued > HIGH_WATER)
        j->is_full = true;
    else
        job_next(j);
}

static void on_drain(struct pd_http_req *req, void *arg)
{
    struct job *j = arg;
    (void)req;
    if (!j->is_full)
        return;
    j->is_full = false;
    j->due = pd_loop_now(j->engine->loop);
    job_next(j);
}

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct job *j = arg;
    (void)req;
    (void)why;
    pd_timer_stop(&j->timer);
    j->engine->stats.gone++;
}

static const struct pd_http_req_events job_events = { .on_drain = on_drain, .on_gone = on_gone };

/* Reads what the answer depends on; false after an error was sent. */
static bool job_read(struct job *j)
{
    static const char *const paths[] = { "stream", "max_tokens", "max_completion_tokens",
                                         "stream_options.include_usage", "kv_transfer_params.do_remote_decode",
                                         "kv_transfer_params.do_remote_prefill",
                                         "kv_transfer_params.remote_engine_id",
                                         "kv_transfer_params.remote_block_ids" };
    enum { STREAM, MAX_TOKENS, MAX_COMPLETION, USAGE, REMOTE_DECODE, REMOTE_PREFILL, ENGINE_ID, BLOCK_IDS, PATHS };
    bool is_decode = false;
    struct pd_json_value v[PATHS];
    struct pd_json_error error;
    struct pd_str body = pd_http_req_body(j->req);
    uint64_t n = 0;
    if (pd_json_scan(body, NULL, paths, PATHS, v, &error) != PD_OK) {
        pd_http_error(j->req, 400, NULL, "invalid_json", error.text, NULL);
        return false;
    }
    (void)pd_json_get_bool(&v[STREAM], &j->is_stream);
    (void)pd_json_get_bool(&v[USAGE], &j->has_usage);
    if (pd_json_get_u64(&v[MAX_COMPLETION], &n) == PD_OK || pd_json_get_u64(&v[MAX_TOKENS], &n) == PD_OK)
        j->tokens = n > PD_BENCH_MAX_TOKENS ? PD_BENCH_MAX_TOKENS : n < 1 ? 1 : (uint32_t)n;
    j->prompt_tokens = body.n / 4 + 1;
    j->engine->stats.body_bytes += body.n;
    (void)pd_json_get_bool(&v[REMOTE_DECODE], &j->is_prefill);
    (void)pd_json_get_bool(&v[REMOTE_PREFILL], &is_decode);
    j->engine->stats.prefills += j->is_prefill;
    j->engine->stats.decodes += is_decode;
    if (is_decode && j->engine->opts.need_kv != 0 &&
        (!pd_json_is_str(&v[ENGINE_ID], "pdbench") || v[BLOCK_IDS].type != PD_JSON_ARRAY)) {
        j->engine->stats.failed++;
        pd_http_error(j->req, 400, NULL, "kv_transfer_params", "There is nothing of a prefill of this engine in it.",
                      NULL);
        return false;
    }
    return true;
}

static void complete(struct pd_bench_engine *e, struct pd_http_req *req, bool is_chat)
{
    const struct pd_bench_engine_opts *o = &e->opts;
    e->stats.requests++;
    if (o->status != 0 || (o->fail_every > 0 && e->stats.requests % o->fail_every == 0)) {
        e->stats.failed++;
        pd_http_error(req, o->status != 0 ? o->status : 500, NULL, "bench_fault", "This failure was asked for.",
                      NULL);
        return;
    }
    uint64_t dice = mix(o->seed ^ mix(e->stats.requests));
    uint32_t fault = fault_of(o, &dice);
    if (fault < PD_BENCH_FAULTS)
        e->stats.faults[fault]++;
    if (fault == PD_BENCH_FAULT_429 || fault == PD_BENCH_FAULT_503) {
        e->stats.failed++;
        pd_http_error(req, fault == PD_BENCH_FAULT_429 ? 429 : 503, NULL, "bench_fault",
                      "This failure was asked for.", NULL);
        return;
    }
    if (fault == PD_BENCH_FAULT_RESET) {
        e->stats.broken++;
        pd_http_abort(req);
        return;
    }
    struct job *j = pd_arena_calloc(pd_http_req_arena(req), 1, sizeof *j);
    if (j == NULL) {
        pd_http_error(req, 503, NULL, "overloaded", "Out of memory.", NULL);
        return;
    }
    j->engine = e;
    j->req = req;
    j->is_chat = is_chat;
    j->tokens = o->tokens;
    j->fault = fault;
    j->dice = dice;
    if (!job_read(j))
        return;
    pd_http_req_body_release(req);
    pd_timer_init(&j->timer, e->loop, "token", on_timer, j);
    if (!j->is_stream && o->ttft == 0 && o->itl == 0 && fault != PD_BENCH_FAULT_HANG) {
        answer_whole(j);
        return;
    }
    pd_http_req_set_events(req, &job_events, j);
    if (fault == PD_BENCH_FAULT_HANG) {
        e->stats.broken++;
        return;                 /* until the client leaves */
    }
    if (j->is_stream && pd_http_begin(req, 200, &header_sse, 1, PD_HTTP_UNKNOWN_LENGTH) != PD_OK) {
        pd_http_abort(req);
        return;
    }
    j->due = pd_http_req_start(req) + stretched(j, o->ttft);
    if (!j->is_stream)
        j->due += stretched(j, (pd_time)(j->tokens - 1) * o->itl);
    pd_timer_start_at(&j->timer, j->due);
}

static void on_chat(struct pd_http_req *req, void *arg)
{
    complete(arg, req, true);
}

static void on_completion(struct pd_http_req *req, void *arg)
{
    complete(arg, req, false);
}

static void on_models(struct pd_http_req *req, void *arg)
{
    struct pd_bench_engine *e = arg;
    pd_http_respond(req, 200, &header_json, 1, pd_buf_str(&e->models));
}

static void on_health(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, NULL, 0, PD_STR(""));
}

/* ---- its life ----------------------------------------------------------------------------- */

static pd_status server_add(struct pd_bench_engine *e, uint32_t i)
{
    const struct pd_http_route routes[] = {
        { .path = "/v1/chat/completions", .methods = 1u << PD_HTTP_POST, .on_request = on_chat, .arg = e },
        { .path = "/v1/completions", .methods = 1u << PD_HTTP_POST, .on_request = on_completion, .arg = e },
        { .path = "/v1/models", .methods = 1u << PD_HTTP_GET, .on_request = on_models, .arg = e },
        { .path = "/health", .methods = 1u << PD_HTTP_GET, .on_request = on_health, .arg = e },
    };
    const struct pd_http_server_opts opts = {
        .size = sizeof opts, .name = "bench engine", .max_conns = 65536, .body_limit = 64u << 20,
        .idle_ns = 3600 * PD_SEC, .write_ns = 600 * PD_SEC,
    };
    struct pd_addr addr = e->opts.addr;
    pd_status status = pd_http_server_create(e->loop, &opts, &e->servers[i]);
    if (status != PD_OK)
        return status;
    e->n_servers++;
    if (addr.port != 0)
        addr.port = (uint16_t)(addr.port + i);
    for (size_t r = 0; r < sizeof routes / sizeof routes[0] && status == PD_OK; r++)
        status = pd_http_server_route(e->servers[i], &routes[r]);
    uint64_t dice = mix(e->opts.seed ^ mix(~(uint64_t)i));
    if (status == PD_OK && unit_of(&dice) < e->opts.faults[PD_BENCH_FAULT_REFUSE] && i > 0) {
        e->stats.faults[PD_BENCH_FAULT_REFUSE]++;
        return PD_OK;           /* the first always listens, so that there is a port to tell */
    }
    return status == PD_OK ? pd_http_server_listen(e->servers[i], &addr, NULL) : status;
}

static void destroy(struct pd_bench_engine *e)
{
    void (*on_closed)(void *) = e->on_closed;
    void *arg = e->arg;
    pd_buf_fini(&e->event[0]);
    pd_buf_fini(&e->event[1]);
    pd_buf_fini(&e->models);
    pd_buf_fini(&e->scratch);
    pd_free(e->servers);
    pd_free(e);
    if (on_closed != NULL)
        on_closed(arg);
}

static void on_server_closed(void *arg)
{
    struct pd_bench_engine *e = arg;
    if (++e->n_closed == e->n_servers)
        destroy(e);
}

void pd_bench_engine_close(struct pd_bench_engine *e, void (*on_closed)(void *arg), void *arg)
{
    uint32_t n = e->n_servers;
    e->on_closed = on_closed;
    e->arg = arg;
    for (uint32_t i = 0; i < n; i++)
        pd_http_server_close(e->servers[i], on_server_closed, e);
}

pd_status pd_bench_engine_create(struct pd_loop *loop, const struct pd_bench_engine_opts *opts,
                                 struct pd_bench_engine **out)
{
    uint32_t ports = opts->ports == 0 ? 1 : opts->ports;
    if (ports > PD_BENCH_MAX_PORTS || (opts->addr.port != 0 && opts->addr.port + ports > 65536u) ||
        opts->tokens > PD_BENCH_MAX_TOKENS || opts->pad > EVENT_MAX / 2)
        return PD_EINVAL;
    struct pd_bench_engine *e = pd_calloc(1, sizeof *e);
    if (e == NULL)
        return PD_ENOMEM;
    e->loop = loop;
    e->opts = *opts;
    if (e->opts.model == NULL)
        e->opts.model = "bench";
    if (e->opts.tokens == 0)
        e->opts.tokens = 16;
    if (e->opts.seed == 0)
        e->opts.seed = 1;
    pd_buf_init(&e->models, EVENT_MAX);
    pd_buf_init(&e->scratch, 2 * EVENT_MAX);
    e->servers = pd_calloc(ports, sizeof(struct pd_http_server *));
    pd_status status = e->servers == NULL ? PD_ENOMEM : event_make(e, false);
    if (status == PD_OK)
        status = event_make(e, true);
    pd_buf_append_cstr(&e->models, "{\"object\":\"list\",\"data\":[{\"id\":");
    pd_json_put_cstr(&e->models, e->opts.model);
    pd_buf_append_cstr(&e->models, ",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"pdbench\"}]}");
    if (status == PD_OK)
        status = e->models.status;
    for (uint32_t i = 0; i < ports && status == PD_OK; i++)
        status = server_add(e, i);
    if (status != PD_OK) {
        if (e->n_servers == 0)
            destroy(e);
        else
            pd_bench_engine_close(e, NULL, NULL);
        return status;
    }
    *out = e;
    return PD_OK;
}

pd_status pd_bench_engine_addr(const struct pd_bench_engine *e, uint32_t i, struct pd_addr *out)
{
    return i < e->n_servers ? pd_http_server_addr(e->servers[i], 0, out) : PD_ENOENT;
}

void pd_bench_engine_stats(const struct pd_bench_engine *e, struct pd_bench_engine_stats *out)
{
    *out = e->stats;
    for (uint32_t i = 0; i < e->n_servers; i++)
        out->accepted += pd_http_server_stats(e->servers[i])->accepted;
}
