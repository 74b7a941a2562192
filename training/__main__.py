"""``python -m training``: train, fine-tune for int8 and evaluate expression models."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
from pathlib import Path

from edge_fer.errors import INTERRUPTED, OS_ERROR, ConfigError, EdgeFerError, UsageError
from edge_fer.files import write_atomically
from training import onednn
from training.ranges import check_seeds
from training.recipe import DataRecipe, load_recipe
from training.sequences import OFFLINE_METHODS

EXAMPLES = """examples:
  python -m training run quick --data ~/fer2013
  python -m training run accurate --data ~/fer2013 --dry-run
  python -m training run accurate --data ~/fer2013 --from robust
  python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/plain
  python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/plain --resume
  python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/mixed --set mixup=0.2
  python -m training pretrain --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/plain-faces
  python -m training from-bundle --bundle mine.tflite --recipe training/recipes/plain.toml --data ~/fer2013 \\
      --run runs/mine
  python -m training cache-logits --teacher runs/a --teacher runs/b --data ~/fer2013 -o runs/teachers.npz
  python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/distilled \\
      --set distill.weight=0.8 --teacher-logits training/logits/t1-t4.npz --init-from runs/plain/model.keras
  python -m training train --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/online \\
      --set distill.weight=0.9 --teacher runs/a --teacher runs/b
  python -m training interpolate --of runs/a --and runs/accurate --alpha 0.7 --data ~/fer2013 --run runs/between
  python -m training fold --of runs/se --data ~/fer2013 --run runs/se-folded
  python -m training qat --model runs/equalized/model.keras --recipe runs/separable/recipe.toml --data ~/fer2013 \\
      --run runs/separable-qat
  python -m training evaluate --model runs/plain/model.keras --data ~/fer2013 --out runs/plain/evaluation
  python -m training sequences --model runs/plain/model.keras --data ~/CK+48
  python -m training recurrent --bundle nano --data ~/CK+48 --faces ~/fer2013 --run runs/nano-gru16
  python -m training sequences --method cross-entropy ppdn mscnn --model runs/plain/model.keras --data ~/CK+48 \\
      --run runs/peaks
  python -m training report runs/plain --data ~/fer2013
  python -m training compare runs/plain runs/mixed --plot runs/curves.png
  python -m training classifiers --run runs/plain --run runs/mixed --data ~/fer2013
  python -m training pretrain --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/denoising \\
      --set pretrain.kind=denoising --set pretrain.patch_px=1 --set pretrain.noise=25
  python -m training probe --run runs/plain-faces --run runs/denoising --data ~/fer2013 -o runs/probe.csv
  python -m training classifiers --bundle nano --classifier linear-svm --data ~/fer2013 --export nano-svm.tflite
  python -m training committee --group runs/a runs/b --group runs/c runs/d --data ~/fer2013
  python -m training audn --data ~/fer2013 --run runs/audn
  python -m training dbn --recipe training/recipes/plain.toml --data ~/fer2013 --run runs/dbn
  python -m training survey --data ~/fer2013 --only center island --budget 30

