// The three exchange programs, from outside. SHM_POSIX, MAP_POSIX and SHM_V name other programs to
// test instead of ours.

#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "support.h"

namespace {

const char kItemLines[] = "There is 3 item in the shm\n1: Nellson\n2: Daisy\n3: Robbie\n";

// One mechanism's program and one object of its own, looked at from outside.
class Object {
  public:
    explicit Object(const std::string& mechanism)
        : sysv(mechanism == "shm_v"),
          program(mechanism == "shm_posix"   ? ::program("SHM_POSIX", "shm_posix/shm_posix")
                  : mechanism == "map_posix" ? ::program("MAP_POSIX", "map_posix/map_posix")
                                             : ::program("SHM_V", "shm_v/shm_v")),
          self(program.substr(program.rfind('/') + 1)),
          name(sysv                       ? unique_key()
               : mechanism == "shm_posix" ? "/" + unique()
                                          : scratch_.path + "/object.shm"),
          path(mechanism == "shm_posix" ? "/dev/shm" + name : name),
          where(sysv ? name : path) {}
    ~Object() { take_away(); }

    Words words(const std::string& verb, const Words& more = {}) const {
        Words all = {program, verb};
        all.insert(all.end(), more.begin(), more.end());
        all.insert(all.end(), {"--name", name});
        return all;
    }
    Result run(const std::string& verb, const Words& more = {}) const {
        return ::run(words(verb, more));
    }

    int id() const { return shmget(static_cast<key_t>(std::stoul(name, nullptr, 0)), 0, 0); }
    bool there() const { return sysv ? id() != -1 : exists(path); }

    // All that there is to see: kind, owner, mode, size and every byte.
    std::string looks() const {
        if (sysv) {
            shmid_ds it;
            REQUIRE(shmctl(id(), IPC_STAT, &it) == 0);
            char* bytes = static_cast<char*>(shmat(id(), nullptr, SHM_RDONLY));
            const std::string copy(bytes, it.shm_segsz);
            shmdt(bytes);
            return std::to_string(it.shm_perm.uid) + " " + std::to_string(it.shm_perm.mode) + copy;
        }
        struct stat it;
        REQUIRE(lstat(path.c_str(), &it) == 0);
        return std::to_string(it.st_ino) + " " + std::to_string(it.st_mode) + " " +
               std::to_string(it.st_uid) + " " + std::to_string(it.st_size) +
               (S_ISREG(it.st_mode) ? contents(path) : "");
    }

    void plant(const std::string& bytes, mode_t mode = 0600) const {
        if (!sysv) {
            put(path, bytes);
            chmod(path.c_str(), mode);
            return;
        }
        const key_t key = static_cast<key_t>(std::stoul(name, nullptr, 0));
        const int made = shmget(key, bytes.size(), IPC_CREAT | IPC_EXCL | mode);
        REQUIRE(made != -1);
        void* address = shmat(made, nullptr, 0);
        bytes.copy(static_cast<char*>(address), bytes.size());
        shmdt(address);
    }

    void give_to(uid_t user) const {
        if (sysv) {
            shmid_ds it;
            shmctl(id(), IPC_STAT, &it);
            it.shm_perm.uid = user;
            REQUIRE(shmctl(id(), IPC_SET, &it) == 0);
        } else {
            REQUIRE(chown(path.c_str(), user, static_cast<gid_t>(-1)) == 0);
        }
    }

    void take_away() const {
        if (sysv && id() != -1) shmctl(id(), IPC_RMID, nullptr);
        if (!sysv && unlink(path.c_str()) == -1) rmdir(path.c_str());
    }

  private:
    Scratch scratch_;

