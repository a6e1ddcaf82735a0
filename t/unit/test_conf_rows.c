/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of rows as modules may bring them: what is wrong with a table, members of each
 * width, limits and flags of all kinds; and reading with each allocation failing, wherever
 * the arena happens to end. */
#include "unit.h"

#include <pdplane/module.h>

#include "base/mem.h"
#include "base/str.h"
#include "conf/conf.h"

struct small {
    int64_t a, b;
    const char *s, *t;
};

struct wide {
    int8_t i8;
    uint8_t u8;
    int16_t i16;
    uint16_t u16;
    int32_t i32;
    uint32_t u32, word, bits32;
    int64_t i64;
    uint64_t size, bits;
    pd_time wait;
    double number, least;
    bool flag;
    const char *text, *path, *secret, *other;
    struct pd_conf_strings list, paths;
    struct pd_conf_unit unit, second;
    struct pd_conf_list units, items;
    struct small in_place;
    const struct small *pointed;
    struct pd_conf_place place;
};

static const struct pd_option_name words[] = { { "one", 1 }, { "two", 2 }, { "three", 3 }, { NULL, 0 } };

static const struct pd_option small_rows[] = {
    PD_OPT_INT("a", struct small, a, "1", .min = -1, .help = "A."),
    PD_OPT_INT("b", struct small, b, NULL, .min = INT64_MIN, .unit = "tokens", .help = ".B begins with a dot. 'Quoted \\ it is."),
    PD_OPT_STRING("s", struct small, s, NULL, .flags = PD_OPT_UNIQUE, .help = "S."),
    PD_OPT_STRING("t", struct small, t, NULL, .flags = PD_OPT_NONEMPTY, .help = "T."),
    PD_OPT_END
};

static const struct pd_option rows[] = {
    PD_OPT_INT("i8", struct wide, i8, "-5", .min = -128, .help = "A number\nin two lines."),
    PD_OPT_INT("u8", struct wide, u8, "200", .max = 255, .help = "Number."),
    PD_OPT_INT("i16", struct wide, i16, "-5", .min = -300, .max = 300, .help = "Number."),
    PD_OPT_INT("u16", struct wide, u16, "65535", .max = 65535, .help = "Number."),
    PD_OPT_INT("i32", struct wide, i32, "7", .unit = "blocks", .help = "Number."),
    PD_OPT_INT("u32", struct wide, u32, "4000000000", .max = UINT32_MAX, .help = "Number."),
    PD_OPT_INT("i64", struct wide, i64, "0", .min = -7, .help = "Number."),
    PD_OPT_SIZE("size", struct wide, size, NULL, .min = 16, .help = "Size."),
    PD_OPT_DURATION("wait", struct wide, wait, NULL, .min = 5, .max = 60 * PD_SEC, .help = "Wait."),
    PD_OPT_NUMBER("number", struct wide, number, NULL, .lo = -1, .hi = 1, .unit = "parts", .help = "Number."),
    PD_OPT_NUMBER("least", struct wide, least, "2.5", .lo = 2, .help = "Number."),
    PD_OPT_ENUM("word", struct wide, word, "one", words, .help = "Word."),
    PD_OPT_FLAGS("bits", struct wide, bits, NULL, words, .flags = PD_OPT_NONEMPTY, .help = "Bits."),
    PD_OPT_FLAGS("bits32", struct wide, bits32, "one, two", words, .help = "Bits."),
    PD_OPT_BOOL("flag", struct wide, flag, NULL, .help = "Flag."),
    PD_OPT_STRING("text", struct wide, text, NULL, .flags = PD_OPT_NONEMPTY, .help = "Text."),
    PD_OPT_STRING("path", struct wide, path, "sub/file", .flags = PD_OPT_PATH, .help = "Path."),
    PD_OPT_STRING("secret", struct wide, secret, NULL, .flags = PD_OPT_SECRET, .help = "Secret."),
    PD_OPT_STRING("other", struct wide, other, NULL, .flags = PD_OPT_SECRET, .help = "Secret."),
    PD_OPT_STRING_LIST("list", struct wide, list, NULL, .min = 2, .flags = PD_OPT_NONEMPTY, .help = "List."),
    PD_OPT_STRING_LIST("paths", struct wide, paths, "a/b, /c", .flags = PD_OPT_PATH, .help = "List."),
    PD_OPT_UNIT("unit", struct wide, unit, PD_KIND_BIT(PD_KIND_SCORER), .help = "Unit."),
    PD_OPT_UNIT("second", struct wide, second, PD_KIND_BIT(PD_KIND_SCORER), .def = "load", .help = "Unit."),
    PD_OPT_UNIT_MAP("units", struct wide, units, PD_KIND_BIT(PD_KIND_SCORER), .help = "Units."),
    PD_OPT_GROUP_LIST("items", struct wide, items, small_rows, struct small, .min = 1, .max = 2, .help = "Items."),
    PD_OPT_GROUP("in_place", struct wide, in_place, small_rows, struct small, .help = "Group."),
    PD_OPT_GROUP("pointed", struct wide, pointed, small_rows, struct small, .flags = PD_OPT_POINTER, .help = "Group."),
    PD_OPT_ALIAS("old_text", "text"),
    PD_OPT_PLACE(struct wide, place),
    PD_OPT_END
};

