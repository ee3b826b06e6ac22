import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, store_postprocessing
from voxelseg.data.labels import NO_LABELS, LabelClass, LabelScheme
from voxelseg.errors import CheckpointError, VoxelsegError
from voxelseg.nets import create_model
from voxelseg.plan.plan import Normalization, Plan

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)), ignore=3)
PLAN = Plan(
    channels=("CT",),
    axes=(2, 0, 1),
    spacing_mm=(3.0, 1.0, 0.75),
    anisotropic=False,
    normalization=(Normalization(kind="ct", window=(-100.5, 200.25), mean=40.1, std=0.1 + 0.2),),
    patch_size=(8, 16, 16),
    batch_size=2,
    mirror_axes=(0,),
    median_shape=(10, 20, 30),
    strides=((1, 1, 1), (1, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3)),
)
OPTIONS = {"width": 2, "strides": PLAN.strides, "kernels": PLAN.kernels, "deep_supervision": True}


def checkpoint(**changes):
    torch.manual_seed(0)
    model = create_model("unet_s", in_channels=1, num_classes=3, **OPTIONS)
    return Checkpoint(
        **{
            "weights": model.state_dict(),
            "model": "unet_s",
            "model_options": OPTIONS,
            "plan": PLAN,
            "labels": LABELS,
            "file_ending": ".nrrd",
            "provenance": {"seed": 0, "run": {"command": "voxelseg train ä"}},
        }
        | changes
    )


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "model.safetensors", checkpoint())
    return tmp_path / "model.safetensors"


def rewrite(path, *, weights=None, **header_changes):
    """The file with another header or other weights and a checksum that fits them, as a newer version would write."""
    made = checkpoint(**({} if weights is None else {"weights": weights}))
    header = {**made._header(), **header_changes}
    from voxelseg import checkpoint as module

    text = json.dumps(header)
    tensors = {name: tensor.clone() for name, tensor in made.weights.items()}
    save_file(tensors, path, metadata={"voxelseg": text, "sha256": module._hash(text, tensors)})


def test_everything_comes_back(path):
    before, after = checkpoint(), load_checkpoint(path)
    assert (after.model, after.plan, after.labels, after.file_ending, after.provenance) == (
        before.model,
        PLAN,
        LABELS,
        ".nrrd",
        before.provenance,
    )
    assert after.weights.keys() == before.weights.keys()
    assert all(torch.equal(after.weights[name], tensor) for name, tensor in before.weights.items())
    assert after.path == path


def test_the_network_is_rebuilt_with_tuples_that_were_lists_in_the_file_and_gives_the_same_output(path):
    torch.manual_seed(0)
    original = create_model("unet_s", in_channels=1, num_classes=3, **OPTIONS).eval()
    original.deep_supervision = False
    rebuilt = load_checkpoint(path).build()
    assert rebuilt.config.strides == PLAN.strides
    assert not rebuilt.training
    assert not rebuilt.deep_supervision
    image = torch.randn(1, 1, 4, 8, 8)
    assert torch.equal(original(image), rebuilt(image))


def test_shared_and_half_precision_tensors_are_stored(tmp_path):
    shared = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    weights = {"a": shared, "b": shared.T, "c": torch.tensor(1.5)}
    save_checkpoint(tmp_path / "m.safetensors", checkpoint(weights=weights))
    loaded = load_checkpoint(tmp_path / "m.safetensors").weights
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_the_fingerprint_tells_models_apart_and_ignores_provenance(path):
    same = checkpoint(provenance={"seed": 9}).fingerprint()
    assert checkpoint().fingerprint() == same == load_checkpoint(path).fingerprint()
    weights = {name: tensor.clone() for name, tensor in checkpoint().weights.items()}
    next(iter(weights.values())).view(-1)[0] += 1e-3
    assert checkpoint(weights=weights).fingerprint() != same
    assert checkpoint(plan=PLAN.changed(spacing_mm=(3.0, 1.0, 0.76))).fingerprint() != same


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors: no such model file"):
        load_checkpoint(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("length", [0, 1, 8, 100, -1])
def test_a_truncated_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*(damaged|not a model file)"):
        load_checkpoint(path)


def test_no_flipped_bit_goes_unnoticed(path):
    content = path.read_bytes()
    numbers = random.Random(0)
    header_length = int.from_bytes(content[:8], "little")
    in_header = [numbers.randrange(8, 8 + header_length) for _ in range(150)]
    anywhere = [numbers.randrange(len(content)) for _ in range(50)]
    before = load_checkpoint(path)
    for position in [*range(8), *in_header, *anywhere]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        try:
            after = load_checkpoint(path)
        except CheckpointError:
            continue
        assert after.fingerprint() == before.fingerprint(), position  # such as a space among the padding
        assert after.provenance == before.provenance


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a voxelseg model"):
        load_checkpoint(path)
    torch.save({"weight": torch.zeros(2)}, path)  # a pickle is never opened
    with pytest.raises(CheckpointError, match="damaged or not a model file"):
        load_checkpoint(path)
    path.write_text("model")
    with pytest.raises(CheckpointError, match="damaged or not a model file"):
        load_checkpoint(path)


def test_a_newer_format_asks_for_an_update(path):
    rewrite(path, format=99)
    with pytest.raises(CheckpointError, match=r"newer voxelseg \(format 99\). Update voxelseg"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        {"plan": {"channels": ["CT"]}},
        {"labels": {"classes": [], "ignore": None}},
        {"labels": 3},
        {"format": "one"},
    ],
    ids=["plan", "no classes", "labels", "format"],
)
def test_an_impossible_header_is_refused(path, change):
    rewrite(path, **change)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the header is damaged"):
        load_checkpoint(path)


