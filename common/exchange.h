// What the three programs share: the layout of the shared bytes, the two halves of the exchange,
// the checks before an object is used, the command line. The mechanisms are in the program files.

#pragma once

#include <getopt.h>
#include <glob.h>
#include <pwd.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include <fstream>
#include <sstream>
#include <string>
#include <type_traits>

#include "process.h"

constexpr size_t kBytes = 100;           // the object's size, as ls and ipcs show it
constexpr uint32_t kMagic = 0x3152444e;  // "NDR1" in memory on a little-endian machine
constexpr uint32_t kItems = 3;

// The shared bytes. Each process may see them at another address, and be another program: so fixed
// sizes only, no pointers, no std::string.
struct Items {
    uint32_t magic;  // kMagic once the items are complete; 0 before
    uint32_t count;
    // Raised when the items are there. Not std::atomic::wait: before it wakes anybody, libstdc++
    // looks up the waiters in a table of its own process, and finds none of the other process.
    sem_t ready;
    char name[kItems][16];
};
static_assert(std::is_trivially_copyable<Items>::value, "shared as plain bytes");
static_assert(std::is_standard_layout<Items>::value, "laid out alike in every program");
static_assert(sizeof(Items) <= kBytes, "fits in the object");

struct Options {
    std::string name, self;  // the object; argv[0], for hints that can be pasted
    off_t bytes = 0;         // what resize asks for
    bool explain = false, step = false;
};
inline Options options;

// With --explain: what a call did, on stderr. The format is printf(3)'s.
__attribute__((format(printf, 1, 2))) inline void note(const char* format, ...) {
    if (!options.explain) return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "[%d] ", getpid());
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

// With --explain: the command that shows it from outside. With --step: then waits for Enter.
inline void look(const std::string& command) {
    if (options.explain) fprintf(stderr, "    $ %s\n", command.c_str());
    if (options.step) fputs("    (Enter goes on)\n", stderr);
    for (char c = 0; options.step && c != '\n' && read(STDIN_FILENO, &c, 1) == 1;) continue;
}

// This program's command line for `verb` on the same object.
inline std::string command(const std::string& verb) {
    return shell_word(options.self) + " " + verb + " --name " + shell_word(options.name);
}

// Where proc(5) lists a process's mappings, as one more argument of a command.
inline std::string maps(pid_t pid) { return " /proc/" + std::to_string(pid) + "/maps"; }

inline std::string user_name(uid_t id) {
    const passwd* user = getpwuid(id);
    return user ? user->pw_name : "user " + std::to_string(id);
}

// The file that create() made. Somebody may remove its name and make another: that is not ours.
struct Made {
    std::string path;
    dev_t device = 0;
    ino_t inode = 0;
};
inline Made made;

inline void remember(int fd, const std::string& path) {
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", path.c_str());
    made = {path, it.st_dev, it.st_ino};
}

// False if the name leads to another file. Safe in a signal handler [signal-safety(7)].
inline bool still_made() {
    struct stat it;
    return lstat(made.path.c_str(), &it) == -1 ||
           (it.st_dev == made.device && it.st_ino == made.inode);
}

// Ends the program after a failed open: says what bears the name, who maps it [proc(5)], and which
// commands help.
[[noreturn]] inline void fail_open(const char* call, std::string (*where)()) {
    warn("%s(%s)", call, options.name.c_str());
    const std::string path = where();
    struct stat it;
    if (lstat(path.c_str(), &it) == -1) exit(1);
    std::string pids;
    glob_t all = {};
    glob("/proc/[0-9]*/maps", 0, nullptr, &all);
    for (size_t i = 0; i < all.gl_pathc; ++i) {
        std::ifstream file(all.gl_pathv[i]);
        std::ostringstream text;
        text << file.rdbuf();
        if (text.str().find(" " + path + "\n") != std::string::npos)
            pids += " " + std::to_string(atoi(all.gl_pathv[i] + strlen("/proc/")));
    }
    fprintf(stderr, "  %s is a %s of %s, %jd bytes, mapped by%s\n  look at it: ls -ld %s\n",
            path.c_str(),
            S_ISREG(it.st_mode)   ? "file"
            : S_ISDIR(it.st_mode) ? "directory"
            : S_ISLNK(it.st_mode) ? "symbolic link"
                                  : "pipe, socket or device",
            user_name(it.st_uid).c_str(), intmax_t{it.st_size},
            pids.empty() ? " no process that you may look at" : pids.c_str(),
            shell_word(path).c_str());
    if (S_ISREG(it.st_mode))
        fprintf(stderr, "  remove it: %s\n         or: rm %s\n", command("remove").c_str(),
                shell_word(path).c_str());
    exit(1);
}

// Refuses an object of another user, or of less than `least` bytes.
inline void check_object(const std::string& what, uid_t owner, off_t bytes, off_t least) {
    if (owner != geteuid())
        errx(1, "%s: belongs to %s, not to you", what.c_str(), user_name(owner).c_str());
    if (bytes < least)
        errx(1, "%s: has %jd bytes, not %jd: not ours, or its writer was killed", what.c_str(),
             intmax_t{bytes}, intmax_t{least});
}

// The same for an open file, which must be a regular one.
inline void check_file(int fd, const std::string& path, off_t least) {
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", path.c_str());
    if (!S_ISREG(it.st_mode)) errx(1, "%s: is not a regular file", path.c_str());
    check_object(path, it.st_uid, it.st_size, least);
}

