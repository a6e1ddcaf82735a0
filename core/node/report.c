/* SPDX-License-Identifier: Apache-2.0 */
/* Reports on the node itself and its surroundings: status, engines, listeners,
 * peers, endpoints, modules.  Keys of JSON never change their meaning. */
#include "node/report.h"

#include <stdio.h>

#include "base/compiler.h"
#include "base/str.h"
#include "base/uuid.h"
#include "os/proc.h"

static const char *const role_names[] = { "prefill", "decode", "router", NULL };

static pd_time age_of(const struct pd_node *node, pd_time then)
{
    pd_time now = pd_loop_now(node->loop);
    return then == PD_TIME_NEVER ? PD_TIME_NEVER : now > then ? now - then : 0;
}

/* ---- status --------------------------------------------------------------------------- */

static uint32_t roles_of(struct pd_node *node)
{
    struct pd_peer_info info = { .size = sizeof info };
    const struct pd_peer_api *peer = pd_peer_table();
    if (peer->info(node->peers, peer->self(node->peers), &info) != PD_OK)
        return 0;
    return info.desc->roles;
}

static void put_state(struct pd_node *node, struct pd_view *v)
{
    const struct pd_node_part *part = NULL;
    bool is_ready = pd_node_is_ready(node, &part) && !node->is_draining;
    const char *state = node->is_draining ? "draining" : is_ready ? "ready" : "not ready";
    pd_view_field(v, "state", NULL);
    pd_view_str(v, state);
    pd_view_field(v, "ready", NULL);
    pd_view_bool(v, is_ready);
    pd_view_field(v, "reason", NULL);
    pd_view_str(v, part != NULL ? part->reason : "");
    pd_view_field(v, NULL, "state");
    if (part != NULL)
        pd_view_format(v, "%s (%s: %s)", state, part->name, part->reason);
    else
        pd_view_str(v, state);
}

static void put_identity(struct pd_node *node, struct pd_view *v)
{
    char uuid[PD_UUID_TEXT];
    pd_view_field(v, "name", "node");
    pd_view_str(v, node->name);
    pd_view_field(v, "uuid", "uuid");
    pd_view_str(v, pd_uuid_format(&node->id.uuid, uuid));
    pd_view_field(v, "epoch", "epoch");
    pd_view_format(v, "%llx", (unsigned long long)node->id.epoch);
    pd_view_field(v, "version", "version");
    pd_view_str(v, pd_host_api_table()->version);
    pd_view_field(v, "roles", "roles");
    pd_view_set(v, roles_of(node), role_names);
}

static void put_books(struct pd_node *node, struct pd_view *v)
{
    struct pd_req_counts counts;
    pd_reqs_counts(node->reqs, &counts);
    pd_view_object(v, "requests_total", "REQUESTS");
    pd_view_field(v, "accepted", "accepted");
    pd_view_count(v, counts.accepted);
    for (uint32_t i = 0; i < PD_REQ_OUTCOMES; i++) {
        pd_view_field(v, pd_req_outcome_name(i), pd_req_outcome_name(i));
        pd_view_count(v, counts.outcome[i]);
    }
    pd_view_end(v);
}

static void put_loop(struct pd_node *node, struct pd_view *v)
{
    struct pd_loop_stats s;
    pd_loop_stats_get(node->loop, &s);
    pd_view_object(v, "loop", NULL);
    pd_view_field(v, "turns", NULL);
    pd_view_count(v, s.turns);
    pd_view_field(v, "busy_seconds", NULL);
    pd_view_duration(v, s.busy_ns);
    pd_view_field(v, "slow_turns", NULL);
    pd_view_count(v, s.slow_turns);
    pd_view_field(v, "slow_max_seconds", NULL);
    pd_view_duration(v, s.slow_max_ns);
    pd_view_field(v, "slow_handler", NULL);
    pd_view_str(v, s.slow_name != NULL ? s.slow_name : "");
    pd_view_field(v, NULL, "slow loop turns");
    if (s.slow_turns > 0)
        pd_view_format(v, "%llu, longest %.0f ms in \"%s\"", (unsigned long long)s.slow_turns,
                       (double)s.slow_max_ns / 1e6, s.slow_name != NULL ? s.slow_name : "?");
    else
        pd_view_str(v, "none");
    pd_view_field(v, "streams", "connections");
    pd_view_count(v, s.streams);
    pd_view_end(v);
}

