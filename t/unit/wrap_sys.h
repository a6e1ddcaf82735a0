/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of the core that a test makes fail, one at a time.  The linker puts
 * these functions between a test program and the system (--wrap, see WRAP_SYS of
 * core/loop/loop.am); calls that libraries make themselves are not meant. */
#ifndef PD_T_WRAP_SYS_H
#define PD_T_WRAP_SYS_H

#include <stdbool.h>
#include <stdint.h>

/* How many errors the call has that has most. */
#define WRAP_VARIETIES 6u

/* The n-th call from now on fails, with its error number `variety`; 0: none. */
void wrap_arm(uint64_t n, uint32_t variety);
/* Ends it.  The call that failed, NULL: the n-th was not reached.  A call that has no
 * such error is named too, but went well. */
const char *wrap_disarm(bool *has_failed);
/* Only this call counts; NULL: all. */
void wrap_only(const char *name);

#endif
