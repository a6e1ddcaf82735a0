/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: text, struct pd_addr and struct sockaddr, each into each.  A
 * parsed address is complete: family, bytes and port, all other bytes zero,
 * so that two equal addresses are equal bytes. */
#include "loop/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Decimal digits only, at most `max`. */
static pd_status parse_number(const char *p, size_t n, uint32_t max, uint32_t *out)
{
    uint64_t v = 0;

    if (n == 0 || n > 10)
        return PD_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return PD_EINVAL;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    if (v > max)
        return PD_EINVAL;
    *out = (uint32_t)v;
    return PD_OK;
}

pd_status pd_loop_addr_parse_ip(const char *text, uint16_t port, struct pd_addr *out)
{
    struct pd_addr a;
    char buf[INET6_ADDRSTRLEN + 12];
    char *zone;

    memset(&a, 0, sizeof a);
    a.port = port;
    if (inet_pton(AF_INET, text, a.ip) == 1) {
        a.family = PD_AF_IPV4;
        *out = a;
        return PD_OK;
    }
    if (strlen(text) >= sizeof buf)
        return PD_EINVAL;
    strcpy(buf, text);
    zone = strchr(buf, '%');
    if (zone != NULL) {
        *zone++ = '\0';
        if (parse_number(zone, strlen(zone), UINT32_MAX, &a.scope) != PD_OK)
            return PD_EINVAL;
    }
    if (inet_pton(AF_INET6, buf, a.ip) != 1)
        return PD_EINVAL;
    a.family = PD_AF_IPV6;
    *out = a;
    return PD_OK;
}

static pd_status parse_unix(const char *p, size_t n, struct pd_addr *out)
{
    struct pd_addr a;

    if (n == 0 || n >= sizeof a.path || memchr(p, '\0', n) != NULL)
        return PD_EINVAL;
    memset(&a, 0, sizeof a);
    a.family = PD_AF_UNIX;
    memcpy(a.path, p, n);
    *out = a;
    return PD_OK;
}

pd_status pd_loop_addr_parse(struct pd_str text, struct pd_addr *out)
{
    const char *p = text.p, *host = p, *colon = NULL;
    char buf[80];
    size_t n = text.n, host_len;
    uint32_t port;

    if (n > 5 && memcmp(p, "unix:", 5) == 0)
        return parse_unix(p + 5, n - 5, out);
    for (size_t i = n; i > 0 && colon == NULL; i--) {
        if (p[i - 1] == ':')
            colon = p + i - 1;
    }
    if (colon == NULL)
        return PD_EINVAL;
    host_len = (size_t)(colon - p);
    if (parse_number(colon + 1, n - host_len - 1, 65535, &port) != PD_OK)
        return PD_EINVAL;
    if (host_len >= 2 && host[0] == '[') {
        if (host[host_len - 1] != ']')
            return PD_EINVAL;
        host++;
        host_len -= 2;
        if (memchr(host, ':', host_len) == NULL)
            return PD_EINVAL;
    } else if (memchr(host, ':', host_len) != NULL) {
        return PD_EINVAL;
    }
    if (host_len == 0 || host_len >= sizeof buf || memchr(host, '\0', host_len) != NULL)
        return PD_EINVAL;
    memcpy(buf, host, host_len);
    buf[host_len] = '\0';
    return pd_loop_addr_parse_ip(buf, (uint16_t)port, out);
}

size_t pd_loop_addr_format(const struct pd_addr *addr, char *buf, size_t size)
{
    char ip[INET6_ADDRSTRLEN];
    int n;

    switch (addr->family) {
    case PD_AF_UNIX:
        n = snprintf(buf, size, "unix:%.*s", (int)sizeof addr->path - 1, addr->path);
        break;
    case PD_AF_IPV4:
        inet_ntop(AF_INET, addr->ip, ip, sizeof ip);
        n = snprintf(buf, size, "%s:%u", ip, (unsigned)addr->port);
        break;
    case PD_AF_IPV6:
        inet_ntop(AF_INET6, addr->ip, ip, sizeof ip);
        if (addr->scope != 0)
            n = snprintf(buf, size, "[%s%%%u]:%u", ip, (unsigned)addr->scope,
                         (unsigned)addr->port);
        else
            n = snprintf(buf, size, "[%s]:%u", ip, (unsigned)addr->port);
        break;
    default:
        n = snprintf(buf, size, "-");
        break;
    }
    if (n < 0 || size == 0)
        return 0;
    return (size_t)n < size ? (size_t)n : size - 1;
}

size_t pd_loop_addr_to_system(const struct pd_addr *addr, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    switch (addr->family) {
    case PD_AF_UNIX: {
        struct sockaddr_un *un = (struct sockaddr_un *)out;
        size_t n = strnlen(addr->path, sizeof addr->path);
        if (n == 0 || n >= sizeof un->sun_path)
            return 0;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, addr->path, n);
        return offsetof(struct sockaddr_un, sun_path) + n + 1;
    }
    case PD_AF_IPV4: {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons(addr->port);
        memcpy(&in->sin_addr, addr->ip, 4);
        return sizeof *in;
    }
    case PD_AF_IPV6: {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(addr->port);
        in6->sin6_scope_id = addr->scope;
        memcpy(&in6->sin6_addr, addr->ip, 16);
        return sizeof *in6;
    }
    default:
        return 0;
    }
}

pd_status pd_loop_addr_from_system(const struct sockaddr *sa, size_t len, struct pd_addr *out)
{
    memset(out, 0, sizeof *out);
    if (len < sizeof sa->sa_family)
        return PD_EINVAL;
    if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        out->family = PD_AF_IPV4;
        out->port = ntohs(in->sin_port);
        memcpy(out->ip, &in->sin_addr, 4);
        return PD_OK;
    }
    if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        out->family = PD_AF_IPV6;
        out->port = ntohs(in6->sin6_port);
        out->scope = in6->sin6_scope_id;
        memcpy(out->ip, &in6->sin6_addr, 16);
        return PD_OK;
    }
    if (sa->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)sa;
        size_t room = len - offsetof(struct sockaddr_un, sun_path);
        out->family = PD_AF_UNIX;
        if (len > offsetof(struct sockaddr_un, sun_path)) {
            size_t n = strnlen(un->sun_path, room);
            if (n >= sizeof out->path)
                n = sizeof out->path - 1;
            memcpy(out->path, un->sun_path, n);
        }
        return PD_OK;
    }
    return PD_EINVAL;
}
