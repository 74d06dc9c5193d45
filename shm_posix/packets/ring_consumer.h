// The consumer's end of a packet ring: take() a packet, handle it where it lies, release() it.

#pragma once

#include <algorithm>

#include "ring.h"

// In a ring of 8 slots, where we took packets 4 to 7 as one batch:
//
//     packet      4          5          6, 7      8 to 10
//              handled    in hand      taken      published
//
//     next 5, limit 8; shared: handled 5, begun 6, published 11
struct Consumer {
    PacketRing* ring = nullptr;
    uint32_t slots = 0, size = 0;
    uint64_t next = 0;           // the packet in hand, or to be taken in hand
    uint64_t limit = 0;          // behind the last of the batch
    Presence producer = kNever;  // when we last found the ring empty
};

// Takes the side. Begins with the first packet that is not handled, which a dead consumer may have
// begun. Returns nullptr, or what prevents it.
inline const char* ring_join(Consumer* it, PacketRing* ring) {
    if (const char* fault = take_side(ring, kConsumer)) return fault;
    *it = Consumer();
    it->ring = ring;
    it->slots = ring->slots;
    it->size = ring->size;
    it->next = it->limit = ring->handled;
    return nullptr;
}

// The next packet, the same until release(). Without one it sleeps for at most `ms` milliseconds,
// unless the producer is gone. nullptr: ask again, or end if gone(producer).
//
// release() wakes nobody. A producer that sleeps is woken here, when half of the ring is free: a
// full ring gives us a batch of half a ring, and after that batch we are here again.
inline Slot* take(Consumer* it, int ms) {
    PacketRing* ring = it->ring;
    if (it->next == it->limit) {
        const uint64_t half = (it->slots + 1) / 2;
        lock(&ring->lock);
        const uint64_t free = it->slots - (ring->published - it->next);
        if (free >= half) wake(&ring->seat[kProducer]);
        if (ring->published == it->next) {
            it->producer = find_presence(&ring->seat[kProducer]);
            if (!gone(it->producer)) sleep_on(&ring->seat[kConsumer], &ring->lock, ms);
        }
        it->limit = it->next + std::min(ring->published - it->next, half);
        unlock(&ring->lock);
        if (it->next == it->limit) return nullptr;
    }
    ring->begun.store(it->next + 1, std::memory_order_relaxed);  // read only by a successor
    return slot_of(ring, it->next, it->slots, it->size);
}

// The packet in hand is handled, for good: its slot is free, a successor begins behind it.
inline void release(Consumer* it) {
    it->ring->handled.store(++it->next, std::memory_order_release);
}

// Gives the side up. Returns how many packets wait.
inline uint64_t ring_leave(Consumer* it) { return leave_side(it->ring, kConsumer); }
