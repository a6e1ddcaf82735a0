/* SPDX-License-Identifier: Apache-2.0 */
/* Text to tokens and back, through the model's vocabulary.  Nothing here changes
 * after ll_text_open. */
#ifndef LL_TEXT_H
#define LL_TEXT_H

#include <llama.h>

#include <pdplane/engine.h>

struct ll_control;

struct ll_text {
    const struct llama_vocab *vocab;
    uint32_t size;                  /* tokens in the vocabulary */
    uint32_t longest;               /* bytes of the longest piece */
    uint32_t *start;                /* size + 1 offsets into bytes */
    char *bytes;                    /* all pieces */
    struct ll_control *controls;    /* longest text first */
    uint32_t n_controls;
    const char *chat;               /* template, NULL: none that is known; borrowed from the model or
                                       from the configuration */
};

/* name: a template that the library knows, or empty for the model's own.  PD_OK,
 * or err; a model's own template that the library does not know is no error. */
pd_status ll_text_open(struct ll_text *t, const struct llama_model *model, const char *name, const char *file,
                       struct pd_err *err);
void ll_text_close(struct ll_text *t);

struct pd_str ll_text_piece(const struct ll_text *t, int32_t id);

/* As encode and encode_chat of engine.h. */
pd_status ll_text_encode(const struct ll_text *t, struct pd_str text, int32_t *ids, size_t cap, size_t *n);
pd_status ll_text_encode_chat(const struct ll_text *t, const struct pd_message *messages, size_t count,
                              int32_t *ids, size_t cap, size_t *n);

/* chat.c: whether the library renders this template. */
bool ll_chat_is_known(const char *chat);

struct ll_control {
    int32_t id;
    uint32_t n;
    const char *text;               /* borrowed from the vocabulary */
};

/* Ids that grow into the caller's array; n goes on counting behind its end. */
struct ll_ids {
    int32_t *ids;
    size_t cap, n;
};
/* Appends a text, in which nothing is special. */
pd_status ll_text_add(const struct ll_text *t, struct pd_str text, bool with_special, struct ll_ids *to);

#endif
