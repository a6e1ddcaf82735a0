/* SPDX-License-Identifier: Apache-2.0 */
/* Text that comes from clients is checked before a tokenizer sees it. */
#ifndef ENG_UTF8_H
#define ENG_UTF8_H

#include <pdplane/types.h>

/* Well-formed UTF-8: no overlong form, no surrogate, nothing above U+10FFFF. */
bool eng_utf8_valid(struct pd_str s);

#endif
