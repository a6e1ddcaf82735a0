/* SPDX-License-Identifier: Apache-2.0 */
/* The one pass over a JSON document.  It walks with an explicit stack of open
 * containers, so depth costs no C stack, and keeps per container the set of
 * wanted paths that lead through it, as a bit mask: where the mask is empty,
 * keys are not even looked at.
 *
 * Invariant: everything left of p is valid JSON so far; nothing right of end is
 * ever read. */
#include "base/json.h"

#include "base/compiler.h"
#include "base/json_run.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/utf8.h"

#include <stdio.h>

#define SEGMENT_BYTES 128       /* longest key on a path */

struct segment {
    const char *p;
    uint8_t n;
    bool is_element;            /* "[]" */
    bool is_family;             /* "remote_*": p and n are what its keys begin with */
};

struct path {
    struct segment segments[PD_JSON_MAX_SEGMENTS];
    uint8_t n;
};

struct level {
    uint64_t live;              /* paths that lead through this container */
    uint64_t seen;              /* of these, whose key this object had already */
    uint64_t ends;              /* paths whose value is this container */
    const char *start;
    const char *member;         /* NULL in arrays */
    uint32_t keys;
    bool is_object;
};

#define KEY_KINDS 32u           /* longer keys share the last place; letters share by their low bits */

/* The paths whose segment at one place is a key, by what is quickly told of it. */
struct keys {
    uint64_t of_length[KEY_KINDS];
    uint64_t of_letter[KEY_KINDS];                  /* the first one; empty keys are in place 0 */
};

struct pd_json_paths {
    size_t n;
    uint64_t of_length[PD_JSON_MAX_SEGMENTS + 1];   /* paths by number of segments */
    struct keys keys[PD_JSON_MAX_SEGMENTS];
    uint64_t elements[PD_JSON_MAX_SEGMENTS];        /* paths whose segment there is an element */
    uint64_t families;                              /* paths that are a family of keys */
    uint32_t family_letters;                        /* bits of letter_of their keys */
    uint64_t many;                                  /* these, and those with an element on them */
    struct path paths[PD_JSON_MAX_PATHS];
};

struct scan {
    const char *start;
    const char *p;
    const char *end;
    uint32_t max_depth;
    uint32_t max_keys;
    uint32_t depth;
    uint64_t found;             /* paths that have their value */
    struct pd_json_value *values;
    struct pd_json_error *error;
    pd_status status;
    const struct pd_json_paths *paths;
    pd_json_each_cb each;       /* NULL: nobody wants further elements */
    void *each_arg;
    struct level levels[PD_JSON_MAX_DEPTH + 1];
};

/* Notes the error at `at`; returns NULL so that callers can return it. */
static const char *fail(struct scan *s, pd_status status, const char *at, const char *expected)
{
    struct pd_json_error *e = s->error;
    s->status = status;
    if (e == NULL)
        return NULL;
    e->status = status;
    e->offset = (size_t)(at - s->start);
    e->line = 1;
    const char *line = s->start;
    for (const char *q = line; q < at; q++) {
        if (*q == '\n') {
            e->line++;
            line = q + 1;
        }
    }
    e->column = (uint32_t)(at - line) + 1;
    if (status != PD_EPROTO)
        snprintf(e->text, sizeof e->text, "%s", expected);
    else if (at == s->end)
        snprintf(e->text, sizeof e->text, "expected %s, found the end of the document", expected);
    else if (*at > ' ' && *at < 0x7f)
        snprintf(e->text, sizeof e->text, "expected %s, found '%c'", expected, *at);
    else
        snprintf(e->text, sizeof e->text, "expected %s, found byte 0x%02x", expected,
                 (unsigned char)*at);
    return NULL;
}

static pd_status compile_path(struct path *path, const char *p)
{
    path->n = 0;
    while (*p != '\0') {
        const char *key = p;
        size_t elements = 0;
        while (*p != '\0' && *p != '.')
            p++;
        size_t n = (size_t)(p - key);
        while (n >= 2 && key[n - 1] == ']' && key[n - 2] == '[') {
            n -= 2;
            elements++;
        }
        bool has_key = n != 0 || elements == 0;
        if (path->n + elements + has_key > PD_JSON_MAX_SEGMENTS || n > SEGMENT_BYTES)
            return PD_EINVAL;
        bool is_family = n > 1 && key[n - 1] == '*';
        if (is_family && (path->n != 0 || elements != 0 || *p != '\0'))
            return PD_EINVAL;
        if (has_key)
            path->segments[path->n++] = (struct segment){ key, (uint8_t)(n - is_family), false, is_family };
        for (; elements != 0; elements--)
            path->segments[path->n++] = (struct segment){ NULL, 0, true, false };
        if (*p == '.')
            p++;
    }
    return PD_OK;
}

