/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenAI-shaped API: requests read from JSON, answers written as JSON and
 * events, and the messages that carry one sequence of a request between router,
 * decode and prefill nodes.  Second tier: bound to the exact version of
 * pdplane, reached by pd_host()->table and pd_host()->object with PD_API_TABLE.
 *
 * A request splits into legs: one for each prompt and choice.  A leg is one
 * sequence; everything below the router knows only legs.
 *
 * All functions: loop thread.  "Scratch" results are borrowed until the next
 * call of the same table on the same node. */
#ifndef PDPLANE_API_H
#define PDPLANE_API_H

#include <pdplane/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_API_TABLE "api"
#define PD_API_VERSION 2u
#define PD_API_SCOPE_BYTES 32u     /* of a salt that request_scope makes */

#define PD_API_MAX_STOPS 16u
#define PD_API_MAX_PREFILLS 3u
#define PD_API_MAX_TOP 20u

enum {
    PD_API_CHAT = 1,           /* /v1/chat/completions */
    PD_API_COMPLETIONS = 2     /* /v1/completions */
};

/* What a client is told when its request fails (OpenAI's error object). */
struct pd_api_error {
    uint32_t size;
    uint32_t http;             /* 400 ... 504 */
    const char *type;          /* literal */
    const char *code;          /* literal or NULL */
    char param[64];            /* empty: null */
    char message[256];         /* never names an address, a file or another client's data */
    uint32_t retry_after_ms;   /* 0: no such header */
    uint32_t no_retry;         /* 1: x-should-retry: false */
};

struct pd_api_prompt {
    struct pd_str text;        /* UTF-8, when tokens is NULL */
    const int32_t *tokens;
    uint32_t n_tokens;
    uint32_t reserved;
    struct pd_str json;        /* of a request: its bytes as they came, for the prefix index */
};

struct pd_api_limits {
    uint32_t size;
    uint32_t max_choices;      /* n, best_of; 8 is usual */
    uint32_t max_prompts;      /* 64 is usual */
    uint32_t max_messages;     /* 4096 is usual */
    uint64_t max_output;       /* tokens a request may ask for; larger is refused */
};

/* A parsed request.  Read-only, valid until request_free; strings borrow from
 * the body, which request_parse takes over. */
struct pd_api_request {
    uint32_t size;
    uint32_t kind;             /* PD_API_* */
    struct pd_str body;        /* as received */
    struct pd_str model;
    struct pd_str user;        /* may be empty */
    struct pd_str session;     /* prompt_cache_key, may be empty */
    struct pd_str cache_salt;  /* may be empty; request_scope changes it */
    struct pd_str prompt_json; /* the bytes of "messages" or "prompt", for the prefix index */
    const struct pd_message *messages;
    const struct pd_api_prompt *prompts;
    const struct pd_str *stops;
    uint32_t n_messages;
    uint32_t n_prompts;        /* chat: 1 */
    uint32_t n_choices;        /* n, at least 1 */
    uint32_t n_stops;
    uint32_t n_legs;           /* n_prompts * n_choices */
    uint32_t stream;
    uint32_t include_usage;
    uint32_t echo;             /* completions: the prompt is part of the answer */
    uint32_t has_seed;
    uint32_t max_output;       /* 0: not given */
    uint32_t priority;
    uint32_t reserved;
    struct pd_sampling sampling; /* seed is 0 unless given */
    /* Set when an engine of our own cannot do what was asked (tools, images,
     * guided output ...); servers behind an adapter get such requests as they
     * are.  http is 0 otherwise. */
    struct pd_api_error unsupported;
};

/* Where a prompt may be prefilled, chosen by the router. */
struct pd_leg_prefill {
    struct pd_node_id node;
    struct pd_str name;
    struct pd_str address;     /* of its peer listener, numeric */
    struct pd_str engine;
};

