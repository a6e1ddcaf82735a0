/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the simulated server: engine.c is its HTTP side and life, batch.c
 * what runs when. */
#ifndef PD_WHATIF_ENGINE_INT_H
#define PD_WHATIF_ENGINE_INT_H

#include "base/buf.h"
#include "base/list.h"
#include "net/server.h"
#include "whatif/cache.h"
#include "whatif/engine.h"

struct pd_whatif_engine {
    struct pd_loop *loop;
    struct pd_whatif_engine_opts opts;
    struct pd_http_server *server;  /* NULL: dead */
    uint32_t n_closing;             /* servers that end */
    bool is_closing;
    struct pd_list waiting;         /* struct seq, in the order of arrival */
    struct pd_list running;
    uint32_t n_waiting, n_running;
    uint64_t kv_used;               /* tokens that running sequences may fill */
    struct pd_whatif_cache cache;
    struct pd_timer step;
    pd_time step_began, step_takes;
    double slowness;
    struct pd_whatif_engine_stats stats;
    struct pd_buf event[2];         /* a token: of completions, of chat */
    struct pd_buf scratch;
    void (*on_closed)(void *arg);
    void *arg;
};

/* One completion; in the arena of its request. */
struct seq {
    struct pd_whatif_engine *engine;
    struct pd_http_req *req;
    struct pd_list link;            /* of waiting or running */
    struct pd_timer timer;          /* of its transfer */
    uint64_t *hashes;               /* of the whole blocks of its prompt */
    uint32_t n_hashes;
    uint32_t prompt;                /* tokens */
    uint32_t cached;                /* of these */
    uint32_t computed;              /* of these, cached ones included */
    uint32_t chunk;                 /* of these, in the step that runs */
    uint32_t wanted;                /* tokens of the answer */
    uint32_t made;
    uint32_t held;                  /* made, not sent yet */
    uint64_t kv;                    /* tokens it may fill */
    uint64_t room;                  /* of a pair; 0: none */
    bool is_chat, is_stream, has_usage;
    bool is_prefill;                /* asked to leave its KV for another */
    bool is_transferred;            /* its prompt was computed elsewhere */
    bool is_running, is_waiting;
    bool is_decoding;               /* gets a token in the step that runs */
};

/* The sequence arrives in the queue. */
void pd_whatif_batch_add(struct pd_whatif_engine *e, struct seq *s);
/* It goes, wherever it is. */
void pd_whatif_batch_remove(struct pd_whatif_engine *e, struct seq *s);
void pd_whatif_batch_init(struct pd_whatif_engine *e);
/* Forgets the step that runs and the cache; no sequence is left. */
void pd_whatif_batch_reset(struct pd_whatif_engine *e);

/* engine.c: tokens of a step.  The last one ends s. */
void pd_whatif_engine_token(struct seq *s);
/* Its prompt is computed. */
void pd_whatif_engine_computed(struct seq *s);

#endif
