// What each side of a ring has to know of the other: is it there? Does it sleep?

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

// What one side tells the other, on a cache line of its own. Only the process that has the side
// stores these, but for `asleep`, which the other one sets back to wake it. What names no
// memory order has the strictest, and is not on the way of each packet.
struct alignas(64) Seat {
    std::atomic<uint64_t> count;   // packets that it has committed, or released
    std::atomic<uint64_t> begun;   // packets that it has taken in hand: the consumer's
    std::atomic<uint64_t> slept;   // how often it slept
    std::atomic<uint32_t> visits;  // 0: nobody came yet; odd: one came; even: it left in order
    std::atomic<uint32_t> asleep;  // 1: it sleeps, or is about to
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "can be a futex");

// Is it there? Each process locks its side for as long as it lives: the byte of the object at that
// offset has a record lock, and is never read or written. The kernel drops the lock with the
// process, however that ends, in every PID namespace [fcntl(2)]. It also drops it when the process
// closes any descriptor of the object: so each opens the object once, and keeps it open.

// The bytes of one side, or of two.
inline struct flock side_lock(short type, Side side, int sides) {
    struct flock it = {};
    it.l_type = type;
    it.l_start = side;
    it.l_len = sides;
    return it;
}

// Takes (F_WRLCK) or gives back (F_UNLCK) the lock of one side, or of two, beginning with `side`.
// False: somebody else has it, and errno is one or the other [fcntl(2)].
inline bool lock_side(int fd, short type, Side side, int sides = 1) {
    struct flock it = side_lock(type, side, sides);
    if (fcntl(fd, F_SETLK, &it) == 0) return true;
    if (errno != EACCES && errno != EAGAIN) err(1, "fcntl(F_SETLK)");
    return false;
}

enum Presence { kNever, kHere, kLeft, kDied };

inline bool has_left(const Seat& seat) {
    const uint32_t visits = seat.visits;
    return visits > 0 && visits % 2 == 0;
}

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

// Who came, did not leave, and holds no lock is dead. If `visits` has changed while we asked for
// the lock, it has left meanwhile, or the next one has come: that counts as here, until we ask
// again.
inline Presence find_side(int fd, const Seat& seat, Side side) {
    const uint32_t visits = seat.visits;
    if (visits % 2 == 0) return visits == 0 ? kNever : kLeft;
    struct flock lock = side_lock(F_WRLCK, side, 1);
    if (fcntl(fd, F_GETLK, &lock) == -1) err(1, "fcntl(F_GETLK)");
    return lock.l_type == F_UNLCK && seat.visits == visits ? kDied : kHere;
}

// Does it sleep? Who finds nothing to do looks once more after it has said that it will sleep:
//
//     who sleeps: wait() in ring.h           who wakes: wake()
//     1. stores 1 in its `asleep`            1. has stored its count
//     2. looks at the other's count          2. looks at the other's `asleep`
//     3. nothing new: sleeps until it is 0   3. it is 1: stores 0, and tells the kernel
//
// So one of the two sees what the other has stored, and no wake-up is lost. This needs a fence
// between 1 and 2, for a processor may load before others see what it has stored. `asleep` is
// relaxed: the two fences order steps 1 and 2, and in step 3 the kernel compares it itself
// [futex(2)].

// Step 3 of who sleeps, for `ms` milliseconds at most; may end early. The kernel looks at `asleep`
// and puts us to sleep in one step [futex(2)]. Why a deadline: who wakes us may be killed between
// its two parts of step 3.
inline void sleep_on(std::atomic<uint32_t>* asleep, int ms) {
    // The kernel's timespec of this call: two long, also where time_t has grown to 64 bits.
    const long time[] = {ms / 1000, ms % 1000 * 1000000L};
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(asleep), FUTEX_WAIT, 1, time) == 0) return;
    if (errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) err(1, "futex(FUTEX_WAIT)");
}

// Steps 2 and 3 of who wakes.
inline void wake(std::atomic<uint32_t>* asleep) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (asleep->load(std::memory_order_relaxed) == 0) return;
    asleep->store(0, std::memory_order_relaxed);
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(asleep), FUTEX_WAKE, 1) == -1)
        err(1, "futex(FUTEX_WAKE)");
}
