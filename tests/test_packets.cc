// Packets through the ring: the program from outside, and the ring when its holders die.

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>

#include "../shm_posix/packets/join.h"
#include "../shm_posix/packets/source.h"
#include "support.h"
#include "traced.h"

namespace {

const std::string kProgram = program("PRODUCER_CONSUMER", "shm_posix/packets/producer_consumer");
const std::string kTyped = quoted(kProgram);

// The number that follows `before` in the text.
uint64_t number_after(const std::string& text, const std::string& before) {
    const size_t at = text.find(before);
    if (at == std::string::npos) FAIL("no '" << before << "' in: " << text);
    return strtoull(text.c_str() + at + before.size(), nullptr, 10);
}

// A name for a ring, whose object is gone when the test ends.
struct RingName {
    const std::string name = "/" + unique(), path = "/dev/shm" + name;
    ~RingName() { unlink(path.c_str()); }
};

std::mt19937 random_number{std::random_device{}()};

std::string random_bytes(size_t count) {
    std::string text(count, '\0');
    for (char& c : text) c = static_cast<char>(random_number());
    return text;
}

// Whether a process of `run` has closed the ring's object, which has no name.
bool has_left(const std::string& pid) {
    for (const auto& fd : std::filesystem::directory_iterator("/proc/" + pid + "/fd")) {
        std::error_code gone;  // it may be closed meanwhile
        if (has(std::filesystem::read_symlink(fd, gone).string(), "/dev/shm/")) return false;
    }
    return true;
}

// What follows the name of the object, of which `run` has one without a name.
std::string ring_of(pid_t pid) {
    for (const auto& fd :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
        const std::string to = std::filesystem::read_symlink(fd).string();
        if (has(to, "/dev/shm/")) return to.substr(to.find(' ') + 1);
    }
    return "none";
}

// Whether a process waits for something.
bool sleeping(const std::string& pid) { return has(contents("/proc/" + pid + "/stat"), ") S "); }

// Nanoseconds of processor time that a process has used [proc(5)].
uint64_t processor_time(const std::string& pid) {
    return strtoull(contents("/proc/" + pid + "/schedstat").c_str(), nullptr, 10);
}

// A client of a program that receives on a port.
class Client {
  public:
    explicit Client(Program& server) : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        server.await_err("receives on 127.0.0.1:");
        port = static_cast<uint16_t>(number_after(server.await_err("\n"), "127.0.0.1:"));
        sockaddr_in to = {};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
    }
    ~Client() { close(fd_); }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    void send(const std::string& packet) {
        REQUIRE(::send(fd_, packet.data(), packet.size(), 0) ==
                static_cast<ssize_t>(packet.size()));
    }
    uint16_t port;

  private:
    int fd_;
};

// A ring for this process and its children, each of which takes one side at most, since it has one
// descriptor of the object; a test with it has a deadline.
struct SharedRing {
    explicit SharedRing(uint32_t slots = 8, uint32_t bytes = 64)
        : size(static_cast<size_t>(ring_bytes(slots, bytes))) {
        alarm(kPatience);
        fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        REQUIRE(fd != -1);
        REQUIRE(ftruncate(fd, static_cast<off_t>(size)) == 0);
        memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(memory != MAP_FAILED);
        made = ring_create(memory, slots, bytes);
        ring = made.ring;
    }
    ~SharedRing() {
        munmap(memory, size);
        close(fd);
        alarm(0);
    }
    SharedRing(const SharedRing&) = delete;
    SharedRing& operator=(const SharedRing&) = delete;
    // A child that takes that side, does this and exits with 0, if that returns true.
    template <class Act>
    pid_t start(Side side, Act act) const {
        const pid_t child = fork();
        if (child != 0) return child;
        alarm(kPatience);
        End end = made;
        _exit(ring_join(&end, fd, side) || !act(&end));
    }
    // The same to its end; returns its status as the shell has it.
    template <class Act>
    int run(Side side, Act act) const {
        return end_of(start(side, act));
    }
    static int end_of(pid_t child) {
        int status = 0;
        REQUIRE(waitpid(child, &status, 0) == child);
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    const size_t size;
    int fd = -1;
    void* memory = nullptr;
    End made;  // an end without a side
    Ring* ring = nullptr;
};

// A FIFO that nobody reads.
struct Unread {
    Unread() {
        REQUIRE(mkfifo(path.c_str(), 0600) == 0);
        fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
        REQUIRE(fd != -1);
    }
    ~Unread() { close(fd); }
    const Scratch scratch;
    const std::string path = scratch.path + "/fifo";
    int fd;
};

// The numbers of the packets that a consumer wrote; a cut one at the end is none.
std::vector<uint64_t> packet_numbers(const std::string& written) {
    std::vector<uint64_t> numbers;
    for (size_t at = 0; at + 16 <= written.size();) {
        uint64_t packet;
        uint32_t length;
        memcpy(&packet, &written[at], sizeof packet);
        memcpy(&length, &written[at + 8], sizeof length);
        if (length < 64 || length > 1500) FAIL("no packet at byte " << at);
        at += length;
        if (at <= written.size()) numbers.push_back(packet);
    }
    return numbers;
}

}  // namespace

TEST_CASE("--pipe carries every byte, whatever the ring's size", "[packets]") {
    Scratch scratch;
    const std::string file = scratch.path + "/file";
    const struct {
        size_t bytes;
        const char* options;
    } cases[] = {{0, ""},
                 {1, ""},
                 {2048, ""},
                 {3000001, ""},
                 {3000001, "--slots 1"},
                 {3000001, "--slots 2 --size 65536"},
                 {3000001, "--slots 3 --size 1000"},
                 {20000, "--slots 7 --size 1"}};
    for (const auto& [bytes, options] : cases) {
        INFO(bytes << " bytes " << options);
        put(file, random_bytes(bytes));
        const Result result =
            shell(kTyped + " --pipe " + options + " < " + file + " | cmp - " + file);
        CHECK(result.status == 0);
        CHECK(result.out == "");
        CHECK(number_after(result.err, "packets, ") == bytes);
    }
}

TEST_CASE("--pipe hands over what there is when its input pauses", "[packets]") {
    Program program({kProgram, "--pipe"});
    for (const std::string line : {"one\n", "two\n", "three\n"}) {
        program.write(line);
        program.await_out(line);
    }
    const Result result = program.finish();
    CHECK(result.status == 0);
    CHECK(has(result.err, "handled 3 packets, 14 bytes"));
}

TEST_CASE("--pipe: the end of its input needs no slot", "[packets]") {
    RingName ring;
    const Result result =
        run({kProgram, "produce", "--pipe", "--slots", "1", "--name", ring.name}, "x");
    CHECK(result.status == 0);
    CHECK(!has(result.err, "full"));
    CHECK(has(result.err, ": 1 packets wait in it\n"));
}

// Its object has no name, so leaving needs no look at who else is there: that took both locks.
TEST_CASE("run: a producer that leaves early is not in its consumer's way", "[packets]") {
    Traced running({kProgram, "--generate", "0"});
    const Event forked = running.until_fork();
    Tracee* child = running.until_begin().who;
    running.tracer.go_on(forked.who);
    Tracee* leaving =
        running
            .until([](const Event& event) {
                return event.what == Event::enters && event.who->number == 0 &&
                       (event.who->call == SYS_close || event.who->call == SYS_waitid);
            })
            .who;
    running.tracer.go_on(child);
    CHECK(running.ends_within(1, kPatience * 1000));
    running.tracer.go_on(leaving);
    const Result result = running.finish();
    CHECK(result.status == 0);
    CHECK(result.err == "");
    CHECK(has(result.out, "handled 0 packets, 0 bytes"));
}

TEST_CASE("generated packets arrive complete, in order, unchanged", "[packets]") {
    for (const std::string slots : {"1", "5", "1024"}) {
        const Result result = run({kProgram, "--generate", "20000", "--slots", slots});
        CHECK(result.status == 0);
        CHECK(result.err == "");
        CHECK(has(result.out, "handled 20000 packets, 15"));
        CHECK(!has(result.out, "handed over"));  // the consumer sums up for both
        CHECK(has(result.out, "ring of " + slots + " slots; slept: "));
        CHECK(has(result.out, "dropped 0 packets"));
    }
    CHECK(has(run({kProgram, "--generate", "0"}).out, "handled 0 packets, 0 bytes"));
    CHECK(has(run({kProgram, "--generate", "010"}).out, "handled 10 packets"));
    // Their sizes are mixed and their numbers complete: seen from outside.
    const Result raw = run({kProgram, "--generate", "2000", "--pipe"});
    const std::vector<uint64_t> numbers = packet_numbers(raw.out);
    REQUIRE(numbers.size() == 2000);
    for (size_t i = 0; i < numbers.size(); ++i) REQUIRE(numbers[i] == i);
}

