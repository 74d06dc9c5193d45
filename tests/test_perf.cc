// The timing harness: its statistics on made-up samples, and the program from outside.

#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "../perf/statistics.h"
#include "support.h"

namespace {

const std::string& perf() {
    static const std::string path = root() + "/perf/perf";
    return path;
}

std::vector<double> upto(int n) {
    std::vector<double> all;
    for (int i = n; i >= 1; --i) all.push_back(i);
    return all;
}

// What a process with this id left: its names carry the id, its segments have it as their maker.
std::string left_behind(pid_t pid, const std::string& directory) {
    const std::string name = "shm-perf-" + std::to_string(pid);
    std::string all = shell("ls /dev/shm '" + directory + "' | grep -F " + name).out;
    shm_info info;
    const int last = shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
    for (int i = 0; i <= last; ++i) {
        shmid_ds segment;
        if (shmctl(i, SHM_STAT, &segment) != -1 && segment.shm_cpid == pid) all += "a segment";
    }
    return all;
}

Result perf_in(const Scratch& scratch, const Words& options) {
    Words words = {perf(), "--dir", scratch.path};
    words.insert(words.end(), options.begin(), options.end());
    Program program(words);
    const pid_t pid = program.pid();
    const Result result = program.finish();
    CHECK(left_behind(pid, scratch.path) == "");
    return result;
}

size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
    return n;
}

}  // namespace

TEST_CASE("the median and its interval", "[perf]") {
    CHECK(median({3, 1, 2}) == 2);
    CHECK(median({4, 1, 2, 3}) == 2.5);
    CHECK(median({7}) == 7);
    CHECK(quantile(upto(100), 0.99) == 99);
    CHECK(quantile(upto(10), 0) == 1);

    // Sign-test intervals as the textbooks tabulate them.
    CHECK(!interval(upto(5), 0.05));
    REQUIRE(interval(upto(6), 0.05));
    CHECK(interval(upto(6), 0.05)->low == 1);
    CHECK(interval(upto(6), 0.05)->high == 6);
    CHECK(interval(upto(10), 0.05)->low == 2);
    CHECK(interval(upto(10), 0.05)->high == 9);
    CHECK(interval(upto(100), 0.05)->low == 40);
    CHECK(interval(upto(100), 0.05)->high == 61);
    CHECK(!interval({}, 0.05));
}

TEST_CASE("the verdict in words", "[perf]") {
    const auto around = [](double middle, double spread, int n) {
        std::vector<double> all;
        for (int i = 0; i < n; ++i) all.push_back(middle + spread * (2.0 * i / (n - 1) - 1));
        return all;
    };
    CHECK(judge(around(1, 0.02, 40), 27).words == "same");
    CHECK(judge(around(1.005, 0.001, 40), 27).words == "same");  // sure, but nobody's concern
    CHECK(judge(around(1.12, 0.08, 41), 1).words == "slower by 12 % (9 to 15)");
    CHECK(judge(around(0.88, 0.08, 41), 1).words == "faster by 12 % (9 to 15)");
    CHECK(judge(around(1.12, 0.08, 41), 1).differs);
    CHECK(judge(around(1.05, 0.5, 40), 27).words == "unclear");
    CHECK(judge(around(1.5, 0.1, 8), 27).words == "too few rounds");
    CHECK(!judge(around(1.5, 0.1, 8), 27).differs);
    CHECK(judge({}, 27).words == "too few rounds");
    // More comparisons make each more careful.
    CHECK(judge(around(1.1, 0.2, 40), 1).differs);
    CHECK(!judge(around(1.1, 0.2, 40), 1000).differs);
}

