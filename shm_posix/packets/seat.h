// A side of the ring as the other one sees it: how far it is, whether it is there, whether it
// sleeps.

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

// What one side tells the other, on cache lines of its own. Only the process that has the side
// stores these; `asleep` is cleared by who wakes it.
struct alignas(64) Seat {
    std::atomic<uint64_t> count;   // packets committed, or released
    std::atomic<uint64_t> begun;   // the consumer's: packets taken in hand
    std::atomic<uint64_t> slept;   // times
    std::atomic<uint32_t> stays;   // 0: nobody came yet; odd: one came; even: it left in order
    std::atomic<uint32_t> asleep;  // 1: it sleeps on this word; 0 wakes it
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "works between processes");
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "is a futex");

// Who is there? Who has a side holds a record lock on the byte of the object at that offset (nobody
// reads or writes the byte). The kernel drops the lock with the process, however that ends, in
// every PID namespace [fcntl(2)]. But it also drops it when the process closes any descriptor of
// the object: so each process opens the object once and keeps it open.

// Takes (F_WRLCK) or gives back (F_UNLCK) the lock of one side, or of both, beginning with `side`.
// False: somebody has it.
inline bool lock_side(int fd, short type, Side side, int sides = 1) {
    struct flock it = {};
    it.l_type = type;
    it.l_start = side;
    it.l_len = sides;
    if (fcntl(fd, F_SETLK, &it) == 0) return true;
    if (errno != EACCES && errno != EAGAIN) err(1, "fcntl(F_SETLK)");
    return false;
}

enum Presence { kNever, kHere, kLeft, kDied };

inline bool has_left(const Seat& seat) {
    const uint32_t stays = seat.stays;
    return stays > 0 && stays % 2 == 0;
}

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

// Who came and did not leave, and has no lock, is dead: unless `stays` has changed while we asked.
// Then it has left just now, or another has come.
inline Presence find_side(int fd, const Seat& seat, Side side) {
    const uint32_t stays = seat.stays;
    if (stays % 2 == 0) return stays == 0 ? kNever : kLeft;
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_start = side;
    lock.l_len = 1;
    if (fcntl(fd, F_GETLK, &lock) == -1) err(1, "fcntl(F_GETLK)");
    return lock.l_type == F_UNLCK && seat.stays == stays ? kDied : kHere;
}

// Who sleeps? No wake-up may be lost, whatever comes first:
//
//     who sleeps, in wait()                  who wakes
//     1. stores 1 in its `asleep`            1. stores its count
//     2. looks at the other's count again    2. looks at the other's `asleep`; if it is 1,
//     3. sleeps as long as `asleep` is 1        stores 0, and calls the kernel
//
// A fence after each step 1 has all processors see it before step 2. So one of the two sees what
// the other has stored: who misses the new count is seen to sleep.

// Step 3, for `ms` milliseconds at most; may end early. The kernel looks at `asleep` and puts us to
// sleep in one step [futex(2)]. There must be a deadline: who wakes us may be killed after it has
// stored 0.
inline void sleep_on(std::atomic<uint32_t>* asleep, int ms) {
    // The kernel's timespec of this call: two long, also where time_t has grown to 64 bits.
    const long time[] = {ms / 1000, ms % 1000 * 1000000L};
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(asleep), FUTEX_WAIT, 1, time) == 0) return;
    if (errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) err(1, "futex(FUTEX_WAIT)");
}

// Step 2 of who wakes.
inline void wake(std::atomic<uint32_t>* asleep) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (*asleep == 0) return;
    *asleep = 0;
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(asleep), FUTEX_WAKE, 1) == -1)
        err(1, "futex(FUTEX_WAKE)");
}