struct scorer_conf {
    int64_t limit;
};
static const struct pd_option scorer_rows[] = { PD_OPT_INT("limit", struct scorer_conf, limit, "10", .help = "Limit."), PD_OPT_END };
static const struct pd_conf_found scorers[] = {
    { .name = "load", .rows = scorer_rows, .conf_size = sizeof(struct scorer_conf), .unit = &scorers[0] },
    { .name = "plain", .unit = &scorers[1] },
};

static pd_status find(void *arg, uint64_t kinds, const char *name, struct pd_conf_found *out, struct pd_err *err)
{
    (void)arg;
    (void)kinds;
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(scorers[i].name, name) == 0) {
            *out = scorers[i];
            return PD_OK;
        }
    }
    snprintf(err->text, sizeof err->text, "no scorer %s", name);
    return PD_ENOENT;
}

static bool each(void *arg, uint64_t kinds, size_t index, struct pd_conf_found *out)
{
    (void)arg;
    (void)kinds;
    if (index < 2)
        *out = scorers[index];
    return index < 2;
}

static const char *env(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "TOKEN") == 0 ? "s3cret" : strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

static const struct pd_conf_resolver resolver = { find, each, NULL };
static const struct pd_conf_source source = { .env = env, .prefix = "/srv" };

static struct pd_conf *read_text(const char *text, const struct pd_conf_resolver *r, struct pd_conf_report *report)
{
    struct pd_conf *conf = NULL;
    pd_conf_report_init(report);
    if (pd_conf_open_text("t.conf", pd_str_from(text), &source, report, &conf) == PD_OK &&
        pd_conf_fill(conf, rows, sizeof(struct wide), r, report) == PD_OK)
        return conf;
    pd_conf_put(conf);
    return NULL;
}

static void bad(const char *text, const char *message)
{
    struct pd_conf_report report;
    assert_null(read_text(text, &resolver, &report));
    if (report.n_errors == 0 || strstr(report.errors[0].text, message) == NULL)
        pd_conf_report_print(&report, stderr);
    assert_true(report.n_errors > 0);
    assert_non_null(strstr(report.errors[0].text, message));
    pd_conf_report_fini(&report);
}

static char *dump_text(const struct pd_conf *conf)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(pd_conf_dump(conf, f), PD_OK);
    fclose(f);
    return text;
}

static const char full[] =
    "i8 = -128; u8 = 255; i16 = 300; u16 = 0; i32 = 2147483647; u32 = 4294967295; i64 = -7;\n"
    "size = \"16\"; wait = \"60s\"; number = -1; least = 2; word = \"three\"; bits = [ \"one\", \"two\" ]; bits32 = \"two\";\n"
    "flag = true; text = \"a\\tb\\x01\\x7f\"; path = \"x\"; secret = \"${TOKEN}\"; list = [ \"x\", \"y\" ]; paths = ( \"z\" );\n"
    "unit = \"plain\"; second = \"load\"; limit = 3; units = { plain = { }; };\n"
    "items = ( { s = \"one\"; a = -1; }, { t = \"x\"; b = 5; s = \"two\" } ); in_place = { a = 3; }; pointed = { b = -4; };\n";

