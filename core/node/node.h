/* SPDX-License-Identifier: Apache-2.0 */
/* One running node: everything that a configuration generation describes, built
 * on one loop.  A process has one; the simulator's tests have many in one
 * process.
 *
 * Life:  pd_node_create   builds all instances; nothing listens yet
 *        pd_node_start    roles start, listeners open, peers are dialled
 *        pd_node_reload   takes another configuration into use; see reload.c
 *        pd_node_drain    takes no new work, tells when the old is done
 *        pd_node_destroy  ends and frees everything
 *
 * All functions: loop thread. */
#ifndef PD_NODE_NODE_H
#define PD_NODE_NODE_H

#include <pdplane/codec.h>
#include <pdplane/exporter.h>
#include <pdplane/node.h>

#include "api/api.h"
#include "conf/conf.h"
#include "discovery/sources.h"
#include "kv/kv.h"
#include "log/log.h"
#include "metric/metric.h"
#include "mod/host.h"
#include "mod/mod.h"
#include "net/keys.h"
#include "net/net.h"
#include "net/tls.h"
#include "node/endpoints.h"
#include "node/engines.h"
#include "node/generation.h"
#include "node/roles.h"
#include "node/sections.h"
#include "peer/peer.h"
#include "req/reqs.h"
#include "sched/plugins.h"
#include "sched/scheduler.h"

#define PD_NODE_TRANSPORTS_MAX PD_PEER_MAX_TRANSPORTS
#define PD_NODE_EXPORTERS_MAX 16u
#define PD_NODE_PARTS_MAX 16u
#define PD_NODE_READY_WAIT (5 * PD_SEC)

struct pd_node_params {
    struct pd_loop *loop;      /* borrowed until the node is gone */
    struct pd_log *log;        /* borrowed likewise */
    struct pd_mods *mods;      /* borrowed likewise; the units that conf names are loaded */
    struct pd_conf *conf;      /* one reference is taken; its root is a struct pd_node_conf */
    const char *name;          /* used when the configuration gives none */
    const char *host_id;       /* names the machine and its boot; NULL: unknown */
    bool is_second;            /* another process with this configuration still ends its requests:
                                  the node takes an identity of its own, and listens once it is
                                  ready or has waited for PD_NODE_READY_WAIT */
    uint64_t descriptors;      /* how many the node may have; 0: as many as the process.  For
                                  simulated nodes, which have none of the system's */
    /* Once, when the node listens: PD_OK, or err says why it cannot (then it is only
     * good for pd_node_destroy).  Never from inside pd_node_start; NULL is allowed. */
    void (*on_listening)(void *arg, pd_status status, const struct pd_err *err);
    void *arg;
};

struct pd_node_transport {
    const char *name;
    const struct pd_transport_ops *ops;
    struct pd_transport *transport;
    struct pd_log *log;
};

/* What a listener of the configuration needs besides its address. */
struct pd_node_door {
    struct pd_tls *tls;        /* NULL: plain */
    struct pd_keys *keys;      /* NULL: none needed */
};

struct pd_node_exporter {
    struct pd_node *node;
    const char *name;
    const struct pd_mod_unit *unit;
    const struct pd_exporter_ops *ops;
    const void *conf;          /* what it was made from */
    struct pd_conf *from;      /* keeps conf */
    struct pd_exporter *exporter;
    struct pd_log *log;
};

struct pd_node_codec {
    const struct pd_codec_ops *ops;
    struct pd_codec *codec;
    struct pd_log *log;
};

/* How attempts to take another configuration went. */
struct pd_node_reloads {
    uint64_t done, refused;
    uint64_t ended;            /* requests that a reload had left too long ago */
    pd_time took_ns;           /* by the last one that was done */
    pd_time refused_at;        /* the last one that was not; PD_TIME_NEVER: none since the last done */
    char why[700];             /* it was not */
};

struct pd_node_part {
    const char *name;          /* literal of the role */
    bool is_ready;
    char reason[96];
};

