/* SPDX-License-Identifier: Apache-2.0 */
/* Model files: whole or not, and which. */
#include "file.h"

#include "lib.h"

#include <gguf.h>
#include <llama.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_MOST = 4096, PARTS_MOST = 1000, PIECE = 65536, STRIDE = 1 << 20, SMALL = 64 << 20 };
enum { VOCABULARY_MOST = 1 << 24, LAYERS_MOST = 512 };

static const uint8_t key[16] = "pdplane llama 1";

/* Whether every tensor ends within the file. */
static pd_status check_tensors(const struct gguf_context *g, uint64_t bytes, const char *path,
                               struct pd_err *err)
{
    uint64_t data = gguf_get_data_offset(g);

    for (int64_t i = 0; i < gguf_get_n_tensors(g); i++) {
        uint64_t at = gguf_get_tensor_offset(g, i), n = gguf_get_tensor_size(g, i);
        if (data > bytes || at > bytes - data || n > bytes - data - at)
            return ll_err(err, PD_EINVAL, path, "the file ends before its weights do (tensor \"%.100s\"): it was "
                          "not copied completely", gguf_get_tensor_name(g, i));
    }
    return PD_OK;
}

/* A place in a table of hashes for the piece at i: its own, that of an equal one, or
 * a free one. */
static uint32_t find_piece(const struct gguf_context *g, int64_t key_id, const uint32_t *table, uint32_t mask,
                           const char *text)
{
    struct eng_hash h = eng_siphash(key, text, strlen(text));
    uint32_t at = (uint32_t)h.lo & mask;

    while (table[at] != 0 && strcmp(gguf_get_arr_str(g, key_id, table[at] - 1), text) != 0)
        at = (at + 1) & mask;
    return at;
}

/* libllama ends the process when a vocabulary has a piece twice. */
static pd_status check_vocabulary(const struct gguf_context *g, const char *path, struct pd_err *err)
{
    int64_t k = gguf_find_key(g, "tokenizer.ggml.tokens");
    uint32_t *table, mask = 1023, twice = 0;
    size_t n;

    if (k < 0 || gguf_get_kv_type(g, k) != GGUF_TYPE_ARRAY || gguf_get_arr_type(g, k) != GGUF_TYPE_STRING)
        return PD_OK;
    n = gguf_get_arr_n(g, k);
    if (n > VOCABULARY_MOST)
        return ll_err(err, PD_EINVAL, path, "the vocabulary has %zu pieces, at most %d are taken", n, VOCABULARY_MOST);
    while (mask < 2 * n)
        mask = 2 * mask + 1;
    table = calloc((size_t)mask + 1, sizeof(*table));
    if (table == NULL)
        return ll_err(err, PD_ENOMEM, NULL, "out of memory");
    for (uint32_t i = 0; i < n && twice == 0; i++) {
        const char *text = gguf_get_arr_str(g, k, i);
        uint32_t at = text[0] != '\0' ? find_piece(g, k, table, mask, text) : 0;
        if (text[0] != '\0' && table[at] != 0)
            twice = i;
        else if (text[0] != '\0')
            table[at] = i + 1;
    }
    free(table);
    if (twice != 0)
        return ll_err(err, PD_EINVAL, path, "piece %u of the vocabulary is there twice: the file is damaged", twice);
    return PD_OK;
}

/* Nor does it take any number of layers. */
static pd_status check_layers(const struct gguf_context *g, const char *path, struct pd_err *err)
{
    int64_t arch = gguf_find_key(g, "general.architecture"), k;
    char name[128];
    uint32_t layers;

    if (arch < 0 || gguf_get_kv_type(g, arch) != GGUF_TYPE_STRING)
        return PD_OK;
    snprintf(name, sizeof(name), "%.100s.block_count", gguf_get_val_str(g, arch));
    k = gguf_find_key(g, name);
    if (k < 0 || gguf_get_kv_type(g, k) != GGUF_TYPE_UINT32)
        return PD_OK;
    layers = gguf_get_val_u32(g, k);
    if (layers == 0 || layers > LAYERS_MOST)
        return ll_err(err, PD_EINVAL, path, "the model has %u layers, 1 to %d are taken", layers, LAYERS_MOST);
    return PD_OK;
}

