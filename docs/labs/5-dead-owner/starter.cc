// Lab 5. Parent and child count together, under a lock. If the child is killed, the parent goes on
// and prints what was counted. Or does it?
//
//     g++ -o mine mine.cc && ./mine 1000000        (add -pthread before glibc 2.34)

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct Shared {
    pthread_mutex_t lock;  // beside what it guards: both processes must see the same lock
    long count;
};

// These calls return their error, and do not set errno [pthread_mutex_lock(3)].
static void check(int error, const char* call) {
    errno = error;
    if (error != 0) err(1, "%s", call);
}

static void add(Shared* shared, long times) {
    for (long i = 0; i < times; ++i) {
        // From before the load until after the store. Who finds the lock taken sleeps.
        check(pthread_mutex_lock(&shared->lock), "pthread_mutex_lock");
        shared->count = shared->count + 1;
        check(pthread_mutex_unlock(&shared->lock), "pthread_mutex_unlock");
    }
}

int main(int argc, char** argv) {
    if (argc != 2) errx(2, "usage: %s TIMES", argv[0]);
    const long times = atol(argv[1]);

    // An object without a name: the child inherits the mapping.
    void* address =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu)", sizeof(Shared));
    Shared* shared = static_cast<Shared*>(address);

    // Before the fork, so that there is one lock, and it is ready before anybody asks for it.
    // PROCESS_SHARED: without it the sleeper is looked for in one process only.
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "pthread_mutexattr_init");
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED),
          "pthread_mutexattr_setpshared");
    check(pthread_mutex_init(&shared->lock, &attributes), "pthread_mutex_init");

    const pid_t child = fork();
    if (child == -1) err(1, "fork()");
    add(shared, times);
    if (child == 0) return 0;

    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    printf("count %ld\n", shared->count);
    return status == 0 ? 0 : 1;
}
