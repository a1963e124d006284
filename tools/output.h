/* output.h: a file that appears under its name only when it is complete. */
#ifndef RAPT_TOOLS_OUTPUT_H
#define RAPT_TOOLS_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

enum { OUTPUT_ERROR = 512 };

struct output {
    char *target, *temporary; /* owned; the temporary lies beside the target */
    int file;                 /* descriptor of the temporary */
    int failed;               /* errno of the first failed write; 0: none */
};

/* Creates the temporary. A symbolic link is followed; a target that exists and is no regular file,
 * or may not be written, is refused. 0, or -1 with a sentence in error (OUTPUT_ERROR bytes) and
 * nothing left behind. */
int output_begin(struct output *out, const char *path, char *error);
/* Keeps the first failure for output_end. */
void output_write(struct output *out, const void *data, size_t bytes);
/* Renames the temporary to the target, or on an earlier failure removes it: 0, or -1 with a
 * sentence. Frees *out. */
int output_end(struct output *out, char *error);
/* Removes the temporary; the target stays as it was. Frees *out. */
void output_abandon(struct output *out);

/* Before any work is done: 0 if a file could be put at path now and path is not the file of this
 * device and inode, which is read; else -1 with a sentence. */
int output_check(const char *path, uint64_t input_device, uint64_t input_inode, char *error);

#endif
