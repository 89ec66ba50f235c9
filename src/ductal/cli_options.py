"""What the commands share: options, how they are read, and how errors end a command."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from ductal.errors import DataError, DuctalError, StorageError
from ductal.files import is_disk_error
from ductal.tracking.options import Tracking

INTERRUPTED = 130


class Commands(typer.core.TyperGroup):
    """Turns errors into one clear message and a documented exit code; only a mistake of ours has a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("\nInterrupted. What was finished is kept; the same command goes on from there.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except DuctalError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if not is_disk_error(error):  # a closed pipe among others, which Typer knows how to treat
                raise
            typer.echo(f"Error: {error}. Check the path, its permissions and the free space.", err=True)
            raise typer.Exit(StorageError.exit_code) from None


class SplitName(StrEnum):
    """Splits that `--split` takes."""

    published = "published"
    published_extra = "published+extra"
    random = "random"
    kfold = "kfold"


class Profile(StrEnum):
    """Profiles that `--profile` takes."""

    quick = "quick"
    full = "full"


class MethodChoice(StrEnum):
    """Methods that `--method` takes."""

    grad_cam = "grad-cam"
    occlusion = "occlusion"
    both = "both"


class EngineChoice(StrEnum):
    """Engines that `--engine` takes."""

    auto = "auto"
    openvino = "openvino"
    tensorflow = "tensorflow"


class BackboneChoice(StrEnum):
    """Networks that `--backbone` of `ductal prior` takes."""

    vgg16 = "vgg16"
    cnn = "cnn"
    efficientnetb0 = "efficientnetb0"


class FormatChoice(StrEnum):
    """Formats that `--to` takes."""

    openvino = "openvino"
    onnx = "onnx"
    litert = "litert"
    savedmodel = "savedmodel"
    tfjs = "tfjs"


class PrecisionChoice(StrEnum):
    """Precisions that `--precision` takes."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    int8 = "int8"


Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random: selection, split, weights, order.", min=0)]
Patients = Annotated[int | None, typer.Option(help="Keep this many patients, drawn at random.", min=1)]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit-per-class",
        min=1,
        help="Train on at most this many patches per class of each patient, drawn at random; "
        "metrics still use all patches.",
    ),
]
PatientsCsv = Annotated[
    Path | None, typer.Option(help="CSV with columns file,patient for class folders without genuine names.")
]
SplitOption = Annotated[
    SplitName | None, typer.Option("--split", help="How patients are divided; random by default.")
]
SplitFile = Annotated[
    Path | None,
    typer.Option(help="A split of your own, in the form of a run's split.json, instead of a named one."),
]
Ratios = Annotated[
    str | None, typer.Option(help="Train,validation,test shares of the random split; 0.7,0.15,0.15 by default.")
]
Fold = Annotated[int | None, typer.Option(help="Test fold of the kfold split, from 0, which is the default.", min=0)]
Folds = Annotated[int | None, typer.Option(help="Number of folds of the kfold split; 5 by default.", min=3)]
InnerFold = Annotated[
    str | None,
    typer.Option(
        help="K/N: divide training and validation patients anew into N folds; fold K, from 0, is validation. Test "
        "patients stay. `ductal ensemble` joins the N runs.",
    ),
]
MaxEpochs = Annotated[int | None, typer.Option(help="At most this many epochs in each stage.", min=1)]
WeightsFile = Annotated[Path | None, typer.Option(help="ImageNet weights of the backbone (Keras notop .h5).")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Train from the first epoch; use nothing an earlier call has trained.")
]
Track = Annotated[
    str | None, typer.Option("--track", help="Tell tensorboard (files in OUT/tensorboard), mlflow, or both, of it.")
]
TrackingUri = Annotated[
    str | None, typer.Option(help="Address of the MLflow server; else that in MLFLOW_TRACKING_URI.")
]
Gpus = Annotated[
    int | None, typer.Option(min=1, help="Graphics processors that share each batch; one device by default.")
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="The same run again from the same seed, also on a GPU, or an error; slower. docs/reliability.md.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as ductal-out/runs/vgg16-full.")]
Engine = Annotated[EngineChoice, typer.Option(help="auto: OpenVINO on a CPU where it is installed.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on this Ray cluster, whose machines share the folders: auto, or HOST:PORT of its head.",
    ),
]
RayCpus = Annotated[
    int | None, typer.Option("--ray-cpus", help="Processors, and threads, of a task there; 1 by default.", min=1)
]
D4 = Annotated[bool, typer.Option("--d4", help="Average over the 8 rotations and flips of each patch.")]
Fast = Annotated[bool, typer.Option("--fast", help="Compute in 16 bits as `ductal predict` does, not in float32.")]
Source = Annotated[Path, typer.Argument(help="An image, a folder or zip of images, or a prepared cohort.")]


def check_source(source: Path) -> None:
    """Raises DataError where there are no images to read because there is nothing."""
    if not source.exists():
        raise DataError(f"{source} does not exist. Name an image, a folder or zip of images, or a prepared cohort.")


def ray_cpus_in(ray: str | None, cpus: int | None) -> int:
    """Processors of a task. Raises BadParameter where there is no cluster that they could be of."""
    if cpus is not None and ray is None:
        raise typer.BadParameter("--ray-cpus is of tasks on a cluster; give --ray, or leave it away")
    return cpus or 1


def names_in(text: str | None) -> tuple[str, ...]:
    """The parts of a list separated by commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def tracking_in(track: str | None, uri: str | None, out: Path) -> Tracking | None:
    """Who is told of a training. Raises TrackingError."""
    names = names_in(track)
    return Tracking.parse(names, out / "tensorboard", uri) if names or uri else None


def split_in(
    split: SplitName | None, split_file: Path | None, ratios: str | None, fold: int | None, folds: int | None
) -> tuple[str, dict[str, Any]]:
    """The split's name, and those of its settings that were given (see `ductal.data.splitting.make_split`).

    Raises:
        BadParameter: an option was given that the split does not use, or ratios that are not three numbers.
    """
    name = (split or SplitName.random).value
    users = {
        "--split": (split, not split_file),
        "--ratios": (ratios, name == SplitName.random and not split_file),
        "--fold": (fold, name == SplitName.kfold and not split_file),
        "--folds": (folds, name == SplitName.kfold and not split_file),
    }
    for option, (value, used) in users.items():
        if value is not None and not used:
            chosen = "--split-file" if split_file else f"--split {name}"
            raise typer.BadParameter(f"{option} is not used with {chosen}; leave one of them away")
    given = {"ratios": ratios and ratios_in(ratios), "fold": fold, "folds": folds}
    return name, {key: value for key, value in given.items() if value is not None}


def inner_fold_in(text: str | None) -> tuple[int, int] | None:
    """(k, n) of "k/n". Raises BadParameter."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    number, folds = (int(part) for part in found.groups()) if found else (0, 0)
    if folds < 2 or number >= folds:
        raise typer.BadParameter(f"a fold such as 0/4, 1/4, 2/4 or 3/4 is needed, not {text}")
    return number, folds


def ratios_in(text: str) -> tuple[float, float, float]:
    """Three numbers separated by commas. Raises BadParameter."""
    try:
        train_share, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"three numbers such as 0.7,0.15,0.15 are needed, not {text}") from None
    return train_share, val, test
