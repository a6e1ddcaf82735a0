/* SPDX-License-Identifier: Apache-2.0 */
/* The form of a discovery file: JSON, an object with the lists "endpoints" and
 * "peers".  Whatever is not understood is a mistake, so that one in spelling
 * takes no server out of use; a file with a mistake is not used at all.  The
 * members name, namespace, address, port and labels are those of llm-d's files. */
#include "file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/scheduler.h>

#define CHUNK_BYTES 65536u

struct file_chunk {
    struct file_chunk *next;
    size_t used, size;
    char bytes[];
};

struct parse {
    const struct pd_json_api *json;
    const char *path;
    struct pd_str doc;
    struct file_set *set;
    char *why;
    size_t why_size;
};

/* ---- memory and messages ------------------------------------------------------------------ */

static void *take(struct file_set *set, size_t n)
{
    struct file_chunk *c = set->chunks;
    n = (n + 15) / 16 * 16;
    if (c == NULL || c->size - c->used < n) {
        size_t size = n > CHUNK_BYTES ? n : CHUNK_BYTES;
        c = malloc(sizeof *c + size);
        if (c == NULL)
            return NULL;
        *c = (struct file_chunk){ .next = set->chunks, .size = size };
        set->chunks = c;
    }
    c->used += n;
    return c->bytes + c->used - n;
}

void file_set_clear(struct file_set *set)
{
    while (set->chunks != NULL) {
        struct file_chunk *next = set->chunks->next;
        free(set->chunks);
        set->chunks = next;
    }
    free(set->entries);
    memset(set, 0, sizeof *set);
}

static pd_status no_memory(struct parse *p)
{
    snprintf(p->why, p->why_size, "%s: out of memory", p->path);
    return PD_ENOMEM;
}

/* at: where in the document. */
static pd_status PD_PRINTF(3, 4) wrong(struct parse *p, struct pd_str at, const char *fmt, ...)
{
    char text[256];
    uint32_t line = 1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (const char *c = p->doc.p; c < at.p; c++)
        line += *c == '\n';
    snprintf(p->why, p->why_size, "%s:%u: %s", p->path, line, text);
    return PD_EINVAL;
}

static pd_status wrong_type(struct parse *p, const struct pd_json_value *key, const char *want)
{
    return wrong(p, key->text, "%.*s must be %s", PD_STR_ARG(key->text), want);
}

/* ---- values ---------------------------------------------------------------------------------- */

static pd_status string_get(struct parse *p, const struct pd_json_value *key, const struct pd_json_value *v,
                            struct pd_str *out)
{
    char *text = take(p->set, v->text.n + 1);
    if (text == NULL)
        return no_memory(p);
    if (v->type != PD_JSON_STRING || p->json->get_cstr(v, text, v->text.n + 1) != PD_OK)
        return wrong_type(p, key, "a string");
    *out = (struct pd_str){ text, strlen(text) };
    return PD_OK;
}

static pd_status number_get(struct parse *p, const struct pd_json_value *key, const struct pd_json_value *v,
                            uint64_t max, uint64_t *out)
{
    char want[64];
    if (p->json->get_u64(v, out) == PD_OK && *out <= max)
        return PD_OK;
    snprintf(want, sizeof want, "a whole number up to %llu", (unsigned long long)max);
    return wrong_type(p, key, want);
}

/* A list of strings, or one string. */
static pd_status strings_get(struct parse *p, const struct pd_json_value *key, const struct pd_json_value *v,
                             uint32_t max, struct pd_str **out, uint32_t *n)
{
    struct pd_json_iter it;
    struct pd_json_value item;
    size_t count = v->type == PD_JSON_STRING ? 1 : p->json->count(v);
    *n = 0;
    if (v->type != PD_JSON_STRING && v->type != PD_JSON_ARRAY)
        return wrong_type(p, key, "a list of strings");
    if (count > max)
        return wrong(p, key->text, "%.*s has %zu members, %u are the limit", PD_STR_ARG(key->text), count, max);
    *out = take(p->set, (count + 1) * sizeof **out);
    if (*out == NULL)
        return no_memory(p);
    if (v->type == PD_JSON_STRING) {
        *n = 1;
        return string_get(p, key, v, &(*out)[0]);
    }
    p->json->iter_init(&it, v);
    while (p->json->iter_next(&it, NULL, &item)) {
        pd_status status = string_get(p, key, &item, &(*out)[*n]);
        if (status != PD_OK)
            return status;
        ++*n;
    }
    return PD_OK;
}

