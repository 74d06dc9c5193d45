// The producer's end of a packet ring: reserve() a slot, fill it, commit() it; publish() when the
// input pauses. Packets are handed over in batches, each under one lock.

#pragma once

#include <algorithm>

#include "ring.h"

// In a ring of 8 slots, of which the consumer had freed those of packets 0 to 4 when we last
// looked:
//
//     packet    5 to 9        10         11       12         13
//             published   committed   to fill    free   no slot: 5 is there
//
//     published 10, next 11, limit 13
struct Producer {
    PacketRing* ring = nullptr;
    uint32_t slots = 0, size = 0;
    uint64_t published = 0;      // the first packet not handed over
    uint64_t next = 0;           // the one to fill
    uint64_t limit = 0;          // the first without a slot, when we last looked
    Presence consumer = kNever;  // when we last found the ring full
};

// Takes the side. Numbers go on behind the last packet that was handed over; what a dead producer
// did not hand over is gone. Returns nullptr, or what prevents it.
inline const char* ring_join(Producer* it, PacketRing* ring) {
    if (const char* fault = take_side(ring, kProducer)) return fault;
    *it = Producer();
    it->ring = ring;
    it->slots = ring->slots;
    it->size = ring->size;
    it->published = it->next = it->limit = ring->published;
    return nullptr;
}

// Hands over what was committed since the last time, and wakes the consumer.
inline void publish(Producer* it) {
    if (it->published == it->next) return;
    PacketRing* ring = it->ring;
    lock(&ring->lock);
    ring->backlog = std::max<uint64_t>(ring->backlog, it->next - ring->handled);
    ring->published = it->published = it->next;
    wake(&ring->seat[kConsumer]);
    unlock(&ring->lock);
}

// The slot to fill, the same until commit(). With a full ring it sleeps for at most `ms`
// milliseconds; nullptr: ask again.
inline Slot* reserve(Producer* it, int ms) {
    if (it->next >= it->limit) {
        PacketRing* ring = it->ring;
        publish(it);  // who may sleep holds nothing back
        lock(&ring->lock);
        if (it->next - ring->handled >= it->slots) {
            it->consumer = find_presence(&ring->seat[kConsumer]);
            sleep_on(&ring->seat[kProducer], &ring->lock, ms);
        }
        it->limit = ring->handled + it->slots;
        unlock(&ring->lock);
    }
    return it->next < it->limit ? slot_of(it->ring, it->next, it->slots, it->size) : nullptr;
}

// The reserved slot holds a packet of `length` bytes.
inline void commit(Producer* it, uint32_t length, uint32_t tag = 0) {
    *slot_of(it->ring, it->next, it->slots, it->size) = {length, tag};
    ++it->next;
    const uint64_t batch = std::max(1u, it->slots / 4);
    if (it->next - it->published >= batch) publish(it);
}

// Hands over the rest and gives the side up. Returns how many packets wait.
inline uint64_t ring_leave(Producer* it) {
    publish(it);
    return leave_side(it->ring, kProducer);
}
