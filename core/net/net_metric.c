/* SPDX-License-Identifier: Apache-2.0 */
/* One row per number: where it stands in the statistics, and the family and
 * label value it goes to.  A server's rows have the label "listener" in front.
 *
 * Invariant: only pd_net_metrics_update writes these children, so storing is
 * enough and nothing is lost. */
#include "net/net_metric.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <string.h>

struct row {
    uint8_t family;
    uint16_t offset;            /* of the number */
    const char *value;          /* of the second label, NULL: none */
};

struct family {
    const char *name;
    const char *help;
    const char *label;          /* besides "listener", NULL: none */
    int32_t kind;
};

enum { S_CONNS, S_ACCEPTED, S_REQUESTS, S_RESPONSES, S_REJECTS, S_TIMEOUTS, S_GONE, S_BYTES,
       S_QUEUED, S_FAMILIES };

static const struct family server_families[S_FAMILIES] = {
    { "pdplane_http_connections", "Connections of clients now.", "state", PD_METRIC_GAUGE },
    { "pdplane_http_accepted_total", "Connections of clients.", "result", PD_METRIC_COUNTER },
    { "pdplane_http_requests_total", "Requests with an accepted head.", NULL,
      PD_METRIC_COUNTER },
    { "pdplane_http_responses_total", "Answers by class; cut ones count as none too.", "class",
      PD_METRIC_COUNTER },
    { "pdplane_http_rejects_total", "Requests refused by the rules of HTTP.", "reason",
      PD_METRIC_COUNTER },
    { "pdplane_http_timeouts_total", "Limits in time that were reached.", "kind",
      PD_METRIC_COUNTER },
    { "pdplane_client_disconnects_total", "Clients that left before their answer was over.",
      NULL, PD_METRIC_COUNTER },
    { "pdplane_http_bytes_total", "Bytes received and sent.", "direction", PD_METRIC_COUNTER },
    { "pdplane_http_queued_bytes", "Bytes of answers that wait for their clients.", NULL,
      PD_METRIC_GAUGE },
};

