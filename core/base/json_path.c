/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the tree of the paths of a scan. */
#include "base/json_path.h"

#include "base/mem.h"

#include <string.h>

static uint32_t add_node(struct pd_json_paths *out, uint32_t parent)
{
    uint32_t own = out->n_nodes++;

    out->nodes[own] = (struct pd_json_node){ .parent = (uint16_t)parent, .own = (uint16_t)own };
    return own;
}

static uint32_t add_element(struct pd_json_paths *out, uint32_t parent)
{
    if (out->nodes[parent].element == 0) {
        uint32_t made = add_node(out, parent);
        out->nodes[parent].element = (uint16_t)made;
    }
    return out->nodes[parent].element;
}

static uint32_t add_key(struct pd_json_paths *out, uint32_t parent, struct pd_str key)
{
    const struct pd_json_node *known = pd_json_below(out, &out->nodes[parent], key);
    uint16_t *place = &out->table[pd_json_place(parent, key.p, key.n)];

    if (known != NULL)
        return (uint32_t)(known - out->nodes);
    uint32_t made = add_node(out, parent);
    struct pd_json_node *node = &out->nodes[made];
    node->key = key.p;
    node->key_n = (uint8_t)key.n;
    node->rank = out->nodes[parent].n_keys++;
    node->next = *place;
    *place = (uint16_t)made;
    return made;
}

static void add_family(struct pd_json_paths *out, const char *p, size_t n, uint64_t path)
{
    out->families[out->n_families++] = (struct pd_json_family){ p, n, path };
    out->family_letters |= 1u << pd_json_letter(p);
    out->many |= path;
}

static pd_status add_path(struct pd_json_paths *out, const char *p, uint64_t path)
{
    uint32_t at = 0;
    size_t segments = 0;

    while (*p != '\0') {
        const char *key = p;
        size_t elements = 0;
        while (*p != '\0' && *p != '.')
            p++;
        size_t n = (size_t)(p - key);
        while (n >= 2 && key[n - 1] == ']' && key[n - 2] == '[') {
            n -= 2;
            elements++;
        }
        bool has_key = n != 0 || elements == 0;
        segments += elements + has_key;
        if (segments > PD_JSON_MAX_SEGMENTS || n > PD_JSON_SEGMENT)
            return PD_EINVAL;
        if (n > 1 && key[n - 1] == '*') {
            if (segments > 1 || *p != '\0')
                return PD_EINVAL;
            add_family(out, key, n - 1, path);
            return PD_OK;
        }
        if (has_key)
            at = add_key(out, at, (struct pd_str){ key, n });
        if (elements != 0)
            out->many |= path;
        for (; elements != 0; elements--)
            at = add_element(out, at);
        if (*p == '.')
            p++;
    }
    out->nodes[at].ends |= path;
    return PD_OK;
}

pd_status pd_json_paths_fill(struct pd_json_paths *out, const char *const *paths, size_t n)
{
    if (n > PD_JSON_MAX_PATHS)
        return PD_EINVAL;
    memset(out, 0, offsetof(struct pd_json_paths, families));
    memset(out->table, 0, sizeof out->table);
    out->n = n;
    (void)add_node(out, 0);
    for (size_t i = 0; i < n; i++)
        if (add_path(out, paths[i], (uint64_t)1 << i) != PD_OK)
            return PD_EINVAL;
    return PD_OK;
}

pd_status pd_json_paths_create(const char *const *paths, size_t n, struct pd_json_paths **out)
{
    struct pd_json_paths *made = pd_alloc(sizeof *made);
    if (made == NULL)
        return PD_ENOMEM;
    pd_status status = pd_json_paths_fill(made, paths, n);
    if (status != PD_OK) {
        pd_free(made);
        return status;
    }
    *out = made;
    return PD_OK;
}

void pd_json_paths_destroy(struct pd_json_paths *paths)
{
    pd_free(paths);
}