static uint32_t letter_of(const char *p, size_t n)
{
    return n == 0 ? 0 : (unsigned char)p[0] % KEY_KINDS;
}

static void index_segment(struct pd_json_paths *out, const struct segment *segment, uint32_t at,
                          uint64_t bit)
{
    if (segment->is_element) {
        out->elements[at] |= bit;
        out->many |= bit;
    } else if (!segment->is_family) {
        out->keys[at].of_length[PD_MIN(segment->n, KEY_KINDS - 1)] |= bit;
        out->keys[at].of_letter[letter_of(segment->p, segment->n)] |= bit;
    }
}

static pd_status compile_paths(struct pd_json_paths *out, const char *const *paths, size_t n)
{
    if (n > PD_JSON_MAX_PATHS)
        return PD_EINVAL;
    out->n = n;
    out->families = out->many = 0;
    out->family_letters = 0;
    memset(out->of_length, 0, sizeof out->of_length);
    memset(out->keys, 0, sizeof out->keys);
    memset(out->elements, 0, sizeof out->elements);
    for (size_t i = 0; i < n; i++) {
        struct path *path = &out->paths[i];
        uint64_t bit = (uint64_t)1 << i;
        if (compile_path(path, paths[i]) != PD_OK)
            return PD_EINVAL;
        out->of_length[path->n] |= bit;
        if (path->n > 0 && path->segments[0].is_family) {
            out->families |= bit;
            out->family_letters |= 1u << letter_of(path->segments[0].p, 1);
        }
        for (uint32_t k = 0; k < path->n; k++)
            index_segment(out, &path->segments[k], k, bit);
    }
    out->many |= out->families;
    return PD_OK;
}

pd_status pd_json_paths_create(const char *const *paths, size_t n, struct pd_json_paths **out)
{
    struct pd_json_paths *made = pd_alloc(sizeof *made);
    if (made == NULL)
        return PD_ENOMEM;
    pd_status status = compile_paths(made, paths, n);
    if (status != PD_OK) {
        pd_free(made);
        return status;
    }
    *out = made;
    return PD_OK;
}

void pd_json_paths_destroy(struct pd_json_paths *paths)
{
    pd_free(paths);
}

static inline const char *skip_space(const char *p, const char *end)
{
    /* Mostly there is none. */
    if (p < end && (unsigned char)*p > ' ')
        return p;
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* Four hex digits; -1 when they are not. */
static int32_t hex4(const char *p, const char *end)
{
    uint64_t v;
    if (end - p < 4 || pd_str_parse_hex(pd_str_of(p, 4), &v) != PD_OK)
        return -1;
    return (int32_t)v;
}

/* The escape at p (a backslash); returns what follows it. */
static const char *scan_escape(struct scan *s, const char *p)
{
    if (s->end - p < 2)
        return fail(s, PD_EPROTO, s->end, "the rest of an escape");
    if (p[1] != 'u') {
        if (p[1] == '\0' || strchr("\"\\/bfnrt", p[1]) == NULL)
            return fail(s, PD_EPROTO, p + 1, "one of \"\\/bfnrtu after a backslash");
        return p + 2;
    }
    int32_t unit = hex4(p + 2, s->end);
    if (unit < 0)
        return fail(s, PD_EPROTO, PD_MIN(p + 2, s->end), "four hex digits after \\u");
    if (unit < 0xd800 || unit > 0xdfff)
        return p + 6;
    if (unit > 0xdbff)
        return fail(s, PD_EPROTO, p, "a high surrogate before this low one");
    int32_t low = s->end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, s->end) : -1;
    if (low < 0xdc00 || low > 0xdfff)
        return fail(s, PD_EPROTO, p + 6, "a low surrogate escape after a high one");
    return p + 12;
}

/* The common characters of three bytes, as most of Chinese is made of. */
static bool is_usual_three(const char *p, const char *end)
{
    const unsigned char *u = (const unsigned char *)p;
    return end - p >= 3 && (u[0] & 0xf0) == 0xe0 && u[0] != 0xe0 && u[0] != 0xed &&
           (u[1] & 0xc0) == 0x80 && (u[2] & 0xc0) == 0x80;
}

