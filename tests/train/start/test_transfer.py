import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from voxelseg.checkpoint import Checkpoint, save_checkpoint
from voxelseg.data.labels import NO_LABELS, parse_labels
from voxelseg.errors import CheckpointError
from voxelseg.nets import create_model
from voxelseg.nets.official import convert
from voxelseg.nets.parts import part_tensors
from voxelseg.train.start.origin import Origin, read_origin
from voxelseg.train.start.transfer import TransferConfig, initial_weights
from voxelseg.train.start.upkern import interpolate_kernel

LABELS = parse_labels({"background": 0, "ball": 1, "rod": 2})
UNET = {"width": 2, "strides": (1, 2)}
ULKANET = {"dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2)}
SMALL = {
    "mednext_s": {"width": 2, "blocks": 1, "deep_supervision": True},
    "uxnet": {"features": (4, 5, 6, 7), "depths": (1, 1, 1, 1), "kernel_size": 3},
    "e2enet": {"width": 4, "strides": (1, 2, 2, 2), "sparsity": 0.5, "deep_supervision": True},
    "ulkanet": ULKANET,
    "logonet": {**ULKANET, "local_stages": 1, "cubes_per_axis": (1, 2, 2)},
    "resenc_unet_m": {"width": 4, "strides": (1, 2), "blocks": (1, 1)},
}


def build(name="mednext_s", *, seed=0, in_channels=1, num_classes=3, **options):
    torch.manual_seed(seed)
    settings = {**SMALL, "unet_s": UNET}[name]
    return create_model(name, in_channels=in_channels, num_classes=num_classes, **{**settings, **options})


def origin_of(network, name, prepared, folder, *, labels=LABELS, plan=None):
    """A model file with the weights of `network`, read as what a training starts from."""
    options = dataclasses.asdict(network.config)
    path = folder / "origin.safetensors"
    checkpoint = Checkpoint(
        weights=network.state_dict(),
        model=name,
        model_options={key: value for key, value in options.items() if key not in ("in_channels", "num_classes")},
        plan=plan or prepared.plan,
        labels=labels,
        file_ending=".nii.gz",
        provenance={"train_cases_sha256": {"a": ["scan a"]}},
    )
    save_checkpoint(path, checkpoint)
    return read_origin(path, model=name)


def pretrained_origin(network, name, prepared, folder, *, part="all", num_classes=14, **changes):
    """What a pre-training of a part of `network` left, read as what a training starts from."""
    names = part_tensors(network, part)
    options = dataclasses.asdict(network.config)
    path = folder / "pretrained.safetensors"
    checkpoint = Checkpoint(
        **{
            "weights": {key: value for key, value in network.state_dict().items() if key in names},
            "model": name,
            "model_options": {key: options[key] for key in options if key not in ("in_channels", "num_classes")},
            "plan": prepared.plan,
            "labels": NO_LABELS,
            "file_ending": ".nii.gz",
            "provenance": {"train_cases_sha256": {"a": ["scan a"]}},
            "pretraining": {"method": "simmim", "num_classes": num_classes, "trained": part, "slice_axis": 0},
        }
        | changes
    )
    save_checkpoint(path, checkpoint)
    return read_origin(path, model=name)


def start(network, origin, prepared, *, labels=LABELS, held_out=None, **config):
    settings = TransferConfig(init=str(origin.path), **config)
    return initial_weights(network, origin, settings, plan=prepared.plan, labels=labels, held_out=held_out)


def depending_on_classes(source, target):
    """Tensors of layers whose shapes differ between two networks, the counts of batches of their norms among them."""
    own, other = source.state_dict(), target.state_dict()
    layers = {key.rpartition(".")[0] for key in own if own[key].shape != other[key].shape}
    return {key for key in own if key.rpartition(".")[0] in layers}


def equal(first, second, names):
    return all(torch.equal(first.state_dict()[name], second.state_dict()[name]) for name in names)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_takes_all_weights_of_its_like(prepared, tmp_path, name):
    source, target = build(name), build(name, seed=1)
    report = start(target, origin_of(source, name, prepared, tmp_path), prepared)
    assert report.matched == tuple(source.state_dict())
    assert equal(source, target, report.matched)
    assert report.share == 1.0
    assert (report.fresh_heads, report.missing, report.mismatched, report.left_out, report.warnings) == ((),) * 5
    assert report.seen_sha256 == ("scan a",)


@pytest.mark.parametrize(
    ("name", "heads"),
    {
        "mednext_s": {f"heads.{number}.{part}" for number in range(5) for part in ("weight", "bias")},
        "uxnet": {"heads.0.weight", "heads.0.bias"},
        "e2enet": {f"heads.{number}.weight" for number in range(2)},
        "ulkanet": None,
        "logonet": None,
    }.items(),
)
def test_heads_for_other_classes_start_fresh_and_all_else_is_taken(prepared, tmp_path, name, heads):
    source, target = build(name), build(name, seed=1, num_classes=4)
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    labels = parse_labels({"background": 0, "ball": 1, "rod": 2, "cube": 3})
    report = start(target, origin_of(source, name, prepared, tmp_path), prepared, labels=labels)
    if heads is None:  # the width of LoGoNet's last layers is the number of classes
        heads = depending_on_classes(source, target)
        assert {key.split(".")[-1] for key in heads} == {
            *("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        }
        assert {"classifier.weight", "classifier.bias"} < heads
    assert set(report.fresh_heads) == heads
    assert all(torch.equal(target.state_dict()[key], fresh[key]) for key in heads)
    assert set(report.matched) == fresh.keys() - heads
    assert equal(source, target, report.matched)
    assert report.share == 1.0


def test_heads_of_as_many_other_classes_start_fresh_too(prepared, tmp_path):
    source, target = build(), build(seed=1)
    origin = origin_of(source, "mednext_s", prepared, tmp_path)
    swapped = parse_labels({"background": 0, "rod": 1, "ball": 2})
    report = start(target, origin, prepared, labels=swapped)
    assert len(report.fresh_heads) == 10
    assert not equal(source, target, ["heads.0.weight"])


def test_heads_of_deep_supervision_may_be_on_either_side_only(prepared, tmp_path):
    deep, plain = build(), build(seed=1, deep_supervision=False)
    report = start(plain, origin_of(deep, "mednext_s", prepared, tmp_path), prepared)
    extra = {f"heads.{number}.{part}" for number in range(1, 5) for part in ("weight", "bias")}
    assert set(report.left_out) == extra
    assert report.warnings == ()
    again = build(seed=2)
    report = start(again, origin_of(plain, "mednext_s", prepared, tmp_path), prepared)
    assert set(report.fresh_heads) == extra
    assert equal(deep, again, ["heads.0.weight"])


def test_smaller_kernels_are_refused_unless_they_may_grow(prepared, tmp_path):
    source = build()
    origin = origin_of(source, "mednext_s", prepared, tmp_path)
    target = build(seed=1, kernel_size=5)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    message = r"has smaller kernels \(17: encoder.0.0.depthwise.weight.*transfer.grow_kernels=true.*model.kernel_size"
    with pytest.raises(CheckpointError, match=message):
        start(target, origin, prepared)
    assert all(torch.equal(target.state_dict()[key], before[key]) for key in before)  # nothing was loaded
    report = start(target, origin, prepared, grow_kernels=True)
    assert len(report.grown) == 17  # nine blocks, eight of them between levels: 9 + 8
    for name in report.grown:
        expected = interpolate_kernel(source.state_dict()[name], (5, 5, 5))
        assert torch.equal(target.state_dict()[name], expected)
    assert report.warnings == ()


def test_larger_kernels_are_refused(prepared, tmp_path):
    origin = origin_of(build(kernel_size=5), "mednext_s", prepared, tmp_path)
    with pytest.raises(CheckpointError, match=r"has larger kernels \(17: .*kernels can only grow"):
        start(build(), origin, prepared, grow_kernels=True)


def test_kernels_of_3d_ux_net_grow_too(prepared, tmp_path):
    origin = origin_of(build("uxnet"), "uxnet", prepared, tmp_path)
    target = build("uxnet", seed=1, kernel_size=7)
    report = start(target, origin, prepared, grow_kernels=True)
    assert set(report.grown) == {f"stages.{stage}.0.conv.weight" for stage in range(4)}


@pytest.mark.parametrize(("name", "inputs"), [("mednext_s", 1), ("uxnet", 3), ("e2enet", 1), ("ulkanet", 2)])
def test_other_input_channels_are_refused_unless_they_may_be_averaged(prepared, tmp_path, name, inputs):
    source, target = build(name, in_channels=2), build(name, seed=1, in_channels=3)
    plan = prepared.plan.changed(channels=("T1", "T2"), normalization=prepared.plan.normalization * 2)
    origin = origin_of(source, name, prepared, tmp_path, plan=plan)
    with pytest.raises(CheckpointError, match=r"another number of input channels.*transfer.channels=average"):
        start(target, origin, prepared)
    report = start(target, origin, prepared, channels="average")
    assert len(report.averaged) >= inputs
    for key in report.averaged:
        given, taken = source.state_dict()[key], target.state_dict()[key]
        assert taken.shape[1] == 3
        torch.testing.assert_close(taken.sum(1), given.sum(1))


def test_another_network_is_refused_with_the_share_and_the_options_that_differ(prepared, tmp_path):
    origin = origin_of(build(), "mednext_s", prepared, tmp_path)
    wider = build(width=4)
    message = r"\(mednext_s\) has \d+\.\d% of the weights .*less than 90%.*width 2 \(here 4\).*transfer.least_share"
    with pytest.raises(CheckpointError, match=message):
        start(wider, origin, prepared)
    with pytest.raises(CheckpointError, match=r"has 0.0% of the weights of this UXNet"):
        start(build("uxnet"), origin, prepared)


def test_a_part_of_the_weights_may_be_asked_for(prepared, tmp_path):
    source = build()
    origin = origin_of(source, "mednext_s", prepared, tmp_path)
    deeper = build(seed=1, blocks=2)
    with pytest.raises(CheckpointError, match=r"not in the file, start fresh: encoder.0.1.depthwise.weight"):
        start(deeper, origin, prepared)
    report = start(deeper, origin, prepared, least_share=0.2)
    assert 0.2 <= report.share < 0.9
    assert set(report.missing) == deeper.state_dict().keys() - source.state_dict().keys()
    assert equal(source, deeper, report.matched)
    assert "blocks" in report.warnings[0]


def test_the_share_counts_weights_without_heads_and_masks(prepared, tmp_path):
    source, target = build("e2enet", deep_supervision=False), build("e2enet", seed=1, num_classes=9)
    origin = origin_of(source, "e2enet", prepared, tmp_path)
    lacking = {key: value for key, value in origin.weights.items() if key != "encoder.3.1.conv.weight"}
    report = start(target, dataclasses.replace(origin, weights=lacking), prepared, labels=LABELS, least_share=0.0)
    counted = {
        key: value.numel()
        for key, value in target.state_dict().items()
        if not key.startswith("heads.") and not key.endswith("kernel_mask")
    }
    assert report.share == pytest.approx(1 - counted["encoder.3.1.conv.weight"] / sum(counted.values()))


def test_sparse_layers_bring_their_masks(prepared, tmp_path):
    source, target = build("e2enet"), build("e2enet", seed=1)
    masks = [key for key in source.state_dict() if key.endswith("kernel_mask")]
    assert not equal(source, target, masks)  # drawn from another seed
    start(target, origin_of(source, "e2enet", prepared, tmp_path), prepared)
    assert equal(source, target, masks)


@pytest.mark.parametrize(("there", "here"), [(0.5, 0.8), (0.0, 0.5), (0.5, 0.0)])
def test_another_sparsity_is_refused(prepared, tmp_path, there, here):
    origin = origin_of(build("e2enet", sparsity=there), "e2enet", prepared, tmp_path)
    message = rf"--set sparse.sparsity={there:g}"
    with pytest.raises(CheckpointError, match=message) as error:
        start(build("e2enet", sparsity=here), origin, prepared)
    for share in (there, here):
        assert f"of sparsity {share:.2g}" in str(error.value)


def test_another_size_is_not_taken_for_another_sparsity(prepared, tmp_path):
    origin = origin_of(build("e2enet"), "e2enet", prepared, tmp_path)
    with pytest.raises(CheckpointError, match=r"has \d+\.\d% of the weights.*trained with width 4 \(here 6\)"):
        start(build("e2enet", width=6), origin, prepared)
    with pytest.raises(CheckpointError, match=r"has \d+\.\d% of the weights.*trained with strides"):
        start(build("e2enet", strides=(1, 2, 2, 2, 2)), origin, prepared)


def test_one_layer_may_be_less_sparse_as_in_weights_of_the_authors(prepared, tmp_path):
    source, target = build("e2enet"), build("e2enet", seed=1)
    mask = source.fusion[0][0][0].conv.kernel_mask  # 8 input and 4 output channels, 16 of 32 kernels active
    mask.flatten()[(~mask).flatten().nonzero()[:3, 0]] = True  # 19 of 32, of many more in all layers
    start(target, origin_of(source, "e2enet", prepared, tmp_path), prepared)
    assert torch.equal(target.fusion[0][0][0].conv.kernel_mask, mask)


def test_weights_that_are_not_numbers_are_refused(prepared, tmp_path):
    source = build()
    with torch.no_grad():
        source.stem.bias[1] = float("nan")
    origin = origin_of(source, "mednext_s", prepared, tmp_path)
    with pytest.raises(CheckpointError, match=r"origin.safetensors: holds NaN or infinity \(stem.bias\)"):
        start(build(seed=1), origin, prepared)


def test_differing_options_without_weights_are_warned_of(prepared, tmp_path):
    origin = origin_of(build("e2enet"), "e2enet", prepared, tmp_path)
    report = start(build("e2enet", shift=(-2, -1, 0, 1, 2)), origin, prepared)
    (warning,) = report.warnings
    assert warning == "Trained with other options: shift [-1, 0, 1] (here [-2, -1, 0, 1, 2])."


def test_cases_that_the_weights_have_seen_are_warned_of(prepared, tmp_path):
    origin = origin_of(build(), "mednext_s", prepared, tmp_path)
    report = start(build(seed=1), origin, prepared, held_out={"a": ["scan a"], "b": ["scan b"]})
    assert "1 of 2 held-out cases" in report.warnings[0]


def test_the_table_has_the_number_and_first_names_of_each_outcome(prepared, tmp_path):
    from rich.console import Console

    origin = origin_of(build(), "mednext_s", prepared, tmp_path)
    report = start(build(seed=1, kernel_size=5, deep_supervision=False), origin, prepared, grow_kernels=True)
    console = Console(width=160, record=True)
    console.print(report.table())
    text = console.export_text()
    assert "(mednext_s)" in text
    assert "taken, kernels grown" in text
    assert "17" in text
    assert "in the file only" in text
    assert "heads.1.weight" in text
    assert "not in the file" not in text
    assert "100.0% of the weights without heads." in text


GOLDEN = {
    "mednext_s": (
        "mednext_k3_small",
        {"in_channels": 2, "width": 8, "expansion": (2, 3, 4, 4, 4, 4, 4, 3, 2), "blocks": 1, "deep_supervision": True},
    ),
    "uxnet": (
        "uxnet_a_small",
        {"num_classes": 4, "features": (8, 16, 32, 48), "hidden": 40, "depths": (2, 2, 2, 2), "kernel_size": 7},
    ),
    "e2enet": (
        "e2enet_a_shared",
        {"in_channels": 2, "width": 8, "max_width": 20, "strides": (1, (1, 2, 2), 2, 2, 2, 2), "sparsity": 0.8},
    ),
    "ulkanet": (
        "ulkanet_small",
        {"in_channels": 2, "dims": (4, 8, 16, 32), "depths": (1, 2, 1, 1), "mlp_ratios": (4, 3, 2, 2)},
    ),
    "logonet": (
        "logonet_small",
        {"in_channels": 2, "dims": (4, 8, 16, 32), "depths": (1, 1, 2, 1), "mlp_ratios": (3, 2, 2, 2)},
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_weights_of_the_authors_start_a_training(prepared, golden_data, tmp_path, name):
    file, options = GOLDEN[name]
    prefixes = ("state_dict.", "state.")
    theirs = {
        key.split(".", 1)[1]: value
        for key, value in load_file(golden_data / f"{file}.safetensors").items()
        if key.startswith(prefixes)
    }
    path = tmp_path / "model_final.pth"
    torch.save({"epoch": 7, "state_dict": theirs}, path)
    network = create_model(name, **{"num_classes": 3, **options})
    origin = read_origin(path, model=name)
    report = start(network, origin, prepared)
    expected = convert(origin.kind, theirs)
    state = network.state_dict()
    assert report.share == 1.0
    assert report.fresh_heads == ()
    assert set(report.matched) == state.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    released = {"e2enet": "shift", "ulkanet": "residual", "logonet": "residual"}
    if name in released:
        assert f"The authors' code computes something else: it has {released[name]} = " in report.warnings[0]
    assert "compare spacing, intensities, channels and the order of the classes yourself" in report.warnings[-1]


def test_layers_that_are_dense_on_both_sides_need_no_masks(prepared, tmp_path):
    # The authors' weights come with a mask for each layer that their code makes sparse; here some of these are dense.
    source, target = build("e2enet"), build("e2enet", seed=1, sparse_up=False)
    dense = {key for key in source.state_dict() if key.startswith("up.") and key.endswith("kernel_mask")}
    assert dense
    weights = {key: torch.ones_like(value) if key in dense else value for key, value in source.state_dict().items()}
    origin = Origin(path=tmp_path, checksum="", what="theirs", weights=weights, kind="e2enet")
    report = start(target, origin, prepared)
    assert (report.left_out, report.share) == ((), 1.0)
    sparse = dataclasses.replace(origin, weights=source.state_dict())  # 6 nodes, 3 of them with 2 convolutions; 6 up
    with pytest.raises(CheckpointError, match=r"has 15 sparse layers .* has 9 sparse layers"):
        start(target, sparse, prepared)


def test_settings_of_the_weights_need_weights():
    for settings in ({"grow_kernels": True}, {"channels": "average"}, {"least_share": 0.5}):
        with pytest.raises(ValueError, match="there is nothing to start from"):
            TransferConfig(**settings)
    assert TransferConfig.model_validate(TransferConfig().model_dump()) == TransferConfig()


@pytest.mark.parametrize("name", [*SMALL, "unet_s"])
def test_a_pre_trained_network_brings_all_but_its_heads_whatever_the_classes(prepared, tmp_path, name):
    source, target = build(name, num_classes=14), build(name, seed=1)
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    report = start(target, pretrained_origin(source, name, prepared, tmp_path), prepared)
    state = source.state_dict()
    expected = {key for key in part_tensors(source, "all") if state[key].shape == fresh[key].shape}
    assert set(report.matched) == expected
    assert set(report.fresh_heads) == fresh.keys() - expected
    assert all(torch.equal(target.state_dict()[key], fresh[key]) for key in report.fresh_heads)
    assert equal(source, target, report.matched)
    assert (report.share, report.part, report.missing, report.untrained) == (1.0, "weights", (), ())
    assert (report.warnings, report.seen_sha256, report.seen_unlabelled_sha256) == ((), (), ("scan a",))


def test_as_many_classes_let_the_last_layers_be_taken_too(prepared, tmp_path):
    source, target = build("logonet"), build("logonet", seed=1)
    report = start(target, pretrained_origin(source, "logonet", prepared, tmp_path, num_classes=3), prepared)
    assert "global_net.fusion.second.conv.weight" in report.matched  # as wide as there are classes: 3 in both
    assert {key.split(".")[0] for key in report.fresh_heads} == {"conv", "norm", "classifier"}
    assert report.notes == ()


def test_widths_that_follow_other_classes_are_noted_with_the_remedy(prepared, tmp_path):
    source, target = build("ulkanet", num_classes=14), build("ulkanet", seed=1)
    (note,) = start(target, pretrained_origin(source, "ulkanet", prepared, tmp_path), prepared).notes
    # Two pairs of convolutions are as wide as there are classes, 2 tensors each and 4 of the norm, whose counter has no
    # width. The last pair and the classifier were not pre-trained.
    assert note.startswith("24 of the pre-trained tensors start fresh (body.refine.first.conv.weight, ")
    assert "14 in the pre-training, 3 here. A pre-training with --set pretrain.num_classes=3 keeps them." in note
    encoder = pretrained_origin(source, "ulkanet", prepared, tmp_path, part="encoder")
    assert start(build("ulkanet", seed=1), encoder, prepared).notes == ()


@pytest.mark.parametrize("name", [*SMALL, "unet_s"])
def test_a_pre_trained_encoder_counts_as_the_encoder_alone(prepared, tmp_path, name):
    source, target = build(name, num_classes=14), build(name, seed=1)
    report = start(target, pretrained_origin(source, name, prepared, tmp_path, part="encoder"), prepared)
    assert set(report.matched) == part_tensors(target, "encoder")
    assert (report.share, report.part, report.missing) == (1.0, "encoder's weights", ())
    rest = target.state_dict().keys() - {*report.matched, *report.fresh_heads}
    assert set(report.untrained) == rest
    assert report.what.endswith("pre-trained by simmim, the encoder only")


def test_an_encoder_of_another_depth_is_refused_by_its_own_share(prepared, tmp_path):
    origin = pretrained_origin(build(), "mednext_s", prepared, tmp_path, part="encoder")
    deeper = build(seed=1, blocks=2)
    message = (
        r"has \d+\.\d% of the encoder's weights of this MedNeXt.*encoder.0.1.*blocks.*--model mednext_s\) with the"
    )
    with pytest.raises(CheckpointError, match=message) as error:
        start(deeper, origin, prepared)
    assert "decoder" not in str(error.value)
    assert start(deeper, origin, prepared, least_share=0.2).missing


def test_pre_training_of_another_network_is_refused_with_the_one_that_it_is_of(prepared, tmp_path):
    origin = pretrained_origin(build(), "mednext_s", prepared, tmp_path)
    with pytest.raises(CheckpointError, match=r"has 0.0% of the weights of this UXNet.*network \(--model mednext_s\)"):
        start(build("uxnet"), origin, prepared)


def test_levels_that_differ_for_other_slices_are_refused_with_the_axes_of_the_pre_training(prepared, tmp_path):
    theirs = prepared.plan.changed(axes=(1, 0, 2))
    source = build("unet_s", num_classes=14, strides=(1, (2, 1, 2)))
    origin = pretrained_origin(source, "unet_s", prepared, tmp_path, plan=theirs)
    message = (
        r"\[2, 1, 2\]\] \(here .*follow one another along D there, along H here\. --set plan\.axes=\[1,0,2\] takes"
    )
    with pytest.raises(CheckpointError, match=message):
        start(build("unet_s", seed=1, strides=(1, 2, 2)), origin, prepared)


def test_kernels_of_a_pre_trained_network_grow(prepared, tmp_path):
    source, target = build(num_classes=14), build(seed=1, kernel_size=5)
    origin = pretrained_origin(source, "mednext_s", prepared, tmp_path)
    with pytest.raises(CheckpointError, match=r"transfer.grow_kernels=true"):
        start(target, origin, prepared)
    report = start(target, origin, prepared, grow_kernels=True)
    assert len(report.grown) == 17  # nine blocks, eight of them between levels: 9 + 8
    assert report.share == 1.0


def test_masks_of_a_pre_trained_network_are_taken_and_another_sparsity_is_refused(prepared, tmp_path):
    source, target = build("e2enet", num_classes=14, deep_supervision=False), build("e2enet", seed=1)
    origin = pretrained_origin(source, "e2enet", prepared, tmp_path)
    masks = [key for key in source.state_dict() if key.endswith("kernel_mask")]
    start(target, origin, prepared)
    assert equal(source, target, masks)
    with pytest.raises(CheckpointError, match=r"sparse.sparsity=0.5"):
        start(build("e2enet", sparsity=0.8), origin, prepared)
    encoder = pretrained_origin(source, "e2enet", prepared, tmp_path, part="encoder")
    own = build("e2enet", seed=1, sparsity=0.8)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    start(own, encoder, prepared)  # the sparse layers fuse, and are not of the encoder
    assert all(torch.equal(own.state_dict()[key], before[key]) for key in masks)


def test_scans_that_were_pre_trained_on_are_noted_beside_the_warnings(prepared, tmp_path):
    from rich.console import Console

    origin = pretrained_origin(build(), "mednext_s", prepared, tmp_path, part="encoder")
    report = start(build(seed=1), origin, prepared, held_out={"a": ["scan a"], "b": ["scan b"]})
    assert report.warnings == ()
    console = Console(width=160, record=True)
    console.print(report.table())
    text = console.export_text()
    assert "not pre-trained, start fresh" in text
    assert "100.0% of the encoder's weights without heads." in text
    assert "The scans of 1 of 2 held-out cases were pre-trained on (a)" in text


@pytest.mark.parametrize(("name", "lacking"), [("logonet", "conv."), ("ulkanet", "final_conv1.")])
def test_pre_trained_weights_of_the_authors_start_a_training(prepared, golden_data, tmp_path, name, lacking):
    file, options = GOLDEN[name]
    theirs = {
        key.removeprefix("state_dict."): value
        for key, value in load_file(golden_data / f"{file}.safetensors").items()
        if key.startswith("state_dict.")
    }
    pretrained = {key: value for key, value in theirs.items() if not key.startswith(lacking)}
    path = tmp_path / "pretrained.pth"
    torch.save({"state_dict": {**pretrained, "pre_train_proj.0.weight": torch.zeros(2)}, "best_acc": 0.5}, path)
    network = create_model(name, num_classes=3, **options)
    report = start(network, read_origin(path, model=name), prepared)
    assert (report.share, report.missing, report.mismatched, report.left_out) == (1.0, (), (), ())
    fresh = {key.rpartition(".")[0] for key in report.fresh_heads}
    of_fusion = {f"body.fusion.{unit}.{layer}" for unit in ("first", "second") for layer in ("conv", "norm")}
    assert fresh == ({"conv", "norm", "classifier"} if name == "logonet" else {*of_fusion, "classifier"})
    assert set(report.matched) == network.state_dict().keys() - set(report.fresh_heads)
