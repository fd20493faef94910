// The inverse of a selection: for every block and key/value head (a *list*, number block * H +
// head), the tokens that chose it, ascending. A stable radix sort of all (list, token) pairs by
// list: linear in T, no atomics on device memory, and the order is that of the tokens, so gradients
// of keys are summed in an order that the selection alone decides.
//
// Pairs come in the order (token, head, slot); unused slots get the list number `lists`, which
// sorts behind all others. One pass takes RADIX_BITS bits: at 2 x 512 blocks all of them. A pass is
// three kernels over tiles of TILE pairs: count how often each digit occurs in each tile [DIGITS,
// tiles] scan exclusive sums along the tiles of a digit, and its total one block per digit scatter
// rank of each pair among equal digits of its tile, by warp matches in order; then it moves
// `list_starts` finds where each list begins.
#include "pair.cuh"

constexpr int RADIX_BITS = 11;
constexpr int DIGITS = 1 << RADIX_BITS;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
// Pairs of a lane.
constexpr int ITEMS = 8;
constexpr int TILE = THREADS * ITEMS;

struct Selection {
    const int* indices;
    const int* first_block;
    i64 pairs;
    int kv_heads, slots;
    u32 lists;

    DEVICE_MEMBER Pair at(i64 i) const {
        const i64 row = i / slots;
        const int block = indices[i];
        const u32 token = u32(row / kv_heads), head = u32(row % kv_heads);
        return {block < 0 ? lists : u32(first_block[token] + block) * kv_heads + head, token};
    }
};

// `pairs_in` is null in the first pass, which reads the selection itself.
DEVICE Pair read_pair(const Selection& selection, const Pair* pairs_in, i64 i) {
    return pairs_in ? pairs_in[i] : selection.at(i);
}

extern "C" __global__ void __launch_bounds__(THREADS)
count_digits(const int* __restrict__ indices, const int* __restrict__ first_block, const Pair* __restrict__ pairs_in,
             int* __restrict__ counts, i64 pairs, int kv_heads, int slots, int lists, int shift) {
    __shared__ int count[DIGITS];
    const Selection selection{indices, first_block, pairs, kv_heads, slots, u32(lists)};
    for (int d = threadIdx.x; d < DIGITS; d += THREADS) count[d] = 0;
    __syncthreads();
    const i64 first = i64(blockIdx.x) * TILE;
    for (int i = threadIdx.x; i < TILE && first + i < pairs; i += THREADS) {
        atomicAdd(&count[(read_pair(selection, pairs_in, first + i).list >> shift) % DIGITS], 1);
    }
    __syncthreads();
    for (int d = threadIdx.x; d < DIGITS; d += THREADS) counts[i64(d) * gridDim.x + blockIdx.x] = count[d];
}

// Exclusive sum over the block; returns it and sets `total`.
DEVICE int block_exclusive(int x, int& total) {
    __shared__ int sums[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int inclusive = x;
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        const int below = __shfl_up_sync(ALL_LANES, inclusive, offset);
        if (lane >= offset) inclusive += below;
    }
    __syncthreads();
    if (lane == WARP - 1) sums[warp] = inclusive;
    __syncthreads();
    int before = 0;
    total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        if (w == warp) before = total;
        total += sums[w];
    }
    return before + inclusive - x;
}

extern "C" __global__ void __launch_bounds__(THREADS) scan_tiles(int* __restrict__ counts, int* __restrict__ totals, int tiles) {
    int* row = counts + i64(blockIdx.x) * tiles;
    int before = 0;
    for (int first = 0; first < tiles; first += THREADS) {
        const int i = first + threadIdx.x;
        int total;
        const int sum = block_exclusive(i < tiles ? row[i] : 0, total);
        if (i < tiles) row[i] = before + sum;
        before += total;
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

extern "C" __global__ void __launch_bounds__(THREADS)
scatter_pairs(const int* __restrict__ indices, const int* __restrict__ first_block, const Pair* __restrict__ pairs_in,
              const int* __restrict__ counts, const int* __restrict__ totals, Pair* __restrict__ pairs_out, i64 pairs,
              int kv_heads, int slots, int lists, int shift) {
    // How many pairs of each digit each warp has, later where its next one goes; [WARPS + 1,
    // DIGITS].
    extern __shared__ int next[];
    const Selection selection{indices, first_block, pairs, kv_heads, slots, u32(lists)};
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int* own = next + warp * DIGITS;
    for (int i = threadIdx.x; i < WARPS * DIGITS; i += THREADS) next[i] = 0;
    __syncthreads();

    const i64 first = i64(blockIdx.x) * TILE + warp * (WARP * ITEMS) + lane;
    Pair pair[ITEMS];
    int rank[ITEMS];
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
        const i64 i = first + j * WARP;
        pair[j] = i < pairs ? read_pair(selection, pairs_in, i) : Pair{0xffffffffu, 0};
    }
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
        const bool exists = first + j * WARP < pairs;
        // A digit of its own for lanes without a pair keeps them out of every group.
        const u32 digit = exists ? (pair[j].list >> shift) % DIGITS : DIGITS;
        const u32 equal = __match_any_sync(ALL_LANES, digit);
        rank[j] = __popc(equal & ((1u << lane) - 1));
        if (exists) rank[j] += own[digit];
        __syncwarp();
        if (exists && (equal >> lane) == 1) own[digit] += __popc(equal);
        __syncwarp();
    }
    __syncthreads();

    // Where each digit begins; a thread sums neighbouring ones.
    int* begins = next + WARPS * DIGITS;
    constexpr int DIGITS_PER_THREAD = DIGITS / THREADS;
    int sum = 0, total;
#pragma unroll
    for (int i = 0; i < DIGITS_PER_THREAD; ++i) sum += totals[threadIdx.x * DIGITS_PER_THREAD + i];
    int begin = block_exclusive(sum, total);
#pragma unroll
    for (int i = 0; i < DIGITS_PER_THREAD; ++i) {
        begins[threadIdx.x * DIGITS_PER_THREAD + i] = begin;
        begin += totals[threadIdx.x * DIGITS_PER_THREAD + i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < DIGITS_PER_THREAD; ++i) {
        const int digit = i * THREADS + threadIdx.x;
        int position = begins[digit] + counts[i64(digit) * gridDim.x + blockIdx.x];
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const int count = next[w * DIGITS + digit];
            next[w * DIGITS + digit] = position;
            position += count;
        }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
        if (first + j * WARP < pairs) pairs_out[own[(pair[j].list >> shift) % DIGITS] + rank[j]] = pair[j];
    }
}

// starts[l] = first pair of list l, for l = 0 ..= lists; the last is the number of used pairs.
extern "C" __global__ void __launch_bounds__(THREADS)
list_starts(const Pair* __restrict__ pairs_in, int* __restrict__ starts, i64 pairs, int lists) {
    const i64 i = i64(blockIdx.x) * THREADS + threadIdx.x;
    if (i > pairs) return;
    const i64 from = i == 0 ? 0 : i64(pairs_in[i - 1].list) + 1;
    const i64 to = i == pairs ? lists : i64(pairs_in[i].list);
    for (i64 list = from; list <= to; ++list) starts[list] = int(i);
}
