/* SPDX-License-Identifier: Apache-2.0 */
/* Scanning, reading, splicing and writing JSON. */
#include "unit.h"

#include "base/compiler.h"
#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <math.h>

/* Scans an exact copy on the heap, so that a sanitizer sees any read beyond. */
static pd_status scan_copy(struct pd_str doc, const struct pd_json_limits *limits,
                           struct pd_json_error *error)
{
    struct pd_json_value root;
    static const char *const paths[] = { "a.b", "a", "", "x[].y", "k" };
    struct pd_json_value values[5];
    char *copy = (char *)malloc(doc.n == 0 ? 1 : doc.n);
    memcpy(copy, doc.p, doc.n);
    pd_status plain = pd_json_scan(pd_str_of(copy, doc.n), limits, NULL, 0, &root, NULL);
    pd_status status = pd_json_scan(pd_str_of(copy, doc.n), limits, paths, 5, values, error);
    if (status != PD_EEXIST)
        assert_int_equal(plain, status);
    free(copy);
    return status;
}

#define S(text) { text, sizeof(text) - 1 }

static void test_accept(void **state)
{
    (void)state;
    static const struct pd_str good[] = {
        S("{}"), S("[]"), S("0"), S("-0"), S("1"), S("-1.5"), S("1e5"), S("1E+5"), S("1.25e-7"),
        S("123456789012345678901234567890"), S("1e400"), S("true"), S("false"), S("null"),
        S("\"\""), S("\"a\""), S(" \t\r\n[ 1 , 2 ] \n"), S("{\"a\":1}"), S("{\"a\":{\"b\":[]}}"),
        S("[[],{},[[]],[{}]]"), S("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\""), S("\"\\u0000\""),
        S("\"\\ud83d\\ude00\""), S("\"\xf0\x9f\x98\x80 \xc3\xa4 \xe2\x82\xac\""), S("\"\x7f\""),
        S("\"\xe4\xb8\xad\xe6\x96\x87\""), S("{\"\":0}"), S("{\"b\":1,\"b\":2}"),
        S("[0.0,-0.0,0e0]"),
        S("\"0123456789abcdef0123456789abcdef\""), S("\"\xed\x9f\xbf\xee\x80\x80\""),
        S("{\"x\":[{\"y\":1},{\"y\":2}]}"), S("[\"\\uD834\\uDd1e\"]"),
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(good); i++) {
        struct pd_json_error error = { 0 };
        if (scan_copy(good[i], NULL, &error) != PD_OK)
            fail_msg("refused %.*s: %s", PD_STR_ARG(good[i]), error.text);
    }
}

static void test_refuse(void **state)
{
    (void)state;
    static const struct {
        struct pd_str doc;
        size_t offset;
    } bad[] = {
        { S(""), 0 }, { S(" "), 1 }, { S("\xef\xbb\xbf{}"), 0 }, { S("{} x"), 3 }, { S("{}{}"), 2 },
        { S("1 2"), 2 }, { S("[1"), 2 }, { S("[1,"), 3 }, { S("[1,]"), 3 }, { S("[,1]"), 1 },
        { S("[1 2]"), 3 }, { S("["), 1 }, { S("]"), 0 }, { S("[}"), 1 }, { S("{]"), 1 },
        { S("{"), 1 }, { S("{\"a\""), 4 }, { S("{\"a\":"), 5 }, { S("{\"a\":1"), 6 },
        { S("{\"a\":1,"), 7 }, { S("{\"a\":1,}"), 7 }, { S("{\"a\" 1}"), 5 }, { S("{a:1}"), 1 },
        { S("{'a':1}"), 1 }, { S("{1:1}"), 1 }, { S("{\"a\":1 \"b\":2}"), 7 }, { S("{,}"), 1 },
        { S("[1}"), 2 }, { S("{\"a\":1]"), 6 },
        { S("nul"), 0 }, { S("nulL"), 0 }, { S("True"), 0 }, { S("NaN"), 0 }, { S("Infinity"), 0 },
        { S("-Infinity"), 1 }, { S("undefined"), 0 }, { S("truefalse"), 4 }, { S("// x\n1"), 0 },
        { S("01"), 1 }, { S("-01"), 2 }, { S("-"), 1 }, { S("+1"), 0 }, { S(".5"), 0 },
        { S("1."), 2 },
        { S("1.e5"), 2 }, { S("1e"), 2 }, { S("1e+"), 3 }, { S("0x10"), 1 }, { S("1_0"), 1 },
        { S("1,5"), 1 }, { S("--1"), 1 }, { S("- 1"), 1 },
        { S("\""), 1 }, { S("\"abc"), 4 }, { S("\"\\\""), 3 }, { S("\"\\"), 2 },
        { S("\"\\x\""), 2 },
        { S("\"\\0\""), 2 }, { S("\"\\'\""), 2 }, { S("\"\\\0\""), 2 }, { S("\"\\u\""), 3 },
        { S("\"\\u12\""), 3 }, { S("\"\\u12g4\""), 3 }, { S("\"\\u-123\""), 3 },
        { S("\"\\u 123\""), 3 }, { S("\"\\ud83d\""), 7 }, { S("\"\\ud83dx\""), 7 },
        { S("\"\\ud83d\\n\""), 7 }, { S("\"\\ud83d\\u0041\""), 7 }, { S("\"\\ud83d\\ud83d\""), 7 },
        { S("\"\\ude00\""), 1 }, { S("\"\\ud83d\\ude0\""), 7 },
        { S("\"\n\""), 1 }, { S("\"\t\""), 1 }, { S("\"\0\""), 1 }, { S("\"a\x1f\""), 2 },
        { S("\"\x80\""), 1 }, { S("\"\xff\""), 1 }, { S("\"\xc3\""), 1 }, { S("\"\xc0\xaf\""), 1 },
        { S("\"\xed\xa0\x80\""), 1 }, { S("\"\xf4\x90\x80\x80\""), 1 },
        { S("\"\xe0\x80\x80\""), 1 },
        { S("\"\xf0\x9f\x98"), 1 }, { S("\"aaaaaaaaaaaaaaaaaaaa\xff\""), 21 },
        { S("{\"\xff\":1}"), 2 }, { S("\0"), 0 }, { S("1\0"), 1 }, { S("[\f1]"), 1 },
        { S("[1\xc2\xa0]"), 2 }, { S("{\"a\":1,\"\\ud800\":2}"), 14 },
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(bad); i++) {
        struct pd_json_error error = { 0 };
        if (scan_copy(bad[i].doc, NULL, &error) != PD_EPROTO)
            fail_msg("accepted %.*s", PD_STR_ARG(bad[i].doc));
        if (error.offset != bad[i].offset || error.status != PD_EPROTO ||
            strncmp(error.text, "expected ", 9) != 0)
            fail_msg("%.*s: at %zu: %s", PD_STR_ARG(bad[i].doc), error.offset, error.text);
    }
}

