// Barriers in shared memory (mbarrier, sm_90), on which threads wait for each other and for copies
// that complete there. A barrier has 64 bits and is given by its shared address.
#pragma once
#include "mma.cuh"

// `count` arrivals complete a phase.
DEVICE void init_barrier(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
// Makes barriers that this thread has initialized visible to copies.
DEVICE void fence_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void arrive_barrier(u32 barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Waits for the end of a phase of this parity; the first phase has parity 0.
DEVICE void wait_barrier(u32 barrier, u32 parity) {
    asm volatile("{.reg .pred done;"
                 "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;"
                 "@!done bra again;}" ::"r"(barrier), "r"(parity) : "memory");
}
// Arrives, and starts a copy of BYTES, a multiple of 16, without which the phase does not end.
template <int BYTES> DEVICE void arrive_with_copy(u32 barrier, u32 to_shared, const void* from) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "n"(BYTES)
                 : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to_shared), "l"(from), "n"(BYTES), "r"(barrier)
                 : "memory");
}
