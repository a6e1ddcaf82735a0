/* SPDX-License-Identifier: Apache-2.0 */
/* What sources say and what is made of it, on the simulator's clock: sets and
 * changes, refusals, lost and empty sources, storms, who keeps a name. */
#include "unit.h"

#include <pdplane/scheduler.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/url.h"
#include "discovery/sources.h"
#include "log/log.h"
#include "loop/sim.h"
#include "metric/metric.h"
#include "mod/host.h"

/* ---- a source whose words the test puts into its mouth -------------------------------------- */

struct pd_discovery {
    struct pd_loop *loop;
    struct pd_discovery_sink *sink;
    struct pd_task task;
    void (*on_closed)(void *arg);
    void *arg;
    uint32_t refreshes;
};

static struct pd_discovery *instances[4];
static uint32_t n_instances;

static pd_status fake_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                             struct pd_err *err)
{
    struct pd_discovery *d = calloc(1, sizeof *d);
    (void)conf;
    (void)err;
    assert_non_null(d);
    d->loop = ctx->loop;
    instances[n_instances++] = d;
    *out = d;
    return PD_OK;
}

static pd_status fake_start(struct pd_discovery *d, struct pd_discovery_sink *sink, struct pd_err *err)
{
    (void)err;
    d->sink = sink;
    return PD_OK;
}

static void fake_refresh(struct pd_discovery *d)
{
    d->refreshes++;
}

static void fake_closed(struct pd_task *task, void *arg)
{
    struct pd_discovery *d = arg;
    (void)task;
    d->on_closed(d->arg);
    free(d);
}

static void fake_destroy(struct pd_discovery *d, void (*on_closed)(void *arg), void *arg)
{
    d->on_closed = on_closed;
    d->arg = arg;
    pd_task_init(&d->task, "fake", fake_closed, d);
    pd_loop_defer(d->loop, &d->task);
}

static const struct pd_discovery_ops fake_ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1), .flags = PD_DISCOVERY_REFRESH,
    .create = fake_create, .start = fake_start, .refresh = fake_refresh, .destroy = fake_destroy,
};

/* ---- the world: a loop, and a node that writes down what it is told --------------------------- */

struct world {
    struct pd_sim *sim;
    struct pd_loop *loop;
    struct pd_metrics *metrics;
    struct pd_log *log;
    struct pd_host host;
    struct pd_sources *sources;
    struct pd_entry_rules rules;
    struct pd_network networks[2];
    char events[65536];         /* "+a", "*a", "<a" leaves, ">a" is back, "-a" */
    uint32_t n_events;
    const char *unusable;       /* this name cannot be used */
    uint32_t lines;             /* of the log at level warn or worse */
    char last_line[512];
    bool is_closed;
};

/* Of the log of each world. */
static int32_t log_level = PD_LOG_NOTICE;

static void note(struct world *w, char what, const char *name)
{
    size_t n = strlen(w->events);
    w->n_events++;
    if (n + 64 < sizeof w->events)
        snprintf(w->events + n, sizeof w->events - n, "%s%c%s", n > 0 ? " " : "", what, name);
}

static pd_status on_add(const struct pd_entry *e, const void *user, struct pd_err *err, void *arg)
{
    struct world *w = arg;
    assert_string_equal(user, "user");
    if (w->unusable != NULL && strcmp(e->name, w->unusable) == 0) {
        strcpy(err->text, "no adapter of type \"x\" is configured");
        return PD_ENOENT;
    }
    note(w, '+', e->name);
    return PD_OK;
}

static pd_status on_change(const struct pd_entry *before, const struct pd_entry *e, const void *user,
                           struct pd_err *err, void *arg)
{
    (void)err;
    (void)user;
    assert_string_equal(before->name, e->name);
    note(arg, '*', e->name);
    return PD_OK;
}

static void on_leave(const struct pd_entry *e, const void *user, bool is_leaving, void *arg)
{
    (void)user;
    note(arg, is_leaving ? '<' : '>', e->name);
}

static void on_remove(const struct pd_entry *e, const void *user, void *arg)
{
    (void)user;
    note(arg, '-', e->name);
}

static const struct pd_sources_events events = {
    .add = on_add, .change = on_change, .leave = on_leave, .remove = on_remove,
};

static void on_line(void *arg, int32_t level, struct pd_str line)
{
    struct world *w = arg;
    if (level <= PD_LOG_WARN)
        w->lines++;
    snprintf(w->last_line, sizeof w->last_line, "%.*s", PD_STR_ARG(line));
}

