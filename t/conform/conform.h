/* SPDX-License-Identifier: Apache-2.0 */
/* pdconform: what all its cases share.  Each case runs in a process of its own,
 * forked after the module was loaded and its options were read, so that a case
 * that fails, hangs or crashes spoils no other. */
#ifndef PD_T_CONFORM_H
#define PD_T_CONFORM_H

#include <pdplane/engine.h>
#include <pdplane/loop.h>
#include <pdplane/scheduler.h>
#include <pdplane/transport.h>

#include "conform/check.h"
#include "mod/host.h"
#include "mod/mod.h"
#include "net/net.h"

/* A unit under test and the options it was given. */
struct cf_unit {
    const struct pd_unit *unit;
    const struct pd_ops_head *ops;  /* full size, missing members are NULL */
    const char *module;             /* its name */
    const void *conf;               /* filled; NULL without rows */
    const void *conf_small;         /* the group NAME_small, or conf */
};

/* What a module sees of a node: made and ended inside each case. */
struct cf_world {
    const struct cf_unit *u;
    struct pd_loop *loop;
    struct pd_metrics *metrics;
    struct pd_log *log;
    struct pd_host host;
    struct pd_net net;              /* a client of HTTP, for sources */
};

/* One instance of the unit. */
struct cf_inst {
    struct cf_world *w;
    struct pd_instance_ctx ctx;
    void *p;                        /* the module's own */
    bool closed;
};

struct cf_case {
    const char *name;               /* one of them in a kind, t/12-conform.t */
    const char *what;               /* a sentence for -l */
    void (*run)(const struct cf_unit *u);
};

/* Tables end with a NULL name. */
extern const struct cf_case cf_static_cases[];      /* every kind */
extern const struct cf_case cf_common_cases[];      /* every kind that can be created alone */
extern const struct cf_case cf_shortage_cases[];    /* the same */
extern const struct cf_case cf_sched_cases[];
extern const struct cf_case cf_sched_list_cases[];  /* not deciders */
extern const struct cf_case cf_sched_stable_cases[]; /* not pickers */
extern const struct cf_case cf_engine_cases[];
extern const struct cf_case cf_engine_load_cases[];
extern const struct cf_case cf_transport_cases[];
extern const struct cf_case cf_transport_load_cases[];
extern const struct cf_case cf_transport_limit_cases[];
extern const struct cf_case cf_transport_long_cases[];
extern const struct cf_case cf_adapter_cases[];
extern const struct cf_case cf_discovery_cases[];
extern const struct cf_case cf_discovery_change_cases[];
extern const struct cf_case cf_codec_cases[];
extern const struct cf_case cf_exporter_cases[];

/* For how many seconds the long cases run (option -L); 0: not at all. */
extern uint32_t cf_long;

/* Changes the world of a source (option -x); NULL: nobody does. */
extern const char *cf_command;

void cf_world_open(struct cf_world *w, const struct cf_unit *u);
/* Everything must be gone: handles of the loop, shared memory. */
void cf_world_close(struct cf_world *w);
/* One turn of the loop, at most ns long. */
void cf_turn(struct cf_world *w, pd_time ns);
/* Turns until cond is true; false after `limit`. */
bool cf_wait(struct cf_world *w, bool (*cond)(void *arg), void *arg, pd_time limit);
/* Ends the loop, which must hold nothing. */
void cf_loop_end(struct pd_loop *loop);

pd_status cf_create(struct cf_world *w, struct cf_inst *i, uint32_t number, struct pd_err *err);
void cf_create_ok(struct cf_world *w, struct cf_inst *i, uint32_t number);
/* Asks for the end and, where the kind tells it later, waits for it. */
void cf_destroy(struct cf_world *w, struct cf_inst *i);

/* What an instance answers to the questions that a kind chooses, as bytes. */
struct cf_bytes {
    uint8_t p[8192];
    size_t n;
};

void cf_put(struct cf_bytes *b, const void *p, size_t n);   /* what is too much is left out */
/* An instance answers the same before another one begins, beside it and after
 * its end. */
void cf_beside(const struct cf_unit *u, void (*answer)(struct cf_inst *i, struct cf_bytes *out));
/* The same in the words of each kind; side_by_side of common.c runs them. */
void cf_sched_beside(const struct cf_unit *u);
void cf_engine_beside(const struct cf_unit *u);
void cf_transport_beside(const struct cf_unit *u);
void cf_adapter_beside(const struct cf_unit *u);
void cf_codec_beside(const struct cf_unit *u);
void cf_exporter_beside(const struct cf_unit *u);
void cf_discovery_beside(const struct cf_unit *u);

/* Bytes that are allocated now, and open descriptors. */
uint64_t cf_memory(void);
uint32_t cf_descriptors(void);
uint64_t cf_random(uint64_t *state);

/* From begin to end this thread's allocations are counted, and number `fail_at`
 * (from 1; 0: none) fails, also one of shared memory.  Unless it is 0, those of
 * libraries are not counted and do not fail. */
bool cf_alloc_can_fail(void);
void cf_alloc_begin(uint64_t fail_at);
uint64_t cf_alloc_end(void);
/* Counts one that code at this address asks for; whether it is the one that fails. */
bool cf_alloc_fails_for(void *from);
/* The host's table, whose allocations are counted and may fail. */
const struct pd_host_api *cf_host_table(void);

/* Lets n more descriptors be opened, or all that the system allows. */
void cf_descriptors_leave(uint32_t n);
void cf_descriptors_all(void);
/* The loop sleeps: at most so many wake-ups in half a second, and no processor
 * time to speak of. */
void cf_need_idle(struct cf_world *w, uint32_t wakes_most, const char *what);

#endif
