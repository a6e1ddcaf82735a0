/* SPDX-License-Identifier: Apache-2.0 */
/* Files, descriptors, pid files, loading and process facts of core/os. */
#include "unit.h"

#include "base/str.h"
#include "os/dl.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/pidfile.h"
#include "os/proc.h"
#include "os/signal.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[16][256];
    static int at;
    at = (at + 1) % 16;
    snprintf(path[at], sizeof path[at], "%s/%s", dir, name);
    return path[at];
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
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void test_file(void **state)
{
    (void)state;
    struct pd_buf b;
    struct pd_err err;
    pd_buf_init(&b, 100000);
    const char *path = in_dir("file");
    assert_int_equal(pd_file_read(path, 10, &b, &err), PD_ENOENT);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(pd_file_write(path, PD_STR("0123456789"), 0600, &err), PD_OK);
    assert_int_equal(pd_file_read(path, 9, &b, &err), PD_ELIMIT);
    assert_int_equal(b.n, 0);
    assert_int_equal(pd_file_read(path, 10, &b, &err), PD_OK);
    assert_true(pd_str_is(pd_buf_str(&b), "0123456789"));
    assert_int_equal(pd_file_write(path, PD_STR("new"), 0644, &err), PD_OK);
    pd_buf_clear(&b);
    assert_int_equal(pd_file_read(path, 10, &b, NULL), PD_OK);
    assert_true(pd_str_is(pd_buf_str(&b), "new"));
    assert_int_equal(pd_file_read(dir, 10, &b, &err), PD_EINVAL);
    assert_int_equal(pd_file_write(in_dir("no/where"), PD_STR(""), 0600, &err), PD_ENOENT);
    assert_true(pd_file_exists(path));
    assert_false(pd_file_is_dir(path));
    assert_int_equal(pd_file_mkdir(in_dir("x/y//z"), 0755, &err), PD_OK);
    assert_int_equal(pd_file_mkdir(in_dir("x/y//z"), 0755, &err), PD_OK);
    assert_true(pd_file_is_dir(in_dir("x/y/z")));
    assert_true(pd_file_mkdir(in_dir("file/x"), 0755, &err) != PD_OK);
    assert_int_equal(pd_file_mkdir(path, 0755, &err), PD_EEXIST);
    pd_buf_fini(&b);
}

static void test_secret(void **state)
{
    (void)state;
    struct pd_buf b;
    struct pd_err err;
    const char *path = in_dir("secret");
    pd_buf_init(&b, 1000);
    assert_int_equal(pd_file_write(path, PD_STR("key\n"), 0600, &err), PD_OK);
    assert_int_equal(pd_file_read_secret(path, 100, &b, &err), PD_OK);
    assert_true(pd_str_is(pd_buf_str(&b), "key"));
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(pd_file_read_secret(path, 100, &b, &err), PD_OK);
    static const mode_t bad[] = { 0644, 0660, 0601, 0700, 04600 };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(chmod(path, bad[i]), 0);
        assert_int_equal(pd_file_read_secret(path, 100, &b, &err), PD_EPERM);
        assert_non_null(strstr(err.text, "0640"));
    }
    pd_buf_fini(&b);
}

