/* SPDX-License-Identifier: Apache-2.0 */
/* The peer table of a node, for the core.  The rest of its functions, and all
 * struct types, are in <pdplane/peer.h>; pd_peer_table() gives them.
 *
 * Everything here: loop thread. */
#ifndef PD_PEER_PEER_H
#define PD_PEER_PEER_H

#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>
#include <pdplane/peer.h>

#define PD_PEER_MAX_SECRET 256

struct pd_tls;

/* How long peers may be silent, and connections may take to come about. */
struct pd_peers_times {
    pd_time heartbeat, suspect, dead, connect_timeout;
};

/* What pd_peers_create needs.  Zero numbers stand for the defaults named. */
struct pd_peers_conf {
    struct pd_loop *loop;
    struct pd_log *log;                /* may be NULL */
    struct pd_metrics *metrics;        /* may be NULL */
    const struct pd_peer_desc *self;   /* copied; id must be set */
    struct pd_tls *tls;                /* for links that we open; NULL: plain; borrowed */
    struct pd_str secret;              /* shared by all nodes; empty: no authentication; copied */
    /* Fills one report per engine of self, in order; may be NULL. */
    void (*load)(struct pd_engine_load *out, uint32_t n, void *arg);
    void *load_arg;
    pd_time heartbeat;                 /* 1 s */
    pd_time suspect;                   /* 2.5 s without a byte */
    pd_time dead;                      /* 3.5 s */
    pd_time patience;                  /* 2.5 s; what counts instead while calls are open */
    pd_time connect_timeout;           /* 2.5 s for connect and hello */
    pd_time backoff_min;               /* 100 ms */
    pd_time backoff_max;               /* 5 s */
    pd_time forget;                    /* 60 s: a peer that is down and not configured is gone */
    uint32_t max_peers;                /* 1024 */
    uint32_t max_links;                /* 2048, those without a peer yet included */
    uint32_t max_calls;                /* per link and direction, 16384 */
    uint32_t max_message;              /* bytes, 16 MiB */
    uint32_t window;                   /* bytes per call and direction, 256 KiB */
    uint32_t call_queue;               /* bytes that wait per call before PD_EAGAIN, 1 MiB */
    uint32_t link_queue;               /* bytes that wait per link, 1 MiB */
};

/* Whether they go together; otherwise PD_EINVAL and err. */
pd_status pd_peers_times_check(const struct pd_peers_times *times, struct pd_err *err);
/* Other times, which were checked, for all links from here on; no link ends because of
 * what was silence before. */
void pd_peers_set_times(struct pd_peers *peers, const struct pd_peers_times *times);
/* PD_OK, PD_EINVAL (err filled), PD_ENOMEM. */
pd_status pd_peers_create(const struct pd_peers_conf *conf, struct pd_peers **out,
                          struct pd_err *err);
/* Says goodbye on all links and closes them; on_closed is the last callback,
 * the table is gone after it.  Calls that are open end with PD_EPEER. */
void pd_peers_destroy(struct pd_peers *peers, void (*on_closed)(void *arg), void *arg);

/* Accepts peers on "host:port"; *port gets the number bound (may be NULL).
 * PD_OK or err filled. */
pd_status pd_peers_listen(struct pd_peers *peers, struct pd_str address, uint16_t *port,
                          struct pd_err *err);
/* The same with TLS (borrowed; NULL: plain).  A peer whose certificate names a
 * node must be that node. */
pd_status pd_peers_listen_tls(struct pd_peers *peers, struct pd_str address, struct pd_tls *tls,
                              uint16_t *port, struct pd_err *err);
/* Takes a stream that somebody else accepted (a listener with TLS, an inherited
 * socket) as a peer's; it is closed when it is one too many. */
void pd_peers_accept(struct pd_peers *peers, struct pd_stream *stream);
/* Keeps a link to this address for ever, with jittered back-off.  PD_OK, PD_EINVAL,
 * PD_EEXIST, PD_ELIMIT, PD_ENOMEM. */
pd_status pd_peers_dial(struct pd_peers *peers, struct pd_str address);
/* Whether pd_peers_dial would take this address: a numeric one, or HOST:PORT. */
bool pd_peers_can_dial(struct pd_loop *loop, struct pd_str address);
/* Forgets an address; a link that is up stays until it breaks.  PD_OK, PD_ENOENT. */
pd_status pd_peers_undial(struct pd_peers *peers, struct pd_str address);
/* The peer behind a configured address gets no new work from here (true), or may
 * again; it may be unknown yet.  PD_OK, PD_ENOENT. */
pd_status pd_peers_rest(struct pd_peers *peers, struct pd_str address, bool is_resting);
/* New description of this node (identity stays); told to all peers, and to those
 * who watch this node. */
pd_status pd_peers_update(struct pd_peers *peers, const struct pd_peer_desc *self);
/* The same in two steps.  Prepare: PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: commit,
 * which cannot fail, or abort. */
struct pd_peers_change;
pd_status pd_peers_prepare(struct pd_peers *peers, const struct pd_peer_desc *self,
                           struct pd_peers_change **out);
void pd_peers_commit(struct pd_peers *peers, struct pd_peers_change *change);
void pd_peers_abort(struct pd_peers_change *change);
/* What this node says of itself; borrowed until it changes. */
const struct pd_peer_desc *pd_peers_self(const struct pd_peers *peers);
/* Sets the drain flag that peers see. */
void pd_peers_drain(struct pd_peers *peers, bool draining);

/* The functions of <pdplane/peer.h>. */
const struct pd_peer_api *pd_peer_table(void);

#endif
