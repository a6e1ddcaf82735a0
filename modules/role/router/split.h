/* SPDX-License-Identifier: Apache-2.0 */
/* A request that two servers share: one computes the prompt, the other one the
 * answer.  What stands in the bodies of the two legs is in split_body.c, what
 * happens with them in split.c when one leaves behind the other, in pair.c when both
 * leave together. */
#ifndef PD_ROLE_ROUTER_SPLIT_H
#define PD_ROLE_ROUTER_SPLIT_H

#include "request.h"

#define SPLIT_RUNS 60u             /* of a body; a call takes no more */
#define SPLIT_TYPE 64u

/* A member of the object that is taken, which has this value instead of its own. */
struct split_inner {
    const char *key;
    struct pd_str text;            /* empty: the member stays */
    const char *from;              /* path in the prefill answer that has the text; NULL: none */
};

/* The changes of one leg's body. */
struct split_body {
    struct pd_api_edit edits[PD_API_EDITS_MAX];
    const char *from[PD_API_EDITS_MAX]; /* as of split_inner; an edit without a text is none then */
    uint32_t n;
    uint32_t taken;                /* index of the one whose text the prefill answer has; n: none */
    struct split_inner inner[PD_ADAPTER_MAX_INNER];
    uint32_t n_inner;
};

/* The object that is taken, with what it has otherwise. */
struct split_taken {
    struct pd_iov runs[4 + 4 * PD_ADAPTER_MAX_INNER + 2 * PD_ADAPTER_MAX_INNER];
    uint32_t n;                    /* 0: it goes on as it is */
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
    char needs[2 * PD_ADAPTER_MAX_MEMBER + 2];     /* path; empty: none */
    char finish[PD_ADAPTER_MAX_MEMBER + 1];
    char follows[PD_ADAPTER_MAX_FOLLOWS][PD_ADAPTER_MAX_MEMBER + 1];
    char hidden[PD_ADAPTER_MAX_HIDDEN][PD_ADAPTER_MAX_MEMBER + 1];
    uint32_t n_follows, n_hidden;
    bool is_one;                   /* the prefill server was asked for the whole answer */
    bool is_final;                 /* it gave all of it */
    struct split_taken taken;
    char salt[PD_API_SCOPE_BYTES + 3]; /* JSON of the request's salt */
    struct split_body bodies[2];   /* prefill, decode */
    char *texts;                   /* keys and values of both */
    /* Of a pair; `answer` is what the decode server said and is held back. */
    const struct pd_http_head *head; /* of its answer, the call's; NULL: not yet */
    bool is_stream;                /* that answer */
    bool has_line;                 /* with data, of it */
    bool has_data;                 /* a whole event of it, so the decode server has the KV */
    bool is_prefill_stream;
    bool is_computed;              /* the prefill server has ended its answer well */
    bool is_refused;               /* it says that the request is wrong; `answer` is its own */
    struct relay seen[2];          /* events of both; nothing is held in them */
};

/* split.c */
/* The server that a leg goes to; NULL: it is gone. */
struct target *split_target(struct request *q, struct pd_endpoint_ref ref);
/* The prefill server's refusal is the answer; the request is gone. */
void split_refusal(struct request *q);
/* Keeps a piece of the prefill server's answer.  PD_OK, PD_ENOMEM. */
pd_status split_keep(struct split *s, struct pd_str piece);
/* Whether a status says that the server failed, and not the request. */
bool split_is_failure(uint32_t status);
/* The content type of an answer. */
void split_type(const struct pd_http_head *head, char out[SPLIT_TYPE]);

/* pair.c */
/* Sends both legs, with the next prefill server that is there; when none is, the request
 * goes elsewhere or ends. */
void pair_next(struct request *q);

/* split_body.c */
/* Copies what the adapter of the prefill server t says of both legs, with what is drawn
 * for this attempt.  PD_OK, PD_ENOMEM, PD_EINVAL: it says what it must not. */
pd_status split_bodies(struct split *s, const struct target *t, const struct pd_adapter_split *from);
/* The body of a leg (0: prefill, 1: decode) in runs.  knows_salt: the server knows
 * cache_salt.  PD_OK, or as request_edit. */
pd_status split_runs(struct split *s, uint32_t leg, bool knows_salt, struct pd_iov *iov, size_t *n);

/* split_answer.c */
/* Finds what the decode leg needs in the prefill answer, and whether one has to follow
 * (is_final: none).  PD_OK; PD_ENOENT: it is not there; PD_EPROTO: the answer cannot be
 * read. */
pd_status split_take(struct split *s);
/* Puts the runs of the object that is taken into those of a body.  PD_OK, PD_ELIMIT. */
pd_status split_taken_put(const struct split *s, struct pd_iov *iov, size_t *n, size_t room);

/* split_final.c */
/* Gives the client the prefill server's answer; the request is gone.  False: memory is
 * short, or a key of the usage stands there twice, and nothing was done. */
bool split_final(struct request *q);

#endif
