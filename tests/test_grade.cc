// The grader of the labs. Programs with one mistake each must lose the requirement that they break,
// with words that name the mistake; programs that do it otherwise, and are right, lose nothing;
// nothing that a program does harms anything.

#include <sys/stat.h>

#include <deque>

#include "graded.h"

namespace {

using Changes = std::vector<std::pair<std::string, std::string>>;

std::string changed(const std::string& base, const Changes& changes) {
    std::string text = contents(root() + "/tests/programs/labs/" + base);
    for (const auto& [from, to] : changes) text = ::changed(text, from, to);
    return text;
}

struct Case {
    std::string what;
    Changes changes;
    std::string lost, says;
};

// Grades some at a time: much of it is waiting.
std::vector<Graded> grade_all(const std::string& lab, const std::vector<std::string>& sources) {
    Scratch scratch;
    chmod(scratch.path.c_str(), 0755);
    std::vector<Graded> all;
    std::deque<Program> running;
    for (size_t i = 0; i < sources.size(); ++i) {
        const std::string file = scratch.path + "/" + std::to_string(i) + ".cc";
        put(file, sources[i]);
        running.emplace_back(Words{root() + "/tests/grade/grade", lab, file}, root());
        if (running.size() < 4) continue;
        all.push_back(read(running.front().finish(kGrading)));
        running.pop_front();
    }
    for (Program& it : running) all.push_back(read(it.finish(kGrading)));
    return all;
}

void check(const std::string& lab, const std::string& base, const std::vector<Case>& cases) {
    std::vector<std::string> sources;
    for (const Case& it : cases) sources.push_back(changed(base, it.changes));
    const std::vector<Graded> all = grade_all(lab, sources);
    for (size_t i = 0; i < cases.size(); ++i) {
        INFO(cases[i].what << "\n" << all[i].report);
        CHECK(all[i].lost == cases[i].lost);
        CHECK(has(all[i].report, cases[i].says));
    }
}

const std::string kWait = "while (sem_wait(&shared->ready) == -1) continue;";
const std::string kPost = "sem_post(&shared->ready);";
const std::string kUnlink = "    shm_unlink(name);\n";
const std::string kEnd = "    printf(\"Parent";

}  // namespace

TEST_CASE("lab 1: ours have full marks, the starter what its page says", "[grade]") {
    if (cannot_grade()) return;
    for (const char* ours :
         {"shm_posix/shm_posix.cc", "map_posix/map_posix.cc", "shm_v/shm_v.cc"}) {
        const Graded it = grade("1", root() + "/" + std::string(ours));
        INFO(it.report);
        CHECK(has(it.report, "20 of 20 points\n"));
    }
    const Graded starter = grade("1", root() + "/docs/labs/1-exchange/starter.cc");
    INFO(starter.report);
    CHECK(starter.lost == "waits status residue mode exists errors");
}

