/* SPDX-License-Identifier: Apache-2.0 */
/* The load: a fixed set of slots, each with at most one request under way.  A
 * slot that is free takes the next request when that is due; in the open loop
 * due times go on while no slot is free, so the wait is part of every delay. */
#include "bench/load.h"

#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/client.h"
#include "net/sse.h"

#define EVENT_MAX (4u << 20)
#define BODY_MAX (256u << 20)
#define MAX_SLOTS 65536u

struct slot {
    struct pd_bench_load *load;
    struct pd_http_call *call;
    struct slot *next_free;
    struct pd_iov body;
    struct pd_buf made;         /* the body, when it is made for this request */
    struct pd_sse sse;
    uint64_t index;
    pd_time meant;
    pd_time first;              /* 0: nothing yet */
    pd_time last;               /* token */
    pd_time now;                /* of the piece that is read */
    uint32_t tokens;
    uint32_t status;
    bool is_stream;
    bool is_done;
    bool has_error;
};

struct pd_bench_load {
    struct pd_loop *loop;
    struct pd_bench_load_opts opts;
    struct pd_http_client *client;
    struct slot *slots;
    struct slot *free_slots;
    uint32_t n_open;
    bool is_ending;             /* no new requests */
    bool is_over;
    pd_time start;
    pd_time due;                /* open loop: of the next request */
    struct pd_timer timer;      /* open loop: next start */
    struct pd_timer limit;      /* end of the duration, then of the grace */
    struct pd_task begin;       /* starts what can be started, outside of callbacks */
    struct pd_bench_load_result result;
    struct pd_http_header headers[2];
    struct pd_buf auth;
    void (*on_done)(void *arg);
    void *arg;
};

static const char *const error_names[PD_BENCH_ERRORS] = {
    "connect", "timeout", "cut", "protocol", "4xx", "429", "5xx", "error_event", "no_done", "local",
};

const char *pd_bench_error_name(enum pd_bench_error error)
{
    return error < PD_BENCH_ERRORS ? error_names[error] : "?";
}

/* ---- ends -------------------------------------------------------------------------------- */

static void on_client_closed(void *arg)
{
    struct pd_bench_load *l = arg;
    l->client = NULL;
    l->on_done(l->arg);
}

static void check_over(struct pd_bench_load *l)
{
    if (!l->is_ending || l->n_open > 0 || l->is_over)
        return;
    l->is_over = true;
    pd_timer_stop(&l->timer);
    pd_timer_stop(&l->limit);
    pd_task_cancel(l->loop, &l->begin);
    pd_http_client_close(l->client, on_client_closed, l);
}

/* The slice of a time; pairs of slices become one when the load goes on longer. */
static struct pd_bench_slice *slice_at(struct pd_bench_load *l, pd_time now)
{
    struct pd_bench_load_result *r = &l->result;
    pd_time at = now - l->start;
    while (at / r->slice >= PD_BENCH_SLICES) {
        for (uint32_t i = 0; i < PD_BENCH_SLICES; i++) {
            struct pd_bench_slice s = r->slices[i];
            if (i % 2 == 0) {
                r->slices[i / 2] = s;
                continue;
            }
            struct pd_bench_slice *to = &r->slices[i / 2];
            to->ok += s.ok;
            to->failed += s.failed;
            to->tokens += s.tokens;
            to->first_n += s.first_n;
            to->first_sum += s.first_sum;
        }
        memset(r->slices + PD_BENCH_SLICES / 2, 0, sizeof r->slices / 2);
        r->slice *= 2;
    }
    return &r->slices[at / r->slice];
}

static bool is_counted(const struct slot *s)
{
    return s->meant >= s->load->start + s->load->opts.warmup;
}

