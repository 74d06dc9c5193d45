// Lab 1, the exchange: sharing is not waiting. A parent makes a shared object and forks; the child
// waits until the parent has stored three items there, and prints them.
//
// However a program does it, the kernel shows the same: an object that both have mapped, bytes in
// it, who waits while the other stands still. That is what we look at; each function is one look.
// Who waits is seen twice: the parent stands after fork; it goes on instruction by instruction.

#pragma once

#include <random>

#include "lab.h"
#include "schedule.h"

namespace exchange {

inline const std::string kItems[3] = {"Nellson", "Daisy", "Robbie"};

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
        text.replace(at, from.size(), to);
    return text;
}

// What a run printed, with <parent> and <child> for the pids.
inline std::string printed(Run& run) {
    std::string text = run.out();
    if (run.child()) text = replaced(text, std::to_string(run.child()->pid), "<child>");
    return replaced(text, std::to_string(run.parent()->pid), "<parent>");
}

constexpr char kTranscript[] =
    "Child <child>: start\nThere is 3 item in the shm\n1: Nellson\n2: Daisy\n3: Robbie\n"
    "Parent <parent> get child status:0\n";

// What an ordinary run has shown; the others are compared with it, so that a wrong word costs one
// requirement.
struct Usual {
    std::string name;    // of the object; "": it has none
    std::string output;  // as printed() has it
    int status;          // as Run::status()
    bool ended;          // by itself, and not by a signal
    bool items;          // the child prints them, or could: they are in the object
};
constexpr char kNoItems[] = "it needs what the child prints, and the items are not in the object";

inline std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> all;
    std::istringstream rest(text);
    for (std::string line; std::getline(rest, line);) all.push_back(line);
    std::sort(all.begin(), all.end());
    return all;
}

// Whether it has ended as usual and printed these lines, in whatever order.
inline bool well(Run& run, const Usual& usual, const std::string& wanted) {
    return run.why.empty() && run.status() == usual.status && lines(printed(run)) == lines(wanted);
}
inline bool well(Run& run, const Usual& usual) {
    return well(run, usual, usual.output) ||
           (run.why.empty() && run.status() == 0 && printed(run) == kTranscript);
}

constexpr char kPlainLoop[] =
    "no loop on a plain variable waits: at -O2 the compiler may read it once, or drop the loop "
    "(std::atomic)";

// Why a transcript is not the right one.
inline std::string meaning(Run& run) {
    const std::string out = run.out();
    const auto all = lines(out);
    const Tracee* child = run.child();
    const bool killed = child != nullptr && child->ended && WIFSIGNALED(child->status);
    const int signal = run.status() >= 128 ? run.status() - 128
                       : killed            ? WTERMSIG(child->status)
                                           : 0;
    if (run.why.find("endless loop") != std::string::npos)
        return std::string("it waits for what has come: ") + kPlainLoop;
    if (!run.why.empty() && child != nullptr)
        return "who waits must be woken, and whoever wakes must share with him";
    for (const Made& it : run.made())
        if (signal == SIGBUS && it.bytes == 0)
            return "SIGBUS: the object has 0 bytes, so there is nothing behind the mapping; "
                   "ftruncate gives it its size";
    if (signal == SIGBUS || signal == SIGSEGV || run.status() >= 128)
        return "a store or load where nothing is mapped, or beyond the object";
    if (child == nullptr) return "nobody was forked: there is no child";
    if (signal != 0)
        return std::string("the child was killed: ") + strsignal(signal) +
               ". Was it sent before the child was ready for it?";
    if (run.err().find(strerror(ECHILD)) != std::string::npos ||
        printed(run).find("Parent <child>") != std::string::npos)
        return "the child goes on into the parent's code, and waits for a child of its own: it has "
               "to end where its part ends";
    if (out.empty()) return "nothing printed: is stdout flushed where the process ends by _exit?";
    const auto twice = std::adjacent_find(all.begin(), all.end());
    if (twice != all.end() && twice->size() > 3)
        return "'" + *twice +
               "' came twice: what waits in stdio's buffer at fork, both processes "
               "print; fflush(stdout) before fork";
    for (const std::string& item : kItems)
        if (out.find(item) == std::string::npos)
            return "the child printed before all three items were there, or did not get to print";
    if (out.find("Parent") == std::string::npos)
        return "the parent does not say how its child ended";
    if (out.rfind("Parent", 0) == 0) return "the parent's line comes last: it waits for its child";
    return "each character counts: compare with the lines of the page; the pids are those of the "
           "two processes";
}

