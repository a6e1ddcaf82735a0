/* SPDX-License-Identifier: Apache-2.0 */
/* Results as text: tables for people, one JSON object for programs.  Any thread. */
#ifndef PD_WHATIF_REPORT_H
#define PD_WHATIF_REPORT_H

#include "base/buf.h"
#include "whatif/world.h"

/* One run of those that are compared. */
struct pd_whatif_variant {
    const char *label;          /* the file and what was changed */
    struct pd_whatif_slo slo;
    struct pd_whatif_result *result;
};

/* One run by itself. */
pd_status pd_whatif_report_run(const struct pd_whatif_variant *v, struct pd_buf *out);
/* All of them side by side, with the difference to the first. */
pd_status pd_whatif_report_compare(const struct pd_whatif_variant *v, size_t n, struct pd_buf *out);
/* One object; conditions: JSON that stands in it. */
pd_status pd_whatif_report_json(const struct pd_whatif_variant *v, size_t n, struct pd_str conditions,
                                struct pd_buf *out);

#endif
