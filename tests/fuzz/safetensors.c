/* safetensors.c: fuzz target: any bytes as a safetensors file. What the reader accepts must lie
 * within the bytes. */
#include "safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors file;
    char error[SAFETENSORS_ERROR] = "";
    if (safetensors_open_memory(data, size, &file, error)) {
        if (!*error || !memchr(error, 0, sizeof error)) abort();
        return 0;
    }
    volatile unsigned sum = 0;
    for (size_t i = 0; i < file.count; i++) {
        const struct safetensors_tensor *t = &file.tensors[i];
        uint64_t bytes = safetensors_dtype_size(t->dtype);
        if (t->rank < 0 || t->rank > SAFETENSORS_RANK || !memchr(t->name, 0, sizeof t->name))
            abort();
        for (int axis = 0; axis < t->rank; axis++) bytes *= (uint64_t)t->size[axis];
        if (bytes != t->bytes) abort();
        if (bytes &&
            ((const uint8_t *)t->data < data || (const uint8_t *)t->data + bytes > data + size))
            abort();
        for (uint64_t n = 0; n < bytes; n++) sum += ((const uint8_t *)t->data)[n];
        if (safetensors_find(&file, t->name) == NULL) abort();
    }
    for (size_t i = 0; i < file.note_count; i++)
        if (!safetensors_note(&file, file.notes[i].key)) abort();
    safetensors_close(&file);
    return 0;
}