struct pd_node {
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_mods *mods;
    const struct pd_node_conf *root; /* of the current generation */
    struct pd_conf *first;     /* what transports and codecs were made from */
    struct pd_list generations; /* oldest first; the last one is the current */
    struct pd_node_generation *generation;
    uint64_t generation_number;
    struct pd_task sweep_task;
    struct pd_timer sweep_timer;
    struct pd_timer overdue_timer;
    struct pd_node_reloads reloads;
    char name[64];
    char host_id[64];
    struct pd_node_id id;
    bool is_second;
    bool waits_to_listen;
    struct pd_timer listen_timer;
    void (*on_listening)(void *arg, pd_status status, const struct pd_err *err);
    void *on_listening_arg;
    pd_time started_at;
    struct pd_host host;
    struct pd_metrics *metrics;
    struct pd_api *api;
    struct pd_reqs *reqs;
    struct pd_sched_plugins *plugins;
    const struct pd_sched_conf *plugins_conf; /* what they were made from */
    struct pd_conf *plugins_from;
    struct pd_sched *sched;
    struct pd_net net;
    uint64_t descriptors_given; /* see struct pd_node_params */
    uint64_t descriptors;      /* for connections of clients, and those to servers for them */
    uint32_t told_room;        /* connections of clients, as last logged */
    struct pd_peers *peers;
    struct pd_node_door *doors; /* one per listener of the configuration; see tls.c */
    struct pd_tls *link_out;    /* NULL: links are plain */
    struct pd_tls *link_in;
    struct pd_peer_watch *peer_watch;
    struct pd_kv *kv;
    struct pd_node_engine_unit *engines[PD_NODE_ENGINES_MAX];
    uint32_t n_engines;
    uint32_t engine_serial;
    struct pd_node_transport transports[PD_NODE_TRANSPORTS_MAX];
    uint32_t n_transports;
    struct pd_node_servers servers;
    struct pd_node_discovery *discovery; /* see discovery.c */
    struct pd_node_exporter *exporters[PD_NODE_EXPORTERS_MAX];
    uint32_t n_exporters;
    uint32_t n_exporters_ending;
    bool waits_for_exporters;  /* the node's end does */
    struct pd_node_codec codecs[PD_HOST_CODECS_MAX];
    uint32_t n_codecs;
    struct pd_node_role roles[PD_NODE_ROLES_MAX];
    uint32_t n_roles;
    struct pd_node_part parts[PD_NODE_PARTS_MAX];
    uint32_t n_parts;
    bool is_draining;
    bool is_closing;
    bool waits_for_generations;
    struct pd_node_meters *meters; /* see metrics.c */
    uint32_t n_undrained;      /* roles that still have work */
    void (*drained)(void *arg);
    void *drained_arg;
    void (*closed)(void *arg);
    void *closed_arg;
    struct pd_task close_task; /* the next step of destroy */
    uint32_t close_step;
};

/* Builds the node.  PD_OK; otherwise err says what is wrong and everything that
 * was built has been taken down again (asynchronous parts at the next turns of
 * the loop, before which it must not be destroyed: *out then holds a node that
 * is only good for pd_node_destroy). */
pd_status pd_node_create(const struct pd_node_params *params, struct pd_node **out, struct pd_err *err);
/* PD_OK, or err says why not; pd_node_destroy then. */
pd_status pd_node_start(struct pd_node *node, struct pd_err *err);
/* Takes another configuration into use: its root is a struct pd_node_conf whose
 * units are loaded.  A reference is taken.  PD_OK: it holds from here on; what
 * only the one before uses ends with its requests.  Otherwise err says why and
 * nothing has changed.  Not while the node drains (PD_EBUSY). */
pd_status pd_node_reload(struct pd_node *node, struct pd_conf *conf, struct pd_err *err);
/* A configuration that could not even be read. */
void pd_node_reload_refused(struct pd_node *node, const struct pd_err *err);
/* done follows once no role has work left; may be called once. */
void pd_node_drain(struct pd_node *node, void (*done)(void *arg), void *arg);
/* closed is the last call; the node is gone before it. */
void pd_node_destroy(struct pd_node *node, void (*closed)(void *arg), void *arg);

/* Whether every part that ever spoke can do its work; reason (may be NULL) gets
 * the first that cannot. */
bool pd_node_is_ready(const struct pd_node *node, const struct pd_node_part **reason);

/* The table of <pdplane/node.h>. */
const struct pd_node_api *pd_node_functions(void);

/* Private to core/node. */
/* How many connections of a kind there may be at a time. */
struct pd_node_room {
    uint32_t clients, servers, operators, refusing;
};
/* Sets node->descriptors, once, before there are clients.  PD_OK; PD_ELIMIT with
 * err: too few for anything. */
pd_status pd_node_room_find(struct pd_node *node, struct pd_err *err);
/* What of them each gets with a configuration. */
void pd_node_room_share(struct pd_node *node, const struct pd_node_conf *c, struct pd_node_room *out);
struct pd_instance_ctx pd_node_ctx(struct pd_node *node, const char *name, struct pd_log *log);
/* Names the place of a configuration group in an error that has none; returns status. */
pd_status pd_node_at_place(struct pd_err *err, const struct pd_conf_place *place, pd_status status);
/* The description of the node with these engines; `out` borrows from `engines`
 * (room for PD_NODE_ENGINES_MAX), name and listener are those of now. */
