/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator: a virtual clock, hosts with one loop each, and a network
 * between them with faults.  Everything runs on the caller's thread, in one
 * order of (time, sequence); the same seed and the same calls give the same
 * run, the same event log and the same hash on any machine. */
#ifndef PD_LOOP_SIM_H
#define PD_LOOP_SIM_H

#include <pdplane/loop.h>

struct pd_sim;

/* How a link carries bytes; one record per direction. */
struct pd_sim_link {
    pd_time latency_ns;         /* one way */
    pd_time jitter_ns;          /* added: even chance from 0 to this; order is kept */
    uint64_t bytes_per_s;       /* 0: no limit */
    uint32_t loss_ppm;          /* of segments; each costs retransmit_ns more */
    pd_time retransmit_ns;      /* delay of a lost segment */
    uint32_t flip_ppm;          /* of segments: one byte is changed */
    uint32_t reset_ppm;         /* of segments: the connection is reset */
    uint32_t blocked;           /* 1: nothing passes (partition), both ends keep trying */
};

struct pd_sim_opts {
    struct pd_sim_link link;    /* of every pair of hosts until changed; zero: 50 us, 10 Gbit/s */
    uint32_t buffer_bytes;      /* of each direction of a stream at each end; 0: 256 KiB */
    uint32_t segment_bytes;     /* most bytes that travel together; 0: 64 KiB */
    uint32_t whole_io;          /* 1: reads and writes are never cut at random */
    pd_time connect_timeout_ns; /* 0: 10 s; a connection nobody answers */
    pd_time dead_ns;            /* 0: 60 s; unacknowledged bytes end a stream (PD_ETIMEDOUT) */
    pd_time wall_start_ns;      /* Unix time at virtual time 0; 0: 2026-01-01 */
    /* Each line of the event log, without a newline; may be NULL. */
    void (*on_log)(void *arg, const char *line);
    void *arg;
};

/* Creates a simulation; opts may be NULL.  Gives it; ended by pd_sim_destroy.
 * PD_OK or PD_ENOMEM. */
pd_status pd_sim_create(uint64_t seed, const struct pd_sim_opts *opts, struct pd_sim **out);

/* Ends it.  PD_EBUSY, and nothing is freed, while loops exist. */
pd_status pd_sim_destroy(struct pd_sim *sim);

/* Adds a host (at most 256) and its loop.  name is copied and unique; ip is
 * numeric, unique, or NULL for 10.0.0.N.  The name resolves to the ip, and so
 * does "localhost" to 127.0.0.1, which is the host itself.  After a crash the
 * same name and ip may be used again (restart). */
pd_status pd_sim_loop_create(struct pd_sim *sim, const char *name, const char *ip,
                             struct pd_loop **out);

/* The host's address with that port. */
void pd_sim_addr(const struct pd_loop *loop, uint16_t port, struct pd_addr *out);

/* Another name for an address; several addresses may have the same name. */
pd_status pd_sim_name_add(struct pd_sim *sim, const char *name, const char *ip);

/* Takes an address from a name, or (ip NULL) all of them.  PD_OK or PD_ENOENT. */
pd_status pd_sim_name_remove(struct pd_sim *sim, const char *name, const char *ip);
/* From now on lookups of names end with this error; PD_OK: they work again. */
void pd_sim_resolver_set(struct pd_sim *sim, pd_status status);

/* ---- running */

/* Virtual time begins at one second, so that no time of it is 0.
 * pd_sim_step does the next event; false when there is none before `until`. */
bool pd_sim_step(struct pd_sim *sim, pd_time until);
/* Does all events up to and including `until`, then sets the clock to it.
 * Returns the number of events. */
uint64_t pd_sim_run_until(struct pd_sim *sim, pd_time until);
/* Runs until `until` or until cond says true (asked after each event). */
bool pd_sim_run_cond(struct pd_sim *sim, pd_time until, bool (*cond)(void *arg), void *arg);
pd_time pd_sim_now(const struct pd_sim *sim);
/* The hash over all events of the log so far, and their number. */
uint64_t pd_sim_hash(const struct pd_sim *sim);
uint64_t pd_sim_lines(const struct pd_sim *sim);
/* Connections that some host's kernel still knows; 0 once all have ended. */
uint32_t pd_sim_connections(const struct pd_sim *sim);
/* A line of our own in the event log, as that host's. */
void pd_sim_note(struct pd_loop *loop, const char *fmt, ...) PD_PRINTF(2, 3);
/* Chance of the simulation itself (for fault schedules), apart from the loops'. */
uint64_t pd_sim_random(struct pd_sim *sim);

/* Calls fn at virtual time `when`, outside any loop; for fault schedules.
 * PD_OK or PD_ENOMEM. */
pd_status pd_sim_at(struct pd_sim *sim, pd_time when, void (*fn)(void *arg), void *arg);

/* The loop is busy (computes) for ns from now: its events wait. */
void pd_sim_busy(struct pd_loop *loop, pd_time ns);

/* ---- the network; names are host names, NULL stands for every host */

pd_status pd_sim_link_set(struct pd_sim *sim, const char *from, const char *to,
                          const struct pd_sim_link *link);
pd_status pd_sim_link_get(struct pd_sim *sim, const char *from, const char *to,
                          struct pd_sim_link *out);
/* One-way; both ways by two calls. */
pd_status pd_sim_partition(struct pd_sim *sim, const char *from, const char *to, bool on);
/* Removes every partition and forgets the flips that are still due. */
void pd_sim_heal(struct pd_sim *sim);
/* Resets every stream between the two hosts; returns how many. */
uint32_t pd_sim_reset(struct pd_sim *sim, const char *a, const char *b);
/* From now on drops silently what these existing streams send (both ends think
 * they are connected); new connections work.  Returns how many. */
uint32_t pd_sim_half_open(struct pd_sim *sim, const char *a, const char *b);
/* Changes one byte in each of the next `count` segments from one to the other. */
pd_status pd_sim_flip(struct pd_sim *sim, const char *from, const char *to, uint32_t count);

/* Makes the n-th operation from now on fail that a loop is asked for: a connection,
 * listener, work queue, work or lookup that cannot be had, a read, write or option
 * after which the stream is lost; 0: none.  Which of the errors that pdplane/loop.h
 * names is taken from the seed. */
void pd_sim_refuse(struct pd_sim *sim, uint64_t n);
/* Operations that loops were asked for so far. */
uint64_t pd_sim_operations(const struct pd_sim *sim);

/* The host dies at once: its loop's timers, streams, listeners, tasks and works
 * are dropped without callbacks, and the loop is gone.  tell_peers: they see
 * a reset; otherwise nothing until the host answers again (its new life
 * resets unknown streams) or they time out.  Call it outside the loop's
 * handlers, before its owner's memory is freed. */
void pd_sim_crash(struct pd_loop *loop, bool tell_peers);
/* The host stops and goes on (SIGSTOP): its events wait; the network accepts
 * into its buffers meanwhile. */
void pd_sim_stop(struct pd_loop *loop, bool stopped);

#endif
