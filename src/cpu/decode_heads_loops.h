/* decode_heads_loops.h: decode_qk_heads and decode_pv_heads over an instruction set's own tiles: a few keys of each
 * head in turn, as they lie in memory. Included at the end of a file that has struct qk_call and pv_call and their
 * qk_call_of and pv_call_of (as decode_loops.h) and defines
 *
 *   DECODE_ISA                 the suffix, as for decode_loops.h
 *   HEADS_TILE(t, dtype, rows, keys, wanted, fetch)
 *                              scores of a tile of that many rows and keys, of which wanted exist
 *   HEADS_WINDOW(t, dtype, rows)
 *                              values of t->keys keys, a few, for all channels
 *   HEADS_TYPES(X, rows)       X(rows, name, dtype) for each type that rows of K and V may have, in the order of the
 *                              types; their channels lie side by side
 *   HEADS_FIRST_TYPE           the first of these types */

/* Keys of a head that come next, before those of another one. */
VEC int64_t turn_of(const struct cpu_heads *heads, int64_t before, int64_t keys)
{
    return heads->turn - before < keys ? heads->turn - before : keys;
}

VEC void qk_heads_by(struct qk_call t, int dtype, int row_count, int key_count, int64_t keys,
                     const struct cpu_heads *heads, const struct cpu_ahead *ahead)
{
    struct prefetch fetch = prefetch_of(ahead);
    int64_t turn = turn_of(heads, heads->before, keys);
    for (int64_t j = 0; j < keys; j += turn, turn = turn_of(heads, 0, keys - j)) {
        struct qk_call own = t;
        for (int64_t h = 0; h < heads->count; h++) {
            for (int64_t i = 0; i < turn; i += key_count) {
                int64_t wanted = turn - i < key_count ? turn - i : key_count;
                own.row = t.row + j + i;
                own.s = t.s + h * row_count * t.s_stride + j + i;
                HEADS_TILE(&own, dtype, row_count, key_count, wanted, &fetch);
            }
            own.q += row_count * t.q_stride;
            own.offset += heads->bytes;
        }
    }
    prefetch_rest(&fetch);
}

VEC void qk_heads(struct qk_call t, int dtype, int row_count, int64_t keys,
                  const struct cpu_heads *heads, const struct cpu_ahead *ahead)
{
    if (heads->keys >= 4) qk_heads_by(t, dtype, row_count, 4, keys, heads, ahead);
    else qk_heads_by(t, dtype, row_count, 2, keys, heads, ahead);
}

VEC void pv_heads(struct pv_call t, int dtype, int row_count, const struct cpu_heads *heads)
{
    struct pv_call own = t;
    own.fetch = prefetch_of(t.ahead);
    int64_t turn = turn_of(heads, heads->before, t.keys);
    for (int64_t j = 0; j < t.keys; j += turn, turn = turn_of(heads, 0, t.keys - j)) {
        own.o = t.o;
        own.offset = 0;
        for (int64_t h = 0; h < heads->count; h++) {
            for (int64_t i = 0; i < turn; i += heads->keys) {
                own.row = t.row + j + i;
                own.p = t.p + h * row_count * t.p_stride + j + i;
                own.keys = turn - i < heads->keys ? turn - i : heads->keys;
                HEADS_WINDOW(&own, dtype, row_count);
            }
            own.o += heads->o_step;
            own.offset += heads->bytes;
        }
    }
    prefetch_rest(&own.fetch);
}

/* Each number of rows and each type has a function of its own (decode_loops.h). */
_Static_assert((int)DECODE_HEADS_ROWS == 4, "the longest list");
#define EACH_HEADS_ROWS(X) HEADS_TYPES(X, 1) HEADS_TYPES(X, 2) HEADS_TYPES(X, 3) HEADS_TYPES(X, 4)

#define HEADS_FUNCTIONS(rows, name, dtype)                                                         \
    static void qk_heads_##name##_##rows(const struct qk_call *t, int64_t keys,                    \
                                         const struct cpu_heads *heads,                            \
                                         const struct cpu_ahead *ahead)                            \
    {                                                                                              \
        qk_heads(*t, dtype, rows, keys, heads, ahead);                                             \
    }                                                                                              \
    static void pv_heads_##name##_##rows(const struct pv_call *t, const struct cpu_heads *heads)   \
    {                                                                                              \
        pv_heads(*t, dtype, rows, heads);                                                          \
    }
EACH_HEADS_ROWS(HEADS_FUNCTIONS)

#define QK_HEADS_ENTRY(rows, name, dtype) qk_heads_##name##_##rows,
#define PV_HEADS_ENTRY(rows, name, dtype) pv_heads_##name##_##rows,
static void (*const qk_heads_of[])(const struct qk_call *, int64_t, const struct cpu_heads *,
                                   const struct cpu_ahead *) = {EACH_HEADS_ROWS(QK_HEADS_ENTRY)};
static void (*const pv_heads_of[])(const struct pv_call *,
                                   const struct cpu_heads *) = {EACH_HEADS_ROWS(PV_HEADS_ENTRY)};
enum { HEADS_TYPE_COUNT = (int)(sizeof qk_heads_of / sizeof *qk_heads_of) / DECODE_HEADS_ROWS };

#define DECODE_QK_HEADS_OF(isa) DECODE_QK_HEADS(isa)
#define DECODE_PV_HEADS_OF(isa) DECODE_PV_HEADS(isa)

DECODE_QK_HEADS_OF(DECODE_ISA)
{
    struct qk_call t = qk_call_of(s, s_stride, q, q_stride, k, channels, first);
    qk_heads_of[(rows - 1) * HEADS_TYPE_COUNT + k->dtype - HEADS_FIRST_TYPE](&t, last - first,
                                                                             heads, ahead);
}

DECODE_PV_HEADS_OF(DECODE_ISA)
{
    struct pv_call t = pv_call_of(o, o_stride, p, p_stride, v, channels, first, last, ahead);
    pv_heads_of[(rows - 1) * HEADS_TYPE_COUNT + v->dtype - HEADS_FIRST_TYPE](&t, heads);
}
