// Lab 3: lost updates. Load, change and store are three steps.

#pragma once

#include "lab.h"
#include "schedule.h"

class Updates {
  public:
    explicit Updates(Stage& stage) : stage_(stage) {}

    void grade() {
        report_a_failed_child();
        if (!count_one_after_the_other()) return;
        print_what_the_object_holds();
        if (!hold_at_the_first()) return;
        hold_everywhere();
        run_freely();
    }

  protected:
    static constexpr long kEndless = 1000000000;  // we end it before
    static constexpr char kBothLoad[] =
        "on two processors both can load the same number at the same time: one of the two "
        "additions is lost";
    static Run::Options options(long times) {
        Run::Options with;
        with.arguments = {std::to_string(times)};
        with.limits.seconds = 300;
        // Beside other work it counts on for long until we get the processor and can hold it.
        if (times == kEndless) with.limits.processor = 300;
        return with;
    }

    // Where words with this value lie: in which object, and how far behind its begin.
    using Place = std::pair<size_t, uint64_t>;
    static std::set<Place> words_with(Run& run, long value) {
        std::set<Place> all;
        const Tracee* who = run.parent()->ended ? run.child() : run.parent();
        const std::vector<Mapping> objects = common(run, who);
        for (size_t i = 0; i < objects.size(); ++i) {
            const std::string bytes =
                run.tracer.memory(who, objects[i].begin,
                                  std::min<uint64_t>(objects[i].end - objects[i].begin, 1 << 20));
            for (size_t at = 0; at + sizeof(int32_t) <= bytes.size(); at += sizeof(int32_t)) {
                int32_t word;
                memcpy(&word, bytes.data() + at, sizeof word);
                if (word == value) all.insert({i, at});
            }
        }
        return all;
    }

    // The count, as the parent sees it.
    long count(Run& run) {
        if (address_ == 0) {
            const std::vector<Mapping> objects = common(run, run.parent());
            if (place_.first < objects.size())
                address_ = objects[place_.first].begin + place_.second;
        }
        const std::string bytes = run.tracer.memory(run.parent(), address_, sizeof(int32_t));
        int32_t word = 0;
        memcpy(&word, bytes.data(), bytes.size());
        return word;
    }

    // First the one runs as far as it comes, then the other: so nobody disturbs anybody. Who takes
    // turns with the other comes as far as one addition. `look` after each part, and before each
    // later call of the parent, which may unmap the object.
    static void one_after_the_other(Run& run, const std::function<void()>& look) {
        for (int round = 0, idle = 0; idle < 6 && run.why.empty() && !run.child()->ended; ++round) {
            const std::string before = common_bytes(run);
            for (Tracee* who : {run.parent(), run.child()}) {
                as_far_as_it_comes(run, who, round == 0);
                look();
                if (in_exit(who)) run.go_on(who);
            }
            idle = common_bytes(run) == before ? idle + 1 : 0;
        }
        run.release();
        for (Event event; (event = run.next()).what != Event::over; run.go_on(event.who))
            if (event.what == Event::enters) look();
    }
    // To its exit, to where it sleeps, or until it has tried for a while and changed nothing.
    static void as_far_as_it_comes(Run& run, Tracee* who, bool first) {
        std::string bytes;
        long since = 0;
        int calls = 0;
        go_until(run, who, 3000000, [&] {
            std::string now = common_bytes(run);
            if (since == 0 || now != bytes) {
                bytes = std::move(now);
                since = processor(who);
                calls = who->calls;
            }
            return in_exit(who) || processor(who) - since > (first ? 100000 : 1000) ||
                   who->calls - calls > (first ? 100 : 4);
        });
    }
    static bool in_exit(const Tracee* who) {
        return stands(who) && who->in_call && who->call == SYS_exit_group;
    }

