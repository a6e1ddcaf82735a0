/* SPDX-License-Identifier: Apache-2.0 */
/* What filters, scorers, pickers and deciders are asked.  Every answer is checked
 * for its range. */
#include "conform/sched_ask.h"

#define GUARD 0xa5

uint64_t sched_allocations;

bool sched_is(const struct cf_unit *u, uint32_t kind)
{
    return u->unit->kind == kind;
}

void question_open(struct question *q, uint32_t n, uint64_t seed)
{
    static const char *const names[] = { "d1", "d2", "p1", "both" };

    memset(q, 0, sizeof(*q));
    q->n = n;
    q->k = 3;
    q->views = calloc(n + 1, sizeof(*q->views));
    q->totals = calloc(n + 1, sizeof(*q->totals));
    assert_true(q->views != NULL && q->totals != NULL);
    q->request.size = sizeof(q->request);
    q->request.roles = PD_ROLE_DECODE;
    q->request.profile = PD_STR("decode");
    q->request.model = PD_STR("model");
    q->request.session = PD_STR("session-1");
    q->request.prompt_bytes = 4096;
    q->request.prompt_tokens = 1000;
    q->request.tokens_exact = 1;
    q->request.max_output = 256;
    q->request.prompt_blocks = 16;
    q->request.block_tokens = 64;
    q->request.random = cf_random(&seed);
    for (uint32_t i = 0; i < n; i++) {
        struct pd_endpoint_view *v = &q->views[i];
        v->size = sizeof(*v);
        v->slot = i;
        v->serial = 1000 + i;
        v->name = names[i % 4];
        v->roles = 1 + (uint32_t)(cf_random(&seed) % 3);
        v->state = PD_ENDPOINT_UP;
        v->running = (uint32_t)(cf_random(&seed) % 20);
        v->waiting = (uint32_t)(cf_random(&seed) % 200);
        v->inflight = (uint32_t)(cf_random(&seed) % 30);
        v->dispatched = (uint32_t)(cf_random(&seed) % 5);
        v->blocks_total = 1000;
        v->blocks_free = (uint32_t)(cf_random(&seed) % 1001);
        v->inflight_tokens = cf_random(&seed) % 100000;
        v->report_age_ns = cf_random(&seed) % PD_SEC;
        v->match_blocks = (uint32_t)(cf_random(&seed) % 17);
        v->weight = 100;
        q->totals[i] = (double)(cf_random(&seed) % 1000) / 250;
    }
}

void question_close(struct question *q)
{
    free(q->views);
    free(q->totals);
}

static void guarded(const uint8_t *p, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        CF_NEED(p[i] == GUARD, "%s is written behind its end", what);
}

static void ask_filter(struct cf_inst *i, const struct question *q, struct answer *a)
{
    const struct pd_filter_ops *ops = (const void *)i->w->u->ops;

    a->n = q->n;
    memset(a->bytes, 1, q->n);
    memset(a->bytes + q->n, GUARD, 64);
    cf_alloc_begin(0);
    ops->apply(i->p, &q->request, q->views, q->n, a->bytes);
    sched_allocations += cf_alloc_end();
    for (uint32_t k = 0; k < q->n; k++)
        CF_NEED(a->bytes[k] <= 1, "keep[%u] is %u, expected 0 or 1", k, a->bytes[k]);
    guarded(a->bytes + q->n, 64, "keep");
}

static void ask_scorer(struct cf_inst *i, const struct question *q, struct answer *a)
{
    const struct pd_scorer_ops *ops = (const void *)i->w->u->ops;
    double *score = (double *)(void *)a->bytes;

    a->n = q->n * sizeof(double);
    memset(a->bytes, 0, a->n);
    memset(a->bytes + a->n, GUARD, 64);
    cf_alloc_begin(0);
    ops->score(i->p, &q->request, q->views, q->n, score);
    sched_allocations += cf_alloc_end();
    for (uint32_t k = 0; k < q->n; k++)
        CF_NEED(score[k] >= 0 && score[k] <= 1, "score[%u] is %g, expected 0 to 1", k, score[k]);
    guarded(a->bytes + a->n, 64, "score");
}

