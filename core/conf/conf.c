/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a generation: reading a file and what its `include` setting
 * names, filling, references.  After pd_conf_fill nothing in it changes. */
#include "conf/conf.h"

#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/fill.h"
#include "conf/impl.h"

static pd_status read_includes(struct pd_conf *conf, struct pd_conf_node *root, struct pd_conf_report *report,
                               uint32_t depth);

/* Adds the settings of an included file: lists grow, all else must be new. */
static void merge(struct pd_conf_node *into, struct pd_conf_node *from, struct pd_conf_report *report)
{
    struct pd_conf_node *next;
    for (struct pd_conf_node *c = from->first; c != NULL; c = next) {
        struct pd_conf_node *have = conf_node_child(into, c->name);
        next = c->next;
        if (have == NULL) {
            conf_node_append(into, c);
            continue;
        }
        bool lists = (have->type == NODE_LIST || have->type == NODE_ARRAY) &&
                     (c->type == NODE_LIST || c->type == NODE_ARRAY);
        if (!lists) {
            pd_conf_error(report, c->place.file, c->place.line,
                          "option \"%s\" is given a second time (first at %s:%u)"
                          "\nonly lists are joined over several files", c->name, have->place.file,
                          have->place.line);
            continue;
        }
        struct pd_conf_node *item_next;
        for (struct pd_conf_node *item = c->first; item != NULL; item = item_next) {
            item_next = item->next;
            conf_node_append(have, item);
        }
    }
}

static pd_status read_root(struct pd_conf *conf, const char *path, const struct pd_str *text,
                           struct pd_conf_report *report, struct pd_conf_node **out)
{
    struct conf_text t;
    pd_status st = conf_text_read(conf, path, text, &t, report);
    if (st == PD_OK)
        st = conf_tree_parse(conf, &t, report, out);
    conf_text_fini(&t);
    return st;
}

static pd_status read_pattern(struct pd_conf *conf, struct pd_conf_node *root, struct pd_conf_report *report,
                              const char *pattern, struct pd_conf_place at, uint32_t depth)
{
    glob_t found;
    pd_status st = PD_OK;
    int rc = glob(pattern, 0, NULL, &found);
    if (rc == GLOB_NOMATCH && strpbrk(pattern, "*?[") == NULL)
        return pd_conf_error(report, at.file, at.line, "included file \"%s\" does not exist", pattern);
    if (rc == GLOB_NOMATCH)
        return PD_OK;
    if (rc != 0)
        return pd_conf_error(report, at.file, at.line, "pattern \"%s\" cannot be read", pattern);
    for (size_t i = 0; i < found.gl_pathc && st != PD_ENOMEM; i++) {
        struct pd_conf_node *inner;
        const char *path = pd_arena_printf(&conf->arena, "%s", found.gl_pathv[i]);
        if (path == NULL) {
            st = conf_no_memory(report);
            break;
        }
        if (read_root(conf, path, NULL, report, &inner) != PD_OK ||
            read_includes(conf, inner, report, depth + 1) != PD_OK) {
            st = PD_EINVAL;
            continue;
        }
        merge(root, inner, report);
    }
    globfree(&found);
    return st;
}

/* include = [ "conf.d/PATTERN" ]: each file is read on its own. */
static pd_status read_includes(struct pd_conf *conf, struct pd_conf_node *root, struct pd_conf_report *report,
                               uint32_t depth)
{
    struct pd_conf_strings patterns = { NULL, 0 };
    static const struct pd_option row = { .name = "include", .type = PD_OPT_T_STRING_LIST,
                                          .width = sizeof(struct pd_conf_strings), .flags = PD_OPT_NONEMPTY };
    struct conf_ctx ctx = { .conf = conf, .report = report, .where = "" };
    struct pd_conf_node *node = conf_node_child(root, "include");
    if (node == NULL)
        return PD_OK;
    if (depth == CONF_INCLUDE_DEPTH)
        return pd_conf_error(report, node->place.file, node->place.line,
                             "files include each other more than %u levels deep", CONF_INCLUDE_DEPTH);
    conf_node_remove(root, node);
    pd_status st = conf_value_set(&ctx, &row, node, &patterns);
    conf->n_origins = 0;
    for (uint64_t i = 0; st == PD_OK && i < patterns.count; i++) {
        const char *pattern = conf_path_beside(conf, node->place.file, patterns.items[i]);
        st = pattern == NULL ? conf_no_memory(report)
                             : read_pattern(conf, root, report, pattern, node->place, depth);
    }
    return st;
}

/* Absolute, so that values stay right when the process changes its folder. */
static const char *absolute(struct pd_conf *conf, const char *dir)
{
    char real[PATH_MAX];
    return pd_arena_printf(&conf->arena, "%s", realpath(dir, real) != NULL ? real : dir);
}

