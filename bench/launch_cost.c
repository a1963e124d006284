/* launch_cost.c: what one rapt_plan_execute costs the CPU on each GPU, in microseconds: the best of
 * many bursts that are far shorter than a launch queue, so that neither other processes nor a full
 * queue count. Built and run by `make bench-launch`. */
#include <rapt/rapt.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { HEADS = 8, KV_HEADS = 2, TOKENS = 128, CHANNELS = 64, BURST = 32 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int measure(rapt_device *device, const char *name)
{
    size_t bytes = (size_t)HEADS * TOKENS * CHANNELS * 2;
    void *memory[4] = {0}, *workspace = NULL;
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    rapt_plan *plan = NULL;
    int status = RAPT_OK;
    for (int i = 0; i < 4 && !status; i++) status = rapt_alloc(device, bytes, &memory[i]);
    a.q = rapt_tensor_bthd(memory[0], RAPT_BF16, 1, HEADS, TOKENS, CHANNELS);
    a.k = rapt_tensor_bthd(memory[1], RAPT_BF16, 1, KV_HEADS, TOKENS, CHANNELS);
    a.v = rapt_tensor_bthd(memory[2], RAPT_BF16, 1, KV_HEADS, TOKENS, CHANNELS);
    a.out = rapt_tensor_bthd(memory[3], RAPT_BF16, 1, HEADS, TOKENS, CHANNELS);
    if (!status) status = rapt_plan_create(&plan, device, &a);
    if (!status && rapt_plan_workspace_size(plan))
        status = rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace);
    double best = 1e9;
    for (int burst = 0; burst < 200 && !status; burst++) {
        double begin = now();
        for (int i = 0; i < BURST && !status; i++)
            status = rapt_plan_execute(plan, &a, workspace, NULL);
        double each = (now() - begin) / BURST;
        if (each < best) best = each;
        if (!status) status = rapt_synchronize(device, NULL);
    }
    if (status)
        fprintf(stderr, "%s\n", rapt_last_error());
    else
        printf("%s, %s: %.2f us of CPU time per execute\n", name, rapt_plan_kernel(plan), best);
    for (int i = 0; i < 4; i++) rapt_free(device, memory[i]);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    return status;
}

int main(void)
{
    rapt_context *context;
    int gpus = 0, failed = 0;
    if (rapt_open(&context, NULL)) return fprintf(stderr, "%s\n", rapt_last_error()), 1;
    for (int i = 0; i < rapt_device_count(context); i++) {
        rapt_device_info info = {.struct_size = sizeof info};
        rapt_device_describe(rapt_device_at(context, i), &info);
        if (!strcmp(info.backend, "cpu")) continue;
        gpus++;
        failed |= measure(rapt_device_at(context, i), info.name);
    }
    if (!gpus) puts("no GPU here");
    rapt_close(&context);
    return failed;
}
