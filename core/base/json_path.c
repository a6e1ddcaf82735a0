/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the tree of the paths of a scan. */
#include "base/json_path.h"

#include "base/compiler.h"
#include "base/mem.h"

const struct pd_json_node pd_json_nowhere = { .parent = UINT16_MAX, .usual = UINT16_MAX, .own = UINT16_MAX - 1,
                                              .element = &pd_json_nowhere, .next = &pd_json_nowhere };

/* The first bytes of a key, its quote and its colon. */
static void put_key(struct pd_json_node *node, struct pd_str key)
{
    char text[16] = { 0 }, mask[16] = { 0 };
    size_t n = PD_MIN(key.n, sizeof text);

    memcpy(text, key.p, n);
    if (n < sizeof text)
        text[n++] = '"';
    if (n < sizeof text && n == key.n + 1)
        text[n++] = ':';
    memset(mask, 0xff, n);
    memcpy(node->word, text, sizeof text);
    memcpy(node->mask, mask, sizeof mask);
    node->key = key.p;
    node->key_n = (uint8_t)key.n;
    node->usual = key.n <= PD_JSON_USUAL_KEY ? node->parent : UINT16_MAX;
}

/* Of a key with less than four bytes what stands behind it counts, too. */
static uint32_t place_of(const struct pd_json_paths *paths, const struct pd_json_node *parent, struct pd_str key)
{
    char text[4] = { 0 };
    uint32_t first;

    memcpy(text, key.p, PD_MIN(key.n, sizeof text));
    if (key.n < sizeof text)
        text[key.n] = '"';
    if (key.n + 1 < sizeof text)
        text[key.n + 1] = ':';
    memcpy(&first, text, sizeof first);
    return pd_json_place(paths, parent, first);
}

const struct pd_json_node *pd_json_below(const struct pd_json_paths *paths,
                                         const struct pd_json_node *parent, struct pd_str key)
{
    const struct pd_json_node *node = paths->table[place_of(paths, parent, key)];

    while (node != &pd_json_nowhere && (node->parent != parent->own || node->key_n != key.n ||
                                        memcmp(node->key, key.p, key.n) != 0))
        node = node->next;
    return node;
}

const struct pd_json_node *pd_json_usual(const struct pd_json_paths *paths, const struct pd_json_node *parent,
                                         const char *p, const char *start, const char *end)
{
    char last[32];
    const char *from = p;

    if (end - p < 16) {
        /* No byte behind the last ones of the document is read. */
        if (end - start < 16)
            return &pd_json_nowhere;
        memcpy(last, end - 16, 16);
        memset(last + 16, 0, 16);
        from = last + 16 - (end - p);
    }
    const struct pd_json_node *node = pd_json_first(paths, parent, from);
    while (node != &pd_json_nowhere && !pd_json_is_usual(node, parent, from))
        node = node->next;
    return node;
}

uint64_t pd_json_families_of(const struct pd_json_paths *paths, struct pd_str key)
{
    uint64_t matched = 0;

    for (uint32_t i = 0; i < paths->n_families; i++) {
        const struct pd_json_family *f = &paths->families[i];
        if (key.n >= f->n && memcmp(f->p, key.p, f->n) == 0)
            matched |= f->path;
    }
    return matched;
}

static struct pd_json_node *add_node(struct pd_json_paths *out, const struct pd_json_node *parent)
{
    struct pd_json_node *node = &out->nodes[out->n_nodes];

    *node = (struct pd_json_node){ .parent = parent != NULL ? parent->own : UINT16_MAX,
                                   .usual = UINT16_MAX,
                                   .own = (uint16_t)out->n_nodes++, .element = &pd_json_nowhere };
    return node;
}

static struct pd_json_node *add_element(struct pd_json_paths *out, struct pd_json_node *parent)
{
    if (parent->element == &pd_json_nowhere)
        parent->element = add_node(out, parent);
    return &out->nodes[parent->element->own];
}

static struct pd_json_node *add_key(struct pd_json_paths *out, struct pd_json_node *parent, struct pd_str key)
{
    const struct pd_json_node *known = pd_json_below(out, parent, key);
    const struct pd_json_node **place = &out->table[place_of(out, parent, key)];

    if (known != &pd_json_nowhere)
        return &out->nodes[known->own];
    struct pd_json_node *node = add_node(out, parent);
    put_key(node, key);
    node->bit = (uint64_t)1 << parent->n_keys++;
    /* Those that are looked for first stand first. */
    while (*place != &pd_json_nowhere && (*place)->usual <= node->usual)
        place = &out->nodes[(*place)->own].next;
    node->next = *place;
    *place = node;
    return node;
}

static void add_family(struct pd_json_paths *out, const char *p, size_t n, uint64_t path)
{
    out->families[out->n_families++] = (struct pd_json_family){ p, n, path };
    out->family_letters |= pd_json_letter(*p);
    out->each |= path;
}

static pd_status add_path(struct pd_json_paths *out, const char *p, uint64_t path)
{
    struct pd_json_node *at = out->nodes;
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
        at->below |= path;
        if (has_key)
            at = add_key(out, at, (struct pd_str){ key, n });
        if (elements != 0)
            out->many |= path;
        for (; elements != 0; elements--) {
            at->below |= path;
            at = add_element(out, at);
        }
        if (*p == '.')
            p++;
        else if (key[0] != '\0' && at->key == NULL)
            out->each |= path;
    }
    at->ends |= path;
    return PD_OK;
}

/* What the scan need not find out each time. */
static void finish(struct pd_json_paths *out, bool is_each)
{
    for (uint32_t i = 0; i < out->n_nodes; i++) {
        struct pd_json_node *node = &out->nodes[i];
        bool is_element = node->key == NULL && i != 0;
        if (node->parent == 0 && node->key != NULL)
            node->ends |= pd_json_families_of(out, (struct pd_str){ node->key, node->key_n });
        /* The root has no member around it. */
        if (i != 0 && node->ends != 0 && (node->ends & (node->ends - 1)) == 0 &&
            (node->ends & (is_each ? out->each : out->each | out->many)) == 0)
            node->slot = (uint8_t)(1 + __builtin_ctzll(node->ends));
        if (is_each && is_element && node->ends != 0 && (node->ends & (node->ends - 1)) == 0)
            node->tells = (uint8_t)(1 + __builtin_ctzll(node->ends));
        if (!is_each || !is_element)
            node->below = 0;
    }
}

pd_status pd_json_paths_fill(struct pd_json_paths *out, const char *const *paths, size_t n, bool is_each)
{
    if (n > PD_JSON_MAX_PATHS)
        return PD_EINVAL;
    memset(out, 0, offsetof(struct pd_json_paths, families));
    uint32_t bits = n <= PD_JSON_FEW_PATHS ? PD_JSON_FEW_BITS : PD_JSON_PLACE_BITS;
    for (uint32_t i = 0; i < 1u << bits; i++)
        out->table[i] = &pd_json_nowhere;
    out->n = n;
    out->shift = 32 - bits;
    (void)add_node(out, NULL);
    for (size_t i = 0; i < n; i++)
        if (add_path(out, paths[i], (uint64_t)1 << i) != PD_OK)
            return PD_EINVAL;
    finish(out, is_each);
    return PD_OK;
}

pd_status pd_json_paths_create(const char *const *paths, size_t n, struct pd_json_paths **out)
{
    struct pd_json_paths *made = pd_alloc(sizeof *made);
    if (made == NULL)
        return PD_ENOMEM;
    pd_status status = pd_json_paths_fill(made, paths, n, true);
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
