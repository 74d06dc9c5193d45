// The one tracer: runs a program and sees every system call of it and of all that it forks, when it
// enters the kernel and when it returns [ptrace(2)]. docs/explain tells with it, tests fail calls
// and kill at calls, a grader holds a process and looks.
//
//     Tracer tracer({"shm_posix/shm_posix"}, 10);
//     for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who)) {
//         if (event.what == Event::enters && event.who->call == SYS_ftruncate)
//             tracer.answer(event.who, -ENOSPC);  // it fails, and is not executed
//     }
//
// At every event the process it is about stands still until go_on(); whoever keeps it back holds it
// and may look at it for as long as he likes, the others run on. Nothing else of the caller is
// touched: we wait for the processes that we know by their ids, never for "any child", and a new
// one is known before it runs. All calls of one Tracer come from one thread, as ptrace wants it.
// Looking works on every architecture, answer() on x86-64 and aarch64; Linux 5.3 or later.

#pragma once

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <system_error>
#include <vector>

// What the C library calls on 32-bit machines, where numbers of 32 bits do not do.
#ifdef SYS_mmap2
#undef SYS_mmap
#define SYS_mmap SYS_mmap2
#endif
#ifdef SYS_fstatat64
#define SYS_newfstatat SYS_fstatat64
#endif

// A process of the program, or a thread.
struct Tracee {
    pid_t pid;
    int number;           // 0: the program itself; then in the order of their birth
    Tracee* parent;       // who forked it; nullptr: we
    bool thread = false;  // one more thread of its parent's process
    bool ended = false;
    int status = 0;  // how it ended [waitpid(2)]

    // The call that it is in, or was in last [syscall(2)].
    uint64_t call = 0, argument[6] = {};
    int64_t result = 0;    // from -4095 to -1: it failed, and errno
    int calls = 0;         // how many it has entered since the program began
    bool in_call = false;  // it has entered and not returned
    bool foreign = false;  // of another architecture (a 32-bit program): numbers mean other calls

    int signal = 0;  // that it is about to get, and gets with go_on(); 0 takes it away

    // For the tracer alone.
    enum { unborn, runs, listens, stands, group_stop } state = unborn;
    bool answered = false, stepping = false, holding = false;
    int64_t answer = 0;
};

struct Event {
    enum What {
        nothing,    // the time is over
        enters,     // a call: not executed yet
        returns,    // from it
        forks,      // the parent; the child is `child` and stands before its first instruction
        begins,     // a child: its first stop
        executes,   // a program: its memory is new [execve(2)]
        signalled,  // it gets `who->signal`
        stops,      // as SIGSTOP makes it; go_on() leaves it so, until SIGCONT comes
        continues,  // after SIGCONT
        held,       // by hold()
        stepped,    // by step()
        ended,      // it is no more; who->status says how
        over,       // all have ended
    } what = nothing;
    Tracee* who = nullptr;
    Tracee* child = nullptr;
};

class Tracer {
  public:
    // Starts a program, which is found as the shell finds it. `prepare` runs in the new process,
    // before the program: file descriptors, directory, setsid(). After `seconds` (0: never) all are
    // killed. A program that cannot be executed ends with 127.
    explicit Tracer(const std::vector<std::string>& words, int seconds = 0,
                    const std::function<void()>& prepare = {})
        : deadline_(seconds > 0 ? now() + seconds * 1000L : LONG_MAX) {
        std::vector<char*> argv;
        for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
        argv.push_back(nullptr);
        int go[2];  // it waits until we trace it
        if (pipe2(go, O_CLOEXEC) == -1)
            throw std::system_error(errno, std::generic_category(), "pipe2");
        const pid_t pid = fork();
        if (pid == 0) {
            char c;
            close(go[1]);
            if (read(go[0], &c, 1) != 1) _exit(126);
            if (prepare) prepare();
            execvp(argv[0], argv.data());
            dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
            _exit(127);
        }
        const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                             PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
        const bool traced = pid != -1 && ptrace(PTRACE_SEIZE, pid, nullptr, options) == 0;
        const int why = errno;
        if (traced) add(pid, nullptr).state = Tracee::runs;
        if (traced && write(go[1], "", 1) != 1) kill(pid, SIGKILL);
        close(go[0]);
        close(go[1]);
        if (traced) return;
        if (pid != -1) waitpid(pid, nullptr, 0);
        throw std::system_error(why, std::generic_category(),
                                pid == -1 ? "fork" : "ptrace(PTRACE_SEIZE)");
    }

    // Kills all and waits for their ends.
    ~Tracer() {
        kill_all();
        while (next(5000).what == Event::ended) continue;
    }
    Tracer(const Tracer&) = delete;
    Tracer& operator=(const Tracer&) = delete;