static void test_widths(void **state)
{
    struct pd_conf_report report;
    struct pd_conf *conf = read_text(full, &resolver, &report);
    (void)state;
    pd_conf_report_print(&report, stderr);
    assert_non_null(conf);
    const struct wide *w = pd_conf_root(conf);
    assert_int_equal(w->i8, -128);
    assert_int_equal(w->u8, 255);
    assert_int_equal(w->i16, 300);
    assert_int_equal(w->i32, INT32_MAX);
    assert_true(w->u32 == UINT32_MAX);
    assert_int_equal(w->i64, -7);
    assert_int_equal(w->bits, 3);
    assert_int_equal(w->bits32, 2);
    assert_string_equal(w->paths.items[0], "/srv/z");
    assert_string_equal(w->unit.name, "plain");
    assert_int_equal(w->pointed->b, -4);
    /* What is printed is read back as the same. */
    char *text = dump_text(conf);
    assert_null(strstr(text, "s3cret"));
    struct pd_conf_report again_report;
    struct pd_conf *again = read_text(text, &resolver, &again_report);
    pd_conf_report_print(&again_report, stderr);
    assert_non_null(again);
    assert_true(pd_conf_equal(rows, w, pd_conf_root(again)));
    assert_null(pd_conf_file_at(conf, 99));
    pd_conf_put(again);
    free(text);
    pd_conf_put(conf);
    pd_conf_report_fini(&report);
    pd_conf_report_fini(&again_report);
    conf = read_text("", &resolver, &report);
    w = pd_conf_root(conf);
    assert_int_equal(w->u8, 200);
    assert_string_equal(w->path, "/srv/sub/file");
    assert_string_equal(w->paths.items[0], "/srv/a/b");
    assert_string_equal(w->paths.items[1], "/c");
    assert_string_equal(w->second.name, "load");
    assert_null(w->unit.name);
    pd_conf_put(conf);
    pd_conf_report_fini(&report);
}

static void test_wrong(void **state)
{
    (void)state;
    bad("i8 = 128;", "option \"i8\" is 128, allowed: -128 to 127");
    bad("i64 = -8;", "allowed: at least -7");
    bad("number = 1.5;", "allowed: -1 to 1 parts");
    bad("number = \"x\";", "must be a number, not a string");
    bad("least = 1.5;", "allowed: at least 2");
    bad("size = \"15\";", "allowed: at least 16");
    bad("size = \"99999999999g\";", "size");
    bad("wait = \"61s\";", "allowed: 5ns to 1m");
    bad("bits = [ ];", "option \"bits\" must not be empty");
    bad("bits = 3;", "must be strings such as");
    bad("list = [ ];", "option \"list\" must not be empty");
    bad("list = [ \"x\" ];", "has 1 members, allowed: 2 to 1024");
    bad("list = [ \"x\", \"\" ];", "has an empty string in it");
    bad("list = [ \"x\", \"${NONE}\" ];", "\"NONE\"");
    bad("text = \"\";", "option \"text\" must not be empty");
    bad("text = [ \"x\" ];", "must be a string, not an array");
    bad("text = \"${}\";", "is not followed by a variable's name");
    bad("text = \"${1X}\";", "is not followed by a variable's name");
    bad("secret = \"${EMPTY}\";", "secret \"secret\" is empty");
    bad("secret_file = 3;", "option \"secret_file\" must be a string, not an integer");
    bad("secret_file = \"${NONE}\";", "\"NONE\"");
    bad("secret_file = \"none-such\";", "/srv/none-such");
    bad("unit = 3;", "must be the name of a module's unit in quotes, not an integer");
    bad("unit = \"${NONE}\";", "\"NONE\"");
    bad("unit = \"nothing\";", "no scorer nothing");
    bad("units = 3;", "must be a group { }, not an integer");
    bad("units = { load = 3; };", "option \"load\" in \"units\" must be a group { }, not an integer");
    bad("items = 3;", "must be a list of groups");
    bad("items = [ 1 ];", "must be a list of groups");
    bad("items = ( );", "has 0 members, allowed: 1 to 2");
    bad("items = [ ];", "has 0 members, allowed: 1 to 2");
    bad("items = ( { }, { }, { } );", "has 3 members, allowed: 1 to 2");
    bad("items = ( { name = 3; } );", "unknown option \"name\" in items number 1");
    bad("items = ( { s = \"x\"; }, { s = \"x\"; } );", "is given a second time");
    bad("in_place = 3;", "must be a group { }, not an integer");
    bad("word = \"zzzzzzzz\";", "does not know \"zzzzzzzz\"");
    bad("old_text = \"x\"; text = \"y\";", "is another name of \"text\"");
    struct pd_conf_report report;
    assert_null(read_text("unit = \"load\";", NULL, &report));
    assert_non_null(strstr(report.errors[0].text, "cannot be looked up before modules are loaded"));
    pd_conf_report_fini(&report);
}

