/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/mod: whether what a module exports may be used. */
#ifndef PD_MOD_CHECK_H
#define PD_MOD_CHECK_H

#include "mod/mod.h"

/* The prefix that never changes, the struct, its units, ops and rows; path is
 * for messages.  kinds as in pd_mods_params.  PD_OK, or err says what does not
 * fit and what to do. */
pd_status pd_mod_check(const struct pd_module *m, const char *path, const struct pd_kind_spec *kinds,
                       struct pd_err *err);
/* The row of this kind, or NULL. */
const struct pd_kind_spec *pd_mod_kind(const struct pd_kind_spec *kinds, uint32_t kind);
/* Whether name is a's name or one of its aliases. */
bool pd_mod_unit_is(const struct pd_unit *u, const char *name);

#endif
