// A CUDA device in C++: what the kernels of this folder use of it, so that they run, unchanged, where there is none.
//
// One OS thread runs a block; a CUDA thread is a fiber, with a stack of its own before an unmapped page. A fiber runs
// until it waits: at a barrier, at a warp's collective, or at its end. Blocks, and the threads between two waits, run in
// an order shuffled by the launch's seed, so that a missing barrier gives other bits under another seed. Shared memory
// starts as 0xA5. A copy_async16 happens at the last moment that it may: when it is waited for.
//
// Refused, with a message in place of a result: a barrier that some threads wait at while others wait elsewhere or have
// ended, a collective that not all of a warp reaches, a wait that nothing ends, an asynchronous copy never waited for,
// sizes beyond the device's.
//
// Not shown by it: speed, bank conflicts, the memory model between blocks, the layout of mma fragments on the hardware
// (written from the manual; the first test on a device looks at it).
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define EMULATE_ASAN 1
#else
#define EMULATE_ASAN 0
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __constant__ static const
#define __align__(n) alignas(n)
#define SHARED_MEMORY(name) unsigned char* name = emulate::self().shared

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};

namespace emulate {

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = 227 * 1024;
constexpr size_t PAGE = 4096;
constexpr size_t STACK = EMULATE_ASAN ? 256 * 1024 : 64 * 1024;  // the page below it is unmapped
constexpr unsigned WARP = 32;

enum State : u8 { READY, AT_BARRIER, AT_COLLECTIVE, ENDED };

struct Copy {
    void* to;
    const void* from;
};

// What a lane hands to a collective, and what it gets back.
struct Lane {
    u64 in[4];
    u64 out[4];
};

struct Fiber {
    State state;
    int line;               // where it waits
    void (*collective)(Lane* warp, unsigned lanes);
    uint3 thread;
    std::vector<std::vector<Copy>> copies;  // groups committed and not waited for; the last one is open
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
    void* sanitizer;
};

struct Device {
    std::vector<Fiber> fibers;
    std::vector<Lane> lanes;
    char* stacks = nullptr;
    unsigned count = 0, current = 0;
    uint3 block{};
    dim3 block_size{}, grid_size{};
    unsigned char* shared = nullptr;
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
    u64 random = 0;
    char fault[160] = "";
#if defined(__x86_64__)
    void* scheduler = nullptr;
#else
    ucontext_t scheduler{};
#endif
    void* scheduler_sanitizer = nullptr;
    const void* scheduler_bottom = nullptr;
    size_t scheduler_size = 0;

    ~Device() {
        if (stacks) munmap(stacks, MOST_THREADS * (STACK + PAGE));
    }
};

inline Device& self() {
    static thread_local Device device;
    return device;
}

inline unsigned random(unsigned below) {
    Device& d = self();
    d.random = d.random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((d.random >> 33) % below);
}

inline void shuffle(std::vector<unsigned>& order) {
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random((unsigned)i)]);
}

// -- fibers ---------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
extern "C" void emulate_switch(void** save, void* to);
asm(R"(
.text
.weak emulate_switch
.type emulate_switch, @function
emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulate_switch, .-emulate_switch
)");
#endif

inline char* stack_of(unsigned i) { return self().stacks + i * (STACK + PAGE) + PAGE; }

// Back to the scheduler; returns when the fiber is taken up again.
__attribute__((noinline)) inline void wait(State state, int line) {
    Device& d = self();
    Fiber& f = d.fibers[d.current];
    f.state = state;
    f.line = line;
#if EMULATE_ASAN
    __sanitizer_start_switch_fiber(state == ENDED ? nullptr : &f.sanitizer, d.scheduler_bottom, d.scheduler_size);
#endif
#if defined(__x86_64__)
    emulate_switch(&f.stack_pointer, d.scheduler);
#else
    swapcontext(&f.context, &d.scheduler);
#endif
#if EMULATE_ASAN
    __sanitizer_finish_switch_fiber(f.sanitizer, &d.scheduler_bottom, &d.scheduler_size);
#endif
}

