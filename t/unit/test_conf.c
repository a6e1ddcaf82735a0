/* SPDX-License-Identifier: Apache-2.0 */
/* core/conf through its header: texts in, structs, messages and dumps out. */
#include "unit.h"

#include <pdplane/module.h>

#include "base/mem.h"
#include "base/near.h"
#include "conf/conf.h"

struct inner {
    int64_t depth;
    const char *label;
};

struct item {
    const char *name;
    struct pd_conf_unit unit;
    double weight;
    struct pd_conf_place place;
};

struct all {
    bool flag;
    int64_t number;
    uint16_t port;
    double ratio;
    const char *text;
    uint64_t size;
    pd_time wait;
    uint32_t word;
    uint64_t bits;
    struct pd_conf_strings names;
    struct inner inner;
    const struct inner *maybe;
    struct pd_conf_list items;
    struct pd_conf_list units;
    const char *secret;
    const char *path;
};

static const struct pd_option_name words[] = { { "red", 1 }, { "green", 2 }, { "blue", 4 }, { NULL, 0 } };

static const struct pd_option inner_rows[] = {
    PD_OPT_INT("depth", struct inner, depth, "3", .min = 1, .max = 9, .help = "Depth."),
    PD_OPT_STRING("label", struct inner, label, NULL, .help = "Label."),
    PD_OPT_END
};

static const struct pd_option item_rows[] = {
    PD_OPT_STRING("name", struct item, name, NULL, .flags = PD_OPT_REQUIRED | PD_OPT_UNIQUE, .help = "Name."),
    PD_OPT_UNIT("type", struct item, unit, PD_KIND_BIT(PD_KIND_SCORER), .flags = PD_OPT_REQUIRED, .help = "Type."),
    PD_OPT_NUMBER("weight", struct item, weight, "1", .hi = 10, .help = "Weight."),
    PD_OPT_ALIAS("wait", "weight"),
    PD_OPT_SYNONYM("plugin", "type"),
    PD_OPT_PLACE(struct item, place),
    PD_OPT_END
};

static const struct pd_option rows[] = {
    PD_OPT_BOOL("flag", struct all, flag, "true", .help = "Flag."),
    PD_OPT_INT("number", struct all, number, "7", .min = -5, .max = (int64_t)1 << 40, .help = "Number."),
    PD_OPT_INT("port", struct all, port, "80", .min = 1, .max = 65535, .help = "Port."),
    PD_OPT_NUMBER("ratio", struct all, ratio, "0.5", .hi = 1, .help = "Ratio."),
    PD_OPT_STRING("text", struct all, text, "hello", .help = "Text."),
    PD_OPT_SIZE("size", struct all, size, "4k", .min = 1024, .max = 1 << 30, .help = "Size."),
    PD_OPT_DURATION("wait", struct all, wait, "250ms", .help = "Wait."),
    PD_OPT_ENUM("word", struct all, word, "green", words, .help = "Word."),
    PD_OPT_FLAGS("bits", struct all, bits, "red, blue", words, .help = "Bits."),
    PD_OPT_STRING_LIST("names", struct all, names, "a, b", .max = 3, .help = "Names."),
    PD_OPT_GROUP("inner", struct all, inner, inner_rows, struct inner, .help = "Inner."),
    PD_OPT_GROUP("maybe", struct all, maybe, inner_rows, struct inner, .flags = PD_OPT_POINTER, .help = "Maybe."),
    PD_OPT_GROUP_LIST("item", struct all, items, item_rows, struct item, .help = "Items."),
    PD_OPT_UNIT_MAP("units", struct all, units, PD_KIND_BIT(PD_KIND_SCORER), .help = "Units."),
    PD_OPT_STRING("secret", struct all, secret, NULL, .flags = PD_OPT_SECRET, .help = "Secret."),
    PD_OPT_STRING("path", struct all, path, NULL, .flags = PD_OPT_PATH, .help = "Path."),
    PD_OPT_END
};

/* --- two units, as modules would bring them --- */

struct scorer_conf {
    int64_t limit;
    uint64_t block;
};

static const struct pd_option scorer_rows[] = {
    PD_OPT_INT("limit", struct scorer_conf, limit, "10", .max = 100, .help = "Limit."),
    PD_OPT_SIZE("block", struct scorer_conf, block, "1k", .help = "Block."),
    PD_OPT_END
};

