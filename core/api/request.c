/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the bodies of /v1/chat/completions and /v1/completions.  One scan finds
 * the members that matter here; everything else stays as it came and reaches a
 * server behind an adapter byte for byte.  What an engine of our own cannot do
 * is noted, not refused, because such a server may be able to. */
#include "api/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/json.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/digest.h"

#define ARENA_CHUNK 1024u
#define POOL 64u                       /* parsed requests kept for the next ones */
#define ARENA_LIMIT (64u << 20)

/* Wanted members; the order of the enum is the order of `paths`. */
enum member {
    M_ROOT, M_MODEL, M_INCLUDE_USAGE, M_N, M_TEMPERATURE, M_TOP_P, M_TOP_K, M_MIN_P, M_SEED, M_STOP, M_LOGPROBS,
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

#define FAMILIES_MAX 16u           /* members of these families in one request */
#define EDITABLE (M_FIRST_HINT - M_FIRST_EDIT)
#define HINTS_MAX 48u              /* members that are deleted from one request */

static const char *const paths[M_COUNT] = {
    [M_ROOT] = "",
    [M_MODEL] = "model",
    [M_STREAM] = "stream",
    [M_STREAM_OPTIONS] = "stream_options",
    [M_INCLUDE_USAGE] = "stream_options.include_usage",
    [M_N] = "n",
    [M_MAX_TOKENS] = "max_tokens",
    [M_MAX_COMPLETION_TOKENS] = "max_completion_tokens",
    [M_MIN_TOKENS] = "min_tokens",
    [M_MIN_COMPLETION_TOKENS] = "min_completion_tokens",
    [M_PROMPT_LOGPROBS] = "prompt_logprobs",
    [M_USE_BEAM_SEARCH] = "use_beam_search",
    [M_TEMPERATURE] = "temperature",
    [M_TOP_P] = "top_p",
    [M_TOP_K] = "top_k",
    [M_MIN_P] = "min_p",
    [M_SEED] = "seed",
    [M_STOP] = "stop",
    [M_LOGPROBS] = "logprobs",
    [M_TOP_LOGPROBS] = "top_logprobs",
    [M_MESSAGES] = "messages",
    [M_MESSAGE] = "messages[]",
    [M_MESSAGE_ROLE] = "messages[].role",
    [M_MESSAGE_CONTENT] = "messages[].content",
    [M_MESSAGE_CALLS] = "messages[].tool_calls",
    [M_PROMPT] = "prompt",
    [M_ECHO] = "echo",
    [M_BEST_OF] = "best_of",
    [M_SUFFIX] = "suffix",
    [M_FREQUENCY_PENALTY] = "frequency_penalty",
    [M_PRESENCE_PENALTY] = "presence_penalty",
    [M_USER] = "user",
    [M_PROMPT_CACHE_KEY] = "prompt_cache_key",
    [M_CACHE_SALT] = "cache_salt",
    [M_TOOLS] = "tools",
    [M_FUNCTIONS] = "functions",
    [M_RESPONSE_FORMAT] = "response_format",
    [M_RESPONSE_FORMAT_TYPE] = "response_format.type",
    [M_LOGIT_BIAS] = "logit_bias",
    [M_PRIORITY] = "priority",
    [M_MODALITIES] = "modalities",
    [M_AUDIO] = "audio",
    [M_KV_TRANSFER_PARAMS] = "kv_transfer_params",
    [M_BOOTSTRAP_HOST] = "bootstrap_host",
    [M_BOOTSTRAP_PORT] = "bootstrap_port",
    [M_BOOTSTRAP_ROOM] = "bootstrap_room",
    [M_DO_REMOTE_PREFILL] = "do_remote_prefill",
    [M_DO_REMOTE_DECODE] = "do_remote_decode",
    [M_EC_TRANSFER_PARAMS] = "ec_transfer_params",
    [M_DISAGGREGATED_PARAMS] = "disaggregated_params",
    [M_TP_SIZE] = "tp_size",
    [M_DP_RANK] = "dp_rank",
    [M_ROUTED_DP_RANK] = "routed_dp_rank",
    [M_DATA_PARALLEL_RANK] = "data_parallel_rank",
    [M_NVEXT] = "nvext",
    [M_REMOTE] = "remote_*",
    [M_DISAGG] = "disagg_*",
    [M_EXTRA_BODY] = "extra_body",
    [M_SAMPLING_PARAMS] = "sampling_params",
};

/* What matters of a message, as the scan finds it. */
struct raw_message {
    enum pd_json_type type;
    struct pd_json_value role, content, calls;
};

/* A text that is decoded when it is wanted. */
struct late {
    struct late *next;
    enum member member;
    struct pd_json_value value;
    struct pd_str *out;
};

_Static_assert(M_COUNT <= PD_JSON_MAX_PATHS, "a scan finds that many values");

/* A request with what belongs to it; the public part comes first. */
struct parsed {
    struct pd_api_request request;
    struct pd_list link;               /* in the pool */
    struct pd_arena arena;
    uint64_t present;                  /* bits of the members that the body has */
    struct pd_json_value *values;      /* of these, of the api: valid while parsing */
    struct pd_json_value root, model;  /* what forwarding needs of them */
    struct pd_json_value editable[EDITABLE];
    struct pd_json_value *hints;
    uint32_t n_hints;
    struct raw_message *message;       /* the one under way: behind those in `found` */
    struct raw_message spare;          /* that one where there is no room */
    uint32_t n_messages;
    uint32_t n_families;
    uint32_t best_of;
    struct pd_json_value families[FAMILIES_MAX];
    struct pd_buf *found;              /* struct raw_message, at most limits->max_messages */
    struct late *late;
    const struct pd_api_limits *limits;
    struct pd_api_error *error;
};

static pd_status refuse(struct parsed *p, enum member m, const char *code, const char *fmt, ...)
    PD_PRINTF(4, 5);

static pd_status refuse(struct parsed *p, enum member m, const char *code, const char *fmt, ...)
{
    char text[sizeof p->error->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pd_api_error_set(p->error, 400, "invalid_request_error", code, "%s", text);
    snprintf(p->error->param, sizeof p->error->param, "%s", paths[m]);
    return PD_EINVAL;
}

static void note_unsupported(struct parsed *p, enum member m, const char *what)
{
    struct pd_api_error *e = &p->request.unsupported;
    if (e->http != 0)
        return;
    pd_api_error_set(e, 400, "invalid_request_error", "unsupported_parameter", "%s", what);
    snprintf(e->param, sizeof e->param, "%s", paths[m]);
}

#define BIT(m) ((uint64_t)1 << (m))

/* A member that is there, also as null. */
static inline bool is_present(const struct parsed *p, enum member m)
{
    return (p->present & BIT(m)) != 0;
}

static inline bool is_given(const struct parsed *p, enum member m)
{
    return is_present(p, m) && p->values[m].type != PD_JSON_NULL;
}

static pd_status read_bool(struct parsed *p, enum member m, uint32_t *out)
{
    bool v;
    if (pd_json_get_bool(&p->values[m], &v) != PD_OK)
        return refuse(p, m, "invalid_value", "'%s' must be true or false", paths[m]);
    *out = v;
    return PD_OK;
}

static pd_status read_number(struct parsed *p, enum member m, double lo, double hi, double *out)
{
    double v;
    if (pd_json_get_double(&p->values[m], &v) != PD_OK)
        return refuse(p, m, "invalid_value", "'%s' must be a number", paths[m]);
    if (!(v >= lo && v <= hi))
        return refuse(p, m, "invalid_value", "'%s' must be between %g and %g", paths[m], lo, hi);
    *out = v;
    return PD_OK;
}

static pd_status read_count(struct parsed *p, enum member m, uint64_t lo, uint64_t hi,
                            uint32_t *out)
{
    uint64_t v;
    if (pd_json_get_u64(&p->values[m], &v) != PD_OK || v < lo || v > hi)
        return refuse(p, m, "invalid_value", "'%s' must be a whole number from %llu to %llu",
                      paths[m], (unsigned long long)lo, (unsigned long long)hi);
    *out = (uint32_t)v;
    return PD_OK;
}

/* Whole numbers that other servers also take below zero, where ours has
 * nothing: *out is 0 for these. */
static pd_status read_signed(struct parsed *p, enum member m, uint32_t *out)
{
    int64_t v;
    if (pd_json_get_i64(&p->values[m], &v) != PD_OK || v < INT32_MIN || v > INT32_MAX)
        return refuse(p, m, "invalid_value", "'%s' must be a whole number of 32 bits", paths[m]);
    *out = v > 0 ? (uint32_t)v : 0;
    return PD_OK;
}

static pd_status read_str(struct parsed *p, enum member m, size_t max, struct pd_str *out)
{
    if (p->values[m].type != PD_JSON_STRING)
        return refuse(p, m, "invalid_value", "'%s' must be a string", paths[m]);
    if (pd_json_get_str(&p->values[m], &p->arena, out) != PD_OK)
        return PD_ENOMEM;
    if (out->n > max)
        return refuse(p, m, "invalid_value", "'%s' is longer than %zu bytes", paths[m], max);
    return PD_OK;
}

static pd_status read_stops(struct parsed *p)
{
    const struct pd_json_value *v = &p->values[M_STOP];
    struct pd_json_value item;
    struct pd_json_iter it;
    struct pd_str *stops;
    if (v->type != PD_JSON_STRING && v->type != PD_JSON_ARRAY)
        return refuse(p, M_STOP, "invalid_value", "'stop' must be a string or a list of strings");
    size_t n = v->type == PD_JSON_STRING ? 1 : pd_json_count(v);
    if (n > PD_API_MAX_STOPS)
        return refuse(p, M_STOP, "invalid_value", "'stop' has more than %u strings",
                      PD_API_MAX_STOPS);
    stops = pd_arena_calloc(&p->arena, n + 1, sizeof *stops);
    if (stops == NULL)
        return PD_ENOMEM;
    p->request.stops = stops;
    if (v->type == PD_JSON_STRING) {
        item = *v;
        it = (struct pd_json_iter){ 0 };
    } else {
        pd_json_iter_init(&it, v);
    }
    while (v->type == PD_JSON_STRING || pd_json_iter_next(&it, NULL, &item)) {
        struct pd_str s;
        if (item.type != PD_JSON_STRING)
            return refuse(p, M_STOP, "invalid_value",
                          "'stop' must be a string or a list of strings");
        if (pd_json_get_str(&item, &p->arena, &s) != PD_OK)
            return PD_ENOMEM;
        if (s.n == 0 || s.n > PD_API_STOP_MAX)
            return refuse(p, M_STOP, "invalid_value", "a string in 'stop' must have 1 to %u bytes",
                          PD_API_STOP_MAX);
        stops[p->request.n_stops++] = s;
        if (v->type == PD_JSON_STRING)
            break;
    }
    return PD_OK;
}

static void note_length(struct parsed *p, enum member m, size_t n)
{
    if (n > PD_API_PROMPT_MAX)
        note_unsupported(p, m, "the text is longer than this model takes");
}

/* A text of a prompt.  One without escapes stands in the body as it is; one with
 * escapes waits for pd_api_request_texts, because a server behind an adapter gets
 * the body's own bytes and nobody wants the text. */
static pd_status read_prompt_text(struct parsed *p, enum member m, const struct pd_json_value *v,
                                  struct pd_str *out)
{
    if (v->is_plain) {
        *out = pd_str_sub(v->text, 1, v->text.n - 2);
        note_length(p, m, out->n);
        return PD_OK;
    }
    struct late *late = pd_arena_alloc(&p->arena, sizeof *late);
    if (late == NULL)
        return PD_ENOMEM;
    *late = (struct late){ p->late, m, *v, out };
    p->late = late;
    return PD_OK;
}

pd_status pd_api_request_texts(struct pd_api *api, struct pd_api_request *request)
{
    struct parsed *p = pd_container_of(request, struct parsed, request);
    (void)api;
    for (; p->late != NULL; p->late = p->late->next) {
        if (pd_json_get_str(&p->late->value, &p->arena, p->late->out) != PD_OK)
            return PD_ENOMEM;
        note_length(p, p->late->member, p->late->out->n);
    }
    return PD_OK;
}

/* A message's content: a string, null, or a list of parts of which only text
 * can be read here. */
static pd_status read_content(struct parsed *p, const struct pd_json_value *content,
                              struct pd_str *out)
{
    struct pd_json_iter it;
    struct pd_json_value part;
    struct pd_buf joined;
    *out = (struct pd_str){ "", 0 };
    if (content->type == PD_JSON_NONE || content->type == PD_JSON_NULL)
        return PD_OK;
    if (content->type == PD_JSON_STRING)
        return read_prompt_text(p, M_MESSAGES, content, out);
    if (content->type != PD_JSON_ARRAY)
        return refuse(p, M_MESSAGES, "invalid_value",
                      "the content of a message must be a string or a list of parts");
    pd_buf_init(&joined, ARENA_LIMIT);
    pd_json_iter_init(&it, content);
    while (pd_json_iter_next(&it, NULL, &part)) {
        struct pd_json_value type, text;
        if (pd_json_find(&part, "type", &type) != PD_OK) {
            pd_buf_fini(&joined);
            return refuse(p, M_MESSAGES, "invalid_value", "a content part must have a 'type'");
        }
        if (!pd_json_is_str(&type, "text") && !pd_json_is_str(&type, "refusal")) {
            note_unsupported(p, M_MESSAGES, "this model takes text only");
            continue;
        }
        const char *key = pd_json_is_str(&type, "text") ? "text" : "refusal";
        if (pd_json_find(&part, key, &text) != PD_OK || text.type != PD_JSON_STRING) {
            pd_buf_fini(&joined);
            return refuse(p, M_MESSAGES, "invalid_value", "a content part must have a '%s' string",
                          key);
        }
        pd_json_get_buf(&text, &joined); /* a failure stays in its status */
    }
    note_length(p, M_MESSAGES, joined.n);
    pd_status status = joined.status == PD_OK ? pd_arena_str(&p->arena, pd_buf_str(&joined), out)
                                              : joined.status;
    pd_buf_fini(&joined);
    return status;
}

/* Makes room for the next message. */
static void next_message(struct parsed *p)
{
    struct raw_message *m = &p->spare;
    /* A failure stays in the buffer's status. */
    if (p->n_messages < p->limits->max_messages && pd_buf_reserve(p->found, sizeof *m) == PD_OK)
        m = (struct raw_message *)(void *)pd_buf_tail(p->found);
    m->role.type = m->content.type = m->calls.type = PD_JSON_NONE;
    p->message = m;
}

/* The scan has come by a value of a path that has more than one. */
static void on_value(void *arg, size_t path, const struct pd_json_value *value)
{
    struct parsed *p = arg;
    switch (path) {
    case M_MESSAGE_ROLE:
        p->message->role = *value;
        break;
    case M_MESSAGE_CONTENT:
        p->message->content = *value;
        break;
    case M_MESSAGE_CALLS:
        p->message->calls = *value;
        break;
    case M_REMOTE:
    case M_DISAGG:
        if (p->n_families++ < FAMILIES_MAX)
            p->families[p->n_families - 1] = *value;
        break;
    default:
        p->message->type = value->type;
        if (p->message != &p->spare)
            p->found->n += sizeof *p->message;
        p->n_messages++;
        next_message(p);
    }
}

static pd_status read_messages(struct parsed *p)
{
    const struct raw_message *raw = (const struct raw_message *)(const void *)p->found->p;
    size_t n = p->n_messages;
    if (!is_given(p, M_MESSAGES))
        return refuse(p, M_MESSAGES, "missing_required_parameter", "'messages' is missing");
    if (p->found->status != PD_OK)
        return PD_ENOMEM;
    if (n == 0)
        return refuse(p, M_MESSAGES, "invalid_value",
                      "'messages' must be a list with at least one message");
    if (n > p->limits->max_messages)
        return refuse(p, M_MESSAGES, "invalid_value", "'messages' has more than %u messages",
                      p->limits->max_messages);
    struct pd_message *messages = pd_arena_calloc(&p->arena, n, sizeof *messages);
    if (messages == NULL)
        return PD_ENOMEM;
    p->request.messages = messages;
    for (; p->request.n_messages < n; raw++) {
        struct pd_message *m = &messages[p->request.n_messages];
        if (raw->type != PD_JSON_OBJECT)
            return refuse(p, M_MESSAGES, "invalid_value", "each message must be an object");
        if (raw->role.type != PD_JSON_STRING)
            return refuse(p, M_MESSAGES, "invalid_value", "each message must have a 'role' string");
        if (pd_json_get_str(&raw->role, &p->arena, &m->role) != PD_OK)
            return PD_ENOMEM;
        if (m->role.n == 0 || m->role.n > 64)
            return refuse(p, M_MESSAGES, "invalid_value", "a 'role' must have 1 to 64 bytes");
        if (pd_str_is(m->role, "developer"))
            m->role = PD_STR("system");
        if (raw->calls.type != PD_JSON_NONE && pd_json_count(&raw->calls) > 0)
            note_unsupported(p, M_MESSAGES, "this model does not call tools");
        pd_status status = read_content(p, &raw->content, &m->content);
        if (status != PD_OK)
            return status;
        p->request.n_messages++;
    }
    p->request.n_prompts = 1;
    return PD_OK;
}

static pd_status read_token_prompt(struct parsed *p, const struct pd_json_value *v,
                                   struct pd_api_prompt *prompt)
{
    struct pd_json_iter it;
    struct pd_json_value item;
    size_t n = pd_json_count(v);
    if (n == 0 || n > PD_API_TOKENS_MAX)
        return refuse(p, M_PROMPT, "invalid_value", "a prompt must have 1 to %u tokens",
                      PD_API_TOKENS_MAX);
    int32_t *tokens = pd_arena_alloc(&p->arena, n * sizeof *tokens);
    if (tokens == NULL)
        return PD_ENOMEM;
    prompt->tokens = tokens;
    pd_json_iter_init(&it, v);
    while (pd_json_iter_next(&it, NULL, &item)) {
        uint64_t id;
        if (pd_json_get_u64(&item, &id) != PD_OK || id > INT32_MAX)
            return refuse(p, M_PROMPT, "invalid_value", "a token must be a whole number");
        tokens[prompt->n_tokens++] = (int32_t)id;
    }
    return PD_OK;
}

static pd_status read_one_prompt(struct parsed *p, const struct pd_json_value *v,
                                 struct pd_api_prompt *prompt)
{
    prompt->json = v->text;
    if (v->type == PD_JSON_ARRAY)
        return read_token_prompt(p, v, prompt);
    if (v->type != PD_JSON_STRING)
        return refuse(p, M_PROMPT, "invalid_value",
                      "'prompt' must be text, tokens, or a list of these");
    return read_prompt_text(p, M_PROMPT, v, &prompt->text);
}

static pd_status read_prompts(struct parsed *p)
{
    const struct pd_json_value *v = &p->values[M_PROMPT];
    struct pd_json_iter it;
    struct pd_json_value item;
    if (!is_given(p, M_PROMPT))
        return refuse(p, M_PROMPT, "missing_required_parameter", "'prompt' is missing");
    bool is_list = false;
    if (v->type == PD_JSON_ARRAY) {
        pd_json_iter_init(&it, v);
        if (!pd_json_iter_next(&it, NULL, &item))
            return refuse(p, M_PROMPT, "invalid_value", "'prompt' must not be an empty list");
        is_list = item.type != PD_JSON_NUMBER;
    }
    size_t n = is_list ? pd_json_count(v) : 1;
    if (n > p->limits->max_prompts)
        return refuse(p, M_PROMPT, "invalid_value", "'prompt' has more than %u prompts",
                      p->limits->max_prompts);
    struct pd_api_prompt *prompts = pd_arena_calloc(&p->arena, n, sizeof *prompts);
    if (prompts == NULL)
        return PD_ENOMEM;
    p->request.prompts = prompts;
    if (!is_list) {
        p->request.n_prompts = 1;
        return read_one_prompt(p, v, &prompts[0]);
    }
    pd_json_iter_init(&it, v);
    while (pd_json_iter_next(&it, NULL, &item)) {
        pd_status status = read_one_prompt(p, &item, &prompts[p->request.n_prompts]);
        if (status != PD_OK)
            return status;
        p->request.n_prompts++;
    }
    return PD_OK;
}

static pd_status read_seed(struct parsed *p)
{
    int64_t seed;
    if (pd_json_get_i64(&p->values[M_SEED], &seed) != PD_OK)
        return refuse(p, M_SEED, "invalid_value", "'seed' must be a whole number of 64 bits");
    p->request.sampling.seed = (uint64_t)seed;
    p->request.has_seed = 1;
    return PD_OK;
}

/* chat: logprobs is a boolean and top_logprobs a count; completions: logprobs
 * is the count itself. */
static pd_status read_logprobs(struct parsed *p, enum member m)
{
    struct pd_sampling *s = &p->request.sampling;
    bool is_chat = p->request.kind == PD_API_CHAT;
    if (m == M_TOP_LOGPROBS)
        return is_chat ? read_count(p, m, 0, PD_API_MAX_TOP, &s->logprobs) : PD_OK;
    if (is_chat)
        return read_bool(p, m, &s->want_logprob);
    s->want_logprob = 1;
    return read_count(p, m, 0, PD_API_MAX_TOP, &s->logprobs);
}

static pd_status read_stream_options(struct parsed *p)
{
    if (p->values[M_STREAM_OPTIONS].type != PD_JSON_OBJECT)
        return refuse(p, M_STREAM_OPTIONS, "invalid_value", "'stream_options' must be an object");
    return PD_OK;
}

/* A member that is given and is no text of the prompt. */
static pd_status read_member(struct parsed *p, enum member m)
{
    struct pd_api_request *r = &p->request;
    struct pd_sampling *s = &r->sampling;
    switch (m) {
    case M_MODEL:
        return read_str(p, m, PD_API_NAME_MAX, &r->model);
    case M_STREAM:
        return read_bool(p, m, &r->stream);
    case M_STREAM_OPTIONS:
        return read_stream_options(p);
    case M_INCLUDE_USAGE:
        return read_bool(p, m, &r->include_usage);
    case M_ECHO:
        return read_bool(p, m, &r->echo);
    case M_N:
        return read_count(p, m, 1, p->limits->max_choices, &r->n_choices);
    case M_BEST_OF:
        return read_count(p, m, 1, p->limits->max_choices, &p->best_of);
    case M_PRIORITY:
        return read_signed(p, m, &r->priority);
    case M_USER:
        return read_str(p, m, PD_API_NAME_MAX, &r->user);
    case M_PROMPT_CACHE_KEY:
        return read_str(p, m, PD_API_NAME_MAX, &r->session);
    case M_CACHE_SALT:
        return read_str(p, m, PD_API_SALT_MAX, &r->cache_salt);
    case M_TEMPERATURE:
        return read_number(p, m, 0, 2, &s->temperature);
    case M_TOP_P:
        return read_number(p, m, 0, 1, &s->top_p);
    case M_MIN_P:
        return read_number(p, m, 0, 1, &s->min_p);
    case M_FREQUENCY_PENALTY:
        return read_number(p, m, -2, 2, &s->frequency_penalty);
    case M_PRESENCE_PENALTY:
        return read_number(p, m, -2, 2, &s->presence_penalty);
    case M_TOP_K:
        return read_signed(p, m, &s->top_k);
    case M_SEED:
        return read_seed(p);
    case M_MAX_TOKENS:
    case M_MAX_COMPLETION_TOKENS:
        return read_count(p, m, 1, PD_MIN(p->limits->max_output, (uint64_t)UINT32_MAX), &r->max_output);
    case M_LOGPROBS:
    case M_TOP_LOGPROBS:
        return read_logprobs(p, m);
    case M_STOP:
        return read_stops(p);
    default:
        return PD_OK;
    }
}

#define MEMBERS (BIT(M_MODEL) | BIT(M_STREAM) | BIT(M_STREAM_OPTIONS) | BIT(M_INCLUDE_USAGE) | BIT(M_ECHO) | \
                 BIT(M_N) | BIT(M_BEST_OF) | BIT(M_PRIORITY) | BIT(M_USER) | BIT(M_PROMPT_CACHE_KEY) |      \
                 BIT(M_CACHE_SALT) | BIT(M_TEMPERATURE) | BIT(M_TOP_P) | BIT(M_MIN_P) |                     \
                 BIT(M_FREQUENCY_PENALTY) | BIT(M_PRESENCE_PENALTY) | BIT(M_TOP_K) | BIT(M_SEED) |          \
                 BIT(M_MAX_TOKENS) | BIT(M_MAX_COMPLETION_TOKENS) | BIT(M_LOGPROBS) | BIT(M_TOP_LOGPROBS) | \
                 BIT(M_STOP))

static pd_status read_members(struct parsed *p)
{
    struct pd_api_request *r = &p->request;
    struct pd_sampling *s = &r->sampling;
    if (!is_given(p, M_MODEL))
        return refuse(p, M_MODEL, "missing_required_parameter", "'model' is missing");
    r->n_choices = 1;
    s->size = sizeof *s;
    s->temperature = 1;
    s->top_p = 1;
    p->best_of = 0;
    for (uint64_t left = p->present & MEMBERS; left != 0; left &= left - 1) {
        enum member m = (enum member)__builtin_ctzll(left);
        pd_status status = p->values[m].type == PD_JSON_NULL ? PD_OK : read_member(p, m);
        if (status != PD_OK)
            return status;
    }
    if (is_given(p, M_STREAM_OPTIONS) && !r->stream)
        return refuse(p, M_STREAM_OPTIONS, "invalid_value",
                      "'stream_options' is only allowed when 'stream' is true");
    if (r->kind == PD_API_CHAT && s->logprobs > 0 && s->want_logprob == 0)
        return refuse(p, M_TOP_LOGPROBS, "invalid_value", "'top_logprobs' needs 'logprobs' to be true");
    if (p->best_of > r->n_choices)
        note_unsupported(p, M_BEST_OF, "'best_of' above 'n' is not supported");
    if (r->max_output == 0 && r->kind == PD_API_COMPLETIONS)
        r->max_output = 16; /* the default of OpenAI's completions */
    return PD_OK;
}

static bool asks_for_text_only(const struct pd_json_value *modalities)
{
    struct pd_json_iter it;
    struct pd_json_value item;
    if (pd_json_iter_init(&it, modalities) != PD_OK)
        return false;
    while (pd_json_iter_next(&it, NULL, &item)) {
        if (!pd_json_is_str(&item, "text"))
            return false;
    }
    return true;
}

#define OWN_ENGINES_LACK (BIT(M_TOOLS) | BIT(M_FUNCTIONS) | BIT(M_RESPONSE_FORMAT) | BIT(M_LOGIT_BIAS) | \
                          BIT(M_AUDIO) | BIT(M_MODALITIES) | BIT(M_SUFFIX) | BIT(M_ECHO))

