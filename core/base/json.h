/* SPDX-License-Identifier: Apache-2.0 */
/* JSON without a tree: one pass checks a whole document (RFC 8259, strict) and
 * reports where the few wanted values stand; getters read such values; splicing
 * replaces, adds and removes members and leaves every other byte as it came.
 * Values borrow from the document.  All functions: any thread. */
#ifndef PD_BASE_JSON_H
#define PD_BASE_JSON_H

#include <pdplane/json.h>

#include "base/arena.h"
#include "base/buf.h"

#define PD_JSON_MAX_EDITS 64

/* Checks the whole document and fills values[i] for paths[i] (type PD_JSON_NONE
 * when absent).  A path is made of keys with dots between: "model",
 * "stream_options.include_usage"; "" is the root; "[]" stands for any element
 * of an array ("messages[].role") and its value is the first one found.
 * "remote_*" stands for any key of the root that begins so; it may only be a path
 * of its own, and its value is the first one found.
 * A key on a path that stands twice in one object is refused, at each level.
 * Keys are compared after decoding their escapes.
 * limits and error may be NULL.  PD_OK; PD_EPROTO: not valid JSON; PD_EEXIST:
 * duplicate key; PD_ELIMIT: too deep or too many keys; PD_EINVAL: paths wrong.
 * values holds nothing useful after an error. */
pd_status pd_json_scan(struct pd_str doc, const struct pd_json_limits *limits,
                       const char *const *paths, size_t n_paths, struct pd_json_value *values,
                       struct pd_json_error *error);

/* The same with paths that are compiled once, for documents that come often; bit i
 * of *found tells that values[i] was, and the values of the others mean nothing.
 * each (may be NULL) is called for every value of a path that ends with "[]" or "*", in
 * the order in which values end; after an error it may have been called for values
 * before it.  With it a value of a path that goes on below an element belongs to the
 * last one that began: when each is called for an element, bits in `found` and values[]
 * tell what is in that one. */
struct pd_json_paths;
typedef void (*pd_json_each_cb)(void *arg, size_t path, const struct pd_json_value *value, uint64_t found);
/* The strings are borrowed.  PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: pd_json_paths_destroy. */
pd_status pd_json_paths_create(const char *const *paths, size_t n, struct pd_json_paths **out);
void pd_json_paths_destroy(struct pd_json_paths *paths);
pd_status pd_json_scan_paths(struct pd_str doc, const struct pd_json_limits *limits,
                             const struct pd_json_paths *paths, struct pd_json_value *values,
                             uint64_t *found, pd_json_each_cb each, void *arg,
                             struct pd_json_error *error);

/* The type that the first byte of a value tells. */
enum pd_json_type pd_json_type_of(struct pd_str text);
/* "null", "boolean", "number", "string", "array", "object", "nothing". */
const char *pd_json_type_name(enum pd_json_type type);

/* Getters on values of a checked document: PD_OK; PD_ENOENT when the value is
 * absent; PD_EINVAL when it has another type; PD_ELIMIT when the number does
 * not fit.  Integers must be written without fraction and exponent. */
pd_status pd_json_get_bool(const struct pd_json_value *v, bool *out);
pd_status pd_json_get_i64(const struct pd_json_value *v, int64_t *out);
pd_status pd_json_get_u64(const struct pd_json_value *v, uint64_t *out);
pd_status pd_json_get_double(const struct pd_json_value *v, double *out);
/* Appends the decoded string; also PD_ENOMEM, and PD_ELIMIT of the buffer. */
pd_status pd_json_get_buf(const struct pd_json_value *v, struct pd_buf *out);
/* The decoded string: borrowed from the document when it has no escapes, else
 * from the arena; also PD_ENOMEM. */
pd_status pd_json_get_str(const struct pd_json_value *v, struct pd_arena *a, struct pd_str *out);
/* Copies the decoded string with a zero byte behind it; PD_ELIMIT when it does
 * not fit, PD_EINVAL when it contains a zero byte. */
pd_status pd_json_get_cstr(const struct pd_json_value *v, char *out, size_t size);
/* Whether the value is a string that decodes to s. */
bool pd_json_is_str(const struct pd_json_value *v, const char *s);

