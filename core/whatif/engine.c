/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP side of a simulated server. */
#include "whatif/engine_int.h"

#include <pdplane/scheduler.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

#define EVENT_MAX (1u << 20)
#define ANSWER_MAX (16u << 20)
#define PROMPT_MAX (1u << 22)       /* tokens */
#define HASHES_MAX 65536u           /* blocks of a prompt that a cache may keep */
#define ANSWER_TOKENS_MAX (1u << 20)
#define DEFAULT_TOKENS 16u
#define TOKEN_BYTES 4u              /* as whatif/work.c makes prompts */
#define CHAIN_SEED 0x70647369u

static const struct pd_http_header header_json = { { "content-type", 12 }, { "application/json", 16 } };
static const struct pd_http_header header_sse = { { "content-type", 12 }, { "text/event-stream", 17 } };

/* ---- what is sent ---------------------------------------------------------------------- */

static const char *model_of(const struct pd_whatif_engine *e)
{
    return e->opts.models[0];
}

static void put_start(struct pd_buf *b, const struct pd_whatif_engine *e, bool is_chat, bool is_chunk)
{
    pd_buf_appendf(b, "{\"id\":\"%s-0123456789abcdef\",\"object\":\"%s\",\"created\":1767225600,\"model\":",
                   is_chat ? "chatcmpl" : "cmpl",
                   !is_chat ? "text_completion" : is_chunk ? "chat.completion.chunk" : "chat.completion");
    pd_json_put_cstr(b, model_of(e));
    pd_buf_append_char(b, ',');
}

static pd_status event_make(struct pd_whatif_engine *e, bool is_chat)
{
    struct pd_buf *b = &e->event[is_chat];
    pd_buf_init(b, EVENT_MAX);
    pd_buf_append_cstr(b, "data: ");
    put_start(b, e, is_chat, true);
    pd_buf_append_cstr(b, is_chat ? "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},"
                                    "\"finish_reason\":null}]}\n\n"
                                  : "\"choices\":[{\"index\":0,\"text\":\" token\",\"finish_reason\":null}]}\n\n");
    return b->status;
}

static void put_usage(struct pd_buf *b, const struct seq *s)
{
    pd_buf_appendf(b, "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":%u}}", s->prompt, s->made, s->prompt + s->made,
                   s->cached);
}

/* What a server leaves for the one that goes on, as vLLM's NIXL connector says it. */
static void put_transfer(struct pd_buf *b, const struct seq *s)
{
    uint32_t blocks = (s->prompt + 15) / 16;
    if (!s->is_prefill)
        return;
    pd_buf_append_cstr(b, "\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,"
                          "\"remote_engine_id\":\"pdsim\",\"remote_host\":\"10.0.0.1\",\"remote_port\":5600,"
                          "\"remote_block_ids\":[");
    for (uint32_t i = 0; i < blocks && i < 256; i++)
        pd_buf_appendf(b, "%s%u", i > 0 ? "," : "", i);
    pd_buf_append_cstr(b, "]},");
}

static void answer_whole(struct seq *s)
{
    struct pd_whatif_engine *e = s->engine;
    struct pd_buf *b = &e->scratch;
    pd_buf_clear(b);
    put_start(b, e, s->is_chat, false);
    put_transfer(b, s);
    pd_buf_append_cstr(b, s->is_chat ? "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
                                     : "\"choices\":[{\"index\":0,\"text\":\"");
    for (uint32_t i = 0; i < s->made; i++)
        pd_buf_append_cstr(b, " token");
    pd_buf_append_cstr(b, s->is_chat ? "\"},\"finish_reason\":\"length\"}]," : "\",\"finish_reason\":\"length\"}],");
    put_usage(b, s);
    pd_buf_append_char(b, '}');
    if (b->status == PD_OK)
        pd_http_respond(s->req, 200, &header_json, 1, pd_buf_str(b));
    else
        pd_http_error(s->req, 503, NULL, "overloaded", "Out of memory.", NULL);
}

static void stream_end(struct seq *s)
{
    struct pd_whatif_engine *e = s->engine;
    struct pd_buf *b = &e->scratch;
    pd_buf_clear(b);
    pd_buf_append_cstr(b, "data: ");
    put_start(b, e, s->is_chat, true);
    put_transfer(b, s);
    pd_buf_appendf(b, "\"choices\":[{\"index\":0,%s,\"finish_reason\":\"length\"}]}\n\n",
                   s->is_chat ? "\"delta\":{}" : "\"text\":\"\"");
    if (s->has_usage) {
        pd_buf_append_cstr(b, "data: ");
        put_start(b, e, s->is_chat, true);
        pd_buf_append_cstr(b, "\"choices\":[],");
        put_usage(b, s);
        pd_buf_append_cstr(b, "}\n\n");
    }
    pd_buf_append_cstr(b, "data: [DONE]\n\n");
    if (b->status != PD_OK) {
        pd_http_abort(s->req);
        return;
    }
    pd_http_write_str(s->req, pd_buf_str(b));
    pd_http_end(s->req);
}