static void check_unsupported(struct parsed *p)
{
    const struct pd_json_value *v = p->values;
    if ((p->present & OWN_ENGINES_LACK) == 0)
        return;
    if (is_given(p, M_TOOLS) && pd_json_count(&v[M_TOOLS]) > 0)
        note_unsupported(p, M_TOOLS, "this model does not call tools");
    if (is_given(p, M_FUNCTIONS) && pd_json_count(&v[M_FUNCTIONS]) > 0)
        note_unsupported(p, M_FUNCTIONS, "this model does not call functions");
    if (is_given(p, M_RESPONSE_FORMAT) &&
        !(is_present(p, M_RESPONSE_FORMAT_TYPE) && pd_json_is_str(&v[M_RESPONSE_FORMAT_TYPE], "text")))
        note_unsupported(p, M_RESPONSE_FORMAT, "this model writes plain text only");
    if (is_given(p, M_LOGIT_BIAS) && pd_json_count(&v[M_LOGIT_BIAS]) > 0)
        note_unsupported(p, M_LOGIT_BIAS, "'logit_bias' is not supported by this model");
    if (is_given(p, M_AUDIO) ||
        (is_given(p, M_MODALITIES) && !asks_for_text_only(&v[M_MODALITIES])))
        note_unsupported(p, is_given(p, M_AUDIO) ? M_AUDIO : M_MODALITIES,
                         "this model writes text only");
    if (p->request.kind == PD_API_COMPLETIONS && is_given(p, M_SUFFIX))
        note_unsupported(p, M_SUFFIX, "'suffix' is not supported by this model");
    if (p->request.echo != 0 && p->request.n_prompts > 0 && p->request.kind == PD_API_COMPLETIONS &&
        p->request.prompts[0].tokens != NULL)
        note_unsupported(p, M_ECHO, "'echo' needs a prompt that is text");
    if (p->request.echo != 0 && p->request.sampling.want_logprob != 0)
        note_unsupported(p, M_ECHO,
                         "'echo' together with 'logprobs' is not supported by this model");
}

