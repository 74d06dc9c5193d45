// The report as tables for people, as CSV, as JSON, and what this machine is.

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
            {"build", "debug: built without -O2, the loop is slow"}
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
        text.insert(static_cast<size_t>(at), ",");
    return text;
}

std::string table_measure(long count) { return "write+read x " + thousands(count); }

static double sum(const std::vector<double>& sample) {
    double all = 0;
    for (double x : sample) all += x;
    return all;
}

static std::string bar(double part, double whole, size_t width) {
    const double length = part / whole * static_cast<double>(width) + 0.5;
    return std::string(std::min(width, static_cast<size_t>(std::max(0.0, length))), '#');
}

static void print_count(const Report& report, long count, FILE* out) {
    const auto all = report.of(table_measure(count));
    if (all.empty()) return;
    fprintf(out, "\nWrite every int, read every int, %s times: total in ms\n",
            thousands(count).c_str());
    fprintf(out, "%6s %14s %14s %14s %14s   measured\n", "size", "shm_open+mmap", "open+mmap",
            "shmget", "(private)");
    for (size_t i = 0; i + 3 < all.size(); i += 4) {
        fprintf(out, "%6s", size_name(all[i]->bytes).c_str());
        const Series* measured = nullptr;
        for (size_t column : {1, 2, 3, 0}) {
            const Series& one = *all[i + column];
            if (one.real.empty()) {
                fprintf(out, " %14s", "not measured");
                continue;
            }
            measured = &one;
            fprintf(out, " %14.0f", sum(one.real) / double(one.real.size()) * double(count) / 1e6);
        }
        if (measured) {
            const long done = measured->repetitions * static_cast<long>(measured->real.size());
            fprintf(out, "   %zu rounds of %s", measured->real.size(),
                    thousands(measured->repetitions).c_str());
            if (done != count) fprintf(out, ", scaled by %.3g", double(count) / double(done));
        }
        fputc('\n', out);
    }
    fprintf(out, "\n%6s %-14s %6s %-17s %-24s 0 to twice private memory's time\n", "size",
            "mechanism", "ratio", "(interval)", "verdict");
    for (const Series* one : all) {
        if (!one->verdict) continue;
        const Verdict& verdict = *one->verdict;
        std::string line = bar(verdict.ratio, 2, 40), range = "(none)";
        line.resize(std::max<size_t>(line.size(), 21), ' ');
        line[20] = '|';
        char text[40];
        if (verdict.range) {
            snprintf(text, sizeof text, "(%.3f to %.3f)", verdict.range->low, verdict.range->high);
            range = text;
        }
        fprintf(out, "%6s %-14s %6.3f %-17s %-24s %s\n", size_name(one->bytes).c_str(),
                one->mechanism.c_str(), verdict.ratio, range.c_str(), verdict.words.c_str(),
                line.c_str());
    }
}

double Report::middle(const std::string& measure, const Series& like) const {
    for (const Series* one : of(measure))
        if (one->mechanism == like.mechanism && one->bytes == like.bytes && !one->real.empty())
            return median(one->real);
    return 0;
}

double Report::ready(const Series& like) const {
    double all = 0;
    for (const char* measure : kUntilReady) all += middle(measure, like);
    return all;
}

