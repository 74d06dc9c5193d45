// Every failure tried, on every program of the collection: nine families of disturbances, one rule
// (faults.h). [faults] tries some of each family, evenly chosen; `make test-faults`, that is
// FAULTS=all, tries all. A control that is right as long as nothing happens,
// tests/programs/naive.cc, goes through the same: a family that finds nothing wrong with it fails.
//
//     FAULT='signals: shm_v write: ...' tests/run '[faults]'      repeats one case

#include "faults.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <filesystem>
#include <iomanip>
#include <memory>
#include <random>

#include "../common/exchange.h"
#include "../map_posix/config/image.h"
#include "../shm_posix/packets/ring.h"

namespace {

struct Verdict {
    std::string wrong;  // empty: nothing
    bool fired = true;  // the disturbance has come about
    Outcome it = {};
};

struct Case {
    std::string how;
    std::function<Verdict()> run;
};

using Cases = std::vector<Case>;

// What the undisturbed run does; made once.
const Outcome& clean(const Target& target) {
    static std::map<std::string, Outcome> known;
    if (!known.count(target.title)) {
        target.before();
        known[target.title] = disturbed(target, {});
        const std::string wrong = broken(target, {}, known[target.title]);
        INFO(target.title << ": " << wrong << ", " << known[target.title].status << "\n"
                          << known[target.title].out << known[target.title].err);
        REQUIRE(wrong.empty());
        REQUIRE(known[target.title].status == 0);
    }
    return known[target.title];
}

// The first of its own calls: the loader's come to their end when it unmaps its list of libraries.
size_t own_calls(const Target& target) {
    const auto& calls = clean(target).calls[0];
    size_t at = 0;
    while (at < calls.size() && calls[at].call != SYS_munmap) ++at;
    return at + 1;
}

// Each of its own calls.
void each_call(const Target& target, const std::function<void(int, int, const Call&)>& disturb) {
    if (target.slow) return;
    for (int process : {0, 1}) {
        const auto& calls = clean(target).calls[process];
        for (size_t at = process == 0 ? own_calls(target) : 0; at < calls.size(); ++at)
            disturb(process, static_cast<int>(at + 1), calls[at]);
    }
}

Case traced(const Target& target, Fault fault, const std::string& how = "",
            const std::function<void()>& prepare = {}) {
    if (fault.at > 0)
        fault.call = clean(target).calls[fault.process][static_cast<size_t>(fault.at - 1)].call;
    return {how.empty() ? describe(fault, clean(target)) : how, [=] {
                target.before();
                const Outcome it = disturbed(target, fault, prepare);
                std::string wrong = broken(target, fault, it);
                const bool ended = fault.kind >= Fault::sent && it.status > 128;
                if (wrong.empty() && ended) wrong = next_run(target);
                return Verdict{wrong, it.fired, it};
            }};
}

Case untraced(const Target& target, const std::string& how, const std::function<void()>& prepare,
              bool mute = false) {
    return {how, [=] {
                target.before();
                Outcome it = undisturbed(target, prepare);
                it.mute = mute;
                return Verdict{broken(target, {}, it), true, it};
            }};
}

// Nothing is said of what it leaves, where others change that too.
Target relaxed(Target target) {
    target.left = [](const Outcome&) { return ""; };
    if (!target.by_output) target.wrong = target.left;
    return target;
}

// A signal to one that is too slow for the tracer, at some moments.
Cases now_and_then(const Target& target, const std::vector<int>& numbers) {
    Cases all;
    if (!target.slow) return all;
    for (int number : numbers)
        for (unsigned ms : {1, 20, 300, 900})
            all.push_back(
                {std::string(strsignal(number)) + " after " + std::to_string(ms) + " ms", [=] {
                     target.before();
                     Running running(target);
                     usleep(ms * 1000);
                     kill(-running.pid, number);
                     Fault fault = {Fault::group_signal, 0, 0, number};
                     if (number == SIGKILL) fault.kind = Fault::both_killed;
                     const Outcome it = running.finish();
                     return Verdict{broken(target, fault, it), true, it};
                 }});
    return all;
}

// From now on that call fails, where one of these bits is set in its argument, or always
// [seccomp(2)]: for what is too slow for the tracer.
void refuse(uint64_t call, int error, unsigned argument, uint32_t bits) {
    const auto number = static_cast<uint32_t>(call), data = static_cast<uint32_t>(error);
    const unsigned at = offsetof(seccomp_data, args) + 8 * argument;
    const uint8_t otherwise = bits == 0 ? 0 : 1;  // steps to skip
    sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, otherwise),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | data),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter = {sizeof steps / sizeof *steps, steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == -1)
        _exit(126);
}

// Calls that it makes and the loader does not; not shmctl, by which its segments go.
Cases calls_refused(const Target& target) {
    Cases all;
    const struct {
        uint64_t call;
        int error;
        unsigned argument = 0;
        uint32_t bits = 0;
    } refused[] = {{SYS_openat, EMFILE, 2, O_CREAT},
                   {SYS_openat, EACCES, 2, O_CREAT},
                   {SYS_mmap, ENOMEM, 3, MAP_SHARED},
                   {SYS_mmap, EACCES, 3, MAP_SHARED},
                   {SYS_ftruncate, ENOSPC},
                   {SYS_fallocate, ENOSPC},
                   {SYS_clone, EAGAIN},
                   {SYS_wait4, ECHILD},
                   {SYS_pipe2, EMFILE},
                   {SYS_socketpair, EMFILE},
                   {SYS_shmget, ENOSPC},
                   {SYS_shmat, ENOMEM},
                   {SYS_unlinkat, EACCES},
#ifdef SYS_unlink
                   {SYS_unlink, EACCES},
#endif
                   {SYS_write, EIO, 0, 1}};
    for (const auto& it : refused)
        all.push_back({call_name(it.call) + " is refused, " + strerror(it.error), [=] {
                           target.before();
                           const Outcome run = undisturbed(
                               target, [=] { refuse(it.call, it.error, it.argument, it.bits); });
                           const bool said = has(run.out + run.err, strerror(it.error));
                           return Verdict{broken(target, {}, run), said, run};
                       }});
    return all;
}

