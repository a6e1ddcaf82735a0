/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: connections, lines, answers.  A connection does one
 * command at a time: while its answer waits to be taken, nothing more is read,
 * so what one client can make the node hold is one line and one answer. */
#include "ctl/ctl.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "ctl/priv.h"

#define CONNS_MAX 32u
#define IDLE_NS (60 * PD_SEC)

struct conn {
    struct pd_ctl *ctl;
    struct pd_stream *stream;
    struct pd_list link;
    struct pd_timer timer;
    struct pd_buf out;
    size_t n;                   /* bytes in line */
    bool at_end;                /* the client sends no more */
    char line[PD_CTL_LINE_MAX + 2];
};

static void finish_close(struct pd_ctl *ctl)
{
    void (*closed)(void *) = ctl->closed;
    void *arg = ctl->closed_arg;
    pd_free(ctl);
    closed(arg);
}

static void on_closed(struct pd_stream *s, void *arg)
{
    struct conn *c = arg;
    struct pd_ctl *ctl = c->ctl;
    (void)s;
    pd_list_remove(&c->link);
    ctl->stats.open--;
    pd_buf_fini(&c->out);
    pd_free(c);
    if (ctl->is_closing && pd_list_is_empty(&ctl->conns))
        finish_close(ctl);
}

static void conn_close(struct conn *c)
{
    pd_timer_stop(&c->timer);
    pd_stream_close(c->stream);
}

static void on_idle(struct pd_timer *timer, void *arg)
{
    struct conn *c = arg;
    (void)timer;
    c->ctl->stats.timeouts++;
    conn_close(c);
}

/* ---- answers ------------------------------------------------------------------------ */

/* Sends what waits; false when the connection is gone. */
static bool flush(struct conn *c)
{
    while (c->out.n > 0) {
        size_t sent = 0;
        pd_status status = pd_stream_write(c->stream, c->out.p, c->out.n, &sent);
        if (status == PD_EAGAIN)
            return true;
        if (status != PD_OK) {
            conn_close(c);
            return false;
        }
        pd_timer_start(&c->timer, IDLE_NS);
        pd_buf_consume(&c->out, sent);
    }
    return true;
}

static void answer(struct conn *c, struct pd_str line)
{
    struct pd_ctl *ctl = c->ctl;
    struct pd_err err = { 0 };
    struct pd_buf body;
    pd_buf_init(&body, PD_CTL_BODY_MAX);
    if (pd_ctl_run(ctl, line, &body, &err) == PD_OK) {
        ctl->stats.commands++;
        pd_buf_appendf(&c->out, "ok %zu\n", body.n);
        pd_buf_append_str(&c->out, pd_buf_str(&body));
    } else {
        ctl->stats.errors++;
        for (char *p = err.text; *p != '\0'; p++) {
            if ((unsigned char)*p < 0x20 || *p == 0x7f)
                *p = '?';
        }
        pd_buf_appendf(&c->out, "error %s\n", err.text);
    }
    pd_buf_fini(&body);
}

/* ---- lines ---------------------------------------------------------------------------- */

/* Does the first whole line that was read; false when there is none. */
static bool take_line(struct conn *c)
{
    char *end = memchr(c->line, '\n', c->n);
    if (end == NULL)
        return false;
    size_t used = (size_t)(end - c->line) + 1;
    struct pd_str line = { c->line, used - 1 };
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    answer(c, line);
    c->n -= used;
    memmove(c->line, c->line + used, c->n);
    return true;
}

static void too_long(struct conn *c)
{
    c->ctl->stats.too_long++;
    pd_buf_appendf(&c->out, "error a line has at most %u bytes\n", PD_CTL_LINE_MAX);
    c->at_end = true;
    c->n = 0;
}

/* Goes on until there is nothing to do without waiting. */
static void work(struct conn *c)
{
    for (;;) {
        if (!flush(c))
            return;
        if (c->out.status != PD_OK) { /* no memory for an answer: say nothing rather than half */
            conn_close(c);
            return;
        }
        if (c->out.n > 0) {
            pd_stream_pause_read(c->stream);
            return;
        }
        if (take_line(c))
            continue;
        if (c->n == sizeof c->line) {
            too_long(c);
            continue;
        }
        if (c->at_end) {
            conn_close(c);
            return;
        }
        pd_stream_resume_read(c->stream);
        return;
    }
}

