// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. The way of a packet is here, in source.h (how it is received) and in
// ring.h (reserve, commit, take, release). `ours` is this process's end of the ring. For the rest:
//
//     seat.h     who is there, who sleeps      join.h      a ring made, and a side of it taken
//     object.h   the object that holds it      options.h   the command line
//     waits.h    what stops a process, and whom it waits for

#include <poll.h>

#include "../../common/process.h"
#include "object.h"
#include "options.h"
#include "source.h"
#include "waits.h"

static uint64_t first, bytes;  // of this process's packets: number of the first, bytes of all

// A free slot, however long that takes; nullptr if all is over and the ring full.
static Slot* wait_for_slot() {
    for (;;) {
        Slot* slot = reserve(&ours, kSlice);
        if (slot || over()) return slot;
        watch_consumer();
    }
}

// Waits for input; false if there is no more, or all is over before.
static bool wait_for_input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    for (int ms = 0; !stopped; ms = kSlice) {
        const int ready = poll(&it, 1, ms);
        if (ready > 0) return it.revents != POLLHUP;  // this alone: a pipe's end [poll(2)]
        if (ready == -1 && errno != EINTR) err(1, "poll(input)");
        publish(&ours);  // input pauses: hand over what there is
        if (over()) break;
    }
    return false;
}

// Commits the slot from wait_for_slot(): it holds a packet now.
static void put_in_ring(size_t length, uint32_t tag = 0) {
    bytes += length;
    commit(&ours, static_cast<uint32_t>(length), tag);
}

// --pipe: what one read(2) brings is a packet.
static void receive_stdin() {
    while (wait_for_input(STDIN_FILENO)) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        const ssize_t length = read(STDIN_FILENO, slot->data(), ours.size);
        // EAGAIN: another reader was faster [BUGS in select(2)].
        if (length == -1 && errno != EAGAIN) err(1, "read(stdin)");
        if (length == 0) break;
        if (length > 0) put_in_ring(static_cast<size_t>(length));
    }
}

// --generate: goes on with the ring's next number, so that a successor completes the series.
static void generate() {
    while (ours.next < options.count && !stopped) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        put_in_ring(make_numbered(slot->data(), ours.next), kNumbered);
    }
}

// One packet into the slot, or without a slot into nothing; false: none has come.
static bool receive_packet(int udp, Slot* slot) {
    const size_t room = slot ? ours.size : 0;
    const ssize_t length = receive_udp(udp, slot ? slot->data() : nullptr, room);
    if (length == -1) return false;
    const bool oversize = length > static_cast<ssize_t>(ours.size);
    if (oversize) ++ours.ring->oversize;
    if (slot && !oversize)
        put_in_ring(static_cast<size_t>(length));
    else
        ++ours.ring->dropped;
    return true;
}

// --udp, until we are told to stop. While the ring is full, packets wait in the kernel's buffer,
// which drops what is too much.
static void receive_packets(int udp) {
    while (!stopped) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        if (!receive_packet(udp, slot) && !wait_for_input(udp)) break;
    }
    // No new ones, but what waits in the kernel's buffer still has its turn. If no slot
    // comes free for kSlice, we ask no more, and read the rest to drop it.
    end_udp(udp);
    Slot* slot = wait_for_slot();
    while (receive_packet(udp, slot))
        if (slot) slot = wait_for_slot();
    ours.ring->dropped += dropped_udp(udp);
}

// Handles the packet in hand: if it is numbered, it must be whole and next; --pipe: to stdout.
static void handle(const unsigned char* data, uint32_t length, uint32_t tag) {
    const uintmax_t number = ours.next;
    if (length > ours.size) errx(1, "packet %ju: has an impossible length", number);
    if (tag == kNumbered && !is_numbered(data, length, number))
        errx(1, "packet %ju: is another one, or has changed", number);
    for (uint32_t done = 0; options.pipe && done < length;) {
        const ssize_t written = write(STDOUT_FILENO, data + done, length - done);
        if (written == -1) err(1, "write(stdout)");  // or is not to wait, and full: EAGAIN
        done += static_cast<uint32_t>(written);
    }
}

// Handles packets until we are stopped, or the ring is empty and the producer gone; true: it died.
static bool handle_packets() {
    while (!stopped) {
        Slot* slot = take(&ours, kSlice);
        if (!slot && gone(ours.other)) return ours.other == kDied;
        if (!slot) continue;
        const uint32_t length = slot->length;
        handle(slot->data(), length, slot->tag);
        release(&ours);
        bytes += length;
    }
    return false;
}

// What this process did, and what the two did with the ring since it was made.
static void summary(const char* did) {
    FILE* out = options.pipe ? stderr : stdout;
    const Ring* ring = ours.ring;
    fprintf(out,
            "%s %ju packets, %ju bytes\n"
            "ring of %u slots; slept: producer %ju times, consumer %ju times\n"
            "dropped %ju packets, %ju of them larger than a slot\n",
            did, uintmax_t{ours.next - first}, uintmax_t{bytes}, ours.slots,
            uintmax_t{ring->seat[kProducer].slept}, uintmax_t{ring->seat[kConsumer].slept},
            uintmax_t{ring->dropped}, uintmax_t{ring->oversize});
    if (fflush(out) != 0 || ferror(out)) err(1, "write(%s)", options.pipe ? "stderr" : "stdout");
}

// The receiving process.
static void produce(int udp) {
    if (options.udp)
        receive_packets(udp);
    else if (options.generate)
        generate();
    else
        receive_stdin();
}

// The processing process; true: the producer died.
static bool consume() {
    if (options.verb == "consume" && ours.theirs().visits == 0)
        warnx("%s: nobody produces yet; start: %s", name(),
              command("produce --generate 1000").c_str());
    return handle_packets();
}

int main(int argc, char** argv) {
    prepare();
    options = read_options(argc, argv);
    const bool run = options.verb == "run";
    const int udp = options.udp ? open_udp(options.port) : -1;
    handle_stops(stop, SA_RESTART);
    Side side = options.verb == "consume" ? kConsumer : kProducer;
    if (run) {
        make_object();
        handle_signal(SIGCHLD, end_poll, SA_RESTART);
        child = spawn();  // it inherits descriptor and mapping, but no record lock
        if (child == 0) {
            side = kConsumer;
            handle_stops(SIG_IGN, 0);  // its parent ends the input, and it goes on to its end
            stopped = 0;               // a stop may have come since the fork
        }
        if (stopped) give_up_in(10);  // it came before we had a child
        join(side);
    } else {
        join_by_name(side);
    }
    first = ours.next;
    bool died = false;
    if (side == kProducer)
        produce(udp);
    else
        died = consume();
    // Before we print, which may take long: so we keep nobody from joining. And before we wait: in
    // run, the child ends when it finds us gone.
    leave();
    if (died) warnx("the producer died; all that it handed over is handled");
    if (!child) summary(side == kProducer ? "handed over" : "handled");  // the child's is for both
    const int status = child ? wait_for_consumer() : died;
    if (stopped && !options.udp) end_by(stopped);  // cut short; --udp is done when it is stopped
    return status;
}
