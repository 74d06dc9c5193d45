// The three exchange programs, from outside. SHM_POSIX, MAP_POSIX and SHM_V name other programs to
// test instead of ours. What happens when calls fail and signals come: test_faults.cc.

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <random>
#include <sstream>

#include "exchange_object.h"
#include "traced.h"

namespace {

std::string any_mechanism() { return GENERATE("shm_posix", "map_posix", "shm_v"); }
std::string a_posix_mechanism() { return GENERATE("shm_posix", "map_posix"); }

// An error as every error should be: the program, what it did, why.
void check_error(const Result& result, const Object& object, int status = 1) {
    INFO(result.err);
    CHECK(result.status == status);
    CHECK(result.out.empty());
    CHECK(result.err.rfind(object.self + ": ", 0) == 0);
    CHECK(result.err.back() == '\n');
}

// The rest of the line after `hint`.
std::string after(const std::string& err, const std::string& hint) {
    const size_t start = err.find(hint);
    if (start == std::string::npos) return "false # no '" + hint + "' in " + err;
    const size_t from = start + hint.size();
    return err.substr(from, err.find('\n', from) - from);
}

const Words kNobody = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};

Words operator+(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

// A field of /proc/PID/status.
std::string field(pid_t pid, const std::string& key) {
    return after(contents("/proc/" + std::to_string(pid) + "/status"), key + ":\t");
}

// The default names, where a program that is not ours may use them.
std::unique_ptr<DefaultNames> usual_names() {
    const bool theirs = getenv("SHM_POSIX") || getenv("MAP_POSIX") || getenv("SHM_V");
    return theirs ? std::make_unique<DefaultNames>() : nullptr;
}

// Where a process has the object mapped; 0 if it has not.
uint64_t mapping(pid_t pid, const Object& object) {
    std::istringstream lines(contents("/proc/" + std::to_string(pid) + "/maps"));
    for (std::string line; std::getline(lines, line);)
        if (has(line, object.sysv ? "/SYSV" + object.name.substr(2) : object.path))
            return std::stoull(line, nullptr, 16);
    return 0;
}

}  // namespace

// These two ask nothing but --name, and not even that: a program of yours may use the usual names.

TEST_CASE("exchange prints the transcript and leaves nothing", "[exchange][transcript]") {
    Object object(any_mechanism());
    const auto names = usual_names();
    Scratch scratch;
    INFO(object.program);
    const Result result = run({object.program, "--name", object.name}, "", scratch.path);
    CHECK(result.out == transcript(result.out));
    CHECK(result.err == "");
    CHECK(result.status == 0);
    CHECK_FALSE(object.there());
    if (names) CHECK(names->take_back() == "");
    CHECK(shell("ls -A", scratch.path).out == "");
}

TEST_CASE("the child waits for a slow parent", "[exchange][transcript]") {
    Object object(any_mechanism());
    const auto names = usual_names();
    Scratch scratch;
    INFO(object.program);
    Traced slow({object.program, "--name", object.name},
                [&] { REQUIRE(chdir(scratch.path.c_str()) == 0); });
    const Event forked = slow.until_fork();
    CHECK_FALSE(slow.ends_within(1, 300));  // the parent stands all the while
    CHECK_FALSE(has(slow.out(), "Nellson"));
    slow.tracer.go_on(forked.who);
    const Result result = slow.finish();
    CHECK(result.out == transcript(forked.who->pid, forked.child->pid));
    CHECK(result.status == 0);
    if (names) CHECK(names->take_back() == "");
    CHECK(shell("ls -A", scratch.path).out == "");
}

TEST_CASE("the default names, as ls and ipcs show", "[write][defaults]") {
    DefaultNames names;
    if (!names.taken.empty()) SKIP_BECAUSE(names.taken + " exists already: not ours to touch");
    Scratch scratch;
    const std::string posix = program("SHM_POSIX", "shm_posix/shm_posix");
    CHECK(run({posix, "write"}, "", scratch.path).status == 0);
    CHECK(has(shell("ls -l /dev/shm/tmp").out, "-rw------- 1 "));
    CHECK(shell("stat -c %s /dev/shm/tmp").out == "100\n");
    for (const char* name : {"Nellson", "Daisy", "Robbie"})
        CHECK(has(shell("cat /dev/shm/tmp").out, name));
    CHECK(run({posix, "read"}).out == kItemLines);
    CHECK(shell("rm /dev/shm/tmp").status == 0);
    CHECK(run({posix, "read"}).err == "shm_posix: shm_open(/tmp): No such file or directory\n");

    const std::string map = program("MAP_POSIX", "map_posix/map_posix");
    CHECK(run({map, "write"}, "", scratch.path).status == 0);
    CHECK(shell("stat -c '%A %s' ./tmp.shm", scratch.path).out == "-rw------- 100\n");
    CHECK(run({map, "read"}, "", scratch.path).out == kItemLines);
    CHECK(shell("rm ./tmp.shm", scratch.path).status == 0);
    CHECK(run({map, "read"}, "", scratch.path).err ==
          "map_posix: open(./tmp.shm): No such file or directory\n");

    const std::string sysv = program("SHM_V", "shm_v/shm_v");
    CHECK(run({sysv, "write"}).status == 0);
    const char* row = "ipcs -m | awk '$1 == \"0x12345678\" {print $4, $5, $6}'";
    CHECK(shell(row).out == "644 100 0\n");
    CHECK(run({sysv, "read"}).out == kItemLines);
    CHECK(shell("ipcrm -M 0x12345678").status == 0);
    CHECK(shell(row).out == "");
    CHECK(run({sysv, "read"}).err == "shm_v: shmget(0x12345678): No such file or directory\n");
}