static const char *folder_of(struct pd_conf *conf, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return absolute(conf, ".");
    const char *dir = pd_arena_printf(&conf->arena, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return dir == NULL ? NULL : absolute(conf, dir);
}

static pd_status open_any(const char *path, const struct pd_str *text, const struct pd_conf_source *src,
                          struct pd_conf_report *report, struct pd_conf **out)
{
    struct pd_conf *conf = pd_calloc(1, sizeof *conf);
    if (conf == NULL)
        return conf_no_memory(report);
    atomic_init(&conf->refs, 1);
    pd_arena_init(&conf->arena, 16384, CONF_ARENA_MAX);
    conf->file = pd_arena_printf(&conf->arena, "%s", path);
    if (src != NULL)
        conf->src = *src;
    if (conf->src.prefix != NULL)
        conf->base_dir = absolute(conf, conf->src.prefix);
    else
        conf->base_dir = folder_of(conf, path);
    pd_status st = conf->file == NULL || conf->base_dir == NULL ? conf_no_memory(report) : PD_OK;
    if (st == PD_OK)
        st = read_root(conf, conf->file, text, report, &conf->root);
    if (st == PD_OK)
        st = read_includes(conf, conf->root, report, 0);
    if (st == PD_OK && !pd_conf_report_ok(report))
        st = PD_EINVAL;
    if (st != PD_OK) {
        pd_conf_put(conf);
        return st;
    }
    *out = conf;
    return PD_OK;
}

pd_status pd_conf_open(const char *path, const struct pd_conf_source *src, struct pd_conf_report *report,
                       struct pd_conf **out)
{
    return open_any(path, NULL, src, report, out);
}

pd_status pd_conf_open_text(const char *name, struct pd_str text, const struct pd_conf_source *src,
                            struct pd_conf_report *report, struct pd_conf **out)
{
    return open_any(name, &text, src, report, out);
}

pd_status pd_conf_peek(struct pd_conf *conf, const struct pd_option *row, void *base,
                       struct pd_conf_report *report)
{
    struct conf_ctx ctx = { .conf = conf, .report = report, .where = "" };
    size_t before = conf->n_origins;
    pd_status st = conf_fill_single(&ctx, row, base);
    conf->n_origins = before;
    return st;
}

pd_status pd_conf_fill(struct pd_conf *conf, const struct pd_option *rows, size_t size,
                       const struct pd_conf_resolver *resolver, struct pd_conf_report *report)
{
    struct conf_ctx ctx = { .conf = conf, .report = report, .resolver = resolver, .where = "" };
    if (conf->filled != NULL)
        return PD_EINVAL;
    conf->rows = rows;
    conf->filled = pd_arena_calloc(&conf->arena, 1, size);
    if (conf->filled == NULL)
        return conf_no_memory(report);
    pd_status st = conf_fill_root(&ctx, rows, conf->filled);
    if (report->out_of_memory)
        st = PD_ENOMEM;
    conf_origins_sort(conf);
    conf->complete = st == PD_OK;
    return st;
}

const void *pd_conf_root(const struct pd_conf *conf)
{
    return conf->complete ? conf->filled : NULL;
}

const char *pd_conf_file(const struct pd_conf *conf)
{
    return conf->file;
}

const char *pd_conf_file_at(const struct pd_conf *conf, size_t index)
{
    return index < conf->n_files ? conf->files[index] : NULL;
}

struct pd_conf_place pd_conf_where(const struct pd_conf *conf, const void *member)
{
    const struct conf_origin *o = conf_origin_find(conf, NULL, member);
    return o != NULL ? o->place : (struct pd_conf_place){ conf->file, 0, 0 };
}

struct pd_conf_place pd_conf_item_place(const struct pd_conf *conf, const char *key, uint64_t index)
{
    const struct pd_conf_node *node = conf_node_child(conf->root, key);
    const struct pd_conf_node *item = node != NULL ? node->first : NULL;
    for (; item != NULL && index > 0; index--)
        item = item->next;
    if (item == NULL)
        item = node;
    return item != NULL ? item->place : (struct pd_conf_place){ conf->file, 0, 0 };
}

struct pd_conf *pd_conf_get(struct pd_conf *conf)
{
    atomic_fetch_add_explicit(&conf->refs, 1, memory_order_relaxed);
    return conf;
}

void pd_conf_put(struct pd_conf *conf)
{
    if (conf == NULL || atomic_fetch_sub_explicit(&conf->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (struct conf_secret *s = conf->secrets; s != NULL; s = s->next)
        explicit_bzero(s->p, s->n);
    pd_free(conf->origins);
    pd_arena_fini(&conf->arena);
    pd_free(conf);
}