// 1. Each call fails.
Cases calls_fail(const Target& target) {
    if (target.slow) return calls_refused(target);
    Cases all;
    each_call(target, [&](int process, int at, const Call& call) {
        for (int error : errors(call)) {
            all.push_back(traced(target, {Fault::fails, process, at, error}));
            if (error != EINTR && error != EAGAIN)
                all.push_back(traced(target, {Fault::keeps_failing, process, at, error}));
        }
    });
    return all;
}

// 2. SIGKILL at each call, and the next run.
Cases kills(const Target& target) {
    Cases all = now_and_then(target, {SIGKILL});
    if (target.slow) return all;
    each_call(target, [&](int process, int at, const Call&) {
        for (auto kind : {Fault::killed, Fault::killed_after, Fault::both_killed})
            all.push_back(traced(target, {kind, process, at, SIGKILL}));
    });
    return all;
}

// 3. A signal at each call.
Cases signals(const Target& target) {
    Cases all = now_and_then(target, {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGXFSZ});
    if (target.slow) return all;
    each_call(target, [&](int process, int at, const Call&) {
        for (int number : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM,
                           SIGXFSZ, SIGXCPU, SIGTSTP}) {
            all.push_back(traced(target, {Fault::sent, process, at, number}));
            if (target.way != Way::as_process_1)
                all.push_back(traced(target, {Fault::group_signal, process, at, number}));
        }
    });
    return all;
}

// Sources of tests/programs, built once.
std::string built(const std::string& name, const std::string& flags = "") {
    static const Scratch scratch;
    const std::string path = scratch.path + "/" + name;
    const char* given = getenv("CXX");
    if (exists(path)) return path;
    const Result made =
        shell(std::string(given ? given : "c++") + " -std=c++17 " + flags + " -o " + path + " " +
              quoted(root()) + "/tests/programs/" + name + ".cc -pthread -lrt");
    INFO(made.err);
    REQUIRE(made.status == 0);
    return path;
}

std::function<void()> preload(const std::string& variable, const std::string& value) {
    const std::string library = built("preload", "-shared -fPIC");
    return [=] {
        setenv("LD_PRELOAD", library.c_str(), 1);
        setenv(variable.c_str(), value.c_str(), 1);
    };
}

// 4. No memory: in malloc(3), in the kernel, and less and less of it.
Cases no_memory(const Target& target) {
    Cases all;
    if (target.slow) return all;
    for (int at = 1; at <= 14; ++at)
        for (const std::string later : {"", "+"}) {
            const std::string which = std::to_string(at) + later;
            all.push_back(
                traced(target, {}, "FAIL_MALLOC=" + which, preload("FAIL_MALLOC", which)));
        }
    for (rlim_t bytes = 3 << 20; bytes < 16 << 20; bytes += 1 << 18)
        all.push_back({"RLIMIT_AS " + std::to_string(bytes), [=] {
                           target.before();
                           const Outcome it = disturbed(target, {}, [=] {
                               const rlimit most = {bytes, bytes};
                               setrlimit(RLIMIT_AS, &most);
                           });
                           // What the loader cannot do is not the program's.
                           const bool begun = it.calls[0].size() > own_calls(target);
                           return Verdict{begun ? broken(target, {}, it) : "", begun, it};
                       }});
    each_call(target, [&](int process, int at, const Call& call) {
        if (call.call == SYS_brk || call.call == SYS_mmap || call.call == SYS_shmat)
            all.push_back(traced(target, {Fault::no_memory, process, at, ENOMEM}));
    });
    return all;
}

// The object's directory.
std::string place(const Target& target) { return target.path.substr(0, target.path.rfind('/')); }

// Other bytes than it expects: a byte changed, the end missing, or chance.
Cases spoiled(const Target& target) {
    Cases all;
    if (!target.plant) return all;
    const auto add = [&](const std::string& how, const std::string& bytes) {
        all.push_back({how, [=] {
                           target.before();
                           target.plant(bytes);
                           const Outcome it = undisturbed(target);
                           Target lax = relaxed(target);
                           lax.wrong = [](const Outcome&) { return ""; };
                           std::string wrong = broken(lax, {}, it);
                           if (it.status == 0 && it.out != target.reading(bytes))
                               wrong = "exit 0, but wrong output";
                           return Verdict{wrong, true, it};
                       }});
    };
    std::mt19937 random{1};
    const std::string& whole = target.bytes;
    for (size_t at = 0; at < whole.size(); ++at) {
        for (int change : {1, 0x80, 0xff}) {
            std::string bytes = whole;
            bytes[at] = static_cast<char>(bytes[at] ^ change);
            add("byte " + std::to_string(at) + " changed by " + std::to_string(change), bytes);
        }
        if (at > 0) add("cut to " + std::to_string(at), whole.substr(0, at));
    }
    for (int i = 1; i <= 200; ++i) {
        std::string bytes = whole;
        for (char& c : bytes)
            if (random() % (i < 100 ? 2 : 20) == 0) c = static_cast<char>(random());
        add("random " + std::to_string(i), bytes);
    }
    return all;
}

