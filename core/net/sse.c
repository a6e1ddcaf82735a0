/* SPDX-License-Identifier: Apache-2.0 */
/* The splitter works line by line: LF, CRLF and CR end a line, an empty line
 * ends an event.
 *
 * Invariant: s->direct points into the bytes of the running feed only; before
 * feed returns it is copied into s->data or dropped. */
#include "net/sse.h"

#include "base/str.h"

#include <string.h>

void pd_sse_init(struct pd_sse *s, size_t limit)
{
    memset(s, 0, sizeof(*s));
    s->limit = limit;
    pd_buf_init(&s->line, limit);
    pd_buf_init(&s->data, limit);
    pd_buf_init(&s->event, limit < 256 ? limit : 256);
    pd_buf_init(&s->id, limit < 256 ? limit : 256);
}

void pd_sse_fini(struct pd_sse *s)
{
    pd_buf_fini(&s->line);
    pd_buf_fini(&s->data);
    pd_buf_fini(&s->event);
    pd_buf_fini(&s->id);
}

static void clear_event(struct pd_sse *s)
{
    pd_buf_clear(&s->data);
    pd_buf_clear(&s->event);
    pd_buf_clear(&s->id);
    s->direct = (struct pd_str){ NULL, 0 };
    s->has_data = false;
}

void pd_sse_reset(struct pd_sse *s)
{
    clear_event(s);
    pd_buf_clear(&s->line);
    s->skip_lf = s->is_started = false;
    s->events = s->comments = s->bytes = 0;
}

/* Moves a data line that was only pointed at into the buffer. */
static pd_status settle(struct pd_sse *s)
{
    struct pd_str direct = s->direct;

    s->direct = (struct pd_str){ NULL, 0 };
    return direct.p == NULL ? PD_OK : pd_buf_append_str(&s->data, direct);
}

static pd_status add_data(struct pd_sse *s, struct pd_str value, bool is_direct)
{
    pd_status status;

    if (!s->has_data && is_direct) {
        s->has_data = true;
        s->direct = value;
        return PD_OK;           /* no longer than its line */
    }
    status = settle(s);
    if (status == PD_OK && s->has_data)
        status = pd_buf_append_char(&s->data, '\n');
    s->has_data = true;
    return status != PD_OK ? status : pd_buf_append_str(&s->data, value);
}

static void dispatch(struct pd_sse *s, pd_sse_cb cb, void *arg)
{
    struct pd_sse_event ev;

    if (s->has_data) {
        ev.event = pd_buf_str(&s->event);
        ev.id = pd_buf_str(&s->id);
        ev.data = s->direct.p != NULL ? s->direct : pd_buf_str(&s->data);
        s->events++;
        cb(&ev, arg);
    }
    clear_event(s);
}

static pd_status replace(struct pd_buf *b, struct pd_str value)
{
    pd_buf_clear(b);
    return pd_buf_append_str(b, value);
}

/* One line without its end. */
static pd_status take_line(struct pd_sse *s, struct pd_str line, bool is_direct, pd_sse_cb cb,
                           void *arg)
{
    struct pd_str name = line, value = { line.p + line.n, 0 };
    size_t colon;

    if (!s->is_started) {
        s->is_started = true;
        if (pd_str_starts_with(line, PD_STR("\xef\xbb\xbf")))
            name = line = pd_str_sub(line, 3, line.n - 3);
    }
    if (line.n == 0) {
        dispatch(s, cb, arg);
        return PD_OK;
    }
    colon = pd_str_find_char(line, ':');
    if (colon == 0) {
        s->comments++;
        return PD_OK;
    }
    if (colon != PD_STR_NPOS) {
        size_t from = colon + 1 < line.n && line.p[colon + 1] == ' ' ? colon + 2 : colon + 1;
        name = pd_str_sub(line, 0, colon);
        value = pd_str_sub(line, from, line.n - from);
    }
    if (pd_str_is(name, "data"))
        return add_data(s, value, is_direct);
    if (pd_str_is(name, "event"))
        return replace(&s->event, value);
    if (pd_str_is(name, "id"))
        return replace(&s->id, value);
    return PD_OK;               /* retry and unknown fields mean nothing here */
}

static const char *find_line_end(const char *p, const char *end)
{
    const char *lf = memchr(p, '\n', (size_t)(end - p));
    const char *cr = memchr(p, '\r', (size_t)((lf != NULL ? lf : end) - p));
    return cr != NULL ? cr : lf;
}

pd_status pd_sse_feed(struct pd_sse *s, const char *p, size_t n, pd_sse_cb cb, void *arg)
{
    const char *end = p + n;
    pd_status status = PD_OK;

    s->bytes += n;
    while (p < end && status == PD_OK) {
        const char *stop;

        if (s->skip_lf && *p == '\n') {
            s->skip_lf = false;
            p++;
            continue;
        }
        s->skip_lf = false;
        stop = find_line_end(p, end);
        if (stop == NULL) {
            status = pd_buf_append(&s->line, p, (size_t)(end - p));
            break;
        }
        if (s->line.n > 0) {
            status = pd_buf_append(&s->line, p, (size_t)(stop - p));
            if (status == PD_OK)
                status = take_line(s, pd_buf_str(&s->line), false, cb, arg);
            pd_buf_clear(&s->line);
        } else if ((size_t)(stop - p) > s->limit) {
            /* As if it had come in pieces. */
            status = PD_ELIMIT;
        } else {
            status = take_line(s, pd_str_of(p, (size_t)(stop - p)), true, cb, arg);
        }
        s->skip_lf = *stop == '\r';
        p = stop + 1;
    }
    return status == PD_OK ? settle(s) : status;
}

bool pd_sse_is_inside(const struct pd_sse *s)
{
    return s->has_data || s->line.n > 0 || s->event.n > 0 || s->id.n > 0;
}

bool pd_sse_is_done(const struct pd_sse_event *event)
{
    return pd_str_is(event->data, "[DONE]");
}

static bool has_line_break(struct pd_str s)
{
    return s.n > 0 && (memchr(s.p, '\n', s.n) != NULL || memchr(s.p, '\r', s.n) != NULL);
}

pd_status pd_sse_frame(struct pd_str data, struct pd_iov iov[3])
{
    static const char head[] = "data: ", tail[] = "\n\n";

    if (has_line_break(data))
        return PD_EINVAL;
    iov[0] = (struct pd_iov){ (void *)(uintptr_t)head, sizeof(head) - 1 };
    iov[1] = (struct pd_iov){ (void *)(uintptr_t)data.p, data.n };
    iov[2] = (struct pd_iov){ (void *)(uintptr_t)tail, sizeof(tail) - 1 };
    return PD_OK;
}

pd_status pd_sse_append(struct pd_buf *b, struct pd_str event, struct pd_str data)
{
    struct pd_str rest = data, line;

    if (has_line_break(event))
        return PD_EINVAL;
    if (event.n > 0)
        (void)pd_buf_appendf(b, "event: %.*s\n", PD_STR_ARG(event));
    while (pd_str_split(&rest, '\n', &line)) {
        /* A lone CR would end the line at the reader. */
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n > 0 && memchr(line.p, '\r', line.n) != NULL)
            return PD_EINVAL;
        (void)pd_buf_append_cstr(b, "data: ");
        (void)pd_buf_append_str(b, line);
        (void)pd_buf_append_char(b, '\n');
    }
    (void)pd_buf_append_char(b, '\n');
    return b->status;
}
