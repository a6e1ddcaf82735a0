/* SPDX-License-Identifier: Apache-2.0 */
/* The owner of the memory that bytes land in: opens windows as it is told, and
 * reads a plain stream for comparison. */
#include "main/pdbench_side.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/proc.h"

struct owner {
    struct pdbench_side *s;
    struct pd_transport_window *window;
    uint64_t landed;
    struct pd_listener *listener;
    struct pd_stream *stream;
    uint64_t streamed;              /* of the present round */
    bool has_failed;
};

static void stop(struct owner *o, const char *what)
{
    if (what != NULL) {
        fprintf(stderr, "pdbench transport: the owner %s\n", what);
        o->has_failed = true;
    }
    pd_loop_stop(o->s->loop);
}

static void stop_unless(struct owner *o, bool is_sent)
{
    if (!is_sent)
        stop(o, "lost the source");
}

/* ---- the plain stream */

static void on_readable(struct pd_stream *stream, void *arg)
{
    struct owner *o = arg;
    uint8_t *base = o->s->memory.base;
    size_t got;
    pd_status st = pd_stream_read(stream, base + o->streamed, o->s->bytes - o->streamed, &got);
    if (st == PD_EAGAIN)
        return;
    if (st != PD_OK) {
        pd_stream_close(stream);
        return;
    }
    o->streamed += got;
    if (o->streamed == o->s->bytes) {
        struct pdbench_msg m = { .type = PDBENCH_MSG_STREAMED, .bytes = o->streamed };
        o->streamed = 0;
        stop_unless(o, pdbench_side_send(o->s, &m));
    }
}

static void on_stream_closed(struct pd_stream *stream, void *arg)
{
    (void)stream;
    ((struct owner *)arg)->stream = NULL;
}

static const struct pd_stream_events stream_events = {
    .name = "plain stream", .on_readable = on_readable, .on_closed = on_stream_closed,
};

static void on_accept(struct pd_listener *l, struct pd_stream *stream, void *arg)
{
    struct owner *o = arg;
    (void)l;
    pd_stream_set_events(stream, &stream_events, o);
    o->stream = stream;
}

/* ---- windows */

static void on_bytes(struct pd_transport_window *window, uint64_t total, void *arg)
{
    (void)window;
    ((struct owner *)arg)->landed = total;
}

static void on_closed(struct pd_transport_window *window, void *arg)
{
    struct owner *o = arg;
    struct pdbench_msg m = { .type = PDBENCH_MSG_CLOSED, .bytes = o->landed };
    (void)window;
    o->window = NULL;
    stop_unless(o, pdbench_side_send(o->s, &m));
}

static void window_open(struct owner *o, const struct pdbench_msg *msg)
{
    static const struct pd_window_events events = { .size = sizeof events, .on_bytes = on_bytes,
                                                    .on_closed = on_closed };
    static uint64_t xid;
    struct pdbench_side *s = o->s;
    struct pdbench_msg m = { .type = PDBENCH_MSG_WINDOW };
    uint32_t n;
    struct pd_segment *list = pdbench_segments(s->bytes, msg->segment, msg->seed, &n);
    xid++;
    struct pd_window_desc desc = { .size = sizeof desc, .access = msg->access, .peer = msg->node, .xid = xid,
                                   .generation = xid, .memory = s->registered, .segments = list, .n_segments = n };
    size_t len = 0;
    o->landed = 0;
    pd_status st = list == NULL ? PD_ENOMEM : s->ops->window_open(s->tp, &desc, &events, o, &o->window);
    pd_free(list);
    if (st == PD_OK)
        st = s->ops->window_export(o->window, m.blob, sizeof m.blob, &len);
    m.blob_len = (uint32_t)len;
    if (st != PD_OK || !pdbench_side_send(s, &m))
        stop(o, "cannot open a window");
}

static void on_msg(const struct pdbench_msg *msg, void *arg)
{
    struct owner *o = arg;
    struct pdbench_msg cpu = { .type = PDBENCH_MSG_CPU, .cpu = pd_proc_cpu_time() };
    if (msg == NULL)
        stop(o, NULL);
    else if (msg->type == PDBENCH_MSG_CPU)
        stop_unless(o, pdbench_side_send(o->s, &cpu));
    else if (msg->type == PDBENCH_MSG_CASE && o->window == NULL)
        window_open(o, msg);
    else if (msg->type == PDBENCH_MSG_CLOSE && o->window != NULL)
        o->s->ops->window_close(o->window);
    else
        stop(o, "was told something wrong");
}

static void on_listener_gone(struct owner *o)
{
    if (o->stream != NULL)
        pd_stream_close(o->stream);
    pd_listener_close(o->s->loop, o->listener);
}

int pdbench_owner(struct pdbench_side *s)
{
    struct owner o = { .s = s };
    struct pdbench_msg m = { .type = PDBENCH_MSG_READY, .pid = getpid() };
    struct pd_addr addr;
    size_t len = 0;
    s->on_msg = on_msg;
    s->arg = &o;
    bool is_good = pdbench_side_open(s, "owner");
    if (is_good && (s->ops->address(s->tp, m.address, sizeof m.address, &len) != PD_OK ||
                    pd_addr_parse(s->loop, PD_STR("127.0.0.1:0"), &addr) != PD_OK ||
                    pd_listener_open(s->loop, &addr, NULL, on_accept, &o, &o.listener) != PD_OK ||
                    pd_listener_addr(s->loop, o.listener, &addr) != PD_OK)) {
        fputs("pdbench transport: the owner cannot be reached\n", stderr);
        is_good = false;
    }
    if (is_good) {
        m.address_len = (uint32_t)len;
        m.node = s->node;
        m.port = addr.port;
        m.base = (uint64_t)(uintptr_t)s->memory.base;
        if (pdbench_side_send(s, &m))
            (void)pd_loop_run(s->loop);
    }
    if (o.listener != NULL)
        on_listener_gone(&o);
    if (o.window != NULL)
        s->ops->window_close(o.window);
    pdbench_side_close(s);
    return is_good && !o.has_failed ? 0 : 1;
}
