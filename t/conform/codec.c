/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for codecs: what goes in comes back, the same bytes give the same bytes,
 * nothing beside the buffers is touched, and bytes of a peer do no harm. */
#include "conform/conform.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pdplane/codec.h>

enum { MOST = 300000, GUARD = 0x5a, GUARDS = 64, THREADS = 4 };

struct rig {
    struct cf_world w;
    struct cf_inst i;
    const struct pd_codec_ops *ops;
    struct pd_codec_info info;
    struct pd_codec_state *state;
    uint8_t *in;                    /* ends at a page that cannot be read */
    uint8_t *out, *back;
    size_t cap;
};

/* n bytes whose end is the end of what may be touched. */
static uint8_t *edge(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (n + page - 1) / page * page;
    uint8_t *p = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + whole, page, PROT_NONE), 0);
    return p + whole - n;
}

static struct pd_codec_info info_of(struct rig *r)
{
    struct pd_codec_info info;

    memset(&info, 0, sizeof(info));
    info.size = sizeof(info);
    r->ops->info(r->i.p, &info);
    return info;
}

static struct pd_codec_state *state_of(struct rig *r, struct cf_inst *i)
{
    struct pd_codec_state *s = NULL;
    pd_status st = r->ops->state_open(i->p, &s);

    CF_NEED(st == PD_OK && s != NULL, "state_open returns %d", st);
    return s;
}

static void rig_open(struct rig *r, const struct cf_unit *u)
{
    memset(r, 0, sizeof(*r));
    cf_world_open(&r->w, u);
    r->ops = (const void *)u->ops;
    cf_create_ok(&r->w, &r->i, 0);
    r->info = info_of(r);
    r->state = state_of(r, &r->i);
    r->cap = (size_t)r->ops->bound(r->i.p, MOST);
    CF_NEED(r->cap >= 1 && r->cap < 4 * (size_t)MOST + 65536, "bound of %d bytes is %zu", MOST, r->cap);
    r->in = edge(MOST);
    r->out = malloc(r->cap + GUARDS);
    r->back = malloc(MOST + GUARDS);
    assert_true(r->out != NULL && r->back != NULL);
}

static void rig_close(struct rig *r)
{
    free(r->out);
    free(r->back);
    r->ops->state_close(r->state);
    cf_destroy(&r->w, &r->i);
    cf_world_close(&r->w);
}

/* Sums of noise: near enough to what a model computes. */
static float normal(uint64_t *rng)
{
    float sum = 0;

    for (int i = 0; i < 6; i++)
        sum += (float)(cf_random(rng) >> 40) / 16777216.0f - 0.5f;
    return sum;
}

enum { KINDS = 6 };

static void fill(uint8_t *p, size_t n, uint32_t kind, uint64_t seed)
{
    uint64_t rng = seed;

    for (size_t i = 0; i < n; i++) {
        float f;
        uint32_t u;
        switch (kind) {
        case 0:                     /* noise */
            p[i] = (uint8_t)cf_random(&rng);
            break;
        case 1:                     /* one value */
            p[i] = (uint8_t)seed;
            break;
        case 2:                     /* a ramp */
            p[i] = (uint8_t)(i / 3);
            break;
        case 3:                     /* bf16 */
        case 4:                     /* f32 */
            if (i % (kind == 3 ? 2 : 4) != 0)
                break;
            f = normal(&rng) * (float)(1 + i % 7);
            memcpy(&u, &f, sizeof(u));
            for (size_t k = 0; k < 4 && i + k < n; k++)
                p[i + k] = (uint8_t)(kind == 3 ? u >> (16 + 8 * (k % 2)) : u >> 8 * k);
            break;
        default:                    /* two halves: dense, then empty */
            p[i] = i < n / 2 ? (uint8_t)cf_random(&rng) : 0;
        }
    }
}

static const struct pd_codec_hint hints[] = {
    { sizeof(hints[0]), PD_DTYPE_F32, 4, 0 },  { sizeof(hints[0]), PD_DTYPE_F16, 2, 0 },
    { sizeof(hints[0]), PD_DTYPE_BF16, 2, 0 }, { sizeof(hints[0]), PD_DTYPE_F8_E4M3, 1, 0 },
    { sizeof(hints[0]), 0, 8, 0 },             { sizeof(hints[0]), 4711, 3, 0 },
};
enum { HINTS = sizeof(hints) / sizeof(hints[0]) };

static const struct pd_codec_hint *hint_at(uint32_t n)
{
    return n % (HINTS + 1) == HINTS ? NULL : &hints[n % (HINTS + 1)];
}

