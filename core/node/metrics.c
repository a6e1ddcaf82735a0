/* SPDX-License-Identifier: Apache-2.0 */
/* The node's own figures in the registry: build, process, loop, HTTP servers,
 * engines.  Servers, loop and engines keep plain numbers; they are copied into
 * instruments when somebody asks, so that counting costs nothing. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "node/node.h"
#include "os/proc.h"

#define MAX_COUNTERS 1024u

/* A counter that follows a number kept elsewhere. */
struct follower {
    struct pd_counter *counter;
    const uint64_t *source;
    uint64_t last;              /* what of it has been counted */
};

struct pd_node_meters {
    struct follower followers[MAX_COUNTERS];
    uint32_t n;
    struct pd_loop_stats loop;         /* refreshed copies; followers point into them */
    uint64_t log_lost, log_suppressed;
    struct pd_engine_load loads[PD_NODE_ENGINES_MAX];
    struct pd_gauge *engine_gauges[PD_NODE_ENGINES_MAX][5];
    struct pd_gauge *conns[2][4];
    struct pd_gauge *held[2][2];
    struct pd_gauge *resident, *heap, *threads, *uptime, *ready, *generation, *generations;
};

static struct pd_metric_family *family_of(struct pd_node *node, int32_t kind, const char *name,
                                          const char *help, const char *const *labels, size_t n_labels)
{
    struct pd_metric_desc desc = { .size = sizeof desc, .name = name, .help = help, .labels = labels,
                                   .n_labels = n_labels };
    struct pd_metric_family *family = NULL;
    struct pd_err err;
    if (pd_metrics_family(node->metrics, kind, &desc, &err, &family) != PD_OK)
        pd_log_error(node->log, "metric %s: %s", name, err.text);
    return family;
}

static void follow(struct pd_node *node, const char *name, const char *help, const char *const *labels,
                   size_t n_labels, const char *const *values, const uint64_t *source)
{
    struct pd_node_meters *m = node->meters;
    struct pd_metric_family *family =
        family_of(node, PD_METRIC_COUNTER, name, help, labels, n_labels);
    if (family == NULL || m->n == MAX_COUNTERS)
        return;
    m->followers[m->n++] =
        (struct follower){ pd_metrics_counter(node->metrics, family, values), source, *source };
}

static struct pd_gauge *gauge_of(struct pd_node *node, const char *name, const char *help,
                                 const char *const *labels, size_t n_labels, const char *const *values)
{
    struct pd_metric_family *family = family_of(node, PD_METRIC_GAUGE, name, help, labels, n_labels);
    return family == NULL ? NULL : pd_metrics_gauge(node->metrics, family, values);
}

