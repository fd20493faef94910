// Block selection. q [N, HQ, D] bf16, k_pooled [C, H, D] f32 (or bf16), indices [N, H, slots].
//
//     s_hc = scale q_h . k_c,  lse_h over complete blocks c < (t+1)/b
//     I_c = sum_h exp(s_hc - lse_h) for c < t/b
//     selected: t/b and the slots - 1 others with the largest I; ties go to the lower block
//
// A block of 8 warps owns a tile of tokens (TILE, fewer where importances are long) and one
// key/value head.
//
// Scores are computed transposed, 16 blocks as rows by 8 heads as columns, so that the sum over
// heads is a sum over a lane's own accumulators and two shuffles. The warps divide the blocks of
// TOKENS tokens among them, sets of 16 in turn, and keep all their scores in registers: up to
// CHUNK = 512 blocks (T 8192 at 16) every score is computed once, for maximum, sum and importance
// (ONE_PASS). With more, a first pass finds maximum and sum and a second computes the scores again.
// Neither is written to device memory. Importances stay in shared memory until those of all tokens
// of the tile are complete; then each warp ranks the blocks of one token.
//
// Precision: q is bf16, the means are f32, split into bf16 high + low that equal them up to 2^-17:
// two products of tensor cores give scores with the error of f32 sums, where means rounded to bf16
// would give 2^-9. (One tf32 product costs as much as two of bf16 and has 2^-11.) `split_means`
// does it once; in the main kernel it would be a third of the instructions. Equal blocks get equal
// bits: every block's score, exponential and sum over heads is formed by the same operations in the
// same order, and relative to the same maximum.
//
// Ranking: importances are not negative, so their bits order like their values. The threshold is
// found by bisection of the bits, counting with one reduction of the warp a step, and stops at the
// first that splits off the right number (about 15 steps); among equal bits at the threshold the
// lower blocks are taken. The `reference` rule ranks the blocks of earlier chunks and those of the
// last one alone first (see the README), then the survivors.
//
// Where a document has more blocks than shared memory holds importances for, these are in device
// memory, one tile for each block of the grid, which then is bounded and takes tile after tile.
#include "rows.cuh"
#include "params.cuh"

// Given as macros: HEAD_DIM; GROUP; REFERENCE_RULE; ONE_PASS (every document has at most CHUNK
// blocks); HEAD_SETS, sets of 8 columns of heads that are processed together; SETS, sets of 16
// blocks of a warp.

constexpr int THREADS = WARPS * WARP;
constexpr int HEADS = 8 * HEAD_SETS;
constexpr int PASSES = (GROUP + HEADS - 1) / HEADS;
// Tokens scored at a time: 64 accumulators, 32 where other things need the registers.
constexpr int TOKENS = HEAD_DIM <= 64 ? 4 / HEAD_SETS : 1;
constexpr int CHUNK = WARPS * SETS * SET;
static_assert(SET == 16, "a product has 16 rows");
constexpr int WORDS = Row<HEAD_DIM>::WORDS, VECTOR = Row<HEAD_DIM>::VECTOR;
// Used instead of negative infinity, whose differences are NaN.
constexpr float LOWEST = -1e30f;
// Importances of a lane that ranking keeps in registers.
constexpr int CACHED = 16;

typedef float Scores[TOKENS][SETS][HEAD_SETS][4];

// One load of a lane from a row of queries, in shared memory as operand b: column g is a head.
// One for every token of a tile, set of heads, vector of a row and lane.
typedef Vector<VECTOR>::Type QueryVector;
constexpr int VECTORS = WORDS / VECTOR;
constexpr int TOKEN_VECTORS = HEAD_SETS * VECTORS * WARP;

// The tokens scored together: how many blocks are complete for each, and their queries.
struct Group {
    const int* complete;
    const QueryVector* queries;
};

// Means of the document's blocks for one key/value head, rows of `high` and, HEAD_DIM further,
// `low`; for each lane from the first element that it loads of row g.
struct Means {
    const bf16* rows;
    int stride, blocks;
};