static void print_stages(const Report& report, FILE* out) {
    const auto all = report.of("make");
    if (all.empty()) return;
    fputs(
        "\nOne life in stages: medians, us; first touch in ns and faults per page; write and read"
        " in GB/s;\nlater: faults after the first touch; ready: make to first touch together, us\n"
        " size mechanism       make reserve    map  touch minor major write  read later   msync"
        "   unmap  remove    ready\n",
        out);
    for (const Series* one : all) {
        if (one->real.empty()) continue;
        const double bytes = static_cast<double>(one->bytes);
        const double pages = std::max(1.0, bytes / static_cast<double>(getpagesize()));
        double most = 0;
        for (const Series* other : all)
            if (other->bytes == one->bytes) most = std::max(most, report.ready(*other));
        const struct {
            int width, digits;
            double value;
        } cells[] = {{7, 1, report.middle("make", *one) / 1e3},
                     {7, 1, report.middle("reserve", *one) / 1e3},
                     {6, 1, report.middle("map", *one) / 1e3},
                     {6, 0, report.middle("first touch", *one) / pages},
                     {5, 2, report.middle("minor faults", *one) / pages},
                     {5, 2, report.middle("major faults", *one) / pages},
                     {5, 1, bytes / report.middle("write", *one)},
                     {5, 1, bytes / report.middle("read", *one)},
                     {5, 0, report.middle("later faults", *one)},
                     {7, 1, report.middle("msync", *one) / 1e3},
                     {7, 1, report.middle("unmap", *one) / 1e3},
                     {7, 1, report.middle("remove", *one) / 1e3},
                     {8, 1, report.ready(*one) / 1e3}};
        fprintf(out, "%5s %-13s", size_name(one->bytes).c_str(), one->mechanism.c_str());
        for (const auto& cell : cells)
            if (cell.value < 0.05)  // also what this mechanism does not do
                fprintf(out, " %*s", cell.width, "-");
            else
                fprintf(out, " %*.*f", cell.width, cell.digits, cell.value);
        fprintf(out, " %s\n", bar(report.ready(*one), most, 20).c_str());
    }
}

static void print_transfers(const Report& report, FILE* out) {
    const auto all = report.of("message"), trips = report.of("round trip");
    if (all.empty()) return;
    fprintf(out,
            "\nMessages to another process, and there and back\n%6s %-25s %11s %7s %12s %10s\n",
            "bytes", "through", "messages/s", "GB/s", "round trip", "99 % below");
    for (size_t i = 0; i < all.size() && i < trips.size(); ++i) {
        fprintf(out, "%6zu %-25s ", all[i]->bytes, all[i]->mechanism.c_str());
        if (all[i]->real.empty() || trips[i]->real.empty()) {
            fprintf(out, "%11s\n", "not measured");
            continue;
        }
        double least = 1e300;
        for (const Series* other : all)
            if (other->bytes == all[i]->bytes && !other->real.empty())
                least = std::min(least, median(other->real));
        const double ns = median(all[i]->real);
        fprintf(out, "%11s %7.3f %9.1f us %7.1f us %s\n",
                thousands(static_cast<long>(1e9 / ns)).c_str(), double(all[i]->bytes) / ns,
                median(trips[i]->real) / 1e3, quantile(trips[i]->real, 0.99) / 1e3,
                bar(least / ns, 1, 20).c_str());
    }
}

void print_tables(const Report& report, FILE* out) {
    fprintf(out, "perf: %s\n",
            report.full ? "the old tutorial's counts in full, where the time allowed"
                        : "the quick version: fewer repetitions, scaled to the old tutorial's "
                          "counts; perf-full does all");
    for (const auto& [what, value] : report.machine)
        fprintf(out, "%20s: %s\n", what.c_str(), value.c_str());
    for (long count : {100000L, 1000L}) print_count(report, count, out);
    print_stages(report, out);
    print_transfers(report, out);
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
        "measure,mechanism,bytes,unit,samples,repetitions,median,quarter,three_quarters,p99,"
        "cpu_median,ratio,ratio_low,ratio_high,verdict,problem\n",
        out);
    for (const Series& one : report.series) {
        fprintf(out, "%s,%s,%zu,%s,%zu,%ld", csv(one.measure).c_str(), csv(one.mechanism).c_str(),
                one.bytes, one.unit.c_str(), one.real.size(), one.repetitions);
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
        fprintf(out, ",%s,%s\n", csv(one.verdict ? one.verdict->words : "").c_str(),
                csv(one.problem).c_str());
    }
}

static std::string json(const std::string& text) {
    std::string quoted = "\"";
    for (unsigned char c : text) {
        char escape[8];
        snprintf(escape, sizeof escape, "\\u%04x", c);
        quoted += c < ' ' || c > '~' || c == '"' || c == '\\' ? escape : std::string(1, char(c));
    }
    return quoted + "\"";
}

