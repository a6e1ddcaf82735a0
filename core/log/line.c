/* SPDX-License-Identifier: Apache-2.0 */
/* The two forms of a log line.  What comes from outside may stand in any part
 * of it, so every part is escaped: a line is always exactly one line, and no
 * byte of it controls a terminal. */
#include "log/line.h"

#include "base/json.h"
#include "base/str.h"
#include "base/utf8.h"

#include <stdio.h>
#include <time.h>

#define REQ_BYTES 128       /* of a request id */

/* "2026-01-01T00:00:00.000Z". */
static void format_time(uint64_t wall_ns, char out[40])
{
    struct tm tm;
    time_t seconds = (time_t)(wall_ns / PD_SEC);
    unsigned ms = (unsigned)(wall_ns % PD_SEC / PD_MS);
    if (gmtime_r(&seconds, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(out, 32, "-");
    size_t n = strlen(out);
    snprintf(out + n, 40 - n, ".%03uZ", ms);
}

/* Control characters, those of two bytes (U+0080 to U+009F) included, and bytes
 * that are not UTF-8 become escapes; everything else stays. */
static void put_safe(struct pd_buf *out, struct pd_str s)
{
    size_t plain = 0;
    size_t i = 0;
    while (i < s.n) {
        uint32_t cp = 0;
        size_t n = pd_utf8_decode(s.p + i, s.n - i, &cp);
        if (n != 0 && cp >= 0x20 && cp != 0x7f && !(cp >= 0x80 && cp < 0xa0)) {
            i += n;
            continue;
        }
        pd_buf_append(out, s.p + plain, i - plain);
        if (s.p[i] == '\n')
            pd_buf_append(out, "\\n", 2);
        else if (s.p[i] == '\r')
            pd_buf_append(out, "\\r", 2);
        else if (s.p[i] == '\t')
            pd_buf_append(out, "\\t", 2);
        else
            for (size_t k = 0; k < (n == 0 ? 1 : n); k++)
                pd_buf_appendf(out, "\\x%02x", (unsigned char)s.p[i + k]);
        i += n == 0 ? 1 : n;
        plain = i;
    }
    pd_buf_append(out, s.p + plain, i - plain);
}

void pd_log_line_text(const struct pd_log_line *line, struct pd_buf *out)
{
    if (line->has_time) {
        char text[40];
        format_time(line->wall_ns, text);
        pd_buf_appendf(out, "%s ", text);
    }
    pd_buf_append_cstr(out, line->level);
    if (line->pid != 0)
        pd_buf_appendf(out, " [%u.%u]", line->pid, line->thread);
    if (line->name[0] != '\0') {
        pd_buf_append_char(out, ' ');
        put_safe(out, pd_str_from(line->name));
    }
    pd_buf_append(out, ": ", 2);
    if (line->req.n != 0) {
        pd_buf_append_char(out, '(');
        put_safe(out, pd_str_sub(line->req, 0, REQ_BYTES));
        pd_buf_append(out, ") ", 2);
    }
    put_safe(out, line->message);
    pd_buf_append_char(out, '\n');
}

void pd_log_line_json(const struct pd_log_line *line, struct pd_buf *out)
{
    struct pd_json_writer w;
    pd_json_writer_init(&w, out);
    pd_json_begin_object(&w, NULL);
    if (line->has_time) {
        char text[40];
        format_time(line->wall_ns, text);
        pd_json_add_cstr(&w, "time", text);
    }
    pd_json_add_cstr(&w, "level", line->level);
    if (line->pid != 0) {
        pd_json_add_u64(&w, "pid", line->pid);
        pd_json_add_u64(&w, "thread", line->thread);
    }
    if (line->name[0] != '\0')
        pd_json_add_cstr(&w, "name", line->name);
    if (line->req.n != 0)
        pd_json_add_str(&w, "request", pd_str_sub(line->req, 0, REQ_BYTES));
    pd_json_add_str(&w, "message", line->message);
    pd_json_end(&w);
    pd_buf_append_char(out, '\n');
}
