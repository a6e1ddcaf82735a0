/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-overs between two KV planes over a transport of memory and timers, with
 * faults, on the virtual clock. */
#include "unit.h"

#include "base/list.h"
#include "base/mem.h"
#include "base/str.h"
#include "kv/priv.h"
#include "loop/sim.h"

#define LATENCY (200 * PD_US)

enum fault {
    F_NONE,
    F_CORRUPT,      /* one bit of one post */
    F_SHORT,        /* one post says OK and lands nothing */
    F_LATE,         /* the last post lands long after it said OK */
    F_DUPLICATE,    /* one post lands again later, with other bytes */
    F_FAIL,         /* one post fails fenced */
    F_UNFENCED,     /* one post fails, its bytes may still come */
    F_AGAIN,        /* every second post is refused for a while */
    F_LOST,         /* the way goes down in the middle */
    F_STUCK,        /* posts never end until they are canceled */
    F_NO_CONNECT,   /* connect answers with an error */
    F_SLOW_CONNECT, /* connect never answers */
    F_BAD_BLOB,     /* the target cannot be opened */
    F_NO_WINDOW     /* windows cannot be opened */
};

/* ---- the transport */

struct mt_net {
    struct pd_list windows;
    uint64_t next;
};

struct pd_transport {
    struct mt_net *net;
    struct pd_loop *loop;
    struct pd_transport_info info;
    enum fault fault;
    uint32_t fault_at;      /* which post */
    uint32_t posts;
    uint32_t open;          /* windows, peers, posts, memory */
    uint32_t connects;
    uint32_t again;
};

struct pd_transport_memory {
    struct pd_transport *t;
    uint8_t *base;
};

struct pd_transport_window {
    struct pd_list node;
    struct pd_transport *t;
    uint64_t id;
    struct pd_segment *segments;
    uint32_t n;
    uint8_t *base;
    uint64_t landed;
    bool closing;
    const struct pd_window_events *events;
    void *arg;
    struct pd_timer timer;
    struct pd_timer tell;
};

struct pd_transport_peer {
    struct pd_transport *t;
    const struct pd_transport_peer_events *events;
    void *arg;
    struct pd_timer timer;
    struct pd_timer writable;
    struct pd_list posts;
    bool up;
    bool leaving;
};

struct pd_transport_target {
    struct pd_transport *t;     /* targets may outlive their peers */
    struct pd_transport_peer *peer;
    uint64_t window;
};

struct pd_transfer {
    struct pd_list node;
    struct pd_transport_peer *peer;
    uint64_t window;
    uint64_t offset;
    uint64_t bytes;
    uint8_t *base;
    struct pd_segment *segments;
    uint32_t n;
    uint32_t number;
    uint32_t terminal;
    void *arg;
    struct pd_timer timer;
    bool said;
};

static void mt_info(struct pd_transport *t, struct pd_transport_info *out)
{
    *out = t->info;
}

static pd_status mt_address(struct pd_transport *t, void *buf, size_t cap, size_t *len)
{
    (void)t;
    assert_true(cap >= 2);
    memcpy(buf, "at", 2);
    *len = 2;
    return PD_OK;
}

static pd_status mt_memory_add(struct pd_transport *t, const struct pd_memory_desc *desc,
                               struct pd_transport_memory **out, struct pd_err *err)
{
    struct pd_transport_memory *m = (struct pd_transport_memory *)calloc(1, sizeof *m);
    (void)err;
    m->t = t;
    m->base = (uint8_t *)desc->base;
    t->open++;
    *out = m;
    return PD_OK;
}

static pd_status mt_memory_remove(struct pd_transport_memory *m)
{
    m->t->open--;
    free(m);
    return PD_OK;
}

static void window_closed(struct pd_timer *timer, void *arg)
{
    struct pd_transport_window *w = (struct pd_transport_window *)arg;
    (void)timer;
    pd_timer_stop(&w->tell);
    pd_list_remove(&w->node);
    w->t->open--;
    w->events->on_closed(w, w->arg);
    free(w->segments);
    free(w);
}

static void window_tell(struct pd_timer *timer, void *arg)
{
    struct pd_transport_window *w = (struct pd_transport_window *)arg;
    (void)timer;
    w->events->on_bytes(w, w->landed, w->arg);
}

static pd_status mt_window_open(struct pd_transport *t, const struct pd_window_desc *desc,
                                const struct pd_window_events *events, void *arg,
                                struct pd_transport_window **out)
{
    if (t->fault == F_NO_WINDOW)
        return PD_ELIMIT;
    struct pd_transport_window *w = (struct pd_transport_window *)calloc(1, sizeof *w);
    w->t = t;
    w->id = ++t->net->next;
    w->n = desc->n_segments;
    w->segments = (struct pd_segment *)malloc(w->n * sizeof *w->segments);
    memcpy(w->segments, desc->segments, w->n * sizeof *w->segments);
    w->base = desc->memory->base;
    w->events = events;
    w->arg = arg;
    pd_timer_init(&w->timer, t->loop, "window", window_closed, w);
    pd_timer_init(&w->tell, t->loop, "tell", window_tell, w);
    pd_list_init(&w->node);
    pd_list_append(&t->net->windows, &w->node);
    t->open++;
    *out = w;
    return PD_OK;
}

static pd_status mt_window_export(struct pd_transport_window *w, void *buf, size_t cap, size_t *len)
{
    assert_true(cap >= 8);
    memcpy(buf, &w->id, 8);
    *len = 8;
    return PD_OK;
}

static void mt_window_close(struct pd_transport_window *w)
{
    assert_false(w->closing);
    w->closing = true;
    pd_timer_start(&w->timer, LATENCY);
}

static struct pd_transport_window *window_find(struct mt_net *net, uint64_t id)
{
    PD_LIST_EACH(&net->windows, l) {
        struct pd_transport_window *w = PD_LIST_ENTRY(l, struct pd_transport_window, node);
        if (w->id == id && !w->closing)
            return w;
    }
    return NULL;
}

static void peer_gone(struct pd_transport_peer *p, pd_status status)
{
    const struct pd_transport_peer_events *events = p->events;
    struct pd_list *l;
    while ((l = pd_list_pop(&p->posts)) != NULL) {
        struct pd_transfer *x = PD_LIST_ENTRY(l, struct pd_transfer, node);
        pd_timer_stop(&x->timer);
        p->t->open--;
        if (!x->said)
            events->on_done(p, x, PD_TRANSFER_FAILED_FENCED, 0, x->arg);
        free(x->segments);
        free(x);
    }
    pd_timer_stop(&p->writable);
    events->on_down(p, status, p->arg);
    p->t->open--;
    free(p);
}

static void peer_timer(struct pd_timer *timer, void *arg)
{
    struct pd_transport_peer *p = (struct pd_transport_peer *)arg;
    (void)timer;
    if (p->leaving || p->up) {
        peer_gone(p, p->leaving ? PD_OK : PD_EPEER);
    } else if (p->t->fault == F_NO_CONNECT) {
        p->events->on_up(p, PD_EPEER, p->arg);
        p->t->open--;
        free(p);
    } else if (p->t->fault != F_SLOW_CONNECT) {
        p->up = true;
        p->events->on_up(p, PD_OK, p->arg);
    }
}

