/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a source share; files: source_open.c, source_move.c, source_digest.c
 * and, for the states and the messages, source.c.  All on the loop of the plane. */
#ifndef PD_KV_SOURCE_INT_H
#define PD_KV_SOURCE_INT_H

#include "kv/priv.h"

/* That of the candidate in turn. */
static inline const struct pd_kv_transport *pd_kv_source_transport(const struct pd_kv_source *source)
{
    return &source->e.kv->transports[source->candidates[source->at_candidate].transport];
}

/* ---- source.c */
/* The source's task runs at the end of the turn. */
void pd_kv_source_kick(struct pd_kv_source *source);
/* Decides, once; the rest is up to the task.  `tell`: the destination is told. */
void pd_kv_source_give_up(struct pd_kv_source *source, uint32_t verdict, pd_status status,
                          const char *reason, bool tell);
/* What cannot be sent ends the source. */
void pd_kv_source_send(struct pd_kv_source *source, struct pd_kv_message *m, const uint64_t *digests);
/* Takes the way of the first candidate, from the one in turn on, that can be had. */
void pd_kv_source_try(struct pd_kv_source *source);
void pd_kv_source_free(struct pd_kv_source *source);
void pd_kv_source_on_task(struct pd_task *task, void *arg);
void pd_kv_source_on_timer(struct pd_timer *timer, void *arg);

/* ---- source_move.c */
/* The place of tokens [a, b) in the pool; asks the user for indices. */
pd_status pd_kv_source_place(struct pd_kv_source *source, uint32_t a, uint32_t b,
                             struct pd_kv_place *place);
/* Whether all tokens of a wire block may be read. */
bool pd_kv_source_is_ready(const struct pd_kv_source *source, uint32_t block);
/* Posts what is ready, as much as may be on its way; an error ends the source. */
void pd_kv_source_move(struct pd_kv_source *source);

/* ---- source_digest.c */
/* Runs as the job of the source: uses up to *budget bytes; true when there is no more now. */
bool pd_kv_source_digest(struct pd_kv_job *job, uint64_t *budget);
/* Sends whole messages, and what is left when all blocks are digested. */
void pd_kv_source_send_digests(struct pd_kv_source *source);

#endif
