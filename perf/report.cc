// The report as tables for people, as CSV, and what this machine is.

#include "report.h"

#include <err.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>

static std::string contents(const std::string& path) {
    std::ifstream file(path);
    std::string text(std::istreambuf_iterator<char>(file), {});
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

static std::string settings(const std::string& path) {
    const std::string text = contents(path);
    return text.empty() ? "unknown" : text;
}

// What follows "key : " in /proc/cpuinfo; not every processor has every key.
static std::string cpuinfo(const std::string& key) {
    const std::string text = contents("/proc/cpuinfo");
    const size_t at = text.find("\n" + key), colon = text.find(": ", at);
    if (at == std::string::npos || colon == std::string::npos) return "unknown";
    return text.substr(colon + 2, text.find('\n', colon) - colon - 2);
}

static std::string file_system(const std::string& directory) {
    static const std::map<unsigned long, const char*> names = {
        {0xef53, "ext4"},      {0x01021994, "tmpfs"},     {0x58465342, "xfs"},
        {0x9123683e, "btrfs"}, {0x794c7630, "overlayfs"}, {0x6969, "nfs"},
        {0x2fc12fc1, "zfs"},   {0xf2f52010, "f2fs"},      {0x01021997, "9p"},
        {0x65735546, "fuse"},  {0x858458f6, "ramfs"}};
    struct statfs it;
    if (statfs(directory.c_str(), &it) == -1) err(1, "statfs(%s)", directory.c_str());
    const unsigned long type = static_cast<unsigned long>(it.f_type) & 0xffffffff;
    char hexadecimal[32];
    snprintf(hexadecimal, sizeof hexadecimal, "file system 0x%lx", type);
    return names.count(type) ? names.at(type) : hexadecimal;
}

std::vector<std::pair<std::string, std::string>> machine(const std::string& directory) {
    utsname system;
    uname(&system);
    const std::string huge = "/sys/kernel/mm/transparent_hugepage/";
    std::string load = contents("/proc/loadavg");
    load = load.substr(0, load.find(' ', load.find(' ', load.find(' ') + 1) + 1));
    return {{"processor", cpuinfo("model name") + ", " + cpuinfo("cpu MHz") + " MHz, " +
                              std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + " online"},
            {"kernel", std::string(system.sysname) + " " + system.release},
            {"page size", std::to_string(getpagesize())},
            {"huge pages, private", settings(huge + "enabled")},
            {"huge pages, shared", settings(huge + "shmem_enabled")},
            {"file in", directory + " (" + file_system(directory) + ")"},
            {"load before", load},

#ifdef __OPTIMIZE__
            {"build", "release"}
#else
            {"build", "debug: built without -O2, the loops are slow"}
#endif
    };
}

std::string size_name(size_t bytes) {
    for (auto [shift, unit] : {std::pair(30, "G"), std::pair(20, "M"), std::pair(10, "k")})
        if (bytes % (size_t{1} << shift) == 0) return std::to_string(bytes >> shift) + unit;
    return std::to_string(bytes);
}

std::string thousands(long number) {
    std::string text = std::to_string(number);
    for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3)
        text.insert(static_cast<size_t>(at), 1, ',');
    return text;
}

std::string old_table(long count) { return "write+read x " + thousands(count); }

std::vector<const Series*> Report::of(const std::string& table, const std::string& measure) const {
    std::vector<const Series*> found;
    for (const Series& one : series)
        if (one.table == table && one.measure == measure) found.push_back(&one);
    return found;
}

static std::string formatted(const char* format, double a, double b = 0) {
    char text[80];
    snprintf(text, sizeof text, format, a, b);
    return text;
}

enum Figure { kMilliseconds, kMicroseconds, kPerPage, kPercent, kGigabytes, kMillions };
struct Column {
    const char *measure, *title;
    Figure figure;
};

