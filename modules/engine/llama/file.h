/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at a model file before libllama does. */
#ifndef LL_FILE_H
#define LL_FILE_H

#include "hash.h"

#include <pdplane/types.h>

/* Whether this is a GGUF file with all of the bytes that its head tells of.
 * PD_OK, or err says what is wrong. */
pd_status ll_file_probe(const char *path, struct pd_err *err);

/* A hash that tells models apart: of all parts of the model their heads, their
 * sizes, and of each MiB of weights the first 64 KiB (small files: all). */
pd_status ll_file_fingerprint(const char *path, struct eng_hash *out, struct pd_err *err);

#endif
