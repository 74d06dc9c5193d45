// The labs, black box: ours scores all points, a starter what its page says, a program with one
// mistake loses the requirement that it breaks and is told why, an odd but right one loses nothing.
//
//     make test TEST="[labs]"                   a few of each lab
//     make test TEST="[all-labs]"               all of them, minutes

#include <regex>

#include "support.h"

namespace {

// A program that differs from another in one place.
struct Variant {
    const char* what;
    const char *find, *instead;
    std::vector<const char*> loses;  // what the titles of the lost requirements begin with
    const char* says;                // stands in the report
};

struct Graded {
    int points = -1, most = -1;
    std::vector<std::string> lost;  // titles
    std::string text;
};

Graded grade(int lab, const std::string& source, const std::string& compiler = "") {
    Scratch scratch;
    put(scratch.path + "/mine.cc", source);
    const std::string line = compiler.empty() ? "" : "CXX='" + compiler + "' ";
    Graded result;
    result.text = shell("cd " + root() + " && " + line + "tests/grade/grade " +
                        std::to_string(lab) + " " + scratch.path + "/mine.cc 2>&1")
                      .out;
    static const std::regex sum(": (\\d+) of (\\d+) points"), row("  (\\d+) of (\\d+)  (.*)");
    std::istringstream lines(result.text);
    std::smatch found;
    for (std::string one; std::getline(lines, one);) {
        if (result.most == -1 && std::regex_search(one, found, sum)) {
            result.points = std::stoi(found[1]);
            result.most = std::stoi(found[2]);
        } else if (std::regex_match(one, found, row) && found[1] != found[2]) {
            result.lost.push_back(found[3]);
        }
    }
    return result;
}

std::string directory(const std::string& lab) { return root() + "/docs/labs/" + lab + "/"; }

std::string changed(std::string text, const std::string& find, const std::string& instead) {
    const size_t at = text.find(find);
    if (at == std::string::npos) FAIL("'" << find << "' is not in the program");
    return text.replace(at, find.size(), instead);
}

void loses(int lab, const std::string& base, const Variant& it) {
    INFO(it.what);
    const Graded result = grade(lab, changed(base, it.find, it.instead));
    INFO(result.text);
    REQUIRE(result.most > 0);
    CHECK(result.lost.size() == it.loses.size());
    for (size_t i = 0; i < result.lost.size() && i < it.loses.size(); ++i)
        CHECK(result.lost[i].rfind(it.loses[i], 0) == 0);
    CHECK(has(result.text, it.says));
}

void loses_nothing(int lab, const std::string& source, const std::string& compiler = "") {
    const Graded result = grade(lab, source, compiler);
    INFO(result.text);
    CHECK(result.points == result.most);
    CHECK(result.most == 20);
}

void scores(int lab, const std::string& name, int points) {
    const Graded result = grade(lab, contents(directory(name) + "starter.cc"));
    INFO(result.text);
    CHECK(result.points == points);
    CHECK(has(contents(root() + "/docs/labs/" + name + ".md"),
              std::to_string(points) + " of 20 points"));
}

}  // namespace

// Lab 3: lost updates. Ours, with one place changed.

const char* const kAddOne = "        shared->count = shared->count + 1;\n";
const char* const kLock =
    "        check(pthread_mutex_lock(&shared->lock), \"pthread_mutex_lock\");\n";

const std::vector<Variant> kUpdatesWrong = {
    {"no lock", kLock, "", {"nothing is lost"}, "is not an atomic one"},
    {"unlocked between load and store",
     kAddOne,
     "        const long now = shared->count; pthread_mutex_unlock(&shared->lock); "
     "pthread_mutex_lock(&shared->lock); shared->count = now + 1;\n",
     {"nothing is lost"},
     "what the other had added meanwhile is lost"},
    {"a lock of one process",
     "PTHREAD_PROCESS_SHARED)",
     "PTHREAD_PROCESS_PRIVATE)",
     {"who has to wait"},
     "made for several processes"},
    {"a spinning lock",
     kLock,
     "        while (pthread_mutex_trylock(&shared->lock) != 0) continue;\n",
     {"who has to wait"},
     "asks again and again"},
    {"a lock that is asked for every millisecond",
     kLock,
     "        while (pthread_mutex_trylock(&shared->lock) != 0) usleep(1000);\n",
     {"who has to wait"},
     "asks again and again"},
    {"private memory",
     "MAP_SHARED |",
     "MAP_PRIVATE |",
     {"it prints", "there is one count", "what it prints", "both count", "nothing is lost",
      "who has to wait"},
     "unless the mapping is MAP_SHARED"},
    {"one after the other",
     "    add(shared, times);\n",
     "    if (child != 0) waitid(P_PID, static_cast<id_t>(child), nullptr, WEXITED | WNOWAIT);\n"
     "    add(shared, times);\n",
     {"both count"},
     "nothing is shared but the result"},
    {"a result that was computed",
     "printf(\"count %ld\\n\", shared->count)",
     "printf(\"count %ld\\n\", 2 * times)",
     {"what it prints"},
     "does not come from the object"},
    {"a child whose end nobody looks at",
     "    if (status != 0) errx(1, \"the child failed\");\n",
     "",
     {"a child that was killed"},
     "nobody is told"},
    {"nobody waits for the child",
     "if (waitpid(child, &status, 0) == -1) err(1, \"waitpid(%d)\", child);",
     "status = 0;",
     {"it prints", "what it prints", "a child that was killed"},
     "nobody is told"},
    {"a name that stays",
     "MAP_SHARED | MAP_ANONYMOUS, -1, 0);",
     "MAP_SHARED, shm_open(\"/count\", 02 | 0100, 0600), 0);\n"
     "    if (truncate(\"/dev/shm/count\", sizeof(Shared)) == -1) err(1, \"truncate\");",
     {"nothing is left"},
     "/dev/shm/count is left"},
    {"all at once",
     kAddOne,
     "        shared->count = shared->count + times; i = times;\n",
     {"both count"},
     "all is added at once"},
};

// A semaphore that lets two in, a lock of open(2) that fork(2) passes on.
const std::vector<Variant> kUpdatesOdd = {
    {"a semaphore for two", "SETVAL, 1", "SETVAL, 2", {"nothing is lost"}, "is lost"},
};

std::string updates_ours() { return contents(directory("3-lost-updates") + "ours.cc"); }
std::string updates_odd(int way) {
    return changed(contents(root() + "/tests/programs/labs/updates_odd.cc"), "#define WAY 0",
                   "#define WAY " + std::to_string(way));
}

TEST_CASE("lab 3: lost updates", "[labs]") {
    loses_nothing(3, updates_ours());
    scores(3, "3-lost-updates", 13);
    loses(3, updates_ours(), kUpdatesWrong[1]);
    loses_nothing(3, updates_odd(2));
}

TEST_CASE("lab 3: every mistake and every odd way", "[.][all-labs]") {
    for (const Variant& it : kUpdatesWrong) loses(3, updates_ours(), it);
    loses(3, updates_odd(2), kUpdatesOdd[0]);
    for (int way = 0; way < 6; ++way) loses_nothing(3, updates_odd(way));
    loses_nothing(3, updates_ours(), "g++ -static");
}
