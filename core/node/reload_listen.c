/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners of another configuration: those that are new are opened beside what runs. */
#include "node/reload_int.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

/* Its files are read in any case, so that one that is broken is told; what is
 * equal stays, and takes changed files at its next use. */
static pd_status door_make(struct pd_node_next *n, uint64_t i, struct pd_err *err)
{
    struct pd_node *node = n->node;
    const struct pd_node_listen_conf *l = PD_CONF_ITEM(&n->root->listen, struct pd_node_listen_conf, i);
    uint64_t at = pd_node_listen_find(node, &node->root->listen, l->address);
    struct pd_node_door *door = &n->doors[i];
    pd_status status = pd_node_door_build(node, l, door, err);
    if (status != PD_OK || at == node->root->listen.count)
        return status;
    const struct pd_node_listen_conf *was =
        PD_CONF_ITEM(&node->root->listen, struct pd_node_listen_conf, at);
    struct pd_node_door *old = &node->doors[at];
    if (l->api == PD_LISTEN_PEER || (door->tls != NULL && pd_node_tls_equal(was->tls, l->tls))) {
        if (door->tls != node->link_in)
            pd_tls_destroy(door->tls);
        door->tls = old->tls;
        pd_tls_look(door->tls);
    }
    if (door->keys != NULL && old->keys != NULL && strcmp(was->api_keys_file, l->api_keys_file) == 0) {
        pd_keys_destroy(door->keys);
        door->keys = old->keys;
        pd_keys_look(door->keys);
    }
    return PD_OK;
}

static struct pd_http_server *server_of(const struct pd_node *node, uint32_t api)
{
    return api == PD_LISTEN_OPENAI ? node->net.openai : node->net.admin;
}

static pd_status listener_make(struct pd_node_next *n, uint64_t i, struct pd_err *err)
{
    struct pd_node *node = n->node;
    const struct pd_node_listen_conf *l = PD_CONF_ITEM(&n->root->listen, struct pd_node_listen_conf, i);
    struct pd_http_server *server;
    struct pd_addr addr;
    pd_status status = door_make(n, i, err);
    if (status != PD_OK || l->api == PD_LISTEN_PEER ||
        (status = pd_node_server(node, n->root, l->api, &server, err)) != PD_OK)
        return status;
    if (pd_node_listen_find(node, &node->root->listen, l->address) < node->root->listen.count) {
        status = pd_addr_parse(node->loop, pd_str_from(l->address), &addr);
        if (status == PD_OK)
            status = pd_http_server_reserve(server, &addr);
        return status == PD_OK ? PD_OK : pd_err_set(err, status, "listener %s: %s", l->address,
                                                    pd_status_text(status));
    }
    status = pd_node_listen_http(node, l, &n->doors[i], err);
    n->is_opened[i] = status == PD_OK;
    return status;
}

pd_status pd_node_next_make_listeners(struct pd_node_next *n, struct pd_err *err)
{
    pd_status status = PD_OK;
    n->doors = pd_calloc((size_t)n->root->listen.count + 1, sizeof *n->doors);
    n->is_opened = pd_calloc((size_t)n->root->listen.count + 1, sizeof *n->is_opened);
    if (n->doors == NULL || n->is_opened == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < n->root->listen.count && status == PD_OK; i++)
        status = listener_make(n, i, err);
    return status;
}

static void listener_close(struct pd_node *node, const struct pd_node_listen_conf *l)
{
    struct pd_addr addr;
    if (pd_addr_parse(node->loop, pd_str_from(l->address), &addr) == PD_OK)
        pd_http_server_unlisten(server_of(node, l->api), &addr);
}

/* Frees what of `doors` is not in `kept`. */
static void doors_free(struct pd_node *node, struct pd_node_door *doors, uint64_t n_doors,
                       const struct pd_node_door *kept, uint64_t n_kept)
{
    for (uint64_t i = 0; doors != NULL && i < n_doors; i++) {
        for (uint64_t k = 0; k < n_kept; k++) {
            if (doors[i].tls == kept[k].tls)
                doors[i].tls = NULL;
            if (doors[i].keys == kept[k].keys)
                doors[i].keys = NULL;
        }
        pd_node_door_free(node, &doors[i]);
    }
    pd_free(doors);
}

void pd_node_next_commit_listeners(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    const struct pd_conf_list *old = &node->root->listen, *new = &n->root->listen;
    struct pd_addr addr;
    for (uint64_t i = 0; i < old->count; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(old, struct pd_node_listen_conf, i);
        uint64_t at = pd_node_listen_find(node, new, l->address);
        if (l->api == PD_LISTEN_PEER)
            continue;
        if (at == new->count) {
            listener_close(node, l);
            pd_log_notice(node->log, "not listening on %s any more", l->address);
        } else if (pd_addr_parse(node->loop, pd_str_from(l->address), &addr) == PD_OK) {
            pd_http_server_relisten(server_of(node, l->api), &addr, n->doors[at].tls, n->doors[at].keys);
        }
    }
    doors_free(node, node->doors, old->count, n->doors, new->count);
    node->doors = n->doors;
    n->doors = NULL;
}

void pd_node_next_back_listeners(struct pd_node_next *n)
{
    struct pd_node *node = n->node;
    for (uint64_t i = 0; n->is_opened != NULL && i < n->root->listen.count; i++) {
        if (n->is_opened[i])
            listener_close(node, PD_CONF_ITEM(&n->root->listen, struct pd_node_listen_conf, i));
    }
    doors_free(node, n->doors, n->root->listen.count, node->doors, node->root->listen.count);
}
