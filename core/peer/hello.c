/* SPDX-License-Identifier: Apache-2.0 */
/* Readers and writers of what nodes say about themselves.  A description that
 * was read has passed every check of pd_desc_check, so the rest of the core may
 * use its strings and counts as they are. */
#include "peer/hello.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"
#include "base/wire.h"

void pd_preamble_write(const struct pd_preamble *p, uint8_t out[PD_HELLO_PREAMBLE])
{
    pd_wire_put_u16(out, p->version_min);
    pd_wire_put_u16(out + 2, p->version_max);
    pd_wire_put_u32(out + 4, p->auth);
    pd_wire_put_u32(out + 8, p->window);
    pd_wire_put_u32(out + 12, p->max_message);
    memcpy(out + 16, p->nonce, PD_HELLO_NONCE);
}

pd_status pd_preamble_read(const void *p, size_t n, struct pd_preamble *out)
{
    /* Later versions may append to it. */
    if (n < PD_HELLO_PREAMBLE)
        return PD_EPROTO;
    const uint8_t *b = (const uint8_t *)p;
    out->version_min = pd_wire_get_u16(b);
    out->version_max = pd_wire_get_u16(b + 2);
    out->auth = pd_wire_get_u32(b + 4);
    out->window = pd_wire_get_u32(b + 8);
    out->max_message = pd_wire_get_u32(b + 12);
    memcpy(out->nonce, b + 16, PD_HELLO_NONCE);
    if (out->version_min == 0 || out->version_min > out->version_max || out->auth > 1 ||
        out->window < PD_HELLO_WINDOW_MIN || out->window > PD_HELLO_WINDOW_MAX ||
        out->max_message < PD_HELLO_WINDOW_MIN)
        return PD_EPROTO;
    return PD_OK;
}

uint16_t pd_preamble_agree(const struct pd_preamble *a, const struct pd_preamble *b)
{
    uint16_t v = PD_MIN(a->version_max, b->version_max);
    return v >= PD_MAX(a->version_min, b->version_min) ? v : 0;
}

static struct pd_str text_of(const char *field, size_t size)
{
    return pd_str_of(field, strnlen(field, size));
}

/* Ended within its field and free of control characters. */
static bool text_is_clean(const char *field, size_t size)
{
    size_t n = strnlen(field, size);
    if (n == size)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)field[i] < 0x20 || field[i] == 0x7f)
            return false;
    return true;
}

pd_status pd_desc_check(const struct pd_peer_desc *d, struct pd_err *err)
{
    if (d->n_engines > PD_PEER_MAX_ENGINES || d->n_transports > PD_PEER_MAX_TRANSPORTS)
        return pd_err_set(err, PD_EINVAL, "a node may have at most %d engines and %d transports",
                          PD_PEER_MAX_ENGINES, PD_PEER_MAX_TRANSPORTS);
    if (pd_uuid_is_zero(&d->id.uuid) || d->id.epoch == 0)
        return pd_err_set(err, PD_EINVAL, "the node has no identity");
    if (!text_is_clean(d->name, sizeof d->name) || d->name[0] == '\0' ||
        !text_is_clean(d->version, sizeof d->version) ||
        !text_is_clean(d->host_id, sizeof d->host_id) ||
        !text_is_clean(d->listener, sizeof d->listener))
        return pd_err_set(err, PD_EINVAL, "the node's name is empty or not plain text");
    for (uint32_t i = 0; i < d->n_engines; i++) {
        const struct pd_peer_engine *e = &d->engines[i];
        if (!text_is_clean(e->name, sizeof e->name) || e->name[0] == '\0' ||
            !text_is_clean(e->model, sizeof e->model))
            return pd_err_set(err, PD_EINVAL, "the name of engine %u is empty or not plain text",
                              i);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(e->name, d->engines[k].name) == 0)
                return pd_err_set(err, PD_EINVAL, "two engines have the name \"%s\"", e->name);
    }
    for (uint32_t i = 0; i < d->n_transports; i++) {
        const struct pd_peer_transport *t = &d->transports[i];
        if (!text_is_clean(t->name, sizeof t->name) || t->name[0] == '\0' ||
            t->address_len > PD_PEER_MAX_ADDRESS)
            return pd_err_set(err, PD_EINVAL, "transport %u has no name or too long an address", i);
    }
    return PD_OK;
}

static void layout_write(struct pd_writer *w, const struct pd_layout *l)
{
    pd_writer_u32(w, l->order);
    pd_writer_u32(w, l->dtype);
    pd_writer_u32(w, l->layers);
    pd_writer_u32(w, l->kv_heads);
    pd_writer_u32(w, l->head_dim);
    pd_writer_u32(w, l->block_tokens);
    pd_writer_u64(w, l->block_bytes);
    pd_writer_bytes(w, l->model, sizeof l->model);
}

