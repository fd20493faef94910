// selection.cu for documents with many blocks and products of warpgroups (sm_90a), HEAD_DIM a
// multiple of 64, under the exact rule: the same function.
//
// A block of threads owns a tile of tokens of one key/value head, each warpgroup COLUMNS = 128
// pairs of a token and a query head. Tiles of 64 block means pass through shared memory, each one
// copy of contiguous bytes (`tile_means` writes them as operands), and serve all warpgroups. Scores
// are computed transposed, as in selection.cu, and with the same precision; the means carry the
// factor that makes scores exponents of 2.
//
// A first pass sums the exponentials of every column without subtracting a maximum: f32 has the
// same relative precision at every size. Afterwards the sums prove that nothing has overflowed and
// that what was too small for f32 does not matter. Where they do not, the maxima are computed and
// the pass is repeated relative to these.
//
// A second pass computes the scores again, weighs the exponentials and sums over heads. Importances
// are not stored: those that reach a token's threshold join its list of candidates. When the list
// could overflow before the next check, only its best `slots - 1` remain, and the threshold is
// raised to the least of them. So all blocks are compared, whatever the inputs. The last blocks
// come first, since trained models select most of all from them: then few join later.
//
// Ties: equal blocks get equal bits, since the same operations in the same order form them; a
// candidate's rank is made of the importance and, below it, the lower block.
//
// Given as macros: HEAD_DIM; GROUP; WARPGROUPS; STAGES, tiles of means in shared memory; CANDIDATES
// of a token; SHARED_BYTES of a block.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL // elsewhere the module is empty
#include "barrier.cuh"
#include "params.cuh"
#include "wgmma.cuh"
#include "candidates.cuh"

constexpr int THREADS = WARPGROUPS * WARPGROUP, WARPGROUP_WARPS = WARPGROUP / WARP;
constexpr int BLOCKS = WARPGROUP_ROWS, COLUMNS = 128, TOKENS = COLUMNS / GROUP;
// Tiles between two checks whether candidates could overflow.
constexpr int PERIOD = (CANDIDATES - 128) / BLOCKS;
static_assert(PERIOD > 0, "");
// Tokens whose importances a lane holds in the end.
constexpr int LANE_TOKENS = TOKENS / 4;
static_assert(GROUP == 8 || GROUP == 16 || GROUP == 32, "tokens have whole sets of 8 columns");
static_assert(HEAD_DIM % 64 == 0, "rows are whole swizzle atoms");
constexpr int STEPS = HEAD_DIM / 16, CHUNKS = HEAD_DIM / 8;
constexpr int PART_BYTES = BLOCKS * HEAD_DIM * 2, STAGE_BYTES = 2 * PART_BYTES;
constexpr int QUERY_BYTES = COLUMNS * HEAD_DIM * 2;
// Tiles that have arrived or are on their way while one is scored, with that one: one stage is left
// to warpgroups that are late, but the next tile must be among them.
constexpr int AHEAD = STAGES > 2 ? STAGES - 1 : 2;
static_assert(AHEAD <= STAGES, "");
// Sums within these bounds need no maximum: terms below 2^-126 are lost, at most 2^31 of them.
constexpr float LEAST_SUM = 0x1p-60f, MOST_SUM = 0x1p100f;

typedef float Scores[COLUMNS / 8][4];
// One value of every column of a lane: 2c and 2c + 1 of each 8.
typedef float Columns[COLUMNS / 8][2];

struct Shared {
    u64 full[STAGES], empty[STAGES];
    float reference[WARPGROUPS][COLUMNS], weight[WARPGROUPS][COLUMNS];
    // Of a reduction.
    float partial[WARPGROUPS][WARPGROUP_WARPS][COLUMNS];
    Candidates candidates[WARPGROUPS][TOKENS];
};
// The queries of every warpgroup, then the stages, then the rest.
constexpr int OPERAND_BYTES = WARPGROUPS * QUERY_BYTES + STAGES * STAGE_BYTES;
static_assert(OPERAND_BYTES + sizeof(Shared) == SHARED_BYTES, "");
extern __shared__ __align__(1024) u8 memory[];

DEVICE Shared& shared() { return *reinterpret_cast<Shared*>(memory + OPERAND_BYTES); }
// The warp in its warpgroup.
DEVICE int warp() { return threadIdx.x / WARP % WARPGROUP_WARPS; }
// The first row of this lane in a product.
DEVICE int lane_row() { return warp() * 16 + threadIdx.x % WARP / 4; }

// ---- Means

