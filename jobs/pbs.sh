#!/usr/bin/env bash
# PBS (OpenPBS, PBS Professional), ranks started by mpirun inside the job.
#
#   qsub jobs/pbs.sh                             # default data and model
#   qsub -v ARGS="--model resnet50 --data imagefolder:/shared/imagenet" jobs/pbs.sh
#
# Change to fit the cluster: nodes, ranks (mpiprocs, one a GPU), gpus, cpus, time; add -q and -A or -P.
#PBS -N hvdfilter
#PBS -l select=2:ncpus=32:mpiprocs=4:ompthreads=8
#PBS -l place=scatter
#PBS -l walltime=12:00:00
#PBS -j oe
#PBS -r y
# For GPUs add :ngpus=4 to select. Each rank sees all of its host's, and takes the one of its local rank.
#
# ARGS   of hvdfilter train; QSUB: options of qsub other than those above, for the jobs that follow
# VENV   the environment that `make setup` made, on a file system that all nodes see
# NAME   of the run folder; default: job name and number
# WARN   seconds before the end of the time limit at which the ranks write a checkpoint; default 300
#
# Call qsub in the repository's folder. With GPUs set up once: HOROVOD_GPU_OPERATIONS=NCCL make setup
set -euo pipefail

cd "$PBS_O_WORKDIR"
VENV="${VENV:-$PWD/.venv}"
export PATH="$VENV/bin:$PATH"
NAME="${NAME:-${PBS_JOBNAME:-hvdfilter}-${PBS_JOBID%%.*}}"
export NAME VENV ARGS="${ARGS:-}" QSUB="${QSUB:-}" WARN="${WARN:-300}"

# One line a rank, so the hosts' slots are as many as their mpiprocs. An Open MPI built with PBS's tm starts
# its daemons by it; another one, such as the wheel, needs ssh without a password between the nodes.
read -r -a extra <<<"$ARGS"
hvdfilter launch mpirun -np "$(wc -l <"$PBS_NODEFILE")" --hostfile "$PBS_NODEFILE" --bind-to none \
    --map-by slot -x PATH -x OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" \
    -x LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" \
    hvdfilter train --name "$NAME" --resume true "${extra[@]}" "$@" &
ranks=$!

# PBS gives no warning before the time limit, so the job keeps its own clock.
again=no
trap 'again=yes; kill -USR1 "$ranks" 2>/dev/null || true' USR1
# TERM is qdel's, or preemption's: PBS itself queues a preempted job again (-r y), a deleted one not.
trap 'kill -USR1 "$ranks" 2>/dev/null || true' TERM
limit="$(qstat -f "$PBS_JOBID" | sed -n 's/^ *Resource_List.walltime = //p')"
if [[ "$limit" =~ ^([0-9]+):([0-9]+):([0-9]+)$ ]]; then
    seconds=$((10#${BASH_REMATCH[1]} * 3600 + 10#${BASH_REMATCH[2]} * 60 + 10#${BASH_REMATCH[3]}))
    left=$((seconds > WARN ? seconds - WARN : 0))
    (
        trap 'kill "$!"; exit' TERM
        sleep "$left" &
        wait "$!" && kill -USR1 "$$"
    ) &
    clock=$!
fi

# wait returns early when a signal comes in; wait again until the job itself has ended.
wait "$ranks" && code=0 || code=$?
while kill -0 "$ranks" 2>/dev/null; do
    wait "$ranks" && code=0 || code=$?
done
[ -z "${clock:-}" ] || kill "$clock" 2>/dev/null || true
# 75: stopped early, with a checkpoint. qrerun is for operators, so the job submits its own successor.
if [ "$code" -eq 75 ] && [ "$again" = yes ]; then
    read -r -a options <<<"$QSUB"
    qsub "${options[@]}" -v NAME,VENV,ARGS,QSUB,WARN jobs/pbs.sh
fi
exit "$code"
