// Every failure tried on the three exchange programs: each system call fails, each signal comes at
// each call, each process is killed at each call. [faults] is the core of it; the whole takes
// minutes: tests/run '[.sweep]'.

#include <algorithm>
#include <iostream>
#include <set>

#include <linux/futex.h>
#include <sys/ipc.h>
#include <sys/prctl.h>

#include "exchange_object.h"
#include "traced.h"

namespace {

// What happens to a run: nothing, or something at the `at`-th call of process 0 (the parent) or 1.
struct Fault {
    enum Kind {
        nothing,
        fails,          // that call
        keeps_failing,  // that and every later one of its kind, in both processes
        no_memory,      // no more from there on, however it is asked for
        signal,         // to that process
        group_signal,
        killed,        // SIGKILL before the call is executed
        killed_after,  // SIGKILL as soon as it has returned
    } kind = nothing;
    int process = 0, at = 0, number = 0;  // of the error or the signal
};

struct Call {
    uint64_t call, argument[6];
};

struct Outcome {
    int status = -1;
    std::string out, err;
    pid_t pids[2] = {-1, -1};
    bool late = false, left = false;  // no end in time; a process outlived the parent
    std::vector<Call> calls[2];
};

bool removes(const Call& it) {
#ifdef SYS_unlink
    if (it.call == SYS_unlink) return true;
#endif
    return it.call == SYS_unlinkat ||
           (it.call == SYS_shmctl && (it.argument[1] & 0xff) == IPC_RMID);
}

bool waits(uint64_t call) {
    for (uint64_t it : {SYS_futex, SYS_nanosleep, SYS_clock_nanosleep, SYS_wait4, SYS_ppoll})
        if (call == it) return true;
    return false;
}

bool forks(uint64_t call) {
#ifdef SYS_fork
    if (call == SYS_fork) return true;
#endif
    return call == SYS_clone || call == SYS_clone3;
}

bool takes_memory(const Tracee& who) {
    const bool anonymous = who.argument[3] & MAP_ANONYMOUS;
    return who.call == SYS_brk ||
           (who.call == SYS_mmap && anonymous && !(who.argument[3] & MAP_SHARED));
}

// How a call may fail: what its manual page names and a program may meet. None for those that
// cannot fail, or that only a broken kernel lets fail.
std::vector<int> errors(const Call& it) {
    static const std::map<uint64_t, std::vector<int>> kErrors = {
        {SYS_openat, {EMFILE, EACCES, EINTR}},
        {SYS_ftruncate, {ENOSPC, EINTR}},
        {SYS_fallocate, {ENOSPC, EINTR, EOPNOTSUPP}},
        {SYS_mmap, {ENOMEM, EACCES}},
        {SYS_munmap, {ENOMEM}},
        {SYS_mprotect, {ENOMEM}},
        {SYS_brk, {ENOMEM}},
        {SYS_close, {EIO, EINTR}},
#ifdef SYS_unlink
        {SYS_unlink, {EACCES, EIO}},
        {SYS_fork, {EAGAIN, ENOMEM}},
        {SYS_access, {EACCES}},
#endif
        {SYS_unlinkat, {EACCES, EIO}},
        {SYS_clone, {EAGAIN, ENOMEM}},
        {SYS_clone3, {EAGAIN, ENOMEM, ENOSYS}},
        {SYS_prctl, {EINVAL}},
        {SYS_write, {EIO, ENOSPC, EINTR, EPIPE}},
        {SYS_read, {EIO, EINTR}},
        {SYS_pread64, {EIO}},
        {SYS_newfstatat, {ENOMEM, EACCES}},
        {SYS_fstat, {ENOMEM}},
        {SYS_wait4, {ECHILD, EINTR}},
        {SYS_shmget, {ENOSPC, ENOMEM, EACCES}},
        {SYS_shmat, {ENOMEM, EMFILE}},
        {SYS_shmdt, {EINVAL}},
        {SYS_shmctl, {EPERM, EIDRM}},
        {SYS_getrandom, {EAGAIN, ENOSYS}},
        {SYS_prlimit64, {EPERM}},
        {SYS_nanosleep, {EINTR}},
        {SYS_clock_nanosleep, {EINTR}},
    };
    if (it.call == SYS_brk && it.argument[0] == 0) return {};  // only asks
    const int operation = static_cast<int>(it.argument[1]) & FUTEX_CMD_MASK;
    if (it.call == SYS_futex && (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET))
        return {EINTR, EAGAIN, ETIMEDOUT};
    const auto known = kErrors.find(it.call);
    return known == kErrors.end() ? std::vector<int>{} : known->second;
}

bool is_stop(int number) {
    return number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
}

// In which order the two processes go: one stands until the other waits. As process 1 of a
// namespace the child goes first, too.
enum class Way { child_first, parent_first, as_process_1 };

// A failure that need not be one of the program: it can do without.
bool can_do_without(const Call& it, int error) {
    const bool anonymous = it.call == SYS_mmap && (it.argument[3] & MAP_ANONYMOUS);
    const bool of_stdio = it.call == SYS_newfstatat && it.argument[0] == STDOUT_FILENO;
    const bool old_file_system = it.call == SYS_fallocate && error == EOPNOTSUPP;
    const bool again = it.call == SYS_futex && error != ETIMEDOUT;
    return anonymous || of_stdio || old_file_system || again || it.call == SYS_brk ||
           it.call == SYS_getrandom;
}

// One program with one verb, disturbed again and again.
class Sweep {
  public:
    Sweep(const Object& object, const std::string& verb, const Words& words,
          Way way = Way::child_first)
        : object_(object), verb_(verb), words_(words), way_(way), alone_(way == Way::as_process_1) {
        if (alone_) words_.insert(words_.begin(), {"unshare", "-Urp", "--fork", "--mount-proc"});
        const auto slash = words.front().rfind('/');
        title_ = words.front().substr(slash + 1) + " " + verb +
                 (alone_                     ? " as process 1"
                  : way == Way::parent_first ? ", parent first"
                                             : "");
        if (verb_ == "read") put_items();
        clean_ = run({});
        // Our programs begin with this; before it the loader is at work. Others: all is theirs.
        for (int at = calls(0); at > 0; --at)
            if (call(0, at).call == SYS_rt_sigaction && call(0, at).argument[0] == SIGPIPE)
                main_ = at;
        judge({}, clean_);
    }
    ~Sweep() { object_.take_away(); }

