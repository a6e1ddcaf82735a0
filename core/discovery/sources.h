/* SPDX-License-Identifier: Apache-2.0 */
/* The sources of a node: instances of discovery units, what each of them says
 * now, and which of it is used.  What sources say is settled here: who comes
 * first keeps a name and an address; an entry that goes leaves first (no new
 * work) and is forgotten after a time; a source that is lost, or that suddenly
 * names nothing, keeps its entries for a time.  The node does what the events
 * say.  Loop thread. */
#ifndef PD_DISCOVERY_SOURCES_H
#define PD_DISCOVERY_SOURCES_H

#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>

#include "discovery/entry.h"

#define PD_SOURCES_MAX 64u
#define PD_SOURCE_ENTRIES_MAX 16384u    /* of one source */

enum {
    PD_SOURCE_STARTING = 0,    /* has told nothing yet */
    PD_SOURCE_SYNCED = 1,
    PD_SOURCE_LOST = 2,        /* cannot be read; its entries stay for stale_ok */
    PD_SOURCE_EMPTY = 3,       /* names nothing any more; its entries stay likewise */
    PD_SOURCE_GIVEN_UP = 4,    /* was lost for too long; its entries went */
    PD_SOURCE_BROKEN = 5       /* says what cannot be understood; its entries stay */
};

/* Strings and rules are borrowed as long as the source is there. */
struct pd_source_conf {
    const char *name;          /* unique among the sources */
    const char *unit;          /* "dns", for people */
    const struct pd_discovery_ops *ops;
    const void *conf;          /* of the unit */
    struct pd_entry_rules rules;
    pd_time stale_ok;          /* how long entries stay without the source */
    pd_time linger;            /* how long an entry that went is remembered */
    uint32_t max;              /* entries, at most PD_SOURCE_ENTRIES_MAX */
    void *user;                /* the owner's; comes back in events */
    void (*gone)(void *user);  /* once, also when the source could not be made: nothing is borrowed any
                                  more; NULL: none */
};

struct pd_sources_events {
    /* The entry is to be used.  PD_OK, or err says why it cannot be. */
    pd_status (*add)(const struct pd_entry *entry, const void *user, struct pd_err *err, void *arg);
    /* The same thing is described in another way.  PD_OK, or err says why that
     * cannot be used: the old way has gone then. */
    pd_status (*change)(const struct pd_entry *before, const struct pd_entry *entry, const void *user,
                        struct pd_err *err, void *arg);
    /* It went and gets no new work (true), or it is back (false). */
    void (*leave)(const struct pd_entry *entry, const void *user, bool is_leaving, void *arg);
    /* It is not remembered any more. */
    void (*remove)(const struct pd_entry *entry, const void *user, void *arg);
};

struct pd_sources_params {
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_metrics *metrics;
    struct pd_host *host;
    struct pd_node_id node;
    const struct pd_sources_events *events; /* borrowed */
    void *arg;
};

/* A source as tables show it; strings are borrowed until the loop turns. */
struct pd_source_info {
    const char *name;
    const char *unit;
    uint32_t state;            /* PD_SOURCE_* */
    uint32_t entries;          /* that it names now, or named last */
    uint32_t used;             /* of them */
    uint32_t leaving;
    uint64_t updates;          /* entries that came, changed or went */
    uint64_t refused;          /* entries that were not taken */
    uint64_t losses;
    pd_time synced_age;        /* PD_TIME_NEVER: never synced */
    pd_time stays;             /* time left for the entries of a lost source; PD_TIME_NEVER */
    const char *why;           /* it is lost, or what it said last that was refused; "" */
};

enum {
    PD_SOURCE_ENTRY_USED = 1,
    PD_SOURCE_ENTRY_LEAVING = 2,
    PD_SOURCE_ENTRY_REFUSED = 3,
    PD_SOURCE_ENTRY_WAITING = 4     /* about to be used */
};

struct pd_source_entry_info {
    const struct pd_entry *entry;
    const char *source;
    uint32_t state;            /* PD_SOURCE_ENTRY_* */
    const char *why;           /* refused; "" */
};

struct pd_sources;
struct pd_source;

/* PD_OK, PD_ENOMEM. */
pd_status pd_sources_create(const struct pd_sources_params *params, struct pd_sources **out);
/* Creates one more source.  PD_OK, or err says why not.  Before start. */
pd_status pd_sources_add(struct pd_sources *sources, const struct pd_source_conf *conf, struct pd_err *err);
/* Starts them all.  PD_OK, or err says why not; destroy then. */
pd_status pd_sources_start(struct pd_sources *sources, struct pd_err *err);
/* For a set of sources that changes while they run.  begin creates and starts one
 * that is in no set yet; PD_OK, or err says why not.  commit makes these the sources
 * of the node, in this order: some of before, and some that were begun.  What was in
 * use of one that is not among them passes to the one of the same name, which keeps
 * what was said last until it knows better (not when other networks are allowed);
 * without such a one it goes at once.  end is for one that was begun in vain. */
pd_status pd_source_begin(struct pd_sources *sources, const struct pd_source_conf *conf,
                          struct pd_source **out, struct pd_err *err);
void pd_source_end(struct pd_source *source);
void pd_sources_commit(struct pd_sources *sources, struct pd_source *const *list, uint32_t n);
/* The index-th source; NULL at the end. */
struct pd_source *pd_sources_at(const struct pd_sources *sources, uint32_t index);
/* Ends all sources; no event comes any more.  on_closed is the last call. */
void pd_sources_destroy(struct pd_sources *sources, void (*on_closed)(void *arg), void *arg);

/* Asks sources that can to look again now. */
void pd_sources_refresh(struct pd_sources *sources);
/* Something outside of the sources has changed: what was refused may fit now. */
void pd_sources_settle(struct pd_sources *sources);

/* The index-th source; false at the end. */
bool pd_sources_info(const struct pd_sources *sources, uint32_t index, struct pd_source_info *out);
/* Walks the entries of all sources, those that leave included; start with two
 * zeros in cursor.  False at the end. */
bool pd_sources_entry_next(const struct pd_sources *sources, size_t cursor[2],
                           struct pd_source_entry_info *out);
/* The source that brought the endpoint or address of this name into use; NULL. */
const char *pd_sources_of(const struct pd_sources *sources, struct pd_str name);
const char *pd_source_state_name(uint32_t state);

#endif
