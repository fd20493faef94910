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
// are 8.4 MB on 132 multiprocessors, three times what latency times bandwidth asks for. Two such
// kernels and attention fit a multiprocessor, registers included.
//
// For one tile of tokens, the next kernel starts when every block of this one has asked for the
// last of its weights. If it starts at once, its ring is full long before this kernel ends, and
// nothing is read while one kernel hands over to the next. With two tiles starting at once is
// faster.
//
// Inputs wait in a queue of registers: a warp that fetched those of one step at a time would spend
// the time of a load from the second level cache on each of up to 32 steps.
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
// Steps of inputs that a warp holds in registers, and whether these are all.
constexpr int QUEUE = TOKEN_TILES == 1 ? 8 : 2;
constexpr bool HOLDS_ALL = STEPS <= QUEUE * WARPS;
// Whether the next kernel starts when this block has asked for all its weights, instead of at once.
constexpr bool STARTS_LATE = TOKEN_TILES == 1;

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
        if (at < INPUTS) return *reinterpret_cast<const uint4*>(row + at);
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

DEVICE void normalize(uint4& x, float scale, uint4 weights) {
    x = make_uint4(normalize(x.x, scale, weights.x), normalize(x.y, scale, weights.y),
                   normalize(x.z, scale, weights.z), normalize(x.w, scale, weights.w));
}

// Adds the squares of eight elements.
DEVICE void add_squares(float& sum, uint4 x) {
    const u32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack_bf16(words[i]);
        sum = fmaf(pair.x, pair.x, sum);
        sum = fmaf(pair.y, pair.y, sum);
    }
}

DEVICE float inverse_rms(float squares, float eps) {
    return 1.0f / sqrtf(squares * (1.0f / INPUTS) + eps);
}

// 1 / rms of every token of the block, whose warps hold all inputs.
DEVICE void find_scales_of_queue(float (&scales)[TOKENS], const uint4 (&queue)[QUEUE][TOKEN_TILES],
                                 float eps, const Lane& lane) {
    __shared__ float squares[WARPS][TOKENS];
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; ++t) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < QUEUE; ++i) add_squares(sum, queue[i][t]);
        sum = lanes_sum<4>(sum);
        if (lane.c == 0) squares[lane.warp][8 * t + lane.g] = sum;
    }
    __syncthreads();
    if (threadIdx.x < TOKENS) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += squares[w][threadIdx.x];
        scales[threadIdx.x] = inverse_rms(sum, eps);
    }
    __syncthreads();
}

// 1 / rms of every token of the block.
DEVICE void find_scales(float (&scales)[TOKENS], const LinearRows& p, int first, const Lane& lane) {
    for (int token = lane.warp; token < TOKENS; token += WARPS) {
        const bf16* row = p.x + i64(min(first + token, p.tokens - 1)) * INPUTS;
        float sum = 0.0f;
#pragma unroll 8
        for (int at = threadIdx.x % WARP * 8; at < INPUTS; at += WARP * 8) {
            add_squares(sum, load_inputs(row, at));
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) scales[token] = inverse_rms(sum, p.eps);
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

// Three blocks on a multiprocessor where the registers of a block allow it: compiled for later
// generations than Hopper it would spill.
constexpr int RESIDENT = TOKEN_TILES == 1 && __CUDA_ARCH__ < 1000 ? 3 : 2;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_rows(const LinearRows p) {
    extern __shared__ __align__(16) u8 shared[];
    __shared__ __align__(16) float partial[WARPS][ROW_TILES][TOKENS * PITCH];
    if constexpr (!STARTS_LATE) start_next();
    const Lane lane;
    Ring ring(shared);
    Weights weights(p, lane);
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) weights.copy_next(ring, lane);
    // Weights of the norm, in the place of the sums until these come.
    uint4* const norms = reinterpret_cast<uint4*>(partial);
    if constexpr (NORM && HOLDS_ALL) {
        static_assert(!HOLDS_ALL || STEPS * STEP * sizeof(bf16) <= sizeof(partial), "they fit");
        for (int i = threadIdx.x; i < STEPS * STEP / 8; i += THREADS)
            norms[i] = load_inputs(p.norm, 8 * i);
    }
    bool started = !STARTS_LATE;
    const auto start_next_when_read = [&] {
        if (started || weights.tile * 16 < p.outputs) return;
        start_next();
        started = true;
    };
    start_next_when_read();
    wait_for_previous();

    const int first = blockIdx.y * TOKENS;
    __shared__ float scales[TOKENS];
    const bf16* rows[TOKEN_TILES];
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; ++t) {
        // Columns beyond the last token repeat it; their results are not stored.
        rows[t] = p.x + i64(min(first + 8 * t + lane.g, p.tokens - 1)) * INPUTS;
    }
    // Inputs of the next steps of the warp: a load of one takes as long as several steps.
    uint4 queue[QUEUE][TOKEN_TILES];
    const auto load = [&](uint4 (&x)[TOKEN_TILES], int step) {
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; ++t) x[t] = load_inputs(rows[t], lane.input(step));
    };
    const auto normalize_all = [&](uint4 (&x)[TOKEN_TILES], uint4 norm) {
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; ++t) normalize(x[t], scales[8 * t + lane.g], norm);
    };
#pragma unroll
    for (int i = 0; i < QUEUE; ++i) load(queue[i], lane.warp + i * WARPS);
    if constexpr (NORM && HOLDS_ALL) {
        find_scales_of_queue(scales, queue, p.eps, lane);
#pragma unroll
        for (int i = 0; i < QUEUE; ++i) {
            const int step = lane.warp + i * WARPS;
            if (step < STEPS) normalize_all(queue[i], norms[lane.input(step) / 8]);
        }
    } else if constexpr (NORM) {
        find_scales(scales, p, first, lane);
    }

    for (int tile = blockIdx.x; tile * 16 < p.outputs; tile += gridDim.x) {
        float sums[ROW_TILES][TOKEN_TILES][4] = {};
        const auto add_step = [&](uint4 (&next)[TOKEN_TILES], int step) {
            u32 x[TOKEN_TILES][4];
            uint4 normed[TOKEN_TILES];
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; ++t) normed[t] = next[t];
            if constexpr (!HOLDS_ALL) {
                // In its place comes the one QUEUE steps later, or the same one of the next tile.
                const int later = step + QUEUE * WARPS;
                load(next, later < STEPS ? later : step % (QUEUE * WARPS));
                if constexpr (NORM) normalize_all(normed, load_inputs(p.norm, lane.input(step)));
            }
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; ++t) {
                x[t][0] = normed[t].x, x[t][1] = normed[t].y;
                x[t][2] = normed[t].z, x[t][3] = normed[t].w;
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
            start_next_when_read();
        };
        for (int base = lane.warp; base < STEPS; base += QUEUE * WARPS) {
#pragma unroll
            for (int i = 0; i < QUEUE; ++i) {
                const int step = base + i * WARPS;
                if (STEPS % (QUEUE * WARPS) == 0 || step < STEPS) add_step(queue[i], step);
            }
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
