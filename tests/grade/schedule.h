// Lets the processes of a program go on in an order that we choose, if need be one instruction at a
// time. What happens at an unlucky moment happens here every time, whatever the load: whether a
// process sleeps or has done what we wait for is asked of the kernel, not of the clock.

#pragma once

#include <random>

#include "run.h"

inline bool stands(const Tracee* who) { return !who->ended && who->state == Tracee::stands; }

inline std::string name(const Tracee* who) { return who->number == 0 ? "the parent" : "the child"; }

// A number that nobody knows before.
inline long some(long from, long to) {
    static std::random_device random;
    return std::uniform_int_distribution<long>(from, to)(random);
}

// The objects that both processes have and may change, as `who` has them. Their numbers differ from
// run to run, their order does not.
inline std::vector<Mapping> common(Run& run, const Tracee* who) {
    const auto theirs = run.shared(who == run.parent() ? run.child() : run.parent());
    std::vector<Mapping> all;
    for (const Mapping& it : run.mappings(who))
        if (it.writable && theirs.count(it.object)) all.push_back(it);
    return all;
}

// What these mappings of the parent hold.
inline std::string bytes_of(Run& run, const std::vector<Mapping>& objects) {
    std::string all;
    for (const Mapping& it : objects)
        all += run.tracer.memory(run.parent(), it.begin,
                                 std::min<uint64_t>(it.end - it.begin, 1 << 16));
    return all;
}
inline std::string common_bytes(Run& run) { return bytes_of(run, common(run, run.parent())); }

// To where the child stands before its first instruction, and the parent after its fork.
inline bool fork_child(Run& run) {
    const Tracee* child = run.until_born();
    return child != nullptr && !child->ended;
}

// Where its next instruction is; 0: not known on this architecture.
inline uint64_t next_instruction(const Tracee* who) {
    uint64_t at = 0;
#if defined __x86_64__ || defined __aarch64__
    user_regs_struct registers = {};
    iovec all = {&registers, sizeof registers};
    if (ptrace(PTRACE_GETREGSET, who->pid, NT_PRSTATUS, &all) == -1) return 0;
#if defined __x86_64__
    at = registers.rip;
#else
    at = registers.pc;
#endif
#endif
    return who->ended ? 0 : at;
}

// Holds a process that runs. Who sleeps is left alone: to be held would end some calls with EINTR
// [ptrace(2)].
inline void hold(Run& run, Tracee* who) {
    if (!who->ended && !stands(who) && !run.sleeps(who)) run.tracer.hold(who);
    while (!who->ended && !stands(who) && !run.sleeps(who))
        if (run.next(1).what == Event::over) return;
}

enum class Went {
    there,   // it has come to where we wanted it, and stands
    sleeps,  // in a call, until another wakes it: then it stands
    turns,   // it has used the processor for long, and stands
    ended,
};

// One instruction. A call is one, too, and may last: then it sleeps.
inline Went step(Run& run, Tracee* who) {
    if (stands(who)) run.tracer.step(who);
    for (;;) {
        if (who->ended) return Went::ended;
        if (stands(who)) return Went::there;
        const Event event = run.next(1);
        if (event.what == Event::over) return Went::ended;
        if (event.what == Event::nothing && run.sleeps(who)) return Went::sleeps;
    }
}

// Sleeps until somebody else wakes it: another process, or we with what it reads.
inline bool waits_for_others(const Run& run, const Tracee* who) {
    return run.sleeps(who) &&
           (who->stepping || run.endless(who) || (who->in_call && who->call == SYS_read));
}

// It sleeps in shared bytes, marked as if only its own process waited there [futex(2)]: the other
// will not wake it.
inline bool never_woken(Run& run, const Tracee* who) {
    if (who == nullptr || who->ended || !who->in_call || who->call != SYS_futex ||
        !(who->argument[1] & FUTEX_PRIVATE_FLAG))
        return false;
    for (const Mapping& it : common(run, who))
        if (it.begin <= who->argument[0] && who->argument[0] < it.end) return true;
    return false;
}
constexpr char kNeverWoken[] =
    "one sleeps in futex with FUTEX_PRIVATE_FLAG, and nobody in the other process wakes it: it was "
    "not made for several processes (PTHREAD_PROCESS_SHARED; sem_init with 1)";

// Freely, until `there`, which is asked all the time, while it runs. The others stand, and stay so.
inline Went go_until(Run& run, Tracee* who, long microseconds, const std::function<bool()>& there) {
    const long before = processor(who);
    Went went = Went::turns;
    long dozes = 0;  // since when it has slept for a time that it set itself, if it does
    for (int looks = 0;; ++looks) {
        if (who->ended) return Went::ended;
        if (there()) {
            went = Went::there;
            break;
        }
        run.go_on(who);
        const Event event = run.next(0);
        if (event.what == Event::over) return Went::ended;
        if (event.what != Event::nothing) continue;
        if (looks % 8 == 7 && run.sleeps(who) && !there()) {
            if (waits_for_others(run, who)) return Went::sleeps;
            if (dozes == 0) dozes = Tracer::now();
        }
        if (dozes != 0 && Tracer::now() - dozes > 30) {
            if (run.sleeps(who)) return Went::turns;
            break;
        }
        if (processor(who) - before >= microseconds) break;
    }
    hold(run, who);
    if (who->ended) return Went::ended;
    // It may have come there since we looked, if we did not get the processor.
    return went == Went::turns && there() ? Went::there : went;
}

// Whether something is left that outlives the processes. Where we ended them, that says nothing.
inline void check_left(Stage& stage, const Run& run) {
    const auto left = stage.left();
    const bool process = run.why.rfind("it left", 0) == 0;
    if (left.empty() && !process) return stage.earn("left");
    if (!process && !run.why.empty()) return stage.not_shown({"left"}, run.why);
    stage.lose("left",
               {"ran it to its end",
                process ? run.why : left.begin()->first + " is left (" + left.begin()->second + ")",
                process ? "every process that you start you wait for"
                        : "an object with a name outlives the processes: remove the name "
                          "as soon as the object is made",
                process ? "ps -ef" : "ls -l /dev/shm; ipcs -m -s"});
}

// How a process waits while nobody wakes it.
struct Waiting {
    bool asleep;       // else it turns, or asks again and again
    long used;         // milliseconds of processor, meanwhile
    int calls;         // that it entered meanwhile
    std::string call;  // the last of them

    std::string told(const Tracee* who) const {
        return name(who) + " used the processor for " + std::to_string(used) + " ms and made " +
               std::to_string(calls) + " calls" + (calls > 0 ? ", the last " + call : "");
    }
};

// Looks for so many milliseconds, or as long as it takes to be sure: who sleeps has entered a call
// or two by then, who asks again and again enters many, or uses the processor.
inline Waiting watch(Run& run, Tracee* who, int milliseconds) {
    const long before = processor(who), end = Tracer::now() + milliseconds;
    const int calls = who->calls;
    for (;;) {
        run.go_on(who);
        const Event event = run.next(5);
        const Waiting now = {false, (processor(who) - before) / 1000, who->calls - calls,
                             call_name(who->call)};
        if (who->ended || event.what == Event::over) return now;
        if (now.calls > 20 || now.used >= 60) return now;
        // Who sleeps for a moment asks again, however seldom it gets the processor here.
        const bool dozes = who->in_call && run.lasts(who) < 50 &&
                           (who->call == SYS_nanosleep || who->call == SYS_clock_nanosleep);
        if (Tracer::now() >= end && now.used < 30 && run.sleeps(who) && !dozes)
            return {true, now.used, now.calls, now.call};
    }
}
