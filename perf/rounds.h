// Measuring: one life of a piece of memory in stages, and rounds in which each kind of memory lives
// once, so that what drifts or depends on luck falls on all of them alike.

#pragma once

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <functional>

#include "loops.h"
#include "statistics.h"

enum Stage { kMake, kReserve, kMap, kTouch, kCollapse, kReady, kSync, kGiveBack, kStages };
inline const char* const kStage[kStages] = {"make",     "reserve", "map",   "first touch",
                                            "collapse", "ready",   "msync", "give back"};

// Time that passed, and processor time of it; ns.
struct Took {
    double ns = 0, cpu = 0;
};

struct Life {
    Took stage[kStages], loop[kLoops];     // kReady: all before it; of one repetition of a loop
    long minor = 0, major = 0, later = 0;  // faults at the first touch; faults after it
    double huge = 0;                       // which part lies in huge pages
    std::string problem;                   // "": none
};

inline double now(clockid_t clock = CLOCK_MONOTONIC) {
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

template <class Act>
Took timed(Act act) {
    const double start = now(), cpu = now(CLOCK_THREAD_CPUTIME_ID);
    act();
    return {now() - start, now(CLOCK_THREAD_CPUTIME_ID) - cpu};
}

// One line of a comparison: a kind of memory, and how much more than its share it works, though
// that is not counted: a planted difference.
struct Entry {
    Kind kind;
    double work = 1;
};

inline Life live(const Entry& entry, size_t bytes, const std::vector<Loop>& loops,
                 long repetitions) {
    Life life;
    Memory memory = {entry.kind, bytes};
    const size_t page = static_cast<size_t>(getpagesize());
    const auto step = [&](Stage stage, auto act) {
        if (life.problem.empty()) life.stage[stage] = timed([&] { life.problem = act(memory); });
    };
    step(kMake, make);
    step(kReserve, reserve);
    step(kMap, map);
    if (memory.at && life.problem.empty()) {
        rusage before, touched, after;
        getrusage(RUSAGE_SELF, &before);
        life.stage[kTouch] = timed([&] {
            volatile char* const data = static_cast<char*>(memory.at);
            for (size_t i = 0; i < bytes && !stopped; i += page) data[i] = 1;
        });
        getrusage(RUSAGE_SELF, &touched);
        step(kCollapse, collapse);
        for (Stage stage : {kMake, kReserve, kMap, kTouch, kCollapse}) {
            life.stage[kReady].ns += life.stage[stage].ns;
            life.stage[kReady].cpu += life.stage[stage].cpu;
        }
        // Fills the caches. A large one takes several passes: with one, what is measured first took
        // up to twice as long as the same a few passes later.
        run_loop(kSet, memory.at, bytes, 8);
        for (Loop loop : loops) {
            run_loop(loop, memory.at, bytes, 1);  // not counted: it finds what another loop left
            const double n = static_cast<double>(repetitions);
            const Took all =
                timed([&] { run_loop(loop, memory.at, bytes, lround(n * entry.work)); });
            life.loop[loop] = {all.ns / n, all.cpu / n};
        }
        getrusage(RUSAGE_SELF, &after);
        life.minor = touched.ru_minflt - before.ru_minflt;
        life.major = touched.ru_majflt - before.ru_majflt;
        life.later = after.ru_minflt + after.ru_majflt - touched.ru_minflt - touched.ru_majflt;
        if (loops.size() > 1) life.huge = huge_part(memory);
        if (loops.size() > 1 && entry.kind.mechanism == kFile)
            life.stage[kSync] = timed([&] { msync(memory.at, bytes, MS_SYNC); });
        life.stage[kSync].cpu = life.stage[kSync].ns;  // it waits for the disk
    }
    life.stage[kGiveBack] = timed([&] { give_back(memory); });
    return life;
}

struct Rounds {
    long repetitions = 0;                  // in each round
    std::vector<std::vector<Life>> lives;  // [entry][round]
    std::vector<std::string> problem;      // [entry]

    // How many times the processor time of the first entry another took, round by round. Not the
    // time that passed: waiting for a turn on a busy machine is not the memory's doing.
    template <class Figure>
    std::vector<double> ratios(size_t entry, Figure figure) const {
        std::vector<double> all;
        for (size_t r = 0; r < lives[entry].size(); ++r)
            all.push_back(figure(lives[entry][r]).cpu / figure(lives[0][r]).cpu);
        return all;
    }
};

// What to measure, and for how long. Together the rounds repeat about `wanted` times.
struct Plan {
    std::vector<Entry> entries;
    size_t bytes;
    std::vector<Loop> loops;
    long wanted, rounds;
    double seconds;  // repetitions are chosen so that the rounds take as long on a quiet machine
    double bound;    // no round begins after so many seconds
    long least = 1;  // repetitions in each round
    std::function<bool(const Rounds&)> enough = [](const Rounds&) { return true; };
};

// Rounds for a verdict on one of a hundred comparisons, and some to lose.
constexpr double kFewRounds = 16;

// At least `rounds` rounds, and more until it is `enough`, within `bound`. In each every entry
// lives once; the order rotates, and runs backwards every other time, so that none always has the
// same predecessor and the frames that it left.
inline Rounds measure(const Plan& plan) {
    const double end = now() + plan.bound * 1e9;
    const std::vector<Entry>& entries = plan.entries;
    Rounds result;
    result.lives.resize(entries.size());
    result.problem.resize(entries.size());
    // A round that does not count finds what fails and how many repetitions there is time for.
    double each = 0, once = 0;
    for (size_t e = 0; e < entries.size() && !stopped; ++e) {
        Life life;
        once += timed([&] { life = live(entries[e], plan.bytes, plan.loops, 1); }).cpu;
        result.problem[e] = life.problem;
        for (Loop loop : plan.loops) each += life.loop[loop].cpu;
    }
    const auto room = [&](double rounds) { return (plan.seconds * 1e9 / rounds - once) / each; };
    // Where there is no time for all rounds, fewer with surer ratios tell more: if a life and a
    // repetition add as much to the spread, it is least at this root [Cochran, two stages].
    const double surer = std::min(sqrt(once / each), room(kFewRounds));
    const double most = static_cast<double>(std::max(plan.least, plan.wanted / plan.rounds));
    const double least = static_cast<double>(plan.least);
    result.repetitions =
        lround(std::clamp(std::max(surer, room(static_cast<double>(plan.rounds))), least, most));
    for (long r = 0; !stopped && (r == 0 || now() < end); ++r) {
        if (r >= plan.rounds && plan.enough(result)) break;
        std::vector<Life> round(entries.size());
        for (size_t i = 0; i < entries.size() && !stopped; ++i) {
            size_t e = (i + static_cast<size_t>(r) / 2) % entries.size();
            if (r % 2) e = entries.size() - 1 - e;
            if (!result.problem[e].empty()) continue;
            round[e] = live(entries[e], plan.bytes, plan.loops, result.repetitions);
            result.problem[e] = round[e].problem;
        }
        if (stopped) break;
        for (size_t e = 0; e < entries.size(); ++e) result.lives[e].push_back(round[e]);
    }
    return result;
}
