/* SPDX-License-Identifier: Apache-2.0 */
/* Sequence blobs of libllama: built here byte by byte from their description, in
 * all forms, and compared with what the module makes of them.  Needs no library. */
#include "unit.h"

#include "blob.h"

enum { LAYERS = 3, ELEMS = 6, BT = 4, BLOCKS = 5, TOKENS = 11, FROM = 3, MAGIC = 0x1234abcd, ROOM = 65536 };

/* The form of blobs. */
struct form {
    uint32_t elem, middle, type;
    bool transposed;
};

static const struct form forms[] = { { 2, 8, 1, false }, { 2, 8, 1, true }, { 4, 8, 0, false }, { 4, 8, 0, true },
                                     { 2, 16, 30, false }, { 2, 16, 30, true }, { 4, 16, 0, true } };
enum { FORMS = sizeof(forms) / sizeof(forms[0]) };

/* Positions of the cells: not in order. */
static const uint32_t cells[TOKENS] = { 5, 6, 7, 8, 3, 4, 13, 9, 10, 11, 12 };
static const uint32_t blocks[BLOCKS] = { 4, 1, 6, 0, 2 };

struct out {
    uint8_t b[ROOM];
    size_t n;
};

static void put(struct out *o, uint64_t v, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        o->b[o->n++] = (uint8_t)(v >> (8 * i));
}

/* One value; small, so that it is a number in each type. */
static uint32_t value(const struct form *f, uint32_t layer, uint32_t part, uint32_t position, uint32_t elem)
{
    uint32_t v = 1 + elem + ELEMS * (position + 32 * (part + 2 * layer));

    return f->elem == 2 ? v : v * 65599 % 0x3f000000;
}

static void put_part(struct out *o, const struct form *f, uint32_t layer, uint32_t part, const uint32_t *at,
                     uint32_t tokens)
{
    bool columns = part == 1 && f->transposed;

    put(o, f->type, 4);
    put(o, columns ? f->elem : ELEMS * f->elem, columns ? 4 : 8);
    if (columns)
        put(o, ELEMS, 4);
    for (uint32_t i = 0; i < tokens * ELEMS; i++) {
        uint32_t cell = columns ? i % tokens : i / ELEMS, elem = columns ? i / tokens : i % ELEMS;
        put(o, value(f, layer, part, at[cell], elem), f->elem);
    }
}

static struct out *build(const struct form *f, const uint32_t *at, uint32_t tokens)
{
    struct out *o = calloc(1, sizeof(*o));

    assert_non_null(o);
    put(o, MAGIC, 4);
    put(o, 0, 4);
    put(o, 1, 4);
    put(o, tokens, 4);
    for (uint32_t i = 0; i < tokens; i++) {
        put(o, at[i], 4);
        put(o, 1, 4);
        put(o, 0, 4);
    }
    put(o, f->transposed, 4);
    for (uint32_t i = 8; i < f->middle; i += 4)
        put(o, 7 * i, 4);
    put(o, LAYERS, 4);
    for (uint32_t part = 0; part < 2; part++)
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            put_part(o, f, layer, part, at, tokens);
    return o;
}

static struct ll_shape learnt(const struct form *f)
{
    struct out *o = build(f, cells, TOKENS);
    struct ll_shape s;

    assert_int_equal(ll_blob_learn(o->b, o->n, TOKENS, f->elem, &s), PD_OK);
    assert_int_equal(s.layers, LAYERS);
    assert_int_equal(s.row_bytes, ELEMS * f->elem);
    assert_int_equal(s.transposed, f->transposed);
    assert_int_equal(ll_blob_size(&s, TOKENS), o->n);
    assert_int_equal(ll_blob_token_bytes(&s), 2 * LAYERS * ELEMS * f->elem);
    free(o);
    return s;
}

