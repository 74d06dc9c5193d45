// The labs, black box: ours scores all points, a starter what its page says, a program with one
// mistake loses the requirement that it breaks and is told why, an odd but right one loses nothing.
//
//     make test TEST="[labs]"                   a few of each lab
//     make test TEST="[all-labs]"               all of them, minutes

#include "graded.h"

namespace {

// A program that differs from another in one place.
struct Variant {
    const char* what;
    const char *find, *instead;
    const char* loses;  // requirements
    const char* says;   // stands in the report
};

Graded grade_source(int lab, const std::string& source, const std::string& compiler = "") {
    Scratch scratch;
    put(scratch.path + "/mine.cc", source);
    std::map<std::string, std::string> extra;
    if (!compiler.empty()) extra["CXX"] = compiler;
    return grade(std::to_string(lab), scratch.path + "/mine.cc", extra);
}

std::string directory(const std::string& lab) { return root() + "/docs/labs/" + lab + "/"; }

void loses(int lab, const std::string& base, const Variant& it) {
    INFO(it.what);
    const Graded result = grade_source(lab, changed(base, it.find, it.instead));
    INFO(result.report);
    REQUIRE(result.most > 0);
    CHECK(result.lost == it.loses);
    CHECK(has(result.report, it.says));
}

void loses_nothing(int lab, const std::string& source, const std::string& compiler = "") {
    const Graded result = grade_source(lab, source, compiler);
    INFO(result.report);
    CHECK(result.points == result.most);
    CHECK(result.most == 20);
}

void scores(int lab, const std::string& name, int points) {
    const Graded result = grade_source(lab, contents(directory(name) + "starter.cc"));
    INFO(result.report);
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
    {"no lock", kLock, "", "exact", "is not an atomic one"},
    {"unlocked between load and store", kAddOne,
     "        const long now = shared->count; pthread_mutex_unlock(&shared->lock); "
     "pthread_mutex_lock(&shared->lock); shared->count = now + 1;\n",
     "exact", "what the other had added meanwhile is lost"},
    {"a lock of one process", "PTHREAD_PROCESS_SHARED)", "PTHREAD_PROCESS_PRIVATE)", "sleeps",
     "made for several processes"},
    {"a spinning lock", kLock,
     "        while (pthread_mutex_trylock(&shared->lock) != 0) continue;\n", "sleeps",
     "asks again and again"},
    {"a lock that is asked for every millisecond", kLock,
     "        while (pthread_mutex_trylock(&shared->lock) != 0) usleep(1000);\n", "sleeps",
     "asks again and again"},
    {"private memory", "MAP_SHARED |", "MAP_PRIVATE |", "result shared object both exact sleeps",
     "unless the mapping is MAP_SHARED"},
    {"one after the other", "    add(shared, times);\n",
     "    if (child != 0) waitid(P_PID, static_cast<id_t>(child), nullptr, WEXITED | WNOWAIT);\n"
     "    add(shared, times);\n",
     "both", "nothing is shared but the result"},
    {"a result that was computed", "printf(\"count %ld\\n\", shared->count)",
     "printf(\"count %ld\\n\", 2 * times)", "object", "does not come from the object"},
    {"a child whose end nobody looks at", "    if (status != 0) errx(1, \"the child failed\");\n",
     "", "failure", "nobody is told"},
    {"nobody waits for the child",
     "if (waitpid(child, &status, 0) == -1) err(1, \"waitpid(%d)\", child);", "status = 0;",
     "result object failure", "nobody is told"},
    {"a name that stays", "MAP_SHARED | MAP_ANONYMOUS, -1, 0);",
     "MAP_SHARED, shm_open(\"/count\", 02 | 0100, 0600), 0);\n"
     "    if (truncate(\"/dev/shm/count\", sizeof(Shared)) == -1) err(1, \"truncate\");",
     "left", "/dev/shm/count is left"},
    {"all at once", kAddOne, "        shared->count = shared->count + times; i = times;\n", "both",
     "all is added at once"},
};

// Of the odd ways, the semaphore.
const Variant kForTwo = {"a semaphore for two", "SETVAL, 1", "SETVAL, 2", "exact", "is lost"};

std::string updates_ours() { return contents(directory("3-lost-updates") + "ours.cc"); }
std::string updates_odd(int way) {
    return changed(contents(root() + "/tests/programs/labs/updates_odd.cc"), "#define WAY 0",
                   "#define WAY " + std::to_string(way));
}

TEST_CASE("lab 3: lost updates", "[labs]") {
    if (cannot_grade()) return;
    loses_nothing(3, updates_ours());
    scores(3, "3-lost-updates", 13);
    loses(3, updates_ours(), kUpdatesWrong[1]);
    loses_nothing(3, updates_odd(2));
}

TEST_CASE("lab 3: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    for (const Variant& it : kUpdatesWrong) loses(3, updates_ours(), it);
    loses(3, updates_odd(2), kForTwo);
    for (int way = 0; way < 6; ++way) loses_nothing(3, updates_odd(way));
    loses_nothing(3, updates_ours(), "g++ -static");
}

// Lab 4: the bounded buffer.

const char* const kTakeFree = "take_one(&buffer->free);";
const char* const kStoreGive =
    "        strcpy(buffer->line[in], line);\n"
    "        give_one(&buffer->full);  // after the store: who is woken finds the line\n";
const char* const kUseGive =
    "        fputs(buffer->line[out], stdout);\n"
    "        give_one(&buffer->free);";

const std::vector<Variant> kBufferWrong = {
    {"spins while it is full", kTakeFree, "while (sem_trywait(&buffer->free) == -1) continue;",
     "full", "asks again and again"},
    {"asks every millisecond while it is empty", "take_one(&buffer->full);",
     "while (sem_trywait(&buffer->full) == -1) usleep(1000);", "empty", "asks again and again"},
    {"does not wait while it is full", kTakeFree, "", "result slots exact", "overwritten"},
    {"one slot too many", "static_cast<unsigned>(slots)", "static_cast<unsigned>(slots) + 1",
     "result slots exact", "overwritten"},
    {"one slot too few", "static_cast<unsigned>(slots)", "static_cast<unsigned>(slots) - 1",
     "slots", "as many lines as slots"},
    {"told of before it is stored", kStoreGive,
     "        give_one(&buffer->full);\n        strcpy(buffer->line[in], line);\n", "exact",
     "told of before"},
    {"given back before it is used", kUseGive,
     "        give_one(&buffer->free);\n        fputs(buffer->line[out], stdout);", "exact",
     "given back before"},
    {"the end is not told", "        take_one(&buffer->free);",
     "        if (line[0] == '\\0') break;\n        take_one(&buffer->free);", "end",
     "nobody is left who could wake it"},
    {"the end overtakes the last lines", "        take_one(&buffer->free);",
     "        if (line[0] != '\\0') take_one(&buffer->free);", "end", "after all lines"},
    {"private memory", "MAP_SHARED |", "MAP_PRIVATE |", "result shared slots full empty exact end",
     "memory of its own"},
    {"semaphores of one process", "full, 1, 0", "full, 0, 0", "result full exact end",
     "several processes"},
    {"a number of slots of its own", "argc == 2 ? atoi(argv[1]) : 0", "argc == 2 ? 4 : 0", "slots",
     "as many lines as slots"},
    {"a child whose end nobody looks at", "    if (status != 0) errx(1, \"the child failed\");\n",
     "", "failure", "nobody is told"},
    {"last in, first out", "int out = 0;; out = (out + 1) % slots", "int out = 0;;",
     "result exact end", "in order"},
    {"a name that stays", "MAP_SHARED | MAP_ANONYMOUS, -1, 0);",
     "MAP_SHARED, shm_open(\"/buffer\", 02 | 0100, 0600), 0);\n"
     "    if (truncate(\"/dev/shm/buffer\", sizeof(Buffer)) == -1) err(1, \"truncate\");",
     "left", "/dev/shm/buffer is left"},
};

std::string buffer_ours() { return contents(directory("4-bounded-buffer") + "ours.cc"); }
std::string buffer_odd(int way) {
    return changed(contents(root() + "/tests/programs/labs/buffer_odd.cc"), "#define WAY 0",
                   "#define WAY " + std::to_string(way));
}

TEST_CASE("lab 4: the bounded buffer", "[labs]") {
    if (cannot_grade()) return;
    loses_nothing(4, buffer_ours());
    loses(4, buffer_ours(), kBufferWrong[6]);
    loses_nothing(4, buffer_odd(1));
}

TEST_CASE("lab 4: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    scores(4, "4-bounded-buffer", 11);
    for (const Variant& it : kBufferWrong) loses(4, buffer_ours(), it);
    for (int way = 0; way < 3; ++way) loses_nothing(4, buffer_odd(way));
    loses_nothing(4, buffer_ours(), "g++ -static");
}

// Lab 5: the dead owner.

const char* const kConsistent =
    "if (error == EOWNERDEAD) error = pthread_mutex_consistent(&shared->lock);";

const std::vector<Variant> kDeadOwnerWrong = {
    {"a lock that stays with the dead", "PTHREAD_MUTEX_ROBUST)", "PTHREAD_MUTEX_STALLED)", "killed",
     "nobody is left who could wake it"},
    {"not made consistent", kConsistent, "if (error == EOWNERDEAD) error = 0;", "killed",
     "asked for is"},
    {"gives up", kConsistent, "", "killed", "Owner died"},
    {"repairs what is not broken", kConsistent,
     "if (error == EOWNERDEAD) { error = pthread_mutex_consistent(&shared->lock); ++shared->count; "
     "}",
     "killed", "asked for is"},
    {"counts for the dead", "printf(\"count %ld\\n\", shared->count)",
     "printf(\"count %ld\\n\", 2 * times)", "killed", "print what the object"},
    {"says nothing of the count", "    printf(\"count", "    if (status == 0) printf(\"count",
     "killed", "asked for is"},
    {"status 0", "return status == 0 ? 0 : 1;", "return 0;", "status", "told by status 1"},
    {"a spinning lock", "int error = pthread_mutex_lock(&shared->lock);",
     "int error; while ((error = pthread_mutex_trylock(&shared->lock)) == EBUSY) continue;",
     "sleeps", "asks again and again"},
    {"unlocked between load and store", kAddOne,
     "        const long now = shared->count; pthread_mutex_unlock(&shared->lock); lock(shared); "
     "shared->count = now + 1;\n",
     "exact", "is lost"},
    {"a name that stays", "MAP_SHARED | MAP_ANONYMOUS, -1, 0);",
     "MAP_SHARED, shm_open(\"/count\", 02 | 0100, 0600), 0);\n"
     "    if (truncate(\"/dev/shm/count\", sizeof(Shared)) == -1) err(1, \"truncate\");",
     "left", "/dev/shm/count is left"},
};

std::string dead_owner_ours() { return contents(directory("5-dead-owner") + "ours.cc"); }
std::string dead_owner_odd(int way) {
    return changed(changed(updates_odd(way), "if (status != 0) return 3;", ""), "    return 0;\n}",
                   "    return status == 0 ? 0 : 1;\n}");
}

TEST_CASE("lab 5: the dead owner", "[labs]") {
    if (cannot_grade()) return;
    loses_nothing(5, dead_owner_ours());
    scores(5, "5-dead-owner", 12);
}

TEST_CASE("lab 5: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    for (const Variant& it : kDeadOwnerWrong) loses(5, dead_owner_ours(), it);
    for (int way = 0; way < 4; ++way) loses_nothing(5, dead_owner_odd(way));
}
