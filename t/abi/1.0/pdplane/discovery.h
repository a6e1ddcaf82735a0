/* SPDX-License-Identifier: Apache-2.0 */
/* Discovery kind: which servers and nodes there are, told while the node runs.
 * Stable.
 *
 * An instance is a source: one file, one name in DNS, one service of a cluster.
 * It tells the core of entries through a sink, as whole sets or as changes; the
 * core checks each entry, settles what several sources say, adds and drains
 * endpoints, and keeps the last set for a time when a source is lost.
 *
 *     pd_discovery_begin(sink);              // a whole set
 *     pd_discovery_put(sink, &entry);        // ... each of its entries
 *     pd_discovery_end(sink);                // what was not put is gone
 *
 *     pd_discovery_put(sink, &entry);        // a change: new, or other than before
 *     pd_discovery_remove(sink, name);       // a change: gone
 *     pd_discovery_synced(sink);             // what was told is how it is now
 *
 *     pd_discovery_lost(sink, "no route to the API server");
 *     pd_discovery_broken(sink, "pool.json:7: expected a comma");
 *
 * Threads: everything on the loop's thread.  A module that must block (files,
 * libraries) does so on a work queue of the loop.  Ownership: what an entry
 * points to is borrowed for the call and copied by the core. */
#ifndef PDPLANE_DISCOVERY_H
#define PDPLANE_DISCOVERY_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_DISCOVERY_V1 1u

/* Limits of an entry; one that exceeds them is refused. */
#define PD_DISCOVERY_NAME_MAX 127u      /* bytes */
#define PD_DISCOVERY_ADDRESS_MAX 300u   /* bytes */
#define PD_DISCOVERY_MODELS_MAX 64u
#define PD_DISCOVERY_MODEL_MAX 127u     /* bytes */
#define PD_DISCOVERY_WEIGHT_MAX 10000u
#define PD_DISCOVERY_LABELS_MAX 64u
#define PD_DISCOVERY_KEY_MAX 317u       /* bytes */
#define PD_DISCOVERY_VALUE_MAX 255u     /* bytes */

enum {
    PD_DISCOVERY_SERVER = 1,   /* a server outside of pdplane; address is http://HOST:PORT or https:// */
    PD_DISCOVERY_PEER = 2      /* a pdplane node; address is HOST:PORT of its peer listener */
};

struct pd_discovery_label {
    struct pd_str key;
    struct pd_str value;
};

/* A server or node as a source knows it.  Zero members are unknown: the
 * configuration of the source says what holds then. */
struct pd_discovery_entry {
    uint32_t size;
    uint32_t what;             /* PD_DISCOVERY_SERVER, PD_DISCOVERY_PEER */
    struct pd_str name;        /* unique in the source, and the same as long as it is the same thing:
                                  letters, digits and . _ - : / [ ] */
    struct pd_str address;     /* see `what`; HOST is a name or a numeric address */
    struct pd_str type;        /* of a server: which adapter; empty: the first of the configuration */
    uint64_t epoch;            /* another number under the same name is another server, without what
                                  was cached there; 0 unknown */
    uint32_t roles;            /* PD_ROLE_PREFILL | PD_ROLE_DECODE */
    uint32_t weight;           /* at most PD_DISCOVERY_WEIGHT_MAX */
    const struct pd_str *models;
    const struct pd_discovery_label *labels;
    uint32_t n_models;
    uint32_t n_labels;
};

/* Where a source tells what it knows; the core's, valid until destroy returns. */
struct pd_discovery_sink;

struct pd_discovery_sink_ops {
    size_t size;
    void (*begin)(struct pd_discovery_sink *sink);
    pd_status (*put)(struct pd_discovery_sink *sink, const struct pd_discovery_entry *entry);
    void (*remove)(struct pd_discovery_sink *sink, struct pd_str name);
    void (*end)(struct pd_discovery_sink *sink);
    void (*synced)(struct pd_discovery_sink *sink);
    void (*lost)(struct pd_discovery_sink *sink, const char *why);
    void (*broken)(struct pd_discovery_sink *sink, const char *why);
};

/* First member of every sink; the rest belongs to the core. */
struct pd_discovery_sink {
    const struct pd_discovery_sink_ops *ops;
};

/* Begins a whole set.  Nothing of it holds before `end`; `lost`, `broken` or
 * another begin drops it. */
static inline void pd_discovery_begin(struct pd_discovery_sink *sink)
{
    sink->ops->begin(sink);
}

/* An entry: one of the set that was begun, or else a change that holds at once.
 * PD_OK; PD_EINVAL: refused, the core has logged why; PD_EEXIST: the set has an
 * entry of this name already; PD_ELIMIT: too many; PD_ENOMEM.  After a refusal
 * the source goes on with its other entries; an entry of this name that was
 * told before stays as it was until a set ends without it. */
static inline pd_status pd_discovery_put(struct pd_discovery_sink *sink,
                                         const struct pd_discovery_entry *entry)
{
    return sink->ops->put(sink, entry);
}

/* The entry of this name is gone; harmless when there is none.  Not between
 * begin and end. */
static inline void pd_discovery_remove(struct pd_discovery_sink *sink, struct pd_str name)
{
    sink->ops->remove(sink, name);
}

/* The set is whole and holds from now on. */
static inline void pd_discovery_end(struct pd_discovery_sink *sink)
{
    sink->ops->end(sink);
}

/* What was told is current, though nothing may have changed: after changes, and
 * after each look that found none. */
static inline void pd_discovery_synced(struct pd_discovery_sink *sink)
{
    sink->ops->synced(sink);
}

/* The source cannot be read now; may be called again while that lasts.  What
 * was told stays in use for a time.  Ended by `end` or `synced`.  why: one
 * sentence without full stop, without secrets, copied. */
static inline void pd_discovery_lost(struct pd_discovery_sink *sink, const char *why)
{
    sink->ops->lost(sink, why);
}

/* The source can be read, but what it says cannot be understood (a file with a
 * mistake).  What was told stays in use until it can.  Otherwise as lost. */
static inline void pd_discovery_broken(struct pd_discovery_sink *sink, const char *why)
{
    sink->ops->broken(sink, why);
}

enum {
    PD_DISCOVERY_FIXED = 1u << 0,      /* the first set is the last one */
    PD_DISCOVERY_REFRESH = 1u << 1     /* `refresh` works */
};

struct pd_discovery;           /* an instance: a source */

struct pd_discovery_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1) */
    uint32_t flags;            /* PD_DISCOVERY_FIXED ... */
    uint32_t reserved;
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                        struct pd_err *err);
    /* The source begins to tell; within 10 s the first `end`, `synced`, `lost` or
     * `broken` is expected.  The sink is never called from inside an operation.  Once. */
    pd_status (*start)(struct pd_discovery *discovery, struct pd_discovery_sink *sink,
                       struct pd_err *err);
    /* Look again soon, without waiting for the next time.  NULL unless flags say
     * that it works. */
    void (*refresh)(struct pd_discovery *discovery);
    /* Ends the source, also one that never started.  The sink is not called any
     * more; on_closed is the last thing that happens, and not from inside. */
    void (*destroy)(struct pd_discovery *discovery, void (*on_closed)(void *arg), void *arg);
};

#ifdef __cplusplus
}
#endif
#endif
