// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. How the two wait for each other, and survive each other's death, is in
// packet_ring.h.

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>

#include "../common/process.h"
#include "packet_ring.h"

static const char kHelp[] =
    "usage: %s [VERB] [OPTIONS]\n"
    "  run           (default) both processes, parent and child\n"
    "  produce       the receiving process; makes the ring, or goes on with one that is there\n"
    "  consume       the processing process; likewise\n"
    "  --udp PORT    packets come from this UDP port of 127.0.0.1; 0: any free one\n"
    "  --generate N  packets are made: numbered, with a checksum, 64 to 1500 bytes\n"
    "  --pipe        packets go to stdout, and without --udp come from stdin\n"
    "  --name NAME   the ring of produce and consume, if not /packets\n"
    "  --slots N     packets that fit in the ring, 1 to %u, if not 1024\n"
    "  --size BYTES  of the largest packet, 1 to %u, if not 2048\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

constexpr int kSlice = 100;        // milliseconds until a wait looks up: is the other side alive?
constexpr uint32_t kNumbered = 1;  // tag of a packet that begins with Numbered

struct Numbered {
    uint64_t number;
    uint32_t length, checksum;
};

static struct {
    std::string self, name;
    uint32_t slots = 0, size = 0;  // 0: not asked for
    uint64_t generate = 0;
    bool udp = false, generated = false, pipe = false;
    uint16_t port = 0;
} options;

static RingEnd end;                        // this process's hold on the ring
static int object = -1;                    // the shared memory object
static bool in_hand = false;               // a packet is being handled
static pid_t child = 0;                    // run: the consumer
static volatile sig_atomic_t stopped = 0;  // the signal that told us to stop
static uint64_t packets, bytes;            // handed over or handled by this process
static double first_time, last_time;       // when, in seconds

static const char* name() { return options.name.c_str(); }

static std::string command(const char* verb) {
    return options.self + " " + verb + " --name " + options.name;
}

static uint32_t or_else(uint32_t asked, uint32_t usual) { return asked ? asked : usual; }

// Makes the object, with memory for a ring; 0 if one of that name exists.
static size_t create() {
    const size_t all = ring_bytes(or_else(options.slots, 1024), or_else(options.size, 2048));
    hold_signals();
    object = shm_open(name(), O_CREAT | O_EXCL | O_RDWR, 0600);
    const bool exists = object == -1 && errno == EEXIST;
    if (object == -1 && !exists) err(1, "shm_open(%s)", name());
    if (exists) hold_signals(SIG_UNBLOCK);
    if (exists) return 0;
    on_stop([] { shm_unlink(name()); });
    // Size and memory at once: if there is too little, that is ENOSPC here, not SIGBUS later.
    while ((errno = posix_fallocate(object, 0, static_cast<off_t>(all))) == EINTR) continue;
    if (errno != 0) err(1, "posix_fallocate(%s, %zu bytes)", name(), all);
    return all;
}

// Opens the object that exists and returns its size; 0 if it is gone, or not yet complete.
static size_t attach() {
    object = shm_open(name(), O_RDWR | O_NONBLOCK, 0);
    if (object == -1 && errno == ENOENT) return 0;
    struct stat it;
    if (object == -1 || fstat(object, &it) == -1) err(1, "shm_open(%s)", name());
    if (!S_ISREG(it.st_mode) || it.st_uid != geteuid())
        errx(1, "%s: is not a file of yours; look at it: ls -l /dev/shm%s", name(), name());
    return static_cast<size_t>(it.st_size);
}

static void* map(size_t size) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, object, 0);
    if (memory == MAP_FAILED) err(1, "mmap(%s)", name());
    return memory;
}

static PacketRing* make_ring(size_t size) {
    return ring_create(map(size), or_else(options.slots, 1024), or_else(options.size, 2048));
}

// Takes a side of the ring that bears our name; whoever comes first makes it.
static void join(Side side) {
    const char* fault = "is empty";
    Presence before = kNever;
    // Another process may be making or removing it at this moment: give that a second.
    for (int tries = 0; fault && tries < 100; ++tries) {
        if (size_t size = create()) {
            fault = ring_join(&end, make_ring(size), side, &before);
        } else if ((size = attach()) > 0) {
            void* memory = map(size);
            fault = ring_fault(memory, size);
            if (!fault) fault = ring_join(&end, static_cast<PacketRing*>(memory), side, &before);
            if (fault) munmap(memory, size);
        }
        if (fault && object != -1) close(object);
        if (fault) usleep(10000);
    }
    on_stop(nullptr);  // from now on there may be packets in it
    if (fault)
        errx(1, "%s: %s\n  who uses it: fuser -v /dev/shm%s\n  remove it: rm /dev/shm%s", name(),
             fault, name(), name());
    if (end.next > 0 || before != kNever)
        warnx("%s: goes on with packet %ju%s", name(), uintmax_t{end.next},
              side == kConsumer && before == kDied ? ", which may be seen twice" : "");
    if (or_else(options.slots, end.slots) != end.slots ||
        or_else(options.size, end.size) != end.size)
        errx(1, "%s: has %u slots of %u bytes, not as you ask", name(), end.slots, end.size);
}

