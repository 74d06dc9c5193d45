// The small programs of the course: docs/hold, docs/failures, docs/agreeing, docs/nameless.

#include <fcntl.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include "support.h"
#include "trace.h"

namespace {

const std::string hold = root() + "/docs/hold", failures = root() + "/docs/failures",
                  agreeing = root() + "/docs/agreeing", nameless = root() + "/docs/nameless";

// The state of a process, as proc_pid_stat(5) has it; "" when it is gone.
std::string state(const std::string& pid) {
    const std::string stat = contents("/proc/" + pid + "/stat");
    const size_t at = stat.rfind(") ");
    return at == std::string::npos ? "" : stat.substr(at + 2, 1);
}
bool stopped(const std::string& pid) { return state(pid) == "T"; }
bool not_stopped(const std::string& pid) { return state(pid) == "S" || process_gone(pid); }

// A file with items in it, as map_posix writes it.
void write_items(const std::string& directory) {
    REQUIRE(run({root() + "/map_posix/map_posix", "write"}, "", directory).status == 0);
}

// Runs failures; ends the parent by a signal when its child enters that call (0: never). Returns
// how many calls the child entered, and puts what it left into `left`.
int end_parent_at(const std::string& word, int stop, int number, std::string& left) {
    Scratch scratch;
    // Ids are not given again soon, pids are: a segment that was there before is not ours, though
    // its maker had the same pid.
    shell("awk '{print $2}' /proc/sysvipc/shm > before", scratch.path);
    Tracer tracer({failures, word}, kPatience, [&] {
        setsid();
        if (chdir(scratch.path.c_str()) == -1) _exit(126);
        for (int fd : {STDOUT_FILENO, STDERR_FILENO}) dup2(open("/dev/null", O_WRONLY), fd);
    });
    Tracee* held = nullptr;
    int calls = 0;
    for (Event event; (event = tracer.next()).what != Event::over;) {
        if (event.what == Event::enters && event.who->number == 1 && ++calls == stop) {
            held = event.who;
            tracer.send(&tracer.tracees[0], number);
            continue;  // until the parent has ended
        }
        if (event.what == Event::ended && event.who->number == 0) tracer.go_on(held);
        tracer.go_on(event.who);
    }
    CHECK(!tracer.late);
    const std::string pid = std::to_string(tracer.tracees.at(1).pid);
    const std::string segments =
        "awk '$5 == " + pid + " {print $2}' /proc/sysvipc/shm | grep -vxFf before";
    left =
        shell("ls /dev/shm/failures-" + pid + " failures-* 2> /dev/null; " + segments +
                  "; rm -f /dev/shm/failures-" + pid + "; " + segments + " | xargs -rn1 ipcrm -m",
              scratch.path)
            .out;
    return calls;
}

}  // namespace

TEST_CASE("hold ends at each signal that asks for it, and says what it reads", "[docs-programs]") {
    Scratch scratch;
    write_items(scratch.path);
    // A shell without job control starts what works in the background with INT and QUIT ignored.
    for (const char* before : {"", "trap '' INT QUIT; "})
        for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM}) {
            Program program(
                {"sh", "-c", before + std::string("exec ") + quoted(hold) + " file tmp.shm"},
                scratch.path);
            program.await_out(" holds tmp.shm\n");
            kill(program.pid(), signal);
            const std::string pid = std::to_string(program.pid());
            const Result result = program.finish();
            INFO(before << signal);
            CHECK(result.status == 0);
            CHECK(result.out == pid + " holds tmp.shm\n" + pid + " reads Nellson\n");
            CHECK(result.err.empty());
        }
}

TEST_CASE("hold that is stopped and goes on still holds", "[docs-programs]") {
    Scratch scratch;
    write_items(scratch.path);
    Program program({hold, "file", "tmp.shm", "fork"}, scratch.path);
    program.await_out(" holds tmp.shm\n");
    const std::string pid = std::to_string(program.pid());
    const std::vector<pid_t> child = children(program.pid());
    REQUIRE(child.size() == 1);
    for (int times = 0; times < 3; ++times) {
        kill(program.pid(), SIGSTOP);
        REQUIRE(eventually(stopped, pid));
        kill(program.pid(), SIGCONT);
        REQUIRE(eventually(not_stopped, pid));
    }
    CHECK(has(contents("/proc/" + pid + "/maps"), "/tmp.shm"));
    CHECK(has(contents("/proc/" + std::to_string(child[0]) + "/maps"), "/tmp.shm"));
    kill(program.pid(), SIGTERM);
    const Result result = program.finish();
    CHECK(result.status == 0);
    CHECK(has(result.out, pid + " reads Nellson\n"));
    CHECK(eventually(process_gone, std::to_string(child[0])));
}

TEST_CASE("hold refuses what has no items", "[docs-programs]") {
    Scratch scratch;
    put(scratch.path + "/empty", "");
    put(scratch.path + "/short", std::string(99, '\0'));
    put(scratch.path + "/endless", std::string(100, 'x'));
    REQUIRE(mkfifo((scratch.path + "/fifo").c_str(), 0600) == 0);
    REQUIRE(mkdir((scratch.path + "/directory").c_str(), 0700) == 0);
    for (const char* name : {"empty", "short", "fifo", "directory", "/dev/null"}) {
        const Result result = run({hold, "file", name}, "", scratch.path);
        CHECK(result.status == 1);
        CHECK(result.err == "hold: " + std::string(name) + " is not a file with 100 bytes\n");
        CHECK(result.out.empty());
    }
    const Result endless = run({hold, "file", "endless"}, "", scratch.path);
    CHECK(endless.status == 1);
    CHECK(endless.err == "hold: the first name has no end\n");
    write_items(scratch.path);
    const Result command = run({hold, "file", "tmp.shm", "exec", "./none"}, "", scratch.path);
    CHECK(command.status == 1);
    CHECK(command.err == "hold: execvp(./none): No such file or directory\n");

    const std::string key = unique_key();
    const int id = shmget(static_cast<key_t>(std::stoul(key, nullptr, 0)), 99, IPC_CREAT | 0600);
    REQUIRE(id != -1);
    const Result segment = run({hold, "key", key});
    CHECK(segment.status == 1);
    CHECK(segment.err == "hold: " + key + " is not a segment with 100 bytes\n");
    shmctl(id, IPC_RMID, nullptr);
}