/* One sequence of a request, router to decode node. */
struct pd_leg {
    uint32_t size;
    uint32_t kind;             /* PD_API_* */
    struct pd_str request_id;
    uint32_t index;            /* of the choice in the answer */
    uint32_t flags;            /* 0 */
    struct pd_str model;
    struct pd_str engine;      /* name of the engine on the decode node */
    struct pd_str cache_salt;
    struct pd_sampling sampling;
    uint32_t max_output;       /* 0: as far as the context goes */
    uint32_t priority;
    uint64_t deadline_ms;      /* from receipt */
    uint32_t n_stops;
    uint32_t n_messages;
    struct pd_str stops[PD_API_MAX_STOPS];
    const struct pd_message *messages; /* chat */
    struct pd_api_prompt prompt;       /* completions */
    /* Tokens of the answer that another node has delivered already: the leg
     * goes on behind them. */
    const int32_t *output;
    uint32_t n_output;
    uint32_t reserved;
    uint32_t decide;           /* PD_DECIDE_* */
    uint32_t n_prefills;
    uint64_t min_tokens;       /* for PD_DECIDE_EXACT */
    struct pd_str decide_reason;
    struct pd_leg_prefill prefills[PD_API_MAX_PREFILLS];
};

/* Messages of the REQUEST call, decode node to router. */
enum {
    PD_LEG_STARTED = 1,        /* struct pd_leg_started; again when a prefill node failed */
    PD_LEG_TOKEN = 2,          /* struct pd_leg_token */
    PD_LEG_HANDOVER = 3        /* struct pd_leg_handover */
};                             /* the call ends with struct pd_leg_end */

struct pd_leg_started {
    uint32_t prompt_tokens;
    uint32_t cached_tokens;    /* found on the decode node */
    uint32_t remote;           /* 1: a prefill node computes */
    uint32_t reserved;
    struct pd_str reason;      /* one sentence */
    struct pd_str prefill;     /* name of the prefill node, or empty */
};

struct pd_leg_handover {
    uint32_t verdict;          /* 0 not tried, 1 valid, else a value of kv.h */
    uint32_t blocks;           /* digests verified */
    uint64_t bytes;
    uint64_t prefill_ns;       /* call opened to done received */
    uint64_t transfer_ns;      /* first window byte expected to last byte verified */
    uint32_t tokens;           /* of KV that moved */
    uint32_t cached_tokens;    /* found on the prefill node */
    struct pd_str transport;
    struct pd_str prefill;
    struct pd_str detail;      /* why not, or empty */
};

struct pd_leg_top {
    struct pd_str bytes;
    int32_t token;
    float logprob;
};

struct pd_leg_token {
    int32_t id;
    uint32_t index;            /* of this token in the output, from 0 */
    struct pd_str text;        /* what may be shown now: whole characters, may be empty */
    struct pd_str bytes;       /* of this token */
    uint32_t has_logprob;
    float logprob;
    uint32_t n_top;
    uint32_t reserved;
    const struct pd_leg_top *top;
};

struct pd_leg_end {
    uint32_t reason;           /* PD_FINISH_*; PD_FINISH_ERROR: error is filled */
    uint32_t prompt_tokens;
    uint32_t cached_tokens;
    uint32_t output_tokens;
    struct pd_str text;        /* held back until now */
    struct pd_api_error error;
};

/* First message of the PREFILL call, decode node to prefill node. */
struct pd_leg_order {
    uint32_t size;
    uint32_t upto;             /* KV of tokens [from, upto) is wanted */
    struct pd_str request_id;
    struct pd_str engine;
    struct pd_str cache_salt;
    const int32_t *tokens;
    uint32_t n_tokens;
    uint32_t from;             /* the decode node has the tokens before */
    uint32_t n_output;         /* how many of `tokens`, at the end, are output already delivered */
    uint32_t sample;           /* 1: also sample the first token */
    uint32_t priority;
    uint64_t deadline_ms;
    struct pd_sampling sampling;
    struct pd_str grant;       /* bytes of kv.h */
};

/* Message types of the PREFILL call behind the order. */
enum {
    PD_ORDER_KV = 1,           /* bytes of kv.h, both directions */
    PD_ORDER_FIRST = 2,        /* prefill to decode: the first token, as struct pd_leg_token */
    PD_ORDER_STOP = 3          /* prefill to decode: the text ends before any token */
};