void pd_node_describe(struct pd_node *node, const struct pd_node_conf *c,
                      struct pd_node_engine_unit *const *units, uint32_t n, struct pd_peer_engine *engines,
                      struct pd_peer_desc *out);
pd_status pd_node_region_add(struct pd_node *node, struct pd_node_engine_unit *u, struct pd_err *err);
pd_status pd_node_sched_build(struct pd_node *node, const struct pd_node_conf *c, struct pd_conf *conf,
                              struct pd_err *err);
/* The HTTP server of an api, made when there is none. */
pd_status pd_node_server(struct pd_node *node, const struct pd_node_conf *c, uint32_t api,
                         struct pd_http_server **out, struct pd_err *err);
/* Limits that may change while servers run. */
void pd_node_limits_apply(struct pd_node *node);
/* listen.c */
pd_status pd_node_listen_http(struct pd_node *node, const struct pd_node_listen_conf *l,
                              const struct pd_node_door *door, struct pd_err *err);
/* The listener for peers, and the peers to dial. */
pd_status pd_node_listen_peers(struct pd_node *node, struct pd_err *err);
/* Those for clients and operators. */
pd_status pd_node_listen_all_http(struct pd_node *node, struct pd_err *err);
pd_status pd_node_dial(struct pd_node *node, const struct pd_node_peer_conf *p, struct pd_err *err);
pd_status pd_node_build(struct pd_node *node, struct pd_err *err);
/* TLS and keys: of listeners and links, and of one endpoint (e->host is set). */
pd_status pd_node_tls_build(struct pd_node *node, struct pd_err *err);
/* TLS and keys of one listener, made anew from their files. */
pd_status pd_node_door_build(struct pd_node *node, const struct pd_node_listen_conf *l,
                             struct pd_node_door *door, struct pd_err *err);
void pd_node_door_free(struct pd_node *node, struct pd_node_door *door);
pd_status pd_node_tls_endpoint(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                               struct pd_node_endpoint *e, struct pd_err *err);
void pd_node_tls_free(struct pd_node *node);
/* Whether url and TLS of one endpoint can be used; nothing stays. */
pd_status pd_node_endpoint_check(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                                 struct pd_err *err);
/* Sources of endpoints and peers; discovery.c. */
pd_status pd_node_discovery_build(struct pd_node *node, struct pd_err *err);
pd_status pd_node_discovery_start(struct pd_node *node, struct pd_err *err);
void pd_node_discovery_close(struct pd_node *node, void (*closed)(void *arg), void *arg);
/* Another set of sources, in two steps; what is equal stays.  prepare: PD_OK, or err
 * says why not; its sources run already, but are not used. */
struct pd_node_discovery_change;
pd_status pd_node_discovery_prepare(struct pd_node *node, const struct pd_node_conf *root, struct pd_conf *conf,
                                    struct pd_node_discovery_change **out, struct pd_err *err);
void pd_node_discovery_commit(struct pd_node *node, struct pd_node_discovery_change *change);
void pd_node_discovery_abort(struct pd_node_discovery_change *change);
/* NULL while the node is not built. */
struct pd_sources *pd_node_sources(const struct pd_node *node);
pd_status pd_node_admin_routes(struct pd_node *node);
pd_status pd_node_metrics_add(struct pd_node *node);
void pd_node_metrics_free(struct pd_node *node);
/* Follows what the node is made of now. */
void pd_node_metrics_rebuild(struct pd_node *node);
/* Exporters: instances and their paths; their paths on an admin server that was
 * made later; what they do by themselves; the end of all of them (true: the node's
 * close task runs again when they have ended). */
pd_status pd_node_exporters_build(struct pd_node *node, struct pd_err *err);
pd_status pd_node_exporters_route(struct pd_node *node, struct pd_err *err);
pd_status pd_node_exporters_start(struct pd_node *node, struct pd_err *err);
bool pd_node_exporters_close(struct pd_node *node);
/* Others, in two steps; what is equal stays.  prepare: PD_OK, or err says why not. */
struct pd_node_exporters_change;
pd_status pd_node_exporters_prepare(struct pd_node *node, const struct pd_node_conf *root, struct pd_conf *conf,
                                    struct pd_node_exporters_change **out, struct pd_err *err);
void pd_node_exporters_commit(struct pd_node *node, struct pd_node_exporters_change *change);
void pd_node_exporters_abort(struct pd_node_exporters_change *change);

#endif
