// One configuration, many readers: map_posix/config/shared_config.

#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
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

#include "../common/process.h"
#include "../map_posix/config/image.h"
#include "../map_posix/config/lookup.h"
#include "traced.h"

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
    CHECK(load.out == image + ": 2 entries, 85 bytes\n");
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
                                      {"--nonsense", "get", "a"},
                                      {"load", "--watch", "x"},
                                      {"load", "x", "--image", "a.new"},
                                      {"readers", "1x"},
                                      {"--image"}};
    for (const auto& words : cases) {
        Words line = {ours()};
        line.insert(line.end(), words.begin(), words.end());
        const Result result = run(line, "", scratch.path);
        CHECK(result.status == 2);
        CHECK(result.err.rfind("shared_config: ", 0) == 0);
        CHECK(result.out.empty());
    }
    CHECK(names(scratch.path).empty());
    CHECK(run({ours(), "get", "a", "--image", "new"}, "", scratch.path).status == 1);  // not .new
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
            struct stat was = {}, is = {};
            REQUIRE(lstat(there.c_str(), &was) == 0);
            const Result result = run({ours(), "load", "app.conf"}, "", scratch.path);
            CHECK(result.status == 1);
            CHECK(result.err == "shared_config: " + sentence + "\n");
            CHECK(names(scratch.path) == before);
            REQUIRE(lstat(there.c_str(), &is) == 0);
            CHECK(was.st_ino == is.st_ino);
            CHECK(was.st_mtim.tv_nsec == is.st_mtim.tv_nsec);
        };
        // An empty file has no data; beside the image it is what a load killed early has left.
        for (const std::string& text : {std::string("my diary\n"), std::string("CFG"),
                                        std::string(100, '\0'), std::string()}) {
            if (next && text.empty()) continue;
            put(there, text);
            refused("./" + name + ": is not an image of ours, and stays as it is\n" +
                    "  look at it: od -c -N 64 -- ./" + name + "\n  if nobody needs it: rm -- ./" +
                    name);
            CHECK(contents(there) == text);
            unlink(there.c_str());
        }
        REQUIRE(mkdir(there.c_str(), 0700) == 0);
        refused("./" + name + ": is not a regular file");
        rmdir(there.c_str());
        REQUIRE(mkfifo(there.c_str(), 0600) == 0);
        refused("./" + name + ": is not a regular file");
        unlink(there.c_str());
        for (const std::string target : {"elsewhere", "app.conf"}) {
            REQUIRE(symlink(target.c_str(), there.c_str()) == 0);
            refused("open(./" + name + "): Too many levels of symbolic links");
            unlink(there.c_str());
        }
        if (!can_be_others()) continue;
        for (const std::string& text :
             {std::string("diary"), config::make({{"a", "2"}}), std::string()}) {
            put(there, text);
            REQUIRE(chown(there.c_str(), 65534, 65534) == 0);
            refused("./" + name + ": belongs to user 65534, not to you");
            CHECK(contents(there) == text);
            unlink(there.c_str());
        }
    }
}

TEST_CASE("config: what a killed load left is in nobody's way, and not written to", "[config]") {
    const Loaded it("a = old\n");
    const std::string whole = contents(it.image), next = it.image + ".new";
    for (const std::string& left :
         {std::string(), whole.substr(0, 4), whole.substr(0, 60), whole}) {
        for (const mode_t mode : {0444, 0400, 0644}) {
            put(next, left);
            REQUIRE(chmod(next.c_str(), mode) == 0);
            const int open_before = open(next.c_str(), O_RDONLY);
            put(it.file, "a = " + std::to_string(left.size() + mode) + "\n");
            // As an ordinary user, if we can be one: root may write to every file.
            Words load = {ours(), "load", "app.conf"};
            if (can_be_others()) {
                const Words user = {"setpriv", "--reuid=65534", "--clear-groups"};
                if (shell(user[0] + " " + user[1] + " " + user[2] + " test -x " + quoted(ours()))
                        .status == 0)
                    load.insert(load.begin(), user.begin(), user.end());
                for (const std::string& path : {it.scratch.path, it.image, next})
                    REQUIRE(chown(path.c_str(), load.size() > 3 ? 65534 : 0, 0) == 0);
            }
            const Result result = run(load, "", it.scratch.path);
            INFO(left.size() << " bytes: " << result.err);
            CHECK(result.status == 0);
            CHECK(result.err.empty());
            CHECK(it.get("a").out == std::to_string(left.size() + mode) + "\n");
            CHECK(names(it.scratch.path) == "app.conf config.image ");
            CHECK(contents("/proc/self/fd/" + std::to_string(open_before)) == left);
            close(open_before);
        }
    }
}

