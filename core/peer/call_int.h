/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of calls share.  All on the loop of the link's peers. */
#ifndef PD_PEER_CALL_INT_H
#define PD_PEER_CALL_INT_H

#include "peer/priv.h"

/* ---- call.c */
/* A call in the link's map, `side` PD_SIDE_*; NULL: no memory, or the id is taken. */
struct pd_call *pd_call_create(struct pd_link *link, uint32_t side, uint32_t id);
/* Takes the call off its link; frames for it are late from now on. */
void pd_call_unlink(struct pd_call *call);
/* Nothing is left of the call but running callbacks; freed when there is none. */
void pd_call_drop(struct pd_call *call);
/* Around each callback of the user.  False: the call is gone for its user; it may have been freed. */
void pd_call_enter(struct pd_call *call);
bool pd_call_leave(struct pd_call *call);
/* Tells the end; the call is gone after it. */
void pd_call_finish(struct pd_call *call, pd_status status, struct pd_str bytes);

/* ---- call_send.c */
size_t pd_call_iov_bytes(const struct pd_iov *iov, uint32_t n);
/* The head of a frame of the call; `length` of its payload. */
struct pd_frame pd_call_frame(const struct pd_call *call, uint8_t type, size_t length);
/* The end frame at once; `bytes` are at most PD_CALL_MAX_END. */
void pd_call_send_end(struct pd_call *call, pd_status status, struct pd_str bytes);
/* The pump will look at the call. */
void pd_call_want_to_send(struct pd_call *call);
bool pd_call_has_waiting(const struct pd_call *call);
/* Copies a message, or the end, behind what waits; PD_ENOMEM: nothing was. */
pd_status pd_call_queue(struct pd_call *call, uint32_t kind, const struct pd_iov *iov, uint32_t n);
/* The first message is on its way, whole or in part. */
bool pd_call_is_known_there(const struct pd_call *call);

#endif