/* The request is over; error is PD_BENCH_ERRORS when it went well. */
static void slot_done(struct slot *s, enum pd_bench_error error)
{
    struct pd_bench_load *l = s->load;
    struct pd_bench_load_result *r = &l->result;
    pd_time now = pd_loop_clock(l->loop);
    struct pd_bench_slice *slice = slice_at(l, now);
    r->elapsed = now - l->start;
    *(error == PD_BENCH_ERRORS ? &slice->ok : &slice->failed) += 1;
    if (is_counted(s)) {
        if (error == PD_BENCH_ERRORS) {
            r->ok++;
            pd_bench_hist_add(&r->e2e, now - s->meant);
            if (s->first != 0)
                pd_bench_hist_add(&r->ttft, s->first - s->meant);
        } else {
            r->errors[error]++;
        }
        r->seconds = now - l->start - l->opts.warmup;
    }
    if (l->opts.on_request != NULL) {
        const struct pd_bench_load_record record = {
            .index = s->index, .meant = s->meant, .first = s->first, .last = s->last, .end = now,
            .events = s->tokens, .error = error, .is_counted = is_counted(s),
        };
        l->opts.on_request(l->opts.arg, &record);
    }
    s->call = NULL;
    s->next_free = l->free_slots;
    l->free_slots = s;
    l->n_open--;
    pd_loop_defer(l->loop, &l->begin);
}

/* ---- answers ------------------------------------------------------------------------------- */

/* Whether an event brings text: "content" or "text" with a string that is not empty. */
static bool has_text(struct pd_str data)
{
    static const char *const keys[] = { "content\"", "text\"" };
    for (size_t k = 0; k < 2; k++) {
        struct pd_str key = pd_str_from(keys[k]);
        size_t at = pd_str_find(data, key);
        if (at == PD_STR_NPOS)
            continue;
        size_t i = at + key.n;
        while (i < data.n && (data.p[i] == ':' || data.p[i] == ' '))
            i++;
        if (i + 1 < data.n && data.p[i] == '"' && data.p[i + 1] != '"')
            return true;
    }
    return false;
}

static void saw_first(struct slot *s)
{
    struct pd_bench_slice *slice = slice_at(s->load, s->now);
    s->first = s->now;
    slice->first_n++;
    slice->first_sum += (double)(s->now - s->meant);
}

static void on_event(const struct pd_sse_event *event, void *arg)
{
    struct slot *s = arg;
    struct pd_bench_load_result *r = &s->load->result;
    if (pd_sse_is_done(event)) {
        s->is_done = true;
        return;
    }
    if (pd_str_starts_with(event->data, PD_STR("{\"error\""))) {
        s->has_error = true;
        return;
    }
    if (!has_text(event->data))
        return;
    slice_at(s->load, s->now)->tokens++;
    if (s->tokens++ == 0)
        saw_first(s);
    else if (is_counted(s))
        pd_bench_hist_add(&r->itl, s->now - s->last);
    s->last = s->now;
    r->tokens += is_counted(s);
}

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct slot *s = arg;
    (void)call;
    s->status = head->status;
    s->is_stream = pd_str_starts_with_nocase(pd_http_head_get(head, "content-type"), PD_STR("text/event-stream"));
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct slot *s = arg;
    (void)call;
    s->now = pd_loop_clock(s->load->loop);
    if (is_counted(s))
        s->load->result.bytes += piece.n;
    if (!s->is_stream) {
        if (s->first == 0)
            saw_first(s);
    } else if (pd_sse_feed(&s->sse, piece.p, piece.n, on_event, s) != PD_OK) {
        s->has_error = true;
    }
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct slot *s = arg;
    (void)call;
    if (s->status >= 500)
        slot_done(s, PD_BENCH_ERROR_5XX);
    else if (s->status >= 400)
        slot_done(s, s->status == 429 ? PD_BENCH_ERROR_429 : PD_BENCH_ERROR_4XX);
    else if (s->has_error)
        slot_done(s, PD_BENCH_ERROR_EVENT);
    else if (s->is_stream && !s->is_done)
        slot_done(s, PD_BENCH_ERROR_NO_DONE);
    else
        slot_done(s, PD_BENCH_ERRORS);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    (void)call;
    if (why == PD_ETIMEDOUT)
        slot_done(arg, PD_BENCH_ERROR_TIMEOUT);
    else if (fail == PD_HTTP_FAIL_CONNECT)
        slot_done(arg, PD_BENCH_ERROR_CONNECT);
    else
        slot_done(arg, why == PD_EPROTO || why == PD_ELIMIT ? PD_BENCH_ERROR_PROTOCOL : PD_BENCH_ERROR_CUT);
}