TEST_CASE("lab 1: a mistake costs what it breaks, and is named", "[grade]") {
    if (cannot_grade()) return;
    check(
        "1", "exchange.cc",
        {
            {"none", {}, "", "20 of 20"},
            {"does not compile",
             {{"int fd", "ind fd"}},
             "builds shared transcript contents waits "
             "holds status residue mode exists errors",
             "mine.cc:25:5: error:"},
            {"private",
             {{"MAP_SHARED", "MAP_PRIVATE"}},
             "shared transcript contents waits holds "
             "status residue mode exists errors",
             "the parent has none"},
            {"no wait", {{kWait, ""}}, "waits", "sharing is not waiting"},
            {"sleeps", {{kWait, "sleep(1);"}}, "waits", "sleeping is not waiting"},
            {"sleeps longer", {{kWait, "sleep(60);"}}, "waits", "sleeping is not waiting"},
            {"gives up too soon",
             {{kWait, "for (int i = 0; i < 9 && !shared->count; ++i) usleep(10000);"}},
             "waits",
             "sleeping is not waiting"},
            {"looks before it waits",
             {{kWait, "Shared before = *shared; " + kWait}, {"shared->count);", "before.count);"}},
             "waits",
             "There is 0 item"},
            {"a private semaphore",
             {{"ready, 1, 0", "ready, 0, 0"}},
             "waits",
             "FUTEX_PRIVATE_FLAG"},
            {"gives up after a time",
             {{"#include <err.h>", "#include <err.h>\n#include <time.h>"},
              {kWait,
               "timespec t; clock_gettime(CLOCK_REALTIME, &t); t.tv_sec += 2; "
               "sem_timedwait(&shared->ready, &t);"}},
             "waits",
             "gives up when its time is over"},
            {"a loop that the compiler drops",
             {{kWait, "while (shared->count == 0) {}"}},
             "waits",
             "no loop on a plain variable"},
            {"told before all: the flag first",
             {{kWait,
               "while (__atomic_load_n(&shared->count, __ATOMIC_ACQUIRE) == 0) usleep(1000);"},
              {"    strcpy",
               "    __atomic_store_n(&shared->count, 3, __ATOMIC_SEQ_CST);\n    strcpy"}},
             "waits",
             "the child was told before all was stored"},
            {"told before all: the flag in the middle, and the child spins",
             {{kWait, "while (__atomic_load_n(&shared->flag, __ATOMIC_ACQUIRE) == 0) continue;"},
              {"int count;", "int count, flag;"},
              {"    strcpy(shared->name[2]",
               "    __atomic_store_n(&shared->flag, 1, __ATOMIC_SEQ_CST);\n"
               "    strcpy(shared->name[2]"}},
             "waits",
             // Held, or by chance before: which of the two looks is first to see it.
             "There is 0 item"},
            {"told before all: a volatile count",
             {{kWait, "while (shared->count == 0) {}"},
              {"int count;", "volatile int count;"},
              {"    strcpy", "    shared->count = 3;\n    strcpy"}},
             "waits",
             "had not printed Nellson"},
            {"told before all: the semaphore",
             {{kPost, ""}, {"    strcpy", "    sem_post(&shared->ready);\n    strcpy"}},
             "waits",
             "0 item"},
            {"stores before fork",
             {{"pid_t child", "strcpy(shared->name[2], \"Robbie\"); pid_t child"}},
             "waits",
             "stored before fork"},
            {"prints by heart",
             {{"i + 1, shared->name[i]",
               "i + 1, "
               "(const char*[]){\"Nellson\", \"Daisy\", \"Robbie\"}[i]"}},
             "holds",
             "not what it knows"},
            {"a pointer besides",
             {{"int count;", "int count; void* self;"},
              {"shared->count = 3", "shared->self = shared; shared->count = 3"}},
             "contents",
             "an address of the parent"},
            {"pointers instead",
             {{"char name[3][16]", "const char* name[3]"},
              {"strcpy(shared->name[0], \"Nellson\")", "shared->name[0] = \"Nellson\""},
              {"strcpy(shared->name[1], \"Daisy\")", "shared->name[1] = \"Daisy\""},
              {"strcpy(shared->name[2], \"Robbie\")", "shared->name[2] = \"Robbie\""}},
             "contents holds",
             "a pointer to them means nothing"},
            {"too small",
             {{"ftruncate(fd, sizeof(Shared))", "ftruncate(fd, 1)"}},
             "contents holds",
             "within the object's size"},
            {"no size",
             {{"ftruncate(fd, sizeof(Shared)) == -1", "false"}},
             "shared transcript "
             "contents waits holds status residue mode exists errors",
             "means:  SIGBUS: the object has 0 bytes"},
            {"strings",
             {{"#include <err.h>", "#include <err.h>\n#include <string>"},
              {"char name[3][16]", "std::string name[3]"},
              {"strcpy(shared->name[0], \"Nellson\")", "shared->name[0] = \"Nellson\""},
              {"strcpy(shared->name[1], \"Daisy\")", "shared->name[1] = \"Daisy\""},
              {"strcpy(shared->name[2], \"Robbie\")", "shared->name[2] = \"Robbie\""},
              {"name[i])", "name[i].c_str())"}},
             "transcript contents waits holds status mode",
             "not shown: it needs what the child prints"},
            {"a child that goes on into the parent's code",
             {{"        return 0;\n    }", "    }"}},
             "transcript status",
             "goes on into the parent's code"},
            {"a signal that may come too soon",
             {{kWait, "signal(SIGUSR1, [](int) {}); pause();"},
              {kPost, "kill(child, SIGUSR1);"}},
             "transcript holds status",
             "Was it sent before the child was ready"},
            {"another word", {{"There is", "There are"}}, "transcript", "each character counts"},
            {"one item fewer", {{"i < 3", "i < 2"}}, "transcript", "before all three items"},
            {"another order", {{"name[i]", "name[2 - i]"}}, "transcript", "each character counts"},
            {"ends with 1",
             {{"WEXITSTATUS(status));\n    return 0", "WEXITSTATUS(status));\n    return 1"}},
             "transcript",
             "it ended with exit status 1"},
            {"no colon",
             {{"status:%d", "status %d"}},
             "transcript status",
             "not shown: it prints no status:0"},
            {"initials only",
             {{"%d: %s", "%d: %.1s"}},
             "transcript holds",
             "not shown: it prints no Daisy"},
            {"dies at its end",
             {{"WEXITSTATUS(status));\n    return 0", "WEXITSTATUS(status));\n    abort()"}},
             "transcript waits holds status residue mode exists errors",
             "not shown: it needs a program that ends by itself, and not by a signal"},
            {"wakes nobody, and would remove the name at its end",
             {{kPost, ""}, {kUnlink, ""}, {kEnd, kUnlink + kEnd}},
             "transcript waits holds status residue mode exists errors",
             "what others have stays\n     seen:   not shown"},
            {"a wrong pid",
             {{"Parent %d get child status:%d\\n\", getpid()",
               "Parent %d get child status:%d\\n\", getppid()"}},
             "transcript",
             "each character counts"},
            {"printed twice",
             {{"pid_t child", "printf(\"Begin\\n\"); pid_t child"}},
             "transcript",
             "fflush(stdout) before fork"},
            {"not flushed",
             {{"return 0;\n    }", "_exit(0);\n    }"}},
             "transcript holds",
             "the child printed before"},
            {"the raw status", {{"WEXITSTATUS(status)", "status"}}, "status", "768 is 3 * 256"},
            {"always 0", {{"WEXITSTATUS(status)", "0"}}, "status", "status:3 is the truth"},
            {"a killed child",
             {{"if (WIFSIGNALED(status))", "if (false)"}},
             "status",
             "ask WIFSIGNALED first"},
            {"no wait for the child",
             {{"if (waitpid(child, &status, 0) == -1)", "status = 0; if (0)"}},
             "transcript status",
             "the parent ended before its child"},
            {"the name stays",
             {{kUnlink, ""}},
             "residue",
             "left behind:\n             /dev/shm/lab-exchange (88 bytes, mode 600)"},
            {"the name stays if the child was killed",
             {{kUnlink, ""}, {kEnd, kUnlink + kEnd}},
             "residue",
             "done:   killed the child"},
            {"a semaphore stays",
             {{"pid_t child", "sem_open(\"/lab-s\", O_CREAT, 0600, 0); pid_t child"}},
             "residue",
             "/dev/shm/sem.lab-s"},
            {"a set of semaphores stays",
             {{"#include <err.h>", "#include <err.h>\n#include <sys/sem.h>"},
              {"pid_t child", "semget(IPC_PRIVATE, 1, 0600); pid_t child"}},
             "residue",
             "ipcs -m -s"},
            {"takes others' away",
             {{"    int status;", "    unlink(\"/dev/shm/of-others\");\n int status;"}},
             "residue",
             "remove only what you have made"},
            {"everybody may write", {{"0600", "0666"}}, "mode", "has mode 666"},
            {"the group may write", {{"0600", "0660"}}, "mode", "has mode 660"},
            {"no O_EXCL", {{" | O_EXCL", ""}}, "exists", "; rm -f /dev/shm/lab-exchange\n"},
            {"removes what is there",
             {{"    int fd", "    shm_unlink(name);\n    int fd"}},
             "exists",
             "it is gone"},
            {"mmap not looked at",
             {{"if (address == MAP_FAILED)", "if (false)"}},
             "errors",
             "mmap, Cannot allocate memory"},
            {"ends without a word",
             {{"if (child == -1) err(1, \"fork\")", "if (child == -1) return 1"}},
             "errors",
             "strace -e inject=clone:error=EAGAIN:when=1 "},
            {"says so, and ends with 0",
             {{"if (child == -1) err(1, \"fork\")", "if (child == -1) err(0, \"fork\")"}},
             "errors",
             "say on stderr which did"},
            {"ftruncate not looked at",
             {{"if (ftruncate(fd, sizeof(Shared)) == -1) err(1, \"ftruncate\")",
               "if (ftruncate(fd, sizeof(Shared)) == -1) perror(\"ftruncate\")"}},
             "errors",
             "Bus error"},
        });
}

