/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PD_XP_CONF_H
#define PD_XP_CONF_H

#include "link.h"

enum { PD_XP_TLS_LINK, PD_XP_TLS_REQUIRED, PD_XP_TLS_OFF };
extern const struct pd_option_name pd_xp_tls_names[];

/* Reads "1.2.3.4:80" or "[::1]:80"; without needs_port the port may be missing.
 * PD_OK or PD_EINVAL. */
pd_status pd_xp_addr(const char *text, bool needs_port, struct pd_addr *out);
/* From "listen" and "advertise", which may be NULL. */
pd_status pd_xp_addresses(const char *listen, const char *advertise, struct pd_addr *here,
                          struct pd_addr *told, struct pd_err *err);
/* Does this configuration give what "tls" asks for? */
pd_status pd_xp_check_tls(uint32_t how, const struct pd_unit_site *site, struct pd_err *err);
pd_status pd_xp_choose_tls(const struct pd_instance_ctx *ctx, uint32_t how, struct pd_xp_tls *out,
                           struct pd_err *err);

/* What the transports over a fabric have in common; first in their structs. */
struct pd_xp_fabric_conf {
    const char *listen;
    const char *advertise;
    uint32_t queue;
    uint32_t windows;
    uint32_t connections;
    uint32_t depth;
    uint64_t frame;
    uint64_t timeout;
    uint64_t connect_timeout;
    uint64_t keepalive;
    uint32_t tls;                 /* PD_XP_TLS_... */
};

#define PD_XP_FABRIC_ROWS(type_, m_)                                                               \
    PD_OPT_STRING("listen", type_, m_ listen, "0.0.0.0:0",                                         \
                  .help = "Numeric address and port of the control connections from other nodes. " \
                          "Port 0 takes a free port; nodes learn it over the control link."),      \
    PD_OPT_STRING("advertise", type_, m_ advertise, NULL,                                          \
                  .help = "Numeric address, with or without a port, that is told to other nodes "  \
                          "instead of the one listened on. Without it, and when listening on all " \
                          "addresses, they use the address of the control link."),                 \
    PD_OPT_INT("depth", type_, m_ depth, "128", .min = 1, .max = 4096, .unit = "reads",            \
               .help = "Reads of remote memory that may be under way at a time."),                 \
    PD_OPT_SIZE("frame", type_, m_ frame, "1m", .min = 4096, .max = 16 << 20,                      \
                .help = "The most bytes that are asked for and confirmed as one."),                \
    PD_OPT_INT("queue", type_, m_ queue, "1024", .min = 1, .max = 65536, .unit = "transfers",      \
               .help = "Transfers to one node that may be under way at a time. More have to "      \
                       "wait outside."),                                                           \
    PD_OPT_INT("windows", type_, m_ windows, "4096", .min = 1, .max = 65536, .unit = "windows",    \
               .help = "Windows on own memory that may be open at a time."),                       \
    PD_OPT_INT("connections", type_, m_ connections, "256", .min = 1, .max = 4096,                 \
               .unit = "connections", .help = "Control connections that are accepted at a time."), \
    PD_OPT_DURATION("timeout", type_, m_ timeout, "3s", .min = 100 * (int64_t)PD_MS,               \
                    .max = 300 * (int64_t)PD_SEC,                                                  \
                    .help = "A node that makes no progress for so long while something is under "  \
                            "way is given up."),                                                   \
    PD_OPT_DURATION("connect_timeout", type_, m_ connect_timeout, "5s",                            \
                    .min = 100 * (int64_t)PD_MS, .max = 300 * (int64_t)PD_SEC,                     \
                    .help = "How long a control connection and its greeting may take."),           \
    PD_OPT_DURATION("keepalive", type_, m_ keepalive, "5s", .min = 0,                              \
                    .max = 3600 * (int64_t)PD_SEC,                                                 \
                    .help = "An idle control connection is probed after so long. 0 does not "      \
                            "probe."),                                                             \
    PD_OPT_ENUM("tls", type_, m_ tls, "link", pd_xp_tls_names,                                     \
                .help = "Whether control connections are encrypted. The KV itself never is: a "    \
                        "fabric is for a network of its own. link: with TLS when link.tls is "     \
                        "given, with its certificates. required: the node does not start without " \
                        "link.tls. off: never. All nodes must have the same.")

pd_status pd_xp_fabric_check(const struct pd_xp_fabric_conf *conf, struct pd_err *err);
/* Only the real loop can wait for a fabric.  PD_OK, else err says why not. */
pd_status pd_xp_fabric_fits(const struct pd_instance_ctx *ctx, struct pd_err *err);
/* fabric goes with the transport, or, after an error, at once. */
pd_status pd_xp_fabric_create(const struct pd_instance_ctx *ctx,
                              const struct pd_xp_fabric_conf *conf, uint16_t kind,
                              struct pd_xp_fabric *fabric, struct pd_transport **out,
                              struct pd_err *err);

#endif