/* From one member up to another. */
#define FROM_TO(first, end) (BIT(end) - BIT(first))
#define EDITS FROM_TO(M_FIRST_EDIT, M_FIRST_HINT)
#define HINTS FROM_TO(M_FIRST_HINT, M_FIRST_FAMILY)
#define HOLDERS FROM_TO(M_FIRST_HOLDER, M_COUNT)
_Static_assert(M_COUNT < 64, "a bit for each member");

/* The places of members that a forwarded body must not have, or has otherwise. */
static pd_status keep_for_forward(struct parsed *p)
{
    struct pd_json_value found[HINTS_MAX];
    size_t n = 0;
    pd_status status = PD_OK;
    p->root = p->values[M_ROOT];
    p->model = p->values[M_MODEL];
    for (int i = 0; i < EDITABLE; i++)
        p->editable[i].type = PD_JSON_NONE;
    for (uint64_t left = p->present & EDITS; left != 0; left &= left - 1) {
        int m = __builtin_ctzll(left);
        p->editable[m - M_FIRST_EDIT] = p->values[m];
    }
    if ((p->present & (HINTS | HOLDERS)) == 0 && p->n_families == 0)
        return PD_OK;
    for (uint64_t left = p->present & HINTS; left != 0; left &= left - 1)
        found[n++] = p->values[__builtin_ctzll(left)];
    for (uint32_t i = 0; i < p->n_families; i++)
        found[n++] = p->families[i];
    for (uint64_t left = p->present & HOLDERS; left != 0 && status == PD_OK; left &= left - 1)
        status = pd_api_hints_in(&p->values[__builtin_ctzll(left)], &p->arena, found, HINTS_MAX, &n);
    if (status == PD_ELIMIT)
        return refuse(p, M_EXTRA_BODY, "invalid_value", "more than %u members tell where KV is", HINTS_MAX);
    if (status != PD_OK || n == 0)
        return status;
    p->hints = pd_arena_alloc(&p->arena, n * sizeof *p->hints);
    if (p->hints == NULL)
        return PD_ENOMEM;
    memcpy(p->hints, found, n * sizeof *p->hints);
    p->n_hints = (uint32_t)n;
    return PD_OK;
}

