"""The report on a pre-training: what it learnt from, whether it learnt anything, and what to do with it."""

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup
from safetensors import SafetensorError, safe_open

from voxelseg.data.wording import counted, some
from voxelseg.errors import DataError
from voxelseg.files import read_json, read_json_lines
from voxelseg.pretrain.following import repeated_settings
from voxelseg.report.baselines import Family, draw_scores, families
from voxelseg.report.crops import CropView, crop_views, read_pictures
from voxelseg.report.curves import learning_curves
from voxelseg.report.facts import Facts, config_facts, dataset_facts, duration, plan_facts, provenance_facts, text_of
from voxelseg.report.probe import ProbePart, probe_part
from voxelseg.report.run import LOG_FILE, Fold, Run, last_epochs, number
from voxelseg.report.strip import axis, ratio_range, strip
from voxelseg.report.template import filled

PRETRAINING_FILE = "pretraining.json"
MODEL_FILE = "model.safetensors"
_TEMPLATE = "pretraining.html"
_REMEDY = "Give the folder that `voxelseg pretrain --out` wrote."
_SECTIONS = ("config", "plan", "fingerprint", "scans")


@dataclass(frozen=True)
class PretrainingFolder:
    """What a pre-training left, read as far as it has come."""

    folder: Path
    info: Mapping[str, Any]
    """Content of pretraining.json."""
    log: Fold
    """Its training, as if it were a fold of a run."""
    record: Mapping[str, Any] | None
    """What the file with the weights says of the method; None before there is one."""

    @cached_property
    def families(self) -> list[Family]:
        """Scores of the running validation, each with its baselines."""
        return families(self.log.epochs)

    @property
    def as_run(self) -> Run:
        """The record with the scans in place of a data set, for facts that runs have, too."""
        scans = self.info.get("scans") or {}
        shown = {key: value for key, value in self.info.items() if key not in ("scans", "method")}
        dataset = {key: scans[key] for key in ("name", "layout", "root", "channels") if key in scans}
        return Run(self.folder, {**shown, "dataset": dataset}, ())


def is_pretraining(folder: Path) -> bool:
    """Whether a folder is that of a pre-training."""
    return (folder / PRETRAINING_FILE).is_file()


def read_pretraining(folder: Path) -> PretrainingFolder:
    """What is in the folder of a pre-training; DataError if its record or its weights are damaged."""
    info = read_json(folder / PRETRAINING_FILE, remedy=_REMEDY)
    if not isinstance(info, dict) or any(not isinstance(info.get(key) or {}, dict) for key in _SECTIONS):
        raise DataError(f"{folder / PRETRAINING_FILE}: not the record of a pre-training. {_REMEDY}")
    log = Fold(name="", epochs=last_epochs(read_json_lines(folder / LOG_FILE)), evaluation=None, files={})
    return PretrainingFolder(folder, info, log, _record(folder / MODEL_FILE))


