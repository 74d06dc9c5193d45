// Measures the three mechanisms against private memory: the old tutorial's tables, one life in
// stages, huge pages, and what handing messages over costs. docs/performance.md says how to read
// the figures.

#include <getopt.h>

#include "report.h"
#include "rounds.h"
#include "transfer.h"

static constexpr char kHelp[] =
    "usage: %s [OPTIONS]\n"
    "  --full             the old tutorial's counts in full; takes minutes\n"
    "  --seconds N        time to spend: 55, with --full at most 360\n"
    "  --sizes LIST       4k,16k,64k,256k,1M,4M,16M,32M\n"
    "  --dir DIR          where the mapped file is made: .\n"
    "  --csv              that instead of tables, with every interval\n"
    "  --svg FILE         also a chart\n"
    "  --self-check [N]   judge N times (100) what is the same, and what works 10 %% more\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static constexpr size_t kLargest = size_t{1} << 30;
static constexpr long kRounds = 100;
// Seconds for one family of the self-check on a quiet machine, and at most.
static constexpr double kFamily = 0.5, kFamilyBound = 5;

static int stop_number = 0;
static void note_stop(int number) {
    stop_number = number;
    stopped = 1;
}

// What is measured now, on stderr, if somebody looks at it; "": nothing any more.
static void show(const std::string& what) {
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s", what.c_str());
}

struct Options {
    std::vector<size_t> sizes;
    std::string directory = ".", svg;
    double seconds = 0;
    long self_check = 0;
    bool full = false, csv = false;
};

static size_t size(const std::string& text) {
    char* end = nullptr;
    errno = 0;
    unsigned long long value = strtoull(text.c_str(), &end, 10);
    const std::string unit = end;
    const int shift = unit == "k" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : 0;
    if (!isdigit(text[0]) || (shift == 0 && !unit.empty()) || errno != 0 ||
        value < (shift ? 1 : sizeof(int)) || value > kLargest >> shift)
        errx(2, "'%s' is not a size from 4 to 1G: a number of bytes, or one with k, M or G",
             text.c_str());
    return static_cast<size_t>(value) << shift;
}

