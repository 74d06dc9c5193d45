// One configuration, many readers: map_posix/config/shared_config.

#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <sstream>

#include <sys/file.h>

#include "../common/process.h"
#include "../map_posix/config/image.h"
#include "trace.h"

namespace {

std::string ours() { return program("SHARED_CONFIG", "map_posix/config/shared_config"); }

// All names in a directory, to see what is left behind.
std::string names(const std::string& directory) {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(directory))
        all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    std::string text;
    for (const auto& name : all) text += name + " ";
    return text;
}

// A directory with an image of `text` in it.
struct Loaded {
    explicit Loaded(const std::string& text = "a = 1\nb = 2\n") { load(text); }
    void load(const std::string& text) const {
        put(file, text);
        const Result result = run({ours(), "load", file}, "", scratch.path);
        INFO(result.err);
        REQUIRE(result.status == 0);
    }
    Result get(const std::string& key) const { return run({ours(), "get", key}, "", scratch.path); }
    const Scratch scratch;
    const std::string file = scratch.path + "/app.conf", image = scratch.path + "/config.image";
};

// `count` entries, all with the same value, about 50 bytes each.
std::string generation(int number, int count) {
    const std::string value = "generation " + std::to_string(number) + std::string(10, '.');
    std::string text;
    for (int i = 0; i < count; ++i) text += "key." + std::to_string(i) + " = " + value + "\n";
    return text;
}

// Replaces the published file's bytes, as nobody should.
void replace(const std::string& image, const std::string& bytes) {
    REQUIRE(unlink(image.c_str()) == 0);
    put(image, bytes);
    REQUIRE(chmod(image.c_str(), 0444) == 0);
}

