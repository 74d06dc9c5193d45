// How processes that share memory agree on it, and what goes wrong when they do not: each by one
// word on the command line. docs/agreeing.md goes through them. What they share has no name, and is
// inherited by fork.

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/sem.h>

#include "../common/exchange.h"
#include "../common/process.h"
#include "words.h"

constexpr int kTimes = 1000000;
constexpr unsigned kPatience = 250;  // seconds: an emulated machine is slow
constexpr long kBoth = 2L * kTimes;  // what the counter of two should be

// Fresh bytes, all 0, which our children see, too [mmap(2)].
template <class T>
static T* share() {
    void* address =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu bytes)", sizeof(T));
    return static_cast<T*>(address);
}

static double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Two processes do it at the same time, as number 0 and number 1. Returns the seconds.
template <class Deed>
static double both(Deed deed) {
    int* arrived = share<int>();
    const pid_t child = spawn();
    __atomic_add_fetch(arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < 2) sched_yield();
    const double begin = seconds();
    deed(child == 0 ? 1 : 0);
    if (child == 0) _exit(0);
    wait_for(child, kPatience);
    return seconds() - begin;
}

// A child does it, for ever or until it is killed.
template <class Deed>
static pid_t begin(Deed deed) {
    const pid_t child = spawn();
    if (child != 0) return child;
    deed();
    _exit(0);
}

static void end(pid_t child) {
    kill(child, SIGKILL);
    if (waitpid(child, nullptr, 0) == -1) err(1, "waitpid(%d)", child);
}

// Returns once that process sleeps, as one does that waits for a lock [proc(5), proc_pid_stat(5)].
static void until_asleep(pid_t pid) {
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    for (char text[512] = ""; strstr(text, ") S ") == nullptr; sched_yield()) {
        const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd == -1) err(1, "open(%s)", path.c_str());
        if (read(fd, text, sizeof text - 1) <= 0) err(1, "read(%s)", path.c_str());
        close(fd);
    }
}

// ---- a counter: two processes add 1 to it

struct Counter {
    volatile long value;  // volatile: each addition is to happen in memory
    sem_t semaphore;
    pthread_mutex_t mutex;
};

static void say_sum(long sum) {
    printf("%d times 1 from each of two: %ld, lost %ld\n", kTimes, sum, kBoth - sum);
}

static void add_one(Counter* counter) {
    const long seen = counter->value;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);  // or the compiler may join the two lines
    counter->value = seen + 1;
}

static void add_plain() {
    auto* counter = share<Counter>();
    // Mostly one try is enough. On one processor, which takes turns, it may need several.
    for (int tries = 0; tries < 500 && (tries == 0 || counter->value == kBoth); ++tries) {
        counter->value = 0;
        both([=](int) {
            for (int i = 0; i < kTimes; ++i) add_one(counter);
        });
    }
    say_sum(counter->value);
}

static void add_semaphore() {
    auto* counter = share<Counter>();
    if (sem_init(&counter->semaphore, 1, 1) == -1) err(1, "sem_init()");
    both([=](int) {
        for (int i = 0; i < kTimes; ++i) {
            while (sem_wait(&counter->semaphore) == -1) continue;  // EINTR: a signal came
            add_one(counter);
            sem_post(&counter->semaphore);
        }
    });
    say_sum(counter->value);
}

static void init_mutex(pthread_mutex_t* mutex, int robust) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, robust);
    errno = pthread_mutex_init(mutex, &attributes);
    if (errno != 0) err(1, "pthread_mutex_init()");
}

static void add_mutex() {
    auto* counter = share<Counter>();
    init_mutex(&counter->mutex, PTHREAD_MUTEX_STALLED);
    both([=](int) {
        for (int i = 0; i < kTimes; ++i) {
            pthread_mutex_lock(&counter->mutex);
            add_one(counter);
            pthread_mutex_unlock(&counter->mutex);
        }
    });
    say_sum(counter->value);
}

static void add_atomic() {
    auto* counter = share<Counter>();
    both([=](int) {
        for (int i = 0; i < kTimes; ++i) __atomic_fetch_add(&counter->value, 1, __ATOMIC_RELAXED);
    });
    say_sum(counter->value);
}

// ---- a letter: one writes it, and says by a number that it is there

struct Letter {
    long text, magic;
};

