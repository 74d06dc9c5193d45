// Looks keys up in an image; image.h has its layout. The bytes may be damaged in any way: the
// answer is right or an error (the checksums are against damage, not forgery). If somebody changes
// them meanwhile, it may be wrong, but no step leads outside. Again no file and no mapping, so the
// tests can try a hundred thousand damaged images in one process.
//
// check() looks at the header, once. find() then checks what it uses and no more, so that it costs
// the same in a large image; but before it says that there is no such key, it checks all.

#pragma once

#include <optional>
#include <string_view>

#include "image.h"

namespace config {

// Bytes whose header was found good. The numbers are a copy: whoever may write the file can change
// it after the check. (If it is shortened, that is SIGBUS.)
struct Image {
    const char* start = nullptr;
    size_t bytes = 0, count = 0;
};

// Checks the header. Returns nullptr and fills `image`, or returns what is wrong.
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
    const size_t slots = 2 * image.count;
    const size_t first = hash(key) % slots;
    for (size_t i = 0; i < slots; ++i) {
        const auto at = number_at<Slot>(table + (first + i) % slots * sizeof(Slot));
        if (at == 0) break;
        Texts it;
        if (!read_entry(image, at, &it)) return "is damaged: an entry has changed";
        if (it.key != key) continue;  // another key, whose hash led here, too
        *value = it.value;
        return nullptr;
    }
    // Damage may have hidden it: before the answer is no, we look at every entry.
    bool hidden = false;
    const char* wrong = for_each(image, [&](const Texts& it) {
        if (it.key == key) hidden = true;
    });
    return hidden ? "is damaged: its table misses a key" : wrong;
}

}  // namespace config