// The exit status, or 128 + the signal.
int end_of(pid_t child) {
    int status = 0;
    alarm(kPatience);
    REQUIRE(waitpid(child, &status, 0) == child);
    alarm(0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("config: what is loaded is what get prints", "[config]") {
    const std::string longest(1000000, 'x');
    const Loaded it("# a comment\n\n  host =  localhost \nport=8080\r\n\tempty =\n  # another\n" +
                    ("long = " + longest + "\n" + longest + "=key\n") +
                    "two words = a = b # no comment\nlast = no newline after it");
    CHECK(it.get("host").out == "localhost\n");
    CHECK(it.get("port").out == "8080\n");
    CHECK(it.get("empty").out == "\n");
    CHECK(it.get("long").out == longest + "\n");
    CHECK(it.get("two words").out == "a = b # no comment\n");
    CHECK(it.get("last").out == "no newline after it\n");
    CHECK(it.get("last").status == 0);
    CHECK(names(it.scratch.path) == "app.conf config.image ");
    struct stat image;
    REQUIRE(stat(it.image.c_str(), &image) == 0);
    CHECK((image.st_mode & 07777 & ~0444u) == 0);  // nobody may write

    const Result none = it.get("hos");
    CHECK(none.status == 1);
    CHECK(none.out.empty());
    CHECK(none.err == "shared_config: ./config.image: has no key 'hos'\n");
    CHECK(it.get("").status == 1);
    CHECK(it.get("zzz").status == 1);
}

TEST_CASE("config: --image puts it elsewhere, and load says what it made", "[config]") {
    const Scratch scratch;
    put(scratch.path + "/app.conf", "a = 1\nb = 22\n");
    const std::string image = scratch.path + "/other.image";
    const Result load = run({ours(), "load", scratch.path + "/app.conf", "--image", image});
    CHECK(load.status == 0);
    CHECK(load.out == image + ": 2 entries, 117 bytes\n");
    CHECK(run({ours(), "get", "b", "--image", image}).out == "22\n");
    CHECK(run({ours(), "load", "/dev/stdin", "--image", image}, "a = piped\n").status == 0);
    CHECK(run({ours(), "get", "a", "--image", image}).out == "piped\n");
    CHECK(names(scratch.path) == "app.conf other.image ");
}

TEST_CASE("config: a bad text is a sentence, and the old image stays", "[config]") {
    const Loaded it("old = 1\n");
    const std::string before = contents(it.image);
    const struct {
        std::string text, sentence;
    } cases[] = {
        {"a = 1\nb 2\n", ":2: has no '='"},
        {"a = 1\n# c\n= 2\n", ":3: has no key before the '='"},
        {"a = 1\nb = 2\na = 3\n", ":3: the key 'a' was there in line 1"},
        {std::string("a = 1\nb = \0 2\n", 14), ":2: holds a NUL byte"},
        {"", ": holds no 'key = value'"},
        {"# only\n\n", ": holds no 'key = value'"},
        {std::string(17 << 20, '#'), ": has more than 16777216 bytes"},
    };
    for (const auto& [text, sentence] : cases) {
        put(it.file, text);
        const Result result = run({ours(), "load", "app.conf"}, "", it.scratch.path);
        CHECK(result.status == 1);
        CHECK(result.out.empty());
        CHECK(result.err == "shared_config: app.conf" + sentence + "\n");
    }
    REQUIRE(truncate(it.file.c_str(), off_t{2} << 30) == 0);  // 2 GB, with holes
    const Words files = {"app.conf", "missing", ".", "config.image", "/dev/zero"};
    for (const auto& file : files) {
        const Result result = run({ours(), "load", file}, "", it.scratch.path);
        INFO(file << ": " << result.err);
        CHECK(result.status == 1);
        CHECK(has(result.err, "shared_config: "));
    }
    CHECK(contents(it.image) == before);
    CHECK(names(it.scratch.path) == "app.conf config.image ");
}

TEST_CASE("config: wrong usage is exit 2 and makes nothing", "[config]") {
    const Scratch scratch;
    const std::vector<Words> cases = {{},
                                      {"lod", "x"},
                                      {"load"},
                                      {"get"},
                                      {"readers"},
                                      {"readers", "0"},
                                      {"readers", "-1"},
                                      {"readers", "10001"},
                                      {"get", "a", "b"},
                                      {"trespass", "x"},
                                      {"--image", "", "get", "a"},
                                      {"--nonsense"},
                                      {"load", "--watch", "x"},
                                      {"readers", "1x"},
                                      {"--image"}};
    for (const auto& words : cases) {
        Words line = {ours()};
        line.insert(line.end(), words.begin(), words.end());
        const Result result = run(line, "", scratch.path);
        CHECK(result.status == 2);
        CHECK(has(result.err, "shared_config: "));
        CHECK(result.out.empty());
    }
    CHECK(names(scratch.path).empty());
    const Result help = run({ours(), "--help"});
    CHECK(help.status == 0);
    CHECK(has(help.out, "./config.image"));
}

TEST_CASE("config: nobody's data is overwritten", "[config]") {
    for (const std::string name : {"config.image", "config.image.new"}) {
        const bool next = name != "config.image";
        const Scratch scratch;
        put(scratch.path + "/app.conf", "a = 1\n");
        const std::string there = scratch.path + "/" + name;
        const auto refused = [&](const std::string& sentence) {
            const std::string before = names(scratch.path);
            const Result result = run({ours(), "load", "app.conf"}, "", scratch.path);
            CHECK(result.status == 1);
            INFO(result.err);
            CHECK(has(result.err, sentence));
            CHECK(names(scratch.path) == before);
        };
        std::vector<std::string> texts = {"my diary\n", "me", "CFG2"};
        if (!next) texts.push_back("");  // a next image begins as an empty file
        for (const std::string& text : texts) {
            put(there, text);
            refused(name + ": is not an image of ours, and stays as it is");
            CHECK(contents(there) == text);
            unlink(there.c_str());
        }
        REQUIRE(mkdir(there.c_str(), 0700) == 0);
        refused(next ? "open(./config.image.new): Is a directory"
                     : "config.image: is not a regular file");
        rmdir(there.c_str());
        REQUIRE(mkfifo(there.c_str(), 0600) == 0);
        refused(name + ": is not a regular file");
        unlink(there.c_str());
        REQUIRE(symlink("elsewhere", there.c_str()) == 0);
        refused("open(./" + name + "): Too many levels of symbolic links");
        unlink(there.c_str());
        if (geteuid() == 0) {
            REQUIRE(run({ours(), "load", "app.conf"}, "", scratch.path).status == 0);
            if (next) REQUIRE(rename((scratch.path + "/config.image").c_str(), there.c_str()) == 0);
            REQUIRE(chown(there.c_str(), 65534, 65534) == 0);
            refused(name + ": belongs to another user");
        }
    }
}

TEST_CASE("config: a finished image in the place of the next one is another image", "[config]") {
    const Loaded it("a = old\n");
    REQUIRE(run({ours(), "load", "app.conf", "--image", "config.image.new"}, "", it.scratch.path)
                .status == 0);
    const std::string before = contents(it.image + ".new");
    const Result result = run({ours(), "load", "app.conf"}, "", it.scratch.path);
    CHECK(result.status == 1);
    CHECK(has(result.err, geteuid() == 0 ? "is a finished image, and stays as it is"
                                         : "open(./config.image.new): Permission denied"));
    CHECK(contents(it.image + ".new") == before);
}

TEST_CASE("config: what a killed load left is taken over; what a living one makes is not",
          "[config]") {
    const Loaded it("a = old\n");
    const std::string before = contents(it.image);
    for (const std::string& left : {std::string(), std::string(100000, '\0'), before}) {
        put(it.image + ".new", left);
        it.load("a = new\n");
        CHECK(it.get("a").out == "new\n");
        CHECK(names(it.scratch.path) == "app.conf config.image ");
    }
    put(it.image + ".new", "");
    const int lock = open((it.image + ".new").c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(flock(lock, LOCK_EX | LOCK_NB) == 0);
    const Result result = run({ours(), "load", "app.conf"}, "", it.scratch.path);
    CHECK(result.status == 1);
    CHECK(result.err == "shared_config: ./config.image.new: another load is at work; try again\n");
    CHECK(contents(it.image + ".new").empty());
    close(lock);
}

TEST_CASE("config: a load that opened the file that another then published does not write to it",
          "[config]") {
    const Loaded it("a = 1\n");
    const std::string finished = contents(it.image);
    put(it.file, "a = 2\n");
    // It stops when it enters flock(); meanwhile the file that it has open is published.
    Tracer late({ours(), "load", it.file, "--image", it.image}, kPatience,
                [] { dup2(open("/dev/null", O_WRONLY), 2); });
    std::string published;
    for (Event event; (event = late.next()).what != Event::over; late.go_on(event.who)) {
        if (event.what != Event::enters || event.who->call != SYS_flock || !published.empty())
            continue;
        REQUIRE(rename((it.image + ".new").c_str(), it.image.c_str()) == 0);
        put(it.image, finished);
        published = finished;
    }
    CHECK(!published.empty());
    CHECK(contents(it.image) == published);
    CHECK(late.tracees[0].status == 1 << 8);
}

TEST_CASE("config: no space or no memory is a sentence, and nothing is left", "[config]") {
    const Loaded it("a = old\n");
    put(it.file, generation(1, 1000));
    const Result space = shell("ulimit -f 8; " + ours() + " load app.conf", it.scratch.path);
    CHECK(space.status == 1);
    CHECK(has(space.err, "posix_fallocate(./config.image.new): File too large"));
    CHECK(names(it.scratch.path) == "app.conf config.image ");
    CHECK(it.get("a").out == "old\n");
    if (shell("ulimit -v 12000; " + ours() + " --help").status != 0)
        SKIP_BECAUSE("the program does not start in 12 MB here (sanitizer?)");
    put(it.file, generation(1, 100000));
    const Result memory = shell("ulimit -v 12000; " + ours() + " load app.conf", it.scratch.path);
    CHECK(memory.status == 1);
    CHECK(memory.err == "shared_config: out of memory\n");
    CHECK(names(it.scratch.path) == "app.conf config.image ");
    CHECK(it.get("a").out == "old\n");
}

TEST_CASE("config: output that cannot be written is exit 1", "[config]") {
    const Loaded it;
    for (const std::string words :
         {"get a", "load app.conf", "readers 1", "trespass", "--help", "get --watch a"})
        for (const std::string to : {">/dev/full", ">&-"}) {
            INFO(words << " " << to);
            CHECK(shell(ours() + " " + words + " " + to, it.scratch.path).status == 1);
        }
}

TEST_CASE("config: a load cut short leaves the old image or the new", "[config]") {
    const Loaded it(generation(1, 3000));
    std::mt19937 random{20240229};
    int killed = 0, ended = 0;
    for (int i = 0; i < 60; ++i) {
        const int how = i % 2 ? SIGKILL : SIGTERM;
        put(it.file, generation(i + 2, 3000));
        const bool left = exists(it.image + ".new");
        {
            const Program load({ours(), "load", it.file, "--image", it.image});
            usleep(random() % 6000);  // any moment will do
            kill(load.pid(), how);
            const int status = end_of(load.pid());
            (status == 128 + how ? killed : ended) += 1;
        }
        // What a SIGKILL left before stays, if this one came before the load could take it over.
        if (!left) CHECK((how == SIGKILL || names(it.scratch.path) == "app.conf config.image "));
        const std::string first = it.get("key.0").out, last = it.get("key.2999").out;
        CHECK(has(first, "generation "));
        CHECK(first == last);
    }
    INFO(killed << " killed, " << ended << " ended before");
    CHECK(killed > 0);
}

TEST_CASE("config: what is no image is refused by readers", "[config]") {
    const Loaded it;
    const std::string good = contents(it.image);
    const auto refused = [&](const std::string& sentence) {
        for (const Words& words :
             {Words{ours(), "get", "a"}, Words{ours(), "readers", "2"},
              Words{ours(), "get", "--watch", "a"}, Words{ours(), "trespass"}}) {
            const Result result = run(words, "", it.scratch.path);
            CHECK(result.status == 1);
            CHECK(has(result.err, sentence));
            CHECK(result.out.empty());
        }
    };
    replace(it.image, "");
    refused("./config.image: is empty");
    replace(it.image, "hello");
    refused("./config.image: is shorter than an image's header");
    replace(it.image, std::string(4096, 'x'));
    refused("./config.image: is not an image of ours");
    replace(it.image, good.substr(0, good.size() - 1));
    refused("./config.image: is not as long as the image was made");
    replace(it.image, good + "\n");
    refused("./config.image: is not as long as the image was made");
    std::string bad = good;
    bad[4] ^= 3;
    replace(it.image, bad);
    refused("./config.image: is an image of another version");
    bad = good;
    bad[offsetof(config::Header, count)] ^= 1;
    replace(it.image, bad);
    refused("./config.image: is damaged: its header's checksum is wrong");
    bad = good;
    bad.back() ^= 1;  // the value of b
    replace(it.image, bad);
    CHECK(it.get("a").out == "1\n");
    for (const Words& words :
         {Words{ours(), "get", "b"}, Words{ours(), "get", "c"}, Words{ours(), "readers", "2"}}) {
        const Result result = run(words, "", it.scratch.path);
        CHECK(result.status == 1);
        CHECK(result.err == "shared_config: ./config.image: is damaged: its checksum is wrong\n");
    }
    replace(it.image, good);
    REQUIRE(chmod(it.image.c_str(), 0664) == 0);
    refused("./config.image: others than its owner may write it");
    REQUIRE(chmod(it.image.c_str(), 0644) == 0);
    CHECK(it.get("a").out == "1\n");
    unlink(it.image.c_str());
    refused("open(./config.image): No such file or directory");
    REQUIRE(symlink("app.conf", it.image.c_str()) == 0);
    refused("open(./config.image): Too many levels of symbolic links");
    unlink(it.image.c_str());
    REQUIRE(mkfifo(it.image.c_str(), 0600) == 0);
    refused("./config.image: is not a regular file");
    unlink(it.image.c_str());
    REQUIRE(mkdir(it.image.c_str(), 0700) == 0);
    refused("./config.image: is not a regular file");
}

namespace {

// Bytes that end where the next byte is SIGSEGV.
class Guarded {
  public:
    Guarded()
        : start_(static_cast<char*>(mmap(nullptr, kSize + kGuard, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        REQUIRE(start_ != MAP_FAILED);
        REQUIRE(mprotect(start_ + kSize, kGuard, PROT_NONE) == 0);
    }
    ~Guarded() { munmap(start_, kSize + kGuard); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    const char* put(const std::string& bytes) {
        return static_cast<const char*>(
            memcpy(start_ + kSize - bytes.size(), bytes.data(), bytes.size()));
    }

  private:
    static constexpr size_t kSize = 1 << 16, kGuard = 1 << 16;
    char* start_;
};

using Random = std::mt19937;
size_t below(Random& random, size_t most) { return random() % most; }

// Changes a bit, a byte, a run of bytes or a whole number; with `resize` sometimes the length.
std::string damaged(std::string bytes, Random& random, bool resize) {
    const size_t structure = sizeof(config::Header) + 128 * sizeof(config::Slot);
    const uint32_t numbers[] = {0, 1, 0xffffffff, 0x7fffffff, static_cast<uint32_t>(bytes.size())};
    if (resize && below(random, 8) == 0) bytes.resize(below(random, bytes.size() + 100));
    for (size_t changes = 1 + below(random, 3); changes > 0 && bytes.size() > 16; --changes) {
        const size_t reach = below(random, 2) ? bytes.size() : std::min(structure, bytes.size());
        const size_t at = below(random, reach) & ~size_t{3};
        const size_t kind = below(random, 4), length = kind == 2 ? 16 : kind == 3 ? 4 : 1;
        for (size_t i = at; i < std::min(at + length, bytes.size()); ++i)
            bytes[i] = static_cast<char>(kind == 0 ? bytes[i] ^ (1 << below(random, 8))
                                                   : below(random, 256));
        if (kind == 3 && at + 4 <= bytes.size()) memcpy(&bytes[at], &numbers[below(random, 5)], 4);
    }
    return bytes;
}

constexpr int kDamages = 100000;

// All values that an image holds for a key, wherever its table says that there is an entry.
std::set<std::string> held(const config::Image& image, std::string_view key) {
    std::set<std::string> values;
    for (size_t i = 0; i < image.slots; ++i) {
        const config::Slot slot = config::slot(image, i);
        config::Pair pair;
        if (slot.entry != 0 && config::read_entry(image, slot.entry, &pair) && pair.key == key)
            values.insert(std::string(pair.value));
    }
    return values;
}

// All checksums as its maker would have them: of every entry, of all bytes, of the header.
std::string make_right(std::string bytes) {
    uint64_t length = bytes.size();
    memcpy(&bytes[offsetof(config::Header, bytes)], &length, sizeof length);
    const auto set = [&](size_t at, uint64_t sum) { memcpy(&bytes[at], &sum, sizeof sum); };
    config::Image image;
    const auto header = [&] {
        set(offsetof(config::Header, own), config::header_checksum(bytes.data()));
    };
    header();
    if (config::check_header(bytes.data(), bytes.size(), &image)) return bytes;
    for (size_t i = 0; i < image.slots; ++i) {
        const config::Slot slot = config::slot(image, i);
        config::Pair pair;
        if (slot.entry != 0 && config::read_entry(image, slot.entry, &pair))
            set(slot.entry, config::entry_checksum(bytes.data() + slot.entry, pair.key.size(),
                                                   pair.value.size()));
    }
    set(offsetof(config::Header, checksum), config::image_checksum(bytes.data(), bytes.size()));
    header();
    return bytes;
}

}  // namespace

TEST_CASE("config: 100,000 damaged images: an error or a right answer", "[config]") {
    const Loaded it(generation(1, 40));
    const std::string good = contents(it.image), right = it.get("key.0").out;
    Guarded memory;
    Random random{1};
    int refused = 0, answered = 0, wrong = 0;
    for (int i = 0; i < kDamages; ++i) {
        const std::string bad = damaged(good, random, true);
        config::Image image;
        if (config::check_header(memory.put(bad), bad.size(), &image)) {
            ++refused;
            continue;
        }
        const bool whole = !config::check_all(image);
        if (whole) wrong += bad != good;
        for (int key = 0; key < 41; ++key) {
            std::string_view value;
            const config::Found found = config::find(image, "key." + std::to_string(key), &value);
            if (found == config::Found::yes) {
                ++answered;
                wrong += key == 40 || std::string(value) + "\n" != right;
            }
            if (found == config::Found::no) wrong += key < 40 && whole;
        }
    }
    INFO(refused << " refused, " << answered << " answered");
    CHECK(wrong == 0);
    CHECK(refused > kDamages / 8);
    CHECK(answered > kDamages);
}

TEST_CASE("config: 100,000 damaged images with the checksums made right", "[config]") {
    // Now the checks behind the checksums have to see what would lead outside or astray.
    const Loaded it(generation(1, 40));
    const std::string good = contents(it.image);
    Guarded memory;
    Random random{2};
    int refused = 0, accepted = 0, wrong = 0;
    for (int i = 0; i < kDamages; ++i) {
        std::string bad = make_right(damaged(good, random, false));
        config::Image image;
        const char* start = memory.put(bad);
        if (config::check_header(start, bad.size(), &image)) {
            ++refused;
            continue;
        }
        const bool whole = !config::check_all(image);
        ++(whole ? accepted : refused);
        for (int key = 0; key < 41; ++key) {
            const std::string name = "key." + std::to_string(key);
            std::string_view value;
            const config::Found found = config::find(image, name, &value);
            // Right is what the bytes hold: an entry of this key somewhere in the table.
            if (found == config::Found::yes)
                wrong += held(image, name).count(std::string(value)) == 0;
            if (found == config::Found::no && whole) wrong += !held(image, name).empty();
        }
        // Changed after the check: any answer, but none from outside (it would hit the guard).
        config::check_header(memory.put(good), good.size(), &image);
        memory.put(bad);
        config::check_all(image);
    }
    INFO(refused << " refused, " << accepted << " accepted");
    CHECK(wrong == 0);
    CHECK(refused > kDamages / 4);
    CHECK(accepted > 100);
}

TEST_CASE("config: a table longer than its image is refused before it is read", "[config]") {
    const Loaded it("a = 1\n");
    std::string image = contents(it.image);
    Guarded memory;
    for (const uint64_t slots :
         {uint64_t{0}, uint64_t{6}, uint64_t{1} << 32, UINT64_MAX / 8 + 1, UINT64_MAX}) {
        memcpy(&image[offsetof(config::Header, slots)], &slots, sizeof slots);
        image = make_right(image);
        config::Image checked;
        const char* wrong = config::check_header(memory.put(image), image.size(), &checked);
        REQUIRE(wrong != nullptr);
        CHECK(std::string(wrong) == "is damaged: its table lies outside");
    }
}

TEST_CASE("config: damaged images given to the program", "[config]") {
    const Loaded it(generation(1, 40));
    const std::string good = contents(it.image), right = it.get("key.7").out;
    Random random{3};
    for (int i = 0; i < 300; ++i) {
        replace(it.image, damaged(good, random, true));
        const Result result = it.get("key.7");
        INFO(result.status << ": " << result.out << result.err);
        if (result.status == 0)
            CHECK(result.out == right);
        else
            CHECK(
                (result.status == 1 && result.out.empty() && has(result.err, "./config.image: ")));
    }
}

TEST_CASE("config: a file cut short under its mapping is an error, not a crash", "[config]") {
    const Loaded it(generation(1, 1000));
    int words[2];
    REQUIRE(pipe(words) == 0);
    const pid_t reader = fork();
    if (reader == 0) {
        dup2(words[1], 2);
        prepare();
        const int fd = open(it.image.c_str(), O_RDONLY);
        const size_t bytes = std::filesystem::file_size(it.image);
        const void* start = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
        config::Image image;
        chmod(it.image.c_str(), 0644);
        if (config::check_header(static_cast<const char*>(start), bytes, &image)) _exit(2);
        if (truncate(it.image.c_str(), 0) == -1) _exit(3);
        _exit(config::check_all(image) ? 4 : 0);
    }
    close(words[1]);
    CHECK(end_of(reader) == 1);
    char text[200] = "";
    CHECK(read(words[0], text, sizeof text - 1) > 0);
    close(words[0]);
    CHECK(has(text, "SIGBUS: the object became shorter while it was mapped"));
}

TEST_CASE("config: readers of a file that is cut short again and again", "[config]") {
    const Loaded it(generation(1, 100000));  // large: so that it is cut in the middle of a check
    const std::string good = contents(it.image);
    int cut = 0, buses = 0;
    for (int i = 0; i < 20; ++i) {
        replace(it.image, good);
        Program reader({ours(), "get", "no key", "--image", it.image});  // checks all of it
        usleep(static_cast<useconds_t>(i) * 500);                        // any moment will do
        chmod(it.image.c_str(), 0644);
        if (truncate(it.image.c_str(), i % 2 ? 4096 : 0) == -1) FAIL("truncate");
        const Result result = reader.finish();
        INFO(result.status << result.err);
        CHECK(result.status == 1);
        cut += !has(result.err, "has no key");
        buses += has(result.err, "SIGBUS");
    }
    INFO(cut << " cut, " << buses << " of them by SIGBUS");
    CHECK(cut > 0);
}

TEST_CASE("config: --watch prints each new value, and only those", "[config]") {
    const Loaded it("a = 1\nb = 1\n");
    Program watch({ours(), "get", "--watch", "a"}, it.scratch.path);
    watch.await_out("1\n");
    for (int i = 2; i < 30; ++i) {
        it.load("b = 1\na = " + std::to_string(i) + "\n");
        watch.await_out(std::to_string(i) + "\n");
    }
    it.load("a = 29\nb = 2\n");                              // the same value again
    put(it.scratch.path + "/other", "x");                    // another file
    kill(watch.pid(), SIGSTOP), kill(watch.pid(), SIGCONT);  // Ctrl-Z and fg
    it.load("a = end\n");
    CHECK(has(watch.await_out("end\n"), "28\n29\nend\n"));
    kill(watch.pid(), SIGINT);
    const Result result = watch.finish();
    CHECK(result.status == 128 + SIGINT);
    CHECK(result.err.empty());
}

TEST_CASE("config: --watch ends when there is nothing left to watch", "[config]") {
    {
        const Loaded it;
        Program watch({ours(), "get", "--watch", "a"}, it.scratch.path);
        watch.await_out("1\n");
        it.load("b = 1\n");
        const Result result = watch.finish();
        CHECK(result.status == 1);
        CHECK(has(result.err, "has no key 'a'"));
    }
    for (const std::string what : {"rm -f", "mv -t ."}) {
        const Loaded it;
        Program watch({ours(), "get", "--watch", "a"}, it.scratch.path);
        watch.await_out("1\n");
        REQUIRE(mkdir((it.scratch.path + "/d").c_str(), 0700) == 0);
        REQUIRE(shell(what + " ../config.image", it.scratch.path + "/d").status == 0);
        CHECK(has(watch.finish().err, "open(./config.image): No such file"));
    }
    const Scratch scratch;
    const std::string directory = scratch.path + "/d", image = directory + "/i";
    for (const std::string what : {"moved", "removed"}) {
        REQUIRE(mkdir(directory.c_str(), 0700) == 0);
        REQUIRE(run({ours(), "load", "/dev/stdin", "--image", image}, "a = 1\n").status == 0);
        Program watch({ours(), "get", "--watch", "a", "--image", image});
        watch.await_out("1\n");
        if (what == "moved")
            REQUIRE(rename(directory.c_str(), (directory + "2").c_str()) == 0);
        else
            std::filesystem::remove_all(directory);
        const Result result = watch.finish();
        CHECK(result.status == 1);
        CHECK(has(result.err, "No such file"));
    }
}

TEST_CASE("config: --watch follows the path when another directory takes its place", "[config]") {
    const Scratch scratch;
    const std::string here = scratch.path + "/here", other = scratch.path + "/other";
    const auto load = [](const std::string& directory, const std::string& text) {
        REQUIRE(run({ours(), "load", "/dev/stdin", "--image", directory + "/i"}, text).status == 0);
    };
    for (const auto& directory : {here, other}) REQUIRE(mkdir(directory.c_str(), 0700) == 0);
    load(here, "a = 1\n");
    load(other, "a = 2\n");
    Program watch({ours(), "get", "--watch", "a", "--image", here + "/i"});
    watch.await_out("1\n");
    REQUIRE(renameat2(AT_FDCWD, here.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0);
    watch.await_out("2\n");
    load(here, "a = 3\n");
    watch.await_out("3\n");
}

TEST_CASE("config: 20 watchers all see the last of 30 loads", "[config]") {
    const Loaded it("a = 0\n");
    std::vector<std::unique_ptr<Program>> watchers;
    for (int i = 0; i < 20; ++i)
        watchers.push_back(
            std::make_unique<Program>(Words{ours(), "get", "--watch", "a", "--image", it.image}));
    for (auto& watcher : watchers) watcher->await_out("0\n");
    for (int i = 1; i <= 30; ++i) it.load("a = " + std::to_string(i) + "\n");
    for (auto& watcher : watchers) {
        std::istringstream values(watcher->await_out("30\n"));
        int before = -1;
        for (int value; values >> value; before = value) CHECK(value > before);
    }
}

TEST_CASE("config: a reader that writes is killed, and cannot make its mapping writable",
          "[config]") {
    const Loaded it;
    const std::string before = contents(it.image);
    // The variable is for a build with -fsanitize=address, which would catch the signal.
    const Result result =
        run({"env", "ASAN_OPTIONS=handle_segv=0", ours(), "trespass"}, "", it.scratch.path);
    CHECK(result.status == 0);
    CHECK(result.out ==
          "mprotect(PROT_READ | PROT_WRITE): Permission denied\n"
          "a store: killed: Segmentation fault\n");
    CHECK(contents(it.image) == before);
    CHECK(names(it.scratch.path) == "app.conf config.image ");  // and no core
}

TEST_CASE("config: trespass believes only SIGSEGV", "[config]") {
    const Loaded it;
    const int number = GENERATE(SIGKILL, SIGTERM, SIGBUS);
    Tracer tracer({ours(), "trespass", "--image", it.image}, kPatience, [] {
        const int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, 1);
        dup2(nowhere, 2);
    });
    for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
        if (event.what == Event::begins && event.who->number == 1) tracer.send(event.who, number);
    CHECK(tracer.tracees[0].status == 1 << 8);
}

TEST_CASE("config: what 200 readers of 100 KB cost", "[config]") {
    const int count = 200;
    const Loaded it(generation(1, 2250));
    const long image = static_cast<long>(std::filesystem::file_size(it.image) + 1023) / 1024;
    REQUIRE(image >= 100);
    const Result result = run({ours(), "readers", std::to_string(count)}, "", it.scratch.path);
    INFO(result.out << result.err);
    REQUIRE(result.status == 0);
    std::istringstream lines(result.out);
    std::string line;
    std::getline(lines, line);
    CHECK(has(line, "200 readers, 2250 entries, "));
    std::getline(lines, line);
    struct {
        std::string what, kind;
        long rss, pss, own, difference, tables;
    } one, copies;
    for (auto row : {&one, &copies})
        lines >> row->what >> row->kind >> row->rss >> row->pss >> row->own >> row->difference >>
            row->tables;
    CHECK(one.kind == "mapping");
    CHECK(copies.kind == "copies");
    CHECK(one.pss - one.own == one.difference);
    // Within a tenth: the kernel rounds each process's Pss down to whole KiB, and other processes
    // that come and go meanwhile change the readers' share of the C library.
    const auto near = [](long seen, long meant) { return std::abs(seen - meant) <= meant / 10; };
    CHECK(near(one.pss, one.own + image));
    CHECK(near(copies.pss, copies.own + image * count));
    CHECK(copies.difference > 10 * one.difference);
    CHECK(one.rss > one.pss);
    // Each process has page tables of its own: four pages at the least.
    CHECK(one.tables >= count * 4 * sysconf(_SC_PAGESIZE) / 1024);
    CHECK(copies.tables >= count * 4 * sysconf(_SC_PAGESIZE) / 1024);
}

TEST_CASE("config: readers of two images are no measure", "[config]") {
    const Loaded it(generation(1, 100000));
    Program readers({ours(), "readers", "20", "--image", it.image});
    REQUIRE(eventually([](const std::string& pid) { return !children(std::stoi(pid)).empty(); },
                       std::to_string(readers.pid())));
    it.load("a = 1\n");
    const Result result = readers.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, ": a load came meanwhile; these figures are of two images\n"));
}

TEST_CASE("config: a killed reader or parent ends all of them", "[config]") {
    const Loaded it(generation(1, 100000));
    for (const bool parent : {false, true}) {
        Program readers({ours(), "readers", "20", "--image", it.image});
        std::vector<pid_t> all;
        REQUIRE(
            eventually([](const std::string& pid) { return children(std::stoi(pid)).size() == 20; },
                       std::to_string(readers.pid())));
        all = children(readers.pid());
        REQUIRE(!all.empty());
        kill(parent ? readers.pid() : all[7], SIGKILL);
        const Result result = readers.finish();
        CHECK(result.status == (parent ? 128 + SIGKILL : 1));
        if (!parent) CHECK(has(result.err, "reader "));
        for (pid_t reader : all) CHECK(eventually(process_gone, std::to_string(reader)));
    }
}

namespace {

struct Counts {
    std::atomic<long> reads, changes, mixed;
};

// Whether it has 2000 entries with one value.
bool all_alike(const config::Image& image) {
    std::set<std::string_view> values;
    for (size_t i = 0; i < image.slots; ++i) {
        const config::Slot slot = config::slot(image, i);
        config::Pair pair;
        if (slot.entry != 0 && config::read_entry(image, slot.entry, &pair))
            values.insert(pair.value);
    }
    return image.count == 2000 && values.size() == 1;
}

// A process that takes the image again and again until it is killed: maps, checks and reads all of
// it. Writes a byte to `ready` after its first.
pid_t start_reader(const std::string& path, Counts* counts, int ready) {
    const pid_t reader = spawn();
    if (reader != 0) return reader;
    if (nice(19) == -1) _exit(1);  // or the loader hardly gets a turn
    for (std::string last;;) {
        const int fd = open(path.c_str(), O_RDONLY);
        struct stat file = {};
        fstat(fd, &file);
        const size_t bytes = static_cast<size_t>(file.st_size);
        void* start = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
        close(fd);
        config::Image image;
        const bool whole = start != MAP_FAILED &&
                           !config::check_header(static_cast<char*>(start), bytes, &image) &&
                           !config::check_all(image) && all_alike(image);
        std::string_view found;
        config::find(image, "key.0", &found);
        const std::string value(found);
        munmap(start, bytes);
        if (!whole) ++counts->mixed;
        if (counts->reads++, last.empty())
            if (write(ready, "r", 1) != 1) _exit(1);
        if (!last.empty() && value != last) ++counts->changes;
        last = value;
    }
}

// Processes that read an image again and again. check(): all are still at work, and none has seen
// anything but a whole image.
class Readers {
  public:
    Readers(const std::string& image, int count)
        : counts(new (mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Counts{}) {
        int ready[2];
        REQUIRE(pipe(ready) == 0);
        for (int i = 0; i < count; ++i) all_.push_back(start_reader(image, counts, ready[1]));
        for (int i = 0; i < count; ++i) {
            pollfd first = {ready[0], POLLIN, 0};
            char byte;
            REQUIRE(poll(&first, 1, kPatience * 1000) == 1);
            REQUIRE(read(ready[0], &byte, 1) == 1);
        }
        close(ready[0]);
        close(ready[1]);
    }
    ~Readers() {
        for (pid_t reader : all_) kill(reader, SIGKILL), waitpid(reader, nullptr, 0);
        munmap(counts, sizeof *counts);
    }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;
    void check() const {
        for (pid_t reader : all_) CHECK(waitpid(reader, nullptr, WNOHANG) == 0);
        CHECK(counts->mixed == 0);
        CHECK(counts->changes > 0);
    }
    Counts* const counts;

  private:
    std::vector<pid_t> all_;
};

void reload(int count, int loads) {
    const Loaded it(generation(0, 2000));
    Readers readers(it.image, count);
    for (int i = 1; i <= loads; ++i) it.load(generation(i, 2000));
    std::cout << loads << " loads, " << count << " readers: " << readers.counts->reads << " reads, "
              << readers.counts->changes << " times another image than before, "
              << readers.counts->mixed << " mixed" << std::endl;
    readers.check();
}

// What a load that was disturbed at one of its calls left: an old or a new image, whole; and the
// next load goes on by itself.
void check_left(const Loaded& it, int number) {
    const std::string value = it.get("key.0").out;
    CHECK((has(value, "generation " + std::to_string(number) + ".") ||
           has(value, "generation " + std::to_string(number - 1) + ".")));
    it.load(generation(number, 2000));
    CHECK(it.get("key.1999").out == it.get("key.0").out);
    CHECK(names(it.scratch.path) == "app.conf config.image ");
}

// The calls of a load that begin when its text is read, in order.
std::vector<uint64_t> calls_of_load(const Loaded& it) {
    Tracer tracer({ours(), "load", it.file, "--image", it.image}, kPatience,
                  [] { dup2(open("/dev/null", O_WRONLY), 1); });
    std::vector<uint64_t> calls;
    for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
        if (event.what == Event::enters) calls.push_back(event.who->call);
    return calls;
}

}  // namespace

TEST_CASE("config: 30 loads under 40 readers: no mixed read", "[config]") { reload(40, 30); }

TEST_CASE("config: a load killed at each call under 20 readers, and the next one goes on",
          "[config]") {
    const Loaded it(generation(0, 2000));
    const size_t count = calls_of_load(it).size();
    Readers readers(it.image, 20);
    int number = 0;
    for (size_t call = 1; call <= count; ++call) {
        put(it.file, generation(++number, 2000));
        {
            Tracer tracer({ours(), "load", it.file, "--image", it.image}, kPatience,
                          [] { dup2(open("/dev/null", O_WRONLY), 1); });
            for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
                if (event.what == Event::enters && event.who->calls == static_cast<int>(call))
                    tracer.send(event.who, SIGKILL);
        }
        check_left(it, number);
    }
    readers.check();
}

TEST_CASE("config: a load told to stop at any call leaves nothing", "[config]") {
    const Loaded it(generation(0, 2000));
    const int calls = static_cast<int>(calls_of_load(it).size());
    const int number = GENERATE(SIGTERM, SIGINT, SIGHUP);
    int stopped = 0, finished = 0;
    for (int call = 1; call <= calls; ++call) {
        Tracer tracer({ours(), "load", it.file, "--image", it.image}, kPatience,
                      [] { dup2(open("/dev/null", O_WRONLY), 1); });
        for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
            if (event.what == Event::enters && event.who->calls == call)
                tracer.send(event.who, number);
        CHECK(names(it.scratch.path) == "app.conf config.image ");
        ++(WIFSIGNALED(tracer.tracees[0].status) ? stopped : finished);
    }
    CHECK(stopped > 0);
    CHECK(finished > 0);
}

TEST_CASE("config: each call of a load fails once: said, and nothing is left", "[config]") {
    const Loaded it(generation(0, 2000));
    const std::vector<uint64_t> calls = calls_of_load(it);
    // Before main() the loader of programs is at work, which has messages of its own.
    const size_t first = static_cast<size_t>(
        std::find(calls.begin(), calls.end(), uint64_t{SYS_rt_sigaction}) - calls.begin());
    REQUIRE(first < calls.size());
    int number = 0, failed = 0;
    for (size_t call = first; call < calls.size(); ++call) {
        INFO(call_name(calls[call]));
        if (calls[call] == SYS_exit_group || calls[call] == SYS_brk) continue;  // cannot fail so
        put(it.file, generation(++number, 2000));
        int words[2];
        REQUIRE(pipe2(words, O_CLOEXEC) == 0);
        Tracer tracer({ours(), "load", it.file, "--image", it.image}, kPatience, [&] {
            dup2(open("/dev/null", O_WRONLY), 1);
            dup2(words[1], 2);
        });
        close(words[1]);
        for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who))
            if (event.what == Event::enters && event.who->calls == static_cast<int>(call) + 1)
                tracer.answer(event.who, -EIO);
        char text[500] = "";
        const ssize_t length = read(words[0], text, sizeof text - 1);
        close(words[0]);
        const int status = tracer.tracees[0].status;
        CHECK((status == 0 || status == 1 << 8));
        if (status != 0) {
            ++failed;
            CHECK(length > 0);
            CHECK(std::string(text).rfind("shared_config: ", 0) == 0);
        } else {
            CHECK(it.get("key.0").out == "generation " + std::to_string(number) + "..........\n");
        }
        // At most an empty file, where we could not learn whose it is.
        if (has(names(it.scratch.path), "new")) CHECK(contents(it.image + ".new").empty());
        check_left(it, number);
    }
    CHECK(failed > 10);
}

// tests/run "[config-proof]": the whole figure, by hand.
TEST_CASE("config: 100 loads under 200 readers: no mixed read", "[.][config-proof]") {
    reload(200, 100);
}
