// Lab 6, right in another way: streams, and a reader that keeps its descriptor.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

static int publish(const char* file) {
    std::error_code error;
    const auto bytes = std::filesystem::file_size(file, error);
    std::string text(error ? 0 : bytes, '\0');
    std::ifstream in(file, std::ios::binary);
    in.read(&text[0], static_cast<std::streamsize>(text.size()));
    std::ofstream out("./config.tmp", std::ios::binary);
    out << text;
    out.close();
    if (!error && in && out) std::filesystem::rename("config.tmp", "config", error);
    if (!error && in && out) return 0;
    std::cerr << "publish failed: " << error.message() << "\n";
    std::filesystem::remove("config.tmp", error);
    return 1;
}

static int read_twice() {
    const int fd = open("config", O_RDONLY | O_CLOEXEC);
    struct stat it;
    if (fd == -1 || fstat(fd, &it) == -1) {
        std::cerr << "there is no configuration\n";
        return 1;
    }
    const size_t bytes = static_cast<size_t>(it.st_size);
    const void* text = mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (text == MAP_FAILED) return 1;
    std::string line;
    std::cout.write(static_cast<const char*>(text), it.st_size);
    std::getline(std::cin, line);
    std::cout.write(static_cast<const char*>(text), it.st_size);
    return std::cout.flush() ? 0 : 1;
}

int main(int argc, char** argv) { return argc == 3 ? publish(argv[2]) : read_twice(); }
