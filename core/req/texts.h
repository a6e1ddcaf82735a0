/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of one record, one behind the other at their true length. */
#ifndef PD_REQ_TEXTS_H
#define PD_REQ_TEXTS_H

#include <pdplane/req.h>

#include <string.h>

struct pd_req_texts {
    char *bytes;
    uint16_t cap;
    uint16_t used;
    bool is_own;            /* bytes is an allocation, made when the first ones were too few; it is
                               kept for the next request */
};

/* bytes: borrowed, for as much as usually comes. */
void pd_req_texts_init(struct pd_req_texts *t, char *bytes, uint32_t cap);
void pd_req_texts_fini(struct pd_req_texts *t);
/* All of req are empty. */
void pd_req_texts_begin(struct pd_req_texts *t, struct pd_req *req);

void pd_req_texts_set_any(struct pd_req_texts *t, struct pd_req *req, const char **text, struct pd_str s);
/* Copies s to a text of req, cut to PD_REQ_TEXT_MAX; without memory it is empty. */
static inline void pd_req_texts_set(struct pd_req_texts *t, struct pd_req *req, const char **text,
                                    struct pd_str s)
{
    size_t used = t->used + s.n + 1;

    if ((*text)[0] != '\0' || s.n - 1 >= PD_REQ_TEXT_MAX || used > t->cap) {
        pd_req_texts_set_any(t, req, text, s);
        return;
    }
    char *at = t->bytes + t->used;
    t->used = (uint16_t)used;
    at[s.n] = '\0';
    *text = (const char *)memcpy(at, s.p, s.n);
}

#endif
