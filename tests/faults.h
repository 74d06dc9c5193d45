// Every failure tried: a program, one disturbance, and the one rule that each run has to keep.
//
//     exit 0 with exactly the right output, or non-zero with a sentence; within 15 seconds; no
//     death by a signal that was not sent; no process left; no object left, SIGKILL in the making
//     aside.

#pragma once

#include <linux/futex.h>
#include <sys/ipc.h>
#include <sys/prctl.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <set>

#include "exchange_object.h"
#include "traced.h"

constexpr int kLimit = 15;        // seconds for a run
constexpr uint64_t kMark = 4711;  // tests/programs/preload.cc has done what it was told to

struct Call {
    uint64_t call, argument[6];
};

// What happens to a run: nothing, or something at the `at`-th call of process 0 (the parent) or 1,
// or the next of its kind.
struct Fault {
    enum Kind {
        nothing,
        fails,          // that call
        keeps_failing,  // that and every later one of its kind, in both processes
        no_memory,      // no more from there on, however it is asked for
        happens,        // `action`, before the call is executed
        sent,           // to that process
        group_signal,
        killed,          // SIGKILL before the call is executed
        killed_after,    // SIGKILL as soon as it has returned
        both_killed,     // SIGKILL to the group, before
        stopped_killed,  // SIGSTOP, and SIGKILL when it has stopped
    } kind = nothing;
    int process = 0, at = 0, number = 0;  // of the error or the signal
    std::function<void()> action = {};
    uint64_t call = 0;  // which that is: with the timing, others may come before it
    bool is_kill() const { return kind >= killed; }
};

struct Outcome {
    int status = -1;
    std::string out, err;
    pid_t pids[2] = {-1, -1};
    bool late = false, left = false;  // no end in time; a process outlived the parent
    bool fired = false;               // the fault has happened
    bool mute = false;                // its stderr was not ours: a sentence could not be seen
    Call reached = {};                // there
    std::vector<Call> calls[2];
};

// In which order the two processes go: one stands until the other waits. As process 1 of a
// namespace the child goes first, too.
enum class Way { child_first, parent_first, as_process_1 };

// A program with its arguments, and what is right for it.
struct Target {
    std::string title;
    Words words;
    std::string directory = ".";  // where it runs
    std::string path = "";        // of its object; none: System V
    // Before each run: all that it needs is there, and nothing that others left.
    std::function<void()> before = [] {};
    // What is wrong, though it ended with 0; empty: nothing.
    std::function<std::string(const Outcome&)> wrong = [](const Outcome&) { return ""; };
    // What is there afterwards and should not be.
    std::function<std::string(const Outcome&)> left = [](const Outcome&) { return ""; };
    // After a SIGKILL: what is wrong with the next run; without it: the same words again.
    std::function<std::string()> again = {};
    std::function<void()> prepare = [] {};  // in the new process
    // Called before it waits for input, under the tracer, which it needs: who feeds and stops it.
    std::function<void(Traced&)> at_input = {};
    bool strict = false;  // no failed call may go unsaid, but these
    std::set<uint64_t> unsaid = {};
    Way way = Way::child_first;
    std::shared_ptr<void> keeps = {};  // its directory, while there is a target
    // The bytes that it reads, other ones in their place, and what these say, if its checks take
    // them.
    std::string bytes = "";
    std::function<void(const std::string&)> plant = {};
    std::function<std::string(const std::string&)> reading = {};
    bool by_output = true;  // `wrong` looks at its output only
    bool joins = false;     // without the object it makes one, and waits for others
    bool slow = false;      // too slow for the tracer
    size_t most = 100000;   // so many cases of a family are tried, evenly chosen
    int first() const { return way == Way::as_process_1 ? 1 : 0; }
};

inline bool removes(const Call& it) {
#ifdef SYS_unlink
    if (it.call == SYS_unlink) return true;
#endif
    return it.call == SYS_unlinkat ||
           (it.call == SYS_shmctl && (it.argument[1] & 0xff) == IPC_RMID);
}

