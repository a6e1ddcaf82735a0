/* SPDX-License-Identifier: Apache-2.0 */
/* Reads GGUF version 3.  The whole header is walked and checked once at open:
 * each count, length and offset against the bytes that are really there, each
 * alignment and type against what the format allows.  Invariant: every range
 * kept in struct ref_gguf lies inside the file, so getters check nothing. */
#include "gguf.h"

#include "half.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_KEYS = 4096,
    MAX_TENSORS = 8192,
    MAX_NAME = 255,
    MAX_ALIGN = 1 << 20,
    Q8_BLOCK = 32,
    Q8_BYTES = 34
};

struct entry {
    struct pd_str key;
    uint32_t type;
    struct ref_gguf_array value;    /* count 1 and p at the value for plain types */
};

struct ref_gguf {
    char *name;
    const uint8_t *data;
    size_t n;
    bool mapped;
    uint32_t keys, tensors;
    struct entry *key;
    struct ref_tensor *tensor;
    uint32_t *by_name;              /* open hash of tensor index + 1 */
    uint32_t mask;
};

struct cursor {
    const uint8_t *p, *end;
    const char *file;
    struct pd_err *err;
};

pd_status ref_err(struct pd_err *err, pd_status status, const char *file, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return status;
    memset(err, 0, sizeof(*err));
    err->status = status;
    snprintf(err->file, sizeof(err->file), "%s", file != NULL ? file : "");
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return status;
}

static uint32_t hash_name(struct pd_str s)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 16777619u;
    return h;
}

static bool str_is(struct pd_str s, const char *z)
{
    return strlen(z) == s.n && memcmp(z, s.p, s.n) == 0;
}

static bool printable(struct pd_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((uint8_t)s.p[i] < 0x20 || (uint8_t)s.p[i] > 0x7e)
            return false;
    return true;
}

static pd_status cut_short(struct cursor *c, const char *what)
{
    return ref_err(c->err, PD_EINVAL, c->file, "the file ends inside %s", what);
}

static bool take(struct cursor *c, uint64_t n, const uint8_t **p)
{
    if ((uint64_t)(c->end - c->p) < n)
        return false;
    *p = c->p;
    c->p += n;
    return true;
}

static bool take_u32(struct cursor *c, uint32_t *v)
{
    const uint8_t *p;
    if (!take(c, 4, &p))
        return false;
    *v = ref_le32(p);
    return true;
}

static bool take_u64(struct cursor *c, uint64_t *v)
{
    const uint8_t *p;
    if (!take(c, 8, &p))
        return false;
    *v = ref_le64(p);
    return true;
}

static bool take_str(struct cursor *c, struct pd_str *s)
{
    uint64_t n;
    const uint8_t *p;
    if (!take_u64(c, &n) || !take(c, n, &p))
        return false;
    *s = (struct pd_str){ (const char *)p, (size_t)n };
    return true;
}

/* Key and tensor names: not empty, at most MAX_NAME bytes, printable ASCII. */
static pd_status take_name(struct cursor *c, const char *what, uint64_t index, struct pd_str *s)
{
    if (!take_str(c, s))
        return cut_short(c, what);
    if (s->n == 0 || s->n > MAX_NAME || !printable(*s))
        return ref_err(c->err, PD_EINVAL, c->file, "%s %llu has an invalid name", what,
                       (unsigned long long)index);
    return PD_OK;
}

