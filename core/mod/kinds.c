/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of units this core understands: which versions of their ops it
 * accepts and which members must be there.  The contracts stand in the public
 * header of each kind. */
#include <stdio.h>
#include <string.h>

#include <pdplane/adapter.h>
#include <pdplane/discovery.h>
#include <pdplane/codec.h>
#include <pdplane/engine.h>
#include <pdplane/exporter.h>
#include <pdplane/role.h>
#include <pdplane/scheduler.h>
#include <pdplane/transport.h>

#include "base/compiler.h"
#include "base/str.h"
#include "mod/mod.h"

#define NEED(type, member) { #member, (uint32_t)offsetof(struct type, member) }

static const struct pd_kind_member role_needs[] = {
    NEED(pd_role_ops, create),
    NEED(pd_role_ops, start),
    NEED(pd_role_ops, drain),
    NEED(pd_role_ops, destroy),
};

static const struct pd_kind_member engine_needs[] = {
    NEED(pd_engine_ops, create),
    NEED(pd_engine_ops, destroy),
    NEED(pd_engine_ops, info),
    NEED(pd_engine_ops, load),
    NEED(pd_engine_ops, encode),
    NEED(pd_engine_ops, piece),
    NEED(pd_engine_ops, seq_open),
    NEED(pd_engine_ops, seq_run),
    NEED(pd_engine_ops, seq_close),
};

static const struct pd_kind_member transport_needs[] = {
    NEED(pd_transport_ops, create),
    NEED(pd_transport_ops, destroy),
    NEED(pd_transport_ops, info),
    NEED(pd_transport_ops, address),
    NEED(pd_transport_ops, memory_add),
    NEED(pd_transport_ops, memory_remove),
    NEED(pd_transport_ops, window_open),
    NEED(pd_transport_ops, window_export),
    NEED(pd_transport_ops, window_close),
    NEED(pd_transport_ops, connect),
    NEED(pd_transport_ops, disconnect),
    NEED(pd_transport_ops, target_open),
    NEED(pd_transport_ops, target_close),
    NEED(pd_transport_ops, post),
    NEED(pd_transport_ops, cancel),
};

static const struct pd_kind_member filter_needs[] = {
    NEED(pd_filter_ops, create),
    NEED(pd_filter_ops, destroy),
    NEED(pd_filter_ops, apply),
};

static const struct pd_kind_member scorer_needs[] = {
    NEED(pd_scorer_ops, create),
    NEED(pd_scorer_ops, destroy),
    NEED(pd_scorer_ops, score),
};

static const struct pd_kind_member picker_needs[] = {
    NEED(pd_picker_ops, create),
    NEED(pd_picker_ops, destroy),
    NEED(pd_picker_ops, pick),
};

static const struct pd_kind_member decider_needs[] = {
    NEED(pd_decider_ops, create),
    NEED(pd_decider_ops, destroy),
    NEED(pd_decider_ops, decide),
};

static const struct pd_kind_member adapter_needs[] = {
    NEED(pd_adapter_ops, create),
    NEED(pd_adapter_ops, destroy),
    NEED(pd_adapter_ops, http),
};

static const struct pd_kind_member discovery_needs[] = {
    NEED(pd_discovery_ops, create),
    NEED(pd_discovery_ops, start),
    NEED(pd_discovery_ops, destroy),
};

static const struct pd_kind_member codec_needs[] = {
    NEED(pd_codec_ops, create),
    NEED(pd_codec_ops, destroy),
    NEED(pd_codec_ops, info),
    NEED(pd_codec_ops, bound),
    NEED(pd_codec_ops, state_open),
    NEED(pd_codec_ops, state_close),
    NEED(pd_codec_ops, encode),
    NEED(pd_codec_ops, decode),
};

static const struct pd_kind_member exporter_needs[] = {
    NEED(pd_exporter_ops, create),
    NEED(pd_exporter_ops, destroy),
};

/* A module must bring the struct of version 1, which is what we have now. */
#define KIND(kind_, type, version, needs) \
    { (kind_), (version), (version), (uint32_t)sizeof(struct type), (uint32_t)sizeof(struct type), \
      (uint32_t)PD_ARRAY_LEN(needs), (needs) }

/* The same for a struct that has grown: members from `later` on may be missing. */
#define KIND_GROWN(kind_, type, version, needs, later) \
    { (kind_), (version), (version), (uint32_t)sizeof(struct type), (uint32_t)offsetof(struct type, later), \
      (uint32_t)PD_ARRAY_LEN(needs), (needs) }

static const struct pd_kind_spec kinds[] = {
    KIND(PD_KIND_ROLE, pd_role_ops, PD_ROLE_V1, role_needs),
    KIND(PD_KIND_ENGINE, pd_engine_ops, PD_ENGINE_V1, engine_needs),
    KIND(PD_KIND_TRANSPORT, pd_transport_ops, PD_TRANSPORT_V1, transport_needs),
    KIND_GROWN(PD_KIND_FILTER, pd_filter_ops, PD_FILTER_V1, filter_needs, flags),
    KIND_GROWN(PD_KIND_SCORER, pd_scorer_ops, PD_SCORER_V1, scorer_needs, flags),
    KIND_GROWN(PD_KIND_PICKER, pd_picker_ops, PD_PICKER_V1, picker_needs, flags),
    KIND(PD_KIND_DECIDER, pd_decider_ops, PD_DECIDER_V1, decider_needs),
    /* Adapters of servers that do not share requests may end before `split`. */
    KIND_GROWN(PD_KIND_ADAPTER, pd_adapter_ops, PD_ADAPTER_V1, adapter_needs, split),
    KIND(PD_KIND_DISCOVERY, pd_discovery_ops, PD_DISCOVERY_V1, discovery_needs),
    KIND(PD_KIND_EXPORTER, pd_exporter_ops, PD_EXPORTER_V1, exporter_needs),
    KIND(PD_KIND_CODEC, pd_codec_ops, PD_CODEC_V1, codec_needs),
    { 0, 0, 0, 0, 0, 0, NULL },
};

static const char *const names[PD_KIND_LIMIT] = {
    [PD_KIND_ROLE] = "role",           [PD_KIND_ENGINE] = "engine",
    [PD_KIND_TRANSPORT] = "transport", [PD_KIND_FILTER] = "filter",
    [PD_KIND_SCORER] = "scorer",       [PD_KIND_PICKER] = "picker",
    [PD_KIND_DECIDER] = "decider",     [PD_KIND_DISCOVERY] = "discovery",
    [PD_KIND_EXPORTER] = "exporter",   [PD_KIND_CODEC] = "codec",
    [PD_KIND_ADAPTER] = "adapter",
};

const struct pd_kind_spec *pd_kinds(void)
{
    return kinds;
}

const char *pd_kind_name(uint32_t kind)
{
    return kind < PD_KIND_LIMIT && names[kind] != NULL ? names[kind] : "unknown";
}

const char *pd_kinds_text(uint64_t set, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (uint32_t kind = 1; kind < PD_KIND_LIMIT; kind++) {
        if ((set & PD_KIND_BIT(kind)) != 0)
            n = pd_str_addf(out, size, n, "%s%s", n == 0 ? "" : " or ", pd_kind_name(kind));
    }
    return out;
}
