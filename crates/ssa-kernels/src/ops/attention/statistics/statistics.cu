// How sparse attention differs from full attention, for every query; the formulas are those of
// reference.rs. q [N, HQ, D], k, v [N, H, D] bf16, indices [N, H, slots], norms [N, H] f64, fields
// [7, N, HQ] f32.
//
// Everything is f64, as on the CPU: distances and dropped masses are differences of nearly equal
// numbers, and the identity error is nothing but rounding. The products are mma.m8n8k4 in f64,
// exact products added in f64.
//
// A block of 4 warps owns 32 packed rows of one document and key/value head; row p * GROUP + g is
// query head g of position p, so that the heads of a token, which share a selection, are
// neighbors. A warp owns 8 rows. The block walks the keys 32 at a time, staged in shared memory as
// f64: they are converted once for 32 rows. Of every key a warp takes the score once and its value
// twice: into the full output, and into the sparse or the dropped one. The three are summed
// separately, and the sparse softmax has its own maximum: neither attention is derived from the
// other.
// Where 8 rows agree on 8 keys, as those of a token do in blocks of 8 or more, two products of the
// three remain.
//
// Three outputs of 64 columns are 96 registers, so larger heads are cut into slices, for each of
// which scores are computed again.
//
// Pairs are T^2 / 2 a head, each 3 D multiply-adds (4 D at D 128) and one or two exponentials. At T
// 8192, 32 heads and D 64 that is 2.1e11: 6 ms at the 67 TFLOP/s of an H100, which takes 23 ms
// (predicted 20-40, since an exponential is some thirty instructions and no copy overlaps its own
// block's products), 68 ms at D 128, and 1.6 ms and 353 ms at T 2048 and 32768. Cards with an f64
// rate of 1/64 should take half a second.
#include "common.cuh"
#include "params.cuh"

// Given as macros: HEAD_DIM; PADDED, the head in whole steps of products; SLICES of SLICE columns;
// K_STRIDE, V_STRIDE and Q_STRIDE, elements between rows in shared memory. An operand of k is 8
// rows of 4 columns, one of v every other of 8 rows with 8 columns: with strides of PADDED + 4 and
// SLICE + 2, 16 lanes hit 16 different pairs of banks. Queries stay bf16, which costs one
// conversion for 4 products.

constexpr int THREADS = WARPS * WARP;
constexpr int WARP_ROWS = ROWS / WARPS;
static_assert(WARP_ROWS == 8, "products have 8 rows");
// The keys of a tile, in groups of the 8 columns of a product.
constexpr int GROUPS = KEYS / 8;
constexpr int COLUMN_TILES = SLICE / 8, STEPS = PADDED / 4;
constexpr int BLOCKS_AT_ONCE = HEAD_DIM <= 64 ? 3 : 2;
static_assert(HEAD_DIM >= 1 && HEAD_DIM <= LARGEST_HEAD, "larger heads do not fit into registers");

DEVICE double minus_infinity() { return __longlong_as_double(0xfff0000000000000ll); }

// d += a b: lane 4 g + c holds a (row g, column c), b (row c, column g) and d (row g, columns 2c
// and 2c + 1).
DEVICE void mma_f64(double (&d)[2], double a, double b) {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+d"(d[0]), "+d"(d[1]) : "d"(a), "d"(b));
}