/* The tokens that were not sent yet, as one event. */
static void stream_held(struct seq *s)
{
    struct pd_whatif_engine *e = s->engine;
    struct pd_str one = pd_buf_str(&e->event[s->is_chat]), word = PD_STR(" token");
    if (s->held > 1) {
        size_t at = pd_str_find(one, word);
        pd_buf_clear(&e->scratch);
        pd_buf_append(&e->scratch, one.p, at);
        for (uint32_t i = 0; i < s->held; i++)
            pd_buf_append_str(&e->scratch, word);
        pd_buf_append(&e->scratch, one.p + at + word.n, one.n - at - word.n);
        one = pd_buf_str(&e->scratch);
    }
    pd_http_write_str(s->req, one);
    s->held = 0;
}

void pd_whatif_engine_token(struct seq *s)
{
    struct pd_whatif_engine *e = s->engine;
    s->made++;
    s->held++;
    e->stats.output_tokens++;
    bool is_last = s->made == s->wanted;
    if (s->is_stream && (s->made == 1 || is_last || s->held >= (uint64_t)e->opts.class->stream_interval))
        stream_held(s);
    if (!is_last)
        return;
    pd_whatif_batch_remove(e, s);
    e->stats.answers++;
    if (s->is_stream)
        stream_end(s);
    else
        answer_whole(s);
}

/* ---- prefill and decode apart ------------------------------------------------------------- */

static void on_transferred(struct pd_timer *timer, void *arg)
{
    struct seq *s = arg;
    (void)timer;
    pd_whatif_batch_add(s->engine, s);
}

static void transfer(struct seq *s)
{
    const struct pd_whatif_class *c = s->engine->opts.class;
    pd_timer_start(&s->timer, c->transfer_latency +
                   (pd_time)((double)s->prompt / c->transfer_tokens_per_s * (double)PD_SEC));
}

void pd_whatif_engine_computed(struct seq *s)
{
    struct pd_whatif_rooms *rooms = s->engine->opts.rooms;
    if (s->room == 0 || s->is_transferred)
        return;
    struct seq *other = pd_idmap_remove(&rooms->waiting, s->room);
    if (other != NULL)
        transfer(other);
    else if (pd_idmap_put(&rooms->done, s->room, rooms, NULL) != PD_OK)
        s->engine->stats.short_of_memory++;
}

static void begin(struct seq *s)
{
    struct pd_whatif_rooms *rooms = s->engine->opts.rooms;
    if (!s->is_transferred)
        pd_whatif_batch_add(s->engine, s);
    else if (s->room == 0 || pd_idmap_remove(&rooms->done, s->room) != NULL)
        transfer(s);
    else if (pd_idmap_add(&rooms->waiting, s->room, s) != PD_OK)
        pd_http_error(s->req, 400, NULL, "bootstrap_room", "The room is taken.", NULL);
}

/* ---- requests ------------------------------------------------------------------------------ */

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    struct seq *s = arg;
    struct pd_whatif_engine *e = s->engine;
    (void)req;
    (void)why;
    pd_timer_stop(&s->timer);
    if (s->room != 0 && pd_idmap_get(&e->opts.rooms->waiting, s->room) == s)
        (void)pd_idmap_remove(&e->opts.rooms->waiting, s->room);
    pd_whatif_batch_remove(e, s);
    e->stats.gone++;
}

static const struct pd_http_req_events seq_events = { .on_gone = on_gone };

static bool refuse(struct seq *s, uint32_t status, const char *code, const char *text)
{
    s->engine->stats.refused++;
    pd_http_error(s->req, status, NULL, code, text, NULL);
    return false;
}

/* A token for each TOKEN_BYTES of text, and the hashes of its blocks. */
static bool prompt_read(struct seq *s, struct pd_str text)
{
    size_t block = (size_t)s->engine->opts.class->block_tokens * TOKEN_BYTES;
    uint64_t tokens = (text.n + TOKEN_BYTES - 1) / TOKEN_BYTES;
    if (tokens > PROMPT_MAX)
        return refuse(s, 400, "context_length_exceeded", "The prompt is too long.");
    s->prompt = tokens > 0 ? (uint32_t)tokens : 1;
    s->n_hashes = (uint32_t)(text.n / block < HASHES_MAX ? text.n / block : HASHES_MAX);
    if (s->n_hashes == 0)
        return true;
    s->hashes = pd_arena_calloc(pd_http_req_arena(s->req), s->n_hashes, sizeof *s->hashes);
    if (s->hashes == NULL) {
        s->engine->stats.short_of_memory++;
        return refuse(s, 503, "overloaded", "Out of memory.");
    }
    pd_hash_chain(text.p, text.n, block, CHAIN_SEED, s->hashes, s->n_hashes);
    return true;
}