// The writer goes from letter 1 to 2, 3 and so on. Looks until a letter is announced that is not
// there, or so many times.
static void read_letters(const Letter* letter, pid_t writer, int times) {
    int early = 0;
    for (int i = 0; i < times && early == 0; ++i) {
        const long magic = __atomic_load_n(&letter->magic, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&letter->text, __ATOMIC_ACQUIRE) < magic) ++early;
    }
    end(writer);
    puts(early > 0 ? "a letter was announced that was not there" : "each letter was there");
}

static void magic_first() {
    auto* letter = share<Letter>();
    const pid_t writer = begin([=] {
        for (int64_t i = 1; true; ++i) {
            __atomic_store_n(&letter->magic, i, __ATOMIC_RELEASE);
            __atomic_store_n(&letter->text, i, __ATOMIC_RELEASE);
        }
    });
    read_letters(letter, writer, INT32_MAX);
}

static void magic_last() {
    auto* letter = share<Letter>();
    const pid_t writer = begin([=] {
        for (int64_t i = 1; true; ++i) {
            __atomic_store_n(&letter->text, i, __ATOMIC_RELAXED);
            __atomic_store_n(&letter->magic, i, __ATOMIC_RELEASE);
        }
    });
    read_letters(letter, writer, 10 * kTimes);
}

// ---- two flags: each process raises its own, then looks at the other's

struct Flags {
    int round[2];  // where each of the two is
    int last;      // not 0: the round to stop at
    struct alignas(64) {
        int up[2], seen[2];
    } at[100000];
};

// In step, round by round, for a second at most. Says in how many rounds neither saw the other.
template <int store, int load>
static void raise_flags(const char* orders) {
    auto* flags = share<Flags>();
    const double begin = seconds();
    both([=](int me) {
        for (int i = 0; i < 100000; ++i) {
            if (me == 0 && flags->last == 0 && seconds() > begin + 1) flags->last = i;
            __atomic_store_n(&flags->round[me], i + 1, __ATOMIC_RELEASE);
            // Spins a while, so that both go on at the same moment.
            for (int looks = 0; __atomic_load_n(&flags->round[1 - me], __ATOMIC_ACQUIRE) <= i;)
                if (++looks > 1000) sched_yield();
            if (flags->last != 0 && i >= flags->last) break;
            __atomic_store_n(&flags->at[i].up[me], 1, store);
            flags->at[i].seen[me] = __atomic_load_n(&flags->at[i].up[1 - me], load);
        }
    });
    int rounds = 0, missed = 0;
    for (const auto& it : flags->at) {
        if (it.up[0] == 1) ++rounds;
        if (it.up[0] == 1 && it.seen[0] == 0 && it.seen[1] == 0) ++missed;
    }
    printf("%s: neither saw the other in %d of %d rounds\n", orders, missed, rounds);
}

static void flags_release() { raise_flags<__ATOMIC_RELEASE, __ATOMIC_ACQUIRE>("release, acquire"); }
static void flags_ordered() { raise_flags<__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST>("seq_cst"); }

// ---- a semaphore for threads, a semaphore for processes

static void wait_for_post(int pshared, time_t patience) {
    auto* ready = share<sem_t>();
    if (sem_init(ready, pshared, 0) == -1) err(1, "sem_init()");
    const pid_t child = begin([=] {
        const timespec deadline = in_seconds(patience);
        while (sem_timedwait(ready, &deadline) == -1)
            if (errno != EINTR) err(1, "sem_timedwait(%jd s)", intmax_t{patience});
        puts("woken");
        fflush(stdout);
    });
    until_asleep(child);
    sem_post(ready);
    if (waitpid(child, nullptr, 0) == -1) err(1, "waitpid(%d)", child);
    int value;
    sem_getvalue(ready, &value);
    printf("the semaphore's value: %d\n", value);
}

static void pshared_0() { wait_for_post(0, 1); }
static void pshared_1() { wait_for_post(1, 30); }

// ---- a record lock: the kernel's, on a byte of a file

static int new_file() {
    const int fd = memfd_create("locked", MFD_CLOEXEC);
    if (fd == -1) err(1, "memfd_create()");
    return fd;
}

// Locks the first byte [fcntl(2)]; F_SETLKW waits for it, F_SETLK does not.
static int lock_byte(int fd, int how) {
    struct flock byte = {};
    byte.l_type = F_WRLCK;
    byte.l_len = 1;
    return fcntl(fd, how, &byte);
}

