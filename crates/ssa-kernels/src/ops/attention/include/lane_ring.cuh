// A ring of asynchronous copies whose stages belong to single lanes: a lane reads only what it
// copied itself, so the ring needs no barrier. It prefetches operands without holding them in
// registers.
#pragma once
#include "mma.cuh"

// LENGTH stages of COPIES pieces of 16 bytes per lane.
template <int COPIES, int LENGTH> struct LaneRing {
    static constexpr int PIECE_BYTES = WARP * 16;
    static constexpr int STAGE_BYTES = COPIES * PIECE_BYTES;
    // Of a warp.
    static constexpr int BYTES = LENGTH * STAGE_BYTES;

    // Of this lane.
    u8* pieces;
    // The stage that is written next, and the one that is read next.
    int in, out;

    // `shared`: BYTES for every warp of the block.
    DEVICE_MEMBER explicit LaneRing(u8* shared)
        : pieces(shared + threadIdx.x / WARP * BYTES + threadIdx.x % WARP * 16), in(0), out(0) {}

    // Starts the copy of a piece of the stage that is written; zeros where not `valid`.
    DEVICE_MEMBER void copy(int piece, const void* from, bool valid = true) const {
        const u32 bytes = valid ? 16 : 0;
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                     :
                     : "r"(shared_address(at(in, piece))), "l"(from), "r"(bytes)
                     : "memory");
    }
    DEVICE_MEMBER void set(int piece, uint4 x) const { *at(in, piece) = x; }
    // Ends the stage that is written.
    DEVICE_MEMBER void commit() {
        copy_async_commit();
        in = in + 1 == LENGTH ? 0 : in + 1;
    }
    // Waits for the stage that is read next; LENGTH - 1 stages have been committed since then, or
    // are in flight with it.
    DEVICE_MEMBER void wait() const { copy_async_wait<LENGTH - 2>(); }
    DEVICE_MEMBER uint4 read(int piece) const { return *at(out, piece); }
    // Ends the stage that is read. It is overwritten when the next one has been read.
    DEVICE_MEMBER void advance() { out = out + 1 == LENGTH ? 0 : out + 1; }

private:
    DEVICE_MEMBER uint4* at(int stage, int piece) const {
        return reinterpret_cast<uint4*>(pieces + stage * STAGE_BYTES + piece * PIECE_BYTES);
    }
};
