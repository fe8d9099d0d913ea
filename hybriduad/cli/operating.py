"""The verbs that say what a bundle would miss, and choose what it is to find at which price."""

from __future__ import annotations

import typer

from hybriduad.cli import options, outcomes


def blind_spots(
    bundle: options.BundleFolder,
    controls: options.Cohort,
    *,
    out: options.Out,
    versions: options.Versions = 3,
    rule: options.Rule = None,
    split: options.SplitName = None,
    seed: options.Seed = 0,
    labelled: options.Labelled = None,
    like: options.Like = None,
    beside_lesions: options.BesideLesions = False,
    brain: options.Brain = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Say which lesions a bundle would miss.

    Lesions of stated sizes, contrasts and places are painted into every case of COHORT whose health is "healthy", and
    predicted. Exits with 3 if some cases failed; they are named at the end.
    """
    from hybriduad.evaluation.blind_spots import REPORT, find_blind_spots

    outcome = find_blind_spots(
        bundle,
        controls,
        out=out,
        versions=versions,
        rule=rule,
        split=split,
        seed=seed,
        labelled=labelled,
        like=like,
        beside_lesions=beside_lesions,
        brain=brain,
        device=device,
        overwrite=overwrite,
    )
    typer.echo((out / REPORT).read_text(encoding="utf-8"), nl=False)
    outcomes.say_outcome(outcome)


def operating_point(
    bundle: options.BundleFolder,
    blind_spots: options.BlindSpots,
    *,
    out: options.Out,
    false_lesions: options.FalseLesions,
    brain: options.Brain = None,
    overwrite: options.Overwrite = False,
    verbose: options.Verbose = False,
) -> None:
    """Choose a threshold by its false lesions.

    Prints false lesions a healthy scan against the recall of painted lesions, over thresholds, and writes the bundle
    at the chosen point.
    """
    from hybriduad.evaluation.operating_point import choose_operating_point

    chosen, said = choose_operating_point(
        bundle, blind_spots, out=out, false_lesions=false_lesions, brain=brain, overwrite=overwrite
    )
    typer.echo(said)
    outcomes.say_bundle(chosen)