void pd_report_status(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "PART", 0 }, { "ready", "READY", 0 }, { "reason", "REASON", PD_VIEW_SPARSE },
        { NULL, NULL, 0 },
    };
    pd_view_object(v, "node", NULL);
    put_identity(node, v);
    put_state(node, v);
    pd_view_field(v, "uptime_seconds", "uptime");
    pd_view_duration(v, age_of(node, node->started_at));
    pd_view_field(v, "resident_bytes", "memory");
    pd_view_bytes(v, pd_proc_rss_bytes());
    pd_view_field(v, "threads", "threads");
    pd_view_count(v, pd_proc_threads());
    pd_view_field(v, "time_unix_seconds", NULL);
    pd_view_number(v, (double)pd_loop_wall(node->loop) / 1e9);
    pd_view_end(v);
    put_loop(node, v);
    put_books(node, v);
    pd_view_table(v, "parts", NULL, columns, NULL);
    for (uint32_t i = 0; i < node->n_parts; i++) {
        const struct pd_node_part *p = &node->parts[i];
        pd_view_row(v);
        pd_view_str(v, p->name);
        pd_view_bool(v, p->is_ready);
        pd_view_str(v, p->is_ready ? "" : p->reason);
    }
    pd_view_end(v);
}

/* ---- engines and listeners ----------------------------------------------------------------- */

void pd_report_engines(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "ENGINE", 0 }, { "model", "MODEL", 0 }, { "roles", "ROLES", 0 },
        { "running", "RUNNING", PD_VIEW_RIGHT }, { "waiting", "WAITING", PD_VIEW_RIGHT },
        { "blocks_free", "FREE", PD_VIEW_RIGHT }, { "blocks_cached", "CACHED", PD_VIEW_RIGHT },
        { "blocks_total", "BLOCKS", PD_VIEW_RIGHT }, { "block_tokens", "PER BLOCK", PD_VIEW_RIGHT },
        { "prompt_tokens", "PROMPT", PD_VIEW_RIGHT }, { "cached_tokens", "HIT", PD_VIEW_RIGHT },
        { "output_tokens", "OUTPUT", PD_VIEW_RIGHT }, { "preemptions", "PREEMPTED", PD_VIEW_RIGHT },
        { "context_tokens", NULL, 0 }, { "region_bytes", NULL, 0 }, { NULL, NULL, 0 },
    };
    pd_view_table(v, "engines", "ENGINES", columns, NULL);
    for (uint32_t i = 0; i < node->n_engines; i++) {
        const struct pd_node_engine *e = &node->engines[i]->e;
        struct pd_engine_load load = { .size = sizeof load };
        e->ops->load(e->engine, &load);
        pd_view_row(v);
        pd_view_str(v, e->name);
        pd_view_str(v, e->model);
        pd_view_set(v, e->roles, role_names);
        pd_view_count(v, load.running);
        pd_view_count(v, load.waiting);
        pd_view_count(v, load.blocks_free);
        pd_view_count(v, load.blocks_cached);
        pd_view_count(v, load.blocks_total);
        pd_view_count(v, e->info.layout.block_tokens);
        pd_view_count(v, load.prompt_tokens);
        pd_view_count(v, load.cached_tokens);
        pd_view_count(v, load.output_tokens);
        pd_view_count(v, load.preemptions);
        pd_view_count(v, e->info.context_tokens);
        pd_view_count(v, e->info.region_bytes);
    }
    pd_view_end(v);
}

