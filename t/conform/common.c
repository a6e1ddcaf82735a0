/* SPDX-License-Identifier: Apache-2.0 */
/* Cases that hold for every kind of unit. */
#include "conform/conform.h"

static bool is_sentence(const char *s)
{
    size_t n = s == NULL ? 0 : strlen(s);

    return n > 1 && s[n - 1] == '.' && strchr(s, '\n') == NULL;
}

static void run_names(const struct cf_unit *u)
{
    CF_NEED(is_sentence(u->unit->summary), "the unit's summary is not a sentence with a full stop");
}

#define KNOWN_FLAGS (PD_OPT_REQUIRED | PD_OPT_SECRET | PD_OPT_PATH | PD_OPT_POINTER | PD_OPT_NONEMPTY | \
                     PD_OPT_UNIQUE | PD_OPT_QUIET)

static void check_words(const struct pd_option *o, const char *where)
{
    for (const struct pd_option_name *w = o->names; w != NULL && w->name != NULL; w++)
        for (const struct pd_option_name *v = o->names; v < w; v++)
            CF_NEED(strcmp(v->name, w->name) != 0, "option \"%s%s\": knows the word \"%s\" twice", where, o->name,
                    w->name);
}

/* What the loader takes and an operator would stumble over. */
static void check_rows(const struct pd_option *rows, const char *where)
{
    for (const struct pd_option *o = rows; o != NULL && o->type != PD_OPT_T_END; o++) {
        CF_NEED((o->flags & ~(uint32_t)KNOWN_FLAGS) == 0, "option \"%s%s\": flags 0x%x are not known", where, o->name,
                o->flags);
        if (o->type == PD_OPT_T_ALIAS || o->type == PD_OPT_T_PLACE)
            continue;
        CF_NEED(is_sentence(o->help), "option \"%s%s\": its help is not made of sentences", where, o->name);
        CF_NEED((o->flags & PD_OPT_REQUIRED) == 0 || o->def == NULL, "option \"%s%s\": is required and has a default",
                where, o->name);
        check_words(o, where);
        for (size_t i = 0; i < sizeof(o->reserved) / sizeof(o->reserved[0]); i++)
            CF_NEED(o->reserved[i] == 0, "option \"%s%s\": reserved members are not zero", where, o->name);
        if (o->rows != NULL)
            check_rows(o->rows, o->name);
    }
}

static void run_rows(const struct cf_unit *u)
{
    CF_NEED(u->unit->options != NULL || u->unit->conf_size == 0, "conf_size without rows");
    check_rows(u->unit->options, "");
}

static void run_check(const struct cf_unit *u)
{
    uint8_t *copy;
    uint64_t before;
    uint32_t fds = cf_descriptors();

    if (u->unit->check == NULL)
        cf_skip("the unit has no check");
    copy = malloc(u->unit->conf_size + 1);
    assert_non_null(copy);
    if (u->unit->conf_size > 0)
        memcpy(copy, u->conf, u->unit->conf_size);
    before = cf_memory();
    for (uint32_t i = 0; i < 1000; i++) {
        struct pd_err err = { 0 };
        pd_status st = u->unit->check(u->conf, &err);
        CF_NEED(st == PD_OK, "check refuses the options: %s", err.text);
    }
    CF_NEED(cf_memory() <= before + 4096, "check keeps memory");
    CF_NEED(cf_descriptors() == fds, "check keeps descriptors");
    if (u->unit->conf_size > 0)
        CF_NEED(memcmp(copy, u->conf, u->unit->conf_size) == 0, "check changes the options");
    free(copy);
}

const struct cf_case cf_static_cases[] = {
    { "names", "the summary is a sentence", run_names },
    { "rows", "option rows have sentences of help, each word once, nothing unknown", run_rows },
    { "check", "check takes the options, keeps nothing and changes nothing", run_check },
    { NULL, NULL, NULL },
};

