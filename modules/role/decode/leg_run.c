/* SPDX-License-Identifier: Apache-2.0 */
/* A leg on our own engine: its start there and the tokens that come of it. */
#include <string.h>

#include "leg.h"

static void leg_token(struct leg *leg, const struct pd_token *t)
{
    struct decode *d = leg->role;
    const struct pd_engine_ops *ops = leg->engine->ops;
    struct pd_leg_top top[PD_API_MAX_TOP];
    struct pd_leg_token out;
    struct pd_str bytes;
    uint32_t stopped = 0;
    memset(&out, 0, sizeof out);
    out.id = t->id;
    out.index = leg->n_output++;
    out.bytes = ops->piece(leg->engine->engine, t->id);
    if (d->api->text_add(leg->text, out.bytes, &out.text, &stopped) != PD_OK) {
        leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    out.has_logprob = leg->ask->sampling.want_logprob;
    out.logprob = t->logprob;
    out.n_top = t->n_top < PD_API_MAX_TOP ? t->n_top : PD_API_MAX_TOP;
    for (uint32_t i = 0; i < out.n_top; i++) {
        top[i].token = t->top[i].token;
        top[i].logprob = t->top[i].logprob;
        top[i].bytes = ops->piece(leg->engine->engine, t->top[i].token);
    }
    out.top = top;
    if (leg->n_output == leg->ask->n_output + 1)
        d->req->stage(d->reqs, leg->record, PD_REQ_DECODING, leg_now(leg));
    d->req->tokens(d->reqs, leg->record, 1, leg_now(leg));
    if (d->api->token_encode(d->apis, &out, &bytes) != PD_OK) {
        leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    if (!leg_send(leg, PD_LEG_TOKEN, bytes))
        return;
    if (stopped != 0 && leg->state == RUNNING) {
        leg->is_stopped = true;
        leg_finish(leg, PD_FINISH_STOP);
    }
}

static void on_token(struct pd_seq *seq, const struct pd_token *token, void *arg)
{
    struct leg *leg = arg;
    (void)seq;
    if (leg->state == RUNNING)
        leg_token(leg, token);
}

static void on_finish(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg)
{
    struct leg *leg = arg;
    (void)seq;
    if (leg->state != RUNNING)
        return;
    if (reason != PD_FINISH_ERROR) {
        leg_finish(leg, reason);
        return;
    }
    pd_log_req(leg->role->log, PD_LOG_ERROR, leg->ask->request_id, "engine \"%s\" failed: %s",
               leg->engine->name, pd_host()->status_text(status));
    leg_fail(leg, 502, "server_error", "engine_protocol", "the engine failed");
}

pd_status leg_open(struct leg *leg)
{
    static const struct pd_seq_events events = {
        .size = sizeof events, .on_token = on_token, .on_finish = on_finish
    };
    struct pd_seq_params params = {
        .size = sizeof params, .n_tokens = leg->n_tokens, .tokens = leg->tokens,
        .cache_salt = leg->ask->cache_salt, .sampling = leg->ask->sampling,
        .max_output = leg->max_output, .n_output_given = leg->ask->n_output,
        .priority = leg->ask->priority, .request_id = leg->ask->request_id,
    };
    return leg->engine->ops->seq_open(leg->engine->engine, &params, &events, leg, &leg->seq,
                                      &leg->computed);
}

void leg_run(struct leg *leg, bool with_first)
{
    struct decode *d = leg->role;
    const struct pd_engine_ops *ops = leg->engine->ops;
    uint32_t to = leg->conf->handover == DECODE_FULL ? leg->n_tokens : leg->n_tokens - 1;
    pd_status status = PD_OK;
    if (leg->is_valid)
        status = ops->seq_import(leg->seq, to);
    if (status == PD_OK)
        status = ops->seq_run(leg->seq, PD_RUN_DECODE, 0, with_first ? &leg->first : NULL);
    leg->state = RUNNING;
    if (status != PD_OK) {
        pd_log_req(d->log, PD_LOG_ERROR, leg->ask->request_id, "engine \"%s\" cannot run a sequence: %s",
                   leg->engine->name, pd_host()->status_text(status));
        leg_fail(leg, 502, "server_error", "engine_protocol", "the engine failed");
    }
}
