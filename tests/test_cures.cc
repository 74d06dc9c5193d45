// The index by error text in docs/failures.md, followed: each text is brought about by a command,
// then what the index says helps is done, and has to help.

#include <sys/stat.h>

#include <iostream>
#include <regex>
#include <set>

#include "support.h"

namespace {

// The commands run in a scratch directory, with a /dev/shm and segments of their own.
struct Cure {
    std::string text;     // as in the index
    std::string need;     // a command that says whether it can be shown here
    std::string mistake;  // prints the text
    std::string cure;     // does what helps, and prints what follows
    std::string then;
};

const std::string kOthers = "setpriv --reuid=65534 --regid=65534 --clear-groups true",
                  kCompiler = "command -v g++ ar", kAlways = "true";

const Cure kCures[] = {
    {"undefined reference to", kCompiler,
     "echo 'int one() { return 3; }' > one.cc; echo 'int one(); int main() { return one(); }' > "
     "x.cc\n"
     "g++ -c one.cc && ar rc libone.a one.o; g++ -o x -L. -lone x.cc",
     "g++ -o x x.cc -L. -lone && ./x; echo $?", "3\n"},
    {"DSO missing from command line", kCompiler,
     "echo 'int one() { return 3; }' > one.cc; echo 'int one(); int main() { return one(); }' > "
     "x.cc\n"
     "echo 'int one(); int two() { return one(); }' > two.cc\n"
     "g++ -shared -fPIC -o libone.so one.cc; g++ -shared -fPIC -o libtwo.so two.cc -L. -lone\n"
     "g++ -o x x.cc -Wl,--no-as-needed -L. -Wl,-rpath,. -ltwo",
     "g++ -o x x.cc -Wl,--no-as-needed -L. -Wl,-rpath,. -ltwo -lone && ./x; echo $?", "3\n"},
    {"Bus error", kAlways, "$TOP/docs/failures no-size",
     "$TOP/docs/failures size-later | tail -n 1", "the store succeeds\n"},
    {"Bus error", kAlways, "mount -t tmpfs -o size=64k tmpfs /dev/shm; $TOP/docs/failures full",
     "mount -t tmpfs -o size=2m tmpfs /dev/shm; $TOP/docs/failures full | tail -n 1",
     "all stores succeed\n"},
    {"Segmentation fault", kAlways, "$TOP/docs/failures pointer",
     "$TOP/docs/failures offset | tail -n 1", "the store succeeds\n"},
    {"File exists", kAlways, "$P write; $P", "rm /dev/shm/tmp; $P | sed -n 2p",
     "There is 3 item in the shm\n"},
    {"File exists", kAlways, "$P write; $P write", "$P write --name /two; $P read | tail -n 1",
     "3: Robbie\n"},
    {"File exists", kAlways, "$V write; $V write",
     "ipcrm -M 0x12345678; $V write; $V read | tail -n 1", "3: Robbie\n"},
    {"No such file or directory", kAlways, "$P read", "$P write; $P read | tail -n 1",
     "3: Robbie\n"},
    {"No such file or directory", kAlways, "$V write; unshare --ipc $V read", "$V read | tail -n 1",
     "3: Robbie\n"},
    {"Permission denied", kOthers, "$P write; nobody ./shm_posix read",
     "nobody ./shm_posix write --name /tmp-65534; nobody ./shm_posix read --name /tmp-65534 | tail "
     "-n 1",
     "3: Robbie\n"},
    {"Permission denied", kAlways, "$TOP/docs/failures read-only-object",
     "$TOP/docs/failures size-later | tail -n 1", "the store succeeds\n"},
    {"Permission denied, even for root", kOthers + " && grep -v 0 /proc/sys/fs/protected_regular",
     "nobody ./shm_posix write; : > /dev/shm/tmp || echo 'Permission denied, even for root'",
     "printf M | dd conv=notrunc,nocreat seek=8 bs=1 of=/dev/shm/tmp 2> /dev/null\n"
     "nobody ./shm_posix read | grep 1",
     "1: Mellson\n"},
    {"Operation not permitted", kOthers, "$P write; nobody rm -f /dev/shm/tmp",
     "rm /dev/shm/tmp; ls /dev/shm", ""},
    {"Invalid argument", kAlways, "$P write --name /a/b",
     "$P write --name /a-b; $P read --name /a-b | tail -n 1", "3: Robbie\n"},
    {"Invalid argument", kAlways,
     "$V write; id=$(ipcs -m | awk '/0x12345678/ {print $2}'); ipcrm -m $id; $TOP/docs/hold id $id",
     "$V write; $V read | tail -n 1", "3: Robbie\n"},
    {"Invalid argument", kAlways, "$TOP/docs/failures segment-size 2>&1 | tail -n 1",
     "$TOP/docs/failures segment-size 2> /dev/null | tail -n 1", "shmget of 0 bytes succeeds\n"},
    {"Identifier removed", "command -v perl",  // 14 is GETNCNT, 0 is IPC_RMID
     "perl -e '$id = semget(7, 1, 01600); if (!fork) { semop($id, pack(\"s!3\", 0, -1, 0)) or "
     "print\n"
     "\"$!\\n\"; exit; } 1 until semctl($id, 0, 14, 0) == 1; semctl($id, 0, 0, 0); wait'",
     "perl -e 'semget(7, 1, 01600); $id = semget(7, 1, 0);\n"
     "print \"raised\\n\" if semop($id, pack(\"s!3\", 0, 1, 0))'",
     "raised\n"},
    {"Too many open files", kCompiler,
     "cat > x.cc <<'END'\n"
     "#include <err.h>\n#include <fcntl.h>\n#include <stdio.h>\n#include <sys/mman.h>\n"
     "#include <unistd.h>\n"
     "int main() {\n"
     "    for (int i = 0; i < 50; ++i) {\n"
     "        int fd = shm_open(\"/many\", O_CREAT | O_RDWR, 0600);\n"
     "        if (fd == -1 || ftruncate(fd, 1) == -1) err(1, \"shm_open(/many)\");\n"
     "        void* it = mmap(nullptr, 1, PROT_WRITE, MAP_SHARED, fd, 0);\n"
     "        if (it == MAP_FAILED) err(1, \"mmap\");\n"
     "#ifdef CLOSE\n        close(fd);\n#endif\n"
     "    }\n"
     "    puts(\"50 mappings\");\n"
     "}\nEND\n"
     "g++ -o x x.cc -lrt; (ulimit -n 20; ./x)",
     "g++ -DCLOSE -o x x.cc -lrt; (ulimit -n 20; ./x)", "50 mappings\n"},
    {"No space left on device", kAlways,
     "mount -t tmpfs -o size=64k tmpfs /dev/shm; $TOP/docs/failures full-early",
     "mount -t tmpfs -o size=2m tmpfs /dev/shm; $TOP/docs/failures full-early",
     "posix_fallocate succeeds\n"},
    {"No space left on device", kAlways,
     "mount -t tmpfs -o size=64k tmpfs /dev/shm; head -c 64k /dev/zero > /dev/shm/old; $P write",
     "rm /dev/shm/old; $P write; $P read | tail -n 1", "3: Robbie\n"},
    {"No space left on device", kAlways,
     "mount -t tmpfs -o nr_inodes=2 tmpfs /dev/shm; : > /dev/shm/old; $P write; df -i /dev/shm",
     "rm /dev/shm/old; $P write; $P read | tail -n 1", "3: Robbie\n"},
    {"No space left on device",
     "unshare --map-root-user --ipc sh -c 'echo 4096 > /proc/sys/kernel/shmmni'",
     "echo 1 > /proc/sys/kernel/shmmni; $V write --name 2; $V write",
     "ipcrm -M 2; $V write; $V read | tail -n 1", "3: Robbie\n"},
    {"Cannot allocate memory",
     "test $(getconf LONG_BIT) = 64 && grep -v 1 /proc/sys/vm/overcommit_memory",
     "ipcmk -M 1000000000000000", "ipcmk -M 4096 | sed 's/: .*//'", "Shared memory id\n"},
    {"Killed", "test $(id -u) = 0 && sh docs/cgroup.sh true",
     "sh $TOP/docs/cgroup.sh fallocate -l 64M /dev/shm/tmp",
     "sh $TOP/docs/cgroup.sh fallocate -l 4M /dev/shm/tmp; echo $?", "0\n"},
    {"Connection timed out", kAlways, "$TOP/docs/agreeing pshared-0",
     "$TOP/docs/agreeing pshared-1 | sed -n 1p", "woken\n"},
    {"Owner died", kAlways, "$TOP/docs/failures dead-owner-robust",
     "$TOP/docs/failures dead-owner-robust 2> /dev/null | tail -n 1",
     "pthread_mutex_consistent succeeds\n"},
    {"leaked shared_memory objects", "command -v python3",
     "$P write; python3 -c 'from multiprocessing import shared_memory as m\n"
     "m.SharedMemory(\"tmp\").close()'\n"
     "timeout 30 sh -c 'while [ -e /dev/shm/tmp ]; do sleep 0.1; done'",
     "$P write; python3 $TOP/docs/read.py | sed -n 1p; $P read | tail -n 1",
     "NDR2, 3 items\n3: Robbie\n"},
};

const std::string kPrelude = R"(export LC_ALL=C
TOP=$1 P=$1/shm_posix/shm_posix V=$1/shm_v/shm_v
nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
)";