static void peer_writable(struct pd_timer *timer, void *arg)
{
    struct pd_transport_peer *p = (struct pd_transport_peer *)arg;
    (void)timer;
    p->events->on_writable(p, p->arg);
}

static pd_status mt_connect(struct pd_transport *t, const struct pd_transport_peer_desc *desc,
                            const struct pd_transport_peer_events *events, void *arg,
                            struct pd_transport_peer **out)
{
    struct pd_transport_peer *p = (struct pd_transport_peer *)calloc(1, sizeof *p);
    assert_int_equal(desc->address_len, 2);
    assert_true(pd_str_is(desc->host, "10.0.0.9"));
    p->t = t;
    p->events = events;
    p->arg = arg;
    pd_list_init(&p->posts);
    pd_timer_init(&p->timer, t->loop, "peer", peer_timer, p);
    pd_timer_init(&p->writable, t->loop, "writable", peer_writable, p);
    pd_timer_start(&p->timer, LATENCY);
    t->open++;
    t->connects++;
    *out = p;
    return PD_OK;
}

static void mt_disconnect(struct pd_transport_peer *p, uint32_t how)
{
    (void)how;
    p->leaving = true;
    pd_timer_start(&p->timer, LATENCY);
}

static pd_status mt_target_open(struct pd_transport_peer *p, const void *blob, size_t len,
                                struct pd_transport_target **out)
{
    if (len != 8 || p->t->fault == F_BAD_BLOB)
        return PD_EINVAL;
    struct pd_transport_target *g = (struct pd_transport_target *)calloc(1, sizeof *g);
    g->t = p->t;
    memcpy(&g->window, blob, 8);
    p->t->open++;
    g->peer = p;
    *out = g;
    return PD_OK;
}

static void mt_target_close(struct pd_transport_target *g)
{
    g->t->open--;
    free(g);
}

/* Puts the bytes where the window says. */
static void land(struct pd_transfer *x, uint8_t flip, bool count)
{
    struct pd_transport_window *w = window_find(x->peer->t->net, x->window);
    uint64_t at = 0, skip = x->offset;
    uint32_t k = 0;
    if (w == NULL)
        return;
    for (uint32_t i = 0; i < x->n; i++)
        for (uint64_t j = 0; j < x->segments[i].bytes; j++) {
            while (skip >= w->segments[k].bytes) {
                skip -= w->segments[k].bytes;
                k++;
                assert_true(k < w->n);
            }
            uint8_t b = x->base[x->segments[i].offset + j];
            w->base[w->segments[k].offset + skip] = at == x->bytes / 2 ? b ^ flip : b;
            skip++;
            at++;
        }
    if (count) {
        w->landed += x->bytes;
        pd_timer_start(&w->tell, LATENCY / 4);
    }
}

static void post_free(struct pd_transfer *x)
{
    pd_timer_stop(&x->timer);
    pd_list_remove(&x->node);
    x->peer->t->open--;
    free(x->segments);
    free(x);
}

static void post_say(struct pd_transfer *x, uint32_t terminal)
{
    x->said = true;
    x->peer->events->on_done(x->peer, x, terminal, terminal == PD_TRANSFER_OK ? x->bytes : 0,
                             x->arg);
}

static void post_timer(struct pd_timer *timer, void *arg)
{
    struct pd_transfer *x = (struct pd_transfer *)arg;
    struct pd_transport *t = x->peer->t;
    bool hit = x->number == t->fault_at;
    (void)timer;
    if (x->terminal != 0) {
        post_say(x, x->terminal);
        post_free(x);
    } else if (x->said) {           /* the late or the second landing */
        land(x, t->fault == F_DUPLICATE ? 0x80 : 0, t->fault == F_LATE);
        post_free(x);
    } else if (t->fault == F_STUCK) {
        return;
    } else if (hit && (t->fault == F_FAIL || t->fault == F_UNFENCED)) {
        post_say(x, t->fault == F_FAIL ? PD_TRANSFER_FAILED_FENCED : PD_TRANSFER_FAILED_UNFENCED);
        post_free(x);
    } else if (hit && t->fault == F_LOST) {
        pd_timer_start(&x->peer->timer, 0);
    } else if (hit && (t->fault == F_LATE || t->fault == F_DUPLICATE)) {
        if (t->fault == F_DUPLICATE)
            land(x, 0, true);
        post_say(x, PD_TRANSFER_OK);
        pd_timer_start(&x->timer, t->fault == F_LATE ? 20 * PD_MS : 5 * PD_MS);
    } else {
        if (!hit || t->fault != F_SHORT)
            land(x, hit && t->fault == F_CORRUPT ? 1 : 0, true);
        post_say(x, PD_TRANSFER_OK);
        post_free(x);
    }
}

static pd_status mt_post(struct pd_transport_target *g, const struct pd_post *post,
                         struct pd_transfer **out)
{
    struct pd_transport_peer *p = g->peer;
    struct pd_transport *t = p->t;
    assert_int_equal(post->op, PD_TRANSPORT_WRITE);
    assert_true(post->n_segments >= 1 && post->n_segments <= t->info.max_segments);
    if (t->fault == F_AGAIN && t->again++ % 2 == 0) {
        pd_timer_start(&p->writable, LATENCY);
        return PD_EAGAIN;
    }
    struct pd_transfer *x = (struct pd_transfer *)calloc(1, sizeof *x);
    x->peer = p;
    x->window = g->window;
    x->offset = post->offset;
    x->base = post->memory->base;
    x->n = post->n_segments;
    x->segments = (struct pd_segment *)malloc(x->n * sizeof *x->segments);
    memcpy(x->segments, post->segments, x->n * sizeof *x->segments);
    for (uint32_t i = 0; i < x->n; i++)
        x->bytes += x->segments[i].bytes;
    assert_true(x->bytes <= t->info.max_bytes);
    x->arg = post->arg;
    x->number = t->posts++;
    pd_list_init(&x->node);
    pd_list_append(&p->posts, &x->node);
    pd_timer_init(&x->timer, t->loop, "post", post_timer, x);
    pd_timer_start(&x->timer, LATENCY);
    t->open++;
    *out = x;
    return PD_OK;
}

static void mt_cancel(struct pd_transfer *x)
{
    x->terminal = PD_TRANSFER_CANCELED_FENCED;
    pd_timer_start(&x->timer, LATENCY);
}

static const struct pd_transport_ops mt_ops = {
    .info = mt_info, .address = mt_address, .memory_add = mt_memory_add, .memory_remove = mt_memory_remove,
    .window_open = mt_window_open, .window_export = mt_window_export, .window_close = mt_window_close,
    .connect = mt_connect, .disconnect = mt_disconnect, .target_open = mt_target_open,
    .target_close = mt_target_close, .post = mt_post, .cancel = mt_cancel,
};

/* ---- the world: D decodes, P prefills */

#define TOKENS 61u

