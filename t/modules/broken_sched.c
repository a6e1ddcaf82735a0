/* SPDX-License-Identifier: Apache-2.0 */
/* A filter, a scorer, a picker and a decider that break their contract in the
 * way that their option names; t/12-conform.t expects to see it found. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pdplane/loop.h>
#include <pdplane/scheduler.h>

enum {
    FAULT_NONE, FAULT_LEAK, FAULT_RANGE, FAULT_UNSTABLE, FAULT_NAN, FAULT_BEHIND, FAULT_GROWTH,
    FAULT_ALLOC, FAULT_BUSY, FAULT_NOMEM, FAULT_CRASH, FAULT_MUTE, FAULT_FDS, FAULT_PROMISE,
    FAULT_GLOBAL,               /* one state for all instances, which goes with the first of them */
    FAULT_NUMBER,               /* the answer depends on which instance is asked */
    FAULT_FIRST,                /* there is always a first candidate */
    FAULT_STATE,                /* endpoints are always up */
    FAULT_OVERFLOW,             /* numbers are never larger than usual */
    FAULT_VECTOR                /* many candidates are taken by whole vectors */
};

struct broken_conf {
    uint32_t fault;
};

struct broken {
    uint32_t fault, calls, number;
    void *table;
    struct pd_timer busy;
};

struct pd_filter {
    struct broken b;
};
struct pd_scorer {
    struct broken b;
};
struct pd_picker {
    struct broken b;
};
struct pd_decider {
    struct broken b;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE }, { "leak", FAULT_LEAK }, { "range", FAULT_RANGE }, { "unstable", FAULT_UNSTABLE },
    { "nan", FAULT_NAN }, { "behind", FAULT_BEHIND }, { "growth", FAULT_GROWTH },
    { "alloc", FAULT_ALLOC }, { "busy", FAULT_BUSY }, { "nomem", FAULT_NOMEM }, { "crash", FAULT_CRASH },
    { "mute", FAULT_MUTE }, { "fds", FAULT_FDS }, { "global", FAULT_GLOBAL }, { "number", FAULT_NUMBER },
    { "first", FAULT_FIRST }, { "state", FAULT_STATE }, { "overflow", FAULT_OVERFLOW },
    { "vector", FAULT_VECTOR }, { "promise", FAULT_PROMISE }, { NULL, 0 },
};

static const struct broken *the_one;
static uint32_t instances;

