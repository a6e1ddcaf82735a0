/* SPDX-License-Identifier: Apache-2.0 */
/* A source that breaks its contract in the way that its option names; as
 * broken_claim (CLAIM_REFRESH) it claims an operation that it lacks.  It reads
 * numbers of servers from a file, one line: "1 2 3"; "x" is no server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/discovery.h>
#include <pdplane/loop.h>

enum {
    FAULT_NONE, FAULT_INSIDE, FAULT_LATE, FAULT_SILENT, FAULT_UNENDED, FAULT_ORDER, FAULT_NAMES,
    FAULT_REFRESH, FAULT_RENAME, FAULT_STICKY, FAULT_STUCK, FAULT_GROWTH, FAULT_TWICE, FAULT_FRAGILE,
    FAULT_EMPTY, FAULT_DEAF, FAULT_LEAK,
    FAULT_GLOBAL                /* one state for all instances, which goes with the first of them */
};

#define NUMBERS_MAX 64

struct broken_conf {
    const char *path;
    uint32_t fault;
};

struct pd_discovery {
    const struct broken_conf *conf;
    struct pd_loop *loop;
    struct pd_discovery_sink *sink;
    struct pd_timer timer;
    struct pd_task task;
    bool was_lost;
    uint32_t looks;
    char *kept;
    void (*on_closed)(void *arg);
    void *arg;
};

static uint32_t serial;
static const struct pd_discovery *the_one;

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },       { "inside", FAULT_INSIDE },   { "late", FAULT_LATE },
    { "silent", FAULT_SILENT },   { "unended", FAULT_UNENDED },
    { "order", FAULT_ORDER },     { "names", FAULT_NAMES },     { "refresh", FAULT_REFRESH },
    { "rename", FAULT_RENAME },   { "sticky", FAULT_STICKY },   { "stuck", FAULT_STUCK },
    { "growth", FAULT_GROWTH },   { "twice", FAULT_TWICE },     { "fragile", FAULT_FRAGILE },
    { "empty", FAULT_EMPTY },     { "deaf", FAULT_DEAF },       { "leak", FAULT_LEAK },
    { "global", FAULT_GLOBAL },
    { NULL, 0 },
};

