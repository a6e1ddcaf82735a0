/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/host.h"

#include <string.h>

#include "base/status.h"

pd_status pd_whatif_host_open(struct pd_sim *sim, const struct pd_whatif_host_opts *opts,
                              struct pd_whatif_host *h, struct pd_err *err)
{
    memset(h, 0, sizeof *h);
    h->name = opts->name;
    h->mods = opts->mods;
    h->owns_mods = opts->mods == NULL;
    h->is_closed = true;
    pd_status status = pd_sim_loop_create(sim, opts->name, opts->ip, &h->loop);
    if (status != PD_OK)
        return pd_err_set(err, status, "the simulated host %s cannot be made: %s", opts->name,
                          pd_status_text(status));
    struct pd_log_config log = { .sink = PD_LOG_CALLBACK, .on_line = opts->on_line, .on_line_arg = opts->arg,
                                 .level = opts->level, .hide_time = true };
    status = pd_log_create(&log, err, &h->log);
    if (status == PD_OK && h->owns_mods) {
        struct pd_mods_params params = { .host = pd_host_api_table() };
        status = pd_mods_create(&params, &h->mods);
        if (status != PD_OK)
            pd_err_set(err, status, "out of memory");
    }
    return status;
}

pd_status pd_whatif_host_start(struct pd_whatif_host *h, struct pd_conf *conf, uint64_t descriptors,
                               struct pd_err *err)
{
    struct pd_node_params params = { .loop = h->loop, .log = h->log, .mods = h->mods, .conf = conf,
                                     .name = h->name, .host_id = h->name, .descriptors = descriptors };
    h->conf = conf;
    pd_status status = pd_node_create(&params, &h->node, err);
    h->is_closed = h->node == NULL;
    return status == PD_OK ? pd_node_start(h->node, err) : status;
}

static void on_closed(void *arg)
{
    struct pd_whatif_host *h = arg;
    h->node = NULL;
    h->is_closed = true;
}

void pd_whatif_host_end(struct pd_whatif_host *h)
{
    if (h->node != NULL)
        pd_node_destroy(h->node, on_closed, h);
}

void pd_whatif_host_crash(struct pd_whatif_host *h, bool tell_peers)
{
    struct pd_loop *loop = h->loop;
    h->loop = NULL;
    h->node = NULL;
    h->is_closed = true;
    pd_sim_crash(loop, tell_peers);
}

pd_status pd_whatif_host_free(struct pd_whatif_host *h, char *names, size_t size)
{
    struct pd_loop *loop = h->loop;
    pd_conf_put(h->conf);
    if (h->owns_mods && h->mods != NULL)
        pd_mods_destroy(h->mods);
    if (h->log != NULL)
        pd_log_destroy(h->log);
    memset(h, 0, sizeof *h);
    h->is_closed = true;
    return loop != NULL ? pd_loop_destroy(loop, names, size) : PD_OK;
}
