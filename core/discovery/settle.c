/* SPDX-License-Identifier: Apache-2.0 */
/* Which entries are used.  Whenever a source's set has changed, all sets are
 * compared with what is in use (settled), at most every tenth of a second: first
 * what is wanted and in use stays, then what is not wanted leaves, then what is
 * new comes.  So the first that had a name or an address keeps it, and a storm of
 * changes costs no more than its last state.
 *
 * Each entry in use is in both tables, under its name and under its address, and counted at
 * its source, as used or as leaving. */
#include "discovery/sources.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "discovery/priv.h"

#define SETTLE_GAP (100 * PD_MS)

/* ---- the tables of what is used ------------------------------------------------------------ */

/* Servers and peers do not share addresses. */
static struct pd_str address_key(const struct pd_entry *e, char out[PD_DISCOVERY_ADDRESS_MAX + 4])
{
    int n = snprintf(out, PD_DISCOVERY_ADDRESS_MAX + 4, "%c %s", e->what == PD_DISCOVERY_PEER ? 'p' : 's',
                     e->address);
    return (struct pd_str){ out, (size_t)n };
}

struct pd_used *pd_used_by_name(const struct pd_sources *ss, const struct pd_entry *e)
{
    return pd_strmap_get(&ss->used, pd_str_from(e->name));
}

static struct pd_used *used_by_address(const struct pd_sources *ss, const struct pd_entry *e)
{
    char key[PD_DISCOVERY_ADDRESS_MAX + 4];
    return pd_strmap_get(&ss->by_address, address_key(e, key));
}

static void count(struct pd_used *u, int used, int leaving)
{
    u->source->used += (uint32_t)used;
    u->source->leaving += (uint32_t)leaving;
    pd_gauge_set(u->source->m_used, u->source->used);
}

void pd_used_drop(struct pd_sources *ss, struct pd_used *u, bool tell)
{
    char key[PD_DISCOVERY_ADDRESS_MAX + 4];
    count(u, u->is_leaving ? 0 : -1, u->is_leaving ? -1 : 0);
    pd_strmap_remove(&ss->used, pd_str_from(u->entry->name));
    pd_strmap_remove(&ss->by_address, address_key(u->entry, key));
    if (tell)
        ss->params.events->remove(u->entry, u->source->conf.user, ss->params.arg);
    pd_entry_put(u->entry);
    pd_free(u);
}

