/* SPDX-License-Identifier: Apache-2.0 */
/* Option rows: what a section or a module may be configured with.  Stable.
 *
 * One row describes one key of a configuration group: its name, its type, the
 * member of the caller's struct that takes the value, its default and limits,
 * and a sentence of help.  From the same rows come parsing, error messages,
 * `pdplane -T`, `pdplane -O` and the option lists of the manual pages.
 *
 *     struct rr_conf { int64_t start; const char *title; };
 *
 *     static const struct pd_option rr_options[] = {
 *         PD_OPT_INT("start", struct rr_conf, start, "0", .max = 1 << 20,
 *                    .help = "Index of the first endpoint to use."),
 *         PD_OPT_STRING("title", struct rr_conf, title, NULL, .help = "Shown in tables."),
 *         PD_OPT_END
 *     };
 *
 * Everything a filled struct points to belongs to the configuration
 * generation: read-only, valid until the instance's destroy has returned. */
#ifndef PDPLANE_CONF_H
#define PDPLANE_CONF_H

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a row's text looks like, and the member it fills. */
enum {
    PD_OPT_T_END = 0,
    PD_OPT_T_BOOL = 1,         /* true, false                  bool */
    PD_OPT_T_INT = 2,          /* 42                           any integer member, 1 to 8 bytes */
    PD_OPT_T_NUMBER = 3,       /* 0.5, 2                       double */
    PD_OPT_T_STRING = 4,       /* "text"                       const char *, NULL when not given */
    PD_OPT_T_SIZE = 5,         /* "512k", "4g"; bytes          uint64_t */
    PD_OPT_T_DURATION = 6,     /* "250ms", "1h30m"; ns         uint64_t (pd_time) */
    PD_OPT_T_ENUM = 7,         /* one name of a list           uint32_t */
    PD_OPT_T_FLAGS = 8,        /* [ "a", "b" ]: bits or'ed     uint64_t or uint32_t */
    PD_OPT_T_STRING_LIST = 9,  /* [ "a", "b" ] or "a"          struct pd_conf_strings */
    PD_OPT_T_GROUP = 10,       /* { ... }                      a struct in place, or a pointer to one */
    PD_OPT_T_GROUP_LIST = 11,  /* ( { ... }, { ... } )         struct pd_conf_list */
    PD_OPT_T_UNIT = 12,        /* "name" of a module's unit; that unit's own rows may then stand in
                                  the same group               struct pd_conf_unit */
    PD_OPT_T_UNIT_MAP = 13,    /* { tcp = { ... }; }: keys are names of units, values hold their
                                  rows                         struct pd_conf_list of pd_conf_unit */
    PD_OPT_T_ALIAS = 14,       /* an old name of the row that `alias` names; works and warns */
    PD_OPT_T_PLACE = 15        /* no key; where the group stands  struct pd_conf_place */
};

enum {
    PD_OPT_REQUIRED = 1u << 0, /* must be given */
    PD_OPT_SECRET = 1u << 1,   /* STRING: only from the environment, NAME = "${VARIABLE}", or from a
                                  file of mode 0640 or less, NAME_file = "PATH"; never printed */
    PD_OPT_PATH = 1u << 2,     /* STRING, STRING_LIST: relative paths are completed */
    PD_OPT_POINTER = 1u << 3,  /* GROUP: the member is a pointer, NULL when the group is absent */
    PD_OPT_NONEMPTY = 1u << 4, /* STRING, lists: must not be empty when given */
    PD_OPT_UNIQUE = 1u << 5,   /* STRING in the rows of a GROUP_LIST: no two groups of the list may
                                  have the same value */
    PD_OPT_QUIET = 1u << 6     /* ALIAS: a second name that is as good as the first, without warning */
};

/* One word of an ENUM or FLAGS row.  Lists end with a NULL name. */
struct pd_option_name {
    const char *name;
    uint64_t value;
};

struct pd_option {
    const char *name;          /* lower case letters, digits and '_'; NULL only in the last row */
    uint32_t type;             /* PD_OPT_T_* */
    uint32_t flags;            /* PD_OPT_REQUIRED ... */
    uint32_t offset;           /* of the member in the filled struct */
    uint32_t width;            /* size of the member */
    const char *def;           /* default as in the file, without quotes; lists: "a, b"; NULL is zero,
                                  false, empty or NULL */
    const char *help;          /* whole sentences for the operator */
    const char *unit;          /* INT, NUMBER: what is counted: "tokens", "blocks"; may be NULL */
    int64_t min;               /* INT, SIZE (bytes), DURATION (ns), lists (members): the least value;
                                  a row that takes negative numbers says so here */
    int64_t max;               /* the greatest; 0 is no limit, for lists 1024 */
    double lo;                 /* NUMBER: as min */
    double hi;                 /* NUMBER: as max */
    const struct pd_option_name *names; /* ENUM, FLAGS */
    const struct pd_option *rows;       /* GROUP, GROUP_LIST: what may stand in the group */
    uint64_t item_size;        /* GROUP, GROUP_LIST: size of the struct that rows fill */
    uint64_t kinds;            /* UNIT, UNIT_MAP: bits PD_KIND_BIT(kind) of module.h */
    const char *alias;         /* ALIAS: today's name */
    uint64_t reserved[3];
};