// The launch ends with this message; the fiber that says it is never taken up again.
inline void fault(const char* what) {
    Device& d = self();
    if (!d.fault[0]) {
        const Fiber& f = d.fibers[d.current];
        snprintf(d.fault, sizeof d.fault, "%s (block %u,%u,%u thread %u,%u,%u)", what, d.block.x, d.block.y, d.block.z,
                 f.thread.x, f.thread.y, f.thread.z);
    }
}

inline void entry() {
    Device& d = self();
#if EMULATE_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &d.scheduler_bottom, &d.scheduler_size);
#endif
    d.body(d.argument);
    Fiber& f = d.fibers[d.current];
    for (auto& group : f.copies)
        if (!group.empty()) fault("a thread ended with asynchronous copies that it did not wait for");
    wait(ENDED, 0);
    abort();
}

inline void prepare(unsigned i) {
    Device& d = self();
    Fiber& f = d.fibers[i];
    f.state = READY;
    f.copies.assign(1, {});
    f.sanitizer = nullptr;
    char* bottom = stack_of(i);
#if defined(__x86_64__)
    void** top = (void**)(bottom + STACK);
    *--top = nullptr;
    *--top = (void*)entry;  // where the first switch returns to
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f.stack_pointer = top;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = bottom;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, entry, 0);
#endif
}

inline void resume(unsigned i) {
    Device& d = self();
    d.current = i;
#if EMULATE_ASAN
    __sanitizer_start_switch_fiber(&d.scheduler_sanitizer, stack_of(i), STACK);
#endif
#if defined(__x86_64__)
    emulate_switch(&d.scheduler, d.fibers[i].stack_pointer);
#else
    swapcontext(&d.scheduler, &d.fibers[i].context);
#endif
#if EMULATE_ASAN
    __sanitizer_finish_switch_fiber(d.scheduler_sanitizer, nullptr, nullptr);
#endif
}

// -- the scheduler --------------------------------------------------------------------------------------------------

// Run the collectives that a whole warp waits at. Returns how many threads go on.
inline unsigned release_warps() {
    Device& d = self();
    unsigned released = 0;
    for (unsigned first = 0; first < d.count; first += WARP) {
        unsigned lanes = d.count - first < WARP ? d.count - first : WARP;
        const Fiber& leader = d.fibers[first];
        bool all = true;
        for (unsigned i = first; i < first + lanes; i++) {
            const Fiber& f = d.fibers[i];
            all &= f.state == AT_COLLECTIVE && f.line == leader.line && f.collective == leader.collective;
        }
        if (!all) continue;
        leader.collective(&d.lanes[first], lanes);
        for (unsigned i = first; i < first + lanes; i++) d.fibers[i].state = READY;
        released += lanes;
    }
    return released;
}

inline void run_block() {
    Device& d = self();
    std::vector<unsigned> order(d.count);
    for (unsigned i = 0; i < d.count; i++) {
        prepare(i);
        order[i] = i;
    }
    while (!d.fault[0]) {
        unsigned went = 0;
        if (d.random) shuffle(order);
        for (unsigned i : order)
            if (d.fibers[i].state == READY) {
                resume(i);
                went++;
                if (d.fault[0]) return;
            }
        went += release_warps();
        if (went) continue;
        unsigned waiting = 0, ended = 0;
        int line = 0;
        bool one_place = true;
        for (unsigned i = 0; i < d.count; i++) {
            const Fiber& f = d.fibers[i];
            ended += f.state == ENDED;
            if (f.state == AT_BARRIER) {
                one_place &= waiting == 0 || f.line == line;
                line = f.line;
                waiting++;
            }
        }
        if (ended == d.count) return;
        if (waiting + ended < d.count) return fault("a collective that not all threads of a warp reach");
        if (!one_place) return fault("threads wait at different barriers");
        if (ended) return fault("a barrier that some threads never reach");
        for (unsigned i = 0; i < d.count; i++) d.fibers[i].state = READY;
    }
}

struct Launch {
    unsigned grid[3], block[3];
    size_t shared;
    u64 seed;  // 0: blocks and threads in order
    void** arguments;
};

