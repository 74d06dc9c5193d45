// How the two processes are told to stop, and how the producer waits for a free slot or for input.

#pragma once

#include <poll.h>

#include "../../common/process.h"
#include "object.h"

constexpr int kSlice = 250;  // milliseconds: so often a wait checks whether the other side is alive

inline pid_t child = 0;                    // run, in the parent: the consumer
inline volatile sig_atomic_t stopped = 0;  // the signal that told us to stop

// HUP, INT, QUIT and TERM: the first ends the input, and gives a child 10 seconds to come to its
// end; then on_signal() gives up. The second ends the process.
inline void stop(int number) {
    if (stopped) {
        signal(number, SIG_DFL);
        on_signal(number);
    }
    stopped = number;
    if (child) alarm(10);
}

// For the child of run: its parent ends the input, and it goes on to its end.
inline void ignore_stops() {
    handle_stops(SIG_IGN, 0);
    stopped = 0;  // one may have come since the fork
}

// No more input: somebody stopped us, or our child has ended (WNOWAIT: wait_for() still finds it).
inline bool over() {
    siginfo_t it = {};
    if (child) waitid(P_PID, static_cast<id_t>(child), &it, WEXITED | WNOHANG | WNOWAIT);
    return stopped || it.si_pid != 0;
}

// A free slot, however long that takes; nullptr if all is over and the ring full.
inline Slot* wait_for_slot() {
    Presence told = kHere;  // what we saw last: one sentence for each change
    for (;;) {
        Slot* slot = reserve(&producer, kSlice);
        if (slot || over()) return slot;
        if (!child && producer.consumer != told && producer.consumer != kHere)
            warnx("%s: the ring is full and nobody consumes; start: %s consume --name %s", name(),
                  program_invocation_name, name());
        told = producer.consumer;
    }
}

// Waits for input; false if all is over before.
inline bool wait_for_input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    for (int ms = 0; !stopped; ms = kSlice) {
        if (poll(&it, 1, ms) > 0) return true;
        publish(&producer);  // input pauses: hand over what there is
        if (over()) break;
    }
    return false;
}
