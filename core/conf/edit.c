/* SPDX-License-Identifier: Apache-2.0 */
/* Changes to the tree of an open configuration.  A changed node keeps the place
 * of the text that changed it, so that messages of fill name it. */
#include "conf/edit.h"

#include <string.h>

#include "base/str.h"
#include "conf/impl.h"

#define SEGMENT_MAX 128u
#define REPEAT_MAX 8192u        /* members of a list that was repeated */

/* ---- finding ------------------------------------------------------------------------ */

static bool is_number(const char *s, uint64_t *n)
{
    return pd_str_parse_u64(pd_str_from(s), n) == PD_OK;
}

static struct pd_conf_node *list_member(const struct pd_conf_node *list, const char *segment)
{
    uint64_t want = 0, i = 0;
    bool by_number = is_number(segment, &want);
    for (struct pd_conf_node *n = list->first; n != NULL; n = n->next, i++) {
        if (by_number && i == want)
            return n;
        if (by_number || n->type != NODE_GROUP)
            continue;
        const struct pd_conf_node *name = conf_node_child(n, "name");
        if (name != NULL && name->type == NODE_STRING && strcmp(name->u.s, segment) == 0)
            return n;
    }
    return NULL;
}

static struct pd_conf_node *member_of(const struct pd_conf_node *node, const char *segment)
{
    if (node->type == NODE_GROUP)
        return conf_node_child(node, segment);
    return node->type == NODE_LIST ? list_member(node, segment) : NULL;
}

/* Cuts the next segment off *path; false at the end or when it is too long. */
static bool segment_next(const char **path, char *out)
{
    size_t n = strcspn(*path, ".");
    if (n == 0 || n >= SEGMENT_MAX)
        return false;
    memcpy(out, *path, n);
    out[n] = '\0';
    *path += n + ((*path)[n] == '.');
    return true;
}

static struct pd_conf_node *find(const struct pd_conf *conf, const char *path)
{
    struct pd_conf_node *node = conf->root;
    char segment[SEGMENT_MAX];
    while (node != NULL && *path != '\0')
        node = segment_next(&path, segment) ? member_of(node, segment) : NULL;
    return node;
}

uint32_t pd_conf_count_at(const struct pd_conf *conf, const char *path)
{
    const struct pd_conf_node *node = find(conf, path);
    return node != NULL ? node->count : 0;
}

const char *pd_conf_string_at(const struct pd_conf *conf, const char *path)
{
    const struct pd_conf_node *node = find(conf, path);
    return node != NULL && node->type == NODE_STRING ? node->u.s : NULL;
}

struct pd_conf_place pd_conf_place_at(const struct pd_conf *conf, const char *path)
{
    const struct pd_conf_node *node = find(conf, path);
    return node != NULL ? node->place : (struct pd_conf_place){ conf->file, 0, 0 };
}

/* ---- changing ----------------------------------------------------------------------- */

bool pd_conf_drop(struct pd_conf *conf, const char *path)
{
    struct pd_conf_node *parent = NULL, *node = conf->root;
    char segment[SEGMENT_MAX];
    while (node != NULL && *path != '\0') {
        parent = node;
        node = segment_next(&path, segment) ? member_of(node, segment) : NULL;
    }
    if (node == NULL || parent == NULL)
        return false;
    conf_node_remove(parent, node);
    return true;
}

/* The parent takes `value` under that name: in the place of what was there, or as a
 * new member.  False: it cannot have such a member. */
static bool put(struct pd_conf_node *parent, const char *name, struct pd_conf_node *value)
{
    struct pd_conf_node *old = member_of(parent, name);
    if (old != NULL) {
        /* A member of a group keeps the name under which it is found. */
        const char *was = old->name;
        struct pd_conf_node *next = old->next;
        *old = *value;
        old->name = was;
        old->next = next;
        return true;
    }
    if (parent->type != NODE_GROUP)
        return false;
    value->name = name;
    conf_node_append(parent, value);
    return true;
}

