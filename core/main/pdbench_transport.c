/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench transport: moves memory between two processes through a transport
 * module, in turns with what the machine itself does: memcpy, reading the other
 * process's memory, and a plain stream between the two. */
#include "main/pdbench_source.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "loop/uv.h"
#include "main/pdbench.h"
#include "os/proc.h"
#include "os/process.h"

enum { MAX_ROUNDS = 1000, MAX_POSTS = 16 };

bool pdbench_source_fail(const struct pdbench_source *s, const char *what)
{
    fprintf(stderr, "pdbench transport: %s: %s\n", s->side.module.file, what);
    return false;
}

bool pdbench_source_wait(struct pdbench_source *s, const bool *flag)
{
    pd_time end = pd_loop_clock(s->side.loop) + 30 * PD_SEC;
    while (!*flag && !s->is_lost) {
        if (pd_loop_clock(s->side.loop) >= end)
            return pdbench_source_fail(s, "nothing happens any more");
        if (pd_loop_uv_turn(s->side.loop, PD_SEC) != PD_OK)
            return pdbench_source_fail(s, "the loop fails");
    }
    return !s->is_lost || pdbench_source_fail(s, "the owner is gone");
}

static void on_msg(const struct pdbench_msg *msg, void *arg)
{
    struct pdbench_source *s = arg;
    if (msg == NULL) {
        s->is_lost = true;
        return;
    }
    s->got = *msg;
    s->has_got = true;
}

static bool ask(struct pdbench_source *s, const struct pdbench_msg *msg, uint32_t type)
{
    s->has_got = false;
    if (msg != NULL && !pdbench_side_send(&s->side, msg))
        return pdbench_source_fail(s, "the owner is gone");
    return pdbench_source_wait(s, &s->has_got) && (s->got.type == type || pdbench_source_fail(s, "the owner said something else"));
}

/* ---- the module */

static void on_up(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    struct pdbench_source *s = arg;
    (void)peer;
    s->is_up = true;
    s->up_status = status;
}

static void on_down(struct pd_transport_peer *peer, pd_status status, void *arg)
{
    struct pdbench_source *s = arg;
    (void)peer;
    (void)status;
    s->is_up = s->is_down = s->may_post = true;
    s->up_status = s->up_status == PD_OK ? PD_OK : status;
}

static void on_writable(struct pd_transport_peer *peer, void *arg)
{
    (void)peer;
    ((struct pdbench_source *)arg)->may_post = true;
}

static void on_done(struct pd_transport_peer *peer, struct pd_transfer *transfer, uint32_t terminal, uint64_t bytes,
                    void *post_arg)
{
    struct pdbench_source *s = post_arg;
    (void)peer;
    (void)transfer;
    (void)bytes;
    s->in_flight--;
    s->may_post = true;
    s->has_failed = s->has_failed || terminal != PD_TRANSFER_OK;
}

/* The window is a grant, so there is one before the connection. */
static bool connect_peer(struct pdbench_source *s, const struct pdbench_msg *window)
{
    static const struct pd_transport_peer_events events = {
        .size = sizeof events, .on_up = on_up, .on_down = on_down, .on_writable = on_writable, .on_done = on_done,
    };
    const struct pdbench_msg *r = &s->ready;
    struct pd_transport_peer_desc desc = {
        .size = sizeof desc, .node = r->node, .address = r->address, .address_len = r->address_len,
        .host = PD_STR("127.0.0.1"), .grant = window->blob, .grant_len = window->blob_len,
    };
    if (s->peer != NULL)
        return true;
    if (s->side.ops->connect(s->side.tp, &desc, &events, s, &s->peer) != PD_OK || !pdbench_source_wait(s, &s->is_up))
        return pdbench_source_fail(s, "cannot connect");
    return s->up_status == PD_OK && !s->is_down ? true : pdbench_source_fail(s, "the owner does not let it in");
}