    // Builds, counts, shares; finds where the count lies.
    bool count_one_after_the_other() {
        // Not many: who takes turns and spins uses the processor at each until we can hold it.
        const long times = some(40, 80);
        std::set<Place> half, whole;
        address_ = 0;
        {
            Run run(stage_, options(times));
            const bool forked = fork_child(run);
            const auto look = [&] {
                half.merge(words_with(run, times));
                whole.merge(words_with(run, 2 * times));
            };
            if (forked) one_after_the_other(run, look);
            run.finish();
            const std::string wanted = "count " + std::to_string(2 * times) + "\n";
            const std::string did = "ran it with " + std::to_string(times) +
                                    ", first the one process to its end, then the other";
            const bool right = run.why.empty() && run.status() == 0 && run.out() == wanted;
            if (right)
                stage_.earn("result");
            else
                stage_.lose("result",
                            {did, run.seen(),
                             "asked for is the line '" + wanted.substr(0, wanted.size() - 1) +
                                 "' and status 0: both add, nothing disturbs them",
                             "PROGRAM " + std::to_string(times)});
            for (const Place& it : half) {
                if (!whole.count(it)) continue;
                found_ = true;
                place_ = it;
            }
            if (!forked)
                not_shared("it forked no child: there must be two who count");
            else if (run.common_objects().empty())
                not_shared(
                    "no object is mapped shared and writable in both processes: each counts in "
                    "memory of its own");
            else if (!found_ && !run.why.empty())
                stage_.not_shown({"shared"}, run.why);
            else if (!found_)
                not_shared("no number in the shared object went to " + std::to_string(times) +
                           " and then to " + std::to_string(2 * times) +
                           ": the count does not lie in the object, or there are several");
            else
                stage_.earn("shared");
            if (!found_)
                stage_.not_shown({"result", "object", "both", "exact", "sleeps"},
                                 run.why.empty() ? "there is no shared count" : run.why);
            check_left(stage_, run);
        }
        stage_.clear();
        return found_;
    }

    void not_shared(const std::string& saw) {
        stage_.lose("shared",
                    {"looked at the shared mappings of both processes while each counted", saw,
                     "a child's changes stay in its own memory unless the mapping is MAP_SHARED "
                     "and made before the fork",
                     "grep ' ..-s ' /proc/PID/maps"});
    }

    void print_what_the_object_holds() {
        // Even: who takes turns may go by whether the count is.
        const long times = some(40, 80), more = 2 * some(10000, 40000);
        {
            Run run(stage_, options(times));
            bool changed = false;
            if (fork_child(run)) {
                address_ = 0;
                one_after_the_other(run, [&] {
                    if (changed || run.parent()->ended || count(run) != times) return;
                    const uint32_t value = static_cast<uint32_t>(times + more);
                    changed = run.tracer.set_memory(
                        run.parent(), address_,
                        std::string(reinterpret_cast<const char*>(&value), sizeof value));
                });
            }
            run.finish();
            const std::string wanted = "count " + std::to_string(2 * times + more) + "\n";
            if (run.out() == wanted)
                stage_.earn("object");
            else
                stage_.lose(
                    "object",
                    {"ran it with " + std::to_string(times) + " and, when one had counted, added " +
                         std::to_string(more) + " to the count in the object",
                     "asked for is " + std::to_string(2 * times + more) + "; " + run.seen(),
                     "what is printed, or stored, does not come from the object: "
                     "it was computed, or kept in a variable of one process",
                     ""});
        }
        stage_.clear();
    }

    // It is killed when it has done its work and ends: so nobody waits for it but to learn that.
    void report_a_failed_child() {
        {
            Run run(stage_, options(some(100, 200)));
            const Event end = run.until([&](const Event& event) {
                return event.what == Event::enters && event.who == run.child() &&
                       event.who->call == SYS_exit_group;
            });
            if (end.what != Event::over)
                run.tracer.send(end.who, SIGKILL);
            else if (!run.why.empty())
                stage_.not_shown({"failure"}, run.why);
            run.finish();
            if (run.why.empty() && run.status() != 0 && run.out().empty())
                stage_.earn("failure");
            else
                stage_.lose(
                    "failure",
                    {"killed the child at its end", run.seen(),
                     "what it counted may be wrong, and nobody is told: the status of waitpid(2) "
                     "says how the child ended",
                     "PROGRAM 1000000000 & sleep 1; kill -9 $(pgrep -P $!); wait"});
        }
        stage_.clear();
    }

    // What one step of one process must do to the count while the other does not move: nothing, or
    // add 1. False if an update is lost. `open`: the other could count just before that step.
    bool right_change(const Tracee* who, long before, long after, bool open, bool atomic) {
        const std::string it = name(who),
                          change = std::to_string(before) + " to " + std::to_string(after);
        if (after > before + 1)
            stage_.lose(
                "both",
                {"looked at the count after each instruction",
                 it + " changed it from " + change + " at once",
                 "each is to add 1 at a time: an optimiser joins additions if nothing keeps them "
                 "apart, and who adds all at the end does not share the work",
                 ""});
        if (after < before)
            stage_.lose("exact",
                        {"held " + it + " after each instruction and let the other count on",
                         "when " + it + " went on, it changed the count from " + change,
                         "it had loaded the count before, and stored what it had loaded, plus 1: "
                         "what the other had added meanwhile is lost",
                         "PROGRAM 100000000"});
        else if (after != before && open && !atomic)
            stage_.lose("exact", {"held " + it + " just before the instruction that adds",
                                  "the other counted on, so no lock is held; and the instruction "
                                  "is not an atomic one",
                                  kBothLoad, "PROGRAM 100000000"});
        else
            return true;
        stage_.earn("both");  // as it has shown
        return false;
    }

