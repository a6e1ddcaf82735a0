/* SPDX-License-Identifier: Apache-2.0 */
/* pdctl: sends one command to the control socket of a node and prints the
 * answer.  The words of the commands come from the table that the node uses, so
 * that a wrong word is told without a node. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "base/units.h"
#include "config.h"
#include "ctl/words.h"
#include "main/pdctl_module.h"
#include "loop/uv.h"
#include "os/signal.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define ANSWER_MAX (16u << 20)
#define ANSWER_NS (15 * PD_SEC)

struct pdctl {
    struct pd_loop *loop;
    struct pd_stream *stream;
    struct pd_timer timer;      /* for the answer, or until the next round */
    struct pd_buf out;          /* the line, not yet sent */
    struct pd_buf in;
    struct pd_buf line;
    const char *path;
    pd_time every;              /* 0: once */
    bool is_json;
    bool is_waiting;            /* for an answer */
    bool has_printed;
    int rc;
};

/* ---- help ---------------------------------------------------------------------------- */

static int out_of_memory(void)
{
    fputs("pdctl: out of memory\n", stderr);
    return EXIT_FAILED;
}

static int help(FILE *out)
{
    struct pd_buf list;
    pd_buf_init(&list, 1u << 16);
    pd_ctl_words_list(&list);
    if (list.status != PD_OK) {
        pd_buf_fini(&list);
        return out_of_memory();
    }
    fputs("usage: pdctl [-s SOCKET] [-w SECONDS] [--json] COMMAND [ARGUMENT...]\n"
          "\n"
          "Asks a running pdplane what it does, or tells it what to do.\n"
          "\n",
          out);
    fprintf(out, "commands:\n%.*s\n", PD_STR_ARG(pd_buf_str(&list)));
    fputs("without a node:\n"
          "  module new NAME --kind KIND  write the skeleton of a module; \"pdctl help module\"\n"
          "\n"
          "options:\n"
          "  -s, --socket PATH    the node's control socket, as `control` in its configuration\n"
          "                       [$PDPLANE_CONTROL, else " PD_RUNDIR "/pdplane.sock]\n"
          "  -w, --watch SECONDS  ask again every so many seconds, until interrupted\n"
          "  -j, --json           one JSON document: sizes in bytes, times in seconds\n"
          "  -h, --help           print this; \"pdctl help COMMAND\" tells more about one\n"
          "  -V, --version        print the version\n"
          "\n"
          "exit status: 0 done, 1 the node said no or cannot be reached, 2 the command line is wrong\n"
          "\n"
          "examples:\n"
          "  pdctl status                           is it well?\n"
          "  pdctl -w 1 endpoints                   watch the load\n"
          "  pdctl requests 10                      what came last, and did KV move?\n"
          "  pdctl explain req-17                   why did this request go there?\n"
          "  pdctl --json nodes | jq '.nodes[].state'\n"
          "  pdctl log debug router                 log more of one part, without a restart\n",
          out);
    pd_buf_fini(&list);
    return EXIT_OK;
}

static int usage(const char *text, const char *what)
{
    fprintf(stderr, "pdctl: %s%s%s%s\ntry \"pdctl --help\"\n", text, what != NULL ? " \"" : "",
            what != NULL ? what : "", what != NULL ? "\"" : "");
    return EXIT_USAGE;
}

/* ---- the end ----------------------------------------------------------------------------- */

static void on_closed(struct pd_stream *s, void *arg)
{
    struct pdctl *p = arg;
    (void)s;
    p->stream = NULL;
    pd_loop_stop(p->loop);
}

static void finish(struct pdctl *p, int rc)
{
    p->rc = rc;
    pd_timer_stop(&p->timer);
    if (p->stream != NULL)
        pd_stream_close(p->stream);
    else
        pd_loop_stop(p->loop);
}

static void cannot_reach(struct pdctl *p, pd_status status)
{
    fprintf(stderr, "pdctl: cannot reach a node at %s: ", p->path);
    if (status == PD_ENOENT)
        fputs("there is no such socket\n"
              "  is the node running, and does its configuration set `control` to this path?\n"
              "  another path is given with -s PATH or in $PDPLANE_CONTROL\n",
              stderr);
    else if (status == PD_EPERM)
        fputs("permission denied\n  run pdctl as the node's user or as a member of its group\n", stderr);
    else if (status == PD_EPEER)
        fputs("nobody listens there\n  the node has ended; start it again\n", stderr);
    else
        fputs("connecting failed\n", stderr);
    finish(p, EXIT_FAILED);
}

/* ---- one round ------------------------------------------------------------------------------ */

static void flush(struct pdctl *p)
{
    while (p->out.n > 0) {
        size_t sent = 0;
        pd_status status = pd_stream_write(p->stream, p->out.p, p->out.n, &sent);
        if (status == PD_EAGAIN)
            return;
        if (status != PD_OK) {
            fputs("pdctl: the node closed the connection\n", stderr);
            finish(p, EXIT_FAILED);
            return;
        }
        pd_buf_consume(&p->out, sent);
    }
}

