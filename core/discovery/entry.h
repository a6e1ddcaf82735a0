/* SPDX-License-Identifier: Apache-2.0 */
/* An entry of a source, checked and copied.  Nothing that a source says is used
 * before it has passed here.  Counted references, one thread. */
#ifndef PD_DISCOVERY_ENTRY_H
#define PD_DISCOVERY_ENTRY_H

#include <pdplane/discovery.h>

/* A range of numeric addresses: "10.0.0.0/8". */
struct pd_network {
    uint8_t ip[16];            /* IPv4 as ::ffff:a.b.c.d */
    uint32_t bits;             /* of the 128 */
};

/* PD_OK, PD_EINVAL. */
pd_status pd_network_parse(struct pd_str text, struct pd_network *out);

/* What the configuration says about the entries of a source. */
struct pd_entry_rules {
    const char *role_label;    /* a label whose value names the roles; NULL: none */
    const char *model_label;   /* a label whose value names a model; NULL: none */
    const struct pd_network *networks; /* where addresses must be; none: anywhere but special ranges */
    uint32_t n_networks;
};

struct pd_entry_label {
    const char *key;
    const char *value;
};

/* Immutable; strings end with a zero byte. */
struct pd_entry {
    uint32_t refs;
    uint32_t what;             /* PD_DISCOVERY_SERVER, PD_DISCOVERY_PEER */
    const char *name;
    const char *address;
    const char *type;          /* "": not said */
    uint64_t epoch;
    uint32_t roles;            /* 0: not said */
    uint32_t weight;           /* 0: not said */
    const char *const *models; /* n_models, then NULL */
    const struct pd_entry_label *labels;
    uint32_t n_models;
    uint32_t n_labels;
};

/* Checks and copies.  PD_OK; PD_EINVAL: why (one sentence without full stop)
 * says what is wrong; PD_ENOMEM.  Gives: pd_entry_put. */
pd_status pd_entry_make(const struct pd_discovery_entry *from, const struct pd_entry_rules *rules,
                        struct pd_entry **out, char *why, size_t why_size);
struct pd_entry *pd_entry_get(struct pd_entry *entry);
void pd_entry_put(struct pd_entry *entry);
/* Whether both describe the same thing in the same way. */
bool pd_entry_equal(const struct pd_entry *a, const struct pd_entry *b);

#endif
