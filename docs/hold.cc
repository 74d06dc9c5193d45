// Holds an object of the three programs, so that you can look at it from outside. At its end it
// says which name it still reads there.

#include <sys/mman.h>
#include <sys/shm.h>

#include "../common/exchange.h"
#include "../common/process.h"

constexpr char kUsage[] =
    "usage: hold posix /tmp | file ./tmp.shm | key 0x12345678 | id 7  [fork | exec COMMAND...]\n"
    "  maps the object or attaches the segment, and waits: for TERM, INT, HUP, QUIT, or an hour\n"
    "  fork  a child holds it too\n"
    "  exec  becomes that command while it holds it\n";

// Maps the object behind a descriptor, which `call` has returned [mmap(2)].
static const Items* map(const char* call, int fd, const char* name) {
    if (fd == -1) err(1, "%s(%s)", call, name);
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", name);
    if (!S_ISREG(it.st_mode) || it.st_size < off_t{kBytes})
        errx(1, "%s is not a file with %zu bytes", name, kBytes);
    void* address = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(%s)", name);
    close(fd);
    return static_cast<const Items*>(address);
}

// Attaches the segment of this id [shmop(2)].
static const Items* attach(int id, const char* name) {
    if (id == -1) err(1, "shmget(%s)", name);
    void* address = shmat(id, nullptr, SHM_RDONLY);
    if (address == reinterpret_cast<void*>(-1)) err(1, "shmat(%d)", id);
    shmid_ds it;
    if (shmctl(id, IPC_STAT, &it) == -1) err(1, "shmctl(%d, IPC_STAT)", id);
    if (it.shm_segsz < kBytes) errx(1, "%s is not a segment with %zu bytes", name, kBytes);
    return static_cast<const Items*>(address);
}

static const Items* hold(const std::string& kind, const char* name) {
    const int flags = O_RDONLY | O_NONBLOCK;  // O_NONBLOCK: do not wait at a FIFO
    if (kind == "posix") return map("shm_open", shm_open(name, flags, 0), name);
    if (kind == "file") return map("open", open(name, flags), name);
    if (kind == "id") return attach(static_cast<int>(number(name, INT32_MAX)), name);
    if (kind != "key") errx(2, "'%s' is not posix, file, key or id; see --help", kind.c_str());
    return attach(shmget(static_cast<key_t>(number(name, UINT32_MAX)), 0, 0), name);
}

// The first name, from a copy: others may change the original.
static std::string first_name(const Items* shared) {
    const Items items = *shared;
    __atomic_signal_fence(__ATOMIC_ACQ_REL);  // the compiler must not read the original again
    if (!memchr(items.name[0], '\0', sizeof items.name[0])) errx(1, "the first name has no end");
    return items.name[0];
}

int main(int argc, char** argv) {
    const std::string first = argc > 1 ? argv[1] : "", way = argc > 3 ? argv[3] : "";
    if (first == "--help") {
        fputs(kUsage, stdout);
        return done(0);
    }
    if (argc < 3 || (argc > 3 && !(way == "fork" && argc == 4) && !(way == "exec" && argc > 4))) {
        fputs(kUsage, stderr);
        return 2;
    }
    const Items* items = hold(first, argv[2]);
    first_name(items);
    if (way == "exec") {
        execvp(argv[4], argv + 4);
        err(1, "execvp(%s)", argv[4]);
    }
    if (way == "fork" && spawn() == 0)
        while (true) pause();  // until its parent ends

    // Blocked, a signal waits for sigwait(3). That goes on waiting after a stop and a SIGCONT.
    sigset_t ends;
    sigemptyset(&ends);
    for (int end : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM}) sigaddset(&ends, end);
    sigprocmask(SIG_BLOCK, &ends, nullptr);
    signal(SIGPIPE, SIG_IGN);  // a reader that left is an error, which done() reports
    signal(SIGXFSZ, SIG_IGN);  // beyond ulimit -f: likewise
    printf("%d holds %s\n", getpid(), argv[2]);
    done(0);
    alarm(3600);
    int end;
    sigwait(&ends, &end);
    printf("%d reads %s\n", getpid(), first_name(items).c_str());
    return done(0);
}
