// Holds an object, so that you can look at it from outside:
//
//     docs/hold posix /tmp &          docs/hold file ./tmp.shm &
//     docs/hold key 0x12345678 &      docs/hold id 32769 &
//
// It ends at `kill`, and then says what it still reads there; or after an hour. One word more,
// `fork`, has a child hold the object too; `exec COMMAND...` becomes that command while it holds
// it.

#include <sys/mman.h>
#include <sys/shm.h>

#include "../common/exchange.h"
#include "../common/process.h"

// Maps the object behind a descriptor [mmap(2)].
static const Items* map(int fd, const char* name) {
    if (fd == -1) err(1, "open(%s)", name);
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
    return static_cast<const Items*>(address);
}

static const Items* hold(const std::string& kind, const char* name) {
    if (kind == "posix") return map(shm_open(name, O_RDONLY, 0), name);
    if (kind == "file") return map(open(name, O_RDONLY), name);
    if (kind == "id") return attach(static_cast<int>(number(name, INT32_MAX)), name);
    if (kind != "key") errx(2, "'%s' is not posix, file, key or id", kind.c_str());
    return attach(shmget(static_cast<key_t>(number(name, UINT32_MAX)), 0, 0), name);
}

int main(int argc, char** argv) {
    if (argc < 3) errx(2, "needs posix|file|key|id NAME [fork | exec COMMAND...]");
    const std::string way = argc > 3 ? argv[3] : "";
    const Items* items = hold(argv[1], argv[2]);
    if (way == "exec" && argc > 4) {
        execvp(argv[4], argv + 4);
        err(1, "execvp(%s)", argv[4]);
    }
    if (way == "fork" && spawn() == 0) pause();  // until its parent ends
    hold_signals(SIG_BLOCK);
    printf("%d holds %s\n", getpid(), argv[2]);
    fflush(stdout);
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    const timespec hour = {3600, 0};
    if (sigtimedwait(&end, nullptr, &hour) == SIGTERM)
        printf("%d reads %s\n", getpid(), items->name[0]);
    return fflush(stdout) != 0;
}