struct side {
    struct pd_peer_desc desc;   /* of this node */
    struct pd_peer_transport shown[2];
    struct pd_peer_engine engine;
    struct side *other;
    uint32_t flags;
    struct pd_kv *kv;
    struct pd_transport t[2];
    struct pd_kv_region *region;
    struct pd_engine_info info;
    uint8_t *pool;
    uint32_t index[64];
    bool closed;
};

struct message {
    struct world *w;
    bool to_dest;
    struct pd_timer timer;
    size_t n;
    char bytes[8000];
};

struct world {
    struct pd_sim *sim;
    struct pd_loop *loop;
    struct mt_net net;
    struct side d, p;
    int32_t tokens[TOKENS];
    uint32_t from, to;
    struct pd_kv_dest *dest;
    struct pd_kv_source *source;
    struct pd_kv_result dr, sr;
    uint32_t d_ends, s_ends;
    bool mute;                  /* messages get lost */
    uint32_t drop_type;         /* messages of this type get lost */
    uint32_t messages[8];
};

static pd_status fake_info(struct pd_peers *peers, pd_peer_ref ref, struct pd_peer_info *out)
{
    struct side *s = (struct side *)(void *)peers;
    if (ref != 7)
        return PD_ESTALE;
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->ref = 7;
    out->state = PD_PEER_UP;
    out->flags = s->flags;
    out->desc = &s->other->desc;
    out->address = "10.0.0.9:7000";
    return PD_OK;
}

static const struct pd_peer_api fake_peers = { .size = sizeof fake_peers, .info = fake_info };

static uint8_t value(uint32_t plane, uint32_t token, uint64_t byte)
{
    return (uint8_t)(plane * 37 + token * 101 + byte * 7 + (token >> 3) + 1);
}

static uint8_t *cell(struct side *s, uint32_t plane, uint32_t token, uint64_t byte)
{
    const struct pd_layout *l = &s->info.layout;
    uint64_t row = pd_kv_layout_row_bytes(l), bt = l->block_tokens, planes = 2 * (uint64_t)l->layers;
    uint64_t idx = s->index[token / bt], in = token % bt;
    return s->pool + byte + (l->order == PD_KV_BLOCK_LAYER ? ((idx * planes + plane) * bt + in) * row
                                                           : ((plane * s->info.blocks + idx) * bt + in) * row);
}

static void side_up(struct world *w, struct side *s, uint8_t uuid, uint32_t order, uint32_t block,
                    uint32_t digests)
{
    struct pd_err err;
    struct pd_layout *l = &s->info.layout;
    memset(s->desc.id.uuid.b, uuid, 16);
    s->desc.id.epoch = uuid;
    snprintf(s->desc.name, sizeof s->desc.name, "node%u", uuid);
    *l = (struct pd_layout){ .size = sizeof *l, .order = order, .dtype = PD_DTYPE_F16, .layers = 2, .kv_heads = 2,
                             .head_dim = 4, .block_tokens = block };
    l->block_bytes = pd_kv_layout_token_bytes(l) * block;
    uint32_t n = (TOKENS + block - 1) / block;
    s->info.blocks = n + 3;
    s->info.region_bytes = s->info.blocks * l->block_bytes;
    s->info.region_fd = -1;
    s->info.region = s->pool = (uint8_t *)malloc(s->info.region_bytes);
    for (uint32_t i = 0; i < n; i++)
        s->index[i] = (i * 5 + 2) % s->info.blocks;
    if (s->info.blocks % 5 == 0)
        for (uint32_t i = 0; i < n; i++)
            s->index[i] = n - i;
    struct pd_kv_conf conf = { .loop = w->loop, .self = s->desc.id, .peer_api = &fake_peers,
                               .peers = (struct pd_peers *)(void *)s, .digests = digests,
                               .lease_ttl = 100 * PD_MS, .connect_timeout = 30 * PD_MS, .idle = 50 * PD_MS,
                               .inflight_bytes = 700, .post_bytes = 500 };
    assert_int_equal(pd_kv_create(&conf, &s->kv, &err), PD_OK);
    for (int i = 0; i < 2; i++) {
        s->t[i].net = &w->net;
        s->t[i].loop = w->loop;
        s->t[i].info = (struct pd_transport_info){ .flags = PD_TRANSPORT_WRITE | (i == 1 ? PD_TRANSPORT_SAME_HOST : 0u),
                                                   .max_segments = 3, .max_bytes = 190 };
        assert_int_equal(pd_kv_transport_add(s->kv, i == 0 ? "net" : "local", &mt_ops, &s->t[i]),
                         PD_OK);
    }
    s->desc.n_transports = pd_kv_transports(s->kv, s->shown);
    s->desc.transports = s->shown;
    s->engine.layout = *l;
    s->desc.engines = &s->engine;
    s->desc.n_engines = 1;
    assert_int_equal(pd_kv_region_add(s->kv, "tiny", &s->info, &s->region, &err), PD_OK);
}

static void world_up(struct world *w, uint32_t digests, uint32_t d_block, uint32_t p_block)
{
    memset(w, 0, sizeof *w);
    pd_list_init(&w->net.windows);
    assert_int_equal(pd_sim_create(5, NULL, &w->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(w->sim, "both", NULL, &w->loop), PD_OK);
    w->d.other = &w->p;
    w->p.other = &w->d;
    side_up(w, &w->d, 1, PD_KV_BLOCK_LAYER, d_block, digests);
    side_up(w, &w->p, 2, PD_KV_LAYER_BLOCK, p_block, digests);
    memset(w->d.pool, 0xee, w->d.info.region_bytes);
    memset(w->p.pool, 0x11, w->p.info.region_bytes);
    for (uint32_t i = 0; i < TOKENS; i++) {
        w->tokens[i] = (int32_t)(i * 17 % 250);
        for (uint32_t plane = 0; plane < 4; plane++)
            for (uint64_t b = 0; b < 16; b++)
                *cell(&w->p, plane, i, b) = value(plane, i, b);
    }
    w->from = 3;
    w->to = 58;
}

static void on_closed(void *arg)
{
    ((struct side *)arg)->closed = true;
}

static void run(struct world *w, pd_time ns)
{
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + ns);
}

static void world_down(struct world *w)
{
    char names[256] = "";
    struct side *sides[2] = { &w->d, &w->p };
    for (int i = 0; i < 2; i++)
        pd_kv_destroy(sides[i]->kv, on_closed, sides[i]);
    run(w, PD_SEC);
    assert_true(w->d.closed && w->p.closed);
    assert_true(w->dest == NULL && w->source == NULL);
    assert_true(pd_list_is_empty(&w->net.windows));
    assert_int_equal(w->d.t[0].open + w->d.t[1].open, 0);
    assert_int_equal(w->p.t[0].open, 0);
    assert_int_equal(w->p.t[1].open, 0);
    free(w->d.pool);
    free(w->p.pool);
    pd_status st = pd_loop_destroy(w->loop, names, sizeof names);
    if (st != PD_OK)
        print_message("left: %s\n", names);
    assert_int_equal(st, PD_OK);
    assert_int_equal(pd_sim_destroy(w->sim), PD_OK);
}