static void layout_read(struct pd_reader *r, struct pd_layout *l)
{
    memset(l, 0, sizeof *l);
    l->size = sizeof *l;
    l->order = pd_reader_u32(r);
    l->dtype = pd_reader_u32(r);
    l->layers = pd_reader_u32(r);
    l->kv_heads = pd_reader_u32(r);
    l->head_dim = pd_reader_u32(r);
    l->block_tokens = pd_reader_u32(r);
    l->block_bytes = pd_reader_u64(r);
    const void *model = pd_reader_take(r, sizeof l->model);
    if (model != NULL)
        memcpy(l->model, model, sizeof l->model);
}

static void engine_write(struct pd_writer *w, const struct pd_peer_engine *e)
{
    pd_writer_str16(w, text_of(e->name, sizeof e->name));
    pd_writer_str16(w, text_of(e->model, sizeof e->model));
    pd_writer_u32(w, e->flags);
    pd_writer_u32(w, e->roles);
    pd_writer_u32(w, e->context_tokens);
    pd_writer_u32(w, e->vocab);
    pd_writer_u32(w, e->blocks);
    pd_writer_u32(w, e->max_running);
    pd_writer_u64(w, e->fingerprint[0]);
    pd_writer_u64(w, e->fingerprint[1]);
    layout_write(w, &e->layout);
    pd_writer_u32(w, e->serial);
}

static void text_read(struct pd_reader *r, char *field, size_t size)
{
    struct pd_str s = pd_reader_str16(r, size - 1);
    memset(field, 0, size);
    if (memchr(s.p, 0, s.n) != NULL)
        r->failed = true;
    else
        memcpy(field, s.p, s.n);
}

static void engine_read(struct pd_reader *r, struct pd_peer_engine *e)
{
    memset(e, 0, sizeof *e);
    text_read(r, e->name, sizeof e->name);
    text_read(r, e->model, sizeof e->model);
    e->flags = pd_reader_u32(r);
    e->roles = pd_reader_u32(r);
    e->context_tokens = pd_reader_u32(r);
    e->vocab = pd_reader_u32(r);
    e->blocks = pd_reader_u32(r);
    e->max_running = pd_reader_u32(r);
    e->fingerprint[0] = pd_reader_u64(r);
    e->fingerprint[1] = pd_reader_u64(r);
    layout_read(r, &e->layout);
    e->serial = pd_reader_u32(r);
}

static void transport_read(struct pd_reader *r, struct pd_peer_transport *t)
{
    memset(t, 0, sizeof *t);
    text_read(r, t->name, sizeof t->name);
    t->flags = pd_reader_u32(r);
    struct pd_str a = pd_reader_str16(r, sizeof t->address);
    t->address_len = (uint32_t)a.n;
    memcpy(t->address, a.p, a.n);
}

pd_status pd_desc_write(const struct pd_peer_desc *d, bool draining, void *out, size_t cap,
                        size_t *n)
{
    struct pd_writer w;
    pd_status st = pd_desc_check(d, NULL);
    if (st != PD_OK)
        return st;
    pd_writer_init(&w, out, cap);
    pd_writer_bytes(&w, d->id.uuid.b, sizeof d->id.uuid.b);
    pd_writer_u64(&w, d->id.epoch);
    pd_writer_str16(&w, text_of(d->name, sizeof d->name));
    pd_writer_str16(&w, text_of(d->version, sizeof d->version));
    pd_writer_str16(&w, text_of(d->host_id, sizeof d->host_id));
    pd_writer_str16(&w, text_of(d->listener, sizeof d->listener));
    pd_writer_u32(&w, d->roles);
    pd_writer_u8(&w, draining ? 1 : 0);
    pd_writer_u8(&w, (uint8_t)d->n_engines);
    for (uint32_t i = 0; i < d->n_engines; i++)
        engine_write(&w, &d->engines[i]);
    pd_writer_u8(&w, (uint8_t)d->n_transports);
    for (uint32_t i = 0; i < d->n_transports; i++) {
        const struct pd_peer_transport *t = &d->transports[i];
        pd_writer_str16(&w, text_of(t->name, sizeof t->name));
        pd_writer_u32(&w, t->flags);
        pd_writer_str16(&w, pd_str_of(t->address, t->address_len));
    }
    if (w.failed)
        return PD_ELIMIT;
    *n = w.n;
    return PD_OK;
}

/* One allocation for a description with its two arrays. */
static struct pd_peer_desc *desc_alloc(uint32_t engines, uint32_t transports)
{
    size_t at_engines = sizeof(struct pd_peer_desc);
    size_t at_transports = at_engines + engines * sizeof(struct pd_peer_engine);
    size_t bytes = at_transports + transports * sizeof(struct pd_peer_transport);
    char *p = (char *)pd_calloc(1, bytes);
    if (p == NULL)
        return NULL;
    struct pd_peer_desc *d = (struct pd_peer_desc *)(void *)p;
    d->n_engines = engines;
    d->n_transports = transports;
    d->engines = (struct pd_peer_engine *)(void *)(p + at_engines);
    d->transports = (struct pd_peer_transport *)(void *)(p + at_transports);
    return d;
}

