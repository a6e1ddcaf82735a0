/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of explanation of one request, packed into a fixed piece of
 * memory. */
#ifndef PD_REQ_EXPLAIN_H
#define PD_REQ_EXPLAIN_H

#include <pdplane/req.h>

/* Room that only lines of general weight (profile, pick, decision, note) may
 * use, so that many candidates never hide the result. */
#define PD_EXPLAIN_RESERVE 640u
#define PD_EXPLAIN_MIN (PD_EXPLAIN_RESERVE + 384u)

/* Rosters that one explanation may refer to. */
#define PD_EXPLAIN_ROSTERS 2u

struct pd_explain {
    uint8_t *bytes;         /* first, or own */
    uint8_t *first;         /* borrowed */
    uint8_t *own;           /* allocated when first is too small, and kept for the next request
                               unless it is large; NULL: none */
    uint32_t first_cap;
    uint32_t cap;           /* of bytes */
    uint32_t max;           /* to which it may grow */
    uint32_t used;
    uint32_t lost;
    bool skip_scores;       /* the candidate before did not fit */
    struct pd_explain_roster *roster[PD_EXPLAIN_ROSTERS];   /* references; NULL: free */
};

/* bytes: borrowed, for as much as usually comes; max: at least cap. */
void pd_explain_init(struct pd_explain *e, uint8_t *bytes, uint32_t cap, uint32_t max);
void pd_explain_fini(struct pd_explain *e);
/* Empty again. */
void pd_explain_reset(struct pd_explain *e);
/* As reset, with room for max bytes from here on. */
void pd_explain_begin(struct pd_explain *e, uint32_t max);
/* Packs a copy; a line without room is counted in `lost`. */
void pd_explain_add(struct pd_explain *e, const struct pd_explain_line *line);
/* The same for the lines that a table stands for; rows without room are counted
 * line by line. */
void pd_explain_add_table(struct pd_explain *e, const struct pd_explain_table *table);
/* The same for a run; false: it needs a roster too many. */
bool pd_explain_add_run(struct pd_explain *e, const struct pd_explain_run *run);
/* *cursor = 0 first; false at the end.  Strings are borrowed until reset. */
bool pd_explain_next(const struct pd_explain *e, uint32_t *cursor, struct pd_explain_line *out);

#endif
