// What the tests need to run a program and to look at it from outside, as a user would.

#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>  // Catch2 version 3
#else
#include <catch2/catch.hpp>  // Catch2 version 2
#endif

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

using Words = std::vector<std::string>;

// A program at work, with pipes on its three standard streams. Every wait ends after `kPatience`
// seconds with a failed test and the program killed; so does the destructor.
constexpr int kPatience = 30;

struct Result {
    int status = -1;  // as the shell has it: the exit status, or 128 + the signal
    std::string out, err;
};

class Program {
  public:
    // Starts words[0] with the rest as arguments; `directory` is where it runs ("": here). `extra`
    // is added to the environment.
    explicit Program(const Words& words, const std::string& directory = "",
                     const std::map<std::string, std::string>& extra = {});
    ~Program();
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    void write(const std::string& text);  // to its stdin
    void close_input();
    // Reads until `text` has come on stderr (or stdout) once more, and returns all of that stream.
    const std::string& await_err(const std::string& text) { return await(2, text); }
    const std::string& await_out(const std::string& text) { return await(1, text); }
    Result finish(int seconds = kPatience);  // closes its stdin, reads all, waits for its end
    pid_t pid() const { return pid_; }

  private:
    const std::string& await(int stream, const std::string& text);
    bool read_some(int seconds = kPatience);

    pid_t pid_ = -1;
    int in_ = -1;
    int fds_[3] = {-1, -1, -1};  // [1] its stdout, [2] its stderr
    std::string text_[3];
    size_t seen_[3] = {0, 0, 0};
};

// Runs a program to its end, with `input` on stdin.
Result run(const Words& words, const std::string& input = "", const std::string& directory = "");

// Runs a command line as a user types it.
Result shell(const std::string& line, const std::string& directory = "");

// A path as one word of such a line, whatever is in it.
std::string quoted(const std::string& path);

// A directory of its own for each test, where programs may run, removed with all that is in it.
class Scratch {
  public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    const std::string path;
};

// Names that no other test or suite on this machine uses.
std::string unique();      // "shm-test-PID-N"
std::string unique_key();  // "0x5...", never that of an existing segment
std::string leftovers();   // what exists of these, in /dev/shm and ipcs: asked after every test

// Holds the default names (/tmp, /packets, 0x12345678) for this test: suites that run side by side,
// also of other users, take turns, and wait for each other for half an hour. `taken` says which of them exists already and so belongs to somebody else.
class DefaultNames {
  public:
    // With `now` it does not wait for its turn: then another suite has taken them.
    explicit DefaultNames(bool now = false);
    ~DefaultNames() { take_back(), close(lock_); }
    DefaultNames(const DefaultNames&) = delete;
    DefaultNames& operator=(const DefaultNames&) = delete;
    // Removes what bears names that were free before, and says what that was.
    std::string take_back();
    std::string taken;

  private:
    int lock_;
};

// The collection's top directory.
std::string root();

// The program under test: what the variable says (SHM_POSIX=/home/me/shm_posix), or our own.
std::string program(const std::string& variable, const std::string& ours);

// Whether we can be other users, as root of the machine can, and root of a user namespace cannot.
bool can_be_others();

// Whether a sanitizer is built into a program: that makes calls and takes memory of its own.
bool sanitized(const std::string& program);

bool exists(const std::string& path);  // also a dangling link
std::string contents(const std::string& path);
void put(const std::string& path, const std::string& bytes);
bool has(const std::string& text, const std::string& part);

// The children of a process that still run or were not waited for.
std::vector<pid_t> children(pid_t parent);

// True once `condition` holds; false when that takes longer than `seconds`.
bool eventually(bool (*condition)(const std::string&), const std::string& argument,
                int seconds = kPatience);
bool process_gone(const std::string& pid);

// Ends the test as skipped, and has the summary say why.
#define SKIP_BECAUSE(reason) \
    do {                     \
        skip(reason);        \
        return;              \
    } while (false)
void skip(const std::string& reason);
