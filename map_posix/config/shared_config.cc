// One configuration, many readers, over a mapped file: open + mmap.
//
//     g++ -o shared_config shared_config.cc
//     ./shared_config load app.conf && ./shared_config get port
//
// The loader makes an indexed image of a text (text.h) and publishes it by rename(2). Readers map
// it read-only and look keys up in it: all use the same pages [mmap(2), inotify(7)]. The bytes of
// an image are in image.h, how it is opened and mapped in file.h; what many readers cost is
// measured in readers.h.

#include <getopt.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "../../common/process.h"
#include "file.h"
#include "image.h"
#include "readers.h"
#include "text.h"

static std::string directory, next_path;  // where the image is; the next one in the making

// Why load must not write over an open file; nullptr: it is an image of this user's. `half_made`:
// or on the way to become one, that is empty, or 0 where an image begins.
static const char* not_ours(int fd, bool half_made) {
    struct stat it;
    if (fstat(fd, &it) == -1) return strerror(errno);
    if (!S_ISREG(it.st_mode)) return "is not a regular file";
    if (it.st_uid != geteuid()) return "belongs to another user";
    // An image that is published has lost its write permission.
    if (half_made && !(it.st_mode & S_IWUSR)) return "is a finished image, and stays as it is";
    uint32_t magic = 0;
    if (pread(fd, &magic, sizeof magic, 0) == -1) return strerror(errno);
    if (magic == config::kMagic || (half_made && magic == 0)) return nullptr;
    return "is not an image of ours, and stays as it is";
}

// Opens the next image in the making, for this load alone. The kernel drops the lock with its
// process [flock(2)]: so a file that nobody has locked is what a killed load left.
static int open_next(const char* next) {
    const int fd = open(next, O_CREAT | O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
    if (fd == -1) err(1, "open(%s)", next);
    const bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno != EWOULDBLOCK) err(1, "flock(%s)", next);
    // Who had the lock may have published this very file since we opened it.
    struct stat it, named;
    const bool named_so = fstat(fd, &it) == 0 && lstat(next, &named) == 0 &&
                          it.st_dev == named.st_dev && it.st_ino == named.st_ino;
    if (!locked || !named_so) errx(1, "%s: another load is at work; try again", next);
    if (const char* why = not_ours(fd, true)) errx(1, "%s: %s", next, why);
    return fd;
}

// Makes the image of a text and publishes it.
static int load(const char* file) {
    const std::string text = config::read_text(file);
    const config::Entries entries = config::parse(text, file);
    const size_t bytes = config::image_bytes(entries);
    const int parent = open(directory.c_str(), O_RDONLY | O_DIRECTORY);
    if (parent == -1) err(1, "open(%s)", directory.c_str());

    // No signal ends us from here on: what is begun is published or removed.
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);

    // Make it aside, in the same directory: rename(2) stays in one file system.
    const char* next = next_path.c_str();
    const int fd = open_next(next);
    const auto give_up = [next](const char* call, const char* argument) {
        const int why = errno;
        unlink(next);
        errno = why;
        err(1, "%s(%s)", call, argument);
    };

    // Reserve it: on a full disk that is ENOSPC here instead of SIGBUS at the store. Empty it
    // first, of what a killed load left.
    if (ftruncate(fd, 0) == -1) give_up("ftruncate", next);
    errno = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
    if (errno != 0) give_up("posix_fallocate", next);
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) give_up("mmap", next);
    config::fill(static_cast<char*>(start), bytes, entries);

    // Readers see the stores without this, but after a power cut the new name could be there
    // without its bytes.
    if (msync(start, bytes, MS_SYNC) == -1) give_up("msync", next);

    // Publish it. Who opens the name gets the whole old image or the whole new one; who has mapped
    // the old one keeps it. What bears the name is looked at as late as can be.
    const int old = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (old == -1 && errno != ENOENT) give_up("open", path);
    if (const char* why = old == -1 ? nullptr : not_ours(old, false)) {
        unlink(next);
        errx(1, "%s: %s", path, why);
    }
    if (rename(next, path) == -1) give_up("rename", next);

    // This descriptor may write, no later one may: that also tells a finished image from one in the
    // making. Then the name, for a power cut.
    struct stat it;
    if (fstat(fd, &it) == -1 || fchmod(fd, it.st_mode & 0444) == -1) err(1, "fchmod(%s)", path);
    if (fsync(parent) == -1) err(1, "fsync(%s)", directory.c_str());
    printf("%s: %zu entries, %zu bytes\n", path, entries.size(), bytes);
    return 0;
}