/* Filled members. */
struct pd_conf_strings {
    const char *const *items;  /* count strings, each ended by a zero byte */
    uint64_t count;
};

struct pd_conf_list {
    const void *items;         /* count structs of `stride` bytes */
    uint64_t count;
    uint64_t stride;
};

/* Where a group stands in the configuration; file is never NULL. */
struct pd_conf_place {
    const char *file;
    uint32_t line;             /* 0: nowhere, all defaults */
    uint32_t reserved;
};

/* A unit chosen by name, and its own options. */
struct pd_conf_unit {
    const char *name;          /* the unit's real name, also when an alias was written; NULL when
                                  the row is optional and was not given */
    const void *unit;          /* the core's handle of the unit */
    const void *conf;          /* the unit's conf_size bytes, filled from its rows */
    const struct pd_option *rows; /* of conf; NULL when the unit has none */
    struct pd_conf_place place;
};

/* The item at index i of a list, as a pointer to its struct type. */
#define PD_CONF_ITEM(list, type, i) \
    ((const type *)(const void *)((const char *)(list)->items + (size_t)(i) * (size_t)(list)->stride))

#define PD_OPT_ROW(key, t, type_, member_, ...) \
    { .name = (key), .type = (t), .offset = (uint32_t)offsetof(type_, member_), \
      .width = (uint32_t)sizeof(((type_ *)0)->member_), __VA_ARGS__ }

/* (key, struct type, member, default as text or NULL, .more = members) */
#define PD_OPT_BOOL(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_BOOL, type_, member_, .def = (default_), __VA_ARGS__)
#define PD_OPT_INT(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_INT, type_, member_, .def = (default_), __VA_ARGS__)
#define PD_OPT_NUMBER(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_NUMBER, type_, member_, .def = (default_), __VA_ARGS__)
#define PD_OPT_STRING(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_STRING, type_, member_, .def = (default_), __VA_ARGS__)
#define PD_OPT_SIZE(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_SIZE, type_, member_, .def = (default_), __VA_ARGS__)
#define PD_OPT_DURATION(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_DURATION, type_, member_, .def = (default_), __VA_ARGS__)
#define PD_OPT_STRING_LIST(key, type_, member_, default_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_STRING_LIST, type_, member_, .def = (default_), __VA_ARGS__)
/* (key, struct type, member, default, array of struct pd_option_name, ...) */
#define PD_OPT_ENUM(key, type_, member_, default_, names_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_ENUM, type_, member_, .def = (default_), .names = (names_), __VA_ARGS__)
#define PD_OPT_FLAGS(key, type_, member_, default_, names_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_FLAGS, type_, member_, .def = (default_), .names = (names_), __VA_ARGS__)
/* (key, struct type, member, rows of the group, struct type of the group, ...);
 * with .flags = PD_OPT_POINTER the member is a pointer to that struct. */
#define PD_OPT_GROUP(key, type_, member_, rows_, group_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_GROUP, type_, member_, .rows = (rows_), .item_size = sizeof(group_), __VA_ARGS__)
#define PD_OPT_GROUP_LIST(key, type_, member_, rows_, group_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_GROUP_LIST, type_, member_, .rows = (rows_), .item_size = sizeof(group_), \
               __VA_ARGS__)
/* (key, struct type, member, kinds, ...); kinds: PD_KIND_BIT(PD_KIND_ENGINE) | ... */
#define PD_OPT_UNIT(key, type_, member_, kinds_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_UNIT, type_, member_, .kinds = (kinds_), __VA_ARGS__)
#define PD_OPT_UNIT_MAP(key, type_, member_, kinds_, ...) \
    PD_OPT_ROW(key, PD_OPT_T_UNIT_MAP, type_, member_, .kinds = (kinds_), __VA_ARGS__)
/* An old name, kept working. */
#define PD_OPT_ALIAS(old_key, new_key) \
    { .name = (old_key), .type = PD_OPT_T_ALIAS, .alias = (new_key) }
/* A second name, for example the one that other programs use. */
#define PD_OPT_SYNONYM(other_key, key) \
    { .name = (other_key), .type = PD_OPT_T_ALIAS, .flags = PD_OPT_QUIET, .alias = (key) }
/* The place of the group in the file, for messages of one's own. */
#define PD_OPT_PLACE(type_, member_) \
    PD_OPT_ROW("", PD_OPT_T_PLACE, type_, member_, .def = NULL)
#define PD_OPT_END { .name = NULL, .type = PD_OPT_T_END }

#ifdef __cplusplus
}
#endif
#endif
