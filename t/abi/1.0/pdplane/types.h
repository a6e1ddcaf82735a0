/* SPDX-License-Identifier: Apache-2.0 */
/* Types that every other public header uses: status codes, strings, byte
 * ranges, times and identities.  Stable: members are only ever added at the
 * end, values never change. */
#ifndef PDPLANE_TYPES_H
#define PDPLANE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PD_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define PD_PRINTF(fmt, first)
#endif

/* Result of a call.  0 is success, positive values are progress, negative
 * values are errors.  Each function says which of them it returns. */
typedef int32_t pd_status;

/*   name         value  text */
#define PD_STATUS_TABLE(X)                                                     \
    X(PD_OK, 0, "success")                                                     \
    X(PD_PENDING, 1, "a callback will follow")                                 \
    X(PD_EAGAIN, -1, "no resources now, try again when told")                  \
    X(PD_EDECLINED, -2, "not mine, ask the next")                              \
    X(PD_ENOSYS, -3, "operation not offered")                                  \
    X(PD_ECANCELED, -4, "canceled")                                            \
    X(PD_ETIMEDOUT, -5, "timed out")                                           \
    X(PD_EPEER, -6, "peer gone")                                               \
    X(PD_EPROTO, -7, "protocol violated")                                      \
    X(PD_ENOMEM, -8, "out of memory")                                          \
    X(PD_EINVAL, -9, "invalid argument")                                       \
    X(PD_EPERM, -10, "not permitted")                                          \
    X(PD_ENOENT, -11, "not found")                                             \
    X(PD_EEXIST, -12, "exists already")                                        \
    X(PD_ELIMIT, -13, "a configured limit was reached")                        \
    X(PD_EIO, -14, "input or output failed")                                   \
    X(PD_ESTALE, -15, "handle of an earlier epoch or generation")              \
    X(PD_EBUSY, -16, "in use")                                                 \
    X(PD_EEOF, -17, "end of stream")                                           \
    X(PD_EINTEGRITY, -18, "bytes do not match their digest")

enum {
#define PD_STATUS_ENUM(name, value, text) name = value,
    PD_STATUS_TABLE(PD_STATUS_ENUM)
#undef PD_STATUS_ENUM
};

/* Times are nanoseconds on the node's monotonic clock; durations likewise. */
typedef uint64_t pd_time;
#define PD_US ((pd_time)1000)
#define PD_MS ((pd_time)1000000)
#define PD_SEC ((pd_time)1000000000)
#define PD_TIME_NEVER UINT64_MAX

/* A string or byte range that somebody else owns: not terminated by a zero
 * byte, may contain any byte.  Passed by value; borrowed unless said. */
struct pd_str {
    const char *p;
    size_t n;
};
#define PD_STR(literal) ((struct pd_str){ "" literal, sizeof(literal) - 1 })
/* For printf("%.*s", PD_STR_ARG(s)). */
#define PD_STR_ARG(s) (int)(s).n, (s).p

/* One run of bytes for scattered reads and writes; same layout as the
 * system's struct iovec. */
struct pd_iov {
    void *base;
    size_t len;
};

/* Identity of a node, for its whole installed life. */
struct pd_uuid {
    uint8_t b[16];
};

/* A running node: epoch is new at every start, so a peer that came back on
 * the same address is a different peer. */
struct pd_node_id {
    struct pd_uuid uuid;
    uint64_t epoch;
};

/* Why a slow-path call (configuration, creation, loading) failed.  The caller
 * provides the struct; the callee fills it when it returns an error. */
struct pd_err {
    pd_status status;
    uint32_t line;          /* 0 when there is no place in a file */
    char file[256];         /* empty when there is no file */
    char text[512];         /* what is wrong, one sentence without a full stop */
    char hint[256];         /* what to do about it, may be empty */
};

/* Opaque handles that cross headers. */
struct pd_loop;             /* loop.h: one event loop, one thread */
struct pd_log;              /* log.h: where lines go, with a name in front */
struct pd_metrics;          /* metric.h: the registry of one node */
struct pd_host;             /* host.h: the node as a module sees it */

#ifdef __cplusplus
}
#endif
#endif
