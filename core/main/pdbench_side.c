/* SPDX-License-Identifier: Apache-2.0 */
/* A side: module, instance, memory, messages. */
#include "main/pdbench_side.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "log/log.h"
#include "loop/uv.h"
#include "metric/metric.h"

static void on_watch(struct pd_watch *w, uint32_t events, void *arg)
{
    struct pdbench_side *s = arg;
    struct pdbench_msg msg;
    (void)w;
    (void)events;
    ssize_t n = read(s->in, &msg, sizeof msg);
    if (n < 0 && errno == EINTR)
        return;
    if (n != (ssize_t)sizeof msg) {
        pd_watch_close(s->loop, s->watch);
        s->watch = NULL;
    }
    s->on_msg(n == (ssize_t)sizeof msg ? &msg : NULL, s->arg);
}

bool pdbench_side_send(struct pdbench_side *s, const struct pdbench_msg *msg)
{
    ssize_t n;
    do
        n = write(s->out, msg, sizeof *msg);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof *msg;
}

static bool say(const struct pdbench_side *s, const struct pd_err *err, const char *what)
{
    fprintf(stderr, "pdbench transport: %s: %s%s%s\n", s->file, err != NULL ? err->text : what,
            err != NULL && err->hint[0] != '\0' ? "; " : "", err != NULL ? err->hint : "");
    return false;
}

/* The module's first transport, with its options. */
static bool load(struct pdbench_side *s)
{
    const char *folders[] = { s->folder, NULL };
    struct pd_mods_params params = { .host = pd_host_api_table(), .path = s->folder != NULL ? folders : NULL };
    struct pd_err err = { 0 };
    struct pd_conf_report report;
    const struct pd_mod_unit *unit;
    if (pd_mods_create(&params, &s->mods) != PD_OK)
        return say(s, NULL, "out of memory");
    pd_mods_begin(s->mods);
    if (pd_mods_load(s->mods, s->file, &err) != PD_OK)
        return say(s, &err, NULL);
    unit = pd_mods_unit_at(s->mods, 1ull << PD_KIND_TRANSPORT, 0);
    if (unit == NULL)
        return say(s, NULL, "the module has no transport");
    s->ops = (const struct pd_transport_ops *)(const void *)unit->ops;
    if (unit->unit->options == NULL || unit->unit->conf_size == 0)
        return true;
    struct pd_conf_resolver resolver = pd_mods_resolver(s->mods);
    pd_conf_report_init(&report);
    pd_status st = pd_conf_open_text("--options", pd_str_from(s->options), NULL, &report, &s->conf);
    if (st == PD_OK)
        st = pd_conf_fill(s->conf, unit->unit->options, unit->unit->conf_size, &resolver, &report);
    if (st != PD_OK)
        pd_conf_report_print(&report, stderr);
    pd_conf_report_fini(&report);
    return st == PD_OK;
}

bool pdbench_side_open(struct pdbench_side *s, const char *name)
{
    struct pd_log_config log = { .sink = PD_LOG_STDERR, .level = PD_LOG_WARN, .hide_time = true };
    struct pd_err err = { 0 };
    if (pd_loop_uv_create(NULL, &s->loop) != PD_OK || pd_log_create(&log, &err, &s->log) != PD_OK ||
        pd_metrics_create(0, &s->metrics) != PD_OK)
        return say(s, NULL, "cannot begin");
    if (!load(s))
        return false;
    pd_host_init(&s->host);
    pd_loop_random(s->loop, &s->node, sizeof s->node);
    s->node.epoch |= 1;
    if (pd_host_api_table()->memory_alloc(&s->host, name, s->bytes, &s->memory, &err) != PD_OK)
        return say(s, &err, NULL);
    memset(s->memory.base, 1, s->bytes);
    struct pd_instance_ctx ctx = { .size = sizeof ctx, .name = name, .loop = s->loop, .log = s->log,
                                   .metrics = s->metrics, .host = &s->host, .node = s->node };
    struct pd_memory_desc desc = { .size = sizeof desc, .fd = s->memory.fd, .base = s->memory.base,
                                   .bytes = s->bytes };
    if (s->ops->create(&ctx, s->conf != NULL ? pd_conf_root(s->conf) : NULL, &s->tp, &err) != PD_OK)
        return say(s, &err, NULL);
    s->info.size = sizeof s->info;
    s->ops->info(s->tp, &s->info);
    if (s->ops->memory_add(s->tp, &desc, &s->registered, &err) != PD_OK)
        return say(s, &err, NULL);
    if (pd_watch_open(s->loop, s->in, PD_WATCH_READ, "other side", on_watch, s, &s->watch) != PD_OK)
        return say(s, NULL, "cannot watch a pipe");
    return true;
}

static void on_closed(void *arg)
{
    ((struct pdbench_side *)arg)->is_closed = true;
}

void pdbench_side_close(struct pdbench_side *s)
{
    if (s->watch != NULL)
        pd_watch_close(s->loop, s->watch);
    if (s->registered != NULL)
        (void)s->ops->memory_remove(s->registered);
    if (s->tp != NULL) {
        pd_time end = pd_loop_clock(s->loop) + 5 * PD_SEC;
        s->ops->destroy(s->tp, on_closed, s);
        while (!s->is_closed && pd_loop_clock(s->loop) < end)
            (void)pd_loop_uv_turn(s->loop, 10 * PD_MS);
    }
    if (s->memory.base != NULL)
        pd_host_api_table()->memory_free(&s->host, &s->memory);
    if (s->loop != NULL)
        (void)pd_loop_destroy(s->loop, NULL, 0);
    pd_conf_put(s->conf);
    if (s->mods != NULL)
        pd_mods_destroy(s->mods);
    if (s->metrics != NULL)
        pd_metrics_destroy(s->metrics);
    if (s->log != NULL)
        pd_log_destroy(s->log);
}

struct pd_segment *pdbench_segments(uint64_t bytes, uint64_t segment, uint64_t seed, uint32_t *n)
{
    uint64_t x = seed;
    *n = (uint32_t)(bytes / segment);
    struct pd_segment *list = pd_calloc(*n, sizeof *list);
    for (uint32_t i = 0; list != NULL && i < *n; i++)
        list[i] = (struct pd_segment){ i * segment, segment };
    for (uint32_t i = *n; list != NULL && seed != 0 && i-- > 1;) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t j = (uint32_t)((x >> 33) % (i + 1));
        struct pd_segment t = list[i];
        list[i] = list[j];
        list[j] = t;
    }
    return list;
}