void pd_report_listen(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "address", "LISTENS ON", 0 }, { "api", "FOR", 0 }, { NULL, NULL, 0 }
    };
    static const char *const apis[] = { "", "openai", "admin", "peer" };
    const struct pd_conf_list *list = &node->root->listen;
    pd_view_table(v, "listen", NULL, columns, NULL);
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(list, struct pd_node_listen_conf, i);
        pd_view_row(v);
        pd_view_str(v, l->address);
        pd_view_str(v, l->api < PD_ARRAY_LEN(apis) ? apis[l->api] : "");
    }
    pd_view_end(v);
}

/* ---- peers ------------------------------------------------------------------------------------ */

static const char *peer_state(const struct pd_peer_info *p)
{
    static const char *const names[] = { "unknown", "connecting", "up", "suspect", "down" };
    if (p->state == PD_PEER_UP && (p->flags & PD_PEER_DRAINING) != 0)
        return "draining";
    if (p->state == PD_PEER_UP && (p->flags & PD_PEER_RESTING) != 0)
        return "resting";
    return names[p->state < PD_ARRAY_LEN(names) ? p->state : 0];
}

/* The engines of a peer: a sum in text, all of them in JSON. */
static void put_load(struct pd_view *v, const struct pd_peer_info *p)
{
    uint64_t running = 0, waiting = 0, free_blocks = 0, blocks = 0;
    bool is_known = p->load != NULL && ((p->flags & PD_PEER_SELF) != 0 || p->load_at != PD_TIME_NEVER);
    for (uint32_t i = 0; is_known && i < p->desc->n_engines; i++) {
        running += p->load[i].running;
        waiting += p->load[i].waiting;
        free_blocks += p->load[i].blocks_free;
        blocks += p->load[i].blocks_total;
    }
    if (p->desc->n_engines == 0 || !is_known)
        pd_view_none(v);
    else
        pd_view_format(v, "%llu+%llu, %llu/%llu free", (unsigned long long)running,
                       (unsigned long long)waiting, (unsigned long long)free_blocks,
                       (unsigned long long)blocks);
    if (!v->is_json)
        return;
    pd_json_begin_array(&v->json, "engines");
    for (uint32_t i = 0; i < p->desc->n_engines; i++) {
        const struct pd_peer_engine *e = &p->desc->engines[i];
        pd_json_begin_object(&v->json, NULL);
        pd_json_add_cstr(&v->json, "name", e->name);
        pd_json_add_cstr(&v->json, "model", e->model);
        if (is_known) {
            pd_json_add_u64(&v->json, "running", p->load[i].running);
            pd_json_add_u64(&v->json, "waiting", p->load[i].waiting);
            pd_json_add_u64(&v->json, "blocks_free", p->load[i].blocks_free);
            pd_json_add_u64(&v->json, "blocks_total", p->load[i].blocks_total);
        }
        pd_json_end(&v->json);
    }
    pd_json_end(&v->json);
    pd_json_begin_array(&v->json, "transports");
    for (uint32_t i = 0; i < p->desc->n_transports; i++)
        pd_json_add_cstr(&v->json, NULL, p->desc->transports[i].name);
    pd_json_end(&v->json);
}

static void put_peer(struct pd_node *node, struct pd_view *v, const struct pd_peer_info *p)
{
    static const char *const flags[] = { "self", "draining", "same_host", "configured", "inbound", "resting", NULL };
    bool is_self = (p->flags & PD_PEER_SELF) != 0;
    char uuid[PD_UUID_TEXT];
    pd_view_row(v);
    pd_view_str(v, p->desc->name);
    pd_view_str(v, is_self && (p->flags & PD_PEER_DRAINING) == 0 ? "self" : peer_state(p));
    pd_view_set(v, p->desc->roles, role_names);
    pd_view_format(v, "%llx", (unsigned long long)p->desc->id.epoch);
    pd_view_str(v, pd_uuid_format(&p->desc->id.uuid, uuid));
    pd_view_str(v, p->desc->version);
    pd_view_str(v, p->address);
    pd_view_duration(v, is_self || p->rtt == 0 ? PD_TIME_NEVER : p->rtt);
    pd_view_duration(v, is_self ? PD_TIME_NEVER : age_of(node, p->seen_at));
    pd_view_duration(v, age_of(node, p->since));
    pd_view_count(v, p->calls);
    pd_view_bytes(v, p->bytes_in);
    pd_view_bytes(v, p->bytes_out);
    pd_view_rate(v, is_self || node->kv == NULL ? 0 : pd_kv_table()->bandwidth(node->kv, p->ref));
    put_load(v, p);
    pd_view_set(v, p->flags, flags);
    pd_view_count(v, p->suspects);
    pd_view_count(v, p->downs);
    pd_view_str(v, p->reason);
}