/* PD_OK, PD_ENOENT, PD_EINVAL when v is neither array nor object. */
pd_status pd_json_iter_init(struct pd_json_iter *it, const struct pd_json_value *v);
/* False at the end.  key (may be NULL) gets the key as a string value; for
 * arrays it is absent. */
bool pd_json_iter_next(struct pd_json_iter *it, struct pd_json_value *key,
                       struct pd_json_value *value);
/* Elements or members; 0 for other types. */
size_t pd_json_count(const struct pd_json_value *v);
/* The first member with that key; PD_OK, PD_ENOENT, PD_EINVAL (no object). */
pd_status pd_json_find(const struct pd_json_value *object, const char *key,
                       struct pd_json_value *out);

enum pd_json_op {
    PD_JSON_SET,            /* replace value; when absent, add key to object */
    PD_JSON_REMOVE          /* remove the member; nothing when it is absent */
};

struct pd_json_edit {
    enum pd_json_op op;
    const struct pd_json_value *value;   /* as scanned */
    const struct pd_json_value *object;  /* SET: where an absent member goes */
    const char *key;                     /* SET: its key, needs no escapes */
    struct pd_str text;                  /* SET: the JSON of the new value */
};

/* The document with the edits (in any order) as a list of runs that borrow from
 * doc, edits' texts and keys.  *n_iov: places in iov, then runs used; 6 per
 * edit and one more are always enough.  *bytes (may be NULL): sum of lengths.
 * PD_OK; PD_EINVAL: edits overlap, or an object is missing; PD_ELIMIT: too many
 * edits or too few places. */
pd_status pd_json_splice(struct pd_str doc, const struct pd_json_edit *edits, size_t n_edits,
                         struct pd_iov *iov, size_t *n_iov, size_t *bytes);
/* The same appended to a buffer; also PD_ENOMEM. */
pd_status pd_json_splice_buf(struct pd_str doc, const struct pd_json_edit *edits, size_t n_edits,
                             struct pd_buf *out);

/* Append to a buffer; return what the buffer returns.  Strings get quotes and
 * escapes; bytes that are not UTF-8 become U+FFFD.  A double that is not finite
 * becomes null. */
pd_status pd_json_put_str(struct pd_buf *b, struct pd_str s);
pd_status pd_json_put_cstr(struct pd_buf *b, const char *s);
pd_status pd_json_put_i64(struct pd_buf *b, int64_t v);
pd_status pd_json_put_u64(struct pd_buf *b, uint64_t v);
pd_status pd_json_put_double(struct pd_buf *b, double v);
pd_status pd_json_put_bool(struct pd_buf *b, bool v);
/* The escaped content without quotes, for a string that comes in parts; parts
 * must not split characters. */
pd_status pd_json_put_escaped(struct pd_buf *b, struct pd_str s);

/* Writes nested JSON with the commas in place.  key is NULL inside arrays and
 * at the root.  Failures stay in the buffer's status. */
struct pd_json_writer {
    struct pd_buf *buf;     /* borrowed */
    uint32_t depth;
    bool need_comma;
    bool is_array[64];
};

void pd_json_writer_init(struct pd_json_writer *w, struct pd_buf *buf);
void pd_json_begin_object(struct pd_json_writer *w, const char *key);
void pd_json_begin_array(struct pd_json_writer *w, const char *key);
void pd_json_end(struct pd_json_writer *w);
void pd_json_add_str(struct pd_json_writer *w, const char *key, struct pd_str v);
void pd_json_add_cstr(struct pd_json_writer *w, const char *key, const char *v);
void pd_json_addf(struct pd_json_writer *w, const char *key, const char *fmt, ...)
    PD_PRINTF(3, 4);
void pd_json_add_u64(struct pd_json_writer *w, const char *key, uint64_t v);
void pd_json_add_i64(struct pd_json_writer *w, const char *key, int64_t v);
void pd_json_add_double(struct pd_json_writer *w, const char *key, double v);
void pd_json_add_bool(struct pd_json_writer *w, const char *key, bool v);
void pd_json_add_null(struct pd_json_writer *w, const char *key);
/* text is JSON already. */
void pd_json_add_raw(struct pd_json_writer *w, const char *key, struct pd_str text);

/* The table of <pdplane/json.h>. */
const struct pd_json_api *pd_json_functions(void);

#endif