inline bool waits(uint64_t call) {
#ifdef SYS_poll
    if (call == SYS_poll) return true;
#endif
    for (uint64_t it : {SYS_futex, SYS_nanosleep, SYS_clock_nanosleep, SYS_wait4, SYS_ppoll})
        if (call == it) return true;
    return false;
}

inline bool waits_for_input(const Tracee& who) {
    return waits(who.call) && who.call != SYS_futex && who.argument[1] == 1;  // poll(2) of one
}

inline bool takes_memory(const Tracee& who) {
    return who.call == SYS_brk || who.call == SYS_mmap || who.call == SYS_shmat;
}

// How a call may fail: what its manual page names and a program may meet. None for those that
// cannot fail, or that only a broken kernel lets fail.
inline std::vector<int> errors(const Call& it) {
    static const std::map<uint64_t, std::vector<int>> kErrors = {
        {SYS_openat, {EMFILE, EACCES, EINTR}},
        {SYS_ftruncate, {ENOSPC, EINTR}},
        {SYS_fallocate, {ENOSPC, EINTR, EOPNOTSUPP}},
        {SYS_mmap, {ENOMEM, EACCES}},
        {SYS_munmap, {ENOMEM}},
        {SYS_mprotect, {ENOMEM}},
        {SYS_brk, {ENOMEM}},
        {SYS_close, {EIO, EINTR}},
#ifdef SYS_unlink
        {SYS_unlink, {EACCES, EIO}},
        {SYS_rename, {EIO, EACCES}},
        {SYS_fork, {EAGAIN, ENOMEM}},
        {SYS_access, {EACCES}},
        {SYS_poll, {EINTR, ENOMEM}},
#endif
#ifdef SYS_newfstatat
        {SYS_newfstatat, {ENOMEM, EACCES}},
        {SYS_fstat, {ENOMEM}},
#endif
        {SYS_unlinkat, {EACCES, EIO}},
        {SYS_linkat, {EACCES, ENOSPC}},
        {SYS_renameat2, {EIO, EACCES}},
        {SYS_fsync, {EIO}},
        {SYS_flock, {ENOLCK, EINTR}},
        {SYS_clone, {EAGAIN, ENOMEM}},
        {SYS_clone3, {EAGAIN, ENOMEM, ENOSYS}},
        {SYS_prctl, {EINVAL}},
        {SYS_write, {EIO, ENOSPC, EINTR, EPIPE}},
        {SYS_read, {EIO, EINTR}},
        {SYS_pread64, {EIO}},
        {SYS_ppoll, {EINTR, ENOMEM}},
        {SYS_wait4, {ECHILD, EINTR}},
        {SYS_waitid, {ECHILD, EINTR}},
        {SYS_shmget, {ENOSPC, ENOMEM, EACCES}},
        {SYS_shmat, {ENOMEM, EMFILE}},
        {SYS_shmdt, {EINVAL}},
        {SYS_shmctl, {EPERM, EIDRM}},
        {SYS_socket, {EMFILE}},
        {SYS_bind, {EADDRINUSE}},
        {SYS_getsockname, {ENOBUFS}},
        {SYS_connect, {EADDRNOTAVAIL}},
        {SYS_recvfrom, {ENOMEM}},
        {SYS_getsockopt, {ENOPROTOOPT}},  // SO_MEMINFO before Linux 4.12
        {SYS_getrandom, {EAGAIN, ENOSYS}},
        {SYS_prlimit64, {EPERM}},
        {SYS_nanosleep, {EINTR}},
        {SYS_clock_nanosleep, {EINTR}},
    };
    if (it.call == SYS_brk && it.argument[0] == 0) return {};  // only asks
    if (it.call == SYS_fcntl && (it.argument[1] == F_SETLK || it.argument[1] == F_GETLK))
        return {ENOLCK};
    const int operation = static_cast<int>(it.argument[1]) & FUTEX_CMD_MASK;
    if (it.call == SYS_futex && (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET))
        return {EINTR, EAGAIN, ETIMEDOUT};
    const auto known = kErrors.find(it.call);
    return known == kErrors.end() ? std::vector<int>{} : known->second;
}

