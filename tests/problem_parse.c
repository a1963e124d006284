/* problem_parse.c: the grammar of problem lines, as a table of words. */
#include "problem.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A side of a window: its number of neighbours, or open. */
static bool parse_side(const char **text, int64_t *side)
{
    if (!strncmp(*text, "inf", 3)) {
        *text += 3;
        *side = RAPT_WINDOW(-1);
        return true;
    }
    char *end;
    long long n = strtoll(*text, &end, 10);
    if (end == *text || n == INT64_MAX) return false;
    *text = end;
    *side = RAPT_WINDOW(n);
    return true;
}

struct word;
typedef bool take_function(struct problem_line *line, const struct word *word, const char *rest);

struct word {
    const char *name;
    take_function *take;
    size_t offset; /* of the field in struct problem_line */
    int64_t value;
};

static void *field(struct problem_line *line, const struct word *word)
{
    return (char *)line + word->offset;
}

static bool take_flag(struct problem_line *line, const struct word *word, const char *rest)
{
    if (*rest) return false; /* a longer word */
    *(bool *)field(line, word) = true;
    return true;
}

/* One of several values of an int64_t field. */
static bool take_choice(struct problem_line *line, const struct word *word, const char *rest)
{
    *(int64_t *)field(line, word) = word->value;
    return !*rest;
}

static bool take_enum(struct problem_line *line, const struct word *word, const char *rest)
{
    *(int *)field(line, word) = (int)word->value;
    return !*rest;
}

/* N, or N/N for two neighbouring fields. A lone number sets both, when value is 2. */
static bool take_count(struct problem_line *line, const struct word *word, const char *rest)
{
    int64_t *to = field(line, word);
    char *end;
    if (*rest < '0' || *rest > '9') return false;
    to[0] = strtoll(rest, &end, 10);
    if (word->value != 2) return !*end;
    to[1] = to[0];
    if (*end != '/' || end[1] < '0' || end[1] > '9') return !*end;
    to[1] = strtoll(end + 1, &end, 10);
    return !*end;
}

/* The field is 0 where keys are not paged; a page of 0 tokens becomes -1, which check() refuses. */
static bool take_page(struct problem_line *line, const struct word *word, const char *rest)
{
    if (!take_count(line, word, rest)) return false;
    if (!line->page_tokens) line->page_tokens = -1;
    return true;
}

static bool take_real(struct problem_line *line, const struct word *word, const char *rest)
{
    char *end;
    *(double *)field(line, word) = strtod(rest, &end);
    return end != rest && !*end;
}

static bool take_window(struct problem_line *line, const struct word *word, const char *rest)
{
    (void)word;
    return parse_side(&rest, &line->window_left) && *rest++ == ',' &&
           parse_side(&rest, &line->window_right) && !*rest;
}

/* Letters of the axes that are full size, 1 for the others; word->value: how many axes. */
static bool take_axes(struct problem_line *line, const struct word *word, const char *rest)
{
    const char *letters = word->value == 4 ? "bhqk" : "bht";
    unsigned axes = 0;
    if (strlen(rest) != (size_t)word->value) return false;
    for (int i = 0; rest[i]; i++) {
        if (rest[i] == letters[i]) axes |= 1u << i;
        else if (rest[i] != '1') return false;
    }
    *(unsigned *)field(line, word) = axes;
    return true;
}

static bool take_bias(struct problem_line *line, const struct word *word, const char *rest)
{
    line->bias = true;
    return take_axes(line, word, rest);
}

static bool take_mask(struct problem_line *line, const struct word *word, const char *rest)
{
    line->mask = true;
    return take_axes(line, word, rest);
}

/* Lengths of the sequences; the array then has no -1 at its first entries. */
static bool take_lengths(struct problem_line *line, const struct word *word, const char *rest)
{
    int64_t *to = field(line, word);
    if (word->value == 'q') line->ragged_q = true;
    if (word->value == 'c') line->ragged_kv = true;
    if (word->value == 'k') line->kv_length = true;
    for (int i = 0; i < PROBLEM_SEQUENCES; i++) {
        char *end;
        if (*rest < '0' || *rest > '9') return false;
        to[i] = strtoll(rest, &end, 10);
        line->batch = i + 1;
        if (!*end) return true;
        if (*end != ',') return false;
        rest = end + 1;
    }
    return false;
}

static bool take_weights(struct problem_line *line, const struct word *word, const char *rest)
{
    line->weights = true;
    line->weights_dtype = word->value;
    return !*rest;
}

/* RoPE scaling with its factor. */
static bool take_scaling(struct problem_line *line, const struct word *word, const char *rest)
{
    char *end;
    line->scaling = word->value;
    line->factor = strtod(rest, &end);
    return end != rest && !*end;
}

