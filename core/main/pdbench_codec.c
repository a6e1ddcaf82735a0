/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench codec: encodes and decodes KV with a codec module, in turns with
 * memcpy, so that ratios hold.  Time is that of the processor, so what else the
 * machine does changes little. */
#include <pdplane/codec.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/loop.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "main/pdbench.h"
#include "main/pdbench_kv.h"
#include "main/pdbench_module.h"
#include "os/file.h"
#include "os/proc.h"

enum { MAX_ROUNDS = 1000, MAX_CASES = 8 };
enum { ENCODE, DECODE, COPY, WAYS };
static const char *const way_names[WAYS] = { "encode", "decode", "memcpy" };

struct codec_case {
    uint32_t dtype, order;
    double seconds[WAYS];           /* of a core for all frames, median */
    uint64_t encoded;
    struct pdbench_kv_error error;
    bool is_exact;
};

struct codec_main {
    struct pdbench_module module;
    const char *input;              /* a file with KV as it lies, or NULL */
    uint64_t bytes, frame, rounds;
    uint32_t dtypes;                /* a bit for each */
    bool is_json, is_help;
    const struct pd_codec_ops *ops;
    struct pd_codec *codec;
    struct pd_codec_state *state;
    struct pd_codec_info info;
    uint8_t *in, *out, *back;
    uint64_t room;                  /* of one encoded frame */
    size_t *len;                    /* of each */
    uint64_t n;                     /* frames */
};

static bool say(const struct codec_main *m, const char *what)
{
    return pdbench_module_say(&m->module, NULL, what);
}

static uint64_t frame_bytes(const struct codec_main *m, uint64_t i)
{
    uint64_t left = m->bytes - i * m->frame;
    return left < m->frame ? left : m->frame;
}

/* ---- measuring */

static bool run_encode(struct codec_main *m, const struct codec_case *c)
{
    struct pd_codec_hint hint = { .size = sizeof hint, .dtype = c->dtype, .element_bytes = pdbench_kv_width(c->dtype) };
    for (uint64_t i = 0; i < m->n; i++)
        if (m->ops->encode(m->state, &hint, m->in + i * m->frame, frame_bytes(m, i), m->out + i * m->room, m->room,
                           &m->len[i]) != PD_OK)
            return say(m, "a frame cannot be encoded");
    return true;
}

static bool run_decode(struct codec_main *m)
{
    for (uint64_t i = 0; i < m->n; i++)
        if (m->ops->decode(m->state, m->out + i * m->room, m->len[i], m->back + i * m->frame, frame_bytes(m, i)) != PD_OK)
            return say(m, "what was encoded cannot be decoded");
    return true;
}