// The parent has come to where it waits for its child, or has ended.
inline bool parent_waits(Run& run) {
    const Tracee* parent = run.parent();
    return run.child() != nullptr &&
           (parent->ended ||
            (parent->in_call && (parent->call == SYS_wait4 || parent->call == SYS_waitid)));
}

// Lets the parent go first, to where it waits for its child: so a program that does not wait for
// the items has luck, and loses nothing but that it does not wait. False: it does not come to that.
inline bool parent_first(Run& run) {
    run.until_born();
    return run.in_turns([&] { return parent_waits(run); });
}

inline bool in_child(Run& run, const Tracee* who) {
    while (who != nullptr && who->thread) who = who->parent;
    return who != nullptr && who == run.child();
}

// Others' things, that the program has nothing to do with.
inline std::map<std::string, std::string> plant_others(Stage& stage) {
    std::ofstream("/dev/shm/of-others") << "of others";
    chmod("/dev/shm/of-others", 0666);
    stage.give("/dev/shm/of-others");
    const int id = shmget(0x6f746872, 100, IPC_CREAT | IPC_EXCL | 0666);
    if (id == -1) Box::fail("shmget");
    stage.give(id);
    return stage.left();
}

// The object with the items in it; if none has them, one that something was stored in; else "".
inline std::string object_of(Run& run) {
    std::string other;
    for (const auto& [object, mapping] : run.shared(run.parent())) {
        const std::string bytes = run.bytes(object);
        if (bytes.find(kItems[2]) != std::string::npos) return object;
        const bool semaphore = mapping.name.rfind("/dev/shm/sem.", 0) == 0;
        if (!semaphore && bytes.find_first_not_of('\0') != std::string::npos) other = object;
    }
    return other;
}

inline std::string name_of(const Run& run, const std::string& object) {
    for (const Made& it : run.made())
        if (it.object == object) return it.name;
    return "";
}

// What is wrong with the object's contents, once the parent has stored and nobody else has run;
// `saw` is empty if nothing is.
inline Finding look_at_contents(Run& run, const std::string& object) {
    const std::string bytes = run.bytes(object), look = "docs/explain PROGRAM";
    const std::string did = "held the child, let the parent store, and looked at the object's " +
                            std::to_string(bytes.size()) + " bytes";
    for (const std::string& item : kItems)
        if (bytes.find(item) == std::string::npos)
            return {did, "no '" + item + "' among them",
                    "the items themselves belong there, within the object's size: a pointer to "
                    "them means nothing to another process",
                    look};
    std::ifstream maps("/proc/" + std::to_string(run.parent()->pid) + "/maps");
    for (std::string line; !run.parent()->ended && std::getline(maps, line);) {
        uint64_t begin = 0, end = 0, word = 0;
        sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &begin, &end);
        for (size_t at = 0; at + sizeof word <= bytes.size(); at += sizeof word) {
            memcpy(&word, &bytes[at], sizeof word);
            if (word < begin || word >= end) continue;
            char text[80];
            snprintf(text, sizeof text, "byte %zu: 0x%" PRIx64 ", an address of the parent: ", at,
                     word);
            return {did, text + line,
                    "a pointer (a std::string has one, too): another process may have something "
                    "else at that address; store the bytes or an offset",
                    look};
        }
    }
    return {};
}

