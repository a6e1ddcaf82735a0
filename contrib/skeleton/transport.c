/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: moves bytes between the memory of two nodes, over one connection for
 * each way.  It works as it stands, within limits that a transport of your own
 * will want to move: it writes only (no READ), in clear text, over one stream,
 * between machines of the same byte order, and copies through the kernel.
 *
 *   poster                                owner
 *   HELLO (who, to whom, a grant)   -->   is it me, is that window open for you?
 *                                   <--   ACK
 *   DATA (window, offset) + bytes   -->   checked, and read to their place; frames
 *   DATA ... the last one           -->     that fit no window are read and dropped
 *                                   <--   ACK: the post's status
 *   STOP instead of more DATA       -->   ACK: nothing of it can move any more
 *
 * The contract stands in <pdplane/transport.h>.  Callbacks of the user come from
 * one place, on_task, and so never from inside an operation.
 *
 *   @NAME@.c          the module, its options, memory, what is shared
 *   @NAME@_poster.c   connect, target_*, post, cancel
 *   @NAME@_owner.c    window_*, and connections that others made */
#include "@NAME@.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct @NAME@_conf {                    /* filled from the rows below */
    const char *listen;
    uint64_t timeout;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_STRING("listen", struct @NAME@_conf, listen, "0.0.0.0:0",
                  .help = "Numeric address and port that other nodes connect to. Port 0 takes a free port."),
    PD_OPT_DURATION("timeout", struct @NAME@_conf, timeout, "2s", .min = 100 * (int64_t)PD_MS,
                    .max = 300 * (int64_t)PD_SEC,
                    .help = "A node that makes no progress for so long while something is under way is given up."),
    PD_OPT_END
};

static pd_status fail(struct pd_err *err, pd_status status, const char *text)
{
    err->status = status;
    snprintf(err->text, sizeof err->text, "%s", text);
    return status;
}

void @NAME@_wake(struct pd_transport *tp)
{
    pd_loop_defer(tp->loop, &tp->task);
}

bool @NAME@_same(const struct pd_node_id *a, const struct pd_node_id *b)
{
    return memcmp(&a->uuid, &b->uuid, sizeof a->uuid) == 0 && a->epoch == b->epoch;
}

pd_status @NAME@_runs(struct run *runs, const struct pd_transport_memory *memory, const struct pd_segment *segs,
                           uint32_t n, uint64_t *total)
{
    *total = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (segs[i].bytes == 0 || segs[i].offset > memory->bytes || segs[i].bytes > memory->bytes - segs[i].offset)
            return PD_EINVAL;
        runs[i] = (struct run){ memory->base + segs[i].offset, *total, segs[i].bytes };
        *total += segs[i].bytes;        /* cannot overflow: n and memory are bounded */
    }
    return n == 0 ? PD_EINVAL : PD_OK;
}

size_t @NAME@_pieces(const struct run *runs, uint32_t n, uint64_t from, uint64_t bytes, struct pd_iov *iov,
                          size_t max)
{
    uint32_t lo = 0, hi = n - 1;
    size_t k = 0;

    while (lo < hi) {
        uint32_t mid = (lo + hi + 1) / 2;
        if (runs[mid].start <= from)
            lo = mid;
        else
            hi = mid - 1;
    }
    for (; bytes > 0 && k < max; lo++, k++) {
        uint64_t skip = from - runs[lo].start, len = runs[lo].bytes - skip;
        len = len < bytes ? len : bytes;
        iov[k] = (struct pd_iov){ runs[lo].at + skip, (size_t)len };
        from += len;
        bytes -= len;
    }
    return k;
}

/* The only caller of the user's callbacks. */
static void on_task(struct pd_task *task, void *arg)
{
    struct pd_transport *tp = arg;
    void (*on_closed)(void *) = tp->on_closed;
    void *closed_arg = tp->closed_arg;

    (void)task;
    @NAME@_tell_windows(tp);
    @NAME@_tell_peers(tp);
    if (!tp->is_closing || tp->n_conns > 0)
        return;
    pd_task_cancel(tp->loop, &tp->task);
    free(tp);
    if (on_closed != NULL)
        on_closed(closed_arg);
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_transport **out,
                        struct pd_err *err)
{
    const struct @NAME@_conf *c = conf;
    const struct pd_listener_opts opts = { .size = sizeof opts, .name = "@NAME@" };
    struct pd_str text = { c->listen, strlen(c->listen) };
    struct pd_transport *tp = calloc(1, sizeof *tp);
    pd_status st;

