/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/world.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "loop/sim.h"
#include "whatif/host.h"

#define START_NS (30 * PD_SEC)          /* the router has so long to find its servers */
#define SETTLE_NS (2 * PD_SEC)          /* after the first ones were found */
#define END_NS (120 * PD_SEC)
#define ROUTER_DESCRIPTORS 131072u      /* what the unit of systemd gives */
#define PROGRESS_EVENTS 200000u

struct world;

struct action {
    struct world *w;
    const struct pd_whatif_fault *fault;
    bool is_end;
};

struct world {
    const struct pd_whatif_run_opts *o;
    struct pd_whatif_result *out;
    struct pd_sim *sim;
    struct pd_whatif_host router;
    struct pd_loop *client;
    struct pd_loop *hosts[PD_WHATIF_SERVER_HOSTS];
    struct pd_whatif_engine **engines;
    uint32_t n_engines, n_closed;
    struct pd_whatif_rooms rooms;
    struct action *actions;
    struct pd_bench_load_opts load_opts;
    struct pd_bench_load *load;
    pd_time start;
    char host[32];
    bool is_done;
};

static const struct pd_node_endpoint_conf *endpoint_of(const struct world *w, uint64_t i)
{
    return PD_CONF_ITEM(&w->o->setup->root->endpoints, struct pd_node_endpoint_conf, i);
}

/* ---- starting ---------------------------------------------------------------------------- */

static void on_line(void *arg, int32_t level, struct pd_str line)
{
    struct world *w = arg;
    (void)level;
    if (w->o->on_line != NULL)
        w->o->on_line(w->o->arg, pd_sim_now(w->sim) - w->start, line);
}

static pd_status engine_start(struct world *w, uint32_t i)
{
    const struct pd_node_endpoint_conf *e = endpoint_of(w, i);
    const struct pd_whatif_class *class =
        w->o->classes != NULL ? pd_whatif_class_find(w->o->classes, e->name) : NULL;
    struct pd_loop **loop = &w->hosts[i % PD_WHATIF_SERVER_HOSTS];
    char ip[32], name[32];
    uint16_t port;
    pd_status status = PD_OK;
    pd_whatif_setup_server(i, ip, sizeof ip, &port);
    if (*loop == NULL) {
        snprintf(name, sizeof name, "server-%u", i + 1);
        status = pd_sim_loop_create(w->sim, name, ip, loop);
    }
    if (status != PD_OK)
        return status;
    struct pd_whatif_engine_opts opts = {
        .name = e->name, .class = class != NULL ? class : w->o->usual, .roles = e->roles, .rooms = &w->rooms,
        /* One whose models are not told serves what clients ask for. */
        .models = e->models.count > 0 ? e->models.items : &w->o->work->model,
        .n_models = e->models.count > 0 ? e->models.count : 1,
    };
    pd_sim_addr(*loop, port, &opts.addr);
    status = pd_whatif_engine_create(*loop, &opts, &w->engines[i]);
    w->n_engines = i + 1;
    return status;
}

static pd_status engines_start(struct world *w, struct pd_err *err)
{
    uint32_t n = (uint32_t)w->o->setup->root->endpoints.count;
    pd_status status = PD_OK;
    w->engines = pd_calloc(n, sizeof(struct pd_whatif_engine *));
    if (w->engines == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n && status == PD_OK; i++)
        status = engine_start(w, i);
    if (status == PD_OK)
        return PD_OK;
    return pd_err_set(err, status, "the simulated servers do not start: %s", pd_status_text(status));
}

static bool is_ready(void *arg)
{
    struct world *w = arg;
    return pd_node_is_ready(w->router.node, NULL);
}

static pd_status router_start(struct world *w, struct pd_err *err)
{
    struct pd_whatif_host_opts opts = { .name = "router", .ip = "10.0.0.1", .level = w->o->level,
                                        .on_line = on_line, .arg = w, .mods = w->o->setup->mods };
    const struct pd_node_part *part = NULL;
    pd_status status = pd_whatif_host_open(w->sim, &opts, &w->router, err);
    if (status == PD_OK)
        status = pd_whatif_host_start(&w->router, pd_conf_get(w->o->setup->conf), ROUTER_DESCRIPTORS, err);
    if (status != PD_OK)
        return status;
    if (!pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + START_NS, is_ready, w)) {
        (void)pd_node_is_ready(w->router.node, &part);
        pd_err_set(err, PD_EINVAL, "the router is not ready after %u s of simulated time: %s",
                   (unsigned)(START_NS / PD_SEC), part != NULL ? part->reason : "it finds no server");
        pd_err_hint(err, "-v shows what it logs");
        return err->status;
    }
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + SETTLE_NS);
    return PD_OK;
}

/* ---- faults -------------------------------------------------------------------------------- */

