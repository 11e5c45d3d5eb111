/* This file is about one decode step of a small model on one CPU core, in float32.

With a few million parameters the arithmetic of a step takes half a millisecond, and the calls that
would start it from Python several times that. Here one call does it all. The arithmetic is
`DecoderLM.forward`'s; `models/native_decode.py` fills the structs and lays the weights out.

A weight [out, in] lies in panels: TILE outputs side by side for every input, so that a product
reads it from front to back. Widths of activations are padded to whole panels; padding is zero.
Tokens of a batch share nothing but the weights, hence results do not depend on who else is there.
*/

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Accumulators of a product are ROWS x 2 vectors, two more hold weights: what the registers hold. */
#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8
#else
#define LANES 8
#define ROWS 4
#endif
#define TILE (2 * LANES)

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

struct layer {
    const float *qkv, *qkv_bias;     /* panels; biases are padded like outputs, or null */
    const float *heads_norm;         /* [heads + kv_heads, dim], or null */
    const float *out, *out_bias;     /* panels of in = heads * dim */
    const float *gate_up;            /* panels of LANES gates and LANES ups */
    const float *down;
    float *keys, *values;            /* [blocks, block_size, kv_heads, dim] */
};

struct model {
    int64_t layers, hidden, heads, kv_heads, dim, intermediate, vocab, block_size;
    float norm_floor, heads_floor;   /* eps times the number of elements of a norm */
    float scale;                     /* of attention scores */
    const float *embedding;          /* [vocab, hidden] */
    const float *head;               /* panels */
    const struct layer *layer;
};

struct batch {
    /* one entry for every row that a sequence may own */
    const int64_t *last_token, *num_tokens, *delta;
    const int32_t *table;            /* [rows, table_width] */
    int64_t table_width;
    /* this step */
    int64_t count;
    const int64_t *rows;             /* [count] */
    const float *cos, *sin;          /* [positions, dim / 2] */
    float *scratch;                  /* `scratch_floats` of them */
    float *logits;                   /* [count, vocab padded] */
};

INLINE int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

INLINE float sum(lanes v) {
    float parts[LANES];
    memcpy(parts, &v, sizeof v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) parts[i] += parts[i + half];
    return parts[0];
}

INLINE lanes pick(ints mask, lanes yes, lanes no) {
    return (lanes)(((ints)yes & mask) | ((ints)no & ~mask));
}

/* e^x to 2 ulp for |x| < 87, held there beyond; not a number stays that. */
INLINE lanes exponential(lanes x) {
    const lanes low = (lanes){0} - 87.0f, high = (lanes){0} + 87.0f;
    x = pick(x < low, low, pick(x > high, high, x));
    const float magic = 12582912.0f;  /* 1.5 * 2^23: a sum with it rounds to a whole number */
    lanes whole = x * 1.44269504f + magic;
    ints power = ((ints)whole << 23) + 0x3f800000;  /* 2^n in IEEE 754 */
    whole -= magic;
    lanes rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;  /* ln 2 in two parts */
    lanes value = rest * 1.3888889e-3f + 8.3333333e-3f;  /* Taylor: |rest| <= ln(2) / 2 */
    value = value * rest + 4.1666667e-2f;
    value = value * rest + 1.6666667e-1f;
    value = value * rest + 0.5f;
    value = value * rest + 1.0f;
    value = value * rest + 1.0f;
    return value * (lanes)power;
}

enum form { PLAIN, ADD, GATED };

/* y[r] = factor[r] * x[r] . panels + bias for `rows` of at most ROWS rows, a constant where this is
   inlined. ADD adds to y; GATED stores silu(gate) * up, LANES columns a panel. */
INLINE void product_of(
    const int rows, const enum form form, const float *x, int64_t ldx, int64_t depth,
    const float *panels, int64_t tiles, const float *factor, const float *bias, float *y,
    int64_t ldy) {
    for (int64_t tile = 0; tile < tiles; tile++) {
        const float *weight = panels + tile * depth * TILE;
        lanes at[ROWS][2];
        for (int r = 0; r < rows; r++) at[r][0] = at[r][1] = (lanes){0};
        for (int64_t k = 0; k < depth; k++) {
            const lanes left = *(const lanes *)(weight + k * TILE);
            const lanes right = *(const lanes *)(weight + k * TILE + LANES);
            for (int r = 0; r < rows; r++) {
                const float value = x[r * ldx + k];
                at[r][0] += value * left;
                at[r][1] += value * right;
            }
        }
        for (int r = 0; r < rows; r++) {
            lanes left = at[r][0], right = at[r][1];
            if (factor) left *= factor[r], right *= factor[r];
            if (bias) {
                left += *(const lanes *)(bias + tile * TILE);
                right += *(const lanes *)(bias + tile * TILE + LANES);
            }
            if (form == GATED) {
                left /= 1.0f + exponential(-left);
                *(lanes *)(y + r * ldy + tile * LANES) = left * right;
                continue;
            }
            lanes *target = (lanes *)(y + r * ldy + tile * TILE);
            if (form == ADD) left += target[0], right += target[1];
            target[0] = left;
            target[1] = right;
        }
    }
}

