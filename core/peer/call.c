/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: many two-way streams of messages over one link.  Here is their life; call_send.c has
 * what leaves them, call_recv.c what comes.
 *
 * Life: `is_gone` means that the user has been told the end, or has told it
 * himself; the memory goes when no callback of the call is running and nothing
 * of it waits to be sent. */
#include "peer/call_int.h"

#include "base/compiler.h"
#include "base/mem.h"

void pd_calls_init(struct pd_link *link)
{
    for (int i = 0; i < 2; i++)
        pd_idmap_init(&link->calls[i], link->peers->conf.max_calls,
                      pd_loop_random_u64(link->peers->loop));
}

void pd_calls_fini(struct pd_link *link)
{
    for (int i = 0; i < 2; i++)
        pd_idmap_fini(&link->calls[i]);
}

uint32_t pd_calls_n(const struct pd_link *link)
{
    return (uint32_t)(link->calls[0].n + link->calls[1].n);
}

struct pd_call *pd_call_create(struct pd_link *link, uint32_t side, uint32_t id)
{
    const struct pd_peers_conf *conf = &link->peers->conf;
    struct pd_call *call = (struct pd_call *)pd_calloc(1, sizeof *call);
    if (call == NULL)
        return NULL;
    call->link = link;
    call->side = side;
    call->id = id;
    call->credit = link->theirs.window;
    call->window_left = conf->window;
    pd_list_init(&call->sender);
    pd_list_init(&call->ready);
    pd_buf_init(&call->out, (size_t)conf->call_queue + conf->max_message + PD_CALL_MAX_END + 1024);
    pd_buf_init(&call->in, conf->max_message);
    pd_buf_init(&call->held, (size_t)conf->window + conf->max_message + PD_FRAME_MAX);
    bool is_first = pd_calls_n(link) == 0;
    if (pd_idmap_add(&link->calls[side], id, call) != PD_OK) {
        pd_free(call);
        return NULL;
    }
    if (is_first)
        pd_link_set_busy(link);
    call->is_linked = true;
    return call;
}

static void call_free(struct pd_call *call)
{
    pd_buf_fini(&call->out);
    pd_buf_fini(&call->in);
    pd_buf_fini(&call->held);
    pd_free(call);
}

/* Takes the call off its link; frames for it are late from now on. */
void pd_call_unlink(struct pd_call *call)
{
    if (call->is_linked) {
        call->link->reassembly -= call->in.n + call->held.n;
        pd_idmap_remove(&call->link->calls[call->side], call->id);
        call->is_linked = false;
    }
    pd_list_remove(&call->sender);
    pd_list_remove(&call->ready);
}

/* Nothing is left of the call but running callbacks. */
void pd_call_drop(struct pd_call *call)
{
    pd_call_unlink(call);
    call->is_gone = true;
    if (call->busy == 0)
        call_free(call);
}

void pd_call_enter(struct pd_call *call)
{
    call->busy++;
}

/* False: the call is gone for its user; it may have been freed. */
bool pd_call_leave(struct pd_call *call)
{
    bool gone = call->is_gone;
    call->busy--;
    if (gone && call->busy == 0 && !call->is_linked)
        call_free(call);
    return !gone;
}
pd_peer_ref pd_call_peer(const struct pd_call *call)
{
    return call->link->peer == NULL ? 0 : call->link->peer->ref;
}

static uint32_t next_id(struct pd_link *link)
{
    const struct pd_idmap *calls = &link->calls[PD_SIDE_OPENED];
    do
        link->last_opened++;
    while (link->last_opened == 0 || pd_idmap_get(calls, link->last_opened) != NULL);
    return link->last_opened;
}