inline bool is_stop(int number) {
    return number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
}

// A failure that need not be one of the program: it can do without.
inline bool can_do_without(const Call& it, int error) {
    const bool anonymous = it.call == SYS_mmap && (it.argument[3] & MAP_ANONYMOUS);
#ifdef SYS_newfstatat
    const bool of_stdio =
        (it.call == SYS_newfstatat || it.call == SYS_fstat) && it.argument[0] <= STDERR_FILENO;
#else
    const bool of_stdio = false;
#endif
    const bool old_file_system = it.call == SYS_fallocate && error == EOPNOTSUPP;
    const bool again = it.call == SYS_futex && error != ETIMEDOUT;
    const bool sleep = waits(it.call) && it.argument[0] == 0;  // poll(2) of nothing
    return anonymous || of_stdio || old_file_system || again || sleep || error == EINTR ||
           it.call == SYS_brk || it.call == SYS_getrandom;
}

// Runs it under the tracer with that fault.
inline Outcome disturbed(const Target& target, const Fault& fault,
                         const std::function<void()>& prepare = {}) {
    Outcome it;
    Traced traced(
        target.words,
        [&] {
            if (chdir(target.directory.c_str()) == -1) _exit(126);
            if (prepare) prepare();
            target.prepare();
        },
        kLimit);
    Tracer& tracer = traced.tracer;
    Tracee* held = nullptr;  // until the other waits or has ended
    bool on = false;
    std::map<pid_t, uint64_t> breaks;
    Call failing = {};
    int number = 0;  // of the call that it has come to
    for (bool grace = false;;) {
        const Event event = tracer.next(grace ? 5000 : held ? 1000 : -1);
        if (event.what == Event::over) break;
        if (event.what == Event::nothing) {
            if (held) tracer.go_on(held);
            held = nullptr;
            if (!grace) continue;
            it.left = true;
            tracer.kill_all();
            continue;
        }
        Tracee* who = event.who;
        const int process = who->number - target.first();
        const auto let_go = [&] {
            if (held && held != who) tracer.go_on(held);
            if (held != who) held = nullptr;
        };
        if (event.what == Event::ended) {
            let_go();
            if (who->number == 0) grace = true;
            continue;
        }
        if (event.what == Event::stops && on && fault.kind == Fault::stopped_killed) {
            tracer.go_on(who);
            tracer.send(who, SIGKILL);
            continue;
        }
        const bool grouped = getpgid(who->pid) == getpgid(tracer.tracees[0].pid);
        if (event.what == Event::stops && is_stop(fault.number) && grouped) {
            tracer.go_on(who);
            tracer.send(who, SIGCONT);
            continue;
        }
        if (event.what == Event::stops) let_go();
        if (event.what == Event::forks && process == 0) {
            breaks[event.child->pid] = breaks[who->pid];
            held = target.way == Way::parent_first ? event.child : who;
        }
        if (event.what == Event::enters && who->call == SYS_getsid && who->argument[0] == kMark)
            it.fired = true;
        const bool ours = process == 0 || process == 1;
        if (ours && event.what == Event::enters) {
            Call call = {who->call, {}};
            std::copy(who->argument, who->argument + 6, call.argument);
            it.calls[process].push_back(call);
            if (target.at_input && waits_for_input(*who)) target.at_input(traced);
            const bool now = !on && fault.kind != Fault::nothing && process == fault.process &&
                             who->calls >= fault.at && who->call == fault.call;
            if (now) failing = it.reached = call;
            if (now) number = who->calls;
            on = on || now;
            it.fired = it.fired || now;
            it.mute = it.mute || (now && fault.kind == Fault::keeps_failing &&
                                  call.call == SYS_write && call.argument[0] == STDERR_FILENO);
            // A file that fails does not take stderr with it, a wait not who ends it.
            const size_t which = who->call == SYS_futex ? 1 : 0;
            const bool divided = who->call == SYS_write || who->call == SYS_futex;
            const bool same = who->call == failing.call &&
                              (!divided || who->argument[which] == failing.argument[which]);
            const bool again = (fault.kind == Fault::keeps_failing && on && same) ||
                               (fault.kind == Fault::no_memory && on && takes_memory(*who));
            if ((now && fault.kind == Fault::fails) || again) {
                const bool asks = who->call == SYS_brk && who->argument[0] == 0;
                if (who->call != SYS_brk)
                    tracer.answer(who, -fault.number);
                else if (!asks)  // brk(2) fails by returning the break as it is
                    tracer.answer(who, static_cast<int64_t>(breaks[who->pid]));
            }
            if (now && fault.kind == Fault::happens) fault.action();
            if (now && fault.kind == Fault::sent) tracer.send(who, fault.number);
            if (now && fault.kind == Fault::group_signal) tracer.send(who, fault.number, true);
            if (now && fault.kind == Fault::killed) tracer.send(who, SIGKILL);
            if (now && fault.kind == Fault::both_killed) tracer.send(who, SIGKILL, true);
            if (now && fault.kind == Fault::stopped_killed) tracer.send(who, SIGSTOP);
            if (waits(who->call)) let_go();
        }
        if (ours && event.what == Event::returns) {
            if (who->call == SYS_brk) breaks[who->pid] = static_cast<uint64_t>(who->result);
            if (on && fault.kind == Fault::killed_after && process == fault.process &&
                who->calls == number)
                tracer.send(who, SIGKILL);
        }
        if (who != held) tracer.go_on(who);
    }
    it.late = tracer.late;
    it.status = traced.status();
    it.out = traced.out();
    it.err = traced.err();
    for (size_t i = 0; i < 2; ++i)
        if (tracer.tracees.size() > i) it.pids[i] = tracer.tracees[i].pid;
    return it;
}

