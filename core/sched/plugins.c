/* SPDX-License-Identifier: Apache-2.0 */
/* From configuration to a pipeline.  A profile names plugins; a name is looked
 * up among the plugins that the section declares, then among the units of the
 * loaded modules, whose defaults it then has.  Each plugin is created once,
 * however many profiles use it, and destroyed in reverse order. */
#include "sched/plugins.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PLUGINS_MAX 64u
#define NAME_MAX_BYTES 63u

struct plugin {
    const char *name;               /* of the instance */
    const struct pd_mod_unit *unit;
    const void *options;            /* filled rows */
    struct pd_conf *conf;           /* that holds options; NULL: the generation does */
    struct pd_conf_place place;
    struct pd_instance_ctx ctx;
    void *instance;                 /* NULL: declared, not used by anyone yet */
    bool named;
};

struct pd_sched_plugins {
    struct pd_sched_plugins_params params;
    struct pd_sched_pipeline pipeline;
    struct plugin list[PLUGINS_MAX];
    uint32_t n;
    uint32_t order[PLUGINS_MAX];    /* of creation */
    uint32_t created;
    struct pd_conf_resolver resolver;
};

static pd_status at_place(struct pd_err *err, const struct pd_conf_place *place, pd_status st)
{
    if (err != NULL && place->line != 0 && err->line == 0) {
        err->line = place->line;
        snprintf(err->file, sizeof err->file, "%s", place->file);
    }
    return st;
}

/* ---- declaring ---- */

static pd_status declare(struct pd_sched_plugins *ps, const struct pd_sched_plugin_conf *conf,
                         struct pd_conf *holder, struct pd_err *err, struct plugin **out)
{
    const struct pd_mod_unit *unit = conf->unit.unit;

    if (ps->n == PLUGINS_MAX)
        return at_place(err, &conf->place,
                        pd_err_set(err, PD_ELIMIT, "the scheduler can have %u plugins",
                                   PLUGINS_MAX));
    struct plugin *p = &ps->list[ps->n];
    p->name = conf->name != NULL ? conf->name : unit->unit->name;
    p->named = conf->name != NULL;
    for (uint32_t i = 0; i < ps->n && p->named; i++) {
        if (ps->list[i].named && ps->list[i].unit->unit->kind == unit->unit->kind &&
            strcmp(ps->list[i].name, p->name) == 0)
            return at_place(err, &conf->place,
                            pd_err_set(err, PD_EEXIST, "two plugins have the name \"%s\"",
                                       p->name));
    }
    p->unit = unit;
    p->options = conf->unit.conf;
    p->conf = holder;
    p->place = conf->place;
    ps->n++;
    *out = p;
    return PD_OK;
}

static pd_status declare_list(struct pd_sched_plugins *ps, const struct pd_conf_list *list,
                              struct pd_err *err)
{
    struct plugin *p = NULL;

    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_sched_plugin_conf *item =
            PD_CONF_ITEM(list, struct pd_sched_plugin_conf, i);
        pd_status st = declare(ps, item, NULL, err, &p);
        if (st != PD_OK)
            return st;
    }
    return PD_OK;
}

/* A plugin from text as the rows of pd_sched_plugin_options read it. */
static pd_status declare_text(struct pd_sched_plugins *ps, const char *text, struct pd_err *err,
                              struct plugin **out)
{
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;

    pd_conf_report_init(&report);
    pd_status st = pd_conf_open_text("built in", pd_str_from(text), NULL, &report, &conf);
    if (st == PD_OK)
        st = pd_conf_fill(conf, pd_sched_plugin_options, sizeof(struct pd_sched_plugin_conf),
                          &ps->resolver, &report);
    if (st == PD_OK)
        st = declare(ps, pd_conf_root(conf), conf, err, out);
    else if (report.n_errors > 0)
        st = pd_err_set(err, report.errors[0].status, "%s", report.errors[0].text);
    else
        st = pd_err_set(err, st, "cannot set up a plugin of the scheduler");
    if (st != PD_OK)
        pd_conf_put(conf);
    pd_conf_report_fini(&report);
    return st;
}