    // Waits for what happens next, at most so many milliseconds (-1: as long as it takes).
    Event next(int milliseconds = -1) {
        const long end = milliseconds < 0 ? LONG_MAX : now() + milliseconds;
        sigset_t child, before;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        // Blocked from before we look until we sleep, so that none is missed between the two.
        pthread_sigmask(SIG_BLOCK, &child, &before);
        Event event;
        for (;;) {
            if (now() > deadline_) {
                deadline_ = LONG_MAX;
                late = true;
                kill_all();
            }
            if (!ends_.empty()) {
                event = ends_.front();
                ends_.pop_front();
                break;
            }
            event = look();
            const long left = end - now();
            if (event.what != Event::nothing || left <= 0) break;
            // Where others take the signal, or it is ignored, we look again soon.
            const timespec moment = {0, (left < 10 ? left : 10) * 1000000L};
            sigtimedwait(&child, nullptr, &moment);
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return event;
    }

    // Lets a process go on from where it stands, with the signal that it is about to get.
    void go_on(Tracee* who) {
        if (who == nullptr || who->ended || who->state < Tracee::stands) return;
        const bool stop = who->state == Tracee::group_stop;
        who->state = stop ? Tracee::listens : Tracee::runs;
        // Before execve it is still we: what `prepare` calls is not shown.
        ptrace(stop        ? PTRACE_LISTEN
               : executed_ ? PTRACE_SYSCALL
                           : PTRACE_CONT,
               who->pid, nullptr, static_cast<long>(who->signal));
        who->signal = 0;
    }

    // Lets a process that stands execute one instruction: the event `stepped` tells when it has. A
    // call is one instruction, is not told of, and may last.
    void step(Tracee* who) {
        if (who->ended || who->state != Tracee::stands) return;
        who->state = Tracee::runs;
        who->stepping = true;
        ptrace(PTRACE_SINGLESTEP, who->pid, nullptr, static_cast<long>(who->signal));
        who->signal = 0;
    }

    // Has a running process stand still wherever it is: the event `held` tells when it does.
    void hold(Tracee* who) {
        who->holding = true;
        ptrace(PTRACE_INTERRUPT, who->pid, nullptr, nullptr);
    }

    // When it enters a call: that is not executed, and returns `result` (-ENOMEM: fails). When it
    // returns: it returns that instead. False where we cannot.
    bool answer(Tracee* who, int64_t result) {
        if (!set(who, who->in_call ? -1 : result)) return false;
        who->answered = who->in_call;
        who->answer = who->result = result;
        return true;
    }

    // When it enters a call: its first argument becomes that. False where we cannot.
    bool set_argument(const Tracee* who, uint64_t value) {
#if defined __x86_64__ || defined __aarch64__
        user_regs_struct registers;
        iovec all = {&registers, sizeof registers};
        if (ptrace(PTRACE_GETREGSET, who->pid, NT_PRSTATUS, &all) == -1) return false;
        if (all.iov_len != sizeof registers) return false;  // a 32-bit program
#if defined __x86_64__
        registers.rdi = value;
#else
        registers.regs[0] = value;
#endif
        return ptrace(PTRACE_SETREGSET, who->pid, NT_PRSTATUS, &all) == 0;
#else
        return who == nullptr && value == 0;
#endif
    }

    // Sends a signal, SIGKILL for one, to a process or to its process group. Not to the group that
    // we are in ourselves: `prepare` should make a new one [setsid(2)].
    bool send(Tracee* who, int number, bool group = false) {
        if (!group) return kill(who->pid, number) == 0;
        const pid_t leader = getpgid(who->pid);
        return leader > 0 && leader != getpgrp() && kill(-leader, number) == 0;
    }

    // Bytes of its memory: fewer, where not all of them are there.
    std::string memory(const Tracee* who, uint64_t address, size_t bytes) const {
        std::string text(bytes, '\0');
        const iovec here = {&text[0], bytes}, there = {reinterpret_cast<void*>(address), bytes};
        const ssize_t got = process_vm_readv(who->pid, &here, 1, &there, 1, 0);
        text.resize(got < 0 ? 0 : static_cast<size_t>(got));
        return text;
    }

    // A string that ends with '\0', at most PATH_MAX long.
    std::string string(const Tracee* who, uint64_t address) const {
        std::string text = memory(who, address, 4096 - address % 4096);  // up to the page's end
        if (text.find('\0') == std::string::npos) text += memory(who, address + text.size(), 4096);
        return text.substr(0, text.find('\0'));
    }

    bool set_memory(const Tracee* who, uint64_t address, const std::string& bytes) const {
        const iovec here = {const_cast<char*>(bytes.data()), bytes.size()};
        const iovec there = {reinterpret_cast<void*>(address), bytes.size()};
        return process_vm_writev(who->pid, &here, 1, &there, 1, 0) ==
               static_cast<ssize_t>(bytes.size());
    }

    // Kills all; their ends are events.
    void kill_all() {
        // Each stands still first: one that is killed in the middle of fork would leave a child
        // that nobody told us of. In vfork a parent stands anyway.
        for (Tracee& it : tracees)
            if (it.state == Tracee::runs || it.state == Tracee::listens) hold(&it);
        const long end = now() + 200;
        const auto runs = [this] {
            for (const Tracee& it : tracees)
                if (!it.ended && it.state != Tracee::stands && it.state != Tracee::group_stop)
                    return true;
            return false;
        };
        while (runs() && now() < end) {
            const Event event = look();
            if (event.what == Event::nothing) usleep(200);
            if (event.what == Event::ended) ends_.push_back(event);
        }
        for (const Tracee& it : tracees)
            if (!it.ended) kill(it.pid, SIGKILL);
    }

    static long now() {  // in milliseconds
        timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return time.tv_sec * 1000L + time.tv_nsec / 1000000;
    }

    std::deque<Tracee> tracees;  // all that there were; pointers to them stay good
    bool late = false;           // the deadline has killed them

  private:
    Tracee& add(pid_t pid, Tracee* parent) {
        tracees.push_back({pid, static_cast<int>(tracees.size()), parent});
        return tracees.back();
    }

    // What has happened to one of them, if anything: each in turn comes first.
    Event look() {
        bool alive = false;
        for (size_t i = 0; i < tracees.size(); ++i) {
            turn_ = (turn_ + 1) % tracees.size();
            Tracee& who = tracees[turn_];
            if (who.ended) continue;
            alive = true;
            int status = 0;
            const pid_t pid = waitpid(who.pid, &status, __WALL | WNOHANG);
            // ECHILD: a thread whose process has executed another program.
            const bool gone = pid == -1 && errno == ECHILD;
            if (pid != who.pid && !gone) continue;
            const Event event = seen(who, status);
            if (event.what != Event::nothing) return event;
            go_on(&who);
        }
        Event event;
        if (!alive) event.what = Event::over;
        return event;
    }

    Event seen(Tracee& who, int status) {
        if (!WIFSTOPPED(status)) {
            who.ended = true;
            who.status = status;
            return {Event::ended, &who, nullptr};
        }
        const bool first = who.state == Tracee::unborn, listened = who.state == Tracee::listens;
        const int signal = WSTOPSIG(status);
        const bool stepping = who.stepping;
        who.state = Tracee::stands;
        who.signal = 0;
        who.stepping = false;
        if (signal == (SIGTRAP | 0x80)) return call(who);
        if (stepping && status >> 16 == 0 && signal == SIGTRAP) {
            who.in_call = false;
            return {Event::stepped, &who, nullptr};
        }
        switch (status >> 16) {
            case 0:
                who.signal = signal;
                return {Event::signalled, &who, nullptr};
            case PTRACE_EVENT_STOP:
                who.holding = false;
                if (signal != SIGTRAP) who.state = Tracee::group_stop;
                return {signal != SIGTRAP ? Event::stops
                        : first           ? Event::begins
                        : listened        ? Event::continues
                                          : Event::held,
                        &who, nullptr};
            case PTRACE_EVENT_EXEC:
                if (!executed_) who.call = SYS_execve;
                executed_ = who.in_call = true;
                return {Event::executes, &who, nullptr};
            case PTRACE_EVENT_FORK:
            case PTRACE_EVENT_VFORK:
            case PTRACE_EVENT_CLONE:
                return forked(who);
        }
        return {};
    }

    Event forked(Tracee& who) {
        unsigned long pid = 0;
        if (ptrace(PTRACE_GETEVENTMSG, who.pid, nullptr, &pid) == -1) return {};
        Tracee& child = add(static_cast<pid_t>(pid), &who);
        uint64_t flags = who.call == SYS_clone ? who.argument[0] : 0;
        if (who.call == SYS_clone3)
            memcpy(&flags, memory(&who, who.argument[0], sizeof flags).data(), sizeof flags);
        child.thread = flags & 0x10000;  // CLONE_THREAD
        child.call = who.call;
        child.foreign = who.foreign;
        return {Event::forks, &who, &child};
    }

    Event call(Tracee& who) {
        __ptrace_syscall_info info = {};
        if (ptrace(PTRACE_GET_SYSCALL_INFO, who.pid, sizeof info, &info) == -1) return {};
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            who.call = info.entry.nr;
            memcpy(who.argument, info.entry.args, sizeof who.argument);
            who.in_call = true;
            ++who.calls;
#if defined __x86_64__
            who.foreign = info.arch != AUDIT_ARCH_X86_64;
#elif defined __aarch64__
            who.foreign = info.arch != AUDIT_ARCH_AARCH64;
#endif
            return {Event::enters, &who, nullptr};
        }
        if (info.op != PTRACE_SYSCALL_INFO_EXIT) return {};
        who.in_call = false;
        who.result = who.answered ? who.answer : info.exit.rval;
        if (who.answered) set(&who, who.answer);
        // No signal has come, we hold it: the kernel's ERESTARTNOINTR has the call begin again.
        if (who.holding && who.result == -EINTR) set(&who, -513);
        who.answered = false;
        return {Event::returns, &who, nullptr};
    }