// 5. What is not as it should be under the name, and what happens to it meanwhile.
Cases planted(const Target& target) {
    Cases all = spoiled(target);
    if (target.path.empty()) return all;
    const std::string path = target.path, victim = path + "-victim";
    const std::map<std::string, std::function<bool()>> things = {
        {"a file of another kind", [=] { return put(path, "precious"), true; }},
        {"a large file of another kind", [=] { return put(path, std::string(100000, 'x')), true; }},
        {"zeros", [=] { return put(path, std::string(8192, '\0')), true; }},
        {"an empty file", [=] { return put(path, ""), true; }},
        {"a link",
         [=] { return put(victim, "precious"), symlink(victim.c_str(), path.c_str()) == 0; }},
        {"a hard link",
         [=] { return put(victim, "precious"), link(victim.c_str(), path.c_str()) == 0; }},
        {"a link to nothing", [=] { return symlink("/nowhere", path.c_str()) == 0; }},
        {"a link to itself", [=] { return symlink(path.c_str(), path.c_str()) == 0; }},
        {"a FIFO", [=] { return mkfifo(path.c_str(), 0600) == 0; }},
        {"a directory", [=] { return mkdir(path.c_str(), 0700) == 0; }},
        {"a device", [=] { return mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0; }},
        {"a socket",
         [=] {
             sockaddr_un address = {AF_UNIX, ""};
             path.copy(address.sun_path, sizeof address.sun_path - 1);
             const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
             const bool made = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
             close(fd);
             return made;
         }},
        {"a file of nobody's mode",
         [=] { return put(path, "precious"), chmod(path.c_str(), 0) == 0; }},
        {"a file of another user",
         [=] {
             put(path, "precious");
             return chown(path.c_str(), 12345, 12345) == 0;
         }},
    };
    for (const auto& [what, plant] : things)
        all.push_back({what, [=, plant = plant] {
                           target.before();
                           if (unlink(path.c_str()) == -1) rmdir(path.c_str());
                           if (!plant()) return Verdict{"", false};
                           const auto look = [&] {
                               struct stat it = {};
                               lstat(path.c_str(), &it);
                               const bool file = S_ISREG(it.st_mode);
                               return std::to_string(it.st_ino) + " " + std::to_string(it.st_mode) +
                                      " " + std::to_string(it.st_uid) + " " +
                                      (file ? contents(path) : "") +
                                      (exists(victim) ? contents(victim) : "");
                           };
                           const std::string before = look();
                           const Outcome it = undisturbed(target);
                           std::string wrong = broken(relaxed(target), {}, it);
                           if (wrong.empty() && look() != before) wrong = "overwritten";
                           unlink(victim.c_str());
                           if (unlink(path.c_str()) == -1) rmdir(path.c_str());
                           return Verdict{wrong, true, it};
                       }});
    const Target lax = relaxed(target);
    each_call(target, [&](int process, int at, const Call&) {
        const std::map<std::string, std::function<void()>> events = {
            {"the object is cut",
             [=] {
                 if (truncate(path.c_str(), 0) == -1) return;
             }},
            {"the object is removed", [=] { unlink(path.c_str()); }},
            {"the object is replaced", [=] { unlink(path.c_str()), put(path, "precious"); }}};
        for (const auto& [what, event] : events) {
            if (target.joins && what != "the object is cut") continue;
            Fault fault = {Fault::happens, process, at, 0, event};
            all.push_back(traced(lax, fault, describe(fault, clean(target)) + ": " + what));
        }
    });
    return all;
}

std::set<std::string> not_tried;  // and why

// Runs it in namespaces of its own, after that line of shell.
Target inside(Target target, const std::string& flags, const std::string& line) {
    const bool user = geteuid() != 0;
    Words words = {"unshare", (user ? "-Ur" : "-") + flags, "sh",
                   "-c",      line + " && exec \"$@\"",     "sh"};
    words.insert(words.end(), target.words.begin(), target.words.end());
    target.words = words;
    return relaxed(target);
}

bool have_namespaces(const std::string& flags) {
    const std::string line = std::string("unshare ") + (geteuid() ? "-Ur" : "-") + flags + " true";
    const bool have = shell(line).status == 0;
    if (!have) not_tried.insert("what needs namespaces: '" + line + "' fails");
    return have;
}

// A memory cgroup: the kernel kills who needs more than that [cgroups(7)]. Without a `path`: none
// can be made here.
struct MemoryGroup {
    explicit MemoryGroup(const std::string& most) {
        const bool old = exists("/sys/fs/cgroup/memory");  // version 1
        path = (old ? "/sys/fs/cgroup/memory/" : "/sys/fs/cgroup/") + unique();
        const std::string limit = path + (old ? "/memory.limit_in_bytes" : "/memory.max");
        if (mkdir(path.c_str(), 0700) == -1) path = "";
        if (path.empty()) return;
        put(limit, most);
        put(path + (old ? "/memory.memsw.limit_in_bytes" : "/memory.swap.max"), old ? most : "0");
        if (!has(contents(limit), most)) leave();
    }
    ~MemoryGroup() { leave(); }
    void leave() {  // who is killed is in it a moment longer
        for (int i = 0; !path.empty() && rmdir(path.c_str()) == -1 && i < 5000; ++i) usleep(1000);
        path = "";
    }
    std::string path;
};

// A program that gets less memory than it needs, here or there: the kernel's SIGKILL is no wonder,
// but what comes of it is as after any other.
void limit_memory(const Target& target, Cases* all) {
    if (MemoryGroup("1048576").path.empty()) {
        not_tried.insert("a memory cgroup: none can be made here (root, and cgroups(7))");
        return;
    }
    for (int pages = 64; pages <= 1024; pages *= 2)
        all->push_back({"a memory cgroup of " + std::to_string(pages) + " pages", [=] {
                            const MemoryGroup group(std::to_string(pages * 4096));
                            target.before();
                            const Outcome it = undisturbed(
                                target, [&] { put(group.path + "/cgroup.procs", "0"); });
                            const Fault kill = {Fault::both_killed, 0, 0, SIGKILL};
                            std::string wrong = broken(target, kill, it);
                            if (wrong.empty() && it.status > 128) wrong = next_run(target);
                            return Verdict{wrong, it.status != 0, it};
                        }});
}

