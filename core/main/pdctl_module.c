/* SPDX-License-Identifier: Apache-2.0 */
/* pdctl module new NAME --kind KIND [--dir DIR]: writes the skeleton of a module,
 * from the files in the folder "skeleton" of pdplane's data.  Needs no node. */
#include "main/pdctl_module.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/near.h"
#include "base/str.h"
#include "os/file.h"

enum { OK = 0, FAILED = 1, USAGE = 2, PATH_SIZE = 1200, FILE_MAX = 1 << 20 };

/* Files of a module beside NAME.c: NAME_poster.c from transport_poster.c. */
static const char *const transport_more[] = { ".h", "_poster.c", "_owner.c", NULL };

/* The stable kinds: a skeleton of each is in contrib/skeleton. */
static const struct {
    const char *name, *header, *option;
    const char *const *more;        /* ends of more files, ended by NULL; or NULL */
} kinds[] = {
    { "adapter", "adapter.h", "health", NULL },     { "codec", "codec.h", "least", NULL },
    { "decider", "scheduler.h", "tokens", NULL },   { "discovery", "discovery.h", "url", NULL },
    { "engine", "engine.h", "context", NULL },      { "exporter", "exporter.h", "path", NULL },
    { "filter", "scheduler.h", "most", NULL },      { "picker", "scheduler.h", "among", NULL },
    { "scorer", "scheduler.h", "full", NULL },      { "transport", "transport.h", "listen", transport_more },
};
#define KINDS (sizeof kinds / sizeof kinds[0])

struct job {
    const char *name;
    size_t kind;
    char from[PATH_SIZE], to[PATH_SIZE];
    char sources[256];
};

static int wrong(const char *text, const char *what)
{
    fprintf(stderr, "pdctl: %s \"%s\"\ntry \"pdctl help module\"\n", text, what);
    return USAGE;
}

void pdctl_module_help(FILE *out)
{
    fputs("usage: pdctl module new NAME --kind KIND [--dir DIR]\n"
          "\n"
          "Writes a folder with the skeleton of a module that builds and passes its tests as it is: the\n"
          "source, a Makefile of three lines, a README, a sample of configuration, and tests.  Needs no node.\n"
          "\n"
          "  NAME        of module and folder: a to z, 0 to 9 and _, beginning with a letter\n"
          "  -k, --kind  adapter, codec, decider, discovery, engine, exporter, filter, picker, scorer, transport\n"
          "  -d, --dir   where the folder is made [.]\n"
          "\n"
          "example: pdctl module new my_scorer --kind scorer && make -C my_scorer check\n",
          out);
}

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return s[0] >= 'a' && s[0] <= 'z' && s[n] == '\0' && n < 48;
}

/* $PDPLANE_DATA, else beside this program as it is installed, else where it was
 * configured to be. */
static void find_skeletons(char *out)
{
    const char *data = getenv("PDPLANE_DATA");
    char self[PATH_SIZE - 64];
    ssize_t n;
    if (data != NULL && data[0] != '\0') {
        snprintf(out, PATH_SIZE, "%.1000s/skeleton", data);
        return;
    }
    n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        char *slash;
        self[n] = '\0';
        slash = strrchr(self, '/');
        *slash = '\0';
        snprintf(out, PATH_SIZE, "%s/../share/pdplane/skeleton", self);
        if (pd_file_is_dir(out))
            return;
    }
    snprintf(out, PATH_SIZE, "%s/skeleton", PD_DATADIR);
}

/* Of SRCS in the Makefile. */
static void sources_of(const struct job *j, char *out, size_t size)
{
    const char *const *more = kinds[j->kind].more;
    size_t n = (size_t)snprintf(out, size, "%.48s.c", j->name);
    for (; more != NULL && *more != NULL; more++)
        if (strchr(*more, 'c') != NULL && n < size)
            n += (size_t)snprintf(out + n, size - n, " %.48s%s", j->name, *more);
}

static const char *value_of(const struct job *j, struct pd_str key)
{
    if (pd_str_is(key, "SOURCES"))
        return j->sources;
    if (pd_str_is(key, "NAME"))
        return j->name;
    if (pd_str_is(key, "KIND"))
        return kinds[j->kind].name;
    if (pd_str_is(key, "HEADER"))
        return kinds[j->kind].header;
    return pd_str_is(key, "OPTION") ? kinds[j->kind].option : NULL;
}

/* Copies text with @KEY@ replaced. */
static void fill(const struct job *j, struct pd_str text, struct pd_buf *out)
{
    while (text.n > 0) {
        size_t at = pd_str_find_char(text, '@'), end;
        if (at == PD_STR_NPOS) {
            pd_buf_append_str(out, text);
            return;
        }
        pd_buf_append(out, text.p, at);
        text = pd_str_sub(text, at + 1, text.n);
        end = pd_str_find_char(text, '@');
        const char *value = end == PD_STR_NPOS ? NULL : value_of(j, pd_str_sub(text, 0, end));
        if (value == NULL) {
            pd_buf_append_char(out, '@');
            continue;
        }
        pd_buf_append_cstr(out, value);
        text = pd_str_sub(text, end + 1, text.n);
    }
}

