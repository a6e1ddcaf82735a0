/* SPDX-License-Identifier: Apache-2.0 */
#include "discovery/entry.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include <pdplane/scheduler.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/url.h"

/* ---- addresses ----------------------------------------------------------------------- */

/* As IPv6; false for names. */
static bool numeric(struct pd_str host, uint8_t ip[16])
{
    char text[64];
    if (pd_str_copy(host, text, sizeof text) != PD_OK)
        return false;
    char *scope = strchr(text, '%');
    if (scope != NULL)
        *scope = '\0';
    if (inet_pton(AF_INET6, text, ip) == 1)
        return true;
    memset(ip, 0, 10);
    ip[10] = ip[11] = 0xff;
    return inet_pton(AF_INET, text, ip + 12) == 1;
}

pd_status pd_network_parse(struct pd_str text, struct pd_network *out)
{
    size_t slash = pd_str_find_char(text, '/');
    struct pd_str host = pd_str_sub(text, 0, slash);
    bool is_v4 = pd_str_find_char(host, ':') == PD_STR_NPOS;
    uint64_t bits = is_v4 ? 32 : 128;
    if (pd_str_find_char(host, '%') != PD_STR_NPOS || !numeric(host, out->ip) ||
        (slash != PD_STR_NPOS && pd_str_parse_u64(pd_str_sub(text, slash + 1, text.n), &bits) != PD_OK) ||
        bits > (is_v4 ? 32 : 128))
        return PD_EINVAL;
    out->bits = (uint32_t)bits + (is_v4 ? 96 : 0);
    return PD_OK;
}

static bool is_inside(const uint8_t ip[16], const uint8_t net[16], uint32_t bits)
{
    uint32_t whole = bits / 8, rest = bits % 8;
    return memcmp(ip, net, whole) == 0 &&
           (rest == 0 || ((ip[whole] ^ net[whole]) & (uint8_t)(0xff00u >> rest)) == 0);
}

/* Where no server can be: unspecified, multicast, broadcast, and link-local, where
 * clouds keep their secrets. */
static bool is_special(const uint8_t ip[16])
{
    static const uint8_t zero[16] = { 0 };
    static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    if (memcmp(ip, mapped, 12) == 0)
        return ip[12] == 0 || ip[12] >= 224 || (ip[12] == 169 && ip[13] == 254);
    return memcmp(ip, zero, 16) == 0 || ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

/* NULL, or what is wrong. */
static const char *address_check(const struct pd_discovery_entry *e, const struct pd_entry_rules *rules)
{
    struct pd_url url;
    uint8_t ip[16];
    if (e->address.n == 0)
        return "it has no address";
    if (e->address.n > PD_DISCOVERY_ADDRESS_MAX)
        return "its address is too long";
    if (e->what == PD_DISCOVERY_SERVER && pd_url_parse(e->address, &url) != PD_OK)
        return "its address is not http://HOST:PORT or https://HOST:PORT";
    if (e->what == PD_DISCOVERY_PEER && pd_url_authority_parse(e->address, &url) != PD_OK)
        return "its address is not HOST:PORT";
    bool is_numeric = numeric(url.host, ip);
    if (url.is_v6 && !is_numeric)
        return "its address has no valid IPv6 address in the brackets";
    for (uint32_t i = 0; is_numeric && i < rules->n_networks; i++) {
        if (is_inside(ip, rules->networks[i].ip, rules->networks[i].bits))
            return NULL;
    }
    if (rules->n_networks > 0)
        return is_numeric ? "its address is in none of the configured networks"
                          : "its address is a name, which configured networks do not allow";
    return is_numeric && is_special(ip) ? "its address is unspecified, link-local, multicast or broadcast"
                                        : NULL;
}

/* ---- the rest -------------------------------------------------------------------------- */

static bool is_name(struct pd_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              (c != '\0' && strchr("._-:/[]", c) != NULL)))
            return false;
    }
    return s.n > 0;
}

/* Text that may stand in logs, tables and labels of metrics. */
static bool is_plain(struct pd_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < ' ' || c >= 0x7f || c == '"' || c == '\\')
            return false;
    }
    return true;
}

static const char *fields_check(const struct pd_discovery_entry *e)
{
    if (e->size < sizeof *e)
        return "its size is not that of an entry";
    if (e->what != PD_DISCOVERY_SERVER && e->what != PD_DISCOVERY_PEER)
        return "it is neither a server nor a peer";
    if (!is_name(e->name) || e->name.n > PD_DISCOVERY_NAME_MAX)
        return "its name is empty, too long, or has characters that names do not have";
    if (e->type.n > 63 || !is_plain(e->type))
        return "its type is no name of an adapter";
    if ((e->roles & ~(uint32_t)(PD_ROLE_PREFILL | PD_ROLE_DECODE)) != 0)
        return "its roles are others than prefill and decode";
    if (e->weight > PD_DISCOVERY_WEIGHT_MAX)
        return "its weight is too large";
    if (e->n_models > PD_DISCOVERY_MODELS_MAX || (e->n_models > 0 && e->models == NULL))
        return "it has too many models";
    if (e->n_labels > PD_DISCOVERY_LABELS_MAX || (e->n_labels > 0 && e->labels == NULL))
        return "it has too many labels";
    for (uint32_t i = 0; i < e->n_models; i++) {
        if (e->models[i].n == 0 || e->models[i].n > PD_DISCOVERY_MODEL_MAX || !is_plain(e->models[i]))
            return "the name of a model is empty, too long or not plain text";
    }
    for (uint32_t i = 0; i < e->n_labels; i++) {
        const struct pd_discovery_label *l = &e->labels[i];
        if (l->key.n == 0 || l->key.n > PD_DISCOVERY_KEY_MAX || l->value.n > PD_DISCOVERY_VALUE_MAX ||
            !is_plain(l->key) || !is_plain(l->value))
            return "a label is too long or not plain text";
    }
    return NULL;
}

