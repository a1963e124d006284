/* properties.c: what must hold between two calls: same bits, and nothing leaking between rows. Each
 * test runs on every chosen device (tests/devices.h). Lines S.. are of docs/SEMANTICS.md. */
#include "trial.h"

static void assert_same_bits(const struct trial *x, const struct trial *y, const char *why)
{
    const rapt_attention *a = &x->host.args.forward, *b = &y->host.args.forward;
    const rapt_tensor *pairs[3][2] = {
        {&a->out, &b->out}, {&a->lse, &b->lse}, {&a->weights, &b->weights}};
    for (int n = 0; n < 3; n++) {
        const rapt_tensor *t = pairs[n][0];
        for (int64_t s = 0; s < t->size[0] && t->dtype; s++)
            for (int64_t h = 0; h < t->size[1]; h++)
                for (int64_t i = 0; i < t->size[2]; i++)
                    if (row_differs(t, pairs[n][1], s, h, i, s))
                        fail_msg("%s: row %lld,%lld,%lld differs: %s", x->line.text, (long long)s,
                                 (long long)h, (long long)i, why);
    }
}

/* ---- Same bits (S24, S25) ---- */

/* Lines of every kind of schedule: tiles, few queries, many keys, packed, paged. */
static const char *const schedules[] = {
    "forward %s b2 h4/2 q100 kv150 d64 causal lse",
    "forward %s b2 h8/2 q1 kv1000 d64 lse kvlen=1000,333",
    "forward %s h4/2 q60 kv90 d64 causal lse qlens=3,60,0,17,1 kvlens=3,60,5,90,33",
    "forward %s b3 h8/2 q2 kv150 d128 causal lse paged16 kvlen=150,3,77",
    "forward %s b1 h16/8 q1 kv4500 d128 out-f32 lse window4482,0",
    "forward %s b1 h3 q40 kv70 d59 bias mask sink alibi lse weights"};
enum { SCHEDULES = sizeof schedules / sizeof *schedules };

static void repeat(const char *text, rapt_device *device)
{
    struct trial *first = trial_of(text, device);
    for (int n = 0; n < 3; n++) {
        struct trial *again = trial_of(text, device);
        assert_same_bits(first, again, "the same call a second time");
        problem_reset(&again->host);
        trial_refresh(again);
        trial_run(again);
        assert_same_bits(first, again, "the same memory a second time");
        trial_close(again);
    }
    trial_close(first);
}

static void same_call_same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < SCHEDULES; i++) each_type(schedules[i], repeat);
}

/* On the CPU: one thread, several, more than there are processors. */
static void any_number_of_threads_same_bits(void **state)
{
    static const int64_t threads[] = {1, 2, 3, 5, 16};
    (void)state;
    for (int i = 0; i < SCHEDULES; i++)
        for (size_t n = 0; n < 3; n++) {
            struct trial *first = NULL;
            char text[PROBLEM_LINE];
            snprintf(text, sizeof text, schedules[i], types[n]);
            for (size_t c = 0; c < sizeof threads / sizeof *threads; c++) {
                rapt_context *context;
                rapt_config config = {
                    .struct_size = sizeof config, .threads = threads[c], .backends = "cpu"};
                assert_int_equal(rapt_open(&context, &config), RAPT_OK);
                struct trial *t = trial_of(text, rapt_device_at(context, 0));
                if (first) assert_same_bits(first, t, "another number of threads");
                if (!first) first = t;
                else trial_close(t);
                if (first == t) t->there.device = NULL;
                rapt_close(&context);
            }
            problem_free(&first->host);
            free(first);
        }
}

/* Sequence b of a dense tensor, or the tokens of a packed one that starts give it. */
static rapt_tensor sequence_of(const rapt_tensor *t, const rapt_tensor *starts, int64_t b)
{
    rapt_tensor one = *t;
    int64_t first = 0;
    if (starts->dtype) {
        first = load_index(starts->data, starts->dtype, tensor_offset(starts, b, 0, 0, 0));
        one.size[2] =
            load_index(starts->data, starts->dtype, tensor_offset(starts, b + 1, 0, 0, 0)) - first;
        b = 0;
    }
    one.data = (char *)one.data + tensor_offset(t, b, 0, first, 0) * (int64_t)dtype_size(t->dtype);
    one.size[0] = 1;
    return one;
}