// A median (of the processor time, where that was measured), and what the verdict on it says: how
// many times the base's it is, "same", or "?" if that is unclear.
static std::string cell(const Series& one, Figure figure, long count = 1) {
    if (one.real.empty()) return "";
    const double it = median(one.cpu.empty() ? one.real : one.cpu);
    const double bytes = static_cast<double>(one.bytes);
    const double pages = std::max(1.0, bytes / static_cast<double>(getpagesize()));
    const double shown = figure == kMilliseconds   ? it / 1e6 * static_cast<double>(count)
                         : figure == kMicroseconds ? it / 1e3
                         : figure == kPerPage      ? it / pages
                         : figure == kPercent      ? it * 100
                         : figure == kGigabytes    ? bytes / it
                                                   : 1e3 / it;
    if (shown < 0.005) return "-";  // also what this mechanism does not do
    std::string text = formatted(shown < 10 ? "%.2f" : shown < 1000 ? "%.1f" : "%.0f", shown);
    if (!one.verdict) return text;
    const Verdict& verdict = *one.verdict;
    if (!verdict.differs) return text + (verdict.words == "same" ? " same" : " ?");
    const bool rate = figure == kGigabytes || figure == kMillions;
    return text + formatted(" x%.2f", rate ? 1 / verdict.ratio : verdict.ratio);
}

// The old tutorial's totals, each mechanism's with the verdict on it and its interval.
static void print_old_table(const Report& report, long count, FILE* out) {
    const auto all = report.of(old_table(count), "write+read");
    if (all.empty()) return;
    fprintf(
        out,
        "\nWrite every int, read every int, %s times: total in ms, as the processor's time\n%6s",
        thousands(count).c_str(), "size");
    for (size_t column = 0; column < 4; ++column)
        fprintf(out, column == 0 ? " %9s" : " %28s", all[column]->mechanism.c_str());
    fputs("   measured\n", out);
    for (size_t i = 0; i + 3 < all.size(); i += 4) {
        fprintf(out, "%6s", size_name(all[i]->bytes).c_str());
        const Series* measured = nullptr;
        for (size_t column = 0; column < 4; ++column) {
            const Series& one = *all[i + column];
            std::string text = one.real.empty() ? "not measured" : cell(one, kMilliseconds, count);
            if (one.verdict && one.verdict->range)
                text +=
                    formatted(" (%.3f-%.3f)", one.verdict->range->low, one.verdict->range->high);
            fprintf(out, column == 0 ? " %9s" : " %28s", text.c_str());
            if (!one.real.empty()) measured = &one;
        }
        if (measured)
            fprintf(out, "   %zu x %s", measured->real.size(),
                    thousands(measured->repetitions).c_str());
        fputc('\n', out);
    }
}

// A row for each size and mechanism, a column for each measure.
static void print_matrix(const Report& report, const char* table, const std::string& title,
                         const std::vector<Column>& columns, FILE* out) {
    const auto rows = report.of(table, columns[0].measure);
    if (rows.empty()) return;
    std::vector<std::vector<std::string>> lines = {{"size", "mechanism"}};
    for (const Column& column : columns) lines[0].push_back(column.title);
    for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i]->real.empty()) continue;
        lines.push_back({size_name(rows[i]->bytes), rows[i]->mechanism});
        for (const Column& column : columns)
            lines.back().push_back(cell(*report.of(table, column.measure)[i], column.figure));
        lines.back().push_back(rows[i]->note);
    }
    fprintf(out, "\n%s\n", title.c_str());
    for (const auto& line : lines) {
        for (size_t c = 0; c < columns.size() + 2; ++c) {
            size_t width = c == 0 ? 6 : 1;
            for (const auto& other : lines) width = std::max(width, other[c].size());
            const int aligned = static_cast<int>(width);
            fprintf(out, "%s%*s", c == 0 ? "" : " ", c == 1 ? -aligned : aligned, line[c].c_str());
        }
        const bool noted = line.size() > columns.size() + 2 && !line.back().empty();
        fprintf(out, "%s%s\n", noted ? "  " : "", noted ? line.back().c_str() : "");
    }
}

