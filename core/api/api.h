/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of <pdplane/api.h>: one struct pd_api per node, with the
 * scratch memory of its encoders.  Loop thread. */
#ifndef PD_API_API_H
#define PD_API_API_H

#include <pdplane/api.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/list.h"
#include "base/wire.h"

/* Longest request id, model name, engine name, salt in a message between nodes. */
#define PD_API_NAME_MAX 256u
#define PD_API_SALT_MAX 1024u
#define PD_API_PROMPT_MAX (8u << 20)     /* bytes of one prompt */
#define PD_API_TOKENS_MAX (1u << 20)     /* tokens of one prompt */
#define PD_API_MESSAGES_MAX 4096u
#define PD_API_FAMILIES 16u              /* members whose names begin alike, in one request */
#define PD_API_STOP_MAX 1024u            /* bytes of one stop string */
#define PD_API_SCRATCH_MAX (16u << 20)

struct pd_api {
    struct pd_buf scratch;
    struct pd_leg_top top[PD_API_MAX_TOP];
    struct pd_json_paths *paths;       /* what a request is scanned for */
    struct pd_buf found;               /* messages of the scan under way */
    struct pd_json_value values[PD_JSON_MAX_PATHS];
    struct pd_json_value families[PD_API_FAMILIES];   /* members of families, of that scan */
    struct pd_list pool;               /* of parsed requests */
    uint32_t n_pool;
};

/* Gives: pd_api_destroy.  PD_OK, PD_ENOMEM. */
pd_status pd_api_create(struct pd_api **out);
void pd_api_destroy(struct pd_api *api);
/* The table that roles get. */
const struct pd_api_table *pd_api_functions(void);

/* Members of the table, one file each. */
pd_status pd_api_request_parse(struct pd_api *api, uint32_t kind, struct pd_str body,
                               const struct pd_api_limits *limits, struct pd_api_request **out,
                               struct pd_api_error *error);
void pd_api_request_free(struct pd_api *api, struct pd_api_request *request);
pd_status pd_api_request_texts(struct pd_api *api, struct pd_api_request *request);
/* For the object above: the compiled paths, and the end of the pool. */
pd_status pd_api_request_paths(struct pd_json_paths **out);
void pd_api_request_pool_fini(struct pd_api *api);
pd_status pd_api_request_scope(struct pd_api *api, struct pd_api_request *request, struct pd_str tenant);
pd_status pd_api_request_forward(struct pd_api *api, const struct pd_api_request *request,
                                 struct pd_str model, bool adds_salt, struct pd_str *out);

bool pd_api_request_has(struct pd_api *api, const struct pd_api_request *request, const char *key);
pd_status pd_api_request_edit(struct pd_api *api, const struct pd_api_request *request,
                              const struct pd_api_edit *changes, uint32_t n_changes, struct pd_iov *iov,
                              size_t *n_iov);

/* The path of the first member that only we may set; empty: there is none. */
struct pd_str pd_api_request_hint(struct pd_api *api, const struct pd_api_request *request);

/* hint.c */
bool pd_api_is_hint(struct pd_str key);
/* Adds such members of an object to out.  PD_OK, PD_ELIMIT (more than cap), PD_ENOMEM. */
pd_status pd_api_hints_in(const struct pd_json_value *object, struct pd_arena *arena,
                          struct pd_json_value *out, size_t cap, size_t *n);

void pd_api_error_set(struct pd_api_error *error, uint32_t http, const char *type, const char *code,
                      const char *message_fmt, ...) PD_PRINTF(5, 6);
/* The error object alone, without the outer braces' key: {"message":...}. */
void pd_api_error_put(struct pd_buf *b, const struct pd_api_error *error);
pd_status pd_api_error_write(struct pd_api *api, const struct pd_api_error *error,
                             struct pd_str *out);
pd_status pd_api_models_write(struct pd_api *api, const struct pd_api_model *models, uint32_t n,
                              struct pd_str *out);
pd_status pd_api_model_write(struct pd_api *api, const struct pd_api_model *model,
                             struct pd_str *out);
pd_status pd_api_models_read(struct pd_api *api, struct pd_str body, struct pd_str *ids,
                             uint32_t cap, uint32_t *n);

/* A writer into the scratch memory with room for `bound` bytes, and what it
 * wrote.  PD_OK, PD_ELIMIT, PD_ENOMEM. */
pd_status pd_api_scratch_open(struct pd_api *api, size_t bound, struct pd_writer *w);
pd_status pd_api_scratch_close(struct pd_api *api, const struct pd_writer *w, struct pd_str *out);
/* A string that the other side would refuse fails the writer. */
void pd_api_put_str16(struct pd_writer *w, struct pd_str s, size_t max);

pd_status pd_api_leg_encode(struct pd_api *api, const struct pd_leg *leg, struct pd_str *out);
pd_status pd_api_order_encode(struct pd_api *api, const struct pd_leg_order *order,
                              struct pd_str *out);
pd_status pd_api_leg_decode(struct pd_api *api, struct pd_str bytes, struct pd_api_message **out);
pd_status pd_api_order_decode(struct pd_api *api, struct pd_str bytes, struct pd_api_message **out);
void pd_api_message_free(struct pd_api *api, struct pd_api_message *message);

pd_status pd_api_started_encode(struct pd_api *api, const struct pd_leg_started *m,
                                struct pd_str *out);
pd_status pd_api_started_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_started *m);
pd_status pd_api_handover_encode(struct pd_api *api, const struct pd_leg_handover *m,
                                 struct pd_str *out);
pd_status pd_api_handover_decode(struct pd_api *api, struct pd_str bytes,
                                 struct pd_leg_handover *m);
pd_status pd_api_token_encode(struct pd_api *api, const struct pd_leg_token *m, struct pd_str *out);
pd_status pd_api_token_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_token *m);
pd_status pd_api_end_encode(struct pd_api *api, const struct pd_leg_end *m, struct pd_str *out);
pd_status pd_api_end_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_end *m);

pd_status pd_api_text_create(struct pd_api *api, const struct pd_str *stops, uint32_t n,
                             struct pd_text **out);
void pd_api_text_destroy(struct pd_api *api, struct pd_text *text);
pd_status pd_api_text_add(struct pd_text *text, struct pd_str piece, struct pd_str *out,
                          uint32_t *stopped);
pd_status pd_api_text_end(struct pd_text *text, struct pd_str *out);

pd_status pd_api_answer_create(struct pd_api *api, const struct pd_api_request *request,
                               struct pd_str id, struct pd_str model, uint64_t created,
                               struct pd_answer **out);
void pd_api_answer_destroy(struct pd_api *api, struct pd_answer *answer);
pd_status pd_api_answer_token(struct pd_answer *answer, uint32_t leg,
                              const struct pd_leg_token *token, struct pd_str *out);
pd_status pd_api_answer_end(struct pd_answer *answer, uint32_t leg, const struct pd_leg_end *end,
                            struct pd_str *out);
pd_status pd_api_answer_done(struct pd_answer *answer, struct pd_str *out);
pd_status pd_api_answer_error(struct pd_answer *answer, const struct pd_api_error *error,
                              struct pd_str *out);
pd_status pd_api_answer_body(struct pd_answer *answer, struct pd_str *out);

#endif
