/* SPDX-License-Identifier: Apache-2.0 */
/* Calls for files, processes and addresses: what programs ask for at their beginning
 * and end.  Those of the second part fail only for the program and its modules, because
 * libraries of the system do not live without them.
 *
 * PD_FAULT_ROOT names a folder: a file in it is read in place of that of the
 * same path in the system, so that a program meets another machine's /proc. */
#include "inject.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAIL_FILES(what, ...) FAIL_IN(FILES, what, __VA_ARGS__)

/* The path that stands for one in the folder PD_FAULT_ROOT. */
static const char *moved(const char *path, char *out, size_t size)
{
    const char *root = getenv("PD_FAULT_ROOT");
    if (root == NULL || path[0] != '/' || snprintf(out, size, "%s%s", root, path) >= (int)size || access(out, F_OK) != 0)
        return path;
    return out;
}

SHOWN int open(const char *path, int flags, ...)
{
    NEXT(open);
    char other[4096];
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    FAIL_IN(ERRORS, "open", EMFILE, ENFILE, EINTR, ENOMEM);
    return real_open(moved(path, other, sizeof other), flags, mode);
}

/* Of sockets, other calls tell: see inject.c. */
int inject_file_read(void *from)
{
    static const int errors[] = { EIO, EINTR };
    char *object;
    return inject_page->mode == FILES && inject_object(from, &object) != NULL && inject_fails(FILES, "read", errors, 2);
}

int inject_file_write(void *from)
{
    static const int errors[] = { ENOSPC, EINTR, EIO };
    char *object;
    return inject_page->mode == FILES && inject_object(from, &object) != NULL && inject_fails(FILES, "write", errors, 3);
}

SHOWN int fstat(int fd, struct stat *st)
{
    NEXT(fstat);
    FAIL_FILES("fstat", EIO, ENOMEM);
    return real_fstat(fd, st);
}

SHOWN int stat(const char *path, struct stat *st)
{
    NEXT(stat);
    FAIL_FILES("stat", EACCES, ENOENT, EIO);
    return real_stat(path, st);
}

SHOWN int flock(int fd, int operation)
{
    NEXT(flock);
    FAIL_FILES("flock", ENOLCK, EINTR);
    return real_flock(fd, operation);
}

SHOWN int fsync(int fd)
{
    NEXT(fsync);
    FAIL_FILES("fsync", EIO, ENOSPC);
    return real_fsync(fd);
}

SHOWN int rename(const char *from, const char *to)
{
    NEXT(rename);
    FAIL_FILES("rename", EACCES, ENOSPC);
    return real_rename(from, to);
}

SHOWN int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    FAIL_FILES("mkdir", EROFS, ENOSPC);
    return real_mkdir(path, mode);
}

SHOWN ssize_t readlink(const char *path, char *out, size_t n)
{
    NEXT(readlink);
    FAIL_FILES("readlink", ENOENT, EIO);
    return real_readlink(path, out, n);
}

SHOWN int pipe(int ends[2])
{
    NEXT(pipe);
    FAIL_FILES("pipe", EMFILE, ENFILE);
    return real_pipe(ends);
}

SHOWN int socketpair(int domain, int type, int protocol, int ends[2])
{
    NEXT(socketpair);
    FAIL_FILES("socketpair", EMFILE, ENOMEM);
    return real_socketpair(domain, type, protocol, ends);
}

SHOWN int bind(int fd, const struct sockaddr *a, socklen_t n)
{
    NEXT(bind);
    FAIL_FILES("bind", EADDRINUSE, EACCES, EADDRNOTAVAIL);
    return real_bind(fd, a, n);
}

SHOWN int listen(int fd, int n)
{
    NEXT(listen);
    FAIL_FILES("listen", EADDRINUSE, EIO);
    return real_listen(fd, n);
}

SHOWN int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attr, char *const *argv, char *const *env)
{
    NEXT(posix_spawn);
    if (inject_admit(FILES)) {
        inject_note("posix_spawn");
        return EAGAIN;
    }
    return real_posix_spawn(pid, path, actions, attr, argv, env);
}

/* ---- of the program and its modules only */

#define FAIL_OURS(what, ...)                                           \
    do {                                                               \
        char *object;                                                  \
        if (inject_page->mode == FILES && inject_object(__builtin_return_address(0), &object) != NULL) \
            FAIL_FILES(what, __VA_ARGS__);                             \
    } while (0)

SHOWN int fcntl(int fd, int command, ...)
{
    NEXT(fcntl);
    va_list ap;
    va_start(ap, command);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    FAIL_OURS("fcntl", EPERM, EBADF);
    return real_fcntl(fd, command, argument);
}

SHOWN int openat(int folder, const char *path, int flags, ...)
{
    NEXT(openat);
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    FAIL_OURS("openat", EMFILE, EACCES, ENOENT);
    return real_openat(folder, path, flags, mode);
}

SHOWN ssize_t readlinkat(int folder, const char *path, char *out, size_t n)
{
    NEXT(readlinkat);
    FAIL_OURS("readlinkat", EIO, ENOENT);
    return real_readlinkat(folder, path, out, n);
}