TEST_CASE("lab 1: right programs that look odd lose nothing", "[grade]") {
    if (cannot_grade()) return;
    const std::string waits = "__atomic_load_n(&shared->count, __ATOMIC_ACQUIRE)";
    const std::string stores = "__atomic_store_n(&shared->count, 3, __ATOMIC_RELEASE);";
    check(
        "1", "exchange.cc",
        {
            {"polls",
             {{kWait, "while (!" + waits + ") usleep(1000);"}, {"shared->count = 3;", stores}},
             "",
             "20 of 20"},
            {"polls, and gives up after 5 s",
             {{kWait, "for (int i = 0; !" + waits +
                          "; ++i) { if (i == 500) err(1, \"late\"); usleep(10000); }"},
              {"shared->count = 3;", stores}},
             "",
             "20 of 20"},
            {"polls once a second",
             {{kWait, "while (!" + waits + ") sleep(1);"}, {"shared->count = 3;", stores}},
             "",
             "20 of 20"},
            {"yields",
             {{kWait, "while (!" + waits + ") sched_yield();"},
              {"shared->count = 3;", stores},
              {"#include <semaphore.h>", "#include <semaphore.h>\n#include <sched.h>"}},
             "",
             "remark: the child does not sleep"},
            {"spins",
             {{kWait, "while (!" + waits + ") continue;"}, {"shared->count = 3;", stores}},
             "",
             "remark: the child does not sleep"},
            {"a pipe wakes",
             {{"    pid_t child",
               "    int wake[2]; if (pipe(wake) == -1) err(1, \"pipe\");\n    pid_t child"},
              {kWait, "char c; if (read(wake[0], &c, 1) != 1) err(1, \"read\");"},
              {kPost, "if (write(wake[1], \"\", 1) != 1) err(1, \"write\");"}},
             "",
             "20 of 20"},
            {"a signal wakes",
             {{"    pid_t child",
               "    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); "
               "sigprocmask(SIG_BLOCK, &set, nullptr);\n    pid_t child"},
              {kWait, "int got; sigwait(&set, &got);"},
              {kPost, "kill(child, SIGUSR1);"}},
             "",
             "20 of 20"},
            {"stops and is continued",
             {{kWait, "raise(SIGSTOP);"},
              {kPost, "int stopped; waitpid(child, &stopped, WUNTRACED); kill(child, SIGCONT);"}},
             "",
             "20 of 20"},
            {"a named semaphore",
             {{"    sem_init(&shared->ready, 1, 0);",
               "    sem_t* ready = sem_open(\"/lab-sem\", O_CREAT | O_EXCL, 0600, 0); if (ready == "
               "SEM_FAILED) err(1, \"sem_open\"); sem_unlink(\"/lab-sem\");"},
              {kWait, "while (sem_wait(ready) == -1) continue;"},
              {kPost, "sem_post(ready);"}},
             "",
             "20 of 20"},
            {"the parent waits for the child first",
             {{"    sem_init",
               "    sem_t* here = (sem_t*)mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | "
               "MAP_ANONYMOUS, -1, 0); if (here == MAP_FAILED) err(1, \"mmap\"); sem_init(here, 1, "
               "0); sem_init"},
              {kWait, "sem_post(here); " + kWait},
              {"    strcpy", "    sem_wait(here);\n    strcpy"}},
             "",
             "20 of 20"},
            {"the child opens it by its name",
             {{kUnlink, ""},
              {kWait,
               "int own = shm_open(name, O_RDWR, 0); shared = (Shared*)mmap(0, sizeof(Shared), "
               "PROT_READ, MAP_SHARED, own, 0); while (!" +
                   waits + ") usleep(1000);"},
              {"shared->count = 3;", stores},
              {"    if (WIFSIGNALED", "    shm_unlink(name);\n    if (WIFSIGNALED"},
              {"if (child == -1) err(1, \"fork\");",
               "if (child == -1) { shm_unlink(name); err(1, \"fork\"); }"},
              {"if (address == MAP_FAILED)",
               "if (address == MAP_FAILED) shm_unlink(name);\n    if (address == MAP_FAILED)"}},
             "",
             "20 of 20"},
            {"no name at all",
             {{"int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);",
               "int fd = memfd_create(name + 1, 0);"},
              {kUnlink, ""}},
             "",
             "20 of 20"},
            {"stores all at once",
             {{"    strcpy(shared->name[0], \"Nellson\");\n", ""},
              {"    strcpy(shared->name[1], \"Daisy\");\n", ""},
              {"    strcpy(shared->name[2], \"Robbie\");\n    shared->count = 3;",
               "    const Shared all = {3, {\"Nellson\", \"Daisy\", \"Robbie\"}, {}};\n"
               "    memcpy(address, &all, offsetof(Shared, ready));"},
              {"#include <errno.h>", "#include <errno.h>\n#include <stddef.h>"}},
             "",
             "20 of 20"},
            {"a file, which is removed at the end only",
             {{"shm_open(name, O_RDWR", "open(\"/tmp/lab\", O_RDWR"},
              {kUnlink, ""},
              {"    int status;", "    int status;\n    atexit([] { unlink(\"/tmp/lab\"); });"}},
             "",
             "20 of 20"},
            {"unmaps before it waits",
             {{"    int status;", "    munmap(address, sizeof(Shared));\n    int status;"}},
             "",
             "20 of 20"},
            {"a name that differs each time",
             {{"int fd =",
               "char own[32]; snprintf(own, 32, \"/lab-%d\", getpid()); name = own; int fd ="}},
             "",
             "20 of 20"},
            {"takes another name if one exists",
             {{"int fd =",
               "if (access(\"/dev/shm/lab-exchange\", F_OK) == 0) name = \"/lab-other\"; int fd "
               "="}},
             "",
             "20 of 20"},
            {"more than is needed", {{"sizeof(Shared)) == -1", "1 << 20) == -1"}}, "", "20 of 20"},
            {"a name that stays if there is no room: lab 2 asks for that",
             {{kUnlink, ""}, {"    void* address", kUnlink + "    void* address"}},
             "",
             "remark: when ftruncate fails, /dev/shm/lab-exchange is left"},
            {"System V semaphores and a thread that does nothing",
             {{"#include <err.h>",
               "#include <err.h>\n#include <sys/ipc.h>\n#include <sys/sem.h>\n#include <thread>"},
              {"    pid_t child",
               "    int set = semget(IPC_PRIVATE, 1, 0600); if (set == -1) err(1, \"semget\"); "
               "std::thread([] {}).join();\n    pid_t child"},
              {kWait, "sembuf take = {0, -1, 0}; semop(set, &take, 1); semctl(set, 0, IPC_RMID);"},
              {kPost, "sembuf give = {0, 1, 0}; semop(set, &give, 1);"},
              {"errx(1, \"the child was killed\");",
               "{ semctl(set, 0, IPC_RMID); errx(1, \"the child was killed\"); }"}},
             "",
             "20 of 20"},
        });
    const Graded odd = grade("1", root() + "/tests/programs/odd.cc");
    INFO(odd.report);
    CHECK(odd.lost.empty());
#ifdef __GLIBC__
    if (!__GLIBC_PREREQ(2, 34)) SKIP_BECAUSE("a static program with semaphores needs glibc 2.34");
#endif
    const std::string base = root() + "/tests/programs/labs/exchange.cc";
    const Graded fixed = grade("1", base, {{"CXX", "g++ -static"}});
    INFO(fixed.report);
    CHECK(fixed.lost.empty());
}