/* The string at p (a quote); returns what follows its closing quote. */
static const char *scan_string(struct scan *s, const char *p, bool *has_escape)
{
    const char *end = s->end;
    p++;
    for (;;) {
        p = pd_json_plain_run(p, end);
        if (p == end)
            return fail(s, PD_EPROTO, p, "the closing quote of a string");
        if (*p == '"')
            return p + 1;
        if (*p == '\\') {
            *has_escape = true;
            p = scan_escape(s, p);
            if (p == NULL)
                return NULL;
        } else if ((unsigned char)*p < 0x20) {
            return fail(s, PD_EPROTO, p, "an escape instead of a control character");
        } else {
            /* A run of characters beyond ASCII, one by one. */
            do {
                uint32_t cp;
                size_t n = is_usual_three(p, end) ? 3 : pd_utf8_decode(p, (size_t)(end - p), &cp);
                if (n == 0)
                    return fail(s, PD_EPROTO, p, "valid UTF-8");
                p += n;
            } while (p < end && (unsigned char)*p >= 0x80);
        }
    }
}

/* The same; a short one without escapes, as most are, costs no call. */
static inline const char *scan_text(struct scan *s, const char *p, bool *has_escape)
{
    const char *after = pd_json_plain_short(p + 1, s->end);
    return after != NULL && *after == '"' ? after + 1 : scan_string(s, p, has_escape);
}

static const char *skip_digits(struct scan *s, const char *p, const char *what)
{
    const char *first = p;
    while (p < s->end && *p >= '0' && *p <= '9')
        p++;
    return p == first ? fail(s, PD_EPROTO, p, what) : p;
}

static const char *scan_number(struct scan *s, const char *p)
{
    if (*p == '-')
        p++;
    if (p < s->end && *p == '0') {
        p++;
        if (p < s->end && *p >= '0' && *p <= '9')
            return fail(s, PD_EPROTO, p, "no digit after a leading zero");
    } else if ((p = skip_digits(s, p, "a digit")) == NULL) {
        return NULL;
    }
    if (p < s->end && *p == '.' && (p = skip_digits(s, p + 1, "a digit after the point")) == NULL)
        return NULL;
    if (p < s->end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < s->end && (*p == '+' || *p == '-'))
            p++;
        p = skip_digits(s, p, "a digit of the exponent");
    }
    return p;
}

static const char *scan_word(struct scan *s, const char *p, struct pd_str word)
{
    if (!pd_str_starts_with(pd_str_of(p, (size_t)(s->end - p)), word))
        return fail(s, PD_EPROTO, p, "a value");
    return p + word.n;
}

/* Gives the paths in `mask` their value, unless they have one; tells the owner
 * of those in arrays about each. */
static void record(struct scan *s, uint64_t mask, const char *start, const char *end,
                   const char *member, bool is_plain)
{
    struct pd_json_value other, *v = &other;
    uint64_t left = mask & ~s->found;
    if (left != 0)
        v = &s->values[__builtin_ctzll(left)];
    v->text = pd_str_of(start, (size_t)(end - start));
    v->type = pd_json_type_of(v->text);
    v->is_plain = is_plain;
    v->member = member == NULL ? pd_str_of(start, 0) : pd_str_of(member, (size_t)(end - member));
    /* Mostly it is the value of one path. */
    for (left &= left - 1; left != 0; left &= left - 1)
        s->values[__builtin_ctzll(left)] = *v;
    s->found |= mask;
    if (s->each == NULL)
        return;
    for (left = mask & s->paths->many; left != 0; left &= left - 1)
        s->each(s->each_arg, (size_t)__builtin_ctzll(left), v);
}

/* memcmp(a, b, n) == 0 for n above 0, without a call where n is small; the words at
 * both ends of longer ones overlap. */
static inline bool same_bytes(const char *a, const char *b, size_t n)
{
    uint64_t a0, a1, b0, b1;
    uint32_t c0, c1, d0, d1;
    if (n > 16)
        return memcmp(a, b, n) == 0;
    if (n >= 8) {
        memcpy(&a0, a, 8);
        memcpy(&b0, b, 8);
        memcpy(&a1, a + n - 8, 8);
        memcpy(&b1, b + n - 8, 8);
        return ((a0 ^ b0) | (a1 ^ b1)) == 0;
    }
    if (n >= 4) {
        memcpy(&c0, a, 4);
        memcpy(&d0, b, 4);
        memcpy(&c1, a + n - 4, 4);
        memcpy(&d1, b + n - 4, 4);
        return ((c0 ^ d0) | (c1 ^ d1)) == 0;
    }
    return a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1];
}

