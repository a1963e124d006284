/* Exchanges between lanes and diverged control flow, against formulas per lane. */
#include "support.h"

enum { BASE = 1000, OFF = -1 };

static int xor_pick(uint64_t table, int at)
{
    return (int)(table >> (4 * at) & 15);
}

/* Source lane of operation k, BASE-relative value, or a plain number; the order is
 * kernels/cross.hip. */
static int expected(int k, int lane, int wave)
{
    int row = lane & ~15, at = lane & 15, quad = lane & ~3;
    switch (k) {
    case 0:
        return BASE + quad + (3 - (lane & 3));
    case 1:
        return at < 15 ? BASE + lane + 1 : OFF;
    case 2:
        return at >= 3 ? BASE + lane - 3 : 0;
    case 3:
        return BASE + row + ((at + 12) & 15);
    case 4:
        return BASE + row + 15 - at;
    case 5:
        return BASE + row + (at & 8) + 7 - (at & 7);
    case 6:
        return (lane >> 4 & 1) == 0 ? BASE + quad + (3 - (lane & 3)) : OFF;
    case 7:
        return (at >> 2 == 1 || at >> 2 == 2) ? BASE + quad + (3 - (lane & 3)) : OFF;
    case 8:
        return BASE + (lane ^ 16);
    case 9:
        return BASE + quad + 1;
    case 10:
        return BASE + ((lane * 7 + 3) & (wave - 1));
    case 11:
        for (int from = 0; from < wave; from++)
            if (((from * 7 + 3) & (wave - 1)) == lane) return BASE + from;
        return 0;
    case 12:
        return BASE + 5;
    case 13:
        return BASE + 2;
    case 14:
        return lane;
    case 15:
        return wave / 2;
    default:
        break;
    }
    if (wave == 64) {
        if (k == 16) return row >= 16 ? BASE + row - 1 : 0; /* the last lane of the row before */
        return lane >= 32 ? BASE + 31 : 0;
    }
    switch (k) {
    case 16:
        return BASE + row + xor_pick(UINT64_C(0xfedcba9876543210), at);
    case 17:
        return BASE + (row ^ 16) + xor_pick(UINT64_C(0x89abcdef01234567), at);
    case 18:
        return BASE + (lane & ~7) + (int)(0x053977u >> (3 * (lane & 7)) & 7);
    case 19:
        return BASE + row + 5;
    default:
        return BASE + row + (at ^ 3);
    }
}

static void test_exchange(void **state)
{
    struct object o;
    int wave = wave_size(*state), count = wave == 64 ? 18 : 21;
    object_open(&o, "cross", *state);
    int *out = buffer(&o, (size_t)(count * wave) * 4);
    arg_pointer(&o, out);
    assert_launch(&o, "exchange", 1, (uint32_t)wave, 0);
    for (int k = 0; k < count; k++)
        for (int lane = 0; lane < wave; lane++)
            if (out[k * wave + lane] != expected(k, lane, wave))
                fail_msg("operation %d, lane %d: %d, expected %d", k, lane, out[k * wave + lane],
                         expected(k, lane, wave));
    object_close(&o);
}

static void test_diverged(void **state)
{
    struct object o;
    int wave = wave_size(*state);
    object_open(&o, "cross", *state);
    int *in = buffer(&o, 256), *out = buffer(&o, 256);
    for (int i = 0; i < wave; i++) in[i] = i * i - 40;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "diverged", 1, (uint32_t)wave, 0);
    for (int lane = 0; lane < wave; lane++) {
        int x = in[lane];
        if (lane % 3 == 0) x = x * 2 + 1 - (lane % 2 == 0 ? 7 : 0);
        else
            for (int i = 0; i < lane % 5; i++) x = x * 3 + i;
        assert_int_equal(out[lane], x);
    }
    object_close(&o);
}

int main(void)
{
    struct suite s = {.count = 0};
    add_test(&s, "exchange", test_exchange, "gfx");
    add_test(&s, "diverged", test_diverged, "gfx");
    return run_suite(&s, "amdgpu lanes");
}
