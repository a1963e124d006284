/* forward.c: causal grouped-query attention in one call, the smallest useful program.
 * cc forward.c $(pkg-config --cflags --libs rapt) */
#include <rapt/rapt.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    enum { TOKENS = 512, HEADS = 32, KV_HEADS = 8, CHANNELS = 128 };
    float *q = calloc(TOKENS * HEADS * CHANNELS, sizeof *q),
          *out = calloc(TOKENS * HEADS * CHANNELS, sizeof *out);
    float *k = calloc(TOKENS * KV_HEADS * CHANNELS, sizeof *k),
          *v = calloc(TOKENS * KV_HEADS * CHANNELS, sizeof *v);
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config,
                          .backends = "cpu"}; /* host pointers: the CPU; NULL: everything */
    if (!q || !k || !v || !out || rapt_open(&context, &config))
        return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    for (int i = 0; i < TOKENS * KV_HEADS * CHANNELS; i++) v[i] = (float)(i % CHANNELS);

    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rapt_tensor_bthd(q, RAPT_F32, 1, HEADS, TOKENS, CHANNELS);
    a.k = rapt_tensor_bthd(k, RAPT_F32, 1, KV_HEADS, TOKENS, CHANNELS);
    a.v = rapt_tensor_bthd(v, RAPT_F32, 1, KV_HEADS, TOKENS, CHANNELS);
    a.out = rapt_tensor_bthd(out, RAPT_F32, 1, HEADS, TOKENS, CHANNELS);
    if (rapt_forward(rapt_device_at(context, 0), &a, NULL))
        return fprintf(stderr, "%s\n", rapt_last_error()), 1;

    /* Equal scores average the values, and every value of channel 5 is 5. */
    printf("out[last token][last head][5] = %g\n", out[TOKENS * HEADS * CHANNELS - CHANNELS + 5]);
    int wrong = out[TOKENS * HEADS * CHANNELS - CHANNELS + 5] < 4.999f || out[5] > 5.001f;
    rapt_close(&context);
    free(q), free(k), free(v), free(out);
    return wrong;
}
