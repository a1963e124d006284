/* decode_ceiling.c: how near to a plain read stream a decode step can come on this CPU: loops that
 * read K and V as decode does, with so many multiply-adds of registers for a cache line and nothing
 * else, in turn with the stream. Built and run by `make bench-decode`. Argument: threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef float line __attribute__((vector_size(64))); /* a cache line */
#define INLINE static inline __attribute__((always_inline))

enum {
    TENSOR = 64 << 20,   /* bytes of K, and of V */
    RUN = 64 << 10,      /* of K, then of V: 256 keys of 256 bytes */
    KEY_LINES = 4,       /* 128 channels of 16 bits */
    AHEAD = 16 << 10,    /* where lines are asked for */
    AGAIN = 2 << 10,     /* and asked for a second time so many bytes later */
    V_KEYS = 16,         /* of which V is read by halves */
    ROUNDS = 9,
    MAX_THREADS = 256,
    SUMS = 8
};

enum order { LINEAR, TILES }; /* TILES: K four keys at a time, V the halves of V_KEYS keys in turn */

struct loop {
    int adds; /* multiply-adds for a line; 0: the plain stream */
    enum order order;
    int asks; /* times that each line is asked for ahead: 0 ... 2 */
};

static char *k_memory, *v_memory;

INLINE void ask(const char *at, int asks)
{
    if (asks) __builtin_prefetch(at + AHEAD, 0, 2);
    if (asks > 1) __builtin_prefetch(at + AHEAD - AGAIN, 0, 2);
}

/* Neighbours go to different sums, so that they do not wait for one another. */
INLINE void take(const char *at, line *sum, int number, int adds)
{
    line x = *(const line *)(const void *)at;
    if (!adds) sum[number % SUMS] += x;
#pragma GCC unroll 8
    for (int i = 0; i < adds; i++) {
        int to = (number * adds + i) % SUMS;
        sum[to] = sum[to] * 0.5f + x;
    }
}

/* So that nothing is left out. */
INLINE void keep(const line *sum)
{
    static volatile float kept;
    for (int i = 0; i < SUMS; i++) kept += sum[i][0];
}

INLINE void read_linear(const char *at, line *sum, struct loop l)
{
    for (const char *end = at + RUN; at < end; at += 4 * sizeof(line))
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            ask(at + i * 64, l.asks);
            take(at + i * 64, sum, i, l.adds);
        }
}

INLINE void read_k_tiles(const char *at, line *sum, struct loop l)
{
    for (const char *end = at + RUN; at < end; at += 4 * KEY_LINES * 64)
#pragma GCC unroll 4
        for (int c = 0; c < KEY_LINES; c++)
#pragma GCC unroll 4
            for (int key = 0; key < 4; key++) {
                ask(at + (c * 4 + key) * 64, l.asks);
                take(at + (key * KEY_LINES + c) * 64, sum, key, l.adds);
            }
}

INLINE void read_v_tiles(const char *at, line *sum, struct loop l)
{
    for (const char *end = at + RUN; at < end; at += V_KEYS * KEY_LINES * 64) {
        const char *next = at;
        for (int half = 0; half < 2; half++)
            for (int key = 0; key < V_KEYS; key++)
#pragma GCC unroll 2
                for (int c = 0; c < 2; c++, next += 64) {
                    ask(next, l.asks);
                    take(at + (key * KEY_LINES + half * 2 + c) * 64, sum, c, l.adds);
                }
    }
}

INLINE void pass(long from, long to, struct loop l)
{
    line sum[SUMS] = {0};
    for (long at = from; at < to; at += RUN) {
        if (l.order == TILES) read_k_tiles(k_memory + at, sum, l);
        else read_linear(k_memory + at, sum, l);
        if (l.order == TILES) read_v_tiles(v_memory + at, sum, l);
        else read_linear(v_memory + at, sum, l);
    }
    keep(sum);
}