// Over the four lanes of a row.
DEVICE double row_max(double x) {
    x = fmax(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmax(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

DEVICE double row_sum(double x) { return lanes_sum<4>(x); }

// A weighted sum of values under weights e^(score - max) of a row. `sum` is the share of this
// lane's keys.
struct Softmax {
    double max, sum, out[COLUMN_TILES][2];

    DEVICE_MEMBER void clear() {
        max = minus_infinity();
        sum = 0.0;
#pragma unroll
        for (int tile = 0; tile < COLUMN_TILES; ++tile) out[tile][0] = out[tile][1] = 0.0;
    }
    DEVICE_MEMBER void scale(double factor) {
        sum *= factor;
#pragma unroll
        for (int tile = 0; tile < COLUMN_TILES; ++tile) {
            out[tile][0] *= factor;
            out[tile][1] *= factor;
        }
    }
};

// The factor that takes sums from the maximum `old` to `raised`.
DEVICE double rescaling(double old, double raised) {
    return raised > old ? exp(old - raised) : 1.0;
}

// Walks the selected blocks of a row along ascending keys of the document.
struct Cursor {
    const int* blocks;
    int slots, block_size, slot, first;

    DEVICE_MEMBER Cursor(const int* blocks, int slots, int block_size)
        : blocks(blocks), slots(slots), block_size(block_size), slot(-1) { next(); }
    DEVICE_MEMBER void next() {
        ++slot;
        const int block = slot < slots ? load_read_only(blocks + slot) : -1;
        first = block < 0 ? 0x7fffffff : block * block_size;
    }
    DEVICE_MEMBER bool holds(int key) {
        while (key - first >= block_size) next();
        return key >= first;
    }
};

// WIDTH columns from `column` on of KEYS rows, as f64; zeros after `rows` and HEAD_DIM.
template <int WIDTH, int STRIDE>
DEVICE void stage(double* to, const bf16* from, i64 row_stride, int rows, int column) {
    constexpr int VEC = HEAD_DIM % 2 == 0 ? 2 : 1;
    constexpr int PIECES = KEYS * WIDTH / VEC, PER_THREAD = ceil_div(PIECES, THREADS);
    // All loads come before the first store, but only as many as fit into a few registers.
    constexpr int AT_ONCE = PER_THREAD < 8 ? PER_THREAD : 8;
#pragma unroll 1
    for (int start = threadIdx.x; start < PIECES; start += AT_ONCE * THREADS) {
        u32 x[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const int piece = start + i * THREADS, row = piece / (WIDTH / VEC);
            const int at = column + piece % (WIDTH / VEC) * VEC;
            x[i] = 0;
            if (piece < PIECES && row < rows && at < HEAD_DIM) {
                const bf16* p = from + row * row_stride + at;
                if constexpr (VEC == 2) x[i] = load_read_only(reinterpret_cast<const u32*>(p));
                else x[i] = load_read_only(p).bits;
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const int piece = start + i * THREADS;
            if (piece >= PIECES) continue;
            const float2 pair = unpack_bf16(x[i]);
            double* p = to + piece / (WIDTH / VEC) * STRIDE + piece % (WIDTH / VEC) * VEC;
            if constexpr (VEC == 2) *reinterpret_cast<double2*>(p) = make_double2(pair.x, pair.y);
            else *p = pair.x;
        }
    }
}

// The three outputs of a warp's 8 rows, and what is summed on the way. `dropped` is relative to the
// maximum of `full`.
struct Rows {
    Softmax full, sparse, dropped;
    // Sum of weight times score, and the largest |v| dropped, of this lane's keys.
    double score_sum, largest;

    DEVICE_MEMBER void clear() {
        full.clear(), sparse.clear(), dropped.clear();
        score_sum = largest = 0.0;
    }

    DEVICE_MEMBER void raise(double full_max, double sparse_max) {
        full_max = fmax(full.max, row_max(full_max));
        sparse_max = fmax(sparse.max, row_max(sparse_max));
        // Rare after the first keys. The factor is 1 for rows that need none.
        if (__any_sync(ALL_LANES, full_max > full.max)) {
            const double factor = rescaling(full.max, full_max);
            full.scale(factor), dropped.scale(factor);
            score_sum *= factor;
            full.max = full_max;
        }
        if (__any_sync(ALL_LANES, sparse_max > sparse.max)) {
            sparse.scale(rescaling(sparse.max, sparse_max));
            sparse.max = sparse_max;
        }
    }

    // Adds values of 8 keys, of which lane 4 g + c has the weights of 2c and 2c + 1. A product
    // takes its 4 keys in the order in which accumulators hold their scores: 0, 2, 4, 6 and then 1,
    // 3, 5, 7.
    template <bool SPARSE, bool DROPPED>
    DEVICE_MEMBER void add(const double (&p)[2], const double (&p_sparse)[2],
                           const double (&p_dropped)[2], const double* values) {
#pragma unroll
        for (int tile = 0; tile < COLUMN_TILES; ++tile) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const double v = values[e * V_STRIDE + tile * 8];
                mma_f64(full.out[tile], p[e], v);
                if constexpr (SPARSE) mma_f64(sparse.out[tile], p_sparse[e], v);
                if constexpr (DROPPED) mma_f64(dropped.out[tile], p_dropped[e], v);
            }
        }
    }

    // Adds a tile: scores, one bit for every key that is visible and one for every key that is
    // selected.
    DEVICE_MEMBER void add_tile(const double (&s)[GROUPS][2], u32 visible, u32 selected,
                                const double* values, const double* norms) {
        const int c = threadIdx.x % 4;
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            double p[2], p_sparse[2], p_dropped[2];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const u32 bit = 1u << (2 * group + e);
                const bool sees = visible & bit, keeps = selected & bit, drops = sees && !keeps;
                p[e] = sees ? exp(s[group][e] - full.max) : 0.0;
                p_sparse[e] = keeps ? exp(s[group][e] - sparse.max) : 0.0;
                p_dropped[e] = drops ? p[e] : 0.0;
                full.sum += p[e], sparse.sum += p_sparse[e], dropped.sum += p_dropped[e];
                if (sees) score_sum += p[e] * s[group][e];
                if (drops) largest = fmax(largest, norms[8 * group + 2 * c + e]);
            }
            const u32 bits = 3u << (2 * group);
            const bool any_selected = __any_sync(ALL_LANES, (selected & bits) != 0);
            const bool any_dropped = __any_sync(ALL_LANES, (visible & ~selected & bits) != 0);
            const double* rows = values + (8 * group + 2 * c) * V_STRIDE + threadIdx.x % WARP / 4;
            if (any_selected && any_dropped) add<true, true>(p, p_sparse, p_dropped, rows);
            else if (any_selected) add<true, false>(p, p_sparse, p_dropped, rows);
            else if (any_dropped) add<false, true>(p, p_sparse, p_dropped, rows);
        }
    }
};