TEST_CASE("write and read: each in a process of its own", "[write][read]") {
    Object object(any_mechanism());
    const Result exchanged = object.run("exchange");  // the verb may be said
    CHECK(exchanged.out == transcript(exchanged.out));
    const Result written = object.run("write");
    CHECK(written.err + written.out == "");
    CHECK(written.status == 0);
    const std::string looks = object.looks();
    for (int i = 0; i < 2; ++i) {  // reading takes nothing away
        const Result read = object.run("read");
        CHECK(read.out == kItemLines);
        CHECK(read.err == "");
        CHECK(read.status == 0);
    }
    CHECK(object.looks() == looks);
    object.take_away();
    const Result gone = object.run("read");
    check_error(gone, object);
    CHECK(gone.err == object.self + ": " + object.opening + ": No such file or directory\n");
}

TEST_CASE("an object that exists is left alone, and the hints work", "[exchange][write]") {
    Object object(any_mechanism());
    const std::string verb = GENERATE("exchange", "write");
    REQUIRE(object.run("write").status == 0);
    const std::string before = object.looks();
    const Result refused = object.run(verb);
    check_error(refused, object);
    CHECK(has(refused.err, object.self + ": " + object.opening + ": File exists\n"));
    CHECK(object.looks() == before);
    const Result seen = shell(after(refused.err, "  look at it: "));
    CHECK(seen.status == 0);
    CHECK(has(seen.out, object.sysv ? object.name.substr(2) : object.path));
    CHECK(shell(after(refused.err, "  remove it: ")).status == 0);
    CHECK_FALSE(object.there());
    CHECK(object.run(verb).status == 0);
}

TEST_CASE("an object of another user: untouched, unread, and --name helps", "[planted]") {
    if (!can_be_others()) SKIP_BECAUSE("only root can give an object to another user");
    Object object(any_mechanism());
    DefaultNames names;  // one suite at a time tries the key that is proposed
    // The programs stand where nobody may run them.
    Scratch open;
    const std::string copy = open.path + "/" + object.self;
    std::filesystem::copy(object.program, copy);
    chmod(open.path.c_str(), 0755);
    chmod(copy.c_str(), 0755);
    if (!object.sysv) chmod(std::filesystem::path(object.path).parent_path().c_str(), 01777);

    const bool root = GENERATE(true, false);  // who comes later
    const Words words = (root ? Words{} : kNobody) + Words{copy};
    REQUIRE(object.run("write").status == 0);
    if (root) object.give_to(65534);
    const std::string before = object.looks();
    for (const char* verb : {"exchange", "write", "read"})
        check_error(run(words + Words{verb, "--name", object.name}), object);
    const Result read = run(words + Words{"read", "--name", object.name});
    if (root || object.sysv) CHECK(has(read.err, " of yours with 100 bytes\n"));
    const Result refused = run(words + Words{"write", "--name", object.name});
    CHECK(has(refused.err, "File exists\n"));
    CHECK_FALSE(has(refused.err, "remove"));
    const std::string hint = after(refused.err, "--name ");
    if (object.sysv) CHECK(hint == (root ? "0x12000000" : "0x1200fffe"));
    if (object.sysv && shmget(static_cast<key_t>(std::stoul(hint, nullptr, 0)), 0, 0) != -1)
        SKIP_BECAUSE("the proposed key " + hint + " is taken");
    std::string line;
    for (const std::string& word : words) line += quoted(word) + " ";
    CHECK(shell(line + "write --name " + hint).status == 0);
    CHECK(shell(line + "read --name " + hint).out == kItemLines);
    CHECK(object.looks() == before);
    if (object.sysv)
        CHECK(shell("ipcrm -M " + hint).status == 0);
    else
        CHECK(shell("rm " + (object.path[1] == 'd' ? "/dev/shm" + hint : hint)).status == 0);
}

