// docs/explain as a reader uses it, with a second terminal; and the tracer under it.

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <regex>
#include <sstream>

#include "traced.h"

namespace {

// LeakSanitizer refuses to be traced.
const char* const kNoLeaks = "ASAN_OPTIONS=detect_leaks=0";
std::string explain() { return program("EXPLAIN", "docs/explain"); }
std::string shm_posix() { return program("SHM_POSIX", "shm_posix/shm_posix"); }
std::string map_posix() { return program("MAP_POSIX", "map_posix/map_posix"); }
std::string shm_v() { return program("SHM_V", "shm_v/shm_v"); }

bool enters(const Event& event, int number, uint64_t call) {
    return event.what == Event::enters && event.who->number == number && event.who->call == call;
}

const std::string kItems = "There is 3 item in the shm\n1: Nellson\n2: Daisy\n3: Robbie\n";

}  // namespace

TEST_CASE("tracer: the calls of parent and child, in order and told apart", "[trace]") {
    const std::string name = "/" + unique();
    // A child of ours that has nothing to do with it, and that nobody may take from us.
    const pid_t other = fork();
    if (other == 0) _exit(5);
    Traced it({shm_posix(), "--name", name});
    std::string parent, child, path;
    int begun = 0;
    it.go([&](const Event& event) {
        Tracee* who = event.who;
        if (event.what == Event::begins) ++begun;
        if (event.what == Event::forks) CHECK(event.child->parent == who);
        if (event.what != Event::returns) return;
        const std::string call = call_name(who->call);
        (who->number == 0 ? parent : child) += call + " ";
        if (call.find("unlink") == 0)
            path = it.tracer.string(who, who->argument[call == "unlinkat" ? 1 : 0]);
        if (call == "ftruncate") CHECK(who->argument[1] == 100);
        if (call == "getppid") CHECK(who->result == it.tracer.tracees[0].pid);
        if (call == "wait4") CHECK(who->result == it.tracer.tracees[1].pid);
    });
    INFO(parent << "\n" << child);
    CHECK(path == "/dev/shm" + name);
    CHECK(std::regex_search(parent,
                            std::regex("rt_sigprocmask .*openat unlink(at)? ftruncate fallocate "
                                       "mmap close rt_sigprocmask getpid (rt_sigprocmask )?"
                                       "clone3? .*wait4 .*"
                                       "munmap .*write ")));
    CHECK(std::regex_search(child, std::regex("prctl getppid getpid .*write ")));
    CHECK(begun == 1);
    CHECK(it.tracer.tracees.size() == 2);
    CHECK(it.tracer.tracees[0].status == 0);
    int status = 0;
    CHECK(waitpid(other, &status, 0) == other);
    CHECK(WEXITSTATUS(status) == 5);
}

TEST_CASE("tracer: a call that fails is not executed", "[trace]") {
    const std::string name = "/" + unique();
    Traced it({shm_posix(), "--name", name});
    bool failed = false;
    it.go([&](const Event& event) {
        if (enters(event, 0, SYS_fallocate)) CHECK(it.tracer.answer(event.who, -ENOSPC));
        if (event.what == Event::returns && event.who->call == SYS_fallocate) {
            failed = event.who->result == -ENOSPC;
            CHECK(shell("ls -lsL /proc/" + std::to_string(event.who->pid) + "/fd/" +
                        std::to_string(event.who->argument[0]))
                      .out[0] == '0');
        }
    });
    CHECK(failed);
    CHECK(WEXITSTATUS(it.tracer.tracees[0].status) == 1);
    CHECK(it.err() == "shm_posix: posix_fallocate(" + name + "): " + strerror(ENOSPC) + "\n");
}

TEST_CASE("tracer: a result is changed after the call", "[trace]") {
    Traced it({"sh", "-c", "echo $PPID $$"});
    it.go([&](const Event& event) {
        if (event.what == Event::returns && event.who->call == SYS_getppid)
            CHECK(it.tracer.answer(event.who, 4711));
    });
    CHECK(it.out() == "4711 " + std::to_string(it.tracer.tracees[0].pid) + "\n");
}