void pd_report_nodes(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "NODE", 0 }, { "state", "STATE", 0 }, { "roles", "ROLES", 0 },
        { "epoch", "EPOCH", 0 }, { "uuid", NULL, 0 }, { "version", NULL, 0 },
        { "address", "ADDRESS", 0 }, { "rtt_seconds", "RTT", PD_VIEW_RIGHT },
        { "seen_seconds", "SEEN", PD_VIEW_RIGHT }, { "since_seconds", "SINCE", PD_VIEW_RIGHT },
        { "calls", "CALLS", PD_VIEW_RIGHT }, { "bytes_in", NULL, 0 }, { "bytes_out", NULL, 0 },
        { "kv_bytes_per_second", "KV RATE", PD_VIEW_RIGHT | PD_VIEW_SPARSE }, { NULL, "RUN+WAIT, BLOCKS", 0 },
        { "flags", NULL, 0 }, { "suspects", NULL, 0 }, { "downs", NULL, 0 },
        { "reason", "REASON", PD_VIEW_SPARSE }, { NULL, NULL, 0 },
    };
    const struct pd_peer_api *peer = pd_peer_table();
    pd_view_table(v, "nodes", NULL, columns, "no nodes");
    for (pd_peer_ref ref = peer->next(node->peers, 0); ref != 0; ref = peer->next(node->peers, ref)) {
        struct pd_peer_info info = { .size = sizeof info };
        if (peer->info(node->peers, ref, &info) == PD_OK && info.desc != NULL)
            put_peer(node, v, &info);
    }
    pd_view_end(v);
}

/* ---- endpoints ---------------------------------------------------------------------------------- */

static const char *endpoint_state(uint32_t state)
{
    static const char *const names[] = { "unknown", "up", "suspect", "down", "draining" };
    return names[state < PD_ARRAY_LEN(names) ? state : 0];
}

/* The source of a server, which goes by its name and address. */
static const char *source_of(const struct pd_node *node, const struct pd_endpoint_status *e)
{
    const struct pd_sources *sources = pd_node_sources(node);
    struct pd_str key = pd_str_from(e->key);
    const char *source = sources == NULL ? NULL
                         : pd_sources_of(sources, pd_str_sub(key, 0, pd_str_find_char(key, ' ')));
    return source != NULL ? source : "";
}

static void put_endpoint(struct pd_node *node, struct pd_view *v, const struct pd_endpoint_status *e)
{
    bool is_known = e->view.report_age_ns != PD_TIME_NEVER;
    pd_view_row(v);
    pd_view_str(v, e->view.name);
    pd_view_set(v, e->view.roles != 0 ? e->view.roles : PD_ROLE_DECODE, role_names);
    pd_view_str(v, endpoint_state(e->view.state));
    if (is_known) {
        pd_view_count(v, e->view.running);
        pd_view_count(v, e->view.waiting);
    } else {
        pd_view_none(v);
        pd_view_none(v);
    }
    pd_view_count(v, e->view.inflight);
    pd_view_count(v, e->view.inflight_tokens);
    if (e->view.blocks_total != 0 && is_known)
        pd_view_count(v, e->view.blocks_free);
    else
        pd_view_none(v);
    if (e->view.blocks_total != 0)
        pd_view_count(v, e->view.blocks_total);
    else
        pd_view_none(v);
    pd_view_count(v, e->index_blocks);
    pd_view_count(v, e->dispatched_total);
    pd_view_count(v, e->failed_total);
    pd_view_count(v, e->failures);
    pd_view_duration(v, e->view.report_age_ns);
    pd_view_str(v, source_of(node, e));
    pd_view_count(v, e->view.weight);
    pd_view_str(v, e->key);
    if (!v->is_json)
        return;
    pd_json_begin_array(&v->json, "models");
    for (const char *const *m = e->models; m != NULL && *m != NULL; m++)
        pd_json_add_cstr(&v->json, NULL, *m);
    pd_json_end(&v->json);
}

