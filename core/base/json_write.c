/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON into a buffer.  Whatever goes in, what comes out is valid: bytes
 * that are not UTF-8 are replaced, numbers that JSON cannot say become null. */
#include "base/json.h"

#include "base/compiler.h"
#include "base/json_run.h"
#include "base/str.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The escape of one byte that may not stand as it is. */
static pd_status put_escape(struct pd_buf *b, unsigned char c)
{
    static const char from[] = "\"\\\b\f\n\r\t";
    static const char to[] = "\"\\bfnrt";
    const char *at = c == '\0' ? NULL : strchr(from, c);
    char text[8];
    if (at == NULL)
        return pd_buf_append(b, text, (size_t)snprintf(text, sizeof text, "\\u%04x", c));
    text[0] = '\\';
    text[1] = to[at - from];
    return pd_buf_append(b, text, 2);
}

pd_status pd_json_put_escaped(struct pd_buf *b, struct pd_str s)
{
    const char *p = s.p;
    const char *end = s.n == 0 ? p : p + s.n;
    pd_status status = PD_OK;
    while (p < end && status == PD_OK) {
        const char *q = pd_json_plain_run(p, end);
        while (q < end && (unsigned char)*q >= 0x80) {
            uint32_t cp;
            size_t n = pd_utf8_decode(q, (size_t)(end - q), &cp);
            if (n == 0)
                break;
            q += n;
        }
        if (q != p) {
            status = pd_buf_append(b, p, (size_t)(q - p));
        } else {
            unsigned char c = (unsigned char)*q++;
            status = c >= 0x80 ? pd_buf_append(b, "\xef\xbf\xbd", 3) : put_escape(b, c);
        }
        p = q;
    }
    return status;
}

pd_status pd_json_put_str(struct pd_buf *b, struct pd_str s)
{
    pd_status status = pd_buf_append_char(b, '"');
    if (status == PD_OK)
        status = pd_json_put_escaped(b, s);
    return status == PD_OK ? pd_buf_append_char(b, '"') : status;
}

pd_status pd_json_put_cstr(struct pd_buf *b, const char *s)
{
    return pd_json_put_str(b, pd_str_from(s));
}

pd_status pd_json_put_i64(struct pd_buf *b, int64_t v)
{
    return pd_buf_appendf(b, "%" PRId64, v);
}

pd_status pd_json_put_u64(struct pd_buf *b, uint64_t v)
{
    return pd_buf_appendf(b, "%" PRIu64, v);
}

/* The shortest of 15 to 17 digits that reads back to the same value. */
pd_status pd_json_put_double(struct pd_buf *b, double v)
{
    char text[40];
    if (!isfinite(v))
        return pd_buf_append(b, "null", 4);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return pd_buf_append_cstr(b, text);
}

pd_status pd_json_put_bool(struct pd_buf *b, bool v)
{
    return pd_buf_append_cstr(b, v ? "true" : "false");
}

void pd_json_writer_init(struct pd_json_writer *w, struct pd_buf *buf)
{
    w->buf = buf;
    w->depth = 0;
    w->need_comma = false;
}

/* Comma and key in front of a value. */
static void lead(struct pd_json_writer *w, const char *key)
{
    if (w->need_comma)
        pd_buf_append_char(w->buf, ',');
    if (key != NULL) {
        pd_json_put_cstr(w->buf, key);
        pd_buf_append_char(w->buf, ':');
    }
    w->need_comma = true;
}

static void begin(struct pd_json_writer *w, const char *key, bool is_array)
{
    pd_assert(w->depth < PD_ARRAY_LEN(w->is_array));
    lead(w, key);
    pd_buf_append_char(w->buf, is_array ? '[' : '{');
    w->is_array[w->depth++] = is_array;
    w->need_comma = false;
}

void pd_json_begin_object(struct pd_json_writer *w, const char *key)
{
    begin(w, key, false);
}

void pd_json_begin_array(struct pd_json_writer *w, const char *key)
{
    begin(w, key, true);
}

void pd_json_end(struct pd_json_writer *w)
{
    pd_assert(w->depth > 0);
    pd_buf_append_char(w->buf, w->is_array[--w->depth] ? ']' : '}');
    w->need_comma = true;
}

void pd_json_add_str(struct pd_json_writer *w, const char *key, struct pd_str v)
{
    lead(w, key);
    pd_json_put_str(w->buf, v);
}

void pd_json_add_cstr(struct pd_json_writer *w, const char *key, const char *v)
{
    pd_json_add_str(w, key, pd_str_from(v));
}

/* Texts above 1 KiB are cut; a cut character becomes U+FFFD. */
void pd_json_addf(struct pd_json_writer *w, const char *key, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pd_json_add_cstr(w, key, text);
}

void pd_json_add_u64(struct pd_json_writer *w, const char *key, uint64_t v)
{
    lead(w, key);
    pd_json_put_u64(w->buf, v);
}

void pd_json_add_i64(struct pd_json_writer *w, const char *key, int64_t v)
{
    lead(w, key);
    pd_json_put_i64(w->buf, v);
}

void pd_json_add_double(struct pd_json_writer *w, const char *key, double v)
{
    lead(w, key);
    pd_json_put_double(w->buf, v);
}

void pd_json_add_bool(struct pd_json_writer *w, const char *key, bool v)
{
    lead(w, key);
    pd_json_put_bool(w->buf, v);
}

void pd_json_add_null(struct pd_json_writer *w, const char *key)
{
    lead(w, key);
    pd_buf_append(w->buf, "null", 4);
}

void pd_json_add_raw(struct pd_json_writer *w, const char *key, struct pd_str text)
{
    lead(w, key);
    pd_buf_append_str(w->buf, text);
}
