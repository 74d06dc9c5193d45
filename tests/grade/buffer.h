// Lab 4: the bounded buffer. Two processes, some slots, order, nothing lost, and both sleep.
// One at a time goes on: by turns, after each instruction of the other, and after each change that
// the parent makes once it has seen the end.

#pragma once

#include "lab.h"
#include "schedule.h"

// A run with a pipe for its input, and the lines that go through it.
class BufferRun {
  public:
    // `processor`: as in Limits.
    BufferRun(Stage& stage, int slots, unsigned processor = Limits().processor)
        : run(stage, options(slots, processor, pipe_)) {
        close(pipe_[0]);
        run.feeds = true;
    }
    ~BufferRun() { end_input(); }

    // That many more lines: no two are the same, and nobody can guess them. Each seventh is as long
    // as a line may be.
    void put(int count) {
        std::string text;
        for (; count > 0; --count) {
            std::string line = "line " + std::to_string(lines.size()) + " ";
            const size_t length =
                lines.size() % 7 == 2 ? 62 : line.size() + static_cast<size_t>(some(8, 20));
            while (line.size() < length) line += static_cast<char>('a' + some(0, 25));
            lines.push_back(line);
            text += line + "\n";
        }
        put(text);
    }
    // What a line may be besides: empty, a word that somebody could take for the end; and a last
    // one without a newline.
    void put_odd() {
        lines = {"first", "",  "",   "END", "EOF",  "end",  "quit",
                 "exit",  ".", "-1", "0",   "\x04", "\xff", "last"};
        const std::string text = wanted();
        put(text.substr(0, text.size() - 1));
        end_input();
    }
    void end_input() {
        if (pipe_[1] != -1) close(pipe_[1]);
        pipe_[1] = -1;
        run.feeds = false;
    }

    // First the one as far as it comes, then the other, and so on: so nobody disturbs anybody.
    void in_turns(const std::function<bool()>& reached = [] { return false; }) {
        for (int round = 0, idle = 0; idle < 3 && round < 400 && run.why.empty(); ++round) {
            const size_t before = run.out().size();
            if (before > wanted().size()) return;
            for (Tracee* who : {run.parent(), run.child()}) {
                if (reached()) return;
                if (who != nullptr) go_until(run, who, 3000, reached);
            }
            idle = run.out().size() == before ? idle + 1 : 0;
        }
    }

    // What it was given, as it must print it.
    std::string wanted() const {
        std::string text;
        for (const std::string& line : lines) text += line + "\n";
        return text;
    }

    // Which of the lines lie in objects that both share; `change`: the first of them gets another
    // first letter, in the object and in our list.
    std::set<size_t> in_objects(bool change = false) {
        std::set<size_t> all;
        for (const Mapping& it : common(run, run.parent())) {
            const std::string bytes = run.tracer.memory(
                run.parent(), it.begin, std::min<uint64_t>(it.end - it.begin, 1 << 20));
            for (size_t i = 0; i < lines.size(); ++i) {
                const size_t at = bytes.find(lines[i]);
                if (at == std::string::npos) continue;
                all.insert(i);
                if (!change) continue;
                change = false;
                lines[i][0] = 'L';
                run.tracer.set_memory(run.parent(), it.begin + at, "L");
            }
        }
        return all;
    }

    std::vector<std::string> lines;

  private:
    void put(const std::string& text) {
        signal(SIGPIPE, SIG_IGN);  // it may have ended
        if (write(pipe_[1], text.data(), text.size()) == -1 && errno != EPIPE) Box::fail("write");
    }
    static Run::Options options(int slots, unsigned processor, int (&pipe)[2]) {
        if (pipe2(pipe, O_CLOEXEC) == -1) Box::fail("pipe2");
        Run::Options with;
        with.arguments = {std::to_string(slots)};
        with.limits.seconds = 300;
        with.limits.processor = processor;
        with.input = pipe[0];
        return with;
    }
    int pipe_[2] = {-1, -1};

  public:
    Run run;
};

class BoundedBuffer {
  public:
    explicit BoundedBuffer(Stage& stage) : stage_(stage) {}

