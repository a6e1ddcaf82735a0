/* SPDX-License-Identifier: Apache-2.0 */
/* Reading values that a scan has found.  The text is known to be valid JSON;
 * still nothing here reads beyond it, whatever it holds. */
#include "base/json.h"

#include "base/compiler.h"
#include "base/str.h"
#include "base/utf8.h"

enum pd_json_type pd_json_type_of(struct pd_str text)
{
    if (text.n == 0)
        return PD_JSON_NONE;
    switch (text.p[0]) {
    case '{':
        return PD_JSON_OBJECT;
    case '[':
        return PD_JSON_ARRAY;
    case '"':
        return PD_JSON_STRING;
    case 't':
    case 'f':
        return PD_JSON_BOOL;
    case 'n':
        return PD_JSON_NULL;
    default:
        return PD_JSON_NUMBER;
    }
}

const char *pd_json_type_name(enum pd_json_type type)
{
    static const char *const names[] = { "nothing", "null",   "boolean", "number",
                                         "string",  "array", "object" };
    return (size_t)type < PD_ARRAY_LEN(names) ? names[type] : "nothing";
}

static pd_status want(const struct pd_json_value *v, enum pd_json_type type)
{
    if (v->type == type)
        return PD_OK;
    return v->type == PD_JSON_NONE ? PD_ENOENT : PD_EINVAL;
}

pd_status pd_json_get_bool(const struct pd_json_value *v, bool *out)
{
    pd_status status = want(v, PD_JSON_BOOL);
    if (status == PD_OK)
        *out = v->text.p[0] == 't';
    return status;
}

pd_status pd_json_get_i64(const struct pd_json_value *v, int64_t *out)
{
    pd_status status = want(v, PD_JSON_NUMBER);
    return status == PD_OK ? pd_str_parse_i64(v->text, out) : status;
}

pd_status pd_json_get_u64(const struct pd_json_value *v, uint64_t *out)
{
    pd_status status = want(v, PD_JSON_NUMBER);
    int64_t i;
    if (status != PD_OK)
        return status;
    if (v->text.p[0] != '-')
        return pd_str_parse_u64(v->text, out);
    status = pd_str_parse_i64(v->text, &i);
    if (status != PD_OK)
        return status;
    if (i != 0)
        return PD_ELIMIT;
    *out = 0;
    return PD_OK;
}

/* A number of less than 16 digits without an exponent: it is the quotient of two that
 * a double holds as they are, so the division rounds once, as strtod does. */
static bool short_decimal(struct pd_str s, double *out)
{
    static const double tens[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14 };
    bool is_negative = s.n > 0 && s.p[0] == '-';
    size_t decimals = 0;
    bool has_point = false;
    uint64_t sum = 0;
    if (s.n == 0 || s.n > PD_ARRAY_LEN(tens) || s.p[s.n - 1] < '0')
        return false;
    for (size_t i = is_negative ? 1 : 0; i < s.n; i++) {
        if (s.p[i] >= '0' && s.p[i] <= '9') {
            sum = sum * 10 + (uint64_t)(s.p[i] - '0');
            decimals += has_point;
        } else if (s.p[i] == '.' && !has_point) {
            has_point = true;
        } else {
            return false;
        }
    }
    *out = (is_negative ? -(double)sum : (double)sum) / tens[decimals];
    return true;
}

pd_status pd_json_get_double(const struct pd_json_value *v, double *out)
{
    pd_status status = want(v, PD_JSON_NUMBER);
    if (status != PD_OK || short_decimal(v->text, out))
        return status;
    return pd_str_parse_double(v->text, out);
}

/* The content between the quotes. */
static struct pd_str content(const struct pd_json_value *v)
{
    return pd_str_sub(v->text, 1, v->text.n < 2 ? 0 : v->text.n - 2);
}

/* Decodes the escape at the front of *s (a backslash) and steps over it;
 * returns the bytes written, 0 when it is not valid. */
