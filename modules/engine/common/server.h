/* SPDX-License-Identifier: Apache-2.0 */
/* What adapters for servers with the OpenAI API share: where its paths begin, the key,
 * the probe.  Their options are rows of struct pd_server_conf. */
#ifndef PD_ENGINE_COMMON_SERVER_H
#define PD_ENGINE_COMMON_SERVER_H

#include <pdplane/adapter.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pd_server_conf {
    const char *api_key;       /* NULL: none */
    const char *path;
    const char *probe;         /* "": none */
};

/* The rows; m_ is the struct pd_server_conf in type_, with a dot. */
#define PD_SERVER_OPTIONS(type_, m_, path_help_, probe_, probe_help_)                          \
    PD_OPT_STRING("api_key", type_, m_ api_key, NULL, .flags = PD_OPT_SECRET,                  \
                  .help = "Key that the server wants, sent as \"Authorization: Bearer\"."),    \
    PD_OPT_STRING("path", type_, m_ path, "/v1", .help = path_help_),                          \
    PD_OPT_STRING("probe", type_, m_ probe, probe_, .help = probe_help_)

/* Strings of its own; NULL where there is none. */
struct pd_server {
    char *authorization;
    char *chat, *completions, *models, *probe;
    size_t chat_n;              /* bytes of chat */
};

static inline pd_status pd_server_refuse(struct pd_err *err, pd_status status, const char *text)
{
    err->status = status;
    snprintf(err->text, sizeof err->text, "%s", text);
    return status;
}

static inline pd_status pd_server_check(const struct pd_server_conf *conf, struct pd_err *err)
{
    if (conf->path[0] == '/' && (conf->probe[0] == '\0' || conf->probe[0] == '/'))
        return PD_OK;
    return pd_server_refuse(err, PD_EINVAL, "\"path\" and \"probe\" must begin with \"/\"");
}

/* *out is a copy of both; NULL and false: out of memory. */
static inline bool pd_server_join(char **out, const char *a, const char *b)
{
    if (asprintf(out, "%s%s", a, b) >= 0)
        return true;
    *out = NULL;
    return false;
}

static inline void pd_server_close(struct pd_server *s)
{
    if (s->authorization != NULL)
        explicit_bzero(s->authorization, strlen(s->authorization));
    free(s->authorization);
    free(s->chat);
    free(s->completions);
    free(s->models);
    free(s->probe);
}

/* s is all zero.  After PD_ENOMEM, which err tells, it is to be closed as well. */
static inline pd_status pd_server_open(struct pd_server *s, const struct pd_server_conf *conf, struct pd_err *err)
{
    if (pd_server_join(&s->chat, conf->path, "/chat/completions") &&
        pd_server_join(&s->completions, conf->path, "/completions") &&
        pd_server_join(&s->models, conf->path, "/models") &&
        (conf->probe[0] == '\0' || pd_server_join(&s->probe, conf->probe, "")) &&
        (conf->api_key == NULL || pd_server_join(&s->authorization, "Bearer ", conf->api_key))) {
        s->chat_n = strlen(s->chat);
        return PD_OK;
    }
    return pd_server_refuse(err, PD_ENOMEM, "out of memory");
}

/* The request `what`, PD_ADAPTER_CHAT and so on; has_salt: the server keeps cached
 * prefixes apart by "cache_salt".  PD_ENOSYS: there is no such request. */
static inline pd_status pd_server_http(const struct pd_server *s, uint32_t what, bool has_salt,
                                       struct pd_adapter_http *out)
{
    const char *target = what == PD_ADAPTER_CHAT ? s->chat
                         : what == PD_ADAPTER_COMPLETIONS ? s->completions
                         : what == PD_ADAPTER_MODELS ? s->models
                         : what == PD_ADAPTER_PROBE ? s->probe : NULL;
    if (target == NULL)
        return PD_ENOSYS;
    out->target = (struct pd_str){ target, what == PD_ADAPTER_CHAT ? s->chat_n : strlen(target) };
    out->n_headers = 0;
    if (s->authorization != NULL) {
        out->headers[0].name = PD_STR("authorization");
        out->headers[0].value = (struct pd_str){ s->authorization, strlen(s->authorization) };
        out->n_headers = 1;
    }
    if (has_salt && out->size >= offsetof(struct pd_adapter_http, flags) + sizeof out->flags)
        out->flags |= PD_ADAPTER_SALT;
    return PD_OK;
}

#endif