static void guarded(const uint8_t *p, const char *what)
{
    for (int i = 0; i < GUARDS; i++)
        CF_NEED(p[i] == GUARD, "%s writes behind its room", what);
}

static size_t encode(struct rig *r, struct pd_codec_state *s, uint32_t hint, const uint8_t *in, size_t n,
                     uint8_t *out)
{
    uint64_t bound = r->ops->bound(r->i.p, n);
    size_t len = 0;
    pd_status st;

    CF_NEED(bound <= r->cap, "bound of %zu bytes is greater than that of %d", n, MOST);
    memset(out + bound, GUARD, GUARDS);
    st = r->ops->encode(s, hint_at(hint), in, n, out, (size_t)bound, &len);
    CF_NEED(st == PD_OK, "encode of %zu bytes with the room that bound names returns %d", n, st);
    CF_NEED(len >= 1 && len <= bound, "encode says %zu bytes, bound is %llu", len, (unsigned long long)bound);
    guarded(out + bound, "encode");
    return len;
}

static void decode_same(struct rig *r, struct pd_codec_state *s, const uint8_t *in, size_t len,
                        const uint8_t *plain, size_t n)
{
    pd_status st;

    memset(r->back + n, GUARD, GUARDS);
    st = r->ops->decode(s, in, len, r->back, n);
    CF_NEED(st == PD_OK, "decode of what encode made of %zu bytes returns %d", n, st);
    guarded(r->back + n, "decode");
    if ((r->info.flags & PD_CODEC_LOSSLESS) != 0)
        CF_NEED(memcmp(r->back, plain, n) == 0, "LOSSLESS is claimed and %zu bytes come back changed", n);
}

static void run_info(const struct cf_unit *u)
{
    struct rig r;
    struct pd_codec_info again;

    rig_open(&r, u);
    again = info_of(&r);
    CF_NEED(memcmp(&again, &r.info, sizeof(again)) == 0, "info changes from call to call");
    CF_NEED((r.info.flags & ~PD_CODEC_LOSSLESS) == 0, "flags 0x%x are not known", r.info.flags);
    CF_NEED(r.info.format >= 1, "format is 0");
    CF_NEED(r.info.align >= 1 && (r.info.align & (r.info.align - 1)) == 0, "align %u is no power of two",
            r.info.align);
    CF_NEED(r.info.max_bytes >= 16 << 20, "max_bytes is %llu, expected at least 16 MiB",
            (unsigned long long)r.info.max_bytes);
    rig_close(&r);
}

static void run_sizes(const struct cf_unit *u)
{
    static const size_t sizes[] = { 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 100, 255, 1000, 4095, 4096,
                                    4097, 65535, 65536, 131071, 262144, 262147, MOST };
    struct rig r;

    rig_open(&r, u);
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            size_t n = sizes[k], len;
            uint8_t *in = r.in + MOST - n;
            fill(in, n, kind, k + 1);
            for (uint32_t h = 0; h <= HINTS; h++) {
                len = encode(&r, r.state, h, in, n, r.out);
                decode_same(&r, r.state, r.out, len, in, n);
            }
        }
    }
    rig_close(&r);
}

static void answer(struct cf_inst *i, struct cf_bytes *out)
{
    struct rig r = { .w = *i->w, .i = *i, .ops = (const void *)i->w->u->ops };
    struct pd_codec_state *s = state_of(&r, i);
    uint8_t in[1000], *encoded;
    size_t cap = (size_t)r.ops->bound(i->p, sizeof(in)), len = 0;
    pd_status st;

    fill(in, sizeof(in), 3, 7);
    encoded = malloc(cap + 1);
    assert_non_null(encoded);
    st = r.ops->encode(s, hint_at(2), in, sizeof(in), encoded, cap, &len);
    cf_put(out, &st, sizeof(st));
    if (st == PD_OK)
        cf_put(out, encoded, len);
    free(encoded);
    r.ops->state_close(s);
}

void cf_codec_beside(const struct cf_unit *u)
{
    cf_beside(u, answer);
}

static void run_unaligned(const struct cf_unit *u)
{
    struct rig r;
    uint8_t *encoded = malloc(MOST * 4);

    assert_non_null(encoded);
    rig_open(&r, u);
    for (uint32_t shift = 0; shift < 17; shift++) {
        size_t n = 10000, len;
        uint8_t *in = r.in + shift;
        fill(in, n, 3 + shift % 2, shift);
        len = encode(&r, r.state, shift, in, n, r.out);
        memcpy(encoded + 16 - shift % 16, r.out, len);
        decode_same(&r, r.state, encoded + 16 - shift % 16, len, in, n);
    }
    free(encoded);
    rig_close(&r);
}

