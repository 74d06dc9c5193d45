// A ring of packet slots in memory that two processes share: the producer fills slots in order, the
// consumer handles them in order. Where the memory comes from is the caller's business. Inside are
// counts and no pointers, so that each process may map it at another address.
//
//     producer: ring_join(), then reserve(), fill the slot, commit(); publish() when input pauses
//     consumer: ring_join(), then take(), handle the packet, release()
//
// Packets are handed over in batches, each under one lock. Who has nothing to do sleeps. Either may
// be killed at any instruction: a batch is handed over by one store to `published`, a packet is
// handled by one store to `handled`, and seat.h sees to the rest.

#pragma once

#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "seat.h"

constexpr uint32_t kRingMagic = 0x31474e52;                    // "RNG1" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

enum Side { kProducer, kConsumer };

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

struct PacketRing {
    std::atomic<uint32_t> magic;  // kRingMagic; stored last, so a half-made ring has none
    uint32_t header;              // sizeof(PacketRing): the layout that the maker's compiler chose
    uint32_t slots, size;         // how many; bytes of the largest packet
    pthread_mutex_t lock;         // guards who is there, who sleeps, `published` and `backlog`
    Seat seat[2];                 // by Side
    std::atomic<uint64_t> published;  // packets handed over since the ring was made; one store
    uint64_t backlog;                 // the most that ever waited
    // Only the producer stores these: packets that it had to drop; those larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    // Packets handled since the ring was made: only the consumer stores it, for each packet,
    // without the lock. So it has a cache line of its own.
    alignas(64) std::atomic<uint64_t> handled;
};  // the slots follow
static_assert(std::is_standard_layout<PacketRing>::value, "laid out alike in every program");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");

// One process's hold on the ring. Packets are numbered from 0 on, packet n is in slot n % slots. An
// example with 8 slots, in which packet 5 is being handled and packet 13 has come:
//
//     packet     5         6        7 to 11        12         13
//     slot       5         6       7, 0 to 3       4          5
//     state   in hand    taken     published   committed    no room
//
//     ring      handled 5, published 12
//     consumer  next 5, limit 7
//     producer  next 13, limit 13, published 12
//
// The sizes are copies: no later change of the shared ones can lead us outside the memory.
struct RingEnd {
    PacketRing* ring = nullptr;
    Side side = kProducer;
    uint32_t slots = 0, size = 0;
    uint64_t next = 0;         // the packet in hand
    uint64_t limit = 0;        // producer: the first that has no room; consumer: that is not taken
    uint64_t published = 0;    // producer: the first not yet handed over
    Presence before = kNever;  // the side's last holder, when this one came
    bool in_doubt = false;     // consumer: that one died, and may have handled the packet in hand
    Presence other = kNever;   // the other side, when it was last looked for
};

// Slots begin on cache lines: one process writes to a slot while the other reads its neighbour.
inline size_t slot_bytes(uint32_t size) { return (sizeof(Slot) + size + 63) / 64 * 64; }

// Bytes of memory for a ring.
inline size_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(PacketRing) + slots * slot_bytes(size);
}

inline Slot* slot_in_hand(const RingEnd& end) {
    unsigned char* slots = reinterpret_cast<unsigned char*>(end.ring + 1);
    return reinterpret_cast<Slot*>(slots + end.next % end.slots * slot_bytes(end.size));
}

// Makes a ring in ring_bytes(slots, size) fresh bytes, all 0.
inline PacketRing* ring_create(void* memory, uint32_t slots, uint32_t size) {
    PacketRing* ring = static_cast<PacketRing*>(memory);
    init_lock(&ring->lock);
    for (Seat& seat : ring->seat) init_seat(&seat);
    ring->header = sizeof(PacketRing);
    ring->slots = slots;
    ring->size = size;
    ring->magic.store(kRingMagic, std::memory_order_release);  // last: now it may be used
    return ring;
}

// What is wrong with a ring found in `bytes` bytes; nullptr: nothing. Comes before ring_join().
inline const char* ring_fault(const void* memory, size_t bytes) {
    const PacketRing* ring = static_cast<const PacketRing*>(memory);
    if (bytes < sizeof(PacketRing) || ring->magic.load(std::memory_order_acquire) != kRingMagic)
        return "holds no ring";
    if (ring->header != sizeof(PacketRing)) return "holds a ring of another program";
    const uint32_t slots = ring->slots, size = ring->size;
    const bool sound = slots > 0 && slots <= kMostSlots && size > 0 && size <= kMostSize;
    return sound && ring_bytes(slots, size) <= bytes ? nullptr : "holds a ring of impossible sizes";
}

