// A program under the tracer with its output kept, for tests that hold it somewhere and look.

#pragma once

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "support.h"
#include "trace.h"

class Traced {
  public:
    // Runs in a process group of its own with a user's signals; `prepare` may change that. After
    // `seconds` all is killed.
    explicit Traced(const Words& words, const std::function<void()>& prepare = {},
                    int seconds = kPatience)
        : tracer(words, seconds, [&] {
              setpgid(0, 0);
              for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
              const rlimit none = {0, 0};
              setrlimit(RLIMIT_CORE, &none);
              setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // LeakSanitizer cannot be traced
              dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
              dup2(out_, 1);
              dup2(err_, 2);
              if (prepare) prepare();
          }) {}
    ~Traced() { close(out_), close(err_); }
    Traced(const Traced&) = delete;
    Traced& operator=(const Traced&) = delete;

    // Lets all that move go on, to the end of all; `act` sees each event first.
    template <typename Act>
    void go(Act act) {
        for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
            act(event);
    }
    // Lets all that move go on until `wanted` happens. The process that it happened to stands still
    // until tracer.go_on(), and those that were held before stay so.
    Event until(const std::function<bool(const Event&)>& wanted) {
        for (;;) {
            const Event event = tracer.next();
            if (event.what == Event::over) FAIL("it never came to that; err: " << err());
            if (wanted(event)) return event;
            tracer.go_on(event.who);
        }
    }
    // The parent has just forked, and stands.
    Event until_fork() {
        return until([](const Event& event) {
            return event.what == Event::forks && event.who->number == 0 && !event.child->thread;
        });
    }
    // The child stands before its first instruction.
    Event until_begin() {
        return until([](const Event& event) {
            return event.what == Event::begins && event.who->number == 1;
        });
    }
    // Process `number` enters a call.
    Event until_call(int number, uint64_t call) {
        return until([=](const Event& event) {
            return event.what == Event::enters && event.who->number == number &&
                   event.who->call == call;
        });
    }
    // Looks for so many milliseconds: true if process `number` has ended by then.
    bool ends_within(int number, int milliseconds) {
        const long end = Tracer::now() + milliseconds;
        for (long left; (left = end - Tracer::now()) > 0;) {
            const Event event = tracer.next(static_cast<int>(left));
            if (event.what == Event::over) break;
            if (event.what == Event::ended && event.who->number == number) return true;
            if (event.who) tracer.go_on(event.who);
        }
        return tracer.tracees[static_cast<size_t>(number)].ended;
    }
    // To the end of all.
    Result finish() {
        go([](const Event&) {});
        if (tracer.late) FAIL("no end; out: " << out() << "err: " << err());
        return {status(), out(), err()};
    }

    int status() const {
        const int raw = tracer.tracees.front().status;
        return WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
    }
    std::string out() const { return kept(out_); }
    std::string err() const { return kept(err_); }

  private:
    const int out_ = memfd_create("stdout", MFD_CLOEXEC);
    const int err_ = memfd_create("stderr", MFD_CLOEXEC);

  public:
    // Both ends of the same open file: what processes write comes one after the other.
    static std::string kept(int fd) {
        std::string text(65536, '\0');
        const ssize_t bytes = pread(fd, &text[0], text.size(), 0);
        text.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes));
        return text;
    }

    Tracer tracer;
};