TEST_CASE("perf prints its tables and a chart, and leaves nothing", "[perf]") {
    Scratch scratch;
    const std::string chart = scratch.path + "/chart.svg";
    const Result result = perf_in(scratch, {"--seconds", "3", "--sizes", "4k,1M", "--svg", chart});
    CHECK(result.status == 0);
    CHECK(result.err == "");
    CHECK(has(result.out, "100,000 times: total in ms"));
    CHECK(has(result.out, ", 1,000 times: total in ms"));
    CHECK(has(result.out, scratch.path));
    CHECK(has(result.out, "kernel: Linux "));
    CHECK(count(result.out, "shm_open+mmap") == 2 + 2 + 2);  // headings, stages, loops
    for (const char* how : {"shared memory ", "shared memory, one by one", "pipe ",
                            "pipe, 64 KiB blocks", "UNIX socket", "message queue"})
        CHECK(count(result.out, how) >= 3);
    const std::string svg = contents(chart);
    CHECK(svg.rfind("<svg ", 0) == 0);
    CHECK(has(svg, "prefers-color-scheme:dark"));
    CHECK(!has(svg, "var("));  // not every renderer knows it: all was black
    CHECK(has(svg, "fill=\"#ffffff\""));
    CHECK(has(svg, "</svg>\n"));
    CHECK(!has(svg, "nan"));
}

TEST_CASE("perf --csv has as many fields in every line", "[perf]") {
    Scratch scratch;
    const Result result = perf_in(scratch, {"--csv", "--seconds", "2", "--sizes", "64k"});
    CHECK(result.status == 0);
    std::istringstream lines(result.out);
    std::string line, header;
    getline(lines, header);
    CHECK(header.rfind("table,measure,mechanism,bytes,unit,samples,", 0) == 0);
    size_t rows = 0;
    for (; getline(lines, line); ++rows) {
        std::string plain;  // without what is quoted
        bool quoted = false;
        for (char c : line) {
            if (c == '"') quoted = !quoted;
            if (!quoted) plain += c;
        }
        CAPTURE(line);
        CHECK(!quoted);
        CHECK(count(plain, ",") == count(header, ","));
    }
    CHECK(rows == 4 + 4 * (8 + 4 + 5) + 3 * 6 * 4);
}

TEST_CASE("perf refuses what it cannot measure", "[perf]") {
    const std::pair<Words, std::string> wrong[] = {
        {{"--sizes", "many"}, "'many' is not a size from 4 to 1G"},
        {{"--sizes", "0"}, "'0' is not a size"},
        {{"--sizes", "0k"}, "'0k' is not a size"},
        {{"--sizes", "-4"}, "'-4' is not a size"},
        {{"--sizes", "3"}, "'3' is not a size"},
        {{"--sizes", "2G"}, "'2G' is not a size"},
        {{"--sizes", "99999999999999999999"}, "is not a size"},
        {{"--sizes", "18014398509481984k"}, "is not a size"},
        {{"--sizes", "4k,,1M"}, "'' is not a size"},
        {{"--sizes", "4kB"}, "'4kB' is not a size"},
        {{"--seconds", "0"}, "'0' is not a number from 1"},
        {{"--self-check", "x"}, "'x' is not a number"},
        {{"faster"}, "'faster' is one word too many"}};
    for (const auto& [options, sentence] : wrong) {
        Words words = {perf()};
        words.insert(words.end(), options.begin(), options.end());
        const Result result = run(words);
        CAPTURE(sentence, result.err);
        CHECK(result.status == 2);
        CHECK(result.out == "");
        CHECK(has(result.err, "perf: "));
        CHECK(has(result.err, sentence));
    }
    Scratch scratch;
    CHECK(run({perf(), "--dir", scratch.path + "/none"}).status == 1);
    const std::string quick = quoted(perf()) + " --dir " + scratch.path + " --seconds 1 --sizes 4k";
    CHECK(shell(quick + " >/dev/full").status == 1);
    CHECK(shell(quick + " >&-").status == 1);
}

