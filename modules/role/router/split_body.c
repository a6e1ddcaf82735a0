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

#define ROOM_DIGITS 19u            /* of a number below 2^63 */
#define HOST_MAX 255u

/* Whether the op brings a value of the adapter's. */
static bool has_text(uint32_t op)
{
    return op == PD_ADAPTER_SET || op == PD_ADAPTER_SET_GIVEN;
}

static bool edit_is_legal(const struct pd_adapter_edit *e)
{
    bool may_be_each = has_text(e->op) || e->op == PD_ADAPTER_SET_HOST || e->op == PD_ADAPTER_SET_ROOM;
    return e->op >= PD_ADAPTER_SET && e->op <= PD_ADAPTER_SET_ROOM && e->member.n > 0 &&
           e->member.n <= PD_ADAPTER_MAX_MEMBER && e->text.n <= PD_ADAPTER_MAX_VALUE &&
           (e->text.n > 0 || !has_text(e->op)) && (e->flags & ~(may_be_each ? PD_ADAPTER_EACH : 0u)) == 0;
}

/* What the values of an attempt are made of. */
struct draw {
    uint32_t n;                    /* values of a list; 0: no list */
    struct pd_str host;            /* a string in JSON */
    const uint64_t *rooms;         /* as many as values */
};

/* How many sequences the values are for when they stand in a list; 0: they do not. */
static uint32_t sequences_of(const struct request *q)
{
    const struct pd_str json = q->api->prompt_json;
    size_t i = 1;
    if (q->api->n_legs > 1)
        return q->api->n_legs;
    if (q->kind != PD_API_COMPLETIONS || json.n == 0 || json.p[0] != '[')
        return 0;
    while (i < json.n && (json.p[i] == ' ' || json.p[i] == '\t' || json.p[i] == '\r' || json.p[i] == '\n'))
        i++;
    /* A list of numbers is one prompt. */
    return i < json.n && (json.p[i] == '"' || json.p[i] == '[') ? 1 : 0;
}

static size_t value_room(const struct pd_adapter_edit *e, const struct draw *draw)
{
    return e->op == PD_ADAPTER_SET_HOST ? draw->host.n : e->op == PD_ADAPTER_SET_ROOM ? ROOM_DIGITS : e->text.n;
}

/* Most bytes that an edit's key and value take. */
static size_t room_of(const struct pd_adapter_edit *e, const struct draw *draw)
{
    size_t n = (e->flags & PD_ADAPTER_EACH) != 0 && draw->n > 0 ? draw->n : 1;
    return e->member.n + 1 + n * (value_room(e, draw) + 1) + 2;
}

static char *value_put(char *p, const struct pd_adapter_edit *e, const struct draw *draw, uint32_t i)
{
    struct pd_str text = e->op == PD_ADAPTER_SET_HOST ? draw->host : e->text;
    char digits[ROOM_DIGITS + 1];
    if (e->op == PD_ADAPTER_SET_ROOM)
        text = (struct pd_str){ digits, (size_t)snprintf(digits, sizeof digits, "%llu",
                                                         (unsigned long long)draw->rooms[i]) };
    memcpy(p, text.p, text.n);
    return p + text.n;
}

static char *values_put(char *p, const struct pd_adapter_edit *e, const struct draw *draw)
{
    if ((e->flags & PD_ADAPTER_EACH) == 0 || draw->n == 0)
        return value_put(p, e, draw, 0);
    *p++ = '[';
    for (uint32_t i = 0; i < draw->n; i++) {
        if (i > 0)
            *p++ = ',';
        p = value_put(p, e, draw, i);
    }
    *p++ = ']';
    return p;
}

static char *body_put(char *p, struct split *s, uint32_t leg, const struct pd_adapter_edit *from, uint32_t n,
                      const struct draw *draw)
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
            char *end = values_put(p, &from[i], draw);
            e->text = (struct pd_str){ p, (size_t)(end - p) };
            p = end;
        }
        b->n++;
    }
    return p;
}

/* The texts of both legs, in memory of their own. */
static pd_status bodies_put(struct split *s, const struct pd_adapter_split *from, const struct draw *draw)
{
    size_t room = 0;
    for (uint32_t i = 0; i < from->n_prefill + from->n_decode; i++)
        room += room_of(i < from->n_prefill ? &from->prefill[i] : &from->decode[i - from->n_prefill], draw);
    s->texts = malloc(room + 1);
    if (s->texts == NULL)
        return PD_ENOMEM;
    char *p = body_put(s->texts, s, 0, from->prefill, from->n_prefill, draw);
    body_put(p, s, 1, from->decode, from->n_decode, draw);
    return PD_OK;
}

pd_status split_bodies(struct split *s, const struct target *t, const struct pd_adapter_split *from)
{
    struct request *q = s->request;
    bool is_pair = (from->flags & PD_ADAPTER_PAIR) != 0;
    const char *host = t->endpoint->host;
    char quoted[HOST_MAX + 5];
    uint64_t one;
    struct draw draw = { .n = is_pair ? sequences_of(q) : 0, .rooms = &one };
    if (from->n_prefill > PD_ADAPTER_MAX_EDITS || from->n_decode > PD_ADAPTER_MAX_EDITS ||
        from->take.n > PD_ADAPTER_MAX_MEMBER || strlen(host) > HOST_MAX)
        return PD_EINVAL;
    uint32_t n_rooms = 0;
    for (uint32_t i = 0; i < from->n_prefill + from->n_decode; i++) {
        const struct pd_adapter_edit *e = i < from->n_prefill ? &from->prefill[i]
                                                              : &from->decode[i - from->n_prefill];
        if (!edit_is_legal(e) || (e->op == PD_ADAPTER_SET_TAKEN && (i < from->n_prefill || is_pair)))
            return PD_EINVAL;
        if (e->op == PD_ADAPTER_SET_ROOM)
            n_rooms = draw.n > 1 ? draw.n : 1;
    }
    uint64_t *rooms = draw.n > 1 ? malloc(draw.n * sizeof *rooms) : &one;
    if (rooms == NULL)
        return PD_ENOMEM;
    /* What a url names as a host needs no escapes. */
    int n = snprintf(quoted, sizeof quoted, strchr(host, ':') != NULL ? "\"[%s]\"" : "\"%s\"", host);
    draw.host = (struct pd_str){ quoted, (size_t)n };
    for (uint32_t i = 0; i < n_rooms; i++)
        rooms[i] = pd_loop_random_u64(q->router->loop) >> 1;
    draw.rooms = rooms;
    snprintf(s->take, sizeof s->take, "%.*s", PD_STR_ARG(from->take));
    pd_status status = bodies_put(s, from, &draw);
    if (rooms != &one)
        free(rooms);
    return status;
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
