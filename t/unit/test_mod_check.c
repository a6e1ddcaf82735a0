/* SPDX-License-Identifier: Apache-2.0 */
/* Whether what a module exports may be used: one good module, and each thing that can
 * be wrong with it; and the table of what a host gives. */
#include "unit.h"

#include <sys/resource.h>

#include <pdplane/module.h>
#include <pdplane/scheduler.h>

#include "base/mem.h"
#include "base/status.h"
#include "mod/check.h"
#include "mod/host.h"

struct conf {
    int64_t start;
};

static const struct pd_option options[] = {
    PD_OPT_INT("start", struct conf, start, "0", .help = "Start."), PD_OPT_END
};

static pd_status nothing_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_picker **out,
                                struct pd_err *err)
{
    (void)ctx;
    (void)conf;
    (void)out;
    (void)err;
    return PD_OK;
}

static const struct pd_host_api *host;

/* A module that can be changed. */
struct world {
    struct pd_picker_ops ops;
    struct pd_unit units[4];
    struct pd_module module;
    const char *aliases[20];
    struct pd_option rows[2];
};

static void begin(struct world *w)
{
    static const struct pd_unit unit = PD_UNIT(.kind = PD_KIND_PICKER, .name = "one", .options = options,
                                               .conf_size = sizeof(struct conf), .summary = "One.");
    memset(w, 0, sizeof *w);
    memset(&w->ops, 1, sizeof w->ops);      /* all operations are there */
    w->ops.head = (struct pd_ops_head)PD_OPS(pd_picker_ops, PD_PICKER_V1);
    w->ops.create = nothing_create;
    w->units[0] = unit;
    w->units[0].ops = &w->ops.head;
    w->module = (struct pd_module){ .magic = PD_MODULE_MAGIC, .abi_major = PD_ABI_MAJOR, .abi_minor = PD_ABI_MINOR,
                                    .size = sizeof w->module, .host = &host, .name = "mine", .version = "1",
                                    .summary = "Mine.", .units = w->units };
}

static void good(struct world *w, const char *path)
{
    struct pd_err err = { 0 };
    pd_status st = pd_mod_check(&w->module, path, pd_kinds(), &err);
    if (st != PD_OK)
        fprintf(stderr, "# %s\n", err.text);
    assert_int_equal(st, PD_OK);
}

/* The check fails with these words in text and hint. */
static void bad(struct world *w, const char *path, const char *text, const char *hint)
{
    struct pd_err err = { 0 };
    pd_status st = pd_mod_check(&w->module, path, pd_kinds(), &err);
    assert_true(st < 0);
    assert_int_equal(err.status, st);
    if (strstr(err.text, text) == NULL || strstr(err.hint, hint) == NULL)
        fprintf(stderr, "# %s (%s)\n", err.text, err.hint);
    assert_non_null(strstr(err.text, text));
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.hint, hint));
}

#define PATH "/x/mine.so"
#define BAD(change, text, hint)                                        \
    do {                                                               \
        struct world changed_;                                         \
        struct world *const m = &changed_;                             \
        begin(m);                                                      \
        change;                                                        \
        bad(m, PATH, text, hint);                                      \
    } while (0)

static void test_prefix(void **state)
{
    struct world w;
    (void)state;
    begin(&w);
    good(&w, PATH);
    good(&w, "mine.so");
    bad(&w, "/x/mine.so.1", "calls itself \"mine\"", "name the file mine.so");
    bad(&w, "/x/other.so", "calls itself \"mine\"", "name the file mine.so");
    BAD(m->module.magic = 1, "begins with 0x00000001", "no pdplane module");
    BAD(m->module.abi_major++, "built for ABI", "use a newer pdplane, or rebuild");
    BAD(m->module.abi_major--, "built for ABI", "rebuild the module");
    BAD(m->module.abi_minor++, "needs ABI", "use a newer pdplane");
    BAD(m->module.size = 16, "has 16 bytes", "rebuild");
}

