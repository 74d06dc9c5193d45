// The shared memory object that holds the ring: made, opened, mapped, given up, removed.

#pragma once

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "packet_options.h"
#include "packet_source.h"
#include "ring_end.h"

inline RingEnd end;      // this process's end of the ring
inline int object = -1;  // the shared memory object

inline const char* name() { return options.name.c_str(); }

[[noreturn]] inline void refuse(const char* fault) {
    warnx("%s: %s", name(), fault);
    fprintf(stderr, "  who uses it: grep -ls /dev/shm%s /proc/[0-9]*/maps\n", name());
    fprintf(stderr, "  remove it, if nobody does: rm /dev/shm%s\n", name());
    exit(1);
}

// run: an object of its own, which the child inherits. Its name goes at once, so nothing is left.
inline void make_object() {
    object = shm_open(name(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (object == -1) err(1, "shm_open(%s)", name());
    shm_unlink(name());
}

// Opens the object of that name and locks it; makes it, if there is none. Who holds the lock knows
// that nobody else is making or removing it [shm_open(3), flock(2)].
inline void open_object() {
    struct stat it = {};
    while (it.st_nlink == 0) {  // at first, and if its last user removed it while we waited
        if (object != -1) close(object);
        object = shm_open(name(), O_CREAT | O_RDWR | O_NONBLOCK, 0600);
        if (object == -1 && errno != EACCES) err(1, "shm_open(%s)", name());
        if (object == -1 || fstat(object, &it) == -1 || !S_ISREG(it.st_mode) ||
            it.st_uid != geteuid())
            errx(1, "%s: is not a file of yours; look at it: ls -l /dev/shm%s", name(), name());
        if (flock(object, LOCK_EX) == -1 || fstat(object, &it) == -1) err(1, "flock(%s)", name());
    }
    // No ring yet: if making it fails, the object goes.
    if (it.st_size == 0) take_back = [] { shm_unlink(name()); };
}

// The ring in the object; an empty object gets one.
inline PacketRing* map_ring() {
    struct stat it;
    if (fstat(object, &it) == -1) err(1, "fstat(%s)", name());
    const bool fresh = it.st_size == 0;
    const size_t size =
        fresh ? ring_bytes(options.slots, options.size) : static_cast<size_t>(it.st_size);
    // Size and memory at once: if there is too little, that is ENOSPC here, not SIGBUS later.
    while (fresh && (errno = posix_fallocate(object, 0, static_cast<off_t>(size))) != 0)
        if (errno != EINTR) err(1, "posix_fallocate(%s, %zu bytes)", name(), size);
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
    if (memory == MAP_FAILED) err(1, "mmap(%s)", name());
    if (fresh) ring_create(memory, options.slots, options.size);
    if (const char* fault = ring_fault(memory, size)) refuse(fault);
    PacketRing* ring = static_cast<PacketRing*>(memory);
    if (options.sized && (options.slots != ring->slots || options.size != ring->size))
        errx(1, "%s: has %u slots of %u bytes, not as you ask", name(), ring->slots, ring->size);
    if (options.generate && ring->size < kLongest)
        errx(1, "%s: its slots of %u bytes are too small for packets of %u", name(), ring->size,
             kLongest);
    take_back = nullptr;  // from now on packets may be in it
    return ring;
}

// Takes a side of the ring, and lets others open or remove it again.
inline void join(PacketRing* ring, Side side) {
    if (const char* fault = ring_join(&end, ring, side)) refuse(fault);
    const bool doubt = side == kConsumer && ring->begun != ring->handled;
    if (end.next > 0 || doubt)
        warnx("%s: goes on with packet %ju%s", name(), uintmax_t{end.next},
              doubt ? ", which may be seen twice" : "");
    flock(object, LOCK_UN);
}

// Gives our side up, at exit too; the last to leave an empty ring removes it.
inline void leave() {
    if (!end.ring) return;
    flock(object, LOCK_EX);
    const uint64_t waiting = ring_leave(&end);
    end.ring = nullptr;
    struct stat it = {};
    fstat(object, &it);
    if (it.st_nlink > 0 && end.other != kHere) {  // no link: removed, or that of run
        if (waiting == 0) shm_unlink(name());
        if (waiting > 0) {
            warnx("%s: %ju packets wait in it", name(), uintmax_t{waiting});
            fprintf(stderr, "  handle them: %s consume --name %s\n", program_invocation_name, name());
            fprintf(stderr, "  remove it: rm /dev/shm%s\n", name());
        }
    }
    close(object);
}