static pd_status scorer_check(const void *conf, struct pd_err *err)
{
    const struct scorer_conf *c = conf;
    if (c->limit != 13)
        return PD_OK;
    err->status = PD_EINVAL;
    snprintf(err->text, sizeof err->text, "limit 13 brings bad luck");
    return PD_EINVAL;
}

static const struct pd_conf_found units[] = {
    { .name = "load", .rows = scorer_rows, .conf_size = sizeof(struct scorer_conf), .unit = &units[0],
      .check = scorer_check },
    { .name = "plain", .rows = NULL, .conf_size = 0, .unit = &units[1] },
};

static pd_status find(void *arg, uint64_t kinds, const char *name, struct pd_conf_found *out, struct pd_err *err)
{
    (void)arg;
    assert_true(kinds == PD_KIND_BIT(PD_KIND_SCORER));
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(units[i].name, name) == 0) {
            *out = units[i];
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
    if (index >= 2)
        return false;
    *out = units[index];
    return true;
}

static const char *env(void *arg, const char *name)
{
    (void)arg;
    if (strcmp(name, "HOST") == 0)
        return "h1";
    return strcmp(name, "TOKEN") == 0 ? "s3cret" : NULL;
}

static const struct pd_conf_resolver resolver = { find, each, NULL };
static const struct pd_conf_source source = { .env = env, .prefix = "/srv" };

static struct pd_conf *read_text(const char *text, struct pd_conf_report *report)
{
    struct pd_conf *conf = NULL;
    pd_conf_report_init(report);
    if (pd_conf_open_text("t.conf", (struct pd_str){ text, strlen(text) }, &source, report, &conf) != PD_OK)
        return NULL;
    if (pd_conf_fill(conf, rows, sizeof(struct all), &resolver, report) != PD_OK) {
        pd_conf_put(conf);
        return NULL;
    }
    return conf;
}

static struct pd_conf *good(const char *text)
{
    struct pd_conf_report report;
    struct pd_conf *conf = read_text(text, &report);
    pd_conf_report_print(&report, stderr);
    assert_non_null(conf);
    assert_true(pd_conf_report_ok(&report));
    pd_conf_report_fini(&report);
    return conf;
}

/* The text must give exactly this first error. */
static void bad(const char *text, uint32_t line, const char *message)
{
    struct pd_conf_report report;
    struct pd_conf *conf = read_text(text, &report);
    assert_null(conf);
    assert_true(report.n_errors > 0);
    if (strstr(report.errors[0].text, message) == NULL || report.errors[0].line != line)
        pd_conf_report_print(&report, stderr);
    assert_int_equal(report.errors[0].line, line);
    assert_non_null(strstr(report.errors[0].text, message));
    pd_conf_report_fini(&report);
}

static void test_defaults(void **state)
{
    (void)state;
    struct pd_conf *conf = good("");
    const struct all *a = pd_conf_root(conf);
    assert_true(a->flag);
    assert_int_equal(a->number, 7);
    assert_int_equal(a->port, 80);
    assert_true(a->ratio > 0.49 && a->ratio < 0.51);
    assert_string_equal(a->text, "hello");
    assert_int_equal(a->size, 4096);
    assert_int_equal(a->wait, 250 * PD_MS);
    assert_int_equal(a->word, 2);
    assert_int_equal(a->bits, 5);
    assert_int_equal(a->names.count, 2);
    assert_string_equal(a->names.items[1], "b");
    assert_int_equal(a->inner.depth, 3);
    assert_null(a->inner.label);
    assert_null(a->maybe);
    assert_int_equal(a->items.count, 0);
    assert_int_equal(a->units.count, 2);
    const struct scorer_conf *s = PD_CONF_ITEM(&a->units, struct pd_conf_unit, 0)->conf;
    assert_int_equal(s->limit, 10);
    assert_int_equal(pd_conf_where(conf, &a->number).line, 0);
    pd_conf_put(conf);
}

static const char everything[] =
    "flag = false; number = 5000000000;\n"
    "port = 65535; ratio = 1;\n"
    "text = \"a\\\"b ${HOST} $${X}\";\n"
    "size = \"1m\"; wait = \"1m30s\"; word = \"blue\"; bits = [ \"green\", ];\n"
    "names = ( \"x\", \"${HOST}\" )\n"
    "inner : { depth = 0x9; label = \"in\"; };\n"
    "maybe = { };\n"
    "item = (\n"
    "  { name = \"one\"; type = \"load\"; limit = 42; block = \"2k\" },\n"
    "  { name = \"two\"; plugin = \"plain\"; weight = 2.5 },\n"
    ");\n"
    "units = { plain = { }; load = { limit = 5; }; };\n"
    "secret = \"${TOKEN}\"; path = \"sub/x\";\n";

