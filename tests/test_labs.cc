// The labs, black box: ours scores all points, a starter what its page says, a program with one
// mistake loses the requirement that it breaks and is told why, an odd but right one loses nothing.
//
//     make test TEST="[labs]"                   a few of each lab
//     make test TEST="[all-labs]"               all of them, minutes

#include "graded.h"

namespace {

// A program that differs from another in one place.
struct Variant {
    std::string what;
    std::string find, instead;
    std::string loses;  // requirements
    std::string says;   // stands in the report
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

const std::string kAddOne = "        shared->count = shared->count + 1;\n";
const std::string kLock =
    "        check(pthread_mutex_lock(&shared->lock), \"pthread_mutex_lock\");\n";
// Strict turns: at an even count the parent adds, at an odd one the child.
const std::string kTurn =
    "        static const int odd = getpid() != getpgrp();\n"
    "        for (int now; (now = *reinterpret_cast<volatile int*>(&shared->count)) % 2 != odd;) ";
const std::string kTold = "        syscall(SYS_futex, &shared->count, FUTEX_WAKE, 1, 0, 0, 0);\n";

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
    {"strict turns", kLock, kTurn + "continue;\n" + kLock, "both sleeps", "they take turns"},
    {"locked for ever", kLock, kLock + kLock, "result shared object both exact sleeps failure",
     "nobody is left who could wake it"},
    {"ends when it has much to do", kAddOne,
     kAddOne + "        if (times > 1000000) raise(SIGXCPU);\n", "both exact",
     "both count at the same time, each adds 1 at a time\n     seen:   not shown"},
    {"made by both", "    const pid_t child = fork();\n",
     "    const pid_t child = fork();\n"
     "    check(pthread_mutex_init(&shared->lock, &attributes), \"\");\n",
     "exact", "or each makes its own"},
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

// Strict turns, but nobody spins.
const Variant kTurnsAsleep = {
    "strict turns, asleep", kLock,
    kTurn + "syscall(SYS_futex, &shared->count, FUTEX_WAIT, now, 0, 0, 0);\n" + kLock, "both",
    "added 1 at some, and more at none"};
std::string updates_told() {
    return changed(changed(updates_ours(), "#include <err.h>\n",
                           "#include <err.h>\n#include <linux/futex.h>\n"
                           "#include <sys/syscall.h>\n"),
                   kAddOne, kAddOne + kTold);
}

// What is left when we have ended it says nothing.
const Variant kNeverRemoved = {"a name that would be removed", kLock, kLock + kLock,
                               "result shared object both exact sleeps failure left",
                               "left: nothing is left\n     seen:   not shown"};
std::string updates_named() {
    return changed(changed(updates_ours(), "MAP_SHARED | MAP_ANONYMOUS, -1, 0);",
                           "MAP_SHARED, shm_open(\"/count\", 02 | 0100, 0600), 0);\n"
                           "    if (truncate(\"/dev/shm/count\", sizeof(Shared)) == -1) err(1, "
                           "\"truncate\");"),
                   "    printf(\"count", "    shm_unlink(\"/count\");\n    printf(\"count");
}

TEST_CASE("lab 3: lost updates", "[labs]") {
    if (cannot_grade()) return;
    loses(3, updates_told(), kTurnsAsleep);
    loses_nothing(3, updates_ours());
    scores(3, "3-lost-updates", 13);
    loses(3, updates_ours(), kUpdatesWrong[1]);
    loses_nothing(3, updates_odd(2));
}

TEST_CASE("lab 3: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    for (const Variant& it : kUpdatesWrong) loses(3, updates_ours(), it);
    loses(3, updates_odd(2), kForTwo);
    loses(3, updates_named(), kNeverRemoved);
    for (int way = 0; way < 6; ++way) loses_nothing(3, updates_odd(way));
    loses_nothing(3, updates_ours(), "g++ -static");
}

// Lab 4: the bounded buffer.

const std::string kTakeFree = "take_one(&buffer->free);";
const std::string kStoreGive =
    "        strcpy(buffer->line[in], line);\n"
    "        give_one(&buffer->full);  // after the store: who is woken finds the line\n";
const std::string kUseGive =
    "        fputs(buffer->line[out], stdout);\n"
    "        give_one(&buffer->free);";

const std::vector<Variant> kBufferWrong = {
    {"spins while it is full", kTakeFree, "while (sem_trywait(&buffer->free) == -1) continue;",
     "full", "kill -STOP $(pgrep -P $!)"},
    {"asks every millisecond while it is empty", "take_one(&buffer->full);",
     "while (sem_trywait(&buffer->full) == -1) usleep(1000);", "empty",
     "the child used the processor"},
    {"ends at an empty line", "stdin) == nullptr)", "stdin) == nullptr || line[0] == '\\n')",
     "result", "gave it odd lines"},
    {"drops a line without a newline", "stdin) == nullptr)",
     "stdin) == nullptr || strchr(line, '\\n') == nullptr)", "result", "gave it odd lines"},
    {"longer lines than the slots", "kBytes]", "kBytes - 4]", "result exact", "should be"},
    {"a child that ends at once", "        take_one(&buffer->full);\n",
     "        if (slots > 0) return;\n        take_one(&buffer->full);\n",
     "result full empty exact end", "not shown"},
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
    {"ends at a word", "stdin) == nullptr)", "stdin) == nullptr || strcmp(line, \"END\\n\") == 0)",
     "result", "the output ends before 'END'"},
    {"a long line in pieces", "sizeof line, stdin", "32, stdin", "slots", "takes one slot, too"},
    {"prints when it ends", "        setlinebuf(stdout);", "        //", "result exact",
     "the lines come late"},
    {"a slot that is not given back", "        give_one(&buffer->free);", "        //",
     "result exact end", "must be told when"},
};

std::string buffer_ours() { return contents(directory("4-bounded-buffer") + "ours.cc"); }
// The sign of the end is beside the slots, and how many lines there were.
std::string buffer_closed() {
    std::string text =
        changed(buffer_ours(), "    sem_t full;", "    volatile int put, closed;\n    sem_t full;");
    text = changed(text, kTakeFree,
                   "if (line[0] == '\\0') {\n            buffer->closed = 1;\n"
                   "            give_one(&buffer->full);\n            return;\n        }\n"
                   "        buffer->put = buffer->put + 1;\n        " +
                       kTakeFree);
    return changed(text, "if (buffer->line[out][0] == '\\0') return;",
                   "static int taken;\n"
                   "        if (buffer->closed && taken == buffer->put) return;\n        ++taken;");
}
const std::vector<Variant> kClosedWrong = {
    {"ends as soon as it is closed", " && taken == buffer->put", "", "end",
     "it ended while 3 lines had not come out"},
    {"closed before the last line is told of",
     "        if (buffer->closed && taken == buffer->put)",
     "        int full = 0;\n        sem_getvalue(&buffer->full, &full);\n"
     "        if (buffer->closed && full == 0)",
     "end", "let the child go when the parent had changed"},
};
// Of the odd ways, the condition variable.
const Variant kNoLockWrong = {
    "closed without the lock", "    change(&buffer->closed);\n",
    "    __atomic_store_n(&buffer->closed, 1, __ATOMIC_SEQ_CST);\n"
    "    pthread_cond_broadcast(&buffer->changed);\n",
    "end", "between its look and its sleep"};
std::string buffer_odd(int way) {
    return changed(contents(root() + "/tests/programs/labs/buffer_odd.cc"), "#define WAY 0",
                   "#define WAY " + std::to_string(way));
}

TEST_CASE("lab 4: the bounded buffer", "[labs]") {
    if (cannot_grade()) return;
    loses_nothing(4, buffer_ours());
    loses(4, buffer_ours(), kBufferWrong[2]);
    loses(4, buffer_ours(), kBufferWrong[10]);
    loses_nothing(4, buffer_odd(1));
}

TEST_CASE("lab 4: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    scores(4, "4-bounded-buffer", 11);
    for (const Variant& it : kBufferWrong) loses(4, buffer_ours(), it);
    for (const Variant& it : kClosedWrong) loses(4, buffer_closed(), it);
    loses(4, buffer_odd(0), kNoLockWrong);
    loses_nothing(4, buffer_closed());
    for (int way = 0; way < 3; ++way) loses_nothing(4, buffer_odd(way));
    loses_nothing(4, buffer_ours(), "g++ -static");
}

// Lab 5: the dead owner.

const std::string kConsistent =
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

// Lab 6: readers.

const char* const kMapped = "    close(fd);  // the mapping keeps the file\n";
const char* const kMap = "void* address = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);";
const char* const kSecondPrint = "    print(static_cast<char*>(address), bytes);\n}";

const std::vector<Variant> kReadersWrong = {
    {"in place", "\"config.new\"", "\"config\"", "whole keeps killed errors",
     "when it is complete"},
    {"a writable mapping", "open(\"config\", O_RDONLY)",
     "open(\"config\", O_RDWR);\n#define PROT_READ (0x1 | 0x2)\n    (void)0", "readonly",
     "mapped for writing"},
    {"a private mapping", "PROT_READ, MAP_SHARED", "PROT_READ, MAP_PRIVATE", "readonly",
     "not among its shared mappings"},
    {"a copy of what is mapped", kMapped, "    address = memcpy(malloc(bytes), address, bytes);\n",
     "one", "copies"},
    {"no mapping", kMap,
     "void* address = malloc(bytes);\n    if (read(fd, address, bytes) == -1) err(1, \"read\");",
     "one readonly", "not among its shared mappings"},
    {"the size of another file", "fstat(fd, &it)", "stat(\"config\", &it)", "whole",
     "a descriptor does not"},
    {"mapped anew", kSecondPrint,
     "    const int again = open(\"config\", O_RDONLY);\n    fstat(again, &it);\n"
     "    print((char*)mmap(nullptr, it.st_size, PROT_READ, MAP_SHARED, again, 0), it.st_size);\n}",
     "keeps", "stays as it is"},
    {"refuses what a killed one has left", "O_CREAT | O_TRUNC", "O_CREAT | O_EXCL", "killed",
     "in nobody's way"},
    {"another name each time", "\"config.new\"",
     "[] { static char name[32]; sprintf(name, \"config.%d\", getpid()); return name; }()", "left",
     "if it knows the name"},
    {"the old one goes first", "    if (rename(kNext,",
     "    unlink(\"config\");\n    if (rename(kNext,", "whole killed errors", "in one step"},
    {"a failure leaves what it made", "    unlink(kNext);\n", "", "errors", "config.new"},
    {"a full disk is not told", "give_up(\"write\", kNext);", "more = got;", "errors",
     "leave the old one as it was"},
    {"prints once", kSecondPrint, "}", "result one readonly whole keeps killed left errors",
     "two times"},
};

std::string readers_ours() { return contents(directory("6-readers") + "ours.cc"); }

TEST_CASE("lab 6: readers", "[labs]") {
    if (cannot_grade()) return;
    loses_nothing(6, readers_ours());
    scores(6, "6-readers", 7);
    loses(6, readers_ours(), kReadersWrong[5]);
}

TEST_CASE("lab 6: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    for (const Variant& it : kReadersWrong) loses(6, readers_ours(), it);
    loses_nothing(6, changed(readers_ours(), "open(kNext, O_WRONLY | O_CREAT | O_TRUNC, 0644)",
                             "(unlink(kNext), open(kNext, O_WRONLY | O_CREAT | O_EXCL, 0644))"));
    loses_nothing(6, contents(root() + "/tests/programs/labs/readers_odd.cc"));
    loses_nothing(6, readers_ours(), "g++ -static");
}

// Lab 7: five programs that print the same.

const char* const kUnlink =
    "    if (shm_unlink(\"/lab-same\") == -1) err(1, \"shm_unlink(/lab-same)\");\n";

const std::vector<Variant> kSameWrong = {
    {"a wrong name", "\"pshared\"", "\"order\"", "name3", "not what was wrong with 3"},
    {"no name", "\"left\"", "\"?\"", "name4", "4 ?"},
    {"1 is private", "map(MAP_SHARED)", "map(MAP_PRIVATE)", "repair1", "MAP_SHARED"},
    {"1 does not wait", "        wait_until_ready(items);\n", "", "repair1", "not waiting"},
    {"3 sleeps", "to do first\n        wait_until_ready(items);\n", "\n", "repair3",
     "sleeping is not waiting"},
    {"4 leaves its name", kUnlink, "", "repair4", "objects outlive processes"},
    {"4 is for everybody", "O_EXCL, 0600", "O_EXCL, 0666", "repair4", "everybody may write"},
    {"5 does not know of a killed child",
     "    if (WIFSIGNALED(status)) errx(1, \"the child was killed\");\n"
     "    printf(\"Parent %d get child status:%d\\n\", getpid(), WEXITSTATUS(status));\n"
     "    return 0;\n}\n\n// Your",
     "    printf(\"Parent %d get child status:%d\\n\", getpid(), WEXITSTATUS(status));\n"
     "    return 0;\n}\n\n// Your",
     "repair5", "WIFSIGNALED"},
    {"all by a semaphore of one process", "sem_init(&items->ready, 1, 0)",
     "sem_init(&items->ready, 0, 0)", "repair1", "made for several processes"},
};

std::string same_ours() { return contents(directory("7-same") + "ours.cc"); }

TEST_CASE("lab 7: five programs that print the same", "[labs]") {
    if (cannot_grade()) return;
    loses_nothing(7, same_ours());
    loses(7, same_ours(), kSameWrong[7]);
}

TEST_CASE("lab 7: every mistake and every odd way", "[.][all-labs]") {
    if (cannot_grade()) return;
    scores(7, "7-same", 1);
    for (const Variant& it : kSameWrong) loses(7, same_ours(), it);
    loses_nothing(7, changed(same_ours(), "while (sem_wait(&items->ready) == -1) continue;",
                             "while (sem_trywait(&items->ready) == -1) usleep(1000);"));
    loses_nothing(7, changed(changed(same_ours(), kUnlink, ""),
                             "shm_open(\"/lab-same\", O_RDWR | O_CREAT | O_EXCL, 0600)",
                             "memfd_create(\"lab-same\", 0)"));
}