void print_tables(const Report& report, FILE* out) {
    fprintf(out, "perf: %s\n",
            report.full ? "the old tutorial's counts in full, where the time allowed"
                        : "the quick version: fewer repetitions, scaled to the old tutorial's "
                          "counts; perf-full does all");
    for (const auto& [what, value] : report.machine)
        fprintf(out, "%20s: %s\n", what.c_str(), value.c_str());
    for (long count : {100000L, 1000L}) print_old_table(report, count, out);
    const std::vector<Column> stages = {
        {"make", "make", kMicroseconds},         {"reserve", "reserve", kMicroseconds},
        {"map", "map", kMicroseconds},           {"first touch", "ns/page", kPerPage},
        {"minor faults", "minor", kPerPage},     {"major faults", "major", kPerPage},
        {"collapse", "collapse", kMicroseconds}, {"ready", "ready", kMicroseconds},
        {"msync", "msync", kMicroseconds},       {"give back", "give back", kMicroseconds}};
    const std::vector<Column> loops = {
        {"read", "read", kGigabytes},     {"memchr", "memchr", kGigabytes},
        {"memset", "memset", kGigabytes}, {"memcpy", "memcpy", kGigabytes},
        {"random", "random", kGigabytes}, {"huge", "huge %", kPercent}};
    print_matrix(
        report, kLives,
        "One life in stages, us; first touch: ns, minor and major faults for each page; ready: all "
        "before it together",
        stages, out);
    print_matrix(report, kLives,
                 "Once every page is there, GB/s (random order: cache lines); memchr and memset "
                 "are the machine's limit; xN: so many times private memory's",
                 loops, out);
    std::vector<Column> huge = {{"minor faults", "minor", kPerPage},
                                {"ready", "ready", kMicroseconds}};
    huge.insert(huge.end(), loops.begin(), loops.end());
    print_matrix(report, kHuge,
                 "Huge pages: minor faults for each page; us until every page is there; then GB/s; "
                 "the setting\nthat each depends on; xN: so many times private memory's in small "
                 "pages",
                 huge, out);
    print_matrix(report, kMessages,
                 "Messages to another process, millions/s, and there and back, us; xN: so many "
                 "times a pipe's",
                 {{"message", "million/s", kMillions},
                  {"round trip", "round trip", kMicroseconds},
                  {"on one processor", "one processor", kMicroseconds},
                  {"after a pause", "after a pause", kMicroseconds}},
                 out);
    std::string problems;
    for (const Series& one : report.series) {
        const std::string line =
            "\n" + size_name(one.bytes) + " " + one.mechanism + ": " + one.problem;
        if (!one.problem.empty() && problems.find(line) == std::string::npos) problems += line;
    }
    if (!problems.empty()) fprintf(out, "\nNot measured%s\n", problems.c_str());
}

static std::string csv(const std::string& text) {
    std::string quoted = "\"";
    for (char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
    return quoted + "\"";
}

void print_csv(const Report& report, FILE* out) {
    fputs(
        "table,measure,mechanism,bytes,unit,samples,repetitions,median,quarter,three_quarters,"
        "p99,cpu_median,ratio,ratio_low,ratio_high,verdict,note,problem\n",
        out);
    for (const Series& one : report.series) {
        fprintf(out, "%s,%s,%s,%zu,%s,%zu,%ld", csv(one.table).c_str(), csv(one.measure).c_str(),
                csv(one.mechanism).c_str(), one.bytes, one.unit.c_str(), one.real.size(),
                one.repetitions);
        if (one.real.empty())
            fputs(",,,,", out);
        else
            fprintf(out, ",%.10g,%.10g,%.10g,%.10g", median(one.real), quantile(one.real, 0.25),
                    quantile(one.real, 0.75), quantile(one.real, 0.99));
        if (one.cpu.empty())
            fputs(",", out);
        else
            fprintf(out, ",%.10g", median(one.cpu));
        if (one.verdict && one.verdict->range)
            fprintf(out, ",%.5f,%.5f,%.5f", one.verdict->ratio, one.verdict->range->low,
                    one.verdict->range->high);
        else
            fputs(",,,", out);
        fprintf(out, ",%s,%s,%s\n", csv(one.verdict ? one.verdict->words : "").c_str(),
                csv(one.note).c_str(), csv(one.problem).c_str());
    }
}
