/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: many two-way streams of messages over one link.
 *
 * Credits: each end may send as many bytes as the other end's window, and gets
 * more as the other end consumes.  A frame costs its payload and its header, so
 * that empty messages are not free.  Not counted are the first message and the
 * end; they have limits of their own.  A breach ends the link.
 *
 * A message goes straight into the link's queue when nothing waits before it,
 * the credit suffices and the link has room; then nothing is allocated.
 * Otherwise it waits in `out` and the pump sends it in fragments, call by call.
 *
 * Life: `is_gone` means that the user has been told the end, or has told it
 * himself; the memory goes when no callback of the call is running and nothing
 * of it waits to be sent. */
#include "peer/priv.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"

#define RECORD_HEADER 8u     /* of what waits to be sent: length, kind */
#define HELD_HEADER 12u      /* of what waits to be delivered: length, kind, credit to give back */

static size_t iov_bytes(const struct pd_iov *iov, uint32_t n)
{
    size_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += iov[i].len;
    return sum;
}

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

static struct pd_call *call_create(struct pd_link *link, uint32_t side, uint32_t id)
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
static void call_unlink(struct pd_call *call)
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
static void call_drop(struct pd_call *call)
{
    call_unlink(call);
    call->is_gone = true;
    if (call->busy == 0)
        call_free(call);
}

static void call_enter(struct pd_call *call)
{
    call->busy++;
}

/* False: the call is gone for its user; it may have been freed. */
static bool call_leave(struct pd_call *call)
{
    bool gone = call->is_gone;
    call->busy--;
    if (gone && call->busy == 0 && !call->is_linked)
        call_free(call);
    return !gone;
}

/* ---- sending */

static struct pd_frame frame_of(const struct pd_call *call, uint8_t type, size_t length)
{
    struct pd_frame f = { .type = type, .call = call->id, .length = (uint32_t)length };
    if (call->side == PD_SIDE_OPENED)
        f.flags = PD_FRAME_OPENER;
    return f;
}

static void send_end(struct pd_call *call, pd_status status, struct pd_str bytes)
{
    uint8_t head[4];
    struct pd_iov iov[2] = { { head, 4 }, { (void *)(uintptr_t)bytes.p, bytes.n } };
    struct pd_frame f = frame_of(call, PD_FRAME_END, 4 + bytes.n);
    pd_wire_put_u32(head, (uint32_t)status);
    (void)pd_link_send(call->link, &f, iov, 2);
}

static void want_to_send(struct pd_call *call)
{
    if (pd_list_is_empty(&call->sender)) {
        pd_list_append(&call->link->senders, &call->sender);
        pd_link_kick(call->link);
    }
}

static bool has_waiting(const struct pd_call *call)
{
    return call->in_record || call->out.n > 0;
}

static pd_status queue_record(struct pd_call *call, uint32_t kind, const struct pd_iov *iov,
                              uint32_t n)
{
    uint8_t head[RECORD_HEADER];
    size_t bytes = iov_bytes(iov, n);
    pd_status st = pd_buf_reserve(&call->out, RECORD_HEADER + bytes);
    if (st != PD_OK)
        return st;
    pd_wire_put_u32(head, (uint32_t)bytes);
    pd_wire_put_u32(head + 4, kind);
    (void)pd_buf_append(&call->out, head, sizeof head);
    for (uint32_t i = 0; i < n; i++)
        (void)pd_buf_append(&call->out, iov[i].base, iov[i].len);
    want_to_send(call);
    return PD_OK;
}

/* Sends one fragment; false when the call has to wait for credit or has
 * nothing more. */
static bool send_fragment(struct pd_call *call)
{
    if (!call->in_record) {
        if (call->out.n == 0)
            return false;
        call->cur_left = pd_wire_get_u32(call->out.p);
        call->cur_kind = pd_wire_get_u32(call->out.p + 4);
        call->in_record = true;
        pd_buf_consume(&call->out, RECORD_HEADER);
    }
    bool first = (call->cur_kind & PD_CALL_KIND_OPEN) != 0;
    bool is_free = first || !call->is_open_sent;
    uint32_t n = PD_MIN(call->cur_left, PD_CALL_FRAGMENT);
    if (call->cur_kind == PD_CALL_KIND_END) {
        struct pd_str bytes = { call->out.p + 4, call->cur_left - 4 };
        send_end(call, (pd_status)pd_wire_get_u32(call->out.p), bytes);
        pd_buf_clear(&call->out);
        call->in_record = false;
        return false;
    }
    if (!is_free) {
        uint32_t least = PD_MIN(n, 4096u);
        if (call->credit < least + PD_CALL_CHARGE)
            return false;
        n = PD_MIN(n, call->credit - PD_CALL_CHARGE);
        call->credit -= n + PD_CALL_CHARGE;
    }
    struct pd_frame f = frame_of(call, PD_FRAME_MESSAGE, n);
    struct pd_iov iov[2] = { { NULL, 0 }, { call->out.p, n } };
    uint8_t service[2];
    f.kind = (uint16_t)(call->cur_kind & 0xff);
    if (first) {
        pd_wire_put_u16(service, call->service);
        iov[0] = (struct pd_iov){ service, 2 };
        f.type = PD_FRAME_OPEN;
        f.length += 2;
        call->cur_kind &= ~PD_CALL_KIND_OPEN;
    }
    if (n < call->cur_left)
        f.flags |= PD_FRAME_MORE;
    (void)pd_link_send(call->link, &f, iov, 2);
    pd_buf_consume(&call->out, n);
    call->cur_left -= n;
    if (call->cur_left == 0) {
        call->in_record = false;
        call->is_open_sent = true;
    }
    return true;
}