    int calls(int process) const { return static_cast<int>(clean_.calls[process].size()); }
    int first(int process) const { return process == 0 ? main_ : 1; }
    const Call& call(int process, int at) const {
        return clean_.calls[process][static_cast<size_t>(at - 1)];
    }

    void one(const Fault& fault) { judge(fault, run(fault)); }

    // Each call of both processes, from `start` of the parent on.
    void fail(int start) {
        each(start, [this](int process, int at) {
            for (int error : errors(call(process, at))) {
                one({Fault::fails, process, at, error});
                if (error != EINTR && error != EAGAIN)
                    one({Fault::keeps_failing, process, at, error});
            }
            if (call(process, at).call == SYS_brk) one({Fault::no_memory, process, at, ENOMEM});
        });
    }
    void signals(int start, const std::vector<int>& numbers, bool group) {
        each(start, [&](int process, int at) {
            for (int number : numbers)
                one({group ? Fault::group_signal : Fault::signal, process, at, number});
        });
    }
    void kill(int start, bool after) {
        each(start, [&](int process, int at) {
            one({after ? Fault::killed_after : Fault::killed, process, at, SIGKILL});
        });
    }
    void taken() {  // the name is another one's
        if (verb_ != "read") object_.plant("precious");
        const std::string before = object_.looks();
        const Outcome it = run({}, false);
        const bool right = it.status == 0 && it.out == expected(it);
        if (!right && (it.status == 0 || it.err.empty())) failure("silent", {}, it);
        if (object_.looks() != before) failure("overwritten", {}, it);
        object_.take_away();
        if (verb_ == "read") put_items();
    }

    std::string summary() const {
        std::string text = title_ + ": " + std::to_string(runs) + " runs, " +
                           std::to_string(failures) + " failures";
        for (const auto& [kind, count] : kinds) text += ", " + kind + " " + std::to_string(count);
        if (!killed_at.empty()) text += "; SIGKILL left the name at";
        for (const std::string& at : killed_at) text += " " + at;
        return text;
    }

