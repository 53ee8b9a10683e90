"""Convert the transforms after the network to the meaning of its outputs and the post-processing of labels."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from volseg.errors import CheckpointError
from volseg.importing.bundle import components
from volseg.importing.bundle.components import Component, read_chain
from volseg.importing.bundle.content import HINT, Code

Chain = Sequence[tuple[str, Component]]
_WITHOUT_EFFECT = (components.Save, components.AsItIs)
#: MONAI's connectivity -> how many neighbours a voxel has.
_NEIGHBOURS = {1: 6, 2: 18, 3: 26}
_DECISIONS = (components.AsDiscrete, components.PaintRegions)


@dataclass(frozen=True)
class Rule:
    """A post-processing step of labels.

    Attributes:
        key: Of a `LabelRule`: "keep_largest".
        values: The labels; None for all.
        connectivity: Number of neighbours of a voxel.
    """

    key: str
    values: tuple[int, ...] | None
    connectivity: int = 26


@dataclass(frozen=True)
class Answers:
    """The processing of a bundle's network outputs.

    Attributes:
        interpolated: What is resampled to the grid of the image.
        regions: Value and threshold of each output in the order in which they are painted, by its number; empty if
            outputs are mutually exclusive.
        rules: Post-processing of labels.
    """

    interpolated: str
    regions: tuple[tuple[int, int, float], ...]
    rules: tuple[Rule, ...]


def read_answers(stated: Any, where: str, names: Sequence[str], paint: Sequence[str]) -> Answers:
    """Read the chain.

    Args:
        stated: The chain in the bundle.
        where: Its name in errors.
        names: Of the outputs.
        paint: Names of those that may overlap, in the order in which they are painted.

    Raises:
        CheckpointError: If anything in it is not supported.
    """
    chain = [each for each in read_chain(stated, where) if not isinstance(each[1], _WITHOUT_EFFECT)]
    decisions = [n for n, (_, component) in enumerate(chain) if isinstance(component, _DECISIONS)]
    if len(decisions) != 1:
        raise CheckpointError(f"{where} decides {len(decisions)} times (AsDiscreted), not once", hint=HINT)
    n = decisions[0]
    activation, interpolated = _before(chain[:n])
    painted, rules, inverted = _behind(chain[n + 1 :])
    if inverted and interpolated:
        raise CheckpointError(f"{where} inverts twice", hint=HINT)
    place, decision = chain[n]
    match decision:
        case components.PaintRegions(values=values, thresholds=thresholds, order=painting) if (
            activation == "sigmoid"
            and len(values) == len(thresholds) == len(names)
            and sorted(painting) == list(range(len(names)))
        ):
            regions = tuple((output, values[output], thresholds[output]) for output in painting)
        case components.AsDiscrete(argmax=True, threshold=None) if activation != "sigmoid" and not painted:
            regions = ()
        case components.AsDiscrete(argmax=False, threshold=float(threshold)) if activation == "sigmoid":
            order = _painted(*painted, len(names)) if painted else _in_order(names, paint, where)
            regions = tuple((output, value, threshold) for output, value in order)
        case _:
            raise CheckpointError(f"{place} is not supported there", hint=HINT)
    return Answers(interpolated or "labels", regions, rules)


def _before(chain: Chain) -> tuple[str, str]:
    """Return the steps before the decision: the activation, and what is resampled; empty if there are none."""
    activation = interpolated = ""
    for place, component in chain:
        match component:
            case components.Activations(softmax=True, sigmoid=False) if not activation:
                activation = "softmax"
            case components.Activations(softmax=False, sigmoid=True) if not activation:
                activation = "sigmoid"
            case components.Invert(nearest_interp=True | [True]) if not interpolated:
                interpolated = "labels"
            case components.Invert() if not interpolated:
                interpolated = "probabilities" if activation else "logits"
            case _:
                raise CheckpointError(f"{place} is not supported there", hint=HINT)
    return activation, interpolated


def _behind(chain: Chain) -> tuple[tuple[str, str] | None, tuple[Rule, ...], bool]:
    """Return the steps after the decision: the code that paints labels and its place, rules, and any inversion."""
    painted, inverted = None, False
    rules: list[Rule] = []
    for place, component in chain:
        match component:
            case components.Lambda(func=Code(text=text)) if painted is None:
                painted = (text, place)
            case components.Invert() if not inverted:
                inverted = True
            case components.KeepLargest(applied_labels=labels, connectivity=connectivity):
                rules.append(Rule("keep_largest", _values(labels), _NEIGHBOURS[connectivity or 3]))
            case components.FillHoles(applied_labels=labels):
                rules.append(Rule("fill_holes", _values(labels)))
            case _:
                raise CheckpointError(f"{place} is not supported there", hint=HINT)
    return painted, tuple(rules), inverted


def _values(labels: list[int] | int | None) -> tuple[int, ...] | None:
    return (labels,) if isinstance(labels, int) else tuple(labels) if labels else None


def _painted(text: str, place: str, count: int) -> tuple[tuple[int, int], ...]:
    """Parse, without running it, `lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, ... 0))`.

    Returns:
        Output and value, in painting order.
    """
    try:
        node: ast.expr = ast.parse(text.removeprefix("$").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = ast.Constant(None)
    found: list[tuple[int, int]] = []
    node = node.body if isinstance(node, ast.Lambda) else node
    while True:
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="torch"), attr="where"),
                args=[
                    ast.Compare(
                        left=ast.Subscript(value=ast.Name(), slice=ast.List(elts=[ast.Constant(value=int(output))])),
                        ops=[ast.Gt()],
                        comparators=[ast.Constant(value=0)],
                    ),
                    ast.Constant(value=int(value)),
                    rest,
                ],
                keywords=[],
            ) if 0 <= output < count and 1 <= value <= 65535:
                found.append((output, value))
                node = rest
            case ast.Constant(value=0) if sorted(output for output, *_ in found) == list(range(count)):
                return tuple(reversed(found))
            case _:
                raise CheckpointError(f"{place} is the code {text[:60]!r}, which is not executed", hint=HINT)


def _in_order(names: Sequence[str], paint: Sequence[str], where: str) -> tuple[tuple[int, int], ...]:
    """Return regions in the painting order given by the caller, the only source of it."""
    order = list(paint) if paint or len(names) > 1 else list(names)
    if sorted(order) != sorted(names):
        raise CheckpointError(
            f"{where}: the outputs {', '.join(names)} may overlap, and their painting order is not stated",
            hint="name all of them in the order of painting, the largest first: --paint NAME --paint NAME",
        )
    return tuple((names.index(name), names.index(name) + 1) for name in order)