TEST_CASE("tracer: parent or child is killed at its N-th call", "[trace]") {
    for (int number : {0, 1})
        for (int nth : {1, 3, 5}) {
            Traced it({shm_posix(), "--name", "/" + unique()});
            it.go([&](const Event& event) {
                if (event.what == Event::enters && event.who->number == number &&
                    event.who->calls == nth)
                    CHECK(it.tracer.send(event.who, SIGKILL));
            });
            INFO(number << " " << nth);
            const Tracee& killed = it.tracer.tracees[static_cast<size_t>(number)];
            CHECK(WTERMSIG(killed.status) == SIGKILL);
            CHECK(killed.calls == nth);
            if (number == 1) CHECK(has(it.err(), "the child was killed"));
            CHECK(!it.tracer.late);
        }
}

TEST_CASE("tracer: the child is held, looked at and changed; the parent runs on", "[trace]") {
    Traced it({shm_posix(), "--name", "/" + unique()});
    Tracee *held = nullptr, *parent = &it.tracer.tracees[0];
    uint64_t address = 0;
    bool waits = false, looked = false;
    for (Event event; (event = it.tracer.next()).what != Event::over;) {
        if (event.what == Event::returns && event.who->call == SYS_mmap &&
            event.who->argument[3] & 1 && event.who->argument[1] == 100)
            address = static_cast<uint64_t>(event.who->result);
        if (event.what == Event::begins) held = event.who;
        if (event.who != held || looked) it.tracer.go_on(event.who);  // the child stands
        waits = waits || enters(event, 0, SYS_wait4);
        if (!held || !waits || looked) continue;
        looked = true;
        // The parent sleeps now, the child has not done anything: no store is its own.
        CHECK(it.tracer.next(200).what == Event::nothing);
        CHECK(has(contents("/proc/" + std::to_string(parent->pid) + "/stat"), ") S "));
        CHECK(held->calls == 0);
        CHECK(it.out().empty());
        CHECK(it.tracer.string(held, address + 8) == "Nellson");
        CHECK(it.tracer.set_memory(held, address + 8, std::string("Changed\0", 8)));
        CHECK(!it.tracer.set_memory(held, 1, "x"));
        CHECK(it.tracer.memory(held, 1, 8).empty());
        it.tracer.go_on(held);
    }
    REQUIRE(held);
    CHECK(has(it.out(), "1: Changed\n"));
    CHECK(parent->status == 0);
}

TEST_CASE("tracer: a running process is held anywhere", "[trace]") {
    Traced it({"sh", "-c", "while :; do :; done"});
    Tracee* who = &it.tracer.tracees[0];
    while (it.tracer.next(300).what != Event::nothing) it.tracer.go_on(who);
    it.tracer.hold(who);
    CHECK(it.tracer.next().what == Event::held);
    CHECK(has(contents("/proc/" + std::to_string(who->pid) + "/stat"), ") t "));
    it.tracer.go_on(who);
    CHECK(it.tracer.next(100).what == Event::nothing);
    it.tracer.send(who, SIGTERM);
    CHECK(it.tracer.next().what == Event::signalled);
    it.tracer.go_on(who);
    CHECK(it.tracer.next().what == Event::ended);
    CHECK(WTERMSIG(who->status) == SIGTERM);
}

TEST_CASE("tracer: signals reach the program, or are taken away; a stop stays one", "[trace]") {
    Traced it({"sh", "-c",
               "trap 'echo usr1; exit 3' USR1; kill -TERM $$; echo on; kill -STOP $$; echo cont;"
               " kill -USR1 $$; echo not reached"});
    Tracee* who = &it.tracer.tracees[0];
    std::string told;
    for (Event event; (event = it.tracer.next()).what != Event::over;) {
        if (event.what == Event::signalled && who->signal == SIGTERM) who->signal = 0;
        if (event.what == Event::signalled) told += std::to_string(who->signal) + " ";
        if (event.what == Event::continues) told += "continues ";
        it.tracer.go_on(event.who);
        if (event.what != Event::stops) continue;
        told += "stops ";
        CHECK(it.tracer.next(300).what == Event::nothing);
        CHECK(it.out() == "on\n");
        it.tracer.go_on(who);  // does not wake it
        CHECK(it.tracer.next(300).what == Event::nothing);
        CHECK(it.tracer.send(who, SIGCONT));
    }
    CHECK(told == "0 19 stops continues 18 10 ");
    CHECK(it.out() == "on\ncont\nusr1\n");
    CHECK(WEXITSTATUS(who->status) == 3);
}