TEST_CASE("a segment that another user made and gave away is refused", "[planted]") {
    if (!can_be_others()) SKIP_BECAUSE("only root can make a segment as another user");
    Object object("shm_v");
    // Items as they should be, but their maker may still write to them.
    Scratch scratch;
    const std::string copy = scratch.path + "/" + object.self;
    std::filesystem::copy(object.program, copy);
    chmod(scratch.path.c_str(), 0755);
    REQUIRE(run(kNobody + Words{copy, "write", "--name", object.name}).status == 0);
    object.give_to(0);
    const Result read = object.run("read");
    check_error(read, object);
    CHECK(has(read.err, " is not a segment of yours with 100 bytes\n"));

    // One that may not even be looked at.
    object.take_away();
    object.plant(std::string(100, 'x'));
    const Result refused = run(kNobody + Words{copy, "write", "--name", object.name});
    check_error(refused, object);
    CHECK(after(refused.err, "--name ") == "0x1200fffe");
    CHECK(run(kNobody + Words{copy, "read", "--name", object.name}).err ==
          object.self + ": shmctl(" + object.name + ", IPC_STAT): Permission denied\n");
}

TEST_CASE("a name that was taken, and is free when its object is looked at", "[exchange]") {
    Object object(any_mechanism());
    REQUIRE(object.run("write").status == 0);
    Traced late(object.words("exchange"));
    const Event refused = late.until([](const Event& event) {
        return event.what == Event::returns && event.who->result == -EEXIST;
    });
    object.take_away();
    late.tracer.go_on(refused.who);
    const Result result = late.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, object.opening + ": File exists\n"));
    CHECK(has(result.err, "  remove it: "));
}

TEST_CASE("no descriptor of the object would survive an exec", "[exchange][read]") {
    Object object(a_posix_mechanism());
    const std::string verb = GENERATE("exchange", "read");
    if (verb == "read") REQUIRE(object.run("write").status == 0);
    Traced running(object.words(verb));
    const Event opened = running.until([&](const Event& event) {
        return event.what == Event::returns && event.who->call == SYS_openat &&
               running.tracer.string(event.who, event.who->argument[1]) == object.path;
    });
    const std::string info = "/proc/" + std::to_string(opened.who->pid) + "/fdinfo/";
    const std::string flags =
        after(contents(info + std::to_string(opened.who->result)), "flags:\t");
    CHECK((std::stoul(flags, nullptr, 8) & O_CLOEXEC) != 0);
    running.tracer.go_on(opened.who);
    CHECK(running.finish().status == 0);
}

TEST_CASE("two at once: one wins, the other says so, 200 times", "[exchange]") {
    Object object(any_mechanism());
    for (int i = 0; i < 200; ++i) {
        Program first(object.words("exchange")), second(object.words("exchange"));
        const Result results[] = {first.finish(), second.finish()};
        REQUIRE((results[0].status == 0 || results[1].status == 0));
        for (const Result& result : results) {
            if (result.status == 0) {
                REQUIRE(result.out == transcript(result.out));
                REQUIRE(result.err == "");
            } else {
                REQUIRE(result.status == 1);
                REQUIRE(result.out == "");
                REQUIRE(has(result.err, object.opening + ": File exists\n"));
            }
        }
        REQUIRE_FALSE(object.there());
    }
}

TEST_CASE("while the name is there, a second one is refused; soon it is free", "[exchange]") {
    Object object(any_mechanism());
    Traced first(object.words("exchange"));
    const auto made = [&](const Event& event) {
        return event.what == Event::returns && object.there();
    };
    const Event holding = first.until(made);
    check_error(object.run("exchange"), object);
    first.tracer.go_on(holding.who);
    const Event forked = first.until_fork();
    CHECK_FALSE(object.there());
    const Result second = object.run("exchange");
    CHECK(second.out == transcript(second.out));
    first.tracer.go_on(forked.who);
    const Result result = first.finish();
    CHECK(result.out == transcript(result.out));
}