/* ---- looking up ---- */

static struct plugin *declared(struct pd_sched_plugins *ps, uint64_t kinds, const char *ref)
{
    for (uint32_t i = 0; i < ps->n; i++) {
        struct plugin *p = &ps->list[i];
        if ((kinds & PD_KIND_BIT(p->unit->unit->kind)) != 0 && p->named &&
            strcmp(p->name, ref) == 0)
            return p;
    }
    return NULL;
}

static const struct pd_mod_unit *unit_named(const struct pd_sched_plugins *ps, uint64_t kinds,
                                            const char *ref)
{
    for (uint32_t kind = 1; kind < PD_KIND_LIMIT; kind++) {
        const struct pd_mod_unit *unit =
            (kinds & PD_KIND_BIT(kind)) != 0 ? pd_mods_unit(ps->params.mods, kind, ref) : NULL;
        if (unit != NULL && pd_mods_is_wanted(ps->params.mods, unit))
            return unit;
    }
    return NULL;
}

static pd_status unknown(uint64_t kinds, const char *ref, const struct pd_conf_place *place,
                         struct pd_err *err)
{
    char text[128];
    pd_status st = pd_err_set(err, PD_ENOENT, "there is no %s \"%s\"",
                              pd_kinds_text(kinds, text, sizeof text), ref);

    (void)pd_err_hint(err, "declare it in the section scheduler, or add the module \"%s\" to load",
                      ref);
    return at_place(err, place, st);
}

static pd_status lookup(struct pd_sched_plugins *ps, uint64_t kinds, const char *ref,
                        const struct pd_conf_place *place, struct pd_err *err, struct plugin **out)
{
    char text[64 + NAME_MAX_BYTES];

    *out = declared(ps, kinds, ref);
    if (*out != NULL)
        return PD_OK;
    const struct pd_mod_unit *unit = unit_named(ps, kinds, ref);
    if (unit == NULL || strlen(unit->unit->name) > NAME_MAX_BYTES)
        return unknown(kinds, ref, place, err);
    for (uint32_t i = 0; i < ps->n; i++) {
        if (ps->list[i].unit == unit && !ps->list[i].named) {
            *out = &ps->list[i];
            return PD_OK;
        }
    }
    snprintf(text, sizeof text, "plugin = { module = \"%s\"; };\n", unit->unit->name);
    return at_place(err, place, declare_text(ps, text, err, out));
}

/* ---- creating ---- */

static pd_status create(struct pd_sched_plugins *ps, struct plugin *p, struct pd_err *err)
{
    pd_status st = PD_EINVAL;

    if (p->instance != NULL)
        return PD_OK;
    p->ctx = (struct pd_instance_ctx){
        .size = sizeof p->ctx,
        .name = p->name,
        .loop = ps->params.loop,
        .log = ps->params.log,
        .metrics = ps->params.metrics,
        .host = ps->params.host,
    };
    const void *ops = p->unit->ops;
    struct pd_filter *filter = NULL;
    struct pd_scorer *scorer = NULL;
    struct pd_picker *picker = NULL;
    struct pd_decider *decider = NULL;
    switch (p->unit->unit->kind) {
    case PD_KIND_FILTER:
        st = ((const struct pd_filter_ops *)ops)->create(&p->ctx, p->options, &filter, err);
        p->instance = filter;
        break;
    case PD_KIND_SCORER:
        st = ((const struct pd_scorer_ops *)ops)->create(&p->ctx, p->options, &scorer, err);
        p->instance = scorer;
        break;
    case PD_KIND_PICKER:
        st = ((const struct pd_picker_ops *)ops)->create(&p->ctx, p->options, &picker, err);
        p->instance = picker;
        break;
    case PD_KIND_DECIDER:
        st = ((const struct pd_decider_ops *)ops)->create(&p->ctx, p->options, &decider, err);
        p->instance = decider;
        break;
    default:
        break;
    }
    if (st == PD_OK && p->instance == NULL)
        st = pd_err_set(err, PD_EINVAL, "the plugin \"%s\" gave no instance", p->name);
    if (st != PD_OK) {
        p->instance = NULL;
        return at_place(err, &p->place, st);
    }
    ps->order[ps->created++] = (uint32_t)(p - ps->list);
    return PD_OK;
}

