// Where a program can do no harm: namespaces of its own, in which a function of ours is process 1.
// What the program sees: the machine's files, read-only and without anybody's home; its own empty
// /dev/shm, /tmp and System V objects; no other processes, no network [namespaces(7)].
//
//     Box box;                       // asks the kernel whether it lets us
//     pid_t pid = box.enter([&] {    // like fork(2), but into the box; what it returns ends it
//         ...
//     });
//
// When process 1 ends, the kernel ends all others in the box, and what was there is gone.
// Where the kernel refuses, enter() is a plain fork, and `refused` says why.

#pragma once

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <system_error>

// What one run of the program may use. The tracer counts the processes (run.h).
struct Limits {
    int seconds = 120;          // of wall time, for all of it: beside other work, too
    unsigned processor = 5;     // seconds of processor time, for each process
    size_t processes = 64;      // at the same time
    rlim_t memory = 256 << 20;  // address space of each process
    rlim_t file = 8 << 20;      // bytes of each file and of what it prints
};

class Box {
  public:
    Box() {
        int says[2];
        if (pipe2(says, O_CLOEXEC) == -1) fail("pipe2");
        const pid_t probe = start([&] {
            try {  // all that a run will do
                shut();
                drop(Limits());
            } catch (const std::system_error& error) {
                return write(says[1], error.what(), strlen(error.what())) == -1 ? 1 : 0;
            }
            return 0;
        });
        if (probe == -1) refused = std::string("clone: ") + strerror(errno);
        close(says[1]);
        char text[256];
        const ssize_t bytes = read(says[0], text, sizeof text);
        close(says[0]);
        if (bytes > 0) refused.assign(text, static_cast<size_t>(bytes));
        if (probe != -1) waitpid(probe, nullptr, 0);
    }

    pid_t enter(const std::function<int()>& inside) const {
        if (!refused.empty()) {
            const pid_t pid = fork();
            if (pid != 0) return pid;
            // One at a time: nothing keeps what one makes from another. The lock goes with us.
            const int turn = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
            if (turn == -1 || flock(turn, LOCK_EX) == -1) _exit(3);
            _exit(inside());
        }
        return start([&] {
            shut();
            return inside();
        });
    }

    // In the process that becomes the program: no rights over process 1, and the limits.
    void drop(const Limits& limits) const {
        const auto limit = [](decltype(RLIMIT_CPU) what, rlim_t most, rlim_t more = 0) {
            const rlimit it = {most, most + more};
            setrlimit(what, &it);
        };
        limit(RLIMIT_CPU, limits.processor, 1);  // first SIGXCPU, which says why
        limit(RLIMIT_AS, limits.memory);
        limit(RLIMIT_FSIZE, limits.file);
        limit(RLIMIT_NOFILE, 256);
        limit(RLIMIT_CORE, 0);
        put("/proc/self/oom_score_adj", "1000");
        if (refused.empty()) {
            if (user_ != 0) {  // a user namespace below: nothing in ours is this user's to rule
                if (unshare(CLONE_NEWUSER) == -1) fail("unshare");
                map_ids(user_, 0, group_, 0);
                put("/proc/sys/user/max_user_namespaces", "0");  // of ours; it makes none below
            } else if (setgroups(0, nullptr) || setresgid(65534, 65534, 65534) ||
                       setresuid(65534, 65534, 65534)) {
                fail("setresuid");
            }
        }
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }

    // Whom the program runs as, as process 1 sees it.
    uid_t user() const { return refused.empty() && user_ == 0 ? 65534 : geteuid(); }

    std::string refused;  // "": the box is closed

    [[noreturn]] static void fail(const std::string& what) {
        throw std::system_error(errno, std::generic_category(), what);
    }

  private:
    // Root needs no user namespace; with one, everybody may make the others [user_namespaces(7)].
    // CLONE_NEWPID: the new process is process 1.
    pid_t start(const std::function<int()>& inside) const {
        const long flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET |
                           (user_ == 0 ? 0 : CLONE_NEWUSER) | SIGCHLD;
        const pid_t pid = static_cast<pid_t>(syscall(SYS_clone, flags, 0, 0, 0, 0));
        if (pid != 0) return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // the box goes with its maker
        try {
            _exit(inside());
        } catch (const std::exception& error) {
            dprintf(STDERR_FILENO, "%s\n", error.what());
            _exit(3);
        }
    }

    void shut() const {
        if (user_ != 0) map_ids(0, user_, 0, group_);
        // What we mount is not to be seen outside.
        if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr)) fail("mount(/, MS_PRIVATE)");
        // All that is mounted becomes read-only, and no program gets another user's rights
        // [mount_setattr(2): MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID; AT_RECURSIVE].
        const uint64_t attributes[4] = {1 | 2, 0, 0, 0};
        if (syscall(442, AT_FDCWD, "/", 0x8000, attributes, sizeof attributes))
            fail("mount_setattr(/)");
        if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV, nullptr)) fail("mount(/proc)");
        // Homes, and the sockets and terminals that lead out of here.
        for (const char* hidden :
             {"/dev/shm", "/tmp", "/var/tmp", "/home", "/root", "/run", "/dev/pts"})
            if (mount("tmpfs", hidden, "tmpfs", MS_NOSUID | MS_NODEV,
                      "size=64m,nr_inodes=1k,mode=1777") == -1 &&
                errno != ENOENT)
                fail(std::string("mount(") + hidden + ")");
        put("/proc/sys/kernel/shmall", "16384");  // pages of System V memory; of our IPC namespace
    }

    static void map_ids(uid_t user, uid_t outer_user, gid_t group, gid_t outer_group) {
        const auto line = [](unsigned inner, unsigned outer) {
            return std::to_string(inner) + " " + std::to_string(outer) + " 1";
        };
        put("/proc/self/setgroups", "deny");
        if (!put("/proc/self/uid_map", line(user, outer_user))) fail("uid_map");
        if (!put("/proc/self/gid_map", line(group, outer_group))) fail("gid_map");
    }

    static bool put(const char* path, const std::string& text) {
        const int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd == -1) return false;
        const bool done = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
        const int why = errno;
        close(fd);
        errno = why;
        return done;
    }

    const uid_t user_ = geteuid();
    const gid_t group_ = getegid();
};
