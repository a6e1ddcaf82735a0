/* SPDX-License-Identifier: Apache-2.0 */
/* What a link has to send: frames are copied into pooled chunks and leave with one
 * writev at the end of the turn. */
#include "peer/priv.h"

#include "base/compiler.h"
#include "base/mem.h"

static struct pd_chunk *chunk_get(struct pd_peers *peers)
{
    struct pd_list *l = pd_list_pop(&peers->chunks);
    struct pd_chunk *c;
    if (l != NULL) {
        peers->n_chunks--;
        c = PD_LIST_ENTRY(l, struct pd_chunk, node);
    } else {
        c = (struct pd_chunk *)pd_alloc(sizeof *c);
        if (c == NULL)
            return NULL;
        pd_list_init(&c->node);
    }
    c->head = 0;
    c->tail = 0;
    return c;
}

static void chunk_put(struct pd_peers *peers, struct pd_chunk *c)
{
    if (peers->n_chunks >= PD_LINK_CHUNKS_KEPT) {
        pd_free(c);
        return;
    }
    pd_list_prepend(&peers->chunks, &c->node);
    peers->n_chunks++;
}

static pd_status tx_append(struct pd_link *link, const void *p, size_t n)
{
    const uint8_t *from = (const uint8_t *)p;
    while (n > 0) {
        struct pd_list *last = pd_list_last(&link->tx);
        struct pd_chunk *c = last == NULL ? NULL : PD_LIST_ENTRY(last, struct pd_chunk, node);
        if (c == NULL || c->tail == PD_LINK_CHUNK) {
            c = chunk_get(link->peers);
            if (c == NULL)
                return PD_ENOMEM;
            pd_list_append(&link->tx, &c->node);
        }
        size_t room = PD_LINK_CHUNK - c->tail;
        size_t take = PD_MIN(room, n);
        memcpy(c->bytes + c->tail, from, take);
        c->tail += (uint32_t)take;
        from += take;
        n -= take;
        link->tx_bytes += take;
    }
    return PD_OK;
}

void pd_link_consume(struct pd_link *link, size_t n)
{
    link->tx_bytes -= n;
    while (n > 0) {
        struct pd_chunk *c = PD_LIST_ENTRY(link->tx.next, struct pd_chunk, node);
        size_t have = c->tail - c->head;
        size_t take = PD_MIN(have, n);
        c->head += (uint32_t)take;
        n -= take;
        if (c->head == c->tail) {
            pd_list_remove(&c->node);
            chunk_put(link->peers, c);
        }
    }
}

void pd_link_drop_queue(struct pd_link *link)
{
    struct pd_list *l;
    while ((l = pd_list_pop(&link->tx)) != NULL)
        chunk_put(link->peers, PD_LIST_ENTRY(l, struct pd_chunk, node));
    link->tx_bytes = 0;
}

bool pd_link_may_send(const struct pd_link *link)
{
    return link->state == PD_LINK_UP && link->tx_bytes < link->peers->conf.link_queue;
}

pd_status pd_link_send(struct pd_link *link, const struct pd_frame *frame,
                       const struct pd_iov *payload, size_t n)
{
    uint8_t header[PD_FRAME_HEADER];
    if (link->state >= PD_LINK_CLOSING || link->fail_reason != 0)
        return PD_EPEER;
    pd_frame_write(header, frame, payload, n);
    pd_status st = tx_append(link, header, sizeof header);
    for (size_t i = 0; i < n && st == PD_OK; i++)
        if (payload[i].len > 0)
            st = tx_append(link, payload[i].base, payload[i].len);
    if (st != PD_OK)
        link->fail_reason = PD_GOODBYE_MEMORY;  /* half a frame may be queued */
    pd_link_kick(link);
    return st;
}

pd_status pd_link_send_simple(struct pd_link *link, uint8_t type, const void *payload, size_t n)
{
    struct pd_frame f = { .type = type, .length = (uint32_t)n };
    struct pd_iov iov = { (void *)(uintptr_t)payload, n };
    return pd_link_send(link, &f, &iov, n == 0 ? 0 : 1);
}

void pd_link_kick(struct pd_link *link)
{
    if (!link->is_flushing && link->state < PD_LINK_CLOSED)
        pd_loop_defer(link->peers->loop, &link->task);
}

bool pd_link_write(struct pd_link *link)
{
    while (link->tx_bytes > 0 && !link->is_blocked) {
        struct pd_iov iov[64];
        size_t n = 0, want = 0, sent = 0;
        PD_LIST_EACH(&link->tx, l) {
            struct pd_chunk *c = PD_LIST_ENTRY(l, struct pd_chunk, node);
            if (n == PD_ARRAY_LEN(iov))
                break;
            iov[n].base = c->bytes + c->head;
            iov[n].len = c->tail - c->head;
            want += iov[n++].len;
        }
        pd_status st = pd_stream_writev(link->stream, iov, n, &sent);
        if (st != PD_OK && st != PD_EAGAIN)
            return false;
        if (st == PD_OK) {
            pd_link_consume(link, sent);
            link->bytes_out += sent;
            pd_peers_count(link->peers, PD_COUNT_BYTES_OUT, sent);
        }
        if (st == PD_EAGAIN || sent < want)
            link->is_blocked = true;
    }
    return true;
}
