/* SPDX-License-Identifier: Apache-2.0 */
/* Levels, names, forms, sinks and rate limits of logs. */
#include "unit.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "log/log.h"

#include <pthread.h>
#include <unistd.h>

static uint64_t clock_now = 1767225600u * PD_SEC + 7 * PD_MS;     /* 2026-01-01 */

static uint64_t fake_wall(void *arg)
{
    return *(uint64_t *)arg;
}

static struct pd_log *make(struct pd_log_config config)
{
    struct pd_log *log = NULL;
    config.sink = PD_LOG_MEMORY;
    config.wall_ns = fake_wall;
    config.wall_arg = &clock_now;
    assert_int_equal(pd_log_create(&config, NULL, &log), PD_OK);
    return log;
}

/* What the log holds must be this; forgets it. */
static void expect(struct pd_log *log, const char *want)
{
    char *got = pd_log_memory(log);
    assert_string_equal(got, want);
    pd_free(got);
    pd_log_memory_clear(log);
}

static void test_text(void **state)
{
    (void)state;
    struct pd_log *log = make((struct pd_log_config){ .level = PD_LOG_NOTICE });
    pd_log_notice(log, "peer \"%s\" is up", "d3");
    expect(log, "2026-01-01T00:00:00.007Z notice: peer \"d3\" is up\n");
    struct pd_log *peer = pd_log_child(log, "peer");
    struct pd_log *deep = pd_log_child(peer, "d3");
    pd_log_error(peer, "x");
    pd_log_warn(deep, "y");
    expect(log,
           "2026-01-01T00:00:00.007Z error peer: x\n2026-01-01T00:00:00.007Z warn peer.d3: y\n");
    pd_log_req(deep, PD_LOG_NOTICE, PD_STR("r-17"), "took %d ms", 3);
    expect(log, "2026-01-01T00:00:00.007Z notice peer.d3: (r-17) took 3 ms\n");
    pd_log_notice(log, "%s", "a\nb\x1b[31m\x7f\xc2\x9b\xff\xc3\xa4\t\"");
    expect(log,
           "2026-01-01T00:00:00.007Z notice: a\\nb\\x1b[31m\\x7f\\xc2\\x9b\\xff\xc3\xa4\\t\"\n");
    pd_log_child_free(deep);
    pd_log_child_free(peer);
    pd_log_child_free(NULL);
    pd_log_destroy(log);

    log = make((struct pd_log_config){ .level = PD_LOG_NOTICE, .hide_time = true, .pid = 12 });
    pd_log_notice(log, "z");
    char *got = pd_log_memory(log);
    assert_int_equal(strncmp(got, "notice [12.", 11), 0);
    pd_free(got);
    pd_log_destroy(log);
    pd_log_destroy(NULL);
}

static int evaluated(int *n)
{
    return ++*n;
}

static void test_levels(void **state)
{
    (void)state;
    struct pd_log *log = make((struct pd_log_config){ .level = PD_LOG_NOTICE, .hide_time = true });
    struct pd_log *tcp = pd_log_child(log, "transport.tcp");
    struct pd_log *other = pd_log_child(log, "transports");
    int n = 0;
    pd_log_info(log, "%d", evaluated(&n));
    pd_log_trace(log, "%d", evaluated(&n));
    pd_log_notice((struct pd_log *)NULL, "%d", evaluated(&n));
    assert_int_equal(n, 0);
    assert_int_equal(pd_log_set_level(log, "transport", PD_LOG_DEBUG), PD_OK);
    pd_log_debug(tcp, "1");
    pd_log_debug(other, "2");
    pd_log_debug(log, "3");
    expect(log, "debug transport.tcp: 1\n");
    assert_int_equal(pd_log_set_level(tcp, "transport.tcp", PD_LOG_ERROR), PD_OK);
    pd_log_warn(tcp, "4");
    struct pd_log *shm = pd_log_child(log, "transport.shm");
    pd_log_debug(shm, "5");
    expect(log, "debug transport.shm: 5\n");
    assert_int_equal(pd_log_set_level(log, NULL, PD_LOG_INFO), PD_OK);
    pd_log_info(tcp, "6");
    pd_log_info(log, "7");
    pd_log_debug(shm, "8");
    expect(log, "info transport.tcp: 6\ninfo: 7\n");
    assert_int_equal(pd_log_set_level(log, NULL, 9), PD_EINVAL);
    char name[32];
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(pd_log_set_level(log, name, PD_LOG_INFO), PD_OK);
    }
    assert_int_equal(pd_log_set_level(log, "more", PD_LOG_INFO), PD_ELIMIT);
    int32_t level;
    assert_int_equal(pd_log_level_parse(PD_STR("warn"), &level), PD_OK);
    assert_int_equal(level, PD_LOG_WARN);
    assert_int_equal(pd_log_level_parse(PD_STR("loud"), &level), PD_EINVAL);
    assert_string_equal(pd_log_level_name(99), "?");
    /* Children that are left go with the root. */
    pd_log_destroy(log);
}

