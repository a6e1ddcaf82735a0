/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of <pdplane/host.h>: the table that every module gets, and
 * what stands behind a struct pd_host.  Each node owns one; its second-tier
 * tables are registered by the folders above. */
#ifndef PD_MOD_HOST_H
#define PD_MOD_HOST_H

#include <pdplane/host.h>

#define PD_HOST_TABLES_MAX 16u
#define PD_HOST_MEMORIES_MAX 64u
#define PD_HOST_CODECS_MAX 16u

struct pd_host_entry {
    const char *name;          /* literal */
    uint32_t version;
    uint32_t reserved;
    const void *table;         /* static */
    void *object;              /* borrowed, may be NULL */
};

struct pd_host_codec {
    const char *name;          /* borrowed */
    const struct pd_codec_ops *ops;
    struct pd_codec *codec;
};

struct pd_host {
    struct pd_host_entry entries[PD_HOST_TABLES_MAX];
    uint32_t n_entries;
    uint32_t n_memories;       /* allocated and not freed */
    struct pd_host_codec codecs[PD_HOST_CODECS_MAX];
    uint32_t n_codecs;
};

void pd_host_init(struct pd_host *host);
/* PD_OK, PD_EEXIST, PD_ELIMIT. */
pd_status pd_host_register(struct pd_host *host, const char *name, uint32_t version, const void *table,
                           void *object);

/* Offers a codec to the modules of this node; borrowed.  PD_OK, PD_EEXIST, PD_ELIMIT. */
pd_status pd_host_codec_add(struct pd_host *host, const char *name, const struct pd_codec_ops *ops,
                            struct pd_codec *codec);

/* The object of a table that is registered. */
void pd_host_set_object(struct pd_host *host, const char *name, void *object);

/* The one table of this process, constant. */
const struct pd_host_api *pd_host_api_table(void);

#endif
