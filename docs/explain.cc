// Tells what a program, one of ours or yours, asks of the kernel about shared memory, and the shell
// command that shows the same from outside:
//
//     docs/explain shm_posix/shm_posix          docs/explain --step ./yours and its arguments
//
// The program is not changed: we see its system calls as they come and go (tests/trace.h). What it
// stores in shared memory is no call: we compare the bytes with those that we saw last. From top to
// bottom: how we speak; what /proc knows; stores; waits; each call; the loop.

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "../common/process.h"
#include "../tests/trace.h"

using std::string;
using std::to_string;

constexpr char kUsage[] =
    "usage: docs/explain [--step] PROGRAM [ARGUMENTS...]\n"
    "  --step  wait for Enter at each command, so that you can type it in a second terminal;\n"
    "          Ctrl-C runs on to the end, a second one ends the program. Until then all processes\n"
    "          of the program stand still at their next system call, and waits for a semaphore or\n"
    "          futex get an hour more.\n"
    "Speaks on stderr. Exit status: the program's, or 128 + the signal that ended it.\n"
    "After a fork the child goes first, for at most 0.1 s, so that one sees it wait. Stores are\n"
    "looked for in the first MiB of each mapping.\n";

// A shared mapping, as /proc/PID/maps has it.
struct Mapping {
    uint64_t begin, end, offset;
    bool writable;
    string key;    // of the object: "inode 7", "segment 7"
    string name;   // as we call it: /dev/shm/tmp, segment 7
    bool removed;  // that name is gone
};

static const size_t kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
constexpr uint64_t kHere = static_cast<uint64_t>(AT_FDCWD);
static Tracer* tracer;
static volatile sig_atomic_t step;       // whether we wait
static volatile sig_atomic_t resumes;    // Ctrl-C ended the waiting: the program does not get it
static volatile sig_atomic_t asked[65];  // signals for the program

static std::map<const Tracee*, std::vector<Mapping>> mappings;   // of each process
static std::map<string, std::map<uint64_t, string>> bytes_seen;  // of each object, by offset
static std::set<string> known;                                   // objects that we have told of
static std::set<string> blank;                     // objects that held nothing when we met them
static std::set<string> doomed;                    // segments after IPC_RMID
static std::map<string, string> made;              // names that exist since, and their objects
static std::map<const Tracee*, string> noted;      // at the entry to a call, for its return
static std::map<const Tracee*, string> deadlines;  // as they were before we changed them

static const Tracee* process_of(const Tracee* who) {
    return who->thread ? process_of(who->parent) : who;
}

static const std::vector<Mapping>& mappings_of(const Tracee* who) {
    return mappings[process_of(who)];
}

static string link_at(const string& path) {
    char text[PATH_MAX] = "";
    return readlink(path.c_str(), text, sizeof text - 1) == -1 ? "" : text;
}

static std::vector<string> names_in(const string& directory) {
    std::vector<string> names;
    DIR* all = opendir(directory.c_str());
    while (const dirent* it = all == nullptr ? nullptr : readdir(all)) names.push_back(it->d_name);
    if (all != nullptr) closedir(all);
    return names;
}

// The process's directory, /proc/PID. In a PID namespace that has no /proc of its own the process
// has another number there [pid_namespaces(7)]; "/proc/?" if it cannot be found.
static string proc(const Tracee* who) {
    static std::map<const Tracee*, string> found;
    string& path = found[who];
    const string pid = to_string(who->pid), end = "\t" + pid;
    if (!path.empty()) return path;
    if (link_at("/proc/self") == to_string(getpid())) return path = "/proc/" + pid;
    for (const string& name : names_in("/proc")) {
        if (!isdigit(name[0])) continue;
        if (link_at("/proc/" + name + "/ns/pid") != link_at("/proc/self/ns/pid")) continue;
        std::ifstream status("/proc/" + name + "/status");
        for (string line; std::getline(status, line);)
            if (line.rfind("NSpid:", 0) == 0 && line.rfind(end) + end.size() == line.size())
                path = "/proc/" + name;
    }
    return path.empty() ? "/proc/?" : path;
}

// "parent 123", "child 124".
static string label(const Tracee* who) {
    const bool alone = tracer->tracees.size() == 1;
    const char* role = who->thread ? "thread " : who->parent ? "child " : "parent ";
    const string pid = to_string(who->pid), at = proc(who);
    return (alone ? "program " : role) + pid +
           (at == "/proc/" + pid || at == "/proc/?" ? "" : " (" + at + ")");
}

