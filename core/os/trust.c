/* SPDX-License-Identifier: Apache-2.0 */
/* The walk to a file that is to be trusted.
 *
 * Each component is opened from the descriptor of the folder that was checked
 * before it and never by following a link: links are read and their text is
 * walked by the same rules.  So nothing can be exchanged between the check and
 * the use of a component, on any kernel. */
#include "os/trust.h"

#include "base/status.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40u
#define SHOWN 200           /* bytes of a path in a hint */

struct walk {
    struct pd_trust *out;
    struct pd_err *err;
    int folder;             /* descriptor of out->real */
    struct stat st;         /* of it */
    unsigned links;
    char left[2 * PATH_MAX]; /* still to walk */
};

static pd_status fail_errno(struct walk *w, const char *verb, const char *path)
{
    int e = errno;
    pd_status status = pd_err_set(w->err, pd_status_from_errno(e), "cannot %s \"%s\": %s", verb, path,
                                  strerror(e));
    pd_err_hint(w->err, "give the path of a file that user %u can read", (unsigned)geteuid());
    return status;
}

static pd_status too_long(struct walk *w)
{
    pd_err_set(w->err, PD_ELIMIT, "the path of a shared object is longer than %d bytes", PATH_MAX - 1);
    pd_err_hint(w->err, "put it nearer to the root of the file system");
    return PD_ELIMIT;
}

static pd_status not_regular(struct walk *w, const char *path)
{
    pd_err_set(w->err, PD_EINVAL, "\"%s\" is not a regular file", path);
    pd_err_hint(w->err, "give the path of the shared object itself");
    return PD_EINVAL;
}

static bool is_of_us(const struct stat *st)
{
    return st->st_uid == 0 || st->st_uid == geteuid();
}

static pd_status check_owner(struct walk *w, const struct stat *st, const char *what, const char *path)
{
    if (is_of_us(st))
        return PD_OK;
    pd_err_set(w->err, PD_EPERM, "%s \"%s\" belongs to user %u, not to root or user %u", what, path,
               (unsigned)st->st_uid, (unsigned)geteuid());
    pd_err_hint(w->err, "if what is in it can be trusted, run chown %u \"%.*s\"", (unsigned)geteuid(), SHOWN,
                path);
    return PD_EPERM;
}

static pd_status check_mode(struct walk *w, const struct stat *st, const char *what, const char *path)
{
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) == 0)
        return PD_OK;
    pd_err_set(w->err, PD_EPERM, "%s \"%s\" is writable for %s (mode %04o)", what, path,
               (st->st_mode & S_IWOTH) != 0 ? "everybody" : "its group", (unsigned)(st->st_mode & 07777));
    pd_err_hint(w->err, "run chmod go-w \"%.*s\"", SHOWN, path);
    return PD_EPERM;
}

/* A folder on the way, before anything in it is looked at. */
static pd_status check_way(struct walk *w)
{
    w->out->is_settled &= is_of_us(&w->st);
    return (w->st.st_mode & S_ISVTX) != 0 ? PD_OK : check_mode(w, &w->st, "folder", w->out->real);
}

/* What stands in a folder where anybody may put something. */
static pd_status check_entry(struct walk *w, const struct stat *st, const char *what, const char *path)
{
    bool is_open = (w->st.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    return is_open ? check_owner(w, st, what, path) : PD_OK;
}

/* ---- one step --------------------------------------------------------------------------- */

static pd_status enter(struct walk *w, const char *name)
{
    int fd = openat(w->folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &w->st) != 0) {
        pd_status status = fail_errno(w, "look at folder", w->out->real);
        pd_fd_close(&fd);
        return status;
    }
    pd_fd_close(&w->folder);
    w->folder = fd;
    return check_way(w);
}