// Runs without the tracer: as fast as it can, several at once.
class Running {
  public:
    explicit Running(const Target& target, const std::function<void()>& prepare = {}) {
        std::vector<char*> argv;
        for (const std::string& word : target.words)
            argv.push_back(const_cast<char*>(word.c_str()));
        argv.push_back(nullptr);
        pid = fork();
        if (pid != 0) return;
        setpgid(0, 0);
        for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
        const rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
        dup2(out_, 1);
        dup2(err_, 2);
        if (chdir(target.directory.c_str()) == -1) _exit(126);
        if (prepare) prepare();
        target.prepare();
        execvp(argv[0], argv.data());
        _exit(127);
    }
    ~Running() {
        if (out_ != -1) close(out_), close(err_);
    }
    Running(Running&& other)
        : pid(other.pid), end_(other.end_), out_(other.out_), err_(other.err_) {
        other.out_ = other.err_ = -1;
    }

    // Waits for its end, and that of all that it has started. `meanwhile` is called again and
    // again.
    Outcome finish(const std::function<void()>& meanwhile = {}) {
        Outcome it;
        int status = 0;
        while (waitpid(pid, &status, WNOHANG) == 0) {
            if (Tracer::now() > end_ && !it.late) {
                it.late = true;
                kill(-pid, SIGKILL);
            }
            if (meanwhile && !it.late)
                meanwhile();
            else
                usleep(200);
        }
        // A child whose parent has ended is on its way out: let it.
        for (const long grace = Tracer::now() + (it.late ? 0 : 5000); kill(-pid, 0) == 0;
             usleep(200)) {
            if (Tracer::now() < grace) continue;
            it.left = true;
            kill(-pid, SIGKILL);
            break;
        }
        it.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        it.out = Traced::kept(out_);
        it.err = Traced::kept(err_);
        it.pids[0] = pid;
        it.fired = true;
        return it;
    }
    pid_t pid;