template <typename T> DEVICE void tile_rows(const TileMeans<T>& p) {
    const i64 item = i64(blockIdx.x) * THREADS + threadIdx.x, row = item / (CHUNKS * p.kv_heads);
    const int chunk = item % CHUNKS, head = item / CHUNKS % p.kv_heads;
    if (row >= i64(p.tiles) * BLOCKS) return;
    float x[8] = {}, rest[8];
    if (row < p.rows) load8_read_only(x, p.means + item * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        x[i] *= p.factor;
        rest[i] = x[i] - to_float(to_bf16(x[i]));
    }
    const i64 tile = i64(head) * p.tiles + row / BLOCKS;
    bf16* high = p.split + (tile * STAGE_BYTES + operand_offset<BLOCKS>(row % BLOCKS, chunk)) / 2;
    store8(high, x);
    store8(high + PART_BYTES / 2, rest);
}

extern "C" __global__ void __launch_bounds__(THREADS)
tile_means(const TileMeans<float> p) { tile_rows(p); }

extern "C" __global__ void __launch_bounds__(THREADS)
tile_means_bf16(const TileMeans<bf16> p) { tile_rows(p); }

// Combines columns over the lanes and warps that hold parts of them. Thread j of the warpgroup gets
// column j.
template <Reduction REDUCTION> DEVICE float reduce_columns(Columns& x) {
    const int lane = threadIdx.x % WARP;
    float (&partial)[WARPGROUP_WARPS][COLUMNS] = shared().partial[warpgroup()];
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int offset = 4; offset < WARP; offset *= 2) {
                const float other = __shfl_xor_sync(ALL_LANES, x[n][i], offset);
                x[n][i] = combine<REDUCTION>(x[n][i], other);
            }
            if (lane < 4) partial[warp()][n * 8 + lane * 2 + i] = x[n][i];
        }
    }
    sync_warpgroup();
    const int column = threadIdx.x % WARPGROUP;
    float total = partial[0][column];
#pragma unroll
    for (int w = 1; w < WARPGROUP_WARPS; ++w)
        total = combine<REDUCTION>(total, partial[w][column]);
    sync_warpgroup();
    return total;
}

// ---- Passes over the means

// A document's tiles of means for one key/value head, the last first, in one or more passes without
// a pause between them. Thread 0 starts the copies.
struct MeanTiles {
    const u8* means;
    // Tiles of a pass; tiles of all passes; tiles scored; copies started; the next tile to copy.
    int tiles, total, index, started, next;

    DEVICE_MEMBER static u32 stage(int slot) {
        return shared_address(memory) + WARPGROUPS * QUERY_BYTES + slot * STAGE_BYTES;
    }
    // Starts copies until AHEAD more tiles than those scored are on their way.
    DEVICE_MEMBER void prefetch() {
        if (threadIdx.x == 0) {
#pragma unroll 1
            for (; started < min(index + AHEAD, total); ++started) {
                const int slot = started % STAGES;
                const u32 empty = shared_address(shared().empty + slot);
                if (started >= STAGES) wait_barrier(empty, (started / STAGES + 1) & 1);
                arrive_with_copy<STAGE_BYTES>(shared_address(shared().full + slot), stage(slot),
                                              means + i64(next) * STAGE_BYTES);
                next = next == 0 ? tiles - 1 : next - 1;
            }
        }
        __syncwarp();
    }
    // Scores of the next tile.
    DEVICE_MEMBER void score(Scores& s) {
        const int slot = index % STAGES;
        wait_barrier(shared_address(shared().full + slot), index / STAGES & 1);
        const DepthOperand<BLOCKS> high{atom_descriptor(stage(slot), 0)};
        const DepthOperand<BLOCKS> low{atom_descriptor(stage(slot) + PART_BYTES, 0)};
        const u32 queries = shared_address(memory) + warpgroup() * QUERY_BYTES;
        const DepthOperand<COLUMNS> q{atom_descriptor(queries, 0)};
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
            wgmma<COLUMNS>(s, high.step(step), q.step(step), step > 0);
#pragma unroll
        for (int step = 0; step < STEPS; ++step) wgmma<COLUMNS>(s, low.step(step), q.step(step), 1);
        wgmma_commit();
        prefetch();
        wgmma_wait<0>();
        fence_registers(s);
        if (threadIdx.x % WARP == 0) arrive_barrier(shared_address(shared().empty + slot));
        ++index;
    }
    // One pass: f(scores, first row of the tile).
    template <typename F> DEVICE_MEMBER void for_each(F f) {
        Scores s;
        for (int tile = tiles - 1; tile >= 0; --tile) {
            score(s);
            f(s, tile * BLOCKS);
        }
    }
};

