/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for exporters: what is served is whole and escaped, whatever the values
 * of labels are and while the registry changes; what is started ends. */
#include "conform/conform.h"

#include <math.h>
#include <pthread.h>

#include <pdplane/exporter.h>
#include <pdplane/metric.h>

#include "base/utf8.h"
#include "metric/metric.h"

struct rig {
    struct cf_world w;
    struct cf_inst i;
    const struct pd_exporter_ops *ops;
};

struct answer {
    struct pd_export_answer pub;
    char *p;
    size_t n, cap, limit;
    uint32_t refused;           /* writes after the limit */
};

static pd_status on_write(struct pd_export_answer *pub, const void *bytes, size_t n)
{
    struct answer *a = (struct answer *)(void *)pub;

    if (n > a->limit - a->n) {
        a->refused++;
        CF_NEED(a->refused < 10000000, "writing goes on for ever after PD_ELIMIT");
        return PD_ELIMIT;
    }
    if (n > a->cap - a->n) {
        a->cap = 2 * (a->n + n);
        a->p = realloc(a->p, a->cap);
        assert_non_null(a->p);
    }
    memcpy(a->p + a->n, bytes, n);
    a->n += n;
    return PD_OK;
}

static void answer_free(struct answer *a)
{
    free(a->p);
}

static pd_status ask(struct rig *r, const char *accept, size_t limit, struct answer *a)
{
    static const struct pd_export_answer_ops ops = { .size = sizeof(ops), .write = on_write };
    struct pd_export_request request = { .size = sizeof(request), .accept = { accept, strlen(accept) },
                                         .query = PD_STR("a=b") };

    memset(a, 0, sizeof(*a));
    a->pub.ops = &ops;
    a->limit = limit;
    return r->ops->serve(r->i.p, &request, &a->pub);
}

static void ask_ok(struct rig *r, const char *accept, struct answer *a)
{
    pd_status st = ask(r, accept, 16 << 20, a);

    CF_NEED(st == PD_OK, "serve returns %d", st);
    CF_NEED(a->n > 0, "serve writes nothing");
    CF_NEED(a->pub.type != NULL && strchr(a->pub.type, '/') != NULL && strpbrk(a->pub.type, "\r\n") == NULL,
            "serve sets no type");
    for (size_t i = 0, n; i < a->n; i += n) {
        uint32_t cp;
        n = pd_utf8_decode(a->p + i, a->n - i, &cp);
        CF_NEED(n > 0, "byte %zu of the answer is not UTF-8", i);
    }
}

static void rig_open(struct rig *r, const struct cf_unit *u)
{
    memset(r, 0, sizeof(*r));
    cf_world_open(&r->w, u);
    r->ops = (const void *)u->ops;
    cf_create_ok(&r->w, &r->i, 0);
}

static void rig_serving(struct rig *r, const struct cf_unit *u)
{
    rig_open(r, u);
    if (r->ops->path == NULL || r->ops->path(r->i.p) == NULL)
        cf_skip("it serves no path");
    CF_NEED(r->ops->serve != NULL, "a path is named without serve");
}

static void rig_close(struct rig *r)
{
    cf_destroy(&r->w, &r->i);
    cf_world_close(&r->w);
}

