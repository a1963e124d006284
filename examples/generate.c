/* generate.c: an engine's loop, prefill and then decode steps, over a paged cache with RoPE and with
 * plans of its own. Its outputs are those of one causal call over all tokens.
 * cc generate.c $(pkg-config --cflags --libs rapt) -lm */
#include <math.h>
#include <rapt/rapt.h>
#include <stdio.h>

enum { PROMPT = 37, ALL = 57, HEADS = 8, KV_HEADS = 2, CHANNELS = 64, PAGE = 16, PAGES = 4 };
enum { Q_ROW = HEADS * CHANNELS, KV_ROW = KV_HEADS * CHANNELS };

static float q[ALL * Q_ROW], k[ALL * KV_ROW], v[ALL * KV_ROW], out[ALL * Q_ROW], whole[ALL * Q_ROW];
static float k_pages[PAGES * PAGE * KV_ROW], v_pages[PAGES * PAGE * KV_ROW];
static int64_t position[ALL], held, now;
static int32_t page_table[PAGES] = {2, 0, 3, 1};

static rapt_tensor rows(float *data, int heads, int first, int tokens)
{
    return rapt_tensor_bthd(data + first * heads * CHANNELS, RAPT_F32, 1, heads, tokens, CHANNELS);
}

/* Tokens held ... now - 1: their keys into the cache, rotated on the way; their queries rotated in
 * place; attention over all that the cache holds then. The plan is made once for each shape. */
static int step(rapt_device *device, int tokens, rapt_plan **plan, void **workspace)
{
    int first = (int)held;
    rapt_rope_args rope = {.struct_size = sizeof rope, .theta = 500000};
    rapt_kv_append_args append = {.struct_size = sizeof append, .rope = &rope};
    append.k_new = rows(k, KV_HEADS, first, tokens);
    append.v_new = rows(v, KV_HEADS, first, tokens);
    append.k = rapt_tensor_bthd(k_pages, RAPT_F32, PAGES, KV_HEADS, PAGE, CHANNELS);
    append.v = rapt_tensor_bthd(v_pages, RAPT_F32, PAGES, KV_HEADS, PAGE, CHANNELS);
    append.kv_length = rapt_tensor_bhtd(&held, RAPT_I64, 1, 1, 1, 1);
    append.page_table = rapt_tensor_bhtd(page_table, RAPT_I32, 1, 1, PAGES, 1);
    int status = rapt_kv_append(device, &append, NULL);

    rope.x = rope.out = rows(q, HEADS, first, tokens);
    rope.position = rapt_tensor_bhtd(position + first, RAPT_I64, 1, 1, tokens, 1);
    if (!status) status = rapt_rope(device, &rope, NULL);

    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rope.out, a.out = rows(out, HEADS, first, tokens);
    a.k = append.k, a.v = append.v, a.page_table = append.page_table;
    a.kv_length = rapt_tensor_bhtd(&now, RAPT_I64, 1, 1, 1, 1);
    now = held + tokens;
    if (!status && !*plan && !(status = rapt_plan_create(plan, device, &a)))
        status = rapt_alloc(device, rapt_plan_workspace_size(*plan), workspace);
    if (!status) status = rapt_plan_execute(*plan, &a, *workspace, NULL);
    held = now;
    return status;
}

/* The same by one call over all tokens: K is rotated as the cache's was; q is already. */
static int at_once(rapt_device *device)
{
    rapt_rope_args rope = {.struct_size = sizeof rope, .theta = 500000};
    rope.x = rope.out = rows(k, KV_HEADS, 0, ALL);
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rows(q, HEADS, 0, ALL), a.k = rope.out, a.v = rows(v, KV_HEADS, 0, ALL);
    a.out = rows(whole, HEADS, 0, ALL);
    return rapt_rope(device, &rope, NULL) || rapt_forward(device, &a, NULL);
}

int main(void)
{
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (rapt_open(&context, &config)) return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    rapt_device *device = rapt_device_at(context, 0);
    for (int i = 0; i < ALL; i++) position[i] = i;
    for (int i = 0; i < ALL * Q_ROW; i++) q[i] = sinf((float)i);
    for (int i = 0; i < ALL * KV_ROW; i++)
        k[i] = cosf(0.7f * (float)i), v[i] = sinf(0.3f * (float)i);

    rapt_plan *prefill = NULL, *decode = NULL;
    void *workspace[2] = {NULL, NULL};
    int status = step(device, PROMPT, &prefill, &workspace[0]);
    while (!status && held < ALL) status = step(device, 1, &decode, &workspace[1]);
    if (status || at_once(device)) return fprintf(stderr, "%s\n", rapt_last_error()), 1;

    float greatest = 0;
    for (int i = 0; i < ALL * Q_ROW; i++) greatest = fmaxf(greatest, fabsf(out[i] - whole[i]));
    printf("greatest difference between %d steps and one call: %g\n", 1 + ALL - PROMPT, greatest);
    rapt_plan_destroy(&prefill), rapt_plan_destroy(&decode);
    rapt_free(device, workspace[0]), rapt_free(device, workspace[1]);
    rapt_close(&context);
    return greatest > 1e-5f;
}
