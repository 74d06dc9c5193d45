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
        const size_t colon = line.find(": ");
        if (sscanf(line.c_str(), "  %d of %d", &points, &most) == 2) {
            it.points += points;
            it.most += most;
        }
        if (most > 0 && points < most)
            it.lost += (it.lost.empty() ? "" : " ") + line.substr(10, colon - 10);
        if (line.rfind("  not graded", 0) == 0) it.lost += " not-graded";
    }
    return it;
}

// Grades a file; `extra` is added to the environment.
inline Graded grade(const std::string& lab, const std::string& file,
                    const std::map<std::string, std::string>& extra = {}) {
    Program grader({root() + "/tests/grade/grade", lab, file}, root(), extra);
    eventually(process_gone, std::to_string(grader.pid()), 300);  // it is silent until its end
    return read(grader.finish());
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