static void test_module(void **state)
{
    (void)state;
    BAD(m->module.name = NULL, "its name \"\" is illegal", "beginning with a letter");
    BAD(m->module.name = "1st", "its name \"1st\" is illegal", "beginning with a letter");
    BAD(m->module.name = "my-own", "its name \"my-own\" is illegal", "a to z, 0 to 9 and _");
    BAD(m->module.name = "mY", "illegal", "");
    BAD(m->module.name = "a{", "illegal", "");
    BAD(m->module.name = "{", "illegal", "");
    BAD(m->module.name = "a~", "illegal", "");
    BAD(m->module.name = "a/", "illegal", "");
    BAD(m->module.name = "a012345678901234567890123456789012345678901234567890123456789012", "", "");
    BAD(m->module.name = "a0123456789012345678901234567890123456789012345678901234567890123", "illegal", "");
    BAD(m->module.version = NULL, "it has no version", "");
    BAD(m->module.summary = NULL, "it has no summary", "");
    BAD(m->module.host = NULL, "it has no room for the host", "");
    BAD(m->module.units = NULL, "it provides no unit", "");
    BAD(m->units[0].size = 0, "it provides no unit", "");
}

static void test_unit(void **state)
{
    struct world w;
    (void)state;
    BAD(m->units[0].name = NULL, "unit name \"\" is illegal", "");
    BAD(m->units[0].name = "One", "unit name \"One\" is illegal", "");
    BAD(m->units[0].kind = 99, "is of the unknown kind 99 (unknown)", "newer pdplane");
    BAD(m->units[0].ops = NULL, "picker \"one\" has no ops", "");
    BAD(m->ops.head.version = 0, "is of version 0", "rebuild");
    BAD(m->ops.head.version = 77, "is of version 77", "rebuild");
    BAD(m->ops.head.size = 8, "have 8 bytes", "rebuild");
    BAD(m->ops.pick = NULL, "lacks the operation \"pick\"", "");
    BAD(m->units[0].summary = NULL, "has no summary", "");
    BAD(m->units[0].conf_size = 0, "option rows fill a struct of 0 bytes", "");
    BAD(m->units[0].size = 8, "struct pd_unit has 8 bytes", "rebuild");
    BAD(m->units[0].size = 100000, "struct pd_unit has 100000 bytes", "rebuild");
    /* The second: its size, its name. */
    BAD((m->units[1] = m->units[0], m->units[1].size += 8), "struct pd_unit has", "rebuild");
    BAD(m->units[1] = m->units[0], "provides the picker \"one\" twice", "");
    begin(&w);
    w.units[1] = w.units[0];
    w.units[1].name = "two";
    good(&w, PATH);
}

static void test_aliases(void **state)
{
    struct world w;
    (void)state;
    begin(&w);
    w.units[0].aliases = w.aliases;
    w.aliases[0] = "one-picker";
    w.aliases[1] = "the_one";
    good(&w, PATH);
    assert_true(pd_mod_unit_is(&w.units[0], "the_one"));
    assert_true(pd_mod_unit_is(&w.units[0], "one"));
    assert_false(pd_mod_unit_is(&w.units[0], "two"));
    w.units[1] = w.units[0];
    w.units[1].name = "two";
    bad(&w, PATH, "provides the picker \"one-picker\" twice", "");
    w.aliases[2] = "no space";
    bad(&w, PATH, "alias \"no space\" of unit \"one\" is illegal", "");
    for (size_t i = 0; i < 17; i++)
        w.aliases[i] = "x";
    bad(&w, PATH, "alias \"x\" of unit \"one\" is illegal", "");
    /* The name of one is the alias of another. */
    begin(&w);
    w.units[1] = w.units[0];
    w.units[1].name = "two";
    w.units[1].aliases = w.aliases;
    w.aliases[0] = "one";
    bad(&w, PATH, "provides the picker \"one\" twice", "");
}

/* A list of units without an end stops at the limit. */
static void test_many(void **state)
{
    static struct pd_unit units[PD_MOD_UNITS_MAX + 2];
    static char names[PD_MOD_UNITS_MAX + 2][16];
    struct world w;
    (void)state;
    begin(&w);
    for (size_t i = 0; i < PD_MOD_UNITS_MAX + 2; i++) {
        units[i] = w.units[0];
        snprintf(names[i], sizeof names[i], "u%zu", i);
        units[i].name = names[i];
    }
    w.module.units = units;
    bad(&w, PATH, "PD_UNIT_END is missing", "");
    units[PD_MOD_UNITS_MAX].size = 0;
    good(&w, PATH);
}

static void test_kinds(void **state)
{
    char text[200];
    (void)state;
    assert_string_equal(pd_kind_name(0), "unknown");
    assert_string_equal(pd_kind_name(PD_KIND_LIMIT), "unknown");
    assert_string_equal(pd_kinds_text(0, text, sizeof text), "");
    assert_string_equal(pd_kinds_text(PD_KIND_BIT(PD_KIND_ROLE) | PD_KIND_BIT(PD_KIND_CODEC), text, sizeof text),
                        "role or codec");
    assert_string_equal(pd_kinds_text(~(uint64_t)0, text, 8), "role");
    assert_null(pd_mod_kind(pd_kinds(), 99));
}

