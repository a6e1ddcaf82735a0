/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket on a node of the simulator: slow and silent clients, the
 * commands that end a node, memory, and the end itself. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "ctl/priv.h"
#include "sim_nodes.h"

#define CONF "load = [ \"router\" ];\nlisten = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"

struct fixture {
    struct sim_cluster cluster;
    struct sim_node *n;
    struct pd_ctl *ctl;
    uint32_t drains, stops;
    bool is_closed;
};

struct client {
    struct pd_stream *stream;
    char text[1 << 16];
    size_t n;
    bool at_end, is_closed;
};

static void on_drain(void *arg)
{
    ((struct fixture *)arg)->drains++;
}

static void on_stop(void *arg)
{
    ((struct fixture *)arg)->stops++;
}

static void on_ctl_closed(void *arg)
{
    ((struct fixture *)arg)->is_closed = true;
}

static void begin(struct fixture *f)
{
    struct pd_err err = { 0 };
    memset(f, 0, sizeof *f);
    sim_cluster_init(&f->cluster, 5, NULL);
    f->n = sim_node_start(&f->cluster, "router", CONF);
    struct pd_ctl_params params = { .loop = f->n->loop, .log = f->n->log, .node = f->n->node, .path = "/ctl",
                                    .on_drain = on_drain, .on_stop = on_stop, .arg = f };
    assert_int_equal(pd_ctl_create(&params, &f->ctl, &err), PD_OK);
}

static void run(struct fixture *f, pd_time ns)
{
    pd_sim_run_until(f->cluster.sim, pd_sim_now(f->cluster.sim) + ns);
}

static void end(struct fixture *f)
{
    if (f->ctl != NULL)
        pd_ctl_destroy(f->ctl, on_ctl_closed, f);
    assert_false(f->is_closed);
    run(f, PD_SEC);
    assert_true(f->is_closed);
    sim_cluster_fini(&f->cluster);
}

static void on_readable(struct pd_stream *s, void *arg)
{
    struct client *c = arg;
    size_t got = 0;
    pd_status status = pd_stream_read(s, c->text + c->n, sizeof c->text - 1 - c->n, &got);
    if (status == PD_OK) {
        c->n += got;
        c->text[c->n] = '\0';
    } else if (status != PD_EAGAIN) {
        c->at_end = true;
        pd_stream_close(s);
    }
}

static void on_closed(struct pd_stream *s, void *arg)
{
    (void)s;
    ((struct client *)arg)->is_closed = true;
}

static void dial(struct fixture *f, struct client *c)
{
    static const struct pd_stream_events events = { .name = "client", .on_readable = on_readable,
                                                    .on_closed = on_closed };
    struct pd_addr addr = { .family = PD_AF_UNIX, .path = "/ctl" };
    memset(c, 0, sizeof *c);
    assert_int_equal(pd_stream_connect(f->n->loop, &addr, &events, c, &c->stream), PD_OK);
    run(f, PD_MS);
}

/* The simulator takes as little of a write as it likes. */
static void say(struct fixture *f, struct client *c, const char *text)
{
    size_t left = strlen(text), sent;
    while (left > 0) {
        pd_status status = pd_stream_write(c->stream, text, left, &sent);
        assert_true(status == PD_OK || status == PD_EAGAIN);
        if (status == PD_OK) {
            text += sent;
            left -= sent;
        }
        run(f, PD_MS);
    }
    run(f, 100 * PD_MS);
}

static void test_commands(void **state)
{
    struct fixture f;
    static struct client c;
    (void)state;
    begin(&f);
    dial(&f, &c);
    say(&f, &c, "sta");
    assert_int_equal(c.n, 0);
    say(&f, &c, "tus\nno");
    assert_memory_equal(c.text, "ok ", 3);
    assert_non_null(strstr(c.text, "\nnode     router\n"));
    say(&f, &c, "ne\n");
    assert_non_null(strstr(c.text, "error unknown command \"none\""));
    assert_int_equal(pd_ctl_stats(f.ctl)->commands, 1);
    assert_int_equal(pd_ctl_stats(f.ctl)->errors, 1);
    say(&f, &c, "drain\n");
    assert_int_equal(f.drains, 1);
    say(&f, &c, "drain\nstop\n");
    assert_true(f.stops == 1);
    assert_non_null(strstr(c.text, "ok 9\nstopping\n"));
    assert_false(c.at_end);
    end(&f);
    assert_true(c.is_closed);
}