static void deliver(struct pd_timer *timer, void *arg)
{
    struct message *m = (struct message *)arg;
    struct world *w = m->w;
    struct pd_str bytes = { m->bytes, m->n };
    (void)timer;
    if (m->to_dest && w->dest != NULL)
        assert_int_equal(pd_kv_dest_message(w->dest, bytes), PD_OK);
    else if (!m->to_dest && w->source != NULL && m->bytes[0] != PD_KV_M_ABORTED)
        assert_int_equal(pd_kv_source_message(w->source, bytes), PD_OK);
    free(m);
}

static pd_status carry(struct world *w, bool to_dest, struct pd_str bytes)
{
    uint32_t type = (uint8_t)bytes.p[0];
    w->messages[type]++;
    if (w->mute || type == w->drop_type)
        return PD_OK;
    struct message *m = (struct message *)calloc(1, sizeof *m);
    assert_true(bytes.n <= sizeof m->bytes);
    m->w = w;
    m->to_dest = to_dest;
    m->n = bytes.n;
    memcpy(m->bytes, bytes.p, bytes.n);
    pd_timer_init(&m->timer, w->loop, "message", deliver, m);
    pd_timer_start(&m->timer, LATENCY / 2);
    return PD_OK;
}

static pd_status dest_send(struct pd_kv_dest *dest, struct pd_str bytes, void *arg)
{
    (void)dest;
    return carry((struct world *)arg, false, bytes);
}

static pd_status source_send(struct pd_kv_source *source, struct pd_str bytes, void *arg)
{
    (void)source;
    return carry((struct world *)arg, true, bytes);
}

static void dest_end(struct pd_kv_dest *dest, const struct pd_kv_result *r, void *arg)
{
    struct world *w = (struct world *)arg;
    assert_true(dest == w->dest);
    assert_true(r->fenced);
    w->dr = *r;
    w->d_ends++;
    w->dest = NULL;
    /* The blocks are ours again: what lands now would be seen. */
    for (uint32_t t = w->from; t < w->to && r->verdict != PD_KV_VALID; t++)
        for (uint32_t plane = 0; plane < 4; plane++)
            memset(cell(&w->d, plane, t, 0), 0xcc, 16);
}

static void source_end(struct pd_kv_source *source, const struct pd_kv_result *r, void *arg)
{
    struct world *w = (struct world *)arg;
    assert_true(source == w->source);
    w->sr = *r;
    w->s_ends++;
    w->source = NULL;
}

static pd_status source_blocks(struct pd_kv_source *source, uint32_t first, uint32_t count,
                               uint32_t *index, void *arg)
{
    struct world *w = (struct world *)arg;
    (void)source;
    memcpy(index, w->p.index + first, count * sizeof *index);
    return PD_OK;
}

static const struct pd_kv_dest_events dest_events = { .size = sizeof dest_events,
                                                      .on_send = dest_send, .on_end = dest_end };
static const struct pd_kv_source_events source_events = {
    .size = sizeof source_events, .blocks = source_blocks, .on_send = source_send, .on_end = source_end,
};

static pd_status open_dest(struct world *w)
{
    struct pd_kv_dest_params p = { .size = sizeof p,
                                   .n_blocks = (TOKENS + w->d.info.layout.block_tokens - 1) /
                                   w->d.info.layout.block_tokens, .peer = 7, .region = w->d.region,
                                   .blocks = w->d.index, .tokens = w->tokens, .from = w->from, .to = w->to,
                                   .request_id = PD_STR("req-1") };
    return pd_kv_dest_open(w->d.kv, &p, &dest_events, w, &w->dest);
}

static pd_status open_source(struct world *w, struct pd_err *err)
{
    struct pd_str grant = pd_kv_dest_grant(w->dest);
    struct pd_kv_source_params p = { .size = sizeof p, .n_tokens = TOKENS, .peer = 7,
                                     .region = w->p.region,
                                     .grant = grant.p, .grant_len = grant.n, .tokens = w->tokens };
    return pd_kv_source_open(w->p.kv, &p, &source_events, w, &w->source, err);
}

static void open_both(struct world *w)
{
    struct pd_err err = { 0 };
    assert_int_equal(open_dest(w), PD_OK);
    assert_int_equal(open_source(w, &err), PD_OK);
}

static void push(struct world *w, uint32_t upto)
{
    if (w->source != NULL)
        pd_kv_source_push(w->source, upto);
}

static void push_all(struct world *w)
{
    for (uint32_t t = 10; t <= 70; t += 20) {
        push(w, t);
        run(w, 3 * PD_MS);
    }
}

static uint64_t wrong_cells(struct world *w)
{
    uint64_t wrong = 0;
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t plane = 0; plane < 4; plane++)
            for (uint64_t b = 0; b < 16; b++)
                wrong += *cell(&w->d, plane, t, b) != (t >= w->from && t < w->to ? value(plane, t,
                        b) : 0xee);
    return wrong;
}

/* Nothing may land after the end. */
static void assert_quiet(struct world *w)
{
    uint8_t *copy = (uint8_t *)malloc(w->d.info.region_bytes);
    memcpy(copy, w->d.pool, w->d.info.region_bytes);
    run(w, 300 * PD_MS);
    assert_memory_equal(copy, w->d.pool, w->d.info.region_bytes);
    free(copy);
}

static void test_good(void **state)
{
    static const uint32_t blocks[][2] = { { 8, 8 }, { 8, 16 }, { 16, 4 }, { 7, 5 }, { 1, 61 }, { 64,
            3 } };
    (void)state;
    for (size_t k = 0; k < sizeof blocks / sizeof blocks[0]; k++)
        for (uint32_t mode = 0; mode < 4; mode++) {
            struct world w;
            world_up(&w, mode == 1 ? PD_KV_DIGESTS_NONE : PD_KV_DIGESTS_FULL, blocks[k][0],
                     blocks[k][1]);
            if (mode == 2)
                w.d.flags = w.p.flags = PD_PEER_SAME_HOST;
            if (mode == 3)
                w.p.t[0].fault = F_AGAIN;
            open_both(&w);
            push_all(&w);
            run(&w, 30 * PD_MS);
            assert_true(w.d_ends == 1 && w.s_ends == 1);
            assert_int_equal(w.dr.verdict, PD_KV_VALID);
            assert_int_equal(w.sr.verdict, PD_KV_VALID);
            assert_int_equal(w.dr.verified, mode != 1);
            assert_string_equal(w.dr.transport, mode == 2 ? "local" : "net");
            assert_true(w.dr.bytes == w.dr.bytes_expected && w.dr.bytes == 55 * 64);
            assert_true(wrong_cells(&w) == 0);
            assert_true(pd_kv_table()->bandwidth(w.p.kv, 7) > 0);
            assert_quiet(&w);
            world_down(&w);
        }
}

