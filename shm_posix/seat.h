// What two processes that share memory must know of each other, though either may be killed at any
// instruction: whether the other is there, and whether it sleeps. Each has a seat, beside a lock
// that both share; all of it lies in the shared memory.

#pragma once

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <time.h>

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

// Makes a robust mutex for several processes: when its owner dies, the next who locks it gets it,
// with the error EOWNERDEAD [pthread_mutexattr_setrobust(3)].
inline void init_lock(pthread_mutex_t* mutex) {
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    if ((errno = pthread_mutex_init(mutex, &shared)) != 0) err(1, "pthread_mutex_init");
}

// The time in `ms` milliseconds, by a clock that nobody can set back.
inline timespec in_ms(int ms) {
    timespec it;
    clock_gettime(CLOCK_MONOTONIC, &it);
    const long ns = it.tv_nsec + ms % 1000 * 1000000L;
    return {it.tv_sec + ms / 1000 + ns / 1000000000, ns % 1000000000};
}

// A dead owner is no error here: what these locks guard is in order after each single store. An
// owner may also die inside pthread_mutex_unlock, when the lock is free and who waits for it is not
// yet woken: so nobody waits for more than a second without looking again.
inline void lock(pthread_mutex_t* mutex) {
    do {
        const timespec until = in_ms(1000);
        errno = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
    } while (errno == ETIMEDOUT);
    if (errno == EOWNERDEAD) errno = pthread_mutex_consistent(mutex);
    if (errno != 0) err(1, "pthread_mutex_clocklock");
}

inline void unlock(pthread_mutex_t* mutex) { pthread_mutex_unlock(mutex); }

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
