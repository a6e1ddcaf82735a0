/* SPDX-License-Identifier: Apache-2.0 */
/* The one pass over a JSON document.  It walks with an explicit stack of open
 * containers, so depth costs no C stack, and along with it in the tree of the
 * wanted paths: where no path leads on, keys are not even looked at.
 *
 * Invariant: everything left of p is valid JSON so far; nothing right of end is
 * ever read. */
#include "base/json.h"

#include "base/compiler.h"
#include "base/json_lex.h"
#include "base/json_path.h"
#include "base/str.h"

#include <stdio.h>

struct level {
    const struct pd_json_node *node;    /* its keys or its elements may be wanted */
    uint64_t seen;              /* keys below the node that this object had already */
    const char *start;
    const char *member;         /* where its key begins; NULL: it has none */
    int64_t keys_left;          /* that it may have; less than none after a look at one more */
    bool is_keyed;              /* an object with keys that may be wanted */
    char closer;
};

struct scan {
    struct pd_json_lex lex;
    const char *near;           /* up to here a usual key and its colon are not the end */
    const struct level *deepest;
    uint32_t max_keys;
    uint64_t found;             /* paths that have their value */
    struct pd_json_value *values;
    const struct pd_json_paths *paths;
    pd_json_each_cb each;       /* NULL: nobody wants further elements */
    void *each_arg;
    struct pd_json_node family; /* of a key of the root that belongs to some and is on no path */
    struct level levels[PD_JSON_MAX_DEPTH + 1]; /* the first one stands for the document */
};

static inline void put(struct pd_json_value *v, enum pd_json_type type, bool is_plain, const char *start,
                       const char *end, const char *member)
{
    v->type = type;
    v->is_plain = is_plain;
    v->text = (struct pd_str){ start, (size_t)(end - start) };
    v->member = (struct pd_str){ member, (size_t)(end - member) };
}

/* Gives paths a value, unless they have one; the owner is told of those of which there
 * are more. */
static void keep_any(struct scan *s, uint64_t ends, enum pd_json_type type, bool is_plain,
                     const char *start, const char *end, const char *member)
{
    struct pd_json_value v;

    put(&v, type, is_plain, start, end, member != NULL ? member : end);
    if (member == NULL)
        v.member.p = start;
    for (uint64_t fresh = ends & ~s->found; fresh != 0; fresh &= fresh - 1)
        s->values[__builtin_ctzll(fresh)] = v;
    s->found |= ends;
    if (s->each == NULL)
        return;
    for (uint64_t left = ends & s->paths->each; left != 0; left &= left - 1)
        s->each(s->each_arg, (size_t)__builtin_ctzll(left), &v, s->found);
}

/* The same for an element, of one path. */
static inline void keep_element(struct scan *s, const struct pd_json_node *node, enum pd_json_type type,
                                const char *start, const char *end)
{
    struct pd_json_value *v = &s->values[node->tells - 1];

    s->found |= node->ends;
    put(v, type, false, start, end, end);
    v->member.p = start;
    s->each(s->each_arg, node->tells - 1u, v, s->found);
}

/* Keeps a value for the paths that end at the node, of which there is mostly one. */
static inline void keep(struct scan *s, const struct pd_json_node *node, enum pd_json_type type, bool is_plain,
                        const char *start, const char *end, const char *member)
{
    if (pd_likely(node->slot != 0)) {
        s->found |= node->ends;
        put(&s->values[node->slot - 1], type, is_plain, start, end, member);
    } else if (node->ends != 0) {
        keep_any(s, node->ends, type, is_plain, start, end, member);
    }
}

static const char *fail_twice(struct scan *s, const char *p, struct pd_str key)
{
    char text[PD_JSON_SEGMENT + 32];

    snprintf(text, sizeof text, "key \"%.*s\" appears twice", PD_STR_ARG(key));
    return pd_json_fail(&s->lex, PD_EEXIST, p, text);
}

/* A key with escapes; { NULL, 0 }: it does not fit, or holds a zero byte, and is on no path. */
static struct pd_str decode_key(const char *p, const char *after, char out[PD_JSON_SEGMENT + 1])
{
    struct pd_json_value v = { .type = PD_JSON_STRING, .text = pd_str_of(p, (size_t)(after - p)) };

    return pd_json_get_cstr(&v, out, PD_JSON_SEGMENT + 1) == PD_OK ? pd_str_from(out)
                                                                   : pd_str_of(NULL, 0);
}