// The usual case.
inline Usual ordinary_run(Stage& stage) {
    const auto others = plant_others(stage);
    Run run(stage);
    parent_first(run);
    const std::string object = object_of(run);
    const Finding contents = look_at_contents(run, object);
    run.finish();
    const auto common = run.common_objects();
    const bool both = std::count(common.begin(), common.end(), object) > 0;

    const std::string out = printed(run);
    const Usual usual = {name_of(run, object), out, run.status(),
                         run.why.empty() && run.status() < 128,
                         contents.saw.empty() || out.find(kItems[2]) != std::string::npos};
    if (!both)
        stage.lose("shared",
                   {"ran it and looked at the shared mappings of both processes [/proc/PID/maps]",
                    run.child() == nullptr && run.status() >= 128 ? run.seen()
                    : run.child() == nullptr                      ? "it has forked no process"
                    : run.shared(run.parent()).empty()            ? "the parent has none"
                    : run.shared(run.child()).empty() ? "the parent has one, the child none"
                    : !common.empty() ? "both have one, but the parent stored nothing there"
                                      : "each has another object",
                    run.child() == nullptr ? meaning(run)
                                           : "what one stores, the other does not see: MAP_SHARED, "
                                             "and the same object in both, by fork or by name",
                    "grep rw-s /proc/PID/maps"});
    else
        stage.earn("shared");
    if (both && contents.saw.empty()) stage.earn("contents");
    if (both && !contents.saw.empty()) stage.lose("contents", contents);

    if (!run.why.empty() || run.status() != 0 || usual.output != kTranscript)
        stage.lose("transcript",
                   {"ran it, the parent first", run.seen(),
                    both && !usual.items && run.status() == 0
                        ? "what the child is to print is not in the object: see `contents`"
                        : meaning(run),
                    "PROGRAM"});
    else
        stage.earn("transcript");
    if (both && run.orphan && usual.ended)
        stage.lose("status", {"ran it, the parent first", "the parent ended before its child",
                              "wait for the child: it may still need what you take away, and "
                              "nobody learns how it ended",
                              "man 2 waitpid"});

    const auto left = stage.left();
    std::string more, gone;
    for (const auto& it : left)
        if (!others.count(it.first)) more += "\n" + it.first + " (" + it.second + ")";
    for (const auto& it : others)
        if (!left.count(it.first) || left.at(it.first) != it.second) gone += "\n" + it.first;
    if (!gone.empty())
        stage.lose("residue",
                   {"ran it where others have things, too", "these are gone or changed:" + gone,
                    "remove only what you have made", "ls -l /dev/shm; ipcs"});
    if (run.why.find("left a process") != std::string::npos)
        stage.lose("residue", {"ran it, and waited for 2 s after its end", run.why,
                               "every process that you start you wait for", "ps -ef"});
    if (!more.empty() && run.why.empty())
        stage.lose("residue",
                   {"ran it, and looked at what is there afterwards", "left behind:" + more,
                    "objects outlive processes: somebody has to remove the name",
                    "ls -l /dev/shm; ipcs -m -s"});
    if (usual.ended) {
        Run again(stage);
        parent_first(again);
        again.finish();
        if (!well(again, usual) && (usual.items || again.status() != usual.status))
            stage.lose("residue", {"ran it a second time", again.seen(),
                                   "something of the first run is in the way", "PROGRAM; PROGRAM"});
    }
    return usual;
}

// Whether its next instruction enters the kernel; false where we cannot tell.
inline bool at_call(const Run& run, const Tracee* who) {
#if defined __x86_64__
    return run.tracer.memory(who, next_instruction(who), 2) == "\x0f\x05";
#elif defined __aarch64__
    return run.tracer.memory(who, next_instruction(who), 4) == std::string("\x01\0\0\xd4", 4);
#else
    return run.parent() == nullptr;
#endif
}

inline bool naps(const Tracee* who) {
    return who->call == SYS_nanosleep || who->call == SYS_clock_nanosleep;
}

