/* SPDX-License-Identifier: Apache-2.0 */
/* Reports on discovery: the sources, and what each of them names. */
#include "node/report.h"

static const char *const role_names[] = { "prefill", "decode", NULL };

void pd_report_sources(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "SOURCE", 0 }, { "type", "TYPE", 0 }, { "state", "STATE", 0 },
        { "entries", "ENTRIES", PD_VIEW_RIGHT }, { "used", "USED", PD_VIEW_RIGHT },
        { "leaving", "LEAVING", PD_VIEW_RIGHT }, { "updates_total", "UPDATES", PD_VIEW_RIGHT },
        { "refused_total", "REFUSED", PD_VIEW_RIGHT }, { "losses_total", "LOSSES", PD_VIEW_RIGHT },
        { "synced_seconds", "SYNCED", PD_VIEW_RIGHT }, { "stays_seconds", "STAYS", PD_VIEW_RIGHT | PD_VIEW_SPARSE },
        { "reason", "REASON", PD_VIEW_SPARSE | PD_VIEW_WIDE }, { NULL, NULL, 0 },
    };
    const struct pd_sources *sources = pd_node_sources(node);
    struct pd_source_info s;
    pd_view_table(v, "sources", NULL, columns, "this node has no sources: its configuration has no discovery");
    for (uint32_t i = 0; sources != NULL && pd_sources_info(sources, i, &s); i++) {
        pd_view_row(v);
        pd_view_str(v, s.name);
        pd_view_str(v, s.unit);
        pd_view_str(v, pd_source_state_name(s.state));
        pd_view_count(v, s.entries);
        pd_view_count(v, s.used);
        pd_view_count(v, s.leaving);
        pd_view_count(v, s.updates);
        pd_view_count(v, s.refused);
        pd_view_count(v, s.losses);
        pd_view_duration(v, s.synced_age);
        pd_view_duration(v, s.stays);
        pd_view_str(v, s.why);
    }
    pd_view_end(v);
}

static void put_labels(struct pd_view *v, const struct pd_entry *e)
{
    if (!v->is_json)
        return;
    pd_json_begin_array(&v->json, "models");
    for (uint32_t i = 0; i < e->n_models; i++)
        pd_json_add_cstr(&v->json, NULL, e->models[i]);
    pd_json_end(&v->json);
    pd_json_begin_object(&v->json, "labels");
    for (uint32_t i = 0; i < e->n_labels; i++)
        pd_json_add_cstr(&v->json, e->labels[i].key, e->labels[i].value);
    pd_json_end(&v->json);
}

void pd_report_entries(struct pd_node *node, struct pd_view *v)
{
    static const struct pd_view_column columns[] = {
        { "name", "ENTRY", 0 }, { "source", "SOURCE", 0 }, { "kind", "KIND", 0 }, { "address", "ADDRESS", 0 },
        { "type", "TYPE", PD_VIEW_SPARSE }, { "roles", "ROLES", PD_VIEW_SPARSE },
        { "weight", NULL, 0 }, { "epoch", NULL, 0 }, { "state", "STATE", 0 },
        { "reason", "REASON", PD_VIEW_SPARSE | PD_VIEW_WIDE }, { NULL, NULL, 0 },
    };
    static const char *const states[] = { "", "used", "leaving", "refused", "waiting" };
    const struct pd_sources *sources = pd_node_sources(node);
    struct pd_source_entry_info e;
    size_t cursor[2] = { 0, 0 };
    pd_view_table(v, "entries", NULL, columns, sources == NULL ? "" : "the sources name nothing");
    while (sources != NULL && pd_sources_entry_next(sources, cursor, &e)) {
        pd_view_row(v);
        pd_view_str(v, e.entry->name);
        pd_view_str(v, e.source);
        pd_view_str(v, e.entry->what == PD_DISCOVERY_PEER ? "peer" : "server");
        pd_view_str(v, e.entry->address);
        pd_view_str(v, e.entry->type);
        pd_view_set(v, e.entry->roles, role_names);
        if (e.entry->weight != 0)
            pd_view_count(v, e.entry->weight);
        else
            pd_view_none(v);
        pd_view_format(v, "%llx", (unsigned long long)e.entry->epoch);
        pd_view_str(v, states[e.state]);
        pd_view_str(v, e.why);
        put_labels(v, e.entry);
    }
    pd_view_end(v);
}
