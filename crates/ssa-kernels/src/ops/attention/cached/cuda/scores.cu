// Scores and importances of the blocks of a cache, by their mean keys. q [N, HQ, HEAD_DIM] bf16.
//
//     s_hc = scale q_h . mean_c,  lse_h over complete blocks c < (t + 1) / b
//     I_c = sum_h exp(s_hc - lse_h)
//
// Two kernels, because importances need the sum over the scores of all blocks. Blocks are assigned
// in units of 16 a warp to SPLITS blocks of threads, for any number of tokens, so every sum has one
// order. page_scores writes the scores and, for each split, maximum and sum of
// exponentials; page_importance combines those of all splits. Bytes: the means once; scores a
// quarter of them at 16 heads of 64, mostly in the second level cache.
//
// Precision as in selection.cu: q is bf16, a mean is split into high + low, two products.
//
// Given as macros: HEAD_DIM, PAGE_SIZE, GROUP.
#include "params.cuh"
#include "cached.cuh"
#include "rows.cuh"

constexpr int WARPS = THREADS / WARP;
constexpr int UNIT = MEANS_PER_PAGE * WARPS;
static_assert(MEANS_PER_PAGE == 16, "a product has 16 rows");
// Rows are padded with zeros to whole vectors of four lanes.
constexpr int VECTORS = ceil_div(HEAD_DIM, 32);
constexpr int WORDS = 4 * VECTORS;
typedef Row<32 * VECTORS> Padded;
// Sets of 8 heads, the columns of a product.
constexpr int HEAD_SETS = ceil_div(GROUP, 8);
constexpr int HEADS = 8 * HEAD_SETS;
// In place of negative infinity, whose differences are not numbers.
constexpr float LOWEST = -1e30f;

// One token and key/value head. Grid: (SPLITS, H, tokens).
struct Work {
    int token;
    const int* mean_pages;
    // Number of complete blocks.
    int complete;
    // Row [HEADS] of scores of block 0, row of maxima and sums of split 0, importance of block 0.
    i64 score, statistic, importance;

    DEVICE_MEMBER explicit Work(const CachedTokens& tokens)
        : token(tokens.first + blockIdx.z), mean_pages(mean_table(tokens, token)) {
        const int position = tokens.positions[token];
        complete = (position + 1) / PAGE_SIZE;
        const i64 row = i64(blockIdx.z) * gridDim.y + blockIdx.y;
        importance = row * tokens.blocks;
        score = importance * HEADS;
        statistic = row * SPLITS * HEADS;
    }
    // Splits that have blocks.
    DEVICE_MEMBER int splits() const { return min(SPLITS, ceil_div(complete, UNIT)); }
};

// Maximum and sum of 2^(score - maximum) of one head.
struct Statistic {
    float maximum, sum;

    DEVICE_MEMBER void add(Statistic other) {
        const float all = fmaxf(maximum, other.maximum);
        sum = sum * exp2_approx(maximum - all) + other.sum * exp2_approx(other.maximum - all);
        maximum = all;
    }
    DEVICE_MEMBER Statistic shuffled(int offset) const {
        return {__shfl_xor_sync(ALL_LANES, maximum, offset),
                __shfl_xor_sync(ALL_LANES, sum, offset)};
    }
};

// Whether vector `v` of lane `c` is inside the row.
DEVICE bool is_inside(int v, int c) {
    return HEAD_DIM % 32 == 0 || Padded::first(4 * v, c) < HEAD_DIM;
}

// The words of vector `v` of a mean, high and low.
DEVICE void split(u32 (&high)[4], u32 (&low)[4], const float* mean, int v, int c) {
    float values[8] = {};
    if (is_inside(v, c)) load8(values, mean + Padded::first(4 * v, c));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 x = make_float2(values[2 * i], values[2 * i + 1]);
        high[i] = pack_bf16(x.x, x.y);
        const float2 rounded = unpack_bf16(high[i]);
        low[i] = pack_bf16(x.x - rounded.x, x.y - rounded.y);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) page_scores(const PageScores p) {
    __shared__ Statistic shared[WARPS][HEADS];
    start_next();
    wait_for_previous();
    const Work work(p.tokens);
    if (blockIdx.x >= work.splits() || selects_all(p.tokens, work.token, p.all_within)) return;
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
    const int kv_heads = gridDim.y, kv_head = blockIdx.y;

    u32 q[HEAD_SETS][WORDS];
#pragma unroll
    for (int n = 0; n < HEAD_SETS; ++n) {
        const i64 head = (i64(work.token) * kv_heads + kv_head) * GROUP + min(8 * n + g, GROUP - 1);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            uint4 x = make_uint4(0, 0, 0, 0);
            if (is_inside(v, c))
                x = *reinterpret_cast<const uint4*>(p.q + head * HEAD_DIM +
                                                    Padded::first(4 * v, c));
            q[n][4 * v] = x.x, q[n][4 * v + 1] = x.y, q[n][4 * v + 2] = x.z, q[n][4 * v + 3] = x.w;
        }
    }
    // Of the columns 2c and 2c + 1 of every set.
    Statistic statistics[HEAD_SETS][2];
