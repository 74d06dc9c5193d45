// A ring of packet slots in shared memory, for one producer and one consumer. Either may be killed
// at any instruction.
//
//     producer:  reserve() a slot, fill it, commit() it; publish() when the input pauses
//     consumer:  take() a packet, handle it where it lies, release() it
//
// Packets have numbers, from 0 on; packet n lies in slot n % slots. The producer counts what it has
// committed, the consumer what it has released; what is between the two counts waits. Only its side
// stores a count, by one store after the work is done: so there is no lock, nothing is ever half
// done, and whoever takes a dead one's place goes on at its count.
//
// What the ring asks of its users:
// - Each end is in a process of its own, which opens the object once and keeps it open (seat.h),
//   and which forks no child afterwards: that would not have the side, and must not give it up.
// - The memory begins on a cache line, as what is mapped does.
// - commit() wakes a consumer that sleeps only for a quarter of the ring at a time; publish() wakes
//   it for less.

#pragma once

#include <stdint.h>

#include <atomic>
#include <type_traits>

#include "seat.h"

constexpr uint32_t kRingMagic = 0x34474e52;                    // "RNG4" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

// The ring in shared memory: this head, with a seat for each of the two sides, then the slots.
// There are no pointers in it, so each process may map it at another address.
struct Ring {
    uint32_t magic;                     // kRingMagic
    std::atomic<uint32_t> slots, size;  // how many; bytes of the largest packet
    // The producer's statistics: packets that it dropped; those of them larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    Seat seat[2];  // by Side
};
static_assert(std::is_standard_layout<Ring>::value && sizeof(Ring) == 192,
              "laid out alike in every program");

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// Bytes from one slot to the next. Each begins on a cache line: one process writes to a slot while
// the other reads its neighbour. In 64 bits, also where size_t has 32.
inline uint64_t slot_bytes(uint32_t size) { return (sizeof(Slot) + uint64_t{size} + 63) / 64 * 64; }

// One end of the ring, a process's own. In a ring of 8 slots:
//
//     0 to 4      5          6 to 9     10         11 and 12    13
//     released    in hand    waiting    to fill    free         no slot: 5 is there
//
// The producer's `next` is 10, and 13 is its `limit`; the consumer's are 5 and 10. A limit may be
// out of date, and is too small then: an end looks how far the other is when it has come to it.
struct End {
    Ring* ring = nullptr;
    int fd = -1;  // of the object, for the record locks
    Side side = kProducer;
    uint32_t slots = 0, size = 0;  // copies: whoever damages the shared ones, we stay inside
    uint64_t next = 0;             // the packet to fill, or to handle; also our count
    uint64_t limit = 0;            // the first packet without a slot, or not yet there
    uint64_t told = 0;             // `next` when we last woke the other, or saw that it is awake
    Presence other = kNever;       // as find_side() said when we last waited in vain

    Side other_side() const { return side == kProducer ? kConsumer : kProducer; }
    Seat& mine() const { return ring->seat[side]; }
    Seat& theirs() const { return ring->seat[other_side()]; }
    Slot* slot() const {
        unsigned char* first = reinterpret_cast<unsigned char*>(ring + 1);
        return reinterpret_cast<Slot*>(first + next % slots * slot_bytes(size));
    }
};

// Wakes the other side if it sleeps: it will see our count.
inline void publish(End* it) {
    it->told = it->next;
    wake(&it->theirs().asleep);
}

// Counts one packet more. Release, and in look() acquire: who sees the count also sees what we did
// before, filling or reading the slot. To wake costs a system call, and a switch of processes if
// both share a processor: so it is done for a quarter of the ring at once. (Who sleeps at a full
// ring, or at an empty one, is woken in time: the other has the whole ring to do.)
inline void advance(End* it) {
    ++it->next;
    it->mine().count.store(it->next, std::memory_order_release);
    if (it->next - it->told >= (it->slots + 3) / 4) publish(it);
}

// Looks how far the other side is; true: there is a slot, or a packet.
inline bool look(End* it) {
    const uint64_t count = it->theirs().count.load(std::memory_order_acquire);
    it->limit = count + (it->side == kProducer ? it->slots : 0);
    return it->next < it->limit;
}

// Waits until there is a slot, or a packet, for at most `ms` milliseconds; false may also come
// early. The steps 1 to 3 are those of seat.h.
inline bool wait(End* it, int ms) {
    if (it->next < it->limit || look(it)) return true;
    Seat& mine = it->mine();
    mine.asleep.store(1, std::memory_order_relaxed);  // 1
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool last = it->side == kConsumer && has_left(it->theirs());  // no more will come
    if (!look(it) && !last) {                                           // 2
        mine.slept = mine.slept + 1;
        sleep_on(&mine.asleep, ms);  // 3
    }
    mine.asleep.store(0, std::memory_order_relaxed);
    if (look(it)) return true;
    it->other = find_side(it->fd, it->theirs(), it->other_side());
    return look(it);  // before it went, it may have done something still
}

// The slot to fill, the same until commit(). With a full ring it waits for at most `ms`
// milliseconds; nullptr: ask again.
inline Slot* reserve(End* producer, int ms) {
    return wait(producer, ms) ? producer->slot() : nullptr;
}

// The reserved slot holds a packet of `length` bytes: the consumer gets it, whatever becomes of us.
inline void commit(End* producer, uint32_t length, uint32_t tag = 0) {
    *producer->slot() = {length, tag};
    advance(producer);
}

// The next packet, the same until release(). With an empty ring it waits for at most `ms`
// milliseconds; nullptr: ask again, or end if gone(consumer->other).
inline Slot* take(End* consumer, int ms) {
    if (!wait(consumer, ms)) return nullptr;
    // If we die now, a successor sees one packet begun and not released: it may be handled twice.
    // The store's order keeps it behind the last release(); the fence keeps the handling behind it.
    // Both are for the compiler: a successor comes after all that our processor has stored.
    consumer->mine().begun.store(consumer->next + 1, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return consumer->slot();
}

// The packet in hand is handled. A successor begins behind it.
inline void release(End* consumer) { advance(consumer); }