pd_status pd_call_open(struct pd_peers *peers, pd_peer_ref ref, uint32_t service, uint32_t type,
                       const struct pd_iov *iov, uint32_t n, const struct pd_call_events *events,
                       void *arg, struct pd_call **out)
{
    struct pd_peer *peer = pd_peers_get(peers, ref);
    if (service == 0 || service >= PD_PEER_MAX_SERVICE || type > 255 || events == NULL)
        return PD_EINVAL;
    if (peer == NULL)
        return PD_ESTALE;
    struct pd_link *link = peer->link;
    if (link == NULL || link->state != PD_LINK_UP || link->fail_reason != 0)
        return PD_EPEER;
    size_t bytes = pd_call_iov_bytes(iov, n);
    if (bytes > link->theirs.max_message || bytes > peers->conf.max_message)
        return PD_ELIMIT;
    if (link->calls[PD_SIDE_OPENED].n >= peers->conf.max_calls) {
        pd_peers_count(peers, PD_COUNT_LIMIT, 1);
        return PD_ELIMIT;
    }
    struct pd_call *call = pd_call_create(link, PD_SIDE_OPENED, next_id(link));
    if (call == NULL)
        return PD_ENOMEM;
    call->service = (uint16_t)service;
    call->copy = *events;
    call->events = &call->copy;
    call->arg = arg;
    pd_status st;
    if (bytes <= PD_CALL_FRAGMENT && pd_link_may_send(link) && n < 16) {
        struct pd_frame f = pd_call_frame(call, PD_FRAME_OPEN, bytes + 2);
        struct pd_iov parts[17];
        uint8_t head[2];
        pd_wire_put_u16(head, (uint16_t)service);
        parts[0] = (struct pd_iov){ head, 2 };
        for (uint32_t i = 0; i < n; i++)
            parts[i + 1] = iov[i];
        f.kind = (uint16_t)type;
        st = pd_link_send(link, &f, parts, n + 1);
        call->is_open_sent = true;
    } else {
        st = pd_call_queue(call, type | PD_CALL_KIND_OPEN, iov, n);
    }
    if (st != PD_OK) {
        pd_call_drop(call);
        return st;
    }
    pd_peers_count(peers, PD_COUNT_CALLS_OPENED, 1);
    *out = call;
    return PD_OK;
}

void pd_call_accept(struct pd_call *call, const struct pd_call_events *events, void *arg)
{
    if (call->is_gone || call->side != PD_SIDE_SERVED)
        return;
    call->copy = *events;
    call->events = &call->copy;
    call->arg = arg;
}

void pd_call_end(struct pd_call *call, pd_status status, struct pd_str bytes)
{
    if (call->is_gone || call->side != PD_SIDE_SERVED)
        return;
    call->is_gone = true;
    bytes.n = PD_MIN(bytes.n, (size_t)PD_CALL_MAX_END);
    if (call->is_linked && pd_call_has_waiting(call)) {
        uint8_t head[4];
        struct pd_iov iov[2] = { { head, 4 }, { (void *)(uintptr_t)bytes.p, bytes.n } };
        pd_wire_put_u32(head, (uint32_t)status);
        if (pd_call_queue(call, PD_CALL_KIND_END, iov, 2) == PD_OK)
            return;         /* the pump frees it */
        status = PD_ENOMEM; /* what waits is lost; say so rather than pretend */
        bytes = (struct pd_str){ "", 0 };
    }
    if (call->is_linked)
        pd_call_send_end(call, status, bytes);
    pd_call_drop(call);
}

void pd_call_cancel(struct pd_call *call)
{
    if (call->is_gone || call->side != PD_SIDE_OPENED)
        return;
    if (call->is_linked && pd_call_is_known_there(call)) {
        struct pd_frame f = pd_call_frame(call, PD_FRAME_CANCEL, 0);
        (void)pd_link_send(call->link, &f, NULL, 0);
    }
    pd_peers_count(call->link->peers, PD_COUNT_CALLS_CANCELED, 1);
    pd_call_drop(call);
}

/* Tells the end; the call is gone after it. */
void pd_call_finish(struct pd_call *call, pd_status status, struct pd_str bytes)
{
    pd_call_unlink(call);
    if (call->is_gone || call->events == NULL) {
        pd_call_drop(call);
        return;
    }
    call->is_gone = true;
    pd_call_enter(call);
    if (call->events->on_end != NULL)
        call->events->on_end(call, status, bytes, call->arg);
    pd_call_leave(call);
}


void pd_calls_end_all(struct pd_link *link, pd_status status)
{
    for (int side = 0; side < 2; side++) {
        size_t cursor = 0;
        void *value;
        while (pd_idmap_next(&link->calls[side], &cursor, NULL, &value)) {
            struct pd_call *call = (struct pd_call *)value;
            pd_call_finish(call, status, (struct pd_str){ "", 0 });
        }
    }
}