static bool seq_read(struct seq *s)
{
    static const char *const paths[] = {
        "prompt", "messages", "stream", "max_tokens", "max_completion_tokens", "stream_options.include_usage",
        "kv_transfer_params.do_remote_decode", "kv_transfer_params.do_remote_prefill",
        "kv_transfer_params.remote_engine_id", "bootstrap_room"
    };
    enum { PROMPT, MESSAGES, STREAM, TOKENS, COMPLETION_TOKENS, USAGE, LEAVE, TAKE, ENGINE, ROOM, PATHS };
    struct pd_json_value v[PATHS];
    struct pd_json_error error;
    uint64_t n = DEFAULT_TOKENS, all;
    if (pd_json_scan(pd_http_req_body(s->req), NULL, paths, PATHS, v, &error) != PD_OK)
        return refuse(s, 400, "invalid_json", error.text);
    const struct pd_json_value *prompt = &v[s->is_chat ? MESSAGES : PROMPT];
    if (prompt->type == PD_JSON_NONE)
        return refuse(s, 400, "missing", "There is no prompt.");
    (void)pd_json_get_bool(&v[STREAM], &s->is_stream);
    (void)pd_json_get_bool(&v[USAGE], &s->has_usage);
    (void)pd_json_get_bool(&v[LEAVE], &s->is_prefill);
    (void)pd_json_get_bool(&v[TAKE], &s->is_transferred);
    if (s->is_transferred && !pd_json_is_str(&v[ENGINE], "pdsim"))
        return refuse(s, 400, "kv_transfer_params", "There is nothing of a prefill server in it.");
    if (pd_json_get_u64(&v[ROOM], &s->room) == PD_OK)
        s->is_transferred = (s->engine->opts.roles & PD_ROLE_PREFILL) == 0;
    if (pd_json_get_u64(&v[COMPLETION_TOKENS], &n) != PD_OK)
        (void)pd_json_get_u64(&v[TOKENS], &n);
    s->wanted = n < 1 ? 1 : n < ANSWER_TOKENS_MAX ? (uint32_t)n : ANSWER_TOKENS_MAX;
    if (s->room != 0 && !s->is_transferred)
        s->wanted = 1;          /* a prefill server stops by itself */
    struct pd_str text = prompt->text;
    if (prompt->type == PD_JSON_STRING)
        text = pd_str_sub(text, 1, text.n - 2);
    if (!prompt_read(s, text))
        return false;
    all = (uint64_t)s->prompt + s->wanted + (uint64_t)s->engine->opts.class->block_tokens;
    if (all > (uint64_t)s->engine->opts.class->kv_tokens)
        return refuse(s, 400, "context_length_exceeded", "The request is larger than the server's memory.");
    return true;
}

static void complete(struct pd_whatif_engine *e, struct pd_http_req *req, bool is_chat)
{
    struct seq *s = pd_arena_calloc(pd_http_req_arena(req), 1, sizeof *s);
    e->stats.requests++;
    if (s == NULL) {
        e->stats.refused++;
        e->stats.short_of_memory++;
        pd_http_error(req, 503, NULL, "overloaded", "Out of memory.", NULL);
        return;
    }
    s->engine = e;
    s->req = req;
    s->is_chat = is_chat;
    pd_list_init(&s->link);
    pd_timer_init(&s->timer, e->loop, "transfer", on_transferred, s);
    if (!seq_read(s))
        return;
    pd_http_req_body_release(req);
    pd_http_req_set_events(req, &seq_events, s);
    if (s->is_stream && pd_http_begin(req, 200, &header_sse, 1, PD_HTTP_UNKNOWN_LENGTH) != PD_OK) {
        e->stats.gone++;
        pd_http_abort(req);
        return;
    }
    begin(s);
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
    struct pd_whatif_engine *e = arg;
    struct pd_buf *b = &e->scratch;
    pd_buf_clear(b);
    pd_buf_append_cstr(b, "{\"object\":\"list\",\"data\":[");
    for (uint64_t i = 0; i < e->opts.n_models; i++) {
        pd_buf_append_cstr(b, i > 0 ? ",{\"id\":" : "{\"id\":");
        pd_json_put_cstr(b, e->opts.models[i]);
        pd_buf_append_cstr(b, ",\"object\":\"model\",\"created\":1767225600,\"owned_by\":\"pdsim\"}");
    }
    pd_buf_append_cstr(b, "]}");
    pd_http_respond(req, 200, &header_json, 1, pd_buf_str(b));
}

