"""nnU-Net v2 in an environment of its own: its data folder, planning and training through its own commands.

The environment is a virtual environment that torch and nnU-Net are installed into, without timm, which would bring a
torchvision that replaces a CPU torch, and which nnU-Net needs for its transformers only:

    python -m venv DIR
    DIR/bin/pip install torch==2.13.0
    DIR/bin/pip install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4
    DIR/bin/pip install torch==2.13.0 acvl-utils batchgenerators batchgeneratorsv2 blosc2 einops graphviz imagecodecs \
        matplotlib nibabel pandas requests scikit-image scikit-learn scipy seaborn SimpleITK tifffile tqdm yacs

where torch is the version that voxelseg itself runs on.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.benchmark.inputs import contents, inputs_of
from voxelseg.data.dataset import Dataset
from voxelseg.data.splits import Split, write_splits
from voxelseg.errors import ConfigError, WorkerError
from voxelseg.files import read_json, write_json
from voxelseg.io import read_volume, write_volume
from voxelseg.volume import Volume

PACKAGES = ("nnunetv2==2.8.1", "dynamic-network-architectures==0.4.4")
"""Installed without their dependencies, which would bring timm and torchvision."""
NEEDS = (
    *("acvl-utils", "batchgenerators", "batchgeneratorsv2", "blosc2", "einops", "graphviz", "imagecodecs"),
    *("matplotlib", "nibabel", "pandas", "requests", "scikit-image", "scikit-learn", "scipy", "seaborn"),
    *("SimpleITK", "tifffile", "tqdm", "yacs"),
)
"""What nnU-Net declares, without timm."""
TRAINER = Path(__file__).with_name("nnunet_trainer.py")
TRAINING_FILE = "training.json"
"""What the trainer says of itself."""
PREPARED_FILE = "prepared.json"
"""Marks a folder for nnU-Net's data as ours, and says what they were made from, and whether all is there."""
_PARTS = ("raw", "preprocessed", "results")
"""Of that folder; all else in it is left alone."""
_SHOWN_LINES = 15


def nnunet_python(environment: Path) -> Path:
    """Python of the environment in that folder; ConfigError if nnU-Net cannot be imported there."""
    python = environment.absolute() / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        raise ConfigError(f"{environment}: has no Python. Make a virtual environment with nnU-Net v2 there.")
    done = subprocess.run([python, "-c", "import nnunetv2"], capture_output=True, text=True, env=_without_path())
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"{environment}: nnU-Net cannot be imported there ({reason}). Install nnunetv2 into it.")
    return python


def check_nnunet_folder(folder: Path, environment: Path) -> None:
    """ConfigError unless nnU-Net's data may go into `folder`: it has them already, or is empty or not there."""
    if environment.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{environment}: lies where nnU-Net's data go, in {folder}. Move the environment, or choose another --out."
        )
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / PREPARED_FILE).is_file():
        raise ConfigError(
            f"{folder}: nnU-Net's data are to go there, but it has something else, or data of which {PREPARED_FILE} "
            "does not say how they were made. Move it away, or choose another --out."
        )


def _without_path() -> dict[str, str]:
    """The environment of this process, but for what may show nnU-Net the packages of voxelseg's environment."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> float:
    """Run a command, its output added to `log`; returns wall seconds. If this process is asked to end, it ends, too.

    WorkerError shows the last lines if it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("a") as output:
        output.write(f"\n$ {' '.join(command)}\n")
        output.flush()
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process:
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                raise
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])
        raise WorkerError(f"command failed with code {code}: {' '.join(command)}\n{tail}\nThe whole log is {log}.")
    return time.monotonic() - began


