/* SPDX-License-Identifier: Apache-2.0 */
/* The SSE splitter at every split point, its limits, and the framing. */
#include "unit.h"

#include "base/str.h"
#include "net/digest.h"
#include "net/sse.h"

struct seen {
    char text[4096];            /* "event|id|data;" for each event */
    size_t n;
};

static void on_event(const struct pd_sse_event *ev, void *arg)
{
    struct seen *s = arg;
    s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%.*s|%.*s|%.*s;",
                             PD_STR_ARG(ev->event), PD_STR_ARG(ev->id), PD_STR_ARG(ev->data));
}

static void feed_cut(const char *in, size_t cut, struct seen *out)
{
    size_t n = strlen(in);
    struct pd_sse s;

    memset(out, 0, sizeof(*out));
    pd_sse_init(&s, 1024);
    if (cut == 0) {
        for (size_t i = 0; i < n; i++)
            assert_int_equal(pd_sse_feed(&s, in + i, 1, on_event, out), PD_OK);
    } else {
        assert_int_equal(pd_sse_feed(&s, in, cut, on_event, out), PD_OK);
        assert_int_equal(pd_sse_feed(&s, in + cut, n - cut, on_event, out), PD_OK);
    }
    pd_sse_fini(&s);
}

static void test_split(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        const char *out;
    } rows[] = {
        { "data: a\n\n", "||a;" },
        { "data:a\n\ndata: b\n\n", "||a;||b;" },
        { "data: a\r\n\r\ndata: b\r\n\r\n", "||a;||b;" },
        { "data: a\r\rdata: b\r\r", "||a;||b;" },
        { "data: a\ndata: b\n\n", "||a\nb;" },
        { "data: a\r\ndata: \r\ndata: b\r\n\r\n", "||a\n\nb;" },
        { ": ping\n\ndata: a\n\n: ping\n", "||a;" },
        { "event: x\nid: 7\ndata: {\"a\":1}\n\ndata: [DONE]\n\n", "x|7|{\"a\":1};||[DONE];" },
        { "event: x\n\ndata: a\n\n", "||a;" },
        { "data\n\n", "||;" },
        { "retry: 5\nfoo: bar\ndata:  a\n\n", "|| a;" },
        { "\xef\xbb\xbf" "data: a\n\n", "||a;" },
        { "data: a", "" },
        { "data: a\n", "" },
        { "\n\n\ndata: a:b\n\n\n", "||a:b;" },
    };
    struct seen seen;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (size_t cut = 0; cut < strlen(rows[i].in); cut++) {
            feed_cut(rows[i].in, cut, &seen);
            if (strcmp(seen.text, rows[i].out) != 0)
                fail_msg("row %zu cut %zu: \"%s\", not \"%s\"", i, cut, seen.text, rows[i].out);
        }
}

static void test_limit(void **state)
{
    (void)state;
    struct pd_sse s;
    struct seen seen = { .n = 0 };
    char big[200];

    memset(big, 'a', sizeof(big));
    pd_sse_init(&s, 64);
    assert_int_equal(pd_sse_feed(&s, big, sizeof(big), on_event, &seen), PD_ELIMIT);
    pd_sse_reset(&s);
    assert_int_equal(pd_sse_feed(&s, "data: ", 6, on_event, &seen), PD_OK);
    assert_true(pd_sse_is_inside(&s));
    assert_int_equal(pd_sse_feed(&s, big, sizeof(big), on_event, &seen), PD_ELIMIT);
    pd_sse_reset(&s);
    assert_false(pd_sse_is_inside(&s));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pd_sse_feed(&s, "data: 01234567890\n", 18, on_event, &seen), PD_OK);
    memcpy(big, "data: ", 6);
    big[100] = '\n';
    assert_int_equal(pd_sse_feed(&s, big, 101, on_event, &seen), PD_ELIMIT);
    /* A line that means nothing counts too, in one piece or in several. */
    memset(big, ':', sizeof(big));
    for (size_t n = 63; n <= 65; n++) {
        big[n] = '\n';
        for (size_t cut = 0; cut < n; cut += 31) {
            pd_sse_reset(&s);
            pd_status status = pd_sse_feed(&s, big, cut, on_event, &seen);
            if (status == PD_OK)
                status = pd_sse_feed(&s, big + cut, n + 1 - cut, on_event, &seen);
            assert_int_equal(status, n <= 64 ? PD_OK : PD_ELIMIT);
        }
        big[n] = ':';
    }
    pd_sse_fini(&s);
}

