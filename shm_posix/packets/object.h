// The shared memory object that holds the ring: made or opened, and mapped. `run` makes one without
// a name; `produce` and `consume` open the one of a name, or make it (meet.h).

#pragma once

#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "join.h"
#include "options.h"

inline int object = -1;  // opened once: another descriptor, closed, would drop our lock
inline End ours;         // our end of the ring in it

// Ends the program, which cannot use the object of that name: says why, and what can be done.
[[noreturn]] inline void refuse(const char* fault) {
    warnx("%s: %s", name(), fault);
    const std::string word = shell_word(path());
    fprintf(stderr, "  who uses it: grep -lsF %s /proc/[0-9]*/maps\n", word.c_str());
    fprintf(stderr, "  remove it, if nobody does: rm %s\n", word.c_str());
    exit(1);
}

// Maps the object, of that many bytes.
inline void* map_object(uint64_t bytes) {
    const auto length = static_cast<size_t>(bytes);
    void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
    if (memory == MAP_FAILED) err(1, "mmap(%ju bytes)", uintmax_t{bytes});
    return memory;
}

// A new object with a ring in it and without a name: whatever ends us, nothing is left
// [O_TMPFILE in open(2)]. It is where shm_open(3) makes its objects, so it can get a name (meet.h).
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

// Ends the program if the ring is not as the command line wants it.
inline void check_sizes() {
    const bool small = options.generate && ours.size < kLongest;
    const bool differs = (options.slots_given && options.slots != ours.slots) ||
                         (options.size_given && options.size != ours.size);
    if (small || differs)
        errx(1, "%s: has %u slots of %u bytes, not as you ask%s", name(), ours.slots, ours.size,
             small ? "; --generate needs 1500" : "");
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
    // A 32-bit program cannot map more than PTRDIFF_MAX: it would map less [mmap(2)].
    if (bytes == 0 || bytes > PTRDIFF_MAX) refuse("holds no ring");
    if (const char* fault = ring_open(&ours, map_object(bytes), bytes)) refuse(fault);
    check_sizes();
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
