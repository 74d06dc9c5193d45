// The image of a configuration: its layout, how it is made, how a key is looked up in it. Bytes
// only: no file, no mapping; so the tests can try a hundred thousand damaged images in one process.
// The image of `host = localhost` and `port = 8080`:
//
//     byte 0   32                 48                     77                101
//     Header │ table: 0 77 48 0 │ Entry host localhost │ Entry port 8080 │
//
// The table has two slots for each entry. A key's hash says at which to begin: that slot and the
// next ones say where the entries are that may be the key's, up to a slot that is empty, 0. So a
// lookup that finds its key touches a few pages, however large the image is, and checks only what
// it uses. Before it says no, it checks all. make() writes an image, find() looks in it.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace config {

constexpr uint32_t kMagic = 0x31474643;  // "CFG1" in memory on a little-endian machine
constexpr uint32_t kVersion = 3;

// Bytes of text; more is a mistake, not a configuration. Even if all lines have three bytes and
// make 25 of image each, offsets fit in 32 bits.
constexpr size_t kMostText = 16 << 20;

struct Header {
    uint32_t magic, version;
    uint64_t bytes;     // of the whole image
    uint64_t count;     // entries: one or more
    uint64_t checksum;  // of the header up to here
};

// Each reader maps the image at another address: so a slot has the offset of an entry, in bytes
// from the image's start, and no pointer; 0: the slot is empty.
using Slot = uint32_t;

struct Entry {
    uint64_t checksum;  // of the sizes, the key and the value
    uint32_t key_bytes, value_bytes;
};
static_assert(sizeof(Header) == 32 && sizeof(Entry) == 16, "laid out alike in every program");

// A number at an address, which need not be aligned.
template <typename Number>
Number number_at(const char* address) {
    Number number;
    memcpy(&number, address, sizeof number);
    return number;
}

// A checksum of bytes and of one number; it places keys in the table, too. Eight bytes at a time;
// each step is reversible, so one changed word always changes the result.
inline uint64_t hash(std::string_view bytes, uint64_t number = 0) {
    uint64_t sum = bytes.size();
    const auto add = [&sum](uint64_t word) {
        sum = (sum ^ word) * 0x9e3779b97f4a7c15;
        sum ^= sum >> 32;
    };
    add(number);
    for (; bytes.size() >= 8; bytes.remove_prefix(8)) add(number_at<uint64_t>(bytes.data()));
    char rest[8] = "";
    bytes.copy(rest, sizeof rest);
    add(number_at<uint64_t>(rest));
    return sum;
}

// What Header::checksum has to be.
inline uint64_t checksum(const Header& header) {
    return hash({reinterpret_cast<const char*>(&header), offsetof(Header, checksum)});
}

// What an image is made of.
using Entries = std::map<std::string_view, std::string_view>;

// Makes the image of these entries; there is one at least.
inline std::string make(const Entries& entries) {
    std::vector<Slot> table(2 * entries.size());
    const size_t start = sizeof(Header) + table.size() * sizeof(Slot);
    std::string packed;
    for (const auto& [key, value] : entries) {
        size_t slot = hash(key) % table.size();
        while (table[slot] != 0) slot = (slot + 1) % table.size();
        table[slot] = static_cast<Slot>(start + packed.size());  // fits: see kMostText
        const std::string texts = std::string(key) + std::string(value);
        // The number: where the key ends and the value begins must not change, either.
        const Entry entry = {hash(texts, key.size()), static_cast<uint32_t>(key.size()),
                             static_cast<uint32_t>(value.size())};
        packed.append(reinterpret_cast<const char*>(&entry), sizeof entry) += texts;
    }
    Header header = {kMagic, kVersion, start + packed.size(), entries.size(), 0};
    header.checksum = checksum(header);
    std::string image(reinterpret_cast<const char*>(&header), sizeof header);
    image.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(Slot));
    return image += packed;
}

// Bytes whose header was found good. The numbers are a copy: whoever may write the file can change
// it after the check. Then an answer of ours may be wrong, but we do not step outside the image.
// (If the file is shortened, that is SIGBUS.)
struct Image {
    const char* start = nullptr;
    size_t bytes = 0, count = 0;
};

// Checks the header of bytes that may be anything. Returns nullptr and fills `image`, or returns
// what is wrong.
inline const char* check(const char* start, size_t bytes, Image* image) {
    if (bytes < sizeof(Header)) return "is shorter than an image's header";
    const auto header = number_at<Header>(start);
    if (header.magic != kMagic) return "is not an image of ours";
    if (header.version != kVersion) return "is an image of another version";
    if (header.checksum != checksum(header)) return "is damaged: its header has changed";
    if (header.bytes != bytes) return "is not as long as the image was made";
    if (header.count == 0 || header.count > (bytes - sizeof header) / (2 * sizeof(Slot)))
        return "is damaged: its table lies outside";
    *image = {start, bytes, static_cast<size_t>(header.count)};
    return nullptr;
}

// An entry's key and value: in the image itself, not copied. `end`: the offset of what follows.
struct Texts {
    std::string_view key, value;
    size_t end;
};

// Reads the entry at an offset, which may be any number; false: it lies outside, or its bytes are
// not those that it was made of.
inline bool read_entry(const Image& image, size_t at, Texts* texts) {
    if (at > image.bytes || image.bytes - at < sizeof(Entry)) return false;
    const auto entry = number_at<Entry>(image.start + at);
    at += sizeof entry;
    const uint64_t bytes = uint64_t{entry.key_bytes} + entry.value_bytes;
    if (bytes > image.bytes - at) return false;
    const std::string_view both(image.start + at, static_cast<size_t>(bytes));
    *texts = {both.substr(0, entry.key_bytes), both.substr(entry.key_bytes), at + both.size()};
    return entry.checksum == hash(both, entry.key_bytes);
}

// Calls `use` for each entry, in the order in which they lie. Returns nullptr, or what is wrong
// with the image.
template <typename Use>
const char* for_each(const Image& image, Use use) {
    size_t at = sizeof(Header) + 2 * image.count * sizeof(Slot);
    for (size_t i = 0; i < image.count; ++i) {
        Texts it;
        if (!read_entry(image, at, &it)) return "is damaged: an entry has changed";
        use(it);
        at = it.end;
    }
    return at == image.bytes ? nullptr : "is damaged: it does not end with its last entry";
}

// Looks a key up. Returns nullptr, or what is wrong with the image. `value` stays empty if no entry
// has the key.
inline const char* find(const Image& image, std::string_view key,
                        std::optional<std::string_view>* value) {
    value->reset();
    const char* table = image.start + sizeof(Header);
    const size_t slots = 2 * image.count, first = hash(key) % slots;
    for (size_t i = 0; i < slots; ++i) {
        const auto at = number_at<Slot>(table + (first + i) % slots * sizeof(Slot));
        if (at == 0) break;
        Texts it;
        if (!read_entry(image, at, &it)) return "is damaged: an entry has changed";
        if (it.key != key) continue;
        *value = it.value;
        return nullptr;
    }
    // Damage may have hidden it: before the answer is no, we look at every entry.
    bool hidden = false;
    const char* wrong = for_each(image, [&](const Texts& it) { hidden |= it.key == key; });
    return hidden ? "is damaged: its table misses a key" : wrong;
}

}  // namespace config
