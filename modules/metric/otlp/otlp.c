/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics to an OpenTelemetry collector: the module proper, its options and the
 * life of an instance. */
#include "otlp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pd_option otlp_options[] = {
    PD_OPT_STRING("url", struct otlp_conf, url, "http://127.0.0.1:4318/v1/metrics", .flags = PD_OPT_NONEMPTY,
                  .help = "Where the collector takes OTLP/HTTP with JSON."),
    PD_OPT_DURATION("interval", struct otlp_conf, interval, "15s", .min = 100 * (int64_t)PD_MS,
                    .max = 3600 * (int64_t)PD_SEC, .help = "Metrics are sent so often."),
    PD_OPT_DURATION("timeout", struct otlp_conf, timeout, "10s", .min = 10 * (int64_t)PD_MS,
                    .max = 300 * (int64_t)PD_SEC, .help = "For connecting, and for the answer."),
    PD_OPT_DURATION("give_up", struct otlp_conf, give_up, "1m", .max = 3600 * (int64_t)PD_SEC,
                    .help = "What could not be sent for so long is dropped, and counted."),
    PD_OPT_INT("batch", struct otlp_conf, batch, "1000", .min = 1, .max = 1000000, .unit = "points",
               .help = "Data points in one request."),
    PD_OPT_SIZE("memory", struct otlp_conf, memory, "8m", .min = 65536, .max = (int64_t)1 << 30,
                .help = "For requests that wait to be sent. Points beyond it are dropped, and counted."),
    PD_OPT_STRING("service", struct otlp_conf, service, "pdplane", .flags = PD_OPT_NONEMPTY,
                  .help = "The resource attribute service.name."),
    PD_OPT_STRING("token", struct otlp_conf, token, NULL, .flags = PD_OPT_SECRET,
                  .help = "Sent as Authorization: Bearer."),
    PD_OPT_END
};

static pd_status otlp_check(const void *conf, struct pd_err *err)
{
    const struct otlp_conf *c = conf;
    struct otlp_url url;

    return otlp_url_parse(c->url, &url, err);
}

static pd_status authorize(struct pd_exporter *e, struct pd_err *err)
{
    const char *token = e->conf->token;
    int n;

    if (token == NULL)
        return PD_OK;
    n = snprintf(e->authorization, sizeof(e->authorization), "Bearer %s", token);
    for (const char *p = token; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f)
            n = -1;
    if (n > 0 && (size_t)n < sizeof(e->authorization))
        return PD_OK;
    err->status = PD_EINVAL;
    snprintf(err->text, sizeof(err->text), "token is too long or has a character that no header may have");
    return PD_EINVAL;
}

static void on_end(struct pd_task *task, void *arg)
{
    struct pd_exporter *e = arg;
    void (*on_closed)(void *) = e->on_closed;
    void *closed_arg = e->on_closed_arg;

    (void)task;
    memset(e->authorization, 0, sizeof(e->authorization));
    free(e);
    on_closed(closed_arg);
}

static struct pd_counter *counter(struct pd_exporter *e, const char *name, const char *help)
{
    return pd_metrics_simple_counter(e->metrics, name, help);
}

static pd_status otlp_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_exporter **out,
                             struct pd_err *err)
{
    struct pd_exporter *e = calloc(1, sizeof(*e));
    const uint8_t *u = ctx->node.uuid.b;
    pd_status st;
    size_t n = 0;

    if (e == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    e->conf = conf;
    e->loop = ctx->loop;
    e->log = ctx->log;
    e->metrics = ctx->metrics;
    e->host = ctx->host;
    e->begin = pd_loop_wall(e->loop);
    for (int i = 0; i < 16; i++)
        n += (size_t)snprintf(e->instance + n, sizeof(e->instance) - n, "%s%02x",
                              i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    st = otlp_url_parse(e->conf->url, &e->url, err);
    if (st == PD_OK)
        st = authorize(e, err);
    if (st != PD_OK) {
        free(e);
        return st;
    }
    e->requests = counter(e, "pdplane_otlp_requests_total", "Requests to the collector.");
    e->failures = counter(e, "pdplane_otlp_failures_total", "Requests that the collector did not take.");
    e->sent = counter(e, "pdplane_otlp_sent_points_total", "Data points that the collector took.");
    e->dropped = counter(e, "pdplane_otlp_dropped_points_total", "Data points that were not sent.");
    e->rejected = counter(e, "pdplane_otlp_rejected_points_total", "Data points that the collector refused.");
    e->late = counter(e, "pdplane_otlp_late_total",
                      "Intervals left out because an earlier one was not sent yet.");
    pd_task_init(&e->end, "otlp", on_end, e);
    otlp_push_init(e);
    *out = e;
    return PD_OK;
}

static pd_status otlp_start(struct pd_exporter *e, struct pd_err *err)
{
    e->api = pd_host()->table(e->host, PD_NET_TABLE, PD_NET_VERSION);
    e->net = pd_host()->object(e->host, PD_NET_TABLE);
    if (e->api == NULL || e->net == NULL) {
        err->status = PD_ENOSYS;
        snprintf(err->text, sizeof(err->text), "there is no HTTP client of the version that otlp was built for");
        return PD_ENOSYS;
    }
    otlp_push_begin(e);
    return PD_OK;
}

static void otlp_destroy(struct pd_exporter *e, void (*on_closed)(void *arg), void *arg)
{
    otlp_push_end(e);
    e->on_closed = on_closed;
    e->on_closed_arg = arg;
    pd_loop_defer(e->loop, &e->end);
}

static const struct pd_exporter_ops otlp_ops = {
    .head = PD_OPS(pd_exporter_ops, PD_EXPORTER_V1),
    .create = otlp_create, .destroy = otlp_destroy, .start = otlp_start,
};

static const struct pd_unit otlp_units[] = {
    PD_UNIT(.kind = PD_KIND_EXPORTER, .name = "otlp", .ops = &otlp_ops.head, .options = otlp_options,
            .conf_size = sizeof(struct otlp_conf),
            .summary = "Sends metrics to an OpenTelemetry collector, as OTLP/HTTP with JSON.",
            .check = otlp_check),
    PD_UNIT_END
};

PD_MODULE(.name = "otlp", .version = "1.0", .summary = "Metrics to an OpenTelemetry collector.",
          .units = otlp_units)