TEST_CASE("damaged bytes are refused and untouched", "[read][planted]") {
    Object object(any_mechanism());
    REQUIRE(object.run("write").status == 0);
    const std::string looks = object.looks(), good = looks.substr(looks.size() - 100);
    object.take_away();

    const auto with = [&](size_t at, const std::string& bytes) {
        std::string changed = good;
        return changed.replace(at, bytes.size(), bytes);
    };
    std::string random(100, '\0');
    std::mt19937 generator(20261123);
    for (char& byte : random) byte = static_cast<char>(generator() | 1);
    const size_t names = good.find("Nellson");
    const std::string other = "these bytes are not of this program\n", none = "no items yet: ";
    struct Case {
        std::string bytes, reason;
    };
    std::vector<Case> cases = {
        {"8 bytes!", " of yours with 100 bytes\n"},
        {good.substr(0, 99), " of yours with 100 bytes\n"},
        {random, other},
        {std::string(4096, 'x'), other},
        {std::string(100, '\0'), none},
        {std::string(4096, '\0'), none},
        {with(0, "\1"), other},
        {with(4, std::string(4, '\0')), other},
        {with(4, std::string("\4\0\0\0", 4)), other},
        {with(4, std::string("\x00\xca\x9a\x3b", 4)), other},
        {with(4, "\xff\xff\xff\xff"), other},
        {with(names, std::string(16, 'N')), "the name of item 1 has no end\n"},
        {with(names + 32, std::string(16, 'N')), "the name of item 3 has no end\n"},
    };
    if (!object.sysv) cases.push_back({"", " of yours with 100 bytes\n"});
    for (const Case& planted : cases) {
        INFO(planted.reason);
        object.plant(planted.bytes);
        const std::string before = object.looks();
        check_error(object.run("exchange"), object);
        check_error(object.run("write"), object);
        const Result read = object.run("read");
        check_error(read, object);
        CHECK(has(read.err, planted.reason));
        CHECK(object.looks() == before);
        object.take_away();
    }
    object.plant(good + std::string(3996, 'x'));  // larger is no harm
    CHECK(object.run("read").out == kItemLines);
}

TEST_CASE("what is no file under the name is refused and untouched", "[read][planted]") {
    Object object(a_posix_mechanism());
    Scratch elsewhere;
    const std::string victim = elsewhere.path + "/victim";
    // A link leads to good items, and is refused all the same.
    REQUIRE(object.run("write").status == 0);
    std::filesystem::copy(object.path, victim);
    object.take_away();
    const std::string precious = contents(victim);
    const std::string planted =
        GENERATE("link", "dangling link", "FIFO", "directory", "device", "socket");
    INFO(planted);
    const char* path = object.path.c_str();
    if (planted == "link") REQUIRE(symlink(victim.c_str(), path) == 0);
    if (planted == "dangling link") REQUIRE(symlink("/nowhere", path) == 0);
    if (planted == "FIFO") REQUIRE(mkfifo(path, 0600) == 0);
    if (planted == "directory") {  // a long one: its size is not in bytes of ours
        REQUIRE(mkdir(path, 0700) == 0);
        for (char name = 'a'; name < 'k'; ++name) put(object.path + "/" + name, "");
    }
    if (planted == "device" && mknod(path, S_IFCHR | 0600, makedev(1, 5)) == -1)
        SKIP_BECAUSE("no device can be made here");
    if (planted == "socket") {
        sockaddr_un address = {AF_UNIX, {}};
        strcpy(address.sun_path, path);
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        close(fd);
    }
    const std::string before = object.looks();
    for (const char* verb : {"exchange", "write", "read"}) check_error(object.run(verb), object);
    if (planted == "FIFO" || planted == "directory")
        CHECK(has(object.run("read").err, " a file of yours with 100 bytes\n"));
    // The link is ours, wherever it leads.
    if (planted == "link" && can_be_others()) REQUIRE(chown(victim.c_str(), 65534, 65534) == 0);
    const std::string hint = after(object.run("write").err, "remove it: ");
    CHECK(object.looks() == before);
    if (has(planted, "link")) CHECK(shell(hint).status == 0);
    CHECK(contents(victim) == precious);
    std::filesystem::remove_all(path);
}

TEST_CASE("wrong usage is a sentence, and makes nothing", "[usage]") {
    Object object(any_mechanism());
    const Words wrong[] = {{"boo"},    {"--boo"},     {"read", "write"}, {"--name"},
                           {"resize"}, {"remove"},    {"write", "x"},    {"-x"},
                           {""},       {"--explain"}, {"read", ""}};
    for (const Words& words : wrong) {
        const Result refused = run(Words{object.program, "--name", object.name} + words);
        check_error(refused, object, 2);
        CHECK(std::count(refused.err.begin(), refused.err.end(), '\n') == 1);
        CHECK_FALSE(object.there());
    }
    Scratch scratch;
    Words bad = {""};
    if (object.sysv)
        bad = bad + Words{"no-number", "0x",  "12abc",       "-5",  "-18446744073709551615",
                          "0",         "0x0", "0x123456789", "/tmp"};
    else if (object.path[1] == 'd')
        bad = bad + Words{"x", "./x"};
    for (const char* verb : {"exchange", "write", "read"})
        for (const std::string& name : bad)
            check_error(run({object.program, verb, "--name", name}, "", scratch.path), object, 2);
    // What the kernel refuses: as it says it.
    Words refused = {"/" + std::string(300, 'x'), "/shm-test/inside"};
    if (object.path[1] == 'd') refused.push_back("/");
    if (object.sysv) refused.clear();
    for (const char* verb : {"exchange", "write", "read"})
        for (const std::string& name : refused) {
            const Result result = run({object.program, verb, "--name", name}, "", scratch.path);
            check_error(result, object);
            CHECK(has(result.err, "open(" + name + "): "));
        }
    CHECK(shell("ls -A", scratch.path).out == "");
    const Result help = run({object.program, "--help"});
    CHECK(help.status == 0);
    CHECK(help.err == "");
    for (const char* word : {"exchange", "write", "read", "--name NAME", "Exit status"})
        CHECK(has(help.out, word));
    CHECK(has(help.out, object.sysv ? "0x12345678" : object.path[1] == 'd' ? "/tmp" : "./tmp.shm"));
    check_error(shell(quoted(object.program) + " --help >/dev/full"), object);
}