TEST_CASE("tracer: a signal at a call, to a process or to its group", "[trace]") {
    for (bool group : {false, true}) {
        Traced it({shm_posix(), "--name", "/" + unique()});
        it.go([&](const Event& event) {
            if (enters(event, 0, SYS_wait4)) CHECK(it.tracer.send(event.who, SIGUSR1, group));
        });
        CHECK(WTERMSIG(it.tracer.tracees[0].status) == SIGUSR1);
    }
    Tracer ours({"true"});  // in our own group
    CHECK(!ours.send(&ours.tracees[0], SIGUSR1, true));
}

TEST_CASE("tracer: a deadline, and nothing is left when it goes away", "[trace]") {
    std::vector<std::string> pids;
    {
        Traced it({"sh", "-c", "(sleep 1000 & sleep 1001) & sleep 1002"}, {}, 1);
        it.go([&](const Event&) {});
        CHECK(it.tracer.late);
        for (const Tracee& one : it.tracer.tracees) pids.push_back(std::to_string(one.pid));
    }
    {
        Traced busy({"sh", "-c", "while :; do kill -0 $$; done"}, {}, 1);
        busy.go([&](const Event&) {});
        CHECK(busy.tracer.late);
        CHECK(WTERMSIG(busy.tracer.tracees[0].status) == SIGKILL);
    }
    {
        Traced it({"sh", "-c", "(sleep 1000 & sleep 1001) & sleep 1002"});
        int executed = 0;
        while (executed < 4) {
            const Event event = it.tracer.next();
            executed += event.what == Event::executes;
            it.tracer.go_on(event.who);
        }
        for (const Tracee& one : it.tracer.tracees) pids.push_back(std::to_string(one.pid));
    }
    CHECK(pids.size() >= 8);
    for (const std::string& pid : pids) CHECK(process_gone(pid));
    // Process 1 of a container gets the orphans of all others.
    if (getpid() != 1) CHECK(waitpid(-1, nullptr, WNOHANG | __WALL) == -1);
}

TEST_CASE("tracer: what cannot be executed, exec and threads", "[trace]") {
    Traced none({"/nowhere/program"});
    none.go([](const Event&) {});
    CHECK(WEXITSTATUS(none.tracer.tracees[0].status) == 127);
    CHECK(none.err() == "/nowhere/program: No such file or directory\n");

    // What `prepare` calls is ours and not shown, though a signal stops it there.
    Tracer prepared({"true"}, kPatience, [] {
        raise(SIGURG);
        getppid();
    });
    std::string before;
    for (Event event; (event = prepared.next()).what != Event::executes; prepared.go_on(event.who))
        before += event.what == Event::signalled ? "signal " : "? ";
    CHECK(before == "signal ");

    Traced twice({"sh", "-c", "exec sh -c 'exec true'"});
    int executed = 0;
    twice.go([&](const Event& event) { executed += event.what == Event::executes; });
    CHECK(executed == 3);
    CHECK(twice.tracer.tracees.size() == 1);
}

// What a student may hand in: makes an object, never removes it, and its child polls.
static const char* kStudent = R"(
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
struct Shared { int ready; char text[40]; };
int main(int argc, char** argv) {
    int fd = shm_open(argv[1], O_CREAT | O_RDWR, 0666);
    ftruncate(fd, 1 << 20);
    Shared* it = (Shared*)mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fork() == 0) {
        while (*(volatile int*)&it->ready == 0) usleep(1000);
        printf("%s\n", it->text);
        return 0;
    }
    strcpy(it->text, "hello");
    it->ready = 1;
    wait(NULL);
    return 7;
}
)";

// One that waits for a second at most, and is never woken in time.
static const char* kDeadline = R"(
#include <semaphore.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main() {
    sem_t* it = (sem_t*)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_init(it, 1, 0);
    if (fork() == 0) {
        timespec end;
        clock_gettime(CLOCK_REALTIME, &end);
        const long asked = ++end.tv_sec;
        const int result = sem_timedwait(it, &end);
        printf("%d %ld\n", result, end.tv_sec - asked);
        return 0;
    }
    usleep(100);
    sem_post(it);
    wait(NULL);
}
)";

// Compiles it and says where it is; "" without a compiler.
static std::string built(const Scratch& scratch, const std::string& source,
                         const std::string& flags = "") {
    const std::string path = scratch.path + "/student";
    put(path + ".cc", source);
    const char* compiler = getenv("CXX");
    const Result result = shell(std::string(compiler ? compiler : "c++") + " -std=c++17 -w " +
                                flags + " -o " + path + " " + path + ".cc -lrt -pthread");
    return result.status == 0 ? path : "";
}

