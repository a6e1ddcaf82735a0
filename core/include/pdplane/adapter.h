/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter kind: how to talk to an engine that is a server of its own.  The core
 * speaks HTTP, chooses the endpoint and relays the answer; an adapter says which
 * path, which headers and which probe a kind of server wants.  Not yet stable:
 * it grows with the hand-over protocols of the external engines. */
#ifndef PDPLANE_ADAPTER_H
#define PDPLANE_ADAPTER_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_ADAPTER_V1 1u

#define PD_ADAPTER_MAX_HEADERS 8u

struct pd_adapter; /* an instance, one for each endpoint */

/* A request as the adapter wants it sent; strings are the adapter's, valid
 * until destroy. */
struct pd_adapter_http {
    uint32_t size;
    uint32_t n_headers;
    struct pd_str target;      /* path on the server */
    struct {
        struct pd_str name;    /* lower case */
        struct pd_str value;
    } headers[PD_ADAPTER_MAX_HEADERS];
    uint32_t flags;            /* PD_ADAPTER_SALT; 0 when the call begins */
    uint32_t reserved;
};

enum {
    PD_ADAPTER_CHAT = 1,       /* /v1/chat/completions */
    PD_ADAPTER_COMPLETIONS = 2,
    PD_ADAPTER_PROBE = 3,      /* GET; status 200 means healthy; a body in the form of OpenAI's model
                                  list names the models */
    PD_ADAPTER_MODELS = 4,     /* GET; OpenAI's model list, where the probe does not give it */
    PD_ADAPTER_INFO = 5        /* GET; what the server says of itself, for `expects`.  Without status
                                  200 nothing is known */
};

enum {
    PD_ADAPTER_SALT = 1u << 0  /* the server knows the member cache_salt, and caches prefixes apart by it */
};

/* How two servers share a request: one computes the prompt, another one the answer.
 * The adapter only says what stands in the bodies of the two legs and what connects
 * them; the router sends, waits, tries again, cancels.  All else in the body stays as
 * the client wrote it, members that clients may not set are taken out first. */
enum {
    PD_ADAPTER_SET = 1,        /* the member has this value, whatever was there */
    PD_ADAPTER_SET_GIVEN = 2,  /* the same, when the client gave it */
    PD_ADAPTER_REMOVE = 3,
    PD_ADAPTER_SET_TAKEN = 4,  /* the value that `take` had in the answer of the prefill server */
    PD_ADAPTER_SET_HOST = 5,   /* a string: the host of the prefill server's url, IPv6 in brackets */
    PD_ADAPTER_SET_ROOM = 6    /* a number of 63 bits that the router draws: the same in both legs, a new
                                  one for each attempt */
};

enum {
    PD_ADAPTER_EACH = 1u << 0  /* of an edit that sets: in a request with several sequences, or with a list
                                  of prompts, the value is a list with one for each sequence, rooms that
                                  differ */
};

struct pd_adapter_edit {
    uint32_t op;               /* PD_ADAPTER_SET ... */
    uint32_t flags;            /* PD_ADAPTER_EACH */
    struct pd_str member;      /* at the top of the body; needs no escapes */
    struct pd_str text;        /* JSON of the value; empty where there is none */
};

#define PD_ADAPTER_MAX_EDITS 12u
#define PD_ADAPTER_MAX_WHOLE 8u
#define PD_ADAPTER_MAX_MEMBER 63u
#define PD_ADAPTER_MAX_VALUE 1023u

enum {
    /* Both legs leave at the same time and the two servers find each other; what the prefill
     * server answers is only watched for errors, `take` is empty.  None can do without the
     * other one: a server with one role alone gets no request but as one of a pair, one with both
     * roles is no part of any.  Requests with several sequences are shared too. */
    PD_ADAPTER_PAIR = 1u << 0
};

/* Without PD_ADAPTER_PAIR the decode leg leaves with what the prefill server answered, and
 * requests with several sequences are not shared.  Strings are the adapter's, valid until
 * destroy. */
struct pd_adapter_split {
    uint32_t size;
    uint32_t flags;            /* PD_ADAPTER_PAIR */
    struct pd_str protocol;    /* servers with the same one understand each other: "vllm nixl" */
    struct pd_str take;        /* member at the top of the prefill answer that the decode leg needs;
                                  null or absent: that server kept nothing, and the decode server
                                  computes the prompt.  Empty: the answer is not read */
    uint32_t n_prefill;
    uint32_t n_decode;
    uint32_t n_whole;
    uint32_t reserved;
    struct pd_adapter_edit prefill[PD_ADAPTER_MAX_EDITS];
    struct pd_adapter_edit decode[PD_ADAPTER_MAX_EDITS];
    /* Members with which a request is not shared; with PD_ADAPTER_PAIR it is refused. */
    struct pd_str whole[PD_ADAPTER_MAX_WHOLE];
};

#define PD_ADAPTER_MAX_EXPECTS 4u

/* What must be right for a server to be used: members at the top of what PD_ADAPTER_INFO
 * gives.  One that is not there is no fault.  Strings are the adapter's, valid until
 * destroy. */
struct pd_adapter_expects {
    uint32_t size;
    uint32_t n;
    struct {
        struct pd_str member;      /* at most PD_ADAPTER_MAX_MEMBER bytes, no escapes, no dots */
        struct pd_str value;       /* a string, decoded */
    } items[PD_ADAPTER_MAX_EXPECTS];
};

struct pd_adapter_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_adapter_ops, PD_ADAPTER_V1) */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                        struct pd_err *err);
    void (*destroy)(struct pd_adapter *adapter);
    /* what: PD_ADAPTER_*.  PD_OK, or PD_ENOSYS when the server has no such thing. */
    pd_status (*http)(struct pd_adapter *adapter, uint32_t what, struct pd_adapter_http *out);
    /* How this server computes prompts for others; out->size is set.  PD_OK; PD_ENOSYS: it
     * does not, and takes no prompts of others either.  May be NULL: the same. */
    pd_status (*split)(struct pd_adapter *adapter, struct pd_adapter_split *out);
    /* What a server with these roles (PD_ROLE_* of scheduler.h) must say of itself; out->size is
     * set.  PD_OK, PD_ENOSYS: anything will do.  May be NULL: the same. */
    pd_status (*expects)(struct pd_adapter *adapter, uint32_t roles, struct pd_adapter_expects *out);
};

#ifdef __cplusplus
}
#endif
#endif
