// A ring of packet slots in shared memory, for one producer and one consumer. Either may be killed
// at any instruction.
//
//     producer:  reserve() a slot, fill it, commit() it; publish() when the input pauses
//     consumer:  take() a packet, handle it where it lies, release() it
//
// No lock guards the ring. Each count has one writer and changes by one store: nothing is ever half
// done, and for a successor work whose count was not stored has not happened. What it asks of its
// users:
// - Each end is in a process of its own, which opens the object once and keeps it open (seat.h).
// - commit() without publish() holds a packet back: until a quarter of the ring is committed, or
//   the producer waits for a slot or leaves.

#pragma once

#include <stdint.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <type_traits>

#include "seat.h"

constexpr uint32_t kRingMagic = 0x33474e52;                    // "RNG3" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// The head of the shared bytes; the slots follow. There are no pointers in it, so each process may
// map it at another address.
struct Ring {
    std::atomic<uint32_t> magic;  // kRingMagic
    uint32_t header_bytes;        // the layout that the maker's compiler chose
    uint32_t slots, size;         // how many; bytes of the largest packet
    // The program's statistics, stored by the producer: packets that were dropped; those of them
    // larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    Seat seat[2];  // by Side
};
static_assert(std::is_standard_layout<Ring>::value, "laid out alike in every program");

// Slots begin on cache lines: one process writes to a slot while the other reads its neighbour. In
// 64 bits, also where size_t has 32.
inline uint64_t slot_bytes(uint32_t size) { return (sizeof(Slot) + uint64_t{size} + 63) / 64 * 64; }

// Bytes of memory for a ring.
inline uint64_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(Ring) + slots * slot_bytes(size);
}

// Makes a ring in ring_bytes(slots, size) bytes.
inline Ring* ring_create(void* memory, uint32_t slots, uint32_t size) {
    Ring* ring = new (memory) Ring();
    ring->header_bytes = sizeof(Ring);
    ring->slots = slots;
    ring->size = size;
    ring->magic = kRingMagic;
    return ring;
}

// What is wrong with a ring found in `bytes` bytes; nullptr: nothing. Comes before ring_join().
inline const char* ring_fault(const Ring* ring, uint64_t bytes) {
    if (bytes < sizeof(Ring) || ring->magic != kRingMagic) return "holds no ring";
    if (ring->header_bytes != sizeof(Ring)) return "holds a ring of another program";
    const uint32_t slots = ring->slots, size = ring->size;
    const bool sound = slots > 0 && slots <= kMostSlots && size > 0 && size <= kMostSize;
    return sound && ring_bytes(slots, size) == bytes ? nullptr : "holds a ring of impossible sizes";
}

// One end of the ring, a process's own. In both, [next, limit) need no look at the other's count.
//
// The producer's, in a ring of 8 slots; packets 0 to 4 were handled when it last looked, so limit
// is 5 + 8; told 10, next 11:
//
//     packet    5 to 9        10         11       12         13
//             published   committed   to fill    free   no slot: 5 is there
//
// The consumer's, when packets up to 9 were there when it last looked; next 5, limit 10. Its count
// is 5 (0 to 4 are handled), begun is 6 (5 is, too):
//
//     packet      4          5        6 to 9       10
//              handled    in hand     waiting    not yet there
struct End {
    Ring* ring = nullptr;
    int fd = -1;  // of the object, for the record locks
    Side side = kProducer;
    uint32_t slots = 0, size = 0;  // copies: whoever damages the shared ones, we stay inside
    uint64_t next = 0;             // the packet to fill, or to handle
    uint64_t limit = 0;            // the first without a slot, or not yet there
    uint64_t told = 0;        // `next` at the last tell(), which wakes; the producer's count is
                              // this, the consumer's goes on with each packet
    Presence other = kNever;  // when we last waited in vain

    Side other_side() const { return side == kProducer ? kConsumer : kProducer; }
    Seat& mine() const { return ring->seat[side]; }
    Seat& theirs() const { return ring->seat[other_side()]; }
    Slot* slot() const {  // packet n lies in slot n % slots
        unsigned char* first = reinterpret_cast<unsigned char*>(ring + 1);
        return reinterpret_cast<Slot*>(first + next % slots * slot_bytes(size));
    }
};

// Tells the other side how far we are, and wakes it if it sleeps.
//
// The sleeper stores `asleep` and then loads our count; we store the count and then load `asleep`.
// One of the two must see the other's store, or it would sleep and nobody wake it. Only
// sequentially consistent stores and loads promise that, and they are the default of std::atomic:
// here and in wake(), in wait() and look(), none of the four names another order. Such a store is a
// release, too: who sees our count also sees what we did before, filling or using the packet.
inline void tell(End* it) {
    if (it->told == it->next) return;
    it->told = it->next;
    it->mine().count = it->next;
    wake(&it->theirs().asleep);
}

