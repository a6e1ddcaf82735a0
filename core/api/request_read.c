/* SPDX-License-Identifier: Apache-2.0 */
/* The members of a request beside its prompt.  What an engine of our own cannot do is
 * noted, not refused, because a server behind an adapter may be able to. */
#include "api/request_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/str.h"

pd_status pd_api_refuse(struct pd_api_parsed *p, enum pd_api_member m, const char *code, const char *fmt, ...)
{
    char text[sizeof p->error->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pd_api_error_set(p->error, 400, "invalid_request_error", code, "%s", text);
    snprintf(p->error->param, sizeof p->error->param, "%s", pd_api_member_paths[m]);
    return PD_EINVAL;
}

void pd_api_note_unsupported(struct pd_api_parsed *p, enum pd_api_member m, const char *what)
{
    struct pd_api_error *e = &p->request.unsupported;
    if (e->http != 0)
        return;
    pd_api_error_set(e, 400, "invalid_request_error", "unsupported_parameter", "%s", what);
    snprintf(e->param, sizeof e->param, "%s", pd_api_member_paths[m]);
}

static pd_status read_bool(struct pd_api_parsed *p, enum pd_api_member m, uint32_t *out)
{
    bool v;
    if (pd_json_get_bool(&p->values[m], &v) != PD_OK)
        return pd_api_refuse(p, m, "invalid_value", "'%s' must be true or false", pd_api_member_paths[m]);
    *out = v;
    return PD_OK;
}

static pd_status read_number(struct pd_api_parsed *p, enum pd_api_member m, double lo, double hi, double *out)
{
    uint32_t small;
    double v;
    if (pd_api_small(&p->values[m], &small))
        v = small;
    else if (pd_json_get_double(&p->values[m], &v) != PD_OK)
        return pd_api_refuse(p, m, "invalid_value", "'%s' must be a number", pd_api_member_paths[m]);
    if (!(v >= lo && v <= hi))
        return pd_api_refuse(p, m, "invalid_value", "'%s' must be between %g and %g", pd_api_member_paths[m], lo, hi);
    *out = v;
    return PD_OK;
}

static pd_status read_count(struct pd_api_parsed *p, enum pd_api_member m, uint64_t lo, uint64_t hi,
                            uint32_t *out)
{
    uint32_t small;
    uint64_t v;
    bool is_whole = pd_api_small(&p->values[m], &small);
    if (is_whole)
        v = small;
    else
        is_whole = pd_json_get_u64(&p->values[m], &v) == PD_OK;
    if (!is_whole || v < lo || v > hi)
        return pd_api_refuse(p, m, "invalid_value", "'%s' must be a whole number from %llu to %llu",
                      pd_api_member_paths[m], (unsigned long long)lo, (unsigned long long)hi);
    *out = (uint32_t)v;
    return PD_OK;
}

/* Whole numbers that other servers also take below zero, where ours has
 * nothing: *out is 0 for these. */
static pd_status read_signed(struct pd_api_parsed *p, enum pd_api_member m, uint32_t *out)
{
    int64_t v;
    if (pd_json_get_i64(&p->values[m], &v) != PD_OK || v < INT32_MIN || v > INT32_MAX)
        return pd_api_refuse(p, m, "invalid_value", "'%s' must be a whole number of 32 bits", pd_api_member_paths[m]);
    *out = v > 0 ? (uint32_t)v : 0;
    return PD_OK;
}

static pd_status read_str(struct pd_api_parsed *p, enum pd_api_member m, size_t max, struct pd_str *out)
{
    if (p->values[m].type != PD_JSON_STRING)
        return pd_api_refuse(p, m, "invalid_value", "'%s' must be a string", pd_api_member_paths[m]);
    if (!pd_api_plain(&p->values[m], out) && pd_json_get_str(&p->values[m], &p->arena, out) != PD_OK)
        return PD_ENOMEM;
    if (out->n > max)
        return pd_api_refuse(p, m, "invalid_value", "'%s' is longer than %zu bytes", pd_api_member_paths[m], max);
    return PD_OK;
}

static pd_status read_stops(struct pd_api_parsed *p)
{
    const struct pd_json_value *v = &p->values[M_STOP];
    struct pd_json_value item;
    struct pd_json_iter it;
    struct pd_str *stops;
    if (v->type != PD_JSON_STRING && v->type != PD_JSON_ARRAY)
        return pd_api_refuse(p, M_STOP, "invalid_value", "'stop' must be a string or a list of strings");
    size_t n = v->type == PD_JSON_STRING ? 1 : pd_json_count(v);
    if (n > PD_API_MAX_STOPS)
        return pd_api_refuse(p, M_STOP, "invalid_value", "'stop' has more than %u strings",
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
            return pd_api_refuse(p, M_STOP, "invalid_value",
                          "'stop' must be a string or a list of strings");
        if (pd_json_get_str(&item, &p->arena, &s) != PD_OK)
            return PD_ENOMEM;
        if (s.n == 0 || s.n > PD_API_STOP_MAX)
            return pd_api_refuse(p, M_STOP, "invalid_value", "a string in 'stop' must have 1 to %u bytes",
                          PD_API_STOP_MAX);
        stops[p->request.n_stops++] = s;
        if (v->type == PD_JSON_STRING)
            break;
    }
    return PD_OK;
}

static pd_status read_seed(struct pd_api_parsed *p)
{
    int64_t seed;
    if (pd_json_get_i64(&p->values[M_SEED], &seed) != PD_OK)
        return pd_api_refuse(p, M_SEED, "invalid_value", "'seed' must be a whole number of 64 bits");
    p->request.sampling.seed = (uint64_t)seed;
    p->request.has_seed = 1;
    return PD_OK;
}

/* chat: logprobs is a boolean and top_logprobs a count; completions: logprobs
 * is the count itself. */
static pd_status read_logprobs(struct pd_api_parsed *p, enum pd_api_member m)
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

static pd_status read_stream_options(struct pd_api_parsed *p)
{
    if (p->values[M_STREAM_OPTIONS].type != PD_JSON_OBJECT)
        return pd_api_refuse(p, M_STREAM_OPTIONS, "invalid_value", "'stream_options' must be an object");
    return PD_OK;
}

/* A member that is given and is no text of the prompt. */
static pd_status read_member(struct pd_api_parsed *p, enum pd_api_member m)
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

/* Members as most requests have them, read in line; returns their bits.  All others,
 * and wrong ones, are left to read_member. */
static inline uint64_t read_usual(struct pd_api_parsed *p)
{
    const struct pd_json_value *v = p->values;
    struct pd_api_request *r = &p->request;
    uint64_t done = 0;
    uint32_t n;
    if (pd_api_plain(&v[M_MODEL], &r->model) && r->model.n <= PD_API_NAME_MAX)
        done |= BIT(M_MODEL);
    if (is_present(p, M_MAX_TOKENS) && pd_api_small(&v[M_MAX_TOKENS], &n) && n > 0 && n <= p->limits->max_output) {
        r->max_output = n;
        done |= BIT(M_MAX_TOKENS);
    }
    if (is_present(p, M_TEMPERATURE) && pd_api_small(&v[M_TEMPERATURE], &n) && n <= 2) {
        r->sampling.temperature = n;
        done |= BIT(M_TEMPERATURE);
    }
    if (is_present(p, M_STREAM) && v[M_STREAM].type == PD_JSON_BOOL) {
        r->stream = v[M_STREAM].text.p[0] == 't';
        done |= BIT(M_STREAM);
    }
    return done;
}

static __attribute__((noinline)) pd_status read_others(struct pd_api_parsed *p, uint64_t left)
{
    for (; left != 0; left &= left - 1) {
        enum pd_api_member m = (enum pd_api_member)__builtin_ctzll(left);
        pd_status status = p->values[m].type == PD_JSON_NULL ? PD_OK : read_member(p, m);
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}

/* What members say together. */
static __attribute__((noinline)) pd_status check_members(struct pd_api_parsed *p)
{
    struct pd_api_request *r = &p->request;
    const struct pd_sampling *s = &r->sampling;
    if (is_given(p, M_STREAM_OPTIONS) && !r->stream)
        return pd_api_refuse(p, M_STREAM_OPTIONS, "invalid_value",
                      "'stream_options' is only allowed when 'stream' is true");
    if (r->kind == PD_API_CHAT && s->logprobs > 0 && s->want_logprob == 0)
        return pd_api_refuse(p, M_TOP_LOGPROBS, "invalid_value", "'top_logprobs' needs 'logprobs' to be true");
    if (p->best_of > r->n_choices)
        pd_api_note_unsupported(p, M_BEST_OF, "'best_of' above 'n' is not supported");
    if (r->max_output == 0 && r->kind == PD_API_COMPLETIONS)
        r->max_output = 16; /* the default of OpenAI's completions */
    return PD_OK;
}

#define TOGETHER (BIT(M_STREAM_OPTIONS) | BIT(M_LOGPROBS) | BIT(M_TOP_LOGPROBS) | BIT(M_BEST_OF))

pd_status pd_api_read_members(struct pd_api_parsed *p)
{
    if (!is_given(p, M_MODEL))
        return pd_api_refuse(p, M_MODEL, "missing_required_parameter", "'model' is missing");
    uint64_t left = p->present & MEMBERS & ~read_usual(p);
    pd_status status = left == 0 ? PD_OK : read_others(p, left);
    if (status != PD_OK)
        return status;
    return (p->present & TOGETHER) != 0 || p->request.kind != PD_API_CHAT ? check_members(p) : PD_OK;
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

static __attribute__((noinline)) void check_unsupported(struct pd_api_parsed *p)
{
    const struct pd_json_value *v = p->values;
    if (is_given(p, M_TOOLS) && pd_json_count(&v[M_TOOLS]) > 0)
        pd_api_note_unsupported(p, M_TOOLS, "this model does not call tools");
    if (is_given(p, M_FUNCTIONS) && pd_json_count(&v[M_FUNCTIONS]) > 0)
        pd_api_note_unsupported(p, M_FUNCTIONS, "this model does not call functions");
    if (is_given(p, M_RESPONSE_FORMAT) &&
        !(is_present(p, M_RESPONSE_FORMAT_TYPE) && pd_json_is_str(&v[M_RESPONSE_FORMAT_TYPE], "text")))
        pd_api_note_unsupported(p, M_RESPONSE_FORMAT, "this model writes plain text only");
    if (is_given(p, M_LOGIT_BIAS) && pd_json_count(&v[M_LOGIT_BIAS]) > 0)
        pd_api_note_unsupported(p, M_LOGIT_BIAS, "'logit_bias' is not supported by this model");
    if (is_given(p, M_AUDIO) ||
        (is_given(p, M_MODALITIES) && !asks_for_text_only(&v[M_MODALITIES])))
        pd_api_note_unsupported(p, is_given(p, M_AUDIO) ? M_AUDIO : M_MODALITIES,
                         "this model writes text only");
    if (p->request.kind == PD_API_COMPLETIONS && is_given(p, M_SUFFIX))
        pd_api_note_unsupported(p, M_SUFFIX, "'suffix' is not supported by this model");
    if (p->request.echo != 0 && p->request.n_prompts > 0 && p->request.kind == PD_API_COMPLETIONS &&
        p->request.prompts[0].tokens != NULL)
        pd_api_note_unsupported(p, M_ECHO, "'echo' needs a prompt that is text");
    if (p->request.echo != 0 && p->request.sampling.want_logprob != 0)
        pd_api_note_unsupported(p, M_ECHO,
                         "'echo' together with 'logprobs' is not supported by this model");
}

void pd_api_check_unsupported(struct pd_api_parsed *p)
{
    if ((p->present & OWN_ENGINES_LACK) != 0)
        check_unsupported(p);
}
