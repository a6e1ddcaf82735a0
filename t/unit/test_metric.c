/* SPDX-License-Identifier: Apache-2.0 */
/* The metrics registry. */
#include "unit.h"

#include "base/mem.h"
#include "base/status.h"
#include "metric/metric.h"

#include <math.h>
#include <stdarg.h>
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

struct seen {
    char text[4096];
    size_t n;
};

static void PD_PRINTF(2, 3) note(struct seen *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    s->n += (size_t)vsnprintf(s->text + s->n, sizeof s->text - s->n, fmt, ap);
    va_end(ap);
    assert_true(s->n < sizeof s->text);
}

static bool see_family(const struct pd_metric_view *f, void *arg)
{
    note(arg, "%s(%d)", f->name, f->kind);
    for (uint32_t i = 0; i < f->n_labels; i++)
        note(arg, " %s", f->labels[i]);
    note(arg, "\n");
    return strcmp(f->name, "pdplane_metric_folded_total") != 0;
}

static void see_sample(const struct pd_metric_view *f, const struct pd_metric_sample *s, void *arg)
{
    note(arg, " ");
    for (uint32_t i = 0; i < f->n_labels; i++)
        note(arg, "[%s]", s->values[i]);
    note(arg, "%llu %g", (unsigned long long)s->count, s->value);
    for (size_t i = 0; f->kind == PD_METRIC_HISTOGRAM && i <= f->n_bounds; i++)
        note(arg, " %llu", (unsigned long long)s->buckets[i]);
    note(arg, "\n");
}

static const struct pd_metric_visitor seeing = { .size = sizeof seeing, .family = see_family,
                                                 .sample = see_sample };

static void count_up(void *arg)
{
    ++*(uint32_t *)arg;
}

static void test_visit(void **state)
{
    (void)state;
    double value = 3;
    uint32_t refreshed = 0;
    struct seen seen = { .n = 0 };
    struct pd_metrics *m = fill(&value);
    pd_metrics_set_refresh(m, count_up, &refreshed);
    pd_metrics_visit(m, &seeing, &seen);
    assert_int_equal(refreshed, 1);
    assert_string_equal(seen.text,
                        "pdplane_f(2) peer\n [x]0 3\npdplane_g(2)\n 0 -0.5\n"
                        "pdplane_h_seconds(3)\n 5 1e+09 2 2 0 1\npdplane_metric_folded_total(1)\n"
                        "pdplane_z_total(1) peer verdict\n [d3][ok]18446744073709551615 0\n"
                        " [a\"\\\n\xff\xc3\xa4][]1 0\n");
    pd_metrics_set_refresh(m, NULL, NULL);
    pd_metrics_visit(m, &seeing, &(struct seen){ .n = 0 });
    assert_int_equal(refreshed, 1);
    pd_metrics_destroy(m);
    pd_metrics_destroy(NULL);
}

static void test_read(void **state)
{
    (void)state;
    double value = 7;
    double got = 0;
    struct pd_metrics *m = fill(&value);
    const char *const x[] = { "x" };
    assert_int_equal(pd_metrics_read(m, "pdplane_f", x, &got), PD_OK);
    assert_true(got == 7);
    assert_int_equal(pd_metrics_read(m, "pdplane_h_seconds", NULL, &got), PD_OK);
    assert_true(got == 5);
    assert_int_equal(pd_metrics_read(m, "pdplane_f", NULL, &got), PD_ENOENT);
    assert_int_equal(pd_metrics_read(m, "pdplane_none", NULL, &got), PD_ENOENT);
    struct pd_metric_family *f = family(m, PD_METRIC_GAUGE, DESC(
        .name = "pdplane_f", .help = "F.", .labels = two_labels, .n_labels = 1));
    assert_int_equal(pd_metrics_gauge_fn(m, f, x, NULL, NULL), PD_OK);
    assert_int_equal(pd_metrics_read(m, "pdplane_f", x, &got), PD_OK);
    assert_true(got == 0);
    pd_metrics_remove(m, f, x);
    assert_int_equal(pd_metrics_read(m, "pdplane_f", x, &got), PD_ENOENT);
    pd_metrics_remove(m, f, x);
    pd_metrics_destroy(m);
}

