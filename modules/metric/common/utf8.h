/* SPDX-License-Identifier: Apache-2.0 */
/* Label values are bytes of anybody; what leaves the node is UTF-8.  And numbers
 * in the fewest digits that give them back. */
#ifndef PD_METRIC_UTF8_H
#define PD_METRIC_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Bytes of the character at s, which ends with a zero byte; 0: not UTF-8. */
static inline size_t pd_utf8_char(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3
               : p[0] >= 0xf0 && p[0] < 0xf5                 ? 4 : 0;

    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if (n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)))
        return 0;
    if (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)))
        return 0;
    return n;
}

#define PD_UTF8_REPLACEMENT "\xef\xbf\xbd"

/* A finite number; buf has 32 bytes.  Returns its length. */
static inline size_t pd_number_text(char *buf, double v)
{
    int n = 0;

    if (v == (double)(int64_t)v && v > -1e15 && v < 1e15)
        return (size_t)snprintf(buf, 32, "%lld", (long long)v);
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(buf, 32, "%.*g", digits, v);
        if (strtod(buf, NULL) == v)
            break;
    }
    return (size_t)n;
}

#endif
