// Where the runs of one submission take place: the program, its directory, what lies around, and
// the verdicts.

#pragma once

#include <dirent.h>
#include <stdlib.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "box.h"

// The bytes of a file; none if it cannot be read.
inline std::string contents(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

// What can be read from a descriptor, to its end; beyond `most` bytes it is read and dropped.
inline std::string read_all(int fd, size_t most = SIZE_MAX) {
    std::string text;
    char buffer[4096];
    for (ssize_t bytes; (bytes = read(fd, buffer, sizeof buffer)) > 0;)
        if (text.size() < most) text.append(buffer, static_cast<size_t>(bytes));
    return text;
}

// The names in a directory; none if it cannot be read.
inline std::vector<std::string> names_in(const std::string& directory) {
    std::vector<std::string> all;
    DIR* names = opendir(directory.c_str());
    while (const dirent* it = names == nullptr ? nullptr : readdir(names))
        if (strcmp(it->d_name, ".") != 0 && strcmp(it->d_name, "..") != 0)
            all.push_back(it->d_name);
    if (names != nullptr) closedir(names);
    return all;
}

// What is said of a requirement that is not met: what was done, what was seen, what that means, and
// the command with which to see it.
struct Finding {
    std::string did, saw, means, command;
};

// The verdicts on one submission. A requirement that nothing was said of is not graded.
struct Verdicts {
    std::map<std::string, bool> met;
    std::map<std::string, Finding> findings;  // of those that are not met
    std::set<std::string> remarks;            // cost no points
};

class Stage {
  public:
    // In the process that box.enter() has made.
    explicit Stage(const Box& from) : box(from) {
        char path[] = "/tmp/lab-XXXXXX";
        if (mkdtemp(path) == nullptr) Box::fail("mkdtemp");
        top_ = path;
        directory = top_ + "/work";
        program = top_ + "/mine";
        if (mkdir(directory.c_str(), 0777) == -1) Box::fail("mkdir");
        chmod(top_.c_str(), 0755);
        chmod(directory.c_str(), 0777);
        before_ = things(true);
    }
    ~Stage() {
        clear();
        rmdir(directory.c_str());
        unlink(program.c_str());
        rmdir(top_.c_str());
    }
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;

    // The program is built: from now on it can change nothing of ours but what is in its directory.
    // The rest is read-only, and what is mounted nobody removes or renames [mount(2): MS_BIND]. An
    // ordinary user's program is the same user as we are.
    void seal() const {
        if (!box.refused.empty()) return;
        const unsigned long only = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
        const char *top = top_.c_str(), *work = directory.c_str();
        if (mount(top, top, nullptr, MS_BIND, nullptr) ||
            mount(work, work, nullptr, MS_BIND, nullptr) ||
            mount(nullptr, top, nullptr, only, nullptr))
            Box::fail("mount(" + top_ + ")");
    }

    void earn(const std::string& requirement) {
        if (!verdicts.met.count(requirement)) verdicts.met[requirement] = true;
    }
    // The first finding stays.
    void lose(const std::string& requirement, const Finding& finding) {
        if (lost(requirement)) return;
        verdicts.met[requirement] = false;
        verdicts.findings[requirement] = finding;
    }
    // Could not be looked at: no points, and nothing that the program did wrong there.
    void not_shown(const std::vector<const char*>& requirements, const std::string& why) {
        for (const char* it : requirements) lose(it, {"", "not shown: " + why, "", ""});
    }
    bool met(const std::string& requirement) const { return decided(requirement, true); }
    bool lost(const std::string& requirement) const { return decided(requirement, false); }
    void remark(const std::string& text) { verdicts.remarks.insert(text); }

    // What is there that outlives a process, and was not there before: files in /dev/shm and in the
    // program's directory by path, System V objects as "shm 7"; each with how it looks. Where the
    // box is not closed, others make some meanwhile: there, only what was seen to be `made`.
    std::map<std::string, std::string> left() const {
        std::map<std::string, std::string> all = things(box.refused.empty());
        for (const auto& it : before_) all.erase(it.first);
        return all;
    }

    // Ends what runs and removes what is left: the next run begins anew.
    void clear() const {
        if (box.refused.empty()) kill(-1, SIGKILL);  // from process 1: all in the box
        while (waitpid(-1, nullptr, __WALL) > 0) continue;
        for (const auto& [name, looks] : left()) {
            const int id = atoi(name.c_str() + 3);
            if (name[0] == '/')
                remove(name);
            else if (name.rfind("shm", 0) == 0)
                shmctl(id, IPC_RMID, nullptr);
            else if (name.rfind("sem", 0) == 0)
                semctl(id, 0, IPC_RMID);
            else
                msgctl(id, IPC_RMID, nullptr);
        }
    }

    // Makes a file, or a segment, of ours the program's user's.
    void give(const std::string& path) {
        if (user() != geteuid() && chown(path.c_str(), user(), static_cast<gid_t>(-1)) == -1)
            Box::fail("chown");
        struct stat file;
        if (stat(path.c_str(), &file) == 0) made.insert(identity(file));
    }
    void give(int segment) {
        shmid_ds it;
        shmctl(segment, IPC_STAT, &it);
        it.shm_perm.uid = user();
        shmctl(segment, IPC_SET, &it);
        made.insert("shm " + std::to_string(segment));
    }

    // Of a file, whatever its name.
    static std::string identity(const struct stat& file) {
        return std::to_string(file.st_dev) + " " + std::to_string(file.st_ino);
    }

    // Whom the program runs as.
    uid_t user() const { return box.user(); }

    // A file, or a directory with all that is in it.
    static void remove(const std::string& path) {
        if (unlink(path.c_str()) == 0 || rmdir(path.c_str()) == 0) return;
        for (const std::string& name : names_in(path)) remove(path + "/" + name);
        rmdir(path.c_str());
    }

    const Box& box;
    std::string program, directory;
    std::vector<std::string> arguments;  // that come before those of a run
    Verdicts verdicts;
    std::set<std::string> made;  // by the program or by us: files by identity, others as in left()
    bool endless = false;        // it used all of its processor time: once is enough

  private:
    bool decided(const std::string& requirement, bool how) const {
        const auto known = verdicts.met.find(requirement);
        return known != verdicts.met.end() && known->second == how;
    }

    // All, or those that are `made`.
    std::map<std::string, std::string> things(bool everybodys) const {
        std::map<std::string, std::string> all;
        for (const std::string& where : {std::string("/dev/shm"), directory})
            for (const std::string& name : names_in(where)) {
                const std::string path = where + "/" + name;
                struct stat looks;
                if (lstat(path.c_str(), &looks) == -1) continue;
                if (!everybodys && where != directory && !made.count(identity(looks))) continue;
                char text[64];
                snprintf(text, sizeof text, "%jd bytes, mode %o", intmax_t{looks.st_size},
                         looks.st_mode & 07777);
                all[path] = text;
            }
        for (const std::string kind : {"shm", "sem", "msg"}) {
            std::ifstream rows("/proc/sysvipc/" + kind);
            std::string row;
            std::getline(rows, row);
            while (std::getline(rows, row)) {
                long key = 0, id = 0, mode = 0;
                std::istringstream(row) >> key >> id >> mode;
                const std::string name = kind + " " + std::to_string(id);
                if (!everybodys && !made.count(name)) continue;
                // SHM_DEST: it has been removed, and goes with the last who has it attached.
                if (kind == "shm" && mode / 1000 % 2 == 1) continue;
                char text[64];
                snprintf(text, sizeof text, "key 0x%08x, mode %ld", static_cast<unsigned>(key),
                         mode);
                all[name] = text;
            }
        }
        return all;
    }

    std::string top_;
    std::map<std::string, std::string> before_;
};
