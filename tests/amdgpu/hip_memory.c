/* Emulated HIP runtime: memory. Device memory is host memory, filled with garbage, registered with
 * the emulator. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hip.h"

enum {
    GUARD = 4096,        /* unregistered bytes after each allocation */
    FILL_LIMIT = 1 << 26 /* larger allocations are mapped untouched, so that sparse use of terabytes
                            stays cheap */
};

struct block {
    struct block *next;
    void *data;
    size_t size;
    int device;
    bool host;
};
static struct block *blocks;

HIP_API hip_error hipMalloc(void **, size_t);
HIP_API hip_error hipMallocAsync(void **, size_t, void *);
HIP_API hip_error hipFree(void *);
HIP_API hip_error hipFreeAsync(void *, void *);
HIP_API hip_error hipHostMalloc(void **, size_t, unsigned);
HIP_API hip_error hipHostFree(void *);
HIP_API hip_error hipMemGetInfo(size_t *, size_t *);
HIP_API hip_error hipMemcpy(void *, const void *, size_t, int);
HIP_API hip_error hipMemcpyAsync(void *, const void *, size_t, int, void *);
HIP_API hip_error hipMemcpyWithStream(void *, const void *, size_t, int, void *);
HIP_API hip_error hipMemcpyHtoD(void *, const void *, size_t);
HIP_API hip_error hipMemcpyDtoH(void *, const void *, size_t);
HIP_API hip_error hipMemcpyDtoD(void *, const void *, size_t);
HIP_API hip_error hipMemcpyHtoDAsync(void *, const void *, size_t, void *);
HIP_API hip_error hipMemcpyDtoHAsync(void *, const void *, size_t, void *);
HIP_API hip_error hipMemcpyDtoDAsync(void *, const void *, size_t, void *);
HIP_API hip_error hipMemset(void *, int, size_t);
HIP_API hip_error hipMemsetAsync(void *, int, size_t, void *);
HIP_API hip_error hipMemsetD8(void *, unsigned char, size_t);
HIP_API hip_error hipMemsetD8Async(void *, unsigned char, size_t, void *);
HIP_API hip_error hipMemsetD32(void *, int, size_t);
HIP_API hip_error hipMemsetD32Async(void *, int, size_t, void *);
HIP_API hip_error hipPointerGetAttributes(void *, const void *);

static void *get_memory(size_t size)
{
    size_t room = (size + GUARD + 255) / 256 * 256;
    if (size <= FILL_LIMIT) {
        void *p = aligned_alloc(256, room);
        if (p) memset(p, 0xdb, size);
        return p;
    }
    void *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void put_memory(void *p, size_t size)
{
    if (p && size <= FILL_LIMIT) {
        memset(p, 0xdd, size); /* use after free shows */
        free(p);
    } else if (p) {
        munmap(p, (size + GUARD + 255) / 256 * 256);
    }
}

static hip_error allocate(void **out, size_t size, bool host)
{
    struct hip_state *s = hip_state();
    if (!s) return hip_note(hipErrorNoDevice);
    if (!out) return hip_note(hipErrorInvalidValue);
    *out = NULL;
    if (!size) return hipSuccess;
    if (__atomic_load_n(&s->captures, __ATOMIC_SEQ_CST))
        return hip_note(hipErrorStreamCaptureUnsupported);
    struct hip_device *d = &s->devices[hip_current_device()];
    struct block *b = calloc(1, sizeof *b);
    hip_error e = hipErrorOutOfMemory;
    pthread_mutex_lock(&s->lock);
    if (b && size <= d->total - d->used && (b->data = get_memory(size))) {
        if (amdgpu_memory_add(s->memory, b->data, size,
                              host ? "pinned host memory" : "device memory")) {
            b->size = size;
            b->device = hip_current_device();
            b->host = host;
            b->next = blocks;
            blocks = b;
            if (!host) d->used += size;
            *out = b->data;
            e = hipSuccess;
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (e) {
        if (b) put_memory(b->data, size);
        free(b);
    }
    return hip_note(e);
}

static hip_error release(void *data, bool host)
{
    struct hip_state *s = hip_state();
    if (!s) return hip_note(hipErrorNoDevice);
    if (!data) return hipSuccess;
    if (__atomic_load_n(&s->captures, __ATOMIC_SEQ_CST))
        return hip_note(hipErrorStreamCaptureUnsupported);
    struct block *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (struct block **p = &blocks; *p; p = &(*p)->next)
        if ((*p)->data == data && (*p)->host == host) {
            found = *p;
            *p = found->next;
            break;
        }
    if (found) {
        amdgpu_memory_remove(s->memory, data);
        if (!host) s->devices[found->device].used -= found->size;
    }
    pthread_mutex_unlock(&s->lock);
    if (!found) return hip_note(hipErrorInvalidValue);
    put_memory(found->data, found->size);
    free(found);
    return hipSuccess;
}

/* The registered block that holds all of [p, p + bytes), or NULL: plain host memory. */
static const struct block *block_of(const void *p, size_t bytes)
{
    struct hip_state *s = hip_state();
    const struct block *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (const struct block *b = blocks; b && !found; b = b->next)
        if ((const char *)p >= (const char *)b->data &&
            (const char *)p + bytes <= (const char *)b->data + b->size)
            found = b;
    pthread_mutex_unlock(&s->lock);
    return found;
}

hip_error hipMalloc(void **out, size_t size)
{
    return allocate(out, size, false);
}

hip_error hipMallocAsync(void **out, size_t size, void *stream)
{
    return hip_is_stream(stream) ? allocate(out, size, false) : hip_note(hipErrorInvalidHandle);
}

hip_error hipFree(void *data)
{
    return release(data, false);
}

hip_error hipFreeAsync(void *data, void *stream)
{
    return hip_is_stream(stream) ? release(data, false) : hip_note(hipErrorInvalidHandle);
}

hip_error hipHostMalloc(void **out, size_t size, unsigned flags)
{
    (void)flags;
    return allocate(out, size, true);
}

hip_error hipHostFree(void *data)
{
    return release(data, true);
}

hip_error hipMemGetInfo(size_t *available, size_t *total)
{
    struct hip_state *s = hip_state();
    if (!s) return hip_note(hipErrorNoDevice);
    const struct hip_device *d = &s->devices[hip_current_device()];
    if (available) *available = d->total - d->used;
    if (total) *total = d->total;
    return hipSuccess;
}

enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS };

static hip_error copy(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    if (!hip_state()) return hip_note(hipErrorNoDevice);
    if (!hip_is_stream(stream)) return hip_note(hipErrorInvalidHandle);
    if (!bytes) return hipSuccess;
    if (!to || !from || kind < HOST_TO_HOST || kind > BY_ADDRESS)
        return hip_note(hipErrorInvalidValue);
    bool to_device = kind == HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE;
    bool from_device = kind == DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE;
    if ((to_device && !block_of(to, bytes)) || (from_device && !block_of(from, bytes)))
        return hip_note(hipErrorInvalidDevicePointer);
    /* a range that starts in device memory must end in it */
    if ((block_of(to, 1) && !block_of(to, bytes)) || (block_of(from, 1) && !block_of(from, bytes)))
        return hip_note(hipErrorInvalidValue);
    return hip_note(hip_submit(
        stream, &(struct work){.kind = WORK_COPY, .to = to, .from = from, .bytes = bytes}));
}

static hip_error copy_now(void *to, const void *from, size_t bytes, int kind)
{
    struct hip_state *s = hip_state();
    if (s && __atomic_load_n(&s->captures, __ATOMIC_SEQ_CST))
        return hip_note(hipErrorStreamCaptureUnsupported);
    return copy(to, from, bytes, kind, NULL);
}

hip_error hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    return copy_now(to, from, bytes, kind);
}

hip_error hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    return copy(to, from, bytes, kind, stream);
}