static uint32_t plain_size(uint32_t type)
{
    static const uint8_t size[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < sizeof(size) ? size[type] : 0;
}

static pd_status take_array(struct cursor *c, struct entry *e)
{
    struct ref_gguf_array *a = &e->value;
    const uint8_t *p;
    struct pd_str s;

    if (!take_u32(c, &a->type) || !take_u64(c, &a->count))
        return cut_short(c, "an array");
    a->p = c->p;
    if (a->type == REF_GGUF_STR) {
        if (a->count > (uint64_t)(c->end - c->p) / 8)
            return cut_short(c, "an array of strings");
        for (uint64_t i = 0; i < a->count; i++)
            if (!take_str(c, &s))
                return cut_short(c, "an array of strings");
    } else {
        uint32_t size = plain_size(a->type);
        if (size == 0)
            return ref_err(c->err, PD_EINVAL, c->file, "key %.*s is an array of type %u, which is not readable",
                           PD_STR_ARG(e->key), a->type);
        if (a->count > (uint64_t)(c->end - c->p) / size || !take(c, a->count * size, &p))
            return cut_short(c, "an array");
    }
    a->end = c->p;
    return PD_OK;
}

static pd_status take_value(struct cursor *c, struct entry *e)
{
    const uint8_t *p = c->p;
    struct pd_str s;

    e->value = (struct ref_gguf_array){ .type = e->type, .count = 1, .p = p };
    if (e->type == REF_GGUF_ARRAY)
        return take_array(c, e);
    if (e->type == REF_GGUF_STR) {
        if (!take_str(c, &s))
            return cut_short(c, "a string");
    } else {
        if (plain_size(e->type) == 0)
            return ref_err(c->err, PD_EINVAL, c->file, "key %.*s has the unknown type %u",
                           PD_STR_ARG(e->key), e->type);
        if (!take(c, plain_size(e->type), &p))
            return cut_short(c, "a value");
    }
    e->value.end = c->p;
    return PD_OK;
}

static const struct entry *find_key(const struct ref_gguf *g, const char *key)
{
    for (uint32_t i = 0; i < g->keys; i++)
        if (str_is(g->key[i].key, key))
            return &g->key[i];
    return NULL;
}

static int compare_keys(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    size_t n = (*x)->key.n < (*y)->key.n ? (*x)->key.n : (*y)->key.n;
    int d = memcmp((*x)->key.p, (*y)->key.p, n);
    return d != 0 ? d : ((*x)->key.n > (*y)->key.n) - ((*x)->key.n < (*y)->key.n);
}

static pd_status check_keys_unique(struct ref_gguf *g, struct pd_err *err)
{
    pd_status s = PD_OK;
    const struct entry **order = calloc(g->keys + 1, sizeof(*order));

    if (order == NULL)
        return ref_err(err, PD_ENOMEM, g->name, "out of memory");
    for (uint32_t i = 0; i < g->keys; i++)
        order[i] = &g->key[i];
    qsort(order, g->keys, sizeof(*order), compare_keys);
    for (uint32_t i = 1; i < g->keys && s == PD_OK; i++)
        if (compare_keys(&order[i - 1], &order[i]) == 0)
            s = ref_err(err, PD_EINVAL, g->name, "key %.*s stands twice", PD_STR_ARG(order[i]->key));
    free(order);
    return s;
}

static pd_status read_keys(struct ref_gguf *g, struct cursor *c, uint64_t count)
{
    pd_status s;

    g->key = calloc(count + 1, sizeof(*g->key));
    if (g->key == NULL)
        return ref_err(c->err, PD_ENOMEM, c->file, "out of memory");
    for (uint64_t i = 0; i < count; i++) {
        struct entry *e = &g->key[i];
        s = take_name(c, "key", i, &e->key);
        if (s == PD_OK && !take_u32(c, &e->type))
            s = cut_short(c, "a key");
        if (s == PD_OK)
            s = take_value(c, e);
        if (s != PD_OK)
            return s;
        g->keys++;
    }
    return check_keys_unique(g, c->err);
}

static pd_status tensor_bytes(struct ref_tensor *t, const char *file, struct pd_err *err)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->dims; i++) {
        if (t->dim[i] == 0 || t->dim[i] > UINT32_MAX || n > ((uint64_t)1 << 40) / t->dim[i])
            return ref_err(err, PD_EINVAL, file, "tensor %.*s has an impossible shape",
                           PD_STR_ARG(t->name));
        n *= t->dim[i];
    }
    switch (t->type) {
    case REF_TENSOR_F32:
        t->bytes = n * 4;
        return PD_OK;
    case REF_TENSOR_F16:
        t->bytes = n * 2;
        return PD_OK;
    case REF_TENSOR_Q8_0:
        if (t->dim[0] % Q8_BLOCK != 0)
            return ref_err(err, PD_EINVAL, file, "tensor %.*s is q8_0 with a row length of %llu, no multiple of %d",
                           PD_STR_ARG(t->name), (unsigned long long)t->dim[0], Q8_BLOCK);
        t->bytes = n / Q8_BLOCK * Q8_BYTES;
        return PD_OK;
    default:
        return ref_err(err, PD_EINVAL, file,
                       "tensor %.*s has type %u; this engine reads f32 (0), f16 (1) and q8_0 (8)",
                       PD_STR_ARG(t->name), t->type);
    }
}