static struct pd_str label_of(const struct pd_discovery_entry *e, const char *key)
{
    for (uint32_t i = 0; key != NULL && i < e->n_labels; i++) {
        if (pd_str_is(e->labels[i].key, key))
            return e->labels[i].value;
    }
    return PD_STR("");
}

/* "prefill", "decode", "both", or several with "-" between; what else llm-d
 * knows (encode) is nothing that requests are sent to here. */
static bool roles_read(struct pd_str text, uint32_t *roles)
{
    struct pd_str part;
    if (pd_str_is(text, "both")) {
        *roles = PD_ROLE_PREFILL | PD_ROLE_DECODE;
        return true;
    }
    while (pd_str_split(&text, '-', &part)) {
        if (pd_str_is(part, "prefill"))
            *roles |= PD_ROLE_PREFILL;
        else if (pd_str_is(part, "decode"))
            *roles |= PD_ROLE_DECODE;
        else if (!pd_str_is(part, "encode"))
            return false;
    }
    return *roles != 0;
}

/* ---- copies ---------------------------------------------------------------------------- */

/* Takes room for a text out of one block. */
static const char *take(char **at, struct pd_str s)
{
    char *p = *at;
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    *at += s.n + 1;
    return p;
}

static pd_status copy(const struct pd_discovery_entry *from, const struct pd_str *models, uint32_t n_models,
                      uint32_t roles, struct pd_entry **out)
{
    size_t bytes = from->name.n + from->address.n + from->type.n + 3;
    for (uint32_t i = 0; i < n_models; i++)
        bytes += models[i].n + 1;
    for (uint32_t i = 0; i < from->n_labels; i++)
        bytes += from->labels[i].key.n + from->labels[i].value.n + 2;
    size_t labels_at = sizeof(struct pd_entry) + (n_models + 1) * sizeof(char *);
    size_t text_at = labels_at + from->n_labels * sizeof(struct pd_entry_label);
    char *block = pd_calloc(1, text_at + bytes);
    if (block == NULL)
        return PD_ENOMEM;
    char *at = block + text_at;
    struct pd_entry *e = (struct pd_entry *)(void *)block;
    const char **names = (const char **)(void *)(block + sizeof *e);
    struct pd_entry_label *labels = (struct pd_entry_label *)(void *)(block + labels_at);
    e->refs = 1;
    e->what = from->what;
    e->name = take(&at, from->name);
    e->address = take(&at, from->address);
    e->type = take(&at, from->type);
    e->epoch = from->epoch;
    e->roles = roles;
    e->weight = from->weight;
    e->n_models = n_models;
    e->n_labels = from->n_labels;
    for (uint32_t i = 0; i < n_models; i++)
        names[i] = take(&at, models[i]);
    for (uint32_t i = 0; i < from->n_labels; i++)
        labels[i] = (struct pd_entry_label){ take(&at, from->labels[i].key),
                                             take(&at, from->labels[i].value) };
    e->models = (const char *const *)names;
    e->labels = labels;
    *out = e;
    return PD_OK;
}

pd_status pd_entry_make(const struct pd_discovery_entry *from, const struct pd_entry_rules *rules,
                        struct pd_entry **out, char *why, size_t why_size)
{
    const char *wrong = fields_check(from);
    if (wrong == NULL)
        wrong = address_check(from, rules);
    if (wrong != NULL) {
        snprintf(why, why_size, "%s", wrong);
        return PD_EINVAL;
    }
    struct pd_str role = label_of(from, rules->role_label), model = label_of(from, rules->model_label);
    uint32_t roles = from->roles;
    if (roles == 0 && role.n > 0 && !roles_read(role, &roles)) {
        snprintf(why, why_size, "its label %s is \"%.*s\", which names no role", rules->role_label,
                 PD_STR_ARG(role));
        return PD_EINVAL;
    }
    bool has_model = from->n_models == 0 && model.n > 0;
    if (has_model && model.n > PD_DISCOVERY_MODEL_MAX) {
        snprintf(why, why_size, "its label %s is too long for the name of a model", rules->model_label);
        return PD_EINVAL;
    }
    return copy(from, has_model ? &model : from->models, has_model ? 1 : from->n_models, roles, out);
}

struct pd_entry *pd_entry_get(struct pd_entry *entry)
{
    entry->refs++;
    return entry;
}

void pd_entry_put(struct pd_entry *entry)
{
    if (entry != NULL && --entry->refs == 0)
        pd_free(entry);
}

bool pd_entry_equal(const struct pd_entry *a, const struct pd_entry *b)
{
    if (a->what != b->what || a->epoch != b->epoch || a->roles != b->roles || a->weight != b->weight ||
        a->n_models != b->n_models || a->n_labels != b->n_labels || strcmp(a->name, b->name) != 0 ||
        strcmp(a->address, b->address) != 0 || strcmp(a->type, b->type) != 0)
        return false;
    for (uint32_t i = 0; i < a->n_models; i++) {
        if (strcmp(a->models[i], b->models[i]) != 0)
            return false;
    }
    for (uint32_t i = 0; i < a->n_labels; i++) {
        if (strcmp(a->labels[i].key, b->labels[i].key) != 0 ||
            strcmp(a->labels[i].value, b->labels[i].value) != 0)
            return false;
    }
    return true;
}
