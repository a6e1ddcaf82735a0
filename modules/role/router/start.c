/* SPDX-License-Identifier: Apache-2.0 */
/* What sending a request takes: the hashes of its prompts, and where its legs may go and
 * not go.  A request that a server behind an adapter answers needs none of it any more, nor
 * one whose legs all bring tokens, and its answer may last long.  A leg that is lost then
 * begins anew: its prompt is hashed again. */
#include "request.h"

#include <stdlib.h>

void request_started(struct request *q)
{
    struct router *r = q->router;
    struct request_start *s = q->start;
    if (s == NULL)
        return;
    if (q->prompts != &s->prompt)
        free(q->prompts);
    q->prompts = NULL;
    q->start = NULL;
    for (uint32_t i = 0; i < q->n_legs; i++) {
        free(q->legs[i].avoid);
        q->legs[i].avoid = NULL;
        q->legs[i].n_avoid = 0;
    }
    if (r->n_spare_start < ROUTER_SPARE) {
        s->next = r->spare_start;
        r->spare_start = s;
        r->n_spare_start++;
    } else {
        free(s);
    }
}

void request_comes(struct request *q)
{
    for (uint32_t i = 0; i < q->n_legs; i++) {
        const struct leg *leg = &q->legs[i];
        bool is_open = leg->prefill != NULL && leg->prefill->dispatch.ticket != 0;
        bool has_come = leg->is_done || (leg->call != NULL && leg->n_output > leg->n_sent);
        if (is_open || !has_come)
            return;
    }
    for (uint32_t i = 0; i < q->n_legs; i++) {
        free(q->legs[i].prefill);
        q->legs[i].prefill = NULL;
        q->legs[i].n_prefills = 0;
    }
    request_started(q);
}

static bool start_new(struct request *q)
{
    struct router *r = q->router;
    struct request_start *s = r->spare_start;
    if (s != NULL) {
        r->spare_start = s->next;
        r->n_spare_start--;
    } else {
        s = malloc(sizeof *s);
        if (s == NULL)
            return false;
    }
    s->server_id[0] = '\0';
    q->start = s;
    return true;
}

/* What the prefix index knows a prompt by. */
static struct pd_str prompt_bytes(const struct request *q, uint32_t i)
{
    const struct pd_api_request *a = q->api;
    if (q->kind == PD_API_CHAT)
        return a->prompt_json;
    if (a->prompts[i].tokens != NULL)
        return (struct pd_str){ (const char *)a->prompts[i].tokens,
                                (size_t)a->prompts[i].n_tokens * sizeof(int32_t) };
    return a->prompts[i].json;
}

bool request_start(struct request *q)
{
    struct router *r = q->router;
    const struct pd_api_request *a = q->api;
    size_t room = 0;
    if (!start_new(q))
        return false;
    uint64_t *hashes = q->start->hashes;
    for (uint32_t i = 0; i < a->n_prompts; i++)
        room += r->sched->prompt_room(r->scheds, prompt_bytes(q, i).n);
    q->prompts = &q->start->prompt;
    if (a->n_prompts > 1 || room > ROUTER_HASHES) {
        q->prompts = malloc((size_t)a->n_prompts * sizeof *q->prompts + room * sizeof(uint64_t));
        if (q->prompts == NULL)
            return false;
        hashes = (uint64_t *)(void *)(q->prompts + a->n_prompts);
    }
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        struct pd_str bytes = prompt_bytes(q, i);
        r->sched->prompt_hash(r->scheds, &q->prompts[i], a->model, a->cache_salt, bytes.p, bytes.n, hashes,
                              (uint32_t)room);
        hashes += q->prompts[i].n;
        room -= q->prompts[i].n;
    }
    return true;
}

void request_starts_fini(struct router *r)
{
    struct request_start *after;
    for (struct request_start *s = r->spare_start; s != NULL; s = after) {
        after = s->next;
        free(s);
    }
    r->spare_start = NULL;
    r->n_spare_start = 0;
}

void leg_prefills(struct leg *leg, const struct pd_sched_plan *plan)
{
    leg->n_prefills = 0;
    if (plan->prefill_n == 0)
        return;
    if (leg->prefill == NULL)
        leg->prefill = calloc(1, sizeof *leg->prefill);
    if (leg->prefill == NULL)
        return;
    leg->n_prefills = (uint8_t)plan->prefill_n;
    for (uint32_t i = 0; i < plan->prefill_n; i++)
        leg->prefill->refs[i] = plan->prefill[i].ref;
}

void leg_prefill_computed(struct leg *leg)
{
    struct router *r = leg->request->router;
    if (leg->prefill != NULL)
        r->sched->computed(r->scheds, &leg->prefill->dispatch);
}

void leg_prefill_end(struct leg *leg, uint32_t result)
{
    struct router *r = leg->request->router;
    if (leg->prefill != NULL)
        r->sched->end(r->scheds, &leg->prefill->dispatch, result, pd_loop_now(r->loop));
}

bool leg_avoid(struct leg *leg, struct pd_endpoint_ref ref)
{
    if (leg->avoid == NULL)
        leg->avoid = malloc(ROUTER_AVOID_MAX * sizeof *leg->avoid);
    if (leg->avoid == NULL || leg->n_avoid == ROUTER_AVOID_MAX)
        return false;
    leg->avoid[leg->n_avoid++] = ref;
    return true;
}
