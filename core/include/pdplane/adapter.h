/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter kind: how to talk to an engine that is a server of its own.  The core
 * speaks HTTP, chooses the endpoint and relays the answer; an adapter says which
 * path, which headers and which probe a kind of server wants.  Not yet stable:
 * it grows with the hand-over protocols of the external engines. */
#ifndef PDPLANE_ADAPTER_H
#define PDPLANE_ADAPTER_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_ADAPTER_V1 1u

#define PD_ADAPTER_MAX_HEADERS 8u

struct pd_adapter; /* an instance, one for each endpoint */

/* A request as the adapter wants it sent; strings are the adapter's, valid
 * until destroy. */
struct pd_adapter_http {
    uint32_t size;
    uint32_t n_headers;
    struct pd_str target;      /* path on the server */
    struct {
        struct pd_str name;    /* lower case */
        struct pd_str value;
    } headers[PD_ADAPTER_MAX_HEADERS];
    uint32_t flags;            /* PD_ADAPTER_SALT; 0 when the call begins */
    uint32_t reserved;
};

enum {
    PD_ADAPTER_CHAT = 1,       /* /v1/chat/completions */
    PD_ADAPTER_COMPLETIONS = 2,
    PD_ADAPTER_PROBE = 3       /* GET; status 200 means healthy; a body in the form of OpenAI's model
                                  list names the models */
};

enum {
    PD_ADAPTER_SALT = 1u << 0  /* the server knows the member cache_salt, and caches prefixes apart by it */
};

struct pd_adapter_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_adapter_ops, PD_ADAPTER_V1) */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_adapter *adapter);
    /* what: PD_ADAPTER_*.  PD_OK, or PD_ENOSYS when the server has no such thing. */
    pd_status (*http)(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out);
};

#ifdef __cplusplus
}
#endif
#endif