static void world_open(struct world *w)
{
    struct pd_log_config log = { .sink = PD_LOG_CALLBACK, .on_line = on_line, .on_line_arg = w,
                                 .level = log_level };
    struct pd_err err = { 0 };
    memset(w, 0, sizeof *w);
    n_instances = 0;
    assert_int_equal(pd_sim_create(1, NULL, &w->sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(w->sim, "a", NULL, &w->loop), PD_OK);
    assert_int_equal(pd_metrics_create(0, &w->metrics), PD_OK);
    assert_int_equal(pd_log_create(&log, &err, &w->log), PD_OK);
    pd_host_init(&w->host);
    struct pd_sources_params params = { .loop = w->loop, .log = w->log, .metrics = w->metrics,
                                        .host = &w->host, .events = &events, .arg = w };
    assert_int_equal(pd_sources_create(&params, &w->sources), PD_OK);
}

static void source_add(struct world *w, const char *name)
{
    struct pd_source_conf conf = { .name = name, .unit = "fake", .ops = &fake_ops, .rules = w->rules,
                                   .stale_ok = 60 * PD_SEC, .linger = 10 * PD_SEC, .max = 100,
                                   .user = "user" };
    struct pd_err err = { 0 };
    assert_int_equal(pd_sources_add(w->sources, &conf, &err), PD_OK);
}

static void start(struct world *w)
{
    struct pd_err err = { 0 };
    assert_int_equal(pd_sources_start(w->sources, &err), PD_OK);
}

static void on_closed(void *arg)
{
    ((struct world *)arg)->is_closed = true;
}

static void world_close(struct world *w)
{
    char names[256] = "";
    pd_sources_destroy(w->sources, on_closed, w);
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + PD_SEC);
    assert_true(w->is_closed);
    pd_metrics_destroy(w->metrics);
    pd_log_destroy(w->log);
    if (pd_loop_destroy(w->loop, names, sizeof names) != PD_OK)
        fail_msg("left open: %s", names);
    assert_int_equal(pd_sim_destroy(w->sim), PD_OK);
}

static void run(struct world *w, pd_time ns)
{
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + ns);
}

/* The events since the last call, in order of names (the order inside one
 * settling is nobody's business but that leaving comes before adding). */
static const char *since(struct world *w)
{
    static char out[8192];
    char *words[512];
    uint32_t n = 0;
    for (char *p = strtok(w->events, " "); p != NULL && n < 512; p = strtok(NULL, " "))
        words[n++] = p;
    for (uint32_t i = 1; i < n; i++) {
        for (uint32_t k = i; k > 0 && strcmp(words[k - 1], words[k]) > 0; k--) {
            char *t = words[k];
            words[k] = words[k - 1];
            words[k - 1] = t;
        }
    }
    out[0] = '\0';
    for (uint32_t i = 0; i < n; i++)
        snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s", i > 0 ? " " : "", words[i]);
    w->events[0] = '\0';
    return out;
}

static struct pd_discovery_entry entry(const char *name)
{
    static char address[8][64];
    static uint32_t turn;
    char *a = address[turn++ % 8];
    snprintf(a, 64, "http://%s.example:8000", name);
    return (struct pd_discovery_entry){ .size = sizeof(struct pd_discovery_entry),
                                        .what = PD_DISCOVERY_SERVER, .name = pd_str_from(name),
                                        .address = pd_str_from(a) };
}

static pd_status put(uint32_t i, const char *name)
{
    struct pd_discovery_entry e = entry(name);
    return pd_discovery_put(instances[i]->sink, &e);
}

/* A whole set, "a b c". */
static void set(uint32_t i, const char *names)
{
    char text[4096];
    snprintf(text, sizeof text, "%s", names);
    pd_discovery_begin(instances[i]->sink);
    for (char *p = strtok(text, " "); p != NULL; p = strtok(NULL, " "))
        put(i, p);
    pd_discovery_end(instances[i]->sink);
}

static struct pd_source_info info(struct world *w, uint32_t i)
{
    struct pd_source_info out;
    assert_true(pd_sources_info(w->sources, i, &out));
    return out;
}

static uint32_t entries(struct world *w, uint32_t state)
{
    struct pd_source_entry_info e;
    size_t cursor[2] = { 0, 0 };
    uint32_t n = 0;
    while (pd_sources_entry_next(w->sources, cursor, &e))
        n += e.state == state;
    return n;
}

static void world_one(struct world *w)
{
    world_open(w);
    source_add(w, "one");
    start(w);
}

/* ---- sets and changes ----------------------------------------------------------------------------- */

static void test_sets(void **state)
{
    struct world w;
    (void)state;
    world_one(&w);
    assert_int_equal(info(&w, 0).state, PD_SOURCE_STARTING);
    assert_true(info(&w, 0).synced_age == PD_TIME_NEVER);
    set(0, "a b c");
    assert_string_equal(since(&w), "");         /* never from inside of what the source calls */
    run(&w, PD_MS);
    assert_string_equal(since(&w), "+a +b +c");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_SYNCED);
    assert_int_equal(info(&w, 0).used, 3);
    set(0, "a b c");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "");
    assert_int_equal(info(&w, 0).updates, 3);
    set(0, "b d");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+d <a <c");
    assert_int_equal(info(&w, 0).leaving, 2);
    assert_int_equal(entries(&w, PD_SOURCE_ENTRY_LEAVING), 2);
    run(&w, 10 * PD_SEC);
    assert_string_equal(since(&w), "-a -c");
    assert_int_equal(info(&w, 0).leaving, 0);
    /* A set that was begun and not ended is worth nothing. */
    pd_discovery_begin(instances[0]->sink);
    put(0, "x");
    run(&w, PD_SEC);
    set(0, "b d");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "");
    assert_string_equal(pd_sources_of(w.sources, PD_STR("b")), "one");
    assert_null(pd_sources_of(w.sources, PD_STR("x")));
    pd_sources_refresh(w.sources);
    assert_int_equal(instances[0]->refreshes, 1);
    world_close(&w);
}