TEST_CASE("UDP: all that a slow client sends arrives in order", "[packets]") {
    Program server({kProgram, "--udp", "0", "--pipe"});
    Client client(server);
    std::string all;
    for (int i = 0; i < 200; ++i) {
        const std::string packet = std::to_string(i) + random_bytes(random_number() % 1490) + "\n";
        client.send(packet);
        server.await_out(packet);
        all += packet;
    }
    client.send("");  // a packet of 0 bytes is a packet
    client.send(std::string(2048, 'x'));
    server.await_out(std::string(2048, 'x'));
    client.send(std::string(2049, 'y'));  // larger than a slot: not cut, but dropped
    client.send("end");
    server.await_out("end");
    kill(server.pid(), SIGINT);
    const Result result = server.finish();
    CHECK(result.status == 0);
    CHECK((result.out == all + std::string(2048, 'x') + "end"));
    CHECK(has(result.err, "handled 203 packets"));
    CHECK(has(result.err, "dropped 1 packets, 1 of them larger than a slot"));
}

TEST_CASE("UDP: under a flood, sent is handled plus dropped", "[packets]") {
    // The consumer stands until the producer has done all.
    Program server({kProgram, "--udp", "0", "--pipe", "--slots", "8"});
    Client client(server);
    const std::string pid = std::to_string(server.pid());
    REQUIRE(
        eventually([](const std::string& id) { return children(std::stoi(id)).size() == 1; }, pid));
    const pid_t consumer = children(server.pid()).at(0);
    kill(consumer, SIGSTOP);
    const uint64_t sent = 20000;
    for (uint64_t i = 0; i < sent; ++i) client.send(std::string(1000, 'a'));
    kill(server.pid(), SIGINT);
    CHECK(eventually(has_left, pid));
    kill(consumer, SIGCONT);
    const Result result = server.finish();
    // Line by line: a slow flood has it warn that nothing is handled.
    const uint64_t handled = number_after("\n" + result.err, "\nhandled ");
    const uint64_t dropped = number_after(result.err, "\ndropped ");
    CHECK(result.status == 0);
    CHECK(handled + dropped == sent);
    CHECK(handled >= 8);
    CHECK(dropped > 0);
    CHECK(result.out.size() == handled * 1000);
}

TEST_CASE("UDP: a port in use is an error, and no ring is left", "[packets]") {
    Program first({kProgram, "--udp", "0"});
    Client client(first);
    const std::string port = std::to_string(client.port);
    RingName ring;
    const Result second = run({kProgram, "produce", "--name", ring.name, "--udp", port});
    CHECK(second.status == 1);
    CHECK(second.err ==
          "producer_consumer: bind(127.0.0.1:" + port + "): Address already in use\n");
    CHECK(!exists(ring.path));
    kill(first.pid(), SIGTERM);
    CHECK(first.finish().status == 0);
}

TEST_CASE("packets: wrong usage is a sentence and exit status 2", "[packets]") {
    const std::vector<Words> wrong = {{},
                                      {"run"},
                                      {"produce"},
                                      {"fly", "--pipe"},
                                      {"run", "run", "--pipe"},
                                      {"--generate", "-1"},
                                      {"--generate", "x"},
                                      {"--generate", ""},
                                      {"--generate", "18446744073709551616"},
                                      {"--generate", "1", "--udp", "1"},
                                      {"--udp", "65536"},
                                      {"--pipe", "--slots", "0"},
                                      {"--pipe", "--slots", "1048577"},
                                      {"--pipe", "--size", "0"},
                                      {"--pipe", "--size", "65537"},
                                      {"--pipe", "--size", "4294967297"},
                                      {"produce", "--pipe", "--name", "packets"},
                                      {"--pipe", "--name", "/packets"},
                                      {"--generate", "1", "--size", "1499"},
                                      {"consume", "--generate", "1"},
                                      {"consume", "--udp", "1"},
                                      {"--pipe", "--nonsense"},
                                      {"--slots"}};
    for (Words words : wrong) {
        words.insert(words.begin(), kProgram);
        const Result result = run(words);
        INFO(Catch::Detail::stringify(words) << result.err);
        CHECK(result.status == 2);
        CHECK(result.out == "");
        CHECK(result.err.rfind("producer_consumer: ", 0) == 0);
    }
    const Result help = run({kProgram, "--help"});
    CHECK(help.status == 0);
    CHECK(has(help.out, "--generate N"));
}

TEST_CASE("packets: what fails is a sentence and exit status 1, and nothing is left", "[packets]") {
    // What the C library says of such a name differs: glibc 2.31 calls it invalid.
    REQUIRE(shm_open(("/" + std::string(256, 'x')).c_str(), O_RDONLY, 0) == -1);
    const std::string too_long = strerror(errno);
    const std::vector<std::pair<std::string, std::string>> failures = {
        {"--pipe < /", "read(stdin): Is a directory"},
        {"--pipe < /etc/passwd > /dev/full", "write(stdout): No space left on device"},
        {"--help > /dev/full", "write(stdout): No space left on device"},
        {"--generate 9 > /dev/full", "write(stdout): No space left on device"},
        {"--generate 9 >&-", "write(stdout): Bad file descriptor"},
        {"--generate 99999 --pipe | head -c 9 > /dev/null; exit $(cat status)",
         "write(stdout): Broken pipe"},
        {"produce --pipe --name $R < /", "read(stdin): Is a directory"},
        {"produce --pipe --name /", "shm_open(/): Invalid argument"},
        {"produce --pipe --name /a/b", "shm_open(/a/b): Invalid argument"},
        {"produce --pipe --name /" + std::string(256, 'x'),
         "shm_open(/" + std::string(256, 'x') + "): " + too_long}};
    for (auto [line, reason] : failures) {
        Scratch scratch;
        RingName ring;
        if (reason[0] == '$') reason.replace(0, 2, ring.name);
        const bool piped = has(line, "|");
        std::string command = "R=" + ring.name + "; " + kTyped + " " + line;
        if (piped)
            command.replace(command.find(" | "), 3, "; echo $? > status; } | "),
                command.insert(command.find(kTyped), "{ ");
        const Result result = shell(command, scratch.path);
        INFO(line << ": " << result.err);
        CHECK(result.status == 1);
        CHECK(has(result.err, "producer_consumer: " + reason + "\n"));
        CHECK(!exists(ring.path));
    }
    CHECK(shell(kTyped + " --generate 9 --pipe > /dev/null 2> /dev/full").status == 1);
    const Scratch scratch;  // a file with room for two bytes of the packet
    CHECK(has(shell("truncate -s 999998 f; echo packet | prlimit --fsize=1000000 " + kTyped +
                        " --pipe --slots 1 --size 64 >> f",
                    scratch.path)
                  .err,
              "write(stdout): File too large\n"));
}

TEST_CASE("packets: a ring for which there is no memory is refused, and not left", "[packets]") {
    struct statvfs fs;
    REQUIRE(statvfs("/dev/shm", &fs) == 0);
    if (fs.f_bavail * fs.f_frsize > uint64_t{60} << 30) SKIP_BECAUSE("/dev/shm has 60 GB free");
    RingName ring;
    for (const Words& verb : {Words{"run"}, Words{"produce", "--name", ring.name}}) {
        Words words = {kProgram, "--pipe", "--slots", "1048576", "--size", "65536"};
        words.insert(words.end(), verb.begin(), verb.end());
        const Result result = run(words);
        CHECK(result.status == 1);
        CHECK(has(result.err, "posix_fallocate(/dev/shm, "));
        CHECK(has(result.err, "No space left on device\n"));
        CHECK(!exists(ring.path));
    }
}

TEST_CASE("produce and consume meet, whoever comes first", "[packets]") {
    for (const bool producer_first : {true, false}) {
        RingName ring;
        const Words produce = {kProgram, "produce", "--generate", "20000", "--name", ring.name};
        const Words consume = {kProgram, "consume", "--name", ring.name};
        Program first(producer_first ? produce : consume);
        first.await_err(producer_first ? "nobody consumes; start: "
                                       : "nobody produces yet; start: ");
        Program second(producer_first ? consume : produce);
        const Result a = first.finish(), b = second.finish();
        CHECK(a.status == 0);
        CHECK(b.status == 0);
        CHECK(has((producer_first ? a : b).out, "handed over 20000 packets"));
        CHECK(has((producer_first ? b : a).out, "handled 20000 packets"));
        CHECK(!exists(ring.path));
    }
}

TEST_CASE("packets wait in the ring for a consumer that comes later", "[packets]") {
    RingName ring;
    const Result produced = run({kProgram, "produce", "--pipe", "--name", ring.name}, "hello\n");
    CHECK(produced.status == 0);
    CHECK(has(produced.err, ring.name + ": 1 packets wait in it\n  handle them: " + kTyped +
                                " consume --pipe --name " + ring.name +
                                "\n  remove it: rm /dev/shm" + ring.name + "\n"));
    CHECK(exists(ring.path));
    const Result consumed = run({kProgram, "consume", "--pipe", "--name", ring.name});
    CHECK(consumed.status == 0);
    CHECK(consumed.out == "hello\n");
    CHECK(!has(consumed.err, "nobody produces yet"));
    CHECK(!exists(ring.path));
}

TEST_CASE("a packet whose handling fails is the successor's, and may be seen twice", "[packets]") {
    RingName ring;
    const std::string name = " --name " + ring.name;
    CHECK(run({kProgram, "produce", "--pipe", "--name", ring.name}, "hello\n").status == 0);
    const Result failed = shell(kTyped + " consume --pipe > /dev/full" + name);
    CHECK(failed.status == 1);
    CHECK(has(failed.err, "write(stdout): No space left on device\n"));
    const Result next = shell(kTyped + " consume --pipe" + name);
    CHECK(next.status == 0);
    CHECK(next.out == "hello\n");
    CHECK(has(next.err, ring.name + ": goes on with packet 0, which may be seen twice\n"));
    CHECK(!exists(ring.path));
}

