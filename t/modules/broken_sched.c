/* SPDX-License-Identifier: Apache-2.0 */
/* A filter, a scorer, a picker and a decider that break their contract in the
 * way that their option names; t/12-conform.t expects to see it found. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/scheduler.h>

enum { FAULT_NONE, FAULT_LEAK, FAULT_RANGE, FAULT_UNSTABLE, FAULT_NAN, FAULT_BEHIND, FAULT_GROWTH };

struct broken_conf {
    uint32_t fault;
};

struct broken {
    uint32_t fault, calls;
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
    { "nan", FAULT_NAN }, { "behind", FAULT_BEHIND }, { "growth", FAULT_GROWTH }, { NULL, 0 },
};

static const struct pd_option options[] = {
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static void leak(size_t n)
{
    void *volatile lost = malloc(n);
    (void)lost;
}

static void start(struct broken *b, const void *conf)
{
    b->fault = ((const struct broken_conf *)conf)->fault;
    if (b->fault == FAULT_LEAK)
        leak(100);
}

static void call(struct broken *b)
{
    b->calls++;
    if (b->fault == FAULT_GROWTH)
        leak(100);
}

#define LIFE(type)                                                             \
    static pd_status type##_create(const struct pd_instance_ctx *ctx, const void *conf, \
                                   struct pd_##type **out, struct pd_err *err) \
    {                                                                          \
        (void)ctx;                                                             \
        (void)err;                                                             \
        *out = calloc(1, sizeof **out);                                        \
        if (*out == NULL)                                                      \
            return PD_ENOMEM;                                                  \
        start(&(*out)->b, conf);                                               \
        return PD_OK;                                                          \
    }                                                                          \
    static void type##_destroy(struct pd_##type *p)                            \
    {                                                                          \
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
    (void)candidates;
    call(&f->b);
    if (f->b.fault == FAULT_BEHIND)
        keep[n] = 0;
    if (n == 0)
        return;
    if (f->b.fault == FAULT_RANGE)
        keep[0] = 7;
    if (f->b.fault == FAULT_UNSTABLE)
        keep[0] = (uint8_t)(f->b.calls % 2);
}

static void scorer_score(struct pd_scorer *s, const struct pd_sched_request *request,
                         const struct pd_endpoint_view *candidates, uint32_t n, double *score)
{
    (void)request;
    (void)candidates;
    call(&s->b);
    for (uint32_t i = 0; i < n; i++)
        score[i] = s->b.fault == FAULT_RANGE ? 1.5
                   : s->b.fault == FAULT_NAN ? (double)NAN
                   : s->b.fault == FAULT_UNSTABLE ? (s->b.calls % 7) / 7.0 : 0.5;
    if (s->b.fault == FAULT_BEHIND)
        score[n] = 1;
}

static uint32_t picker_pick(struct pd_picker *p, const struct pd_sched_request *request,
                            const struct pd_endpoint_view *candidates, const double *total, uint32_t n,
                            uint32_t k, uint32_t *index)
{
    uint32_t got = n < k ? n : k;

    (void)request;
    (void)candidates;
    (void)total;
    call(&p->b);
    for (uint32_t i = 0; i < got; i++)
        index[i] = p->b.fault == FAULT_RANGE ? n : p->b.fault == FAULT_UNSTABLE ? 0 : i;
    if (p->b.fault == FAULT_BEHIND)
        index[k] = 0;
    return got;
}

static void decider_decide(struct pd_decider *d, const struct pd_sched_request *request,
                           const struct pd_endpoint_view *decode, uint32_t prefill_nodes,
                           struct pd_decision *out)
{
    (void)request;
    (void)decode;
    (void)prefill_nodes;
    call(&d->b);
    out->mode = d->b.fault == FAULT_RANGE ? 9 : PD_DECIDE_LOCAL;
    if (d->b.fault == FAULT_UNSTABLE)
        out->min_tokens = d->b.calls;
    if (d->b.fault == FAULT_BEHIND)
        memset(out->reason, 'x', sizeof out->reason);
}

static const struct pd_filter_ops filter_ops = {
    .head = PD_OPS(pd_filter_ops, PD_FILTER_V1),
    .create = filter_create, .destroy = filter_destroy, .apply = filter_apply,
};
static const struct pd_scorer_ops scorer_ops = {
    .head = PD_OPS(pd_scorer_ops, PD_SCORER_V1),
    .create = scorer_create, .destroy = scorer_destroy, .score = scorer_score,
};
static const struct pd_picker_ops picker_ops = {
    .head = PD_OPS(pd_picker_ops, PD_PICKER_V1),
    .create = picker_create, .destroy = picker_destroy, .pick = picker_pick,
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
