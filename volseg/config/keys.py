"""Explanations of wrong keys and values, and the key that was probably meant."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from volseg.config.networks import NetworkConfig, UNet
from volseg.config.normalization import CtNormalization, MinMax, Percentiles, Unchanged, Window, ZScore
from volseg.config.section import Section
from volseg.errors import ConfigError

#: Name -> section of every network.
NETWORKS: Mapping[str, type[Section]] = {
    section.model_fields["name"].default: section for section in get_args(get_args(NetworkConfig)[0])
}
_NORMALIZATIONS: Mapping[str, type[Section]] = {
    "zscore": ZScore,
    "ct": CtNormalization,
    "window": Window,
    "percentiles": Percentiles,
    "minmax": MinMax,
    "none": Unchanged,
}
#: Names of the members of the two unions in the locations of pydantic's errors.
_UNION_MEMBERS = {**NETWORKS, **_NORMALIZATIONS}
#: Pydantic's error types for a value in the place of a section.
_NO_SECTION = {"model_type", "model_attributes_type"}
#: Explanations of pydantic's error types for a value in the place of several.
_FORMS = {
    "tuple_type": "must be a list",
    "dict_type": "must be a dictionary",
    "mapping_type": "must be a dictionary",
    "union_tag_not_found": "must be a dictionary with a method",
}
#: Example values of keys with several values or two types, if the default is no example.
EXAMPLES = {
    "data.channels": "[t1, flair]",
    "data.modality": "[MR, MR]",
    "data.labels": "{liver: 1, spleen: 2}",
    "data.regions": "[{name: whole, labels: [1, 2], value: 1}]",
    "data.series": "{image: {modality: CT, image_type: [ORIGINAL], slices: [20, 500]}}",
    "data.segments": "{liver: [Leber, 'SCT:10200004']}",
    "data.structures": "{graft: {like: liver, color: [180, 80, 60]}}",
    "preprocessing.spacing_mm": "[1.0, 1.0, 2.5]",
    "preprocessing.normalization": "[{method: window, low: -160, high: 240}]",
    "patches.size": "[96, 96, 64]",
    "augmentation.flip_axes": "[left-right]",
    "augmentation.swap_labels": "[[left kidney, right kidney]]",
    "training.fold": "all",
    "inference.mirror_axes": "[left-right]",
    "postprocess": "[{label: liver, keep_largest: true}]",
    "domain.intensities": "[{low: [-1024, -900], high: [200, 400]}]",
    "domain.spacings_mm": "[[0.7, 0.9], [0.7, 0.9], [1.0, 5.0]]",
}

#: Names of keys in other programs, without case and separators.
SYNONYMS = {
    "data.channels": "inchannels channelnames inputs numchannels nchannels",
    "data.labels": "class classes classnames label labelnames nclasses numclasses outchannels outputs",
    "data.modality": "modalities imagingmodality",
    "data.allow_gaps": "gaps fillgaps",
    "preprocessing.spacing_mm": "pixdim pixelspacing resolution spacing targetspacing voxelsize voxelspacing",
    "preprocessing.normalization": "intensity norm normalisation normalise normalize scaling windowing",
    "patches.size": "cropsize imgsize imagesize inputsize patch patchsize roi roisize windowsize",
    "patches.foreground": "foregroundratio fgratio oversample oversampleforeground posratio",
    "network.name": "arch architecture backbone model modelname net networkname",
    "network.filters": "basefilters features featuremaps nfilters numfeatures width",
    "network.dropout": "dropoutprob dropoutrate dropprob",
    "augmentation.flip_axes": "fliplr flip flips mirror mirroring",
    "augmentation.rotation_degrees": "rotate rotation rotationrange",
    "loss.name": "criterion lossfunction losstype",
    "training.batch_size": "batch batches batchsize bs samplesperbatch",
    "training.epochs": "epoch epochsmax iterations maxepoch maxepochs nepoch nepochs numepochs totalepochs",
    "training.steps_per_epoch": "batchesperepoch iterationsperepoch iters itersperepoch steps stepsperepoch",
    "training.minutes": "budget duration hours maxminutes maxtime time timelimit",
    "training.learning_rate": "eta initiallr learningrate lr lrate maxlr rate",
    "training.optimizer": "optim optimiser",
    "training.weight_decay": "l2 regularization wd weightdecay",
    "training.schedule": "lrpolicy lrschedule lrscheduler policy scheduler",
    "training.warmup_steps": "warmup warmupepochs warmupiters",
    "training.gradient_clip": "clip clipgradnorm clipping gradclip gradientclipping maxgradnorm",
    "training.ema_decay": "ema modelema",
    "training.start_from": "checkpoint ckpt finetune from init pretrained pretrainedmodel resumefrom weights",
    "training.freeze_encoder": "freeze frozen",
    "training.precision": "amp bf16 dtype fp16 halfprecision mixedprecision",
    "training.validation_interval": "evalinterval valevery valfreq validateevery valinterval",
    "training.patience": "earlystop earlystopping",
    "training.folds": "crossvalidation cv kfold kfolds nfolds numfolds",
    "training.holdout": "split testsize trainvalsplit validationsplit valfraction valsplit",
    "training.workers": "nworkers numthreads numworkers threads",
    "training.seed": "manualseed randomseed randomstate",
    "inference.overlap": "stepsize swoverlap tileoverlap tilestepsize",
    "inference.batch_size": "swbatchsize",
    "inference.mirror_axes": "testtimeaugmentation tta usemirroring",
    "inference.memory_gb": "maxmemory memory ram",
    "postprocess": "postprocessing",
}
_KEYS = {word: key for key, words in SYNONYMS.items() for word in words.split()}
#: Similarity of words that differ by a typing error, and the lowest similarity of related words.
_SLIP, _ALIKE = 0.8, 0.6


def explained(error: ValidationError, origin: str, root: type[Section]) -> ConfigError:
    """Explain the first error that pydantic found; misspelled keys come before missing ones.

    Args:
        error: The error of pydantic.
        origin: Where the keys came from.
        root: The class of the whole configuration.
    """
    faults = error.errors()
    return _fault(next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0]), origin, root)


def check_network(keys: Mapping[str, Any], name: str | None, origin: str, root: type[Section]) -> None:
    """Refuse keys of a network that it does not have, and values that they cannot have.

    Args:
        keys: Some keys of the section, without its name.
        name: Name of the network; if None, keys of any network are accepted.
        origin: Where the keys came from.
        root: The class of the whole configuration.

    Raises:
        ConfigError: If a key or value is wrong; the message states the first.
    """
    allowed = list(NETWORKS[name].model_fields) if name else keys_in(UNet)
    for key in keys:
        if key not in allowed:
            others = [other for other, kind in NETWORKS.items() if key in kind.model_fields]
            hint = f"network.name={others[0]} has it{_also(others[1:])}" if others else ""
            hint = hint or _meant("network", key, allowed, root)
            raise ConfigError(f"{origin}: there is no key 'network.{key}'{f' of {name}' if name else ''}", hint=hint)
    if not name:
        return
    try:
        NETWORKS[name].model_validate(keys)
    except ValidationError as error:
        # Contradictions between keys are checked once the plan has decided the others.
        for fault in error.errors():
            if fault["loc"]:
                raise _fault({**fault, "loc": ("network", *fault["loc"])}, origin, root) from error


def _also(names: Sequence[str]) -> str:
    return f", as have {', '.join(names)}" if names else ""


def _fault(first: Mapping[str, Any], origin: str, root: type[Section]) -> ConfigError:
    return ConfigError(f"{origin}: {_explain(first)}", hint=_hint(first, root))


def _explain(first: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in _key_path(first["loc"]))
    message = _FORMS.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        return f"there is no key {path!r}"
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):
        return f"{path.rpartition('.')[0]}: too few entries, given {first['input']!r}"
    if first["type"] == "missing":
        return f"key {path!r} is missing"
    if first["type"] == "literal_error":
        return f"{path}: there is no {first['input']!r}; there are {first['ctx']['expected']}"
    if first["type"] in _NO_SECTION:
        return f"{path}: must be a section (a dictionary of keys), given {first['input']!r}"
    given = "" if first["type"] == "value_error" else f", given {first['input']!r}"
    return f"{path}: {message}{given}" if path else message


def _hint(first: Mapping[str, Any], root: type[Section]) -> str:
    location, given = first["loc"], first["input"]
    path = ".".join(str(part) for part in _key_path(location))
    if first["type"] == "extra_forbidden":
        *parents, wrong = location
        allowed = keys_in(_section_at(parents, root), every_kind=False)
        return _meant(path.rpartition(".")[0], str(wrong), allowed, root)
    if first["type"] in _NO_SECTION:
        section = _section_at(location, root)
        meant = f"did you mean '{path}.name={given}'? " if given in _names_in(section) else ""
        return f"{meant}its keys are {', '.join(keys_in(section))}"
    if path == "preprocessing.normalization" and given in list(_NORMALIZATIONS):
        return f"did you mean '{path}=[{{method: {given}}}]'? there is one for each channel"
    return getattr(first.get("ctx", {}).get("error"), "hint", "") or _example(path, root)


def _example(path: str, root: type[Section]) -> str:
    """Return an example for the key at a path, or for the key it lies in; empty for a key of one value."""
    section, *below = path.split(".")
    key = ".".join([section, *below[:1]])
    if example := EXAMPLES.get(key, EXAMPLES.get(section, "")):
        return f"for example {key if key in EXAMPLES else section}={example}"
    kinds = [kind for kind in _kinds(_section_at((section,), root)) if below and below[0] in kind.model_fields]
    default = kinds[0].model_fields[below[0]].default if kinds else None
    return f"for example {key}={json.dumps(default)}" if isinstance(default, tuple) else ""


def _meant(section: str, wrong: str, allowed: Sequence[str], root: type[Section]) -> str:
    """Return the key that was probably meant, else the keys that exist."""
    word = _plain(wrong)
    synonym = _KEYS.get(word, "")
    elsewhere = [key for key in known_keys(root) if key.rpartition(".")[0] != section]
    candidates = [
        *(name for name in allowed if word == _plain(name) or (synonym and synonym == _dotted(section, name))),
        *(name for name in allowed if _is_part(name, wrong) or _is_part(wrong, name)),
        *([synonym] if synonym in elsewhere else []),
        *difflib.get_close_matches(wrong, allowed, n=1, cutoff=_SLIP),
        *(key for key in elsewhere if key.rpartition(".")[2] == wrong and section != "network"),
        *difflib.get_close_matches(wrong, allowed, n=1, cutoff=_ALIKE),
        *difflib.get_close_matches(_dotted(section, wrong), elsewhere, n=1, cutoff=_SLIP),
    ]
    if candidates:
        return f"did you mean {candidates[0]!r}?"
    return f"allowed: {', '.join(allowed)}" if allowed else ""


def _plain(key: str) -> str:
    return re.sub(r"[\W_]+", "", key.lower())


def _is_part(short: str, long: str) -> bool:
    """Return whether the words of one key are among those of another: "mirror" and "mirror_axes"."""
    return set(short.split("_")) <= set(long.split("_"))


def known_keys(root: type[Section]) -> list[str]:
    """Return every section and every key: "training", "training.epochs" ..."""
    keys = []
    for name in root.model_fields:
        keys += [name, *(_dotted(name, key) for key in keys_in(_section_at((name,), root)))]
    return keys


def keys_in(section: Any, *, every_kind: bool = True) -> list[str]:
    """Return the keys of a section; of a section with several kinds, such as the network, those of every kind."""
    kinds = _kinds(section) if every_kind else [section]
    return list(dict.fromkeys(key for kind in kinds for key in getattr(kind, "model_fields", {})))


def _kinds(section: Any) -> list[Any]:
    return list(NETWORKS.values()) if section in NETWORKS.values() else [section]


def _names_in(section: Any) -> list[str]:
    """Return the values of the key `name` of a section, such as the networks or losses."""
    if section in NETWORKS.values():
        return list(NETWORKS)
    name = getattr(section, "model_fields", {}).get("name")
    return list(get_args(name.annotation)) if name is not None else []


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _section_at(location: Sequence[int | str], root: type[Section]) -> Any:
    """Return the section class or value type at a location that pydantic reports."""
    kind: Any = root
    for part in location:
        fields = getattr(kind, "model_fields", None)
        if fields is None:  # what a list or a dictionary holds
            held = [inner for inner in get_args(kind) if inner is not ...]
            kind = held[-1] if held else None
        else:
            kind = fields[part].annotation if part in fields else _UNION_MEMBERS.get(str(part))
        while get_origin(kind) in {Annotated, Union, types.UnionType}:  # what may be left out, or one of several
            kind = get_args(kind)[0]
    return kind


def _key_path(location: Sequence[int | str]) -> list[int | str]:
    """Return the key path without the names of union members that pydantic inserts."""
    between = {"network": 1, "preprocessing": 3}.get(str(next(iter(location), "")), -1)
    return [part for place, part in enumerate(location) if place != between or part not in _UNION_MEMBERS]
