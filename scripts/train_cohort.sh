#!/usr/bin/env bash
# From an annotated BIDS cohort to calibrated detectors and their figures on patients never seen. A second call
# continues where the first one stopped.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/train_cohort.sh BIDS_DIR OUT [--set KEY=VALUE ...]

  BIDS_DIR  raw BIDS data set with lesion masks in derivatives/manual/sub-X/anat/sub-X_label-lesion_mask.nii.gz
  OUT       folder of the results; a second call continues there
  --set     changes the three trainings, as --set train.steps=200 for a quick try

environment:
  CONTRAST           what to train on: FLAIR (default), T2w, T1wCE, T1w, ...
  RECONSTRUCTOR, DETECTOR, FEW_LABELS   configs, shipped names or paths (restoration, synthetic, few-labels)
  FALSE_POSITIVE_ML  limit of the threshold rule false-positives, ml a lesion-free slice (default 0.1)
  DEVICE             auto (default), cpu, cuda, cuda:1

Subjects are split 64 : 16 : 20 into train, validation and test (50: 32, 8, 10), balanced by health and, where
participants.tsv has one, by site. Left in OUT:
  cohort.csv          the manifest with the split
  reconstructor/      stage 1, learnt from slices that keep a margin from every lesion
  detector/           stage 2 on synthetic lesions. No lesion mask is learnt from: masks only tell which slices of the
                      training patients to leave out, and find the thresholds on the validation patients
  detector-few/       the same, fine-tuned on the masks of 7 training patients
  predictions-NAME/, scores-NAME/   maps and figures of the test patients, who are touched by nothing else
Both detectors hold three rules, set on the validation patients: expected-dice (the default: a threshold a scan, and
that of best-dice where a scan shows little), best-dice and false-positives (one threshold for all).
TEXT
  exit 2
}

# shellcheck source=scripts/cohort_arguments.sh
source "$(dirname "${BASH_SOURCE[0]}")/cohort_arguments.sh"
limit=${FALSE_POSITIVE_ML:-0.1}
labelled=7

cohort=$out/cohort.csv
run index bids "$bids" --out "$cohort" --split train=0.64 --split validation=0.16 --split test=0.20 --seed 0

run fit-reconstructor "${RECONSTRUCTOR:-restoration}" "$cohort" --out "$out/reconstructor" \
  "${fit[@]}" "${anatomy[@]}" "${removed[@]}" "${settings[@]}"
run fit-detector "${DETECTOR:-synthetic}" "$cohort" --reconstructor "$out/reconstructor" \
  --out "$out/detector-uncalibrated" "${fit[@]}" "${painted[@]}" "${settings[@]}"
run fit-detector "${FEW_LABELS:-few-labels}" "$cohort" --init "$out/detector-uncalibrated" --limit "$labelled" \
  --out "$out/detector-few-uncalibrated" "${fit[@]}" "${few[@]}" "${settings[@]}"

by=()
if head -n 1 "$cohort" | tr -d '\r' | tr ',' '\n' | grep -qx site; then by=(--by site); fi
for name in detector detector-few; do
  run calibrate "$out/$name-uncalibrated" "$cohort" --out "$out/$name" --split validation \
    --rule expected-dice:below=threshold --rule best-dice \
    --rule "false-positives:false_positive_ml=$limit,per=slice" "${fit[@]}"
  run_cases predict "$out/$name" "$cohort" --split test --maps all --out "$out/predictions-$name" "${fit[@]}"
  run_cases evaluate "$out/predictions-$name" "$cohort" --split test --out "$out/scores-$name" "${by[@]}"
done
echo "figures on the test patients: $out/scores-detector/summary.md and $out/scores-detector-few/summary.md"
