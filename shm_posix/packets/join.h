// A ring made or found in memory, and a side of it taken and given up.
//
// Each end is in a process of its own, which opens the object once and keeps it open (presence.h),
// and which forks no child once it has a side: that would not have the side, and must not give it
// up.

#pragma once

#include <stdint.h>

#include <atomic>
#include <new>

#include "ring.h"

// Bytes of memory for a ring.
inline uint64_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(Ring) + slots * slot_bytes(size);
}

// Makes a ring in ring_bytes(slots, size) bytes, which begin on a cache line, as what is mapped
// does. Returns an end of it, which has no side yet.
inline End ring_create(void* memory, uint32_t slots, uint32_t size) {
    End it;
    it.ring = new (memory) Ring();
    it.ring->slots = it.slots = slots;
    it.ring->size = it.size = size;
    it.ring->magic = kRingMagic;
    return it;
}

// The same for a ring found in `bytes` bytes. Returns nullptr, or what is wrong with it.
inline const char* ring_open(End* it, void* memory, uint64_t bytes) {
    it->ring = static_cast<Ring*>(memory);
    if (bytes < sizeof(Ring) || it->ring->magic != kRingMagic) return "holds no ring";
    // Each is read once: what we check is what we use, whoever changes them meanwhile.
    const uint32_t slots = it->ring->slots;
    const uint32_t size = it->ring->size;
    it->slots = slots;
    it->size = size;
    const bool sound = slots > 0 && slots <= kMostSlots && size > 0 && size <= kMostSize;
    return sound && ring_bytes(slots, size) == bytes ? nullptr : "holds a ring of impossible sizes";
}

// Takes that side of the ring, which is in the object behind `fd`, until ring_leave() or our death,
// and goes on at its count. Returns nullptr, or what prevents it.
inline const char* ring_join(End* it, int fd, Side side) {
    if (!lock_side(fd, F_WRLCK, side))
        return side == kProducer ? "has a producer" : "has a consumer";
    it->fd = fd;
    it->side = side;
    it->other = kNever;
    it->next = it->limit = it->told = it->mine().count;
    // Impossible: more packets waiting than slots (fewer than none is a huge number, too); a count
    // near its overflow; more than one packet begun and not released. (Who joins as the
    // producer does not ask for that: the consumer may be at work.)
    const uint64_t committed = it->ring->seat[kProducer].count;
    const uint64_t released = it->ring->seat[kConsumer].count;
    const uint64_t in_hand = side == kConsumer ? it->mine().begun - released : 0;
    if (committed - released > it->slots || committed > UINT64_MAX / 2 || in_hand > 1) {
        lock_side(fd, F_UNLCK, side);
        return "holds a ring of impossible counts";
    }
    it->mine().asleep = 0;
    it->mine().visits = (it->mine().visits + 1) | 1;  // odd, also after one that died
    return nullptr;
}

// Gives the side up.
inline void ring_leave(End* it) {
    it->mine().visits = it->mine().visits + 1;
    wake(&it->theirs().asleep);
    lock_side(it->fd, F_UNLCK, it->side);
}

// How many packets wait.
inline uint64_t ring_waiting(const Ring* ring) {
    return ring->seat[kProducer].count - ring->seat[kConsumer].count;
}