INLINE void product(
    const enum form form, int64_t count, const float *x, int64_t ldx, int64_t depth,
    const float *panels, int64_t tiles, const float *factor, const float *bias, float *y,
    int64_t ldy) {
    for (int64_t done = 0; done < count; done += ROWS) {
        const float *from = x + done * ldx, *by = factor ? factor + done : factor;
        float *to = y + done * ldy;
#define OF(n) product_of(n, form, from, ldx, depth, panels, tiles, by, bias, to, ldy)
        switch (count - done) {
            case 1: OF(1); break;
            case 2: OF(2); break;
            case 3: OF(3); break;
#if ROWS > 4
            case 4: OF(4); break;
            case 5: OF(5); break;
            case 6: OF(6); break;
            case 7: OF(7); break;
#endif
            default: OF(ROWS);
        }
#undef OF
    }
}

/* factor[r] = 1 / sqrt(sum(x[r]^2) + floor); the norm's weight is in the projection's. */
static void lengths(int64_t count, const float *x, int64_t width, float floor, float *factor) {
    for (int64_t r = 0; r < count; r++) {
        lanes squares = {0};
        for (int64_t i = 0; i < width; i += LANES) {
            const lanes v = *(const lanes *)(x + r * width + i);
            squares += v * v;
        }
        factor[r] = 1.0f / sqrtf(sum(squares) + floor);
    }
}

/* Norm and rotate a head in place; `norm` may be null. */
INLINE void turn(
    float *head, int64_t dim, const float *norm, float floor, const float *cos, const float *sin) {
    const int64_t half = dim / 2;
    if (norm) {
        lanes squares = {0};
        for (int64_t i = 0; i < dim; i += LANES) {
            const lanes v = *(const lanes *)(head + i);
            squares += v * v;
        }
        const float factor = 1.0f / sqrtf(sum(squares) + floor);
        for (int64_t i = 0; i < dim; i += LANES)
            *(lanes *)(head + i) *= *(const lanes *)(norm + i) * factor;
    }
    for (int64_t i = 0; i < half; i++) {
        const float first = head[i], second = head[i + half];
        head[i] = first * cos[i] - second * sin[i];
        head[i + half] = second * cos[i] + first * sin[i];
    }
}

/* One query head against the keys and values of its sequence; `scores` has room for `length`
   rounded up to LANES. `dim` is a constant where this is inlined. */
INLINE void attend_of(
    const int64_t dim, const float *query, const float *keys, const float *values, int64_t stride,
    const int32_t *table, int64_t block_size, int64_t length, float scale, float *scores,
    float *mixed) {
    for (int64_t first = 0; first < length; first += block_size) {
        const float *key = keys + table[first / block_size] * block_size * stride;
        const int64_t end = first + block_size < length ? first + block_size : length;
        for (int64_t t = first; t < end; t++, key += stride) {
            lanes dot = {0};
            for (int64_t i = 0; i < dim; i += LANES)
                dot += *(const lanes *)(query + i) * *(const lanes *)(key + i);
            scores[t] = sum(dot) * scale;
        }
    }
    const int64_t whole = padded(length, LANES);
    for (int64_t t = length; t < whole; t++) scores[t] = -INFINITY;
    lanes most = *(lanes *)scores;
    for (int64_t t = LANES; t < whole; t += LANES) {
        const lanes v = *(lanes *)(scores + t);
        most = pick(v > most, v, most);
    }
    float highest = most[0];
    for (int i = 1; i < LANES; i++) highest = most[i] > highest ? most[i] : highest;
    lanes total = {0};
    for (int64_t t = 0; t < whole; t += LANES) {
        const lanes weight = exponential(*(lanes *)(scores + t) - highest);
        *(lanes *)(scores + t) = weight;
        total += weight;
    }
    lanes sums[dim / LANES];
    for (int64_t i = 0; i < dim / LANES; i++) sums[i] = (lanes){0};
    for (int64_t first = 0; first < length; first += block_size) {
        const float *value = values + table[first / block_size] * block_size * stride;
        const int64_t end = first + block_size < length ? first + block_size : length;
        for (int64_t t = first; t < end; t++, value += stride)
            for (int64_t i = 0; i < dim / LANES; i++)
                sums[i] += scores[t] * ((const lanes *)value)[i];
    }
    const float factor = 1.0f / sum(total);
    for (int64_t i = 0; i < dim / LANES; i++) ((lanes *)mixed)[i] = sums[i] * factor;
}

