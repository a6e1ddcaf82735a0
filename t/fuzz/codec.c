/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder of the codec "planes": any bytes end in success or refusal and
 * stay in their buffers; what it takes, and any plain bytes, survive a round. */
#include "fuzz.h"

#include "coder.h"

static struct planes_coder *coder;

static void round_trip(uint32_t width, const uint8_t *p, size_t n)
{
    uint8_t *out = malloc(planes_bound(n)), *back = malloc(n);
    size_t len;

    FUZZ_CHECK(out != NULL && back != NULL);
    FUZZ_CHECK(planes_encode(coder, width, p, n, out, planes_bound(n), &len) == PD_OK);
    FUZZ_CHECK(len <= planes_bound(n));
    FUZZ_CHECK(planes_decode(coder, out, len, back, n) == PD_OK);
    FUZZ_CHECK(memcmp(back, p, n) == 0);
    free(out);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t widths[] = { 1, 2, 4 };
    struct fuzz_in in = { data, size };
    uint8_t kind = fuzz_u8(&in);
    size_t bytes = 1 + fuzz_u16(&in) * (kind & 4 ? 20u : 1u), n;
    uint8_t *p, *out;

    if (coder == NULL)
        FUZZ_CHECK(planes_coder_open(&coder) == PD_OK);
    p = (uint8_t *)fuzz_rest(&in, &n);
    if ((kind & 3) == 0 && n > 0) {
        round_trip(widths[kind / 8 % 3], p, n);
    } else {
        out = malloc(bytes);
        FUZZ_CHECK(out != NULL);
        pd_status st = planes_decode(coder, p, n, out, bytes);
        FUZZ_CHECK(st == PD_OK || st == PD_EINTEGRITY);
        if (st == PD_OK)
            round_trip(p[2], out, bytes);
        free(out);
    }
    fuzz_back((char *)p, n);
    return 0;
}
