// Measures the three mechanisms against private memory: the old tutorial's tables, one life in
// stages, and what handing messages over costs. docs/performance.md says how to read the figures.

#include <getopt.h>

#include "report.h"
#include "rounds.h"
#include "transfer.h"

static constexpr char kHelp[] =
    "usage: %s [OPTIONS]\n"
    "  --full             the old tutorial's counts in full; takes minutes\n"
    "  --seconds N        time to spend: 45, with --full at most 480\n"
    "  --sizes LIST       4k,16k,64k,256k,1M,4M,16M,32M\n"
    "  --dir DIR          where the mapped file is made: .\n"
    "  --csv, --json      that instead of tables; JSON in Google Benchmark's layout\n"
    "  --svg FILE         also a chart\n"
    "  --self-check [N]   judge N times (100) what is the same, and what works 10 %% more\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static constexpr size_t kLargest = size_t{1} << 30;
static constexpr long kRounds = 100;

static int stop_number = 0;
static void note_stop(int number) {
    stop_number = number;
    stopped = 1;
}

static void remove_made() {
    if (made) remove(*made);
}
static void remove_and_end(int number) {
    remove_made();
    on_signal(number);
}

// A bar and the time left on stderr, if somebody looks at it.
struct Progress {
    double planned, done = 0, start = now();
    bool terminal = isatty(STDERR_FILENO) == 1;

    void show(double part, const std::string& what) const {
        const double all = std::min(1.0, (done + part) / planned);
        if (!terminal || all <= 0) return;
        const int left = static_cast<int>((now() - start) / 1e9 * (1 - all) / all);
        const std::string bar(static_cast<size_t>(all * 30), '#');
        fprintf(stderr, "\r\033[K[%-30s] %3.0f %%, %d:%02d left: %s", bar.c_str(), all * 100,
                left / 60, left % 60, what.c_str());
        fflush(stderr);
    }
    void finish(double part) { done += part; }
    ~Progress() {
        if (terminal) fputs("\r\033[K", stderr);
    }
};