// What od -c shows for bytes in quotes, as explain writes them.
static bool od_shows(const std::string& od, const std::string& told) {
    std::string bytes;  // each as od has it, in its four columns
    std::istringstream lines(od);
    for (std::string line; std::getline(lines, line);)
        if (line.size() > 7) bytes += line.substr(7);
    size_t at = 0;
    for (size_t i = 0; i < told.size(); ++i) {
        std::string one = told[i] == '\\' ? told.substr(i + 1, 3) : told.substr(i, 1);
        if (told[i] == '\\') i += 3;
        if (one == "000") one = "\\0";
        at = bytes.find(std::string(4 - one.size(), ' ') + one, at);
        if (at == std::string::npos) return false;
        at += 4;
    }
    return true;
}

// Whether a command shows what was told above it: "" or what is wrong.
static std::string wrong(const std::string& told, const std::string& command) {
    const Result shown = shell(command);
    const auto size = [&] {  // the fifth column of ls -l, the sixth of ls -ls
        std::istringstream words(shown.out);
        std::vector<std::string> all{std::istream_iterator<std::string>(words), {}};
        const size_t at = has(command, "ls -ls") ? 5 : 4;
        return all.size() > at ? all[at] : "";
    };
    const auto lines = std::count(shown.out.begin(), shown.out.end(), '\n');
    bool right = false;
    std::smatch found;
    if (has(told, "a new file of 0 bytes"))
        right = size() == "0";
    else if (has(told, "File exists"))
        right = shown.status == 0;
    else if (std::regex_search(told, found, std::regex("a file of (\\d+) bytes")))
        right = size() == found[1];
    else if (std::regex_search(told, std::regex("descriptor \\d+ keeps")))
        right = has(shown.out, " (deleted)");
    else if (std::regex_search(told, found, std::regex("ftruncate\\(\\d+, (\\d+)\\)")))
        right = size() == found[1] && (has(command, "/tmp/shm-test") || shown.out[0] == '0');
    else if (has(told, "fallocate("))
        right = size() == "100" && shown.out[0] != '0';
    else if (has(told, "mmap("))
        right = lines == 1 && has(shown.out, has(told, "rw-s") ? " rw-s " : " r--s ");
    else if (std::regex_search(told, found, std::regex("close\\((\\d+)\\)")))
        right = has(shown.out, "2\n") && !has("\n" + shown.out, "\n" + found.str(1) + "\n");
    else if (has(told, "stored, ")) {
        right = shown.status == 0;
        const std::regex quoted("\"((?:[^\"\\\\]|\\\\[0-7]{3})*)\"");
        std::string text = told;
        for (; right && std::regex_search(text, found, quoted); text = found.suffix())
            right = od_shows(shown.out, found[1]);
    } else if (has(told, "fork()"))
        right =
            has(command, "ipcs") ? has(shown.out, " 2 ") : lines == 2 && has(shown.out, " rw-s ");
    else if (has(told, "waits in"))
        right = has(shown.out, "S (sleeping)");
    else if (has(told, "shmget("))
        right = lines == 2 && has(shown.out, " 100 ") && has(shown.out, " 0 ");
    else if (has(told, "shmat("))
        right = lines == 2 && has(shown.out, " 1 ");
    else if (has(told, "IPC_RMID"))
        right = lines == 2 && has(shown.out, "0x00000000 ") && has(shown.out, " dest");
    else if (has(told, "has freed it"))
        right = has(shown.out + shown.err, "not found");
    else if (has(told, "munmap(") || has(told, "unlink("))
        right = has(shown.out, "gone");
    return right ? "" : told + "$ " + command + "\n" + shown.out + shown.err;
}

struct Steps {
    std::vector<std::string> commands, wrong;
    std::string rest;  // what was told after the last command
    Result result;
};