static bool take_seed(struct problem_line *line, const struct word *word, const char *rest)
{
    char *end;
    (void)word;
    line->seed = strtoull(rest, &end, 10);
    return end != rest && !*end;
}

static bool take_kernel(struct problem_line *line, const struct word *word, const char *rest)
{
    (void)word;
    if (strlen(rest) >= sizeof line->kernel || !*rest) return false;
    strcpy(line->kernel, rest);
    return true;
}

#define AT(name) offsetof(struct problem_line, name)

/* The first word that is a prefix and whose take function accepts the rest wins. */
static const struct word words[] = {
#define OP_WORD(name) {#name, take_enum, AT(op), OP_##name},
    PROBLEM_OP_LIST(OP_WORD)
#define DATA_WORD(name, exact) {#name, take_enum, AT(data), DATA_##name},
        PROBLEM_DATA_LIST(DATA_WORD){"f32", take_choice, AT(dtype), RAPT_F32},
    {"f16", take_choice, AT(dtype), RAPT_F16},
    {"bf16", take_choice, AT(dtype), RAPT_BF16},
    {"i8", take_choice, AT(dtype), RAPT_I8},
    {"kv-f32", take_choice, AT(kv_dtype), RAPT_F32},
    {"kv-f16", take_choice, AT(kv_dtype), RAPT_F16},
    {"kv-bf16", take_choice, AT(kv_dtype), RAPT_BF16},
    {"kv-i8", take_choice, AT(kv_dtype), RAPT_I8},
    {"out-f32", take_choice, AT(out_dtype), RAPT_F32},
    {"i64", take_choice, AT(index_dtype), RAPT_I64},
    {"b", take_count, AT(batch), 1},
    {"h", take_count, AT(q_heads), 2},
    {"q", take_count, AT(q_tokens), 1},
    {"kv", take_count, AT(kv_tokens), 1},
    {"d", take_count, AT(qk_channels), 2},
    {"causal", take_choice, AT(causal), 1},
    {"topleft", take_choice, AT(align), RAPT_TOP_LEFT},
    {"window", take_window, 0, 0},
    {"softcap", take_real, AT(softcap), 0},
    {"scale", take_real, AT(scale), 0},
    {"sink", take_flag, AT(sink), 0},
    {"sink-inf", take_flag, AT(sink_inf), 0},
    {"sink-nan", take_flag, AT(sink_nan), 0},
    {"alibi", take_flag, AT(alibi), 0},
    {"lse", take_flag, AT(lse), 0},
    {"weights", take_weights, 0, RAPT_F32},
    {"weights-f16", take_weights, 0, RAPT_F16},
    {"weights-bf16", take_weights, 0, RAPT_BF16},
    {"bias", take_flag, AT(bias), 0},
    {"bias=", take_bias, AT(bias_axes), 4},
    {"bias-own", take_flag, AT(bias_own), 0},
    {"bias-inf", take_flag, AT(bias_inf), 0},
    {"bias-far", take_flag, AT(bias_far), 0},
    {"bias-low", take_flag, AT(bias_low), 0},
    {"mask", take_flag, AT(mask), 0},
    {"mask-ends", take_flag, AT(mask_ends), 0},
    {"mask=", take_mask, AT(mask_axes), 4},
    {"ragged-q", take_flag, AT(ragged_q), 0},
    {"ragged-kv", take_flag, AT(ragged_kv), 0},
    {"qlens=", take_lengths, AT(q_lengths), 'q'},
    {"kvlens=", take_lengths, AT(kv_capacity), 'c'},
    {"spare", take_count, AT(spare), 1},
    {"kvlen", take_flag, AT(kv_length), 0},
    {"kvlen=", take_lengths, AT(kv_lengths), 'k'},
    {"paged", take_page, AT(page_tokens), 1},
    {"block", take_count, AT(scale_block), 1},
    {"scales=", take_axes, AT(scale_axes), 3},
    {"bhtd", take_flag, AT(bhtd), 0},
    {"kv-blocked", take_flag, AT(kv_blocked), 0},
    {"kv-shared", take_flag, AT(kv_shared), 0},
    {"neg", take_enum, AT(stride), STRIDE_neg},
    {"zero", take_enum, AT(stride), STRIDE_zero},
    {"huge-stride", take_enum, AT(stride), STRIDE_huge},
    {"odd", take_enum, AT(stride), STRIDE_odd},
    {"pad8", take_enum, AT(stride), STRIDE_pad8},
    {"chan2", take_enum, AT(stride), STRIDE_chan2},
    {"edge", take_flag, AT(edge), 0},
    {"hidden-nan", take_flag, AT(hidden_nan), 0},
    {"seed", take_seed, 0, 0},
    {"batch_invariant", take_choice, AT(batch_invariant), 1},
    {"kernel=", take_kernel, 0, 0},
    {"rope", take_flag, AT(rope), 0},
    {"theta", take_real, AT(theta), 0},
    {"rotary", take_count, AT(rotary), 1},
    {"interleaved", take_flag, AT(interleaved), 0},
    {"positions", take_flag, AT(positions), 0},
    {"far", take_flag, AT(far), 0},
    {"farthest", take_flag, AT(farthest), 0},
    {"inplace", take_flag, AT(inplace), 0},
    {"table", take_flag, AT(table), 0},
    {"linear", take_scaling, 0, RAPT_ROPE_LINEAR},
    {"ntk", take_scaling, 0, RAPT_ROPE_NTK},
    {"yarn", take_scaling, 0, RAPT_ROPE_YARN},
    {"llama3=", take_scaling, 0, RAPT_ROPE_LLAMA3},
    {"context", take_real, AT(original_context), 0},
    {"untruncated", take_flag, AT(untruncated), 0},
};

