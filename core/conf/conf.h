/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration generation: the text of one configuration file and all that
 * it includes, checked against option rows and filled into structs.  Immutable
 * once filled, counted references, everything in one arena.
 *
 * Steps:  pd_conf_open    reads and parses, knows no option
 *         pd_conf_peek    fills single top level rows, for what must be known
 *                         early (which modules to load)
 *         pd_conf_fill    checks and fills everything
 * Errors go to a report; each function goes on as long as it can, so that one
 * run shows as many of them as possible.
 *
 * Reading happens on the main or loop thread; get and put from any thread. */
#ifndef PD_CONF_CONF_H
#define PD_CONF_CONF_H

#include <stdio.h>

#include <pdplane/conf.h>

#include "conf/report.h"

struct pd_conf;

/* Where a configuration finds the outer world.  All members may be NULL. */
struct pd_conf_source {
    const char *prefix;         /* folder for relative paths in options; NULL: the folder of the
                                   configuration file */
    const char *(*env)(void *arg, const char *name); /* NULL: the process's environment */
    void *arg;
};

/* A unit of a loaded module, as rows see it. */
struct pd_conf_found {
    const char *name;
    const struct pd_option *rows;
    uint64_t conf_size;
    const void *unit;           /* goes into struct pd_conf_unit */
    pd_status (*check)(const void *conf, struct pd_err *err);
};

/* Who knows the units of loaded modules (core/mod gives one). */
struct pd_conf_resolver {
    /* PD_OK, or PD_ENOENT with err (text and hint) filled; an empty text: the
     * reason stands in the report already. */
    pd_status (*find)(void *arg, uint64_t kinds, const char *name, struct pd_conf_found *out,
                      struct pd_err *err);
    /* The index-th unit of these kinds in the order of loading; false at the end. */
    bool (*each)(void *arg, uint64_t kinds, size_t index, struct pd_conf_found *out);
    void *arg;
};

/* Reads path, its @include lines and the files that its `include` setting
 * names.  Gives: pd_conf_put.  PD_OK, or an error and the report says why.
 * src may be NULL; it is borrowed until fill has returned. */
pd_status pd_conf_open(const char *path, const struct pd_conf_source *src, struct pd_conf_report *report,
                       struct pd_conf **out);
/* The same for a text in memory; name stands for the file in messages. */
pd_status pd_conf_open_text(const char *name, struct pd_str text, const struct pd_conf_source *src,
                            struct pd_conf_report *report, struct pd_conf **out);

/* Fills one top level row into base; its errors are reported by fill again
 * only if the caller hands another report to it.  Types with units in them are
 * refused with PD_EINVAL. */
pd_status pd_conf_peek(struct pd_conf *conf, const struct pd_option *row, void *base,
                       struct pd_conf_report *report);
/* Checks everything against rows and fills a struct of `size` zero bytes, which
 * pd_conf_root then gives.  rows are borrowed as long as conf
 * lives, resolver during the call; it may be NULL when rows name no units.  Once per conf. */
pd_status pd_conf_fill(struct pd_conf *conf, const struct pd_option *rows, size_t size,
                       const struct pd_conf_resolver *resolver, struct pd_conf_report *report);

/* The filled struct; NULL before fill succeeded. */
const void *pd_conf_root(const struct pd_conf *conf);
/* The main file's name as given to open. */
const char *pd_conf_file(const struct pd_conf *conf);
/* Every file that was read, in order; NULL at the end. */
const char *pd_conf_file_at(const struct pd_conf *conf, size_t index);
/* Where the member at this address got its value from; line 0: a default. */
struct pd_conf_place pd_conf_where(const struct pd_conf *conf, const void *member);

/* Where member `index` of the list under a top level key stands; line 0: there
 * is no such member. */
struct pd_conf_place pd_conf_item_place(const struct pd_conf *conf, const char *key, uint64_t index);

/* One more reference; returns conf. */
struct pd_conf *pd_conf_get(struct pd_conf *conf);
/* One less; the last one frees, and wipes secrets.  NULL is allowed. */
void pd_conf_put(struct pd_conf *conf);

/* The effective configuration as text that can be read back: every value with
 * where it came from.  Secrets stand as the reference that was written.
 * PD_OK, PD_ENOMEM (a line is incomplete), PD_EINVAL (nothing was filled). */
pd_status pd_conf_dump(const struct pd_conf *conf, FILE *out);

/* Whether two filled structs of the same rows hold the same values (places do
 * not count): whether a reload may keep what was built from them. */
bool pd_conf_equal(const struct pd_option *rows, const void *a, const void *b);

enum { PD_CONF_REF_TEXT = 0, PD_CONF_REF_MDOC = 1 };
/* The reference of rows: name, type, default, limits, help; nested rows with
 * their path. */
void pd_conf_reference(const struct pd_option *rows, uint32_t format, FILE *out);

/* Whether rows are sane: names legal and unique, member widths fit types,
 * defaults parse and are in range, every row has help.  conf_size: of the
 * struct.  PD_OK, or PD_EINVAL and err names the row. */
pd_status pd_conf_rows_check(const struct pd_option *rows, uint64_t conf_size, struct pd_err *err);

#endif
