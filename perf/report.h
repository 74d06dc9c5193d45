// What was measured, and how it is shown.

#pragma once

#include <stddef.h>
#include <stdio.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "statistics.h"

// One measured thing: samples of it, by round. A verdict compares it with the first mechanism of
// its table.
struct Series {
    std::string table, measure, mechanism;
    size_t bytes = 0;
    std::string unit = "ns";        // or "faults", "part"
    long repetitions = 1;           // in each sample, which is the mean of them
    std::vector<double> real = {};  // in that unit
    std::vector<double> cpu = {};   // the same in processor time, where that was measured
    std::optional<Verdict> verdict = {};
    std::string note = {};     // the setting that it depends on
    std::string problem = {};  // why there are no samples; "": there are
};

struct Report {
    std::vector<std::pair<std::string, std::string>> machine;  // what, and what it is here
    std::vector<Series> series;
    bool full = false;

    // Those of one measure, in the order of their measuring.
    std::vector<const Series*> of(const std::string& table, const std::string& measure) const;
};

// The tables.
inline const char kLives[] = "life", kHuge[] = "huge pages", kMessages[] = "messages";
std::string old_table(long count);  // of the old tutorial, by its number of repetitions

std::string size_name(size_t bytes);  // 64k

// This machine; `directory` is that of the file.
std::vector<std::pair<std::string, std::string>> machine(const std::string& directory);

void print_tables(const Report& report, FILE* out);
void print_csv(const Report& report, FILE* out);
void print_svg(const Report& report, FILE* out);
