/* SPDX-License-Identifier: Apache-2.0 */
/* pdfuzzsim: runs random topologies, loads and faults from seeds in the
 * simulator and judges them by the laws.
 *
 *   pdfuzzsim --seed N [--trace FILE] [--debug]     one seed, its plan and verdict
 *   pdfuzzsim --seeds A..B [--twice]                many; failing ones are shrunk
 *   pdfuzzsim --list FILE                           the seeds of a file, one a line
 *   pdfuzzsim --tap                                 as a test: the list, then
 *                                                   PD_FUZZ_SEEDS seeds from 1
 *
 * Seeds run in child processes, fifty in each: a crash or a hang costs one
 * seed, and nodes that were killed leave their memory behind. */
#include "fuzz.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seeds of a test run unless PD_FUZZ_SEEDS says otherwise: about a minute.
 * With sanitizers each seed has a process, in which leaks are looked for. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
enum { BATCH = 1, TEST_SEEDS = 200 };
#else
enum { BATCH = 50, TEST_SEEDS = 2000 };
#endif
/* A seed takes a twentieth of a second of processor time and never waits. The
 * second limit is for one that waits all the same; a campaign at idle priority
 * may be held up for minutes. */
enum { HANG_CPU_SECONDS = 120, HANG_SECONDS = 3600 };

struct options {
    uint64_t first, last;
    const char *trace, *list;
    bool is_debug, is_twice, is_tap, no_shrink, is_quiet;
};

struct totals {
    uint64_t seeds, bad, ok, failed, aborted, faults;
    uint64_t seen[FUZZ_SEEN_N];
    double virtual_s, real_s;
};

static struct fuzz_cases cases;
static struct fuzz_env env;
static char folder[256], model[512];

static double real_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- children ------------------------------------------------------------------ */

