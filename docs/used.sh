# Counts the pages that are used of a tmpfs of our own on /dev/shm: while it is empty, after the names
# of a POSIX object and a file have been removed under their holders, and after these have ended. Run
# in a mount namespace: unshare --map-root-user --mount sh docs/used.sh
set -e
mount -t tmpfs tmpfs /dev/shm
used() { echo "$1: $(($(stat -f -c '%b - %f' /dev/shm))) pages"; }
used empty
shm_posix/shm_posix write
map_posix/map_posix write --name /dev/shm/file
: > used.log
docs/hold posix /tmp >> used.log &
docs/hold file /dev/shm/file >> used.log &
until [ "$(grep -c holds used.log)" = 2 ]; do sleep 0.1; done
rm /dev/shm/tmp /dev/shm/file
used removed
kill $(cut -d ' ' -f 1 used.log)
wait
used ended
rm used.log