static const struct pd_http_call_events call_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error,
};

/* ---- starts --------------------------------------------------------------------------------- */

/* False: the body cannot be made. */
static bool body_get(struct pd_bench_load *l, struct slot *s)
{
    struct pd_str body;
    if (l->opts.make_body == NULL) {
        body = l->opts.bodies[s->index % l->opts.n_bodies];
    } else {
        pd_buf_clear(&s->made);
        if (l->opts.make_body(l->opts.arg, s->index, &s->made) != PD_OK)
            return false;
        body = pd_buf_str(&s->made);
    }
    s->body = (struct pd_iov){ (void *)(uintptr_t)body.p, body.n };
    return true;
}

static void start_one(struct pd_bench_load *l, pd_time meant, pd_time now)
{
    struct slot *s = l->free_slots;
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .addr = l->opts.addr, .host = l->opts.host, .method = PD_HTTP_POST,
        .target = l->opts.target, .headers = l->headers, .n_headers = l->auth.n > 0 ? 2 : 1, .body = &s->body,
        .n_body = 1, .is_replayable = 1,
    };
    l->free_slots = s->next_free;
    l->n_open++;
    s->index = l->result.started++;
    pd_sse_reset(&s->sse);
    s->meant = meant;
    s->first = s->last = 0;
    s->tokens = s->status = 0;
    s->is_stream = s->is_done = s->has_error = false;
    if (now > meant + PD_MS && is_counted(s))
        l->result.late++;
    if (!body_get(l, s) || pd_http_call_start(l->client, &opts, &call_events, s, &s->call) != PD_OK)
        slot_done(s, PD_BENCH_ERROR_LOCAL);
}

static bool may_start(struct pd_bench_load *l)
{
    if ((l->opts.requests > 0 && l->result.started >= l->opts.requests) ||
        (l->opts.arrivals != NULL && l->result.started >= l->opts.n_bodies))
        l->is_ending = true;
    return !l->is_ending && l->free_slots != NULL;
}

static pd_time gap(struct pd_bench_load *l)
{
    double mean = (double)PD_SEC / l->opts.rate;
    if (l->opts.is_constant)
        return (pd_time)mean;
    double u = ((double)(pd_loop_random_u64(l->loop) >> 11) + 0.5) / 9007199254740992.0;
    return (pd_time)(-log(u) * mean);
}

static bool is_open_loop(const struct pd_bench_load *l)
{
    return l->opts.rate > 0 || l->opts.arrivals != NULL;
}

/* When the next request is due after one has started. */
static pd_time next_due(struct pd_bench_load *l)
{
    if (l->opts.arrivals != NULL)
        return l->result.started < l->opts.n_bodies ? l->start + l->opts.arrivals[l->result.started] : l->due;
    return l->due + gap(l);
}

/* Starts everything that is due and has a slot.  Nothing here calls back. */
static void start_due(struct pd_bench_load *l)
{
    pd_time now = pd_loop_clock(l->loop);
    /* A local failure frees its slot at once: so many tries a turn, no more. */
    for (uint32_t i = 0; i < l->opts.concurrency && may_start(l); i++) {
        if (!is_open_loop(l)) {
            start_one(l, now, now);
            continue;
        }
        if (l->due > now) {
            pd_timer_start_at(&l->timer, l->due);
            break;
        }
        start_one(l, l->due, now);
        l->due = next_due(l);
    }
    if (is_open_loop(l) && may_start(l) && !pd_timer_is_active(&l->timer))
        pd_timer_start_at(&l->timer, l->due);
    check_over(l);
}

static void on_begin(struct pd_task *task, void *arg)
{
    (void)task;
    start_due(arg);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    start_due(arg);
}

/* The duration has passed; then the grace has. */
static void on_limit(struct pd_timer *timer, void *arg)
{
    struct pd_bench_load *l = arg;
    (void)timer;
    if (!l->is_ending) {
        pd_bench_load_stop(l, l->opts.timeout);
        return;
    }
    for (uint32_t i = 0; i < l->opts.concurrency; i++) {
        struct slot *s = &l->slots[i];
        if (s->call == NULL)
            continue;
        pd_http_call_cancel(s->call);
        slot_done(s, PD_BENCH_ERROR_TIMEOUT);
    }
    check_over(l);
}

