// How a process sleeps until another has news for it, and how that one wakes it. Each has a word in
// shared memory, `asleep`: 1 while it sleeps, or is about to. It is a futex: the kernel lets one
// process sleep on it, and another wake that one [futex(7)].
//
// Who finds nothing to do looks once more after it has said that it will sleep:
//
//     who sleeps                           who wakes
//     1. stores 1 in its `asleep`          1. stores the news: its count, or that it leaves
//     2. looks for news                    2. wake(): looks at the other's `asleep`
//     3. none: sleep_on(), until it is 0   3. it is 1: stores 0, and tells the kernel
//
// Each stores first and looks then. So one of the two sees what the other has stored, and no
// wake-up is lost. Steps 1 and 2 of both must be sequentially consistent, as std::atomic is where
// no order is named: with a weaker one, a processor may look before the other sees what it has
// stored, and then both would see the old. `asleep` brings no data: who wakes up looks for the news
// again.

#pragma once

#include <err.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "can be a futex");

// Step 3 of who sleeps, for `ms` milliseconds at most; may end early. The kernel looks whether
// `asleep` is still 1 and puts us to sleep, in one step [futex(2)]. (Without FUTEX_PRIVATE_FLAG:
// the waker is another process.) There is a deadline since the waker may be killed between its
// store of 0 and its call of the kernel. When this returns, whatever for, the caller stores 0.
inline void sleep_on(std::atomic<uint32_t>* asleep, int ms) {
    // The kernel's timespec of this call: two long, also where time_t has grown to 64 bits.
    const long time[] = {ms / 1000, ms % 1000 * 1000000L};
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(asleep), FUTEX_WAIT, 1, time) == 0) return;
    if (errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) err(1, "futex(FUTEX_WAIT)");
}

// Steps 2 and 3 of who wakes.
inline void wake(std::atomic<uint32_t>* asleep) {
    if (*asleep == 0) return;
    *asleep = 0;
    if (syscall(SYS_futex, reinterpret_cast<uint32_t*>(asleep), FUTEX_WAKE, 1) == -1)
        err(1, "futex(FUTEX_WAKE)");
}