static bool take_word(struct problem_line *line, const char *text, bool first)
{
    if (!strcmp(text, "ragged")) return line->ragged_q = line->ragged_kv = true;
    if (!strcmp(text, "bthd")) return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].name);
        bool is_op = words[i].take == take_enum && words[i].offset == AT(op);
        if (is_op != first || strncmp(text, words[i].name, length)) continue;
        if (words[i].take(line, &words[i], text + length)) return true;
    }
    return false;
}

static void set_defaults(struct problem_line *line)
{
    memset(line, 0, sizeof *line);
    line->dtype = RAPT_F32;
    line->index_dtype = RAPT_I32;
    line->batch = line->q_heads = line->kv_heads = 1;
    line->q_tokens = 16;
    line->kv_tokens = -1;
    line->qk_channels = line->v_channels = 64;
    line->bias_axes = line->mask_axes = 15;
    line->scale_axes = 7;
    line->weights_dtype = RAPT_F32;
    for (int i = 0; i < PROBLEM_SEQUENCES; i++)
        line->q_lengths[i] = line->kv_capacity[i] = line->kv_lengths[i] = -1;
}

/* Fills the lengths that the line leaves open: 0 ... most, seeded; or most. Returns the largest. */
static int64_t complete(int64_t lengths[PROBLEM_SEQUENCES], bool vary, const int64_t *most,
                        int64_t uniform, uint64_t seed, uint64_t stream)
{
    int64_t largest = 0;
    bool given = lengths[0] >= 0;
    for (int i = 0; i < PROBLEM_SEQUENCES; i++) {
        int64_t limit = most ? most[i] : uniform;
        if (given && lengths[i] < 0) lengths[i] = 0;
        if (!given) lengths[i] = limit;
        if (!given && vary)
            lengths[i] =
                (int64_t)(problem_random(seed, stream, (uint64_t)i) % (uint64_t)(limit + 1));
        if (lengths[i] > largest) largest = lengths[i];
    }
    return largest;
}

enum { MOST_SEQUENCES = 1 << 24 };

