// docs/explain as a reader uses it, with a second terminal; and the tracer under it.

#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <regex>
#include <sstream>

#include "support.h"
#include "trace.h"

namespace {

std::string explain() { return program("EXPLAIN", "docs/explain"); }
std::string shm_posix() { return program("SHM_POSIX", "shm_posix/shm_posix"); }
std::string map_posix() { return program("MAP_POSIX", "map_posix/map_posix"); }
std::string shm_v() { return program("SHM_V", "shm_v/shm_v"); }

// A traced program with its output in files, in a session of its own.
struct Traced {
    explicit Traced(const Words& words, int seconds = kPatience)
        : tracer(words, seconds, [this] {
              setsid();
              for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
              setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // it refuses to be traced
              const int flags = O_WRONLY | O_CREAT | O_APPEND;
              dup2(open((scratch.path + "/out").c_str(), flags, 0600), STDOUT_FILENO);
              dup2(open((scratch.path + "/err").c_str(), flags, 0600), STDERR_FILENO);
          }) {}

    // Runs to the end; `act` sees each event first.
    template <typename Act>
    void go(Act act) {
        for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
            act(event);
    }
    std::string out() const { return contents(scratch.path + "/out"); }
    std::string err() const { return contents(scratch.path + "/err"); }

    Scratch scratch;
    Tracer tracer;
};

bool enters(const Event& event, int number, uint64_t call) {
    return event.what == Event::enters && event.who->number == number && event.who->call == call;
}

const std::string kItems =
    "There is 3 item in the shm\n1: Nellson\n2: Daisy\n3: Robbie\n";

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
    CHECK(std::regex_search(parent, std::regex("rt_sigprocmask openat unlink(at)? ftruncate fallocate "
                                               "mmap close rt_sigprocmask getpid clone3? .*wait4 .*"
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
            CHECK(shell("ls -lsL /proc/" + std::to_string(event.who->pid) + "/fd/3").out[0] == '0');
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
    for (Event event; (event = it.tracer.next()).what != Event::over;) {
        if (event.what == Event::returns && event.who->call == SYS_mmap &&
            event.who->argument[3] & 1 && event.who->argument[1] == 100)
            address = static_cast<uint64_t>(event.who->result);
        if (event.what == Event::begins) {
            held = event.who;
            continue;  // it stands
        }
        it.tracer.go_on(event.who);
        if (!held || !enters(event, 0, SYS_wait4)) continue;
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
        Traced it({"sh", "-c", "(sleep 1000 & sleep 1001) & sleep 1002"}, 1);
        it.go([&](const Event&) {});
        CHECK(it.tracer.late);
        for (const Tracee& one : it.tracer.tracees) pids.push_back(std::to_string(one.pid));
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
    CHECK(waitpid(-1, nullptr, WNOHANG | __WALL) == -1);
}

TEST_CASE("tracer: what cannot be executed, exec and threads", "[trace]") {
    Traced none({"/nowhere/program"});
    none.go([](const Event&) {});
    CHECK(WEXITSTATUS(none.tracer.tracees[0].status) == 127);
    CHECK(none.err() == "/nowhere/program: No such file or directory\n");

    Traced twice({"sh", "-c", "exec sh -c 'exec true'"});
    int executed = 0;
    twice.go([&](const Event& event) { executed += event.what == Event::executes; });
    CHECK(executed == 3);
    CHECK(twice.tracer.tracees.size() == 1);
}