static void test_refuse(void **state)
{
    (void)state;
    struct pd_metrics *m = make();
    struct pd_metric_family *f;
    struct pd_err err;
    static const char *const le[] = { "le" };
    static const char *const twice[] = { "a", "a" };
    static const char *const bad_label[] = { "A" };
    static const double down[] = { 2, 1 };
    static const double inf[] = { 1, (double)INFINITY };
    const struct {
        int32_t kind;
        struct pd_metric_desc desc;
    } bad[] = {
        { PD_METRIC_COUNTER, DESC(.name = "pdplane_x", .help = "X.") },
        { PD_METRIC_COUNTER, DESC(.name = "x_total", .help = "X.") },
        { PD_METRIC_COUNTER, DESC(.name = "pdplane_X_total", .help = "X.") },
        { PD_METRIC_COUNTER, DESC(.name = NULL, .help = "X.") },
        { PD_METRIC_COUNTER, DESC(.name = "pdplane_x_total", .help = "") },
        { PD_METRIC_GAUGE, DESC(.name = "pdplane_x_total", .help = "X.") },
        { PD_METRIC_GAUGE, DESC(.name = "pdplane_x_bucket", .help = "X.") },
        { PD_METRIC_GAUGE, DESC(.name = "pdplane_x-y", .help = "X.") },
        { PD_METRIC_GAUGE, DESC(.name = "pdplane_x", .help = "X.", .labels = le, .n_labels = 1) },
        { PD_METRIC_GAUGE,
          DESC(.name = "pdplane_x", .help = "X.", .labels = twice, .n_labels = 2) },
        { PD_METRIC_GAUGE,
          DESC(.name = "pdplane_x", .help = "X.", .labels = bad_label, .n_labels = 1) },
        { PD_METRIC_GAUGE,
          DESC(.name = "pdplane_x", .help = "X.", .labels = twice, .n_labels = 9) },
        { PD_METRIC_GAUGE,
          DESC(.name = "pdplane_x", .help = "X.", .bounds = bounds, .n_bounds = 1) },
        { PD_METRIC_HISTOGRAM, DESC(.name = "pdplane_x", .help = "X.") },
        { PD_METRIC_HISTOGRAM,
          DESC(.name = "pdplane_x", .help = "X.", .bounds = down, .n_bounds = 2) },
        { PD_METRIC_HISTOGRAM,
          DESC(.name = "pdplane_x", .help = "X.", .bounds = inf, .n_bounds = 2) },
        { 9, DESC(.name = "pdplane_x", .help = "X.") },
        { 0, DESC(.name = "pdplane_x", .help = "X.") },
        { PD_METRIC_GAUGE, DESC(.name = "pdplane_x") },
        { PD_METRIC_GAUGE, DESC(.name = "pdplane_x{", .help = "X.") },
        { PD_METRIC_GAUGE, { .size = 8, .name = "pdplane_x", .help = "X." } },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(pd_metrics_family(m, bad[i].kind, &bad[i].desc, &err, &f), PD_EINVAL);
        assert_true(err.text[0] != '\0');
    }
    f = family(m, PD_METRIC_GAUGE, DESC(.name = "pdplane_x", .help = "X."));
    assert_ptr_equal(family(m, PD_METRIC_GAUGE, DESC(.name = "pdplane_x", .help = "X.")), f);
    struct pd_metric_desc other = DESC(.name = "pdplane_x", .help = "X.", .labels = two_labels,
                                       .n_labels = 1);
    assert_int_equal(pd_metrics_family(m, PD_METRIC_GAUGE, &other, NULL, &f), PD_EEXIST);
    assert_null(pd_metrics_counter(m, f, NULL));
    assert_null(pd_metrics_gauge(m, NULL, NULL));
    /* The same name with other bounds, or other labels. */
    static const double low[] = { 1.0, 2.0 }, high[] = { 1.0, 3.0 };
    struct pd_metric_desc two = DESC(.name = "pdplane_h", .help = "H.", .bounds = low, .n_bounds = 2);
    struct pd_metric_family *g = NULL;
    assert_int_equal(pd_metrics_family(m, PD_METRIC_HISTOGRAM, &two, NULL, &g), PD_OK);
    two.bounds = high;
    assert_int_equal(pd_metrics_family(m, PD_METRIC_HISTOGRAM, &two, NULL, &g), PD_EEXIST);
    static const char *const red[] = { "red" }, *const blue[] = { "blue" };
    struct pd_metric_desc labels = DESC(.name = "pdplane_l", .help = "L.", .labels = red, .n_labels = 1);
    assert_int_equal(pd_metrics_family(m, PD_METRIC_GAUGE, &labels, NULL, &g), PD_OK);
    labels.labels = blue;
    assert_int_equal(pd_metrics_family(m, PD_METRIC_GAUGE, &labels, NULL, &g), PD_EEXIST);
    f = family(m, PD_METRIC_GAUGE, DESC(.name = "pdplane_y", .help = "Y.", .labels = two_labels,
                                        .n_labels = 1));
    assert_null(pd_metrics_gauge(m, f, NULL));
    pd_gauge_set(NULL, 1);
    pd_counter_inc(NULL);
    pd_histogram_observe(NULL, 1);
    pd_metrics_destroy(m);

    assert_int_equal(pd_metrics_create(2, &m), PD_OK);
    assert_non_null(pd_metrics_simple_gauge(m, "pdplane_a", "A."));
    assert_null(pd_metrics_simple_gauge(m, "pdplane_b", "B."));
    pd_metrics_destroy(m);
}

