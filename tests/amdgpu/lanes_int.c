/* Integer arithmetic and bit operations over lanes. */
#include "lanes.h"

static inline uint32_t reverse_bits(uint32_t x)
{
    x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(x);
}

/* Leading bits equal to the sign, counted from the top; -1 when all are. */
static inline int32_t sign_bits(int32_t x)
{
    uint32_t y = (uint32_t)(x < 0 ? ~x : x);
    return y ? __builtin_clz(y) : -1;
}

static inline int32_t sext24(uint32_t x)
{
    return (int32_t)(x << 8) >> 8;
}

static inline int32_t max_i(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static inline int32_t min_i(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t max_u(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint32_t min_u(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline int32_t field_signed(uint32_t a, uint32_t offset, uint32_t width)
{
    if (width == 0) return 0;
    uint32_t field = (a >> offset) & ((1u << width) - 1), sign = 1u << (width - 1);
    return (int32_t)((field ^ sign) - sign);
}

/* Byte i of the result is byte `selector i` of {a, b}; 8..11 replicate a sign, 12 is zero, 13 and
 * up are 0xff. */
static inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selectors)
{
    uint64_t pool = (uint64_t)a << 32 | b;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t s = selectors >> (8 * i) & 0xff;
        uint32_t byte = (uint32_t)(pool >> (8 * (s & 7))) & 0xff;
        uint32_t sign = (uint32_t)(pool >> (16 * (s & 3) + 15)) & 1 ? 0xff : 0;
        byte = s >= 8 ? sign : byte;
        byte = s == 12 ? 0 : byte;
        byte = s >= 13 ? 0xff : byte;
        r |= byte << (8 * i);
    }
    return r;
}

static inline uint32_t sad_bytes(uint32_t a, uint32_t b, uint32_t c)
{
    for (int i = 0; i < 32; i += 8) {
        uint32_t x = a >> i & 0xff, y = b >> i & 0xff;
        c += x > y ? x - y : y - x;
    }
    return c;
}

static inline uint32_t lerp_bytes(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i += 8)
        r |= (((a >> i & 0xff) + (b >> i & 0xff) + (c >> i & 1)) >> 1 & 0xff) << i;
    return r;
}

#define LANE_DEF "lanes_int.def"
#include "lanes_gen.h"

const struct op_table ops_int = {rows, sizeof rows / sizeof *rows};