// The first cells of the index's rows, without what is only typography.
std::set<std::string> index_of_texts() {
    std::set<std::string> texts;
    const std::string page = contents(root() + "/docs/failures.md");
    const std::regex row("\n\\| (`[^|]+) \\|");
    for (std::sregex_iterator it(page.begin(), page.end(), row), end; it != end; ++it)
        texts.insert(std::regex_replace(it->str(1), std::regex("`"), ""));
    return texts;
}

}  // namespace

TEST_CASE("each error text of the index comes, and its cure helps", "[pages]") {
    const std::string box =
        std::string("unshare --mount --ipc ") + (geteuid() == 0 ? "" : "--map-root-user ");
    if (shell(box + "mount -t tmpfs tmpfs /dev/shm").status != 0)
        SKIP_BECAUSE("no mount namespace may be made here");
    std::set<std::string> open = index_of_texts();
    CHECK(open.size() > 15);
    // PostgreSQL's was tried by hand; the second half of its text is below.
    CHECK(open.erase("could not resize shared memory segment ... No space left on device "
                     "(PostgreSQL)") == 1);
    for (const Cure& it : kCures) {
        const auto row = [&](const std::string& text) { return text.rfind(it.text, 0) == 0; };
        for (auto text = open.begin(); text != open.end();)
            text = row(*text) ? open.erase(text) : std::next(text);
        if (shell(it.need, root()).status != 0) {
            std::cout << "cures: skipped: " << it.text << std::endl;
            continue;
        }
        Scratch scratch;
        chmod(scratch.path.c_str(), 0755);  // for another user
        shell("cp " + quoted(root()) + "/shm_posix/shm_posix .", scratch.path);
        put(scratch.path + "/mistake", kPrelude + it.mistake + "\n");
        put(scratch.path + "/cure", kPrelude + it.cure + "\n");
        put(scratch.path + "/both",
            "mount -t tmpfs tmpfs /dev/shm\n"
            "sh ./mistake \"$1\" > said 2>&1; sh ./cure \"$1\" > cured 2>&1\n");
        shell(box + "sh ./both " + quoted(root()), scratch.path);
        INFO(it.mistake);
        CHECK(has(contents(scratch.path + "/said"), it.text));
        INFO(it.cure);
        CHECK(contents(scratch.path + "/cured") == it.then);
    }
    for (const std::string& text : open) FAIL_CHECK("not tried: " << text);
}
