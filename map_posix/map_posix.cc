// The exchange over a mapped file: open + mmap.
//
//     g++ -o map_posix map_posix.cc -lrt && ./map_posix        (add -pthread before glibc 2.34)
//
// The object is a file, ./tmp.shm. It stays until somebody unlinks it, after a restart of the
// machine, too: the kernel writes its bytes to the disk in its own time [open(2), mmap(2),
// unlink(2)].

#include <sys/mman.h>

#include "../common/exchange.h"

static const char* name = "./tmp.shm";

// Makes the object, for this user only. O_EXCL: never take over one that exists.
static int create() {
    const int fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd == -1 && errno == EEXIST) taken("open", "", name);
    if (fd == -1) err(1, "open(%s)", name);
    return fd;
}

static Items* map(int fd) {
    // Give it its size: a new object has 0 bytes, and touching it would be SIGBUS.
    if (ftruncate(fd, kBytes) == -1) return failed("ftruncate", name);

    // Reserve the space: if there is none, that is ENOSPC here instead of SIGBUS at a store. This
    // call returns its error, and does not set errno.
    if ((errno = posix_fallocate(fd, 0, kBytes)) != 0) return failed("posix_fallocate", name);

    // MAP_SHARED: stores reach the object and all who map it.
    void* address = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return failed("mmap", name);

    // The mapping keeps the object; the descriptor has done its work.
    if (close(fd) == -1) return failed("close", name);
    return static_cast<Items*>(address);
}

static int exchange() {
    // No signal ends us between making the object and removing its name.
    const sigset_t before = hold_all_signals();
    const int fd = create();
    // Remove the name at once: parent and child share by inheriting, and whoever is killed from
    // here on leaves nothing behind. Programs that are not related need it: see write and read.
    if (unlink(name) == -1) err(1, "unlink(%s)", name);
    Items* items = map(fd);
    if (items == nullptr) return 1;
    sigprocmask(SIG_SETMASK, &before, nullptr);

    // The semaphore lies in the shared bytes. 1: it is for several processes, which not every
    // system can do [sem_init(3)].
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");

    const pid_t parent = getpid();
    const pid_t child = fork();  // inherits the mapping: both see the same bytes
    if (child == -1) err(1, "fork()");
    if (child == 0) {
        // Go with the parent, however it ends; it may have ended before we asked for that.
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl(PR_SET_PDEATHSIG)");
        if (getppid() != parent) errx(1, "the parent is gone");
        printf("Child %d: start\n", getpid());
        // Wait until the items are there; a signal may interrupt that.
        const timespec deadline = in_seconds(10);
        while (sem_timedwait(&items->ready, &deadline) == -1)
            if (errno != EINTR) err(1, "sem_timedwait(ready, 10 s)");
        print_items(items);
        return done(0);
    }
    store_items(items);
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    if (WIFSIGNALED(status)) errx(1, "the child was killed: %s", strsignal(WTERMSIG(status)));
    printf("Parent %d get child status:%d\n", parent, WEXITSTATUS(status));
    if (munmap(items, kBytes) == -1) err(1, "munmap(%s)", name);
    return done(status != 0);
}

// Leaves the object behind, with its name.
static int write_items() {
    hold_all_signals();  // to the end: no half-written object stays
    Items* items = map(create());
    if (items == nullptr) {  // nobody could use it: so it goes again
        if (unlink(name) == -1) err(1, "unlink(%s)", name);
        return 1;
    }
    store_items(items);
    return 0;
}

static int read_items() {
    // O_NONBLOCK: do not wait at a FIFO that somebody gave this name. O_NOFOLLOW: no links.
    const int fd = open(name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1) err(1, "open(%s)", name);
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", name);
    if (!S_ISREG(it.st_mode) || it.st_uid != geteuid() || it.st_size < off_t{kBytes})
        errx(1, "%s is not, or not yet, a file of yours with %zu bytes", name, kBytes);
    void* address = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(%s)", name);
    print_items(static_cast<Items*>(address));
    return done(0);
}

int main(int argc, char** argv) {
    const char* verb = read_command(argc, argv, &name);
    if (strcmp(verb, "exchange") == 0) return exchange();
    if (strcmp(verb, "write") == 0) return write_items();
    if (strcmp(verb, "read") == 0) return read_items();
    errx(2, "'%s' is not exchange, write or read; see --help", verb);
}
