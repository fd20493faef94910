// Sparse attention, gradients of k and v. q, dout [N, HQ, D], k, v, dk, dv [N, H, D] bf16; lse,
// delta [N, HQ] f32.
//
//     p_j = exp(scale q . k_j - lse),   ds_j = p_j (dout . v_j - delta)
//     dv_j = sum p_j dout,   dk_j = scale sum ds_j q
//
// Key-centric: a warp keeps the gradients of 16 keys of a block in registers and walks the tokens
// that selected the block, in order, 16 heads at a time. Scores are computed transposed (keys are
// the rows), so that p and ds are operands without moving registers: k q', v dout', p dout, ds q
// are four products of 16x16 by HEAD_DIM, and q and dout of a token, 2 KB each at 16 x 64, go from
// the caches into registers once for all of them (rows.cuh). Bytes of a random selection: 4 KB for
// each (token, head, slot), as in the forward.
//
// Lists differ in length: by a factor of 4.5 for a random selection, and without bound for a
// trained one, since any token may select the first block. So blocks of threads do not own lists,
// but equal segments of the sorted array of pairs. A list inside a segment is written directly. One
// that a border cuts is left in pieces, in f32, one per segment: `sparse_bwd_keys_sum` adds them in
// order. A segment holds at most two pieces: of the list it begins with and of the list it ends
// with.
//
// Within a block of 4 warps, a list of blocks of 64 keys and more has one warp per 16 keys, all
// reading the same tokens; for smaller ones the segment is cut by tokens, and the warps' sums are
// added in order in shared memory.
//
// Given as macros: HEAD_DIM; GROUP and HEAD_TILES, as in selected_keys.cuh; BLOCK_SIZE; KEY_TILES,
// tiles of 16 keys of a block; TILES_AT_ONCE, those that the warps of a block hold; SLICE, elements
// of the head that a warp accumulates, a divisor; SHARED_BYTES of a block; PIECE_LENGTH, f32 of a
// piece; SUM_BLOCKS, blocks that add up a key tile of a list. WARPS is a constant.
#include "params.cuh"
#include "rows.cuh"

constexpr int THREADS = WARPS * WARP;
constexpr int WORDS = Row<HEAD_DIM>::WORDS, SLICE_WORDS = Row<SLICE>::WORDS;
// Warps that share a key tile.
constexpr int PARTS = WARPS / TILES_AT_ONCE;
// Operands k and v of every warp, WORDS vectors of 16 bytes a lane; between lists, the warps' sums.
static_assert(WARPS * WORDS * WARP * 16 == SHARED_BYTES, "");
extern __shared__ uint4 shared[];

// 16 keys of a list.
struct Keys {
    int first, end, kv_head;

    DEVICE_MEMBER Keys(u32 list, int tile, const int* block_start, int kv_heads) {
        const int block = int(list) / kv_heads;
        kv_head = int(list) % kv_heads;
        first = load_read_only(block_start + block) + 16 * tile;
        end = load_read_only<1>(block_start + block);
    }
    DEVICE_MEMBER bool has(int row) const { return first + row < end; }
    // Row of k; keys that do not exist repeat the last one.
    DEVICE_MEMBER i64 row(int row, int kv_heads) const {
        return i64(min(first + row, end - 1)) * kv_heads + kv_head;
    }
};

// f32 of a slice of dk and dv of 16 keys, as accumulators hold them.
constexpr int TILE_LENGTH = 2 * SLICE_WORDS * 4 * WARP;
static_assert(KEY_TILES * (HEAD_DIM / SLICE) * TILE_LENGTH == PIECE_LENGTH, "");

// Where the accumulators of a slice of a key tile begin in a piece.
DEVICE i64 piece_offset(i64 piece, int tile, int slice) {
    return piece * PIECE_LENGTH + (i64(tile) * (HEAD_DIM / SLICE) + slice) * TILE_LENGTH;
}

