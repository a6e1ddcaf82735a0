/* SPDX-License-Identifier: Apache-2.0 */
/* A request that two servers share: one computes the prompt, the other one the
 * answer.  What stands in the bodies of the two legs is in split_body.c, what
 * happens with them in split.c. */
#ifndef PD_ROLE_ROUTER_SPLIT_H
#define PD_ROLE_ROUTER_SPLIT_H

#include "request.h"

#define SPLIT_RUNS 60u             /* of a body; a call takes no more */
#define SPLIT_TYPE 64u

/* The changes of one leg's body. */
struct split_body {
    struct pd_api_edit edits[PD_API_EDITS_MAX];
    uint32_t n;
    uint32_t taken;                /* index of the one whose text the prefill answer has; n: none */
};

struct split {
    struct request *request;
    struct pd_http_call *prefill;  /* under way; NULL: not yet, or over */
    struct pd_endpoint_ref decode; /* where the answer will come from */
    pd_time sent;                  /* the prefill leg */
    uint32_t at;                   /* of leg->prefills */
    uint32_t status;               /* of the prefill server's answer */
    uint32_t n_kept;
    bool is_handed;                /* the decode leg has what it needs of the prefill server */
    char type[SPLIT_TYPE];         /* of its answer */
    char *answer;                  /* its body; the decode leg borrows from it */
    size_t answer_n, answer_cap;
    char take[PD_ADAPTER_MAX_MEMBER + 1];
    char salt[PD_API_SCOPE_BYTES + 3]; /* JSON of the request's salt */
    struct split_body bodies[2];   /* prefill, decode */
    char *texts;                   /* keys and values of both */
};

/* split_body.c */
/* Copies what the adapter of a prefill server says of both legs.
 * PD_OK, PD_ENOMEM, PD_EINVAL: it says what it must not. */
pd_status split_bodies(struct split *s, const struct pd_adapter_split *from);
/* The body of a leg (0: prefill, 1: decode) in runs.  knows_salt: the server knows
 * cache_salt.  PD_OK, or as request_edit. */
pd_status split_runs(struct split *s, uint32_t leg, bool knows_salt, struct pd_iov *iov, size_t *n);
/* Finds what the decode leg needs in the prefill answer.  PD_OK; PD_ENOENT: it is not
 * there; PD_EPROTO: the answer cannot be read. */
pd_status split_take(struct split *s);

#endif
