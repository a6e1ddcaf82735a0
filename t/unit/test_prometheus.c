/* SPDX-License-Identifier: Apache-2.0 */
/* The exporter prometheus: the registry as text, in both formats. */
#include "unit.h"

#include <pdplane/exporter.h>

#include "base/buf.h"
#include "loop/uv.h"
#include "metric/metric.h"
#include "mod/host.h"
#include "mod/mod.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>

static const char *const two_labels[] = { "peer", "verdict" };
static const double bounds[] = { 0.5, 1, 1000000 };

#define DESC(...) (struct pd_metric_desc){ .size = sizeof(struct pd_metric_desc), __VA_ARGS__ }

static struct pd_metrics *make(void)
{
    struct pd_metrics *m = NULL;
    assert_int_equal(pd_metrics_create(0, &m), PD_OK);
    return m;
}

static struct pd_metric_family *family(struct pd_metrics *m, int32_t kind,
                                       struct pd_metric_desc desc)
{
    struct pd_metric_family *f = NULL;
    struct pd_err err;
    if (pd_metrics_family(m, kind, &desc, &err, &f) != PD_OK)
        fail_msg("%s", err.text);
    return f;
}

static struct pd_mods *mods;
static const struct pd_exporter_ops *ops;
static struct pd_loop *loop;

struct answer {
    struct pd_export_answer pub;
    struct pd_buf buf;
};

static pd_status answer_write(struct pd_export_answer *pub, const void *bytes, size_t n)
{
    struct answer *a = (struct answer *)(void *)pub;
    pd_buf_append(&a->buf, bytes, n);
    return a->buf.status;
}

struct options {                /* as filled from the rows */
    const char *path;
};

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

/* One answer with room for so many bytes. */
static pd_status ask(struct pd_metrics *m, const char *accept, size_t room, struct answer *a)
{
    static const struct pd_export_answer_ops answer_ops = { .size = sizeof answer_ops,
                                                            .write = answer_write };
    static const struct options options = { .path = "/metrics" };
    const struct pd_instance_ctx ctx = { .size = sizeof ctx, .name = "prometheus", .loop = loop, .metrics = m };
    const struct pd_export_request request = { .size = sizeof request,
                                               .accept = { accept, strlen(accept) } };
    struct pd_exporter *e = NULL;
    struct pd_err err = { 0 };
    bool closed = false;
    memset(a, 0, sizeof *a);
    a->pub.ops = &answer_ops;
    pd_buf_init(&a->buf, room);
    assert_int_equal(ops->create(&ctx, &options, &e, &err), PD_OK);
    assert_string_equal(ops->path(e), "/metrics");
    pd_status st = ops->serve(e, &request, &a->pub);
    ops->destroy(e, on_closed, &closed);
    for (int i = 0; i < 10 && !closed; i++)
        assert_int_equal(pd_loop_uv_turn(loop, PD_MS), PD_OK);
    assert_true(closed);
    return st;
}

#define PLAIN ""
#define OPEN "text/plain;q=0.5, application/openmetrics-text; version=1.0.0"

static void expect(struct pd_metrics *m, const char *accept, const char *want)
{
    struct answer a;
    assert_int_equal(ask(m, accept, 100000, &a), PD_OK);
    assert_string_equal(pd_buf_cstr(&a.buf), want);
    assert_non_null(strstr(a.pub.type, accept[0] == '\0' ? "0.0.4" : "openmetrics"));
    pd_buf_fini(&a.buf);
}

static double give_value(void *arg)
{
    return *(double *)arg;
}

static struct pd_metrics *fill(double *value)
{
    struct pd_metrics *m = make();
    struct pd_metric_family *f = family(m, PD_METRIC_COUNTER, DESC(
        .name = "pdplane_z_total", .help = "A \"z\" \\ of\nlines.", .labels = two_labels,
        .n_labels = 2));
    pd_counter_add(pd_metrics_counter(m, f, (const char *const[]){ "d3", "ok" }), UINT64_MAX);
    pd_counter_inc(pd_metrics_counter(m, f, (const char *const[]){ "a\"\\\n\xff\xc3\xa4", NULL }));
    f = family(m, PD_METRIC_GAUGE, DESC(.name = "pdplane_g", .help = "G."));
    pd_gauge_set(pd_metrics_gauge(m, f, NULL), 2.5);
    pd_gauge_add(pd_metrics_gauge(m, f, NULL), -3);
    f = family(m, PD_METRIC_GAUGE, DESC(.name = "pdplane_f", .help = "F.", .labels = two_labels,
                                        .n_labels = 1));
    assert_int_equal(pd_metrics_gauge_fn(m, f, (const char *const[]){ "x" }, give_value, value),
                     PD_OK);
    f = family(m, PD_METRIC_HISTOGRAM, DESC(.name = "pdplane_h_seconds", .help = "H.",
                                            .bounds = bounds, .n_bounds = 3));
    struct pd_histogram *h = pd_metrics_histogram(m, f, NULL);
    pd_histogram_observe(h, 0.5);
    pd_histogram_observe(h, 0.75);
    pd_histogram_observe(h, -1);
    pd_histogram_observe(h, 1e9);
    pd_histogram_observe(h, (double)NAN);
    pd_histogram_observe_ns(h, 750 * PD_MS);
    return m;
}

#define BODY                                                                   \
    "pdplane_h_seconds_bucket{le=\"0.5\"} 2\n"                                 \
    "pdplane_h_seconds_bucket{le=\"1.0\"} 4\n"                                 \
    "pdplane_h_seconds_bucket{le=\"1000000.0\"} 4\n"                           \
    "pdplane_h_seconds_bucket{le=\"+Inf\"} 5\n"                                \
    "pdplane_h_seconds_sum 1000000001\n"                                     \
    "pdplane_h_seconds_count 5\n"

