/* merge.c: attention over two parts of the keys, merged exactly by their log-sum-exps, as a shared
 * prefix, context parallelism or a cache in two places needs it.
 * cc merge.c $(pkg-config --cflags --libs rapt) -lm */
#include <math.h>
#include <rapt/rapt.h>
#include <stdio.h>

enum { TOKENS = 64, PREFIX = 192, KEYS = PREFIX + TOKENS, CHANNELS = 32 };

static float q[TOKENS * CHANNELS], k[KEYS * CHANNELS], v[KEYS * CHANNELS];
static float whole[TOKENS * CHANNELS], part[2][TOKENS * CHANNELS], whole_lse[TOKENS],
    lse[2][TOKENS];

static int attend(rapt_device *device, int first, int keys, int causal, float *out, float *log_sum)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = causal};
    a.q = rapt_tensor_bhtd(q, RAPT_F32, 1, 1, TOKENS, CHANNELS);
    a.k = rapt_tensor_bhtd(k + first * CHANNELS, RAPT_F32, 1, 1, keys, CHANNELS);
    a.v = rapt_tensor_bhtd(v + first * CHANNELS, RAPT_F32, 1, 1, keys, CHANNELS);
    a.out = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, TOKENS, CHANNELS);
    a.lse = rapt_tensor_bhtd(log_sum, RAPT_F32, 1, 1, TOKENS, 1);
    return rapt_forward(device, &a, NULL);
}

/* The shares of two parts and the log-sum-exp of both. A part without a key has -INFINITY; expf of a
 * difference to the larger one cannot overflow. */
static float merge(float first, float second, float share[2])
{
    float top = fmaxf(first, second);
    share[0] = top > -INFINITY ? expf(first - top) : 0;
    share[1] = top > -INFINITY ? expf(second - top) : 0;
    float sum = share[0] + share[1];
    if (sum > 0) share[0] /= sum, share[1] /= sum;
    return top + logf(sum);
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
    /* Causal masks end at the last key, so the part with the queries' own keys is causal; all of the
     * other part is past. */
    if (attend(device, 0, KEYS, 1, whole, whole_lse) ||
        attend(device, 0, PREFIX, 0, part[0], lse[0]) ||
        attend(device, PREFIX, TOKENS, 1, part[1], lse[1]))
        return fprintf(stderr, "%s\n", rapt_last_error()), 1;

    float greatest = 0, share[2];
    for (int t = 0; t < TOKENS; t++) {
        float sum = merge(lse[0][t], lse[1][t], share);
        for (int c = t * CHANNELS; c < (t + 1) * CHANNELS; c++)
            greatest =
                fmaxf(greatest, fabsf(share[0] * part[0][c] + share[1] * part[1][c] - whole[c]));
        greatest = fmaxf(greatest, fabsf(sum - whole_lse[t]));
    }
    float nothing = merge(-INFINITY, -INFINITY, share), alone = merge(-INFINITY, 3, share);
    printf("greatest difference between the merged parts and the whole: %g\n", greatest);
    rapt_close(&context);
    return greatest > 1e-5f || nothing != -INFINITY || alone != 3 || share[1] != 1;
}
