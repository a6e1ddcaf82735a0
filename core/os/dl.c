/* SPDX-License-Identifier: Apache-2.0 */
/* Loading shared objects.  A module runs with all our rights, so what is loaded
 * must be writable for nobody who does not have them already. */
#include "os/dl.h"

#include "base/status.h"
#include "os/trust.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

pd_status pd_dl_check(const char *path, struct pd_err *err)
{
    struct pd_trust trust;
    pd_status status = pd_trust_open(path, err, &trust);
    if (status == PD_OK)
        close(trust.fd);
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

/* dlopen's texts begin with the path that it was given, which callers say themselves. */
static pd_status open_now(const char *name, struct pd_err *err, struct pd_dl **out)
{
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();
        size_t n = strlen(name);
        if (name[0] == '/' && why != NULL && strncmp(why, name, n) == 0 && strncmp(why + n, ": ", 2) == 0)
            why += n + 2;
        pd_err_set(err, PD_EINVAL, "%s", why == NULL ? "dlopen failed" : why);
        pd_err_hint(err, "file and ldd show whether it is a shared object for this machine and what it "
                         "needs");
        return PD_EINVAL;
    }
    *out = (struct pd_dl *)handle;
    return PD_OK;
}

/* When nobody else can change what the path names, dlopen gets the path, which
 * debuggers and $ORIGIN need.  Otherwise it gets the descriptor, by a name that is
 * good for other processes too; it stays open, because dlopen takes a second
 * object of the same name for the first one.  The comparison afterwards covers a
 * replacement by an upgrade at that very moment, and a system without /proc. */
pd_status pd_dl_open(const char *path, struct pd_err *err, struct pd_dl **out)
{
    struct pd_trust trust;
    char by_fd[64];
    pd_status status = pd_trust_open(path, err, &trust);
    if (status != PD_OK)
        return status;
    snprintf(by_fd, sizeof by_fd, "/proc/%ld/fd/%d", (long)getpid(), trust.fd);
    bool is_by_fd = !trust.is_settled && is_same_file(by_fd, trust.fd);
    status = open_now(is_by_fd ? by_fd : trust.real, err, out);
    if (status == PD_OK && is_by_fd)
        return PD_OK;
    if (status == PD_OK && !is_same_file(trust.real, trust.fd)) {
        status = pd_err_set(err, PD_EBUSY, "\"%s\" changed while it was loaded", path);
        pd_err_hint(err, "try again once whoever replaces it is done");
    }
    close(trust.fd);
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
