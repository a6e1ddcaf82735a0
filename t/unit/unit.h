/* SPDX-License-Identifier: Apache-2.0 */
/* What each unit test program includes first: cmocka with its needs, and a
 * main that runs the table `tests` and obeys PD_TEST (a name pattern). */
#ifndef PD_T_UNIT_H
#define PD_T_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <cmocka.h>

#define PD_UNIT_MAIN(tests)                                                    \
    int main(void)                                                             \
    {                                                                          \
        const char *pattern = getenv("PD_TEST");                               \
        if (pattern != NULL)                                                   \
            cmocka_set_test_filter(pattern);                                   \
        return cmocka_run_group_tests(tests, NULL, NULL);                      \
    }

#endif
