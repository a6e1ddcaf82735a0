/* SPDX-License-Identifier: Apache-2.0 */
/* Server-sent events: an incremental splitter for bytes that are relayed as
 * they come, and the framing of one event.  One thread at a time. */
#ifndef PD_NET_SSE_H
#define PD_NET_SSE_H

#include "base/buf.h"

#include <pdplane/types.h>

struct pd_sse_event {
    struct pd_str event;    /* the event field; empty when there was none */
    struct pd_str data;     /* data lines joined by LF */
    struct pd_str id;       /* the id field of this event; empty when there was none */
};

/* All spans are borrowed during the call. */
typedef void (*pd_sse_cb)(const struct pd_sse_event *event, void *arg);

struct pd_sse {
    uint64_t events;        /* delivered so far */
    uint64_t comments;      /* comment lines seen, such as keep-alives */
    uint64_t bytes;         /* fed so far */
    /* private */
    struct pd_buf line;     /* an unfinished line */
    struct pd_buf data;     /* data lines of the unfinished event */
    struct pd_buf event;
    struct pd_buf id;
    struct pd_str direct;   /* a data line that still stands in the fed bytes */
    size_t limit;
    bool has_data;
    bool skip_lf;
    bool is_started;
};

/* limit: bytes of one line, and of the joined data of one event.  Allocates nothing yet. */
void pd_sse_init(struct pd_sse *s, size_t limit);
void pd_sse_fini(struct pd_sse *s);
/* Ready for another stream; memory is kept. */
void pd_sse_reset(struct pd_sse *s);
/* Calls cb for each event that ends within these bytes.  An event whose data
 * is one line inside these bytes is not copied.  PD_OK; PD_ELIMIT: an event is
 * too large; PD_ENOMEM.  After an error the splitter only takes a reset. */
pd_status pd_sse_feed(struct pd_sse *s, const char *p, size_t n, pd_sse_cb cb, void *arg);
/* Whether an event has begun that has not ended (a cut stream). */
bool pd_sse_is_inside(const struct pd_sse *s);
/* Whether the data of an event is the OpenAI end mark "[DONE]". */
bool pd_sse_is_done(const struct pd_sse_event *event);

/* Frames `data`, which must hold no CR and LF, as "data: ...\n\n" in three
 * runs that borrow from it.  PD_OK or PD_EINVAL. */
pd_status pd_sse_frame(struct pd_str data, struct pd_iov iov[3]);
/* Appends a whole event to a buffer; event may be empty; data with line breaks
 * becomes several data lines.  Returns what the buffer returns, PD_EINVAL when
 * event holds a line break. */
pd_status pd_sse_append(struct pd_buf *b, struct pd_str event, struct pd_str data);

#endif
