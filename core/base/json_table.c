/* SPDX-License-Identifier: Apache-2.0 */
/* The table of <pdplane/json.h>. */
#include "base/json.h"

const struct pd_json_api *pd_json_functions(void)
{
    static const struct pd_json_api table = {
        .size = sizeof table,
        .version = PD_JSON_VERSION,
        .scan = pd_json_scan,
        .iter_init = pd_json_iter_init,
        .iter_next = pd_json_iter_next,
        .find = pd_json_find,
        .count = pd_json_count,
        .get_bool = pd_json_get_bool,
        .get_u64 = pd_json_get_u64,
        .get_i64 = pd_json_get_i64,
        .get_double = pd_json_get_double,
        .get_cstr = pd_json_get_cstr,
        .is_str = pd_json_is_str,
    };
    return &table;
}
