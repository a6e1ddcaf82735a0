/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors: flags, counts and complete writes. */
#include "os/fd.h"

#include "base/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

static pd_status set_flag(int fd, int get, int set, int flag, bool on)
{
    int flags = fcntl(fd, get);
    if (flags < 0 || fcntl(fd, set, on ? flags | flag : flags & ~flag) < 0)
        return pd_status_from_errno(errno);
    return PD_OK;
}

pd_status pd_fd_set_cloexec(int fd, bool on)
{
    return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

pd_status pd_fd_set_nonblock(int fd, bool on)
{
    return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

/* The descriptor of the listing itself is not counted. */
int pd_fd_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    if (dir == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n - 1;
}

pd_status pd_fd_raise_limit(uint64_t *out)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return pd_status_from_errno(errno);
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            return pd_status_from_errno(errno);
    }
    *out = limit.rlim_cur;
    return PD_OK;
}

uint64_t pd_fd_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX
                                                                                   : limit.rlim_cur;
}

pd_status pd_fd_write_all(int fd, const void *p, size_t n)
{
    const char *s = (const char *)p;
    while (n != 0) {
        ssize_t sent = write(fd, s, n);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = { fd, POLLOUT, 0 };
            if (poll(&wait, 1, -1) < 0 && errno != EINTR)
                return pd_status_from_errno(errno);
        } else if (sent < 0 && errno != EINTR) {
            return pd_status_from_errno(errno);
        } else if (sent > 0) {
            s += sent;
            n -= (size_t)sent;
        }
    }
    return PD_OK;
}

void pd_fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
