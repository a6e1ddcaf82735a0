/* SPDX-License-Identifier: Apache-2.0 */
/* pdconform: loads one module, reads the options of its units and runs the cases
 * of their kinds, each in a process of its own; TAP on standard output. */
#include "conform/conform.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "conf/conf.h"
#include "config.h"
#include "mod/check.h"

enum { UNITS_MAX = PD_MOD_UNITS_MAX, CASE_SECONDS = 120, EXIT_USAGE = 2, LONG_MOST = 7 * 86400 };

struct options {
    const char *conf_file, *module;
    uint32_t kind;                  /* 0: all */
    bool list;
};

struct run {
    struct cf_unit units[UNITS_MAX];
    uint32_t n_units;
    uint32_t passed, failed, skipped;
};

enum { TABLES = 7 };

struct tables {
    const struct cf_case *t[TABLES];    /* the rest is NULL */
};

static struct tables tables_of(uint32_t kind)
{
    struct tables all = { { cf_static_cases, cf_common_cases, cf_shortage_cases } };

    switch (kind) {
    case PD_KIND_FILTER:
    case PD_KIND_SCORER:
    case PD_KIND_PICKER:
    case PD_KIND_DECIDER:
        all.t[3] = cf_sched_cases;
        all.t[4] = kind == PD_KIND_DECIDER ? NULL : cf_sched_list_cases;
        all.t[5] = kind == PD_KIND_PICKER ? NULL : cf_sched_stable_cases;
        break;
    case PD_KIND_ENGINE:
        all.t[3] = cf_engine_cases;
        all.t[4] = cf_engine_load_cases;
        break;
    case PD_KIND_TRANSPORT:
        all.t[3] = cf_transport_cases;
        all.t[4] = cf_transport_load_cases;
        all.t[5] = cf_transport_limit_cases;
        all.t[6] = cf_transport_long_cases;
        break;
    case PD_KIND_EXPORTER:
        all.t[3] = cf_exporter_cases;
        break;
    case PD_KIND_CODEC:
        all.t[3] = cf_codec_cases;
        break;
    case PD_KIND_DISCOVERY:
        all.t[3] = cf_discovery_cases;
        all.t[4] = cf_discovery_change_cases;
        break;
    case PD_KIND_ADAPTER:
        all.t[3] = cf_adapter_cases;
        break;
    default:                        /* a role needs a whole node around it */
        all.t[1] = all.t[2] = NULL;
    }
    return all;
}

static const char usage_text[] =
    "usage: pdconform [-c FILE] [-k KIND] [-x COMMAND] [-L SECONDS] MODULE.so\n"
    "       pdconform -l [-k KIND]\n"
    "\n"
    "Checks that a module keeps the contract of what it provides.  Prints TAP; the\n"
    "exit status is 0 when every case passed.\n"
    "\n"
    "  -c, --config FILE   options of the units, one group for each: ref = { model = \"m.gguf\"; };\n"
    "  -k, --kind KIND     only units of this kind\n"
    "  -x, --change COMMAND  changes the world of a source: COMMAND set 1 2 3\n"
    "  -L, --long SECONDS  also what takes long or 1 GiB of memory: transports, random\n"
    "                      posts for so many seconds\n"
    "  -l, --list          lists the cases instead of running them\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n"
    "PD_TEST=NAME in the environment runs the cases of that name alone.\n"
    "\n"
    "  pdconform spare_blocks.so\n"
    "  pdconform -c ref.conf ./ref.so\n";

static bool seconds_parse(const char *text, uint32_t *out)
{
    char *end = NULL;
    unsigned long n = strtoul(text, &end, 10);

    *out = (uint32_t)n;
    return *text >= '0' && *text <= '9' && *end == '\0' && n > 0 && n <= LONG_MOST;
}

