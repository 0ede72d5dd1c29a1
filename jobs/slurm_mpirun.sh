#!/usr/bin/env bash
# Slurm, ranks started by mpirun inside the allocation: for clusters whose srun has no PMIx, or to use
# the Open MPI that `make setup` installed.
#
#   sbatch jobs/slurm_mpirun.sh --data imagefolder:/shared/imagenet --model resnet50
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
# B: the batch shell gets USR1 five minutes before the end, and hands it on below.
#SBATCH --signal=B:USR1@300
# For GPUs: #SBATCH --gpus-per-node=4
# Not --gpus-per-task=1 or --gpu-bind: a rank that sees its own GPU alone can't reach the others
# directly, so that NCCL goes through the host's memory. Each takes the GPU of its local rank.
#
# VENV   the environment that `make setup` made, on a file system that all nodes see
# NAME   of the run folder; default: job name and number
#
# With GPUs set up once, on a login node: HOROVOD_GPU_OPERATIONS=NCCL make setup
set -euo pipefail

# sbatch copies this script away, so the repository is where sbatch was called.
VENV="${VENV:-${SLURM_SUBMIT_DIR:-$PWD}/.venv}"
export PATH="$VENV/bin:$PATH"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# A job that was preempted and started again goes on from its checkpoint, if it has got that far.
NAME="${NAME:-$SLURM_JOB_NAME-$SLURM_JOB_ID}"

# An Open MPI with Slurm support reads the allocation by itself; one without it needs the hosts named.
hosts=()
if ! ompi_info 2>/dev/null | grep -q 'ras: slurm'; then
    per_node="${SLURM_NTASKS_PER_NODE:-1}"
    list="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/:$per_node/" | paste -sd, -)"
    hosts=(--host "$list")
fi

# Preemption sends TERM to what mpirun has started on the other nodes by srun. The ranks there take it
# as their warning; Open MPI 4's daemon beside them would end at once, and the job with it, so it
# starts with TERM (15) blocked. For its ranks it unblocks all signals.
block='__import__("signal").pthread_sigmask(0,[15]);__import__("os").execvp(argv[1],argv[1:])'
if [ ${#hosts[@]} -eq 0 ]; then  # by ssh, a shell would read it
    export OMPI_MCA_orte_launch_agent="python -c argv=__import__(\"sys\").argv;$block orted"
fi

hvdfilter launch mpirun -np "$SLURM_NTASKS" "${hosts[@]}" --bind-to none --map-by slot \
    -x PATH -x OMP_NUM_THREADS -x LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" \
    hvdfilter train --name "$NAME" --resume true "$@" &
ranks=$!
# The launcher waits until the ranks can hear a warning, and hands it on; mpirun by itself would take
# TERM as an order to kill them.
trap 'kill -USR1 "$ranks" 2>/dev/null || true' USR1 TERM
# wait returns early when a signal comes in; wait again until the job itself has ended.
wait "$ranks" && code=0 || code=$?
while kill -0 "$ranks" 2>/dev/null; do
    wait "$ranks" && code=0 || code=$?
done
# 75: stopped early, with a checkpoint. 138 and 143: USR1 or TERM came before Python could take it, so
# that nothing was trained since the last one. Back into the queue, unless Slurm is ending the job:
# what a user has cancelled must not come back.
case "$code" in
    75 | 138 | 143)
        if [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]; then
            scontrol requeue "$SLURM_JOB_ID"
        fi
        ;;
esac
exit "$code"
