// What two processes that share memory must know of each other, though either may be killed at any
// instruction: whether the other is there, and whether it sleeps. Each has a seat, beside a lock
// that both share; all of it lies in the shared memory.

#pragma once

#include <err.h>
#include <errno.h>
#include <semaphore.h>
#include <stdint.h>

#include "robust_lock.h"

enum Presence : uint32_t { kNever, kHere, kLeft, kDied };

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

// What one process at a time holds.
struct Seat {
    pthread_mutex_t alive;  // guards no data: whoever owns it is there, until it leaves or dies
    Presence presence;
    bool asleep;     // its holder waits for `wake`
    sem_t wake;      // a semaphore: a sleeper that dies leaves nothing in it to be repaired
    uint64_t slept;  // times
};

// Makes fresh bytes, all 0, into a seat that nobody has.
inline void init_seat(Seat* seat) {
    init_lock(&seat->alive);
    if (sem_init(&seat->wake, 1, 0) == -1) err(1, "sem_init");  // 1: for several processes
}

// All below: the caller owns the lock that both share.

// Is the holder there? EBUSY: it is. Else we got the lock of a dead one, and give it back in order.
inline Presence find_presence(Seat* seat) {
    if (seat->presence == kHere && pthread_mutex_trylock(&seat->alive) != EBUSY) {
        pthread_mutex_consistent(&seat->alive);
        unlock(&seat->alive);
        seat->presence = kDied;
    }
    return seat->presence;
}

// Takes the seat for this thread (it is threads that own mutexes), until leave_seat() or its death;
// false: somebody has it.
inline bool take_seat(Seat* seat) {
    if (find_presence(seat) == kHere) return false;
    lock(&seat->alive);
    seat->presence = kHere;
    return true;
}

inline void leave_seat(Seat* seat) {
    seat->presence = kLeft;
    unlock(&seat->alive);
}

// Unlocks `shared`, sleeps until wake() or for `ms` milliseconds, and locks it again, as
// pthread_cond_timedwait(3) does. A condition variable may stay unusable when one who waits in it
// is killed (docs/failures dead-waiter shows it). A sleep may end early: look again.
inline void sleep_on(Seat* seat, pthread_mutex_t* shared, int ms) {
    const timespec until = in_ms(ms);
    if (!seat->asleep) ++seat->slept;
    seat->asleep = true;
    unlock(shared);
    sem_clockwait(&seat->wake, CLOCK_MONOTONIC, &until);  // sem_timedwait(3) by another clock
    lock(shared);
    // After a timeout `asleep` stays, so that sleeps in a row that nobody ended count once. At
    // worst the next wake() finds nobody, and ends a later sleep early.
}

inline void wake(Seat* seat) {
    if (seat->asleep) sem_post(&seat->wake);
    seat->asleep = false;
}