def _record(path: Path) -> Mapping[str, Any] | None:
    """What a file with pre-trained weights says of them; the weights are not read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            record: Mapping[str, Any] = json.loads((file.metadata() or {})["voxelseg"])["pretraining"]
            return record
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged ({error!r}). Delete it: the same `voxelseg pretrain` makes it again."
        ) from error


def render_pretraining(folder: Path) -> str:
    """HTML of the report on the pre-training in `folder`."""
    found = read_pretraining(folder)
    plan, plan_notes = plan_facts(found.as_run)
    scans = found.info.get("scans") or {}
    probe = probe_part(folder, folder / MODEL_FILE)
    return filled(
        _TEMPLATE,
        name=scans.get("name") or folder.name,
        subtitle=f"Pre-training of {found.info.get('model')} by {found.info.get('method')}",
        status=_status(found),
        headline=_headline(found, probe),
        verdicts=[family.in_words() for family in found.families],
        score_curves=[draw_scores(family, place) for place, family in enumerate(found.families)],
        curves=learning_curves([found.log], ()),
        labels=_label_part(found.record or {}),
        views=_views(found),
        probe=probe,
        following=_following(found),
        about=(("Scans", _scan_facts(found)), ("Method", _method_facts(found)), ("Plan", plan)),
        plan_notes=plan_notes,
        config=config_facts(found.as_run),
        provenance=provenance_facts(found.as_run),
    )


def _status(found: PretrainingFolder) -> str:
    """What is not finished, in a sentence; empty if everything is."""
    if found.record is not None:
        return ""
    if not found.log.epochs:
        return "The pre-training has not finished its first epoch: there are no curves yet."
    return f"Not finished: {counted(len(found.log.epochs), 'epoch')} so far. The same `voxelseg pretrain` goes on."


def _headline(found: PretrainingFolder, probe: ProbePart | None) -> list[tuple[str, str, str]]:
    """Big numbers: title, value, small print."""
    numbers = [(family.title, family.last_text, family.against) for family in found.families if family.baselines]
    if probe is not None:
        numbers.append(probe.headline)
    if found.log.epochs:
        steps = counted(found.log.steps, "step")
        numbers.append(("Training time", duration(found.log.elapsed_s), steps))
    scans = found.info.get("scans") or {}
    held_out = len(scans.get("held_out") or ())
    learnt = number(scans.get("num_scans")) - held_out
    if math.isfinite(learnt):
        numbers.append(("Scans learnt from", str(int(learnt)), f"{held_out} more held out to watch it by"))
    return numbers


@dataclass(frozen=True)
class LabelPart:
    """How the pseudo-labels of the clusterers are distributed."""

    sentence: str
    rows: tuple[tuple[str, Markup, str], ...]
    """What, distribution over the clusterers, and mean."""
    axis: Markup


def _label_part(record: Mapping[str, Any]) -> LabelPart | None:
    """None for a method without pseudo-labels."""
    entropies, largest = record.get("label_entropy"), record.get("largest_cluster")
    sizes = record.get("clusters")
    if not (entropies and largest and sizes):
        return None
    names = [f"clusterer {place}, {size} clusters" for place, size in enumerate(sizes)]
    low, high = ratio_range([*entropies, *largest])
    rows = tuple(
        (title, strip(dict(zip(names, values, strict=True)), low, high), f"{math.fsum(values) / len(values):.3f}")
        for title, values in (("Entropy of the labels", entropies), ("Share of the largest cluster", largest))
    )
    ends = " to ".join(map(str, sorted({min(sizes), max(sizes)})))
    return LabelPart(
        f"{counted(len(sizes), 'clusterer')} with {ends} clusters; each point is one of them. "
        "Entropy is 1 if all clusters are equally large; labels say little where it is near 0 and where one cluster "
        "holds most slices.",
        rows,
        axis(low, high),
    )


def _views(found: PretrainingFolder) -> tuple[CropView, ...]:
    plan = found.info.get("plan") or {}
    spacing = plan.get("spacing_mm") or (1.0, 1.0, 1.0)
    return crop_views(read_pictures(found.folder), spacing_mm=tuple(map(float, spacing)))


def _scan_facts(found: PretrainingFolder) -> Facts:
    scans = found.info.get("scans") or {}
    facts = dataset_facts(found.as_run)
    if "num_scans" in scans:
        facts.insert(1, ("Scans", text_of(scans["num_scans"])))
    if scans.get("held_out"):
        facts.append(("Held out", some(scans["held_out"])))
    return facts


def _method_facts(found: PretrainingFolder) -> Facts:
    """Method and settings, and what the file of the weights says of them."""
    config, method = found.info.get("config") or {}, str(found.info.get("method"))
    settings = config.get(method.replace("-", "_")) or {}
    facts = [("Method", method)]
    if found.record is not None:
        part = {"all": "the whole network but its heads", "encoder": "the encoder only"}
        facts.append(("Pre-trained", part.get(str(found.record.get("trained")), "–")))
    axis_number = (config.get("pretrain") or {}).get("slice_axis")
    if axis_number in (0, 1, 2) and "clusters" in (found.record or {}):
        facts.append(("Slices follow one another along", "DHW"[axis_number]))
    return [*facts, *((key.replace("_", " ").capitalize(), text_of(value, key)) for key, value in settings.items())]


def _following(found: PretrainingFolder) -> list[tuple[str, str]]:
    """What to run next: words, and the command."""
    pre, model = str(found.folder), str(found.info.get("model"))
    options = repeated_settings(found.info.get("config") or {})
    commands = (
        ("Train from these weights", ["train", "DATA", "--out", "RUN", "--model", model, "--init", pre, *options]),
        (
            "Measure what they are worth with few and many labels",
            ["label-study", "DATA", "--out", "DIR", "--start", "scratch", "--start", pre, "--model", model, *options],
        ),
        ("Probe what the features tell apart", ["probe", pre, "--data", "DATA"]),
    )
    return [(words, shlex.join(["voxelseg", *command])) for words, command in commands]
