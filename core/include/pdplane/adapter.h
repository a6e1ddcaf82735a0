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
    PD_ADAPTER_SET_ROOM = 6,   /* a number from 2^42 up to 2^63 that the router draws: the same in both
                                  legs, a new one for each attempt */
    PD_ADAPTER_SET_FROM = 7    /* of the decode leg: the value that the path `text` has in the answer of the
                                  prefill server; null or absent: nothing is changed */
};

enum {
    PD_ADAPTER_EACH = 1u << 0, /* of an edit that sets: in a request with several sequences, or with a list
                                  of prompts, the value is a list with one for each sequence, rooms that
                                  differ */
    PD_ADAPTER_IN_CHAT = 1u << 1,  /* only in chats */
    PD_ADAPTER_IN_TEXT = 1u << 2,  /* only in completions */
    PD_ADAPTER_IF_MORE = 1u << 3   /* of the prefill leg, with `finish`: only when more than one token may
                                      be asked for; else the prefill server gives the whole answer */
};

struct pd_adapter_edit {
    uint32_t op;               /* PD_ADAPTER_SET ... */
    uint32_t flags;            /* PD_ADAPTER_EACH ... */
    /* At the top of the body; needs no escapes.  "a.b" with SET, SET_ROOM or SET_FROM: "b" of the
     * object that SET or SET_TAKEN gives "a", behind whose edit such edits follow. */
    struct pd_str member;
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
    PD_ADAPTER_PAIR = 1u << 0,
    /* A server with both roles is no part of any sharing either: it gets its requests whole. */
    PD_ADAPTER_APART = 1u << 1
};

#define PD_ADAPTER_MAX_INNER 4u    /* edits inside of one member */
#define PD_ADAPTER_MAX_FOLLOWS 4u
#define PD_ADAPTER_MAX_HIDDEN 4u

/* Without PD_ADAPTER_PAIR the decode leg leaves with what the prefill server answered, and
 * requests with several sequences are not shared.  Strings are the adapter's, valid until
 * destroy. */
struct pd_adapter_split {
    uint32_t size;
    uint32_t flags;            /* PD_ADAPTER_PAIR */
    struct pd_str protocol;    /* servers with the same one understand each other: "vllm nixl" */
    struct pd_str take;        /* path in the prefill answer of what the decode leg needs, such as
                                  "a" or "choices[].a"; null or absent: that server kept nothing, and
                                  the decode server computes the prompt.  Empty: the answer is not
                                  read */
    uint32_t n_prefill;
    uint32_t n_decode;
    uint32_t n_whole;
    uint32_t reserved;
    struct pd_adapter_edit prefill[PD_ADAPTER_MAX_EDITS];
    struct pd_adapter_edit decode[PD_ADAPTER_MAX_EDITS];
    /* Members with which a request is not shared; with PD_ADAPTER_PAIR it is refused. */
    struct pd_str whole[PD_ADAPTER_MAX_WHOLE];
    /* What the prefill server answers may be all that there is to say: then the client gets it, as
     * a stream when it wants one, and no decode leg follows.  Such an answer is one of the request's
     * own kind with one choice. */
    struct pd_str finish;      /* path of the string that tells why the prefill server stopped.  Empty:
                                  the decode leg follows in any case */
    struct pd_str needs;       /* member of what is taken; null or absent is as if nothing was kept.
                                  Empty: none */
    uint32_t n_follows;
    uint32_t n_hidden;
    /* With these, and without any, the decode leg follows. */
    struct pd_str follows[PD_ADAPTER_MAX_FOLLOWS];
    /* Members of such an answer, at its top and of its choice, that are none of the client's. */
    struct pd_str hidden[PD_ADAPTER_MAX_HIDDEN];
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
