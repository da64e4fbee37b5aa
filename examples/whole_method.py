"""From files to a report, then a prediction: the whole method on a dozen phantoms."""

import tempfile
from pathlib import Path

import penumbra as pn
from penumbra.inference.scan import predict_scans

folder = Path(tempfile.mkdtemp())
pn.write_phantom(folder / "phantoms", modality="mri", cases=12, seed=0)

config = pn.resolve("phantom-mri", size="tiny", overrides={"seed": 1})
report = pn.run(config, folder / "phantoms", folder / "run")
print("report", report)

scan = next(path for path in sorted((folder / "phantoms").iterdir()) if path.is_dir())
for path in predict_scans(folder / "run", [scan], folder / "pred", draws=4):
    print("wrote", path.name)