static void test_changes(void **state)
{
    struct world w;
    struct pd_discovery_entry e = entry("a");
    (void)state;
    world_one(&w);
    put(0, "a");
    put(0, "b");
    pd_discovery_synced(instances[0]->sink);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+a +b");
    e.weight = 50;
    pd_discovery_put(instances[0]->sink, &e);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "*a");
    /* Another epoch is another server. */
    e.epoch = 7;
    pd_discovery_put(instances[0]->sink, &e);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+a -a <a");
    /* So is another address. */
    e.address = PD_STR("http://elsewhere:1");
    pd_discovery_put(instances[0]->sink, &e);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+a -a <a");
    pd_discovery_remove(instances[0]->sink, PD_STR("b"));
    pd_discovery_remove(instances[0]->sink, PD_STR("nobody"));
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "<b");
    /* It comes back as it was: it only rested. */
    put(0, "b");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), ">b");
    /* Its address goes to another name: the old one is not waited for. */
    pd_discovery_remove(instances[0]->sink, PD_STR("b"));
    e = entry("b");
    e.name = PD_STR("c");
    pd_discovery_put(instances[0]->sink, &e);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+c -b <b");
    world_close(&w);
}

/* Half of 50 entries flap 200 times a second for ten seconds: the node hears of
 * it at most ten times a second, and nobody is made anew. */
static void test_storm(void **state)
{
    struct world w;
    char name[16];
    (void)state;
    world_one(&w);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "n%d", i);
        put(0, name);
    }
    pd_discovery_synced(instances[0]->sink);
    run(&w, PD_SEC);
    w.events[0] = '\0';
    w.n_events = 0;
    for (int turn = 0; turn < 2000; turn++) {
        for (int i = 0; i < 25; i++) {
            snprintf(name, sizeof name, "n%d", i);
            if (turn % 2 == 0)
                pd_discovery_remove(instances[0]->sink, pd_str_from(name));
            else
                put(0, name);
        }
        run(&w, 5 * PD_MS);
    }
    assert_true(w.n_events <= 25 * 101);
    assert_null(strchr(w.events, '+'));
    assert_null(strchr(w.events, '-'));
    assert_null(strchr(w.events, '*'));
    run(&w, PD_SEC);
    assert_int_equal(info(&w, 0).used, 50);
    assert_true(w.lines < 20);
    world_close(&w);
}

/* ---- lost, empty ------------------------------------------------------------------------------------ */

static void test_lost(void **state)
{
    struct world w;
    (void)state;
    world_one(&w);
    set(0, "a b");
    run(&w, PD_SEC);
    since(&w);
    for (int i = 0; i < 50; i++) {
        pd_discovery_lost(instances[0]->sink, "no route\nto it");
        run(&w, PD_SEC);
    }
    assert_string_equal(since(&w), "");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_LOST);
    assert_int_equal(info(&w, 0).losses, 1);
    assert_string_equal(info(&w, 0).why, "no route to it");
    assert_true(info(&w, 0).stays <= 10 * PD_SEC);
    assert_int_equal(w.lines, 1);               /* one line for one loss */
    pd_discovery_synced(instances[0]->sink);    /* nothing had changed */
    run(&w, 100 * PD_SEC);
    assert_string_equal(since(&w), "");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_SYNCED);
    pd_discovery_lost(instances[0]->sink, "again");
    run(&w, 59 * PD_SEC);
    assert_string_equal(since(&w), "");
    run(&w, 2 * PD_SEC);
    assert_string_equal(since(&w), "<a <b");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_GIVEN_UP);
    set(0, "b c");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+c >b");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_SYNCED);
    /* Half a set, then the loss of it. */
    pd_discovery_begin(instances[0]->sink);
    put(0, "x");
    pd_discovery_lost(instances[0]->sink, "cut");
    run(&w, PD_SEC);
    assert_int_equal(info(&w, 0).entries, 2);
    pd_discovery_synced(instances[0]->sink);
    run(&w, 100 * PD_SEC);
    assert_int_equal(info(&w, 0).used, 2);
    world_close(&w);
}

/* Nonsense, say a file with a mistake, ends nothing however long it stays. */
static void test_broken(void **state)
{
    struct world w;
    (void)state;
    world_one(&w);
    set(0, "a b");
    run(&w, PD_SEC);
    since(&w);
    for (int i = 0; i < 300; i++) {
        pd_discovery_broken(instances[0]->sink, i < 200 ? "x.json:1: what" : "x.json:2: what");
        run(&w, PD_SEC);
    }
    assert_string_equal(since(&w), "");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_BROKEN);
    assert_int_equal(info(&w, 0).losses, 1);
    assert_int_equal(w.lines, 2);               /* one for each mistake */
    set(0, "a");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "<b");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_SYNCED);
    /* A source that was lost before keeps its time no longer than it can be read. */
    pd_discovery_lost(instances[0]->sink, "gone");
    run(&w, 30 * PD_SEC);
    pd_discovery_broken(instances[0]->sink, "what");
    run(&w, 100 * PD_SEC);
    assert_int_equal(info(&w, 0).used, 1);
    world_close(&w);
}

