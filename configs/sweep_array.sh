#!/usr/bin/env bash
# A sweep as a SLURM job array, one member a task; from the root of the repository:
#
#     jobid=$(sbatch --parsable configs/sweep_array.sh)
#     sbatch --dependency=afterany:"$jobid" --wrap "gmm-bayes sweep configs/sweep_k.toml"
#
# The second job runs what failed or was stopped, if anything, and writes the table.
# `gmm-bayes sweep configs/sweep_k.toml --dry-run` lists the members with their numbers.

#SBATCH --job-name=sweep_k
#SBATCH --array=0-5
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --output=slurm-%x-%A_%a.log

set -euo pipefail
exec gmm-bayes sweep "${1:-configs/sweep_k.toml}" --index "$SLURM_ARRAY_TASK_ID"
