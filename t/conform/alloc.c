/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the allocations of a module and makes one of them fail.  The functions
 * of the C library that this program defines are those that the module gets,
 * too.  A sanitizer has an allocator of its own, which stays: there allocations
 * are counted by its hooks, and none fails. */
#include "conform/conform.h"

#include <dlfcn.h>
#include <errno.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER 0
#endif

/* Of this thread alone: what others allocate meanwhile is not meant. */
static __thread bool armed;
static __thread uint64_t count, fail_at;

bool cf_alloc_can_fail(void)
{
    return !HAS_SANITIZER;
}

void cf_alloc_begin(uint64_t at)
{
    count = 0;
    fail_at = at;
    armed = true;
}

uint64_t cf_alloc_end(void)
{
    armed = false;
    return count;
}

/* Only what the module and the host ask for themselves may fail: libraries that
 * end the process then are not meant. */
static bool is_meant(void *from)
{
    Dl_info info;
    const char *name;

    if (dladdr(from, &info) == 0 || info.dli_fname == NULL)
        return false;
    name = strrchr(info.dli_fname, '/');
    name = name != NULL ? name + 1 : info.dli_fname;
    return strncmp(name, "lib", 3) != 0 && strncmp(name, "ld-", 3) != 0;
}

bool cf_alloc_fails_for(void *from)
{
    bool fails;

    if (!armed)
        return false;
    armed = false;                      /* dladdr may allocate */
    fails = (fail_at == 0 || is_meant(from)) && ++count == fail_at;
    armed = true;
    if (fails)
        errno = ENOMEM;
    return fails;
}

#if HAS_SANITIZER

extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                                     void (*on_free)(const volatile void *)) __attribute__((weak));

static void on_malloc(const volatile void *p, size_t n)
{
    (void)p;
    (void)n;
    count += armed;
}

static void on_free(const volatile void *p)
{
    (void)p;
}

static __attribute__((constructor)) void install(void)
{
    if (__sanitizer_install_malloc_and_free_hooks != NULL)
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}

#else

#define SHOWN __attribute__((visibility("default")))

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);

    if (f == NULL)
        abort();
    return f;
}

SHOWN void *malloc(size_t n)
{
    static void *(*real)(size_t);

    if (real == NULL)
        real = (void *(*)(size_t))next("malloc");
    return cf_alloc_fails_for(__builtin_return_address(0)) ? NULL : real(n);
}

SHOWN void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);

    if (real == NULL)
        real = (void *(*)(void *, size_t))next("realloc");
    return cf_alloc_fails_for(__builtin_return_address(0)) ? NULL : real(p, n);
}

/* dlsym may ask for memory itself, from here; it is never given back. */
static _Alignas(16) char early[4096];
static size_t early_used;

SHOWN void *calloc(size_t items, size_t size)
{
    static void *(*real)(size_t, size_t);
    static bool looking;

    if (real == NULL && looking) {
        void *p = early + early_used;
        early_used += (items * size + 15) & ~(size_t)15;
        if (early_used > sizeof(early))
            abort();
        return p;
    }
    if (real == NULL) {
        looking = true;
        real = (void *(*)(size_t, size_t))next("calloc");
    }
    return cf_alloc_fails_for(__builtin_return_address(0)) ? NULL : real(items, size);
}

SHOWN int posix_memalign(void **out, size_t align, size_t n)
{
    static int (*real)(void **, size_t, size_t);

    if (real == NULL)
        real = (int (*)(void **, size_t, size_t))next("posix_memalign");
    return cf_alloc_fails_for(__builtin_return_address(0)) ? ENOMEM : real(out, align, n);
}

SHOWN void *aligned_alloc(size_t align, size_t n)
{
    static void *(*real)(size_t, size_t);

    if (real == NULL)
        real = (void *(*)(size_t, size_t))next("aligned_alloc");
    return cf_alloc_fails_for(__builtin_return_address(0)) ? NULL : real(align, n);
}

#endif
