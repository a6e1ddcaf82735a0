/* SPDX-License-Identifier: Apache-2.0 */
/* What was found wrong in a configuration, in the order it was found: the
 * first PD_CONF_ERRORS_MAX errors and as many warnings.  One thread at a time. */
#ifndef PD_CONF_REPORT_H
#define PD_CONF_REPORT_H

#include <stdio.h>

#include <pdplane/conf.h>

#define PD_CONF_ERRORS_MAX 20u

struct pd_conf_report {
    struct pd_err *errors;
    struct pd_err *warnings;
    uint32_t n_errors;          /* kept */
    uint32_t n_warnings;
    uint64_t total_errors;      /* found */
    uint64_t total_warnings;
    bool out_of_memory;         /* something could not be kept */
};

void pd_conf_report_init(struct pd_conf_report *r);
void pd_conf_report_fini(struct pd_conf_report *r);
bool pd_conf_report_ok(const struct pd_conf_report *r);

/* Adds one; file may be NULL, line 0.  A hint is given by the format's part
 * behind the character '\n'.  Errors return PD_EINVAL for the caller to
 * return. */
pd_status pd_conf_error(struct pd_conf_report *r, const char *file, uint32_t line, const char *fmt, ...)
    PD_PRINTF(4, 5);
void pd_conf_warn(struct pd_conf_report *r, const char *file, uint32_t line, const char *fmt, ...)
    PD_PRINTF(4, 5);
/* Adds an error made elsewhere; where it has no file, file and line are used. */
void pd_conf_report_add(struct pd_conf_report *r, const struct pd_err *err, const char *file,
                        uint32_t line);
/* "FILE:LINE: error: TEXT" and, where there is one, "  hint: HINT". */
void pd_conf_err_print(FILE *out, const struct pd_err *err, const char *word);
/* All of them, warnings first, and how many more there were. */
void pd_conf_report_print(const struct pd_conf_report *r, FILE *out);

#endif
