/* SPDX-License-Identifier: Apache-2.0 */
/* What the reports on requests share.  Loop thread. */
#ifndef PD_NODE_REPORT_REQ_H
#define PD_NODE_REPORT_REQ_H

#include "node/node.h"
#include "req/reqs.h"

/* The time between two marks of a record; PD_TIME_NEVER without the first. */
static inline pd_time pd_report_since(pd_time from, pd_time to)
{
    return from == 0 || to < from ? PD_TIME_NEVER : to - from;
}

/* The stage of a live one, else how it ended. */
static inline const char *pd_report_state(const struct pd_req *r)
{
    return r->outcome == PD_REQ_LIVE ? pd_req_stage_name(r->stage) : pd_req_outcome_name(r->outcome);
}

/* "remote", "local", or empty where none was made. */
static inline const char *pd_report_decision(const struct pd_req *r)
{
    if (r->role == PD_ROLE_PREFILL)
        return "";
    if (r->remote != 0)
        return "remote";
    return r->decision != 0 || r->output_tokens > 0 ? "local" : "";
}

/* Until now while it is live. */
static inline pd_time pd_report_duration(const struct pd_node *node, const struct pd_req *r)
{
    return pd_report_since(r->at[PD_REQ_ACCEPTED],
                           r->outcome == PD_REQ_LIVE ? pd_loop_now(node->loop) : r->at[PD_REQ_ENDED]);
}

#endif