// Steps through a program and types each command where explain waits, and those at the end.
static Steps step_through(const Words& words) {
    Steps steps;
    std::string line = "\"$@\"; echo \"    $ END $?\" >&2";
    Words all = {"sh", "-c", line, "sh"};
    all.insert(all.end(), words.begin(), words.end());
    Program it(all);
    const std::string mark = "    $ ";
    for (size_t from = 0, at, end;;) {
        it.await_err(mark);
        const std::string& err = it.await_err("\n");
        at = err.find("\n" + mark, from);
        if (at == std::string::npos)
            at = err.find(mark, from);
        else
            ++at;
        end = err.find('\n', at);
        const std::string told = err.substr(from, at - from),
                          command = err.substr(at + mark.size(), end - at - mark.size());
        from = end + 1;
        if (command.compare(0, 4, "END ") == 0) {
            steps.rest = told;
            steps.result = it.finish();
            steps.result.status = std::stoi(command.substr(4));
            return steps;
        }
        steps.commands.push_back(command);
        const std::string is = has(told, "stays behind: ")
                                   ? (shell(command).status == 0 ? "" : told + command)
                                   : wrong(told, command);
        if (!is.empty()) steps.wrong.push_back(is);
        if (!has(told, "stays behind: ")) it.write("\n");
    }
}

static void check_steps(const Steps& steps, const std::string& out, int status, size_t least) {
    for (const std::string& it : steps.wrong) FAIL_CHECK(it);
    INFO(steps.result.err);
    CHECK(std::regex_replace(steps.result.out, std::regex("\\b\\d{2,}\\b|(Child|Parent) \\d+"),
                             "$1 N") == out);
    CHECK(steps.result.status == status);
    CHECK(steps.commands.size() >= least);
}

const std::string kExchange = "Child N: start\n" + kItems + "Parent N get child status:0\n";

TEST_CASE("explain --step: each command shows what is told", "[explain]") {
    Scratch scratch;
    const std::vector<std::pair<Words, size_t>> programs = {
        {{shm_posix(), "--name", "/" + unique()}, 12},
        {{map_posix(), "--name", scratch.path + "/file.shm"}, 12},
        {{shm_v(), "--name", unique_key()}, 9}};
    for (const auto& [words, least] : programs) {
        Words all = {"env", kNoLeaks, explain(), "--step"};
        all.insert(all.end(), words.begin(), words.end());
        INFO(words[0]);
        check_steps(step_through(all), kExchange, 0, least);
    }
}

TEST_CASE("explain --step: what stays behind, and the command that removes it", "[explain]") {
    Scratch scratch;
    const std::string name = "/" + unique(), file = scratch.path + "/it's $HOME",
                      key = unique_key();
    for (const Words& words :
         {Words{shm_posix(), "write", "--name", name}, Words{map_posix(), "write", "--name", file},
          Words{shm_v(), "write", "--name", key}}) {
        Words all = {"env", kNoLeaks, explain(), "--step"};
        all.insert(all.end(), words.begin(), words.end());
        const Steps steps = step_through(all);
        check_steps(steps, "", 0, 4);
        CHECK(has(steps.result.err, "stays behind: "));
    }
    CHECK(!exists("/dev/shm" + name));
    CHECK(!exists(file));
    CHECK(leftovers().empty());
    // One that is there already, of which nothing is made and so nothing stays.
    REQUIRE(run({shm_posix(), "write", "--name", name}).status == 0);
    const Steps taken =
        step_through({"env", kNoLeaks, explain(), "--step", shm_posix(), "write", "--name", name});
    CHECK(taken.result.status == 1);
    CHECK(taken.wrong.empty());
    CHECK(!has(taken.result.err, "stays behind"));
    const Steps read =
        step_through({"env", kNoLeaks, explain(), "--step", shm_posix(), "read", "--name", name});
    check_steps(read, kItems, 0, 2);
    CHECK(!has(read.result.err, "stored"));
    REQUIRE(shell("rm /dev/shm" + name).status == 0);
}

TEST_CASE("explain --step: a student's program, also a static one", "[explain]") {
    for (const std::string flags : {"", "-static"}) {
#ifdef __GLIBC__  // musl's are always whole
        if (!flags.empty() && !__GLIBC_PREREQ(2, 34))
            SKIP_BECAUSE("a static program with semaphores needs glibc 2.34");
#endif
        Scratch scratch;
        const std::string path = built(scratch, kStudent, flags), name = "/" + unique();
        if (path.empty()) SKIP_BECAUSE("cannot build a program here " + flags);
        const Steps steps = step_through({"env", kNoLeaks, explain(), "--step", path, name});
        INFO(flags);
        check_steps(steps, "hello\n", 7, 7);
        CHECK(has(steps.result.err, "told once"));
        CHECK(has(steps.result.err, "\"hello\""));
        CHECK(has(steps.result.err, "$ rm /dev/shm" + name));
        CHECK(!exists("/dev/shm" + name));
    }
}