// Gives our side up; the last to leave an empty ring removes it. A packet in hand at a failure
// stays so: the successor finds it, and that we are gone.
static void leave() {
    if (!end.ring || in_hand) return;
    struct stat it = {};
    if (ring_leave(&end, !child)) {
        if (fstat(object, &it) == 0 && it.st_nlink > 0) shm_unlink(name());
    } else if (end.other != kHere && !child) {
        warnx("%s: %ju packets wait in it\n  handle them: %s\n  or remove it: rm /dev/shm%s",
              name(), uintmax_t{end.ring->published - end.ring->handled},
              command("consume").c_str(), name());
    }
    end.ring = nullptr;
}

// HUP, INT, QUIT and TERM end the input, not the process; the second of a kind ends it.
static void stop_on_signals() {
    struct sigaction action = {}, before;
    action.sa_handler = [](int signal) { stopped = signal; };
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    for (int stop : {SIGHUP, SIGINT, SIGQUIT, SIGTERM})
        if (sigaction(stop, &action, &before) == 0 && before.sa_handler == SIG_IGN)
            signal(stop, SIG_IGN);  // nohup(1)
}

// Nothing more is to be received: somebody stopped us, or our consumer is gone.
static bool over() {
    siginfo_t info = {};
    if (child && waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == child)
        return true;
    return stopped != 0;
}

// A free slot, however long that takes; nullptr if the ring is full when all is over.
static Slot* room() {
    static Presence told = kHere;
    for (;;) {
        if (Slot* slot = reserve(&end, kSlice)) return slot;
        if (over()) return nullptr;
        if (!child && end.other != told && end.other != kHere)
            warnx("%s: the ring is full, and its consumer %s; start one: %s", name(),
                  end.other == kDied ? "died" : "is not there", command("consume").c_str());
        told = end.other;
    }
}

// Waits for input; false if all is over before.
static bool input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    if (poll(&it, 1, 0) > 0) return true;
    publish(&end);  // input pauses: hand over what there is
    while (!over())
        if (poll(&it, 1, kSlice) > 0) return true;
    return false;
}

static void count(size_t length) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    last_time = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
    if (packets++ == 0) first_time = last_time;
    bytes += length;
}

// --pipe: what one read(2) brings is one packet.
static void receive_stdin() {
    while (input(STDIN_FILENO)) {
        Slot* slot = room();
        if (!slot) return;
        const ssize_t length = read(STDIN_FILENO, slot->data(), end.size);
        if (length == -1 && (errno == EINTR || errno == EAGAIN)) continue;
        if (length == -1) err(1, "read(stdin)");
        if (length == 0) return;
        count(static_cast<size_t>(length));
        commit(&end, static_cast<uint32_t>(length));
    }
}

// --udp: opens the port, before a ring is made [udp(7)].
static int open_port(sockaddr_in* address) {
    socklen_t size = sizeof *address;
    *address = {};
    address->sin_family = AF_INET;
    address->sin_port = htons(options.port);
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1) err(1, "socket(AF_INET, SOCK_DGRAM)");
    if (bind(fd, reinterpret_cast<sockaddr*>(address), size) == -1)
        err(1, "bind(127.0.0.1:%u)", options.port);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(address), &size) == -1) err(1, "getsockname");
    warnx("receives on 127.0.0.1:%u", ntohs(address->sin_port));
    return fd;
}

