// Builds a student's program inside the box: the source may be as hostile as the program.

#pragma once

#include "stage.h"

inline std::string compiler() {
    const char* named = getenv("CXX");
    return named == nullptr || *named == '\0' ? "g++" : named;
}
// With which command mine.cc is built, here and for its author.
inline std::string compile() {
    return compiler() + " -std=c++17 -O2 -g -Wall -pthread -iquote a/b -o mine mine.cc -lrt";
}

// Compiles `source`, with the headers of common/ beside it, to stage.program. Returns what the
// compiler said, and sets `built`. Throws if there is no compiler.
inline std::string build(const Stage& stage, const std::string& source,
                         const std::map<std::string, std::string>& common, bool& built) {
    const auto write_file = [](const std::string& path, const std::string& text) {
        std::ofstream(path, std::ios::binary) << text;
    };
    // As in the collection, so that #include "../common/exchange.h" works, and from docs/labs too.
    const std::string top = stage.program + ".build", here = top + "/src";
    for (const std::string& path : {top, here, here + "/a", here + "/a/b", top + "/common"}) {
        if (mkdir(path.c_str(), 0777) == -1) Box::fail("mkdir(" + path + ")");
        chmod(path.c_str(), 0777);
    }
    write_file(here + "/mine.cc", source);
    for (const auto& [name, text] : common) write_file(top + "/common/" + name, text);

    const std::string line = "exec " + compile();
    int says[2];
    if (pipe2(says, O_CLOEXEC) == -1) Box::fail("pipe2");
    const pid_t pid = fork();
    if (pid == -1) Box::fail("fork");
    if (pid == 0) {
        dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
        dup2(says[1], 1);
        dup2(says[1], 2);
        setsid();
        Limits limits;
        limits.processor = 60;
        limits.memory = 2048ul << 20;
        limits.file = 64 << 20;
        if (chdir(here.c_str()) == -1) _exit(126);
        stage.box.drop(limits);
        execlp("sh", "sh", "-c", line.c_str(), nullptr);
        _exit(127);
    }
    close(says[1]);
    const std::string text = read_all(says[0], 20000);
    close(says[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        throw std::runtime_error("there is no compiler: " + compiler());
    std::ifstream made(here + "/mine", std::ios::binary);
    built = status == 0 && made.good();
    if (built) {
        std::ofstream(stage.program, std::ios::binary) << made.rdbuf();
        chmod(stage.program.c_str(), 0755);
    }
    stage.remove(top);
    return text;
}
