/* SPDX-License-Identifier: Apache-2.0 */
/* What comes for a call: messages whole or in parts, credit, the end; held while it is paused. */
#include "peer/call_int.h"

#include "base/compiler.h"
#include "base/str.h"

#define HELD_HEADER 12u      /* of what waits to be delivered: length, kind, credit to give back */

static void give_credit(struct pd_call *call, uint32_t n)
{
    uint8_t b[4];
    call->owed += n;
    /* A paused call grants nothing: this is what bounds the bytes it holds. */
    if (!call->is_linked || call->is_paused || call->owed < call->link->peers->conf.window / 4)
        return;
    struct pd_frame f = pd_call_frame(call, PD_FRAME_CREDIT, 4);
    struct pd_iov iov = { b, 4 };
    pd_wire_put_u32(b, call->owed);
    if (pd_link_send(call->link, &f, &iov, 1) == PD_OK) {
        call->window_left += call->owed;
        call->owed = 0;
    }
}

/* False: the call is gone. */
static bool deliver(struct pd_call *call, uint32_t kind, struct pd_str bytes)
{
    if (call->is_gone)
        return true;    /* ended by the service; still sending */
    pd_call_enter(call);
    if (call->events->on_message != NULL)
        call->events->on_message(call, kind, bytes, call->arg);
    return pd_call_leave(call);
}

static pd_status hold(struct pd_call *call, uint32_t kind, struct pd_str bytes, uint32_t charge)
{
    uint8_t head[HELD_HEADER];
    pd_status st = pd_buf_reserve(&call->held, HELD_HEADER + bytes.n);
    if (st != PD_OK)
        return st;
    pd_wire_put_u32(head, (uint32_t)bytes.n);
    pd_wire_put_u32(head + 4, kind);
    pd_wire_put_u32(head + 8, charge);
    (void)pd_buf_append(&call->held, head, sizeof head);
    (void)pd_buf_append(&call->held, bytes.p, bytes.n);
    call->link->reassembly += HELD_HEADER + bytes.n;
    return PD_OK;
}

static void deliver_held(struct pd_call *call)
{
    struct pd_link *link = call->link;
    pd_call_enter(call);
    while (!call->is_gone && !call->is_paused && call->held.n > 0) {
        uint32_t n = pd_wire_get_u32(call->held.p);
        uint32_t kind = pd_wire_get_u32(call->held.p + 4);
        uint32_t charge = pd_wire_get_u32(call->held.p + 8);
        struct pd_str bytes = { call->held.p + HELD_HEADER, n };
        if (kind == PD_CALL_KIND_END) {
            bytes = (struct pd_str){ bytes.p + 4, n - 4 };
            pd_call_finish(call, (pd_status)pd_wire_get_u32(bytes.p - 4), bytes);
            break;
        }
        deliver(call, kind, bytes);
        if (call->is_gone)
            break;
        pd_buf_consume(&call->held, HELD_HEADER + n);
        link->reassembly -= HELD_HEADER + n;
        give_credit(call, charge);
    }
    if (!call->is_gone)
        give_credit(call, 0);
    pd_call_leave(call);
}

void pd_calls_deliver(struct pd_link *link)
{
    struct pd_list todo;
    struct pd_list *l;
    pd_list_init(&todo);
    pd_list_move_all(&todo, &link->ready);
    while ((l = pd_list_pop(&todo)) != NULL)
        deliver_held(PD_LIST_ENTRY(l, struct pd_call, ready));
}

void pd_call_pause(struct pd_call *call, bool pause)
{
    call->is_paused = pause;
    if (!pause && call->is_linked && (call->held.n > 0 || call->owed > 0) &&
        pd_list_is_empty(&call->ready)) {
        pd_list_append(&call->link->ready, &call->ready);
        pd_link_kick(call->link);
    }
}

