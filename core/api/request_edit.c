/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept of a body to send it on, and the changes with which it is sent. */
#include "api/request_int.h"

#include <string.h>

#include "base/compiler.h"
#include "base/str.h"
#include "net/digest.h"

/* From one member up to another. */
#define FROM_TO(first, end) (BIT(end) - BIT(first))
#define EDITS FROM_TO(M_FIRST_EDIT, M_FIRST_HINT)
#define HINTS FROM_TO(M_FIRST_HINT, M_FIRST_FAMILY)
#define HOLDERS FROM_TO(M_FIRST_HOLDER, M_COUNT)
_Static_assert(M_COUNT < 64, "a bit for each member");

/* The member with a leg of its own, absent when the body has none. */
static const struct pd_json_value *editable(const struct pd_api_parsed *p, int m)
{
    static const struct pd_json_value absent = { .type = PD_JSON_NONE };
    return (p->present & BIT(m)) != 0 ? &p->editable[m - M_FIRST_EDIT] : &absent;
}

static __attribute__((noinline)) pd_status keep_hints(struct pd_api_parsed *p)
{
    struct pd_json_value found[HINTS_MAX];
    size_t n = 0;
    pd_status status = PD_OK;
    for (uint64_t left = p->present & HINTS; left != 0; left &= left - 1)
        found[n++] = p->values[__builtin_ctzll(left)];
    for (uint32_t i = 0; i < p->n_families; i++)
        found[n++] = p->families[i];
    for (uint64_t left = p->present & HOLDERS; left != 0 && status == PD_OK; left &= left - 1)
        status = pd_api_hints_in(&p->values[__builtin_ctzll(left)], &p->arena, found, HINTS_MAX, &n);
    if (status == PD_ELIMIT)
        return pd_api_refuse(p, M_EXTRA_BODY, "invalid_value", "more than %u members tell where KV is", HINTS_MAX);
    if (status != PD_OK || n == 0)
        return status;
    p->hints = pd_arena_alloc(&p->arena, n * sizeof *p->hints);
    if (p->hints == NULL)
        return PD_ENOMEM;
    memcpy(p->hints, found, n * sizeof *p->hints);
    p->n_hints = (uint32_t)n;
    return PD_OK;
}

pd_status pd_api_keep_for_forward(struct pd_api_parsed *p)
{
    p->model = p->values[M_MODEL];
    for (uint64_t left = p->present & EDITS; left != 0; left &= left - 1) {
        int m = __builtin_ctzll(left);
        p->editable[m - M_FIRST_EDIT] = p->values[m];
    }
    return (p->present & (HINTS | HOLDERS)) == 0 && p->n_families == 0 ? PD_OK : keep_hints(p);
}

struct pd_str pd_api_request_hint(struct pd_api *api, const struct pd_api_request *request)
{
    const struct pd_api_parsed *p = (const struct pd_api_parsed *)(const void *)request;
    (void)api;
    if (p->n_hints == 0)
        return PD_STR("");
    struct pd_str member = p->hints[0].member;
    const char *end = memchr(member.p + 1, '"', member.n - 1);
    return pd_str_of(member.p + 1, (size_t)(end - member.p) - 1);
}

/* The tenant's name cannot run into the client's salt, since its length stands
 * before it, and nobody finds two of them with the same digest. */
pd_status pd_api_request_scope(struct pd_api *api, struct pd_api_request *request, struct pd_str tenant)
{
    struct pd_api_parsed *p = (struct pd_api_parsed *)(void *)request;
    uint8_t digest[PD_SHA256_BYTES];
    uint64_t n = tenant.n;
    char text[PD_SHA256_TEXT];
    (void)api;
    if (tenant.n == 0 && request->cache_salt.n == 0)
        return PD_OK;
    struct pd_sha256 *h = pd_sha256_create();
    pd_status status = h == NULL ? PD_ENOMEM : pd_sha256_update(h, &n, sizeof n);
    if (status == PD_OK)
        status = pd_sha256_update(h, tenant.p, tenant.n);
    if (status == PD_OK)
        status = pd_sha256_update(h, request->cache_salt.p, request->cache_salt.n);
    if (status == PD_OK)
        status = pd_sha256_final(h, digest);
    pd_sha256_destroy(h);
    if (status != PD_OK)
        return status;
    pd_sha256_format(digest, text);
    return pd_arena_str(&p->arena, pd_str_of(text, PD_API_SCOPE_BYTES), &request->cache_salt);
}

