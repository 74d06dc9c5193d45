// What stops a process; and how the producer waits: for input, for a free slot, for the end of its
// child. Every kSlice it looks whether all is over, and it says whom it waits for.

#pragma once

#include <poll.h>

#include "../../common/process.h"
#include "object.h"
#include "options.h"

constexpr int kSlice = 250;  // milliseconds: so often a wait looks whether all is over
constexpr int kLong = 3000;  // milliseconds without a packet handled are worth a sentence

inline pid_t child = 0;                    // the consumer, in run's parent; else 0
inline volatile sig_atomic_t stopped = 0;  // the signal that told us to stop

// HUP, INT, QUIT and TERM: the first ends the input, and gives a child 10 seconds to come to its
// end. The second ends the process.
inline void stop(int number) {
    if (stopped) end_by(number);
    stopped = number;
    if (child) give_up_in(10);
}

// SIGCHLD: since it is handled, a child's end also ends a poll(2), and over() sees it at once.
inline void end_poll(int) {}

// No more input: somebody stopped us, or our child has ended (WNOWAIT: wait_for() still finds it).
inline bool over() {
    siginfo_t it = {};
    if (child && waitid(P_PID, static_cast<id_t>(child), &it, WEXITED | WNOHANG | WNOWAIT) == -1)
        err(1, "waitid(%d)", child);
    return stopped || it.si_pid != 0;
}

// Is called every kSlice while we wait for the consumer. Says, once: that there is none;
// that the one there has handled nothing for kLong.
inline void watch_consumer() {
    static uint64_t handled = UINT64_MAX;
    static Presence other = kHere;
    static int slices = 0;
    if (ours.theirs().count != handled || ours.other != other) slices = 0;
    handled = ours.theirs().count;
    other = ours.other;
    ++slices;
    const bool nobody = !child && other != kHere;
    if (nobody && slices == 1)
        warnx("%s: the ring is full and nobody consumes; start: %s", name(),
              consume_command().c_str());
    if (!nobody && slices == kLong / kSlice)
        warnx("the consumer has handled nothing for %d s: is it stopped, or its output not read?",
              kLong / 1000);
}

// A free slot, however long that takes; nullptr if all is over and the ring full.
inline Slot* wait_for_slot() {
    for (;;) {
        Slot* slot = reserve(&ours, kSlice);
        if (slot || over()) return slot;
        watch_consumer();
    }
}

// Waits for input; false if all is over before.
inline bool wait_for_input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    for (int ms = 0; !stopped; ms = kSlice) {
        const int ready = poll(&it, 1, ms);
        if (ready > 0) return true;
        if (ready == -1 && errno != EINTR) err(1, "poll(input)");
        publish(&ours);  // input pauses: hand over what there is
        if (over()) break;
    }
    return false;
}

// run, in the parent: waits until the child has handled all, or for 10 seconds after a stop.
inline int wait_for_consumer() {
    while (!over()) {
        poll(nullptr, 0, kSlice);
        watch_consumer();
    }
    return wait_for(child, 10);
}
