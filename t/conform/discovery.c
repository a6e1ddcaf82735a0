/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for discovery: what a source tells, in which order, and what it does when
 * its world changes.  The world is changed by the command of option -x, which
 * knows the source: it is asked for servers by numbers, and each must be named
 * with the address http://127.0.0.NUMBER:PORT. */
#include "conform/conform.h"

#include <sys/wait.h>

#include <pdplane/discovery.h>

#include "base/str.h"
#include "discovery/entry.h"

enum { ENTRIES_MAX = 512, FIRST_SECONDS = 10, CHANGE_SECONDS = 10, NUMBERS = 64 };

const char *cf_command;

struct told {
    char name[PD_DISCOVERY_NAME_MAX + 1];
    char address[PD_DISCOVERY_ADDRESS_MAX + 1];
};

/* A sink that writes down and checks. */
struct sink {
    struct pd_discovery_sink head;
    struct told set[ENTRIES_MAX], next[ENTRIES_MAX];
    uint32_t n, n_next;
    bool has_begun, is_inside, is_closed;
    uint32_t tells;                 /* end, synced, lost, broken */
    uint32_t synced, lost;
    bool is_lost;
};

struct source {
    struct cf_world *w;
    struct cf_inst i;
    struct sink *s;
};

static const struct pd_discovery_ops *ops_of(const struct cf_unit *u)
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

static struct told *find(struct told *set, uint32_t n, struct pd_str name)
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
    t = find(set, *n, entry->name);
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
    t = find(s->set, s->n, name);
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

/* Runs the command with a verb; false: the source knows no such thing. */
static bool change(const char *text)
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

/* Something to name, where somebody can see to it. */
static void world_fill(void)
{
    if (cf_command != NULL)
        CF_NEED(change("set 1 2 3"), "the command cannot set servers");
}

/* ---- a source ------------------------------------------------------------------------- */

static void source_start(struct cf_world *w, struct source *o, uint32_t number)
{
    struct pd_err err = { 0 };

    o->w = w;
    o->s = calloc(1, sizeof(*o->s));
    assert_non_null(o->s);
    o->s->head.ops = &sink_ops;
    o->s->is_inside = true;
    cf_create_ok(w, &o->i, number);
    CF_NEED(ops_of(w->u)->start(o->i.p, &o->s->head, &err) == PD_OK, "start fails: %s", err.text);
    o->s->is_inside = false;
}

static void source_end(struct source *o)
{
    o->s->is_closed = true;
    cf_destroy(o->w, &o->i);
    for (int i = 0; i < 20; i++)
        cf_turn(o->w, PD_MS);
    free(o->s);
}

static bool has_told(void *arg)
{
    return ((const struct source *)arg)->s->tells > 0;
}

static void first(struct source *o)
{
    CF_NEED(cf_wait(o->w, has_told, o, FIRST_SECONDS * PD_SEC),
            "nothing is told within %d s: neither end nor synced, lost or broken", FIRST_SECONDS);
}

static void refresh(struct source *o)
{
    if ((ops_of(o->w->u)->flags & PD_DISCOVERY_REFRESH) == 0)
        return;
    o->s->is_inside = true;
    ops_of(o->w->u)->refresh(o->i.p);
    o->s->is_inside = false;
}

/* ---- what holds for every source ---------------------------------------------------------- */

static void run_flags(const struct cf_unit *u)
{
    const struct pd_discovery_ops *ops = ops_of(u);
    struct cf_world w;
    struct source o;

    CF_NEED((ops->flags & ~(uint32_t)(PD_DISCOVERY_FIXED | PD_DISCOVERY_REFRESH)) == 0,
            "flags has bits that mean nothing");
    CF_NEED((ops->flags & PD_DISCOVERY_REFRESH) == 0 || ops->refresh != NULL, "REFRESH is claimed without refresh");
    CF_NEED((ops->flags & PD_DISCOVERY_REFRESH) != 0 || ops->refresh == NULL, "refresh is there and not claimed");
    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &o, 0);
    first(&o);
    if (ops->flags & PD_DISCOVERY_REFRESH) {
        o.s->tells = 0;
        refresh(&o);
        CF_NEED(cf_wait(&w, has_told, &o, FIRST_SECONDS * PD_SEC), "nothing is told after refresh");
    }
    source_end(&o);
    cf_world_close(&w);
}

static void run_set(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &o, 0);
    first(&o);
    for (int i = 0; i < 50; i++)
        cf_turn(&w, PD_MS);
    CF_NEED(!o.s->has_begun || o.s->synced > 0, "a set is begun and not ended");
    source_end(&o);
    cf_world_close(&w);
}

