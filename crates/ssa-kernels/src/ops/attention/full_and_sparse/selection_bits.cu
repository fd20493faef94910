// The selected blocks of every token and key/value head as bits, `[N, H, words]`: bit c % 32 of word c / 32 for block c of the document.
// A thread builds one word, so nothing is written twice.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) selection_bits(
    const int* block_indices, // `[N, H, block_count]`, -1 in unused slots
    u32* words, i64 rows, int block_count, int words_per_row
) {
    const i64 index = i64(blockIdx.x) * 256 + threadIdx.x, row = index / words_per_row;
    const int word = int(index % words_per_row);
    if (row >= rows) return;
    u32 bits = 0;
    for (int i = 0; i < block_count; ++i) {
        const int block = block_indices[row * block_count + i];
        // An unused slot is no block of any word: -1 shifts to -1.
        if (block >> 5 == word) bits |= 1u << (block & 31);
    }
    words[index] = bits;
}
