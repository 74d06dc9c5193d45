// Lab 8, ours. Two ways were timed by turns; each line has the two times of one round. Does the
// second way take longer than the first, or can these rounds not tell?
//
//     g++ -o ours ours.cc && ./ours < recorded.txt

#include <err.h>
#include <math.h>
#include <stdio.h>

#include <algorithm>
#include <vector>

// Of all experiments, the interval of at most this part does not hold the true ratio.
constexpr double kError = 0.05;

int main() {
    // Of each round the ratio: a machine that is slow for a while is slow for both ways.
    std::vector<double> ratio;
    double first, second;
    int read;
    while ((read = scanf("%lf %lf", &first, &second)) == 2 && first > 0 && second > 0)
        ratio.push_back(second / first);
    if (read != EOF || ratio.empty())
        errx(1, "round %zu: two times are wanted, more than 0", ratio.size() + 1);
    std::sort(ratio.begin(), ratio.end());
    const size_t rounds = ratio.size();

    // A ratio is below the true median with probability 1/2, whatever the distribution, as a coin
    // shows heads. So the k-th smallest and the k-th largest have the median between them, unless
    // fewer than k coins of all show heads, or fewer than k tails. The largest k for which that is
    // improbable enough:
    size_t k = 0;
    double fewer = 0;  // probability of at most k heads
    for (; k < rounds / 2; ++k) {
        const double n = static_cast<double>(rounds), i = static_cast<double>(k);
        fewer += exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * log(2));
        if (2 * fewer > kError) break;
    }
    // Up to 5 rounds there is none: all coins alike are no surprise.
    const double low = k == 0 ? 0 : ratio[k - 1];
    const double high = k == 0 ? INFINITY : ratio[rounds - k];

    const double median = (ratio[(rounds - 1) / 2] + ratio[rounds / 2]) / 2;
    printf("ratio %.4f from %.4f to %.4f: %s\n", median, low, high,
           low > 1    ? "slower"
           : high < 1 ? "faster"
                      : "cannot tell");
    return fflush(stdout) == 0 ? 0 : 1;
}
