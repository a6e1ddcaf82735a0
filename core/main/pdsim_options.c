/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of pdsim. */
#include "main/pdsim.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/near.h"
#include "base/str.h"
#include "base/units.h"

#define RUN_MAX (366 * 86400 * PD_SEC)

void pdsim_help(void)
{
    fputs("usage: pdsim [-c FILE] --rate N | --trace FILE [OPTION...]\n"
          "\n"
          "Tells what a router's configuration does with your traffic, before you try it on machines: the real\n"
          "router with its scheduler and modules runs in a simulator, in front of simulated servers, on a clock\n"
          "of its own.  The same seed gives the same output.\n"
          "\n"
          "what to simulate:\n"
          "  -c, --config FILE       a router's configuration [" PD_CONFDIR "/pd.conf]; several are compared\n"
          "  -s, --set CHANGE        compare with the last --config changed: PATH = VALUE, or LIST xN, with \";\"\n"
          "                          between changes; may be given more than once\n"
          "  -S, --set-all CHANGE    change every configuration\n"
          "  -p, --prefix PREFIX     folder for relative paths in configurations\n"
          "  -k, --kill NAME@TIME[+TIME]\n"
          "                          endpoints with that name (* and ? fit any) die at a time, and come back\n"
          "                          after another\n"
          "  -K, --slow NAME=FACTOR@TIME[+TIME]\n"
          "                          their steps take FACTOR times as long\n"
          "servers:\n"
          "  -P, --classes FILE      classes of servers by the names of endpoints\n"
          "  -e, --server SETTINGS   one class for all that FILE does not describe, such as\n"
          "                          'slots = 64; prefill_tokens_per_s = 12000.0'\n"
          "  -O, --options           print what can be said of a class\n"
          "      --mdoc              with -O: as a list for a manual page\n"
          "  -l, --latency TIME      of the network, one way [200us]\n"
          "  -j, --jitter TIME       added to it, at random up to this [0]\n"
          "  -b, --bandwidth SIZE    bytes a second between two hosts [1g]\n"
          "traffic:\n"
          "  -A, --trace FILE        JSON lines with timestamp (ms), input_length, output_length (tokens) and\n"
          "                          hash_ids (for each 512 tokens)\n"
          "  -X, --speed FACTOR      with --trace: so many times faster [1]\n"
          "  -r, --rate N            requests per second\n"
          "  -a, --arrival KIND      with --rate: poisson, constant or bursty [poisson]\n"
          "  -n, --requests N        with --rate: so many [1000]\n"
          "  -i, --input N           tokens of a prompt of its own [1000]\n"
          "  -o, --output N          tokens of an answer [200]\n"
          "  -L, --lengths KIND      fixed, or exponential about these [fixed]\n"
          "  -g, --shared N[:GROUPS] prompts of a group begin with the same N tokens, in steps of 512 [0:8]\n"
          "  -G, --sessions          conversations that grow turn by turn, instead of the five above\n"
          "  -m, --model NAME        [the first that an endpoint names, else \"model\"]\n"
          "  -w, --whole             answers as a whole instead of streams\n"
          "  -C, --concurrency N     most requests under way [4096]\n"
          "  -T, --timeout TIME      of clients, to the first byte and between pieces [10m]\n"
          "  -x, --seed N            [1]\n"
          "what counts:\n"
          "  -W, --warmup TIME       do not count requests of the beginning [0]\n"
          "  -1, --ttft TIME         goodput: the first token within this\n"
          "  -2, --itl TIME          goodput: mean time between tokens within this\n"
          "  -3, --e2e TIME          goodput: the whole answer within this\n"
          "output:\n"
          "  -J, --json              one JSON object instead of tables\n"
          "  -v, --verbose           what the router logs, and how fast the run was, on standard error\n"
          "  -q, --quiet             no progress on standard error\n"
          "  -V, --version           print the version\n"
          "  -h, --help              print this\n"
          "\n"
          "exit status: 0 good, 1 a file is wrong or the run failed, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdsim -c router.conf --rate 20 -n 5000                  what will clients wait?\n"
          "  pdsim -c router.conf --rate 20 --ttft 2s --set 'endpoints x2'\n"
          "                                                          is twice the servers worth it?\n"
          "  pdsim -c router.conf -A trace.jsonl -c other.conf       which of the two is better for this traffic?\n"
          "  pdsim -c router.conf --rate 20 --kill 'd0@60s+30s'      what if a server dies for half a minute?\n"
          "  pdsim -c router.conf --rate 20 -e 'step = \"9ms\"; slots = 256'  on faster machines?\n",
          stdout);
}

