/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a role that does nothing but stop its process when a request enters
 * the stage that a test has named: "ROLE STAGE TOKENS", ROLE router, prefill or
 * decode, the others numbers (see PD_REQ_STAGE_TABLE).  It is never installed. */
#include <pdplane/host.h>
#include <pdplane/req.h>
#include <pdplane/role.h>

#include <stdlib.h>

#include "probe.h"

struct probe_conf {
    const char *dir;
};

struct probe {
    const struct probe_conf *conf;
    const struct pd_req_api *req;
    struct pd_reqs *reqs;
};

static const char *role_name(uint32_t role)
{
    return role == PD_ROLE_ROUTER ? "router" : role == PD_ROLE_DECODE ? "decode" : "prefill";
}

static void on_step(const struct pd_req *req, void *arg)
{
    const struct probe *p = arg;
    char path[256], armed[64], here[64], more[256];
    if (!probe_armed(p->conf->dir, path, sizeof path, armed, sizeof armed))
        return;
    snprintf(here, sizeof here, "%s %u %u", role_name(req->role), (unsigned)req->stage,
             (unsigned)req->output_tokens);
    if (strcmp(armed, here) != 0)
        return;
    snprintf(more, sizeof more, "prefill=%s decode=%s id=%s", req->prefill, req->decode, req->id);
    probe_wait(p->conf->dir, path, here, more);
}

static pd_status probe_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_role **out,
                              struct pd_err *err)
{
    struct probe *p = calloc(1, sizeof *p);
    (void)err;
    if (p == NULL)
        return PD_ENOMEM;
    p->conf = conf;
    p->req = pd_host()->table(ctx->host, PD_REQ_TABLE, PD_REQ_VERSION);
    p->reqs = pd_host()->object(ctx->host, PD_REQ_TABLE);
    if (p->req == NULL) {
        free(p);
        return PD_ENOSYS;
    }
    *out = (struct pd_role *)p;
    return PD_OK;
}

static pd_status probe_start(struct pd_role *role, struct pd_err *err)
{
    struct probe *p = (struct probe *)role;
    (void)err;
    p->req->watch(p->reqs, on_step, p);
    return PD_OK;
}

static void probe_drain(struct pd_role *role, void (*done)(void *arg), void *arg)
{
    (void)role;
    done(arg);
}

static void probe_destroy(struct pd_role *role, void (*closed)(void *arg), void *arg)
{
    struct probe *p = (struct probe *)role;
    p->req->watch(p->reqs, NULL, NULL);
    free(p);
    closed(arg);
}

static const struct pd_option probe_options[] = {
    PD_OPT_STRING("dir", struct probe_conf, dir, NULL, .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY,
                  .help = "Folder with the test's file and socket."),
    PD_OPT_END
};

static const struct pd_role_ops probe_ops = {
    .head = PD_OPS(pd_role_ops, PD_ROLE_V1),
    .create = probe_create,
    .start = probe_start,
    .drain = probe_drain,
    .destroy = probe_destroy,
};

static const struct pd_unit probe_units[] = {
    PD_UNIT(.kind = PD_KIND_ROLE, .name = "probe", .ops = &probe_ops.head, .options = probe_options,
            .conf_size = sizeof(struct probe_conf),
            .summary = "Stops the process at a stage of a request, for tests."),
    PD_UNIT_END
};

PD_MODULE(.name = "probe", .version = "1.0", .summary = "Stops the process at a stage, for tests.",
          .units = probe_units)
