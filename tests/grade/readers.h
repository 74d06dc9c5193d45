// Lab 6, readers: one copy, read-only, replaced whole. Each configuration is drawn anew, so what is
// printed comes from the file. Writer and reader are held at each of their calls in turn: what a
// reader prints is the whole old one or the whole new one.

#pragma once

#include "residue.h"
#include "schedule.h"

class Readers {
  public:
    explicit Readers(Stage& stage) : stage_(stage) {}

    void grade() {
        publish_and_read();
        if (!stage_.met("result"))
            return stage_.not_shown(
                {"one", "readonly", "whole", "keeps", "killed", "left", "errors"},
                "publish and read do not work");
        measure();
        hold_the_writer();
        hold_the_reader();
        go_on_reading();
        fail_calls();
    }

  private:
    using Texts = std::vector<std::string>;

    // Lost, if there is something to see.
    void expect(const std::string& id, const Finding& finding) {
        if (!finding.saw.empty()) stage_.lose(id, finding);
    }

    static Run::Options words(const Texts& arguments) {
        Run::Options with;
        with.arguments = arguments;
        with.limits.seconds = 120;  // it may be held while many others run
        return with;
    }
    Run::Options publishes(const std::string& text) const {
        std::ofstream(stage_.directory + "/next.conf") << text;
        return words({"publish", "next.conf"});
    }

    // A configuration that nobody knows before.
    static std::string configuration(long lines) {
        std::string all;
        for (long i = 1; i <= lines; ++i)
            all += "key." + std::to_string(i) + " = " + std::to_string(some(100000, 999999)) + "\n";
        return all;
    }

    // These return what is wrong, "" if nothing is. A reader prints the whole of one of `right`,
    // two times.
    static std::string wrong(Run& run, const Texts& right) {
        for (const std::string& first : right)
            for (const std::string& second : right)
                if (run.why.empty() && run.status() == 0 && run.out() == first + second) return "";
        const std::string out = run.out(), wanted = right[0] + right[0];
        const long same =
            std::mismatch(out.begin(), out.end(), wanted.begin(), wanted.end()).first - out.begin();
        return "it printed " + std::to_string(out.size()) + " bytes instead of two times " +
               std::to_string(right[0].size()) + ", others from byte " + std::to_string(same) +
               " on\n" + run.seen().substr(0, 200);
    }
    std::string read(const Texts& right) const {
        Run run(stage_, words({"read"}));
        run.finish();
        return wrong(run, right);
    }
    std::string publish(const std::string& text) const {
        Run run(stage_, publishes(text));
        run.finish();
        return run.why.empty() && run.status() == 0 ? "" : run.seen();
    }
    void begin(const std::string& text) const {
        stage_.clear();
        publish(text);
    }
    std::string left() const {
        auto all = stage_.left();
        for (const char* known : {"/next.conf", "/config"}) all.erase(stage_.directory + known);
        return all.empty() ? "" : "left:" + residue::names(all);
    }

    // Holds it as it enters a call: 1 is the one that opens next.conf, config or its successor.
    // nullptr if there are not so many.
    static Tracee* at_call(Run& run, int number) {
        int seen = 0;
        const auto opens = [&](const Tracee* who) {
            return who->call == SYS_openat &&
                   run.tracer.string(who, who->argument[1]).find("conf") != std::string::npos;
        };
        const auto there = [&](const Event& e) {
            if (e.what == Event::enters && (seen > 0 || opens(e.who))) ++seen;
            return seen == number;
        };
        return run.until(there).who;
    }

    // Where a reader waits for Enter.
    static void until_it_waits(Run& run) {
        run.until([](const Event& e) {
            return e.what == Event::enters && e.who->call == SYS_read && e.who->argument[0] == 0;
        });
    }

