/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of inject.so share: the page that whoever tests writes to, and how
 * a call asks whether it is the one that fails. */
#ifndef PD_T_FAULT_INJECT_H
#define PD_T_FAULT_INJECT_H

#include <stddef.h>
#include <stdint.h>

#define SHOWN __attribute__((visibility("default")))

enum { OFF, ERRORS, SHORT, SHORT_ALL, ALLOC, FILES };

struct page {
    uint32_t mode;
    uint32_t variety;       /* which of the errors of the call */
    uint64_t at;            /* the call that fails, from 1 */
    uint64_t count;         /* calls that could have */
    uint32_t fired;
    char what[60];          /* the call, and for allocations from where */
};

extern struct page *inject_page;

/* Not 0 while the dynamic linker is asked, which may allocate. */
extern __thread int inject_inside;

/* The next definition of a function, behind this one. */
void *inject_next(const char *name);

/* Counts one call of that mode; whether it is the one that fails. */
int inject_admit(uint32_t mode);
void inject_note(const char *what);

/* Whether this call fails; sets errno to one of n errors. */
int inject_fails(uint32_t mode, const char *what, const int *errors, size_t n);

/* The base name of the object that has the address, NULL when it is one of the system's
 * libraries; base: where it was loaded. */
const char *inject_object(void *address, char **base);

/* Whether a read or write of a file, asked for at that place, fails. */
int inject_file_read(void *from);
int inject_file_write(void *from);

#define NEXT(name)                                                     \
    static __typeof__(name) *real_##name;                              \
    if (real_##name == NULL)                                           \
    real_##name = (__typeof__(name) *)inject_next(#name)

#define FAIL_IN(mode, what, ...)                                       \
    do {                                                               \
        static const int errors[] = { __VA_ARGS__ };                   \
        if (inject_fails(mode, what, errors, sizeof errors / sizeof errors[0])) \
            return -1;                                                 \
    } while (0)

#endif
