/* SPDX-License-Identifier: Apache-2.0 */
/* Sources of discovery under test, and the sink that writes down and checks what
 * they tell. */
#include "conform/discovery_source.h"

#include <sys/wait.h>

#include "base/str.h"
#include "discovery/entry.h"

const char *cf_command;

const struct pd_discovery_ops *source_ops(const struct cf_unit *u)
{
    return (const void *)u->ops;
}

/* ---- the sink ---------------------------------------------------------------------- */

static struct sink *called(struct pd_discovery_sink *head)
{
    struct sink *s = (struct sink *)head;

    CF_NEED(!s->is_closed, "the sink is called after destroy");
    CF_NEED(!s->is_inside, "the sink is called from inside an operation");
    return s;
}

static void on_begin(struct pd_discovery_sink *head)
{
    struct sink *s = called(head);

    s->has_begun = true;
    s->n_next = 0;
}

struct told *told_find(struct told *set, uint32_t n, struct pd_str name)
{
    for (uint32_t i = 0; i < n; i++)
        if (pd_str_is(name, set[i].name))
            return &set[i];
    return NULL;
}

static pd_status on_put(struct pd_discovery_sink *head, const struct pd_discovery_entry *entry)
{
    static const struct pd_entry_rules rules = { .role_label = NULL };
    struct sink *s = called(head);
    struct told *set = s->has_begun ? s->next : s->set, *t;
    uint32_t *n = s->has_begun ? &s->n_next : &s->n;
    struct pd_entry *copy = NULL;
    char why[160];

    if (pd_entry_make(entry, &rules, &copy, why, sizeof(why)) != PD_OK) {
        cf_say("entry \"%.*s\" is refused: %s", PD_STR_ARG(entry->name), why);
        return PD_EINVAL;
    }
    t = told_find(set, *n, entry->name);
    if (t != NULL && s->has_begun) {
        pd_entry_put(copy);
        return PD_EEXIST;
    }
    CF_NEED(t != NULL || *n < ENTRIES_MAX, "more than %u entries are told", ENTRIES_MAX);
    if (t == NULL)
        t = &set[(*n)++];
    snprintf(t->name, sizeof(t->name), "%s", copy->name);
    snprintf(t->address, sizeof(t->address), "%s", copy->address);
    pd_entry_put(copy);
    return PD_OK;
}

static void on_remove(struct pd_discovery_sink *head, struct pd_str name)
{
    struct sink *s = called(head);
    struct told *t;

    CF_NEED(!s->has_begun, "an entry is removed between begin and end");
    t = told_find(s->set, s->n, name);
    if (t != NULL)
        *t = s->set[--s->n];
}

static void on_end(struct pd_discovery_sink *head)
{
    struct sink *s = called(head);

    CF_NEED(s->has_begun, "a set ends that was not begun");
    memcpy(s->set, s->next, sizeof(s->set));
    s->n = s->n_next;
    s->has_begun = false;
    s->is_lost = false;
    s->tells++;
    s->synced++;
}

static void on_synced(struct pd_discovery_sink *head)
{
    struct sink *s = called(head);

    CF_NEED(!s->has_begun, "synced is called between begin and end");
    s->is_lost = false;
    s->tells++;
    s->synced++;
}

static void on_lost(struct pd_discovery_sink *head, const char *why)
{
    struct sink *s = called(head);

    CF_NEED(why != NULL && why[0] != '\0', "a source is lost without a reason");
    CF_NEED(why[strlen(why) - 1] != '.', "the reason \"%s\" has a full stop", why);
    s->has_begun = false;
    s->is_lost = true;
    s->tells++;
    s->lost++;
}

static const struct pd_discovery_sink_ops sink_ops = {
    .size = sizeof(sink_ops), .begin = on_begin, .put = on_put, .remove = on_remove,
    .end = on_end, .synced = on_synced, .lost = on_lost, .broken = on_lost,
};

/* ---- the source's world ------------------------------------------------------------ */

bool world_change(const char *text)
{
    char line[2048];
    int status;

    snprintf(line, sizeof(line), "%s %s", cf_command, text);
    status = system(line);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CF_EXIT_SKIPPED)
        return false;
    CF_NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the command fails: %s", line);
    return true;
}

void world_fill(void)
{
    if (cf_command != NULL)
        CF_NEED(world_change("set 1 2 3"), "the command cannot set servers");
}

/* ---- a source ------------------------------------------------------------------------- */

void source_start(struct cf_world *w, struct source *o, uint32_t number)
{
    struct pd_err err = { 0 };

    o->w = w;
    o->s = calloc(1, sizeof(*o->s));
    assert_non_null(o->s);
    o->s->head.ops = &sink_ops;
    o->s->is_inside = true;
    cf_create_ok(w, &o->i, number);
    CF_NEED(source_ops(w->u)->start(o->i.p, &o->s->head, &err) == PD_OK, "start fails: %s", err.text);
    o->s->is_inside = false;
}

void source_end(struct source *o)
{
    o->s->is_closed = true;
    cf_destroy(o->w, &o->i);
    for (int i = 0; i < 20; i++)
        cf_turn(o->w, PD_MS);
    free(o->s);
}

bool source_has_told(void *arg)
{
    return ((const struct source *)arg)->s->tells > 0;
}

void source_first(struct source *o)
{
    CF_NEED(cf_wait(o->w, source_has_told, o, FIRST_SECONDS * PD_SEC),
            "nothing is told within %d s: neither end nor synced, lost or broken", FIRST_SECONDS);
}

void source_refresh(struct source *o)
{
    if ((source_ops(o->w->u)->flags & PD_DISCOVERY_REFRESH) == 0)
        return;
    o->s->is_inside = true;
    source_ops(o->w->u)->refresh(o->i.p);
    o->s->is_inside = false;
}