    void grade() {
        take_turns();
        end_while_full();
        hold_at_the_end();
        end_before_it_sleeps();
        if (stage_.met("result")) take_odd_lines();
        wait_and_fill(3);
        wait_and_fill(1);
        hold_everywhere();
        report_a_failed_child();
    }

  private:
    static std::string missing(const BufferRun& it) {
        std::istringstream out(it.run.out());
        std::string line;
        for (size_t i = 0; i < it.lines.size(); ++i) {
            if (!std::getline(out, line)) return "the output ends before '" + it.lines[i] + "'";
            if (line != it.lines[i])
                return "line " + std::to_string(i + 1) + " should be '" + it.lines[i] +
                       "' and is '" + line.substr(0, 100) + "'";
        }
        return it.run.out() == it.wanted() ? "all lines came" : "more came than was put in";
    }

    static const char* use() { return "seq 1000 | PROGRAM 3 > out; seq 1000 | diff out -; rm out"; }

    // Some lines; then the end, while the child waits for more.
    void take_turns() {
        {
            BufferRun it(stage_, 4);
            it.put(30);
            fork_child(it.run);
            it.in_turns();
            never_woken_ =
                never_woken(it.run, it.run.parent()) || never_woken(it.run, it.run.child());
            const bool at_once = it.run.out() == it.wanted();
            const std::string saw =
                it.run.parent()->ended ? it.run.seen() : it.run.err().substr(0, 200) + missing(it);
            it.end_input();
            it.in_turns();
            it.run.finish();
            if (at_once)
                stage_.earn("result");
            else
                stage_.lose(
                    "result",
                    {"ran it with 4 slots and 30 lines, the two by turns",
                     saw + (it.run.why.empty() ? "" : "; " + it.run.why),
                     means(it.run.out() == it.wanted()
                               ? "the lines come late: each must be printed at once (setlinebuf)"
                           : it.run.why.empty() ? "what goes in must come out, in order"
                                                : "what goes in must come out, in order: who waits "
                                                  "must be told when a line, or a free slot, is "
                                                  "there"),
                     use()});
            end(it, "ended the input while all slots were empty");
            check_left(stage_, it.run);
        }
        stage_.clear();
    }

    void take_odd_lines() {
        {
            BufferRun it(stage_, 3);
            it.put_odd();
            fork_child(it.run);
            it.in_turns();
            it.run.finish();
            const std::string out = it.run.out();
            // Who gets the end wrong loses that, and here the last lines.
            const bool says = stage_.met("end") || it.wanted().compare(0, out.size(), out) != 0;
            if (says && out != it.wanted() && out + "\n" != it.wanted())
                stage_.lose("result", {"gave it odd lines: empty ones, words like END, and a last "
                                       "one without a newline",
                                       (it.run.why.empty() ? "" : it.run.why + "; ") + missing(it),
                                       "each is a line, and to be printed: the end needs a sign "
                                       "that no line can be",
                                       "printf 'first\\n\\nEND\\nlast' | PROGRAM 3"});
        }
        stage_.clear();
    }

    // The input has ended: does the program?
    void end(BufferRun& it, const std::string& did,
             const std::string& otherwise =
                 "the end must be told like a line: after all lines, and so that who sleeps is "
                 "woken; a sign beside the slots does not say that they are empty") {
        it.in_turns();
        it.run.finish();
        // Lines that are lost before the end, too, cost other points.
        if (!stage_.met("result")) it.lines.clear();
        if (it.run.why.empty() && it.run.status() == 0 &&
            (it.lines.empty() || it.run.out() == it.wanted()))
            return stage_.earn("end");
        const std::string out = it.run.out();
        const long lost =
            static_cast<long>(it.lines.size()) - std::count(out.begin(), out.end(), '\n');
        stage_.lose("end",
                    {did,
                     !it.run.why.empty() ? it.run.why
                     : lost > 0          ? "it ended while " + std::to_string(lost) +
                                      (lost == 1 ? " line" : " lines") + " had not come out"
                     : out != it.wanted() ? missing(it)
                                          : it.run.seen(),
                     means(otherwise), use()});
    }

    // What a loss means, unless they could not wake each other: then it is that.
    std::string means(const std::string& otherwise) const {
        return never_woken_ ? kNeverWoken : otherwise;
    }