    // Sets the number of the call that it enters, or the result of the one that it returns from.
    static bool set(const Tracee* who, int64_t value) {
#if defined __x86_64__ || defined __aarch64__
        user_regs_struct registers;
        iovec all = {&registers, sizeof registers};
        if (ptrace(PTRACE_GETREGSET, who->pid, NT_PRSTATUS, &all) == -1) return false;
        if (all.iov_len != sizeof registers) return false;  // a 32-bit program
        const uint64_t word = static_cast<uint64_t>(value);
#if defined __x86_64__
        (who->in_call ? registers.orig_rax : registers.rax) = word;
#else
        if (who->in_call) {
            int number = static_cast<int>(value);
            iovec one = {&number, sizeof number};
            return ptrace(PTRACE_SETREGSET, who->pid, NT_ARM_SYSTEM_CALL, &one) == 0;
        }
        registers.regs[0] = word;
#endif
        return ptrace(PTRACE_SETREGSET, who->pid, NT_PRSTATUS, &all) == 0;
#else
        return who == nullptr && value == 0;
#endif
    }

    bool executed_ = false;
    long deadline_;
    size_t turn_ = 0;
    std::deque<Event> ends_;  // that kill_all() saw
};

// The name of a call of this architecture; "syscall 123" for those that our programs do not use.
inline std::string call_name(uint64_t number) {
    // clang-format off
#define CALL(name) {SYS_##name, #name}
    static const std::map<uint64_t, const char*> kNames = {
#ifdef SYS_open  // newer architectures have only the calls with more arguments
        CALL(open), CALL(unlink), CALL(rename), CALL(fork), CALL(vfork), CALL(dup2), CALL(access),
        CALL(readlink), CALL(poll), CALL(pipe), CALL(mkdir), CALL(rmdir), CALL(link),
        CALL(pause),
#endif
#ifdef SYS_alarm
        CALL(alarm),
#endif
#ifdef SYS_semop
        CALL(semop),
#endif
#ifdef SYS_semtimedop
        CALL(semtimedop),
#endif
#ifdef SYS_renameat
        CALL(renameat),
#endif
#ifdef SYS_newfstatat
        CALL(fstat), CALL(newfstatat),
#endif
        CALL(openat), CALL(close), CALL(read), CALL(write), CALL(writev), CALL(pread64), CALL(pwrite64),
        CALL(lseek), CALL(statx), CALL(fcntl), CALL(flock),
        CALL(dup), CALL(dup3), CALL(pipe2), CALL(faccessat), CALL(readlinkat), CALL(unlinkat),
        CALL(renameat2), CALL(linkat), CALL(mkdirat), CALL(getdents64),
        CALL(ftruncate), CALL(fallocate), CALL(fsync), CALL(fchmod), CALL(fchown), CALL(mmap),
        CALL(munmap), CALL(mremap), CALL(mprotect), CALL(msync), CALL(madvise), CALL(brk),
        CALL(shmget), CALL(shmat), CALL(shmdt), CALL(shmctl), CALL(semget),
        CALL(semctl), CALL(memfd_create), CALL(futex), CALL(clone), CALL(clone3),
        CALL(execve), CALL(wait4), CALL(waitid), CALL(exit), CALL(exit_group), CALL(kill),
        CALL(tgkill), CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigtimedwait),
        CALL(rt_sigsuspend), CALL(setitimer), CALL(getpid), CALL(getppid), CALL(gettid),
        CALL(getuid), CALL(geteuid), CALL(prctl), CALL(prlimit64), CALL(setsid), CALL(umask),
        CALL(nanosleep), CALL(clock_nanosleep), CALL(clock_gettime), CALL(ppoll), CALL(ioctl),
        CALL(sched_yield), CALL(getrandom), CALL(set_tid_address), CALL(set_robust_list),
        CALL(rseq),
    };
#undef CALL
    // clang-format on
    const auto known = kNames.find(number);
    return known == kNames.end() ? "syscall " + std::to_string(number) : known->second;
}
