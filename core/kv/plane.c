/* SPDX-License-Identifier: Apache-2.0 */
/* The KV plane of a node: transports and regions, the digest queue, its life. */
#include "kv/priv.h"

#include <stdio.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/uuid.h"

/* ---- digest queue: one slice per turn of the loop, shared fairly */

static void on_jobs(struct pd_task *task, void *arg)
{
    struct pd_kv *kv = (struct pd_kv *)arg;
    uint64_t budget = PD_KV_SLICE;
    (void)task;
    while (budget > 0 && !pd_list_is_empty(&kv->jobs)) {
        struct pd_list *l = pd_list_pop(&kv->jobs);
        struct pd_kv_job *job = PD_LIST_ENTRY(l, struct pd_kv_job, node);
        if (!job->run(job, &budget))
            pd_list_append(&kv->jobs, &job->node);
    }
    if (!pd_list_is_empty(&kv->jobs))
        pd_loop_defer(kv->loop, &kv->job_task);
}

void pd_kv_job_start(struct pd_kv *kv, struct pd_kv_job *job)
{
    if (!pd_list_is_empty(&job->node))
        return;
    pd_list_append(&kv->jobs, &job->node);
    pd_loop_defer(kv->loop, &kv->job_task);
}

void pd_kv_job_stop(struct pd_kv_job *job)
{
    pd_list_remove(&job->node);
}

/* ---- transports and regions */

const struct pd_peer_transport *pd_kv_peer_transport(const struct pd_peer_info *peer,
                                                     const char *name)
{
    for (uint32_t i = 0; i < peer->desc->n_transports; i++)
        if (strcmp(peer->desc->transports[i].name, name) == 0)
            return &peer->desc->transports[i];
    return NULL;
}

uint32_t pd_kv_choose(struct pd_kv *kv, const struct pd_kv_region *region,
                      const struct pd_peer_info *peer, uint32_t out[PD_KV_MAX_TRANSPORTS])
{
    bool same_host = (peer->flags & PD_PEER_SAME_HOST) != 0;
    uint32_t n = 0;
    for (int local = 1; local >= 0; local--)
        for (uint32_t i = 0; i < kv->n_transports; i++) {
            const struct pd_kv_transport *t = &kv->transports[i];
            bool is_local = (t->info.flags & PD_TRANSPORT_SAME_HOST) != 0;
            if (is_local != (local == 1) || (is_local && !same_host) || region->memory[i] == NULL ||
                (t->info.flags & PD_TRANSPORT_WRITE) == 0 ||
                pd_kv_peer_transport(peer, t->name) == NULL)
                continue;
            out[n++] = i;
        }
    return n;
}

static void transport_metrics(struct pd_kv *kv, struct pd_kv_transport *t)
{
    static const char *const one[] = { "transport" }, *const two[] = { "transport", "result" };
    static const struct pd_metric_desc bytes = {
        .size = sizeof bytes, .name = "pdplane_kv_transfer_bytes_total",
        .help = "Bytes of KV moved from or to other nodes.", .labels = one, .n_labels = 1,
    };
    static const struct pd_metric_desc results = {
        .size = sizeof results, .name = "pdplane_kv_transfers_total",
        .help = "Hand-overs of KV by how they ended.", .labels = two, .n_labels = 2,
    };
    struct pd_metrics *m = kv->conf.metrics;
    struct pd_metric_family *f = NULL;
    if (m == NULL)
        return;
    if (pd_metrics_family(m, PD_METRIC_COUNTER, &bytes, NULL, &f) == PD_OK)
        t->metric_bytes = pd_metrics_counter(m, f, &t->name);
    if (pd_metrics_family(m, PD_METRIC_COUNTER, &results, NULL, &f) != PD_OK)
        return;
    for (uint32_t v = 1; v < PD_KV_VERDICTS; v++) {
        const char *values[] = { t->name, pd_kv_verdict_text(v) };
        t->metric_result[v] = pd_metrics_counter(m, f, values);
    }
}

pd_status pd_kv_transport_add(struct pd_kv *kv, const char *name,
                              const struct pd_transport_ops *ops,
                              struct pd_transport *instance)
{
    if (kv->n_transports == PD_KV_MAX_TRANSPORTS || strlen(name) > 31)
        return PD_ELIMIT;
    for (uint32_t i = 0; i < kv->n_transports; i++)
        if (strcmp(kv->transports[i].name, name) == 0)
            return PD_EEXIST;
    struct pd_kv_transport *t = &kv->transports[kv->n_transports++];
    memset(t, 0, sizeof *t);
    t->name = name;
    t->ops = ops;
    t->instance = instance;
    t->info.size = sizeof t->info;
    ops->info(instance, &t->info);
    t->info.max_segments = PD_MAX(t->info.max_segments, 1u);
    t->info.max_bytes = PD_MAX(t->info.max_bytes, (uint64_t)1);
    transport_metrics(kv, t);
    return PD_OK;
}

