"""``python -m training``: train, fine-tune for int8 and evaluate expression models."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge_fer.errors import EdgeFerError

EXAMPLES = """examples:
  python -m training train --recipe training/recipes/compact.toml --data ~/fer2013 --run runs/compact
  python -m training train --recipe training/recipes/compact.toml --data ~/fer2013 --run runs/compact --resume
  python -m training qat --model runs/equalised/model.keras --recipe training/recipes/compact.toml --data ~/fer2013 \\
      --run runs/compact-qat
  python -m training evaluate --model runs/compact/model.keras --data ~/fer2013 --out runs/compact/evaluation

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
    train = verbs.add_parser("train", help="train a model by a recipe")
    train.add_argument("--recipe", type=Path, required=True, metavar="TOML")
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    train.add_argument("--run", type=Path, metavar="DIR", help="folder to write; default runs/NAME-OF-RECIPE")
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    evaluate = verbs.add_parser("evaluate", help="accuracy, macro F1, recall and confusion of a model")
    evaluate.add_argument("--model", type=Path, required=True, metavar="KERAS")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the data set")
    evaluate.add_argument("--split", default="PublicTest", choices=["Training", "PublicTest", "PrivateTest"])
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="folder for metrics.json and confusion_*.png")
    qat = verbs.add_parser("qat", help="fine-tune a model under simulated int8; see docs/quantisation.md")
    qat.add_argument("--model", type=Path, required=True, metavar="KERAS", help="as export/equalise.py made it")
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
    try:
        if args.verb == "train":
            from training.train import train as train_by_recipe

            train_by_recipe(args.recipe, args.data, args.run or Path("runs") / args.recipe.stem, args.resume)
        elif args.verb == "qat":
            from training.qat import finetune

            finetune(args.model, args.recipe, args.data, args.run, args.epochs, args.learning_rate, not args.per_tensor)
        else:
            _evaluate(args.model, args.data, args.split, args.out)
    except EdgeFerError as error:
        print(f"training: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ntraining: stopped; go on with --resume.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"training: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return 74
    return 0


def _evaluate(model_path: Path, data: Path, split: str, out: Path | None) -> None:
    import keras
    from rich.console import Console

    from edge_fer.errors import DataError, InputMissingError
    from evaluation import datasets, figures
    from training.models import HEADS

    if not model_path.is_file():
        raise InputMissingError(f"No model {model_path}.")
    try:
        model = keras.models.load_model(model_path, compile=False)
    except (ValueError, OSError, KeyError) as error:
        raise DataError(f"{model_path} is not a Keras model that can be read: {str(error).splitlines()[0]}") from None
    splits = datasets.load(data)
    if split not in splits:
        raise InputMissingError(f"{data} has no {split} rows.")
    logits = model.predict(splits[split].images, batch_size=512, verbose=0)
    results = figures.evaluate_logits(logits, splits[split], HEADS)
    figures.write_figures(results, HEADS, out or model_path.parent / "evaluation")
    Console().print(figures.report({"float": results}))


if __name__ == "__main__":
    sys.exit(main())