static void on_action(void *arg)
{
    struct action *a = arg;
    struct world *w = a->w;
    for (uint32_t i = 0; i < w->n_engines; i++) {
        if (fnmatch(a->fault->endpoints, endpoint_of(w, i)->name, 0) != 0)
            continue;
        if (a->fault->kind == PD_WHATIF_SLOW)
            pd_whatif_engine_slow(w->engines[i], a->is_end ? 1 : a->fault->factor);
        else if (!a->is_end)
            pd_whatif_engine_kill(w->engines[i]);
        else if (pd_whatif_engine_revive(w->engines[i]) != PD_OK)
            pd_sim_note(w->client, "%s does not come back", endpoint_of(w, i)->name);
    }
}

static pd_status faults_plan(struct world *w, struct pd_err *err)
{
    pd_status status = PD_OK;
    uint32_t n = 0;
    w->actions = pd_calloc(2 * (size_t)w->o->n_faults + 1, sizeof *w->actions);
    if (w->actions == NULL)
        status = PD_ENOMEM;
    for (uint32_t i = 0; i < w->o->n_faults && status == PD_OK; i++) {
        const struct pd_whatif_fault *f = &w->o->faults[i];
        for (uint32_t k = 0; k < (f->lasts > 0 ? 2u : 1u) && status == PD_OK; k++) {
            w->actions[n] = (struct action){ w, f, k > 0 };
            status = pd_sim_at(w->sim, w->start + f->at + (k > 0 ? f->lasts : 0), on_action, &w->actions[n]);
            n++;
        }
    }
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "out of memory");
}

/* ---- the load -------------------------------------------------------------------------------- */

static bool is_good(const struct pd_whatif_slo *slo, const struct pd_bench_load_record *r, uint32_t tokens)
{
    pd_time first = r->first != 0 ? r->first - r->meant : r->end - r->meant;
    if (slo->ttft != 0 && first > slo->ttft)
        return false;
    if (slo->itl != 0 && tokens > 1 && r->last > r->first && (r->last - r->first) / (tokens - 1) > slo->itl)
        return false;
    return slo->e2e == 0 || r->end - r->meant <= slo->e2e;
}

static void on_request(void *arg, const struct pd_bench_load_record *r)
{
    struct world *w = arg;
    uint32_t tokens = w->o->work->trace.rows[r->index].output;
    if (!r->is_counted || r->error != PD_BENCH_ERRORS)
        return;
    w->out->output_tokens += tokens;
    w->out->good += is_good(&w->o->slo, r, tokens);
}

static pd_status make_body(void *arg, uint64_t index, struct pd_buf *out)
{
    const struct world *w = arg;
    return pd_whatif_work_body(w->o->work, index, out);
}

static void on_done(void *arg)
{
    ((struct world *)arg)->is_done = true;
}

static pd_status load_run(struct world *w, struct pd_err *err)
{
    const struct pd_whatif_work *work = w->o->work;
    pd_status status = pd_sim_loop_create(w->sim, "clients", "10.0.0.2", &w->client);
    snprintf(w->host, sizeof w->host, "10.0.0.1:%u", PD_WHATIF_ROUTER_PORT);
    w->start = pd_sim_now(w->sim);
    w->load_opts = (struct pd_bench_load_opts){
        .size = sizeof w->load_opts, .host = pd_str_from(w->host), .target = PD_STR("/v1/completions"),
        .n_bodies = work->trace.n_rows, .arrivals = work->arrivals, .concurrency = w->o->concurrency,
        .warmup = w->o->warmup, .timeout = w->o->timeout, .make_body = make_body, .on_request = on_request, .arg = w,
    };
    pd_sim_addr(w->router.loop, PD_WHATIF_ROUTER_PORT, &w->load_opts.addr);
    if (status == PD_OK)
        status = pd_bench_load_start(w->client, &w->load_opts, on_done, w, &w->load);
    if (status != PD_OK)
        return pd_err_set(err, status, "the simulated clients do not start: %s", pd_status_text(status));
    status = faults_plan(w, err);
    for (uint64_t n = 0; status == PD_OK && !w->is_done; n++) {
        if (!pd_sim_step(w->sim, PD_TIME_NEVER - 1))
            return pd_err_set(err, PD_EIO, "the simulation has come to a halt");
        if (n % PROGRESS_EVENTS == 0 && w->o->on_progress != NULL)
            w->o->on_progress(w->o->arg, pd_bench_load_result(w->load)->started - pd_bench_load_open(w->load),
                              pd_sim_now(w->sim) - w->start);
    }
    return status;
}

/* ---- results and end ---------------------------------------------------------------------------- */

static uint64_t counter(const struct world *w, const char *name)
{
    double v = 0;
    if (pd_metrics_read(w->router.node->metrics, name, NULL, &v) != PD_OK)
        return 0;
    return (uint64_t)v;
}

