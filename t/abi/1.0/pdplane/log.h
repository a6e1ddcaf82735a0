/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines.  A struct pd_log is a place to write to with a name in front; the
 * macros test its level before they evaluate their arguments, and reach the
 * core through a table, so a module links with nothing.
 *
 *     pd_log_notice(log, "peer \"%s\" is up", name);
 *     pd_log_req(log, PD_LOG_INFO, req_id, "took %.1f ms", ms);
 *
 * Wording: lower case, no full stop, units shown, names quoted.  Control
 * characters in the text are escaped; lines are cut at 4 KiB.  Everything here:
 * any thread.  A NULL log is allowed and swallows everything.  Stable. */
#ifndef PDPLANE_LOG_H
#define PDPLANE_LOG_H

#include <pdplane/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PD_LOG_ERROR = 0,   /* an operator must act */
    PD_LOG_WARN = 1,    /* works, but degraded */
    PD_LOG_NOTICE = 2,  /* state changes: start, reload, a peer comes or goes */
    PD_LOG_INFO = 3,    /* per connection */
    PD_LOG_DEBUG = 4,   /* per request */
    PD_LOG_TRACE = 5    /* per chunk; only where PD_ENABLE_TRACE is defined */
};

/* Where in the source a line comes from; rate limits count by it. */
struct pd_log_site {
    const char *file;
    uint32_t line;
    int32_t level;
};

struct pd_log_ops {
    size_t size;
    /* Writes one line.  site and req are borrowed; req is empty when the line
     * belongs to no request. */
    void (*emit)(struct pd_log *log, const struct pd_log_site *site, struct pd_str req,
                 const char *fmt, ...) PD_PRINTF(4, 5);
    /* Gives a log that writes to the same place under "parent.name"; NULL when
     * memory is short (which the macros accept). */
    struct pd_log *(*child)(struct pd_log *log, const char *name);
    /* Takes what child gave; NULL is allowed. */
    void (*child_free)(struct pd_log *log);
};

/* First members of every log; the rest belongs to the core. */
struct pd_log {
    const struct pd_log_ops *ops;
    int32_t level;      /* read with pd_log_on */
};

static inline bool pd_log_on(const struct pd_log *log, int32_t level)
{
    return log != NULL && level <= __atomic_load_n(&log->level, __ATOMIC_RELAXED);
}

/* A child for a part of the program; gives: pd_log_child_free. */
static inline struct pd_log *pd_log_child(struct pd_log *log, const char *name)
{
    return log == NULL ? NULL : log->ops->child(log, name);
}

static inline void pd_log_child_free(struct pd_log *log)
{
    if (log != NULL)
        log->ops->child_free(log);
}

#define PD_LOG_LINE(log_, level_, req_, ...)                                   \
    do {                                                                       \
        struct pd_log *pd_log_to = (log_);                                     \
        if (pd_log_on(pd_log_to, (level_))) {                                  \
            static const struct pd_log_site pd_log_here = { __FILE__, __LINE__, (level_) }; \
            pd_log_to->ops->emit(pd_log_to, &pd_log_here, (req_), __VA_ARGS__); \
        }                                                                      \
    } while (0)

#ifdef __cplusplus
#define PD_LOG_NO_REQ (pd_str{ "", 0 })
#else
#define PD_LOG_NO_REQ ((struct pd_str){ "", 0 })
#endif

/* level must be a constant; req is a struct pd_str, evaluated only when the
 * line is written. */
#define pd_log_req(log, level, req, ...) PD_LOG_LINE(log, level, req, __VA_ARGS__)

#define pd_log_error(log, ...) PD_LOG_LINE(log, PD_LOG_ERROR, PD_LOG_NO_REQ, __VA_ARGS__)
#define pd_log_warn(log, ...) PD_LOG_LINE(log, PD_LOG_WARN, PD_LOG_NO_REQ, __VA_ARGS__)
#define pd_log_notice(log, ...) PD_LOG_LINE(log, PD_LOG_NOTICE, PD_LOG_NO_REQ, __VA_ARGS__)
#define pd_log_info(log, ...) PD_LOG_LINE(log, PD_LOG_INFO, PD_LOG_NO_REQ, __VA_ARGS__)
#define pd_log_debug(log, ...) PD_LOG_LINE(log, PD_LOG_DEBUG, PD_LOG_NO_REQ, __VA_ARGS__)
#ifdef PD_ENABLE_TRACE
#define pd_log_trace(log, ...) PD_LOG_LINE(log, PD_LOG_TRACE, PD_LOG_NO_REQ, __VA_ARGS__)
#else
#define pd_log_trace(log, ...)                                                 \
    do {                                                                       \
        if (0)                                                                 \
            PD_LOG_LINE(log, PD_LOG_TRACE, PD_LOG_NO_REQ, __VA_ARGS__);        \
    } while (0)
#endif

#ifdef __cplusplus
}
#endif
#endif
