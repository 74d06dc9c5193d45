// A ring of packet slots in shared memory, for one producer and one consumer. Either may be killed
// at any instruction.
//
//     producer:  reserve() a slot, fill it, commit() it; publish() when the input pauses
//     consumer:  take() a packet, handle it where it lies, release() it
//
// Packets have numbers, from 0 on; packet n lies in slot n % slots. The producer counts what it has
// committed, the consumer what it has released; what is between the two counts waits. Only its side
// stores a count, by one store after the work is done: so there is no lock, the ring is whole at
// every instant, and whoever takes a dead one's place goes on at its count.
//
// A side wakes the other not for each packet, but after a quarter of the ring. So the producer has
// to publish() when the input pauses, or fewer than that wait beside a consumer that sleeps. The
// consumer need not: before it sleeps it has emptied the ring, and so has woken the producer.
//
// Read before: head.h, with what the two sides tell each other in shared memory (each has a seat
// there, with its count); presence.h; sleep.h. How a process gets its end of a ring, and what it
// must keep to, is in join.h.

#pragma once

#include <stdint.h>

#include <atomic>

#include "head.h"
#include "presence.h"
#include "sleep.h"

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// Bytes from one slot to the next. Each begins on a cache line: one process writes to a slot while
// the other reads its neighbour. In 64 bits, also where size_t has 32.
inline uint64_t slot_bytes(uint32_t size) { return (sizeof(Slot) + uint64_t{size} + 63) / 64 * 64; }

// One end of the ring, a process's own. In a ring of 8 slots, these packets may be
//
//     0 to 4      5          6 to 9     10         11 and 12    13
//     released    in hand    waiting    to fill    free         no slot: 5 is there
//
// Then the producer's `next` is 10, and 13 is its `limit`; the consumer's are 5 and 10. The limit
// is what this end saw when it last looked. The other may be further by now, never less far: so an
// end looks again only when it has come to its limit.
struct End {
    Ring* ring = nullptr;
    int fd = -1;  // of the object, for the record locks
    Side side = kProducer;
    uint32_t slots = 0, size = 0;  // copies: whoever damages the shared ones, we stay inside
    uint64_t next = 0;             // the packet to fill, or to handle; also our count
    uint64_t limit = 0;            // the first packet without a slot, or not yet there
    uint64_t told = 0;             // `next` when we last woke the other, or saw that it is awake
    Presence other = kNever;       // is the other side there? As of our last wait in vain

    Side other_side() const { return side == kProducer ? kConsumer : kProducer; }
    Seat& mine() const { return ring->seat[side]; }
    Seat& theirs() const { return ring->seat[other_side()]; }
    Slot* slot() const {  // of packet `next`
        unsigned char* first = reinterpret_cast<unsigned char*>(ring + 1);
        return reinterpret_cast<Slot*>(first + next % slots * slot_bytes(size));
    }
};

// Looks how far the other side is; true: there is a slot, or a packet. The load is sequentially
// consistent, for wait(), and so an acquire, too. It meets the release in advance(), below: the
// consumer, when it sees the count, finds the packet whole, and the producer a slot that nobody
// reads any more.
inline bool look(End* end) {
    const uint64_t count = end->theirs().count;
    end->limit = count + (end->side == kProducer ? end->slots : 0);
    return end->next < end->limit;
}

// Wakes the other side if it sleeps. advance() has stored our count as a release: that is cheap,
// but too weak for sleep.h. So this stores it once more, sequentially consistent.
inline void publish(End* end) {
    end->told = end->next;
    end->mine().count = end->next;
    wake(&end->theirs().asleep);
}

// Counts one packet more. To wake costs a system call, and a switch of processes if both share a
// processor: so it is done once for a quarter of the ring. The two never sleep both. The consumer
// sleeps only at an empty ring: from there the producer has all slots to fill before it sleeps, and
// on the way `next` comes a quarter beyond `told`. Likewise the producer, at a full ring.
inline void advance(End* end) {
    ++end->next;
    end->mine().count.store(end->next, std::memory_order_release);
    if (end->next - end->told >= (end->slots + 3) / 4) publish(end);
}

// Waits until there is a slot, or a packet, for at most `ms` milliseconds. False, which may also
// come early: there is none, and `other` says who is there. Who leaves wakes us; a death is found
// at the deadline.
inline bool wait(End* end, int ms) {
    if (end->next < end->limit || look(end)) return true;
    Seat& mine = end->mine();
    mine.asleep = 1;  // and look again: sleep.h
    // That the producer has left is news for a consumer. A producer waits for the next consumer.
    const bool no_more = end->side == kConsumer && has_left(end->theirs().visits);
    if (!look(end) && !no_more) {
        mine.slept = mine.slept + 1;
        sleep_on(&mine.asleep, ms);
    }
    mine.asleep = 0;
    if (look(end)) return true;
    end->other = find_side(end->fd, end->theirs().visits, end->other_side());
    return look(end);  // between our last look and find_side() it may have counted, and gone
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
    // If we die from here on, a successor sees one packet begun and not released, and says that it
    // may be seen twice. It looks after our end, when all that our processor stored is there: so
    // only the compiler could bring a wrong order. Against that, memory_order_release keeps this
    // store behind that of the last count, or two packets would seem to be in hand; and the fence
    // keeps it before the handling.
    consumer->mine().begun.store(consumer->next + 1, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return consumer->slot();
}

// The packet in hand is handled. A successor begins behind it.
inline void release(End* consumer) { advance(consumer); }