static void test_empty(void **state)
{
    struct world w;
    (void)state;
    world_one(&w);
    set(0, "");                                 /* empty from the start is nothing special */
    assert_int_equal(info(&w, 0).state, PD_SOURCE_SYNCED);
    set(0, "a b");
    run(&w, PD_SEC);
    since(&w);
    for (int i = 0; i < 59; i++) {
        set(0, "");
        run(&w, PD_SEC);
    }
    assert_string_equal(since(&w), "");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_EMPTY);
    set(0, "a");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "<b");
    /* The last one of a source that tells changes. */
    pd_discovery_remove(instances[0]->sink, PD_STR("a"));
    pd_discovery_synced(instances[0]->sink);
    run(&w, 59 * PD_SEC);
    assert_string_equal(since(&w), "-b");
    put(0, "c");                                /* it names something else: a is not held any more */
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+c <a");
    pd_discovery_remove(instances[0]->sink, PD_STR("c"));
    run(&w, 61 * PD_SEC);
    assert_string_equal(since(&w), "-a <c");
    assert_int_equal(info(&w, 0).state, PD_SOURCE_SYNCED);
    world_close(&w);
}

/* ---- refusals ---------------------------------------------------------------------------------------- */

static void lies(struct pd_discovery_entry *e, const char *what, const char *why)
{
    struct pd_entry *out = NULL;
    struct pd_entry_rules rules = { .role_label = "llm-d.ai/role" };
    char text[160] = "";
    pd_status status = pd_entry_make(e, &rules, &out, text, sizeof text);
    if (status != PD_EINVAL || strstr(text, why) == NULL)
        fail_msg("%s: status %d, \"%s\"", what, status, text);
    *e = entry("a");
}

static void test_invalid(void **state)
{
    static const char *const addresses[] = {
        "", "a:80", "http://", "http://:80", "http://a:0", "http://a:65536", "http://a:99999999999999999999",
        "http://a:8 0", "http://a/x", "http://u@a", "http://a\n:1", "ftp://a:1", "http://[::1", "http://[x]:1",
        "http://[::1]x", "http://a:-1", "http://0.0.0.0:80", "http://255.255.255.255:80",
        "http://224.0.0.1:80", "http://169.254.169.254", "http://[::]:80", "http://[ff02::1]:80",
        "http://[fe80::1]:80", "http://[::ffff:169.254.169.254]:80",
    };
    struct pd_discovery_entry e = entry("a");
    static char big[400];
    struct pd_str many[PD_DISCOVERY_MODELS_MAX + 1];
    struct pd_discovery_label labels[PD_DISCOVERY_LABELS_MAX + 1];
    (void)state;
    memset(big, 'x', sizeof big - 1);
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        e.address = pd_str_from(addresses[i]);
        lies(&e, addresses[i], "address");
    }
    e.what = PD_DISCOVERY_PEER, lies(&e, "url of a peer", "not HOST:PORT");
    e.what = PD_DISCOVERY_PEER, e.address = PD_STR("a"), lies(&e, "peer without port", "HOST:PORT");
    e.what = 3, lies(&e, "what", "neither");
    e.size = 8, lies(&e, "size", "size");
    e.name = PD_STR(""), lies(&e, "no name", "name");
    e.name = PD_STR("a b"), lies(&e, "blank in name", "name");
    e.name = pd_str_of("a\0b", 3), lies(&e, "zero in name", "name");
    e.name = PD_STR("a\"b"), lies(&e, "quote in name", "name");
    e.name = pd_str_of(big, PD_DISCOVERY_NAME_MAX + 1), lies(&e, "long name", "name");
    e.address = pd_str_of(big, PD_DISCOVERY_ADDRESS_MAX + 1), lies(&e, "long address", "too long");
    e.type = PD_STR("a\nb"), lies(&e, "type", "type");
    e.roles = PD_ROLE_ROUTER, lies(&e, "roles", "roles");
    e.roles = 0x80000000u, lies(&e, "roles", "roles");
    e.weight = PD_DISCOVERY_WEIGHT_MAX + 1, lies(&e, "weight", "weight");
    e.weight = UINT32_MAX, lies(&e, "weight", "weight");
    for (uint32_t i = 0; i <= PD_DISCOVERY_MODELS_MAX; i++)
        many[i] = PD_STR("m");
    e.models = many, e.n_models = PD_DISCOVERY_MODELS_MAX + 1, lies(&e, "models", "too many models");
    e.models = NULL, e.n_models = 1, lies(&e, "models", "models");
    many[0] = pd_str_of(big, PD_DISCOVERY_MODEL_MAX + 1);
    e.models = many, e.n_models = 1, lies(&e, "model", "model");
    many[0] = PD_STR("a\033[2Jb");
    e.models = many, e.n_models = 1, lies(&e, "model", "model");
    for (uint32_t i = 0; i <= PD_DISCOVERY_LABELS_MAX; i++)
        labels[i] = (struct pd_discovery_label){ PD_STR("k"), PD_STR("v") };
    e.labels = labels, e.n_labels = PD_DISCOVERY_LABELS_MAX + 1, lies(&e, "labels", "too many labels");
    labels[0].value = pd_str_of(big, PD_DISCOVERY_VALUE_MAX + 1);
    e.labels = labels, e.n_labels = 1, lies(&e, "label", "label");
    labels[0] = (struct pd_discovery_label){ PD_STR("llm-d.ai/role"), PD_STR("king") };
    e.labels = labels, e.n_labels = 1, lies(&e, "role label", "names no role");
    labels[0].value = PD_STR("encode");
    e.labels = labels, e.n_labels = 1, lies(&e, "role label", "names no role");
    e.type = pd_str_of(big, 64), lies(&e, "long type", "type");
    e.labels = NULL, e.n_labels = 1, lies(&e, "labels", "labels");
    many[0] = PD_STR("");
    e.models = many, e.n_models = 1, lies(&e, "empty model", "model");
    static const struct pd_str odd[] = { PD_STR(""), PD_STR("a\177"), PD_STR("a\"b"), PD_STR("a\\b") };
    for (size_t i = 0; i < 4; i++) {
        labels[0] = (struct pd_discovery_label){ odd[i], PD_STR("v") };
        e.labels = labels, e.n_labels = 1, lies(&e, "key of a label", "label");
    }
    labels[0] = (struct pd_discovery_label){ pd_str_of(big, PD_DISCOVERY_KEY_MAX + 1), PD_STR("v") };
    e.labels = labels, e.n_labels = 1, lies(&e, "long key", "label");
    labels[0] = (struct pd_discovery_label){ PD_STR("k"), PD_STR("a\nb") };
    e.labels = labels, e.n_labels = 1, lies(&e, "value of a label", "label");
    e.address = PD_STR("http://[fe80::1%eth0]:80"), lies(&e, "scope", "address");
    e.address = PD_STR("http://[1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21:22:23:24:25:26:27]:80");
    lies(&e, "long IPv6", "address");
    static const char *const names[] = { "a`", "a{", "a@", "a[b", "a;", "a,", "\x80" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        e.name = pd_str_from(names[i]);
        if (names[i][1] != '[')
            lies(&e, names[i], "name");
    }
}

