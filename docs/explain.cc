// Tells what a program, one of ours or yours, asks of the kernel about shared memory, and the shell
// command that shows the same from outside:
//
//     docs/explain shm_posix/shm_posix          docs/explain --step ./yours and its arguments
//
// The program is not changed: we see its system calls as they come and go (tests/trace.h). What it
// stores in shared memory is no call: we compare the bytes with those that we saw last.

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "../common/process.h"
#include "../tests/trace.h"

constexpr char kUsage[] =
    "usage: docs/explain [--step] PROGRAM [ARGUMENTS...]\n"
    "  --step  wait for Enter at each command, so that you can type it in a second terminal;\n"
    "          Ctrl-C runs on to the end. Until then all processes of the program stand still at\n"
    "          their next system call, and waits for a semaphore or futex get an hour more.\n"
    "Speaks on stderr. Exit status: the program's, or 128 + the signal that ended it.\n"
    "After a fork the child goes first, for at most 0.1 s, so that one sees it wait. Stores are\n"
    "looked for in the first MiB of each object.\n";

// A shared mapping, as /proc/PID/maps has it.
struct Mapping {
    uint64_t begin, end, offset;
    bool writable;
    std::string key;   // of the object: "inode 7", "segment 7"
    std::string name;  // for people: /dev/shm/tmp, segment 7
    bool removed;      // that name is gone
};

static Tracer* tracer;
static bool step;
static volatile sig_atomic_t asked[65];  // signals that came for the program

static std::map<const Tracee*, std::vector<Mapping>> mappings;        // of each process
static std::map<std::string, std::map<uint64_t, std::string>> bytes;  // of each object, by offset
static std::set<std::string> objects;                   // keys of those that we have told of
static std::set<std::string> fresh;                     // and of those that began with zeros
static std::map<std::string, std::string> stays;        // names that were made: keys
static std::map<const Tracee*, std::string> noted;      // at the call's entry, for its return
static std::map<const Tracee*, std::string> deadlines;  // of waits, to be set back

static const Tracee* process_of(const Tracee* who) {
    return who->thread ? process_of(who->parent) : who;
}

static std::string link_at(const std::string& path) {
    char text[PATH_MAX] = "";
    return readlink(path.c_str(), text, sizeof text - 1) == -1 ? "" : text;
}

// The process's directory, /proc/PID. In a PID namespace that has no /proc of its own the process
// has another number there [pid_namespaces(7)]; "/proc/?" if it cannot be found.
static std::string proc(const Tracee* who) {
    static std::map<const Tracee*, std::string> known;
    std::string& path = known[who];
    const std::string pid = std::to_string(who->pid), end = "\t" + pid;
    if (!path.empty()) return path;
    if (link_at("/proc/self") == std::to_string(getpid())) return path = "/proc/" + pid;
    DIR* all = opendir("/proc");
    for (const dirent* it; all != nullptr && (it = readdir(all)) != nullptr;) {
        const std::string at = std::string("/proc/") + it->d_name;
        if (!isdigit(it->d_name[0]) || link_at(at + "/ns/pid") != link_at("/proc/self/ns/pid"))
            continue;
        std::ifstream status(at + "/status");
        for (std::string line; std::getline(status, line);)
            if (line.rfind("NSpid:", 0) == 0 && line.size() > end.size() &&
                line.substr(line.size() - end.size()) == end)
                path = at;
    }
    if (all != nullptr) closedir(all);
    return path.empty() ? "/proc/?" : path;
}

// "parent 123", "child 124".
static std::string label(const Tracee* who) {
    const bool alone = tracer->tracees.size() == 1;
    const std::string pid = std::to_string(who->pid), at = proc(who);
    return (who->thread        ? "thread "
            : who->number != 0 ? "child "
            : alone            ? "program "
                               : "parent ") +
           pid + (at == "/proc/" + pid || at == "/proc/?" ? "" : " (" + at + ")");
}

__attribute__((format(printf, 2, 3))) static void say(const Tracee* who, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[600];
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (who != nullptr) fprintf(stderr, "%s: %s\n", label(who).c_str(), text);
    if (who == nullptr) fprintf(stderr, "    %s\n", text);  // the reason
}

// Hands signals on to the program, or to what has outlived it.
static void pass_on() {
    for (int number = 1; number < 65; ++number) {
        if (!asked[number]) continue;
        asked[number] = 0;
        const bool first = !tracer->tracees[0].ended;
        for (Tracee& it : tracer->tracees)
            if (!it.ended && (it.number == 0 || !first)) tracer->send(&it, number);
    }
}