static void attend(
    int64_t dim, const float *query, const float *keys, const float *values, int64_t stride,
    const int32_t *table, int64_t block_size, int64_t length, float scale, float *scores,
    float *mixed) {
#define OF(n) \
    attend_of(n, query, keys, values, stride, table, block_size, length, scale, scores, mixed)
    switch (dim) {
        case 16: OF(16); break;
        case 32: OF(32); break;
        case 64: OF(64); break;
        case 128: OF(128); break;
        default: OF(dim);
    }
#undef OF
}

/* Sizes that the caller must know to lay things out. */
int64_t tile_width(void) { return TILE; }
int64_t lane_width(void) { return LANES; }

int64_t scratch_floats(const struct model *m, int64_t count, int64_t longest) {
    const int64_t qkv = padded((m->heads + 2 * m->kv_heads) * m->dim, TILE);
    const int64_t row = 1 + padded(m->hidden, TILE) + qkv + padded(m->heads * m->dim, TILE) +
                        padded(m->intermediate, LANES);
    return count * row + padded(longest, LANES);
}

/* Logits of the next token of every row of `b`; the last token's keys and values are filed. */
void decode_step(const struct model *m, const struct batch *b) {
    const int64_t count = b->count, dim = m->dim, half = dim / 2;
    const int64_t heads = m->heads, kv_heads = m->kv_heads, group = heads / kv_heads;
    const int64_t hidden = padded(m->hidden, TILE), mixed_width = padded(heads * dim, TILE);
    const int64_t qkv_width = padded((heads + 2 * kv_heads) * dim, TILE);
    const int64_t middle = padded(m->intermediate, LANES), stride = kv_heads * dim;
    float *x = b->scratch, *qkv = x + count * hidden, *mixed = qkv + count * qkv_width;
    float *activated = mixed + count * mixed_width, *factor = activated + count * middle;
    float *scores = factor + count;

    for (int64_t r = 0; r < count; r++) {
        const float *from = m->embedding + b->last_token[b->rows[r]] * m->hidden;
        memcpy(x + r * hidden, from, m->hidden * sizeof(float));
        memset(x + r * hidden + m->hidden, 0, (hidden - m->hidden) * sizeof(float));
    }
    for (const struct layer *at = m->layer; at < m->layer + m->layers; at++) {
        lengths(count, x, hidden, m->norm_floor, factor);
        product(PLAIN, count, x, hidden, m->hidden, at->qkv, qkv_width / TILE, factor,
                at->qkv_bias, qkv, qkv_width);
        for (int64_t r = 0; r < count; r++) {
            const int64_t row = b->rows[r], length = b->num_tokens[row], index = length - 1;
            const int32_t *table = b->table + row * b->table_width;
            const float *cos = b->cos + (index + b->delta[row]) * half;
            const float *sin = b->sin + (index + b->delta[row]) * half;
            float *head = qkv + r * qkv_width;
            for (int64_t h = 0; h < heads + kv_heads; h++)
                turn(head + h * dim, dim, at->heads_norm ? at->heads_norm + h * dim : NULL,
                     m->heads_floor, cos, sin);
            const int64_t slot =
                (table[index / m->block_size] * m->block_size + index % m->block_size) * stride;
            memcpy(at->keys + slot, head + heads * dim, stride * sizeof(float));
            memcpy(at->values + slot, head + (heads + kv_heads) * dim, stride * sizeof(float));
            for (int64_t h = 0; h < heads; h++)
                attend(dim, head + h * dim, at->keys + h / group * dim,
                       at->values + h / group * dim, stride, table, m->block_size, length,
                       m->scale, scores, mixed + r * mixed_width + h * dim);
        }
        product(ADD, count, mixed, mixed_width, heads * dim, at->out, hidden / TILE, NULL,
                at->out_bias, x, hidden);
        lengths(count, x, hidden, m->norm_floor, factor);
        product(GATED, count, x, hidden, m->hidden, at->gate_up, middle / LANES, factor, NULL,
                activated, middle);
        product(ADD, count, activated, middle, m->intermediate, at->down, hidden / TILE, NULL,
                NULL, x, hidden);
    }
    lengths(count, x, hidden, m->norm_floor, factor);
    product(PLAIN, count, x, hidden, m->hidden, m->head, padded(m->vocab, TILE) / TILE, factor,
            NULL, b->logits, padded(m->vocab, TILE));
}