static struct pd_entry *made(const struct pd_discovery_entry *from)
{
    static const struct pd_entry_rules rules = { .model_label = "model" };
    struct pd_entry *out = NULL;
    char why[160];
    assert_int_equal(pd_entry_make(from, &rules, &out, why, sizeof why), PD_OK);
    return out;
}

/* Each member makes another entry of it. */
static void test_equal(void **state)
{
    struct pd_str models[] = { PD_STR("m"), PD_STR("n") }, other_models[] = { PD_STR("m"), PD_STR("o") };
    struct pd_discovery_label labels[] = { { PD_STR("k"), PD_STR("v") }, { PD_STR("l"), PD_STR("w") } };
    struct pd_discovery_label key[] = { { PD_STR("k"), PD_STR("v") }, { PD_STR("x"), PD_STR("w") } };
    struct pd_discovery_label value[] = { { PD_STR("k"), PD_STR("v") }, { PD_STR("l"), PD_STR("x") } };
    struct pd_discovery_entry base = entry("a"), e;
    (void)state;
    base.models = models, base.n_models = 2, base.labels = labels, base.n_labels = 2;
    base.type = PD_STR("vllm"), base.weight = 3, base.epoch = 5, base.roles = PD_ROLE_DECODE;
    struct pd_entry *first = made(&base);
    struct pd_discovery_entry all[11];
    for (size_t i = 0; i < 11; i++)
        all[i] = base;
    all[1].what = PD_DISCOVERY_PEER, all[1].address = PD_STR("a.example:8000");
    all[2].epoch = 6, all[3].roles = PD_ROLE_PREFILL, all[4].weight = 4, all[5].name = PD_STR("b");
    all[6].address = PD_STR("http://other:1"), all[7].type = PD_STR("openai"), all[8].models = other_models;
    all[9].labels = key, all[10].labels = value;
    for (size_t i = 0; i < 11; i++) {
        struct pd_entry *second = made(&all[i]);
        assert_int_equal(pd_entry_equal(first, second), i == 0);
        pd_entry_put(second);
    }
    e = base, e.n_models = 1;
    struct pd_entry *second = made(&e);
    assert_false(pd_entry_equal(first, second));
    pd_entry_put(second);
    e = base, e.n_labels = 1;
    second = made(&e);
    assert_false(pd_entry_equal(first, second));
    pd_entry_put(second);
    pd_entry_put(first);
    /* The label of a model counts where no model is named, and must be one. */
    static char big[PD_DISCOVERY_VALUE_MAX + 1];
    memset(big, 'x', sizeof big);
    labels[0] = (struct pd_discovery_label){ PD_STR("model"), PD_STR("") };
    e = base, e.n_models = 0;
    second = made(&e);
    assert_int_equal(second->n_models, 0);
    pd_entry_put(second);
    pd_entry_put(NULL);
    pd_mem_fault_set(1);
    struct pd_entry *none = NULL;
    struct pd_entry_rules rules = { 0 };
    char why[160];
    assert_int_equal(pd_entry_make(&base, &rules, &none, why, sizeof why), PD_ENOMEM);
    pd_mem_fault_set(0);
}

