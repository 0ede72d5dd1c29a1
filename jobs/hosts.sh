#!/usr/bin/env bash
# Trains on a list of hosts that this one reaches by ssh without a password.
#
#   HOSTS=node1:4,node2:4 bash jobs/hosts.sh --data imagefolder:/shared/imagenet --model resnet50
#
# TERM, USR1 and Ctrl-C become a checkpoint and exit code 75; with --name NAME --resume true the same
# command goes on. Nothing is left running on this host.
#
# HOSTS     name:ranks, separated by commas (required)
# VENV      the environment, at the same path on every host; default: .venv beside jobs/
# NIC       network interface for MPI's TCP traffic, such as ib0; default: MPI chooses
# LAUNCHER  mpirun (default) or horovodrun
#
# The repository, the data and runs/ must be at the same paths on all hosts.
set -euo pipefail

: "${HOSTS:?set HOSTS=name:ranks,name:ranks}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$here/.venv}"
LAUNCHER="${LAUNCHER:-mpirun}"
NIC="${NIC:-}"
export PATH="$VENV/bin:$PATH"

RANKS=0
for entry in ${HOSTS//,/ }; do
    case "$entry" in
        *:[1-9]*) RANKS=$((RANKS + ${entry##*:})) ;;
        *) echo "HOSTS: '$entry' is not name:ranks" >&2; exit 2 ;;
    esac
done

if [ "$LAUNCHER" = horovodrun ]; then
    exec hvdfilter launch horovodrun -np "$RANKS" -H "$HOSTS" ${NIC:+--network-interfaces "$NIC"} hvdfilter train "$@"
fi

# -x hands variables to the other hosts. ob1 is the point-to-point layer Horovod is tested with;
# binding to one core would leave the loader's and torch's threads nowhere to run.
exec hvdfilter launch mpirun -np "$RANKS" --host "$HOSTS" --bind-to none --map-by slot \
    --mca pml ob1 --mca btl ^openib \
    ${NIC:+--mca btl_tcp_if_include "$NIC" -x NCCL_SOCKET_IFNAME="$NIC"} \
    -x PATH -x LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" -x NCCL_DEBUG="${NCCL_DEBUG:-WARN}" \
    hvdfilter train "$@"
