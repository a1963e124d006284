/* safetensors.h: strict reader and safe writer of the safetensors format (8 bytes little-endian
 * header length, a JSON header, tensor bytes), as described in the README of the
 * huggingface/safetensors project. */
#ifndef RAPT_TOOLS_SAFETENSORS_H
#define RAPT_TOOLS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_RANK = 8, SAFETENSORS_NAME = 256, SAFETENSORS_ERROR = 512 };

/* Values are used where they lie: in files with the low byte first, in memory as the machine has it. */
#define SAFETENSORS_AS_MEMORY   (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#define SAFETENSORS_OTHER_ORDER "values have the low byte first, on this machine the high byte"

#define SAFETENSORS_DTYPES(X) /* name, bytes of an element */                                      \
    X(BOOL, 1)                                                                                     \
    X(U8, 1)                                                                                       \
    X(I8, 1)                                                                                       \
    X(F8_E5M2, 1)                                                                                  \
    X(F8_E4M3, 1)                                                                                  \
    X(I16, 2)                                                                                      \
    X(U16, 2)                                                                                      \
    X(F16, 2)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(I32, 4)                                                                                      \
    X(U32, 4)                                                                                      \
    X(F32, 4)                                                                                      \
    X(I64, 8)                                                                                      \
    X(U64, 8)                                                                                      \
    X(F64, 8)

enum safetensors_dtype {
#define ROW(name, bytes) SAFETENSORS_##name,
    SAFETENSORS_DTYPES(ROW)
#undef ROW
        SAFETENSORS_DTYPE_COUNT
};

struct safetensors_tensor {
    char name[SAFETENSORS_NAME];
    enum safetensors_dtype dtype;
    int rank;
    int64_t size[SAFETENSORS_RANK];
    const void *data; /* within the file's bytes; of any alignment; NULL only in a tensor to write
                         of 0 bytes */
    uint64_t bytes;   /* product of size times the element's bytes */
};

struct safetensors_note { /* an entry of __metadata__ */
    char *key, *value;
};

struct safetensors {
    struct safetensors_tensor *tensors; /* in the order of their data */
    size_t count;
    struct safetensors_note *notes;
    size_t note_count;
    void *map; /* the mapped file; NULL when opened from memory */
    size_t map_bytes;
    uint64_t file_device, file_inode; /* identity of the mapped file */
};

/* Maps the file and checks the whole of its header: 0 and *out is the caller's, to be closed; or
 * -1, *out is all zero and error (SAFETENSORS_ERROR bytes) holds a sentence. Tensor data is not
 * read. */
int safetensors_open(const char *path, struct safetensors *out, char *error);
/* The same for bytes in memory, which must outlive *out. */
int safetensors_open_memory(const void *data, size_t size, struct safetensors *out, char *error);
void safetensors_close(struct safetensors *file);

/* NULL: there is none of this name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_note(const struct safetensors *file, const char *key);
const char *safetensors_dtype_name(enum safetensors_dtype dtype);
size_t safetensors_dtype_size(enum safetensors_dtype dtype);

/* Writes the tensors in their order to a new file that takes path's place only when it is complete.
 * 0 or -1 with a sentence; after a failure path is as it was. */
int safetensors_write(const char *path, const struct safetensors_tensor *tensors, size_t count,
                      const struct safetensors_note *notes, size_t note_count, char *error);

#endif
