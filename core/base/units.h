/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations as people write them.  Any thread. */
#ifndef PD_BASE_UNITS_H
#define PD_BASE_UNITS_H

#include <pdplane/types.h>

/* Long enough for every text that the format functions give. */
#define PD_UNITS_TEXT 32

/* "4096", "512k", "1.5m", "4g", "2t", each also with a "b" or "ib" behind; units
 * are powers of 1024, any case.  PD_OK, PD_EINVAL, PD_ELIMIT; err (may be NULL)
 * then says what was expected. */
pd_status pd_units_parse_bytes(struct pd_str s, uint64_t *bytes, struct pd_err *err);
/* "3us", "250ms", "1.5s", "5m", "1h", "2d", "100ns"; sums such as "1h30m"; "0"
 * needs no unit.  Result in nanoseconds.  Returns as above. */
pd_status pd_units_parse_duration(struct pd_str s, pd_time *ns, struct pd_err *err);

/* "512 KiB", "1.5 GiB", "17 B"; for people, rounded.  Returns out. */
const char *pd_units_format_bytes(uint64_t bytes, char out[PD_UNITS_TEXT]);
/* "250 ms", "1.5 s", "2 min", "3.5 h"; for people, rounded.  Returns out. */
const char *pd_units_format_duration(pd_time ns, char out[PD_UNITS_TEXT]);
/* The shortest text that the parse functions read back to the same value, as
 * in a configuration file: "512k", "1500ms".  Returns out. */
const char *pd_units_print_bytes(uint64_t bytes, char out[PD_UNITS_TEXT]);
const char *pd_units_print_duration(pd_time ns, char out[PD_UNITS_TEXT]);

#endif
