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
    if (pd_api_plain(v, out)) {
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

/* The place of the next message; NULL: there are too many, or no memory, which stays in
 * the buffer's status. */
static struct pd_api_raw_message *next_message(struct pd_api_parsed *p)
{
    uint32_t n = p->n_messages++;
    if (n == 0)
        return &p->first;
    if (n == 1)
        pd_buf_clear(p->found);
    if (n >= p->limits->max_messages || pd_buf_reserve(p->found, sizeof p->first) != PD_OK)
        return NULL;
    struct pd_api_raw_message *m = (struct pd_api_raw_message *)(void *)pd_buf_tail(p->found);
    p->found->n += sizeof *m;
    return m;
}

/* What is kept of one that is not read at once. */
static void keep_message(struct pd_api_raw_message *m, const struct pd_json_value *value,
                         const struct pd_json_value *values, uint64_t found)
{
    m->type = value->type;
    m->has_calls = (found & BIT(M_MESSAGE_CALLS)) != 0 && pd_json_count(&values[M_MESSAGE_CALLS]) > 0;
    m->role.type = m->content.type = PD_JSON_NONE;
    if ((found & BIT(M_MESSAGE_ROLE)) != 0)
        m->role = values[M_MESSAGE_ROLE];
    if ((found & BIT(M_MESSAGE_CONTENT)) != 0)
        m->content = values[M_MESSAGE_CONTENT];
}

#define ROLE_MAX 64u
#define DEVELOPER "developer"      /* a newer name of "system" */
#define USUAL (BIT(M_MESSAGE_ROLE) | BIT(M_MESSAGE_CONTENT) | BIT(M_MESSAGE_CALLS))

/* Most messages are read where they are found. */
void pd_api_on_value(void *arg, size_t path, const struct pd_json_value *value, uint64_t found)
{
    struct pd_api_parsed *p = arg;
    if (path != M_MESSAGE) {
        if (p->n_families++ < PD_API_FAMILIES)
            p->families[p->n_families - 1] = *value;
        return;
    }
    struct pd_api_raw_message *m = next_message(p);
    if (m == NULL)
        return;
    const struct pd_json_value *v = p->values;
    m->is_read = value->type == PD_JSON_OBJECT && (found & USUAL) == (BIT(M_MESSAGE_ROLE) | BIT(M_MESSAGE_CONTENT)) &&
                 pd_api_plain(&v[M_MESSAGE_ROLE], &m->message.role) && m->message.role.n - 1 < ROLE_MAX &&
                 m->message.role.n != strlen(DEVELOPER) &&
                 pd_api_plain(&v[M_MESSAGE_CONTENT], &m->message.content) &&
                 m->message.content.n <= PD_API_PROMPT_MAX;
    if (!m->is_read)
        keep_message(m, value, v, found);
}

static __attribute__((noinline)) pd_status read_message(struct pd_api_parsed *p, const struct pd_api_raw_message *raw,
                                                        struct pd_message *m)
{
    if (raw->type != PD_JSON_OBJECT)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value", "each message must be an object");
    if (raw->role.type != PD_JSON_STRING)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value", "each message must have a 'role' string");
    if (pd_json_get_str(&raw->role, &p->arena, &m->role) != PD_OK)
        return PD_ENOMEM;
    if (m->role.n == 0 || m->role.n > ROLE_MAX)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value", "a 'role' must have 1 to %u bytes", ROLE_MAX);
    if (pd_str_is(m->role, DEVELOPER))
        m->role = PD_STR("system");
    if (raw->has_calls)
        pd_api_note_unsupported(p, M_MESSAGES, "this model does not call tools");
    return read_content(p, &raw->content, &m->content);
}

static __attribute__((noinline)) pd_status read_messages(struct pd_api_parsed *p)
{
    const struct pd_api_raw_message *more = (const struct pd_api_raw_message *)(const void *)p->found->p;
    size_t n = p->n_messages;
    if (!is_given(p, M_MESSAGES))
        return pd_api_refuse(p, M_MESSAGES, "missing_required_parameter", "'messages' is missing");
    if (n == 0)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value",
                      "'messages' must be a list with at least one message");
    if (n > 1 && p->found->status != PD_OK)
        return PD_ENOMEM;
    if (n > p->limits->max_messages)
        return pd_api_refuse(p, M_MESSAGES, "invalid_value", "'messages' has more than %u messages",
                      p->limits->max_messages);
    struct pd_message *messages = pd_arena_alloc(&p->arena, n * sizeof *messages);
    if (messages == NULL)
        return PD_ENOMEM;
    p->request.messages = messages;
    for (size_t i = 0; i < n; i++) {
        const struct pd_api_raw_message *raw = i == 0 ? &p->first : &more[i - 1];
        messages[i] = raw->message;
        pd_status status = raw->is_read ? PD_OK : read_message(p, raw, &messages[i]);
        if (status != PD_OK)
            return status;
    }
    p->request.n_messages = (uint32_t)n;
    return PD_OK;
}

pd_status pd_api_read_messages(struct pd_api_parsed *p)
{
    p->request.n_prompts = 1;
    if (p->n_messages != 1 || !p->first.is_read || p->limits->max_messages == 0)
        return read_messages(p);
    p->request.messages = &p->first.message;
    p->request.n_messages = 1;
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