/* A pool of nine blocks, of which the sequence has five. */
static struct ll_place pool(const struct ll_shape *s, uint8_t fill)
{
    uint64_t bytes = BT * ll_blob_token_bytes(s);
    struct ll_place p = { .base = malloc(9 * bytes), .block_bytes = bytes, .block_tokens = BT, .blocks = blocks };

    assert_non_null(p.base);
    memset(p.base, fill, 9 * bytes);
    return p;
}

static uint32_t value_in(const struct ll_place *p, const struct form *f, uint32_t layer, uint32_t part,
                         uint32_t position, uint32_t elem)
{
    const uint8_t *at = p->base + blocks[position / BT] * p->block_bytes +
                        (((layer * 2 + part) * BT + position % BT) * ELEMS + elem) * f->elem;
    uint32_t v = 0;

    for (uint32_t i = 0; i < f->elem; i++)
        v |= (uint32_t)at[i] << (8 * i);
    return v;
}

/* Every value is in its place, and no other byte was written. */
static void read_all_forms(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < FORMS; k++) {
        const struct form *f = &forms[k];
        struct ll_shape s = learnt(f);
        struct out *o = build(f, cells, TOKENS);
        struct ll_place p = pool(&s, 0xaa);
        uint64_t touched = 0;
        assert_int_equal(ll_blob_read(&s, o->b, o->n, FROM, TOKENS, &p), PD_OK);
        for (uint32_t i = 0; i < LAYERS * 2 * TOKENS * ELEMS; i++) {
            uint32_t elem = i % ELEMS, at = FROM + i / ELEMS % TOKENS, part = i / ELEMS / TOKENS % 2,
                     layer = i / ELEMS / TOKENS / 2;
            assert_int_equal(value_in(&p, f, layer, part, at, elem), value(f, layer, part, at, elem));
        }
        /* values have no byte 0xaa in all of their bytes, so what was not touched tells itself */
        for (uint64_t i = 0; i < 9 * p.block_bytes; i += f->elem)
            touched += memcmp(p.base + i, "\xaa\xaa\xaa\xaa", f->elem) != 0;
        assert_int_equal(touched, LAYERS * 2 * TOKENS * ELEMS);
        free(p.base);
        free(o);
    }
}

/* What is written is what the library would give for cells in order. */
static void write_all_forms(void **state)
{
    uint32_t order[TOKENS];

    (void)state;
    for (uint32_t i = 0; i < TOKENS; i++)
        order[i] = FROM + i;
    for (uint32_t k = 0; k < FORMS; k++) {
        const struct form *f = &forms[k];
        struct ll_shape s = learnt(f);
        struct out *o = build(f, cells, TOKENS), *want = build(f, order, TOKENS);
        struct ll_place p = pool(&s, 0);
        uint8_t *got = malloc(o->n + 1);
        assert_non_null(got);
        got[o->n] = 0x5a;
        assert_int_equal(ll_blob_read(&s, o->b, o->n, FROM, TOKENS, &p), PD_OK);
        ll_blob_write(&s, &p, FROM, TOKENS, got);
        assert_memory_equal(got, want->b, want->n);
        assert_int_equal(got[o->n], 0x5a);
        free(got);
        free(p.base);
        free(o);
        free(want);
    }
}