static void copy_sequence(const rapt_tensor *from, const rapt_tensor *to)
{
    size_t bytes = dtype_size(from->dtype);
    for (int64_t h = 0; h < from->size[1]; h++)
        for (int64_t i = 0; i < from->size[2]; i++)
            for (int64_t c = 0; c < from->size[3]; c++)
                memcpy((char *)to->data + tensor_offset(to, 0, h, i, c) * (int64_t)bytes,
                       (char *)from->data + tensor_offset(from, 0, h, i, c) * (int64_t)bytes,
                       bytes);
}

/* A sequence alone, in other company and in another place has the bits that it has in the batch.
 * The values of a sequence depend on its index, so its rows are moved from the batch's host memory;
 * paged ones stay at their place. */
static void company(const char *pattern, const char *lengths, const char *other, int64_t b,
                    int64_t place, rapt_device *device)
{
    char text[PROBLEM_LINE];
    snprintf(text, sizeof text, pattern, lengths);
    struct trial *batch = trial_of(text, device);
    snprintf(text, sizeof text, pattern, other);
    struct trial *moved = trial_open(text, device);
    const rapt_attention *x = &batch->host.args.forward, *y = &moved->host.args.forward;
    const struct {
        const rapt_tensor *from, *to, *from_starts, *to_starts;
    } inputs[] = {{&x->q, &y->q, &x->q_start, &y->q_start},
                  {&x->k, &y->k, &x->kv_start, &y->kv_start},
                  {&x->v, &y->v, &x->kv_start, &y->kv_start}};
    assert_true(!x->page_table.dtype || b == place);
    for (int n = 0; n < (x->page_table.dtype ? 1 : 3); n++) {
        rapt_tensor from = sequence_of(inputs[n].from, inputs[n].from_starts, b),
                    to = sequence_of(inputs[n].to, inputs[n].to_starts, place);
        assert_int_equal(from.size[2], to.size[2]);
        copy_sequence(&from, &to);
    }
    trial_refresh(moved);
    trial_run(moved);
    rapt_tensor out = sequence_of(&x->out, &x->q_start, b),
                again = sequence_of(&y->out, &y->q_start, place);
    for (int64_t h = 0; h < out.size[1]; h++)
        for (int64_t i = 0; i < out.size[2]; i++)
            if (row_differs(&out, &again, 0, h, i, 0))
                fail_msg("%s: sequence %lld of %s differs at place %lld of %s", pattern,
                         (long long)b, lengths, (long long)place, other);
    trial_close(moved);
    trial_close(batch);
}

static void batch_invariant_same_bits(void **state)
{
    static const char *const dense[] = {
        "forward f32 h8/2 q1 kv900 d64 causal batch_invariant kvlen=%s",
        "forward bf16 h8/2 q1 kv900 d64 causal batch_invariant kvlen=%s",
        "forward f16 h4/2 q5 kv900 d128 causal batch_invariant kvlen=%s",
        "forward bf16 h4/2 q60 kv900 d64 causal batch_invariant kvlen=%s",
        "forward bf16 kv-i8 h4/2 q300 kv900 d128 causal scales=1h1 batch_invariant kvlen=%s"};
    static const char *const cut_by_gpus[] = {
        "forward bf16 h8/2 q1 kv3000 d128 causal batch_invariant kvlen=%s",
        "forward f16 h8/2 q2 kv3000 d64 causal window1500,0 sink batch_invariant kvlen=%s",
        "forward bf16 h8/2 q1 kv3000 d64 causal batch_invariant kvlens=%s"};
    (void)state;
    EACH_DEVICE(device) for (size_t i = 0; i < sizeof dense / sizeof *dense; i++)
    {
        company(dense[i], "900,700,3", "700", 1, 0, device);
        company(dense[i], "900,700,3", "5,0,700,700,33,1", 1, 3, device);
        company(dense[i], "31,900,900", "900,1", 2, 0, device);
    }
    EACH_DEVICE(device) for (size_t i = 0; i < sizeof cut_by_gpus / sizeof *cut_by_gpus; i++)
    {
        company(cut_by_gpus[i], "3000,1030,3", "1030", 1, 0, device);
        company(cut_by_gpus[i], "3000,1030,2049", "5,0,2049,1030,33,3000", 2, 2, device);
        company(cut_by_gpus[i], "7,3000", "3000", 1, 0, device);
    }
}

