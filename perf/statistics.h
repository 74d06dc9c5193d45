// Medians, how sure they are, and the verdict in words. Nothing here supposes a normal
// distribution: times have a floor and a long tail.

#pragma once

#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

// Of all comparisons of one report together, at most this part may be wrong.
constexpr double kError = 0.05;
// Smaller differences are nobody's concern: called different is what surely differs by more.
constexpr double kLeastEffect = 0.01;
// A median known less well than this is not called the same.
constexpr double kUnclear = 0.10;

// The smallest sample that has at least the part `q` of all at or below it. Not of an empty sample.
inline double quantile(std::vector<double> sample, double q) {
    std::sort(sample.begin(), sample.end());
    const double rank = ceil(q * static_cast<double>(sample.size()));
    return sample[rank < 1 ? 0 : static_cast<size_t>(rank) - 1];
}

inline double median(const std::vector<double>& sample) {
    std::vector<double> negative;
    for (double x : sample) negative.push_back(-x);
    return (quantile(sample, 0.5) - quantile(negative, 0.5)) / 2;  // the middle one or two
}

struct Interval {
    double low, high;
};

// An interval that holds the true median but for a probability of `error`. Each sample lies below
// the median with probability 1/2, so the number that do is binomial, whatever the distribution:
// the k-th smallest and the k-th largest enclose the median unless fewer than k lie on one side.
// None if the samples are too few for any interval.
inline std::optional<Interval> interval(std::vector<double> sample, double error) {
    std::sort(sample.begin(), sample.end());
    const double n = static_cast<double>(sample.size());
    double below = 0;  // P(fewer than k on one side)
    size_t k = 0;
    for (; k < sample.size() / 2; ++k) {
        const double i = static_cast<double>(k);
        below += exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * log(2));
        if (2 * below > error) break;
    }
    if (k == 0) return std::nullopt;
    return Interval{sample[k - 1], sample[sample.size() - k]};
}

struct Verdict {
    double ratio = 0;
    std::optional<Interval> range;
    bool differs = false;
    std::string words;
};

// Judges the ratios of all rounds, as one of `comparisons` in a report (Bonferroni's correction:
// each gets its part of kError).
inline Verdict judge(const std::vector<double>& ratios, size_t comparisons) {
    Verdict verdict;
    if (!ratios.empty()) verdict.ratio = median(ratios);
    verdict.range = interval(ratios, kError / static_cast<double>(comparisons));
    if (!verdict.range) {
        verdict.words = "too few rounds";
        return verdict;
    }
    const double effect = verdict.ratio - 1;
    double from = verdict.range->low - 1, to = verdict.range->high - 1;
    verdict.differs = from > kLeastEffect || to < -kLeastEffect;
    if (!verdict.differs) {
        verdict.words = from >= -kUnclear && to <= kUnclear ? "same" : "unclear";
        return verdict;
    }
    if (effect < 0) std::swap(from, to);
    char text[80];
    snprintf(text, sizeof text, "%s by %.0f %% (%.0f to %.0f)", effect > 0 ? "slower" : "faster",
             fabs(effect) * 100, fabs(from) * 100, fabs(to) * 100);
    verdict.words = text;
    return verdict;
}
