/* SPDX-License-Identifier: Apache-2.0 */
/* Cases that hold for every kind of unit. */
#include "conform/conform.h"

#include "conf/conf.h"

static bool is_sentence(const char *s)
{
    size_t n = s == NULL ? 0 : strlen(s);

    return n > 1 && s[n - 1] == '.' && strchr(s, '\n') == NULL;
}

static void run_names(const struct cf_unit *u)
{
    CF_NEED(is_sentence(u->unit->summary), "the unit's summary is not a sentence with a full stop");
    CF_NEED(u->ops->size % sizeof(void *) == 0, "ops of %u bytes are no whole number of pointers",
            u->ops->size);
}

static void check_rows(const struct pd_option *rows, const char *where)
{
    for (const struct pd_option *o = rows; o != NULL && o->type != PD_OPT_T_END; o++) {
        if (o->type == PD_OPT_T_ALIAS || o->type == PD_OPT_T_PLACE)
            continue;
        CF_NEED(is_sentence(o->help), "option \"%s%s\": its help is not made of sentences", where, o->name);
        CF_NEED(o->max == 0 || o->min <= o->max, "option \"%s%s\": min is above max", where, o->name);
        CF_NEED(o->hi == 0 || o->lo <= o->hi, "option \"%s%s\": lo is above hi", where, o->name);
        for (size_t i = 0; i < sizeof(o->reserved) / sizeof(o->reserved[0]); i++)
            CF_NEED(o->reserved[i] == 0, "option \"%s%s\": reserved members are not zero", where, o->name);
        if (o->rows != NULL)
            check_rows(o->rows, o->name);
    }
}

static void run_rows(const struct cf_unit *u)
{
    struct pd_err err = { 0 };

    CF_NEED(pd_conf_rows_check(u->unit->options, u->unit->conf_size, &err) == PD_OK, "%s", err.text);
    CF_NEED(u->unit->options != NULL || u->unit->conf_size == 0, "conf_size without rows");
    check_rows(u->unit->options, "");
}

static void run_unknown_option(const struct cf_unit *u)
{
    static const struct pd_option none[] = { PD_OPT_END };
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    bool found = false;

    pd_conf_report_init(&report);
    assert_int_equal(pd_conf_open_text("text", PD_STR("no_such_option_of_mine = 1;\n"), NULL, &report, &conf),
                     PD_OK);
    assert_int_not_equal(pd_conf_fill(conf, u->unit->options == NULL ? none : u->unit->options,
                                      (size_t)u->unit->conf_size, NULL, &report), PD_OK);
    for (uint32_t i = 0; i < report.n_errors; i++)
        found |= strstr(report.errors[i].text, "no_such_option_of_mine") != NULL;
    CF_NEED(found, "an unknown option is not refused");
    pd_conf_put(conf);
    pd_conf_report_fini(&report);
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
    { "names", "name, summary and ops are well formed", run_names },
    { "rows", "option rows have help, legal defaults and sane limits", run_rows },
    { "unknown_option", "an option that is in no row is refused", run_unknown_option },
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
}

const struct cf_case cf_common_cases[] = {
    { "destroy_at_once", "an instance is destroyed right after create", run_at_once },
    { "cycles", "a thousand instances leave no memory, descriptor or handle", run_cycles },
    { "side_by_side", "two instances live beside each other", run_side_by_side },
    { NULL, NULL, NULL },
};