/* ---- tables */

static void table_bad(const struct pd_option *table, uint64_t size, const char *message)
{
    struct pd_err err = { 0 };
    assert_int_equal(pd_conf_rows_check(table, size, &err), PD_EINVAL);
    if (strstr(err.text, message) == NULL)
        fprintf(stderr, "# %s, not %s\n", err.text, message);
    assert_non_null(strstr(err.text, message));
}

static void test_tables(void **state)
{
    static struct pd_option many[300], nested[12][2];
    static char names[300][8];
    struct pd_err err = { 0 };
    (void)state;
    assert_int_equal(pd_conf_rows_check(rows, sizeof(struct wide), &err), PD_OK);
    table_bad(rows, 0, "fill a struct of 0 bytes");
    table_bad(rows, (uint64_t)1 << 40, "fill a struct of 1099511627776 bytes");
#define ONE(...) (const struct pd_option[]){ __VA_ARGS__, PD_OPT_END }, sizeof(struct wide)
#define W struct wide
    table_bad(ONE(PD_OPT_INT("", W, i64, "1", .help = "x")), "illegal name");
    table_bad(ONE(PD_OPT_INT("9a", W, i64, "1", .help = "x")), "illegal name");
    table_bad(ONE(PD_OPT_INT("a0123456789012345678901234567890123456789012345678901234567890123456789", W, i64, "1", .help = "x")), "illegal name");
    table_bad(ONE(PD_OPT_INT("a", W, i64, "1", .help = "")), "has no help text");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_ALIAS }), "is an alias of nothing");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_END, .help = "x" }), "has the unknown type 0");
    table_bad(ONE({ .name = "a", .type = 77, .help = "x" }), "has the unknown type 77");
    table_bad(ONE(PD_OPT_ENUM("a", W, word, NULL, NULL, .help = "x")), "knows no words");
    table_bad(ONE(PD_OPT_FLAGS("a", W, bits, NULL, NULL, .help = "x")), "knows no words");
    table_bad(ONE(PD_OPT_INT("a", W, i64, NULL, .flags = PD_OPT_SECRET, .help = "x")), "is a secret");
    table_bad(ONE(PD_OPT_UNIT("a", W, unit, 0, .help = "x")), "names no kind of unit");
    table_bad(ONE(PD_OPT_UNIT_MAP("a", W, units, 0, .help = "x")), "names no kind of unit");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_GROUP_LIST, .rows = small_rows, .width = sizeof(struct pd_conf_list), .help = "x" }), "without rows or size");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_GROUP_LIST, .rows = small_rows, .item_size = 1u << 30, .width = sizeof(struct pd_conf_list), .help = "x" }), "without rows or size");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_INT, .width = 3, .help = "x" }), "member of 3 bytes");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_FLAGS, .width = 2, .names = words, .help = "x" }), "member of 2 bytes");
    table_bad(ONE({ .name = "a", .type = PD_OPT_T_STRING_LIST, .width = 8, .help = "x" }), "member of 8 bytes");
    table_bad(ONE({ .name = "", .type = PD_OPT_T_PLACE, .width = 1 }), "member of 1 bytes");
    table_bad(ONE(PD_OPT_NUMBER("a", W, number, NULL, .lo = 2, .hi = 1, .help = "x")), "a least value above");
    table_bad(ONE(PD_OPT_SIZE("a", W, size, NULL, .min = -1, .help = "x")), "negative least value");
    table_bad(ONE(PD_OPT_DURATION("a", W, wait, NULL, .min = -1, .help = "x")), "negative least value");
    table_bad(ONE(PD_OPT_STRING_LIST("a", W, list, NULL, .min = -1, .help = "x")), "negative least value");
    table_bad(ONE(PD_OPT_BOOL("a", W, flag, "perhaps", .help = "x")), "has a bad default");
    table_bad(ONE(PD_OPT_NUMBER("a", W, number, "x", .help = "x")), "has a bad default");
    table_bad(ONE(PD_OPT_NUMBER("a", W, number, "7", .hi = 5, .help = "x")), "has a bad default");
    table_bad(ONE(PD_OPT_SIZE("a", W, size, "x", .help = "x")), "has a bad default");
    table_bad(ONE(PD_OPT_ENUM("a", W, word, "x", words, .help = "x")), "has a bad default");
    table_bad(ONE(PD_OPT_FLAGS("a", W, bits, "one, x", words, .help = "x")), "has a bad default");
    table_bad(ONE(PD_OPT_STRING_LIST("a", W, list, "a", .min = 2, .help = "x")), "has a bad default");
    assert_int_equal(pd_conf_rows_check(ONE(PD_OPT_PLACE(W, place), PD_OPT_PLACE(W, place)), &err), PD_OK);
    for (size_t i = 0; i < 299; i++) {
        snprintf(names[i], sizeof names[i], "a%zu", i);
        many[i] = (struct pd_option)PD_OPT_INT(names[i], W, i64, "1", .help = "x");
    }
    table_bad(many, sizeof(W), "PD_OPT_END is missing");
    for (size_t i = 0; i < 12; i++)
        nested[i][0] = (struct pd_option){ .name = "a", .type = PD_OPT_T_GROUP, .width = 64, .item_size = 64, .help = "x",
                                           .rows = i < 11 ? nested[i + 1] : small_rows };
    table_bad(nested[0], 64, "nested more than 8 levels deep");
    /* Each allocation of the check fails once. */
    pd_mem_fault_set(1);
    assert_int_equal(pd_conf_rows_check(ONE(PD_OPT_STRING_LIST("a", W, list, "a, b", .help = "x")), &err), PD_EINVAL);
    pd_mem_fault_set(0);
    assert_non_null(strstr(err.text, "no memory"));
}

