/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces to text: whatever the pieces are, the text shown is the same, never
 * holds a broken character and never a part of a stop string. */
#include "unit.h"

#include "api/api.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/utf8.h"

struct seen {
    char text[512];
    size_t n;
    bool stopped;
};

static void keep(struct seen *s, struct pd_str out)
{
    assert_true(s->n + out.n < sizeof s->text);
    assert_true(pd_utf8_is_valid(out.p, out.n));
    if (out.n != 0)
        memcpy(s->text + s->n, out.p, out.n);
    s->n += out.n;
    s->text[s->n] = '\0';
}

/* Feeds in with a cut after byte i for each bit i of cuts. */
static void feed(const struct pd_str *stops, uint32_t n_stops, const char *in, size_t n, uint64_t cuts,
                 struct seen *seen)
{
    struct pd_text *text;
    struct pd_str out;
    size_t from = 0;
    memset(seen, 0, sizeof *seen);
    assert_int_equal(pd_api_text_create(NULL, stops, n_stops, &text), PD_OK);
    for (size_t i = 0; i < n; i++) {
        uint32_t stopped;
        if (i + 1 < n && (cuts >> (i % 64) & 1) == 0)
            continue;
        assert_int_equal(pd_api_text_add(text, (struct pd_str){ in + from, i + 1 - from }, &out, &stopped), PD_OK);
        assert_true(!seen->stopped || (stopped && out.n == 0));
        seen->stopped = stopped != 0;
        keep(seen, out);
        from = i + 1;
    }
    assert_int_equal(pd_api_text_end(text, &out), PD_OK);
    assert_true(!seen->stopped || out.n == 0);
    keep(seen, out);
    pd_api_text_destroy(NULL, text);
}