// Loads how far the other side is; true: there is a slot, or a packet. The load is an acquire, too:
// with the count we see the other's work before it.
inline bool look(End* it) {
    const uint64_t count = it->theirs().count;
    it->limit = it->side == kProducer ? count + it->slots : count;
    const uint64_t waiting = it->side == kProducer ? it->next - count : count - it->next;
    if (waiting > it->mine().most.load(std::memory_order_relaxed))
        it->mine().most.store(waiting, std::memory_order_relaxed);
    return it->next < it->limit;
}

// Waits until there is a slot, or a packet, for at most `ms` milliseconds; false may also
// come early, by a late wake-up that was meant for the wait before. Each wait needs a deadline: the
// other side may be killed after it has cleared `asleep` and before it wakes us.
inline bool wait(End* it, int ms) {
    if (it->next < it->limit || look(it)) return true;
    tell(it);  // who may sleep holds nothing back
    Seat& mine = it->mine();
    // After a wait in vain it stays 1: the other side may make one system call too many, no harm.
    const bool again = mine.asleep.exchange(1) == 1;
    if (!look(it)) {
        // A consumer does not wait for a producer that has left.
        it->other = static_cast<Presence>(it->theirs().presence.load());
        if (it->side == kProducer || it->other != kLeft) {
            // Waits in a row count as one.
            if (!again) mine.slept.store(mine.slept + 1, std::memory_order_relaxed);
            sleep_on(&mine.asleep, ms);
            if (mine.asleep == 1)
                it->other = find_side(it->fd, it->theirs(), it->other_side());  // nobody woke us
        }
        // And look once more after we know who is there: it may have told us its last and gone.
        if (!look(it)) return false;
    }
    mine.asleep = 0;
    return true;
}

// The slot to fill, the same until commit(). With a full ring it waits for at most `ms`
// milliseconds; nullptr: ask again.
inline Slot* reserve(End* producer, int ms) {
    return wait(producer, ms) ? producer->slot() : nullptr;
}

// Hands over what was committed, and wakes the consumer.
inline void publish(End* producer) { tell(producer); }

// The reserved slot holds a packet of `length` bytes. A quarter of the ring is handed over as one.
inline void commit(End* producer, uint32_t length, uint32_t tag = 0) {
    *producer->slot() = {length, tag};
    ++producer->next;
    if (producer->next - producer->told >= std::max(1u, producer->slots / 4)) publish(producer);
}

// The next packet, the same until release(). With an empty ring it waits for at most `ms`
// milliseconds; nullptr: ask again, or end if gone(consumer->other).
inline Slot* take(End* consumer, int ms) {
    if (!wait(consumer, ms)) return nullptr;
    // Only a successor reads `begun`, after our death, and then all that we stored can be seen: no
    // order among processors is needed. But the compiler must keep ours: the last release(), this
    // store, the handling.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    consumer->mine().begun.store(consumer->next + 1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return consumer->slot();
}

// The packet in hand is handled, for good: a successor begins behind it. The producer is woken when
// half of the ring was freed, or we know of no more packets.
inline void release(End* consumer) {
    ++consumer->next;
    const uint64_t half = (consumer->slots + 1) / 2;
    if (consumer->next - consumer->told >= half || consumer->next == consumer->limit)
        tell(consumer);
    else  // the slot may be filled again when this is seen, so our reading of it comes before
        consumer->mine().count.store(consumer->next, std::memory_order_release);
}

// Takes that side of the ring in the object behind `fd`, until ring_leave() or our death. Numbers
// go on behind the last packet that was handed over, or handled; what a dead producer did not hand
// over is gone. Returns nullptr, or what prevents it.
inline const char* ring_join(End* it, int fd, Ring* ring, Side side) {
    if (!lock_side(fd, F_WRLCK, side))
        return side == kProducer ? "has a producer" : "has a consumer";
    *it = End();
    it->ring = ring;
    it->fd = fd;
    it->side = side;
    it->slots = ring->slots;
    it->size = ring->size;
    it->next = it->limit = it->told = it->mine().count;
    // Impossible: more packets waiting than slots (fewer than none is a huge number, too); a count
    // that could run over; more than one packet begun and not handled; an unknown presence.
    const uint64_t handed = ring->seat[kProducer].count, handled = ring->seat[kConsumer].count;
    const uint64_t in_hand = side == kConsumer ? it->mine().begun - handled : 0;
    if (handed - handled > it->slots || handed > UINT64_MAX / 2 || in_hand > 1 ||
        it->theirs().presence > kLeft) {
        lock_side(fd, F_UNLCK, side);
        return "holds a ring of impossible counts";
    }
    it->mine().asleep = 0;
    it->mine().holders = it->mine().holders + 1;
    it->mine().presence = kHere;
    return nullptr;
}

// Hands over the rest and gives the side up.
inline void ring_leave(End* it) {
    tell(it);
    it->mine().presence = kLeft;
    wake(&it->theirs().asleep);
    lock_side(it->fd, F_UNLCK, it->side);
}

// How many packets wait.
inline uint64_t ring_waiting(const Ring* ring) {
    return ring->seat[kProducer].count - ring->seat[kConsumer].count;
}
