/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for sources of discovery whose world changes. */
#include "conform/discovery_source.h"

#include "base/str.h"

enum { CHANGE_SECONDS = 10, NUMBERS = 64 };

static void need_command(const struct cf_unit *u)
{
    if ((source_ops(u)->flags & PD_DISCOVERY_FIXED) != 0)
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
    CF_NEED(world_change(text), "the command cannot set servers");
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
    CF_NEED(told_find(o.s->set, o.s->n, pd_str_from(before.name)) != NULL,
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
        CF_NEED(world_change(i % 2 == 0 ? "set 1 2 3 4 5 6" : "set 1"), "the command cannot set servers");
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
    if (!world_change("twice 1 2"))
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
    if (!world_change("bad 1 2 3"))
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
        if (!world_change("lose"))
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
    if (!world_change("lose"))
        cf_skip("the source cannot be lost");
    source_start(&w, &o, 0);
    CF_NEED(cf_wait(&w, is_lost, &o, CHANGE_SECONDS * PD_SEC), "a source that is not there is not told as lost");
    set(&o, "1 2", "when it comes");
    source_end(&o);
    cf_world_close(&w);
}

const struct cf_case cf_discovery_change_cases[] = {
    { "add_remove", "servers come and go; what stays keeps its name", run_add_remove },
    { "flap", "after a storm of changes the last one holds", run_flap },
    { "change_growth", "changes keep no memory", run_growth },
    { "duplicates", "what is said twice is there once", run_duplicates },
    { "invalid", "what is no entry takes no other away", run_invalid },
    { "resync", "a loss is told, takes nothing away, and afterwards all is current again", run_resync },
    { "late", "a source that is not there yet is told as lost, and found when it comes", run_late },
    { NULL, NULL, NULL },
};
