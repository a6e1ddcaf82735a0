/* SPDX-License-Identifier: Apache-2.0 */
/* The check of a whole configuration.  Where building does the work, it is
 * built and thrown away again, so that check and start cannot differ. */
#include "node/check.h"

#include <stddef.h>
#include <string.h>

#include <pdplane/role.h>

#include "base/mem.h"
#include "base/str.h"
#include "node/node.h"

static const struct pd_role_ops *role_ops(const struct pd_conf_unit *u)
{
    const struct pd_mod_unit *unit = u->unit;
    return (const struct pd_role_ops *)(const void *)unit->ops;
}

/* ---- roles and engines ------------------------------------------------------------- */

static uint32_t roles_of(const struct pd_node_conf *c)
{
    uint32_t roles = 0;
    for (uint64_t i = 0; i < c->roles.count; i++)
        roles |= role_ops(PD_CONF_ITEM(&c->roles, struct pd_conf_unit, i))->role;
    return roles;
}

static bool has_engine(const struct pd_node_conf *c, uint32_t role)
{
    for (uint64_t i = 0; i < c->engines.count; i++)
        if ((PD_CONF_ITEM(&c->engines, struct pd_node_engine_conf, i)->roles & role) != 0)
            return true;
    return false;
}

static void check_roles(struct pd_conf *conf, const struct pd_node_conf *c,
                        struct pd_conf_report *report)
{
    static const struct {
        uint32_t role;
        const char *name;
    } computing[] = { { PD_ROLE_PREFILL, "prefill" }, { PD_ROLE_DECODE, "decode" } };
    struct pd_conf_place at = pd_conf_where(conf, &c->load);
    uint32_t roles = roles_of(c);

    if (c->roles.count == 0)
        pd_conf_error(report, at.file, at.line,
                      "the node has no role\nload one or more role modules, such as \"router\", "
                      "\"prefill\" or \"decode\"");
    for (size_t i = 0; i < sizeof computing / sizeof computing[0]; i++)
        if ((roles & computing[i].role) != 0 && !has_engine(c, computing[i].role))
            pd_conf_error(report, at.file, at.line,
                          "the node has the role %s and no engine for it\nadd an engine, with \"%s\" "
                          "among its roles", computing[i].name, computing[i].name);
}

/* ---- addresses --------------------------------------------------------------------- */

static void check_listen(const struct pd_node_conf *c, struct pd_loop *loop,
                         struct pd_conf_report *report)
{
    bool is_router = (roles_of(c) & PD_ROLE_ROUTER) != 0;
    for (uint64_t i = 0; i < c->listen.count; i++) {
        const struct pd_node_listen_conf *l =
            PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        struct pd_addr addr;
        if (pd_addr_parse(loop, pd_str_from(l->address), &addr) != PD_OK)
            pd_conf_error(report, l->place.file, l->place.line,
                          "\"%s\" is no address to listen on\nwrite HOST:PORT with a numeric host, "
                          "or unix:PATH", l->address);
        if (l->api == PD_LISTEN_OPENAI && !is_router && c->roles.count > 0)
            pd_conf_warn(report, l->place.file, l->place.line,
                         "nobody answers clients on %s: the node has no router", l->address);
    }
    for (uint64_t i = 0; i < c->peers.count; i++) {
        const struct pd_node_peer_conf *p = PD_CONF_ITEM(&c->peers, struct pd_node_peer_conf, i);
        if (!pd_peers_can_dial(loop, pd_str_from(p->address)))
            pd_conf_error(report, p->place.file, p->place.line,
                          "\"%s\" is no address of a peer\nwrite HOST:PORT or unix:PATH", p->address);
    }
}

static void check_link(struct pd_conf *conf, const struct pd_node_conf *c, struct pd_conf_report *report)
{
    struct pd_peers_times times = pd_node_link_times(&c->link);
    struct pd_conf_place at = { NULL, 0, 0 };
    struct pd_err err = { 0 };
    if (pd_peers_times_check(&times, &err) == PD_OK)
        return;
    pd_node_section_place("link", conf, &at);
    pd_conf_report_add(report, &err, at.file, at.line);
}

/* ---- what units say of where they stand ------------------------------------------------ */

struct site {
    struct pd_unit_site pub;
    const struct pd_mods *mods;
};

static bool site_has_unit(const struct pd_unit_site *pub, uint32_t kind, const char *name)
{
    const struct pd_mods *mods = ((const struct site *)(const void *)pub)->mods;
    const struct pd_mod_unit *u = pd_mods_unit(mods, kind, name);
    return u != NULL && pd_mods_is_wanted(mods, u);
}

static pd_status ask(const struct pd_conf_unit *u, const struct site *site, struct pd_err *err)
{
    const struct pd_unit *unit = ((const struct pd_mod_unit *)u->unit)->unit;
    bool has = unit->size >= offsetof(struct pd_unit, check_site) + sizeof unit->check_site;
    return has && unit->check_site != NULL ? unit->check_site(u->conf, &site->pub, err) : PD_OK;
}

/* One that this machine does not let work is no mistake while another one is there. */
static void check_transports(const struct pd_node_conf *c, const struct site *site,
                             struct pd_conf_report *report)
{
    uint64_t n_ok = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = 0; i < c->transports.count; i++) {
            const struct pd_conf_unit *u = PD_CONF_ITEM(&c->transports, struct pd_conf_unit, i);
            struct pd_err err = { 0 };
            pd_status status = ask(u, site, &err);
            if (pass == 0)
                n_ok += status == PD_OK;
            else if (status == PD_EDECLINED && n_ok > 0)
                pd_conf_warn(report, u->place.file, u->place.line,
                             "transport \"%s\" cannot be used: %s\n%s", u->name, err.text, err.hint);
            else if (status != PD_OK)
                pd_conf_report_add(report, &err, u->place.file, u->place.line);
        }
    }
}

