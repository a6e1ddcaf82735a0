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
#include "os/trust.h"

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

/* ---- what may be loaded ------------------------------------------------------------------ */

static void tree(const char *name, mode_t mode)
{
    assert_int_equal(mkdir(in_dir(name), 0755), 0);
    assert_int_equal(chmod(in_dir(name), mode), 0);
}

static void object(const char *name)
{
    struct pd_err err;
    assert_int_equal(pd_file_write(in_dir(name), PD_STR("not an object"), 0755, &err), PD_OK);
}

static void trusted(const char *name, const char *real)
{
    struct pd_err err = { 0 };
    struct pd_trust t;
    struct stat a, b;
    if (pd_trust_open(in_dir(name), &err, &t) != PD_OK)
        fail_msg("%s: %s", name, err.text);
    assert_string_equal(t.real, in_dir(real));
    assert_int_equal(fstat(t.fd, &a), 0);
    assert_int_equal(stat(t.real, &b), 0);
    assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev && t.is_settled);
    close(t.fd);
}

static void untrusted(const char *name, pd_status status, const char *why, const char *hint)
{
    struct pd_err err = { 0 };
    struct pd_trust t;
    int fds = pd_fd_count();
    assert_int_equal(pd_trust_open(in_dir(name), &err, &t), status);
    assert_int_equal(pd_trust_open(in_dir(name), NULL, &t), status);
    if (strstr(err.text, why) == NULL || strstr(err.hint, hint) == NULL)
        fail_msg("%s: \"%s\" (%s)", name, err.text, err.hint);
    assert_int_equal(t.fd, -1);
    assert_int_equal(pd_fd_count(), fds);
}

static void test_trust_links(void **state)
{
    char deep[64] = "l0";
    (void)state;
    tree("mods", 0755);
    tree("other", 0755);
    object("other/a.so");
    object("mods/a.so");
    trusted("mods/a.so", "mods/a.so");
    trusted("./mods/.././/mods/a.so", "mods/a.so");
    /* Links lead on, and what they lead to is under the same rules. */
    assert_int_equal(symlink("../other/a.so", in_dir("mods/b.so")), 0);
    assert_int_equal(symlink(in_dir("other"), in_dir("way")), 0);
    trusted("mods/b.so", "other/a.so");
    trusted("way/a.so", "other/a.so");
    assert_int_equal(chmod(in_dir("other/a.so"), 0775), 0);
    untrusted("mods/b.so", PD_EPERM, "other/a.so\" is writable for its group", "chmod go-w");
    assert_int_equal(chmod(in_dir("other/a.so"), 0755), 0);
    assert_int_equal(chmod(in_dir("other"), 0757), 0);
    untrusted("mods/b.so", PD_EPERM, "other\" is writable for everybody", "chmod go-w");
    untrusted("way/a.so", PD_EPERM, "other\" is writable for everybody", "chmod go-w");
    assert_int_equal(chmod(in_dir("other"), 0755), 0);
    /* Nowhere, not to a file, in a circle, and too many of them. */
    assert_int_equal(symlink("gone.so", in_dir("mods/c.so")), 0);
    assert_int_equal(symlink("../other", in_dir("mods/d.so")), 0);
    assert_int_equal(symlink("e.so", in_dir("mods/e.so")), 0);
    untrusted("mods/c.so", PD_ENOENT, "gone.so", "user");
    untrusted("mods/d.so", PD_EINVAL, "not a regular file", "shared object");
    untrusted("mods/e.so", PD_ELIMIT, "more than 40 symbolic links", "links lead to");
    untrusted("mods/a.so/x", PD_EINVAL, "not a regular file", "shared object");
    untrusted("mods", PD_EINVAL, "not a regular file", "shared object");
    assert_int_equal(symlink("mods/a.so", in_dir(deep)), 0);
    for (int i = 1; i <= 40; i++) {
        char to[64];
        snprintf(to, sizeof to, "%s", deep);
        snprintf(deep, sizeof deep, "l%d", i);
        assert_int_equal(symlink(to, in_dir(deep)), 0);
    }
    trusted("l39", "mods/a.so");
    untrusted("l40", PD_ELIMIT, "symbolic links", "");
}

static void test_trust_folders(void **state)
{
    struct pd_trust t;
    struct pd_err err = { 0 };
    (void)state;
    tree("up", 0755);
    tree("up/mods", 0755);
    object("up/mods/a.so");
    trusted("up/mods/a.so", "up/mods/a.so");
    /* A folder further up that others can write, unless what is in it is safe. */
    assert_int_equal(chmod(in_dir("up"), 0777), 0);
    untrusted("up/mods/a.so", PD_EPERM, "up\" is writable for everybody", "chmod go-w");
    assert_int_equal(chmod(in_dir("up"), 0775), 0);
    untrusted("up/mods/a.so", PD_EPERM, "up\" is writable for its group", "chmod go-w");
    assert_int_equal(chmod(in_dir("up"), 01777), 0);
    trusted("up/mods/a.so", "up/mods/a.so");
    /* The folder of the file itself gets no such grace. */
    assert_int_equal(chmod(in_dir("up/mods"), 01777), 0);
    untrusted("up/mods/a.so", PD_EPERM, "mods\" is writable for everybody", "chmod go-w");
    assert_int_equal(chmod(in_dir("up/mods"), 0755), 0);
    if (geteuid() != 0)
        return;
    /* Of another user: the folder and the link in a folder for all, the file and its folder. */
    assert_int_equal(symlink("mods", in_dir("up/way")), 0);
    trusted("up/way/a.so", "up/mods/a.so");
    assert_int_equal(lchown(in_dir("up/way"), 12345, 12345), 0);
    untrusted("up/way/a.so", PD_EPERM, "link \"", "chown 0");
    assert_int_equal(chown(in_dir("up/mods"), 12345, 12345), 0);
    untrusted("up/mods/a.so", PD_EPERM, "belongs to user 12345", "chown 0");
    assert_int_equal(chmod(in_dir("up"), 0755), 0);
    untrusted("up/mods/a.so", PD_EPERM, "folder \"", "chown 0");
    assert_int_equal(chown(in_dir("up/mods"), 0, 0), 0);
    assert_int_equal(chown(in_dir("up/mods/a.so"), 12345, 12345), 0);
    untrusted("up/mods/a.so", PD_EPERM, "a.so\" belongs to user 12345", "chown 0");
    assert_int_equal(chown(in_dir("up/mods/a.so"), 0, 0), 0);
    /* Further up: what is loaded is what was checked, but its name is not settled. */
    assert_int_equal(chown(in_dir("up"), 12345, 12345), 0);
    assert_int_equal(pd_trust_open(in_dir("up/mods/a.so"), &err, &t), PD_OK);
    assert_false(t.is_settled);
    close(t.fd);
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
    cmocka_unit_test_setup_teardown(test_trust_links, setup, teardown),
    cmocka_unit_test_setup_teardown(test_trust_folders, setup, teardown),
    cmocka_unit_test(test_proc),
    cmocka_unit_test(test_signal),
};

PD_UNIT_MAIN(tests)
