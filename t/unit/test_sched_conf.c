/* SPDX-License-Identifier: Apache-2.0 */
/* From configuration text to a pipeline, with the plugins that were built. */
#include "unit.h"

#include "base/str.h"
#include "conf/conf.h"
#include "mod/host.h"
#include "mod/mod.h"
#include "req/reqs.h"
#include "sched/plugins.h"
#include "sched/scheduler.h"

static const char *const modules[][2] = {
    { "filter", "role" },        { "filter", "health" },    { "score", "least_loaded" },
    { "score", "load_aware" },   { "score", "prefix_cache" }, { "pick", "max_score" },
    { "pick", "round_robin" },   { "pick", "random" },      { "pick", "weighted_random" },
    { "decide", "pd_threshold" },
};

struct rig {
    struct pd_mods *mods;
    struct pd_conf *conf;
    struct pd_sched_plugins *plugins;
    const struct pd_sched_pipeline *pipeline;
    struct pd_conf_resolver resolver;
    struct pd_err err;
};

/* The section's options at the top level of a file. */
static pd_status load(struct rig *r, const char *text)
{
    const struct pd_mods_params params = { .host = pd_host_api_table() };
    struct pd_conf_report report;
    const char *dir = getenv("PD_BUILDDIR");
    char path[1024];
    memset(r, 0, sizeof *r);
    assert_int_equal(pd_mods_create(&params, &r->mods), PD_OK);
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        snprintf(path, sizeof path, "%s/modules/scheduler/%s/%s/.libs/%s.so",
                 dir == NULL ? "." : dir, modules[i][0], modules[i][1], modules[i][1]);
        if (pd_mods_load(r->mods, path, &r->err) != PD_OK)
            fail_msg("%s; %s", r->err.text, r->err.hint);
    }
    r->resolver = pd_mods_resolver(r->mods);
    pd_conf_report_init(&report);
    pd_status st = pd_conf_open_text("pd.conf", pd_str_from(text), NULL, &report, &r->conf);
    if (st == PD_OK)
        st = pd_conf_fill(r->conf, pd_sched_options, sizeof(struct pd_sched_conf), &r->resolver,
                          &report);
    if (st != PD_OK && report.n_errors > 0)
        r->err = report.errors[0];
    pd_conf_report_fini(&report);
    if (st != PD_OK)
        return st;
    const struct pd_sched_plugins_params p = { .conf = pd_conf_root(r->conf), .mods = r->mods };
    st = pd_sched_plugins_create(&p, &r->err, &r->plugins);
    if (st == PD_OK)
        r->pipeline = pd_sched_plugins_pipeline(r->plugins);
    return st;
}

static void unload(struct rig *r)
{
    pd_sched_plugins_destroy(r->plugins);
    pd_conf_put(r->conf);
    pd_mods_destroy(r->mods);
}

static void good(struct rig *r, const char *text)
{
    if (load(r, text) != PD_OK)
        fail_msg("%s:%u: %s; %s", r->err.file, r->err.line, r->err.text, r->err.hint);
}

/* "role health | prefix_cache*2 load_aware*1 | max_score" */
static void shape_is(const struct pd_profile *p, const char *expected)
{
    char text[512] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < p->filters_n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s ", p->filters[i].name);
    at += (size_t)snprintf(text + at, sizeof text - at, "| ");
    for (uint32_t i = 0; i < p->scorers_n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s*%g ", p->scorers[i].name,
                               p->scorers[i].weight);
    snprintf(text + at, sizeof text - at, "| %s", p->picker_name);
    assert_string_equal(text, expected);
}

/* What the decider says to a prompt of this many bytes of which nothing is cached. */
static uint32_t decides(const struct rig *r, uint64_t bytes)
{
    struct pd_sched_request request = { .size = sizeof request, .prompt_bytes = bytes,
                                        .prompt_tokens = bytes / 4, .prompt_blocks = 1,
                                        .block_tokens = 64 };
    struct pd_endpoint_view view = { .size = sizeof view };
    struct pd_decision decision = { .size = sizeof decision };
    r->pipeline->decider_ops->decide(r->pipeline->decider, &request, &view, 1, &decision);
    return decision.mode;
}