static void server_add(struct pd_node *node, const struct pd_http_server *server, const char *listener,
                       uint32_t index)
{
    static const char *const by_listener[] = { "listener" };
    static const char *const by_class[] = { "listener", "class" };
    static const char *const by_reason[] = { "listener", "reason" };
    static const char *const by_kind[] = { "listener", "kind" };
    static const char *const by_direction[] = { "listener", "direction" };
    static const char *const by_state[] = { "listener", "state" };
    static const char *const classes[] = { "aborted", "1xx", "2xx", "3xx", "4xx", "5xx" };
    static const char *const states[] = { "idle", "reading", "serving", "closing" };
    if (server == NULL)
        return;
    const struct pd_http_server_stats *s = pd_http_server_stats(server);
    const struct {
        const char *kind;
        const uint64_t *source;
    } timeouts[] = { { "idle", &s->idle_timeouts }, { "head", &s->head_timeouts },
                     { "body", &s->body_timeouts }, { "write", &s->write_timeouts },
                     { "deadline", &s->deadline_timeouts } };
    follow(node, "pdplane_http_connections_total", "Connections accepted.", by_listener, 1,
           (const char *const[]){ listener }, &s->accepted);
    follow(node, "pdplane_http_connections_refused_total", "Connections above the limit.", by_listener, 1,
           (const char *const[]){ listener }, &s->refused);
    follow(node, "pdplane_http_requests_total", "Requests whose head was accepted.", by_listener, 1,
           (const char *const[]){ listener }, &s->requests);
    follow(node, "pdplane_http_client_gone_total", "Clients that left before the end of an answer.",
           by_listener, 1, (const char *const[]){ listener }, &s->client_gone);
    follow(node, "pdplane_http_bytes_total", "Bytes of clients' connections.", by_direction, 2,
           (const char *const[]){ listener, "in" }, &s->bytes_in);
    follow(node, "pdplane_http_bytes_total", "Bytes of clients' connections.", by_direction, 2,
           (const char *const[]){ listener, "out" }, &s->bytes_out);
    follow(node, "pdplane_http_unauthorized_total", "Requests without a key that is known.", by_listener, 1,
           (const char *const[]){ listener }, &s->unauthorized);
    follow(node, "pdplane_http_overloads_total", "Requests refused because too many bytes were held.",
           by_listener, 1, (const char *const[]){ listener }, &s->overloads);
    node->meters->held[index][0] =
        gauge_of(node, "pdplane_http_held_bytes", "Bytes held for clients now.", by_kind, 2,
                 (const char *const[]){ listener, "requests" });
    node->meters->held[index][1] =
        gauge_of(node, "pdplane_http_held_bytes", "Bytes held for clients now.", by_kind, 2,
                 (const char *const[]){ listener, "answers" });
    for (uint32_t i = 0; i < 6; i++)
        follow(node, "pdplane_http_responses_total", "Answers by class of status.", by_class, 2,
               (const char *const[]){ listener, classes[i] }, &s->responses[i]);
    for (uint32_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++)
        follow(node, "pdplane_http_timeouts_total", "Connections that were too slow.", by_kind, 2,
               (const char *const[]){ listener, timeouts[i].kind }, timeouts[i].source);
    for (uint32_t i = 1; i < PD_HTTP_REJECTS; i++)
        follow(node, "pdplane_http_rejects_total", "Messages refused by the strict parser.", by_reason, 2,
               (const char *const[]){ listener, pd_http_reject_info(i)->label }, &s->rejects[i]);
    for (uint32_t i = 0; i < 4; i++)
        node->meters->conns[index][i] =
            gauge_of(node, "pdplane_http_open_connections", "Connections open now.", by_state, 2,
                     (const char *const[]){ listener, states[i] });
}

/* name: the address of a listener, "link" for links that we open, "data" for what
 * transports connect, "peers" and "peers data" for what other nodes connect. */
static void tls_add(struct pd_node *node, const struct pd_tls *tls, const char *name)
{
    static const char *const by_result[] = { "listener", "result" };
    static const char *const by_listener[] = { "listener" };
    static const char help[] = "Handshakes of TLS by how they ended.";
    if (tls == NULL)
        return;
    const struct pd_tls_stats *s = pd_tls_stats(tls);
    follow(node, "pdplane_tls_handshakes_total", help, by_result, 2, (const char *const[]){ name, "ok" },
           &s->ok);
    for (uint32_t i = 0; i < PD_TLS_FAILS; i++)
        follow(node, "pdplane_tls_handshakes_total", help, by_result, 2,
               (const char *const[]){ name, pd_tls_fail_label((enum pd_tls_fail)i) }, &s->failed[i]);
    follow(node, "pdplane_tls_reloads_total", "Changed certificates that were taken.", by_listener, 1,
           (const char *const[]){ name }, &s->reloads);
    follow(node, "pdplane_tls_reload_failures_total", "Changed certificates that could not be used.",
           by_listener, 1, (const char *const[]){ name }, &s->reload_failures);
}

/* What peer listeners share is counted once. */
static void all_tls_add(struct pd_node *node)
{
    tls_add(node, node->link_out, "link");
    tls_add(node, node->link_in, "peers");
    tls_add(node, node->net.peer_out, "data");
    tls_add(node, node->net.peer_in, "peers data");
    for (uint64_t i = 0; i < node->root->listen.count; i++) {
        if (node->doors[i].tls != node->link_in)
            tls_add(node, node->doors[i].tls,
                    PD_CONF_ITEM(&node->root->listen, struct pd_node_listen_conf, i)->address);
    }
}

