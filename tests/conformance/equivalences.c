/* equivalences.c: calls that must mean the same: an option left at zero, the separate operations
 * joined, copied heads, a cache filled token by token. Each test runs on every chosen device
 * (tests/devices.h). */
#include "trial.h"

/* ---- Options that mean the same (S09, S12, S15) ---- */

typedef void change(rapt_attention *a);

static void set_default_scale(rapt_attention *a)
{
    a->scale = 1 / sqrt((double)a->q.size[3]);
}

static void set_wide_window(rapt_attention *a)
{
    a->window_left = a->window_right = RAPT_WINDOW(1000000);
}

static void set_largest_window(rapt_attention *a)
{
    a->window_left = a->window_right = INT64_MAX;
}

static void set_causal_window(rapt_attention *a)
{
    a->window_right = RAPT_WINDOW(0);
}

static void same_after(const char *text, change *apply, rapt_device *device)
{
    struct trial *x = trial_of(text, device), *y = trial_open(text, device);
    apply(&y->there.args.forward);
    apply(&y->host.args.forward);
    trial_run(y);
    assert_accurate(y);
    assert_accurate(x);
    trial_close(x);
    trial_close(y);
}

static void a_zeroed_option_is_the_default(void **state)
{
    (void)state;
    EACH_DEVICE(device)
    {
        same_after("forward f32 b1 h2 q20 kv30 d48 causal lse", set_default_scale, device);
        same_after("forward bf16 b1 h2 q20 kv30 d48 causal lse", set_wide_window, device);
        same_after("forward f32 b1 h2 q20 kv30 d48 lse", set_largest_window, device);
        same_after("forward f32 b1 h2 q20 kv30 d48 causal lse", set_causal_window, device);
    }
}

static void weights_sum_to_one(void **state)
{
    static const char *const lines[] = {"forward f32 b2 h4/2 q33 kv90 d64 causal weights lse",
                                        "forward f32 b1 h4 q9 kv50 d64 sink weights lse",
                                        "forward f16 b2 h4/2 q1 kv90 d64 weights lse"};
    (void)state;
    EACH_DEVICE(device) for (size_t n = 0; n < 3; n++)
    {
        struct trial *t = trial_of(lines[n], device);
        const rapt_attention *a = &t->host.args.forward;
        for (int64_t b = 0; b < a->weights.size[0]; b++)
            for (int64_t h = 0; h < a->weights.size[1]; h++)
                for (int64_t i = 0; i < a->weights.size[2]; i++) {
                    double sum = 0, lse = load_float(a->lse.data, RAPT_F32,
                                                     tensor_offset(&a->lse, b, h, i, 0));
                    for (int64_t j = 0; j < a->weights.size[3]; j++)
                        sum += load_float(a->weights.data, a->weights.dtype,
                                          tensor_offset(&a->weights, b, h, i, j));
                    if (a->sink.dtype)
                        sum += exp(load_float(a->sink.data, RAPT_F32,
                                              tensor_offset(&a->sink, b, h, 0, 0)) -
                                   lse);
                    assert_true(fabs(sum - 1) < 1e-4);
                }
        trial_close(t);
    }
}

/* ---- The pieces together ---- */

/* softmax(causal_mask(q k^T)) v through the separate operations is attention. The weights are f32,
 * so the bound of the fused call holds. S26 aside, this is how the pieces are meant to be joined.
 */
static void pieces_make_attention(void **state)
{
    (void)state;
    EACH_DEVICE(device)
    {
        struct trial *t = trial_open("forward f32 b2 h4/2 q30 kv50 d64 causal weights", device);
        rapt_attention *a = &t->there.args.forward;
        rapt_qk_args qk = {.struct_size = sizeof qk, .q = a->q, .k = a->k, .out = a->weights};
        rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = a->weights};
        rapt_softmax_args softmax = {
            .struct_size = sizeof softmax, .x = a->weights, .out = a->weights};
        rapt_pv_args pv = {
            .struct_size = sizeof pv, .weights = a->weights, .v = a->v, .out = a->out};
        if (rapt_qk(device, &qk, NULL) || rapt_causal_mask(device, &mask, NULL) ||
            rapt_softmax(device, &softmax, NULL) || rapt_pv(device, &pv, NULL))
            fail_msg("%s", rapt_last_error());
        if (problem_download(&t->there, &t->host)) fail_msg("%s", rapt_last_error());
        assert_accurate(t);
        trial_close(t);
    }
}

