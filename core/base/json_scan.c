/* SPDX-License-Identifier: Apache-2.0 */
/* The one pass over a JSON document.  It walks with an explicit stack of open
 * containers, so depth costs no C stack, and along with it in the tree of the
 * wanted paths: where no path leads on, keys are not even looked at.
 *
 * Invariant: everything left of p is valid JSON so far; nothing right of end is
 * ever read. */
#include "base/json.h"

#include "base/compiler.h"
#include "base/json_path.h"
#include "base/json_run.h"
#include "base/str.h"
#include "base/utf8.h"

#include <stdio.h>

struct level {
    const struct pd_json_node *node;    /* NULL: no path leads into this container */
    uint64_t seen;              /* keys below the node that this object had already */
    uint64_t ends;              /* paths whose value is this container */
    const char *start;
    const char *member;         /* NULL in arrays */
    uint32_t keys;
    bool is_object;
};

/* What of a value that comes next is wanted. */
struct want {
    const struct pd_json_node *node;    /* that leads on into it, or NULL */
    uint64_t ends;                      /* paths whose value it is */
    const char *member;                 /* where its key begins; NULL: it has none */
};

struct scan {
    const char *start;
    const char *p;
    const char *end;
    uint32_t max_depth;
    uint32_t max_keys;
    uint64_t found;             /* paths that have their value */
    struct pd_json_value *values;
    struct pd_json_error *error;
    pd_status status;
    const struct pd_json_paths *paths;
    pd_json_each_cb each;       /* NULL: nobody wants further elements */
    void *each_arg;
    struct level levels[PD_JSON_MAX_DEPTH + 1]; /* the first one stands for the document */
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
    const char *after = pd_json_plain_short(p + 1, s->end, s->start);
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

/* The value of more than one path, or of one that has more values: their owner is
 * told of each. */
static void record_more(struct scan *s, const struct pd_json_value *v, uint64_t fresh, uint64_t ends)
{
    for (; fresh != 0; fresh &= fresh - 1)
        s->values[__builtin_ctzll(fresh)] = *v;
    if (s->each == NULL)
        return;
    for (uint64_t left = ends & s->paths->many; left != 0; left &= left - 1)
        s->each(s->each_arg, (size_t)__builtin_ctzll(left), v);
}

/* Gives the paths in `ends`, of which there is one, their value, unless they have one. */
static inline void record(struct scan *s, uint64_t ends, enum pd_json_type type, bool is_plain,
                          const char *start, const char *end, const char *member)
{
    uint64_t fresh = ends & ~s->found;
    struct pd_json_value other, *v = fresh != 0 ? &s->values[__builtin_ctzll(fresh)] : &other;

    s->found |= ends;
    v->type = type;
    v->is_plain = is_plain;
    v->text = (struct pd_str){ start, (size_t)(end - start) };
    v->member = member != NULL ? (struct pd_str){ member, (size_t)(end - member) }
                               : (struct pd_str){ start, 0 };
    fresh &= fresh - 1;
    if ((fresh | (ends & s->paths->many)) != 0)
        record_more(s, v, fresh, ends);
}

/* The paths of families that a key of the root belongs to. */
static uint64_t match_families(const struct pd_json_paths *paths, struct pd_str key)
{
    uint64_t matched = 0;

    for (uint32_t i = 0; i < paths->n_families; i++) {
        const struct pd_json_family *f = &paths->families[i];
        if (key.n >= f->n && memcmp(f->p, key.p, f->n) == 0)
            matched |= f->path;
    }
    return matched;
}

static const char *fail_twice(struct scan *s, const char *p, struct pd_str key)
{
    char text[PD_JSON_SEGMENT + 32];

    snprintf(text, sizeof text, "key \"%.*s\" appears twice", PD_STR_ARG(key));
    return fail(s, PD_EEXIST, p, text);
}

/* Looks up a key of an object that paths lead into.  NULL: it had the key already. */
static inline const char *match_key(struct scan *s, struct level *level, const char *p, struct pd_str key,
                             struct want *want)
{
    const struct pd_json_paths *paths = s->paths;
    const struct pd_json_node *node = pd_json_below(paths, level->node, key);

    if (node != NULL) {
        uint64_t bit = (uint64_t)1 << node->rank;
        if ((level->seen & bit) != 0)
            return fail_twice(s, p, key);
        level->seen |= bit;
        want->node = node;
        want->ends = node->ends;
    }
    if (level == &s->levels[1] && key.n > 0 &&
        (paths->family_letters >> pd_json_letter(key.p) & 1) != 0)
        want->ends |= match_families(paths, key);
    return p;
}

/* A key with escapes; { NULL, 0 }: it does not fit, or holds a zero byte, and is on no path. */
static struct pd_str decode_key(const char *p, const char *after, char out[PD_JSON_SEGMENT + 1])
{
    struct pd_json_value v = { .type = PD_JSON_STRING, .text = pd_str_of(p, (size_t)(after - p)) };

    return pd_json_get_cstr(&v, out, PD_JSON_SEGMENT + 1) == PD_OK ? pd_str_from(out)
                                                                   : pd_str_of(NULL, 0);
}

/* The key at p and its colon; returns where its value begins. */
static inline const char *scan_key(struct scan *s, struct level *level, const char *p,
                                   struct want *want)
{
    char decoded[PD_JSON_SEGMENT + 1];
    bool has_escape = false;

