// Online softmax over tiles of scores, for the two rows that a lane holds of each row tile of an
// `mma` accumulator.
//
// With m a row's reference, the running sums sum_j e^(s_j - m) and sum_j e^(s_j - m) v_j hold for
// any m near the largest score. When the largest score so far grows from m to m', both are
// multiplied by e^(m - m'). Exponentials are powers of two of `scale` times the score, with
// scale = softmax_scale / ln 2, so that no product is spent on the base.
#pragma once
#include "mma.cuh"

// The maximum is the largest score so far. A row may see no key, and then has none.
struct ExactMaximum {
    static constexpr bool ROWS_MAY_BE_EMPTY = true;
    static constexpr bool REDUCE_FIRST = true;
    DEVICE_MEMBER static bool exceeds(float score, float row_max) { return score > row_max; }
};

// The maximum is raised only when a score exceeds it by 8, which is rare after the first tile. The
// result is the same sum, with terms of at most 2^8. For scores that are scaled already. The lanes
// of a row need not agree on its largest score before one of them votes for raising.
struct LaggingMaximum {
    static constexpr bool ROWS_MAY_BE_EMPTY = false;
    static constexpr bool REDUCE_FIRST = false;
    DEVICE_MEMBER static bool exceeds(float score, float row_max) { return score > row_max + 8.0f; }
};

// The largest of a lane's scores in one of the two rows of a row tile, by CHAINS independent chains
// of operations.
template <int CHAINS, int N> DEVICE float lane_max(const float (&s)[N][4], int half) {
    static_assert(CHAINS == 1 || CHAINS == 4, "");
    float x[CHAINS];
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) x[i] = s[i / 2][2 * half + i % 2];
#pragma unroll
    for (int i = CHAINS; i < 2 * N; ++i) {
        x[i % CHAINS] = fmaxf(x[i % CHAINS], s[i / 2][2 * half + i % 2]);
    }
    if constexpr (CHAINS == 4) return fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    else return x[0];
}

// Multiplies one of the two rows of a row tile.
template <int N> DEVICE void scale_row(float (&o)[N][4], int half, float factor) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
        o[n][2 * half] *= factor;
        o[n][2 * half + 1] *= factor;
    }
}

template <int M, typename Policy> struct OnlineSoftmax {
    // Of scores before scaling, the same in the four lanes of a row.
    float row_max[M][2];
    // Of the keys that this lane holds.
    float row_sum[M][2];
    float scale;

    DEVICE_MEMBER explicit OnlineSoftmax(float scale) : scale(scale) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            row_max[m][0] = row_max[m][1] = -infinity();
            row_sum[m][0] = row_sum[m][1] = 0.0f;
        }
    }

    // The value to subtract from scaled scores. It is finite even if a row has seen no key.
    DEVICE_MEMBER float reference(int m, int half) const {
        if (Policy::ROWS_MAY_BE_EMPTY && row_max[m][half] == -infinity()) return 0.0f;
        return row_max[m][half] * scale;
    }

    DEVICE_MEMBER float weight(float score, float reference) const {
        return exp2_approx(score * scale - reference);
    }

    // Raises the maximum of a row to that of its new scores, and returns the factor for its sums so
    // far.
    DEVICE_MEMBER float raise(int m, int half, float tile_max) {
        const float old = row_max[m][half];
        row_max[m][half] = fmaxf(old, tile_max);
        return exp2_approx(old * scale - reference(m, half));
    }

    // Raises the maxima of all rows and rescales sums and outputs, if a score requires it: after
    // the first few tiles that is rare, so the warp votes. `lane_max`: the largest of this lane's
    // new scores in each row.
    template <int N>
    DEVICE_MEMBER void advance(float (&o)[M][N][4], const float (&lane_max)[M][2]) {
        float tile_max[M][2];
        bool exceeds = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float x = lane_max[m][half];
                tile_max[m][half] =
                    Policy::REDUCE_FIRST ? fmaxf(row_max[m][half], quad_max(x)) : x;
                exceeds |= Policy::exceeds(tile_max[m][half], row_max[m][half]);
            }
        if (!__any_sync(ALL_LANES, exceeds)) return;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float x = tile_max[m][half];
                const float factor = raise(m, half, Policy::REDUCE_FIRST ? x : quad_max(x));
                row_sum[m][half] *= factor;
                scale_row(o[m], half, factor);
            }
    }

    // The sum over all keys, in every lane of the row.
    DEVICE_MEMBER float total(int m, int half) const { return quad_sum(row_sum[m][half]); }
    // The factor of outputs at the end: zero for a row without keys.
    DEVICE_MEMBER static float normalizer(float total) {
        return !Policy::ROWS_MAY_BE_EMPTY || total > 0.0f ? 1.0f / total : 0.0f;
    }
    DEVICE_MEMBER float lse(int m, int half, float total) const {
        if (Policy::ROWS_MAY_BE_EMPTY && !(total > 0.0f)) return -infinity();
        return (row_max[m][half] * scale + __log2f(total)) * LN_2;
    }
};
