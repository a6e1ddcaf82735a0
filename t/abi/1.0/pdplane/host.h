/* SPDX-License-Identifier: Apache-2.0 */
/* What the core offers a module beyond the objects in struct pd_instance_ctx:
 * one table of functions that only ever grows at its end.  Stable.
 *
 * A module never links with pdplane.  The loader stores a pointer to the table
 * where PD_MODULE has reserved room for it, before any function of the module
 * runs; pd_host() reads it.  A member newer than the table a module was
 * compiled against is absent when `size` ends before it. */
#ifndef PDPLANE_HOST_H
#define PDPLANE_HOST_H

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory that can be shared with other processes: page aligned, zeroed, with
 * a sealed memfd behind it. */
struct pd_host_memory {
    uint32_t size;
    int32_t fd;                /* owned by the host until memory_free */
    void *base;
    uint64_t bytes;
};

struct pd_codec_ops;           /* codec.h */
struct pd_codec;

struct pd_host_api {
    uint32_t size;             /* of this table, as the running core has it */
    uint16_t abi_major;
    uint16_t abi_minor;
    const char *version;       /* of pdplane, "0.1.0" */

    /* Texts for status codes; never NULL.  Any thread. */
    const char *(*status_text)(pd_status status);

    /* Shared memory for a KV pool; name appears in /proc for people.
     * PD_ENOMEM with err filled when it cannot be had.  Loop thread. */
    pd_status (*memory_alloc)(struct pd_host *host, const char *name, uint64_t bytes,
                              struct pd_host_memory *out, struct pd_err *err);
    void (*memory_free)(struct pd_host *host, struct pd_host_memory *memory);

    /* Tables of the second tier (peer.h, kv.h ...), which are bound to the
     * exact version of pdplane: NULL unless name is known and version equals
     * the core's.  Loop thread. */
    const void *(*table)(struct pd_host *host, const char *name, uint32_t version);
    /* The node's own object that goes with such a table; NULL when the node
     * has none.  Loop thread. */
    void *(*object)(struct pd_host *host, const char *name);

    /* The node's codec of this name and its instance (codec.h), which lives
     * longer than any transport; NULL when none is loaded.  Loop thread. */
    const struct pd_codec_ops *(*codec)(struct pd_host *host, const char *name, struct pd_codec **out);
};

#ifdef __cplusplus
}
#endif
#endif
