/* batch.c: chunks of prompts and single tokens in one call a step, over pages of i8; one plan serves
 * all steps. cc batch.c $(pkg-config --cflags --libs rapt) -lm */
#include <math.h>
#include <rapt/rapt.h>
#include <stdio.h>
#include <string.h>

enum { SEQUENCES = 3, LONGEST = 96, HEADS = 8, KV_HEADS = 2, CHANNELS = 64 };
enum { PAGE = 16, PAGES = 14, PAGES_EACH = LONGEST / PAGE, CHUNK = 24, ROOM = SEQUENCES * CHUNK };
enum { Q_ROW = HEADS * CHANNELS, KV_ROW = KV_HEADS * CHANNELS };

static const int64_t prompt[SEQUENCES] = {70, 20, 33}, length[SEQUENCES] = {96, 50, 60};
static float q[SEQUENCES][LONGEST][Q_ROW], k[SEQUENCES][LONGEST][KV_ROW],
    v[SEQUENCES][LONGEST][KV_ROW], out[SEQUENCES][LONGEST][Q_ROW], whole[LONGEST][Q_ROW];
static float q_rows[ROOM][Q_ROW], k_rows[ROOM][KV_ROW], v_rows[ROOM][KV_ROW], out_rows[ROOM][Q_ROW];
static int8_t k_cache[PAGES][PAGE][KV_ROW], v_cache[PAGES][PAGE][KV_ROW];
static float k_scale[PAGES][PAGE][KV_HEADS], v_scale[PAGES][PAGE][KV_HEADS];
static int64_t start[SEQUENCES + 1], held[SEQUENCES], now[SEQUENCES];
static int32_t page_table[SEQUENCES][PAGES_EACH], pages_used;

/* What each sequence brings to this step; rows behind the last one's are no sequence's. */
static void pack(void)
{
    for (int b = 0; b < SEQUENCES; b++) {
        int64_t left = prompt[b] - held[b], count = held[b] < length[b];
        if (left > 0) count = left < CHUNK ? left : CHUNK;
        memcpy(q_rows[start[b]], q[b][held[b]], (size_t)count * sizeof q[b][0]);
        memcpy(k_rows[start[b]], k[b][held[b]], (size_t)count * sizeof k[b][0]);
        memcpy(v_rows[start[b]], v[b][held[b]], (size_t)count * sizeof v[b][0]);
        start[b + 1] = start[b] + count;
        now[b] = held[b] + count;
        for (int64_t page = (held[b] + PAGE - 1) / PAGE; page * PAGE < now[b]; page++)
            page_table[b][page] = pages_used++;
    }
}

static int step(rapt_device *device, rapt_plan **plan, void **workspace)
{
    rapt_kv_append_args append = {.struct_size = sizeof append};
    append.k_new = rapt_tensor_bthd(k_rows, RAPT_F32, 1, KV_HEADS, ROOM, CHANNELS);
    append.v_new = rapt_tensor_bthd(v_rows, RAPT_F32, 1, KV_HEADS, ROOM, CHANNELS);
    append.q_start = rapt_tensor_bhtd(start, RAPT_I64, SEQUENCES + 1, 1, 1, 1);
    append.kv_length = rapt_tensor_bhtd(held, RAPT_I64, SEQUENCES, 1, 1, 1);
    append.page_table = rapt_tensor_bhtd(page_table, RAPT_I32, SEQUENCES, 1, PAGES_EACH, 1);
    append.k = rapt_tensor_bthd(k_cache, RAPT_I8, PAGES, KV_HEADS, PAGE, CHANNELS);
    append.v = rapt_tensor_bthd(v_cache, RAPT_I8, PAGES, KV_HEADS, PAGE, CHANNELS);
    append.k_scale = rapt_tensor_bthd(k_scale, RAPT_F32, PAGES, KV_HEADS, PAGE, 1);
    append.v_scale = rapt_tensor_bthd(v_scale, RAPT_F32, PAGES, KV_HEADS, PAGE, 1);

    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rapt_tensor_bthd(q_rows, RAPT_F32, 1, HEADS, ROOM, CHANNELS);
    a.out = rapt_tensor_bthd(out_rows, RAPT_F32, 1, HEADS, ROOM, CHANNELS);
    a.k = append.k, a.k_scale = append.k_scale, a.v = append.v, a.v_scale = append.v_scale;
    a.q_start = append.q_start, a.page_table = append.page_table;
    a.kv_length = rapt_tensor_bhtd(now, RAPT_I64, SEQUENCES, 1, 1, 1); /* the new ones included */
    int status = rapt_kv_append(device, &append, NULL);
    if (!status && !*plan && !(status = rapt_plan_create(plan, device, &a)))
        status = rapt_alloc(device, rapt_plan_workspace_size(*plan), workspace);
    return status ? status : (int)rapt_plan_execute(*plan, &a, *workspace, NULL);
}

int main(void)
{
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (rapt_open(&context, &config)) return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    rapt_device *device = rapt_device_at(context, 0);
    for (int i = 0; i < SEQUENCES * LONGEST * Q_ROW; i++) (&q[0][0][0])[i] = sinf((float)i);
    for (int i = 0; i < SEQUENCES * LONGEST * KV_ROW; i++)
        (&k[0][0][0])[i] = cosf(0.7f * (float)i), (&v[0][0][0])[i] = sinf(0.3f * (float)i);

    rapt_plan *plan = NULL;
    void *workspace = NULL;
    int status = 0, steps = 0;
    for (pack(); !status && start[SEQUENCES]; pack(), steps++) {
        status = step(device, &plan, &workspace);
        for (int b = 0; b < SEQUENCES; b++) {
            memcpy(out[b][held[b]], out_rows[start[b]],
                   (size_t)(now[b] - held[b]) * sizeof q[b][0]);
            held[b] = now[b];
        }
    }
    float greatest = 0;
    for (int b = 0; b < SEQUENCES && !status; b++) { /* each sequence by one call in f32 */
        rapt_attention a = {.struct_size = sizeof a, .causal = 1};
        a.q = rapt_tensor_bthd(q[b], RAPT_F32, 1, HEADS, length[b], CHANNELS);
        a.k = rapt_tensor_bthd(k[b], RAPT_F32, 1, KV_HEADS, length[b], CHANNELS);
        a.v = rapt_tensor_bthd(v[b], RAPT_F32, 1, KV_HEADS, length[b], CHANNELS);
        a.out = rapt_tensor_bthd(whole, RAPT_F32, 1, HEADS, length[b], CHANNELS);
        status = rapt_forward(device, &a, NULL);
        for (int i = 0; i < length[b] * Q_ROW; i++)
            greatest = fmaxf(greatest, fabsf((&out[b][0][0])[i] - (&whole[0][0])[i]));
    }
    if (status) return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    printf("%d steps over i8 keys and values: at most %g from one call in f32\n", steps, greatest);
    rapt_plan_destroy(&plan);
    rapt_free(device, workspace);
    rapt_close(&context);
    return greatest > 0.02f;
}