#pragma unroll
    for (int n = 0; n < HEAD_SETS; ++n) statistics[n][0] = statistics[n][1] = {LOWEST, 0.0f};

    for (int unit = blockIdx.x; unit * UNIT < work.complete; unit += SPLITS) {
        const int first = unit * UNIT + warp * MEANS_PER_PAGE;
        if (first >= work.complete) break;
        // Rows of blocks that are not complete are read and not used.
        const float* means =
            p.key_means + mean_row(work.mean_pages[first / MEANS_PER_PAGE], g, kv_head, kv_heads);
        float s[HEAD_SETS][4] = {};
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            u32 high[2][4], low[2][4];
#pragma unroll
            for (int half = 0; half < 2; ++half)
                split(high[half], low[half], means + 8 * half * HEAD_DIM, v, c);
#pragma unroll
            for (int i = 0; i < 4; i += 2)
#pragma unroll
                for (int n = 0; n < HEAD_SETS; ++n) {
                    const u32 right[2] = {q[n][4 * v + i], q[n][4 * v + i + 1]};
                    const u32 upper[4] = {high[0][i], high[1][i], high[0][i + 1], high[1][i + 1]};
                    const u32 lower[4] = {low[0][i], low[1][i], low[0][i + 1], low[1][i + 1]};
                    mma(s[n], upper, right);
                    mma(s[n], lower, right);
                }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int block = first + g + 8 * half;
            if (block >= work.complete) continue;
            float* row = p.scores + work.score + i64(block) * HEADS + 2 * c;
#pragma unroll
            for (int n = 0; n < HEAD_SETS; ++n) {
                const float x = s[n][2 * half] * p.scale, y = s[n][2 * half + 1] * p.scale;
                *reinterpret_cast<float2*>(row + 8 * n) = make_float2(x, y);
                statistics[n][0].add({x, 1.0f});
                statistics[n][1].add({y, 1.0f});
            }
        }
    }

#pragma unroll
    for (int n = 0; n < HEAD_SETS; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int offset = 4; offset < WARP; offset *= 2)
                statistics[n][i].add(statistics[n][i].shuffled(offset));
            if (g == 0) shared[warp][8 * n + 2 * c + i] = statistics[n][i];
        }
    __syncthreads();
    if (threadIdx.x >= HEADS) return;
    Statistic total = shared[0][threadIdx.x];
    for (int w = 1; w < WARPS; ++w) total.add(shared[w][threadIdx.x]);
    p.statistics[work.statistic + blockIdx.x * HEADS + threadIdx.x] =
        make_float2(total.maximum, total.sum);
}

extern "C" __global__ void __launch_bounds__(THREADS) page_importance(const PageImportance p) {
    // Logarithm of the sum of 2^score of every head.
    __shared__ float lse[HEADS];
    start_next();
    wait_for_previous();
    const Work work(p.tokens);
    const int splits = work.splits(), lane = threadIdx.x % WARP;
    if (blockIdx.x >= splits || selects_all(p.tokens, work.token, p.all_within)) return;
    for (int head = threadIdx.x / WARP; head < GROUP; head += WARPS) {
        Statistic total = {LOWEST, 0.0f};
        for (int i = lane; i < splits; i += WARP) {
            const float2 x = p.statistics[work.statistic + i * HEADS + head];
            total.add({x.x, x.y});
        }
#pragma unroll
        for (int offset = 1; offset < WARP; offset *= 2) total.add(total.shuffled(offset));
        if (lane == 0) lse[head] = total.maximum + __log2f(total.sum);
    }
    __syncthreads();
    for (int unit = blockIdx.x; unit * UNIT < work.complete; unit += SPLITS) {
        for (int i = threadIdx.x; i < UNIT; i += THREADS) {
            const int block = unit * UNIT + i;
            if (block >= work.complete) break;
            const float* row = p.scores + work.score + i64(block) * HEADS;
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < HEADS; n += 4) {
                const float4 x = *reinterpret_cast<const float4*>(row + n);
                const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (n + j < GROUP) sum += exp2_approx(values[j] - lse[n + j]);
                }
            }
            p.importance[work.importance + block] = sum;
        }
    }
}
