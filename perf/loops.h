// What is done with the memory, once every page is there. Each is one function, not inlined: the
// same instructions run, whatever the memory.

#pragma once

#include <stdint.h>
#include <string.h>

#include "memory.h"

// The old tutorial's loop; reading with the compiler's loop and with the C library's, which takes
// the widest loads that the processor has: the machine's limit; filling; copying out; random order.
enum Loop { kOld, kRead, kScan, kSet, kCopy, kRandom, kLoops };
inline const char* const kLoop[kLoops] = {"write+read", "read",   "memchr",
                                          "memset",     "memcpy", "random"};

constexpr size_t kLine = 64;  // bytes of a cache line: random order reads one int of each

// A result that the compiler may not leave out, of memory that it may not suppose unchanged.
template <class T>
void use(T result) {
    asm volatile("" : : "r"(result) : "memory");
}

// volatile: the compiler may neither leave out nor join any of the stores and loads.
__attribute__((noinline)) inline void old_loop(volatile int* data, size_t count) {
    for (size_t i = 0; i < count; ++i) data[i] = static_cast<int>(i);
    for (size_t i = 0; i < count; ++i) static_cast<void>(data[i]);
}

__attribute__((noinline)) inline uint32_t read_all(const uint32_t* data, size_t count) {
    uint32_t sum = 0;
    for (size_t i = 0; i < count; ++i) sum += data[i];
    return sum;
}

// Into a buffer that stays in the cache, in pieces, as read(2) would be called.
__attribute__((noinline)) inline void copy_out(const char* data, size_t bytes) {
    static char buffer[16384];
    for (size_t at = 0; at < bytes; at += sizeof buffer) {
        memcpy(buffer, data + at, bytes - at < sizeof buffer ? bytes - at : sizeof buffer);
        use(&buffer[0]);
    }
}

// As many reads as there are cache lines. No read waits for the one before.
__attribute__((noinline)) inline uint32_t read_random(const uint32_t* data, size_t count) {
    uint32_t sum = 0, number = 1;
    for (size_t i = 0; i < count; i += kLine / sizeof(int)) {
        number = number * 1664525 + 1013904223;  // a linear congruential generator
        sum += data[static_cast<size_t>(uint64_t{number} * count >> 32)];
    }
    return sum;
}

inline void run_loop(Loop loop, void* at, size_t bytes, long repetitions) {
    const size_t count = bytes / sizeof(int);
    for (long r = 0; r < repetitions && !stopped; ++r) {
        if (loop == kOld) old_loop(static_cast<volatile int*>(at), count);
        if (loop == kRead) use(read_all(static_cast<const uint32_t*>(at), count));
        if (loop == kScan) use(memchr(at, 7, bytes));  // in vain: there is no 7 after memset
        if (loop == kSet) use(memset(at, 1, bytes));
        if (loop == kCopy) copy_out(static_cast<const char*>(at), bytes);
        if (loop == kRandom) use(read_random(static_cast<const uint32_t*>(at), count));
    }
}