TEST_CASE("explain: an ordinary user, in namespaces", "[explain]") {
    const Words user = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
    const Words none, here = {"unshare", "-Urp", "--fork"},
                      proc = {"unshare", "-Urp", "--fork", "--mount-proc"};
    int tried = 0;
    Scratch scratch;  // the collection may lie where that user cannot go
    REQUIRE(shell("cd " + scratch.path + " && chmod 755 . && cp " + quoted(explain()) +
                  " explain && cp " + quoted(shm_posix()) + " shm_posix && cp " + quoted(shm_v()) +
                  " shm_v")
                .status == 0);
    for (const Words& first :
         geteuid() == 0 ? std::vector<Words>{none, user} : std::vector<Words>{none})
        for (const Words& space : {none, here, proc}) {
            Words all = first;
            all.insert(all.end(), space.begin(), space.end());
            Words probe = all;
            probe.push_back("true");
            if (run(probe).status != 0) {
                skip("refused here: " + (space.empty() ? first[0] : space.back()));
                continue;
            }
            ++tried;
            Words posix = all, segment = all;
            for (const std::string& word : {std::string("env"), std::string(kNoLeaks),
                                            scratch.path + "/explain", std::string("--step")}) {
                posix.push_back(word);
                segment.push_back(word);
            }
            for (const std::string& word :
                 {scratch.path + "/shm_posix", std::string("--name"), "/" + unique()})
                posix.push_back(word);
            for (const std::string& word :
                 {scratch.path + "/shm_v", std::string("--name"), unique_key()})
                segment.push_back(word);
            const bool foreign = space == here;
            // With a /proc of its own the numbers are those in there: a second terminal would be
            // there, too. We are not, so there we only look at what is told.
            if (space == proc) {
                const Result result = run(posix, std::string(60, '\n'));
                CHECK(result.status == 0);
                CHECK(has(result.err, "/maps"));
                CHECK(!has(result.err, "/proc is of another"));
                continue;
            }
            const Steps steps = step_through(posix);
            check_steps(steps, kExchange, 0, 12);
            CHECK(has(steps.result.err, "/proc is of another PID namespace") == foreign);
            check_steps(step_through(segment), kExchange, 0, 9);
        }
    CHECK(tried > 0);
}

TEST_CASE("explain: what is told of an exchange, word for word", "[explain]") {
    const std::string name = "/" + unique();
    const Result result = run({"env", kNoLeaks, explain(), shm_posix(), "--name", name});
    std::string told = std::regex_replace(result.err, std::regex(name), "/tmp");
    told = std::regex_replace(told, std::regex("0x[0-9a-f]+"), "ADDRESS");
    told = std::regex_replace(told, std::regex("skip=\\d+"), "skip=ADDRESS");
    std::smatch pids;
    REQUIRE(std::regex_search(told, pids, std::regex("parent (\\d+): fork\\(\\) = (\\d+)")));
    const std::string parent = pids[1], child = pids[2];
    told = std::regex_replace(told, std::regex("\\b" + parent + "\\b"), "P");
    told = std::regex_replace(told, std::regex("\\b" + child + "\\b"), "C");
    REQUIRE(std::regex_search(told, pids, std::regex("descriptor (\\d+) keeps")));
    const std::string fd = pids[1];  // 3, if nothing else is open
    told = std::regex_replace(told, std::regex("\\(" + fd + "\\b"), "(3");
    told = std::regex_replace(told, std::regex("(fd/|SHARED, |descriptor )" + fd + "\\b"), "$013");
    told = std::regex_replace(told, std::regex("0600\\) = " + fd), "0600) = 3");
    const std::string end = "what sem_post does: wakes one that sleeps there, if any\n";
    REQUIRE(has(told, end));
    const std::string begin =
        R"(program P: open("/dev/shm/tmp", O_RDWR|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600) = 3
    what shm_open does: a new file of 0 bytes on the tmpfs /dev/shm
    $ ls -l /dev/shm/tmp
program P: unlink("/dev/shm/tmp") = 0
    what shm_unlink does: the name is gone; descriptor 3 keeps the object
    $ ls -l /proc/P/fd/3
program P: ftruncate(3, 100) = 0
    its size; the pages get memory when they are touched
    $ ls -lsL /proc/P/fd/3
program P: fallocate(3, 0, 0, 100) = 0
    what posix_fallocate does: all pages have memory now, or it is ENOSPC
    $ ls -lsL /proc/P/fd/3
program P: mmap(NULL, 100, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0) = ADDRESS
    memory now: /dev/shm/tmp; rw-s: shared, stores reach all who map it
    $ grep -F /dev/shm/tmp /proc/P/maps
program P: close(3) = 0
    the mapping keeps the object; the descriptor has done its work
    $ ls /proc/P/fd
program P: stored, without a system call, in /dev/shm/tmp:
    byte 64 "\200"
    $ dd if=/proc/P/mem bs=1 skip=ADDRESS count=1 status=none | od -A d -c
parent P: fork() = C
    child C has the same mappings: both see the same bytes
    $ grep -F /dev/shm/tmp /proc/P/maps /proc/C/maps
child C: stored, without a system call, in /dev/shm/tmp:
    byte 60 "\001"
    $ dd if=/proc/C/mem bs=1 skip=ADDRESS count=1 status=none | od -A d -c
child C: waits in futex(byte 56 of /dev/shm/tmp, FUTEX_WAIT)
    what sem_wait does: it sleeps until somebody wakes it
    $ grep State /proc/C/status
parent P: stored, without a system call, in /dev/shm/tmp:
    bytes 0-4 "NDR2\003", 8-14 "Nellson", 24-28 "Daisy", 40-45 "Robbie", 56 "\001"
    $ dd if=/proc/P/mem bs=1 skip=ADDRESS count=57 status=none | od -A d -c
parent P: futex(byte 56 of /dev/shm/tmp, FUTEX_WAKE)
    )";
    CHECK(told.substr(0, told.find(end)) == begin);
    for (const char* later :
         {"child C: exit(0)\n    its mapping of /dev/shm/tmp has ended with it\n",
          "parent P: munmap(/dev/shm/tmp) = 0\n", "parent P: exit(0)\n"})
        CHECK(has(told, later));
    std::istringstream lines(told);
    for (std::string line; std::getline(lines, line);) CHECK(line.size() < 100);
    CHECK(result.status == 0);
}

