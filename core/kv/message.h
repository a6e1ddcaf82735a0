/* SPDX-License-Identifier: Apache-2.0 */
/* What the two ends of a hand-over say to each other, as bytes.  Readers take
 * hostile input: what they return is within the limits below.  Pure. */
#ifndef PD_KV_MESSAGE_H
#define PD_KV_MESSAGE_H

#include "base/buf.h"

#include <pdplane/kv.h>

#define PD_KV_WIRE_VERSION 1u
#define PD_KV_GRANT_WAYS 4          /* transports in one grant */
#define PD_KV_MAX_BLOB 4096u        /* bytes of an exported window */
#define PD_KV_MAX_GRANT (1024u + PD_KV_GRANT_WAYS * (PD_KV_MAX_BLOB + 64u))
#define PD_KV_DIGESTS_PER_MESSAGE 512u
#define PD_KV_MAX_TOKENS (1u << 28)

enum {
    PD_KV_M_GRANT = 1,
    PD_KV_M_RENEW = 2,              /* source: I am at work */
    PD_KV_M_DIGESTS = 3,            /* source: digests of some wire blocks */
    PD_KV_M_DONE = 4,               /* source: every byte is there */
    PD_KV_M_VERDICT = 5,            /* destination: the end */
    PD_KV_M_ABORT = 6,              /* either: I give up */
    PD_KV_M_ABORTED = 7             /* source: I have stopped; nothing moves any more */
};

struct pd_kv_grant_way {
    struct pd_str transport;        /* borrowed from the message */
    struct pd_str blob;
};

struct pd_kv_grant_full {
    struct pd_kv_grant g;           /* layout checked, range and bytes consistent */
    uint64_t generation;
    uint64_t tag;                   /* of model and prompt tokens; see digest.h */
    uint32_t digests;               /* 1: wanted */
    struct pd_kv_grant_way ways[PD_KV_GRANT_WAYS];
};

struct pd_kv_message {
    uint32_t type;                  /* PD_KV_M_* but GRANT */
    uint32_t verdict;               /* VERDICT, ABORT: why, PD_KV_* */
    uint64_t xid;
    uint64_t generation;
    uint64_t bytes;                 /* DONE */
    uint32_t way;                   /* DONE: index in the grant */
    uint32_t first;                 /* DIGESTS */
    uint32_t count;                 /* DIGESTS, DONE: wire blocks */
    uint32_t fenced;                /* ABORTED */
    const uint8_t *digests;         /* DIGESTS: 8 bytes each; borrowed */
};

/* PD_OK, PD_ELIMIT, PD_ENOMEM. */
pd_status pd_kv_grant_write(const struct pd_kv_grant_full *g, struct pd_buf *out);
/* PD_OK or PD_EPROTO. */
pd_status pd_kv_grant_parse(struct pd_str bytes, struct pd_kv_grant_full *out);
/* Appends; digests of a DIGESTS message are given as numbers. */
pd_status pd_kv_message_write(const struct pd_kv_message *m, const uint64_t *digests,
                              struct pd_buf *out);
pd_status pd_kv_message_parse(struct pd_str bytes, struct pd_kv_message *out);
const char *pd_kv_verdict_text(uint32_t verdict);

#endif