static void say(const Tracee* who, const string& text) {
    fprintf(stderr, "%s: %s\n", label(who).c_str(), text.c_str());
}

static void because(const string& reason) { fprintf(stderr, "    %s\n", reason.c_str()); }

// Hands signals on to the program, or to what has outlived it.
static void pass_on() {
    for (int number = 1; number < 65; ++number) {
        if (!asked[number]) continue;
        asked[number] = 0;
        const bool outlived = tracer->tracees[0].ended;
        for (Tracee& it : tracer->tracees)
            if (!it.ended && (it.number == 0 || outlived)) tracer->send(&it, number);
    }
}

// The command that shows what was just told; with --step, waits for Enter.
static void look(const string& command) {
    static bool first = true;
    if (command.find("/proc/?") != string::npos) return;
    fprintf(stderr, "    $ %s\n", command.c_str());
    if (step && first) because("(type that in a second terminal; Enter goes on here)");
    first = false;
    for (char c = 0; step && c != '\n';) {
        const ssize_t got = read(STDIN_FILENO, &c, 1);
        if (got == -1 && errno == EINTR)
            pass_on();
        else if (got != 1)
            break;  // the end of stdin is Enter, too
    }
}

// What a call returned, as the manual has it.
static string is(const Tracee* who) {
    char text[32];
    if (who->result < 0 && who->result >= -4095)
        return string(" = -1: ") + strerror(static_cast<int>(-who->result));
    snprintf(text, sizeof text, who->result > INT32_MAX ? " = %#jx" : " = %jd",
             intmax_t{who->result});
    return text;
}

static string number(uint64_t argument) { return to_string(static_cast<int>(argument)); }

static string in_quotes(const string& path) { return "\"" + path + "\""; }

static bool begins(const string& text, const char* with) { return text.rfind(with, 0) == 0; }

static bool is_shm(const string& path) { return begins(path, "/dev/shm/"); }

// The library function behind a call for a name there, as far as one can tell.
static string does(const string& path, const char* function) {
    if (!is_shm(path)) return "";
    return string("what ") + (begins(path, "/dev/shm/sem.") ? "sem_" : "shm_") + function +
           " does: ";
}

// A path that the program gave, from the root on.
static string absolute(const Tracee* who, uint64_t directory, uint64_t address) {
    string text = tracer->string(who, address);
    if (begins(text, "./")) text = text.substr(2);
    if (begins(text, "/")) return text;
    const bool here = number(directory) == number(kHere);  // an int for the kernel
    return link_at(proc(who) + (here ? "/cwd" : "/fd/" + number(directory))) + "/" + text;
}

static string object_at(const string& path) {
    struct stat it;
    return lstat(path.c_str(), &it) == -1 ? "" : "inode " + to_string(it.st_ino);
}

// An open file of a process; key "" if it is no regular file.
struct File {
    string link, name, key;  // /proc/PID/fd/3, /dev/shm/tmp, "inode 7"
    bool removed = false;
    off_t size = 0, blocks = 0;
};

static File file_of(const Tracee* who, const string& fd) {
    File file;
    struct stat it;
    file.link = proc(who) + "/fd/" + fd;
    file.name = link_at(file.link);
    if (stat(file.link.c_str(), &it) == -1 || !S_ISREG(it.st_mode)) return file;
    file.key = "inode " + to_string(it.st_ino);
    file.size = it.st_size;
    file.blocks = it.st_blocks;
    file.removed = object_at(file.name) != file.key;
    file.name = file.name.substr(0, file.name.rfind(" (deleted)"));
    return file;
}

// The descriptor by which a process has an object open, if it has.
static string descriptor(const Tracee* who, const string& key) {
    for (const string& name : names_in(proc(who) + "/fd"))
        if (isdigit(name[0]) && file_of(who, name).key == key) return name;
    return "";
}