def test_weights_of_another_network_are_refused_by_name(path):
    other = create_model("unet_s", in_channels=1, num_classes=3, width=3).state_dict()
    rewrite(path, weights=other)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the weights are not those of a unet_s"):
        load_checkpoint(path).build()


def test_a_network_that_this_version_does_not_have_is_named(path):
    rewrite(path, model="unet_xxl")
    with pytest.raises(CheckpointError, match=r"cannot build its network: unknown model 'unet_xxl'"):
        load_checkpoint(path).build()


def test_a_full_disk_leaves_the_old_file_alone(path, monkeypatch):
    before = path.read_bytes()
    from safetensors import SafetensorError

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("voxelseg.checkpoint.save_file", full)
    with pytest.raises(VoxelsegError, match=r"cannot be written \(I/O error: No space left on device\)"):
        save_checkpoint(path, checkpoint())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_other_tools_read_the_weights(path):
    assert load_file(path).keys() == checkpoint().weights.keys()


KEPT = {"foreground": True, "classes": ["spleen"], "neighbours": 26}


def test_a_postprocessing_is_stored_beside_weights_and_provenance_that_stay(path):
    before = load_checkpoint(path)
    assert before.postprocessing is None
    store_postprocessing(path, KEPT)
    after = load_checkpoint(path)
    assert after.postprocessing == KEPT
    assert after.fingerprint() == before.fingerprint()  # the network's output is the same
    assert (after.plan, after.labels, after.provenance) == (before.plan, before.labels, before.provenance)
    assert all(torch.equal(after.weights[name], tensor) for name, tensor in before.weights.items())
    store_postprocessing(path, None)
    assert load_checkpoint(path).postprocessing is None


def test_a_file_that_says_so_already_is_not_written_again(path):
    store_postprocessing(path, KEPT)
    before = path.stat().st_mtime_ns
    store_postprocessing(path, dict(KEPT))
    assert path.stat().st_mtime_ns == before


def test_a_damaged_file_gets_no_postprocessing(path):
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        store_postprocessing(path, KEPT)
    assert path.read_bytes() == b"damaged"


def test_a_model_of_before_there_was_postprocessing_has_none(path):
    header = checkpoint()._header()
    del header["postprocessing"]
    from voxelseg import checkpoint as module

    text, weights = json.dumps(header), {name: tensor.clone() for name, tensor in checkpoint().weights.items()}
    save_file(weights, path, metadata={"voxelseg": text, "sha256": module._hash(text, weights)})
    assert load_checkpoint(path).postprocessing is None


PRETRAINING = {"method": "simmim", "settings": {"cube": 4}, "num_classes": 14, "trained": "all", "slice_axis": 2}


def pretrained(**changes):
    weights = {name: tensor for name, tensor in checkpoint().weights.items() if not name.startswith("heads.")}
    return checkpoint(**{"weights": weights, "labels": NO_LABELS, "pretraining": PRETRAINING} | changes)


def test_what_a_pre_training_left_comes_back_without_labels(path):
    save_checkpoint(path, pretrained())
    after = load_checkpoint(path)
    assert (after.pretraining, after.pretrained_part, after.labels) == (PRETRAINING, "all", NO_LABELS)
    assert after.weights.keys() == pretrained().weights.keys()
    assert after.fingerprint() == pretrained(pretraining={**PRETRAINING, "method": "simclr"}).fingerprint()
    assert after.fingerprint() != checkpoint().fingerprint()


def test_what_a_pre_training_left_is_not_built_and_says_what_to_do(path):
    save_checkpoint(path, pretrained())
    remedy = r"model\.safetensors: is pre-trained only, by simmim.*voxelseg train DATA --out RUN --model unet_s --init "
    with pytest.raises(CheckpointError, match=remedy):
        load_checkpoint(path).build()
    checkpoint().check_trained()


def test_a_trained_model_is_written_as_before_there_was_pre_training(path):
    from safetensors import safe_open

    def header():
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["voxelseg"])

    assert "pretraining" not in header()
    assert header()["format"] == 1
    assert load_checkpoint(path).pretrained_part is None
    save_checkpoint(path, pretrained())
    assert header()["format"] == 2  # a version that knows none says that a newer one wrote it


@pytest.mark.parametrize(
    "value", [{}, {**PRETRAINING, "trained": "decoder"}, {"method": "simmim", "trained": "all"}, "simmim"]
)
def test_an_impossible_pre_training_is_refused(path, value):
    rewrite(path, labels=NO_LABELS.to_dict(), pretraining=value)
    with pytest.raises(CheckpointError, match=r"header is damaged \(of the pre-training it needs method, num_classes"):
        load_checkpoint(path)