/* The node of a key in an object, or pd_json_nowhere; NULL: the object had the key already. */
static const struct pd_json_node *look_up(struct scan *s, struct level *level, const char *p, struct pd_str key)
{
    const struct pd_json_paths *paths = s->paths;
    const struct pd_json_node *node = pd_json_below(paths, level->node, key);

    if ((level->seen & node->bit) != 0) {
        fail_twice(s, p, key);
        return NULL;
    }
    level->seen |= node->bit;
    if (node == &pd_json_nowhere && level == &s->levels[1] && key.n > 0 &&
        (paths->family_letters & pd_json_letter(*key.p)) != 0) {
        s->family = pd_json_nowhere;
        s->family.ends = pd_json_families_of(paths, key);
        return &s->family;
    }
    return node;
}

/* The key at p and its colon, however they are written; returns what follows them. */
static const char *any_key(struct scan *s, struct level *level, const char *p, const struct pd_json_node **node)
{
    char decoded[PD_JSON_SEGMENT + 1];
    bool is_plain;

    if (p == s->lex.end || *p != '"')
        return pd_json_fail(&s->lex, PD_EPROTO, p, level->keys_left == s->max_keys ? "a key or '}'" : "a key");
    if (level->keys_left <= 0)
        return pd_json_fail(&s->lex, PD_ELIMIT, p, "an object has too many members");
    level->keys_left--;
    if (level->node->n_keys != 0) {
        *node = pd_json_usual(s->paths, level->node, p + 1, s->lex.start, s->lex.end);
        if (*node != &pd_json_nowhere && (level->seen & (*node)->bit) == 0) {
            level->seen |= (*node)->bit;
            return p + (*node)->key_n + 3;
        }
    }
    const char *after = p + 1;
    if (p < s->near)
        after = pd_json_plain_first(after);
    is_plain = p < s->near && *after == '"';
    after = is_plain ? after + 1 : pd_json_text_rest(&s->lex, after, &is_plain);
    if (after == NULL)
        return NULL;
    *node = &pd_json_nowhere;
    if (level->node != &pd_json_nowhere) {
        struct pd_str key = is_plain ? pd_str_of(p + 1, (size_t)(after - p) - 2) : decode_key(p, after, decoded);
        if (key.p != NULL && (*node = look_up(s, level, p, key)) == NULL)
            return NULL;
    }
    p = pd_json_skip(after, s->lex.end);
    if (p == s->lex.end || *p != ':')
        return pd_json_fail(&s->lex, PD_EPROTO, p, "':' after a key");
    return p + 1;
}

/* A value that is neither a string nor a container. */
static const char *scan_other(struct scan *s, const char *p, enum pd_json_type *type)
{
    switch (*p) {
    case 't':
        *type = PD_JSON_BOOL;
        return pd_json_word(&s->lex, p, PD_STR("true"));
    case 'f':
        *type = PD_JSON_BOOL;
        return pd_json_word(&s->lex, p, PD_STR("false"));
    case 'n':
        *type = PD_JSON_NULL;
        return pd_json_word(&s->lex, p, PD_STR("null"));
    case '-':
        *type = PD_JSON_NUMBER;
        return pd_json_any_number(&s->lex, p);
    default:
        *type = PD_JSON_NONE;
        return pd_json_fail(&s->lex, PD_EPROTO, p, "a value");
    }
}

/* Opens the container at p above `level`. */
static inline struct level *open_container(struct scan *s, struct level *level, const char *p,
                                           const struct pd_json_node *node, const char *member)
{
    if (pd_unlikely(level == s->deepest)) {
        pd_json_fail(&s->lex, PD_ELIMIT, p, "arrays and objects are nested too deep");
        return NULL;
    }
    level++;
    level->node = node;
    level->seen = 0;
    level->start = p;
    level->member = member;
    level->keys_left = s->max_keys;
    level->is_keyed = node->n_keys != 0 && *p == '{';
    level->closer = (char)(*p + 2);     /* of '{' and '[' */
    return level;
}

static const char *fail_behind(struct scan *s, const struct level *level, const char *p)
{
    return pd_json_fail(&s->lex, PD_EPROTO, p, level->closer == '}' ? "',' or '}' after a member"
                                                                  : "',' or ']' after an element");
}