static const struct pd_option options[] = {
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static void leak(size_t n)
{
    void *volatile lost = malloc(n);
    (void)lost;
}

static void on_busy(struct pd_timer *timer, void *arg)
{
    (void)arg;
    pd_timer_start(timer, PD_MS);
}

/* Two descriptors, as for a pipe, that go again. */
static pd_status take_descriptors(uint32_t fault, struct pd_err *err)
{
    int a = dup(STDIN_FILENO), b = dup(STDIN_FILENO);

    if (b >= 0)
        close(b);
    if (a >= 0 && (b >= 0 || fault != FAULT_FDS))
        close(a);
    if (a >= 0 && b >= 0)
        return PD_OK;
    err->status = PD_ELIMIT;
    if (fault != FAULT_MUTE)
        strcpy(err->text, "no descriptors left");
    return PD_ELIMIT;
}

static pd_status start(struct broken *b, const struct pd_instance_ctx *ctx, const void *conf, struct pd_err *err)
{
    b->fault = ((const struct broken_conf *)conf)->fault;
    b->number = instances++;
    the_one = b;
    if (b->fault == FAULT_LEAK)
        leak(100);
    pd_timer_init(&b->busy, ctx->loop, "broken busy", on_busy, b);
    if (b->fault == FAULT_BUSY)
        pd_timer_start(&b->busy, PD_MS);
    if (b->fault == FAULT_FDS || b->fault == FAULT_MUTE)
        return take_descriptors(b->fault, err);
    b->table = malloc(100);
    if (b->fault == FAULT_CRASH)
        *(volatile char *)b->table = 0;
    return b->table == NULL ? PD_ENOMEM : PD_OK;
}

static void stop(struct broken *b)
{
    the_one = NULL;
    pd_timer_stop(&b->busy);
    free(b->table);
}

static bool is_blind(const struct broken *b)
{
    return b->fault == FAULT_GLOBAL && the_one == NULL;
}

static void call(struct broken *b)
{
    b->calls++;
    if (b->fault == FAULT_GROWTH)
        leak(100);
    if (b->fault == FAULT_ALLOC) {
        void *volatile scratch = malloc(100);
        free(scratch);
    }
}

#define LIFE(type)                                                             \
    static pd_status type##_create(const struct pd_instance_ctx *ctx, const void *conf, \
                                   struct pd_##type **out, struct pd_err *err) \
    {                                                                          \
        struct pd_##type *p = calloc(1, sizeof *p);                            \
        pd_status st = p == NULL ? PD_ENOMEM : start(&p->b, ctx, conf, err);   \
        if (st == PD_OK)                                                       \
            *out = p;                                                          \
        else if (p != NULL && p->b.fault != FAULT_NOMEM)                       \
            free(p);                                                           \
        return st;                                                             \
    }                                                                          \
    static void type##_destroy(struct pd_##type *p)                            \
    {                                                                          \
        stop(&p->b);                                                           \
        free(p);                                                               \
    }
LIFE(filter)
LIFE(scorer)
LIFE(picker)
LIFE(decider)

static void filter_apply(struct pd_filter *f, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, uint32_t n, uint8_t *keep)
{
    (void)request;
    call(&f->b);
    if (f->b.fault == FAULT_BEHIND)
        keep[n] = 0;
    if (f->b.fault == FAULT_FIRST)
        keep[0] = 1;
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n && f->b.fault == FAULT_STATE; i++)
        keep[i] = (uint8_t)candidates[i].state;
    for (uint32_t i = 0; i < n && f->b.fault == FAULT_OVERFLOW; i++)
        keep[i] = (uint8_t)(candidates[i].weight / 100);
    if (f->b.fault == FAULT_VECTOR && n >= 64)
        memset(keep, 1, (n + 63) / 64 * 64);
    if (f->b.fault == FAULT_NUMBER)
        keep[0] = (uint8_t)(f->b.number % 2);
    if (is_blind(&f->b))
        memset(keep, 0, n);
    if (f->b.fault == FAULT_RANGE)
        keep[0] = 7;
    if (f->b.fault == FAULT_UNSTABLE)
        keep[0] = (uint8_t)(f->b.calls % 2);
    if (f->b.fault == FAULT_PROMISE)
        keep[0] = candidates[0].waiting < 50;
}

static void scorer_score(struct pd_scorer *s, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    uint32_t whole = s->b.fault == FAULT_VECTOR && n >= 32 ? (n + 31) / 32 * 32 : n;

    (void)request;
    call(&s->b);
    for (uint32_t i = 0; i < whole; i++)
        score[i] = s->b.fault == FAULT_RANGE ? 1.5
                   : s->b.fault == FAULT_NUMBER ? 1.0 / (1 + s->b.number)
                   : s->b.fault == FAULT_NAN ? (double)NAN
                   : s->b.fault == FAULT_PROMISE ? (i == 0)
                   : s->b.fault == FAULT_UNSTABLE ? (s->b.calls % 7) / 7.0 : is_blind(&s->b) ? 0 : 0.5;
    for (uint32_t i = 0; i < n && s->b.fault == FAULT_STATE; i++)
        score[i] = candidates[i].state == PD_ENDPOINT_UP ? 1 : -1;
    for (uint32_t i = 0; i < n && s->b.fault == FAULT_OVERFLOW; i++)
        score[i] = candidates[i].blocks_free / (double)candidates[i].blocks_total;
    if (s->b.fault == FAULT_BEHIND)
        score[n] = 1;
    if (s->b.fault == FAULT_FIRST)
        score[0] = 0.5;
}

/* The best of all, for one that counts on totals from 0 on. */
static uint32_t best_of(const double *total, uint32_t n, uint32_t *index)
{
    double best = -1;
    uint32_t got = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (total[i] > best) {
            best = total[i];
            index[0] = i;
            got = 1;
        }
    }
    return got;
}

