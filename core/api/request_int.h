/* SPDX-License-Identifier: Apache-2.0 */
/* A request of the API while it is read, and what is kept of it.  One scan finds the
 * members; files: request_read.c the plain ones, request_prompt.c messages and prompts,
 * request_edit.c what is forwarded. */
#ifndef PD_API_REQUEST_INT_H
#define PD_API_REQUEST_INT_H

#include "api/api.h"

#include "base/json.h"
#include "base/list.h"
#include "base/mem.h"

#define PD_API_ARENA_LIMIT (64u << 20)

/* Wanted members; pd_api_member_paths has their paths. */
enum pd_api_member {
    M_MODEL, M_INCLUDE_USAGE, M_N, M_TEMPERATURE, M_TOP_P, M_TOP_K, M_MIN_P, M_SEED, M_STOP, M_LOGPROBS,
    M_TOP_LOGPROBS, M_MESSAGES, M_MESSAGE, M_MESSAGE_ROLE, M_MESSAGE_CONTENT, M_MESSAGE_CALLS, M_PROMPT, M_ECHO, M_BEST_OF,
    M_SUFFIX, M_FREQUENCY_PENALTY, M_PRESENCE_PENALTY, M_USER, M_PROMPT_CACHE_KEY,
    M_TOOLS, M_FUNCTIONS,
    M_RESPONSE_FORMAT, M_RESPONSE_FORMAT_TYPE, M_LOGIT_BIAS, M_PRIORITY, M_MODALITIES, M_AUDIO,
    /* Members that a leg of a request may have otherwise than the client gave them. */
    M_FIRST_EDIT,
    M_STREAM = M_FIRST_EDIT, M_STREAM_OPTIONS, M_MAX_TOKENS, M_MAX_COMPLETION_TOKENS, M_MIN_TOKENS,
    M_MIN_COMPLETION_TOKENS, M_CACHE_SALT, M_PROMPT_LOGPROBS, M_USE_BEAM_SEARCH,
    /* Members that only we may set; deleted before a body is forwarded. */
    M_FIRST_HINT,
    M_KV_TRANSFER_PARAMS = M_FIRST_HINT, M_BOOTSTRAP_HOST, M_BOOTSTRAP_PORT, M_BOOTSTRAP_ROOM,
    M_DO_REMOTE_PREFILL, M_DO_REMOTE_DECODE, M_EC_TRANSFER_PARAMS, M_DISAGGREGATED_PARAMS, M_TP_SIZE,
    M_DP_RANK, M_ROUTED_DP_RANK, M_DATA_PARALLEL_RANK, M_NVEXT,
    /* Families of them, and objects in which they may stand too. */
    M_FIRST_FAMILY,
    M_REMOTE = M_FIRST_FAMILY, M_DISAGG,
    M_FIRST_HOLDER,
    M_EXTRA_BODY = M_FIRST_HOLDER, M_SAMPLING_PARAMS,
    M_COUNT
};

#define EDITABLE (M_FIRST_HINT - M_FIRST_EDIT)
#define HINTS_MAX 48u              /* members that are deleted from one request */

/* In the order of the enum. */
extern const char *const pd_api_member_paths[M_COUNT];

/* A message as the scan finds it: read, or what matters of it, where role and content
 * are absent when it is no object. */
struct pd_api_raw_message {
    bool is_read;
    bool has_calls;
    enum pd_json_type type;
    struct pd_message message;
    struct pd_json_value role, content;
};

/* A text that is decoded when it is wanted. */
struct pd_api_late {
    struct pd_api_late *next;
    enum pd_api_member member;
    struct pd_json_value value;
    struct pd_str *out;
};

_Static_assert(M_COUNT <= PD_JSON_MAX_PATHS, "a scan finds that many values");

/* A request with what belongs to it; the public part comes first. */
struct pd_api_parsed {
    struct pd_api_request request;
    struct pd_list link;               /* in the pool */
    struct pd_arena arena;
    uint64_t present;                  /* bits of the members that the body has */
    struct pd_json_value *values;      /* of these, of the api: valid while parsing */
    struct pd_json_value root, model;  /* what forwarding needs of them */
    struct pd_json_value editable[EDITABLE];    /* those that are present */
    struct pd_json_value *hints;
    uint32_t n_hints;
    struct pd_api_raw_message first;   /* of the messages */
    uint32_t n_messages;
    uint32_t n_families;
    uint32_t best_of;
    struct pd_json_value *families;    /* of the api: valid while parsing */
    struct pd_buf *found;              /* the next ones, in all at most limits->max_messages */
    struct pd_api_late *late;
    const struct pd_api_limits *limits;
    struct pd_api_error *error;
};

#define BIT(m) ((uint64_t)1 << (m))

/* A member that is there, also as null. */
static inline bool is_present(const struct pd_api_parsed *p, enum pd_api_member m)
{
    return (p->present & BIT(m)) != 0;
}

static inline bool is_given(const struct pd_api_parsed *p, enum pd_api_member m)
{
    return is_present(p, m) && p->values[m].type != PD_JSON_NULL;
}

/* The string of a value without escapes; false: it is something else. */
static inline bool pd_api_plain(const struct pd_json_value *v, struct pd_str *out)
{
    if (v->type != PD_JSON_STRING || !v->is_plain)
        return false;
    *out = (struct pd_str){ v->text.p + 1, v->text.n - 2 };
    return true;
}

/* The same for a whole number without a sign and with at most 9 digits. */
static inline bool pd_api_small(const struct pd_json_value *v, uint32_t *out)
{
    uint32_t sum = 0;
    if (v->type != PD_JSON_NUMBER || v->text.n > 9)
        return false;
    for (size_t i = 0; i < v->text.n; i++) {
        if (v->text.p[i] < '0' || v->text.p[i] > '9')
            return false;
        sum = sum * 10 + (uint32_t)(v->text.p[i] - '0');
    }
    *out = sum;
    return true;
}

/* PD_EINVAL, with the error that says so of this member. */
pd_status pd_api_refuse(struct pd_api_parsed *p, enum pd_api_member m, const char *code, const char *fmt, ...)
    PD_PRINTF(4, 5) __attribute__((cold));
/* An engine of our own cannot do it; the first one is told. */
void pd_api_note_unsupported(struct pd_api_parsed *p, enum pd_api_member m, const char *what);
/* Members of this kind of request, without its prompt. */
pd_status pd_api_read_members(struct pd_api_parsed *p);
void pd_api_check_unsupported(struct pd_api_parsed *p);

/* The scan has come by a value of a path that has more than one; arg is the request. */
void pd_api_on_value(void *arg, size_t path, const struct pd_json_value *value, uint64_t found);
pd_status pd_api_read_messages(struct pd_api_parsed *p);
pd_status pd_api_read_prompts(struct pd_api_parsed *p);

/* The places of members that a forwarded body must not have, or has otherwise. */
pd_status pd_api_keep_for_forward(struct pd_api_parsed *p);

#endif
