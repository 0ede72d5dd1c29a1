#!/usr/bin/env bash
# Trains on this machine.
#
#   bash jobs/local.sh --policy kakurenbo --epochs 30
#   RANKS=4 bash jobs/local.sh --data cifar10:/data/cifar10 --model resnet18
#
# TERM, USR1 and Ctrl-C become a checkpoint and exit code 75; with --name NAME --resume true the same
# command goes on. Nothing is left running.
#
# RANKS   processes to start; default: one for each GPU, or 2 without one
# VENV    the environment that `make setup` made; default: .venv beside jobs/
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$here/.venv}"
export PATH="$VENV/bin:$PATH"

gpus="$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)"
RANKS="${RANKS:-$((gpus > 0 ? gpus : 2))}"

# Open MPI wants to be told twice that root is meant; in a container there is no other user.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# More ranks than cores, for Open MPI 4 and 5; other MPIs allow them anyway.
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

# Not horovodrun, which writes the rank before each line. Binding to one core would leave the
# loader's and torch's threads nowhere to run.
exec hvdfilter launch mpirun --bind-to none -np "$RANKS" hvdfilter train "$@"