static void run_at_once(const struct cf_unit *u)
{
    struct cf_world w;
    struct cf_inst i;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

/* As often as 20 seconds allow, at least 60 times. */
static void run_cycles(const struct cf_unit *u)
{
    enum { N = 1000, WARM = 20, LEAST = 60 };
    uint64_t before = 0, after, used;
    uint32_t fds = 0, cycles = 0;
    struct cf_world w;
    pd_time begin;

    cf_world_open(&w, u);
    begin = pd_loop_clock(w.loop);
    while (cycles < N && (cycles < LEAST || pd_loop_clock(w.loop) - begin < 20 * PD_SEC)) {
        struct cf_inst i;
        if (cycles == WARM) {
            before = cf_memory();
            fds = cf_descriptors();
        }
        cf_create_ok(&w, &i, 0);
        cf_destroy(&w, &i);
        cf_turn(&w, 0);
        cycles++;
    }
    for (int i = 0; i < 20; i++)
        cf_turn(&w, PD_MS);
    after = cf_memory();
    used = after > before ? after - before : 0;
    CF_NEED(used < (uint64_t)(cycles - WARM) * 8, "%llu bytes are lost for each of %u instances",
            (unsigned long long)(used / (cycles - WARM)), cycles - WARM);
    CF_NEED(cf_descriptors() <= fds, "%u descriptors are lost in %u instances", cf_descriptors() - fds,
            cycles - WARM);
    cf_world_close(&w);
}

/* ---- two of them */

void cf_put(struct cf_bytes *b, const void *p, size_t n)
{
    if (n > sizeof(b->p) - b->n)
        n = sizeof(b->p) - b->n;
    if (n > 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void same_answer(struct cf_inst *i, void (*answer)(struct cf_inst *i, struct cf_bytes *out),
                        const struct cf_bytes *before, const char *when)
{
    struct cf_bytes *now = calloc(1, sizeof(*now));

    assert_non_null(now);
    answer(i, now);
    CF_NEED(now->n == before->n && memcmp(now->p, before->p, now->n) == 0, "an instance answers otherwise %s", when);
    free(now);
}

void cf_beside(const struct cf_unit *u, void (*answer)(struct cf_inst *i, struct cf_bytes *out))
{
    struct cf_bytes *first = calloc(2, sizeof(*first)), *second = first + 1;
    struct cf_world w;
    struct cf_inst a, b;

    assert_non_null(first);
    cf_world_open(&w, u);
    cf_create_ok(&w, &a, 0);
    answer(&a, first);
    cf_create_ok(&w, &b, 1);
    same_answer(&a, answer, first, "when there is another one");
    answer(&b, second);
    cf_destroy(&w, &a);
    cf_turn(&w, 0);
    same_answer(&b, answer, second, "when another one has ended");
    cf_destroy(&w, &b);
    cf_world_close(&w);
    free(first);
}

static void beside_of_kind(const struct cf_unit *u)
{
    static void (*const of_kind[PD_KIND_LIMIT])(const struct cf_unit *u) = {
        [PD_KIND_ENGINE] = cf_engine_beside,   [PD_KIND_TRANSPORT] = cf_transport_beside,
        [PD_KIND_FILTER] = cf_sched_beside,    [PD_KIND_SCORER] = cf_sched_beside,
        [PD_KIND_PICKER] = cf_sched_beside,    [PD_KIND_DECIDER] = cf_sched_beside,
        [PD_KIND_CODEC] = cf_codec_beside,     [PD_KIND_EXPORTER] = cf_exporter_beside,
        [PD_KIND_ADAPTER] = cf_adapter_beside, [PD_KIND_DISCOVERY] = cf_discovery_beside,
    };

    if (u->unit->kind < PD_KIND_LIMIT && of_kind[u->unit->kind] != NULL)
        of_kind[u->unit->kind](u);
}

static void run_side_by_side(const struct cf_unit *u)
{
    struct cf_world w;
    struct cf_inst a, b;

    cf_world_open(&w, u);
    cf_create_ok(&w, &a, 0);
    cf_create_ok(&w, &b, 1);
    CF_NEED(a.p != b.p, "two instances are the same object");
    cf_turn(&w, 0);
    cf_destroy(&w, &a);
    cf_turn(&w, 0);
    cf_destroy(&w, &b);
    cf_create_ok(&w, &a, 0);
    cf_destroy(&w, &a);
    cf_world_close(&w);
    beside_of_kind(u);
}

const struct cf_case cf_common_cases[] = {
    { "destroy_at_once", "an instance is destroyed right after create", run_at_once },
    { "cycles", "a thousand instances leave no memory, descriptor or handle", run_cycles },
    { "side_by_side", "two instances live beside each other, and one without the other", run_side_by_side },
    { NULL, NULL, NULL },
};
