/* SPDX-License-Identifier: Apache-2.0 */
/* Sending what an interval gave:
 *
 *   tick -> read the registry -> look the host up -> POST the first body
 *     200          next body, until there is none
 *     429, 50x, no answer    the same again after a pause, until `give_up`
 *     another      that body is dropped, next one
 */
#include "otlp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_FIRST PD_SEC
#define PAUSE_MAX (30 * PD_SEC)
#define RETRY_AFTER_MAX (300 * PD_SEC)

static void send_first(struct pd_exporter *e);

static uint64_t points_of(const struct otlp_body *list)
{
    uint64_t n = 0;

    for (; list != NULL; list = list->next)
        n += list->points;
    return n;
}

static void drop_first(struct pd_exporter *e)
{
    struct otlp_body *b = e->bodies;

    e->bodies = b->next;
    b->next = NULL;
    otlp_bodies_free(b);
}

static void drop_all(struct pd_exporter *e)
{
    pd_counter_add(e->dropped, points_of(e->bodies));
    otlp_bodies_free(e->bodies);
    e->bodies = NULL;
}

static void complain(struct pd_exporter *e, const char *what)
{
    pd_counter_inc(e->failures);
    if (!e->is_failing)
        pd_log_warn(e->log, "the collector at %s cannot be told: %s", e->url.authority, what);
    e->is_failing = true;
}

static void again(struct pd_exporter *e, const char *what)
{
    pd_time now = pd_loop_now(e->loop);
    pd_time wait = e->retry_after > 0 ? e->retry_after : e->pause;

    complain(e, what);
    if (now + wait - e->collected > e->conf->give_up) {
        drop_all(e);
        return;
    }
    /* Not all nodes at the same time. */
    wait += pd_loop_random_u64(e->loop) % (wait / 4 + 1);
    e->pause = e->pause * 2 < PAUSE_MAX ? e->pause * 2 : PAUSE_MAX;
    pd_timer_start(&e->retry, wait);
}

static void next(struct pd_exporter *e)
{
    e->pause = PAUSE_FIRST;
    if (e->bodies != NULL)
        send_first(e);
}

/* How many points the collector did not take, of {"partialSuccess":{"rejectedDataPoints":"5"}}. */
static uint64_t rejected_of(const char *text)
{
    const char *p = strstr(text, "\"rejectedDataPoints\"");
    unsigned long long n = 0;

    if (p == NULL)
        return 0;
    p += strlen("\"rejectedDataPoints\"");
    p += strspn(p, " \t\r\n:\"");
    while (*p >= '0' && *p <= '9' && n < UINT32_MAX)
        n = n * 10 + (unsigned)(*p++ - '0');
    return n;
}

static void answered(struct pd_exporter *e)
{
    char what[64];

    snprintf(what, sizeof(what), "it answers %u", e->status);
    if (e->status / 100 == 2) {
        uint64_t points = e->bodies->points, rejected = rejected_of(e->answer);
        rejected = rejected < points ? rejected : points;
        pd_counter_add(e->sent, points - rejected);
        pd_counter_add(e->rejected, rejected);
        if (e->is_failing)
            pd_log_notice(e->log, "the collector at %s is told again", e->url.authority);
        e->is_failing = false;
        drop_first(e);
        next(e);
    } else if (e->status == 429 || e->status == 502 || e->status == 503 || e->status == 504) {
        again(e, what);
    } else {
        complain(e, what);
        pd_counter_add(e->dropped, e->bodies->points);
        drop_first(e);
        next(e);
    }
}

/* ---- one request */

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct pd_exporter *e = arg;

    (void)call;
    e->status = head->status;
    for (size_t i = 0; i < head->n_headers; i++) {
        struct pd_str name = head->headers[i].name, value = head->headers[i].value;
        uint64_t seconds = 0;
        if (name.n != 11 || memcmp(name.p, "retry-after", 11) != 0)
            continue;
        for (size_t k = 0; k < value.n && value.p[k] >= '0' && value.p[k] <= '9' && seconds < 100000; k++)
            seconds = seconds * 10 + (uint64_t)(value.p[k] - '0');
        e->retry_after = seconds * PD_SEC < RETRY_AFTER_MAX ? seconds * PD_SEC : RETRY_AFTER_MAX;
    }
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct pd_exporter *e = arg;
    size_t room = sizeof(e->answer) - 1 - e->answer_n;

    (void)call;
    if (piece.n > room)
        piece.n = room;
    memcpy(e->answer + e->answer_n, piece.p, piece.n);
    e->answer_n += piece.n;
    e->answer[e->answer_n] = '\0';
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct pd_exporter *e = arg;

    (void)call;
    e->call = NULL;
    answered(e);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct pd_exporter *e = arg;

    (void)call;
    (void)fail;
    e->call = NULL;
    if (why == PD_ECANCELED)    /* the node ends */
        drop_all(e);
    else
        again(e, pd_host()->status_text(why));
}

