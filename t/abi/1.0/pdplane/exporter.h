/* SPDX-License-Identifier: Apache-2.0 */
/* Exporter kind: carries the figures of a node out of it.  Stable.
 *
 * An exporter reads the registry as data (pd_metrics_visit of metric.h, with
 * ctx->metrics) and does one of two things, or both:
 *
 *   it answers: path() names a path of the admin listeners, and serve() writes
 *   what is found there, in a form of its own;
 *   it sends: from start on, with timers and streams of ctx->loop.
 *
 * All functions: loop thread; none of them waits. */
#ifndef PDPLANE_EXPORTER_H
#define PDPLANE_EXPORTER_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_EXPORTER_V1 1u

struct pd_export_answer;
struct pd_exporter; /* an instance; the module's own */

/* What is asked for; borrowed during the call. */
struct pd_export_request {
    uint32_t size;
    uint32_t reserved;
    struct pd_str accept;      /* the header, empty when there is none */
    struct pd_str query;       /* as sent, without '?', may be empty */
};

struct pd_export_answer_ops {
    uint32_t size;
    uint32_t reserved;
    /* Appends n bytes.  PD_OK; PD_ELIMIT (16 MiB) or PD_ENOMEM, from then on for
     * every call: the answer is then an error whatever serve returns. */
    pd_status (*write)(struct pd_export_answer *answer, const void *bytes, size_t n);
};

/* Made by the core for one call of serve. */
struct pd_export_answer {
    const struct pd_export_answer_ops *ops;
    const char *type;          /* Content-Type; serve sets it to a text that stays */
};

static inline pd_status pd_export_write(struct pd_export_answer *answer, const void *bytes, size_t n)
{
    return answer->ops->write(answer, bytes, n);
}

struct pd_exporter_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_exporter_ops, PD_EXPORTER_V1) */

    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_exporter **out,
                        struct pd_err *err);
    /* Ends what is under way; on_closed is the last callback, never from inside
     * this call. */
    void (*destroy)(struct pd_exporter *exporter, void (*on_closed)(void *arg), void *arg);
    /* All other parts of the node are there.  May be NULL. */
    pd_status (*start)(struct pd_exporter *exporter, struct pd_err *err);

    /* The path that is served, beginning with '/', the same at every call; NULL:
     * none.  The member may be NULL, and serve with it. */
    const char *(*path)(struct pd_exporter *exporter);
    /* Writes the answer to a GET.  PD_OK, or an error: the client gets 503. */
    pd_status (*serve)(struct pd_exporter *exporter, const struct pd_export_request *request,
                       struct pd_export_answer *answer);
};

#ifdef __cplusplus
}
#endif
#endif
