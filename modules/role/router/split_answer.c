/* SPDX-License-Identifier: Apache-2.0 */
/* What a prefill server answers: what the decode leg needs of it is found, and goes on
 * byte for byte.  Where an adapter wants a few members of it otherwise, runs of the
 * object stand between texts, and nothing is copied. */
#include "split.h"

#include <string.h>

#include <pdplane/json.h>

#define PATHS (7u + PD_API_EDITS_MAX + PD_ADAPTER_MAX_INNER)

static void run_put(struct split_taken *t, const char *p, size_t n)
{
    t->runs[t->n++] = (struct pd_iov){ (void *)(uintptr_t)p, n };
}

static bool is_replaced(const struct pd_json_api *json, const struct split_body *b, const struct pd_json_value *key)
{
    for (uint32_t i = 0; i < b->n_inner; i++) {
        if (b->inner[i].text.n > 0 && json->is_str(key, b->inner[i].key))
            return true;
    }
    return false;
}

/* The object with the inner edits: first the members that are ours, then its own in runs
 * as long as they can be.  PD_OK, PD_EPROTO. */
static pd_status taken_make(struct split *s, const struct pd_json_value *object)
{
    const struct pd_json_api *json = s->request->router->json;
    const struct split_body *b = &s->bodies[1];
    struct split_taken *t = &s->taken;
    struct pd_json_iter it;
    struct pd_json_value key, value;
    const char *first = NULL, *last = NULL;
    uint32_t n_gaps = 0;
    if (object->type != PD_JSON_OBJECT || json->iter_init(&it, object) != PD_OK)
        return PD_EPROTO;
    t->n = 0;
    for (uint32_t i = 0; i < b->n_inner; i++) {
        if (b->inner[i].text.n == 0)
            continue;
        run_put(t, t->n == 0 ? "{\"" : ",\"", 2);
        run_put(t, b->inner[i].key, strlen(b->inner[i].key));
        run_put(t, "\":", 2);
        run_put(t, b->inner[i].text.p, b->inner[i].text.n);
    }
    if (t->n == 0)
        return PD_OK;
    for (bool more = true; more;) {
        more = json->iter_next(&it, &key, &value);
        if (more && !is_replaced(json, b, &key)) {
            first = first != NULL ? first : key.text.p;
            last = value.text.p + value.text.n;
            continue;
        }
        if (first == NULL)
            continue;
        /* More gaps than inner edits: a key stands there twice. */
        if (n_gaps++ > PD_ADAPTER_MAX_INNER)
            return PD_EPROTO;
        run_put(t, ",", 1);
        run_put(t, first, (size_t)(last - first));
        first = NULL;
    }
    run_put(t, "}", 1);
    return PD_OK;
}

pd_status split_taken_put(const struct split *s, struct pd_iov *iov, size_t *n, size_t room)
{
    const struct split_taken *t = &s->taken;
    const struct split_body *b = &s->bodies[1];
    size_t i = 0;
    if (t->n == 0 || b->taken >= b->n)
        return PD_OK;
    while (i < *n && iov[i].base != (const void *)b->edits[b->taken].text.p)
        i++;
    if (i == *n)
        return PD_EINVAL;
    if (*n + t->n - 1 > room)
        return PD_ELIMIT;
    memmove(&iov[i + t->n], &iov[i + 1], (*n - i - 1) * sizeof iov[0]);
    memcpy(&iov[i], t->runs, t->n * sizeof iov[0]);
    *n += t->n - 1;
    return PD_OK;
}

static bool is_there(const struct pd_json_value *v)
{
    return v->type != PD_JSON_NONE && v->type != PD_JSON_NULL;
}

/* Whether the answer is all that there is to say. */
static bool is_final(const struct split *s, const struct pd_json_value *why)
{
    const struct pd_json_api *json = s->request->router->json;
    if (s->finish[0] == '\0')
        return false;
    if (s->is_one)
        return true;
    if (why->type != PD_JSON_STRING)
        return false;
    for (uint32_t i = 0; i < s->n_follows; i++) {
        if (json->is_str(why, s->follows[i]))
            return false;
    }
    return true;
}

static void usage_read(struct request *q, const struct pd_json_value *prompt, const struct pd_json_value *cached)
{
    const struct pd_json_api *json = q->router->json;
    uint64_t n;
    if (json->get_u64(prompt, &n) == PD_OK && n <= UINT32_MAX)
        q->record->prompt_tokens = (uint32_t)n;
    if (json->get_u64(cached, &n) == PD_OK && n <= q->record->prompt_tokens)
        q->record->cached_tokens = (uint32_t)n;
}

/* Gives the edits what stands at their paths; values are those of the paths. */
static void values_take(struct split_body *b, const struct pd_json_value *values)
{
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->from[i] == NULL)
            continue;
        b->edits[i].text = is_there(values) ? values->text : (struct pd_str){ NULL, 0 };
        values++;
    }
    for (uint32_t i = 0; i < b->n_inner; i++) {
        if (b->inner[i].from == NULL)
            continue;
        b->inner[i].text = is_there(values) ? values->text : (struct pd_str){ NULL, 0 };
        values++;
    }
}

pd_status split_take(struct split *s)
{
    struct request *q = s->request;
    const struct pd_json_api *json = q->router->json;
    struct split_body *b = &s->bodies[1];
    bool has_finish = s->finish[0] != '\0';
    const char *paths[PATHS] = { s->take, "usage.prompt_tokens", "usage.prompt_tokens_details.cached_tokens" };
    struct pd_json_value v[PATHS];
    size_t n = 3, finish = 0, needs = 0;
    if (has_finish) {
        finish = n;
        paths[n++] = s->finish;
        paths[n++] = "choices";
        paths[n++] = "choices[]";
    }
    if (s->needs[0] != '\0') {
        needs = n;
        paths[n++] = s->needs;
    }
    size_t first = n;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->from[i] != NULL)
            paths[n++] = b->from[i];
    }
    for (uint32_t i = 0; i < b->n_inner; i++) {
        if (b->inner[i].from != NULL)
            paths[n++] = b->inner[i].from;
    }
    if (json->scan((struct pd_str){ s->answer, s->answer_n }, NULL, paths, n, v, NULL) != PD_OK)
        return PD_EPROTO;
    /* With several choices the first one would speak for all. */
    if (has_finish && (json->count(&v[finish + 1]) != 1 || v[finish + 2].type != PD_JSON_OBJECT))
        return PD_EPROTO;
    usage_read(q, &v[1], &v[2]);
    s->is_final = is_final(s, has_finish ? &v[finish] : &v[0]);
    if (s->is_final)
        return PD_OK;
    if (b->n_inner > 0 && is_there(&v[0]) && v[0].type != PD_JSON_OBJECT)
        return PD_EPROTO;
    if (!is_there(&v[0]) || (needs > 0 && !is_there(&v[needs])))
        return PD_ENOENT;
    values_take(b, v + first);
    if (b->taken >= b->n)
        return PD_OK;
    b->edits[b->taken].text = v[0].text;
    return b->n_inner > 0 ? taken_make(s, &v[0]) : PD_OK;
}
