// Lab 3: lost updates. Load, change and store are three steps.

#pragma once

#include <random>

#include "lab.h"
#include "schedule.h"

class Updates {
  public:
    explicit Updates(Stage& stage) : stage_(stage) {}

    void grade() {
        if (!count_one_after_the_other()) return;
        print_what_the_object_holds();
        report_a_failed_child();
        hold_everywhere();
        run_freely();
    }

  private:
    static Run::Options options(long times) {
        Run::Options with;
        with.arguments = {std::to_string(times)};
        with.limits.seconds = 60;
        return with;
    }

    static long some(long from, long to) {
        static std::random_device random;
        return std::uniform_int_distribution<long>(from, to)(random);
    }

    // To where the child stands before its first instruction, the parent after its fork.
    static bool fork_child(Run& run) {
        run.until([](const Event& event) { return event.what == Event::forks; });
        while (run.child() != nullptr && !stands(run.child()))
            if (run.next().what == Event::over) return false;
        return run.child() != nullptr;
    }

    // Where a process has the shared object; all 0: it does not.
    static Mapping object_of(Run& run, const Tracee* who) {
        const std::string object = run.common_object();
        for (const Mapping& it : run.mappings(who))
            if (it.object == object) return it;
        return {};
    }

    // Where words with this value lie in the shared object, as one process sees it.
    static std::set<size_t> words_with(Run& run, const Tracee* who, long value) {
        std::set<size_t> all;
        const Mapping it = object_of(run, who);
        const std::string bytes =
            run.tracer.memory(who, it.begin, std::min<uint64_t>(it.end - it.begin, 1 << 20));
        for (size_t at = 0; at + sizeof(int32_t) <= bytes.size(); at += sizeof(int32_t)) {
            int32_t word;
            memcpy(&word, bytes.data() + at, sizeof word);
            if (word == value) all.insert(at);
        }
        return all;
    }

    long count(Run& run, const Tracee* who) const {
        const std::string bytes = run.tracer.memory(who, address(who), sizeof(uint32_t));
        uint32_t word = 0;
        memcpy(&word, bytes.data(), bytes.size());
        return word;
    }

    uint64_t address(const Tracee* who) const { return begin_.at(who->number) + offset_; }

    void find_addresses(Run& run) {
        for (const Tracee* it : {run.parent(), run.child()})
            begin_[it->number] = object_of(run, it).begin;
    }

    // First the one runs as far as it comes, then the other: so nobody disturbs anybody. After
    // each part, `look`.
    static void one_after_the_other(Run& run, const std::function<void()>& look) {
        const auto never = [] { return false; };
        for (int round = 0; round < 6 && run.why.empty(); ++round) {
            for (Tracee* who : {run.parent(), run.child()}) {
                if (who->ended) continue;
                if (run.child()->ended) {  // look before the parent can unmap the object
                    const Event event = run.until([](const Event&) { return true; });
                    if (event.what == Event::enters) look();
                    run.go_on(event.who);
                    round = 0;
                    continue;
                }
                go_until(run, who, 3000, never);
                look();
            }
        }
        run.finish();
    }

    // Builds, counts, shares; finds where the count lies.
    bool count_one_after_the_other() {
        const long times = some(1000, 9000);
        std::set<size_t> half, whole;
        {
            Run run(stage_, options(times));
            const bool forked = fork_child(run);
            const auto look = [&] {
                const Tracee* who = run.parent()->ended ? run.child() : run.parent();
                for (const size_t at : words_with(run, who, times)) half.insert(at);
                for (const size_t at : words_with(run, who, 2 * times)) whole.insert(at);
            };
            if (forked) one_after_the_other(run, look);
            run.finish();
            const std::string wanted = "count " + std::to_string(2 * times) + "\n";
            const std::string did = "ran it with " + std::to_string(times) +
                                    ", first the one process to its end, then the other";
            const bool right = run.why.empty() && run.status() == 0 && run.out() == wanted;
            const std::string saw =
                run.why.empty()
                    ? "it printed '" + run.out().substr(0, 200) + run.err().substr(0, 200) +
                          "' and ended with status " + std::to_string(run.status())
                    : run.why;
            if (right)
                stage_.earn("result");
            else
                stage_.lose("result",
                            {did, saw,
                             "asked for is the line '" + wanted.substr(0, wanted.size() - 1) +
                                 "' and status 0: both add, nothing disturbs them",
                             "./mine " + std::to_string(times)});
            for (const size_t at : half)
                if (whole.count(at)) found_ = true, offset_ = at;
            if (!forked)
                lose_all("it forked no child: there must be two who count");
            else if (run.common_object().empty())
                lose_all(
                    "no object is mapped shared and writable in both processes: each counts in "
                    "memory of its own");
            else if (!found_)
                lose_all("no number in the shared object went to " + std::to_string(times) +
                         " and then to " + std::to_string(2 * times) +
                         ": the count does not lie in the object, or there are several");
            else
                stage_.earn("shared");
            check_left(run);
        }
        stage_.clear();
        return found_;
    }