// Lets the child go on until it sleeps, has looked again after a nap, which passes at once, or has
// used the processor for 2 ms without a call: then it stands, or sleeps.
inline void let_it_look(Run& run, Tracee* child) {
    const int calls = child->calls;
    long used = processor(child);
    for (int slept = 0; slept < 2 && child->calls - calls < 50;) {
        run.go_on(child);
        const Event event = run.next(1);
        if (child->ended || child->state == Tracee::listens || event.what == Event::over) return;
        if (event.what == Event::nothing) {
            if (run.sleeps(child) || processor(child) - used > 2000) break;
        } else if (event.who == child) {
            used = processor(child);
            if (event.what == Event::enters && naps(child) && run.tracer.answer(child, 0)) ++slept;
        } else if (event.who != run.parent()) {
            run.go_on(event.who);
        }
    }
    hold(run, child);
}

// One instruction of the parent, or one whole call. False where there is nothing more to see: it
// waits for its child, or ends, or sleeps though the child has gone on.
inline bool parent_moves(Run& run) {
    Tracee* parent = run.parent();
    if (!at_call(run, parent)) return step(run, parent) == Went::there;
    for (int looks = 0; looks < 3;) {
        if (parent_waits(run) || parent->call == SYS_exit_group) return false;
        run.go_on(parent);
        const Event event = run.next(1);
        if (parent->ended || event.what == Event::over) return false;
        if (event.who == parent && event.what == Event::returns) return true;
        if (event.who == parent && event.what == Event::enters && naps(parent))
            run.tracer.answer(parent, 0);
        if (event.what == Event::nothing && run.sleeps(parent)) {
            let_it_look(run, run.child());
            ++looks;
        }
    }
    return false;
}

// How the child shows that it has looked before all was stored; "" if it does not.
inline std::string too_early(Run& run, const Usual& usual) {
    const std::string now = printed(run);
    const size_t at = now.find("There is"), end = now.find('\n', at);
    const std::string usually = usual.output + kTranscript;
    if (end != std::string::npos && usually.find(now.substr(at, end + 1 - at)) == std::string::npos)
        return "the child printed '" + now.substr(at, end - at) + "'";
    for (const std::string& item : kItems)
        if (run.child()->ended && usual.output.find(item) != std::string::npos &&
            now.find(item) == std::string::npos)
            return "the child ended and had not printed " + item;
    return "";
}

// The parent goes on instruction by instruction; after each that changed the object, and after each
// call, the child goes on as far as it comes. So who is told before all is stored looks too early:
// what was seen then; "" if it does not.
inline std::string told_early(Run& run, const Usual& usual) {
    Tracee *parent = run.parent(), *child = run.until_born();
    if (child == nullptr || child->ended || run.in_vfork(parent)) return "";
    while (parent->in_call && run.why.empty()) {  // fork
        run.go_on(parent);
        if (run.next(1000).what == Event::nothing) return "";
    }
    std::string before;
    std::vector<Mapping> objects;
    bool look = true;
    for (int steps = 0, looks = 0; steps < 30000 && looks < 200 && run.why.empty(); ++steps) {
        if (look) {
            let_it_look(run, child);
            objects = common(run, parent);  // each call may have changed them
            before = bytes_of(run, objects);
            std::string early = too_early(run, usual), missing;
            for (const std::string& item : kItems)
                if (before.find(item) == std::string::npos)
                    missing += (missing.empty() ? "" : ", ") + item;
            if (!early.empty() && !missing.empty())
                early += ", when the object did not hold " + missing;
            if (!early.empty()) return early + "\nstdout: " + run.out();
            if (child->ended) break;
            ++looks;
        }
        const bool call = at_call(run, parent);
        if (!stands(parent) || !parent_moves(run)) break;
        look = call || bytes_of(run, objects) != before;
    }
    return "";
}

