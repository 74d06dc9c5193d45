// The image of a configuration: its layout, and how it is made; lookup.h looks keys up in it. Bytes
// only: no file, no mapping. The image of `host = localhost` and `port = 8080`:
//
//     byte 0   32                 48                     77                101
//     Header │ table: 0 77 48 0 │ Entry host localhost │ Entry port 8080 │
//
// The table has two slots for each entry. A slot says where an entry is, or 0: it is empty. The
// hash of an entry's key says which slot is its; if that is taken, it has the next empty one (after
// the last comes the first). A lookup goes the same way, up to an empty slot. Half of them are
// empty, so the way is short: it touches a few pages, however large the image is.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace config {

constexpr uint32_t kMagic = 0x31474643;  // "CFG1" in memory on a little-endian machine
constexpr uint32_t kVersion = 3;

// Bytes of text; more is a mistake, not a configuration. The shortest line, `a=`, has three bytes
// with its newline, and makes 25 of image (two slots of 4, an Entry of 16, the key): so no image
// has more than 140 MB, and offsets fit in 32 bits.
constexpr size_t kMostText = 16 << 20;

struct Header {
    uint32_t magic, version;
    uint64_t bytes;     // of the whole image
    uint64_t count;     // entries: one or more
    uint64_t checksum;  // of the header up to here
};

// The offset of an entry, in bytes from the image's start; 0: none. No pointer, as each reader maps
// the image at another address.
using Slot = uint32_t;

// The key and the value follow it, with nothing between or behind them.
struct Entry {
    uint64_t checksum;  // of the sizes, the key and the value
    uint32_t key_bytes, value_bytes;
};
static_assert(sizeof(Header) == 32 && sizeof(Entry) == 16, "laid out alike in every program");

// A number, or a struct of numbers, at an address that need not be aligned.
template <typename Number>
Number number_at(const char* address) {
    Number number;
    memcpy(&number, address, sizeof number);
    return number;
}

// A checksum of bytes and of a number that belongs to them; it places keys in the table, too. Eight
// bytes at a time. Each step can be undone (the factor is odd), so one changed word always changes
// the result, and more of them nearly always.
inline uint64_t hash(std::string_view bytes, uint64_t number = 0) {
    uint64_t sum = bytes.size();
    const auto add = [&sum](uint64_t word) {
        sum = (sum ^ word) * 0x9e3779b97f4a7c15;
        sum ^= sum >> 32;
    };
    add(number);
    for (; bytes.size() >= 8; bytes.remove_prefix(8)) add(number_at<uint64_t>(bytes.data()));
    char rest[8] = "";  // fewer than eight bytes, and zeros
    bytes.copy(rest, sizeof rest);
    add(number_at<uint64_t>(rest));
    return sum;
}

// What Header::checksum has to be.
inline uint64_t checksum(const Header& header) {
    return hash({reinterpret_cast<const char*>(&header), offsetof(Header, checksum)});
}

// Keys and their values: what an image is made of.
using Entries = std::map<std::string_view, std::string_view>;

// Makes the image of these entries; there is one at least.
inline std::string make(const Entries& entries) {
    std::vector<Slot> table(2 * entries.size());
    const size_t start = sizeof(Header) + table.size() * sizeof(Slot);
    std::string packed;  // the entries, as they follow the table
    for (const auto& [key, value] : entries) {
        size_t slot = hash(key) % table.size();
        while (table[slot] != 0) slot = (slot + 1) % table.size();
        table[slot] = static_cast<Slot>(start + packed.size());  // fits: see kMostText
        const std::string texts = std::string(key) + std::string(value);
        // The key's size, too: in `texts` alone `ab = c` and `a = bc` would be the same.
        const Entry entry = {hash(texts, key.size()), static_cast<uint32_t>(key.size()),
                             static_cast<uint32_t>(value.size())};
        packed.append(reinterpret_cast<const char*>(&entry), sizeof entry);
        packed += texts;
    }
    Header header = {kMagic, kVersion, start + packed.size(), entries.size(), 0};
    header.checksum = checksum(header);
    std::string image(reinterpret_cast<const char*>(&header), sizeof header);
    image.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(Slot));
    image += packed;
    return image;
}

}  // namespace config
