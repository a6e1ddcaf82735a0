/* SPDX-License-Identifier: Apache-2.0 */
/* Members of a request with which servers tell each other where KV is: only we
 * may set them.  They are looked for at the top and inside of "extra_body" and
 * "sampling_params", whatever escapes their keys are written with. */
#include "api/api.h"

#include "base/str.h"

bool pd_api_is_hint(struct pd_str key)
{
    static const char *const names[] = {
        "kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room",
        "do_remote_prefill", "do_remote_decode", "ec_transfer_params", "disaggregated_params",
        "tp_size", "dp_rank", "routed_dp_rank", "data_parallel_rank", "nvext",
    };
    if (pd_str_starts_with(key, PD_STR("remote_")) || pd_str_starts_with(key, PD_STR("disagg_")))
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (pd_str_is(key, names[i]))
            return true;
    return false;
}

pd_status pd_api_hints_in(const struct pd_json_value *object, struct pd_arena *arena,
                          struct pd_json_value *out, size_t cap, size_t *n)
{
    struct pd_json_iter it;
    struct pd_json_value key, value;
    if (object->type != PD_JSON_OBJECT || pd_json_iter_init(&it, object) != PD_OK)
        return PD_OK;
    while (pd_json_iter_next(&it, &key, &value)) {
        struct pd_str text;
        if (pd_json_get_str(&key, arena, &text) != PD_OK)
            return PD_ENOMEM;
        if (!pd_api_is_hint(text))
            continue;
        if (*n == cap)
            return PD_ELIMIT;
        out[(*n)++] = value;
    }
    return PD_OK;
}
