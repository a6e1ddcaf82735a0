/* SPDX-License-Identifier: Apache-2.0 */
/* Loading shared objects.  A module runs with all our rights, so what is loaded
 * must be writable for nobody who does not have them already. */
#include "os/dl.h"

#include "base/status.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pd_status fail_errno(struct pd_err *err, const char *path, const char *verb)
{
    int e = errno;
    return pd_err_set(err, pd_status_from_errno(e), "cannot %s \"%s\": %s", verb, path,
                      strerror(e));
}

/* Owner and mode, the same rule for file and folder.  A folder that anybody may
 * write to but whose sticky bit protects entries (like /tmp) is still refused:
 * its entries may have been put there by anybody. */
static pd_status check_owner(const struct stat *st, const char *what, const char *path,
                             struct pd_err *err)
{
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return pd_err_set(err, PD_EPERM, "%s \"%s\" belongs to user %u, not to root or user %u",
                          what, path, (unsigned)st->st_uid, (unsigned)geteuid());
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        pd_err_set(err, PD_EPERM, "%s \"%s\" is writable for %s (mode %04o)", what, path,
                   (st->st_mode & S_IWOTH) != 0 ? "everybody" : "its group",
                   (unsigned)(st->st_mode & 07777));
        return err == NULL ? PD_EPERM : pd_err_hint(err, "run chmod go-w \"%.200s\"", path);
    }
    return PD_OK;
}

static pd_status check_folder(const char *path, struct pd_err *err)
{
    char folder[PATH_MAX];
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else if (slash == path)
        snprintf(folder, sizeof folder, "/");
    else if ((size_t)(slash - path) >= sizeof folder)
        return pd_err_set(err, PD_EINVAL, "the path of a shared object is too long");
    else
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    if (stat(folder, &st) != 0)
        return fail_errno(err, folder, "look at folder");
    return check_owner(&st, "folder", folder, err);
}

/* Opens and checks; *fd is the caller's on success. */
static pd_status open_checked(const char *path, struct pd_err *err, int *fd)
{
    struct stat st;
    /* Not blocking, in case it is a pipe. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return fail_errno(err, path, "open");
    pd_status status;
    if (fstat(*fd, &st) != 0)
        status = fail_errno(err, path, "look at");
    else if (!S_ISREG(st.st_mode))
        status = pd_err_set(err, PD_EINVAL, "\"%s\" is not a regular file", path);
    else
        status = check_owner(&st, "file", path, err);
    if (status == PD_OK)
        status = check_folder(path, err);
    if (status != PD_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

pd_status pd_dl_check(const char *path, struct pd_err *err)
{
    int fd;
    pd_status status = open_checked(path, err, &fd);
    if (status == PD_OK)
        close(fd);
    return status;
}

/* Whether path still names the file behind fd. */
static bool is_same_file(const char *path, int fd)
{
    struct stat a;
    struct stat b;
    return stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static pd_status open_now(const char *name, struct pd_err *err, struct pd_dl **out)
{
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();
        return pd_err_set(err, PD_EINVAL, "%s", why == NULL ? "dlopen failed" : why);
    }
    *out = (struct pd_dl *)handle;
    return PD_OK;
}

/* dlopen gets the path, because debuggers and error texts show it.  In a folder
 * that only root or we may write, nobody else can exchange the file between the
 * check and dlopen; the comparison afterwards covers a replacement by an
 * upgrade at that very moment. */
pd_status pd_dl_open(const char *path, struct pd_err *err, struct pd_dl **out)
{
    char with_dot[PATH_MAX];
    int fd;
    pd_status status = open_checked(path, err, &fd);
    if (status != PD_OK)
        return status;
    /* Without a slash dlopen would search its own path. */
    int n = snprintf(with_dot, sizeof with_dot, "%s%s", strchr(path, '/') == NULL ? "./" : "",
                     path);
    if (n < 0 || (size_t)n >= sizeof with_dot)
        status = pd_err_set(err, PD_EINVAL, "the path of a shared object is too long");
    else
        status = open_now(with_dot, err, out);
    if (status == PD_OK && !is_same_file(path, fd))
        status = pd_err_set(err, PD_EBUSY, "\"%s\" changed while it was loaded", path);
    close(fd);
    return status;
}

pd_status pd_dl_open_system(const char *soname, struct pd_err *err, struct pd_dl **out)
{
    if (strchr(soname, '/') != NULL)
        return pd_err_set(err, PD_EINVAL, "\"%s\" is a path, not the name of a library", soname);
    return open_now(soname, err, out);
}

void *pd_dl_symbol(struct pd_dl *dl, const char *name)
{
    return dlsym(dl, name);
}
