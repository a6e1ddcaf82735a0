/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs as text, as in RFC 9562. */
#include "base/uuid.h"

static bool has_dash_before(size_t byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

const char *pd_uuid_format(const struct pd_uuid *u, char out[PD_UUID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    char *p = out;
    for (size_t i = 0; i < sizeof u->b; i++) {
        if (has_dash_before(i))
            *p++ = '-';
        *p++ = digits[u->b[i] >> 4];
        *p++ = digits[u->b[i] & 15];
    }
    *p = '\0';
    return out;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

pd_status pd_uuid_parse(struct pd_str s, struct pd_uuid *out)
{
    struct pd_uuid u;
    size_t at = 0;
    if (s.n != PD_UUID_TEXT - 1)
        return PD_EINVAL;
    for (size_t i = 0; i < sizeof u.b; i++) {
        if (has_dash_before(i) && s.p[at++] != '-')
            return PD_EINVAL;
        int high = digit_value(s.p[at++]);
        int low = digit_value(s.p[at++]);
        if (high < 0 || low < 0)
            return PD_EINVAL;
        u.b[i] = (uint8_t)(high << 4 | low);
    }
    *out = u;
    return PD_OK;
}

void pd_uuid_v4(const uint8_t random[16], struct pd_uuid *out)
{
    memcpy(out->b, random, sizeof out->b);
    out->b[6] = (uint8_t)((out->b[6] & 0x0f) | 0x40);
    out->b[8] = (uint8_t)((out->b[8] & 0x3f) | 0x80);
}

bool pd_uuid_is_zero(const struct pd_uuid *u)
{
    uint8_t all = 0;
    for (size_t i = 0; i < sizeof u->b; i++)
        all |= u->b[i];
    return all == 0;
}