hip_error hipMemcpyWithStream(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    return copy(to, from, bytes, kind, stream);
}

hip_error hipMemcpyHtoD(void *to, const void *from, size_t bytes)
{
    return copy_now(to, from, bytes, HOST_TO_DEVICE);
}

hip_error hipMemcpyDtoH(void *to, const void *from, size_t bytes)
{
    return copy_now(to, from, bytes, DEVICE_TO_HOST);
}

hip_error hipMemcpyDtoD(void *to, const void *from, size_t bytes)
{
    return copy_now(to, from, bytes, DEVICE_TO_DEVICE);
}

hip_error hipMemcpyHtoDAsync(void *to, const void *from, size_t bytes, void *stream)
{
    return copy(to, from, bytes, HOST_TO_DEVICE, stream);
}

hip_error hipMemcpyDtoHAsync(void *to, const void *from, size_t bytes, void *stream)
{
    return copy(to, from, bytes, DEVICE_TO_HOST, stream);
}

hip_error hipMemcpyDtoDAsync(void *to, const void *from, size_t bytes, void *stream)
{
    return copy(to, from, bytes, DEVICE_TO_DEVICE, stream);
}

/* bytes in total, in elements of `size` bytes */
static hip_error fill(void *to, uint32_t value, uint32_t size, size_t bytes, void *stream)
{
    if (!hip_state()) return hip_note(hipErrorNoDevice);
    if (!hip_is_stream(stream)) return hip_note(hipErrorInvalidHandle);
    if (!bytes) return hipSuccess;
    if (!to || !block_of(to, bytes)) return hip_note(hipErrorInvalidValue);
    return hip_note(hip_submit(
        stream,
        &(struct work){
            .kind = WORK_FILL, .to = to, .bytes = bytes, .value = value, .value_size = size}));
}

hip_error hipMemset(void *to, int value, size_t bytes)
{
    return fill(to, (uint32_t)value & 0xff, 1, bytes, NULL);
}

hip_error hipMemsetAsync(void *to, int value, size_t bytes, void *stream)
{
    return fill(to, (uint32_t)value & 0xff, 1, bytes, stream);
}

hip_error hipMemsetD8(void *to, unsigned char value, size_t count)
{
    return fill(to, value, 1, count, NULL);
}

hip_error hipMemsetD8Async(void *to, unsigned char value, size_t count, void *stream)
{
    return fill(to, value, 1, count, stream);
}

hip_error hipMemsetD32(void *to, int value, size_t count)
{
    return fill(to, (uint32_t)value, 4, 4 * count, NULL);
}

hip_error hipMemsetD32Async(void *to, int value, size_t count, void *stream)
{
    return fill(to, (uint32_t)value, 4, 4 * count, stream);
}

/* hipPointerAttribute_t of ROCm 6: type, device, device pointer, host pointer, managed, flags. */
hip_error hipPointerGetAttributes(void *attributes, const void *p)
{
    if (!hip_state()) return hip_note(hipErrorNoDevice);
    if (!attributes || !p) return hip_note(hipErrorInvalidValue);
    const struct block *b = block_of(p, 1);
    uint32_t type = b ? (b->host ? 1 : 2) : 0, device = b ? (uint32_t)b->device : 0;
    uint8_t *a = attributes;
    memset(a, 0, 32);
    memcpy(a, &type, 4);
    memcpy(a + 4, &device, 4);
    if (b) memcpy(a + 8, &p, 8);
    if (b && b->host) memcpy(a + 16, &p, 8);
    return hipSuccess;
}
