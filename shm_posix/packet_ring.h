// A ring of packet slots in memory that two processes share: one producer fills slots in order, one
// consumer handles them in order. Where the memory comes from is the caller's business; inside are
// offsets and counts, no pointers, so that each process may map it at another address.
//
//     producer: ring_join(), then reserve(), fill the slot, commit(); publish() when input pauses
//     consumer: ring_join(), then take(), handle the packet, release()
//
// Packets are handed over in batches, each under one lock. Whoever has nothing to do sleeps in the
// kernel. Either process may die at any instruction: the locks are robust [pthread_mutexattr_
// setrobust(3)], `published` grows by one store under the lock, `handled` by one store per packet.

#pragma once

#include <err.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <type_traits>

constexpr uint32_t kRingMagic = 0x31474e52;  // "RNG1" in memory on a little-endian machine
constexpr uint32_t kMostSlots = 1 << 20;
constexpr uint32_t kMostSize = 1 << 16;  // bytes of a packet

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
    pid_t pid;
    // 1 while the side sleeps, or is about to; it waits on this word [futex(2)]. Not a
    // pthread_cond_t: that counts its waiters, and one killed by SIGKILL stays counted, so that a
    // later pthread_cond_signal waits for it for ever. A futex keeps no state outside this word.
    std::atomic<uint32_t> asleep;
    uint64_t slept;  // times
};

struct PacketRing {
    std::atomic<uint32_t> magic;  // kRingMagic while in use; 0 before and after
    uint32_t header;              // sizeof(PacketRing): the layout that the maker's compiler chose
    uint32_t slots, size;         // how many; bytes of the largest packet
    pthread_mutex_t lock;         // guards the seats and the four counts that follow
    Seat seat[2];                 // by Side
    uint64_t published;           // packets handed over since the ring was made
    uint64_t backlog;             // the most that ever waited
    uint64_t dropped, oversize;   // packets that the producer had to drop; those larger than a slot
    // Packets handled since the ring was made. Only the consumer stores it, without the lock. On a
    // cache line of its own, since it changes with each packet.
    alignas(64) std::atomic<uint64_t> handled;
};  // the slots follow
static_assert(std::is_standard_layout<PacketRing>::value, "laid out alike in every program");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");

// One process's hold on the ring. Limits are copied, so that no later change of the shared header
// can lead it outside the memory.
struct RingEnd {
    PacketRing* ring = nullptr;
    Side side = kProducer;
    uint32_t slots = 0, size = 0;
    uint64_t next = 0;        // number of the packet in hand
    uint64_t limit = 0;       // first packet that needs the lock: no room yet, or not yet taken
    uint64_t published = 0;   // producer: first packet not yet handed over
    Presence other = kNever;  // the other side, when reserve() or take() last found nothing
};

// Slots begin on cache lines: the two processes write to neighbouring ones at the same time.
inline size_t slot_bytes(uint32_t size) { return (sizeof(Slot) + size + 63) / 64 * 64; }

// Bytes of memory for a ring.
inline size_t ring_bytes(uint32_t slots, uint32_t size) {
    return sizeof(PacketRing) + slots * slot_bytes(size);
}

inline Slot* slot_at(const RingEnd& end, uint64_t number) {
    unsigned char* slots = reinterpret_cast<unsigned char*>(end.ring + 1);
    return reinterpret_cast<Slot*>(slots + number % end.slots * slot_bytes(end.size));
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
    pthread_mutexattr_destroy(&shared);
    ring->header = sizeof(PacketRing);
    ring->slots = slots;
    ring->size = size;
    ring->magic.store(kRingMagic, std::memory_order_release);  // last: now it may be used
    return ring;
}

// What is wrong with a ring found in `bytes` bytes; nullptr: nothing. Call it before ring_join().
inline const char* ring_fault(const void* memory, size_t bytes) {
    const PacketRing* ring = static_cast<const PacketRing*>(memory);
    if (bytes < sizeof(PacketRing)) return "is too short for a ring";
    if (ring->magic.load(std::memory_order_acquire) != kRingMagic) return "holds no ring";
    if (ring->header != sizeof(PacketRing)) return "holds a ring of another version";
    if (ring->slots < 1 || ring->slots > kMostSlots || ring->size < 1 || ring->size > kMostSize ||
        ring_bytes(ring->slots, ring->size) > bytes)
        return "holds a ring with impossible sizes";
    return nullptr;
}

// Locks; true if the mutex's owner had died. What it guards is then as consistent as ever: see
// above.
inline bool lock(pthread_mutex_t* mutex) {
    errno = pthread_mutex_lock(mutex);
    if (errno == EOWNERDEAD) return pthread_mutex_consistent(mutex) == 0;
    if (errno != 0) err(1, "pthread_mutex_lock");
    return false;
}

// Is that side there? Call with the lock held. Finding its mutex without an owner reveals a death.
inline Presence presence(Seat* seat) {
    if (seat->presence != kHere || pthread_mutex_trylock(&seat->alive) == EBUSY)
        return seat->presence;
    pthread_mutex_consistent(&seat->alive);
    pthread_mutex_unlock(&seat->alive);
    return seat->presence = kDied;
}

