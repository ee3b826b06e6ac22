"""Golden files of ULKANet and LoGoNet: the authors' weights, inputs and outputs, and ours built from them."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from voxelseg.nets import Network, create_model
from voxelseg.nets.official import convert

FORMS = {"released": "", "prenorm": "_prenorm", "algorithm3": "_algorithm3"}
"""Suffix of the tensors' names by form of the residual."""


class Golden:
    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.tensors = load_file(folder / f"{kind}_small.safetensors")
        self.facts: dict[str, Any] = json.loads((folder / f"{kind}_small.json").read_text())
        start = "state_dict."
        self.official = {key[len(start) :]: value for key, value in self.tensors.items() if key.startswith(start)}

    def model(self, residual: str, **options: Any) -> Network:
        config = self.facts["config"]
        model = create_model(
            self.kind,
            in_channels=config["in_channels"],
            num_classes=config["out_channels"],
            dims=config["embed_dims"],
            depths=config["depths"],
            mlp_ratios=config["mlp_ratios"],
            residual=residual,
            **options,
        )
        model.load_state_dict(convert(self.kind, self.official), strict=True)
        return model.eval()

    def assert_close(self, found: Tensor, name: str, tolerance: str) -> None:
        given = self.facts["suggested_tolerance"]
        torch.testing.assert_close(found, self.tensors[name], rtol=given["rtol"], atol=given["atol"][tolerance])

    def probe(self) -> Tensor:
        """1x2x96x64x32, by the formula in the JSON file."""
        d, h, w = torch.meshgrid(*(torch.arange(size).double() for size in (96, 64, 32)), indexing="ij")
        channels = [
            torch.sin(0.31 * d + 0.9 * c) + torch.cos(0.47 * h - 0.4 * c) * torch.sin(0.23 * w + 1) for c in range(2)
        ]
        return torch.stack(channels).unsqueeze(0).float()

    def check_outputs(self, residual: str) -> None:
        model, suffix = self.model(residual), FORMS[residual]
        name = f"output{suffix}" if suffix else "output_0"
        with torch.no_grad():
            self.assert_close(model(self.tensors["input"]), name, name)
            probe = model(self.probe())[..., ::7, ::7, ::7]
        self.assert_close(probe, f"output_probe{suffix}", f"output_probe{suffix}")

    def check_training(self) -> None:
        model = self.model("released").train()
        with torch.no_grad():
            output = model(torch.cat((self.tensors["input"], self.tensors["input_train_extra"])))
        self.assert_close(output, "output_train", "output_train")
        for statistic in ("running_mean", "running_var"):
            squares = [buffer.square().sum() for key, buffer in model.named_buffers() if key.endswith(statistic)]
            expected = self.facts["after_train_forward"][f"{statistic}_l2"]
            assert math.isclose(float(sum(squares)) ** 0.5, expected, rel_tol=1e-6)

    def loss(self, model: Network, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The loss of the gradient checks, and the input that it was computed from."""
        x = self.tensors["input"].to(dtype).requires_grad_()
        return model.to(dtype)(x).square().mean(), x

    def check_gradients(self, dtype: torch.dtype, tolerance: float) -> None:
        model = self.model("released")
        loss, x = self.loss(model, dtype)
        loss.backward()
        expected = self.facts["grad_check"]
        assert math.isclose(loss.item(), expected["loss_value"], rel_tol=tolerance)
        assert math.isclose(float(x.grad.norm()), expected["input_grad_l2"], rel_tol=tolerance)
        parameters = dict(model.named_parameters())
        largest = max(expected["param_grad_l2"].values())
        assert len(parameters) == len(expected["param_grad_l2"])
        for key, norm in expected["param_grad_l2"].items():
            (name,) = convert(self.kind, {key: torch.empty(0)})
            found = float(parameters[name].grad.norm())
            assert math.isclose(found, norm, rel_tol=tolerance, abs_tol=1e-4 * tolerance * largest), key

    def check_gradient_of_other_form(self, residual: str) -> None:
        """The loss is the file's; the gradient is that of central differences along itself.

        The file has norms of these gradients too, which differ from ours by up to 23 %: they are not those of its own
        loss, whose central differences are ours.
        """
        model = self.model(residual)
        loss, x = self.loss(model, torch.float64)
        expected = self.facts["grad_check_other_forms"][residual]["loss_value"]
        assert math.isclose(loss.item(), expected, rel_tol=1e-12)
        (gradient,) = torch.autograd.grad(loss, x)
        step = 1e-7 * gradient / gradient.norm()
        with torch.no_grad():
            rise = model(x + step).square().mean() - model(x - step).square().mean()
        assert math.isclose(rise.item() / 2e-7, float(gradient.norm()), rel_tol=1e-6)
