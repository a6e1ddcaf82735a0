/* SPDX-License-Identifier: Apache-2.0 */
/* What core/os says when the system refuses: each call that it makes fails once, with the
 * error that a kernel, a container or a full disk would give. */
#include "unit.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "os/dl.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/pidfile.h"
#include "os/priv.h"
#include "os/proc.h"
#include "os/process.h"
#include "os/signal.h"
#include "os/trust.h"
#include "refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[16][PATH_MAX];
    static int at;
    at = (at + 1) % 16;
    snprintf(path[at], sizeof path[at], "%s/%s", dir, name);
    return path[at];
}

static const char *file_of(const char *name, const char *text)
{
    const char *path = in_dir(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

/* What a child writes at its end is not what was written before. */
static pid_t fork_quietly(void)
{
    fflush(NULL);
    return fork();
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/pd-os-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    refuse_end();
    refuse_move(NULL, NULL);
    pd_mem_fault_set(0);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

/* The expression, while the n-th call fails: it was made, and the result is that. */
#define REFUSED(call, n, error, expression, want)                      \
    do {                                                               \
        refuse(call, n, error);                                        \
        long got_ = (long)(expression);                                \
        assert_true(refuse_end() > 0);                                 \
        assert_int_equal(got_, (long)(want));                          \
    } while (0)

static void test_fd(void **state)
{
    uint64_t limit = 0;
    struct rlimit before, set;
    int p[2];
    (void)state;
    assert_int_equal(pipe(p), 0);
    REFUSED("fcntl", 1, EBADF, pd_fd_set_cloexec(p[0], true), PD_EIO);
    REFUSED("fcntl", 2, EPERM, pd_fd_set_cloexec(p[0], true), PD_EPERM);
    REFUSED("fcntl", 2, EPERM, pd_fd_set_nonblock(p[0], false), PD_EPERM);
    REFUSED("opendir", 1, EMFILE, pd_fd_count(), -1);
    REFUSED("getrlimit", 1, EPERM, pd_fd_raise_limit(&limit), PD_EPERM);
    REFUSED("getrlimit", 1, EPERM, pd_fd_limit() == UINT64_MAX, 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    set = before;
    set.rlim_cur = before.rlim_max > 64 ? 64 : before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &set), 0);
    assert_int_equal(pd_fd_limit(), set.rlim_cur);
    if (set.rlim_cur < set.rlim_max)
        REFUSED("setrlimit", 1, EPERM, pd_fd_raise_limit(&limit), PD_EPERM);
    assert_int_equal(pd_fd_raise_limit(&limit), PD_OK);
    assert_int_equal(limit, before.rlim_max);
    assert_int_equal(pd_fd_raise_limit(&limit), PD_OK);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);

    /* A write that is interrupted goes on, one that would block waits for room. */
    char text[4];
    REFUSED("write", 1, EINTR, pd_fd_write_all(p[1], "abc", 3), PD_OK);
    assert_int_equal(read(p[0], text, sizeof text), 3);
    REFUSED("write", 1, EAGAIN, pd_fd_write_all(p[1], "abc", 3), PD_OK);
    assert_int_equal(read(p[0], text, sizeof text), 3);
    REFUSED("write", 1, ENOSPC, pd_fd_write_all(p[1], "abc", 3), PD_ELIMIT);
    assert_int_equal(pd_fd_write_all(p[1], "", 0), PD_OK);
    close(p[0]);
    close(p[1]);
}

/* Many bytes into a pipe that another process empties: nothing is lost, though the
 * wait is interrupted; and the wait itself can be refused. */
static void test_slow_pipe(void **state)
{
    static char all[300000], seen[300000];
    size_t n = 0;
    int p[2], status;
    (void)state;
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)(i * 7);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(pipe(p), 0);
        assert_int_equal(pd_fd_set_nonblock(p[1], true), PD_OK);
        pid_t pid = fork_quietly();
        if (pid == 0) {
            close(p[0]);
            refuse("poll", 1, round == 0 ? EINTR : ENOMEM);
            pd_status st = pd_fd_write_all(p[1], all, sizeof all);
            bool is_good = refuse_end() == 1 && st == (round == 0 ? PD_OK : PD_ENOMEM);
            exit(is_good ? 0 : 1);
        }
        close(p[1]);
        /* The pipe is full before anything is read, so the other side has to wait. */
        for (int i = 0, have = 0; round == 0 && i < 10000 && have < fcntl(p[0], F_GETPIPE_SZ); i++) {
            assert_int_equal(ioctl(p[0], FIONREAD, &have), 0);
            usleep(1000);
        }
        if (round == 1)
            waitpid(pid, &status, 0);
        n = 0;
        for (ssize_t got; (got = read(p[0], seen + n, sizeof seen - n)) > 0;)
            n += (size_t)got;
        if (round == 0)
            waitpid(pid, &status, 0);
        assert_int_equal(status, 0);
        if (round == 0) {
            assert_int_equal(n, sizeof all);
            assert_memory_equal(seen, all, sizeof all);
        }
        close(p[0]);
    }
}

