/* SPDX-License-Identifier: Apache-2.0 */
/* TLS contexts and client keys of a node, from its configuration.  Contexts go
 * last of all, when everything that uses them has ended. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "node/node.h"

#define LINK_ALPN "pdplane"
#define DATA_ALPN "pdplane-data"

static pd_status make(struct pd_node *node, const struct pd_node_tls_conf *c, bool is_server,
                      const char *what, const char *alpn, struct pd_tls **out, struct pd_err *err)
{
    struct pd_tls_conf conf = { .is_server = is_server, .what = what, .certificate = c->certificate,
                                .key = c->key, .passphrase = c->passphrase, .ca = c->ca,
                                .name = c->name, .alpn = alpn };
    return pd_node_at_place(err, &c->place, pd_tls_create(node->loop, node->log, &conf, out, err));
}

pd_status pd_node_door_build(struct pd_node *node, const struct pd_node_listen_conf *l,
                             struct pd_node_door *door, struct pd_err *err)
{
    bool is_peer = l->api == PD_LISTEN_PEER;
    pd_status st = PD_OK;
    if (l->tls != NULL && is_peer && l->tls->ca == NULL) {
        pd_err_set(err, PD_EINVAL, "a peer listener with TLS needs ca");
        pd_err_hint(err, "nodes know each other by their certificates; set tls in link for both sides");
        return pd_node_at_place(err, &l->tls->place, PD_EINVAL);
    }
    if (l->tls != NULL)
        st = make(node, l->tls, true, is_peer ? "peers" : l->api == PD_LISTEN_OPENAI ? "clients"
                                                                                     : "operators",
                  is_peer ? LINK_ALPN : NULL, &door->tls, err);
    if (st == PD_OK && l->api_keys_file != NULL && l->api != PD_LISTEN_OPENAI)
        return pd_node_at_place(err, &l->place, pd_err_set(err, PD_EINVAL,
                                                   "api_keys_file is for listeners with api \"openai\""));
    if (st == PD_OK && l->api_keys_file != NULL)
        st = pd_node_at_place(err, &l->place,
                      pd_keys_create(node->loop, node->log, l->api_keys_file, &door->keys, err));
    if (is_peer && l->tls == NULL)
        door->tls = node->link_in;
    return st;
}

void pd_node_door_free(struct pd_node *node, struct pd_node_door *door)
{
    if (door->tls != node->link_in)
        pd_tls_destroy(door->tls);
    pd_keys_destroy(door->keys);
    *door = (struct pd_node_door){ .tls = NULL };
}

pd_status pd_node_tls_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_node_conf *c = node->root;
    pd_status st = PD_OK;
    node->doors = pd_calloc((size_t)c->listen.count + 1, sizeof *node->doors);
    if (node->doors == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    if (c->link.tls != NULL) {
        st = make(node, c->link.tls, false, "links to peers", LINK_ALPN, &node->link_out, err);
        if (st == PD_OK)
            st = make(node, c->link.tls, true, "peers", LINK_ALPN, &node->link_in, err);
        if (st == PD_OK)
            st = make(node, c->link.tls, false, "data to peers", DATA_ALPN, &node->net.peer_out, err);
        if (st == PD_OK)
            st = make(node, c->link.tls, true, "data of peers", DATA_ALPN, &node->net.peer_in, err);
    }
    for (uint64_t i = 0; i < c->listen.count && st == PD_OK; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        st = pd_node_door_build(node, l, &node->doors[i], err);
    }
    return st;
}

pd_status pd_node_tls_endpoint(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                               struct pd_node_endpoint *e, struct pd_err *err)
{
    static const struct pd_node_tls_conf none = { .place = { .file = "" } };
    struct pd_node_tls_conf conf = c->tls != NULL ? *c->tls : none;
    bool is_https = pd_str_starts_with(pd_str_from(c->url), PD_STR("https://"));
    if (!is_https && c->tls != NULL)
        return pd_node_at_place(err, &conf.place, pd_err_set(err, PD_EINVAL, "tls is given but url is not https://"));
    if (!is_https)
        return PD_OK;
    if (conf.name == NULL)
        conf.name = e->host;
    if (c->tls == NULL)
        conf.place = c->place;
    return make(node, &conf, false, c->name, NULL, &e->tls, err);
}

void pd_node_tls_free(struct pd_node *node)
{
    for (uint64_t i = 0; node->doors != NULL && i < node->root->listen.count; i++)
        pd_node_door_free(node, &node->doors[i]);
    pd_free(node->doors);
    pd_tls_destroy(node->link_in);
    pd_tls_destroy(node->link_out);
    pd_tls_destroy(node->net.peer_in);
    pd_tls_destroy(node->net.peer_out);
    node->doors = NULL;
    node->link_in = node->link_out = NULL;
    node->net.peer_in = node->net.peer_out = NULL;
}
