/* SPDX-License-Identifier: Apache-2.0 */
/* The text assembler: the shown text does not depend on how the bytes came, is
 * valid UTF-8, and ends before the stop string.
 *
 * Input: number of stops, each with its length in front, seed, the bytes. */
#include "fuzz.h"

#include "api/api.h"
#include "base/str.h"
#include "base/utf8.h"

enum { WHOLE, BYTES, CUTS };

static bool run(const struct pd_str *stops, uint32_t n_stops, const char *p, size_t n, int way,
                uint32_t seed, struct pd_buf *shown)
{
    struct pd_text *text;
    pd_buf_clear(shown);
    struct pd_str out;
    uint32_t stopped = 0;
    FUZZ_CHECK(pd_api_text_create(NULL, stops, n_stops, &text) == PD_OK);
    for (size_t off = 0; off < n;) {
        size_t step = way == WHOLE ? n : way == BYTES ? 1 : 1 + fuzz_next(&seed) % 9;
        step = step < n - off ? step : n - off;
        FUZZ_CHECK(pd_api_text_add(text, (struct pd_str){ p + off, step }, &out, &stopped) == PD_OK);
        FUZZ_CHECK(pd_utf8_valid_prefix(out.p, out.n) == out.n);
        pd_buf_append_str(shown, out);
        off += step;
    }
    FUZZ_CHECK(pd_api_text_end(text, &out) == PD_OK);
    FUZZ_CHECK(!stopped || out.n == 0);
    FUZZ_CHECK(pd_utf8_valid_prefix(out.p, out.n) == out.n);
    pd_buf_append_str(shown, out);
    FUZZ_CHECK(shown->status == PD_OK);
    pd_api_text_destroy(NULL, text);
    return stopped != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct pd_str stops[PD_API_MAX_STOPS];
    static struct pd_buf whole = { .limit = 1 << 24 }, other = { .limit = 1 << 24 };
    uint32_t n = fuzz_u8(&in) % (PD_API_MAX_STOPS + 1);
    for (uint32_t i = 0; i < n; i++)
        stops[i] = fuzz_take(&in, fuzz_u8(&in) % 24);
    uint32_t seed = fuzz_u8(&in);
    if (in.n > 60000)
        return 0;
    size_t bytes;
    char *p = fuzz_rest(&in, &bytes);
    bool stopped = run(stops, n, p, bytes, WHOLE, 0, &whole);
    for (int way = BYTES; way <= CUTS; way++) {
        if (way != (seed % 4 == 0 ? BYTES : CUTS) && !fuzz_all_ways())
            continue;
        FUZZ_CHECK(run(stops, n, p, bytes, way, seed, &other) == stopped);
        FUZZ_CHECK(fuzz_same(pd_buf_str(&whole), pd_buf_str(&other)));
    }
    /* Without a stop nothing is lost. */
    if (!stopped && pd_utf8_valid_prefix(p, bytes) == bytes)
        FUZZ_CHECK(fuzz_same(pd_buf_str(&whole), (struct pd_str){ p, bytes }));
    for (uint32_t i = 0; i < n; i++) {
        bool valid = pd_utf8_valid_prefix(stops[i].p, stops[i].n) == stops[i].n;
        if (valid && stops[i].n > 0)
            FUZZ_CHECK(pd_str_find(pd_buf_str(&whole), stops[i]) == PD_STR_NPOS ||
                       memchr(whole.p, 0xef, whole.n) != NULL);
    }
    fuzz_back(p, bytes);
    return 0;
}