// Notes which shared mappings a process has now.
static void read_mappings(const Tracee* who) {
    std::vector<Mapping>& all = mappings[process_of(who)];
    all.clear();
    std::ifstream maps(proc(who) + "/maps");
    for (string line; std::getline(maps, line);) {
        uint64_t begin, end, offset, inode;
        char mode[8];
        int at = 0;
        sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %" SCNu64 " %n", &begin,
               &end, mode, &offset, &inode, &at);
        if (at == 0 || mode[3] != 's') continue;
        const string path = line.substr(static_cast<size_t>(at));
        const bool writable = mode[1] == 'w', segment = begins(path, "/SYSV");
        if (begins(path, "/usr/") && !writable) continue;  // the C library's own
        Mapping it = {begin, end, offset, writable, "", path, false};
        it.key = (segment ? "segment " : "inode ") + to_string(inode);
        it.name = segment ? it.key : path.substr(0, path.rfind(" (deleted)"));
        it.removed = segment ? doomed.count(it.key) == 1 : it.name != path;
        if (it.name == "/dev/zero") blank.insert(it.key);  // made by this mmap
        // What an older object holds is read now; that may give its holes a page.
        if (blank.count(it.key) + bytes_seen.count(it.key) == 0)
            for (size_t i = 0; i < std::min<size_t>(end - begin, 1 << 20); i += kPage)
                bytes_seen[it.key][offset + i] = tracer->memory(who, begin + i, kPage);
        all.push_back(it);
    }
}

static const Mapping* mapping_at(const Tracee* who, uint64_t address) {
    for (const Mapping& it : mappings_of(who))
        if (address >= it.begin && address < it.end) return &it;
    return nullptr;
}

static const Mapping* mapping_of(const Tracee* who, const string& key) {
    for (const Mapping& it : mappings_of(who))
        if (it.key == key) return &it;
    return nullptr;
}

// Shows bytes of a mapping, from their address on, by the object's name, a descriptor or, if it has
// neither, from the process's memory.
static string bytes_command(const Tracee* who, const Mapping& it, uint64_t from, uint64_t count) {
    const bool segment = begins(it.key, "segment");
    const string fd = segment || !it.removed ? "" : descriptor(who, it.key);
    const string file = it.removed ? proc(who) + "/fd/" + fd : shell_word(it.name);
    if (!segment && (!it.removed || !fd.empty()))
        return "od -A d -c -j " + to_string(from - it.begin + it.offset) + " -N " +
               to_string(count) + " " + file;
    int yama = 0;  // in Ubuntu, for one: only root reads the memory of others
    std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> yama;
    return (yama > 0 && geteuid() != 0 ? "sudo dd if=" : "dd if=") + proc(who) +
           "/mem bs=1 skip=" + to_string(from) + " count=" + to_string(count) +
           " status=none | od -A d -c";
}

// Bytes as od -c shows them.
static string as_text(const string& bytes) {
    string text;
    for (const char c : bytes) {
        char octal[8];
        snprintf(octal, sizeof octal, "\\%03o", static_cast<unsigned char>(c));
        text += c > 31 && c < 127 ? string(1, c) : octal;
    }
    return in_quotes(text);
}

