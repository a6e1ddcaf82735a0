/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for every kind that can be created: create when memory or descriptors
 * run out, and what an instance costs that has nothing to do. */
#include "conform/conform.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 400, ROUNDS = 8, ATTEMPTS = 5, FREE_MOST = 12 };

/* ---- memory */

static volatile uint64_t failing;   /* the allocation that fails now */

static void on_crash(int number)
{
    static const char head[] = "crashes when an allocation in create fails: number ";
    char digits[24];
    size_t n = sizeof(digits);

    digits[--n] = '\n';
    for (uint64_t v = failing; n > 0; v /= 10) {
        digits[--n] = (char)('0' + v % 10);
        if (v < 10)
            break;
    }
    if (write(STDOUT_FILENO, head, sizeof(head) - 1) > 0 && write(STDOUT_FILENO, digits + n, sizeof(digits) - n) > 0)
        signal(number, SIG_DFL);
    signal(number, SIG_DFL);
    raise(number);
}

static void settle(struct cf_world *w)
{
    for (int i = 0; i < 5; i++)
        cf_turn(w, 0);
}

static void is_told(pd_status st, const struct pd_err *err, const char *when)
{
    CF_NEED(st == PD_ENOMEM || err->text[0] != '\0', "create returns %d without a text %s", st, when);
}

/* One create in which allocation `failing` of n fails. */
static void fail_one(struct cf_world *w, uint64_t n)
{
    struct pd_err err;
    struct cf_inst i;
    pd_status st;

    cf_alloc_begin(failing);
    st = cf_create(w, &i, 0, &err);
    cf_alloc_end();
    if (st == PD_OK) {
        CF_NEED(i.p != NULL, "create returns success and no instance when allocation %llu of %llu fails",
                (unsigned long long)failing, (unsigned long long)n);
        cf_destroy(w, &i);
    } else {
        is_told(st, &err, "when memory is short");
    }
    settle(w);
    CF_NEED(w->host.n_memories == 0, "shared memory is lost when allocation %llu of %llu fails",
            (unsigned long long)failing, (unsigned long long)n);
}

/* Fails each of n allocations in turn, ROUNDS times; the bytes that were lost. */
static uint64_t fail_all(struct cf_world *w, uint64_t n)
{
    uint64_t before = cf_memory(), after;

    for (uint32_t round = 0; round < ROUNDS; round++)
        for (failing = 1; failing <= n; failing += n / MOST + 1)
            fail_one(w, n);
    after = cf_memory();
    return after > before ? after - before : 0;
}

/* Freed memory that the C library keeps for the next use looks used, but that
 * comes to an end: what is lost is lost each time. */
static void run_no_memory(const struct cf_unit *u)
{
    uint64_t n, lost = UINT64_MAX;
    struct cf_world w;
    struct cf_inst i;
    uint32_t fds;

    if (!cf_alloc_can_fail())
        cf_skip("no allocation fails in a build with a sanitizer");
    cf_world_open(&w, u);
    for (int k = 0; k < 2; k++) {       /* what is made once in a process is made */
        cf_create_ok(&w, &i, 0);
        cf_destroy(&w, &i);
    }
    cf_alloc_begin(UINT64_MAX);
    cf_create_ok(&w, &i, 0);
    n = cf_alloc_end();
    cf_destroy(&w, &i);
    settle(&w);
    fds = cf_descriptors();
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGABRT, on_crash);
    for (int k = 0; k < ATTEMPTS && lost >= 16 * ROUNDS; k++)
        lost = fail_all(&w, n);
    CF_NEED(lost < 16 * ROUNDS, "%llu bytes are lost when each of the %llu allocations of create fails once",
            (unsigned long long)(lost / ROUNDS), (unsigned long long)n);
    CF_NEED(cf_descriptors() <= fds, "%u descriptors are lost by a create that fails", cf_descriptors() - fds);
    cf_create_ok(&w, &i, 0);
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

