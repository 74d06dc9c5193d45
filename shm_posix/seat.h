// What two processes that share memory must know of each other, though either may be killed at any
// instruction: whether the other is there, and whether it sleeps. The locks are robust
// [pthread_mutexattr_setrobust(3)]; a sleeper that dies leaves no more than `asleep` behind.

#pragma once

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <time.h>

enum Presence : uint32_t { kNever, kHere, kLeft, kDied };

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

// One process's part of what two share; a common lock guards all but `alive` and the value of
// `wake`.
struct Seat {
    pthread_mutex_t alive;  // held as long as the side is there; its death is EOWNERDEAD
    Presence presence;
    // The side waits for `wake`, or is about to, or gave up waiting. Not a pthread_cond_t: it may
    // stay unusable when one who waits in it is killed (docs/failures dead-waiter shows it).
    bool asleep;
    sem_t wake;
    uint64_t slept;  // times; waits in a row that nobody ended count once
};

// Makes a mutex for several processes, one of which may die with it.
inline void init_lock(pthread_mutex_t* mutex) {
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    if ((errno = pthread_mutex_init(mutex, &shared)) != 0) err(1, "pthread_mutex_init");
}

// Makes fresh bytes, all 0, into a seat that nobody has.
inline void init_seat(Seat* seat) {
    init_lock(&seat->alive);
    if (sem_init(&seat->wake, 1, 0) == -1) err(1, "sem_init");  // 1: for several processes
}

// What these locks guard changes by single stores; so a dead owner leaves it consistent.
inline void lock(pthread_mutex_t* mutex) {
    errno = pthread_mutex_lock(mutex);
    if (errno == EOWNERDEAD) errno = pthread_mutex_consistent(mutex);
    if (errno != 0) err(1, "pthread_mutex_lock");
}

inline void unlock(pthread_mutex_t* mutex) { pthread_mutex_unlock(mutex); }

// Is that side there? Notes it if it died. With the common lock held.
inline Presence find_presence(Seat* seat) {
    if (seat->presence == kHere && pthread_mutex_trylock(&seat->alive) != EBUSY) {
        pthread_mutex_consistent(&seat->alive);
        unlock(&seat->alive);
        seat->presence = kDied;
    }
    return seat->presence;
}

// The two steps of going to sleep: the first with the lock held, so that no wake() can be missed,
// the second without it. At most `ms` milliseconds: the waker may die before it wakes anybody. Not
// sem_timedwait(3): its clock can be set back, and the sleep would be longer.
inline void fall_asleep(Seat* seat) {
    if (!seat->asleep) ++seat->slept;
    seat->asleep = true;
}
inline void sleep_on(Seat* seat, int ms) {
    timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const long ns = until.tv_nsec + ms % 1000 * 1000000L;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    sem_clockwait(&seat->wake, CLOCK_MONOTONIC, &until);
}

// With the common lock held.
inline void wake(Seat* seat) {
    if (seat->asleep) sem_post(&seat->wake);
    seat->asleep = false;
}
