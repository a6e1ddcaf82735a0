/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a file of keys, as a table.  Any thread. */
#ifndef PD_NET_KEYS_FILE_H
#define PD_NET_KEYS_FILE_H

#include "net/digest.h"
#include "net/keys.h"

struct pd_key {
    uint8_t digest[PD_SHA256_BYTES];
    char label[PD_KEYS_LABEL + 1];      /* [A-Za-z0-9._-]+ */
};

/* Reads text, of which path is the name in messages.  PD_OK: *out has *n keys, at
 * least one; free it with pd_free.  Otherwise err names the line: PD_EINVAL a line
 * that is none or no key at all, PD_ELIMIT more than PD_KEYS_MAX keys, PD_ENOMEM. */
pd_status pd_keys_file_read(const char *path, struct pd_str text, struct pd_key **out, size_t *n,
                            struct pd_err *err);

#endif