TEST_CASE("names that the shell would take apart", "[usage]") {
    Object object(a_posix_mechanism());
    Scratch scratch;
    const std::string odd = object.name + GENERATE(" $(touch x); `touch x` \"*\"", "it's", "\n-");
    const std::string path = object.path + odd.substr(object.name.size());
    CHECK(run({object.program, "--name", odd}).status == 0);
    REQUIRE(run({object.program, "write", "--name", odd}).status == 0);
    CHECK(run({object.program, "read", "--name", odd}).out == kItemLines);
    const Result refused = run({object.program, "write", "--name", odd});
    CHECK(refused.status == 1);
    CHECK(has(refused.err, "(" + odd + "): File exists\n"));
    if (has(odd, "'")) {  // no hint rather than a wrong one
        CHECK_FALSE(has(refused.err, "remove it"));
        CHECK(unlink(path.c_str()) == 0);
    } else {
        CHECK(
            shell(refused.err.substr(refused.err.find("remove it: ") + 11), scratch.path).status ==
            0);
    }
    CHECK_FALSE(exists(path));
    CHECK(shell("ls -A", scratch.path).out == "");
    if (object.path[1] == 'd') return;
    // rm would take it for an option.
    for (const char* verb : {"exchange", "write", "write"}) {
        const Result result = run({object.program, verb, "--name", "-rf"}, "", scratch.path);
        CHECK_FALSE(has(result.err, "remove"));
    }
    CHECK(shell("ls -A", scratch.path).out == "-rf\n");
}

TEST_CASE("stdout closed, full or without a reader is an error", "[exchange][read]") {
    Object object(any_mechanism());
    Scratch scratch;
    const std::string no_reader = "mkfifo p; exec 3<>p 4>p 3<&-; ";
    for (const std::string verb : {"exchange", "read"}) {
        const std::string line = quoted(object.program) + " " + verb + " --name " + object.name;
        const bool stdbuf = shell("command -v stdbuf").status == 0 && !sanitized(object.program);
        for (const std::string& redirected :
             {line + " >&-", line + " >/dev/full",
              (stdbuf ? "stdbuf -oL " : "") + line + " >/dev/full",  // as on a terminal
              no_reader + line + " >&4; s=$?; rm p; exit $s"}) {
            INFO(redirected);
            if (verb == "read") REQUIRE(object.run("write").status == 0);
            const Result result = shell(redirected, scratch.path);
            CHECK(result.status == 1);
            CHECK(has(result.err, object.self + ": write(stdout): "));
            CHECK(object.there() == (verb == "read"));
            object.take_away();
        }
    }
}

TEST_CASE("closed standard streams: the object is never taken for one", "[exchange][write][read]") {
    Object object(any_mechanism());
    const std::string verb = GENERATE("exchange", "write", "read");
    for (int closed = 0; closed < 8; ++closed) {
        std::string line = quoted(object.program) + " " + verb + " --name " + object.name;
        for (int fd = 0; fd < 3; ++fd)
            if (closed & 1 << fd) line += " " + std::to_string(fd) + ">&-";
        INFO(line);
        if (verb == "read") REQUIRE(object.run("write").status == 0);
        const Result result = shell(line);
        const bool mute = closed & 2 && verb != "write";
        CHECK(result.status == (mute ? 1 : 0));
        if (closed & 2 || verb == "write")
            CHECK(result.out == "");
        else
            CHECK(result.out == (verb == "read" ? kItemLines : transcript(result.out)));
        CHECK(has(result.err, "write(stdout): Bad file descriptor\n") == (mute && !(closed & 4)));
        CHECK(object.there() == (verb != "exchange"));
        if (verb != "exchange") {
            CHECK(object.run("read").out == kItemLines);
            CHECK(object.looks().substr(object.looks().size() - 12) == std::string(12, '\0'));
        }
        object.take_away();
    }
}

