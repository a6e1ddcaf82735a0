/* SPDX-License-Identifier: Apache-2.0 */
/* Texts are only added; one that takes the place of another stands where that stood if it
 * is no longer.  When the room is used up, those that are still wanted move to a larger
 * one. */
#include "req/texts.h"

#include "base/compiler.h"
#include "base/mem.h"

#define STEP 64u

void pd_req_texts_init(struct pd_req_texts *t, char *bytes, uint32_t cap)
{
    *t = (struct pd_req_texts){ .bytes = bytes, .cap = (uint16_t)cap };
}

void pd_req_texts_fini(struct pd_req_texts *t)
{
    if (t->is_own)
        pd_free(t->bytes);
}

void pd_req_texts_begin(struct pd_req_texts *t, struct pd_req *req)
{
    t->used = 0;
    req->model = req->code = req->decode = req->prefill = req->reason = req->transport = req->key = "";
}

/* Moves all texts to where `more` bytes have room too. */
static bool grow(struct pd_req_texts *t, struct pd_req *req, size_t more)
{
    const char **const all[] = { &req->model, &req->code, &req->decode, &req->prefill,
                                 &req->reason, &req->transport, &req->key };
    size_t need = more, used = 0;

    for (size_t i = 0; i < PD_ARRAY_LEN(all); i++)
        need += strlen(*all[i]) + 1;
    need = (need + STEP + STEP - 1) / STEP * STEP;
    char *bytes = pd_alloc(need);
    if (bytes == NULL)
        return false;
    for (size_t i = 0; i < PD_ARRAY_LEN(all); i++) {
        size_t n = strlen(*all[i]) + 1;
        if (n == 1)
            continue;
        memcpy(bytes + used, *all[i], n);
        *all[i] = bytes + used;
        used += n;
    }
    pd_req_texts_fini(t);
    *t = (struct pd_req_texts){ bytes, (uint16_t)need, (uint16_t)used, true };
    return true;
}

void pd_req_texts_set_any(struct pd_req_texts *t, struct pd_req *req, const char **text, struct pd_str s)
{
    size_t n = PD_MIN(s.n, (size_t)PD_REQ_TEXT_MAX);
    char *at = (char *)(uintptr_t)*text;

    if (n == 0 || strlen(at) < n) {
        *text = "";
        if (n == 0 || (t->used + n + 1 > t->cap && !grow(t, req, n + 1)))
            return;
        at = t->bytes + t->used;
        t->used = (uint16_t)(t->used + n + 1);
    }
    memcpy(at, s.p, n);
    at[n] = '\0';
    *text = at;
}