static pd_status parse(struct parsed *p, const struct pd_json_paths *wanted, struct pd_str body)
{
    struct pd_json_error where;
    static const struct pd_json_limits json_limits = { .depth = 64, .keys = 4096 };
    next_message(p);
    pd_status status = pd_json_scan_paths(body, &json_limits, wanted, p->values, &p->present,
                                          on_value, p, &where);
    if (status != PD_OK) {
        pd_api_error_set(p->error, 400, "invalid_request_error",
                         status == PD_EEXIST ? "duplicate_key" : "invalid_json",
                         "the body is not valid JSON: line %u, column %u: %s",
                         where.line, where.column, where.text);
        return PD_EINVAL;
    }
    if (p->values[M_ROOT].type != PD_JSON_OBJECT) {
        pd_api_error_set(p->error, 400, "invalid_request_error", "invalid_json",
                         "the body must be a JSON object");
        return PD_EINVAL;
    }
    p->request.body = body;
    if (p->n_families > FAMILIES_MAX)
        return refuse(p, M_REMOTE, "invalid_value", "more than %u members begin with remote_ or disagg_",
                      FAMILIES_MAX);
    status = read_members(p);
    if (status != PD_OK)
        return status;
    bool is_chat = p->request.kind == PD_API_CHAT;
    status = is_chat ? read_messages(p) : read_prompts(p);
    if (status != PD_OK)
        return status;
    p->request.prompt_json = p->values[is_chat ? M_MESSAGES : M_PROMPT].text;
    p->request.n_legs = p->request.n_prompts * p->request.n_choices;
    check_unsupported(p);
    return keep_for_forward(p);
}

