/* SPDX-License-Identifier: Apache-2.0 */
/* The request object: its pool, its identity, and what handlers read of it. */
#include "net/server_int.h"

#include "base/compiler.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>
#if defined(__SSE2__) && defined(__x86_64__)
#include <emmintrin.h>
#endif

#define KEEP_OUT (8 * 1024)
#define ARENA_CHUNK 2048
#define ARENA_LIMIT (1 << 20)

struct pd_http_req *pd_http_req_get(struct pd_http_server *s)
{
    struct pd_list *link = pd_list_pop(&s->req_pool);
    struct pd_http_req *req;

    if (link != NULL) {
        s->n_req_pool--;
        return PD_LIST_ENTRY(link, struct pd_http_req, link);
    }
    req = pd_calloc(1, sizeof(*req));
    if (req == NULL)
        return NULL;
    pd_list_init(&req->link);
    pd_http1_init(&req->parser, false, s->opts.body_limit);
    pd_arena_init(&req->arena, ARENA_CHUNK, ARENA_LIMIT);
    pd_buf_init(&req->out, SIZE_MAX / 4);
    req->deadline = PD_TIME_NEVER;
    return req;
}

void pd_http_req_free(struct pd_http_req *req)
{
    pd_http1_fini(&req->parser);
    pd_arena_fini(&req->arena);
    pd_buf_fini(&req->out);
    pd_free(req->body_memory);
    pd_free(req->label);
    pd_free(req);
}

/* Long bodies come again and again where prompts are long, and fresh memory for
 * each costs more than to read them: some of it is kept, for all connections. */
char *pd_http_body_get(struct pd_http_server *s, size_t n, size_t *cap)
{
    for (size_t i = s->n_bodies; i > 0; i--) {
        char *p = s->bodies[i - 1].p;
        if (s->bodies[i - 1].cap < n || s->bodies[i - 1].cap / 4 > n)
            continue;
        *cap = s->bodies[i - 1].cap;
        s->bodies_bytes -= *cap;
        s->n_bodies--;
        memmove(&s->bodies[i - 1], &s->bodies[i], (s->n_bodies - (i - 1)) * sizeof(s->bodies[0]));
        return p;
    }
    *cap = n;
    return pd_alloc(n);
}

void pd_http_body_put(struct pd_http_server *s, char *p, size_t cap)
{
    if (s->n_bodies == PD_HTTP_BODIES || cap > PD_HTTP_BODIES_BYTES - s->bodies_bytes) {
        pd_free(p);
        return;
    }
    s->bodies[s->n_bodies].p = p;
    s->bodies[s->n_bodies++].cap = cap;
    s->bodies_bytes += cap;
}

static void drop_large_body(struct pd_http_server *s, struct pd_http_req *req)
{
    if (req->body_cap <= PD_HTTP_KEEP_BODY)
        return;
    pd_http_body_put(s, req->body_memory,
                     req->body_cap + (size_t)(req->body - req->body_memory));
    req->body = req->body_memory = NULL;
    req->body_cap = 0;
}

void pd_http_req_put(struct pd_http_server *s, struct pd_http_req *req)
{
    s->stats.queued_bytes -= req->counted;
    s->stats.body_bytes -= req->held;
    if (s->n_req_pool >= PD_HTTP_POOL) {
        pd_http_req_free(req);
        return;
    }
    pd_http1_reset(&req->parser);
    req->parser.body_limit = s->opts.body_limit;
    pd_arena_reset(&req->arena);
    pd_buf_clear(&req->out);
    if (req->out.cap > KEEP_OUT)
        pd_buf_fini(&req->out);
    drop_large_body(s, req);
    pd_zero(&req->conn, sizeof(*req) - offsetof(struct pd_http_req, conn));
    if (req->label != NULL)
        req->label[0] = '\0';
    req->deadline = PD_TIME_NEVER;
    pd_list_prepend(&s->req_pool, &req->link);
    s->n_req_pool++;
}

static bool id_is_plain(struct pd_str s)
{
    if (s.n == 0 || s.n > 64)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

#if !(defined(__SSE2__) && defined(__x86_64__))
/* The eight hex digits of v, all at a time: one in each byte. */
static void put_hex8(char *to, uint32_t v)
{
    uint64_t x = __builtin_bswap32(v), above;

    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    x = (x >> 4 | x << 8) & 0x0f0f0f0f0f0f0f0fu;
    above = (x + 0x0606060606060606u) >> 4 & 0x0101010101010101u;  /* digits from 'a' on */
    x += 0x3030303030303030u + above * ('a' - '0' - 10);
    memcpy(to, &x, sizeof x);
}
#endif

static void put_hex(char *to, uint64_t v)
{
#if defined(__SSE2__) && defined(__x86_64__)
    const __m128i low = _mm_set1_epi8(0x0f);
    __m128i x = _mm_cvtsi64_si128((long long)__builtin_bswap64(v));
    __m128i digit = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(x, 4), low), _mm_and_si128(x, low));
    __m128i above = _mm_and_si128(_mm_cmpgt_epi8(digit, _mm_set1_epi8(9)), _mm_set1_epi8('a' - '0' - 10));

    digit = _mm_add_epi8(_mm_add_epi8(digit, _mm_set1_epi8('0')), above);
    memcpy(to, &digit, sizeof digit);
