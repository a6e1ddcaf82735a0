/* SPDX-License-Identifier: Apache-2.0 */
/* The table of all sections, and comparisons of what they hold. */
#include "node/sections.h"

#include <string.h>

#include <pdplane/log.h>
#include <pdplane/role.h>
#include <pdplane/scheduler.h>

#include "discovery/sources.h"

static const struct pd_option_name role_names[] = {
    { "prefill", PD_ROLE_PREFILL },
    { "decode", PD_ROLE_DECODE },
    { NULL, 0 },
};

static const struct pd_option_name api_names[] = {
    { "openai", PD_LISTEN_OPENAI },
    { "admin", PD_LISTEN_ADMIN },
    { "peer", PD_LISTEN_PEER },
    { NULL, 0 },
};

static const struct pd_option_name level_names[] = {
    { "error", PD_LOG_ERROR }, { "warn", PD_LOG_WARN },   { "notice", PD_LOG_NOTICE },
    { "info", PD_LOG_INFO },   { "debug", PD_LOG_DEBUG }, { "trace", PD_LOG_TRACE },
    { NULL, 0 },
};

static const struct pd_option_name format_names[] = {
    { "text", PD_LOG_TEXT },
    { "json", PD_LOG_JSON },
    { NULL, 0 },
};

#define TLS_PATH(key, member, ...) \
    PD_OPT_STRING(key, struct pd_node_tls_conf, member, NULL, \
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY, __VA_ARGS__)

#define KEY_PASSPHRASE \
    TLS_PATH("key_passphrase_file", passphrase, \
             .help = "File of mode 0640 or less with the passphrase of the private key, when it has one. It " \
                     "is read again together with the key; nobody is ever asked for it.")

