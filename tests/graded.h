// The grader of the labs as its tests use it: a program, or one changed in a place, and what the
// report says.

#pragma once

#include <sstream>

#include "support.h"

struct Graded {
    int points = 0, most = 0;
    std::string lost;  // the requirements that are not met, by id
    std::string report;
};

inline Graded read(const Result& result) {
    Graded it;
    it.report = result.out + result.err;
    std::istringstream lines(result.out);
    for (std::string line; std::getline(lines, line);) {
        int points = 0, most = 0;
        char id[20];
        if (line.rfind("  not graded", 0) == 0) it.lost += " not-graded";
        if (sscanf(line.c_str(), "  %d of %d  %19[^:]", &points, &most, id) != 3) continue;
        it.points += points;
        it.most += most;
        if (points < most) it.lost += (it.lost.empty() ? "" : " ") + std::string(id);
    }
    return it;
}

// The grader says nothing before its end, and a lab may take minutes beside other work.
constexpr int kGrading = 600;

// Grades a file; `extra` is added to the environment.
inline Graded grade(const std::string& lab, const std::string& file,
                    const std::map<std::string, std::string>& extra = {}) {
    return read(
        Program({root() + "/tests/grade/grade", lab, file}, root(), extra).finish(kGrading));
}

// Nothing can be graded where nobody may trace.
inline bool cannot_grade() {
    const Graded it = grade("1", root() + "/tests/programs/labs/exchange.cc");
    if (!has(it.report, "ptrace")) return false;
    skip(it.report);
    return true;
}

// A program with one place changed.
inline std::string changed(std::string text, const std::string& find, const std::string& instead) {
    INFO(find);
    const size_t at = text.find(find);
    REQUIRE(at != std::string::npos);
    return text.replace(at, find.size(), instead);
}
