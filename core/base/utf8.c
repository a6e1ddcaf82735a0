/* SPDX-License-Identifier: Apache-2.0 */
/* Checking UTF-8: ASCII eight bytes at a time, the rest by the table of RFC 3629
 * section 4, where only the second byte's range depends on the first. */
#include "base/utf8.h"

#include <string.h>

/* Length of the valid character at s, 0 when there is none.  When the bytes end
 * before it does but are right so far, *cut is set. */
static size_t char_len(const uint8_t *s, size_t n, bool *cut)
{
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t len;
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    if (s[0] < 0xe0) {
        len = 2;
    } else if (s[0] < 0xf0) {
        len = 3;
        if (s[0] == 0xe0)
            low = 0xa0;
        else if (s[0] == 0xed)
            high = 0x9f;
    } else {
        len = 4;
        if (s[0] == 0xf0)
            low = 0x90;
        else if (s[0] == 0xf4)
            high = 0x8f;
    }
    for (size_t i = 1; i < len; i++) {
        if (i == n) {
            *cut = true;
            return 0;
        }
        if (s[i] < low || s[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

size_t pd_utf8_valid_prefix(const void *p, size_t n)
{
    const uint8_t *s = (const uint8_t *)p;
    size_t i = 0;
    bool cut;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof word) {
            memcpy(&word, s + i, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                i += sizeof word;
                continue;
            }
        }
        size_t len = char_len(s + i, n - i, &cut);
        if (len == 0)
            break;
        i += len;
    }
    return i;
}

bool pd_utf8_is_valid(const void *p, size_t n)
{
    return pd_utf8_valid_prefix(p, n) == n;
}

size_t pd_utf8_tail(const void *p, size_t n)
{
    const uint8_t *s = (const uint8_t *)p;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        bool cut = false;
        uint8_t c = s[n - back];
        if (c >= 0x80 && c < 0xc0)
            continue;
        return char_len(s + (n - back), back, &cut) == 0 && cut ? back : 0;
    }
    return 0;
}

size_t pd_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        if (cp >= 0xd800 && cp <= 0xdfff)
            return 0;
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    if (cp > 0x10ffff)
        return 0;
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

size_t pd_utf8_decode(const void *p, size_t n, uint32_t *cp)
{
    const uint8_t *s = (const uint8_t *)p;
    bool cut = false;
    size_t len = n == 0 ? 0 : char_len(s, n, &cut);
    if (len == 0)
        return 0;
    uint32_t v = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++)
        v = v << 6 | (s[i] & 0x3fu);
    *cp = v;
    return len;
}