static pd_status set(struct pd_conf *conf, const char *path, struct pd_conf_node *value,
                     struct pd_conf_report *report)
{
    struct pd_conf_node *node = conf->root;
    struct pd_conf_place at = value->place;
    const char *rest = path;
    char segment[SEGMENT_MAX];
    while (segment_next(&rest, segment)) {
        const char *name = pd_arena_printf(&conf->arena, "%s", segment);
        struct pd_conf_node *next = *rest == '\0' ? value : member_of(node, segment);
        if (name == NULL)
            return conf_no_memory(report);
        if (next == NULL) {
            next = pd_arena_calloc(&conf->arena, 1, sizeof *next);
            if (next == NULL)
                return conf_no_memory(report);
            next->type = NODE_GROUP;
            next->place = at;
        }
        if (next == value || member_of(node, segment) == NULL) {
            if (!put(node, name, next))
                return pd_conf_error(report, at.file, at.line, "\"%s\" has no member \"%s\" in %s"
                                     "\na member of a list is named by its name or by its number from 0",
                                     path, segment, pd_conf_file(conf));
        }
        if (next == value)
            return PD_OK;
        node = next;
    }
    return pd_conf_error(report, at.file, at.line, "\"%s\" is no path of a setting"
                         "\nwrite names with dots between them: scheduler.picker.module", path);
}

pd_status pd_conf_change_string(struct pd_conf *conf, const char *path, const char *value,
                                struct pd_conf_report *report)
{
    struct pd_conf_node *node = pd_arena_calloc(&conf->arena, 1, sizeof *node);
    const struct pd_conf_node *old = find(conf, path);
    const char *text = pd_arena_printf(&conf->arena, "%s", value);
    if (node == NULL || text == NULL)
        return conf_no_memory(report);
    node->type = NODE_STRING;
    node->u.s = text;
    node->place = old != NULL ? old->place : (struct pd_conf_place){ conf->file, 0, 0 };
    return set(conf, path, node, report);
}

/* The end of the statement that begins at i: its semicolon outside of strings and
 * brackets, or the end of the text.  *equals: its first "=" there, or the end. */
static size_t statement_end(struct pd_str s, size_t i, size_t *equals)
{
    int depth = 0;
    bool in_string = false;
    *equals = s.n;
    for (; i < s.n; i++) {
        char c = s.p[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && strchr("([{", c) != NULL && c != '\0')
            depth++;
        else if (!in_string && strchr(")]}", c) != NULL && c != '\0')
            depth--;
        else if (!in_string && depth == 0 && c == '=' && *equals == s.n)
            *equals = i;
        else if (!in_string && depth <= 0 && c == ';')
            return i;
    }
    return s.n;
}

static pd_status change_one(struct pd_conf *conf, const char *name, struct pd_str path, struct pd_str value,
                            struct pd_conf_report *report)
{
    struct pd_conf_node *root;
    struct conf_text t;
    const char *where = pd_arena_printf(&conf->arena, "%.*s", PD_STR_ARG(path));
    const char *text = pd_arena_printf(&conf->arena, "value = %.*s;\n", PD_STR_ARG(value));
    if (where == NULL || text == NULL)
        return conf_no_memory(report);
    struct pd_str s = pd_str_from(text);
    pd_status st = conf_text_read(conf, name, &s, &t, report);
    if (st == PD_OK)
        st = conf_tree_parse(conf, &t, report, &root);
    conf_text_fini(&t);
    if (st != PD_OK)
        return st;
    struct pd_conf_node *node = conf_node_child(root, "value");
    if (node == NULL || root->count != 1)
        return pd_conf_error(report, name, 1, "\"%s\" must get one value", where);
    return set(conf, where, node, report);
}

