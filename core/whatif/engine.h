/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated server: speaks HTTP as vLLM and SGLang servers do and computes
 * nothing, but takes the time that its class says (whatif/classes.h).  Behind the
 * HTTP are a queue, a batch that advances in steps, and a cache of prefixes.
 *
 * Prefill and decode apart: vLLM's kv_transfer_params are answered and wanted; of
 * SGLang's pairs the decode side waits for the prefill side with the same
 * bootstrap_room.  A transfer takes its time before the sequence is queued.
 *
 * Not simulated: preemption (a sequence starts when its whole answer has room),
 * and what servers refuse by themselves.  Loop thread. */
#ifndef PD_WHATIF_ENGINE_H
#define PD_WHATIF_ENGINE_H

#include <pdplane/loop.h>

#include "base/map.h"
#include "whatif/classes.h"

struct pd_whatif_engine;

#define PD_WHATIF_ROOMS_MAX 65536u

/* Pairs of one run: what decode servers wait for. */
struct pd_whatif_rooms {
    struct pd_idmap done;       /* computed, and nobody asked yet */
    struct pd_idmap waiting;    /* asked for, not computed yet */
};

struct pd_whatif_engine_opts {
    const char *name;           /* of the endpoint; what is borrowed lasts as long as the engine */
    const struct pd_whatif_class *class;
    const char *const *models;
    uint64_t n_models;
    uint64_t roles;             /* PD_ROLE_*, of the endpoint */
    struct pd_addr addr;
    struct pd_whatif_rooms *rooms;
};

struct pd_whatif_engine_stats {
    uint64_t requests;          /* sequences that arrived */
    uint64_t answers;           /* ended whole */
    uint64_t gone;              /* the router or its client left, or the server was killed */
    uint64_t refused;           /* larger than the memory, or malformed */
    uint64_t prompt_tokens;     /* of sequences that began here; a transferred one counts as computed elsewhere */
    uint64_t cached_tokens;     /* of these */
    uint64_t output_tokens;
    uint64_t steps;
    pd_time busy;               /* in steps */
    double running_ns;          /* sum of running sequences by time */
    uint32_t waiting_max;
    uint64_t short_of_memory;   /* times that this process was: figures are wrong then */
};

/* PD_OK, PD_ENOMEM, or what listening gave; *out is NULL or is to be closed either way. */
pd_status pd_whatif_engine_create(struct pd_loop *loop, const struct pd_whatif_engine_opts *opts,
                                  struct pd_whatif_engine **out);
/* Dies at once: connections are cut, new ones refused, its memory is lost. */
void pd_whatif_engine_kill(struct pd_whatif_engine *e);
/* It answers again, with an empty cache; what create gave. */
pd_status pd_whatif_engine_revive(struct pd_whatif_engine *e);
/* From now on steps take so many times as long. */
void pd_whatif_engine_slow(struct pd_whatif_engine *e, double factor);
/* Ends and frees it; on_closed follows. */
void pd_whatif_engine_close(struct pd_whatif_engine *e, void (*on_closed)(void *arg), void *arg);
const struct pd_whatif_engine_stats *pd_whatif_engine_stats(const struct pd_whatif_engine *e);

#endif