static void run_room(const struct cf_unit *u)
{
    struct rig r;

    rig_open(&r, u);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        size_t n = 20000, len, got = 0;
        uint64_t rng = kind;
        fill(r.in, n, kind, 5);
        len = encode(&r, r.state, 1, r.in, n, r.out);
        CF_NEED(r.ops->encode(r.state, hint_at(1), r.in, n, r.out, len, &got) == PD_OK && got == len,
                "encode does not do with %zu bytes what it did with more", len);
        for (uint32_t k = 0; k < 100; k++) {
            size_t cap = k < 10 ? k : (size_t)(cf_random(&rng) % len);
            pd_status st;
            memset(r.out + cap, GUARD, GUARDS);
            st = r.ops->encode(r.state, hint_at(1), r.in, n, r.out, cap, &got);
            CF_NEED(st == PD_ELIMIT, "encode with room for %zu of %zu bytes returns %d, expected PD_ELIMIT", cap,
                    len, st);
            guarded(r.out + cap, "encode");
        }
    }
    CF_NEED(r.ops->encode(r.state, NULL, r.in, 0, r.out, r.cap, &(size_t){ 0 }) == PD_EINVAL,
            "encode of no bytes does not answer PD_EINVAL");
    rig_close(&r);
}

static void run_stable(const struct cf_unit *u)
{
    struct pd_codec_state *other, *second;
    struct cf_inst i;
    struct rig r;
    uint8_t *again;

    rig_open(&r, u);
    cf_create_ok(&r.w, &i, 1);
    other = state_of(&r, &r.i);
    second = state_of(&r, &i);
    again = malloc(r.cap + GUARDS);
    assert_non_null(again);
    for (uint32_t k = 0; k < 60; k++) {
        size_t n = 1 + (size_t)k * 1777, len, len2;
        struct pd_codec_state *s = k % 3 == 0 ? r.state : k % 3 == 1 ? other : second;
        fill(r.in, n, k % KINDS, k);
        len = encode(&r, r.state, k, r.in, n, r.out);
        if (k % 5 == 0)             /* something else between the two */
            encode(&r, s, k + 1, r.in + 1, n, again);
        len2 = encode(&r, s, k, r.in, n, again);
        CF_NEED(len == len2 && memcmp(r.out, again, len) == 0, "the same %zu bytes are encoded differently", n);
        decode_same(&r, s, r.out, len, r.in, n);
    }
    free(again);
    r.ops->state_close(other);
    r.ops->state_close(second);
    cf_destroy(&r.w, &i);
    rig_close(&r);
}

/* What another node may send. */
static void run_foreign(const struct cf_unit *u)
{
    struct rig r;
    uint64_t rng = 1;

    rig_open(&r, u);
    for (uint32_t k = 0; k < 3000; k++) {
        size_t n = 1 + (size_t)(cf_random(&rng) % 6000), len, want = n;
        uint8_t *copy;
        pd_status st;
        fill(r.in, n, k % KINDS, k);
        len = encode(&r, r.state, k, r.in, n, r.out);
        if (k % 4 == 0)             /* cut or longer */
            len = 1 + (size_t)(cf_random(&rng) % (len + 8));
        if (k % 4 == 1)             /* another length than it has */
            want = 1 + (size_t)(cf_random(&rng) % MOST);
        for (uint64_t f = k % 4 >= 2 ? 1 + cf_random(&rng) % 4 : 0; f > 0; f--)
            r.out[cf_random(&rng) % len] ^= (uint8_t)(1u << cf_random(&rng) % 8);
        if (k % 50 == 3)
            fill(r.out, len, 0, k);
        copy = r.in + MOST - len;   /* reading behind it ends the case */
        memmove(copy, r.out, len);
        memset(r.back + want, GUARD, GUARDS);
        st = r.ops->decode(r.state, copy, len, r.back, want);
        CF_NEED(st == PD_OK || st == PD_EINTEGRITY, "decode of damaged bytes returns %d", st);
        CF_NEED(st != PD_OK || k % 4 != 1 || want == n, "%zu bytes are decoded to %zu", n, want);
        guarded(r.back + want, "decode");
    }
    CF_NEED(r.ops->decode(r.state, r.out, 0, r.back, 100) == PD_EINTEGRITY, "decode makes something of nothing");
    rig_close(&r);
}

static void run_growth(const struct cf_unit *u)
{
    struct rig r;
    uint64_t before = 0, after;

    rig_open(&r, u);
    for (uint32_t k = 0; k < 400; k++) {
        size_t n = k < 4 ? MOST : 1 + (size_t)k * 700, len;
        fill(r.in, n, k % KINDS, k);
        if (k == 4)
            before = cf_memory();
        len = encode(&r, r.state, k, r.in, n, r.out);
        decode_same(&r, r.state, r.out, len, r.in, n);
    }
    after = cf_memory();
    CF_NEED(after < before + 4096, "%llu bytes are kept in 396 calls", (unsigned long long)(after - before));
    rig_close(&r);
}