/* MQA and GQA by copies of K and V are MQA and GQA. */
static void replicated(const char *text, rapt_device *device)
{
    struct trial *t = trial_open(text, device);
    rapt_attention a = t->there.args.forward;
    int64_t heads = a.q.size[1], b = a.k.size[0], s = a.k.size[2];
    size_t element = dtype_size(a.k.dtype);
    void *memory[2];
    for (int n = 0; n < 2; n++)
        assert_int_equal(
            rapt_alloc(device, (size_t)(b * heads * s * (n ? a.v.size[3] : a.k.size[3])) * element,
                       &memory[n]),
            RAPT_OK);
    rapt_kv_replicate_args r = {
        .struct_size = sizeof r,
        .k = a.k,
        .v = a.v,
        .k_out = rapt_tensor_bthd(memory[0], (rapt_dtype)a.k.dtype, b, heads, s, a.k.size[3]),
        .v_out = rapt_tensor_bthd(memory[1], (rapt_dtype)a.v.dtype, b, heads, s, a.v.size[3])};
    if (rapt_kv_replicate(device, &r, NULL)) fail_msg("%s", rapt_last_error());
    a.k = r.k_out;
    a.v = r.v_out;
    if (rapt_forward(device, &a, NULL) || problem_download(&t->there, &t->host))
        fail_msg("%s", rapt_last_error());
    assert_accurate(t);
    for (int n = 0; n < 2; n++) rapt_free(device, memory[n]);
    trial_close(t);
}

static void replicated_heads_are_grouped_heads(void **state)
{
    (void)state;
    each_type("forward %s b2 h6/1 q20 kv40 d64 causal lse", replicated);
    each_type("forward %s b2 h6/2 q20 kv40 d64/32 lse", replicated);
}

/* A cache filled token by token, with attention after each, gives the rows of one causal call over
 * all. */
static void decoding_is_prefill(void **state)
{
    enum { STEPS = 37 };
    (void)state;
    EACH_DEVICE(device) for (size_t n = 0; n < 3; n++)
    {
        char text[PROBLEM_LINE];
        snprintf(text, sizeof text, "forward %s b2 h4/2 q%d kv%d d64 causal lse", types[n], STEPS,
                 STEPS);
        struct trial *t = trial_open(text, device);
        rapt_attention a = t->there.args.forward;
        for (int64_t i = 0; i < STEPS;
             i++) { /* query i with keys 0 ... i: views of one token and of i + 1 */
            rapt_attention step = a;
            rapt_tensor *queries[3] = {&step.q, &step.out, &step.lse};
            for (int c = 0; c < 3; c++) {
                queries[c]->data =
                    (char *)queries[c]->data +
                    i * queries[c]->stride[2] * (int64_t)dtype_size(queries[c]->dtype);
                queries[c]->size[2] = 1;
            }
            step.k.size[2] = step.v.size[2] = i + 1;
            if (rapt_forward(device, &step, NULL)) fail_msg("%s", rapt_last_error());
        }
        if (problem_download(&t->there, &t->host)) fail_msg("%s", rapt_last_error());
        assert_accurate(t);
        trial_close(t);
    }
}

/* ---- Any tensor with strides of its own ---- */

/* A tensor's place of its own: rows step apart, elements within a row apart, 0xff between them. */
struct place {
    rapt_tensor view; /* data: on the device */
    char *host;
    size_t bytes;
};

/* Copies the elements of t, in host memory, to their places, or back. */
static void move_elements(const struct place *p, const rapt_tensor *t, bool back)
{
    const int64_t *n = t->size;
    size_t size = dtype_size(t->dtype);
    for (int64_t row = 0; row < n[0] * n[1] * n[2]; row++)
        for (int64_t c = 0; c < n[3]; c++) {
            int64_t at = tensor_offset(t, row / n[2] / n[1], row / n[2] % n[1], row % n[2], c);
            char *here = (char *)t->data + at * (int64_t)size,
                 *there =
                     p->host + (row * p->view.stride[2] + c * p->view.stride[3]) * (int64_t)size;
            memcpy(back ? here : there, back ? there : here, size);
        }
}

