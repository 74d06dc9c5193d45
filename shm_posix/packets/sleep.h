// How one side of a ring sleeps until the other has news for it, and how that one wakes it. The
// word `asleep` in its seat is a futex: a process asks the kernel to let it sleep if the word is 1,
// and another asks it to wake whoever sleeps there [futex(7)].
//
//     who sleeps                           who wakes
//     1. stores 1 in its `asleep`          1. stores the news: its count, or that it leaves
//     2. looks for news once more          2. looks at the other's `asleep`
//     3. none: sleeps, if it is still 1    3. it is 1: stores 0, and tells the kernel
//
// Each stores first and looks then. Either the sleeper's look comes after the news is stored, and
// sees them; or it comes before, and then the waker's look, later still, sees the 1. So no wake-up
// is lost. But "before" and "after" need one order that all agree on, and a processor may look
// before others see what it has stored: so these steps are sequentially consistent, the default of
// std::atomic.

#pragma once

#include <err.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "layout.h"

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "can be a futex");

// Who sleeps: until woken, for `ms` milliseconds (0 or more) at most, and not at all if news() says
// that there is some. May return early: the caller looks again. The deadline is for a waker that is
// killed before its call of the kernel.
template <class News>
void sleep_unless(News news, Seat* mine, int ms) {
    mine->asleep = 1;
    if (!news()) {
        ++mine->slept;
        // Seconds, nanoseconds: this call takes two long, whatever size time_t has.
        const long time[] = {ms / 1000, ms % 1000 * 1000000L};
        uint32_t* word = reinterpret_cast<uint32_t*>(&mine->asleep);
        // The kernel compares and sleeps in one step; EAGAIN: the word was no longer 1. Without
        // FUTEX_PRIVATE_FLAG: the waker is another process.
        const long result = syscall(SYS_futex, word, FUTEX_WAIT, 1, time);
        if (result == -1 && errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT)
            err(1, "futex(FUTEX_WAIT)");
    }
    mine->asleep = 0;
}

// Who wakes, after it has stored the news.
inline void wake(Seat* theirs) {
    if (theirs->asleep == 0) return;
    theirs->asleep = 0;
    uint32_t* word = reinterpret_cast<uint32_t*>(&theirs->asleep);
    if (syscall(SYS_futex, word, FUTEX_WAKE, 1) == -1) err(1, "futex(FUTEX_WAKE)");
}
