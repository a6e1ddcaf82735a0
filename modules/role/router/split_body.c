/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of the two legs of a shared request: the client's bytes, with the few
 * members otherwise that the adapter names.  Nothing is rebuilt: a body is a list of
 * runs of the client's bytes with the texts kept here between them, and what the
 * prefill server answers goes on byte for byte. */
#include "split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/json.h>

static bool edit_is_legal(const struct pd_adapter_edit *e)
{
    return e->op >= PD_ADAPTER_SET && e->op <= PD_ADAPTER_SET_TAKEN && e->member.n > 0 &&
           e->member.n <= PD_ADAPTER_MAX_MEMBER && e->text.n <= PD_ADAPTER_MAX_VALUE &&
           (e->text.n > 0 || (e->op != PD_ADAPTER_SET && e->op != PD_ADAPTER_SET_GIVEN));
}

/* Most bytes that an edit's key and value take. */
static size_t room_of(const struct pd_adapter_edit *e)
{
    return e->member.n + 1 + e->text.n;
}

static char *body_put(char *p, struct split *s, uint32_t leg, const struct pd_adapter_edit *from, uint32_t n)
{
    struct split_body *b = &s->bodies[leg];
    b->n = 0;
    b->taken = n;
    for (uint32_t i = 0; i < n; i++) {
        struct pd_api_edit *e = &b->edits[b->n];
        memcpy(p, from[i].member.p, from[i].member.n);
        p[from[i].member.n] = '\0';
        *e = (struct pd_api_edit){
            .op = from[i].op == PD_ADAPTER_REMOVE ? PD_API_EDIT_REMOVE
                  : from[i].op == PD_ADAPTER_SET_GIVEN ? PD_API_EDIT_GIVEN : PD_API_EDIT_SET,
            .key = p,
        };
        p += from[i].member.n + 1;
        if (from[i].op == PD_ADAPTER_SET_TAKEN) {
            b->taken = b->n;
        } else if (from[i].op != PD_ADAPTER_REMOVE) {
            memcpy(p, from[i].text.p, from[i].text.n);
            e->text = (struct pd_str){ p, from[i].text.n };
            p += from[i].text.n;
        }
        b->n++;
    }
    return p;
}

pd_status split_bodies(struct split *s, const struct pd_adapter_split *from)
{
    size_t room = 0;
    if (from->n_prefill > PD_ADAPTER_MAX_EDITS || from->n_decode > PD_ADAPTER_MAX_EDITS ||
        from->take.n > PD_ADAPTER_MAX_MEMBER)
        return PD_EINVAL;
    for (uint32_t i = 0; i < from->n_prefill + from->n_decode; i++) {
        const struct pd_adapter_edit *e = i < from->n_prefill ? &from->prefill[i]
                                                              : &from->decode[i - from->n_prefill];
        if (!edit_is_legal(e) || (i < from->n_prefill && e->op == PD_ADAPTER_SET_TAKEN))
            return PD_EINVAL;
        room += room_of(e);
    }
    s->texts = malloc(room + 1);
    if (s->texts == NULL)
        return PD_ENOMEM;
    snprintf(s->take, sizeof s->take, "%.*s", PD_STR_ARG(from->take));
    char *p = body_put(s->texts, s, 0, from->prefill, from->n_prefill);
    body_put(p, s, 1, from->decode, from->n_decode);
    return PD_OK;
}

pd_status split_runs(struct split *s, uint32_t leg, bool knows_salt, struct pd_iov *iov, size_t *n)
{
    struct request *q = s->request;
    struct router *r = q->router;
    struct pd_api_edit edits[PD_API_EDITS_MAX];
    uint32_t n_edits = s->bodies[leg].n;
    memcpy(edits, s->bodies[leg].edits, n_edits * sizeof edits[0]);
    if (q->api->cache_salt.n > 0) {
        /* Ours, hex digits. */
        snprintf(s->salt, sizeof s->salt, "\"%.*s\"", PD_STR_ARG(q->api->cache_salt));
        edits[n_edits++] = (struct pd_api_edit){
            .op = knows_salt ? PD_API_EDIT_SET : PD_API_EDIT_GIVEN, .key = "cache_salt",
            .text = { s->salt, strlen(s->salt) },
        };
    }
    *n = SPLIT_RUNS;
    return r->api->request_edit(r->apis, q->api, edits, n_edits, iov, n);
}

pd_status split_take(struct split *s)
{
    struct request *q = s->request;
    const struct pd_json_api *json = q->router->json;
    const char *paths[] = { s->take, "usage.prompt_tokens", "usage.prompt_tokens_details.cached_tokens" };
    struct pd_json_value v[3];
    uint64_t n;
    if (json->scan((struct pd_str){ s->answer, s->answer_n }, NULL, paths, 3, v, NULL) != PD_OK)
        return PD_EPROTO;
    if (json->get_u64(&v[1], &n) == PD_OK && n <= UINT32_MAX)
        q->record->prompt_tokens = (uint32_t)n;
    if (json->get_u64(&v[2], &n) == PD_OK && n <= q->record->prompt_tokens)
        q->record->cached_tokens = (uint32_t)n;
    if (v[0].type == PD_JSON_NONE || v[0].type == PD_JSON_NULL)
        return PD_ENOENT;
    struct split_body *b = &s->bodies[1];
    if (b->taken < b->n)
        b->edits[b->taken].text = v[0].text;
    return PD_OK;
}
