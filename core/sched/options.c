/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the section `scheduler`, and what holds where it says nothing: the
 * profiles and the decider of the usual setup of prefill and decode pools. */
#include "sched/options.h"

#include <pdplane/module.h>
#include <pdplane/scheduler.h>
#include <pdplane/sched.h>

#define PLUGIN_ROWS(rows, kinds, text)                                         \
    static const struct pd_option rows[] = {                                   \
        PD_OPT_STRING("name", struct pd_sched_plugin_conf, name, NULL,         \
                      .flags = PD_OPT_UNIQUE | PD_OPT_NONEMPTY,                \
                      .help = "Name that profiles use; by default that of the unit."), \
        PD_OPT_UNIT("module", struct pd_sched_plugin_conf, unit, kinds,        \
                    .flags = PD_OPT_REQUIRED, .help = text),                   \
        PD_OPT_ALIAS("type", "module"),                                        \
        PD_OPT_PLACE(struct pd_sched_plugin_conf, place),                      \
        PD_OPT_END                                                             \
    }

#define KINDS_FILTER PD_KIND_BIT(PD_KIND_FILTER)
#define KINDS_SCORER PD_KIND_BIT(PD_KIND_SCORER)
#define KINDS_PICKER PD_KIND_BIT(PD_KIND_PICKER)
#define KINDS_DECIDER PD_KIND_BIT(PD_KIND_DECIDER)
#define KINDS_ALL (KINDS_FILTER | KINDS_SCORER | KINDS_PICKER | KINDS_DECIDER)

PLUGIN_ROWS(filter_rows, KINDS_FILTER, "The filter; its own options stand beside this one.");
PLUGIN_ROWS(scorer_rows, KINDS_SCORER, "The scorer; its own options stand beside this one.");
PLUGIN_ROWS(picker_rows, KINDS_PICKER, "The picker; its own options stand beside this one.");
PLUGIN_ROWS(decider_rows, KINDS_DECIDER, "The decider; its own options stand beside this one.");
PLUGIN_ROWS(plugin_rows, KINDS_ALL, "The plugin; its own options stand beside this one.");

static const struct pd_option use_rows[] = {
    PD_OPT_STRING("use", struct pd_sched_use_conf, use, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY,
                  .help = "Name of a plugin of this section, or of a module's unit, which then has "
                          "its defaults."),
    PD_OPT_ALIAS("plugin_ref", "use"),
    PD_OPT_NUMBER("weight", struct pd_sched_use_conf, weight, "1", .lo = 0, .hi = 1000,
                  .help = "What a scorer's value is multiplied with; other kinds have no weight."),
    PD_OPT_PLACE(struct pd_sched_use_conf, place),
    PD_OPT_END
};

static const struct pd_option_name profile_names[] = {
    { "prefill", PD_ROLE_PREFILL },
    { "decode", PD_ROLE_DECODE },
    { NULL, 0 }
};

static const struct pd_option profile_rows[] = {
    PD_OPT_ENUM("name", struct pd_sched_profile_conf, role, NULL, profile_names,
                .flags = PD_OPT_REQUIRED,
                .help = "What the profile chooses: the endpoint that decodes, or those that may "
                        "prefill."),
    PD_OPT_STRING_LIST("filter", struct pd_sched_profile_conf, filters, NULL,
                       .max = 16,
                       .help = "Filters in the order in which they run."),
    PD_OPT_GROUP_LIST("score", struct pd_sched_profile_conf, scorers, use_rows,
                      struct pd_sched_use_conf, .max = 16,
                      .help = "Scorers with their weights; totals are compared by the picker."),
    PD_OPT_STRING("pick", struct pd_sched_profile_conf, pick, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "The picker."),
    PD_OPT_GROUP_LIST("plugins", struct pd_sched_profile_conf, plugins, use_rows,
                      struct pd_sched_use_conf, .max = 32,
                      .help = "Filters, scorers and a picker in one list, as other schedulers "
                              "write it; may replace filter, score and pick."),
    PD_OPT_PLACE(struct pd_sched_profile_conf, place),
    PD_OPT_END
};