/* No prefix of a document that is not a number is valid. */
static void test_prefixes(void **state)
{
    (void)state;
    static const struct pd_str doc =
        S("{\"a\":{\"b\":[1,true,null,\"x\\n\\ud83d\\ude00\xc3\xa4\"]},\"x\":[{\"y\":-1.5e+3}]}");
    for (size_t n = 0; n < doc.n; n++)
        assert_int_equal(scan_copy(pd_str_of(doc.p, n), NULL, NULL), PD_EPROTO);
    assert_int_equal(scan_copy(doc, NULL, NULL), PD_OK);
}

static void test_error_place(void **state)
{
    (void)state;
    struct pd_json_error error;
    pd_status status = pd_json_scan(PD_STR("{\n  \"a\": 1,\n  \"b\": oops\n}"), NULL, NULL, 0, NULL,
                                    &error);
    assert_int_equal(status, PD_EPROTO);
    assert_int_equal(error.line, 3);
    assert_int_equal(error.column, 8);
    assert_string_equal(error.text, "expected a value, found 'o'");
    pd_json_scan(PD_STR("[1"), NULL, NULL, 0, NULL, &error);
    assert_string_equal(error.text,
                        "expected ',' or ']' after an element, found the end of the document");
    pd_json_scan(PD_STR("\"\x01\""), NULL, NULL, 0, NULL, &error);
    assert_string_equal(error.text,
                        "expected an escape instead of a control character, found byte 0x01");
}

static void test_limits(void **state)
{
    (void)state;
    struct pd_json_limits limits = { 3, 2 };
    struct pd_json_error error;
    assert_int_equal(scan_copy(PD_STR("[[[]]]"), &limits, &error), PD_OK);
    assert_int_equal(scan_copy(PD_STR("[[[[]]]]"), &limits, &error), PD_ELIMIT);
    assert_int_equal(error.offset, 3);
    assert_int_equal(scan_copy(PD_STR("[{\"q\":1,\"r\":2},{\"q\":1,\"r\":2}]"), &limits, &error),
                     PD_OK);
    assert_int_equal(scan_copy(PD_STR("{\"q\":1,\"r\":2,\"s\":3}"), &limits, &error), PD_ELIMIT);
    assert_int_equal(error.offset, 13);
    char deep[1000];
    memset(deep, '[', sizeof deep);
    assert_int_equal(scan_copy(pd_str_of(deep, sizeof deep), NULL, &error), PD_ELIMIT);
    assert_int_equal(error.offset, 64);
    limits.depth = 100000;
    assert_int_equal(scan_copy(pd_str_of(deep, sizeof deep), &limits, &error), PD_ELIMIT);
    assert_int_equal(error.offset, PD_JSON_MAX_DEPTH);
    struct pd_json_value values[1];
    const char *too_long = "a.b.c.d.e.f.g.h.i";
    assert_int_equal(pd_json_scan(PD_STR("1"), NULL, &too_long, 1, values, &error), PD_EINVAL);
}

static void test_paths(void **state)
{
    (void)state;
    static const char *const paths[] = { "model", "stream_options.include_usage", "",
                                         "messages[].role", "messages", "missing", "n.deep",
                                         "grid[][]" };
    struct pd_json_value v[8];
    struct pd_str doc = PD_STR(
        "{ \"mod\\u0065l\" : \"m\" , \"stream_options\":{\"x\":{\"include_usage\":1},"
        "\"include_usage\":true},\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},"
        "{\"role\":\"assistant\"}],\"n\":[{\"deep\":1}],\"grid\":[[7,8],[9]],\"other\":{\"model\":5}}");
    assert_int_equal(pd_json_scan(doc, NULL, paths, 8, v, NULL), PD_OK);
    assert_true(pd_str_is(v[0].text, "\"m\""));
    assert_true(pd_str_is(v[0].member, "\"mod\\u0065l\" : \"m\""));
    assert_true(pd_str_is(v[1].text, "true"));
    assert_true(pd_str_is(v[1].member, "\"include_usage\":true"));
    assert_int_equal(v[2].type, PD_JSON_OBJECT);
    assert_true(pd_str_eq(v[2].text, doc));
    assert_int_equal(v[2].member.n, 0);
    assert_true(pd_str_is(v[3].text, "\"user\""));
    assert_int_equal(v[4].type, PD_JSON_ARRAY);
    assert_int_equal(pd_json_count(&v[4]), 2);
    assert_int_equal(v[5].type, PD_JSON_NONE);
    assert_int_equal(v[6].type, PD_JSON_NONE);
    assert_true(pd_str_is(v[7].text, "7"));

    /* All 64 paths are usable. */
    const char *many[65];
    struct pd_json_value found[65];
    for (size_t i = 0; i < 65; i++)
        many[i] = i == 63 ? "model" : "zzz";
    assert_int_equal(pd_json_scan(doc, NULL, many, 64, found, NULL), PD_OK);
    assert_int_equal(found[63].type, PD_JSON_STRING);
    assert_int_equal(pd_json_scan(doc, NULL, many, 65, found, NULL), PD_EINVAL);
}