pd_status pd_api_request_paths(struct pd_json_paths **out)
{
    return pd_json_paths_create(paths, M_COUNT, out);
}

/* One from the pool, or a new one. */
static struct parsed *get_parsed(struct pd_api *api)
{
    struct pd_list *link = pd_list_pop(&api->pool);
    if (link != NULL) {
        api->n_pool--;
        return PD_LIST_ENTRY(link, struct parsed, link);
    }
    struct parsed *p = pd_calloc(1, sizeof *p);
    if (p != NULL) {
        pd_list_init(&p->link);
        pd_arena_init(&p->arena, ARENA_CHUNK, ARENA_LIMIT);
    }
    return p;
}

static void free_parsed(struct parsed *p)
{
    pd_arena_fini(&p->arena);
    pd_free(p);
}

void pd_api_request_pool_fini(struct pd_api *api)
{
    struct pd_list *link;
    while ((link = pd_list_pop(&api->pool)) != NULL)
        free_parsed(PD_LIST_ENTRY(link, struct parsed, link));
}

pd_status pd_api_request_parse(struct pd_api *api, uint32_t kind, struct pd_str body,
                               const struct pd_api_limits *limits, struct pd_api_request **out,
                               struct pd_api_error *error)
{
    struct parsed *p = get_parsed(api);
    if (p == NULL) {
        pd_api_error_set(error, 503, "server_error", "overloaded", "out of memory");
        return PD_ENOMEM;
    }
    pd_buf_clear(&api->found);
    memset(&p->request, 0, offsetof(struct pd_api_request, unsupported));
    p->request.unsupported.http = 0;
    p->n_messages = 0;
    p->n_families = 0;
    p->found = &api->found;
    p->late = NULL;
    p->values = api->values;
    p->hints = NULL;
    p->n_hints = 0;
    p->limits = limits;
    p->error = error;
    p->request.size = sizeof p->request;
    p->request.kind = kind;
    pd_status status = parse(p, api->paths, body);
    p->limits = NULL;
    p->error = NULL;
    p->found = NULL;
    p->values = NULL;
    if (status != PD_OK) {
        if (status != PD_EINVAL)
            pd_api_error_set(error, 503, "server_error", "overloaded", "out of memory");
        pd_api_request_free(api, &p->request);
        return status;
    }
    *out = &p->request;
    return PD_OK;
}

