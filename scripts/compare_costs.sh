#!/usr/bin/env bash
# Accuracy against operations: variants of both networks, trained and evaluated alike on one fold, each beside the
# shipped one.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: scripts/compare_costs.sh BIDS_DIR OUT [--set KEY=VALUE ...]

  BIDS_DIR  raw BIDS data set with lesion masks in derivatives/manual/sub-X/anat/sub-X_label-lesion_mask.nii.gz
  OUT       folder of the results; a second call continues there
  --set     changes every training alike, as --set train.steps=300

environment:
  FOLD      the fold whose patients are tested (default 1/3)
  VARIANTS  the variants to make (default all of them)
  CONTRAST  what to train on (default FLAIR)
  DEVICE    auto (default), cpu, cuda, cuda:1

Variants of stage 1, restoration, judged by the AUPRC of its map:
  shipped                     as it is
  wide, wide-plain            widths 48, 96, 128, with the skip and without
  thin                        widths 16, 32, 64
  folded                      pixels folded 3 x 3 instead of 2 x 2
  coarse                      64 x 64 pixels
  quick                       one noise level in prediction instead of two
Variants of stage 2, synthetic, behind the shipped stage 1, judged by the AUPRC of the fused score:
  pair                        as it is
  pair-wide                   decoder 256, 128, 64, 32, 16
  pair-light                  encoder tu-resnet10t
OUT/costs.md is the table: operations, AUPRC and its paired difference from the shipped network of the same stage.
TEXT
  exit 2
}

# shellcheck source=scripts/cohort_arguments.sh
source "$(dirname "${BASH_SOURCE[0]}")/cohort_arguments.sh"
known="shipped wide wide-plain thin folded coarse quick pair pair-wide pair-light"
variants=${VARIANTS:-$known}
for variant in $variants; do [[ " $known " == *" $variant "* ]] || usage; done

cohort=$out/cohort.csv
run index bids "$bids" --out "$cohort" --fold "${FOLD:-1/3}" --split train=0.8 --split validation=0.2 --seed 0

# What a variant changes in its config, as arguments.
changes() {
  case $1 in
    wide) echo --set 'model.widths=[48,96,128]' ;;
    wide-plain) echo --set 'model.widths=[48,96,128]' --set model.skip=false ;;
    thin) echo --set 'model.widths=[16,32,64]' ;;
    folded) echo --set model.unshuffle=3 ;;
    coarse) echo --set anatomy.size=64 ;;
    quick) echo --set 'model.levels=[60]' ;;
    pair-wide) echo --set 'segmenter.decoder_channels=[256,128,64,32,16]' ;;
    pair-light) echo --set segmenter.encoder=tu-resnet10t ;;
  esac
}

make_variant() {
  local changed
  read -ra changed <<<"$(changes "$1")"
  if [[ $1 == pair* ]]; then
    make_variant shipped
    run speed synthetic --operations --out "$out/$1.cost" "${changed[@]}"
    run fit-detector synthetic "$cohort" --reconstructor "$out/shipped.model" --out "$out/$1.model" "${fit[@]}" \
      "${painted[@]}" "${changed[@]}" "${settings[@]}"
  else
    run speed restoration --operations --out "$out/$1.cost" "${anatomy[@]}" "${changed[@]}"
    run fit-reconstructor restoration "$cohort" --out "$out/$1.model" "${fit[@]}" "${anatomy[@]}" "${removed[@]}" \
      "${changed[@]}" "${settings[@]}"
  fi
  run_cases predict "$out/$1.model" "$cohort" --split test --out "$out/$1.predictions" "${fit[@]}"
  run_cases evaluate "$out/$1.predictions" "$cohort" --split test --out "$out/$1"
}

# AUPRC of a table, mean over subjects, with its interval: the row of a system, or of a difference of systems.
auprc() {
  awk -F, -v row="$2" '$1 == "" && $2 == row && $3 == "auprc" && $4 == "mean over subjects" {
    printf "%.3f [%.3f, %.3f]", $5, $6, $7 }' "$1"
}
cost() { awk -F'[:,]' -v key="\"$2\"" 'index($1, key) { printf "%.2f", $2 }' "$out/$1.cost/operations.json"; }

for variant in $variants; do make_variant "$variant"; done
{
  echo "| variant | GFLOP a slice and pass | GFLOP a training step | GFLOP a slice in prediction | AUPRC | - shipped |"
  echo "|---|---|---|---|---|---|"
  for variant in $variants; do
    shipped=shipped
    if [[ $variant == pair* ]]; then shipped=pair; fi
    difference=""
    if [[ $variant != "$shipped" && -d $out/$shipped ]]; then
      run compare "$shipped=$out/$shipped" "$variant=$out/$variant" --out "$out/comparison-$variant" >&2
      difference=$(auprc "$out/comparison-$variant/comparison.csv" "$variant - $shipped (score)")
    fi
    echo "| $variant | $(cost "$variant" pass_gflops) | $(cost "$variant" step_gflops) |" \
      "$(cost "$variant" slice_gflops) | $(auprc "$out/$variant/summary.csv" score) | $difference |"
  done
} >"$out/costs.md.partial"
mv "$out/costs.md.partial" "$out/costs.md"
cat "$out/costs.md"
