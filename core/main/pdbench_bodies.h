/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of requests that pdbench load sends: made, from a file of prompts,
 * or from a trace with its times. */
#ifndef PD_MAIN_PDBENCH_BODIES_H
#define PD_MAIN_PDBENCH_BODIES_H

#include "base/buf.h"

#define PDBENCH_BODIES_MAX 1000000u

struct pdbench_bodies {
    /* What is wanted; borrowed. */
    const char *model;
    const char *prompts;            /* file, or NULL */
    const char *trace;              /* file, or NULL */
    double speed;                   /* of the trace */
    uint64_t prompt_bytes;          /* of made prompts */
    uint64_t distinct;
    uint64_t max_tokens;
    bool is_completions;
    bool is_stream;
    /* What came of it. */
    struct pd_buf all;              /* one behind the other */
    struct pd_str *list;
    pd_time *arrivals;              /* of a trace */
    size_t n;
};

/* False after a message.  Gives: pdbench_bodies_free, in any case. */
bool pdbench_bodies_make(struct pdbench_bodies *b);
void pdbench_bodies_free(struct pdbench_bodies *b);

#endif
