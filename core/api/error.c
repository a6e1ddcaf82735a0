/* SPDX-License-Identifier: Apache-2.0 */
/* Error objects and model lists.  All four keys of an error are always there
 * and code is a string or null, as OpenAI's specification wants it. */
#include "api/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

void pd_api_error_set(struct pd_api_error *error, uint32_t http, const char *type, const char *code,
                      const char *message_fmt, ...)
{
    va_list ap;
    memset(error, 0, sizeof *error);
    error->size = sizeof *error;
    error->http = http;
    error->type = type;
    error->code = code;
    va_start(ap, message_fmt);
    vsnprintf(error->message, sizeof error->message, message_fmt, ap);
    va_end(ap);
}

void pd_api_error_put(struct pd_buf *b, const struct pd_api_error *error)
{
    pd_buf_append_cstr(b, "{\"message\":");
    pd_json_put_cstr(b, error->message);
    pd_buf_append_cstr(b, ",\"type\":");
    pd_json_put_cstr(b, error->type);
    pd_buf_append_cstr(b, ",\"param\":");
    if (error->param[0] != '\0')
        pd_json_put_cstr(b, error->param);
    else
        pd_buf_append_cstr(b, "null");
    pd_buf_append_cstr(b, ",\"code\":");
    if (error->code != NULL)
        pd_json_put_cstr(b, error->code);
    else
        pd_buf_append_cstr(b, "null");
    pd_buf_append_char(b, '}');
}

pd_status pd_api_error_write(struct pd_api *api, const struct pd_api_error *error,
                             struct pd_str *out)
{
    struct pd_buf *b = &api->scratch;
    pd_buf_clear(b);
    pd_buf_append_cstr(b, "{\"error\":");
    pd_api_error_put(b, error);
    pd_buf_append_char(b, '}');
    *out = pd_buf_str(b);
    return b->status;
}

static void model_put(struct pd_buf *b, const struct pd_api_model *model)
{
    pd_buf_append_cstr(b, "{\"id\":");
    pd_json_put_str(b, model->id);
    pd_buf_append_cstr(b, ",\"object\":\"model\",\"created\":");
    pd_json_put_u64(b, model->created);
    pd_buf_append_cstr(b, ",\"owned_by\":\"pdplane\"");
    if (model->context_tokens != 0) {
        pd_buf_append_cstr(b, ",\"max_model_len\":");
        pd_json_put_u64(b, model->context_tokens);
    }
    pd_buf_append_char(b, '}');
}

pd_status pd_api_models_write(struct pd_api *api, const struct pd_api_model *models, uint32_t n,
                              struct pd_str *out)
{
    struct pd_buf *b = &api->scratch;
    pd_buf_clear(b);
    pd_buf_append_cstr(b, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            pd_buf_append_char(b, ',');
        model_put(b, &models[i]);
    }
    pd_buf_append_cstr(b, "]}");
    *out = pd_buf_str(b);
    return b->status;
}

pd_status pd_api_model_write(struct pd_api *api, const struct pd_api_model *model,
                             struct pd_str *out)
{
    struct pd_buf *b = &api->scratch;
    pd_buf_clear(b);
    model_put(b, model);
    *out = pd_buf_str(b);
    return b->status;
}

pd_status pd_api_models_read(struct pd_api *api, struct pd_str body, struct pd_str *ids,
                             uint32_t cap, uint32_t *n)
{
    static const char *const paths[] = { "data" };
    struct pd_json_value data, item, id;
    struct pd_json_iter it;
    size_t at[64];
    uint32_t count = 0;
    pd_buf_clear(&api->scratch);
    if (pd_json_scan(body, NULL, paths, 1, &data, NULL) != PD_OK || data.type != PD_JSON_ARRAY)
        return PD_EPROTO;
    pd_json_iter_init(&it, &data);
    while (count < cap && count + 1 < sizeof at / sizeof at[0] &&
           pd_json_iter_next(&it, NULL, &item)) {
        at[count] = api->scratch.n;
        if (pd_json_find(&item, "id", &id) != PD_OK || pd_json_get_buf(&id, &api->scratch) != PD_OK)
            return PD_EPROTO;
        count++;
    }
    at[count] = api->scratch.n;
    /* Empty ids take no memory. */
    const char *base = api->scratch.p != NULL ? api->scratch.p : "";
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (struct pd_str){ base + at[i], at[i + 1] - at[i] };
    *n = count;
    return PD_OK;
}