static void ask(struct pdctl *p)
{
    p->is_waiting = true;
    pd_buf_clear(&p->in);
    pd_buf_append_str(&p->out, pd_buf_str(&p->line));
    pd_timer_start(&p->timer, ANSWER_NS);
    flush(p);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pdctl *p = arg;
    (void)timer;
    if (!p->is_waiting) {
        ask(p);
        return;
    }
    fprintf(stderr, "pdctl: the node at %s did not answer within 15 s\n"
                    "  it is overloaded or hangs; its log tells more\n", p->path);
    finish(p, EXIT_FAILED);
}

static void print(struct pdctl *p, struct pd_str body)
{
    if (p->every > 0 && isatty(STDOUT_FILENO))
        fputs("\033[H\033[2J", stdout);
    else if (p->has_printed && !p->is_json)
        putchar('\n');
    fwrite(body.p, 1, body.n, stdout);
    p->has_printed = true;
    p->is_waiting = false;
    if (fflush(stdout) != 0) {
        fprintf(stderr, "pdctl: cannot write: %s\n", strerror(errno));
        finish(p, EXIT_FAILED);
    } else if (p->every == 0) {
        finish(p, EXIT_OK);
    } else {
        pd_timer_start(&p->timer, p->every);
    }
}

/* Reads what has come: an error line, or the head and as much body as it says. */
static void take(struct pdctl *p)
{
    struct pd_str all = pd_buf_str(&p->in), head;
    uint64_t n;
    size_t end = pd_str_find_char(all, '\n');
    if (end == PD_STR_NPOS)
        return;
    head = pd_str_sub(all, 0, end);
    if (pd_str_starts_with(head, PD_STR("error "))) {
        fprintf(stderr, "pdctl: %.*s\n", PD_STR_ARG(pd_str_sub(head, 6, head.n)));
        finish(p, EXIT_FAILED);
    } else if (!pd_str_starts_with(head, PD_STR("ok ")) ||
               pd_str_parse_u64(pd_str_sub(head, 3, head.n), &n) != PD_OK || n > ANSWER_MAX) {
        fprintf(stderr, "pdctl: what listens at %s is no control socket of pdplane\n", p->path);
        finish(p, EXIT_FAILED);
    } else if (all.n - end - 1 >= n) {
        print(p, pd_str_sub(all, end + 1, (size_t)n));
    }
}

static void on_readable(struct pd_stream *s, void *arg)
{
    struct pdctl *p = arg;
    size_t got = 0;
    if (pd_buf_reserve(&p->in, 65536) != PD_OK) {
        fputs("pdctl: the answer is too long\n", stderr);
        finish(p, EXIT_FAILED);
        return;
    }
    pd_status status = pd_stream_read(s, pd_buf_tail(&p->in), 65536, &got);
    if (status == PD_EAGAIN)
        return;
    if (status != PD_OK) {
        fputs("pdctl: the node closed the connection before its answer was complete\n", stderr);
        finish(p, EXIT_FAILED);
        return;
    }
    pd_buf_commit(&p->in, got);
    if (p->is_waiting)
        take(p);
}

static void on_writable(struct pd_stream *s, void *arg)
{
    (void)s;
    flush(arg);
}

static void on_connected(struct pd_stream *s, pd_status status, void *arg)
{
    (void)s;
    if (status != PD_OK)
        cannot_reach(arg, status);
    else
        ask(arg);
}

static int run(struct pdctl *p)
{
    static const struct pd_stream_events events = {
        .name = "control", .on_connected = on_connected, .on_readable = on_readable,
        .on_writable = on_writable, .on_closed = on_closed,
    };
    struct pd_addr addr = { .family = PD_AF_UNIX };
    if (pd_str_copy(pd_str_from(p->path), addr.path, sizeof addr.path) != PD_OK)
        return usage("the path of the socket is too long:", p->path);
    if (pd_loop_uv_create(NULL, &p->loop) != PD_OK) {
        fputs("pdctl: cannot make an event loop\n", stderr);
        return EXIT_FAILED;
    }
    pd_timer_init(&p->timer, p->loop, "answer", on_timer, p);
    pd_timer_start(&p->timer, ANSWER_NS);
    p->is_waiting = true;
    pd_status status = pd_stream_connect(p->loop, &addr, &events, p, &p->stream);
    if (status == PD_OK) {
        pd_loop_run(p->loop);
    } else {
        p->stream = NULL;
        cannot_reach(p, status);
    }
    pd_loop_destroy(p->loop, NULL, 0);
    return p->rc;
}

/* ---- the command line ---------------------------------------------------------------------------- */

