/* SPDX-License-Identifier: Apache-2.0 */
/* The paths of a scan as a tree that is walked along with the document; private
 * to the scan.  All segments at one place are one node, so a key is looked up
 * once however many paths go on with it. */
#ifndef PD_BASE_JSON_PATH_H
#define PD_BASE_JSON_PATH_H

#include "base/json.h"

#define PD_JSON_SEGMENT 128     /* longest key on a path */
#define PD_JSON_NODES (PD_JSON_MAX_PATHS * PD_JSON_MAX_SEGMENTS + 1)
#define PD_JSON_PLACES 256u

struct pd_json_node {
    uint64_t ends;              /* paths whose value stands here */
    const char *key;
    uint16_t element;           /* the node of "[]" below this one; 0: none */
    uint16_t next;              /* in the same place of the table; 0: none */
    uint16_t parent, own;       /* numbers of the one above and of this one */
    uint8_t key_n;
    uint8_t rank;               /* among the keys of its parent */
    uint8_t n_keys;             /* below it */
};

/* "remote_*": any key of the root that begins so. */
struct pd_json_family {
    const char *p;
    size_t n;
    uint64_t path;
};

struct pd_json_paths {
    size_t n;
    uint64_t many;              /* paths with an element on them, and families */
    uint32_t n_nodes;
    uint32_t n_families;
    uint32_t family_letters;    /* bits of the letters that they begin with */
    struct pd_json_family families[PD_JSON_MAX_PATHS];
    uint16_t table[PD_JSON_PLACES];             /* of keys, by their place */
    struct pd_json_node nodes[PD_JSON_NODES];   /* the first one is the root */
};

/* For paths that the caller has the memory of.  PD_OK, PD_EINVAL. */
pd_status pd_json_paths_fill(struct pd_json_paths *out, const char *const *paths, size_t n);

static inline uint32_t pd_json_letter(const char *p)
{
    return (unsigned char)p[0] % 32;
}

/* Where in the table a key below that node is. */
static inline uint32_t pd_json_place(uint32_t parent, const char *p, size_t n)
{
    uint32_t h = parent * 37 + (uint32_t)n * 4;

    if (n > 0)
        h += (unsigned char)p[0] + 8u * (unsigned char)p[n - 1];
    return h % PD_JSON_PLACES;
}

/* memcmp(a, b, n) == 0 without a call where n is small; the words at both ends of
 * longer ones overlap. */
static inline bool pd_json_same(const char *a, const char *b, size_t n)
{
    uint64_t a0, a1, b0, b1;
    uint32_t c0, c1, d0, d1;

    if (n > 16)
        return memcmp(a, b, n) == 0;
    if (n >= 8) {
        memcpy(&a0, a, 8);
        memcpy(&b0, b, 8);
        memcpy(&a1, a + n - 8, 8);
        memcpy(&b1, b + n - 8, 8);
        return ((a0 ^ b0) | (a1 ^ b1)) == 0;
    }
    if (n >= 4) {
        memcpy(&c0, a, 4);
        memcpy(&d0, b, 4);
        memcpy(&c1, a + n - 4, 4);
        memcpy(&d1, b + n - 4, 4);
        return ((c0 ^ d0) | (c1 ^ d1)) == 0;
    }
    return n == 0 || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
}

/* The node of that key below `parent`, or NULL. */
static inline const struct pd_json_node *pd_json_below(const struct pd_json_paths *paths,
                                                       const struct pd_json_node *parent,
                                                       struct pd_str key)
{
    uint32_t i = paths->table[pd_json_place(parent->own, key.p, key.n)];

    while (i != 0) {
        const struct pd_json_node *node = &paths->nodes[i];
        if (node->parent == parent->own && node->key_n == key.n &&
            pd_json_same(node->key, key.p, key.n))
            return node;
        i = node->next;
    }
    return NULL;
}

#endif
