// What was measured, and how it is shown.

#pragma once

#include <stddef.h>
#include <stdio.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "statistics.h"

// One measured thing: samples of it, by round.
struct Series {
    std::string measure, mechanism;
    size_t bytes = 0;
    std::string unit;               // "ns", or "faults"
    long repetitions = 1;           // in each sample, which is the mean of them
    std::vector<double> real = {};  // in that unit
    std::vector<double> cpu = {};   // the same in processor time, where that was measured
    std::optional<Verdict> verdict = {};
    std::string problem = {};  // why there are no samples; "": there are
};

struct Report {
    std::string program, date;
    std::vector<std::pair<std::string, std::string>> machine;  // what, and what it is here
    std::vector<long> counts;                                  // the old tutorial's repetitions
    std::vector<Series> series;
    bool full = false;

    // Those of one measure, in the order of their measuring.
    std::vector<const Series*> of(const std::string& measure) const {
        std::vector<const Series*> found;
        for (const Series& one : series)
            if (one.measure == measure) found.push_back(&one);
        return found;
    }
    // The median of a measure of the mechanism and size of `like`; 0: it was not measured.
    double middle(const std::string& measure, const Series& like) const;
    double ready(const Series& like) const;  // ns until every page is there
};

// The stages until every page is there.
inline const char* const kUntilReady[] = {"make", "reserve", "map", "first touch"};

std::string size_name(size_t bytes);  // 64k
std::string thousands(long number);   // 100,000
std::string table_measure(long count);

// This machine; `directory` is that of the file.
std::vector<std::pair<std::string, std::string>> machine(const std::string& directory);

void print_tables(const Report& report, FILE* out);
void print_csv(const Report& report, FILE* out);
void print_json(const Report& report, FILE* out);  // Google Benchmark's layout
void print_svg(const Report& report, FILE* out);