// The command that shows what was just told; with --step, waits for Enter.
static void look(const std::string& command) {
    if (command.find("/proc/?") != std::string::npos) return;
    static bool told = false;
    fprintf(stderr, "    $ %s\n", command.c_str());
    if (step && !told)
        fprintf(stderr, "    (type that in a second terminal; Enter goes on here)\n");
    told = true;
    for (char c = 0; step && c != '\n';) {
        const ssize_t got = read(STDIN_FILENO, &c, 1);
        if (got == -1 && errno == EINTR)
            pass_on();
        else if (got != 1)
            break;
    }
}

static std::string joined(const char* format, intmax_t number) {
    char text[64];
    snprintf(text, sizeof text, format, number);
    return text;
}

// A result as the manual has it.
static std::string outcome(const Tracee* who) {
    if (who->result < 0 && who->result >= -4095)
        return std::string("-1: ") + strerror(static_cast<int>(-who->result));
    return joined(who->result > 1L << 32 ? "%#jx" : "%jd", who->result);
}

static bool is_shm(const std::string& path) { return path.rfind("/dev/shm/", 0) == 0; }

// A path that the program gave, from the root on.
static std::string absolute(const Tracee* who, uint64_t directory, uint64_t address) {
    std::string text = tracer->string(who, address);
    if (text.rfind("./", 0) == 0) text = text.substr(2);
    if (text[0] == '/') return text;
    const int fd = static_cast<int>(directory);
    return link_at(proc(who) + (fd == AT_FDCWD ? "/cwd" : "/fd/" + std::to_string(fd))) + "/" +
           text;
}

static std::string key_of(const struct stat& it) { return "inode " + std::to_string(it.st_ino); }

static std::string key_at(const std::string& path) {
    struct stat it;
    return lstat(path.c_str(), &it) == -1 ? "" : key_of(it);
}

// An open file of a process.
struct File {
    std::string link, name, key;  // /proc/PID/fd/3, /dev/shm/tmp, "inode 7"; key "": no such file
    bool removed = false;
    off_t size = 0, blocks = 0;
    // What the shell can call it.
    std::string word() const { return removed ? link : shell_word(name); }
};

static File file_of(const Tracee* who, uint64_t fd) {
    File file;
    struct stat it;
    file.link = proc(who) + "/fd/" + std::to_string(static_cast<int>(fd));
    file.name = link_at(file.link);
    if (stat(file.link.c_str(), &it) == -1 || !S_ISREG(it.st_mode)) return file;
    file.key = key_of(it);
    file.size = it.st_size;
    file.blocks = it.st_blocks;
    file.removed = key_at(file.name) != file.key;
    const std::string mark = " (deleted)";
    if (file.removed && file.name.size() > mark.size())
        file.name.resize(file.name.size() - mark.size());
    return file;
}

// The descriptor by which a process has an object open, if it has.
static std::string open_at(const Tracee* who, const std::string& key) {
    std::string found;
    DIR* all = opendir((proc(who) + "/fd").c_str());
    for (const dirent* it; all != nullptr && (it = readdir(all)) != nullptr;)
        if (isdigit(it->d_name[0]) && file_of(who, strtoul(it->d_name, nullptr, 10)).key == key)
            found = it->d_name;
    if (all != nullptr) closedir(all);
    return found;
}

// Reads which shared mappings a process has now.
static void read_mappings(const Tracee* who) {
    std::vector<Mapping>& all = mappings[process_of(who)];
    all.clear();
    std::ifstream maps(proc(who) + "/maps");
    for (std::string line; std::getline(maps, line);) {
        uint64_t begin, end, offset;
        unsigned long inode;
        char mode[8];
        int name = 0;
        if (sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %lu %n", &begin, &end,
                   mode, &offset, &inode, &name) < 5 ||
            mode[3] != 's')
            continue;
        Mapping it = {begin, end, offset, mode[1] == 'w', "", line.substr(name), false};
        const bool segment = it.name.rfind("/SYSV", 0) == 0;
        const bool library = it.name.rfind("/usr/", 0) == 0 && mode[1] != 'w';
        if (library) continue;
        it.key = (segment ? "segment " : "inode ") + std::to_string(inode);
        const size_t mark = it.name.find(" (deleted)");
        if (segment) {
            shmid_ds now;
            it.name = it.key;
            it.removed = shmctl(static_cast<int>(inode), IPC_STAT, &now) == 0 &&
                         (now.shm_perm.mode & SHM_DEST);
        } else if (mark != std::string::npos) {
            it.removed = true;
            it.name.resize(mark);
        }
        if (it.name == "/dev/zero") fresh.insert(it.key);
        // What an older object holds is read once; that may give its holes a page.
        if (bytes.count(it.key) == 0 && fresh.count(it.key) == 0) {
            const size_t size = std::min<size_t>(end - begin, 1 << 20);
            for (size_t at = 0; at < size; at += 4096)
                bytes[it.key][offset + at] = tracer->memory(who, begin + at, 4096);
        }
        all.push_back(it);
    }
}

