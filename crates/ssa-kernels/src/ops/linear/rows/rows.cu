// Linear maps of a few tokens, for decoding: y = x W^T with W [outputs, INPUTS] and x [tokens,
// INPUTS] bf16, sums in f32. The time of such a product is that of reading W once, so everything
// here serves to keep reads in flight.
//
// Rows of W are the 16 rows of a product of tensor cores, 8 tokens its columns. A block owns a tile
// of 16 rows (of both halves of W, for SwiGLU) and walks on to further tiles; its warps take the
// steps of 32 inputs in turn, and their sums are added in order at the end of a tile. So which
// numbers are added in which order depends on INPUTS alone: a token has the same result whatever
// the other tokens of the call are.
//
// A lane's weights go through its own ring in shared memory (lane_ring.cuh), without a barrier. The
// ring is filled before the kernels ahead have ended: weights do not depend on them. 64 KiB a block
// are 8.4 MB on 132 multiprocessors, three times what latency times bandwidth asks for, and two
// kernels fit a multiprocessor, so that the second fills its ring while the first one ends.
//
// With NORM, x is first normalized as by rms_norm_fwd: every block computes the norms of all its
// tokens anew, which costs less than a kernel of its own.
//
// Given as macros: INPUTS; EPILOGUE, what is done with the result; NORM; TOKEN_TILES, tiles of 8
// tokens of a block. Grid: (tiles of outputs or fewer, groups of TOKEN_TILES * 8 tokens).
#include "dependent_launch.cuh"
#include "lane_ring.cuh"
#include "params.cuh"

constexpr int THREADS = WARPS * WARP;
constexpr int STEP = 32;
constexpr int STEPS = ceil_div(INPUTS, STEP);
constexpr int ROW_TILES = EPILOGUE == SWIGLU ? 2 : 1;
// Pieces of a stage: rows g and g + 8 of every row tile.
constexpr int COPIES = 2 * ROW_TILES;
constexpr int STAGES = RING_BYTES / (WARPS * COPIES * WARP * 16);
constexpr int TOKENS = 8 * TOKEN_TILES;
// Distance of the tokens in the sums of a tile: free of bank conflicts.
constexpr int PITCH = 20;
typedef LaneRing<COPIES, STAGES> Ring;

struct Lane {
    int warp, g, c;
    DEVICE_MEMBER Lane()
        : warp(threadIdx.x / WARP), g(threadIdx.x % WARP / 4), c(threadIdx.x % 4) {}
    // First of the eight inputs that this lane holds of a step.
    DEVICE_MEMBER int input(int step) const { return step * STEP + c * 8; }
};

// Eight elements of a row from `at` on, zeros beyond its end.
DEVICE uint4 load_inputs(const bf16* row, int at) {
    if constexpr (INPUTS % 8 == 0) {
        if (INPUTS % STEP == 0 || at < INPUTS) return *reinterpret_cast<const uint4*>(row + at);
        return make_uint4(0, 0, 0, 0);
    } else {
        u32 x[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = at + i < INPUTS ? row[at + i].bits : 0;
        return make_uint4(x[0] | x[1] << 16, x[2] | x[3] << 16, x[4] | x[5] << 16,
                          x[6] | x[7] << 16);
    }
}

// The weights of this lane in all tiles of the block, in the order in which they are used.
struct Weights {
    const bf16* weight;
    int outputs, tile, step;

    DEVICE_MEMBER Weights(const LinearRows& p, const Lane& lane)
        : weight(p.weight + p.first_row * INPUTS), outputs(p.outputs),
          tile(lane.warp < STEPS ? blockIdx.x : p.outputs), step(lane.warp) {}
    // Starts the copies of the next step.
    DEVICE_MEMBER void copy_next(Ring& ring, const Lane& lane) {
        if (tile * 16 < outputs) {
            const int at = lane.input(step);
#pragma unroll
            for (int piece = 0; piece < COPIES; ++piece) {
                const int row = min(tile * 16 + lane.g + piece % 2 * 8, outputs - 1);
                const bf16* from = weight + (i64(piece / 2) * outputs + row) * INPUTS;
                if constexpr (INPUTS % 8 == 0)
                    ring.copy(piece, from + at, INPUTS % STEP == 0 || at < INPUTS);
                else ring.set(piece, load_inputs(from, at));
            }
            step += WARPS;
            if (step >= STEPS) step = lane.warp, tile += gridDim.x;
        }
        ring.commit();
    }
};

DEVICE u32 normalize(u32 pair, float scale, u32 weights) {
    const float2 x = unpack_bf16(pair), w = unpack_bf16(weights);
    return pack_bf16(w.x * (x.x * scale), w.y * (x.y * scale));
}

// 1 / rms of every token of the block.
DEVICE void find_scales(float (&scales)[TOKENS], const LinearRows& p, int first, const Lane& lane) {
    for (int token = lane.warp; token < TOKENS; token += WARPS) {
        const bf16* row = p.x + i64(min(first + token, p.tokens - 1)) * INPUTS;
        float sum = 0.0f;
#pragma unroll 8
        for (int at = threadIdx.x % WARP * 8; at < INPUTS; at += WARP * 8) {
            const uint4 x = load_inputs(row, at);
            const u32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float2 pair = unpack_bf16(words[i]);
                sum = fmaf(pair.x, pair.x, sum);
                sum = fmaf(pair.y, pair.y, sum);
            }
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) scales[token] = 1.0f / sqrtf(sum * (1.0f / INPUTS) + p.eps);
    }
    __syncthreads();
}