// The parent stands still, right after fork: does the child wait?
inline void hold_the_parent(Stage& stage, const Usual& usual) {
    constexpr long kHold = 3000;  // milliseconds
    const std::string did = "held the parent right after fork, as a slow machine would, for 3 s";
    const std::string look = "docs/explain --step PROGRAM";
    const auto lost = [&](const std::string& saw, const std::string& means) {
        stage.lose("waits", {did, saw, means, look});
    };
    stage.clear();
    Run run(stage);
    Tracee* child = run.until_born();
    if (child == nullptr) return lost("it has forked no process", "there is no child");
    for (const Mapping& it : run.mappings(run.parent()))
        if (run.bytes(it.object).find(kItems[2]) != std::string::npos)
            return lost("the items were stored before fork",
                        "then nobody has to wait: this lab asks for it after fork");
    // The child runs. Its sleeps pass at once (`skipped`): one that only sleeps long enough waits
    // for nothing. Where it sleeps until it is woken, there is no need to go on looking.
    const long start = Tracer::now();
    long skipped = 0, quiet = start;
    bool rests = false, limited = false;
    run.go_on(child);
    while (Tracer::now() - start < kHold) {
        const Event event = run.next(20);
        if (event.what == Event::over) break;
        if (run.out().find("There is") != std::string::npos) break;
        if (event.what == Event::ended && event.who == child) break;
        if (event.what == Event::nothing) {
            rests = rests || run.sleeps(child);
            limited = limited || (run.sleeps(child) && run.lasts(child) > 0 && !run.endless(child));
            const bool waits = run.lasts(child) >= kHold && run.sleeps(child);
            if (!waits) quiet = Tracer::now();
            if (waits && Tracer::now() - quiet > 100) break;
            continue;
        }
        quiet = Tracer::now();
        const bool sleep = event.what == Event::enters && (event.who->call == SYS_nanosleep ||
                                                           event.who->call == SYS_clock_nanosleep);
        if (sleep && skipped >= kHold) break;  // it has slept, looked, and sleeps again
        rests = rests || sleep;
        const long time = sleep ? std::max(1L, run.lasts(event.who)) : 0;
        if (sleep && run.tracer.answer(event.who, 0)) skipped += time;
        if (event.who != run.parent()) run.go_on(event.who);
    }
    if (run.out().find("There is") != std::string::npos || child->ended) {
        const std::string how = !child->ended                ? "the child printed items"
                                : WIFSIGNALED(child->status) ? "the child was killed by a signal"
                                                             : "the child ended";
        return lost(
            how + (skipped > 0 ? ", after sleeping for " + std::to_string(skipped) + " ms" : "") +
                ", while the parent had stored nothing\n" +
                (run.out().empty() ? "" : "stdout: " + run.out()),
            skipped > 0 ? "sleeping is not waiting: no time is long enough; wait for the "
                          "items"
            : limited
                ? "it waits, and gives up when its time is over: no time is long enough; wait "
                  "again until the items are there"
                : std::string("sharing is not waiting: nothing kept the child until the items "
                              "were there; ") +
                      kPlainLoop);
    }
    if (!rests) stage.remark("the child does not sleep while it waits: it keeps a processor busy");
    const bool alone = never_woken(run, child);
    run.finish();
    if (!usual.items) return stage.not_shown({"waits"}, kNoItems);
    if (!well(run, usual))
        return stage.lose("waits", {did + ", and let it go on", run.seen(),
                                    alone ? kNeverWoken : meaning(run), look});
    stage.clear();
    Run slow(stage);
    const std::string early = told_early(slow, usual);
    slow.finish();
    if (!early.empty())
        stage.lose(
            "waits",
            {"let the parent store instruction by instruction, and the child go on after each",
             early,
             "the child was told before all was stored: what tells it (a semaphore, a flag, the "
             "count) comes last",
             "put sleep(1) before each store in the parent; PROGRAM"});
    stage.earn("waits");
}

