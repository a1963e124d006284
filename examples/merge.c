/* merge.c: attention over two halves of the keys, merged exactly by their log-sum-exps, as context
 * parallelism does. */
#include <math.h>
#include <rapt/rapt.h>
#include <stdio.h>

enum { TOKENS = 64, KEYS = 256, CHANNELS = 32 };

static float q[TOKENS * CHANNELS], k[KEYS * CHANNELS], v[KEYS * CHANNELS];
static float whole[TOKENS * CHANNELS], half[2][TOKENS * CHANNELS], whole_lse[TOKENS],
    lse[2][TOKENS];

static int attend(rapt_device *device, int first, int keys, float *out, float *log_sum)
{
    rapt_attention a = {.struct_size = sizeof a};
    a.q = rapt_tensor_bhtd(q, RAPT_F32, 1, 1, TOKENS, CHANNELS);
    a.k = rapt_tensor_bhtd(k + first * CHANNELS, RAPT_F32, 1, 1, keys, CHANNELS);
    a.v = rapt_tensor_bhtd(v + first * CHANNELS, RAPT_F32, 1, 1, keys, CHANNELS);
    a.out = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, TOKENS, CHANNELS);
    a.lse = rapt_tensor_bhtd(log_sum, RAPT_F32, 1, 1, TOKENS, 1);
    return rapt_forward(device, &a, NULL);
}

int main(void)
{
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (rapt_open(&context, &config)) return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    rapt_device *device = rapt_device_at(context, 0);
    for (int i = 0; i < TOKENS * CHANNELS; i++) q[i] = sinf((float)i);
    for (int i = 0; i < KEYS * CHANNELS; i++)
        k[i] = cosf(0.7f * (float)i), v[i] = sinf(0.3f * (float)i);
    if (attend(device, 0, KEYS, whole, whole_lse) || attend(device, 0, KEYS / 2, half[0], lse[0]) ||
        attend(device, KEYS / 2, KEYS / 2, half[1], lse[1]))
        return fprintf(stderr, "%s\n", rapt_last_error()), 1;

    float greatest = 0;
    for (int t = 0; t < TOKENS; t++) {
        float sum = logf(expf(lse[0][t]) + expf(lse[1][t]));
        for (int c = 0; c < CHANNELS; c++) {
            float merged = expf(lse[0][t] - sum) * half[0][t * CHANNELS + c] +
                           expf(lse[1][t] - sum) * half[1][t * CHANNELS + c];
            greatest = fmaxf(greatest, fabsf(merged - whole[t * CHANNELS + c]));
        }
        greatest = fmaxf(greatest, fabsf(sum - whole_lse[t]));
    }
    printf("greatest difference between the merged halves and the whole: %g\n", greatest);
    rapt_close(&context);
    return greatest > 1e-5f;
}
