/* SPDX-License-Identifier: Apache-2.0 */
/* Changes to a configuration between pd_conf_open and pd_conf_fill: what would
 * hold if the file said something else.  A path names a setting from the top:
 * "scheduler.picker.module", "endpoints.p0.weight" (a member of a list by its
 * name) or "endpoints.0.weight" (by its number, from 0).  Main thread. */
#ifndef PD_CONF_EDIT_H
#define PD_CONF_EDIT_H

#include "conf/conf.h"

/* Does what `text` says: statements with a semicolon between them.  "PATH = VALUE" sets
 * (groups on the way that are not there are made); "PATH xN" makes a list N copies of
 * itself, whose members get "-2", "-3" ... behind their names.  name stands for the file in
 * messages.  PD_OK, or the report says what is wrong. */
pd_status pd_conf_change(struct pd_conf *conf, const char *name, struct pd_str text,
                         struct pd_conf_report *report);
/* Puts a string there, as pd_conf_change would. */
pd_status pd_conf_change_string(struct pd_conf *conf, const char *path, const char *value,
                                struct pd_conf_report *report);
/* Takes a setting away; false: it was not there. */
bool pd_conf_drop(struct pd_conf *conf, const char *path);
/* Members of the list, group or array there; 0: there is none. */
uint32_t pd_conf_count_at(const struct pd_conf *conf, const char *path);
/* The string there; NULL: none.  Borrowed. */
const char *pd_conf_string_at(const struct pd_conf *conf, const char *path);
/* Where it stands; line 0: nowhere. */
struct pd_conf_place pd_conf_place_at(const struct pd_conf *conf, const char *path);

#endif