static void nothing_said(void **state)
{
    (void)state;
    struct rig r;
    good(&r, "");
    shape_is(&r.pipeline->decode, "role health | prefix_cache*2 load_aware*1 | max_score");
    shape_is(&r.pipeline->prefill, "role health | prefix_cache*2 load_aware*1 | max_score");
    /* One instance serves both profiles. */
    assert_ptr_equal(r.pipeline->decode.filters[0].instance,
                     r.pipeline->prefill.filters[0].instance);
    assert_int_equal(decides(&r, 100), PD_DECIDE_EXACT);
    const struct pd_sched_conf *conf = pd_conf_root(r.conf);
    assert_int_equal(conf->endpoints, 1024);
    assert_int_equal(conf->prefix.max_match_blocks, 2048);
    struct pd_sched *sched = NULL;
    assert_int_equal(pd_sched_create(conf, r.pipeline, NULL, &r.err, &sched), PD_OK);
    pd_sched_destroy(sched);
    unload(&r);
}

static void named_plugins(void **state)
{
    (void)state;
    struct rig r;
    good(&r,
         "decider = { module = \"pd_threshold\"; unit = \"chars\"; threshold = 100;\n"
         "            min_prompt_tokens = 0; when_no_index = \"local\"; };\n"
         "filters = ( { name = \"p_only\"; module = \"role\"; allow = [ \"prefill\", "
         "\"both\" ]; },\n"
         "            { name = \"d_only\"; module = \"role\"; allow = [ \"decode\", "
         "\"both\", \"unlabelled\" ]; } );\n"
         "scorers = ( { name = \"prefix\"; module = \"prefix_lru\"; },\n"
         "            { name = \"load\"; module = \"load_aware\"; "
         "queue_threshold = 128; ceiling = 0.5; } );\n"
         "profiles = (\n"
         "  { name = \"prefill\"; filter = [ \"p_only\" ]; pick = \"max\";\n"
         "    score = ( { use = \"prefix\"; weight = 2.0; }, { use = \"load\"; "
         "weight = 1.0; } ); },\n"
         "  { name = \"decode\"; filter = [ \"d_only\" ]; pick = \"max\";\n"
         "    score = ( { use = \"prefix\"; weight = 2.0; }, { use = \"load\"; } ); } );\n"
         "prefix = { block_tokens = 64; blocks_per_endpoint = 31250; "
         "max_match_blocks = 2048; };\n");
    shape_is(&r.pipeline->prefill, "p_only | prefix*2 load*1 | max_score");
    shape_is(&r.pipeline->decode, "d_only | prefix*2 load*1 | max_score");
    assert_int_equal(decides(&r, 99), PD_DECIDE_LOCAL);
    assert_int_equal(decides(&r, 100), PD_DECIDE_REMOTE);
    unload(&r);
}

/* The EndpointPickerConfig of other schedulers, word by word. */
static void names_of_other_schedulers(void **state)
{
    (void)state;
    struct rig r;
    good(&r,
         "plugins = ( { type = \"pd-profile-handler\"; unit = \"chars\"; threshold = 100; },\n"
         "            { type = \"prefill-header-handler\"; },\n"
         "            { type = \"prefill-filter\"; }, { type = \"decode-filter\"; },\n"
         "            { type = \"prefix-cache-scorer\"; }, { type = \"load-aware-scorer\"; },\n"
         "            { type = \"max-score-picker\"; } );\n"
         "profiles = (\n"
         "  { name = \"prefill\"; plugins = ( { plugin_ref = \"prefill-filter\"; },\n"
         "      { plugin_ref = \"prefix-cache-scorer\"; weight = 2.0; },\n"
         "      { plugin_ref = \"load-aware-scorer\"; weight = 1.0; },\n"
         "      { plugin_ref = \"max-score-picker\"; } ); },\n"
         "  { name = \"decode\"; plugins = ( { plugin_ref = \"decode-filter\"; },\n"
         "      { plugin_ref = \"prefix-cache-scorer\"; weight = 2.0; },\n"
         "      { plugin_ref = \"load-aware-scorer\"; weight = 1.0; },\n"
         "      { plugin_ref = \"max-score-picker\"; } ); } );\n");
    shape_is(&r.pipeline->prefill, "role_prefill | prefix_cache*2 load_aware*1 | max_score");
    shape_is(&r.pipeline->decode, "role_decode | prefix_cache*2 load_aware*1 | max_score");
    assert_int_equal(decides(&r, 99), PD_DECIDE_LOCAL);
    assert_int_equal(decides(&r, 100), PD_DECIDE_REMOTE);
    unload(&r);
}