// The tokens of this warpgroup; where a tile is short, those after its last token are scored like
// the others and not written.
struct Tokens {
    // Position of the first in its document.
    int position, block_size;
    // Row of the document's first block in its first tile of means.
    int first_row;
    // Blocks that are complete for all of them.
    int least_complete;

    DEVICE_MEMBER int complete(int token) const { return (position + token + 1) / block_size; }
    DEVICE_MEMBER int current(int token) const { return (position + token) / block_size; }

    // f(score, set of 8 columns, which of the lane's two) for all blocks that are complete.
    template <typename F> DEVICE_MEMBER void for_complete(Scores& s, int tile_row, F f) const {
        const int first = tile_row - first_row;
        if (first >= 0 && first + BLOCKS <= least_complete) {
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) f(s[n][i], n, i % 2);
            return;
        }
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n) {
            const u32 blocks = complete(n * 8 / GROUP);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (u32(first + lane_row() + i / 2 * 8) < blocks) f(s[n][i], n, i % 2);
        }
    }
};

// 2^x, relative to the reference of the column if SHIFTED.
template <bool SHIFTED> DEVICE float exponential(float x, int n, int i) {
    if constexpr (SHIFTED)
        x -= shared().reference[warpgroup()][n * 8 + threadIdx.x % 4 * 2 + i];
    return exp2_approx(x);
}

// Sums of exponentials; thread j gets that of column j.
template <bool SHIFTED> DEVICE float column_sums(MeanTiles& means, const Tokens& tokens) {
    Columns sum = {};
    means.for_each([&](Scores& s, int row) {
        tokens.for_complete(s, row, [&](float x, int n, int i) {
            sum[n][i] += exponential<SHIFTED>(x, n, i);
        });
    });
    return reduce_columns<Reduction::Sum>(sum);
}

// Largest scores, in the same way.
DEVICE float column_maxima(MeanTiles& means, const Tokens& tokens) {
    Columns most;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) most[n][0] = most[n][1] = -infinity();
    means.for_each([&](Scores& s, int row) {
        tokens.for_complete(s, row, [&](float x, int n, int i) {
            most[n][i] = fmaxf(most[n][i], x);
        });
    });
    return reduce_columns<Reduction::Max>(most);
}

// Lanes whose number has the bit `offset` keep the second HALF of x, the others the first, each
// plus that of its partner.
template <int HALF, int N> DEVICE void add_halves(float (&x)[N], int offset) {
    const bool second = threadIdx.x & offset;
#pragma unroll
    for (int j = 0; j < HALF; ++j) {
        const float left = x[j], right = x[j + HALF];
        const float given = second ? left : right;
        x[j] = (second ? right : left) + __shfl_xor_sync(ALL_LANES, given, offset);
    }
}

// Leaves the best `wanted` blocks of every token, and others, as candidates.
template <bool SHIFTED>
DEVICE void find_candidates(MeanTiles& means, const Tokens& tokens, int wanted) {
    const int c = threadIdx.x % 4;
    Candidates (&candidates)[TOKENS] = shared().candidates[warpgroup()];
    Columns weight;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) weight[n][i] = shared().weight[warpgroup()][n * 8 + c * 2 + i];
    u32 threshold[LANE_TOKENS] = {};
    int until_check = PERIOD;
    bool full = false;
    means.for_each([&](Scores& s, int row) {
        // Two rows of every token, summed over this lane's columns.
        float x[2 * TOKENS] = {};
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& sum = x[n / (GROUP / 8) * 2 + i / 2];
                sum = fmaf(exponential<SHIFTED>(s[n][i], n, i % 2), weight[n][i % 2], sum);
            }
        }
        add_halves<TOKENS>(x, 2);
        add_halves<TOKENS / 2>(x, 1);
#pragma unroll
        for (int j = 0; j < 2 * LANE_TOKENS; ++j) {
            const u32 bits = __float_as_uint(x[j]);
            if (bits < threshold[j / 2]) continue;
            const int token = c * LANE_TOKENS + j / 2;
            const u32 block = row - tokens.first_row + lane_row() + j % 2 * 8;
            if (block >= u32(tokens.current(token))) continue;
            const int at = atomicAdd(&candidates[token].count, 1);
            candidates[token].list[at] = make_uint2(bits, block);
            full |= at >= CANDIDATES - PERIOD * BLOCKS;
        }
        if (--until_check > 0) return;
        until_check = PERIOD;
        if (!sync_warpgroup_or(full)) return;
        full = false;
        for (int t = warp(); t < TOKENS; t += WARPGROUP_WARPS) keep_best(candidates[t], wanted);
        sync_warpgroup();