    // No input: who waits for a line sleeps. Then nobody takes: the slots fill, and who waits for a
    // free one sleeps.
    void wait_and_fill(int slots) {
        {
            const std::string number = std::to_string(slots) + (slots == 1 ? " slot" : " slots");
            BufferRun it(stage_, slots);
            Run& run = it.run;
            if (fork_child(run)) it.in_turns();
            if (run.child() == nullptr) {
                run.tracer.kill_all();
                return lose_all(run.parent()->ended
                                    ? run.seen()
                                    : "it forks no child before its input has ended");
            }
            waits(run, run.child(), "empty", "ran it without any input yet");
            it.put(slots + 5);
            go_until(run, run.parent(), 60000, [] { return false; });
            const std::set<size_t> held = it.in_objects();
            if (held.empty() && !stage_.met("shared")) {
                run.tracer.kill_all();
                return lose_all(run.common_objects().empty()
                                    ? "no object is mapped shared and writable in both"
                                    : "none of the lines came to lie in an object that both share");
            }
            std::set<size_t> right;
            for (size_t i = 0; i < static_cast<size_t>(slots); ++i) right.insert(i);
            if (held == right)
                stage_.earn("slots");
            else
                stage_.lose("slots", {"held the child and gave the parent " +
                                          std::to_string(slots + 5) + " lines for " + number,
                                      "the object holds " + std::to_string(held.size()) +
                                          (held.size() == 1 ? " line" : " lines") +
                                          (held.empty() ? ""
                                                        : ", the first of them line " +
                                                              std::to_string(*held.begin() + 1)),
                                      !held.empty() && *held.begin() > 0
                                          ? "a line that nobody had taken was overwritten"
                                          : "full is when there are as many lines as slots: one of "
                                            "62 characters takes one slot, too",
                                      "(echo 1; sleep 9) | docs/explain PROGRAM 1"});
            if (held.empty()) {
                run.tracer.kill_all();
                return;
            }
            waits(run, run.parent(), "full", "held the child until " + number + " were full");
            it.in_objects(true);
            it.in_turns();
            if (run.out() == it.wanted())
                stage_.earn("shared");
            else if (run.out().find('L') == std::string::npos && stage_.met("result"))
                stage_.lose("shared", {"changed the first letter of a line in the object, from l "
                                       "to L, while the child was held",
                                       "the child printed it as it was before",
                                       "what is printed does not come from the object", use()});
            else
                stage_.lose("exact",
                            {"held the child until " + number + " were full, then let it go",
                             run.why.empty() ? missing(it) : run.why,
                             means("a line was lost, or came twice, or nobody was woken"), use()});
            stage_.earn("shared");
            run.tracer.kill_all();
            run.finish();
        }
        stage_.clear();
    }

    void lose_all(const std::string& saw) {
        stage_.lose("shared",
                    {"looked at the shared mappings of both processes", saw,
                     "the lines go another way, or each process has memory of its own, or the "
                     "parent stores nothing",
                     "docs/explain PROGRAM 1"});
        stage_.not_shown({"result", "slots", "full", "empty", "exact"},
                         "no line in a shared object");
    }

    void waits(Run& run, Tracee* who, const std::string& id, const std::string& did) {
        if (!run.why.empty()) return stage_.lose(id, {did, "not shown: " + run.why, "", ""});
        const Waiting it = watch(run, who, 500);
        hold(run, who);
        if (it.asleep) return stage_.earn(id);
        if (who->ended)
            return stage_.lose(
                id, {did, "not shown: " + (run.why.empty() ? name(who) + " had ended" : run.why),
                     never_woken_ ? kNeverWoken : "", ""});
        // R: it runs, S: it sleeps.
        stage_.lose(id,
                    {did + ", for half a second", it.told(who),
                     "it asks again and again: a waiting process should sleep in the kernel "
                     "until the other wakes it",
                     id == "empty" ? "sleep 5 | PROGRAM 1 & sleep 2; ps -o stat,time,args --ppid $!"
                                   : "(sleep 2; seq 99; sleep 5) | PROGRAM 1 & sleep 1; "
                                     "kill -STOP $(pgrep -P $!); sleep 3; "
                                     "ps -o stat,time,args -p $!; kill -CONT $(pgrep -P $!)"});
    }