static pd_status read_tensor(struct ref_gguf *g, struct cursor *c, uint32_t index, uint64_t *offset)
{
    struct ref_tensor *t = &g->tensor[index];
    pd_status s = take_name(c, "tensor", index, &t->name);

    if (s != PD_OK)
        return s;
    if (!take_u32(c, &t->dims))
        return cut_short(c, "a tensor description");
    if (t->dims < 1 || t->dims > 4)
        return ref_err(c->err, PD_EINVAL, c->file, "tensor %.*s has %u dimensions",
                       PD_STR_ARG(t->name), t->dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->dim[i] = 1;
        if (i < t->dims && !take_u64(c, &t->dim[i]))
            return cut_short(c, "a tensor description");
    }
    if (!take_u32(c, &t->type) || !take_u64(c, offset))
        return cut_short(c, "a tensor description");
    s = tensor_bytes(t, c->file, c->err);
    if (s != PD_OK)
        return s;
    for (uint32_t h = hash_name(t->name);; h++) {
        uint32_t at = g->by_name[h & g->mask];
        if (at == 0) {
            g->by_name[h & g->mask] = index + 1;
            return PD_OK;
        }
        struct pd_str other = g->tensor[at - 1].name;
        if (other.n == t->name.n && memcmp(other.p, t->name.p, other.n) == 0)
            return ref_err(c->err, PD_EINVAL, c->file, "tensor %.*s stands twice",
                           PD_STR_ARG(t->name));
    }
}

static pd_status place_tensors(struct ref_gguf *g, struct cursor *c, const uint64_t *offset)
{
    uint32_t align = 32;
    uint64_t start = (uint64_t)(c->p - g->data);

    if (ref_gguf_has(g, "general.alignment") &&
        (!ref_gguf_u32(g, "general.alignment", &align) || align < 8 || align > MAX_ALIGN ||
         (align & (align - 1)) != 0))
        return ref_err(c->err, PD_EINVAL, c->file, "general.alignment is not a power of two from 8 to %d",
                       MAX_ALIGN);
    start = (start + align - 1) / align * align;
    if (g->tensors > 0 && start > g->n)
        return cut_short(c, "the padding before the tensor data");
    for (uint32_t i = 0; i < g->tensors; i++) {
        struct ref_tensor *t = &g->tensor[i];
        if (offset[i] % align != 0)
            return ref_err(c->err, PD_EINVAL, c->file, "tensor %.*s is not aligned to %u bytes",
                           PD_STR_ARG(t->name), align);
        if (offset[i] > g->n - start || t->bytes > g->n - start - offset[i])
            return ref_err(c->err, PD_EINVAL, c->file, "tensor %.*s reaches past the end of the file",
                           PD_STR_ARG(t->name));
        t->data = g->data + start + offset[i];
    }
    return PD_OK;
}

static pd_status read_tensors(struct ref_gguf *g, struct cursor *c, uint64_t count)
{
    pd_status s = PD_OK;
    uint64_t *offset;

    g->mask = 1;
    while (g->mask < count * 2)
        g->mask *= 2;
    g->by_name = calloc(g->mask, sizeof(*g->by_name));
    g->mask--;
    g->tensor = calloc(count + 1, sizeof(*g->tensor));
    offset = calloc(count + 1, sizeof(*offset));
    if (g->by_name == NULL || g->tensor == NULL || offset == NULL)
        s = ref_err(c->err, PD_ENOMEM, c->file, "out of memory");
    for (uint32_t i = 0; i < count && s == PD_OK; i++) {
        s = read_tensor(g, c, i, &offset[i]);
        g->tensors += s == PD_OK;
    }
    if (s == PD_OK)
        s = place_tensors(g, c, offset);
    free(offset);
    return s;
}

