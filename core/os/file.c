/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and replacing whole files, with texts that name the file. */
#include "os/file.h"

#include "base/status.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 16384

static pd_status fail_errno(struct pd_err *err, const char *verb, const char *path)
{
    int e = errno;
    return pd_err_set(err, pd_status_from_errno(e), "cannot %s \"%s\": %s", verb, path,
                      strerror(e));
}

static pd_status read_fd(int fd, const char *path, size_t limit, struct pd_buf *out,
                         struct pd_err *err)
{
    size_t got = 0;
    for (;;) {
        /* One byte above the limit tells a file that is too large. */
        char chunk[READ_BYTES];
        size_t want = limit - got < sizeof chunk ? limit - got + 1 : sizeof chunk;
        ssize_t n = read(fd, chunk, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, "read", path);
        if (n == 0)
            return PD_OK;
        got += (size_t)n;
        if (got > limit)
            return pd_err_set(err, PD_ELIMIT, "\"%s\" has more than %zu bytes", path, limit);
        pd_status status = pd_buf_append(out, chunk, (size_t)n);
        if (status != PD_OK)
            return pd_err_set(err, status, "cannot read \"%s\": %s", path, pd_status_text(status));
    }
}

static pd_status open_read(const char *path, struct pd_err *err, int *fd, struct stat *st)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return fail_errno(err, "open", path);
    pd_status status = PD_OK;
    if (fstat(*fd, st) != 0)
        status = fail_errno(err, "look at", path);
    else if (!S_ISREG(st->st_mode) && !S_ISFIFO(st->st_mode) && !S_ISCHR(st->st_mode))
        status = pd_err_set(err, PD_EINVAL, "\"%s\" is not a file", path);
    if (status != PD_OK)
        pd_fd_close(fd);
    return status;
}

pd_status pd_file_read(const char *path, size_t limit, struct pd_buf *out, struct pd_err *err)
{
    struct stat st;
    int fd;
    size_t before = out->n;
    pd_status status = open_read(path, err, &fd, &st);
    if (status != PD_OK)
        return status;
    status = read_fd(fd, path, limit, out, err);
    pd_fd_close(&fd);
    if (status != PD_OK)
        pd_buf_truncate(out, before);
    return status;
}

pd_status pd_file_read_secret(const char *path, size_t limit, struct pd_buf *out,
                              struct pd_err *err)
{
    struct stat st;
    int fd;
    size_t before = out->n;
    pd_status status = open_read(path, err, &fd, &st);
    if (status != PD_OK)
        return status;
    if (st.st_uid != 0 && st.st_uid != geteuid()) {
        status = pd_err_set(err, PD_EPERM,
                            "secret \"%s\" belongs to user %u, not to root or user %u",
                            path, (unsigned)st.st_uid, (unsigned)geteuid());
    } else if ((st.st_mode & 07777 & ~(mode_t)0640) != 0) {
        status = pd_err_set(err, PD_EPERM, "secret \"%s\" has mode %04o, which is more than 0640",
                            path, (unsigned)(st.st_mode & 07777));
        if (err != NULL)
            pd_err_hint(err, "run chmod 0600 \"%.200s\"", path);
    } else {
        status = read_fd(fd, path, limit, out, err);
    }
    pd_fd_close(&fd);
    if (status != PD_OK)
        pd_buf_truncate(out, before);
    else if (out->n > before && out->p[out->n - 1] == '\n')
        pd_buf_truncate(out, out->n - 1);
    return status;
}

pd_status pd_file_write(const char *path, struct pd_str content, mode_t mode, struct pd_err *err)
{
    char beside[PATH_MAX];
    int n = snprintf(beside, sizeof beside, "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof beside)
        return pd_err_set(err, PD_EINVAL, "path \"%.100s...\" is too long", path);
    int fd = mkostemp(beside, O_CLOEXEC);
    if (fd < 0)
        return fail_errno(err, "create", beside);
    pd_status status = pd_fd_write_all(fd, content.p, content.n);
    if (status != PD_OK)
        pd_err_set(err, status, "cannot write \"%s\": %s", beside, pd_status_text(status));
    else if (fchmod(fd, mode) != 0 || fsync(fd) != 0)
        status = fail_errno(err, "finish", beside);
    pd_fd_close(&fd);
    if (status == PD_OK && rename(beside, path) != 0)
        status = fail_errno(err, "replace", path);
    if (status != PD_OK)
        unlink(beside);
    return status;
}

bool pd_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool pd_file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

pd_status pd_file_mkdir(const char *path, mode_t mode, struct pd_err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return pd_err_set(err, PD_EINVAL, "the path of a folder is empty or too long");
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return fail_errno(err, "make folder", part);
        part[i] = kept;
    }
    if (!pd_file_is_dir(path))
        return pd_err_set(err, PD_EEXIST, "\"%s\" is there but is not a folder", path);
    return PD_OK;
}

pd_status pd_file_parent_make(const char *path, struct pd_err *err)
{
    char folder[512];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return PD_OK;
    if ((size_t)(slash - path) >= sizeof folder)
        return pd_err_set(err, PD_ELIMIT, "the path %s is too long", path);
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    return pd_file_is_dir(folder) ? PD_OK : pd_file_mkdir(folder, 0755, err);
}
