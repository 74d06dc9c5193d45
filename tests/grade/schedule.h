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

// "it printed '...' and ended with status 0", or why it was ended.
inline std::string printed(const Run& run) {
    if (!run.why.empty()) return run.why;
    std::string text = run.out().substr(0, 200) + run.err().substr(0, 200);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return "it printed '" + text + "' and ended with status " + std::to_string(run.status());
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

// To where the child stands before its first instruction, and the parent after its fork.
inline bool fork_child(Run& run) {
    run.until([](const Event& event) { return event.what == Event::forks; });
    while (run.child() != nullptr && !stands(run.child()))
        if (run.next().what == Event::over) return false;
    return run.child() != nullptr;
}

// The processor time that it has used, in microseconds [clock_getcpuclockid(3)].
inline long processor(const Tracee* who) {
    clockid_t clock;
    timespec used = {};
    if (clock_getcpuclockid(who->pid, &clock) == 0) clock_gettime(clock, &used);
    return used.tv_sec * 1000000L + used.tv_nsec / 1000;
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

// Freely, until `there`, which is asked all the time, while it runs. The others stand, and stay so.
inline Went go_until(Run& run, Tracee* who, long microseconds, const std::function<bool()>& there) {
    const long before = processor(who);
    Went went = Went::turns;
    for (int looks = 0;; ++looks) {
        if (who->ended) return Went::ended;
        if (there()) {
            went = Went::there;
            break;
        }
        run.go_on(who);
        const Event event = run.next(0);
        if (event.what == Event::over) return Went::ended;
        if (event.what != Event::nothing || looks % 32 != 31) continue;
        if (run.sleeps(who) && !there()) return Went::sleeps;
        if (processor(who) - before >= microseconds) break;
    }
    hold(run, who);
    return who->ended ? Went::ended : went;
}

// How a process waits while nobody wakes it.
struct Waiting {
    bool asleep;       // else it turns, or asks again and again
    long used;         // milliseconds of processor, meanwhile
    int calls;         // that it entered meanwhile
    std::string call;  // the last of them

    std::string told() const {
        return "it used the processor for " + std::to_string(used) + " ms and made " +
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
        if (Tracer::now() >= end && now.used < 30 && run.sleeps(who))
            return {true, now.used, now.calls, now.call};
    }
}