static struct place place_open(rapt_device *device, const rapt_tensor *t, int64_t apart)
{
    struct place p = {.view = *t};
    p.view.stride[3] = apart;
    p.view.stride[2] = t->size[3] * apart + 1;
    p.view.stride[1] = t->size[2] * p.view.stride[2];
    p.view.stride[0] = t->size[1] * p.view.stride[1];
    p.bytes = (size_t)(t->size[0] * p.view.stride[0]) * dtype_size(t->dtype);
    p.host = malloc(p.bytes);
    assert_non_null(p.host);
    memset(p.host, 0xff, p.bytes);
    move_elements(&p, t, false);
    if (rapt_alloc(device, p.bytes, &p.view.data) ||
        rapt_copy(device, p.view.data, p.host, p.bytes, NULL))
        fail_msg("%s", rapt_last_error());
    return p;
}

/* The elements back into t, and nothing written between them. */
static void place_close(rapt_device *device, struct place *p, const rapt_tensor *t)
{
    if (rapt_copy(device, p->host, p->view.data, p->bytes, NULL) || rapt_synchronize(device, NULL))
        fail_msg("%s", rapt_last_error());
    move_elements(p, t, true);
    size_t size = dtype_size(t->dtype), between = 0;
    for (int64_t row = 0; row < t->size[0] * t->size[1] * t->size[2]; row++)
        for (int64_t c = 0; c < p->view.stride[2]; c++) {
            const unsigned char *e =
                (unsigned char *)p->host + (row * p->view.stride[2] + c) * (int64_t)size;
            bool is_element = c % p->view.stride[3] == 0 && c / p->view.stride[3] < t->size[3];
            for (size_t i = 0; i < size && !is_element; i++) between += e[i] != 0xff;
        }
    assert_int_equal(between, 0);
    free(p->host);
    rapt_free(device, p->view.data);
}

/* Each tensor of a line in turn, with elements side by side and apart. */
static void own_strides(const char *text, rapt_device *device)
{
    int count = 1;
    for (int i = 0; i < 2 * count; i++) {
        struct trial *t = trial_open(text, device);
        const rapt_tensor *host = t->host.region[i / 2].tensor;
        count = t->host.region_count;
        rapt_tensor *there = (rapt_tensor *)((char *)&t->there.args +
                                             ((const char *)host - (const char *)&t->host.args));
        struct place place = place_open(device, host, i % 2 ? 3 : 1);
        *there = place.view;
        trial_run(t);
        place_close(device, &place, host);
        assert_accurate(t);
        trial_close(t);
    }
}

static void any_tensor_may_have_its_own_strides(void **state)
{
    static const char *const lines[] = {
        "forward f32 b2 h4/2 q17 kv33 d32 causal bias mask sink alibi lse weights",
        "forward f32 b2 h2 q5 kv33 d32 causal mask lse",
        "forward bf16 b2 h4/2 q19 kv33 d48 lse",
        "forward f16 b2 h8/2 q1 kv70 d64 lse",
        "forward bf16 b1 h2 q16 kv16 d64 causal lse",
        "forward bf16 kv-i8 b1 h4/2 q20 kv70 d64 causal lse block16",
        "forward f16 kv-i8 b2 h4/2 q1 kv200 d64 causal lse block32",
        "forward f32 kv-i8 b2 h4/2 q1 kv200 d64 causal lse",
        "forward f32 h4/2 q60 kv60 d64 causal lse qlens=3,60,0,17,1 kvlens=3,60,5,17,33",
        "forward bf16 b3 h8/2 q1 kv150 d64 lse paged16 kvlen=150,1,77",
        "forward f16 b3 h4/2 q40 kv100 d64 causal lse paged16 kvlen=100,40,41 i64",
        "kv_append bf16 h2 q9 kv40 d64 paged7 qlens=5,0,9 kvlen=0,31,17 rope",
        "kv_append f32 b3 h2 q5 kv40 d64 kvlen=0,35,17 rope positions i64",
        "kv_append f16 b3 h2 q5 kv40 d64 kvlen=0,35,17",
        "kv_append f32 kv-i8 b3 h2 q5 kv40 d64 kvlen=0,35,17 block16",
        "rope f32 b3 h2 q40 d128 positions seed1",
        "rope bf16 b2 h2 q40 d64 table",
        "softmax f16 b2 h3 q17 kv100",
        "qk bf16 b2 h4/2 q9 kv21 d300",
        "pv f32 b2 h4/2 q9 kv70 d300",
        "causal_mask f16 b2 h3 q17 kv40",
        "kv_append f16 b3 h2 q5 kv40 d64 kvlen=0,35,17 bhtd",
        "kv_replicate f32 b2 h8/2 q1 kv33 d40",
        "kv_replicate bf16 b2 h8/2 q1 kv33 d40 bhtd"};
    (void)state;
    EACH_DEVICE(device)
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) own_strides(lines[i], device);
}

