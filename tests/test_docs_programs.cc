// The two small programs of the course: docs/hold and docs/failures.

#include <fcntl.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include "support.h"

namespace {

const std::string hold = root() + "/docs/hold", failures = root() + "/docs/failures";

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

// What failures has left, whichever process of it.
std::string residue(const std::string& directory) {
    return shell("ls -d /dev/shm/failures-* " + directory +
                 "/failures-* 2> /dev/null; ipcs -m | grep ^0x66; true")
        .out;
}

}  // namespace

TEST_CASE("hold ends at each signal that asks for it, and says what it reads", "[docs-programs]") {
    Scratch scratch;
    write_items(scratch.path);
    // A shell without job control starts what works in the background with INT and QUIT ignored.
    for (const char* before : {"", "trap '' INT QUIT; "})
        for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
            Program program({"sh", "-c", before + std::string("exec ") + hold + " file tmp.shm"},
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

TEST_CASE("hold and failures say what they did not print", "[docs-programs]") {
    Scratch scratch;
    write_items(scratch.path);
    for (const char* line : {"/docs/hold --help", "/docs/hold file tmp.shm",
                             "/docs/failures --help", "/docs/failures ftok"}) {
        INFO(line);
        const Result full = shell(root() + line + " > /dev/full", scratch.path);
        CHECK(full.status == 1);
        CHECK(has(full.err, ": write(stdout): No space left on device\n"));
    }
}

TEST_CASE("hold and failures: the command line", "[docs-programs]") {
    for (const std::string& program : {hold, failures}) {
        const Result help = run({program, "--help"});
        CHECK(help.status == 0);
        CHECK(help.err.empty());
        CHECK(has(help.out, "usage: "));
        for (const Words& words : {Words{}, Words{""}, Words{"wrong"}, Words{"ftok", "x"},
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
    CHECK(run({hold, "posix", "/" + unique()}).status == 1);
}

TEST_CASE("failures leaves nothing when it is ended", "[docs-programs]") {
    Scratch scratch;
    const std::string before = residue(scratch.path);
    for (int signal : {SIGTERM, SIGINT, SIGKILL}) {
        Program program({failures, "dead-owner"}, scratch.path);  // waits a second
        program.await_out("mmap succeeds\n");
        const std::vector<pid_t> child = children(program.pid());
        REQUIRE(child.size() == 1);
        kill(program.pid(), signal);
        CHECK(program.finish().status == 128 + signal);
        CHECK(eventually(process_gone, std::to_string(child[0])));
    }
    // At some moment or other, in those that make a name, a file and segments.
    for (const char* word : {"no-size", "umask", "segment-size", "shmdt"})
        for (int microseconds = 0; microseconds < 3000; microseconds += 60) {
            Program program({failures, word}, scratch.path);
            usleep(static_cast<unsigned>(microseconds));
            kill(program.pid(), SIGTERM);
            program.finish();
        }
    CHECK(residue(scratch.path) == before);
}
