// Lab 2, residue: objects outlive processes. The exchange of lab 1 has to leave nothing behind,
// however it ends: a call fails, a signal comes, somebody kills one of the two.
//
// Every moment is tried: between two system calls of the parent nothing changes that a signal could
// find otherwise.

#pragma once

#include "exchange.h"

namespace residue {

// Until this many calls after the one that made it a name may be left by SIGKILL: nobody can make
// and remove in one step.
constexpr int kClose = 3;

inline std::string names(const std::map<std::string, std::string>& left) {
    std::string text;
    for (const auto& it : left) text += "\n" + it.first + " (" + it.second + ")";
    return text;
}

inline bool enters(const Event& event) {
    return event.what == Event::enters && event.who->number == 0;
}

// What an undisturbed run shows: the number of the call before which something is there for the
// first time, of the last call, and of the first at which SIGKILL would leave a name (0: none).
struct Usual {
    int first = 0, last = 0, open = 0;
};

inline Usual undisturbed_run(Stage& stage) {
    {
        stage.clear();
        Run run(stage);
        run.until_born();
        run.in_turns([&] { return exchange::parent_waits(run); });
        const std::string object = exchange::object_of(run);
        run.finish();
        const auto common = run.common_objects();
        const std::string left = names(stage.left());
        if (!run.why.empty() || exchange::printed(run) != exchange::kTranscript || !left.empty() ||
            std::count(common.begin(), common.end(), object) == 0)
            stage.lose("exchange", {"ran it, the parent first",
                                    run.seen() + (left.empty() ? "" : "\nleft:" + left),
                                    "the exchange of lab 1, over a shared object", "PROGRAM"});
        else
            stage.earn("exchange");
    }
    Usual usual;
    std::map<std::string, int> since;
    stage.clear();
    Run run(stage);
    while (run.until(enters).what != Event::over) {
        const int call = run.parent()->calls;
        const auto left = stage.left();
        usual.last = call;
        if (usual.first == 0 && !run.made().empty()) usual.first = call;
        for (const auto& it : left) {
            if (!since.count(it.first)) since[it.first] = call;
            if (usual.open == 0 && call - since[it.first] >= kClose) usual.open = call;
        }
        run.go_on(run.parent());
    }
    return usual;
}

// Runs it up to the parent's call of that number, and returns the parent as it enters that; nullptr
// if it has fewer.
inline Tracee* at_call(Run& run, int call) {
    run.until([&](const Event& event) { return enters(event) && event.who->calls >= call; });
    return run.parent()->ended ? nullptr : run.parent();
}

// What is wrong after a run: "" if it has ended by itself, and nothing is left. A child that is
// left is another requirement.
inline std::string wrong(Stage& stage, const Run& run) {
    const std::string left = names(stage.left());
    const std::string why = run.why.rfind("it left a process", 0) == 0 ? "" : run.why;
    return why + (left.empty() ? "" : (why.empty() ? "left:" : "\nleft:") + left);
}

inline void send_signals(Stage& stage, const Usual& usual) {
    for (int call = usual.first - 1; call <= usual.last; ++call)
        for (const bool group : {false, true}) {
            stage.clear();
            Run run(stage);
            // To the parent before it does anything more; to both, when the parent may sleep.
            run.until([&](const Event& event) {
                return event.what == (group ? Event::enters : Event::returns) &&
                       event.who->number == 0 && event.who->calls >= call;
            });
            if (run.parent()->ended) continue;
            const std::string at = call_name(run.parent()->call);
            run.tracer.send(run.parent(), group ? SIGINT : SIGTERM, group);
            run.finish();
            if (wrong(stage, run).empty()) continue;
            return stage.lose(
                "signals",
                {group ? "sent SIGINT to both, as Ctrl-C does, when the parent came to " + at
                       : "sent SIGTERM to the parent, when it came back from " + at,
                 wrong(stage, run),
                 "a signal may come at any moment: hold it back where there is a name, and have "
                 "none as soon as you can",
                 "PROGRAM & kill $!; ls -l /dev/shm; ipcs -m"});
        }
    stage.earn("signals");
}

inline void kill_the_parent(Stage& stage, const Usual& usual) {
    if (usual.open == 0) {
        stage.earn("killed");
    } else {
        stage.clear();
        Run run(stage);
        const Tracee* parent = at_call(run, usual.open);
        const std::string before = parent == nullptr ? "its end" : call_name(parent->call);
        run.tracer.send(run.parent(), SIGKILL);
        run.finish();
        stage.lose("killed",
                   {"killed the parent with SIGKILL, when it came to " + before, wrong(stage, run),
                    "no handler runs then. Whoever has the object mapped, or inherits it, needs no "
                    "name: remove it as soon as it is made",
                    "PROGRAM & kill -9 $!; ls -l /dev/shm; ipcs -m"});
    }
    // With a child: at its birth, while it waits, and when the parent waits for it.
    for (const std::string moment : {"after fork, before the child ran", "while the child waited",
                                     "while the parent waited for it"}) {
        stage.clear();
        Run run(stage);
        Tracee* child = run.until_born();
        if (child == nullptr) break;
        const bool at_birth = moment[0] == 'a', waits = moment == "while the child waited";
        if (waits)
            for (int i = 0; i < 5; ++i)
                run.alone(child, [&] { return run.endless(child) && run.sleeps(child); });
        if (!at_birth && !waits) run.in_turns([&] { return exchange::parent_waits(run); });
        run.tracer.send(run.parent(), SIGKILL);
        // It is no more before the child moves, which else may still be killed with it.
        while (at_birth && !run.parent()->ended) {
            const Event event = run.next();
            if (event.what == Event::over) break;
            if (event.who == run.parent()) run.go_on(event.who);
        }
        run.finish();
        if (run.why.empty()) continue;
        return stage.lose("orphan", {"killed the parent with SIGKILL, " + moment, run.why,
                                     "who waits for a process must notice that it is no more",
                                     "PROGRAM & kill -9 $!; ps -ef"});
    }
    stage.earn("orphan");
}

inline void kill_the_child(Stage& stage) {
    stage.clear();
    Run run(stage);
    Tracee* child = run.until_born();
    if (child != nullptr) run.tracer.send(child, SIGKILL);
    run.finish();
    if (run.why.empty() && run.status() != 0) return stage.earn("child");
    stage.lose("child", {"killed the child with SIGKILL, right after fork", run.seen(),
                         "the parent has to end, with another status than 0", "man 2 waitpid"});
}

// Somebody removes the name and makes another object of that name, while both stand after fork.
inline void replace(Stage& stage) {
    stage.clear();
    Run run(stage);
    run.until_born();
    std::string path;
    for (const Made& it : run.made())
        if (it.name[0] == '/') path = it.name.substr(0, it.name.find(" (deleted)"));
    if (path.empty()) return stage.earn("others");
    unlink(path.c_str());
    std::ofstream(path) << "of others";
    chmod(path.c_str(), 0666);
    stage.give(path);
    run.finish();
    std::string now;
    std::getline(std::ifstream(path), now);
    if (now == "of others") return stage.earn("others");
    stage.lose("others", {"removed " + path +
                              " after the fork, made another object of that name, "
                              "and let both go on",
                          now.empty() ? "the other object is gone" : "its bytes changed",
                          "a name says nothing of whose it is now: what you remove late may be "
                          "another's",
                          "docs/explain PROGRAM"});
}

inline void fail_calls(Stage& stage, const Usual& usual) {
    for (int call = usual.first; call <= usual.last; ++call) {
        stage.clear();
        Run run(stage);
        Tracee* parent = at_call(run, call);
        if (parent == nullptr) continue;
        const uint64_t* a = parent->argument;
        const bool forks = !(run.clone_flags(parent) & 0x10000) &&
#ifdef SYS_fork
                           (parent->call == SYS_fork || parent->call == SYS_vfork ||
#else
                           (
#endif
                            parent->call == SYS_clone || parent->call == SYS_clone3);
        const bool maps = parent->call == SYS_mmap && (a[3] & MAP_SHARED);
        const int error = forks                                                            ? EAGAIN
                          : maps || parent->call == SYS_shmat                              ? ENOMEM
                          : parent->call == SYS_ftruncate || parent->call == SYS_fallocate ? ENOSPC
                                                                                           : 0;
        if (error == 0) continue;
        const std::string name = call_name(parent->call);
        const std::string look = run.failing(error == EAGAIN   ? "EAGAIN"
                                             : error == ENOMEM ? "ENOMEM"
                                                               : "ENOSPC");
        if (!run.tracer.answer(parent, -error)) throw std::runtime_error("cannot fail a call here");
        run.finish();
        if (wrong(stage, run).empty() && run.status() < 128) continue;
        return stage.lose("errors", {"had " + name + " fail: " + strerror(error),
                                     run.seen() + "\n" + wrong(stage, run),
                                     "whoever ends early, too, has to leave nothing", look});
    }
    stage.earn("errors");
}

inline void grade(Stage& stage) {
    const Usual usual = undisturbed_run(stage);
    if (!stage.met("exchange"))
        return stage.not_shown({"errors", "signals", "killed", "orphan", "child", "others"},
                               "it needs an exchange that works");
    fail_calls(stage, usual);
    send_signals(stage, usual);
    kill_the_parent(stage, usual);
    kill_the_child(stage);
    replace(stage);
}

}  // namespace residue

inline Lab residue_lab() {
    return {2,
            "2-residue",
            "residue: objects outlive processes",
            60,
            {"shm_posix/shm_posix.cc", "map_posix/map_posix.cc", "shm_v/shm_v.cc"},
            {{"builds", 1, "it builds"},
             {"exchange", 3, "the exchange of lab 1 works"},
             {"errors", 3, "a call that fails leaves nothing"},
             {"signals", 4, "a signal, whenever it comes, leaves nothing"},
             {"killed", 4, "kill -9 leaves nothing, but for the calls right after making it"},
             {"orphan", 2, "the child does not outlive its parent"},
             {"child", 1, "if the child is killed, the parent ends and says so"},
             {"others", 2, "an object that somebody else made meanwhile stays"}},
            residue::grade};
}