TEST_CASE("a numbered packet that was changed is noticed", "[packets]") {
    std::vector<unsigned char> packet(kLongest);
    for (uint64_t number = 0; number < 100; ++number) {
        const uint32_t length = make_numbered(packet.data(), number);
        REQUIRE(length >= kShortest);
        REQUIRE(length <= kLongest);
        REQUIRE(is_numbered(packet.data(), length, number));
        CHECK(!is_numbered(packet.data(), length, number + 1));
        CHECK(!is_numbered(packet.data(), length - 4, number));
        for (uint32_t i = 0; i < length; ++i) {
            packet[i] ^= 16;
            REQUIRE(!is_numbered(packet.data(), length, number));
            packet[i] ^= 16;
        }
    }
    RingName ring;
    CHECK(run({kProgram, "produce", "--generate", "1", "--name", ring.name}).status == 0);
    std::fstream file(ring.path);
    file.seekp(sizeof(Ring) + sizeof(Slot) + kShortest - 1).put('!').flush();
    const Result changed = run({kProgram, "consume", "--name", ring.name});
    CHECK(changed.status == 1);
    CHECK(has(changed.err, "packet 0: is another one, or has changed\n"));
}

TEST_CASE("a numbered packet that was changed in the ring is not handled", "[packets]") {
    for (const std::string pipe : {"", " --pipe"}) {
        RingName ring;
        CHECK(run({kProgram, "produce", "--generate", "1", "--name", ring.name}).status == 0);
        std::string bytes = contents(ring.path);
        bytes[sizeof(Ring) + sizeof(Slot) + 30] ^= 1;
        put(ring.path, bytes);
        const Result result = shell(kTyped + " consume" + pipe + " --name " + ring.name);
        CHECK(result.status == 1);
        CHECK(result.out == "");
        CHECK(has(result.err, "packet 0: is another one, or has changed\n"));
    }
}

TEST_CASE("one producer, one consumer: a second of a kind is refused", "[packets]") {
    RingName ring;
    Program producer({kProgram, "produce", "--pipe", "--name", ring.name});
    producer.write("one\n");
    Program consumer({kProgram, "consume", "--pipe", "--name", ring.name});
    consumer.await_out("one\n");
    for (const Words& more : {Words{"produce", "--pipe"}, Words{"consume"}}) {
        Words words = {kProgram, more[0], "--name", ring.name};
        if (more.size() > 1) words.push_back(more[1]);
        const Result second = run(words);
        CHECK(second.status == 1);
        CHECK(has(second.err, ring.name + ": has a " + more[0].substr(0, 7) + "r\n"));
    }
    producer.write("two\n");
    consumer.await_out("two\n");
    CHECK(producer.finish().status == 0);
    CHECK(consumer.finish().status == 0);
    CHECK(!exists(ring.path));
}

TEST_CASE("what bears the ring's name is checked before it is used", "[packets]") {
    RingName ring;
    const size_t size = static_cast<size_t>(ring_bytes(4, 100));
    std::vector<std::string> bad = {"", "x", std::string(300, 'x'), std::string(size, '\0')};
    std::string good(size, '\0');
    void* memory = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(memory, 0, size);
    ring_create(memory, 4, 100);
    memcpy(&good[0], memory, size);
    free(memory);
    const auto with = [&](size_t offset, uint32_t value) {
        std::string changed = good;
        memcpy(&changed[offset], &value, sizeof value);
        return changed;
    };
    bad.push_back(good.substr(0, size - 64));
    const size_t published = offsetof(Ring, seat) + offsetof(Seat, count);
    const size_t handled = published + sizeof(Seat);
    const size_t begun = handled - offsetof(Seat, count) + offsetof(Seat, begun);
    bad.push_back(good + std::string(64, '\0'));
    bad.push_back(with(offsetof(Ring, magic), kRingMagic + 1));
    bad.push_back(with(offsetof(Ring, slots), 0));
    bad.push_back(with(offsetof(Ring, slots), 3));
    bad.push_back(with(offsetof(Ring, slots), 5));
    bad.push_back(with(offsetof(Ring, slots), 0xffffffff));
    bad.push_back(with(offsetof(Ring, size), 0));
    bad.push_back(with(offsetof(Ring, size), 0xffffffff));
    bad.push_back(with(published, 5));
    bad.push_back(with(handled, 1));
    bad.push_back(with(begun, 2));
    bad.push_back(with(published + 4, 0xffffffff));
    memcpy(&bad.back()[handled + 4], "\xff\xff\xff\xff", 4);  // all but over
    memcpy(&bad.back()[begun + 4], "\xff\xff\xff\xff", 4);
    bad.push_back(with(published, 0));  // two more released than committed, and nearly over
    for (size_t at : {handled, begun})
        memcpy(&bad.back()[at], "\xfe\xff\xff\xff\xff\xff\xff\xff", 8);
    for (size_t i = 0; i < bad.size(); ++i) {
        put(ring.path, bad[i]);
        const Result result = run({kProgram, "consume", "--name", ring.name});
        INFO(i << ": " << result.err);
        CHECK(result.status == 1);
        CHECK(has(result.err, ring.name + ": holds "));
        CHECK(has(result.err, "remove it, if nobody does: rm " + ring.path + "\n"));
        CHECK(contents(ring.path).size() == bad[i].size());
        unlink(ring.path.c_str());
    }
    put(ring.path, good);
    if (can_be_others()) {
        REQUIRE(chown(ring.path.c_str(), 65534, 65534) == 0);
        const Result theirs = run({kProgram, "consume", "--name", ring.name});
        CHECK(theirs.status == 1);
        CHECK(has(theirs.err, "is not a file of yours; look at it: ls -l " + ring.path + "\n"));
        REQUIRE(chown(ring.path.c_str(), 0, 0) == 0);
    }
    for (const Words& asked :
         {Words{"consume", "--slots", "5", "--size", "100"},
          Words{"consume", "--slots", "4", "--size", "99"}, Words{"produce", "--generate", "1"}}) {
        Words words = {kProgram, "--name", ring.name};
        words.insert(words.end(), asked.begin(), asked.end());
        const Result other = run(words);
        CHECK(other.status == 1);
        CHECK(has(other.err, "has 4 slots of 100 bytes, not as you ask"));
    }
    unlink(ring.path.c_str());
    REQUIRE(symlink("/etc/passwd", ring.path.c_str()) == 0);
    CHECK(run({kProgram, "consume", "--name", ring.name}).status == 1);
    unlink(ring.path.c_str());
    REQUIRE(mkfifo(ring.path.c_str(), 0600) == 0);
    CHECK(has(run({kProgram, "consume", "--name", ring.name}).err, "is not a file of yours"));
}

TEST_CASE("the consumer killed at random: no packet lost, one seen twice at most", "[packets]") {
    Scratch scratch;
    RingName ring;
    Program producer({kProgram, "produce", "--generate", "60000", "--name", ring.name});
    REQUIRE(eventually(exists, ring.path));
    uint64_t expected = 0;
    for (int kills = 0;; ++kills) {
        const std::string file = scratch.path + "/" + std::to_string(kills);
        Program consumer(
            {"sh", "-c", "exec " + kTyped + " consume --pipe --name " + ring.name + " > " + file});
        Result end;
        if (kills < 12) {
            static size_t enough;  // bytes
            enough = 1 + random_number() % 300000;
            REQUIRE(eventually(
                [](const std::string& path) {
                    struct stat it;
                    return stat(path.c_str(), &it) == 0 && static_cast<size_t>(it.st_size) > enough;
                },
                file));
            kill(consumer.pid(), SIGKILL);
        }
        end = consumer.finish();
        REQUIRE(end.status == (kills < 12 ? 128 + SIGKILL : 0));
        const std::vector<uint64_t> numbers = packet_numbers(contents(file));
        REQUIRE(numbers.size() > 0);
        REQUIRE(numbers[0] <= expected);
        REQUIRE(numbers[0] + 1 >= expected);
        for (size_t i = 0; i < numbers.size(); ++i) REQUIRE(numbers[i] == numbers[0] + i);
        const std::string goes_on = "goes on with packet " + std::to_string(numbers[0]);
        if (kills > 0) CHECK(has(end.err, goes_on));
        if (numbers[0] < expected) CHECK(has(end.err, goes_on + ", which may be seen twice\n"));
        expected = numbers.back() + 1;
        if (kills == 12) break;
    }
    CHECK(expected == 60000);
    CHECK(producer.finish().status == 0);
    CHECK(!exists(ring.path));
}