/* The words as a line; EXIT_OK, or EXIT_USAGE with a message written. */
static int line_make(struct pdctl *p, int argc, char **argv)
{
    struct pd_err err = { 0 };
    if (argc == 0)
        return usage("a command is missing", NULL);
    uint32_t index = pd_ctl_word_find(pd_str_from(argv[0]), &err);
    if (index == PD_CTL_COMMANDS || !pd_ctl_word_fits(index, (uint32_t)argc - 1, &err))
        return usage(err.text, NULL);
    for (int i = 0; i < argc; i++) {
        if (argv[i][0] == '\0' || strpbrk(argv[i], " \t\r\n") != NULL)
            return usage("an argument must not be empty or have blanks:", argv[i]);
        pd_buf_appendf(&p->line, "%s%s", i > 0 ? " " : "", argv[i]);
    }
    if (p->is_json)
        pd_buf_append_cstr(&p->line, " --json");
    pd_buf_append_char(&p->line, '\n');
    if (p->line.status == PD_ENOMEM)
        return out_of_memory();
    if (p->line.status != PD_OK || p->line.n > PD_CTL_LINE_MAX)
        return usage("the command is too long", NULL);
    return EXIT_OK;
}

/* `help` needs no node. */
static int local_help(int argc, char **argv)
{
    struct pd_err err = { 0 };
    struct pd_buf text;
    if (argc == 1)
        return help(stdout);
    if (strcmp(argv[1], "module") == 0) {
        pdctl_module_help(stdout);
        return EXIT_OK;
    }
    uint32_t index = pd_ctl_word_find(pd_str_from(argv[1]), &err);
    if (index == PD_CTL_COMMANDS)
        return usage(err.text, NULL);
    pd_buf_init(&text, 1u << 16);
    pd_ctl_word_help(index, &text);
    int rc = text.status == PD_OK ? EXIT_OK : out_of_memory();
    if (rc == EXIT_OK)
        fwrite(text.p, 1, text.n, stdout);
    pd_buf_fini(&text);
    return rc;
}

static int every_parse(struct pdctl *p, const char *text)
{
    double seconds;
    if (pd_str_parse_double(pd_str_from(text), &seconds) != PD_OK || seconds < 0.1 || seconds > 86400)
        return usage("-w takes seconds from 0.1 to 86400, not", text);
    p->every = (pd_time)(seconds * 1e9);
    return EXIT_OK;
}

static int options_parse(struct pdctl *p, int argc, char **argv)
{
    static const struct option options[] = {
        { "socket", required_argument, NULL, 's' }, { "watch", required_argument, NULL, 'w' },
        { "json", no_argument, NULL, 'j' },         { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },      { NULL, 0, NULL, 0 },
    };
    int c;
    while ((c = getopt_long(argc, argv, "s:w:jhV", options, NULL)) != -1) {
        switch (c) {
        case 's':
            p->path = optarg;
            break;
        case 'w':
            if (every_parse(p, optarg) != EXIT_OK)
                return EXIT_USAGE;
            break;
        case 'j':
            p->is_json = true;
            break;
        case 'h':
            return help(stdout) == EXIT_OK ? -1 : EXIT_FAILED;
        case 'V':
            puts("pdctl " PACKAGE_VERSION);
            return -1;
        default:
            fputs("try \"pdctl --help\"\n", stderr);
            return EXIT_USAGE;
        }
    }
    return EXIT_OK;
}

/* What was printed may still be refused. */
static int finished(int rc)
{
    if (rc != EXIT_OK || (ferror(stdout) == 0 && fflush(stdout) == 0))
        return rc;
    fprintf(stderr, "pdctl: cannot write: %s\n", strerror(errno));
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    struct pdctl p = { .rc = EXIT_FAILED };
    const char *path = getenv("PDPLANE_CONTROL");
    p.path = path != NULL && path[0] != '\0' ? path : PD_RUNDIR "/pdplane.sock";
    pd_signal_ignore(SIGPIPE);
    if (argc > 1 && strcmp(argv[1], "module") == 0)
        return finished(pdctl_module(argc - 1, argv + 1));
    int rc = options_parse(&p, argc, argv);
    if (rc != EXIT_OK)
        return rc < 0 ? finished(EXIT_OK) : rc;
    argc -= optind;
    argv += optind;
    pd_buf_init(&p.line, 4096);
    pd_buf_init(&p.out, 4096);
    pd_buf_init(&p.in, ANSWER_MAX + (1u << 17));
    rc = line_make(&p, argc, argv);
    if (rc == EXIT_OK && strcmp(argv[0], "help") == 0 && !p.is_json)
        rc = local_help(argc, argv);
    else if (rc == EXIT_OK)
        rc = run(&p);
    pd_buf_fini(&p.line);
    pd_buf_fini(&p.out);
    pd_buf_fini(&p.in);
    return finished(rc);
}
