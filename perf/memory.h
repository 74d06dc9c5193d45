// The kinds of memory that are measured, all in the same steps: make, reserve, map, give back.
// Names go as soon as the object is made: what ends us leaves nothing, short of SIGKILL within
// those two calls (a stop signal only sets `stopped`).

#pragma once

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#ifndef MADV_COLLAPSE  // since Linux 6.1
#define MADV_COLLAPSE 25
#endif

// Set by a signal; whatever goes on stops soon.
inline volatile sig_atomic_t stopped = 0;

enum Mechanism { kPrivate, kPosix, kFile, kSystemV };
enum Pages { kUsual, kSmall, kAdvised, kCollapsed, kPool };

struct Kind {
    const char* name;
    Mechanism mechanism;
    Pages pages = kUsual;
    bool own_mount = false;  // a POSIX object on `huge_mount` instead of /dev/shm
    bool reserved = true;    // an object or a file gets its pages before it is mapped
};

inline const std::vector<Kind> kMechanisms = {
    {"private", kPrivate}, {"shm_open+mmap", kPosix}, {"open+mmap", kFile}, {"shmget", kSystemV}};
inline const std::vector<Kind> kHugeKinds = {
    {"private, small pages", kPrivate, kSmall},
    {"private, MADV_HUGEPAGE", kPrivate, kAdvised},
    {"private, MAP_HUGETLB", kPrivate, kPool},
    {"shmget, MADV_HUGEPAGE", kSystemV, kAdvised},
    {"shmget, MADV_COLLAPSE", kSystemV, kCollapsed},
    {"shmget, SHM_HUGETLB", kSystemV, kPool},
    {"object, MADV_HUGEPAGE", kPosix, kAdvised, false, false},
    {"object, MADV_COLLAPSE", kPosix, kCollapsed},
    {"object, huge=advise", kPosix, kAdvised, true, false},
    {"the same, reserved first", kPosix, kAdvised, true, true}};

struct Memory {
    const Kind& kind;
    size_t bytes;
    int handle = -1;  // the descriptor, or the segment's id
    void* at = nullptr;
};

inline const std::string object_name = "/shm-perf-" + std::to_string(getpid());
inline std::string file_name;  // in the directory that --dir says

// What a call that failed has to say.
inline std::string failure(const char* call, const std::string& argument) {
    return std::string(call) + "(" + argument + "): " + strerror(errno);
}

// Bytes of a huge page; 0: this kernel has none.
inline size_t huge_page() {
    size_t bytes = 0;
    std::ifstream("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") >> bytes;
    return bytes;
}

inline int huge_mount = -1;  // the root of a tmpfs with huge=advise
inline std::string huge_mount_problem;

// Mounts it in namespaces of our own, where it lasts as long as the descriptor: the machine's
// mounts and settings stay as they are [tmpfs(5), user_namespaces(7)].
inline void open_huge_mount() {
    const uid_t user = geteuid();
    const gid_t group = getegid();
    const auto say = [](const char* file, const std::string& text) { std::ofstream(file) << text; };
    const auto map_to_itself = [](unsigned id) {
        return std::to_string(id) + " " + std::to_string(id) + " 1";
    };
    if (unshare(user == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) == -1) {
        huge_mount_problem = failure("unshare", "CLONE_NEWNS");
        return;
    }
    if (user != 0) {
        say("/proc/self/setgroups", "deny");
        say("/proc/self/uid_map", map_to_itself(user));
        say("/proc/self/gid_map", map_to_itself(group));
    }
    if (mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == -1 ||
        mount("perf", "/dev/shm", "tmpfs", 0, "huge=advise") == -1) {
        huge_mount_problem = failure("mount", "tmpfs, huge=advise");
        return;
    }
    huge_mount = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (huge_mount == -1) huge_mount_problem = failure("open", "tmpfs, huge=advise");
    umount2("/dev/shm", MNT_DETACH);
}