TEST_CASE("the producer killed: the consumer drains the ring and reports", "[packets]") {
    for (int i = 0; i < 8; ++i) {
        RingName ring;
        Program producer({kProgram, "produce", "--generate", "99999999", "--name", ring.name});
        REQUIRE(eventually(exists, ring.path));
        Program consumer({kProgram, "consume", "--pipe", "--name", ring.name});
        consumer.await_out(std::string("\1\0\0\0\0\0\0\0", 8));  // number 1: they are at work
        kill(producer.pid(), SIGKILL);
        CHECK(producer.finish().status == 128 + SIGKILL);
        const Result result = consumer.finish();
        CHECK(result.status == 1);
        CHECK(has(result.err, " died; all that it handed over is handled\n"));
        CHECK(number_after(result.err, "handled ") > 0);
        const std::vector<uint64_t> numbers = packet_numbers(result.out);
        for (size_t n = 0; n < numbers.size(); ++n) REQUIRE(numbers[n] == n);
        CHECK(!exists(ring.path));
    }
}

TEST_CASE("a consumer stopped before the ring is empty does not say that all is handled",
          "[packets]") {
    RingName ring;
    {
        Program producer({kProgram, "produce", "--generate", "99999999", "--name", ring.name});
        producer.await_err("the ring is full and nobody consumes");
        kill(producer.pid(), SIGKILL);
        producer.finish();
    }
    // Its output is not read before it is stopped, and less than the ring holds fits in between.
    Program consumer({kProgram, "consume", "--pipe", "--name", ring.name});
    consumer.await_out(std::string("\1\0\0\0\0\0\0\0", 8));
    kill(consumer.pid(), SIGINT);
    const Result result = consumer.finish();
    CHECK(result.status == 128 + SIGINT);
    CHECK(has(result.err, " packets wait in it\n"));
    CHECK(!has(result.err, "died"));
}

TEST_CASE("a producer that waits for room has handed over all that the ring holds", "[packets]") {
    RingName ring;
    const Words words = {kProgram, "produce", "--generate", "20", "--slots",
                         "9",      "--name",  ring.name};  // 9: no whole number of batches
    {
        Program producer(words);
        producer.await_err("the ring is full and nobody consumes");
        kill(producer.pid(), SIGKILL);
        producer.finish();
    }
    CHECK(has(run({kProgram, "consume", "--name", ring.name}).out, "handled 9 packets"));
}

TEST_CASE("a producer after a killed one completes the series", "[packets]") {
    RingName ring;
    const Words produce = {kProgram, "produce", "--generate", "5000", "--name", ring.name};
    {
        Program first(produce);
        first.await_err("the ring is full and nobody consumes; start: " + kTyped +
                        " consume --name " + ring.name + "\n");
        kill(first.pid(), SIGKILL);
        first.finish();
    }
    CHECK(exists(ring.path));  // kill -9 leaves the ring, and what is in it
    Program second(produce);
    second.await_err(": goes on with packet 1024\n");
    const Result consumed = run({kProgram, "consume", "--name", ring.name});
    CHECK(consumed.status == 0);
    CHECK(has(consumed.out, "handled 5000 packets"));
    const Result produced = second.finish();
    CHECK(produced.status == 0);
    CHECK(has(produced.out, "handed over 3976 packets"));
    CHECK(!exists(ring.path));
}

TEST_CASE("run leaves nothing behind and hangs on nothing, whoever is killed", "[packets]") {
    for (const bool parent : {true, false}) {
        Program both({kProgram, "--pipe"});
        both.write("at work\n");
        both.await_out("at work\n");
        const std::vector<pid_t> pids = children(both.pid());
        REQUIRE(pids.size() == 1);
        for (const pid_t pid : {both.pid(), pids[0]}) CHECK(ring_of(pid) == "(deleted)");
        kill(parent ? both.pid() : pids[0], SIGKILL);
        if (!parent) both.await_err("the child was killed: Killed\n");  // its input goes on
        CHECK(both.finish().status == (parent ? 128 + SIGKILL : 1));
        CHECK(eventually(process_gone, std::to_string(pids[0])));
    }
}

TEST_CASE("a stopped run hands over what it has, sums up and ends as stopped", "[packets]") {
    for (const int stop : {SIGINT, SIGTERM, SIGHUP}) {
        Program both({kProgram, "--pipe"});
        both.write("at work\n");
        both.await_out("at work\n");
        kill(both.pid(), stop);
        const Result result = both.finish();
        CHECK(result.status == 128 + stop);
        CHECK(has(result.err, "handled 1 packets, 8 bytes"));
    }
    // Nor does input without a pause keep it from that.
    for (const std::string input : {" --pipe < /dev/zero", " --pipe --generate 1000000000000"}) {
        Program endless({"sh", "-c", "exec " + kTyped + input + " > /dev/null"});
        REQUIRE(
            eventually([](const std::string& pid) { return children(std::stoi(pid)).size() == 1; },
                       std::to_string(endless.pid())));
        kill(endless.pid(), SIGINT);
        const Result ended = endless.finish();
        CHECK(ended.status == 128 + SIGINT);
        CHECK(has(ended.err, "handled "));
    }
    RingName ring;
    Program consumer({kProgram, "consume", "--pipe", "--name", ring.name});
    Program producer({kProgram, "produce", "--pipe", "--name", ring.name});
    producer.write("at work\n");
    consumer.await_out("at work\n");
    kill(producer.pid(), SIGINT);
    CHECK(producer.finish().status == 128 + SIGINT);
    CHECK(consumer.finish().status == 0);
    CHECK(!exists(ring.path));
}

TEST_CASE("a run whose consumer is killed while the ring is full says so", "[packets]") {
    for (const std::string input : {" --pipe < /dev/zero", " --generate 1000000000000"}) {
        Program both({"sh", "-c", "exec " + kTyped + input + " > /dev/null"});
        const std::string pid = std::to_string(both.pid());
        REQUIRE(eventually(
            [](const std::string& id) { return children(std::stoi(id)).size() == 1; }, pid));
        const pid_t consumer = children(both.pid()).at(0);
        kill(consumer, SIGSTOP);
        REQUIRE(eventually(sleeping, pid));  // such input never has it wait
        kill(consumer, SIGKILL);
        const Result result = both.finish();
        CHECK(result.status == 1);
        CHECK(has(result.err, "the child was killed: Killed\n"));
    }
}

TEST_CASE("a run that is stopped after its input has ended still handles all", "[packets]") {
    // 200,000 bytes: more than the pipe behind stdout holds, less than the ring and that pipe.
    const std::string all = random_bytes(200000);
    for (const int stop : {SIGTERM, SIGHUP}) {
        const std::string nohup = stop == SIGHUP ? "nohup " : "";
        Program both({"sh", "-c", "exec " + nohup + kTyped + " --pipe"});
        both.write(all);
        both.close_input();
        const std::string pid = std::to_string(both.pid());
        REQUIRE(eventually(has_left, pid));
        for (pid_t child : children(both.pid())) kill(child, stop);
        kill(both.pid(), stop);  // both, as Ctrl-C does
        const Result result = both.finish();
        CHECK(result.status == (stop == SIGHUP ? 0 : 128 + stop));
        CHECK((result.out == all));
        CHECK(has(result.err, "200000 bytes"));
    }
}

TEST_CASE("a run whose child does not come to its end is given up 10 seconds after the stop",
          "[packets]") {
    const Unread out;
    Traced both({kProgram, "--generate", "99999999", "--pipe"},
                [&] { dup2(open(out.path.c_str(), O_WRONLY | O_CLOEXEC), 1); });
    const auto until = [&](uint64_t call, uint64_t command) {
        return both
            .until([=](const Event& event) {
                return event.what == Event::enters && event.who->number == 0 &&
                       event.who->call == call &&
                       (call != SYS_futex || event.who->argument[1] == command);
            })
            .who;
    };
    Tracee* parent = until(SYS_futex, FUTEX_WAIT);  // the ring is full
    both.tracer.send(parent, SIGTERM);
    both.tracer.go_on(parent);
    parent = until(SYS_close, 0);  // it leaves the ring
    sleep(5);                      // of the ten seconds
    both.tracer.go_on(parent);
    CHECK(both.ends_within(0, 8000));
    const Result result = both.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, "producer_consumer: waitpid: the child keeps us waiting\n"));
}

TEST_CASE("a stop that comes before run knows its child limits the wait for it, too", "[packets]") {
    Traced both({kProgram, "--pipe"});
    Tracee* parent = both.until_fork().who;
    both.until_begin();  // the child is held
    both.tracer.send(parent, SIGTERM);
    both.tracer.go_on(parent);
    const Event limit = both.until([](const Event& event) {
#ifdef SYS_alarm
        if (event.what == Event::enters && event.who->call == SYS_alarm) return true;
#endif
        return event.what == Event::enters && event.who->call == SYS_setitimer;
    });
    CHECK(limit.who == parent);
}

TEST_CASE("a second signal ends a consumer that can write no more", "[packets]") {
    RingName ring;
    CHECK(run({kProgram, "produce", "--generate", "1000", "--name", ring.name}).status == 0);
    const Unread out;
    while (write(out.fd, "full", 4) > 0) continue;
    Program consumer(
        {"sh", "-c", "exec " + kTyped + " consume --pipe --name " + ring.name + " > " + out.path});
    REQUIRE(eventually(
        [](const std::string& path) {  // from there on it can only wait for that pipe
            return contents(path)[offsetof(Ring, seat) + sizeof(Seat) + offsetof(Seat, begun)] == 1;
        },
        ring.path));
    REQUIRE(eventually(sleeping, std::to_string(consumer.pid())));
    REQUIRE(eventually(
        [](const std::string& pid) {
            kill(std::stoi(pid), SIGINT);
            return process_gone(pid);
        },
        std::to_string(consumer.pid())));
    CHECK(consumer.finish().status == 128 + SIGINT);
}