/* Everything once; segments is the local order. */
static bool move(struct pdbench_source *s, struct pd_transport_target *target, const struct pd_segment *segments, uint32_t n,
                 uint32_t access)
{
    uint64_t segment = segments[0].bytes;
    for (uint32_t at = 0; at < n || s->in_flight > 0;) {
        uint32_t count = n - at < PDBENCH_POST_MAX ? n - at : PDBENCH_POST_MAX;
        while (segment * count > s->side.info.max_bytes && count > 1)
            count /= 2;
        struct pd_post post = { .size = sizeof post, .op = access, .offset = at * segment,
                                .memory = s->side.registered, .segments = segments + at, .n_segments = count, .arg = s };
        struct pd_transfer *transfer;
        s->may_post = false;
        if (at < n && s->in_flight < MAX_POSTS) {
            pd_status st = s->side.ops->post(target, &post, &transfer);
            if (st == PD_OK) {
                at += count;
                s->in_flight++;
                continue;
            }
            if (st != PD_EAGAIN)
                return pdbench_source_fail(s, "a post is refused");
        }
        if (!pdbench_source_wait(s, &s->may_post) || s->is_down || s->has_failed)
            return pdbench_source_fail(s, "a transfer failed");
    }
    return true;
}

/* ---- measuring */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, uint64_t n)
{
    qsort(v, n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Processor time that the owner has taken so far; 0 when it is gone. */
static pd_time owner_cpu(struct pdbench_source *s)
{
    struct pdbench_msg m = { .type = PDBENCH_MSG_CPU };
    return ask(s, &m, PDBENCH_MSG_CPU) ? s->got.cpu : 0;
}

static bool case_run(struct pdbench_source *s, struct pdbench_result *r)
{
    bool is_possible[PDBENCH_WAYS] = { true, true, true, true };
    static double t[PDBENCH_WAYS][MAX_ROUNDS];
    uint32_t access = (s->side.info.flags & PD_TRANSPORT_WRITE) != 0 ? PD_TRANSPORT_WRITE : PD_TRANSPORT_READ, n;
    struct pdbench_msg m = { .type = PDBENCH_MSG_CASE, .access = access, .segment = r->segment, .node = s->side.node,
                             .seed = r->is_scattered ? 2 : 0 };
    struct pd_segment *from = pdbench_segments(s->side.bytes, r->segment, r->is_scattered ? 1 : 0, &n);
    struct pd_segment *to = pdbench_segments(s->side.bytes, r->segment, m.seed, &n);
    struct pd_transport_target *target = NULL;
    bool is_good = (from != NULL && to != NULL) || pdbench_source_fail(s, "out of memory");
    is_good = is_good && ask(s, &m, PDBENCH_MSG_WINDOW) && connect_peer(s, &s->got);
    pd_time cpu = 0, cpu_there = 0, cpu_copy = 0;
    if (is_good && s->side.ops->target_open(s->peer, s->got.blob, s->got.blob_len, &target) != PD_OK)
        is_good = pdbench_source_fail(s, "the window cannot be used");
    is_good = is_good && move(s, target, from, n, access);      /* touches everything once */
    for (uint64_t i = 0; i < s->rounds && is_good; i++) {
        for (uint32_t k = 0; k < PDBENCH_WAYS && is_good; k++) {
            uint32_t way = i % 2 == 0 ? k : PDBENCH_WAYS - 1 - k;
            pd_time there = way == PDBENCH_MODULE ? owner_cpu(s) : 0;
            pd_time here = pd_proc_cpu_time(), start = pd_loop_clock(s->side.loop);
            bool is_done = true;
            if (way == PDBENCH_MODULE)
                is_good = move(s, target, from, n, access);
            else if (way == PDBENCH_MEMCPY)
                pdbench_floor_copy(s, from, to, n);
            else
                is_done = way == PDBENCH_READV ? pdbench_floor_readv(s, from, to, n) : pdbench_floor_stream(s);
            t[way][i] = (double)(pd_loop_clock(s->side.loop) - start) / 1e9;
            is_possible[way] = is_possible[way] && is_done;
            if (way == PDBENCH_MEMCPY)
                cpu_copy += pd_proc_cpu_time() - here;
            if (way == PDBENCH_MODULE) {
                cpu += pd_proc_cpu_time() - here;
                cpu_there += owner_cpu(s) - there;
            }
        }
    }
    if (target != NULL)
        s->side.ops->target_close(target);
    struct pdbench_msg close_it = { .type = PDBENCH_MSG_CLOSE };
    is_good = is_good && ask(s, &close_it, PDBENCH_MSG_CLOSED);
    if (is_good && access == PD_TRANSPORT_WRITE && s->got.bytes != s->side.bytes)
        is_good = pdbench_source_fail(s, "not every byte landed");
    for (uint32_t way = 0; way < PDBENCH_WAYS; way++)
        r->seconds[way] = is_good && is_possible[way] ? median(t[way], s->rounds) : 0;
    r->cpu_here = (double)cpu / 1e9 / (double)s->rounds;
    r->cpu_copy = (double)cpu_copy / 1e9 / (double)s->rounds;
    r->cpu_there = (double)cpu_there / 1e9 / (double)s->rounds;
    pd_free(from);
    pd_free(to);
    return is_good;
}

/* ---- the command line */

static void help(void)
{
    fputs("usage: pdbench transport [OPTION...] MODULE\n"
          "\n"
          "Moves memory between two processes through a transport module (a name or a file), and in turns by\n"
          "memcpy, by reading the other process's memory, and through a plain stream, so that ratios hold.\n"
          "\n"
          "options:\n"
          "  -P, --module-path DIR   where modules are looked for [the built-in folder]\n"
          "  -o, --options TEXT      of the module, as in pd.conf: \"lanes = 2;\"\n"
          "  -b, --bytes SIZE        moved in a round; take several times the caches [256m]\n"
          "  -s, --segments LIST     sizes, with commas between [4k,16k,64k,1m]\n"
          "  -n, --rounds N          of each [7]\n"
          "  -J, --json              one JSON object instead of a table\n"
          "  -h, --help              print this\n"
          "\n"
          "exit status: 0 every byte landed, 1 something failed, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench transport shm\n"
          "  pdbench transport -s 8k,64k -b 512m -o 'lanes = 2;' tcp\n",
          stdout);
}

static bool sizes_take(struct pdbench_source *s, const char *arg)
{
    struct pd_str rest = pd_str_from(arg), item;
    s->n_sizes = 0;
    while (pd_str_split(&rest, ',', &item)) {
        if (s->n_sizes == PDBENCH_SIZES || pd_units_parse_bytes(item, &s->sizes[s->n_sizes], NULL) != PD_OK ||
            s->sizes[s->n_sizes] < 64) {
            fprintf(stderr, "pdbench transport: --segments takes at most %d sizes of 64 bytes or more\n", PDBENCH_SIZES);
            return false;
        }
        s->n_sizes++;
    }
    return true;
}

static bool option_take(struct pdbench_source *s, int c, const char *arg, bool *is_help, const char **owner)
{
    switch (c) {
    case 'P': s->side.module.folder = arg; return true;
    case 'o': s->side.module.options = arg; return true;
    case 'b': return pdbench_bytes("transport", "bytes", arg, 1ull << 36, &s->side.bytes);
    case 's': return sizes_take(s, arg);
    case 'n': return pdbench_number("transport", "rounds", arg, 1, MAX_ROUNDS, &s->rounds);
    case 'J': s->is_json = true; return true;
    case 'O': *owner = arg; return true;
    case 'h': *is_help = true; return true;
    default: fputs("try \"pdbench transport --help\"\n", stderr); return false;
    }
}

/* The other side: this program again, with the ends of two pipes. */
static bool owner_start(struct pdbench_source *s, pid_t *pid)
{
    char self[4096], ends[32], bytes[32];
    int to[2], from[2];
    if (pd_process_self(self, sizeof self) != PD_OK || pipe(to) != 0)
        return pdbench_source_fail(s, "cannot start the owner");
    if (pipe(from) != 0) {
        close(to[0]);
        close(to[1]);
        return pdbench_source_fail(s, "cannot start the owner");
    }
    snprintf(ends, sizeof ends, "%d,%d,%d,%d", to[0], from[1], to[1], from[0]);
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)s->side.bytes);
    char *argv[16] = { (char *)(uintptr_t)"pdbench", (char *)(uintptr_t)"transport", (char *)(uintptr_t)"--owner", ends,
                       (char *)(uintptr_t)"-b", bytes };
    int n = 6;
    if (s->side.module.folder != NULL) {
        argv[n++] = (char *)(uintptr_t)"-P";
        argv[n++] = (char *)(uintptr_t)s->side.module.folder;
    }
    if (s->side.module.options != NULL) {
        argv[n++] = (char *)(uintptr_t)"-o";
        argv[n++] = (char *)(uintptr_t)s->side.module.options;
    }
    argv[n++] = (char *)(uintptr_t)s->side.module.file;
    pd_status st = pd_process_spawn(self, argv, NULL, pid);
    close(to[0]);
    close(from[1]);
    s->side.out = to[1];
    s->side.in = from[0];
    return st == PD_OK || pdbench_source_fail(s, "cannot start the owner");
}