// Does the child print what the object holds? The bytes change between the store and its look.
inline void change_an_item(Stage& stage, const Usual& usual) {
    std::random_device device;
    std::string item = "D";
    for (size_t i = 1; i < kItems[1].size(); ++i) item += static_cast<char>('a' + device() % 26);
    const std::string wanted = replaced(usual.output, kItems[1], item);
    if (wanted == usual.output)
        return stage.not_shown({"holds"}, "it prints no Daisy when nothing is changed");
    stage.clear();
    Run run(stage);
    const bool stored = parent_first(run);
    const std::string there = object_of(run);
    const std::string bytes = run.bytes(there);
    for (size_t at = 0; (at = bytes.find(kItems[1], at)) != std::string::npos; ++at)
        run.set_bytes(there, at, item);
    run.finish();
    if (well(run, usual, wanted)) return stage.earn("holds");
    stage.lose("holds",
               {"held the child, let the parent store, changed Daisy to " + item +
                    " in the object, and let the child go",
                (stored ? "" : "the parent did not come to wait for its child; ") + run.seen(),
                "the child has to print what the object holds, when it has waited: not "
                "what it knows, or has looked at before",
                "docs/explain PROGRAM"});
}

// Does the parent say how its child ended? The child ends with 3, and then by a signal. Is anything
// left then?
inline void let_the_child_fail(Stage& stage, const Usual& usual) {
    if (usual.output.find("status:0") == std::string::npos)
        stage.not_shown({"status"}, "it prints no status:0 when all is well");
    else if (!usual.items)
        stage.not_shown({"status"}, kNoItems);
    else {
        stage.clear();
        Run run(stage);
        Tracee* ending = nullptr;  // who is about to end the child
        const auto ends = [&] {
            for (Tracee& it : run.tracer.tracees)
                if (!it.ended && it.in_call && it.call == SYS_exit_group && in_child(run, &it))
                    ending = &it;
            return ending != nullptr;
        };
        run.until_born();
        run.in_turns([&] { return ends() || parent_waits(run); });
        if (ending == nullptr) run.release();
        if (ending == nullptr) run.until([&](const Event&) { return ends(); });
        if (ending != nullptr && !run.tracer.set_argument(ending, 3))
            throw std::runtime_error("cannot change a call's argument here");
        run.finish();
        const std::string out = printed(run);
        const std::string wanted = replaced(usual.output, "status:0", "status:3");
        const bool right = lines(out) == lines(wanted);
        // Or it ends with an error, and says that the child failed.
        const bool told = out.find("status:") == std::string::npos && run.told();
        if (!run.why.empty() || (!right && !told))
            stage.lose("status",
                       {"had the child end with exit status 3", run.seen(),
                        out.find("status:768") != std::string::npos
                            ? "768 is 3 * 256: what waitpid stores is not the exit status; "
                              "WEXITSTATUS"
                            : "status:3 is the truth: take it from waitpid, and do not end before",
                        "man 2 waitpid"});
    }
    stage.clear();
    Run run(stage);
    parent_first(run);
    if (run.child() != nullptr && !run.child()->ended) run.tracer.send(run.child(), SIGKILL);
    run.finish();
    if (!run.why.empty() || run.out().find("status:0") != std::string::npos)
        stage.lose("status",
                   {"killed the child with SIGKILL, while the parent waited for it", run.seen(),
                    "a child that was killed has no exit status, and WEXITSTATUS says 0: "
                    "ask WIFSIGNALED first",
                    "man 2 waitpid"});
    stage.earn("status");
    std::string left;
    for (const auto& it : stage.left()) left += "\n" + it.first + " (" + it.second + ")";
    if (run.why.empty() && !left.empty())
        stage.lose(
            "residue",
            {"killed the child with SIGKILL, while the parent waited for it", "left behind:" + left,
             "the parent ends another way then, and has to remove the name there, too; or "
             "removes it as soon as both have the object",
             "strace -f -e inject=exit_group:signal=KILL PROGRAM; ls -l /dev/shm; ipcs -m -s"});
}