static void test_duplicates(void **state)
{
    (void)state;
    static const char *const paths[] = { "model", "stream_options.include_usage",
                                         "messages[].role" };
    static const struct pd_str bad[] = {
        S("{\"model\":1,\"model\":2}"),
        S("{\"model\":1,\"m\\u006fdel\":2}"),
        S("{\"stream_options\":{},\"a\":1,\"stream_options\":{}}"),
        S("{\"stream_options\":{\"include_usage\":1,\"include_usage\":1}}"),
        S("{\"messages\":[{\"role\":1},{\"role\":1,\"x\":2,\"role\":3}]}"),
        S("{\"messages\":[],\"messages\":[]}"),
    };
    static const struct pd_str good[] = {
        S("{\"x\":1,\"x\":2}"),
        S("{\"model\":{\"model\":1,\"model\":2}}"),
        S("{\"messages\":[{\"role\":1},{\"role\":1}]}"),
        S("{\"Model\":1,\"model\":2}"),
        S("{\"model\":1,\"model\\u0000\":2}"),
    };
    struct pd_json_value v[3];
    struct pd_json_error error;
    for (size_t i = 0; i < PD_ARRAY_LEN(bad); i++) {
        assert_int_equal(pd_json_scan(bad[i], NULL, paths, 3, v, &error), PD_EEXIST);
        assert_non_null(strstr(error.text, "appears twice"));
    }
    for (size_t i = 0; i < PD_ARRAY_LEN(good); i++)
        assert_int_equal(pd_json_scan(good[i], NULL, paths, 3, v, &error), PD_OK);
    pd_json_scan(bad[1], NULL, paths, 3, v, &error);
    assert_string_equal(error.text, "key \"model\" appears twice");
    assert_int_equal(error.offset, 11);
}

static struct pd_json_value value_of(const char *text)
{
    static const char *const root[] = { "" };
    struct pd_json_value v = { .type = PD_JSON_NONE };
    assert_int_equal(pd_json_scan(pd_str_from(text), NULL, root, 1, &v, NULL), PD_OK);
    return v;
}

/* Numbers of any length with a point anywhere, as strtod reads them. */
static void test_doubles(void **state)
{
    static const char digits[] = "0907199254740993";
    (void)state;
    for (size_t n = 1; n < sizeof digits; n++) {
        for (size_t point = 0; point < n; point++) {
            for (size_t sign = 0; sign < 2; sign++) {
                char text[32];
                double d;
                snprintf(text, sizeof text, "%s%.*s%s%.*s", sign == 1 ? "-" : "", (int)(point == 0 ? n : point),
                         digits + (point == 1 ? 0 : 1), point == 0 ? "" : ".", (int)(point == 0 ? 0 : n - point),
                         digits);
                struct pd_json_value v = value_of(text);
                assert_int_equal(pd_json_get_double(&v, &d), PD_OK);
                double expected = strtod(text, NULL);
                assert_memory_equal(&d, &expected, sizeof d);
            }
        }
    }
    struct pd_json_value odd = { .type = PD_JSON_NUMBER, .text = S("1.2.3") };
    double d;
    assert_int_equal(pd_json_get_double(&odd, &d), PD_EINVAL);
    odd.text = PD_STR("1.");
    assert_int_equal(pd_json_get_double(&odd, &d), PD_EINVAL);
    odd.text = PD_STR("-");
    assert_int_equal(pd_json_get_double(&odd, &d), PD_EINVAL);
}

static void test_getters(void **state)
{
    (void)state;
    struct pd_json_value none = { .type = PD_JSON_NONE };
    struct pd_json_value v = value_of("true");
    bool b = false;
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    assert_int_equal(pd_json_get_bool(&v, &b), PD_OK);
    assert_true(b);
    assert_int_equal(pd_json_get_i64(&v, &i), PD_EINVAL);
    assert_int_equal(pd_json_get_bool(&none, &b), PD_ENOENT);
    v = value_of("9223372036854775807");
    assert_int_equal(pd_json_get_i64(&v, &i), PD_OK);
    assert_true(i == INT64_MAX);
    v = value_of("18446744073709551615");
    assert_int_equal(pd_json_get_i64(&v, &i), PD_ELIMIT);
    assert_int_equal(pd_json_get_u64(&v, &u), PD_OK);
    assert_true(u == UINT64_MAX);
    v = value_of("-1");
    assert_int_equal(pd_json_get_u64(&v, &u), PD_ELIMIT);
    v = value_of("-0");
    assert_int_equal(pd_json_get_u64(&v, &u), PD_OK);
    assert_true(u == 0);
    v = value_of("1.0");
    assert_int_equal(pd_json_get_i64(&v, &i), PD_EINVAL);
    assert_int_equal(pd_json_get_double(&v, &d), PD_OK);
    assert_true(d == 1.0);
    v = value_of("1e400");
    assert_int_equal(pd_json_get_double(&v, &d), PD_ELIMIT);
    assert_string_equal(pd_json_type_name(v.type), "number");
}

static void test_strings(void **state)
{
    (void)state;
    struct pd_json_value v =
        value_of("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\u20ac\\ud83d\\ude00\xc3\xb6z\"");
    const char *want = "a\"\\/\b\f\n\r\t\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xb6z";
    struct pd_buf buf;
    struct pd_arena arena;
    struct pd_str s;
    char text[64];
    pd_buf_init(&buf, 1000);
    pd_arena_init(&arena, 512, 4096);
    pd_buf_append_cstr(&buf, "<");
    assert_int_equal(pd_json_get_buf(&v, &buf), PD_OK);
    assert_string_equal(pd_buf_cstr(&buf) + 1, want);
    assert_int_equal(pd_json_get_str(&v, &arena, &s), PD_OK);
    assert_true(pd_str_is(s, want));
    assert_int_equal(pd_json_get_cstr(&v, text, sizeof text), PD_OK);
    assert_string_equal(text, want);
    assert_int_equal(pd_json_get_cstr(&v, text, strlen(want)), PD_ELIMIT);
    assert_int_equal(pd_json_get_cstr(&v, text, strlen(want) + 1), PD_OK);
    assert_int_equal(pd_json_get_cstr(&v, text, 0), PD_ELIMIT);
    assert_true(pd_json_is_str(&v, want));
    assert_false(pd_json_is_str(&v, "a"));
    assert_false(pd_json_is_str(&v,
                                "a\"\\/\b\f\n\r\t\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xb6zz"));

    v = value_of("\"plain\"");
    uint64_t count = pd_mem_count();
    assert_int_equal(pd_json_get_str(&v, &arena, &s), PD_OK);
    assert_ptr_equal(s.p, v.text.p + 1);
    assert_int_equal(pd_mem_count(), count);
    v = value_of("\"\"");
    assert_int_equal(pd_json_get_str(&v, &arena, &s), PD_OK);
    assert_int_equal(s.n, 0);
    assert_true(pd_json_is_str(&v, ""));
    v = value_of("\"a\\u0000b\"");
    assert_int_equal(pd_json_get_str(&v, &arena, &s), PD_OK);
    assert_int_equal(s.n, 3);
    assert_int_equal(pd_json_get_cstr(&v, text, sizeof text), PD_EINVAL);

    /* Unchecked text must not lead beyond its end. */
    static const struct pd_str broken[] = { S("\""), S("\"\\\""), S("\"\\u12\""),
                                            S("\"\\ud800\\u\""),
                                            S("\"\\q\"") };
    for (size_t i = 0; i < PD_ARRAY_LEN(broken); i++) {
        struct pd_json_value bad = { .type = PD_JSON_STRING, .text = broken[i] };
        size_t before = buf.n;
        pd_status status = pd_json_get_buf(&bad, &buf);
        assert_true(status == PD_EINVAL || (i == 0 && status == PD_OK));
        assert_int_equal(buf.n, before);
    }
    pd_buf_fini(&buf);
    pd_arena_fini(&arena);
}