// Makes the object and gives it its size. Returns "" or what failed, as the next three do.
inline std::string make(Memory& memory) {
    const Kind& kind = memory.kind;
    if (kind.mechanism == kPrivate) return "";
    if (kind.mechanism == kSystemV) {
        const int flags = 0600 | (kind.pages == kPool ? SHM_HUGETLB : 0);
        memory.handle = shmget(IPC_PRIVATE, memory.bytes, flags);
        return memory.handle == -1 ? failure("shmget", std::to_string(memory.bytes) + " bytes")
                                   : "";
    }
    std::string path = "/dev/shm" + object_name;
    const char* call = "open";
    if (kind.own_mount) {
        if (huge_mount == -1) return huge_mount_problem;
        path = "tmpfs, huge=advise";
        memory.handle = openat(huge_mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    } else if (kind.mechanism == kPosix) {
        call = "shm_open";
        memory.handle = shm_open(object_name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        if (memory.handle != -1 && shm_unlink(object_name.c_str()) == -1)
            return failure("shm_unlink", object_name);
    } else {
        path = file_name;
        memory.handle = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (memory.handle != -1 && unlink(path.c_str()) == -1) return failure("unlink", path);
    }
    if (memory.handle == -1) return failure(call, path);
    if (ftruncate(memory.handle, static_cast<off_t>(memory.bytes)) == -1)
        return failure("ftruncate", path);
    return "";
}

// Has the file system find the pages now: without space that is ENOSPC here, and would be SIGBUS at
// the first touch. shmget has counted its pages already, and finds them at the first touch.
inline std::string reserve(Memory& memory) {
    if (memory.kind.mechanism == kPrivate || memory.kind.mechanism == kSystemV) return "";
    const std::string argument = std::to_string(memory.bytes) + " bytes";
    if (!memory.kind.reserved) {  // to be found at the first touch: at least, is there room?
        struct statvfs it;
        if (fstatvfs(memory.handle, &it) == -1) return failure("fstatvfs", argument);
        errno = ENOSPC;
        const bool limited = it.f_blocks > 0;
        return limited && it.f_bavail < memory.bytes / it.f_bsize ? failure("fstatvfs", argument)
                                                                  : "";
    }
    do {
        errno = posix_fallocate(memory.handle, 0, static_cast<off_t>(memory.bytes));
    } while (errno == EINTR && !stopped);
    return errno == 0 ? "" : failure("posix_fallocate", argument);
}

// A free address at which huge pages can begin: the kernel chooses such a one only where it expects
// them.
inline void* aligned_address(size_t bytes) {
    const size_t step = huge_page();
    void* area = mmap(nullptr, bytes + step, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return nullptr;
    munmap(area, bytes + step);
    return static_cast<char*>(area) + (step - reinterpret_cast<size_t>(area) % step) % step;
}

inline std::string map(Memory& memory) {
    const Kind& kind = memory.kind;
    void* where = kind.pages == kUsual ? nullptr : aligned_address(memory.bytes);
    const bool segment = kind.mechanism == kSystemV;
    if (segment) {
        memory.at = shmat(memory.handle, where, 0);
        if (shmctl(memory.handle, IPC_RMID, nullptr) == -1) return failure("shmctl", "IPC_RMID");
    } else {
        int flags = kind.mechanism == kPrivate ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
        if (kind.pages == kPool) flags |= MAP_HUGETLB;
        memory.at = mmap(where, memory.bytes, PROT_READ | PROT_WRITE, flags, memory.handle, 0);
    }
    if (memory.at == MAP_FAILED) {
        memory.at = nullptr;
        return failure(segment ? "shmat" : "mmap", std::to_string(memory.bytes) + " bytes");
    }
    const int advice = kind.pages == kSmall ? MADV_NOHUGEPAGE : MADV_HUGEPAGE;
    if ((kind.pages == kSmall || kind.pages == kAdvised) &&
        madvise(memory.at, memory.bytes, advice) == -1)
        return failure("madvise", advice == MADV_HUGEPAGE ? "MADV_HUGEPAGE" : "MADV_NOHUGEPAGE");
    return "";
}

// Makes huge pages of the small ones that are there, whatever the settings [madvise(2)].
inline std::string collapse(Memory& memory) {
    if (memory.kind.pages != kCollapsed) return "";
    return madvise(memory.at, memory.bytes, MADV_COLLAPSE) == 0
               ? ""
               : failure("madvise", "MADV_COLLAPSE");
}

// Unmaps it and closes what is left of it: its pages are free again.
inline void give_back(Memory& memory) {
    const bool segment = memory.kind.mechanism == kSystemV;
    if (memory.at && segment) shmdt(memory.at);
    if (memory.at && !segment) munmap(memory.at, memory.bytes);
    if (memory.handle != -1 && !segment) close(memory.handle);
}

// Which part of the mapping at that address lies in huge pages, from 0 to 1 [proc_pid_smaps(5)].
inline double huge_part(const Memory& memory) {
    const unsigned long at = reinterpret_cast<unsigned long>(memory.at);
    std::ifstream smaps("/proc/self/smaps");
    double huge = 0;
    bool ours = false;
    for (std::string line; std::getline(smaps, line);) {
        unsigned long from = 0, to = 0, kib = 0;
        char key[40] = "";
        if (sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2)
            ours = from <= at && at < to;
        else if (ours && sscanf(line.c_str(), "%39s %lu kB", key, &kib) == 2)
            for (const char* one : {"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:",
                                    "Shared_Hugetlb:", "Private_Hugetlb:"})
                if (strcmp(key, one) == 0) huge += static_cast<double>(kib) * 1024;
    }
    return huge / static_cast<double>(memory.bytes);
}

// What decides whether this kind gets huge pages, as it is set on this machine.
inline std::string huge_setting(const Kind& kind) {
    const std::string settings = "/sys/kernel/mm/transparent_hugepage/";
    const std::string pool =
        "/sys/kernel/mm/hugepages/hugepages-" + std::to_string(huge_page() / 1024) + "kB/";
    const auto chosen = [](const std::string& directory, const std::string& file) {
        std::ifstream in(directory + file);
        std::string word;
        while (in >> word && word[0] != '[' && !isdigit(word[0])) continue;
        return file + " " + (word.empty() ? "unknown" : word);
    };
    if (kind.pages == kPool) return chosen(pool, "free_hugepages");
    if (kind.mechanism == kPrivate) return chosen(settings, "enabled");
    if (kind.mechanism == kSystemV) return chosen(settings, "shmem_enabled");
    if (kind.own_mount) return "huge=advise";
    std::ifstream in("/proc/self/mounts");
    for (std::string line; std::getline(in, line);)
        if (line.find(" /dev/shm ") != std::string::npos && line.find("huge=") != std::string::npos)
            return line.substr(line.find("huge="));
    return "no huge= of the mount";
}