static void destroy(struct plugin *p)
{
    const void *ops = p->unit->ops;

    switch (p->unit->unit->kind) {
    case PD_KIND_FILTER:
        ((const struct pd_filter_ops *)ops)->destroy(p->instance);
        break;
    case PD_KIND_SCORER:
        ((const struct pd_scorer_ops *)ops)->destroy(p->instance);
        break;
    case PD_KIND_PICKER:
        ((const struct pd_picker_ops *)ops)->destroy(p->instance);
        break;
    default:
        ((const struct pd_decider_ops *)ops)->destroy(p->instance);
        break;
    }
    p->instance = NULL;
}

/* ---- wiring ---- */

static const char *profile_name(uint32_t role)
{
    return role == PD_ROLE_PREFILL ? "prefill" : "decode";
}

static pd_status attach(struct pd_sched_plugins *ps, struct pd_profile *profile, struct plugin *p,
                        double weight, const struct pd_conf_place *place, struct pd_err *err)
{
    pd_status st = create(ps, p, err);
    const void *ops = p->unit->ops;

    if (st != PD_OK)
        return st;
    switch (p->unit->unit->kind) {
    case PD_KIND_FILTER:
        st = pd_profile_add_filter(profile, p->name, ops, p->instance);
        break;
    case PD_KIND_SCORER:
        if (!isfinite(weight) || weight < 0)
            st = PD_EINVAL;
        else
            st = pd_profile_add_scorer(profile, p->name, ops, p->instance, weight);
        break;
    case PD_KIND_PICKER:
        if (profile->picker != NULL)
            return at_place(err, place,
                            pd_err_set(err, PD_EEXIST, "the profile \"%s\" has two pickers",
                                       profile->name));
        profile->picker_name = p->name;
        profile->picker_ops = ops;
        profile->picker = p->instance;
        break;
    default:
        break;
    }
    if (st != PD_OK)
        return at_place(err, place,
                        pd_err_set(err, st, "\"%s\" cannot be part of the profile \"%s\": %s",
                                   p->name, profile->name, pd_status_text(st)));
    return PD_OK;
}

static pd_status use(struct pd_sched_plugins *ps, struct pd_profile *profile, uint64_t kinds,
                     const char *ref, double weight, const struct pd_conf_place *place,
                     struct pd_err *err)
{
    struct plugin *p = NULL;
    pd_status st = lookup(ps, kinds, ref, place, err, &p);

    return st == PD_OK ? attach(ps, profile, p, weight, place, err) : st;
}

static pd_status use_list(struct pd_sched_plugins *ps, struct pd_profile *profile, uint64_t kinds,
                          const struct pd_conf_list *list, struct pd_err *err)
{
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_sched_use_conf *item = PD_CONF_ITEM(list, struct pd_sched_use_conf, i);
        pd_status st = use(ps, profile, kinds, item->use, item->weight, &item->place, err);
        if (st != PD_OK)
            return st;
    }
    return PD_OK;
}

static pd_status wire(struct pd_sched_plugins *ps, const struct pd_sched_profile_conf *conf,
                      struct pd_profile *profile, struct pd_err *err)
{
    const uint64_t any = PD_KIND_BIT(PD_KIND_FILTER) | PD_KIND_BIT(PD_KIND_SCORER) |
                         PD_KIND_BIT(PD_KIND_PICKER);

    profile->name = profile_name(conf->role);
    for (uint64_t i = 0; i < conf->filters.count; i++) {
        pd_status st = use(ps, profile, PD_KIND_BIT(PD_KIND_FILTER), conf->filters.items[i], 1,
                           &conf->place, err);
        if (st != PD_OK)
            return st;
    }
    pd_status st = use_list(ps, profile, PD_KIND_BIT(PD_KIND_SCORER), &conf->scorers, err);
    if (st == PD_OK)
        st = use_list(ps, profile, any, &conf->plugins, err);
    if (st == PD_OK && (conf->pick != NULL || profile->picker == NULL))
        st = use(ps, profile, PD_KIND_BIT(PD_KIND_PICKER),
                 conf->pick != NULL ? conf->pick : pd_sched_default_profile(conf->role).pick, 1,
                 &conf->place, err);
    return st;
}