// Takes a side's seat for this thread until ring_leave() or its death. Returns nullptr, or what
// prevents it. `before` receives what the last holder did: a consumer after one that died begins
// with the packet that one may have had in hand.
inline const char* ring_join(RingEnd* end, PacketRing* ring, Side side,
                             Presence* before = nullptr) {
    lock(&ring->lock);
    Seat* seat = &ring->seat[side];
    const uint64_t handled = ring->handled.load(std::memory_order_acquire);
    const Presence last = presence(seat);
    const char* fault = nullptr;
    if (ring->magic.load() != kRingMagic)
        fault = "holds no ring";
    else if (handled > ring->published || ring->published - handled > ring->slots)
        fault = "holds a ring with impossible counts";
    else if (last == kHere)
        fault = "is in use";
    if (!fault) {
        lock(&seat->alive);
        seat->presence = kHere;
        seat->pid = getpid();
        seat->asleep = 0;
        if (before) *before = last;
        *end = {ring, side, ring->slots,     ring->size,
                0,    0,    ring->published, presence(&ring->seat[!side])};
        end->next = side == kProducer ? ring->published : handled;
        end->limit = side == kProducer ? handled + ring->slots : handled;
    }
    pthread_mutex_unlock(&ring->lock);
    return fault;
}

// Call with the lock held, and after unlocking wake() if it returned true.
inline bool rouse(Seat* seat) { return seat->asleep.exchange(0) == 1; }
inline void wake(Seat* seat) {
    syscall(SYS_futex, &seat->asleep, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

// Call with the lock held; then unlock and sleep_on() the seat.
inline void doze(Seat* seat) {
    if (seat->asleep.exchange(1) == 0) ++seat->slept;
}

// Sleeps until woken, at most `ms` milliseconds: the limit is for a waker that was killed before
// its wake(), for a side that died, and for a signal that came just before the sleep.
inline void sleep_on(Seat* seat, int ms) {
    const timespec most = {ms / 1000, ms % 1000 * 1000000L};
    syscall(SYS_futex, &seat->asleep, FUTEX_WAIT, 1, &most, nullptr, 0);
}

// Producer: hands over what was committed since the last time.
inline void publish(RingEnd* end) {
    if (end->published == end->next) return;
    PacketRing* ring = end->ring;
    lock(&ring->lock);
    ring->backlog = std::max(ring->backlog, end->next - ring->handled.load());
    ring->published = end->published = end->next;
    const bool sleeper = rouse(&ring->seat[kConsumer]);
    pthread_mutex_unlock(&ring->lock);
    if (sleeper) wake(&ring->seat[kConsumer]);
}

// Producer: the next free slot, which stays reserved until commit(). nullptr after `ms`
// milliseconds with a full ring; end->other says whether there is a consumer.
inline Slot* reserve(RingEnd* end, int ms) {
    PacketRing* ring = end->ring;
    Seat* seat = &ring->seat[kProducer];
    if (end->next == end->limit)
        end->limit = ring->handled.load(std::memory_order_acquire) + end->slots;
    if (end->next < end->limit) return slot_at(*end, end->next);
    publish(end);
    for (bool waited = false;; waited = true) {
        lock(&ring->lock);
        end->limit = ring->handled.load(std::memory_order_acquire) + end->slots;
        const bool full = end->next >= end->limit;
        if (full) end->other = presence(&ring->seat[kConsumer]);
        if (full && !waited) doze(seat);
        if (!full) seat->asleep = 0;
        pthread_mutex_unlock(&ring->lock);
        if (!full) return slot_at(*end, end->next);
        if (waited) return nullptr;
        sleep_on(seat, ms);
    }
}

// Producer: the reserved slot holds a packet of `length` bytes. It is handed over with its batch, a
// quarter of the ring.
inline void commit(RingEnd* end, uint32_t length, uint32_t tag = 0) {
    Slot* slot = slot_at(*end, end->next++);
    slot->length = length;
    slot->tag = tag;
    if (end->next - end->published >= std::max(1u, end->slots / 4)) publish(end);
}

// Consumer: the next packet, which stays in hand until release(). nullptr after `ms` milliseconds
// without one, or at once if the producer left or died: end->other says which.
inline Slot* take(RingEnd* end, int ms) {
    PacketRing* ring = end->ring;
    Seat* seat = &ring->seat[kConsumer];
    Seat* producer = &ring->seat[kProducer];
    if (end->next < end->limit) return slot_at(*end, end->next);
    for (bool waited = false;; waited = true) {
        lock(&ring->lock);
        // Half a ring at a time, and the producer is woken once half is free, so that both work.
        const uint64_t waiting = ring->published - end->next, half = (end->slots + 1) / 2;
        end->limit = end->next + std::min(waiting, half);
        const bool sleeper = end->slots - waiting >= half && rouse(producer);
        if (waiting == 0) end->other = presence(producer);
        const bool over = waited || end->other == kLeft || end->other == kDied;
        if (waiting == 0 && !over) doze(seat);
        if (waiting > 0) seat->asleep = 0;
        pthread_mutex_unlock(&ring->lock);
        if (sleeper) wake(producer);
        if (waiting > 0) return slot_at(*end, end->next);
        if (over) return nullptr;
        sleep_on(seat, ms);
    }
}

// Consumer: the packet in hand is handled, for good: a successor begins behind it.
inline void release(RingEnd* end) {
    end->ring->handled.store(++end->next, std::memory_order_release);
}

// Gives the seat up; the producer hands over the rest. True if the other side is not there either
// and nothing waits: then, if `may_close`, nobody can join any more, and the caller may remove the
// memory's name.
inline bool ring_leave(RingEnd* end, bool may_close = true) {
    PacketRing* ring = end->ring;
    if (end->side == kProducer) publish(end);
    lock(&ring->lock);
    Seat* other = &ring->seat[!end->side];
    end->other = presence(other);
    const bool last = may_close && end->other != kHere && ring->handled.load() == ring->published;
    if (last) ring->magic = 0;
    ring->seat[end->side].presence = kLeft;
    const bool sleeper = rouse(other);
    pthread_mutex_unlock(&ring->seat[end->side].alive);
    pthread_mutex_unlock(&ring->lock);
    if (sleeper) wake(other);
    return last;
}
