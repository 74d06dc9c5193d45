# Times two commands by turns: sh times.sh COMMAND COMMAND ROUNDS. Prints for each round the two
# times, in microseconds. Every second round begins with the other one: who runs first finds the
# caches as the other has left them.

[ $# = 3 ] || { echo "usage: sh times.sh COMMAND COMMAND ROUNDS" >&2; exit 2; }

microseconds() {
    begin=$(date +%s%N)
    sh -c "$1" > /dev/null || exit
    echo $((($(date +%s%N) - begin) / 1000))
}

for round in $(seq "$3"); do
    [ $((round % 2)) = 1 ] || second=$(microseconds "$2") || exit
    first=$(microseconds "$1") || exit
    [ $((round % 2)) = 0 ] || second=$(microseconds "$2") || exit
    echo "$first $second"
done
