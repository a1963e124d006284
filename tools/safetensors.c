/* safetensors.c: reads safetensors files without trusting a byte of them. */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The format allows 100 MB; parsed JSON takes some 20 times its text, and attention needs 13
 * tensors, so that a longer header is an attack on memory. */
enum { LENGTH_BYTES = 8, HEADER_LIMIT = 16 << 20 };

static const char *const dtype_names[] = {
#define ROW(name, bytes) #name,
    SAFETENSORS_DTYPES(ROW)
#undef ROW
};

static const unsigned char dtype_bytes[] = {
#define ROW(name, bytes) bytes,
    SAFETENSORS_DTYPES(ROW)
#undef ROW
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtype_names[dtype];
}

size_t safetensors_dtype_size(enum safetensors_dtype dtype)
{
    return dtype_bytes[dtype];
}

static int refuse(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, SAFETENSORS_ERROR, format, arguments);
    va_end(arguments);
    return -1;
}

static int find_dtype(const char *name)
{
    for (int i = 0; i < SAFETENSORS_DTYPE_COUNT; i++)
        if (!strcmp(name, dtype_names[i])) return i;
    return -1;
}

static int read_shape(struct safetensors_tensor *t, const json_t *shape, char *error)
{
    if (!json_is_array(shape))
        return refuse(error, "tensor \"%s\": has no shape (an array of sizes)", t->name);
    size_t rank = json_array_size(shape);
    if (rank > SAFETENSORS_RANK)
        return refuse(error, "tensor \"%s\": has %zu axes (at most %d)", t->name, rank,
                      SAFETENSORS_RANK);
    t->rank = (int)rank;
    t->bytes = dtype_bytes[t->dtype];
    int empty = 0;
    for (size_t i = 0; i < rank; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return refuse(error,
                          "tensor \"%s\": size %zu of its shape is no whole number of 0 or more",
                          t->name, i);
        t->size[i] = json_integer_value(size);
        empty |= t->size[i] == 0;
    }
    for (size_t i = 0; i < rank && !empty; i++)
        if (__builtin_mul_overflow(t->bytes, (uint64_t)t->size[i], &t->bytes))
            return refuse(error, "tensor \"%s\": its shape counts more bytes than 64 bits can",
                          t->name);
    if (empty) t->bytes = 0;
    return 0;
}

/* data: the first byte after the header, of which there are data_bytes. */
static int read_offsets(struct safetensors_tensor *t, const json_t *offsets, const char *data,
                        uint64_t data_bytes, char *error)
{
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return refuse(error, "tensor \"%s\": data_offsets are not two whole numbers", t->name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return refuse(error,
                      "tensor \"%s\": data_offsets %" JSON_INTEGER_FORMAT
                      " ... %" JSON_INTEGER_FORMAT " lie outside of the file's %" PRIu64
                      " data bytes",
                      t->name, begin, end, data_bytes);
    if ((uint64_t)(end - begin) != t->bytes)
        return refuse(error,
                      "tensor \"%s\": data_offsets span %" JSON_INTEGER_FORMAT
                      " bytes, its shape and dtype need %" PRIu64,
                      t->name, end - begin, t->bytes);
    t->data = data + begin;
    return 0;
}

/* Names end up in messages, so control characters have no place in them. */
static int read_name(struct safetensors_tensor *t, const char *name, char *error)
{
    size_t length = strlen(name);
    if (length >= sizeof t->name)
        return refuse(error, "a tensor's name has %zu bytes (at most %zu)", length,
                      sizeof t->name - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 127)
            return refuse(error, "a tensor's name holds a control character (byte %d)",
                          (unsigned char)name[i]);
    memcpy(t->name, name, length + 1);
    return 0;
}

static int read_tensor(struct safetensors_tensor *t, const char *name, const json_t *entry,
                       const char *data, uint64_t data_bytes, char *error)
{
    if (read_name(t, name, error)) return -1;
    if (!json_is_object(entry))
        return refuse(error, "tensor \"%s\": its header entry is no object", name);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)entry, key, value) if (
        strcmp(key, "dtype") && strcmp(key, "shape") &&
        strcmp(key, "data_offsets")) return refuse(error,
                                                   "tensor \"%s\": its header entry has an unknown "
                                                   "member (dtype, shape and data_offsets alone)",
                                                   name);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    int found = dtype ? find_dtype(dtype) : -1;
    if (found < 0)
        return refuse(error,
                      "tensor \"%s\": its dtype is missing or unknown (F32, F16, BF16, I64, ...)",
                      name);
    t->dtype = (enum safetensors_dtype)found;
    if (read_shape(t, json_object_get(entry, "shape"), error)) return -1;
    return read_offsets(t, json_object_get(entry, "data_offsets"), data, data_bytes, error);
}

