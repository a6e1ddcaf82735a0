/* SPDX-License-Identifier: Apache-2.0 */
/* Process-wide parts of libllama.  Structs are passed to it by value and the name
 * of its shared object does not tell when they change, so only the very version
 * that the module was compiled for is used. */
#include "lib.h"

#include <ggml-backend.h>
#include <llama.h>

#include <pdplane/log.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of each thread: the library's messages have no owner. */
static _Thread_local struct {
    struct pd_log *log;
    enum ggml_log_level level;
    char line[LL_ERROR_TEXT];
    size_t n;
    char first[LL_ERROR_TEXT];      /* error since ll_lib_messages */
} sink;

pd_status ll_err(struct pd_err *err, pd_status s, const char *file, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return s;
    err->status = s;
    snprintf(err->file, sizeof(err->file), "%s", file != NULL ? file : "");
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return s;
}

pd_status ll_err_lib(struct pd_err *err, pd_status s, const char *file, const char *what)
{
    if (sink.first[0] == '\0')
        return ll_err(err, s, file, "%s", what);
    return ll_err(err, s, file, "%s: %s", what, sink.first);
}

static void end_line(void)
{
    sink.line[sink.n] = '\0';
    if (sink.n > 0 && sink.level == GGML_LOG_LEVEL_ERROR && sink.first[0] == '\0')
        memcpy(sink.first, sink.line, sink.n + 1);
    if (sink.n > 0)
        pd_log_debug(sink.log, "libllama: %s", sink.line);
    sink.n = 0;
}

/* Lines may come in parts. */
static void on_message(enum ggml_log_level level, const char *text, void *arg)
{
    (void)arg;
    if (sink.log == NULL && level != GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT)
        return;
    if (level != GGML_LOG_LEVEL_CONT) {
        end_line();
        sink.level = level;
    }
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            end_line();
        else if (sink.n < sizeof(sink.line) - 1)
            sink.line[sink.n++] = *text;
    }
}

const char *ll_lib_error(void)
{
    return sink.first;
}

void ll_lib_messages(struct pd_log *log)
{
    sink.log = log;
    sink.first[0] = '\0';
    sink.n = 0;
}

pd_status ll_lib_load(struct pd_err *err)
{
    if (strcmp(llama_version(), LL_VERSION) != 0) {
        snprintf(err->hint, sizeof(err->hint), "compile pdplane again where libllama %s is", llama_version());
        return ll_err(err, PD_EINVAL, NULL, "libllama is version %s, but the module was compiled for %s",
                      llama_version(), LL_VERSION);
    }
    /* a fault in the library would start a debugger otherwise */
    setenv("GGML_NO_BACKTRACE", "1", 0);
    llama_log_set(on_message, NULL);
    return PD_OK;
}

static void find_backends(const char *folder)
{
    llama_backend_init();
    if (folder[0] != '\0')
        ggml_backend_load_all_from_path(folder);
    else if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == NULL)
        ggml_backend_load_all();
}

void ll_lib_backends(const char *folder)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool is_done;

    pthread_mutex_lock(&lock);
    if (!is_done)
        find_backends(folder);
    is_done = true;
    pthread_mutex_unlock(&lock);
}