/* Dense outputs. */
static void assert_same_bytes(const rapt_tensor *x, const rapt_tensor *y, const char *text)
{
    size_t bytes = dtype_size(x->dtype);
    for (int axis = 0; axis < 4; axis++) bytes *= (size_t)x->size[axis];
    if (memcmp(x->data, y->data, bytes) != 0)
        fail_msg("%s: bits differ where the workspace was NaN", text);
}

/* A workspace is NaN (all bits set) before the call. */
static void spoiled_workspace(const char *text, rapt_device *device)
{
    struct trial *x = trial_of(text, device), *y = trial_open(text, device);
    rapt_attention *a = &y->there.args.forward;
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    assert_int_equal(rapt_plan_create(&plan, device, a), RAPT_OK);
    size_t size = rapt_plan_workspace_size(plan);
    unsigned char *ones = malloc(size + 1);
    assert_non_null(ones);
    memset(ones, 0xff, size + 1);
    assert_int_equal(rapt_alloc(device, size + 1, &workspace), RAPT_OK);
    assert_int_equal(rapt_copy(device, workspace, ones, size + 1, NULL), RAPT_OK);
    assert_int_equal(rapt_plan_execute(plan, a, workspace, NULL), RAPT_OK);
    if (problem_download(&y->there, &y->host)) fail_msg("%s", rapt_last_error());
    assert_same_bytes(&x->host.args.forward.out, &y->host.args.forward.out, text);
    assert_same_bytes(&x->host.args.forward.lse, &y->host.args.forward.lse, text);
    free(ones);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    trial_close(x);
    trial_close(y);
}

static void workspaces_may_hold_anything(void **state)
{
    static const char *const lines[] = {
        "forward %s b3 h4/2 q1 kv700 d64 causal lse kvlen=700,0,5",
        "forward %s b3 h4/2 q2 kv700 d128 causal sink lse kvlen=9,0,700",
        "forward %s b1 h4/2 q2 kv1100 d64 window50,0 lse batch_invariant",
        "forward %s b1 h4/2 q1 kv700 d64 mask=111k lse hidden-nan",
        "forward %s b5 h2/1 q40 kv300 d128 causal lse kvlen=300,1,0,129,257",
        "forward %s b2 h7/1 q20 kv600 d64 lse kvlen=600,64",
        "forward %s b1 h2/1 q260 kv260 d64 causal lse",
        "forward %s b2 h2/1 q40 kv70 d59 softcap5 lse"};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        each_type(lines[i], spoiled_workspace);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_zeroed_option_is_the_default),
                                       cmocka_unit_test(weights_sum_to_one),
                                       cmocka_unit_test(pieces_make_attention),
                                       cmocka_unit_test(replicated_heads_are_grouped_heads),
                                       cmocka_unit_test(decoding_is_prefill),
                                       cmocka_unit_test(any_tensor_may_have_its_own_strides),
                                       cmocka_unit_test(workspaces_may_hold_anything)};
    return run_on_devices("equivalences", tests, sizeof tests / sizeof *tests, argc, argv);
}