static void test_reference(void **state)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    (void)state;
    pd_conf_reference(rows, PD_CONF_REF_TEXT, f);
    pd_conf_reference(rows, PD_CONF_REF_MDOC, f);
    pd_conf_reference(NULL, PD_CONF_REF_TEXT, f);
    fclose(f);
    static const char *const parts[] = {
        "i8  (integer, at least -128, default -5)\n    A number in two lines.\n", "number  (number, -1 to 1 parts)\n",
        "i32  (integer, blocks, default 7)\n", "secret  (secret)\n", "paths  (list of paths, default [ a/b, /c ])\n",
        "word  (word: \"one\", \"two\", \"three\", default \"one\")\n", "second  (name of a module's unit, whose options follow, default \"load\")\n",
        "in_place.b  (integer, tokens)\n", ".It Ic units\ngroup with one group of options per module's unit\n",
        ".Pp\n\\&.B begins with a dot.\n\\&'Quoted \\e it is.\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(text, parts[i]) == NULL)
            fprintf(stderr, "# not there: %s\n", parts[i]);
        assert_non_null(strstr(text, parts[i]));
    }
    assert_null(strstr(text, "old_text"));
    free(text);
}

/* The arena takes memory in large pieces; a text in front moves where they end, so
 * that each of its users meets the end. */
static void test_no_memory(void **state)
{
    static char text[40000];
    char *whole;
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    size_t step = 1024;
#else
    size_t step = 96;
#endif
    for (size_t pad = 0; pad < 16384; pad += step) {
        int n = snprintf(text, sizeof text, "old_text = \"%0*d\";\n%s", (int)pad + 1, 0, full);
        assert_true(n > 0 && (size_t)n < sizeof text);
        /* "text" is given above: once is enough. */
        whole = strstr(text, "text = \"a");
        memmove(whole, strchr(whole, ';') + 1, strlen(strchr(whole, ';') + 1) + 1);
        bool failed = true;
        for (uint64_t at = 1; failed; at++) {
            struct pd_conf_report report;
            uint64_t before = pd_mem_count();
            pd_mem_fault_set(at);
            struct pd_conf *conf = read_text(text, &resolver, &report);
            pd_mem_fault_set(0);
            failed = pd_mem_count() - before >= at;
            if (!failed) {
                assert_non_null(conf);
            } else if (conf == NULL) {
                assert_false(pd_conf_report_ok(&report));
            }
            pd_conf_put(conf);
            pd_conf_report_fini(&report);
        }
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_widths), cmocka_unit_test(test_wrong), cmocka_unit_test(test_tables),
    cmocka_unit_test(test_reference), cmocka_unit_test(test_no_memory),
};

PD_UNIT_MAIN(tests)