    if (tp == NULL)
        return fail(err, PD_ENOMEM, "out of memory");
    tp->loop = ctx->loop;
    tp->log = ctx->log;
    tp->self = ctx->node;
    tp->timeout = c->timeout;
    TAILQ_INIT(&tp->windows);
    TAILQ_INIT(&tp->news);
    TAILQ_INIT(&tp->peers);
    TAILQ_INIT(&tp->conns);
    TAILQ_INIT(&tp->done);
    pd_task_init(&tp->task, "@NAME@", on_task, tp);
    st = pd_addr_parse(tp->loop, text, &tp->bound);
    if (st != PD_OK) {
        free(tp);
        return fail(err, st, "\"listen\" is not a numeric address with a port");
    }
    st = pd_listener_open(tp->loop, &tp->bound, &opts, @NAME@_accept, tp, &tp->listener);
    if (st == PD_OK) {
        st = pd_listener_addr(tp->loop, tp->listener, &tp->bound);
        if (st != PD_OK)
            pd_listener_close(tp->loop, tp->listener);
    }
    if (st != PD_OK) {
        free(tp);
        return fail(err, st, st == PD_EBUSY ? "the address is in use" : "cannot listen");
    }
    *out = tp;
    return PD_OK;
}

/* Peers, windows and memory are gone; connections that others made are not. */
static void destroy(struct pd_transport *tp, void (*on_closed)(void *arg), void *arg)
{
    tp->is_closing = true;
    tp->on_closed = on_closed;
    tp->closed_arg = arg;
    pd_listener_close(tp->loop, tp->listener);
    @NAME@_end_conns(tp);
    @NAME@_wake(tp);
}

static void info(struct pd_transport *tp, struct pd_transport_info *out)
{
    *out = (struct pd_transport_info){ .size = sizeof *out, .flags = PD_TRANSPORT_WRITE, .max_segments = SEGMENTS,
                                       .failure_ms = (uint32_t)(tp->timeout * 5 / 4 / PD_MS) + 1,
                                       .max_bytes = (uint64_t)1 << 36 };
}

/* The control link knows this host's address, so the port is enough. */
static pd_status address(struct pd_transport *tp, void *buf, size_t cap, size_t *len)
{
    const uint32_t text[2] = { MAGIC, tp->bound.port };

    *len = sizeof text;
    if (cap < sizeof text)
        return PD_ELIMIT;
    memcpy(buf, text, sizeof text);
    return PD_OK;
}

static pd_status memory_add(struct pd_transport *tp, const struct pd_memory_desc *desc,
                            struct pd_transport_memory **out, struct pd_err *err)
{
    struct pd_transport_memory *m;

    if (desc->base == NULL || desc->bytes == 0 || desc->bytes > (uint64_t)1 << 47)
        return fail(err, PD_EINVAL, "memory without bytes, or with too many");
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return fail(err, PD_ENOMEM, "out of memory");
    m->tp = tp;
    m->base = desc->base;
    m->bytes = desc->bytes;
    *out = m;
    return PD_OK;
}

static pd_status memory_remove(struct pd_transport_memory *m)
{
    if (m->refs > 0)
        return PD_EBUSY;
    free(m);
    return PD_OK;
}

static const struct pd_transport_ops @NAME@_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = create, .destroy = destroy, .info = info, .address = address, .memory_add = memory_add,
    .memory_remove = memory_remove, .window_open = @NAME@_window_open, .window_export = @NAME@_window_export,
    .window_close = @NAME@_window_close, .connect = @NAME@_connect, .disconnect = @NAME@_disconnect,
    .target_open = @NAME@_target_open, .target_close = @NAME@_target_close, .post = @NAME@_post,
    .cancel = @NAME@_cancel,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Moves bytes between the memory of two nodes over one connection."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "A transport over one connection for each way.",
          .units = @NAME@_units)
