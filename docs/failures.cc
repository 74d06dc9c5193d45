// The mistakes that everyone makes with shared memory, each by one word on the command line. A
// child makes the mistake; the parent says which signal ended it. docs/failures.md goes through
// them. What they work on loses its name at once, so that nothing is left behind.

#include <pthread.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "../common/exchange.h"
#include "../common/process.h"
#include "words.h"

static const size_t kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
constexpr size_t kMegabyte = 1 << 20;

// A new, empty object whose name is removed at once; the descriptor keeps it.
static int new_object(int access = O_RDWR) {
    const std::string name = "/failures-" + std::to_string(getpid());
    const sigset_t before =
        hold_all_signals();  // none comes between making it and removing its name
    const int made = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (made == -1) err(1, "shm_open(%s)", name.c_str());
    const int fd = shm_open(name.c_str(), access, 0);
    if (shm_unlink(name.c_str()) == -1) err(1, "shm_unlink(%s)", name.c_str());
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (fd == -1) err(1, "shm_open(%s)", name.c_str());
    return fd;
}

static char* map(int fd, size_t bytes, int protection = PROT_READ | PROT_WRITE) {
    void* address = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu bytes)", bytes);
    puts("mmap succeeds");
    return static_cast<char*>(address);
}

static void give_size(int fd, size_t bytes) {
    if (ftruncate(fd, static_cast<off_t>(bytes)) == -1) err(1, "ftruncate(%zu)", bytes);
    printf("ftruncate to %zu bytes succeeds\n", bytes);
}

static void store(char* address, char value) {
    *static_cast<volatile char*>(address) = value;
    puts("the store succeeds");
}

static void no_size() { store(map(new_object(), 100), 1); }

// On Linux a mapping that is longer than the object sees it grow.
static void size_later() {
    const int fd = new_object();
    char* bytes = map(fd, 2 * kPage);
    give_size(fd, 2 * kPage);
    store(bytes + kPage, 1);
}

// Behind the end, but within its last page: nobody complains, and the object does not grow.
static void past_end() {
    const int fd = new_object();
    give_size(fd, 100);
    store(map(fd, 100) + 100, 1);
    printf("the object has %jd bytes\n", intmax_t{lseek(fd, 0, SEEK_END)});
    char last = 0;
    if (ftruncate(fd, 101) == -1 || pread(fd, &last, 1, 100) != 1) err(1, "ftruncate(101)");
    printf("it grows to 101 bytes: the last one is %d\n", last);
}

static void full() {
    const int fd = new_object();
    give_size(fd, kMegabyte);
    char* bytes = map(fd, kMegabyte);
    for (size_t i = 0; i < kMegabyte; i += kPage) *static_cast<volatile char*>(bytes + i) = 1;
    puts("all stores succeed");
}

// posix_fallocate returns its error; it does not set errno.
static void full_early() {
    errno = posix_fallocate(new_object(), 0, kMegabyte);
    if (errno != 0) err(1, "posix_fallocate(%zu)", kMegabyte);
    puts("posix_fallocate succeeds");
}

static void read_only_store() {
    const int fd = new_object();
    give_size(fd, kPage);
    store(map(fd, kPage, PROT_READ), 1);
}

static void read_only_object() { map(new_object(O_RDONLY), kPage); }

