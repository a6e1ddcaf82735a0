/* SPDX-License-Identifier: Apache-2.0 */
/* The requests of a node: one record for each request that this node has a
 * part in, live ones and the last finished ones.  Second tier: bound to the
 * exact version of pdplane.
 *
 *     const struct pd_req_api *r = pd_host()->table(host, PD_REQ_TABLE, PD_REQ_VERSION);
 *     struct pd_reqs *reqs = pd_host()->object(host, PD_REQ_TABLE);
 *     struct pd_req *req;
 *     pd_status st = r->begin(reqs, id, PD_ROLE_ROUTER, now, &req);
 *
 * The owner of a live record writes its plain members itself; texts, stage, outcome
 * and times change through the functions only.  All functions: loop thread.
 * Times are the caller's pd_loop_now. */
#ifndef PDPLANE_REQ_H
#define PDPLANE_REQ_H

#include <pdplane/scheduler.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_REQ_TABLE "req"
#define PD_REQ_VERSION 1u

#define PD_REQ_ID_MAX 64       /* bytes of an id, without the zero byte */
#define PD_REQ_TEXT_MAX 127    /* of a model, a name, a reason ... */

/* Where a request is.  Numbers are the stages S0..S12 of the fault matrix.  A
 * node enters those that it takes part in; a retry may go back.
 *   name, number, text */
#define PD_REQ_STAGE_TABLE(X)                                                  \
    X(PD_REQ_ACCEPTED, 0, "accepted")                                          \
    X(PD_REQ_HEADER, 1, "reading header")                                      \
    X(PD_REQ_BODY, 2, "reading body")                                          \
    X(PD_REQ_QUEUED, 3, "queued")                                              \
    X(PD_REQ_PREFILL_SENT, 4, "prefill sent")                                  \
    X(PD_REQ_PREFILLING, 5, "prefilling")                                      \
    X(PD_REQ_PREFILLED, 6, "prefilled")                                        \
    X(PD_REQ_DECODE_SENT, 7, "decode sent")                                    \
    X(PD_REQ_MOVING, 8, "moving kv")                                           \
    X(PD_REQ_VERIFIED, 9, "kv verified")                                       \
    X(PD_REQ_DECODING, 10, "decoding")                                         \
    X(PD_REQ_FINISHING, 11, "finishing")                                       \
    X(PD_REQ_ENDED, 12, "ended")

enum {
#define PD_REQ_STAGE_ENUM(name, number, text) name = number,
    PD_REQ_STAGE_TABLE(PD_REQ_STAGE_ENUM)
#undef PD_REQ_STAGE_ENUM
    PD_REQ_STAGES = 13
};

/* How it ended.  accepted = live + the sum of the others, always. */
#define PD_REQ_OUTCOME_TABLE(X)                                                \
    X(PD_REQ_LIVE, 0, "live")                                                  \
    X(PD_REQ_OK, 1, "ok")                                                      \
    X(PD_REQ_CLIENT_ERROR, 2, "client_error")                                  \
    X(PD_REQ_UPSTREAM_ERROR, 3, "upstream_error")                              \
    X(PD_REQ_CANCELLED, 4, "cancelled")                                        \
    X(PD_REQ_SHED, 5, "shed")

enum {
#define PD_REQ_OUTCOME_ENUM(name, number, text) name = number,
    PD_REQ_OUTCOME_TABLE(PD_REQ_OUTCOME_ENUM)
#undef PD_REQ_OUTCOME_ENUM
    PD_REQ_OUTCOMES = 6
};

enum {
    PD_REQ_API_NONE = 0,       /* a leg that came over the peer link */
    PD_REQ_API_CHAT = 1,
    PD_REQ_API_COMPLETIONS = 2,
    PD_REQ_API_OTHER = 3
};