  public:
    const bool sysv;
    const std::string program, self, name;
    const std::string path;   // what the shell sees
    const std::string where;  // how an error names the object
};

std::string any_mechanism() { return GENERATE("shm_posix", "map_posix", "shm_v"); }
std::string a_posix_mechanism() { return GENERATE("shm_posix", "map_posix"); }

// The environment in which one call of the C library fails: see failing_call.cc.
std::map<std::string, std::string> preload(const std::string& call, int error) {
    return {{"LD_PRELOAD", root() + "/tests/failing_call.so"},
            {"ASAN_OPTIONS", "verify_asan_link_order=0"},
            {"FAIL_CALL", call},
            {"FAIL_ERRNO", std::to_string(error)}};
}

std::string transcript(const std::string& out) {
    const size_t space = out.find(' ');
    const std::string child = out.substr(space + 1, out.find(':') - space - 1);
    const size_t last = out.find("Parent ");
    if (last == std::string::npos) return "no 'Parent'";
    const std::string parent = out.substr(last + 7, out.find(' ', last + 7) - last - 7);
    CHECK(std::stol(child) != std::stol(parent));
    return "Child " + child + ": start\n" + kItemLines + "Parent " + parent +
           " get child status:0\n";
}

// An error as every error should be: the program, what it did, why.
void check_error(const Result& result, const Object& object, int status = 1) {
    INFO(result.err);
    CHECK(result.status == status);
    CHECK(result.out.empty());
    CHECK(result.err.rfind(object.self + ": ", 0) == 0);
    CHECK(result.err.back() == '\n');
}

// What --step last said to type.
std::string last_command(const std::string& err) {
    const size_t start = err.rfind("    $ ") + 6;
    return err.substr(start, err.find('\n', start) - start);
}

std::string child_of(const std::string& err) {
    const size_t start = err.find("fork() = ") + 9;
    return err.substr(start, err.find('\n', start) - start);
}

// Steps until the child has been made, and returns its process id.
std::string step_past_fork(Program& program) {
    while (!has(program.await_err("(Enter goes on)"), "fork() = ")) program.write("\n");
    return child_of(program.await_err(""));
}

const char kPause[] = "(Enter goes on)";

}  // namespace

TEST_CASE("exchange prints the transcript and leaves nothing", "[exchange][transcript]") {
    Object object(any_mechanism());
    INFO(object.program);
    const Result result = object.run("exchange");
    CHECK(result.out == transcript(result.out));
    CHECK(result.err == "");
    CHECK(result.status == 0);
    CHECK_FALSE(object.there());
    CHECK(run({object.program, "--name", object.name}).status == 0);  // the default verb
}