// Two elements of two rows of a gradient.
DEVICE void add_to_gradient(Gradient<bf16> gradient, const Keys& keys, int slice, int word,
                            const float4& x, float factor, int kv_heads) {
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (!keys.has(g + 8 * half)) continue;
        bf16* row = gradient.at + keys.row(g + 8 * half, kv_heads) * HEAD_DIM;
        u32* p = reinterpret_cast<u32*>(row + slice * SLICE + Row<SLICE>::first(word, c));
        const float2 value = half ? make_float2(x.z, x.w) : make_float2(x.x, x.y);
        *p = accumulate_bf16(p, value.x * factor, value.y * factor, gradient.add);
    }
}

// k and v of 16 keys as operand a, in shared memory: they would take WORDS * 4 registers for the
// whole walk. WORDS vectors of 16 bytes a lane, each {x[0][2s], x[1][2s], x[0][2s+1], x[1][2s+1]}.
DEVICE void stage_operand(uint4* staged, const bf16* from, const Keys& keys, int kv_heads) {
    const int lane = threadIdx.x % WARP, g = lane / 4, c = lane % 4;
    u32 x[2][WORDS];
#pragma unroll
    for (int half = 0; half < 2; ++half)
        Row<HEAD_DIM>::load(x[half], from + keys.row(g + 8 * half, kv_heads) * HEAD_DIM, c);
#pragma unroll
    for (int s = 0; s < WORDS / 2; ++s) {
        staged[s * WARP + lane] =
            make_uint4(x[0][2 * s], x[1][2 * s], x[0][2 * s + 1], x[1][2 * s + 1]);
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

// One token's q and dout of 16 heads of its group.
struct Token {
    u32 query[2][WORDS], upstream[2][WORDS];
    // Of heads 8 r + 2 c and + 1, the columns of transposed scores; infinity gives heads past the
    // group weight 0.
    float lse[2][2], delta[2][2];
    i64 first_row;
    int token, last_head;

    DEVICE_MEMBER i64 row(int r) const {
        const int head = threadIdx.x % WARP / 4 + 8 * r;
        return (first_row + (GROUP % 16 == 0 ? head : min(head, last_head))) * HEAD_DIM;
    }
    DEVICE_MEMBER void load(const SparseBwdKeys& p, int kv_head, int which_token, int first_head) {
        token = which_token;
        last_head = GROUP - 1 - first_head;
        first_row = (i64(token) * p.kv_heads + kv_head) * GROUP + first_head;
        load_heads<0>(p);
        load_heads<1>(p);
    }

private:
    // Loads the heads 8 R to 8 R + 7. Their addresses are those of R = 0 plus constants, which the
    // load instructions add, unless rows past the group repeat its last head.
    template <int R> DEVICE_MEMBER void load_heads(const SparseBwdKeys& p) {
        constexpr int BELOW = GROUP % 16 == 0 ? 8 * R : 0;
        const int c = threadIdx.x % 4;
        const i64 start = row(BELOW > 0 ? 0 : R);
        Row<HEAD_DIM>::load_alternating<BELOW>(query[R], p.inputs.q + start, c);
        Row<HEAD_DIM>::load_alternating<BELOW>(upstream[R], p.dout + start, c);
        load_statistics<R, 0>(p, 2 * c);
        load_statistics<R, 1>(p, 2 * c);
    }
    // Loads lse and delta of head 8 R + I + first.
    template <int R, int I>
    DEVICE_MEMBER void load_statistics(const SparseBwdKeys& p, int first) {
        constexpr int OFFSET = 8 * R + I;
        const bool exists = GROUP % 16 == 0 || first + OFFSET <= last_head;
        lse[R][I] = exists ? load_read_only<OFFSET>(p.lse + first_row + first) : infinity();
        delta[R][I] = exists ? load_read_only<OFFSET>(p.delta + first_row + first) : 0.0f;
    }
};

// Adds a token's part to a slice of the gradients of 16 keys.
DEVICE void add_token(float (&dk)[SLICE_WORDS][4], float (&dv)[SLICE_WORDS][4],
                      const SparseBwdKeys& p, const uint4* staged, const Keys& keys,
                      const Token& x) {
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4, column = int(blockIdx.z) * SLICE;
    const float scale = p.softmax_scale * LOG2_E;
    float s[2][4] = {}, ds[2][4] = {};
    mma_staged(s, staged, x.query);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            s[r][i] = exp2_approx(s[r][i] * scale - x.lse[r][i % 2] * LOG2_E);
    }
    // Only the block that holds the token extends past it. Rows that are not keys of the block are
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
    u32 operand[4];
    pack_operand(operand, s[0], s[1]);
    const bf16 *dout = p.dout + column, *q = p.inputs.q + column;
    mma_transposed_slice<SLICE>(dv, operand, x.upstream, dout + x.row(0), dout + x.row(1), c);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) ds[r][i] = s[r][i] * (ds[r][i] - x.delta[r][i % 2]);
    }
    pack_operand(operand, ds[0], ds[1]);
    mma_transposed_slice<SLICE>(dk, operand, x.query, q + x.row(0), q + x.row(1), c);
}

