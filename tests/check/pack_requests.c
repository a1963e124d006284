/* pack_requests.c: what packing asks for ahead. Each line of a row of K and V that has so many others before it is
 * asked for as often as the table of packers says, before the row is packed and not much earlier; nothing else is: no
 * row that is not there, no byte beyond one. Whole calls ask for the lines of q and out as well, and for nothing that
 * no query sees. The sources that ask are compiled here with a function in place of each request. */
#include "base/cpuid.h"
#include "base/dtype.h"
#include "cpu/cpu.h"
#if defined(__x86_64__)
#include "cpu/x86/pack_parts_amx.h"
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"
#include "record/requests.h"

enum { LINE = 64 };

static void ignore(const char *at)
{
    (void)at;
}
static void (*noted)(const char *at) = ignore;

void note_request(const void *at)
{
    noted(at);
}

/* ---- The functions that pack ---- */

/* Lines are asked for times times, the last time when least rows are left before theirs, each other time as many rows
 * earlier; K: not those of channels that are fewer than are taken at once. */
struct manner {
    int64_t least, times, at_once;
};

struct packer {
    const char *name;
    uint64_t needs;
    const struct cpu_kernels *kernels;
    int64_t dtype;
    struct manner k, v;
};

#if defined(__x86_64__)
static void pack_k_f16(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                       int64_t channels)
{
    (void)pack_k_f16_amx(panels, k, first, last, channels);
}
static void pack_k_f32(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                       int64_t channels)
{
    (void)pack_k_f32_amx(panels, k, first, last, channels);
}
/* Parts, which AMX multiplies. */
static const struct cpu_kernels parts_f16 = {.pack_k = pack_k_f16, .pack_v = pack_v_f16_amx},
                                parts_f32 = {.pack_k = pack_k_f32, .pack_v = pack_v_f32_amx};

static const struct packer packers[] = {
    {"avx2", CPU_AVX2, &cpu_avx2, RAPT_F32, {8, 2, 8}, {16, 2, 1}},
    {"avx2", CPU_AVX2, &cpu_avx2, RAPT_F16, {8, 2, 8}, {16, 2, 1}},
    {"avx2", CPU_AVX2, &cpu_avx2, RAPT_BF16, {8, 2, 8}, {16, 2, 1}},
    {"avx2", CPU_AVX2, &cpu_avx2, RAPT_I8, {0}, {16, 2, 1}},
    {"avx512", CPU_AVX512, &cpu_avx512, RAPT_F32, {16, 2, 16}, {16, 2, 1}},
    {"avx512", CPU_AVX512, &cpu_avx512, RAPT_F16, {16, 2, 16}, {16, 2, 1}},
    {"avx512", CPU_AVX512, &cpu_avx512, RAPT_BF16, {16, 2, 16}, {16, 2, 1}},
    {"avx512", CPU_AVX512, &cpu_avx512, RAPT_I8, {0}, {16, 2, 1}},
    {"avx512_vnni", CPU_AVX512_VNNI, &cpu_avx512_vnni, RAPT_I8, {16, 1, 1}, {16, 1, 1}},
    {"avx512_bf16", CPU_AVX512_BF16, &cpu_avx512_bf16, RAPT_BF16, {16, 2, 32}, {16, 2, 1}},
    {"parts", CPU_AVX512_BF16, &parts_f16, RAPT_F16, {16, 1, 1}, {16, 1, 1}},
    {"parts", CPU_AVX512_BF16, &parts_f32, RAPT_F32, {16, 1, 1}, {16, 1, 1}},
};
#elif defined(__aarch64__)
static const struct packer packers[] = {
    {"neon", CPU_NEON, &cpu_neon, RAPT_F32, {4, 2, 4}, {16, 2, 1}},
    {"neon", CPU_NEON, &cpu_neon, RAPT_F16, {4, 2, 4}, {16, 2, 1}},
    {"sve", CPU_SVE, &cpu_sve, RAPT_F32, {8, 2, 8}, {16, 2, 1}},
    {"sve", CPU_SVE, &cpu_sve, RAPT_BF16, {8, 2, 8}, {16, 2, 1}},
};
#endif
enum { PACKERS = sizeof packers / sizeof *packers };

enum {
    KEYS = 120,
    PANEL_KEYS = 128,
    CHANNELS = 160,
    PITCH = CHANNELS * 4 + 3 * LINE,
    MARK = 0x55, /* no byte of a packed 0 or 1 */
    PANEL_BYTES = (PANEL_KEYS + COLUMN_TILE_MAX) * (CHANNELS + COLUMN_TILE_MAX) * 6
};

static struct setting {
    const struct packer *packer;
    int value; /* V, else K */
    int64_t channels, first, last;
    int64_t pitch, stride; /* bytes from a row to the next, elements from a channel to the next */
    int null_rows;
} now;