static void record_lock() {
    const int fd = new_file();
    int* locked = share<int>();
    const pid_t owner = begin([=] {
        __atomic_store_n(locked, lock_byte(fd, F_SETLK) == 0, __ATOMIC_RELEASE);
        while (true) pause();
    });
    while (__atomic_load_n(locked, __ATOMIC_ACQUIRE) == 0) sched_yield();
    if (lock_byte(fd, F_SETLK) == -1) warn("fcntl(F_SETLK)");
    end(owner);
    if (lock_byte(fd, F_SETLK) == -1) err(1, "fcntl(F_SETLK)");
    puts("the owner is dead; fcntl(F_SETLK) succeeds");
}

// ---- the same with owner and waiter in two PID namespaces, each of them process 1

struct Place {
    pthread_mutex_t mutex;
    int inside;
    pid_t pid;
};

// Does it as process 1. Returns a process that ends when that one does; Place::pid is that one.
template <class Deed>
static pid_t elsewhere(Place* place, Deed deed) {
    __atomic_store_n(&place->pid, 0, __ATOMIC_SEQ_CST);
    const pid_t between = begin([=] {
        if (unshare(CLONE_NEWUSER | CLONE_NEWPID) == -1) err(1, "unshare()");
        const pid_t child = fork();
        if (child == -1) err(1, "fork()");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            deed();
            _exit(0);
        }
        __atomic_store_n(&place->pid, child, __ATOMIC_SEQ_CST);
        waitpid(child, nullptr, 0);
    });
    while (__atomic_load_n(&place->pid, __ATOMIC_SEQ_CST) == 0)
        if (waitpid(between, nullptr, WNOHANG) != 0) errx(1, "no namespace");
    return between;
}

// The owner takes the lock and keeps it, the waiter waits for it and is killed.
template <class Lock>
static pid_t kill_waiter(Place* place, Lock lock) {
    const pid_t owner = elsewhere(place, [=] {
        lock();
        __atomic_store_n(&place->inside, 1, __ATOMIC_SEQ_CST);
        while (true) pause();
    });
    while (__atomic_load_n(&place->inside, __ATOMIC_SEQ_CST) == 0) sched_yield();
    const pid_t waiter = elsewhere(place, lock);
    until_asleep(place->pid);
    kill(place->pid, SIGKILL);
    if (waitpid(waiter, nullptr, 0) == -1) err(1, "waitpid(%d)", waiter);
    puts("the owner is inside, the waiter is killed");
    return owner;
}

static void namespaces_mutex() {
    auto* place = share<Place>();
    init_mutex(&place->mutex, PTHREAD_MUTEX_ROBUST);
    const pid_t owner = kill_waiter(place, [=] { pthread_mutex_lock(&place->mutex); });
    errno = pthread_mutex_trylock(&place->mutex);
    if (errno != 0) warn("pthread_mutex_trylock()");
    end(owner);
}

static void namespaces_record() {
    auto* place = share<Place>();
    const int fd = new_file();
    const pid_t owner = kill_waiter(place, [=] { lock_byte(fd, F_SETLKW); });
    if (lock_byte(fd, F_SETLK) == -1) warn("fcntl(F_SETLK)");
    end(owner);
}

// ---- for programs that are not related

static volatile sig_atomic_t stopped;

static void named_wait() {
    handle_stops([](int number) { stopped = number; }, 0);  // the name is to go at our end
    sem_t* ready = sem_open("/ready", O_CREAT | O_EXCL, 0600, 0);
    if (ready == SEM_FAILED) err(1, "sem_open(/ready)");
    puts("waits for /ready");
    timespec second = in_seconds(1);
    while (stopped == 0 && sem_timedwait(ready, &second) == -1) second = in_seconds(1);
    if (sem_unlink("/ready") == -1) err(1, "sem_unlink(/ready)");
    if (stopped != 0) end_by(stopped);
    puts("woken");
}

static void named_post() {
    sem_t* ready = sem_open("/ready", 0);
    if (ready == SEM_FAILED) err(1, "sem_open(/ready)");
    if (sem_post(ready) == -1) err(1, "sem_post(/ready)");
}