def write_nnunet_raw(dataset: Dataset, folder: Path) -> None:
    """Write the training cases in nnU-Net v2's raw layout: links where the files fit, else one file per channel."""
    ending = dataset.file_ending
    for case in dataset.cases:
        images = [folder / "imagesTr" / f"{case.id}_{index:04d}{ending}" for index in range(len(dataset.channels))]
        if len(case.images) == len(images) and all(source.name.endswith(ending) for source in case.images):
            for source, target in zip(case.images, images, strict=True):
                _link(source, target)
        else:
            volumes = [read_volume(source) for source in case.images]
            channels = [(volume.grid, channel) for volume in volumes for channel in volume.array]
            for (grid, channel), target in zip(channels, images, strict=True):
                write_volume(target, Volume(channel[None], grid))
        assert case.label is not None  # training cases have one
        target = folder / "labelsTr" / f"{case.id}{ending}"
        if case.label.name.endswith(ending):
            _link(case.label, target)
        else:
            write_volume(target, read_volume(case.label))
    write_json(folder / "dataset.json", nnunet_description(dataset))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def nnunet_description(dataset: Dataset) -> dict[str, Any]:
    """Content of nnU-Net v2's dataset.json."""
    scheme = dataset.labels
    labels: dict[str, int | list[int]] = {"background": 0}
    for label in scheme.classes:
        labels[label.name] = list(label.values) if scheme.has_regions else label.values[0]
    if scheme.ignore is not None:
        labels["ignore"] = scheme.ignore
    return {
        "channel_names": {str(index): name for index, name in enumerate(dataset.channels)},
        "labels": labels,
        **({"regions_class_order": [label.paint for label in scheme.classes]} if scheme.has_regions else {}),
        "numTraining": len(dataset.cases),
        "file_ending": dataset.file_ending,
    }


@dataclass(frozen=True, kw_only=True)
class NNUNetWork:
    """nnU-Net's folders for one data set."""

    python: Path
    """Of its environment."""
    folder: Path
    """For its raw and preprocessed data."""
    dataset: Dataset
    threads: int

    @property
    def name(self) -> str:
        """Of the data set in nnU-Net's folders."""
        letters = "".join(letter for letter in self.dataset.name if letter.isascii() and letter.isalnum())
        return f"Dataset001_{letters or 'data'}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for nnU-Net's commands."""
        work, threads = self.folder.absolute(), str(self.threads)
        return {
            **_without_path(),
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
            "nnUNet_raw": str(work / "raw"),
            "nnUNet_preprocessed": str(work / "preprocessed"),
            "nnUNet_results": str(work / "results"),
            "nnUNet_def_n_proc": threads,
            "nnUNet_n_proc_DA": "1",  # planning takes this number for torch's threads and fails at 0
        }

    def prepare(self, splits: Sequence[Split], log: Path) -> None:
        """Plan and preprocess the data set once, and hand nnU-Net our folds.

        ConfigError if the folder has something else: see `check_nnunet_folder`.
        """
        check_nnunet_folder(self.folder, self.python.parent.parent)
        prepared = self.folder / PREPARED_FILE
        known = read_json(prepared, remedy=f"Delete {self.folder}.") if prepared.is_file() else {}
        inputs = inputs_of(self.dataset, known.get("inputs", {}))
        content = {"data": str(self.dataset.root.resolve()), "inputs": inputs}
        if not _is_prepared(known, content):
            write_json(prepared, {**content, "finished": False})
            for part in _PARTS:
                shutil.rmtree(self.folder / part, ignore_errors=True)
            write_nnunet_raw(self.dataset, self.folder / "raw" / self.name)
            command = [str(self.python.with_name("nnUNetv2_plan_and_preprocess")), "-d", "1", "-c", "3d_fullres"]
            command += ["--verify_dataset_integrity", "-npfp", str(self.threads), "-np", str(self.threads)]
            run(command, log, self.environment)
            write_json(prepared, {**content, "finished": True})
        write_splits(self.folder / "preprocessed" / self.name / "splits_final.json", splits)

    def train(self, fold: int, results: Path, log: Path, *, arguments: Sequence[str], workers: int = 0) -> Path:
        """Train a fold from the start and predict its held-out cases; returns nnU-Net's folder of the fold.

        `arguments` are those of nnunet_trainer.py on length, seed, device, batch and mirroring; `workers` processes
        augment, or this one does it itself.
        """
        shutil.rmtree(results, ignore_errors=True)
        environment = self.environment | {
            "nnUNet_results": str(results.absolute()),
            "nnUNet_n_proc_DA": str(workers),
        }
        run([str(self.python), str(TRAINER), self.name, "--fold", str(fold), *arguments], log, environment)
        (training,) = results.glob(f"{self.name}/*/fold_{fold}/{TRAINING_FILE}")
        return training.parent


def _is_prepared(known: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Whether the data that `known` notes are whole and were made from `content`."""
    if not known.get("finished", "data" in known) or known.get("data") != content["data"]:
        return False
    return "inputs" not in known or contents(known["inputs"]) == contents(content["inputs"])