static _Alignas(LINE) char data[KEYS * PITCH];
static _Alignas(LINE) unsigned char panels[PANEL_BYTES];
static unsigned char without[PANEL_BYTES], owner[PANEL_BYTES];
static const void *pointers[KEYS];
static const float one = 1, *scales[KEYS];
static int64_t cell[KEYS]; /* a byte of the panels that a row changes */
static int asked[KEYS][CHANNELS * 4 / LINE];
static const char *wrong;

static void pack(void)
{
    struct cpu_rows rows = {.row = pointers,
                            .dtype = now.packer->dtype,
                            .channel_stride = now.stride,
                            .scale = scales,
                            .scale_channels = now.channels};
    const struct cpu_kernels *k = now.packer->kernels;
    memset(panels, MARK, sizeof panels);
    if (now.value) (void)k->pack_v(panels, &rows, now.first, now.last, now.channels, PANEL_KEYS);
    else k->pack_k(panels, &rows, now.first, now.last, now.channels);
}

static void fill_row(int64_t key, float x)
{
    for (int64_t c = 0; c < now.channels * now.stride; c++)
        if (now.packer->dtype == RAPT_I8) data[key * now.pitch + c] = (char)x;
        else store_float(data + key * now.pitch, now.packer->dtype, c, x);
}

/* Rows are 1 where their number has a bit; what changes with all bits of a number belongs to that row. */
static void find_cells(void)
{
    noted = ignore;
    memset(owner, 0, sizeof owner);
    memset(data, 0, sizeof data);
    for (int64_t key = 0; key < KEYS; key++) {
        int null = now.null_rows && (key % 7 == 3 || key < now.first + 5);
        pointers[key] = null ? NULL : data + key * now.pitch;
        scales[key] = &one;
        cell[key] = -1;
    }
    pack();
    int64_t bytes = PANEL_BYTES;
    while (bytes && panels[bytes - 1] == MARK) bytes--;
    memcpy(without, panels, sizeof without);
    for (int bit = 0; 1 << bit <= KEYS; bit++) {
        for (int64_t key = 0; key < KEYS; key++) fill_row(key, (float)((key + 1) >> bit & 1));
        pack();
        for (int64_t at = 0; at < bytes; at++)
            if (panels[at] != without[at]) owner[at] |= (unsigned char)(1 << bit);
    }
    for (int64_t at = bytes - 1; at >= 0; at--)
        if (owner[at]) cell[owner[at] - 1] = at;
}

static int is_packed(int64_t key)
{
    return panels[cell[key]] != MARK;
}

static int64_t row_bytes(void)
{
    return now.channels * (int64_t)dtype_size(now.packer->dtype);
}

static void note_line(const char *at)
{
    const struct manner *m = now.value ? &now.packer->v : &now.packer->k;
    int64_t key = (at - data) / now.pitch, in_row = (at - data) % now.pitch, next = now.first;
    if (at < data || key < now.first || key >= now.last) wrong = "a row outside of the call";
    else if (!pointers[key]) wrong = "a row that is not there";
    else if (in_row >= row_bytes()) wrong = "what is behind a row";
    else if (in_row % LINE) wrong = "what begins no line";
    else if (is_packed(key)) wrong = "a row that is packed";
    else asked[key][in_row / LINE]++;
    while (next < now.last && (!pointers[next] || is_packed(next))) next++;
    if (!wrong &&
        key - next > (now.value ? m->times * m->least + 1 : (m->times + 1) * m->least - 1))
        wrong = "a row far ahead";
}

/* Times that a line is to be asked for; -1: any number. */
static int64_t due(int64_t key, int64_t line)
{
    const struct manner *m = now.value ? &now.packer->v : &now.packer->k;
    int64_t channel = line * LINE / (int64_t)dtype_size(now.packer->dtype), times = 0;
    if (now.null_rows && !now.value) return -1; /* panels without all rows ask for none */
    if (channel + m->at_once > now.channels || now.stride != 1 || !pointers[key]) return 0;
    while (times < m->times && key - now.first >= (times + 1) * m->least) times++;
    return times;
}

static void check_packer(void)
{
    wrong = NULL;
    find_cells();
    memset(asked, 0, sizeof asked);
    noted = note_line;
    pack();
    noted = ignore;
    const char *name = now.packer->name, *dtype = dtype_name(now.packer->dtype);
    if (wrong)
        fail_msg("%s %s %c: asks for %s (channels %lld, keys %lld ... %lld)", name, dtype,
                 "kv"[now.value], wrong, (long long)now.channels, (long long)now.first,
                 (long long)now.last);
    for (int64_t key = now.first; key < now.last; key++)
        for (int64_t line = 0; line * LINE < row_bytes(); line++)
            if (due(key, line) >= 0 && asked[key][line] != due(key, line))
                fail_msg("%s %s %c: line %lld of key %lld is asked for %d times, not %lld "
                         "(channels %lld, keys %lld ... %lld)",
                         name, dtype, "kv"[now.value], (long long)line, (long long)key,
                         asked[key][line], (long long)due(key, line), (long long)now.channels,
                         (long long)now.first, (long long)now.last);
}

