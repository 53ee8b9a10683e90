"""MONAI Label's own client, unmodified, and what 3D Slicer's extension does with it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote_plus
from urllib.request import urlopen

import pytest
import SimpleITK as sitk  # noqa: N813  its usual name

#: Folder of the package `monailabel`, for machines that have it elsewhere: it asks for versions that exclude ours, so
#: that it is installed by `pip install --no-deps monailabel==0.8.5`. Its client needs `requests` alone.
_ELSEWHERE = "VOLSEG_MONAILABEL"


def package_folder() -> Path | None:
    """Where MONAI Label is installed; None if it is not."""
    stated = os.environ.get(_ELSEWHERE)
    if stated:
        return Path(stated)
    found = importlib.util.find_spec("monailabel")
    return Path(found.origin).parent if found is not None and found.origin else None


def ohif_folder() -> Path | None:
    """Where the OHIF is that MONAI Label brings, with its panel; None if there is none."""
    package = package_folder()
    folder = package / "endpoints" / "static" / "ohif" if package else None
    return folder if folder and (folder / "index.html").is_file() else None


def client_module() -> ModuleType:
    """MONAI Label's client, as it is."""
    pytest.importorskip("requests")
    package, name = package_folder(), "monailabel_client"
    if package is None:
        pytest.skip(f"monailabel is not installed, and {_ELSEWHERE} does not say where it is")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, package / "client" / "client.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it needs `cgi`, which Python 3.13 no longer has
            try:
                spec.loader.exec_module(module)
            except ModuleNotFoundError as error:
                pytest.skip(f"MONAI Label's client needs {error.name}")
        sys.modules[name] = module
    return sys.modules[name]


class SlicerExtension:
    """What 3D Slicer's extension calls, in its order, for each of its buttons.

    Source: MONAI Label, plugins/slicer/MONAILabel/MONAILabel.py. Every call logs in anew if the server asks for that.

    Args:
        url: Of the server.
        folder: Its temporary folder.
        user: Name and password, if somebody has to log in.
    """

    def __init__(self, url: str, folder: Path, user: tuple[str, str] = ("", "")) -> None:
        self.url, self.folder, self.user = url, folder, user
        self.token: Any = None
        self.info: dict[str, Any] = {}

    @property
    def client(self) -> Any:
        """`_client()`."""
        client = client_module().MONAILabelClient(self.url, str(self.folder), "user-xyz")
        if client.auth_enabled():
            if self.token:
                client.update_auth(self.token)
            if not self.token or not client.auth_valid_token():
                self.token = client.auth_token(*self.user)
                client.update_auth(self.token)
        return client

    def connect(self) -> None:
        """`fetchInfo()`, and what the panel reads of it."""
        self.info = self.client.info()
        assert not self.info.get("config"), "the extension asks to upgrade the server"
        for model in self.info["models"].values():
            assert model["type"]
        self.info["train_stats"] and next(iter(self.info["train_stats"].values())).get("best_metric", 0)
        self.client.train_status(True)

    def next_sample(self, strategy: str) -> tuple[dict[str, Any], bytes]:
        """`onNextSampleButton()`: the sample, and its image, which is fetched by a download that knows no token."""
        sample = self.client.next_sample(strategy, {})
        if not sample.get("id"):
            return sample, b""
        assert not sample.get("path")
        with urlopen(f"{self.url}/datastore/image?image={quote_plus(sample['id'])}", timeout=60) as answer:
            content = answer.read()
        algorithm, digest = sample["checksum"].split(":")
        assert hashlib.new(algorithm.lower(), content).hexdigest() == digest
        return sample, content

    def upload(self, file: Path, node: str) -> None:
        """`onUploadImage()`: the name of the node is the id, and the file has its whole path."""
        self.client.upload_image(str(file), node)

    def segment(self, model: str, image: str, session: str | None = None) -> tuple[Any, dict[str, int]]:
        """`onClickSegmentation()`: the mask, and the value that the extension takes for each segment."""
        params = {"result_extension": ".nrrd", "result_dtype": "uint8"}
        file, told = self.client.infer(model, image, params, None, None, session)
        labels = told.get("label_names") or self.info["models"][model]["labels"]
        if isinstance(labels, dict):
            labels = [name for name, _ in sorted(labels.items(), key=lambda item: item[1])]
        names = [label for label in labels if label != "background"]
        mask = sitk.ReadImage(file)
        Path(file).unlink()
        return mask, {name: position + 1 for position, name in enumerate(names)}

    def save(self, mask: Any, segments: list[str], image: str, model: str) -> Any:
        """`onSaveLabel()`: `idx` counts all segments, the values of the mask those that are no scribbles."""
        kept = [name for name in segments if name not in ("background", "foreground_scribbles", "background_scribbles")]
        label_info = [{"name": name, "idx": number + 1} for number, name in enumerate(segments) if name in kept]
        file = self.folder / "label.nii.gz"
        sitk.WriteImage(mask, str(file))
        result = self.client.save_label(image, str(file), params={"label_info": label_info, "model": model})
        self.connect()
        return result