TEST_CASE("the child waits for a slow parent", "[exchange][transcript]") {
    Object object(any_mechanism());
    INFO(object.program);
    Program slow(object.words("exchange"), "", preload("slow fork", 0));
    const Result result = slow.finish();
    CHECK(result.out == transcript(result.out));
    CHECK(result.status == 0);
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

TEST_CASE("write, read, remove: each in a process of its own", "[write][read][remove]") {
    Object object(any_mechanism());
    const Result written = object.run("write");
    CHECK(written.err == "");
    CHECK(written.out == "");
    CHECK(written.status == 0);
    for (int i = 0; i < 2; ++i) {  // reading takes nothing away
        const Result read = object.run("read");
        CHECK(read.out == kItemLines);
        CHECK(read.err == "");
        CHECK(read.status == 0);
    }
    const Result removed = object.run("remove");
    CHECK(removed.err == "");
    CHECK(removed.status == 0);
    CHECK_FALSE(object.there());
    for (const char* verb : {"read", "remove"}) {
        const Result gone = object.run(verb);
        check_error(gone, object);
        CHECK(has(gone.err, "No such file or directory"));
    }
}

TEST_CASE("an object that exists is left alone, and the error helps", "[exchange][write]") {
    Object object(any_mechanism());
    const std::string verb = GENERATE("exchange", "write");
    for (const std::string hint : {"remove it: ", "or: "}) {
        REQUIRE(object.run("write").status == 0);
        const std::string before = object.looks();
        const Result refused = object.run(verb);
        check_error(refused, object);
        CHECK(has(refused.err, "(" + object.name + "): File exists\n"));
        CHECK(has(refused.err, std::string(" of ") + getpwuid(geteuid())->pw_name + ", 100 bytes"));
        CHECK(object.looks() == before);
        const auto command = [&](const std::string& after) {
            const size_t start = refused.err.find(after) + after.size();
            return refused.err.substr(start, refused.err.find('\n', start) - start);
        };
        CHECK(shell(command("look at it: ")).status == 0);
        CHECK(shell(command(hint)).status == 0);
        CHECK_FALSE(object.there());
    }
}

TEST_CASE("the error says who uses the object", "[exchange]") {
    Object object(any_mechanism());
    Program first(object.words("exchange", {"--step"}));
    const std::string child = step_past_fork(first);
    const Result refused = object.run("exchange");
    INFO(refused.err);
    if (object.sysv) {
        CHECK(has(refused.err, "nattch 2, made by process " + std::to_string(first.pid()) + "\n"));
    } else {
        CHECK(has(refused.err, " " + std::to_string(first.pid())));
        CHECK(has(refused.err, " " + child));
    }
    const Result finished = first.finish();
    CHECK(finished.out == transcript(finished.out));
    CHECK(finished.status == 0);
}

TEST_CASE("two at once: one wins, the other says so, 200 times", "[exchange]") {
    Object object(any_mechanism());
    int lost = 0;
    for (int i = 0; i < 200; ++i) {
        Program first(object.words("exchange")), second(object.words("exchange"));
        const Result results[] = {first.finish(), second.finish()};
        REQUIRE((results[0].status == 0 || results[1].status == 0));
        for (const Result& result : results) {
            if (result.status == 0) {
                REQUIRE(result.out == transcript(result.out));
                REQUIRE(result.err == "");
            } else {
                ++lost;
                REQUIRE(result.status == 1);
                REQUIRE(result.out == "");
                REQUIRE(has(result.err, "(" + object.name + "): File exists\n"));
            }
        }
        REQUIRE_FALSE(object.there());
    }
    CHECK(lost > 0);
}

TEST_CASE("resize", "[resize]") {
    Object object(any_mechanism());
    const Result missing = object.run("resize", {"8192"});
    check_error(missing, object);
    CHECK(has(missing.err, "No such file or directory"));
    REQUIRE(object.run("write").status == 0);
    const std::string before = object.looks();

    const Result larger = object.run("resize", {"8192"});
    if (object.sysv) {
        check_error(larger, object);
        CHECK(has(larger.err, "shmget(" + object.name + ", 8192): Invalid argument\n"));
        CHECK(has(larger.err, "fixed"));
        CHECK(object.looks() == before);
    } else {
        CHECK(larger.status == 0);
        CHECK(larger.err + larger.out == "");
        CHECK(shell("stat -c %s " + object.path).out == "8192\n");
    }
    CHECK(object.run("read").out == kItemLines);

    const std::string now = object.looks();
    const Result smaller = object.run("resize", {"10"});
    check_error(smaller, object);
    CHECK(has(smaller.err, "items"));
    CHECK(object.looks() == now);
    object.run("resize", {"9223372036854775807"});  // a tmpfs grants it, ext4 does not
    CHECK(object.run("read").out == kItemLines);
}

TEST_CASE("what is planted under the name is refused and untouched", "[read][planted]") {
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
    struct Case {
        std::string bytes, reason;
        bool removable;
    };
    // Removable: no more than our bytes and none complete is nobody's data, and a damaged object of
    // ours is still ours.
    std::vector<Case> cases = {
        {"8 bytes!", "has 8 bytes, not 100", false},
        {random, "holds something else", false},
        {std::string(4096, 'x'), "holds something else", false},
        {std::string(100, '\0'), "holds no items yet", true},
        {std::string(4096, '\0'), "holds no items yet", false},
        {with(4, std::string("\x00\xca\x9a\x3b", 4)), "has a count of 1000000000", true},
        {with(4, std::string(4, '\0')), "has a count of 0", true},
        {with(names, std::string(48, 'N')), "the name of item 1 has no end", true},
    };
    if (!object.sysv) cases.push_back({"", "has 0 bytes, not 100", true});
    for (const Case& planted : cases) {
        INFO(planted.reason);
        object.plant(planted.bytes);
        const std::string before = object.looks();
        check_error(object.run("exchange"), object);
        check_error(object.run("write"), object);
        const Result read = object.run("read");
        check_error(read, object);
        CHECK(has(read.err, planted.reason));
        check_error(object.run("resize", {"200"}), object);
        CHECK(object.looks() == before);
        if (planted.removable) {
            CHECK(object.run("remove").status == 0);
        } else {
            check_error(object.run("remove"), object);
            CHECK(object.looks() == before);
        }
        object.take_away();
    }
}

TEST_CASE("a link, a FIFO and a directory under the name", "[read][planted]") {
    Object object(a_posix_mechanism());
    Scratch elsewhere;
    const std::string victim = elsewhere.path + "/victim";
    REQUIRE(object.run("write").status ==
            0);  // a link leads to good items, and is refused all the same
    std::filesystem::copy(object.path, victim);
    object.take_away();
    const std::string precious = contents(victim);
    const std::string planted = GENERATE("link", "dangling link", "FIFO", "directory");
    INFO(planted);
    if (planted == "link") REQUIRE(symlink(victim.c_str(), object.path.c_str()) == 0);
    if (planted == "dangling link") REQUIRE(symlink("/nowhere", object.path.c_str()) == 0);
    if (planted == "FIFO") REQUIRE(mkfifo(object.path.c_str(), 0600) == 0);
    if (planted == "directory") REQUIRE(mkdir(object.path.c_str(), 0700) == 0);
    const std::string before = object.looks();
    for (const char* verb : {"exchange", "write", "read", "remove"})
        check_error(object.run(verb), object);
    check_error(object.run("resize", {"200"}), object);
    CHECK(object.looks() == before);
    CHECK(contents(victim) == precious);
    if (!has(planted, "link")) CHECK(has(object.run("read").err, "is not a regular file\n"));
}

TEST_CASE("an object of another user", "[read][planted]") {
    if (geteuid() != 0) SKIP_BECAUSE("only root can give an object to another user");
    Object object(any_mechanism());
    REQUIRE(object.run("write").status == 0);
    object.give_to(65534);
    const std::string before = object.looks();
    for (const char* verb : {"exchange", "write", "read", "remove"}) {
        const Result refused = object.run(verb);
        check_error(refused, object);
        CHECK(has(refused.err, getpwuid(65534)->pw_name));
    }
    check_error(object.run("resize", {"200"}), object);
    CHECK(object.looks() == before);

    // And as that user, on an object of root's: the programs stand where that user may run them.
    object.give_to(0);
    Scratch open;
    const std::string copy = open.path + "/" + object.self;
    std::filesystem::copy(object.program, copy);
    for (const std::string& path : {open.path, copy}) chmod(path.c_str(), 0755);
    const std::string roots = object.looks();
    for (const char* verb : {"exchange", "read", "remove"})
        check_error(run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy, verb,
                         "--name", object.name}),
                    object);
    CHECK(object.looks() == roots);
}

