// The bytes of a ring in shared memory: a head with a seat for each of the two sides, then the
// slots. There are no pointers in them, so each process may map them at another address.

#pragma once

#include <stdint.h>

#include <atomic>
#include <new>
#include <type_traits>

enum Side { kProducer, kConsumer };

constexpr uint32_t kRingMagic = 0x34474e52;                    // "RNG4" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// What one side tells the other, on a cache line of its own. Only the process that has the side
// stores these, but for `asleep`, which the other one sets back to wake it.
struct alignas(64) Seat {
    std::atomic<uint64_t> count;   // packets that it has committed, or released
    std::atomic<uint64_t> begun;   // packets that it has taken in hand: the consumer's
    std::atomic<uint64_t> slept;   // how often it slept
    std::atomic<uint32_t> visits;  // 0: nobody came yet; odd: one came; even: it left in order
    std::atomic<uint32_t> asleep;  // 1: it sleeps, or is about to
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "can be a futex");

// The head.
struct Ring {
    uint32_t magic;        // kRingMagic
    uint32_t slots, size;  // how many; bytes of the largest packet
    // The producer's statistics: packets that it dropped; those of them larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    Seat seat[2];  // by Side
};
static_assert(std::is_standard_layout<Ring>::value && sizeof(Ring) == 192,
              "laid out alike in every program");

// Bytes from one slot to the next. Each begins on a cache line: one process writes to a slot while
// the other reads its neighbour. In 64 bits, also where size_t has 32.
inline uint64_t slot_bytes(uint32_t size) { return (sizeof(Slot) + uint64_t{size} + 63) / 64 * 64; }

// Bytes of memory for a ring.
inline uint64_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(Ring) + slots * slot_bytes(size);
}

// Makes a ring in ring_bytes(slots, size) bytes.
inline Ring* ring_create(void* memory, uint32_t slots, uint32_t size) {
    Ring* ring = new (memory) Ring();
    ring->slots = slots;
    ring->size = size;
    ring->magic = kRingMagic;
    return ring;
}

// What is wrong with a ring found in `bytes` bytes; nullptr: nothing. Comes before ring_join().
inline const char* ring_fault(const Ring* ring, uint64_t bytes) {
    if (bytes < sizeof(Ring) || ring->magic != kRingMagic) return "holds no ring";
    const uint32_t slots = ring->slots, size = ring->size;
    const bool sound = slots > 0 && slots <= kMostSlots && size > 0 && size <= kMostSize;
    return sound && ring_bytes(slots, size) == bytes ? nullptr : "holds a ring of impossible sizes";
}
