// Runs the tests and closes with one line that counts them; a skipped test says why.

#define CATCH_CONFIG_RUNNER
#include "support.h"

#include <iostream>

namespace {

int passed = 0, failed = 0, skipped = 0;
std::string name;      // of the test that runs
std::string failures;  // a line each, at the end: often only the end of a log is kept
bool skipping = false;

#if __has_include(<catch2/catch_all.hpp>)
using ListenerBase = Catch::EventListenerBase;
#else
using ListenerBase = Catch::TestEventListenerBase;
#endif

class Counter : public ListenerBase {
  public:
    using ListenerBase::ListenerBase;
    void testCaseStarting(const Catch::TestCaseInfo& test) override { name = test.name; }
    void testCaseEnded(const Catch::TestCaseStats& stats) override {
        const std::string left = leftovers();
        if (!left.empty()) std::cout << "LEFT BEHIND by the test above:" << left << std::endl;
        if (!left.empty() || stats.totals.assertions.failed > 0) {
            ++failed;
            failures += "failed: " + name + "\n";
        } else if (skipping)
            ++skipped;
        else
            ++passed;
        skipping = false;
    }
};
CATCH_REGISTER_LISTENER(Counter)

}  // namespace

void skip(const std::string& reason) {
    skipping = true;
    std::cout << "SKIPPED: " << reason << std::endl;
}

int main(int argc, char** argv) {
    const int result = Catch::Session().run(argc, argv);
    std::cout << failures << passed << " passed, " << failed << " failed, " << skipped << " skipped"
              << std::endl;
    return failed > 0 || passed + skipped == 0 ? 1 : result;
}