// 6. Limits, and places without room.
Cases surroundings(const Target& target) {
    Cases all;
    if (target.at_input) return all;
    const auto limit = [&](const std::string& name, __rlimit_resource which, rlim_t most) {
        all.push_back(untraced(
            target, name + " " + std::to_string(most),
            [=] {
                const rlimit it = {most, most};
                setrlimit(which, &it);
            },
            which == RLIMIT_FSIZE && most == 0));  // its stderr is a file, too
    };
    for (rlim_t bytes : {0, 50, 99, 4096}) limit("RLIMIT_FSIZE", RLIMIT_FSIZE, bytes);
    for (rlim_t files : {3, 4, 5, 6}) limit("RLIMIT_NOFILE", RLIMIT_NOFILE, files);
    for (rlim_t bytes : {0, 4096}) limit("RLIMIT_MEMLOCK", RLIMIT_MEMLOCK, bytes);
    if (geteuid() != 0) limit("RLIMIT_NPROC", RLIMIT_NPROC, 0);
    limit("RLIMIT_SIGPENDING", RLIMIT_SIGPENDING, 0);
    if (target.path.empty()) {
        if (have_namespaces("i"))
            for (const std::string line :
                 {"echo 50 >/proc/sys/kernel/shmmax", "echo 0 >/proc/sys/kernel/shmall",
                  "echo 0 >/proc/sys/kernel/shmmni", "echo 1 >/proc/sys/kernel/shm_rmid_forced"})
                all.push_back(untraced(inside(target, "i", line), line, {}));
    } else if (have_namespaces("m") && !target.joins) {
        const std::string there = place(target), mount = "mount -t tmpfs none " + there;
        for (const std::string& line :
             {mount + " -o size=4k",
              mount + " -o size=8k && head -c 8192 /dev/zero >" + there + "/full",
              mount + " -o nr_inodes=1", mount + " -o ro", std::string("mount -t tmpfs none /dev")})
            all.push_back(untraced(inside(target, "m", line), line, {}));
    }
    if (!target.slow) limit_memory(target, &all);
    return all;
}

// 7. Crowds.
Cases crowds(const Target& target) {
    // Who joins waits for more to come; without the tracer nobody feeds who is fed.
    if (target.slow || target.joins || target.at_input) return {};
    const auto crowd = [=](int count, bool removers) {
        target.before();
        std::vector<Running> running;
        for (int i = 0; i < count; ++i) {
            running.emplace_back(target);
            if (removers && i % 3 == 0 && !target.path.empty()) unlink(target.path.c_str());
        }
        Verdict all;
        const Target lax = relaxed(target);
        for (Running& one : running) {
            const Outcome it = one.finish();
            const std::string wrong = broken(lax, {}, it);
            if (all.wrong.empty() && !wrong.empty()) all = {wrong, true, it};
        }
        return all;
    };
    return {{"200 at once under one name", [=] { return crowd(200, false); }},
            {"60 at once, and the object is removed meanwhile", [=] { return crowd(60, true); }}};
}

// Its `fd` becomes a full pipe. Nobody reads from it, and writing does not wait; or somebody comes
// later, and passes on what follows.
void full_pipe(int fd, bool with_reader) {
    int ends[2];
    if (pipe(ends) == -1 || fcntl(ends[1], F_SETFL, O_NONBLOCK) == -1) _exit(126);
    ssize_t filled = 0, bytes;
    char buffer[4096] = "";
    while ((bytes = write(ends[1], buffer, sizeof buffer)) > 0) filled += bytes;
    const int out = dup(fd);
    dup2(ends[1], fd);
    close(ends[1]);
    if (!with_reader) return;  // ends[0] stays open
    if (fcntl(fd, F_SETFL, 0) == -1) _exit(126);
    if (fork() != 0) {
        close(ends[0]);
        return;
    }
    close(fd);
    usleep(100000);
    while ((bytes = read(ends[0], buffer, sizeof buffer)) > 0) {
        const ssize_t skipped = std::min(bytes, filled);
        filled -= skipped;
        if (write(out, buffer + skipped, static_cast<size_t>(bytes - skipped)) == -1) _exit(1);
    }
    _exit(0);
}

// Not even a name of its own, so no arguments: the usual exchange, or wrong usage.
Verdict with_empty_argv(const Target& target) {
    DefaultNames names(true);
    if (!names.taken.empty()) return {"", false};
    const Scratch scratch;
    Target bare = relaxed(target);
    bare.directory = scratch.path;
    bare.wrong = [](const Outcome& run) -> std::string {
        return run.out == transcript(run.out) ? "" : "wrong output";
    };
    const Outcome it = undisturbed(bare, [&] {
        char* none[] = {nullptr};
        execv(target.words.front().c_str(), none);
        _exit(126);
    });
    std::string wrong = broken(bare, {}, it);
    const bool left = !names.take_back().empty() || !std::filesystem::is_empty(scratch.path);
    if (wrong.empty() && left) wrong = "the object stays";
    return {wrong, true, it};
}