TEST_CASE("signals that were ignored or held on entry stay so", "[signal]") {
    Object object(any_mechanism());
    // SIGHUP as nohup has it, SIGINT as a script's `&`, SIGCHLD as some parents leave it.
    Traced running(object.words("exchange"), [] {
        for (int number : {SIGHUP, SIGINT, SIGCHLD}) signal(number, SIG_IGN);
        sigset_t term;
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_SETMASK, &term, nullptr);
    });
    const Event forked = running.until_fork();
    running.tracer.go_on(forked.who);
    // Each at its next call of its own: since glibc 2.41 fork itself holds all signals meanwhile.
    int asked = 0;
    for (Event event; asked < 2 && (event = running.tracer.next()).what != Event::over;) {
        const uint64_t own = event.who == forked.who ? SYS_wait4 : SYS_prctl;
        if (event.what == Event::enters && event.who->call == own) {
            CHECK(field(event.who->pid, "SigBlk") == "0000000000004000");
            ++asked;
        } else {
            running.tracer.go_on(event.who);
        }
    }
    CHECK(asked == 2);
    for (int number : {SIGHUP, SIGINT, SIGTERM}) running.tracer.send(forked.who, number, true);
    for (Tracee* it : {forked.who, forked.child}) running.tracer.go_on(it);
    const Result result = running.finish();
    CHECK(result.status == 0);
    CHECK(result.err == "");
    CHECK(result.out == transcript(forked.who->pid, forked.child->pid));
    CHECK_FALSE(object.there());
}

TEST_CASE("nohup: the hang-up is ignored, the exchange goes on", "[signal]") {
    Object object(any_mechanism());
    Traced running(Words{"nohup"} + object.words("exchange"));
    const Event forked = running.until_fork();
    running.tracer.send(forked.who, SIGHUP);
    running.tracer.go_on(forked.who);
    const Result result = running.finish();
    CHECK(result.status == 0);
    CHECK(result.out == transcript(result.out));
}

TEST_CASE("what was begun is finished: write holds signals back", "[signal]") {
    Object object(any_mechanism());
    Traced running(object.words("write"));
    const Event made = running.until(
        [&](const Event& event) { return event.what == Event::returns && object.there(); });
    running.tracer.send(made.who, SIGTERM);
    running.tracer.go_on(made.who);
    CHECK(running.finish().status == 0);
    CHECK(object.run("read").out == kItemLines);
}

TEST_CASE("kill -9 of the parent: the child goes too, and nothing stays", "[signal]") {
    Object object(any_mechanism());
    Traced running(object.words("exchange"));
    const Event forked = running.until_fork();
    const bool early = GENERATE(true, false);  // before the child could ask for that
    Tracee* child = running.until_begin().who;
    if (!early) {
        running.tracer.go_on(child);
        child = running.until_call(1, SYS_futex).who;
    }
    running.tracer.send(forked.who, SIGKILL);
    running.until(
        [](const Event& event) { return event.what == Event::ended && event.who->number == 0; });
    running.tracer.go_on(child);
    CHECK(running.ends_within(1, 10000));
    const Result result = running.finish();
    CHECK(result.status == 128 + SIGKILL);
    CHECK(result.out == "");
    CHECK(result.err == (early ? object.self + ": the parent is gone\n" : ""));
    CHECK_FALSE(object.there());
}

TEST_CASE("kill -9 of the child: the parent says so", "[signal]") {
    Object object(any_mechanism());
    Traced running(object.words("exchange"));
    const Event forked = running.until_fork();
    running.tracer.send(forked.child, SIGKILL);
    running.tracer.go_on(forked.who);
    const Result result = running.finish();
    CHECK(result.status == 1);
    CHECK(result.err == object.self + ": the child was killed: Killed\n");
    CHECK(result.out == "");
    CHECK_FALSE(object.there());
}

TEST_CASE("a stopped child makes the parent wait, and goes on with SIGCONT", "[signal]") {
    Object object(any_mechanism());
    Traced running(object.words("exchange"));
    const Event forked = running.until_fork();
    running.tracer.go_on(forked.child);
    const Event waiting = running.until_call(1, SYS_futex);
    running.tracer.send(waiting.who, SIGSTOP);
    running.tracer.go_on(waiting.who);
    running.tracer.go_on(
        running.until([](const Event& event) { return event.what == Event::stops; }).who);
    running.tracer.go_on(forked.who);
    CHECK_FALSE(running.ends_within(0, 300));
    CHECK(running.out() == "");
    running.tracer.send(waiting.who, SIGCONT);
    const Result result = running.finish();
    CHECK(result.status == 0);
    CHECK(result.out == transcript(forked.who->pid, waiting.who->pid));
}

