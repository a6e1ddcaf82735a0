/* SPDX-License-Identifier: Apache-2.0 */
/* The SentencePiece-style tokenizer of a GGUF file (tokenizer.ggml.model
 * "llama"): text to token ids and back. */
#ifndef REF_VOCAB_H
#define REF_VOCAB_H

#include "gguf.h"

struct ref_vocab;

enum {
    REF_ENCODE_BOS = 1,         /* put the begin-of-text id in front, if the model wants one */
    REF_ENCODE_SPECIAL = 2      /* recognise special pieces; never for text of users */
};

/* A growing list of ids; starts zeroed, the owner frees ids. */
struct ref_ids {
    uint32_t *ids;
    size_t n, room, limit;      /* limit: most ids it may hold, 0 for the default of 2^24 */
};

/* Reads and checks the vocabulary.  Returns PD_OK or an error with *err filled.
 * g is borrowed for the call.  Gives *out; the object never changes, any thread
 * may use it. */
pd_status ref_vocab_load(const struct ref_gguf *g, struct ref_vocab **out, struct pd_err *err);
void ref_vocab_free(struct ref_vocab *v);

uint32_t ref_vocab_size(const struct ref_vocab *v);

/* Appends the ids of a text.  Returns PD_OK, PD_ELIMIT (text above 16 MiB or
 * more ids than the list may hold) or PD_ENOMEM. */
pd_status ref_vocab_encode(const struct ref_vocab *v, struct pd_str text, uint32_t flags,
                           struct ref_ids *to);

/* Fewer ids than this cannot stand for n bytes of text. */
size_t ref_vocab_least(const struct ref_vocab *v, size_t n);

/* Appends one id; as above. */
pd_status ref_ids_add(struct ref_ids *to, uint32_t id);

/* Bytes that a token stands for, none for control pieces and unknown ids;
 * borrowed from the vocabulary. */
struct pd_str ref_vocab_bytes(const struct ref_vocab *v, uint32_t id);

/* True when the token ends a text or a turn. */
bool ref_vocab_is_end(const struct ref_vocab *v, uint32_t id);

/* Id of a control piece with exactly this text; false when there is none. */
bool ref_vocab_special(const struct ref_vocab *v, const char *text, uint32_t *id);

#endif
