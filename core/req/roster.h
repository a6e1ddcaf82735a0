/* SPDX-License-Identifier: Apache-2.0 */
/* The names that the explanations of many requests share: of a profile, its plugins and
 * its candidates, for as long as these stay the same.  Loop thread. */
#ifndef PD_REQ_ROSTER_H
#define PD_REQ_ROSTER_H

#include <pdplane/req.h>

struct pd_explain_drop {
    uint32_t slot;
    struct pd_str name;
    struct pd_str plugin;           /* that dropped it */
};

struct pd_explain_roster {
    uint32_t refs;
    uint32_t candidates;            /* before the filters */
    uint32_t n;                     /* behind them */
    uint32_t columns;
    uint32_t drops;
    uint32_t drops_max;             /* to show */
    bool is_stale;                  /* every load report was, and was used anyway */
    struct pd_str profile;
    struct pd_str picker;
    struct pd_explain_column *column;
    struct pd_str *name;            /* of the n */
    struct pd_explain_drop *drop;
    size_t used;                    /* bytes of texts */
    char *texts;
};

/* With room for these and for texts of so many bytes in all; NULL when memory is short.
 * Gives one reference. */
struct pd_explain_roster *pd_explain_roster_make(uint32_t n, uint32_t columns, uint32_t drops, size_t bytes);
/* Copies a text into it. */
struct pd_str pd_explain_roster_text(struct pd_explain_roster *r, const char *text);
void pd_explain_roster_free(struct pd_explain_roster *r);
/* Gives a reference back; NULL is allowed. */
static inline void pd_explain_roster_put(struct pd_explain_roster *r)
{
    if (r != NULL && --r->refs == 0)
        pd_explain_roster_free(r);
}

#endif