static void on_readable(struct pd_stream *s, void *arg)
{
    struct conn *c = arg;
    size_t got = 0;
    pd_status status = pd_stream_read(s, c->line + c->n, sizeof c->line - c->n, &got);
    if (status == PD_EAGAIN)
        return;
    if (status == PD_OK) {
        c->n += got;
        pd_timer_start(&c->timer, IDLE_NS);
    } else if (status == PD_EEOF) {
        c->at_end = true;
    } else {
        conn_close(c);
        return;
    }
    work(c);
}

static void on_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    work(arg);
}

static void on_hangup(struct pd_stream *s, void *arg)
{
    /* Reading is paused because an answer waits; writing it tells whether
     * somebody still takes it, and the timer ends it otherwise. */
    (void)s;
    (void)arg;
}

static void on_accept(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    static const struct pd_stream_events events = {
        .name = "control", .on_readable = on_readable, .on_writable = on_writable,
        .on_hangup = on_hangup, .on_closed = on_closed,
    };
    struct pd_ctl *ctl = arg;
    (void)l;
    struct conn *c = ctl->stats.open < CONNS_MAX ? pd_calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        ctl->stats.refused++;
        return;
    }
    c->ctl = ctl;
    c->stream = s;
    pd_buf_init(&c->out, PD_CTL_BODY_MAX + 64);
    pd_list_init(&c->link);
    pd_list_append(&ctl->conns, &c->link);
    ctl->stats.accepted++;
    ctl->stats.open++;
    pd_stream_set_events(s, &events, c);
    pd_timer_init(&c->timer, ctl->params.loop, "control", on_idle, c);
    pd_timer_start(&c->timer, IDLE_NS);
}

/* ---- life -------------------------------------------------------------------------------- */

static void act(struct pd_task *task, void *arg)
{
    struct pd_ctl *ctl = arg;
    (void)task;
    bool want_stop = ctl->want_stop, want_drain = ctl->want_drain;
    ctl->want_stop = ctl->want_drain = false;
    if (ctl->is_closing)
        return;
    if (want_stop)
        ctl->params.on_stop(ctl->params.arg); /* ctl may be closing now */
    else if (want_drain)
        ctl->params.on_drain(ctl->params.arg);
}

static void close_empty(struct pd_task *task, void *arg)
{
    (void)task;
    finish_close(arg);
}

static pd_status open_error(struct pd_err *err, const char *path, pd_status status)
{
    pd_err_set(err, status, "cannot open the control socket %s: %s", path,
               status == PD_EBUSY ? "another process listens there" : pd_status_text(status));
    if (status == PD_EBUSY)
        pd_err_hint(err, "a node with this configuration runs already, or two share one `control`");
    else
        pd_err_hint(err, "the folder must exist and be writable for this user");
    return status;
}

pd_status pd_ctl_create(const struct pd_ctl_params *params, struct pd_ctl **out, struct pd_err *err)
{
    struct pd_listener_opts opts = { .size = sizeof opts, .name = "control", .unix_mode = 0660 };
    struct pd_addr addr = { .family = PD_AF_UNIX };
    if (pd_str_copy(pd_str_from(params->path), addr.path, sizeof addr.path) != PD_OK) {
        pd_err_set(err, PD_EINVAL, "the path of the control socket has %zu bytes, at most %zu are possible",
                   strlen(params->path), sizeof addr.path - 1);
        return PD_EINVAL;
    }
    struct pd_ctl *ctl = pd_calloc(1, sizeof *ctl);
    if (ctl == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    ctl->params = *params;
    ctl->params.path = NULL;
    pd_list_init(&ctl->conns);
    pd_task_init(&ctl->act_task, "control act", act, ctl);
    pd_task_init(&ctl->close_task, "control close", close_empty, ctl);
    pd_status status = pd_listener_open(params->loop, &addr, &opts, on_accept, ctl, &ctl->listener);
    if (status != PD_OK) {
        pd_free(ctl);
        return open_error(err, params->path, status);
    }
    *out = ctl;
    return PD_OK;
}

void pd_ctl_destroy(struct pd_ctl *ctl, void (*closed)(void *arg), void *arg)
{
    ctl->is_closing = true;
    ctl->closed = closed;
    ctl->closed_arg = arg;
    pd_task_cancel(ctl->params.loop, &ctl->act_task);
    pd_listener_close(ctl->params.loop, ctl->listener);
    PD_LIST_EACH_SAFE(&ctl->conns, link)
        conn_close(PD_LIST_ENTRY(link, struct conn, link));
    if (pd_list_is_empty(&ctl->conns))
        pd_loop_defer(ctl->params.loop, &ctl->close_task);
}

const struct pd_ctl_stats *pd_ctl_stats(const struct pd_ctl *ctl)
{
    return &ctl->stats;
}
