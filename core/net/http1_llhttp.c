/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to llhttp: it reads a head that our own rules have accepted, and
 * must come to the same framing.
 *
 * Our rules are stricter; llhttp is the second, independent reader that makes a
 * mistake in them harmless.  It keeps no state between calls. */
#include "net/http1_int.h"

#include <llhttp.h>
#include <string.h>

struct opinion {
    bool is_head_done;
    uint8_t minor;
    uint16_t flags;
    uint16_t status;
    uint64_t length;
};

static int on_headers_complete(llhttp_t *parser)
{
    struct opinion *o = parser->data;

    o->is_head_done = true;
    o->minor = parser->http_minor;
    o->flags = parser->flags;
    o->status = parser->status_code;
    o->length = parser->content_length;
    return HPE_PAUSED;
}

enum pd_http_reject pd_http1_second_opinion(const struct pd_http1 *p)
{
    const struct pd_http_head *h = &p->head;
    llhttp_settings_t settings;
    llhttp_t parser;
    struct opinion o;
    llhttp_errno_t err;

    memset(&o, 0, sizeof(o));
    llhttp_settings_init(&settings);
    settings.on_headers_complete = on_headers_complete;
    llhttp_init(&parser, p->is_response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
    parser.data = &o;
    err = llhttp_execute(&parser, p->text.p, p->text.n);
    if (err == HPE_INVALID_METHOD)
        return PD_HTTP_REJECT_METHOD;
    if (err != HPE_PAUSED || !o.is_head_done)
        return PD_HTTP_REJECT_SECOND_OPINION;
    if (((o.flags & F_CHUNKED) != 0) != h->is_chunked ||
        ((o.flags & F_CONTENT_LENGTH) != 0) != h->has_length ||
        (h->has_length && o.length != h->length) || o.minor != h->minor ||
        (p->is_response && o.status != h->status))
        return PD_HTTP_REJECT_SECOND_OPINION;
    return PD_HTTP_REJECT_NONE;
}
