// The kinds of memory that are measured, in the same steps: make, reserve, map, unmap, remove.

#pragma once

#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include <string>

#include "../common/process.h"

enum Kind { kPrivate, kPosix, kFile, kSystemV, kKinds };
inline const char* const kMechanism[kKinds] = {"private", "shm_open+mmap", "open+mmap", "shmget"};

// Set by a signal; whatever goes on stops soon and takes back what it made.
inline volatile sig_atomic_t stopped = 0;

// Names of this process's objects; only one of each kind exists at a time.
inline const std::string object_name = "/shm-perf-" + std::to_string(getpid());
inline std::string file_name;  // in the directory that --dir says

struct Memory {
    Kind kind;
    size_t bytes;
    int handle = -1;  // the descriptor or the segment's id; -1: there is nothing to remove
    volatile int* at = nullptr;
};

// What a call that failed has to say.
inline std::string failure(const char* call, const std::string& argument) {
    return std::string(call) + "(" + argument + "): " + strerror(errno);
}

// For a sudden end, by SIGBUS or errx(3): the one object that exists.
inline Memory* made = nullptr;

// Removes the name or the segment; memory that is mapped stays until it is unmapped.
inline void remove(Memory& memory) {
    made = nullptr;
    if (memory.handle == -1) return;
    if (memory.kind == kPosix) shm_unlink(object_name.c_str());
    if (memory.kind == kFile) unlink(file_name.c_str());
    if (memory.kind == kSystemV) shmctl(memory.handle, IPC_RMID, nullptr);
    if (memory.kind != kSystemV) close(memory.handle);
    memory.handle = -1;
}

// Makes the object and gives it its size. Returns "" or what failed, as the next two do.
inline std::string make(Memory& memory) {
    if (memory.kind == kPrivate) return "";
    const off_t bytes = static_cast<off_t>(memory.bytes);
    hold_signals();
    if (memory.kind == kPosix)
        memory.handle = shm_open(object_name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (memory.kind == kFile)
        memory.handle = open(file_name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (memory.kind == kSystemV) memory.handle = shmget(IPC_PRIVATE, memory.bytes, 0600);
    const int error = errno;
    if (memory.handle != -1) made = &memory;
    hold_signals(SIG_UNBLOCK);
    errno = error;
    if (memory.kind == kSystemV)
        return memory.handle == -1 ? failure("shmget", std::to_string(bytes) + " bytes") : "";
    const std::string path = memory.kind == kPosix ? "/dev/shm" + object_name : file_name;
    if (memory.handle == -1) return failure(memory.kind == kPosix ? "shm_open" : "open", path);
    if (ftruncate(memory.handle, bytes) == -1) return failure("ftruncate", path);
    return "";
}

// Has the file system find the pages now: without space that is ENOSPC here, and would be SIGBUS at
// the first touch. shmget has counted its pages already, and finds them at the first touch.
inline std::string reserve(const Memory& memory) {
    if (memory.kind == kPrivate || memory.kind == kSystemV) return "";
    do {
        errno = posix_fallocate(memory.handle, 0, static_cast<off_t>(memory.bytes));
    } while (errno == EINTR && !stopped);
    return errno == 0 ? "" : failure("posix_fallocate", std::to_string(memory.bytes) + " bytes");
}

inline std::string map(Memory& memory) {
    void* at = memory.kind == kSystemV
                   ? shmat(memory.handle, nullptr, 0)
                   : mmap(nullptr, memory.bytes, PROT_READ | PROT_WRITE,
                          memory.kind == kPrivate ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED,
                          memory.handle, 0);
    if (at == MAP_FAILED) return failure(memory.kind == kSystemV ? "shmat" : "mmap", "");
    memory.at = static_cast<volatile int*>(at);
    return "";
}

inline void unmap(Memory& memory) {
    void* at = const_cast<int*>(memory.at);
    if (memory.kind == kSystemV)
        shmdt(at);
    else
        munmap(at, memory.bytes);
    memory.at = nullptr;
}