/* All memory is that of the state. */
static void run_allocates(const struct cf_unit *u)
{
    struct rig r;
    uint64_t count = 0;

    rig_open(&r, u);
    for (uint32_t k = 0; k < 60; k++) {
        size_t n = 1 + (size_t)k * 5000, len = 0;
        pd_status st;
        fill(r.in, n, k % KINDS, k);
        cf_alloc_begin(0);
        st = r.ops->encode(r.state, hint_at(k), r.in, n, r.out, r.cap, &len);
        if (st == PD_OK)
            st = r.ops->decode(r.state, r.out, len, r.back, n);
        count += cf_alloc_end();
        CF_NEED(st == PD_OK, "encode or decode returns %d", st);
    }
    CF_NEED(count == 0, "encode and decode allocate %llu times in 120 calls", (unsigned long long)count);
    rig_close(&r);
}

/* One thread with bytes of its own, and what they must become. */
struct work {
    struct rig *r;
    struct pd_codec_state *state;
    uint8_t *in, *want, *out, *back;
    size_t len, n;
    pthread_barrier_t *begin;
    const char *wrong;
};

static void *work_run(void *arg)
{
    struct work *w = arg;
    const struct pd_codec_ops *ops = w->r->ops;

    pd_time end;

    pthread_barrier_wait(w->begin);
    /* Long enough to be interrupted in the middle of a call, also on one core. */
    end = pd_loop_clock(w->r->w.loop) + PD_SEC;
    while (w->wrong == NULL && pd_loop_clock(w->r->w.loop) < end) {
        size_t len = 0;
        if (ops->encode(w->state, hint_at(2), w->in, w->n, w->out, w->r->cap, &len) != PD_OK ||
            len != w->len || memcmp(w->out, w->want, len) != 0)
            w->wrong = "encode";
        else if (ops->decode(w->state, w->out, len, w->back, w->n) != PD_OK)
            w->wrong = "decode";
    }
    return NULL;
}

static void run_threads(const struct cf_unit *u)
{
    pthread_t threads[THREADS];
    pthread_barrier_t begin;
    struct work w[THREADS];
    struct rig r;
    size_t n = 40000;

    rig_open(&r, u);
    assert_int_equal(pthread_barrier_init(&begin, NULL, THREADS), 0);
    for (int k = 0; k < THREADS; k++) {
        w[k] = (struct work){ .r = &r, .state = state_of(&r, &r.i), .in = malloc(n), .want = malloc(r.cap),
                              .out = malloc(r.cap), .back = malloc(n), .n = n, .begin = &begin };
        assert_true(w[k].in != NULL && w[k].want != NULL && w[k].out != NULL && w[k].back != NULL);
        fill(w[k].in, n, k % 2 == 0 ? 3 : 4, (uint64_t)k + 1);
        w[k].len = encode(&r, w[k].state, 2, w[k].in, n, r.out);
        memcpy(w[k].want, r.out, w[k].len);
    }
    for (int k = 0; k < THREADS; k++)
        assert_int_equal(pthread_create(&threads[k], NULL, work_run, &w[k]), 0);
    for (int k = 0; k < THREADS; k++)
        assert_int_equal(pthread_join(threads[k], NULL), 0);
    for (int k = 0; k < THREADS; k++) {
        CF_NEED(w[k].wrong == NULL, "%s gives something else while other states are used", w[k].wrong);
        r.ops->state_close(w[k].state);
        free(w[k].in);
        free(w[k].want);
        free(w[k].out);
        free(w[k].back);
    }
    pthread_barrier_destroy(&begin);
    rig_close(&r);
}

const struct cf_case cf_codec_cases[] = {
    { "info", "what it claims of itself is legal and constant", run_info },
    { "sizes", "1 byte to 300,000, of every kind and hint: encoded within bound, LOSSLESS: the same again",
      run_sizes },
    { "unaligned", "any address works", run_unaligned },
    { "room", "too little room is answered PD_ELIMIT and not overrun", run_room },
    { "stable", "the same bytes are encoded the same, by any state and instance", run_stable },
    { "foreign", "decode of damaged, cut or foreign bytes stays in its buffers and ends", run_foreign },
    { "growth", "calls keep no memory", run_growth },
    { "allocates", "neither encode nor decode allocates", run_allocates },
    { "threads", "states work side by side in threads", run_threads },
    { NULL, NULL, NULL },
};