// What a row's fields are made of, at the end of a slice; squared norms are sums over the slices so
// far, of this lane's columns.
struct RowStatistics {
    double full_sum, sparse_sum, delta, score_sum, largest, full_max, sparse_max;
    double distance, h_sparse, error;

    DEVICE_MEMBER void add(const Rows& rows) {
        full_max = rows.full.max, sparse_max = rows.sparse.max;
        full_sum = row_sum(rows.full.sum), sparse_sum = row_sum(rows.sparse.sum);
        delta = row_sum(rows.dropped.sum) / full_sum;
        score_sum = row_sum(rows.score_sum), largest = row_max(rows.largest);
#pragma unroll
        for (int tile = 0; tile < COLUMN_TILES; ++tile) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const double h = rows.sparse.out[tile][e] / sparse_sum;
                const double difference = rows.full.out[tile][e] / full_sum - h;
                // delta * mu_tail is the dropped part of the full output.
                const double predicted = rows.dropped.out[tile][e] / full_sum - delta * h;
                distance += difference * difference;
                h_sparse += h * h;
                error += (difference - predicted) * (difference - predicted);
            }
        }
    }

    // All lanes of the warp must call it; one of the four of a row writes.
    DEVICE_MEMBER void write(float* fields, i64 row, i64 rows, bool writes) {
        const double from_h_full = sqrt(row_sum(distance)), from_predicted = sqrt(row_sum(error));
        const double bound = delta * (largest + sqrt(row_sum(h_sparse)));
        if (!writes) return;
        const double lse = full_max + log(full_sum);
        fields[row] = float(sparse_sum * exp(sparse_max - full_max) / full_sum);
        fields[row + rows] = float((lse - score_sum / full_sum) / 0.69314718055994530942);
        fields[row + 2 * rows] = float(delta);
        fields[row + 3 * rows] = float(largest);
        fields[row + 4 * rows] = float(from_h_full);
        fields[row + 5 * rows] = float(bound);
        fields[row + 6 * rows] = float(from_predicted);
    }
};