TEST_CASE("a ring stays as long as its producer, and its name with it", "[packets]") {
    RingName ring;
    Program producer({kProgram, "produce", "--pipe", "--name", ring.name});
    for (const std::string line : {"one\n", "two\n"}) {
        Program consumer({kProgram, "consume", "--pipe", "--name", ring.name});
        producer.write(line);
        consumer.await_out(line);
        kill(consumer.pid(), SIGINT);
        CHECK(consumer.finish().status == 128 + SIGINT);
        CHECK(exists(ring.path));
    }
    CHECK(producer.finish().status == 0);
    CHECK(!exists(ring.path));
}

TEST_CASE("who leaves last removes no ring that has got its name meanwhile", "[packets]") {
    RingName ring;
    Program consumer({kProgram, "consume", "--pipe", "--name", ring.name});
    REQUIRE(eventually(exists, ring.path));
    const std::string moved = ring.path + ".moved";
    REQUIRE(rename(ring.path.c_str(), moved.c_str()) == 0);
    CHECK(run({kProgram, "produce", "--pipe", "--name", ring.name}, "theirs\n").status == 0);
    kill(consumer.pid(), SIGTERM);
    consumer.finish();
    unlink(moved.c_str());
    CHECK(run({kProgram, "consume", "--pipe", "--name", ring.name}).out == "theirs\n");
}

TEST_CASE("a full ring says once what is the matter", "[packets]") {
    const std::string nobody = "the ring is full and nobody consumes", nothing = "handled nothing";
    const auto times = [](const std::string& text, const std::string& sentence) {
        int count = 0;
        for (size_t at = 0; (at = text.find(sentence, at)) != std::string::npos; ++at) ++count;
        return count;
    };
    RingName lonely, ring;
    Program alone({kProgram, "produce", "--generate", "99999", "--name", lonely.name});
    Program producer({kProgram, "produce", "--generate", "99999999", "--name", ring.name});
    alone.await_err(nobody);
    producer.await_err(nobody);
    const Unread out;
    Program consumer(
        {"sh", "-c", "exec " + kTyped + " consume --pipe --name " + ring.name + " > " + out.path});
    producer.await_err(nothing);  // after 3 s
    sleep(1);  // in which both look up several times: what is measured, not a wait
    kill(consumer.pid(), SIGKILL);
    producer.await_err(nobody);
    for (Program* each : {&alone, &producer}) kill(each->pid(), SIGINT);
    const std::string all = producer.finish().err, other = alone.finish().err;
    CHECK(times(all, nobody) == 2);
    CHECK(times(all, nothing) == 1);
    CHECK(times(other, nobody) == 1);
    CHECK(times(other, nothing) == 0);
}

TEST_CASE("each time that the consumer is gone, a full ring says so", "[packets]") {
    RingName ring;
    Program producer({kProgram, "produce", "--generate", "99999999", "--name", ring.name});
    const std::string sentence = "the ring is full and nobody consumes";
    for (int i = 0; i < 3; ++i) {
        producer.await_err(sentence);
        // More bytes than the ring holds; then its output ends, and so does it.
        const Result consumer = shell(kTyped + " consume --pipe --name " + ring.name +
                                      " | head -c 4000000 > /dev/null");
        CHECK(has(consumer.err, "write(stdout): Broken pipe\n"));
    }
    producer.await_err(sentence);
}

TEST_CASE("an idle pair uses no processor time", "[packets]") {
    Program both({kProgram, "--udp", "0", "--pipe"});
    Client client(both);
    client.send("at work\n");
    both.await_out("at work\n");
    const std::string parent = std::to_string(both.pid());
    const std::vector<pid_t> pids = children(both.pid());
    const uint64_t before = processor_time(parent) + processor_time(std::to_string(pids.at(0)));
    if (before == 0) SKIP_BECAUSE("the kernel has no /proc/PID/schedstat");
    sleep(2);  // what is measured, not a wait for something
    CHECK(processor_time(parent) + processor_time(std::to_string(pids[0])) - before <
          10 * 1000 * 1000);
    kill(both.pid(), SIGINT);
    CHECK(both.finish().status == 0);
}

TEST_CASE("the ring goes on after its producer was killed", "[packets]") {
    SharedRing shared;
    const int killed = shared.run(kProducer, [](End* producer) {
        for (uint32_t i = 0; i < 3; ++i) {
            reserve(producer, 0)->data()[0] = static_cast<unsigned char>('a' + i);
            commit(producer, 1);  // seen, though nobody was woken
        }
        reserve(producer, 0)->data()[0] = 'd';  // not committed
        return kill(getpid(), SIGKILL) == -1;
    });
    REQUIRE(killed == 128 + SIGKILL);
    End consumer = shared.made;
    REQUIRE(ring_join(&consumer, shared.fd, kConsumer) == nullptr);
    for (const char expected : {'a', 'b', 'c'}) {
        Slot* slot = take(&consumer, 0);
        REQUIRE(slot != nullptr);
        CHECK(slot->length == 1);
        CHECK(slot->data()[0] == expected);
        release(&consumer);
    }
    CHECK(take(&consumer, 1) == nullptr);
    CHECK(consumer.other == kDied);
    const int left = shared.run(kProducer, [](End* producer) {
        const bool successor = producer->next == 3;
        commit(producer, 1);
        ring_leave(producer);
        return successor && find_side(producer->fd, producer->theirs().visits, kConsumer) == kHere;
    });
    CHECK(left == 0);
    CHECK(ring_waiting(shared.ring) == 1);
    REQUIRE(take(&consumer, 0) != nullptr);
    release(&consumer);
    CHECK(take(&consumer, kPatience * 2000) == nullptr);  // at once
    CHECK(consumer.other == kLeft);
    ring_leave(&consumer);
    CHECK(ring_waiting(shared.ring) == 0);
}

TEST_CASE("a waker that dies before it wakes costs a deadline, not all", "[packets]") {
    SharedRing shared;
    const pid_t consumer =
        shared.start(kConsumer, [](End* end) { return take(end, 300) != nullptr; });
    std::atomic<uint32_t>& asleep = shared.ring->seat[kConsumer].asleep;
    while (asleep == 0 || !sleeping(std::to_string(consumer))) usleep(1000);
    const int killed = shared.run(kProducer, [&](End* producer) {
        producer->mine().count = 1;
        asleep = 0;
        return kill(getpid(), SIGKILL) == -1;
    });
    CHECK(killed == 128 + SIGKILL);
    CHECK(SharedRing::end_of(consumer) == 0);
}

TEST_CASE("who cannot print keeps nobody from the ring", "[packets]") {
    // Its stderr is full, and it has something to say.
    const Unread err;
    const std::string page(4096, 'x');
    while (write(err.fd, page.data(), page.size()) > 0) continue;
    for (const std::string what : {"", " --size 7"}) {
        RingName ring;
        const std::string name = " --pipe --name " + ring.name;
        CHECK(shell("echo one | " + kTyped + " produce" + name).status == 0);
        Program mute({"sh", "-c", "exec " + kTyped + " produce" + what + name + " 2> " + err.path});
        REQUIRE(eventually(sleeping, std::to_string(mute.pid())));
        Program consumer({"sh", "-c", "exec " + kTyped + " consume" + name});
        consumer.await_out("one\n");
    }
}

TEST_CASE("who cannot print its summary has left the ring", "[packets]") {
    const Unread out;
    const std::string page(4096, 'x');
    while (write(out.fd, page.data(), page.size()) > 0) continue;
    const auto gone = [](const std::string& path) { return !exists(path); };
    RingName ring;
    const std::string name = " --name " + ring.name, to = name + " > " + out.path;
    Program producer({"sh", "-c", "exec " + kTyped + " produce --generate 5" + to});
    REQUIRE(eventually(exists, ring.path));
    Program consumer({"sh", "-c", "exec " + kTyped + " consume" + to});
    CHECK(eventually(gone, ring.path));
    for (Program* mute : {&producer, &consumer}) {
        CHECK(!process_gone(std::to_string(mute->pid())));
        kill(mute->pid(), SIGKILL);
    }
}

TEST_CASE("a packet that may be seen twice stays in doubt until it is handled", "[packets]") {
    SharedRing shared;
    const int produced = shared.run(kProducer, [](End* producer) {
        for (int i = 0; i < 2 && reserve(producer, 0); ++i) commit(producer, 1);
        ring_leave(producer);
        return true;
    });
    CHECK(produced == 0);
    const int killed = shared.run(kConsumer, [](End* consumer) {
        return !take(consumer, 0) || kill(getpid(), SIGKILL) == -1;
    });
    CHECK(killed == 128 + SIGKILL);
    const Seat& seat = shared.ring->seat[kConsumer];
    const auto in_doubt = [&] { return seat.begun != seat.count; };
    CHECK(in_doubt());
    End consumer = shared.made;
    REQUIRE(ring_join(&consumer, shared.fd, kConsumer) == nullptr);
    ring_leave(&consumer);  // without having handled anything
    CHECK(in_doubt());
    REQUIRE(ring_join(&consumer, shared.fd, kConsumer) == nullptr);
    CHECK(consumer.next == 0);
    REQUIRE(take(&consumer, 0) != nullptr);
    release(&consumer);
    CHECK(!in_doubt());
    ring_leave(&consumer);
}