static __attribute__((noinline)) pd_status forward_changed(struct pd_api *api, const struct pd_api_parsed *p,
                                                           struct pd_str model, bool has_salt,
                                                           struct pd_str *out)
{
    struct pd_json_edit edits[HINTS_MAX + 2];
    struct pd_buf name, salt;
    size_t n = 0;
    for (; n < p->n_hints; n++)
        edits[n] = (struct pd_json_edit){ .op = PD_JSON_REMOVE, .value = &p->hints[n] };
    pd_buf_init(&name, 8 * PD_API_NAME_MAX);
    pd_buf_init(&salt, 8 * PD_API_SALT_MAX);
    if (model.n > 0) {
        pd_json_put_str(&name, model);
        edits[n++] = (struct pd_json_edit){ .op = PD_JSON_SET, .value = &p->model,
                                            .object = &p->root, .key = "model",
                                            .text = pd_buf_str(&name) };
    }
    if (has_salt) {
        pd_json_put_str(&salt, p->request.cache_salt);
        edits[n++] = (struct pd_json_edit){ .op = PD_JSON_SET, .value = editable(p, M_CACHE_SALT),
                                            .object = &p->root, .key = "cache_salt",
                                            .text = pd_buf_str(&salt) };
    }
    pd_buf_clear(&api->scratch);
    pd_status status = name.status != PD_OK ? name.status : salt.status;
    if (status == PD_OK)
        status = pd_json_splice_buf(p->request.body, edits, n, &api->scratch);
    pd_buf_fini(&name);
    pd_buf_fini(&salt);
    *out = pd_buf_str(&api->scratch);
    return status;
}

pd_status pd_api_request_forward(struct pd_api *api, const struct pd_api_request *request,
                                 struct pd_str model, bool adds_salt, struct pd_str *out)
{
    const struct pd_api_parsed *p = (const struct pd_api_parsed *)(const void *)request;
    bool has_salt = request->cache_salt.n > 0 && (adds_salt || is_present(p, M_CACHE_SALT));
    *out = request->body;
    if (p->n_hints == 0 && model.n == 0 && !has_salt)
        return PD_OK;
    return forward_changed(api, p, model, has_salt, out);
}

/* The member at the top with this key, absent when it is none of the client's: one
 * that only we may set is deleted and not changed.  *found is for those that no
 * scan was made for. */
static const struct pd_json_value *member_of(const struct pd_api_parsed *p, const char *key,
                                             struct pd_json_value *found)
{
    for (int m = M_FIRST_EDIT; m < M_FIRST_HINT; m++) {
        if (strcmp(pd_api_member_paths[m], key) == 0)
            return editable(p, m);
    }
    if (pd_api_is_hint(pd_str_from(key)) || pd_json_find(&p->root, key, found) != PD_OK)
        found->type = PD_JSON_NONE;
    return found;
}

bool pd_api_request_has(struct pd_api *api, const struct pd_api_request *request, const char *key)
{
    const struct pd_api_parsed *p = (const struct pd_api_parsed *)(const void *)request;
    struct pd_json_value found;
    const struct pd_json_value *v = member_of(p, key, &found);
    bool b;
    (void)api;
    return v->type != PD_JSON_NONE && v->type != PD_JSON_NULL &&
           !(v->type == PD_JSON_BOOL && pd_json_get_bool(v, &b) == PD_OK && !b);
}

pd_status pd_api_request_edit(struct pd_api *api, const struct pd_api_request *request,
                              const struct pd_api_edit *changes, uint32_t n_changes, struct pd_iov *iov,
                              size_t *n_iov)
{
    const struct pd_api_parsed *p = (const struct pd_api_parsed *)(const void *)request;
    struct pd_json_edit edits[HINTS_MAX + PD_API_EDITS_MAX];
    struct pd_json_value found[PD_API_EDITS_MAX];
    size_t n = 0;
    (void)api;
    if (n_changes > PD_API_EDITS_MAX)
        return PD_ELIMIT;
    for (; n < p->n_hints; n++)
        edits[n] = (struct pd_json_edit){ .op = PD_JSON_REMOVE, .value = &p->hints[n] };
    for (uint32_t i = 0; i < n_changes; i++) {
        const struct pd_api_edit *c = &changes[i];
        const struct pd_json_value *v = member_of(p, c->key, &found[i]);
        if (c->op == PD_API_EDIT_GIVEN && v->type == PD_JSON_NONE)
            continue;
        edits[n++] = (struct pd_json_edit){
            .op = c->op == PD_API_EDIT_REMOVE ? PD_JSON_REMOVE : PD_JSON_SET, .value = v,
            .object = &p->root, .key = c->key, .text = c->text,
        };
    }
    return pd_json_splice(request->body, edits, n, iov, n_iov, NULL);
}
