"""A whole-body CT with as many outputs as TotalSegmentator's, through volseg and through nnU-Net's own predictor.

    python benchmarks/large_volume.py                               # volseg alone
    python benchmarks/large_volume.py --contenders volseg nnunet    # needs nnunetv2 beside volseg

The volume has 512 x 512 x 531 voxels of 0.8 x 0.8 x 1.5 mm; the network, a small U-Net of nnU-Net's with made-up
weights, has 118 outputs and sees voxels of 1.5 mm. What is measured is what many labels take beside the network: the
wall time of one image from file to file, and the largest memory of a process of its own. `--scale 2` halves the volume
along each axis. Where the memory of the machine does not hold what nnU-Net keeps (all logits, on the grid of the
network and on that of the image), the benchmark says how much that is instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import torch

from volseg.config import dump, validate
from volseg.memory import peak_mb
from volseg.model.checkpoint import save
from volseg.model.networks import build_network

SHAPE, SPACING_MM, NETWORK_MM = (512, 512, 531), (0.8, 0.8, 1.5), 1.5
OUTPUTS, PATCH, FEATURES = 118, 128, (8, 16, 32)


def write_image(path: Path, scale: int) -> None:
    """Blobs of soft tissue in air."""
    rng = np.random.default_rng(0)
    shape = [size // scale for size in SHAPE]
    blobs = torch.from_numpy(rng.normal(size=(1, 1, 9, 9, 9)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(blobs, size=shape, mode="trilinear")[0, 0].numpy()
    array = (smooth * 300 + 40).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([*SPACING_MM, 1.0])), path)


def settings() -> dict[str, Any]:
    """The model as volseg imports one of nnU-Net."""
    ones = [[3, 3, 3]] * len(FEATURES)
    return {
        "data": {"channels": ["CT"], "modality": ["CT"], "labels": {f"label_{n}": n for n in range(1, OUTPUTS)}},
        "preprocessing": {
            "axes": "stored",
            "crop": "nonzero",
            "grid": "extent",
            "interpolation": "cubic",
            "coarse_axis": "nearest",
            "spacing_mm": [NETWORK_MM] * 3,
            "normalization": [{"method": "ct", "low": -300, "high": 400, "mean": 40, "std": 150}],
        },
        "patches": {"size": [PATCH] * 3},
        "network": {
            "name": "plain_unet",
            "filters": FEATURES,
            "kernels": ones,
            "strides": [[2, 2, 2]] * (len(FEATURES) - 1),
            "blocks": [1] * len(FEATURES),
            "decoder_blocks": [1] * (len(FEATURES) - 1),
        },
        "inference": {
            "steps": "even",
            "weights": "cut_gaussian",
            "mirroring": "each",
            "precision": "fp32",
            "backend": "torch",
            "air": None,
        },
        "postprocess": [],
    }


def write_run(folder: Path) -> None:
    """The model with made-up weights."""
    config = validate(settings(), "the benchmark")
    torch.manual_seed(0)
    network = build_network(config.network, 1, OUTPUTS)
    folder.mkdir()
    save(folder / "model.pt", {"weights": network.state_dict(), "config": dump(config)})


def with_volseg(folder: Path) -> None:
    """From file to file."""
    import volseg

    model = volseg.load(folder / "run")
    model.predict(folder / "image.nii.gz").save(folder / "volseg.nii.gz", overwrite=True)


def with_nnunet(folder: Path) -> None:
    """The same by nnU-Net's predictor, which cannot read volseg's weights: it has others of its own."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(nnunet_plans())
    configuration = plans.get_configuration("3d_fullres")
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"label_{n}": n for n in range(1, OUTPUTS)}},
        "file_ending": ".nii.gz",
    }
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        OUTPUTS,
        deep_supervision=False,
    )
    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, use_mirroring=False, allow_tqdm=False
    )
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], dataset, "nnUNetTrainer", None
    )
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    image, properties = SimpleITKIO().read_images([str(folder / "image.nii.gz")])
    labels = predictor.predict_single_npy_array(image, properties)
    SimpleITKIO().write_seg(labels, str(folder / "nnunet.nii.gz"), properties)


def nnunet_plans() -> dict[str, Any]:
    """The same network and the same steps before it, as nnU-Net plans them."""
    levels = len(FEATURES)
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset900_large",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 40.0, "std": 150.0, "percentile_00_5": -300.0, "percentile_99_5": 400.0}
        },
        "configurations": {
            "3d_fullres": {
                "data_identifier": "large",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [PATCH] * 3,
                "spacing": [NETWORK_MM] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": function,
                "resampling_fn_data_kwargs": {**resampling, "order": 3},
                "resampling_fn_seg": function,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": function,
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": levels,
                        "features_per_stage": list(FEATURES),
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * levels,
                        "strides": [[1, 1, 1], *[[2, 2, 2]] * (levels - 1)],
                        "n_conv_per_stage": [1] * levels,
                        "n_conv_per_stage_decoder": [1] * (levels - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


CONTENDERS = {"volseg": with_volseg, "nnunet": with_nnunet}


def nnunet_keeps_gb(scale: int) -> float:
    """What nnU-Net holds at once: logits on the network's grid in float16, and on the image's in float32."""
    voxels = np.prod([size // scale for size in SHAPE])
    seen = voxels * np.prod(SPACING_MM) / NETWORK_MM**3
    return float(OUTPUTS * (2 * seen + 4 * voxels) / 1e9)


def main() -> None:
    """Measure each contender in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=["volseg"])
    parser.add_argument("--scale", type=int, default=1, help="divides the volume along each axis")
    parser.add_argument("--take-part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take_part:
        name, folder = options.take_part
        began = time.perf_counter()
        CONTENDERS[name](Path(folder))
        print(json.dumps({"seconds": time.perf_counter() - began, "peak_gb": peak_mb() / 1e3}))
        return
    print(f"{' x '.join(str(size // options.scale) for size in SHAPE)} voxels, {OUTPUTS} outputs\n")
    print("| | seconds | peak GB |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        write_image(Path(name) / "image.nii.gz", options.scale)
        write_run(Path(name) / "run")
        for contender in options.contenders:
            needs = nnunet_keeps_gb(options.scale)
            if contender == "nnunet" and needs > 0.8 * psutil.virtual_memory().available / 1e9:
                print(f"| nnunet | | does not fit: its logits alone take {needs:.1f} |")
                continue
            command = [sys.executable, "-W", "ignore", __file__, "--take-part", contender, name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            measured = json.loads(done.stdout.splitlines()[-1])
            print(f"| {contender} | {measured['seconds']:.0f} | {measured['peak_gb']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
