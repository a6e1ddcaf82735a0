/* SPDX-License-Identifier: Apache-2.0 */
/* One source: the sink that its module tells, the set of entries that holds, and
 * what becomes of that set when the source is lost or names nothing. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "discovery/priv.h"

#define TOLD_MAX 256u

/* ---- sets ------------------------------------------------------------------------------ */

static void item_free(struct pd_source_item *item)
{
    if (item == NULL)
        return;
    pd_entry_put(item->entry);
    pd_free(item->why);
    pd_free(item);
}

static void set_clear(struct pd_strmap *set)
{
    size_t cursor = 0;
    void *item;
    while (pd_strmap_next(set, &cursor, NULL, &item))
        item_free(item);
    pd_strmap_fini(set);
}

static uint64_t seed_of(const struct pd_source *s)
{
    return pd_loop_random_u64(s->sources->params.loop);
}

static void updated(struct pd_source *s, uint64_t n)
{
    s->updates += n;
    pd_counter_add(s->m_updates, n);
    pd_gauge_set(s->m_entries, (double)s->items.n);
    if (n > 0)
        pd_sources_changed(s->sources);
}

void pd_source_refuse(struct pd_source *s, uint32_t kind, struct pd_str name, const char *why)
{
    uint64_t hash = pd_hash64(name.p, name.n, pd_hash64(why, strlen(why), kind));
    uint64_t round = (uint64_t)(uintptr_t)pd_idmap_get(&s->told, hash);
    char text[64];
    s->refused++;
    pd_counter_inc(s->m_refused[kind]);
    pd_str_copy(name, text, sizeof text);
    for (char *c = text; *c != '\0'; c++)
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    if (s->state == PD_SOURCE_SYNCED || s->state == PD_SOURCE_STARTING)
        snprintf(s->why, sizeof s->why, "\"%s\" is left out: %s", text, why);
    if (round == 0 || round + 1 < s->round)
        pd_log_warn(s->log, "entry \"%s\" is left out: %s", text, why);
    if (round == 0 && s->told.n == TOLD_MAX) {
        pd_idmap_fini(&s->told);
        pd_idmap_init(&s->told, TOLD_MAX, 0);
    }
    (void)pd_idmap_put(&s->told, hash, (void *)(uintptr_t)s->round, NULL);
}

/* Puts a checked entry into a set.  Takes it. */
static pd_status item_put(struct pd_strmap *set, struct pd_entry *entry, struct pd_source_item **old)
{
    struct pd_source_item *item = pd_calloc(1, sizeof *item);
    void *was = NULL;
    pd_status status = PD_ENOMEM;
    if (item != NULL) {
        item->entry = entry;
        status = pd_strmap_put(set, pd_str_from(entry->name), item, &was);
    }
    if (status != PD_OK) {
        pd_entry_put(entry);
        pd_free(item);
        return status;
    }
    *old = was;
    return PD_OK;
}

/* ---- what holds ------------------------------------------------------------------------- */

static void stale_start(struct pd_source *s)
{
    if (pd_timer_is_active(&s->stale_timer))
        return;
    s->stale_due = pd_loop_now(s->sources->params.loop) + s->conf.stale_ok;
    pd_timer_start_at(&s->stale_timer, s->stale_due);
}

static void state_set(struct pd_source *s, uint32_t state)
{
    s->state = state;
    pd_gauge_set(s->m_state, state);
}

static void synced_now(struct pd_source *s)
{
    if (s->state == PD_SOURCE_STARTING)
        pd_log_notice(s->log, "the source names %zu entries", s->items.n);
    else if (s->state != PD_SOURCE_SYNCED)
        pd_log_notice(s->log, "the source is back: %zu entries", s->items.n);
    if (s->state != PD_SOURCE_SYNCED)
        s->why[0] = '\0';
    pd_timer_stop(&s->stale_timer);
    state_set(s, PD_SOURCE_SYNCED);
    s->synced_at = pd_loop_now(s->sources->params.loop);
}

/* A set that was not empty is: as likely a mistake as the truth. */
static void empty_now(struct pd_source *s)
{
    char text[PD_UNITS_TEXT];
    s->synced_at = pd_loop_now(s->sources->params.loop);
    if (s->state != PD_SOURCE_EMPTY) {
        pd_log_warn(s->log, "the source names nothing any more; its %zu entries stay for %s", s->items.n,
                    pd_units_format_duration(s->conf.stale_ok, text));
        snprintf(s->why, sizeof s->why, "it names nothing any more");
        pd_timer_stop(&s->stale_timer);
        state_set(s, PD_SOURCE_EMPTY);
        stale_start(s);
    }
}

