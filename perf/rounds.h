// Measuring: one life of a piece of memory in stages, and rounds in which each kind of memory lives
// once, so that what drifts or depends on luck falls on all of them alike.

#pragma once

#include <math.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "memory.h"

enum Stage { kMake, kReserve, kMap, kTouch, kBoth, kWrite, kRead, kSync, kUnmap, kRemove, kStages };
inline const char* const kStage[kStages] = {"make",       "reserve", "map",  "first touch",
                                            "write+read", "write",   "read", "msync",
                                            "unmap",      "remove"};

struct Life {
    double ns[kStages] = {};               // kBoth, kWrite, kRead: of one repetition
    double cpu = 0;                        // ns of processor time of one repetition of kBoth
    long minor = 0, major = 0, later = 0;  // faults at the first touch; faults after it
    std::string problem;                   // "": none
};

inline double now(clockid_t clock = CLOCK_MONOTONIC) {
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

template <class Act>
double timed(Act act) {
    const double start = now();
    act();
    return now() - start;
}

// The one loop that all figures come from. volatile: the compiler may neither leave out nor join
// any of the stores and loads. Not inlined: the same instructions, whatever the memory.
__attribute__((noinline)) inline void sweep(volatile int* data, size_t count, long repetitions,
                                            bool write, bool read) {
    for (long r = 0; r < repetitions && !stopped; ++r) {
        for (size_t i = 0; write && i < count; ++i) data[i] = static_cast<int>(i);
        for (size_t i = 0; read && i < count; ++i) static_cast<void>(data[i]);
    }
}

// One life. `work` times the repetitions are done, though not counted: a planted difference.
inline Life live(Kind kind, size_t bytes, long repetitions, bool stages, double work) {
    Life life;
    Memory memory = {kind, bytes};
    const size_t count = bytes / sizeof(int), page = static_cast<size_t>(getpagesize());
    const double n = static_cast<double>(repetitions);
    const auto step = [&](Stage stage, auto act) {
        if (life.problem.empty()) life.ns[stage] = timed([&] { life.problem = act(memory); });
    };
    step(kMake, make);
    step(kReserve, reserve);
    step(kMap, map);
    if (memory.at) {
        rusage before, touched, after;
        getrusage(RUSAGE_SELF, &before);
        life.ns[kTouch] = timed([&] {
            for (size_t i = 0; i < count && !stopped; i += page / sizeof(int)) memory.at[i] = 1;
        });
        getrusage(RUSAGE_SELF, &touched);
        sweep(memory.at, count, 1, true, true);  // fills the caches
        if (stages) {
            life.ns[kWrite] = timed([&] { sweep(memory.at, count, repetitions, true, false); }) / n;
            life.ns[kRead] = timed([&] { sweep(memory.at, count, repetitions, false, true); }) / n;
        } else {
            const double cpu = now(CLOCK_THREAD_CPUTIME_ID);
            life.ns[kBoth] =
                timed([&] { sweep(memory.at, count, lround(n * work), true, true); }) / n;
            life.cpu = (now(CLOCK_THREAD_CPUTIME_ID) - cpu) / n;
        }
        getrusage(RUSAGE_SELF, &after);
        life.minor = touched.ru_minflt - before.ru_minflt;
        life.major = touched.ru_majflt - before.ru_majflt;
        life.later = after.ru_minflt + after.ru_majflt - touched.ru_minflt - touched.ru_majflt;
        if (stages && kind == kFile)
            life.ns[kSync] = timed([&] { msync(const_cast<int*>(memory.at), bytes, MS_SYNC); });
        life.ns[kUnmap] = timed([&] { unmap(memory); });
    }
    life.ns[kRemove] = timed([&] { remove(memory); });
    // Steps that this kind of memory does not have took the clock's own time only.
    if (kind == kPrivate) life.ns[kMake] = life.ns[kRemove] = 0;
    if (kind == kPrivate || kind == kSystemV) life.ns[kReserve] = 0;
    return life;
}

// One line of a comparison: a kind of memory, and how much more than its share it works.
struct Entry {
    Kind kind;
    double work = 1;
};

struct Rounds {
    long repetitions = 0;                  // in each round
    std::vector<std::vector<Life>> lives;  // [entry][round]
    std::vector<std::string> problem;      // [entry]
};

// At most `rounds` rounds in about `seconds`, which together repeat about `wanted` times. In each
// every entry lives once; the order rotates, and runs backwards every other time, so that none
// always has the same predecessor and the frames that it left. `tell` hears which part is done.
inline Rounds measure(const std::vector<Entry>& entries, size_t bytes, long wanted, long rounds,
                      double seconds, bool stages, const std::function<void(double)>& tell) {
    const double start = now(), end = start + seconds * 1e9;
    Rounds result;
    result.lives.resize(entries.size());
    result.problem.resize(entries.size());
    // A round that does not count finds what fails and how many repetitions there is time for.
    double each = 0, once = 0;
    for (size_t e = 0; e < entries.size() && !stopped; ++e) {
        Life life;
        once += timed([&] { life = live(entries[e].kind, bytes, 1, stages, 1); });
        result.problem[e] = life.problem;
        each += life.ns[kBoth] + life.ns[kWrite] + life.ns[kRead];
    }
    const double room = (seconds * 1e9 / static_cast<double>(rounds) - once) / each;
    const long most = std::max(1L, wanted / rounds);
    result.repetitions = room < 1                           ? 1
                         : room < static_cast<double>(most) ? static_cast<long>(room)
                                                            : most;
    for (long r = 0; r < rounds && !stopped && (r == 0 || now() < end); ++r) {
        std::vector<Life> round(entries.size());
        for (size_t i = 0; i < entries.size() && !stopped; ++i) {
            size_t e = (i + static_cast<size_t>(r) / 2) % entries.size();
            if (r % 2) e = entries.size() - 1 - e;
            if (!result.problem[e].empty()) continue;
            round[e] = live(entries[e].kind, bytes, result.repetitions, stages, entries[e].work);
            result.problem[e] = round[e].problem;
        }
        if (stopped) break;
        for (size_t e = 0; e < entries.size(); ++e) result.lives[e].push_back(round[e]);
        tell(std::max(static_cast<double>(r + 1) / static_cast<double>(rounds),
                      std::min(1.0, (now() - start) / (end - start))));
    }
    return result;
}

// How many times the processor time of the base an entry took, round by round. Not the time that
// passed: waiting for a turn on a busy machine is not the memory's doing.
inline std::vector<double> ratios(const Rounds& rounds, size_t entry, size_t base) {
    std::vector<double> all;
    for (size_t r = 0; r < rounds.lives[entry].size(); ++r)
        all.push_back(rounds.lives[entry][r].cpu / rounds.lives[base][r].cpu);
    return all;
}
