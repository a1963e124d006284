/* api.h: a small attention call that the programs of this folder bend in their ways. */
#ifndef RAPT_TESTS_API_H
#define RAPT_TESTS_API_H

#include "rapt/rapt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"
#include "sentence.h"

enum { B = 2, HQ = 4, HKV = 2, SQ = 5, SKV = 7, D = 8, DV = 6 };

/* The memory of one call; outputs are all 1 bits. */
struct call {
    float q[B * HQ * SQ * D], k[B * HKV * SKV * D], v[B * HKV * SKV * DV];
    float out[B * HQ * SQ * DV], lse[B * HQ * SQ], weights[B * HQ * SQ * SKV];
    float bias[B * HQ * SQ * SKV], slope[B * HQ], sink[B * HQ], scale[B * HKV * SKV];
    int8_t bytes[B * HKV * SKV * D];
    uint8_t mask[B * HQ * SQ * SKV];
    int32_t starts[B + 2], lengths[B + 1], pages[16];
    rapt_attention a;
};

static inline void call_reset(struct call *c)
{
    for (size_t i = 0; i < sizeof c->q / sizeof *c->q; i++) c->q[i] = (float)(i % 13) / 13 - 0.5f;
    for (size_t i = 0; i < sizeof c->k / sizeof *c->k; i++) c->k[i] = (float)(i % 11) / 11 - 0.5f;
    for (size_t i = 0; i < sizeof c->v / sizeof *c->v; i++) c->v[i] = (float)(i % 7) / 7 - 0.5f;
    memset(c->bias, 0, sizeof c->bias);
    memset(c->slope, 0, sizeof c->slope);
    memset(c->sink, 0, sizeof c->sink);
    memset(c->mask, 1, sizeof c->mask);
    for (size_t i = 0; i < sizeof c->scale / sizeof *c->scale; i++) c->scale[i] = 0.01f;
    memset(c->bytes, 3, sizeof c->bytes);
    memset(c->out, 0xff, sizeof c->out);
    memset(c->lse, 0xff, sizeof c->lse);
    memset(c->weights, 0xff, sizeof c->weights);
    for (int i = 0; i < B + 2; i++) c->starts[i] = i < B ? i * SQ : B * SQ;
    for (int i = 0; i <= B; i++) c->lengths[i] = SKV;
    for (int i = 0; i < 16; i++) c->pages[i] = i % B;
    c->a = (rapt_attention){.struct_size = sizeof c->a, .causal = 1};
    c->a.q = rapt_tensor_bthd(c->q, RAPT_F32, B, HQ, SQ, D);
    c->a.k = rapt_tensor_bthd(c->k, RAPT_F32, B, HKV, SKV, D);
    c->a.v = rapt_tensor_bthd(c->v, RAPT_F32, B, HKV, SKV, DV);
    c->a.out = rapt_tensor_bthd(c->out, RAPT_F32, B, HQ, SQ, DV);
}

/* The status of a call that has just returned, and its whole sentence. */
static inline void expect(int64_t status, int64_t expected, const char *sentence)
{
    if (status != expected || !says(rapt_last_error(), sentence))
        fail_msg("%lld, not %lld with \"%s\": %s", (long long)status, (long long)expected, sentence,
                 rapt_last_error());
}

static inline void open_cpu(rapt_context **context, int64_t threads)
{
    rapt_config config = {.struct_size = sizeof config, .threads = threads, .backends = "cpu"};
    if (rapt_open(context, &config)) fail_msg("%s", rapt_last_error());
}

#endif