static void on_stale(struct pd_timer *timer, void *arg)
{
    struct pd_source *s = arg;
    size_t n = s->items.n;
    (void)timer;
    set_clear(&s->items);
    pd_strmap_init(&s->items, s->conf.max, seed_of(s));
    if (s->state == PD_SOURCE_EMPTY) {
        pd_log_notice(s->log, "the source still names nothing: its %zu entries go", n);
        state_set(s, PD_SOURCE_SYNCED);
        s->why[0] = '\0';
    } else {
        pd_log_error(s->log, "the source is lost for too long (%s): its %zu entries go", s->why, n);
        state_set(s, PD_SOURCE_GIVEN_UP);
    }
    updated(s, n);
}

/* Takes the set that was begun; what did not change stays the same object. */
static void set_take(struct pd_source *s)
{
    struct pd_strmap old = s->items;
    struct pd_str name;
    size_t cursor = 0;
    uint64_t changes = 0;
    void *value;
    s->items = s->next;
    while (pd_strmap_next(&s->items, &cursor, &name, &value)) {
        struct pd_source_item *item = value, *was = pd_strmap_remove(&old, name);
        if (was != NULL && pd_entry_equal(was->entry, item->entry)) {
            pd_entry_put(item->entry);
            item->entry = pd_entry_get(was->entry);
            item->why = was->why;
            was->why = NULL;
        } else {
            changes++;
        }
        item_free(was);
    }
    changes += old.n;
    set_clear(&old);
    updated(s, changes);
}

/* ---- the sink --------------------------------------------------------------------------- */

static struct pd_source *source_of(struct pd_discovery_sink *sink)
{
    return (struct pd_source *)sink;
}

static void drop_next(struct pd_source *s)
{
    if (s->has_begun)
        set_clear(&s->next);
    s->has_begun = false;
}

static void sink_begin(struct pd_discovery_sink *sink)
{
    struct pd_source *s = source_of(sink);
    if (s->is_closing)
        return;
    drop_next(s);
    pd_strmap_init(&s->next, s->conf.max, seed_of(s));
    s->has_begun = true;
    s->round++;
}

/* The last set has a name that this one refuses: what was good before stays. */
static void keep_old(struct pd_source *s, struct pd_str name)
{
    struct pd_source_item *was = pd_strmap_get(&s->items, name), *old = NULL;
    if (!s->has_begun || was == NULL || pd_strmap_get(&s->next, name) != NULL)
        return;
    (void)item_put(&s->next, pd_entry_get(was->entry), &old);
}

/* The first entry of a source that had named nothing: it is the whole set. */
static void held_drop(struct pd_source *s, struct pd_str name)
{
    struct pd_str key;
    size_t cursor = 0, n = 0;
    void *item;
    while (pd_strmap_next(&s->items, &cursor, &key, &item)) {
        if (pd_str_eq(key, name))
            continue;
        pd_strmap_remove(&s->items, key);
        item_free(item);
        n++;
    }
    synced_now(s);
    updated(s, n);
}

static pd_status sink_put(struct pd_discovery_sink *sink, const struct pd_discovery_entry *from)
{
    struct pd_source *s = source_of(sink);
    struct pd_strmap *set = s->has_begun ? &s->next : &s->items;
    struct pd_source_item *old = NULL, *was;
    struct pd_entry *entry = NULL;
    char why[160];
    if (s->is_closing)
        return PD_OK;
    pd_status status = pd_entry_make(from, &s->conf.rules, &entry, why, sizeof why);
    if (status == PD_EINVAL) {
        pd_source_refuse(s, PD_REFUSED_INVALID, from->name, why);
        if (from->name.n <= PD_DISCOVERY_NAME_MAX)
            keep_old(s, from->name);
        return status;
    }
    if (status != PD_OK)
        return status;
    if (!s->has_begun && s->state == PD_SOURCE_EMPTY)
        held_drop(s, from->name);
    was = pd_strmap_get(set, from->name);
    if (was != NULL && s->has_begun) {
        pd_source_refuse(s, PD_REFUSED_DUPLICATE, from->name, "the source names it twice");
        pd_entry_put(entry);
        return PD_EEXIST;
    }
    if (was != NULL && pd_entry_equal(was->entry, entry)) {
        pd_entry_put(entry);
        return PD_OK;
    }
    status = item_put(set, entry, &old);
    item_free(old);
    if (status == PD_ELIMIT)
        pd_source_refuse(s, PD_REFUSED_LIMIT, from->name, "the source names more than its option max allows");
    if (status == PD_OK && !s->has_begun)
        updated(s, 1);
    return status;
}