    void lose_all(const std::string& saw) {
        stage_.lose("shared",
                    {"looked at the shared mappings of both processes while each counted", saw,
                     "a child's changes stay in its own memory unless the mapping is MAP_SHARED "
                     "and made before the fork",
                     "grep ' ..-s ' /proc/PID/maps"});
        for (const char* id : {"object", "both", "exact", "sleeps", "failure", "left"})
            stage_.lose(id, {"not looked at", "there is no shared count", "", ""});
    }

    void check_left(Run& run) {
        const auto left = stage_.left();
        if (left.empty() && run.why.empty()) return stage_.earn("left");
        stage_.lose("left",
                    {"ran it to its end",
                     left.empty() ? run.why
                                  : left.begin()->first + " is left (" + left.begin()->second + ")",
                     "an object with a name outlives the processes: remove the name as soon as the "
                     "object is made",
                     "ls -l /dev/shm; ipcs -m -s"});
    }

    void print_what_the_object_holds() {
        const long times = some(1000, 9000), more = some(10000, 90000);
        {
            Run run(stage_, options(times));
            bool changed = false;
            if (fork_child(run)) {
                find_addresses(run);
                one_after_the_other(run, [&] {
                    if (changed || run.parent()->ended || count(run, run.parent()) != times) return;
                    const uint32_t value = static_cast<uint32_t>(times + more);
                    changed = run.tracer.set_memory(
                        run.parent(), address(run.parent()),
                        std::string(reinterpret_cast<const char*>(&value), sizeof value));
                });
            }
            run.finish();
            const std::string wanted = "count " + std::to_string(2 * times + more) + "\n";
            if (run.out() == wanted)
                stage_.earn("object");
            else
                stage_.lose("object", {"ran it with " + std::to_string(times) +
                                           " and, when one had counted, added " +
                                           std::to_string(more) + " to the count in the object",
                                       "it printed '" + run.out().substr(0, 200) + "', not " +
                                           std::to_string(2 * times + more),
                                       "what is printed, or stored, does not come from the object: "
                                       "it was computed, or kept in a variable of one process",
                                       ""});
        }
        stage_.clear();
    }

    void report_a_failed_child() {
        {
            Run run(stage_, options(some(1000, 9000)));
            if (fork_child(run)) {
                run.tracer.send(run.child(), SIGKILL);
                run.go_on(run.child());
            }
            run.finish();
            if (run.why.empty() && run.status() != 0 && run.out().empty())
                stage_.earn("failure");
            else
                stage_.lose(
                    "failure",
                    {"killed the child before it counted",
                     run.why.empty() ? "the program printed '" + run.out().substr(0, 200) +
                                           "' and ended with status " + std::to_string(run.status())
                                     : run.why,
                     "half of the count is missing and nobody is told: the status of waitpid(2) "
                     "says how the child ended",
                     "docs/explain ./mine 1000000000 & pkill -9 -n mine"});
        }
        stage_.clear();
    }

    // What one step of one process must do to the count, as long as the other does not move:
    // nothing, or add 1.
    bool right_change(const Tracee* who, long before, long after) {
        if (after == before || after == before + 1) return true;
        const std::string it = who->number == 0 ? "the parent" : "the child";
        const std::string change = std::to_string(before) + " to " + std::to_string(after);
        if (after > before)
            stage_.lose(
                "both",
                {"looked at the count after each instruction",
                 it + " changed it from " + change + " at once",
                 "each is to add 1 at a time: an optimiser joins the additions if nothing keeps "
                 "them apart, and a program that adds once at the end does not share its work",
                 ""});
        stage_.lose("exact",
                    {"held " + it + " after each instruction and let the other count on",
                     "when " + it + " went on, it changed the count from " + change,
                     after > before ? "it adds a number that it loaded or counted long before"
                                    : "it had loaded the count before, and stored what it had "
                                      "loaded, plus 1: what the other had added meanwhile is lost",
                     "docs/labs/3-lost-updates.md, the picture"});
        return false;
    }