static int measure(struct pdbench_source *s)
{
    static struct pdbench_result results[2 * PDBENCH_SIZES];
    uint32_t n = 0;
    pid_t pid;
    int status = 0;
    bool is_good = owner_start(s, &pid);
    if (!is_good)
        return PDBENCH_FAILED;
    s->side.on_msg = on_msg;
    s->side.arg = s;
    s->copy = pd_calloc(s->side.bytes, 1);
    is_good = (s->copy != NULL || pdbench_source_fail(s, "out of memory")) && pdbench_side_open(&s->side, "source") &&
              ask(s, NULL, PDBENCH_MSG_READY);
    s->ready = s->got;
    for (uint32_t i = 0; i < 2 * s->n_sizes && is_good; i++) {
        results[n] = (struct pdbench_result){ .segment = s->sizes[i / 2], .is_scattered = i % 2 == 1 };
        is_good = case_run(s, &results[n++]);
    }
    if (is_good && s->is_json)
        is_good = pdbench_source_json(s, results, n);
    else if (is_good)
        pdbench_source_table(s, results, n);
    if (s->peer != NULL && !s->is_down) {
        s->side.ops->disconnect(s->peer, PD_DISCONNECT_DRAIN);
        (void)pdbench_source_wait(s, &s->is_down);
    }
    if (s->stream != NULL) {
        pd_stream_close(s->stream);
        (void)pdbench_source_wait(s, &s->is_stream_closed);
    }
    close(s->side.out);
    pdbench_side_close(&s->side);
    close(s->side.in);
    is_good = pd_process_wait(pid, &status) == PD_OK && is_good;
    pd_free(s->copy);
    return is_good && status == 0 ? PDBENCH_OK : PDBENCH_FAILED;
}

