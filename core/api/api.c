/* SPDX-License-Identifier: Apache-2.0 */
/* The object and the table of the OpenAI-shaped API.  Nothing here knows
 * sockets or engines: bytes in, structs out, and the other way. */
#include "api/api.h"

#include "base/mem.h"

pd_status pd_api_create(struct pd_api **out)
{
    struct pd_api *api = pd_calloc(1, sizeof *api);
    if (api == NULL)
        return PD_ENOMEM;
    pd_buf_init(&api->scratch, PD_API_SCRATCH_MAX);
    pd_buf_init(&api->found, PD_API_SCRATCH_MAX);
    pd_list_init(&api->pool);
    if (pd_api_request_paths(&api->paths) != PD_OK) {
        pd_free(api);
        return PD_ENOMEM;
    }
    *out = api;
    return PD_OK;
}

void pd_api_destroy(struct pd_api *api)
{
    if (api == NULL)
        return;
    pd_api_request_pool_fini(api);
    pd_json_paths_destroy(api->paths);
    pd_buf_fini(&api->found);
    pd_buf_fini(&api->scratch);
    pd_free(api);
}

const struct pd_api_table *pd_api_functions(void)
{
    static const struct pd_api_table table = {
        .size = sizeof table,
        .version = PD_API_VERSION,
        .request_parse = pd_api_request_parse,
        .request_free = pd_api_request_free,
        .request_scope = pd_api_request_scope,
        .request_forward = pd_api_request_forward,
        .error_set = pd_api_error_set,
        .error_write = pd_api_error_write,
        .models_write = pd_api_models_write,
        .model_write = pd_api_model_write,
        .models_read = pd_api_models_read,
        .leg_encode = pd_api_leg_encode,
        .order_encode = pd_api_order_encode,
        .leg_decode = pd_api_leg_decode,
        .order_decode = pd_api_order_decode,
        .message_free = pd_api_message_free,
        .started_encode = pd_api_started_encode,
        .started_decode = pd_api_started_decode,
        .handover_encode = pd_api_handover_encode,
        .handover_decode = pd_api_handover_decode,
        .token_encode = pd_api_token_encode,
        .token_decode = pd_api_token_decode,
        .end_encode = pd_api_end_encode,
        .end_decode = pd_api_end_decode,
        .text_create = pd_api_text_create,
        .text_destroy = pd_api_text_destroy,
        .text_add = pd_api_text_add,
        .text_end = pd_api_text_end,
        .answer_create = pd_api_answer_create,
        .answer_destroy = pd_api_answer_destroy,
        .answer_token = pd_api_answer_token,
        .answer_end = pd_api_answer_end,
        .answer_done = pd_api_answer_done,
        .answer_error = pd_api_answer_error,
        .answer_body = pd_api_answer_body,
        .request_texts = pd_api_request_texts,
        .request_hint = pd_api_request_hint,
        .request_has = pd_api_request_has,
        .request_edit = pd_api_request_edit,
    };
    return &table;
}