static const Mapping* mapping_at(const Tracee* who, uint64_t address) {
    for (const Mapping& it : mappings[process_of(who)])
        if (address >= it.begin && address < it.end) return &it;
    return nullptr;
}

// The shell's words for bytes of a mapping, which may have no name any more.
static std::string bytes_command(const Tracee* who, const Mapping& it, uint64_t from,
                                 uint64_t size) {
    const std::string fd = it.key[0] == 'i' ? open_at(who, it.key) : "";
    if (it.key[0] == 'i' && (!it.removed || !fd.empty()))
        return "od -A d -c -j " + std::to_string(from - it.begin + it.offset) + " -N " +
               std::to_string(size) + " " +
               (it.removed ? proc(who) + "/fd/" + fd : shell_word(it.name));
    // Yama, as in Ubuntu, lets only root read the memory of others.
    int yama = 0;
    std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> yama;
    return (yama > 0 && geteuid() != 0 ? "sudo dd if=" : "dd if=") + proc(who) +
           "/mem bs=1 skip=" + std::to_string(from) + " count=" + std::to_string(size) +
           " status=none | od -A d -c";
}

// Bytes as od -c shows them.
static std::string as_text(const std::string& part) {
    std::string text;
    for (const char c : part)
        text += c > 31 && c < 127 ? std::string(1, c)
                                  : joined("\\%03jo", static_cast<unsigned char>(c));
    return text;
}