    int runs = 0, failures = 0;
    bool strict = false;  // no failed call may go unsaid
    int enough = 5;       // failures, after which the rest is not tried
    std::map<std::string, int> kinds;
    std::set<std::string> killed_at;
    std::string lines;  // of the failures

  private:
    void each(int start, const std::function<void(int, int)>& disturb) {
        for (int process : {0, 1})
            for (int at = process == 0 ? start : 1; at <= calls(process) && failures < enough; ++at)
                disturb(process, at);
    }

    void put_items() {
        REQUIRE(object_.run("write").status == 0);
        looks_ = object_.looks();
    }

    std::string expected(const Outcome& it) const {
        if (verb_ == "write") return "";
        if (verb_ == "read") return kItemLines;
        return alone_ ? transcript(1, 2) : transcript(it.pids[0], it.pids[1]);
    }

    Outcome run(const Fault& fault, bool clear = true);
    void judge(const Fault& fault, const Outcome& it);
    void failure(const std::string& kind, const Fault& fault, const Outcome& it);

    const Object& object_;
    const std::string verb_;
    Words words_;
    const Way way_;
    const bool alone_;  // in namespaces of its own: the parent is our grandchild
    std::string title_, looks_;
    Outcome clean_;
    int main_ = 1;
};

std::string name_of(const Fault& fault, const Call& it) {
    static const char* const kKinds[] = {"undisturbed", "fails once",   "fails",
                                         "no memory",   "signal",       "signal to the group",
                                         "SIGKILL at",  "SIGKILL after"};
    std::string text = kKinds[fault.kind];
    if (fault.kind == Fault::nothing) return text;
    text += " " + std::to_string(fault.at) + " " + call_name(it.call);
    if (fault.kind == Fault::signal || fault.kind == Fault::group_signal)
        text += std::string(" ") + strsignal(fault.number);
    else if (fault.kind < Fault::signal)
        text += std::string(": ") + strerror(fault.number);
    return std::string(fault.process ? "child" : "parent") + ", " + text;
}

Outcome Sweep::run(const Fault& fault, bool clear) {
    if (clear && verb_ != "read") object_.take_away();
    Outcome it;
    Traced traced(words_, {}, 20);
    Tracer& tracer = traced.tracer;
    const int parent = alone_ ? 1 : 0;
    Tracee* held = nullptr;  // until the other waits or has ended
    bool on = false;
    std::map<pid_t, uint64_t> breaks;
    Call failing = {};
    for (int grace = 0;;) {
        const Event event = tracer.next(grace ? 2000 : held ? 1000 : -1);
        if (event.what == Event::over) break;
        if (event.what == Event::nothing) {
            if (held) tracer.go_on(held);
            held = nullptr;
            if (!grace) continue;
            it.left = true;
            tracer.kill_all();
            continue;
        }
        Tracee* who = event.who;
        const int process = who->number - parent;
        const auto let_go = [&] {
            if (held && held != who) tracer.go_on(held);
            if (held != who) held = nullptr;
        };
        if (event.what == Event::ended) {
            let_go();
            if (who->number == 0) grace = 1;
            continue;
        }
        if (event.what == Event::stops) {
            tracer.go_on(who);
            tracer.send(who, SIGCONT);
            continue;
        }
        if (event.what == Event::forks && process == 0) {
            breaks[event.child->pid] = breaks[who->pid];
            held = way_ == Way::parent_first ? event.child : who;
        }
        const bool ours = process == 0 || process == 1;
        if (ours && event.what == Event::enters) {
            Call call = {who->call, {}};
            std::copy(who->argument, who->argument + 6, call.argument);
            it.calls[process].push_back(call);
            const bool now = !on && fault.kind != Fault::nothing && process == fault.process &&
                             who->calls == fault.at;
            if (now) failing = call;
            on = on || now;
            // A file that fails does not take stderr with it, nor a wait the other's wake-up.
            const bool same = who->call == failing.call &&
                              (who->call != SYS_write || who->argument[0] == failing.argument[0]) &&
                              (who->call != SYS_futex || who->argument[1] == failing.argument[1]);
            const bool again = (fault.kind == Fault::keeps_failing && on && same) ||
                               (fault.kind == Fault::no_memory && on && takes_memory(*who));
            if ((now && fault.kind == Fault::fails) || again) {
                const bool asks = who->call == SYS_brk && who->argument[0] == 0;
                if (who->call != SYS_brk)
                    tracer.answer(who, -fault.number);
                else if (!asks)  // brk(2) fails by returning the break as it is
                    tracer.answer(who, static_cast<int64_t>(breaks[who->pid]));
            }
            if (now && fault.kind == Fault::signal) tracer.send(who, fault.number);
            if (now && fault.kind == Fault::group_signal) tracer.send(who, fault.number, true);
            if (now && fault.kind == Fault::killed) tracer.send(who, SIGKILL);
            if (waits(who->call)) let_go();
        }
        if (ours && event.what == Event::returns) {
            if (who->call == SYS_brk) breaks[who->pid] = static_cast<uint64_t>(who->result);
            if (on && fault.kind == Fault::killed_after && process == fault.process &&
                who->calls == fault.at)
                tracer.send(who, SIGKILL);
        }
        if (who != held) tracer.go_on(who);
    }
    it.late = tracer.late;
    it.status = traced.status();
    it.out = traced.out();
    it.err = traced.err();
    for (size_t i = 0; i < 2; ++i)
        if (tracer.tracees.size() > i) it.pids[i] = tracer.tracees[i].pid;
    return it;
}

void Sweep::failure(const std::string& kind, const Fault& fault, const Outcome& it) {
    ++failures;
    ++kinds[kind];
    const auto& calls = it.calls[fault.process];
    const size_t at = static_cast<size_t>(std::max(fault.at, 1));
    lines += title_ + ": " + name_of(fault, at <= calls.size() ? calls[at - 1] : Call{}) + ": " +
             kind + ", status " + std::to_string(it.status) + "\n" + it.out + it.err;
}

void Sweep::judge(const Fault& fault, const Outcome& it) {
    ++runs;
    const size_t at = static_cast<size_t>(std::max(fault.at, 1));
    const auto& calls = it.calls[fault.process];
    const Call reached = at <= calls.size() ? calls[at - 1] : Call{};
    if (fault.kind != Fault::nothing && reached.call != call(fault.process, fault.at).call)
        failure("never came to it", fault, it);
    if (it.late) failure("no end", fault, it);
    if (it.left) failure("a process left", fault, it);
    const bool killed = fault.kind == Fault::killed || fault.kind == Fault::killed_after;
    const bool sent = killed || fault.kind == Fault::signal || fault.kind == Fault::group_signal;
    const bool main = fault.process == 1 || fault.at >= main_;
    const std::string right = expected(it);
    if (it.status == 0) {
        if (it.out != right) failure("wrong output with exit 0", fault, it);
    } else {
        const bool by_signal = sent && it.status == 128 + fault.number;
        const bool loader = !main && it.status > 128;
        if (it.err.empty() && !by_signal && !loader)
            failure(it.status > 128 ? "crash" : "silent", fault, it);
        // What came out before is the beginning of what is right.
        const std::string child = right.substr(0, right.find("Parent "));
        if (child.rfind(it.out.substr(0, it.out.find("Parent ")), 0) != 0)
            failure("wrong output", fault, it);
    }
    if (strict && main && (fault.kind == Fault::fails || fault.kind == Fault::keeps_failing)) {
        if (it.status == 0 && !can_do_without(reached, fault.number)) failure("ignored", fault, it);
        if (it.status != 0 && reached.call == SYS_futex && fault.number != ETIMEDOUT)
            failure("waits no longer", fault, it);  // EINTR and EAGAIN say: look again
        if (it.status != 0 && !has(it.err, std::string("): ") + strerror(fault.number) + "\n"))
            failure("another reason", fault, it);
    }
    // The pipe's signal is ignored, and so are all by process 1; a stop is undone.
    const bool harmless = (fault.number == SIGPIPE && main) || (alone_ && fault.process == 0) ||
                          is_stop(fault.number);
    if (sent && !killed && harmless && it.status != 0)
        failure("a harmless signal counts", fault, it);

    const bool there = object_.there();
    const bool could_not = fault.kind <= Fault::keeps_failing && removes(reached) &&
                           has(it.err, removes(reached) && object_.sysv ? "shmctl(" : "unlink(");
    if (verb_ == "read") {
        if (!there || object_.looks() != looks_) {
            failure("the object has changed", fault, it);
            object_.take_away();
            put_items();
        }
    } else if (verb_ == "write" && it.status == 0) {
        if (!there || object_.run("read").out != kItemLines) failure("not there", fault, it);
    } else if (there && killed && !calls.empty()) {
        killed_at.insert(call_name(reached.call) +
                         (fault.kind == Fault::killed ? "" : "'s return"));
    } else if (there && !could_not) {
        failure("residue", fault, it);
    }
}

Sweep sweep_of(const Object& object, const std::string& verb, Way way = Way::child_first) {
    Sweep sweep(object, verb, object.words(verb), way);
    sweep.strict = true;
    return sweep;
}

std::string any_mechanism() { return GENERATE("shm_posix", "map_posix", "shm_v"); }

const std::vector<int> kSignals = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,
                                   SIGUSR2, SIGALRM, SIGPIPE, SIGXCPU, SIGXFSZ};