/* Ends after 0, 1, 2 ... turns: in the middle of whatever it does. */
static void run_any_moment(const struct cf_unit *u)
{
    struct cf_world w;

    world_fill();
    cf_world_open(&w, u);
    for (int turns = 0; turns < 60; turns++) {
        struct source o;
        source_start(&w, &o, 0);
        for (int i = 0; i < turns; i++)
            cf_turn(&w, i % 3 == 0 ? PD_MS / 4 : 0);
        if (turns % 5 == 4)
            refresh(&o);
        source_end(&o);
    }
    cf_world_close(&w);
}

static void run_two_alike(const struct cf_unit *u)
{
    struct cf_world w;
    struct source a, b;

    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &a, 0);
    source_start(&w, &b, 1);
    first(&a);
    first(&b);
    CF_NEED(a.s->n == b.s->n, "two instances with the same options name %u and %u entries", a.s->n, b.s->n);
    for (uint32_t i = 0; i < a.s->n; i++)
        CF_NEED(find(b.s->set, b.s->n, pd_str_from(a.s->set[i].name)) != NULL,
                "the second instance has no entry \"%s\"", a.s->set[i].name);
    source_end(&a);
    source_end(&b);
    cf_world_close(&w);
}

static void run_refreshes(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;
    uint64_t before = 0;

    if ((ops_of(u)->flags & PD_DISCOVERY_REFRESH) == 0)
        cf_skip("the source cannot look again");
    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &o, 0);
    first(&o);
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < 10; k++)
            refresh(&o);
        cf_turn(&w, PD_MS);
        if (i == 100)
            before = cf_memory();
    }
    CF_NEED(cf_memory() < before + 65536, "refreshes keep memory");
    o.s->tells = 0;
    refresh(&o);
    CF_NEED(cf_wait(&w, has_told, &o, FIRST_SECONDS * PD_SEC), "nothing is told after many refreshes");
    source_end(&o);
    cf_world_close(&w);
}

/* Two that look at the same; one goes. */
void cf_discovery_beside(const struct cf_unit *u)
{
    struct cf_world w;
    struct source a, b;
    uint32_t n;

    world_fill();
    cf_world_open(&w, u);
    source_start(&w, &a, 0);
    source_start(&w, &b, 1);
    first(&a);
    first(&b);
    n = b.s->n;
    source_end(&a);
    b.s->tells = 0;
    refresh(&b);
    CF_NEED((ops_of(u)->flags & PD_DISCOVERY_REFRESH) == 0 || cf_wait(&w, has_told, &b, FIRST_SECONDS * PD_SEC),
            "nothing is told when another instance has ended");
    CF_NEED(b.s->n == n && !b.s->is_lost, "%u of %u entries are there when another instance has ended%s", b.s->n, n,
            b.s->is_lost ? ", and the source is lost" : "");
    source_end(&b);
    cf_world_close(&w);
}

/* ---- a world that changes -------------------------------------------------------------------- */

static void need_command(const struct cf_unit *u)
{
    if ((ops_of(u)->flags & PD_DISCOVERY_FIXED) != 0)
        cf_skip("the source never changes");
    if (cf_command == NULL)
        cf_skip("no command changes the source's world (option -x)");
}

struct want {
    struct source *o;
    const char *numbers;            /* "1 2 3" */
};

/* Whether exactly these servers are named, each once. */
static bool is_named(void *arg)
{
    const struct want *want = arg;
    const struct sink *s = want->o->s;
    uint8_t wanted[NUMBERS] = { 0 };
    uint32_t n = 0;

    for (const char *p = want->numbers; *p != '\0'; p += strspn(p, " ")) {
        char *end;
        unsigned long number = strtoul(p, &end, 10);
        if (end == p)
            break;
        p = end;
        wanted[number % NUMBERS] = 1;
        n++;
    }
    if (s->n != n || s->is_lost || s->synced == 0)
        return false;
    for (uint32_t i = 0; i < s->n; i++) {
        unsigned number = 0;
        if (sscanf(s->set[i].address, "http://127.0.0.%u:", &number) != 1 || wanted[number % NUMBERS] != 1)
            return false;
        wanted[number % NUMBERS] = 2;
    }
    return true;
}

static void becomes(struct source *o, const char *numbers, const char *what)
{
    struct want want = { o, numbers };

    if (cf_wait(o->w, is_named, &want, CHANGE_SECONDS * PD_SEC))
        return;
    for (uint32_t i = 0; i < o->s->n; i++)
        cf_say("named is \"%s\" at %s", o->s->set[i].name, o->s->set[i].address);
    CF_NEED(false, "%s: the servers %s are not what is named within %d s (%u entries, %s)", what, numbers,
            CHANGE_SECONDS, o->s->n, o->s->is_lost ? "lost" : "synced");
}

static void set(struct source *o, const char *numbers, const char *what)
{
    char text[512];

    snprintf(text, sizeof(text), "set %s", numbers);
    CF_NEED(change(text), "the command cannot set servers");
    becomes(o, numbers, what);
}

