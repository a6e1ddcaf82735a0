/* SPDX-License-Identifier: Apache-2.0 */
/* Chat prompts: the template of the model file, recognised and rendered
 * without a template language. */
#ifndef REF_CHAT_H
#define REF_CHAT_H

#include "vocab.h"

struct ref_chat_message {
    struct pd_str role, content;
};

struct ref_chat {
    uint32_t start, end;        /* ids of <|im_start|> and <|im_end|> */
    bool known;                 /* the model file has a template */
};

/* Recognises the template of a model file.  A file without template gives
 * PD_OK and known = false.  Returns PD_EINVAL with *err for an unknown one. */
pd_status ref_chat_load(const struct ref_gguf *g, const struct ref_vocab *v, struct ref_chat *c,
                        struct pd_err *err);

/* True when a Jinja text means plain ChatML. */
bool ref_chat_is_chatml(struct pd_str jinja);

/* Appends the ids of a conversation and, if answer, of the start of an answer.
 * Roles are system, user and assistant.  Contents are plain text: markers in
 * them are encoded as text.  Returns PD_OK, PD_ENOSYS (no template), PD_EINVAL
 * (no message or unknown role), PD_ELIMIT or PD_ENOMEM. */
pd_status ref_chat_encode(const struct ref_chat *c, const struct ref_vocab *v,
                          const struct ref_chat_message *m, size_t n, bool answer, struct ref_ids *to);

#endif