    void publish_and_read() {
        stage_.clear();
        for (const long lines : {some(300, 900), some(100, 200), some(1000, 2000)}) {
            const std::string text = configuration(lines), failed = publish(text);
            expect("result", {"published " + std::to_string(text.size()) + " bytes, and read",
                              failed.empty() ? read({text}) : failed,
                              "read prints the bytes that were published last, two times",
                              "PROGRAM publish FILE; PROGRAM read"});
            expect("left", {"published", left(), "what you made on the way nobody needs", "ls -l"});
        }
        stage_.earn("result");
    }

    // What the readers take that wait for Enter: the sum of their Pss, in bytes.
    static constexpr int kReaders = 20;
    long memory_of_readers(const std::string& text) {
        begin(text);
        std::deque<Run> readers;
        while (readers.size() < kReaders)
            until_it_waits(readers.emplace_back(stage_, words({"read"})));
        long sum = 0;
        for (Run& run : readers) {
            const std::string process = "/proc/" + std::to_string(run.parent()->pid);
            std::ifstream lines(process + "/smaps_rollup");
            long kib = -1;
            for (std::string field; lines >> field;)
                if (field == "Pss:") lines >> kib;
            if (kib == -1) throw std::runtime_error("cannot read " + process + "/smaps_rollup");
            sum += kib * 1024;
        }
        look_at_mapping(readers[0]);
        return sum;
    }

    void look_at_mapping(Run& run) {
        struct stat config = {};
        stat((stage_.directory + "/config").c_str(), &config);
        std::string saw = "./config is not among its shared mappings";
        for (const Mapping& it : run.mappings(run.parent()))
            if (it.object == "inode " + std::to_string(config.st_ino))
                saw = it.writable ? "it is mapped for writing" : "";
        expect("readonly", {"looked at the mappings of a reader that waits for Enter", saw,
                            "a store by mistake would change what all others read; in a mapping "
                            "for reading only it is an error at once",
                            "PROGRAM read & cat /proc/$!/maps"});
    }

    void measure() {
        const std::string large = configuration(18000);
        const long bytes = static_cast<long>(large.size());
        const long more = memory_of_readers(large) - memory_of_readers("key = 1\n");
        if (more > 3 * bytes)
            stage_.lose("one", {"had 20 readers wait for Enter, with " + std::to_string(bytes) +
                                    " bytes and with 8",
                                "they take " + std::to_string(more) +
                                    " bytes more: " + std::to_string(more / bytes) + " copies",
                                "use the bytes where they are mapped: a copy is each reader's own",
                                "PROGRAM read & grep Pss: /proc/$!/smaps_rollup"});
        stage_.earn("one");
        stage_.earn("readonly");
    }

    // At each of its calls the writer is held, a reader comes, and the writer is killed there. Of
    // many calls, some.
    void hold_the_writer() {
        for (int call = 1; !stage_.lost("whole") || !stage_.lost("killed"); call += 1 + call / 50) {
            const std::string old = configuration(some(300, 900)),
                              next = configuration(some(300, 900)), third = configuration(100);
            begin(old);
            std::string at;
            {
                Run run(stage_, publishes(next));
                const Tracee* writer = at_call(run, call);
                if (writer == nullptr) break;
                at = "the writer before its " + call_name(writer->call);
                expect("whole", {"held " + at + ", and read", read({old, next}),
                                 "it is to have the name only when it is complete: a name changes "
                                 "its file in one step",
                                 "docs/explain --step PROGRAM publish FILE"});
                run.tracer.send(run.parent(), SIGKILL);
                run.finish();
            }
            std::string saw = read({old, next});
            if (saw.empty()) saw = publish(third);
            if (saw.empty()) saw = read({third});
            expect("killed", {"killed " + at + "; then read, published, read", saw,
                              "old or new is there, and what a killed one has left is in nobody's "
                              "way",
                              "PROGRAM publish FILE & kill -9 $!; PROGRAM publish FILE"});
            if (saw.empty())
                expect("left", {"killed " + at + ", and published another", left(),
                                "who is killed cannot clean up, but the next one can: if it knows "
                                "the name",
                                "ls -l"});
        }
        stage_.earn("killed");
        stage_.earn("left");
    }