static void test_iterate(void **state)
{
    (void)state;
    struct pd_json_value v =
        value_of("{ \"a\" : 1 , \"b\\\"\" : [ 1 , [2,{\"c\":\"]\"}] ] , \"c\\\\\":\"x\\\\\" ,\"d\":{}}");
    struct pd_json_iter it;
    struct pd_json_value key;
    struct pd_json_value value;
    static const char *const texts[] = { "1", "[ 1 , [2,{\"c\":\"]\"}] ]", "\"x\\\\\"", "{}" };
    static const char *const keys[] = { "a", "b\"", "c\\", "d" };
    size_t n = 0;
    assert_int_equal(pd_json_iter_init(&it, &v), PD_OK);
    while (pd_json_iter_next(&it, &key, &value)) {
        assert_true(pd_str_is(value.text, texts[n]));
        assert_true(pd_json_is_str(&key, keys[n]));
        assert_true(pd_str_ends_with(value.member, value.text));
        n++;
    }
    assert_int_equal(n, 4);
    assert_int_equal(pd_json_find(&v, "d", &value), PD_OK);
    assert_int_equal(value.type, PD_JSON_OBJECT);
    assert_int_equal(pd_json_find(&v, "e", &value), PD_ENOENT);
    assert_int_equal(pd_json_find(&value, "e", &key), PD_ENOENT);
    assert_int_equal(pd_json_count(&value), 0);
    v = value_of("[ \"a,\" , -1,null,[ ] ]");
    assert_int_equal(pd_json_count(&v), 4);
    assert_int_equal(pd_json_find(&v, "e", &value), PD_EINVAL);
    v = value_of("3");
    assert_int_equal(pd_json_iter_init(&it, &v), PD_EINVAL);
    assert_int_equal(pd_json_count(&v), 0);
    static const struct pd_str broken[] = { S("{\"a}"), S("{a:1}"), S("[[[[]"), S("{\"a\"}"),
                                            S("[,]"),
                                            S("{\"a\":}"), S("[:::]"), S("[}]") };
    for (size_t i = 0; i < PD_ARRAY_LEN(broken); i++) {
        struct pd_json_value bad = { .type = pd_json_type_of(broken[i]), .text = broken[i] };
        assert_true(pd_json_count(&bad) <= 3);
    }
}

/* A byte that is not plain is found wherever it stands in a long string. */
static void test_long_strings(void **state)
{
    static const char *const odd[] = { "\\n", "\\\"", "\xc3\xa9" };
    char doc[900];
    (void)state;
    for (size_t n = 0; n < 640; n += n < 300 ? 1 : 37) {
        for (size_t at = 0; at <= n; at += 1 + at / 40) {
            for (size_t k = 0; k < PD_ARRAY_LEN(odd) + 2; k++) {
                struct pd_json_value v;
                memset(doc, 'x', sizeof doc);
                doc[0] = '"';
                size_t extra = k < PD_ARRAY_LEN(odd) ? 2 : 1;
                if (k < PD_ARRAY_LEN(odd))
                    memcpy(doc + 1 + at, odd[k], 2);
                else
                    doc[1 + at] = k == PD_ARRAY_LEN(odd) ? '\x1f' : '\xff';
                doc[1 + n + extra] = '"';
                pd_status st = pd_json_scan(pd_str_of(doc, n + extra + 2), NULL, (const char *const[]){ "" }, 1, &v, NULL);
                assert_int_equal(st, k < PD_ARRAY_LEN(odd) ? PD_OK : PD_EPROTO);
                if (st == PD_OK)
                    assert_true(v.is_plain == (k == 2) && v.text.n == n + extra + 2);
            }
        }
    }
}

static void note_family(void *arg, size_t path, const struct pd_json_value *v, uint64_t found)
{
    assert_int_equal(path, 0);
    assert_true((found & 1) != 0);
    snprintf((char *)arg + strlen(arg), 256 - strlen(arg), "%.*s|", PD_STR_ARG(v->member));
}

/* Keys that only begin like the path: each is told, none is twice. */
static void test_families(void **state)
{
    static const char *const paths[] = { "remote_*", "model", "remote_port" };
    static const char *const bad[] = { "a.b*", "a*.b", "a*[]" };
    struct pd_json_paths *compiled;
    uint64_t found;
    struct pd_json_value v[3];
    struct pd_str doc = PD_STR("{\"remote_\":1,\"remot\":2,\"x\":{\"remote_in\":3},\"\\u0072emote_a\":4,"
                               "\"remote_a\":[5],\"model\":6,\"remote_port\":7}");
    char seen[256] = "";

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(pd_json_paths_create(&bad[i], 1, &compiled), PD_EINVAL);
    assert_int_equal(pd_json_paths_create(paths, 3, &compiled), PD_OK);
    assert_int_equal(pd_json_scan_paths(doc, NULL, compiled, v, &found, note_family, seen, NULL), PD_OK);
    assert_int_equal(found, 7);
    assert_string_equal(seen, "\"remote_\":1|\"\\u0072emote_a\":4|\"remote_a\":[5]|\"remote_port\":7|");
    assert_true(pd_str_is(v[1].text, "6"));
    assert_true(pd_str_is(v[2].text, "7"));
    pd_json_paths_destroy(compiled);
    /* Alone, too. */
    seen[0] = '\0';
    assert_int_equal(pd_json_paths_create(paths, 1, &compiled), PD_OK);
    assert_int_equal(pd_json_scan_paths(doc, NULL, compiled, v, &found, note_family, seen, NULL), PD_OK);
    assert_int_equal(found, 1);
    assert_string_equal(seen, "\"remote_\":1|\"\\u0072emote_a\":4|\"remote_a\":[5]|\"remote_port\":7|");
    pd_json_paths_destroy(compiled);
}

