/* SPDX-License-Identifier: Apache-2.0 */
/* How one log line looks; private to core/log. */
#ifndef PD_LOG_LINE_H
#define PD_LOG_LINE_H

#include "base/buf.h"

struct pd_log_line {
    const char *level;
    const char *name;       /* may be empty */
    bool has_time;
    uint64_t wall_ns;
    uint32_t pid;           /* 0: no pid and thread */
    uint32_t thread;
    struct pd_str req;      /* may be empty */
    struct pd_str message;
};

/* Append the line with its line feed; the buffer's status tells failure. */
void pd_log_line_text(const struct pd_log_line *line, struct pd_buf *out);
void pd_log_line_json(const struct pd_log_line *line, struct pd_buf *out);

#endif