static void test_faults(void **state)
{
    static const struct { enum fault fault; uint32_t d, p; } rows[] = {
        { F_CORRUPT, PD_KV_CORRUPT, PD_KV_CORRUPT }, { F_SHORT, PD_KV_TIMEOUT, PD_KV_TIMEOUT },
        { F_LATE, PD_KV_VALID, PD_KV_VALID }, { F_DUPLICATE, 0, 0 },
        { F_FAIL, PD_KV_FAILED, PD_KV_FAILED }, { F_UNFENCED, PD_KV_FAILED, PD_KV_FAILED },
        { F_LOST, PD_KV_FAILED, PD_KV_FAILED },
    };
    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
        for (uint32_t at = 0; at < 19; at += 3) {
            struct world w;
            world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
            w.p.t[0].fault = rows[k].fault;
            w.p.t[0].fault_at = at;
            open_both(&w);
            push_all(&w);
            run(&w, 500 * PD_MS);
            assert_true(w.d_ends == 1 && w.s_ends == 1);
            if (rows[k].fault == F_DUPLICATE) {
                /* Too early to matter, too late to land, or seen: never believed. */
                assert_true(w.dr.verdict == PD_KV_VALID ? wrong_cells(&w) == 0 : w.dr.verdict == PD_KV_CORRUPT);
            } else {
                assert_int_equal(w.dr.verdict, rows[k].d);
                assert_int_equal(w.sr.verdict, rows[k].p);
            }
            if (w.dr.verdict == PD_KV_VALID)
                assert_true(wrong_cells(&w) == 0);
            assert_quiet(&w);
            world_down(&w);
        }
}

/* With digests off the same damage is believed: the tests above can see it. */
static void test_digests_off(void **state)
{
    struct world w;
    (void)state;
    world_up(&w, PD_KV_DIGESTS_NONE, 8, 8);
    w.p.t[0].fault = F_CORRUPT;
    w.p.t[0].fault_at = 4;
    open_both(&w);
    push_all(&w);
    run(&w, 500 * PD_MS);
    assert_int_equal(w.dr.verdict, PD_KV_VALID);
    assert_false(w.dr.verified);
    assert_true(wrong_cells(&w) == 1);
    world_down(&w);
}

static void test_fallback(void **state)
{
    static const enum fault faults[] = { F_NO_CONNECT, F_SLOW_CONNECT, F_BAD_BLOB };
    (void)state;
    for (size_t k = 0; k < 3; k++)
        for (int both = 0; both < 2; both++) {
            struct world w;
            world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
            w.d.flags = w.p.flags = PD_PEER_SAME_HOST;
            w.p.t[1].fault = faults[k];
            if (both)
                w.p.t[0].fault = faults[k];
            open_both(&w);
            push_all(&w);
            run(&w, 200 * PD_MS);
            assert_true(w.d_ends == 1 && w.s_ends == 1);
            assert_int_equal(w.dr.verdict, both ? PD_KV_FAILED : PD_KV_VALID);
            assert_int_equal(w.sr.verdict, both ? PD_KV_FAILED : PD_KV_VALID);
            if (!both)
                assert_string_equal(w.dr.transport, "net");
            world_down(&w);
        }
    /* One owner's transport that opens no window leaves the other one. */
    struct world w;
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    w.d.flags = w.p.flags = PD_PEER_SAME_HOST;
    w.d.t[1].fault = F_NO_WINDOW;
    open_both(&w);
    push_all(&w);
    run(&w, 100 * PD_MS);
    assert_int_equal(w.dr.verdict, PD_KV_VALID);
    w.d.t[0].fault = F_NO_WINDOW;
    assert_int_equal(open_dest(&w), PD_ENOENT);
    w.dest = NULL;
    world_down(&w);
}

/* Either end gives up at any moment. */
static void test_aborts(void **state)
{
    (void)state;
    for (int who = 0; who < 4; who++)
        for (pd_time at = 0; at < 14 * PD_MS; at += 137 * PD_US) {
            struct world w;
            world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
            if (at / (137 * PD_US) % 2 == 1)
                w.p.t[0].fault = F_STUCK;
            open_both(&w);
            pd_time end = pd_sim_now(w.sim) + at;
            for (uint32_t t = 10; t <= 70 && pd_sim_now(w.sim) + 2 * PD_MS < end; t += 10) {
                push(&w, t);
                run(&w, 2 * PD_MS);
            }
            pd_sim_run_until(w.sim, end);
            bool gone = who >= 2;
            uint32_t d_before = w.d_ends, s_before = w.s_ends;
            if (who % 2 == 0 && w.dest != NULL)
                pd_kv_dest_abort(w.dest, gone);
            if (who % 2 == 1 && w.source != NULL)
                pd_kv_source_abort(w.source, gone);
            assert_true(w.d_ends == d_before && w.s_ends == s_before);  /* not from inside */
            if (gone)   /* the call is lost: the other end hears it from its role */
                w.mute = true;
            if (gone && who == 2 && w.source != NULL)
                pd_kv_source_abort(w.source, true);
            if (gone && who == 3 && w.dest != NULL)
                pd_kv_dest_abort(w.dest, true);
            run(&w, 400 * PD_MS);
            assert_true(w.d_ends == 1 && w.s_ends == 1);
            assert_true(w.dr.verdict != PD_KV_VALID || wrong_cells(&w) == 0);
            assert_quiet(&w);
            world_down(&w);
        }
}

static void test_expiry(void **state)
{
    struct world w;
    struct pd_kv_lease_row row[4];
    struct pd_kv_transfer_row tr[8];
    (void)state;
    /* The source falls silent while its bytes hang. */
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    w.p.t[0].fault = F_STUCK;
    open_both(&w);
    push(&w, TOKENS);
    run(&w, 90 * PD_MS);
    assert_int_equal(w.d_ends, 0);
    assert_int_equal(pd_kv_table()->leases(w.d.kv, row, 4), 1);
    assert_string_equal(row[0].state, "active");
    assert_true(row[0].renewals > 0);
    run(&w, 200 * PD_MS);       /* renewals keep it */
    assert_int_equal(w.d_ends, 0);
    assert_int_equal(pd_kv_table()->transfers(w.p.kv, tr, 8), 1);
    assert_string_equal(tr[0].state, "moving");
    w.mute = true;
    run(&w, 150 * PD_MS);
    assert_int_equal(w.d_ends, 1);
    assert_int_equal(w.dr.verdict, PD_KV_TIMEOUT);
    assert_int_equal(w.d.kv->leases.expired, 1);
    uint64_t xid = w.dr.xid;
    assert_int_equal(pd_lease_verdict(&w.d.kv->leases, xid), PD_KV_TIMEOUT);
    assert_quiet(&w);
    assert_int_equal(w.s_ends, 0);
    pd_kv_source_abort(w.source, true);
    run(&w, 10 * PD_MS);
    assert_int_equal(w.s_ends, 1);
    assert_int_equal(pd_kv_table()->transfers(w.d.kv, tr, 8), 1);
    assert_true(tr[0].verdict == PD_KV_TIMEOUT && !tr[0].outbound);
    assert_string_equal(tr[0].request_id, "req-1");
    world_down(&w);
    /* Messages that get lost: each one ends in a verdict that is not VALID. */
    for (uint32_t type = PD_KV_M_DIGESTS; type <= PD_KV_M_VERDICT; type++) {
        world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
        w.drop_type = type;
        open_both(&w);
        push_all(&w);
        run(&w, 600 * PD_MS);
        assert_true(w.d_ends == 1 && w.s_ends == 1);
        if (type == PD_KV_M_VERDICT) {
            assert_int_equal(w.dr.verdict, PD_KV_VALID);
            assert_int_equal(w.sr.verdict, PD_KV_TIMEOUT);
        } else {
            assert_int_equal(w.dr.verdict, type == PD_KV_M_DONE ? PD_KV_TIMEOUT : PD_KV_FAILED);
        }
        world_down(&w);
    }
}