static pd_status read_all(struct ref_gguf *g, struct pd_err *err)
{
    struct cursor c = { g->data, g->data + g->n, g->name, err };
    const uint8_t *magic;
    uint32_t version;
    uint64_t tensors, keys;
    pd_status s;

    if (!take(&c, 4, &magic) || memcmp(magic, "GGUF", 4) != 0)
        return ref_err(err, PD_EINVAL, g->name, "this is not a GGUF file");
    if (!take_u32(&c, &version))
        return cut_short(&c, "the header");
    if (version != 3)
        return ref_err(err, PD_EINVAL, g->name, "GGUF version %u is not readable, only version 3 is",
                       version);
    if (!take_u64(&c, &tensors) || !take_u64(&c, &keys))
        return cut_short(&c, "the header");
    if (tensors > MAX_TENSORS || keys > MAX_KEYS)
        return ref_err(err, PD_ELIMIT, g->name, "%llu tensors and %llu keys are more than %d and %d",
                       (unsigned long long)tensors, (unsigned long long)keys, MAX_TENSORS, MAX_KEYS);
    s = read_keys(g, &c, keys);
    return s == PD_OK ? read_tensors(g, &c, tensors) : s;
}

static pd_status make(const void *data, size_t n, const char *name, bool mapped,
                      struct ref_gguf **out, struct pd_err *err)
{
    pd_status s;
    struct ref_gguf *g = calloc(1, sizeof(*g));

    *out = NULL;
    if (g != NULL) {
        g->name = strdup(name);
        g->data = data;
        g->n = n;
        g->mapped = mapped;
    }
    s = g != NULL && g->name != NULL ? read_all(g, err)
                                     : ref_err(err, PD_ENOMEM, name, "out of memory");
    if (s == PD_OK) {
        *out = g;
        return PD_OK;
    }
    if (g != NULL)
        ref_gguf_close(g);
    else if (mapped)
        munmap((void *)(uintptr_t)data, n);
    return s;
}

pd_status ref_gguf_parse(const void *data, size_t n, const char *name, struct ref_gguf **out,
                         struct pd_err *err)
{
    return make(data, n, name, false, out, err);
}

