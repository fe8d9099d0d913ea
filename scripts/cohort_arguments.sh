# shellcheck shell=bash
# Sourced by the scripts beside it, which define usage(): their arguments, the command, and how it is run.
[[ $# -ge 2 && -d $1 && $2 != -* ]] || usage
bids=$1 out=$2
shift 2
settings=()
while [[ $# -gt 0 ]]; do
  [[ $1 == --set && $# -ge 2 && $2 == *=* ]] || usage
  settings+=(--set "$2")
  shift 2
done
contrast=${CONTRAST:-FLAIR}
anatomy=(--set "anatomy.contrasts=[$contrast]")
removed=() painted=() few=()  # the lesions that stage 1 learns to remove, those that stage 2 learns to outline
if [[ $contrast == T1w || $contrast == T2starw ]]; then
  # The shipped configs are for lesions that are mostly bright, on these they are mostly dark. With several contrasts,
  # as in CONTRAST="FLAIR, T1w", a lesion that is bright on one is dark on the other by itself.
  large='{name: lesion, bright: 0.1, median_mm: 35.0'
  small='{name: lesion, bright: 0.1, median_mm: 9.0, ln_sigma: 0.5, several: 0.8, most_foci: 12, '
  small+='softness_mm: [0.0, 3.0], core: 0.0, mass_effect: 0.0}'
  removed=(--set "anomalies=[$large}]")
  painted=(--set "anomalies=[$large, weight: 3}, $small]")
  few=(--set "anomalies=[$large, weight: 3}, $small, {name: transplant, weight: 4}]")
fi
fit=(--cache "$out/cache" --device "${DEVICE:-auto}")

if command -v hybriduad >/dev/null; then
  hybriduad=hybriduad
else
  checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  make --no-print-directory -C "$checkout" install
  hybriduad=$checkout/.venv/bin/hybriduad
fi
run() {
  echo "+ hybriduad $*" >&2
  "$hybriduad" "$@"
}
# Exit code 3: some cases failed and were named, the others are done.
run_cases() { run "$@" || { code=$?; [[ $code == 3 ]] || exit "$code"; }; }
mkdir -p "$out"
