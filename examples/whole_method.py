"""From files to a report, then a prediction: the whole method on a dozen phantoms."""

import tempfile
from pathlib import Path

import penumbra as pn

folder = Path(tempfile.mkdtemp())
pn.write_phantom(folder / "phantoms", modality="mri", cases=12, seed=0)

config = pn.resolve("phantom-mri", size="tiny", overrides={"seed": 1})
report = pn.run(config, folder / "phantoms", folder / "run")
print("report", report)

prediction: pn.Prediction = pn.predict(folder / "run", folder / "phantoms" / "phantom_0000")
print(prediction)
print("in the scan's own grid:", prediction.segmentation.shape, prediction.epistemic.shape)
