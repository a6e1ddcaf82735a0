/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a server is what its endpoint says, by what it tells of itself. */
#include <stdio.h>
#include <string.h>

#include "router.h"

bool target_fits(struct target *t, struct pd_str info)
{
    const struct router *r = t->router;
    const struct pd_node_endpoint *e = t->endpoint;
    struct pd_adapter_expects want = { .size = sizeof want };
    bool was_unfit = t->is_unfit;
    t->is_unfit = false;
    if (e->ops->expects == NULL || e->ops->expects(e->adapter, e->roles, &want) != PD_OK)
        return true;
    for (uint32_t i = 0; i < want.n && i < PD_ADAPTER_MAX_EXPECTS; i++) {
        char member[PD_ADAPTER_MAX_MEMBER + 1], says[64], needed[64];
        const char *path = member;
        struct pd_json_value v;
        snprintf(member, sizeof member, "%.*s", PD_STR_ARG(want.items[i].member));
        snprintf(needed, sizeof needed, "%.*s", PD_STR_ARG(want.items[i].value));
        if (r->json->scan(info, NULL, &path, 1, &v, NULL) != PD_OK ||
            r->json->get_cstr(&v, says, sizeof says) != PD_OK || strcmp(says, needed) == 0)
            continue;
        t->is_unfit = true;
        if (!was_unfit)
            pd_log_warn(r->log, "endpoint \"%s\" is not used: its %s is \"%s\", and its roles need \"%s\"", e->name,
                        member, says, needed);
        return false;
    }
    return true;
}
