/* SPDX-License-Identifier: Apache-2.0 */
/* How a leg ends, and what it gives back. */
#include <stdlib.h>
#include <string.h>

#include "leg.h"

void leg_record_finish(struct leg *leg, uint32_t outcome, uint32_t http, const char *code)
{
    struct decode *d = leg->role;
    if (leg->record == NULL)
        return;
    leg->record->user = NULL;
    d->req->finish(d->reqs, leg->record, outcome, http,
                   (struct pd_str){ code == NULL ? "" : code, code == NULL ? 0 : strlen(code) },
                   leg_now(leg));
    leg->record = NULL;
}

/* Frees the leg unless a transfer may still touch its blocks or the router has
 * not taken everything. */
void leg_close(struct leg *leg)
{
    struct decode *d = leg->role;
    leg->state = CLOSING;
    if (leg->order != NULL) {
        d->peer->call_cancel(leg->order);
        leg->order = NULL;
    }
    if (leg->dest != NULL)
        return; /* on_end comes back here */
    if (leg->seq != NULL)
        leg->engine->ops->seq_close(leg->seq);
    leg->seq = NULL;
    if (leg->call != NULL)
        return; /* the end is still to be sent */
    pd_timer_stop(&leg->order_timer);
    pd_timer_stop(&leg->deadline);
    leg_record_finish(leg, PD_REQ_CANCELLED, 0, "client_gone");
    *leg->link = leg->next;
    if (leg->next != NULL)
        leg->next->link = leg->link;
    d->n_legs--;
    d->api->text_destroy(d->apis, leg->text);
    d->api->message_free(d->apis, leg->message);
    free(leg->tokens);
    free(leg->unsent);
    d->node->generation_release(leg->generation);
    free(leg);
    if (d->waiting_first != NULL)
        pd_loop_defer(d->loop, &d->retry);
    decode_leg_gone(d);
}

void leg_waiting_remove(struct leg *leg)
{
    struct decode *d = leg->role;
    struct leg *before = NULL;
    for (struct leg *l = d->waiting_first; l != NULL; before = l, l = l->wait_next) {
        if (l != leg)
            continue;
        if (before == NULL)
            d->waiting_first = l->wait_next;
        else
            before->wait_next = l->wait_next;
        if (d->waiting_last == l)
            d->waiting_last = before;
        d->n_waiting--;
        d->waiting_tokens -= l->n_tokens;
        return;
    }
}

/* Stops all work for the leg; its blocks go as soon as they may. */
void leg_stop(struct leg *leg, bool peer_gone)
{
    struct decode *d = leg->role;
    if (leg->state == WAITING)
        leg_waiting_remove(leg);
    pd_timer_stop(&leg->order_timer);
    pd_timer_stop(&leg->deadline);
    if (leg->dest != NULL && leg->state != CLOSING)
        d->kv->dest_abort(leg->dest, peer_gone);
    leg->state = CLOSING;
}

static void leg_end(struct leg *leg, const struct pd_leg_end *end)
{
    if (leg->has_end)
        return;
    leg->end = *end;
    leg->has_end = true;
    leg_stop(leg, false);
    if (end->reason == PD_FINISH_ERROR)
        leg_record_finish(leg, end->error.http == 429 ? PD_REQ_SHED
                      : end->error.http < 500     ? PD_REQ_CLIENT_ERROR : PD_REQ_UPSTREAM_ERROR,
                      end->error.http, end->error.code);
    else
        leg_record_finish(leg, PD_REQ_OK, 200, NULL);
    if (leg->call != NULL && leg->unsent_n == 0)
        leg_call_finish(leg);
    leg_close(leg);
}

void leg_end_fill(const struct leg *leg, struct pd_leg_end *end, uint32_t reason)
{
    memset(end, 0, sizeof *end);
    end->reason = reason;
    end->prompt_tokens = leg->n_tokens - leg->ask->n_output;
    end->cached_tokens = leg->cached;
    end->output_tokens = leg->n_output;
}

void leg_fail(struct leg *leg, uint32_t http, const char *type, const char *code,
                     const char *message)
{
    struct pd_leg_end end;
    leg_end_fill(leg, &end, PD_FINISH_ERROR);
    leg->role->api->error_set(&end.error, http, type, code, "%s", message);
    if (http == 429 || http == 503)
        end.error.retry_after_ms = 1000;
    leg_end(leg, &end);
}

/* The text is complete; `reason` is the engine's or a stop string's. */
void leg_finish(struct leg *leg, uint32_t reason)
{
    struct pd_leg_end end;
    leg_end_fill(leg, &end, reason);
    if (leg->role->api->text_end(leg->text, &end.text) != PD_OK) {
        leg_fail(leg, 503, "server_error", "overloaded", "out of memory");
        return;
    }
    /* The text borrows from the leg, which may outlive this call only together
     * with its text object, so the pointer stays good until the end is sent. */
    leg_end(leg, &end);
}