// The context that Google Benchmark writes about a machine.
static void print_context(const Report& report, FILE* out) {
    char date[64], host[256] = "";
    const time_t now = time(nullptr);
    tm local;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S%z", localtime_r(&now, &local));
    std::string zone = date;
    if (zone.size() > 5) zone.insert(zone.size() - 2, ":");
    gethostname(host, sizeof host - 1);
    const std::string cpu = "/sys/devices/system/cpu/cpu0/";
    const std::string governor = contents(cpu + "cpufreq/scaling_governor");
    fprintf(out,
            "{\n  \"context\": {\n    \"date\": %s,\n    \"host_name\": %s,\n    \"executable\": "
            "%s,\n    \"num_cpus\": %ld,\n    \"mhz_per_cpu\": %d,\n    \"cpu_scaling_enabled\": "
            "%s,\n    \"caches\": [",
            json(zone).c_str(), json(host).c_str(), json(report.program).c_str(),
            sysconf(_SC_NPROCESSORS_ONLN), atoi(cpuinfo("cpu MHz").c_str()),
            governor.empty() || governor == "performance" ? "false" : "true");
    for (int i = 0;; ++i) {
        const std::string cache = cpu + "cache/index" + std::to_string(i) + "/";
        const std::string type = contents(cache + "type"), size = contents(cache + "size");
        if (type.empty()) break;
        fprintf(
            out, "%s\n      {\"type\": %s, \"level\": %d, \"size\": %ld, \"num_sharing\": %d}",
            i ? "," : "", json(type).c_str(), atoi(contents(cache + "level").c_str()),
            atol(size.c_str()) * (size.back() == 'M' ? 1 << 20 : 1 << 10),
            1 + int(contents(cache + "shared_cpu_list").find_first_of(",-") != std::string::npos));
    }
    const std::string load = contents("/proc/loadavg");
    double loads[3] = {};
    sscanf(load.c_str(), "%lf %lf %lf", &loads[0], &loads[1], &loads[2]);
    fprintf(out, "\n    ],\n    \"load_avg\": [%.2f, %.2f, %.2f],\n", loads[0], loads[1], loads[2]);
    for (const auto& [what, value] : report.machine)
        if (what != "build") fprintf(out, "    %s: %s,\n", json(what).c_str(), json(value).c_str());
#ifdef __OPTIMIZE__
    fputs("    \"library_build_type\": \"release\"\n  },\n", out);
#else
    fputs("    \"library_build_type\": \"debug\"\n  },\n", out);
#endif
}

void print_json(const Report& report, FILE* out) {
    print_context(report, out);
    fputs("  \"benchmarks\": [", out);
    int family = 0;
    bool first = true;
    for (const Series& one : report.series) {
        if (one.unit != "ns" || one.real.empty()) continue;
        const std::string name = one.measure + "/" + one.mechanism + "/" + size_name(one.bytes);
        const auto& cpu = one.cpu.empty() ? one.real : one.cpu;
        const auto entry = [&](const std::string& aggregate, long index, double real, double used) {
            fprintf(out,
                    "%s\n    {\"name\": %s, \"family_index\": %d, \"per_family_instance_index\": 0,"
                    " \"run_name\": %s, \"run_type\": \"%s\", \"repetitions\": %zu,",
                    first ? "" : ",",
                    json(aggregate.empty() ? name : name + "_" + aggregate).c_str(), family,
                    json(name).c_str(), aggregate.empty() ? "iteration" : "aggregate",
                    one.real.size());
            if (aggregate.empty())
                fprintf(out, " \"repetition_index\": %ld,", index);
            else
                fprintf(out, " \"aggregate_name\": \"%s\", \"aggregate_unit\": \"time\",",
                        aggregate.c_str());
            fprintf(out,
                    " \"threads\": 1, \"iterations\": %ld, \"real_time\": %.10g, \"cpu_time\": "
                    "%.10g, \"time_unit\": \"ns\"}",
                    aggregate.empty() ? one.repetitions : long(one.real.size()), real, used);
            first = false;
        };
        // Of the many round trips only what sums them up.
        for (size_t i = 0; one.real.size() <= 1000 && i < one.real.size(); ++i)
            entry("", long(i), one.real[i], cpu[i]);
        entry("median", 0, median(one.real), median(cpu));
        entry("mean", 0, sum(one.real) / double(one.real.size()), sum(cpu) / double(cpu.size()));
        entry("p99", 0, quantile(one.real, 0.99), quantile(cpu, 0.99));
        ++family;
    }
    fputs("\n  ]\n}\n", out);
}
