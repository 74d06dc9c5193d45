// A process's end of a packet ring: the producer fills slots in order, the consumer handles them in
// order.
//
//     producer: ring_join(), then reserve(), fill the slot, commit(); publish() when input pauses
//     consumer: ring_join(), then take(), handle the packet, release()
//
// Packets are handed over in batches, each under one lock. Who has nothing to do sleeps.

#pragma once

#include <algorithm>

#include "packet_ring.h"

// In a ring of 8 slots packet 5 is being handled, and the producer fills a slot with packet 12:
//
//     packet      5          6, 7        8 to 10       11          12
//              in hand      taken       published   committed    in hand
//
//     ring       published 11, begun 6, handled 5
//     consumer   next 5, limit 8
//     producer   next 12, limit 13 (the slot of packet 13 is that of 5), published 11
struct RingEnd {
    PacketRing* ring = nullptr;
    Side side = kProducer;
    uint32_t slots = 0, size = 0;  // copies: no later change of the shared ones leads us outside
    uint64_t next = 0;             // the packet in hand
    uint64_t limit = 0;      // the first for which we need the lock: it has no slot, or is not taken
    uint64_t published = 0;  // producer: the first not handed over
    Presence other = kNever;  // the other side, when last looked for
};

inline Slot* slot_in_hand(const RingEnd& end) {
    unsigned char* slots = reinterpret_cast<unsigned char*>(end.ring + 1);
    return reinterpret_cast<Slot*>(slots + end.next % end.slots * slot_bytes(end.size));
}

// Takes a side of the ring for this thread, until ring_leave() or its death. Goes on where the
// side's last holder ended. Returns nullptr, or what prevents it.
inline const char* ring_join(RingEnd* end, PacketRing* ring, Side side) {
    const char* fault = nullptr;
    Seat* seat = &ring->seat[side];
    lock(&ring->lock);
    const uint64_t handled = ring->handled, published = ring->published;
    if (published - handled > ring->slots)
        fault = "holds a ring of impossible counts";
    else if (!take_seat(seat))
        fault = side == kProducer ? "has a producer" : "has a consumer";
    if (!fault) {
        *end = RingEnd();
        end->ring = ring;
        end->side = side;
        end->slots = ring->slots;
        end->size = ring->size;
        end->next = end->limit = side == kProducer ? published : handled;
        end->published = published;
        end->other = find_presence(&ring->seat[!side]);
    }
    unlock(&ring->lock);
    return fault;
}

// Producer: hands over what was committed since the last time, and wakes the consumer.
inline void publish(RingEnd* end) {
    if (end->published == end->next) return;
    PacketRing* ring = end->ring;
    lock(&ring->lock);
    ring->backlog = std::max<uint64_t>(ring->backlog, end->next - ring->handled);
    ring->published = end->published = end->next;
    wake(&ring->seat[kConsumer]);
    unlock(&ring->lock);
}

// Producer: the next free slot, the same until commit(). With a full ring it sleeps for at most
// `ms` milliseconds; nullptr: ask again.
inline Slot* reserve(RingEnd* end, int ms) {
    if (end->next == end->limit) {
        PacketRing* ring = end->ring;
        publish(end);  // before we sleep: or both might wait for each other
        lock(&ring->lock);
        end->other = find_presence(&ring->seat[kConsumer]);
        if (end->next - ring->handled == end->slots)
            sleep_on(&ring->seat[kProducer], &ring->lock, ms);
        end->limit = ring->handled + end->slots;
        unlock(&ring->lock);
    }
    return end->next < end->limit ? slot_in_hand(*end) : nullptr;
}

// Producer: the reserved slot holds a packet of `length` bytes. It is handed over with its batch, a
// quarter of the ring.
inline void commit(RingEnd* end, uint32_t length, uint32_t tag = 0) {
    *slot_in_hand(*end) = {length, tag};
    if (++end->next - end->published >= std::max(1u, end->slots / 4)) publish(end);
}

// Consumer: the next packet, the same until release(). Without one it sleeps for at most `ms`
// milliseconds, unless the producer is gone; nullptr: ask again, or see `other`.
inline Slot* take(RingEnd* end, int ms) {
    PacketRing* ring = end->ring;
    if (end->next == end->limit) {
        // Half a ring at a time, and the producer is woken when half is free: so both can work.
        const uint64_t half = (end->slots + 1) / 2;
        lock(&ring->lock);
        if (end->slots - (ring->published - end->next) >= half) wake(&ring->seat[kProducer]);
        if (ring->published == end->next) {
            end->other = find_presence(&ring->seat[kProducer]);
            if (!gone(end->other)) sleep_on(&ring->seat[kConsumer], &ring->lock, ms);
        }
        end->limit = end->next + std::min(ring->published - end->next, half);
        unlock(&ring->lock);
        if (end->next == end->limit) return nullptr;
    }
    ring->begun.store(end->next + 1, std::memory_order_relaxed);
    return slot_in_hand(*end);
}

// Consumer: the packet in hand is handled, for good: a successor begins behind it.
inline void release(RingEnd* end) {
    end->ring->handled.store(++end->next, std::memory_order_release);
}

// Gives the side up; the producer hands over the rest. Returns how many packets wait. If `other` is
// not there either, the caller may remove the memory's name.
inline uint64_t ring_leave(RingEnd* end) {
    PacketRing* ring = end->ring;
    if (end->side == kProducer) publish(end);
    lock(&ring->lock);
    end->other = find_presence(&ring->seat[!end->side]);
    const uint64_t waiting = ring->published - ring->handled;
    leave_seat(&ring->seat[end->side]);
    wake(&ring->seat[!end->side]);
    unlock(&ring->lock);
    return waiting;
}
