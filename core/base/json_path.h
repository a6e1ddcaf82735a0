/* SPDX-License-Identifier: Apache-2.0 */
/* The paths of a scan as a tree that is walked along with the document; private
 * to the scan.  All segments at one place are one node, so a key is looked up
 * once however many paths go on with it. */
#ifndef PD_BASE_JSON_PATH_H
#define PD_BASE_JSON_PATH_H

#include "base/json.h"

#include <string.h>

#define PD_JSON_SEGMENT 128     /* longest key on a path */
#define PD_JSON_NODES (PD_JSON_MAX_PATHS * PD_JSON_MAX_SEGMENTS + 1)
#define PD_JSON_PLACE_BITS 8    /* of the table; few paths are content with less */
#define PD_JSON_FEW_PATHS 8
#define PD_JSON_FEW_BITS 5

struct pd_json_node {
    uint64_t word[2], mask[2];  /* as most documents write the key: key":  */
    uint64_t ends;              /* paths whose value stands here */
    uint64_t bit;               /* among the keys of its parent */
    uint64_t below;             /* of an element: paths whose values begin anew with each */
    const struct pd_json_node *element; /* of "[]" below this one, or pd_json_nowhere */
    const struct pd_json_node *next;    /* in the same place of the table */
    const char *key;
    uint16_t parent, own;       /* numbers of the one above and of this one */
    uint16_t usual;             /* parent, when the words hold all of the key; else no node's */
    uint8_t key_n;
    uint8_t n_keys;             /* below it */
    uint8_t slot;               /* 1 + the one path that ends here, when it does so at most
                                   once at a time; else 0 */
    uint8_t tells;              /* 1 + the one path that ends here with an element; else 0 */
};

/* Of values that are on no path. */
extern const struct pd_json_node pd_json_nowhere;

/* "remote_*": any key of the root that begins so. */
struct pd_json_family {
    const char *p;
    size_t n;
    uint64_t path;
};

struct pd_json_paths {
    size_t n;
    uint64_t each;              /* paths that end with an element, and families */
    uint64_t many;              /* paths with an element on them */
    uint32_t n_nodes;
    uint32_t n_families;
    uint32_t shift;             /* leaves as many bits as the table has */
    uint32_t family_letters;    /* bits of the letters that they begin with */
    struct pd_json_family families[PD_JSON_MAX_PATHS];
    const struct pd_json_node *table[1u << PD_JSON_PLACE_BITS];   /* of keys, by their place */
    struct pd_json_node nodes[PD_JSON_NODES];   /* the first one is the root */
};

/* For paths that the caller has the memory of.  is_each: a value below an element is
 * that of the last one, and not of the first that has it.  PD_OK, PD_EINVAL. */
pd_status pd_json_paths_fill(struct pd_json_paths *out, const char *const *paths, size_t n, bool is_each);

/* The paths of families that a key of the root belongs to. */
uint64_t pd_json_families_of(const struct pd_json_paths *paths, struct pd_str key);
/* The bit of the letter that one may begin with. */
static inline uint32_t pd_json_letter(char c)
{
    return 1u << (unsigned char)c % 32;
}

/* Where in the table a key below that node is; first: its first bytes, with the
 * quote and the colon behind it when it has less. */
static inline uint32_t pd_json_place(const struct pd_json_paths *paths, const struct pd_json_node *parent,
                                     uint32_t first)
{
    /* A factor with which few keys of a request share a place. */
    return (first + parent->own) * 0xc3910c83u >> paths->shift;
}

/* The node of that key below `parent`, or pd_json_nowhere. */
const struct pd_json_node *pd_json_below(const struct pd_json_paths *paths,
                                         const struct pd_json_node *parent, struct pd_str key);

#define PD_JSON_USUAL_KEY 14    /* bytes of a key whose quote and colon are in the words, too */
/* From the first quote of such a key to the byte behind its colon, at least. */
#define PD_JSON_USUAL (PD_JSON_USUAL_KEY + 4)

/* Whether the key whose first quote stands before p is that of this node, below
 * `parent`, and written without escapes and with its colon right behind it.  Such a key is
 * known to be plain, so nobody needs to look at its bytes. */
static inline bool pd_json_is_usual(const struct pd_json_node *node, const struct pd_json_node *parent,
                                    const char *p)
{
    uint64_t word[2];

    memcpy(word, p, sizeof word);
    return (((word[0] ^ node->word[0]) & node->mask[0]) | ((word[1] ^ node->word[1]) & node->mask[1])) == 0 &&
           node->usual == parent->own;
}

/* The first node in the place of the key whose first quote stands before p. */
static inline const struct pd_json_node *pd_json_first(const struct pd_json_paths *paths,
                                                       const struct pd_json_node *parent, const char *p)
{
    uint32_t first;

    memcpy(&first, p, sizeof first);
    return paths->table[pd_json_place(paths, parent, first)];
}

/* The node of a usual key with its first quote before p, wherever it stands; else
 * pd_json_nowhere.  start: of the document. */
const struct pd_json_node *pd_json_usual(const struct pd_json_paths *paths, const struct pd_json_node *parent,
                                         const char *p, const char *start, const char *end);

#endif
