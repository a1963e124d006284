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

/* X(name, bytes | sign, flags): every load width under its old and its new name. */
#define LOAD_LIST(X)                                                                               \
    X("ubyte", 1, 0)                                                                               \
    X("sbyte", 1 | ACC_SIGNED, 0) X("ushort", 2, 0) X("sshort", 2 | ACC_SIGNED, 0)                 \
        X("dword", 4, 0) X("dwordx2", 8, 0) X("dwordx3", 12, 0) X("dwordx4", 16, 0)                \
            X("short_d16", 2, OPF_D16) X("short_d16_hi", 2, OPF_D16_HI) X("ubyte_d16", 1, OPF_D16) \
                X("ubyte_d16_hi", 1, OPF_D16_HI) X("sbyte_d16", 1 | ACC_SIGNED, OPF_D16)           \
                    X("sbyte_d16_hi", 1 | ACC_SIGNED, OPF_D16_HI) X("u8", 1, 0)                    \
                        X("i8", 1 | ACC_SIGNED, 0) X("u16", 2, 0) X("i16", 2 | ACC_SIGNED, 0)      \
                            X("b32", 4, 0) X("b64", 8, 0) X("b96", 12, 0) X("b128", 16, 0)         \
                                X("d16_b16", 2, OPF_D16) X("d16_hi_b16", 2, OPF_D16_HI)            \
                                    X("d16_u8", 1, OPF_D16) X("d16_hi_u8", 1, OPF_D16_HI)          \
                                        X("d16_i8", 1 | ACC_SIGNED, OPF_D16)                       \
                                            X("d16_hi_i8", 1 | ACC_SIGNED, OPF_D16_HI)
#define STORE_LIST(X)                                                                              \
    X("byte", 1, 0)                                                                                \
    X("short", 2, 0) X("dword", 4, 0) X("dwordx2", 8, 0) X("dwordx3", 12, 0) X("dwordx4", 16, 0)   \
        X("short_d16_hi", 2, OPF_D16_HI) X("byte_d16_hi", 1, OPF_D16_HI) X("b8", 1, 0)             \
            X("b16", 2, 0) X("b32", 4, 0) X("b64", 8, 0) X("b96", 12, 0) X("b128", 16, 0)          \
                X("d16_hi_b16", 2, OPF_D16_HI) X("d16_hi_b8", 1, OPF_D16_HI)

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