static pd_status used_add(struct pd_sources *ss, struct pd_source *s, struct pd_entry *e,
                          struct pd_used **out, struct pd_err *err)
{
    char key[PD_DISCOVERY_ADDRESS_MAX + 4];
    struct pd_used *u = pd_calloc(1, sizeof *u);
    if (u == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    pd_status status = pd_strmap_add(&ss->used, pd_str_from(e->name), u);
    if (status == PD_OK && (status = pd_strmap_add(&ss->by_address, address_key(e, key), u)) != PD_OK)
        pd_strmap_remove(&ss->used, pd_str_from(e->name));
    if (status != PD_OK) {
        pd_free(u);
        return pd_err_set(err, status, status == PD_ELIMIT ? "there are too many entries in use" : "%s",
                          pd_status_text(status));
    }
    u->entry = pd_entry_get(e);
    u->source = s;
    count(u, 1, 0);
    status = ss->params.events->add(e, s->conf.user, err, ss->params.arg);
    if (status != PD_OK) {
        pd_used_drop(ss, u, false);
        return status;
    }
    *out = u;
    return PD_OK;
}

/* ---- settling ---------------------------------------------------------------------------------- */

static void accepted(struct pd_source_item *item)
{
    pd_free(item->why);
    item->why = NULL;
}

static void refuse(struct pd_source *s, struct pd_source_item *item, uint32_t kind, const char *why)
{
    if (item->why != NULL && strcmp(item->why, why) == 0)
        return;
    pd_free(item->why);
    item->why = pd_strdup(why);
    pd_source_refuse(s, kind, pd_str_from(item->entry->name), why);
}

static void leave(struct pd_sources *ss, struct pd_used *u, bool is_leaving)
{
    u->is_leaving = is_leaving;
    count(u, is_leaving ? -1 : 1, is_leaving ? 1 : -1);
    ss->params.events->leave(u->entry, u->source->conf.user, is_leaving, ss->params.arg);
    pd_log_info(u->source->log, is_leaving ? "\"%s\" leaves" : "\"%s\" is back", u->entry->name);
}

/* What is wanted and in use already. */
static void pass_keep(struct pd_sources *ss, struct pd_source *s)
{
    size_t cursor = 0;
    void *value;
    while (pd_strmap_next(&s->items, &cursor, NULL, &value)) {
        struct pd_source_item *item = value;
        struct pd_used *u = pd_used_by_name(ss, item->entry);
        if (u == NULL || u->source != s || u->is_passed || !pd_entry_equal(u->entry, item->entry))
            continue;
        u->round = ss->round;
        accepted(item);
        if (u->is_leaving)
            leave(ss, u, false);
    }
}

/* The same server or node, but its options. */
static bool is_same_thing(const struct pd_entry *a, const struct pd_entry *b)
{
    return a->what == b->what && a->epoch == b->epoch && strcmp(a->address, b->address) == 0;
}

/* Whether the source still names it, in whatever way. */
static bool is_named(const struct pd_used *u)
{
    struct pd_source_item *item = pd_strmap_get(&u->source->items, pd_str_from(u->entry->name));
    return item != NULL && is_same_thing(item->entry, u->entry);
}

/* What is not wanted any more. */
static void pass_leave(struct pd_sources *ss, pd_time now)
{
    size_t cursor = 0;
    void *value;
    while (pd_strmap_next(&ss->used, &cursor, NULL, &value)) {
        struct pd_used *u = value;
        if (u->round == ss->round || is_named(u))
            continue;
        if (!u->is_leaving) {
            u->until = now + u->source->conf.linger;
            leave(ss, u, true);
        }
        if (u->until <= now)
            pd_used_drop(ss, u, true);
    }
}

/* The same thing in another form. */
static void use_changed(struct pd_sources *ss, struct pd_source *s, struct pd_source_item *item,
                        struct pd_used *u)
{
    struct pd_err err = { 0 };
    struct pd_entry *before = u->entry;
    u->is_passed = false;
    u->entry = pd_entry_get(item->entry);
    pd_status status = ss->params.events->change(before, u->entry, s->conf.user, &err, ss->params.arg);
    pd_entry_put(before);
    if (status != PD_OK) {
        refuse(s, item, PD_REFUSED_UNUSABLE, err.text);
        pd_used_drop(ss, u, false);
        return;
    }
    u->round = ss->round;
    accepted(item);
    if (u->is_leaving)
        leave(ss, u, false);
}

/* An entry that is not in use as it is now. */
static void use(struct pd_sources *ss, struct pd_source *s, struct pd_source_item *item)
{
    struct pd_used *u = pd_used_by_name(ss, item->entry), *at;
    struct pd_err err = { 0 };
    char why[160];
    if (u != NULL && u->source == s && is_same_thing(u->entry, item->entry)) {
        use_changed(ss, s, item, u);
        return;
    }
    if (u != NULL && !u->is_leaving && u->source != s) {
        snprintf(why, sizeof why, "source \"%s\" has an entry of this name", u->source->conf.name);
        refuse(s, item, PD_REFUSED_DUPLICATE, why);
        return;
    }
    at = used_by_address(ss, item->entry);
    if (at != NULL && at != u && !at->is_leaving) {
        snprintf(why, sizeof why, "its address is that of \"%.60s\" of source \"%.60s\"", at->entry->name,
                 at->source->conf.name);
        refuse(s, item, PD_REFUSED_DUPLICATE, why);
        return;
    }
    if (at != NULL && at != u)
        pd_used_drop(ss, at, true);
    if (u != NULL)
        pd_used_drop(ss, u, true);
    pd_status status = used_add(ss, s, item->entry, &u, &err);
    if (status != PD_OK) {
        refuse(s, item, status == PD_EEXIST ? PD_REFUSED_DUPLICATE
                        : status == PD_ELIMIT ? PD_REFUSED_LIMIT : PD_REFUSED_UNUSABLE, err.text);
        return;
    }
    u->round = ss->round;
    accepted(item);
    pd_log_info(s->log, "\"%s\" at %s", item->entry->name, item->entry->address);
}

static void pass_use(struct pd_sources *ss, struct pd_source *s)
{
    size_t cursor = 0;
    void *value;
    while (pd_strmap_next(&s->items, &cursor, NULL, &value)) {
        struct pd_source_item *item = value;
        struct pd_used *u = pd_used_by_name(ss, item->entry);
        if (u == NULL || u->source != s || u->round != ss->round)
            use(ss, s, item);
    }
}

/* When the next entry that leaves is to be forgotten; PD_TIME_NEVER. */
static pd_time next_due(const struct pd_sources *ss)
{
    pd_time due = PD_TIME_NEVER;
    size_t cursor = 0;
    void *value;
    while (pd_strmap_next(&ss->used, &cursor, NULL, &value)) {
        const struct pd_used *u = value;
        if (u->is_leaving && u->until < due)
            due = u->until;
    }
    return due;
}

static void settle_at(struct pd_sources *ss, pd_time due)
{
    ss->settle_due = due;
    pd_timer_start_at(&ss->settle_timer, due);
}

void pd_sources_on_settle(struct pd_timer *timer, void *arg)
{
    struct pd_sources *ss = arg;
    pd_time now = pd_loop_now(ss->params.loop);
    ss->round++;
    ss->settled_at = now;
    ss->has_settled = true;
    for (uint32_t i = 0; i < ss->n; i++)
        pass_keep(ss, ss->all[i]);
    pass_leave(ss, now);
    for (uint32_t i = 0; i < ss->n; i++)
        pass_use(ss, ss->all[i]);
    pd_time due = next_due(ss);
    (void)timer;
    if (due != PD_TIME_NEVER)
        settle_at(ss, due > now + SETTLE_GAP ? due : now + SETTLE_GAP);
}

void pd_sources_changed(struct pd_sources *ss)
{
    pd_time now = pd_loop_now(ss->params.loop), due = now;
    if (ss->is_closing)
        return;
    if (ss->has_settled && ss->settled_at + SETTLE_GAP > now)
        due = ss->settled_at + SETTLE_GAP;
    if (!pd_timer_is_active(&ss->settle_timer) || ss->settle_due > due)
        settle_at(ss, due);
}

void pd_sources_settle(struct pd_sources *ss)
{
    pd_sources_changed(ss);
}

void pd_used_pass_on(struct pd_sources *ss, struct pd_source *from, struct pd_source *to)
{
    size_t cursor = 0;
    void *value;
    while (pd_strmap_next(&ss->used, &cursor, NULL, &value)) {
        struct pd_used *u = value;
        if (u->source != from)
            continue;
        if (to == NULL) {
            if (!u->is_leaving)
                leave(ss, u, true);
            pd_used_drop(ss, u, true);
            continue;
        }
        count(u, u->is_leaving ? 0 : -1, u->is_leaving ? -1 : 0);
        u->source = to;
        u->is_passed = true;
        count(u, u->is_leaving ? 0 : 1, u->is_leaving ? 1 : 0);
    }
    if (to != NULL) {
        pd_source_inherit(to, from);
        return;
    }
    pd_gauge_set(from->m_entries, 0);
    pd_gauge_set(from->m_state, PD_SOURCE_STARTING);
}
