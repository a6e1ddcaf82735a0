/* SPDX-License-Identifier: Apache-2.0 */
#include "req/ladder.h"

void pd_req_ladder_init(struct pd_req_ladder *l, const double *bounds, uint32_t n, double scale)
{
    uint32_t at = 0;

    l->scale = scale;
    l->n = n;
    for (uint32_t i = 0; i < n; i++)
        l->bound[i] = (uint64_t)(bounds[i] * scale + 0.5);
    for (uint32_t bits = 0; bits <= 64; bits++) {
        uint64_t lowest = bits == 0 ? 0 : 1ull << (bits - 1);
        while (at < n && lowest > l->bound[at])
            at++;
        l->first[bits] = (uint8_t)at;
    }
}