static void check_units(const struct pd_node *node, struct pd_conf_report *report)
{
    const struct pd_node_conf *c = node->root;
    /* Each item of a list has a unit, at some place. */
    const struct {
        const struct pd_conf_list *list;
        size_t at;
    } lists[] = {
        { &c->roles, 0 }, { &c->exporters, 0 }, { &c->codecs, 0 },
        { &c->engines, offsetof(struct pd_node_engine_conf, unit) },
        { &c->endpoints, offsetof(struct pd_node_endpoint_conf, unit) },
        { &c->discovery, offsetof(struct pd_node_discovery_conf, unit) },
    };
    const struct site site = {
        .pub = { .size = sizeof site.pub, .flags = c->link.tls != NULL ? PD_SITE_LINK_TLS : 0,
                 .has_unit = site_has_unit },
        .mods = node->mods,
    };
    check_transports(c, &site, report);
    for (size_t k = 0; k < sizeof lists / sizeof lists[0]; k++) {
        for (uint64_t i = 0; i < lists[k].list->count; i++) {
            const char *item = PD_CONF_ITEM(lists[k].list, char, i);
            const struct pd_conf_unit *u = (const struct pd_conf_unit *)(const void *)(item + lists[k].at);
            struct pd_err err = { 0 };
            if (ask(u, &site, &err) != PD_OK)
                pd_conf_report_add(report, &err, u->place.file, u->place.line);
        }
    }
}

/* ---- what is built for a moment ------------------------------------------------------ */

static void add(struct pd_conf_report *report, const struct pd_err *err)
{
    pd_conf_report_add(report, err, NULL, 0);
}

static void check_tls(struct pd_node *node, struct pd_conf_report *report)
{
    struct pd_err err = { 0 };
    if (pd_node_tls_build(node, &err) != PD_OK)
        add(report, &err);
    pd_node_tls_free(node);
}

static void check_endpoints(struct pd_node *node, struct pd_conf_report *report)
{
    const struct pd_conf_list *list = &node->root->endpoints;
    for (uint64_t i = 0; i < list->count; i++) {
        struct pd_err err = { 0 };
        if (pd_node_endpoint_check(node, PD_CONF_ITEM(list, struct pd_node_endpoint_conf, i),
                                   &err) != PD_OK)
            add(report, &err);
    }
}

/* How servers are verified, whichever they will be. */
static void check_template(struct pd_node *node, const struct pd_node_endpoint_conf *template_conf,
                           struct pd_conf_report *report)
{
    struct pd_node_endpoint_conf c = *template_conf;
    struct pd_err err = { 0 };
    c.name = "any";
    c.url = "https://any.invalid";
    if (c.tls != NULL && pd_node_endpoint_check(node, &c, &err) != PD_OK)
        add(report, &err);
}

static void check_discovery(struct pd_node *node, struct pd_conf_report *report)
{
    const struct pd_conf_list *list = &node->root->discovery;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_node_discovery_conf *c = PD_CONF_ITEM(list, struct pd_node_discovery_conf, i);
        for (uint64_t k = 0; k < c->networks.count; k++) {
            struct pd_network network;
            if (pd_network_parse(pd_str_from(c->networks.items[k]), &network) != PD_OK)
                pd_conf_error(report, c->place.file, c->place.line,
                              "\"%s\" is no network\nwrite 10.0.0.0/8 or fd00::/8", c->networks.items[k]);
        }
        for (uint64_t k = 0; k < c->endpoint.count; k++)
            check_template(node, PD_CONF_ITEM(&c->endpoint, struct pd_node_endpoint_conf, k), report);
    }
}

static void check_scheduler(struct pd_node *node, struct pd_conf_report *report)
{
    struct pd_sched_plugins *plugins = NULL;
    struct pd_err err = { 0 };
    if ((roles_of(node->root) & PD_ROLE_ROUTER) == 0)
        return;
    struct pd_sched_plugins_params params = {
        .conf = &node->root->scheduler, .mods = node->mods, .loop = node->loop,
        .metrics = node->metrics, .host = &node->host,
    };
    if (pd_sched_plugins_create(&params, &err, &plugins) != PD_OK)
        add(report, &err);
    pd_sched_plugins_destroy(plugins);
}

pd_status pd_node_conf_check(struct pd_conf *conf, struct pd_mods *mods, struct pd_loop *loop,
                             struct pd_conf_report *report)
{
    uint64_t before = report->total_errors;
    struct pd_node *node = pd_calloc(1, sizeof *node);
    if (node == NULL || pd_metrics_create(0, &node->metrics) != PD_OK) {
        pd_free(node);
        return pd_conf_error(report, NULL, 0, "out of memory");
    }
    node->loop = loop;
    node->mods = mods;
    node->root = pd_conf_root(conf);
    pd_host_init(&node->host);
    check_roles(conf, node->root, report);
    check_listen(node->root, loop, report);
    check_link(conf, node->root, report);
    check_units(node, report);
    check_tls(node, report);
    check_endpoints(node, report);
    check_discovery(node, report);
    check_scheduler(node, report);
    pd_metrics_destroy(node->metrics);
    pd_free(node);
    return report->total_errors == before ? PD_OK : PD_EINVAL;
}