TEST_CASE("config: no space or no memory is a sentence, and nothing is left", "[config]") {
    const Loaded it("a = old\n");
    put(it.file, generation(1, 1000));
    const Result space =
        shell("ulimit -f 8; " + quoted(ours()) + " load app.conf", it.scratch.path);
    CHECK(space.status == 1);
    CHECK(space.err == "shared_config: write(./config.image.new): File too large\n");
    CHECK(names(it.scratch.path) == "app.conf config.image ");
    CHECK(it.get("a").out == "old\n");
    if (shell("ulimit -v 12000; " + quoted(ours()) + " --help").status != 0)
        SKIP_BECAUSE("the program does not start in 12 MB here (sanitizer?)");
    put(it.file, generation(1, 100000));
    const Result memory =
        shell("ulimit -v 12000; " + quoted(ours()) + " load app.conf", it.scratch.path);
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
            // The variable is for a sanitizer, which would catch trespass's signal.
            const Result result = shell(
                "ASAN_OPTIONS=handle_segv=0 " + quoted(ours()) + " " + words + " " + to,
                it.scratch.path);
            CHECK(result.status == 1);
            CHECK(has(result.err, "shared_config: write(stdout): "));
        }
}

TEST_CASE("config: a load cut short leaves the old image or the new", "[config]") {
    const Loaded it(generation(1, 3000));
    std::mt19937 random{20240229};
    int killed = 0, ended = 0;
    for (int i = 0; i < 60; ++i) {
        const int how = i % 2 ? SIGKILL : SIGTERM;
        put(it.file, generation(i + 2, 3000));
        {
            const Program load({ours(), "load", it.file, "--image", it.image});
            usleep(random() % 6000);  // any moment will do
            kill(load.pid(), how);
            const int status = end_of(load.pid());
            (status == 128 + how ? killed : ended) += 1;
        }
        if (how == SIGTERM) CHECK(names(it.scratch.path) == "app.conf config.image ");
        const std::string first = it.get("key.0").out, last = it.get("key.2999").out;
        CHECK(has(first, "generation "));
        CHECK(first == last);
        if (how == SIGKILL) it.load(contents(it.file));  // goes on where the killed one was
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
    bad[16] ^= 1;
    replace(it.image, bad);
    refused("./config.image: is damaged: its header has changed");
    replace(it.image, good);
    for (const mode_t mode : {0664, 0646}) {
        REQUIRE(chmod(it.image.c_str(), mode) == 0);
        refused("./config.image: others than its owner may write it");
    }
    REQUIRE(chmod(it.image.c_str(), 0644) == 0);
    CHECK(it.get("a").out == "1\n");
    unlink(it.image.c_str());
    refused("open(./config.image): No such file or directory");
    REQUIRE(symlink("app.conf", it.image.c_str()) == 0);
    refused("open(./config.image): Too many levels of symbolic links\n");
    CHECK(!has(it.get("a").err, "make it: "));
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
    const size_t structure = sizeof(config::Header) + 90 * sizeof(config::Slot);
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

// What the bytes of an image hold, read without its table: an entry after the other.
std::vector<config::Texts> held_by(const std::string& bytes) {
    config::Image image;
    std::vector<config::Texts> all;
    if (config::check(bytes.data(), bytes.size(), &image)) return all;
    config::for_each(image, [&all](const config::Texts& it) { all.push_back(it); });
    return all;
}

// Makes the checksums right, of the header and of each entry that the table or the order leads to.
std::string checked_again(std::string bytes) {
    auto header = config::number_at<config::Header>(bytes.data());
    header.checksum = config::checksum(header);
    memcpy(&bytes[0], &header, sizeof header);
    const auto correct = [&bytes](size_t at) {
        if (at > bytes.size() || bytes.size() - at < sizeof(config::Entry)) return bytes.size();
        auto entry = config::number_at<config::Entry>(&bytes[at]);
        const uint64_t end = at + sizeof entry + uint64_t{entry.key_bytes} + entry.value_bytes;
        if (end > bytes.size()) return bytes.size();
        const std::string_view texts(&bytes[at] + sizeof entry, end - at - sizeof entry);
        entry.checksum = config::hash(texts, entry.key_bytes);
        memcpy(&bytes[at], &entry, sizeof entry);
        return static_cast<size_t>(end);
    };
    const size_t start = sizeof header + 80 * sizeof(config::Slot);
    for (size_t i = sizeof header; i < start; i += sizeof(config::Slot))
        correct(config::number_at<config::Slot>(&bytes[i]));
    for (size_t at = start; at < bytes.size();) at = correct(at);
    return bytes;
}

}  // namespace

TEST_CASE("config: an entry that has changed is neither an answer nor a no", "[config]") {
    std::string bytes = config::make({{"a", "1"}, {"b", "2"}});
    bytes.back() = '3';
    config::Image image;
    REQUIRE(config::check(bytes.data(), bytes.size(), &image) == nullptr);
    // Those that are not there meet the changed entry on their way, or an empty slot.
    for (const char* key : {"b", "c", "d", "e", "f", "g", "h"}) {
        std::optional<std::string_view> value;
        const char* wrong = config::find(image, key, &value);
        CHECK(wrong == std::string("is damaged: an entry has changed"));
    }
}

TEST_CASE("config: 100,000 damaged images: an error or a right answer", "[config]") {
    const Loaded it(generation(1, 40));
    const std::string good = contents(it.image);
    Guarded memory;
    Random random{1};
    int refused = 0, answers = 0, wrong = 0;
    for (int i = 0; i < kDamages; ++i) {
        const std::string bad = damaged(good, random, true);
        config::Image image;
        if (config::check(memory.put(bad), bad.size(), &image)) {
            ++refused;
            continue;
        }
        // Keys that are there; one that is not.
        for (const int number : {i % 40, (i + 17) % 40, 40}) {
            std::optional<std::string_view> value;
            if (config::find(image, "key." + std::to_string(number), &value))
                ++refused;
            else if (number < 40 ? value == "generation 1.........." : !value)
                ++answers;
            else
                ++wrong;
        }
    }
    INFO(refused << " refused, " << answers << " answers");
    CHECK(wrong == 0);
    CHECK(refused > kDamages / 2);
    CHECK(answers > kDamages / 4);
}

TEST_CASE("config: 100,000 damaged images with the checksums made right", "[config]") {
    // Now the checks behind them have to see what would lead outside or astray. What the bytes say
    // is right: a key may well have changed.
    const Loaded it(generation(1, 40));
    const std::string good = contents(it.image);
    Guarded memory;
    Random random{2};
    int refused = 0, answers = 0, none = 0, wrong = 0;
    for (int i = 0; i < kDamages; ++i) {
        const std::string bad = checked_again(damaged(good, random, false));
        const auto held = held_by(bad);
        config::Image image;
        if (config::check(memory.put(bad), bad.size(), &image)) {
            ++refused;
            continue;
        }
        for (const int number : {i % 40, (i + 17) % 40, 40}) {
            const std::string key = "key." + std::to_string(number);
            std::optional<std::string_view> value;
            if (config::find(image, key, &value)) {
                ++refused;
            } else if (value) {
                // Wherever it lies: behind its key, and as long as its entry says.
                const char* entry = value->data() - key.size() - sizeof(config::Entry);
                const bool inside =
                    entry >= image.start && std::string(entry + 16, key.size()) == key;
                const auto sizes =
                    inside ? config::number_at<config::Entry>(entry) : config::Entry{};
                const bool right =
                    inside && sizes.key_bytes == key.size() && sizes.value_bytes == value->size();
                right ? ++answers : ++wrong;
            } else {
                const bool is_held = std::any_of(
                    held.begin(), held.end(), [&key](const auto& that) { return that.key == key; });
                is_held ? ++wrong : ++none;
            }
        }
        // Changed after the check: any answer, but none from outside (it would hit the guard).
        if (config::check(memory.put(good), good.size(), &image)) ++wrong;
        memory.put(bad);
        std::optional<std::string_view> value;
        config::find(image, "key." + std::to_string(i % 41), &value);
    }
    INFO(refused << " refused, " << answers << " answers, " << none << " times no such key");
    CHECK(wrong == 0);
    CHECK(refused > kDamages / 4);
    CHECK(answers > kDamages / 4);
    CHECK(none > kDamages / 4);
}

TEST_CASE("config: a lookup uses a few bytes, and checks those", "[config]") {
    const Loaded it(generation(1, 1000));
    const std::string good = contents(it.image);
    const size_t slots = 2000;
    const auto slot_of = [&](const std::string& key) {
        return sizeof(config::Header) + config::hash(key) % slots * sizeof(config::Slot);
    };
    int tried = 0;
    for (int i = 0; i < 1000; ++i) {
        const std::string key = "key." + std::to_string(i);
        const size_t slot = slot_of(key), at = config::number_at<config::Slot>(&good[slot]);
        if (good.compare(at + sizeof(config::Entry), key.size(), key) != 0)
            continue;  // not its own
        // All is spoiled but the header, one slot and one entry.
        std::string bad(good.size(), '\xa5');
        const size_t bytes = sizeof(config::Entry) + key.size() + 22;
        for (const auto& [from, count] : {std::pair<size_t, size_t>{0, sizeof(config::Header)},
                                          {slot, sizeof(config::Slot)},
                                          {at, bytes}})
            bad.replace(from, count, good, from, count);
        config::Image image;
        std::optional<std::string_view> value;
        REQUIRE(!config::check(bad.data(), bad.size(), &image));
        REQUIRE(!config::find(image, key, &value));
        REQUIRE(value == "generation 1..........");
        REQUIRE(config::find(image, "no such key", &value) != nullptr);
        REQUIRE(!value);
        if (++tried > 5) continue;
        replace(it.image, bad);
        CHECK(it.get(key).out == "generation 1..........\n");
        const Result none = it.get("no such key");
        CHECK(none.status == 1);
        CHECK(none.err == "shared_config: ./config.image: is damaged: an entry has changed\n");
        CHECK(run({ours(), "readers", "1"}, "", it.scratch.path).err == none.err);
        for (size_t byte = at; byte < at + bytes; ++byte) {  // each byte of the entry counts
            std::string worse = bad;
            worse[byte] ^= 4;
            REQUIRE(!config::check(worse.data(), worse.size(), &image));
            REQUIRE(config::find(image, key, &value) != nullptr);
        }
    }
    CHECK(tried > 300);
    // An empty slot where the key's should be: it is not missed in silence.
    std::string bad = good;
    memset(&bad[sizeof(config::Header)], 0, slots * sizeof(config::Slot));
    replace(it.image, bad);
    CHECK(it.get("key.7").err ==
          "shared_config: ./config.image: is damaged: its table misses a key\n");
    CHECK(it.get("key.1000").err == "shared_config: ./config.image: has no key 'key.1000'\n");
}

TEST_CASE("config: a table longer than its image is refused before it is read", "[config]") {
    const Loaded it("a = 1\n");
    const std::string good = contents(it.image);
    Guarded memory;
    for (const uint64_t count : {uint64_t{0}, uint64_t{8}, uint64_t{1} << 29, uint64_t{1} << 32,
                                 uint64_t{1} << 61, UINT64_MAX / 16, UINT64_MAX}) {
        auto header = config::number_at<config::Header>(good.data());
        header.count = count;
        header.checksum = config::checksum(header);
        std::string image = good;
        memcpy(&image[0], &header, sizeof header);
        config::Image checked;
        const char* wrong = config::check(memory.put(image), image.size(), &checked);
        REQUIRE(wrong != nullptr);
        CHECK(std::string(wrong) == "is damaged: its table lies outside");
    }
}

TEST_CASE("config: bytes behind the last entry are damage", "[config]") {
    std::string image = config::make({{"a", "1"}});
    auto header = config::number_at<config::Header>(image.data());
    header.bytes += 20;
    header.checksum = config::checksum(header);
    memcpy(&image[0], &header, sizeof header);
    image += std::string(20, 'x');
    config::Image checked;
    std::optional<std::string_view> value;
    REQUIRE(!config::check(image.data(), image.size(), &checked));
    CHECK((!config::find(checked, "a", &value) && value == "1"));
    const char* wrong = config::find(checked, "b", &value);
    REQUIRE(wrong != nullptr);
    CHECK(std::string(wrong) == "is damaged: it does not end with its last entry");
}

TEST_CASE("config: readers refuse what a lookup need not see", "[config]") {
    const Loaded it;
    std::string image = config::make({{"a", "1"}, {"b", "2"}});
    const size_t last = image.size() - sizeof(config::Entry) - 2;
    const auto refused = [&](const std::string& sentence) {
        replace(it.image, image);
        CHECK(it.get("a").out == "1\n");
        const Result result = run({ours(), "readers", "2"}, "", it.scratch.path);
        CHECK(result.status == 1);
        CHECK(result.err == "shared_config: ./config.image: " + sentence + "\n");
    };
    image.back() = '3';
    refused("is damaged: an entry has changed");
    const config::Entry entry = {config::hash("a3", 1), 1, 1};
    image.replace(last, sizeof entry + 1,
                  std::string(reinterpret_cast<const char*>(&entry), sizeof entry) + "a");
    refused("two entries have one key");
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
        if (config::check(static_cast<const char*>(start), bytes, &image)) _exit(2);
        if (truncate(it.image.c_str(), 0) == -1) _exit(3);
        std::optional<std::string_view> value;
        _exit(config::find(image, "key.7", &value) ? 4 : 0);
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
    int errors = 0, buses = 0;
    for (int i = 0; i < 20; ++i) {
        replace(it.image, good);
        Program reader({ours(), "readers", "1", "--image", it.image});
        usleep(static_cast<useconds_t>(i) * 500);  // any moment will do
        chmod(it.image.c_str(), 0644);
        if (truncate(it.image.c_str(), i % 2 ? 4096 : 0) == -1) FAIL("truncate");
        const Result result = reader.finish();
        INFO(result.status << result.err);
        CHECK((result.status == 0 || result.status == 1));
        CHECK(result.err.empty() == (result.status == 0));
        errors += result.status;
        buses += has(result.err, "SIGBUS");
    }
    INFO(errors << " errors, " << buses << " by SIGBUS");
    CHECK(errors > 0);
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
    const std::string maps = contents("/proc/" + std::to_string(watch.pid()) + "/maps");
    CHECK(maps.find("config.image") == maps.rfind("config.image"));  // none of the old ones
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
    load(scratch.path, "a = 4\n");  // which it does not watch
    REQUIRE(rename((scratch.path + "/i").c_str(), (here + "/i").c_str()) == 0);
    watch.await_out("4\n");
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
    const Result result = shell("ulimit -c unlimited; ASAN_OPTIONS=handle_segv=0 " +
                                    quoted(ours()) + " trespass",
                                it.scratch.path);
    CHECK(result.status == 0);
    CHECK(result.out ==
          "mprotect(PROT_READ | PROT_WRITE): Permission denied\n"
          "a store: killed: Segmentation fault\n");
    CHECK(contents(it.image) == before);
    CHECK(names(it.scratch.path) == "app.conf config.image ");  // and no core
}

TEST_CASE("config: what 200 readers of 100 KB cost", "[config]") {
    if (sanitized(ours())) SKIP_BECAUSE("a sanitizer is built in: its memory is the most of it");
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
        long rss = 0, pss = 0, tables = 0;
    } no, one, copies;
    for (auto row : {&no, &one, &copies})
        lines >> row->what >> row->kind >> row->rss >> row->pss >> row->tables;
    CHECK(no.what + one.what + copies.what == "nooneprivate");
    CHECK(no.kind + one.kind + copies.kind == "imagemappingcopies");
    // Within a tenth: the kernel rounds each process's Pss down to whole KiB, and other processes
    // that come and go meanwhile change the readers' share of the C library.
    const auto near = [](long seen, long meant) { return std::abs(seen - meant) <= meant / 10; };
    CHECK(near(one.pss, no.pss + image));
    CHECK(near(copies.pss, no.pss + image * count));
    CHECK(copies.pss - no.pss > 10 * (one.pss - no.pss));
    CHECK(one.rss > one.pss);
    // Each process has page tables of its own: some, and not more than a few pages of them.
    for (const auto& row : {no, one, copies}) {
        CHECK(row.tables >= 4 * count);
        CHECK(row.tables <= 200 * count);
    }
    CHECK(near(no.tables, one.tables));

    // A single reader shares a large mapping with nobody.
    it.load(generation(1, 100000));
    const std::string single = run({ours(), "readers", "1"}, "", it.scratch.path).out;
    const size_t row = single.find("one mapping");
    REQUIRE(row != std::string::npos);
    long pss = 0;
    REQUIRE(sscanf(&single[row], "one mapping %*d %ld", &pss) == 1);
    CHECK(pss * 1024 > static_cast<long>(std::filesystem::file_size(it.image)));
}