TEST_CASE("lab 1: a compiler that starts no other processes changes nothing", "[grade]") {
    if (cannot_grade()) return;
    Scratch scratch;
    const std::string built = scratch.path + "/mine", source = "/tests/programs/labs/exchange.cc";
    REQUIRE(run({"g++", "-o", built, root() + source, "-pthread", "-lrt"}).status == 0);
    const Graded it = grade("1", built, {{"CXX", "sh -c 'exec cp mine.cc mine' sh"}});
    INFO(it.report);
    CHECK(has(it.report, "20 of 20 points\n"));
}

TEST_CASE("lab 2: a mistake costs what it breaks; right ones lose nothing", "[grade]") {
    if (cannot_grade()) return;
    for (const char* ours :
         {"shm_posix/shm_posix.cc", "map_posix/map_posix.cc", "shm_v/shm_v.cc"}) {
        const Graded it = grade("2", root() + "/" + ours);
        INFO(it.report);
        CHECK(has(it.report, "20 of 20 points\n"));
    }
    const Graded starter = grade("2", root() + "/docs/labs/2-residue/starter.cc");
    INFO(starter.report);
    CHECK(starter.lost == "errors signals killed orphan others");

    const std::string made = "    if (fd == -1) err(1, \"shm_open\");\n";
    const std::string parent = "    pid_t child = fork();\n", child = "    if (child == 0) {\n";
    // Held signals, the name removed at once, a child that goes with its parent.
    const std::pair<std::string, std::string>
        hold = {"    int fd",
                "    sigset_t all, before; sigfillset(&all); "
                "sigprocmask(SIG_BLOCK, &all, &before);\n    int fd"},
        let = {kUnlink, kUnlink + "    sigprocmask(SIG_SETMASK, &before, nullptr);\n"},
        follow = {child, child +
                             "        prctl(PR_SET_PDEATHSIG, SIGKILL); "
                             "if (getppid() != maker) return 1;\n"},
        header = {"#include <sys/mman.h>", "#include <sys/mman.h>\n#include <sys/prctl.h>"},
        maker = {parent, "    const pid_t maker = getpid();\n" + parent};
    const auto with = [&](Changes more) {
        Changes all = {hold, let, follow, header, maker};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    check("2", "exchange.cc",
          {
              {"right", with({}), "", "20 of 20"},
              {"no signal is held",
               {follow, header, maker},
               "signals",
               "when it came back from openat"},
              {"the child stays", {hold, let}, "orphan", "it left a process running"},
              {"the child does not ask whether it is late",
               with({{"if (getppid() != maker) return 1;", ""}}), "orphan", "before the child ran"},
              {"removed after the mapping",
               with({{kUnlink, ""},
                     {"    sem_init", kUnlink + "    sem_init"},
                     {"== -1) err(1, \"ftruncate\")",
                      "== -1) { shm_unlink(name); err(1, \"ftruncate\"); }"},
                     {"if (address == MAP_FAILED) err(1, \"mmap\")",
                      "if (address == MAP_FAILED) { shm_unlink(name); err(1, \"mmap\"); }"},
                     {"    sigprocmask(SIG_SETMASK, &before, nullptr);\n", ""},
                     {"    pid_t child",
                      "    sleep(0); close(fd); sigprocmask(SIG_SETMASK, &before, "
                      "nullptr);\n    pid_t child"}}),
               "", "20 of 20"},
              {"removed after the mapping, and not if that fails",
               with({{kUnlink, ""},
                     {"    sem_init", kUnlink + "    sem_init"},
                     {"    sigprocmask(SIG_SETMASK, &before, nullptr);\n", ""},
                     {"    pid_t child",
                      "    sigprocmask(SIG_SETMASK, &before, nullptr);\n    pid_t child"}}),
               "errors", "had ftruncate fail"},
              {"removed once more", with({{kEnd, kUnlink + kEnd}}), "others",
               "the other object is gone"},
              {"only SIGINT is held",
               with({{"sigfillset(&all)", "sigemptyset(&all); sigaddset(&all, SIGINT)"}}),
               "signals", "sent SIGTERM"},
              {"let in before the name is removed",
               {hold,
                {kUnlink, "    sigprocmask(SIG_SETMASK, &before, nullptr);\n" + kUnlink},
                follow,
                header,
                maker},
               "signals",
               "when it came back from openat"},
              {"a killed child, and status 0",
               with({{"errx(1, \"the child was killed\")", "return 0"}}), "child",
               "killed the child"},
              {"a killed child is no matter",
               with({{"if (WIFSIGNALED(status)) errx(1, \"the child was killed\");", ""}}), "child",
               "killed the child"},
              {"not an exchange", with({{"There is", "There are"}}),
               "exchange errors signals killed "
               "orphan child others",
               "the exchange of lab 1"},
              {"the child notices by itself",
               {hold,
                let,
                header,
                maker,
                {kWait,
                 "while (sem_trywait(&shared->ready) == -1) { if (getppid() != maker) return 1; "
                 "usleep(50000); }"}},
               "",
               "20 of 20"},
          });
}

TEST_CASE("nothing that a program does harms anything, or goes unnamed", "[grade]") {
    if (cannot_grade()) return;
    const std::string top = root();
    const Graded first = grade("1", top + "/tests/programs/labs/exchange.cc");
    if (has(first.report, "unprotected")) SKIP_BECAUSE(first.report.substr(0, 200));
    struct Hostile {
        std::string what, body, says;
    };
    const Hostile programs[] = {
        {"a fork bomb", "for (;;) fork();", "fork bomb"},
        {"a hidden fork bomb", "for (;;) syscall(SYS_clone, 0x00800000 | SIGCHLD, 0, 0, 0, 0);",
         "hide a process"},
        {"an endless loop", "for (volatile int i = 0;; ++i) continue;", "an endless loop"},
        {"much output", "for (;;) puts(\"a line, and another line, and another\");",
         "too much output"},
        {"kill(-1)", "kill(-1, SIGKILL); kill(1, SIGKILL); pause();", "kill(-1, ...)"},
        {"a daemon", "if (fork() == 0) { setsid(); for (;;) usleep(10000); }",
         "it left a process running"},
        {"waits for nobody", "pause();", "nobody is left who could wake it"},
        {"sleeps for ever", "for (;;) sleep(1000000);", "it sleeps and sleeps"},
        {"reads for ever", "int p[2]; if (pipe(p)) return 1; char c; return read(p[0], &c, 1);",
         "the parent waits in read"},
        {"removes all",
         "return system(\"rm -rf /dev/shm/* /tmp/* " + top + "/tests/grade; ipcrm -a\");",
         "these are gone or changed"},
        {"writes to the grader's files", "return open(\"/etc/passwd\", O_WRONLY | O_TRUNC) != -1;",
         "what is not its own: /etc/passwd"},
        {"writes to process 1",
         "return open(\"/proc/1/mem\", O_RDWR) != -1 || open(\"/proc/1/fd/1\", O_RDWR) != -1;",
         "1 of 20"},
        {"much memory", "for (;;) memset(malloc(1 << 20), 1, 1 << 20);", "signal 11"},
        {"becomes another program", "execlp(\"yes\", \"yes\", nullptr);", "too much output"},
    };
    const std::string mark = "g" + std::to_string(getpid());
    std::vector<std::string> sources;
    for (const Hostile& it : programs)
        sources.push_back(
            "#include <fcntl.h>\n#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
            "#include <string.h>\n#include <sys/prctl.h>\n#include <sys/syscall.h>\n"
            "#include <unistd.h>\n"
            "int main() { prctl(PR_SET_NAME, \"" +
            mark + "\"); " + it.body + " }\n");
    const std::vector<Graded> all = grade_all("1", sources);
    for (size_t i = 0; i < all.size(); ++i) {
        INFO(programs[i].what << "\n" << all[i].report);
        CHECK(has(all[i].report, programs[i].says));
        CHECK(has(all[i].report, " of 20 points\n"));
        CHECK(!has(all[i].report, "not graded"));
        CHECK(!has(all[i].report, "20 of 20"));
    }
    CHECK(shell("ps -eo comm | grep -x " + mark).out.empty());
    CHECK(exists(top + "/tests/grade/grade.cc"));
    const Graded endless = grade_all("1", {"#include \"/dev/zero\"\nint main() {}\n"})[0];
    INFO(endless.report);
    CHECK(has(endless.report, " of 20 points\n"));
    CHECK(!has(endless.report, "20 of 20"));
}

// Where the kernel refuses namespaces. What others make while it grades, as the compiler does here,
// is neither the program's nor removed.
TEST_CASE("unprotected: that is said, all is graded, and others' objects stay", "[grade]") {
    if (cannot_grade()) return;
    const std::string line =
        "mount -t tmpfs none /dev/shm && echo 0 > /proc/sys/user/max_user_namespaces && \"$@\"; "
        "ls /dev/shm; ipcs -m -s -q | grep -c ^0x";
    const auto graded = [&](const Words& words) {
        Words all = {"unshare", "-Urmi", "sh", "-c", line, "sh"};
        all.insert(all.end(), words.begin(), words.end());
        const std::string compiler =
            "sh -c 'echo theirs > /dev/shm/theirs; ipcmk -M 9 -S 1 -Q >/dev/null; exec g++ \"$@\"'";
        return read(Program(all, root(), {{"CXX", compiler + " sh"}}).finish(kGrading));
    };
    if (!has(graded({"echo", "here"}).report, "here")) SKIP_BECAUSE("no namespaces here");
    Scratch scratch;
    const std::string grader = root() + "/tests/grade/grade", file = scratch.path + "/mine.cc";
    put(file, changed("exchange.cc", {}));
    const Graded right = graded({grader, "1", file});
    INFO(right.report);
    CHECK(has(right.report, "unprotected: use a throwaway container ("));
    CHECK(has(right.report, "20 of 20 points\n"));
    CHECK(has(right.report, "\ntheirs\n3\n"));
    put(file, changed("exchange.cc", {{kUnlink, ""}}));
    const Graded leaves = graded({grader, "1", file});
    INFO(leaves.report);
    CHECK(leaves.lost == "residue");
    CHECK(has(leaves.report, "\ntheirs\n3\n"));
}