/* A served call's first message is whole: asks its service. */
static void serve(struct pd_call *call, uint32_t kind, struct pd_str first)
{
    struct pd_peers *peers = call->link->peers;
    struct pd_service *s = &peers->services[call->service];
    struct pd_str none = { "", 0 };
    call->is_opening = false;
    if (s->handler == NULL) {
        pd_peers_count(peers, PD_COUNT_CALLS_REFUSED, 1);
        pd_call_end(call, PD_ENOENT, none);
        return;
    }
    pd_peers_count(peers, PD_COUNT_CALLS_SERVED, 1);
    pd_call_enter(call);
    s->handler(peers, call, pd_call_peer(call), kind, first, s->arg);
    if (!call->is_gone && call->events == NULL)
        pd_call_end(call, PD_EDECLINED, none);
    pd_call_leave(call);
}

static void refuse(struct pd_link *link, uint32_t id, pd_status status)
{
    struct pd_call fake = { .link = link, .id = id, .side = PD_SIDE_SERVED };
    pd_peers_count(link->peers, PD_COUNT_CALLS_REFUSED, 1);
    pd_call_send_end(&fake, status, (struct pd_str){ "", 0 });
}

/* The message is too much for us: the call fails, the link stays. */
static uint32_t overflow(struct pd_call *call, pd_status status)
{
    pd_peers_count(call->link->peers, PD_COUNT_LIMIT, 1);
    if (call->side == PD_SIDE_SERVED) {
        if (call->is_opening) {
            pd_call_end(call, status, (struct pd_str){ "", 0 });
            return 0;
        }
        pd_call_send_end(call, status, (struct pd_str){ "", 0 });
    } else {
        struct pd_frame f = pd_call_frame(call, PD_FRAME_CANCEL, 0);
        (void)pd_link_send(call->link, &f, NULL, 0);
    }
    pd_call_finish(call, status, (struct pd_str){ "", 0 });
    return 0;
}

/* A fragment of a message, the first message of a served call included. */
static uint32_t got_message(struct pd_call *call, const struct pd_frame *f, struct pd_str part,
                            uint32_t charge)
{
    struct pd_link *link = call->link;
    bool more = (f->flags & PD_FRAME_MORE) != 0;
    if (call->in.n > 0 && f->kind != call->in_kind)
        return PD_GOODBYE_PROTOCOL;
    if (more && part.n == 0)
        return PD_GOODBYE_PROTOCOL;
    if (more || call->in.n > 0) {
        if (call->in.n + part.n > link->peers->conf.max_message)
            return PD_GOODBYE_LIMIT;
        if (link->reassembly + part.n > 4 * (size_t)link->peers->conf.max_message)
            return overflow(call, PD_ELIMIT);
        if (pd_buf_append(&call->in, part.p, part.n) != PD_OK)
            return overflow(call, PD_ENOMEM);
        call->in_kind = f->kind;
        link->reassembly += part.n;
        if (more) {
            if (charge > 0)
                give_credit(call, charge);
            return 0;
        }
        part = pd_buf_str(&call->in);
    }
    pd_call_enter(call);
    if (call->is_opening)
        serve(call, f->kind, part);
    else if (!call->is_paused && call->held.n == 0)
        deliver(call, f->kind, part);
    else if (hold(call, f->kind, part, charge) != PD_OK)
        overflow(call, PD_ENOMEM);
    else
        charge = 0;     /* given back when it is delivered */
    if (call->in.n > 0) {
        if (call->is_linked)
            link->reassembly -= call->in.n;
        pd_buf_fini(&call->in);
        pd_buf_init(&call->in, link->peers->conf.max_message);
    }
    if (charge > 0)
        give_credit(call, charge);
    pd_call_leave(call);
    return 0;
}

