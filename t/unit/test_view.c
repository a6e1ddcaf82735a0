/* SPDX-License-Identifier: Apache-2.0 */
/* Views: the same calls as text and as JSON. */
#include "unit.h"

#include "base/mem.h"
#include "base/str.h"
#include "base/view.h"

static const char *const roles[] = { "prefill", "decode", NULL };

static void show(struct pd_view *v, const char *name)
{
    static const struct pd_view_column columns[] = {
        { "name", "NAME", 0 }, { "size", "SIZE", PD_VIEW_RIGHT }, { "note", "NOTE", PD_VIEW_SPARSE },
        { "rtt_seconds", "RTT", PD_VIEW_RIGHT }, { "roles", "ROLES", 0 }, { "hidden", NULL, 0 },
        { NULL, "ONLY TEXT", 0 }, { NULL, NULL, 0 },
    };
    pd_view_object(v, "node", NULL);
    pd_view_field(v, "name", "name");
    pd_view_str(v, name);
    pd_view_field(v, "ready", "is ready");
    pd_view_bool(v, true);
    pd_view_field(v, "rate", NULL);
    pd_view_rate(v, 0);
    pd_view_end(v);
    pd_view_table(v, "rows", "ROWS", columns, "no rows");
    for (uint32_t i = 0; i < 2; i++) {
        pd_view_row(v);
        pd_view_str(v, i == 0 ? name : "b");
        pd_view_bytes(v, i == 0 ? 1536 : 7);
        pd_view_str(v, "");
        pd_view_duration(v, i == 0 ? PD_TIME_NEVER : 2500000);
        pd_view_set(v, i == 0 ? 3 : 0, roles);
        pd_view_count(v, i);
        pd_view_number(v, 0.5);
    }
    pd_view_end(v);
    pd_view_table(v, "none", NULL, columns, "no rows");
    pd_view_end(v);
}

static void check(enum pd_view_format format, const char *name, const char *want)
{
    struct pd_buf out;
    struct pd_view v;
    pd_buf_init(&out, 1 << 20);
    pd_view_init(&v, format, &out);
    show(&v, name);
    assert_int_equal(pd_view_fini(&v), PD_OK);
    assert_string_equal(pd_buf_cstr(&out), want);
    pd_buf_fini(&out);
}

static void test_text(void **state)
{
    (void)state;
    check(PD_VIEW_TEXT, "alpha",
          "name      alpha\n"
          "is ready  yes\n"
          "\n"
          "ROWS\n"
          "NAME      SIZE     RTT  ROLES           ONLY TEXT\n"
          "alpha  1.5 KiB       -  prefill,decode  0.500\n"
          "b          7 B  2.5 ms  -               0.500\n"
          "\n"
          "no rows\n");
}

static void test_json(void **state)
{
    (void)state;
    check(PD_VIEW_JSON, "a\"\x1b",
          "{\"node\":{\"name\":\"a\\\"\\u001b\",\"ready\":true,\"rate\":null},\"rows\":["
          "{\"name\":\"a\\\"\\u001b\",\"size\":1536,\"note\":\"\",\"rtt_seconds\":null,"
          "\"roles\":[\"prefill\",\"decode\"],\"hidden\":0},"
          "{\"name\":\"b\",\"size\":7,\"note\":\"\",\"rtt_seconds\":0.0025,\"roles\":[],\"hidden\":1}],"
          "\"none\":[]}\n");
}

/* What comes from other nodes cannot move the cursor or hide text. */
static void test_hostile(void **state)
{
    (void)state;
    check(PD_VIEW_TEXT, "\xc3\xa9\x1b[31m\n\xff\xe2\x80\xae",
          "name      \xc3\xa9?[31m???\n"
          "is ready  yes\n"
          "\n"
          "ROWS\n"
          "NAME          SIZE     RTT  ROLES           ONLY TEXT\n"
          "\xc3\xa9?[31m???  1.5 KiB       -  prefill,decode  0.500\n"
          "b              7 B  2.5 ms  -               0.500\n"
          "\n"
          "no rows\n");
}

static void test_long(void **state)
{
    static const struct pd_view_column columns[] = { { "s", "S", 0 }, { NULL, NULL, 0 } };
    struct pd_buf out;
    struct pd_view v;
    char text[400];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    pd_buf_init(&out, 1 << 20);
    pd_view_init(&v, PD_VIEW_TEXT, &out);
    pd_view_table(&v, "t", NULL, columns, NULL);
    pd_view_row(&v);
    pd_view_str(&v, text);
    pd_view_end(&v);
    assert_int_equal(pd_view_fini(&v), PD_OK);
    assert_int_equal(out.n, 2 + PD_VIEW_CELL_MAX + 3 + 1);
    pd_buf_fini(&out);
    /* An answer that does not fit is an error, not half an answer. */
    pd_buf_init(&out, 60);
    pd_view_init(&v, PD_VIEW_JSON, &out);
    show(&v, "n");
    assert_int_equal(pd_view_fini(&v), PD_ELIMIT);
    pd_buf_fini(&out);
}

static void test_memory(void **state)
{
    (void)state;
    for (int format = PD_VIEW_TEXT; format <= PD_VIEW_JSON; format++) {
        pd_status status = PD_ENOMEM;
        for (uint64_t n = 1; status != PD_OK; n++) {
            struct pd_buf out;
            struct pd_view v;
            pd_buf_init(&out, 1 << 20);
            pd_mem_fault_set(n);
            pd_view_init(&v, (enum pd_view_format)format, &out);
            show(&v, "name");
            status = pd_view_fini(&v);
            pd_mem_fault_set(0);
            assert_true(status == PD_OK || status == PD_ENOMEM);
            pd_buf_fini(&out);
            assert_true(n < 100);
        }
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_text),   cmocka_unit_test(test_json),   cmocka_unit_test(test_hostile),
    cmocka_unit_test(test_long),   cmocka_unit_test(test_memory),
};

PD_UNIT_MAIN(tests)
