// The one include of every kernel file: names of types, and the few instructions that C++ has no word for.
//
// Under nvcc and NVRTC nothing else is included. Under a C++ compiler emulate.cuh stands in for the device.
#pragma once

typedef unsigned long long u64;
typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef signed char s8;

#ifdef __CUDACC__

// The block's dynamic shared memory, the only kind that kernels use: its size is the launch's.
#define SHARED_MEMORY(name)                                   \
    extern __shared__ __align__(16) unsigned char name##_raw[]; \
    unsigned char* name = name##_raw

// One m16n8k32 product of signed bytes, D = A B + C, int32 accumulators that wrap. Lane l holds, with g = l / 4 and
// t = l % 4: of A the bytes 4t.. of rows g, g + 8 (registers 0, 1) and bytes 16 + 4t.. of the same (2, 3); of B the
// bytes 4t.. and 16 + 4t.. of column g; of C rows g (0, 1) and g + 8 (2, 3), columns 2t and 2t + 1. (PTX ISA, 9.7.14.)
__device__ __forceinline__ void mma_s8(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes from global to shared memory without registers; there after copy_wait, for others after a barrier too.
__device__ __forceinline__ void copy_async16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(shared)), "l"(global)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most N of this thread's groups are under way.
template <int N>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else
#include "emulate.cuh"
#endif

// 16 bytes at a time.
struct __align__(16) Quad {
    u32 x, y, z, w;
};
