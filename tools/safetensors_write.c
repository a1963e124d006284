/* safetensors_write.c: writes a safetensors file in one piece. */
#include "safetensors.h"

#include "output.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8 };

_Static_assert((int)OUTPUT_ERROR <= (int)SAFETENSORS_ERROR, "the sentences of output.c fit");

/* The header's text with its length in front, padded so that the data begins at a multiple of 8;
 * NULL: out of memory. */
static char *build_header(const struct safetensors_tensor *tensors, size_t count,
                          const struct safetensors_note *notes, size_t note_count, size_t *size)
{
    json_t *header = json_object(), *metadata = json_object();
    for (size_t i = 0; i < note_count; i++)
        json_object_set_new(metadata, notes[i].key, json_string(notes[i].value));
    if (note_count) json_object_set(header, "__metadata__", metadata);
    json_decref(metadata);
    uint64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        json_t *shape = json_array();
        for (int axis = 0; axis < tensors[i].rank; axis++)
            json_array_append_new(shape, json_integer(tensors[i].size[axis]));
        json_object_set_new(header, tensors[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype",
                                      safetensors_dtype_name(tensors[i].dtype), "shape", shape,
                                      "data_offsets", (json_int_t)offset,
                                      (json_int_t)offset + (json_int_t)tensors[i].bytes));
        offset += tensors[i].bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT), *out = NULL;
    json_decref(header);
    if (!text) return NULL;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    if ((out = malloc(LENGTH_BYTES + padded))) {
        for (int i = 0; i < LENGTH_BYTES; i++) out[i] = (char)(padded >> 8 * i & 255);
        /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): padded, not terminated */
        memcpy(out + LENGTH_BYTES, text, length);
        memset(out + LENGTH_BYTES + length, ' ', padded - length);
        *size = LENGTH_BYTES + padded;
    }
    free(text);
    return out;
}

int safetensors_write(const char *path, const struct safetensors_tensor *tensors, size_t count,
                      const struct safetensors_note *notes, size_t note_count, char *error)
{
    if (!SAFETENSORS_AS_MEMORY) {
        snprintf(error, SAFETENSORS_ERROR, "%s: %s", path, SAFETENSORS_OTHER_ORDER);
        return -1;
    }
    size_t header_size = 0;
    char *header = build_header(tensors, count, notes, note_count, &header_size);
    if (!header) {
        snprintf(error, SAFETENSORS_ERROR, "%s: out of memory", path);
        return -1;
    }
    struct output out;
    int failed = output_begin(&out, path, error);
    if (!failed) {
        output_write(&out, header, header_size);
        for (size_t i = 0; i < count; i++) output_write(&out, tensors[i].data, tensors[i].bytes);
        failed = output_end(&out, error);
    }
    free(header);
    return failed;
}
