/* SPDX-License-Identifier: Apache-2.0 */
/* Ways: one connection per transport and node, made once however many sources
 * want it, kept while it is used and a while longer.  A way belongs to one epoch
 * of its node; a fence tears it down for all of its users. */
#include "kv/priv.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/uuid.h"

static const struct pd_transport_ops *ops_of(const struct pd_kv_way *way)
{
    return way->kv->transports[way->transport].ops;
}

static void way_free(struct pd_kv_way *way)
{
    struct pd_kv *kv = way->kv;
    pd_timer_stop(&way->timer);
    pd_list_remove(&way->node);
    kv->n_ways--;
    pd_free(way);
    pd_kv_check_closed(kv);
}

/* Tells all users that the way is gone, then frees it. */
static void way_gone(struct pd_kv_way *way, pd_status status)
{
    struct pd_list *l;
    way->state = PD_WAY_CLOSING;
    way->tp = NULL;
    while ((l = pd_list_pop(&way->users)) != NULL) {
        struct pd_kv_source *source = PD_LIST_ENTRY(l, struct pd_kv_source, way_node);
        source->way = NULL;
        pd_kv_source_way_gone(source, status);
    }
    way_free(way);
}

static void on_up(struct pd_transport_peer *tp, pd_status status, void *arg)
{
    struct pd_kv_way *way = (struct pd_kv_way *)arg;
    (void)tp;
    if (status != PD_OK) {
        way_gone(way, status);
        return;
    }
    if (way->state != PD_WAY_CONNECTING || way->left != 0)
        return;
    way->state = PD_WAY_UP;
    pd_timer_stop(&way->timer);
    /* Users may leave, end or join while they are told. */
    struct pd_list todo;
    struct pd_list *l;
    pd_list_init(&todo);
    pd_list_move_all(&todo, &way->users);
    while ((l = pd_list_pop(&todo)) != NULL) {
        pd_list_append(&way->users, l);
        pd_kv_source_way_up(PD_LIST_ENTRY(l, struct pd_kv_source, way_node));
    }
    if (pd_list_is_empty(&way->users) && way->state == PD_WAY_UP)
        pd_timer_start(&way->timer, way->kv->conf.idle);
}

static void on_down(struct pd_transport_peer *tp, pd_status status, void *arg)
{
    (void)tp;
    way_gone((struct pd_kv_way *)arg, status == PD_OK ? PD_EPEER : status);
}

static void on_writable(struct pd_transport_peer *tp, void *arg)
{
    struct pd_kv_way *way = (struct pd_kv_way *)arg;
    (void)tp;
    PD_LIST_EACH(&way->users, l)
        pd_kv_source_way_writable(PD_LIST_ENTRY(l, struct pd_kv_source, way_node));
}

static void on_done(struct pd_transport_peer *tp, struct pd_transfer *transfer, uint32_t terminal,
                    uint64_t bytes, void *post_arg)
{
    (void)tp;
    (void)transfer;
    pd_kv_source_done((struct pd_kv_post *)post_arg, terminal, bytes);
}

static const struct pd_transport_peer_events way_events = {
    .size = sizeof way_events, .on_up = on_up, .on_down = on_down, .on_writable = on_writable,
    .on_done = on_done,
};

static void leave(struct pd_kv_way *way, uint32_t how)
{
    if (way->left == how || way->left == PD_DISCONNECT_FENCE)
        return;
    way->left = how;
    if (way->state == PD_WAY_UP)
        way->state = PD_WAY_CLOSING;
    pd_timer_stop(&way->timer);
    ops_of(way)->disconnect(way->tp, how);
}

void pd_kv_way_close(struct pd_kv_way *way)
{
    leave(way, PD_DISCONNECT_DRAIN);
}

void pd_kv_way_fence(struct pd_kv_way *way)
{
    leave(way, PD_DISCONNECT_FENCE);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_kv_way *way = (struct pd_kv_way *)arg;
    (void)timer;
    if (way->state == PD_WAY_CONNECTING)
        pd_kv_way_fence(way);   /* on_down comes */
    else if (way->state == PD_WAY_UP && pd_list_is_empty(&way->users))
        pd_kv_way_close(way);
}

static struct pd_kv_way *way_find(struct pd_kv *kv, uint32_t transport, const struct pd_node_id *id)
{
    PD_LIST_EACH(&kv->ways, l) {
        struct pd_kv_way *way = PD_LIST_ENTRY(l, struct pd_kv_way, node);
        if (way->state != PD_WAY_CLOSING && way->left == 0 && way->transport == transport &&
            pd_node_id_eq(&way->id, id))
            return way;
    }
    return NULL;
}

static pd_status way_make(struct pd_kv_source *source, const struct pd_kv_candidate *c,
                          struct pd_kv_way **out)
{
    struct pd_kv *kv = source->e.kv;
    const struct pd_kv_transport *t = &kv->transports[c->transport];
    struct pd_transport_peer_desc desc = {
        .size = sizeof desc, .address_len = c->address_len, .node = source->e.peer_id,
        .address = c->address, .host = { source->host, strlen(source->host) },
        .grant = c->blob, .grant_len = c->blob_len,
    };
    struct pd_kv_way *way = (struct pd_kv_way *)pd_calloc(1, sizeof *way);
    if (way == NULL)
        return PD_ENOMEM;
    way->kv = kv;
    way->state = PD_WAY_CONNECTING;
    way->transport = c->transport;
    way->id = source->e.peer_id;
    pd_list_init(&way->node);
    pd_list_init(&way->users);
    pd_timer_init(&way->timer, kv->loop, "kv way", on_timer, way);
    pd_status st = t->ops->connect(t->instance, &desc, &way_events, way, &way->tp);
    if (st != PD_OK) {
        pd_free(way);
        return st;
    }
    pd_list_append(&kv->ways, &way->node);
    kv->n_ways++;
    pd_timer_start(&way->timer, kv->conf.connect_timeout);
    *out = way;
    return PD_OK;
}

pd_status pd_kv_way_join(struct pd_kv_source *source)
{
    const struct pd_kv_candidate *c = &source->candidates[source->at_candidate];
    struct pd_kv_way *way = way_find(source->e.kv, c->transport, &source->e.peer_id);
    if (way == NULL) {
        pd_status st = way_make(source, c, &way);
        if (st != PD_OK)
            return st;
        source->made_way = true;
    } else if (way->state == PD_WAY_UP) {
        pd_timer_stop(&way->timer);
    }
    source->way = way;
    pd_list_append(&way->users, &source->way_node);
    return way->state == PD_WAY_UP ? PD_OK : PD_PENDING;
}

void pd_kv_way_leave(struct pd_kv_source *source)
{
    struct pd_kv_way *way = PD_TAKE(&source->way);
    if (way == NULL)
        return;
    pd_list_remove(&source->way_node);
    if (pd_list_is_empty(&way->users) && way->state == PD_WAY_UP)
        pd_timer_start(&way->timer, way->kv->conf.idle);
}

void pd_kv_peer_gone(struct pd_kv *kv, const struct pd_node_id *id)
{
    PD_LIST_EACH_SAFE(&kv->ways, l) {
        struct pd_kv_way *way = PD_LIST_ENTRY(l, struct pd_kv_way, node);
        if (pd_node_id_eq(&way->id, id))
            pd_kv_way_fence(way);
    }
}