/* Many keys of one length with the same ends, in two objects and at the end of the
 * document: each finds its own value. */
static void test_many_keys(void **state)
{
    enum { KEYS = 30 };
    static char keys[2 * KEYS][16];
    const char *paths[2 * KEYS];
    struct pd_json_value v[2 * KEYS];
    struct pd_buf doc;
    (void)state;
    pd_buf_init(&doc, 4096);
    pd_buf_append_cstr(&doc, "{\"o\":{");
    for (int i = 0; i < 2 * KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "%sk%02dk", i < KEYS ? "o." : "", i % KEYS);
        paths[i] = keys[i];
        pd_buf_appendf(&doc, "%s\"k%02dk\":%d%s", i % KEYS == 0 ? "" : ",", i % KEYS, i,
                       i == KEYS - 1 ? "}," : "");
    }
    pd_buf_append_cstr(&doc, "}");
    char *copy = malloc(doc.n);
    memcpy(copy, doc.p, doc.n);
    assert_int_equal(pd_json_scan(pd_str_of(copy, doc.n), NULL, paths, 2 * KEYS, v, NULL), PD_OK);
    for (int i = 0; i < 2 * KEYS; i++) {
        uint64_t n;
        assert_int_equal(pd_json_get_u64(&v[i], &n), PD_OK);
        assert_int_equal(n, i);
    }
    pd_buf_append_cstr(&doc, " ");
    doc.p[doc.n - 2] = ',';
    pd_buf_append_cstr(&doc, "\"k00k\":0}");
    assert_int_equal(pd_json_scan(pd_buf_str(&doc), NULL, paths, 2 * KEYS, v, NULL), PD_EEXIST);
    free(copy);
    pd_buf_fini(&doc);
}

/* Keys around the lengths that are looked up in another way, alone and with one that
 * goes on where they end, however they and what is behind them are written. */
static void test_key_lengths(void **state)
{
    static const char *const behind[] = { ":1}", " :1, \"other\":[]}", "\n: 1 }", ":1,\"q\":\"0123456789abcdef0123\"}" };
    char text[40], longer[48], doc[200];
    const char *paths[] = { text, longer };
    struct pd_json_value v[2];
    (void)state;
    for (size_t n = 1; n < 36; n++) {
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + i % 26);
        text[n] = '\0';
        snprintf(longer, sizeof longer, "%sz", text);
        for (size_t k = 0; k < 2 * PD_ARRAY_LEN(behind); k++) {
            const char *first = k % 2 != 0 ? "\\u0061" : "a";
            snprintf(doc, sizeof doc, "{\"%s%s\"%s", first, text + 1, behind[k / 2]);
            assert_int_equal(pd_json_scan(pd_str_from(doc), NULL, paths, 2, v, NULL), PD_OK);
            assert_true(v[0].type == PD_JSON_NUMBER && v[1].type == PD_JSON_NONE);
            snprintf(doc, sizeof doc, "{\"%s\":0,\"%s%s\"%s", text, first, text + 1, behind[k / 2]);
            assert_int_equal(pd_json_scan(pd_str_from(doc), NULL, paths, 2, v, NULL), PD_EEXIST);
            snprintf(doc, sizeof doc, "{\"%s\":0,\"%s%s\"%s", longer, first, text + 1, behind[k / 2]);
            assert_int_equal(pd_json_scan(pd_str_from(doc), NULL, paths, 2, v, NULL), PD_OK);
            assert_true(pd_str_is(v[0].text, "1") && pd_str_is(v[1].text, "0"));
        }
    }
}

struct seen {
    char text[256];
    size_t n;
    const struct pd_json_value *values;
};

/* What an element has of the paths below it. */
static void note_each(void *arg, size_t path, const struct pd_json_value *v, uint64_t found)
{
    struct seen *seen = arg;
    seen->n += (size_t)snprintf(seen->text + seen->n, sizeof seen->text - seen->n, "%zu=%.*s", path,
                                PD_STR_ARG(v->text));
    for (size_t i = 0; i < 2; i++)
        if (path == 2 && (found >> i & 1) != 0)
            seen->n += (size_t)snprintf(seen->text + seen->n, sizeof seen->text - seen->n, " %s%.*s",
                                        seen->values[i].is_plain ? "plain" : "escaped",
                                        PD_STR_ARG(seen->values[i].text));
    seen->n += (size_t)snprintf(seen->text + seen->n, sizeof seen->text - seen->n, ";");
}

/* Compiled paths, used twice, tell every element in the order in which values end, each
 * with what is in it and nothing of the ones before. */
static void test_scan_each(void **state)
{
    static const char *const list[] = { "a[].k", "a[].l", "a[]", "b", "c[][]" };
    static const struct pd_str doc =
        S("{\"a\":[{\"k\":\"x\",\"o\":[1]},7,{\"l\":8,\"k\":\"\\n\"},{\"q\":{\"k\":1}}],\"b\":\"y\",\"c\":[[1,2],[]]}");
    struct pd_json_paths *paths;
    uint64_t found;
    struct pd_json_value v[5];
    (void)state;
    assert_int_equal(pd_json_paths_create(list, 5, &paths), PD_OK);
    for (int i = 0; i < 2; i++) {
        struct seen seen = { .values = v };
        assert_int_equal(pd_json_scan_paths(doc, NULL, paths, v, &found, note_each, &seen, NULL), PD_OK);
        assert_int_equal(found, 12); /* the last c[] has nothing */
        assert_string_equal(seen.text, "2={\"k\":\"x\",\"o\":[1]} plain\"x\";2=7;2={\"l\":8,\"k\":\"\\n\"} "
                                       "escaped\"\\n\" plain8;2={\"q\":{\"k\":1}};4=1;4=2;");
        assert_true(pd_str_is(v[3].text, "\"y\"") && v[3].is_plain);
    }
    pd_json_paths_destroy(paths);
    assert_int_equal(pd_json_paths_create((const char *const[]){ "a[][][][][][][][][]" }, 1, &paths), PD_EINVAL);
}