static uint32_t role_of(const char *value)
{
    struct pd_discovery_entry e = entry("a");
    struct pd_discovery_label label = { PD_STR("role"), pd_str_from(value) };
    struct pd_entry_rules rules = { .role_label = "role", .model_label = "model" };
    struct pd_entry *out = NULL;
    char why[160];
    e.labels = &label;
    e.n_labels = 1;
    assert_int_equal(pd_entry_make(&e, &rules, &out, why, sizeof why), PD_OK);
    uint32_t roles = out->roles;
    pd_entry_put(out);
    return roles;
}

static void test_labels(void **state)
{
    const uint32_t p = PD_ROLE_PREFILL, d = PD_ROLE_DECODE;
    struct pd_discovery_entry e = entry("a");
    struct pd_discovery_label labels[] = { { PD_STR("model"), PD_STR("tiny") }, { PD_STR("x"), PD_STR("") } };
    struct pd_entry_rules rules = { .model_label = "model" };
    struct pd_entry *out = NULL;
    char why[160];
    (void)state;
    assert_int_equal(role_of("prefill"), p);
    assert_int_equal(role_of("decode"), d);
    assert_int_equal(role_of("both"), p | d);
    assert_int_equal(role_of("prefill-decode"), p | d);
    assert_int_equal(role_of("encode-prefill-decode"), p | d);
    assert_int_equal(role_of("encode-decode"), d);
    assert_int_equal(role_of(""), 0);
    e.labels = labels;
    e.n_labels = 2;
    assert_int_equal(pd_entry_make(&e, &rules, &out, why, sizeof why), PD_OK);
    assert_int_equal(out->n_models, 1);
    assert_string_equal(out->models[0], "tiny");
    assert_null(out->models[1]);
    assert_string_equal(out->labels[0].key, "model");
    assert_string_equal(out->labels[1].value, "");
    pd_entry_put(out);
}

static bool is_allowed(const char *network, const char *address)
{
    struct pd_network net;
    struct pd_entry_rules rules = { .networks = &net, .n_networks = 1 };
    struct pd_discovery_entry e = entry("a");
    struct pd_entry *out = NULL;
    char why[160];
    assert_int_equal(pd_network_parse(pd_str_from(network), &net), PD_OK);
    e.address = pd_str_from(address);
    bool is_ok = pd_entry_make(&e, &rules, &out, why, sizeof why) == PD_OK;
    pd_entry_put(out);
    return is_ok;
}

static void test_networks(void **state)
{
    static const char *const bad[] = { "", "10.0.0.0/33", "10.0.0/8", "::/129", "x/8", "10.0.0.0/", "fe80::1%eth0/64",
                                       "10.0.0.0/-1", "10.0.0.0/8x" };
    struct pd_network net;
    (void)state;
    assert_true(is_allowed("10.0.0.0/8", "http://10.255.0.1:80"));
    assert_false(is_allowed("10.0.0.0/8", "http://11.0.0.1:80"));
    assert_false(is_allowed("10.0.0.0/8", "http://a.example:80"));
    assert_false(is_allowed("10.0.0.0/8", "http://[::1]:80"));
    assert_true(is_allowed("10.0.0.0/8", "http://[::ffff:10.0.0.1]:80"));
    assert_true(is_allowed("192.168.4.0/22", "http://192.168.7.255"));
    assert_false(is_allowed("192.168.4.0/22", "http://192.168.8.0"));
    assert_true(is_allowed("127.0.0.1", "http://127.0.0.1"));
    assert_false(is_allowed("127.0.0.1", "http://127.0.0.2"));
    assert_true(is_allowed("fd00::/8", "https://[fd12::1]:443/"));
    assert_false(is_allowed("fd00::/8", "https://[fe12::1]:443/"));
    assert_true(is_allowed("0.0.0.0/0", "http://169.254.1.1"));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(pd_network_parse(pd_str_from(bad[i]), &net), PD_EINVAL);
}