static void test_host(void **state)
{
    static const char *const names[] = { "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "n12",
                                         "n13", "n14", "n15", "n16", "n17", "n18", "n19", "n20", "n21", "n22", "n23", "n24",
                                         "n25", "n26", "n27", "n28", "n29", "n30", "n31", "n32", "n33", "n34" };
    const struct pd_host_api *api = pd_host_api_table();
    struct pd_host h;
    int object, other;
    (void)state;
    pd_host_init(&h);
    assert_int_equal(pd_host_register(&h, "a", 3, "table", &object), PD_OK);
    assert_int_equal(pd_host_register(&h, "b", 1, "second", NULL), PD_OK);
    assert_int_equal(pd_host_register(&h, "a", 3, "table", &object), PD_EEXIST);
    assert_string_equal(api->table(&h, "a", 3), "table");
    assert_null(api->table(&h, "a", 2));
    assert_null(api->table(&h, "c", 3));
    assert_ptr_equal(api->object(&h, "a"), &object);
    assert_null(api->object(&h, "c"));
    pd_host_set_object(&h, "b", &other);
    pd_host_set_object(&h, "c", &other);
    assert_ptr_equal(api->object(&h, "b"), &other);
    pd_status st = PD_OK;
    size_t n = 0;
    for (; n < sizeof names / sizeof names[0] && st == PD_OK; n++)
        st = pd_host_register(&h, names[n], 1, "x", NULL);
    assert_int_equal(st, PD_ELIMIT);
    assert_int_equal(h.n_entries, PD_HOST_TABLES_MAX);
    struct pd_codec *codec = NULL;
    st = PD_OK;
    for (n = 0; n < sizeof names / sizeof names[0] && st == PD_OK; n++)
        st = pd_host_codec_add(&h, names[n], NULL, (struct pd_codec *)(void *)&object);
    assert_int_equal(st, PD_ELIMIT);
    assert_int_equal(pd_host_codec_add(&h, "n0", NULL, NULL), PD_EEXIST);
    (void)api->codec(&h, "n1", &codec);
    assert_ptr_equal(codec, &object);
    codec = NULL;
    assert_null(api->codec(&h, "n99", &codec));
    assert_null(codec);
}

static void test_memory(void **state)
{
    const struct pd_host_api *api = pd_host_api_table();
    struct pd_host h;
    struct pd_host_memory m, all[PD_HOST_MEMORIES_MAX];
    struct pd_err err = { 0 };
    struct rlimit limit, less;
    (void)state;
    pd_host_init(&h);
    assert_int_equal(api->memory_alloc(&h, "x", 0, &m, &err), PD_EINVAL);
    assert_int_equal(api->memory_alloc(&h, "x", UINT64_MAX, &m, &err), PD_EINVAL);
    assert_non_null(strstr(err.text, "is not a size of memory"));
    assert_int_equal(api->memory_alloc(&h, "x", (uint64_t)1 << 62, &m, &err), PD_ENOMEM);
    assert_non_null(strstr(err.text, "of shared memory"));
    assert_int_equal(h.n_memories, 0);
    for (uint32_t i = 0; i < PD_HOST_MEMORIES_MAX; i++)
        assert_int_equal(api->memory_alloc(&h, "x", 1, &all[i], &err), PD_OK);
    assert_int_equal(api->memory_alloc(&h, "x", 1, &m, &err), PD_ELIMIT);
    for (uint32_t i = 0; i < PD_HOST_MEMORIES_MAX; i++) {
        api->memory_free(&h, &all[i]);
        api->memory_free(&h, &all[i]);
        assert_int_equal(all[i].fd, -1);
    }
    assert_int_equal(h.n_memories, 0);
    /* No descriptor is left. */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    less = limit;
    less.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
    pd_status st = api->memory_alloc(&h, "x", 1, &m, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(st, PD_ELIMIT);
    assert_non_null(strstr(err.text, "cannot create shared memory"));
    assert_int_equal(h.n_memories, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_prefix), cmocka_unit_test(test_module), cmocka_unit_test(test_unit),
    cmocka_unit_test(test_aliases), cmocka_unit_test(test_many), cmocka_unit_test(test_kinds),
    cmocka_unit_test(test_host), cmocka_unit_test(test_memory),
};

PD_UNIT_MAIN(tests)
