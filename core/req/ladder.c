/* SPDX-License-Identifier: Apache-2.0 */
#include "req/ladder.h"

void pd_req_ladder_init(struct pd_req_ladder *l, const double *bounds, uint32_t n, double scale)
{
    uint32_t at = 0;

    l->scale = scale;
    for (uint32_t i = 0; i < n; i++)
        l->bound[i] = (uint64_t)(bounds[i] * scale + 0.5);
    l->bound[n] = UINT64_MAX;
    for (uint32_t bit = 0; bit < 64; bit++) {
        while ((bit == 0 ? 0 : 1ull << bit) > l->bound[at])
            at++;
        l->first[bit] = (uint8_t)at;
    }
}