// A child takes a System V semaphore from 1 to 0 and dies.
static void take_and_die(short flag) {
    hold_all_signals();  // a set has no owner who takes it along
    const int set = semget(IPC_PRIVATE, 1, 0600);
    if (set == -1) err(1, "semget(IPC_PRIVATE)");
    semctl(set, 0, SETVAL, 1);
    const pid_t child = fork();
    if (child == 0) {
        sembuf take = {0, -1, flag};
        semop(set, &take, 1);
        _exit(0);
    }
    waitpid(child, nullptr, 0);
    const int value = semctl(set, 0, GETVAL);
    if (semctl(set, 0, IPC_RMID) == -1) err(1, "semctl(%d, IPC_RMID)", set);
    printf("the owner is dead, the semaphore's value: %d\n", value);
}

static void undo() { take_and_die(SEM_UNDO); }
static void no_undo() { take_and_die(0); }

// ---- a pair that must match: one writer, many readers

struct Pair {
    unsigned count;  // odd while the writer is at work
    long left, right;
};

static void write_pair(Pair* pair, long value) {
    __atomic_store_n(&pair->left, value, __ATOMIC_RELAXED);
    __atomic_store_n(&pair->right, value, __ATOMIC_RELAXED);
}

static bool read_pair(const Pair* pair) {
    const long left = __atomic_load_n(&pair->left, __ATOMIC_RELAXED);
    return left == __atomic_load_n(&pair->right, __ATOMIC_RELAXED);
}

static void say_pairs(pid_t writer, bool torn) {
    end(writer);
    puts(torn ? "a pair that does not match" : "all pairs match");
}

static void pair_plain() {
    auto* pair = share<Pair>();
    const pid_t writer = begin([=] {
        for (int64_t i = 1; true; ++i) write_pair(pair, i);
    });
    while (read_pair(pair)) continue;
    say_pairs(writer, true);
}

static void pair_seqlock() {
    auto* pair = share<Pair>();
    const pid_t writer = begin([=] {
        for (int64_t i = 1; true; ++i) {
            __atomic_store_n(&pair->count, 2 * i - 1, __ATOMIC_RELAXED);
            __atomic_thread_fence(__ATOMIC_RELEASE);
            write_pair(pair, i);
            __atomic_store_n(&pair->count, 2 * i, __ATOMIC_RELEASE);
        }
    });
    bool torn = false;
    for (int i = 0; i < kTimes && !torn;) {
        const unsigned before = __atomic_load_n(&pair->count, __ATOMIC_ACQUIRE);
        const bool match = read_pair(pair);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (before % 2 == 1 || __atomic_load_n(&pair->count, __ATOMIC_RELAXED) != before) continue;
        torn = !match;
        ++i;
    }
    say_pairs(writer, torn);
}

// ---- two counters, one for each: in one cache line, and far apart

static void neighbours() {
    auto* counters = share<volatile long[64]>();
    for (int apart : {8, 256}) {
        double best = 1e9;
        for (int round = 0; round < 5; ++round) {
            const double took = both([=](int who) {
                volatile long* mine = *counters + who * apart / 8;
                for (int i = 0; i < 10 * kTimes; ++i) *mine = *mine + 1;
            });
            if (took < best) best = took;
        }
        printf("%3d bytes apart: %.1f ns for each addition\n", apart, best * 1e9 / (10 * kTimes));
    }
}

constexpr Word kWords[] = {{"add-plain", add_plain},
                           {"add-semaphore", add_semaphore},
                           {"add-mutex", add_mutex},
                           {"add-atomic", add_atomic},
                           {"magic-first", magic_first},
                           {"magic-last", magic_last},
                           {"flags-release", flags_release},
                           {"flags-ordered", flags_ordered},
                           {"pshared-0", pshared_0},
                           {"pshared-1", pshared_1},
                           {"record-lock", record_lock},
                           {"namespaces-mutex", namespaces_mutex},
                           {"namespaces-record", namespaces_record},
                           {"named-wait", named_wait},
                           {"named-post", named_post},
                           {"undo", undo},
                           {"no-undo", no_undo},
                           {"pair-plain", pair_plain},
                           {"pair-seqlock", pair_seqlock},
                           {"neighbours", neighbours}};

int main(int argc, char** argv) {
    prepare();
    setvbuf(stdout, nullptr, _IOLBF, 0);  // in order with stderr
    const auto act = find_word(kWords, argc, argv);
    if (act != named_wait) give_up_in(kPatience);  // should the other process be killed
    act();
    return done(0);
}
