/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/conf: filling structs from the tree, see fill.c. */
#ifndef PD_CONF_FILL_H
#define PD_CONF_FILL_H

#include "conf/impl.h"

/* The whole tree into base; unknown keys are errors. */
pd_status conf_fill_root(struct conf_ctx *ctx, const struct pd_option *rows, void *base);
/* One top level row into base; other keys are not looked at. */
pd_status conf_fill_single(struct conf_ctx *ctx, const struct pd_option *row, void *base);
/* Makes conf_origin_find work. */
void conf_origins_sort(struct pd_conf *conf);

#endif
