/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of <pdplane/log.h>: making logs, levels and sinks. */
#ifndef PD_LOG_LOG_H
#define PD_LOG_LOG_H

#include <pdplane/log.h>

enum pd_log_sink {
    PD_LOG_STDERR = 0,
    PD_LOG_FILE,            /* appended to, opened again by pd_log_reopen */
    PD_LOG_MEMORY,          /* kept, up to memory_bytes, the oldest lines go first */
    PD_LOG_CALLBACK         /* on_line gets each line without its line feed */
};

struct pd_log_config {
    enum pd_log_sink sink;
    const char *path;       /* PD_LOG_FILE; borrowed for the call */
    size_t memory_bytes;    /* PD_LOG_MEMORY, 0: 1 MiB */
    /* Called with the log locked: it must not log. */
    void (*on_line)(void *arg, int32_t level, struct pd_str line);
    void *on_line_arg;
    bool is_json;           /* one JSON object per line instead of text */
    int32_t level;          /* lines above it are not written */
    /* Wall clock in nanoseconds since 1970, for the lines and for rate limits;
     * NULL goes without both.  Any thread calls it. */
    uint64_t (*wall_ns)(void *arg);
    void *wall_arg;
    bool hide_time;         /* as for a journal that stamps lines itself */
    uint32_t pid;           /* 0 leaves the [pid.thread] part out */
    uint32_t rate_lines;    /* lines per call site and rate_ns, 0: no limit */
    pd_time rate_ns;        /* 0: one second */
};

/* A log without a name.  Gives: pd_log_destroy.  PD_OK, PD_ENOMEM, or what
 * opening the file gave. */
pd_status pd_log_create(const struct pd_log_config *config, struct pd_err *err,
                        struct pd_log **out);
/* Writes what rate limits still hold back and frees the log; children must be
 * gone (those that are left are freed with it). */
void pd_log_destroy(struct pd_log *root);

/* Level of all names (name NULL or empty) or of one name and those below it
 * ("transport" covers "transport.tcp"); the longest name wins.  Children that
 * exist follow at once.  PD_OK, PD_EINVAL, PD_ELIMIT.  Any thread. */
pd_status pd_log_set_level(struct pd_log *log, const char *name, int32_t level);
/* Opens the file of a file sink again, after it was moved away; the old one
 * stays in use when that fails.  Any thread. */
pd_status pd_log_reopen(struct pd_log *log, struct pd_err *err);
/* Writes the pending "N similar suppressed" lines.  Any thread. */
void pd_log_flush(struct pd_log *log);
/* Lines dropped by rate limits, and lines lost because writing failed. */
uint64_t pd_log_suppressed(struct pd_log *log);
uint64_t pd_log_lost(struct pd_log *log);

/* A copy of what a memory sink holds, with a zero byte behind it.  Gives:
 * pd_free.  NULL for other sinks or when memory is short.  Any thread. */
char *pd_log_memory(struct pd_log *log);
/* Forgets what a memory sink holds. */
void pd_log_memory_clear(struct pd_log *log);

/* "notice" and so on; PD_EINVAL for other words. */
pd_status pd_log_level_parse(struct pd_str s, int32_t *level);
const char *pd_log_level_name(int32_t level);

#endif
