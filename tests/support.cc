#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "../common/process.h"

namespace {

using Clock = std::chrono::steady_clock;

Clock::time_point deadline(int seconds = kPatience) {
    return Clock::now() + std::chrono::seconds(seconds);
}

int left(Clock::time_point end) {
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    return ms > 0 ? static_cast<int>(ms) : 0;
}

}  // namespace

Program::Program(const Words& words, const std::string& directory,
                 const std::map<std::string, std::string>& extra) {
    int in[2], out[2], err[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) FAIL("pipe2");
    std::vector<char*> argv;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_ = fork();
    if (pid_ == 0) {
        setsid();  // so that its children can be killed with it
        // A program starts with a user's signals, not with the handlers of the test framework.
        for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
        sigprocmask(SIG_SETMASK, &before, nullptr);
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        for (const auto& [name, value] : extra) setenv(name.c_str(), value.c_str(), 1);
        if (directory.empty() || chdir(directory.c_str()) == 0) execvp(argv[0], argv.data());
        _exit(127);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    close(in[0]), close(out[1]), close(err[1]);
    in_ = in[1], fds_[1] = out[0], fds_[2] = err[0];
    signal(SIGPIPE, SIG_IGN);
}

Program::~Program() {
    close_input();
    for (int fd : fds_)
        if (fd >= 0) close(fd);
    if (pid_ > 0) {
        kill(-pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
}

void Program::write(const std::string& text) {
    if (::write(in_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) FAIL("write");
}

void Program::close_input() {
    if (in_ >= 0) close(in_);
    in_ = -1;
}

// Appends what has come on either stream; false when both have ended. Fails at the deadline.
bool Program::read_some(int seconds) {
    if (fds_[1] < 0 && fds_[2] < 0) return false;
    pollfd polls[] = {{fds_[1], POLLIN, 0}, {fds_[2], POLLIN, 0}};
    if (poll(polls, 2, seconds * 1000) <= 0)
        FAIL("nothing for " << seconds << " s; out: " << text_[1] << "err: " << text_[2]);
    for (int stream : {1, 2}) {
        if (!polls[stream - 1].revents) continue;
        char buffer[65536];
        const ssize_t count = read(fds_[stream], buffer, sizeof buffer);
        if (count > 0) {
            text_[stream].append(buffer, static_cast<size_t>(count));
        } else {
            close(fds_[stream]);
            fds_[stream] = -1;
        }
    }
    return true;
}

const std::string& Program::await(int stream, const std::string& text) {
    size_t found;
    while ((found = text_[stream].find(text, seen_[stream])) == std::string::npos)
        if (!read_some())
            FAIL("'" << text << "' never came; out: " << text_[1] << "err: " << text_[2]);
    seen_[stream] = found + text.size();
    return text_[stream];
}

Result Program::finish(int seconds) {
    close_input();
    while (read_some(seconds)) continue;
    int status = 0;
    const auto end = deadline();
    while (waitpid(pid_, &status, WNOHANG) == 0) {
        if (left(end) == 0) FAIL("no end after its streams were closed");
        usleep(1000);
    }
    kill(-pid_, SIGKILL);  // what it left behind in its session
    pid_ = -1;
    return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), text_[1], text_[2]};
}

Result run(const Words& words, const std::string& input, const std::string& directory) {
    Program program(words, directory);
    program.write(input);
    return program.finish();
}

Result shell(const std::string& line, const std::string& directory) {
    return run({"sh", "-c", line}, "", directory);
}

std::string quoted(const std::string& path) { return shell_word(path); }

static std::string make_directory() {
    struct statvfs it;
    const bool runs = statvfs("/tmp", &it) == 0 && !(it.f_flag & ST_NOEXEC);
    std::string name = runs ? "/tmp/shm-test-XXXXXX" : "/var/tmp/shm-test-XXXXXX";
    if (!mkdtemp(&name[0])) FAIL(name << ": mkdtemp: " << strerror(errno));
    return name;
}

Scratch::Scratch() : path(make_directory()) {}

Scratch::~Scratch() { std::filesystem::remove_all(path); }

static std::vector<key_t> given_keys;

std::string leftovers() {
    std::string found;
    const std::string ours = "shm-test-" + std::to_string(getpid()) + "-";
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
        if (has(entry.path().filename().string(), ours)) found += " " + entry.path().string();
    for (key_t key : given_keys)
        if (shmget(key, 0, 0) != -1) found += " segment " + std::to_string(key);
    return found;
}

std::string unique() {
    static int count = 0;
    return "shm-test-" + std::to_string(getpid()) + "-" + std::to_string(++count);
}

std::string unique_key() {
    static std::mt19937 random{std::random_device{}()};
    for (;;) {
        const key_t key = 0x50000000 | static_cast<key_t>(random() & 0x0fffffff);
        if (shmget(key, 0, 0) != -1) continue;
        given_keys.push_back(key);
        std::ostringstream text;
        text << "0x" << std::hex << key;
        return text.str();
    }
}

// The lock is on a directory that every user may open, so that it leaves no file behind.
// Another suite may hold it for a page after the other, and takes it again at once: minutes.
DefaultNames::DefaultNames(bool now) : lock_(open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    for (const auto end = deadline(60 * kPatience); flock(lock_, LOCK_EX | LOCK_NB) == -1;) {
        if (left(end) == 0) FAIL("another suite holds the default names");
        if (now) taken = "another suite";
        if (now) return;
        usleep(1000);
    }
    for (const std::string path : {"/dev/shm/tmp", "/dev/shm/packets"})
        if (exists(path)) taken = path;
    if (shmget(0x12345678, 0, 0) != -1) taken = "segment 0x12345678";
}

std::string DefaultNames::take_back() {
    std::string left;
    if (!taken.empty()) return left;
    for (const std::string path : {"/dev/shm/tmp", "/dev/shm/packets"})
        if (unlink(path.c_str()) == 0) left += " " + path;
    if (shmctl(shmget(0x12345678, 0, 0), IPC_RMID, nullptr) == 0) left += " segment 0x12345678";
    return left;
}

std::string root() {
    std::error_code wrong;
    const auto self = std::filesystem::canonical("/proc/self/exe", wrong);
    if (wrong) errx(1, "/proc/self/exe: %s; is /proc mounted?", wrong.message().c_str());
    return self.parent_path().parent_path().string();
}

std::string program(const std::string& variable, const std::string& ours) {
    const char* theirs = getenv(variable.c_str());
    const auto path = theirs ? std::filesystem::absolute(theirs).string() : root() + "/" + ours;
    if (access(path.c_str(), X_OK) == -1)
        err(1, "%s=%s: is no program that you may run", variable.c_str(), path.c_str());
    return path;
}

bool can_be_others() {
    static const bool can =
        run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "true"}).status == 0;
    return can;
}

bool sanitized(const std::string& program) {
    return has(shell("nm -D " + quoted(program)).out, "__asan");
}

bool exists(const std::string& path) {
    struct stat it;
    return lstat(path.c_str(), &it) == 0;
}

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
}

void put(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::vector<pid_t> children(pid_t parent) {
    std::vector<pid_t> all;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        if (!isdigit(entry.path().filename().string()[0])) continue;
        const std::string stat = contents(entry.path() / "stat");
        const size_t name_end = stat.rfind(')');
        if (name_end != std::string::npos && atoi(stat.c_str() + name_end + 4) == parent)
            all.push_back(std::stoi(entry.path().filename()));
    }
    return all;
}

bool eventually(bool (*condition)(const std::string&), const std::string& argument, int seconds) {
    for (const auto end = deadline(seconds); left(end) > 0; usleep(1000))
        if (condition(argument)) return true;
    return false;
}

bool process_gone(const std::string& pid) {
    const std::string stat = contents("/proc/" + pid + "/stat");
    return stat.empty() || has(stat, ") Z ");
}