TEST_CASE("wrong usage is a sentence, and makes nothing", "[usage]") {
    Object object(any_mechanism());
    const Words wrong[] = {{"boo"},          {"--boo"},         {"read", "write"},
                           {"resize"},       {"resize", "ten"}, {"resize", "-1"},
                           {"resize", "1x"}, {"--name"},        {"resize", "99999999999999999999"},
                           {"read", "8192"}};
    for (const Words& words : wrong) {
        Words all = {object.program, "--name", object.name};
        all.insert(all.end(), words.begin(), words.end());
        check_error(run(all), object, 2);
        CHECK_FALSE(object.there());
    }
    check_error(run({object.program, "--name", ""}), object, 2);
    check_error(run({object.program, "write", "--name", ""}), object, 2);
    const std::string bad[] = {std::string(300, 'x'),
                               "/" + std::string(300, 'x'),
                               "/shm-test/inside",
                               "no-number",
                               "0x",
                               "12abc",
                               "-5",
                               "0",
                               "0x123456789"};
    Scratch scratch;
    for (const std::string& name : bad) {
        if (object.path.rfind("/tmp", 0) == 0 && name.size() < 300 && name[0] != '/') continue;
        const Result refused = run({object.program, "write", "--name", name}, "", scratch.path);
        INFO(name);
        CHECK((refused.status == 1 || refused.status == 2));
        CHECK(refused.out.empty());
        CHECK(has(refused.err, object.self + ": "));
    }
    CHECK(shell("ls -A", scratch.path).out == "");
    const Result help = run({object.program, "--help"});
    CHECK(help.status == 0);
    CHECK(help.err == "");
    for (const char* word : {"exchange", "write", "read", "resize BYTES", "remove", "--name NAME",
                             "--explain", "--step"})
        CHECK(has(help.out, word));
}

