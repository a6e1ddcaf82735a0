/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench: chooses the command, and reads values of options for all of them. */
#include "main/pdbench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "base/str.h"
#include "base/units.h"
#include "config.h"
#include "os/proc.h"
#include "os/signal.h"

static void help(FILE *out)
{
    fputs("usage: pdbench COMMAND [OPTION...]\n"
          "\n"
          "Measures servers with the OpenAI API, and routers in front of them.\n"
          "\n"
          "commands:\n"
          "  engine    be a server (or thousands) that computes nothing, with given delays and faults\n"
          "  load      send requests, and tell what their clients saw\n"
          "  transport move memory between two processes through a module, beside what the machine can do\n"
          "  codec     encode and decode KV with a module, beside memcpy\n"
          "  sched     choose endpoints with the scheduler of a configuration\n"
          "  report    saved runs as one HTML file with tables and plots\n"
          "\n"
          "options:\n"
          "  -h, --help     print this; \"pdbench COMMAND --help\" tells more about one\n"
          "  -V, --version  print the version\n"
          "\n"
          "exit status: 0 done and every request was answered, 1 something failed, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdbench engine --listen 127.0.0.1:9000 --ttft 50ms --itl 10ms &\n"
          "  pdbench load --url http://127.0.0.1:9000 --stream --concurrency 32 --duration 10s\n",
          out);
}

int pdbench_usage(const char *command, const char *text, const char *what)
{
    fprintf(stderr, "pdbench%s%s: %s%s%s%s\ntry \"pdbench%s%s --help\"\n", command != NULL ? " " : "",
            command != NULL ? command : "", text, what != NULL ? " \"" : "", what != NULL ? what : "",
            what != NULL ? "\"" : "", command != NULL ? " " : "", command != NULL ? command : "");
    return PDBENCH_USAGE;
}

bool pdbench_number(const char *command, const char *option, const char *text, uint64_t min, uint64_t max,
                    uint64_t *out)
{
    if (pd_str_parse_u64(pd_str_from(text), out) == PD_OK && *out >= min && *out <= max)
        return true;
    fprintf(stderr, "pdbench %s: --%s takes a number from %llu to %llu, not \"%s\"\n", command, option,
            (unsigned long long)min, (unsigned long long)max, text);
    return false;
}

bool pdbench_real(const char *command, const char *option, const char *text, double min, double max, double *out)
{
    if (pd_str_parse_double(pd_str_from(text), out) == PD_OK && *out >= min && *out <= max)
        return true;
    fprintf(stderr, "pdbench %s: --%s takes a number from %g to %g, not \"%s\"\n", command, option, min, max, text);
    return false;
}

bool pdbench_time(const char *command, const char *option, const char *text, pd_time *out)
{
    if (pd_units_parse_duration(pd_str_from(text), out, NULL) == PD_OK && *out <= 7 * 86400 * PD_SEC)
        return true;
    fprintf(stderr, "pdbench %s: --%s takes a time such as 250ms, 2s or 5m, not \"%s\"\n", command, option, text);
    return false;
}

bool pdbench_bytes(const char *command, const char *option, const char *text, uint64_t max, uint64_t *out)
{
    if (pd_units_parse_bytes(pd_str_from(text), out, NULL) == PD_OK && *out <= max)
        return true;
    fprintf(stderr, "pdbench %s: --%s takes a size such as 2000 or 220k, at most %llu bytes, not \"%s\"\n", command,
            option, (unsigned long long)max, text);
    return false;
}

void pdbench_conditions(struct pd_loop *loop, struct pd_json_writer *w)
{
    char text[256];
    uint64_t s = pd_loop_wall(loop) / PD_SEC;
    pd_json_add_cstr(w, "version", PACKAGE_VERSION);
    pd_json_add_u64(w, "unix_time", s);
    pd_json_add_cstr(w, "processor", pd_proc_cpu_model(text, sizeof text) == PD_OK ? text : "unknown");
    pd_json_add_u64(w, "processors", pd_proc_cpus());
    pd_json_add_cstr(w, "kernel", pd_proc_kernel(text, sizeof text) == PD_OK ? text : "unknown");
    pd_json_add_double(w, "load_average", pd_proc_load_average());
}

bool pdbench_print(const char *command, const struct pd_buf *out)
{
    bool is_whole = out->status == PD_OK;
    if (is_whole && fwrite(out->p, 1, out->n, stdout) == out->n && fflush(stdout) == 0)
        return true;
    fprintf(stderr, "pdbench %s: cannot write: %s\n", command, is_whole ? strerror(errno) : pd_status_text(out->status));
    return false;
}

/* What a command has printed may still be refused. */
static int finish(int rc)
{
    if (rc != PDBENCH_OK || (ferror(stdout) == 0 && fflush(stdout) == 0))
        return rc;
    fprintf(stderr, "pdbench: cannot write: %s\n", strerror(errno));
    return PDBENCH_FAILED;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = { { "engine", pdbench_engine }, { "load", pdbench_load }, { "transport", pdbench_transport },
                    { "codec", pdbench_codec }, { "sched", pdbench_sched }, { "report", pdbench_report } };
    if (argc < 2)
        return pdbench_usage(NULL, "a command is missing", NULL);
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        help(stdout);
        return finish(PDBENCH_OK);
    }
    if (strcmp(argv[1], "-V") == 0 || strcmp(argv[1], "--version") == 0) {
        puts("pdbench " PACKAGE_VERSION);
        return finish(PDBENCH_OK);
    }
    pd_signal_ignore(SIGPIPE);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return finish(commands[i].run(argc - 1, argv + 1));
    return pdbench_usage(NULL, "there is no command", argv[1]);
}
