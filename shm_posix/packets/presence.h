// Is the process on the other side of the ring there, has it left, or is it dead?
//
// Each process locks its side for as long as it lives. For that it sets a record lock on one byte
// of the object that holds the ring: the producer on byte 0, the consumer on byte 1. The lock is
// all that counts there; it keeps nobody from reading or writing the byte. The kernel drops it with
// the process, however that ends. It also drops it when the process closes any descriptor of the
// object: so each opens the object once, and keeps it open [fcntl(2)]. And a lock is seen from
// every PID namespace, where a process's number would mean nothing.

#pragma once

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#include <atomic>

enum Side { kProducer, kConsumer };  // also the byte to lock

// The argument of fcntl(2) for the lock of one side, or of both, beginning with `side`. Both are
// for the last to leave, who removes the ring (meet.h).
inline struct flock side_lock(short type, Side side, int sides) {
    struct flock it = {};
    it.l_type = type;
    it.l_start = side;
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

// A lock that is free does not tell who has left from who is dead. For that, a side counts its
// visits in shared memory: one more when a process comes, one more when it leaves in order. So the
// count is 0 if nobody came yet, odd after one came, and even after it left.

enum Presence { kNever, kHere, kLeft, kDied };

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

inline bool has_left(uint32_t visits) { return visits > 0 && visits % 2 == 0; }

// Who came, did not leave, and holds no lock is dead. But who leaves in order counts first, and
// then gives the lock back: so we read `visits` once more, and if it has changed, we say here,
// until we ask again.
inline Presence find_side(int fd, const std::atomic<uint32_t>& visits, Side side) {
    const uint32_t before = visits;
    if (before == 0) return kNever;
    if (has_left(before)) return kLeft;
    struct flock lock = side_lock(F_WRLCK, side, 1);
    if (fcntl(fd, F_GETLK, &lock) == -1) err(1, "fcntl(F_GETLK)");
    const bool unlocked = lock.l_type == F_UNLCK;
    return unlocked && visits == before ? kDied : kHere;
}