/* Keys that several blocks share: a batch may have cuts that a sequence of it does not reach. */
static void batch_invariant_cuts(void **state)
{
    static const char *const lines[] = {
        "forward f32 h4/2 q1 kv2100 d64 causal sink batch_invariant %s",
        "forward bf16 h4/2 q2 kv2100 d128 causal batch_invariant %s",
        "forward f16 h4/2 q1 kv2100 d64 window1100,0 batch_invariant %s"};
    (void)state;
    EACH_DEVICE(device) for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    {
        company(lines[i], "b3 kvlen=2100,1500,3", "b1 kvlen=1500", 1, 0, device);
        company(lines[i], "b2 kvlen=1025,2100", "b4 kvlen=5,0,9,1025", 0, 3, device);
        company(lines[i], "b3 kvlens=900,700,1200", "b1 kvlens=700", 1, 0, device);
        company(lines[i], "b1 kvlens=1200", "b3 kvlens=900,700,1200", 0, 2, device);
    }
}

/* Prompts and decode steps in one packed batch, as engines schedule them. */
static void batch_invariant_packed(void **state)
{
    static const char *const ragged[] = {
        "forward f32 h8/2 q60 kv900 d64 causal batch_invariant %s",
        "forward bf16 h8/2 q60 kv900 d64 causal batch_invariant %s",
        "forward f16 h4/2 q60 kv900 d128 causal batch_invariant %s"};
    static const char *const paged[] = {
        "forward f32 h8/2 q60 kv900 d64 causal batch_invariant paged16 %s",
        "forward bf16 h8/2 q60 kv900 d64 causal batch_invariant paged16 %s"};
    (void)state;
    EACH_DEVICE(device) for (size_t i = 0; i < sizeof ragged / sizeof *ragged; i++)
    {
        company(ragged[i], "qlens=1,60,1 kvlens=900,60,3", "qlens=60 kvlens=60", 1, 0, device);
        company(ragged[i], "qlens=1,60,1 kvlens=900,60,3", "qlens=9,1,0,1 kvlens=9,70,5,900", 0, 3,
                device);
    }
    EACH_DEVICE(device) for (size_t i = 0; i < sizeof paged / sizeof *paged; i++)
    {
        company(paged[i], "qlens=1,60,1 kvlen=900,60,3", "qlens=1 kvlen=900", 0, 0, device);
        company(paged[i], "qlens=1,60,1 kvlen=900,60,3", "qlens=7,60 kvlen=7,60", 1, 1, device);
    }
}

/* Beside a longer sequence, which has more keys in all, or a wider table of pages. */
static void batch_invariant_beside_long(void **state)
{
    static const char *const packed[] = {
        "forward f32 h4/2 q1 kv20000 d64 causal batch_invariant %s",
        "forward bf16 h4/2 q1 kv20000 d64 batch_invariant %s"};
    static const char *const paged[] = {"forward f32 h8/2 d64 causal batch_invariant paged16 %s",
                                        "forward bf16 h8/2 d64 causal batch_invariant paged16 %s"};
    (void)state;
    EACH_DEVICE(device) for (size_t i = 0; i < 2; i++)
    {
        company(packed[i], "kvlens=1500,20000", "kvlens=1500", 0, 0, device);
        company(packed[i], "kvlens=20000,5000", "kvlens=9,5000", 1, 1, device);
        company(paged[i], "q1 kv20000 kvlen=1500,20000", "q1 kv1504 kvlen=1500", 0, 0, device);
        company(paged[i], "q10 kv100 kvlen=30,100", "q10 kv32 kvlen=30", 0, 0, device);
        company(paged[i], "q4 kv100 kvlen=12,100", "q4 kv16 kvlen=12", 0, 0, device);
        company(paged[i], "q40 kv1000 kvlen=90,1000", "q40 kv96 kvlen=90", 0, 0, device);
    }
}