// The umask applies to the first two [umask(2)].
static void modes() {
    const std::string file = "failures-" + std::to_string(getpid()), object = "/" + file;
    const sigset_t before = hold_all_signals();
    const int first = shm_open(object.c_str(), O_CREAT | O_EXCL | O_RDWR, 0666);
    if (first == -1) err(1, "shm_open(%s)", object.c_str());
    if (shm_unlink(object.c_str()) == -1) err(1, "shm_unlink(%s)", object.c_str());
    const int second = open(file.c_str(), O_CREAT | O_EXCL | O_RDWR, 0666);
    if (second == -1) err(1, "open(%s)", file.c_str());
    if (unlink(file.c_str()) == -1) err(1, "unlink(%s)", file.c_str());
    const int third = shmget(IPC_PRIVATE, 100, 0666);
    if (third == -1) err(1, "shmget(IPC_PRIVATE)");
    shmid_ds segment = {};
    const int asked = shmctl(third, IPC_STAT, &segment);
    if (shmctl(third, IPC_RMID, nullptr) == -1) err(1, "shmctl(%d, IPC_RMID)", third);
    sigprocmask(SIG_SETMASK, &before, nullptr);

    struct stat it;
    if (fstat(first, &it) == -1) err(1, "fstat(%s)", object.c_str());
    printf("POSIX object %04o\n", it.st_mode & 0777);
    if (fstat(second, &it) == -1) err(1, "fstat(%s)", file.c_str());
    printf("mapped file %04o\n", it.st_mode & 0777);
    if (asked == -1) errx(1, "shmctl(%d, IPC_STAT) fails", third);
    printf("System V segment %04o\n", segment.shm_perm.mode & 0777u);
}

// Looks for a segment of 100 bytes by other sizes.
static void segment_size() {
    const key_t key = 0x66000000 + getpid();
    const size_t sizes[] = {50, 0, 200};
    int errors[3];
    const sigset_t before = hold_all_signals();
    const int id = shmget(key, 100, IPC_CREAT | IPC_EXCL | 0600);
    if (id == -1) err(1, "shmget(0x%x)", static_cast<unsigned>(key));
    for (int i = 0; i < 3; ++i) errors[i] = shmget(key, sizes[i], 0) == -1 ? errno : 0;
    if (shmctl(id, IPC_RMID, nullptr) == -1) err(1, "shmctl(%d, IPC_RMID)", id);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    for (int i = 0; i < 3; ++i) {
        errno = errors[i];
        if (errno != 0) err(1, "shmget(%zu bytes)", sizes[i]);
        printf("shmget of %zu bytes succeeds\n", sizes[i]);
    }
}

// Believes that shmdt removes the segment.
static void detach() {
    shmid_ds segment = {};
    const sigset_t before = hold_all_signals();
    const int id = shmget(IPC_PRIVATE, 100, 0600);
    if (id == -1) err(1, "shmget(IPC_PRIVATE)");
    void* address = shmat(id, nullptr, 0);
    const int detached = shmdt(address);
    const int asked = shmctl(id, IPC_STAT, &segment);
    if (shmctl(id, IPC_RMID, nullptr) == -1) err(1, "shmctl(%d, IPC_RMID)", id);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (detached == -1) errx(1, "shmat or shmdt fails");
    if (asked == -1) errx(1, "the segment is gone");
    printf("shmdt succeeds\nthe segment is there: nattch %lu\n", segment.shm_nattch);
}

static void collision() {
    for (int project : {1, 257})
        printf("ftok(\".\", %d) = 0x%08x\n", project, static_cast<unsigned>(ftok(".", project)));
}

// The same object at another address, as in a process that did not inherit the mapping.
static void pointer() {
    const int fd = new_object();
    give_size(fd, kPage);
    char* bytes = map(fd, kPage);
    char** stored = reinterpret_cast<char**>(bytes);
    *stored = bytes + 64;
    printf("here %p, stored pointer %p\n", static_cast<void*>(bytes), static_cast<void*>(*stored));
    char* elsewhere = map(fd, kPage);
    munmap(bytes, kPage);
    stored = reinterpret_cast<char**>(elsewhere);
    printf("there %p, stored pointer %p\n", static_cast<void*>(elsewhere),
           static_cast<void*>(*stored));
    store(*stored, 1);
}

// An offset from the beginning is right wherever the object is.
static void offset() {
    const int fd = new_object();
    give_size(fd, kPage);
    char* bytes = map(fd, kPage);
    *reinterpret_cast<uint32_t*>(bytes) = 64;
    char* elsewhere = map(fd, kPage);
    munmap(bytes, kPage);
    store(elsewhere + *reinterpret_cast<uint32_t*>(elsewhere), 1);
}

