// Lab 8, measuring, black box as in test_labs.cc.

#include "graded.h"

namespace {

std::string ours() { return contents(root() + "/docs/labs/8-measuring/ours.cc"); }
std::string other(int way) {
    return changed(contents(root() + "/tests/programs/labs/measuring_other.cc"), "#define WAY 0",
                   "#define WAY " + std::to_string(way));
}

void loses(const std::string& source, const std::string& lost, const std::string& says) {
    Scratch scratch;
    put(scratch.path + "/mine.cc", source);
    const Graded it = grade("8", scratch.path + "/mine.cc");
    INFO(it.report);
    REQUIRE(it.most == 20);
    CHECK(it.lost == lost);
    CHECK(has(it.report, says));
}

}  // namespace

TEST_CASE("lab 8: measuring", "[labs]") {
    if (cannot_grade()) return;
    loses(ours(), "", "20 of 20 points");
    loses(contents(root() + "/docs/labs/8-measuring/starter.cc"), "same covers outliers few",
          "10 of 20 points");
    CHECK(has(contents(root() + "/docs/labs/8-measuring.md"), "10 of 20 points"));
    loses(other(1), "", "20 of 20 points");
    loses(other(2), "outliers", "moves a mean");
}

TEST_CASE("lab 8: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    loses(other(0), "", "20 of 20 points");
    loses(other(3), "drift", "the times of one round belong together");
    loses(changed(ours(), "if (2 * fewer > kError) break;", "if (k > 0) break;"),
          "found outliers few", "larger than what chance can do");
    loses(changed(ours(), "if (2 * fewer", "if (k > 0 && 2 * fewer"), "few", "2 of 32");
    loses(changed(ours(), "second / first", "first / second"), "result found outliers drift",
          "the word is said of the second");
    loses(changed(ours(), "read != EOF || ", ""), "errors", "what is left out silently");
    loses(changed(changed(ours(), "low > 1 ", "median > 1 "), "high < 1 ", "median < 1 "),
          "agrees same few", "compared its word with its own interval");
    loses(changed(ours(), "kError = 0.05", "kError = 0"), "result found outliers drift",
          "cannot tell");
    loses(changed(changed(ours(), "ratio[k - 1]", "ratio[rounds / 2 - 1]"), "ratio[rounds - k]",
                  "ratio[rounds / 2]"),
          "same covers", "A against A is no difference");
    loses(changed(ours(), "cannot tell", "can not tell"), "same covers few",
          "each character counts");
}