SHOWN char *getcwd(char *out, size_t n)
{
    NEXT(getcwd);
    static const int errors[] = { ENOENT, EACCES };
    char *object;
    if (inject_page->mode == FILES && inject_object(__builtin_return_address(0), &object) != NULL &&
        inject_fails(FILES, "getcwd", errors, 2))
        return NULL;
    return real_getcwd(out, n);
}

SHOWN DIR *opendir(const char *path)
{
    NEXT(opendir);
    static const int errors[] = { EMFILE, EACCES };
    char *object;
    if (inject_page->mode == FILES && inject_object(__builtin_return_address(0), &object) != NULL &&
        inject_fails(FILES, "opendir", errors, 2))
        return NULL;
    return real_opendir(path);
}

SHOWN int mkostemp(char *path, int flags)
{
    NEXT(mkostemp);
    FAIL_OURS("mkostemp", EMFILE, ENOSPC, EACCES);
    return real_mkostemp(path, flags);
}

SHOWN int fchmod(int fd, mode_t mode)
{
    NEXT(fchmod);
    FAIL_OURS("fchmod", EPERM, EIO);
    return real_fchmod(fd, mode);
}

SHOWN int lchown(const char *path, uid_t user, gid_t group)
{
    NEXT(lchown);
    FAIL_OURS("lchown", EPERM, EROFS);
    return real_lchown(path, user, group);
}

SHOWN int getrlimit(__rlimit_resource_t resource, struct rlimit *out)
{
    NEXT(getrlimit);
    FAIL_OURS("getrlimit", EPERM);
    return real_getrlimit(resource, out);
}

SHOWN int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    NEXT(setrlimit);
    FAIL_OURS("setrlimit", EPERM);
    return real_setrlimit(resource, limit);
}

SHOWN int initgroups(const char *user, gid_t group)
{
    NEXT(initgroups);
    FAIL_OURS("initgroups", EPERM, ENOMEM);
    return real_initgroups(user, group);
}

SHOWN int setgroups(size_t n, const gid_t *groups)
{
    NEXT(setgroups);
    FAIL_OURS("setgroups", EPERM, ENOMEM);
    return real_setgroups(n, groups);
}

SHOWN int setresgid(gid_t a, gid_t b, gid_t c)
{
    NEXT(setresgid);
    FAIL_OURS("setresgid", EPERM, EAGAIN);
    return real_setresgid(a, b, c);
}

SHOWN int setresuid(uid_t a, uid_t b, uid_t c)
{
    NEXT(setresuid);
    FAIL_OURS("setresuid", EPERM, EAGAIN);
    return real_setresuid(a, b, c);
}

SHOWN int prctl(int option, ...)
{
    NEXT(prctl);
    unsigned long v[4];
    va_list ap;
    va_start(ap, option);
    for (int i = 0; i < 4; i++)
        v[i] = va_arg(ap, unsigned long);
    va_end(ap);
    FAIL_OURS("prctl", EINVAL, EPERM);
    return real_prctl(option, v[0], v[1], v[2], v[3]);
}

SHOWN int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    NEXT(sigaction);
    FAIL_OURS("sigaction", EPERM);
    return real_sigaction(number, action, old);
}

/* A wait that does not block is not interrupted. */
SHOWN pid_t waitpid(pid_t pid, int *status, int options)
{
    NEXT(waitpid);
    if ((options & WNOHANG) == 0)
        FAIL_OURS("waitpid", EINTR);
    return real_waitpid(pid, status, options);
}

SHOWN ssize_t process_vm_readv(pid_t pid, const struct iovec *to, unsigned long n_to, const struct iovec *from,
                               unsigned long n_from, unsigned long flags)
{
    NEXT(process_vm_readv);
    FAIL_OURS("process_vm_readv", EPERM, ENOSYS, EFAULT);
    return real_process_vm_readv(pid, to, n_to, from, n_from, flags);
}

SHOWN int gethostname(char *out, size_t n)
{
    NEXT(gethostname);
    FAIL_OURS("gethostname", ENAMETOOLONG, EPERM);
    return real_gethostname(out, n);
}

SHOWN int uname(struct utsname *out)
{
    NEXT(uname);
    FAIL_OURS("uname", EPERM);
    return real_uname(out);
}

SHOWN int getrusage(__rusage_who_t who, struct rusage *out)
{
    NEXT(getrusage);
    FAIL_OURS("getrusage", EPERM);
    return real_getrusage(who, out);
}

SHOWN int sched_getaffinity(pid_t pid, size_t n, cpu_set_t *out)
{
    NEXT(sched_getaffinity);
    FAIL_OURS("sched_getaffinity", EPERM);
    return real_sched_getaffinity(pid, n, out);
}

SHOWN long sysconf(int name)
{
    NEXT(sysconf);
    FAIL_OURS("sysconf", EINVAL);
    return real_sysconf(name);
}

SHOWN int getloadavg(double *out, int n)
{
    NEXT(getloadavg);
    FAIL_OURS("getloadavg", ENOENT);
    return real_getloadavg(out, n);
}
