/* SPDX-License-Identifier: Apache-2.0 */
/* The sources of a node: how they begin and end, another set of them, and what is shown;
 * settle.c decides which of their entries are used.
 *
 * A source that leaves the set is freed when its instance has closed; its successor of the
 * same name has what is in use at once. */
#include "discovery/sources.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "discovery/priv.h"

/* ---- life ------------------------------------------------------------------------------------------ */

pd_status pd_sources_create(const struct pd_sources_params *params, struct pd_sources **out)
{
    struct pd_sources *ss = pd_calloc(1, sizeof *ss);
    if (ss == NULL)
        return PD_ENOMEM;
    ss->params = *params;
    pd_strmap_init(&ss->used, PD_SOURCE_ENTRIES_MAX, pd_loop_random_u64(params->loop));
    pd_strmap_init(&ss->by_address, PD_SOURCE_ENTRIES_MAX, pd_loop_random_u64(params->loop));
    pd_timer_init(&ss->settle_timer, params->loop, "discovery settle", pd_sources_on_settle, ss);
    *out = ss;
    return PD_OK;
}

pd_status pd_sources_add(struct pd_sources *ss, const struct pd_source_conf *conf, struct pd_err *err)
{
    if (ss->n == PD_SOURCES_MAX)
        return pd_err_set(err, PD_ELIMIT, "a node can have %u sources", PD_SOURCES_MAX);
    pd_status status = pd_source_make(ss, conf, &ss->all[ss->n], err);
    if (status == PD_OK)
        ss->n++;
    return status;
}

static pd_status start(struct pd_source *s, struct pd_err *err)
{
    pd_status status = s->conf.ops->start(s->instance, &s->sink, err);
    s->is_started = status == PD_OK;
    if (status != PD_OK && err->text[0] == '\0')
        pd_err_set(err, status, "source \"%s\" does not start: %s", s->conf.name, pd_status_text(status));
    return status;
}

pd_status pd_sources_start(struct pd_sources *ss, struct pd_err *err)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < ss->n && status == PD_OK; i++)
        status = start(ss->all[i], err);
    return status;
}

/* ---- another set ------------------------------------------------------------------------------- */

static void instance_closed(void *arg);

static struct pd_source *of_name(struct pd_source *const *list, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(list[i]->conf.name, name) == 0)
            return list[i];
    }
    return NULL;
}

static void end_task(struct pd_task *task, void *arg)
{
    struct pd_source *s = arg, *same;
    struct pd_sources *ss = s->sources;
    char name[256];
    (void)task;
    snprintf(name, sizeof name, "%s", s->conf.name);
    pd_source_free(s);
    if ((same = of_name(ss->all, ss->n, name)) != NULL)
        pd_source_age_show(same);
    ss->n_ending--;
    if (ss->is_closing)
        instance_closed(ss);
}

static void ended(void *arg)
{
    struct pd_source *s = arg;
    pd_loop_defer(s->sources->params.loop, &s->end_task);
}

void pd_source_end(struct pd_source *s)
{
    s->is_closing = true;
    s->sources->n_ending++;
    pd_timer_stop(&s->stale_timer);
    pd_task_init(&s->end_task, "discovery end", end_task, s);
    s->conf.ops->destroy(s->instance, ended, s);
}

pd_status pd_source_begin(struct pd_sources *ss, const struct pd_source_conf *conf, struct pd_source **out,
                          struct pd_err *err)
{
    struct pd_source *s;
    pd_status status = pd_source_make(ss, conf, &s, err);
    if (status != PD_OK)
        return status;
    status = start(s, err);
    if (status != PD_OK) {
        pd_source_end(s);
        return status;
    }
    *out = s;
    return PD_OK;
}

void pd_sources_commit(struct pd_sources *ss, struct pd_source *const *list, uint32_t n)
{
    struct pd_source *before[PD_SOURCES_MAX];
    uint32_t n_before = ss->n;
    memcpy(before, ss->all, sizeof before);
    memcpy(ss->all, list, n * sizeof *list);
    ss->n = n;
    for (uint32_t i = 0; i < n_before; i++) {
        struct pd_source *same = of_name(ss->all, n, before[i]->conf.name);
        if (same == before[i])
            continue;
        pd_used_pass_on(ss, before[i], same);
        pd_source_end(before[i]);
    }
    pd_sources_changed(ss);
}

struct pd_source *pd_sources_at(const struct pd_sources *ss, uint32_t index)
{
    return index < ss->n ? ss->all[index] : NULL;
}