/* ADDS x ORDER x ASKS, each with its own code. */
#define LOOPS(X)                                                                                   \
    X(4, LINEAR, 0) X(4, LINEAR, 1) X(4, LINEAR, 2) X(4, TILES, 0) X(4, TILES, 1) X(4, TILES, 2)   \
    X(6, LINEAR, 0) X(6, LINEAR, 1) X(6, LINEAR, 2) X(6, TILES, 0) X(6, TILES, 1) X(6, TILES, 2)   \
    X(8, LINEAR, 0) X(8, LINEAR, 1) X(8, LINEAR, 2) X(8, TILES, 0) X(8, TILES, 1) X(8, TILES, 2)
#define FUNCTION(adds, order, asks)                                                                \
    static void run_##adds##_##order##_##asks(long from, long to)                                  \
    {                                                                                              \
        pass(from, to, (struct loop){adds, order, asks});                                          \
    }
LOOPS(FUNCTION)

static void stream(long from, long to)
{
    line sum[SUMS] = {0};
    for (long at = from; at < to; at += RUN)
        read_linear(k_memory + at, sum, (struct loop){0, LINEAR, 0});
    for (long at = from; at < to; at += RUN)
        read_linear(v_memory + at, sum, (struct loop){0, LINEAR, 0});
    keep(sum);
}

/* ---- Timing ---- */

static struct team {
    void (*work)(long from, long to); /* NULL: the end */
    long threads;
    pthread_barrier_t barrier;
} team;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *member(void *number)
{
    long share = TENSOR / RUN / team.threads * RUN, from = (long)(size_t)number * share;
    for (;;) {
        pthread_barrier_wait(&team.barrier);
        if (!team.work) return NULL;
        team.work(from, from + share);
        pthread_barrier_wait(&team.barrier);
    }
}

/* GB/s. */
static double rate(void (*work)(long from, long to))
{
    team.work = work;
    double start = now();
    pthread_barrier_wait(&team.barrier);
    if (!work) return 0;
    pthread_barrier_wait(&team.barrier);
    return 2.0 * (double)(TENSOR / RUN / team.threads * RUN * team.threads) / (now() - start) * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_loop(struct loop l, void (*work)(long from, long to))
{
    double own[ROUNDS], plain[ROUNDS];
    (void)rate(work);
    for (int i = 0; i < ROUNDS; i++) {
        plain[i] = rate(stream);
        own[i] = rate(work);
    }
    qsort(own, ROUNDS, sizeof *own, compare);
    qsort(plain, ROUNDS, sizeof *plain, compare);
    printf("%d multiply-adds a line, %s, asked for %d times: %5.1f GB/s, %3.0f %% of %.1f\n", l.adds,
           l.order == TILES ? "by tiles" : "in order", l.asks, own[ROUNDS / 2],
           100 * own[ROUNDS / 2] / plain[ROUNDS / 2], plain[ROUNDS / 2]);
}

int main(int count, char **arguments)
{
    enum { LARGE_PAGE = 2 << 20 };
    team.threads = count > 1 ? atol(arguments[1]) : 1;
    if (team.threads < 1 || team.threads > MAX_THREADS)
        return fprintf(stderr, "threads: 1 to %d\n", MAX_THREADS), 2;
    char *memory = aligned_alloc(LARGE_PAGE, 2 * (size_t)TENSOR + LARGE_PAGE);
    if (!memory) return fprintf(stderr, "out of memory\n"), 1;
    (void)madvise(memory, 2 * (size_t)TENSOR + LARGE_PAGE, MADV_HUGEPAGE);
    memset(memory, 0, 2 * (size_t)TENSOR + LARGE_PAGE);
    k_memory = memory;
    v_memory = memory + TENSOR;
    pthread_t threads[MAX_THREADS];
    if (pthread_barrier_init(&team.barrier, NULL, (unsigned)team.threads + 1)) return 1;
    for (long i = 0; i < team.threads; i++)
        if (pthread_create(&threads[i], NULL, member, (void *)(size_t)i))
            return fprintf(stderr, "a thread could not be started\n"), 1;
#define PRINT(adds, order, asks)                                                                   \
    print_loop((struct loop){adds, order, asks}, run_##adds##_##order##_##asks);
    LOOPS(PRINT)
    (void)rate(NULL);
    for (long i = 0; i < team.threads; i++) pthread_join(threads[i], NULL);
    free(memory);
    return 0;
}
