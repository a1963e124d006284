/* output.c: writes to a temporary file beside the target and renames it, so that no failure loses
 * what was there, and no signal that can be caught leaves the temporary. */
#include "output.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, OUTPUT_ERROR, format, arguments);
    va_end(arguments);
    return -1;
}

/* The temporary that a signal removes; memory that is never freed, since a signal may come at any
 * time. */
static char unfinished[PATH_MAX];
static volatile sig_atomic_t is_unfinished;

static void remove_unfinished(int number)
{
    if (is_unfinished) unlink(unfinished);
    raise(number); /* the default again: SA_RESETHAND */
}

static void guard(const char *temporary)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXFSZ, SIGXCPU};
    struct sigaction now,
        action = {.sa_handler = remove_unfinished, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
    size_t bytes = strlen(temporary) + 1;
    if (bytes > sizeof unfinished) return;
    memcpy(unfinished, temporary, bytes);
    is_unfinished = 1;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (!sigaction(signals[i], NULL, &now) && now.sa_handler == SIG_DFL)
            sigaction(signals[i], &action, NULL);
}

/* The mode of the file that is replaced, else what the umask allows. */
static mode_t target_mode(const char *target)
{
    struct stat status;
    if (!stat(target, &status)) return status.st_mode & 07777;
    mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

int output_begin(struct output *out, const char *path, char *error)
{
    memset(out, 0, sizeof *out);
    out->file = -1;
    struct stat status;
    if (!stat(path, &status) && !S_ISREG(status.st_mode))
        return refuse(error, "%s: exists and is no regular file", path);
    if (!access(path, F_OK) && access(path, W_OK))
        return refuse(error, "%s: exists and may not be written: %s", path, strerror(errno));
    out->target = realpath(path, NULL);
    if (!out->target) out->target = strdup(path);
    if (!out->target || asprintf(&out->temporary, "%s.XXXXXX", out->target) < 0) {
        out->temporary = NULL;
        output_abandon(out);
        return refuse(error, "%s: out of memory", path);
    }
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): output_abandon and output_end free */
    out->file = mkstemp(out->temporary);
    if (out->file >= 0) {
        guard(out->temporary);
        if (fchmod(out->file, target_mode(out->target))) out->failed = errno;
        return 0;
    }
    refuse(error, "%s: a file beside it cannot be created: %s", path, strerror(errno));
    free(out->temporary);
    out->temporary = NULL;
    output_abandon(out);
    return -1;
}

void output_write(struct output *out, const void *data, size_t bytes)
{
    const char *from = data;
    while (bytes && !out->failed) {
        ssize_t written = write(out->file, from, bytes < SSIZE_MAX ? bytes : SSIZE_MAX);
        if (written < 0) {
            if (errno != EINTR) out->failed = errno;
            continue;
        }
        from += written;
        bytes -= (size_t)written;
    }
}

int output_end(struct output *out, char *error)
{
    if (!out->failed && fsync(out->file)) out->failed = errno;
    if (close(out->file) && !out->failed) out->failed = errno;
    out->file = -1;
    if (!out->failed && rename(out->temporary, out->target)) out->failed = errno;
    if (out->failed) {
        refuse(error, "%s: cannot be written: %s", out->target, strerror(out->failed));
        output_abandon(out);
        return -1;
    }
    is_unfinished = 0;
    free(out->temporary);
    out->temporary = NULL;
    output_abandon(out);
    return 0;
}

void output_abandon(struct output *out)
{
    if (out->file >= 0) close(out->file);
    if (out->temporary) unlink(out->temporary);
    is_unfinished = 0;
    free(out->temporary);
    free(out->target);
    memset(out, 0, sizeof *out);
    out->file = -1;
}

int output_check(const char *path, uint64_t input_device, uint64_t input_inode, char *error)
{
    struct stat status;
    if (!*path) return refuse(error, "\"\": the name is empty");
    if (!strcmp(path, "-"))
        return refuse(error, "-: results do not go to the standard output (give a file's name; ./- "
                             "is a file of this name)");
    if (!stat(path, &status) && status.st_dev == input_device && status.st_ino == input_inode)
        return refuse(error, "%s: is the input itself (the output must be another file)", path);
    struct output probe;
    if (output_begin(&probe, path, error)) return -1;
    output_abandon(&probe);
    return 0;
}
