/* SPDX-License-Identifier: Apache-2.0 */
/* Turns the bytes of tokens into text that may be shown.  Two things are held
 * back at the end of what has come: the beginning of a character, and anything
 * that may become a stop string.  The held part is never longer than the
 * longest stop string plus three bytes. */
#include "api/api.h"

#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/utf8.h"

#define HELD_MAX (64u << 10)

struct pd_text {
    struct pd_buf held;        /* bytes not shown yet */
    struct pd_buf shown;       /* what the last call returned */
    uint32_t n_stops;
    uint32_t stopped;
    struct pd_str stops[PD_API_MAX_STOPS];
    char *stop_bytes;
};

pd_status pd_api_text_create(struct pd_api *api, const struct pd_str *stops, uint32_t n,
                             struct pd_text **out)
{
    (void)api;
    size_t total = 1;
    if (n > PD_API_MAX_STOPS)
        return PD_EINVAL;
    for (uint32_t i = 0; i < n; i++)
        total += stops[i].n;
    struct pd_text *text = pd_calloc(1, sizeof *text);
    if (text == NULL)
        return PD_ENOMEM;
    text->stop_bytes = pd_alloc(total);
    if (text->stop_bytes == NULL) {
        pd_free(text);
        return PD_ENOMEM;
    }
    char *p = text->stop_bytes;
    for (uint32_t i = 0; i < n; i++) {
        if (stops[i].n == 0)
            continue;
        memcpy(p, stops[i].p, stops[i].n);
        text->stops[text->n_stops++] = (struct pd_str){ p, stops[i].n };
        p += stops[i].n;
    }
    pd_buf_init(&text->held, HELD_MAX);
    pd_buf_init(&text->shown, 4 * HELD_MAX);
    *out = text;
    return PD_OK;
}

void pd_api_text_destroy(struct pd_api *api, struct pd_text *text)
{
    (void)api;
    if (text == NULL)
        return;
    pd_buf_fini(&text->held);
    pd_buf_fini(&text->shown);
    pd_free(text->stop_bytes);
    pd_free(text);
}

/* Offset of the stop string that is complete first, and of these the longest,
 * so that it does not matter in what pieces the text came; PD_STR_NPOS when
 * there is none. */
static size_t first_stop(const struct pd_text *text)
{
    size_t first = PD_STR_NPOS, first_end = PD_STR_NPOS;
    for (uint32_t i = 0; i < text->n_stops; i++) {
        size_t at = pd_str_find(pd_buf_str(&text->held), text->stops[i]);
        if (at == PD_STR_NPOS)
            continue;
        size_t end = at + text->stops[i].n;
        if (end < first_end || (end == first_end && at < first)) {
            first = at;
            first_end = end;
        }
    }
    return first;
}

/* Bytes at the end that may be the beginning of a stop string. */
static size_t stop_tail(const struct pd_text *text)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < text->n_stops; i++) {
        struct pd_str stop = text->stops[i];
        size_t n = PD_MIN(stop.n - 1, text->held.n);
        for (; n > longest; n--) {
            if (memcmp(text->held.p + text->held.n - n, stop.p, n) == 0) {
                longest = n;
                break;
            }
        }
    }
    return longest;
}

/* Appends n bytes as valid UTF-8. */
static pd_status show(struct pd_text *text, const char *p, size_t n)
{
    while (n > 0) {
        size_t good = pd_utf8_valid_prefix(p, n);
        pd_buf_append(&text->shown, p, good);
        p += good;
        n -= good;
        if (n > 0) {
            pd_buf_append_cstr(&text->shown, "\xef\xbf\xbd");
            p++;
            n--;
        }
    }
    return text->shown.status;
}

pd_status pd_api_text_add(struct pd_text *text, struct pd_str piece, struct pd_str *out,
                          uint32_t *stopped)
{
    pd_buf_clear(&text->shown);
    *out = (struct pd_str){ "", 0 };
    *stopped = text->stopped;
    if (text->stopped)
        return PD_OK;
    pd_status status = pd_buf_append_str(&text->held, piece);
    if (status != PD_OK)
        return status;
    size_t ready;
    size_t stop = first_stop(text);
    if (stop != PD_STR_NPOS) {
        ready = stop;
        text->stopped = 1;
    } else {
        ready = text->held.n - PD_MAX(stop_tail(text), pd_utf8_tail(text->held.p, text->held.n));
        /* Never cut a character in two before a held stop prefix. */
        ready -= pd_utf8_tail(text->held.p, ready);
    }
    status = show(text, text->held.p, ready);
    pd_buf_consume(&text->held, text->stopped ? text->held.n : ready);
    *out = pd_buf_str(&text->shown);
    *stopped = text->stopped;
    return status;
}

pd_status pd_api_text_end(struct pd_text *text, struct pd_str *out)
{
    pd_buf_clear(&text->shown);
    pd_status status = text->stopped ? PD_OK : show(text, text->held.p, text->held.n);
    pd_buf_clear(&text->held);
    *out = pd_buf_str(&text->shown);
    return status;
}
