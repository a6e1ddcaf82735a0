/* SPDX-License-Identifier: Apache-2.0 */
/* The whole configuration of a node: one struct that pd_conf_fill fills from
 * pd_node_sections().  Sections that belong to a folder of the core are declared
 * there; this table only says where they stand. */
#ifndef PD_NODE_SECTIONS_H
#define PD_NODE_SECTIONS_H

#include <pdplane/conf.h>

#include "conf/conf.h"
#include "kv/kv.h"
#include "mod/mod.h"
#include "peer/peer.h"
#include "req/reqs.h"
#include "sched/options.h"

enum {
    PD_LISTEN_OPENAI = 1,       /* clients: /v1/... */
    PD_LISTEN_ADMIN = 2,        /* /metrics, /health, /ready, /status */
    PD_LISTEN_PEER = 3          /* other nodes */
};

/* TLS of a listener, an upstream or the links. */
struct pd_node_tls_conf {
    const char *certificate;
    const char *key;
    const char *passphrase;     /* the file with it; NULL: the key has none */
    const char *ca;
    const char *name;
    struct pd_conf_place place;
};

struct pd_node_listen_conf {
    const char *address;        /* "host:port" or "[v6]:port" */
    uint32_t api;               /* PD_LISTEN_* */
    const char *advertise;      /* what peers are told instead of address; NULL: address */
    const struct pd_node_tls_conf *tls; /* NULL: plain */
    const char *api_keys_file;  /* NULL: no key is needed */
    struct pd_conf_place place;
};

struct pd_node_engine_conf {
    const char *name;
    struct pd_conf_unit unit;   /* PD_KIND_ENGINE */
    const char *served;         /* model name that clients use; NULL: what the engine says */
    uint64_t roles;             /* PD_ROLE_* */
    struct pd_conf_place place;
};

struct pd_node_endpoint_conf {
    const char *name;
    struct pd_conf_unit unit;   /* PD_KIND_ADAPTER */
    uint64_t roles;             /* PD_ROLE_* */
    const char *url;
    const struct pd_node_tls_conf *tls; /* NULL: the defaults, when url is https:// */
    struct pd_conf_strings models; /* none: what the server lists */
    int64_t weight;
    struct pd_conf_place place;
    uint64_t epoch;             /* of a discovered one; no row */
};

/* A source of endpoints and peers. */
struct pd_node_discovery_conf {
    const char *name;
    struct pd_conf_unit unit;   /* PD_KIND_DISCOVERY */
    struct pd_conf_list endpoint; /* struct pd_node_endpoint_conf without name and url: how servers
                                     are used, one for each adapter */
    pd_time stale_ok;
    pd_time linger;
    int64_t max;
    struct pd_conf_strings networks;
    const char *role_label;     /* NULL: none */
    const char *model_label;    /* NULL: none */
    struct pd_conf_place place;
};

struct pd_node_peer_conf {
    const char *address;
    struct pd_conf_place place;
};

struct pd_node_link_conf {
    const char *secret;         /* NULL: no authentication */
    const struct pd_node_tls_conf *tls; /* NULL: plain */
    pd_time heartbeat;
    pd_time suspect;
    pd_time dead;
    pd_time patience;
    pd_time connect_timeout;
};

struct pd_node_kv_conf {
    uint32_t digests;           /* PD_KV_DIGESTS_* */
    pd_time lease;
    pd_time connect_timeout;
    uint64_t inflight;          /* bytes */
};

struct pd_node_limits_conf {
    int64_t connections;
    uint64_t memory;
    uint64_t head_timeout, body_timeout, write_timeout, idle_timeout;
};

enum { PD_LOG_TEXT = 0, PD_LOG_JSON = 1 };

struct pd_node_log_conf {
    uint32_t level;             /* PD_LOG_ERROR ... */
    uint32_t format;            /* PD_LOG_TEXT, PD_LOG_JSON */
    const char *file;           /* NULL: standard error */
};

struct pd_node_self_conf {
    const char *name;           /* NULL: the machine's name */
    const char *state;          /* folder for the identity; NULL: a new one at each start */
};