// Walks the pairs `from..to` of one list.
DEVICE void walk(float (&dk)[SLICE_WORDS][4], float (&dv)[SLICE_WORDS][4], const SparseBwdKeys& p,
                 const uint4* staged, const Keys& keys, int from, int to) {
    int next = from < to ? int(load_read_only(&p.pairs[from].token)) : 0;
    for (int i = from; i < to; ++i) {
        const int token = next;
        next = int(load_read_only(&p.pairs[min(i + 1, to - 1)].token));
        for (int head = 0; head < HEAD_TILES; ++head) {
            Token x;
            x.load(p, keys.kv_head, token, 16 * head);
            add_token(dk, dv, p, staged, keys, x);
        }
    }
}

// Grid: (segments, sets of TILES_AT_ONCE key tiles, slices of the head).
extern "C" __global__ void __launch_bounds__(THREADS, HEAD_DIM <= 64 ? 3 : 2)
sparse_bwd_keys(const SparseBwdKeys p) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int part = warp % PARTS, tile = blockIdx.y * TILES_AT_ONCE + warp / PARTS;
    const bool has_tile = tile < KEY_TILES;
    uint4* staged = shared + warp * (WORDS * WARP);
    float4* sums = reinterpret_cast<float4*>(shared);

    const i64 first = i64(blockIdx.x) * p.segment;
    const int last = int(min(first + p.segment, i64(load_read_only(p.starts + p.lists))));
    for (int begin = int(first); begin < last;) {
        const u32 list = load_read_only(&p.pairs[begin].list);
        const int list_begin = load_read_only(p.starts + list);
        const int list_end = load_read_only<1>(p.starts + list);
        const int end = min(list_end, last), count = end - begin;
        const Keys keys(list, min(tile, KEY_TILES - 1), p.block_start, p.kv_heads);
        stage_operand(staged, p.inputs.k, keys, p.kv_heads);
        stage_operand(staged + WORDS / 2 * WARP, p.inputs.v, keys, p.kv_heads);
        __syncwarp();

        float dk[SLICE_WORDS][4] = {}, dv[SLICE_WORDS][4] = {};
        const int from = begin + int(i64(count) * part / PARTS);
        const int to = begin + int(i64(count) * (part + 1) / PARTS);
        if (has_tile) walk(dk, dv, p, staged, keys, from, to);

        const bool whole = begin == list_begin && end == list_end;
        // The piece of a list that began in an earlier segment comes first.
        const i64 piece = 2 * i64(blockIdx.x) + (begin == list_begin ? 1 : 0);
        float4* piece_out =
            reinterpret_cast<float4*>(p.pieces + piece_offset(piece, tile, blockIdx.z));
        // Each warp of a key tile sums some of the words of all.
        constexpr int WORDS_OF_WARP = (SLICE_WORDS + PARTS - 1) / PARTS;
#pragma unroll
        for (int which = 0; which < 2; ++which) {
            if constexpr (PARTS > 1) {
                __syncthreads();
#pragma unroll
                for (int w = 0; w < SLICE_WORDS; ++w) {
                    const float* x = which ? dv[w] : dk[w];
                    sums[(warp * SLICE_WORDS + w) * WARP + lane] =
                        make_float4(x[0], x[1], x[2], x[3]);
                }
                __syncthreads();
            }
#pragma unroll
            for (int j = 0; j < WORDS_OF_WARP; ++j) {
                const int w = PARTS > 1 ? part * WORDS_OF_WARP + j : j;
                if (w >= SLICE_WORDS || !has_tile) continue;
                float4 total;
                if constexpr (PARTS > 1) {
                    total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
                    for (int other = 0; other < PARTS; ++other) {
                        const int owner = warp - part + other;
                        const float4 x = sums[(owner * SLICE_WORDS + w) * WARP + lane];
                        total.x += x.x, total.y += x.y, total.z += x.z, total.w += x.w;
                    }
                } else {
                    const float* x = which ? dv[j] : dk[j];
                    total = make_float4(x[0], x[1], x[2], x[3]);
                }
                if (whole) {
                    add_to_gradient(which ? p.dv : p.dk, keys, blockIdx.z, w, total,
                                    which ? 1.0f : p.softmax_scale, p.kv_heads);
                } else {
                    piece_out[(which * SLICE_WORDS + w) * WARP + lane] = total;
                }
            }
        }
        if constexpr (PARTS > 1) __syncthreads();
        begin = end;
    }
}

