#!/usr/bin/env bash
# The rows of a fair comparison: the same patients, folds, steps and evaluation for every method; paired differences.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/compare_rows.sh BIDS_DIR OUT [--set KEY=VALUE ...]

  BIDS_DIR  raw BIDS data set with lesion masks in derivatives/manual/sub-X/anat/sub-X_label-lesion_mask.nii.gz
  OUT       folder of the results; a second call continues there
  --set     changes every training alike, as --set train.steps=600

environment:
  FOLDS     how many folds every patient is tested in once (default 3)
  ONLY      the folds to run now, as "1" or "2 3" (default all of them)
  ROWS      the rows to make, as "cddpm dae" (default all of them)
  CONTRAST  what to train on (default FLAIR)
  DEVICE    auto (default), cpu, cuda, cuda:1

Rows, one folder of scores each, in OUT/fold-K:
  cddpm, cddpm-healthy, dae   reconstruction alone: conditioned diffusion with and without painted anomalies, DAE
  pair, image                 UNet on synthetic lesions with cddpm's reconstruction (fused) and without any
  pair-sum                    the networks of pair under the paper's score, 1 - SSIM + probability
  dae-pair                    as pair, with the DAE's reconstruction
  pair-few, image-few         both, fine-tuned with the masks of 7 training patients
Every row is outlined by two rules: best-dice, and in ROW-expected one threshold a scan (expected-dice).
Plain intensity and left-right asymmetry stand in every summary.
OUT/comparison-NAME/comparison.md holds the paired differences over all the patients of the folds that are done; better
is what has a p of .05 or less ("more than chance").
TEXT
  exit 2
}

# shellcheck source=scripts/cohort_arguments.sh
source "$(dirname "${BASH_SOURCE[0]}")/cohort_arguments.sh"
count=${FOLDS:-3}
folds=${ONLY:-$(seq "$count")}
known="cddpm cddpm-healthy dae pair pair-sum dae-pair image pair-few image-few"
rows=${ROWS:-$known}
for row in $rows; do [[ " $known " == *" $row "* ]] || usage; done

# Whether one of these rows is to be made.
asked() { for row in "$@"; do [[ " $rows " == *" $row "* ]] && return; done; return 1; }

for fold in $folds; do
  here=$out/fold-$fold
  mkdir -p "$here"
  cohort=$here/cohort.csv
  run index bids "$bids" --out "$cohort" --fold "$fold/$count" --split train=0.8 --split validation=0.2 --seed 0

  reconstructor() {
    run fit-reconstructor "$2" "$cohort" --out "$here/$1.model" "${fit[@]}" "${anatomy[@]}" "${@:3}" "${settings[@]}"
  }
  detector() { run fit-detector "$2" "$cohort" --out "$here/$1.model" "${fit[@]}" "${@:3}" "${settings[@]}"; }
  scores() {
    run calibrate "$here/$1.model" "$cohort" --out "$here/$1.calibrated" --split validation \
      --rule best-dice --rule expected-dice "${fit[@]}"
    run_cases predict "$here/$1.calibrated" "$cohort" --split test --maps all --out "$here/$1.predictions" "${fit[@]}"
    run_cases evaluate "$here/$1.predictions" "$cohort" --split test --out "$here/$1"
    run_cases evaluate "$here/$1.predictions" "$cohort" --split test --rule expected-dice --out "$here/$1-expected"
  }
  if asked cddpm pair pair-sum pair-few; then reconstructor cddpm restoration "${removed[@]}"; fi
  if asked cddpm-healthy; then reconstructor cddpm-healthy cddpm-small-healthy; fi
  if asked dae dae-pair; then reconstructor dae dae; fi
  if asked pair pair-sum pair-few; then detector pair synthetic --reconstructor "$here/cddpm.model" "${painted[@]}"; fi
  if asked pair-sum; then
    run fit-detector paper-score "$cohort" --init "$here/pair.model" --out "$here/pair-sum.model" "${fit[@]}"
  fi
  if asked dae-pair; then detector dae-pair synthetic --reconstructor "$here/dae.model" "${painted[@]}"; fi
  if asked image image-few; then detector image synthetic-image "${anatomy[@]}" "${painted[@]}"; fi
  if asked pair-few; then detector pair-few few-labels --init "$here/pair.model" --limit 7 "${few[@]}"; fi
  if asked image-few; then detector image-few few-labels --init "$here/image.model" --limit 7 "${few[@]}"; fi
  for row in $rows; do scores "$row"; done
done

# Each row against the one that it must beat, over every fold that is done.
against() {
  local row evaluations=()
  for row in "$@"; do asked "${row%-expected}" || return 0; done
  for row in "$2" "$1"; do
    for folder in "$out"/fold-*/"$row"; do evaluations+=("$row=$folder"); done
  done
  run compare "${evaluations[@]}" --out "$out/comparison-$1-$2"
}
against cddpm dae
against cddpm-healthy dae
against cddpm cddpm-healthy
against pair cddpm
against pair image
against pair pair-sum
against pair dae-pair
against pair-few pair
against pair-few image-few
against pair-expected pair
against pair-few-expected pair-few