static void test_values(void **state)
{
    (void)state;
    struct pd_conf *conf = good(everything);
    const struct all *a = pd_conf_root(conf);
    assert_false(a->flag);
    assert_int_equal(a->number, 5000000000);
    assert_int_equal(a->port, 65535);
    assert_true(a->ratio > 0.99);
    assert_string_equal(a->text, "a\"b h1 ${X}");
    assert_int_equal(a->size, 1 << 20);
    assert_int_equal(a->wait, 90 * PD_SEC);
    assert_int_equal(a->word, 4);
    assert_int_equal(a->bits, 2);
    assert_string_equal(a->names.items[1], "h1");
    assert_int_equal(a->inner.depth, 9);
    assert_int_equal(a->maybe->depth, 3);
    assert_int_equal(a->items.count, 2);
    const struct item *one = PD_CONF_ITEM(&a->items, struct item, 0);
    assert_string_equal(one->unit.name, "load");
    assert_int_equal(((const struct scorer_conf *)one->unit.conf)->limit, 42);
    assert_int_equal(((const struct scorer_conf *)one->unit.conf)->block, 2048);
    assert_int_equal(one->place.line, 9);
    const struct item *two = PD_CONF_ITEM(&a->items, struct item, 1);
    assert_ptr_equal(two->unit.unit, &units[1]);
    assert_true(two->weight > 2.4);
    assert_string_equal(PD_CONF_ITEM(&a->units, struct pd_conf_unit, 0)->name, "plain");
    assert_string_equal(a->secret, "s3cret");
    assert_string_equal(a->path, "/srv/sub/x");
    assert_int_equal(pd_conf_where(conf, &a->port).line, 2);
    assert_string_equal(pd_conf_where(conf, &a->port).file, "t.conf");
    pd_conf_put(conf);
}

static char *dump_text(const struct pd_conf *conf)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    assert_int_equal(pd_conf_dump(conf, f), PD_OK);
    fclose(f);
    return text;
}

/* What -T prints reads back to the same values and prints the same again. */
static void test_dump(void **state)
{
    (void)state;
    struct pd_conf *conf = good(everything);
    char *text = dump_text(conf);
    assert_null(strstr(text, "s3cret"));
    assert_non_null(strstr(text, "secret = \"${TOKEN}\";"));
    assert_non_null(strstr(text, "# t.conf:2"));
    struct pd_conf *again = good(text);
    assert_true(pd_conf_equal(rows, pd_conf_root(conf), pd_conf_root(again)));
    struct pd_conf *other = good("number = 8;");
    assert_false(pd_conf_equal(rows, pd_conf_root(conf), pd_conf_root(other)));
    struct pd_conf *none = good("");
    char *defaults = dump_text(none);
    assert_non_null(strstr(defaults, "# default"));
    struct pd_conf *back = good(defaults);
    assert_true(pd_conf_equal(rows, pd_conf_root(none), pd_conf_root(back)));
    pd_conf_put(back);
    pd_conf_put(none);
    pd_conf_put(other);
    pd_conf_put(again);
    pd_conf_put(conf);
    free(defaults);
    free(text);
}

static void test_wrong_values(void **state)
{
    (void)state;
    bad("flag = 1;", 1, "option \"flag\" must be true or false, not an integer");
    bad("\nnumber = \"7\";", 2, "option \"number\" must be an integer, not a string");
    bad("number = -6;", 1, "option \"number\" is -6, allowed: -5 to 1099511627776");
    bad("port = 65536;", 1, "option \"port\" is 65536, allowed: 1 to 65535");
    bad("ratio = 1.5;", 1, "option \"ratio\" is 1.5, allowed: 0 to 1");
    bad("size = 4096;", 1, "option \"size\" must be a size in quotes such as \"512m\", not an integer");
    bad("size = \"12\";", 1, "option \"size\" is \"12\", allowed: 1k to 1g");
    bad("wait = \"soon\";", 1, "option \"wait\" is \"soon\", which is no duration");
    bad("word = \"grean\";", 1, "option \"word\" does not know \"grean\" (did you mean \"green\"?)");
    bad("bits = [ \"red\", \"violet\" ];", 1, "option \"bits\" does not know \"violet\"");
    bad("names = [ \"1\", \"2\", \"3\", \"4\" ];", 1, "option \"names\" has 4 members, allowed: 0 to 3");
    bad("names = [ 1 ];", 1, "option \"names\" must be strings such as");
    bad("text = \"${NOPE}\";", 1, "environment variable \"NOPE\" is not set");
    bad("text = \"${HOST\";", 1, "is not followed by a variable's name");
    bad("secret = \"plain\";", 1, "option \"secret\" is a secret and must not stand in the configuration");
    bad("inner = ( );", 1, "option \"inner\" must be a group { }, not a list ( )");
    bad("item = { };", 1, "option \"item\" must be a list of groups, not a group");
    bad("item = ( 3 );", 1, "member 1 of option \"item\" must be a group { }, not an integer");
}