The data folder holds fer2013.csv (Kaggle) and, for the FER+ head, fer2013new.csv (github.com/microsoft/FERPlus);
or a folder for each class: train/angry/*.jpg, train/happy/*.jpg, ...
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="walk the stages of a recipe to its model, each from where it was cut off")
    run.add_argument("recipe", metavar="RECIPE", help="a name in training/recipes, or the path of a TOML file")
    run.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    run.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="of all run folders (runs)")
    run.add_argument(
        "--from", default="", metavar="STAGE", dest="begin", help="make it again, and all that is built on it"
    )
    run.add_argument("--dry-run", action="store_true", help="show the plan, and how long it takes, alone")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change all its stages' recipe")
    train = verbs.add_parser("train", help="train a model by a recipe")
    train.add_argument("--recipe", type=Path, required=True, metavar="TOML")
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    train.add_argument("--run", type=Path, metavar="DIR", help="folder to write; default runs/NAME-OF-RECIPE")
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    train.add_argument("--teacher-logits", type=Path, metavar="NPZ", help="cached logits, for recipes with [distill]")
    train.add_argument(
        "--teacher",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="instead of --teacher-logits: online distillation from this run; repeat for an ensemble",
    )
    train.add_argument("--init-from", type=Path, metavar="KERAS", help="start from the weights of this model")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe; may be given often",
    )
    pretrain = verbs.add_parser("pretrain", help="pre-train a backbone without labels, for train --init-from")
    pretrain.add_argument("--recipe", type=Path, required=True, metavar="TOML")
    pretrain.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    pretrain.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    pretrain.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    taken = verbs.add_parser("from-bundle", help="a bundle's int8 network as a float one, for train --init-from")
    taken.add_argument("--bundle", required=True, metavar="NAME", help="a model of the package, or a bundle's file")
    taken.add_argument("--recipe", type=Path, required=True, metavar="TOML", help="of the same network")
    taken.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    taken.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    cache = verbs.add_parser("cache-logits", help="cache the logits of a teacher ensemble for a student")
    cache.add_argument("--teacher", type=Path, required=True, action="append", metavar="RUN", help="repeat for more")
    cache.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    cache.add_argument("--views", type=int, default=4, help="of each image (default: 4)")
    cache.add_argument("--seed", type=int, default=1, help="of the views (default: 1)")
    cache.add_argument("--each-view", action="store_true", help="keep each view and its logits, not the mean")
    cache.add_argument("--unlabeled", default="", metavar="NAME", help="folder in --data with faces without labels")
    cache.add_argument("-o", "--out", type=Path, required=True, metavar="NPZ", help="the logits to write")
    between = verbs.add_parser("interpolate", help="interpolate the weights of two runs")
    between.add_argument("--of", type=Path, required=True, metavar="RUN")
    between.add_argument("--and", type=Path, required=True, metavar="RUN", dest="second")
    between.add_argument("--alpha", type=float, default=0.5, help="weight of the second (default: 0.5)")
    between.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    between.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    fold = verbs.add_parser("fold", help="fold squeeze-and-excitation into the batch normalization before it")
    fold.add_argument("--of", type=Path, required=True, metavar="RUN")
    fold.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    fold.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    page = verbs.add_parser("report", help="one HTML page of a run: curves, confusion, worst mistakes, calibration")
    page.add_argument("run", type=Path, metavar="RUN")
    page.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    page.add_argument("-o", "--output", type=Path, metavar="HTML", help="default: RUN/report.html")
    compare = verbs.add_parser("compare", help="runs side by side, with a paired test")
    compare.add_argument("first", type=Path, metavar="RUN", help="what the others are measured against")
    compare.add_argument("others", type=Path, nargs="+", metavar="RUN")
    compare.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves of all runs into this file")
    compare.add_argument("--json", action="store_true", help="print JSON")
    evaluate = verbs.add_parser("evaluate", help="accuracy, macro F1, recall and confusion of a model")
    evaluate.add_argument("--model", type=Path, required=True, metavar="KERAS")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    evaluate.add_argument("--split", default="PublicTest", choices=["Training", "PublicTest", "PrivateTest"])
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="folder for metrics.json and confusion_*.png")
    dbn = verbs.add_parser("dbn", help="a deep belief network: greedy pre-training of RBMs, then fine-tuning")
    dbn.add_argument("--recipe", type=Path, required=True, metavar="TOML", help="of the fine-tuning")
    dbn.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    dbn.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    dbn.add_argument("--hidden", type=int, nargs="+", default=[500, 200], help="units of each machine (500 200)")
    dbn.add_argument("--epochs", type=int, default=10, help="of each machine (default: 10)")
    dbn.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    audn = verbs.add_parser("audn", help="an AU-inspired deep network: receptive fields, an RBM stack on each, an SVM")
    audn.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    audn.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    audn.add_argument("--hidden", type=int, nargs="+", default=[100, 50], help="units of each machine (100 50)")
    audn.add_argument("--epochs", type=int, default=10, help="of each machine (default: 10)")
    audn.add_argument("--seed", type=int, default=1, help="(default: 1)")
    classifiers = verbs.add_parser("classifiers", help="SVMs and a forest on the features of runs")
    of_what = classifiers.add_mutually_exclusive_group(required=True)
    of_what.add_argument("--run", type=Path, action="append", metavar="RUN", help="several are fused")
    of_what.add_argument("--bundle", metavar="NAME", help="heads for the device: a model of the package, or a file")
    classifiers.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    classifiers.add_argument("--seed", type=int, default=1, help="(default: 1)")
    classifiers.add_argument("-o", "--out", type=Path, metavar="JSON", help="write the rows there too")
    classifiers.add_argument("--export", type=Path, metavar="OUT.tflite", help="with --bundle: write it with the head")
    classifiers.add_argument(
        "--classifier", choices=["linear-svm", "random-forest"], default="linear-svm", help="to export (linear-svm)"
    )
    probe = verbs.add_parser("probe", help="what frozen features tell, from a part of the labels: a linear probe")
    probe.add_argument("--run", type=Path, required=True, action="append", metavar="RUN", help="repeat for more")
    probe.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    probe.add_argument("--fraction", type=float, default=0.1, help="of the labels (default: 0.1)")
    probe.add_argument("--seeds", type=int, default=3, help="how often labels are drawn (default: 3)")
    probe.add_argument("--face-network", action="store_true", help="probe dlib's face network too")
    probe.add_argument("-o", "--out", type=Path, required=True, metavar="CSV", help="rows to write; its figure is .png")
    committee = verbs.add_parser("committee", help="a hierarchical committee of runs: members, groups, top")
    committee.add_argument(
        "--group", type=Path, required=True, nargs="+", action="append", metavar="RUN", help="repeat for each group"
    )
    committee.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    committee.add_argument("-o", "--out", type=Path, metavar="JSON", help="write the rows there too")
    sequences = verbs.add_parser("sequences", help="frame aggregation on sequences of people not met before")
    sequences.add_argument("--model", type=Path, metavar="KERAS", help="whose features and answers")
    sequences.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a set of people in sequences, as CK+48"
    )
    sequences.add_argument("--k", type=int, default=10, help="folds, nobody in two of them (default: 10)")
    sequences.add_argument(
        "--frames", type=int, default=3, help="of each sequence, where a set has whole ones (default: 3)"
    )
    offline = sequences.add_argument_group("networks trained on the sequences, offline (docs/sequences-offline.md)")
    offline.add_argument(
        "--method", nargs="+", choices=OFFLINE_METHODS, metavar="NAME", help=", ".join(OFFLINE_METHODS)
    )
    offline.add_argument("--run", type=Path, metavar="DIR", help="folder to write, wanted with --method")
    offline.add_argument("--seeds", type=int, default=1, help="each method is trained with so many (default: 1)")
    offline.add_argument("--epochs", type=int, default=0, help="of each method, in place of its own")
    offline.add_argument("--landmarks", default="", metavar="KIND:FILE", help="mesh:FILE or dlib:FILE, for phrnn")
    offline.add_argument("--synthetic", action="store_true", help="clips blended from a person's mean to the peak")
    recurrent = verbs.add_parser("recurrent", help="a recurrent head on the embeddings of a bundle; docs/sequences.md")
    recurrent.add_argument("--bundle", required=True, metavar="NAME", help="a model of the package, or a bundle's file")
    recurrent.add_argument("--data", type=Path, required=True, metavar="DIR", help="people in sequences, as CK+48 has")
    recurrent.add_argument("--faces", type=Path, required=True, metavar="DIR", help="single faces, neutral ones too")
    recurrent.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    recurrent.add_argument("--kind", choices=["gru", "lstm"], default="gru", help="(default: gru)")
    recurrent.add_argument("--units", type=int, default=16, help="of its state (default: 16)")
    recurrent.add_argument("--k", type=int, default=5, help="folds, nobody in two of them (default: 5)")
    recurrent.add_argument("--sequences", type=int, default=1500, help="synthetic ones of each set (default: 1500)")
    recurrent.add_argument("--epochs", type=int, default=25, help="(default: 25)")
    recurrent.add_argument("--seed", type=int, default=1, help="(default: 1)")
    survey = verbs.add_parser("survey", help="the survey's methods under one protocol, row by row, into docs/survey.md")
    survey.add_argument("--data", type=Path, metavar="DIR", help="folder with the data set; without it, the page alone")
    survey.add_argument("--only", nargs="+", default=[], metavar="NAME", help="systems or rows of docs/survey.md")
    survey.add_argument("--budget", type=float, metavar="MINUTES", help="stop then; the same command goes on")
    survey.add_argument("--seeds", type=int, default=1, help="more than 1 for rows close to the baseline (1)")
    survey.add_argument("--cross", type=Path, metavar="DIR", help="another data set to test on, such as CK+48")
    survey.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="of all run folders (runs)")
    survey.add_argument("--output", type=Path, default=Path("docs/survey.md"), metavar="MD", help="(docs/survey.md)")
    qat = verbs.add_parser("qat", help="fine-tune a model under simulated int8; see docs/quantization.md")
    qat.add_argument("--model", type=Path, required=True, metavar="KERAS", help="as export/equalize.py made it")
    qat.add_argument("--recipe", type=Path, required=True, metavar="TOML", help="what it was trained by")
    qat.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    qat.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder to write")
    qat.add_argument("--epochs", type=int, default=3)
    qat.add_argument("--learning-rate", type=float, default=2e-4, help="at the start (default: 2e-4)")
    qat.add_argument(
        "--per-tensor", action="store_true", help="one scale a kernel, for exports with per-tensor weights"
    )
    args = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of several networks in one process
    trains = args.verb in ("train", "pretrain", "qat") or (args.verb == "sequences" and args.method)
    if trains or (args.verb == "run" and not args.dry_run) or (args.verb == "survey" and args.data):
        onednn.guard()
    go_on = {"run": "the same command, without --from", "survey": "the same command"}.get(args.verb, "--resume")
    try:
        if "seed" in args:
            check_seeds(args.seed)
        if args.verb == "run":
            from training import distributed
            from training.pipeline import run as walk
            from training.stages import find

            if (count := distributed.started()) > 1:
                raise ConfigError(
                    f"{count} processes were started, and stages are walked by one: start `train` by all."
                )

            walk(
                find(args.recipe),
                args.data,
                args.runs,
                begin=args.begin,
                dry_run=args.dry_run,
                changes=args.set,
            )
        elif args.verb == "train":
            from training.loop import train as train_by_recipe

            train_by_recipe(
                load_recipe(args.recipe, args.set),
                args.data,
                args.run or Path("runs") / args.recipe.stem,
                resume=args.resume,
                teacher_logits=args.teacher_logits,
                teachers=args.teacher,
                init_from=args.init_from,
            )
        elif args.verb == "pretrain":
            from training.pretrain import pretrain as pretrain_by_recipe

            pretrain_by_recipe(load_recipe(args.recipe, args.set), args.data, args.run)
        elif args.verb == "from-bundle":
            from training.from_bundle import from_bundle

            from_bundle(args.bundle, load_recipe(args.recipe), args.data, args.run)
        elif args.verb == "dbn":
            from training.classical import dbn as of_dbn

            of_dbn.train(load_recipe(args.recipe, args.set), args.data, args.run, args.hidden, args.epochs)
        elif args.verb == "audn":
            from rich.console import Console

            from training.classical import audn as of_fields

            Console().print(
                of_fields.table_of(of_fields.train(args.data, args.run, args.hidden, args.epochs, args.seed))
            )
        elif args.verb == "classifiers":
            _classifiers(args)
        elif args.verb == "probe":
            from rich.console import Console

            from training import probe as probes

            options = {"fraction": args.fraction, "seeds": args.seeds, "face_network": args.face_network}
            Console().print(probes.table_of(probes.probe(args.run, args.data, args.out, **options)))
        elif args.verb == "committee":
            from rich.console import Console

            from training import committee as of_runs

            Console().print(of_runs.table_of(of_runs.compare(args.group, args.data, args.out)))
        elif args.verb == "cache-logits":
            from training.cached_logits import cache_logits

            more = {"each_view": args.each_view, "data": DataRecipe(unlabeled=args.unlabeled)}
            cache_logits(args.teacher, args.data, args.views, args.seed, args.out, **more)
        elif args.verb == "interpolate":
            from training.interpolate import interpolate

            interpolate(args.of, args.second, args.alpha, args.data, args.run)
        elif args.verb == "fold":
            from training.fold import fold as fold_run

            fold_run(args.of, args.data, args.run)
        elif args.verb == "qat":
            from training.qat import finetune

            recipe, per_channel = load_recipe(args.recipe), not args.per_tensor
            finetune(args.model, recipe, args.data, args.run, args.epochs, args.learning_rate, per_channel)
        elif args.verb == "sequences":
            _sequences(args)
        elif args.verb == "recurrent":
            from training.sequences import recurrent as of_heads

            of_heads.train(
                args.bundle,
                args.data,
                args.faces,
                args.run,
                kind=args.kind,
                units=args.units,
                k=args.k,
                count=args.sequences,
                epochs=args.epochs,
                seed=args.seed,
            )
        elif args.verb == "survey":
            from training.survey.command import survey as survey_by_rows

            more = {"seeds": args.seeds, "budget": args.budget, "runs": args.runs, "cross": args.cross}
            survey_by_rows(args.data, args.output, only=args.only, **more)
        elif args.verb == "report":
            from training.report import write_report

            write_report(args.run, args.data, args.output or args.run / "report.html")
        elif args.verb == "compare":
            from training.compare import compare as compare_runs

            compare_runs([args.first, *args.others], args.json, args.plot)
        else:
            _evaluate(args.model, args.data, args.split, args.out)
    except EdgeFerError as error:
        print(f"training: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\ntraining: stopped; go on with {go_on}.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        cure = f" Make room, and go on with {go_on}." if error.errno == errno.ENOSPC else ""
        print(f"training: {error.filename or 'a file'}: {error.strerror or error}.{cure}", file=sys.stderr)
        return OS_ERROR
    return 0


def _sequences(args: argparse.Namespace) -> None:
    if args.method:
        from training.sequences import trial

        if args.run is None:
            raise UsageError("--method wants a folder to write: give --run DIR.")
        numbers = (args.k, args.seeds, args.frames, args.epochs)
        trial.run(trial.Choice(args.method, args.data, *numbers, args.model, args.landmarks, args.synthetic), args.run)
        return
    if args.model is None:
        raise UsageError("Frame aggregation compares the answers of a network: give --model KERAS.")
    from training.sequences.compare import print_comparison

    print_comparison(args.model, args.data, args.k, args.frames)


def _classifiers(args: argparse.Namespace) -> None:
    from rich.console import Console

    if args.run:
        from training.classical import classifiers

        if args.export:
            raise UsageError("--export wants --bundle: a run is exported with export/quantize.py first.")
        Console().print(classifiers.table_of(classifiers.compare(args.run, args.data, args.seed, args.out)))
        return
    from training.classical import device_head

    known = device_head.known_of(args.bundle, args.data)
    rows = device_head.compare(known, args.seed)
    Console().print(device_head.table_of(rows))
    if args.out:
        write_atomically(args.out, (json.dumps(rows, indent=2) + "\n").encode())
    if args.export:
        device_head.with_head(known, args.classifier, args.seed).write(args.export)
        Console().print(f"Wrote {args.export}: {args.export.stat().st_size / 1000:.0f} kB", highlight=False)


def _evaluate(model_path: Path, data: Path, split: str, out: Path | None) -> None:
    from rich.console import Console

    import datasets
    from edge_fer.errors import DataError, InputMissingError
    from edge_fer.preprocess import PreprocessSpec
    from evaluation import metrics
    from training import distributed, models

    processes = distributed.join("data" if distributed.started() > 1 else "none")
    model = models.load(model_path)
    described = models.read_description(model_path)
    spec = described.preprocess if described else PreprocessSpec()
    splits = datasets.load(data, alignment=spec.alignment, illumination=spec.illumination)
    if split not in splits:
        raise InputMissingError(f"{data} has no {split} samples.")
    heads = described.heads if described else splits[split].heads
    if model.output_shape != (None, sum(len(head.labels) for head in heads)):
        raise DataError(f"{model_path} has outputs {model.output_shape}, which are not those of its heads.")
    logits = distributed.predict(
        lambda images: model.predict(images, batch_size=512, verbose=0), splits[split].images, processes
    )
    if not processes.leads:
        return
    results = metrics.evaluate_logits(logits, splits[split], heads)
    metrics.write_metrics(results, heads, out or model_path.parent / "evaluation")
    Console().print(metrics.report({"float": results}))


if __name__ == "__main__":
    sys.exit(main())
