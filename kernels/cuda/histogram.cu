// Thermometer counts, suffix sums, bit picks, rotations and random subset sums: the bodies of histogram.py, subset.py.
#include "mpc.cuh"

constexpr int SLICES = 4;  // of a row's entries, counted side by side

__device__ __forceinline__ i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// value mod size, size > 0, never negative
__device__ __forceinline__ int modulo(i64 value, int size) {
    i64 rest = (size & (size - 1)) == 0 ? value & (size - 1) : value % size;
    return (int)(rest < 0 ? rest + size : rest);
}

// One block a row, blockDim (width, SLICES): out[r][b] = sum over kept j of e[r][j][(c[r][j] - b) mod nb]. Threads of a
// slice read neighbours, downwards; slices are added through shared memory.
template <class T>
__device__ __forceinline__ void counts(const T* e, const i64* c, const u8* keep, i64 keep_step, int n, int nb, T* out,
                                       u32* sums) {
    i64 row = blockIdx.x;
    int slice = threadIdx.y, width = blockDim.x;
    for (int first = 0; first < nb; first += width) {
        int b = first + threadIdx.x;
        u32 sum = 0;
        if (b < nb)
            for (int j = slice; j < n; j += SLICES) {
                if (keep && !keep[row * keep_step + j]) continue;
                int at = modulo(c[row * n + j], nb) - b;
                sum += e[(row * n + j) * nb + (at < 0 ? at + nb : at)];
            }
        sums[slice * width + threadIdx.x] = sum;
        __syncthreads();
        if (slice == 0 && b < nb) {
            for (int s = 1; s < SLICES; s++) sum += sums[s * width + threadIdx.x];
            out[row * nb + b] = (T)sum;
        }
        __syncthreads();
    }
}

extern "C" __global__ void thermometer_counts_uint8(const u8* __restrict__ e, const i64* __restrict__ c,
                                                    const u8* __restrict__ keep, i64 keep_step, int n, int nb,
                                                    u8* __restrict__ out) {
    SHARED_MEMORY(memory);
    counts(e, c, keep, keep_step, n, nb, out, (u32*)memory);
}
extern "C" __global__ void thermometer_counts_uint16(const u16* __restrict__ e, const i64* __restrict__ c,
                                                     const u8* __restrict__ keep, i64 keep_step, int n, int nb,
                                                     u16* __restrict__ out) {
    SHARED_MEMORY(memory);
    counts(e, c, keep, keep_step, n, nb, out, (u32*)memory);
}

// One warp a row: 32 entries at a time from the end, their suffix sums by five shuffles, and what came before.
template <class T>
__device__ __forceinline__ void suffix(const T* counts, i64 rows, int nb, T* out) {
    i64 row = element() >> 5;
    int lane = threadIdx.x & 31;
    u32 above = 0;
    for (int first = (nb - 1) / 32 * 32; first >= 0; first -= 32) {
        int b = first + lane;
        u32 sum = row < rows && b < nb ? counts[row * nb + b] : 0;
#pragma unroll
        for (int by = 1; by < 32; by *= 2) {
            u32 next = __shfl_sync(0xffffffffu, sum, (lane + by) & 31);
            sum += lane + by < 32 ? next : 0;
        }
        sum += above;
        if (row < rows && b < nb) out[row * nb + b] = (T)sum;
        above = __shfl_sync(0xffffffffu, sum, 0);
    }
}

extern "C" __global__ void suffix_sum_uint8(const u8* __restrict__ counts, i64 rows, int nb, u8* __restrict__ out) {
    suffix(counts, rows, nb, out);
}
extern "C" __global__ void suffix_sum_uint16(const u16* __restrict__ counts, i64 rows, int nb, u16* __restrict__ out) {
    suffix(counts, rows, nb, out);
}

// out = one-hot(position) - e0; one thread an entry.
template <class T>
__device__ __forceinline__ void deal(const T* e0, const i64* position, i64 rows, int nb, T* out) {
    i64 i = element(), row = i / nb;
    if (row < rows) out[i] = (T)((i - row * nb == modulo(position[row], nb)) - e0[i]);
}

extern "C" __global__ void deal_thermometer_uint8(const u8* __restrict__ e0, const i64* __restrict__ position, i64 rows,
                                                  int nb, u8* __restrict__ out) {
    deal(e0, position, rows, nb, out);
}
extern "C" __global__ void deal_thermometer_uint16(const u16* __restrict__ e0, const i64* __restrict__ position,
                                                   i64 rows, int nb, u16* __restrict__ out) {
    deal(e0, position, rows, nb, out);
}

extern "C" __global__ void pick_bits(const u8* __restrict__ e, const i64* __restrict__ c, i64 rows, int size,
                                     u8* __restrict__ out) {
    i64 row = element();
    if (row >= rows) return;
    int at = modulo(c[row], 8 * size);
    out[row] = e[row * size + (at >> 3)] >> (at & 7) & 1;
}

// out[r][i] = x[r][(i - by[r]) mod nb]
extern "C" __global__ void rotate_rows(const u8* __restrict__ x, const i64* __restrict__ by, i64 rows, int nb,
                                       u8* __restrict__ out) {
    i64 i = element(), row = i / nb;
    if (row >= rows) return;
    int at = (int)(i - row * nb) - modulo(by[row], nb);
    out[i] = x[row * nb + (at < 0 ? at + nb : at)];
}

// out[j] += sum of values where bit j of words is set, count <= 32. A warp takes 32 elements at a time, lane j sums for
// bit j: values and words go round by shuffles. One addition to memory a block and bit.
extern "C" __global__ void subset_sums(const u64* __restrict__ values, const int* __restrict__ words, i64 n, int count,
                                       u64* out) {
    SHARED_MEMORY(memory);
    u64* sums = (u64*)memory;  // [warps][32]
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    u64 sum = 0;
    for (i64 first = ((i64)blockIdx.x * warps + warp) * 32; first < n; first += (i64)gridDim.x * warps * 32) {
        bool there = first + lane < n;
        u64 value = there ? values[first + lane] : 0;
        u32 word = there ? (u32)words[first + lane] : 0;
#pragma unroll 8
        for (int i = 0; i < 32; i++) {
            u64 v = __shfl_sync(0xffffffffu, value, i);
            sum += v & (0 - (u64)(__shfl_sync(0xffffffffu, word, i) >> lane & 1));
        }
    }
    sums[warp * 32 + lane] = sum;
    __syncthreads();
    if (warp == 0 && lane < count) {
        for (int w = 1; w < warps; w++) sum += sums[w * 32 + lane];
        atomicAdd(out + lane, sum);
    }
}
