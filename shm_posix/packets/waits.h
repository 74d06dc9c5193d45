// What stops a process; and what it says while it waits for the consumer in vain.

#pragma once

#include <poll.h>

#include "../../common/process.h"
#include "object.h"
#include "options.h"

constexpr int kSlice = 250;  // milliseconds: no wait is longer, then it asks whether all is over()
constexpr int kLong = 3000;  // milliseconds: so long without a packet handled, and we say so

inline pid_t child = 0;                    // the consumer, in run's parent; else 0
inline volatile sig_atomic_t stopped = 0;  // the signal that told us to stop

// HUP, INT, QUIT and TERM: the first ends the input, and gives a child 10 seconds to come to its
// end. The second ends the process.
inline void stop(int number) {
    if (stopped) end_by(number);
    stopped = number;
    if (child) give_up_in(10);
}

// SIGCHLD: does nothing. But since it is handled, a child's end ends a poll(2) or a sleep in the
// ring, which are not restarted, as both have a deadline. One that comes just before is seen after
// kSlice.
inline void end_poll(int) {}

// Our child has ended (WNOWAIT: wait_for() still finds it).
inline bool child_ended() {
    siginfo_t it = {};
    if (child && waitid(P_PID, static_cast<id_t>(child), &it, WEXITED | WNOHANG | WNOWAIT) == -1)
        err(1, "waitid(%d)", child);
    return it.si_pid != 0;
}

// No more input: somebody stopped us, or nobody is there to handle it.
inline bool over() { return stopped || child_ended(); }

// Is called about every kSlice while we wait for the consumer. Says when there is none, and when
// the one there has handled nothing for kLong; each once, until there is news.
inline void watch_consumer() {
    static uint64_t handled = UINT64_MAX;  // this and `other`: what we saw last
    static Presence other = kHere;
    static int slices = 0;  // since then
    const bool news = ours.theirs().count != handled || ours.other != other;
    slices = news ? 0 : slices + 1;
    handled = ours.theirs().count;
    other = ours.other;
    const bool nobody = !child && other != kHere;
    if (nobody && slices == 0)
        warnx("%s: the ring is full and nobody consumes; start: %s", name(),
              consume_command().c_str());
    if (!nobody && slices == kLong / kSlice)
        warnx("the consumer has handled nothing for %d s: is it stopped, or its output not read?",
              kLong / 1000);
}

// run, in the parent: waits until the child has handled all. After a stop, the alarm that stop()
// has set ends the wait.
inline int wait_for_consumer() {
    while (!child_ended()) {
        poll(nullptr, 0, kSlice);
        watch_consumer();
    }
    return wait_for(child, 10);  // has ended: this takes its status
}
