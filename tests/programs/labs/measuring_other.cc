// Lab 8 otherwise than ours. Right: 0, resampling; 1, Wilcoxon's test turned into an interval.
// Wrong: 2, the mean and two standard errors; 3, each way's interval alone.

#include <err.h>
#include <math.h>
#include <stdio.h>

#include <algorithm>
#include <random>
#include <vector>

#define WAY 0

using Sample = std::vector<double>;

static double median(Sample sample) {
    std::sort(sample.begin(), sample.end());
    return (sample[(sample.size() - 1) / 2] + sample[sample.size() / 2]) / 2;
}

int main() {
    Sample ratio, firsts, seconds;
    double first, second;
    int read;
    while ((read = scanf("%lf %lf", &first, &second)) == 2 && first > 0 && second > 0) {
        ratio.push_back(second / first);
        firsts.push_back(first);
        seconds.push_back(second);
    }
    if (read != EOF || ratio.empty()) errx(1, "not two times");
    const size_t rounds = ratio.size();
    const double n = static_cast<double>(rounds);
    double middle = median(ratio), low = 0, high = INFINITY;
    if (rounds >= 6 && WAY == 0) {
        std::mt19937 random;
        Sample medians;
        for (int i = 0; i < 2000; ++i) {
            Sample again;
            for (size_t j = 0; j < rounds; ++j) again.push_back(ratio[random() % rounds]);
            medians.push_back(median(again));
        }
        std::sort(medians.begin(), medians.end());
        low = medians[50];
        high = medians[1949];
    } else if (rounds >= 6 && WAY == 1) {
        Sample means;
        for (size_t i = 0; i < rounds; ++i)
            for (size_t j = i; j < rounds; ++j) means.push_back(sqrt(ratio[i] * ratio[j]));
        std::sort(means.begin(), means.end());
        middle = median(means);
        const double k = n * (n + 1) / 4 - 1.96 * sqrt(n * (n + 1) * (2 * n + 1) / 24);
        low = means[static_cast<size_t>(k)];
        high = means[means.size() - 1 - static_cast<size_t>(k)];
    } else if (rounds >= 6 && WAY == 2) {
        double sum = 0, squares = 0;
        for (double x : ratio) sum += x;
        middle = sum / n;
        for (double x : ratio) squares += (x - middle) * (x - middle);
        low = middle - 2 * sqrt(squares / (n - 1) / n);
        high = middle + 2 * sqrt(squares / (n - 1) / n);
    } else if (rounds >= 6 && WAY == 3) {
        std::sort(firsts.begin(), firsts.end());
        std::sort(seconds.begin(), seconds.end());
        const size_t k = static_cast<size_t>(n / 2 - sqrt(n) * 0.98);
        middle = median(seconds) / median(firsts);
        low = seconds[k] / firsts[rounds - 1 - k];
        high = seconds[rounds - 1 - k] / firsts[k];
    }
    printf("ratio %.4f from %.4f to %.4f: %s\n", middle, low, high,
           low > 1    ? "slower"
           : high < 1 ? "faster"
                      : "cannot tell");
}
