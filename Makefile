# Every command there is; `make help` lists them.

CXXFLAGS ?= -O2 -g -Wall -Wextra -Wpedantic -Wshadow
COMPILE = $(CXX) -std=c++17 $(CPPFLAGS) $(CXXFLAGS)

EXCHANGE = shm_posix/shm_posix map_posix/map_posix shm_v/shm_v
PROGRAMS = $(EXCHANGE) shm_posix/packets/producer_consumer map_posix/config/shared_config \
	docs/explain docs/hold docs/failures
PERF_SOURCES = $(wildcard perf/*.cc)
TESTS = $(patsubst %.cc,%.o,$(wildcard tests/*.cc))

all: $(PROGRAMS) perf/perf

$(PROGRAMS): %: %.cc $(wildcard common/*.h)
	$(COMPILE) $(LDFLAGS) -o $@ $< $(LDLIBS) -lrt

shm_posix/packets/producer_consumer tests/test_packets.o: $(wildcard shm_posix/packets/*.h)
map_posix/config/shared_config tests/test_config.o: $(wildcard map_posix/config/*.h)
tests/test_perf.o: perf/statistics.h
docs/explain: tests/trace.h

perf/perf: $(PERF_SOURCES) $(wildcard perf/*.h common/*.h shm_posix/packets/*.h)
	$(COMPILE) $(LDFLAGS) -o $@ $(PERF_SOURCES) $(LDLIBS) -lrt

tests/grade/grade: tests/grade/grade.cc $(wildcard tests/grade/*.h) tests/trace.h
	$(COMPILE) $(LDFLAGS) -o $@ $< $(LDLIBS)

# The labs: docs/labs/README.md.
lab: tests/grade/grade
	@tests/grade/grade

LABS = $(foreach dir,$(wildcard docs/labs/*-*/),lab$(firstword $(subst -, ,$(notdir $(dir:/=)))))
$(LABS): lab%: tests/grade/grade docs/explain
	@CXX='$(CXX)' tests/grade/grade mine $* $(if $(HINT),hint)
	@cd docs/labs/$*-*/ && $(CXX) -std=c++17 -g -pthread -o mine mine.cc -lrt 2>/dev/null || true

grade: tests/grade/grade
	@CXX='$(CXX)' tests/grade/grade all '$(LAB)' '$(FROM)'

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

tests/run: $(TESTS)
	$(COMPILE) $(LDFLAGS) -o $@ $(TESTS) $(LDLIBS) $(if $(filter 3,$(CATCH2)),-lCatch2) -lrt

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
	elif command -v dnf >/dev/null; then $$sudo dnf install -y catch-devel; \
	elif command -v pacman >/dev/null; then $$sudo pacman -S --needed --noconfirm catch2; \
	elif command -v zypper >/dev/null; then $$sudo zypper --non-interactive install Catch2-devel; \
	else echo "Install Catch2: knows only apt-get, dnf, pacman, zypper."; exit 1; fi

clean:
	rm -f $(PROGRAMS) perf/perf $(TESTS) tests/run tests/grade/grade

help:
	@echo 'make         build the programs'
	@echo 'make demo    build and run the three exchanges'
	@echo 'make perf    time the mechanisms, in less than a minute; make perf-full takes minutes'
	@echo 'make lab     list the labs; make lab1 begins the first; make lab1 HINT=1'
	@echo 'make grade   LAB=1 FROM=submissions: grade them all (docs/labs/instructors.md)'
	@echo 'make test    build and run the tests; make test TEST="[read]" runs some'
	@echo 'make deps    install Catch2, which only the tests need (apt-get, dnf, pacman, zypper)'
	@echo 'make clean   remove all that make made'
	@echo 'CXX, CXXFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are honoured.'

.PHONY: all lab $(LABS) grade demo perf perf-full test catch2 deps clean help