struct pd_api_message {        /* opaque: a decoded leg or order with its memory */
    const struct pd_leg *leg;
    const struct pd_leg_order *order;
};

struct pd_api;                 /* one per node, holds the scratch memory */
struct pd_text;                /* assembles pieces into text, see text_* */
struct pd_answer;              /* writes the answer of a request, see answer_* */

struct pd_api_model {
    struct pd_str id;
    uint64_t created;          /* unix seconds */
    uint32_t context_tokens;   /* 0 unknown */
};

/* One change of a member at the top of a body. */
struct pd_api_edit {
    uint32_t op;               /* PD_API_EDIT_* */
    uint32_t reserved;
    const char *key;           /* needs no escapes */
    struct pd_str text;        /* JSON of the new value */
};

enum {
    PD_API_EDIT_SET = 1,       /* it has this value, whatever was there */
    PD_API_EDIT_GIVEN = 2,     /* the same, when the client gave it */
    PD_API_EDIT_REMOVE = 3
};

#define PD_API_EDITS_MAX 16u

struct pd_api_table {
    uint32_t size;
    uint32_t version;

    /* Reads a body.  PD_OK and *out, or PD_EINVAL and *error.  body must stay
     * valid and unchanged until request_free. */
    pd_status (*request_parse)(struct pd_api *api, uint32_t kind, struct pd_str body,
                               const struct pd_api_limits *limits, struct pd_api_request **out,
                               struct pd_api_error *error);
    void (*request_free)(struct pd_api *api, struct pd_api_request *request);
    /* Sets cache_salt to PD_API_SCOPE_BYTES hex digits that stand for the tenant
     * (may be empty) and the salt that the client gave; with neither it stays empty.
     * What different tenants cache is then never shared, whatever they send.  Once,
     * before the salt is used.  PD_OK, PD_ENOMEM. */
    pd_status (*request_scope)(struct pd_api *api, struct pd_api_request *request, struct pd_str tenant);
    /* The body for a server behind an adapter: every byte as received, without
     * the members that only we may set (routing and KV fields), with `model`
     * replaced when not empty, and with cache_salt as it is now where the client
     * gave one or adds_salt says so.  The body itself when nothing had to be
     * changed, else scratch. */
    pd_status (*request_forward)(struct pd_api *api, const struct pd_api_request *request,
                                 struct pd_str model, bool adds_salt, struct pd_str *out);

    /* Fills *error; message as printf would. */
    void (*error_set)(struct pd_api_error *error, uint32_t http, const char *type, const char *code,
                      const char *message_fmt, ...) PD_PRINTF(5, 6);
    /* {"error":{...}}.  Scratch. */
    pd_status (*error_write)(struct pd_api *api, const struct pd_api_error *error, struct pd_str *out);
    pd_status (*models_write)(struct pd_api *api, const struct pd_api_model *models, uint32_t n,
                              struct pd_str *out);
    pd_status (*model_write)(struct pd_api *api, const struct pd_api_model *model, struct pd_str *out);
    /* Reads another server's model list: up to cap ids (decoded strings,
     * scratch), *n how many.  PD_OK, PD_EPROTO. */
    pd_status (*models_read)(struct pd_api *api, struct pd_str body, struct pd_str *ids, uint32_t cap,
                             uint32_t *n);

    /* Wire form of messages; encode results are scratch, decoded strings
     * borrow from bytes.  PD_EPROTO for bytes that are not what they claim. */
    pd_status (*leg_encode)(struct pd_api *api, const struct pd_leg *leg, struct pd_str *out);
    pd_status (*order_encode)(struct pd_api *api, const struct pd_leg_order *order, struct pd_str *out);
    /* Copies bytes; message_free gives everything back. */
    pd_status (*leg_decode)(struct pd_api *api, struct pd_str bytes, struct pd_api_message **out);
    pd_status (*order_decode)(struct pd_api *api, struct pd_str bytes, struct pd_api_message **out);
    void (*message_free)(struct pd_api *api, struct pd_api_message *message);
    pd_status (*started_encode)(struct pd_api *api, const struct pd_leg_started *m, struct pd_str *out);
    pd_status (*started_decode)(struct pd_api *api, struct pd_str bytes, struct pd_leg_started *m);
    pd_status (*handover_encode)(struct pd_api *api, const struct pd_leg_handover *m, struct pd_str *out);
    pd_status (*handover_decode)(struct pd_api *api, struct pd_str bytes, struct pd_leg_handover *m);
    /* top of a decoded token is scratch. */
    pd_status (*token_encode)(struct pd_api *api, const struct pd_leg_token *m, struct pd_str *out);
    pd_status (*token_decode)(struct pd_api *api, struct pd_str bytes, struct pd_leg_token *m);
    pd_status (*end_encode)(struct pd_api *api, const struct pd_leg_end *m, struct pd_str *out);
    pd_status (*end_decode)(struct pd_api *api, struct pd_str bytes, struct pd_leg_end *m);