static void test_refusals(void **state)
{
    struct world w;
    struct pd_err err;
    (void)state;
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    assert_int_equal(open_dest(&w), PD_OK);
    struct pd_str grant = pd_kv_dest_grant(w.dest);
    char bad[4096];
    struct pd_kv_source_params p = { .size = sizeof p, .n_tokens = TOKENS, .peer = 7,
                                     .region = w.p.region,
                                     .grant = bad, .grant_len = grant.n, .tokens = w.tokens };
    struct pd_kv_grant g;
    assert_int_equal(pd_kv_table()->grant_read(grant, &g), PD_OK);
    assert_true(g.from == 3 && g.to == 58 && g.bytes == 55 * 64 && g.ttl_ms == 100);
    memcpy(bad, grant.p, grant.n);
    p.n_tokens = 57;
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_EINVAL);
    p.n_tokens = TOKENS;
    p.peer = 8;
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_ESTALE);
    p.peer = 7;
    w.tokens[20]++;     /* another prompt */
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_EINVAL);
    w.tokens[20]--;
    w.p.region->layout.model[0]++;
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_EINVAL);
    w.p.region->layout.model[0]--;
    bad[20]++;          /* another owner */
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_ESTALE);
    bad[20]--;
    bad[0]++;
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_EPROTO);
    bad[0]--;
    memcpy(bad + 54, "\x09\0\0\0", 4);   /* a lease of 9 ms, then one of hours */
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_EINVAL);
    memcpy(bad + 54, "\0\0\0\x01", 4);
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_EINVAL);
    memcpy(bad + 54, grant.p + 54, 4);
    w.d.desc.n_transports = 0;
    assert_int_equal(pd_kv_source_open(w.p.kv, &p, &source_events, &w, &w.source, &err), PD_ENOENT);
    w.d.desc.n_transports = 2;
    assert_int_equal(pd_kv_table()->can_receive(w.d.kv, 7, w.d.region), PD_OK);
    struct pd_str engine = pd_str_from(w.p.engine.name);
    assert_int_equal(pd_kv_table()->match(w.d.kv, 7, w.d.region, engine), PD_KV_MATCH_OK);
    assert_int_equal(pd_kv_table()->match(w.d.kv, 7, w.d.region, PD_STR("none")), PD_KV_MATCH_GONE);
    assert_int_equal(pd_kv_table()->match(w.d.kv, 99, w.d.region, engine), PD_KV_MATCH_GONE);
    w.p.engine.layout.kv_heads *= 2;
    w.p.engine.layout.head_dim /= 2;
    assert_int_equal(pd_kv_table()->match(w.d.kv, 7, w.d.region, engine), PD_KV_MATCH_LAYOUT);
    w.p.engine.layout.kv_heads /= 2;
    w.p.engine.layout.head_dim *= 2;
    w.p.desc.n_transports = 0;
    assert_int_equal(pd_kv_table()->match(w.d.kv, 7, w.d.region, engine), PD_KV_MATCH_TRANSPORT);
    w.p.desc.n_transports = 2;
    w.p.engine.layout.model[0]++;
    assert_int_equal(pd_kv_table()->can_receive(w.d.kv, 7, w.d.region), PD_ENOENT);
    assert_int_equal(pd_kv_table()->match(w.d.kv, 7, w.d.region, engine), PD_KV_MATCH_MODEL);
    /* Nonsense for the destination ends it. */
    assert_int_equal(pd_kv_dest_message(w.dest, PD_STR("nonsense")), PD_EPROTO);
    assert_int_equal(w.d_ends, 0);
    run(&w, 10 * PD_MS);
    assert_int_equal(w.d_ends, 1);
    assert_int_equal(w.dr.verdict, PD_KV_FAILED);
    world_down(&w);
    /* A message with another generation. */
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    open_both(&w);
    struct pd_buf b;
    struct pd_kv_message m = { .type = PD_KV_M_DONE, .xid = w.dest->e.xid,
                               .generation = w.dest->e.generation + 1 };
    pd_buf_init(&b, 100);
    assert_int_equal(pd_kv_message_write(&m, NULL, &b), PD_OK);
    assert_int_equal(pd_kv_dest_message(w.dest, pd_buf_str(&b)), PD_OK);
    run(&w, 20 * PD_MS);
    assert_int_equal(w.dr.verdict, PD_KV_STALE);
    assert_int_equal(w.s_ends, 1);
    pd_buf_fini(&b);
    world_down(&w);
}

/* Many at a time share one way; it goes when it was idle for a while. */
static void test_ways(void **state)
{
    struct world w;
    (void)state;
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    for (int i = 0; i < 3; i++) {
        open_both(&w);
        push_all(&w);
        run(&w, 20 * PD_MS);
        assert_int_equal(w.dr.verdict, PD_KV_VALID);
    }
    assert_int_equal(w.p.t[0].connects, 1);
    run(&w, 100 * PD_MS);
    assert_int_equal(w.p.kv->n_ways, 0);
    open_both(&w);
    run(&w, 5 * PD_MS);
    /* The destination's node is replaced by a new epoch. */
    pd_kv_peer_gone(w.p.kv, &w.d.desc.id);
    push(&w, TOKENS);
    run(&w, 20 * PD_MS);
    assert_int_equal(w.s_ends, 4);
    assert_int_equal(w.sr.verdict, PD_KV_FAILED);
    assert_int_equal(w.p.kv->n_ways, 0);
    /* A plane that is destroyed ends what runs. */
    open_both(&w);
    run(&w, PD_MS);
    world_down(&w);
}

static uint32_t rnd(uint64_t *x, uint32_t below)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return (uint32_t)((*x >> 11) % below);
}

/* Anything may happen: both ends end once, VALID means right, and nothing lands
 * after the destination's end. */
