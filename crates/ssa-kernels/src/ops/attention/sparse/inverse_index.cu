// The inverse of a selection: for every block and key/value head (a *list*, number block * H +
// head), the tokens that selected it, ascending. A stable radix sort of all (list, token) pairs by
// list: linear in T, no atomics on device memory, and the order is that of the tokens, so gradients
// of keys are summed in an order that the selection alone decides.
//
// Pairs come in the order (token, head, slot); unused slots get the list number `lists`, which
// sorts after all others. One pass sorts by one of DIGITS digits: at 2 x 512 blocks one pass is
// enough. A pass is three kernels over tiles of TILE pairs:
//
//   count    how often each digit occurs in each tile, [DIGITS, tiles]
//   scan     exclusive sums along the tiles of a digit, and its total; one block per digit
//   scatter  the rank of each pair among equal digits of its tile, by warp matches in order; then
//            the pairs move to their places
//
// At the end `list_starts` finds where each list begins.
//
// Constants: THREADS of a block, TILE, DIGITS, SHARED_BYTES of `scatter_pairs`.
#include "params.cuh"

constexpr int WARPS = THREADS / WARP;
// Pairs of a lane.
constexpr int ITEMS = TILE / THREADS;

// Pair `i` of a pass: of those that the pass before sorted or, in the first one, of the selection.
template <typename Params> DEVICE Pair read_pair(const Params& p, i64 i) {
    if (p.sorted) return {load_read_only(&p.sorted[i].list), load_read_only(&p.sorted[i].token)};
    const i64 row = i / p.slots;
    const int block = load_read_only(p.indices + i);
    const u32 token = u32(row / p.kv_heads), head = u32(row % p.kv_heads);
    if (block < 0) return {p.lists, token};
    return {u32(load_read_only(p.first_block + token) + block) * p.kv_heads + head, token};
}

extern "C" __global__ void __launch_bounds__(THREADS)
count_digits(const CountDigits p) {
    __shared__ int count[DIGITS];
    for (int d = threadIdx.x; d < DIGITS; d += THREADS) count[d] = 0;
    __syncthreads();
    const i64 first = i64(blockIdx.x) * TILE;
    for (int i = threadIdx.x; i < TILE && first + i < p.pairs; i += THREADS) {
        atomicAdd(&count[(read_pair(p, first + i).list >> p.shift) % DIGITS], 1);
    }
    __syncthreads();
    for (int d = threadIdx.x; d < DIGITS; d += THREADS)
        p.counts[i64(d) * gridDim.x + blockIdx.x] = count[d];
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

extern "C" __global__ void __launch_bounds__(THREADS)
scan_tiles(const ScanTiles p) {
    int* row = p.counts + i64(blockIdx.x) * p.tiles;
    int before = 0;
    for (int first = 0; first < p.tiles; first += THREADS) {
        const int i = first + threadIdx.x;
        int total;
        const int sum = block_exclusive(i < p.tiles ? row[i] : 0, total);
        if (i < p.tiles) row[i] = before + sum;
        before += total;
    }
    if (threadIdx.x == 0) p.totals[blockIdx.x] = before;
}

extern "C" __global__ void __launch_bounds__(THREADS)
scatter_pairs(const ScatterPairs p) {
    // The number of pairs of each digit in each warp, later the place of its next one: [WARPS,
    // DIGITS].
    // Then where each digit begins: [DIGITS].
    extern __shared__ int next[];
    static_assert((WARPS + 1) * DIGITS * 4 == SHARED_BYTES, "");
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int* warp_next = next + warp * DIGITS;
    for (int i = threadIdx.x; i < WARPS * DIGITS; i += THREADS) next[i] = 0;
    __syncthreads();

    const i64 first = i64(blockIdx.x) * TILE + warp * (WARP * ITEMS) + lane;
    Pair pair[ITEMS];
    int rank[ITEMS];
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
        const i64 i = first + j * WARP;
        pair[j] = i < p.pairs ? read_pair(p, i) : Pair{0xffffffffu, 0};
    }
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
        const bool exists = first + j * WARP < p.pairs;
        // Lanes without a pair get an extra digit, which keeps them out of every group.
        const u32 digit = exists ? (pair[j].list >> p.shift) % DIGITS : DIGITS;
        const u32 equal = __match_any_sync(ALL_LANES, digit);
        rank[j] = __popc(equal & ((1u << lane) - 1));
        if (exists) rank[j] += warp_next[digit];
        __syncwarp();
        if (exists && (equal >> lane) == 1) warp_next[digit] += __popc(equal);
        __syncwarp();
    }
    __syncthreads();

    // Where each digit begins; a thread sums neighboring ones.
    int* begins = next + WARPS * DIGITS;
    constexpr int DIGITS_PER_THREAD = DIGITS / THREADS;
    int sum = 0, total;
#pragma unroll
    for (int i = 0; i < DIGITS_PER_THREAD; ++i)
        sum += load_read_only(p.totals + threadIdx.x * DIGITS_PER_THREAD + i);
    int begin = block_exclusive(sum, total);
#pragma unroll
    for (int i = 0; i < DIGITS_PER_THREAD; ++i) {
        begins[threadIdx.x * DIGITS_PER_THREAD + i] = begin;
        begin += load_read_only(p.totals + threadIdx.x * DIGITS_PER_THREAD + i);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < DIGITS_PER_THREAD; ++i) {
        const int digit = i * THREADS + threadIdx.x;
        const int* count = p.counts + i64(digit) * gridDim.x + blockIdx.x;
        int position = begins[digit] + load_read_only(count);
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const int digit_count = next[w * DIGITS + digit];
            next[w * DIGITS + digit] = position;
            position += digit_count;
        }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
        if (first + j * WARP < p.pairs)
            p.out[warp_next[(pair[j].list >> p.shift) % DIGITS] + rank[j]] = pair[j];
    }
}

// starts[l] = first pair of list l, for l = 0 ..= lists; the last is the number of used pairs.
extern "C" __global__ void __launch_bounds__(THREADS)
list_starts(const ListStarts p) {
    const i64 i = i64(blockIdx.x) * THREADS + threadIdx.x;
    if (i > p.pairs) return;
    const i64 from = i == 0 ? 0 : i64(load_read_only(&p.sorted[i - 1].list)) + 1;
    const i64 to = i == p.pairs ? p.lists : i64(load_read_only(&p.sorted[i].list));
    for (i64 list = from; list <= to; ++list) p.starts[list] = int(i);
}