static int options_parse(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        { "config", required_argument, NULL, 'c' }, { "kind", required_argument, NULL, 'k' },
        { "change", required_argument, NULL, 'x' }, { "long", required_argument, NULL, 'L' },
        { "list", no_argument, NULL, 'l' },         { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },      { NULL, 0, NULL, 0 },
    };
    int c;

    memset(o, 0, sizeof(*o));
    while ((c = getopt_long(argc, argv, "c:k:x:L:lhV", names, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->conf_file = optarg;
            break;
        case 'k':
            for (uint32_t k = 1; k < PD_KIND_LIMIT; k++)
                if (strcmp(pd_kind_name(k), optarg) == 0)
                    o->kind = k;
            if (o->kind == 0) {
                fprintf(stderr, "pdconform: unknown kind \"%s\"\n", optarg);
                return EXIT_USAGE;
            }
            break;
        case 'x':
            cf_command = optarg;
            break;
        case 'L':
            if (!seconds_parse(optarg, &cf_long)) {
                fprintf(stderr, "pdconform: --long takes 1 to %u seconds, not \"%s\"\n", LONG_MOST, optarg);
                return EXIT_USAGE;
            }
            break;
        case 'l':
            o->list = true;
            break;
        case 'h':
            fputs(usage_text, stdout);
            exit(0);
        case 'V':
            printf("pdconform %s, ABI %u.%u\n", PACKAGE_VERSION, PD_ABI_MAJOR, PD_ABI_MINOR);
            exit(0);
        default:
            fputs(usage_text, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind + !o->list != argc && !(o->list && optind + 1 == argc)) {
        fputs(usage_text, stderr);
        return EXIT_USAGE;
    }
    o->module = argv[optind];
    return 0;
}

static void list_cases(const struct options *o)
{
    for (uint32_t kind = 1; kind < PD_KIND_LIMIT; kind++) {
        struct tables all = tables_of(kind);
        if ((o->kind != 0 && o->kind != kind) || pd_mod_kind(pd_kinds(), kind) == NULL)
            continue;
        for (int t = 0; t < TABLES; t++)
            for (const struct cf_case *c = all.t[t]; c != NULL && c->name != NULL; c++)
                printf("%-10s %-22s %s\n", pd_kind_name(kind), c->name, c->what);
    }
}

/* Lines of a case come as comments under its result. */
static void comment(FILE *from)
{
    char line[2048];

    while (fgets(line, sizeof(line), from) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        printf("# %s\n", line);
    }
}

static uint32_t case_seconds(void)
{
    return CASE_SECONDS + 2 * cf_long;
}

static void result(struct run *r, const struct cf_unit *u, const struct cf_case *c, int status, FILE *out)
{
    uint32_t number = ++r->passed + r->failed + r->skipped;
    char label[256];

    snprintf(label, sizeof(label), "%s %s: %s", pd_kind_name(u->unit->kind), u->unit->name, c->name);
    rewind(out);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("ok %u - %s\n", number, label);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == CF_EXIT_SKIPPED) {
        char why[512] = "";
        if (fgets(why, sizeof(why), out) != NULL)
            why[strcspn(why, "\n")] = '\0';
        printf("ok %u - %s # SKIP %s\n", number, label, why);
        r->passed--;
        r->skipped++;
    } else {
        printf("not ok %u - %s\n", number, label);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
            printf("# takes longer than %u s\n", case_seconds());
        else if (WIFSIGNALED(status))
            printf("# ends with signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
        r->passed--;
        r->failed++;
    }
    comment(out);
    fflush(stdout);
}

/* In a process group of its own, so that what it forked goes with it. */
static void run_case(struct run *r, const struct cf_unit *u, const struct cf_case *c)
{
    FILE *out = tmpfile();
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = out == NULL ? -1 : fork();
    if (pid < 0) {
        fprintf(stderr, "pdconform: cannot start a case: %s\n", strerror(errno));
        exit(1);
    }
    if (pid == 0) {
        setpgid(0, 0);
        if (dup2(fileno(out), STDOUT_FILENO) < 0 || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
            _exit(CF_EXIT_FAILED);
        alarm(case_seconds());
        c->run(u);
        fflush(NULL);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    kill(-pid, SIGKILL);
    result(r, u, c, status, out);
    fclose(out);
}

static bool is_wanted(const struct cf_case *c)
{
    const char *name = getenv("PD_TEST");

    return name == NULL || strcmp(name, c->name) == 0;
}

static void run_unit(struct run *r, const struct cf_unit *u)
{
    struct tables all = tables_of(u->unit->kind);

    for (int t = 0; t < TABLES; t++)
        for (const struct cf_case *c = all.t[t]; c != NULL && c->name != NULL; c++)
            if (is_wanted(c) && (cf_long > 0 || all.t[t] != cf_transport_long_cases))
                run_case(r, u, c);
}

static bool units_find(struct run *r, struct pd_mods *mods, const struct options *o)
{
    const struct pd_mod *mod = pd_mods_at(mods, 0);
    const struct pd_mod_unit *u;

    for (size_t i = 0; (u = pd_mods_unit_at(mods, UINT64_MAX, i)) != NULL; i++) {
        if (o->kind != 0 && u->unit->kind != o->kind)
            continue;
        r->units[r->n_units++] = (struct cf_unit){ .unit = u->unit, .ops = u->ops, .module = mod->name };
    }
    return r->n_units > 0;
}

/* The rows of the file: a group for each unit, and one for its small form. */
struct file_rows {
    struct pd_option rows[2 * UNITS_MAX + 1];
    char names[UNITS_MAX][80];
    size_t size;
};

static bool is_required(const struct pd_option *rows)
{
    while (rows->type != PD_OPT_T_END && (rows->flags & PD_OPT_REQUIRED) == 0)
        rows++;
    return rows->type != PD_OPT_T_END;
}

static void rows_make(struct file_rows *f, const struct run *r)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->n_units; i++) {
        const struct pd_unit *u = r->units[i].unit;
        struct pd_option row = { .name = u->name, .type = PD_OPT_T_GROUP, .help = "Options of the unit.",
                                 .rows = u->options, .item_size = u->conf_size };
        if (u->options == NULL)
            continue;
        row.flags = is_required(u->options) ? PD_OPT_REQUIRED : 0;
        row.offset = (uint32_t)f->size;
        row.width = (uint32_t)u->conf_size;
        f->rows[n++] = row;
        f->size += (u->conf_size + 15) / 16 * 16;
        snprintf(f->names[i], sizeof(f->names[i]), "%s_small", u->name);
        row.name = f->names[i];
        row.flags = PD_OPT_POINTER;
        row.offset = (uint32_t)f->size;
        row.width = sizeof(void *);
        f->rows[n++] = row;
        f->size += 16;
    }
}

static void units_fill(struct run *r, const struct file_rows *f, const char *root)
{
    const struct pd_option *row = f->rows;

    for (uint32_t i = 0; i < r->n_units; i++) {
        struct cf_unit *u = &r->units[i];
        if (u->unit->options == NULL)
            continue;
        u->conf = root + row->offset;
        row++;
        memcpy(&u->conf_small, root + row->offset, sizeof(u->conf_small));
        row++;
        if (u->conf_small == NULL)
            u->conf_small = u->conf;
    }
}

/* Gives the configuration whose memory the units' options are. */
static struct pd_conf *conf_read(struct run *r, struct file_rows *f, struct pd_mods *mods,
                                 const struct options *o)
{
    struct pd_conf_resolver resolver = pd_mods_resolver(mods);
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    pd_status st;

    pd_conf_report_init(&report);
    rows_make(f, r);
    st = o->conf_file != NULL ? pd_conf_open(o->conf_file, NULL, &report, &conf)
                              : pd_conf_open_text("defaults", PD_STR(""), NULL, &report, &conf);
    if (st == PD_OK)
        st = pd_conf_fill(conf, f->rows, f->size + 16, &resolver, &report);
    if (st != PD_OK) {
        pd_conf_report_print(&report, stderr);
        if (o->conf_file == NULL)
            fprintf(stderr, "pdconform: give the options of the module's units with -c FILE\n");
        pd_conf_put(conf);
        conf = NULL;
    } else {
        units_fill(r, f, pd_conf_root(conf));
    }
    pd_conf_report_fini(&report);
    return conf;
}

static int run_all(struct run *r, struct pd_mods *mods, const struct options *o)
{
    struct file_rows *rows = pd_calloc(1, sizeof(*rows));
    struct pd_conf *conf = NULL;

    if (rows != NULL && units_find(r, mods, o))
        conf = conf_read(r, rows, mods, o);
    else
        fprintf(stderr, "pdconform: the module provides no such unit\n");
    if (conf == NULL) {
        printf("Bail out! nothing could be tested\n");
        pd_free(rows);
        return 1;
    }
    for (uint32_t i = 0; i < r->n_units; i++)
        run_unit(r, &r->units[i]);
    printf("1..%u\n# %u passed, %u failed, %u skipped\n", r->passed + r->failed + r->skipped, r->passed,
           r->failed, r->skipped);
    pd_conf_put(conf);
    pd_free(rows);
    return r->failed == 0 && r->passed > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct pd_mods_params params = { .host = cf_host_table() };
    struct options o;
    struct pd_mods *mods = NULL;
    struct pd_err err = { 0 };
    struct run r = { .n_units = 0 };
    char path[4096];
    int rc = options_parse(&o, argc, argv);

    if (rc != 0)
        return rc;
    if (o.list) {
        list_cases(&o);
        return 0;
    }
    if (realpath(o.module, path) == NULL) {
        fprintf(stderr, "pdconform: %s: %s\n", o.module, strerror(errno));
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    if (pd_mods_create(&params, &mods) != PD_OK)
        return 1;
    if (pd_mods_load(mods, path, &err) != PD_OK) {
        printf("not ok 1 - the loader takes the module\n# %s\n%s%s%s1..1\n", err.text,
               err.hint[0] == '\0' ? "" : "# ", err.hint, err.hint[0] == '\0' ? "" : "\n");
        pd_mods_destroy(mods);
        return 1;
    }
    printf("ok 1 - the loader takes the module\n");
    r.passed = 1;
    rc = run_all(&r, mods, &o);
    pd_mods_destroy(mods);
    return rc;
}