TEST_CASE("hold looks again when it ends", "[docs-programs]") {
    Scratch scratch;
    write_items(scratch.path);
    Program program({hold, "file", "tmp.shm"}, scratch.path);
    program.await_out(" holds tmp.shm\n");
    const int fd = open((scratch.path + "/tmp.shm").c_str(), O_WRONLY);
    const std::string endless(100, 'x');
    REQUIRE(write(fd, endless.data(), endless.size()) == 100);
    close(fd);
    kill(program.pid(), SIGTERM);
    const Result result = program.finish();
    CHECK(result.status == 1);
    CHECK(result.err == "hold: the first name has no end\n");
    CHECK(!has(result.out, "reads"));
}

TEST_CASE("the small programs say what they did not print", "[docs-programs]") {
    Scratch scratch;
    write_items(scratch.path);
    for (const char* line :
         {"/docs/hold --help", "/docs/hold file tmp.shm", "/docs/failures --help",
          "/docs/failures ftok", "/docs/agreeing --help", "/docs/agreeing add-atomic",
          "/docs/nameless --help", "/docs/nameless anonymous"}) {
        INFO(line);
        const Result full = shell(quoted(root()) + line + " > /dev/full", scratch.path);
        CHECK(full.status == 1);
        CHECK(has(full.err, ": write(stdout): No space left on device\n"));
    }
    const Result limited =
        shell("prlimit --fsize=0 " + quoted(hold) + " file tmp.shm > f", scratch.path);
    CHECK(limited.err == "hold: write(stdout): File too large\n");
}

TEST_CASE("the small programs: the command line", "[docs-programs]") {
    for (const std::string& program : {hold, failures, agreeing, nameless}) {
        const Result help = run({program, "--help"});
        CHECK(help.status == 0);
        CHECK(help.err.empty());
        CHECK(has(help.out, "usage: "));
        for (const Words& words :
             {Words{}, Words{""}, Words{"wrong"}, Words{"key"}, Words{"ftok", "x"},
              Words{"file", "x", "fork", "y"}, Words{"file", "x", "exec"}}) {
            Words line = {program};
            line.insert(line.end(), words.begin(), words.end());
            const Result wrong = run(line);
            CHECK(wrong.status == 2);
            CHECK((has(wrong.err, "usage: ") || has(wrong.err, "see --help")));
            CHECK(wrong.out.empty());
        }
    }
    CHECK(run({hold, "fyle", "x"}).status == 2);
    CHECK(run({hold, "key", "many"}).status == 2);
    CHECK(run({hold, "key", "0x100000000"}).status == 2);
    CHECK(run({hold, "id", "2147483648"}).status == 2);
    CHECK(run({hold, "posix", "/" + unique()}).status == 1);
}

TEST_CASE("failures leaves nothing when it is ended", "[docs-programs]") {
    for (int signal : {SIGTERM, SIGINT, SIGKILL}) {
        Program program({failures, "dead-owner"});  // waits a second
        program.await_out("mmap succeeds\n");
        const std::vector<pid_t> child = children(program.pid());
        REQUIRE(child.size() == 1);
        kill(program.pid(), signal);
        CHECK(program.finish().status == 128 + signal);
        CHECK(eventually(process_gone, std::to_string(child[0])));
    }
    // At every moment, in those that make a name, a file and segments.
    for (const char* word : {"no-size", "umask", "segment-size", "shmdt"}) {
        std::string left;
        const int calls = end_parent_at(word, 0, SIGTERM, left);
        CHECK(calls > 5);
        CHECK(left.empty());
        for (int stop = 1; stop <= calls; ++stop) {
            end_parent_at(word, stop, SIGTERM, left);
            INFO(word << ", parent ended at call " << stop);
            CHECK(left == "");
        }
    }
}

TEST_CASE("agreeing takes its name along when it is ended", "[docs-programs]") {
    DefaultNames names;  // suites side by side take turns
    if (exists("/dev/shm/sem.ready")) SKIP_BECAUSE("/dev/shm/sem.ready is taken");
    for (int signal : {SIGTERM, SIGINT}) {
        Program program({agreeing, "named-wait"});
        program.await_out("waits for /ready\n");
        CHECK(exists("/dev/shm/sem.ready"));
        kill(program.pid(), signal);
        CHECK(program.finish().status == 128 + signal);
        CHECK(!exists("/dev/shm/sem.ready"));
    }
}

TEST_CASE("the children of agreeing go with it", "[docs-programs]") {
    Program waits({agreeing, "pshared-0"});  // waits a second
    std::vector<pid_t> child;
    while (child.empty() && !process_gone(std::to_string(waits.pid())))
        child = children(waits.pid());
    REQUIRE(child.size() == 1);
    kill(waits.pid(), SIGKILL);
    CHECK(waits.finish().status == 128 + SIGKILL);
    CHECK(eventually(process_gone, std::to_string(child[0])));
}
