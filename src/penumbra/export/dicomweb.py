"""A PACS by DICOMweb: fetch one series, store what was made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penumbra.errors import DataError, first_line


def fetch_series(url: str, folder: Path, *, study: str, series: str) -> Path:
    """Retrieve one series (WADO-RS) into ``folder``, one file per instance, named by number.

    Instances that an earlier fetch has left there are removed: they would be another series.

    Raises:
        DataError: the server does not answer, or has no such series.
    """
    client = _client(url)
    try:
        found = client.retrieve_series(study_instance_uid=study, series_instance_uid=series)
    except Exception as error:  # the client lets every kind of transport error through
        raise DataError(f"{url}: cannot retrieve series {series} ({first_line(error)})") from error
    if not found:
        raise DataError(f"{url}: has no instance of series {series}; check the two identifiers")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]" * 5 + ".dcm"):
        old.unlink()
    for number, dataset in enumerate(found, start=1):
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    return folder


def find_series(url: str, *, modality: str, study: str | None = None) -> list[tuple[str, str]]:
    """Study and series identifiers of every series of a modality, of one study or all (QIDO-RS).

    Raises:
        DataError: the server does not answer.
    """
    client = _client(url)
    try:
        found = client.search_for_series(study, search_filters={"Modality": modality})
    except Exception as error:
        raise DataError(f"{url}: cannot search ({first_line(error)})") from error
    return [(each["0020000D"]["Value"][0], each["0020000E"]["Value"][0]) for each in found]


def store(url: str, paths: Sequence[Path]) -> None:
    """Store DICOM files (STOW-RS).

    Raises:
        DataError: the server does not answer or refuses an instance.
    """
    import pydicom

    client = _client(url)
    try:
        answer = client.store_instances([pydicom.dcmread(path) for path in paths])
    except Exception as error:
        raise DataError(f"{url}: cannot store ({first_line(error)})") from error
    refused = answer.get("FailedSOPSequence") or []
    if refused:
        raise DataError(f"{url}: refused {len(refused)} of {len(paths)} objects; see its log")


def _client(url: str) -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError:
        raise DataError(
            "DICOMweb needs dicomweb-client; pip install 'penumbra-imaging[dicom]'"
        ) from None
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: not a DICOMweb address; expected http:// or https://")
    return DICOMwebClient(url)