static pd_status collect(struct world *w, struct pd_err *err)
{
    struct pd_whatif_result *r = w->out;
    struct pd_req_counts counts;
    bool is_short = false;
    r->load = *pd_bench_load_result(w->load);
    r->elapsed = pd_sim_now(w->sim) - w->start;
    pd_reqs_counts(w->router.node->reqs, &counts);
    r->shed = counts.outcome[PD_REQ_SHED];
    r->retries = counter(w, "pdplane_router_retries_total");
    r->prefill_failures = counter(w, "pdplane_router_prefill_failures_total");
    r->servers = pd_calloc(w->n_engines, sizeof *r->servers);
    if (r->servers == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    r->n_servers = w->n_engines;
    for (uint32_t i = 0; i < w->n_engines; i++) {
        r->servers[i].name = endpoint_of(w, i)->name;
        r->servers[i].stats = *pd_whatif_engine_stats(w->engines[i]);
        is_short |= r->servers[i].stats.short_of_memory > 0;
    }
    if (is_short || r->load.errors[PD_BENCH_ERROR_LOCAL] > 0)
        return pd_err_set(err, PD_ENOMEM, "memory was short in this process, so the figures would be wrong");
    return PD_OK;
}

static void on_engine_closed(void *arg)
{
    ((struct world *)arg)->n_closed++;
}

static bool is_over(void *arg)
{
    const struct world *w = arg;
    return w->router.is_closed && w->n_closed == w->n_engines && (w->load == NULL || w->is_done);
}

/* Takes everything down; a loop that cannot end is a fault of this program. */
static pd_status world_end(struct world *w, struct pd_err *err)
{
    char names[256] = "";
    pd_status status;
    if (w->load != NULL && !w->is_done)
        pd_bench_load_stop(w->load, 0);
    pd_whatif_host_end(&w->router);
    for (uint32_t i = 0; i < w->n_engines; i++)
        if (w->engines[i] != NULL)
            pd_whatif_engine_close(w->engines[i], on_engine_closed, w);
        else
            w->n_closed++;
    (void)pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + END_NS, is_over, w);
    /* What was closed in the last turns is gone after them. */
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + PD_SEC);
    if (!is_over(w))
        return pd_err_set(err, PD_EBUSY, "the simulated nodes do not end");
    if (w->load != NULL)
        pd_bench_load_destroy(w->load);
    pd_idmap_fini(&w->rooms.done);
    pd_idmap_fini(&w->rooms.waiting);
    pd_free(w->engines);
    pd_free(w->actions);
    status = pd_whatif_host_free(&w->router, names, sizeof names);
    if (status == PD_OK && w->client != NULL)
        status = pd_loop_destroy(w->client, names, sizeof names);
    for (uint32_t i = 0; i < PD_WHATIF_SERVER_HOSTS && status == PD_OK; i++)
        if (w->hosts[i] != NULL)
            status = pd_loop_destroy(w->hosts[i], names, sizeof names);
    if (status == PD_OK)
        status = pd_sim_destroy(w->sim);
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "a simulated host leaves open: %s", names);
}

pd_status pd_whatif_run(const struct pd_whatif_run_opts *opts, struct pd_whatif_result *out, struct pd_err *err)
{
    struct world *w = pd_calloc(1, sizeof *w);
    struct pd_err late = { 0 };
    struct pd_sim_opts sim = {
        .link = { .latency_ns = opts->latency, .jitter_ns = opts->jitter, .bytes_per_s = opts->bytes_per_s },
        .whole_io = 1,
    };
    memset(out, 0, sizeof *out);
    if (w == NULL || pd_sim_create(opts->seed, &sim, &w->sim) != PD_OK) {
        pd_free(w);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    w->o = opts;
    w->out = out;
    w->router.is_closed = true;
    pd_idmap_init(&w->rooms.done, PD_WHATIF_ROOMS_MAX, 0);
    pd_idmap_init(&w->rooms.waiting, PD_WHATIF_ROOMS_MAX, 0);
    pd_status status = engines_start(w, err);
    if (status == PD_OK)
        status = router_start(w, err);
    if (status == PD_OK)
        status = load_run(w, err);
    if (status == PD_OK)
        status = collect(w, err);
    pd_status ended = world_end(w, status == PD_OK ? err : &late);
    pd_free(w);
    return status != PD_OK ? status : ended;
}

uint64_t pd_whatif_result_failed(const struct pd_whatif_result *r)
{
    uint64_t n = 0;
    for (int i = 0; i < PD_BENCH_ERRORS; i++)
        n += r->load.errors[i];
    return n;
}

void pd_whatif_result_free(struct pd_whatif_result *r)
{
    pd_free(r->servers);
    memset(r, 0, sizeof *r);
}
