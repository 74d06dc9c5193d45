// A ring made or found in memory, and a side of it taken and given up.
//
// Each end is in a process of its own, which opens the object once and keeps it open (presence.h).
// Once it has a side it must not fork: a child would use it without its lock.

#pragma once

#include <stdint.h>

#include <atomic>
#include <new>

#include "ring.h"

// Bytes of memory for a ring.
inline uint64_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(Ring) + slots * slot_bytes(size);
}

// Makes a ring in ring_bytes(slots, size) bytes, aligned to 64, as memory from mmap(2) is. Returns
// an end of it, which has no side yet. Nobody else may open it before this returns.
inline End ring_create(void* memory, uint32_t slots, uint32_t size) {
    End it;
    it.ring = new (memory) Ring();
    it.ring->slots = it.slots = slots;
    it.ring->size = it.size = size;
    it.ring->magic = kRingMagic;
    return it;
}

// The same for a ring found in `bytes` bytes. Returns nullptr, or what is wrong with it.
inline const char* ring_open(End* end, void* memory, uint64_t bytes) {
    end->ring = static_cast<Ring*>(memory);
    if (bytes < sizeof(Ring) || end->ring->magic != kRingMagic) return "holds no ring";
    // Each is read once: what we check is what we use, whoever changes them meanwhile.
    const uint32_t slots = end->ring->slots;
    const uint32_t size = end->ring->size;
    end->slots = slots;
    end->size = size;
    const bool sound = slots > 0 && slots <= kMostSlots && size > 0 && size <= kMostSize;
    return sound && ring_bytes(slots, size) == bytes ? nullptr : "holds a ring of impossible sizes";
}

// Takes that side of the ring, which is in the object behind `fd`, until ring_leave() or our death,
// and goes on at its count. Returns nullptr, or what prevents it.
inline const char* ring_join(End* end, int fd, Side side) {
    if (!lock_side(fd, F_WRLCK, side))
        return side == kProducer ? "has a producer" : "has a consumer";
    end->fd = fd;
    end->side = side;
    end->other = kNever;
    end->next = end->limit = end->told = end->mine().count;
    // These checks hold while the other side works. But a working consumer may change `begun` and
    // its count between our two reads: so only a joining consumer looks whether more than one
    // packet is begun and not released.
    const uint64_t committed = end->ring->seat[kProducer].count;
    const uint64_t released = end->ring->seat[kConsumer].count;
    const uint64_t in_hand = side == kConsumer ? end->mine().begun - released : 0;
    if (released > committed || committed - released > end->slots || committed > UINT64_MAX / 2 ||
        in_hand > 1) {
        lock_side(fd, F_UNLCK, side);
        return "holds a ring of impossible counts";
    }
    end->mine().asleep = 0;
    end->mine().visits = (end->mine().visits + 1) | 1;  // odd, also after one that died
    return nullptr;
}

// Gives the side up: makes `visits` even, wakes the other side to see it, and unlocks last. In
// between we seem to have left, not to be dead (presence.h).
inline void ring_leave(End* end) {
    end->mine().visits = end->mine().visits + 1;
    wake(&end->theirs());
    lock_side(end->fd, F_UNLCK, end->side);
}

// How many packets are committed and not released, while neither side is at work.
inline uint64_t ring_waiting(const Ring* ring) {
    return ring->seat[kProducer].count - ring->seat[kConsumer].count;
}
