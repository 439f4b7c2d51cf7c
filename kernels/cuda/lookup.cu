// Dealt one-hots and the table sums that they select: the bodies of lookup.py.
//
// A sum over j of bit_j T[(c - j) mod S] turns the bits by c, never the table: with r_m = bit_(m + c) it is the sum over m
// of r_m T[-m mod S], and the table is the same for all elements. Four bits at a time choose one of 16 sums prepared for
// them ("four Russians"): S / 4 additions in place of S masked ones. The 16 sums of four bits are 128 bytes, one of every
// bank, so that a warp's threads never wait for each other.
#include "mpc.cuh"

__device__ __forceinline__ i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// e1 = e0 with bit position flipped (a copy made before); sign = 1 where e0 has that bit, else -1.
extern "C" __global__ void flip_bit(u8* e, const i64* __restrict__ position, i64 rows, int size, i64* __restrict__ sign) {
    i64 row = element();
    if (row >= rows) return;
    int at = (int)(position[row] & (8 * size - 1));
    u8 byte = e[row * size + (at >> 3)], bit = (u8)(1 << (at & 7));
    sign[row] = byte & bit ? 1 : -1;
    e[row * size + (at >> 3)] = byte ^ bit;
}

// sums[k][q][v] = sum over the bits u of v of T[k][-(4 q + u) mod size]; one thread a (k, q).
extern "C" __global__ void prepare_sums(const u64* __restrict__ tables, int count, int size, u64* __restrict__ sums) {
    i64 i = element();
    int groups = size / 4;
    if (i >= (i64)count * groups) return;
    const u64* table = tables + i / groups * size;
    int q = (int)(i % groups);
    u64* out = sums + i * 16;
    for (int v = 0; v < 16; v++) {
        u64 sum = 0;
        for (int u = 0; u < 4; u++)
            if (v >> u & 1) sum += table[(size - (4 * q + u)) & (size - 1)];
        out[v] = sum;
    }
}

// Bits 64 w .. 64 w + 63 of a row, turned by c: bit m is bit (m + c) mod size. A domain below 64 fills its word only.
__device__ __forceinline__ u64 turned(const u8* row, int log, u32 c, int w) {
    if (log < 6) {
        int size = 1 << log;
        u64 word = 0;
        for (int i = 0; i < size / 8; i++) word |= (u64)row[i] << 8 * i;
        return (word | word << size) >> c & ((1ull << size) - 1);
    }
    const u64* words = (const u64*)row;
    int mask = (1 << (log - 6)) - 1, at = (int)(c >> 6) + w, by = c & 63;
    u64 low = words[at & mask], high = words[(at + 1) & mask];
    return by ? low >> by | high << (64 - by) : low;
}

// Domains up to 2^10. One thread an element; the sums of one table at a time in shared memory.
extern "C" __global__ void lookup_sums(const u8* __restrict__ bits, const i64* __restrict__ c,
                                       const u64* __restrict__ sums, int count, int log, u64* __restrict__ out,
                                       i64 rows) {
    SHARED_MEMORY(memory);
    u64* table = (u64*)memory;
    int size = 1 << log, entries = size * 4, quads = size < 64 ? size / 4 : 16;
    i64 stride = (i64)gridDim.x * blockDim.x, whole = (rows + stride - 1) / stride;
    for (int k = 0; k < count; k++) {
        __syncthreads();
        for (int i = threadIdx.x; i < entries; i += blockDim.x) table[i] = sums[(i64)k * entries + i];
        __syncthreads();
        for (i64 turn = 0; turn < whole; turn++) {
            i64 row = turn * stride + element();
            if (row >= rows) continue;
            u32 by = (u32)(c[row] & (size - 1));
            u64 sum = 0;
            for (int w = 0; w < (size + 63) / 64; w++) {
                u64 word = turned(bits + row * (size / 8), log, by, w);
                const u64* group = table + w * 256;
                if (quads == 16) {
#pragma unroll
                    for (int q = 0; q < 16; q++) sum += group[q * 16 + (word >> 4 * q & 15)];
                } else {
                    for (int q = 0; q < quads; q++) sum += group[q * 16 + (word >> 4 * q & 15)];
                }
            }
            out[row * count + k] = sum;
        }
    }
}

// Domains above 2^10. One block a row: the bits are taken as they are, the table's index goes down from c.
extern "C" __global__ void lookup_wide(const u8* __restrict__ bits, const i64* __restrict__ c,
                                       const u64* __restrict__ tables, int count, int log, u64* __restrict__ out) {
    SHARED_MEMORY(memory);
    u64* sums = (u64*)memory;  // one a warp
    i64 row = blockIdx.x;
    int size = 1 << log, mask = size - 1, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int from = (int)(c[row] & mask);
    const u32* words = (const u32*)(bits + row * (size / 8));
    for (int k = 0; k < count; k++) {
        const u64* table = tables + (i64)k * size;
        u64 sum = 0;
        for (int j = threadIdx.x; j < size; j += blockDim.x)
            sum += table[(from - j) & mask] & (0 - (u64)(words[j >> 5] >> lane & 1));
#pragma unroll
        for (int by = 16; by; by >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, by);
        if (lane == 0) sums[warp] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < (int)blockDim.x / 32; w++) sum += sums[w];
            out[row * count + k] = sum;
        }
        __syncthreads();
    }
}