static void sink_remove(struct pd_discovery_sink *sink, struct pd_str name)
{
    struct pd_source *s = source_of(sink);
    if (s->is_closing)
        return;
    if (s->has_begun) {
        pd_log_error(s->log, "the module removes an entry inside a set; that is ignored");
        return;
    }
    struct pd_source_item *item = pd_strmap_get(&s->items, name);
    if (item == NULL)
        return;
    if (s->items.n == 1) {
        empty_now(s);
        return;
    }
    pd_strmap_remove(&s->items, name);
    item_free(item);
    updated(s, 1);
}

static void sink_end(struct pd_discovery_sink *sink)
{
    struct pd_source *s = source_of(sink);
    if (s->is_closing)
        return;
    if (!s->has_begun) {
        pd_log_error(s->log, "the module ends a set that it did not begin; that is ignored");
        return;
    }
    s->has_begun = false;
    if (s->next.n == 0 && s->items.n > 0) {
        set_clear(&s->next);
        empty_now(s);
        return;
    }
    set_take(s);
    synced_now(s);
}

static void sink_synced(struct pd_discovery_sink *sink)
{
    struct pd_source *s = source_of(sink);
    if (s->is_closing)
        return;
    /* Nothing new about a set that is empty: it still is. */
    if (s->state == PD_SOURCE_EMPTY && s->items.n > 0)
        s->synced_at = pd_loop_now(s->sources->params.loop);
    else
        synced_now(s);
}

static void why_set(struct pd_source *s, const char *why)
{
    snprintf(s->why, sizeof s->why, "%s", why);
    for (char *c = s->why; *c != '\0'; c++)
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
}

static void lost_count(struct pd_source *s)
{
    s->losses++;
    pd_counter_inc(s->m_losses);
}

static void sink_lost(struct pd_discovery_sink *sink, const char *why)
{
    struct pd_source *s = source_of(sink);
    char text[PD_UNITS_TEXT];
    if (s->is_closing)
        return;
    drop_next(s);
    why_set(s, why);
    if (s->state == PD_SOURCE_LOST || s->state == PD_SOURCE_GIVEN_UP || s->state == PD_SOURCE_EMPTY)
        return;
    lost_count(s);
    if (s->items.n > 0)
        pd_log_warn(s->log, "the source is lost: %s; its %zu entries stay for %s", s->why, s->items.n,
                    pd_units_format_duration(s->conf.stale_ok, text));
    else
        pd_log_warn(s->log, "the source cannot be read: %s", s->why);
    state_set(s, PD_SOURCE_LOST);
    if (s->items.n > 0)
        stale_start(s);
}

static void sink_broken(struct pd_discovery_sink *sink, const char *why)
{
    struct pd_source *s = source_of(sink);
    char before[sizeof s->why];
    if (s->is_closing)
        return;
    drop_next(s);
    memcpy(before, s->why, sizeof before);
    why_set(s, why);
    if (s->state == PD_SOURCE_BROKEN && strcmp(before, s->why) == 0)
        return;
    if (s->state != PD_SOURCE_BROKEN)
        lost_count(s);
    pd_log_error(s->log, "%s; its %zu entries stay as they are", s->why, s->items.n);
    pd_timer_stop(&s->stale_timer);
    state_set(s, PD_SOURCE_BROKEN);
}

/* ---- life --------------------------------------------------------------------------------- */

static const struct pd_discovery_sink_ops sink_ops = {
    .size = sizeof sink_ops, .begin = sink_begin, .put = sink_put, .remove = sink_remove,
    .end = sink_end, .synced = sink_synced, .lost = sink_lost, .broken = sink_broken,
};

static struct pd_metric_family *family(struct pd_source *s, int32_t kind, const char *name, const char *help,
                                       size_t n_labels)
{
    static const char *const labels[] = { "source", "reason" };
    struct pd_metric_desc desc = { .size = sizeof desc, .name = name, .help = help, .labels = labels,
                                   .n_labels = n_labels };
    struct pd_metric_family *f = NULL;
    return pd_metrics_family(s->sources->params.metrics, kind, &desc, NULL, &f) == PD_OK ? f : NULL;
}

static double synced_age(void *arg)
{
    const struct pd_source *s = arg;
    if (s->synced_at == PD_TIME_NEVER)
        return -1;
    return (double)(pd_loop_now(s->sources->params.loop) - s->synced_at) / 1e9;
}

static struct pd_metric_family *age_family(struct pd_source *s)
{
    return family(s, PD_METRIC_GAUGE, "pdplane_discovery_sync_age_seconds",
                  "Time since the source was last known to be current; -1 before.", 1);
}