// 8. What a process inherits.
Cases inherited(const Target& target) {
    Cases all;
    if (target.at_input) return all;
    for (int closed = 1; closed < 8; ++closed)
        all.push_back(untraced(
            target, "closed standard streams, bits " + std::to_string(closed),
            [=] {
                for (int fd : {0, 1, 2})
                    if (closed >> fd & 1) close(fd);
            },
            closed & 4));
    const auto stream = [&](const std::string& name, int fd, const char* file, int flags) {
        all.push_back(untraced(
            target, name, [=] { dup2(open(file, flags | O_CLOEXEC), fd); }, fd == 2));
    };
    stream("stdout is full", 1, "/dev/full", O_WRONLY);
    stream("stderr is full", 2, "/dev/full", O_WRONLY);
    stream("stdout is read-only", 1, "/dev/null", O_RDONLY);
    stream("stdin is a directory", 0, "/", O_RDONLY);
    all.push_back(untraced(target, "stdout has no reader", [] {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) == 0) dup2(ends[1], 1);
    }));
    for (int fd : {1, 2})
        all.push_back(untraced(
            target, "full pipe for " + std::to_string(fd), [=] { full_pipe(fd, false); }, fd == 2));
    if (!target.slow && target.words.front()[0] == '/')
        all.push_back({"empty argv", [=] { return with_empty_argv(target); }});
    for (mode_t mask : {0, 0777})
        all.push_back(untraced(target, "umask " + std::to_string(mask), [=] { umask(mask); }));
    all.push_back(untraced(target, "the working directory is removed", [] {
        char name[] = "/tmp/shm-test-gone-XXXXXX";
        if (!mkdtemp(name) || chdir(name) == -1 || rmdir(name) == -1) _exit(126);
    }));
    // With these it has to come to its end all the same.
    const auto no_harm = [&](const std::string& name, const std::function<void()>& prepare) {
        all.push_back({name, [=] {
                           target.before();
                           const Outcome it = undisturbed(target, prepare);
                           std::string wrong = broken(target, {}, it);
                           if (wrong.empty() && it.status != 0) wrong = "it did harm";
                           return Verdict{wrong, true, it};
                       }});
    };
    no_harm("all signals ignored", [] {
        for (int number = 1; number < NSIG; ++number) signal(number, SIG_IGN);
    });
    no_harm("all signals blocked", [] {
        sigset_t all_signals;
        sigfillset(&all_signals);
        sigprocmask(SIG_BLOCK, &all_signals, nullptr);
    });
    no_harm("a full pipe that is read at last", [] { full_pipe(1, true); });
    no_harm("no environment", [] { clearenv(); });
    no_harm("a child that it does not know", [] {
        const pid_t program = getpid();
        if (fork() != 0) return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == program) pause();
        _exit(0);
    });
    no_harm("a child that has ended", [] {
        if (fork() == 0) _exit(42);
    });
    no_harm("a subreaper", [] { prctl(PR_SET_CHILD_SUBREAPER, 1); });
    no_harm("no processor time but the least", [] {
        if (nice(19) == -1) return;
    });
    return all;
}

// 9. Stop and go, and a clock that jumps.
Cases stop_and_go(const Target& target) {
    Cases all;
    if (target.at_input) return all;
    for (unsigned seed = 1; seed <= 30; ++seed)
        all.push_back({"stopped and continued at random, seed " + std::to_string(seed), [=] {
                           std::mt19937 random{seed};
                           target.before();
                           Running running(target);
                           int stops = 0;
                           const Outcome it = running.finish([&] {
                               usleep(random() % 400);
                               if (stops++ > 50) return;
                               kill(-running.pid, SIGSTOP);
                               usleep(random() % 2000);
                               kill(-running.pid, SIGCONT);
                           });
                           return Verdict{broken(target, {}, it), stops > 0, it};
                       }});
    if (target.slow) return all;
    each_call(target, [&](int process, int at, const Call&) {
        all.push_back(traced(target, {Fault::stopped_killed, process, at, SIGSTOP}));
    });
    for (const std::string seconds : {"3600", "-3600", "1000000000"})
        all.push_back(
            traced(target, {}, "the clock jumps " + seconds + " s", preload("JUMP", seconds)));
    return all;
}

struct Family {
    const char* name;
    Cases (*cases)(const Target&);
    size_t few, few_of_control;  // cases for each program in `make test`
};
const Family kFamilies[] = {{"calls", calls_fail, 2, 8},       {"SIGKILL", kills, 2, 8},
                            {"signals", signals, 2, 8},        {"memory", no_memory, 2, 100},
                            {"contents", planted, 2, 8},       {"surroundings", surroundings, 2, 8},
                            {"crowds", crowds, 0, 0},          {"inherited", inherited, 2, 8},
                            {"stop and go", stop_and_go, 2, 8}};

// A line of the summary.
struct Tally {
    int cases = 0, bad = 0, not_fired = 0;
    long begin = Tracer::now();
    bool quiet = false;  // about the bad ones
};

std::string readable(std::string text) {
    text = text.substr(0, 200);
    for (char& c : text)
        if (c != '\n' && !isprint(static_cast<unsigned char>(c))) c = '.';
    return text;
}

// Tries a family on one program: all of it, or some cases evenly chosen.
void go_through(const Family& family, const Target& target, size_t most, Tally* tally) {
    const char* only = getenv("FAULT");
    const Cases all = family.cases(target);
    const size_t step = std::max<size_t>(1, all.size() / std::max<size_t>(1, most));
    for (size_t i = only ? 0 : step / 2; i < all.size(); i += only ? 1 : step) {
        const std::string id = std::string(family.name) + ": " + target.title + ": " + all[i].how;
        if (only && id != only) continue;
        const Verdict verdict = all[i].run();
        ++tally->cases;
        tally->not_fired += !verdict.fired;
        if (verdict.wrong.empty()) continue;
        ++tally->bad;
        if (tally->quiet || tally->bad > 20) continue;
        std::cout << "BAD: " << verdict.wrong << ", status " << verdict.it.status
                  << "; again: FAULT='" << id << "' tests/run '[faults]'\n"
                  << readable(verdict.it.out) << readable(verdict.it.err) << std::endl;
    }
    target.before();
}

void print(const std::string& name, const Tally& tally) {
    std::cout << std::left << std::setw(22) << name << std::right << std::setw(7) << tally.cases
              << std::setw(7) << tally.cases - tally.bad - tally.not_fired << std::setw(6)
              << tally.bad << std::setw(11) << tally.not_fired << std::setw(9) << std::fixed
              << std::setprecision(1) << static_cast<double>(Tracer::now() - tally.begin) / 1000
              << std::endl;
}