static void test_silence(void **state)
{
    struct fixture f;
    static struct client quiet, busy;
    (void)state;
    begin(&f);
    dial(&f, &quiet);
    dial(&f, &busy);
    run(&f, 40 * PD_SEC);
    say(&f, &busy, "help\n");
    run(&f, 30 * PD_SEC);
    assert_true(quiet.is_closed);
    assert_false(busy.is_closed);
    run(&f, 40 * PD_SEC);
    assert_true(busy.is_closed);
    assert_int_equal(pd_ctl_stats(f.ctl)->timeouts, 2);
    assert_int_equal(pd_ctl_stats(f.ctl)->open, 0);
    end(&f);
}

/* A client that asks and asks but takes nothing holds one answer, for a while. */
static void test_greedy(void **state)
{
    struct fixture f;
    static struct client c;
    static char block[12 * 4096];
    size_t at = 0, sent;
    uint32_t refusals = 0;
    (void)state;
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = "help --json\n"[i % 12];
    begin(&f);
    dial(&f, &c);
    pd_stream_pause_read(c.stream);
    while (refusals < 100) {
        pd_status status = pd_stream_write(c.stream, block + at, sizeof block - at, &sent);
        refusals = status == PD_EAGAIN ? refusals + 1 : 0;
        at = status == PD_OK ? (at + sent) % sizeof block : at;
        run(&f, PD_MS);
    }
    uint64_t commands = pd_ctl_stats(f.ctl)->commands;
    assert_true(commands < 1000);
    run(&f, 30 * PD_SEC);
    assert_int_equal(pd_ctl_stats(f.ctl)->commands, commands);
    run(&f, 60 * PD_SEC);
    assert_int_equal(pd_ctl_stats(f.ctl)->timeouts, 1);
    assert_int_equal(pd_ctl_stats(f.ctl)->open, 0);
    pd_stream_close(c.stream);
    end(&f);
}

static void test_crowd(void **state)
{
    struct fixture f;
    static struct client c[40];
    uint32_t n_closed = 0;
    (void)state;
    begin(&f);
    for (uint32_t i = 0; i < 40; i++)
        dial(&f, &c[i]);
    run(&f, PD_SEC);
    for (uint32_t i = 0; i < 40; i++)
        n_closed += c[i].is_closed;
    assert_int_equal(n_closed, 8);
    assert_int_equal(pd_ctl_stats(f.ctl)->refused, 8);
    pd_ctl_destroy(f.ctl, on_ctl_closed, &f);
    f.ctl = NULL;
    run(&f, PD_SEC);
    for (uint32_t i = 0; i < 40; i++)
        assert_true(c[i].is_closed);
    assert_true(f.is_closed);
    sim_cluster_fini(&f.cluster);
}

static struct pd_err reload_says;

static pd_status on_reload(void *arg, struct pd_err *err)
{
    (void)arg;
    *err = reload_says;
    return reload_says.status;
}

/* The command ends like this, and says that. */
static void says(struct fixture *f, const char *command, bool is_good, const char *text)
{
    struct pd_buf body;
    struct pd_err err = { 0 };
    pd_buf_init(&body, PD_CTL_BODY_MAX);
    pd_status st = pd_ctl_run(f->ctl, pd_str_from(command), &body, &err);
    struct pd_str got = is_good ? pd_buf_str(&body) : pd_str_from(err.text);
    if ((st == PD_OK) != is_good || pd_str_find(got, pd_str_from(text)) == PD_STR_NPOS)
        fprintf(stderr, "# %s: %.*s %s\n", command, PD_STR_ARG(pd_buf_str(&body)), err.text);
    assert_int_equal(st == PD_OK, is_good);
    assert_true(pd_str_find(got, pd_str_from(text)) != PD_STR_NPOS);
    pd_buf_fini(&body);
}

