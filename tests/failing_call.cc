// Preloaded into a program, lets one call of the C library fail: FAIL_CALL names it, FAIL_ERRNO is
// the error's number. With 0 it does nothing and says that it succeeded.
// "slow fork" fails nothing, and holds the parent up.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

namespace {

bool chosen(const char* call) {
    const char* name = getenv("FAIL_CALL");
    if (!name || strcmp(name, call) != 0) return false;
    errno = atoi(getenv("FAIL_ERRNO"));
    return true;
}

int result() { return errno == 0 ? 0 : -1; }

template <typename Function>
Function* real(const char* call) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, call));
}

}  // namespace

extern "C" {

int shm_open(const char* name, int flags, mode_t mode) {
    return chosen("shm_open") ? result() : real<decltype(shm_open)>("shm_open")(name, flags, mode);
}

int open(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return chosen("open") ? result() : real<decltype(open)>("open")(path, flags, mode);
}

int ftruncate(int fd, off_t bytes) noexcept {
    return chosen("ftruncate") ? result() : real<decltype(ftruncate)>("ftruncate")(fd, bytes);
}

int posix_fallocate(int fd, off_t from, off_t bytes) {
    return chosen("posix_fallocate")
               ? errno
               : real<decltype(posix_fallocate)>("posix_fallocate")(fd, from, bytes);
}

void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
    if (flags & MAP_SHARED && chosen("mmap")) return MAP_FAILED;
    return real<decltype(mmap)>("mmap")(address, bytes, protection, flags, fd, offset);
}

int munmap(void* address, size_t bytes) noexcept {
    return chosen("munmap") ? result() : real<decltype(munmap)>("munmap")(address, bytes);
}

int shm_unlink(const char* name) {
    return chosen("shm_unlink") ? result() : real<decltype(shm_unlink)>("shm_unlink")(name);
}

int unlink(const char* path) noexcept {
    return chosen("unlink") ? result() : real<decltype(unlink)>("unlink")(path);
}

int shmget(key_t key, size_t bytes, int flags) noexcept {
    return chosen("shmget") ? result() : real<decltype(shmget)>("shmget")(key, bytes, flags);
}

void* shmat(int id, const void* address, int flags) noexcept {
    if (chosen("shmat")) return reinterpret_cast<void*>(-1);
    return real<decltype(shmat)>("shmat")(id, address, flags);
}

int shmdt(const void* address) noexcept {
    return chosen("shmdt") ? result() : real<decltype(shmdt)>("shmdt")(address);
}

int shmctl(int id, int command, shmid_ds* status) noexcept {
    return chosen("shmctl") ? result() : real<decltype(shmctl)>("shmctl")(id, command, status);
}

int sem_init(sem_t* semaphore, int shared, unsigned value) noexcept {
    return chosen("sem_init") ? result()
                              : real<decltype(sem_init)>("sem_init")(semaphore, shared, value);
}

int sem_post(sem_t* semaphore) noexcept {
    return chosen("sem_post") ? result() : real<decltype(sem_post)>("sem_post")(semaphore);
}

int sem_timedwait(sem_t* semaphore, const timespec* deadline) {
    return chosen("sem_timedwait")
               ? result()
               : real<decltype(sem_timedwait)>("sem_timedwait")(semaphore, deadline);
}

pid_t fork() noexcept {
    if (chosen("fork")) return result();
    const pid_t child = real<decltype(fork)>("fork")();
    if (child > 0 && chosen("slow fork")) usleep(300000);  // the child comes first, by far
    return child;
}

}  // extern "C"