static void test_wrong_keys(void **state)
{
    (void)state;
    bad("numbr = 3;", 1, "unknown option \"numbr\" at the top level (did you mean \"number\"?)");
    bad("zzz = 3;", 1, "unknown option \"zzz\" at the top level");
    bad("label = \"x\";", 1, "option \"label\" does not belong at the top level, it belongs in \"inner\"");
    bad("inner = { ratio = 1; };", 1, "option \"ratio\" does not belong in \"inner\", it belongs at the top level");
    bad("\nport = 1;\nport = 2;", 3, "option \"port\" is given a second time (first at t.conf:2)");
    bad("item = ( { type = \"load\"; } );", 1, "option \"name\" is missing in item number 1");
    bad("item = ( { name = \"a\"; } );", 1, "option \"type\" is missing in item \"a\"");
    bad("item = ( { name = \"a\"; type = \"nix\"; limit = 3; } );", 1, "no scorer nix");
    bad("item = ( { name = \"a\"; type = \"load\"; limti = 3; } );", 1,
        "unknown option \"limti\" in item \"a\" (did you mean \"limit\"?)");
    bad("item = ( { name = \"a\"; type = \"load\"; limit = 300; } );", 1,
        "option \"limit\" in item \"a\" is 300, allowed: 0 to 100");
    bad("item = ( { name = \"a\"; type = \"load\"; limit = 13; } );", 1, "limit 13 brings bad luck");
    bad("item = ( { name = \"a\"; type = \"plain\"; },\n { name = \"a\"; type = \"plain\"; } );", 2,
        "item with name \"a\" is given a second time (first at t.conf:1)");
    bad("units = { lod = { }; };", 1, "no scorer lod");
    bad("secret = \"${TOKEN}\"; secret_file = \"/x\";", 1, "\"secret\" and \"secret_file\" exclude each other");
    bad("item = ( { name = \"a\"; type = \"plain\"; weight = 1; wait = 2; } );", 1,
        "option \"wait\" in item \"a\" is another name of \"weight\"");
}

static void test_wrong_text(void **state)
{
    (void)state;
    bad("text = \"open;\n", 1, "string is not closed");
    bad("/* comment\n", 1, "comment is not closed");
    bad("inner = {\n depth = 3;\n", 1, "\"{\" is not closed");
    bad("inner = {\n depth = 3;\n );", 3, "\")\" does not close the \"{\" that was opened at t.conf:1");
    bad("};", 1, "\"}\" closes nothing");
    bad("number = 010;", 1, "number 010 begins with a zero");
    bad("size = 4g;", 1, "\"4g\" is no number");
    bad("number = 99999999999999999999;", 1, "number 99999999999999999999 is too large");
    bad("flag = yes;", 1, "\"yes\" is no value");
    bad("text = hello;", 1, "\"hello\" is no value");
    bad("inner {\n}", 1, "\"=\" is missing between \"inner\" and \"{\"");
    bad("number 3;", 1, "\"=\" is missing behind \"number\"");
    bad("number = = 3;", 1, "syntax error at this line");
    bad("text = $HOME;", 1, "unexpected character \"$\"");
    bad("names = [ 1, \"a\" ];", 1, "values of an array [ ] differ in type");
    bad("item = ( name = \"a\" );", 1, "option \"name\" stands directly in a list");
    bad("text = \"a\\x00b\";", 1, "a string must not contain a zero byte");
    bad("x = @include \"y\"", 1, "@include is not understood here");
}