/* Of the paths in `live`, those whose next segment (number `at`) is this key. */
static uint64_t match_key(const struct scan *s, uint64_t live, uint32_t at, struct pd_str key)
{
    uint64_t matched = 0;
    uint32_t letter = letter_of(key.p, key.n);
    if (at == 0 && (s->paths->family_letters >> letter & 1) != 0) {
        for (uint64_t left = live & s->paths->families; left != 0; left &= left - 1) {
            int i = __builtin_ctzll(left);
            const struct segment *segment = &s->paths->paths[i].segments[0];
            if (key.n >= segment->n && segment->p[0] == key.p[0] &&
                memcmp(segment->p, key.p, segment->n) == 0)
                matched |= (uint64_t)1 << i;
        }
    }
    live &= s->paths->keys[at].of_length[PD_MIN(key.n, KEY_KINDS - 1)] &
            s->paths->keys[at].of_letter[letter];
    for (uint64_t left = live; left != 0; left &= left - 1) {
        int i = __builtin_ctzll(left);
        const struct segment *segment = &s->paths->paths[i].segments[at];
        if (segment->n == key.n && (key.n == 0 || same_bytes(segment->p, key.p, key.n)))
            matched |= (uint64_t)1 << i;
    }
    return matched;
}

static uint64_t match_element(const struct scan *s, uint64_t live, uint32_t at)
{
    return live & s->paths->elements[at];
}

/* Of the paths in `mask`, those with exactly n segments. */
static uint64_t paths_of_length(const struct scan *s, uint64_t mask, uint32_t n)
{
    return n > PD_JSON_MAX_SEGMENTS ? 0 : mask & s->paths->of_length[n];
}

/* The key at p and its colon.  *matched gets the paths that go on with it. */
static const char *scan_key(struct scan *s, const char *p, uint64_t *matched)
{
    struct level *level = &s->levels[s->depth];
    bool has_escape = false;
    *matched = 0;
    if (p == s->end || *p != '"')
        return fail(s, PD_EPROTO, p, level->keys == 0 ? "a key or '}'" : "a key");
    if (++level->keys > s->max_keys)
        return fail(s, PD_ELIMIT, p, "an object has too many members");
    const char *after = scan_text(s, p, &has_escape);
    if (after == NULL)
        return NULL;
    if (level->live != 0) {
        char decoded[SEGMENT_BYTES + 1];
        struct pd_str key = pd_str_of(p + 1, (size_t)(after - p) - 2);
        if (has_escape) {
            struct pd_json_value v = { .type = PD_JSON_STRING,
                                       .text = pd_str_of(p, (size_t)(after - p)) };
            /* A key that does not fit, or holds a zero byte, is on no path. */
            bool is_short = pd_json_get_cstr(&v, decoded, sizeof decoded) == PD_OK;
            key = is_short ? pd_str_from(decoded) : pd_str_of(NULL, 0);
        }
        if (key.p != NULL)
            *matched = match_key(s, level->live, s->depth - 1, key);
        if ((*matched & level->seen) != 0) {
            char text[SEGMENT_BYTES + 32];
            snprintf(text, sizeof text, "key \"%.*s\" appears twice", PD_STR_ARG(key));
            return fail(s, PD_EEXIST, p, text);
        }
        level->seen |= *matched & ~s->paths->families;
    }
    p = skip_space(after, s->end);
    if (p == s->end || *p != ':')
        return fail(s, PD_EPROTO, p, "':' after a key");
    return skip_space(p + 1, s->end);
}

/* Opens the container at p for paths `live`, some of which end here. */
static const char *open_container(struct scan *s, const char *p, uint64_t live, const char *member)
{
    if (s->depth == s->max_depth)
        return fail(s, PD_ELIMIT, p, "arrays and objects are nested too deep");
    uint64_t ends = paths_of_length(s, live, s->depth);
    struct level *level = &s->levels[++s->depth];
    level->ends = ends;
    level->live = live & ~ends;
    level->seen = 0;
    level->start = p;
    level->member = member;
    level->keys = 0;
    level->is_object = *p == '{';
    return skip_space(p + 1, s->end);
}

static const char *scan_scalar(struct scan *s, const char *p, bool *has_escape)
{
    switch (*p) {
    case '"':
        return scan_text(s, p, has_escape);
    case 't':
        return scan_word(s, p, PD_STR("true"));
    case 'f':
        return scan_word(s, p, PD_STR("false"));
    case 'n':
        return scan_word(s, p, PD_STR("null"));
    default:
        if (*p == '-' || (*p >= '0' && *p <= '9'))
            return scan_number(s, p);
        return fail(s, PD_EPROTO, p, "a value");
    }
}