// Who may write to it, if the user's umask forbids nothing; does it work if the umask forbids all?
inline void try_masks(Stage& stage, const Usual& usual) {
    Run::Options options;
    options.mask = 0;
    stage.clear();
    {
        Run run(stage, options);
        run.finish();
        for (const Made& it : run.made())
            if (run.shared(run.parent()).count(it.object) && !it.name.empty() && (it.mode & 022)) {
                char mode[16];
                snprintf(mode, sizeof mode, "%03o", it.mode & 0777);
                stage.lose("mode", {"ran it with umask 000", it.name + " has mode " + mode,
                                    "everybody may write to it; ask for 0600, whatever the umask",
                                    "(umask 000; docs/explain PROGRAM)"});
            }
    }
    options.mask = 077;
    stage.clear();
    Run run(stage, options);
    parent_first(run);
    run.finish();
    if (!usual.items) stage.not_shown({"mode"}, kNoItems);
    if (!well(run, usual))
        stage.lose("mode", {"ran it with umask 077", run.seen(), "it needs no rights for others",
                            "(umask 077; PROGRAM)"});
    stage.earn("mode");
}

// Somebody has an object of that name already.
inline void take_the_name(Stage& stage, const Usual& usual) {
    const std::string& name = usual.name;
    if (name.empty()) return stage.earn("exists");
    const bool file = name[0] == '/';
    const std::string theirs(4096, 'x');
    const key_t key = file ? 0 : static_cast<key_t>(std::stoul(name, nullptr, 16));
    void* address = nullptr;
    stage.clear();
    if (file) {
        std::ofstream(name) << theirs;
        chmod(name.c_str(), 0600);
        stage.give(name);
    } else {
        const int id = shmget(key, theirs.size(), IPC_CREAT | IPC_EXCL | 0600);
        if (id == -1) Box::fail("shmget");
        address = shmat(id, nullptr, 0);
        theirs.copy(static_cast<char*>(address), theirs.size());
        stage.give(id);
    }
    const auto before = stage.left();
    Run run(stage);
    run.finish();
    std::string now;
    if (file)
        now = contents(name);
    else
        now.assign(static_cast<char*>(address), theirs.size());
    if (address != nullptr) shmdt(address);
    const auto after = stage.left();
    const std::string did = "made " + name + " first, as another program would, and ran it";
    const std::string look = file ? "touch " + name + "; PROGRAM; ls -l " + name + "; rm -f " + name
                                  : "PROGRAM & PROGRAM; wait; ipcs -m";
    for (const auto& it : before)
        if (!after.count(it.first) || after.at(it.first) != it.second || now != theirs)
            return stage.lose(
                "exists",
                {did, !after.count(it.first) ? "it is gone" : "its size, mode or bytes changed",
                 "what you have not made is not yours to use or remove: O_EXCL (IPC_EXCL) "
                 "refuses what exists",
                 look});
    const bool took_another = well(run, usual);
    if (!run.why.empty() || (!run.told() && !took_another))
        return stage.lose("exists", {did, run.seen(),
                                     "it has to say on stderr why it cannot go on, and end with an "
                                     "exit status other than 0",
                                     look});
    stage.earn("exists");
}

