// One run of a student's program: in the box, under the tracer (tests/trace.h), with its output
// kept, its limits watched, and notes of what it makes and shares.
//
//     Run run(stage);                               // it stands before its first system call
//     Event event = run.until([](const Event& e) { return e.what == Event::forks; });
//     ...                                           // that process stands: look around
//     run.go_on(event.who);
//     run.finish();
//     if (run.why.empty() && run.status() == 0) ... // it ended by itself, with exit status 0

#pragma once

#include <ctype.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "../trace.h"
#include "stage.h"

// A shared mapping of a process, as /proc/PID/maps has it [proc_pid_maps(5)].
struct Mapping {
    uint64_t begin = 0, end = 0;
    bool writable = false;
    std::string object;  // which: "inode 7", "segment 7"
    std::string name;    // "/dev/shm/tmp (deleted)", "/SYSV12345678 (deleted)"
};

// An object that it made, named or not.
struct Made {
    std::string object;  // as in Mapping
    std::string name;    // a path; a key, "0x12345678"; "": nobody can find it by a name
    mode_t mode = 0;     // when it was made
    size_t bytes = 0;    // its size
};

// The processor time that it has used, in microseconds [clock_getcpuclockid(3)].
inline long processor(const Tracee* who) {
    clockid_t clock;
    timespec used = {};
    while (who->thread) who = who->parent;
    if (clock_getcpuclockid(who->pid, &clock) == 0) clock_gettime(clock, &used);
    return used.tv_sec * 1000000L + used.tv_nsec / 1000;
}

