# Plays a container with a volume, which is this directory: has all three programs leave their objects
# behind, and ends. Run in namespaces: unshare --map-root-user --mount --ipc sh docs/container.sh
set -e
mount -t tmpfs tmpfs /dev/shm
shm_posix/shm_posix write
shm_v/shm_v write
map_posix/map_posix write
map_posix/map_posix write --name /dev/shm/file
ls -x /dev/shm
ipcs -m | grep -c 0x12345678
