// The exchange over a System V segment: shmget + shmat.
//
//     g++ -o shm_v shm_v.cc && ./shm_v
//
// The segment has a key, 0x12345678, and an id that the kernel chooses; the shell sees it with
// ipcs. It stays until somebody removes it or the machine restarts [shmget(2), shmop(2),
// shmctl(2)].

#include <sys/ipc.h>
#include <sys/shm.h>

#include "../common/exchange.h"

static const char* name() { return options.name.c_str(); }

static key_t key() {
    const auto value = number(options.name, 0xffffffff);
    if (value == IPC_PRIVATE) errx(2, "key 0 is IPC_PRIVATE: nobody else would find the segment");
    return static_cast<key_t>(value);
}

// The command that shows the segment's row.
static std::string row() {
    char word[16];
    snprintf(word, sizeof word, "0x%08x", static_cast<unsigned>(key()));
    return std::string("ipcs -m | grep ") + word;
}

// Ends the program after a failed shmget: says what bears the key, and which commands help.
[[noreturn]] static void fail_shmget() {
    const bool limit = errno == ENOSPC;
    warn("shmget(%s)", name());
    if (limit) fprintf(stderr, "  a limit of the kernel is reached, not of a disk: ipcs -lm\n");
    const int id = shmget(key(), 0, 0);
    if (id == -1) exit(1);
    shmid_ds it;
    if (shmctl(id, IPC_STAT, &it) == 0)
        fprintf(stderr, "  it is a segment of %s, %zu bytes, nattch %lu, made by process %d\n",
                user_name(it.shm_perm.uid).c_str(), it.shm_segsz, it.shm_nattch, it.shm_cpid);
    fprintf(stderr, "  look at it: %s\n  remove it: %s\n         or: ipcrm -m %d\n", row().c_str(),
            command("remove").c_str(), id);
    exit(1);
}

static int create() {
    // Make the segment, of one size for good; IPC_EXCL: never take over one that exists.
    static int id;
    hold_signals();
    id = shmget(key(), kBytes, IPC_CREAT | IPC_EXCL | 0644);
    if (id == -1) fail_shmget();
    on_stop([] { shmctl(id, IPC_RMID, nullptr); });
    note("shmget(%s, %zu, IPC_CREAT | IPC_EXCL | 0644) = %d", name(), kBytes, id);
    look(row());
    return id;
}

static Items* attach(int id, int flags) {
    // Attach it, at an address that the kernel chooses. With SHM_RDONLY a store would be SIGSEGV.
    void* address = shmat(id, nullptr, flags);
    if (address == reinterpret_cast<void*>(-1)) err(1, "shmat(%s)", name());
    note("shmat(%d, NULL, %s) = %p", id, flags == SHM_RDONLY ? "SHM_RDONLY" : "0", address);
    look(row());
    return static_cast<Items*>(address);
}

static void detach(const Items* items) {
    // End this process's attachment; the segment stays.
    if (shmdt(items) == -1) err(1, "shmdt(%s)", name());
    note("shmdt(%p) = 0", static_cast<const void*>(items));
}

static void remove_segment(int id) {
    // Remove the key now; the memory goes with the last attachment.
    hold_signals();
    if (shmctl(id, IPC_RMID, nullptr) == -1) err(1, "shmctl(%s, IPC_RMID)", name());
    on_stop(nullptr);
    note("shmctl(%d, IPC_RMID) = 0", id);
    look(row() + " || echo gone");
}

static int exchange() {
    const int id = create();
    Items* items = init_items(attach(id, 0));
    // fork inherits the attachment: parent and child see the same bytes.
    const pid_t child = spawn();
    if (child == 0) {
        receive_items(items);
        detach(items);
        return 0;
    }
    note("fork() = %d", child);
    look(row());
    send_items(items);
    const int status = report_child(child);
    look(row());
    detach(items);
    look(row());
    remove_segment(id);
    return status;
}

static int write_items() {
    Items* items = init_items(attach(create(), 0));
    send_items(items);
    detach(items);
    on_stop(nullptr);  // it stays, as asked
    look(row());
    return 0;
}

// Finds a segment by its key, and refuses one that is not ours or has less than `least` bytes.
static int find(size_t least, off_t* bytes = nullptr) {
    const int id = shmget(key(), 0, 0);
    if (id == -1) err(1, "shmget(%s)", name());
    note("shmget(%s, 0, 0) = %d", name(), id);
    shmid_ds it;
    if (shmctl(id, IPC_STAT, &it) == -1) err(1, "shmctl(%s, IPC_STAT)", name());
    check_object(name(), it.shm_perm.uid, it.shm_segsz, least);
    if (bytes) *bytes = static_cast<off_t>(it.shm_segsz);
    return id;
}

static int read_items() {
    Items* items = attach(find(kBytes), SHM_RDONLY);
    print_items(items);
    detach(items);
    return 0;
}

static int resize() {
    checked_copy(attach(find(kBytes), SHM_RDONLY));
    // There is no call for it: shmget with a larger size is the nearest, and the kernel refuses.
    if (shmget(key(), options.bytes, 0) == -1)
        warn("shmget(%s, %jd)", name(), intmax_t{options.bytes});
    errx(1, "%s: shmget fixed the size when it made the segment; remove it and make another",
         name());
}

static int remove_existing() {
    off_t bytes;
    const int id = find(0, &bytes);
    Items* items = attach(id, SHM_RDONLY);
    check_removable(name(), items->magic, bytes);
    detach(items);
    remove_segment(id);
    return 0;
}

int main(int argc, char** argv) {
    return run(argc, argv, "0x12345678",
               {exchange, write_items, read_items, resize, remove_existing});
}
