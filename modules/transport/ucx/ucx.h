/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PD_UCX_H
#define PD_UCX_H

#include <sys/socket.h>

#include "conf.h"

struct pd_ucx_conf {
    struct pd_xp_fabric_conf f;
    const char *transports;
    const char *devices;
};

/* fabric.c */
/* Gives a fabric; else err says why not. */
pd_status pd_ucx_fabric(const struct pd_instance_ctx *ctx, const struct pd_ucx_conf *conf,
                        struct pd_xp_fabric **out, struct pd_err *err);

/* where.c */
#define PD_UCX_WHERE_BYTES 24u

struct pd_ucx_where {
    uint32_t family;              /* PD_AF_...; PD_AF_NONE: the control connection's host */
    uint16_t port;
    uint8_t ip[16];
};

void pd_ucx_where_encode(const struct pd_ucx_where *w, uint8_t *buf);
/* PD_OK, PD_EPROTO. */
pd_status pd_ucx_where_decode(const uint8_t *buf, size_t len, struct pd_ucx_where *w);
/* All but the port. */
void pd_ucx_where_at(const struct pd_addr *here, const struct pd_addr *told,
                     struct pd_ucx_where *w);
/* These return the bytes used; 0: not an address of the internet. */
socklen_t pd_ucx_sockaddr(const struct pd_addr *a, struct sockaddr_storage *out);
socklen_t pd_ucx_where_sockaddr(const struct pd_ucx_where *w, const struct pd_addr *host,
                                struct sockaddr_storage *out);
uint16_t pd_ucx_port(const struct sockaddr_storage *a);

/* quiet.c */
/* Makes UCX a guest of this process; once is enough, more is allowed. */
void pd_ucx_quiet(void);
/* Where UCX's words go while this thread is inside of it; NULL: nowhere. */
void pd_ucx_log_to(struct pd_log *log);
/* Whether UCX may be asked for what takes descriptors. */
#define PD_UCX_DESCRIPTORS 48
bool pd_ucx_has_descriptors(void);

#endif