static void post(struct pd_exporter *e, const struct pd_addr *addr)
{
    static const struct pd_http_call_events events = { .on_head = on_head, .on_body = on_body,
                                                       .on_end = on_end, .on_error = on_error };
    const struct pd_http_header headers[] = {
        { PD_STR("content-type"), PD_STR("application/json") },
        { PD_STR("user-agent"), PD_STR("pdplane") },
        { PD_STR("authorization"), { e->authorization, strlen(e->authorization) } },
    };
    const struct pd_iov body = { e->bodies->p, e->bodies->n };
    const struct pd_http_call_opts opts = {
        .size = sizeof(opts), .addr = *addr, .method = PD_HTTP_POST,
        .host = { e->url.authority, strlen(e->url.authority) },
        .target = { e->url.target, strlen(e->url.target) }, .headers = headers,
        .n_headers = e->authorization[0] != '\0' ? 3 : 2, .body = &body, .n_body = 1,
        .connect_ns = e->conf->timeout, .first_byte_ns = e->conf->timeout, .idle_ns = e->conf->timeout,
        .body_limit = 1 << 20,
    };
    pd_status st;

    e->status = 0;
    e->retry_after = 0;
    e->answer_n = 0;
    e->answer[0] = '\0';
    pd_counter_inc(e->requests);
    st = e->api->call_start(e->net, &opts, &events, e, &e->call);
    if (st != PD_OK)
        again(e, pd_host()->status_text(st));
}

static void on_resolved(struct pd_resolve *r, pd_status status, const struct pd_addr *addrs, size_t n,
                        void *arg)
{
    struct pd_exporter *e = arg;

    (void)r;
    e->is_resolving = false;
    e->retry_after = 0;
    if (status != PD_OK || n == 0)
        again(e, "its name cannot be looked up");
    else
        post(e, &addrs[0]);
}

static void send_first(struct pd_exporter *e)
{
    pd_status st;

    memset(&e->resolve, 0, sizeof(e->resolve));
    e->resolve.cb = on_resolved;
    e->resolve.arg = e;
    e->resolve.name = "otlp";
    e->is_resolving = true;
    st = pd_resolve_start(e->loop, e->url.host, e->url.port, &e->resolve);
    if (st == PD_OK)
        return;
    e->is_resolving = false;
    e->retry_after = 0;
    again(e, pd_host()->status_text(st));
}

static void on_retry(struct pd_timer *timer, void *arg)
{
    (void)timer;
    send_first(arg);
}

/* ---- an interval */

static void collect(struct pd_exporter *e)
{
    const struct otlp_source source = {
        .metrics = e->metrics, .service = e->conf->service, .instance = e->instance,
        .version = pd_host()->version, .begin = e->begin, .now = pd_loop_wall(e->loop),
        .batch = e->conf->batch, .memory = e->conf->memory,
    };
    uint64_t dropped = 0;

    e->bodies = otlp_encode(&source, &dropped);
    pd_counter_add(e->dropped, dropped);
    e->collected = pd_loop_now(e->loop);
    next(e);
}

static void on_tick(struct pd_timer *timer, void *arg)
{
    struct pd_exporter *e = arg;

    pd_timer_start(timer, e->conf->interval);
    if (e->bodies != NULL)
        pd_counter_inc(e->late);
    else
        collect(e);
}

void otlp_push_init(struct pd_exporter *e)
{
    pd_timer_init(&e->tick, e->loop, "otlp interval", on_tick, e);
    pd_timer_init(&e->retry, e->loop, "otlp retry", on_retry, e);
}

void otlp_push_begin(struct pd_exporter *e)
{
    pd_timer_start(&e->tick, e->conf->interval);
}

void otlp_push_end(struct pd_exporter *e)
{
    pd_timer_stop(&e->tick);
    pd_timer_stop(&e->retry);
    if (e->is_resolving)
        pd_resolve_cancel(e->loop, &e->resolve);
    if (e->call != NULL)
        e->api->call_cancel(e->call);
    drop_all(e);
}