TEST_CASE("a consumer killed while it has nothing leaves no doubt", "[packets]") {
    RingName ring;
    Program producer({kProgram, "produce", "--pipe", "--name", ring.name});
    const Words consume = {kProgram, "consume", "--pipe", "--name", ring.name};
    {
        Program first(consume);
        producer.write("one\n");
        first.await_out("one\n");
        // It has released that packet once it sleeps for the next: its state is S.
        REQUIRE(eventually(sleeping, std::to_string(first.pid())));
        kill(first.pid(), SIGKILL);
        first.finish();
    }
    producer.write("two\n");
    Program second(consume);
    CHECK(has(second.await_err("\n"), ": goes on with packet 1\n"));
    second.await_out("two\n");
    CHECK(producer.finish().status == 0);
    CHECK(second.finish().status == 0);
}

TEST_CASE("a wait in vain says who is there, and counts as a sleep", "[packets]") {
    SharedRing shared;
    End consumer = shared.made;
    REQUIRE(ring_join(&consumer, shared.fd, kConsumer) == nullptr);
    for (int i = 0; i < 3; ++i) CHECK(take(&consumer, 1) == nullptr);
    CHECK(consumer.other == kNever);
    CHECK(shared.ring->seat[kConsumer].slept == 3);
}

TEST_CASE("a sleeper is woken by what it waits for, not by its deadline", "[packets]") {
    for (const bool packet : {true, false}) {
        SharedRing shared;
        End producer = shared.made;
        REQUIRE(ring_join(&producer, shared.fd, kProducer) == nullptr);
        const pid_t child = shared.start(kConsumer, [packet](End* consumer) {
            const bool came = take(consumer, 3600 * 1000) != nullptr;
            if (!came) take(consumer, 0);  // nullptr means: ask again
            return came == packet && (came || consumer->other == kLeft);
        });
        while (shared.ring->seat[kConsumer].asleep == 0) usleep(100);
        REQUIRE(reserve(&producer, 0) != nullptr);
        if (packet) {
            commit(&producer, 1);
            publish(&producer);
        } else {
            ring_leave(&producer);
        }
        CHECK(SharedRing::end_of(child) == 0);
    }
}

TEST_CASE("a ring's size is computed in 64 bits, whatever size_t has", "[packets]") {
    CHECK(ring_bytes(kMostSlots, kMostSize) == sizeof(Ring) + (uint64_t{1} << 20) * (65536 + 64));
    CHECK(ring_bytes(1 << 16, 65500) > UINT32_MAX);
    CHECK(sizeof(Ring) == 192);  // in every program: a 32-bit one may join a 64-bit one
}

TEST_CASE("every header, whatever its bytes, is an error or what the bytes say", "[packets]") {
    // Three packets wait, in 8 slots of 120 bytes; the producer has left.
    RingName name;
    {
        SharedRing shared(8, 120);
        const int produced = shared.run(kProducer, [](End* producer) {
            for (int i = 0; i < 3; ++i) {
                memset(reserve(producer, 0)->data(), 'a' + i, 100);
                commit(producer, static_cast<uint32_t>(100 + i));
            }
            ring_leave(producer);
            return true;
        });
        REQUIRE(produced == 0);
        put(name.path, std::string(static_cast<const char*>(shared.memory), shared.size));
    }
    const std::string good = contents(name.path);
    const Scratch scratch;
    const auto try_it = [&](const std::string& bytes, const std::string& verb) {
        put(name.path, bytes);
        // What the bytes say is waiting.
        std::string waiting;
        uint64_t handed, handled;
        memcpy(&handed, &bytes[offsetof(Ring, seat) + offsetof(Seat, count)], 8);
        memcpy(&handled, &bytes[offsetof(Ring, seat) + sizeof(Seat) + offsetof(Seat, count)], 8);
        for (uint64_t n = handled; n < handed && n < handled + 8; ++n) {
            const size_t at = sizeof(Ring) + n % 8 * 128;
            uint32_t length;
            memcpy(&length, &bytes[at], 4);
            waiting += bytes.substr(at + sizeof(Slot), length);
        }
        const std::string in = scratch.path + "/in", out = scratch.path + "/out",
                          err = scratch.path + "/err";
        put(in, "more");
        put(out, "");
        put(err, "");
        Program program({"sh", "-c",
                         "exec " + kTyped + " " + verb + " --pipe --name " + name.name + " < " +
                             in + " > " + out + " 2> " + err});
        // It ends, or does what it can and says whom it waits for: then it is told to end.
        const std::string pid = std::to_string(program.pid());
        bool waits = false;
        for (int ms = 0; ms < kPatience * 1000 && !waits && !process_gone(pid); ++ms) {
            const std::string said = contents(err);
            waits = has(said, "the ring is full and nobody consumes") ||
                    (has(said, "nobody produces yet") && contents(out).size() >= waiting.size());
            usleep(1000);
        }
        kill(program.pid(), SIGINT);
        const int status = program.finish().status;
        const std::string printed = contents(out), said = contents(err);
        INFO(said);
        CHECK((status != 128 + SIGINT || waits));
        const bool refused = status == 1 && has(said, ": holds ") && printed == "";
        if (verb == "consume") {
            const bool died = status == 1 && has(said, "the producer died; ");
            CHECK((refused || status == 0 || died || waits));
            if (!refused) CHECK((printed == waiting));
        } else {
            CHECK((refused || status == 0 || waits));
            if (status == 0) CHECK(has(said, "handed over 1 packets, 4 bytes"));
        }
        unlink(name.path.c_str());
    };
    const std::string consume = "consume", produce = "produce";
    for (size_t at = 0; at < sizeof(Ring); ++at)
        for (const int change : {0x01, 0x80, 0xff, 0}) {
            std::string bytes = good;
            const int value = change == 0 ? 0 : bytes[at] ^ change;
            if (change == 0 && bytes[at] == 0) continue;
            bytes[at] = static_cast<char>(value);
            INFO("byte " << at << " is " << value);
            try_it(bytes, consume);
            if (change == 0x01 || change == 0xff) try_it(bytes, produce);
        }
    for (int i = 0; i < 60; ++i) {
        std::string bytes = good;
        for (size_t at = 16; at < sizeof(Ring); ++at)
            if (random_number() % 4 == 0) bytes[at] = static_cast<char>(random_number());
        try_it(bytes, i % 2 ? consume : produce);
    }
}

TEST_CASE("names in hints are words for the shell", "[packets]") {
    const std::string name = "/" + unique() + " it's", path = "/dev/shm" + name;
    const Result produced = run({kProgram, "produce", "--pipe", "--name", name}, "hello\n");
    CHECK(produced.status == 0);
    const std::string hint = "  handle them: ";
    const size_t at = produced.err.find(hint);
    REQUIRE(at != std::string::npos);
    const size_t from = at + hint.size();
    const std::string line = produced.err.substr(from, produced.err.find('\n', at) - from);
    CHECK(shell(line).out == "hello\n");  // as it stands: no packet is lost
    CHECK(!exists(path));
    put(path, "no ring");
    const Result refused = run({kProgram, "consume", "--name", name});
    const std::string removal = "  remove it, if nobody does: ";
    const size_t rm = refused.err.find(removal);
    REQUIRE(rm != std::string::npos);
    CHECK(shell(refused.err.substr(rm + removal.size())).status == 0);
    CHECK(!exists(path));
}

TEST_CASE("a consumer that is stopped is told of, while the ring is full and at the end",
          "[packets]") {
    const std::string sentence =
        "the consumer has handled nothing for 3 s: is it stopped, or its output not read?\n";
    Program full({kProgram, "--generate", "99999999"});
    Program ended({kProgram, "--pipe"});
    for (Program* both : {&full, &ended}) {
        const std::string pid = std::to_string(both->pid());
        REQUIRE(eventually(
            [](const std::string& parent) { return children(std::stoi(parent)).size() == 1; },
            pid));
    }
    ended.write("one\n");
    ended.await_out("one\n");
    const pid_t stopped[] = {children(full.pid()).at(0), children(ended.pid()).at(0)};
    for (const pid_t child : stopped) kill(child, SIGSTOP);
    ended.write("two\n");
    ended.close_input();
    full.await_err(sentence);
    ended.await_err(sentence);
    for (const pid_t child : stopped) kill(child, SIGCONT);
    kill(full.pid(), SIGINT);
    CHECK(full.finish().status == 128 + SIGINT);
    const Result result = ended.finish();
    CHECK(result.status == 0);
    CHECK(result.out == "one\ntwo\n");
}

TEST_CASE("nothing handled for 3 s means 3 s", "[packets]") {
    const Unread out;
    Program both({"sh", "-c", "exec " + kTyped + " --pipe > " + out.path});
    both.write(random_bytes(200000));
    both.close_input();
    REQUIRE(eventually(has_left, std::to_string(both.pid())));
    usleep(1200 * 1000);  // its parent looks each 0.25 s, and so the next time soon
    const long begun = Tracer::now();
    std::string room(65536, '\0');
    REQUIRE(read(out.fd, &room[0], room.size()) > 0);  // it handles some more
    both.await_err("the consumer has handled nothing for 3 s: ");
    CHECK(Tracer::now() - begun >= 3000);
    kill(both.pid(), SIGKILL);
}

