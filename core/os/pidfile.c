/* SPDX-License-Identifier: Apache-2.0 */
/* The pid file.  The lock on it, not its content, tells whether the process
 * lives, so a file left behind by a crash is taken over without guessing. */
#include "os/pidfile.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct pd_pidfile {
    int fd;
    char *path;
};

static pd_status fail_errno(struct pd_err *err, const char *verb, const char *path)
{
    int e = errno;
    return pd_err_set(err, pd_status_from_errno(e), "cannot %s pid file \"%s\": %s", verb, path,
                      strerror(e));
}

/* Opens and locks; tries again when the file was removed in between. */
static pd_status open_locked(const char *path, struct pd_err *err, int *out)
{
    for (int attempt = 0; attempt < 10; attempt++) {
        struct stat by_fd;
        struct stat by_path;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
            return fail_errno(err, "open", path);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            pd_status status =
                errno == EWOULDBLOCK
                    ? pd_err_set(err, PD_EBUSY, "pid file \"%s\" belongs to a running process",
                                 path)
                    : fail_errno(err, "lock", path);
            close(fd);
            return status;
        }
        if (fstat(fd, &by_fd) == 0 && stat(path, &by_path) == 0 && by_fd.st_ino == by_path.st_ino &&
            by_fd.st_dev == by_path.st_dev) {
            *out = fd;
            return PD_OK;
        }
        close(fd);
    }
    return pd_err_set(err, PD_EBUSY, "pid file \"%s\" keeps changing", path);
}

pd_status pd_pidfile_open(const char *path, struct pd_err *err, struct pd_pidfile **out)
{
    char text[32];
    int fd = -1;
    pd_status status = open_locked(path, err, &fd);
    if (status != PD_OK)
        return status;
    struct pd_pidfile *pidfile = (struct pd_pidfile *)pd_calloc(1, sizeof *pidfile);
    char *copy = pd_strdup(path);
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (pidfile == NULL || copy == NULL)
        status = pd_err_set(err, PD_ENOMEM, "out of memory");
    else if (ftruncate(fd, 0) != 0 || pd_fd_write_all(fd, text, (size_t)n) != PD_OK)
        status = fail_errno(err, "write", path);
    if (status != PD_OK) {
        pd_free(pidfile);
        pd_free(copy);
        close(fd);
        return status;
    }
    pidfile->fd = fd;
    pidfile->path = copy;
    *out = pidfile;
    return PD_OK;
}

void pd_pidfile_close(struct pd_pidfile *pidfile)
{
    if (pidfile == NULL)
        return;
    unlink(pidfile->path);
    close(pidfile->fd);
    pd_free(pidfile->path);
    pd_free(pidfile);
}

pd_status pd_pidfile_read(const char *path, pid_t *out)
{
    char text[32];
    uint64_t pid;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pd_status_from_errno(errno);
    /* Who can lock it is not in the company of its owner. */
    bool is_free = flock(fd, LOCK_SH | LOCK_NB) == 0;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    if (is_free)
        return PD_ENOENT;
    if (n <= 0 || pd_str_parse_u64(pd_str_trim(pd_str_of(text, (size_t)n)), &pid) != PD_OK ||
        pid == 0 || pid > INT32_MAX)
        return PD_EINVAL;
    *out = (pid_t)pid;
    return PD_OK;
}
