// What two processes that share memory must know of each other, though either may be killed at any
// instruction: whether the other is there, and whether it sleeps. All of it lies in the memory that
// they share, beside a lock of theirs that guards it.

#pragma once

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <time.h>

enum Presence : uint32_t { kNever, kHere, kLeft, kDied };

inline bool gone(Presence other) { return other == kLeft || other == kDied; }

// One process's part of what the two share.
struct Seat {
    pthread_mutex_t alive;  // its holder has this lock until it leaves or dies
    Presence presence;
    bool asleep;     // its holder waits for `wake`
    sem_t wake;      // a semaphore, since nothing in it has to be repaired when a sleeper dies
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

// Whoever uses lock() changes what it guards by single stores, so a dead owner left it consistent.
inline void lock(pthread_mutex_t* mutex) {
    errno = pthread_mutex_lock(mutex);
    if (errno == EOWNERDEAD) errno = pthread_mutex_consistent(mutex);
    if (errno != 0) err(1, "pthread_mutex_lock");
}

inline void unlock(pthread_mutex_t* mutex) { pthread_mutex_unlock(mutex); }

// Makes fresh bytes, all 0, into a seat that nobody has.
inline void init_seat(Seat* seat) {
    init_lock(&seat->alive);
    if (sem_init(&seat->wake, 1, 0) == -1) err(1, "sem_init");  // 1: for several processes
}

// From here on the two processes' lock is held by the caller.

// Is the holder there? Its death shows in that we get its lock.
inline Presence find_presence(Seat* seat) {
    if (seat->presence == kHere && pthread_mutex_trylock(&seat->alive) != EBUSY) {
        pthread_mutex_consistent(&seat->alive);
        unlock(&seat->alive);
        seat->presence = kDied;
    }
    return seat->presence;
}

// Takes the seat for this thread, until leave_seat() or its death; false: somebody has it.
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

// Gives the two processes' lock up, sleeps until wake() or for `ms` milliseconds, and takes it
// again, as pthread_cond_clockwait(3) does. A condition variable may stay unusable when one who
// waits in it is killed (docs/failures dead-waiter shows it). A sleep may end early: look again.
inline void sleep_on(Seat* seat, pthread_mutex_t* common, int ms) {
    timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);  // no one sets it back, as sem_timedwait's clock
    const long ns = until.tv_nsec + ms % 1000 * 1000000L;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    if (!seat->asleep) ++seat->slept;  // waits in a row that nobody ended count once
    seat->asleep = true;
    unlock(common);
    sem_clockwait(&seat->wake, CLOCK_MONOTONIC, &until);
    lock(common);
}

inline void wake(Seat* seat) {
    if (seat->asleep) sem_post(&seat->wake);
    seat->asleep = false;
}
