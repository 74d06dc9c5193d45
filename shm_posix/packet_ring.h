// A ring of packet slots in memory that two processes share: the producer fills slots in order, the
// consumer handles them in order. Where the memory comes from is the caller's business. Inside are
// counts and no pointers, so that each process may map it at another address.
//
//     producer: ring_join(), then reserve(), fill the slot, commit(); publish() when input pauses
//     consumer: ring_join(), then take(), handle the packet, release()
//
// Packets are handed over in batches, each under one lock. Who has nothing to do sleeps. Either may
// be killed at any instruction: the locks are robust [pthread_mutexattr_setrobust(3)], a batch is
// handed over by one store to `published`, a packet is handled by one store to `handled`, and a
// sleeper or waker that dies leaves no more than a count of a semaphore behind.

#pragma once

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <type_traits>

constexpr uint32_t kRingMagic = 0x31474e52;                    // "RNG1" on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20, kMostSize = 1 << 16;  // slots; bytes of a packet

enum Side { kProducer, kConsumer };
enum Presence : uint32_t { kNever, kHere, kLeft, kDied };

// A packet's place; its bytes follow. `tag` is for the programs: what kind of packet this is.
struct Slot {
    uint32_t length, tag;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }
};

// One side's part of the shared state.
struct Seat {
    pthread_mutex_t alive;  // held as long as the side is there; its death is EOWNERDEAD
    Presence presence;
    // The side waits for `wake`, or is about to. Not a pthread_cond_t: it may stay unusable when
    // one who waits in it is killed (docs/failures dead-waiter shows it).
    bool asleep;
    sem_t wake;
    uint64_t slept;  // times, however long
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
// example with 4 slots, in which packet 5 is being handled and packet 9 has come:
//
//     packet     5          6         7           8           9
//     slot       1          2         3           0           1
//     state   in hand     taken   published   committed    no room
//
//     ring      handled 5, published 8
//     consumer  next 5, limit 7
//     producer  next 9, limit 9, published 8
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
    Presence other = kNever;   // the other side, when last there was nothing to reserve or take
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
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    for (auto mutex : {&ring->lock, &ring->seat[0].alive, &ring->seat[1].alive})
        if ((errno = pthread_mutex_init(mutex, &shared)) != 0) err(1, "pthread_mutex_init");
    for (Seat& seat : ring->seat)
        if (sem_init(&seat.wake, 1, 0) == -1) err(1, "sem_init");  // 1: for several processes
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

// A dead owner leaves what the lock guards as consistent as ever: see above.
inline void lock(pthread_mutex_t* mutex) {
    errno = pthread_mutex_lock(mutex);
    if (errno == EOWNERDEAD) errno = pthread_mutex_consistent(mutex);
    if (errno != 0) err(1, "pthread_mutex_lock");
}

inline void unlock(pthread_mutex_t* mutex) { pthread_mutex_unlock(mutex); }

// Is that side there? Notes it if it died. With the ring's lock held.
inline Presence find_presence(Seat* seat) {
    if (seat->presence == kHere && pthread_mutex_trylock(&seat->alive) != EBUSY) {
        pthread_mutex_consistent(&seat->alive);
        unlock(&seat->alive);
        seat->presence = kDied;
    }
    return seat->presence;
}

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

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
        const uint64_t next = side == kProducer ? published : handled;
        const uint64_t limit = side == kProducer ? handled + ring->slots : handled;
        *end = {ring, side, ring->slots, ring->size, next, limit, published, before, kNever};
    }
    unlock(&ring->lock);
    return fault;
}

// The two steps of going to sleep: the first with the lock held, so that no wake() can be missed,
// the second without it. At most `ms` milliseconds: the waker may die before it wakes anybody. Not
// sem_timedwait(3): its clock can be set back, and the sleep would be longer.
inline void fall_asleep(Seat* seat) {
    if (!seat->asleep) ++seat->slept;
    seat->asleep = true;
}
inline void sleep_on(Seat* seat, int ms) {
    timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const long ns = until.tv_nsec + ms % 1000 * 1000000L;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    sem_clockwait(&seat->wake, CLOCK_MONOTONIC, &until);
}

// With the ring's lock held.
inline void wake(Seat* seat) {
    if (seat->asleep) sem_post(&seat->wake);
    seat->asleep = false;
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
    const bool full = !has_room(end);
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

// Consumer: takes what waits; false: nothing does.
inline bool fetch(RingEnd* end) {
    PacketRing* ring = end->ring;
    Seat* seat = ring->seat;
    lock(&ring->lock);
    // Half a ring at a time, and the producer is woken when half is free: so both can work.
    const uint64_t waiting = ring->published - end->next, half = (end->slots + 1) / 2;
    end->limit = end->next + std::min(waiting, half);
    if (end->slots - waiting >= half) wake(&seat[kProducer]);
    if (waiting == 0) end->other = find_presence(&seat[kProducer]);
    if (waiting == 0 && !gone(end->other)) fall_asleep(&seat[kConsumer]);
    unlock(&ring->lock);
    return waiting > 0;
}

// Consumer: the next packet, the same until release(). nullptr without one: at once if the producer
// left or died, else after `ms` milliseconds or sooner: ask again.
inline Slot* take(RingEnd* end, int ms) {
    if (end->next < end->limit || fetch(end)) return slot_in_hand(*end);
    if (gone(end->other)) return nullptr;
    sleep_on(&end->ring->seat[kConsumer], ms);
    return fetch(end) ? slot_in_hand(*end) : nullptr;
}

// Consumer: the packet in hand is handled, for good: a successor begins behind it.
inline void release(RingEnd* end) {
    end->ring->handled.store(++end->next, std::memory_order_release);
    end->before = kLeft;  // what a dead predecessor had in hand is behind us
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
    // A successor must know of a packet that may have been handled, even if we never came to it.
    seat->presence = end->side == kConsumer && end->before == kDied ? kDied : kLeft;
    wake(other);
    unlock(&seat->alive);
    unlock(&ring->lock);
    return waiting;
}
