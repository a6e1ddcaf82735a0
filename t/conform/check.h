/* SPDX-License-Identifier: Apache-2.0 */
/* How a case of pdconform says that something is wrong: the first failed check
 * ends the process that runs the case.  The names are those of the unit tests,
 * so that cases can be shared with them. */
#ifndef PD_T_CONFORM_CHECK_H
#define PD_T_CONFORM_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/types.h>

#define CF_EXIT_FAILED 1
#define CF_EXIT_SKIPPED 77

/* Tells what is wrong and where in the cases; ends the case. */
_Noreturn void cf_fail(const char *file, int line, const char *fmt, ...) PD_PRINTF(3, 4);
/* Ends the case: it does not apply. */
_Noreturn void cf_skip(const char *fmt, ...) PD_PRINTF(1, 2);
void cf_say(const char *fmt, ...) PD_PRINTF(1, 2);
void cf_check_int(long long got, long long want, bool equal, const char *text, const char *file,
                  int line);

/* In the words of an operator or author of a module. */
#define CF_NEED(cond, ...)                                                     \
    do {                                                                       \
        if (!(cond))                                                           \
            cf_fail(__FILE__, __LINE__, __VA_ARGS__);                          \
    } while (0)

#define assert_true(x) CF_NEED(x, "does not hold: %s", #x)
#define assert_false(x) CF_NEED(!(x), "should not hold: %s", #x)
#define assert_non_null(x) CF_NEED((x) != NULL, "is NULL: %s", #x)
#define assert_ptr_equal(a, b) CF_NEED((const void *)(a) == (const void *)(b), "%s is not %s", #a, #b)
#define assert_int_equal(a, b)                                                 \
    cf_check_int((long long)(a), (long long)(b), true, #a, __FILE__, __LINE__)
#define assert_int_not_equal(a, b)                                             \
    cf_check_int((long long)(a), (long long)(b), false, #a, __FILE__, __LINE__)
#define assert_memory_equal(a, b, n)                                           \
    CF_NEED(memcmp((a), (b), (size_t)(n)) == 0, "bytes differ: %s and %s", #a, #b)
#define print_message cf_say

#endif