static int read_notes(struct safetensors *file, const json_t *metadata, char *error)
{
    if (!json_is_object(metadata)) return refuse(error, "__metadata__ is no object");
    file->notes = calloc(json_object_size(metadata) + 1, sizeof *file->notes);
    if (!file->notes) return refuse(error, "out of memory");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return refuse(error, "__metadata__ holds a value that is no string");
        struct safetensors_note *note = &file->notes[file->note_count++];
        note->key = strdup(key);
        note->value = strdup(json_string_value(value));
        if (!note->key || !note->value) return refuse(error, "out of memory");
    }
    return 0;
}

static int by_offset(const void *left, const void *right)
{
    const struct safetensors_tensor *a = left, *b = right;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* The format wants every data byte to belong to exactly one tensor. */
static int check_coverage(const struct safetensors *file, const char *data, uint64_t data_bytes,
                          char *error)
{
    const char *end = data;
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[i];
        if ((const char *)t->data < end)
            return refuse(error, "tensor \"%s\": its data overlaps that of another tensor",
                          t->name);
        if ((const char *)t->data > end)
            return refuse(error, "tensor \"%s\": unused bytes lie before its data", t->name);
        end = (const char *)t->data + t->bytes;
    }
    if ((uint64_t)(end - data) != data_bytes)
        return refuse(error, "%" PRIu64 " bytes follow the last tensor",
                      data_bytes - (uint64_t)(end - data));
    return 0;
}

static int read_header(struct safetensors *file, const json_t *header, const char *data,
                       uint64_t data_bytes, char *error)
{
    if (!json_is_object(header)) return refuse(error, "the header is no JSON object");
    file->tensors = calloc(json_object_size(header) + 1, sizeof *file->tensors);
    if (!file->tensors) return refuse(error, "out of memory");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)header, key, value)
    {
        int failed = strcmp(key, "__metadata__") ? read_tensor(&file->tensors[file->count++], key,
                                                               value, data, data_bytes, error)
                                                 : read_notes(file, value, error);
        if (failed) return -1;
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
    return check_coverage(file, data, data_bytes, error);
}

static int parse(struct safetensors *file, const unsigned char *bytes, size_t size, char *error)
{
    if (!SAFETENSORS_AS_MEMORY) return refuse(error, SAFETENSORS_OTHER_ORDER);
    if (size < LENGTH_BYTES)
        return refuse(
            error,
            "%zu bytes are too few (a safetensors file begins with 8 bytes of header length)",
            size);
    uint64_t length = 0;
    for (int i = LENGTH_BYTES; i-- > 0;) length = length << 8 | bytes[i];
    if (length > size - LENGTH_BYTES)
        return refuse(error,
                      "the header should have %" PRIu64
                      " bytes but the file ends %zu bytes after its start "
                      "(truncated, or no safetensors file)",
                      length, size - LENGTH_BYTES);
    if (length > HEADER_LIMIT)
        return refuse(error, "the header has %" PRIu64 " bytes (at most %d)", length, HEADER_LIMIT);
    const char *text = (const char *)bytes + LENGTH_BYTES;
    if (!length || *text != '{') return refuse(error, "the header does not begin with '{'");
    json_error_t where;
    json_t *header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (!header)
        return refuse(error, "the header is no valid JSON, at byte %d: %.160s", where.position,
                      where.text);
    int status = read_header(file, header, text + length, size - LENGTH_BYTES - length, error);
    json_decref(header);
    return status;
}

int safetensors_open_memory(const void *data, size_t size, struct safetensors *out, char *error)
{
    memset(out, 0, sizeof *out);
    *error = 0;
    if (!parse(out, data, size, error)) return 0;
    safetensors_close(out);
    return -1;
}

int safetensors_open(const char *path, struct safetensors *out, char *error)
{
    memset(out, 0, sizeof *out);
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 || fstat(file, &status)) {
        refuse(error, "cannot be opened: %s", strerror(errno));
        if (file >= 0) close(file);
        return -1;
    }
    void *map = MAP_FAILED;
    if (!S_ISREG(status.st_mode)) refuse(error, "is no regular file");
    else if (status.st_size < LENGTH_BYTES)
        refuse(error,
               "%lld bytes are too few (a safetensors file begins with 8 bytes of header length)",
               (long long)status.st_size);
    else if ((map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0)) ==
             MAP_FAILED)
        refuse(error, "cannot be mapped: %s", strerror(errno));
    close(file);
    if (map == MAP_FAILED) return -1;
    int failed = safetensors_open_memory(map, (size_t)status.st_size, out, error);
    if (failed) {
        munmap(map, (size_t)status.st_size);
        return failed;
    }
    out->map = map;
    out->map_bytes = (size_t)status.st_size;
    out->file_device = status.st_dev;
    out->file_inode = status.st_ino;
    return 0;
}

void safetensors_close(struct safetensors *file)
{
    for (size_t i = 0; i < file->note_count; i++) {
        free(file->notes[i].key);
        free(file->notes[i].value);
    }
    free(file->notes);
    free(file->tensors);
    if (file->map) munmap(file->map, file->map_bytes);
    memset(file, 0, sizeof *file);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i];
    return NULL;
}

const char *safetensors_note(const struct safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->note_count; i++)
        if (!strcmp(file->notes[i].key, key)) return file->notes[i].value;
    return NULL;
}
