/* SPDX-License-Identifier: Apache-2.0 */
/* Shares out the descriptors of the process, so that clients are refused with an
 * answer before accept() fails, and links, transports, logs and operators still
 * find some.  With adapters each client may need a second one for its server. */
#include "node/node.h"

#include "base/status.h"
#include "os/fd.h"

#define OPERATORS 64u           /* connections to listeners with api "admin" */
#define RESERVE 512u            /* for operators, links, transports, probes, logs */
#define REFUSING 64u            /* connections above the limit that are told so */

static uint64_t reserve_of(uint64_t limit)
{
    return RESERVE < limit / 4 ? RESERVE : limit / 4;
}

/* Those of the process, unless the node's owner has said otherwise. */
static uint64_t limit_of(const struct pd_node *node)
{
    return node->descriptors_given != 0 ? node->descriptors_given : pd_fd_limit();
}

pd_status pd_node_room_find(struct pd_node *node, struct pd_err *err)
{
    uint64_t limit = limit_of(node), reserve = reserve_of(limit);
    int open = node->descriptors_given != 0 ? 0 : pd_fd_count();
    uint64_t used = (open > 0 ? (uint64_t)open : 32) + node->root->listen.count;

    if (limit < used + reserve + 8 || reserve < 4) {
        pd_err_set(err, PD_ELIMIT, "%llu file descriptors are too few", (unsigned long long)limit);
        pd_err_hint(err, "raise the limit: LimitNOFILE= of the service, or ulimit -n");
        return PD_ELIMIT;
    }
    node->descriptors = limit - used - reserve;
    return PD_OK;
}

void pd_node_room_share(struct pd_node *node, const struct pd_node_conf *c, struct pd_node_room *out)
{
    bool has_servers = pd_mods_unit_at(node->mods, PD_KIND_BIT(PD_KIND_ADAPTER), 0) != NULL;
    uint64_t reserve = reserve_of(limit_of(node));
    uint64_t room = node->descriptors / (has_servers ? 2 : 1);

    *out = (struct pd_node_room){
        .clients = (uint32_t)c->limits.connections,
        .operators = (uint32_t)(OPERATORS < reserve / 4 ? OPERATORS : reserve / 4),
        .refusing = (uint32_t)(REFUSING < reserve / 4 ? REFUSING : reserve / 4),
    };
    if (room < out->clients) {
        out->clients = (uint32_t)room;
        if (node->told_room != out->clients)
            pd_log_notice(node->log, "%llu file descriptors leave room for %u connections of clients",
                          (unsigned long long)limit_of(node), out->clients);
        node->told_room = out->clients;
    }
    out->servers = has_servers ? out->clients : 0;
}