/* One file of the skeleton to one of the module. */
static int write_one(const struct job *j, const char *from, const char *to)
{
    char path[PATH_SIZE + 64];
    struct pd_buf in, out;
    struct pd_err err = { 0 };
    pd_status st;
    pd_buf_init(&in, FILE_MAX);
    pd_buf_init(&out, FILE_MAX);
    snprintf(path, sizeof path, "%s/%s", j->from, from);
    st = pd_file_read(path, FILE_MAX, &in, &err);
    if (st == PD_OK) {
        fill(j, pd_buf_str(&in), &out);
        snprintf(path, sizeof path, "%s/%s", j->to, to);
        st = out.status;
    }
    if (st == PD_OK)
        st = pd_file_write(path, pd_buf_str(&out), 0644, &err);
    if (st != PD_OK)
        fprintf(stderr, "pdctl: %s\n", err.text[0] != '\0' ? err.text : "out of memory");
    pd_buf_fini(&in);
    pd_buf_fini(&out);
    return st == PD_OK ? OK : FAILED;
}

static int write_all(const struct job *j)
{
    char source[64], target[64], sample[64], conf[64], folder[PATH_SIZE + 8];
    const char *kind = kinds[j->kind].name;
    const char *const files[][2] = {
        { source, target }, { "Makefile", "Makefile" }, { "README", "README" }, { conf, sample },
        { "01-conform.t", "t/01-conform.t" }, { "02-options.t", "t/02-options.t" },
    };
    struct pd_err err = { 0 };
    snprintf(source, sizeof source, "%s.c", kind);
    snprintf(conf, sizeof conf, "%s.conf", kind);
    snprintf(target, sizeof target, "%.48s.c", j->name);
    snprintf(sample, sizeof sample, "conf/%.32s.conf.sample", j->name);
    for (int i = 0; i < 2; i++) {
        snprintf(folder, sizeof folder, "%s/%s", j->to, i == 0 ? "t" : "conf");
        if (pd_file_mkdir(folder, 0755, &err) != PD_OK) {
            fprintf(stderr, "pdctl: %s\n", err.text);
            return FAILED;
        }
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (write_one(j, files[i][0], files[i][1]) != OK)
            return FAILED;
    for (const char *const *more = kinds[j->kind].more; more != NULL && *more != NULL; more++) {
        snprintf(source, sizeof source, "%s%s", kind, *more);
        snprintf(target, sizeof target, "%.48s%s", j->name, *more);
        if (write_one(j, source, target) != OK)
            return FAILED;
    }
    printf("%s: a%s %s; next: make -C %s check\n", j->to, strchr("aeiou", kind[0]) != NULL ? "n" : "", kind, j->to);
    return OK;
}

static int kind_find(const char *text, size_t *out)
{
    struct pd_near near;
    pd_near_init(&near, text);
    for (size_t i = 0; i < KINDS; i++) {
        if (strcmp(kinds[i].name, text) == 0) {
            *out = i;
            return OK;
        }
        pd_near_try(&near, kinds[i].name);
    }
    const char *best = pd_near_best(&near);
    if (best != NULL)
        fprintf(stderr, "pdctl: did you mean \"%s\"?\n", best);
    return wrong("there is no skeleton of the kind", text);
}

int pdctl_module(int argc, char **argv)
{
    static const struct option options[] = {
        { "kind", required_argument, NULL, 'k' }, { "dir", required_argument, NULL, 'd' },
        { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    struct job j = { .kind = KINDS };
    const char *dir = ".";
    int c;
    optind = 0;
    while ((c = getopt_long(argc, argv, "k:d:h", options, NULL)) != -1) {
        if (c == 'k' && kind_find(optarg, &j.kind) != OK)
            return USAGE;
        if (c == 'd')
            dir = optarg;
        if (c == 'h') {
            pdctl_module_help(stdout);
            return OK;
        }
        if (c == '?')
            return USAGE;
    }
    argc -= optind;
    argv += optind;
    if (argc < 1 || strcmp(argv[0], "new") != 0)
        return wrong("module knows", "new");
    if (argc != 2)
        return wrong("module new takes one NAME, not", argc < 2 ? "" : argv[2]);
    j.name = argv[1];
    if (!is_name(j.name))
        return wrong("a name has a to z, 0 to 9 and _, begins with a letter and has at most 47 characters, not",
                     j.name);
    if (j.kind == KINDS)
        return wrong("module new needs --kind, such as", "scorer");
    if (snprintf(j.to, sizeof j.to, "%s/%s", dir, j.name) >= (int)sizeof j.to - 64)
        return wrong("the path is too long:", dir);
    if (access(j.to, F_OK) == 0) {
        fprintf(stderr, "pdctl: %s is there already; nothing was written\n", j.to);
        return FAILED;
    }
    sources_of(&j, j.sources, sizeof j.sources);
    find_skeletons(j.from);
    if (!pd_file_is_dir(j.from)) {
        fprintf(stderr, "pdctl: the folder %s is not there\n"
                        "  set PDPLANE_DATA to the folder share/pdplane of pdplane\n", j.from);
        return FAILED;
    }
    return write_all(&j);
}