TEST_CASE("Ctrl-C stops perf, which shows what is finished and leaves nothing", "[perf]") {
    Scratch scratch;
    Program program({perf(), "--dir", scratch.path, "--seconds", "60", "--sizes", "4k,32M"});
    const auto mapped = [](const std::string& process) {
        return has(contents("/proc/" + process + "/maps"), "/shm-perf-");
    };
    REQUIRE(eventually(mapped, std::to_string(program.pid())));
    kill(program.pid(), SIGINT);
    const pid_t pid = program.pid();
    const Result result = program.finish();
    CHECK(result.status == 128 + SIGINT);
    CHECK(has(result.out, "perf: the quick version"));
    CHECK(has(result.err, "stopped: the rest was not measured"));
    CHECK(left_behind(pid, scratch.path) == "");
}

TEST_CASE("huge pages are found where the kernel gives them, and no setting changes", "[perf]") {
    const std::string settings =
        "cat /sys/kernel/mm/transparent_hugepage/*enabled /proc/sys/vm/nr_hugepages /proc/mounts";
    const std::string before = shell(settings).out;
    const std::string thp = contents("/sys/kernel/mm/transparent_hugepage/enabled");
    const std::string huge = contents("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
    if (thp.empty() || huge != "2097152\n") SKIP_BECAUSE("no huge pages of 2 MiB here");
    Scratch scratch;
    const Result result = perf_in(scratch, {"--csv", "--seconds", "2", "--sizes", "2M"});
    CHECK(result.status == 0);
    CHECK(shell(settings).out == before);
    // The part in huge pages, by mechanism; "": not measured.
    const auto part = [&](const std::string& mechanism) {
        const std::string start = "\"huge pages\",\"huge\",\"" + mechanism + "\",2097152,part,";
        const size_t at = result.out.find(start);
        CAPTURE(mechanism);
        REQUIRE(at != std::string::npos);
        std::istringstream line(result.out.substr(at + start.size()));
        std::string field;
        for (int i = 0; i < 3; ++i) getline(line, field, ',');
        return field;
    };
    CHECK(part("private, small pages") == "0");
    if (!has(thp, "[never]")) CHECK(part("private, MADV_HUGEPAGE") == "1");
    const std::string shared = contents("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    if (shell("unshare -m true").status == 0 && !has(shared, "[deny]")) {
        CHECK(part("object, huge=advise") == "1");
        CHECK(part("the same, reserved first") == "0");
    }
    if (contents("/proc/sys/vm/nr_hugepages") == "0\n") {
        CHECK(part("private, MAP_HUGETLB") == "");
        CHECK(has(result.out, "mmap(2097152 bytes): Cannot allocate memory"));
        CHECK(has(result.out, "shmget(2097152 bytes): "));  // EPERM for an ordinary user
    }
}

TEST_CASE("too little space is a line, and the rest goes on", "[perf]") {
    if (geteuid() != 0) SKIP_BECAUSE("only root may mount a small file system");
    Scratch scratch;
    const std::string private_system = "unshare -m -i sh -c 'mount -t tmpfs -o size=1m none ";
    if (shell(private_system + scratch.path + "'").status != 0)
        SKIP_BECAUSE("unshare and mount are not allowed here");
    const Result result =
        shell(private_system + "/dev/shm && mount -t tmpfs -o size=1m none " + scratch.path +
              " && echo 100000 >/proc/sys/kernel/shmmax && exec \"" + perf() + "\" --dir " +
              scratch.path + " --seconds 2 --sizes 64k,4M'");
    CHECK(result.status == 0);
    CHECK(has(result.out, "\n4M shm_open+mmap: posix_fallocate(4194304 bytes): No space left"));
    CHECK(has(result.out, "\n4M open+mmap: posix_fallocate(4194304 bytes): No space left"));
    CHECK(has(result.out, "\n4M shmget: shmget(4194304 bytes): Invalid argument"));
    CHECK(has(result.out, "not measured"));
    CHECK(has(result.out, "   64k shm_open+mmap"));
}

TEST_CASE("perf --self-check counts its own verdicts", "[perf]") {
    const Result result = run({perf(), "--dir", "/tmp", "--self-check", "2"});
    CHECK(result.status == 0);
    CHECK(has(result.out, " of 2 families,"));
    CHECK(has(result.out, "10 % more work planted: found in "));
}