static bool read_all(int fd, void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(fd, (char *)p + at, n - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

static void died(struct fuzz_result *out, int status)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    memset(out, 0, sizeof *out);
    snprintf(out->law, sizeof out->law, "%s", sig == SIGALRM || sig == SIGPROF ? "hang" : "crash");
    if (sig == SIGPROF)
        snprintf(out->text, sizeof out->text, "it did not end in %d s of processor time", HANG_CPU_SECONDS);
    else if (sig == SIGALRM)
        snprintf(out->text, sizeof out->text, "it did not end in %d s of real time", HANG_SECONDS);
    else
        snprintf(out->text, sizeof out->text, "the process died (signal %d, status %d)", sig,
                 WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Plans for one child: plan(i) for i from 0 to n - 1, until one fails. */
struct job {
    void (*plan)(void *arg, uint32_t i, struct fuzz_plan *out);
    void *arg;
    uint32_t n;
    bool is_twice;
};

/* Memory that nothing points to any more, if no node was killed. */
static void leaks_find(struct fuzz_result *r)
{
#if defined(__SANITIZE_ADDRESS__)
    if (r->is_whole && r->law[0] == '\0' && __lsan_do_recoverable_leak_check() != 0) {
        snprintf(r->law, sizeof r->law, "leak");
        snprintf(r->text, sizeof r->text, "memory was left; the report is on standard error");
    }
#else
    (void)r;
#endif
}

static void child(const struct job *job, int fd)
{
    static struct fuzz_plan p;
    static struct fuzz_result r, again;
    for (uint32_t i = 0; i < job->n; i++) {
        const struct itimerval limit = { .it_value.tv_sec = HANG_CPU_SECONDS };
        alarm(HANG_SECONDS);
        setitimer(ITIMER_PROF, &limit, NULL);
        job->plan(job->arg, i, &p);
        fuzz_run(&p, &cases, &env, &r);
        if (job->is_twice && r.law[0] == '\0') {
            fuzz_run(&p, &cases, &env, &again);
            if (again.hash != r.hash) {
                snprintf(r.law, sizeof r.law, "hash");
                snprintf(r.text, sizeof r.text, "the same seed gave two event logs");
            }
        }
        leaks_find(&r);
        if (write(fd, &r, sizeof r) != (ssize_t)sizeof r || r.law[0] != '\0')
            break;
    }
    if (env.trace != NULL)
        fclose(env.trace);
    _exit(0);
}

/* Runs a child; returns how many results `out` has. */
static uint32_t children(const struct job *job, struct fuzz_result *out)
{
    int fd[2], status = 0;
    uint32_t n = 0;
    fflush(NULL);
    if (pipe(fd) != 0)
        abort();
    pid_t pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        close(fd[0]);
        child(job, fd[1]);
    }
    close(fd[1]);
    while (n < job->n && read_all(fd[0], &out[n], sizeof out[n])) {
        n++;
        if (out[n - 1].law[0] != '\0')
            break;
    }
    close(fd[0]);
    waitpid(pid, &status, 0);
    if (n < job->n && (n == 0 || out[n - 1].law[0] == '\0'))
        died(&out[n++], status);
    return n;
}

/* ---- shrinking -------------------------------------------------------------------- */

static void plan_copy(void *arg, uint32_t i, struct fuzz_plan *out)
{
    (void)i;
    *out = *(struct fuzz_plan *)arg;
}

static bool still_fails(struct fuzz_plan *p, const char *law, struct fuzz_result *r)
{
    static struct fuzz_result now;
    struct job job = { plan_copy, p, 1, false };
    children(&job, &now);
    if (strcmp(now.law, law) != 0)
        return false;
    *r = now;
    return true;
}

/* Leaves out faults and requests one by one while the same law is broken. */
static void shrink(struct fuzz_plan *p, struct fuzz_result *r)
{
    char law[sizeof r->law];
    bool was_better = true;
    snprintf(law, sizeof law, "%s", r->law);
    for (int round = 0; round < 4 && was_better; round++) {
        was_better = false;
        for (uint32_t i = 0; i < p->n_faults + p->n_reqs; i++) {
            bool *off = i < p->n_faults ? &p->faults[i].is_off : &p->reqs[i - p->n_faults].is_off;
            if (*off)
                continue;
            *off = true;
            if (still_fails(p, law, r))
                was_better = true;
            else
                *off = false;
        }
        for (uint32_t i = 0; i < p->n_reqs; i++) {
            pd_time was = p->reqs[i].abort_after;
            if (p->reqs[i].is_off || was == 0)
                continue;
            p->reqs[i].abort_after = 0;
            if (still_fails(p, law, r))
                was_better = true;
            else
                p->reqs[i].abort_after = was;
        }
    }
}

/* ---- seeds ------------------------------------------------------------------------- */

static void plan_seed(void *arg, uint32_t i, struct fuzz_plan *out)
{
    const uint64_t *seeds = arg;
    fuzz_plan_make(out, seeds[i], &cases);
}

static void report(uint64_t seed, struct fuzz_result *r, const struct options *o)
{
    struct fuzz_plan p;
    fuzz_plan_make(&p, seed, &cases);
    printf("# seed %" PRIu64 " breaks %s %s\n", seed, r->law, r->text);
    fflush(stdout);
    if (o->no_shrink)
        return;
    shrink(&p, r);
    printf("# shrunk to: %s %s\n", r->law, r->text);
    fuzz_plan_print(&p, &cases, stdout);
    fflush(stdout);
}

static void progress(const struct totals *t, const struct options *o, uint64_t all)
{
    if (o->is_tap || o->is_quiet || !isatty(2))
        return;
    fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " seeds, %" PRIu64 " bad, %.0f x real time ", t->seeds, all, t->bad,
            t->real_s > 0 ? t->virtual_s / t->real_s : 0);
}

static void run_seeds(const uint64_t *seeds, uint64_t n, const struct options *o, struct totals *t)
{
    static struct fuzz_result results[BATCH];
    double begin = real_now(), before = t->real_s;
    for (uint64_t at = 0; at < n;) {
        uint32_t want = n - at < BATCH ? (uint32_t)(n - at) : BATCH;
        struct job job = { plan_seed, (void *)(uintptr_t)(seeds + at), want, o->is_twice };
        uint32_t got = children(&job, results);
        for (uint32_t i = 0; i < got; i++) {
            struct fuzz_result *r = &results[i];
            t->seeds++;
            t->ok += r->ok;
            t->failed += r->failed;
            t->aborted += r->aborted;
            t->faults += r->faults;
            for (uint32_t k = 0; k < FUZZ_SEEN_N; k++)
                t->seen[k] += r->seen[k];
            t->virtual_s += (double)r->virtual_ns / 1e9;
            t->real_s = before + real_now() - begin;
            if (r->law[0] != '\0') {
                double away = real_now();
                t->bad++;
                report(seeds[at + i], r, o);
                begin += real_now() - away; /* shrinking does not count */
            }
        }
        at += got;
        progress(t, o, n);
    }
}

static void say(const struct totals *t, const char *what)
{
    printf("# %s: %" PRIu64 " seeds, %" PRIu64 " bad; answers: %" PRIu64 " right, %" PRIu64 " failed honestly, %" PRIu64
           " aborted; %" PRIu64 " faults; %.0f virtual s in %.1f s: %.0f x real time\n",
           what, t->seeds, t->bad, t->ok, t->failed, t->aborted, t->faults, t->virtual_s, t->real_s,
           t->real_s > 0 ? t->virtual_s / t->real_s : 0);
    printf("# seen:");
    for (uint32_t i = 0; i < FUZZ_SEEN_N; i++)
        printf("%s %" PRIu64 " %s", i > 0 ? "," : "", t->seen[i], fuzz_seen_name(i));
    printf("\n");
    fflush(stdout);
}

static uint64_t *list_read(const char *path, uint64_t *n)
{
    static uint64_t seeds[4096];
    char line[512];
    FILE *f = fopen(path, "r");
    *n = 0;
    if (f == NULL) {
        fprintf(stderr, "pdfuzzsim: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    while (*n < 4096 && fgets(line, sizeof line, f) != NULL) {
        char *end;
        uint64_t seed = strtoull(line, &end, 10);
        if (end != line)
            seeds[(*n)++] = seed;
    }
    fclose(f);
    return seeds;
}

static int run_range(const struct options *o, struct totals *t)
{
    enum { CHUNK = 1000 };
    static uint64_t seeds[CHUNK];
    for (uint64_t s = o->first; s <= o->last;) {
        uint32_t n = 0;
        while (n < CHUNK && s <= o->last)
            seeds[n++] = s++;
        run_seeds(seeds, n, o, t);
        if (o->is_quiet)
            say(t, "so far");
    }
    return t->bad != 0;
}

static int run_tap(struct options *o)
{
    const char *src = getenv("PD_SRCDIR"), *count = getenv("PD_FUZZ_SEEDS");
    struct totals fixed = { 0 }, fresh = { 0 };
    char path[512];
    uint64_t n;
    snprintf(path, sizeof path, "%s/t/sim/seeds", src != NULL ? src : ".");
    uint64_t *seeds = list_read(path, &n);
    printf("1..2\n");
    run_seeds(seeds, n, o, &fixed);
    say(&fixed, "fixed seeds");
    printf("%s 1 - seeds that found a bug once\n", fixed.bad != 0 ? "not ok" : "ok");
    fflush(stdout);
    o->first = 1;
    o->last = count != NULL && *count != '\0' ? strtoull(count, NULL, 10) : TEST_SEEDS;
    run_range(o, &fresh);
    say(&fresh, "seeds");
    printf("%s 2 - random faults break no law\n", fresh.bad != 0 ? "not ok" : "ok");
    return fixed.bad + fresh.bad != 0;
}

/* ---- main ----------------------------------------------------------------------------- */

static void cleanup(void)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    (void)!system(command);
}

/* In a child, so that nothing of the reference run is left in this process
 * but the answers. */
static bool prepare(void)
{
    const char *src = getenv("PD_SRCDIR"), *tmp = getenv("TMPDIR");
    struct fuzz_result r;
    char real[512];
    snprintf(folder, sizeof folder, "%s/pdfuzzsim.XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(folder) == NULL)
        return false;
    snprintf(model, sizeof model, "%s/mini.gguf", folder);
    snprintf(real, sizeof real, "%s/contrib/tinymodel/tiny.gguf", src != NULL ? src : ".");
    if (!fuzz_mini_write(real, model)) {
        fprintf(stderr, "pdfuzzsim: the model cannot be made from %s\n", real);
        return false;
    }
    env.model = model;
    env.folder = folder;
    fuzz_cases_make(&cases);
    if (!fuzz_expect(&cases, &env, &r)) {
        fprintf(stderr, "pdfuzzsim: the run without faults failed: %s %s\n", r.law, r.text);
        return false;
    }
    return true;
}

static int run_one(struct options *o)
{
    static struct fuzz_plan p;
    static struct fuzz_result r;
    struct job job = { plan_copy, &p, 1, o->is_twice };
    double begin = real_now();
    fuzz_plan_make(&p, o->first, &cases);
    fuzz_plan_print(&p, &cases, stdout);
    children(&job, &r);
    printf("# %s %s\n", r.law[0] == '\0' ? "good" : r.law, r.text);
    printf("# hash %016" PRIx64 ", %u right, %u failed, %u aborted, %.1f virtual s in %.3f s\n", r.hash, r.ok,
           r.failed, r.aborted, (double)r.virtual_ns / 1e9, real_now() - begin);
    if (r.law[0] != '\0' && env.trace == NULL)
        report(o->first, &r, o);
    return r.law[0] != '\0';
}

static void usage(void)
{
    fprintf(stderr, "usage: pdfuzzsim --seed N | --seeds A..B | --list FILE | --tap\n"
                    "       [--trace FILE] [--debug] [--twice] [--no-shrink] [--quiet]\n");
    exit(2);
}

static void options_read(int argc, char **argv, struct options *o)
{
    static const struct option rows[] = {
        { "seed", required_argument, NULL, 's' }, { "seeds", required_argument, NULL, 'r' },
        { "list", required_argument, NULL, 'l' }, { "trace", required_argument, NULL, 't' },
        { "tap", no_argument, NULL, 'p' }, { "debug", no_argument, NULL, 'd' },
        { "twice", no_argument, NULL, '2' }, { "no-shrink", no_argument, NULL, 'n' },
        { "quiet", no_argument, NULL, 'q' }, { NULL, 0, NULL, 0 },
    };
    char *end;
    int c;
    while ((c = getopt_long(argc, argv, "", rows, NULL)) != -1) {
        switch (c) {
        case 's':
            o->first = o->last = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            o->first = strtoull(optarg, &end, 10);
            if (strncmp(end, "..", 2) != 0)
                usage();
            o->last = strtoull(end + 2, NULL, 10);
            break;
        case 'l':
            o->list = optarg;
            break;
        case 't':
            o->trace = optarg;
            break;
        case 'p':
            o->is_tap = true;
            break;
        case 'd':
            o->is_debug = true;
            break;
        case '2':
            o->is_twice = true;
            break;
        case 'n':
            o->no_shrink = true;
            break;
        case 'q':
            o->is_quiet = true;
            break;
        default:
            usage();
        }
    }
    /* Automake's test driver gives no arguments. */
    if (o->first == 0 && o->list == NULL)
        o->is_tap = true;
    if (optind < argc)
        usage();
}

int main(int argc, char **argv)
{
    struct options o = { 0 };
    struct totals t = { 0 };
    int rc;
    options_read(argc, argv, &o);
    atexit(cleanup);
    if (!prepare())
        return 1;
    env.is_debug = o.is_debug;
    if (o.trace != NULL && (env.trace = fopen(o.trace, "w")) == NULL) {
        fprintf(stderr, "pdfuzzsim: %s: %s\n", o.trace, strerror(errno));
        return 1;
    }
    if (o.is_tap) {
        rc = run_tap(&o);
    } else if (o.list != NULL) {
        uint64_t n, *seeds = list_read(o.list, &n);
        run_seeds(seeds, n, &o, &t);
        say(&t, "done");
        rc = t.bad != 0;
    } else if (o.first == o.last) {
        rc = run_one(&o);
    } else {
        rc = run_range(&o, &t);
        say(&t, "done");
    }
    return rc;
}
