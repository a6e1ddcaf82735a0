/* SPDX-License-Identifier: Apache-2.0 */
/* Notification and socket activation as systemd defines them. */
#include "loop/service.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/status.h"
#include "base/str.h"
#include "loop/addr.h"

#define FIRST_FD 3              /* SD_LISTEN_FDS_START */

pd_status pd_service_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (path == NULL)
        return PD_OK;
    size_t n = strlen(path);
    if (n < 2 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return PD_EINVAL;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@')
        to.sun_path[0] = '\0'; /* an abstract name */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pd_status_from_errno(errno);
    ssize_t sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&to,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    pd_status status = sent < 0 ? pd_status_from_errno(errno) : PD_OK;
    close(fd);
    return status;
}

static bool listens(int fd, struct pd_addr *addr)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss, flag_len = sizeof(int);
    int flag = 0;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &flag, &flag_len) == 0 && flag != 0 &&
           getsockname(fd, (struct sockaddr *)&ss, &len) == 0 &&
           pd_loop_addr_from_system((struct sockaddr *)&ss, len, addr) == PD_OK;
}

pd_status pd_service_sockets(struct pd_loop_uv_socket *out, size_t cap, size_t *n)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    uint64_t whose, count;
    *n = 0;
    if (pid == NULL || fds == NULL)
        return PD_OK;
    pd_status status = pd_str_parse_u64(pd_str_from(pid), &whose);
    if (status == PD_OK)
        status = pd_str_parse_u64(pd_str_from(fds), &count);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (status != PD_OK || count > 1024)
        return PD_EINVAL;
    if (whose != (uint64_t)getpid())
        return PD_OK;
    for (uint64_t i = 0; i < count && *n < cap; i++) {
        struct pd_loop_uv_socket *s = &out[*n];
        s->fd = FIRST_FD + (int)i;
        if (listens(s->fd, &s->addr))
            ++*n;
    }
    return PD_OK;
}