// Stages the queries of a tile and HEADS heads; `sign` flips their signs.
DEVICE void stage_queries(QueryVector* staged, const bf16* q, int first_token, int tokens,
                          i64 token_rows, i64 first_row, int first_head, u32 sign) {
    const int lane = threadIdx.x % WARP;
    for (int item = threadIdx.x / WARP; item < tokens * HEAD_SETS * VECTORS; item += WARPS) {
        const int vector = item % VECTORS, set = item / VECTORS % HEAD_SETS;
        const int token = item / (VECTORS * HEAD_SETS);
        const int head = min(first_head + 8 * set + lane / 4, GROUP - 1);
        const i64 row = (first_token + token) * token_rows + first_row + head;
        const bf16* from = q + row * HEAD_DIM + Row<HEAD_DIM>::first(vector * VECTOR, lane % 4);
        QueryVector x = load_read_only(reinterpret_cast<const QueryVector*>(from));
        u32 (&words)[VECTOR] = reinterpret_cast<u32 (&)[VECTOR]>(x);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) words[i] ^= sign;
        staged[item * WARP + lane] = x;
    }
}

// First of the 16 blocks that are set `set` of this warp in a chunk.
DEVICE int first_block_of(int chunk, int set) {
    return chunk * CHUNK + (set * WARPS + int(threadIdx.x) / WARP) * 16;
}

// Volatile, since all sets need the same queries, and the compiler would keep them in the registers
// that the scores need.
template <int COUNT> DEVICE void load_again(u32 (&x)[COUNT], const void* shared) {
    const u32 address = shared_address(shared);
    if constexpr (COUNT == 4) {
        asm volatile("ld.volatile.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address));
    } else {
        asm volatile("ld.volatile.shared.v2.u32 {%0,%1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1]) : "r"(address));
    }
}

// d += x q for the rows g and g + 8 of a set, all columns and the words of one vector.
DEVICE void add_products(Scores& s, int m, const Group& group, const bf16* row, int stride,
                         int vector) {
    u32 x[2][2][VECTOR];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
        Row<8 * VECTOR>::load(x[part][0], row + part * HEAD_DIM, 0);
        Row<8 * VECTOR>::load(x[part][1], row + part * HEAD_DIM + 8 * stride, 0);
    }
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) {
#pragma unroll
        for (int n = 0; n < HEAD_SETS; ++n) {
            u32 q[VECTOR];
            const int at = (n * VECTORS + vector) * WARP + threadIdx.x % WARP;
            load_again(q, group.queries + t * TOKEN_VECTORS + at);
#pragma unroll
            for (int i = 0; i < VECTOR; i += 2) {
                const u32 right[2] = {q[i], q[i + 1]};
#pragma unroll
                for (int part = 0; part < 2; ++part) {
                    const u32 (&rows)[2][VECTOR] = x[part];
                    const u32 left[4] = {rows[0][i], rows[1][i], rows[0][i + 1], rows[1][i + 1]};
                    mma(s[t][m][n], left, right);
                }
            }
        }
    }
}

// Scores of the warp's blocks of a chunk, LOWEST for blocks that are not complete.
DEVICE void score(Scores& s, const Group& group, const Means& means, int chunk) {
    const int g = threadIdx.x % WARP / 4;
#pragma unroll
    for (int m = 0; m < SETS; ++m) {
        const int first = first_block_of(chunk, m);
        if (first >= means.blocks) break;
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
#pragma unroll
            for (int n = 0; n < HEAD_SETS; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) s[t][m][n][i] = 0.0f;
            }
        }
        // Rows of blocks that are not complete or belong to the next document are read and not
        // used.
        const bf16* row = means.rows + first * means.stride;
#pragma unroll
        for (int vector = 0; vector < VECTORS; ++vector) {
            add_products(s, m, group, row + vector * (8 * VECTOR), means.stride, vector);
        }
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
            if (first + 16 <= group.complete[t]) continue;
#pragma unroll
            for (int n = 0; n < HEAD_SETS; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (first + g + i / 2 * 8 >= group.complete[t]) s[t][m][n][i] = LOWEST;
                }
            }
        }
    }
}

// One value of every column (token, head): a lane holds those of columns 2c and 2c + 1 of every
// token and set of heads.
typedef float Columns[TOKENS][HEAD_SETS][2];
constexpr int OWN_COLUMNS = TOKENS * HEAD_SETS * 2;
static_assert(OWN_COLUMNS <= 8, "the 8 lanes of a column hold one column each after a reduction");