// Refuses to remove what this program did not make. Without the magic number it may be what a
// killed run never completed: then it has no more than our bytes.
inline void check_removable(const std::string& what, uint32_t magic, off_t bytes) {
    if (magic != kMagic && (magic != 0 || bytes > static_cast<off_t>(kBytes)))
        errx(1, "%s: not made by this program", what.c_str());
}

// Copies the items out and checks the copy: the original may change between a check and its use.
inline Items checked_copy(const Items* shared) {
    const char* name = options.name.c_str();
    const uint32_t magic = __atomic_load_n(&shared->magic, __ATOMIC_ACQUIRE);
    const Items copy = *shared;
    if (magic == 0) errx(1, "%s: holds no items yet: its writer is at work, or was killed", name);
    if (magic != kMagic) errx(1, "%s: holds something else than our items", name);
    if (copy.count < 1 || copy.count > kItems)
        errx(1, "%s: has a count of %u, not 1 to %u", name, copy.count, kItems);
    for (uint32_t i = 0; i < copy.count; ++i)
        if (!memchr(copy.name[i], '\0', sizeof copy.name[i]))
            errx(1, "%s: the name of item %u has no end", name, i + 1);
    return copy;
}

// Seconds until a wait for the other process is given up; who steps may take an hour.
inline unsigned patience() { return options.step ? 3600 : 10; }

// Makes the fresh bytes, all 0, into Items without items; 1: for several processes [sem_init(3)].
inline Items* init_items(Items* items) {
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");
    note("sem_init(ready, 1, 0) = 0");
    return items;
}

// The parent's half: writes the items, marks them complete, wakes the child [sem_post(3)].
inline void send_items(Items* items) {
    const char* names[kItems] = {"Nellson", "Daisy", "Robbie"};
    for (uint32_t i = 0; i < kItems; ++i) strcpy(items->name[i], names[i]);
    items->count = kItems;
    __atomic_store_n(&items->magic, kMagic, __ATOMIC_RELEASE);
    note("three items stored in the shared bytes: no system call");
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    note("sem_post(ready) = 0");
}

inline void print_items(const Items* shared) {
    const Items items = checked_copy(shared);
    printf("There is %u item in the shm\n", items.count);
    for (uint32_t i = 0; i < items.count; ++i) printf("%u: %s\n", i + 1, items.name[i]);
}

// Waits for the child and reports it on stdout; returns its exit status.
inline int report_child(pid_t child) {
    const int status = wait_for(child, patience() + 1);
    note("waitpid(%d) = %d, exit status %d", child, child, status);
    printf("Parent %d get child status:%d\n", getpid(), status);
    return status;
}

// The child's half: waits until the items are there, prints them [sem_timedwait(3)].
inline void receive_items(Items* items) {
    printf("Child %d: start\n", getpid());
    timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += patience();
    while (sem_timedwait(&items->ready, &deadline) == -1)
        if (errno != EINTR) err(1, "sem_timedwait(ready, %u s)", patience());
    note("sem_timedwait(ready) = 0");
    print_items(items);
}

inline constexpr char kHelp[] =
    "usage: %s [VERB] [OPTIONS]\n"
    "  exchange      (default) create, fork; the parent writes three items, the child prints them\n"
    "  write         create, write the items, leave the object behind\n"
    "  read          attach to an existing object, check it, print the items\n"
    "  resize BYTES  change an existing object's size (System V cannot, and says why)\n"
    "  remove        remove the object\n"
    "  --name NAME   which object, if not %s\n"
    "  --explain     say on stderr what is asked of the kernel, and how to see it from outside\n"
    "  --step        the same, waiting at each of these commands for Enter\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

struct Verbs {
    int (*exchange)(), (*write)(), (*read)(), (*resize)(), (*remove)();
};

// Reads the command line, runs its verb, returns the exit status.
inline int run(int argc, char** argv, const char* name, const Verbs& verbs) {
    options.self = argv[0];
    options.name = name;
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    prepare();
    const option known[] = {{"name", required_argument, nullptr, 'n'},
                            {"explain", no_argument, nullptr, 'e'},
                            {"step", no_argument, nullptr, 's'},
                            {"help", no_argument, nullptr, 'h'},
                            {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'n') options.name = optarg;
        if (c == 'e' || c == 's') options.explain = true;
        if (c == 's') options.step = true;
        if (c == 'h') return printf(kHelp, argv[0], name) < 0 || fflush(stdout) != 0;
    }
    if (options.name.empty()) errx(2, "the name is empty");
    const std::string word = optind < argc ? argv[optind++] : "exchange";
    const auto verb = word == "exchange" ? verbs.exchange
                      : word == "write"  ? verbs.write
                      : word == "read"   ? verbs.read
                      : word == "resize" ? verbs.resize
                      : word == "remove" ? verbs.remove
                                         : nullptr;
    if (!verb) errx(2, "'%s' is not a verb; see --help", word.c_str());
    if (word == "resize" && optind == argc) errx(2, "resize needs a number of bytes");
    if (word == "resize") options.bytes = number(argv[optind++], INT64_MAX);
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (word == "resize" && options.bytes < static_cast<off_t>(kBytes))
        errx(1, "resize %jd: would cut off the items, which take %zu bytes",
             intmax_t{options.bytes}, kBytes);
    const int status = verb();
    if (fflush(stdout) != 0 || ferror(stdout)) err(1, "write(stdout)");
    return status;
}
