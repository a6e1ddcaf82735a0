/* SPDX-License-Identifier: Apache-2.0 */
/* Reading JSON: one pass checks a whole document (RFC 8259, strict) and reports
 * where the wanted values stand; getters read such values.  No tree is built:
 * values borrow from the document.  Second tier: bound to the exact version of
 * pdplane.
 *
 *     const struct pd_json_api *json = pd_host()->table(host, PD_JSON_TABLE, PD_JSON_VERSION);
 *
 *     static const char *const paths[] = { "kind", "items" };
 *     struct pd_json_value v[2], item;
 *     struct pd_json_iter it;
 *     if (json->scan(doc, NULL, paths, 2, v, &error) == PD_OK &&
 *         json->iter_init(&it, &v[1]) == PD_OK)
 *         while (json->iter_next(&it, NULL, &item))
 *             ...
 *
 * All functions: any thread. */
#ifndef PDPLANE_JSON_H
#define PDPLANE_JSON_H

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_JSON_TABLE "json"
#define PD_JSON_VERSION 1u

#define PD_JSON_MAX_DEPTH 256   /* hard bounds of the scanner */
#define PD_JSON_MAX_PATHS 64
#define PD_JSON_MAX_SEGMENTS 8

enum pd_json_type {
    PD_JSON_NONE = 0,       /* absent */
    PD_JSON_NULL,
    PD_JSON_BOOL,
    PD_JSON_NUMBER,
    PD_JSON_STRING,
    PD_JSON_ARRAY,
    PD_JSON_OBJECT
};

struct pd_json_value {
    enum pd_json_type type;
    bool is_plain;          /* a string that is known to have no escapes */
    struct pd_str text;     /* its bytes; of a string with the quotes */
    struct pd_str member;   /* from the key's first quote to the value's end;
                               empty for the root and for array elements */
};

struct pd_json_limits {
    uint32_t depth;         /* open arrays and objects, 0: 64 */
    uint32_t keys;          /* members of one object, 0: 4096 */
};

struct pd_json_error {
    pd_status status;       /* as returned */
    size_t offset;          /* bytes from the start of the document */
    uint32_t line;          /* from 1 */
    uint32_t column;        /* from 1, in bytes */
    char text[160];         /* "expected ... ", one sentence without full stop */
};

/* Elements of an array or members of an object, of a checked document. */
struct pd_json_iter {
    const char *p;
    const char *end;
    bool is_object;
};

struct pd_json_api {
    uint32_t size;
    uint32_t version;           /* PD_JSON_VERSION */

    /* Checks the whole document and fills values[i] for paths[i] (type
     * PD_JSON_NONE when absent).  A path is made of keys with dots between,
     * "a.b"; "" is the root; "[]" stands for the first element of an array that
     * has the rest of the path ("items[].name").  A key on a path that stands
     * twice in one object is refused.  limits and error may be NULL.  PD_OK;
     * PD_EPROTO: not valid JSON; PD_EEXIST: duplicate key; PD_ELIMIT: too deep or
     * too many keys; PD_EINVAL: paths wrong. */
    pd_status (*scan)(struct pd_str doc, const struct pd_json_limits *limits, const char *const *paths,
                      size_t n_paths, struct pd_json_value *values, struct pd_json_error *error);

    /* Walks the elements of an array or the members of an object of a checked
     * document.  PD_OK; PD_ENOENT: absent; PD_EINVAL: neither. */
    pd_status (*iter_init)(struct pd_json_iter *it, const struct pd_json_value *value);
    /* False at the end.  key (may be NULL) gets the key as a string value. */
    bool (*iter_next)(struct pd_json_iter *it, struct pd_json_value *key, struct pd_json_value *value);
    /* The first member with that key; PD_OK, PD_ENOENT, PD_EINVAL (no object). */
    pd_status (*find)(const struct pd_json_value *object, const char *key, struct pd_json_value *out);
    /* Elements or members; 0 for other types. */
    size_t (*count)(const struct pd_json_value *value);

    /* PD_OK; PD_ENOENT: absent; PD_EINVAL: another type, or a zero byte in the
     * string; PD_ELIMIT: does not fit. */
    pd_status (*get_bool)(const struct pd_json_value *value, bool *out);
    pd_status (*get_u64)(const struct pd_json_value *value, uint64_t *out);
    pd_status (*get_i64)(const struct pd_json_value *value, int64_t *out);
    pd_status (*get_double)(const struct pd_json_value *value, double *out);
    /* Decoded, with a zero byte behind it. */
    pd_status (*get_cstr)(const struct pd_json_value *value, char *out, size_t size);
    /* Whether the value is a string that decodes to s. */
    bool (*is_str)(const struct pd_json_value *value, const char *s);
};

#ifdef __cplusplus
}
#endif
#endif
