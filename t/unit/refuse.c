/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

static struct {
    const char *call;
    int n, error, seen, failed;
    const char *from, *to;
} plan;

void refuse(const char *call, int n, int error)
{
    plan.call = call;
    plan.n = n;
    plan.error = error;
    plan.seen = plan.failed = 0;
}

int refuse_end(void)
{
    plan.call = NULL;
    return plan.failed;
}

void refuse_move(const char *from, const char *to)
{
    plan.from = from;
    plan.to = to;
}

static bool fails(const char *call)
{
    if (plan.call == NULL || strcmp(plan.call, call) != 0 || (++plan.seen != plan.n && plan.n != 0))
        return false;
    plan.failed++;
    errno = plan.error;
    return true;
}

#define WRAP(type, bad, name, parameters, arguments)                   \
    type __real_##name parameters;                                     \
    type __wrap_##name parameters;                                     \
    type __wrap_##name parameters                                      \
    {                                                                  \
        return fails(#name) ? (bad) : __real_##name arguments;         \
    }

WRAP(DIR *, NULL, opendir, (const char *path), (path))
WRAP(int, -1, getrlimit, (__rlimit_resource_t what, struct rlimit *out), (what, out))
WRAP(int, -1, setrlimit, (__rlimit_resource_t what, const struct rlimit *limit), (what, limit))
WRAP(ssize_t, -1, write, (int fd, const void *p, size_t n), (fd, p, n))
WRAP(ssize_t, -1, read, (int fd, void *p, size_t n), (fd, p, n))
WRAP(int, -1, poll, (struct pollfd *list, nfds_t n, int ms), (list, n, ms))
WRAP(int, -1, fstat, (int fd, struct stat *out), (fd, out))
WRAP(int, -1, stat, (const char *path, struct stat *out), (path, out))
WRAP(int, -1, mkostemp, (char *path, int flags), (path, flags))
WRAP(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, -1, fsync, (int fd), (fd))
WRAP(int, -1, ftruncate, (int fd, off_t n), (fd, n))
WRAP(int, -1, flock, (int fd, int operation), (fd, operation))
WRAP(int, -1, lchown, (const char *path, uid_t user, gid_t group), (path, user, group))
WRAP(int, -1, initgroups, (const char *user, gid_t group), (user, group))
WRAP(int, -1, setgroups, (size_t n, const gid_t *list), (n, list))
WRAP(int, -1, setresgid, (gid_t a, gid_t b, gid_t c), (a, b, c))
WRAP(int, -1, setresuid, (uid_t a, uid_t b, uid_t c), (a, b, c))
WRAP(int, -1, setuid, (uid_t a), (a))
WRAP(int, -1, sched_getaffinity, (pid_t pid, size_t n, cpu_set_t *out), (pid, n, out))
WRAP(long, -1, sysconf, (int name), (name))
WRAP(int, -1, getrusage, (__rusage_who_t who, struct rusage *out), (who, out))
WRAP(int, -1, gethostname, (char *out, size_t n), (out, n))
WRAP(int, -1, getloadavg, (double *out, int n), (out, n))
WRAP(int, -1, uname, (struct utsname *out), (out))
WRAP(ssize_t, -1, readlink, (const char *path, char *out, size_t n), (path, out, n))
WRAP(ssize_t, -1, readlinkat, (int at, const char *path, char *out, size_t n), (at, path, out, n))
WRAP(char *, NULL, getcwd, (char *out, size_t n), (out, n))
WRAP(pid_t, -1, waitpid, (pid_t pid, int *status, int options), (pid, status, options))
WRAP(ssize_t, -1, process_vm_readv,
    (pid_t pid, const struct iovec *to, unsigned long n, const struct iovec *from, unsigned long m, unsigned long flags), (pid, to, n, from, m, flags))
WRAP(int, -1, sigaction, (int number, const struct sigaction *action, struct sigaction *old),
    (number, action, old))
WRAP(char *, NULL, dlerror, (void), ())

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list ap;
    va_start(ap, command);
    long argument = va_arg(ap, long);
    va_end(ap);
    return fails("fcntl") ? -1 : __real_fcntl(fd, command, argument);
}

int __real_prctl(int option, ...);
int __wrap_prctl(int option, ...);
int __wrap_prctl(int option, ...)
{
    unsigned long v[4];
    va_list ap;
    va_start(ap, option);
    for (int i = 0; i < 4; i++)
        v[i] = va_arg(ap, unsigned long);
    va_end(ap);
    return fails("prctl") ? -1 : __real_prctl(option, v[0], v[1], v[2], v[3]);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (plan.from != NULL && strcmp(path, plan.from) == 0)
        path = plan.to;
    return fails("open") ? -1 : __real_open(path, flags, mode);
}

int __real_openat(int at, const char *path, int flags, ...);
int __wrap_openat(int at, const char *path, int flags, ...);
int __wrap_openat(int at, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return fails("openat") ? -1 : __real_openat(at, path, flags, mode);
}
