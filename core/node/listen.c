/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners of a node and the peers it connects to. */
#include "base/status.h"
#include "base/str.h"
#include "node/node.h"

pd_status pd_node_listen_http(struct pd_node *node, const struct pd_node_listen_conf *l,
                              const struct pd_node_door *door, struct pd_err *err)
{
    struct pd_http_server *server = l->api == PD_LISTEN_OPENAI ? node->net.openai : node->net.admin;
    struct pd_addr addr;
    char text[PD_ADDR_TEXT];
    pd_status status = pd_addr_parse(node->loop, pd_str_from(l->address), &addr);
    if (status == PD_OK)
        status = pd_http_server_listen_as(server, &addr, NULL, door->tls, door->keys);
    if (status != PD_OK) {
        pd_err_set(err, status, "cannot listen on %s: %s", l->address,
                   status == PD_EBUSY ? "the address is in use" : pd_status_text(status));
        if (status == PD_EINVAL)
            pd_err_hint(err, "write HOST:PORT with a numeric host, or unix:PATH");
        return pd_node_at_place(err, &l->place, status);
    }
    pd_addr_format(node->loop, &addr, text, sizeof text);
    pd_log_notice(node->log, "listening on %s for %s%s%s", text,
                  l->api == PD_LISTEN_OPENAI ? "clients" : "operators",
                  door->tls != NULL ? " with TLS" : "", door->keys != NULL ? ", keys needed" : "");
    return PD_OK;
}

pd_status pd_node_dial(struct pd_node *node, const struct pd_node_peer_conf *p, struct pd_err *err)
{
    pd_status status = pd_peers_dial(node->peers, pd_str_from(p->address));
    if (status != PD_OK)
        pd_err_set(err, status, "cannot connect to peer %s: %s", p->address, pd_status_text(status));
    return pd_node_at_place(err, &p->place, status);
}

pd_status pd_node_listen_all_http(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->listen;
    pd_status status = PD_OK;
    for (uint64_t i = 0; i < list->count && status == PD_OK; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(list, struct pd_node_listen_conf, i);
        if (l->api != PD_LISTEN_PEER)
            status = pd_node_listen_http(node, l, &node->doors[i], err);
    }
    return status;
}

pd_status pd_node_listen_peers(struct pd_node *node, struct pd_err *err)
{
    const struct pd_node_conf *c = node->root;
    pd_status status = PD_OK;
    for (uint64_t i = 0; i < c->listen.count && status == PD_OK; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        if (l->api != PD_LISTEN_PEER)
            continue;
        status = pd_peers_listen_tls(node->peers, pd_str_from(l->address), node->doors[i].tls, NULL, err);
        if (status == PD_OK)
            pd_log_notice(node->log, "listening on %s for peers%s", l->address,
                          node->doors[i].tls != NULL ? " with TLS" : "");
        pd_node_at_place(err, &l->place, status);
    }
    for (uint64_t i = 0; i < c->peers.count && status == PD_OK; i++)
        status = pd_node_dial(node, PD_CONF_ITEM(&c->peers, struct pd_node_peer_conf, i), err);
    return status;
}
