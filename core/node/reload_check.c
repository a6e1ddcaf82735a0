/* SPDX-License-Identifier: Apache-2.0 */
/* What of a configuration a running node cannot take: said before anything is made. */
#include "node/reload_int.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

pd_status pd_node_next_fixed(const struct pd_node_next *n, const struct pd_conf_place *place, const char *what,
                       struct pd_err *err)
{
    struct pd_conf_place whole = { pd_conf_file(n->conf), 0, 0 };
    pd_err_set(err, PD_EINVAL, "%s cannot change while the node runs", what);
    pd_err_hint(err, "\"pdplane -s upgrade\" starts a new worker with it, without a refused connection");
    return pd_node_at_place(err, place->line != 0 ? place : &whole, PD_EINVAL);
}

static pd_status sections_check(const struct pd_node_next *n, struct pd_err *err)
{
    static const char *const sections[] = { "node", "transport", "codec", "control" };
    const struct pd_node_conf *a = n->node->root, *b = n->root;
    char what[80];
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        struct pd_conf_place place = { NULL, 0, 0 };
        if (pd_node_section_equal(sections[i], a, b))
            continue;
        pd_node_section_place(sections[i], n->conf, &place);
        snprintf(what, sizeof what, "\"%s\"", sections[i]);
        return pd_node_next_fixed(n, &place, what, err);
    }
    if (!pd_node_link_equal(&a->link, &b->link)) {
        struct pd_conf_place place = { NULL, 0, 0 };
        pd_node_section_place("link", n->conf, &place);
        return pd_node_next_fixed(n, &place, "secret and tls of \"link\"", err);
    }
    if (a->scheduler.endpoints != b->scheduler.endpoints ||
        memcmp(&a->scheduler.prefix, &b->scheduler.prefix, sizeof a->scheduler.prefix) != 0)
        return pd_node_next_fixed(n, &b->scheduler.place, "the size of the scheduler's tables (endpoints, prefix)", err);
    return PD_OK;
}

/* Limits of what stays; those of clients are in build.c. */
static pd_status limits_check(const struct pd_node_next *n, struct pd_err *err)
{
    struct pd_peers_times times = pd_node_link_times(&n->root->link);
    struct pd_conf_place place = { NULL, 0, 0 };
    pd_status status = pd_peers_times_check(&times, err);
    pd_node_section_place("link", n->conf, &place);
    return pd_node_at_place(err, &place, status);
}

static bool addresses_equal(const struct pd_node *node, const char *a, const char *b)
{
    struct pd_addr x, y;
    if (strcmp(a, b) == 0)
        return true;
    return pd_addr_parse(node->loop, pd_str_from(a), &x) == PD_OK &&
           pd_addr_parse(node->loop, pd_str_from(b), &y) == PD_OK && pd_addr_equal(&x, &y);
}

uint64_t pd_node_listen_find(const struct pd_node *node, const struct pd_conf_list *list, const char *address)
{
    uint64_t i = 0;
    while (i < list->count &&
           !addresses_equal(node, PD_CONF_ITEM(list, struct pd_node_listen_conf, i)->address, address))
        i++;
    return i;
}

static uint64_t peer_listeners(const struct pd_conf_list *list)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < list->count; i++)
        n += PD_CONF_ITEM(list, struct pd_node_listen_conf, i)->api == PD_LISTEN_PEER;
    return n;
}

static pd_status listeners_check(const struct pd_node_next *n, struct pd_err *err)
{
    const struct pd_conf_list *old = &n->node->root->listen, *new = &n->root->listen;
    struct pd_conf_place nowhere = { NULL, 0, 0 };
    for (uint64_t i = 0; i < new->count; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(new, struct pd_node_listen_conf, i);
        uint64_t at = pd_node_listen_find(n->node, old, l->address);
        const struct pd_node_listen_conf *was =
            at < old->count ? PD_CONF_ITEM(old, struct pd_node_listen_conf, at) : NULL;
        if (was != NULL && was->api != l->api)
            return pd_node_next_fixed(n, &l->place, "what a listener is for", err);
        if (l->api == PD_LISTEN_PEER &&
            (was == NULL || !pd_conf_equal(pd_node_listen_rows(), was, l)))
            return pd_node_next_fixed(n, &l->place, "a listener for peers", err);
    }
    return peer_listeners(old) == peer_listeners(new) ? PD_OK
                                                      : pd_node_next_fixed(n, &nowhere, "a listener for peers", err);
}

/* What roles would say when they start; those that go on are not asked again. */
static pd_status roles_check(const struct pd_node_next *n, struct pd_err *err)
{
    const struct pd_node_conf *c = n->root;
    uint32_t roles = pd_node_roles_of(c), served = 0;
    struct pd_conf_place whole = { pd_conf_file(n->conf), 0, 0 };
    bool has_clients = false;
    for (uint64_t i = 0; i < c->engines.count; i++)
        served |= (uint32_t)PD_CONF_ITEM(&c->engines, struct pd_node_engine_conf, i)->roles;
    for (uint64_t i = 0; i < c->listen.count; i++)
        has_clients |= PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i)->api == PD_LISTEN_OPENAI;
    if (c->roles.count == 0) {
        pd_err_set(err, PD_EINVAL, "the node has no role");
        pd_err_hint(err, "load one or more role modules, such as \"router\", \"prefill\" or \"decode\"");
    } else if ((roles & PD_ROLE_ROUTER) != 0 && !has_clients) {
        pd_err_set(err, PD_EINVAL, "the router role has no listener for clients");
        pd_err_hint(err, "add a listener with api = \"openai\"");
    } else if ((roles & (PD_ROLE_DECODE | PD_ROLE_PREFILL) & ~served) != 0) {
        bool is_decode = (roles & PD_ROLE_DECODE & ~served) != 0;
        pd_err_set(err, PD_EINVAL, "the %s role has no engine", is_decode ? "decode" : "prefill");
        pd_err_hint(err, "add \"%s\" to the roles of an engine", is_decode ? "decode" : "prefill");
    } else {
        return PD_OK;
    }
    return pd_node_at_place(err, &whole, PD_EINVAL);
}

pd_status pd_node_next_check(const struct pd_node_next *n, struct pd_err *err)
{
    pd_status status = sections_check(n, err);
    if (status == PD_OK)
        status = limits_check(n, err);
    if (status == PD_OK)
        status = listeners_check(n, err);
    return status == PD_OK ? roles_check(n, err) : status;
}