static void test_many_errors(void **state)
{
    (void)state;
    struct pd_conf_report report;
    char text[1024] = "";
    for (int i = 0; i < 25; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "wrong%c = %d;\n", 'a' + i, i);
    assert_null(read_text(text, &report));
    assert_int_equal(report.n_errors, PD_CONF_ERRORS_MAX);
    assert_int_equal(report.total_errors, 25);
    assert_int_equal(report.errors[19].line, 20);
    pd_conf_report_fini(&report);
}

static void test_old_names(void **state)
{
    (void)state;
    struct pd_conf_report report;
    struct pd_conf *conf = read_text("item = ( { name = \"a\"; type = \"plain\"; wait = 3; } );", &report);
    assert_non_null(conf);
    assert_int_equal(report.n_warnings, 1);
    assert_non_null(strstr(report.warnings[0].text, "option \"wait\" in item \"a\" is an old name"));
    pd_conf_put(conf);
    pd_conf_report_fini(&report);
    conf = read_text("item = ( { name = \"a\"; plugin = \"plain\"; } );", &report);
    assert_non_null(conf);
    assert_int_equal(report.n_warnings, 0);
    pd_conf_put(conf);
    pd_conf_report_fini(&report);
}

static void test_generations(void **state)
{
    (void)state;
    struct pd_conf *conf = good("number = 1;");
    assert_ptr_equal(pd_conf_get(conf), conf);
    pd_conf_put(conf);
    const struct all *a = pd_conf_root(conf);
    assert_int_equal(a->number, 1);
    assert_string_equal(pd_conf_file(conf), "t.conf");
    assert_null(pd_conf_file_at(conf, 1));
    pd_conf_put(conf);
    pd_conf_put(NULL);
}

static void test_peek(void **state)
{
    (void)state;
    struct pd_conf_report report;
    struct pd_conf *conf;
    struct all early = { 0 };
    const char text[] = "names = [ \"x\" ]; wrong = 1;";
    pd_conf_report_init(&report);
    assert_int_equal(pd_conf_open_text("t.conf", (struct pd_str){ text, strlen(text) }, &source, &report, &conf), 0);
    assert_int_equal(pd_conf_peek(conf, &rows[9], &early, &report), PD_OK);
    assert_string_equal(early.names.items[0], "x");
    assert_null(pd_conf_root(conf));
    assert_int_equal(pd_conf_item_place(conf, "names", 0).line, 1);
    pd_conf_put(conf);
    pd_conf_report_fini(&report);
}

static void rows_bad(const struct pd_option *table, uint64_t size, const char *message)
{
    struct pd_err err = { 0 };
    assert_int_equal(pd_conf_rows_check(table, size, &err), PD_EINVAL);
    if (strstr(err.text, message) == NULL)
        fprintf(stderr, "%s\n", err.text);
    assert_non_null(strstr(err.text, message));
}

static void test_rows_check(void **state)
{
    (void)state;
    struct pd_err err = { 0 };
    assert_int_equal(pd_conf_rows_check(rows, sizeof(struct all), &err), PD_OK);
    assert_int_equal(pd_conf_rows_check(NULL, 0, &err), PD_OK);
#define ONE(...) (const struct pd_option[]){ __VA_ARGS__, PD_OPT_END }, sizeof(struct all)
    rows_bad(ONE(PD_OPT_INT("Big", struct all, number, "1", .help = "x")), "illegal name");
    rows_bad(ONE(PD_OPT_INT("a", struct all, number, "1")), "has no help text");
    rows_bad(ONE(PD_OPT_BOOL("a", struct all, number, "true", .help = "x")), "does not fit its type");
    rows_bad(ONE(PD_OPT_INT("a", struct all, number, "x", .help = "x")), "has a bad default");
    rows_bad(ONE(PD_OPT_INT("a", struct all, number, "9", .max = 3, .help = "x")), "has a bad default");
    rows_bad(ONE(PD_OPT_INT("a", struct all, port, "9", .max = 65536, .help = "x")), "more than its member holds");
    rows_bad(ONE(PD_OPT_INT("a", struct all, number, "9", .min = 4, .max = 3, .help = "x")), "least value above");
    rows_bad(ONE(PD_OPT_INT("a", struct all, number, "1", .help = "x"),
                 PD_OPT_INT("a", struct all, number, "1", .help = "x")), "stands there twice");
    rows_bad(ONE(PD_OPT_ALIAS("a", "b")), "is an alias of \"b\", which does not exist");
    rows_bad(ONE(PD_OPT_STRING("a", struct all, text, "x", .flags = PD_OPT_SECRET, .help = "x")), "is a secret");
    rows_bad(ONE(PD_OPT_GROUP("a", struct all, inner, NULL, struct inner, .help = "x")), "without rows");
    rows_bad(rows, 16, "lies outside of the struct");
}