/* One splice: sets a, b, c to the texts given, removes where the text is "-",
 * leaves alone where it is NULL. */
static void check_splice(const char *doc, const char *a, const char *b, const char *c,
                         const char *expected)
{
    static const char *const paths[] = { "", "a", "b", "c" };
    const char *texts[] = { a, b, c };
    struct pd_json_value v[4];
    struct pd_json_edit edits[3];
    size_t n = 0;
    struct pd_buf out;
    struct pd_json_value root;
    assert_int_equal(pd_json_scan(pd_str_from(doc), NULL, paths, 4, v, NULL), PD_OK);
    for (size_t i = 3; i-- > 0;) {
        if (texts[i] == NULL)
            continue;
        bool is_remove = strcmp(texts[i], "-") == 0;
        edits[n++] = (struct pd_json_edit){ is_remove ? PD_JSON_REMOVE : PD_JSON_SET, &v[i + 1],
                                            &v[0],
                                            paths[i + 1], pd_str_from(is_remove ? "" : texts[i]) };
    }
    pd_buf_init(&out, 10000);
    assert_int_equal(pd_json_splice_buf(pd_str_from(doc), edits, n, &out), PD_OK);
    if (!pd_str_is(pd_buf_str(&out), expected))
        fail_msg("%s -> %.*s, expected %s", doc, PD_STR_ARG(pd_buf_str(&out)), expected);
    assert_int_equal(pd_json_scan(pd_buf_str(&out), NULL, paths, 1, &root, NULL), PD_OK);
    pd_buf_fini(&out);
}

static void test_splice(void **state)
{
    (void)state;
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", NULL, NULL, NULL, "{\"a\":1,\"b\":2,\"c\":3}");
    check_splice("{\"a\":1, \"b\" : 2 }", "\"x\"", "[]", NULL, "{\"a\":\"x\", \"b\" : [] }");
    check_splice("{}", "1", NULL, NULL, "{\"a\":1}");
    check_splice("{ }", "1", "2", "3", "{\"c\":3,\"b\":2,\"a\":1 }");
    check_splice("{ \"x\":0}", "1", "2", NULL, "{\"b\":2,\"a\":1, \"x\":0}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", "-", NULL, NULL, "{\"b\":2,\"c\":3}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", NULL, "-", NULL, "{\"a\":1,\"c\":3}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", NULL, NULL, "-", "{\"a\":1,\"b\":2}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", NULL, "-", "-", "{\"a\":1}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", "-", "-", NULL, "{\"c\":3}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", "-", NULL, "-", "{\"b\":2}");
    check_splice("{\"a\":1,\"b\":2,\"c\":3}", "-", "-", "-", "{}");
    check_splice("{ \"a\":1 , \"b\":2 , \"c\":3 }", "-", "-", "-", "{  }");
    check_splice("{ \"a\" : 1 }", "-", NULL, NULL, "{  }");
    check_splice("{ \"a\" : 1 , \"x\" : 2 }", NULL, NULL, "-", "{ \"a\" : 1 , \"x\" : 2 }");
    check_splice("{\"a\":1}", "-", "2", NULL, "{\"b\":2}");
    check_splice("{ \"a\":1 }", "-", "2", "3", "{\"c\":3,\"b\":2  }");
    check_splice("{\"a\":1,\"c\":1}", "-", "2", "-", "{\"b\":2}");
    check_splice("{\"a\":1,\"c\":1}", "5", "2", "-", "{\"b\":2,\"a\":5}");
    check_splice("{\"x\":12345678901234567890,\"a\":[1,{\"a\":2}],\"y\":\"\\u0041\"}", "0", NULL,
                 NULL,
                 "{\"x\":12345678901234567890,\"a\":0,\"y\":\"\\u0041\"}");
}

static void test_splice_nested(void **state)
{
    (void)state;
    static const char *const paths[] = { "", "o", "o.p", "o.q", "l[]" };
    struct pd_str doc = PD_STR("{\"o\":{\"p\":1},\"l\":[1,2]}");
    struct pd_json_value v[5];
    struct pd_json_value elsewhere = value_of("{\"z\":1}");
    struct pd_buf out;
    pd_buf_init(&out, 1000);
    assert_int_equal(pd_json_scan(doc, NULL, paths, 5, v, NULL), PD_OK);
    struct pd_json_edit good[] = {
        { PD_JSON_SET, &v[3], &v[1], "q", PD_STR("true") },
        { PD_JSON_REMOVE, &v[2], NULL, NULL, { NULL, 0 } },
        { PD_JSON_SET, NULL, &v[0], "n", PD_STR("\"m\"") },
        { PD_JSON_SET, &v[4], NULL, NULL, PD_STR("7") },
    };
    assert_int_equal(pd_json_splice_buf(doc, good, 4, &out), PD_OK);
    assert_string_equal(pd_buf_cstr(&out), "{\"n\":\"m\",\"o\":{\"q\":true},\"l\":[7,2]}");

    struct pd_iov iov[40];
    size_t n = 40;
    size_t bytes = 0;
    assert_int_equal(pd_json_splice(doc, good, 4, iov, &n, &bytes), PD_OK);
    assert_int_equal(bytes, out.n);
    assert_ptr_equal(iov[0].base, doc.p);
    size_t few = n - 1;
    assert_int_equal(pd_json_splice(doc, good, 4, iov, &few, &bytes), PD_ELIMIT);

    struct pd_json_edit overlap[] = {
        { PD_JSON_REMOVE, &v[1], NULL, NULL, { NULL, 0 } },
        { PD_JSON_SET, &v[2], NULL, NULL, PD_STR("7") },
    };
    assert_int_equal(pd_json_splice_buf(doc, overlap, 2, &out), PD_EINVAL);
    struct pd_json_edit inside[] = {
        { PD_JSON_SET, &v[1], NULL, NULL, PD_STR("{}") },
        { PD_JSON_SET, &v[3], &v[1], "q", PD_STR("7") },
    };
    assert_int_equal(pd_json_splice_buf(doc, inside, 2, &out), PD_EINVAL);
    struct pd_json_edit element = { PD_JSON_REMOVE, &v[4], NULL, NULL, { NULL, 0 } };
    assert_int_equal(pd_json_splice_buf(doc, &element, 1, &out), PD_EINVAL);
    struct pd_json_edit foreign = { PD_JSON_SET, &elsewhere, NULL, NULL, PD_STR("1") };
    assert_int_equal(pd_json_splice_buf(doc, &foreign, 1, &out), PD_EINVAL);
    struct pd_json_edit homeless = { PD_JSON_SET, &v[3], NULL, "q", PD_STR("1") };
    assert_int_equal(pd_json_splice_buf(doc, &homeless, 1, &out), PD_EINVAL);
    struct pd_json_edit empty = { PD_JSON_SET, &v[2], NULL, NULL, { "", 0 } };
    assert_int_equal(pd_json_splice_buf(doc, &empty, 1, &out), PD_EINVAL);
    pd_buf_fini(&out);
}

