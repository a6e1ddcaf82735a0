/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a failed assertion: says where, shows the call stack, aborts.  It
 * allocates nothing, because memory may be what is broken. */
#include "base/compiler.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void pd_assert_failed(const char *expr, const char *file, int line)
{
    char text[512];
    void *frames[64];
    int n = snprintf(text, sizeof text, "pdplane: assertion failed: %s at %s:%d\n", expr, file,
                     line);
    if (n > 0) {
        size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
        if (write(STDERR_FILENO, text, len) < 0)
            abort();
    }
    backtrace_symbols_fd(frames, backtrace(frames, (int)PD_ARRAY_LEN(frames)), STDERR_FILENO);
    abort();
}