/* ---- Nothing leaks (S18; S19 in spoilers.c) ---- */

/* What hidden memory holds does not matter: the line with NaN there has the bits of the line with
 * numbers there. */
static void hidden(const char *text, rapt_device *device)
{
    char poisoned[PROBLEM_LINE];
    snprintf(poisoned, sizeof poisoned, "%s hidden-nan", text);
    struct trial *x = trial_of(text, device), *y = trial_of(poisoned, device);
    assert_same_bits(x, y, "hidden keys and values are NaN");
    trial_close(x);
    trial_close(y);
}

static void hidden_memory_does_not_matter(void **state)
{
    (void)state;
    each_type("forward %s b1 h2 q9 kv80 d32 causal topleft lse", hidden);
    each_type("forward %s b1 h4/2 q5 kv150 d64 window20,0 causal lse", hidden);
    each_type("forward %s b1 h8/2 q1 kv700 d64 window40,0 lse", hidden);
    each_type("forward %s b1 h4/2 q40 kv90 d32 mask=111k lse weights", hidden);
    each_type("forward %s b1 h8/2 q1 kv300 d64 mask=111k lse", hidden);
    each_type("forward %s h4/2 q20 kv60 d32 causal topleft lse qlens=3,20 kvlens=60,21", hidden);
    each_type("forward %s b1 h2 q23 kv23 d64 window2,0 causal lse", hidden);
}

/* Unused tokens, the tails of pages and pages of nobody: NaN by default, and numbers here. */
static void fill_unused(const rapt_tensor *t)
{
    static const unsigned char ones[4] = {0xff, 0xff, 0xff, 0xff};
    size_t bytes = dtype_size(t->dtype);
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t i = 0; i < t->size[2]; i++)
                for (int64_t c = 0; c < t->size[3]; c++) {
                    int64_t at = tensor_offset(t, b, h, i, c);
                    if (!memcmp((char *)t->data + at * (int64_t)bytes, ones, bytes))
                        store_float(t->data, t->dtype, at, 1e4f);
                }
}

static void unused(const char *text, rapt_device *device)
{
    struct trial *x = trial_of(text, device), *y = trial_open(text, device);
    fill_unused(&y->host.args.forward.k);
    fill_unused(&y->host.args.forward.v);
    trial_refresh(y);
    trial_run(y);
    assert_same_bits(x, y, "unused keys and values are numbers in place of NaN");
    trial_close(x);
    trial_close(y);
}

static void unused_memory_does_not_matter(void **state)
{
    (void)state;
    each_type("forward %s b3 h4/2 q20 kv90 d64 causal lse kvlen=90,33,0", unused);
    each_type("forward %s b3 h8/2 q1 kv300 d64 causal lse kvlen=300,33,0", unused);
    each_type("forward %s b3 h8/2 q1 kv300 d64 causal lse paged16 kvlen=300,33,0", unused);
    each_type("forward %s b3 h4/2 q40 kv100 d64 causal lse paged7 kvlen=100,33,0", unused);
}

/* Changing later keys changes no earlier row. */
static void future(const char *text, rapt_device *device)
{
    struct trial *x = trial_of(text, device), *y = trial_open(text, device);
    const rapt_attention *a = &y->host.args.forward;
    int64_t from = 37;
    for (int64_t h = 0; h < a->k.size[1]; h++)
        for (int64_t j = from; j < a->k.size[2]; j++) {
            store_float(a->k.data, a->k.dtype, tensor_offset(&a->k, 0, h, j, 3), 50);
            store_float(a->v.data, a->v.dtype, tensor_offset(&a->v, 0, h, j, 3), -50);
        }
    trial_refresh(y);
    trial_run(y);
    for (int64_t h = 0; h < a->out.size[1]; h++)
        for (int64_t i = 0; i < from; i++)
            if (row_differs(&x->host.args.forward.out, &a->out, 0, h, i, 0))
                fail_msg("%s: row %lld saw a key behind it", text, (long long)i);
    trial_close(x);
    trial_close(y);
}

