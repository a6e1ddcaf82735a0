/* SPDX-License-Identifier: Apache-2.0 */
/* Values that nobody may see: from a file of their own or from the environment, never from
 * the configuration itself.
 *
 * Each one is in the configuration's list, which wipes it at the end; it is no part of any
 * message. */
#include "conf/impl.h"

#include <string.h>

#include "base/str.h"
#include "os/file.h"

static pd_status keep_secret(struct conf_ctx *ctx, const char *p)
{
    struct conf_secret *s = pd_arena_calloc(&ctx->conf->arena, 1, sizeof *s);
    if (s == NULL)
        return conf_no_memory(ctx->report);
    s->p = (char *)(uintptr_t)p;
    s->n = strlen(p);
    s->next = ctx->conf->secrets;
    ctx->conf->secrets = s;
    return PD_OK;
}

pd_status conf_secret_file(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                           void *base)
{
    const char *path;
    bool used;
    struct pd_buf b;
    struct pd_err err = { 0 };
    struct pd_str copy;
    if (node->type != NODE_STRING)
        return CONF_BAD(ctx, node, "option \"%s_file\"%s must be a string, not %s", row->name, ctx->where,
                   conf_node_type_text(node));
    pd_status st = conf_expand(ctx, node, node->u.s, &path, &used);
    if (st != PD_OK)
        return st;
    path = conf_path_complete(ctx, path);
    if (path == NULL)
        return conf_no_memory(ctx->report);
    pd_buf_init(&b, CONF_SECRET_MAX);
    st = pd_file_read_secret(path, CONF_SECRET_MAX, &b, &err);
    if (st != PD_OK)
        pd_conf_report_add(ctx->report, &err, node->place.file, node->place.line);
    else if (b.n == 0)
        st = CONF_BAD(ctx, node, "file \"%s\" of option \"%s_file\"%s is empty", path, row->name, ctx->where);
    else if (memchr(b.p, '\0', b.n) != NULL)
        st = CONF_BAD(ctx, node, "file \"%s\" of option \"%s_file\"%s contains a zero byte", path, row->name,
                 ctx->where);
    else if (pd_arena_str(&ctx->conf->arena, pd_buf_str(&b), &copy) != PD_OK)
        st = conf_no_memory(ctx->report);
    if (b.base != NULL)
        explicit_bzero(b.base, b.cap);
    pd_buf_fini(&b);
    if (st != PD_OK)
        return st;
    st = keep_secret(ctx, copy.p);
    if (st == PD_OK) {
        memcpy((char *)base + row->offset, &copy.p, sizeof copy.p);
        conf_origin_add(ctx, row, (char *)base + row->offset, node, path, true);
    }
    return st;
}

pd_status conf_secret_set(struct conf_ctx *ctx, const struct pd_option *row, const struct pd_conf_node *node,
                            const char *text, bool expanded, void *member)
{
    if (!expanded)
        return CONF_BAD(ctx, node, "option \"%s\"%s is a secret and must not stand in the configuration"
                   "\nwrite %s_file = \"PATH\"; or %s = \"${VARIABLE}\";", row->name, ctx->where, row->name,
                   row->name);
    if (text[0] == '\0')
        return CONF_BAD(ctx, node, "secret \"%s\"%s is empty", row->name, ctx->where);
    pd_status st = keep_secret(ctx, text);
    if (st == PD_OK)
        memcpy(member, &text, sizeof text);
    return st;
}