static pd_status wire_role(struct pd_sched_plugins *ps, uint32_t role, struct pd_profile *profile,
                           struct pd_err *err)
{
    const struct pd_conf_list *list = &ps->params.conf->profiles;
    const struct pd_sched_profile_conf *given = NULL;
    struct pd_sched_profile_conf usual = pd_sched_default_profile(role);

    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_sched_profile_conf *p = PD_CONF_ITEM(list, struct pd_sched_profile_conf, i);
        if (p->role != role)
            continue;
        if (given != NULL)
            return at_place(err, &p->place,
                            pd_err_set(err, PD_EEXIST, "two profiles have the name \"%s\"",
                                       profile_name(role)));
        given = p;
    }
    return wire(ps, given != NULL ? given : &usual, profile, err);
}

static pd_status wire_decider(struct pd_sched_plugins *ps, struct pd_err *err)
{
    struct plugin *found = NULL;
    pd_status st = PD_OK;

    if (ps->params.conf->decider != NULL)
        st = declare(ps, ps->params.conf->decider, NULL, err, &found);
    for (uint32_t i = 0; i < ps->n && st == PD_OK; i++) {
        struct plugin *p = &ps->list[i];
        if (p->unit->unit->kind != PD_KIND_DECIDER || p == found)
            continue;
        if (found != NULL)
            return at_place(err, &p->place,
                            pd_err_set(err, PD_EEXIST, "the scheduler has two deciders"));
        found = p;
    }
    if (st == PD_OK && found == NULL)
        st = declare_text(ps, pd_sched_default_decider, err, &found);
    if (st == PD_OK)
        st = create(ps, found, err);
    if (st != PD_OK)
        return st;
    ps->pipeline.decider_name = found->name;
    ps->pipeline.decider_ops = (const void *)found->unit->ops;
    ps->pipeline.decider = found->instance;
    return PD_OK;
}

pd_status pd_sched_plugins_create(const struct pd_sched_plugins_params *params, struct pd_err *err,
                                  struct pd_sched_plugins **out)
{
    struct pd_sched_plugins *ps = pd_calloc(1, sizeof *ps);

    if (ps == NULL)
        return pd_err_set(err, PD_ENOMEM, "no memory for the scheduler's plugins");
    ps->params = *params;
    ps->resolver = pd_mods_resolver(params->mods);
    pd_status st = declare_list(ps, &params->conf->filters, err);
    if (st == PD_OK)
        st = declare_list(ps, &params->conf->scorers, err);
    if (st == PD_OK)
        st = declare_list(ps, &params->conf->pickers, err);
    if (st == PD_OK)
        st = declare_list(ps, &params->conf->plugins, err);
    if (st == PD_OK)
        st = wire_role(ps, PD_ROLE_DECODE, &ps->pipeline.decode, err);
    if (st == PD_OK)
        st = wire_role(ps, PD_ROLE_PREFILL, &ps->pipeline.prefill, err);
    if (st == PD_OK)
        st = wire_decider(ps, err);
    if (st != PD_OK) {
        pd_sched_plugins_destroy(ps);
        return st;
    }
    *out = ps;
    return PD_OK;
}

void pd_sched_plugins_destroy(struct pd_sched_plugins *ps)
{
    if (ps == NULL)
        return;
    while (ps->created > 0)
        destroy(&ps->list[ps->order[--ps->created]]);
    for (uint32_t i = 0; i < ps->n; i++)
        pd_conf_put(ps->list[i].conf);
    pd_free(ps);
}

const struct pd_sched_pipeline *pd_sched_plugins_pipeline(const struct pd_sched_plugins *ps)
{
    return &ps->pipeline;
}