class Run {
  public:
    struct Options {
        std::vector<std::string> arguments;
        mode_t mask = 022;
        Limits limits;
        int input = -1;  // its stdin; -1: /dev/null
    };
    explicit Run(Stage& stage) : Run(stage, Options()) {}
    Run(Stage& stage, const Options& options)
        : stage_(stage), limits_(options.limits), tracer(words(stage, options), 0, [&] {
              setsid();
              umask(options.mask);
              clearenv();  // what we know there is none of its business
              setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
              for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
              const int input = options.input;
              dup2(input == -1 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : input, 0);
              dup2(out_, 1);
              dup2(err_, 2);
              try {  // this is another process already: nothing may leave it
                  if (chdir(stage.directory.c_str()) == -1) Box::fail("chdir");
                  stage.box.drop(options.limits);
              } catch (const std::exception& error) {
                  dprintf(2, "%s\n", error.what());
                  _exit(126);
              }
          }) {}
    ~Run() {
        close(out_);
        close(err_);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    // What happens next, within so many milliseconds; notes are taken of it, and limits kept. The
    // process that it happened to stands until go_on().
    Event next(int milliseconds = -1) {
        const long end = milliseconds < 0 ? LONG_MAX : Tracer::now() + milliseconds;
        for (;;) {
            const long left = end - Tracer::now();
            const Event event = tracer.next(static_cast<int>(std::max(0L, std::min(left, 50L))));
            keep_time();
            if (event.what != Event::nothing) {
                quiet_since_ = Tracer::now();
                note(event);
                return event;
            }
            keep_limits();
            if (left <= 50 && Tracer::now() >= end) return event;
        }
    }
    void go_on(Tracee* who) { tracer.go_on(who); }

    // Lets all that move go on until `wanted` happens: `over` if it never does.
    Event until(const std::function<bool(const Event&)>& wanted) {
        for (;;) {
            const Event event = next();
            if (event.what == Event::over || wanted(event)) return event;
            go_on(event.who);
        }
    }

    // Waits for the first child: it stands before its first instruction, and the parent in its
    // fork. nullptr if there never is one.
    Tracee* until_born() {
        until(
            [](const Event& event) { return event.what == Event::forks && !event.child->thread; });
        while (child() != nullptr && child()->state == Tracee::unborn && !child()->ended) next();
        return child();
    }

    // Lets all go on to the end.
    void finish() {
        release();
        until([](const Event&) { return false; });
    }

    bool in_vfork(const Tracee* who) const {
#ifdef SYS_vfork
        if (who->in_call && who->call == SYS_vfork) return true;
#endif
        return who->in_call && (clone_flags(who) & 0x4000);
    }

    // Has every process stand still, wherever it is.
    void hold() {
        for (Tracee& it : tracer.tracees)
            if (!it.ended && it.state == Tracee::runs) tracer.hold(&it);
        // In vfork(2) a parent stands until its child has become another program.
        const auto moves = [&](const Tracee& it) {
            return !it.ended && it.state == Tracee::runs && !in_vfork(&it);
        };
        while (std::any_of(tracer.tracees.begin(), tracer.tracees.end(), moves))
            if (next().what == Event::over) return;
    }

    // Lets every process go on that stands.
    void release() {
        for (Tracee& it : tracer.tracees) go_on(&it);
    }

    // Lets one process alone go on, until `reached` is true, it does nothing more, it has ended or
    // has used the processor for 200 ms. All stand before and after. Beside other work it may have
    // to wait for the processor: that is no reason to stop.
    bool alone(Tracee* who, const std::function<bool()>& reached) {
        const long before = processor(who);
        go_on(who);
        bool there = false, rested = false;
        while (!there && !who->ended && processor(who) - before < 200000) {
            const Event event = next(5);
            if (event.what == Event::over) return reached();
            there = reached();
            if (event.what == Event::nothing && rested) break;
            rested = event.what == Event::nothing && (in_vfork(who) || strchr("STZ", state(who)));
            if (event.who == who && !there) go_on(who);
        }
        hold();
        return there || reached();
    }

    // One process at a time goes on, the parent first, until `reached`: so whoever goes on stores,
    // and nobody sees it before we do. False if it does not come to that.
    bool in_turns(const std::function<bool()>& reached) {
        for (int round = 0; round < 10; ++round)
            for (size_t i = 0; i < tracer.tracees.size(); ++i) {
                if (reached()) return true;
                if (!tracer.tracees[i].ended && alone(&tracer.tracees[i], reached)) return true;
            }
        return false;
    }

    Tracee* parent() { return &tracer.tracees[0]; }
    Tracee* child() {  // nullptr: it has forked no process
        for (Tracee& it : tracer.tracees)
            if (it.number > 0 && !it.thread) return &it;
        return nullptr;
    }

    std::string out() const { return kept(out_); }
    std::string err() const { return kept(err_); }
    // As the shell has it: the exit status, or 128 + the signal.
    int status() const {
        const int raw = tracer.tracees.front().status;
        return WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
    }
    // It said on stderr that something failed, and by its exit status.
    bool told() const { return status() > 0 && status() < 128 && !err().empty(); }
    // How it ended and what it printed, for a finding.
    std::string seen() const {
        std::string text = !why.empty() ? why
                           : status() >= 128
                               ? "it was killed by signal " + std::to_string(status() - 128) +
                                     ", " + strsignal(status() - 128)
                               : "it ended with exit status " + std::to_string(status());
        for (const auto& [stream, kept] : {std::pair{"stdout", out()}, {"stderr", err()}})
            if (!kept.empty())
                text += std::string("\n") + stream + ": " + kept.substr(0, 600) +
                        (kept.size() > 600 ? "..." : "");
        return text;
    }

    // As ps(1) has it: R runs or would, S sleeps, T is stopped, Z has ended.
    static char state(const Tracee* who) {
        const std::string stat = contents("/proc/" + std::to_string(who->pid) + "/stat");
        const size_t name = stat.rfind(") ");
        return name == std::string::npos ? 'Z' : stat[name + 2];
    }
    // Whether a process sleeps, in whatever call.
    bool sleeps(const Tracee* who) const { return state(who) == 'S'; }
    // How many milliseconds the call that it is in lasts if nobody ends it: LONG_MAX, for ever; 0,
    // we do not know.
    long lasts(const Tracee* who) const {
        if (!who->in_call || who->foreign) return 0;
        const uint64_t* a = who->argument;
        const uint64_t futex = a[1] & FUTEX_CMD_MASK;
        switch (who->call) {
            case SYS_futex:
                if (futex == FUTEX_WAIT) return time(who, a[3]);
                if (futex != FUTEX_WAIT_BITSET) return 0;
                return time(who, a[3],
                            a[1] & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC);
            case SYS_nanosleep:
                return time(who, a[0]);
            case SYS_clock_nanosleep:
                return time(who, a[2], a[1] == TIMER_ABSTIME ? static_cast<int>(a[0]) : -1);
            case SYS_ppoll:
            case SYS_rt_sigtimedwait:
                return time(who, a[2]);
            case SYS_semtimedop:
                return time(who, a[3]);
#ifdef SYS_poll
            case SYS_poll:
                return static_cast<int>(a[2]) < 0 ? LONG_MAX : static_cast<int>(a[2]);
            case SYS_pause:
                return LONG_MAX;
#endif
            case SYS_read:
                return feeds && a[0] == 0 ? 0 : LONG_MAX;
            case SYS_semop:
            case SYS_wait4:
            case SYS_waitid:
            case SYS_rt_sigsuspend:
            case SYS_msgrcv:
            case SYS_flock:
            case SYS_fcntl:
                return LONG_MAX;
        }
        return 0;
    }
    bool endless(const Tracee* who) const { return lasts(who) == LONG_MAX; }

    // The command with which the call fails that the parent has entered: the loader's are counted,
    // too [strace(1)].
    std::string failing(const std::string& error) {
        const uint64_t call = parent()->call;
        return "strace -e inject=" + call_name(call) + ":error=" + error +
               ":when=" + std::to_string(times_[call]) + " PROGRAM";
    }

    // The flags of clone(2), when a process enters it; 0 in other calls.
    uint64_t clone_flags(const Tracee* who) const {
        if (who->call == SYS_clone) return who->argument[0];
        uint64_t flags = 0;
        if (who->call != SYS_clone3) return 0;
        const std::string bytes = tracer.memory(who, who->argument[0], sizeof flags);
        memcpy(&flags, bytes.data(), bytes.size());
        return flags;
    }

    // The shared mappings that a process has now; not those of the C library's files.
    std::vector<Mapping> mappings(const Tracee* who) const {
        std::vector<Mapping> all;
        std::ifstream maps("/proc/" + std::to_string(who->pid) + "/maps");
        for (std::string line; std::getline(maps, line);) {
            Mapping it;
            uint64_t inode = 0;
            char mode[8] = "";
            int at = 0;
            sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %" SCNu64 " %n", &it.begin,
                   &it.end, mode, &inode, &at);
            if (at == 0 || mode[3] != 's') continue;
            it.name = line.substr(static_cast<size_t>(at));
            it.writable = mode[1] == 'w';
            if (it.name.rfind("/usr/", 0) == 0 && !it.writable) continue;
            const bool segment = it.name.rfind("/SYSV", 0) == 0;
            it.object = (segment ? "segment " : "inode ") + std::to_string(inode);
            all.push_back(it);
        }
        return all;
    }

