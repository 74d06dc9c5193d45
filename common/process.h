// What a careful process does around shared memory, whatever the mechanism: ends as it is told to,
// lets no child outlive its parent or keep it waiting, and takes numbers and names as they are.

#pragma once

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>
#include <string>

inline constexpr int kStops[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

// Ends this process as that signal does by default. As process 1 of a PID namespace we survive that
// [pid_namespaces(7)]: then the exit status tells, as a shell's would.
[[noreturn]] inline void end_by(int number) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &one, nullptr);  // in its handler it is blocked [sigaction(2)]
    raise(number);
    _exit(128 + number);
}

// A signal that ends us. SIGALRM comes from give_up_in(), SIGBUS from an object that was cut under
// its mapping: these two get a sentence.
inline void on_signal(int number) {
    const auto say = [](const char* text) { return write(STDERR_FILENO, text, strlen(text)); };
    if (number == SIGALRM || number == SIGBUS) {
        say(program_invocation_short_name);
        say(number == SIGALRM ? ": waitpid: the child keeps us waiting\n"
                              : ": SIGBUS: the object became shorter while it was mapped\n");
        _exit(1);
    }
    end_by(number);
}

// From now on that signal calls `handler`, one at a time [sigaction(2)].
inline void handle_signal(int number, void (*handler)(int), int flags) {
    struct sigaction action = {}, before;
    sigaction(number, nullptr, &before);
    if (number == SIGHUP && before.sa_handler == SIG_IGN) return;  // nohup(1) has us ignore it
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigfillset(&action.sa_mask);
    sigaction(number, &action, nullptr);
}

// The same for HUP, INT, QUIT and TERM.
inline void handle_stops(void (*handler)(int), int flags) {
    for (int stop : kStops) handle_signal(stop, handler, flags);
}

// Standard streams, signals and exit, before anything is made.
inline void prepare() {
    // If 0, 1 or 2 is closed, the next open(2) gets that number, and printing would write into the
    // object. So 0 and 2 become /dev/null; a closed stdout is an error.
    for (int fd = 0; fd <= 2; ++fd)
        if (fcntl(fd, F_GETFD) == -1 && (fd == STDOUT_FILENO || open("/dev/null", O_RDWR) != fd))
            err(1, "write(stdout)");
    setvbuf(stderr, nullptr, _IOLBF, 0);  // whole lines, though parent and child share it
    signal(SIGPIPE, SIG_IGN);             // a reader that leaves is a failed write, not a death
    signal(SIGXFSZ, SIG_IGN);             // beyond ulimit -f: likewise
    signal(SIGCHLD, SIG_DFL);             // ignored, it would leave waitpid nothing to report
    handle_stops(on_signal, SA_RESETHAND);
    handle_signal(SIGBUS, on_signal, SA_RESETHAND);
    std::set_new_handler([] { errx(1, "out of memory"); });
}

// fork(2). The child dies with its parent [prctl(2)].
inline pid_t spawn() {
    const pid_t parent = getpid();
    fflush(stdout);  // or both would print what waits in the buffer, at exit(3)
    const pid_t child = fork();
    if (child == -1) err(1, "fork()");
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (child == 0 && getppid() != parent) _exit(1);  // the parent died before prctl
    return child;
}

// Ends this process with a sentence unless alarm(0) comes within `seconds` [alarm(2)].
inline void give_up_in(unsigned seconds) {
    handle_signal(SIGALRM, on_signal, SA_RESETHAND);
    alarm(seconds);
}

// Waits for a child and returns its exit status [waitpid(2)]. A child that is killed, or does not
// end in `seconds`, is an error.
inline int wait_for(pid_t child, unsigned seconds) {
    int status = 0;
    give_up_in(seconds);
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    alarm(0);  // it would end us in what comes after this [alarm(2)]
    if (WIFSIGNALED(status))
        errx(1, "waitpid(%d): the child was killed: %s", child, strsignal(WTERMSIG(status)));
    return WEXITSTATUS(status);
}

// A number as the command line gives it, decimal or 0x and hexadecimal; anything else is wrong
// usage.
inline unsigned long long number(const std::string& text, unsigned long long most) {
    char* end = nullptr;
    errno = 0;
    const unsigned long long value =
        strtoull(text.c_str(), &end, text.compare(0, 2, "0x") == 0 ? 16 : 10);
    if (!isdigit(text[0]) || *end != '\0' || errno != 0 || value > most)
        errx(2, "'%s' is not a number from 0 to %llu", text.c_str(), most);
    return value;
}

// A word as the shell takes it.
inline std::string shell_word(const std::string& word) {
    const char* plain = "+,-./0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    if (word.find_first_not_of(plain) == std::string::npos) return word;
    std::string inside;
    for (char c : word) inside += c == '\'' ? "'\\''" : std::string(1, c);
    return "'" + inside + "'";
}
