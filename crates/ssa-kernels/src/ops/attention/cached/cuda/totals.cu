// Sums over the selections of a layer: kept [rows] mass and number of pages, added to totals [2].
// One block of threads, so that the sums have one order.
#include "common.cuh"
#include "params.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) sum_selections(const SumSelections p) {
    double mass = 0.0, pages = 0.0;
    for (i64 row = threadIdx.x; row < p.rows; row += THREADS) {
        const float2 kept = p.kept[row];
        mass += kept.x, pages += kept.y;
    }
    mass = block_sum<THREADS>(mass), pages = block_sum<THREADS>(pages);
    if (threadIdx.x == 0) {
        double* totals = p.totals + 2 * p.layer;
        totals[0] += mass, totals[1] += pages;
    }
}