static void the_future_is_hidden(void **state)
{
    (void)state;
    each_type("forward %s b1 h4/2 q90 kv90 d64 causal", future);
    each_type("forward %s b1 h4/1 q90 kv90 d80 causal window50,0", future);
    each_type("forward %s b1 h4/2 q300 kv300 d128 causal", future);
}

/* Rows whose visible scores are all -inf have no weight, and no value reaches them, not even NaN. */
static void weightless(const char *text, rapt_device *device)
{
    struct trial *t = trial_open(text, device);
    const rapt_attention *a = &t->host.args.forward;
    for (int64_t h = 0; h < a->q.size[1]; h++)
        for (int64_t i = 0; i < a->q.size[2]; i++)
            for (int64_t c = 0; c < a->q.size[3]; c++)
                store_float(a->q.data, a->q.dtype, tensor_offset(&a->q, 0, h, i, c), 1);
    for (int64_t h = 0; h < a->k.size[1]; h++)
        for (int64_t j = 0; j < a->k.size[2]; j++) {
            store_float(a->k.data, a->k.dtype, tensor_offset(&a->k, 0, h, j, 0), -INFINITY);
            store_float(a->v.data, a->v.dtype, tensor_offset(&a->v, 0, h, j, 5), NAN);
        }
    trial_refresh(t);
    trial_run(t);
    for (int64_t h = 0; h < a->out.size[1]; h++)
        for (int64_t i = 0; i < a->out.size[2]; i++) {
            float lse = load_float(a->lse.data, a->lse.dtype, tensor_offset(&a->lse, 0, h, i, 0));
            if (lse != -INFINITY) fail_msg("%s: lse of row %lld is %g", text, (long long)i, lse);
            for (int64_t c = 0; c < a->out.size[3]; c++)
                if (load_float(a->out.data, a->out.dtype, tensor_offset(&a->out, 0, h, i, c)) != 0)
                    fail_msg("%s: row %lld has a value", text, (long long)i);
        }
    trial_close(t);
}

static void weightless_values_do_not_matter(void **state)
{
    (void)state;
    each_type("forward %s b1 h4/2 q90 kv90 d64 causal lse", weightless);
    each_type("forward %s b1 h8/2 q1 kv300 d64 lse", weightless);
    each_type("forward %s b1 h2 q16 kv16 d64 lse", weightless);
    each_type("forward %s b1 h2 q16 kv16 d64 causal lse", weightless);
    each_type("forward %s b1 h2 q16 kv16 d128 causal lse", weightless);
    each_type("forward %s b1 h2 q130 kv300 d128 causal window200,0 lse", weightless);
    each_type("forward %s b1 h2 q260 kv300 d128 lse", weightless);
}

/* A row of NaN has weights of NaN, and still exactly 0 where a key is hidden (S15; on CPUs). */
static void spoiled(const char *text, rapt_device *device)
{
    rapt_device_info info = {.struct_size = sizeof info};
    if (rapt_device_describe(device, &info) || strcmp(info.backend, "cpu")) return;
    struct trial *t = trial_of(text, device);
    assert_accurate(t);
    trial_close(t);
}

static void rows_of_nan_hide_keys(void **state)
{
    (void)state;
    each_type("forward %s b1 h2 q20 kv30 d32 nan_q mask weights lse", spoiled);
    each_type("forward %s b1 h2 q20 kv30 d32 nan_q causal window9,0 weights lse", spoiled);
}

/* A query with infinity whose scores are all -inf: a product with parts of it must not be NaN (S17; on CPUs);
 * and one with NaN, whose scores all are. */