/* What commands with words say, for people and for programs. */
static void test_words(void **state)
{
    static char longest[PD_CTL_LINE_MAX];
    struct fixture f;
    struct pd_err err = { 0 };
    (void)state;
    begin(&f);
    says(&f, "reload", false, "this node cannot reload");
    says(&f, "requests 0", false, "COUNT");
    says(&f, "requests x", false, "COUNT");
    says(&f, "requests 99999999", false, "COUNT");
    says(&f, "requests newest", true, "");
    says(&f, "requests 5 newest --json", true, "\"requests\"");
    says(&f, "requests slowest", true, "");
    says(&f, "discovery", true, "");
    says(&f, "discovery refresh", true, "");
    says(&f, "discovery destroy", false, "");
    says(&f, "help nothing", false, "unknown command \"nothing\"");
    says(&f, "help --json", true, "{");
    says(&f, "help status --json", true, "{");
    says(&f, "explain", false, "explain");
    says(&f, "explain 1 2", false, "explain");
    says(&f, "log", false, "log");
    says(&f, "log warn --json", true, "\"level\":\"warn\"");
    says(&f, "log info peer --json", true, "\"peer\"");
    memset(longest, 'n', sizeof longest - 1);
    memcpy(longest, "log info ", 9);
    says(&f, longest, false, "");
    says(&f, "generations --json", true, "{");
    pd_ctl_destroy(f.ctl, on_ctl_closed, &f);
    run(&f, PD_SEC);
    assert_true(f.is_closed);
    f.is_closed = false;
    struct pd_ctl_params params = { .loop = f.n->loop, .log = f.n->log, .node = f.n->node, .path = "/ctl2",
                                    .on_reload = on_reload, .on_drain = on_drain, .on_stop = on_stop, .arg = &f };
    assert_int_equal(pd_ctl_create(&params, &f.ctl, &err), PD_OK);
    reload_says = (struct pd_err){ .status = PD_OK };
    says(&f, "reload", true, "generation 1 is in use");
    says(&f, "reload --json", true, "\"generation\":1");
    reload_says = (struct pd_err){ .status = PD_EINVAL, .text = "wrong" };
    says(&f, "reload", false, "wrong");
    strcpy(reload_says.file, "pd.conf");
    says(&f, "reload", false, "pd.conf: wrong");
    reload_says.line = 7;
    strcpy(reload_says.hint, "mend it");
    says(&f, "reload", false, "pd.conf:7: wrong; mend it");
    /* A path that is none. */
    struct pd_ctl *none = NULL;
    params.path = longest;
    assert_true(pd_ctl_create(&params, &none, &err) < 0);
    params.path = "/ctl2";
    assert_true(pd_ctl_create(&params, &none, &err) < 0);       /* it is in use */
    assert_true(err.text[0] != '\0');
    for (uint64_t n = 1; n < 4; n++) {
        params.path = "/ctl3";
        pd_mem_fault_set(n);
        pd_status st = pd_ctl_create(&params, &none, &err);
        pd_mem_fault_set(0);
        if (st == PD_OK) {
            f.is_closed = false;
            pd_ctl_destroy(none, on_ctl_closed, &f);
            run(&f, PD_SEC);
            f.is_closed = false;
        }
        assert_true(st == PD_OK || err.text[0] != '\0');
    }
    end(&f);
}

/* Whichever allocation fails, a command has a whole answer or an error. */
static void test_memory(void **state)
{
    static const char *const commands[] = { "status", "status --json", "nodes", "endpoints", "requests", "transfers",
                                            "leases", "modules --json", "help", "explain 1", "log info" };
    struct fixture f;
    (void)state;
    begin(&f);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        struct pd_buf want, body;
        pd_buf_init(&want, PD_CTL_BODY_MAX);
        for (uint64_t n = 0; n < 12; n++) {
            struct pd_err err = { 0 };
            pd_buf_init(&body, PD_CTL_BODY_MAX);
            pd_mem_fault_set(n);
            pd_status status = pd_ctl_run(f.ctl, pd_str_from(commands[i]), n == 0 ? &want : &body, &err);
            pd_mem_fault_set(0);
            if (status != PD_OK)
                assert_true(err.text[0] != '\0');
            else if (n > 0)
                assert_true(body.n + 40 > want.n && body.n < want.n + 40);
            pd_buf_fini(&body);
        }
        pd_buf_fini(&want);
    }
    end(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_commands), cmocka_unit_test(test_silence), cmocka_unit_test(test_greedy),
    cmocka_unit_test(test_crowd),    cmocka_unit_test(test_memory),
    cmocka_unit_test(test_words),
};

PD_UNIT_MAIN(tests)
