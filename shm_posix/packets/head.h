// The head of a ring in shared memory: its sizes, and what the two sides tell each other. The slots
// follow it.

#pragma once

#include <stdint.h>

#include <atomic>
#include <type_traits>

constexpr uint32_t kRingMagic = 0x34474e52;                    // "RNG4" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

// What one side tells the other: the producer's seat and the consumer's, each on a cache line of
// its own, or a store to one would slow the work on the other. Only the process whose seat it is
// stores there, but for `asleep`, which the other one sets back to wake it.
struct alignas(64) Seat {
    std::atomic<uint64_t> count;   // packets handed over, or done with
    std::atomic<uint64_t> begun;   // the consumer's: `count`, or one more while it has one in hand
    std::atomic<uint64_t> slept;   // how often it slept
    std::atomic<uint32_t> visits;  // 0: nobody came yet; odd: one came; even: it left in order
    std::atomic<uint32_t> asleep;  // 1: it sleeps, or is about to
};
static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");

// There are no pointers in it, so each process may map it at another address.
struct Ring {
    uint32_t magic;                     // kRingMagic
    std::atomic<uint32_t> slots, size;  // how many; bytes of the largest packet
    // The producer's statistics: packets that it dropped; those of them larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    Seat seat[2];  // the producer's, the consumer's
};
static_assert(std::is_standard_layout<Ring>::value && sizeof(Ring) == 192,
              "laid out alike in every program");