#else
    put_hex8(to, (uint32_t)(v >> 32));
    put_hex8(to + 8, (uint32_t)v);
#endif
}

void pd_http_server_seed_ids(struct pd_http_server *s)
{
    put_hex(s->id_prefix, pd_loop_random_u64(s->loop));
    s->id_seed = pd_loop_random_u64(s->loop);
}

void pd_http_req_new_id(struct pd_http_req *req)
{
    struct pd_http_server *s = req->conn->server;
    struct pd_str given = { NULL, 0 };

    if (req->has_head)
        given = pd_http1_id(&req->parser);
    req->id_is_given = id_is_plain(given);
    if (req->id_is_given) {
        memcpy(req->id, given.p, given.n);
        req->id[given.n] = '\0';
        req->id_n = (uint8_t)given.n;
        return;
    }
    /* The second half is a bijection of a counter: no two are equal. */
    memcpy(req->id, s->id_prefix, sizeof(s->id_prefix));
    put_hex(req->id + sizeof(s->id_prefix), pd_hash_u64(s->id_next++, s->id_seed));
    req->id[32] = '\0';
    req->id_n = 32;
}

bool pd_http_req_id_given(const struct pd_http_req *req)
{
    return req->id_is_given;
}

const struct pd_http_head *pd_http_req_head(const struct pd_http_req *req)
{
    return &req->parser.head;
}

enum pd_http_method pd_http_req_method(const struct pd_http_req *req)
{
    return req->parser.head.method;
}

struct pd_str pd_http_req_path(const struct pd_http_req *req)
{
    return req->parser.head.path;
}

struct pd_str pd_http_req_header(const struct pd_http_req *req, const char *name)
{
    return pd_http_head_get(&req->parser.head, name);
}

struct pd_str pd_http_req_body(const struct pd_http_req *req)
{
    return (struct pd_str){ req->body != NULL ? req->body : "", req->body_n };
}

void pd_http_req_body_release(struct pd_http_req *req)
{
    if (!req->body_done || req->is_stream)
        return;
    req->conn->server->stats.body_bytes -= req->held;
    req->held = 0;
    drop_large_body(req->conn->server, req);
    pd_free(req->body_memory);
    req->body = req->body_memory = NULL;
    req->body_n = req->body_cap = 0;
}

void pd_http_req_lighten(struct pd_http_req *req)
{
    if (!req->body_done || !req->has_begun)
        return;
    pd_http_req_body_release(req);
    pd_http1_forget_head(&req->parser);
    if (req->out.n == 0)
        pd_buf_fini(&req->out);
}

struct pd_str pd_http_req_id(const struct pd_http_req *req)
{
    return (struct pd_str){ req->id, req->id_n };
}

struct pd_str pd_http_req_label(const struct pd_http_req *req)
{
    return pd_str_from(req->label != NULL ? req->label : "");
}

/* Names are lower case; the parser has dropped those with an underscore. */
static bool is_hint(struct pd_str name)
{
    static const char *const names[] = {
        "x-prefiller-host-port", "x-prefiller-url", "x-encoder-hosts-ports",
        "x-data-parallel-host-port", "x-data-parallel-rank", "forwarded",
    };
    static const char *const families[] = { "x-kv-", "x-pd-", "x-forwarded-" };

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (pd_str_starts_with(name, pd_str_from(families[i])))
            return true;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (pd_str_is(name, names[i]))
            return true;
    return false;
}

struct pd_str pd_http_req_hint(const struct pd_http_req *req)
{
    const struct pd_http_head *h = &req->parser.head;

    for (size_t i = 0; i < h->n_headers; i++)
        if (is_hint(h->headers[i].name))
            return h->headers[i].name;
    return pd_str_of("", 0);
}

pd_status pd_http_req_peer(const struct pd_http_req *req, struct pd_addr *out)
{
    return pd_stream_peer_addr(req->conn->stream, out);
}

pd_time pd_http_req_start(const struct pd_http_req *req)
{
    return req->start;
}

struct pd_arena *pd_http_req_arena(struct pd_http_req *req)
{
    return &req->arena;
}

struct pd_http_server *pd_http_req_server(const struct pd_http_req *req)
{
    return req->conn->server;
}

void pd_http_req_set_events(struct pd_http_req *req, const struct pd_http_req_events *ev,
                            void *arg)
{
    req->ev = ev;
    req->arg = arg;
}

void *pd_http_req_arg(const struct pd_http_req *req)
{
    return req->arg;
}

void pd_http_req_set_deadline(struct pd_http_req *req, pd_time delay_ns)
{
    pd_time now = pd_loop_now(req->conn->server->loop);

    req->deadline = delay_ns == 0 || delay_ns > PD_TIME_NEVER - 1 - now ? PD_TIME_NEVER
                                                                       : now + delay_ns;
    pd_http_conn_arm_at(req->conn, req->deadline);
}

void pd_http_req_pause(struct pd_http_req *req)
{
    req->is_paused = true;
    pd_http_conn_update_read(req->conn);
}

void pd_http_req_resume(struct pd_http_req *req)
{
    req->is_paused = false;
    req->conn->since = pd_loop_now(req->conn->server->loop);
    pd_http_conn_update_read(req->conn);
    pd_http_conn_arm(req->conn);
}
