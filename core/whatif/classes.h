/* SPDX-License-Identifier: Apache-2.0 */
/* What simulated servers can do: classes of them, from a file or from the
 * command line.  A server computes in steps, as engines with continuous batching
 * do; a step takes
 *
 *     step + per_sequence * (sequences that get a token) + (prompt tokens) / prefill_tokens_per_s
 *
 * Every running sequence whose prompt is computed gets a token in it, and what is left of
 * step_tokens computes prompts in the order of arrival.  Loop thread. */
#ifndef PD_WHATIF_CLASSES_H
#define PD_WHATIF_CLASSES_H

#include <pdplane/conf.h>

#include "conf/conf.h"

struct pd_whatif_class {
    const char *endpoints;      /* pattern of names, "*" and "?" */
    double prefill_tokens_per_s;
    pd_time step;
    pd_time per_sequence;
    int64_t slots;
    int64_t step_tokens;
    int64_t kv_tokens;
    int64_t block_tokens;
    bool prefix_cache;
    double transfer_tokens_per_s;
    pd_time transfer_latency;
    int64_t stream_interval;
    struct pd_conf_place place;
};

struct pd_whatif_classes {
    struct pd_conf_list classes; /* struct pd_whatif_class */
};

/* The rows of a class, and of a file of them. */
const struct pd_option *pd_whatif_class_rows(void);
const struct pd_option *pd_whatif_classes_rows(void);

/* Reads a file of classes; or, when text is not NULL, one class from the text, with
 * path as its name in messages.  pd_conf_root(*out) is a struct pd_whatif_classes.
 * PD_OK, or the report says why not.  Gives: pd_conf_put. */
pd_status pd_whatif_classes_read(const char *path, const struct pd_str *text, struct pd_conf_report *report,
                                 struct pd_conf **out);
/* The first class whose pattern fits; NULL: none. */
const struct pd_whatif_class *pd_whatif_class_find(const struct pd_whatif_classes *p, const char *endpoint);
/* What holds where no class fits. */
pd_status pd_whatif_class_default(struct pd_conf_report *report, struct pd_conf **out);

#endif