static const struct pd_option prefix_rows[] = {
    PD_OPT_INT("block_tokens", struct pd_sched_prefix_conf, block_tokens, "64", .min = 4,
               .max = PD_PROMPT_BLOCK_MAX / 4, .unit = "tokens",
               .help = "Tokens in one block of the prefix index, at 4 bytes of prompt text each."),
    PD_OPT_INT("blocks_per_endpoint", struct pd_sched_prefix_conf, blocks_per_endpoint, "31250",
               .min = 1, .max = 1 << 24, .unit = "blocks",
               .help = "Most blocks that an endpoint is believed to hold; less when the size "
                       "of its cache is known."),
    PD_OPT_INT("max_match_blocks", struct pd_sched_prefix_conf, max_match_blocks, "2048", .min = 1,
               .max = 65536, .unit = "blocks", .help = "Blocks of a prompt that are looked up."),
    PD_OPT_INT("blocks", struct pd_sched_prefix_conf, blocks, "1048576", .min = 64,
               .max = 1 << 27, .unit = "blocks",
               .help = "Blocks of all endpoints together, at about 50 bytes of memory each, "
                       "used as needed."),
    PD_OPT_END
};

const struct pd_option pd_sched_options[] = {
    PD_OPT_GROUP("decider", struct pd_sched_conf, decider, decider_rows,
                 struct pd_sched_plugin_conf, .flags = PD_OPT_POINTER,
                 .help = "Says for each request whether its prompt is computed on a prefill node."),
    PD_OPT_GROUP_LIST("filters", struct pd_sched_conf, filters, filter_rows,
                      struct pd_sched_plugin_conf, .help = "Filters with options."),
    PD_OPT_GROUP_LIST("scorers", struct pd_sched_conf, scorers, scorer_rows,
                      struct pd_sched_plugin_conf, .help = "Scorers with options."),
    PD_OPT_GROUP_LIST("pickers", struct pd_sched_conf, pickers, picker_rows,
                      struct pd_sched_plugin_conf, .help = "Pickers with options."),
    PD_OPT_GROUP_LIST("plugins", struct pd_sched_conf, plugins, plugin_rows,
                      struct pd_sched_plugin_conf,
                      .help = "Plugins of all kinds in one list, as other schedulers write it; a "
                              "decider in it is the decider."),
    PD_OPT_GROUP_LIST("profiles", struct pd_sched_conf, profiles, profile_rows,
                      struct pd_sched_profile_conf, .max = 2,
                      .help = "How endpoints are chosen; a profile that is not given has the usual "
                              "filters, scorers and picker."),
    PD_OPT_GROUP("prefix", struct pd_sched_conf, prefix, prefix_rows, struct pd_sched_prefix_conf,
                 .help = "The index of prompt prefixes and where they were sent."),
    PD_OPT_INT("endpoints", struct pd_sched_conf, endpoints, "1024", .min = 1, .max = 65536,
               .unit = "endpoints", .help = "Most endpoints that are kept."),
    PD_OPT_INT("explain_candidates", struct pd_sched_conf, explain_candidates, "8", .max = 1024,
               .unit = "endpoints",
               .help = "Candidates of each profile that are kept for pdctl explain."),
    PD_OPT_DURATION("load_stale", struct pd_sched_conf, load_stale, "5s", .min = 1000000,
                    .help = "An endpoint whose last load report is older steps back behind the "
                            "others; when all are older, the old numbers are used."),
    PD_OPT_INT("failures", struct pd_sched_conf, failures, "3", .max = 1000, .unit = "failures",
               .help = "Failures in a row after which an endpoint counts as suspect; 0 is never."),
    PD_OPT_DURATION("failure_pause", struct pd_sched_conf, failure_pause, "5s",
                    .help = "How long it does."),
    PD_OPT_PLACE(struct pd_sched_conf, place),
    PD_OPT_END
};

struct holder {
    struct pd_sched_plugin_conf plugin;
};

const struct pd_option pd_sched_plugin_options[] = {
    PD_OPT_GROUP("plugin", struct holder, plugin, plugin_rows, struct pd_sched_plugin_conf,
                 .flags = PD_OPT_REQUIRED, .help = "One plugin."),
    PD_OPT_END
};

const char *const pd_sched_default_modules[] = {
    "role", "health", "prefix_cache", "load_aware", "max_score", "pd_threshold", NULL
};

const char pd_sched_default_decider[] =
    "plugin = { module = \"pd_threshold\"; unit = \"tokens\"; threshold = 25; };\n";

static const char *const default_filters[] = { "role", "health" };
static const struct pd_sched_use_conf default_scorers[] = {
    { .use = "prefix_cache", .weight = 2, .place = { .file = "built in" } },
    { .use = "load_aware", .weight = 1, .place = { .file = "built in" } },
};

struct pd_sched_profile_conf pd_sched_default_profile(uint32_t role)
{
    return (struct pd_sched_profile_conf){
        .role = role,
        .filters = { default_filters, sizeof default_filters / sizeof default_filters[0] },
        .scorers = { default_scorers, sizeof default_scorers / sizeof default_scorers[0],
                     sizeof default_scorers[0] },
        .pick = "max_score",
        .place = { .file = "built in" },
    };
}