static void test_json(void **state)
{
    (void)state;
    struct pd_log *log =
        make((struct pd_log_config){ .level = PD_LOG_INFO, .is_json = true, .pid = 5 });
    struct pd_log *peer = pd_log_child(log, "peer");
    pd_log_req(peer, PD_LOG_INFO, PD_STR("r\"1"), "a \"b\"\n\xff");
    char *got = pd_log_memory(log);
    static const char *const paths[] = { "time", "level", "pid", "name", "request", "message" };
    struct pd_json_value v[6];
    assert_int_equal(pd_json_scan(pd_str_from(got), NULL, paths, 6, v, NULL), PD_OK);
    assert_true(pd_json_is_str(&v[0], "2026-01-01T00:00:00.007Z"));
    assert_true(pd_json_is_str(&v[1], "info"));
    assert_true(pd_str_is(v[2].text, "5"));
    assert_true(pd_json_is_str(&v[3], "peer"));
    assert_true(pd_json_is_str(&v[4], "r\"1"));
    assert_true(pd_json_is_str(&v[5], "a \"b\"\n\xef\xbf\xbd"));
    assert_non_null(strchr(got, '\n'));
    assert_string_equal(strchr(got, '\n'), "\n");
    pd_free(got);
    pd_log_destroy(log);
}

static void test_rate(void **state)
{
    (void)state;
    struct pd_log *log = make((struct pd_log_config){
        .level = PD_LOG_INFO, .hide_time = true, .rate_lines = 2, .rate_ns = PD_SEC });
    uint64_t start = clock_now;
    for (int i = 0; i < 12; i++) {
        if (i == 10)
            clock_now += PD_SEC;
        pd_log_warn(log, "line %d", i);
        if (i == 4)
            pd_log_warn(log, "other");
    }
    char *got = pd_log_memory(log);
    assert_true(pd_str_starts_with(pd_str_from(got),
                                   PD_STR("warn: line 0\nwarn: line 1\nwarn: other\n"
                                          "warn: 8 similar suppressed (test_log.c:")));
    assert_non_null(strstr(got, ")\nwarn: line 10\nwarn: line 11\n"));
    pd_free(got);
    assert_int_equal(pd_log_suppressed(log), 8);
    pd_log_memory_clear(log);
    for (int i = 0; i < 5; i++)
        pd_log_warn(log, "again %d", i);
    pd_log_memory_clear(log);
    pd_log_flush(log);
    got = pd_log_memory(log);
    assert_int_equal(strncmp(got, "warn: 3 similar suppressed (", 28), 0);
    pd_free(got);
    clock_now = start;
    pd_log_destroy(log);
}

static void test_memory_limit(void **state)
{
    (void)state;
    struct pd_log *log = make((struct pd_log_config){
        .level = PD_LOG_INFO, .hide_time = true, .memory_bytes = 40 });
    for (int i = 0; i < 100; i++)
        pd_log_info(log, "line %d", i);
    expect(log, "info: line 98\ninfo: line 99\n");
    char big[6000];
    memset(big, '\n', sizeof big);
    big[sizeof big - 1] = '\0';
    pd_log_info(log, "%s", big);
    char *got = pd_log_memory(log);
    assert_int_equal(strlen(got), 6 + 4092 * 2 + 3 + 1);
    pd_free(got);
    assert_int_equal(pd_log_lost(log), 0);
    pd_log_destroy(log);
}

