# Every command there is; `make help` lists them.

CXXFLAGS ?= -O2 -g -Wall -Wextra -Wpedantic -Wshadow
COMPILE = $(CXX) -std=c++17 $(CPPFLAGS) $(CXXFLAGS)
# Both are in libc since glibc 2.34.
LIBS = $(LDLIBS) -pthread -lrt

EXCHANGE = shm_posix/shm_posix map_posix/map_posix shm_v/shm_v
PROGRAMS = $(EXCHANGE) shm_posix/packets/producer_consumer map_posix/config/shared_config \
	docs/explain docs/hold docs/failures docs/agreeing docs/nameless
PERF_SOURCES = $(wildcard perf/*.cc)
TESTS = $(patsubst %.cc,%.o,$(wildcard tests/*.cc))

all: $(PROGRAMS) perf/perf

# How it was built last: what was built otherwise is built again.
FLAGS = $(COMPILE) $(LDFLAGS) $(LIBS)
.flags: always
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@
$(PROGRAMS) perf/perf $(TESTS) tests/run tests/grade/grade: .flags

$(PROGRAMS): %: %.cc $(wildcard common/*.h)
	$(COMPILE) $(LDFLAGS) -o $@ $< $(LIBS) $(LIBSTDCXX)

# `get` takes microseconds, to load a shared libstdc++ for it more than a millisecond.
map_posix/config/shared_config: LIBSTDCXX = $(if $(filter /%,\
	$(shell $(COMPILE) -print-file-name=libstdc++.a)),-static-libstdc++ -static-libgcc)

shm_posix/packets/producer_consumer tests/test_packets.o tests/test_faults.o: \
	$(wildcard shm_posix/packets/*.h)
map_posix/config/shared_config tests/test_config.o: $(wildcard map_posix/config/*.h)
tests/support.o tests/test_config.o: common/process.h
tests/test_perf.o: perf/statistics.h
tests/test_faults.o: map_posix/config/image.h
docs/explain: tests/trace.h
docs/failures docs/agreeing docs/nameless: docs/words.h

perf/perf: $(PERF_SOURCES) $(wildcard perf/*.h common/*.h shm_posix/packets/*.h)
	$(COMPILE) -ftree-vectorize $(LDFLAGS) -o $@ $(PERF_SOURCES) $(LIBS)

tests/grade/grade: tests/grade/grade.cc $(wildcard tests/grade/*.h) tests/trace.h
	$(COMPILE) $(LDFLAGS) -o $@ $< $(LIBS)

# The labs: docs/labs/README.md.
lab: tests/grade/grade
	@tests/grade/grade

# Sorted: GNU make 4.2 finds their pages, too.
LABS = $(sort $(foreach dir,$(wildcard docs/labs/*-*/),lab$(firstword $(subst -, ,$(notdir $(dir:/=))))))
$(LABS): lab%: tests/grade/grade docs/explain
	@CXX='$(CXX)' tests/grade/grade mine $* $(if $(WATCH),watch,$(if $(HINT),hint))

grade: tests/grade/grade
	@CXX='$(CXX)' tests/grade/grade all '$(LAB)' '$(FROM)' $(HIDE)

demo: $(EXCHANGE)
	@for program in $(EXCHANGE); do echo "$$program"; $$program || exit; done

perf: perf/perf
	perf/perf $(PERF)

perf-full: perf/perf
	perf/perf --full $(PERF)

# The major version of Catch2 that the compiler finds, if any.
HASH := \#
CATCH2 = $(shell printf '%s\n' '$(HASH)if __has_include(<catch2/catch_all.hpp>)' 3 \
	'$(HASH)elif __has_include(<catch2/catch.hpp>)' 2 '$(HASH)endif' | \
	$(CXX) -std=c++17 $(CPPFLAGS) -E -P -x c++ - | tr -d '\n')

test: all tests/run tests/grade/grade
	tests/run $(TEST)

# All of what [faults] tries some of; minutes.
test-faults: all tests/run
	FAULTS=all tests/run '[faults]'

tests/run: $(TESTS)
	$(COMPILE) $(LDFLAGS) -o $@ $(TESTS) $(if $(filter 3,$(CATCH2)),-lCatch2) $(LIBS)

$(TESTS): %.o: %.cc $(wildcard tests/*.h) | catch2
	$(COMPILE) -c -o $@ $<

catch2: | $(filter deps,$(MAKECMDGOALS))
	@[ -n "$(CATCH2)" ] || { echo "The tests need Catch2. Type: make deps"; exit 1; }

# Package managers, and what each calls Catch2.
deps:
	@sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	[ -z "$$sudo" ] || command -v sudo >/dev/null || \
		{ echo "There is no sudo here. Type: su -c 'make deps'"; exit 1; }; \
	if command -v apt-get >/dev/null; then $$sudo apt-get update && $$sudo apt-get install -y catch2; \
	elif command -v dnf >/dev/null; then $$sudo dnf install -y catch-devel || \
		{ echo "Is EPEL switched on? Type: dnf install epel-release"; false; }; \
	elif command -v pacman >/dev/null; then $$sudo pacman -S --needed --noconfirm catch2; \
	elif command -v zypper >/dev/null; then $$sudo zypper --non-interactive install Catch2-devel; \
	elif command -v apk >/dev/null; then $$sudo apk add catch2 || \
		{ echo "Is the repository 'community' in /etc/apk/repositories?"; false; }; \
	else echo "No package manager that this knows."; false; \
	fi || { echo "Catch2 without a package (Ubuntu 20.04 has none): README.md, at tests/"; exit 1; }

# Looks for bugs without running anything; .clang-tidy says what clang-tidy looks for. The tests are
# cppcheck's alone: clang-tidy takes minutes for Catch2's macros. Suppressed: cppcheck takes
# uintmax_t for another type than %ju wants, which the compilers check anyway.
lint:
	clang-tidy --quiet $(PROGRAMS:%=%.cc) $(PERF_SOURCES) -- -std=c++17
	for program in $(PROGRAMS:%=%.cc) perf $(wildcard tests/*.cc); do \
		cppcheck --quiet --std=c++17 --enable=warning,portability --error-exitcode=1 \
			--suppress=invalidPrintfArgType_uint $$program || exit; \
	done

clean:
	rm -f $(PROGRAMS) perf/perf $(TESTS) tests/run tests/grade/grade .flags

help:
	@echo 'make         build the programs'
	@echo 'make demo    build and run the three exchanges'
	@echo 'make perf    time the mechanisms, in less than a minute; make perf-full takes minutes'
	@echo 'make lab     list the labs; make lab1 begins the first; make lab1 HINT=1; WATCH=1'
	@echo 'make grade   LAB=1 FROM=submissions: grade them all (docs/labs/instructors.md)'
	@echo 'make test    build and run the tests; make test TEST="[read]" runs some'
	@echo 'make test-faults  fails every call, kills at every moment, spoils every input; minutes'
	@echo 'make lint    look for bugs with clang-tidy and cppcheck'
	@echo 'make deps    install Catch2, which only the tests need (apt-get, dnf, pacman, zypper, apk)'
	@echo 'make clean   remove all that make made'
	@echo 'CXX, CXXFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are honoured.'

.PHONY: all always lab $(LABS) grade demo perf perf-full test test-faults lint catch2 deps clean help
