/* newer.c: executes one instruction of the set that its argument names, to show that an emulated CPU
 * refuses what it does not have: without that, a test suite that passes there proves nothing. */
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

#define RUN(set) __attribute__((target(#set), noinline)) static void
static volatile float numbers[16];
#define NUMBERS ((void *)(size_t)numbers)

RUN(sse3) run_sse3(void)
{
    __m128 a = _mm_loadu_ps(NUMBERS);
    _mm_storeu_ps(NUMBERS, _mm_hadd_ps(a, a));
}

RUN(avx2) run_avx2(void)
{
    __m256i a = _mm256_loadu_si256(NUMBERS);
    _mm256_storeu_si256(NUMBERS, _mm256_add_epi32(a, a));
}

RUN(avx512f) run_avx512(void)
{
    __m512 a = _mm512_loadu_ps(NUMBERS);
    _mm512_storeu_ps(NUMBERS, _mm512_add_ps(a, a));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } sets[] = {{"sse3", run_sse3}, {"avx2", run_avx2}, {"avx512", run_avx512}};
    for (size_t i = 0; argc == 2 && i < sizeof sets / sizeof *sets; i++)
        if (!strcmp(argv[1], sets[i].name)) {
            sets[i].run();
            return 0;
        }
    fprintf(stderr, "newer: name one of sse3, avx2, avx512\n");
    return 2;
}