void pd_api_request_free(struct pd_api *api, struct pd_api_request *request)
{
    if (request == NULL)
        return;
    struct parsed *p = pd_container_of(request, struct parsed, request);
    if (api->n_pool >= POOL) {
        free_parsed(p);
        return;
    }
    pd_arena_reset(&p->arena);
    pd_list_prepend(&api->pool, &p->link);
    api->n_pool++;
}

struct pd_str pd_api_request_hint(struct pd_api *api, const struct pd_api_request *request)
{
    const struct parsed *p = (const struct parsed *)(const void *)request;
    (void)api;
    if (p->n_hints == 0)
        return PD_STR("");
    struct pd_str member = p->hints[0].member;
    const char *end = memchr(member.p + 1, '"', member.n - 1);
    return pd_str_of(member.p + 1, (size_t)(end - member.p) - 1);
}

/* The tenant's name cannot run into the client's salt, since its length stands
 * before it, and nobody finds two of them with the same digest. */
pd_status pd_api_request_scope(struct pd_api *api, struct pd_api_request *request, struct pd_str tenant)
{
    struct parsed *p = (struct parsed *)(void *)request;
    uint8_t digest[PD_SHA256_BYTES];
    uint64_t n = tenant.n;
    char text[PD_SHA256_TEXT];
    (void)api;
    if (tenant.n == 0 && request->cache_salt.n == 0)
        return PD_OK;
    struct pd_sha256 *h = pd_sha256_create();
    pd_status status = h == NULL ? PD_ENOMEM : pd_sha256_update(h, &n, sizeof n);
    if (status == PD_OK)
        status = pd_sha256_update(h, tenant.p, tenant.n);
    if (status == PD_OK)
        status = pd_sha256_update(h, request->cache_salt.p, request->cache_salt.n);
    if (status == PD_OK)
        status = pd_sha256_final(h, digest);
    pd_sha256_destroy(h);
    if (status != PD_OK)
        return status;
    pd_sha256_format(digest, text);
    return pd_arena_str(&p->arena, pd_str_of(text, PD_API_SCOPE_BYTES), &request->cache_salt);
}