// Adds up the lists that were left in pieces, one word per warp. Grid: (lists, KEY_TILES *
// SUM_BLOCKS, slices).
extern "C" __global__ void __launch_bounds__(THREADS)
sparse_bwd_keys_sum(const SparseBwdKeysSum p) {
    static_assert(SUM_BLOCKS * WARPS == 2 * SLICE_WORDS, "");
    const int begin = load_read_only(p.starts + blockIdx.x);
    const int end = load_read_only<1>(p.starts + blockIdx.x);
    const int from = begin / p.segment, to = (end - 1) / p.segment;
    if (begin == end || from == to) return;
    const int tile = blockIdx.y / SUM_BLOCKS;
    const int word = blockIdx.y % SUM_BLOCKS * WARPS + threadIdx.x / WARP;
    const int at = word * WARP + threadIdx.x % WARP;
    // The list begins in the second piece of its first segment and continues in the first of the
    // others.
    const auto piece = [&](i64 index) {
        return reinterpret_cast<const float4*>(p.pieces + piece_offset(index, tile, blockIdx.z)) +
               at;
    };
    float4 total = load_read_only(piece(2 * i64(from) + 1));
    const float4* x = piece(2 * i64(from) + 2);
#pragma unroll 8
    for (int s = from + 1; s <= to; ++s) {
        const float4 value = load_read_only(x);
        total.x += value.x, total.y += value.y, total.z += value.z, total.w += value.w;
        x += 2 * (PIECE_LENGTH / 4);
    }
    const Keys keys(blockIdx.x, tile, p.block_start, p.kv_heads);
    const bool is_dv = word >= SLICE_WORDS;
    const Gradient<bf16> gradient{is_dv ? p.dv.at : p.dk.at, is_dv ? p.dv.add : p.dk.add};
    add_to_gradient(gradient, keys, blockIdx.z, is_dv ? word - SLICE_WORDS : word, total,
                    is_dv ? 1.0f : p.softmax_scale, p.kv_heads);
}