static const struct pd_option listen_tls_rows[] = {
    PD_OPT_STRING("certificate", struct pd_node_tls_conf, certificate, NULL,
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY | PD_OPT_REQUIRED,
                  .help = "PEM file with the certificate, then those between it and its authority. Changed "
                          "files are taken for new connections within seconds."),
    PD_OPT_STRING("key", struct pd_node_tls_conf, key, NULL,
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY | PD_OPT_REQUIRED,
                  .help = "PEM file with the private key, of mode 0640 or less."),
    KEY_PASSPHRASE,
    TLS_PATH("ca", ca, .help = "PEM file of authorities. When given, only clients with a certificate of "
                               "one of them are served."),
    PD_OPT_STRING("name", struct pd_node_tls_conf, name, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Name that a client's certificate must have; when absent, any will do."),
    PD_OPT_PLACE(struct pd_node_tls_conf, place),
    PD_OPT_END
};

static const struct pd_option endpoint_tls_rows[] = {
    TLS_PATH("ca", ca, .help = "PEM file of the authorities of the server; when absent, the system's."),
    PD_OPT_STRING("name", struct pd_node_tls_conf, name, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Name that the server's certificate must have; when absent, the host of url."),
    TLS_PATH("certificate", certificate, .help = "PEM file with a certificate to show to the server."),
    TLS_PATH("key", key, .help = "PEM file with its private key, of mode 0640 or less."),
    KEY_PASSPHRASE,
    PD_OPT_PLACE(struct pd_node_tls_conf, place),
    PD_OPT_END
};

static const struct pd_option link_tls_rows[] = {
    PD_OPT_STRING("certificate", struct pd_node_tls_conf, certificate, NULL,
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY | PD_OPT_REQUIRED,
                  .help = "PEM file with this node's certificate. When it names a node, as URI "
                          "urn:uuid:UUID among its alternative names, only that node may use it."),
    PD_OPT_STRING("key", struct pd_node_tls_conf, key, NULL,
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY | PD_OPT_REQUIRED,
                  .help = "PEM file with its private key, of mode 0640 or less."),
    KEY_PASSPHRASE,
    PD_OPT_STRING("ca", struct pd_node_tls_conf, ca, NULL,
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY | PD_OPT_REQUIRED,
                  .help = "PEM file of the authorities of all nodes' certificates; use one that signs for "
                          "nothing else."),
    PD_OPT_STRING("name", struct pd_node_tls_conf, name, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Name that each node's certificate must have; when absent, any will do."),
    PD_OPT_PLACE(struct pd_node_tls_conf, place),
    PD_OPT_END
};

static const struct pd_option listen_rows[] = {
    PD_OPT_STRING("address", struct pd_node_listen_conf, address, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY | PD_OPT_UNIQUE,
                  .help = "HOST:PORT, or [V6]:PORT."),
    PD_OPT_ENUM("api", struct pd_node_listen_conf, api, NULL, api_names, .flags = PD_OPT_REQUIRED,
                .help = "What is served: openai for clients, admin for operators, peer for other nodes."),
    PD_OPT_STRING("advertise", struct pd_node_listen_conf, advertise, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "HOST:PORT that other nodes are told to reach this peer listener at; when "
                          "absent, the address itself, or with 0.0.0.0 and [::] the host from which "
                          "links of this node come."),
    PD_OPT_GROUP("tls", struct pd_node_listen_conf, tls, listen_tls_rows, struct pd_node_tls_conf,
                 .flags = PD_OPT_POINTER,
                 .help = "Serves with TLS. Peer listeners use what link says when this is absent."),
    PD_OPT_STRING("api_keys_file", struct pd_node_listen_conf, api_keys_file, NULL,
                  .flags = PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "File of mode 0640 or less with the keys of clients (api openai only): a line "
                          "sha256:HEX LABEL for each, HEX from: printf %s KEY | sha256sum. It is read again "
                          "when it has changed."),
    PD_OPT_PLACE(struct pd_node_listen_conf, place),
    PD_OPT_END
};

static const struct pd_option engine_rows[] = {
    PD_OPT_STRING("name", struct pd_node_engine_conf, name, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY | PD_OPT_UNIQUE,
                  .help = "Name of the engine in logs, metrics and tables."),
    PD_OPT_UNIT("type", struct pd_node_engine_conf, unit, PD_KIND_BIT(PD_KIND_ENGINE),
                .flags = PD_OPT_REQUIRED, .help = "The engine; its own options stand beside this one."),
    PD_OPT_STRING("served", struct pd_node_engine_conf, served, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Name of the model for clients; when absent, what the model calls itself."),
    PD_OPT_FLAGS("roles", struct pd_node_engine_conf, roles, "prefill, decode", role_names,
                 .flags = PD_OPT_NONEMPTY, .help = "What the engine is used for."),
    PD_OPT_PLACE(struct pd_node_engine_conf, place),
    PD_OPT_END
};

static const struct pd_option endpoint_rows[] = {
    PD_OPT_STRING("name", struct pd_node_endpoint_conf, name, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY | PD_OPT_UNIQUE,
                  .help = "Name of the endpoint in logs, metrics and tables."),
    PD_OPT_UNIT("type", struct pd_node_endpoint_conf, unit, PD_KIND_BIT(PD_KIND_ADAPTER),
                .flags = PD_OPT_REQUIRED,
                .help = "What kind of server it is; the adapter's own options stand beside this one."),
    PD_OPT_FLAGS("roles", struct pd_node_endpoint_conf, roles, "prefill, decode", role_names,
                 .flags = PD_OPT_NONEMPTY, .help = "What the endpoint is used for."),
    PD_OPT_STRING("url", struct pd_node_endpoint_conf, url, NULL, .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY,
                  .help = "Where the server listens: http://HOST:PORT or https://HOST:PORT."),
    PD_OPT_GROUP("tls", struct pd_node_endpoint_conf, tls, endpoint_tls_rows, struct pd_node_tls_conf,
                 .flags = PD_OPT_POINTER, .help = "For https: how the server is verified."),
    PD_OPT_STRING_LIST("models", struct pd_node_endpoint_conf, models, NULL,
                       .help = "Models that the server serves; when absent, those it lists itself."),
    PD_OPT_INT("weight", struct pd_node_endpoint_conf, weight, "100", .min = 1, .max = 10000,
               .help = "Share of requests compared with other endpoints."),
    PD_OPT_PLACE(struct pd_node_endpoint_conf, place),
    PD_OPT_END
};

static const struct pd_option template_rows[] = {
    PD_OPT_UNIT("type", struct pd_node_endpoint_conf, unit, PD_KIND_BIT(PD_KIND_ADAPTER),
                .flags = PD_OPT_REQUIRED,
                .help = "What kind of servers they are; the adapter's own options stand beside this one."),
    PD_OPT_FLAGS("roles", struct pd_node_endpoint_conf, roles, "prefill, decode", role_names,
                 .flags = PD_OPT_NONEMPTY, .help = "What they are used for, unless the source says so."),
    PD_OPT_GROUP("tls", struct pd_node_endpoint_conf, tls, endpoint_tls_rows, struct pd_node_tls_conf,
                 .flags = PD_OPT_POINTER, .help = "For https: how they are verified."),
    PD_OPT_STRING_LIST("models", struct pd_node_endpoint_conf, models, NULL,
                       .help = "Models that they serve, unless the source says so; when absent, those they "
                               "list themselves."),
    PD_OPT_INT("weight", struct pd_node_endpoint_conf, weight, "100", .min = 1, .max = 10000,
               .help = "Share of requests of each, unless the source says so."),
    PD_OPT_PLACE(struct pd_node_endpoint_conf, place),
    PD_OPT_END
};

static const struct pd_option discovery_rows[] = {
    PD_OPT_STRING("name", struct pd_node_discovery_conf, name, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY | PD_OPT_UNIQUE,
                  .help = "Name of the source in logs, metrics and tables."),
    PD_OPT_UNIT("type", struct pd_node_discovery_conf, unit, PD_KIND_BIT(PD_KIND_DISCOVERY),
                .flags = PD_OPT_REQUIRED,
                .help = "What kind of source it is; its own options stand beside this one."),
    PD_OPT_GROUP_LIST("endpoint", struct pd_node_discovery_conf, endpoint, template_rows,
                      struct pd_node_endpoint_conf, .max = 16,
                      .help = "How the servers that it names are used: one group for each type of adapter. A "
                              "server of which the source gives no type takes the first."),
    PD_OPT_DURATION("stale_ok", struct pd_node_discovery_conf, stale_ok, "60s",
                    .max = 30 * 86400 * (int64_t)PD_SEC,
                    .help = "How long what it named last is used while it cannot be read, or names nothing."),
    PD_OPT_DURATION("linger", struct pd_node_discovery_conf, linger, "10s", .max = 3600 * (int64_t)PD_SEC,
                    .help = "How long a server that it no longer names is remembered, without new requests, "
                            "and what is cached there with it."),
    PD_OPT_INT("max", struct pd_node_discovery_conf, max, "1024", .min = 1, .max = PD_SOURCE_ENTRIES_MAX,
               .unit = "entries", .help = "Most servers and nodes of it."),
    PD_OPT_STRING_LIST("networks", struct pd_node_discovery_conf, networks, NULL, .max = 64,
                       .help = "Networks that addresses must be in, such as 10.0.0.0/8; names are then "
                               "refused. When absent, any address but unspecified, link-local, multicast and "
                               "broadcast ones."),
    PD_OPT_STRING("role_label", struct pd_node_discovery_conf, role_label, "llm-d.ai/role",
                  .help = "Label whose value names the roles: prefill, decode, prefill-decode or both. "
                          "Empty: none."),
    PD_OPT_STRING("model_label", struct pd_node_discovery_conf, model_label, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Label whose value names the model."),
    PD_OPT_PLACE(struct pd_node_discovery_conf, place),
    PD_OPT_END
};

static const struct pd_option peer_rows[] = {
    PD_OPT_STRING("address", struct pd_node_peer_conf, address, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY | PD_OPT_UNIQUE,
                  .help = "HOST:PORT of the other node's peer listener."),
    PD_OPT_PLACE(struct pd_node_peer_conf, place),
    PD_OPT_END
};

static const struct pd_option link_rows[] = {
    PD_OPT_STRING("secret", struct pd_node_link_conf, secret, NULL, .flags = PD_OPT_SECRET,
                  .help = "Shared by all nodes; links prove that they know it. Without it any node that "
                          "reaches the peer listener is trusted."),
    PD_OPT_GROUP("tls", struct pd_node_link_conf, tls, link_tls_rows, struct pd_node_tls_conf,
                 .flags = PD_OPT_POINTER,
                 .help = "Links use TLS, both ways with certificates. All nodes must have it."),
    PD_OPT_DURATION("heartbeat", struct pd_node_link_conf, heartbeat, "1s", .min = 10 * (int64_t)PD_MS,
                    .max = 60 * (int64_t)PD_SEC, .help = "Sent when nothing else was."),
    PD_OPT_DURATION("suspect", struct pd_node_link_conf, suspect, "2500ms", .min = 20 * (int64_t)PD_MS,
                    .max = 120 * (int64_t)PD_SEC,
                    .help = "A peer that was silent for so long gets no new requests."),
    PD_OPT_DURATION("dead", struct pd_node_link_conf, dead, "3500ms", .min = 30 * (int64_t)PD_MS,
                    .max = 180 * (int64_t)PD_SEC, .help = "A peer that was silent for so long is given up."),
    PD_OPT_DURATION("patience", struct pd_node_link_conf, patience, "2500ms", .min = 50 * (int64_t)PD_MS,
                    .max = 180 * (int64_t)PD_SEC,
                    .help = "The same while requests are under way with it. Heartbeats then come five times "
                            "in this time; after three fifths of it new requests go to others."),
    PD_OPT_DURATION("connect_timeout", struct pd_node_link_conf, connect_timeout, "2500ms",
                    .min = 10 * (int64_t)PD_MS, .max = 60 * (int64_t)PD_SEC,
                    .help = "For connecting and greeting."),
    PD_OPT_END
};

static const struct pd_option_name digest_names[] = {
    { "full", PD_KV_DIGESTS_FULL },
    { "none", PD_KV_DIGESTS_NONE },
    { NULL, 0 },
};

static const struct pd_option kv_rows[] = {
    PD_OPT_ENUM("digests", struct pd_node_kv_conf, digests, "full", digest_names,
                .help = "Whether the digest of each block is compared before it is decoded from. Without "
                        "digests damaged KV gives wrong text that nobody notices."),
    PD_OPT_DURATION("lease", struct pd_node_kv_conf, lease, "5s", .min = (int64_t)PD_KV_LEASE_MIN,
                    .max = 60 * (int64_t)PD_SEC,
                    .help = "Blocks that are lent to a prefill node are taken back when nothing was heard "
                            "of it for so long."),
    PD_OPT_DURATION("connect_timeout", struct pd_node_kv_conf, connect_timeout, "2s",
                    .min = 10 * (int64_t)PD_MS, .max = 60 * (int64_t)PD_SEC,
                    .help = "For connecting a transport; the next one is tried then."),
    PD_OPT_SIZE("inflight", struct pd_node_kv_conf, inflight, "32m", .min = 65536,
                .max = (int64_t)1 << 34, .help = "Bytes of one hand-over on their way at a time."),
    PD_OPT_END
};

static const struct pd_option limits_rows[] = {
    PD_OPT_INT("connections", struct pd_node_limits_conf, connections, "16384", .min = 1, .max = 1 << 20,
               .unit = "connections",
               .help = "Most client connections at a time; fewer when the process may not open so many "
                       "files. More get status 503."),
    PD_OPT_SIZE("memory", struct pd_node_limits_conf, memory, "1g", .min = 1 << 20, .max = (int64_t)1 << 44,
                .help = "Bytes of requests and unsent answers that are held at a time. Above it new "
                        "requests get status 503."),
    PD_OPT_DURATION("head_timeout", struct pd_node_limits_conf, head_timeout, "10s",
                    .min = 10 * (int64_t)PD_MS, .max = 3600 * (int64_t)PD_SEC,
                    .help = "For the head of a request, from its first byte; then status 408."),
    PD_OPT_DURATION("body_timeout", struct pd_node_limits_conf, body_timeout, "30s",
                    .min = 10 * (int64_t)PD_MS, .max = 3600 * (int64_t)PD_SEC,
                    .help = "For each 16 KiB of a body, and for its end; then status 408."),
    PD_OPT_DURATION("write_timeout", struct pd_node_limits_conf, write_timeout, "60s",
                    .min = 10 * (int64_t)PD_MS, .max = 3600 * (int64_t)PD_SEC,
                    .help = "A client that takes nothing of its answer for so long is cut off."),
    PD_OPT_DURATION("idle_timeout", struct pd_node_limits_conf, idle_timeout, "75s",
                    .min = 10 * (int64_t)PD_MS, .max = 86400 * (int64_t)PD_SEC,
                    .help = "A connection without a request is closed after so long."),
    PD_OPT_END
};

static const struct pd_option log_rows[] = {
    PD_OPT_ENUM("level", struct pd_node_log_conf, level, "notice", level_names, .help = "What is logged."),
    PD_OPT_ENUM("format", struct pd_node_log_conf, format, "text", format_names,
                .help = "Lines for people, or one JSON object per line."),
    PD_OPT_STRING("file", struct pd_node_log_conf, file, NULL, .flags = PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "Where lines go; when absent, to standard error."),
    PD_OPT_END
};

static const struct pd_option self_rows[] = {
    PD_OPT_STRING("name", struct pd_node_self_conf, name, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Name of this node for people; when absent, the machine's name."),
    PD_OPT_STRING("state", struct pd_node_self_conf, state, NULL, .flags = PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "Folder in which the node keeps its identity over restarts; when absent, it has a "
                          "new one at each start."),
    PD_OPT_END
};

static const struct pd_option sections[] = {
    PD_OPT_STRING_LIST("load", struct pd_node_conf, load, NULL, .flags = PD_OPT_NONEMPTY, .max = 256,
                       .help = "Modules to load, by name or absolute path, in this order."),
    PD_OPT_STRING_LIST("module_path", struct pd_node_conf, module_path, PD_MODULEDIR,
                       .flags = PD_OPT_NONEMPTY | PD_OPT_PATH, .min = 1, .max = 16,
                       .help = "Folders in which modules are looked for."),
    PD_OPT_STRING("pid_file", struct pd_node_conf, pid_file, NULL, .flags = PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "File for the process id, which pdplane -s reads."),
    PD_OPT_DURATION("drain", struct pd_node_conf, drain, "30s", .max = 86400 * (int64_t)PD_SEC,
                    .help = "How long requests may go on when the node drains."),
    PD_OPT_DURATION("reload_drain", struct pd_node_conf, reload_drain, "1h", .min = 10 * (int64_t)PD_MS,
                    .max = 30 * 86400 * (int64_t)PD_SEC,
                    .help = "How long requests that began before a reload may go on with the configuration of "
                            "then. What is left is ended with an error, so that no engine and no memory of an "
                            "earlier configuration is kept for ever."),
    PD_OPT_GROUP("node", struct pd_node_conf, node, self_rows, struct pd_node_self_conf,
                 .help = "This node."),
    PD_OPT_UNIT_MAP("role", struct pd_node_conf, roles, PD_KIND_BIT(PD_KIND_ROLE),
                    .help = "Options of the loaded roles, each in a group of its own: role = { router = { "
                            "}; };"),
    PD_OPT_GROUP_LIST("listen", struct pd_node_conf, listen, listen_rows, struct pd_node_listen_conf,
                      .max = 64, .help = "Addresses to listen on."),
    PD_OPT_GROUP_LIST("engine", struct pd_node_conf, engines, engine_rows, struct pd_node_engine_conf,
                      .max = 64, .help = "Engines that run in this process."),
    PD_OPT_GROUP_LIST("endpoints", struct pd_node_conf, endpoints, endpoint_rows,
                      struct pd_node_endpoint_conf, .max = 4096,
                      .help = "Servers outside of pdplane that requests are sent to."),
    PD_OPT_GROUP_LIST("discovery", struct pd_node_conf, discovery, discovery_rows,
                      struct pd_node_discovery_conf, .max = PD_SOURCES_MAX,
                      .help = "Where servers and nodes are found while the node runs."),
    PD_OPT_GROUP_LIST("peers", struct pd_node_conf, peers, peer_rows, struct pd_node_peer_conf, .max = 1024,
                      .help = "Other nodes to connect to."),
    PD_OPT_GROUP("link", struct pd_node_conf, link, link_rows, struct pd_node_link_conf,
                 .help = "The connections between nodes."),
    PD_OPT_UNIT_MAP("transport", struct pd_node_conf, transports, PD_KIND_BIT(PD_KIND_TRANSPORT),
                    .help = "Options of the loaded transports, each in a group of its own: transport = { tcp "
                            "= { }; };"),
    PD_OPT_UNIT_MAP("exporter", struct pd_node_conf, exporters, PD_KIND_BIT(PD_KIND_EXPORTER),
                    .help = "Options of the loaded exporters, each in a group of its own. The exporter "
                            "prometheus is loaded also when load does not name it."),
    PD_OPT_UNIT_MAP("codec", struct pd_node_conf, codecs, PD_KIND_BIT(PD_KIND_CODEC),
                    .help = "Options of the loaded codecs, each in a group of its own. A transport uses the "
                            "one that its own option codec names."),
    PD_OPT_GROUP("kv", struct pd_node_conf, kv, kv_rows, struct pd_node_kv_conf,
                 .help = "How KV moves between nodes."),
    PD_OPT_GROUP("scheduler", struct pd_node_conf, scheduler, pd_sched_options, struct pd_sched_conf,
                 .help = "How requests are given to endpoints."),
    PD_OPT_GROUP("requests", struct pd_node_conf, requests, pd_reqs_options, struct pd_reqs_conf,
                 .help = "The records of requests."),
    PD_OPT_GROUP("limits", struct pd_node_conf, limits, limits_rows, struct pd_node_limits_conf,
                 .help = "What clients may use."),
    PD_OPT_GROUP("log", struct pd_node_conf, log, log_rows, struct pd_node_log_conf, .help = "Log lines."),
    PD_OPT_STRING("control", struct pd_node_conf, control, NULL, .flags = PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "Path of the control socket that pdctl uses."),
    PD_OPT_STRING("user", struct pd_node_conf, user, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "User whom the process becomes when its sockets, pid file and log are open. All "
                          "other files, also keys and certificates, are read as that user."),
    PD_OPT_STRING("group", struct pd_node_conf, group, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Group of the process; when absent, that of user."),
    PD_OPT_BOOL("core_files", struct pd_node_conf, core_files, "false",
                .help = "Whether a crash may leave a core file, in which prompts and keys can be read."),
    PD_OPT_END
};

const struct pd_option *pd_node_sections(void)
{
    return sections;
}

const struct pd_option *pd_node_endpoint_rows(void)
{
    return endpoint_rows;
}

const struct pd_option *pd_node_discovery_rows(void)
{
    return discovery_rows;
}

const struct pd_option *pd_node_listen_rows(void)
{
    return listen_rows;
}

bool pd_node_tls_equal(const struct pd_node_tls_conf *a, const struct pd_node_tls_conf *b)
{
    return a == b || (a != NULL && b != NULL && pd_conf_equal(listen_tls_rows, a, b));
}

const struct pd_option *pd_node_section(const char *name)
{
    const struct pd_option *r = sections;
    while (r->name != NULL && strcmp(r->name, name) != 0)
        r++;
    return r;
}

bool pd_node_section_equal(const char *name, const struct pd_node_conf *a, const struct pd_node_conf *b)
{
    const struct pd_option rows[] = { *pd_node_section(name), PD_OPT_END };
    return pd_conf_equal(rows, a, b);
}

bool pd_node_link_equal(const struct pd_node_link_conf *a, const struct pd_node_link_conf *b)
{
    struct pd_node_link_conf x = *a;
    x.secret = b->secret;
    x.tls = b->tls;
    return pd_conf_equal(link_rows, a, &x);
}

struct pd_peers_times pd_node_link_times(const struct pd_node_link_conf *link)
{
    return (struct pd_peers_times){ .heartbeat = link->heartbeat, .suspect = link->suspect,
                                    .dead = link->dead, .connect_timeout = link->connect_timeout };
}

void pd_node_section_place(const char *name, const struct pd_conf *conf, struct pd_conf_place *out)
{
    /* Behind the last member of it stands the key itself. */
    *out = pd_conf_item_place(conf, name, UINT64_MAX);
}
