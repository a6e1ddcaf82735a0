/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include "base/str.h"

static bool is_host(struct pd_str host, bool is_v6)
{
    if (host.n == 0 || host.n > PD_URL_HOST_MAX)
        return false;
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        bool is_hex = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        bool is_letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (is_v6 ? !(is_hex || c == ':' || c == '.' || c == '%' || is_letter)
                  : !(is_letter || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'))
            return false;
    }
    return true;
}

/* port: what holds without one, 0: it is needed. */
static pd_status authority(struct pd_str text, uint64_t port, struct pd_url *out)
{
    struct pd_str rest;
    if (text.n == 0)
        return PD_EINVAL;
    out->is_v6 = text.p[0] == '[';
    if (out->is_v6) {
        size_t close = pd_str_find_char(text, ']');
        if (close == PD_STR_NPOS)
            return PD_EINVAL;
        out->host = pd_str_sub(text, 1, close - 1);
        rest = pd_str_sub(text, close + 1, text.n);
    } else {
        size_t colon = pd_str_find_char(text, ':');
        out->host = pd_str_sub(text, 0, colon);
        rest = colon == PD_STR_NPOS ? (struct pd_str){ "", 0 } : pd_str_sub(text, colon, text.n);
    }
    if (rest.n > 0) {
        if (rest.p[0] != ':' || pd_str_parse_u64(pd_str_sub(rest, 1, rest.n), &port) != PD_OK)
            return PD_EINVAL;
    }
    if (port == 0 || port > 65535 || !is_host(out->host, out->is_v6))
        return PD_EINVAL;
    out->port = (uint16_t)port;
    return PD_OK;
}

pd_status pd_url_parse(struct pd_str text, struct pd_url *out)
{
    struct pd_str scheme = PD_STR("http://");
    out->is_tls = pd_str_starts_with(text, PD_STR("https://"));
    if (out->is_tls)
        scheme = PD_STR("https://");
    if (!pd_str_starts_with(text, scheme))
        return PD_EINVAL;
    text = pd_str_sub(text, scheme.n, text.n);
    if (text.n > 0 && text.p[text.n - 1] == '/')
        text.n--;
    return authority(text, out->is_tls ? 443 : 80, out);
}

pd_status pd_url_authority_parse(struct pd_str text, struct pd_url *out)
{
    out->is_tls = false;
    return authority(text, 0, out);
}
