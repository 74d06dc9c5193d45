// Lets the processes of a program go on in an order that we choose, if need be one instruction at a
// time. What happens at an unlucky moment happens here every time, whatever the load: whether a
// process sleeps or has done what we wait for is asked of the kernel, not of the clock.

#pragma once

#include "run.h"

inline bool stands(const Tracee* who) { return !who->ended && who->state == Tracee::stands; }

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
inline Went go_until(Run& run, Tracee* who, long milliseconds, const std::function<bool()>& there) {
    const long before = run.processor(who);
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
        if (run.processor(who) - before >= milliseconds) break;
    }
    // Who sleeps is left alone: to be held would end some calls with EINTR [ptrace(2)].
    if (!stands(who) && !run.sleeps(who)) run.tracer.hold(who);
    while (!stands(who) && !who->ended && !run.sleeps(who))
        if (run.next(1).what == Event::over) return Went::ended;
    return went;
}

// How a process waits while nobody wakes it.
struct Waiting {
    bool asleep;       // else it turns, or asks again and again
    long processor;    // milliseconds that it used meanwhile
    int calls;         // that it entered meanwhile
    std::string call;  // the last of them

    std::string told() const {
        return "it used the processor for " + std::to_string(processor) + " ms and made " +
               std::to_string(calls) + " calls" + (calls > 0 ? ", the last " + call : "");
    }
};

// Looks for so many milliseconds, or as long as it takes to be sure: who sleeps has entered a call
// or two by then, who asks again and again enters many, or uses the processor.
inline Waiting watch(Run& run, Tracee* who, int milliseconds) {
    const long before = run.processor(who), end = Tracer::now() + milliseconds;
    const int calls = who->calls;
    for (;;) {
        run.go_on(who);
        const Event event = run.next(5);
        const Waiting now = {false, run.processor(who) - before, who->calls - calls,
                             call_name(who->call)};
        if (who->ended || event.what == Event::over) return now;
        if (now.calls > 20 || now.processor >= 60) return now;
        if (Tracer::now() >= end && now.processor < 30 && run.sleeps(who))
            return {true, now.processor, now.calls, now.call};
    }
}