static void test_random(void **state)
{
    uint32_t verdicts[PD_KV_VERDICTS] = { 0 };
    uint64_t x = 0x2545f4914f6cdd1du;
    (void)state;
    for (int round = 0; round < 6000; round++) {
        struct world w;
        struct pd_err err = { 0 };
        bool keeps_messages = rnd(&x, 4) != 0;
        world_up(&w, PD_KV_DIGESTS_FULL, 1 + rnd(&x, 30), 1 + rnd(&x, 30));
        w.from = rnd(&x, TOKENS);
        w.to = w.from + 1 + rnd(&x, TOKENS - w.from);
        if (rnd(&x, 2) == 0)
            w.d.flags = w.p.flags = PD_PEER_SAME_HOST;
        for (int i = 0; i < 2; i++) {
            w.p.t[i].fault = rnd(&x, 3) == 0 ? F_NONE : (enum fault)rnd(&x, F_NO_WINDOW);
            w.p.t[i].fault_at = rnd(&x, 12);
        }
        if (!keeps_messages)
            w.drop_type = PD_KV_M_RENEW + rnd(&x, 6);
        assert_int_equal(open_dest(&w), PD_OK);
        assert_int_equal(open_source(&w, &err), PD_OK);
        for (uint32_t t = w.from; t < w.to; t += 1 + rnd(&x, 30)) {
            push(&w, t);
            run(&w, rnd(&x, 3000) * PD_US);
            if (rnd(&x, 30) == 0 && w.dest != NULL)
                pd_kv_dest_abort(w.dest, rnd(&x, 2) == 0);
            if (rnd(&x, 30) == 0 && w.source != NULL)
                pd_kv_source_abort(w.source, rnd(&x, 2) == 0);
            if (rnd(&x, 200) == 0)
                w.mute = true;
        }
        push(&w, TOKENS);
        run(&w, 700 * PD_MS);
        /* What hangs for ever is ended by the deadline of its request. */
        if (w.dest != NULL)
            pd_kv_dest_abort(w.dest, true);
        if (w.source != NULL)
            pd_kv_source_abort(w.source, true);
        run(&w, 10 * PD_MS);
        assert_true(w.d_ends == 1 && w.s_ends == 1);
        verdicts[w.dr.verdict]++;
        if (w.dr.verdict == PD_KV_VALID)
            assert_true(wrong_cells(&w) == 0 && w.dr.verified);
        assert_true(w.sr.verdict != PD_KV_VALID || w.dr.verdict == PD_KV_VALID);
        assert_quiet(&w);
        world_down(&w);
    }
    assert_true(verdicts[PD_KV_VALID] > 200 && verdicts[PD_KV_CORRUPT] > 20 &&
                verdicts[PD_KV_TIMEOUT] > 20 && verdicts[PD_KV_FAILED] > 100 &&
                verdicts[PD_KV_ABORTED] > 20 && verdicts[PD_KV_PEER_ABORTED] > 20);
}

/* Memory runs out at each point: an honest end, nothing leaked, nothing wrong. */
static void test_no_memory(void **state)
{
    uint32_t valid = 0, refused = 0;
    (void)state;
    for (uint64_t n = 1; n < 140; n++) {
        struct world w;
        struct pd_err err;
        world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
        pd_mem_fault_set(n);
        if (open_dest(&w) != PD_OK) {
            w.dest = NULL;
            refused++;
        } else if (open_source(&w, &err) != PD_OK) {
            w.source = NULL;
            refused++;
            pd_kv_dest_abort(w.dest, true);
        }
        push_all(&w);
        pd_mem_fault_set(0);
        run(&w, 600 * PD_MS);
        assert_true(w.dest == NULL && w.source == NULL);
        if (w.d_ends == 1 && w.dr.verdict == PD_KV_VALID) {
            valid++;
            assert_true(wrong_cells(&w) == 0);
        }
        world_down(&w);
    }
    assert_true(valid > 0 && refused > 10);
}

/* ---- edges: what may not be asked, and messages that break one rule each ------------ */

static void test_params(void **state)
{
    struct world w;
    struct pd_err err = { 0 };
    struct pd_kv_region *region;
    char name[80];
    (void)state;
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    const struct pd_kv_dest_params good = { .size = sizeof good, .n_blocks = 8, .peer = 7, .region = w.d.region,
                                            .blocks = w.d.index, .tokens = w.tokens, .from = 3, .to = 58 };
    for (int how = 0; how < 8; how++) {
        struct pd_kv_dest_params p = good;
        pd_status want = PD_EINVAL;
        switch (how) {
        case 0: p.region = NULL; break;
        case 1: p.blocks = NULL; break;
        case 2: p.tokens = NULL; break;
        case 3: p.from = p.to; break;
        case 4: p.to = PD_KV_MAX_TOKENS + 1; break;
        case 5: p.n_blocks = 7; break;
        case 6: p.peer = 8; want = PD_ESTALE; break;
        default: w.p.desc.n_transports = 0; want = PD_ENOENT; break;
        }
        assert_int_equal(pd_kv_dest_open(w.d.kv, &p, &dest_events, &w, &w.dest), want);
        assert_int_equal(w.d.kv->n_dests, 0);
    }
    w.p.desc.n_transports = 2;
    /* No way of the two can open a window, or tell of it. */
    w.d.t[0].fault = w.d.t[1].fault = F_NO_WINDOW;
    assert_int_equal(open_dest(&w), PD_ENOENT);
    w.d.t[0].fault = w.d.t[1].fault = F_NONE;
    /* One more than there may be. */
    w.d.kv->conf.max_handovers = 1;
    assert_int_equal(open_dest(&w), PD_OK);
    struct pd_kv_dest *other;
    assert_int_equal(pd_kv_dest_open(w.d.kv, &good, &dest_events, &w, &other), PD_ELIMIT);
    struct pd_str grant = pd_kv_dest_grant(w.dest);
    struct pd_kv_source_params s = { .size = sizeof s, .n_tokens = TOKENS, .peer = 7, .region = w.p.region,
                                     .grant = grant.p, .grant_len = grant.n, .tokens = w.tokens };
    w.p.kv->conf.max_handovers = 0;
    assert_int_equal(pd_kv_source_open(w.p.kv, &s, &source_events, &w, &w.source, &err), PD_ELIMIT);
    w.source = NULL;
    pd_kv_dest_abort(w.dest, true);
    run(&w, 20 * PD_MS);
    /* transports and regions */
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(pd_kv_transport_add(w.d.kv, "net", &mt_ops, &w.d.t[0]), PD_EEXIST);
    assert_int_equal(pd_kv_transport_add(w.d.kv, name, &mt_ops, &w.d.t[0]), PD_ELIMIT);
    assert_int_equal(pd_kv_region_add(w.d.kv, name, &w.d.info, &region, &err), PD_ELIMIT);
    for (int how = 0; how < 4; how++) {
        struct pd_engine_info info = w.d.info;
        switch (how) {
        case 0: info.region = NULL; break;
        case 1: info.blocks = 0; break;
        case 2: info.region_bytes /= 2; break;
        default: info.layout.kv_heads = 0; break;
        }
        memset(&err, 0, sizeof err);
        assert_int_equal(pd_kv_region_add(w.d.kv, "more", &info, &region, &err), PD_EINVAL);
        assert_true(err.text[0] != '\0');
    }
    pd_mem_fault_set(1);
    assert_int_equal(pd_kv_region_add(w.d.kv, "more", &w.d.info, &region, &err), PD_ENOMEM);
    pd_mem_fault_set(0);
    world_down(&w);
}

static void say(struct world *w, bool to_dest, struct pd_kv_message *m, const uint64_t *digests, pd_status want)
{
    struct pd_buf b;
    m->xid += to_dest ? w->dest->e.xid : w->source->e.xid;
    m->generation += to_dest ? w->dest->e.generation : w->source->e.generation;
    pd_buf_init(&b, 100000);
    assert_int_equal(pd_kv_message_write(m, digests, &b), PD_OK);
    assert_int_equal(to_dest ? pd_kv_dest_message(w->dest, pd_buf_str(&b)) : pd_kv_source_message(w->source, pd_buf_str(&b)),
                     want);
    pd_buf_fini(&b);
}

