// Shared memory without a name, each way by one word on the command line. docs/nameless.md goes
// through them. Nothing here can be left behind: no directory knows of it.

#include <sys/mman.h>
#include <sys/socket.h>

#include "../common/exchange.h"
#include "../common/process.h"
#include "words.h"

static char* map(int fd, int protection) {
    void* address = mmap(nullptr, kBytes, protection, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu bytes)", kBytes);
    return static_cast<char*>(address);
}

// A parent and its child: a mapping of no file at all [mmap(2)].
static void anonymous() {
    void* address =
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(MAP_ANONYMOUS)");
    char* name = static_cast<char*>(address);
    if (spawn() == 0) {
        memcpy(name, "Nellson", 8);
        _exit(0);
    }
    wait(nullptr);
    printf("the child stored: %s\n", name);
}

// A file that lies in memory and has only a descriptor [memfd_create(2)].
static int new_file() {
    const int fd = memfd_create("items", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) err(1, "memfd_create(items)");
    if (ftruncate(fd, kBytes) == -1) err(1, "ftruncate(items)");
    errno = posix_fallocate(fd, 0, kBytes);
    if (errno != 0) err(1, "posix_fallocate(items)");
    return fd;
}

// One byte, because a message must have one; the descriptor goes beside it [unix(7), cmsg(3)].
union Message {
    char bytes[CMSG_SPACE(sizeof(int))];
    cmsghdr aligned;
};

static msghdr message(Message* control, iovec* byte) {
    msghdr all = {};
    all.msg_iov = byte;
    all.msg_iovlen = 1;
    all.msg_control = control->bytes;
    all.msg_controllen = sizeof control->bytes;
    return all;
}

static void send_descriptor(int socket, int fd) {
    char byte = 0;
    iovec data = {&byte, 1};
    Message control = {};
    msghdr all = message(&control, &data);
    cmsghdr* header = CMSG_FIRSTHDR(&all);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(socket, &all, MSG_NOSIGNAL) == -1) err(1, "sendmsg(descriptor %d)", fd);
}

static int receive_descriptor(int socket) {
    char byte;
    iovec data = {&byte, 1};
    Message control = {};
    msghdr all = message(&control, &data);
    if (recvmsg(socket, &all, MSG_CMSG_CLOEXEC) != 1) err(1, "recvmsg()");
    const cmsghdr* header = CMSG_FIRSTHDR(&all);
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS) errx(1, "no descriptor came");
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

// The receiver trusts only what cannot change any more.
static void receive(int socket) {
    const int fd = receive_descriptor(socket);
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals == -1 || (seals & F_SEAL_SHRINK) == 0) errx(1, "the sender could shorten it");
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%d)", fd);
    if (it.st_size < off_t{kBytes}) errx(1, "it is too short");
    printf("the receiver reads: %s\n", map(fd, PROT_READ));
    fflush(stdout);
}

// The receiver is there before the file is: it cannot inherit it.
static void memfd() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1) err(1, "socketpair()");
    const pid_t receiver = spawn();
    if (receiver == 0) {
        receive(ends[1]);
        _exit(0);
    }
    const int fd = new_file();
    memcpy(map(fd, PROT_READ | PROT_WRITE), "Nellson", 8);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == -1) err(1, "fcntl(F_ADD_SEALS)");
    send_descriptor(ends[0], fd);
    if (wait_for(receiver, 30) != 0) errx(1, "the receiver failed");
    if (ftruncate(fd, 0) == -1) warn("ftruncate(items, 0)");
}

// Readers may read, and nobody maps it for writing from now on; the mapping that is there stays.
static void read_only() {
    const int fd = new_file();
    char* name = map(fd, PROT_READ | PROT_WRITE);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1) err(1, "fcntl(F_SEAL_FUTURE_WRITE)");
    memcpy(name, "Daisy", 6);
    printf("a reader reads: %s\n", map(fd, PROT_READ));
    map(fd, PROT_READ | PROT_WRITE);
}

// What a new program still has of our descriptors.
static void list_after_exec() {
    const int closed = new_file();
    const int open = memfd_create("stays", 0);
    if (open == -1) err(1, "memfd_create(stays)");
    printf("before exec: items and stays, descriptors %d and %d\n", closed, open);
    fflush(stdout);
    execlp("ls", "ls", "-l", "/proc/self/fd", nullptr);
    err(1, "execlp(ls)");
}

constexpr Word kWords[] = {{"anonymous", anonymous},
                           {"memfd", memfd},
                           {"read-only", read_only},
                           {"exec", list_after_exec}};

int main(int argc, char** argv) {
    prepare();
    setvbuf(stdout, nullptr, _IOLBF, 0);  // in order with stderr
    find_word(kWords, argc, argv)();
    return done(0);
}
