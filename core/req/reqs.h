/* SPDX-License-Identifier: Apache-2.0 */
/* The request registry of a node.  Its functions are those of struct
 * pd_req_api (pdplane/req.h); core code calls them
 * directly.  Loop thread. */
#ifndef PD_REQ_REQS_H
#define PD_REQ_REQS_H

#include <pdplane/conf.h>
#include <pdplane/metric.h>
#include <pdplane/req.h>

/* Filled by pd_reqs_options: the section `requests`. */
struct pd_reqs_conf {
    uint64_t live;             /* most requests at a time */
    uint64_t finished;         /* ended ones to remember */
    uint64_t explain_bytes;    /* room for explanations of one request */
};
extern const struct pd_option pd_reqs_options[];

/* conf is copied.  metrics may be NULL, else it must outlive the registry.
 * PD_OK, PD_EINVAL, PD_ENOMEM.  Gives: pd_reqs_destroy. */
pd_status pd_reqs_create(const struct pd_reqs_conf *conf, struct pd_metrics *metrics,
                         struct pd_err *err, struct pd_reqs **out);
/* Other limits: for requests that begin from here on; more ended ones than are to be
 * remembered are forgotten. */
void pd_reqs_set_limits(struct pd_reqs *reqs, const struct pd_reqs_conf *conf);
/* Also with live records, which go with it.  NULL is allowed. */
void pd_reqs_destroy(struct pd_reqs *reqs);
/* The table that role modules get as PD_REQ_TABLE; constant. */
const struct pd_req_api *pd_reqs_api(void);

/* See the members of struct pd_req_api. */
pd_status pd_req_begin(struct pd_reqs *reqs, struct pd_str id, uint32_t role, pd_time now,
                       struct pd_req **out);
void pd_req_stage(struct pd_reqs *reqs, struct pd_req *req, uint32_t stage, pd_time now);
void pd_req_tokens(struct pd_reqs *reqs, struct pd_req *req, uint32_t n, pd_time now);
void pd_req_text(struct pd_reqs *reqs, struct pd_req *req, const char **text, struct pd_str s);
void pd_req_finish(struct pd_reqs *reqs, struct pd_req *req, uint32_t outcome, uint32_t http_status,
                   struct pd_str code, pd_time now);
void pd_req_explain(void *req, const struct pd_explain_line *line);
bool pd_req_explain_run(void *req, const struct pd_explain_run *run);
void pd_req_explain_table(void *req, const struct pd_explain_table *table);
void pd_req_note(struct pd_req *req, const char *fmt, ...) PD_PRINTF(2, 3);
bool pd_req_explain_next(const struct pd_req *req, uint32_t *cursor, struct pd_explain_line *out);
uint32_t pd_req_explain_lost(const struct pd_req *req);
void pd_reqs_watch(struct pd_reqs *reqs, void (*on_step)(const struct pd_req *req, void *arg), void *arg);
const struct pd_req *pd_reqs_find(const struct pd_reqs *reqs, struct pd_str id);
bool pd_reqs_next(const struct pd_reqs *reqs, uint64_t *cursor, const struct pd_req **out);
void pd_reqs_counts(const struct pd_reqs *reqs, struct pd_req_counts *out);

const char *pd_req_stage_name(uint32_t stage);
const char *pd_req_outcome_name(uint32_t outcome);
/* "chat", "completions", "other", "peer". */
const char *pd_req_api_name(uint32_t api);
/* "router", "decode", "prefill". */
const char *pd_req_role_name(uint32_t role);
/* "profile", "dropped", "candidate" ... */
const char *pd_explain_kind_name(uint32_t kind);

/* The law of the books: accepted = live + all outcomes, and the lists hold
 * what the counters say.  False is a bug. */
bool pd_reqs_balanced(const struct pd_reqs *reqs);
/* Bytes that the registry holds. */
uint64_t pd_reqs_bytes(const struct pd_reqs *reqs);

#endif