/* A blob with any bit of its numbers changed, or cut, is not taken. */
static void damaged(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < FORMS; k++) {
        const struct form *f = &forms[k];
        struct ll_shape s = learnt(f);
        struct out *o = build(f, cells, TOKENS);
        struct ll_place p = pool(&s, 0);
        size_t part = 12 + TOKENS * ELEMS * f->elem, layers = 16 + 12 * TOKENS + f->middle;
        for (size_t cut = 0; cut < o->n; cut++) {
            uint8_t *exact = malloc(cut + 1);       /* so that a sanitizer sees the end */
            assert_non_null(exact);
            memcpy(exact, o->b, cut);
            assert_int_equal(ll_blob_read(&s, exact, cut, FROM, TOKENS, &p), PD_EPROTO);
            free(exact);
        }
        for (size_t bit = 0; bit < 8 * o->n; bit++) {
            size_t at = bit / 8;
            bool is_head = at < 4 || (at >= 8 && at < 16) || (at >= layers - f->middle && at < layers) ||
                           (at >= layers && (at - layers) % part < 12);
            if (!is_head)
                continue;
            o->b[at] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(ll_blob_read(&s, o->b, o->n, FROM, TOKENS, &p), PD_EPROTO);
            o->b[at] ^= (uint8_t)(1u << bit % 8);
        }
        o->b[16 + 12 * 6] = FROM + TOKENS;          /* a position behind the end, and one before */
        assert_int_equal(ll_blob_read(&s, o->b, o->n, FROM, TOKENS, &p), PD_EPROTO);
        o->b[16 + 12 * 6] = FROM - 1;
        assert_int_equal(ll_blob_read(&s, o->b, o->n, FROM, TOKENS, &p), PD_EPROTO);
        free(p.base);
        free(o);
    }
}

/* Blobs of models that are not uniform teach nothing. */
static void strange(void **state)
{
    const struct form *f = &forms[0];
    size_t part = 12 + TOKENS * ELEMS * f->elem, layers = 16 + 12 * TOKENS + f->middle;
    struct ll_shape s;

    (void)state;
    for (uint32_t i = 1; i < 2 * LAYERS; i++) {
        struct out *o = build(f, cells, TOKENS);
        o->b[layers + i * part] ^= 1;               /* another type in one layer */
        assert_int_equal(ll_blob_learn(o->b, o->n, TOKENS, f->elem, &s), PD_ENOSYS);
        o->b[layers + i * part] ^= 1;
        o->b[layers + i * part + 4] ^= 2;           /* another row */
        assert_int_equal(ll_blob_learn(o->b, o->n, TOKENS, f->elem, &s), PD_ENOSYS);
        free(o);
    }
    struct out *o = build(f, cells, TOKENS);
    for (size_t n = 0; n < o->n; n++)
        assert_int_equal(ll_blob_learn(o->b, n, TOKENS, f->elem, &s), PD_ENOSYS);
    assert_int_equal(ll_blob_learn(o->b, o->n + 4, TOKENS, f->elem, &s), PD_ENOSYS);
    assert_int_equal(ll_blob_learn(o->b, o->n, TOKENS + 1, f->elem, &s), PD_ENOSYS);
    o->b[8] = 2;                                    /* two streams */
    assert_int_equal(ll_blob_learn(o->b, o->n, TOKENS, f->elem, &s), PD_ENOSYS);
    free(o);
}

/* One value that is no number is found wherever it is, and only there. */
static void not_finite(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < FORMS; k++) {
        const struct form *f = &forms[k];
        bool is_bf16 = f->type == 30;
        struct ll_shape s = learnt(f);
        struct ll_place p = pool(&s, 0);
        uint32_t bad = f->elem == 4 ? 0xffc00001u : is_bf16 ? 0x7f80u : 0xfc00u;
        for (uint32_t position = 0; position < BT * BLOCKS; position++)
            for (uint32_t i = 0; i < 2 * LAYERS; i++) {
                uint8_t *at = p.base + blocks[position / BT] * p.block_bytes +
                              ((i * BT + position % BT) * ELEMS + (position + i) % ELEMS) * f->elem;
                for (uint32_t b = 0; b < f->elem; b++)
                    at[b] = (uint8_t)(bad >> (8 * b));
                assert_int_equal(ll_place_finite(&s, &p, FROM, TOKENS, is_bf16),
                                 position < FROM || position >= FROM + TOKENS);
                memset(at, 0, f->elem);
            }
        assert_true(ll_place_finite(&s, &p, 0, BT * BLOCKS, is_bf16));
        free(p.base);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(read_all_forms), cmocka_unit_test(write_all_forms), cmocka_unit_test(damaged),
    cmocka_unit_test(strange), cmocka_unit_test(not_finite),
};

PD_UNIT_MAIN(tests)
