/* SPDX-License-Identifier: Apache-2.0 */
#include "utf8.h"

bool eng_utf8_valid(struct pd_str s)
{
    for (size_t i = 0; i < s.n;) {
        uint8_t c = (uint8_t)s.p[i];
        size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
        if (len == 0 || len > s.n - i)
            return false;
        for (size_t k = 1; k < len; k++)
            if (((uint8_t)s.p[i + k] & 0xc0) != 0x80)
                return false;
        uint8_t d = len > 1 ? (uint8_t)s.p[i + 1] : 0;
        if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) ||
            (c == 0xf4 && d > 0x8f))
            return false;
        i += len;
    }
    return true;
}