TEST_CASE("config: readers of two images are no measure", "[config]") {
    const Loaded it(generation(1, 100000));
    Program readers({ours(), "readers", "20", "--image", it.image});
    REQUIRE(eventually([](const std::string& pid) { return !children(std::stoi(pid)).empty(); },
                       std::to_string(readers.pid())));
    // By somebody else, before they stop themselves: that is no failure.
    for (const pid_t reader : children(readers.pid())) kill(reader, SIGSTOP);
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
        std::string value;
        bool whole = start != MAP_FAILED &&
                     !config::check(static_cast<char*>(start), bytes, &image) &&
                     image.count == 2000;
        const auto compare = [&](const config::Texts& it) {
            if (value.empty()) value = it.value;
            whole = whole && it.value == value;
        };
        whole = whole && !config::for_each(image, compare) && whole;
        munmap(start, bytes);
        if (!whole) ++counts->mixed;
        if (counts->reads++, last.empty())
            if (write(ready, "r", 1) != 1) _exit(1);
        if (!last.empty() && value != last) ++counts->changes;
        last = value;
    }
}

// Readers that take the image again and again, all of them at work.
class Readers {
  public:
    Readers(int count, const std::string& image) {
        void* shared = mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(shared != MAP_FAILED);
        counts = new (shared) Counts{};
        int ready[2];
        REQUIRE(pipe(ready) == 0);
        for (int i = 0; i < count; ++i) all_.push_back(start_reader(image, counts, ready[1]));
        for (int i = 0; i < count; ++i) {
            pollfd first = {ready[0], POLLIN, 0};
            char byte;
            REQUIRE(poll(&first, 1, kPatience * 1000) == 1);
            REQUIRE(read(ready[0], &byte, 1) == 1);
        }
        close(ready[0]), close(ready[1]);
    }
    ~Readers() {
        for (pid_t reader : all_) kill(reader, SIGKILL), waitpid(reader, nullptr, 0);
        munmap(counts, sizeof(Counts));
    }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;
    // Says what they have seen, and checks it.
    void finish(const std::string& what) const {
        for (pid_t reader : all_) CHECK(waitpid(reader, nullptr, WNOHANG) == 0);  // all at work
        std::cout << what << ", " << all_.size() << " readers: " << counts->reads << " reads, "
                  << counts->changes << " times another image than before, " << counts->mixed
                  << " mixed" << std::endl;
        CHECK(counts->mixed == 0);
        CHECK(counts->changes > 0);
    }
    Counts* counts;

