// The shared memory object that holds the ring: made, opened, mapped, given up, removed.

#pragma once

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "options.h"
#include "source.h"
#include "ring_consumer.h"
#include "ring_producer.h"

inline int object = -1;             // the shared memory object
inline PacketRing* ring = nullptr;  // mapped
inline Side side;                   // ours; so we use one of these two ends
inline Producer producer;
inline Consumer consumer;

inline const char* name() { return options.name.c_str(); }

// Prints with the object unlocked: stderr may be a pipe that is full, and all others would wait.
[[noreturn]] inline void refuse(const char* fault) {
    flock(object, LOCK_UN);
    warnx("%s: %s", name(), fault);
    fprintf(stderr, "  who uses it: grep -ls /dev/shm%s /proc/[0-9]*/maps\n", name());
    fprintf(stderr, "  remove it, if nobody does: rm /dev/shm%s\n", name());
    exit(1);
}

// run: an object of its own, which the child inherits; so its name can go at once.
inline void make_object() {
    hold_signals();
    object = shm_open(name(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (object == -1) err(1, "shm_open(%s)", name());
    shm_unlink(name());
    hold_signals(SIG_UNBLOCK);
}

// produce, consume: opens the object of that name, makes it if there is none, and locks it until
// join() and again in leave(): so nobody else makes, joins or removes it meanwhile [shm_open(3),
// flock(2)].
inline void open_object() {
    struct stat it;
    do {
        if (object != -1) close(object);
        object = shm_open(name(), O_CREAT | O_RDWR, 0600);
        const bool theirs = object == -1 && errno == EACCES;
        if (object == -1 && !theirs) err(1, "shm_open(%s)", name());
        if (theirs || fstat(object, &it) == -1 || !S_ISREG(it.st_mode) || it.st_uid != geteuid())
            errx(1, "%s: is not a file of yours; look at it: ls -l /dev/shm%s", name(), name());
        if (flock(object, LOCK_EX) == -1 || fstat(object, &it) == -1) err(1, "flock(%s)", name());
    } while (it.st_nlink == 0);  // its last user removed it while we waited for the lock
    // No ring in it yet: if we end before join(), it goes.
    if (it.st_size == 0) take_back = [] { shm_unlink(name()); };
}

// Maps the ring in the object; an empty object gets one.
inline void map_ring() {
    struct stat it;
    if (fstat(object, &it) == -1) err(1, "fstat(%s)", name());
    const bool fresh = it.st_size == 0;
    const size_t bytes =
        fresh ? ring_bytes(options.slots, options.size) : static_cast<size_t>(it.st_size);
    // Size and memory at once: if there is too little, that is ENOSPC here, not SIGBUS later.
    while (fresh && (errno = posix_fallocate(object, 0, static_cast<off_t>(bytes))) != 0)
        if (errno != EINTR) err(1, "posix_fallocate(%s, %zu bytes)", name(), bytes);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
    if (memory == MAP_FAILED) err(1, "mmap(%s)", name());
    if (fresh) ring_create(memory, options.slots, options.size);
    if (const char* fault = ring_fault(memory, bytes)) refuse(fault);
    ring = static_cast<PacketRing*>(memory);
    const uint32_t least = options.generate ? kLongest : 1;
    if (ring->size < least ||
        (options.sized && (options.slots != ring->slots || options.size != ring->size))) {
        flock(object, LOCK_UN);
        errx(1, "%s: has %u slots of %u bytes, not as you ask%s", name(), ring->slots, ring->size,
             ring->size < least ? "; --generate needs 1500" : "");
    }
}

// Gives our side up; the last to leave an empty ring removes it. main() calls it, and exit() again.
inline void leave() {
    if (!ring) return;
    flock(object, LOCK_EX);
    const uint64_t waiting = side == kProducer ? ring_leave(&producer) : ring_leave(&consumer);
    const bool last = find_side(ring, side == kProducer ? kConsumer : kProducer) != kHere;
    ring = nullptr;
    struct stat it = {};
    fstat(object, &it);
    const bool named = it.st_nlink > 0;  // not that of run, nor removed
    if (named && last && waiting == 0) shm_unlink(name());
    close(object);  // and with it the lock (run needs none: nobody else knows its object)
    if (named && last && waiting > 0) {
        warnx("%s: %ju packets wait in it", name(), uintmax_t{waiting});
        fprintf(stderr, "  handle them: %s consume --name %s\n", program_invocation_name, name());
        fprintf(stderr, "  remove it: rm /dev/shm%s\n", name());
    }
}

// Takes our side of the ring, until we exit, and lets others open or remove the object again.
inline void join() {
    const char* fault = side == kProducer ? ring_join(&producer, ring) : ring_join(&consumer, ring);
    if (fault) refuse(fault);
    take_back = nullptr;  // from now on packets may be in it
    atexit(leave);
    flock(object, LOCK_UN);
    const uint64_t next = side == kProducer ? producer.next : consumer.next;
    const bool doubt = side == kConsumer && ring->begun != next;
    if (next > 0 || doubt)
        warnx("%s: goes on with packet %ju%s", name(), uintmax_t{next},
              doubt ? ", which may be seen twice" : "");
}