#define S(family, member, value) { family, offsetof(struct pd_http_server_stats, member), value }
static const struct row server_rows[] = {
    S(S_CONNS, conns_idle, "idle"),
    S(S_CONNS, conns_reading, "reading"),
    S(S_CONNS, conns_serving, "serving"),
    S(S_CONNS, conns_closing, "closing"),
    S(S_ACCEPTED, accepted, "ok"),
    S(S_ACCEPTED, refused, "refused"),
    S(S_REQUESTS, requests, NULL),
    S(S_RESPONSES, responses[0], "none"),
    S(S_RESPONSES, responses[2], "2xx"),
    S(S_RESPONSES, responses[3], "3xx"),
    S(S_RESPONSES, responses[4], "4xx"),
    S(S_RESPONSES, responses[5], "5xx"),
    S(S_REJECTS, not_found, "not_found"),
    S(S_REJECTS, method_not_allowed, "method_not_allowed"),
#define REJECT(sym, status, code, label, text) \
    S(S_REJECTS, rejects[PD_HTTP_REJECT_##sym], label),
    PD_HTTP_REJECT_TABLE(REJECT)
    S(S_TIMEOUTS, idle_timeouts, "idle"),
    S(S_TIMEOUTS, head_timeouts, "head"),
    S(S_TIMEOUTS, body_timeouts, "body"),
    S(S_TIMEOUTS, write_timeouts, "write"),
    S(S_TIMEOUTS, deadline_timeouts, "deadline"),
    S(S_GONE, client_gone, NULL),
    S(S_BYTES, bytes_in, "in"),
    S(S_BYTES, bytes_out, "out"),
    S(S_QUEUED, queued_bytes, NULL),
};

enum { C_CONNS, C_CALLS, C_CONNECTS, C_TIMEOUTS, C_REJECTS, C_BYTES, C_WAITING, C_FAMILIES };

static const struct family client_families[C_FAMILIES] = {
    { "pdplane_http_client_connections", "Connections to servers now.", "state",
      PD_METRIC_GAUGE },
    { "pdplane_http_client_calls_total", "Calls by result; failures by how far they got.",
      "result", PD_METRIC_COUNTER },
    { "pdplane_http_client_connects_total", "How calls got their connection.", "how",
      PD_METRIC_COUNTER },
    { "pdplane_http_client_timeouts_total", "Limits in time that were reached.", "kind",
      PD_METRIC_COUNTER },
    { "pdplane_http_client_rejects_total", "Answers refused by the rules of HTTP.", "reason",
      PD_METRIC_COUNTER },
    { "pdplane_http_client_bytes_total", "Bytes received and sent.", "direction",
      PD_METRIC_COUNTER },
    { "pdplane_http_client_waiting", "Calls that wait for a connection.", NULL,
      PD_METRIC_GAUGE },
};

#define C(family, member, value) { family, offsetof(struct pd_http_client_stats, member), value }
static const struct row client_rows[] = {
    C(C_CONNS, conns_connecting, "connecting"),
    C(C_CONNS, conns_busy, "busy"),
    C(C_CONNS, conns_idle, "idle"),
    C(C_CALLS, ok, "ok"),
    C(C_CALLS, canceled, "canceled"),
    C(C_CALLS, refused, "refused"),
    C(C_CALLS, failed[PD_HTTP_FAIL_CONNECT], "connect"),
    C(C_CALLS, failed[PD_HTTP_FAIL_SENT], "sent"),
    C(C_CALLS, failed[PD_HTTP_FAIL_HEAD], "head"),
    C(C_CALLS, failed[PD_HTTP_FAIL_BODY], "body"),
    C(C_CONNECTS, connects, "fresh"),
    C(C_CONNECTS, reused, "reused"),
    C(C_CONNECTS, stale_retries, "stale_retry"),
    C(C_CONNECTS, waited, "waited"),
    C(C_TIMEOUTS, connect_timeouts, "connect"),
    C(C_TIMEOUTS, first_byte_timeouts, "first_byte"),
    C(C_TIMEOUTS, idle_timeouts, "idle"),
    C(C_TIMEOUTS, kept_expired, "kept"),
    C(C_REJECTS, extra_bytes, "extra_bytes"),
#undef REJECT
#define REJECT(sym, status, code, label, text) \
    C(C_REJECTS, rejects[PD_HTTP_REJECT_##sym], label),
    PD_HTTP_REJECT_TABLE(REJECT)
    C(C_BYTES, bytes_in, "in"),
    C(C_BYTES, bytes_out, "out"),
    C(C_WAITING, waiting, NULL),
};

struct cell {
    const uint64_t *from;
    struct pd_counter *counter; /* one of the two is set */
    struct pd_gauge *gauge;
};

struct pd_net_metrics {
    size_t n;
    struct cell cells[PD_ARRAY_LEN(server_rows) + PD_ARRAY_LEN(client_rows)];
};

static pd_status make_families(struct pd_metrics *m, const struct family *families, size_t n,
                               bool has_listener, struct pd_metric_family **out)
{
    for (size_t i = 0; i < n; i++) {
        const char *labels[2];
        struct pd_metric_desc desc;
        pd_status status;

        memset(&desc, 0, sizeof(desc));
        desc.size = sizeof(desc);
        desc.name = families[i].name;
        desc.help = families[i].help;
        desc.labels = labels;
        if (has_listener)
            labels[desc.n_labels++] = "listener";
        if (families[i].label != NULL)
            labels[desc.n_labels++] = families[i].label;
        status = pd_metrics_family(m, families[i].kind, &desc, NULL, &out[i]);
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}

static pd_status add_cells(struct pd_net_metrics *nm, struct pd_metrics *m,
                           const struct family *families, struct pd_metric_family **made,
                           const struct row *rows, size_t n, const char *listener,
                           const void *stats)
{
    for (size_t i = 0; i < n; i++) {
        const char *values[2] = { NULL, NULL };
        size_t k = 0;
        struct cell *cell = &nm->cells[nm->n];

        if (listener != NULL)
            values[k++] = listener;
        if (rows[i].value != NULL)
            values[k++] = rows[i].value;
        cell->from = (const uint64_t *)(const void *)((const char *)stats + rows[i].offset);
        if (families[rows[i].family].kind == PD_METRIC_COUNTER)
            cell->counter = pd_metrics_counter(m, made[rows[i].family], values);
        else
            cell->gauge = pd_metrics_gauge(m, made[rows[i].family], values);
        if (cell->counter == NULL && cell->gauge == NULL)
            return PD_ENOMEM;
        nm->n++;
    }
    return PD_OK;
}

pd_status pd_net_metrics_create(struct pd_metrics *m, const char *listener,
                                const struct pd_http_server *server,
                                const struct pd_http_client *client,
                                struct pd_net_metrics **out)
{
    struct pd_metric_family *made[(int)S_FAMILIES + (int)C_FAMILIES];
    struct pd_net_metrics *nm = pd_calloc(1, sizeof(*nm));
    pd_status status = PD_OK;

    if (nm == NULL)
        return PD_ENOMEM;
    if (server != NULL) {
        status = make_families(m, server_families, S_FAMILIES, true, made);
        if (status == PD_OK)
            status = add_cells(nm, m, server_families, made, server_rows,
                               PD_ARRAY_LEN(server_rows), listener,
                               pd_http_server_stats(server));
    }
    if (status == PD_OK && client != NULL) {
        status = make_families(m, client_families, C_FAMILIES, false, made);
        if (status == PD_OK)
            status = add_cells(nm, m, client_families, made, client_rows,
                               PD_ARRAY_LEN(client_rows), NULL, pd_http_client_stats(client));
    }
    if (status != PD_OK) {
        pd_free(nm);
        return status;
    }
    *out = nm;
    return PD_OK;
}

void pd_net_metrics_update(struct pd_net_metrics *nm)
{
    for (size_t i = 0; i < nm->n; i++) {
        const struct cell *cell = &nm->cells[i];
        if (cell->counter != NULL)
            __atomic_store_n(&cell->counter->v, *cell->from, __ATOMIC_RELAXED);
        else
            pd_gauge_set(cell->gauge, (double)*cell->from);
    }
}

void pd_net_metrics_destroy(struct pd_net_metrics *nm)
{
    pd_free(nm);
}