void pd_bench_load_stop(struct pd_bench_load *l, pd_time grace_ns)
{
    if (l->is_over)
        return;
    l->is_ending = true;
    pd_timer_start(&l->limit, grace_ns);
    pd_loop_defer(l->loop, &l->begin);
}

/* ---- its life --------------------------------------------------------------------------------- */

static pd_status client_make(struct pd_bench_load *l)
{
    struct pd_http_client_opts opts = {
        .size = sizeof opts, .name = "bench load", .max_origins = 1, .max_conns = l->opts.concurrency,
        .max_idle = l->opts.concurrency, .max_waiting = l->opts.concurrency, .first_byte_ns = l->opts.timeout,
        .idle_ns = l->opts.timeout, .keep_ns = 3600 * PD_SEC,
    };
    return pd_http_client_create(l->loop, &opts, &l->client);
}

pd_status pd_bench_load_start(struct pd_loop *loop, const struct pd_bench_load_opts *opts,
                              void (*on_done)(void *arg), void *arg, struct pd_bench_load **out)
{
    if (opts->concurrency == 0 || opts->concurrency > MAX_SLOTS || opts->n_bodies == 0)
        return PD_EINVAL;
    struct pd_bench_load *l = pd_calloc(1, sizeof *l);
    if (l == NULL)
        return PD_ENOMEM;
    l->loop = loop;
    l->opts = *opts;
    l->on_done = on_done;
    l->arg = arg;
    if (l->opts.timeout == 0)
        l->opts.timeout = 60 * PD_SEC;
    pd_buf_init(&l->auth, 8192);
    l->headers[0] = (struct pd_http_header){ PD_STR("content-type"), PD_STR("application/json") };
    if (opts->api_key.n > 0)
        pd_buf_appendf(&l->auth, "Bearer %.*s", PD_STR_ARG(opts->api_key));
    l->headers[1] = (struct pd_http_header){ PD_STR("authorization"), pd_buf_str(&l->auth) };
    l->slots = pd_calloc(opts->concurrency, sizeof *l->slots);
    if (l->slots == NULL || l->auth.status != PD_OK || client_make(l) != PD_OK) {
        pd_free(l->slots);
        pd_buf_fini(&l->auth);
        pd_free(l);
        return PD_ENOMEM;
    }
    for (uint32_t i = opts->concurrency; i-- > 0;) {
        l->slots[i].load = l;
        l->slots[i].next_free = l->free_slots;
        l->free_slots = &l->slots[i];
        pd_sse_init(&l->slots[i].sse, EVENT_MAX);
        pd_buf_init(&l->slots[i].made, BODY_MAX);
    }
    pd_bench_hist_init(&l->result.ttft);
    pd_bench_hist_init(&l->result.itl);
    pd_bench_hist_init(&l->result.e2e);
    pd_timer_init(&l->timer, loop, "arrival", on_timer, l);
    pd_timer_init(&l->limit, loop, "duration", on_limit, l);
    pd_task_init(&l->begin, "begin", on_begin, l);
    l->start = pd_loop_clock(loop);
    l->due = opts->arrivals != NULL ? l->start + opts->arrivals[0] : l->start;
    l->result.slice = PD_SEC / 10;
    if (opts->duration > 0)
        pd_timer_start(&l->limit, opts->duration);
    pd_loop_defer(loop, &l->begin);
    *out = l;
    return PD_OK;
}

const struct pd_bench_load_result *pd_bench_load_result(const struct pd_bench_load *l)
{
    return &l->result;
}

uint32_t pd_bench_load_open(const struct pd_bench_load *l)
{
    return l->n_open;
}

void pd_bench_load_destroy(struct pd_bench_load *l)
{
    for (uint32_t i = 0; i < l->opts.concurrency; i++) {
        pd_sse_fini(&l->slots[i].sse);
        pd_buf_fini(&l->slots[i].made);
    }
    pd_free(l->slots);
    pd_buf_fini(&l->auth);
    pd_free(l);
}