    // All shared mappings that a process had at any time, by object.
    std::map<std::string, Mapping> shared(const Tracee* who) const {
        const auto known = shared_.find(who->number);
        return known == shared_.end() ? std::map<std::string, Mapping>() : known->second;
    }
    // The objects that the parent could write to and the child had, too; not named semaphores.
    std::vector<std::string> common_objects() {
        std::vector<std::string> all;
        for (const auto& [object, mapping] : shared(parent()))
            if (mapping.writable && child() != nullptr && shared(child()).count(object) &&
                mapping.name.rfind("/dev/shm/sem.", 0) != 0)
                all.push_back(object);
        return all;
    }
    const std::vector<Made>& made() const { return made_; }

    // Of an object, the bytes that lie in the mapping of who has it now: up to its size, at most
    // 1 MiB.
    std::string bytes(const std::string& object) {
        const auto [who, mapping] = holder(object);
        if (who == nullptr) return "";
        size_t most = std::min<size_t>(mapping.end - mapping.begin, 1 << 20);
        for (const Made& it : made_)
            if (it.object == object) most = std::min(most, it.bytes);
        return tracer.memory(who, mapping.begin, most);
    }
    // Changes bytes of it.
    bool set_bytes(const std::string& object, size_t at, const std::string& bytes) {
        const auto [who, mapping] = holder(object);
        return who != nullptr && tracer.set_memory(who, mapping.begin + at, bytes);
    }

    std::string why;      // we ended it: why. "" if it ended by itself
    bool orphan = false;  // the parent ended before its child
    bool feeds = false;   // who reads its stdin waits for us

  private:
    std::pair<Tracee*, Mapping> holder(const std::string& object) {
        for (Tracee& it : tracer.tracees)
            if (!it.ended && !it.thread)
                for (const Mapping& mapping : mappings(&it))
                    if (mapping.object == object) return {&it, mapping};
        return {nullptr, {}};
    }

    static std::vector<std::string> words(const Stage& stage, const Options& options) {
        std::vector<std::string> all = {stage.program};
        all.insert(all.end(), stage.arguments.begin(), stage.arguments.end());
        all.insert(all.end(), options.arguments.begin(), options.arguments.end());
        return all;
    }

