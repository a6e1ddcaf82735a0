/* SPDX-License-Identifier: Apache-2.0 */
/* One leg: a sequence from its prompt to its last token, on the decode node.
 * This state machine owns the sequence's blocks, the hand-over and the call to
 * the prefill node; whoever goes away first, everything ends here.
 *
 *   WAITING   no blocks yet, in the role's queue
 *   REACHING  a prefill node was named, its link is not up yet
 *   MOVING    a prefill node computes and writes into our blocks
 *   RUNNING   our engine computes (rest of the prompt, tokens)
 *   CLOSING   the end is told; waits until no transfer can touch the blocks
 *
 * The invariant that is easy to break: while a hand-over is open (`dest`), the
 * sequence is neither run nor closed; its on_end is the only way on.
 *
 * leg.c has its life, leg_handover.c the remote prefill, leg_run.c our engine,
 * leg_send.c the way to the router, leg_end.c the ends.  Loop thread. */
#ifndef PD_ROLE_DECODE_LEG_H
#define PD_ROLE_DECODE_LEG_H

#include "decode.h"

enum state { WAITING, REACHING, MOVING, RUNNING, CLOSING };

struct leg {
    struct decode *role;
    const struct decode_conf *conf;    /* of the generation in which it began */
    struct pd_node_generation *generation;
    struct leg *next, **link;          /* in role->legs */
    struct leg *wait_next;             /* in role->waiting */
    enum state state;
    struct pd_call *call;              /* to the router; NULL once it is over */
    struct pd_api_message *message;
    const struct pd_leg *ask;
    const struct pd_node_engine *engine;
    struct pd_req *record;
    int32_t *tokens;
    uint32_t n_tokens;                 /* prompt, and output given by the router */
    uint32_t max_output;
    uint32_t computed;                 /* leading tokens found in our cache */
    uint32_t cached;                   /* reported: ours, or the prefill node's */
    uint32_t n_output;
    struct pd_seq *seq;
    struct pd_text *text;
    bool is_stopped;                   /* a stop string was completed */
    /* The remote prefill. */
    uint32_t candidate;                /* index of the next one to try */
    pd_peer_ref peer;
    struct pd_call *order;             /* PREFILL call; NULL when over */
    struct pd_kv_dest *dest;
    pd_time order_at;                  /* this one was asked, or is being reached since */
    uint32_t unfit;                    /* PD_KV_MATCH_*: why the last one could not be used */
    bool is_hopeless;                  /* no other one is to be tried */
    bool is_reached_again;             /* this one was replaced by its next life */
    bool has_first;                    /* the first token came */
    bool is_valid;                     /* the hand-over was verified */
    bool ends_at_once;                 /* prefill: the text ends before any token */
    struct pd_token first;
    struct pd_logprob first_top[PD_API_MAX_TOP];
    struct pd_kv_result result;
    struct pd_timer order_timer;
    struct pd_timer deadline;
    /* Messages that the router's window did not take. */
    char *unsent;
    size_t unsent_n, unsent_cap;
    bool has_end;                      /* `end` waits behind them */
    struct pd_leg_end end;
};

static inline pd_time leg_now(const struct leg *leg)
{
    return pd_loop_now(leg->role->loop);
}

/* ---- leg_send.c: the way to the router ------------------------------------- */

/* False: the leg was ended, it may be gone then. */
bool leg_send(struct leg *leg, uint32_t type, struct pd_str bytes);
/* Tells where the prompt is computed (prefill NULL: here) and why.  False: the leg
 * was ended. */
bool leg_send_started(struct leg *leg, const struct pd_leg_prefill *prefill, const char *reason);
/* Sends what waits, and the end behind it, when there is room. */
void leg_call_flush(struct leg *leg);
/* Ends the call with leg->end. */
void leg_call_finish(struct leg *leg);

/* ---- leg_handover.c: the remote prefill -------------------------------------- */

/* Asks this candidate, or reaches for it first.  False: it is not possible. */
bool leg_candidate_try(struct leg *leg, const struct pd_leg_prefill *p);
/* Tries candidates in order, the last one failed because of why (NULL: none was
 * tried yet); without one left the prompt is computed here. */
void leg_next_prefill(struct leg *leg, const char *why);
void leg_order_timeout(struct pd_timer *timer, void *arg);

/* ---- leg_run.c: our engine ----------------------------------------------------- */

/* Blocks for the prompt.  PD_OK, PD_EAGAIN: none are free now, or what the engine
 * says. */
pd_status leg_open(struct leg *leg);
/* with_first: goes on behind leg->first. */
void leg_run(struct leg *leg, bool with_first);

/* ---- leg_end.c: ends ------------------------------------------------------------- */

void leg_end_fill(const struct leg *leg, struct pd_leg_end *end, uint32_t reason);
/* Ends with an answer, or with an error; the leg may be gone afterwards. */
void leg_finish(struct leg *leg, uint32_t reason);
void leg_fail(struct leg *leg, uint32_t http, const char *type, const char *code, const char *message);
/* Stops what runs for it; the record of its end is made by leg_close. */
void leg_stop(struct leg *leg, bool peer_gone);
/* Frees the leg unless a transfer may still touch its blocks or the router has not
 * taken everything. */
void leg_close(struct leg *leg);
void leg_record_finish(struct leg *leg, uint32_t outcome, uint32_t http, const char *code);
/* Out of the queue for blocks. */
void leg_waiting_remove(struct leg *leg);

#endif
