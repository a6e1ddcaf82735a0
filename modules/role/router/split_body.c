/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of the two legs of a shared request: the client's bytes, with the few
 * members otherwise that the adapter names.  Nothing is rebuilt: a body is a list of
 * runs of the client's bytes with the texts kept here between them, and what the
 * prefill server answers goes on byte for byte. */
#include "split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_DIGITS 19u            /* of a number below 2^63 */
#define HOST_MAX 255u

/* Whether the op brings a value of the adapter's. */
static bool has_text(uint32_t op)
{
    return op == PD_ADAPTER_SET || op == PD_ADAPTER_SET_GIVEN;
}

static bool is_inner(const struct pd_adapter_edit *e)
{
    return memchr(e->member.p, '.', e->member.n) != NULL;
}

static bool is_inside_of(const struct pd_adapter_edit *e, const struct pd_adapter_edit *outer)
{
    bool is_object = outer->op == PD_ADAPTER_SET_TAKEN ||
                     (outer->op == PD_ADAPTER_SET && outer->text.n > 2 && outer->text.p[0] == '{' &&
                      outer->text.p[outer->text.n - 1] == '}');
    return is_object && outer->flags == e->flags && e->member.n > outer->member.n + 1 &&
           memcmp(e->member.p, outer->member.p, outer->member.n) == 0 && e->member.p[outer->member.n] == '.';
}