static void ask_picker(struct cf_inst *i, const struct question *q, struct answer *a)
{
    const struct pd_picker_ops *ops = (const void *)i->w->u->ops;
    uint32_t *out = (uint32_t *)(void *)a->bytes, most = q->n < q->k ? q->n : q->k, got;

    a->n = (1 + (size_t)q->k) * sizeof(*out);
    memset(a->bytes, 0, a->n);
    memset(a->bytes + a->n, GUARD, 64);
    cf_alloc_begin(0);
    got = ops->pick(i->p, &q->request, q->views, q->totals, q->n, q->k, out + 1);
    sched_allocations += cf_alloc_end();
    out[0] = got;
    CF_NEED(got <= most, "pick gives %u of %u candidates, asked for %u", got, q->n, q->k);
    CF_NEED(got > 0 || most == 0, "pick gives none of %u candidates, asked for %u", q->n, q->k);
    for (uint32_t k = 1; k <= got; k++) {
        CF_NEED(out[k] < q->n, "index %u of %u candidates is picked", out[k], q->n);
        for (uint32_t j = 1; j < k; j++)
            CF_NEED(out[j] != out[k], "index %u is picked twice", out[k]);
    }
    memset(out + 1 + got, 0, (q->k - got) * sizeof(*out));
    guarded(a->bytes + a->n, 64, "index");
}

static void ask_decider(struct cf_inst *i, const struct question *q, struct answer *a)
{
    const struct pd_decider_ops *ops = (const void *)i->w->u->ops;
    struct pd_decision d;

    memset(&d, 0, sizeof(d));
    d.size = sizeof(d);
    cf_alloc_begin(0);
    if (q->n > 0)
        ops->decide(i->p, &q->request, &q->views[0], q->n - 1, &d);
    else
        d.mode = PD_DECIDE_LOCAL;
    sched_allocations += cf_alloc_end();
    CF_NEED(d.mode >= PD_DECIDE_LOCAL && d.mode <= PD_DECIDE_EXACT, "mode is %u, expected 1 to 3", d.mode);
    CF_NEED(memchr(d.reason, '\0', sizeof(d.reason)) != NULL, "reason has no end");
    CF_NEED(d.size == sizeof(d), "size is changed");
    a->n = sizeof(d);
    memcpy(a->bytes, &d, sizeof(d));
}

void question_ask(struct cf_inst *i, const struct question *q, struct answer *a)
{
    struct pd_endpoint_view *views = malloc((q->n + 1) * sizeof(*views));

    assert_non_null(views);
    a->bytes = malloc((size_t)q->n * 8 + (size_t)q->k * 4 + sizeof(struct pd_decision) + 128);
    assert_non_null(a->bytes);
    memcpy(views, q->views, (q->n + 1) * sizeof(*views));
    if (sched_is(i->w->u, PD_KIND_FILTER))
        ask_filter(i, q, a);
    else if (sched_is(i->w->u, PD_KIND_SCORER))
        ask_scorer(i, q, a);
    else if (sched_is(i->w->u, PD_KIND_PICKER))
        ask_picker(i, q, a);
    else
        ask_decider(i, q, a);
    CF_NEED(memcmp(views, q->views, (q->n + 1) * sizeof(*views)) == 0, "the candidates are changed");
    free(views);
}

void question_ask_once(struct cf_inst *i, const struct question *q)
{
    struct answer a;

    question_ask(i, q, &a);
    free(a.bytes);
}

void sched_picked(struct cf_inst *i, const struct question *q, uint32_t index)
{
    const struct pd_scorer_ops *ops = (const void *)i->w->u->ops;

    cf_alloc_begin(0);
    if (sched_is(i->w->u, PD_KIND_SCORER) && ops->picked != NULL)
        ops->picked(i->p, &q->request, &q->views[index]);
    sched_allocations += cf_alloc_end();
}