static void odd_query(const char *text, rapt_device *device, float odd)
{
    rapt_device_info info = {.struct_size = sizeof info};
    if (rapt_device_describe(device, &info) || strcmp(info.backend, "cpu")) return;
    struct trial *t = trial_open(text, device);
    rapt_attention *const both[2] = {&t->there.args.forward, &t->host.args.forward};
    for (int n = 0; n < 2; n++) {
        const rapt_tensor *q = &both[n]->q, *k = &both[n]->k;
        store_float(q->data, q->dtype, tensor_offset(q, 0, 1, q->size[2] / 2, 3), odd);
        for (int64_t j = 0; j < k->size[2]; j++)
            store_float(k->data, k->dtype, tensor_offset(k, 0, 0, j, 3), -1);
    }
    trial_run(t);
    assert_accurate(t);
    trial_close(t);
}

static void infinite_query(const char *text, rapt_device *device)
{
    odd_query(text, device, INFINITY);
    odd_query(text, device, NAN);
}

static void infinite_queries_see_nothing(void **state)
{
    (void)state;
    each_type("forward %s b1 h4/2 q70 kv90 d64 lse", infinite_query);
    each_type("forward %s b1 h4/2 q70 kv90 d64 causal lse", infinite_query);
}

/* ---- Empty rows and sinks (S13, S16) ---- */

static void empty(const char *text, rapt_device *device)
{
    struct trial *t = trial_of(text, device);
    const rapt_attention *a = &t->host.args.forward;
    int64_t count = 0;
    for (int64_t b = 0; b < t->line.batch; b++)
        for (int64_t h = 0; h < a->out.size[1]; h++)
            for (int64_t i = 0; i < problem_q_length(&t->line, b); i++) {
                int64_t first, last;
                problem_visible(&t->line, b, i, &first, &last);
                if (first < last) continue;
                count++;
                float sink = a->sink.dtype ? load_float(a->sink.data, RAPT_F32,
                                                        tensor_offset(&a->sink, b, h, 0, 0))
                                           : -INFINITY;
                float lse =
                    load_float(a->lse.data, RAPT_F32, oracle_offset(a, &a->lse, b, h, i, 0));
                if (!(lse == sink))
                    fail_msg("%s: lse of an empty row is %g, should be %g", text, (double)lse,
                             (double)sink);
                for (int64_t c = 0; c < a->out.size[3]; c++)
                    if (!(load_float(a->out.data, a->out.dtype,
                                     oracle_offset(a, &a->out, b, h, i, c)) == 0))
                        fail_msg("%s: out of an empty row is not 0", text);
            }
    assert_true(count > 0);
    trial_close(t);
}

static void empty_rows_are_zero(void **state)
{
    (void)state;
    each_type("forward %s b1 h2 q200 kv70 d64 causal lse", empty);
    each_type("forward %s b1 h2 q200 kv70 d64 window8,8 topleft lse", empty);
    each_type("forward %s b3 h4/2 q1 kv300 d64 lse kvlen=300,0,5", empty);
    each_type("forward %s b3 h4/2 q9 kv300 d64 lse paged16 kvlen=300,0,5", empty);
    each_type("forward %s b2 h2 q5 kv0 d64 lse", empty);
    each_type("forward %s b1 h2 q8 kv3 d64 nan_v causal lse", empty); /* beside rows that see it */
    each_type("forward %s h4/2 q9 kv30 d64 lse qlens=9,9 kvlens=0,30", empty);
}

static void rows_with_a_sink_alone(void **state)
{
    (void)state;
    each_type("forward %s b1 h4 q80 kv30 d64 causal sink lse", empty);
    each_type("forward %s b3 h4/2 q1 kv300 d64 sink lse kvlen=300,0,5", empty);
    each_type("forward %s b2 h4 q5 kv0 d64 sink-inf lse", empty);
}

/* ---- Merging by lse (S22) ---- */

/* Attention over the keys [from, to) of a trial: views of the same memory. Results stay in the
 * trial's device memory. */
static void run_part(struct trial *t, int64_t from, int64_t to)
{
    rapt_attention a = t->there.args.forward;
    rapt_tensor *kv[2] = {&a.k, &a.v};
    for (int n = 0; n < 2; n++) {
        kv[n]->data =
            (char *)kv[n]->data + from * kv[n]->stride[2] * (int64_t)dtype_size(kv[n]->dtype);
        kv[n]->size[2] = to - from;
    }
    if (rapt_forward(t->there.device, &a, NULL)) fail_msg("%s", rapt_last_error());
    if (problem_download(&t->there, &t->host)) fail_msg("%s", rapt_last_error());
}