static void each_setting(const struct packer *packer)
{
    static const int64_t channels[] = {32, 64, 72, 88, CHANNELS},
                         keys[][2] = {{0, KEYS}, {64, KEYS - 5}, {32, 37}, {64, 99}};
    int parts = !packer->kernels->row_tile; /* of multiples of 32 channels */
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
        for (size_t n = 0; n < sizeof keys / sizeof *keys; n++)
            for (int form = 0; form < 16; form++) {
                int odd = form >> 1 & 1, apart = form >> 2 & 1;
                if (parts && channels[i] % 32) continue;
                if (packer->kernels->tile_q && apart) continue; /* refused by the level */
                now = (struct setting){.packer = packer,
                                       .value = form & 1,
                                       .channels = apart ? channels[i] / 2 / 32 * 32 : channels[i],
                                       .first = keys[n][0],
                                       .last = keys[n][1],
                                       .pitch =
                                           PITCH - (odd ? (int64_t)dtype_size(packer->dtype) : 0),
                                       .stride = apart ? 2 : 1,
                                       .null_rows = form >> 3};
                if (now.channels) check_packer();
            }
}

static void lines_of_keys_and_values(void **state)
{
    int count = 0;
    (void)state;
    for (int i = 0; i < PACKERS; i++) {
        uint64_t needs = packers[i].needs;
        if (cpu_permitted(cpu_features() & needs) != needs) continue;
        each_setting(&packers[i]);
        count++;
    }
    if (!count) skip_test("no level of this CPU asks for lines");
}

/* ---- Whole calls ---- */

enum {
    QUERIES = 40,
    GROUP = 2,
    HEADS = 2,  /* of K and V, */
    STORED = 3, /* in memory with one more */
    CAPACITY = 512,
    LENGTH = 411,
    WINDOW = 133,
    PAGE = 16,
    WIDTH = 64,
    ROWS_AHEAD = 16,
    Q_BYTES = QUERIES * HEADS * GROUP * WIDTH * 4,
    KV_BYTES = CAPACITY * STORED * WIDTH * 4
};

static const struct {
    const char *arch;
    uint64_t needs;
    rapt_dtype q, kv;
} calls[] = {
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, RAPT_F32, RAPT_F32},
    {"avx2", CPU_AVX2, RAPT_BF16, RAPT_BF16},
    {"avx512", CPU_AVX512, RAPT_F32, RAPT_F32},
    {"avx512", CPU_AVX512, RAPT_F16, RAPT_I8},
    {"avx512_vnni", CPU_AVX512_VNNI, RAPT_F16, RAPT_I8},
    {"avx512_bf16", CPU_AVX512_BF16, RAPT_BF16, RAPT_BF16},
#elif defined(__aarch64__)
    {"neon", CPU_NEON, RAPT_F32, RAPT_F32},
    {"sve", CPU_SVE, RAPT_F16, RAPT_F16},
#endif
};

struct layout {
    int token_major, paged, windowed;
};

static _Alignas(LINE) char q[Q_BYTES], out[Q_BYTES], kv[2][KV_BYTES];
static int rows_asked[2][Q_BYTES / LINE]; /* of q and out */
static char seen[2][KV_BYTES / LINE];
static float unit[STORED * CAPACITY];
static int32_t table[CAPACITY / PAGE];
static const int32_t length = LENGTH;
static char *workspace;
static size_t workspace_bytes;
static int64_t outside, keys_asked;

static void note_call(const char *at)
{
    char *const rows[2] = {q, out};
    if (at >= workspace && at < workspace + workspace_bytes) return;
    for (int i = 0; i < 2; i++)
        if (at >= rows[i] && at < rows[i] + Q_BYTES) {
            rows_asked[i][(at - rows[i]) / LINE]++;
            return;
        }
    for (int i = 0; i < 2; i++)
        if (at >= kv[i] && at < kv[i] + KV_BYTES && seen[i][(at - kv[i]) / LINE]) {
            keys_asked++;
            return;
        }
    outside++;
}

/* Row of a token in K or V, counted over all that are stored. */
static int64_t stored_row(const struct layout *l, int64_t token, int64_t head)
{
    int64_t page = l->paged ? PAGE : CAPACITY, number = l->paged ? table[token / page] : 0;
    return number * page * STORED +
           (l->token_major ? token % page * STORED + head : head * page + token % page);
}