/* outer: the edit of the same leg that an inner one may belong to; NULL: none. */
static bool edit_is_legal(const struct pd_adapter_edit *e, const struct pd_adapter_edit *outer, bool is_prefill)
{
    uint32_t flags = PD_ADAPTER_IN_CHAT | PD_ADAPTER_IN_TEXT | (is_prefill ? PD_ADAPTER_IF_MORE : 0u);
    bool is_from = e->op == PD_ADAPTER_SET_FROM;
    bool may_be_each = has_text(e->op) || e->op == PD_ADAPTER_SET_HOST || e->op == PD_ADAPTER_SET_ROOM;
    if (e->member.n == 0 || e->member.n > PD_ADAPTER_MAX_MEMBER)
        return false;
    if (is_inner(e))
        return outer != NULL && is_inside_of(e, outer) && e->text.n <= PD_ADAPTER_MAX_VALUE &&
               ((e->op == PD_ADAPTER_SET && e->text.n > 0) || e->op == PD_ADAPTER_SET_ROOM ||
                (is_from && e->text.n > 0 && outer->op == PD_ADAPTER_SET_TAKEN));
    return e->op >= PD_ADAPTER_SET && e->op <= PD_ADAPTER_SET_FROM && e->text.n <= PD_ADAPTER_MAX_VALUE &&
           (e->text.n > 0 || !(has_text(e->op) || is_from)) && (!is_from || !is_prefill) &&
           (e->flags & ~(flags | (may_be_each ? PD_ADAPTER_EACH : 0u))) == 0;
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

/* A string with a zero byte behind it; *out is where it begins. */
static char *cstr_put(char *p, struct pd_str text, const char **out)
{
    memcpy(p, text.p, text.n);
    p[text.n] = '\0';
    *out = p;
    return p + text.n + 1;
}

static char *inner_of_taken(char *p, struct split_body *b, struct pd_str key, const struct pd_adapter_edit *e,
                            const struct draw *draw)
{
    struct split_inner *inner = &b->inner[b->n_inner++];
    *inner = (struct split_inner){ .key = NULL };
    p = cstr_put(p, key, &inner->key);
    if (e->op == PD_ADAPTER_SET_FROM)
        return cstr_put(p, e->text, &inner->from);
    char *end = value_put(p, e, draw, 0);
    inner->text = (struct pd_str){ p, (size_t)(end - p) };
    return end;
}

/* The edit's object, which was put last, gets one member more. */
static char *inner_of_text(char *p, struct pd_api_edit *outer, struct pd_str key, const struct pd_adapter_edit *e,
                           const struct draw *draw)
{
    p[-1] = ',';
    *p++ = '"';
    memcpy(p, key.p, key.n);
    p += key.n;
    *p++ = '"';
    *p++ = ':';
    p = value_put(p, e, draw, 0);
    *p++ = '}';
    outer->text.n = (size_t)(p - outer->text.p);
    return p;
}

static bool is_for(const struct split *s, const struct pd_adapter_edit *e)
{
    bool is_chat = s->request->kind == PD_API_CHAT;
    return !((e->flags & PD_ADAPTER_IN_CHAT) != 0 && !is_chat) && !((e->flags & PD_ADAPTER_IN_TEXT) != 0 && is_chat) &&
           !((e->flags & PD_ADAPTER_IF_MORE) != 0 && s->is_one);
}

static char *body_put(char *p, struct split *s, uint32_t leg, const struct pd_adapter_edit *from, uint32_t n,
                      const struct draw *draw)
{
    struct split_body *b = &s->bodies[leg];
    b->n = b->n_inner = 0;
    b->taken = n;
    for (uint32_t i = 0, outer = 0; i < n; i++) {
        struct pd_api_edit *e = &b->edits[b->n];
        if (!is_for(s, &from[i]))
            continue;
        if (is_inner(&from[i])) {
            size_t skip = from[outer].member.n + 1;
            struct pd_str key = { from[i].member.p + skip, from[i].member.n - skip };
            p = from[outer].op == PD_ADAPTER_SET_TAKEN ? inner_of_taken(p, b, key, &from[i], draw)
                                                       : inner_of_text(p, e - 1, key, &from[i], draw);
            continue;
        }
        outer = i;
        *e = (struct pd_api_edit){
            .op = from[i].op == PD_ADAPTER_REMOVE ? PD_API_EDIT_REMOVE
                  : from[i].op == PD_ADAPTER_SET_GIVEN ? PD_API_EDIT_GIVEN : PD_API_EDIT_SET,
        };
        b->from[b->n] = NULL;
        p = cstr_put(p, from[i].member, &e->key);
        if (from[i].op == PD_ADAPTER_SET_TAKEN) {
            b->taken = b->n;
        } else if (from[i].op == PD_ADAPTER_SET_FROM) {
            p = cstr_put(p, from[i].text, &b->from[b->n]);
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

/* Whether both legs can be made of what the adapter says; *draws: they need rooms. */
static bool is_legal(const struct pd_adapter_split *from, bool *draws)
{
    bool is_pair = (from->flags & PD_ADAPTER_PAIR) != 0;
    *draws = false;
    if (from->n_prefill > PD_ADAPTER_MAX_EDITS || from->n_decode > PD_ADAPTER_MAX_EDITS ||
        from->take.n > PD_ADAPTER_MAX_MEMBER || from->needs.n > PD_ADAPTER_MAX_MEMBER ||
        from->finish.n > PD_ADAPTER_MAX_MEMBER || (is_pair && from->finish.n > 0) ||
        from->n_follows > PD_ADAPTER_MAX_FOLLOWS || from->n_hidden > PD_ADAPTER_MAX_HIDDEN)
        return false;
    for (uint32_t leg = 0; leg < 2; leg++) {
        const struct pd_adapter_edit *edits = leg == 0 ? from->prefill : from->decode, *outer = NULL;
        uint32_t n = leg == 0 ? from->n_prefill : from->n_decode, n_inner = 0;
        for (uint32_t i = 0; i < n; i++) {
            const struct pd_adapter_edit *e = &edits[i];
            bool needs_answer = e->op == PD_ADAPTER_SET_TAKEN || e->op == PD_ADAPTER_SET_FROM;
            if (!edit_is_legal(e, outer, leg == 0) || (needs_answer && (leg == 0 || is_pair)) ||
                (is_inner(e) && ++n_inner > PD_ADAPTER_MAX_INNER))
                return false;
            if (!is_inner(e))
                outer = e;
            *draws |= e->op == PD_ADAPTER_SET_ROOM;
        }
    }
    return true;
}

static void names_keep(char (*out)[PD_ADAPTER_MAX_MEMBER + 1], uint32_t *n_out, const struct pd_str *from, uint32_t n)
{
    *n_out = n;
    for (uint32_t i = 0; i < n; i++)
        snprintf(out[i], sizeof out[i], "%.*s", PD_STR_ARG(from[i]));
}

/* What the prefill answer is looked through for. */
static void paths_keep(struct split *s, const struct pd_adapter_split *from)
{
    snprintf(s->take, sizeof s->take, "%.*s", PD_STR_ARG(from->take));
    snprintf(s->finish, sizeof s->finish, "%.*s", PD_STR_ARG(from->finish));
    s->needs[0] = '\0';
    if (from->needs.n > 0)
        snprintf(s->needs, sizeof s->needs, "%s.%.*s", s->take, PD_STR_ARG(from->needs));
    names_keep(s->follows, &s->n_follows, from->follows, from->n_follows);
    names_keep(s->hidden, &s->n_hidden, from->hidden, from->n_hidden);
    s->is_one = from->finish.n > 0 && s->request->api->max_output == 1;
    s->is_final = false;
    s->taken.n = 0;
}

/* Some servers count numbers of their own from 0 on, and must not take one of ours for
 * one of them. */
static uint64_t room_draw(struct pd_loop *loop)
{
    uint64_t room = pd_loop_random_u64(loop) >> 1;
    return room >> 42 != 0 ? room : room | (uint64_t)1 << 62;
}

pd_status split_bodies(struct split *s, const struct target *t, const struct pd_adapter_split *from)
{
    struct request *q = s->request;
    const char *host = t->endpoint->host;
    char quoted[HOST_MAX + 5];
    uint64_t one;
    bool draws;
    struct draw draw = { .n = (from->flags & PD_ADAPTER_PAIR) != 0 ? sequences_of(q) : 0, .rooms = &one };
    if (!is_legal(from, &draws) || strlen(host) > HOST_MAX)
        return PD_EINVAL;
    uint32_t n_rooms = !draws ? 0 : draw.n > 1 ? draw.n : 1;
    uint64_t *rooms = draw.n > 1 ? malloc(draw.n * sizeof *rooms) : &one;
    if (rooms == NULL)
        return PD_ENOMEM;
    /* What a url names as a host needs no escapes. */
    int n = snprintf(quoted, sizeof quoted, strchr(host, ':') != NULL ? "\"[%s]\"" : "\"%s\"", host);
    draw.host = (struct pd_str){ quoted, (size_t)n };
    for (uint32_t i = 0; i < n_rooms; i++)
        rooms[i] = room_draw(q->router->loop);
    draw.rooms = rooms;
    paths_keep(s, from);
    pd_status status = bodies_put(s, from, &draw);
    if (rooms != &one)
        free(rooms);
    return status;
}

pd_status split_runs(struct split *s, uint32_t leg, bool knows_salt, struct pd_iov *iov, size_t *n)
{
    struct request *q = s->request;
    struct router *r = q->router;
    const struct split_body *b = &s->bodies[leg];
    struct pd_api_edit edits[PD_API_EDITS_MAX];
    uint32_t n_edits = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        /* Of what the answer did not have the client's is good enough. */
        if (b->from[i] == NULL || b->edits[i].text.n > 0)
            edits[n_edits++] = b->edits[i];
    }
    if (q->api->cache_salt.n > 0) {
        /* Ours, hex digits. */
        snprintf(s->salt, sizeof s->salt, "\"%.*s\"", PD_STR_ARG(q->api->cache_salt));
        edits[n_edits++] = (struct pd_api_edit){
            .op = knows_salt ? PD_API_EDIT_SET : PD_API_EDIT_GIVEN, .key = "cache_salt",
            .text = { s->salt, strlen(s->salt) },
        };
    }
    *n = SPLIT_RUNS;
    pd_status status = r->api->request_edit(r->apis, q->api, edits, n_edits, iov, n);
    return status == PD_OK && leg == 1 ? split_taken_put(s, iov, n, SPLIT_RUNS) : status;
}