// The three exchange programs.
Target exchanging(const std::string& mechanism, const std::string& verb,
                  Way way = Way::child_first) {
    const auto object = std::make_shared<Object>(mechanism);
    Target it;
    it.title = object->self + " " + verb;
    it.words = object->words(verb);
    if (!object->sysv) it.path = object->path;
    it.way = way;
    it.strict = true;
    if (way == Way::parent_first) it.title += ", parent first";
    if (way == Way::as_process_1) {
        it.title += " as process 1";
        it.words.insert(it.words.begin(), {"unshare", "-Urp", "--fork", "--mount-proc"});
    }
    const bool reads = verb == "read", writes = verb == "write";
    const auto looks = std::make_shared<std::string>();
    it.before = [=] {
        if (reads && object->there() && object->looks() == *looks) return;
        object->take_away();
        if (!reads) return;
        REQUIRE(object->run("write").status == 0);
        *looks = object->looks();
    };
    if (reads) {
        Items items = {};
        store_items(&items);
        it.bytes.assign(reinterpret_cast<const char*>(&items), sizeof items);
        it.bytes.resize(kBytes);
        it.plant = [=](const std::string& bytes) { object->take_away(), object->plant(bytes); };
        it.reading = [](const std::string& bytes) {
            Items there = {};
            memcpy(&there, bytes.data(), std::min(bytes.size(), sizeof there));
            std::string out = "There is " + std::to_string(there.count) + " item in the shm\n";
            if (there.magic != kMagic || there.count < 1 || there.count > 3) return std::string();
            for (uint32_t i = 0; i < there.count; ++i)
                out += std::to_string(i + 1) + ": " + there.name[i] + "\n";
            return out;
        };
    }
    it.by_output = !writes;
    it.wrong = [=](const Outcome& run) -> std::string {
        if (writes && !object->sysv) chmod(object->path.c_str(), 0600);  // whatever the umask
        if (writes && object->run("read").out != kItemLines) return "nobody can read it";
        const std::string right = writes                     ? ""
                                  : reads                    ? kItemLines
                                  : way == Way::as_process_1 ? transcript(1, 2)
                                                             : transcript(run.out);
        return run.out == right ? "" : "wrong output";
    };
    it.left = [=](const Outcome& run) -> std::string {
        if (reads) return object->there() && object->looks() == *looks ? "" : "it has changed";
        const bool said = has(run.err, object->sysv ? ", IPC_RMID): " : "unlink(");
        return object->there() && !said && !(writes && run.status == 0) ? "the object stays" : "";
    };
    return it;
}

// A program of tests/programs that exchanges.
Target other_exchange(const std::string& name) {
    const auto object = std::make_shared<Object>("shm_posix");
    Target it;
    it.title = name;
    it.words = {built(name), "--name", object->name};
    it.path = object->path;
    it.before = [=] { object->take_away(); };
    it.wrong = [](const Outcome& run) -> std::string {
        return run.out == transcript(run.out) ? "" : "wrong output";
    };
    it.left = [=](const Outcome&) -> std::string {
        return object->there() ? "the object stays" : "";
    };
    return it;
}

// The packet ring: five packets.
struct RingPath {
    const std::string name = "/" + unique(), path = "/dev/shm" + name;
    ~RingPath() { unlink(path.c_str()); }
};

// Nothing is lost with a descriptor, the prctl(2) in spawn() cannot fail, a futex has its deadline,
// and what is not written is missed in the output.
const std::set<uint64_t> kUnsaid = {SYS_close, SYS_prctl, SYS_futex, SYS_write};

Target packets(const std::string& verb) {
    const auto ring = std::make_shared<RingPath>();
    const std::string program =
        ::program("PRODUCER_CONSUMER", "shm_posix/packets/producer_consumer");
    const Words produce = {program, "produce", "--generate", "5", "--name", ring->name};
    const Words consume = {program, "consume", "--pipe", "--name", ring->name};
    const std::string all = run({program, "--generate", "5", "--pipe"}).out;
    Target it;
    it.title = "packets " + verb;
    it.strict = true;
    it.unsaid = kUnsaid;
    it.most = 280;
    it.words = verb == "run"       ? Words{program, "--generate", "5", "--pipe", "--slots", "8"}
               : verb == "produce" ? produce
                                   : consume;
    const auto rest = [=]() -> std::string {  // what a consumer finds, whatever the umask
        chmod(ring->path.c_str(), 0600);
        const Result next = run(consume);
        return next.status == 0 ? next.out : next.err;
    };
    const auto all_there = [=]() -> std::string {  // after a consumer that came to no end
        if (!exists(ring->path)) return "";
        const std::string more = rest();
        const bool end = more.size() <= all.size() &&
                         all.compare(all.size() - more.size(), more.size(), more) == 0;
        return end ? "" : "the next run: packets are lost";
    };
    if (verb == "run") {
        it.wrong = [=](const Outcome& run) { return run.out == all ? "" : "wrong output"; };
        return it;
    }
    it.path = ring->path;
    it.joins = verb == "consume";
    it.before = [=] {
        unlink(ring->path.c_str());
        if (verb == "consume") REQUIRE(run(produce).status == 0);
    };
    if (verb == "consume") {  // of one packet in two slots of 64 bytes
        run({program, "produce", "--pipe", "--slots", "2", "--size", "56", "--name", ring->name},
            "a packet");
        const std::string whole = contents(ring->path);
        REQUIRE(whole.size() == sizeof(Ring) + 2 * 64);
        it.bytes = whole;
        it.plant = [=](const std::string& bytes) { put(ring->path, bytes); };
        it.reading = [=](const std::string& bytes) {
            if (bytes.size() != whole.size()) return std::string();
            const size_t count = offsetof(Ring, seat) + offsetof(Seat, count);
            uint64_t handed, handled;
            memcpy(&handed, &bytes[count], sizeof handed);
            memcpy(&handled, &bytes[count + sizeof(Seat)], sizeof handled);
            std::string out;
            for (uint64_t n = handled; n < handed && n < handled + 2; ++n) {
                const size_t at = sizeof(Ring) + n % 2 * 64;
                uint32_t length;
                memcpy(&length, &bytes[at], sizeof length);
                if (length > 56) return std::string();
                out += bytes.substr(at + sizeof(Slot), length);
            }
            return out;
        };
    }
    it.by_output = verb == "consume";
    it.wrong = [=](const Outcome& run) -> std::string {
        const std::string out = verb == "consume" ? run.out : rest();
        return out == all ? "" : "wrong output: " + std::to_string(out.size()) + out.substr(0, 100);
    };
    it.left = [=](const Outcome& run) -> std::string {
        const bool said = has(run.err, "packets wait in it") || has(run.err, "unlink(");
        if (!exists(ring->path) || said || run.status > 128) return "";
        if (verb == "produce") {  // what was handed over stays for a consumer
            const std::string more = run.status == 0 ? all : rest();
            return !more.empty() && all.rfind(more, 0) == 0 ? "" : "an empty ring stays";
        }
        return run.status == 0 ? "the ring stays" : all_there();
    };
    it.again = [=]() -> std::string {
        if (verb == "produce") {
            const Result next = run(produce);
            if (next.status != 0) return "the next run: " + next.err;
            return rest() == all ? "" : "the next run: packets are lost";
        }
        return all_there();
    };
    return it;
}