struct pd_peer_desc *pd_desc_copy(const struct pd_peer_desc *desc)
{
    struct pd_peer_desc *d = desc_alloc(desc->n_engines, desc->n_transports);
    if (d == NULL)
        return NULL;
    const struct pd_peer_engine *engines = d->engines;
    const struct pd_peer_transport *transports = d->transports;
    *d = *desc;
    d->engines = engines;
    d->transports = transports;
    if (desc->n_engines > 0)
        memcpy((void *)(uintptr_t)engines, desc->engines, desc->n_engines * sizeof *engines);
    if (desc->n_transports > 0)
        memcpy((void *)(uintptr_t)transports, desc->transports,
               desc->n_transports * sizeof *transports);
    return d;
}

pd_status pd_desc_read(const void *p, size_t n, struct pd_peer_desc **out, bool *draining)
{
    struct pd_reader r;
    struct pd_peer_desc *d = desc_alloc(PD_PEER_MAX_ENGINES, PD_PEER_MAX_TRANSPORTS);
    if (d == NULL)
        return PD_ENOMEM;
    pd_reader_init(&r, p, n);
    d->id.uuid = pd_reader_uuid(&r);
    d->id.epoch = pd_reader_u64(&r);
    text_read(&r, d->name, sizeof d->name);
    text_read(&r, d->version, sizeof d->version);
    text_read(&r, d->host_id, sizeof d->host_id);
    text_read(&r, d->listener, sizeof d->listener);
    d->roles = pd_reader_u32(&r);
    uint8_t flags = pd_reader_u8(&r);
    d->n_engines = pd_reader_u8(&r);
    if (d->n_engines > PD_PEER_MAX_ENGINES || flags > 1)
        goto bad;
    for (uint32_t i = 0; i < d->n_engines && !r.failed; i++)
        engine_read(&r, (struct pd_peer_engine *)(uintptr_t)&d->engines[i]);
    d->n_transports = pd_reader_u8(&r);
    if (d->n_transports > PD_PEER_MAX_TRANSPORTS)
        goto bad;
    for (uint32_t i = 0; i < d->n_transports && !r.failed; i++)
        transport_read(&r, (struct pd_peer_transport *)(uintptr_t)&d->transports[i]);
    if (pd_reader_finish(&r) != PD_OK || pd_desc_check(d, NULL) != PD_OK)
        goto bad;
    *draining = flags == 1;
    *out = pd_desc_copy(d);
    pd_free(d);
    return *out == NULL ? PD_ENOMEM : PD_OK;
bad:
    pd_free(d);
    return PD_EPROTO;
}

size_t pd_heartbeat_write(const struct pd_heartbeat *h, uint8_t *out, size_t cap)
{
    struct pd_writer w;
    pd_writer_init(&w, out, cap);
    pd_writer_u64(&w, h->sent);
    pd_writer_u64(&w, h->echo);
    pd_writer_u64(&w, h->held);
    pd_writer_u8(&w, h->draining != 0 ? 1 : 0);
    pd_writer_u8(&w, (uint8_t)h->n_loads);
    for (uint32_t i = 0; i < h->n_loads; i++) {
        const struct pd_engine_load *l = &h->loads[i];
        pd_writer_u32(&w, l->running);
        pd_writer_u32(&w, l->waiting);
        pd_writer_u32(&w, l->blocks_total);
        pd_writer_u32(&w, l->blocks_free);
        pd_writer_u32(&w, l->blocks_cached);
        pd_writer_u64(&w, l->prompt_tokens);
        pd_writer_u64(&w, l->output_tokens);
        pd_writer_u64(&w, l->cached_tokens);
        pd_writer_u64(&w, l->preemptions);
    }
    pd_assert(!w.failed);
    return w.n;
}

pd_status pd_heartbeat_read(const void *p, size_t n, struct pd_heartbeat *out)
{
    struct pd_reader r;
    memset(out, 0, sizeof *out);
    pd_reader_init(&r, p, n);
    out->sent = pd_reader_u64(&r);
    out->echo = pd_reader_u64(&r);
    out->held = pd_reader_u64(&r);
    out->draining = pd_reader_u8(&r);
    out->n_loads = pd_reader_u8(&r);
    if (out->draining > 1 || out->n_loads > PD_PEER_MAX_ENGINES)
        return PD_EPROTO;
    for (uint32_t i = 0; i < out->n_loads; i++) {
        struct pd_engine_load *l = &out->loads[i];
        l->size = sizeof *l;
        l->running = pd_reader_u32(&r);
        l->waiting = pd_reader_u32(&r);
        l->blocks_total = pd_reader_u32(&r);
        l->blocks_free = pd_reader_u32(&r);
        l->blocks_cached = pd_reader_u32(&r);
        l->prompt_tokens = pd_reader_u64(&r);
        l->output_tokens = pd_reader_u64(&r);
        l->cached_tokens = pd_reader_u64(&r);
        l->preemptions = pd_reader_u64(&r);
    }
    return pd_reader_finish(&r);
}