    // At each of its calls the reader is held, and another is published.
    void hold_the_reader() {
        for (int call = 1; !stage_.lost("whole"); call += 1 + call / 50) {
            const std::string old = configuration(500),
                              next = configuration(call % 2 == 0 ? 1 : 1000);
            begin(old);
            Run run(stage_, words({"read"}));
            const Tracee* reader = at_call(run, call);
            if (reader == nullptr) break;
            const std::string at = call_name(reader->call);
            publish(next);
            run.finish();
            expect("whole", {"held the reader before its " + at + ", and published another",
                             wrong(run, {old, next}),
                             "size and bytes are of two files: a name may lead to another the next "
                             "time, a descriptor does not",
                             "docs/explain --step PROGRAM read"});
        }
        stage_.earn("whole");
    }

    void go_on_reading() {
        const std::string old = configuration(500);
        begin(old);
        Run run(stage_, words({"read"}));
        until_it_waits(run);
        publish(configuration(1));
        publish(configuration(1000));
        run.finish();
        expect("keeps", {"published a short and a long one while a reader waited for Enter",
                         wrong(run, {old}),
                         "what is mapped stays as it is: neither stored to, nor shortened, nor "
                         "exchanged for another half-way",
                         "PROGRAM read, and in another terminal PROGRAM publish FILE"});
        stage_.earn("keeps");
    }

    // Each call of the writer fails once: it says so, or manages without.
    void fail_calls() {
        for (int number = 1; number < 100 && !stage_.lost("errors"); ++number) {
            const std::string old = configuration(500), next = configuration(600);
            begin(old);
            Run run(stage_, publishes(next));
            Tracee* writer = at_call(run, number);
            if (writer == nullptr || writer->call == SYS_exit_group) break;
            if (!run.tracer.answer(writer, -ENOSPC))
                throw std::runtime_error("cannot fail a call here");
            const std::string name = call_name(writer->call);
            run.finish();
            std::string saw =
                run.why.empty() && (run.told() || run.status() == 0) ? "" : "not told";
            if (saw.empty()) saw = run.told() ? read({old, next}) : read({next});
            if (saw.empty()) saw = left();
            if (!saw.empty()) saw = run.seen() + "\nand then: " + saw;
            expect("errors",
                   {"had the writer's " + name + " fail: " + strerror(ENOSPC), saw,
                    "say on stderr what failed, end with another status than 0, and leave the old "
                    "one as it was, and nothing else",
                    "strace -e inject=" + name + ":error=ENOSPC PROGRAM publish FILE"});
        }
        stage_.clear();
        Run run(stage_, words({"read"}));
        run.finish();
        if (!run.why.empty() || !run.told())
            stage_.lose("errors", {"read where there is none", run.seen(),
                                   "say so on stderr, and end with another status than 0",
                                   "rm config; PROGRAM read"});
        stage_.earn("errors");
    }

    Stage& stage_;
};

inline Lab readers_lab() {
    return {6,
            "6-readers",
            "readers: one copy, read-only, replaced whole",
            90,
            {"docs/labs/6-readers/ours.cc", "map_posix/config/shared_config.cc"},
            {{"builds", 1, "it builds"},
             {"result", 2, "read prints what was published last"},
             {"one", 3, "20 readers have one copy"},
             {"readonly", 2, "the readers' mapping is shared, and for reading only"},
             {"whole", 4, "a reader gets the whole old one or the whole new one, at any moment"},
             {"keeps", 3, "a reader that goes on keeps what it has"},
             {"killed", 2, "the writer is killed at each of its calls: old or new, and it goes on"},
             {"left", 1, "nothing is left but the configuration"},
             {"errors", 2, "a call that fails is reported, and changes nothing"}},
            [](Stage& stage) { Readers(stage).grade(); }};
}