void pd_report_endpoints(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "ENDPOINT", 0 }, { "roles", "ROLES", 0 }, { "state", "STATE", 0 },
        { "running", "RUNNING", PD_VIEW_RIGHT }, { "waiting", "WAITING", PD_VIEW_RIGHT },
        { "inflight", "INFLIGHT", PD_VIEW_RIGHT }, { "inflight_tokens", "TOKENS", PD_VIEW_RIGHT },
        { "blocks_free", "FREE", PD_VIEW_RIGHT }, { "blocks_total", "BLOCKS", PD_VIEW_RIGHT },
        { "index_blocks", "INDEXED", PD_VIEW_RIGHT }, { "dispatched_total", "SENT", PD_VIEW_RIGHT },
        { "failed_total", "FAILED", PD_VIEW_RIGHT }, { "failures", "IN A ROW", PD_VIEW_RIGHT },
        { "report_age_seconds", "REPORT", PD_VIEW_RIGHT },
        { "source", "SOURCE", PD_VIEW_SPARSE }, { "weight", NULL, 0 }, { "key", NULL, 0 },
        { NULL, NULL, 0 },
    };
    struct pd_endpoint_status status = { .size = sizeof status };
    uint32_t cursor = 0;
    pd_view_table(v, "endpoints", NULL, columns,
                  node->sched == NULL ? "this node does not schedule: it has no router role"
                                      : "no endpoints are known yet");
    while (node->sched != NULL &&
           pd_sched_api()->endpoint_next(node->sched, &cursor, pd_loop_now(node->loop), &status))
        put_endpoint(node, v, &status);
    pd_view_end(v);
}

/* ---- modules ---------------------------------------------------------------------------------------- */

void pd_report_modules(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "MODULE", 0 }, { "version", "VERSION", 0 }, { "abi", "ABI", 0 },
        { NULL, "UNITS", PD_VIEW_WIDE }, { "summary", "SUMMARY", PD_VIEW_WIDE }, { "path", NULL, 0 },
        { NULL, NULL, 0 },
    };
    const struct pd_mod *m;
    pd_view_table(v, "modules", NULL, columns, "no modules are loaded");
    for (size_t i = 0; (m = pd_mods_at(node->mods, i)) != NULL; i++) {
        char units[400] = "";
        size_t n = 0;
        for (const struct pd_unit *u = m->module->units; u->size != 0; u = pd_unit_next(u)) {
            if (n < sizeof units)
                n += (size_t)snprintf(units + n, sizeof units - n, "%s%s %s", n > 0 ? ", " : "",
                                      pd_kind_name(u->kind), u->name);
        }
        pd_view_row(v);
        pd_view_str(v, m->name);
        pd_view_str(v, m->module->version);
        pd_view_format(v, "%u.%u", m->module->abi_major, m->module->abi_minor);
        pd_view_str(v, units);
        pd_view_str(v, m->module->summary);
        pd_view_str(v, m->path);
        if (!v->is_json)
            continue;
        pd_json_begin_array(&v->json, "units");
        for (const struct pd_unit *u = m->module->units; u->size != 0; u = pd_unit_next(u)) {
            pd_json_begin_object(&v->json, NULL);
            pd_json_add_cstr(&v->json, "kind", pd_kind_name(u->kind));
            pd_json_add_cstr(&v->json, "name", u->name);
            pd_json_add_u64(&v->json, "version", u->ops->version);
            pd_json_add_cstr(&v->json, "summary", u->summary != NULL ? u->summary : "");
            pd_json_end(&v->json);
        }
        pd_json_end(&v->json);
    }
    pd_view_end(v);
}