const std::vector<int> kStops = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};

bool cannot_sweep(const Object& object) { return sanitized(object.program); }

void report(const Sweep& sweep) {
    INFO(sweep.lines);
    CHECK(sweep.failures == 0);
}

// A program of tests/programs, built here.
std::string built(const Scratch& scratch, const std::string& name) {
    const char* given = getenv("CXX");
    const std::string path = scratch.path + "/" + name;
    const Result made = shell(std::string(given ? given : "c++") + " -std=c++17 -o " + path + " " +
                              quoted(root()) + "/tests/programs/" + name + ".cc -pthread -lrt");
    INFO(made.err);
    REQUIRE(made.status == 0);
    return path;
}

}  // namespace

TEST_CASE("every call that fails is said, and nothing is left", "[faults]") {
    Object object(any_mechanism());
    if (cannot_sweep(object)) SKIP_BECAUSE("a sanitizer is built in: it makes calls of its own");
    for (const char* verb : {"exchange", "write", "read"}) {
        Sweep sweep = sweep_of(object, verb);
        sweep.fail(sweep.first(0));
        sweep.taken();
        report(sweep);
    }
}

TEST_CASE("a signal at any call: all go, and nothing is left", "[faults]") {
    Object object(any_mechanism());
    if (cannot_sweep(object)) SKIP_BECAUSE("a sanitizer is built in: it makes calls of its own");
    for (const char* verb : {"exchange", "write", "read"}) {
        Sweep sweep = sweep_of(object, verb);
        for (bool group : {false, true})
            sweep.signals(sweep.first(0), {SIGHUP, SIGTERM, SIGPIPE, SIGXFSZ, SIGSTOP}, group);
        report(sweep);
    }
}