// Tells of bytes that are not what they were. Only pages that the process has touched are read: so
// our look gives none to an object.
static void tell_stores(const Tracee* who, const char* how) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const int map = open((proc(who) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    for (const Mapping& it : mappings[process_of(who)]) {
        std::vector<uint64_t> touched(std::min<size_t>(it.end - it.begin, 1 << 20) / page);
        if (!it.writable || pread(map, touched.data(), touched.size() * 8,
                                  static_cast<off_t>(it.begin / page * 8)) == -1)
            continue;
        std::string text;
        uint64_t first = 0, last = 0;
        int ranges = 0;
        for (size_t i = 0; i < touched.size(); ++i) {
            if (touched[i] >> 62 == 0) continue;  // neither present nor swapped [pagemap]
            const std::string now = tracer->memory(who, it.begin + i * page, page);
            std::string& before = bytes[it.key][it.offset + i * page];
            before.resize(now.size());
            for (size_t from = 0, to; from < now.size(); from = to + 1) {
                for (to = from; to < now.size() && now[to] != before[to]; ++to) continue;
                if (to == from) continue;
                if (ranges == 0) first = it.begin + i * page + from;
                if (first / page == it.begin / page + i) last = it.begin + i * page + to;
                if (++ranges > 6) continue;
                text += (ranges > 1 ? ", " : "") + std::to_string(it.offset + i * page + from);
                if (to - from > 1) text += "-" + std::to_string(it.offset + i * page + to - 1);
                text += " \"" + as_text(now.substr(from, std::min<size_t>(to - from, 16))) +
                        (to - from > 16 ? "..." : "") + "\"";
            }
            before = now;
        }
        if (ranges == 0) continue;
        if (ranges > 6) text += " and more";
        std::string others;
        for (const Tracee& other : tracer->tracees)
            if (!other.ended && other.state == Tracee::runs && !other.in_call)
                for (const Mapping& its : mappings[process_of(&other)])
                    if (process_of(&other) != process_of(who) && its.key == it.key && its.writable)
                        others = ", by it or by " + label(&other);
        say(who, "stored, %s%s, in %s:", how, others.c_str(), it.name.c_str());
        say(nullptr, "%s %s", ranges == 1 && last == first + 1 ? "byte" : "bytes", text.c_str());
        look(bytes_command(who, it, first, std::min<uint64_t>(last - first, 256)));
    }
    close(map);
}

// Whether a process that has just been let go on sleeps in its call.
static bool sleeps(Tracee* who) {
    tracer->go_on(who);
    for (int i = 0; i < 50; ++i) {
        std::ifstream stat(proc(who) + "/stat");
        std::string text;
        std::getline(stat, text);
        const size_t at = text.rfind(')');
        const char state = at == std::string::npos ? '?' : text[at + 2];
        if (state == 'S') return true;
        if (state == 't') return false;
        usleep(1000);
    }
    return false;
}

// Tells that a process waits, if it does. `deadline` is where it has one, or 0.
static bool tell_wait(Tracee* who, const std::string& call, const std::string& why,
                      uint64_t deadline) {
    const char* note = nullptr;
    if (step && deadline != 0) {
        const std::string before = tracer->memory(who, deadline, sizeof(timespec));
        timespec later;
        memcpy(&later, before.data(), std::min(before.size(), sizeof later));
        later.tv_sec += 3600;
        const std::string after(reinterpret_cast<char*>(&later), sizeof later);
        if (tracer->set_memory(who, deadline, after)) deadlines[who] = before;
        note = deadlines.count(who) ? "its deadline gets an hour more, as you step"
                                    : "its deadline runs on while you step";
    }
    if (!sleeps(who)) return false;
    say(who, "%s: %s waits", call.c_str(),
        who->thread        ? "the thread"
        : who->number != 0 ? "the child"
                           : "it");
    say(nullptr, "%s", why.c_str());
    if (note != nullptr) say(nullptr, "%s", note);
    look("grep State " + proc(who) + "/status");
    return true;
}

static std::string futex_name(const Tracee* who, const Mapping& it) {
    return "futex(byte " + std::to_string(who->argument[0] - it.begin + it.offset) + " of " +
           it.name;
}

static bool futex_waits(const Tracee* who) {
    const uint64_t what = who->argument[1] & FUTEX_CMD_MASK;
    return what == FUTEX_WAIT || what == FUTEX_WAIT_BITSET || what == FUTEX_LOCK_PI;
}

// The row of a segment, found by its id: after IPC_RMID its key is 0.
static std::string row(const std::string& id) {
    return "ipcs -m | awk 'NR == 3 || $2 == " + id + "'";
}

static void look_at_segment(const std::string& id) {
    shmid_ds it;
    const bool gone =
        shmctl(static_cast<int>(strtol(id.c_str(), nullptr, 10)), IPC_STAT, &it) == -1 &&
        (errno == EINVAL || errno == EIDRM);
    if (gone) say(nullptr, "nobody has it any more: the kernel has freed it");
    look(gone ? "ipcs -m -i " + id : row(id));
}

// Whether it began to wait.
static bool entered(Tracee* who) {
    const uint64_t* a = who->argument;
    tell_stores(who, "without a system call");
    noted[who].clear();
    const Mapping* mapping = mapping_at(who, a[0]);
    switch (who->call) {
        case SYS_futex:
            if (mapping != nullptr && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) {
                say(who, "%s, FUTEX_WAKE)", futex_name(who, *mapping).c_str());
                say(nullptr, "what sem_post does: wakes one that sleeps there");
            }
            if (mapping == nullptr || !futex_waits(who)) return false;
            return tell_wait(who, futex_name(who, *mapping) + ", FUTEX_WAIT)",
                             "what sem_wait does: it sleeps until somebody wakes it (FUTEX_WAKE)",
                             a[3]);
        case SYS_semop:
        case SYS_semtimedop:
            return tell_wait(who, "semop(" + std::to_string(a[0]) + ")",
                             "until the System V semaphore is raised",
                             who->call == SYS_semtimedop ? a[3] : 0);
        case SYS_wait4:
        case SYS_waitid:
            return tell_wait(who, "waitpid", "for the end of a child", 0);
#ifdef SYS_nanosleep
        case SYS_nanosleep:
#endif
        case SYS_clock_nanosleep:
            if (mappings[process_of(who)].empty() ||
                !objects.insert("sleep " + std::to_string(who->number)).second)
                return false;
            return tell_wait(who, "nanosleep",
                             "for a time: no store and no call of others wakes it (told once)", 0);
#ifdef SYS_unlink
        case SYS_unlink:
            noted[who] = key_at(absolute(who, AT_FDCWD, a[0]));
            return false;
#endif
        case SYS_unlinkat:
            noted[who] = key_at(absolute(who, a[0], a[1]));
            return false;
        case SYS_close:
            noted[who] = file_of(who, a[0]).key;
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
    const std::string path = absolute(who, directory, a[0]);
    const File file = file_of(who, static_cast<uint64_t>(who->result));
    const bool ours = is_shm(path), okay = who->result >= 0;
    const uint64_t flags = a[1];
    if (!ours && ((flags & O_ACCMODE) != O_RDWR || path.rfind("/dev/", 0) == 0)) return;
    if (okay && file.key.empty() && proc(who) != "/proc/?") return;  // no regular file
    std::string text = "open(\"" + tracer->string(who, a[0]) + "\", ";
    text += (flags & O_ACCMODE) == O_RDWR     ? "O_RDWR"
            : (flags & O_ACCMODE) == O_WRONLY ? "O_WRONLY"
                                              : "O_RDONLY";
    const std::pair<int, const char*> known[] = {
        {O_CREAT, "O_CREAT"},       {O_EXCL, "O_EXCL"},         {O_TRUNC, "O_TRUNC"},
        {O_NOFOLLOW, "O_NOFOLLOW"}, {O_NONBLOCK, "O_NONBLOCK"}, {O_CLOEXEC, "O_CLOEXEC"}};
    for (const auto& [bit, name] : known)
        if (flags & static_cast<unsigned>(bit)) text += std::string("|") + name;
    if (flags & O_CREAT) text += joined(", %04jo", static_cast<intmax_t>(a[2]));
    say(who, "%s) = %s", text.c_str(), outcome(who).c_str());
    const char* does = path.rfind("/dev/shm/sem.", 0) == 0 ? "what sem_open does: "
                       : ours                              ? "what shm_open does: "
                                                           : "";
    const char* where = ours ? "on the tmpfs /dev/shm" : "on a disk, or where it lies";
    if (who->result == -EEXIST)
        say(nullptr, "the name is taken: its maker is at work, or has left it behind");
    else if (okay && flags & O_CREAT && file.size == 0)
        say(nullptr, "%sa new file of 0 bytes %s", does, where);
    else if (okay)
        say(nullptr, "%sa file of %jd bytes %s", does, intmax_t{file.size}, where);
    if (okay) objects.insert(file.key);
    if (okay && file.blocks == 0) fresh.insert(file.key);
    if (okay && flags & O_CREAT) stays[path] = file.key;
    look("ls -l " + shell_word(path));
}

static void unlinked(const Tracee* who, const std::string& path) {
    const std::string key = noted[who];
    if (!is_shm(path) && objects.count(key) == 0) return;
    say(who, "unlink(\"%s\") = %s", path.c_str(), outcome(who).c_str());
    if (who->result != 0) return look("ls -l " + shell_word(path));
    stays.erase(path);
    const char* does = path.rfind("/dev/shm/sem.", 0) == 0 ? ""
                       : is_shm(path)                      ? "what shm_unlink does: "
                                                           : "";
    const std::string fd = open_at(who, key);
    if (!fd.empty()) {
        say(nullptr, "%sthe name is gone; descriptor %s keeps the object", does, fd.c_str());
        return look("ls -l " + proc(who) + "/fd/" + fd);
    }
    for (const Mapping& it : mappings[process_of(who)])
        if (it.key == key) {
            say(nullptr, "%sthe name is gone; the mapping keeps the bytes", does);
            return look("grep -F " + shell_word(path) + " " + proc(who) + "/maps");
        }
    say(nullptr, "%sthe name is gone; this process had the object neither open nor mapped", does);
    look("ls " + shell_word(path) + " || echo gone");
}

static void renamed(const Tracee* who, const std::string& from, const std::string& to, bool link) {
    const std::string key = key_at(to);
    if (who->result != 0 || (!is_shm(to) && objects.count(key) == 0)) return;
    say(who, "%s(\"%s\", \"%s\") = 0", link ? "link" : "rename", from.c_str(), to.c_str());
    say(nullptr,
        link ? "one more name for the object" : "whoever opens that name gets this object");
    objects.insert(key);
    if (stays.count(from)) stays[to] = key;
    if (!link) stays.erase(from);
    look("ls -l " + shell_word(to));
}

static void sized(const Tracee* who, const std::string& call, const char* why) {
    const File file = file_of(who, who->argument[0]);
    if (!is_shm(file.name) && objects.count(file.key) == 0) return;
    say(who, "%s = %s", call.c_str(), outcome(who).c_str());
    if (who->result == 0) say(nullptr, "%s", why);
    look((file.removed ? "ls -lsL " : "ls -ls ") + file.word());
}

static void mapped(const Tracee* who) {
    const uint64_t* a = who->argument;
    if (!(a[3] & MAP_SHARED)) return;
    read_mappings(who);
    const bool failed = who->result < 0 && who->result >= -4095;
    const Mapping* it = failed ? nullptr : mapping_at(who, static_cast<uint64_t>(who->result));
    if (!failed && it == nullptr && proc(who) != "/proc/?") return;  // the C library's own
    const bool named = !(a[3] & MAP_ANONYMOUS);
    const std::string fd = named ? std::to_string(static_cast<int>(a[4])) : "-1";
    say(who, "mmap(NULL, %ju, %s, MAP_SHARED%s, %s, %ju) = %s", uintmax_t{a[1]},
        a[2] & PROT_WRITE  ? "PROT_READ|PROT_WRITE"
        : a[2] & PROT_READ ? "PROT_READ"
                           : "PROT_NONE",
        named ? "" : "|MAP_ANONYMOUS", fd.c_str(), uintmax_t{a[5]}, outcome(who).c_str());
    if (it == nullptr) return;
    objects.insert(it->key);
    const std::string what = named ? it->name : "an object without a name, for children";
    say(nullptr, "memory now: %s; %s: shared, a store is seen by all who map it", what.c_str(),
        it->writable ? "rw-s" : "r--s");
    look("grep -F " + shell_word(it->name) + " " + proc(who) + "/maps");
}

static void closed(const Tracee* who) {
    if (objects.count(noted[who]) == 0) return;
    say(who, "close(%d) = %s", static_cast<int>(who->argument[0]), outcome(who).c_str());
    for (const Mapping& it : mappings[process_of(who)])
        if (it.key == noted[who]) {
            say(nullptr, "the mapping keeps the object; the descriptor has done its work");
            break;
        }
    look("ls " + proc(who) + "/fd");
}

static void unmapped(const Tracee* who, const char* call) {
    const std::string name = noted[who];
    read_mappings(who);
    if (name.empty()) return;
    say(who, "%s(%s) = %s", call, name.c_str(), outcome(who).c_str());
    if (name.rfind("segment ", 0) == 0) return look_at_segment(name.substr(8));
    say(nullptr, "these addresses are no memory any more; touching them is SIGSEGV");
    look("grep -F " + shell_word(name) + " " + proc(who) + "/maps || echo gone");
}

static void futex_returned(const Tracee* who) {
    const Mapping* it = mapping_at(who, who->argument[0]);
    if (it == nullptr || !futex_waits(who)) return;
    say(who, "%s, FUTEX_WAIT) = %s", futex_name(who, *it).c_str(), outcome(who).c_str());
    say(nullptr, who->result == 0         ? "woken"
                 : who->result == -EAGAIN ? "the bytes had changed before it could sleep"
                                          : "not woken: it goes on for another reason");
}

static void segment_made(const Tracee* who) {
    const uint64_t* a = who->argument;
    const bool creates = a[2] & IPC_CREAT;
    say(who, "shmget(%#jx, %ju, %s%s0%jo) = %s", uintmax_t{a[0] & 0xffffffff}, uintmax_t{a[1]},
        creates ? "IPC_CREAT|" : "", a[2] & IPC_EXCL ? "IPC_EXCL|" : "", uintmax_t{a[2] & 0777},
        outcome(who).c_str());
    if (who->result == -EEXIST) say(nullptr, "the key is taken");
    if (who->result < 0) return;
    const std::string id = std::to_string(who->result), key = "segment " + id;
    shmid_ds it;
    const bool ours = creates && shmctl(static_cast<int>(who->result), IPC_STAT, &it) == 0 &&
                      it.shm_cpid == who->pid && it.shm_lpid == 0;
    if (ours) stays[key] = key, fresh.insert(key);
    say(nullptr, "%s segment, its id is %s; who has the key gets this id", ours ? "a new" : "a",
        id.c_str());
    look(row(id));
}

// The call that a process was in has returned.
static void returned(const Tracee* who) {
    const uint64_t* a = who->argument;
    const std::string is = outcome(who), fd = std::to_string(static_cast<int>(a[0]));
    if (deadlines.count(who)) {
        tracer->set_memory(who, a[3], deadlines[who]);
        deadlines.erase(who);
    }
    switch (who->call) {
#ifdef SYS_open
        case SYS_open:
            return opened(who, static_cast<uint64_t>(AT_FDCWD), a);
        case SYS_unlink:
            return unlinked(who, absolute(who, static_cast<uint64_t>(AT_FDCWD), a[0]));
        case SYS_rename:
        case SYS_link:
            return renamed(who, absolute(who, static_cast<uint64_t>(AT_FDCWD), a[0]),
                           absolute(who, static_cast<uint64_t>(AT_FDCWD), a[1]),
                           who->call == SYS_link);
        case SYS_alarm:
#endif
        case SYS_setitimer:
            if (step) say(who, "a deadline by SIGALRM: it runs on while you step");
            return;
        case SYS_openat:
            return opened(who, a[0], a + 1);
        case SYS_unlinkat:
            return unlinked(who, absolute(who, a[0], a[1]));
        case SYS_renameat:
        case SYS_renameat2:
        case SYS_linkat:
            return renamed(who, absolute(who, a[0], a[1]), absolute(who, a[2], a[3]),
                           who->call == SYS_linkat);
        case SYS_memfd_create: {
            const File file = file_of(who, static_cast<uint64_t>(who->result));
            objects.insert(file.key);
            fresh.insert(file.key);
            say(who, "memfd_create() = %s", is.c_str());
            say(nullptr, "an object without a name: only its descriptor leads to it");
            return look("ls -l " + file.link);
        }
        case SYS_ftruncate:
            return sized(who, "ftruncate(" + fd + ", " + std::to_string(a[1]) + ")",
                         "the size of the object; it has memory for the pages that were touched");
        case SYS_fallocate:
            return sized(who,
                         "fallocate(" + fd + ", " + std::to_string(a[1]) + ", " +
                             std::to_string(a[2]) + ", " + std::to_string(a[3]) + ")",
                         "what posix_fallocate does: all its pages have memory, or ENOSPC now");
        case SYS_mmap:
            return mapped(who);
        case SYS_mremap:
            return read_mappings(who);
        case SYS_munmap:
            return unmapped(who, "munmap");
        case SYS_shmdt:
            return unmapped(who, "shmdt");
        case SYS_msync:
            if (!noted[who].empty())
                say(who, "msync(%s) = %s: written to its file now", noted[who].c_str(), is.c_str());
            return;
        case SYS_close:
            return closed(who);
        case SYS_read:
        case SYS_pread64:
            return tell_stores(who, "by read()");
        case SYS_shmget:
            return segment_made(who);
        case SYS_shmat:
            read_mappings(who);
            say(who, "shmat(%s, NULL, %s) = %s", fd.c_str(), a[2] & SHM_RDONLY ? "SHM_RDONLY" : "0",
                is.c_str());
            say(nullptr, "memory now, shared: nattch counts who has it attached");
            return look_at_segment(fd);
        case SYS_shmctl:
            if ((a[1] & 0xff) != IPC_RMID) return;
            say(who, "shmctl(%s, IPC_RMID) = %s", fd.c_str(), is.c_str());
            if (who->result != 0) return;
            stays.erase("segment " + fd);
            read_mappings(who);
            say(nullptr, "the key is gone; those who are attached keep the bytes: status dest");
            return look_at_segment(fd);
        case SYS_futex:
            return futex_returned(who);
        case SYS_wait4:
            if (who->result > 0) say(who, "waitpid() = %s", is.c_str());
            return;
        case SYS_semop:
        case SYS_semtimedop:
            return say(who, "semop(%s) = %s", fd.c_str(), is.c_str());
        case SYS_kill:
            return say(who, "kill(%s, %s) = %s", fd.c_str(), strsignal(static_cast<int>(a[1])),
                       is.c_str());
    }
}

static void forked(const Tracee* who, const Tracee* child) {
    if (child->thread) return say(who, "starts thread %d: it sees all its memory", child->pid);
    say(who, "fork() = %d", child->pid);
    read_mappings(child);
    const std::vector<Mapping>& all = mappings[child];
    if (all.empty()) return;
    say(nullptr, "%s has the same mappings: both see the same bytes", label(child).c_str());
    const Mapping& it = all.back();
    if (it.key[0] == 's') return look(row(it.key.substr(8)));
    look("grep -F " + shell_word(it.name) + " " + proc(who) + "/maps " + proc(child) + "/maps");
}

static void ended(const Tracee* who) {
    if (who->thread) return;
    if (WIFSIGNALED(who->status)) say(who, "killed: %s", strsignal(WTERMSIG(who->status)));
    if (WIFEXITED(who->status)) say(who, "exit(%d)", WEXITSTATUS(who->status));
    const std::vector<Mapping> its = mappings[who];
    mappings.erase(who);
    std::set<std::string> told;
    for (const Mapping& it : its) {
        bool last = it.removed;
        for (const auto& [other, all] : mappings)
            for (const Mapping& one : all) last = last && one.key != it.key;
        if (told.insert(it.key).second)
            say(nullptr, "its mapping of %s has ended with it%s", it.name.c_str(),
                last ? "; the last one: the kernel frees it" : "");
    }
}

static void signalled(int number, siginfo_t* from, void*) {
    // A terminal sends Ctrl-C to the program, too.
    if (from->si_code != SI_KERNEL) asked[number] = 1;
    if (number == SIGHUP || number == SIGINT || number == SIGQUIT || number == SIGTERM)
        step = false;
}

static void tell(Event event) {
    Tracee* who = event.who;
    if (event.what == Event::executes && !mappings[process_of(who)].empty())
        say(who, "execve: the new program has none of these mappings");
    if (event.what == Event::executes) read_mappings(who);
    if (event.what == Event::returns && !who->foreign) returned(who);
    if (event.what == Event::forks) forked(who, event.child);
    if (event.what == Event::ended) ended(who);
    if (event.what == Event::stops) say(who, "stopped, until SIGCONT");
    if (event.what == Event::continues) say(who, "continues");
    if (event.what == Event::signalled && who->signal != SIGCHLD)
        say(who, "gets a signal: %s%s", strsignal(who->signal),
            who->signal == SIGBUS ? " (it touched what lies beyond the object's end)" : "");
}

static int explain(const std::vector<std::string>& words) {
    Tracer all(words);
    tracer = &all;
    Tracee* parked = nullptr;  // a parent, while its child goes first
    const Tracee* child = nullptr;
    long until = 0;
    const std::string at = proc(&all.tracees[0]);
    if (at == "/proc/?")
        fprintf(stderr, "there is no /proc: mappings, stores and descriptors cannot be told\n");
    else if (at != "/proc/" + std::to_string(all.tracees[0].pid))
        fprintf(stderr,
                "/proc is of another PID namespace: commands have the numbers of that one.\n"
                "To have one's own: unshare -Urp --fork --mount-proc\n");
    for (;;) {
        const Event event = all.next(parked != nullptr ? 10 : 50);
        if (event.what == Event::over) break;
        pass_on();
        Tracee* who = event.who;
        bool waits = false;
        if (who != nullptr) tell(event);
        if (event.what == Event::enters && !who->foreign) waits = entered(who);
        if (event.what == Event::forks && !event.child->thread && who->call != SYS_vfork &&
            parked == nullptr) {
            parked = who;
            child = event.child;
            until = Tracer::now() + 100;
            continue;
        }
        all.go_on(who);
        if (parked != nullptr &&
            (child->ended || (who == child && waits) || Tracer::now() >= until)) {
            all.go_on(parked);
            parked = nullptr;
        }
    }
    for (const auto& [name, key] : stays) {
        const bool segment = name.rfind("segment ", 0) == 0;
        if (!segment && key_at(name) != key) continue;
        fprintf(
            stderr, "stays behind: %s; this removes it:\n    $ %s\n", name.c_str(),
            segment ? ("ipcrm -m " + name.substr(8)).c_str() : ("rm " + shell_word(name)).c_str());
    }
    const int status = all.tracees[0].status;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char** argv) {
    step = argc > 1 && strcmp(argv[1], "--step") == 0;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        printf("%s", kUsage);
        return fflush(stdout) != 0;
    }
    const std::vector<std::string> words(argv + 1 + step, argv + argc);
    if (words.empty() || words[0][0] == '-') errx(2, "%s", kUsage);
    struct sigaction action = {}, before;
    action.sa_sigaction = signalled;
    action.sa_flags = SA_SIGINFO;
    for (int number : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM})
        if (sigaction(number, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(number, &action, nullptr);
    try {
        return explain(words);
    } catch (const std::system_error& error) {
        errx(1, "%s", error.what());
    }
}