    // The one executes instruction after instruction; after each the other goes on as far as it
    // comes. Then the other way round.
    void hold_everywhere() {
        {
            // Beside other work a waiting loop turns on for long until we can hold it.
            BufferRun it(stage_, 2, 300);
            Run& run = it.run;
            if (!fork_child(run)) return;
            it.put(6);
            it.in_turns();
            it.put(250);
            tour(run, run.parent(), run.child());
            tour(run, run.child(), run.parent());
            it.in_turns();
            if (run.out() == it.wanted())
                stage_.earn("exact");
            else
                stage_.lose("exact",
                            {"held the one and the other after each instruction, and let the other "
                             "go on as far as it came",
                             run.why.empty() ? missing(it) : run.why,
                             means("a slot is told of before the line is in it, or is given back "
                                   "before the line was used; or a count that both change loses a "
                                   "change (lab 3); or nobody was woken"),
                             "seq 1000000 | PROGRAM 2 > out; seq 1000000 | cmp out -; rm out"});
            run.tracer.kill_all();
            run.finish();
        }
        stage_.clear();
    }

    // After each instruction of `who` the other goes on as far as it comes. So a line that is told
    // of too early, or a slot that is given back too early, is used too early.
    static void tour(Run& run, Tracee* who, Tracee* other) {
        const auto never = [] { return false; };
        Went how = go_until(run, other, 300, never);
        std::string before = common_bytes(run);
        std::set<uint64_t> stores;  // instructions that change the object
        for (int steps = 0; steps < 1200 && run.why.empty(); ++steps) {
            const uint64_t at = next_instruction(who);
            const Went went = step(run, who);
            if (went == Went::ended) return;
            // Who turns sees nothing new as long as the bytes are the same.
            const std::string now = common_bytes(run);
            if (now != before) stores.insert(at);
            if (went == Went::sleeps)
                how = go_until(run, other, 20000, [&] { return stands(who); });
            else if (how != Went::turns || now != before)
                how = go_until(run, other, 300, never);
            before = common_bytes(run);
        }
        for (const uint64_t at : stores) hold_before(run, who, other, at);
    }

    // The other stands for a while, so that something is left to do for it, and then goes on just
    // before `who` stores what it may have loaded before.
    static void hold_before(Run& run, Tracee* who, Tracee* other, uint64_t store) {
        for (int steps = 0, times = 0; steps < 2500 && times < 2 && run.why.empty(); ++steps) {
            if (stands(who) && next_instruction(who) == store && ++times == 2)
                go_until(run, other, 300, [] { return false; });
            const Went went = step(run, who);
            if (went == Went::ended) return;
            if (went == Went::sleeps) go_until(run, other, 20000, [&] { return stands(who); });
        }
    }

    // The input ends while all slots are full and nobody takes.
    void end_while_full() {
        {
            BufferRun it(stage_, 3);
            if (!fork_child(it.run)) return;
            it.put(3);
            it.end_input();
            go_until(it.run, it.run.parent(), 60000, [] { return false; });
            end(it, "ended the input while all slots were full");
        }
        stage_.clear();
    }

    // The child stands beside two lines until the parent has seen the end and changed the object
    // once since, then (another run) twice, and so on: it finds each state that they can meet in.
    void hold_at_the_end() {
        for (int changes = 1; changes <= 8 && stage_.met("end"); ++changes) {
            const bool more = hold_at_change(changes);
            stage_.clear();
            if (!more) return;
        }
    }

    // False: the parent changes it less often.
    bool hold_at_change(int changes) {
        BufferRun it(stage_, 3);
        Run& run = it.run;
        if (!fork_child(run)) return false;
        Tracee* parent = run.parent();
        it.put(2);
        it.end_input();
        go_until(run, parent, 60000, [&] {
            return stands(parent) && !parent->in_call && parent->call == SYS_read &&
                   parent->result == 0;
        });
        std::string before = common_bytes(run);
        int seen = 0;
        for (int steps = 0; steps < 2500 && seen < changes; ++steps) {
            if (step(run, parent) != Went::there) break;
            const std::string now = common_bytes(run);
            seen += now != before;
            before = now;
        }
        go_until(run, run.child(), 20000, [] { return false; });
        end(it,
            "held the child with two lines in three slots, ended the input, and let the child go "
            "when the parent had changed the object " +
                std::to_string(seen) + (seen == 1 ? " time since" : " times since"));
        return seen == changes;
    }