/* A copy of a node and all below it; NULL: out of memory. */
static struct pd_conf_node *copy(struct pd_conf *conf, const struct pd_conf_node *in)
{
    struct pd_conf_node *out = pd_arena_memdup(&conf->arena, in, sizeof *in);
    if (out == NULL)
        return NULL;
    out->first = out->last = out->next = NULL;
    out->count = 0;
    for (const struct pd_conf_node *n = in->first; n != NULL; n = n->next) {
        struct pd_conf_node *child = copy(conf, n);
        if (child == NULL)
            return NULL;
        conf_node_append(out, child);
    }
    return out;
}

/* A member with a name is the only one of the list that has it. */
static bool rename_copy(struct pd_conf *conf, const struct pd_conf_node *list, struct pd_conf_node *node,
                        uint32_t number)
{
    struct pd_conf_node *name = node->type == NODE_GROUP ? conf_node_child(node, "name") : NULL;
    const char *more;
    if (name == NULL || name->type != NODE_STRING)
        return true;
    do
        more = pd_arena_printf(&conf->arena, "%s-%u", name->u.s, number++);
    while (more != NULL && list_member(list, more) != NULL);
    name->u.s = more;
    return more != NULL;
}

static pd_status repeat(struct pd_conf *conf, struct pd_conf_node *list, uint32_t times,
                        struct pd_conf_report *report)
{
    uint32_t n = list->count;
    for (uint32_t k = 1; k < times; k++) {
        const struct pd_conf_node *from = list->first;
        for (uint32_t i = 0; i < n; i++, from = from->next) {
            struct pd_conf_node *more = copy(conf, from);
            if (more == NULL || !rename_copy(conf, list, more, k + 1))
                return conf_no_memory(report);
            conf_node_append(list, more);
        }
    }
    return PD_OK;
}

/* "PATH xN" */
static pd_status repeat_text(struct pd_conf *conf, const char *name, struct pd_str text,
                             struct pd_conf_report *report)
{
    size_t blank = pd_str_find_char(text, ' ');
    struct pd_str times = blank == PD_STR_NPOS ? PD_STR("") : pd_str_trim(pd_str_sub(text, blank, text.n));
    const char *path = pd_arena_printf(&conf->arena, "%.*s", (int)(blank == PD_STR_NPOS ? text.n : blank), text.p);
    uint64_t n = 0;
    if (path == NULL)
        return conf_no_memory(report);
    if (!pd_str_starts_with(times, PD_STR("x")) ||
        pd_str_parse_u64(pd_str_trim(pd_str_sub(times, 1, times.n)), &n) != PD_OK || n == 0)
        return pd_conf_error(report, name, 1, "\"%.*s\" changes nothing\nwrite PATH = VALUE, such as "
                             "scheduler.picker.module = \"random\", or LIST xN, such as endpoints x2",
                             PD_STR_ARG(text));
    struct pd_conf_node *list = find(conf, path);
    if (list == NULL || list->type != NODE_LIST || list->count == 0)
        return pd_conf_error(report, name, 1, "%s has no list \"%s\"", conf->file, path);
    if (list->count > REPEAT_MAX / n)
        return pd_conf_error(report, name, 1, "\"%s\" would have more than %u members", path, REPEAT_MAX);
    return repeat(conf, list, (uint32_t)n, report);
}

pd_status pd_conf_change(struct pd_conf *conf, const char *name, struct pd_str text,
                         struct pd_conf_report *report)
{
    for (size_t at = 0; at < text.n;) {
        size_t equals, end = statement_end(text, at, &equals);
        struct pd_str whole = pd_str_trim(pd_str_sub(text, at, end - at));
        pd_status st = PD_OK;
        if (whole.n > 0 && equals >= end)
            st = repeat_text(conf, name, whole, report);
        else if (whole.n > 0)
            st = change_one(conf, name, pd_str_trim(pd_str_sub(text, at, equals - at)),
                            pd_str_trim(pd_str_sub(text, equals + 1, end - equals - 1)), report);
        if (st != PD_OK)
            return st;
        at = end + 1;
    }
    return PD_OK;
}