static void test_frame(void **state)
{
    (void)state;
    struct pd_iov iov[3];
    struct pd_buf b;
    struct seen seen = { .n = 0 };
    struct pd_sse s;

    assert_int_equal(pd_sse_frame(PD_STR("a\nb"), iov), PD_EINVAL);
    assert_int_equal(pd_sse_frame(PD_STR("a\rb"), iov), PD_EINVAL);
    assert_int_equal(pd_sse_frame(PD_STR("{}"), iov), PD_OK);
    assert_int_equal(iov[0].len + iov[1].len + iov[2].len, 10);
    pd_buf_init(&b, 1024);
    assert_int_equal(pd_sse_append(&b, PD_STR("x"), PD_STR("one\r\ntwo")), PD_OK);
    assert_int_equal(pd_sse_append(&b, PD_STR(""), PD_STR("[DONE]")), PD_OK);
    assert_int_equal(pd_sse_append(&b, PD_STR("x\ny"), PD_STR("a")), PD_EINVAL);
    assert_int_equal(pd_sse_append(&b, PD_STR(""), PD_STR("a\rb")), PD_EINVAL);
    pd_buf_clear(&b);
    assert_int_equal(pd_sse_append(&b, PD_STR("x"), PD_STR("one\r\ntwo")), PD_OK);
    pd_sse_init(&s, 100);
    assert_int_equal(pd_sse_feed(&s, b.p, b.n, on_event, &seen), PD_OK);
    assert_string_equal(seen.text, "x||one\ntwo;");
    pd_sse_fini(&s);
    pd_buf_fini(&b);
}

static void test_digest(void **state)
{
    (void)state;
    uint8_t d[PD_SHA256_BYTES];
    char text[PD_SHA256_TEXT], key[131];
    struct pd_iov iov[2] = { { (void *)(uintptr_t)"what do ya want ", 16 },
                             { (void *)(uintptr_t)"for nothing?", 12 } };
    struct pd_sha256 *h = pd_sha256_create();

    assert_int_equal(pd_sha256("abc", 3, d), PD_OK);
    assert_string_equal(pd_sha256_format(d, text),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_non_null(h);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pd_sha256_update(h, "a", 1), PD_OK);
        assert_int_equal(pd_sha256_update(h, "bc", 2), PD_OK);
        assert_int_equal(pd_sha256_final(h, d), PD_OK);
        assert_string_equal(pd_sha256_format(d, text),
                            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
    pd_sha256_destroy(h);
    /* RFC 4231, cases 2 and 6. */
    assert_int_equal(pd_hmac_sha256("Jefe", 4, iov, 2, d), PD_OK);
    assert_string_equal(pd_sha256_format(d, text),
                        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    iov[0] = (struct pd_iov){ (void *)(uintptr_t)"Test Using Larger Than Block-Size Key - "
                              "Hash Key First", 54 };
    assert_int_equal(pd_hmac_sha256(key, sizeof(key), iov, 1, d), PD_OK);
    assert_string_equal(pd_sha256_format(d, text),
                        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    assert_true(pd_secret_equal_str(PD_STR("abc"), PD_STR("abc")));
    assert_false(pd_secret_equal_str(PD_STR("abc"), PD_STR("abcd")));
    assert_false(pd_secret_equal_str(PD_STR("abc"), PD_STR("abd")));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_split),
    cmocka_unit_test(test_limit),
    cmocka_unit_test(test_frame),
    cmocka_unit_test(test_digest),
};

PD_UNIT_MAIN(tests)
