// A mutex in shared memory that outlives the death of its owner.

#pragma once

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>

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