static size_t decode_escape(struct pd_str *s, char out[4])
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    uint64_t unit;
    uint64_t low;
    if (s->n >= 2 && s->p[1] != 'u') {
        const char *at = s->p[1] == '\0' ? NULL : strchr(from, s->p[1]);
        if (at == NULL)
            return 0;
        out[0] = to[at - from];
        *s = pd_str_sub(*s, 2, SIZE_MAX);
        return 1;
    }
    if (s->n < 6 || pd_str_parse_hex(pd_str_sub(*s, 2, 4), &unit) != PD_OK)
        return 0;
    struct pd_str rest = pd_str_sub(*s, 6, SIZE_MAX);
    if (unit >= 0xd800 && unit <= 0xdbff) {
        if (rest.n < 6 || pd_str_parse_hex(pd_str_sub(rest, 2, 4), &low) != PD_OK || low < 0xdc00 ||
            low > 0xdfff)
            return 0;
        rest = pd_str_sub(rest, 6, SIZE_MAX);
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    }
    *s = rest;
    return pd_utf8_encode((uint32_t)unit, out);
}

/* Cuts the next piece off *s: a run without escapes, borrowed from the text, or
 * one escape, decoded into `spare`.  False at the end or when s is not valid. */
static bool next_piece(struct pd_str *s, char spare[4], struct pd_str *piece)
{
    if (s->n == 0)
        return false;
    size_t run = pd_str_find_char(*s, '\\');
    if (run != 0) {
        *piece = pd_str_sub(*s, 0, run);
        *s = pd_str_sub(*s, piece->n, SIZE_MAX);
        return true;
    }
    *piece = pd_str_of(spare, decode_escape(s, spare));
    return piece->n != 0;
}

pd_status pd_json_get_buf(const struct pd_json_value *v, struct pd_buf *out)
{
    pd_status status = want(v, PD_JSON_STRING);
    struct pd_str rest = content(v);
    struct pd_str piece;
    char spare[4];
    size_t before = out->n;
    while (status == PD_OK && next_piece(&rest, spare, &piece))
        status = pd_buf_append_str(out, piece);
    if (status == PD_OK && rest.n != 0)
        status = PD_EINVAL;
    if (status != PD_OK)
        pd_buf_truncate(out, before);
    return status;
}

/* Decodes into out, which has at least the size of the content: decoding never
 * makes a string longer. */
static pd_status decode_into(const struct pd_json_value *v, char *out, size_t *n)
{
    struct pd_str rest = content(v);
    struct pd_str piece;
    char spare[4];
    *n = 0;
    while (next_piece(&rest, spare, &piece)) {
        memcpy(out + *n, piece.p, piece.n);
        *n += piece.n;
    }
    return rest.n == 0 ? PD_OK : PD_EINVAL;
}

pd_status pd_json_get_str(const struct pd_json_value *v, struct pd_arena *a, struct pd_str *out)
{
    pd_status status = want(v, PD_JSON_STRING);
    struct pd_str raw = content(v);
    size_t n;
    if (status != PD_OK)
        return status;
    if (v->is_plain || pd_str_find_char(raw, '\\') == PD_STR_NPOS) {
        *out = raw;
        return PD_OK;
    }
    char *text = (char *)pd_arena_alloc(a, raw.n);
    if (text == NULL)
        return PD_ENOMEM;
    status = decode_into(v, text, &n);
    if (status == PD_OK)
        *out = pd_str_of(text, n);
    return status;
}

pd_status pd_json_get_cstr(const struct pd_json_value *v, char *out, size_t size)
{
    pd_status status = want(v, PD_JSON_STRING);
    struct pd_str rest = content(v);
    struct pd_str piece;
    char spare[4];
    size_t n = 0;
    if (status != PD_OK)
        return status;
    while (next_piece(&rest, spare, &piece)) {
        if (piece.n >= size - n)
            return PD_ELIMIT;
        if (memchr(piece.p, '\0', piece.n) != NULL)
            return PD_EINVAL;
        memcpy(out + n, piece.p, piece.n);
        n += piece.n;
    }
    if (rest.n != 0)
        return PD_EINVAL;
    if (size == 0)
        return PD_ELIMIT;
    out[n] = '\0';
    return PD_OK;
}