static void receive_udp(int fd, const sockaddr_in& self) {
    uint64_t dropped = 0, oversize = 0;
    for (bool refuses = false, full = false;;) {
        if (over() && !refuses) {
            // From now on the kernel refuses packets of others; what it holds is still ours.
            if (connect(fd, reinterpret_cast<const sockaddr*>(&self), sizeof self) == -1)
                err(1, "connect(127.0.0.1:%u)", ntohs(self.sin_port));
            refuses = true;
        }
        // While the ring is full, packets wait in the kernel's buffer, which drops what is too
        // much.
        Slot* slot = full ? nullptr : room();
        full = !slot;
        const ssize_t length = recv(fd, slot ? slot->data() : nullptr, slot ? end.size : 0,
                                    MSG_DONTWAIT | MSG_TRUNC);  // its whole length, cut or not
        if (length == -1 && errno != EAGAIN) err(1, "recv(127.0.0.1:%u)", ntohs(self.sin_port));
        if (length == -1 && refuses) break;
        if (length == -1) input(fd);
        if (length == -1) continue;
        if (slot && length <= static_cast<ssize_t>(end.size)) {
            count(static_cast<size_t>(length));
            commit(&end, static_cast<uint32_t>(length));
        } else {
            ++dropped;
            if (slot) ++oversize;
        }
    }
    // What the kernel dropped, though no packet follows that could tell us [sock_diag.h].
    uint32_t info[SK_MEMINFO_VARS] = {};
    socklen_t size = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) == -1) err(1, "getsockopt(SO_MEMINFO)");
    lock(&end.ring->lock);
    end.ring->dropped += dropped + info[SK_MEMINFO_DROPS];
    end.ring->oversize += oversize;
    pthread_mutex_unlock(&end.ring->lock);
}

// FNV-1a by words; a generated packet consists of whole ones.
static uint32_t checksum(const void* data, size_t length) {
    const uint32_t* words = static_cast<const uint32_t*>(data);
    uint32_t sum = 2166136261;
    for (size_t i = 0; i < length / 4; ++i) sum = (sum ^ words[i]) * 16777619;
    return sum;
}

// --generate: goes on where the ring ends, so that a producer started again completes the series.
static void generate() {
    while (end.next < options.generate && !stopped) {
        Slot* slot = room();
        if (!slot) return;
        uint32_t random = static_cast<uint32_t>(end.next + 1) * 2654435769;
        Numbered head = {end.next, 64 + (random >> 8) % 360 * 4, 0};
        uint32_t* words = reinterpret_cast<uint32_t*>(slot->data() + sizeof head);
        const size_t rest = head.length - sizeof head;
        for (size_t i = 0; i < rest / 4; ++i) words[i] = random = random * 747796405 + 2891336453;
        head.checksum = checksum(words, rest);
        memcpy(slot->data(), &head, sizeof head);
        count(head.length);
        commit(&end, head.length, kNumbered);
    }
}

static void write_packet(const unsigned char* data, size_t length) {
    while (length > 0) {
        const ssize_t written = write(STDOUT_FILENO, data, length);
        if (written == -1 && errno == EAGAIN) {  // somebody made it non-blocking
            pollfd it = {STDOUT_FILENO, POLLOUT, 0};
            poll(&it, 1, kSlice);
        } else if (written == -1 && errno != EINTR) {
            err(1, "write(stdout)");
        } else if (written > 0) {
            data += written;
            length -= static_cast<size_t>(written);
        }
    }
}

// A numbered packet must be the next one, and whole.
static void check_numbered(const unsigned char* data, uint32_t length) {
    Numbered head = {};
    if (length >= sizeof head) memcpy(&head, data, sizeof head);
    if (length < sizeof head || head.length != length || head.number != end.next ||
        head.checksum != checksum(data + sizeof head, length - sizeof head))
        errx(1, "packet %ju: is number %ju, %u bytes of %u, or its checksum is wrong",
             uintmax_t{end.next}, uintmax_t{head.number}, length, head.length);
}

// What this process did, and how the two got on.
static void summary(const char* did) {
    FILE* out = options.pipe ? stderr : stdout;
    const double seconds = last_time - first_time, pace = seconds > 0 ? 1 / seconds : 0;
    fprintf(out, "%s %ju packets, %ju bytes in %.3f s: %.0f packets/s, %.1f MB/s\n", did,
            uintmax_t{packets}, uintmax_t{bytes}, seconds, static_cast<double>(packets) * pace,
            static_cast<double>(bytes) * pace / 1e6);
    const PacketRing& ring = *end.ring;
    fprintf(out, "largest backlog %ju of %u slots; slept: producer %ju times, consumer %ju times\n",
            uintmax_t{ring.backlog}, end.slots, uintmax_t{ring.seat[kProducer].slept},
            uintmax_t{ring.seat[kConsumer].slept});
    fprintf(out, "dropped %ju packets, %ju of them larger than a slot\n", uintmax_t{ring.dropped},
            uintmax_t{ring.oversize});
    if (fflush(out) != 0) err(1, "write(%s)", options.pipe ? "stderr" : "stdout");
}

static void produce(int port, const sockaddr_in& self) {
    if (options.udp)
        receive_udp(port, self);
    else if (options.generated)
        generate();
    else
        receive_stdin();
}