static void run_copy(struct codec_main *m)
{
    for (uint64_t i = 0; i < m->n; i++)
        memcpy(m->back + i * m->frame, m->in + i * m->frame, frame_bytes(m, i));
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static bool case_run(struct codec_main *m, struct codec_case *c)
{
    static double t[WAYS][MAX_ROUNDS];
    bool is_good = true;
    if (m->input == NULL)
        pdbench_kv_make(m->in, m->bytes, c->dtype, c->order);
    is_good = run_encode(m, c) && run_decode(m);     /* touches everything once */
    for (uint64_t i = 0; i < m->rounds && is_good; i++) {
        for (int k = 0; k < WAYS && is_good; k++) {
            int way = i % 2 == 0 ? k : WAYS - 1 - k;
            pd_time start = pd_proc_cpu_time();
            if (way == COPY)
                run_copy(m);
            else
                is_good = way == ENCODE ? run_encode(m, c) : run_decode(m);
            t[way][i] = (double)(pd_proc_cpu_time() - start) / 1e9;
        }
    }
    is_good = is_good && run_decode(m);
    for (int way = 0; way < WAYS && is_good; way++) {
        qsort(t[way], m->rounds, sizeof t[way][0], by_size);
        c->seconds[way] = t[way][m->rounds / 2];
    }
    for (uint64_t i = 0; i < m->n; i++)
        c->encoded += m->len[i];
    c->is_exact = memcmp(m->in, m->back, m->bytes) == 0;
    c->error = pdbench_kv_compare(m->in, m->back, m->bytes, c->dtype);
    if (is_good && !c->is_exact && (m->info.flags & PD_CODEC_LOSSLESS) != 0)
        return say(m, "it claims to lose nothing, and gives other bytes back");
    return is_good;
}

/* ---- output */

static double rate(const struct codec_main *m, const struct codec_case *c, int way)
{
    return (double)m->bytes / 1e9 / c->seconds[way];
}

static void put_table(const struct codec_main *m, const struct codec_case *c, uint32_t n)
{
    char text[PD_UNITS_TEXT], frame[PD_UNITS_TEXT];
    printf("%s of %s KV in frames of %s, median of %llu rounds, in turns; plain GB for each second of a core\n",
           pd_units_format_bytes(m->bytes, text), m->input != NULL ? "given" : "made",
           pd_units_format_bytes(m->frame, frame), (unsigned long long)m->rounds);
    printf("%-6s %-12s %8s %8s %8s %8s %10s %10s %10s %10s\n", "dtype", "order", "ratio", "encode", "decode", "memcpy",
           "enc/memcpy", "dec/memcpy", "max error", "mean error");
    for (uint32_t i = 0; i < n; i++) {
        printf("%-6s %-12s %8.3f %8.2f %8.2f %8.2f %10.3f %10.3f", pdbench_kv_dtype_name(c[i].dtype),
               m->input != NULL ? "as given" : pdbench_kv_order_name(c[i].order), (double)m->bytes / (double)c[i].encoded,
               rate(m, &c[i], ENCODE), rate(m, &c[i], DECODE), rate(m, &c[i], COPY),
               c[i].seconds[COPY] / c[i].seconds[ENCODE], c[i].seconds[COPY] / c[i].seconds[DECODE]);
        if (c[i].is_exact)
            printf(" %10s %10s\n", "none", "none");
        else
            printf(" %10.2e %10.2e\n", c[i].error.largest, c[i].error.mean);
    }
}

static bool put_json(const struct codec_main *m, const struct codec_case *c, uint32_t n)
{
    struct pd_buf out;
    struct pd_json_writer w;
    pd_buf_init(&out, 1u << 20);
    pd_json_writer_init(&w, &out);
    pd_json_begin_object(&w, NULL);
    pd_json_add_cstr(&w, "kind", "codec");
    pd_json_begin_object(&w, "conditions");
    pdbench_conditions(m->module.loop, &w);
    pd_json_add_cstr(&w, "module", m->module.file);
    pd_json_add_cstr(&w, "input", m->input != NULL ? m->input : "made");
    pd_json_add_u64(&w, "bytes", m->bytes);
    pd_json_add_u64(&w, "frame", m->frame);
    pd_json_add_u64(&w, "rounds", m->rounds);
    pd_json_end(&w);
    pd_json_begin_array(&w, "rows");
    for (uint32_t i = 0; i < n; i++) {
        pd_json_begin_object(&w, NULL);
        pd_json_add_cstr(&w, "dtype", pdbench_kv_dtype_name(c[i].dtype));
        pd_json_add_cstr(&w, "order", m->input != NULL ? "given" : pdbench_kv_order_name(c[i].order));
        pd_json_add_u64(&w, "plain_bytes", m->bytes);
        pd_json_add_u64(&w, "encoded_bytes", c[i].encoded);
        pd_json_add_double(&w, "ratio", (double)m->bytes / (double)c[i].encoded);
        for (int way = 0; way < WAYS; way++)
            pd_json_add_double(&w, way_names[way], rate(m, &c[i], way));
        pd_json_add_double(&w, "encode_of_memcpy", c[i].seconds[COPY] / c[i].seconds[ENCODE]);
        pd_json_add_double(&w, "decode_of_memcpy", c[i].seconds[COPY] / c[i].seconds[DECODE]);
        pd_json_add_bool(&w, "exact", c[i].is_exact);
        pd_json_add_double(&w, "max_error", c[i].error.largest);
        pd_json_add_double(&w, "mean_error", c[i].error.mean);
        pd_json_end(&w);
    }
    pd_json_end(&w);
    pd_json_end(&w);
    pd_buf_append_char(&out, '\n');
    bool is_good = pdbench_print("codec", &out);
    pd_buf_fini(&out);
    return is_good;
}

/* ---- the command line */

static void help(void)
{
    fputs("usage: pdbench codec [OPTION...] MODULE\n"
          "\n"
          "Encodes and decodes KV with a codec module (a name or a file), and in turns copies it with memcpy, so\n"
          "that ratios hold.  The KV is made, for each type in both orders of a pool, or comes from a file.\n"
          "Rates are plain bytes for each second of processor time.\n"
          "\n"
          "options:\n"
          "  -P, --module-path DIR   where modules are looked for [the built-in folder]\n"
          "  -o, --options TEXT      of the module, as in pd.conf: \"element = 2;\"\n"
          "  -d, --dtypes LIST       f32, f16, bf16, f8, with commas between [f32,f16,bf16,f8]\n"
          "  -i, --input FILE        KV as it lies in memory, of one dtype\n"
          "  -b, --bytes SIZE        of made KV; take several times the caches [64m]\n"
          "  -f, --frame SIZE        encoded at a time, as the transport does [1m]\n"
          "  -n, --rounds N          of each [7]\n"
          "  -J, --json              one JSON object instead of a table\n"
          "  -h, --help              print this\n"
          "\n"
          "exit status: 0 done, 1 the module cannot be used or does not keep its word, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench codec planes\n"
          "  pdbench codec -d bf16 -i kv.bin -n 21 --json planes\n",
          stdout);
}

static bool dtypes_take(struct codec_main *m, const char *arg)
{
    struct pd_str rest = pd_str_from(arg), item;
    m->dtypes = 0;
    while (pd_str_split(&rest, ',', &item)) {
        uint32_t dtype = pdbench_kv_dtype(item);
        if (dtype == 0) {
            fprintf(stderr, "pdbench codec: --dtypes takes f32, f16, bf16 and f8 with commas between, not \"%s\"\n", arg);
            return false;
        }
        m->dtypes |= 1u << dtype;
    }
    return true;
}

static bool option_take(struct codec_main *m, int c, const char *arg)
{
    switch (c) {
    case 'P': m->module.folder = arg; return true;
    case 'o': m->module.options = arg; return true;
    case 'd': return dtypes_take(m, arg);
    case 'i': m->input = arg; return true;
    case 'b': return pdbench_bytes("codec", "bytes", arg, 1ull << 34, &m->bytes);
    case 'f': return pdbench_bytes("codec", "frame", arg, 1ull << 30, &m->frame);
    case 'n': return pdbench_number("codec", "rounds", arg, 1, MAX_ROUNDS, &m->rounds);
    case 'J': m->is_json = true; return true;
    case 'h': m->is_help = true; return true;
    default: fputs("try \"pdbench codec --help\"\n", stderr); return false;
    }
}

static bool input_read(struct codec_main *m)
{
    struct pd_buf text;
    struct pd_err err = { 0 };
    bool is_good;
    pd_buf_init(&text, 1ull << 34);
    is_good = pd_file_read(m->input, 1ull << 34, &text, &err) == PD_OK && text.n >= 8;
    m->bytes = text.n / 8 * 8;
    m->in = is_good ? pd_calloc(m->bytes, 1) : NULL;
    if (m->in != NULL)
        memcpy(m->in, text.p, m->bytes);
    pd_buf_fini(&text);
    if (m->in == NULL)
        fprintf(stderr, "pdbench codec: %s: %s\n", m->input, err.text[0] != '\0' ? err.text : "it has no bytes");
    return m->in != NULL;
}

static bool codec_open(struct codec_main *m)
{
    struct pd_err err = { 0 };
    if (!pdbench_module_open(&m->module, PD_KIND_CODEC, "codec"))
        return false;
    m->ops = (const struct pd_codec_ops *)(const void *)m->module.ops;
    if (m->ops->create(&m->module.ctx, pdbench_module_conf(&m->module), &m->codec, &err) != PD_OK)
        return pdbench_module_say(&m->module, &err, NULL);
    m->info.size = sizeof m->info;
    m->ops->info(m->codec, &m->info);
    if (m->frame > m->info.max_bytes)
        return say(m, "it does not take a frame of so many bytes");
    if (m->ops->state_open(m->codec, &m->state) != PD_OK)
        return say(m, "out of memory");
    if (m->input != NULL && !input_read(m))
        return false;
    m->n = (m->bytes + m->frame - 1) / m->frame;
    m->room = (m->ops->bound(m->codec, m->frame) + 63) / 64 * 64;
    m->in = m->in != NULL ? m->in : pd_calloc(m->bytes, 1);
    m->out = pd_calloc(m->n, m->room);
    m->back = pd_calloc(m->bytes, 1);
    m->len = pd_calloc(m->n, sizeof *m->len);
    return (m->in != NULL && m->out != NULL && m->back != NULL && m->len != NULL) || say(m, "out of memory");
}

static bool measure(struct codec_main *m)
{
    static struct codec_case cases[MAX_CASES];
    uint32_t n = 0;
    bool is_good = codec_open(m);
    for (uint32_t dtype = PD_DTYPE_F32; dtype <= PD_DTYPE_F8_E4M3 && is_good; dtype++)
        for (uint32_t order = PD_KV_BLOCK_LAYER; order <= (m->input != NULL ? 1u : 2u) && is_good; order++) {
            if ((m->dtypes & 1u << dtype) == 0)
                continue;
            cases[n] = (struct codec_case){ .dtype = dtype, .order = order };
            is_good = case_run(m, &cases[n++]);
        }
    if (is_good && m->is_json)
        is_good = put_json(m, cases, n);
    else if (is_good)
        put_table(m, cases, n);
    if (m->state != NULL)
        m->ops->state_close(m->state);
    if (m->codec != NULL)
        m->ops->destroy(m->codec);
    pdbench_module_close(&m->module);
    pd_free(m->in);
    pd_free(m->out);
    pd_free(m->back);
    pd_free(m->len);
    return is_good;
}

int pdbench_codec(int argc, char **argv)
{
    static const struct option options[] = {
        { "module-path", required_argument, NULL, 'P' }, { "options", required_argument, NULL, 'o' },
        { "dtypes", required_argument, NULL, 'd' },      { "input", required_argument, NULL, 'i' },
        { "bytes", required_argument, NULL, 'b' },       { "frame", required_argument, NULL, 'f' },
        { "rounds", required_argument, NULL, 'n' },      { "json", no_argument, NULL, 'J' },
        { "help", no_argument, NULL, 'h' },              { NULL, 0, NULL, 0 },
    };
    static struct codec_main m = { .module = { .command = "codec" }, .bytes = 64u << 20, .frame = 1u << 20,
                                   .rounds = 7, .dtypes = 1u << PD_DTYPE_F32 | 1u << PD_DTYPE_F16 |
                                   1u << PD_DTYPE_BF16 | 1u << PD_DTYPE_F8_E4M3 };
    int c;
    while ((c = getopt_long(argc, argv, "P:o:d:i:b:f:n:Jh", options, NULL)) != -1)
        if (!option_take(&m, c, optarg))
            return PDBENCH_USAGE;
    if (m.is_help) {
        help();
        return PDBENCH_OK;
    }
    if (optind + 1 != argc)
        return pdbench_usage("codec", optind < argc ? "one module, not also" : "a module is missing",
                             optind < argc ? argv[optind + 1] : NULL);
    if (m.bytes < 8 || m.bytes % 8 != 0 || m.frame < 8 || m.frame % 8 != 0)
        return pdbench_usage("codec", "--bytes and --frame are multiples of 8", NULL);
    if (m.input != NULL && (m.dtypes & (m.dtypes - 1)) != 0)
        return pdbench_usage("codec", "--input needs one type: --dtypes bf16", NULL);
    m.module.file = argv[optind];
    return measure(&m) ? PDBENCH_OK : PDBENCH_FAILED;
}