int pdbench_transport(int argc, char **argv)
{
    static const struct option options[] = {
        { "module-path", required_argument, NULL, 'P' }, { "options", required_argument, NULL, 'o' },
        { "bytes", required_argument, NULL, 'b' },       { "segments", required_argument, NULL, 's' },
        { "rounds", required_argument, NULL, 'n' },      { "json", no_argument, NULL, 'J' },
        { "owner", required_argument, NULL, 'O' },       { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    static struct pdbench_source s = { .side = { .module = { .command = "transport" }, .bytes = 256u << 20, .in = -1, .out = -1 }, .rounds = 7,
                               .sizes = { 4096, 16384, 65536, 1u << 20 }, .n_sizes = 4 };
    bool is_help = false;
    const char *owner = NULL;
    int c, not_mine[2];
    while ((c = getopt_long(argc, argv, "P:o:b:s:n:Jh", options, NULL)) != -1)
        if (!option_take(&s, c, optarg, &is_help, &owner))
            return PDBENCH_USAGE;
    if (is_help) {
        help();
        return PDBENCH_OK;
    }
    if (optind + 1 != argc)
        return pdbench_usage("transport", optind < argc ? "one module, not also" : "a module is missing",
                             optind < argc ? argv[optind + 1] : NULL);
    s.side.module.file = argv[optind];
    for (uint32_t i = 0; owner == NULL && i < s.n_sizes; i++)
        if (s.side.bytes % s.sizes[i] != 0)
            return pdbench_usage("transport", "--bytes must be a multiple of each size of --segments", NULL);
    if (owner == NULL)
        return measure(&s);
    if (sscanf(owner, "%d,%d,%d,%d", &s.side.in, &s.side.out, &not_mine[0], &not_mine[1]) != 4)
        return pdbench_usage("transport", "--owner is for this program itself", NULL);
    close(not_mine[0]);
    close(not_mine[1]);
    return pdbench_owner(&s.side);
}