static void test_file(void **state)
{
    struct pd_buf b;
    struct pd_err err;
    char longer[PATH_MAX + 100];
    const char *path = file_of("file", "0123456789");
    (void)state;
    pd_buf_init(&b, 100000);
    REFUSED("read", 1, EINTR, pd_file_read(path, 100, &b, &err), PD_OK);
    assert_int_equal(b.n, 10);
    pd_buf_clear(&b);
    REFUSED("read", 1, EIO, pd_file_read(path, 100, &b, &err), PD_EIO);
    assert_non_null(strstr(err.text, "cannot read"));
    REFUSED("read", 2, EIO, pd_file_read(path, 100, &b, &err), PD_EIO);
    assert_int_equal(b.n, 0);       /* what had been read is gone again */
    REFUSED("fstat", 1, ENOMEM, pd_file_read(path, 100, &b, &err), PD_ENOMEM);
    assert_non_null(strstr(err.text, "cannot look at"));
    REFUSED("open", 1, EACCES, pd_file_read_secret(path, 100, &b, &err), PD_EPERM);
    pd_buf_fini(&b);
    pd_buf_init(&b, 100000);
    pd_mem_fault_set(1);
    assert_int_equal(pd_file_read(path, 100, &b, &err), PD_ENOMEM);
    pd_mem_fault_set(0);
    assert_non_null(strstr(err.text, path));
    pd_buf_fini(&b);

    /* A file that is replaced has the old content or the new one, and nothing is beside it. */
    static const struct { const char *call, *text; int error; } refusals[] = {
        { "mkostemp", "cannot create", EMFILE }, { "write", "cannot write", ENOSPC }, { "fchmod", "cannot finish", EPERM },
        { "fsync", "cannot finish", EIO },
    };
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        refuse(refusals[i].call, 1, refusals[i].error);
        assert_true(pd_file_write(path, PD_STR("new"), 0600, &err) < 0);
        assert_int_equal(refuse_end(), 1);
        assert_non_null(strstr(err.text, refusals[i].text));
        pd_buf_init(&b, 100);
        assert_int_equal(pd_file_read(path, 100, &b, &err), PD_OK);
        assert_true(pd_str_is(pd_buf_str(&b), "0123456789"));
        pd_buf_fini(&b);
    }
    assert_int_equal(pd_file_mkdir(in_dir("folder/in"), 0755, &err), PD_OK);
    assert_true(pd_file_write(in_dir("folder"), PD_STR("new"), 0600, &err) < 0);
    assert_non_null(strstr(err.text, "cannot replace"));
    memset(longer, 'x', sizeof longer);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(pd_file_write(longer, PD_STR("x"), 0600, &err), PD_EINVAL);
    assert_int_equal(pd_file_mkdir(longer, 0755, &err), PD_EINVAL);
    assert_int_equal(pd_file_mkdir("", 0755, &err), PD_EINVAL);
    assert_int_equal(pd_file_parent_make(longer, &err), PD_OK);      /* its parent is / */
    longer[1000] = '/';
    assert_int_equal(pd_file_parent_make(longer, &err), PD_ELIMIT);
    assert_int_equal(pd_file_parent_make("name", &err), PD_OK);
    assert_int_equal(pd_file_parent_make(in_dir("folder/x"), &err), PD_OK);
    assert_int_equal(pd_file_parent_make(in_dir("made/x"), &err), PD_OK);
    assert_true(pd_file_is_dir(in_dir("made")));
    assert_true(pd_file_parent_make(in_dir("file/x/y"), &err) < 0);
    int n = 0;
    FILE *list = popen(strcat(strcpy(longer, "ls "), dir), "r");
    while (fgets(longer, sizeof longer, list) != NULL)
        n++;
    pclose(list);
    assert_int_equal(n, 3);         /* file, folder and made, and nothing beside them */
}

