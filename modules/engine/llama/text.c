/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary: pieces are taken once, so that they stay where they are. */
#include "text.h"

#include "lib.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_MOST = 4096 };

static pd_status take_pieces(struct ll_text *t)
{
    char piece[PIECE_MOST];
    size_t used = 0, room = (size_t)t->size * 8 + PIECE_MOST;

    t->start = calloc((size_t)t->size + 1, sizeof(*t->start));
    t->bytes = malloc(room);
    if (t->start == NULL || t->bytes == NULL)
        return PD_ENOMEM;
    t->longest = 1;
    for (uint32_t id = 0; id < t->size; id++) {
        int32_t n = llama_token_to_piece(t->vocab, (llama_token)id, piece, sizeof(piece), 0, false);
        if (n < 0)
            return PD_ELIMIT;
        if (used + (uint32_t)n > room) {
            char *more = realloc(t->bytes, room * 2);
            if (more == NULL)
                return PD_ENOMEM;
            t->bytes = more;
            room *= 2;
        }
        memcpy(t->bytes + used, piece, (size_t)n);
        used += (uint32_t)n;
        t->start[id + 1] = (uint32_t)used;
        t->longest = (uint32_t)n > t->longest ? (uint32_t)n : t->longest;
    }
    return used <= UINT32_MAX ? PD_OK : PD_ELIMIT;
}

static int by_length(const void *a, const void *b)
{
    const struct ll_control *x = a, *y = b;

    return x->n != y->n ? (x->n < y->n ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

static bool is_control(const struct ll_text *t, uint32_t id)
{
    const char *text = llama_vocab_get_text(t->vocab, (llama_token)id);

    return text != NULL && text[0] != '\0' &&
           (llama_vocab_get_attr(t->vocab, (llama_token)id) & LLAMA_TOKEN_ATTR_CONTROL) != 0;
}

static pd_status take_controls(struct ll_text *t)
{
    uint32_t n = 0;

    for (uint32_t id = 0; id < t->size; id++)
        n += is_control(t, id);
    t->controls = calloc((size_t)n + 1, sizeof(*t->controls));
    if (t->controls == NULL)
        return PD_ENOMEM;
    for (uint32_t id = 0; id < t->size; id++)
        if (is_control(t, id)) {
            const char *text = llama_vocab_get_text(t->vocab, (llama_token)id);
            t->controls[t->n_controls++] = (struct ll_control){ (int32_t)id, (uint32_t)strlen(text), text };
        }
    qsort(t->controls, t->n_controls, sizeof(*t->controls), by_length);
    return PD_OK;
}

pd_status ll_text_open(struct ll_text *t, const struct llama_model *model, const char *name, const char *file,
                       struct pd_err *err)
{
    const char *own = llama_model_chat_template(model, NULL);
    pd_status s;

    t->vocab = llama_model_get_vocab(model);
    t->size = (uint32_t)llama_vocab_n_tokens(t->vocab);
    if (t->size == 0 || llama_vocab_type(t->vocab) == LLAMA_VOCAB_TYPE_NONE)
        return ll_err(err, PD_EINVAL, file, "the model has no vocabulary");
    s = take_pieces(t);
    if (s == PD_OK)
        s = take_controls(t);
    if (s != PD_OK)
        return ll_err(err, s, file, s == PD_ENOMEM ? "out of memory" : "the vocabulary has pieces above 4096 bytes");
    if (name[0] != '\0' && !ll_chat_is_known(name)) {
        ll_err(err, PD_EINVAL, NULL, "chat_template is \"%.100s\", which libllama does not know", name);
        return PD_EINVAL;
    }
    t->chat = name[0] != '\0' ? name : own != NULL && ll_chat_is_known(own) ? own : NULL;
    return PD_OK;
}

void ll_text_close(struct ll_text *t)
{
    free(t->start);
    free(t->bytes);
    free(t->controls);
}

struct pd_str ll_text_piece(const struct ll_text *t, int32_t id)
{
    if (id < 0 || (uint32_t)id >= t->size)
        return PD_STR("");
    return (struct pd_str){ t->bytes + t->start[id], t->start[id + 1] - t->start[id] };
}

pd_status ll_text_add(const struct ll_text *t, struct pd_str text, bool with_special, struct ll_ids *to)
{
    size_t room = to->n < to->cap ? to->cap - to->n : 0;
    int32_t n;

    if (text.n > INT32_MAX)
        return PD_ELIMIT;
    n = llama_tokenize(t->vocab, text.n > 0 ? text.p : "", (int32_t)text.n, to->ids + (room > 0 ? to->n : 0),
                       room < INT32_MAX ? (int32_t)room : INT32_MAX, with_special, false);
    if (n == INT32_MIN)
        return PD_ELIMIT;
    to->n += (size_t)(n < 0 ? -n : n);
    return PD_OK;
}

pd_status ll_text_encode(const struct ll_text *t, struct pd_str text, int32_t *ids, size_t cap, size_t *n)
{
    struct ll_ids to = { ids, cap, 0 };
    pd_status s;

    /* a text that cannot fit is not looked at: the loop waits meanwhile */
    *n = text.n / t->longest;
    if (*n > cap)
        return PD_ELIMIT;
    if (!eng_utf8_valid(text))
        return PD_EINVAL;
    s = ll_text_add(t, text, true, &to);
    *n = to.n;
    return s == PD_OK && to.n > cap ? PD_ELIMIT : s;
}
