/* SPDX-License-Identifier: Apache-2.0 */
/* Errors in the form that clients of the API know. */
#include "net/server_int.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

const char *pd_http_error_type(uint32_t status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
    case 405:
        return "not_found_error";
    case 408:
    case 504:
        return "timeout_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void put_string_or_null(struct pd_buf *b, const char *key, const char *value)
{
    (void)pd_buf_append_cstr(b, key);
    if (value == NULL)
        (void)pd_buf_append_cstr(b, "null");
    else
        (void)pd_json_put_str(b, pd_str_from(value));
}

pd_status pd_http_error_json(struct pd_buf *b, const struct pd_http_error *error)
{
    (void)pd_buf_append_cstr(b, "{\"error\":{\"message\":");
    (void)pd_json_put_str(b, error->message);
    put_string_or_null(b, ",\"type\":", error->type != NULL ? error->type
                                                           : pd_http_error_type(error->status));
    put_string_or_null(b, ",\"param\":", error->param);
    put_string_or_null(b, ",\"code\":", error->code);
    (void)pd_buf_append_cstr(b, "}}");
    return b->status;
}

void pd_http_error_full(struct pd_http_req *req, const struct pd_http_error *error)
{
    struct pd_http_server *s = req->conn->server;
    struct pd_http_header headers[5];
    uint32_t after = error->retry_after_ms;
    char ms[16], sec[16];
    size_t n = 0;

    if (req->has_begun) {
        pd_http_abort(req);
        return;
    }
    if (after == 0 && (error->status == 429 || error->status == 503))
        after = 1000;
    headers[n++] = (struct pd_http_header){ PD_STR("content-type"), PD_STR("application/json") };
    if (after != 0) {
        (void)snprintf(ms, sizeof(ms), "%u", after);
        (void)snprintf(sec, sizeof(sec), "%u", after / 1000 + (after % 1000 != 0));
        headers[n++] = (struct pd_http_header){ PD_STR("retry-after-ms"), pd_str_from(ms) };
        headers[n++] = (struct pd_http_header){ PD_STR("retry-after"), pd_str_from(sec) };
    }
    if (error->should_retry != 0 || error->status == 408)
        headers[n++] = (struct pd_http_header){ PD_STR("x-should-retry"),
                                                error->should_retry > 0 ? PD_STR("true")
                                                                        : PD_STR("false") };
    if (error->allow != NULL)
        headers[n++] = (struct pd_http_header){ PD_STR("allow"), pd_str_from(error->allow) };
    if (error->close != 0)
        req->close_after = true;
    pd_buf_clear(&s->text);
    if (pd_http_error_json(&s->text, error) != PD_OK) {
        /* The longest message there is room for is none. */
        pd_buf_clear(&s->text);
        (void)pd_buf_append_cstr(&s->text, "{\"error\":{\"message\":\"\",\"type\":\"server_error\","
                                           "\"param\":null,\"code\":null}}");
    }
    pd_http_respond(req, error->status, headers, n, pd_buf_str(&s->text));
}

void pd_http_error(struct pd_http_req *req, uint32_t status, const char *type, const char *code,
                   const char *message, const char *param)
{
    struct pd_http_error error;

    memset(&error, 0, sizeof(error));
    error.status = status;
    error.type = type;
    error.code = code;
    error.message = pd_str_from(message);
    error.param = param;
    pd_http_error_full(req, &error);
}

static const char *allow_text(uint32_t methods, char out[64])
{
    size_t n = 0;

    if ((methods & 1u << PD_HTTP_GET) != 0)
        methods |= 1u << PD_HTTP_HEAD;
    out[0] = '\0';
    for (int m = PD_HTTP_GET; m < PD_HTTP_METHODS; m++)
        if ((methods & 1u << m) != 0)
            n += (size_t)snprintf(out + n, 64 - n, "%s%s", n > 0 ? ", " : "",
                                  pd_http_method_name((enum pd_http_method)m));
    return out;
}

void pd_http_req_fail(struct pd_http_req *req, uint32_t status, const char *code,
                      const char *message)
{
    struct pd_http_error error;
    char allow[64];

    memset(&error, 0, sizeof(error));
    error.status = status;
    error.code = code;
    error.message = pd_str_from(message);
    if (status == 405)
        error.allow = allow_text(req->allow, allow);
    /* Slow clients lose their connection, also with a complete message. */
    error.close = status == 408 || status == 504;
    pd_http_error_full(req, &error);
}

void pd_http_req_refuse(struct pd_http_req *req, enum pd_http_reject reject)
{
    const struct pd_http_reject_info *info = pd_http_reject_info(reject);

    req->conn->server->stats.rejects[reject]++;
    req->close_after = true;
    pd_http_req_fail(req, info->status != 0 ? info->status : 400, info->code, info->text);
}

void pd_http_req_overload(struct pd_http_req *req)
{
    req->conn->server->stats.overloads++;
    req->close_after = true;
    pd_http_req_fail(req, 503, "overloaded", "Too much is being served; try again later.");
}
