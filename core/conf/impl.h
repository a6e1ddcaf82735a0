/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/conf: the parsed tree, the scanned text and the generation.
 *
 *   text.c    files -> one flat text, checked token by token in token.c
 *   tree.c    flat text -> tree, through libconfig (the only file that sees it)
 *   fill.c    tree + rows -> structs, with value.c for single values, limit.c,
 *             expand.c and secret.c for what they need
 *   edit.c    changes to the tree before it is filled
 *   dump.c, reference.c, rows.c   the other uses of rows */
#ifndef PD_CONF_IMPL_H
#define PD_CONF_IMPL_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/buf.h"
#include "conf/conf.h"

#define CONF_FILE_MAX ((size_t)1 << 20)     /* bytes of one file */
#define CONF_TEXT_MAX ((size_t)4 << 20)     /* bytes of a file with its @include lines */
#define CONF_ARENA_MAX ((size_t)64 << 20)
#define CONF_FILES_MAX 256u
#define CONF_INCLUDE_DEPTH 10u
#define CONF_DEPTH_MAX 32u
#define CONF_LIST_MAX 65536u                /* groups in a list */
#define CONF_STRINGS_MAX 1024u              /* strings in a list, unless the row says otherwise */
#define CONF_SECRET_MAX ((size_t)64 << 10)

enum node_type { NODE_GROUP, NODE_LIST, NODE_ARRAY, NODE_BOOL, NODE_INT, NODE_FLOAT, NODE_STRING };

struct pd_conf_node {
    enum node_type type;
    uint32_t count;                 /* children */
    const char *name;               /* NULL in lists */
    struct pd_conf_place place;
    union {
        bool b;
        int64_t i;
        double d;
        const char *s;
    } u;
    struct pd_conf_node *first, *last, *next;
};

/* Where a flat line comes from. */
struct conf_line {
    uint32_t file;                  /* index in pd_conf.files */
    uint32_t line;
};

struct conf_text {
    struct pd_buf flat;
    struct conf_line *lines;        /* of flat line i + 1 */
    size_t n_lines, cap_lines;
};

/* Origin of one filled member. */
struct conf_origin {
    const void *member;
    const struct pd_option *row;
    struct pd_conf_place place;
    const char *raw;                /* SECRET rows: as written, for the dump */
    bool raw_is_file;               /* raw stood under NAME_file */
};

struct conf_secret {
    struct conf_secret *next;
    char *p;
    size_t n;
};

struct pd_conf {
    atomic_uint refs;
    struct pd_arena arena;
    const char *file;               /* as given */
    const char *base_dir;           /* for relative paths in options */
    const char *files[CONF_FILES_MAX];
    uint32_t n_files;
    struct pd_conf_source src;
    struct pd_conf_node *root;
    const struct pd_option *rows;
    void *filled;                   /* being filled or filled */
    bool complete;
    struct conf_origin *origins;    /* sorted by member once complete */
    size_t n_origins, cap_origins;
    struct conf_secret *secrets;
};

/* text.c: appends one file (content given, or read when text is NULL) with its
 * includes to an empty text.  PD_OK or the report says what is wrong. */
pd_status conf_text_read(struct pd_conf *conf, const char *path, const struct pd_str *text,
                         struct conf_text *out, struct pd_conf_report *report);
void conf_text_fini(struct conf_text *t);
/* Place of a flat line, counted from 1. */
struct pd_conf_place conf_text_place(const struct pd_conf *conf, const struct conf_text *t, uint32_t line);
/* "DIR/NAME" for a relative name beside `beside`, else name; in the arena. */
const char *conf_path_beside(struct pd_conf *conf, const char *beside, const char *name);

/* tree.c: *out is a NODE_GROUP in the arena. */
pd_status conf_tree_parse(struct pd_conf *conf, struct conf_text *t, struct pd_conf_report *report,
                          struct pd_conf_node **out);
struct pd_conf_node *conf_node_child(const struct pd_conf_node *group, const char *name);
void conf_node_append(struct pd_conf_node *parent, struct pd_conf_node *child);
/* child is one of parent's. */
void conf_node_remove(struct pd_conf_node *parent, const struct pd_conf_node *child);
/* "a string", "an integer" ... */
const char *conf_node_type_text(const struct pd_conf_node *node);

/* Tells of something wrong at a node; PD_EINVAL. */
#define CONF_BAD(ctx, node, ...) \
    pd_conf_error((ctx)->report, (node)->place.file, (node)->place.line, __VA_ARGS__)

/* value.c: what a message needs to know about where a value stands. */
struct conf_ctx {
    struct pd_conf *conf;
    struct pd_conf_report *report;
    const struct pd_conf_resolver *resolver;
    const char *where;              /* ` in engine "tiny"`, or "" */
};

/* Converts one node (or, when node is NULL, the default) into row's member of
 * base.  Group and unit types are not handled here. */
pd_status conf_value_set(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                         void *base);
/* expand.c
 * Expands ${NAME}; *used says whether there was one. */
pd_status conf_expand(struct conf_ctx *ctx, const struct pd_conf_node *node, const char *in, const char **out,
                      bool *used);
/* The path from the folder of the configuration on; NULL: no memory. */
const char *conf_path_complete(struct conf_ctx *ctx, const char *path);
/* secret.c
 * The SECRET row's value from the file that node names. */
pd_status conf_secret_file(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                           void *base);
/* The SECRET row's value from an expanded string; `expanded`: there was something to expand. */
pd_status conf_secret_set(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                          const char *text, bool expanded, void *member);
/* Remembers where a member got its value; PD_ENOMEM goes to the report. */
void conf_origin_add(struct conf_ctx *ctx, const struct pd_option *row, const void *member,
                     const struct pd_conf_node *node, const char *raw, bool raw_is_file);
const struct conf_origin *conf_origin_find(const struct pd_conf *conf, const struct pd_option *row,
                                           const void *member);
pd_status conf_no_memory(struct pd_conf_report *report);
/* limit.c: "an integer", "a size such as \"512m\"" ... for messages and references. */
const char *conf_type_expect(const struct pd_option *row);
/* Reads an integer member of 1, 2, 4 or 8 bytes. */
int64_t conf_int_get(const struct pd_option *row, const void *member);
/* Whether two integer limits hold; used for INT, SIZE and DURATION. */
bool conf_in_range(const struct pd_option *row, int64_t value);
/* "0 to 100 tokens", "at least 1 KiB"; empty when there is no limit. */
const char *conf_range_text(const struct pd_option *row, char *out, size_t size);

#endif