static void test_expose(void **state)
{
    (void)state;
    double value = (double)INFINITY;
    struct pd_metrics *m = fill(&value);
    expect(m, PLAIN,
           "# HELP pdplane_f F.\n# TYPE pdplane_f gauge\npdplane_f{peer=\"x\"} +Inf\n"
           "# HELP pdplane_g G.\n# TYPE pdplane_g gauge\npdplane_g -0.5\n"
           "# HELP pdplane_h_seconds H.\n# TYPE pdplane_h_seconds histogram\n" BODY
           "# HELP pdplane_metric_folded_total Look-ups of label values folded into \"other\".\n"
           "# TYPE pdplane_metric_folded_total counter\npdplane_metric_folded_total 0\n"
           "# HELP pdplane_z_total A \"z\" \\\\ of\\nlines.\n# TYPE pdplane_z_total counter\n"
           "pdplane_z_total{peer=\"d3\",verdict=\"ok\"} 18446744073709551615\n"
           "pdplane_z_total{peer=\"a\\\"\\\\\\n\xef\xbf\xbd\xc3\xa4\",verdict=\"\"} 1\n");
    value = 3;
    expect(m, OPEN,
           "# HELP pdplane_f F.\n# TYPE pdplane_f gauge\npdplane_f{peer=\"x\"} 3\n"
           "# HELP pdplane_g G.\n# TYPE pdplane_g gauge\npdplane_g -0.5\n"
           "# HELP pdplane_h_seconds H.\n# TYPE pdplane_h_seconds histogram\n" BODY
           "# HELP pdplane_metric_folded Look-ups of label values folded into \\\"other\\\".\n"
           "# TYPE pdplane_metric_folded counter\npdplane_metric_folded_total 0\n"
           "# HELP pdplane_z A \\\"z\\\" \\\\ of\\nlines.\n# TYPE pdplane_z counter\n"
           "pdplane_z_total{peer=\"d3\",verdict=\"ok\"} 18446744073709551615\n"
           "pdplane_z_total{peer=\"a\\\"\\\\\\n\xef\xbf\xbd\xc3\xa4\",verdict=\"\"} 1\n# EOF\n");
    struct answer a;
    assert_int_equal(ask(m, PLAIN, 50, &a), PD_ELIMIT);
    pd_buf_fini(&a.buf);
    pd_metrics_destroy(m);
}


/* Children come and go, and counters grow, while it is read. */
struct churn {
    struct pd_metrics *m;
    bool stop;
};

static void *churn_run(void *arg)
{
    struct churn *c = arg;
    struct pd_metric_family *f = family(c->m, PD_METRIC_COUNTER, DESC(
        .name = "pdplane_churn_total", .help = "C.", .labels = two_labels, .n_labels = 1));
    struct pd_metric_family *h = family(c->m, PD_METRIC_HISTOGRAM, DESC(
        .name = "pdplane_churn_seconds", .help = "C.", .bounds = bounds, .n_bounds = 3));
    for (uint32_t i = 0; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); i++) {
        char value[32];
        snprintf(value, sizeof value, "v%u", i % 300);
        const char *const values[] = { value };
        pd_counter_inc(pd_metrics_counter(c->m, f, values));
        pd_histogram_observe(pd_metrics_histogram(c->m, h, NULL), i % 3);
        if (i % 7 == 0)
            pd_metrics_remove(c->m, f, values);
    }
    return NULL;
}

static void test_churn(void **state)
{
    (void)state;
    struct churn c = { .m = make() };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, churn_run, &c), 0);
    for (int round = 0; round < 300; round++) {
        struct answer a;
        unsigned long long inf = 0, count = 0;
        assert_int_equal(ask(c.m, OPEN, 1 << 20, &a), PD_OK);
        const char *text = pd_buf_cstr(&a.buf), *p;
        size_t n = strlen(text);
        assert_true(n > 6 && strcmp(text + n - 6, "# EOF\n") == 0);
        if ((p = strstr(text, "pdplane_churn_seconds_bucket{le=\"+Inf\"} ")) != NULL) {
            assert_int_equal(sscanf(p, "pdplane_churn_seconds_bucket{le=\"+Inf\"} %llu", &inf), 1);
            p = strstr(text, "pdplane_churn_seconds_count ");
            assert_non_null(p);
            assert_int_equal(sscanf(p, "pdplane_churn_seconds_count %llu", &count), 1);
            assert_true(inf == count);
        }
        pd_buf_fini(&a.buf);
    }
    __atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pd_metrics_destroy(c.m);
}

static int setup(void **state)
{
    struct pd_mods_params params = { .host = pd_host_api_table() };
    const char *dir = getenv("PD_BUILDDIR");
    struct pd_err err = { 0 };
    char path[1024], full[PATH_MAX];
    (void)state;
    snprintf(path, sizeof path, "%s/modules/metric/prometheus/.libs/prometheus.so", dir == NULL ? "." : dir);
    assert_non_null(realpath(path, full));
    assert_int_equal(pd_mods_create(&params, &mods), PD_OK);
    if (pd_mods_load(mods, full, &err) != PD_OK)
        fail_msg("%s", err.text);
    ops = (const void *)pd_mods_unit(mods, PD_KIND_EXPORTER, "prometheus")->ops;
    assert_int_equal(pd_loop_uv_create(NULL, &loop), PD_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(pd_loop_destroy(loop, NULL, 0), PD_OK);
    pd_mods_destroy(mods);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_expose), cmocka_unit_test(test_churn) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