/* The first message is on its way, whole or in part. */
static bool is_known_there(const struct pd_call *call)
{
    return call->is_open_sent || (call->in_record && (call->cur_kind & PD_CALL_KIND_OPEN) == 0);
}

void pd_calls_pump(struct pd_link *link)
{
    struct pd_list *l;
    while (pd_link_may_send(link) && (l = pd_list_pop(&link->senders)) != NULL) {
        struct pd_call *call = PD_LIST_ENTRY(l, struct pd_call, sender);
        if (send_fragment(call)) {
            if (has_waiting(call))
                pd_list_append(&link->senders, &call->sender);
        }
        if (call->is_gone && !has_waiting(call)) {
            call_drop(call);
            continue;
        }
        if (call->wants_writable && !call->is_gone &&
            call->out.n <= link->peers->conf.call_queue / 2) {
            call->wants_writable = false;
            if (call->events->on_writable != NULL) {
                call_enter(call);
                call->events->on_writable(call, call->arg);
                call_leave(call);
            }
        }
    }
}

pd_status pd_call_send(struct pd_call *call, uint32_t type, const struct pd_iov *iov, uint32_t n)
{
    struct pd_link *link = call->link;
    const struct pd_peers_conf *conf = &link->peers->conf;
    size_t bytes = iov_bytes(iov, n);
    if (type > 255 || call->is_gone)
        return PD_EINVAL;
    if (link->state != PD_LINK_UP || !call->is_linked)
        return PD_EPEER;
    if (bytes > link->theirs.max_message || bytes > conf->max_message)
        return PD_ELIMIT;
    if (!has_waiting(call) && pd_link_may_send(link) && bytes <= PD_CALL_FRAGMENT &&
        call->credit >= bytes + PD_CALL_CHARGE) {
        struct pd_frame f = frame_of(call, PD_FRAME_MESSAGE, bytes);
        f.kind = (uint16_t)type;
        pd_status st = pd_link_send(link, &f, iov, n);
        if (st == PD_OK)
            call->credit -= (uint32_t)bytes + PD_CALL_CHARGE;
        return st;
    }
    if (call->out.n > 0 && call->out.n + bytes > conf->call_queue) {
        call->wants_writable = true;
        return PD_EAGAIN;
    }
    return queue_record(call, type, iov, n);
}