static pd_status roles_get(struct parse *p, const struct pd_json_value *key, const struct pd_json_value *v,
                           uint32_t *roles)
{
    struct pd_str *names = NULL;
    uint32_t n = 0;
    pd_status status = strings_get(p, key, v, 4, &names, &n);
    for (uint32_t i = 0; i < n && status == PD_OK; i++) {
        if (strcmp(names[i].p, "prefill") == 0)
            *roles |= PD_ROLE_PREFILL;
        else if (strcmp(names[i].p, "decode") == 0)
            *roles |= PD_ROLE_DECODE;
        else
            status = wrong(p, v->text, "unknown role \"%.40s\"; there are prefill and decode", names[i].p);
    }
    return status;
}

static pd_status labels_get(struct parse *p, const struct pd_json_value *key, const struct pd_json_value *v,
                            struct pd_discovery_entry *e)
{
    struct pd_json_iter it;
    struct pd_json_value name, value;
    size_t count = p->json->count(v);
    if (v->type != PD_JSON_OBJECT)
        return wrong_type(p, key, "an object of strings");
    if (count > PD_DISCOVERY_LABELS_MAX)
        return wrong(p, key->text, "%zu labels are more than %u", count, PD_DISCOVERY_LABELS_MAX);
    struct pd_discovery_label *labels = take(p->set, (count + 1) * sizeof *labels);
    if (labels == NULL)
        return no_memory(p);
    p->json->iter_init(&it, v);
    while (p->json->iter_next(&it, &name, &value)) {
        struct pd_discovery_label *l = &labels[e->n_labels++];
        pd_status status = string_get(p, key, &name, &l->key);
        if (status == PD_OK)
            status = string_get(p, &name, &value, &l->value);
        if (status != PD_OK)
            return status;
    }
    e->labels = labels;
    return PD_OK;
}

/* A port as number or string. */
static pd_status port_get(struct parse *p, const struct pd_json_value *key, const struct pd_json_value *v,
                          uint64_t *port)
{
    char text[8], *end;
    if (v->type != PD_JSON_STRING)
        return number_get(p, key, v, 65535, port);
    if (p->json->get_cstr(v, text, sizeof text) != PD_OK || text[0] < '0' || text[0] > '9')
        return wrong_type(p, key, "a port");
    *port = strtoul(text, &end, 10);
    return *end == '\0' && *port <= 65535 ? PD_OK : wrong_type(p, key, "a port");
}

/* ---- entries --------------------------------------------------------------------------------- */

enum {
    HAS_NAME = 1 << 0, HAS_NAMESPACE = 1 << 1, HAS_URL = 1 << 2, HAS_ADDRESS = 1 << 3, HAS_PORT = 1 << 4,
    HAS_TYPE = 1 << 5, HAS_ROLES = 1 << 6, HAS_MODELS = 1 << 7, HAS_WEIGHT = 1 << 8, HAS_LABELS = 1 << 9,
    HAS_EPOCH = 1 << 10
};

static const struct {
    const char *name;
    uint32_t bit;
    bool for_peers;
} members[] = {
    { "name", HAS_NAME, true },      { "namespace", HAS_NAMESPACE, false }, { "url", HAS_URL, false },
    { "address", HAS_ADDRESS, true }, { "port", HAS_PORT, false },          { "type", HAS_TYPE, false },
    { "roles", HAS_ROLES, false },   { "models", HAS_MODELS, false },       { "weight", HAS_WEIGHT, false },
    { "labels", HAS_LABELS, true },  { "epoch", HAS_EPOCH, true },
};

/* What an entry says before its parts are put together. */
struct raw {
    uint32_t has;
    struct pd_str name, space, url, address;
    uint64_t port;
};