  private:
    std::vector<pid_t> all_;
};

void reload(int count, int loads) {
    const Loaded it(generation(0, 2000));
    const Readers readers(count, it.image);
    for (int i = 1; i <= loads; ++i) it.load(generation(i, 2000));
    readers.finish(std::to_string(loads) + " loads");
}

// A program that stands at its calls, one after the other.
class Stepped {
  public:
    Stepped(const Words& words, const std::string& directory)
        : traced_(words, [directory] {
              if (chdir(directory.c_str()) == -1) _exit(126);
              // For a build with -fsanitize=address: that would not be traced, nor let us see
              // SIGSEGV.
              setenv("ASAN_OPTIONS", "detect_leaks=0:handle_segv=0", 1);
          }) {}

    // Lets it go on until it enters its next call of `main` (its own, not the loader's: that has
    // come to its end when the signals are set up). False: it has ended.
    bool next_call() {
        for (Event event; (event = go_on()).what != Event::over;) {
            if (event.what != Event::enters || event.who->number != 0) continue;
            if (event.who->call == SYS_rt_sigaction && event.who->argument[0] == SIGPIPE)
                begun_ = true;
            if (begun_) return true;
        }
        return false;
    }
    // ... until it enters that call for the n-th time.
    void await(uint64_t call, int n = 1) {
        while (n > 0) {
            REQUIRE(next_call());
            if (who()->call == call) --n;
        }
    }
    Event go_on() {
        if (last_.who) tracer.go_on(last_.who);
        return last_ = tracer.next();
    }
    Result finish() {
        if (last_.who) tracer.go_on(last_.who);
        return traced_.finish();
    }
    Tracee* who() { return &tracer.tracees.front(); }