pd_status pd_api_request_forward(struct pd_api *api, const struct pd_api_request *request,
                                 struct pd_str model, bool adds_salt, struct pd_str *out)
{
    const struct parsed *p = (const struct parsed *)(const void *)request;
    struct pd_json_edit edits[HINTS_MAX + 2];
    const struct pd_json_value *given = &p->editable[M_CACHE_SALT - M_FIRST_EDIT];
    bool has_salt = request->cache_salt.n > 0 && (adds_salt || given->type != PD_JSON_NONE);
    struct pd_buf name, salt;
    size_t n = 0;
    *out = request->body;
    if (p->n_hints == 0 && model.n == 0 && !has_salt)
        return PD_OK;
    for (; n < p->n_hints; n++)
        edits[n] = (struct pd_json_edit){ .op = PD_JSON_REMOVE, .value = &p->hints[n] };
    pd_buf_init(&name, 8 * PD_API_NAME_MAX);
    pd_buf_init(&salt, 8 * PD_API_SALT_MAX);
    if (model.n > 0) {
        pd_json_put_str(&name, model);
        edits[n++] = (struct pd_json_edit){ .op = PD_JSON_SET, .value = &p->model,
                                            .object = &p->root, .key = "model",
                                            .text = pd_buf_str(&name) };
    }
    if (has_salt) {
        pd_json_put_str(&salt, request->cache_salt);
        edits[n++] = (struct pd_json_edit){ .op = PD_JSON_SET, .value = given,
                                            .object = &p->root, .key = "cache_salt",
                                            .text = pd_buf_str(&salt) };
    }
    pd_buf_clear(&api->scratch);
    pd_status status = name.status != PD_OK ? name.status : salt.status;
    if (status == PD_OK)
        status = pd_json_splice_buf(request->body, edits, n, &api->scratch);
    pd_buf_fini(&name);
    pd_buf_fini(&salt);
    *out = pd_buf_str(&api->scratch);
    return status;
}