// Reduces columns over the 8 lanes of each, halving what a lane holds in each step, then over the
// warps through shared memory [WARPS, WARP], and gives every lane its columns back.
template <bool MAXIMUM> DEVICE void reduce_columns(Columns& columns, float* shared) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float (&x)[OWN_COLUMNS] = reinterpret_cast<float (&)[OWN_COLUMNS]>(columns);
#pragma unroll
    for (int offset = 16, held = OWN_COLUMNS; offset >= 4; offset /= 2) {
        const bool upper = lane & offset;
        const int half = held > 1 ? held / 2 : 1;
#pragma unroll
        for (int j = 0; j < half; ++j) {
            const float kept = held > 1 && upper ? x[j + half] : x[j];
            const float given = held > 1 && !upper ? x[j + half] : x[j];
            const float other = __shfl_xor_sync(ALL_LANES, given, offset);
            x[j] = MAXIMUM ? fmaxf(kept, other) : kept + other;
        }
        held = half;
    }
    shared[warp * WARP + lane] = x[0];
    __syncthreads();
    float total = shared[lane];
#pragma unroll
    for (int w = 1; w < WARPS; ++w) {
        const float other = shared[w * WARP + lane];
        total = MAXIMUM ? fmaxf(total, other) : total + other;
    }
#pragma unroll
    for (int j = 0; j < OWN_COLUMNS; ++j)
        x[j] = __shfl_sync(ALL_LANES, total, j * (8 / OWN_COLUMNS) * 4 + lane % 4);
}

// Applies f(score, column) to all scores of a warp's blocks.
template <typename F> DEVICE void for_scores(Scores& s, int chunk, int blocks, F f) {
#pragma unroll
    for (int m = 0; m < SETS; ++m) {
        if (first_block_of(chunk, m) >= blocks) break;
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
#pragma unroll
            for (int n = 0; n < HEAD_SETS; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) f(s[t][m][n][i], t, n, i % 2);
            }
        }
    }
}

// Applies f(column) to all columns.
template <typename F> DEVICE void for_all(F f) {
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) {
#pragma unroll
        for (int n = 0; n < HEAD_SETS; ++n) f(t, n, 0), f(t, n, 1);
    }
}

// What softmax needs of every column: `column_max`, the largest score, and `weight`, 1 / sum of
// 2^(scale (score - column_max)). With ONE_PASS the scores become these exponentials, else they are
// lost.
DEVICE void normalize(Scores& s, Columns& column_max, Columns& weight, const Group& group,
                      const Means& means, int chunks, float scale, float (*shared)[WARPS * WARP]) {
    for_all([&](int t, int n, int i) { column_max[t][n][i] = LOWEST, weight[t][n][i] = 0.0f; });
#if ONE_PASS
    score(s, group, means, 0);
    for_scores(s, 0, means.blocks, [&](float x, int t, int n, int i) {
        column_max[t][n][i] = fmaxf(column_max[t][n][i], x);
    });
    reduce_columns<true>(column_max, shared[0]);
    for_scores(s, 0, means.blocks, [&](float& x, int t, int n, int i) {
        x = exp2_approx(x * scale - column_max[t][n][i] * scale);
        weight[t][n][i] += x;
    });
#else
    Columns old_max;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        score(s, group, means, chunk);
        for_all([&](int t, int n, int i) { old_max[t][n][i] = column_max[t][n][i]; });
        for_scores(s, chunk, means.blocks, [&](float x, int t, int n, int i) {
            column_max[t][n][i] = fmaxf(column_max[t][n][i], x);
        });
        for_all([&](int t, int n, int i) {
            weight[t][n][i] *= exp2_approx((old_max[t][n][i] - column_max[t][n][i]) * scale);
        });
        // The difference first: `column_max` may still be LOWEST, whose product with the scale is
        // not exact.
        for_scores(s, chunk, means.blocks, [&](float x, int t, int n, int i) {
            weight[t][n][i] += exp2_approx((x - column_max[t][n][i]) * scale);
        });
    }
    for_all([&](int t, int n, int i) { old_max[t][n][i] = column_max[t][n][i]; });
    reduce_columns<true>(column_max, shared[0]);
    for_all([&](int t, int n, int i) {
        weight[t][n][i] *= exp2_approx((old_max[t][n][i] - column_max[t][n][i]) * scale);
    });