struct pd_node_conf {
    struct pd_conf_strings load;
    struct pd_conf_strings module_path;
    const char *pid_file;
    pd_time drain;
    pd_time reload_drain;
    struct pd_node_self_conf node;
    struct pd_conf_list roles;      /* struct pd_conf_unit, one per loaded role */
    struct pd_conf_list listen;     /* struct pd_node_listen_conf */
    struct pd_conf_list engines;    /* struct pd_node_engine_conf */
    struct pd_conf_list endpoints;  /* struct pd_node_endpoint_conf */
    struct pd_conf_list discovery;  /* struct pd_node_discovery_conf */
    struct pd_conf_list peers;      /* struct pd_node_peer_conf */
    struct pd_node_link_conf link;
    struct pd_conf_list transports; /* struct pd_conf_unit, one per loaded transport */
    struct pd_conf_list exporters;  /* struct pd_conf_unit, one per loaded exporter */
    struct pd_conf_list codecs;     /* struct pd_conf_unit, one per loaded codec */
    struct pd_node_kv_conf kv;
    struct pd_sched_conf scheduler;
    struct pd_reqs_conf requests;
    struct pd_node_limits_conf limits;
    struct pd_node_log_conf log;
    const char *control;            /* path of the control socket, NULL: none */
    const char *user;               /* whom the process becomes; NULL: it stays who it is */
    const char *group;
    bool core_files;
};

/* ---- sections.c */
/* The rows of struct pd_node_conf, and the one of that name. */
const struct pd_option *pd_node_sections(void);
const struct pd_option *pd_node_section(const char *name);
/* The rows of one endpoint, one listener, one source. */
const struct pd_option *pd_node_endpoint_rows(void);
const struct pd_option *pd_node_listen_rows(void);
const struct pd_option *pd_node_discovery_rows(void);
/* Whether two listeners have the same TLS; either may be NULL. */
bool pd_node_tls_equal(const struct pd_node_tls_conf *a, const struct pd_node_tls_conf *b);
/* Whether the top level option of that name is the same in both. */
bool pd_node_section_equal(const char *name, const struct pd_node_conf *a, const struct pd_node_conf *b);
/* Whether links are secured in the same way; their times may differ. */
bool pd_node_link_equal(const struct pd_node_link_conf *a, const struct pd_node_link_conf *b);
/* The times of links. */
struct pd_peers_times pd_node_link_times(const struct pd_node_link_conf *link);
/* Where it stands in a configuration; line 0: nowhere. */
void pd_node_section_place(const char *name, const struct pd_conf *conf, struct pd_conf_place *out);

/* ---- conf_read.c */
/* Reads a configuration the whole way: opens path (or, when text is not NULL,
 * reads *text and calls it path), sets module_path, loads the modules that
 * `load` names and fills everything; the filled struct is pd_conf_root(*out).
 * PD_OK, or the report says why.  mods keeps the modules either way.  Gives:
 * pd_conf_put.  Main thread. */
pd_status pd_node_conf_read(const char *path, const struct pd_str *text, const struct pd_conf_source *src,
                            struct pd_mods *mods, struct pd_conf_report *report, struct pd_conf **out);

/* The same for a configuration that is open already.  Takes: conf, also on failure. */
pd_status pd_node_conf_complete(struct pd_conf *conf, struct pd_mods *mods, struct pd_conf_report *report,
                                struct pd_conf **out);

/* Only sets mods' folders from the setting module_path. */
void pd_node_conf_module_path(struct pd_conf *conf, struct pd_mods *mods, struct pd_conf_report *report);
/* Whether an open configuration loads a module that is not loaded yet; false also
 * when `load` cannot be read. */
bool pd_node_conf_wants_new(struct pd_conf *conf, const struct pd_mods *mods);
/* The settings that hold before any module is loaded. */
struct pd_node_early {
    struct pd_conf_list listen;     /* struct pd_node_listen_conf */
    struct pd_node_log_conf log;
    const char *control;
    const char *pid_file;
    const char *user;
    const char *group;
};
/* Reads a configuration as far as these.  The filled struct borrows from *out.
 * PD_OK, or the report says why.  Gives: pd_conf_put. */
pd_status pd_node_conf_early(const char *file, const struct pd_conf_source *src,
                             struct pd_conf_report *report, struct pd_node_early *early,
                             struct pd_conf **out);
/* Only finds the setting pid_file of a file, without loading modules; path is
 * "" when there is none. */
void pd_node_conf_pid_file(const char *file, const struct pd_conf_source *src, struct pd_conf_report *report,
                           char *path, size_t size);

#endif