static void short_forms(void **state)
{
    (void)state;
    struct rig r;
    good(&r, "profiles = ( { name = \"decode\"; filter = [ \"role\" ]; pick = \"round_robin\"; },\n"
             "  { name = \"prefill\"; score = ( { use = \"least_loaded\"; weight = 0.5; } ); } );\n"
             "decider = { module = \"pd_threshold\"; unit = \"tokens\"; threshold = 0; };\n");
    shape_is(&r.pipeline->decode, "role | | round_robin");
    shape_is(&r.pipeline->prefill, "| least_loaded*0.5 | max_score");
    assert_int_equal(decides(&r, 1), PD_DECIDE_REMOTE);
    unload(&r);
    /* A plugin without a name has its options also where it is named by its unit. */
    good(&r, "scorers = ( { module = \"load_aware\"; ceiling = 1.0; } );");
    struct pd_endpoint_view view = { .size = sizeof view };
    struct pd_sched_request request = { .size = sizeof request };
    double score = 0;
    const struct pd_profile *decode = &r.pipeline->decode;
    decode->scorers[1].ops->score(decode->scorers[1].instance, &request, &view, 1, &score);
    assert_true(score > 0.999);
    unload(&r);
}

static void bad(const char *text, uint32_t line, const char *says)
{
    struct rig r;
    assert_int_not_equal(load(&r, text), PD_OK);
    if (strstr(r.err.text, says) == NULL || r.err.line != line)
        fail_msg("%s:%u: %s", r.err.file, r.err.line, r.err.text);
    if (line != 0)
        assert_string_equal(r.err.file, "pd.conf");
    unload(&r);
}

static void errors_name_the_place(void **state)
{
    (void)state;
    bad("\n\nprofiles = (\n{ name = \"decode\"; filter = [ \"rule\" ]; } );", 4,
        "there is no filter \"rule\"");
    bad("profiles = ( { name = \"decode\";\n score = (\n { use = \"max_score\"; } ); } );", 3,
        "there is no scorer \"max_score\"");
    bad("profiles = ( { name = \"decode\"; },\n { name = \"decode\"; } );", 2, "two profiles");
    bad("profiles = ( { name = \"decode\"; pick = \"max\";\n"
        "plugins = ( { use = \"random\"; } ); } );", 1, "two pickers");
    bad("decider = { module = \"pd_threshold\"; threshold = 100; };", 1, "unit");
    bad("decider = { module = \"pd_threshold\"; unit = \"chars\"; };", 1, "threshold");
    bad("decider = { module = \"pd_threshold\"; unit = \"chars\"; threshold = 1; };\nplugins = (\n"
        "{ module = \"pd_threshold\"; unit = \"chars\"; threshold = 2; } );", 3, "two deciders");
    bad("filters = ( { name = \"a\"; module = \"role\"; } );\n"
        "plugins = ( { name = \"a\"; module = \"health\"; } );", 2, "two plugins");
    bad("filters = ( { name = \"a\"; module = \"max_score\"; } );", 1, "max_score");
    bad("profiles = ( { name = \"encode\"; } );", 1, "encode");
    bad("scorers = ( { module = \"load_aware\"; treshold = 1; } );", 1, "treshold");
}

static void rows_are_sane(void **state)
{
    (void)state;
    struct pd_err err = { 0 };
    if (pd_conf_rows_check(pd_sched_options, sizeof(struct pd_sched_conf), &err) != PD_OK ||
        pd_conf_rows_check(pd_sched_plugin_options, sizeof(struct pd_sched_plugin_conf), &err) !=
            PD_OK ||
        pd_conf_rows_check(pd_reqs_options, sizeof(struct pd_reqs_conf), &err) != PD_OK)
        fail_msg("%s", err.text);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(rows_are_sane),
    cmocka_unit_test(nothing_said),
    cmocka_unit_test(named_plugins),
    cmocka_unit_test(names_of_other_schedulers),
    cmocka_unit_test(short_forms),
    cmocka_unit_test(errors_name_the_place),
};

PD_UNIT_MAIN(tests)
