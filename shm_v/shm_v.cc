// The exchange over a System V shared memory segment: shmget + shmat.
//
//     g++ -o shm_v shm_v.cc -lrt && ./shm_v        (add -pthread before glibc 2.34)
//
// The segment has a number for a name, the key 0x12345678; the shell sees it with ipcs -m. It stays
// until somebody removes it or the machine restarts [sysvipc(7), shmget(2), shmop(2), shmctl(2)].

#include <sys/shm.h>

#include "../common/exchange.h"

static const char* name = "0x12345678";
static key_t key;  // the same as a number

// Ends the program: the key is taken. Says what helps.
[[noreturn]] static void taken() {
    warnx("shmget(%s): %s", name, strerror(EEXIST));
    shmid_ds it;
    const bool seen = shmctl(shmget(key, 0, 0), IPC_STAT, &it) == 0;
    if (seen ? it.shm_perm.uid != geteuid() : errno == EACCES)
        fprintf(stderr, "  it is another user's; take another: --name 0x%x\n",
                0x12000000 + geteuid());
    else
        fprintf(stderr, "  look at it: ipcs -m\n  remove it: ipcrm -M %s\n", name);
    exit(1);
}

// Makes the segment, for others to read. IPC_EXCL: never take over one that exists.
static int create() {
    const int id = shmget(key, kBytes, IPC_CREAT | IPC_EXCL | 0644);
    if (id == -1 && errno == EEXIST) taken();
    if (id == -1) err(1, "shmget(%s)", name);
    return id;
}

static Items* attach(int id) {
    // Stores reach the segment and all who attach it.
    void* address = shmat(id, nullptr, 0);
    if (address == reinterpret_cast<void*>(-1)) return failed("shmat", name);
    return static_cast<Items*>(address);
}

static int exchange() {
    // No signal ends us between making the segment and removing it.
    const sigset_t before = hold_all_signals();
    const int id = create();
    Items* items = attach(id);
    // Remove the segment at once, but not before shmat, or it would be gone: parent and child share
    // by inheriting, and whoever is killed from here on leaves nothing behind. Programs that are
    // not related need the key: see write and read.
    if (shmctl(id, IPC_RMID, nullptr) == -1) err(1, "shmctl(%s, IPC_RMID)", name);
    if (items == nullptr) return 1;
    sigprocmask(SIG_SETMASK, &before, nullptr);

    // The semaphore lies in the shared bytes. 1: it is for several processes, which not every
    // system can do [sem_init(3)].
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");

    const pid_t parent = getpid();
    const pid_t child = fork();  // inherits the attachment: both see the same bytes
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
    if (shmdt(items) == -1) err(1, "shmdt(%s)", name);
    return done(status != 0);
}

// Leaves the segment behind, with its key.
static int write_items() {
    hold_all_signals();  // to the end: no half-written segment stays
    const int id = create();
    Items* items = attach(id);
    if (items == nullptr) {  // nobody could use it: so it goes again
        if (shmctl(id, IPC_RMID, nullptr) == -1) err(1, "shmctl(%s, IPC_RMID)", name);
        return 1;
    }
    store_items(items);
    return 0;
}

static int read_items() {
    const int id = shmget(key, 0, 0);  // 0: of any size
    if (id == -1) err(1, "shmget(%s)", name);
    shmid_ds it;
    if (shmctl(id, IPC_STAT, &it) == -1) err(1, "shmctl(%s, IPC_STAT)", name);
    // Its maker may have given it to you, and may still write to it: so both are asked.
    const bool yours = it.shm_perm.uid == geteuid() && it.shm_perm.cuid == geteuid();
    if (!yours || it.shm_segsz < kBytes)
        errx(1, "%s is not a segment of yours with %zu bytes", name, kBytes);
    void* address = shmat(id, nullptr, SHM_RDONLY);
    if (address == reinterpret_cast<void*>(-1)) err(1, "shmat(%s)", name);
    print_items(static_cast<Items*>(address));
    return done(0);
}

int main(int argc, char** argv) {
    const char* verb = read_command(argc, argv, &name);
    char* end;
    const unsigned long long number = strtoull(name, &end, 0);
    // 0 is IPC_PRIVATE, no key: nobody else would find the segment.
    if (name[0] == '-' || *end != '\0' || number == 0 || number > UINT32_MAX)
        errx(2, "'%s' is not a key: a number from 1 to 0xffffffff", name);
    key = static_cast<key_t>(number);
    if (strcmp(verb, "exchange") == 0) return exchange();
    if (strcmp(verb, "write") == 0) return write_items();
    if (strcmp(verb, "read") == 0) return read_items();
    errx(2, "'%s' is not exchange, write or read; see --help", verb);
}
