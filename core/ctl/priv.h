/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/ctl: what the socket and the commands give each other. */
#ifndef PD_CTL_PRIV_H
#define PD_CTL_PRIV_H

#include "base/buf.h"
#include "base/list.h"
#include "ctl/ctl.h"
#include "ctl/words.h"

#define PD_CTL_BODY_MAX (8u << 20)

/* A command line taken apart; words borrow from the line. */
struct pd_ctl_call {
    struct pd_ctl *ctl;
    struct pd_str words[PD_CTL_WORDS_MAX];
    uint32_t n;                 /* words, the command first */
    bool is_json;
};

struct pd_ctl {
    struct pd_ctl_params params;
    struct pd_listener *listener;
    struct pd_list conns;
    struct pd_ctl_stats stats;
    /* What a command asked for, done at the end of the turn: the answer leaves
     * first. */
    struct pd_task act_task;
    bool want_drain;
    bool want_stop;
    struct pd_task close_task;
    bool is_closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* Does what the line says and appends the answer to body.  PD_OK; otherwise err
 * is filled and body is of no use. */
pd_status pd_ctl_run(struct pd_ctl *ctl, struct pd_str line, struct pd_buf *body, struct pd_err *err);

#endif
