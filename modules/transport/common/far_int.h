/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of far ends share: far.c, beacon.c, copy.c.  All on the loop of the
 * transport. */
#ifndef PD_XP_FAR_INT_H
#define PD_XP_FAR_INT_H

#include "fabric.h"
#include "link.h"

#define PD_XP_BEACON 16u          /* bytes of a beacon */

enum { PD_XP_COPY_WAITS, PD_XP_COPY_RUNS, PD_XP_COPY_DONE, PD_XP_COPY_PROBES };

struct pd_xp_copy {
    TAILQ_ENTRY(pd_xp_copy) link;      /* in far->copies or far->spare */
    TAILQ_ENTRY(pd_xp_copy) of_window; /* while it has one */
    struct pd_xp_far *far;
    struct pd_transport_window *window;
    uint64_t offset;              /* in the window */
    uint64_t skip;                /* bytes of the next piece that are asked for */
    uint32_t bytes, asked;
    uint32_t id;
    uint32_t next, n;             /* pieces */
    uint32_t flying;
    uint32_t state;
    pd_status verdict;
    uint8_t body[PD_XP_SMALL];
};

struct pd_xp_far_memory {
    uint32_t id;                  /* 0: free */
    uint64_t bytes;
    struct pd_xp_key *key;
};

struct pd_xp_far {
    struct pd_transport *tp;
    struct pd_xp_lane *lane;      /* NULL: gone */
    TAILQ_ENTRY(pd_xp_far) link;
    struct pd_xp_way *way;        /* NULL: closed */
    struct pd_xp_copies copies, spare;
    uint32_t n_copies;
    uint32_t flying;
    pd_time last_got;
    pd_status broken;
    struct pd_xp_copy *probe;     /* of the beacon; NULL when it is over */
    struct pd_xp_key *beacon;
    bool is_read, is_ready;
    struct pd_xp_far_memory memories[PD_XP_MAX_MAPS];
};

static inline const struct pd_xp_fabric_ops *pd_xp_far_ops(const struct pd_transport *tp)
{
    return tp->conf.fabric->ops;
}

/* ---- far.c */
/* The memory with this id, 0: a free place; NULL: there is none. */
struct pd_xp_far_memory *pd_xp_far_find(struct pd_xp_far *far, uint32_t id);
/* pd_xp_far_run has something to do. */
void pd_xp_far_soon(struct pd_transport *tp);

/* ---- beacon.c */
/* Notes what WHERE says of the beacon.  PD_OK, PD_EPROTO, PD_ENOMEM. */
pd_status pd_xp_far_begin_probe(struct pd_xp_far *far, const struct pd_xp_head *h);
/* Asks for the beacon, again when there was no room. */
void pd_xp_far_probe(struct pd_xp_far *far);
/* If the beacon is there: is it the one that was named?  Says READY, or fails the lane. */
void pd_xp_far_greet(struct pd_xp_far *far);

/* ---- copy.c */
/* A spare copy or a new one, in no list; NULL: no memory. */
struct pd_xp_copy *pd_xp_copy_take(struct pd_xp_far *far);
/* The memory that it is read from. */
uint32_t pd_xp_copy_memory(const struct pd_xp_copy *c);
bool pd_xp_copy_has_ended(const struct pd_xp_copy *c);
/* Its bytes count and it is out of its window; the answer is still to come. */
void pd_xp_copy_end(struct pd_xp_copy *c);
/* Asks for nothing more.  One that waits is done; of one that runs, gets may still fly. */
void pd_xp_copy_stop(struct pd_xp_copy *c, pd_status why);
/* Begins and goes on with what can, answers what is done.  False: nothing more may fly. */
bool pd_xp_copies_run(struct pd_xp_far *far);
/* Answers those that are done, in the order of their frames. */
void pd_xp_copies_answer(struct pd_xp_far *far);

#endif