struct Options {
    std::vector<size_t> sizes;
    std::string directory = ".", svg;
    double seconds = 0;
    long self_check = 0;
    bool full = false, csv = false, json = false;
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

struct Row {
    size_t bytes;
    long count;
    double seconds;
};

// The rows of the old tutorial's two tables, each with its part of the time: the larger take
// longer.
static std::vector<Row> rows(const Options& options) {
    std::vector<Row> all;
    for (long count : {100000L, 1000L})
        for (size_t bytes : options.sizes)
            if (count == 1000 ? bytes >= 1 << 20 : bytes <= 1 << 20) {
                const double size = static_cast<double>(bytes);
                all.push_back(
                    {bytes, count, 1 + (options.full ? size * double(count) / 4e9 : size / 8e6)});
            }
    double sum = 0;
    for (const Row& row : all) sum += row.seconds;
    for (Row& row : all) row.seconds *= options.seconds * (options.full ? 0.8 : 0.6) / sum;
    return all;
}

static void tables(const Options& options, Progress& progress, Report& report) {
    const std::vector<Row> all = rows(options);
    std::vector<Entry> entries;
    for (Kind kind : {kPrivate, kPosix, kFile, kSystemV}) entries.push_back({kind});
    for (const Row& row : all) {
        const Rounds rounds =
            measure(entries, row.bytes, row.count, kRounds, row.seconds, false,
                    [&](double part) { progress.show(part * row.seconds, size_name(row.bytes)); });
        progress.finish(row.seconds);
        if (stopped) return;
        for (size_t e = 0; e < entries.size(); ++e) {
            Series series = {table_measure(row.count), kMechanism[entries[e].kind], row.bytes, "ns",
                             rounds.repetitions};
            series.problem = rounds.problem[e];
            for (const Life& life : rounds.lives[e]) {
                if (!series.problem.empty()) break;
                series.real.push_back(life.ns[kBoth]);
                series.cpu.push_back(life.cpu);
            }
            if (e != kPrivate && rounds.problem[e].empty() && rounds.problem[kPrivate].empty())
                series.verdict = judge(ratios(rounds, e, kPrivate), all.size() * (kKinds - 1));
            report.series.push_back(series);
        }
    }
}

static void stages(const Options& options, Progress& progress, Report& report) {
    std::vector<size_t> chosen = {options.sizes.front(), options.sizes[options.sizes.size() / 2],
                                  options.sizes.back()};
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    std::vector<Entry> entries;
    for (Kind kind : {kPrivate, kPosix, kFile, kSystemV}) entries.push_back({kind});
    const double seconds = options.seconds * 0.2 / static_cast<double>(chosen.size());
    for (size_t bytes : chosen) {
        const long repetitions =
            std::clamp(long(100 * (size_t{4} << 20) / bytes), 10L, 10000L) * 30;
        const Rounds rounds = measure(
            entries, bytes, repetitions, 30, seconds, true,
            [&](double part) { progress.show(part * seconds, "stages of " + size_name(bytes)); });
        progress.finish(seconds);
        if (stopped) return;
        for (size_t e = 0; e < entries.size(); ++e) {
            Series series = {"", kMechanism[entries[e].kind], bytes, "ns"};
            series.problem = rounds.problem[e];
            const auto add = [&](const char* measure, const char* unit, long n, auto figure) {
                series.measure = measure, series.unit = unit, series.repetitions = n;
                series.real.clear();
                for (const Life& life : rounds.lives[e])
                    if (series.problem.empty()) series.real.push_back(double(figure(life)));
                report.series.push_back(series);
            };
            for (Stage stage :
                 {kMake, kReserve, kMap, kTouch, kWrite, kRead, kSync, kUnmap, kRemove})
                add(kStage[stage], "ns", stage == kWrite || stage == kRead ? rounds.repetitions : 1,
                    [&](const Life& life) { return life.ns[stage]; });
            add("minor faults", "faults", 1, [](const Life& life) { return life.minor; });
            add("major faults", "faults", 1, [](const Life& life) { return life.major; });
            add("later faults", "faults", 1, [](const Life& life) { return life.later; });
        }
    }
}

static void transfers(const Options& options, Progress& progress, Report& report) {
    const double seconds = options.seconds * (options.full ? 0.1 : 0.2) / (3 * kHows);
    for (size_t bytes : {64, 1500, 65536})
        for (How how : {kRing, kRingEach, kPipe, kPipeBlocks, kSocket, kQueue}) {
            progress.show(0, std::string("messages over a ") + kHow[how]);
            const Transfer result = transfer(how, bytes, seconds);
            progress.finish(seconds);
            if (stopped) return;
            Series series = {"message", kHow[how], bytes, "ns", result.batch};
            series.problem = result.problem;
            series.real = result.message;
            report.series.push_back(series);
            series.measure = "round trip", series.repetitions = 1, series.real = result.round_trip;
            report.series.push_back(series);
        }
}

// Judges what is known: five entries of one kind, the first as the base, the last doing 10 % more.
static void self_check(long repetitions) {
    long done = 0, alarms = 0, found = 0, judged = 0, false_cells = 0;
    {
        Progress progress = {static_cast<double>(repetitions)};
        const size_t bytes[] = {4 << 10, 64 << 10, 256 << 10};
        for (long i = 0; i < repetitions; ++i) {
            const Kind kind = static_cast<Kind>(i % kKinds);
            const std::vector<Entry> entries = {{kind}, {kind}, {kind}, {kind}, {kind, 1.1}};
            const Rounds rounds = measure(entries, bytes[i % 3], 1000000000, kRounds, 1.5, false,
                                          [&](double part) { progress.show(part, "self-check"); });
            progress.finish(1);
            if (stopped) break;
            for (const std::string& problem : rounds.problem)
                if (!problem.empty()) errx(1, "%s", problem.c_str());
            bool alarm = false;
            for (size_t e = 1; e < entries.size(); ++e) {
                const Verdict verdict = judge(ratios(rounds, e, 0), entries.size() - 1);
                if (entries[e].work > 1) {
                    found += verdict.differs && verdict.ratio > 1;
                    continue;
                }
                ++judged;
                false_cells += verdict.differs;
                alarm = alarm || verdict.differs;
            }
            alarms += alarm;
            ++done;
        }
    }
    const double percent = 100.0 / static_cast<double>(std::max(1L, done));
    printf(
        "one mechanism under four names: false alarms in %ld of %ld families (%.1f %%), that is "
        "in %ld of %ld comparisons\n",
        alarms, done, static_cast<double>(alarms) * percent, false_cells, judged);
    printf("10 %% more work planted: found in %ld of %ld (%.1f %%)\n", found, done,
           static_cast<double>(found) * percent);
}

static Options read_options(int argc, char** argv) {
    Options options;
    options.sizes = sizes("4k,16k,64k,256k,1M,4M,16M,32M");
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    const option known[] = {
        {"full", no_argument, nullptr, 'f'},        {"seconds", required_argument, nullptr, 't'},
        {"sizes", required_argument, nullptr, 's'}, {"dir", required_argument, nullptr, 'd'},
        {"csv", no_argument, nullptr, 'c'},         {"json", no_argument, nullptr, 'j'},
        {"svg", required_argument, nullptr, 'g'},   {"self-check", no_argument, nullptr, 'k'},
        {"help", no_argument, nullptr, 'h'},        {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'f') options.full = true;
        if (c == 't') options.seconds = static_cast<double>(positive(optarg, 86400));
        if (c == 's') options.sizes = sizes(optarg);
        if (c == 'd') options.directory = optarg;
        if (c == 'c') options.csv = true;
        if (c == 'j') options.json = true;
        if (c == 'g') options.svg = optarg;
        if (c == 'k') options.self_check = 100;
        if (c == 'k' && optind < argc && argv[optind][0] != '-')
            options.self_check = positive(argv[optind++], 1000000);
        if (c == 'h') exit(printf(kHelp, argv[0]) < 0 || fflush(stdout) != 0);
    }
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (options.csv && options.json) errx(2, "--csv or --json: stdout takes one of them");
    if (options.seconds == 0) options.seconds = options.full ? 480 : 45;
    return options;
}

int main(int argc, char** argv) {
    Report report;
    report.program = argv[0];
    prepare();
    const Options options = read_options(argc, argv);
    // What is to be told goes on at once, and the program ends after it has shown what is finished.
    atexit(remove_made);
    handle_signal(SIGBUS, remove_and_end, SA_RESETHAND);
    handle_stops(note_stop, 0);  // without SA_RESTART: a call that waits ends
    report.full = options.full;
    report.machine = machine(options.directory);
    file_name = options.directory + "/shm-perf-" + std::to_string(getpid());
    FILE* chart = options.svg.empty() ? nullptr : fopen(options.svg.c_str(), "we");
    if (!chart && !options.svg.empty()) err(1, "fopen(%s)", options.svg.c_str());

    if (options.self_check) {
        self_check(options.self_check);
    } else {
        {
            Progress progress = {options.seconds * (options.full ? 1.1 : 1.0)};
            tables(options, progress, report);
            if (!stopped) stages(options, progress, report);
            if (!stopped) transfers(options, progress, report);
        }
        (options.csv ? print_csv : options.json ? print_json : print_tables)(report, stdout);
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