static void merge(const char *text, const int64_t cuts[4], rapt_device *device)
{
    struct trial *t = trial_open(text, device);
    const rapt_attention *a = &t->host.args.forward;
    int64_t rows = a->out.size[1] * a->out.size[2], dv = a->out.size[3];
    double *sum = calloc((size_t)(rows * dv), sizeof *sum),
           *lse = malloc((size_t)rows * sizeof *lse);
    for (int64_t r = 0; r < rows; r++) lse[r] = -INFINITY;
    for (int n = 0; n < 3; n++) {
        run_part(t, cuts[n], cuts[n + 1]);
        for (int64_t r = 0; r < rows; r++) {
            int64_t h = r / a->out.size[2], i = r % a->out.size[2];
            double part = load_float(a->lse.data, RAPT_F32, tensor_offset(&a->lse, 0, h, i, 0));
            double most = fmax(part, lse[r]),
                   all =
                       most == -INFINITY ? most : most + log(exp(part - most) + exp(lse[r] - most));
            double keep = all == -INFINITY ? 0 : exp(lse[r] - all),
                   add = all == -INFINITY ? 0 : exp(part - all);
            for (int64_t c = 0; c < dv; c++)
                sum[r * dv + c] =
                    keep * sum[r * dv + c] +
                    add * load_float(a->out.data, a->out.dtype, tensor_offset(&a->out, 0, h, i, c));
            lse[r] = all;
        }
    }
    for (int64_t r = 0; r < rows;
         r++) { /* judged by the whole problem's bound, to which a merge in f64 adds nothing */
        int64_t h = r / a->out.size[2], i = r % a->out.size[2];
        store_float(a->lse.data, RAPT_F32, tensor_offset(&a->lse, 0, h, i, 0), (float)lse[r]);
        for (int64_t c = 0; c < dv; c++)
            store_float(a->out.data, a->out.dtype, tensor_offset(&a->out, 0, h, i, c),
                        (float)sum[r * dv + c]);
    }
    assert_accurate(t);
    free(sum);
    free(lse);
    trial_close(t);
}

static void parts_merge_by_lse(void **state)
{
    static const char *const lines[] = {"forward f32 b1 h4/2 q20 kv150 d64 lse",
                                        "forward bf16 out-f32 b1 h4/2 q20 kv150 d64 lse",
                                        "forward f16 out-f32 b1 h8/2 q1 kv150 d128 lse",
                                        "forward f32 b1 h2 q5 kv150 d64 lse growing",
                                        "forward f32 b1 h2 q5 kv150 d64 lse huge",
                                        "forward f32 b1 h2 q5 kv150 d64 softcap5 lse"};
    static const int64_t cuts[3][4] = {{0, 75, 110, 150}, {0, 0, 1, 150}, {0, 149, 150, 150}};
    (void)state;
    EACH_DEVICE(device)
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        for (int n = 0; n < 3; n++) merge(lines[i], cuts[n], device);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_call_same_bits),
                                       cmocka_unit_test(any_number_of_threads_same_bits),
                                       cmocka_unit_test(batch_invariant_same_bits),
                                       cmocka_unit_test(batch_invariant_cuts),
                                       cmocka_unit_test(batch_invariant_packed),
                                       cmocka_unit_test(batch_invariant_beside_long),
                                       cmocka_unit_test(hidden_memory_does_not_matter),
                                       cmocka_unit_test(unused_memory_does_not_matter),
                                       cmocka_unit_test(the_future_is_hidden),
                                       cmocka_unit_test(weightless_values_do_not_matter),
                                       cmocka_unit_test(rows_of_nan_hide_keys),
                                       cmocka_unit_test(infinite_queries_see_nothing),
                                       cmocka_unit_test(empty_rows_are_zero),
                                       cmocka_unit_test(rows_with_a_sink_alone),
                                       cmocka_unit_test(parts_merge_by_lse)};
    return run_on_devices("properties", tests, sizeof tests / sizeof *tests, argc, argv);
}
