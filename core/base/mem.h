/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to malloc.  Nothing here aborts: callers get NULL and return
 * PD_ENOMEM.  All functions: any thread.
 *
 * The fault switch is process-wide, because the allocator is: PD_FAULT=alloc:N
 * in the environment makes the N-th allocation after pd_mem_fault_init fail. */
#ifndef PD_BASE_MEM_H
#define PD_BASE_MEM_H

#include <pdplane/types.h>

/* n bytes, uninitialised; n = 0 gives a unique pointer.  Gives: pd_free. */
void *pd_alloc(size_t n) __attribute__((malloc, warn_unused_result));
/* count * size zero bytes; NULL when the product overflows.  Gives: pd_free. */
void *pd_calloc(size_t count, size_t size) __attribute__((malloc, warn_unused_result));
/* Takes p on success; on failure p stays valid and the caller's. */
void *pd_realloc(void *p, size_t n) __attribute__((warn_unused_result));
/* As pd_realloc for count * size bytes; NULL when the product overflows. */
void *pd_realloc_array(void *p, size_t count, size_t size) __attribute__((warn_unused_result));
/* n bytes aligned to align (a power of two).  Gives: pd_free. */
void *pd_alloc_aligned(size_t align, size_t n) __attribute__((warn_unused_result));
/* Takes p; NULL is allowed. */
void pd_free(void *p);

/* Copies; give: pd_free.  pd_str_dup ends its copy with a zero byte. */
char *pd_strdup(const char *s) __attribute__((warn_unused_result));
char *pd_str_dup(struct pd_str s) __attribute__((warn_unused_result));
void *pd_memdup(const void *p, size_t n) __attribute__((warn_unused_result));

/* Sets up the allocator of the process: large blocks go back to the system when they
 * are freed.  Call it from main before other threads exist. */
void pd_mem_init(void);
/* Reads PD_FAULT once; call it from main before other threads exist.  Returns
 * PD_OK, or PD_EINVAL when the alloc part of the variable is malformed. */
pd_status pd_mem_fault_init(void);
/* For tests: the n-th allocation from now on fails; 0 switches off. */
void pd_mem_fault_set(uint64_t n);
/* Allocations asked for since the start of the process. */
uint64_t pd_mem_count(void);
/* Bytes that the whole process has allocated now; 0 when the allocator does not tell. */
uint64_t pd_mem_bytes(void);

#endif
