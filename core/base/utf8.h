/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as in RFC 3629: no overlong forms, no surrogates, nothing above
 * U+10FFFF.  Pure; any thread. */
#ifndef PD_BASE_UTF8_H
#define PD_BASE_UTF8_H

#include <pdplane/types.h>

/* Length of the longest prefix that is valid; n when all is. */
size_t pd_utf8_valid_prefix(const void *p, size_t n);
bool pd_utf8_is_valid(const void *p, size_t n);
/* Bytes at the end that begin a character without finishing it (0 to 3), so
 * that a stream may hold them back until the rest comes. */
size_t pd_utf8_tail(const void *p, size_t n);
/* Bytes written (1 to 4); 0 when cp is no character. */
size_t pd_utf8_encode(uint32_t cp, char out[4]);
/* Bytes of the first character (1 to 4); 0 when it is not valid or n is 0. */
size_t pd_utf8_decode(const void *p, size_t n, uint32_t *cp);

#endif