static uint32_t got_open(struct pd_link *link, const struct pd_frame *f, const uint8_t *p)
{
    if ((f->flags & PD_FRAME_OPENER) == 0 || f->length < 2 || f->kind > 255 ||
        (int32_t)(f->call - link->last_served) <= 0)
        return PD_GOODBYE_PROTOCOL;
    uint16_t service = pd_wire_get_u16(p);
    if (service == 0 || service >= PD_PEER_MAX_SERVICE)
        return PD_GOODBYE_PROTOCOL;
    link->last_served = f->call;
    if (link->calls[PD_SIDE_SERVED].n >= link->peers->conf.max_calls) {
        pd_peers_count(link->peers, PD_COUNT_LIMIT, 1);
        refuse(link, f->call, PD_ELIMIT);
        return 0;
    }
    struct pd_call *call = pd_call_create(link, PD_SIDE_SERVED, f->call);
    if (call == NULL) {
        refuse(link, f->call, PD_ENOMEM);
        return 0;
    }
    call->service = service;
    call->is_opening = true;
    call->is_open_sent = true;
    struct pd_str part = { (const char *)p + 2, f->length - 2 };
    return got_message(call, f, part, 0);
}

static uint32_t got_end(struct pd_call *call, const struct pd_frame *f, const uint8_t *p)
{
    if (call->side != PD_SIDE_OPENED || f->length < 4 || f->kind != 0)
        return PD_GOODBYE_PROTOCOL;
    pd_status status = (pd_status)pd_wire_get_u32(p);
    struct pd_str bytes = { (const char *)p + 4, f->length - 4 };
    if (status > 0)
        return PD_GOODBYE_PROTOCOL;
    if (!call->is_paused && call->held.n == 0)
        pd_call_finish(call, status, bytes);
    else if (hold(call, PD_CALL_KIND_END, pd_str_of(p, f->length), 0) != PD_OK)
        pd_call_finish(call, PD_ENOMEM, (struct pd_str){ "", 0 });
    return 0;
}

static uint32_t got_credit(struct pd_call *call, const struct pd_frame *f, const uint8_t *p)
{
    if (f->length != 4)
        return PD_GOODBYE_PROTOCOL;
    uint32_t n = pd_wire_get_u32(p);
    if (n > PD_HELLO_WINDOW_MAX || call->credit > PD_HELLO_WINDOW_MAX)
        return PD_GOODBYE_FLOW;
    call->credit += n;
    if (pd_call_has_waiting(call))
        pd_call_want_to_send(call);
    return 0;
}

uint32_t pd_calls_frame(struct pd_link *link, const struct pd_frame *f, const uint8_t *p)
{
    if (f->type == PD_FRAME_OPEN)
        return got_open(link, f, p);
    uint32_t side = (f->flags & PD_FRAME_OPENER) != 0 ? PD_SIDE_SERVED : PD_SIDE_OPENED;
    struct pd_call *call = (struct pd_call *)pd_idmap_get(&link->calls[side], f->call);
    if (call == NULL) {
        uint32_t last = side == PD_SIDE_SERVED ? link->last_served : link->last_opened;
        if ((int32_t)(f->call - last) > 0)
            return PD_GOODBYE_PROTOCOL;
        pd_peers_count(link->peers, PD_COUNT_LATE, 1);
        return 0;
    }
    switch (f->type) {
    case PD_FRAME_MESSAGE: {
        if (f->kind > 255)
            return PD_GOODBYE_PROTOCOL;
        struct pd_str part = { (const char *)p, f->length };
        if (call->is_opening)
            return got_message(call, f, part, 0);
        uint32_t charge = f->length + PD_CALL_CHARGE;
        if (charge > call->window_left)
            return PD_GOODBYE_FLOW;
        call->window_left -= charge;
        return got_message(call, f, part, charge);
    }
    case PD_FRAME_END:
        return got_end(call, f, p);
    case PD_FRAME_CANCEL:
        if (side != PD_SIDE_SERVED || f->length != 0)
            return PD_GOODBYE_PROTOCOL;
        pd_call_finish(call, PD_ECANCELED, (struct pd_str){ "", 0 });
        return 0;
    default:
        return got_credit(call, f, p);
    }
}