static void test_write(void **state)
{
    (void)state;
    struct pd_buf b;
    struct pd_json_writer w;
    pd_buf_init(&b, 4096);
    pd_json_writer_init(&w, &b);
    pd_json_begin_object(&w, NULL);
    pd_json_add_str(&w, "s", PD_STR("a\"\\\n\x01\x7f\xc3\xa4\xff" "b\xe2\x82"));
    pd_json_begin_array(&w, "l");
    pd_json_add_i64(&w, NULL, INT64_MIN);
    pd_json_add_u64(&w, NULL, UINT64_MAX);
    pd_json_begin_object(&w, NULL);
    pd_json_end(&w);
    pd_json_add_null(&w, NULL);
    pd_json_end(&w);
    pd_json_add_double(&w, "d", 0.1);
    pd_json_add_double(&w, "inf", (double)INFINITY);
    pd_json_add_bool(&w, "b", true);
    pd_json_addf(&w, "f", "%d \"%s\"", 1, "x");
    pd_json_add_raw(&w, "r", PD_STR("[1]"));
    pd_json_end(&w);
    assert_int_equal(b.status, PD_OK);
    assert_string_equal(pd_buf_cstr(&b),
                        "{\"s\":\"a\\\"\\\\\\n\\u0001\x7f\xc3\xa4\xef\xbf\xbd" "b\xef\xbf\xbd\xef\xbf\xbd\","
                        "\"l\":[-9223372036854775808,18446744073709551615,{},null],\"d\":0.1,"
                        "\"inf\":null,\"b\":true,\"f\":\"1 \\\"x\\\"\",\"r\":[1]}");
    assert_int_equal(pd_json_scan(pd_buf_str(&b), NULL, NULL, 0, NULL, NULL), PD_OK);

    /* Every byte survives writing and reading, when it is UTF-8. */
    char all[127];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)(i + 1);
    pd_buf_clear(&b);
    pd_json_put_str(&b, pd_str_of(all, sizeof all));
    struct pd_json_value v = value_of(pd_buf_cstr(&b));
    char back[200];
    assert_int_equal(pd_json_get_cstr(&v, back, sizeof back), PD_OK);
    assert_memory_equal(back, all, sizeof all);
    static const double numbers[] = { 0, -0.5, 1, 1e300, 5e-324, 1.0 / 3, 123456789.125 };
    for (size_t i = 0; i < PD_ARRAY_LEN(numbers); i++) {
        double d;
        pd_buf_clear(&b);
        pd_json_put_double(&b, numbers[i]);
        v = value_of(pd_buf_cstr(&b));
        assert_int_equal(pd_json_get_double(&v, &d), PD_OK);
        assert_true(d == numbers[i]);
    }
    pd_buf_fini(&b);
}

/* Mutations of a valid document: never a crash, and what is accepted can be
 * iterated and spliced. */
static void test_mutations(void **state)
{
    (void)state;
    static const char *const paths[] = { "", "a", "b.c", "m[].r" };
    static const char alphabet[] = "{}[]\",:\\u0d8e-.tfn \n\xc3\xa4\xff\x01";
    struct pd_str doc = PD_STR("{\"a\":\"x\\ud83d\\ude00\",\"b\":{\"c\":1.5e3},\"m\":[{\"r\":null},{}]}");
    uint64_t seed = 42;
    size_t accepted = 0;
    for (int round = 0; round < 60000; round++) {
        char *copy = (char *)malloc(doc.n);
        struct pd_json_value v[4];
        memcpy(copy, doc.p, doc.n);
        for (int k = 0; k <= round % 3; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            copy[(seed >> 33) % doc.n] = alphabet[(seed >> 20) % (sizeof alphabet - 1)];
        }
        if (pd_json_scan(pd_str_of(copy, doc.n), NULL, paths, 4, v, NULL) == PD_OK) {
            struct pd_json_edit edits[] = {
                { PD_JSON_REMOVE, &v[1], NULL, NULL, { NULL, 0 } },
                { PD_JSON_REMOVE, &v[2], NULL, NULL, { NULL, 0 } },
                { PD_JSON_SET, NULL, &v[0], "new", PD_STR("1") },
            };
            struct pd_buf out;
            pd_buf_init(&out, 1000);
            accepted++;
            pd_json_count(&v[0]);
            if (v[0].type == PD_JSON_OBJECT) {
                assert_int_equal(pd_json_splice_buf(pd_str_of(copy, doc.n), edits, 3, &out), PD_OK);
                assert_int_equal(pd_json_scan(pd_buf_str(&out), NULL, NULL, 0, NULL, NULL), PD_OK);
            }
            pd_buf_fini(&out);
        }
        free(copy);
    }
    assert_true(accepted > 100);
}

static struct pd_json_value by_hand(uint32_t type, const char *text)
{
    return (struct pd_json_value){ .type = type, .text = pd_str_from(text) };
}