template <class... A, size_t... I>
const char* launch(void (*kernel)(A...), const Launch& how, std::index_sequence<I...>) {
    Device& d = self();
    d.fault[0] = 0;
    d.count = how.block[0] * how.block[1] * how.block[2];
    u64 blocks = (u64)how.grid[0] * how.grid[1] * how.grid[2];
    d.block = {};
    d.current = 0;
    if (d.fibers.empty()) {
        d.fibers.resize(MOST_THREADS);
        d.lanes.resize(MOST_THREADS);
        size_t size = MOST_THREADS * (STACK + PAGE);
        d.stacks = (char*)mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (d.stacks == (char*)MAP_FAILED) return "no memory for the threads' stacks";
        for (unsigned i = 0; i < MOST_THREADS; i++) mprotect(d.stacks + i * (STACK + PAGE), PAGE, PROT_NONE);
    }
    if (d.count == 0 || d.count > MOST_THREADS || blocks == 0 || how.grid[0] >= 1u << 31 || how.grid[1] > 65535 ||
        how.grid[2] > 65535 || how.shared > MOST_SHARED)
        return "a grid, block or shared memory beyond the device's";
    d.block_size = {how.block[0], how.block[1], how.block[2]};
    d.grid_size = {how.grid[0], how.grid[1], how.grid[2]};
    for (unsigned i = 0; i < d.count; i++)
        d.fibers[i].thread = {i % how.block[0], i / how.block[0] % how.block[1], i / (how.block[0] * how.block[1])};
    struct Call {
        void (*kernel)(A...);
        void** arguments;
    } call{kernel, how.arguments};
    d.argument = &call;
    d.body = [](void* p) {
        ((Call*)p)->kernel(*(std::remove_reference_t<A>*)((Call*)p)->arguments[I]...);
    };
    d.random = how.seed;
    std::vector<unsigned> order(blocks);
    for (u64 i = 0; i < blocks; i++) order[i] = (unsigned)i;
    if (how.seed) shuffle(order);
    // Exactly as long as asked for: a sanitizer then sees what lies beyond.
    void* shared = nullptr;
    if (posix_memalign(&shared, 128, how.shared ? how.shared : 1)) return "no memory for shared memory";
    d.shared = (unsigned char*)shared;
    for (unsigned i : order) {
        d.block = {i % how.grid[0], i / how.grid[0] % how.grid[1], i / (how.grid[0] * how.grid[1])};
        memset(shared, 0xA5, how.shared);
        run_block();
        if (d.fault[0]) break;
    }
    free(shared);
    return d.fault[0] ? d.fault : nullptr;
}

template <class... A>
const char* launch(void (*kernel)(A...), const Launch& how) {
    return launch(kernel, how, std::index_sequence_for<A...>{});
}

// Hand in a value, wait for the whole warp, take the answer.
template <class In, class Out>
Out collect(const In& value, void (*collective)(Lane*, unsigned), int line) {
    static_assert(sizeof(In) <= sizeof(Lane::in) && sizeof(Out) <= sizeof(Lane::out), "at most 32 bytes a lane");
    Device& d = self();
    Lane& lane = d.lanes[d.current];
    memcpy(lane.in, &value, sizeof value);
    d.fibers[d.current].collective = collective;
    wait(AT_COLLECTIVE, line);
    Out out;
    memcpy(&out, lane.out, sizeof out);
    return out;
}

struct Shuffled {
    u64 value;
    unsigned source;
};

template <class T>
T shuffled(unsigned mask, T value, unsigned source, int line) {
    static_assert(sizeof(T) <= 8, "at most 8 bytes");
    if (mask != 0xffffffffu) {
        fault("a shuffle of part of a warp");
        wait(AT_COLLECTIVE, line);
    }
    Shuffled in{0, source};
    memcpy(&in.value, &value, sizeof value);
    u64 out = collect<Shuffled, u64>(
        in,
        [](Lane* warp, unsigned lanes) {
            for (unsigned i = 0; i < lanes; i++) {
                const Shuffled& in = *(const Shuffled*)warp[i].in;
                warp[i].out[0] = warp[in.source < lanes ? in.source : i].in[0];
            }
        },
        line);
    memcpy(&value, &out, sizeof value);
    return value;
}

inline unsigned lane() { return self().current % WARP; }

}  // namespace emulate

#define threadIdx (emulate::self().fibers[emulate::self().current].thread)
#define blockIdx (emulate::self().block)
#define blockDim (emulate::self().block_size)
#define gridDim (emulate::self().grid_size)