TEST_CASE("a child that nobody wakes gives up after 10 seconds", "[exchange]") {
    Object object(any_mechanism());
    Traced running(object.words("exchange"));
    const Event forked = running.until_fork();
    running.tracer.go_on(forked.child);
    Tracee* child = running.until_call(1, SYS_futex).who;
    timespec now, deadline;
    clock_gettime(CLOCK_REALTIME, &now);
    const std::string bytes = running.tracer.memory(child, child->argument[3], sizeof deadline);
    REQUIRE(bytes.size() == sizeof deadline);
    memcpy(&deadline, bytes.data(), sizeof deadline);
    const double seconds =
        double(deadline.tv_sec - now.tv_sec) + (deadline.tv_nsec - now.tv_nsec) * 1e-9;
    CHECK(seconds > 5);
    CHECK(seconds <= 10);
    running.tracer.answer(child, -ETIMEDOUT);  // as if they had passed
    running.tracer.go_on(child);
    CHECK(running.ends_within(1, 10000));
    running.tracer.go_on(forked.who);
    const Result result = running.finish();
    CHECK(result.status == 1);
    CHECK(result.err == object.self + ": sem_timedwait(ready, 10 s): Connection timed out\n");
    CHECK(has(result.out, " get child status:1\n"));
}

TEST_CASE("beyond the largest file allowed: an error, and nothing stays", "[failure]") {
    Object object(a_posix_mechanism());
    const std::string verb = GENERATE("exchange", "write");
    const Result result = shell("ulimit -f 0; exec " + quoted(object.program) + " " + verb +
                                " --name " + object.name);
    check_error(result, object);
    CHECK(result.err == object.self + ": ftruncate(" + object.name + "): File too large\n");
    CHECK_FALSE(object.there());
}

TEST_CASE("a file that others cut short while it is mapped ends the program by SIGBUS",
          "[failure]") {
    Object object(a_posix_mechanism());
    if (sanitized(object.program)) SKIP_BECAUSE("a sanitizer takes SIGBUS itself");
    Traced running(object.words("exchange"));
    const Event made = running.until(
        [&](const Event& event) { return event.what == Event::returns && object.there(); });
    const int fd = open(object.path.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(fd != -1);
    running.tracer.go_on(made.who);
    const Event forked = running.until_fork();
    REQUIRE(ftruncate(fd, 0) == 0);
    close(fd);
    running.tracer.go_on(forked.who);
    CHECK(running.finish().status == 128 + SIGBUS);
    CHECK_FALSE(object.there());
}

TEST_CASE("no space left: an error instead of SIGBUS, and nothing stays", "[failure]") {
    Object object(a_posix_mechanism());
    const std::string verb = GENERATE("exchange", "write");
    Scratch scratch;
    const std::string place = object.path[1] == 'd' ? "/dev/shm" : scratch.path;
    const std::string name = object.path[1] == 'd' ? object.name : place + "/object";
    const std::string full = "mount -t tmpfs -o size=4k full " + place +
                             " && head -c 4096 /dev/zero >" + place + "/filler";
    if (run({"unshare", "-Urm", "sh", "-c", full}).status != 0) SKIP_BECAUSE("no namespaces here");
    const Result result = run({"unshare", "-Urm", "sh", "-c",
                               full + "; " + quoted(object.program) + " " + verb + " --name " +
                                   name + "; s=$?; ls -A " + place + "; exit $s"});
    CHECK(result.out == "filler\n");
    CHECK(result.err == object.self + ": posix_fallocate(" + name + "): No space left on device\n");
    CHECK(result.status == 1);
}

TEST_CASE("bytes that change while they are printed are checked and printed from a copy",
          "[read][planted]") {
    Object object(any_mechanism());
    if (shell("command -v stdbuf").status != 0) SKIP_BECAUSE("stdbuf is not installed");
    if (sanitized(object.program))
        SKIP_BECAUSE("a sanitizer is built in: stdbuf's library would come before it");
    REQUIRE(object.run("write").status == 0);
    // Each line is a call now, so that it can be held between two.
    Traced reading(Words{"stdbuf", "-o0"} + object.words("read"));
    const Event first = reading.until_call(0, SYS_write);
    const std::string looks = object.looks();
    CHECK(has(shell("cat /proc/" + std::to_string(first.who->pid) + "/maps").out, "r--s"));
    CHECK_FALSE(has(shell("cat /proc/" + std::to_string(first.who->pid) + "/maps").out, "rw-s"));
    object.overwrite(4, std::string(52, '\x7f'));
    REQUIRE(object.looks() != looks);
    reading.tracer.go_on(first.who);
    const Result result = reading.finish();
    CHECK(result.out == kItemLines);
    CHECK(result.status == 0);
}

TEST_CASE("what each process has: the mapping and no descriptor, and at the end not even that",
          "[exchange]") {
    Object object(any_mechanism());
    Traced running(object.words("exchange"));
    const Event forked = running.until_fork();
    for (const Tracee* it : {forked.who, forked.child}) {
        const std::string here = "/proc/" + std::to_string(it->pid);
        CHECK_FALSE(has(shell("ls -l " + here + "/fd").out, object.path));
        CHECK(mapping(it->pid, object) != 0);
    }
    running.tracer.go_on(forked.who);
    const Event last = running.until_call(0, SYS_write);
    CHECK(mapping(last.who->pid, object) == 0);
    running.tracer.go_on(last.who);
    CHECK(running.finish().status == 0);
}

TEST_CASE("a semaphore that somebody has raised too often", "[failure]") {
    Object object(any_mechanism());
    Traced running(object.words("exchange"));
    const Event forked = running.until_fork();
    Tracee* child = running.until_begin().who;  // it stands, and takes nothing back
    const uint64_t items = mapping(forked.who->pid, object);
    // SEM_VALUE_MAX where glibc has the value [sem_post(3): EOVERFLOW].
    REQUIRE(running.tracer.set_memory(forked.who, items + 56, std::string("\xff\xff\xff\x7f", 4)));
    running.tracer.go_on(forked.who);
    CHECK(running.ends_within(0, 10000));
    running.tracer.go_on(child);
    const Result result = running.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, object.self + ": sem_post(ready): Value too large"));
}