    *want = (struct want){ NULL, 0, p };
    if (p == s->end || *p != '"')
        return fail(s, PD_EPROTO, p, level->keys == 0 ? "a key or '}'" : "a key");
    if (++level->keys > s->max_keys)
        return fail(s, PD_ELIMIT, p, "an object has too many members");
    const char *after = scan_text(s, p, &has_escape);
    if (after == NULL)
        return NULL;
    if (level->node != NULL) {
        struct pd_str key = pd_str_of(p + 1, (size_t)(after - p) - 2);
        if (has_escape)
            key = decode_key(p, after, decoded);
        if (key.p != NULL && match_key(s, level, p, key, want) == NULL)
            return NULL;
    }
    p = skip_space(after, s->end);
    if (p == s->end || *p != ':')
        return fail(s, PD_EPROTO, p, "':' after a key");
    return skip_space(p + 1, s->end);
}

/* A value that is no container. */
static inline const char *scan_scalar(struct scan *s, const char *p, const struct want *want)
{
    const char *start = p;
    enum pd_json_type type = PD_JSON_NUMBER;
    bool has_escape = false;

    switch (*p) {
    case '"':
        p = scan_text(s, p, &has_escape);
        type = PD_JSON_STRING;
        break;
    case 't':
        p = scan_word(s, p, PD_STR("true"));
        type = PD_JSON_BOOL;
        break;
    case 'f':
        p = scan_word(s, p, PD_STR("false"));
        type = PD_JSON_BOOL;
        break;
    case 'n':
        p = scan_word(s, p, PD_STR("null"));
        type = PD_JSON_NULL;
        break;
    default:
        if (*p != '-' && (*p < '0' || *p > '9'))
            return fail(s, PD_EPROTO, p, "a value");
        p = scan_number(s, p);
    }
    if (p != NULL && want->ends != 0)
        record(s, want->ends, type, !has_escape, start, p, want->member);
    return p;
}

/* Opens the container at p above `level`. */
static inline struct level *open_container(struct scan *s, struct level *level, const char *p,
                                           const struct want *want)
{
    if (level == &s->levels[s->max_depth]) {
        fail(s, PD_ELIMIT, p, "arrays and objects are nested too deep");
        return NULL;
    }
    level++;
    level->node = want->node;
    level->seen = 0;
    level->ends = want->ends;
    level->start = p;
    level->member = want->member;
    level->keys = 0;
    level->is_object = *p == '{';
    return level;
}

/* Closes containers and steps over commas behind a value; returns the place of
 * the next key or element, or the end of the root value (*at is the first level then). */
static inline const char *next_place(struct scan *s, const char *p, struct level **at)
{
    struct level *level = *at;

    while (level != s->levels) {
        p = skip_space(p, s->end);
        if (p < s->end && *p == ',') {
            *at = level;
            return skip_space(p + 1, s->end);
        }
        if (p == s->end || *p != (level->is_object ? '}' : ']'))
            return fail(s, PD_EPROTO, p, level->is_object ? "',' or '}' after a member"
                                                          : "',' or ']' after an element");
        p++;
        if (level->ends != 0)
            record(s, level->ends, level->is_object ? PD_JSON_OBJECT : PD_JSON_ARRAY, false,
                   level->start, p, level->member);
        level--;
    }
    *at = level;
    return p;
}

/* The root value with everything in it; p stands at its first byte. */
static const char *scan_value(struct scan *s, const char *p)
{
    struct level *level = s->levels;
    const struct pd_json_node *root = s->paths->nodes;
    struct want want = { root, root->ends, NULL };

    for (;;) {
        if (p == s->end)
            return fail(s, PD_EPROTO, p, "a value");
        bool is_over = true;
        if (*p == '{' || *p == '[') {
            level = open_container(s, level, p, &want);
            if (level == NULL)
                return NULL;
            p = skip_space(p + 1, s->end);
            /* An empty container closes at once. */
            is_over = p < s->end && *p == (level->is_object ? '}' : ']');
        } else {
            p = scan_scalar(s, p, &want);
        }
        if (is_over && p != NULL)
            p = next_place(s, p, &level);
        if (p == NULL || level == s->levels)
            return p;
        if (level->is_object) {
            p = scan_key(s, level, p, &want);
            if (p == NULL)
                return NULL;
        } else {
            want = (struct want){ NULL, 0, NULL };
            if (level->node != NULL && level->node->element != 0) {
                want.node = &s->paths->nodes[level->node->element];
                want.ends = want.node->ends;
            }
        }
    }
}

pd_status pd_json_scan_paths(struct pd_str doc, const struct pd_json_limits *limits,
                             const struct pd_json_paths *paths, struct pd_json_value *values,
                             uint64_t *found, pd_json_each_cb each, void *arg,
                             struct pd_json_error *error)
{
    struct scan s;

    s.start = doc.n == 0 ? "" : doc.p;
    s.end = s.start + doc.n;
    s.max_depth = limits == NULL || limits->depth == 0 ? 64 : limits->depth;
    s.max_depth = PD_MIN(s.max_depth, (uint32_t)PD_JSON_MAX_DEPTH);
    s.max_keys = limits == NULL || limits->keys == 0 ? 4096 : limits->keys;
    s.found = 0;
    s.paths = paths;
    s.values = values;
    s.each = each;
    s.each_arg = arg;
    s.error = error;
    s.status = PD_OK;
    const char *p = scan_value(&s, skip_space(s.start, s.end));
    *found = s.found;
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
    uint64_t found;

    if (pd_json_paths_fill(&compiled, paths, n_paths) != PD_OK) {
        if (error != NULL) {
            *error = (struct pd_json_error){ .status = PD_EINVAL, .line = 1, .column = 1 };
            snprintf(error->text, sizeof error->text, "the paths to look for are not legal");
        }
        return PD_EINVAL;
    }
    _Static_assert(PD_JSON_NONE == 0, "absent values are zeros");
    if (n_paths > 0)
        memset(values, 0, n_paths * sizeof values[0]);
    return pd_json_scan_paths(doc, limits, &compiled, values, &found, NULL, NULL, error);
}