TEST_CASE("explain: exit status, usage, output", "[explain]") {
    CHECK(run({"env", kNoLeaks, explain(), "sh", "-c", "echo out; exit 7"}).status == 7);
    CHECK(run({"env", kNoLeaks, explain(), "sh", "-c", "kill -TERM $$"}).status == 128 + SIGTERM);
    CHECK(run({"env", kNoLeaks, explain(), "sh", "-c", "kill -KILL $$"}).status == 128 + SIGKILL);
    CHECK(run({"env", kNoLeaks, explain(), "/nowhere/program"}).status == 127);
    CHECK(run({"env", kNoLeaks, explain()}).status == 2);
    CHECK(run({"env", kNoLeaks, explain(), "--steps", "true"}).status == 2);
    CHECK(run({"env", kNoLeaks, explain(), "--step"}).status == 2);
    const Result help = run({"env", kNoLeaks, explain(), "--help"});
    CHECK(help.status == 0);
    CHECK(help.out.find("usage: docs/explain [--step] PROGRAM [ARGUMENTS...]\n") == 0);
    CHECK(help.err.empty());
    const Result quiet = run({"env", kNoLeaks, explain(), "sh", "-c", "cat; :"}, "through\n");
    CHECK(quiet.out == "through\n");
    CHECK(!has(quiet.err, "$ "));
}

TEST_CASE("explain: signals reach the program", "[explain]") {
    for (const std::string signal : {"HUP", "INT", "QUIT", "TERM", "USR1", "USR2"}) {
        // No fork in it: dash loses a signal that comes between its vfork and exec.
        Program it({"env", kNoLeaks, explain(), "sh", "-c",
                    "trap 'echo got " + signal + "; exit 3' " + signal +
                        "; echo ready; while :; do :; done"});
        it.await_out("ready\n");
        REQUIRE(shell("kill -" + signal + " " + std::to_string(it.pid())).status == 0);
        it.await_out("got " + signal + "\n");
        CHECK(it.finish().status == 3);
    }
}

