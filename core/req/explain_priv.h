/* SPDX-License-Identifier: Apache-2.0 */
/* How entries begin in the memory of an explanation; private to core/req. */
#ifndef PD_REQ_EXPLAIN_PRIV_H
#define PD_REQ_EXPLAIN_PRIV_H

#include "req/explain.h"

struct packed {
    double value;
    double extra;
    uint8_t kind;
    uint8_t subject;        /* lengths */
    uint8_t plugin;
    uint8_t text;
};

#define HEAD 20u
#define TABLE 0xffu             /* kind of a table; subject, plugin: columns and rows, extra: bytes */
#define RUN 0xfeu               /* kind of a run, whose head is its own */

/* Makes sure that `need` more bytes, which max allows, have a place. */
bool pd_explain_room(struct pd_explain *e, uint32_t need);

/* explain_run.c */
/* Lines that the run at `at` stands for, and its bytes. */
uint32_t pd_explain_run_lines(const struct pd_explain *e, const uint8_t *at, uint32_t *bytes);
/* Line number `want` of it. */
void pd_explain_run_line(const struct pd_explain *e, const uint8_t *at, uint32_t want,
                         struct pd_explain_line *out);

#endif