#endif
    reduce_columns<false>(weight, shared[1]);
    for_all([&](int t, int n, int i) { weight[t][n][i] = 1.0f / weight[t][n][i]; });
}

// Adds the heads of one pass to the importances of TOKENS tokens. `importance` are their rows of
// `width`.
DEVICE void add_importance(float* importance, int width, const Group& group, const Means& means,
                           int first_head, float scale, float (*shared)[WARPS * WARP]) {
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
    const int chunks = ONE_PASS ? 1 : (means.blocks + CHUNK - 1) / CHUNK;
    Scores s;
    Columns column_max, weight;
    normalize(s, column_max, weight, group, means, chunks, scale, shared);
    // Heads after the group have weight 0.
    for_all([&](int t, int n, int i) {
        if (GROUP % HEADS != 0 && first_head + 8 * n + 2 * c + i >= GROUP) weight[t][n][i] = 0.0f;
    });
    for (int chunk = 0; chunk < chunks; ++chunk) {
#if !ONE_PASS
        score(s, group, means, chunk);
        for_scores(s, chunk, means.blocks, [&](float& x, int t, int n, int i) {
            x = exp2_approx(x * scale - column_max[t][n][i] * scale);
        });
#endif
#pragma unroll
        for (int m = 0; m < SETS; ++m) {
            const int first = first_block_of(chunk, m);
            if (first >= means.blocks) break;
#pragma unroll
            for (int t = 0; t < TOKENS; ++t) {
                float upper = 0.0f, lower = 0.0f;
#pragma unroll
                for (int n = 0; n < HEAD_SETS; ++n) {
                    upper += s[t][m][n][0] * weight[t][n][0] + s[t][m][n][1] * weight[t][n][1];
                    lower += s[t][m][n][2] * weight[t][n][0] + s[t][m][n][3] * weight[t][n][1];
                }
                // Even lanes sum the rows g, odd lanes the rows g + 8.
                float total = c % 2 ? lower : upper;
                total += __shfl_xor_sync(ALL_LANES, c % 2 ? upper : lower, 1);
                total += __shfl_xor_sync(ALL_LANES, total, 2);
                float* p = importance + i64(t) * width + first + g + 8 * c;
                if (c < 2) *p = first_head == 0 ? total : *p + total;
            }
        }
    }
}

// ---- Ranking: one warp, one token

// Keys of blocks: bits of the importance + 1, or 0 for those that are not (or no longer)
// candidates. Block i * 32 + lane is register i; those from CACHED * 32 on stay in memory.
struct Ranking {
    u32 cached[CACHED];
    u32* rest;
    int count;

