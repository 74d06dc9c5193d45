// Lab 1: the exchange. Sharing is not waiting.

#pragma once

#include "lab.h"

inline std::string exchange_transcript(Run& run, const std::string& second, int status) {
    return "Child " + std::to_string(run.child()->pid) +
           ": start\nThere is 3 item in the shm\n1: Nellson\n2: " + second +
           "\n3: Robbie\nParent " + std::to_string(run.parent()->pid) +
           " get child status:" + std::to_string(status) + "\n";
}

// The parent has come to where it waits for its child, or has ended.
inline bool parent_waits(Run& run) {
    const Tracee* parent = run.parent();
    return run.child() != nullptr &&
           (parent->ended ||
            (parent->in_call && (parent->call == SYS_wait4 || parent->call == SYS_waitid)));
}

inline void grade_exchange(Stage& stage) {
    Run run(stage);
    run.until([](const Event& event) { return event.what == Event::forks; });
    run.in_turns([&] { return parent_waits(run); });
    run.finish();
    if (run.common_object().empty()) {
        stage.lose("shared", {"ran it and looked at the shared mappings of both processes",
                              "no object is mapped, shared and writable, in both",
                              "each has memory of its own", "grep ' ..-s ' /proc/PID/maps"});
    } else {
        stage.earn("shared");
    }
    if (run.child() != nullptr && run.why.empty() &&
        run.out() == exchange_transcript(run, "Daisy", 0))
        stage.earn("transcript");
    else
        stage.lose(
            "transcript",
            {"ran it", run.out() + run.why + run.err() + std::to_string(run.status()), "", ""});
}

inline Lab exchange_lab() {
    return {1,
            "1-exchange",
            "the exchange: sharing is not waiting",
            45,
            {"shm_posix/shm_posix.cc", "map_posix/map_posix.cc", "shm_v/shm_v.cc"},
            {{"builds", 1, "it builds"},
             {"shared", 3, "parent and child share an object"},
             {"transcript", 2, "it prints what the lab asks for"}},
            grade_exchange};
}