static void test_urls(void **state)
{
    struct pd_url u;
    (void)state;
    assert_int_equal(pd_url_parse(PD_STR("https://h.example/"), &u), PD_OK);
    assert_true(u.is_tls && u.port == 443 && pd_str_is(u.host, "h.example"));
    assert_int_equal(pd_url_parse(PD_STR("http://[::1]:8080"), &u), PD_OK);
    assert_true(!u.is_tls && u.is_v6 && u.port == 8080 && pd_str_is(u.host, "::1"));
    assert_int_equal(pd_url_parse(PD_STR("http://h"), &u), PD_OK);
    assert_int_equal(u.port, 80);
    assert_int_equal(pd_url_authority_parse(PD_STR("h:7000"), &u), PD_OK);
    assert_int_equal(u.port, 7000);
    assert_int_equal(pd_url_authority_parse(PD_STR("h"), &u), PD_EINVAL);
    assert_int_equal(pd_url_authority_parse(PD_STR("h:"), &u), PD_EINVAL);
}

/* A bad entry costs itself, not the others, and not what was good before. */
static void test_refused(void **state)
{
    struct world w;
    struct pd_discovery_entry e;
    (void)state;
    world_one(&w);
    set(0, "a b");
    run(&w, PD_SEC);
    since(&w);
    for (int i = 0; i < 20; i++) {
        pd_discovery_begin(instances[0]->sink);
        assert_int_equal(put(0, "a"), PD_OK);
        e = entry("b");
        e.weight = UINT32_MAX;
        assert_int_equal(pd_discovery_put(instances[0]->sink, &e), PD_EINVAL);
        e = entry("bad");
        e.address = PD_STR("http://169.254.169.254/");
        assert_int_equal(pd_discovery_put(instances[0]->sink, &e), PD_EINVAL);
        e = entry("a\nfake log line");
        assert_int_equal(pd_discovery_put(instances[0]->sink, &e), PD_EINVAL);
        assert_int_equal(put(0, "a"), PD_EEXIST);
        assert_int_equal(put(0, "c"), PD_OK);
        pd_discovery_end(instances[0]->sink);
        run(&w, PD_SEC);
    }
    assert_string_equal(since(&w), "+c");
    assert_int_equal(info(&w, 0).refused, 80);
    assert_int_equal(w.lines, 4);               /* each once, however often it is said */
    assert_non_null(strstr(info(&w, 0).why, "left out"));
    world_close(&w);
}

static void test_limit(void **state)
{
    struct world w;
    char name[16];
    (void)state;
    world_one(&w);
    pd_discovery_begin(instances[0]->sink);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(put(0, name), PD_OK);
    }
    assert_int_equal(put(0, "more"), PD_ELIMIT);
    pd_discovery_end(instances[0]->sink);
    run(&w, PD_SEC);
    assert_int_equal(info(&w, 0).used, 100);
    assert_int_equal(info(&w, 0).refused, 1);
    world_close(&w);
}

static void test_unusable(void **state)
{
    struct world w;
    (void)state;
    world_one(&w);
    w.unusable = "b";
    set(0, "a b");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+a");
    assert_int_equal(entries(&w, PD_SOURCE_ENTRY_REFUSED), 1);
    assert_int_equal(w.lines, 1);
    set(0, "a b c");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+c");
    assert_int_equal(w.lines, 1);
    w.unusable = NULL;                          /* what stood in its way has gone */
    pd_sources_settle(w.sources);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+b");
    assert_int_equal(entries(&w, PD_SOURCE_ENTRY_USED), 3);
    world_close(&w);
}

/* ---- several sources ------------------------------------------------------------------------------------ */

static void test_two_sources(void **state)
{
    struct world w;
    struct pd_discovery_entry e;
    (void)state;
    world_open(&w);
    source_add(&w, "one");
    source_add(&w, "two");
    start(&w);
    set(0, "a b");
    set(1, "b c");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+a +b +c");
    assert_string_equal(pd_sources_of(w.sources, PD_STR("b")), "one");
    assert_int_equal(info(&w, 1).refused, 1);
    assert_int_equal(info(&w, 1).used, 1);
    /* The same server under another name counts as well. */
    e = entry("a");
    e.name = PD_STR("twin");
    pd_discovery_put(instances[1]->sink, &e);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "");
    assert_int_equal(info(&w, 1).refused, 2);
    /* A peer is no server, even there. */
    e.what = PD_DISCOVERY_PEER;
    e.name = PD_STR("peer");
    e.address = PD_STR("a.example:8000");
    pd_discovery_put(instances[1]->sink, &e);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+peer");
    /* Whoever comes later keeps nothing from the first; when that one lets go, it does. */
    set(0, "a");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+b -b <b");
    assert_string_equal(pd_sources_of(w.sources, PD_STR("b")), "two");
    set(0, "a b");
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "");
    assert_string_equal(pd_sources_of(w.sources, PD_STR("b")), "two");
    /* One source that is given up takes nothing of the other. */
    pd_discovery_lost(instances[1]->sink, "gone");
    run(&w, 61 * PD_SEC);
    assert_string_equal(since(&w), "+b -b <b <c <peer");
    assert_string_equal(pd_sources_of(w.sources, PD_STR("b")), "one");
    world_close(&w);
}