// A packet comes by UDP when it waits for the first time, a stop when it waits again.
Target packets_by_udp() {
    const auto waits = std::make_shared<int>(), sent = std::make_shared<int>();
    Target it;
    it.title = "packets --udp";
    it.most = 280;
    it.words = {program("PRODUCER_CONSUMER", "shm_posix/packets/producer_consumer"), "--udp", "0"};
    it.strict = true;
    it.unsaid = kUnsaid;
    it.before = [=] { *waits = *sent = 0; };
    it.at_input = [=](Traced& run) {
        if (++*waits > 1) run.tracer.send(&run.tracer.tracees[0], SIGTERM);
        const std::string err = run.err(), before = "receives on 127.0.0.1:";
        if (*waits > 1 || !has(err, before)) return;
        sockaddr_in to = {};
        to.sin_family = AF_INET;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        to.sin_port = htons(static_cast<uint16_t>(atoi(&err[err.find(before) + before.size()])));
        const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        *sent = sendto(fd, "a packet", 8, 0, reinterpret_cast<sockaddr*>(&to), sizeof to) == 8;
        close(fd);
    };
    it.wrong = [=](const Outcome& run) -> std::string {
        const std::string right = *sent ? "handled 1 packets, 8 bytes\n" : "handled 0 packets";
        return run.out.rfind(right, 0) == 0 ? "" : "wrong output";
    };
    it.again = [] { return ""; };  // it leaves nothing that could be in the way
    return it;
}

// The configuration: a new text, and an old image.
Target configuration(const std::string& verb) {
    const auto scratch = std::make_shared<Scratch>();
    const std::string program = ::program("SHARED_CONFIG", "map_posix/config/shared_config");
    const std::string text = scratch->path + "/app.conf", image = scratch->path + "/config.image";
    const std::string before = config::make({{"a", "old"}}), after = config::make({{"a", "new"}});
    Target it;
    it.title = "config " + verb;
    it.strict = true;
    it.unsaid = kUnsaid;
    it.most = 280;
    it.keeps = scratch;
    it.directory = scratch->path;
    it.path = image;
    it.words = verb == "load"      ? Words{program, "load", text, "--image", image}
               : verb == "readers" ? Words{program, "readers", "3", "--image", image}
                                   : Words{program, "get", "a", "--image", image};
    it.before = [=] {
        std::filesystem::remove_all(image);
        unlink((image + ".new").c_str());
        put(text, "a = new\n");
        put(image, before);
    };
    if (verb == "get") {
        it.bytes = before;
        it.plant = [=](const std::string& bytes) { put(image, bytes); };
        it.reading = [](const std::string&) { return "old\n"; };
    }
    it.by_output = verb != "load";
    it.wrong = [=](const Outcome& run) -> std::string {
        if (verb == "get") return run.out == "old\n" ? "" : "wrong output";
        if (verb == "load") chmod(image.c_str(), 0444);  // whatever the umask
        if (verb == "load") return contents(image) == after ? "" : "not loaded";
        return std::count(run.out.begin(), run.out.end(), '\n') == 5 ? "" : "wrong output";
    };
    it.left = [=](const Outcome& run) -> std::string {
        const std::string now = contents(image);
        if (now != before && (verb != "load" || now != after)) return "the image has changed";
        // An empty one, if it could not find out whether the name leads to it still.
        if (!exists(image + ".new")) return "";
        return run.status == 1 && contents(image + ".new").empty() ? "" : "the next image stays";
    };
    return it;
}

// docs/hold is told to end before it begins.
Target holder(const std::string& kind) {
    const auto object = std::make_shared<Object>(kind == "key" ? "shm_v" : "shm_posix");
    Target it;
    it.title = "hold " + kind;
    it.strict = true;
    it.unsaid = kUnsaid;
    it.by_output = false;  // it shows any bytes
    it.joins = true;       // as a child of other programs it would not be told to end
    it.words = {root() + "/docs/hold", kind, object->name};
    if (!object->sysv) it.path = object->path;
    it.before = [=] {
        object->take_away();
        REQUIRE(object->run("write").status == 0);
    };
    it.prepare = [] {
        sigset_t end;
        sigemptyset(&end);
        sigaddset(&end, SIGTERM);
        sigprocmask(SIG_BLOCK, &end, nullptr);
        raise(SIGTERM);
    };
    it.wrong = [=](const Outcome& run) -> std::string {
        const std::string pid = run.out.substr(0, run.out.find(' '));
        const std::string right = pid + " holds " + object->name + "\n" + pid + " reads Nellson\n";
        return run.out == right ? "" : "wrong output";
    };
    return it;
}