TEST_CASE("stdout closed, full or without a reader is an error", "[exchange][read]") {
    Object object(any_mechanism());
    Scratch scratch;
    const std::string name = " --name " + object.name;
    const std::string no_reader = "mkfifo p; exec 3<>p 4>p 3<&-; ";
    for (const std::string verb : {"exchange", "read"}) {
        for (const std::string& line :
             {object.program + " " + verb + name + " >&-",
              object.program + " " + verb + name + " >/dev/full",
              no_reader + object.program + " " + verb + name + " >&4; s=$?; rm p; exit $s"}) {
            INFO(line);
            if (verb == "read") REQUIRE(object.run("write").status == 0);
            const Result result = shell(line, scratch.path);
            CHECK(result.status == 1);
            CHECK(has(result.err, object.self + ": write(stdout): "));
            CHECK(object.there() == (verb == "read"));
            object.take_away();
        }
    }
    // With stderr closed, --explain must not tell its story to the object.
    REQUIRE(shell(object.program + " write --explain" + name + " 2>&-").status == 0);
    if (!object.sysv) CHECK(contents(object.path).size() == 100);
    CHECK(object.run("read").out == kItemLines);
    object.take_away();
    const Result result = shell(object.program + name + " <&-");
    CHECK(result.out == transcript(result.out));
    CHECK(result.status == 0);
}

TEST_CASE("a signal at any step: the object is gone, the status is the signal's", "[signal]") {
    Object object(any_mechanism());
    const int number = GENERATE(SIGINT, SIGTERM, SIGHUP, SIGQUIT);
    int pauses = 0;
    for (bool last = false; !last; ++pauses) {
        Program stepping(object.words("exchange", {"--step"}));
        for (int i = 0; i < pauses; ++i) {
            stepping.await_err(kPause);
            stepping.write("\n");
        }
        const std::string child = child_of(stepping.await_err(kPause));
        last = has(last_command(stepping.await_err("")), "gone");
        kill(stepping.pid(), number);
        const Result result = stepping.finish();
        CHECK(result.status == 128 + number);
        CHECK_FALSE(object.there());
        if (has(result.err, "fork() = ")) CHECK(eventually(process_gone, child));
    }
    CHECK(pauses >= 6);
}

TEST_CASE("a signal at any moment leaves nothing", "[signal]") {
    Object object(any_mechanism());
    std::mt19937 random{std::random_device{}()};
    int stopped = 0;
    for (int i = 0; i < 100; ++i) {
        Program running(object.words("exchange"));
        usleep(random() % 3000);
        kill(running.pid(), SIGTERM);
        const Result result = running.finish();
        REQUIRE((result.status == 0 || result.status == 128 + SIGTERM));
        REQUIRE_FALSE(object.there());
        stopped += result.status != 0;
    }
    CHECK(stopped > 0);
}

TEST_CASE("an object that took the name meanwhile is left alone", "[signal]") {
    Object object(a_posix_mechanism());
    const int number = GENERATE(0, SIGINT);  // 0: it goes on to the end
    Program stepping(object.words("exchange", {"--step"}));
    step_past_fork(stepping);
    REQUIRE(unlink(object.path.c_str()) == 0);
    object.plant("somebody else's");
    if (number) kill(stepping.pid(), number);
    const Result result = stepping.finish();
    CHECK(result.status == (number ? 128 + number : 1));
    CHECK(contents(object.path) == "somebody else's");
}