  private:
    Traced traced_;
    bool begun_ = false;
    Event last_;

  public:
    Tracer& tracer = traced_.tracer;
};

// How a call of load or get may fail; none: it cannot, or it is not ours to care.
std::vector<int> errors_of(uint64_t call) {
    switch (call) {
        case SYS_openat:
            return {EACCES, EMFILE};
        case SYS_read:
        case SYS_pread64:
        case SYS_fsync:
            return {EIO};
        case SYS_write:
            return {ENOSPC, EIO};
        case SYS_flock:
            return {ENOLCK};
#ifdef SYS_rename
        case SYS_rename:
        case SYS_unlink:
#endif
        case SYS_renameat2:
        case SYS_unlinkat:
            return {EIO, EACCES};
#ifdef SYS_newfstatat
        case SYS_newfstatat:
        case SYS_fstat:
#endif
        case SYS_statx:
        case SYS_mmap:
        case SYS_munmap:
        case SYS_brk:
            return {ENOMEM};
        default:
            return {};
    }
}

}  // namespace

TEST_CASE("config: 30 loads under 40 readers: no mixed read", "[config]") { reload(40, 30); }

// tests/run "[config-proof]": the whole figure, by hand.
TEST_CASE("config: 100 loads under 200 readers: no mixed read", "[.][config-proof]") {
    reload(200, 100);
}