inline void __syncthreads(int line = __builtin_LINE()) { emulate::wait(emulate::AT_BARRIER, line); }

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulate::shuffled(mask, 0u, 0, line);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int line = __builtin_LINE()) {
    return emulate::shuffled(mask, value, (unsigned)source % emulate::WARP, line);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int line = __builtin_LINE()) {
    return emulate::shuffled(mask, value, emulate::lane() ^ (unsigned)by, line);
}

// -- instructions ---------------------------------------------------------------------------------------------------

inline u64 __umul64hi(u64 a, u64 b) { return (u64)((unsigned __int128)a * b >> 64); }

inline u32 __funnelshift_l(u32 low, u32 high, u32 by) {
    by &= 31;
    return by ? high << by | low >> (32 - by) : high;
}

inline u32 __funnelshift_r(u32 low, u32 high, u32 by) {
    by &= 31;
    return by ? low >> by | high << (32 - by) : low;
}

inline u32 __byte_perm(u32 x, u32 y, u32 selector) {
    u64 both = (u64)y << 32 | x;
    u32 out = 0;
    for (int i = 0; i < 4; i++) {
        u32 pick = selector >> 4 * i & 15;
        u32 byte = (u32)(both >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        out |= byte << 8 * i;
    }
    return out;
}

using std::max;
using std::min;
using std::rint;

inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __popcll(u64 x) { return __builtin_popcountll(x); }

template <class T>
T __ldg(const T* from) {
    return *from;
}

template <class T>
T atomicAdd(T* to, T value) {
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

namespace emulate {

struct MmaIn {
    u32 a[4], b[2];
};
struct MmaOut {
    int sum[4];
};

// The products of a whole warp at once; 16-bit factors, so that the compiler finds the multiply-and-add of vectors.
__attribute__((optimize("O3"), noinline)) inline void mma_warp(Lane* warp, unsigned lanes) {
    if (lanes < WARP) return fault("an mma of less than a warp");
    int16_t left[16][32], right[8][32];
    int sum[16][8];
    for (unsigned l = 0; l < WARP; l++) {
        const MmaIn& in = *(const MmaIn*)warp[l].in;
        unsigned g = l / 4, t = l % 4;
        for (unsigned r = 0; r < 6; r++) {
            u32 word = r < 4 ? in.a[r] : in.b[r - 4];
            int16_t* to = r < 4 ? &left[g + r % 2 * 8][r / 2 * 16 + 4 * t] : &right[g][(r - 4) * 16 + 4 * t];
            for (unsigned i = 0; i < 4; i++) to[i] = (s8)(word >> 8 * i);
        }
    }
    for (unsigned row = 0; row < 16; row++)
        for (unsigned column = 0; column < 8; column++) {
            int total = 0;
            for (unsigned k = 0; k < 32; k++) total += left[row][k] * right[column][k];
            sum[row][column] = total;
        }
    for (unsigned l = 0; l < WARP; l++)
        for (unsigned o = 0; o < 4; o++)
            ((MmaOut*)warp[l].out)->sum[o] = sum[l / 4 + o / 2 * 8][l % 4 * 2 + o % 2];
}

}  // namespace emulate

inline void mma_s8(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, int line = __builtin_LINE()) {
    emulate::MmaIn in{{a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulate::MmaOut out = emulate::collect<emulate::MmaIn, emulate::MmaOut>(in, emulate::mma_warp, line);
    for (int o = 0; o < 4; o++) c[o] = (int)((u32)c[o] + (u32)out.sum[o]);
}

inline void copy_async16(void* shared, const void* global) {
    emulate::Device& d = emulate::self();
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) {
        emulate::fault("an asynchronous copy that is not aligned to 16 bytes");
        emulate::wait(emulate::AT_COLLECTIVE, 0);
    }
    d.fibers[d.current].copies.back().push_back({shared, global});
}

inline void copy_commit() {
    emulate::Device& d = emulate::self();
    d.fibers[d.current].copies.emplace_back();
}

template <int N>
inline void copy_wait() {
    emulate::Device& d = emulate::self();
    auto& groups = d.fibers[d.current].copies;  // the open one is the last
    while (groups.size() > N + 1) {
        for (const emulate::Copy& copy : groups.front()) memcpy(copy.to, copy.from, 16);
        groups.erase(groups.begin());
    }
}