TEST_CASE("SIGKILL at any call: all go; the name stays at a few calls", "[faults]") {
    Object object(any_mechanism());
    if (cannot_sweep(object)) SKIP_BECAUSE("a sanitizer is built in: it makes calls of its own");
    for (const char* verb : {"exchange", "read"}) {
        Sweep sweep = sweep_of(object, verb);
        sweep.kill(sweep.first(0), false);
        sweep.kill(sweep.first(0), true);
        report(sweep);
        const std::set<std::string> few =
            object.sysv
                ? std::set<std::string>{"shmget's return", "shmat", "shmat's return", "shmctl"}
                : std::set<std::string>{"openat's return", "unlink"};
        if (std::string(verb) == "exchange") CHECK(sweep.killed_at == few);
    }
}

TEST_CASE("as process 1 no signal ends or stops it", "[faults]") {
    Object object(any_mechanism());
    if (cannot_sweep(object)) SKIP_BECAUSE("a sanitizer is built in: it makes calls of its own");
    if (run({"unshare", "-Urp", "--fork", "--mount-proc", "true"}).status != 0)
        SKIP_BECAUSE("no namespaces here");
    Sweep sweep = sweep_of(object, "exchange", Way::as_process_1);
    for (int number : {SIGTSTP, SIGTTIN, SIGTTOU, SIGTERM, SIGHUP})
        for (int at = sweep.first(0); at <= sweep.calls(0); ++at)
            sweep.one({Fault::signal, 0, at, number});
    report(sweep);
}