TEST_CASE("explain --step: a signal while it waits for Enter resumes all", "[explain]") {
    const std::string name = "/" + unique();
    Program it({"env", kNoLeaks, explain(), "--step", shm_posix(), "--name", name});
    while (!has(it.await_err("    $ "), "FUTEX_WAIT")) it.write("\n");
    REQUIRE(kill(it.pid(), SIGINT) == 0);  // not from a terminal: the program gets it, too
    const Result result = it.finish();
    CHECK(result.status == 128 + SIGINT);
    CHECK(has(result.err, "gets a signal: Interrupt"));
    CHECK(!exists("/dev/shm" + name));

    if (shell("command -v script && command -v setsid").status != 0)
        SKIP_BECAUSE("script or setsid is not installed: no terminal to press Ctrl-C in");
    // As a terminal does it: to all. While it waits for Enter, that is meant for explain. `exec`:
    // a shell in between would get it, too.
    Program all({"env", kNoLeaks, "setsid", "-w", "script", "-qefc",
                 "exec " + quoted(explain()) + " --step " + quoted(shm_posix()) + " --name " + name,
                 "/dev/null"});
    all.await_out("Enter goes on here)");
    all.write("\x03");
    const Result after = all.finish();
    INFO(after.out);
    CHECK(after.status == 0);
    CHECK(has(after.out, "3: Robbie"));
    CHECK(has(after.out, "exit(0)"));

    // A second one is the program's.
    Program twice({"env", kNoLeaks, "setsid", "-w", "script", "-qefc",
                   "exec " + quoted(explain()) + " --step sh -c 'echo here; exec sleep 1000'",
                   "/dev/null"});
    Program once({"env", kNoLeaks, "setsid", "-w", "script", "-qefc",
                  "exec " + quoted(explain()) + " sh -c 'echo here; exec sleep 1000'",
                  "/dev/null"});
    for (Program* each : {&twice, &once}) {
        each->await_out("here");
        each->write("\x03");
    }
    CHECK(has(once.finish().out, "killed: Interrupt"));
    twice.write("\x03");
    CHECK(has(twice.finish().out, "killed: Interrupt"));
}

TEST_CASE("explain --step: the end of stdin is Enter; deadlines wait", "[explain]") {
    const Result result =
        run({"env", kNoLeaks, explain(), "--step", shm_posix(), "--name", "/" + unique()});
    CHECK(result.status == 0);
    CHECK(has(result.err, "its deadline gets an hour more"));

    Scratch scratch;
    const std::string path = built(scratch, kDeadline);
    if (path.empty()) SKIP_BECAUSE("there is no compiler");
    Program it({"env", kNoLeaks, explain(), "--step", path});
    for (int i = 0; i < 40 && !has(it.await_err("    $ "), "deadline"); ++i) it.write("\n");
    usleep(1200 * 1000);  // longer than the program would wait
    it.write(std::string(40, '\n'));
    const Result waited = it.finish();
    INFO(waited.err);
    CHECK(waited.out == "0 0\n");  // woken, and its deadline is what it was
}

TEST_CASE("explain: a stopped program stays stopped", "[explain]") {
    Program it({"env", kNoLeaks, explain(), "sh", "-c", "echo $$; kill -STOP $$; echo on"});
    const std::string pid = it.await_out("\n");
    it.await_err("stopped, until SIGCONT\n");
    usleep(300 * 1000);
    REQUIRE(shell("kill -CONT " + pid).status == 0);
    it.await_err("continues\n");
    const Result result = it.finish();
    CHECK(result.out == pid + "on\n");
    CHECK(result.status == 0);
}

TEST_CASE("explain: looking at an object gives it no memory", "[explain]") {
    Scratch scratch;
    const std::string path = built(scratch, kStudent), name = "/" + unique();
    if (path.empty()) SKIP_BECAUSE("there is no compiler");
    CHECK(run({"env", kNoLeaks, explain(), path, name}).status == 7);
    struct stat it = {};
    CHECK(stat(("/dev/shm" + name).c_str(), &it) == 0);
    CHECK(it.st_size == 1 << 20);
    CHECK(it.st_blocks * 512 == sysconf(_SC_PAGESIZE));
    // What it held before is no store of the program; this one stores the same once more.
    const Result again = run({"env", kNoLeaks, explain(), path, name});
    CHECK(again.out == "hello\n");
    CHECK(!has(again.err, "stored"));
    // What somebody else removes does not stay behind.
    Program it_goes({"env", kNoLeaks, explain(), "--step", path, name});
    it_goes.await_err("    $ ");
    CHECK(unlink(("/dev/shm" + name).c_str()) == 0);
    CHECK(!has(it_goes.finish().err, "stays behind"));
}