static int usage(const char *text, const char *what)
{
    fprintf(stderr, "pdsim: %s%s%s%s\ntry \"pdsim --help\"\n", text, what != NULL ? " \"" : "",
            what != NULL ? what : "", what != NULL ? "\"" : "");
    return PDSIM_USAGE;
}

/* ---- values ------------------------------------------------------------------------------ */

static int number(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    if (pd_str_parse_u64(pd_str_from(text), out) == PD_OK && *out >= min && *out <= max)
        return PDSIM_OK;
    fprintf(stderr, "pdsim: --%s takes a number from %llu to %llu, not \"%s\"\n", option, (unsigned long long)min,
            (unsigned long long)max, text);
    return PDSIM_USAGE;
}

static int real(const char *option, const char *text, double min, double max, double *out)
{
    if (pd_str_parse_double(pd_str_from(text), out) == PD_OK && *out >= min && *out <= max)
        return PDSIM_OK;
    fprintf(stderr, "pdsim: --%s takes a number from %g to %g, not \"%s\"\n", option, min, max, text);
    return PDSIM_USAGE;
}

static int duration(const char *option, const char *text, pd_time *out)
{
    if (pd_units_parse_duration(pd_str_from(text), out, NULL) == PD_OK && *out <= RUN_MAX)
        return PDSIM_OK;
    fprintf(stderr, "pdsim: --%s takes a time such as 250ms, 2s or 5m, not \"%s\"\n", option, text);
    return PDSIM_USAGE;
}

static int size(const char *option, const char *text, uint64_t *out)
{
    if (pd_units_parse_bytes(pd_str_from(text), out, NULL) == PD_OK && *out > 0)
        return PDSIM_OK;
    fprintf(stderr, "pdsim: --%s takes a size such as 100m or 1g, not \"%s\"\n", option, text);
    return PDSIM_USAGE;
}

static int word(const char *option, const char *text, const char *const *words, uint32_t *out)
{
    struct pd_near near;
    pd_near_init(&near, text);
    for (uint32_t i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return PDSIM_OK;
        }
        pd_near_try(&near, words[i]);
    }
    const char *best = pd_near_best(&near);
    fprintf(stderr, "pdsim: --%s: there is no kind \"%s\"%s%s%s; known:", option, text,
            best != NULL ? " (did you mean \"" : "", best != NULL ? best : "", best != NULL ? "\"?)" : "");
    for (uint32_t i = 0; words[i] != NULL; i++)
        fprintf(stderr, " %s", words[i]);
    fputc('\n', stderr);
    return PDSIM_USAGE;
}

/* "N" or "N:GROUPS" */
static int shared(struct pdsim_options *o, const char *text)
{
    struct pd_str rest = pd_str_from(text), tokens = { 0 }, groups = rest;
    bool is_good = pd_str_split(&rest, ':', &tokens) &&
                   pd_str_parse_u64(tokens, &o->work.shared) == PD_OK && o->work.shared <= 1000000;
    if (is_good && pd_str_find_char(pd_str_from(text), ':') != PD_STR_NPOS) {
        groups = rest;
        is_good = pd_str_parse_u64(groups, &o->work.groups) == PD_OK && o->work.groups >= 1 &&
                  o->work.groups <= 100000;
    }
    return is_good ? PDSIM_OK : usage("--shared takes TOKENS or TOKENS:GROUPS, not", text);
}

