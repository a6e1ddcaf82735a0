/* SPDX-License-Identifier: Apache-2.0 */
/* A node as a module sees it, instances in it, and what they cost. */
#include "conform/conform.h"

#include <dirent.h>
#include <malloc.h>
#include <stdarg.h>
#include <unistd.h>

#include <pdplane/adapter.h>
#include <pdplane/codec.h>
#include <pdplane/discovery.h>
#include <pdplane/exporter.h>

#include "base/json.h"
#include "log/log.h"
#include "loop/uv.h"
#include "metric/metric.h"

static void PD_PRINTF(1, 0) say(const char *fmt, va_list ap)
{
    char text[1024];

    vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    printf("%s\n", text);
    fflush(stdout);
}

void cf_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void cf_fail(const char *file, int line, const char *fmt, ...)
{
    const char *slash = strrchr(file, '/');
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    cf_say("at %s:%d", slash == NULL ? file : slash + 1, line);
    _exit(CF_EXIT_FAILED);
}

void cf_skip(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    _exit(CF_EXIT_SKIPPED);
}

void cf_check_int(long long got, long long want, bool equal, const char *text, const char *file,
                  int line)
{
    if ((got == want) != equal)
        cf_fail(file, line, equal ? "%s is %lld, expected %lld" : "%s is %lld, expected anything but %lld",
                text, got, want);
}

uint64_t cf_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Only there in builds with sanitizers, where malloc is another one. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

uint64_t cf_memory(void)
{
    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
#else
    unsigned long long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    if (f != NULL)
        fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
#endif
}

uint32_t cf_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint32_t n = 0;

    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    return n;
}

static pd_status memory_alloc(struct pd_host *host, const char *name, uint64_t bytes,
                              struct pd_host_memory *out, struct pd_err *err)
{
    if (!cf_alloc_fails_for(__builtin_return_address(0)))
        return pd_host_api_table()->memory_alloc(host, name, bytes, out, err);
    err->status = PD_ENOMEM;
    snprintf(err->text, sizeof(err->text), "there is no memory");
    return PD_ENOMEM;
}

const struct pd_host_api *cf_host_table(void)
{
    static struct pd_host_api table;

    table = *pd_host_api_table();
    table.memory_alloc = memory_alloc;
    return &table;
}

/* Lines are made, and go nowhere: what keeps them would look like a leak. */
static void on_line(void *arg, int32_t level, struct pd_str line)
{
    (void)arg;
    (void)level;
    (void)line;
}

void cf_world_open(struct cf_world *w, const struct cf_unit *u)
{
    struct pd_log_config log = { .sink = PD_LOG_CALLBACK, .on_line = on_line, .level = PD_LOG_DEBUG };
    struct pd_err err = { 0 };

    memset(w, 0, sizeof(*w));
    w->u = u;
    pd_host_init(&w->host);
    assert_int_equal(pd_host_register(&w->host, PD_JSON_TABLE, PD_JSON_VERSION, pd_json_functions(), NULL),
                     PD_OK);
    assert_int_equal(pd_loop_uv_create(NULL, &w->loop), PD_OK);
    assert_int_equal(pd_metrics_create(0, &w->metrics), PD_OK);
    assert_int_equal(pd_log_create(&log, &err, &w->log), PD_OK);
    if (u->unit->kind == PD_KIND_DISCOVERY) {
        assert_int_equal(pd_http_client_create(w->loop, NULL, &w->net.client), PD_OK);
        assert_int_equal(pd_host_register(&w->host, PD_NET_TABLE, PD_NET_VERSION, pd_net_functions(), &w->net),
                         PD_OK);
    }
}

void cf_turn(struct cf_world *w, pd_time ns)
{
    assert_int_equal(pd_loop_uv_turn(w->loop, ns), PD_OK);
}

bool cf_wait(struct cf_world *w, bool (*cond)(void *arg), void *arg, pd_time limit)
{
    pd_time end = pd_loop_clock(w->loop) + limit;

    while (!cond(arg)) {
        if (pd_loop_clock(w->loop) >= end)
            return false;
        cf_turn(w, 5 * PD_MS);
    }
    return true;
}

void cf_loop_end(struct pd_loop *loop)
{
    char names[512] = "";

    if (pd_loop_destroy(loop, names, sizeof(names)) != PD_OK)
        cf_fail(__FILE__, __LINE__, "the module left handles of the loop open: %s", names);
}