static uint32_t member_of(struct parse *p, const struct pd_json_value *key, bool is_peer)
{
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (p->json->is_str(key, members[i].name) && (!is_peer || members[i].for_peers))
            return members[i].bit;
    }
    return 0;
}

static pd_status member_get(struct parse *p, uint32_t bit, const struct pd_json_value *key,
                            const struct pd_json_value *v, struct raw *raw, struct pd_discovery_entry *e)
{
    struct pd_str *models = NULL;
    uint64_t number = 0;
    pd_status status = PD_OK;
    switch (bit) {
    case HAS_NAME:
        return string_get(p, key, v, &raw->name);
    case HAS_NAMESPACE:
        return string_get(p, key, v, &raw->space);
    case HAS_URL:
        return string_get(p, key, v, &raw->url);
    case HAS_ADDRESS:
        return string_get(p, key, v, &raw->address);
    case HAS_PORT:
        return port_get(p, key, v, &raw->port);
    case HAS_TYPE:
        return string_get(p, key, v, &e->type);
    case HAS_ROLES:
        return roles_get(p, key, v, &e->roles);
    case HAS_MODELS:
        status = strings_get(p, key, v, PD_DISCOVERY_MODELS_MAX, &models, &e->n_models);
        e->models = models;
        return status;
    case HAS_WEIGHT:
        status = number_get(p, key, v, PD_DISCOVERY_WEIGHT_MAX, &number);
        e->weight = (uint32_t)number;
        return status;
    case HAS_LABELS:
        return labels_get(p, key, v, e);
    default:
        return number_get(p, key, v, UINT64_MAX, &e->epoch);
    }
}

/* Up to four texts, one behind the other. */
static pd_status join(struct parse *p, const char *a, struct pd_str b, const char *c, struct pd_str d,
                      struct pd_str *out)
{
    size_t size = strlen(a) + b.n + strlen(c) + d.n + 1;
    char *text = take(p->set, size);
    if (text == NULL)
        return no_memory(p);
    snprintf(text, size, "%s%.*s%s%.*s", a, PD_STR_ARG(b), c, PD_STR_ARG(d));
    *out = (struct pd_str){ text, size - 1 };
    return PD_OK;
}

static pd_status entry_finish(struct parse *p, struct pd_str at, const struct raw *raw,
                              struct pd_discovery_entry *e)
{
    bool is_peer = e->what == PD_DISCOVERY_PEER;
    pd_status status = PD_OK;
    if (!(raw->has & HAS_NAME))
        return wrong(p, at, "a %s without \"name\"", is_peer ? "peer" : "endpoint");
    e->name = raw->name;
    if (raw->has & HAS_NAMESPACE)
        status = join(p, "", raw->space, "/", raw->name, &e->name);
    if (status != PD_OK)
        return status;
    if (is_peer) {
        if (!(raw->has & HAS_ADDRESS))
            return wrong(p, at, "peer \"%.60s\" has no \"address\"", raw->name.p);
        e->address = raw->address;
        return PD_OK;
    }
    if (((raw->has & HAS_URL) != 0) == ((raw->has & HAS_ADDRESS) != 0))
        return wrong(p, at, "endpoint \"%.60s\" needs \"url\", or \"address\" and \"port\"", raw->name.p);
    if (((raw->has & HAS_ADDRESS) != 0) != ((raw->has & HAS_PORT) != 0))
        return wrong(p, at, "endpoint \"%.60s\": \"address\" and \"port\" belong together", raw->name.p);
    e->address = raw->url;
    if (raw->has & HAS_URL)
        return PD_OK;
    char port[8];
    bool is_v6 = memchr(raw->address.p, ':', raw->address.n) != NULL && raw->address.p[0] != '[';
    int n = snprintf(port, sizeof port, "%u", (unsigned)raw->port);
    return join(p, is_v6 ? "http://[" : "http://", raw->address, is_v6 ? "]:" : ":",
                (struct pd_str){ port, (size_t)n }, &e->address);
}

