// Sparse attention, gradients of k and v. q, dout [N, HQ, D], k, v, dk, dv [N, H, D] bf16; lse,
// delta [N, HQ] f32.
//
//     p_j = exp(scale q . k_j - lse),   ds_j = p_j (dout . v_j - delta),   dv_j = sum p_j dout,   dk_j = scale sum ds_j q
//
// Key-centric: a warp keeps the gradients of 16 keys of a block in registers and walks the tokens
// that chose the block, in order, 16 heads at a time. Scores are computed transposed (keys are the
// rows), so that p and ds are operands as they come: k q', v dout', p dout, ds q are four products
// of 16x16 by HEAD_DIM, and q and dout of a token, 2 KB each at 16 x 64, go from the caches into
// registers once for all of them (rows.cuh). Bytes of a random selection: 4 KB for each (token,
// head, slot), as in the forward.
//
// Lists differ in length: of a random selection by 4.5, of a trained one, whose first block anybody
// may choose, by any factor. So blocks of threads do not own lists but equal segments of SEGMENT
// pairs of the sorted array. A list that ends where it began is written at once. One that a border
// cuts is left in pieces, in f32, one per segment: `sparse_bwd_keys_sum` adds them in order. A
// segment holds at most two pieces: of the list it begins with and of the list it ends with.
//
// Within a block of 4 warps, a list of blocks of 64 keys and more has one warp per 16 keys, all
// reading the same tokens; for smaller ones the segment is cut by tokens, and the warps' sums are
// added in order in shared memory.
#include "pair.cuh"
#include "rows.cuh"

// Given as macros: HEAD_DIM, GROUP, BLOCK_SIZE, SLICE (elements of the head that one warp
// accumulates, a divisor).

constexpr int WARPS = 4, THREADS = WARPS * WARP;
constexpr int WORDS = Row<HEAD_DIM>::WORDS, SLICE_WORDS = Row<SLICE>::WORDS;
constexpr int HEAD_TILES = (GROUP + 15) / 16;
// Sets of 16 keys in a block, those that the warps hold at a time, and warps that share one.
constexpr int KEY_TILES = (BLOCK_SIZE + 15) / 16;
constexpr int TILES_AT_ONCE = KEY_TILES >= 4 ? 4 : KEY_TILES == 1 ? 1 : 2;
constexpr int PARTS = WARPS / TILES_AT_ONCE;
// f32 of a piece: dk and dv of all keys of a block, as accumulators hold them.
constexpr int PIECE = KEY_TILES * (HEAD_DIM / SLICE) * 2 * SLICE_WORDS * 4 * WARP;

// A set of 16 keys of a list.
struct Keys {
    int first, end, kv_head;

    DEVICE_MEMBER Keys(u32 list, int tile, const int* block_start, int kv_heads) {
        const int block = int(list) / kv_heads;
        kv_head = int(list) % kv_heads;
        first = block_start[block] + 16 * tile;
        end = block_start[block + 1];
    }
    DEVICE_MEMBER bool has(int row) const { return first + row < end; }
    // Row of k; keys that do not exist repeat the last one.
    DEVICE_MEMBER i64 row(int row, int kv_heads) const {
        return i64(min(first + row, end - 1)) * kv_heads + kv_head;
    }
};

// Where the accumulators of a slice of 16 keys lie in a piece.
DEVICE i64 piece_offset(i64 piece, int tile, int slice) {
    return piece * PIECE + (i64(tile) * (HEAD_DIM / SLICE) + slice) * (2 * SLICE_WORDS * 4 * WARP);
}

// Two elements of two rows of a gradient.
DEVICE void add_to_gradient(bf16* gradient, const Keys& keys, int slice, int word, const float4& x, float factor, int add,
                            int kv_heads) {
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (!keys.has(g + 8 * half)) continue;
        const i64 row = keys.row(g + 8 * half, kv_heads);
        u32* p = reinterpret_cast<u32*>(gradient + row * HEAD_DIM + slice * SLICE + Row<SLICE>::first(word, c));
        const float2 value = half ? make_float2(x.z, x.w) : make_float2(x.x, x.y);
        *p = accumulate_bf16(p, value.x * factor, value.y * factor, add);
    }
}

// k and v of 16 keys as operand a, in shared memory: they would take WORDS * 4 registers for the
// whole walk. WORDS vectors of 16 bytes a lane, each {x[0][2s], x[1][2s], x[0][2s+1], x[1][2s+1]}.
DEVICE void stage_operand(uint4* staged, const bf16* from, const Keys& keys, int kv_heads) {
    const int lane = threadIdx.x % WARP, g = lane / 4, c = lane % 4;
    u32 x[2][WORDS];
#pragma unroll
    for (int half = 0; half < 2; ++half) Row<HEAD_DIM>::load(x[half], from + keys.row(g + 8 * half, kv_heads) * HEAD_DIM, c);
#pragma unroll
    for (int s = 0; s < WORDS / 2; ++s) {
        staged[s * WARP + lane] = make_uint4(x[0][2 * s], x[1][2 * s], x[0][2 * s + 1], x[1][2 * s + 1]);
    }
}