/* The root value with everything in it, from its first byte on; returns what follows it. */
static const char *walk(struct scan *s, const char *p)
{
    const struct pd_json_node *node = s->paths->nodes;
    const char *const end = s->lex.end, *const near = s->near;
    const char *member = NULL, *start;
    struct level *level = s->levels;
    enum pd_json_type type;
    bool is_plain, rest_is_plain;

value:
    if (p < end && *p == ' ')
        p++;
    if (p == end)
        return pd_json_fail(&s->lex, PD_EPROTO, p, "a value");
value_here:
    start = p;
    if (*p == '"') {
        type = PD_JSON_STRING;
        p++;
        if (pd_likely(p < near)) {
            p = pd_json_plain_first(p);
            if (pd_likely(*p == '"')) {
                p++;
                is_plain = true;
                goto scalar;
            }
        }
        p = pd_json_text_rest(&s->lex, p, &rest_is_plain);
        is_plain = rest_is_plain;
    } else if (*p >= '0' && *p <= '9') {
        type = PD_JSON_NUMBER;
        is_plain = true;
        p = pd_json_number(&s->lex, p);
    } else if (*p == '{' || *p == '[') {
        level = open_container(s, level, p, node, member);
        if (level == NULL)
            return NULL;
        p++;
        if (level->is_keyed)
            goto wanted_key;
        p = pd_json_skip(p, end);
        if (p < end && *p == level->closer)
            goto close;
        if (level->closer == '}')
            goto key;
        goto element;
    } else {
        enum pd_json_type other;
        p = pd_json_space(p, end);
        if (p != start)
            goto value;
        p = scan_other(s, p, &other);
        type = other;
        is_plain = true;
    }
    if (p == NULL)
        return NULL;
scalar:
    keep(s, node, type, is_plain, start, p, member);

behind:
    if (p == end)
        return level == s->levels ? p : fail_behind(s, level, p);
    if (*p == ',') {
        p++;
        if (level->is_keyed) {
wanted_key:
            if (pd_likely(p < near && *p == '"')) {
                node = pd_json_first(s->paths, level->node, p + 1);
                if (pd_likely(pd_json_is_usual(node, level->node, p + 1) && (level->seen & node->bit) == 0 &&
                              --level->keys_left >= 0)) {
                    level->seen |= node->bit;
                    member = p;
                    p += node->key_n + 3;
                    goto value_here;
                }
            }
            p = pd_json_skip(p, end);
            if (p < end && *p == '}' && level->keys_left == s->max_keys)
                goto close;
        } else if (level->closer != '}') {
            goto element;
        }
key:
        p = pd_json_skip(p, end);
        member = p;
        /* A short one that nobody looks for; one of the root may belong to a family. */
        if (!level->is_keyed && level != &s->levels[1] && p < near && *p == '"') {
            const char *quote = pd_json_plain_first(p + 1);
            if (quote[0] == '"' && quote[1] == ':' && --level->keys_left >= 0) {
                node = &pd_json_nowhere;
                p = quote + 2;
                goto value;
            }
        }
        p = any_key(s, level, p, &node);
        if (p == NULL)
            return NULL;
        goto value;
    }
    if (*p == level->closer) {
close:
        p++;
        node = level->node;
        type = level->closer == '}' ? PD_JSON_OBJECT : PD_JSON_ARRAY;
        if (node->tells != 0 && s->each != NULL)
            keep_element(s, node, type, level->start, p);
        else
            keep(s, node, type, false, level->start, p, level->member);
        level--;
        if (level == s->levels)
            return p;
        goto behind;
    }
    if (level == s->levels)
        return p;
    start = p;
    p = pd_json_space(p, end);
    if (p != start)
        goto behind;
    return fail_behind(s, level, p);

element:
    if (level == s->levels)
        return p - 1;
    node = level->node->element;
    member = NULL;
    s->found &= ~node->below;
    goto value;
}

pd_status pd_json_scan_paths(struct pd_str doc, const struct pd_json_limits *limits,
                             const struct pd_json_paths *paths, struct pd_json_value *values,
                             uint64_t *found, pd_json_each_cb each, void *arg,
                             struct pd_json_error *error)
{
    struct scan s;
    uint32_t depth = limits == NULL || limits->depth == 0 ? 64 : limits->depth;

    s.lex.start = doc.n == 0 ? "" : doc.p;
    s.lex.end = s.lex.start + doc.n;
    s.lex.error = error;
    s.lex.status = PD_OK;
    s.near = doc.n < PD_JSON_USUAL ? s.lex.start : s.lex.end - PD_JSON_USUAL;
    s.deepest = &s.levels[PD_MIN(depth, (uint32_t)PD_JSON_MAX_DEPTH)];
    s.max_keys = limits == NULL || limits->keys == 0 ? 4096 : limits->keys;
    s.found = 0;
    s.paths = paths;
    s.values = values;
    s.each = each;
    s.each_arg = arg;
    s.levels[0].closer = ',';
    s.levels[0].is_keyed = false;
    const char *p = walk(&s, s.lex.start);
    *found = s.found;
    if (p == NULL)
        return s.lex.status;
    if (p != s.lex.end) {
        p = pd_json_space(p, s.lex.end);
        if (p != s.lex.end)
            pd_json_fail(&s.lex, PD_EPROTO, p, "nothing after the document");
    }
    return s.lex.status;
}

pd_status pd_json_scan(struct pd_str doc, const struct pd_json_limits *limits,
                       const char *const *paths, size_t n_paths, struct pd_json_value *values,
                       struct pd_json_error *error)
{
    struct pd_json_paths compiled;
    uint64_t found;

    if (pd_json_paths_fill(&compiled, paths, n_paths, false) != PD_OK) {
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