static pd_status size_of(const char *path, uint64_t *bytes, struct pd_err *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return ll_err(err, errno == ENOENT ? PD_ENOENT : PD_EIO, path, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return ll_err(err, PD_EINVAL, path, "is not a regular file");
    *bytes = (uint64_t)st.st_size;
    return PD_OK;
}

/* The head of one part. */
static pd_status open_part(const char *path, struct gguf_context **out, uint64_t *bytes, struct pd_err *err)
{
    struct gguf_init_params params = { .no_alloc = true };
    pd_status s = size_of(path, bytes, err);

    *out = NULL;
    if (s != PD_OK)
        return s;
    *out = gguf_init_from_file(path, params);
    if (*out == NULL)
        return ll_err_lib(err, PD_EINVAL, path, "is not a GGUF file that can be read");
    s = check_tensors(*out, *bytes, path, err);
    if (s == PD_OK)
        s = check_layers(*out, path, err);
    if (s == PD_OK)
        s = check_vocabulary(*out, path, err);
    if (s != PD_OK) {
        gguf_free(*out);
        *out = NULL;
    }
    return s;
}

/* How many parts the model has, from the head of the first; 0: too many. */
static uint32_t parts_of(const struct gguf_context *g)
{
    int64_t k = gguf_find_key(g, "split.count");

    if (k < 0 || gguf_get_kv_type(g, k) != GGUF_TYPE_UINT16 || gguf_get_val_u16(g, k) == 0)
        return 1;
    return gguf_get_val_u16(g, k) <= PARTS_MOST ? gguf_get_val_u16(g, k) : 0;
}

/* Calls visit for each part of the model. */
static pd_status each_part(const char *path, pd_status (*visit)(const char *part, uint64_t head, uint64_t bytes,
                                                               struct eng_hash *h, struct pd_err *err),
                           struct eng_hash *h, struct pd_err *err)
{
    char prefix[PATH_MOST], part[PATH_MOST];
    uint32_t parts = 1;
    pd_status s = PD_OK;

    snprintf(part, sizeof(part), "%s", path);
    for (uint32_t i = 0; i < parts && s == PD_OK; i++) {
        struct gguf_context *g;
        uint64_t bytes = 0;
        if (i > 0)
            llama_split_path(part, sizeof(part), prefix, (int)i, (int)parts);
        s = open_part(part, &g, &bytes, err);
        if (s != PD_OK)
            return s;
        if (i == 0)
            parts = parts_of(g);
        if (parts == 0 || (parts > 1 && i == 0 &&
                           llama_split_prefix(prefix, sizeof(prefix), path, 0, (int)parts) <= 0))
            s = ll_err(err, PD_EINVAL, path, "is not the first part of a model in parts: its name must end in "
                       "-00001-of-NNNNN.gguf");
        else if (visit != NULL)
            s = visit(part, gguf_get_data_offset(g), bytes, h, err);
        gguf_free(g);
    }
    return s;
}

pd_status ll_file_probe(const char *path, struct pd_err *err)
{
    ll_lib_messages(NULL);
    return each_part(path, NULL, NULL, err);
}

/* Chains the hash of one piece to those before it. */
static void add(struct eng_hash *h, const uint8_t *data, size_t n)
{
    uint64_t link[4] = { h->lo, h->hi, 0, 0 };
    struct eng_hash piece = eng_siphash(key, data, n);

    link[2] = piece.lo;
    link[3] = piece.hi;
    *h = eng_siphash(key, link, sizeof(link));
}

static pd_status hash_part(const char *path, uint64_t head, uint64_t bytes, struct eng_hash *h,
                           struct pd_err *err)
{
    uint64_t step = bytes <= SMALL ? PIECE : STRIDE;
    uint8_t *buf = malloc(PIECE);
    FILE *f = buf != NULL ? fopen(path, "rb") : NULL;
    pd_status s = PD_OK;

    if (f == NULL) {
        s = ll_err(err, buf == NULL ? PD_ENOMEM : PD_EIO, path, "cannot be read: %s", strerror(errno));
        free(buf);
        return s;
    }
    add(h, (const uint8_t *)&bytes, sizeof(bytes));
    for (uint64_t at = 0; at < bytes && s == PD_OK; at += at < head ? PIECE : step) {
        size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
        if (fseeko(f, (off_t)at, SEEK_SET) != 0 || fread(buf, 1, n, f) != n)
            s = ll_err(err, PD_EIO, path, "cannot be read");
        else
            add(h, buf, n);
    }
    fclose(f);
    free(buf);
    return s;
}

pd_status ll_file_fingerprint(const char *path, struct eng_hash *out, struct pd_err *err)
{
    *out = (struct eng_hash){ 0, 0 };
    return each_part(path, hash_part, out, err);
}