static rapt_tensor stored(const struct layout *l, void *rows, rapt_dtype dtype, int64_t channels)
{
    int64_t page = l->paged ? PAGE : CAPACITY;
    rapt_tensor t = (l->token_major ? rapt_tensor_bthd : rapt_tensor_bhtd)(
        rows, dtype, CAPACITY / page, STORED, page, channels);
    t.size[1] = HEADS;
    return t;
}

static rapt_attention attention(const struct layout *l, rapt_dtype q_type, rapt_dtype kv_type)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rapt_tensor_bthd(q, q_type, 1, HEADS * GROUP, QUERIES, WIDTH);
    a.out = rapt_tensor_bthd(out, q_type, 1, HEADS * GROUP, QUERIES, WIDTH);
    a.k = stored(l, kv[0], kv_type, WIDTH);
    a.v = stored(l, kv[1], kv_type, WIDTH);
    a.kv_length = rapt_tensor_bhtd(&length, RAPT_I32, 1, 1, 1, 1);
    if (kv_type == RAPT_I8) a.k_scale = a.v_scale = stored(l, unit, RAPT_F32, 1);
    if (l->paged) a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 1, 1, CAPACITY / PAGE, 1);
    if (l->windowed) a.window_left = RAPT_WINDOW(WINDOW);
    return a;
}

/* What some query sees of K and V. */
static void find_seen(const struct layout *l, rapt_dtype kv_type)
{
    int64_t row = WIDTH * (int64_t)dtype_size(kv_type);
    memset(seen, 0, sizeof seen);
    for (int64_t i = 0; i < CAPACITY / PAGE; i++) table[i] = (int32_t)(i * 5 % (CAPACITY / PAGE));
    for (int64_t token = l->windowed ? LENGTH - QUERIES - WINDOW : 0; token < LENGTH; token++)
        for (int64_t head = 0; head < HEADS; head++)
            for (int i = 0; i < 2; i++)
                memset(&seen[i][stored_row(l, token, head) * row / LINE], 1, (size_t)(row / LINE));
}

static void execute(const char *arch, const rapt_attention *a, int64_t *row_block)
{
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = 1};
    rapt_context *context = NULL;
    rapt_plan *plan = NULL;
    setenv("RAPT_CPU", arch, 1);
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), a), RAPT_OK);
    unsetenv("RAPT_CPU");
    const struct cpu_plan *own = plan->state;
    assert_string_equal(own->kernels->arch, arch);
    *row_block = own->row_block;
    workspace_bytes = (rapt_plan_workspace_size(plan) + LINE - 1) / LINE * LINE;
    workspace = aligned_alloc(LINE, workspace_bytes);
    assert_true(workspace != NULL);
    noted = note_call;
    assert_int_equal(rapt_plan_execute(plan, a, workspace, NULL), RAPT_OK);
    noted = ignore;
    free(workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
}

/* All rows of an item but the first are asked for once. */
static void check_rows(const char *arch, int64_t row_block, int64_t row)
{
    for (int64_t query = 0; query < QUERIES; query++)
        for (int64_t head = 0; head < HEADS * GROUP; head++)
            for (int64_t line = 0; line < row / LINE; line++)
                for (int i = 0; i < 2; i++) {
                    int64_t packed = query * GROUP + head % GROUP,
                            at = (query * HEADS * GROUP + head) * row / LINE + line;
                    int64_t expected = packed % row_block >= ROWS_AHEAD;
                    if (rows_asked[i][at] != expected)
                        fail_msg("%s: line %lld of query %lld, head %lld of %s is asked for %d "
                                 "times, not %lld",
                                 arch, (long long)line, (long long)query, (long long)head,
                                 i ? "out" : "q", rows_asked[i][at], (long long)expected);
                }
}

static void lines_of_calls(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) unit[i] = 1;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (int form = 0; form < 8; form++) {
            const struct layout l = {form & 1, form >> 1 & 1, form >> 2};
            uint64_t needs = calls[i].needs;
            int64_t row_block;
            if (cpu_permitted(cpu_features() & needs) != needs) continue;
            find_seen(&l, calls[i].kv);
            memset(rows_asked, 0, sizeof rows_asked);
            outside = keys_asked = 0;
            rapt_attention a = attention(&l, calls[i].q, calls[i].kv);
            execute(calls[i].arch, &a, &row_block);
            if (outside || !keys_asked)
                fail_msg("%s %s, token_major %d paged %d windowed %d: asks %lld times for what no "
                         "query sees, %lld times for K and V",
                         calls[i].arch, dtype_name(calls[i].kv), l.token_major, l.paged, l.windowed,
                         (long long)outside, (long long)keys_asked);
            check_rows(calls[i].arch, row_block, WIDTH * (int64_t)dtype_size(calls[i].q));
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines_of_keys_and_values),
                                       cmocka_unit_test(lines_of_calls)};
    return run_group("pack_requests", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