/* Closes containers and steps over commas behind a value; returns the place of
 * the next key or element, or the end of the root value (depth is 0 then). */
static const char *next_place(struct scan *s, const char *p)
{
    while (s->depth != 0) {
        struct level *level = &s->levels[s->depth];
        p = skip_space(p, s->end);
        if (p < s->end && *p == ',')
            return skip_space(p + 1, s->end);
        if (p == s->end || *p != (level->is_object ? '}' : ']'))
            return fail(s, PD_EPROTO, p, level->is_object ? "',' or '}' after a member"
                                                          : "',' or ']' after an element");
        p++;
        if (level->ends != 0)
            record(s, level->ends, level->start, p, level->member, false);
        s->depth--;
    }
    return p;
}

/* One value with everything in it; p stands at its first byte. */
static const char *scan_value(struct scan *s, const char *p)
{
    size_t n_paths = s->paths->n;
    uint64_t live = n_paths == 64 ? UINT64_MAX : ((uint64_t)1 << n_paths) - 1;
    const char *member = NULL;
    for (;;) {
        if (p == s->end)
            return fail(s, PD_EPROTO, p, "a value");
        if (*p == '{' || *p == '[') {
            p = open_container(s, p, live, member);
            if (p == NULL)
                return NULL;
            /* An empty container closes at once. */
            if (p < s->end && *p == (s->levels[s->depth].is_object ? '}' : ']'))
                p = next_place(s, p);
        } else {
            const char *start = p;
            bool has_escape = false;
            p = scan_scalar(s, p, &has_escape);
            if (p == NULL)
                return NULL;
            uint64_t ends = live == 0 ? 0 : paths_of_length(s, live, s->depth);
            if (ends != 0)
                record(s, ends, start, p, member, !has_escape);
            p = next_place(s, p);
        }
        if (p == NULL || s->depth == 0)
            return p;
        struct level *level = &s->levels[s->depth];
        if (level->is_object) {
            member = p;
            p = scan_key(s, p, &live);
            if (p == NULL)
                return NULL;
        } else {
            member = NULL;
            live = level->live == 0 ? 0 : match_element(s, level->live, s->depth - 1);
        }
    }
}

/* Absent values have a type and nothing else. */
static void clear(struct pd_json_value *values, size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        values[i].type = values[i + 1].type = values[i + 2].type = values[i + 3].type = PD_JSON_NONE;
    for (; i < n; i++)
        values[i].type = PD_JSON_NONE;
}

pd_status pd_json_scan_paths(struct pd_str doc, const struct pd_json_limits *limits,
                             const struct pd_json_paths *paths, struct pd_json_value *values,
                             pd_json_each_cb each, void *arg, struct pd_json_error *error)
{
    struct scan s;
    s.start = doc.n == 0 ? "" : doc.p;
    s.end = s.start + doc.n;
    s.max_depth = limits == NULL || limits->depth == 0 ? 64 : limits->depth;
    s.max_depth = PD_MIN(s.max_depth, (uint32_t)PD_JSON_MAX_DEPTH);
    s.max_keys = limits == NULL || limits->keys == 0 ? 4096 : limits->keys;
    s.depth = 0;
    s.found = 0;
    s.paths = paths;
    s.values = values;
    s.each = each;
    s.each_arg = arg;
    s.error = error;
    s.status = PD_OK;
    clear(values, paths->n);
    const char *p = scan_value(&s, skip_space(s.start, s.end));
    if (p == NULL)
        return s.status;
    p = skip_space(p, s.end);
    if (p != s.end)
        fail(&s, PD_EPROTO, p, "nothing after the document");
    return s.status;
}

pd_status pd_json_scan(struct pd_str doc, const struct pd_json_limits *limits,
                       const char *const *paths, size_t n_paths, struct pd_json_value *values,
                       struct pd_json_error *error)
{
    struct pd_json_paths compiled;
    if (compile_paths(&compiled, paths, n_paths) != PD_OK) {
        if (error != NULL) {
            *error = (struct pd_json_error){ .status = PD_EINVAL, .line = 1, .column = 1 };
            snprintf(error->text, sizeof error->text, "the paths to look for are not legal");
        }
        return PD_EINVAL;
    }
    _Static_assert(PD_JSON_NONE == 0, "values begin as zeros");
    if (n_paths > 0)
        memset(values, 0, n_paths * sizeof values[0]);
    return pd_json_scan_paths(doc, limits, &compiled, values, NULL, NULL, error);
}