TEST_CASE("nohup: the hang-up is ignored, the exchange goes on", "[signal]") {
    Object object(any_mechanism());
    Words words = object.words("exchange", {"--step"});
    words.insert(words.begin(), "nohup");
    Program stepping(words);
    step_past_fork(stepping);
    kill(stepping.pid(), SIGHUP);
    const Result result = stepping.finish();
    CHECK(result.status == 0);
    CHECK(result.out == transcript(result.out));
}

TEST_CASE("kill -9 of the parent: the child goes too, and the next run says what to do",
          "[signal]") {
    Object object(any_mechanism());
    Program stepping(object.words("exchange", {"--step"}));
    const std::string child = step_past_fork(stepping);
    kill(stepping.pid(), SIGKILL);
    CHECK(eventually(process_gone, child, 1));
    CHECK(stepping.finish().status == 128 + SIGKILL);
    CHECK(object.there());
    const Result next = object.run("exchange");
    check_error(next, object);
    CHECK(has(next.err, "remove it: "));
    CHECK(has(object.run("read").err, "holds no items yet"));
    CHECK(object.run("remove").status == 0);
    CHECK(object.run("exchange").status == 0);
}

TEST_CASE("kill -9 of the child: the parent reports it and removes the object", "[signal]") {
    Object object(any_mechanism());
    Program stepping(object.words("exchange", {"--step"}));
    kill(std::stoi(step_past_fork(stepping)), SIGKILL);
    const Result result = stepping.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, "the child was killed: Killed\n"));
    CHECK_FALSE(has(result.out, "item"));
    CHECK_FALSE(object.there());
}

TEST_CASE("a child that nobody wakes gives up in time", "[exchange]") {
    Object object("shm_v");
    Program waiting(object.words("exchange"), "", preload("sem_post", 0));
    const Result result = waiting.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, "shm_v: sem_timedwait(ready, 10 s): Connection timed out\n"));
    CHECK_FALSE(object.there());
}

TEST_CASE("every call that fails is named, with its reason, and what was made is removed",
          "[failure]") {
    const std::string mechanism = any_mechanism();
    Object object(mechanism);
    std::map<std::string, int> calls = {
        {"sem_init", ENOSYS}, {"fork", EAGAIN}, {"sem_post", EOVERFLOW}, {"sem_timedwait", EINVAL}};
    if (object.sysv)
        calls.insert({{"shmget", ENOSPC}, {"shmat", ENOMEM}, {"shmdt", EINVAL}, {"shmctl", EPERM}});
    else
        calls.insert({{"ftruncate", EFBIG},
                      {"posix_fallocate", ENOSPC},
                      {"mmap", ENOMEM},
                      {"munmap", EINVAL}});
    if (mechanism == "shm_posix") calls.insert({{"shm_open", EMFILE}, {"shm_unlink", EACCES}});
    if (mechanism == "map_posix") calls.insert({{"open", EROFS}, {"unlink", EROFS}});
    for (const auto& [call, error] : calls) {
        INFO(call);
        Program failing(object.words("exchange"), "", preload(call, error));
        const Result result = failing.finish();
        INFO(result.err);
        CHECK(result.status == 1);
        CHECK(has(result.err, object.self + ": " + call + "("));
        CHECK(has(result.err, std::string("): ") + strerror(error) + "\n"));
        const bool removes = call == "shm_unlink" || call == "unlink" || call == "shmctl";
        CHECK(object.there() == removes);
        object.take_away();
    }
}

TEST_CASE("beyond the largest file allowed: an error, and nothing stays", "[failure]") {
    Object object(a_posix_mechanism());
    const Result result = shell("ulimit -f 0; " + object.program + " --name " + object.name);
    check_error(result, object);
    CHECK(has(result.err, ": File too large\n"));
    CHECK_FALSE(object.there());
}

TEST_CASE("a file cut short while it is mapped is an error, not a crash", "[failure]") {
    Object object(a_posix_mechanism());
    Program stepping(object.words("exchange", {"--step"}));
    step_past_fork(stepping);
    REQUIRE(truncate(object.path.c_str(), 0) == 0);
    const Result result = stepping.finish();
    CHECK(result.status == 1);
    CHECK(has(result.err, object.self + ": SIGBUS: "));
    CHECK_FALSE(object.there());
}

