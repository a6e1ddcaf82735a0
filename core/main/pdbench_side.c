/* SPDX-License-Identifier: Apache-2.0 */
/* A side: module, instance, memory, messages. */
#include "main/pdbench_side.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop/uv.h"

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

bool pdbench_side_open(struct pdbench_side *s, const char *name)
{
    struct pd_err err = { 0 };
    if (!pdbench_module_open(&s->module, PD_KIND_TRANSPORT, name))
        return false;
    s->loop = s->module.loop;
    s->node = s->module.ctx.node;
    s->ops = (const struct pd_transport_ops *)(const void *)s->module.ops;
    if (pd_host_api_table()->memory_alloc(&s->module.host, name, s->bytes, &s->memory, &err) != PD_OK)
        return pdbench_module_say(&s->module, &err, NULL);
    memset(s->memory.base, 1, s->bytes);
    struct pd_memory_desc desc = { .size = sizeof desc, .fd = s->memory.fd, .base = s->memory.base,
                                   .bytes = s->bytes };
    if (s->ops->create(&s->module.ctx, pdbench_module_conf(&s->module), &s->tp, &err) != PD_OK)
        return pdbench_module_say(&s->module, &err, NULL);
    s->info.size = sizeof s->info;
    s->ops->info(s->tp, &s->info);
    if (s->ops->memory_add(s->tp, &desc, &s->registered, &err) != PD_OK)
        return pdbench_module_say(&s->module, &err, NULL);
    if (pd_watch_open(s->loop, s->in, PD_WATCH_READ, "other side", on_watch, s, &s->watch) != PD_OK)
        return pdbench_module_say(&s->module, NULL, "cannot watch a pipe");
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
        pd_host_api_table()->memory_free(&s->module.host, &s->memory);
    pdbench_module_close(&s->module);
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