struct pd_req {
    uint32_t size;
    uint32_t role;             /* what this node does for it, one of PD_ROLE_* */
    uint64_t number;           /* unique in this run of the node, from 1 */
    char id[PD_REQ_ID_MAX + 1];
    /* Set by text(); never NULL, borrowed until the next text() or finish(). */
    const char *model;
    const char *code;          /* set by finish(): "kv_integrity"; empty when ok */
    const char *decode, *prefill;  /* endpoint names */
    const char *reason;        /* of the decision */
    const char *transport;     /* that moved the KV */
    const char *key;           /* label of the key that the client showed; empty: none */
    uint32_t stage;            /* PD_REQ_ACCEPTED ...; set by stage() */
    uint32_t outcome;          /* PD_REQ_LIVE ...; set by finish() */
    uint32_t http_status;      /* set by finish(); 0 when none was sent */
    pd_time at[PD_REQ_STAGES]; /* when the stage was last entered; 0 never */
    pd_time first_token;       /* set by tokens(); 0 none yet */
    pd_time last_token;

    /* The owner's from here on; zero or empty at the start. */
    uint32_t api;              /* PD_REQ_API_* */
    uint32_t stream;           /* 1: server-sent events */
    uint32_t prompt_tokens;
    uint32_t cached_tokens;    /* of these, found in a cache */
    uint32_t output_tokens;    /* counted by tokens() */
    uint32_t attempts;         /* dispatches, first included */
    uint32_t decision;         /* PD_DECIDE_*; 0: none was made */
    uint32_t remote;           /* 1: the prompt was computed on another node */
    uint64_t kv_bytes;
    uint64_t handover_ns;      /* first byte posted to verdict */
    uint32_t kv_blocks;
    uint32_t digests;          /* block digests verified */
    void *user;                /* owner's object while live; NULL afterwards */
};

/* One line of "why": what the scheduler saw and did. */
enum {
    PD_EXPLAIN_PROFILE = 1,    /* profile begins: subject = its name, value = candidates */
    PD_EXPLAIN_DROPPED = 2,    /* subject = endpoint, plugin = the filter that dropped it */
    PD_EXPLAIN_CANDIDATE = 3,  /* subject = endpoint, value = total, extra = matched blocks */
    PD_EXPLAIN_SCORE = 4,      /* of the candidate before: plugin, value = score, extra = weight */
    PD_EXPLAIN_PICKED = 5,     /* subject = endpoint, plugin = the picker, value = total */
    PD_EXPLAIN_DECISION = 6,   /* subject = local, remote or exact; plugin = the decider; text */
    PD_EXPLAIN_NOTE = 7        /* text: a retry, a failure, stale load ... */
};

struct pd_explain_line {
    uint32_t kind;             /* PD_EXPLAIN_* */
    uint32_t reserved;
    struct pd_str subject;     /* each string is cut to 255 bytes */
    struct pd_str plugin;
    struct pd_str text;
    double value;
    double extra;
};

/* Many candidates with their scores at once; it stands for a PD_EXPLAIN_CANDIDATE
 * line for each row with a PD_EXPLAIN_SCORE line for each column behind it. */
struct pd_explain_column {
    struct pd_str plugin;
    double weight;
};
struct pd_explain_row {
    struct pd_str subject;
    double total;
    double match;              /* blocks */
};
struct pd_explain_table {
    uint32_t rows;             /* at most PD_EXPLAIN_ROWS */
    uint32_t columns;          /* at most PD_EXPLAIN_COLUMNS */
    const struct pd_explain_row *row;
    const struct pd_explain_column *column;
    const double *score;       /* rows x columns */
};
#define PD_EXPLAIN_ROWS 16u
#define PD_EXPLAIN_COLUMNS 16u

/* A whole run of a profile whose names stand in a roster (core/req/roster.h): it stands
 * for the lines PROFILE, DROPPED, NOTE (stale reports), CANDIDATE with its SCOREs, and
 * PICKED.  Rows keep seven digits of a score. */
struct pd_explain_roster;
struct pd_endpoint_view;
struct pd_explain_run {
    struct pd_explain_roster *roster;  /* who keeps it takes a reference */
    const uint32_t *picked;    /* of its candidates, best first */
    uint32_t picks;
    uint32_t rows;             /* candidates to show, those first, then in their order */
    uint32_t without;          /* an endpoint that is not to be told about, its slot + 1; 0: none */
    uint32_t stride;
    const struct pd_endpoint_view *views;  /* for their match_blocks */
    const double *score;       /* a column of `stride` for each scorer */
    const uint32_t *matched;   /* candidates with match_blocks above 0 */
    uint32_t matched_n;
    uint32_t reserved;
};

