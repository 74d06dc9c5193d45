// The two sides of a ring in shared memory: who is there, how far, and whether it sleeps.
//
// A process holds a record lock on the object while it has its side: the kernel drops it with the
// process, however that ends, in every PID namespace [fcntl(2)]. Each process opens the object once
// and keeps it open: to close any descriptor of it, also a duplicate, drops the lock.

#pragma once

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

enum Side { kProducer, kConsumer };
enum Presence : uint32_t { kNever, kHere, kLeft, kDied };  // kDied is found, never stored

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

// What one side tells the other, on cache lines of its own. Only its holder stores these; `asleep`
// is cleared by who wakes it. All are atomic: nobody ever sees half of a store.
struct alignas(64) Seat {
    std::atomic<uint64_t> count;     // packets handed over, or handled
    std::atomic<uint64_t> begun;     // the consumer's: packets taken in hand
    std::atomic<uint64_t> most;      // packets that waited when this side looked
    std::atomic<uint64_t> slept;     // times
    std::atomic<uint32_t> holders;   // processes that took this seat so far
    std::atomic<uint32_t> presence;  // of the latest
    std::atomic<uint32_t> asleep;    // 1: it sleeps on this word; 0 wakes it
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "is a futex");

// Takes (F_WRLCK) or gives back (F_UNLCK) the record lock of `sides` sides, beginning with `side`:
// the byte at that offset stands for it, though nobody reads or writes it. False: somebody has it
// [F_SETLK in fcntl(2)].
inline bool lock_side(int fd, short type, Side side, int sides = 1) {
    struct flock it = {};
    it.l_type = type;
    it.l_start = side;
    it.l_len = sides;
    if (fcntl(fd, F_SETLK, &it) == 0) return true;
    if (errno != EACCES && errno != EAGAIN) err(1, "fcntl(F_SETLK)");
    return false;
}

// Is the holder of that side there? It says kHere after it has taken its lock, and kLeft before it
// gives the lock back. So who says kHere and has no lock is dead, unless between our two looks
// - it left: then `presence` is kLeft now;
// - a successor came after it: then `holders` has changed.
inline Presence find_side(int fd, const Seat& seat, Side side) {
    const uint32_t holders = seat.holders;
    const uint32_t before = seat.presence;
    if (before != kHere) return static_cast<Presence>(before);
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_start = side;
    lock.l_len = 1;
    if (fcntl(fd, F_GETLK, &lock) == -1) err(1, "fcntl(F_GETLK)");
    if (lock.l_type != F_UNLCK) return kHere;
    const uint32_t after = seat.presence;
    if (after != kHere) return static_cast<Presence>(after);
    return seat.holders == holders ? kDied : kHere;
}

// Sleeps if the word is 1, until wake(), for `ms` milliseconds at most; may end early. The kernel
// looks at the word and puts us to sleep in one step: no wake-up is lost in between [futex(2)].
inline void sleep_on(std::atomic<uint32_t>* word, int ms) {
    // The kernel's timespec of this call: two long, also where time_t has grown to 64 bits.
    const long time[] = {ms / 1000, ms % 1000 * 1000000L};
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT, 1, time) == 0) return;
    if (errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) err(1, "futex(FUTEX_WAIT)");
}

// Wakes who sleeps on that word, if anybody does; in which order, see tell(). The system call costs
// some microseconds, and a switch of processes if both share a processor: that is why packets are
// handed over in batches.
inline void wake(std::atomic<uint32_t>* word) {
    if (word->load() == 0 || word->exchange(0) == 0) return;
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE, 1) == -1)
        err(1, "futex(FUTEX_WAKE)");
}