uint32_t pd_kv_transports(struct pd_kv *kv, struct pd_peer_transport *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < kv->n_transports; i++) {
        const struct pd_kv_transport *t = &kv->transports[i];
        struct pd_peer_transport *p = &out[n];
        size_t len = 0;
        memset(p, 0, sizeof *p);
        if (t->ops->address(t->instance, p->address, sizeof p->address, &len) != PD_OK) {
            pd_log_warn(kv->log, "transport \"%s\" has no address to tell peers", t->name);
            continue;
        }
        snprintf(p->name, sizeof p->name, "%s", t->name);
        p->flags = t->info.flags;
        p->address_len = (uint32_t)len;
        n++;
    }
    return n;
}

pd_status pd_kv_region_add(struct pd_kv *kv, const char *engine, const struct pd_engine_info *info,
                           struct pd_kv_region **out, struct pd_err *err)
{
    pd_status st = pd_kv_layout_check(&info->layout, err);
    uint32_t registered = 0;
    if (st != PD_OK)
        return st;
    if (kv->n_regions == PD_KV_MAX_REGIONS || strlen(engine) > 63)
        return pd_err_set(err, PD_ELIMIT, "too many engines, or a name too long");
    if (info->region == NULL || info->blocks == 0 ||
        info->region_bytes / info->blocks < info->layout.block_bytes)
        return pd_err_set(err, PD_EINVAL, "the pool of engine \"%s\" is smaller than its blocks",
                          engine);
    struct pd_kv_region *r = (struct pd_kv_region *)pd_calloc(1, sizeof *r);
    if (r == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    snprintf(r->engine, sizeof r->engine, "%s", engine);
    r->layout = info->layout;
    r->layout.size = sizeof r->layout;
    r->blocks = info->blocks;
    r->base = (uint8_t *)info->region;
    r->bytes = info->region_bytes;
    struct pd_memory_desc desc = { .size = sizeof desc, .fd = info->region_fd, .base = info->region,
                                   .bytes = info->region_bytes, .dtype = info->layout.dtype,
                                   .element_bytes = pd_kv_dtype_bytes(info->layout.dtype) };
    for (uint32_t i = 0; i < kv->n_transports; i++) {
        struct pd_kv_transport *t = &kv->transports[i];
        struct pd_err why = { 0 };
        if ((t->info.flags & PD_TRANSPORT_NEEDS_FD) != 0 && info->region_fd < 0) {
            pd_log_warn(kv->log,
                        "transport \"%s\" cannot move KV of engine \"%s\": its pool is private",
                        t->name, engine);
            continue;
        }
        if (t->ops->memory_add(t->instance, &desc, &r->memory[i], &why) != PD_OK) {
            r->memory[i] = NULL;
            pd_log_warn(kv->log, "transport \"%s\" cannot move KV of engine \"%s\": %s", t->name,
                        engine, why.text);
            continue;
        }
        registered++;
    }
    if (registered == 0 && kv->n_transports > 0)
        pd_log_warn(kv->log, "KV of engine \"%s\" cannot be moved by any transport", engine);
    kv->regions[kv->n_regions++] = r;
    *out = r;
    return PD_OK;
}

void pd_kv_region_retire(struct pd_kv *kv, struct pd_kv_region *region)
{
    (void)kv;
    region->engine[0] = '\0';
}

void pd_kv_uses(const struct pd_kv *kv, uint32_t *leases_n, uint32_t *transfers_n)
{
    *leases_n = kv->n_dests;
    *transfers_n = kv->n_sources;
}

void pd_kv_region_uses(const struct pd_kv *kv, const struct pd_kv_region *region, uint32_t *leases_n,
                       uint32_t *transfers_n)
{
    *leases_n = *transfers_n = 0;
    PD_LIST_EACH(&kv->dests, l)
        *leases_n += PD_LIST_ENTRY(l, struct pd_kv_dest, e.node)->e.region == region;
    PD_LIST_EACH(&kv->sources, l)
        *transfers_n += PD_LIST_ENTRY(l, struct pd_kv_source, e.node)->e.region == region;
}

pd_status pd_kv_region_remove(struct pd_kv *kv, struct pd_kv_region *region)
{
    uint32_t leases_n, transfers_n, kept = 0;
    pd_kv_region_uses(kv, region, &leases_n, &transfers_n);
    if (leases_n + transfers_n > 0)
        return PD_EBUSY;
    for (uint32_t t = 0; t < kv->n_transports; t++) {
        if (region->memory[t] == NULL)
            continue;
        if (kv->transports[t].ops->memory_remove(region->memory[t]) != PD_OK)
            return PD_EBUSY;
        region->memory[t] = NULL;
    }
    for (uint32_t i = 0; i < kv->n_regions; i++)
        if (kv->regions[i] != region)
            kv->regions[kept++] = kv->regions[i];
    kv->n_regions = kept;
    pd_free(region);
    return PD_OK;
}

/* ---- life */

void pd_kv_set_limits(struct pd_kv *kv, const struct pd_kv_limits *limits)
{
    kv->conf.digests = limits->digests;
    kv->conf.lease_ttl = limits->lease_ttl;
    kv->conf.connect_timeout = limits->connect_timeout;
    kv->conf.inflight_bytes = limits->inflight_bytes;
}

pd_status pd_kv_create(const struct pd_kv_conf *conf, struct pd_kv **out, struct pd_err *err)
{
    struct pd_kv *kv = (struct pd_kv *)pd_calloc(1, sizeof *kv);
    if (kv == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    kv->conf = *conf;
#define PD_DEFAULT(member, value)                                              \
    do {                                                                       \
        if (kv->conf.member == 0)                                              \
            kv->conf.member = (value);                                         \
    } while (0)
    PD_DEFAULT(max_handovers, 4096);
    PD_DEFAULT(lease_ttl, 5 * PD_SEC);
    PD_DEFAULT(lease_max, 60 * PD_SEC);
    PD_DEFAULT(connect_timeout, 2 * PD_SEC);
    PD_DEFAULT(idle, 60 * PD_SEC);
    PD_DEFAULT(inflight_bytes, 32u << 20);
    PD_DEFAULT(post_bytes, 8u << 20);
    PD_DEFAULT(history, 256);
#undef PD_DEFAULT
    kv->history = (struct pd_kv_ended *)pd_calloc(kv->conf.history, sizeof *kv->history);
    if (kv->history == NULL) {
        pd_free(kv);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    kv->loop = conf->loop;
    kv->log = pd_log_child(conf->log, "kv");
    pd_list_init(&kv->ways);
    pd_list_init(&kv->dests);
    pd_list_init(&kv->sources);
    pd_list_init(&kv->jobs);
    pd_task_init(&kv->job_task, "kv digests", on_jobs, kv);
    pd_leases_init(&kv->leases, kv->loop, conf->metrics, kv->conf.max_handovers);
    if (conf->metrics != NULL) {
        static const double bounds[] = PD_METRIC_BOUNDS_SECONDS;
        static const struct pd_metric_desc seconds = {
            .size = sizeof seconds, .name = "pdplane_kv_transfer_seconds",
            .help = "Hand-overs of KV from open to end.", .bounds = bounds,
            .n_bounds = PD_ARRAY_LEN(bounds),
        };
        struct pd_metric_family *f = NULL;
        if (pd_metrics_family(conf->metrics, PD_METRIC_HISTOGRAM, &seconds, NULL, &f) == PD_OK)
            kv->metric_seconds = pd_metrics_histogram(conf->metrics, f, NULL);
        kv->metric_digest_failures = pd_metrics_simple_counter(
            conf->metrics, "pdplane_kv_digest_failures_total",
            "Blocks whose bytes did not match their digest.");
        kv->metric_inflight = pd_metrics_simple_gauge(conf->metrics, "pdplane_kv_transfer_inflight",
                                                      "Hand-overs of KV in progress.");
    }
    *out = kv;
    return PD_OK;
}

static void on_close_task(struct pd_task *task, void *arg)
{
    struct pd_kv *kv = (struct pd_kv *)arg;
    (void)task;
    if (kv->n_dests > 0 || kv->n_sources > 0)
        return;
    if (kv->n_ways > 0) {
        PD_LIST_EACH_SAFE(&kv->ways, l)
            pd_kv_way_fence(PD_LIST_ENTRY(l, struct pd_kv_way, node));
        return;
    }
    for (uint32_t i = 0; i < kv->n_regions; i++) {
        for (uint32_t t = 0; t < kv->n_transports; t++)
            if (kv->regions[i]->memory[t] != NULL)
                (void)kv->transports[t].ops->memory_remove(kv->regions[i]->memory[t]);
        pd_free(kv->regions[i]);
    }
    void (*closed)(void *) = kv->on_closed;
    void *closed_arg = kv->on_closed_arg;
    pd_task_cancel(kv->loop, &kv->job_task);
    pd_leases_fini(&kv->leases);
    pd_log_child_free(kv->log);
    pd_free(kv->history);
    pd_free(kv);
    closed(closed_arg);
}

void pd_kv_check_closed(struct pd_kv *kv)
{
    if (kv->is_closing)
        pd_loop_defer(kv->loop, &kv->close_task);
}

void pd_kv_destroy(struct pd_kv *kv, void (*on_closed)(void *arg), void *arg)
{
    kv->is_closing = true;
    kv->on_closed = on_closed;
    kv->on_closed_arg = arg;
    pd_task_init(&kv->close_task, "kv close", on_close_task, kv);
    PD_LIST_EACH(&kv->dests, d)
        pd_kv_dest_abort(PD_LIST_ENTRY(d, struct pd_kv_dest, e.node), false);
    PD_LIST_EACH(&kv->sources, s)
        pd_kv_source_abort(PD_LIST_ENTRY(s, struct pd_kv_source, e.node), false);
    pd_loop_defer(kv->loop, &kv->close_task);
}