TEST_CASE("too little memory for it, from none to enough", "[faults]") {
    Object object(any_mechanism());
    if (cannot_sweep(object)) SKIP_BECAUSE("a sanitizer reserves more than there is");
    int right = 0;
    for (rlim_t bytes = 1 << 20; bytes < 16 << 20; bytes += 1 << 18) {
        Traced small(object.words("exchange"), [=] {
            const rlimit limit = {bytes, bytes};
            setrlimit(RLIMIT_AS, &limit);
        });
        const Result result = small.finish();
        INFO(bytes << " bytes: status " << result.status << " " << result.err);
        if (result.status == 0) {
            ++right;
            CHECK(result.out == transcript(result.out));
        } else {
            CHECK((result.status > 128 || !result.err.empty()));
        }
        CHECK_FALSE(object.there());
    }
    CHECK(right > 0);
}

TEST_CASE("what could not be removed after a failure is said, too", "[faults]") {
    Object object(any_mechanism());
    Traced running(object.words("write"));
    bool made = false;
    Event event;
    while ((event = running.tracer.next()).what != Event::over) {
        if (event.what == Event::returns) made = made || object.there();
        if (event.what == Event::enters && made) {
            const bool removing = removes({event.who->call, {0, event.who->argument[1]}});
            if (removing) running.tracer.answer(event.who, -EACCES);
            if (event.who->call == SYS_ftruncate || event.who->call == SYS_shmat)
                running.tracer.answer(event.who, -ENOMEM);
        }
        running.tracer.go_on(event.who);
    }
    CHECK(running.status() == 1);
    CHECK(has(running.err(), "): Cannot allocate memory\n"));
    CHECK(has(running.err(),
              object.sysv ? ", IPC_RMID): Permission" : "unlink(" + object.name + "): Permission"));
}

TEST_CASE("the sweep finds what is wrong, and nothing where all is right", "[faults]") {
    Scratch scratch;
    Object object("shm_posix");
    const std::string naive = built(scratch, "naive"), odd = built(scratch, "odd");

    Sweep wrong(object, "exchange", {naive, "--name", object.name});
    wrong.enough = 1000;
    const int begin = wrong.calls(0) - 12;
    wrong.fail(begin);
    wrong.taken();
    for (int at = begin; at <= wrong.calls(0); ++at)  // while the child waits
        if (forks(wrong.call(0, at).call)) wrong.one({Fault::killed_after, 0, at, SIGKILL});
    INFO(wrong.summary());
    for (const char* kind : {"residue", "silent", "crash", "wrong output with exit 0",
                             "overwritten", "a process left"})
        CHECK(wrong.kinds.count(kind) == 1);

    Sweep right(object, "exchange", {odd, "--name", object.name});
    const int start = right.first(0);
    right.fail(start);
    right.taken();
    right.signals(start, {SIGTERM, SIGHUP}, true);
    right.kill(start, false);
    report(right);
}

TEST_CASE("all of it, with counts", "[.sweep]") {
    const bool parent_first = GENERATE(false, true);
    Object object(any_mechanism());
    for (const char* verb : {"exchange", "write", "read"}) {
        if (parent_first && std::string(verb) != "exchange") continue;
        Sweep sweep = sweep_of(object, verb, parent_first ? Way::parent_first : Way::child_first);
        sweep.fail(1);
        sweep.taken();
        for (bool group : {false, true}) sweep.signals(1, kSignals, group);
        for (bool group : {false, true}) sweep.signals(1, kStops, group);
        sweep.kill(1, false);
        sweep.kill(1, true);
        std::cout << sweep.summary() << std::endl;
        report(sweep);
    }
    if (parent_first) return;
    Sweep sweep = sweep_of(object, "exchange", Way::as_process_1);
    std::vector<int> all = kSignals;
    all.insert(all.end(), kStops.begin(), kStops.end());
    sweep.signals(1, all, false);
    std::cout << sweep.summary() << std::endl;
    report(sweep);
}