static void test_reference(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    pd_conf_reference(rows, PD_CONF_REF_TEXT, f);
    pd_conf_reference(rows, PD_CONF_REF_MDOC, f);
    fclose(f);
    assert_non_null(strstr(text, "port  (integer, 1 to 65535, default 80)\n    Port.\n"));
    assert_non_null(strstr(text, "inner.depth  (integer, 1 to 9, default 3)"));
    assert_non_null(strstr(text, "item.name  (string, required)"));
    assert_non_null(strstr(text, ".It Ic size\nsize, 1k to 1g, default \"4k\"\n.Pp\nSize.\n"));
    free(text);
}

static void test_near(void **state)
{
    (void)state;
    struct pd_near near;
    assert_int_equal(pd_near_distance("threshold", "treshold"), 1);
    assert_int_equal(pd_near_distance("ab", "ba"), 1);
    assert_int_equal(pd_near_distance("a-b", "a_b"), 0);
    assert_int_equal(pd_near_distance("", "abc"), 3);
    pd_near_init(&near, "tcq");
    pd_near_try(&near, NULL);
    pd_near_try(&near, "shm");
    assert_null(pd_near_best(&near));
    pd_near_try(&near, "tcp");
    assert_string_equal(pd_near_best(&near), "tcp");
}

/* Texts with a few bytes changed, dropped or doubled: whatever they mean, they
 * are read or refused, and what is read can be printed and read again. */
static void test_mutations(void **state)
{
    (void)state;
    static const char bytes[] = "{}[]();:=,\"\\/*#@${}0x9LeE+-.\n \xff" "a";
    uint64_t seed = 42;
    char text[sizeof everything + 8];
    for (int round = 0; round < 20000; round++) {
        size_t n = sizeof everything - 1;
        memcpy(text, everything, n + 1);
        for (int change = 0; change < 1 + round % 4; change++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t at = (size_t)(seed >> 33) % n;
            char byte = bytes[(seed >> 20) % (sizeof bytes - 1)];
            if ((seed >> 60) < 8) {
                text[at] = byte;
            } else if ((seed >> 60) < 12) {
                memmove(text + at, text + at + 1, n - at);
                n--;
            } else {
                memmove(text + at + 1, text + at, n - at + 1);
                n++;
            }
        }
        struct pd_conf_report report;
        struct pd_conf *conf = read_text(text, &report);
        if (conf != NULL) {
            char *dump = dump_text(conf);
            struct pd_conf *again = good(dump);
            assert_true(pd_conf_equal(rows, pd_conf_root(conf), pd_conf_root(again)));
            pd_conf_put(again);
            free(dump);
        } else {
            assert_false(pd_conf_report_ok(&report));
        }
        pd_conf_put(conf);
        pd_conf_report_fini(&report);
    }
}

/* Each allocation fails once: an error is told, nothing leaks, nothing crashes. */
static void test_no_memory(void **state)
{
    (void)state;
    uint64_t n = 1;
    for (bool failed = true; failed && n < 10000; n++) {
        struct pd_conf_report report;
        uint64_t before = pd_mem_count();
        pd_mem_fault_set(n);
        struct pd_conf *conf = read_text(everything, &report);
        pd_mem_fault_set(0);
        failed = pd_mem_count() - before >= n;
        if (!failed)
            assert_non_null(conf);
        else if (conf == NULL)
            assert_false(pd_conf_report_ok(&report));
        pd_conf_put(conf);
        pd_conf_report_fini(&report);
    }
    assert_true(n > 5);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_defaults),     cmocka_unit_test(test_values),
    cmocka_unit_test(test_dump),         cmocka_unit_test(test_wrong_values),
    cmocka_unit_test(test_wrong_keys),   cmocka_unit_test(test_wrong_text),
    cmocka_unit_test(test_many_errors),  cmocka_unit_test(test_old_names),
    cmocka_unit_test(test_generations),  cmocka_unit_test(test_peek),
    cmocka_unit_test(test_rows_check),   cmocka_unit_test(test_reference),
    cmocka_unit_test(test_near),         cmocka_unit_test(test_no_memory),
    cmocka_unit_test(test_mutations),
};

PD_UNIT_MAIN(tests)
