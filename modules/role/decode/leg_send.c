/* SPDX-License-Identifier: Apache-2.0 */
/* What a leg sends to the router; what the window does not take waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leg.h"

/* Unsent messages are kept as (u32 type, u32 length, bytes). */
static bool unsent_add(struct leg *leg, uint32_t type, struct pd_str bytes)
{
    size_t need = leg->unsent_n + 8 + bytes.n;
    if (need > leg->conf->unsent_max)
        return false;
    if (need > leg->unsent_cap) {
        size_t cap = leg->unsent_cap == 0 ? 4096 : leg->unsent_cap * 2;
        char *p = realloc(leg->unsent, cap < need ? need : cap);
        if (p == NULL)
            return false;
        leg->unsent = p;
        leg->unsent_cap = cap < need ? need : cap;
    }
    uint32_t head[2] = { type, (uint32_t)bytes.n };
    memcpy(leg->unsent + leg->unsent_n, head, 8);
    memcpy(leg->unsent + leg->unsent_n + 8, bytes.p, bytes.n);
    leg->unsent_n = need;
    return true;
}

static pd_status send_now(struct leg *leg, uint32_t type, struct pd_str bytes)
{
    struct pd_iov iov = { (void *)(uintptr_t)bytes.p, bytes.n };
    return leg->role->peer->call_send(leg->call, type, &iov, 1);
}

/* Returns false when the leg was ended, it may be gone then. */
bool leg_send(struct leg *leg, uint32_t type, struct pd_str bytes)
{
    if (leg->call == NULL)
        return true;
    pd_status status = leg->unsent_n > 0 ? PD_EAGAIN : send_now(leg, type, bytes);
    if (status == PD_OK || status == PD_EPEER)
        return true; /* PD_EPEER: the call's on_end follows */
    if (status == PD_EAGAIN && unsent_add(leg, type, bytes))
        return true;
    /* A token that cannot be sent must not be left out. */
    leg_fail(leg, 503, "server_error", "overloaded",
             status == PD_EAGAIN ? "the answer was not read fast enough" : "out of memory");
    return false;
}

void leg_call_finish(struct leg *leg)
{
    struct decode *d = leg->role;
    struct pd_str bytes;
    if (d->api->end_encode(d->apis, &leg->end, &bytes) != PD_OK)
        bytes = (struct pd_str){ "", 0 };
    d->peer->call_end(leg->call, PD_OK, bytes);
    leg->call = NULL;
}

void leg_call_flush(struct leg *leg)
{
    pd_status status = PD_OK;
    size_t at = 0;
    while (leg->call != NULL && at < leg->unsent_n) {
        uint32_t head[2];
        memcpy(head, leg->unsent + at, 8);
        status = send_now(leg, head[0], (struct pd_str){ leg->unsent + at + 8, head[1] });
        if (status != PD_OK)
            break;
        at += 8 + head[1];
    }
    if (at > 0)
        memmove(leg->unsent, leg->unsent + at, leg->unsent_n - at);
    leg->unsent_n -= at;
    if (status != PD_OK && status != PD_EAGAIN && status != PD_EPEER) {
        /* No event tells when to try again; the router learns that it failed. */
        leg->unsent_n = 0;
        leg->role->peer->call_end(leg->call, status, (struct pd_str){ "", 0 });
        leg->call = NULL;
        leg_stop(leg, false);
        leg_close(leg);
        return;
    }
    if (leg->call != NULL && leg->unsent_n == 0 && leg->has_end) {
        leg_call_finish(leg);
        leg_close(leg);
    }
}

bool leg_send_started(struct leg *leg, const struct pd_leg_prefill *prefill, const char *reason)
{
    struct decode *d = leg->role;
    struct pd_str bytes;
    struct pd_leg_started m = {
        .prompt_tokens = leg->n_tokens - leg->ask->n_output, .cached_tokens = leg->cached,
        .remote = prefill != NULL,
        .reason = { reason, strlen(reason) },
    };
    if (prefill != NULL)
        m.prefill = prefill->name;
    leg->record->remote = m.remote;
    leg->record->prompt_tokens = m.prompt_tokens;
    leg->record->cached_tokens = m.cached_tokens;
    d->req->text(d->reqs, leg->record, &leg->record->reason, m.reason);
    d->req->text(d->reqs, leg->record, &leg->record->prefill, m.prefill);
    return d->api->started_encode(d->apis, &m, &bytes) != PD_OK || leg_send(leg, PD_LEG_STARTED, bytes);
}
