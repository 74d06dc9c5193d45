// The shared memory object that holds the ring: made, opened, mapped, joined, given up, removed.
// Begin with join_by_name(), at the end; run has make_object() and join() alone.

#pragma once

#include <poll.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "join.h"
#include "options.h"

inline int object = -1;  // opened once: another descriptor, closed, would drop our lock
inline End ours;         // our end of the ring in it
inline bool joined = false;

[[noreturn]] inline void refuse(const char* fault) {
    warnx("%s: %s", name(), fault);
    const std::string word = shell_word(path());
    fprintf(stderr, "  who uses it: grep -lsF %s /proc/[0-9]*/maps\n", word.c_str());
    fprintf(stderr, "  remove it, if nobody does: rm %s\n", word.c_str());
    exit(1);
}

inline void* map_object(uint64_t bytes) {
    const auto length = static_cast<size_t>(bytes);
    void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
    if (memory == MAP_FAILED) err(1, "mmap(%ju bytes)", uintmax_t{bytes});
    return memory;
}

// A new object with a ring in it and without a name: whatever ends us, nothing is left
// [O_TMPFILE in open(2)]. Where shm_open(3) makes its objects, so the limits of /dev/shm hold.
inline void make_object() {
    const uint64_t bytes = ring_bytes(options.slots, options.size);
    // A 32-bit program has neither the addresses nor the off_t for more.
    if (bytes > PTRDIFF_MAX) errx(1, "a ring of %ju bytes is too large to map", uintmax_t{bytes});
    object = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
    if (object == -1) err(1, "open(/dev/shm, O_TMPFILE)");
    // Size and memory at once: if there is too little, that is ENOSPC here, not SIGBUS later.
    // A memory cgroup does not refuse: beyond its memory.max the process is killed, here. A signal
    // may end the call [posix_fallocate(3)].
    while ((errno = posix_fallocate(object, 0, static_cast<off_t>(bytes))) != 0)
        if (errno != EINTR) err(1, "posix_fallocate(/dev/shm, %ju bytes)", uintmax_t{bytes});
    ours = ring_create(map_object(bytes), options.slots, options.size);
}

// Opens and maps the object of that name; false: there is none.
inline bool open_object() {
    object = shm_open(name(), O_RDWR, 0);
    if (object == -1 && errno == ENOENT) return false;
    if (object == -1) err(1, "shm_open(%s)", name());
    struct stat it;
    if (fstat(object, &it) == -1) err(1, "fstat(%s)", name());
    if (!S_ISREG(it.st_mode) || it.st_uid != geteuid())
        errx(1, "%s: is not a file of yours; look at it: ls -l %s", name(),
             shell_word(path()).c_str());
    const auto bytes = static_cast<uint64_t>(it.st_size);
    // More than PTRDIFF_MAX a 32-bit program cannot map, and would map less [mmap(2)].
    if (bytes == 0 || bytes > PTRDIFF_MAX) refuse("holds no ring");
    if (const char* fault = ring_open(&ours, map_object(bytes), bytes)) refuse(fault);
    const bool small = options.generate && ours.size < kLongest;
    const bool other = (options.slots_given && options.slots != ours.slots) ||
                       (options.size_given && options.size != ours.size);
    if (small || other)
        errx(1, "%s: has %u slots of %u bytes, not as you ask%s", name(), ours.slots, ours.size,
             small ? "; --generate needs 1500" : "");
    return true;
}

inline void close_object() {
    munmap(ours.ring, static_cast<size_t>(ring_bytes(ours.slots, ours.size)));
    close(object);  // and with it the locks
}

// Whether the name leads to our object: it may be gone, or be another's by now.
inline bool named() {
    struct stat it, there;
    if (fstat(object, &it) == -1) err(1, "fstat(%s)", name());
    if (stat(path().c_str(), &there) == -1) {
        if (errno == ENOENT) return false;
        err(1, "stat(%s)", path().c_str());
    }
    return there.st_dev == it.st_dev && there.st_ino == it.st_ino;
}

// Gives our side up; the last to leave an empty ring removes it. main() calls it, and exit() again.
inline void leave() {
    if (!joined) return;
    joined = false;
    ring_leave(&ours);
    // If we get both sides, nobody else is here, and nobody can join until we close. Not in run,
    // where there is no name to remove, and the child may be about to join.
    const bool last = options.verb != "run" && lock_side(object, F_WRLCK, kProducer, 2) && named();
    const uint64_t waiting = last ? ring_waiting(ours.ring) : 0;
    if (last && waiting == 0 && shm_unlink(name()) == -1) err(1, "shm_unlink(%s)", name());
    close(object);  // and with it the locks, before we print
    if (waiting == 0) return;
    warnx("%s: %ju packets wait in it", name(), uintmax_t{waiting});
    fprintf(stderr, "  handle them: %s\n", consume_command().c_str());
    fprintf(stderr, "  remove it: rm %s\n", shell_word(path()).c_str());
}

// Takes our side of a ring until we exit.
inline void join(Side side) {
    if (const char* fault = ring_join(&ours, object, side)) refuse(fault);
    joined = true;
    atexit(leave);
}

// Makes a ring, joins it, and gives it the name last: whatever fails before leaves nothing, and who
// opens the name finds a whole ring. False: somebody else has taken the name [linkat(2)].
inline bool make_by_name(Side side) {
    make_object();
    join(side);
    const std::string self = "/proc/self/fd/" + std::to_string(object);
    if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path().c_str(), AT_SYMLINK_FOLLOW) == 0)
        return true;
    if (errno != EEXIST) err(1, "linkat(%s, %s)", self.c_str(), path().c_str());
    joined = false;
    close_object();
    return false;
}

// Takes our side of the ring of that name; makes one if there is none. We look again
// - when somebody else has named one before us;
// - when somebody has removed it before we had our side;
// - when our side is taken, for a tenth of a second: who leaves last holds both for a moment.
inline void join_by_name(Side side) {
    for (int tries = 1;; ++tries) {
        if (open_object()) {
            const bool taken = !lock_side(object, F_WRLCK, side);
            if (named() && (!taken || tries >= 100)) break;
            close_object();
            poll(nullptr, 0, 1);
        } else if (make_by_name(side)) {
            return;
        }
    }
    join(side);  // which says so, if our side is taken
    const bool doubt = side == kConsumer && ours.mine().begun != ours.next;
    if (ours.next > 0 || doubt)
        warnx("%s: goes on with packet %ju%s", name(), uintmax_t{ours.next},
              doubt ? ", which may be seen twice" : "");
}
