/* Vector ALU execution: fetching source rows with their modifiers, writing results, tracking
 * undefined lanes. */
#include <string.h>
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#endif

#include "lanes.h"

static const uint32_t all_on[ROW] __attribute__((aligned(64))) = {
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
static const uint32_t zeros[2 * ROW] __attribute__((aligned(64)));

void mask_to_row(uint64_t mask, uint32_t *row)
{
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    for (int i = 0; i < 4; i++)
        _mm512_store_si512((void *)(row + 16 * i),
                           _mm512_movm_epi32((__mmask16)(mask >> (16 * i))));
#else
    uint32_t low = (uint32_t)mask, high = (uint32_t)(mask >> 32);
    for (int l = 0; l < 32; l++) row[l] = 0u - (low >> l & 1);
    for (int l = 0; l < 32; l++) row[32 + l] = 0u - (high >> l & 1);
#endif
}

uint64_t row_to_mask(const uint32_t *row, int n)
{
    uint64_t mask = 0;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    for (int i = 0; i < n / 16; i++)
        mask |= (uint64_t)_mm512_movepi32_mask(_mm512_load_si512((const void *)(row + 16 * i)))
                << (16 * i);
#else
    for (int l = 0; l < n; l++) mask |= (uint64_t)(row[l] >> 31) << l;
#endif
    return mask;
}

void write_row(struct wave *w, int reg, const uint32_t *row, uint64_t lanes)
{
    uint32_t *d = vrow(w, reg);
    if (lanes == w->full) {
        memcpy(d, row, (size_t)w->n * 4);
        return;
    }
    for (int l = 0; l < w->n; l++)
        if (lanes >> l & 1) d[l] = row[l];
}

static bool wide(int type)
{
    return type == 'D' || type == 'Q' || type == 'L' || type == 'W';
}

static bool is_short(int type)
{
    return type == 'H' || type == 'S' || type == 'T' || type == 'B';
}

static void splat(uint32_t *row, uint32_t value, int n)
{
    for (int l = 0; l < n; l++) row[l] = value;
}

/* src[from[l]] into out[l]; lanes without a source read 0. The write mask of DPP is handled by
 * dpp_lanes. */
static void permute_dpp(struct wave *w, const struct dpp *dpp, const uint32_t *src, uint32_t *out)
{
    if (w->exec == w->full && w->n <= dpp->closed) { /* every source is there */
        for (int l = 0; l < w->n; l++) out[l] = src[dpp->from[l]];
        return;
    }
    for (int l = 0; l < w->n; l++) {
        int from = dpp->from[l];
        bool valid = from >= 0 && from < w->n && (dpp->fetch_inactive || (w->exec >> from & 1));
        out[l] = valid ? src[from] : 0;
    }
}

/* The lanes a DPP instruction writes. */
static uint64_t dpp_lanes(const struct wave *w, const struct dpp *dpp)
{
    uint64_t lanes = w->exec & dpp->lanes;
    if (dpp->bound_zero || (w->exec == w->full && w->n <= dpp->closed)) return lanes;
    for (int l = 0; l < w->n; l++) {
        int from = dpp->from[l];
        bool valid = from >= 0 && from < w->n && (dpp->fetch_inactive || (w->exec >> from & 1));
        if (!valid) lanes &= ~(UINT64_C(1) << l);
    }
    return lanes;
}

static void select_sdwa(const struct operand *o, int select, const uint32_t *src, uint32_t *out,
                        int n)
{
    int shift = select < 4 ? 8 * select : select < 6 ? 16 * (select - 4) : 0;
    int bits = select < 4 ? 8 : select < 6 ? 16 : 32;
    uint32_t keep = bits == 32 ? ~0u : (1u << bits) - 1, sign = o->sext ? 1u << (bits - 1) : 0;
    for (int l = 0; l < n; l++) {
        uint32_t field = src[l] >> shift & keep;
        out[l] = (field ^ sign) - sign;
    }
}

static void apply_sign(const struct operand *o, const uint32_t *src, uint32_t *out, int n)
{
    uint32_t sign = is_short(o->type) ? 0x8000 : 0x80000000u;
    uint32_t keep = o->abs ? ~sign : ~0u, flip = o->neg ? sign : 0;
    for (int l = 0; l < n; l++) out[l] = (src[l] & keep) ^ flip;
}

static const uint32_t *modify(struct wave *w, const struct inst *in, int i, const uint32_t *src,
                              uint32_t *out)
{
    const struct operand *o = &in->op[i];
    int source = i - in->ndst, n = w->n;
    bool two = wide(o->type);
    if (in->dpp && source == 0) {
        uint32_t moved[2 * ROW];
        permute_dpp(w, in->dpp, src, moved);
        if (two) permute_dpp(w, in->dpp, src + ROW, moved + ROW);
        memcpy(out, moved, two ? sizeof moved : sizeof moved / 2);
        src = out;
    }
    if (in->sdwa && source < 2 && in->sdwa_src[source] != 6) {
        select_sdwa(o, in->sdwa_src[source], src, out, n);
        src = out;
    } else if (o->half == 2 ||
               (is_short(o->type) && !in->sdwa && !o->half && (in->opsel >> source & 1))) {
        for (int l = 0; l < n; l++) out[l] = src[l] >> 16;
        src = out;
    }
    if (o->neg || o->abs) {
        if (two && src != out) memcpy(out, src, ROW * 4);
        apply_sign(o, two ? src + ROW : src, two ? out + ROW : out, n);
        src = out;
    }
    return src;
}

const uint32_t *fetch(struct wave *w, const struct inst *in, int i, int slot)
{
    const struct operand *o = &in->op[i];
    const uint32_t *src;
    if (o->kind == OPK_VGPR) {
        src = vrow(w, o->reg);
    } else if (o->kind == OPK_IMM) {
        src = o->rows;
    } else if (o->kind == OPK_SGPR) {
        bool two = wide(o->type);
        struct operand word = *o;
        word.dwords = 1;
        splat(w->tmp[slot], read_scalar(w, &word), w->n);
        if (two) splat(w->tmp[slot] + ROW, o->dwords > 1 ? w->s[o->reg + 1] : 0, w->n);
        src = w->tmp[slot];
    } else {
        src = zeros;
    }
    return o->plain ? src : modify(w, in, i, src, w->tmp[slot]);
}

static inline uint64_t range_undefined(const struct wave *w, const struct reg_range *r)
{
    uint64_t undef = 0;
    for (int k = 0; k < r->count; k++) {
        if (r->halves & 1) undef |= w->undef[r->reg + k][0];
        if (r->halves & 2) undef |= w->undef[r->reg + k][1];
    }
    return undef;
}

/* Remembers where the undefined value that is being handed on was first used. */
void note_root(struct wave *w, uint32_t root)
{
    w->root = root ? root : (uint32_t)(w->at->pc - w->program->base) + 1;
}

/* Lanes whose sources hold something never written (all lanes when a scalar source is). */
uint64_t undefined_lanes(struct wave *w, const struct inst *in)
{
    uint64_t undef = 0;
    for (int i = 0; i < in->nvread; i++) {
        uint64_t lanes = range_undefined(w, &in->vread[i]);
        if (lanes & w->exec) note_root(w, w->v_root[in->vread[i].reg]);
        if (in->dpp && lanes && i == 0 && in->op[in->ndst].kind == OPK_VGPR) {
            uint64_t moved = 0;
            for (int l = 0; l < w->n; l++) {
                int from = in->dpp->from[l];
                bool valid = from >= 0 && (in->dpp->fetch_inactive || (w->exec >> from & 1));
                if (valid && (lanes >> from & 1)) moved |= UINT64_C(1) << l;
            }
            lanes = moved;
        }
        undef |= lanes;
    }
    for (int i = 0; i < in->nsread; i++)
        for (int k = 0; k < in->sread[i].count; k++)
            if (w->s_undef[in->sread[i].reg + k]) {
                undef = ~UINT64_C(0);
                note_root(w, w->s_root[in->sread[i].reg + k]);
            }
    return undef & w->full;
}

void set_undefined(struct wave *w, const struct reg_range *r, uint64_t written, uint64_t undef)
{
    if (undef & written) w->v_root[r->reg] = w->root;
    for (int k = 0; k < r->count; k++)
        for (int h = 0; h < 2; h++)
            if (r->halves >> h & 1) {
                uint64_t *u = &w->undef[r->reg + k][h];
                *u = (*u & ~written) | (undef & written);
            }
}

static void run_lane(struct wave *w, const struct inst *in, uint32_t *d,
                     const uint32_t *const src[3], const uint32_t *mask)
{
    in->lane(d, src[0], src[1], src[2], mask, w->n);
}

/* The row pair of operand i with every undefined half filled with zeros or ones. */
static void fill_undefined(struct wave *w, const struct inst *in, int i, uint32_t fill,
                           uint32_t *out)
{
    const struct operand *o = &in->op[in->ndst + i];
    bool scalar = o->kind == OPK_SGPR, narrow = is_short(o->type);
    int words = wide(o->type) && o->dwords > 1 ? 2 : 1;
    bool high_half = o->half == 2 || (narrow && !o->half && (in->opsel >> i & 1));
    memcpy(out, fetch(w, in, in->ndst + i, i), 2 * ROW * sizeof *out);
    if (o->kind != OPK_VGPR && !scalar) return;
    for (int k = 0; k < words; k++)
        for (int l = 0; l < w->n; l++) {
            bool all = scalar && w->s_undef[o->reg + k];
            bool lo = scalar ? all : w->undef[o->reg + k][high_half] >> l & 1;
            bool hi = !narrow && (scalar ? all : w->undef[o->reg + k][1] >> l & 1);
            uint32_t bits = (lo ? 0xffffu : 0) | (hi ? 0xffff0000u : 0);
            uint32_t *word = &out[k * ROW + l];
            *word = (*word & ~bits) | (fill & bits);
        }
}

/* Bit operations may drop the undefined part of a source (and with a mask, shift, byte permute; the
   low word of a sum does not depend on high words). Evaluate with undefined halves all zero and all
   one: result halves that differ are undefined. */
static void propagate_bits(struct wave *w, const struct inst *in, uint64_t undef, uint64_t written)
{
    uint32_t src[3][2 * ROW] = {{0}}, out[2][2 * ROW];
    for (int v = 0; v < 2; v++) {
        for (int i = 0; i < in->nsrc && i < 3; i++) fill_undefined(w, in, i, v ? ~0u : 0, src[i]);
        in->lane(out[v], src[0], src[1], src[2], all_on, w->n);
    }
    for (int k = 0; k < in->vwrite[0].count; k++)
        for (int h = 0; h < 2; h++) {
            uint64_t differ = 0;
            for (int l = 0; l < w->n; l++)
                if ((out[0][k * ROW + l] ^ out[1][k * ROW + l]) >> (16 * h) & 0xffff)
                    differ |= UINT64_C(1) << l;
            struct reg_range half = {(uint16_t)(in->op[0].reg + k), 1, (uint8_t)(1 << h)};
            if (in->vwrite[0].halves >> h & 1) set_undefined(w, &half, written, differ & undef);
        }
}

static void propagate(struct wave *w, const struct inst *in, uint64_t undef, uint64_t written)
{
    if (undef & written && in->flags & OPF_HALVES && in->vwrite[0].count <= 2 && !in->dpp &&
        !in->sdwa)
        propagate_bits(w, in, undef, written);
    else set_undefined(w, &in->vwrite[0], written, undef);
}

static void scale_and_clamp(const struct inst *in, uint32_t *r, int n)
{
    static const float factors[] = {1.0f, 2.0f, 4.0f, 0.5f};
    int type = in->op[0].type;
    float factor = factors[in->omod];
    for (int l = 0; l < n; l++) {
        if (type == 'F') {
            float f = as_float(r[l]) * factor;
            if (in->clamp) f = !(f > 0) ? 0.0f : f > 1 ? 1.0f : f;
            r[l] = as_bits(f);
        } else if (type == 'H') {
            float f = half_to_float(r[l] & 0xffff) * factor;
            if (in->clamp) f = !(f > 0) ? 0.0f : f > 1 ? 1.0f : f;
            r[l] = float_to_half(f);
        } else if (type == 'D') {
            double f = as_double(r[l] | (uint64_t)r[l + ROW] << 32) * (double)factor;
            if (in->clamp) f = !(f > 0) ? 0.0 : f > 1 ? 1.0 : f;
            r[l] = (uint32_t)as_bits64(f);
            r[l + ROW] = (uint32_t)(as_bits64(f) >> 32);
        }
    }
}

static void place_sdwa(const struct inst *in, uint32_t *r, const uint32_t *old, int n)
{
    int select = in->sdwa_dst;
    int shift = select < 4 ? 8 * select : 16 * (select - 4), bits = select < 4 ? 8 : 16;
    uint32_t field = ((1u << bits) - 1) << shift;
    for (int l = 0; l < n; l++) {
        uint32_t value = (r[l] << shift) & field, rest = 0;
        if (in->sdwa_unused == 2) rest = old[l] & ~field;
        if (in->sdwa_unused == 1 && value >> (shift + bits - 1) & 1)
            rest = ~0u << (shift + bits - 1) << 1;
        r[l] = value | rest;
    }
}

/* Writes a result row with everything the fast path leaves out: output modifiers, halves, SDWA and
 * DPP lanes. */
void finish_row(struct wave *w, const struct inst *in, const uint32_t *result)
{
    const struct operand *d = &in->op[0];
    uint32_t *r = w->tmp[5];
    uint64_t lanes = in->dpp ? dpp_lanes(w, in->dpp) : w->exec;
    if (d->kind != OPK_VGPR) return;
    const uint32_t *old = vrow(w, d->reg);
    memcpy(r, result, (wide(d->type) ? 2 : 1) * ROW * 4);
    if (in->omod || in->clamp) scale_and_clamp(in, r, w->n);
    if (in->sdwa && in->sdwa_dst != 6) {
        place_sdwa(in, r, old, w->n);
    } else if (is_short(d->type) && !(in->flags & OPF_ZERO_HIGH) && !in->sdwa) {
        for (int l = 0; l < w->n; l++)
            r[l] = in->dst_high ? (old[l] & 0xffff) | r[l] << 16
                                : (old[l] & 0xffff0000) | (r[l] & 0xffff);
    }
    write_row(w, d->reg, r, lanes);
    if (wide(d->type)) write_row(w, d->reg + 1, r + ROW, lanes);
}

void exec_valu(struct wave *w, const struct inst *in)
{
    const uint32_t *src[3] = {zeros, zeros, zeros};
    uint64_t undef = 0, written = w->exec;
    int d = in->ndst;
    for (int i = 0; i < in->nsrc && i < 3; i++) src[i] = fetch(w, in, d + i, i);
    if (in->flags & OPF_READS_DST) {
        src[2] = vrow(w, in->op[0].reg);
        if (in->dst_high) {
            for (int l = 0; l < w->n; l++) w->tmp[2][l] = src[2][l] >> 16;
            src[2] = w->tmp[2];
        }
    }
    undef = undefined_lanes(w, in);
    if (in->dpp) written = dpp_lanes(w, in->dpp);
    if (in->nvwrite && (undef & written) && in->flags & OPF_HALVES) {
        propagate(w, in, undef, written); /* before the write: the destination may be a source */
        for (int i = 0; i < in->nsrc && i < 3; i++) src[i] = fetch(w, in, d + i, i);
    } else if (in->nvwrite) {
        set_undefined(w, &in->vwrite[0], written, undef);
    }
    if (in->direct_dst) {
        run_lane(w, in, vrow(w, in->op[0].reg), src, w->mask);
    } else {
        run_lane(w, in, w->tmp[4], src, all_on);
        finish_row(w, in, w->tmp[4]);
    }
}

/* Both halves read before either writes. Decoding ordered them so that running them in turn is
   right, except when each reads what the other writes: then the first result is kept aside. */
void exec_dual(struct wave *w, const struct inst *in)
{
    if (!in->dual_crossed) {
        in->dual_first(w, in);
        in->dual->exec(w, in->dual);
        return;
    }
    uint32_t *d = vrow(w, in->op[0].reg), *aside = vrow(w, SPARE_ROW);
    uint64_t before[2], after[2], *undef = w->undef[in->op[0].reg];
    memcpy(before, undef, sizeof before);
    memcpy(aside, d, ROW * 4);
    in->dual_first(w, in);
    for (int l = 0; l < w->n; l++) {
        uint32_t result = d[l];
        d[l] = aside[l];
        aside[l] = result;
    }
    memcpy(after, undef, sizeof after);
    memcpy(undef, before, sizeof before);
    in->dual->exec(w, in->dual);
    memcpy(d, aside, (size_t)w->n * 4);
    memcpy(undef, after, sizeof after);
}