static void metrics_add(struct pd_source *s)
{
    static const char *const reasons[PD_REFUSED_KINDS] = { "invalid", "duplicate", "limit", "unusable" };
    struct pd_metrics *m = s->sources->params.metrics;
    const char *values[] = { s->conf.name, NULL };
    struct pd_metric_family *f;
    if ((f = family(s, PD_METRIC_GAUGE, "pdplane_discovery_entries",
                    "Entries that the source names, or named last.", 1)) != NULL)
        s->m_entries = pd_metrics_gauge(m, f, values);
    if ((f = family(s, PD_METRIC_GAUGE, "pdplane_discovery_used", "Entries of the source in use.", 1)) != NULL)
        s->m_used = pd_metrics_gauge(m, f, values);
    if ((f = family(s, PD_METRIC_GAUGE, "pdplane_discovery_state",
                    "0 starting, 1 synced, 2 lost, 3 names nothing any more, 4 given up, 5 broken.", 1)) != NULL)
        s->m_state = pd_metrics_gauge(m, f, values);
    if ((f = family(s, PD_METRIC_COUNTER, "pdplane_discovery_updates_total",
                    "Entries that came, changed or went.", 1)) != NULL)
        s->m_updates = pd_metrics_counter(m, f, values);
    if ((f = family(s, PD_METRIC_COUNTER, "pdplane_discovery_losses_total",
                    "Times that the source could not be read any more.", 1)) != NULL)
        s->m_losses = pd_metrics_counter(m, f, values);
    f = family(s, PD_METRIC_COUNTER, "pdplane_discovery_refused_total", "Entries that were left out.", 2);
    for (uint32_t i = 0; f != NULL && i < PD_REFUSED_KINDS; i++) {
        values[1] = reasons[i];
        s->m_refused[i] = pd_metrics_counter(m, f, values);
    }
    pd_source_age_show(s);
}

void pd_source_age_show(struct pd_source *s)
{
    const char *values[] = { s->conf.name };
    struct pd_metric_family *f = age_family(s);
    if (f != NULL)
        (void)pd_metrics_gauge_fn(s->sources->params.metrics, f, values, synced_age, s);
}

static bool networks_equal(const struct pd_entry_rules *a, const struct pd_entry_rules *b)
{
    return a->n_networks == b->n_networks &&
           (a->n_networks == 0 ||
            memcmp(a->networks, b->networks, a->n_networks * sizeof *a->networks) == 0);
}

/* One that has told something already knows better.  What comes from before stays for
 * stale_ok when it turns out that this one cannot be read. */
void pd_source_inherit(struct pd_source *s, struct pd_source *from)
{
    struct pd_strmap none = s->items;
    if (s->state == PD_SOURCE_STARTING && s->items.n == 0 &&
        networks_equal(&s->conf.rules, &from->conf.rules)) {
        s->items = from->items;
        from->items = none;
    }
    pd_gauge_set(s->m_entries, (double)s->items.n);
    pd_gauge_set(s->m_state, s->state);
}

pd_status pd_source_make(struct pd_sources *sources, const struct pd_source_conf *conf,
                         struct pd_source **out, struct pd_err *err)
{
    struct pd_source *s = pd_calloc(1, sizeof *s);
    if (s == NULL) {
        if (conf->gone != NULL)
            conf->gone(conf->user);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    s->sink.ops = &sink_ops;
    s->sources = sources;
    s->conf = *conf;
    s->synced_at = PD_TIME_NEVER;
    s->round = 1;
    s->log = pd_log_child(sources->params.log, conf->name);
    pd_strmap_init(&s->items, conf->max, seed_of(s));
    pd_idmap_init(&s->told, TOLD_MAX, 0);
    pd_timer_init(&s->stale_timer, sources->params.loop, "discovery stale", on_stale, s);
    metrics_add(s);
    struct pd_instance_ctx ctx = {
        .size = sizeof ctx, .name = conf->name, .loop = sources->params.loop, .log = s->log,
        .metrics = sources->params.metrics, .host = sources->params.host, .node = sources->params.node,
    };
    pd_status status = conf->ops->create(&ctx, conf->conf, &s->instance, err);
    if (status != PD_OK) {
        if (err->text[0] == '\0')
            pd_err_set(err, status, "source \"%s\": %s", conf->name, pd_status_text(status));
        pd_source_free(s);
        return status;
    }
    *out = s;
    return PD_OK;
}

void pd_source_free(struct pd_source *s)
{
    const char *values[] = { s->conf.name };
    struct pd_metric_family *f = age_family(s);
    if (f != NULL)
        (void)pd_metrics_gauge_fn(s->sources->params.metrics, f, values, NULL, NULL);
    void (*gone)(void *) = s->conf.gone;
    void *user = s->conf.user;
    pd_timer_stop(&s->stale_timer);
    drop_next(s);
    set_clear(&s->items);
    pd_idmap_fini(&s->told);
    pd_log_child_free(s->log);
    pd_free(s);
    if (gone != NULL)
        gone(user);
}
