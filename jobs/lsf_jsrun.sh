#!/usr/bin/env bash
# LSF with jsrun (IBM Power systems with Spectrum MPI).
#
#   bsub < jobs/lsf_jsrun.sh                     # default data and model
#   ARGS="--model resnet50 --data imagefolder:/shared/imagenet" bsub -env all < jobs/lsf_jsrun.sh
#
# Change to fit the machine: nodes, wall time, project (-P).
#BSUB -J hvdfilter
#BSUB -nnodes 2
#BSUB -W 2:00
#BSUB -o hvdfilter-%J.log
# USR1 comes five minutes before the end: the ranks agree on a step, write a checkpoint and stop.
#BSUB -wa USR1
#BSUB -wt 5
#
# VENV            the environment, on a file system that all nodes see
# NAME            of the run folder; default: job name and number
# RANKS_PER_NODE  one a GPU (default 6); CORES_PER_RANK (default 7)
#
# Set-up, once, on a login node, with the machine's own MPI and NCCL:
#   MPICC=mpicc HOROVOD_GPU_OPERATIONS=NCCL make setup
set -euo pipefail

VENV="${VENV:-${LS_SUBCWD:-$PWD}/.venv}"
RANKS_PER_NODE="${RANKS_PER_NODE:-6}"
CORES_PER_RANK="${CORES_PER_RANK:-7}"
export PATH="$VENV/bin:$PATH"
export OMP_NUM_THREADS="$CORES_PER_RANK"

# LSB_MCPU_HOSTS is "batch 1 node1 42 node2 42": the first pair is the launch node.
read -r -a allocation <<<"${LSB_MCPU_HOSTS:-launch 1 node 1}"
nodes=$((${#allocation[@]} / 2 - 1))

# A job that was preempted and started again goes on from its checkpoint, if it has got that far.
NAME="${NAME:-${LSB_JOBNAME:-hvdfilter}-${LSB_JOBID:-0}}"

# One resource set a host, so that each rank sees all of its host's GPUs, which NCCL needs to connect
# them directly; a rank takes the one of its local rank, and cores of its own. bsub < script passes no
# arguments, hence ARGS.
read -r -a extra <<<"${ARGS:-}"
exec jsrun --nrs "$nodes" --rs_per_host 1 --tasks_per_rs "$RANKS_PER_NODE" \
    --cpu_per_rs "$((RANKS_PER_NODE * CORES_PER_RANK))" --gpu_per_rs "$RANKS_PER_NODE" \
    --bind "packed:$CORES_PER_RANK" \
    --smpiargs="${SMPIARGS:-}" \
    hvdfilter train --name "$NAME" --resume true "${extra[@]}" "$@"
