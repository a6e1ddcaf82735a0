/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations.  The library renders its templates as text; a message's content
 * takes part in that as a mark, so that the markers of the template become control
 * tokens and what looks like a marker in a message stays text. */
#include "text.h"

#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARK_MOST = 24, MARK_BEGIN = 2, MARK_END = 3 };

static const char *const roles[] = { "system", "user", "assistant" };

bool ll_chat_is_known(const char *chat)
{
    struct llama_chat_message m = { "user", "x" };

    return llama_chat_apply_template(chat, &m, 1, true, NULL, 0) > 0;
}

static const char *role_of(struct pd_str s)
{
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (s.n == strlen(roles[i]) && memcmp(s.p, roles[i], s.n) == 0)
            return roles[i];
    return NULL;
}

/* What is being made of the rendered text. */
struct render {
    const struct ll_text *t;
    const struct pd_message *messages;
    size_t count;
    char *text;                     /* collected since the last control token */
    size_t n, room;
    struct ll_ids to;
};

static pd_status collect(struct render *r, struct pd_str s)
{
    if (s.n > r->room - r->n) {
        size_t room = (r->n + s.n) * 2 + 256;
        char *more = realloc(r->text, room);
        if (more == NULL)
            return PD_ENOMEM;
        r->text = more;
        r->room = room;
    }
    if (s.n > 0)
        memcpy(r->text + r->n, s.p, s.n);
    r->n += s.n;
    return PD_OK;
}

static pd_status flush(struct render *r)
{
    pd_status s = r->n > 0 ? ll_text_add(r->t, (struct pd_str){ r->text, r->n }, false, &r->to) : PD_OK;

    r->n = 0;
    return s;
}

static pd_status add_control(struct render *r, int32_t id)
{
    pd_status s = flush(r);

    if (r->to.n < r->to.cap)
        r->to.ids[r->to.n] = id;
    r->to.n++;
    return s;
}

static const struct ll_control *control_at(const struct ll_text *t, const char *p, size_t n)
{
    for (uint32_t i = 0; i < t->n_controls; i++) {
        const struct ll_control *c = &t->controls[i];
        if (c->n <= n && c->text[0] == *p && memcmp(c->text, p, c->n) == 0)
            return c;
    }
    return NULL;
}

/* The message whose mark stands here, or NULL; *n is the length of the mark. */
static const struct pd_message *mark_at(const struct render *r, const char *p, size_t left, size_t *n)
{
    size_t i = 0, k = 1;

    if (*p != MARK_BEGIN)
        return NULL;
    while (k < left && k < MARK_MOST && p[k] >= '0' && p[k] <= '9')
        i = i * 10 + (size_t)(p[k++] - '0');
    if (k == left || p[k] != MARK_END || i >= r->count)
        return NULL;
    *n = k + 1;
    return &r->messages[i];
}

static pd_status walk(struct render *r, const char *p, size_t left)
{
    int32_t bos = llama_vocab_bos(r->t->vocab);
    const struct ll_control *c = left > 0 ? control_at(r->t, p, left) : NULL;
    pd_status s = PD_OK;
    size_t n;

    if (llama_vocab_get_add_bos(r->t->vocab) && bos >= 0 && (c == NULL || c->id != bos))
        s = add_control(r, bos);
    for (; left > 0 && s == PD_OK; p += n, left -= n) {
        const struct pd_message *m = mark_at(r, p, left, &n);
        c = m == NULL ? control_at(r->t, p, left) : NULL;
        if (m == NULL)
            n = c != NULL ? c->n : 1;
        if (m != NULL)
            s = collect(r, m->content);
        else
            s = c != NULL ? add_control(r, c->id) : collect(r, (struct pd_str){ p, 1 });
    }
    return s == PD_OK ? flush(r) : s;
}

/* The rendered text in memory of its own. */
static char *apply(const struct ll_text *t, const struct llama_chat_message *chat, size_t count, size_t *n)
{
    int32_t need = llama_chat_apply_template(t->chat, chat, count, true, NULL, 0);
    char *out = need > 0 ? malloc((size_t)need + 1) : NULL;

    if (out == NULL)
        return NULL;
    if (llama_chat_apply_template(t->chat, chat, count, true, out, need + 1) != need) {
        free(out);
        return NULL;
    }
    *n = (size_t)need;
    return out;
}

static pd_status encode(const struct ll_text *t, const struct pd_message *messages, size_t count,
                        struct llama_chat_message *chat, char (*marks)[MARK_MOST], struct ll_ids *to)
{
    struct render r = { .t = t, .messages = messages, .count = count, .to = *to };
    char *text;
    size_t n;
    pd_status s;

    for (size_t i = 0; i < count; i++) {
        if (!eng_utf8_valid(messages[i].content))
            return PD_EINVAL;
        chat[i].role = role_of(messages[i].role);
        if (chat[i].role == NULL)
            return PD_EDECLINED;
        snprintf(marks[i], MARK_MOST, "%c%zu%c", MARK_BEGIN, i, MARK_END);
        chat[i].content = marks[i];
    }
    text = apply(t, chat, count, &n);
    if (text == NULL)
        return PD_ENOMEM;
    s = walk(&r, text, n);
    free(text);
    free(r.text);
    *to = r.to;
    return s;
}

pd_status ll_text_encode_chat(const struct ll_text *t, const struct pd_message *messages, size_t count,
                              int32_t *ids, size_t cap, size_t *n)
{
    struct llama_chat_message *chat;
    char (*marks)[MARK_MOST];
    struct ll_ids to = { ids, cap, 0 };
    pd_status s = PD_ENOMEM;

    *n = 0;
    if (count == 0)
        return PD_EINVAL;
    if (t->chat == NULL)
        return PD_ENOSYS;
    *n = count;                 /* each message has at least a marker */
    for (size_t i = 0; i < count && *n <= cap; i++)
        *n += messages[i].content.n / t->longest;
    if (*n > cap)
        return PD_ELIMIT;
    chat = calloc(count, sizeof(*chat));
    marks = calloc(count, sizeof(*marks));
    if (chat != NULL && marks != NULL)
        s = encode(t, messages, count, chat, marks, &to);
    free(chat);
    free(marks);
    *n = to.n;
    return s == PD_OK && to.n > cap ? PD_ELIMIT : s;
}