// |v| of every token and key/value head, a warp each.
extern "C" __global__ void __launch_bounds__(THREADS)
value_norms(const ValueNorms p) {
    const i64 row = i64(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (row >= p.rows) return;
    double sum = 0.0;
    for (int at = threadIdx.x % WARP; at < HEAD_DIM; at += WARP) {
        const double x = to_float(load_read_only(p.v + row * HEAD_DIM + at));
        sum += x * x;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) p.norms[row] = sqrt(sum);
}

// Grid: (tiles, H). A tile is (first token of the document, its tokens, unused, first packed row),
// the longest walk first.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
attention_statistics(const __grid_constant__ CompareAttention p) {
    extern __shared__ __align__(16) double shared[];
    double* const k_tile = shared;
    double* const v_tile = k_tile + KEYS * K_STRIDE;
    double* const norm_tile = v_tile + KEYS * V_STRIDE;
    bf16* const q_tile = reinterpret_cast<bf16*>(norm_tile + KEYS);
    const int4 tile = load_read_only(p.tiles + blockIdx.x);
    const int start = tile.x, last_row = tile.y * p.group_size - 1, kv_head = blockIdx.y;
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4;
    // Rows after the document repeat its last one and are not written.
    const int packed = tile.w + threadIdx.x / WARP * WARP_ROWS + g, row = min(packed, last_row);
    const int position = row / p.group_size;
    const int keys = min(tile.w + ROWS - 1, last_row) / p.group_size + 1;
    const i64 key_row = i64(start) * p.kv_heads + kv_head;
    const i64 token_row = key_row + i64(position) * p.kv_heads;
    const i64 query = token_row * p.group_size + row % p.group_size;

    // A lane reads what it wrote.
    bf16* const q_row = q_tile + (threadIdx.x / WARP * WARP_ROWS + g) * Q_STRIDE;
    for (int at = c; at < PADDED; at += 4)
        q_row[at] = at < HEAD_DIM ? load_read_only(p.q + query * HEAD_DIM + at) : bf16{0};

    RowStatistics statistics = {};
#pragma unroll 1
    for (int slice = 0; slice < SLICES; ++slice) {
        Rows sums;
        sums.clear();
        Cursor cursor(p.indices + token_row * p.slots, p.slots, p.block_size);
#pragma unroll 1
        for (int first = 0; first < keys; first += KEYS) {
            const i64 from = key_row + i64(first) * p.kv_heads;
            const i64 row_stride = i64(p.kv_heads) * HEAD_DIM;
            const int here = min(KEYS, keys - first);
            __syncthreads();
            stage<PADDED, K_STRIDE>(k_tile, p.k + from * HEAD_DIM, row_stride, here, 0);
            stage<SLICE, V_STRIDE>(v_tile, p.v + from * HEAD_DIM, row_stride, here, slice * SLICE);
            if (threadIdx.x < here) {
                const double* norm = p.norms + from + i64(threadIdx.x) * p.kv_heads;
                norm_tile[threadIdx.x] = load_read_only(norm);
            }
            __syncthreads();

            double s[GROUPS][2] = {};
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                const double a = to_float(q_row[4 * step + c]);
#pragma unroll
                for (int group = 0; group < GROUPS; ++group) {
                    mma_f64(s[group], a, k_tile[(8 * group + g) * K_STRIDE + 4 * step + c]);
                }
            }
            u32 visible = 0, selected = 0;
            double full_max = minus_infinity(), sparse_max = minus_infinity();
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int key = first + 8 * group + 2 * c + e;
                    const u32 bit = 1u << (2 * group + e);
                    s[group][e] *= double(p.softmax_scale);
                    if (key > position) continue;
                    visible |= bit;
                    full_max = fmax(full_max, s[group][e]);
                    if (!cursor.holds(key)) continue;
                    selected |= bit;
                    sparse_max = fmax(sparse_max, s[group][e]);
                }
            }
            sums.raise(full_max, sparse_max);
            sums.add_tile(s, visible, selected, v_tile, norm_tile);
        }
        statistics.add(sums);
    }
    statistics.write(p.fields, query, p.rows, c == 0 && packed <= last_row);
}