static pd_status entry_read(struct parse *p, const struct pd_json_value *v, uint32_t what)
{
    struct file_set *set = p->set;
    struct pd_json_iter it;
    struct pd_json_value key, value;
    struct raw raw = { .has = 0 };
    bool is_peer = what == PD_DISCOVERY_PEER;
    if (v->type != PD_JSON_OBJECT)
        return wrong(p, v->text, "a member of \"%s\" must be an object", is_peer ? "peers" : "endpoints");
    if (set->n == FILE_ENTRIES_MAX)
        return wrong(p, v->text, "more than %u entries", FILE_ENTRIES_MAX);
    if (set->n == set->cap) {
        uint32_t cap = set->cap == 0 ? 64 : set->cap * 2;
        void *more = realloc(set->entries, cap * sizeof *set->entries);
        if (more == NULL)
            return no_memory(p);
        set->entries = more;
        set->cap = cap;
    }
    struct pd_discovery_entry *e = &set->entries[set->n];
    *e = (struct pd_discovery_entry){ .size = sizeof *e, .what = what };
    p->json->iter_init(&it, v);
    while (p->json->iter_next(&it, &key, &value)) {
        uint32_t bit = member_of(p, &key, is_peer);
        if (bit == 0)
            return wrong(p, key.text, "unknown member %.*s; there are %s", (int)(key.text.n < 60 ? key.text.n : 60),
                         key.text.p, is_peer ? "name, address, labels, epoch"
                                             : "name, namespace, url, address, port, type, roles, models, "
                                               "weight, labels, epoch");
        if (raw.has & bit)
            return wrong(p, key.text, "%.*s stands twice", PD_STR_ARG(key.text));
        raw.has |= bit;
        pd_status status = member_get(p, bit, &key, &value, &raw, e);
        if (status != PD_OK)
            return status;
    }
    pd_status status = entry_finish(p, v->text, &raw, e);
    if (status == PD_OK)
        set->n++;
    return status;
}

static pd_status list_read(struct parse *p, const struct pd_json_value *list, const char *name, uint32_t what)
{
    struct pd_json_iter it;
    struct pd_json_value item;
    pd_status status = PD_OK;
    if (list->type != PD_JSON_ARRAY)
        return wrong(p, list->text, "\"%s\" must be a list", name);
    p->json->iter_init(&it, list);
    while (status == PD_OK && p->json->iter_next(&it, NULL, &item))
        status = entry_read(p, &item, what);
    return status;
}

pd_status file_set_read(const struct pd_json_api *json, const char *path, struct pd_str doc,
                        struct file_set *out, char *why, size_t why_size)
{
    static const char *const root_path[] = { "" };
    struct parse p = { json, path, doc, out, why, why_size };
    struct pd_json_value root, key, value;
    struct pd_json_error error;
    struct pd_json_iter it;
    bool has[2] = { false, false };
    memset(out, 0, sizeof *out);
    pd_status status = json->scan(doc, &(struct pd_json_limits){ .depth = 16, .keys = 256 }, root_path, 1,
                                  &root, &error);
    if (status != PD_OK) {
        snprintf(why, why_size, "%s:%u: %s", path, error.line, error.text);
        return PD_EINVAL;
    }
    if (root.type != PD_JSON_OBJECT)
        return wrong(&p, root.text, "the file must hold an object with \"endpoints\" and \"peers\"");
    json->iter_init(&it, &root);
    while (status == PD_OK && json->iter_next(&it, &key, &value)) {
        bool is_peers = json->is_str(&key, "peers");
        if (!is_peers && !json->is_str(&key, "endpoints"))
            return wrong(&p, key.text, "unknown member %.*s; there are endpoints and peers",
                         (int)(key.text.n < 60 ? key.text.n : 60), key.text.p);
        if (has[is_peers])
            return wrong(&p, key.text, "%.*s stands twice", PD_STR_ARG(key.text));
        has[is_peers] = true;
        status = list_read(&p, &value, is_peers ? "peers" : "endpoints",
                           is_peers ? PD_DISCOVERY_PEER : PD_DISCOVERY_SERVER);
    }
    if (status == PD_OK && !has[0] && !has[1])
        return wrong(&p, root.text, "the file must hold an object with \"endpoints\" and \"peers\"");
    return status;
}
