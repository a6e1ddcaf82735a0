/* SPDX-License-Identifier: Apache-2.0 */
/* What tcp.c and the test module that injects faults share. */
#ifndef PD_TCP_H
#define PD_TCP_H

#include "conf.h"

struct pd_tcp_conf {
    const char *listen;
    const char *advertise;
    uint32_t lanes;
    uint32_t queue;
    uint32_t windows;
    uint32_t connections;
    uint64_t frame;
    uint64_t timeout;
    uint64_t connect_timeout;
    uint64_t keepalive;
    bool checksum;
    uint32_t tls;                 /* PD_XP_TLS_... */
    const char *codec;
};

/* The rows of struct pd_tcp_conf at the start of struct type_. */
#define PD_TCP_ROWS(type_, m_)                                                                     \
    PD_OPT_STRING("listen", type_, m_ listen, "0.0.0.0:0",                                         \
                  .help = "Numeric address and port that other nodes connect to. Port 0 takes a "  \
                          "free port; nodes learn it over the control link."),                     \
    PD_OPT_STRING("advertise", type_, m_ advertise, NULL,                                          \
                  .help = "Numeric address, with or without a port, that is told to other nodes "  \
                          "instead of the one listened on. Without it, and when listening on all " \
                          "addresses, they use the address of the control link."),                 \
    PD_OPT_INT("lanes", type_, m_ lanes, "0", .max = PD_XP_MAX_LANES, .unit = "connections",       \
               .help = "Connections to each node. 0 takes one on the same host and four "          \
                       "otherwise."),                                                              \
    PD_OPT_BOOL("checksum", type_, m_ checksum, "true",                                            \
                .help = "Send a CRC-32C with each frame. The receiver checks it wherever it is "   \
                        "there."),                                                                 \
    PD_OPT_SIZE("frame", type_, m_ frame, "1m", .min = 4096, .max = 16 << 20,                      \
                .help = "The most bytes that are sent, checked and confirmed as one."),            \
    PD_OPT_INT("queue", type_, m_ queue, "1024", .min = 1, .max = 65536, .unit = "transfers",      \
               .help = "Transfers to one node that may be under way at a time. More have to "      \
                       "wait outside."),                                                           \
    PD_OPT_INT("windows", type_, m_ windows, "4096", .min = 1, .max = 65536, .unit = "windows",    \
               .help = "Windows on own memory that may be open at a time."),                       \
    PD_OPT_INT("connections", type_, m_ connections, "1024", .min = 1, .max = 65536,               \
               .unit = "connections", .help = "Connections that are accepted at a time."),         \
    PD_OPT_DURATION("timeout", type_, m_ timeout, "2s", .min = 100 * (int64_t)PD_MS,               \
                    .max = 300 * (int64_t)PD_SEC,                                                  \
                    .help = "A node that makes no progress for so long while something is under "  \
                            "way is given up. The system's limit for unacknowledged bytes is the " \
                            "same."),                                                              \
    PD_OPT_DURATION("connect_timeout", type_, m_ connect_timeout, "5s",                            \
                    .min = 100 * (int64_t)PD_MS, .max = 300 * (int64_t)PD_SEC,                     \
                    .help = "How long a connection and its greeting may take."),                   \
    PD_OPT_DURATION("keepalive", type_, m_ keepalive, "5s", .min = 0,                              \
                    .max = 3600 * (int64_t)PD_SEC,                                                 \
                    .help = "An idle connection is probed after so long. 0 does not probe."),        \
    PD_OPT_ENUM("tls", type_, m_ tls, "link", pd_xp_tls_names,                                    \
                .help = "Whether KV is encrypted. link: with TLS when link.tls is given, with its "\
                        "certificates. required: the node does not start without link.tls. off: "  \
                        "never, also when links use TLS. All nodes must have the same."),  \
    PD_OPT_STRING("codec", type_, m_ codec, NULL, .flags = PD_OPT_NONEMPTY,                        \
                  .help = "A loaded codec, such as planes. Frames that it makes shorter are sent " \
                          "encoded to nodes that have it too. Worth it where the network is "      \
                          "slower than the codec.")

pd_status pd_tcp_check(const void *conf, struct pd_err *err);
pd_status pd_tcp_check_site(const void *conf, const struct pd_unit_site *site, struct pd_err *err);
pd_status pd_tcp_create(const struct pd_instance_ctx *ctx, const struct pd_tcp_conf *conf,
                        const struct pd_xp_hooks *hooks, struct pd_transport **out,
                        struct pd_err *err);

#endif
