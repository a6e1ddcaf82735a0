/* SPDX-License-Identifier: Apache-2.0 */
/* Where the serve worker of a node listens, as it is told to others:
 *
 *    magic u32 | version u8 | family u8 | port u16 | ip, 16 bytes
 *
 * little-endian.  Family PD_AF_NONE: at the address that the control connection
 * comes from. */
#include "ucx.h"

#include <arpa/inet.h>
#include <string.h>

#define MAGIC 0x57585044u       /* "DPXW" */
#define VERSION 1u

void pd_ucx_where_encode(const struct pd_ucx_where *w, uint8_t *buf)
{
    memset(buf, 0, PD_UCX_WHERE_BYTES);
    for (uint32_t i = 0; i < 4; i++)
        buf[i] = (uint8_t)(MAGIC >> 8 * i);
    buf[4] = VERSION;
    buf[5] = (uint8_t)w->family;
    buf[6] = (uint8_t)w->port;
    buf[7] = (uint8_t)(w->port >> 8);
    memcpy(buf + 8, w->ip, sizeof(w->ip));
}

pd_status pd_ucx_where_decode(const uint8_t *buf, size_t len, struct pd_ucx_where *w)
{
    uint32_t magic = 0;

    if (len != PD_UCX_WHERE_BYTES)
        return PD_EPROTO;
    for (uint32_t i = 0; i < 4; i++)
        magic |= (uint32_t)buf[i] << 8 * i;
    if (magic != MAGIC || buf[4] != VERSION)
        return PD_EPROTO;
    w->family = buf[5];
    w->port = (uint16_t)(buf[6] | buf[7] << 8);
    memcpy(w->ip, buf + 8, sizeof(w->ip));
    if (w->port == 0 || (w->family != PD_AF_NONE && w->family != PD_AF_IPV4 &&
                         w->family != PD_AF_IPV6))
        return PD_EPROTO;
    return PD_OK;
}

void pd_ucx_where_at(const struct pd_addr *here, const struct pd_addr *told,
                     struct pd_ucx_where *w)
{
    static const uint8_t any[16];
    const struct pd_addr *a = told->family != PD_AF_NONE ? told : here;

    memset(w, 0, sizeof(*w));
    w->family = a->family;
    memcpy(w->ip, a->ip, sizeof(w->ip));
    if (memcmp(w->ip, any, a->family == PD_AF_IPV4 ? 4 : 16) == 0)
        w->family = PD_AF_NONE;
}

socklen_t pd_ucx_sockaddr(const struct pd_addr *a, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof(*out));
    if (a->family == PD_AF_IPV4) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(a->port);
        memcpy(&v4->sin_addr, a->ip, 4);
        return sizeof(*v4);
    }
    if (a->family != PD_AF_IPV6)
        return 0;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(a->port);
    memcpy(&v6->sin6_addr, a->ip, 16);
    return sizeof(*v6);
}

socklen_t pd_ucx_where_sockaddr(const struct pd_ucx_where *w, const struct pd_addr *host,
                                struct sockaddr_storage *out)
{
    struct pd_addr a;

    if (w->family == PD_AF_NONE) {
        a = *host;
    } else {
        memset(&a, 0, sizeof(a));
        a.family = (uint16_t)w->family;
        memcpy(a.ip, w->ip, sizeof(a.ip));
    }
    a.port = w->port;
    return pd_ucx_sockaddr(&a, out);
}

uint16_t pd_ucx_port(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)a)->sin6_port);
    return ntohs(((const struct sockaddr_in *)a)->sin_port);
}