TEST_CASE("the mode does not depend on the umask", "[write]") {
    Object object(any_mechanism());
    const std::string mask = GENERATE("0", "077");
    const std::string line = "umask " + mask + "; " + quoted(object.program) + " ";
    REQUIRE(shell(line + "write --name " + object.name).status == 0);
    if (object.sysv) {
        shmid_ds it;
        REQUIRE(shmctl(object.id(), IPC_STAT, &it) == 0);
        CHECK((it.shm_perm.mode & 0777) == 0644);
    } else {
        CHECK(shell("stat -c %a " + object.path).out == "600\n");
    }
    CHECK(shell(line + "read --name " + object.name).out == kItemLines);
    object.take_away();
    const Result result = shell(line + "--name " + object.name);
    CHECK(result.out == transcript(result.out));
}

TEST_CASE("as process 1 of a PID namespace", "[exchange]") {
    Object object(any_mechanism());
    const Words alone = {"unshare", "-Urp", "--fork", "--mount-proc"};
    if (run(alone + Words{"true"}).status != 0) SKIP_BECAUSE("no namespaces here");
    const Result result = run(alone + object.words("exchange"));
    CHECK(result.out == transcript(1, 2));
    CHECK(result.err == "");
    CHECK(result.status == 0);
    CHECK_FALSE(object.there());
}

TEST_CASE("32-bit and 64-bit programs meet on one object", "[read]") {
    const std::string mechanism = any_mechanism();
    Object object(mechanism);
    if (getenv("SHM_POSIX") || getenv("MAP_POSIX") || getenv("SHM_V"))
        SKIP_BECAUSE("only our own programs are built again");
    Scratch scratch;
    const std::string source = quoted(root()) + "/" + mechanism + "/" + mechanism + ".cc";
    const char* given = getenv("CXX");
    const std::string compiler = given ? given : "c++";
    const std::string other = scratch.path + "/" + mechanism;
    if (shell("echo 'int main() {}' | " + compiler + " -m32 -x c++ -o " + other + " -").status != 0)
        SKIP_BECAUSE(compiler + " -m32 does not build (g++-multilib)");
    if (run({other}).status != 0) SKIP_BECAUSE("this kernel runs no 32-bit programs");
    REQUIRE(
        shell(compiler + " -std=c++17 -m32 -o " + other + " " + source + " -pthread -lrt").status ==
        0);
    const Result exchanged = run({other, "--name", object.name});
    CHECK(exchanged.out == transcript(exchanged.out));
    for (const bool swapped : {false, true}) {
        REQUIRE(run({swapped ? other : object.program, "write", "--name", object.name}).status ==
                0);
        CHECK(run({swapped ? object.program : other, "read", "--name", object.name}).out ==
              kItemLines);
        object.take_away();
    }
}

TEST_CASE("valgrind finds nothing", "[valgrind]") {
    if (shell("command -v valgrind").status != 0) SKIP_BECAUSE("valgrind is not installed");
    Object object(any_mechanism());
    if (sanitized(object.program)) SKIP_BECAUSE("a sanitizer is built in");
    for (const char* verb : {"exchange", "write", "read"}) {
        const Result result = run(
            Words{"valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--track-fds=no"} +
            object.words(verb));
        INFO(result.err);
        CHECK(result.status == 0);
        CHECK(result.err == "");
    }
}