// Looks a key up, without parsing or copying: the value lies in the image. Only what is used is
// checked, so a large image costs no more than a small one; but all of it before the answer is no.
static std::string_view look_up(const Image& image, const char* key) {
    std::string_view value;
    const config::Found found = config::find(image, key, &value);
    if (found == config::Found::yes) return value;
    if (const char* wrong = config::check_all(image)) errx(1, "%s: %s", path, wrong);
    errx(1, "%s: has no key '%s'", path, key);
}

static void print(std::string_view value) {
    fwrite(value.data(), 1, value.size(), stdout);
    putchar('\n');
    if (fflush(stdout) != 0 || ferror(stdout)) err(1, "write(stdout)");
}

static int get(const char* key) {
    print(look_up(map_image(), key));
    return 0;
}

// Prints the value of a key, and again whenever a load has changed it. Ends with an error when the
// key or the image is gone.
[[noreturn]] static void watch(const char* key) {
    const int events = inotify_init1(IN_CLOEXEC);
    if (events == -1) err(1, "inotify_init1()");
    for (std::optional<std::string> last;;) {
        // Watch the directory, since each load brings another file, and do so before the look, or
        // a load in between would be missed. Each time anew: it may be another directory by now.
        // MOVED_TO is a load; the others: the image or its directory may be gone.
        const uint32_t changes = IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_MOVE_SELF;
        if (inotify_add_watch(events, directory.c_str(), changes) == -1)
            err(1, "inotify_add_watch(%s)", directory.c_str());
        const Image image = map_image();
        const std::string_view value = look_up(image, key);
        if (last != value) print(value);
        last = value;
        unmap(image);
        char list[4096];  // of no use: we look again whatever has changed
        if (read(events, list, sizeof list) == -1) err(1, "read(inotify)");
    }
}

// Tries to write as a reader, and prints what the kernel does about it.
static int trespass() {
    const Image image = map_image();
    char* start = const_cast<char*>(image.start);
    if (mprotect(start, image.bytes, PROT_READ | PROT_WRITE) == 0) errx(1, "mprotect: allowed");
    printf("mprotect(PROT_READ | PROT_WRITE): %s\n", strerror(errno));
    const pid_t child = spawn();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 0);  // no core file
        *const_cast<volatile char*>(start) = 'x';
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    // Any other end tells nothing of the mapping.
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) errx(1, "a store: no SIGSEGV");
    printf("a store: killed: %s\n", strsignal(SIGSEGV));
    return 0;
}

constexpr char kHelp[] =
    "usage: %s VERB [OPTIONS]\n"
    "  load FILE     make an image of 'key = value' lines and # comments, and publish it\n"
    "  get KEY       print the value of a key\n"
    "  readers N     start N readers at once; what memory do one mapping and N copies take?\n"
    "  trespass      try to write to the image as a reader, and print what comes of it\n"
    "  --watch       get goes on, and prints the value again whenever a load has changed it\n"
    "  --image PATH  which image, if not %s; PATH.new is the next one in the making\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

int main(int argc, char** argv) {
    prepare();
    std::set_new_handler([] { errx(1, "out of memory"); });
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    bool watching = false;
    const option known[] = {{"image", required_argument, nullptr, 'i'},
                            {"watch", no_argument, nullptr, 'w'},
                            {"help", no_argument, nullptr, 'h'},
                            {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'i') path = optarg;
        if (c == 'w') watching = true;
        if (c == 'h') return printf(kHelp, argv[0], path) < 0 || fflush(stdout) != 0;
    }
    if (*path == '\0') errx(2, "the image's path is empty");
    next_path = std::string(path) + ".new";
    const char* slash = strrchr(path, '/');
    directory = slash ? std::string(path, slash + 1) : ".";
    const std::string verb = optind < argc ? argv[optind++] : "";
    const char* word = optind < argc ? argv[optind++] : nullptr;
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (watching && verb != "get") errx(2, "--watch goes with get");
    int status = 0;
    if (verb == "load" && word)
        status = load(word);
    else if (verb == "get" && word && watching)
        watch(word);
    else if (verb == "get" && word)
        status = get(word);
    else if (verb == "readers" && word && number(word, 10000) > 0)
        status = read_at_once(number(word, 10000));
    else if (verb == "trespass" && !word)
        status = trespass();
    else
        errx(2, "needs a verb and what belongs to it; see --help");
    if (fflush(stdout) != 0 || ferror(stdout)) err(1, "write(stdout)");
    return status;
}