void cf_world_close(struct cf_world *w)
{
    if (w->net.client != NULL)
        pd_http_client_close(w->net.client, NULL, NULL);
    for (int i = 0; i < 5; i++)
        cf_turn(w, 0);
    cf_loop_end(w->loop);
    CF_NEED(w->host.n_memories == 0, "%u pieces of shared memory were not given back",
            w->host.n_memories);
    pd_metrics_destroy(w->metrics);
    pd_log_destroy(w->log);
}

pd_status cf_create(struct cf_world *w, struct cf_inst *i, uint32_t number, struct pd_err *err)
{
    const void *conf = w->u->conf, *ops = w->u->ops;
    pd_status st = PD_ENOSYS;

    memset(i, 0, sizeof(*i));
    memset(err, 0, sizeof(*err));
    i->w = w;
    i->ctx.size = sizeof(i->ctx);
    i->ctx.name = number == 0 ? "first" : "second";
    i->ctx.loop = w->loop;
    i->ctx.log = w->log;
    i->ctx.metrics = w->metrics;
    i->ctx.host = &w->host;
    i->ctx.node.uuid.b[0] = (uint8_t)(0xc0 + number);
    i->ctx.node.uuid.b[1] = (uint8_t)getpid();
    i->ctx.node.uuid.b[2] = (uint8_t)(getpid() >> 8);
    i->ctx.node.uuid.b[3] = (uint8_t)(getpid() >> 16);
    i->ctx.node.epoch = 1 + number;
#define CREATE(kind, type)                                                     \
    case PD_KIND_##kind: {                                                     \
        struct pd_##type *p = NULL;                                            \
        st = ((const struct pd_##type##_ops *)ops)->create(&i->ctx, conf, &p, err); \
        i->p = p;                                                              \
        break;                                                                 \
    }
    switch (w->u->unit->kind) {
        CREATE(ENGINE, engine)
        CREATE(TRANSPORT, transport)
        CREATE(FILTER, filter)
        CREATE(SCORER, scorer)
        CREATE(PICKER, picker)
        CREATE(DECIDER, decider)
        CREATE(ADAPTER, adapter)
        CREATE(CODEC, codec)
        CREATE(DISCOVERY, discovery)
        CREATE(EXPORTER, exporter)
    }
#undef CREATE
    return st;
}

void cf_create_ok(struct cf_world *w, struct cf_inst *i, uint32_t number)
{
    struct pd_err err;
    pd_status st = cf_create(w, i, number, &err);

    CF_NEED(st == PD_OK, "create returns %d: %s", st, err.text);
    CF_NEED(i->p != NULL, "create returns success and no instance");
}

static void on_closed(void *arg)
{
    struct cf_inst *i = arg;

    CF_NEED(!i->closed, "on_closed is called twice");
    i->closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct cf_inst *)arg)->closed;
}

void cf_destroy(struct cf_world *w, struct cf_inst *i)
{
    const void *ops = w->u->ops;

#define DESTROY(kind, type)                                                    \
    case PD_KIND_##kind:                                                       \
        ((const struct pd_##type##_ops *)ops)->destroy(i->p);                  \
        return;
    switch (w->u->unit->kind) {
        DESTROY(FILTER, filter)
        DESTROY(SCORER, scorer)
        DESTROY(PICKER, picker)
        DESTROY(DECIDER, decider)
        DESTROY(ADAPTER, adapter)
        DESTROY(CODEC, codec)
    case PD_KIND_EXPORTER:
        ((const struct pd_exporter_ops *)ops)->destroy(i->p, on_closed, i);
        break;
    case PD_KIND_ENGINE:
        ((const struct pd_engine_ops *)ops)->destroy(i->p, on_closed, i);
        break;
    case PD_KIND_DISCOVERY:
        ((const struct pd_discovery_ops *)ops)->destroy(i->p, on_closed, i);
        break;
    default:
        ((const struct pd_transport_ops *)ops)->destroy(i->p, on_closed, i);
    }
#undef DESTROY
    CF_NEED(!i->closed, "on_closed is called from inside destroy");
    CF_NEED(cf_wait(w, is_closed, i, 20 * PD_SEC), "on_closed does not come within 20 s");
}