/* "NAME@TIME[+TIME]", with "=FACTOR" behind the name for slow ones. */
static int fault(struct pdsim_options *o, const char *option, char *text, uint32_t kind)
{
    struct pd_whatif_fault *f = &o->faults[o->n_faults];
    char *at = strrchr(text, '@'), *factor = strrchr(text, '=');
    int rc = PDSIM_OK;
    if (o->n_faults == PDSIM_FAULTS_MAX)
        return usage("there are too many faults", NULL);
    if (at == NULL || at == text || (kind == PD_WHATIF_SLOW && (factor == NULL || factor > at || factor == text)))
        return usage(kind == PD_WHATIF_SLOW ? "--slow takes NAME=FACTOR@TIME[+TIME], not"
                                            : "--kill takes NAME@TIME[+TIME], not", text);
    *at++ = '\0';
    f->kind = kind;
    f->endpoints = text;
    if (kind == PD_WHATIF_SLOW) {
        *factor++ = '\0';
        rc = real(option, factor, 0.001, 1e6, &f->factor);
    }
    char *plus = strchr(at, '+');
    if (plus != NULL)
        *plus++ = '\0';
    if (rc == PDSIM_OK)
        rc = duration(option, at, &f->at);
    if (rc == PDSIM_OK && plus != NULL)
        rc = duration(option, plus, &f->lasts);
    o->n_faults++;
    return rc;
}

/* ---- options ------------------------------------------------------------------------------ */

static int variant(struct pdsim_options *o, const char *file, const char *change)
{
    if (o->n_variants == PDSIM_VARIANTS_MAX)
        return usage("there is too much to compare", NULL);
    if (file == NULL && o->n_variants == 0)
        o->variants[o->n_variants++].file = PD_CONFDIR "/pd.conf";
    o->variants[o->n_variants].file = file != NULL ? file : o->variants[o->n_variants - 1].file;
    o->variants[o->n_variants++].change = change;
    return PDSIM_OK;
}

static int take_traffic(struct pdsim_options *o, int c, char *arg)
{
    switch (c) {
    case 'A': o->trace = arg; return PDSIM_OK;
    case 'X': return real("speed", arg, 0.001, 1e6, &o->speed);
    case 'r': return real("rate", arg, 0.0001, 1e6, &o->work.rate);
    case 'a': return word("arrival", arg, pd_whatif_arrivals, &o->work.arrival);
    case 'n': return number("requests", arg, 1, PD_BENCH_TRACE_ROWS, &o->work.requests);
    case 'i': return number("input", arg, 1, 1000000, &o->work.input);
    case 'o': return number("output", arg, 1, 1000000, &o->work.output);
    case 'L': return word("lengths", arg, pd_whatif_lengths, &o->work.lengths);
    case 'g': return shared(o, arg);
    case 'G': o->work.is_sessions = true; return PDSIM_OK;
    case 'm': o->model = arg; return PDSIM_OK;
    case 'w': o->is_whole = true; return PDSIM_OK;
    case 'C': return number("concurrency", arg, 1, 65536, &o->concurrency);
    case 'T': return duration("timeout", arg, &o->timeout);
    default: return number("seed", arg, 0, UINT64_MAX, &o->work.seed);
    }
}

static int take(struct pdsim_options *o, int c, char *arg)
{
    switch (c) {
    case 'c': return variant(o, arg, NULL);
    case 's': return variant(o, NULL, arg);
    case 'S':
        if (o->n_changes == PDSIM_CHANGES_MAX)
            return usage("there are too many changes", NULL);
        o->changes[o->n_changes++] = arg;
        return PDSIM_OK;
    case 'p': o->prefix = arg; return PDSIM_OK;
    case 'k': return fault(o, "kill", arg, PD_WHATIF_KILL);
    case 'K': return fault(o, "slow", arg, PD_WHATIF_SLOW);
    case 'P': o->classes = arg; return PDSIM_OK;
    case 'e': o->server = arg; return PDSIM_OK;
    case 'l': return duration("latency", arg, &o->latency);
    case 'j': return duration("jitter", arg, &o->jitter);
    case 'b': return size("bandwidth", arg, &o->bandwidth);
    case 'W': return duration("warmup", arg, &o->warmup);
    case '1': return duration("ttft", arg, &o->slo.ttft);
    case '2': return duration("itl", arg, &o->slo.itl);
    case '3': return duration("e2e", arg, &o->slo.e2e);
    case 'J': o->is_json = true; return PDSIM_OK;
    case 'v': o->is_verbose = true; return PDSIM_OK;
    case 'q': o->is_quiet = true; return PDSIM_OK;
    case 'V': o->is_version = true; return PDSIM_OK;
    case 'h': o->is_help = true; return PDSIM_OK;
    case 'O': o->is_reference = true; return PDSIM_OK;
    case 'M': o->is_mdoc = true; return PDSIM_OK;
    case '?': fputs("try \"pdsim --help\"\n", stderr); return PDSIM_USAGE;
    default: return take_traffic(o, c, arg);
    }
}