    // Whether the next instruction is one step for the other processors, too. Only x86 has others
    // that add to memory: those without the lock prefix.
    static bool is_atomic([[maybe_unused]] const Run& run, [[maybe_unused]] const Tracee* who) {
#if defined __x86_64__
        for (const char c : run.tracer.memory(who, next_instruction(who), 4)) {
            if (c == '\xf0') return true;
            if (strchr("\x66\xf2\xf3\x2e\x36\x3e\x26\x64\x65\x67", c) == nullptr) return false;
        }
        return false;
#else
        return true;
#endif
    }

    // Each instruction between two changes of one process is a moment at which the other may count.
    void hold_everywhere() {
        {
            Run run(stage_, options(kEndless));
            if (!fork_child(run)) return;
            address_ = 0;
            // Each in turn as far as its next changes; one that is held with the lock keeps the
            // other back, but where it is held differs: in 20 rounds a lock of one process shows.
            bool counts[2] = {false, false};
            for (int round = 0; round < (counts[0] && counts[1] ? 20 : 40) && !run.child()->ended;
                 ++round)
                for (Tracee* who : {run.parent(), run.child()}) {
                    const long before = count(run);
                    if (who->ended) continue;
                    go_until(run, who, counts[who->number] ? 3000 : 500000,
                             [&] { return count(run) > before + 1; });
                    if (count(run) > before) counts[who->number] = true;
                    if (is_never_woken(run, who)) return;
                    // Else what the other has loaded would look like many additions at once.
                    const long now = count(run);
                    if (now < before && !run.parent()->ended) {
                        right_change(who, before, now, false, true);
                        stage_.earn("sleeps");
                        return;
                    }
                }
            for (const Tracee* who : {run.parent(), run.child()})
                if (!counts[who->number] && run.why.empty())
                    stage_.lose("both", {"held " + other(who) + " after its first changes",
                                         name(who) + " added nothing",
                                         "the one waits until the other has done all of its work: "
                                         "nothing is shared but the result",
                                         ""});
            if (!counts[0] || !counts[1] ||
                (tour(run, run.parent(), run.child()) && tour(run, run.child(), run.parent())))
                end_well(run);
            if (together_ > 0)
                stage_.earn("both");
            else if (!stage_.met("both"))
                stage_.not_shown({"both"}, run.why.empty() ? "it had ended by then" : run.why);
            if (!waited_) stage_.earn("sleeps");
            run.tracer.kill_all();
            run.finish();
        }
        stage_.clear();
    }

    // The parent stands just behind its first change, where it must still have a lock, unless that
    // was one step. The child begins now: it makes its lock, if it makes one, and may not count; a
    // lock of one process shows when it waits. What two owners of one lock do after that, count on
    // or abort, is chance [glibc: lll_mutex_lock_optimized]. False: there is no more to see.
    bool hold_at_the_first() {
        bool more = true;
        {
            Run run(stage_, options(kEndless));
            if (!fork_child(run)) return true;
            address_ = 0;
            const long before = count(run);
            bool atomic = true;
            Went went = Went::there;
            for (int steps = 0; went == Went::there && steps < 30000 && count(run) == before;
                 ++steps) {
                atomic = is_atomic(run, run.parent());
                went = step(run, run.parent());
            }
            const long after = count(run);
            if (went == Went::there && after != before && !atomic) {
                go_until(run, run.child(), 500000, [&] { return count(run) > after + 1; });
                if (count(run) > after + 1) {
                    stage_.lose(
                        "exact",
                        {"held the parent just behind its first addition, and let the child begin",
                         "the child counted on, so no lock is held, or each makes its own; and "
                         "the instruction is not an atomic one",
                         std::string(kBothLoad) + ". A lock is made once, before the fork",
                         "PROGRAM 100000000"});
                    if (after == before + 1) {
                        stage_.earn("both");  // as it has shown
                        stage_.earn("sleeps");
                        more = false;
                    }
                } else {
                    more = !is_never_woken(run, run.child());
                }
            }
            run.tracer.kill_all();
            run.finish();
        }
        stage_.clear();
        return more;
    }