static void test_fold(void **state)
{
    (void)state;
    struct pd_metrics *m = make();
    struct pd_metric_family *f = family(m, PD_METRIC_COUNTER, DESC(
        .name = "pdplane_a_total", .help = "A.", .labels = two_labels, .n_labels = 1,
        .max_children = 3));
    char name[300];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 10; i++) {
            snprintf(name, sizeof name, "p%d", i);
            pd_counter_inc(pd_metrics_counter(m, f, (const char *const[]){ name }));
        }
    }
    assert_int_equal(pd_metrics_folded(m), 14);
    double v;
    assert_int_equal(pd_metrics_read(m, "pdplane_a_total", (const char *const[]){ "other" }, &v),
                     PD_OK);
    assert_true(v == 14);
    assert_int_equal(pd_metrics_read(m, "pdplane_a_total", (const char *const[]){ "p2" }, &v),
                     PD_OK);
    assert_true(v == 2);
    /* A place that becomes free is used again; "other" cannot be removed. */
    pd_metrics_remove(m, f, (const char *const[]){ "p2" });
    pd_metrics_remove(m, f, (const char *const[]){ "other" });
    pd_counter_inc(pd_metrics_counter(m, f, (const char *const[]){ "p9" }));
    assert_int_equal(pd_metrics_read(m, "pdplane_a_total", (const char *const[]){ "p9" }, &v),
                     PD_OK);
    pd_metrics_remove(m, f, (const char *const[]){ "p9" });
    /* Long values are cut. */
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    pd_counter_inc(pd_metrics_counter(m, f, (const char *const[]){ name }));
    name[128] = '\0';
    assert_int_equal(pd_metrics_read(m, "pdplane_a_total", (const char *const[]){ name }, &v),
                     PD_OK);
    pd_metrics_destroy(m);
}

/* Every single failed allocation is survived. */
static void test_no_memory(void **state)
{
    (void)state;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct pd_metrics *m = NULL;
        struct pd_metric_family *f = NULL;
        struct pd_metric_desc desc = DESC(.name = "pdplane_h", .help = "H.", .labels = two_labels,
                                          .n_labels = 2, .bounds = bounds, .n_bounds = 3);
        assert_true(n < 100);
        pd_mem_fault_set(n);
        if (pd_metrics_create(0, &m) == PD_OK &&
            pd_metrics_family(m, PD_METRIC_HISTOGRAM, &desc, NULL, &f) == PD_OK)
            done = pd_metrics_histogram(m, f, (const char *const[]){ "a", "b" }) != NULL;
        pd_mem_fault_set(0);
        pd_metrics_destroy(m);
    }
}

struct shared {
    struct pd_metrics *m;
    struct pd_metric_family *counters;
    struct pd_gauge *gauge;
    struct pd_histogram *histogram;
};

static void *add_many(void *arg)
{
    struct shared *s = (struct shared *)arg;
    char name[8];
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "%d", i % 5);
        pd_counter_inc(pd_metrics_counter(s->m, s->counters, (const char *const[]){ name }));
        pd_gauge_add(s->gauge, 0.5);
        pd_histogram_observe(s->histogram, 0.75);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct shared s = { .m = make() };
    pthread_t threads[4];
    double v;
    s.counters = family(s.m, PD_METRIC_COUNTER, DESC(.name = "pdplane_c_total", .help = "C.",
                                                     .labels = two_labels, .n_labels = 1));
    s.gauge = pd_metrics_simple_gauge(s.m, "pdplane_g", "G.");
    s.histogram = pd_metrics_histogram(s.m, family(s.m, PD_METRIC_HISTOGRAM, DESC(
        .name = "pdplane_h", .help = "H.", .bounds = bounds, .n_bounds = 3)), NULL);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add_many, &s);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(pd_metrics_read(s.m, "pdplane_c_total", (const char *const[]){ "3" }, &v),
                     PD_OK);
    assert_true(v == 16000);
    assert_true(pd_gauge_value(s.gauge) == 40000);
    assert_int_equal(pd_metrics_read(s.m, "pdplane_h", NULL, &v), PD_OK);
    assert_true(v == 80000);
    pd_metrics_destroy(s.m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_visit), cmocka_unit_test(test_read), cmocka_unit_test(test_refuse),
    cmocka_unit_test(test_fold),      cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_threads),
};

PD_UNIT_MAIN(tests)
