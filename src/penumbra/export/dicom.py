"""A prediction as DICOM: segmentations, parametric maps and a measurement report (highdicom).

Every object refers to the slices that it was computed from and takes patient and study from them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from penumbra import __version__
from penumbra.errors import DataError
from penumbra.export import codes
from penumbra.export.report import measurement_report
from penumbra.export.series import Series, read_frames, read_series
from penumbra.files import atomic

MANUFACTURER, MODEL = "Penumbra", "Penumbra research software"
SERIES_NUMBERS = {"BINARY": 9001, "LABELMAP": 9002, "probability": 9003, "report": 9009}
FIRST_MAP = 9004
FULL = 255
"""Fractional segmentations keep probabilities in steps of 1/255."""


def export_case(predictions: Path, case: str, series: Path, out: Path) -> list[Path]:
    """Write a case's SEGs (binary, label map, fractional), parametric maps, TID 1500 report.

    Frames follow the slices' positions, whatever their file or instance order. There is no report
    where no segment has a volume of its own.

    Args:
        predictions: the folder that ``penumbra predict`` wrote.
        series: the folder of the DICOM series that was predicted.

    Raises:
        DataError: the case was not predicted, has no segmentation, or lies on another grid.
    """
    record = _record(predictions, case)
    source = read_series(series)
    files = {name: predictions / paths[0] for name, paths in record["files"].items()}
    if "segmentation" not in files:
        raise DataError(f"{case}: has no segmentation; only segmented volumes become DICOM objects")
    classes = record["task"]["classes"]
    out.mkdir(parents=True, exist_ok=True)
    labels = read_frames(files["segmentation"], source).astype(np.uint8)
    made = {
        "segmentation": segmentation(labels, classes, source, kind="BINARY"),
        "labelmap": segmentation(labels, classes, source, kind="LABELMAP"),
    }
    probability = read_frames(files["probability"], source)
    made["probability"] = fractional(probability[..., 1:], classes, source)
    for place, name in enumerate(n for n in codes.MAPS if n in files):
        values = read_frames(files[name], source).astype(np.float32)
        values = values[..., 0] if values.ndim == 4 else values
        made[name] = parametric_map(values, name, source, number=FIRST_MAP + place)
    report = measurement_report(
        record, made["segmentation"], source.datasets, common(SERIES_NUMBERS["report"])
    )
    made |= {} if report is None else {"report": report}
    return [_save(dataset, out / f"{case}_{name}.dcm") for name, dataset in made.items()]


def segmentation(
    labels: UInt8[np.ndarray, "frames rows columns"],
    classes: Sequence[str],
    source: Series,
    *,
    kind: Literal["BINARY", "LABELMAP"],
) -> Any:
    """A SEG of the most probable classes; ``classes[0]`` is the background.

    ``LABELMAP`` (2024) keeps one number per voxel and every slice. ``BINARY`` keeps a plane per
    structure where it has voxels; every PACS reads it, and the report refers to it.
    """
    import highdicom as hd

    return hd.seg.Segmentation(
        source_images=source.datasets,
        pixel_array=labels,
        segmentation_type=kind,
        segment_descriptions=_segments(classes),
        content_label=kind,
        content_description="Most probable class",
        omit_empty_frames=kind == "BINARY",
        series_description=f"Penumbra segmentation ({kind.lower()})",
        **common(SERIES_NUMBERS[kind]),
    )


def fractional(
    probability: Float[np.ndarray, "frames rows columns classes"],
    classes: Sequence[str],
    source: Series,
) -> Any:
    """A fractional SEG of each structure's probability, without the background, in 1/255."""
    import highdicom as hd

    return hd.seg.Segmentation(
        source_images=source.datasets,
        pixel_array=probability.astype(np.float32).clip(0, 1),
        segmentation_type=hd.seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=hd.seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=FULL,
        segment_descriptions=_segments(classes),
        content_label="PROBABILITY",
        content_description="Calibrated probability",
        omit_empty_frames=False,
        series_description="Penumbra probability",
        **common(SERIES_NUMBERS["probability"]),
    )


def parametric_map(
    values: Float[np.ndarray, "frames rows columns"], name: str, source: Series, *, number: int
) -> Any:
    """A float parametric map whose stored values are the real-world values."""
    import highdicom as hd
    from pydicom.sr.codedict import codes as standard

    code, meaning, explained = codes.MAPS[name]
    high = max(float(values.max()), 1e-6)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=code,
        lut_explanation=explained[:64],
        unit=standard.UCUM.NoUnits,
        value_range=(float(values.min()), high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.private(code, meaning),
    )
    window = hd.VOILUTTransformation(
        window_center=high / 2,
        window_width=high,
        voi_lut_function=hd.VOILUTFunctionValues.LINEAR_EXACT,  # LINEAR forbids widths under 1
    )
    made = hd.pm.ParametricMap(
        source_images=source.datasets,
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label=name.upper(),
        content_description=meaning,
        series_description=f"Penumbra {meaning.lower()}",
        **common(number),
    )
    if "Laterality" not in made:
        made.Laterality = ""  # type 2C in this module: unknown, and said to be so
    return made


def common(number: int) -> dict[str, Any]:
    """Attributes that every object of ours carries; one series per object."""
    import highdicom as hd

    return {
        "series_instance_uid": hd.UID(),
        "series_number": number,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": __version__,
        "device_serial_number": "0",
    }


def _segments(classes: Sequence[str]) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes as standard

    algorithm = hd.AlgorithmIdentificationSequence(
        name="Penumbra", version=__version__, family=standard.DCM.ArtificialIntelligence
    )
    described = []
    for number, name in enumerate(classes[1:], start=1):
        category, kind = codes.structure(name)
        described.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name[:64],
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=hd.UID(),
                tracking_id=name[:64],
            )
        )
    return described


def _record(predictions: Path, case: str) -> Mapping[str, Any]:
    path = predictions / f"{case}.json"
    try:
        record = json.loads(path.read_text())
        names = [name for paths in record["files"].values() for name in paths]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such prediction; run `penumbra predict` first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a prediction summary ({error}); predict again") from error
    if any(Path(name).name != name for name in names):
        raise DataError(f"{path}: names a file outside its folder; predict the case again")
    return record


def _save(dataset: Any, path: Path) -> Path:
    with atomic(path) as part:
        dataset.save_as(part)
    return path
