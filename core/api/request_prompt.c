/* SPDX-License-Identifier: Apache-2.0 */
/* The messages or the prompts of a request. */
#include "api/request_int.h"

#include <string.h>

#include "base/compiler.h"
#include "base/str.h"

static void note_length(struct pd_api_parsed *p, enum pd_api_member m, size_t n)
{
    if (n > PD_API_PROMPT_MAX)
        pd_api_note_unsupported(p, m, "the text is longer than this model takes");
}

/* A text of a prompt.  One without escapes stands in the body as it is; one with
 * escapes waits for pd_api_request_texts, because a server behind an adapter gets
 * the body's own bytes and nobody wants the text. */
static pd_status read_prompt_text(struct pd_api_parsed *p, enum pd_api_member m, const struct pd_json_value *v,
                                  struct pd_str *out)
{
    if (v->is_plain) {
        *out = pd_str_sub(v->text, 1, v->text.n - 2);
        note_length(p, m, out->n);
        return PD_OK;
    }
    struct pd_api_late *late = pd_arena_alloc(&p->arena, sizeof *late);
    if (late == NULL)
        return PD_ENOMEM;
    *late = (struct pd_api_late){ p->late, m, *v, out };
    p->late = late;
    return PD_OK;
}

pd_status pd_api_request_texts(struct pd_api *api, struct pd_api_request *request)
{
    struct pd_api_parsed *p = pd_container_of(request, struct pd_api_parsed, request);
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
static pd_status read_content(struct pd_api_parsed *p, const struct pd_json_value *content,
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
        return pd_api_refuse(p, M_MESSAGES, "invalid_value",
                      "the content of a message must be a string or a list of parts");
    pd_buf_init(&joined, PD_API_ARENA_LIMIT);
    pd_json_iter_init(&it, content);
    while (pd_json_iter_next(&it, NULL, &part)) {
        struct pd_json_value type, text;
        if (pd_json_find(&part, "type", &type) != PD_OK) {
            pd_buf_fini(&joined);
            return pd_api_refuse(p, M_MESSAGES, "invalid_value", "a content part must have a 'type'");
        }
        if (!pd_json_is_str(&type, "text") && !pd_json_is_str(&type, "refusal")) {
            pd_api_note_unsupported(p, M_MESSAGES, "this model takes text only");
            continue;
        }
        const char *key = pd_json_is_str(&type, "text") ? "text" : "refusal";
        if (pd_json_find(&part, key, &text) != PD_OK || text.type != PD_JSON_STRING) {
            pd_buf_fini(&joined);
            return pd_api_refuse(p, M_MESSAGES, "invalid_value", "a content part must have a '%s' string",
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

void pd_api_next_message(struct pd_api_parsed *p)
{
    struct pd_api_raw_message *m = &p->spare;
    /* A failure stays in the buffer's status. */
    if (p->n_messages < p->limits->max_messages && pd_buf_reserve(p->found, sizeof *m) == PD_OK)
        m = (struct pd_api_raw_message *)(void *)pd_buf_tail(p->found);
    m->role.type = m->content.type = m->calls.type = PD_JSON_NONE;
    p->message = m;
}

void pd_api_on_value(void *arg, size_t path, const struct pd_json_value *value)
{
    struct pd_api_parsed *p = arg;
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
        pd_api_next_message(p);
    }
}

pd_status pd_api_read_messages(struct pd_api_parsed *p)
{
    const struct pd_api_raw_message *raw = (const struct pd_api_raw_message *)(const void *)p->found->p;
    size_t n = p->n_messages;
    if (!is_given(p, M_MESSAGES))
        return pd_api_refuse(p, M_MESSAGES, "missing_required_parameter", "'messages' is missing");
    if (p->found->status != PD_OK)
        return PD_ENOMEM;
    if (n == 0)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value",
                      "'messages' must be a list with at least one message");
    if (n > p->limits->max_messages)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value", "'messages' has more than %u messages",
                      p->limits->max_messages);
    struct pd_message *messages = pd_arena_calloc(&p->arena, n, sizeof *messages);
    if (messages == NULL)
        return PD_ENOMEM;
    p->request.messages = messages;
    for (; p->request.n_messages < n; raw++) {
        struct pd_message *m = &messages[p->request.n_messages];
        if (raw->type != PD_JSON_OBJECT)
            return pd_api_refuse(p, M_MESSAGES, "invalid_value", "each message must be an object");
        if (raw->role.type != PD_JSON_STRING)
            return pd_api_refuse(p, M_MESSAGES, "invalid_value", "each message must have a 'role' string");
        if (pd_json_get_str(&raw->role, &p->arena, &m->role) != PD_OK)
            return PD_ENOMEM;
        if (m->role.n == 0 || m->role.n > 64)
            return pd_api_refuse(p, M_MESSAGES, "invalid_value", "a 'role' must have 1 to 64 bytes");
        if (pd_str_is(m->role, "developer"))
            m->role = PD_STR("system");
        if (raw->calls.type != PD_JSON_NONE && pd_json_count(&raw->calls) > 0)
            pd_api_note_unsupported(p, M_MESSAGES, "this model does not call tools");
        pd_status status = read_content(p, &raw->content, &m->content);
        if (status != PD_OK)
            return status;
        p->request.n_messages++;
    }
    p->request.n_prompts = 1;
    return PD_OK;
}

static pd_status read_token_prompt(struct pd_api_parsed *p, const struct pd_json_value *v,
                                   struct pd_api_prompt *prompt)
{
    struct pd_json_iter it;
    struct pd_json_value item;
    size_t n = pd_json_count(v);
    if (n == 0 || n > PD_API_TOKENS_MAX)
        return pd_api_refuse(p, M_PROMPT, "invalid_value", "a prompt must have 1 to %u tokens",
                      PD_API_TOKENS_MAX);
    int32_t *tokens = pd_arena_alloc(&p->arena, n * sizeof *tokens);
    if (tokens == NULL)
        return PD_ENOMEM;
    prompt->tokens = tokens;
    pd_json_iter_init(&it, v);
    while (pd_json_iter_next(&it, NULL, &item)) {
        uint64_t id;
        if (pd_json_get_u64(&item, &id) != PD_OK || id > INT32_MAX)
            return pd_api_refuse(p, M_PROMPT, "invalid_value", "a token must be a whole number");
        tokens[prompt->n_tokens++] = (int32_t)id;
    }
    return PD_OK;
}

static pd_status read_one_prompt(struct pd_api_parsed *p, const struct pd_json_value *v,
                                 struct pd_api_prompt *prompt)
{
    prompt->json = v->text;
    if (v->type == PD_JSON_ARRAY)
        return read_token_prompt(p, v, prompt);
    if (v->type != PD_JSON_STRING)
        return pd_api_refuse(p, M_PROMPT, "invalid_value",
                      "'prompt' must be text, tokens, or a list of these");
    return read_prompt_text(p, M_PROMPT, v, &prompt->text);
}

pd_status pd_api_read_prompts(struct pd_api_parsed *p)
{
    const struct pd_json_value *v = &p->values[M_PROMPT];
    struct pd_json_iter it;
    struct pd_json_value item;
    if (!is_given(p, M_PROMPT))
        return pd_api_refuse(p, M_PROMPT, "missing_required_parameter", "'prompt' is missing");
    bool is_list = false;
    if (v->type == PD_JSON_ARRAY) {
        pd_json_iter_init(&it, v);
        if (!pd_json_iter_next(&it, NULL, &item))
            return pd_api_refuse(p, M_PROMPT, "invalid_value", "'prompt' must not be an empty list");
        is_list = item.type != PD_JSON_NUMBER;
    }
    size_t n = is_list ? pd_json_count(v) : 1;
    if (n > p->limits->max_prompts)
        return pd_api_refuse(p, M_PROMPT, "invalid_value", "'prompt' has more than %u prompts",
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