    static std::string kept(int fd) {
        std::string text(1 << 20, '\0');
        const ssize_t bytes = pread(fd, &text[0], text.size(), 0);
        text.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes));
        return text;
    }

    // The milliseconds of a timespec of its memory; until then, if a clock is given.
    long time(const Tracee* who, uint64_t address, int clock = -1) const {
        if (address == 0) return LONG_MAX;
        timespec it = {}, now = {};
        const std::string bytes = tracer.memory(who, address, sizeof it);
        memcpy(&it, bytes.data(), bytes.size());
        if (clock >= 0) clock_gettime(clock, &now);
        return (it.tv_sec - now.tv_sec) * 1000 + (it.tv_nsec - now.tv_nsec) / 1000000;
    }

    std::string name(const Tracee* who) const {
        return who->number == 0 ? "the parent" : who->number == 1 ? "the child" : "another";
    }

    void stop(const std::string& reason) {
        if (why.empty()) why = reason;
        tracer.kill_all();
    }

    void keep_time() {
        const long now = Tracer::now();
        if (!why.empty()) return;
        if (tracer.tracees[0].ended && ended_ == 0) ended_ = now;
        if (now - began_ > limits_.seconds * 1000L)
            stop("it had not ended after " + std::to_string(limits_.seconds) + " s");
        else if (ended_ > 0 && now - ended_ > 2000)
            stop("it left a process running");
    }

    // Nothing happens: is that for ever?
    void keep_limits() {
        const long now = Tracer::now();
        if (!why.empty()) return;
        // Whether all sleep, so that nothing happens until time has passed.
        std::string who_waits;
        Tracee* first = nullptr;  // whose time is over first
        for (Tracee& it : tracer.tracees) {
            if (it.ended) continue;
            const bool stopped = it.state == Tracee::listens;
            const long time = stopped ? LONG_MAX : lasts(&it);
            if (!stopped && (it.state != Tracee::runs || time < 100 || !sleeps(&it))) return;
            if (time != LONG_MAX && (first == nullptr || time < lasts(first))) first = &it;
            who_waits += (who_waits.empty() ? "" : ", ") + name(&it) +
                         (stopped ? " is stopped" : " waits in " + call_name(it.call));
        }
        if (now - quiet_since_ > 300 && first == nullptr)
            return stop((ended_ > 0 ? "it left a process running: " : "it does not end: ") +
                        who_waits + ", and nobody is left who could wake it");
        const bool sleep = first != nullptr &&
                           (first->call == SYS_nanosleep || first->call == SYS_clock_nanosleep);
        if (!sleep || now - quiet_since_ < 50 || skips_ != nullptr) return;
        // It wakes now instead: nobody could tell, but for a clock.
        skipped_ += lasts(first);
        if (skipped_ > kSleep) return stop("it sleeps and sleeps, and does not end");
        skips_ = first;
        tracer.hold(first);
    }

    void note(const Event& event) {
        Tracee* who = event.who;
        switch (event.what) {
            case Event::forks: {
                size_t alive = 0;
                for (const Tracee& it : tracer.tracees) alive += !it.ended;
                if (alive > limits_.processes) stop("it made more and more processes (fork bomb)");
                note_mappings(who);
                break;
            }
            case Event::begins:
                note_mappings(who);
                break;
            case Event::signalled:
                if (who->signal == SIGXCPU) {
                    stage_.endless = true;
                    stop("it ran without an end (an endless loop)");
                }
                if (who->signal == SIGXFSZ) stop("it wrote and wrote (too much output)");
                break;
            case Event::ended:
                if (who->number == 0 && why.empty()) orphan = child() != nullptr && !child()->ended;
                break;
            case Event::enters:
                entered(who);
                break;
            case Event::returns:
                returned(who);
                break;
            default:
                break;
        }
    }

    void entered(Tracee* who) {
        if (who->foreign) return;
        if (who == parent()) ++times_[who->call];
        if (who->call == SYS_kill && static_cast<int>(who->argument[0]) <= 0) {
            stage_.remark("it sent a signal to more than one process: kill(" +
                          std::to_string(static_cast<int>(who->argument[0])) + ", ...)");
            if (!stage_.box.refused.empty()) tracer.answer(who, -EPERM);
        }
        if (clone_flags(who) & 0x00800000) stop("it tried to hide a process (CLONE_UNTRACED)");
    }

    void returned(Tracee* who) {
        if (who->foreign) return;
        if (who == skips_) {  // its sleep was interrupted
            skips_ = nullptr;
            tracer.answer(who, 0);
        }
        const bool failed = who->result < 0 && who->result >= -4095;
        const uint64_t* a = who->argument;
        if (failed && who->result == -EFBIG) stop("it wrote and wrote (too much output)");
        const size_t path = who->call == SYS_openat || who->call == SYS_unlinkat ? 1 : 0;
        const bool writes = who->call != SYS_openat || (a[2] & O_ACCMODE) != O_RDONLY;
        if (who->result == -EROFS || (who->call == SYS_openat && who->result == -EACCES && writes))
            stage_.remark("it tried to change what is not its own: " + tracer.string(who, a[path]));
        if (failed) return;
        bool opened = who->call == SYS_openat && (a[2] & O_CREAT);
#ifdef SYS_open
        opened = opened || who->call == SYS_creat || (who->call == SYS_open && (a[1] & O_CREAT));
#endif
        if (opened || who->call == SYS_memfd_create) note_file(who, who->result, opened);
        if (who->call == SYS_ftruncate || who->call == SYS_fallocate || who->call == SYS_write)
            note_size(who, a[0]);
        if (who->call == SYS_mmap && (a[3] & MAP_SHARED)) note_mappings(who);
        if (who->call == SYS_shmat) note_mappings(who);
        if (who->call == SYS_shmget) {
            char key[16];
            snprintf(key, sizeof key, "0x%08x", static_cast<unsigned>(a[0]));
            const bool named = static_cast<key_t>(a[0]) != IPC_PRIVATE;
            if (a[2] & IPC_CREAT)
                add({"segment " + std::to_string(who->result), named ? key : "",
                     static_cast<mode_t>(a[2] & 0777), a[1]});
        }
        const bool makes = static_cast<key_t>(a[0]) == IPC_PRIVATE ||
                           (a[who->call == SYS_msgget ? 1 : 2] & IPC_CREAT);
        const std::string id = std::to_string(who->result);
        if (makes && who->call == SYS_shmget) stage_.made.insert("shm " + id);
        if (makes && who->call == SYS_semget) stage_.made.insert("sem " + id);
        if (makes && who->call == SYS_msgget) stage_.made.insert("msg " + id);
    }

    static std::string descriptor(const Tracee* who, int64_t fd) {
        return "/proc/" + std::to_string(who->pid) + "/fd/" + std::to_string(fd);
    }

    void note_file(const Tracee* who, int64_t fd, bool named) {
        struct stat it;
        char path[PATH_MAX] = "";
        if (stat(descriptor(who, fd).c_str(), &it) == -1 || !S_ISREG(it.st_mode)) return;
        if (readlink(descriptor(who, fd).c_str(), path, sizeof path - 1) == -1) return;
        stage_.made.insert(Stage::identity(it));
        add({"inode " + std::to_string(it.st_ino), named ? path : "", it.st_mode & 07777,
             static_cast<size_t>(it.st_size)});
    }

    void note_size(const Tracee* who, uint64_t fd) {
        struct stat file;
        if (stat(descriptor(who, static_cast<int>(fd)).c_str(), &file) == -1) return;
        for (Made& it : made_)
            if (it.object == "inode " + std::to_string(file.st_ino))
                it.bytes = static_cast<size_t>(file.st_size);
    }

    // One that is removed gives its inode number to the next.
    void add(const Made& object) {
        for (Made& it : made_)
            if (it.object == object.object) {
                it = object;
                return;
            }
        made_.push_back(object);
    }

    void note_mappings(const Tracee* who) {
        const Tracee* process = who;
        while (process->thread) process = process->parent;
        for (const Mapping& it : mappings(process)) shared_[process->number][it.object] = it;
    }

    Stage& stage_;
    const Limits limits_;
    const int out_ = memfd_create("stdout", MFD_CLOEXEC);
    const int err_ = memfd_create("stderr", MFD_CLOEXEC);
    const long began_ = Tracer::now();
    long quiet_since_ = began_;
    long ended_ = 0;  // when the parent did
    // Milliseconds of sleep in which nobody else does a thing; and how many of these were skipped.
    static constexpr long kSleep = 200000;
    long skipped_ = 0;
    Tracee* skips_ = nullptr;        // whose sleep is about to end
    std::map<uint64_t, int> times_;  // how often the parent has entered each call
    std::map<int, std::map<std::string, Mapping>> shared_;
    std::vector<Made> made_;

  public:
    Tracer tracer;
};