TEST_CASE("config: loads killed at every call under 20 readers", "[config]") {
    // The next load goes on where the killed one was, without a word about it.
    const Loaded it(generation(0, 2000));
    const Readers readers(20, it.image);
    int calls = 0, left = 0, published = 0;
    for (bool ended = false; !ended; ++calls) {
        it.load(generation(2 * calls, 2000));
        put(it.file, generation(2 * calls + 1, 2000));
        Stepped load({ours(), "load", it.file, "--image", it.image}, it.scratch.path);
        for (int i = 0; i <= calls && !ended; ++i) ended = !load.next_call();
        if (!ended) load.tracer.send(load.who(), SIGKILL);
        CHECK(load.finish().status == (ended ? 0 : 128 + SIGKILL));
        const bool is_left = names(it.scratch.path) == "app.conf config.image config.image.new ";
        left += is_left;
        if (!is_left) CHECK(names(it.scratch.path) == "app.conf config.image ");
        const std::string first = it.get("key.0").out, last = it.get("key.1999").out;
        const auto value = [](int n) {
            return "generation " + std::to_string(n) + std::string(10, '.') + "\n";
        };
        published += first == value(2 * calls + 1);
        CHECK((first == value(2 * calls + 1) || first == value(2 * calls)));
        CHECK(first == last);
        const Result next = run({ours(), "load", it.file, "--image", it.image});
        CHECK(next.status == 0);
        CHECK(next.err.empty());
        CHECK(names(it.scratch.path) == "app.conf config.image ");
        CHECK(it.get("key.7").out == value(2 * calls + 1));
    }
    std::cout << calls - 1 << " loads killed: " << left << " left a file, " << published
              << " had published; ";
    CHECK(left >= 5);
    CHECK(published >= 2);
    readers.finish("");
}

TEST_CASE("config: a load that is stopped by a signal at any call leaves nothing", "[config]") {
    for (const int number : {SIGHUP, SIGINT, SIGTERM}) {
        const Loaded it("a = old\n");
        int old = 0, calls = 0, missed = 0;
        for (bool ended = false; !ended; ++calls) {
            it.load("a = old\n");
            put(it.file, "a = new\n");
            Stepped load({ours(), "load", "app.conf"}, it.scratch.path);
            for (int i = 0; i <= calls && !ended; ++i) ended = !load.next_call();
            if (!ended) load.tracer.send(load.who(), number);
            const Result result = load.finish();
            CHECK((result.status == 128 + number || result.status == 0));
            missed += result.status == 0;
            CHECK(names(it.scratch.path) == "app.conf config.image ");
            const std::string value = it.get("a").out;
            CHECK((value == "old\n" || value == "new\n"));
            if (result.status == 0) CHECK(value == "new\n");
            old += value == "old\n";
        }
        CHECK(old > 10);
        CHECK(missed <= 3);  // only what comes as it exits; held back, a signal comes later
        CHECK(old < calls);
    }
}

