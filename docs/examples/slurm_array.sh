#!/usr/bin/env bash
# A cohort on a SLURM cluster: an array of jobs, each a shard, all into the same folder of a shared file system.
#
#   sbatch --array=1-8 docs/examples/slurm_array.sh BUNDLE COHORT OUT
#
# COHORT: manifest CSV or BIDS folder. A job that is preempted or runs out of time is simply submitted again: cases that
# have their record are kept, and of those that failed only the ones whose files changed are tried again. Keep the size
# of the array while jobs run: it decides which cases are whose. The pages come last, of all shards, in a job of their own:
#
#   sbatch --dependency=afterok:JOB --wrap 'hybriduad report OUT COHORT --out OUT/report'
#
# In the container of docs/examples/Dockerfile, COHORT a BIDS folder, the call at the end is
#
#   apptainer run --containall -B "$cohort:/data:ro,$out:/out,$bundle:/bundle:ro" hybriduad.sif \
#     /data /out participant --bundle /bundle --skip-bids-validation --shard "$shard" --engine processes --nprocs 4
#
# and the job of the pages is the same with "/data /out group" in the place of the second line.
#SBATCH --job-name=hybriduad
#SBATCH --cpus-per-task=4
#SBATCH --mem=12G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=hybriduad-%A_%a.txt
set -euo pipefail

[[ $# -eq 3 ]] || { echo "usage: sbatch --array=1-N $0 BUNDLE COHORT OUT" >&2; exit 2; }
bundle=$1 cohort=$2 out=$3
# Array indices may start anywhere: shards are counted from 1.
shard=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))/$SLURM_ARRAY_TASK_COUNT

hybriduad predict "$bundle" "$cohort" --out "$out" --shard "$shard" \
  --engine processes --nprocs "${SLURM_CPUS_PER_TASK:-1}" \
  --log-json "logs/hybriduad-${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}.jsonl" || {
  code=$?
  # 3: some cases failed and are named in OUT/failures.tsv; the others are done, and so is this job.
  [[ $code -eq 3 ]] || exit "$code"
}
