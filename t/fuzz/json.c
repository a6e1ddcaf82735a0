/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: what the scan accepts can be walked, decoded, written and spliced, and
 * every result is JSON again. */
#include "fuzz.h"

#include "base/json.h"
#include "base/str.h"
#include "base/utf8.h"

static const char *const paths[] = { "", "model", "stream_options.include_usage", "messages[].role", "n", "user" };
enum { ROOT, MODEL, USAGE, ROLE, N, USER, PATHS };

static struct pd_str doc;

static void scan_again(struct pd_str text)
{
    const char *root = "";
    struct pd_json_value v;
    struct pd_json_limits limits = { .depth = PD_JSON_MAX_DEPTH, .keys = 1 << 20 };
    FUZZ_CHECK(pd_json_scan(text, &limits, &root, 1, &v, NULL) == PD_OK);
}

static void check_string(const struct pd_json_value *v)
{
    struct pd_buf a, b, c;
    pd_buf_init(&a, 1 << 24);
    pd_buf_init(&b, 1 << 24);
    pd_buf_init(&c, 1 << 24);
    FUZZ_CHECK(pd_json_get_buf(v, &a) == PD_OK);
    FUZZ_CHECK(pd_utf8_valid_prefix(a.p, a.n) == a.n);
    FUZZ_CHECK(pd_json_put_str(&b, pd_buf_str(&a)) == PD_OK);
    scan_again(pd_buf_str(&b));
    struct pd_json_value w = { .type = PD_JSON_STRING, .text = pd_buf_str(&b) };
    FUZZ_CHECK(pd_json_get_buf(&w, &c) == PD_OK);
    FUZZ_CHECK(fuzz_same(pd_buf_str(&a), pd_buf_str(&c)));
    char small[32];
    pd_status status = pd_json_get_cstr(v, small, sizeof small);
    FUZZ_CHECK(status == PD_ELIMIT || status == PD_EINVAL || (status == PD_OK && strlen(small) == a.n));
    pd_buf_fini(&a);
    pd_buf_fini(&b);
    pd_buf_fini(&c);
}

static void check_number(const struct pd_json_value *v)
{
    double d, e;
    int64_t i;
    uint64_t u;
    struct pd_buf b;
    pd_buf_init(&b, 4096);
    if (pd_json_get_double(v, &d) == PD_OK) {
        FUZZ_CHECK(pd_json_put_double(&b, d) == PD_OK);
        scan_again(pd_buf_str(&b));
        struct pd_json_value w = { .type = PD_JSON_NUMBER, .text = pd_buf_str(&b) };
        FUZZ_CHECK(pd_json_get_double(&w, &e) == PD_OK);
        FUZZ_CHECK(d >= e && d <= e);
    }
    if (pd_json_get_i64(v, &i) == PD_OK && i >= 0) {
        FUZZ_CHECK(pd_json_get_u64(v, &u) == PD_OK && u == (uint64_t)i);
    }
    pd_buf_fini(&b);
}

static void walk(const struct pd_json_value *v, uint32_t depth)
{
    struct pd_json_iter it;
    struct pd_json_value key, value;
    FUZZ_CHECK(depth <= 64);
    FUZZ_CHECK(v->text.n > 0 && fuzz_inside(v->text, doc));
    FUZZ_CHECK(pd_json_type_of(v->text) == v->type);
    if (v->type == PD_JSON_STRING)
        check_string(v);
    else if (v->type == PD_JSON_NUMBER)
        check_number(v);
    if (v->type != PD_JSON_ARRAY && v->type != PD_JSON_OBJECT)
        return;
    size_t n = 0;
    FUZZ_CHECK(pd_json_iter_init(&it, v) == PD_OK);
    while (pd_json_iter_next(&it, &key, &value)) {
        FUZZ_CHECK((key.type == PD_JSON_STRING) == (v->type == PD_JSON_OBJECT));
        if (key.type == PD_JSON_STRING) {
            FUZZ_CHECK(fuzz_inside(key.text, v->text) && fuzz_inside(value.text, value.member));
            check_string(&key);
        }
        FUZZ_CHECK(fuzz_inside(value.text, v->text));
        walk(&value, depth + 1);
        n++;
    }
    FUZZ_CHECK(n == pd_json_count(v));
}

static void splice(const struct pd_json_value *values, bool remove_model)
{
    struct pd_json_value after[PATHS];
    struct pd_json_limits limits = { .keys = 1 << 20 };
    struct pd_json_edit edits[] = {
        { .op = remove_model ? PD_JSON_REMOVE : PD_JSON_SET, .value = &values[MODEL], .object = &values[ROOT],
          .key = "model", .text = PD_STR("\"m\"") },
        { .op = PD_JSON_REMOVE, .value = &values[USAGE] },
        { .op = PD_JSON_SET, .value = &values[N], .object = &values[ROOT], .key = "n", .text = PD_STR("[1,{}]") },
        { .op = PD_JSON_REMOVE, .value = &values[USER] },
    };
    struct pd_buf out;
    pd_buf_init(&out, 1 << 24);
    pd_status status = pd_json_splice_buf(doc, edits, 4, &out);
    FUZZ_CHECK(status == PD_OK);
    FUZZ_CHECK(pd_json_scan(pd_buf_str(&out), &limits, paths, PATHS, after, NULL) == PD_OK);
    if (remove_model)
        FUZZ_CHECK(after[MODEL].type == PD_JSON_NONE);
    else
        FUZZ_CHECK(pd_json_is_str(&after[MODEL], "m"));
    FUZZ_CHECK(after[USAGE].type == PD_JSON_NONE && after[USER].type == PD_JSON_NONE);
    FUZZ_CHECK(pd_str_is(after[N].text, "[1,{}]"));
    FUZZ_CHECK(pd_str_eq(after[ROLE].text, values[ROLE].text));
    pd_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct pd_json_value values[PATHS];
    struct pd_json_error error;
    struct pd_json_limits limits = { .keys = 1 << 20 };
    size_t n;
    char *p = fuzz_rest(&in, &n);
    doc = (struct pd_str){ p, n };
    pd_status status = pd_json_scan(doc, &limits, paths, PATHS, values, &error);
    if (status != PD_OK) {
        FUZZ_CHECK(error.status == status && error.offset <= n && error.text[0] != '\0');
        FUZZ_CHECK(memchr(error.text, '\0', sizeof error.text) != NULL);
    } else {
        walk(&values[ROOT], 0);
        for (size_t i = 0; i < PATHS; i++)
            FUZZ_CHECK(values[i].type == PD_JSON_NONE || fuzz_inside(values[i].text, doc));
        if (values[ROOT].type == PD_JSON_OBJECT) {
            splice(values, false);
            splice(values, true);
        }
    }
    fuzz_back(p, n);
    return 0;
}