static void test_messages_to_dest(void **state)
{
    static const struct {
        struct pd_kv_message m;
        pd_status status;
        uint32_t verdict;       /* 0: it goes on */
    } rows[] = {
        { { .type = PD_KV_M_RENEW }, PD_OK, 0 },
        { { .type = PD_KV_M_DIGESTS, .first = 0, .count = 1 }, PD_OK, 0 },
        { { .type = PD_KV_M_DIGESTS, .first = 1000, .count = 1 }, PD_EPROTO, PD_KV_FAILED },
        { { .type = PD_KV_M_DIGESTS, .first = 7, .count = 2 }, PD_EPROTO, PD_KV_FAILED },
        { { .type = PD_KV_M_DONE, .way = 9, .count = 8, .bytes = 55 * 64 }, PD_OK, PD_KV_FAILED },
        { { .type = PD_KV_M_DONE, .way = 0, .count = 8, .bytes = 1 }, PD_OK, PD_KV_FAILED },
        { { .type = PD_KV_M_DONE, .way = 0, .count = 9, .bytes = 55 * 64 }, PD_OK, PD_KV_FAILED },
        { { .type = PD_KV_M_DONE, .way = 0, .count = 8, .bytes = 55 * 64 }, PD_OK, PD_KV_FAILED },  /* no digests */
        { { .type = PD_KV_M_VERDICT, .verdict = PD_KV_VALID }, PD_EPROTO, PD_KV_FAILED },
        { { .type = PD_KV_M_ABORT, .verdict = PD_KV_REFUSED }, PD_OK, PD_KV_REFUSED },
        { { .type = PD_KV_M_ABORT, .verdict = PD_KV_FAILED }, PD_OK, PD_KV_FAILED },
        { { .type = PD_KV_M_ABORT, .verdict = PD_KV_TIMEOUT }, PD_OK, PD_KV_PEER_ABORTED },
        { { .type = PD_KV_M_RENEW, .xid = 1 }, PD_OK, PD_KV_STALE },
        { { .type = PD_KV_M_RENEW, .generation = 1 }, PD_OK, PD_KV_STALE },
    };
    static const uint64_t digests[4];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w;
        struct pd_kv_message m = rows[i].m;
        world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
        w.mute = true;
        assert_int_equal(open_dest(&w), PD_OK);
        say(&w, true, &m, digests, rows[i].status);
        if (rows[i].verdict != 0) {
            if (w.dest != NULL) {
                /* What comes after it changes nothing. */
                struct pd_kv_message late = { .type = PD_KV_M_RENEW };
                say(&w, true, &late, NULL, PD_OK);
                pd_kv_dest_renew(w.dest);
                pd_kv_dest_abort(w.dest, false);
            }
            run(&w, 20 * PD_MS);
            assert_int_equal(w.d_ends, 1);
            assert_int_equal(w.dr.verdict, rows[i].verdict);
        } else {
            pd_kv_dest_renew(w.dest);
            run(&w, 20 * PD_MS);
            assert_int_equal(w.d_ends, 0);
            pd_kv_dest_abort(w.dest, true);
            run(&w, 20 * PD_MS);
            assert_int_equal(w.dr.verdict, PD_KV_ABORTED);
        }
        world_down(&w);
    }
}

static void test_messages_to_source(void **state)
{
    static const struct {
        struct pd_kv_message m;
        pd_status status;
    } rows[] = {
        { { .type = PD_KV_M_VERDICT, .verdict = PD_KV_VALID }, PD_EPROTO },  /* before it is done */
        { { .type = PD_KV_M_VERDICT, .verdict = PD_KV_CORRUPT }, PD_OK },
        { { .type = PD_KV_M_ABORT, .verdict = PD_KV_TIMEOUT }, PD_OK },
        { { .type = PD_KV_M_RENEW }, PD_EPROTO },
        { { .type = PD_KV_M_DONE }, PD_EPROTO },
        { { .type = PD_KV_M_VERDICT, .verdict = PD_KV_VALID, .xid = 1 }, PD_OK },
        { { .type = PD_KV_M_VERDICT, .verdict = PD_KV_VALID, .generation = 1 }, PD_OK },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w;
        struct pd_kv_message m = rows[i].m;
        struct pd_buf b;
        world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
        open_both(&w);
        push(&w, 20);
        run(&w, 2 * PD_MS);
        w.mute = true;
        pd_buf_init(&b, 1000);
        m.xid += w.source->e.xid;
        m.generation += w.source->e.generation;
        assert_int_equal(pd_kv_message_write(&m, NULL, &b), PD_OK);
        pd_status st = pd_kv_source_message(w.source, pd_buf_str(&b));
        assert_int_equal(st, rows[i].status);
        pd_buf_fini(&b);
        push(&w, TOKENS);
        run(&w, 400 * PD_MS);
        assert_true(w.d_ends == 1 && w.s_ends == 1);
        assert_true(w.sr.verdict != PD_KV_VALID && w.dr.verdict != PD_KV_VALID);
        world_down(&w);
    }
}

/* Lists that are asked for with little room say how many there are. */
static void test_lists(void **state)
{
    struct world w;
    struct pd_kv_lease_row leases[4];
    struct pd_kv_transfer_row rows[4];
    (void)state;
    world_up(&w, PD_KV_DIGESTS_FULL, 8, 8);
    open_both(&w);
    push(&w, 30);
    run(&w, 2 * PD_MS);
    assert_int_equal(pd_kv_table()->leases(w.d.kv, leases, 4), 1);
    assert_int_equal(pd_kv_table()->leases(w.d.kv, leases, 0), 1);
    assert_int_equal(pd_kv_table()->transfers(w.d.kv, rows, 4), 1);
    assert_int_equal(pd_kv_table()->transfers(w.d.kv, rows, 0), 1);
    assert_int_equal(pd_kv_table()->transfers(w.p.kv, rows, 4), 1);
    assert_int_equal(pd_kv_table()->transfers(w.p.kv, rows, 0), 1);
    push_all(&w);
    run(&w, 30 * PD_MS);
    assert_int_equal(w.dr.verdict, PD_KV_VALID);
    assert_true(pd_kv_table()->transfers(w.d.kv, rows, 4) >= 1);
    assert_true(pd_kv_table()->transfers(w.d.kv, rows, 0) >= 1);
    assert_true(pd_kv_table()->leases(w.d.kv, leases, 4) >= 1);
    assert_true(pd_kv_table()->leases(w.d.kv, leases, 0) >= 1);
    world_down(&w);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_good),
    cmocka_unit_test(test_faults),
    cmocka_unit_test(test_digests_off),
    cmocka_unit_test(test_fallback),
    cmocka_unit_test(test_aborts),
    cmocka_unit_test(test_expiry),
    cmocka_unit_test(test_refusals),
    cmocka_unit_test(test_ways),
    cmocka_unit_test(test_random),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_params),
    cmocka_unit_test(test_messages_to_dest),
    cmocka_unit_test(test_messages_to_source),
    cmocka_unit_test(test_lists),
};
PD_UNIT_MAIN(tests)