TEST_CASE("config: every call of a load and of a get fails once", "[config]") {
    if (sanitized(ours())) SKIP_BECAUSE("a sanitizer is built in: it makes calls of its own");
    int failures = 0, tolerated = 0;
    for (const bool loads : {true, false}) {
        bool ended = false;
        for (int at = 0; !ended; ++at) {
            const Loaded it("a = old\n");
            put(it.image + ".new", config::make({{"a", "left"}}));
            put(it.file, "a = new\n");
            for (size_t error = 0, errors = 1; error < errors && !ended; ++error) {
                Stepped program(
                    loads ? Words{ours(), "load", "app.conf"} : Words{ours(), "get", "a"},
                    it.scratch.path);
                for (int i = 0; i <= at && !ended; ++i) ended = !program.next_call();
                if (ended) break;
                const uint64_t call = program.who()->call;
                const auto all = errors_of(call);
                errors = all.size();
                if (all.empty()) break;
                REQUIRE(program.tracer.answer(program.who(), -all[error]));
                const Result result = program.finish();
                INFO(call_name(call) << " " << at << ": " << strerror(all[error]) << ", "
                                     << result.status << ": " << result.err);
                ++failures;
                tolerated += result.status == 0;
                CHECK((result.status == 0 || result.status == 1));
                CHECK(result.err.empty() == (result.status == 0));
                if (result.status == 1) CHECK(has(result.err, "shared_config: "));
                // The C library and the kernel can do without memory and a size; not without these.
                for (const uint64_t needed :
                     {SYS_openat, SYS_read, SYS_write, SYS_fsync, SYS_flock})
                    if (call == needed) CHECK(result.status == 1);
                const std::string value = it.get("a").out;
                CHECK((value == "old\n" || value == "new\n"));
                if (loads && result.status == 0) CHECK(value == "new\n");
                if (!loads) CHECK(value == "old\n");
                if (!loads && result.status == 0) CHECK(result.out == "old\n");
                // What the killed load left may still be there. Or ours without a byte, if we never
                // got to know whether the name leads to it: by then it may lead to another load's.
                if (exists(it.image + ".new")) {
                    CHECK((!loads || result.status == 1));
                    const std::string left = contents(it.image + ".new");
                    const bool asks = call == SYS_flock || has(call_name(call), "stat");
                    CHECK((left == config::make({{"a", "left"}}) || (left.empty() && asks)));
                }
                CHECK(run({ours(), "load", "app.conf"}, "", it.scratch.path).status == 0);
                CHECK(names(it.scratch.path) == "app.conf config.image ");
                it.load("a = old\n");
                put(it.image + ".new", config::make({{"a", "left"}}));
                put(it.file, "a = new\n");
            }
        }
    }
    std::cout << failures << " failures, " << tolerated << " of them without a consequence"
              << std::endl;
    CHECK(failures > 30);
}

#ifdef SYS_rename
namespace {
constexpr uint64_t kRename = SYS_rename, kInotifyInit = SYS_inotify_init;
}
#else
namespace {
constexpr uint64_t kRename = SYS_renameat2, kInotifyInit = SYS_inotify_init1;
}
#endif

TEST_CASE("config: a load while another is at work is refused, and disturbs nothing", "[config]") {
    const Loaded it("a = old\n");
    for (const uint64_t call : {uint64_t{SYS_write}, uint64_t{SYS_fsync}, kRename}) {
        put(it.file, "a = first\n");
        Stepped first({ours(), "load", "app.conf"}, it.scratch.path);
        first.await(call);
        put(it.file, "a = second\n");
        const Result second = run({ours(), "load", "app.conf"}, "", it.scratch.path);
        CHECK(second.status == 1);
        CHECK(second.err == "shared_config: ./config.image.new: another load is at work\n");
        CHECK(names(it.scratch.path) == "app.conf config.image config.image.new ");
        CHECK(it.get("a").out == "old\n");
        CHECK(first.finish().status == 0);
        CHECK(it.get("a").out == "first\n");
        it.load("a = old\n");
    }
}

TEST_CASE("config: a load that opens the file of one that then publishes it", "[config]") {
    const Loaded it("a = old\n");
    put(it.file, "a = first\n");
    Stepped first({ours(), "load", "app.conf"}, it.scratch.path);
    first.await(kRename);
    put(it.file, "a = second\n");
    Stepped second({ours(), "load", "app.conf"}, it.scratch.path);
    second.await(SYS_flock);  // it has opened what is about to be published
    CHECK(first.finish().status == 0);
    const int published = open(it.image.c_str(), O_RDONLY);
    const std::string before = contents(it.image);
    const Result result = second.finish();
    CHECK(result.status == 0);
    CHECK(result.err.empty());
    CHECK(contents("/proc/self/fd/" + std::to_string(published)) == before);
    close(published);
    CHECK(it.get("a").out == "second\n");
    CHECK(names(it.scratch.path) == "app.conf config.image ");
}

TEST_CASE("config: a load whose file is taken for left over before it has its lock", "[config]") {
    const Loaded it("a = old\n");
    put(it.file, "a = late\n");
    Stepped late({ours(), "load", "app.conf"}, it.scratch.path);
    late.await(SYS_flock);  // made, not locked
    put(it.file, "a = quick\n");
    Stepped quick({ours(), "load", "app.conf"}, it.scratch.path);
    quick.await(SYS_write);  // has removed it, and made its own
    const Result result = late.finish();
    CHECK(result.status == 1);
    CHECK(result.err == "shared_config: ./config.image.new: another load is at work\n");
    CHECK(it.get("a").out == "old\n");
    CHECK(quick.finish().status == 0);
    CHECK(it.get("a").out == "quick\n");
    CHECK(names(it.scratch.path) == "app.conf config.image ");
}