uint64_t pd_call_pending(const struct pd_call *call)
{
    return call->out.n;
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
    size_t bytes = iov_bytes(iov, n);
    if (bytes > link->theirs.max_message || bytes > peers->conf.max_message)
        return PD_ELIMIT;
    if (link->calls[PD_SIDE_OPENED].n >= peers->conf.max_calls) {
        pd_peers_count(peers, PD_COUNT_LIMIT, 1);
        return PD_ELIMIT;
    }
    struct pd_call *call = call_create(link, PD_SIDE_OPENED, next_id(link));
    if (call == NULL)
        return PD_ENOMEM;
    call->service = (uint16_t)service;
    call->copy = *events;
    call->events = &call->copy;
    call->arg = arg;
    pd_status st;
    if (bytes <= PD_CALL_FRAGMENT && pd_link_may_send(link) && n < 16) {
        struct pd_frame f = frame_of(call, PD_FRAME_OPEN, bytes + 2);
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
        st = queue_record(call, type | PD_CALL_KIND_OPEN, iov, n);
    }
    if (st != PD_OK) {
        call_drop(call);
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
    if (call->is_linked && has_waiting(call)) {
        uint8_t head[4];
        struct pd_iov iov[2] = { { head, 4 }, { (void *)(uintptr_t)bytes.p, bytes.n } };
        pd_wire_put_u32(head, (uint32_t)status);
        if (queue_record(call, PD_CALL_KIND_END, iov, 2) == PD_OK)
            return;         /* the pump frees it */
        status = PD_ENOMEM; /* what waits is lost; say so rather than pretend */
        bytes = (struct pd_str){ "", 0 };
    }
    if (call->is_linked)
        send_end(call, status, bytes);
    call_drop(call);
}

void pd_call_cancel(struct pd_call *call)
{
    if (call->is_gone || call->side != PD_SIDE_OPENED)
        return;
    if (call->is_linked && is_known_there(call)) {
        struct pd_frame f = frame_of(call, PD_FRAME_CANCEL, 0);
        (void)pd_link_send(call->link, &f, NULL, 0);
    }
    pd_peers_count(call->link->peers, PD_COUNT_CALLS_CANCELED, 1);
    call_drop(call);
}

/* ---- receiving */

static void give_credit(struct pd_call *call, uint32_t n)
{
    uint8_t b[4];
    call->owed += n;
    /* A paused call grants nothing: this is what bounds the bytes it holds. */
    if (!call->is_linked || call->is_paused || call->owed < call->link->peers->conf.window / 4)
        return;
    struct pd_frame f = frame_of(call, PD_FRAME_CREDIT, 4);
    struct pd_iov iov = { b, 4 };
    pd_wire_put_u32(b, call->owed);
    if (pd_link_send(call->link, &f, &iov, 1) == PD_OK) {
        call->window_left += call->owed;
        call->owed = 0;
    }
}

/* Tells the end; the call is gone after it. */
static void finish(struct pd_call *call, pd_status status, struct pd_str bytes)
{
    call_unlink(call);
    if (call->is_gone || call->events == NULL) {
        call_drop(call);
        return;
    }
    call->is_gone = true;
    call_enter(call);
    if (call->events->on_end != NULL)
        call->events->on_end(call, status, bytes, call->arg);
    call_leave(call);
}

/* False: the call is gone. */
static bool deliver(struct pd_call *call, uint32_t kind, struct pd_str bytes)
{
    if (call->is_gone)
        return true;    /* ended by the service; still sending */
    call_enter(call);
    if (call->events->on_message != NULL)
        call->events->on_message(call, kind, bytes, call->arg);
    return call_leave(call);
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
    call_enter(call);
    while (!call->is_gone && !call->is_paused && call->held.n > 0) {
        uint32_t n = pd_wire_get_u32(call->held.p);
        uint32_t kind = pd_wire_get_u32(call->held.p + 4);
        uint32_t charge = pd_wire_get_u32(call->held.p + 8);
        struct pd_str bytes = { call->held.p + HELD_HEADER, n };
        if (kind == PD_CALL_KIND_END) {
            bytes = (struct pd_str){ bytes.p + 4, n - 4 };
            finish(call, (pd_status)pd_wire_get_u32(bytes.p - 4), bytes);
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
    call_leave(call);
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
    call_enter(call);
    s->handler(peers, call, pd_call_peer(call), kind, first, s->arg);
    if (!call->is_gone && call->events == NULL)
        pd_call_end(call, PD_EDECLINED, none);
    call_leave(call);
}

static void refuse(struct pd_link *link, uint32_t id, pd_status status)
{
    struct pd_call fake = { .link = link, .id = id, .side = PD_SIDE_SERVED };
    pd_peers_count(link->peers, PD_COUNT_CALLS_REFUSED, 1);
    send_end(&fake, status, (struct pd_str){ "", 0 });
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
        send_end(call, status, (struct pd_str){ "", 0 });
    } else {
        struct pd_frame f = frame_of(call, PD_FRAME_CANCEL, 0);
        (void)pd_link_send(call->link, &f, NULL, 0);
    }
    finish(call, status, (struct pd_str){ "", 0 });
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
    call_enter(call);
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
    call_leave(call);
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
    struct pd_call *call = call_create(link, PD_SIDE_SERVED, f->call);
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
        finish(call, status, bytes);
    else if (hold(call, PD_CALL_KIND_END, pd_str_of(p, f->length), 0) != PD_OK)
        finish(call, PD_ENOMEM, (struct pd_str){ "", 0 });
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
    if (has_waiting(call))
        want_to_send(call);
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
        finish(call, PD_ECANCELED, (struct pd_str){ "", 0 });
        return 0;
    default:
        return got_credit(call, f, p);
    }
}

void pd_calls_end_all(struct pd_link *link, pd_status status)
{
    for (int side = 0; side < 2; side++) {
        size_t cursor = 0;
        void *value;
        while (pd_idmap_next(&link->calls[side], &cursor, NULL, &value)) {
            struct pd_call *call = (struct pd_call *)value;
            finish(call, status, (struct pd_str){ "", 0 });
        }
    }
}
