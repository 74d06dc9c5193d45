// A ring of packet slots in shared memory at work, for one producer and one consumer. Either may be
// killed at any instruction.
//
//     producer:  reserve() a slot, fill it, commit() it; publish() when the input pauses
//     consumer:  take() a packet, handle it where it lies, release() it
//
// The producer counts the packets that it has committed, the consumer those that it has released;
// what is between the two counts waits. Only its side stores a count, by one store after the work
// is done: so there is no lock, the ring is whole at every instant, and whoever takes a dead one's
// place goes on at its count.
//
// Read before: layout.h, with the picture of the ring and its two ends; turn.h. How a process gets
// its end of a ring, and what it must keep to, is in join.h.

#pragma once

#include <stdint.h>

#include <atomic>

#include "layout.h"
#include "sleep.h"
#include "turn.h"

// Stores our count, and wakes the other side if it sleeps: sleep.h, which also says why this store
// is sequentially consistent.
inline void publish(End* end) {
    end->told = end->next;
    end->mine().count = end->next;
    wake(&end->theirs());
}

// Counts one packet more, with memory_order_release: who sees the count, sees all that we did
// before. To wake the other side for each packet would cost a system call, and a switch of
// processes if both share a processor. So we do that only a quarter of the ring after the last
// publish().
//
// Still, the two never both sleep in wait(). Who sleeps has seen the other's last publish(), or is
// woken by it. From there the other can go on for a whole ring before it must sleep, too, but comes
// to publish() after a quarter, and wakes the first. (If it is killed before, a deadline comes.)
inline void advance(End* end) {
    ++end->next;
    end->mine().count.store(end->next, std::memory_order_release);
    if (end->next - end->told >= (end->slots + 3) / 4) publish(end);
}

// The slot to fill, the same until commit(). With a full ring it waits for at most `ms`
// milliseconds; nullptr: ask again.
inline Slot* reserve(End* producer, int ms) {
    return wait(producer, ms) ? producer->slot() : nullptr;
}

// The reserved slot holds a packet of `length` bytes, at most `size`: the consumer gets it,
// whatever becomes of us. But if it sleeps, it may go on sleeping until publish().
inline void commit(End* producer, uint32_t length, uint32_t tag = 0) {
    *producer->slot() = {length, tag};
    advance(producer);
}

// The next packet, the same until release(). With an empty ring it waits for at most `ms`
// milliseconds; nullptr: ask again, or end if gone(consumer->other).
inline Slot* take(End* consumer, int ms) {
    if (!wait(consumer, ms)) return nullptr;
    // If we die from here on, a successor finds one packet begun and not released, and can say that
    // it may be seen twice. A kill may come between any two stores. So the order counts: the last
    // count, begun, the handling. The release gives the first, the fence the second; that binds the
    // compiler only, as a kill does not undo what is stored.
    consumer->mine().begun.store(consumer->next + 1, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return consumer->slot();
}

// The packet in hand is handled. A successor begins behind it.
inline void release(End* consumer) { advance(consumer); }