static void test_secret(void **state)
{
    struct pd_buf b;
    struct pd_err err;
    const char *path = file_of("secret", "key");
    (void)state;
    pd_buf_init(&b, 1000);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(pd_file_read_secret(path, 100, &b, NULL), PD_EPERM);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(pd_file_read_secret(path, 100, &b, &err), PD_OK);
    assert_true(pd_str_is(pd_buf_str(&b), "key"));
    pd_buf_clear(&b);
    assert_int_equal(pd_file_read_secret(path, 2, &b, &err), PD_ELIMIT);
    assert_int_equal(pd_file_read_secret(file_of("secret", ""), 2, &b, &err), PD_OK);
    assert_int_equal(b.n, 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 4711, 0), 0);
        assert_int_equal(pd_file_read_secret(path, 100, &b, &err), PD_EPERM);
        assert_non_null(strstr(err.text, "belongs to user 4711, not to root"));
    }
    pd_buf_fini(&b);
}

static void test_pidfile(void **state)
{
    struct pd_pidfile *f = NULL;
    struct pd_err err;
    const char *path = in_dir("pid");
    pid_t pid = 0;
    (void)state;
    REFUSED("open", 1, EACCES, pd_pidfile_open(path, &err, &f), PD_EPERM);
    REFUSED("flock", 1, ENOLCK, pd_pidfile_open(path, &err, &f), PD_EIO);
    assert_non_null(strstr(err.text, "cannot lock"));
    REFUSED("fstat", 0, EIO, pd_pidfile_open(path, &err, &f), PD_EBUSY);
    assert_non_null(strstr(err.text, "keeps changing"));
    REFUSED("stat", 0, ENOENT, pd_pidfile_open(path, &err, &f), PD_EBUSY);
    REFUSED("ftruncate", 1, EIO, pd_pidfile_open(path, &err, &f), PD_EIO);
    REFUSED("write", 1, ENOSPC, pd_pidfile_open(path, &err, &f), PD_ELIMIT);
    assert_non_null(strstr(err.text, "cannot write"));
    for (uint64_t n = 1; n <= 2; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(pd_pidfile_open(path, &err, &f), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    pd_pidfile_close(NULL);
    /* None of these holds the lock. */
    REFUSED("fstat", 1, EIO, pd_pidfile_open(path, &err, &f), PD_OK);
    assert_int_equal(pd_pidfile_read(path, &pid), PD_OK);
    assert_int_equal(pid, getpid());
    static const char *const wrong[] = { "", "x", "0", "99999999999" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        file_of("pid", wrong[i]);
        assert_int_equal(pd_pidfile_read(path, &pid), PD_EINVAL);
    }
    REFUSED("read", 1, EIO, pd_pidfile_read(path, &pid), PD_EINVAL);
    pd_pidfile_close(f);
    assert_int_equal(pd_pidfile_read(path, &pid), PD_ENOENT);
    file_of("pid", "17");
    assert_int_equal(pd_pidfile_read(path, &pid), PD_ENOENT);      /* nobody holds it */
}

static void test_proc(void **state)
{
    static const char cpu_max[] = "/sys/fs/cgroup/cpu.max", status[] = "/proc/self/status", info[] = "/proc/cpuinfo";
    char text[300], small[4];
    (void)state;
    uint32_t all = 0;
    refuse_move(cpu_max, "/nowhere");
    all = pd_proc_cpus();
    assert_true(all >= 1);
    REFUSED("sched_getaffinity", 1, EPERM, pd_proc_cpus() >= 1, 1);
    /* A limit in parts of a processor counts up; what is no limit, or no number, is none. */
    static const struct { const char *text; uint32_t cpus; } limits[] = {
        { "max 100000\n", 0 }, { "100000 100000\n", 1 }, { "1 100000", 1 }, { "99900000 100000\n", 0 },
        { "100000 0\n", 0 }, { "100000 x\n", 0 }, { "100000\n", 0 }, { "", 0 }, { "0 100000\n", 0 },
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        refuse_move(cpu_max, file_of("max", limits[i].text));
        assert_int_equal(pd_proc_cpus(), limits[i].cpus != 0 ? limits[i].cpus : all);
    }
    refuse_move(status, "/nowhere");
    assert_int_equal(pd_proc_rss_bytes(), 0);
    assert_int_equal(pd_proc_threads(), 0);
    refuse_move(status, file_of("status", "Name:\tx\nVmRSS:\t  12 kB\nThreads:\tmany\n"));
    assert_int_equal(pd_proc_rss_bytes(), 12 * 1024);
    assert_int_equal(pd_proc_threads(), 0);
    refuse_move(status, file_of("status", "Name:\tx\nThreads:"));
    assert_int_equal(pd_proc_rss_bytes(), 0);
    assert_int_equal(pd_proc_threads(), 0);
    refuse_move(info, "/nowhere");
    assert_int_equal(pd_proc_cpu_model(text, sizeof text), PD_ENOENT);
    refuse_move(info, file_of("info", "processor\t: 0\nBogoMIPS\nmodel name\t: A fast one\nmodel name\t: Another\n"));
    assert_int_equal(pd_proc_cpu_model(text, sizeof text), PD_OK);
    assert_string_equal(text, "A fast one");
    assert_int_equal(pd_proc_cpu_model(small, sizeof small), PD_OK);
    assert_string_equal(small, "A f");
    refuse_move(info, file_of("info", "model name\nprocessor: 7\nmodel name:\n"));
    assert_int_equal(pd_proc_cpu_model(text, sizeof text), PD_ENOENT);
    refuse_move(NULL, NULL);
    assert_true(pd_proc_memory_bytes() > 0);
    REFUSED("sysconf", 1, EINVAL, pd_proc_memory_bytes(), 0);
    REFUSED("sysconf", 2, EINVAL, pd_proc_memory_bytes(), 0);
    REFUSED("getrusage", 1, EPERM, pd_proc_cpu_time(), 0);
    REFUSED("getloadavg", 1, ENOENT, pd_proc_load_average() == 0, 1);
    REFUSED("uname", 1, EPERM, pd_proc_kernel(text, sizeof text), PD_ENOENT);
    assert_int_equal(pd_proc_kernel(small, sizeof small), PD_OK);
    assert_int_equal(strlen(small), 3);
    REFUSED("gethostname", 1, EPERM, pd_proc_hostname(text, sizeof text), PD_EPERM);
    memset(text, 'x', sizeof text);
    REFUSED("gethostname", 1, ENAMETOOLONG, pd_proc_hostname(text, sizeof text), PD_OK);
    assert_int_equal(strlen(text), sizeof text - 1);
}

static void test_process(void **state)
{
    char text[PATH_MAX], small[8];
    char *words[] = { (char *)(uintptr_t)"sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)"exit 3", NULL };
    int status = 0;
    pid_t pid = 0;
    (void)state;
    REFUSED("readlink", 1, EACCES, pd_process_self(text, sizeof text), PD_EPERM);
    assert_int_equal(pd_process_self(small, sizeof small), PD_ELIMIT);
    assert_int_equal(pd_process_self(text, sizeof text), PD_OK);
    assert_non_null(strstr(text, "test_os_refused"));

    pd_mem_fault_set(1);
    assert_int_equal(pd_process_spawn("/bin/sh", words, NULL, &pid), PD_ENOMEM);
    pd_mem_fault_set(0);
    assert_int_equal(pd_process_spawn("/nowhere", words, NULL, &pid), PD_ENOENT);
    assert_int_equal(pd_process_run("/nowhere", words, 100, &status), PD_ENOENT);
    assert_int_equal(pd_process_run("/bin/sh", words, 60000, &status), PD_OK);
    assert_string_equal(pd_process_status_text(status, text, sizeof text), "exit status 3");
    words[2] = (char *)(uintptr_t)"exec sleep 1000";
    assert_int_equal(pd_process_run("/bin/sh", words, 20, &status), PD_ETIMEDOUT);
    assert_string_equal(pd_process_status_text(status, text, sizeof text), "signal KILL");
    words[2] = (char *)(uintptr_t)"exec sleep 0.2";
    REFUSED("waitpid", 2, ECHILD, pd_process_run("/bin/sh", words, 60000, &status), PD_EIO);

    /* Whoever waits is interrupted and goes on; nobody is left behind. */
    REFUSED("waitpid", 1, EINTR, pd_process_wait(-1, &status), PD_ENOENT);      /* not that very child */
    assert_int_equal(pd_process_reap(&pid, &status), PD_ENOENT);
    REFUSED("waitpid", 1, EINTR, pd_process_reap(&pid, &status), PD_ENOENT);
    REFUSED("waitpid", 1, EPERM, pd_process_reap(&pid, &status), PD_EPERM);
    words[2] = (char *)(uintptr_t)"kill -TERM $$";
    assert_int_equal(pd_process_spawn("/bin/sh", words, NULL, &pid), PD_OK);
    pid_t child = pid;
    pd_status st;
    while ((st = pd_process_reap(&pid, &status)) == PD_EAGAIN)
        usleep(1000);
    assert_int_equal(st, PD_OK);
    assert_int_equal(pid, child);
    assert_string_equal(pd_process_status_text(status, text, sizeof text), "signal TERM");
    assert_int_equal(pd_process_wait(pid, &status), PD_ENOENT);
    assert_true(pd_process_kill(pid, 0) < 0);
    assert_int_equal(pd_process_kill(getpid(), 0), PD_OK);
}

static void test_environment(void **state)
{
    static const char *const extra[] = { "PD_ONE=1", "PD_TWO=2", NULL };
    char *words[] = { (char *)(uintptr_t)"sh", (char *)(uintptr_t)"-c",
                      (char *)(uintptr_t)"test \"$PD_ONE$PD_TWO$PD_THREE\" = 123", NULL };
    int status = -1;
    pid_t pid;
    (void)state;
    setenv("PD_ONE", "other", 1);
    setenv("PD_THREE", "3", 1);
    assert_int_equal(pd_process_spawn("/bin/sh", words, extra, &pid), PD_OK);
    assert_int_equal(pd_process_wait(pid, &status), PD_OK);
    assert_int_equal(status, 0);
}

static void test_process_read(void **state)
{
    static char here[100][16], there[100][16];
    uint64_t from[100];
    void *to[100];
    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(there[i], sizeof there[i], "n %d", i);
        from[i] = (uint64_t)(uintptr_t)there[i];
        to[i] = here[i];
    }
    refuse("process_vm_readv", 1, EPERM);
    pd_status st = pd_process_read(getpid(), from, to, 100, 16);
    refuse_end();
    assert_int_equal(st, PD_EPERM);
    REFUSED("process_vm_readv", 1, ENOSYS, pd_process_read(getpid(), from, to, 100, 16), PD_ENOSYS);
    REFUSED("process_vm_readv", 2, EFAULT, pd_process_read(getpid(), from, to, 100, 16), PD_EIO);
    st = pd_process_read(getpid(), from, to, 100, 16);
    if (st == PD_EPERM || st == PD_ENOSYS)
        return;                     /* this machine does not allow it */
    assert_int_equal(st, PD_OK);
    assert_memory_equal(here, there, sizeof here);
    from[40] = 16;                  /* nothing is there: a part is read */
    assert_int_equal(pd_process_read(getpid(), from, to, 64, 16), PD_EIO);
}

static void test_priv(void **state)
{
    struct pd_priv p;
    struct pd_err err = { 0 };
    int status;
    (void)state;
    assert_int_equal(pd_priv_find(NULL, NULL, &p, &err), PD_OK);
    assert_false(pd_priv_is_due(&p));
    assert_int_equal(pd_priv_drop(&p, &err), PD_OK);
    assert_int_equal(pd_priv_find("no-such-user-here", NULL, &p, &err), PD_ENOENT);
    assert_non_null(strstr(err.text, "there is no user \"no-such-user-here\""));
    assert_int_equal(pd_priv_find(NULL, "no-such-group-here", &p, &err), PD_ENOENT);
    assert_non_null(strstr(err.text, "there is no group"));
    assert_int_equal(pd_priv_find("root", "root", &p, &err), PD_OK);
    assert_int_equal(p.uid, 0);
    /* Each step that is refused is named, and none is taken for granted. */
    static const struct { const char *call, *text; bool has_user; } steps[] = {
        { "initgroups", "set the groups", true }, { "setgroups", "set the groups", false },
        { "setresgid", "become that group", true }, { "setresuid", "become that user", true },
        { "lchown", "give", true },
    };
    struct pd_priv other = { .is_set = true, .uid = geteuid() + 1, .gid = getegid() + 1 };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        pid_t pid = fork_quietly();
        if (pid == 0) {
            snprintf(other.user, sizeof other.user, "%s", steps[i].has_user ? "root" : "");
            refuse(steps[i].call, 1, EPERM);
            bool is_give = strcmp(steps[i].call, "lchown") == 0;
            pd_status st = is_give ? pd_priv_give(&other, dir, &err) : pd_priv_drop(&other, &err);
            int n = refuse_end();
            /* Who is not root is refused before, by the first step. */
            bool is_good = st == PD_EPERM && err.hint[0] != '\0' &&
                           (geteuid() != 0 || (n == 1 && strstr(err.text, steps[i].text) != NULL));
            exit(is_good ? 0 : 1);
        }
        waitpid(pid, &status, 0);
        assert_int_equal(status, 0);
    }
    pid_t pid = fork_quietly();
    if (pid == 0) {
        p = (struct pd_priv){ .is_set = true, .uid = geteuid(), .gid = getegid() };
        refuse("prctl", 2, EINVAL);
        bool is_good = pd_priv_drop(&p, &err) == PD_EPERM && strstr(err.text, "give up new privileges") != NULL;
        refuse_end();
        is_good = is_good && pd_priv_give(&p, dir, &err) == PD_OK && pd_priv_give(&other, in_dir("none"), &err) == PD_OK;
        is_good = is_good && pd_priv_drop(&p, &err) == PD_OK;
        exit(is_good ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void test_signal(void **state)
{
    (void)state;
    REFUSED("sigaction", 1, EINVAL, pd_signal_ignore(SIGPIPE), PD_EINVAL);
    REFUSED("sigaction", 3, EINVAL, pd_signal_report_crashes(), PD_EINVAL);
    assert_true(pd_signal_ignore(SIGKILL) < 0);
}

static void test_trust(void **state)
{
    struct pd_trust t;
    struct pd_err err = { 0 };
    const char *path = file_of("object.so", "x"), *link = in_dir("link.so");
    char relative[PATH_MAX];
    (void)state;
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(symlink("object.so", link), 0);
    assert_int_equal(pd_trust_open(path, &err, &t), PD_OK);
    close(t.fd);
    /* Whatever step is refused, the file is not given; and no descriptor stays. */
    static const struct { const char *call; int error; } calls[] = { { "openat", EMFILE }, { "fstat", EIO }, { "readlinkat", EIO } };
    int before = pd_fd_count();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        int n = 1;
        for (bool is_over = false; !is_over; n++) {
            refuse(calls[i].call, n, calls[i].error);
            pd_status st = pd_trust_open(link, &err, &t);
            is_over = refuse_end() == 0;
            assert_int_equal(st < 0, !is_over);
            if (is_over)
                close(t.fd);
            else
                assert_true(t.fd < 0 && strstr(err.text, "cannot ") != NULL);
        }
        assert_true(n > 2);
    }
    assert_int_equal(pd_fd_count(), before);
    refuse("getcwd", 1, ENOENT);
    assert_int_equal(pd_trust_open("object.so", &err, &t), PD_ENOENT);
    refuse_end();
    assert_non_null(strstr(err.text, "cannot find the folder of"));
    assert_non_null(getcwd(relative, sizeof relative));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(pd_trust_open("./object.so", &err, &t), PD_OK);
    close(t.fd);
    assert_int_equal(chdir(relative), 0);
}

static void test_dl(void **state)
{
    struct pd_dl *dl = NULL;
    struct pd_err err = { 0 };
    const char *path = file_of("object.so", "no object");
    (void)state;
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(pd_dl_check(path, &err), PD_OK);
    assert_true(pd_dl_check(in_dir("none"), &err) < 0);
    assert_int_equal(pd_dl_open(path, &err, &dl), PD_EINVAL);
    assert_true(err.text[0] != '\0' && err.text[0] != '/');
    assert_int_equal(pd_dl_open_system("a/path", &err, &dl), PD_EINVAL);
    assert_int_equal(pd_dl_open_system("libnone-such.so.0", &err, &dl), PD_EINVAL);
    refuse("dlerror", 1, 0);
    assert_int_equal(pd_dl_open_system("libnone-such.so.0", &err, &dl), PD_EINVAL);
    refuse_end();
    assert_string_equal(err.text, "dlopen failed");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_fd, setup, teardown),
    cmocka_unit_test_setup_teardown(test_slow_pipe, setup, teardown),
    cmocka_unit_test_setup_teardown(test_file, setup, teardown),
    cmocka_unit_test_setup_teardown(test_secret, setup, teardown),
    cmocka_unit_test_setup_teardown(test_pidfile, setup, teardown),
    cmocka_unit_test_setup_teardown(test_proc, setup, teardown),
    cmocka_unit_test_setup_teardown(test_process, setup, teardown),
    cmocka_unit_test_setup_teardown(test_environment, setup, teardown),
    cmocka_unit_test_setup_teardown(test_process_read, setup, teardown),
    cmocka_unit_test_setup_teardown(test_priv, setup, teardown),
    cmocka_unit_test_setup_teardown(test_signal, setup, teardown),
    cmocka_unit_test_setup_teardown(test_trust, setup, teardown),
    cmocka_unit_test_setup_teardown(test_dl, setup, teardown),
};

PD_UNIT_MAIN(tests)
