/* SPDX-License-Identifier: Apache-2.0 */
/* One description of data, two forms: tables for people, or one JSON document
 * for programs.  Who shows something names its parts once:
 *
 *     static const struct pd_view_column columns[] = {
 *         { "name", "NAME", 0 }, { "rtt_seconds", "RTT", PD_VIEW_RIGHT }, { NULL, NULL, 0 } };
 *     pd_view_table(v, "nodes", NULL, columns, "no nodes");
 *     pd_view_row(v);
 *     pd_view_str(v, name);
 *     pd_view_duration(v, rtt);
 *     pd_view_end(v);
 *
 * In text, columns are aligned, sizes and times are rounded and carry units, and
 * bytes that could upset a terminal are replaced.  In JSON, keys are stable and
 * numbers are numbers in base units: seconds, bytes, counts.  Failures (no
 * memory, too long) stay in the buffer's status.  One thread at a time. */
#ifndef PD_BASE_VIEW_H
#define PD_BASE_VIEW_H

#include "base/json.h"

#define PD_VIEW_COLUMNS_MAX 32u
#define PD_VIEW_CELL_MAX 160u   /* bytes of one cell in text; longer ones are cut */

enum pd_view_format { PD_VIEW_TEXT = 0, PD_VIEW_JSON = 1 };

enum {
    PD_VIEW_RIGHT = 1u << 0,    /* numbers: aligned to the right */
    PD_VIEW_WIDE = 1u << 1,     /* text may be longer than usual and is not cut */
    PD_VIEW_SPARSE = 1u << 2    /* left out of text when no row has a value */
};

/* Ends with key NULL and title NULL. */
struct pd_view_column {
    const char *key;            /* NULL: not in JSON */
    const char *title;          /* NULL: not in text */
    uint32_t flags;             /* PD_VIEW_* */
};

struct pd_view {
    struct pd_buf *out;         /* borrowed */
    bool is_json;
    struct pd_json_writer json; /* may be written to directly between values, when is_json */
    /* private */
    pd_status status;           /* of the tables before */
    struct pd_buf cells;        /* of the open table: texts, each with a zero byte behind it */
    const struct pd_view_column *columns;
    const char *heading;
    const char *empty;
    uint32_t column;            /* next */
    uint32_t rows;
    bool is_object;             /* an object: cells are titles and values in turn */
    bool row_open;
    bool has_text;              /* something stands above: leave a line free */
    struct pd_view_column field;
    uint32_t width[PD_VIEW_COLUMNS_MAX];
    uint32_t filled;            /* columns, as bits, in which some cell is not "-" */
};

/* Begins a document in out, which is borrowed until pd_view_fini. */
void pd_view_init(struct pd_view *v, enum pd_view_format format, struct pd_buf *out);
/* Ends it with a line feed; PD_OK or the first failure. */
pd_status pd_view_fini(struct pd_view *v);

/* A table: in JSON the array `key`.  heading: a line above it in text, or NULL;
 * empty: what text says instead of a table without rows.  Borrowed to the end. */
void pd_view_table(struct pd_view *v, const char *key, const char *heading,
                   const struct pd_view_column *columns, const char *empty);
/* The next row; its cells follow, one value for each column in their order. */
void pd_view_row(struct pd_view *v);
/* An object: in JSON the member `key`, in text lines of title and value. */
void pd_view_object(struct pd_view *v, const char *key, const char *heading);
/* The next value of an object is this; key or title may be NULL as in a column. */
void pd_view_field(struct pd_view *v, const char *key, const char *title);
/* The end of a table or object. */
void pd_view_end(struct pd_view *v);
/* A line of text alone; nothing in JSON. */
void pd_view_line(struct pd_view *v, const char *fmt, ...) PD_PRINTF(2, 3);

/* Values. */
void pd_view_none(struct pd_view *v);                       /* "-", null */
void pd_view_str(struct pd_view *v, const char *s);         /* empty: "-", "" */
void pd_view_pdstr(struct pd_view *v, struct pd_str s);
void pd_view_format(struct pd_view *v, const char *fmt, ...) PD_PRINTF(2, 3);
void pd_view_count(struct pd_view *v, uint64_t n);
void pd_view_number(struct pd_view *v, double x);           /* three digits behind the point */
void pd_view_bool(struct pd_view *v, bool b);               /* "yes", true */
void pd_view_bytes(struct pd_view *v, uint64_t n);          /* "1.5 MiB", 1572864 */
void pd_view_rate(struct pd_view *v, uint64_t n);           /* "1.5 MiB/s"; 0: unknown */
void pd_view_duration(struct pd_view *v, pd_time ns);       /* "2.5 ms", 0.0025; never: none */
/* Names for the bits of a set: "prefill,decode", ["prefill","decode"].  names
 * end with NULL; name i stands for bit i. */
void pd_view_set(struct pd_view *v, uint64_t bits, const char *const *names);

#endif