// Takes a side's seat for this thread, until ring_leave() or its death. Returns nullptr, or what
// prevents it. A consumer after one that died begins with the packet that one may have had in hand.
inline const char* ring_join(RingEnd* end, PacketRing* ring, Side side) {
    const char* fault = nullptr;
    Seat* seat = &ring->seat[side];
    lock(&ring->lock);
    const uint64_t handled = ring->handled, published = ring->published;
    const Presence before = find_presence(seat);
    if (published - handled > ring->slots) fault = "holds a ring of impossible counts";
    if (before == kHere) fault = side == kProducer ? "has a producer" : "has a consumer";
    if (!fault) {
        lock(&seat->alive);
        seat->presence = kHere;
        *end = RingEnd();
        end->ring = ring;
        end->side = side;
        end->slots = ring->slots;
        end->size = ring->size;
        end->next = side == kProducer ? published : handled;
        end->limit = side == kProducer ? handled + ring->slots : handled;
        end->published = published;
        end->before = before;
        end->in_doubt = side == kConsumer && before == kDied;
    }
    unlock(&ring->lock);
    return fault;
}

// Producer: hands over what was committed since the last time.
inline void publish(RingEnd* end) {
    if (end->published == end->next) return;
    PacketRing* ring = end->ring;
    lock(&ring->lock);
    ring->backlog = std::max<uint64_t>(ring->backlog, end->next - ring->handled);
    ring->published = end->published = end->next;
    wake(&ring->seat[kConsumer]);
    unlock(&ring->lock);
}

// Producer: whether there is a free slot; looks anew if it knows of none.
inline bool has_room(RingEnd* end) {
    if (end->next == end->limit) end->limit = end->ring->handled + end->slots;
    return end->next < end->limit;
}

// Producer: the next free slot, the same until commit(). nullptr with a full ring, after `ms`
// milliseconds or sooner: ask again.
inline Slot* reserve(RingEnd* end, int ms) {
    if (has_room(end)) return slot_in_hand(*end);
    publish(end);
    Seat* seat = end->ring->seat;
    lock(&end->ring->lock);
    end->other = find_presence(&seat[kConsumer]);
    const bool full = !has_room(end);  // again, under the lock: now no wake can be missed
    if (full) fall_asleep(&seat[kProducer]);
    unlock(&end->ring->lock);
    if (full) sleep_on(&seat[kProducer], ms);
    return has_room(end) ? slot_in_hand(*end) : nullptr;
}

// Producer: the reserved slot holds a packet of `length` bytes. It is handed over with its batch, a
// quarter of the ring.
inline void commit(RingEnd* end, uint32_t length, uint32_t tag = 0) {
    *slot_in_hand(*end) = {length, tag};
    if (++end->next - end->published >= std::max(1u, end->slots / 4)) publish(end);
}

// Consumer: takes a batch, and wakes the producer if there is room enough. False if nothing waits;
// then we are about to sleep, unless the producer is gone.
inline bool take_batch(RingEnd* end) {
    PacketRing* ring = end->ring;
    Seat* seat = ring->seat;
    lock(&ring->lock);
    // Half a ring at a time, and the producer is woken when half is free: so both can work.
    const uint64_t waiting = ring->published - end->next, free = end->slots - waiting;
    const uint64_t half = (end->slots + 1) / 2;
    end->limit = end->next + std::min(waiting, half);
    if (free >= half) wake(&seat[kProducer]);
    if (waiting == 0) end->other = find_presence(&seat[kProducer]);
    if (waiting == 0 && !gone(end->other)) fall_asleep(&seat[kConsumer]);
    unlock(&ring->lock);
    return waiting > 0;
}

// Consumer: the next packet, the same until release(). nullptr without one: at once if the producer
// left or died, else after `ms` milliseconds or sooner: ask again.
inline Slot* take(RingEnd* end, int ms) {
    if (end->next < end->limit || take_batch(end)) return slot_in_hand(*end);
    if (gone(end->other)) return nullptr;
    sleep_on(&end->ring->seat[kConsumer], ms);
    return take_batch(end) ? slot_in_hand(*end) : nullptr;
}

// Consumer: the packet in hand is handled, for good: a successor begins behind it.
inline void release(RingEnd* end) {
    end->ring->handled.store(++end->next, std::memory_order_release);
    end->in_doubt = false;
}

// Gives the seat up; the producer hands over the rest. Returns how many packets wait. If `other` is
// not there either, the caller may remove the memory's name.
inline uint64_t ring_leave(RingEnd* end) {
    PacketRing* ring = end->ring;
    Seat *seat = &ring->seat[end->side], *other = &ring->seat[!end->side];
    if (end->side == kProducer) publish(end);
    lock(&ring->lock);
    end->other = find_presence(other);
    const uint64_t waiting = ring->published - ring->handled;
    seat->presence = end->in_doubt ? kDied : kLeft;  // the doubt is our successor's
    wake(other);
    unlock(&seat->alive);
    unlock(&ring->lock);
    return waiting;
}