TEST_CASE("config: a load that comes upon a file after its look at what is left over", "[config]") {
    const Loaded it("a = old\n");
    put(it.file, "a = new\n");
    Stepped load({ours(), "load", "app.conf"}, it.scratch.path);
    do load.await(SYS_openat);
    while (!(load.who()->argument[2] & O_CREAT));
    const std::string longer = config::make({{"a", std::string(1000, 'x')}});
    put(it.image + ".new", longer);  // a quick load's, that was killed
    const Result result = load.finish();
    CHECK(result.status == 1);
    CHECK(result.err == "shared_config: ./config.image.new: another load is at work\n");
    CHECK(contents(it.image + ".new") == longer);
    CHECK(it.get("a").out == "old\n");
    it.load("a = new\n");
    CHECK(it.get("a").out == "new\n");
}

TEST_CASE("config: the hint is a command that helps, whatever the image's name", "[config]") {
    const Scratch scratch;
    const std::string name = "it's $HOME; # a name";
    put(scratch.path + "/app.conf", "a = 1\n");
    const Result none = run({ours(), "get", "a", "--image", name}, "", scratch.path);
    const std::string before = "open(" + name + "): No such file or directory\n  make it: ";
    REQUIRE(has(none.err, before));
    std::string hint = none.err.substr(none.err.find(before) + before.size());
    REQUIRE(has(hint, "load FILE"));
    hint.replace(hint.find("FILE"), 4, "app.conf");
    CHECK(shell(hint, scratch.path).status == 0);
    CHECK(run({ours(), "get", "a", "--image", name}, "", scratch.path).out == "1\n");
    CHECK(names(scratch.path) == "app.conf " + name + " ");
}

TEST_CASE("config: what is in a load's way can be looked at and removed as it says", "[config]") {
    // As a power cut may leave it: long enough, and all zeros.
    for (const std::string name : {"it's $HOME; # a name", "-v"}) {
        const Scratch scratch;
        put(scratch.path + "/app.conf", "a = 1\n");
        put(scratch.path + "/" + name + ".new", std::string(100, '\0'));
        const Words load = {ours(), "load", "app.conf", "--image", name};
        const std::string said = run(load, "", scratch.path).err;
        const auto hint = [&said](const std::string& before) {
            const size_t at = said.find(before);
            REQUIRE(at != std::string::npos);
            const size_t start = at + before.size();
            return said.substr(start, said.find('\n', start) - start);
        };
        const Result look = shell(hint("  look at it: "), scratch.path);
        CHECK(look.status == 0);
        CHECK(has(look.out, "\\0  \\0"));
        CHECK(shell(hint("  if nobody needs it: "), scratch.path).status == 0);
        CHECK(run(load, "", scratch.path).status == 0);
        CHECK(exists(scratch.path + "/" + name));
        CHECK(!exists(scratch.path + "/" + name + ".new"));
    }
}

TEST_CASE("config: trespass believes only SIGSEGV", "[config]") {
    const Loaded it;
    for (const int number : {SIGKILL, SIGSEGV}) {
        Stepped trespass({ours(), "trespass"}, it.scratch.path);
        for (Event event; (event = trespass.go_on()).what != Event::over;)
            if (event.what == Event::signalled && event.who->signal == SIGSEGV)
                event.who->signal = number;
        const Result result = trespass.finish();
        CHECK(result.status == (number == SIGSEGV ? 0 : 1));
        CHECK(result.err == (number == SIGSEGV ? "" : "shared_config: a store: no SIGSEGV\n"));
    }
    // Nor a kernel that lets it write, or knows no such child.
    for (const uint64_t call : {SYS_mprotect, SYS_wait4}) {
        Stepped trespass({ours(), "trespass"}, it.scratch.path);
        trespass.await(call);
        trespass.tracer.answer(trespass.who(), call == SYS_mprotect ? 0 : -ECHILD);
        const std::string sentence = call == SYS_mprotect ? "mprotect: allowed" : "waitpid(";
        CHECK(has(trespass.finish().err, "shared_config: " + sentence));
    }
}

TEST_CASE("config: what the kernel refuses of a watch, or of a part of the output, is said",
          "[config]") {
    const Loaded it("a = " + std::string(9999, 'x') + "\n");  // more than stdout's buffer
    const auto refused = [&](const std::set<uint64_t>& one_of, int printed = 0) {
        Stepped watch({ours(), "get", "--watch", "a"}, it.scratch.path);
        watch.await(SYS_write, printed);
        do REQUIRE(watch.next_call());
        while (one_of.count(watch.who()->call) == 0);
        watch.tracer.answer(watch.who(), -ENOSPC);
        const Result result = watch.finish();
        CHECK(result.status == 1);
        return result.err;
    };
    const std::string why = ": No space left on device\n";
    // Which of the two it is depends on the C library.
    CHECK(has(refused({kInotifyInit, SYS_inotify_init1}), "inotify_init()" + why));
    CHECK(has(refused({SYS_inotify_add_watch}), "inotify_add_watch(./)" + why));
    CHECK(has(refused({SYS_write}), "write(stdout)"));  // the second part can be written
    CHECK(has(refused({SYS_read}, 1), "read(inotify)" + why));
}

TEST_CASE("config: a reader that is killed after it was looked at fails, too", "[config]") {
    const Loaded it;
    Stepped readers({ours(), "readers", "1"}, it.scratch.path);
    readers.await(SYS_kill);  // its parent is to let it go on
    kill(readers.tracer.tracees.at(1).pid, SIGKILL);
    const Result result = readers.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, " failed or was killed\n"));
}