    // Where the instructions of the program itself are, without those of its libraries.
    std::pair<uint64_t, uint64_t> own_instructions(const Tracee* who) const {
        std::pair<uint64_t, uint64_t> own;
        std::ifstream maps("/proc/" + std::to_string(who->pid) + "/maps");
        for (std::string line; std::getline(maps, line);)
            if (line.find(" r-xp ") != std::string::npos &&
                line.find(stage_.program) != std::string::npos)
                sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &own.first, &own.second);
        return own;
    }

    // The child has found no line and goes to sleep. It stands at the last instruction of its own
    // before that, so it looks at nothing any more; only now comes the end.
    void end_before_it_sleeps() {
        if (!stage_.met("end")) return;
        {
            BufferRun it(stage_, 3);
            Run& run = it.run;
            if (!fork_child(run)) return;
            it.put(1);
            it.in_turns();
            Tracee *parent = run.parent(), *child = run.child();
            const auto [begin, behind] = own_instructions(child);
            const auto put_one = [&] {
                it.put(1);
                go_until(run, parent, 60000, [] { return false; });
            };
            put_one();
            uint64_t last = 0;
            for (int steps = 0; steps < 20000; ++steps) {
                const uint64_t at = next_instruction(child);
                if (begin <= at && at < behind) last = at;
                if (step(run, child) != Went::there) break;
            }
            put_one();
            for (int steps = 0; steps < 20000; ++steps) {
                if (next_instruction(child) == last && run.out() == it.wanted()) break;
                if (step(run, child) != Went::there) break;
            }
            it.end_input();
            go_until(run, parent, 60000, [] { return false; });
            end(it, "held the child when it had found no line and went to sleep, and ended the "
                    "input",
                "between its look and its sleep the child does not see a change, and is not woken: "
                "change what it looks at with the lock that it holds meanwhile "
                "(pthread_cond_wait(3)), or count (sem_post(3))");
        }
        stage_.clear();
    }

    void report_a_failed_child() {
        {
            BufferRun it(stage_, 2);
            if (fork_child(it.run)) {
                it.run.tracer.send(it.run.child(), SIGKILL);
                it.run.go_on(it.run.child());
            }
            it.end_input();
            it.run.finish();
            if (it.run.why.empty() && it.run.status() != 0)
                stage_.earn("failure");
            else
                stage_.lose("failure",
                            {"killed the child, and ended the input", it.run.seen(),
                             it.run.why.empty()
                                 ? "lines may be missing and nobody is told: the status of "
                                   "waitpid(2) says how the child ended"
                                 : "there is room for the sign of the end: put it there, and wait "
                                   "for nothing of the child but its end",
                             "(sleep 9) | PROGRAM 1 & sleep 1; kill -9 $(pgrep -P $!); wait $!"});
        }
        stage_.clear();
    }

    Stage& stage_;
    bool never_woken_ = false;  // they sleep where the other cannot wake them
};

inline Lab buffer_lab() {
    return {4,
            "4-bounded-buffer",
            "the bounded buffer: order, nothing lost, nobody spins",
            90,
            {"docs/labs/4-bounded-buffer/ours.cc"},
            {{"builds", 1, "it builds"},
             {"result", 2, "what goes in comes out, in order and at once"},
             {"shared", 2, "the lines come out of slots in an object that both share"},
             {"slots", 2, "there are as many slots as asked for: full is full"},
             {"full", 2, "who waits for a free slot sleeps"},
             {"empty", 2, "who waits for a line sleeps"},
             {"exact", 5, "nothing is lost or doubled, whoever is held at whatever instruction"},
             {"end", 2, "the end is told, and comes after the last line"},
             {"failure", 1, "a child that was killed is reported, with a status that is not 0"},
             {"left", 1, "nothing is left"}},
            [](Stage& stage) { BoundedBuffer(stage).grade(); }};
}
