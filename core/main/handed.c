/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's side of what the manager hands over: listening sockets that
 * outlive workers, and the descriptor to say "ready" on.  Without a manager the
 * service manager of the machine takes its place. */
#include "main/handed.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "loop/addr.h"
#include "loop/service.h"
#include "os/fd.h"

static pd_status sockets_read(struct pd_handed *out, const char *text)
{
    struct pd_str rest = pd_str_from(text), part;
    while (rest.n > 0 && pd_str_split(&rest, ',', &part)) {
        uint64_t fd;
        size_t eq = pd_str_find_char(part, '=');
        if (eq == PD_STR_NPOS || out->n_sockets == PD_HANDED_MAX ||
            pd_str_parse_u64(pd_str_sub(part, 0, eq), &fd) != PD_OK || fd > INT32_MAX)
            return PD_EINVAL;
        struct pd_loop_uv_socket *s = &out->sockets[out->n_sockets];
        s->fd = (int)fd;
        if (pd_loop_addr_parse(pd_str_sub(part, eq + 1, part.n), &s->addr) != PD_OK ||
            pd_fd_set_cloexec(s->fd, true) != PD_OK)
            return PD_EINVAL;
        out->n_sockets++;
    }
    return PD_OK;
}

pd_status pd_handed_read(struct pd_handed *out)
{
    const char *sockets = getenv(PD_HANDED_SOCKETS), *ready = getenv(PD_HANDED_READY);
    const char *replaces = getenv(PD_HANDED_REPLACES);
    uint64_t fd;
    memset(out, 0, sizeof *out);
    out->ready_fd = -1;
    out->replaces = replaces != NULL && strcmp(replaces, "1") == 0;
    if (ready == NULL)
        return pd_service_sockets(out->sockets, PD_HANDED_MAX, &out->n_sockets);
    if (pd_str_parse_u64(pd_str_from(ready), &fd) != PD_OK || fd > INT32_MAX)
        return PD_EINVAL;
    out->ready_fd = (int)fd;
    pd_fd_set_cloexec(out->ready_fd, true);
    return sockets == NULL ? PD_OK : sockets_read(out, sockets);
}

void pd_handed_ready(struct pd_handed *handed)
{
    if (handed->ready_fd < 0) {
        pd_service_notify("READY=1\nSTATUS=serving");
        return;
    }
    pd_fd_write_all(handed->ready_fd, "1", 1);
    close(handed->ready_fd);
    handed->ready_fd = -1;
}