    /* Pieces to text: holds back incomplete characters and possible beginnings
     * of stop strings.  stops are copied. */
    pd_status (*text_create)(struct pd_api *api, const struct pd_str *stops, uint32_t n,
                             struct pd_text **out);
    void (*text_destroy)(struct pd_api *api, struct pd_text *text);
    /* Adds a token's bytes.  *out: text that may be shown (borrowed until the
     * next call on text); *stopped: 1 when a stop string was completed (it and
     * what follows is not shown). */
    pd_status (*text_add)(struct pd_text *text, struct pd_str piece, struct pd_str *out, uint32_t *stopped);
    /* The rest at the end; broken characters become U+FFFD. */
    pd_status (*text_end)(struct pd_text *text, struct pd_str *out);

    /* The answer.  id is the completion's id ("chatcmpl-..."), created unix
     * seconds; the request stays valid until answer_destroy. */
    pd_status (*answer_create)(struct pd_api *api, const struct pd_api_request *request,
                               struct pd_str id, struct pd_str model, uint64_t created,
                               struct pd_answer **out);
    void (*answer_destroy)(struct pd_api *api, struct pd_answer *answer);
    /* Streaming: each returns one or more whole SSE events, possibly none
     * (empty).  Borrowed until the next call on answer. */
    pd_status (*answer_token)(struct pd_answer *answer, uint32_t leg, const struct pd_leg_token *token,
                              struct pd_str *out);
    pd_status (*answer_end)(struct pd_answer *answer, uint32_t leg, const struct pd_leg_end *end,
                            struct pd_str *out);
    /* After the last leg: usage when asked for, then [DONE]. */
    pd_status (*answer_done)(struct pd_answer *answer, struct pd_str *out);
    /* One error event, nothing after it. */
    pd_status (*answer_error)(struct pd_answer *answer, const struct pd_api_error *error, struct pd_str *out);
    /* Not streaming: answer_token and answer_end collect and return nothing;
     * this gives the whole JSON body. */
    pd_status (*answer_body)(struct pd_answer *answer, struct pd_str *out);

    /* Texts of prompts and messages that are written with escapes are empty after
     * request_parse; this decodes them, and may set `unsupported`.  Once, before
     * they are used here.  PD_OK, PD_ENOMEM. */
    pd_status (*request_texts)(struct pd_api *api, struct pd_api_request *request);
    /* The key of the first member that clients may not set, such as
     * kv_transfer_params, without its escapes decoded; empty: there is none.  Such
     * members never get into what request_forward gives.  Borrowed from the body. */
    struct pd_str (*request_hint)(struct pd_api *api, const struct pd_api_request *request);
    /* Whether the client gave the member at the top, neither as null nor as false. */
    bool (*request_has)(struct pd_api *api, const struct pd_api_request *request, const char *key);
    /* The body with these changes (at most PD_API_EDITS_MAX), and without the members
     * that only we may set unless one of the changes sets them: as runs that borrow
     * from the body and from the changes.  *n_iov: places, then runs.  PD_OK; PD_ELIMIT:
     * too many changes or runs; PD_EINVAL. */
    pd_status (*request_edit)(struct pd_api *api, const struct pd_api_request *request,
                              const struct pd_api_edit *changes, uint32_t n_changes, struct pd_iov *iov,
                              size_t *n_iov);
};

#ifdef __cplusplus
}
#endif
#endif
