// Is the process on the other side of the ring there, has it left, or is it dead?
//
// Each process locks its side for as long as it lives. For that it sets a record lock on one byte
// of the object that holds the ring: the producer on byte 0, the consumer on byte 1. The lock keeps
// nobody from reading or writing the byte: it says only who is there. The kernel drops the lock
// when the process ends, however that happens, or closes any descriptor of the object: so each
// opens the object once, and keeps it open. A process does not see its own locks: so the two sides
// must be two processes [fcntl(2)]. (Process IDs would not do: each container has its own.)

#pragma once

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#include <atomic>

enum Side { kProducer, kConsumer };  // also the byte to lock

// The argument of fcntl(2) for the lock of one side, or of both, beginning with `side`.
inline struct flock side_lock(short type, Side side, int sides) {
    struct flock it = {};
    it.l_type = type;
    it.l_start = side;  // from the beginning: l_whence is 0, SEEK_SET
    it.l_len = sides;
    return it;
}

// Takes (F_WRLCK) or gives back (F_UNLCK) that lock. False: somebody else has it; errno is EACCES
// on some systems, EAGAIN on others [fcntl(2)].
inline bool lock_side(int fd, short type, Side side, int sides = 1) {
    struct flock it = side_lock(type, side, sides);
    if (fcntl(fd, F_SETLK, &it) == 0) return true;
    if (errno != EACCES && errno != EAGAIN) err(1, "fcntl(F_SETLK)");
    return false;
}

// A lock that is free does not tell who has left from who is dead. For that, each side has a number
// in shared memory, `visits`: 0 if nobody came yet. Who comes makes it odd, who leaves in order
// makes it even. It only grows: so to leave and to come back shows, too.

enum Presence { kNever, kHere, kLeft, kDied };

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

inline bool has_left(uint32_t visits) { return visits > 0 && visits % 2 == 0; }

// A side that came, did not leave, and holds no lock is dead. But it may leave in order between our
// look at `visits` and that at the lock: it changes `visits`, and then gives the lock back. So we
// look at `visits` once more. If it has changed, we answer kHere, and the next call will tell.
inline Presence find_side(int fd, const std::atomic<uint32_t>& visits, Side side) {
    const uint32_t before = visits;
    if (before == 0) return kNever;
    if (has_left(before)) return kLeft;
    struct flock lock = side_lock(F_WRLCK, side, 1);
    if (fcntl(fd, F_GETLK, &lock) == -1) err(1, "fcntl(F_GETLK)");
    const bool unlocked = lock.l_type == F_UNLCK;
    return unlocked && visits == before ? kDied : kHere;
}