/* A module that breaks the rules of the sink harms nothing. */
static void test_misuse(void **state)
{
    struct world w;
    (void)state;
    world_one(&w);
    pd_discovery_end(instances[0]->sink);
    assert_int_equal(w.lines, 1);
    pd_discovery_begin(instances[0]->sink);
    put(0, "a");
    pd_discovery_remove(instances[0]->sink, PD_STR("a"));
    assert_int_equal(w.lines, 2);
    pd_discovery_begin(instances[0]->sink);
    put(0, "b");
    pd_discovery_end(instances[0]->sink);
    run(&w, PD_SEC);
    assert_string_equal(since(&w), "+b");
    world_close(&w);
}

/* A whole life of a source: entries, changes, refusals, a loss, an end, a return. */
static void life(struct world *w)
{
    struct pd_discovery_entry e = entry("a");
    set(0, "a b c");
    run(w, PD_SEC);
    e.weight = 7;
    pd_discovery_put(instances[0]->sink, &e);
    e = entry("a\nb");
    pd_discovery_put(instances[0]->sink, &e);
    pd_discovery_remove(instances[0]->sink, PD_STR("c"));
    run(w, PD_SEC);
    set(0, "b d e f");
    run(w, 20 * PD_SEC);
    pd_discovery_lost(instances[0]->sink, "no route");
    run(w, 10 * PD_SEC);
    set(0, "b");
    run(w, PD_SEC);
    set(0, "");
    run(w, 20 * PD_SEC);
    set(0, "b");
    run(w, PD_SEC);
    pd_discovery_end(instances[0]->sink);
    pd_discovery_begin(instances[0]->sink);
    pd_discovery_remove(instances[0]->sink, PD_STR("b"));
    pd_discovery_broken(instances[0]->sink, "line 3 is no JSON");
    run(w, PD_SEC);
    pd_discovery_lost(instances[0]->sink, "no route");
    run(w, 100 * PD_SEC);
}

/* A log that is shut says nothing, and all goes as with one. */
static void test_quiet(void **state)
{
    struct world loud, quiet;
    char want[sizeof loud.events];
    (void)state;
    world_one(&loud);
    life(&loud);
    memcpy(want, loud.events, sizeof want);
    assert_true(loud.lines > 3);
    world_close(&loud);
    log_level = -1;
    world_one(&quiet);
    life(&quiet);
    assert_int_equal(quiet.lines, 0);
    assert_string_equal(quiet.events, want);
    log_level = PD_LOG_NOTICE;
    world_close(&quiet);
}

/* Whichever allocation of its life fails: what the source says afterwards is in use, and
 * nothing is left at the end. */
static void test_no_memory(void **state)
{
    bool failed = true;
    (void)state;
    for (uint64_t n = 1; failed; n++) {
        struct world w;
        world_one(&w);
        uint64_t before = pd_mem_count();
        pd_mem_fault_set(n);
        life(&w);
        pd_mem_fault_set(0);
        failed = pd_mem_count() - before >= n;
        set(0, "a b c");
        run(&w, 30 * PD_SEC);
        assert_int_equal(info(&w, 0).used, 3);
        assert_int_equal(entries(&w, PD_SOURCE_ENTRY_REFUSED), 0);
        world_close(&w);
    }
}

/* A node that ends hears nothing any more of a source that goes on talking. */
static void test_late(void **state)
{
    struct world w;
    struct pd_source_info none;
    (void)state;
    world_one(&w);
    set(0, "a b");
    run(&w, PD_SEC);
    since(&w);
    assert_false(pd_sources_info(w.sources, 1, &none));
    struct pd_discovery_sink *sink = instances[0]->sink;
    pd_sources_destroy(w.sources, on_closed, &w);
    struct pd_discovery_entry late = entry("late");
    pd_discovery_begin(sink);
    pd_discovery_put(sink, &late);
    pd_discovery_remove(sink, PD_STR("a"));
    pd_discovery_end(sink);
    pd_discovery_synced(sink);
    pd_discovery_lost(sink, "late");
    pd_discovery_broken(sink, "late");
    pd_sources_settle(w.sources);
    pd_sources_refresh(w.sources);
    run(&w, PD_SEC);
    assert_true(w.is_closed);
    assert_null(strstr(since(&w), "late"));
    pd_metrics_destroy(w.metrics);
    pd_log_destroy(w.log);
    assert_int_equal(pd_loop_destroy(w.loop, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(w.sim), PD_OK);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_quiet),
    cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_late),
    cmocka_unit_test(test_sets),
    cmocka_unit_test(test_changes),
    cmocka_unit_test(test_storm),
    cmocka_unit_test(test_lost),
    cmocka_unit_test(test_broken),
    cmocka_unit_test(test_empty),
    cmocka_unit_test(test_invalid),
    cmocka_unit_test(test_equal),
    cmocka_unit_test(test_labels),
    cmocka_unit_test(test_networks),
    cmocka_unit_test(test_urls),
    cmocka_unit_test(test_refused),
    cmocka_unit_test(test_limit),
    cmocka_unit_test(test_unusable),
    cmocka_unit_test(test_two_sources),
    cmocka_unit_test(test_misuse),
};
PD_UNIT_MAIN(tests)