// Tells of the bytes of a mapping that are not what they were. Only pages that the process has
// touched are read (/proc/PID/pagemap tells): our look gives none to the object.
static void tell_stores(const Tracee* who, const Mapping& it, const string& how) {
    std::vector<uint64_t> touched(std::min<size_t>(it.end - it.begin, 1 << 20) / kPage);
    const int map = open((proc(who) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    const off_t at = static_cast<off_t>(it.begin / kPage * sizeof touched[0]);
    if (pread(map, touched.data(), touched.size() * sizeof touched[0], at) == -1) touched.clear();
    close(map);
    string text, more;
    uint64_t first = 0, last = 0;  // addresses
    for (size_t i = 0; i < touched.size(); ++i) {
        if (touched[i] >> 62 == 0) continue;  // neither in memory nor swapped
        const uint64_t begin = it.begin + i * kPage;
        const string now = tracer->memory(who, begin, kPage);
        string& before = bytes_seen[it.key][it.offset + i * kPage];
        before.resize(now.size());
        for (size_t from = 0, to; from < now.size(); from = to + 1) {
            for (to = from; to < now.size() && now[to] != before[to]; ++to) continue;
            if (to == from) continue;
            if (first == 0) first = begin + from;
            const string part = as_text(now.substr(from, std::min<size_t>(to - from, 16)));
            const uint64_t offset = begin + from - it.begin + it.offset;
            const string range =
                to_string(offset) + (to - from > 1 ? "-" + to_string(offset + to - from - 1) : "");
            const string piece = range + " " + (part.size() < 20 ? part : "...");
            if (text.size() + piece.size() < 80) {
                last = begin + to;
                text += (text.empty() ? "" : ", ") + piece;
            } else {
                more = " and more";
            }
        }
        before = now;
    }
    if (text.empty()) return;
    // Whoever ran meanwhile and can write there may have done it.
    string others;
    for (const Tracee& other : tracer->tracees) {
        const bool ran = !other.ended && other.state == Tracee::runs && !other.in_call;
        const Mapping* its = ran ? mapping_of(&other, it.key) : nullptr;
        if (its && its->writable && process_of(&other) != process_of(who))
            others = ", by it or by " + label(&other);
    }
    say(who, "stored, " + how + others + ", in " + it.name + ":");
    because((last == first + 1 ? "byte " : "bytes ") + text + more);
    look(bytes_command(who, it, first, std::min<uint64_t>(last - first, 256)));
}

static void tell_stores(const Tracee* who, const string& how) {
    for (const Mapping& it : mappings_of(who))
        if (it.writable) tell_stores(who, it, how);
}

// Whether a process that we let go on sleeps in its call.
static bool sleeps(Tracee* who) {
    tracer->go_on(who);
    for (int i = 0; i < 50; ++i) {
        std::ifstream file(proc(who) + "/stat");
        string stat;
        std::getline(file, stat);
        if (stat.find(") S ") != string::npos) return true;
        if (stat.find(") t ") != string::npos) return false;  // it has returned
        usleep(1000);
    }
    return false;
}

// Tells that a process waits in a call, if it does. `deadline` is where it has one, or 0.
static bool tell_wait(Tracee* who, const string& call, const string& why, uint64_t deadline = 0) {
    string before;
    timespec later;
    if (step && deadline != 0) before = tracer->memory(who, deadline, sizeof later);
    if (before.size() == sizeof later) {
        memcpy(&later, before.data(), sizeof later);
        later.tv_sec += 3600;
        const string after(reinterpret_cast<char*>(&later), sizeof later);
        if (tracer->set_memory(who, deadline, after)) deadlines[who] = before;
    }
    if (!sleeps(who)) return false;
    say(who, "waits in " + call);
    because(why);
    if (deadlines.count(who))
        because("its deadline gets an hour more, as you step");
    else if (step && deadline != 0)
        because("its deadline runs on while you step");
    look("grep State " + proc(who) + "/status");
    return true;
}

static string futex(const Tracee* who, const Mapping& it, const char* what) {
    return "futex(byte " + to_string(who->argument[0] - it.begin + it.offset) + " of " + it.name +
           ", " + what + ")";
}

static bool futex_waits(const Tracee* who) {
    const uint64_t what = who->argument[1] & FUTEX_CMD_MASK;
    return what == FUTEX_WAIT || what == FUTEX_WAIT_BITSET || what == FUTEX_LOCK_PI;
}

// A segment is found by its id: after IPC_RMID its key is 0.
static string row(const string& id) { return "ipcs -m | awk 'NR == 3 || $2 == " + id + "'"; }

static void look_at_segment(const string& id) {
    shmid_ds it;
    const bool gone = shmctl(atoi(id.c_str()), IPC_STAT, &it) == -1 && errno != EACCES;
    if (gone) because("nobody has it any more: the kernel has freed it");
    look(gone ? "ipcs -m -i " + id : row(id));
}

// A process enters a call. Tells what has to be told before; returns whether it waits in it.
static bool entered(Tracee* who) {
    const uint64_t* a = who->argument;
    const Mapping* mapping = mapping_at(who, a[0]);
    tell_stores(who, "without a system call");
    noted[who].clear();
    switch (who->call) {
        case SYS_futex:
            if (mapping == nullptr) return false;
            if (futex_waits(who))
                return tell_wait(who, futex(who, *mapping, "FUTEX_WAIT"),
                                 "what sem_wait does: it sleeps until somebody wakes it", a[3]);
            if ((a[1] & FUTEX_CMD_MASK) != FUTEX_WAKE) return false;
            say(who, futex(who, *mapping, "FUTEX_WAKE"));
            because("what sem_post does: wakes one that sleeps there, if any");
            return false;
#ifdef SYS_semop
        case SYS_semop:
            return tell_wait(who, "semop(" + number(a[0]) + ")",
                             "until others raise the semaphore");
#endif
#ifdef SYS_semtimedop
        case SYS_semtimedop:
            return tell_wait(who, "semtimedop(" + number(a[0]) + ")",
                             "until others raise the semaphore", a[3]);
#endif
        case SYS_wait4:
        case SYS_waitid:
            return !mappings_of(who).empty() && tell_wait(who, "waitpid", "for the end of a child");
#ifdef SYS_nanosleep
        case SYS_nanosleep:
#endif
        case SYS_clock_nanosleep:
            if (mappings_of(who).empty()) return false;
            if (known.insert("sleeps: " + to_string(who->number)).second) {
                say(who, "nanosleep: sleeps for a time; nobody can wake it (told once)");
                because("no store and no call of others wakes it");
            }
            return true;
#ifdef SYS_unlink
        case SYS_unlink:
            noted[who] = object_at(absolute(who, kHere, a[0]));
            return false;
#endif
        case SYS_unlinkat:
            noted[who] = object_at(absolute(who, a[0], a[1]));
            return false;
        case SYS_close:
            noted[who] = file_of(who, number(a[0])).key;
            return false;
        case SYS_munmap:
        case SYS_msync:
        case SYS_shmdt:
            if (mapping != nullptr) noted[who] = mapping->name;
            return false;
    }
    return false;
}

static void opened(const Tracee* who, uint64_t directory, const uint64_t* a) {
    const string path = absolute(who, directory, a[0]);
    const bool okay = who->result >= 0, creates = a[1] & O_CREAT;
    const uint64_t access = a[1] & O_ACCMODE;
    const File file = okay ? file_of(who, to_string(who->result)) : File();
    // Files that are not in /dev/shm count if they may be mapped and written.
    if (!is_shm(path) && (access != O_RDWR || begins(path, "/dev/"))) return;
    if (okay && file.key.empty() && proc(who) != "/proc/?") return;
    string flags = access == O_RDWR ? "O_RDWR" : access == O_WRONLY ? "O_WRONLY" : "O_RDONLY";
    const std::pair<uint64_t, const char*> names[] = {
        {O_CREAT, "|O_CREAT"},       {O_EXCL, "|O_EXCL"},         {O_TRUNC, "|O_TRUNC"},
        {O_NOFOLLOW, "|O_NOFOLLOW"}, {O_NONBLOCK, "|O_NONBLOCK"}, {O_CLOEXEC, "|O_CLOEXEC"}};
    for (const auto& [bit, name] : names)
        if (a[1] & bit) flags += name;
    char mode[16] = "";
    if (creates) snprintf(mode, sizeof mode, ", %04o", static_cast<unsigned>(a[2]));
    say(who, "open(" + in_quotes(tracer->string(who, a[0])) + ", " + flags + mode + ")" + is(who));
    if (who->result == -EEXIST)
        because("the name is taken: its maker is at work, or has left it behind");
    if (okay)
        because(does(path, "open") + (creates && file.size == 0 ? "a new file of " : "a file of ") +
                to_string(file.size) + " bytes" + (is_shm(path) ? " on the tmpfs /dev/shm" : ""));
    if (okay) known.insert(file.key);
    if (okay && file.blocks == 0) blank.insert(file.key);
    if (okay && creates) made[path] = file.key;
    look("ls -l " + shell_word(path));
}

static void unlinked(const Tracee* who, const string& path) {
    const string key = noted[who];
    if (!is_shm(path) && known.count(key) == 0) return;
    say(who, "unlink(" + in_quotes(path) + ")" + is(who));
    if (who->result != 0) return look("ls -l " + shell_word(path));
    made.erase(path);
    for (const auto& [name, object] : made)
        if (object == key) {
            because("one of its names is gone");
            return look("ls -l " + shell_word(name));
        }
    const string gone = does(path, "unlink") + "the name is gone; ", fd = descriptor(who, key);
    if (!fd.empty()) {
        because(gone + "descriptor " + fd + " keeps the object");
        look("ls -l " + proc(who) + "/fd/" + fd);
    } else if (const Mapping* it = mapping_of(who, key)) {
        because(gone + "the mapping keeps the bytes");
        look("grep -F " + shell_word(it->name) + " " + proc(who) + "/maps");
    } else {
        because(gone + "this process had the object neither open nor mapped");
        look("ls " + shell_word(path) + " || echo gone");
    }
    read_mappings(who);
}

static void renamed(const Tracee* who, const string& from, const string& to, const char* call) {
    const string key = object_at(to);
    if (who->result != 0 || (!is_shm(to) && known.count(key) == 0)) return;
    say(who, call + ("(" + in_quotes(from) + ", " + in_quotes(to) + ") = 0"));
    because("whoever opens that name gets this object");
    known.insert(key);
    if (made.count(from)) made[to] = key;
    if (object_at(from).empty()) made.erase(from);
    read_mappings(who);
    look("ls -l " + shell_word(to));
}

static void sized(const Tracee* who, const string& call, const string& why) {
    const File file = file_of(who, number(who->argument[0]));
    if (!is_shm(file.name) && known.count(file.key) == 0) return;
    say(who, call + is(who));
    if (who->result == 0) because(why);
    look(file.removed ? "ls -lsL " + file.link : "ls -ls " + shell_word(file.name));
}

static void mapped(const Tracee* who) {
    const uint64_t* a = who->argument;
    const bool failed = who->result < 0 && who->result >= -4095, named = !(a[3] & MAP_ANONYMOUS);
    if (!(a[3] & MAP_SHARED)) return;
    read_mappings(who);
    const Mapping* it = mapping_at(who, static_cast<uint64_t>(who->result));
    if (!failed && it == nullptr && proc(who) != "/proc/?") return;  // the C library's own
    say(who, "mmap(NULL, " + to_string(a[1]) + ", " +
                 (a[2] & PROT_WRITE  ? "PROT_READ|PROT_WRITE"
                  : a[2] & PROT_READ ? "PROT_READ"
                                     : "PROT_NONE") +
                 ", MAP_SHARED" + (named ? "" : "|MAP_ANONYMOUS") + ", " + number(a[4]) + ", " +
                 to_string(a[5]) + ")" + is(who));
    if (it == nullptr) return;
    known.insert(it->key);
    because("memory now: " + (named ? it->name : "an object without a name, for children") +
            (it->writable ? "; rw-s: " : "; r--s: ") + "shared, stores reach all who map it");
    look("grep -F " + shell_word(it->name) + " " + proc(who) + "/maps");
}

static void unmapped(const Tracee* who, const string& call) {
    const string name = noted[who];
    read_mappings(who);
    if (name.empty()) return;
    say(who, call + "(" + name + ")" + is(who));
    if (begins(name, "segment ")) return look_at_segment(name.substr(8));
    because("these addresses are no memory any more; touching them is SIGSEGV");
    look("grep -F " + shell_word(name) + " " + proc(who) + "/maps || echo gone");
}

static void closed(const Tracee* who) {
    if (known.count(noted[who]) == 0) return;
    say(who, "close(" + number(who->argument[0]) + ")" + is(who));
    if (mapping_of(who, noted[who]))
        because("the mapping keeps the object; the descriptor has done its work");
    look("ls " + proc(who) + "/fd");
}

static void segment_found(const Tracee* who) {
    const uint64_t* a = who->argument;
    char call[100];
    snprintf(call, sizeof call, "shmget(0x%x, %ju, %s%s0%o)", static_cast<unsigned>(a[0]),
             uintmax_t{a[1]}, a[2] & IPC_CREAT ? "IPC_CREAT|" : "",
             a[2] & IPC_EXCL ? "IPC_EXCL|" : "", static_cast<unsigned>(a[2] & 0777));
    say(who, call + is(who));
    if (who->result == -EEXIST) because("the key is taken");
    if (who->result < 0) return;
    const string id = to_string(who->result), key = "segment " + id;
    shmid_ds it;
    const bool ours = shmctl(static_cast<int>(who->result), IPC_STAT, &it) == 0 &&
                      it.shm_cpid == who->pid && it.shm_lpid == 0;
    if (ours) made[key] = key;
    if (ours) blank.insert(key);
    because((ours ? "a new segment; its id is " : "its id is ") + id + ", its name is the key");
    look(row(id));
}

// The call that a process was in has returned.
static void returned(const Tracee* who) {
    const uint64_t* a = who->argument;
    const string id = number(a[0]);
    if (deadlines.count(who)) tracer->set_memory(who, a[3], deadlines[who]);
    deadlines.erase(who);
    switch (who->call) {
#ifdef SYS_open
        case SYS_open:
            return opened(who, kHere, a);
        case SYS_unlink:
            return unlinked(who, absolute(who, kHere, a[0]));
        case SYS_rename:
            return renamed(who, absolute(who, kHere, a[0]), absolute(who, kHere, a[1]), "rename");
        case SYS_link:
            return renamed(who, absolute(who, kHere, a[0]), absolute(who, kHere, a[1]), "link");
#endif
#ifdef SYS_alarm
        case SYS_alarm:
#endif
        case SYS_setitimer:
            if (step) say(who, "sets a deadline, SIGALRM: it runs on while you step");
            return;
        case SYS_openat:
            return opened(who, a[0], a + 1);
        case SYS_unlinkat:
            return unlinked(who, absolute(who, a[0], a[1]));
#ifdef SYS_renameat
        case SYS_renameat:
#endif
        case SYS_renameat2:
            return renamed(who, absolute(who, a[0], a[1]), absolute(who, a[2], a[3]), "rename");
        case SYS_linkat:
            return renamed(who, absolute(who, a[0], a[1]), absolute(who, a[2], a[3]), "link");
        case SYS_memfd_create:
            say(who, "memfd_create()" + is(who));
            because("an object without a name: only its descriptor leads to it");
            known.insert(file_of(who, to_string(who->result)).key);
            blank.insert(file_of(who, to_string(who->result)).key);
            return look("ls -l " + proc(who) + "/fd/" + to_string(who->result));
        case SYS_ftruncate:
            return sized(who, "ftruncate(" + id + ", " + to_string(a[1]) + ")",
                         "its size; the pages get memory when they are touched");
        case SYS_fallocate:
            return sized(who,
                         "fallocate(" + id + ", " + to_string(a[1]) + ", " + to_string(a[2]) +
                             ", " + to_string(a[3]) + ")",
                         "what posix_fallocate does: all pages have memory now, or it is ENOSPC");
        case SYS_mmap:
            return mapped(who);
        case SYS_mremap:
            return read_mappings(who);
        case SYS_munmap:
            return unmapped(who, "munmap");
        case SYS_shmdt:
            return unmapped(who, "shmdt");
        case SYS_msync:
            if (!noted[who].empty()) say(who, "msync(" + noted[who] + ")" + is(who));
            return;
        case SYS_close:
            return closed(who);
        case SYS_read:
        case SYS_pread64:
            return tell_stores(who, "by read()");
        case SYS_shmget:
            return segment_found(who);
        case SYS_shmat:
            read_mappings(who);
            say(who,
                "shmat(" + id + ", NULL, " + (a[2] & SHM_RDONLY ? "SHM_RDONLY)" : "0)") + is(who));
            because("memory now, shared; nattch counts who has it attached");
            return look_at_segment(id);
        case SYS_shmctl:
            if ((a[1] & 0xff) != IPC_RMID) return;
            say(who, "shmctl(" + id + ", IPC_RMID)" + is(who));
            if (who->result != 0) return;
            made.erase("segment " + id);
            doomed.insert("segment " + id);
            read_mappings(who);
            because("the key is gone; status dest: who has it attached keeps the bytes");
            return look_at_segment(id);
        case SYS_futex: {
            const Mapping* it = mapping_at(who, a[0]);
            if (it == nullptr || !futex_waits(who)) return;
            say(who, futex(who, *it, "FUTEX_WAIT") + is(who));
            return because(who->result == 0         ? "woken"
                           : who->result == -EAGAIN ? "the bytes had changed before it could sleep"
                                                    : "not woken by others");
        }
#ifdef SYS_semop
        case SYS_semop:
#endif
#ifdef SYS_semtimedop
        case SYS_semtimedop:
#endif
            return say(who, "semop(" + id + ")" + is(who));
        case SYS_wait4:
            if (who->result > 0 && !mappings_of(who).empty()) say(who, "waitpid()" + is(who));
            return;
        case SYS_kill:
            return say(who,
                       "kill(" + id + ", " + strsignal(static_cast<int>(a[1])) + ")" + is(who));
    }
}

static void forked(const Tracee* who, const Tracee* child) {
    if (child->thread) return say(who, "starts thread " + to_string(child->pid));
    say(who, "fork() = " + to_string(child->pid));
    read_mappings(child);
    if (mappings_of(child).empty()) return;
    const Mapping& it = mappings_of(child).back();
    because(label(child) + " has the same mappings: both see the same bytes");
    look(begins(it.key, "segment ") ? row(it.key.substr(8))
                                    : "grep -F " + shell_word(it.name) + " " + proc(who) +
                                          "/maps " + proc(child) + "/maps");
}

static void ended(const Tracee* who) {
    if (who->thread) return;
    say(who, WIFSIGNALED(who->status) ? string("killed: ") + strsignal(WTERMSIG(who->status))
                                      : "exit(" + to_string(WEXITSTATUS(who->status)) + ")");
    const std::vector<Mapping> its = mappings_of(who);
    mappings.erase(who);
    for (const Mapping& it : its) {
        bool last = it.removed;
        for (const Tracee& other : tracer->tracees)
            last = last && (other.ended || mapping_of(&other, it.key) == nullptr);
        because("its mapping of " + it.name + " has ended with it" +
                (last ? "; the last one: the kernel frees it" : ""));
    }
}

// Whether the signal that it is about to get is a terminal's, as by Ctrl-C.
static bool from_terminal(const Tracee* who) {
    siginfo_t it = {};
    return ptrace(PTRACE_GETSIGINFO, who->pid, nullptr, &it) == 0 && it.si_code == SI_KERNEL;
}

// Tells what has happened; returns whether a process has begun to wait.
static bool tell(const Event& event) {
    Tracee* who = event.who;
    switch (event.what) {
        case Event::enters:
            if (!who->foreign) return entered(who);
            if (known.insert("foreign: " + to_string(who->number)).second)
                say(who, "a 32-bit program: its calls have other numbers and cannot be told");
            return false;
        case Event::returns:
            if (!who->foreign) returned(who);
            return false;
        case Event::executes:
            if (!mappings_of(who).empty()) say(who, "execve: the new program has no such mapping");
            read_mappings(who);
            return false;
        case Event::forks:
            forked(who, event.child);
            return false;
        case Event::ended:
            ended(who);
            return true;
        case Event::stops:
            say(who, "stopped, until SIGCONT");
            return false;
        case Event::continues:
            say(who, "continues");
            return false;
        case Event::signalled:
            // Once for each process: it may get its next one before we get ours.
            if (who->signal == SIGINT && (step || resumes) && from_terminal(who) &&
                known.insert("spared: " + to_string(who->number)).second) {
                who->signal = 0;
                return false;
            }
            if (who->signal != SIGCHLD)
                say(who, string("gets a signal: ") + strsignal(who->signal) +
                             (who->signal == SIGBUS ? " (beyond the object's end)" : ""));
            return false;
        default:
            return false;
    }
}

static int explain(const std::vector<string>& words) {
    Tracer all(words);
    tracer = &all;
    const string at = proc(&all.tracees[0]);
    if (at == "/proc/?")
        fprintf(stderr, "there is no /proc: mappings, stores and descriptors cannot be told\n");
    else if (at != "/proc/" + to_string(all.tracees[0].pid))
        fprintf(stderr,
                "/proc is of another PID namespace: commands have the numbers of that one.\n"
                "To have one's own: unshare -Urp --fork --mount-proc\n");
    // After a fork the parent stands until the child waits or has ended, or for a moment.
    Tracee* parent = nullptr;
    const Tracee* child = nullptr;
    long until = 0;
    for (Event event; (event = all.next(parent ? 10 : 50)).what != Event::over;) {
        pass_on();
        const bool waits = tell(event);
        if (parent && ((event.who == child && waits) || Tracer::now() >= until)) {
            all.go_on(parent);
            parent = nullptr;
        }
        if (event.what == Event::forks && !parent && !event.child->thread) {
            parent = event.who;
            child = event.child;
            until = Tracer::now() + 100;
        } else {
            all.go_on(event.who);
        }
    }
    for (const auto& [name, key] : made) {
        const bool segment = begins(name, "segment ");
        if (!segment && object_at(name) != key) continue;
        fprintf(stderr, "stays behind: %s; this removes it:\n", name.c_str());
        fprintf(stderr, "    $ %s\n",
                (segment ? "ipcrm -m " + name.substr(8) : "rm " + shell_word(name)).c_str());
    }
    const int status = all.tracees[0].status;
    tracer = nullptr;  // `all` ends here
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void signalled(int signal, siginfo_t* from, void*) {
    if (from->si_code != SI_KERNEL) asked[signal] = 1;  // a terminal's Ctrl-C goes to both
    if (from->si_code == SI_KERNEL) resumes = step;     // this one means us alone
    if (signal != SIGUSR1 && signal != SIGUSR2 && signal != SIGALRM) step = 0;
}

int main(int argc, char** argv) {
    step = argc > 1 && strcmp(argv[1], "--step") == 0;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        printf("%s", kUsage);
        return fflush(stdout) != 0;
    }
    const std::vector<string> words(argv + 1 + step, argv + argc);
    if (words.empty() || begins(words[0], "-")) {
        fprintf(stderr, "%s", kUsage);
        return 2;
    }
    // 32 bits: other calls, and a size in two arguments.
    if (sizeof(long) < 8) errx(1, "knows only the system calls of 64-bit machines");
    for (int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM}) {
        struct sigaction action, before;
        sigaction(signal, nullptr, &before);
        if (before.sa_handler == SIG_IGN) continue;  // as nohup(1) wants it
        action = {};
        action.sa_sigaction = signalled;
        action.sa_flags = SA_SIGINFO;
        sigaction(signal, &action, nullptr);
    }
    try {
        return explain(words);
    } catch (const std::system_error& error) {
        errx(1, "%s", error.what());
    }
}
