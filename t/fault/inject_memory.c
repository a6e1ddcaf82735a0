/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations, of the program and its modules only. */
#include "inject.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Whether this allocation, asked for at that place, fails. */
static int alloc_fails(const char *what, void *from)
{
    char text[sizeof inject_page->what], *base;
    if (inject_page->mode != ALLOC || inject_inside)
        return 0;
    const char *name = inject_object(from, &base);
    if (name == NULL || !inject_admit(ALLOC))
        return 0;
    inject_inside = 1;
    snprintf(text, sizeof text, "%s %s+%lx", what, name, (unsigned long)((char *)from - base));
    inject_inside = 0;
    inject_note(text);
    errno = ENOMEM;
    return 1;
}

SHOWN void *malloc(size_t n)
{
    static void *(*real)(size_t);
    if (real == NULL)
        real = (void *(*)(size_t))inject_next("malloc");
    return alloc_fails("malloc", __builtin_return_address(0)) ? NULL : real(n);
}

SHOWN void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);
    if (real == NULL)
        real = (void *(*)(void *, size_t))inject_next("realloc");
    return alloc_fails("realloc", __builtin_return_address(0)) ? NULL : real(p, n);
}

/* dlsym asks for memory itself, from here; it takes this and never gives it back. */
static char early[4096];
static size_t early_used;

SHOWN void *calloc(size_t count, size_t size)
{
    static void *(*real)(size_t, size_t);
    static int is_looking;
    if (real == NULL && is_looking) {
        void *p = early + early_used;
        early_used += (count * size + 15) & ~(size_t)15;
        if (early_used > sizeof early)
            abort();
        return p;
    }
    if (real == NULL) {
        is_looking = 1;
        real = (void *(*)(size_t, size_t))inject_next("calloc");
    }
    return alloc_fails("calloc", __builtin_return_address(0)) ? NULL : real(count, size);
}

SHOWN int posix_memalign(void **out, size_t align, size_t n)
{
    static int (*real)(void **, size_t, size_t);
    if (real == NULL)
        real = (int (*)(void **, size_t, size_t))inject_next("posix_memalign");
    return alloc_fails("posix_memalign", __builtin_return_address(0)) ? ENOMEM : real(out, align, n);
}