pd_status ref_gguf_probe(const char *path, struct pd_err *err)
{
    char magic[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return ref_err(err, errno == ENOENT ? PD_ENOENT : PD_EIO, NULL, "cannot open the model %s: %s",
                       path, strerror(errno));
    ssize_t n = read(fd, magic, sizeof magic);
    close(fd);
    if (n != (ssize_t)sizeof magic || memcmp(magic, "GGUF", sizeof magic) != 0)
        return ref_err(err, PD_EINVAL, NULL, "the model %s is not a GGUF file", path);
    return PD_OK;
}

pd_status ref_gguf_open(const char *path, struct ref_gguf **out, struct pd_err *err)
{
    struct stat st;
    void *map;
    pd_status s;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *out = NULL;
    if (fd < 0)
        return ref_err(err, errno == ENOENT ? PD_ENOENT : PD_EIO, path, "cannot open the model: %s",
                       strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 24) {
        close(fd);
        return ref_err(err, PD_EINVAL, path, "this is not a GGUF file");
    }
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    s = map == MAP_FAILED ? ref_err(err, PD_EIO, path, "cannot map the model: %s", strerror(errno))
                          : PD_OK;
    close(fd);
    return s == PD_OK ? make(map, (size_t)st.st_size, path, true, out, err) : s;
}

void ref_gguf_close(struct ref_gguf *g)
{
    if (g == NULL)
        return;
    if (g->mapped)
        munmap((void *)(uintptr_t)g->data, g->n);
    free(g->by_name);
    free(g->tensor);
    free(g->key);
    free(g->name);
    free(g);
}

const char *ref_gguf_name(const struct ref_gguf *g)
{
    return g->name;
}

struct pd_str ref_gguf_key_at(const struct ref_gguf *g, uint32_t i)
{
    return i < g->keys ? g->key[i].key : (struct pd_str){ "", 0 };
}

struct pd_str ref_gguf_bytes(const struct ref_gguf *g)
{
    return (struct pd_str){ (const char *)g->data, g->n };
}

bool ref_gguf_has(const struct ref_gguf *g, const char *key)
{
    return find_key(g, key) != NULL;
}

bool ref_gguf_u32(const struct ref_gguf *g, const char *key, uint32_t *v)
{
    const struct entry *e = find_key(g, key);
    uint64_t x;

    if (e == NULL)
        return false;
    switch (e->type) {
    case REF_GGUF_U8:
    case REF_GGUF_I8:
        x = e->value.p[0];
        break;
    case REF_GGUF_U16:
    case REF_GGUF_I16:
        x = ref_le16(e->value.p);
        break;
    case REF_GGUF_U32:
    case REF_GGUF_I32:
        x = ref_le32(e->value.p);
        break;
    case REF_GGUF_U64:
    case REF_GGUF_I64:
        x = ref_le64(e->value.p);
        break;
    default:
        return false;
    }
    bool negative = (e->type == REF_GGUF_I8 && x > INT8_MAX) ||
                    (e->type == REF_GGUF_I16 && x > INT16_MAX) ||
                    (e->type == REF_GGUF_I32 && x > INT32_MAX);
    if (negative || x > UINT32_MAX)
        return false;
    *v = (uint32_t)x;
    return true;
}

bool ref_gguf_f32(const struct ref_gguf *g, const char *key, float *v)
{
    const struct entry *e = find_key(g, key);
    if (e == NULL || e->type != REF_GGUF_F32)
        return false;
    *v = ref_bits_float(ref_le32(e->value.p));
    return true;
}

bool ref_gguf_bool(const struct ref_gguf *g, const char *key, bool *v)
{
    const struct entry *e = find_key(g, key);
    if (e == NULL || e->type != REF_GGUF_BOOL)
        return false;
    *v = e->value.p[0] != 0;
    return true;
}

bool ref_gguf_str(const struct ref_gguf *g, const char *key, struct pd_str *v)
{
    const struct entry *e = find_key(g, key);
    if (e == NULL || e->type != REF_GGUF_STR)
        return false;
    *v = (struct pd_str){ (const char *)e->value.p + 8, (size_t)(e->value.end - e->value.p) - 8 };
    return true;
}

bool ref_gguf_array(const struct ref_gguf *g, const char *key, struct ref_gguf_array *v)
{
    const struct entry *e = find_key(g, key);
    if (e == NULL || e->type != REF_GGUF_ARRAY)
        return false;
    *v = e->value;
    return true;
}

bool ref_gguf_next_str(struct ref_gguf_array *a, struct pd_str *s)
{
    if (a->p == a->end)
        return false;
    *s = (struct pd_str){ (const char *)a->p + 8, (size_t)ref_le64(a->p) };
    a->p += 8 + s->n;
    return true;
}

float ref_gguf_array_f32(const struct ref_gguf_array *a, uint64_t i)
{
    return ref_bits_float(ref_le32(a->p + 4 * i));
}

uint32_t ref_gguf_array_u32(const struct ref_gguf_array *a, uint64_t i)
{
    return ref_le32(a->p + 4 * i);
}

const struct ref_tensor *ref_gguf_tensor(const struct ref_gguf *g, const char *name)
{
    struct pd_str s = { name, strlen(name) };
    for (uint32_t h = hash_name(s); g->by_name[h & g->mask] != 0; h++) {
        const struct ref_tensor *t = &g->tensor[g->by_name[h & g->mask] - 1];
        if (str_is(t->name, name))
            return t;
    }
    return NULL;
}

const struct ref_tensor *ref_gguf_tensor_at(const struct ref_gguf *g, uint32_t i)
{
    return &g->tensor[i];
}

uint32_t ref_gguf_tensors(const struct ref_gguf *g)
{
    return g->tensors;
}

void ref_tensor_f32(const struct ref_tensor *t, uint64_t first, uint64_t n, float *out)
{
    const uint8_t *p;

    switch (t->type) {
    case REF_TENSOR_F32:
        p = t->data + first * 4;
        for (uint64_t i = 0; i < n; i++)
            out[i] = ref_bits_float(ref_le32(p + 4 * i));
        break;
    case REF_TENSOR_F16:
        p = t->data + first * 2;
        for (uint64_t i = 0; i < n; i++)
            out[i] = ref_half_to_float(ref_le16(p + 2 * i));
        break;
    default:
        p = t->data + first / Q8_BLOCK * Q8_BYTES;
        for (uint64_t i = 0; i < n; i++) {
            const uint8_t *b = p + i / Q8_BLOCK * Q8_BYTES;
            out[i] = ref_half_to_float(ref_le16(b)) * (float)(int8_t)b[2 + i % Q8_BLOCK];
        }
    }
}