// What is done with the sums of one token and output.
DEVICE void finish(const LinearRows& p, i64 token, int output, const float (&sums)[ROW_TILES]) {
    const i64 at = token * p.outputs + output;
    if constexpr (EPILOGUE == STORE) p.out[at] = to_bf16(sums[0]);
    if constexpr (EPILOGUE == STORE_F32) p.out_f32[at] = sums[0];
    if constexpr (EPILOGUE == ADD) p.out[at] = to_bf16(to_float(p.out[at]) + sums[0]);
    if constexpr (EPILOGUE == SWIGLU)
        p.out[at] = to_bf16(sums[0] * sigmoid(sums[0]) * sums[ROW_TILES - 1]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) linear_rows(const LinearRows p) {
    extern __shared__ __align__(16) u8 shared[];
    __shared__ float partial[WARPS][ROW_TILES][TOKENS * PITCH];
    start_next();
    const Lane lane;
    Ring ring(shared);
    Weights weights(p, lane);
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) weights.copy_next(ring, lane);
    wait_for_previous();

    const int first = blockIdx.y * TOKENS;
    __shared__ float scales[TOKENS];
    if constexpr (NORM) find_scales(scales, p, first, lane);
    const bf16* rows[TOKEN_TILES];
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; ++t) {
        // Columns beyond the last token repeat it; their results are not stored.
        rows[t] = p.x + i64(min(first + 8 * t + lane.g, p.tokens - 1)) * INPUTS;
    }
    // Of the next step; they are in a cache.
    uint4 next[TOKEN_TILES];
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; ++t) next[t] = load_inputs(rows[t], lane.input(lane.warp));

    for (int tile = blockIdx.x; tile * 16 < p.outputs; tile += gridDim.x) {
        float sums[ROW_TILES][TOKEN_TILES][4] = {};
        for (int step = lane.warp; step < STEPS; step += WARPS) {
            u32 x[TOKEN_TILES][4];
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; ++t) {
                x[t][0] = next[t].x, x[t][1] = next[t].y, x[t][2] = next[t].z, x[t][3] = next[t].w;
                const int after = step + WARPS < STEPS ? step + WARPS : lane.warp;
                next[t] = load_inputs(rows[t], lane.input(after));
            }
            if constexpr (NORM) {
                const uint4 norm = load_inputs(p.norm, lane.input(step));
                const u32 norms[4] = {norm.x, norm.y, norm.z, norm.w};
#pragma unroll
                for (int t = 0; t < TOKEN_TILES; ++t) {
                    const float scale = scales[8 * t + lane.g];
#pragma unroll
                    for (int i = 0; i < 4; ++i) x[t][i] = normalize(x[t][i], scale, norms[i]);
                }
            }
            ring.wait();
#pragma unroll
            for (int r = 0; r < ROW_TILES; ++r) {
                const uint4 a = ring.read(2 * r), b = ring.read(2 * r + 1);
                const u32 low[4] = {a.x, b.x, a.y, b.y}, high[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
                for (int t = 0; t < TOKEN_TILES; ++t) {
                    const u32 first_half[2] = {x[t][0], x[t][1]},
                              second_half[2] = {x[t][2], x[t][3]};
                    mma(sums[r][t], low, first_half);
                    mma(sums[r][t], high, second_half);
                }
            }
            ring.advance();
            weights.copy_next(ring, lane);
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < ROW_TILES; ++r)
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; ++t)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int token = 8 * t + 2 * lane.c + i % 2, row = lane.g + i / 2 * 8;
                    partial[lane.warp][r][token * PITCH + row] = sums[r][t][i];
                }
        __syncthreads();
        for (int item = threadIdx.x; item < 16 * TOKENS; item += THREADS) {
            const int token = item / 16, row = item % 16;
            float totals[ROW_TILES];
#pragma unroll
            for (int r = 0; r < ROW_TILES; ++r) {
                totals[r] = partial[0][r][token * PITCH + row];
#pragma unroll
                for (int w = 1; w < WARPS; ++w) totals[r] += partial[w][r][token * PITCH + row];
            }
            if (first + token < p.tokens && tile * 16 + row < p.outputs) {
                finish(p, first + token, tile * 16 + row, totals);
            }
        }
    }
}