static void engine_add(struct pd_node *node, uint32_t i)
{
    static const char *const by_engine[] = { "engine" };
    static const char *const by_kind[] = { "engine", "kind" };
    static const struct {
        const char *name, *help;
    } gauges[5] = {
        { "pdplane_engine_running", "Sequences being computed." },
        { "pdplane_engine_waiting", "Sequences waiting for a place in the batch." },
        { "pdplane_kv_blocks", "KV blocks of the pool." },
        { "pdplane_kv_blocks_free", "KV blocks that are free or can be evicted." },
        { "pdplane_kv_blocks_cached", "KV blocks that hold a prefix and can be evicted." },
    };
    const char *name = node->engines[i]->e.name;
    struct pd_engine_load *load = &node->meters->loads[i];
    *load = (struct pd_engine_load){ .size = sizeof *load };
    node->engines[i]->e.ops->load(node->engines[i]->e.engine, load);
    for (uint32_t k = 0; k < 5; k++)
        node->meters->engine_gauges[i][k] = gauge_of(node, gauges[k].name, gauges[k].help, by_engine, 1,
                                                     (const char *const[]){ name });
    follow(node, "pdplane_engine_tokens_total", "Tokens by what was done with them.", by_kind, 2,
           (const char *const[]){ name, "prompt" }, &load->prompt_tokens);
    follow(node, "pdplane_engine_tokens_total", "Tokens by what was done with them.", by_kind, 2,
           (const char *const[]){ name, "output" }, &load->output_tokens);
    follow(node, "pdplane_engine_tokens_total", "Tokens by what was done with them.", by_kind, 2,
           (const char *const[]){ name, "cached" }, &load->cached_tokens);
    follow(node, "pdplane_engine_preemptions_total",
           "Sequences thrown out of the batch for want of blocks.", by_engine, 1,
           (const char *const[]){ name }, &load->preemptions);
}

static void build_info_add(struct pd_node *node)
{
    static const char *const labels[] = { "version", "abi", "node" };
    char abi[16];
    snprintf(abi, sizeof abi, "%u.%u", (unsigned)PD_ABI_MAJOR, (unsigned)PD_ABI_MINOR);
    pd_gauge_set(gauge_of(node, "pdplane_build_info", "Always 1; the labels tell what runs.", labels, 3,
                          (const char *const[]){ pd_host_api_table()->version, abi, node->name }), 1);
}

/* Begins anew with what the node is made of now.  What was counted before stays. */
static void follow_all(struct pd_node *node)
{
    static const char *const by_result[] = { "result" };
    struct pd_node_meters *m = node->meters;
    m->n = 0;
    pd_loop_stats_get(node->loop, &m->loop);
    follow(node, "pdplane_loop_turns_total", "Turns of the event loop.", NULL, 0, NULL, &m->loop.turns);
    follow(node, "pdplane_loop_slow_turns_total", "Turns above 50 ms.", NULL, 0, NULL,
           &m->loop.slow_turns);
    follow(node, "pdplane_loop_accept_backoffs_total",
           "Times that accepting rested for lack of descriptors or memory.", NULL, 0, NULL,
           &m->loop.accept_backoffs);
    follow(node, "pdplane_loop_reads_total", "Reads from streams.", NULL, 0, NULL, &m->loop.reads);
    follow(node, "pdplane_loop_writes_total", "Writes to streams.", NULL, 0, NULL, &m->loop.writes);
    follow(node, "pdplane_log_lost_total", "Lines of the log that could not be written.", NULL, 0, NULL,
           &m->log_lost);
    follow(node, "pdplane_log_suppressed_total", "Lines of the log held back because there were too many like them.",
           NULL, 0, NULL, &m->log_suppressed);
    follow(node, "pdplane_reloads_total", "Other configurations, taken into use or refused.", by_result, 1,
           (const char *const[]){ "done" }, &node->reloads.done);
    follow(node, "pdplane_reloads_total", "Other configurations, taken into use or refused.", by_result, 1,
           (const char *const[]){ "refused" }, &node->reloads.refused);
    follow(node, "pdplane_generation_requests_ended_total",
           "Requests of earlier configurations that were ended because reload_drain was over.", NULL, 0, NULL,
           &node->reloads.ended);
    server_add(node, node->net.openai, "openai", 0);
    server_add(node, node->net.admin, "admin", 1);
    all_tls_add(node);
    for (uint32_t i = 0; i < node->n_engines; i++)
        engine_add(node, i);
}

