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
# OVERSUBSCRIBE  1: hosts may run more ranks than they have cores
# NIC       network interface for MPI's TCP traffic, such as ib0; default: MPI chooses
# LAUNCHER  mpirun (default) or horovodrun
#
# The repository, the data and runs/ must be at the same paths on all hosts.
set -euo pipefail

HOSTS="${HOSTS:-}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$here/.venv}"
LAUNCHER="${LAUNCHER:-mpirun}"
NIC="${NIC:-}"
export PATH="$VENV/bin:$PATH" NCCL_DEBUG="${NCCL_DEBUG:-WARN}"

# By their paths: another host's PATH may find another MPI first.
hvdfilter="$(command -v hvdfilter)" && mpirun="$(command -v mpirun)" || {
    echo "hosts.sh: no hvdfilter or mpirun in $VENV/bin or on PATH: run 'make setup', or set VENV" >&2
    exit 2
}

# The hosts are checked by hvdfilter launch, which says what is wrong with which of them.
RANKS="$(tr , '\n' <<<"$HOSTS" | awk -F: '{ ranks += $2 } END { print ranks }')"
launch=("$hvdfilter" launch --hosts "$HOSTS")
if [ -n "${OVERSUBSCRIBE:-}" ]; then launch+=(--oversubscribe); fi

if [ "$LAUNCHER" = horovodrun ]; then
    exec "${launch[@]}" horovodrun -np "$RANKS" -H "$HOSTS" ${NIC:+--network-interfaces "$NIC"} \
        --mpi-args="--prefix ${mpirun%/bin/mpirun}" "$hvdfilter" train "$@"
fi

# -x hands variables to the other hosts, where a session of ssh knows none of them.
known=()
for name in $(compgen -e | grep -E '^(HVDFILTER|HOROVOD|NCCL|OMP|GOMP|HF)_|^PYTHONPATH$'); do
    known+=(-x "$name")
done

# ob1 is the point-to-point layer Horovod is tested with; binding to one core would leave the
# loader's and torch's threads nowhere to run.
exec "${launch[@]}" "$mpirun" -np "$RANKS" --host "$HOSTS" --bind-to none --map-by slot \
    --mca pml ob1 --mca btl ^openib \
    ${NIC:+--mca btl_tcp_if_include "$NIC" -x NCCL_SOCKET_IFNAME="$NIC"} \
    -x PATH -x LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" ${known[@]+"${known[@]}"} \
    "$hvdfilter" train "$@"
