/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's side of what it shares with its manager: listening sockets that
 * outlive workers, and the descriptor to tell news on.  Without a manager the
 * service manager of the machine takes its place. */
#include "main/handed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "base/str.h"
#include "loop/addr.h"
#include "loop/hand.h"
#include "loop/service.h"
#include "os/fd.h"
#include "os/file.h"

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
    out->manager = -1;
    out->replaces = replaces != NULL && strcmp(replaces, "1") == 0;
    if (ready == NULL) {
        pd_status status = pd_service_sockets(out->sockets, PD_HANDED_MAX, &out->n_sockets);
        out->n_kept = out->n_sockets;
        return status;
    }
    if (pd_str_parse_u64(pd_str_from(ready), &fd) != PD_OK || fd > INT32_MAX)
        return PD_EINVAL;
    out->manager = (int)fd;
    pd_fd_set_cloexec(out->manager, true);
    pd_status status = sockets == NULL ? PD_OK : sockets_read(out, sockets);
    out->n_kept = out->n_sockets;
    return status;
}

static pd_status socket_add(struct pd_handed *h, const char *text, struct pd_err *err)
{
    struct pd_addr addr;
    pd_status status = pd_loop_addr_parse(pd_str_from(text), &addr);
    if (status != PD_OK)
        return PD_OK; /* the node says what is wrong with it */
    if (addr.family != PD_AF_UNIX && addr.port == 0)
        return PD_OK; /* each worker takes a port of its own */
    for (size_t i = 0; i < h->n_sockets; i++) {
        if (pd_addr_equal(&h->sockets[i].addr, &addr))
            return PD_OK;
    }
    if (h->n_sockets == PD_HANDED_MAX)
        return pd_err_set(err, PD_ELIMIT, "a node can listen on %u addresses", PD_HANDED_MAX);
    struct pd_loop_uv_socket *s = &h->sockets[h->n_sockets];
    status = pd_loop_uv_bind(&addr, &s->fd);
    if (status != PD_OK)
        return pd_err_set(err, status, "cannot listen on %s: %s", text,
                          status == PD_EBUSY ? "the address is in use" : pd_status_text(status));
    s->addr = addr;
    h->n_sockets++;
    return PD_OK;
}

pd_status pd_handed_claim(struct pd_handed *handed, const struct pd_conf_list *listen,
                          const char *control, struct pd_err *err)
{
    char path[256];
    pd_status status = PD_OK;
    for (uint64_t i = 0; i < listen->count && status == PD_OK; i++)
        status = socket_add(handed, PD_CONF_ITEM(listen, struct pd_node_listen_conf, i)->address, err);
    if (status != PD_OK || control == NULL || (status = pd_file_parent_make(control, err)) != PD_OK)
        return status;
    snprintf(path, sizeof path, "unix:%s", control);
    return socket_add(handed, path, err);
}

/* A manager that is gone needs no news. */
static void tell(struct pd_handed *h, const char *text, int fd)
{
    if (h->manager >= 0)
        (void)pd_hand_send(h->manager, text, fd);
}

void pd_handed_ready(struct pd_handed *h)
{
    tell(h, "ready", -1);
    if (h->manager < 0)
        pd_service_notify("READY=1\nSTATUS=serving");
}

void pd_handed_reloading(struct pd_handed *h)
{
    if (h->manager < 0)
        pd_service_notify("RELOADING=1");
}

void pd_handed_reloaded(struct pd_handed *h)
{
    tell(h, "reloaded", -1);
    if (h->manager < 0)
        pd_service_notify("READY=1\nSTATUS=serving");
}

void pd_handed_refused(struct pd_handed *h, const char *why)
{
    char text[PD_HAND_MAX + 1];
    snprintf(text, sizeof text, "refused %s", why);
    tell(h, text, -1);
    if (h->manager < 0)
        pd_service_notify("READY=1\nSTATUS=serving; the last reload was refused, see the log");
}

static struct pd_loop_uv_socket *find(struct pd_handed *h, const struct pd_addr *addr)
{
    for (size_t i = 0; i < h->n_sockets; i++) {
        if (pd_addr_equal(&h->sockets[i].addr, addr))
            return &h->sockets[i];
    }
    return NULL;
}

void pd_handed_open(struct pd_handed *h, struct pd_loop *loop, const struct pd_node_conf *c)
{
    for (uint64_t i = 0; i < c->listen.count && h->manager >= 0; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        struct pd_loop_uv_socket *s = &h->sockets[h->n_sockets];
        if (h->n_sockets == PD_HANDED_MAX || pd_loop_addr_parse(pd_str_from(l->address), &s->addr) != PD_OK ||
            (s->addr.family != PD_AF_UNIX && s->addr.port == 0) || find(h, &s->addr) != NULL ||
            pd_loop_uv_bind(&s->addr, &s->fd) != PD_OK)
            continue;
        pd_fd_set_cloexec(s->fd, true);
        h->n_sockets++;
    }
    pd_loop_uv_set_sockets(loop, h->sockets, h->n_sockets);
}

static bool is_listed(const struct pd_node_conf *c, const struct pd_addr *addr)
{
    struct pd_addr a;
    for (uint64_t i = 0; i < c->listen.count; i++) {
        const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, i);
        if (pd_loop_addr_parse(pd_str_from(l->address), &a) == PD_OK && pd_addr_equal(&a, addr))
            return true;
    }
    return c->control != NULL && addr->family == PD_AF_UNIX && strcmp(addr->path, c->control) == 0;
}

void pd_handed_keep(struct pd_handed *h, struct pd_loop *loop, const struct pd_node_conf *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < h->n_sockets; i++) {
        struct pd_loop_uv_socket s = h->sockets[i];
        char address[PD_ADDR_TEXT], text[PD_ADDR_TEXT + 8];
        bool stays = is_listed(c, &s.addr);
        pd_loop_addr_format(&s.addr, address, sizeof address);
        snprintf(text, sizeof text, "%s %s", stays ? "open" : "close", address);
        if (!stays || i >= h->n_kept)
            tell(h, text, stays ? s.fd : -1);
        if (stays)
            h->sockets[kept++] = s;
        else
            close(s.fd);
    }
    h->n_sockets = h->n_kept = kept;
    pd_loop_uv_set_sockets(loop, h->sockets, h->n_sockets);
}

void pd_handed_forget(struct pd_handed *h, struct pd_loop *loop)
{
    while (h->n_sockets > h->n_kept)
        close(h->sockets[--h->n_sockets].fd);
    pd_loop_uv_set_sockets(loop, h->sockets, h->n_sockets);
}