bool pd_json_is_str(const struct pd_json_value *v, const char *s)
{
    if (v->type != PD_JSON_STRING)
        return false;
    struct pd_str rest = content(v);
    struct pd_str left = pd_str_from(s);
    struct pd_str piece;
    char spare[4];
    while (next_piece(&rest, spare, &piece)) {
        if (!pd_str_starts_with(left, piece))
            return false;
        left = pd_str_sub(left, piece.n, SIZE_MAX);
    }
    return rest.n == 0 && left.n == 0;
}

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* What follows the string at p (a quote), or end.  A quote ends it unless an
 * odd number of backslashes stands before. */
static const char *skip_string(const char *p, const char *end)
{
    const char *first = p + 1;
    const char *q = first;
    while ((q = (const char *)memchr(q, '"', (size_t)(end - q))) != NULL) {
        const char *slash = q;
        while (slash > first && slash[-1] == '\\')
            slash--;
        q++;
        if ((q - 1 - slash) % 2 == 0)
            return q;
    }
    return end;
}

/* What follows the value at p, or end. */
static const char *skip_value(const char *p, const char *end)
{
    size_t depth = 0;
    while (p < end) {
        switch (*p) {
        case '"':
            p = skip_string(p, end);
            break;
        case '{':
        case '[':
            depth++;
            p++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return p;
            depth--;
            p++;
            break;
        case ',':
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            if (depth == 0)
                return p;
            p++;
            break;
        default:
            p++;
            continue;
        }
        if (depth == 0)
            return p;
    }
    return end;
}

pd_status pd_json_iter_init(struct pd_json_iter *it, const struct pd_json_value *v)
{
    it->p = it->end = NULL;
    it->is_object = v->type == PD_JSON_OBJECT;
    if (v->type == PD_JSON_NONE)
        return PD_ENOENT;
    if ((v->type != PD_JSON_OBJECT && v->type != PD_JSON_ARRAY) || v->text.n < 2)
        return PD_EINVAL;
    it->p = v->text.p + 1;
    it->end = v->text.p + (v->text.n - 1);
    return PD_OK;
}

bool pd_json_iter_next(struct pd_json_iter *it, struct pd_json_value *key,
                       struct pd_json_value *value)
{
    const char *p = skip_space(it->p, it->end);
    if (p < it->end && *p == ',')
        p = skip_space(p + 1, it->end);
    if (p == it->end)
        return false;
    struct pd_json_value k = { .type = PD_JSON_NONE };
    const char *member = p;
    if (it->is_object) {
        const char *after = *p == '"' ? skip_string(p, it->end) : it->end;
        k.type = PD_JSON_STRING;
        k.text = pd_str_of(p, (size_t)(after - p));
        p = skip_space(after, it->end);
        if (p == it->end || *p != ':') {
            it->p = it->end;
            return false;
        }
        p = skip_space(p + 1, it->end);
    }
    it->p = skip_value(p, it->end);
    value->text = pd_str_of(p, (size_t)(it->p - p));
    value->type = pd_json_type_of(value->text);
    value->is_plain = false;
    value->member = it->is_object ? pd_str_of(member, (size_t)(it->p - member)) : pd_str_of(p, 0);
    if (value->type == PD_JSON_NONE) {
        it->p = it->end;
        return false;
    }
    if (key != NULL)
        *key = k;
    return true;
}

size_t pd_json_count(const struct pd_json_value *v)
{
    struct pd_json_iter it;
    struct pd_json_value value;
    size_t n = 0;
    if (pd_json_iter_init(&it, v) != PD_OK)
        return 0;
    while (pd_json_iter_next(&it, NULL, &value))
        n++;
    return n;
}

pd_status pd_json_find(const struct pd_json_value *object, const char *key,
                       struct pd_json_value *out)
{
    struct pd_json_iter it;
    struct pd_json_value k;
    struct pd_json_value value;
    pd_status status = want(object, PD_JSON_OBJECT);
    if (status == PD_OK)
        status = pd_json_iter_init(&it, object);
    if (status != PD_OK)
        return status;
    while (pd_json_iter_next(&it, &k, &value)) {
        if (pd_json_is_str(&k, key)) {
            *out = value;
            return PD_OK;
        }
    }
    return PD_ENOENT;
}
