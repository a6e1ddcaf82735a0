/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the numbers in a request record, as tables and metrics show them. */
#include "req/reqs.h"

#include "base/compiler.h"

static const char *name_in(const char *const *names, size_t n, uint32_t value)
{
    return value < n && names[value] != NULL ? names[value] : "unknown";
}

const char *pd_req_stage_name(uint32_t stage)
{
    static const char *const names[] = {
#define STAGE_NAME(name, number, text) [number] = text,
        PD_REQ_STAGE_TABLE(STAGE_NAME)
#undef STAGE_NAME
    };
    return name_in(names, PD_ARRAY_LEN(names), stage);
}

const char *pd_req_outcome_name(uint32_t outcome)
{
    static const char *const names[] = {
#define OUTCOME_NAME(name, number, text) [number] = text,
        PD_REQ_OUTCOME_TABLE(OUTCOME_NAME)
#undef OUTCOME_NAME
    };
    return name_in(names, PD_ARRAY_LEN(names), outcome);
}

const char *pd_req_api_name(uint32_t api)
{
    static const char *const names[] = { "peer", "chat", "completions", "other" };
    return name_in(names, PD_ARRAY_LEN(names), api);
}

const char *pd_req_role_name(uint32_t role)
{
    static const char *const names[] = {
        [PD_ROLE_PREFILL] = "prefill",
        [PD_ROLE_DECODE] = "decode",
        [PD_ROLE_ROUTER] = "router",
    };
    return name_in(names, PD_ARRAY_LEN(names), role);
}

const char *pd_explain_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [PD_EXPLAIN_PROFILE] = "profile",     [PD_EXPLAIN_DROPPED] = "dropped",
        [PD_EXPLAIN_CANDIDATE] = "candidate", [PD_EXPLAIN_SCORE] = "score",
        [PD_EXPLAIN_PICKED] = "picked",       [PD_EXPLAIN_DECISION] = "decision",
        [PD_EXPLAIN_NOTE] = "note",
    };
    return name_in(names, PD_ARRAY_LEN(names), kind);
}