static void test_fd(void **state)
{
    (void)state;
    int before = pd_fd_count();
    int p[2];
    assert_int_equal(pipe(p), 0);
    assert_int_equal(pd_fd_count(), before + 2);
    assert_int_equal(pd_fd_set_cloexec(p[0], true), PD_OK);
    assert_true((fcntl(p[0], F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(pd_fd_set_nonblock(p[0], true), PD_OK);
    assert_true((fcntl(p[0], F_GETFL) & O_NONBLOCK) != 0);
    assert_int_equal(pd_fd_set_nonblock(p[0], false), PD_OK);
    assert_true((fcntl(p[0], F_GETFL) & O_NONBLOCK) == 0);
    assert_int_equal(pd_fd_write_all(p[1], "abc", 3), PD_OK);
    assert_int_equal(pd_signal_ignore(SIGPIPE), PD_OK);
    pd_fd_close(&p[0]);
    pd_fd_close(&p[0]);
    assert_int_equal(p[0], -1);
    assert_int_equal(pd_fd_write_all(p[1], "abc", 3), PD_EPEER);
    pd_fd_close(&p[1]);
    assert_int_equal(pd_fd_count(), before);
    assert_true(pd_fd_set_nonblock(-1, true) < 0);
    uint64_t limit = 0;
    assert_int_equal(pd_fd_raise_limit(&limit), PD_OK);
    assert_true(limit >= 64);
}

static void test_pidfile(void **state)
{
    (void)state;
    struct pd_pidfile *pidfile;
    struct pd_pidfile *second;
    struct pd_err err;
    pid_t pid = 0;
    const char *path = in_dir("pid");
    assert_int_equal(pd_pidfile_read(path, &pid), PD_ENOENT);
    assert_int_equal(pd_file_write(path, PD_STR("99999\n"), 0644, &err), PD_OK);
    assert_int_equal(pd_pidfile_read(path, &pid), PD_ENOENT);
    assert_int_equal(pd_pidfile_open(path, &err, &pidfile), PD_OK);
    assert_int_equal(pd_pidfile_open(path, &err, &second), PD_EBUSY);
    assert_int_equal(pd_pidfile_read(path, &pid), PD_OK);
    assert_int_equal(pid, getpid());
    pd_pidfile_close(pidfile);
    assert_false(pd_file_exists(path));
    pd_pidfile_close(NULL);
    assert_int_equal(pd_pidfile_open(in_dir("no/pid"), &err, &pidfile), PD_ENOENT);
}

static void test_dl(void **state)
{
    (void)state;
    struct pd_dl *dl;
    struct pd_err err;
    const char *path = in_dir("mod.so");
    assert_int_equal(pd_dl_open(path, &err, &dl), PD_ENOENT);
    assert_int_equal(pd_dl_check(dir, &err), PD_EINVAL);
    assert_non_null(strstr(err.text, "regular file"));
    assert_int_equal(pd_file_write(path, PD_STR("not an object"), 0755, &err), PD_OK);
    assert_int_equal(pd_dl_check(path, &err), PD_OK);
    assert_int_equal(pd_dl_open(path, &err, &dl), PD_EINVAL);
    assert_int_equal(chmod(path, 0775), 0);
    assert_int_equal(pd_dl_open(path, &err, &dl), PD_EPERM);
    assert_non_null(strstr(err.text, "writable for its group"));
    assert_int_equal(chmod(path, 0757), 0);
    assert_int_equal(pd_dl_open(path, &err, &dl), PD_EPERM);
    assert_non_null(strstr(err.text, "writable for everybody"));
    assert_non_null(strstr(err.hint, "chmod"));
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(pd_dl_open(path, &err, &dl), PD_EPERM);
    assert_non_null(strstr(err.text, "folder"));
    assert_int_equal(chmod(dir, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 12345), 0);
        assert_int_equal(pd_dl_open(path, &err, &dl), PD_EPERM);
        assert_non_null(strstr(err.text, "12345"));
    }
    assert_int_equal(pd_dl_open_system("libm.so.6", &err, &dl), PD_OK);
    assert_non_null(pd_dl_symbol(dl, "cos"));
    assert_null(pd_dl_symbol(dl, "no_such_symbol"));
    assert_int_equal(pd_dl_open_system("libnosuch.so.99", &err, &dl), PD_EINVAL);
    assert_int_equal(pd_dl_open_system("./x.so", &err, &dl), PD_EINVAL);
}

static void test_proc(void **state)
{
    (void)state;
    char name[256];
    assert_true(pd_proc_cpus() >= 1);
    assert_true(pd_proc_rss_bytes() > 100000);
    assert_true(pd_proc_memory_bytes() > pd_proc_rss_bytes());
    assert_true(pd_proc_threads() >= 1);
    pd_proc_cpu_time();
    assert_int_equal(pd_proc_hostname(name, sizeof name), PD_OK);
    assert_true(name[0] != '\0');
    assert_int_equal(pd_proc_hostname(name, 0), PD_EINVAL);
}

static void test_signal(void **state)
{
    (void)state;
    sigset_t old;
    sigset_t now;
    assert_string_equal(pd_signal_name(SIGTERM), "TERM");
    assert_string_equal(pd_signal_name(9999), "?");
    assert_int_equal(pd_signal_block_all(&old), PD_OK);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    assert_true(sigismember(&now, SIGTERM));
    assert_false(sigismember(&now, SIGSEGV));
    assert_int_equal(pd_signal_restore(&old), PD_OK);

    int p[2];
    assert_int_equal(pipe(p), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(p[1], STDERR_FILENO);
        pd_signal_report_crashes();
        raise(SIGFPE);
        _exit(0);
    }
    close(p[1]);
    char text[4096];
    size_t n = 0;
    for (ssize_t got; (got = read(p[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(p[0]);
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGFPE);
    assert_non_null(strstr(text, "crashed by signal FPE"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_file, setup, teardown),
    cmocka_unit_test_setup_teardown(test_secret, setup, teardown),
    cmocka_unit_test(test_fd),
    cmocka_unit_test_setup_teardown(test_pidfile, setup, teardown),
    cmocka_unit_test_setup_teardown(test_dl, setup, teardown),
    cmocka_unit_test(test_proc),
    cmocka_unit_test(test_signal),
};

PD_UNIT_MAIN(tests)
