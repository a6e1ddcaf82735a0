/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of OpenSSL by the core that a test makes fail, one at a time.  The linker puts
 * these functions between (--wrap, see WRAP_SSL of core/net/net.am). */
#ifndef PD_T_WRAP_SSL_H
#define PD_T_WRAP_SSL_H

#include <stdint.h>

/* The n-th call from now on fails; 0: none. */
void wrap_ssl_arm(uint64_t n);
/* Ends it: calls that were made, and the one that failed (NULL: none). */
uint64_t wrap_ssl_disarm(const char **failed);
/* What a failing call leaves in OpenSSL's queue; 0: an error of memory. */
void wrap_ssl_reason(int reason);
/* Only this call counts; NULL: all. */
void wrap_ssl_only(const char *name);

#endif