#pragma unroll
        for (int t = 0; t < LANE_TOKENS; ++t)
            threshold[t] = candidates[c * LANE_TOKENS + t].threshold;
    });
    sync_warpgroup();
}

// Stages the queries of this warpgroup, `count` tokens; the last one repeats.
DEVICE void stage_queries(const bf16* q, i64 token_stride, int count) {
    const u32 to = shared_address(memory) + warpgroup() * QUERY_BYTES;
    for (int item = threadIdx.x % WARPGROUP; item < COLUMNS * CHUNKS; item += WARPGROUP) {
        const int column = item / CHUNKS, chunk = item % CHUNKS;
        const i64 row = min(column / GROUP, count - 1) * token_stride + column % GROUP;
        copy_async16(to + operand_offset<COLUMNS>(column, chunk), q + row * HEAD_DIM + chunk * 8);
    }
    copy_async_wait_all();
    fence_async_proxy();
}

// tiles x (first token, tokens), each within a document, the ones with most blocks first. Grid:
// (tiles, H).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
select_blocks(const __grid_constant__ SelectByTiles p) {
    const int kv_head = blockIdx.y, own = warpgroup() * TOKENS;
    const int2 tile = load_read_only(p.tiles + blockIdx.x);
    const int start = load_read_only(p.document_start + tile.x);
    const int first_block = load_read_only(p.first_block + tile.x);
    const int first_token = tile.x + min(own, tile.y - 1), count = min(tile.y - own, TOKENS);
    const int last = tile.x + tile.y - 1 - start, wanted = p.slots - 1;
    const Tokens tokens{first_token - start, p.block_size, first_block % BLOCKS,
                        (first_token - start + 1) / p.block_size};

    if (last / p.block_size >= p.slots) {
        const int rows = (last + 1) / p.block_size + tokens.first_row;
        const i64 first_tile = i64(kv_head) * p.mean_tiles + first_block / BLOCKS;
        MeanTiles means{reinterpret_cast<const u8*>(p.means) + first_tile * STAGE_BYTES,
                        (rows + BLOCKS - 1) / BLOCKS, 0, 0, 0, 0};
        means.total = 2 * means.tiles, means.next = means.tiles - 1;
        if (threadIdx.x == 0) {
            for (int i = 0; i < STAGES; ++i) {
                init_barrier(shared_address(shared().full + i), 1);
                init_barrier(shared_address(shared().empty + i), THREADS / WARP);
            }
            fence_barriers();
        }
        for (int t = threadIdx.x; t < WARPGROUPS * TOKENS; t += THREADS)
            shared().candidates[0][t].count = shared().candidates[0][t].threshold = 0;
        means.prefetch();
        const i64 first_row = (i64(first_token) * p.kv_heads + kv_head) * GROUP;
        stage_queries(p.q + first_row * HEAD_DIM, p.kv_heads * GROUP, max(count, 1));
        __syncthreads();

        float sum = column_sums<false>(means, tokens);
        const int column = threadIdx.x % WARPGROUP, token = column / GROUP;
        const bool ranked = token < count && tokens.current(token) >= p.slots;
        const bool shifted = __syncthreads_or(ranked && !(sum > LEAST_SUM && sum < MOST_SUM));
        if (shifted) {
            means.total = 4 * means.tiles;
            shared().reference[warpgroup()][column] = column_maxima(means, tokens);
            sync_warpgroup();
            sum = column_sums<true>(means, tokens);
        }
        shared().weight[warpgroup()][column] = 1.0f / sum;
        sync_warpgroup();
        if (shifted) find_candidates<true>(means, tokens, wanted);
        else find_candidates<false>(means, tokens, wanted);
    }
    for (int t = warp(); t < count; t += WARPGROUP_WARPS) {
        const int lane = threadIdx.x % WARP, current = tokens.current(t);
        int* out = p.indices + (i64(first_token + t) * p.kv_heads + kv_head) * p.slots;
        if (current < p.slots) {
            for (int slot = lane; slot < p.slots; slot += WARP)
                out[slot] = slot <= current ? slot : -1;
        } else {
            Candidates& candidates = shared().candidates[warpgroup()][t];
            keep_best(candidates, wanted);
            write_ascending(out, candidates, wanted);
            if (lane == 0) out[wanted] = current;
        }
    }
}
#endif
