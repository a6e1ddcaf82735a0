/* SPDX-License-Identifier: Apache-2.0 */
/* Strings of a configuration as they are meant: ${NAME} is the environment's, a relative
 * path begins at the folder of the configuration.
 *
 * What is expanded may be a secret, so room that was used on the way is wiped. */
#include "conf/impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

static bool is_name_char(char c, bool first)
{
    return c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (!first && c >= '0' && c <= '9');
}

static const char *env_get(const struct pd_conf *conf, const char *name)
{
    return conf->src.env != NULL ? conf->src.env(conf->src.arg, name) : getenv(name);
}

pd_status conf_expand(struct conf_ctx *ctx, const struct pd_conf_node *node, const char *in, const char **out,
                      bool *used)
{
    struct pd_buf b;
    pd_status st = PD_OK;
    *used = false;
    if (strstr(in, "${") == NULL) {
        *out = in;
        return PD_OK;
    }
    pd_buf_init(&b, CONF_TEXT_MAX);
    while (*in != '\0' && st == PD_OK) {
        if (strncmp(in, "$${", 3) == 0) {
            pd_buf_append_cstr(&b, "${");
            in += 3;
            continue;
        }
        if (strncmp(in, "${", 2) != 0) {
            pd_buf_append_char(&b, *in++);
            continue;
        }
        const char *end = in + 2;
        while (is_name_char(*end, end == in + 2))
            end++;
        char name[128];
        const char *value = NULL;
        if (*end != '}' || end == in + 2 ||
            pd_str_copy(pd_str_of(in + 2, (size_t)(end - in - 2)), name, sizeof name) != PD_OK)
            st = CONF_BAD(ctx, node, "\"${\" in a string%s is not followed by a variable's name and \"}\""
                     "\nwrite $${ for the characters themselves", ctx->where);
        else if ((value = env_get(ctx->conf, name)) == NULL)
            st = CONF_BAD(ctx, node, "environment variable \"%s\"%s is not set", name, ctx->where);
        else
            pd_buf_append_cstr(&b, value);
        *used = true;
        in = end + 1;
    }
    if (st == PD_OK) {
        struct pd_str copy;
        if (b.status != PD_OK || pd_arena_str(&ctx->conf->arena, pd_buf_str(&b), &copy) != PD_OK)
            st = conf_no_memory(ctx->report);
        else
            *out = copy.p;
    }
    if (b.base != NULL)
        explicit_bzero(b.base, b.cap);
    pd_buf_fini(&b);
    return st;
}

const char *conf_path_complete(struct conf_ctx *ctx, const char *path)
{
    const char *dir = ctx->conf->base_dir;
    if (path[0] == '/' || path[0] == '\0' || dir == NULL)
        return path;
    return pd_arena_printf(&ctx->conf->arena, "%s/%s", dir, path);
}