// Each of the two in a PID namespace of its own, where it is process 1; /dev/shm is the same.
const Words kAlone = {"unshare", "-Urp", "--fork", "--mount-proc", "--kill-child", kProgram};

Words alone(const Words& more) {
    Words words = kAlone;
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST_CASE("process 1 of a PID namespace ends by a stop signal with its status", "[packets]") {
    if (run(alone({"--help"})).status != 0) SKIP_BECAUSE("unshare -Urp is not allowed here");
    for (const int number : {SIGINT, SIGTERM}) {
        Program both(alone({"--pipe"}));
        both.write("at work\n");
        both.await_out("at work\n");
        kill(children(both.pid()).at(0), number);
        const Result result = both.finish();
        CHECK(result.status == 128 + number);
        CHECK(has(result.err, "handled 1 packets, 8 bytes"));
    }
    // The second signal, when its output is stuck.
    RingName ring;
    CHECK(run({kProgram, "produce", "--generate", "1000", "--name", ring.name}).status == 0);
    Program consumer(alone({"consume", "--pipe", "--name", ring.name}));
    consumer.await_out(std::string("\1\0\0\0\0\0\0\0", 8));
    const std::string first = std::to_string(children(consumer.pid()).at(0));
    REQUIRE(eventually(
        [](const std::string& pid) {
            kill(std::stoi(pid), SIGTERM);
            return process_gone(pid);
        },
        first));
    CHECK(consumer.finish().status == 128 + SIGTERM);
}

TEST_CASE("the two learn of each other's death across PID namespaces", "[packets]") {
    if (run(alone({"--help"})).status != 0) SKIP_BECAUSE("unshare -Urp is not allowed here");
    RingName ring;
    const Words produce = alone({"produce", "--pipe", "--name", ring.name});
    const Words consume = alone({"consume", "--pipe", "--name", ring.name});
    Program producer(produce);
    REQUIRE(eventually(exists, ring.path));
    {
        Program first(consume);
        producer.write("one\n");
        first.await_out("one\n");
        // It is there, and so a second one is refused: from another namespace, too.
        CHECK(has(run(consume).err, ": has a consumer\n"));
        kill(children(first.pid()).at(0), SIGKILL);
        first.finish();
    }
    Program second(consume);
    producer.write("two\n");
    second.await_out("two\n");
    kill(children(producer.pid()).at(0), SIGKILL);
    producer.finish();
    const Result result = second.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, " died; all that it handed over is handled\n"));
    CHECK(!exists(ring.path));
}

// Kills the two ends of a ring at random moments and starts them anew, that many times. What lies
// beside the ring is what the outside world would know: which packets were handled.
void kill_at_random(uint32_t slots, int kills) {
    struct Outside {
        std::atomic<uint64_t> committed;  // that commit() has returned for
        std::atomic<uint64_t> handled;    // by a consumer
        std::atomic<uint64_t> twice, wrong;
    };
    SharedRing shared(slots, 64);
    void* memory =
        mmap(nullptr, sizeof(Outside), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    Outside* outside = new (memory) Outside();
    const auto produce = [&] {
        return shared.start(kProducer, [&](End* producer) {
            if (producer->next < outside->committed) outside->wrong = 1;  // one is lost
            for (uint32_t random = 1;; random = random * 747796405u + 2891336453u) {
                Slot* slot = reserve(producer, 20);
                if (!slot) continue;
                memset(slot->data(), static_cast<int>(producer->next % 251), 64);
                commit(producer, 64, static_cast<uint32_t>(producer->next));
                outside->committed = producer->next;
                if (random >> 28 == 0) publish(producer);
            }
            return true;
        });
    };
    const auto consume = [&] {
        return shared.start(kConsumer, [&](End* consumer) {
            bool doubt = consumer->mine().begun != consumer->next;
            for (;;) {
                Slot* slot = take(consumer, 20);
                if (!slot) continue;
                const uint64_t number = consumer->next;
                const unsigned char sum = static_cast<unsigned char>(number % 251);
                if (slot->length != 64 || slot->tag != static_cast<uint32_t>(number))
                    outside->wrong = 2;
                for (int i = 0; i < 64; ++i)
                    if (slot->data()[i] != sum) outside->wrong = 3;
                const uint64_t expected = outside->handled;
                if (number + 1 == expected && doubt)
                    ++outside->twice;
                else if (number != expected)
                    outside->wrong = 4;
                outside->handled = number + 1;
                release(consumer);
                doubt = false;
            }
            return true;
        });
    };
    pid_t ends[] = {produce(), consume()};
    int of_consumer = 0;
    for (int i = 0; i < kills && outside->wrong == 0; ++i) {
        alarm(kPatience);
        usleep(static_cast<useconds_t>(random_number() % 500));
        const size_t which = random_number() % 2;
        kill(ends[which], SIGKILL);
        REQUIRE(SharedRing::end_of(ends[which]) == 128 + SIGKILL);
        ends[which] = which == 0 ? produce() : consume();
        of_consumer += which == 1;
    }
    // Alone, the last consumer handles all that is in the ring.
    kill(ends[0], SIGKILL);
    SharedRing::end_of(ends[0]);
    const Ring* ring = shared.ring;
    for (int ms = 0; ms < kPatience * 1000 && ring_waiting(ring) > 0; ++ms) usleep(1000);
    kill(ends[1], SIGKILL);
    SharedRing::end_of(ends[1]);
    INFO(slots << " slots, " << kills << " kills");
    CHECK(outside->wrong == 0);
    CHECK(ring_waiting(ring) == 0);
    CHECK(outside->handled == ring->seat[kProducer].count);
    CHECK(outside->handled >= outside->committed);
    CHECK(outside->twice <= static_cast<uint64_t>(of_consumer));
    if (kills > 1000)
        WARN(slots << " slots: " << kills << " kills, " << outside->handled << " packets, "
                   << outside->twice << " seen twice");
    munmap(memory, sizeof(Outside));
}

TEST_CASE("both ends killed at random: none lost, none out of order", "[packets]") {
#ifdef __SANITIZE_ADDRESS__
    const int kills = 20;  // each starts a process anew, which then takes long
#else
    const int kills = 300;
#endif
    for (const uint32_t slots : {1, 2, 3, 64, 1024}) kill_at_random(slots, kills);
}

TEST_CASE("the same, many times", "[.kills]") {
    for (const uint32_t slots : {1, 2, 3, 64, 1024}) kill_at_random(slots, 5000);
}

// A run of the program under the tracer, in which call number `call` of process number `process`
// fails, or the process is killed there. Counted are its own calls, from prepare() on, but for
// those whose failure nobody can tell or do anything about.
struct Sweep {
    int status = -1;  // as the shell has it
    bool done = false, late = false;
    std::string out, err;
};

const std::set<uint64_t> kPassed = {
#ifdef SYS_alarm
    SYS_alarm,
#endif
    SYS_close,      SYS_munmap,  SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_rt_sigreturn,
    SYS_exit_group, SYS_getpid,  SYS_getppid,        SYS_gettid,       SYS_tgkill,
    SYS_getuid,     SYS_geteuid, SYS_prctl,          SYS_brk,          SYS_set_robust_list,
    SYS_setitimer,  SYS_statfs};  // up to glibc 2.33 shm_open asks by it where its directory is

// A sanitizer makes calls of its own, which may not fail.

Sweep sweep(const Words& words, int process, int call, int error) {
    const Scratch scratch;
    const std::string out = scratch.path + "/out", err = scratch.path + "/err";
    Sweep result;
    {
        Tracer tracer(words, kPatience, [&] {
            setsid();
            for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
            dup2(open(out.c_str(), O_WRONLY | O_CREAT, 0600), 1);
            dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0600), 2);
        });
        bool begun = false;
        int count = 0;
        for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who)) {
            if (event.what != Event::enters) continue;
            Tracee* who = event.who;
            begun = begun || who->call == SYS_fcntl;
            if (!begun || who->number != process || kPassed.count(who->call)) continue;
            if (++count != call) continue;
            result.done = true;
            if (error == 0)
                tracer.send(who, SIGKILL);
            else
                tracer.answer(who, -error);
        }
        result.late = tracer.late;
        const int status = tracer.tracees[0].status;
        result.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    result.out = contents(out);
    result.err = contents(err);
    return result;
}

TEST_CASE("run: each call failed once, and killed at once", "[packets]") {
    if (sanitized(kProgram)) SKIP_BECAUSE("a sanitizer is built in");
    const Words words = {kProgram, "--generate", "5", "--pipe", "--slots", "8"};
    const std::string all = run(words).out;
    for (const int process : {0, 1})
        for (const int error : {ENOMEM, 0}) {
            Sweep result;
            int call = 0;
            do {
                result = sweep(words, process, ++call, error);
                INFO("process " << process << ", call " << call << ", error " << error << ": "
                                << result.err);
                CHECK(!result.late);
                if (error == 0) {
                    CHECK(has(all, result.out));
                } else if (result.status == 0) {
                    CHECK((result.out == all));
                } else {
                    CHECK(result.status == 1);
                    CHECK(has(result.err, "producer_consumer: "));
                }
            } while (result.done && call < 200);
            CHECK(call > 5);
            CHECK(call < 200);
        }
}