static const struct pd_option options[] = {
    PD_OPT_STRING("path", struct broken_conf, path, NULL, .flags = PD_OPT_REQUIRED, .help = "The file."),
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static void put(struct pd_discovery *d, const char *prefix, unsigned number)
{
    char name[64], address[64];
    struct pd_discovery_entry e = { .size = sizeof e, .what = PD_DISCOVERY_SERVER };
    snprintf(name, sizeof name, "%s%u", prefix, number);
    snprintf(address, sizeof address, "http://127.0.0.%u:8000", number);
    e.name = (struct pd_str){ name, strlen(name) };
    e.address = (struct pd_str){ address, strlen(address) };
    pd_discovery_put(d->sink, &e);
}

/* "1 2 x 3": numbers, and how many words are none. */
static uint32_t words_read(FILE *f, unsigned numbers[NUMBERS_MAX], uint32_t *wrong)
{
    char word[32];
    uint32_t n = 0;
    *wrong = 0;
    while (n < NUMBERS_MAX && fscanf(f, "%31s", word) == 1) {
        if (word[0] >= '0' && word[0] <= '9')
            numbers[n++] = (unsigned)strtoul(word, NULL, 10);
        else
            ++*wrong;
    }
    return n;
}

static void tell(struct pd_discovery *d, const unsigned *numbers, uint32_t n)
{
    char prefix[32] = "n";
    if (d->conf->fault == FAULT_NAMES)
        snprintf(prefix, sizeof prefix, "n%u-", ++serial);
    if (d->conf->fault == FAULT_RENAME)
        snprintf(prefix, sizeof prefix, "n%u-", d->looks);
    if (d->conf->fault == FAULT_ORDER)
        pd_discovery_end(d->sink);
    if (d->conf->fault != FAULT_STICKY)
        pd_discovery_begin(d->sink);
    for (uint32_t i = 0; i < n; i++) {
        char twice[48] = "";
        for (uint32_t k = 0; k < i; k++)
            if (numbers[k] == numbers[i] && d->conf->fault == FAULT_TWICE)
                snprintf(twice, sizeof twice, "again%u-", i);
        put(d, twice[0] != '\0' ? twice : prefix, numbers[i]);
    }
    if (d->conf->fault == FAULT_STICKY)
        pd_discovery_synced(d->sink);
    else if (d->conf->fault != FAULT_UNENDED)
        pd_discovery_end(d->sink);
}

static void lost(struct pd_discovery *d)
{
    d->was_lost = true;
    if (d->conf->fault == FAULT_EMPTY) {
        pd_discovery_begin(d->sink);
        pd_discovery_end(d->sink);
    }
    pd_discovery_lost(d->sink, "the file is not there");
}

static void look(struct pd_timer *timer, void *arg)
{
    struct pd_discovery *d = arg;
    unsigned numbers[NUMBERS_MAX];
    uint32_t n, wrong;
    if (d->conf->fault == FAULT_SILENT)
        return;
    if (d->conf->fault == FAULT_STUCK && d->looks > 0)
        return;
    if (d->conf->fault == FAULT_DEAF && d->was_lost)
        return;
    if (d->conf->fault == FAULT_GROWTH)
        d->kept = realloc(d->kept, ++d->looks * 8192);
    d->looks++;
    FILE *f = d->conf->fault == FAULT_GLOBAL && the_one == NULL ? NULL : fopen(d->conf->path, "r");
    if (f == NULL) {
        lost(d);
    } else {
        n = words_read(f, numbers, &wrong);
        fclose(f);
        tell(d, numbers, d->conf->fault == FAULT_FRAGILE && wrong > 0 ? 0 : n);
    }
    pd_timer_start(timer, 20 * PD_MS);
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                        struct pd_err *err)
{
    struct pd_discovery *d = calloc(1, sizeof *d);
    (void)err;
    if (d == NULL)
        return PD_ENOMEM;
    d->conf = conf;
    the_one = d;
    d->loop = ctx->loop;
    pd_timer_init(&d->timer, d->loop, "broken discovery", look, d);
    *out = d;
    return PD_OK;
}

static pd_status start(struct pd_discovery *d, struct pd_discovery_sink *sink, struct pd_err *err)
{
    (void)err;
    d->sink = sink;
    if (d->conf->fault == FAULT_INSIDE)
        look(&d->timer, d);
    pd_timer_start(&d->timer, 0);
    return PD_OK;
}

#ifndef CLAIM_REFRESH
static void refresh(struct pd_discovery *d)
{
    if (d->conf->fault == FAULT_REFRESH)
        d->kept = realloc(d->kept, ++d->looks * 4096);
    pd_timer_start(&d->timer, 0);
}
#endif

static void closed(struct pd_task *task, void *arg)
{
    struct pd_discovery *d = arg;
    (void)task;
    the_one = NULL;
    if (d->conf->fault == FAULT_LATE)
        pd_discovery_synced(d->sink);
    d->on_closed(d->arg);
    free(d->kept);
    if (d->conf->fault != FAULT_LEAK)
        free(d);
}

static void destroy(struct pd_discovery *d, void (*on_closed)(void *arg), void *arg)
{
    pd_timer_stop(&d->timer);
    d->on_closed = on_closed;
    d->arg = arg;
    pd_task_init(&d->task, "broken discovery", closed, d);
    pd_loop_defer(d->loop, &d->task);
}

#ifdef CLAIM_REFRESH
#define NAME "broken_claim"
#else
#define NAME "broken_discovery"
#endif

static const struct pd_discovery_ops ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1), .flags = PD_DISCOVERY_REFRESH,
    .create = create, .start = start, .destroy = destroy,
#ifndef CLAIM_REFRESH
    .refresh = refresh,
#endif
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_DISCOVERY, .name = NAME, .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose."),
    PD_UNIT_END
};

PD_MODULE(.name = NAME, .version = "1.0", .summary = "Test module.", .units = units)
