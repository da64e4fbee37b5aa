"""A cohort with two kinds of labels from one of the BraTS layout with sites: tumour and hospital.

    python benchmarks/two_tasks.py COHORT OUT
    penumbra study brats --data OUT --arms multitask --fractions 1 --seeds 3

The finding is whether a scan comes from the hospital with most patients: contrast and noise tell.
"""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

from penumbra.data.cohort import read_cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    cohort = read_cohort(asked.cohort, modality="mri")
    site, _ = Counter(case.site for case in cohort.cases).most_common(1)[0]
    channels = cohort.task.channels
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "cases.csv").open("w", newline="") as file:
        columns = ["case", "patient", "site", "split", "segmentation", *channels, "hospital"]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for case in cohort.cases:
            row = {"case": case.id, "patient": case.patient, "site": case.site, "split": case.part}
            row |= {c: path.resolve() for c, path in case.images.items()}
            assert case.segmentation is not None
            row |= {"segmentation": case.segmentation.resolve(), "hospital": int(case.site == site)}
            writer.writerow(row)
    names = {str(value): name for value, name in zip((0, 1), cohort.task.classes, strict=True)}
    (asked.out / "labels.json").write_text(json.dumps(names))
    print(f"Wrote {asked.out / 'cases.csv'}: hospital is {site}")


if __name__ == "__main__":
    main()
