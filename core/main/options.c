/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of pdplane. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/near.h"
#include "main/main.h"

static const struct option long_options[] = {
    { "config", required_argument, NULL, 'c' },
    { "test", no_argument, NULL, 't' },
    { "dump", no_argument, NULL, 'T' },
    { "options", no_argument, NULL, 'O' },
    { "modules", no_argument, NULL, 'M' },
    { "version", no_argument, NULL, 'V' },
    { "signal", required_argument, NULL, 's' },
    { "no-manager", no_argument, NULL, 'D' },
    { "prefix", required_argument, NULL, 'p' },
    { "quiet", no_argument, NULL, 'q' },
    { "help", no_argument, NULL, 'h' },
    { "mdoc", no_argument, NULL, 'm' },
    { NULL, 0, NULL, 0 },
};

static const char *const signals[] = { "reload", "drain", "stop", "upgrade", NULL };

void pd_main_help(FILE *out)
{
    fputs("usage: pdplane [-Dq] [-c FILE] [-p PREFIX]\n"
          "       pdplane -t | -T | -M [-q] [-c FILE] [-p PREFIX]\n"
          "       pdplane -O [MODULE] [--mdoc] [-c FILE]\n"
          "       pdplane -s reload | drain | stop | upgrade [-c FILE] [-p PREFIX]\n"
          "       pdplane -V | -h\n"
          "\n"
          "Serves large language models with prefill and decode on different nodes.\n"
          "What a node is follows from the modules that its configuration loads.\n"
          "\n"
          "  -c, --config FILE    configuration [" PD_CONFDIR "/pd.conf]\n"
          "  -p, --prefix PREFIX  folder for relative paths in it; without -c, PREFIX/pd.conf is read\n"
          "  -t, --test           check the configuration and its modules, then exit\n"
          "  -T, --dump           print it with defaults and where each value is from\n"
          "  -O, --options [MODULE]\n"
          "                       describe all options of the core, or of a module\n"
          "      --mdoc           with -O: as a list for a manual page\n"
          "  -M, --modules        list the modules that there are\n"
          "  -s, --signal SIGNAL  tell the running node to reload, drain, stop or upgrade\n"
          "  -D, --no-manager     run in one process, without a manager: for containers\n"
          "                       and debuggers\n"
          "  -q, --quiet          print errors only\n"
          "  -V, --version        print version and build\n"
          "  -h, --help           print this\n"
          "\n"
          "exit status: 0 good, 1 the configuration is wrong, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdplane -t -c ./pd.conf          is this file right?\n"
          "  pdplane -T -c ./pd.conf          what does it mean, defaults included?\n"
          "  pdplane -O ref                   what can the module ref be told?\n"
          "  pdplane -c ./pd.conf             run it\n"
          "  pdplane -s reload                take the changed file into use\n"
          "  pdplane -s drain                 end it when open requests are done\n",
          out);
}

static int usage(const char *text, const char *what)
{
    fprintf(stderr, "pdplane: %s%s%s%s\ntry \"pdplane --help\"\n", text, what != NULL ? " \"" : "",
            what != NULL ? what : "", what != NULL ? "\"" : "");
    return PD_EXIT_USAGE;
}

static int set_action(struct pd_main_options *o, enum pd_main_action action)
{
    if (o->action != PD_MAIN_RUN && o->action != action)
        return usage("only one of -t, -T, -O, -M, -V, -s and -h may be given", NULL);
    o->action = action;
    return PD_EXIT_OK;
}

static int set_signal(struct pd_main_options *o, const char *name)
{
    struct pd_near near;
    pd_near_init(&near, name);
    o->operand = name;
    for (size_t i = 0; signals[i] != NULL; i++) {
        if (strcmp(signals[i], name) == 0)
            return set_action(o, PD_MAIN_SIGNAL);
        pd_near_try(&near, signals[i]);
    }
    const char *best = pd_near_best(&near);
    fprintf(stderr, "pdplane: unknown signal \"%s\"%s%s%s\nknown: reload, drain, stop, upgrade\n", name,
            best != NULL ? " (did you mean \"" : "", best != NULL ? best : "", best != NULL ? "\"?)" : "");
    return PD_EXIT_USAGE;
}

static int set_option(struct pd_main_options *o, int c)
{
    switch (c) {
    case 'c':
        o->file = optarg;
        return PD_EXIT_OK;
    case 'p':
        o->prefix = optarg;
        return PD_EXIT_OK;
    case 'D':
        o->no_manager = true;
        return PD_EXIT_OK;
    case 'q':
        o->quiet = true;
        return PD_EXIT_OK;
    case 'm':
        o->mdoc = true;
        return PD_EXIT_OK;
    case 't':
        return set_action(o, PD_MAIN_TEST);
    case 'T':
        return set_action(o, PD_MAIN_DUMP);
    case 'O':
        return set_action(o, PD_MAIN_OPTIONS);
    case 'M':
        return set_action(o, PD_MAIN_MODULES);
    case 'V':
        return set_action(o, PD_MAIN_VERSION);
    case 'h':
        return set_action(o, PD_MAIN_HELP);
    case 's':
        return set_signal(o, optarg);
    default:
        fputs("try \"pdplane --help\"\n", stderr);
        return PD_EXIT_USAGE;
    }
}

int pd_main_options_parse(struct pd_main_options *o, int argc, char **argv)
{
    int c;
    memset(o, 0, sizeof *o);
    while ((c = getopt_long(argc, argv, "c:p:tTOMVs:Dqh", long_options, NULL)) != -1) {
        int rc = set_option(o, c);
        if (rc != PD_EXIT_OK)
            return rc;
    }
    if (o->action == PD_MAIN_OPTIONS && optind < argc)
        o->operand = argv[optind++];
    if (optind < argc)
        return usage("there is no operand", argv[optind]);
    if (o->mdoc && o->action != PD_MAIN_OPTIONS)
        return usage("--mdoc goes with -O only", NULL);
    if (o->file == NULL) {
        int n = snprintf(o->file_buffer, sizeof o->file_buffer, "%s/pd.conf",
                         o->prefix != NULL ? o->prefix : PD_CONFDIR);
        if (n < 0 || (size_t)n >= sizeof o->file_buffer)
            return usage("prefix is too long", NULL);
        o->file = o->file_buffer;
    }
    return PD_EXIT_OK;
}