  private:
    long end_ = Tracer::now() + kLimit * 1000;
    int out_ = memfd_create("stdout", MFD_CLOEXEC);
    int err_ = memfd_create("stderr", MFD_CLOEXEC);
};

inline Outcome undisturbed(const Target& target, const std::function<void()>& prepare = {}) {
    return Running(target, prepare).finish();
}

// The rule: which part of it that run has broken; empty: none.
inline std::string broken(const Target& target, const Fault& fault, const Outcome& it) {
    const bool sent = fault.kind >= Fault::sent;
    if (it.late) return "no end";
    if (it.left) return "a process left";
    if (it.status == 0) {
        const std::string wrong = target.wrong(it);
        if (!wrong.empty()) return "exit 0, but " + wrong;
    } else if (!(sent && it.status == 128 + (fault.is_kill() ? SIGKILL : fault.number))) {
        const bool cut = fault.kind == Fault::happens && it.status == 128 + SIGBUS;
        if (it.status > 128 && !sent && !cut) return "crash";
        if (it.err.empty() && !it.mute && !cut) return "silent";
    }
    if (it.fired && (fault.kind == Fault::fails || fault.kind == Fault::keeps_failing)) {
        if (target.strict && it.status == 0 && !target.unsaid.count(it.reached.call) &&
            !can_do_without(it.reached, fault.number))
            return "ignored";
        if (it.status != 0 && it.reached.call == SYS_futex && fault.number != ETIMEDOUT)
            return "waits no longer";  // EINTR and EAGAIN say: look again
        if (it.status != 0 && !it.mute &&
            !has(it.err, std::string(": ") + strerror(fault.number) + "\n"))
            return "another reason";
    }
    // No signal ends or stops process 1 that it does not ask for; a stop is undone.
    const bool one = target.way == Way::as_process_1 && fault.process == 0;
    if ((fault.kind == Fault::sent || fault.kind == Fault::group_signal) && it.status != 0 &&
        (is_stop(fault.number) || (one && target.strict)))
        return "a harmless signal counts";
    return fault.is_kill() ? "" : target.left(it);
}

// The command that clears the way, as its hint has it.
inline std::string hint(const std::string& err) {
    for (const std::string mark : {"  remove it: ", "  remove it, if nobody does: "}) {
        const size_t at = err.find(mark);
        if (at == std::string::npos) continue;
        const size_t from = at + mark.size();
        return err.substr(from, err.find('\n', from) - from);
    }
    return "";
}

// After a SIGKILL the next run is right; or says what to type, and after that the next is.
inline std::string next_run(const Target& target) {
    if (target.again) return target.again();
    Outcome it = undisturbed(target);
    if (it.status != 0 && !hint(it.err).empty()) {
        shell(hint(it.err), target.directory);
        it = undisturbed(target);
    }
    if (it.status != 0) return "the next run: " + it.err;
    const std::string wrong = broken(target, {}, it);
    return wrong.empty() ? "" : "the next run: " + wrong;
}

inline std::string describe(const Fault& fault, const Outcome& clean) {
    static const char* const kKinds[] = {"nothing",         "fails once",      "keeps failing",
                                         "no memory",       "happens",         "signal",
                                         "group",           "SIGKILL before",  "SIGKILL after",
                                         "SIGKILL to both", "SIGSTOP, SIGKILL"};
    if (fault.kind == Fault::nothing) return "undisturbed";
    const auto& calls = clean.calls[fault.process];
    const size_t at = static_cast<size_t>(fault.at);
    std::string text = std::string(fault.process ? "child " : "parent ") + std::to_string(at) +
                       " " + (at <= calls.size() ? call_name(calls[at - 1].call) : "?") + ": " +
                       kKinds[fault.kind];
    if (fault.kind < Fault::happens) text += std::string(", ") + strerror(fault.number);
    if (fault.kind == Fault::sent || fault.kind == Fault::group_signal)
        text += std::string(", ") + strsignal(fault.number);
    return text;
}
