/* SPDX-License-Identifier: Apache-2.0 */
/* The fake engine.  Each port has a server of its own with the same routes.
 * What is sent for a token is made once; a stream in progress is one timer in
 * the request's arena, stopped when the request goes. */
#include "bench/engine.h"

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
};

static const struct pd_http_header header_json = { { "content-type", 12 }, { "application/json", 16 } };
static const struct pd_http_header header_sse = { { "content-type", 12 }, { "text/event-stream", 17 } };

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
    return pd_buf_append_cstr(b, "}\n\n");
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
    pd_buf_append_cstr(b, j->is_chat ? "\"},\"finish_reason\":\"length\"}]," : "\",\"finish_reason\":\"length\"}],");
    put_usage(b, j);
    put_pad(b, e->opts.pad);
    if (pd_buf_append_char(b, '}') != PD_OK) {
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
    pd_buf_append_cstr(b, j->is_chat ? "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n"
                                     : "\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n");
    if (j->has_usage) {
        pd_buf_append_cstr(b, "data: ");
        put_start(b, j, object);
        pd_buf_append_cstr(b, "\"choices\":[],");
        put_usage(b, j);
        pd_buf_append_cstr(b, "}\n\n");
    }
    if (pd_buf_append_cstr(b, "data: [DONE]\n\n") != PD_OK) {
        pd_http_abort(j->req);
        return;
    }
    e->stats.answers++;
    pd_http_write_str(j->req, pd_buf_str(b));
    pd_http_end(j->req);
}

/* ---- one completion ------------------------------------------------------------------- */

static pd_time stretched(struct pd_bench_engine *e, pd_time d)
{
    if (e->opts.jitter <= 0 || d == 0)
        return d;
    double part = (double)pd_loop_random_below(e->loop, 2000001) / 1000000.0 - 1.0;
    return (pd_time)((double)d * (1.0 + part * e->opts.jitter));
}

static void job_next(struct job *j)
{
    struct pd_bench_engine *e = j->engine;
    if (e->opts.itl == 0) {
        pd_timer_start(&j->timer, 0);
        return;
    }
    /* From the time that was meant, so that delays do not add up. */
    j->due += stretched(e, e->opts.itl);
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
    if (e->opts.break_after > 0 && j->sent >= e->opts.break_after) {
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
                                         "stream_options.include_usage" };
    enum { STREAM, MAX_TOKENS, MAX_COMPLETION, USAGE, PATHS };
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
    struct job *j = pd_arena_calloc(pd_http_req_arena(req), 1, sizeof *j);
    if (j == NULL) {
        pd_http_error(req, 503, NULL, "overloaded", "Out of memory.", NULL);
        return;
    }
    j->engine = e;
    j->req = req;
    j->is_chat = is_chat;
    j->tokens = o->tokens;
    if (!job_read(j))
        return;
    pd_http_req_body_release(req);
    pd_timer_init(&j->timer, e->loop, "token", on_timer, j);
    if (!j->is_stream && o->ttft == 0 && o->itl == 0) {
        answer_whole(j);
        return;
    }
    pd_http_req_set_events(req, &job_events, j);
    if (j->is_stream && pd_http_begin(req, 200, &header_sse, 1, PD_HTTP_UNKNOWN_LENGTH) != PD_OK) {
        pd_http_abort(req);
        return;
    }
    j->due = pd_http_req_start(req) + stretched(e, o->ttft);
    if (!j->is_stream)
        j->due += (pd_time)(j->tokens - 1) * o->itl;
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
    pd_buf_init(&e->models, EVENT_MAX);
    pd_buf_init(&e->scratch, 2 * EVENT_MAX);
    e->servers = pd_calloc(ports, sizeof(struct pd_http_server *));
    pd_status status = e->servers == NULL ? PD_ENOMEM : event_make(e, false);
    if (status == PD_OK)
        status = event_make(e, true);
    pd_buf_append_cstr(&e->models, "{\"object\":\"list\",\"data\":[{\"id\":");
    pd_json_put_cstr(&e->models, e->opts.model);
    if (pd_buf_append_cstr(&e->models, ",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"pdbench\"}]}") !=
        PD_OK)
        status = PD_ENOMEM;
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