/* Values that no scanner has seen: whatever their text, nothing is read that is not there,
 * and what cannot be given whole is not given. */
static void test_by_hand(void **state)
{
    static const char *const bad[] = { "\"\\x\"", "\"\\u12\"", "\"\\u12zz\"", "\"\\ud83d\"", "\"\\ud83d\\u0041\"",
                                       "\"\\ud83d\\u12\"", "\"\\ud83d\\uzzzz\"", "\"\\ud83d\\uffff\"", "\"abc\\\"" };
    struct pd_json_value v;
    struct pd_json_iter it;
    struct pd_buf buf;
    struct pd_arena arena;
    struct pd_str str;
    char text[64];
    double d;
    bool b;
    uint64_t u;
    (void)state;
    pd_buf_init(&buf, 1000);
    pd_arena_init(&arena, 1024, 100000);
    pd_buf_append_cstr(&buf, "before");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        v = by_hand(PD_JSON_STRING, bad[i]);
        assert_int_equal(pd_json_get_buf(&v, &buf), PD_EINVAL);
        assert_true(pd_str_is(pd_buf_str(&buf), "before"));
        assert_int_equal(pd_json_get_str(&v, &arena, &str), PD_EINVAL);
        assert_int_equal(pd_json_get_cstr(&v, text, sizeof text), PD_EINVAL);
        assert_false(pd_json_is_str(&v, "abc"));
    }
    v = by_hand(PD_JSON_STRING, "\"a\\u0000b\"");
    assert_int_equal(pd_json_get_cstr(&v, text, sizeof text), PD_EINVAL);
    v = by_hand(PD_JSON_STRING, "\"\\ud83d\\ude00\\n\"");
    assert_true(pd_json_is_str(&v, "\xf0\x9f\x98\x80\n"));
    assert_false(pd_json_is_str(&v, "\xf0\x9f\x98\x80"));
    assert_false(pd_json_is_str(&v, "\xf0\x9f\x98\x80\n."));
    assert_int_equal(pd_json_get_cstr(&v, text, 3), PD_ELIMIT);
    assert_int_equal(pd_json_get_cstr(&v, text, 0), PD_ELIMIT);
    pd_arena_fini(&arena);
    pd_mem_fault_set(1);
    assert_int_equal(pd_json_get_str(&v, &arena, &str), PD_ENOMEM);
    pd_mem_fault_set(0);
    assert_int_equal(pd_json_get_str(&v, &arena, &str), PD_OK);
    assert_int_equal(str.n, 5);
    v = by_hand(PD_JSON_STRING, "\"\"");
    assert_int_equal(pd_json_get_cstr(&v, text, 0), PD_ELIMIT);
    assert_int_equal(pd_json_get_cstr(&v, text, 1), PD_OK);
    v = by_hand(PD_JSON_STRING, "\"");
    assert_int_equal(pd_json_get_cstr(&v, text, sizeof text), PD_OK);
    assert_string_equal(text, "");
    /* Another type, or none. */
    static const uint32_t types[] = { PD_JSON_NONE, PD_JSON_OBJECT };
    for (size_t i = 0; i < 2; i++) {
        v = by_hand(types[i], "{}");
        assert_true(pd_json_get_double(&v, &d) < 0 && pd_json_get_bool(&v, &b) < 0 && pd_json_get_u64(&v, &u) < 0);
        assert_true(pd_json_get_buf(&v, &buf) < 0 && pd_json_get_str(&v, &arena, &str) < 0);
        assert_true(pd_json_get_cstr(&v, text, sizeof text) < 0);
    }
    v = by_hand(PD_JSON_NUMBER, "-0");
    assert_int_equal(pd_json_get_u64(&v, &u), PD_OK);
    v = by_hand(PD_JSON_NUMBER, "-x");
    assert_true(pd_json_get_u64(&v, &u) < 0);
    /* Going through what is none, or is cut off. */
    v = by_hand(PD_JSON_NONE, "");
    assert_int_equal(pd_json_iter_init(&it, &v), PD_ENOENT);
    v = by_hand(PD_JSON_NUMBER, "12");
    assert_int_equal(pd_json_iter_init(&it, &v), PD_EINVAL);
    v = by_hand(PD_JSON_ARRAY, "[");
    assert_int_equal(pd_json_iter_init(&it, &v), PD_EINVAL);
    static const char *const cut[] = { "{\"a\"}", "{\"a\" 1}", "{a:1}", "{\"a}", "{\"a\":}" };
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        struct pd_json_value key, value;
        v = by_hand(PD_JSON_OBJECT, cut[i]);
        assert_int_equal(pd_json_iter_init(&it, &v), PD_OK);
        assert_false(pd_json_iter_next(&it, &key, &value));
        assert_false(pd_json_iter_next(&it, &key, &value));
    }
    v = by_hand(PD_JSON_ARRAY, "[\t1\r,\n2\t]");
    assert_int_equal(pd_json_iter_init(&it, &v), PD_OK);
    assert_true(pd_json_iter_next(&it, NULL, &v) && pd_str_is(v.text, "1"));
    assert_true(pd_json_iter_next(&it, NULL, &v) && pd_str_is(v.text, "2"));
    assert_false(pd_json_iter_next(&it, NULL, &v));
    pd_buf_fini(&buf);
    pd_arena_fini(&arena);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_by_hand),
    cmocka_unit_test(test_accept),      cmocka_unit_test(test_refuse),
    cmocka_unit_test(test_prefixes),    cmocka_unit_test(test_error_place),
    cmocka_unit_test(test_limits),      cmocka_unit_test(test_paths),
    cmocka_unit_test(test_duplicates),  cmocka_unit_test(test_getters),
    cmocka_unit_test(test_strings),     cmocka_unit_test(test_scan_each), cmocka_unit_test(test_families),
    cmocka_unit_test(test_key_lengths), cmocka_unit_test(test_doubles),
    cmocka_unit_test(test_many_keys),
    cmocka_unit_test(test_long_strings), cmocka_unit_test(test_iterate),
    cmocka_unit_test(test_splice),      cmocka_unit_test(test_splice_nested),
    cmocka_unit_test(test_write),       cmocka_unit_test(test_mutations),
};

PD_UNIT_MAIN(tests)