// d += staged x', the rows of x as columns.
DEVICE void mma_staged(float (&d)[2][4], const uint4* staged, const u32 (&x)[2][WORDS]) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int s = 0; s < WORDS / 2; ++s) {
        const uint4 raw = staged[s * WARP + lane];
        const u32 left[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const u32 right[2] = {x[r][2 * s], x[r][2 * s + 1]};
            mma(d[r], left, right);
        }
    }
}

struct Inputs {
    const bf16 *dout, *q;
    const float *lse, *delta;
    int kv_heads, slice;
    float scale;
};

// What one token brings for 16 heads of its group.
struct Token {
    u32 query[2][WORDS], upstream[2][WORDS];
    // Of heads 8 r + 2 c and + 1, the columns of transposed scores; infinity gives heads beyond the
    // group weight 0.
    float lse[2][2], delta[2][2];
    i64 first_row;
    int token, last_head;

    DEVICE_MEMBER i64 row(int r) const {
        const int head = threadIdx.x % WARP / 4 + 8 * r;
        return (first_row + (GROUP % 16 == 0 ? head : min(head, last_head))) * HEAD_DIM;
    }
    DEVICE_MEMBER void load(const Inputs& in, int kv_head, int which_token, int first_head) {
        const int c = threadIdx.x % 4;
        token = which_token;
        last_head = GROUP - 1 - first_head;
        first_row = (i64(token) * in.kv_heads + kv_head) * GROUP + first_head;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            Row<HEAD_DIM>::load_alternating(query[r], in.q + row(r), c);
            Row<HEAD_DIM>::load_alternating(upstream[r], in.dout + row(r), c);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int head = 8 * r + 2 * c + i;
                const bool exists = GROUP % 16 == 0 || head <= last_head;
                lse[r][i] = exists ? in.lse[first_row + head] : infinity();
                delta[r][i] = exists ? in.delta[first_row + head] : 0.0f;
            }
        }
    }
};

DEVICE void add_token(float (&dk)[SLICE_WORDS][4], float (&dv)[SLICE_WORDS][4], const Inputs& in, const uint4* staged,
                      const Keys& keys, const Token& x) {
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4, column = in.slice * SLICE;
    float s[2][4] = {}, ds[2][4] = {};
    mma_staged(s, staged, x.query);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[r][i] = exp2_approx(s[r][i] * in.scale - x.lse[r][i % 2] * LOG2_E);
    }
    // Only the block that holds the token reaches beyond it. Rows that are no keys of the block are
    // not stored.
    if (x.token < keys.first + 15) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (keys.first + g + i / 2 * 8 > x.token) s[r][i] = 0.0f;
            }
        }
    }
    mma_staged(ds, staged + WORDS / 2 * WARP, x.upstream);
    u32 p[4];
    pack_operand(p, s[0], s[1]);
    mma_transposed_slice<SLICE>(dv, p, x.upstream, in.dout + x.row(0) + column, in.dout + x.row(1) + column, c);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) ds[r][i] = s[r][i] * (ds[r][i] - x.delta[r][i % 2]);
    }
    pack_operand(p, ds[0], ds[1]);
    mma_transposed_slice<SLICE>(dk, p, x.query, in.q + x.row(0) + column, in.q + x.row(1) + column, c);
}

// Walks pairs from .. to.
DEVICE void walk(float (&dk)[SLICE_WORDS][4], float (&dv)[SLICE_WORDS][4], const Inputs& in, const uint4* staged,
                 const Keys& keys, const Pair* pairs, int from, int to) {
    int next = from < to ? int(pairs[from].token) : 0;
    for (int i = from; i < to; ++i) {
        const int token = next;
        next = int(pairs[min(i + 1, to - 1)].token);
        for (int head = 0; head < HEAD_TILES; ++head) {
            Token x;
            x.load(in, keys.kv_head, token, 16 * head);
            add_token(dk, dv, in, staged, keys, x);
        }
    }
}