    // Each instruction between two changes of one process is a moment at which the other may count.
    void hold_everywhere() {
        {
            Run run(stage_, options(1000000000));
            if (!fork_child(run)) return;
            find_addresses(run);
            // Each in turn as far as its next changes; one that is held with the lock keeps the
            // other back, but where it is held differs.
            bool counts[2] = {false, false};
            for (int round = 0; round < 40 && !(counts[0] && counts[1]); ++round)
                for (Tracee* who : {run.parent(), run.child()}) {
                    const long before = count(run, run.parent());
                    if (who->ended) continue;
                    go_until(run, who, 500, [&] { return count(run, who) > before + 1; });
                    if (count(run, who) > before) counts[who->number] = true;
                }
            for (const Tracee* who : {run.parent(), run.child()})
                if (!counts[who->number])
                    stage_.lose("both", {"held " + name(who, true) + " after its first changes",
                                         name(who) + " added nothing",
                                         "the one waits until the other has done all of its work: "
                                         "nothing is shared but the result",
                                         ""});
            if (counts[0] && counts[1] && tour(run, run.parent(), run.child()) &&
                tour(run, run.child(), run.parent()) && run.why.empty())
                stage_.earn("exact");
            if (together_ > 0) stage_.earn("both");
            if (!waited_) stage_.earn("sleeps");
            for (const char* id : {"both", "exact"})
                if (!stage_.verdicts.met.count(id))
                    stage_.lose(
                        id, {"held the one and the other at every instruction between two changes",
                             run.why.empty() ? "they did not come so far" : run.why, "", ""});
            run.tracer.kill_all();
            run.finish();
        }
        stage_.clear();
    }

    static std::string name(const Tracee* who, bool other = false) {
        return (who->number == 0) != other ? "the parent" : "the child";
    }

    // One process makes three changes, instruction by instruction; after each the other goes on as
    // far as it comes.
    bool tour(Run& run, Tracee* who, Tracee* other) {
        int changes = 0, alone = 0;
        for (int steps = 0; changes < 3 && steps < 5000 && run.why.empty(); ++steps) {
            long before = count(run, who);
            const Went went = step(run, who);
            if (went == Went::ended) return true;
            if (went == Went::sleeps) {  // it waits for the other
                go_until(run, other, 500, [&] { return stands(who); });
                if (!stands(who)) step(run, who);
                continue;
            }
            long after = count(run, who);
            if (!right_change(who, before, after)) return false;
            changes += after != before;
            before = after;
            const Went how = go_until(run, other, 40, [&] { return count(run, who) > before + 1; });
            after = count(run, who);
            if (after < before) return right_change(other, before, after);
            (after > before ? together_ : alone) += 1;
            if (after == before && how != Went::ended && !waited_) wait(run, who, other);
        }
        if (together_ == 0 && run.why.empty())
            stage_.lose("both", {"held " + name(who) + " at each of " + std::to_string(alone) +
                                     " instructions",
                                 name(other) + " added nothing at any of them",
                                 "the lock is held all the time: the one waits until the other has "
                                 "done all of its work",
                                 ""});
        return together_ > 0;
    }

    // `who` is held where the other cannot go on: how does that wait?
    void wait(Run& run, const Tracee* who, Tracee* other) {
        waited_ = true;
        const Waiting it = watch(run, other, 1000);
        if (!stands(other) && !run.sleeps(other)) run.tracer.hold(other);
        if (it.asleep) return stage_.earn("sleeps");
        stage_.lose(
            "sleeps",
            {"held " + name(who) + " where " + name(other) + " cannot go on, for 1 s", it.told(),
             "it asks again and again until the lock is free: a waiting process should sleep in "
             "the kernel until the other wakes it",
             "top; docs/explain ./mine 1000000"});
    }

    void run_freely() {
        const long times = some(3000, 5000);
        {
            Run run(stage_, options(times));
            run.finish();
            if (run.why.empty() && run.out() != "count " + std::to_string(2 * times) + "\n")
                stage_.lose("exact", {"ran it with " + std::to_string(times),
                                      "it printed '" + run.out().substr(0, 200) + "'", "",
                                      "./mine " + std::to_string(times)});
            if (!run.why.empty())
                stage_.lose("exact", {"ran it with " + std::to_string(times), run.why, "",
                                      "./mine " + std::to_string(times)});
        }
        stage_.clear();
    }

    Stage& stage_;
    bool found_ = false, waited_ = false;
    int together_ = 0;               // how often the one counted while the other was held
    size_t offset_ = 0;              // of the count in the object
    std::map<int, uint64_t> begin_;  // of the object in each process, by its number
};

inline Lab updates_lab() {
    return {3,
            "3-lost-updates",
            "lost updates: load, change and store are three steps",
            60,
            {"docs/labs/3-lost-updates/ours.cc"},
            {{"builds", 1, "it builds"},
             {"result", 2, "it prints 'count' and twice the argument when nobody disturbs anybody"},
             {"shared", 2, "there is one count, in an object that both processes share"},
             {"object", 2, "what it prints is what the object holds"},
             {"both", 2, "both count at the same time, each adds 1 at a time"},
             {"exact", 7, "nothing is lost, whoever is held at whatever instruction"},
             {"sleeps", 2, "who has to wait sleeps"},
             {"failure", 1, "a child that was killed is reported, with a status that is not 0"},
             {"left", 1, "nothing is left"}},
            [](Stage& stage) { Updates(stage).grade(); }};
}
