/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the ref engine: the tiny model and its reference outputs.  The
 * JSON reader trusts its input, which is a file of ours. */
#ifndef PD_T_REF_GOLDEN_H
#define PD_T_REF_GOLDEN_H

#include "unit.h"

#include <pdplane/types.h>

static inline char *golden_path(const char *name, char *buf, size_t n)
{
    const char *src = getenv("PD_SRCDIR");
    snprintf(buf, n, "%s/contrib/tinymodel/%s", src != NULL ? src : ".", name);
    return buf;
}

/* Reads a whole file; the caller frees it.  A zero byte follows. */
static inline char *golden_slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *b;
    long size;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    assert_true(size >= 0);
    rewind(f);
    b = malloc((size_t)size + 1);
    assert_non_null(b);
    assert_int_equal(fread(b, 1, (size_t)size, f), size);
    b[size] = 0;
    fclose(f);
    if (n != NULL)
        *n = (size_t)size;
    return b;
}

/* A position in JSON text; NULL is "not there". */
typedef const char *json;

static inline json json_space(json p)
{
    return p + strspn(p, " \n\r\t,:");
}

static inline json json_skip(json p)
{
    p = json_space(p);
    if (*p == '"') {
        for (p++; *p != '"'; p++)
            if (*p == '\\')
                p++;
        return p + 1;
    }
    if (*p == '{' || *p == '[') {
        for (p = json_space(p + 1); *p != '}' && *p != ']'; p = json_space(p))
            p = json_skip(p);
        return p + 1;
    }
    return p + strcspn(p, ",]} \n");
}

/* Value of a member of the object at p. */
static inline json json_get(json p, const char *key)
{
    for (p = json_space(json_space(p) + 1); *p != '}';) {
        bool hit = strncmp(p + 1, key, strlen(key)) == 0 && p[1 + strlen(key)] == '"';
        json value = json_space(json_skip(p));
        if (hit)
            return value;
        p = json_space(json_skip(value));
    }
    return NULL;
}

/* First element of the array at p, and the next one; NULL at the end. */
static inline json json_first(json p)
{
    p = json_space(json_space(p) + 1);
    return *p == ']' ? NULL : p;
}
static inline json json_next(json p)
{
    p = json_space(json_skip(p));
    return *p == ']' ? NULL : p;
}

/* String value; returns its bytes, *n of them, to be freed. */
static inline char *json_string(json p, size_t *n)
{
    char *out = malloc((size_t)(json_skip(p) - p) + 1), *to = out;

    assert_int_equal(*p, '"');
    for (p++; *p != '"'; p++) {
        if (*p != '\\') {
            *to++ = *p;
            continue;
        }
        p++;
        assert_true(*p != 'u');
        *to++ = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p;
    }
    *to = 0;
    *n = (size_t)(to - out);
    return out;
}

/* Array of numbers as doubles; to be freed. */
static inline double *json_numbers(json p, size_t *n)
{
    double *out = malloc(((size_t)(json_skip(p) - p) + 1) * sizeof(*out));

    *n = 0;
    for (json e = json_first(p); e != NULL; e = json_next(e))
        out[(*n)++] = strtod(e, NULL);
    return out;
}

#endif