static const char *check(struct problem_line *line)
{
    int64_t page = line->page_tokens;
    if (line->kv_tokens < 0) line->kv_tokens = line->q_tokens;
    if (!line->kv_dtype) line->kv_dtype = line->dtype;
    line->mask |= line->mask_ends;
    if (!line->out_dtype) line->out_dtype = line->dtype == RAPT_I8 ? RAPT_F32 : line->dtype;
    bool vary = line->ragged_q || line->ragged_kv || line->kv_length;
    if (vary && line->batch > PROBLEM_SEQUENCES)
        return "lengths may vary over at most 512 sequences";
    if (line->batch > MOST_SEQUENCES || line->q_heads > INT32_MAX || line->q_tokens > INT32_MAX ||
        line->kv_tokens > INT32_MAX || line->page_tokens > INT32_MAX || line->spare > INT32_MAX ||
        line->qk_channels > 65536 || line->v_channels > 65536)
        return "a size is beyond what these lines describe";
    if (line->scale_block &&
        (line->qk_channels % line->scale_block || line->v_channels % line->scale_block))
        return "block must divide the channels";
    if (line->kv_heads ? line->q_heads % line->kv_heads : line->q_heads > 0)
        return "the query heads must be a multiple of the KV heads";
    if (page < 0) return "a page has at least 1 token (paged0 has none)";
    if (page && line->ragged_kv) return "paged keys cannot be ragged";
    if (line->spare && !line->ragged_q) return "spare queries are those of packed sequences";
    if (line->kv_shared && (line->op != OP_forward || line->kv_dtype == RAPT_I8 ||
                            line->kv_blocked || line->v_channels > line->qk_channels))
        return "shared keys are those of a forward in f32, f16 or bf16, not blocked and with no "
               "more "
               "channels of v than of k";
    if (line->kv_blocked) {
        if (line->ragged_kv || line->stride || line->kv_dtype == RAPT_I8)
            return "blocked keys are f32, f16 or bf16, neither ragged nor with strides of their "
                   "own";
        if (line->qk_channels % RAPT_KV_BLOCK || line->v_channels % RAPT_KV_BLOCK ||
            page % RAPT_KV_BLOCK)
            return "blocked keys have channels and pages that are multiples of 32";
        line->bhtd = true;
        if (!page) page = RAPT_KV_BLOCK;
    }
    if (line->op != OP_kv_append && page && line->kv_tokens % page) line->kv_length = true;
    complete(line->q_lengths, line->ragged_q, NULL, line->q_tokens, line->seed, 101);
    complete(line->kv_capacity, line->ragged_kv, NULL, line->kv_tokens, line->seed, 102);
    bool partial =
        line->op != OP_kv_append && page && line->kv_tokens % page && line->kv_lengths[0] < 0;
    bool held = line->op == OP_kv_append; /* room for the new tokens must remain */
    if (held && line->kv_tokens < line->q_tokens)
        return "kv is the cache's room and must hold the q new tokens";
    complete(line->kv_lengths, line->kv_length && !partial, held ? NULL : line->kv_capacity,
             held ? (line->kv_length ? line->kv_tokens - line->q_tokens : 0) : 0, line->seed, 103);
    for (int i = 0; i < PROBLEM_SEQUENCES; i++)
        if (line->kv_lengths[i] > line->kv_capacity[i] || line->q_lengths[i] > line->q_tokens ||
            line->kv_capacity[i] > line->kv_tokens)
            return "a length is larger than q, kv or its capacity";
    return NULL;
}

#define OPERATION_NAME(name) #name " "
static const char operations[] = PROBLEM_OP_LIST(OPERATION_NAME);

bool problem_parse(const char *text, struct problem_line *out, char *error, size_t size)
{
    char copy[PROBLEM_LINE];
    bool first = true;
    set_defaults(out);
    if (strlen(text) >= sizeof copy) {
        snprintf(error, size, "problem line: longer than %d characters", PROBLEM_LINE - 1);
        return false;
    }
    strcpy(copy, text);
    strcpy(out->text, text);
    for (char *state, *word = strtok_r(copy, " \t\n", &state); word;
         word = strtok_r(NULL, " \t\n", &state)) {
        if (!take_word(out, word, first)) {
            if (first)
                snprintf(error, size, "problem line: \"%s\" is not an operation (one of %.*s)",
                         word, (int)sizeof operations - 2, operations);
            else
                snprintf(error, size, "problem line: \"%s\" is not a word of it (see rapt(1))",
                         word);
            return false;
        }
        first = false;
    }
    const char *reason = first ? "it is empty" : check(out);
    if (reason) snprintf(error, size, "problem line: %s", reason);
    return !reason;
}

int64_t problem_q_length(const struct problem_line *line, int64_t sequence)
{
    return sequence < PROBLEM_SEQUENCES ? line->q_lengths[sequence] : line->q_tokens;
}

int64_t problem_kv_length(const struct problem_line *line, int64_t sequence)
{
    return sequence < PROBLEM_SEQUENCES ? line->kv_lengths[sequence] : line->kv_tokens;
}

int64_t problem_kv_capacity(const struct problem_line *line, int64_t sequence)
{
    return sequence < PROBLEM_SEQUENCES ? line->kv_capacity[sequence] : line->kv_tokens;
}

void problem_visible(const struct problem_line *line, int64_t sequence, int64_t query,
                     int64_t *first, int64_t *last)
{
    int64_t q_length = problem_q_length(line, sequence),
            kv_length = problem_kv_length(line, sequence);
    int64_t position = query + (line->align == RAPT_TOP_LEFT ? 0 : kv_length - q_length);
    int64_t low = 0, high = kv_length - 1;
    if (line->window_left > 0 && line->window_left - 1 < position)
        low = position - (line->window_left - 1);
    if (line->window_right > 0 && line->window_right - 1 < high - position)
        high = position + (line->window_right - 1);
    if (line->causal && position < high) high = position;
    *first = low;
    *last = high < low ? low : high + 1;
}
