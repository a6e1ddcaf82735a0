/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that the process asks for: connections that go out, and sockets that somebody
 * else has connected.
 *
 * Nothing is told from inside the call: a connect that fails at once is told by the
 * stream's task.  A descriptor that comes to nothing is closed here. */
#include "loop/uv_stream_int.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Gives a socket the next of the addresses that connections go out from.  The
 * port is chosen at connect, so that each pair of addresses has all ports. */
static pd_status bind_source(struct uvl *l, int fd, const struct pd_addr *to)
{
    struct sockaddr_storage ss;
    struct pd_addr from;
    size_t len;
    int one = 1;

    if (l->n_sources == 0 || to->family != PD_AF_IPV4)
        return PD_OK;
    from = l->sources[l->next_source++ % l->n_sources];
    from.port = 0;
    len = pd_loop_addr_to_system(&from, &ss);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    return bind(fd, (struct sockaddr *)&ss, (socklen_t)len) == 0 ? PD_OK : pd_status_from_errno(errno);
}

pd_status pd_loop_uvl_connect(struct pd_loop *loop, const struct pd_addr *to,
                              const struct pd_stream_events *ev, void *arg, struct pd_stream **out)
{
    struct uvl *l = uvl_of(loop);
    struct sockaddr_storage ss;
    size_t len = pd_loop_addr_to_system(to, &ss);
    struct uvs *s;
    pd_status st;
    int fd, r, one = 1;

    if (len == 0 || ev == NULL)
        return PD_EINVAL;
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pd_status_from_errno(errno);
    if (to->family != PD_AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    st = bind_source(l, fd, to);
    if (st != PD_OK) {
        close(fd);
        return st;
    }
    st = pd_loop_uvs_make(l, fd, to->family, CONNECTING, ev, arg, &s);
    if (st != PD_OK)
        return st;
    do
        r = connect(fd, (struct sockaddr *)&ss, (socklen_t)len);
    while (r != 0 && errno == EINTR);
    if (r != 0 && errno != EINPROGRESS) {
        /* A full backlog of a unix listener says EAGAIN; for us it is no peer. */
        s->failure = errno == EAGAIN ? PD_EPEER : pd_status_from_errno(errno);
        pd_loop_uvl_defer(loop, &s->task);
    }
    pd_loop_uvs_watch(s);
    *out = &s->base;
    return PD_OK;
}

static pd_status socket_family(int fd, uint16_t *family)
{
    int domain = 0, type = 0;
    socklen_t len = sizeof domain;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0)
        return PD_EINVAL;
    len = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
        return PD_EINVAL;
    *family = domain == AF_UNIX ? PD_AF_UNIX
            : domain == AF_INET ? PD_AF_IPV4
            : domain == AF_INET6 ? PD_AF_IPV6 : PD_AF_NONE;
    return *family == PD_AF_NONE ? PD_EINVAL : PD_OK;
}

pd_status pd_loop_uvl_adopt(struct pd_loop *loop, int fd, const struct pd_stream_events *ev,
                            void *arg, struct pd_stream **out)
{
    struct uvs *s;
    uint16_t family;
    pd_status st = ev != NULL ? socket_family(fd, &family) : PD_EINVAL;
    int one = 1;

    if (st == PD_OK && ioctl(fd, FIONBIO, &one) != 0)
        st = pd_status_from_errno(errno);
    if (st != PD_OK) {
        close(fd);
        return st;
    }
    if (family != PD_AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    st = pd_loop_uvs_make(uvl_of(loop), fd, family, OPEN, ev, arg, &s);
    if (st != PD_OK)
        return st;
    pd_loop_uvs_watch(s);
    *out = &s->base;
    return PD_OK;
}