TEST_CASE("produce and consume: each call failed once, and killed at once, and the next goes on",
          "[packets]") {
    if (sanitized(kProgram)) SKIP_BECAUSE("a sanitizer is built in");
    for (const std::string verb : {"produce", "consume"})
        for (const int error : {ENOMEM, 0}) {
            Sweep result;
            int call = 0;
            do {
                RingName ring;
                Words produce = {kProgram, "produce", "--generate", "5", "--name", ring.name};
                Words consume = {kProgram, "consume", "--pipe", "--name", ring.name};
                if (verb == "consume") CHECK(run(produce).status == 0);
                result = sweep(verb == "produce" ? produce : consume, 0, ++call, error);
                INFO(verb << ", call " << call << ", error " << error << ": " << result.err);
                CHECK(!result.late);
                // Up to glibc 2.33 shm_open calls pthread_once, which aborts when its futex fails.
                const bool theirs = has(result.err, "futex facility returned an unexpected error");
                if (error != 0 && result.status != 0 && !theirs) {
                    CHECK(result.status == 1);
                    CHECK(has(result.err, "producer_consumer: "));
                }
                std::vector<uint64_t> seen;
                if (verb == "consume") seen = packet_numbers(result.out);
                // If it was killed when all was done, there may be no ring for the next.
                if (verb == "produce") CHECK(run(produce).status == 0);
                if (exists(ring.path)) {
                    const Result rest = run(consume);
                    CHECK(rest.status == 0);
                    const std::vector<uint64_t> more = packet_numbers(rest.out);
                    if (!seen.empty() && !more.empty() && seen.back() == more.front()) {
                        CHECK(has(rest.err, ", which may be seen twice\n"));
                        seen.pop_back();
                    }
                    seen.insert(seen.end(), more.begin(), more.end());
                }
                CHECK(seen == std::vector<uint64_t>{0, 1, 2, 3, 4});
                CHECK(!exists(ring.path));
            } while (result.done && call < 200);
            CHECK(call > 5);
            CHECK(call < 200);
        }
}

TEST_CASE("what the kernel refuses of locks and of sleeping is said", "[packets]") {
    if (sanitized(kProgram)) SKIP_BECAUSE("a sanitizer is built in");
    const auto refused = [](uint64_t call, int operation) {
        const auto enters = [=](const Event& event) {
            return event.what == Event::enters && event.who->call == call &&
                   static_cast<int>(event.who->argument[1]) == operation;
        };
        int input[2];  // a packet, and no end
        REQUIRE((pipe2(input, O_CLOEXEC) == 0 && write(input[1], "x", 1) == 1));
        Traced run({kProgram, "--pipe"}, [=] { dup2(input[0], STDIN_FILENO); });
        Tracee* parent = run.until([](const Event& event) {  // it has its side
                                return event.what == Event::enters && event.who->number == 0 &&
                                       event.who->call == SYS_read &&
                                       event.who->argument[0] == STDIN_FILENO;
                            })
                             .who;
        Tracee* child = run.until_call(1, SYS_futex).who;  // it has said that it sleeps
        if (operation == FUTEX_WAKE) run.tracer.go_on(parent);
        if (operation == F_GETLK) run.tracer.go_on(child);
        run.tracer.answer(operation == FUTEX_WAIT ? child : run.until(enters).who, -EPERM);
        run.tracer.go_on(parent);
        run.tracer.go_on(child);
        const Result result = run.finish();
        for (int fd : input) close(fd);
        CHECK(result.status == 1);
        return result.err;
    };
    const std::string why = ": Operation not permitted\n";
    CHECK(has(refused(SYS_futex, FUTEX_WAIT), "futex(FUTEX_WAIT)" + why));
    CHECK(has(refused(SYS_futex, FUTEX_WAKE), "futex(FUTEX_WAKE)" + why));
    CHECK(has(refused(SYS_fcntl, F_GETLK), "fcntl(F_GETLK)" + why));
}

// Runs a consumer under the tracer and holds it twice: when it enters that call of fcntl(2) for the
// first time, and when it returns from it.
Sweep held_at(int command, const Words& words, const std::function<void()>& entry,
              const std::function<void()>& exit) {
    const Scratch scratch;
    const std::string out = scratch.path + "/out", err = scratch.path + "/err";
    Tracer tracer(words, kPatience, [&] {
        setsid();
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // it refuses to be traced
        dup2(open(out.c_str(), O_WRONLY | O_CREAT, 0600), 1);
        dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0600), 2);
    });
    Sweep result;
    for (Event event; (event = tracer.next()).what != Event::over; tracer.go_on(event.who)) {
        const bool enters = event.what == Event::enters, returns = event.what == Event::returns;
        if (result.done || (!enters && !returns) || event.who->call != SYS_fcntl) continue;
        if (static_cast<int>(event.who->argument[1]) != command) continue;
        (enters ? entry : exit)();
        result.done = returns;
    }
    result.late = tracer.late;
    const int status = tracer.tracees[0].status;
    result.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    result.out = contents(out);
    result.err = contents(err);
    return result;
}

TEST_CASE("a producer that leaves while we ask for it has not died", "[packets]") {
    // It has read that the producer is here. That leaves before the question for its lock is
    // answered; in the second case, another one comes before it looks again.
    for (const bool successor : {false, true}) {
        INFO((successor ? "with a successor" : "without"));
        RingName ring;
        const Words produce = {kProgram, "produce", "--pipe", "--name", ring.name};
        Program first(produce);
        REQUIRE(eventually(exists, ring.path));
        std::unique_ptr<Program> second;
        const Sweep result = held_at(
            F_GETLK, {kProgram, "consume", "--pipe", "--name", ring.name},
            [&] { CHECK(first.finish().status == 0); },
            [&] {
                if (!successor) return;
                // It stays for a second without a word.
                second = std::make_unique<Program>(Words{
                    "sh", "-c", "sleep 1 | " + kTyped + " produce --pipe --name " + ring.name});
                CHECK(eventually(
                    [](const std::string& path) {
                        return contents(path)[offsetof(Ring, seat) + offsetof(Seat, visits)] == 3;
                    },
                    ring.path));
            });
        CHECK(result.done);
        CHECK(result.status == 0);
        CHECK(!has(result.err, "died"));
        if (second) CHECK(second->finish().status == 0);  // whoever is the last removes it
        CHECK(!exists(ring.path));
    }
}

TEST_CASE("who joins while the last one leaves, which holds both sides, looks again", "[packets]") {
    RingName ring;
    CHECK(run({kProgram, "produce", "--pipe", "--name", ring.name}, "hello\n").status == 0);
    Traced joining({kProgram, "consume", "--pipe", "--name", ring.name});
    const auto locks = [](const Event& event) {
        return event.what == Event::enters && event.who->call == SYS_fcntl &&
               static_cast<int>(event.who->argument[1]) == F_SETLK;
    };
    Tracee* who = joining.until(locks).who;
    const int leaving = open(ring.path.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(lock_side(leaving, F_WRLCK, kProducer, 2));
    for (int tries = 0; tries < 2; ++tries) {
        joining.tracer.go_on(who);
        who = joining.until(locks).who;
    }
    close(leaving);
    joining.tracer.go_on(who);
    const Result result = joining.finish();
    CHECK(result.status == 0);
    CHECK(result.out == "hello\n");
    CHECK(!exists(ring.path));
}

TEST_CASE("a ring that is removed before we have our side of it is none", "[packets]") {
    RingName ring;
    const Words produce = {kProgram, "produce", "--pipe", "--name", ring.name};
    CHECK(run(produce, "early\n").status == 0);
    std::unique_ptr<Program> later;
    const Sweep result = held_at(
        F_SETLK, {kProgram, "consume", "--pipe", "--name", ring.name},
        [&] {
            // It has opened the ring, and another consumer empties and removes it.
            CHECK(run({kProgram, "consume", "--pipe", "--name", ring.name}).out == "early\n");
            CHECK(!exists(ring.path));
            later = std::make_unique<Program>(produce);
            later->write("late\n");
            later->close_input();
        },
        [] {});
    CHECK(later->finish().status == 0);
    CHECK(result.status == 0);
    CHECK(result.out == "late\n");
    CHECK(!exists(ring.path));
}

TEST_CASE("a header that is damaged after its check is of no consequence", "[packets]") {
    RingName ring;
    const std::string all = random_bytes(250);
    CHECK(run({kProgram, "produce", "--pipe", "--slots", "4", "--size", "100", "--name", ring.name},
              all)
              .status == 0);
    const auto damage = [&] {
        const int fd = open(ring.path.c_str(), O_WRONLY | O_CLOEXEC);
        const uint32_t most[] = {kMostSlots, kMostSize};
        CHECK(pwrite(fd, most, sizeof most, offsetof(Ring, slots)) == sizeof most);
        close(fd);
    };
    const Sweep result =
        held_at(F_SETLK, {kProgram, "consume", "--pipe", "--name", ring.name}, damage, [] {});
    CHECK(result.status == 0);
    CHECK((result.out == all));
    CHECK(has(result.err, "handled 3 packets, 250 bytes\nring of 4 slots"));
}
