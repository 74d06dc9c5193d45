// A ring of packet slots in shared memory, for one producer and one consumer. Either may be killed
// at any instruction.
//
//     producer:  reserve() a slot, fill it, commit() it; publish() when the input pauses
//     consumer:  take() a packet, handle it where it lies, release() it
//
// Packets are numbered from 0 on; packet n lies in slot n % slots. Each side has one count, which
// only it stores: packets committed, packets released. What lies between the two counts waits. A
// count changes by one store, so nothing is ever half done, and no lock is needed: for a successor,
// work whose count was not stored has not happened.
//
// What the ring asks of its users:
// - Each end is in a process of its own, which opens the object once and keeps it open (seat.h).
// - commit() shows a packet to a consumer that looks, but does not wake one that sleeps until a
//   quarter of the ring has come together. So publish() when the input pauses.

#pragma once

#include <stdint.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <type_traits>

#include "seat.h"

constexpr uint32_t kRingMagic = 0x34474e52;                    // "RNG4" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// The head of the shared bytes; the slots follow. There are no pointers in it, so each process may
// map it at another address.
struct Ring {
    uint32_t magic;        // kRingMagic
    uint32_t slots, size;  // how many; bytes of the largest packet
    // The program's statistics, stored by the producer: packets that were dropped; those of them
    // larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    Seat seat[2];  // by Side
};
static_assert(std::is_standard_layout<Ring>::value && sizeof(Ring) == 192,
              "laid out alike in every program");

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

// One end of the ring, a process's own. In a ring of 8 slots:
//
//     0 to 4      5          6 to 9     10         11 and 12    13
//     released    in hand    waiting    to fill    free         no slot: 5 is there
//
// The producer's `next` is 10 and its `limit` 13, the consumer's are 5 and 10, if each knows the
// newest count of the other. Up to its limit, an end need not look at it.
struct End {
    Ring* ring = nullptr;
    int fd = -1;  // of the object, for the record locks
    Side side = kProducer;
    uint32_t slots = 0, size = 0;  // copies: whoever damages the shared ones, we stay inside
    uint64_t next = 0;             // the packet to fill, or to handle: our count, copied
    uint64_t limit = 0;            // the first without a slot, or not yet there
    uint64_t told = 0;             // `next` at the last publish()
    Presence other = kNever;       // when we last waited in vain

    Side other_side() const { return side == kProducer ? kConsumer : kProducer; }
    Seat& mine() const { return ring->seat[side]; }
    Seat& theirs() const { return ring->seat[other_side()]; }
    Slot* slot() const {
        unsigned char* first = reinterpret_cast<unsigned char*>(ring + 1);
        return reinterpret_cast<Slot*>(first + next % slots * slot_bytes(size));
    }
};

// Wakes the other side if it sleeps, so that it sees our count.
inline void publish(End* it) {
    it->told = it->next;
    wake(&it->theirs().asleep);
}

// One packet more is committed, or released. Who loads the new count (acquire, the default) also
// sees what we did to the slot before (release). To wake costs a system call, and a switch of
// processes if both share a processor: so it is done once for a quarter of the ring.
inline void advance(End* it) {
    ++it->next;
    it->mine().count.store(it->next, std::memory_order_release);
    if (it->next - it->told >= (it->slots + 3) / 4) publish(it);
}

// Looks how far the other side is; true: there is a slot, or a packet.
inline bool look(End* it) {
    it->limit = it->theirs().count + (it->side == kProducer ? it->slots : 0);
    return it->next < it->limit;
}

// Waits until there is a slot, or a packet, for at most `ms` milliseconds; false may also come
// early. The steps are those of seat.h.
inline bool wait(End* it, int ms) {
    if (it->next < it->limit || look(it)) return true;
    publish(it);  // or each could wait for the other
    Seat& mine = it->mine();
    mine.asleep = 1;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    // A consumer does not wait for a producer that has left.
    if (!look(it) && !(it->side == kConsumer && has_left(it->theirs()))) {
        mine.slept = mine.slept + 1;
        sleep_on(&mine.asleep, ms);
    }
    mine.asleep = 0;
    if (look(it)) return true;
    it->other = find_side(it->fd, it->theirs(), it->other_side());
    return look(it);  // once more: it may have told us its last and gone
}

// The slot to fill, the same until commit(). With a full ring it waits for at most `ms`
// milliseconds; nullptr: ask again.
inline Slot* reserve(End* producer, int ms) {
    return wait(producer, ms) ? producer->slot() : nullptr;
}

// The reserved slot holds a packet of `length` bytes now: the consumer's, whatever becomes of us.
inline void commit(End* producer, uint32_t length, uint32_t tag = 0) {
    *producer->slot() = {length, tag};
    advance(producer);
}

// The next packet, the same until release(). With an empty ring it waits for at most `ms`
// milliseconds; nullptr: ask again, or end if gone(consumer->other).
inline Slot* take(End* consumer, int ms) {
    if (!wait(consumer, ms)) return nullptr;
    // For a successor, after our death: begun and not released is what may be seen twice. To store
    // it comes after the last release() (release) and before the handling (the fence: the compiler
    // must not move it; what processors see of each other's stores plays no part).
    consumer->mine().begun.store(consumer->next + 1, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return consumer->slot();
}

// The packet in hand is handled, for good: a successor begins behind it.
inline void release(End* consumer) { advance(consumer); }

// Takes that side of the ring in the object behind `fd`, until ring_leave() or our death. Numbers
// go on behind the last packet that was committed, or released. Returns nullptr, or what prevents
// it.
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
    // that could run over; more than one packet begun and not released.
    const uint64_t committed = ring->seat[kProducer].count, released = ring->seat[kConsumer].count;
    const uint64_t in_hand = side == kConsumer ? it->mine().begun - released : 0;
    if (committed - released > it->slots || committed > UINT64_MAX / 2 || in_hand > 1) {
        lock_side(fd, F_UNLCK, side);
        return "holds a ring of impossible counts";
    }
    it->mine().asleep = 0;
    it->mine().stays = (it->mine().stays + 1) | 1;  // odd, and another number than before
    return nullptr;
}

// Gives the side up.
inline void ring_leave(End* it) {
    it->mine().stays = it->mine().stays + 1;
    wake(&it->theirs().asleep);
    lock_side(it->fd, F_UNLCK, it->side);
}

// How many packets wait.
inline uint64_t ring_waiting(const Ring* ring) {
    return ring->seat[kProducer].count - ring->seat[kConsumer].count;
}