static const char *const labels[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
static const double bounds[] = { 0.001, 1, 1e6 };
#define FAMILIES 40

static const char *family_name(char *buf, uint32_t i)
{
    static const char *const ends[] = { "_total", "", "_seconds" };

    snprintf(buf, 64, "pdplane_conform_%u%s", i, ends[i % 3]);
    return buf;
}

static struct pd_metric_family *family(struct cf_world *w, uint32_t i)
{
    char name[64];
    struct pd_metric_desc desc = { .size = sizeof(desc), .name = family_name(name, i),
                                   .help = "It says \"so\",\n\\ and more.", .labels = labels,
                                   .n_labels = i % 9, .bounds = i % 3 == 2 ? bounds : NULL,
                                   .n_bounds = i % 3 == 2 ? 3 : 0, .max_children = 4 };
    struct pd_metric_family *f = NULL;

    assert_int_equal(pd_metrics_family(w->metrics, PD_METRIC_COUNTER + (int)(i % 3), &desc, NULL, &f), PD_OK);
    return f;
}

static const double odd[] = { 0, -0.0, 1.5, -1e300, 5e-324, 1e15, 123456789.25 };

static void values_set(struct cf_world *w, uint32_t i, const char *const *values, uint64_t v)
{
    struct pd_metric_family *f = family(w, i);
    double d = v % 9 == 7 ? (double)NAN : v % 9 == 8 ? (double)INFINITY : odd[v % 7];

    if (i % 3 == 0)
        pd_counter_add(pd_metrics_counter(w->metrics, f, values), v % 2 == 0 ? v : UINT64_MAX / 2);
    else if (i % 3 == 1)
        pd_gauge_set(pd_metrics_gauge(w->metrics, f, values), d);
    else
        pd_histogram_observe(pd_metrics_histogram(w->metrics, f, values), d);
}

static void registry_fill(struct cf_world *w, const char *text)
{
    for (uint32_t i = 0; i < FAMILIES; i++) {
        char other[300];
        const char *values[8];
        for (uint32_t k = 0; k < 6; k++) {
            snprintf(other, sizeof(other), "%s%u", text, k);
            for (int l = 0; l < 8; l++)
                values[l] = l % 2 == 0 ? other : text;
            values_set(w, i, values, i + k);
        }
    }
}

static void run_path(const struct cf_unit *u)
{
    struct rig r;
    const char *path;

    rig_serving(&r, u);
    path = r.ops->path(r.i.p);
    CF_NEED(path[0] == '/', "the path \"%s\" does not begin with \"/\"", path);
    CF_NEED(path[strcspn(path, " ?#%\r\n\t")] == '\0', "the path \"%s\" has a character that none may have", path);
    CF_NEED(strcmp(path, r.ops->path(r.i.p)) == 0, "the path changes from call to call");
    rig_close(&r);
}

static const char *const accepts[] = { "", "*/*", "application/openmetrics-text; version=1.0.0",
                                       "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "application/json" };
enum { ACCEPTS = sizeof(accepts) / sizeof(accepts[0]) };

static void run_whole(const struct cf_unit *u)
{
    struct answer a, b;
    struct rig r;

    rig_serving(&r, u);
    registry_fill(&r.w, "plain");
    for (int k = 0; k < ACCEPTS; k++) {
        ask_ok(&r, accepts[k], &a);
        ask_ok(&r, accepts[k], &b);
        CF_NEED(a.n == b.n && memcmp(a.p, b.p, a.n) == 0, "the same figures give another answer");
        for (uint32_t i = 0; i < FAMILIES; i++) {
            char name[64];
            family_name(name, i);
            name[strcspn(name + 16, "_") + 16] = '\0';
            CF_NEED(memmem(a.p, a.n, name, strlen(name)) != NULL, "the family %s is missing", name);
        }
        answer_free(&a);
        answer_free(&b);
    }
    rig_close(&r);
}

/* The registry may have more in it when there are more instances. */
static void answer(struct cf_inst *i, struct cf_bytes *out)
{
    struct rig r = { .w = *i->w, .i = *i, .ops = (const void *)i->w->u->ops };
    const char *path = r.ops->path == NULL ? NULL : r.ops->path(i->p);
    struct answer a;

    if (path == NULL || r.ops->serve == NULL)
        return;
    cf_put(out, path, strlen(path));
    registry_fill(i->w, "plain");
    ask_ok(&r, "", &a);
    answer_free(&a);
}

void cf_exporter_beside(const struct cf_unit *u)
{
    cf_beside(u, answer);
}

static size_t lines_of(const struct answer *a)
{
    size_t n = 0;

    for (size_t i = 0; i < a->n; i++)
        n += a->p[i] == '\n';
    return n;
}

static void run_escaping(const struct cf_unit *u)
{
    static const char *const texts[] = { "a\nb", "\"", "\\", "a\\\"\n", "\x01\x1f\x7f", "\xff\xfe", "\xc3",
                                         "\xed\xa0\x80", "\xe2\x82", "", "{}=,", "\r\n\t", "\xf0\x9f\x98\x80" };
    size_t lines = 0;

    for (size_t k = 0; k <= sizeof(texts) / sizeof(texts[0]); k++) {
        struct answer a;
        struct rig r;
        rig_serving(&r, u);
        registry_fill(&r.w, k == 0 ? "plain" : texts[k - 1]);
        ask_ok(&r, accepts[2], &a);
        if (k == 0)
            lines = lines_of(&a);
        CF_NEED(lines_of(&a) == lines, "a label's value changes the number of lines from %zu to %zu", lines,
                lines_of(&a));
        answer_free(&a);
        rig_close(&r);
    }
}

static void run_limit(const struct cf_unit *u)
{
    struct answer a;
    struct rig r;
    size_t whole;

    rig_serving(&r, u);
    registry_fill(&r.w, "plain");
    ask_ok(&r, "", &a);
    whole = a.n;
    answer_free(&a);
    for (size_t limit = 0; limit < whole; limit += whole / 23 + 1) {
        pd_status st = ask(&r, "", limit, &a);
        CF_NEED(st != PD_OK, "with room for %zu of %zu bytes serve returns success", limit, whole);
        answer_free(&a);
    }
    ask_ok(&r, "", &a);
    CF_NEED(a.n == whole, "after answers that were too long another one has %zu bytes, not %zu", a.n, whole);
    answer_free(&a);
    rig_close(&r);
}

struct churn {
    struct cf_world *w;
    bool stop;
    uint32_t rounds;
};

enum { CHURN_VALUES = 13, CHURN_SERVES = 300, CHURN_ROUNDS = 20000 };

/* Makes or changes one child of a family, or takes it away. */
static void churn_child(struct cf_world *w, uint32_t i, uint32_t number, bool is_there)
{
    const char *values[8];
    char text[32];

    snprintf(text, sizeof(text), "v%u", number % CHURN_VALUES);
    for (int l = 0; l < 8; l++)
        values[l] = text;
    if (is_there)
        values_set(w, i, values, number);
    else
        pd_metrics_remove(w->metrics, family(w, i), values);
}

static void *churn_run(void *arg)
{
    struct churn *c = arg;

    for (uint32_t n = 0; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); n++) {
        uint32_t i = n % FAMILIES, round = n / FAMILIES;
        churn_child(c->w, i, round, true);
        churn_child(c->w, i, round + CHURN_VALUES - 2, false);
        __atomic_store_n(&c->rounds, n, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void run_changes(const struct cf_unit *u)
{
    struct churn c = { .stop = false };
    pthread_t thread;
    struct rig r;

    rig_serving(&r, u);
    c.w = &r.w;
    churn_child(&r.w, 1, 0, true);
    for (int n = 0; n < CHURN_SERVES || __atomic_load_n(&c.rounds, __ATOMIC_RELAXED) < CHURN_ROUNDS; n++) {
        struct answer a;
        ask_ok(&r, accepts[n % ACCEPTS], &a);
        answer_free(&a);
        if (n == 0)                     /* it has seen very little yet */
            assert_int_equal(pthread_create(&thread, NULL, churn_run, &c), 0);
    }
    __atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    rig_close(&r);
}

static void run_growth(const struct cf_unit *u)
{
    uint64_t before = 0, after;
    struct rig r;

    rig_serving(&r, u);
    registry_fill(&r.w, "plain");
    for (int n = 0; n < 400; n++) {
        struct answer a;
        if (n == 20)
            before = cf_memory();
        ask_ok(&r, "", &a);
        answer_free(&a);
    }
    after = cf_memory();
    CF_NEED(after < before + 4096, "%llu bytes are kept in 380 answers", (unsigned long long)(after - before));
    rig_close(&r);
}

static void run_start(const struct cf_unit *u)
{
    struct rig r;
    struct pd_err err = { 0 };
    pd_status st;

    rig_open(&r, u);
    if (r.ops->start == NULL)
        cf_skip("it starts nothing");
    st = r.ops->start(r.i.p, &err);
    if (st == PD_ENOSYS)
        cf_skip("needs more of a node: %s", err.text);
    CF_NEED(st == PD_OK, "start returns %d: %s", st, err.text);
    for (int i = 0; i < 20; i++)
        cf_turn(&r.w, PD_MS);
    rig_close(&r);
    rig_open(&r, u);
    assert_int_equal(r.ops->start(r.i.p, &err), PD_OK);
    rig_close(&r);
}

const struct cf_case cf_exporter_cases[] = {
    { "path", "a path is legal, stays, and has serve", run_path },
    { "whole", "every family is in the answer, which is UTF-8 and the same for the same figures", run_whole },
    { "escaping", "no label's value changes the number of lines, or is passed on when it is not UTF-8",
      run_escaping },
    { "limit", "an answer that is cut is no success, the next one is whole", run_limit },
    { "changes", "served while families and children come and go", run_changes },
    { "growth", "answers keep no memory", run_growth },
    { "start", "what is started ends with its instance, also at once", run_start },
    { NULL, NULL, NULL },
};
