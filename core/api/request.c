/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the bodies of /v1/chat/completions and /v1/completions.  One scan finds
 * the members that matter here; everything else stays as it came and reaches a
 * server behind an adapter byte for byte. */
#include "api/request_int.h"

#include <string.h>

#include "base/compiler.h"
#include "base/str.h"

#define ARENA_CHUNK 1024u
#define POOL 64u                       /* parsed requests kept for the next ones */

const char *const pd_api_member_paths[M_COUNT] = {
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

static pd_status parse(struct pd_api_parsed *p, const struct pd_json_paths *wanted, struct pd_str body)
{
    struct pd_json_error where;
    static const struct pd_json_limits json_limits = { .depth = 64, .keys = 4096 };
    pd_status status = pd_json_scan_paths(body, &json_limits, wanted, p->values, &p->present,
                                          pd_api_on_value, p, &where);
    if (status != PD_OK) {
        pd_api_error_set(p->error, 400, "invalid_request_error",
                         status == PD_EEXIST ? "duplicate_key" : "invalid_json",
                         "the body is not valid JSON: line %u, column %u: %s",
                         where.line, where.column, where.text);
        return PD_EINVAL;
    }
    p->root.text = body.p[0] == '{' && body.p[body.n - 1] == '}' ? body : pd_str_trim(body);
    p->root.type = pd_json_type_of(p->root.text);
    if (p->root.type != PD_JSON_OBJECT) {
        pd_api_error_set(p->error, 400, "invalid_request_error", "invalid_json",
                         "the body must be a JSON object");
        return PD_EINVAL;
    }
    if (p->n_families > PD_API_FAMILIES)
        return pd_api_refuse(p, M_REMOTE, "invalid_value", "more than %u members begin with remote_ or disagg_",
                      PD_API_FAMILIES);
    status = pd_api_read_members(p);
    if (status != PD_OK)
        return status;
    bool is_chat = p->request.kind == PD_API_CHAT;
    status = is_chat ? pd_api_read_messages(p) : pd_api_read_prompts(p);
    if (status != PD_OK)
        return status;
    p->request.prompt_json = p->values[is_chat ? M_MESSAGES : M_PROMPT].text;
    p->request.n_legs = p->request.n_prompts * p->request.n_choices;
    pd_api_check_unsupported(p);
    return pd_api_keep_for_forward(p);
}

pd_status pd_api_request_paths(struct pd_json_paths **out)
{
    return pd_json_paths_create(pd_api_member_paths, M_COUNT, out);
}

/* One from the pool, or a new one. */
static struct pd_api_parsed *get_parsed(struct pd_api *api)
{
    struct pd_list *link = pd_list_pop(&api->pool);
    if (link != NULL) {
        api->n_pool--;
        return PD_LIST_ENTRY(link, struct pd_api_parsed, link);
    }
    struct pd_api_parsed *p = pd_calloc(1, sizeof *p);
    if (p != NULL) {
        pd_list_init(&p->link);
        pd_arena_init(&p->arena, ARENA_CHUNK, PD_API_ARENA_LIMIT);
    }
    return p;
}

static void free_parsed(struct pd_api_parsed *p)
{
    pd_arena_fini(&p->arena);
    pd_free(p);
}

void pd_api_request_pool_fini(struct pd_api *api)
{
    struct pd_list *link;
    while ((link = pd_list_pop(&api->pool)) != NULL)
        free_parsed(PD_LIST_ENTRY(link, struct pd_api_parsed, link));
}

pd_status pd_api_request_parse(struct pd_api *api, uint32_t kind, struct pd_str body,
                               const struct pd_api_limits *limits, struct pd_api_request **out,
                               struct pd_api_error *error)
{
    struct pd_api_parsed *p = get_parsed(api);
    if (p == NULL) {
        pd_api_error_set(error, 503, "server_error", "overloaded", "out of memory");
        return PD_ENOMEM;
    }
    struct pd_api_request *r = &p->request;
    r->size = sizeof *r;
    r->kind = kind;
    r->body = body;
    r->model = r->user = r->session = r->cache_salt = r->prompt_json = (struct pd_str){ NULL, 0 };
    r->messages = NULL;
    r->prompts = NULL;
    r->stops = NULL;
    r->n_messages = r->n_prompts = r->n_stops = r->n_legs = 0;
    r->n_choices = 1;
    r->stream = r->include_usage = r->echo = r->has_seed = 0;
    r->max_output = r->priority = r->reserved = 0;
    r->sampling = (struct pd_sampling){ .size = sizeof r->sampling, .temperature = 1, .top_p = 1 };
    r->unsupported.http = 0;
    p->n_messages = 0;
    p->n_families = 0;
    p->best_of = 0;
    p->found = &api->found;
    p->late = NULL;
    p->values = api->values;
    p->families = api->families;
    p->hints = NULL;
    p->n_hints = 0;
    p->limits = limits;
    p->error = error;
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
    struct pd_api_parsed *p = pd_container_of(request, struct pd_api_parsed, request);
    if (api->n_pool >= POOL) {
        free_parsed(p);
        return;
    }
    pd_arena_reset(&p->arena);
    pd_list_prepend(&api->pool, &p->link);
    api->n_pool++;
}
