// The exchange over a mapped file: open + mmap.
//
//     g++ -o map_posix map_posix.cc && ./map_posix
//
// The object is an ordinary file, ./tmp.shm. It stays until somebody unlinks it; a restart of the
// machine ends it only if its file system does not last, as a tmpfs [open(2), mmap(2)].

#include <fcntl.h>
#include <sys/mman.h>

#include <filesystem>

#include "../common/exchange.h"

static const char* name() { return options.name.c_str(); }

// Where the shell sees the object, from any directory.
static std::string path() {
    std::error_code error;
    const auto file = std::filesystem::absolute(options.name, error);
    const auto directory = std::filesystem::canonical(file.parent_path(), error);
    return error ? options.name : (directory / file.filename()).string();
}

static Items* map(int fd, int protection) {
    // MAP_SHARED: stores reach the object and all who map it. Without PROT_WRITE they are SIGSEGV.
    void* address = mmap(nullptr, kBytes, protection, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(%s)", name());
    note("mmap(NULL, %zu, PROT_READ%s, MAP_SHARED, %d, 0) = %p", kBytes,
         protection & PROT_WRITE ? " | PROT_WRITE" : "", fd, address);
    return static_cast<Items*>(address);
}

static Items* create() {
    // Make the object; O_EXCL: never take over one that exists.
    hold_signals();
    const int fd = open(name(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (fd == -1) fail_open("open", path);
    remember(fd, path());
    on_stop([] {
        if (still_made()) unlink(name());
    });
    note("open(\"%s\", O_CREAT | O_EXCL | O_RDWR, 0600) = %d", name(), fd);
    look("ls -l " + shell_word(path()));

    // Give it its size: a new object has 0 bytes, and touching it would be SIGBUS.
    if (ftruncate(fd, kBytes) == -1) err(1, "ftruncate(%s)", name());
    note("ftruncate(%d, %zu) = 0", fd, kBytes);
    look("ls -ls " + shell_word(path()));

    // Reserve the space: if there is none, that is ENOSPC here instead of SIGBUS at the store.
    while ((errno = posix_fallocate(fd, 0, kBytes)) == EINTR) continue;
    if (errno != 0) err(1, "posix_fallocate(%s)", name());
    note("posix_fallocate(%d, 0, %zu) = 0", fd, kBytes);
    look("ls -ls " + shell_word(path()));

    Items* items = map(fd, PROT_READ | PROT_WRITE);
    look("grep -F " + shell_word(path()) + maps(getpid()));

    // The mapping keeps the object; the descriptor has done its work.
    close(fd);
    note("close(%d) = 0", fd);
    return items;
}

static void unmap(Items* items) {
    // End this process's mapping; the object stays.
    if (munmap(items, kBytes) == -1) err(1, "munmap(%s)", name());
    note("munmap(%p, %zu) = 0", static_cast<void*>(items), kBytes);
}

static void unlink_object() {
    // Remove the name now; the file goes with the last mapping.
    hold_signals();
    if (unlink(name()) == -1) err(1, "unlink(%s)", name());
    on_stop(nullptr);
    note("unlink(\"%s\") = 0", name());
    look("test -e " + shell_word(path()) + " || echo gone");
}

static int exchange() {
    Items* items = init_items(create());
    // fork inherits the mapping: parent and child see the same bytes.
    const pid_t child = spawn();
    if (child == 0) {
        receive_items(items);
        unmap(items);
        return 0;
    }
    note("fork() = %d", child);
    look("grep -F " + shell_word(path()) + maps(getpid()) + maps(child));
    send_items(items);
    look("cat -v " + shell_word(path()));
    const int status = report_child(child);
    unmap(items);
    look("ls -l " + shell_word(path()));
    if (!still_made()) errx(1, "%s: is another object by now: left alone", name());
    unlink_object();
    return status;
}

static int write_items() {
    Items* items = init_items(create());
    send_items(items);
    unmap(items);
    on_stop(nullptr);  // it stays, as asked
    look("cat -v " + shell_word(path()));
    return 0;
}

// Opens an object that exists, and refuses what is not a file of ours of at least `least` bytes.
static int open_existing(int access, off_t least) {
    const int fd = open(name(), access | O_NOFOLLOW | O_NONBLOCK);  // a FIFO would make us wait
    if (fd == -1) fail_open("open", path);
    note("open(\"%s\", %s | O_NOFOLLOW | O_NONBLOCK) = %d", name(),
         access == O_RDWR ? "O_RDWR" : "O_RDONLY", fd);
    check_file(fd, path(), least);
    return fd;
}

static int read_items() {
    Items* items = map(open_existing(O_RDONLY, kBytes), PROT_READ);
    look("grep -F " + shell_word(path()) + maps(getpid()));
    print_items(items);
    unmap(items);
    return 0;
}

static int resize() {
    const int fd = open_existing(O_RDWR, kBytes);
    checked_copy(map(fd, PROT_READ));
    // Any size at any time; mappings of it stay as long as they were.
    if (ftruncate(fd, options.bytes) == -1) err(1, "ftruncate(%s)", name());
    note("ftruncate(%d, %jd) = 0", fd, intmax_t{options.bytes});
    look("ls -l " + shell_word(path()));
    return 0;
}

static int remove_existing() {
    const int fd = open_existing(O_RDONLY, 0);
    uint32_t magic = 0;
    if (pread(fd, &magic, sizeof magic, 0) == -1) err(1, "pread(%s)", name());
    check_removable(path(), magic, lseek(fd, 0, SEEK_END));
    unlink_object();
    return 0;
}

int main(int argc, char** argv) {
    return run(argc, argv, "./tmp.shm",
               {exchange, write_items, read_items, resize, remove_existing});
}
