// Where packets come from: a UDP port, or this program, which makes packets that prove themselves.
// Nothing here knows of the ring; receive.h brings the packets there.

#pragma once

#include <arpa/inet.h>
#include <err.h>
#include <linux/sock_diag.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

// A socket that receives on a port of 127.0.0.1; 0: any free one [udp(7)].
inline int open_udp(uint16_t port) {
    sockaddr_in self = {};
    socklen_t size = sizeof self;
    self.sin_family = AF_INET;
    self.sin_port = htons(port);
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd == -1) err(1, "socket(AF_INET, SOCK_DGRAM)");
    if (bind(fd, reinterpret_cast<sockaddr*>(&self), size) == -1)
        err(1, "bind(127.0.0.1:%u)", port);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&self), &size) == -1) err(1, "getsockname");
    warnx("receives on 127.0.0.1:%u", ntohs(self.sin_port));
    return fd;
}

// From now on no more packets come. What has come can still be received.
inline void end_udp(int fd) {
    sockaddr_in self = {};
    socklen_t size = sizeof self;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&self), &size) == -1) err(1, "getsockname");
    // Connected to itself, a socket refuses the packets of others.
    if (connect(fd, reinterpret_cast<sockaddr*>(&self), size) == -1) err(1, "connect(UDP)");
}

// Packets that the kernel dropped, since nobody received them in time. (SO_RXQ_OVFL would tell it
// only with a packet that follows.)
inline uint32_t dropped_udp(int fd) {
    uint32_t info[SK_MEMINFO_VARS] = {};
    socklen_t size = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) == -1) err(1, "getsockopt(SO_MEMINFO)");
    return info[SK_MEMINFO_DROPS];
}

// A packet that proves itself: its number, its length, then bytes that follow from the number.
constexpr uint32_t kNumbered = 1;                    // the tag of such a packet
constexpr uint32_t kShortest = 64, kLongest = 1500;  // bytes

// Makes the packet of that number; there is room for kLongest bytes. Returns its length: 64, 68 ...
// 1500. Length and bytes look random: to multiply by a large odd number scatters the bits.
inline uint32_t make_numbered(unsigned char* data, uint64_t number) {
    constexpr uint32_t lengths = (kLongest - kShortest) / 4 + 1;
    uint32_t random = static_cast<uint32_t>(number + 1) * 2654435769u;
    const uint32_t length = kShortest + (random >> 8) % lengths * 4;
    memcpy(data, &number, sizeof number);
    memcpy(data + sizeof number, &length, sizeof length);
    for (uint32_t i = sizeof number + sizeof length; i < length; i += sizeof random) {
        random = random * 747796405u + 2891336453u;
        memcpy(data + i, &random, sizeof random);
    }
    return length;
}

// Whether these bytes are the packet of that number, whole and unchanged.
inline bool is_numbered(const unsigned char* data, size_t length, uint64_t number) {
    unsigned char made[kLongest];
    return length == make_numbered(made, number) && memcmp(data, made, length) == 0;
}
