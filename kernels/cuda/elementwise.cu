// One-pass formulas over Z_2^64: the bodies of elementwise.py. One thread an element, neighbours side by side.
#include "mpc.cuh"

__device__ __forceinline__ i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// out = a + b + constant; out may be a or b.
extern "C" __global__ void add_with(const u64* a, const u64* b, u64 constant, u64* out, i64 n) {
    i64 i = element();
    if (i < n) out[i] = a[i] + b[i] + constant;
}

// out = x y + mask + constant: a product that leaves the party, masked before it reaches memory.
extern "C" __global__ void multiply_mask(const u64* x, const u64* y, const u64* mask, u64 constant, u64* out, i64 n) {
    i64 i = element();
    if (i < n) out[i] = x[i] * y[i] + mask[i] + constant;
}

__device__ __forceinline__ void truncated(u64 c, int f, u64& high, u64& g) {
    high = (c >> f) - (1ull << (62 - f));
    g = 1 - (c >> 63);
}

extern "C" __global__ void truncate_public(const u64* c, int f, u64* high, u64* g, i64 n) {
    i64 i = element();
    if (i < n) truncated(c[i], f, high[i], g[i]);
}

// The opening and what it is for: c = mine + theirs is never written.
extern "C" __global__ void open_truncate(const u64* mine, const u64* theirs, int f, u64* high, u64* g, i64 n) {
    i64 i = element();
    if (i < n) truncated(mine[i] + theirs[i], f, high[i], g[i]);
}

extern "C" __global__ void truncate_dealer(const u64* r, int f, u64* high, u64* top, i64 n) {
    i64 i = element();
    if (i >= n) return;
    u64 value = r[i];
    high[i] = value >> f;
    top[i] = value >> 63;
}

// out = (public, where there is one) - h + ((g b) << (64 - f))
extern "C" __global__ void truncated_share(const u64* pub, const u64* g, const u64* h, const u64* b, int f, u64* out,
                                           i64 n) {
    i64 i = element();
    if (i < n) out[i] = (pub ? pub[i] : 0) - h[i] + ((g[i] * b[i]) << (64 - f));
}

// out[i][row] = (-1)^i sum_{k >= i} binom(k, i) c^(k - i) a[row][k]: the polynomial moved by c (Horner's rule repeated).
template <int TERMS>
__device__ __forceinline__ void moved(const u64* a, const u64* c, u64* out, i64 n) {
    i64 row = element();
    if (row >= n) return;
    u64 line[TERMS], by = c[row];
#pragma unroll
    for (int k = 0; k < TERMS; k++) line[k] = a[row * TERMS + k];
#pragma unroll
    for (int i = 0; i < TERMS - 1; i++)
#pragma unroll
        for (int k = TERMS - 2; k >= i; k--) line[k] += by * line[k + 1];
#pragma unroll
    for (int i = 0; i < TERMS; i++) out[i * n + row] = i & 1 ? 0 - line[i] : line[i];
}

extern "C" __global__ void polynomial_parts(const u64* __restrict__ a, const u64* __restrict__ c, int terms,
                                            u64* __restrict__ out, i64 n) {
    switch (terms) {
        case 1: return moved<1>(a, c, out, n);
        case 2: return moved<2>(a, c, out, n);
        case 3: return moved<3>(a, c, out, n);
        case 4: return moved<4>(a, c, out, n);
        default: return moved<5>(a, c, out, n);
    }
}

// out[i] = s r^i
extern "C" __global__ void powers(const u64* __restrict__ s, const u64* __restrict__ r, int count,
                                  u64* __restrict__ out, i64 n) {
    i64 row = element();
    if (row >= n) return;
    u64 value = s[row], by = r[row];
    for (int i = 0; i < count; i++) {
        out[i * n + row] = value;
        value *= by;
    }
}