Target timing() {
    const auto scratch = std::make_shared<Scratch>();
    Target it;
    it.title = "perf";
    it.keeps = scratch;
    it.directory = scratch->path;
    it.words = {root() + "/perf/perf", "--seconds", "1", "--sizes", "4k", "--csv"};
    it.before = [=] {
        std::filesystem::remove_all(scratch->path);
        std::filesystem::create_directory(scratch->path);
    };
    it.wrong = [](const Outcome& run) -> std::string {
        return has(run.out, "round trip") ? "" : "wrong output";
    };
    it.left = [=](const Outcome& run) -> std::string {
        const std::string object = "/dev/shm/shm-perf-" + std::to_string(run.pids[0]);
        const bool stays = unlink(object.c_str()) == 0 || !std::filesystem::is_empty(scratch->path);
        return stays && !has(run.out, "unlink(") ? "an object stays" : "";
    };
    it.slow = true;
    it.most = 20;
    return it;
}

std::vector<Target> targets() {
    std::vector<Target> all;
    for (const std::string mechanism : {"shm_posix", "map_posix", "shm_v"}) {
        for (const std::string verb : {"exchange", "write", "read"})
            all.push_back(exchanging(mechanism, verb));
        all.push_back(exchanging(mechanism, "exchange", Way::parent_first));
        if (have_namespaces("p --fork"))
            all.push_back(exchanging(mechanism, "exchange", Way::as_process_1));
    }
    for (const std::string verb : {"run", "produce", "consume"}) all.push_back(packets(verb));
    all.push_back(packets_by_udp());
    for (const std::string verb : {"load", "get", "readers"}) all.push_back(configuration(verb));
    for (const std::string kind : {"posix", "key"}) all.push_back(holder(kind));
    all.push_back(other_exchange("odd"));  // does everything otherwise, and is right
    all.push_back(timing());
    return all;
}

}  // namespace

TEST_CASE("every failure tried: an error or the right result, and nothing is left", "[faults]") {
    if (sanitized(program("SHM_POSIX", "shm_posix/shm_posix")))
        SKIP_BECAUSE("a sanitizer is built in: it makes calls and takes memory of its own");
    const bool every = getenv("FAULTS") || getenv("FAULT");
    const char* family_only = getenv("FAMILY");
    const char* target_only = getenv("TARGET");
    const std::vector<Target> ours = targets();
    const Target control = other_exchange("naive");
    int tried = 0;
    std::cout << "family                  cases     ok   bad  not fired  seconds" << std::endl;
    for (const Family& family : kFamilies) {
        if (family_only && family.name != std::string(family_only)) continue;
        if (!every && family.few == 0) continue;
        Tally tally, wrong;
        for (const Target& target : ours)
            if (!target_only || has(target.title, target_only))
                go_through(family, target, every ? target.most : family.few, &tally);
        print(family.name, tally);
        CHECK(tally.bad == 0);
        tried += tally.cases;
        if (target_only && target_only != std::string("nothing")) continue;
        wrong.begin = Tracer::now();
        wrong.quiet = getenv("VERBOSE") == nullptr;
        go_through(family, control, every ? 100 : family.few_of_control, &wrong);
        print("  the control", wrong);
        CHECK((wrong.bad > 0 || getenv("FAULT")));
        tried += wrong.cases;
    }
    for (const std::string& what : not_tried) std::cout << "not tried: " << what << std::endl;
    if (tried == 0) FAIL("nothing was tried: no case is called so (FAULT, FAMILY, TARGET)");
}

TEST_CASE("SIGKILL leaves the name at a few calls", "[faults]") {
    const std::string mechanism = GENERATE("shm_posix", "map_posix", "shm_v");
    const Target target = exchanging(mechanism, "exchange");
    if (sanitized(target.words.front()))
        SKIP_BECAUSE("a sanitizer is built in: it makes calls of its own");
    std::set<std::string> left;
    each_call(target, [&](int process, int at, const Call& call) {
        for (auto kind : {Fault::killed, Fault::killed_after}) {
            target.before();
            const Outcome it = disturbed(target, {kind, process, at, SIGKILL, {}, call.call});
            if (!target.left(it).empty())
                left.insert(call_name(call.call) + (kind == Fault::killed ? "" : "'s return"));
        }
    });
    target.before();
    const bool sysv = mechanism == "shm_v";
    CHECK(left ==
          (sysv ? std::set<std::string>{"shmget's return", "shmat", "shmat's return", "shmctl"}
                : std::set<std::string>{"openat's return", "unlink"}));
}

TEST_CASE("what could not be removed after a failure is said, too", "[faults]") {
    Object object(GENERATE("shm_posix", "map_posix", "shm_v"));
    Traced running(object.words("write"));
    bool made = false;
    Event event;
    while ((event = running.tracer.next()).what != Event::over) {
        if (event.what == Event::returns) made = made || object.there();
        if (event.what == Event::enters && made) {
            const bool removing = removes({event.who->call, {0, event.who->argument[1]}});
            if (removing) running.tracer.answer(event.who, -EACCES);
            if (event.who->call == SYS_ftruncate || event.who->call == SYS_shmat)
                running.tracer.answer(event.who, -ENOMEM);
        }
        running.tracer.go_on(event.who);
    }
    CHECK(running.status() == 1);
    CHECK(has(running.err(), "): Cannot allocate memory\n"));
    CHECK(has(running.err(),
              object.sysv ? ", IPC_RMID): Permission" : "unlink(" + object.name + "): Permission"));
}
