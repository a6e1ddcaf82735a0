/* SPDX-License-Identifier: Apache-2.0 */
/* Names of methods, statuses and refusals. */
#include "net/http1.h"

#include "base/compiler.h"

const char *pd_http_method_name(enum pd_http_method method)
{
    static const char *const names[PD_HTTP_METHODS] = {
        "", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"
    };
    return (unsigned)method < PD_HTTP_METHODS ? names[method] : "";
}

const char *pd_http_status_text(uint32_t status)
{
    static const struct {
        uint32_t status;
        const char *text;
    } texts[] = {
        { 100, "Continue" }, { 200, "OK" }, { 201, "Created" }, { 202, "Accepted" },
        { 204, "No Content" }, { 206, "Partial Content" }, { 301, "Moved Permanently" },
        { 302, "Found" }, { 304, "Not Modified" }, { 307, "Temporary Redirect" },
        { 308, "Permanent Redirect" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
        { 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" }, { 408, "Request Timeout" }, { 409, "Conflict" },
        { 410, "Gone" }, { 411, "Length Required" }, { 413, "Content Too Large" },
        { 414, "URI Too Long" }, { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" }, { 422, "Unprocessable Content" },
        { 425, "Too Early" }, { 426, "Upgrade Required" }, { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" }, { 499, "Client Closed Request" },
        { 500, "Internal Server Error" }, { 501, "Not Implemented" }, { 502, "Bad Gateway" },
        { 503, "Service Unavailable" }, { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(texts); i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "Unknown";
}

const struct pd_http_reject_info *pd_http_reject_info(enum pd_http_reject reject)
{
    static const struct pd_http_reject_info table[PD_HTTP_REJECTS] = {
        { 0, "", "", "" },
#define PD_HTTP_REJECT_ROW(sym, status, code, label, text) { status, code, label, text },
        PD_HTTP_REJECT_TABLE(PD_HTTP_REJECT_ROW)
#undef PD_HTTP_REJECT_ROW
    };
    return &table[(unsigned)reject < PD_HTTP_REJECTS ? reject : PD_HTTP_REJECT_NONE];
}
