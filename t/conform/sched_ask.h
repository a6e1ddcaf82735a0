/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to filters, scorers, pickers and deciders, and their answers. */
#ifndef PD_T_CONFORM_SCHED_ASK_H
#define PD_T_CONFORM_SCHED_ASK_H

#include "conform/conform.h"

/* What one call gives, as bytes that can be compared. */
struct answer {
    uint8_t *bytes;
    size_t n;
};

struct question {
    struct pd_sched_request request;
    struct pd_endpoint_view *views;
    double *totals;
    uint32_t n, k;
};

extern uint64_t sched_allocations;  /* by the module, in all calls so far */

bool sched_is(const struct cf_unit *u, uint32_t kind);
void question_open(struct question *q, uint32_t n, uint64_t seed);
void question_close(struct question *q);
/* The answer, which must be in range; its bytes are the caller's to free. */
void question_ask(struct cf_inst *i, const struct question *q, struct answer *a);
void question_ask_once(struct cf_inst *i, const struct question *q);
/* Tells that the request went to this candidate. */
void sched_picked(struct cf_inst *i, const struct question *q, uint32_t index);

#endif