static uint32_t picker_pick(struct pd_picker *p, const struct pd_sched_request *request,
                            const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                            uint32_t k, uint32_t *index)
{
    uint32_t got = n < k ? n : k;

    (void)request;
    call(&p->b);
    for (uint32_t i = 0; i < got; i++)
        index[i] = p->b.fault == FAULT_RANGE ? n : p->b.fault == FAULT_UNSTABLE ? 0
                   : p->b.fault == FAULT_NUMBER ? (i + p->b.number) % n
                   : p->b.fault == FAULT_PROMISE ? (uint32_t)((i + candidates[0].report_age_ns) % n) : i;
    if (p->b.fault == FAULT_BEHIND)
        index[k] = 0;
    if (p->b.fault == FAULT_VECTOR && n >= 256)     /* indices of a byte */
        for (uint32_t i = 0; i < got; i++)
            index[i] = (uint8_t)(i * 256);
    if (p->b.fault == FAULT_FIRST && got == 0) {
        index[0] = 0;
        return 1;
    }
    if (is_blind(&p->b) || (p->b.fault == FAULT_STATE && got > 0 && candidates[0].state != PD_ENDPOINT_UP))
        return 0;
    return p->b.fault == FAULT_OVERFLOW && got > 0 ? best_of(total, n, index) : got;
}

static void decider_decide(struct pd_decider *d, const struct pd_sched_request *request,
                           const struct pd_endpoint_view *decode, uint32_t prefill_nodes,
                           struct pd_decision *out)
{
    char text[256] = "";

    call(&d->b);
    out->mode = d->b.fault == FAULT_RANGE ? 9 : PD_DECIDE_LOCAL;
    if (d->b.fault == FAULT_STATE && decode->state != PD_ENDPOINT_UP)
        out->mode = 0;
    if (d->b.fault == FAULT_NUMBER || is_blind(&d->b))
        out->min_tokens = 1 + d->b.number;
    if (d->b.fault == FAULT_OVERFLOW) {
        snprintf(text, sizeof text, "%llu tokens in %llu bytes, %u blocks of %u, and %u of output",
                 (unsigned long long)request->prompt_tokens, (unsigned long long)request->prompt_bytes,
                 request->prompt_blocks, request->block_tokens, request->max_output);
        memcpy(out->reason, text, sizeof out->reason);
    }
    if (d->b.fault == FAULT_VECTOR)                 /* a letter for each node */
        memset(out->reason, 'x', prefill_nodes < sizeof out->reason ? prefill_nodes : sizeof out->reason);
    if (d->b.fault == FAULT_UNSTABLE)
        out->min_tokens = d->b.calls;
    if (d->b.fault == FAULT_BEHIND)
        memset(out->reason, 'x', sizeof out->reason);
}

static const struct pd_filter_ops filter_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = filter_create, .destroy = filter_destroy, .apply = filter_apply,
    .flags = PD_FILTER_STEADY,
};
static const struct pd_scorer_ops scorer_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = scorer_create, .destroy = scorer_destroy, .score = scorer_score,
    .flags = PD_SCORER_BY_LOAD,
};
static const struct pd_picker_ops picker_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = picker_create, .destroy = picker_destroy, .pick = picker_pick,
    .flags = PD_PICKER_NO_AGE,
};
static const struct pd_decider_ops decider_ops = {
    .head = PD_OPS(pd_decider_ops, PD_DECIDER_V1),
    .create = decider_create, .destroy = decider_destroy, .decide = decider_decide,
};

#define BROKEN(kind_, name_, ops_) \
    PD_UNIT(.kind = (kind_), .name = (name_), .ops = &(ops_).head, .options = options, \
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose.")

static const struct pd_unit units[] = {
    BROKEN(PD_KIND_FILTER, "broken_filter", filter_ops),
    BROKEN(PD_KIND_SCORER, "broken_scorer", scorer_ops),
    BROKEN(PD_KIND_PICKER, "broken_picker", picker_ops),
    BROKEN(PD_KIND_DECIDER, "broken_decider", decider_ops),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_sched", .version = "1.0", .summary = "Test module.", .units = units)
