// Two ways were timed by turns; each line has the two times of one round. Does the second way take
// longer than the first? Lab 8 is to find out when nobody can tell.

#include <err.h>
#include <stdio.h>

int main() {
    double first, second, all_first = 0, all_second = 0;
    int read, rounds = 0;
    while ((read = scanf("%lf %lf", &first, &second)) == 2 && first > 0 && second > 0) {
        all_first += first;
        all_second += second;
        ++rounds;
    }
    if (read != EOF || rounds == 0)
        errx(1, "round %d: two times are wanted, more than 0", rounds + 1);

    const double ratio = all_second / all_first;
    const double low = ratio, high = ratio;  // is it known so well?
    const char* word = "cannot tell";
    if (low > 1) word = "slower";
    if (high < 1) word = "faster";
    printf("ratio %.4f from %.4f to %.4f: %s\n", ratio, low, high, word);
    return 0;
}