    static std::string other(const Tracee* who) {
        return who->number == 0 ? "the child" : "the parent";
    }

    bool is_never_woken(Run& run, const Tracee* who) {
        if (!never_woken(run, who)) return false;
        stage_.lose("sleeps", {"held " + other(who) + " where " + name(who) + " cannot go on",
                               name(who) + " sleeps in futex(FUTEX_PRIVATE_FLAG)", kNeverWoken,
                               "docs/explain PROGRAM 1000"});
        stage_.earn("both");
        stage_.earn("exact");
        return true;
    }

    // Nothing was lost: unless it came to no end.
    void end_well(const Run& run) {
        if (run.why.rfind("it does not end", 0) == 0)
            stage_.lose("sleeps",
                        {"let both count at the same time", run.why,
                         "a process sleeps and is not woken", "docs/explain PROGRAM 1000"});
        else if (!run.why.empty())
            stage_.lose("exact", {"let both count at the same time", run.why, "", ""});
        stage_.earn("exact");
    }

    // One process makes three changes, instruction by instruction; after each the other goes on as
    // far as it comes.
    bool tour(Run& run, Tracee* who, Tracee* other) {
        int changes = 0, alone = 0, steps = 0;
        bool open = false, once = false;
        Went how = Went::there;
        std::string seen;
        for (; changes < 3 && steps < 1500 && run.why.empty(); ++steps) {
            long before = count(run);
            const bool atomic = stands(who) && is_atomic(run, who);
            const Went went = step(run, who);
            if (went == Went::ended) return true;
            if (went == Went::sleeps) {  // it waits for the other
                go_until(run, other, 500000, [&] { return stands(who); });
                if (!stands(who)) step(run, who);
                continue;
            }
            long after = count(run);
            if (!right_change(who, before, after, open, atomic)) return false;
            changes += after != before;
            before = after;
            // Who turns sees nothing new as long as the bytes are the same.
            if (how == Went::turns && common_bytes(run) == seen) continue;
            how = go_until(run, other, 3000, [&] { return count(run) > before + 1; });
            if (run.parent()->ended || !run.why.empty()) return true;  // there is no count to see
            seen = common_bytes(run);
            if (is_never_woken(run, other)) return false;
            after = count(run);
            if (after < before) return right_change(other, before, after, false, true);
            // It added more than once: `who` has nothing that it waits for.
            open = how == Went::there;
            (open ? together_ : alone) += 1;
            once = once || (after > before && !open);
            if (after == before && how != Went::ended && !waited_) wait(run, who, other);
        }
        if (together_ == 0 && run.why.empty())
            stage_.lose("both", {"held " + name(who) + " at each of " + std::to_string(alone) +
                                     " instructions",
                                 name(other) + (once ? " added 1 at some, and more at none of them"
                                                     : " added nothing at any of them"),
                                 once ? "they take turns: each waits for the other after each "
                                        "addition; asked for is that each adds when it comes to it"
                                      : "the lock is held all the time, or all is added at once: "
                                        "the one waits until the other has done all of its work",
                                 ""});
        return true;
    }

    // `who` is held where the other cannot go on: how does that wait?
    void wait(Run& run, const Tracee* who, Tracee* other) {
        waited_ = true;
        const Waiting it = watch(run, other, 1000);
        hold(run, other);
        if (it.asleep) return stage_.earn("sleeps");
        stage_.lose(
            "sleeps",
            {"held " + name(who) + " where " + name(other) + " cannot go on, for 1 s",
             it.told(other),
             "it asks again and again until the lock is free: a waiting process should sleep in "
             "the kernel until the other wakes it",
             "top; docs/explain PROGRAM 1000000"});
    }

    void run_freely() {
        const long times = some(100, 200);
        {
            Run run(stage_, options(times));
            run.finish();
            if (stage_.met("result") && run.why.empty() &&
                run.out() != "count " + std::to_string(2 * times) + "\n")
                stage_.lose("exact", {"ran it with " + std::to_string(times), run.seen(), "",
                                      "PROGRAM " + std::to_string(times)});
            end_well(run);
        }
        stage_.clear();
    }

    Stage& stage_;
    bool found_ = false, waited_ = false;
    int together_ = 0;      // how often the one counted while the other was held
    Place place_;           // of the count
    uint64_t address_ = 0;  // in the parent of this run; 0: not looked for yet
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
