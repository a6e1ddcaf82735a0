/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/setup.h"

#include <stdio.h>
#include <string.h>

#include <pdplane/role.h>

#include "base/status.h"
#include "base/str.h"
#include "base/url.h"
#include "conf/edit.h"
#include "loop/sim.h"
#include "mod/host.h"
#include "node/check.h"

/* About the machine and the process, or the way to servers; nothing of it changes
 * what a router decides. */
static const char *const left_out[] = { "control", "pid_file", "user", "group", "log", "node.state", "link" };
static const char *const endpoint_left_out[] = { "tls", "api_key", "api_key_file", "path", "probe", "info" };

void pd_whatif_setup_server(uint32_t i, char *ip, size_t size, uint16_t *port)
{
    snprintf(ip, size, "10.1.0.%u", i % PD_WHATIF_SERVER_HOSTS + 1);
    *port = (uint16_t)(PD_WHATIF_SERVER_PORT + i / PD_WHATIF_SERVER_HOSTS);
}

/* What the simulator does not have: nodes that compute. */
static pd_status refuse_nodes(const struct pd_conf *conf, struct pd_conf_report *report)
{
    static const struct {
        const char *key, *what;
    } keys[] = { { "peers", "other nodes" }, { "engine", "engines in the process" } };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (pd_conf_count_at(conf, keys[i].key) == 0)
            continue;
        struct pd_conf_place at = pd_conf_place_at(conf, keys[i].key);
        return pd_conf_error(report, at.file, at.line, "\"%s\": %s are not simulated, only servers that endpoints "
                             "name\ndescribe each as an endpoint, for example with --set 'endpoints = ( { name = "
                             "\"d0\"; type = \"vllm\"; url = \"http://d0:8000\"; } )'", keys[i].key, keys[i].what);
    }
    return PD_OK;
}

static pd_status endpoint_prepare(struct pd_conf *conf, uint32_t i, struct pd_conf_report *report)
{
    char path[64], url[64], ip[32];
    struct pd_url parsed;
    uint16_t port;
    snprintf(path, sizeof path, "endpoints.%u.url", i);
    const char *was = pd_conf_string_at(conf, path);
    if (was == NULL)
        return PD_OK;           /* the rows say what is missing */
    if (pd_url_parse(pd_str_from(was), &parsed) != PD_OK) {
        struct pd_conf_place at = pd_conf_place_at(conf, path);
        return pd_conf_error(report, at.file, at.line, "\"%s\" is no URL of a server\nwrite http://HOST:PORT", was);
    }
    pd_whatif_setup_server(i, ip, sizeof ip, &port);
    snprintf(url, sizeof url, "http://%s:%u", ip, port);
    pd_status status = pd_conf_change_string(conf, path, url, report);
    for (size_t k = 0; k < sizeof endpoint_left_out / sizeof endpoint_left_out[0]; k++) {
        snprintf(path, sizeof path, "endpoints.%u.%s", i, endpoint_left_out[k]);
        (void)pd_conf_drop(conf, path);
    }
    return status;
}

static pd_status prepare(struct pd_conf *conf, struct pd_conf_report *report)
{
    char listen[96];
    pd_status status = refuse_nodes(conf, report);
    struct pd_conf_place at = pd_conf_place_at(conf, "discovery");
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++)
        (void)pd_conf_drop(conf, left_out[i]);
    bool had_sources = pd_conf_count_at(conf, "discovery") > 0;
    (void)pd_conf_drop(conf, "discovery");
    uint32_t n = pd_conf_count_at(conf, "endpoints");
    if (status == PD_OK && n == 0)
        status = pd_conf_error(report, at.file, at.line, "there is no endpoint to simulate%s\nname servers in "
                               "endpoints, or with --set 'endpoints = ( ... )'",
                               had_sources ? ": sources of discovery are not asked" : "");
    else if (status == PD_OK && had_sources)
        pd_conf_warn(report, at.file, at.line, "discovery is left out: the %u endpoints of the file are all there "
                     "are", n);
    if (status == PD_OK && n > PD_WHATIF_ENDPOINTS_MAX)
        status = pd_conf_error(report, at.file, 0, "%u endpoints are more than %u", n, PD_WHATIF_ENDPOINTS_MAX);
    for (uint32_t i = 0; i < n && status == PD_OK; i++)
        status = endpoint_prepare(conf, i, report);
    snprintf(listen, sizeof listen, "listen = ( { address = \"0.0.0.0:%u\"; api = \"openai\"; } )",
             PD_WHATIF_ROUTER_PORT);
    return status == PD_OK ? pd_conf_change(conf, "pdsim", pd_str_from(listen), report) : status;
}

static pd_status check(struct pd_whatif_setup *s, struct pd_conf_report *report)
{
    struct pd_sim *sim = NULL;
    struct pd_loop *loop = NULL;
    bool is_router = false;
    for (uint64_t i = 0; i < s->root->roles.count; i++) {
        const struct pd_mod_unit *u = PD_CONF_ITEM(&s->root->roles, struct pd_conf_unit, i)->unit;
        is_router |= ((const struct pd_role_ops *)(const void *)u->ops)->role == PD_ROLE_ROUTER;
    }
    if (!is_router) {
        struct pd_conf_place at = pd_conf_where(s->conf, &s->root->load);
        return pd_conf_error(report, at.file, at.line, "the node is no router\nload \"router\"; prefill and decode "
                             "nodes are simulated as servers that a router's endpoints name");
    }
    pd_status status = pd_sim_create(1, NULL, &sim);
    if (status == PD_OK)
        status = pd_sim_loop_create(sim, "check", NULL, &loop);
    if (status == PD_OK)
        status = pd_node_conf_check(s->conf, s->mods, loop, report);
    if (loop != NULL)
        (void)pd_loop_destroy(loop, NULL, 0);
    if (sim != NULL)
        (void)pd_sim_destroy(sim);
    return status;
}

pd_status pd_whatif_setup_open(const char *file, const struct pd_conf_source *src, const char *const *changes,
                               size_t n_changes, struct pd_conf_report *report, struct pd_whatif_setup *out)
{
    struct pd_mods_params params = { .host = pd_host_api_table() };
    memset(out, 0, sizeof *out);
    pd_status status = pd_mods_create(&params, &out->mods);
    if (status == PD_OK)
        status = pd_conf_open(file, src, report, &out->conf);
    for (size_t i = 0; i < n_changes && status == PD_OK; i++)
        status = pd_conf_change(out->conf, "--set", pd_str_from(changes[i]), report);
    if (status == PD_OK)
        status = prepare(out->conf, report);
    if (status != PD_OK)
        return status;
    struct pd_conf *conf = out->conf;
    out->conf = NULL;
    status = pd_node_conf_complete(conf, out->mods, report, &out->conf);
    if (status != PD_OK) {
        out->conf = NULL;
        return status;
    }
    out->root = pd_conf_root(out->conf);
    return check(out, report);
}

void pd_whatif_setup_close(struct pd_whatif_setup *s)
{
    pd_conf_put(s->conf);
    if (s->mods != NULL)
        pd_mods_destroy(s->mods);
    memset(s, 0, sizeof *s);
}