static void on_health(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, NULL, 0, PD_STR(""));
}

static void on_info(struct pd_http_req *req, void *arg)
{
    const struct pd_whatif_engine *e = arg;
    struct pd_str text = PD_STR("{\"disaggregation_mode\":\"null\"}");
    if (e->opts.roles == PD_ROLE_PREFILL)
        text = PD_STR("{\"disaggregation_mode\":\"prefill\"}");
    else if (e->opts.roles == PD_ROLE_DECODE)
        text = PD_STR("{\"disaggregation_mode\":\"decode\"}");
    pd_http_respond(req, 200, &header_json, 1, text);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void check_over(struct pd_whatif_engine *e)
{
    if (!e->is_closing || e->n_closing > 0)
        return;
    void (*on_closed)(void *) = e->on_closed;
    void *arg = e->arg;
    pd_whatif_batch_reset(e);
    pd_buf_fini(&e->event[0]);
    pd_buf_fini(&e->event[1]);
    pd_buf_fini(&e->scratch);
    pd_free(e);
    if (on_closed != NULL)
        on_closed(arg);
}

static void on_server_closed(void *arg)
{
    struct pd_whatif_engine *e = arg;
    e->n_closing--;
    check_over(e);
}

pd_status pd_whatif_engine_revive(struct pd_whatif_engine *e)
{
    const struct pd_http_route routes[] = {
        { .path = "/v1/chat/completions", .methods = 1u << PD_HTTP_POST, .on_request = on_chat, .arg = e },
        { .path = "/v1/completions", .methods = 1u << PD_HTTP_POST, .on_request = on_completion, .arg = e },
        { .path = "/v1/models", .methods = 1u << PD_HTTP_GET, .on_request = on_models, .arg = e },
        { .path = "/health", .methods = 1u << PD_HTTP_GET, .on_request = on_health, .arg = e },
        { .path = "/server_info", .methods = 1u << PD_HTTP_GET, .on_request = on_info, .arg = e },
    };
    const struct pd_http_server_opts opts = {
        .size = sizeof opts, .name = "server", .max_conns = 65536, .body_limit = 64u << 20,
        .idle_ns = 3600 * PD_SEC, .write_ns = 600 * PD_SEC, .body_ns = 600 * PD_SEC,
    };
    if (e->server != NULL)
        return PD_OK;
    pd_status status = pd_http_server_create(e->loop, &opts, &e->server);
    if (status != PD_OK)
        return status;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0] && status == PD_OK; i++)
        status = pd_http_server_route(e->server, &routes[i]);
    return status == PD_OK ? pd_http_server_listen(e->server, &e->opts.addr, NULL) : status;
}

void pd_whatif_engine_kill(struct pd_whatif_engine *e)
{
    struct pd_http_server *server = e->server;
    if (server == NULL)
        return;
    e->server = NULL;
    e->n_closing++;
    pd_http_server_close(server, on_server_closed, e);
    pd_whatif_batch_reset(e);
}

void pd_whatif_engine_slow(struct pd_whatif_engine *e, double factor)
{
    e->slowness = factor;
}

void pd_whatif_engine_close(struct pd_whatif_engine *e, void (*on_closed)(void *arg), void *arg)
{
    e->on_closed = on_closed;
    e->arg = arg;
    pd_whatif_engine_kill(e);
    e->is_closing = true;
    check_over(e);
}

pd_status pd_whatif_engine_create(struct pd_loop *loop, const struct pd_whatif_engine_opts *opts,
                                  struct pd_whatif_engine **out)
{
    struct pd_whatif_engine *e = pd_calloc(1, sizeof *e);
    if (e == NULL)
        return PD_ENOMEM;
    e->loop = loop;
    e->opts = *opts;
    e->slowness = 1;
    pd_whatif_batch_init(e);
    pd_buf_init(&e->scratch, ANSWER_MAX);
    pd_status status = event_make(e, false);
    if (event_make(e, true) != PD_OK && status == PD_OK)
        status = PD_ENOMEM;
    if (status == PD_OK)
        status = pd_whatif_engine_revive(e);
    *out = e;
    return status;
}

const struct pd_whatif_engine_stats *pd_whatif_engine_stats(const struct pd_whatif_engine *e)
{
    return &e->stats;
}
