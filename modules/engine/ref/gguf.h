/* SPDX-License-Identifier: Apache-2.0 */
/* Reader of GGUF version 3 files: metadata keys and tensors.  Everything in a
 * file is checked before use; what a getter returns lies inside the file. */
#ifndef REF_GGUF_H
#define REF_GGUF_H

#include <pdplane/types.h>

struct ref_gguf;

/* Types of metadata values, as numbered by the format. */
enum ref_gguf_value {
    REF_GGUF_U8 = 0, REF_GGUF_I8, REF_GGUF_U16, REF_GGUF_I16, REF_GGUF_U32, REF_GGUF_I32,
    REF_GGUF_F32, REF_GGUF_BOOL, REF_GGUF_STR, REF_GGUF_ARRAY, REF_GGUF_U64, REF_GGUF_I64,
    REF_GGUF_F64
};

/* Tensor types that this engine reads; all others are refused. */
enum ref_gguf_tensor_type { REF_TENSOR_F32 = 0, REF_TENSOR_F16 = 1, REF_TENSOR_Q8_0 = 8 };

/* A tensor: dim[0] is the row length, data is little endian and inside the file. */
struct ref_tensor {
    struct pd_str name;
    uint32_t type;
    uint32_t dims;              /* 1..4, unused dim[] are 1 */
    uint64_t dim[4];
    const uint8_t *data;
    uint64_t bytes;
};

/* An array value: elements start at p; strings must be walked with
 * ref_gguf_next_str. */
struct ref_gguf_array {
    uint32_t type;
    uint64_t count;
    const uint8_t *p;
    const uint8_t *end;
};

/* Maps and checks a file.  Returns PD_OK, or an error with *err naming the file
 * and what is wrong.  Gives *out; any thread. */
pd_status ref_gguf_open(const char *path, struct ref_gguf **out, struct pd_err *err);

/* Whether the file is there, can be read and begins like a GGUF file.  PD_OK, or
 * err says why not; it names no place of its own.  Any thread. */
pd_status ref_gguf_probe(const char *path, struct pd_err *err);

/* As ref_gguf_open, over bytes in memory that the caller keeps alive (borrowed). */
pd_status ref_gguf_parse(const void *data, size_t n, const char *name, struct ref_gguf **out,
                         struct pd_err *err);

/* Frees the reader and unmaps the file; everything borrowed from it ends. */
void ref_gguf_close(struct ref_gguf *g);

/* The name the reader was opened with; borrowed. */
const char *ref_gguf_name(const struct ref_gguf *g);

/* Getters: true when the key exists with a fitting type (any unsigned or
 * non-negative integer type for u32).  Returned ranges are borrowed. */
bool ref_gguf_u32(const struct ref_gguf *g, const char *key, uint32_t *v);
bool ref_gguf_f32(const struct ref_gguf *g, const char *key, float *v);
bool ref_gguf_bool(const struct ref_gguf *g, const char *key, bool *v);
bool ref_gguf_str(const struct ref_gguf *g, const char *key, struct pd_str *v);
bool ref_gguf_array(const struct ref_gguf *g, const char *key, struct ref_gguf_array *v);
/* Key by index, a range of no bytes at and after the last; borrowed. */
struct pd_str ref_gguf_key_at(const struct ref_gguf *g, uint32_t i);
/* The whole file, for a fingerprint; borrowed. */
struct pd_str ref_gguf_bytes(const struct ref_gguf *g);
/* True when the key exists with whatever type. */
bool ref_gguf_has(const struct ref_gguf *g, const char *key);

/* Takes the next string of a string array; false at its end. */
bool ref_gguf_next_str(struct ref_gguf_array *a, struct pd_str *s);
/* Element i (below count) of an f32 or of a 32-bit integer array. */
float ref_gguf_array_f32(const struct ref_gguf_array *a, uint64_t i);
uint32_t ref_gguf_array_u32(const struct ref_gguf_array *a, uint64_t i);

/* Tensors by name (NULL when absent) and by index below the count; borrowed. */
const struct ref_tensor *ref_gguf_tensor(const struct ref_gguf *g, const char *name);
const struct ref_tensor *ref_gguf_tensor_at(const struct ref_gguf *g, uint32_t i);
uint32_t ref_gguf_tensors(const struct ref_gguf *g);

/* Writes element values [first, first + n) of a tensor as f32.  The range must
 * lie in the tensor; for q8_0 first and n must be multiples of 32. */
void ref_tensor_f32(const struct ref_tensor *t, uint64_t first, uint64_t n, float *out);

/* Fills *err and returns status; shared by the files of this engine. */
pd_status ref_err(struct pd_err *err, pd_status status, const char *file, const char *fmt, ...)
    PD_PRINTF(4, 5);

#endif
