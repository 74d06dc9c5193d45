// How a ring lies in shared memory, and what an end of it knows: data only, no work is done here.
//
// Packets have numbers, from 0 on; packet n lies in slot n % slots. There are no pointers in shared
// memory, so each process may map it at another address.

#pragma once

#include <stdint.h>

#include <atomic>
#include <type_traits>

#include "presence.h"

constexpr uint32_t kRingMagic = 0x34474e52;                    // "RNG4" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

// What one side tells the other: the producer's seat and the consumer's, each on a cache line of
// its own, or a store to one would slow the work on the other (false sharing). Only the process
// whose seat it is stores there, but for `asleep`, which the other one sets back to wake it.
struct alignas(64) Seat {
    std::atomic<uint64_t> count;   // packets committed (the producer's), released (the consumer's)
    std::atomic<uint64_t> begun;   // the consumer's: `count`, or one more with one in hand
    std::atomic<uint64_t> slept;   // how often it slept
    std::atomic<uint32_t> visits;  // 0: nobody came yet; odd: one came; even: it left in order
    std::atomic<uint32_t> asleep;  // 1: it sleeps, or is about to
};
static_assert(std::atomic<uint64_t>::is_always_lock_free,
              "a lock inside would not be shared between processes");

// The head of a ring; the slots follow it.
struct Ring {
    uint32_t magic;                     // kRingMagic
    std::atomic<uint32_t> slots, size;  // how many; bytes of the largest packet
    // The producer's statistics: packets that it dropped; those of them larger than a slot.
    std::atomic<uint64_t> dropped, oversize;
    Seat seat[2];  // the producer's, the consumer's
};
static_assert(std::is_standard_layout<Ring>::value && sizeof(Ring) == 192,
              "laid out alike in every program");

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// Bytes from one slot to the next. Each begins on a cache line: one process writes to a slot while
// the other reads its neighbour. 64 bits: it is multiplied by `slots`.
inline uint64_t slot_bytes(uint32_t size) { return (sizeof(Slot) + uint64_t{size} + 63) / 64 * 64; }

// One end of a ring, in a process's own memory. In a ring of 8 slots, these packets may be
//
//     0 to 4      5          6 to 9     10         11 and 12    13
//     released    in hand    waiting    to fill    free         waits for the slot of 5
//
// Then the producer's `next` is 10, its `limit` 13; the consumer's `next` is 5, its `limit` 10. The
// limit is what this end saw when it last looked. The other may have moved on, never back: so an
// end looks again only when it has come to its limit.
struct End {
    Ring* ring = nullptr;
    int fd = -1;  // of the object, for the record locks
    Side side = kProducer;
    uint32_t slots = 0, size = 0;  // copies: if the shared ones are damaged, slot() stays inside
    uint64_t next = 0;             // the packet to fill, or to handle; also our count
    uint64_t limit = 0;            // the first packet that has no slot yet, or is not yet committed
    uint64_t told = 0;             // `next` at our last publish()
    Presence other = kNever;       // is the other side there? Set when we have waited in vain

    Side other_side() const { return side == kProducer ? kConsumer : kProducer; }
    Seat& mine() const { return ring->seat[side]; }
    Seat& theirs() const { return ring->seat[other_side()]; }
    Slot* slot() const {  // of packet `next`
        unsigned char* first = reinterpret_cast<unsigned char*>(ring + 1);
        return reinterpret_cast<Slot*>(first + next % slots * slot_bytes(size));
    }
};