// Each call of the parent that can fail fails once.
inline void fail_calls(Stage& stage, const Usual& usual) {
    const auto makes = [](const Tracee* who) {
        return who->call == SYS_openat ? (who->argument[2] & O_CREAT) != 0
#ifdef SYS_open
               : who->call == SYS_open ? (who->argument[1] & O_CREAT) != 0
#endif
                                       : who->call == SYS_shmget || who->call == SYS_memfd_create;
    };
    const auto maps = [](const Tracee* who) {
        return who->call == SYS_shmat || (who->call == SYS_mmap && (who->argument[3] & MAP_SHARED));
    };
    const Run* run_of = nullptr;
    const auto forks = [&](const Tracee* who) {
#ifdef SYS_fork
        if (who->call == SYS_fork || who->call == SYS_vfork) return true;
#endif
        return (who->call == SYS_clone || who->call == SYS_clone3) &&
               !(run_of->clone_flags(who) & 0x10000);  // CLONE_THREAD
    };
    const auto sizes = [](const Tracee* who) { return who->call == SYS_ftruncate; };
    struct Failure {
        std::string call;
        std::function<bool(const Tracee*)> is;
        int error;
        const char* name;
    };
    const Failure failures[] = {{"that makes the object", makes, EMFILE, "EMFILE"},
                                {"that gives it its size", sizes, ENOSPC, "ENOSPC"},
                                {"that maps it", maps, ENOMEM, "ENOMEM"},
                                {"fork", forks, EAGAIN, "EAGAIN"}};
    for (const Failure& failure : failures) {
        stage.clear();
        Run run(stage);
        run_of = &run;
        const Event event = run.until([&](const Event& e) {
            return e.what == Event::enters && e.who == run.parent() && failure.is(e.who);
        });
        if (event.what == Event::over) continue;  // it does without
        const std::string call = call_name(event.who->call);
        const std::string look = run.failing(failure.name);
        if (!run.tracer.answer(event.who, -failure.error))
            throw std::runtime_error("cannot fail a call here");
        run.finish();
        const bool managed = well(run, usual);
        // Lab 2 asks for that. Whoever leaves it in any case has heard of it.
        if (stage.met("residue"))
            for (const auto& it : stage.left())
                stage.remark("when " + call + " fails, " + it.first +
                             " is left: whoever ends early, too, has to leave nothing (lab 2)");
        if (run.why.empty() && (run.told() || managed)) continue;
        return stage.lose(
            "errors",
            {"had the call fail " + failure.call + ": " + call + ", " + strerror(failure.error),
             run.seen(),
             "every call can fail: say on stderr which did, and why (perror), and end "
             "with an exit status other than 0",
             look});
    }
    stage.earn("errors");
}

inline void grade(Stage& stage) {
    const Usual usual = ordinary_run(stage);
    const bool shared = stage.met("shared");
    if (!shared || !usual.ended) {
        const std::string needs =
            !shared ? "a shared object" : "a program that ends by itself, and not by a signal";
        for (const char* id :
             {"contents", "holds", "waits", "status", "mode", "exists", "residue", "errors"})
            if (!stage.verdicts.met.count(id) || !shared)
                stage.not_shown({id}, "it needs " + needs);
        if (!shared) stage.lose("transcript", {"", "it counts only with a shared object", "", ""});
        return;
    }
    stage.earn("residue");
    hold_the_parent(stage, usual);
    change_an_item(stage, usual);
    let_the_child_fail(stage, usual);
    try_masks(stage, usual);
    take_the_name(stage, usual);
    fail_calls(stage, usual);
}

}  // namespace exchange

inline Lab exchange_lab() {
    return {1,
            "1-exchange",
            "the exchange: sharing is not waiting",
            45,
            {"shm_posix/shm_posix.cc", "map_posix/map_posix.cc", "shm_v/shm_v.cc"},
            {{"builds", 1, "it builds"},
             {"shared", 3, "parent and child share an object"},
             {"transcript", 2, "it prints what the page shows, with its pids"},
             {"contents", 2, "the items are in the object, and no addresses"},
             {"waits", 3, "the child waits until the items are there, however slow the parent"},
             {"holds", 2, "the child prints what the object holds"},
             {"status", 2, "the parent waits for its child and tells how it ended"},
             {"residue", 2, "nothing is left, and what others have stays"},
             {"mode", 1, "nobody else can write to it, whatever the umask"},
             {"exists", 1, "an object that exists is refused and untouched"},
             {"errors", 1, "a call that fails is reported"}},
            exchange::grade};
}
