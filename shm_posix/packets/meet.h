// How the two processes meet at a ring, and leave it. Those of `run` share the object since their
// fork: join() is enough. `produce` and `consume` meet by its name: begin with join_by_name(), at
// the end.

#pragma once

#include <poll.h>

#include "object.h"

inline bool joined = false;  // we have a side

// Gives our side up; the last to leave an empty ring removes it. main() calls it; if an error ends
// the process before, exit(3) does.
inline void leave() {
    if (!joined) return;
    joined = false;
    ring_leave(&ours);
    // If we get both sides, nobody else is here, and nobody can join until we close. Not in run,
    // where there is no name to remove, and the child may be about to join.
    const bool last = options.verb != "run" && lock_side(object, F_WRLCK, kProducer, 2) && named();
    const uint64_t waiting = last ? ring_waiting(ours.ring) : 0;
    if (last && waiting == 0 && shm_unlink(name()) == -1) err(1, "shm_unlink(%s)", name());
    close(object);  // and with it the locks, before we print
    if (waiting == 0) return;
    warnx("%s: %ju packets wait in it", name(), uintmax_t{waiting});
    fprintf(stderr, "  handle them: %s\n", consume_command().c_str());
    fprintf(stderr, "  remove it: rm %s\n", shell_word(path()).c_str());
}

// Takes our side of a ring until we exit.
inline void join(Side side) {
    if (const char* fault = ring_join(&ours, object, side)) refuse(fault);
    joined = true;
    atexit(leave);
}

// Makes a ring, joins it, and gives it the name last: whatever fails before leaves nothing, and who
// opens the name finds a whole ring. False: somebody else has taken the name [linkat(2)].
inline bool make_by_name(Side side) {
    make_object();
    join(side);
    const std::string self = "/proc/self/fd/" + std::to_string(object);
    if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path().c_str(), AT_SYMLINK_FOLLOW) == 0)
        return true;
    if (errno != EEXIST) err(1, "linkat(%s, %s)", self.c_str(), path().c_str());
    joined = false;  // leave() does nothing then
    close_object();  // nobody has seen this ring: it is gone
    return false;
}

// Takes our side of the ring of that name; makes one if there is none. While we have the lock of
// our side, nobody removes the ring: that takes both.
inline void join_by_name(Side side) {
    for (int tries = 1;; ++tries) {
        if (!open_object()) {
            if (make_by_name(side)) return;
            continue;  // somebody else has named one before us
        }
        const bool taken = !lock_side(object, F_WRLCK, side);
        // Not named: who left last has removed the ring before we had our side. Taken: perhaps for
        // a moment, by one who leaves last and has both sides; after 100 tries, a millisecond
        // apart, it has an owner.
        if (named() && (!taken || tries >= 100)) break;
        close_object();
        poll(nullptr, 0, 1);
    }
    join(side);  // locks once more, as we may [fcntl(2)]; or says that somebody else has our side
    // More begun than released: a consumer ended, killed or by an error, with that one in hand.
    const bool doubt = side == kConsumer && ours.mine().begun != ours.next;
    if (ours.next > 0 || doubt)
        warnx("%s: goes on with packet %ju%s", name(), uintmax_t{ours.next},
              doubt ? ", which may be seen twice" : "");
}
