// What the three programs share: the layout of the shared bytes; storing, checking and printing
// them; the command line. The mechanisms are in the program files.

#pragma once

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

constexpr size_t kBytes = 100;           // the object's size, as ls and ipcs show it
constexpr uint32_t kMagic = 0x3252444e;  // "NDR2" on a little-endian machine

// The shared bytes. Each process may see them at another address, and be another program: so fixed
// sizes, no pointers, no std::string. The semaphore is last: its size differs between 32 and 64
// bits, and the items lie in the same place for both.
struct Items {
    uint32_t magic;  // kMagic once the items are there; 0 before
    uint32_t count;
    char name[3][16];
    sem_t ready;  // in an exchange: raised when the items are there
};
static_assert(sizeof(Items) <= kBytes, "fits in the object");

// Stores the items in fresh bytes, all 0. The magic number comes last: whoever sees it sees the
// items, too.
inline void store_items(Items* items) {
    strcpy(items->name[0], "Nellson");
    strcpy(items->name[1], "Daisy");
    strcpy(items->name[2], "Robbie");
    items->count = 3;
    __atomic_store_n(&items->magic, kMagic, __ATOMIC_RELEASE);
}

// Prints the items. Checks a copy: others may change the original between a check and its use.
// Other bytes than items end the program.
inline void print_items(const Items* shared) {
    const uint32_t magic = __atomic_load_n(&shared->magic, __ATOMIC_ACQUIRE);
    const Items items = *shared;
    __atomic_signal_fence(__ATOMIC_ACQ_REL);  // the compiler must not read the original again
    if (magic == 0) errx(1, "no items yet: their writer is at work, or was killed");
    if (magic != kMagic || items.count < 1 || items.count > 3)
        errx(1, "these bytes are not of this program");
    for (uint32_t i = 0; i < items.count; ++i)
        if (!memchr(items.name[i], '\0', sizeof items.name[i]))
            errx(1, "the name of item %u has no end", i + 1);
    printf("There is %u item in the shm\n", items.count);
    for (uint32_t i = 0; i < items.count; ++i) printf("%u: %s\n", i + 1, items.name[i]);
}

// The time in so many seconds, as sem_timedwait(3) takes it.
inline timespec in_seconds(time_t seconds) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return {now.tv_sec + seconds, now.tv_nsec};
}

// Holds all signals back that can be held. Returns those that were held before, for sigprocmask(2)
// to set again.
inline sigset_t hold_all_signals() {
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    return before;
}

// Says what failed and returns nullptr: the caller may have to remove a name before it ends.
inline Items* failed(const char* call, const char* argument) {
    warn("%s(%s)", call, argument);
    return nullptr;
}

// Ends the program: `call` found that the name is taken. Says what helps; `directory` is what the
// shell needs before the name.
[[noreturn]] inline void taken(const char* call, const char* directory, const char* name) {
    warnx("%s(%s): %s", call, name, strerror(EEXIST));
    if (name[0] == '-' || strchr(name, '\'')) exit(1);  // such a name would break the commands
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%s", directory, name);
    struct stat there;
    if (lstat(path, &there) == 0 && there.st_uid != geteuid())
        fprintf(stderr, "  it is user %u's; take another: --name '%s-%u'\n", there.st_uid, name,
                geteuid());
    else
        fprintf(stderr, "  look at it: ls -ld '%s'\n  remove it: rm '%s'\n", path, path);
    exit(1);
}

// Flushes what was printed, and fails if it did not arrive, now [fflush(3)] or before [ferror(3)];
// else returns `status`.
inline int done(int status) {
    if (fflush(stdout) != 0 || ferror(stdout)) err(1, "write(stdout)");
    return status;
}

// Reads the command line. Returns the verb; --name changes *name. Wrong usage ends the program.
inline const char* read_command(int argc, char** argv, const char** name) {
    signal(SIGPIPE, SIG_IGN);  // a reader of stdout that left is an error, which done() reports
    signal(SIGXFSZ, SIG_IGN);  // beyond ulimit -f: likewise
    signal(SIGCHLD, SIG_DFL);  // it may be inherited as ignored: then waitpid would find no child
    const char* usual = *name;
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    const option known[] = {
        {"name", required_argument, nullptr, 'n'}, {"help", no_argument, nullptr, 'h'}, {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'n') *name = optarg;
        if (c == 'h') {
            printf(
                "usage: %s [exchange | write | read] [--name NAME]\n"
                "  exchange  (default) the parent stores three items, its child prints them\n"
                "  write     stores the items, and leaves the object behind\n"
                "  read      prints the items of an object that exists\n"
                "  --name    of the object, if not %s\n"
                "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
                argv[0], usual);
            exit(done(0));
        }
    }
    if (**name == '\0') errx(2, "the name is empty");
    if (optind + 1 < argc) errx(2, "'%s' is one word too many; see --help", argv[optind + 1]);
    return optind < argc ? argv[optind] : "exchange";
}