static void test_known(void **state)
{
    (void)state;
    static const struct {
        const char *stops[4];
        const char *in, *out;
        bool stopped;
    } rows[] = {
        { { NULL }, "", "", false },
        { { NULL }, "plain", "plain", false },
        { { NULL }, "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", false },
        { { NULL }, "a\xff" "b", "a\xef\xbf\xbd" "b", false },
        { { NULL }, "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd", false },
        { { NULL }, "\xe2" "A", "\xef\xbf\xbd" "A", false },
        { { "stop" }, "go stop more", "go ", true },
        { { "stop" }, "stop", "", true },
        { { "stop" }, "sto", "sto", false },
        { { "stop" }, "ststop", "st", true },
        { { "aab" }, "aaaaab", "aaa", true },
        { { "abab" }, "abaabab", "aba", true },
        { { "b", "abc" }, "abc", "a", true },
        { { "abc", "b" }, "abc", "a", true },
        { { "bc", "abc" }, "xabc", "x", true },
        { { "\n\n", "END" }, "one\ntwo\n\nthree END", "one\ntwo", true },
        { { "\xc3\xa9" }, "caf\xc3\xa9", "caf", true },
        { { "\xe2\x82\xac" }, "\xe2\x82\xa9\xe2\x82\xac", "\xe2\x82\xa9", true },
        { { "a" }, "\xf0\x9f" "a", "\xef\xbf\xbd\xef\xbf\xbd", true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pd_str stops[4];
        uint32_t n_stops = 0;
        size_t n = strlen(rows[i].in);
        while (n_stops < 4 && rows[i].stops[n_stops] != NULL) {
            stops[n_stops] = pd_str_from(rows[i].stops[n_stops]);
            n_stops++;
        }
        /* Every way to cut up to twelve bytes, else every single cut and all. */
        uint64_t all = n < 13 ? (uint64_t)1 << (n > 0 ? n - 1 : 0) : n + 1;
        for (uint64_t c = 0; c < all; c++) {
            struct seen seen;
            uint64_t cuts = n < 13 ? c : c == n ? UINT64_MAX : (uint64_t)1 << c;
            feed(stops, n_stops, rows[i].in, n, cuts, &seen);
            if (strcmp(seen.text, rows[i].out) != 0 || seen.stopped != rows[i].stopped) {
                print_error("row %zu cuts %llx: '%s'\n", i, (unsigned long long)cuts, seen.text);
                fail();
            }
        }
    }
}

static uint64_t rng = 88172645463325252u;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static size_t random_text(char *p, size_t max, bool is_valid)
{
    static const char *const parts[] = { "a", "b", "ab", "c", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80" };
    static const char *const broken[] = { "\xc3", "\xe2\x82", "\xf0\x9f", "\xff", "\x80" };
    size_t n = 0, want = 1 + next() % max;
    while (n < want) {
        const char *s = is_valid || next() % 8 != 0 ? parts[next() % 7] : broken[next() % 5];
        if (n + strlen(s) > max)
            break;
        memcpy(p + n, s, strlen(s));
        n += strlen(s);
    }
    if (n == 0)
        p[n++] = 'a';
    return n;
}

/* Any split of the same bytes gives the same text. */
static void test_any_split(void **state)
{
    (void)state;
    for (int round = 0; round < 4000; round++) {
        char bytes[4][8], in[64];
        struct pd_str stops[4];
        uint32_t n_stops = (uint32_t)(next() % 5);
        struct seen whole, parts;
        for (uint32_t i = 0; i < n_stops; i++)
            stops[i] = (struct pd_str){ bytes[i], random_text(bytes[i], 1 + next() % sizeof bytes[i], true) };
        size_t n = random_text(in, sizeof in, false);
        feed(stops, n_stops, in, n, 0, &whole);
        if (whole.stopped) {
            for (uint32_t i = 0; i < n_stops; i++)
                assert_true(pd_str_find((struct pd_str){ whole.text, whole.n }, stops[i]) == PD_STR_NPOS);
        }
        for (int k = 0; k < 12; k++) {
            uint64_t cuts = k == 0 ? UINT64_MAX : next() & (k % 2 ? next() : UINT64_MAX);
            feed(stops, n_stops, in, n, cuts, &parts);
            if (parts.n != whole.n || strcmp(parts.text, whole.text) != 0 ||
                parts.stopped != whole.stopped) {
                print_error("round %d: '%s' as '%s' or '%s'\n", round, in, whole.text, parts.text);
                fail();
            }
        }
    }
}

/* What is held is bounded by the longest stop string: text flows. */
static void test_flows(void **state)
{
    (void)state;
    struct pd_text *text;
    struct pd_str stop = PD_STR("aaaab"), out;
    size_t fed = 0, shown = 0;
    uint32_t stopped;
    assert_int_equal(pd_api_text_create(NULL, &stop, 1, &text), PD_OK);
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(pd_api_text_add(text, PD_STR("aaa"), &out, &stopped), PD_OK);
        fed += 3;
        shown += out.n;
        assert_false(stopped);
        assert_true(fed - shown <= stop.n + 3);
    }
    pd_api_text_destroy(NULL, text);
}

static void test_limits(void **state)
{
    (void)state;
    struct pd_str stops[PD_API_MAX_STOPS + 1];
    struct pd_text *text;
    for (uint32_t i = 0; i <= PD_API_MAX_STOPS; i++)
        stops[i] = PD_STR("x");
    assert_int_equal(pd_api_text_create(NULL, stops, PD_API_MAX_STOPS + 1, &text), PD_EINVAL);
    assert_int_equal(pd_api_text_create(NULL, stops, PD_API_MAX_STOPS, &text), PD_OK);
    struct pd_str out;
    uint32_t stopped;
    char *big = pd_calloc(1, 1u << 20);
    assert_non_null(big);
    assert_int_equal(pd_api_text_add(text, (struct pd_str){ big, 1u << 20 }, &out, &stopped), PD_ELIMIT);
    pd_free(big);
    pd_api_text_destroy(NULL, text);
    pd_api_text_destroy(NULL, NULL);
    for (uint64_t n = 1; n < 3; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(pd_api_text_create(NULL, stops, 1, &text), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_known), cmocka_unit_test(test_any_split),
    cmocka_unit_test(test_flows), cmocka_unit_test(test_limits),
};

PD_UNIT_MAIN(tests)
