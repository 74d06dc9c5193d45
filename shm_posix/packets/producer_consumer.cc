// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. The way of a packet is in three files: receive.h (it comes in), ring.h
// (reserve, commit, take, release), and here (it is handled). All files, each after those it needs:
//
//     presence.h  who is there                          source.h   the socket; packets made here
//     layout.h    how a ring lies in shared memory      options.h  the command line
//     sleep.h     how one sleeps, and is woken          object.h   the object that holds the ring
//     turn.h      is there a slot, or a packet?         meet.h     how the two meet there
//     ring.h      the ring                              waits.h    what stops a process
//     join.h      a ring made, and a side of it taken   receive.h  how packets come in
//
// From there, used here: `ours` is this process's end of the ring, `ours.next` the number of the
// packet in hand. `stopped` is the signal that told us to stop, or 0; `child` the consumer, in
// run's parent, or 0.

#include "../../common/process.h"
#include "meet.h"
#include "options.h"
#include "receive.h"
#include "waits.h"

static uint64_t first;  // the number of this process's first packet

// Handles the packet in hand. One that --generate made (its tag is kNumbered) carries its number,
// and must be whole and the one that is due. --pipe: to stdout. What lies in shared memory may be
// damaged: its length is checked before it is used.
static void handle(const unsigned char* data, uint32_t length, uint32_t tag) {
    const uintmax_t number = ours.next;
    if (length > ours.size) errx(1, "packet %ju: has an impossible length", number);
    if (tag == kNumbered && !is_numbered(data, length, number))
        errx(1, "packet %ju: is another one, or has changed", number);
    for (uint32_t done = 0; options.pipe && done < length;) {
        const ssize_t written = write(STDOUT_FILENO, data + done, length - done);
        if (written == -1) err(1, "write(stdout)");  // EAGAIN, too: O_NONBLOCK
        done += static_cast<uint32_t>(written);
    }
}

// Handles packets until we are stopped, or the ring is empty and the producer gone; true: it died.
static bool handle_packets() {
    while (!stopped) {
        Slot* slot = take(&ours, kSlice);
        if (!slot && gone(ours.other)) return ours.other == kDied;
        if (!slot) continue;
        const uint32_t length = slot->length;  // once: what is checked is what is used
        handle(slot->data(), length, slot->tag);
        release(&ours);
        all_bytes += length;
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
            did, uintmax_t{ours.next - first}, uintmax_t{all_bytes}, ours.slots,
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
    const bool nobody_yet = ours.theirs().visits == 0;
    if (options.verb == "consume" && nobody_yet)
        warnx("%s: nobody produces yet; start: %s", name(),
              command("produce --generate 1000").c_str());
    return handle_packets();
}

// run: makes the ring and forks. Returns this process's side: the parent produces, the child
// consumes.
static Side start_both() {
    make_object();
    handle_signal(SIGCHLD, end_poll, SA_RESTART);
    child = spawn();  // which inherits descriptor and mapping; each takes its own lock in join()
    if (child > 0) {
        if (stopped) give_up_in(10);  // a stop before this found no child, and set no alarm
        return kProducer;
    }
    handle_stops(SIG_IGN, 0);  // the parent ends the input, and the child handles what is left
    stopped = 0;               // a stop may have come since the fork
    return kConsumer;
}

int main(int argc, char** argv) {
    prepare();
    options = read_options(argc, argv);
    const int udp = options.udp ? open_udp(options.port) : -1;
    handle_stops(stop, SA_RESTART);
    Side side = options.verb == "consume" ? kConsumer : kProducer;
    if (options.verb == "run") {
        side = start_both();
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
    // Leave first (the mapping stays, for the summary): to print may take long, and would keep
    // others from joining; and in run the child, for which we wait, ends when it finds us gone.
    leave();
    if (died) warnx("the producer died; all that it handed over is handled");
    if (!child) summary(side == kProducer ? "handed over" : "handled");  // the child's is for both
    const int status = child ? wait_for_consumer() : died;
    if (stopped && !options.udp) end_by(stopped);  // cut short; --udp is done when it is stopped
    return status;
}
