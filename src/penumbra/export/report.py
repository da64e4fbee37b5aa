"""The measurement report of a prediction: DICOM structured reporting, template TID 1500."""

from collections.abc import Mapping, Sequence
from typing import Any

from penumbra.export import codes


def measurement_report(
    record: Mapping[str, Any], segmentation: Any, source: Sequence[Any], common: Mapping[str, Any]
) -> Any:
    """Volumes with their credible intervals and the verdict, tied to the segments of a SEG.

    One measurement group per segment holds the mean volume over posterior draws and the ends of
    its credible and conformal intervals, told apart by derivation codes. Regions that unite several
    classes have no segment of their own and are left out; None where that leaves nothing, for a
    report must measure something. Every group carries the verdict.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes as standard

    groups = _groups(record, segmentation, source)
    if not groups:
        return None
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=hd.UID(), name="Penumbra", manufacturer_name="Penumbra"
    )
    observer = hd.sr.ObserverContext(
        observer_type=standard.DCM.Device, observer_identifying_attributes=device
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=standard.LN.CTUnspecifiedBodyRegion
        if source[0].Modality == "CT"
        else standard.SCT.ImagingProcedure,
        imaging_measurements=groups,
        title=standard.DCM.ImagingMeasurementReport,
        referenced_images=list(source),
    )
    kept = {key: value for key, value in common.items() if key not in _NOT_IN_REPORTS}
    return hd.sr.Comprehensive3DSR(
        evidence=[*source, segmentation],
        content=report,
        is_complete=True,
        is_verified=False,
        series_description="Penumbra measurements",
        **kept,
    )


_NOT_IN_REPORTS = {"manufacturer_model_name", "software_versions", "device_serial_number"}


def _groups(record: Mapping[str, Any], segmentation: Any, source: Sequence[Any]) -> list[Any]:
    import highdicom as hd

    classes = record["task"]["classes"]
    regions = record["task"]["regions"].items()
    single = {members[0]: name for name, members in regions if len(members) == 1}
    code, meaning = codes.VERDICTS[record["decision"]["verdict"]]
    verdict = hd.sr.QualitativeEvaluation(
        name=codes.private("VERDICT", "Need of review"), value=codes.private(code, meaning)
    )
    groups = []
    for segment in segmentation.SegmentSequence:
        number = int(segment.SegmentNumber)
        region = single.get(number)
        volume = record.get("volumes_ml", {}).get(region)
        if number == 0 or volume is None:
            continue
        _, kind = codes.structure(classes[number])
        groups.append(
            hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(
                    uid=segment.TrackingUID, identifier=segment.TrackingID
                ),
                referenced_segment=_segment(segmentation, number, source),
                finding_type=kind,
                measurements=_volumes(volume),
                qualitative_evaluations=[verdict],
            )
        )
    return groups


def _segment(segmentation: Any, number: int, source: Sequence[Any]) -> Any:
    """A reference to one segment; written out because a label map's frames name no segment."""
    import highdicom as hd

    return hd.sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=hd.sr.SourceSeriesForSegmentation(source[0].SeriesInstanceUID),
    )


def _volumes(volume: Mapping[str, Any]) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes as standard

    stated = [(float(volume["mean"]), standard.SCT.Mean)]
    for short, kind, ends in (
        ("CRED", "credible", volume),
        ("CONF", "conformal", volume.get("conformal")),
    ):
        if ends is None:
            continue
        interval = f"{100 * ends['level']:.0f} % {kind} interval"
        stated.append(
            (float(ends["low"]), codes.private(f"{short}_LOW", f"Lower end of {interval}"))
        )
        stated.append(
            (float(ends["high"]), codes.private(f"{short}_HIGH", f"Upper end of {interval}"))
        )
    return [
        hd.sr.Measurement(
            name=standard.SCT.Volume,
            value=round(value, 6),
            unit=hd.sr.CodedConcept("ml", "UCUM", "milliliter"),
            derivation=derivation,
        )
        for value, derivation in stated
    ]