    DEVICE_MEMBER Ranking(float* importance, int blocks)
        : rest(reinterpret_cast<u32*>(importance)), count(blocks) {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < CACHED; ++i) {
            const int block = i * WARP + lane;
            cached[i] = block < count ? rest[block] + 1 : 0;
        }
        for (int b = CACHED * WARP + lane; b < count; b += WARP) rest[b] += 1;
    }

    // Applies f(key, block) to all blocks, 32 at a time; after the last block the key is 0.
    template <typename F> DEVICE_MEMBER void for_each(F f) {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < CACHED; ++i) {
            if (i * WARP >= count) return;
            f(cached[i], i * WARP + lane);
        }
        for (int first = CACHED * WARP; first < count; first += WARP) {
            u32 key = first + lane < count ? rest[first + lane] : 0;
            const u32 old = key;
            f(key, first + lane);
            if (key != old) rest[first + lane] = key;
        }
    }

    DEVICE_MEMBER int count_from(u32 least, int begin, int end) {
        int n = 0;
        for_each([&](u32 key, int block) {
            n += key >= least && (!REFERENCE_RULE || (block >= begin && block < end));
        });
        return __reduce_add_sync(ALL_LANES, n);
    }

    // A key that more than `wanted` of the lanes' largest keys reach, and so more than `wanted`
    // keys: cheap to find, and mostly close to the threshold.
    DEVICE u32 bound(u32 most, u32 high, int wanted) {
        u32 low = 0;
        // A bound within 2^-9 of the value is good enough.
        while (high - low > (1u << 14)) {
            const u32 middle = low + (high - low) / 2;
            if (__popc(__ballot_sync(ALL_LANES, most >= middle)) > wanted) low = middle;
            else high = middle;
        }
        return low;
    }

    // Keeps the best `wanted` candidates of blocks begin .. end.
    DEVICE_MEMBER void keep(int begin, int end, int wanted) {
        // Under the exact rule all blocks are candidates, and there are more than wanted.
        if (REFERENCE_RULE && count_from(1, begin, end) <= wanted) return;
        u32 most = 0;
        for_each([&](u32 key, int block) {
            if (!REFERENCE_RULE || (block >= begin && block < end)) most = max(most, key);
        });
        // More than `wanted` keys are >= low, at most as many are >= high.
        u32 low = 1, high = __reduce_max_sync(ALL_LANES, most) + 1;
        if (wanted < WARP) low = max(low, bound(most, high, wanted));
        int at_high = 0;
        while (high - low > 1 && at_high != wanted) {
            const u32 middle = low + (high - low) / 2;
            const int n = count_from(middle, begin, end);
            if (n > wanted) low = middle;
            else high = middle, at_high = n;
        }
        // All keys of at least `high`, and the first of those just below.
        int equal_left = wanted - at_high;
        for_each([&](u32& key, int block) {
            const bool inside = !REFERENCE_RULE || (block >= begin && block < end);
            bool kept = key >= high;
            if (equal_left > 0) {
                const u32 equal = __ballot_sync(ALL_LANES, inside && key == high - 1);
                const int lane = threadIdx.x % WARP;
                if (key == high - 1) kept = __popc(equal & ((1u << lane) - 1)) < equal_left;
                equal_left -= __popc(equal);
            }
            if (inside && !kept) key = 0;
        });
    }

    // Writes the candidates in ascending order, then the current block, then -1.
    DEVICE_MEMBER void emit(int* slots_out, int slots, int current) {
        const int lane = threadIdx.x % WARP;
        int used = 0;
        for_each([&](u32 key, int block) {
            const u32 chosen = __ballot_sync(ALL_LANES, key > 0);
            if (key > 0) slots_out[used + __popc(chosen & ((1u << lane) - 1))] = block;
            used += __popc(chosen);
        });
        for (int slot = used + lane; slot < slots; slot += WARP)
            slots_out[slot] = slot == used ? current : -1;
    }
};

DEVICE void rank_token(float* importance, int current, int block_size, int slots, int* slots_out) {
    Ranking ranking(importance, current);
#if REFERENCE_RULE
    const int last_chunk = current / block_size * block_size;
    if (last_chunk > 0) {
        ranking.keep(0, last_chunk, block_size / 2);
        ranking.keep(last_chunk, current, block_size / 2 - 1);
    }
#endif
    ranking.keep(0, current, slots - 1);
    ranking.emit(slots_out, slots, current);
}

// Means [rows, HEAD_DIM] as [padded_rows, 2, HEAD_DIM], high and low: 16 H rows of zeros follow, so
// that sets of 16 blocks may end anywhere.
template <typename T> DEVICE void split_rows(const SplitMeans<T>& p) {
    constexpr int VECTORS = HEAD_DIM / 8;
    const i64 item = i64(blockIdx.x) * THREADS + threadIdx.x, row = item / VECTORS;
    if (row >= p.padded_rows) return;
    float x[8] = {}, rest[8];
    if (row < p.rows) load8_read_only(x, p.means + item * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) rest[i] = x[i] - to_float(to_bf16(x[i]));
    bf16* high = p.split + item * 8 + row * HEAD_DIM;
    store8(high, x);
    store8(high + HEAD_DIM, rest);
}

extern "C" __global__ void __launch_bounds__(THREADS)
split_means(const SplitMeans<float> p) { split_rows(p); }