/* ---- descriptors */

void cf_descriptors_leave(uint32_t n)
{
    struct rlimit limit;
    rlim_t fd = 0;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (uint32_t left = n; fd < limit.rlim_max; fd++)
        if (fcntl((int)fd, F_GETFD) < 0 && left-- == 0)
            break;
    limit.rlim_cur = fd;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

void cf_descriptors_all(void)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void create_with(struct cf_world *w, uint32_t left, uint32_t fds)
{
    struct pd_err err;
    struct cf_inst i;
    pd_status st;

    cf_descriptors_leave(left);
    st = cf_create(w, &i, 0, &err);
    if (st == PD_OK) {
        CF_NEED(i.p != NULL, "create returns success and no instance with %u descriptors left", left);
        cf_destroy(w, &i);
    } else {
        is_told(st, &err, "when descriptors are short");
    }
    settle(w);
    cf_descriptors_all();
    CF_NEED(cf_descriptors() <= fds, "%u descriptors are lost by a create with %u left", cf_descriptors() - fds, left);
    cf_create_ok(w, &i, 0);             /* it is as before */
    cf_destroy(w, &i);
    settle(w);
}

static void run_no_descriptors(const struct cf_unit *u)
{
    uint64_t lost = UINT64_MAX;
    struct cf_world w;
    struct cf_inst i;
    uint32_t fds;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    cf_destroy(&w, &i);
    settle(&w);
    cf_descriptors_all();
    fds = cf_descriptors();
    for (int k = 0; k < ATTEMPTS && lost >= 128; k++) {
        uint64_t before = cf_memory(), after;
        for (uint32_t left = 0; left <= FREE_MOST; left++)
            create_with(&w, left, fds);
        after = cf_memory();
        lost = after > before ? after - before : 0;
    }
    CF_NEED(lost < 128, "%llu bytes are lost when descriptors are short", (unsigned long long)lost);
    cf_world_close(&w);
}

/* ---- nothing to do */

static pd_time cpu_time(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return (pd_time)t.tv_sec * PD_SEC + (pd_time)t.tv_nsec;
}

/* Threads of the module count, too.  A burst that has another reason is not
 * there again a little later. */
void cf_need_idle(struct cf_world *w, uint32_t wakes_most, const char *what)
{
    enum { TRIES = 4 };
    const pd_time span = 500 * PD_MS;
    uint32_t wakes = 0;
    pd_time cpu = 0;

    for (int k = 0; k < 20; k++)
        cf_turn(w, 5 * PD_MS);
    for (int k = 0; k < TRIES; k++) {
        pd_time begin = pd_loop_clock(w->loop), now, used = cpu_time();
        wakes = 0;
        while ((now = pd_loop_clock(w->loop)) - begin < span && wakes < 100000) {
            cf_turn(w, span - (now - begin));
            wakes++;
        }
        wakes--;                        /* the one at the end */
        cpu = cpu_time() - used;
        if (wakes <= wakes_most && cpu < span / 100)
            return;
    }
    CF_NEED(wakes <= wakes_most, "%s wakes the loop %u times in half a second, %u are allowed", what, wakes,
            wakes_most);
    CF_NEED(cpu < span / 100, "%s takes %llu us of processor time in half a second, 5000 are allowed", what,
            (unsigned long long)(cpu / PD_US));
}

static void run_idle(const struct cf_unit *u)
{
    struct cf_world w;
    struct cf_inst i;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    cf_need_idle(&w, 5, "an instance with nothing to do");
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

const struct cf_case cf_shortage_cases[] = {
    { "no_memory", "each allocation of create fails in turn: an error, and nothing is lost", run_no_memory },
    { "no_descriptors", "create with few descriptors left: an error that is told, and nothing is lost",
      run_no_descriptors },
    { "idle", "an instance with nothing to do wakes nobody", run_idle },
    { NULL, NULL, NULL },
};
