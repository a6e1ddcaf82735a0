/* SPDX-License-Identifier: Apache-2.0 */
/* The registry as ExportMetricsServiceRequest in JSON: 64-bit integers are
 * strings, numbers without a JSON form are "NaN", "Infinity", "-Infinity".  A
 * family that does not fit into one body goes on in the next. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "otlp.h"
#include "utf8.h"

struct encoder {
    const struct otlp_source *source;
    struct otlp_body *first, *last;
    uint64_t bytes;             /* of all bodies, as allocated */
    uint64_t dropped;
    bool in_family;             /* the body is inside dataPoints */
    bool has_family;            /* the body has a family */
};

static void put(struct encoder *e, const char *p, size_t n)
{
    struct otlp_body *b = e->last;

    if (b->failed)
        return;
    if (n > b->cap - b->n) {
        size_t cap = b->cap;
        char *grown;
        while (n > cap - b->n)
            cap *= 2;
        grown = e->bytes + (cap - b->cap) <= e->source->memory ? realloc(b->p, cap) : NULL;
        if (grown == NULL) {
            b->failed = true;
            return;
        }
        e->bytes += cap - b->cap;
        b->p = grown;
        b->cap = cap;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_text(struct encoder *e, const char *text)
{
    put(e, text, strlen(text));
}

static void put_string(struct encoder *e, const char *s)
{
    char text[8];

    put_text(e, "\"");
    while (*s != '\0') {
        size_t n = pd_utf8_char(s);
        if (n == 0)
            put_text(e, PD_UTF8_REPLACEMENT);
        else if (*s == '"' || *s == '\\')
            put(e, (const char[]){ '\\', *s }, 2);
        else if ((unsigned char)*s < 0x20)
            put(e, text, (size_t)snprintf(text, sizeof(text), "\\u%04x", (unsigned)*s));
        else
            put(e, s, n);
        s += n == 0 ? 1 : n;
    }
    put_text(e, "\"");
}

static void put_u64(struct encoder *e, uint64_t v)
{
    char text[32];

    put(e, text, (size_t)snprintf(text, sizeof(text), "\"%" PRIu64 "\"", v));
}

static void put_double(struct encoder *e, double v)
{
    char text[32];

    if (isnan(v))
        put_text(e, "\"NaN\"");
    else if (isinf(v))
        put_text(e, v > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else
        put(e, text, pd_number_text(text, v));
}

static void put_attribute(struct encoder *e, const char *key, const char *value)
{
    put_text(e, "{\"key\":");
    put_string(e, key);
    put_text(e, ",\"value\":{\"stringValue\":");
    put_string(e, value);
    put_text(e, "}}");
}

static bool body_open(struct encoder *e)
{
    struct otlp_body *b = calloc(1, sizeof(*b));

    if (b != NULL && e->bytes + 4096 <= e->source->memory)
        b->p = malloc(4096);
    if (b == NULL || b->p == NULL) {
        free(b);
        return false;
    }
    b->cap = 4096;
    e->bytes += b->cap;
    if (e->last == NULL)
        e->first = b;
    else
        e->last->next = b;
    e->last = b;
    e->in_family = e->has_family = false;
    put_text(e, "{\"resourceMetrics\":[{\"resource\":{\"attributes\":[");
    put_attribute(e, "service.name", e->source->service);
    put_text(e, ",");
    put_attribute(e, "service.instance.id", e->source->instance);
    put_text(e, ",");
    put_attribute(e, "service.version", e->source->version);
    put_text(e, "]},\"scopeMetrics\":[{\"scope\":{\"name\":\"pdplane\",\"version\":");
    put_string(e, e->source->version);
    put_text(e, "},\"metrics\":[");
    return true;
}

static void family_close(struct encoder *e)
{
    if (e->in_family)
        put_text(e, "]}}");
    e->in_family = false;
}

static void body_close(struct encoder *e)
{
    family_close(e);
    put_text(e, "]}]}]}");
    if (e->last->failed) {      /* nothing of it can be sent */
        e->dropped += e->last->points;
        e->last->points = 0;
    }
}

/* "seconds" and "bytes" at the end of a name are its unit. */
static const char *unit_of(const char *name)
{
    size_t n = strlen(name);

    if (n > 6 && strcmp(name + n - 6, "_total") == 0)
        n -= 6;
    if (n > 8 && strncmp(name + n - 8, "_seconds", 8) == 0)
        return "s";
    return n > 6 && strncmp(name + n - 6, "_bytes", 6) == 0 ? "By" : "1";
}

static void family_open(struct encoder *e, const struct pd_metric_view *f)
{
    put_text(e, e->has_family ? ",{\"name\":" : "{\"name\":");
    put_string(e, f->name);
    put_text(e, ",\"description\":");
    put_string(e, f->help);
    put_text(e, ",\"unit\":");
    put_string(e, unit_of(f->name));
    if (f->kind == PD_METRIC_COUNTER)
        put_text(e, ",\"sum\":{\"aggregationTemporality\":2,\"isMonotonic\":true,\"dataPoints\":[");
    else if (f->kind == PD_METRIC_GAUGE)
        put_text(e, ",\"gauge\":{\"dataPoints\":[");
    else
        put_text(e, ",\"histogram\":{\"aggregationTemporality\":2,\"dataPoints\":[");
    e->in_family = e->has_family = true;
}

static void put_point(struct encoder *e, const struct pd_metric_view *f, const struct pd_metric_sample *s)
{
    put_text(e, "{\"attributes\":[");
    for (uint32_t i = 0; i < f->n_labels; i++) {
        if (i > 0)
            put_text(e, ",");
        put_attribute(e, f->labels[i], s->values[i]);
    }
    put_text(e, "],");
    if (f->kind != PD_METRIC_GAUGE) {
        put_text(e, "\"startTimeUnixNano\":");
        put_u64(e, e->source->begin);
        put_text(e, ",");
    }
    put_text(e, "\"timeUnixNano\":");
    put_u64(e, e->source->now);
    if (f->kind == PD_METRIC_COUNTER) {
        put_text(e, ",\"asInt\":");
        put_u64(e, s->count <= INT64_MAX ? s->count : INT64_MAX);
    } else if (f->kind == PD_METRIC_GAUGE) {
        put_text(e, ",\"asDouble\":");
        put_double(e, s->value);
    } else {
        put_text(e, ",\"count\":");
        put_u64(e, s->count);
        put_text(e, ",\"sum\":");
        put_double(e, s->value);
        put_text(e, ",\"bucketCounts\":[");
        for (size_t i = 0; i <= f->n_bounds; i++) {
            put_text(e, i == 0 ? "" : ",");
            put_u64(e, s->buckets[i]);
        }
        put_text(e, "],\"explicitBounds\":[");
        for (size_t i = 0; i < f->n_bounds; i++) {
            put_text(e, i == 0 ? "" : ",");
            put_double(e, f->bounds[i]);
        }
        put_text(e, "]");
    }
    put_text(e, "}");
}

static bool on_family(const struct pd_metric_view *f, void *arg)
{
    struct encoder *e = arg;

    if (e->last != NULL)
        family_close(e);
    return f->kind >= PD_METRIC_COUNTER && f->kind <= PD_METRIC_HISTOGRAM;
}

static void on_sample(const struct pd_metric_view *f, const struct pd_metric_sample *s, void *arg)
{
    struct encoder *e = arg;

    if (e->last != NULL && e->last->points >= e->source->batch)
        body_close(e);
    if ((e->last == NULL || e->last->points >= e->source->batch) && !body_open(e)) {
        e->dropped++;
        return;
    }
    if (e->last->failed) {
        e->dropped++;
        return;
    }
    if (e->in_family)
        put_text(e, ",");
    else
        family_open(e, f);
    put_point(e, f, s);
    e->last->points++;
}

struct otlp_body *otlp_encode(const struct otlp_source *source, uint64_t *dropped)
{
    static const struct pd_metric_visitor visitor = { .size = sizeof(visitor), .family = on_family,
                                                      .sample = on_sample };
    struct encoder e = { .source = source };
    struct otlp_body **at = &e.first;

    pd_metrics_visit(source->metrics, &visitor, &e);
    if (e.last != NULL)
        body_close(&e);
    while (*at != NULL) {
        struct otlp_body *b = *at;
        if (!b->failed) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        free(b->p);
        free(b);
    }
    *dropped = e.dropped;
    return e.first;
}

void otlp_bodies_free(struct otlp_body *list)
{
    while (list != NULL) {
        struct otlp_body *next = list->next;
        free(list->p);
        free(list);
        list = next;
    }
}