/* Where lines go; line == NULL: nobody wants them.  Strings are borrowed for
 * the call. */
struct pd_explain_sink {
    void (*line)(void *arg, const struct pd_explain_line *line);
    void *arg;
    void (*table)(void *arg, const struct pd_explain_table *table); /* NULL: as lines */
    /* False: it was not taken, as lines and tables then.  NULL: never. */
    bool (*run)(void *arg, const struct pd_explain_run *run);
};

struct pd_req_counts {
    uint64_t accepted;
    uint64_t outcome[PD_REQ_OUTCOMES];  /* index PD_REQ_LIVE: live now */
};

struct pd_reqs;

struct pd_req_api {
    uint32_t size;
    uint32_t version;          /* PD_REQ_VERSION */

    /* Accepts a request.  id: 1 to 64 bytes, need not be unique; empty makes
     * one from the number.  Longer ids are cut.  PD_OK; PD_ELIMIT when too
     * many are live, PD_ENOMEM: both are counted as accepted and shed. */
    pd_status (*begin)(struct pd_reqs *reqs, struct pd_str id, uint32_t role, pd_time now,
                       struct pd_req **out);
    /* Enters a stage, which must not be PD_REQ_ENDED. */
    void (*stage)(struct pd_reqs *reqs, struct pd_req *req, uint32_t stage, pd_time now);
    /* n more tokens came out, n above 0. */
    void (*tokens)(struct pd_reqs *reqs, struct pd_req *req, uint32_t n, pd_time now);
    /* Ends it, once: outcome is not PD_REQ_LIVE, code may be empty.  Takes req:
     * the caller must forget it. */
    void (*finish)(struct pd_reqs *reqs, struct pd_req *req, uint32_t outcome, uint32_t http_status,
                   struct pd_str code, pd_time now);

    /* Attaches one line of explanation, up to the record's room; what does not
     * fit is counted.  The signature is that of a sink's `line`:
     * struct pd_explain_sink sink = { r->explain, req }; */
    void (*explain)(void *req, const struct pd_explain_line *line);
    /* A PD_EXPLAIN_NOTE with this text. */
    void (*note)(struct pd_req *req, const char *fmt, ...) PD_PRINTF(2, 3);
    /* Reads the lines back: *cursor = 0 first, false at the end.  Strings are
     * borrowed until the record changes. */
    bool (*explain_next)(const struct pd_req *req, uint32_t *cursor, struct pd_explain_line *out);
    /* Lines that did not fit. */
    uint32_t (*explain_lost)(const struct pd_req *req);

    /* The newest record with this id, live ones first, or by number when id is
     * a number and no id equals it.  NULL when there is none.  Borrowed until
     * the next call that changes the registry. */
    const struct pd_req *(*find)(const struct pd_reqs *reqs, struct pd_str id);
    /* Walks live records (oldest first), then finished ones (newest first);
     * *cursor = 0 first, false at the end.  No record may begin or finish
     * meanwhile. */
    bool (*next)(const struct pd_reqs *reqs, uint64_t *cursor, const struct pd_req **out);
    void (*counts)(const struct pd_reqs *reqs, struct pd_req_counts *out);

    const char *(*stage_name)(uint32_t stage);      /* never NULL */
    const char *(*outcome_name)(uint32_t outcome);  /* never NULL */

    /* The `table` of a sink; struct pd_explain_sink sink = { r->explain, req, r->explain_table }; */
    void (*explain_table)(void *req, const struct pd_explain_table *table);

    /* One observer of all records, NULL for none: called at each begin, stage
     * and tokens, behind the change and before the owner goes on.  It only
     * looks. */
    void (*watch)(struct pd_reqs *reqs, void (*on_step)(const struct pd_req *req, void *arg), void *arg);

    /* The `run` of a sink. */
    bool (*explain_run)(void *req, const struct pd_explain_run *run);

    /* Sets a text of req: text(reqs, req, &req->model, s).  It is copied, and cut to
     * PD_REQ_TEXT_MAX bytes. */
    void (*text)(struct pd_reqs *reqs, struct pd_req *req, const char **text, struct pd_str s);
};

#ifdef __cplusplus
}
#endif
#endif