static std::vector<size_t> sizes(const std::string& list) {
    std::vector<size_t> all;
    for (size_t from = 0, to; from <= list.size(); from = to + 1) {
        to = std::min(list.find(',', from), list.size());
        all.push_back(size(list.substr(from, to - from)));
    }
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

static long positive(const char* text, unsigned long long most) {
    const long value = static_cast<long>(number(text, most));
    if (value == 0) errx(2, "'%s' is not a number from 1 to %llu", text, most);
    return value;
}

// The samples of one figure of every round, for each entry, with verdicts on it as one of
// `comparisons` (0: none). `figure` gives a Took of a Life.
template <class Figure>
void add(Report& report, Series series, const Rounds& rounds, const std::vector<Entry>& entries,
         size_t comparisons, Figure figure) {
    for (size_t e = 0; e < entries.size(); ++e) {
        series.mechanism = entries[e].kind.name;
        series.problem = rounds.problem[e];
        series.note = entries[e].kind.pages == kUsual ? "" : huge_setting(entries[e].kind);
        series.real.clear();
        series.cpu.clear();
        series.verdict.reset();
        for (const Life& life : rounds.lives[e]) {
            if (!series.problem.empty()) break;
            series.real.push_back(figure(life).ns);
            series.cpu.push_back(figure(life).cpu);
        }
        if (comparisons > 0 && e > 0 && series.problem.empty() && rounds.problem[0].empty())
            series.verdict = judge(rounds.ratios(e, figure), comparisons);
        report.series.push_back(series);
    }
}

static std::vector<Entry> entries_of(const std::vector<Kind>& kinds) {
    std::vector<Entry> entries;
    for (const Kind& kind : kinds) entries.push_back({kind});
    return entries;
}

// The rows of the old tutorial's two tables; the larger get more of the time.
static void old_tables(const Options& options, double seconds, Report& report) {
    struct Row {
        size_t bytes;
        long count;
        double weight;
    };
    std::vector<Row> rows;
    double sum = 0;
    for (long count : {100000L, 1000L})
        for (size_t bytes : options.sizes)
            if (count == 1000 ? bytes >= 1 << 20 : bytes <= 1 << 20) {
                const double size = static_cast<double>(bytes);
                const double work = options.full ? size * double(count) / 4e9 : size / 8e6;
                rows.push_back({bytes, count, 1 + work});
                sum += 1 + work;
            }
    const std::vector<Entry> entries = entries_of(kMechanisms);
    for (const Row& row : rows) {
        const double part = seconds * row.weight / sum;
        show("write+read of " + size_name(row.bytes));
        const Rounds rounds = measure({entries, row.bytes, {kOld}, row.count, kRounds, part, part});
        if (stopped) return;
        add(report, {old_table(row.count), kLoop[kOld], "", row.bytes, "ns", rounds.repetitions},
            rounds, entries, rows.size() * (entries.size() - 1),
            [](const Life& life) { return life.loop[kOld]; });
    }
}

// Lives in stages, and the loops that see the memory, for some kinds of memory of these sizes.
static void lives(const char* table, const std::vector<Kind>& kinds,
                  const std::vector<size_t>& sizes, double seconds, Report& report) {
    const std::vector<Loop> loops = {kRead, kScan, kSet, kCopy, kRandom};
    const std::vector<Entry> entries = entries_of(kinds);
    double sum = 0;
    for (size_t bytes : sizes) sum += 1 + static_cast<double>(bytes) / 8e6;
    const size_t comparisons = sizes.size() * (entries.size() - 1) * (loops.size() + 1);
    for (size_t bytes : sizes) {
        const double part = seconds * (1 + static_cast<double>(bytes) / 8e6) / sum;
        show(table + (" of " + size_name(bytes)));
        const Rounds rounds = measure({entries, bytes, loops, 1000000000, kRounds, part, part});
        if (stopped) return;
        const auto figure = [&](const char* measure, const char* unit, size_t judged, auto get) {
            add(report, {table, measure, "", bytes, unit}, rounds, entries, judged, get);
        };
        for (int stage = 0; stage < kStages; ++stage)
            figure(kStage[stage], "ns", stage == kReady ? comparisons : 0,
                   [&](const Life& life) { return life.stage[stage]; });
        const auto plain = [](double it) { return Took{it, it}; };
        figure("minor faults", "faults", 0,
               [&](const Life& it) { return plain(double(it.minor)); });
        figure("major faults", "faults", 0,
               [&](const Life& it) { return plain(double(it.major)); });
        figure("later faults", "faults", 0,
               [&](const Life& it) { return plain(double(it.later)); });
        figure("huge", "part", 0, [&](const Life& it) { return plain(it.huge); });
        for (Loop loop : loops)
            add(report, {table, kLoop[loop], "", bytes, "ns", rounds.repetitions}, rounds, entries,
                comparisons, [&](const Life& life) { return life.loop[loop]; });
    }
}

// In each round every way has its turn with every size. What is judged is the time that passed, as
// two processes share it.
static void messages(const Options& options, double seconds, Report& report) {
    const size_t sizes[] = {64, 1500, 65536};
    const long rounds = options.full ? 40 : 20;
    const double each = seconds / static_cast<double>(rounds * kHows) / 3;
    const size_t comparisons = size_t{3} * (kHows - 1) * kCosts;
    const double end = now() + seconds * 1e9;  // no round begins after it
    std::vector<double> samples[3][kHows][kCosts];
    std::string problem[3][kHows];
    for (long r = 0; r < rounds && (r == 0 || now() < end); ++r)
        for (size_t s = 0; s < 3; ++s)
            for (int i = 0; i < kHows; ++i) {
                const int how = static_cast<int>((i + r) % kHows);
                if (!problem[s][how].empty()) continue;
                show(std::string("messages over a ") + kHow[how]);
                const Transfer result = transfer(static_cast<How>(how), sizes[s], each);
                if (stopped) return;
                problem[s][how] = result.problem;
                for (int cost = 0; cost < kCosts; ++cost)
                    samples[s][how][cost].push_back(result.ns[cost]);
            }
    for (int cost = 0; cost < kCosts; ++cost)
        for (size_t s = 0; s < 3; ++s)
            for (int how = 0; how < kHows; ++how) {
                Series series = {kMessages, kCost[cost], kHow[how], sizes[s]};
                series.problem = problem[s][how];
                std::vector<double> ratios;
                const auto &ours = samples[s][how][cost], &pipes = samples[s][kPipe][cost];
                if (series.problem.empty()) series.real = ours;
                for (size_t r = 0; r < std::min(ours.size(), pipes.size()); ++r)
                    ratios.push_back(ours[r] / pipes[r]);
                if (how != kPipe && series.problem.empty() && problem[s][kPipe].empty())
                    series.verdict = judge(ratios, comparisons);
                report.series.push_back(series);
            }
}

static Took old_loop_of(const Life& life) { return life.loop[kOld]; }

// Is the median of every entry known well enough to tell 10 % from nothing? This asks how wide the
// intervals are, not where they lie: to go on until something differs would find a difference.
static bool narrow(const Rounds& rounds) {
    for (size_t e = 1; e < rounds.lives.size(); ++e) {
        const auto range = judge(rounds.ratios(e, old_loop_of), rounds.lives.size() - 1).range;
        if (!range || range->high - range->low > 0.08) return false;
    }
    return true;
}

// Judges what is known: five entries of one kind, the first as the base, the last doing 10 % more.
static void self_check(long repetitions) {
    long done = 0, alarms = 0, found = 0, judged = 0, false_cells = 0;
    const size_t bytes[] = {4 << 10, 64 << 10, 256 << 10};
    for (; done < repetitions; ++done) {
        show("self-check " + std::to_string(done + 1));
        const Kind& kind = kMechanisms[static_cast<size_t>(done) % kMechanisms.size()];
        const std::vector<Entry> entries = {{kind}, {kind}, {kind}, {kind}, {kind, 1.1}};
        const Rounds rounds = measure({entries,
                                       bytes[done % 3],
                                       {kOld},
                                       1000000000,
                                       kRounds,
                                       kFamily,
                                       kFamilyBound,
                                       10,
                                       narrow});
        if (stopped) break;
        for (const std::string& problem : rounds.problem)
            if (!problem.empty()) errx(1, "%s", problem.c_str());
        bool alarm = false;
        for (size_t e = 1; e < entries.size(); ++e) {
            const Verdict verdict = judge(rounds.ratios(e, old_loop_of), entries.size() - 1);
            if (entries[e].work > 1) {
                found += verdict.differs && verdict.ratio > 1;
                continue;
            }
            ++judged;
            false_cells += verdict.differs;
            alarm = alarm || verdict.differs;
        }
        alarms += alarm;
    }
    show("");
    printf(
        "one mechanism under four names: false alarms in %ld of %ld families, that is in %ld of "
        "%ld comparisons\n10 %% more work planted: found in %ld of %ld\n",
        alarms, done, false_cells, judged, found, done);
}

static Options read_options(int argc, char** argv) {
    Options options;
    options.sizes = sizes("4k,16k,64k,256k,1M,4M,16M,32M");
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    const option known[] = {{"full", no_argument, nullptr, 'f'},
                            {"seconds", required_argument, nullptr, 't'},
                            {"sizes", required_argument, nullptr, 's'},
                            {"dir", required_argument, nullptr, 'd'},
                            {"csv", no_argument, nullptr, 'c'},
                            {"svg", required_argument, nullptr, 'g'},
                            {"self-check", no_argument, nullptr, 'k'},
                            {"help", no_argument, nullptr, 'h'},
                            {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'f') options.full = true;
        if (c == 't') options.seconds = static_cast<double>(positive(optarg, 86400));
        if (c == 's') options.sizes = sizes(optarg);
        if (c == 'd') options.directory = optarg;
        if (c == 'c') options.csv = true;
        if (c == 'g') options.svg = optarg;
        if (c == 'k') options.self_check = 100;
        if (c == 'k' && optind < argc && argv[optind][0] != '-')
            options.self_check = positive(argv[optind++], 1000000);
        if (c == 'h') exit(printf(kHelp, argv[0]) < 0 || fflush(stdout) != 0);
    }
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (options.seconds == 0) options.seconds = options.full ? 360 : 55;
    return options;
}

int main(int argc, char** argv) {
    Report report;
    prepare();
    const Options options = read_options(argc, argv);
    // After a stop signal the program ends when it has shown what is finished.
    handle_stops(note_stop, 0);  // without SA_RESTART: a call that waits ends
    report.full = options.full;
    report.machine = machine(options.directory);
    file_name = options.directory + "/shm-perf-" + std::to_string(getpid());
    FILE* chart = options.svg.empty() ? nullptr : fopen(options.svg.c_str(), "we");
    if (!chart && !options.svg.empty()) err(1, "fopen(%s)", options.svg.c_str());

    if (options.self_check) {
        self_check(options.self_check);
    } else {
        const double seconds = options.seconds, part = options.full ? 0.15 : 0.22;
        std::vector<size_t> some = {options.sizes.front(), options.sizes[options.sizes.size() / 2],
                                    options.sizes.back()};
        some.erase(std::unique(some.begin(), some.end()), some.end());
        old_tables(options, seconds * (options.full ? 0.5 : 0.28), report);
        if (!stopped) lives(kLives, kMechanisms, some, seconds * part, report);
        open_huge_mount();
        if (!stopped && huge_page() > 0 && some.back() % huge_page() == 0)
            lives(kHuge, kHugeKinds, {some.back()}, seconds * (part + 0.05), report);
        if (!stopped) messages(options, seconds * (options.full ? 0.15 : 0.2), report);
        show("");
        (options.csv ? print_csv : print_tables)(report, stdout);
        if (chart) print_svg(report, chart);
        if (chart && (ferror(chart) || fclose(chart) != 0))
            err(1, "write(%s)", options.svg.c_str());
    }
    if (fflush(stdout) != 0 || ferror(stdout)) err(1, "write(stdout)");
    if (stopped) {
        warnx("stopped: the rest was not measured");
        end_by(stop_number);
    }
    return 0;
}