static void server_refresh(struct pd_node_meters *m, uint32_t index, const struct pd_http_server *server)
{
    if (server == NULL)
        return;
    const struct pd_http_server_stats *s = pd_http_server_stats(server);
    const uint64_t conns[4] = { s->conns_idle, s->conns_reading, s->conns_serving, s->conns_closing };
    for (uint32_t i = 0; i < 4; i++)
        pd_gauge_set(m->conns[index][i], (double)conns[i]);
    pd_gauge_set(m->held[index][0], (double)s->body_bytes);
    pd_gauge_set(m->held[index][1], (double)s->queued_bytes);
}

/* Brings figures that are kept elsewhere into the registry; before it is read. */
static void refresh(void *arg)
{
    struct pd_node *node = arg;
    struct pd_node_meters *m = node->meters;
    pd_loop_stats_get(node->loop, &m->loop);
    m->log_lost = pd_log_lost(node->log);
    m->log_suppressed = pd_log_suppressed(node->log);
    for (uint32_t i = 0; i < node->n_engines; i++) {
        struct pd_engine_load *l = &m->loads[i];
        l->size = sizeof *l;
        node->engines[i]->e.ops->load(node->engines[i]->e.engine, l);
        const uint32_t values[5] = { l->running, l->waiting, l->blocks_total, l->blocks_free,
                                     l->blocks_cached };
        for (uint32_t k = 0; k < 5; k++)
            pd_gauge_set(m->engine_gauges[i][k], values[k]);
    }
    for (uint32_t i = 0; i < m->n; i++) {
        struct follower *f = &m->followers[i];
        pd_counter_add(f->counter, *f->source - f->last);
        f->last = *f->source;
    }
    server_refresh(m, 0, node->net.openai);
    server_refresh(m, 1, node->net.admin);
    pd_gauge_set(m->resident, (double)pd_proc_rss_bytes());
    pd_gauge_set(m->heap, (double)pd_mem_bytes());
    pd_gauge_set(m->threads, (double)pd_proc_threads());
    pd_gauge_set(m->generation, (double)node->generation->number);
    pd_gauge_set(m->generations, (double)pd_list_count(&node->generations));
    pd_gauge_set(m->uptime, (double)(pd_loop_now(node->loop) - node->started_at) / 1e9);
    pd_gauge_set(m->ready, pd_node_is_ready(node, NULL) && !node->is_draining ? 1 : 0);
}

pd_status pd_node_metrics_add(struct pd_node *node)
{
    struct pd_node_meters *m = pd_calloc(1, sizeof *m);
    if (m == NULL)
        return PD_ENOMEM;
    node->meters = m;
    build_info_add(node);
    m->resident = gauge_of(node, "pdplane_process_resident_bytes", "Resident memory.", NULL, 0, NULL);
    m->heap = gauge_of(node, "pdplane_process_heap_bytes",
                       "Memory that is allocated; 0: the system does not tell.", NULL, 0, NULL);
    m->threads = gauge_of(node, "pdplane_process_threads", "Threads.", NULL, 0, NULL);
    m->uptime = gauge_of(node, "pdplane_uptime_seconds", "Since the node was created.", NULL, 0, NULL);
    m->ready = gauge_of(node, "pdplane_ready", "1 when the node can do its work.", NULL, 0, NULL);
    m->generation = gauge_of(node, "pdplane_generation", "Number of the configuration that holds.", NULL, 0,
                             NULL);
    m->generations = gauge_of(node, "pdplane_generations",
                              "Configurations that requests still hold, the current one included.", NULL, 0,
                              NULL);
    follow_all(node);
    pd_metrics_set_refresh(node->metrics, refresh, node);
    return PD_OK;
}

void pd_node_metrics_rebuild(struct pd_node *node)
{
    follow_all(node);
}

void pd_node_metrics_free(struct pd_node *node)
{
    pd_free(node->meters);
    node->meters = NULL;
}
