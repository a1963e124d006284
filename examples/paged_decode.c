/* paged_decode.c: one decode step over a paged cache: append the new token with RoPE on the way,
 * then attend.
 * cc paged_decode.c $(pkg-config --cflags --libs rapt) */
#include <math.h>
#include <rapt/rapt.h>
#include <stdio.h>

enum { BATCH = 2, HEADS = 8, KV_HEADS = 2, CHANNELS = 64, PAGE = 16, PAGES = 8, PAGES_EACH = 4 };

static float k_pages[PAGES * PAGE * KV_HEADS * CHANNELS],
    v_pages[PAGES * PAGE * KV_HEADS * CHANNELS];
static float q[BATCH * HEADS * CHANNELS], k_new[BATCH * KV_HEADS * CHANNELS],
    v_new[BATCH * KV_HEADS * CHANNELS];
static float out[BATCH * HEADS * CHANNELS];
static int32_t pages[BATCH * PAGES_EACH] = {7, 2, 4, 0, 1, 6, 3, 5}; /* in any order */

static rapt_tensor vector(void *data, rapt_dtype dtype, int64_t size)
{
    return rapt_tensor_bhtd(data, dtype, size, 1, 1, 1);
}

int main(void)
{
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (rapt_open(&context, &config)) return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    rapt_device *device = rapt_device_at(context, 0);
    int64_t held[BATCH] = {0, 0}, now[BATCH];
    rapt_rope_args rope = {.struct_size = sizeof rope, .theta = 10000};

    for (int step = 0; step < 40; step++) {
        for (int i = 0; i < BATCH * KV_HEADS * CHANNELS; i++)
            k_new[i] = 0.01f * (float)(i % 7), v_new[i] = (float)step;
        rapt_kv_append_args append = {.struct_size = sizeof append, .rope = &rope};
        append.k_new = rapt_tensor_bthd(k_new, RAPT_F32, BATCH, KV_HEADS, 1, CHANNELS);
        append.v_new = rapt_tensor_bthd(v_new, RAPT_F32, BATCH, KV_HEADS, 1, CHANNELS);
        append.k = rapt_tensor_bthd(k_pages, RAPT_F32, PAGES, KV_HEADS, PAGE, CHANNELS);
        append.v = rapt_tensor_bthd(v_pages, RAPT_F32, PAGES, KV_HEADS, PAGE, CHANNELS);
        append.kv_length = vector(held, RAPT_I64, BATCH);
        append.page_table = rapt_tensor_bhtd(pages, RAPT_I32, BATCH, 1, PAGES_EACH, 1);
        for (int b = 0; b < BATCH; b++) now[b] = held[b] + 1;

        rapt_attention a = {.struct_size = sizeof a, .causal = 1};
        a.q = rapt_tensor_bthd(q, RAPT_F32, BATCH, HEADS, 1, CHANNELS);
        a.k = append.k, a.v = append.v, a.page_table = append.page_table;
        a.out = rapt_tensor_bthd(out, RAPT_F32, BATCH, HEADS, 1, CHANNELS);
        a.kv_length = vector(now, RAPT_I64, BATCH);
        if (rapt_kv_append(device, &append, NULL) || rapt_forward(device, &a, NULL))
            return fprintf(stderr, "%s\n", rapt_last_error()), 1;
        for (int b = 0; b < BATCH; b++) held[b] = now[b];
    }
    /* q is 0, so all 40 tokens weigh the same and their values 0 ... 39 average to 19.5. */
    printf("40 tokens decoded; out[0] = %g\n", out[0]);
    rapt_close(&context);
    return fabsf(out[0] - 19.5f) > 1e-3f;
}