// A child dies in the middle of it, and leaves a lock or a wait behind.
template <class Deed>
static void die_with(Deed deed) {
    const pid_t child = spawn();
    if (child == 0) {
        deed();
        raise(SIGKILL);
    }
    if (waitpid(child, nullptr, 0) == -1) err(1, "waitpid(%d)", child);
}

static pthread_mutex_t* new_mutex(int robust) {
    const int fd = new_object();
    give_size(fd, kPage);
    auto* mutex = reinterpret_cast<pthread_mutex_t*>(map(fd, kPage));
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, robust);
    pthread_mutex_init(mutex, &attributes);
    return mutex;
}

static void dead_owner() {
    pthread_mutex_t* mutex = new_mutex(PTHREAD_MUTEX_STALLED);
    die_with([=] { pthread_mutex_lock(mutex); });
    const timespec deadline = in_seconds(1);
    errno = pthread_mutex_timedlock(mutex, &deadline);
    if (errno != 0) err(1, "pthread_mutex_timedlock(1 s)");
}

static void dead_owner_robust() {
    pthread_mutex_t* mutex = new_mutex(PTHREAD_MUTEX_ROBUST);
    die_with([=] { pthread_mutex_lock(mutex); });
    errno = pthread_mutex_lock(mutex);
    warn("pthread_mutex_lock()");
    // EOWNERDEAD: we have the lock. Here the data would be put in order, then:
    if (pthread_mutex_consistent(mutex) == 0) puts("pthread_mutex_consistent succeeds");
    pthread_mutex_unlock(mutex);
}

static void dead_owner_semaphore() {
    const int fd = new_object();
    give_size(fd, kPage);
    auto* semaphore = reinterpret_cast<sem_t*>(map(fd, kPage));
    sem_init(semaphore, 1, 1);
    die_with([=] { sem_wait(semaphore); });
    const timespec deadline = in_seconds(1);
    if (sem_timedwait(semaphore, &deadline) == -1) err(1, "sem_timedwait(1 s)");
}

// Two waiters die in their wait, and nobody is left who waits. To signal should still be harmless.
static void dead_waiter() {
    pthread_mutex_t* mutex = new_mutex(PTHREAD_MUTEX_ROBUST);
    auto* condition = reinterpret_cast<pthread_cond_t*>(mutex + 1);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(condition, &attributes);
    for (const char* waiter : {"first", "second"}) {
        die_with([=] {
            pthread_mutex_lock(mutex);
            alarm(1);  // its default ends the process, in the wait
            pthread_cond_wait(condition, mutex);
        });
        printf("the %s waiter is dead; pthread_cond_signal: ", waiter);
        fflush(stdout);
        alarm(2);
        pthread_cond_signal(condition);
        alarm(0);
        puts("returns");
    }
}

constexpr Word kMistakes[] = {{"no-size", no_size},
                              {"size-later", size_later},
                              {"past-end", past_end},
                              {"full", full},
                              {"full-early", full_early},
                              {"read-only-store", read_only_store},
                              {"read-only-object", read_only_object},
                              {"umask", modes},
                              {"segment-size", segment_size},
                              {"shmdt", detach},
                              {"ftok", collision},
                              {"pointer", pointer},
                              {"offset", offset},
                              {"dead-owner", dead_owner},
                              {"dead-owner-robust", dead_owner_robust},
                              {"dead-owner-semaphore", dead_owner_semaphore},
                              {"dead-waiter", dead_waiter}};

int main(int argc, char** argv) {
    setvbuf(stdout, nullptr, _IOLBF, 0);  // in order with stderr
    const auto make = find_word(kMistakes, argc, argv);
    signal(SIGCHLD, SIG_DFL);  // ignored, waitpid would find no child
    const pid_t child = spawn();
    if (child == 0) {
        // SIGTERM instead of SIGKILL when the parent ends: it can be held back for a moment.
        for (int number : {SIGTERM, SIGBUS, SIGSEGV, SIGALRM}) signal(number, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        make();
        return done(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    if (WIFSIGNALED(status))
        errx(1, "killed by signal %d, %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return WEXITSTATUS(status);
}