/* The member at the top with this key, absent when it is none of the client's: one
 * that only we may set is deleted and not changed.  *found is for those that no
 * scan was made for. */
static const struct pd_json_value *member_of(const struct parsed *p, const char *key,
                                             struct pd_json_value *found)
{
    for (int m = M_FIRST_EDIT; m < M_FIRST_HINT; m++) {
        if (strcmp(paths[m], key) == 0)
            return &p->editable[m - M_FIRST_EDIT];
    }
    if (pd_api_is_hint(pd_str_from(key)) || pd_json_find(&p->root, key, found) != PD_OK)
        found->type = PD_JSON_NONE;
    return found;
}

bool pd_api_request_has(struct pd_api *api, const struct pd_api_request *request, const char *key)
{
    const struct parsed *p = (const struct parsed *)(const void *)request;
    struct pd_json_value found;
    const struct pd_json_value *v = member_of(p, key, &found);
    bool b;
    (void)api;
    return v->type != PD_JSON_NONE && v->type != PD_JSON_NULL &&
           !(v->type == PD_JSON_BOOL && pd_json_get_bool(v, &b) == PD_OK && !b);
}

pd_status pd_api_request_edit(struct pd_api *api, const struct pd_api_request *request,
                              const struct pd_api_edit *changes, uint32_t n_changes, struct pd_iov *iov,
                              size_t *n_iov)
{
    const struct parsed *p = (const struct parsed *)(const void *)request;
    struct pd_json_edit edits[HINTS_MAX + PD_API_EDITS_MAX];
    struct pd_json_value found[PD_API_EDITS_MAX];
    size_t n = 0;
    (void)api;
    if (n_changes > PD_API_EDITS_MAX)
        return PD_ELIMIT;
    for (; n < p->n_hints; n++)
        edits[n] = (struct pd_json_edit){ .op = PD_JSON_REMOVE, .value = &p->hints[n] };
    for (uint32_t i = 0; i < n_changes; i++) {
        const struct pd_api_edit *c = &changes[i];
        const struct pd_json_value *v = member_of(p, c->key, &found[i]);
        if (c->op == PD_API_EDIT_GIVEN && v->type == PD_JSON_NONE)
            continue;
        edits[n++] = (struct pd_json_edit){
            .op = c->op == PD_API_EDIT_REMOVE ? PD_JSON_REMOVE : PD_JSON_SET, .value = v,
            .object = &p->root, .key = c->key, .text = c->text,
        };
    }
    return pd_json_splice(request->body, edits, n, iov, n_iov, NULL);
}