static void closed(struct pd_task *task, void *arg)
{
    struct pd_sources *ss = arg;
    void (*on_closed)(void *) = ss->on_closed;
    void *closed_arg = ss->closed_arg;
    size_t cursor = 0;
    void *value;
    (void)task;
    while (pd_strmap_next(&ss->used, &cursor, NULL, &value))
        pd_used_drop(ss, value, false);
    pd_strmap_fini(&ss->used);
    pd_strmap_fini(&ss->by_address);
    for (uint32_t i = 0; i < ss->n; i++)
        pd_source_free(ss->all[i]);
    pd_free(ss);
    on_closed(closed_arg);
}

static void instance_closed(void *arg)
{
    struct pd_sources *ss = arg;
    if (--ss->n_open == 0)
        pd_loop_defer(ss->params.loop, &ss->close_task);
}

void pd_sources_destroy(struct pd_sources *ss, void (*on_closed)(void *arg), void *arg)
{
    ss->is_closing = true;
    ss->on_closed = on_closed;
    ss->closed_arg = arg;
    pd_timer_stop(&ss->settle_timer);
    pd_task_init(&ss->close_task, "discovery close", closed, ss);
    /* One more than the sources, so that the last step comes after all of them. */
    ss->n_open = ss->n + ss->n_ending + 1;
    for (uint32_t i = 0; i < ss->n; i++) {
        struct pd_source *s = ss->all[i];
        s->is_closing = true;
        pd_timer_stop(&s->stale_timer);
        s->conf.ops->destroy(s->instance, instance_closed, ss);
    }
    instance_closed(ss);
}

void pd_sources_refresh(struct pd_sources *ss)
{
    for (uint32_t i = 0; i < ss->n; i++) {
        struct pd_source *s = ss->all[i];
        if (s->is_started && (s->conf.ops->flags & PD_DISCOVERY_REFRESH) != 0)
            s->conf.ops->refresh(s->instance);
    }
}

/* ---- what is shown ------------------------------------------------------------------------------------ */

bool pd_sources_info(const struct pd_sources *ss, uint32_t index, struct pd_source_info *out)
{
    if (index >= ss->n)
        return false;
    const struct pd_source *s = ss->all[index];
    pd_time now = pd_loop_now(ss->params.loop), due = s->stale_due;
    *out = (struct pd_source_info){
        .name = s->conf.name, .unit = s->conf.unit, .state = s->state, .entries = (uint32_t)s->items.n,
        .used = s->used, .leaving = s->leaving, .updates = s->updates, .refused = s->refused,
        .losses = s->losses, .why = s->why,
        .synced_age = s->synced_at == PD_TIME_NEVER ? PD_TIME_NEVER : now - s->synced_at,
        .stays = !pd_timer_is_active(&s->stale_timer) ? PD_TIME_NEVER : due > now ? due - now : 0,
    };
    return true;
}

static void entry_info(const struct pd_sources *ss, const struct pd_source *s,
                       const struct pd_source_item *item, struct pd_source_entry_info *out)
{
    const struct pd_used *u = pd_used_by_name(ss, item->entry);
    bool is_used = u != NULL && u->source == s && u->entry == item->entry && !u->is_leaving;
    *out = (struct pd_source_entry_info){
        .entry = item->entry, .source = s->conf.name, .why = item->why != NULL ? item->why : "",
        .state = is_used ? PD_SOURCE_ENTRY_USED
                 : item->why != NULL ? PD_SOURCE_ENTRY_REFUSED : PD_SOURCE_ENTRY_WAITING,
    };
}

bool pd_sources_entry_next(const struct pd_sources *ss, size_t cursor[2], struct pd_source_entry_info *out)
{
    void *value;
    for (; cursor[0] < ss->n; cursor[0]++, cursor[1] = 0) {
        if (pd_strmap_next(&ss->all[cursor[0]]->items, &cursor[1], NULL, &value)) {
            entry_info(ss, ss->all[cursor[0]], value, out);
            return true;
        }
    }
    while (pd_strmap_next(&ss->used, &cursor[1], NULL, &value)) {
        const struct pd_used *u = value;
        if (!u->is_leaving)
            continue;
        *out = (struct pd_source_entry_info){ .entry = u->entry, .source = u->source->conf.name, .why = "",
                                              .state = PD_SOURCE_ENTRY_LEAVING };
        return true;
    }
    return false;
}

const char *pd_sources_of(const struct pd_sources *ss, struct pd_str name)
{
    const struct pd_used *u = pd_strmap_get(&ss->used, name);
    return u != NULL ? u->source->conf.name : NULL;
}

const char *pd_source_state_name(uint32_t state)
{
    static const char *const names[] = { "starting", "synced", "lost", "empty", "given up", "broken" };
    return names[state < sizeof names / sizeof names[0] ? state : 0];
}