static void on_line(void *arg, int32_t level, struct pd_str line)
{
    snprintf((char *)arg, 100, "%d|%.*s", level, PD_STR_ARG(line));
}

static void test_sinks(void **state)
{
    (void)state;
    char seen[100];
    struct pd_log *log;
    struct pd_err err;
    struct pd_log_config config = { .sink = PD_LOG_CALLBACK, .on_line = on_line,
                                    .on_line_arg = seen, .level = PD_LOG_INFO };
    assert_int_equal(pd_log_create(&config, &err, &log), PD_OK);
    pd_log_info(log, "hello");
    assert_string_equal(seen, "3|info: hello");
    assert_null(pd_log_memory(log));
    pd_log_destroy(log);
    config.on_line = NULL;
    assert_int_equal(pd_log_create(&config, &err, &log), PD_EINVAL);

    char path[] = "/tmp/pd-log-XXXXXX";
    char moved[64];
    char text[100] = { 0 };
    close(mkstemp(path));
    snprintf(moved, sizeof moved, "%s.1", path);
    config = (struct pd_log_config){ .sink = PD_LOG_FILE, .path = path, .level = PD_LOG_INFO };
    assert_int_equal(pd_log_create(&config, &err, &log), PD_OK);
    pd_log_info(log, "one");
    assert_int_equal(rename(path, moved), 0);
    pd_log_info(log, "two");
    assert_int_equal(pd_log_reopen(log, &err), PD_OK);
    pd_log_info(log, "three");
    pd_log_destroy(log);
    FILE *f = fopen(moved, "r");
    assert_int_equal(fread(text, 1, sizeof text - 1, f), 20);
    fclose(f);
    assert_string_equal(text, "info: one\ninfo: two\n");
    memset(text, 0, sizeof text);
    f = fopen(path, "r");
    assert_int_equal(fread(text, 1, sizeof text - 1, f), 12);
    fclose(f);
    assert_string_equal(text, "info: three\n");
    unlink(path);
    unlink(moved);
    config.path = "/nonexistent/x/log";
    assert_int_equal(pd_log_create(&config, &err, &log), PD_ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x/log"));
}

/* What cannot be written is counted, and never more than that. */
static void test_lost(void **state)
{
    struct pd_log *log;
    struct pd_err err;
    char name[400];
    (void)state;
    struct pd_log_config config = { .sink = PD_LOG_FILE, .level = PD_LOG_INFO };
    assert_int_equal(pd_log_create(&config, &err, &log), PD_EINVAL);
    config.sink = 99;
    assert_int_equal(pd_log_create(&config, &err, &log), PD_EINVAL);
    config.sink = PD_LOG_FILE;
    config.path = "/dev/full";
    for (uint64_t n = 1; n <= 2; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(pd_log_create(&config, &err, &log), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    if (access(config.path, W_OK) == 0) {
        assert_int_equal(pd_log_create(&config, &err, &log), PD_OK);
        pd_mem_fault_set(1);
        pd_log_info(log, "no memory for a line");
        pd_mem_fault_set(0);
        assert_int_equal(pd_log_lost(log), 1);
        pd_log_info(log, "no room for a line");
        assert_int_equal(pd_log_lost(log), 2);
        pd_log_memory_clear(log);
        assert_int_equal(pd_log_reopen(log, &err), PD_OK);
        pd_log_destroy(log);
    }
    /* In memory: the oldest goes; a line larger than all of it is all there is. */
    log = make((struct pd_log_config){ .level = PD_LOG_INFO, .memory_bytes = 64, .hide_time = true });
    assert_int_equal(pd_log_reopen(log, &err), PD_OK);
    pd_mem_fault_set(1);
    assert_null(pd_log_child(log, "none"));
    pd_mem_fault_set(0);
    pd_mem_fault_set(2);
    pd_log_info(log, "the first");
    pd_mem_fault_set(0);
    assert_int_equal(pd_log_lost(log), 1);
    for (int i = 0; i < 5; i++)
        pd_log_info(log, "a line of some length");
    pd_log_info(log, "%0200d", 1);
    pd_log_info(log, "last");
    char *text = pd_log_memory(log);
    assert_string_equal(text, "info: last\n");
    pd_free(text);
    /* Levels and names that there are not. */
    assert_int_equal(pd_log_set_level(log, "", PD_LOG_ERROR - 1), PD_EINVAL);
    assert_int_equal(pd_log_set_level(log, "", PD_LOG_TRACE + 1), PD_EINVAL);
    assert_int_equal(pd_log_set_level(log, NULL, PD_LOG_DEBUG), PD_OK);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(pd_log_set_level(log, name, PD_LOG_DEBUG), PD_EINVAL);
    struct pd_log *child = pd_log_child(log, name), *below = pd_log_child(child, "below");
    pd_log_info(below, "x");
    pd_log_child_free(below);
    pd_log_child_free(child);
    for (int i = 0; i < 70; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(pd_log_set_level(log, name, PD_LOG_INFO), i < 64 ? PD_OK : PD_ELIMIT);
    }
    assert_int_equal(pd_log_set_level(log, "n3", PD_LOG_ERROR), PD_OK);
    assert_string_equal(pd_log_level_name(-1), "?");
    assert_string_equal(pd_log_level_name(99), "?");
    pd_log_destroy(log);
    pd_log_destroy(NULL);
}

/* A clock that is set back begins a new window; each site has its own. */
static void test_rate_clock(void **state)
{
    (void)state;
    struct pd_log *log = make((struct pd_log_config){ .level = PD_LOG_INFO, .rate_lines = 2, .hide_time = true,
                                                      .memory_bytes = 100000 });
    uint64_t then = clock_now;
    for (int i = 0; i < 12; i++) {
        if (i == 6)
            clock_now -= 1000 * PD_SEC;
        pd_log_info(log, "site one %d", i);
    }
    clock_now += 2 * PD_SEC;
    for (int i = 12; i < 14; i++)
        pd_log_info(log, "site one %d", i);
    char *text = pd_log_memory(log);
    struct pd_str all = pd_str_from(text);
    assert_true(pd_str_find(all, PD_STR("one 1\n")) != PD_STR_NPOS && pd_str_find(all, PD_STR("one 2\n")) == PD_STR_NPOS);
    assert_true(pd_str_find(all, PD_STR("4 similar suppressed (test_log.c:")) != PD_STR_NPOS);
    clock_now = then;
    assert_true(pd_str_find(all, PD_STR("one 7\n")) != PD_STR_NPOS && pd_str_find(all, PD_STR("one 8\n")) == PD_STR_NPOS);
    pd_free(text);
    pd_log_destroy(log);
}

static void *write_many(void *arg)
{
    struct pd_log *child = pd_log_child((struct pd_log *)arg, "t");
    for (int i = 0; i < 500; i++)
        pd_log_info(child, "a line of some length %d", i);
    pd_log_child_free(child);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct pd_log *log = make((struct pd_log_config){ .level = PD_LOG_INFO, .pid = 1 });
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, write_many, log);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    char *got = pd_log_memory(log);
    struct pd_str rest = pd_str_from(got);
    struct pd_str line;
    size_t n = 0;
    while (pd_str_split(&rest, '\n', &line) && line.n != 0) {
        n++;
        assert_true(pd_str_find(line, PD_STR(" t: a line of some length ")) != PD_STR_NPOS);
    }
    assert_int_equal(n, 2000);
    pd_free(got);
    pd_log_destroy(log);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_text),  cmocka_unit_test(test_levels),
    cmocka_unit_test(test_json),  cmocka_unit_test(test_rate),
    cmocka_unit_test(test_memory_limit), cmocka_unit_test(test_sinks),
    cmocka_unit_test(test_threads), cmocka_unit_test(test_lost), cmocka_unit_test(test_rate_clock),
};

PD_UNIT_MAIN(tests)