/* Puts what a link says in front of what is left; `real` is without its name. */
static pd_status follow(struct walk *w, int link, const char *path)
{
    char text[PATH_MAX], rest[2 * PATH_MAX];
    ssize_t n = readlinkat(link, "", text, sizeof text - 1);
    if (n < 0)
        return fail_errno(w, "read the symbolic link", path);
    text[n] = '\0';
    if (++w->links > LINKS_MAX) {
        pd_err_set(w->err, PD_ELIMIT, "more than %u symbolic links lead from \"%s\"", LINKS_MAX, path);
        pd_err_hint(w->err, "give the path that the links lead to");
        return PD_ELIMIT;
    }
    memcpy(rest, w->left, sizeof rest);
    int m = snprintf(w->left, sizeof w->left, "%s%s", text, rest);
    if (m < 0 || (size_t)m >= sizeof w->left)
        return too_long(w);
    if (text[0] != '/')
        return PD_OK;
    snprintf(w->out->real, sizeof w->out->real, "/");
    return enter(w, "/");
}

static pd_status up(struct walk *w)
{
    char *slash = strrchr(w->out->real, '/');
    slash[slash == w->out->real] = '\0';
    return enter(w, "..");
}

/* The last component: the folder's rules are strict now. */
static pd_status finish(struct walk *w, const char *name, const char *path)
{
    struct stat st;
    pd_status status = PD_OK;
    /* Not blocking, in case it is a pipe. */
    int fd = openat(w->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        status = fail_errno(w, "open", path);
    else if (!S_ISREG(st.st_mode))
        status = not_regular(w, path);
    else if ((status = check_owner(w, &w->st, "folder", w->out->real)) == PD_OK &&
             (status = check_mode(w, &w->st, "folder", w->out->real)) == PD_OK &&
             (status = check_owner(w, &st, "file", path)) == PD_OK)
        status = check_mode(w, &st, "file", path);
    if (status != PD_OK)
        pd_fd_close(&fd);
    w->out->fd = fd;
    return status;
}

/* Cuts the first component from what is left; false: there is none. */
static bool next(struct walk *w, char *name, size_t size)
{
    size_t from = strspn(w->left, "/"), n = strcspn(w->left + from, "/");
    if (n == 0 || n >= size)
        return false;
    memcpy(name, w->left + from, n);
    name[n] = '\0';
    memmove(w->left, w->left + from + n, strlen(w->left + from + n) + 1);
    return true;
}

static pd_status step(struct walk *w, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    if (strcmp(name, ".") == 0)
        return PD_OK;
    if (strcmp(name, "..") == 0)
        return up(w);
    int n = snprintf(path, sizeof path, "%s%s%s", w->out->real, w->out->real[1] == '\0' ? "" : "/", name);
    if (n < 0 || (size_t)n >= sizeof path)
        return too_long(w);
    int fd = openat(w->folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        pd_status status = fail_errno(w, "open", path);
        pd_fd_close(&fd);
        return status;
    }
    bool is_link = S_ISLNK(st.st_mode), is_folder = S_ISDIR(st.st_mode);
    pd_status status = check_entry(w, &st, is_link ? "symbolic link" : is_folder ? "folder" : "file", path);
    if (status == PD_OK && is_link)
        status = follow(w, fd, path);
    pd_fd_close(&fd);
    if (status != PD_OK || is_link)
        return status;
    if (!is_folder || w->left[strspn(w->left, "/")] == '\0')
        status = finish(w, name, path);
    memcpy(w->out->real, path, (size_t)n + 1);
    return status != PD_OK || !is_folder ? status : enter(w, name);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static pd_status begin(struct walk *w, const char *path)
{
    char here[PATH_MAX] = "";
    if (path[0] != '/' && getcwd(here, sizeof here) == NULL)
        return fail_errno(w, "find the folder of", path);
    int n = snprintf(w->left, sizeof w->left, "%s/%s", here, path);
    if (n < 0 || n >= PATH_MAX)
        return too_long(w);
    snprintf(w->out->real, sizeof w->out->real, "/");
    return enter(w, "/");
}

pd_status pd_trust_open(const char *path, struct pd_err *err, struct pd_trust *out)
{
    struct walk w = { .out = out, .err = err, .folder = AT_FDCWD };
    char name[NAME_MAX + 1];
    out->fd = -1;
    out->is_settled = true;
    pd_status status = begin(&w, path);
    while (status == PD_OK && out->fd < 0 && next(&w, name, sizeof name))
        status = step(&w, name);
    if (status == PD_OK && (out->fd < 0 || w.left[0] != '\0')) {
        status = not_regular(&w, path);
        pd_fd_close(&out->fd);
    }
    pd_fd_close(&w.folder);
    return status;
}