// Grid: (segments, sets of TILES_AT_ONCE key tiles, slices of the head).
extern "C" __global__ void __launch_bounds__(THREADS, HEAD_DIM <= 64 ? 3 : 2)
sparse_bwd_keys(const bf16* __restrict__ dout, const bf16* __restrict__ q, const bf16* __restrict__ k,
                const bf16* __restrict__ v, const float* __restrict__ lse, const float* __restrict__ delta,
                const Pair* __restrict__ pairs, const int* __restrict__ starts, const int* __restrict__ block_start,
                float* __restrict__ pieces, bf16* __restrict__ dk_out, int add_dk, bf16* __restrict__ dv_out, int add_dv,
                int lists, int kv_heads, int segment, float softmax_scale) {
    // Operands k and v of every warp; between lists, its sums. WARPS * WORDS * 512 bytes.
    extern __shared__ uint4 shared[];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int part = warp % PARTS, tile = blockIdx.y * TILES_AT_ONCE + warp / PARTS;
    const bool has_tile = tile < KEY_TILES;
    uint4* staged = shared + warp * (WORDS * WARP);
    float4* sums = reinterpret_cast<float4*>(shared);
    const Inputs in{dout, q, lse, delta, kv_heads, int(blockIdx.z), softmax_scale * LOG2_E};

    const i64 first = i64(blockIdx.x) * segment;
    const int last = int(min(first + segment, i64(starts[lists])));
    for (int begin = int(first); begin < last;) {
        const u32 list = pairs[begin].list;
        const int list_begin = starts[list], list_end = starts[list + 1];
        const int end = min(list_end, last), count = end - begin;
        const Keys keys(list, min(tile, KEY_TILES - 1), block_start, kv_heads);
        stage_operand(staged, k, keys, kv_heads);
        stage_operand(staged + WORDS / 2 * WARP, v, keys, kv_heads);
        __syncwarp();

        float dk[SLICE_WORDS][4] = {}, dv[SLICE_WORDS][4] = {};
        const int from = begin + int(i64(count) * part / PARTS), to = begin + int(i64(count) * (part + 1) / PARTS);
        if (has_tile) walk(dk, dv, in, staged, keys, pairs, from, to);

        const bool whole = begin == list_begin && end == list_end;
        // The piece of a list that began in an earlier segment comes first.
        const i64 piece = 2 * i64(blockIdx.x) + (begin == list_begin ? 1 : 0);
        float4* piece_out = reinterpret_cast<float4*>(pieces + piece_offset(piece, tile, blockIdx.z));
        constexpr int EACH = (SLICE_WORDS + PARTS - 1) / PARTS;
#pragma unroll
        for (int which = 0; which < 2; ++which) {
            // Each warp of a set sums some of the words of all.
            if constexpr (PARTS > 1) {
                __syncthreads();
#pragma unroll
                for (int w = 0; w < SLICE_WORDS; ++w) {
                    const float* x = which ? dv[w] : dk[w];
                    sums[(warp * SLICE_WORDS + w) * WARP + lane] = make_float4(x[0], x[1], x[2], x[3]);
                }
                __syncthreads();
            }
#pragma unroll
            for (int j = 0; j < (PARTS > 1 ? EACH : SLICE_WORDS); ++j) {
                const int w = PARTS > 1 ? part * EACH + j : j;
                if (w >= SLICE_WORDS || !has_tile) continue;
                float4 total;
                if constexpr (PARTS > 1) {
                    total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
                    for (int other = 0; other < PARTS; ++other) {
                        const float4 x = sums[((warp - part + other) * SLICE_WORDS + w) * WARP + lane];
                        total.x += x.x, total.y += x.y, total.z += x.z, total.w += x.w;
                    }
                } else {
                    const float* x = which ? dv[j] : dk[j];
                    total = make_float4(x[0], x[1], x[2], x[3]);
                }
                if (whole) {
                    add_to_gradient(which ? dv_out : dk_out, keys, blockIdx.z, w, total, which ? 1.0f : softmax_scale,
                                    which ? add_dv : add_dk, kv_heads);
                } else {
                    piece_out[(which * SLICE_WORDS + w) * WARP + lane] = total;
                }
            }
        }
        if constexpr (PARTS > 1) __syncthreads();
        begin = end;
    }
}

// Adds up the lists that were left in pieces, a word a warp. Grid: (lists, KEY_TILES * 2 *
// SLICE_WORDS / WARPS, slices).
extern "C" __global__ void __launch_bounds__(THREADS)
sparse_bwd_keys_sum(const float* __restrict__ pieces, const int* __restrict__ starts, const int* __restrict__ block_start,
                    bf16* __restrict__ dk_out, int add_dk, bf16* __restrict__ dv_out, int add_dv, int kv_heads, int segment,
                    float softmax_scale) {
    constexpr int TURNS = 2 * SLICE_WORDS / WARPS;
    const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    const int from = begin / segment, to = (end - 1) / segment;
    if (begin == end || from == to) return;
    const int tile = blockIdx.y / TURNS, word = blockIdx.y % TURNS * WARPS + threadIdx.x / WARP;
    const int at = word * WARP + threadIdx.x % WARP;
    // The list begins in the second piece of its first segment and goes on in the first of the
    // others.
    const float4* x = reinterpret_cast<const float4*>(pieces + piece_offset(2 * i64(from) + 1, tile, blockIdx.z)) + at;
    float4 total = *x;
    x = reinterpret_cast<const float4*>(pieces + piece_offset(2 * i64(from) + 2, tile, blockIdx.z)) + at;
#pragma unroll 8
    for (int s = from + 1; s <= to; ++s) {
        const float4 value = *x;
        total.x += value.x, total.y += value.y, total.z += value.z, total.w += value.w;
        x += 2 * (PIECE / 4);
    }
    const Keys keys(blockIdx.x, tile, block_start, kv_heads);
    const bool value = word >= SLICE_WORDS;
    add_to_gradient(value ? dv_out : dk_out, keys, blockIdx.z, value ? word - SLICE_WORDS : word, total,
                    value ? 1.0f : softmax_scale, value ? add_dv : add_dk, kv_heads);
}
