// A ring of packet slots in shared memory: what lies in these bytes, how they are made and checked.
// Where the memory comes from is the caller's business; how packets go in and out is in
// ring_producer.h and ring_consumer.h.
//
// There are counts in it and no pointers, so each process may map it at another address. Packets
// are numbered from 0 on, and packet n lies in slot n % slots.

#pragma once

#include <stddef.h>
#include <stdint.h>

#include <atomic>
#include <type_traits>

#include "seat.h"

constexpr uint32_t kRingMagic = 0x32474e52;                    // "RNG2" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

enum Side { kProducer, kConsumer };

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// The head of the shared bytes; the slots follow. Either process may be killed at any instruction:
// a count that says what is done changes by one store (so it is atomic), and without that store it
// is as if nothing had been done.
struct PacketRing {
    std::atomic<uint32_t> magic;      // kRingMagic; stored last, so a half-made ring has none
    uint32_t header_bytes;            // the layout that the maker's compiler chose
    uint32_t slots, size;             // how many; bytes of the largest packet
    pthread_mutex_t lock;             // guards the seats, `published` and `backlog`
    Seat seat[2];                     // by Side
    std::atomic<uint64_t> published;  // packets that the producer handed over
    uint64_t backlog;                 // the most that ever waited
    // Only the producer stores these: packets that were dropped; those of them larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    // Only the consumer stores these, for each packet and without the lock; so they have a cache
    // line of their own. A packet that a consumer has begun and not handled when it ends may be
    // handled all the same; its successor begins with that one.
    alignas(64) std::atomic<uint64_t> begun;  // packets taken in hand
    std::atomic<uint64_t> handled;            // packets done with: their slots are free
};
static_assert(std::is_standard_layout<PacketRing>::value, "laid out alike in every program");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");

// Slots begin on cache lines: one process writes to a slot while the other reads its neighbour.
inline size_t slot_bytes(uint32_t size) { return (sizeof(Slot) + size + 63) / 64 * 64; }

// Bytes of memory for a ring.
inline size_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(PacketRing) + slots * slot_bytes(size);
}

// Makes a ring in ring_bytes(slots, size) fresh bytes, all 0.
inline PacketRing* ring_create(void* memory, uint32_t slots, uint32_t size) {
    PacketRing* ring = static_cast<PacketRing*>(memory);
    init_lock(&ring->lock);
    for (Seat& seat : ring->seat) init_seat(&seat);
    ring->header_bytes = sizeof(PacketRing);
    ring->slots = slots;
    ring->size = size;
    ring->magic.store(kRingMagic, std::memory_order_release);
    return ring;
}

// What is wrong with a ring found in `bytes` bytes; nullptr: nothing. Comes before take_side().
inline const char* ring_fault(const void* memory, size_t bytes) {
    const PacketRing* ring = static_cast<const PacketRing*>(memory);
    if (bytes < sizeof(PacketRing) || ring->magic.load(std::memory_order_acquire) != kRingMagic)
        return "holds no ring";
    if (ring->header_bytes != sizeof(PacketRing)) return "holds a ring of another program";
    const uint32_t slots = ring->slots, size = ring->size;
    const bool sound = slots > 0 && slots <= kMostSlots && size > 0 && size <= kMostSize;
    return sound && ring_bytes(slots, size) <= bytes ? nullptr : "holds a ring of impossible sizes";
}

// Where packet n lies. `slots` and `size` are copies that the caller took when it joined: if others
// damage the shared ones, it still stays inside.
inline Slot* slot_of(PacketRing* ring, uint64_t n, uint32_t slots, uint32_t size) {
    unsigned char* first = reinterpret_cast<unsigned char*>(ring + 1);
    return reinterpret_cast<Slot*>(first + n % slots * slot_bytes(size));
}

// Takes a side for this thread, until leave_side() or its death. Returns nullptr, or what prevents
// it.
inline const char* take_side(PacketRing* ring, Side side) {
    lock(&ring->lock);
    const uint64_t published = ring->published;
    // At most a full ring waits (less than nothing would be a huge number), and no count runs over.
    const bool sound = published - ring->handled <= ring->slots && published < UINT64_MAX / 2;
    const bool taken = sound && take_seat(&ring->seat[side]);
    unlock(&ring->lock);
    if (!sound) return "holds a ring of impossible counts";
    if (!taken) return side == kProducer ? "has a producer" : "has a consumer";
    return nullptr;
}

inline Presence find_side(PacketRing* ring, Side side) {
    lock(&ring->lock);
    const Presence presence = find_presence(&ring->seat[side]);
    unlock(&ring->lock);
    return presence;
}

// Gives a side up, and wakes the other. Returns how many packets wait.
inline uint64_t leave_side(PacketRing* ring, Side side) {
    lock(&ring->lock);
    leave_seat(&ring->seat[side]);
    wake(&ring->seat[!side]);
    const uint64_t waiting = ring->published - ring->handled;
    unlock(&ring->lock);
    return waiting;
}