static int check(struct pdsim_options *o)
{
    if (o->is_mdoc && !o->is_reference)
        return usage("--mdoc goes with -O only", NULL);
    if (o->is_help || o->is_version || o->is_reference)
        return PDSIM_OK;
    if ((o->trace == NULL) == (o->work.rate <= 0))
        return usage(o->trace != NULL ? "--trace tells when requests come: leave out --rate"
                                      : "the traffic is missing: --rate or --trace", NULL);
    if (o->trace != NULL && o->work.is_sessions)
        return usage("--trace tells what prompts share: leave out --sessions", NULL);
    if (o->timeout == 0)
        return usage("--timeout must be longer than 0", NULL);
    return o->n_variants > 0 ? PDSIM_OK : variant(o, PD_CONFDIR "/pd.conf", NULL);
}

int pdsim_options_parse(struct pdsim_options *o, int argc, char **argv)
{
    static const struct option rows[] = {
        { "config", required_argument, NULL, 'c' },     { "set", required_argument, NULL, 's' },
        { "set-all", required_argument, NULL, 'S' },    { "prefix", required_argument, NULL, 'p' },
        { "kill", required_argument, NULL, 'k' },       { "slow", required_argument, NULL, 'K' },
        { "classes", required_argument, NULL, 'P' },    { "server", required_argument, NULL, 'e' },
        { "options", no_argument, NULL, 'O' },          { "mdoc", no_argument, NULL, 'M' },
        { "latency", required_argument, NULL, 'l' },    { "jitter", required_argument, NULL, 'j' },
        { "bandwidth", required_argument, NULL, 'b' },  { "trace", required_argument, NULL, 'A' },
        { "speed", required_argument, NULL, 'X' },      { "rate", required_argument, NULL, 'r' },
        { "arrival", required_argument, NULL, 'a' },    { "requests", required_argument, NULL, 'n' },
        { "input", required_argument, NULL, 'i' },      { "output", required_argument, NULL, 'o' },
        { "lengths", required_argument, NULL, 'L' },    { "shared", required_argument, NULL, 'g' },
        { "sessions", no_argument, NULL, 'G' },         { "model", required_argument, NULL, 'm' },
        { "whole", no_argument, NULL, 'w' },            { "concurrency", required_argument, NULL, 'C' },
        { "timeout", required_argument, NULL, 'T' },    { "seed", required_argument, NULL, 'x' },
        { "warmup", required_argument, NULL, 'W' },     { "ttft", required_argument, NULL, '1' },
        { "itl", required_argument, NULL, '2' },        { "e2e", required_argument, NULL, '3' },
        { "json", no_argument, NULL, 'J' },             { "verbose", no_argument, NULL, 'v' },
        { "quiet", no_argument, NULL, 'q' },            { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },             { NULL, 0, NULL, 0 },
    };
    int c;
    memset(o, 0, sizeof *o);
    o->speed = 1;
    o->work = (struct pd_whatif_work_opts){ .seed = 1, .requests = 1000, .input = 1000, .output = 200, .groups = 8 };
    o->latency = 200 * PD_US;
    o->bandwidth = 1u << 30;
    o->concurrency = 4096;
    o->timeout = 600 * PD_SEC;
    while ((c = getopt_long(argc, argv, "c:s:S:p:k:K:P:e:Ol:j:b:A:X:r:a:n:i:o:L:g:Gm:wC:T:x:W:1:2:3:JvqVh", rows,
                            NULL)) != -1) {
        int rc = take(o, c, optarg);
        if (rc != PDSIM_OK)
            return rc;
    }
    if (optind < argc)
        return usage("there is no argument", argv[optind]);
    return check(o);
}