TEST_CASE("--step: every command that it names shows what it says", "[explain]") {
    const std::string mechanism = any_mechanism();
    Object object(mechanism);
    Program stepping(object.words("exchange", {"--step"}));
    std::vector<std::string> nattch;
    std::string sizes;
    for (bool last = false; !last;) {
        const std::string command = last_command(stepping.await_err(kPause));
        INFO(command);
        const Result outside = shell(command);
        CHECK(outside.status == 0);
        CHECK(outside.err == "");
        if (has(command, "gone")) {
            CHECK(outside.out == "gone\n");
            last = true;
        } else if (object.sysv) {
            const Result column = shell(command + " | awk '{print $6}'");
            nattch.push_back(column.out.substr(0, column.out.find('\n')));
        } else if (has(command, "grep")) {
            CHECK(has(outside.out, object.path + "\n"));
        } else if (has(command, "cat")) {
            CHECK(has(outside.out, "Nellson"));
        } else {
            sizes += shell("stat -c '%s ' " + object.path).out;
        }
        stepping.write("\n");
    }
    const Result result = stepping.finish();
    CHECK(result.out == transcript(result.out));
    CHECK(result.status == 0);
    if (object.sysv)
        CHECK(nattch == std::vector<std::string>{"0", "1", "2", "1", "0"});
    else
        CHECK(sizes == "0 \n100 \n100 \n100 \n");
}

TEST_CASE("--explain names every call, on stderr", "[explain]") {
    const std::string mechanism = any_mechanism();
    Object object(mechanism);
    const Result result = object.run("exchange", {"--explain"});
    CHECK(result.out == transcript(result.out));
    Words calls = {"sem_init(", "fork(", "sem_post(", "sem_timedwait(", "waitpid("};
    if (mechanism == "shm_posix") calls.insert(calls.end(), {"shm_open(", "shm_unlink("});
    if (mechanism == "map_posix") calls.insert(calls.end(), {"] open(", "] unlink("});
    if (object.sysv)
        calls.insert(calls.end(), {"shmget(", "shmat(", "shmdt(", "shmctl("});
    else
        calls.insert(calls.end(), {"ftruncate(", "posix_fallocate(", "mmap(", "close(", "munmap("});
    for (const std::string& call : calls) {
        INFO(call);
        CHECK(has(result.err, call));
    }
    CHECK(object.run("write", {"--explain"}).status == 0);
    const Result read = object.run("read", {"--explain"});
    CHECK(read.out == kItemLines);
    CHECK(has(read.err, object.sysv ? "SHM_RDONLY" : "PROT_READ, MAP_SHARED"));
    CHECK(object.run("remove", {"--explain"}).status == 0);
}

TEST_CASE("names that the shell would take apart", "[explain]") {
    Object object("map_posix");
    const std::string odd = object.path + " it's; $(odd)";
    Program stepping({object.program, "--name", odd, "--step"});
    for (std::string command; !has(command, "gone"); stepping.write("\n")) {
        command = last_command(stepping.await_err(kPause));
        INFO(command);
        CHECK(shell(command).status == 0);
    }
    CHECK(stepping.finish().status == 0);
}

TEST_CASE("valgrind finds nothing", "[valgrind]") {
    if (shell("command -v valgrind").status != 0) SKIP_BECAUSE("valgrind is not installed");
    Object object(any_mechanism());
    if (has(shell("nm -D " + object.program).out, "__asan"))
        SKIP_BECAUSE("a sanitizer is built in");
    for (const char* verb : {"exchange", "write", "read", "remove"}) {
        Words words = object.words(verb);
        words.insert(words.begin(), {"valgrind", "-q", "--error-exitcode=99", "--leak-check=full",
                                     "--track-fds=no"});
        const Result result = run(words);
        INFO(result.err);
        CHECK(result.status == 0);
        CHECK(result.err == "");
    }
}
