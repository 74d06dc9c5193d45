// One mechanism's program and one object of its own, looked at from outside.

#pragma once

#include <sys/shm.h>
#include <sys/stat.h>

#include <fstream>

#include "support.h"

constexpr char kItemLines[] = "There is 3 item in the shm\n1: Nellson\n2: Daisy\n3: Robbie\n";

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
          opening(sysv                       ? "shmget(" + name + ")"
                  : mechanism == "shm_posix" ? "shm_open(" + name + ")"
                                             : "open(" + name + ")") {}
    ~Object() { take_away(); }

    Words words(const std::string& verb) const { return {program, verb, "--name", name}; }
    Result run(const std::string& verb) const { return ::run(words(verb)); }

    key_t key() const { return static_cast<key_t>(std::stoul(name, nullptr, 0)); }
    int id() const { return shmget(key(), 0, 0); }
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

    void plant(const std::string& bytes) const {
        if (!sysv) {
            put(path, bytes);
            return;
        }
        const int made = shmget(key(), bytes.size(), IPC_CREAT | IPC_EXCL | 0600);
        REQUIRE(made != -1);
        void* address = shmat(made, nullptr, 0);
        bytes.copy(static_cast<char*>(address), bytes.size());
        shmdt(address);
    }

    // Bytes of one that is there change.
    void overwrite(size_t at, const std::string& bytes) const {
        if (sysv) {
            char* address = static_cast<char*>(shmat(id(), nullptr, 0));
            bytes.copy(address + at, bytes.size());
            shmdt(address);
            return;
        }
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(at)) << bytes;
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
    const std::string path;     // what the shell sees
    const std::string opening;  // the call that makes or finds it, as errors have it
};

// What an exchange prints, if `parent` and `child` are its processes.
inline std::string transcript(pid_t parent, pid_t child) {
    return "Child " + std::to_string(child) + ": start\n" + kItemLines + "Parent " +
           std::to_string(parent) + " get child status:0\n";
}

// What an exchange prints, if `out` is that.
inline std::string transcript(const std::string& out) {
    const size_t last = out.rfind("Parent ");
    if (out.rfind("Child ", 0) != 0 || last == std::string::npos) return "no 'Child' or 'Parent'";
    const pid_t child = atoi(out.c_str() + 6), parent = atoi(out.c_str() + last + 7);
    CHECK(child != parent);
    return transcript(parent, child);
}