// Handles packets until the producer is gone and the ring is empty; returns the exit status.
static int consume() {
    while (!stopped) {
        Slot* slot = take(&end, kSlice);
        if (!slot && (end.other == kLeft || end.other == kDied)) break;
        if (!slot) continue;
        in_hand = true;
        const uint32_t length = slot->length;
        if (length > end.size) errx(1, "packet %ju: has an impossible length", uintmax_t{end.next});
        if (options.pipe)
            write_packet(slot->data(), length);
        else if (slot->tag == kNumbered)
            check_numbered(slot->data(), length);
        count(length);
        release(&end);
        in_hand = false;
    }
    if (end.other == kDied)
        warnx("the producer, process %d, died; all that it handed over is handled",
              end.ring->seat[kProducer].pid);
    summary("handled");
    return end.other == kDied;
}

// Both as parent and child, which inherits the mapping. The name goes at once, so that nothing can
// be left behind.
static int run(int port, const sockaddr_in& self) {
    PacketRing* ring = make_ring(create());
    shm_unlink(name());
    on_stop(nullptr);
    child = spawn();
    const char* fault = ring_join(&end, ring, child ? kProducer : kConsumer);
    if (fault) errx(1, "%s: %s", name(), fault);
    if (!child) {
        for (int stop : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) signal(stop, SIG_IGN);
        return consume();  // to the end, whoever is told to stop
    }
    produce(port, self);
    leave();
    for (int stop : {SIGHUP, SIGINT, SIGQUIT, SIGTERM})
        if (!stopped) signal(stop, SIG_DFL);
    return wait_for(child, stopped ? 10 : 0);
}

int main(int argc, char** argv) {
    options.self = argv[0];
    argv[0] = program_invocation_short_name;  // for getopt_long's messages
    prepare();
    const option known[] = {
        {"name", required_argument, nullptr, 'n'},     {"slots", required_argument, nullptr, 'l'},
        {"size", required_argument, nullptr, 's'},     {"udp", required_argument, nullptr, 'u'},
        {"generate", required_argument, nullptr, 'g'}, {"pipe", no_argument, nullptr, 'p'},
        {"help", no_argument, nullptr, 'h'},           {}};
    for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (c == '?') exit(2);
        if (c == 'n') options.name = optarg;
        if (c == 'l') options.slots = static_cast<uint32_t>(number(optarg, kMostSlots));
        if (c == 's') options.size = static_cast<uint32_t>(number(optarg, kMostSize));
        if ((c == 'l' && options.slots == 0) || (c == 's' && options.size == 0))
            errx(2, "a ring has 1 or more slots of 1 or more bytes");
        if (c == 'u') options.port = static_cast<uint16_t>(number(optarg, 65535));
        if (c == 'u') options.udp = true;
        if (c == 'g') options.generate = number(optarg, UINT64_MAX);
        if (c == 'g') options.generated = true;
        if (c == 'p') options.pipe = true;
        if (c == 'h')
            return printf(kHelp, argv[0], kMostSlots, kMostSize) < 0 || fflush(stdout) != 0;
    }
    const std::string verb = optind < argc ? argv[optind++] : "run";
    if (optind < argc) errx(2, "'%s' is one word too many; see --help", argv[optind]);
    if (verb != "run" && verb != "produce" && verb != "consume")
        errx(2, "'%s' is not a verb; see --help", verb.c_str());
    if (verb == "consume" && (options.udp || options.generated))
        errx(2, "consume takes packets from the ring only");
    if (verb != "consume" && options.udp + options.generated > 1)
        errx(2, "--udp and --generate exclude each other");
    if (verb != "consume" && !options.udp && !options.generated && !options.pipe)
        errx(2, "no packets: give --udp PORT, --generate N or --pipe");
    if (options.generated && options.size && options.size < 1500)
        errx(2, "--generate makes packets of up to 1500 bytes: --size %u is too small",
             options.size);
    if (options.name.empty())
        options.name = verb == "run" ? "/packets-" + std::to_string(getpid()) : "/packets";
    // A portable name: a slash and up to 254 characters, none of them a slash [shm_overview(7)].
    if (name()[0] != '/' || options.name.size() < 2 || options.name.size() > 255 ||
        options.name.find('/', 1) != std::string::npos)
        errx(2, "'%s' is not a slash and up to 254 characters without a slash", name());

    sockaddr_in self;
    const int port = options.udp ? open_port(&self) : -1;
    stop_on_signals();
    atexit(leave);
    int status = 0;
    if (verb == "run") {
        status = run(port, self);
    } else {
        join(verb == "produce" ? kProducer : kConsumer);
        if (verb == "consume") {
            status = consume();
        } else {
            if (options.generated && end.size < 1500)
                errx(1, "%s: its slots are too small", name());
            produce(port, self);
            summary("handed over");
        }
        leave();
    }
    // --udp has no other end; anything else was cut short.
    if (stopped && !options.udp) {
        signal(stopped, SIG_DFL);
        raise(stopped);
    }
    return status;
}