static void changing_start(struct cf_world *w, struct source *o, const struct cf_unit *u)
{
    need_command(u);
    world_fill();
    cf_world_open(w, u);
    source_start(w, o, 0);
    becomes(o, "1 2 3", "at the start");
}

static void run_add_remove(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;
    struct told before;

    changing_start(&w, &o, u);
    before = o.s->set[0];
    set(&o, "1 2 3 4", "one more");
    CF_NEED(find(o.s->set, o.s->n, pd_str_from(before.name)) != NULL,
            "the entry \"%s\" has another name though nothing about it has changed", before.name);
    set(&o, "2 4", "two less");
    set(&o, "5 6 7", "others");
    set(&o, "1", "one");
    source_end(&o);
    cf_world_close(&w);
}

static void run_flap(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    changing_start(&w, &o, u);
    for (int i = 0; i < 30; i++) {
        CF_NEED(change(i % 2 == 0 ? "set 1 2 3 4 5 6" : "set 1"), "the command cannot set servers");
        for (int k = 0; k < i % 7; k++)
            cf_turn(&w, 5 * PD_MS);
    }
    set(&o, "2 3 4", "after a storm");
    source_end(&o);
    cf_world_close(&w);
}

static void run_growth(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;
    uint64_t before = 0;

    changing_start(&w, &o, u);
    for (int i = 0; i < 16; i++) {
        set(&o, i % 2 == 0 ? "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16" : "1", "changes");
        if (i == 5)
            before = cf_memory();
    }
    CF_NEED(cf_memory() < before + 4096, "%llu bytes are kept after ten changes",
            (unsigned long long)(cf_memory() - before));
    source_end(&o);
    cf_world_close(&w);
}

static void run_duplicates(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    changing_start(&w, &o, u);
    if (!change("twice 1 2"))
        cf_skip("the source cannot say a thing twice");
    for (int i = 0; i < 60; i++)
        cf_turn(&w, 10 * PD_MS);
    if (!o.s->is_lost)
        becomes(&o, "1 2", "named twice");
    set(&o, "1 2 3", "afterwards");
    source_end(&o);
    cf_world_close(&w);
}

/* Something in the source is no entry: it may be left out, or all of it refused;
 * but the others must not go. */
static void run_invalid(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    changing_start(&w, &o, u);
    if (!change("bad 1 2 3"))
        cf_skip("the source cannot say anything that is wrong");
    for (int i = 0; i < 60; i++)
        cf_turn(&w, 10 * PD_MS);
    CF_NEED(o.s->n == 3, "an entry that is wrong takes others away: %u of 3 are left", o.s->n);
    set(&o, "1 2", "afterwards");
    source_end(&o);
    cf_world_close(&w);
}

static bool is_lost(void *arg)
{
    return ((const struct source *)arg)->s->is_lost;
}

static void run_resync(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    changing_start(&w, &o, u);
    for (int i = 0; i < 3; i++) {
        if (!change("lose"))
            cf_skip("the source cannot be lost");
        CF_NEED(cf_wait(&w, is_lost, &o, CHANGE_SECONDS * PD_SEC), "a loss is not told within %d s", CHANGE_SECONDS);
        CF_NEED(o.s->n == 3, "entries are taken away by a loss: %u of 3 are left", o.s->n);
        set(&o, "2 3 4", "after a loss");
        set(&o, "1 2 3", "and then");
    }
    source_end(&o);
    cf_world_close(&w);
}

/* It is lost from the start. */
static void run_late(const struct cf_unit *u)
{
    struct cf_world w;
    struct source o;

    need_command(u);
    cf_world_open(&w, u);
    if (!change("lose"))
        cf_skip("the source cannot be lost");
    source_start(&w, &o, 0);
    CF_NEED(cf_wait(&w, is_lost, &o, CHANGE_SECONDS * PD_SEC), "a source that is not there is not told as lost");
    set(&o, "1 2", "when it comes");
    source_end(&o);
    cf_world_close(&w);
}

const struct cf_case cf_discovery_cases[] = {
    { "flags", "flags fit the operations; the first word comes in time, and one after refresh", run_flags },
    { "order", "sets begin and end, the sink is never called from inside", run_set },
    { "any_moment", "a source is ended in the middle of whatever it does, and tells nothing more", run_any_moment },
    { "two_alike", "two instances with the same options name the same", run_two_alike },
    { "refreshes", "many refreshes keep no memory, and the last one is answered", run_refreshes },
    { "add_remove", "servers come and go; what stays keeps its name", run_add_remove },
    { "flap", "after a storm of changes the last one holds", run_flap },
    { "change_growth", "changes keep no memory", run_growth },
    { "duplicates", "what is said twice is there once", run_duplicates },
    { "invalid", "what is no entry takes no other away", run_invalid },
    { "resync", "a loss is told, takes nothing away, and afterwards all is current again", run_resync },
    { "late", "a source that is not there yet is told as lost, and found when it comes", run_late },
    { NULL, NULL, NULL },
};
