/* SPDX-License-Identifier: Apache-2.0 */
/* What the owner of a stream may ask of its socket: options, the addresses of both ends,
 * the process behind a unix stream.  A closed stream has none of them: its descriptor may
 * be another's by now.  What means nothing for a unix stream is PD_OK. */
#include "loop/uv_stream_int.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static pd_status set_int(struct uvs *s, int level, int name, uint64_t value)
{
    int v = (int)value;

    if (value > INT32_MAX)
        return PD_EINVAL;
    if (setsockopt(s->fd, level, name, &v, sizeof v) != 0)
        return pd_status_from_errno(errno);
    return PD_OK;
}

pd_status pd_loop_uvs_set_option(struct pd_stream *base, uint32_t opt, uint64_t value)
{
    struct uvs *s = uvs_of(base);
    bool is_tcp = s->family != PD_AF_UNIX;
    struct linger linger = { .l_onoff = value != 0, .l_linger = 0 };
    pd_status st;

    if (s->state == CLOSED)
        return PD_EPEER;
    switch (opt) {
    case PD_STREAM_SNDBUF:
        return set_int(s, SOL_SOCKET, SO_SNDBUF, value);
    case PD_STREAM_RCVBUF:
        return set_int(s, SOL_SOCKET, SO_RCVBUF, value);
    case PD_STREAM_NODELAY:
        return is_tcp ? set_int(s, IPPROTO_TCP, TCP_NODELAY, value != 0) : PD_OK;
    case PD_STREAM_USER_TIMEOUT:
        return is_tcp ? set_int(s, IPPROTO_TCP, TCP_USER_TIMEOUT, value) : PD_OK;
    case PD_STREAM_NOTSENT_LOWAT:
        return is_tcp ? set_int(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value) : PD_OK;
    case PD_STREAM_LINGER_RESET:
        if (setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) != 0)
            return pd_status_from_errno(errno);
        return PD_OK;
    case PD_STREAM_KEEPALIVE:
        if (!is_tcp)
            return PD_OK;
        st = set_int(s, SOL_SOCKET, SO_KEEPALIVE, value != 0);
        if (st == PD_OK && value != 0)
            st = set_int(s, IPPROTO_TCP, TCP_KEEPIDLE, value);
        if (st == PD_OK && value != 0)
            st = set_int(s, IPPROTO_TCP, TCP_KEEPINTVL, value / 3 > 0 ? value / 3 : 1);
        if (st == PD_OK && value != 0)
            st = set_int(s, IPPROTO_TCP, TCP_KEEPCNT, 3);
        return st;
    default:
        return PD_EINVAL;
    }
}

static pd_status get_addr(struct uvs *s, int (*get)(int, struct sockaddr *, socklen_t *),
                          struct pd_addr *out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;

    if (s->state == CLOSED || get(s->fd, (struct sockaddr *)&ss, &len) != 0)
        return PD_EPEER;
    return pd_loop_addr_from_system((struct sockaddr *)&ss, len, out);
}

pd_status pd_loop_uvs_local_addr(struct pd_stream *s, struct pd_addr *out)
{
    return get_addr(uvs_of(s), getsockname, out);
}

pd_status pd_loop_uvs_peer_addr(struct pd_stream *s, struct pd_addr *out)
{
    return get_addr(uvs_of(s), getpeername, out);
}

pd_status pd_loop_uvs_peer_cred(struct pd_stream *base, pid_t *pid, uid_t *uid, gid_t *gid)
{
    struct uvs *s = uvs_of(base);
    struct ucred cred;
    socklen_t len = sizeof cred;

    if (s->family != PD_AF_UNIX)
        return PD_ENOSYS;
    if (s->state == CLOSED || getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
        return PD_EPEER;
    *pid = cred.pid;
    *uid = cred.uid;
    *gid = cred.gid;
    return PD_OK;
}
