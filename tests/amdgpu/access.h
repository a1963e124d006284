/* Names and sizes of loads and stores, shared by the global, scratch, buffer and LDS tables. */
#ifndef AMDGPU_ACCESS_H
#define AMDGPU_ACCESS_H

#include <string.h>

#include "lanes.h"

enum {
    ACC_BYTES = 0x1f, /* size of one element */
    ACC_SIGNED = 0x20,
    ACC_FLAT = 0x40,
    ACC_SCRATCH = 0x80,
    ACC_STORE = 0x100,
    ACC_TWO = 0x200,      /* ds_read2 and ds_write2 */
    ACC_STRIDE64 = 0x400, /* their offsets count 64 elements */
};

/* A byte or short as it lands in the register: extended, or merged into one half. */
static inline uint32_t narrow_value(const struct inst *in, const uint8_t *p, uint32_t old)
{
    uint32_t value;
    if ((in->param & ACC_BYTES) == 1) {
        value = in->param & ACC_SIGNED ? (uint32_t)(int32_t)(int8_t)*p : *p;
    } else {
        uint16_t half;
        memcpy(&half, p, 2);
        value = in->param & ACC_SIGNED ? (uint32_t)(int32_t)(int16_t)half : half;
    }
    if (in->flags & OPF_D16_HI) return (old & 0xffff) | value << 16;
    if (in->flags & OPF_D16) return (old & 0xffff0000) | (value & 0xffff);
    return value;
}

#endif