extern "C" __global__ void __launch_bounds__(THREADS)
split_means_bf16(const SplitMeans<bf16> p) { split_rows(p); }

// A tile and one key/value head. In shared memory: registers are full.
struct Work {
    const bf16* means;
    int first_token, tokens, start, blocks;
    // Complete blocks of every token.
    int complete[TILE];
};

// tiles [tile_count] x (first token, tokens), each within a document, the ones with most blocks
// first. `tile`: the most tokens of one, a multiple of TOKENS. `width`: row of importances, a
// multiple of 16. `scratch`: null, or [gridDim.x * gridDim.y, tile, width] f32. Grid: (tiles or
// fewer, H). Dynamic shared memory: queries, tile * HEADS * HEAD_DIM bf16, then [tile, width] f32,
// or nothing with `scratch`.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
select_blocks(const __grid_constant__ SelectBlocks p) {
    extern __shared__ QueryVector queries[];
    __shared__ float columns[2][WARPS * WARP];
    __shared__ Work work;
    const int kv_head = blockIdx.y, warp = threadIdx.x / WARP;
    float* importance =
        p.scratch ? p.scratch + (i64(blockIdx.y) * gridDim.x + blockIdx.x) * p.tile * p.width
                  : reinterpret_cast<float*>(queries + p.tile * TOKEN_VECTORS);
    // The largest score has the largest exponential only if the scale is positive. If it is
    // negative, the sign of q is flipped.
    const u32 sign = p.softmax_scale < 0.0f ? 0x80008000u : 0;
    const float scale = fabsf(p.softmax_scale) * LOG2_E;

    for (int index = blockIdx.x; index < p.tile_count; index += gridDim.x) {
        if (threadIdx.x == 0) {
            const int2 tile = load_read_only(p.tiles + index);
            const int first_token = tile.x, start = load_read_only(p.document_start + first_token);
            const i64 first_block = load_read_only(p.first_block + first_token);
            const i64 row = first_block * p.kv_heads + kv_head;
            work.means = p.means + row * (2 * HEAD_DIM);
            work.first_token = first_token, work.tokens = tile.y, work.start = start;
            work.blocks = (first_token + tile.y - start) / p.block_size;
        }
        if (threadIdx.x < p.tile) {
            const int2 tile = load_read_only(p.tiles + index);
            const int last = min(int(threadIdx.x), tile.y - 1);
            const int start = load_read_only(p.document_start + tile.x);
            work.complete[threadIdx.x] = (tile.x + last - start + 1) / p.block_size;
        }
        __syncthreads();
        if ((work.first_token + work.tokens - 1 - work.start) / p.block_size >= p.slots) {
            const int lane = threadIdx.x % WARP, stride = p.kv_heads * 2 * HEAD_DIM;
            const bf16* rows = work.means + lane / 4 * stride + Row<HEAD_DIM>::first(0, lane % 4);
            const Means means{rows, stride, work.blocks};
            for (int pass = 0; pass < PASSES; ++pass) {
                if (pass > 0) __syncthreads();
                stage_queries(queries, p.q, work.first_token, work.tokens, p.kv_heads * GROUP,
                              kv_head * GROUP, pass * HEADS, sign);
                __syncthreads();
                for (int t0 = 0; t0 < work.tokens; t0 += TOKENS) {
                    // Past the last token of a short tile, whatever memory holds is scored but not
                    // ranked.
                    const Group group{work.complete + t0, queries + t0 * TOKEN_VECTORS};
                    add_importance(importance + i64(t0) * p.width, p.width, group, means,
                                   pass * HEADS, scale, columns);
                }
            }
        }
        __syncthreads();
        for (int t = warp; t < work.tokens; t += WARPS) {
            const int token = work.first_token + t, current = (token - work.start) / p.block_size;
            int* slots_out = p.indices + (i64(token) * p.kv_heads + kv_head) * p.slots;
            if (current < p.slots) {
                for (int slot = threadIdx.x % WARP; slot < p.slots; slot += WARP)
                    slots_out[slot] = slot <= current ? slot : -1;
            } else {
                rank_token(importance + i64(t) * p.width, current, p.block_size, p.slots,
                           slots_out);
            }
        }
        __syncthreads();
    }
}
