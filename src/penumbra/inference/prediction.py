"""What the model says of one scan, in memory: maps in the scan's own grid, figures, decision."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from penumbra.config import Config
from penumbra.data.preprocess import Prepared, restore
from penumbra.inference.page import case_page, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Prediction:
    """One scan's prediction; ``record`` is the content of ``<case>.json``.

    ``maps`` lie on the prepared grid; the properties bring them back to the scan's own shape and
    axis order, to be saved with ``affine``. In a notebook it shows itself as the page of the case.
    """

    record: Mapping[str, Any]
    maps: Mapping[str, np.ndarray]
    case: Prepared
    config: Config

    @property
    def segmentation(self) -> Integer[np.ndarray, "*space"] | None:
        """Class indices of the calibrated prediction; None where none was asked for."""
        return self._own("segmentation")

    @property
    def probability(self) -> Float[np.ndarray, "c *space"] | None:
        """Class probabilities after temperature scaling; outside of the crop, background."""
        return self._own("probability")

    @property
    def epistemic(self) -> Float[np.ndarray, "*space"] | None:
        """Variance of the class probabilities between draws: what the model does not know."""
        return self._own("epistemic")

    @property
    def aleatoric(self) -> Float[np.ndarray, "*space"] | None:
        """Mean doubt within a draw: what the scan leaves open."""
        return self._own("aleatoric")

    @property
    def attention(self) -> Float[np.ndarray, "m *space"]:
        """Composite gate maps in [0, 1]: the segmentation's, then one per finding."""
        found = self._own("attention")
        assert found is not None
        return found

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Voxel to world (RAS+ mm) of the scan's own grid."""
        return self.case.geometry.file_affine

    @property
    def volumes_ml(self) -> dict[str, dict[str, Any]]:
        """Structure -> mean volume in ml and its credible interval over the draws."""
        return dict(self.record.get("volumes_ml", {}))

    @property
    def findings(self) -> dict[str, dict[str, Any]]:
        """Finding -> probability, whether it is above its threshold, and its uncertainty."""
        return dict(self.record.get("findings", {}))

    @property
    def verdict(self) -> str:
        """``accept``, ``review`` or ``reject``; the reasons are in ``record["decision"]``."""
        return str(self.record["decision"]["verdict"])

    def plot(self) -> "Figure":
        """Segmentation and uncertainty of the slice with most to see, as a matplotlib figure."""
        from matplotlib.figure import Figure

        shown = panels(self.record, self.case, self.maps, self.config)
        figure = Figure(figsize=(3.2 * len(shown), 3.6), layout="constrained")
        for axes, panel in zip(
            figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
        ):
            axes.imshow(panel.rgb, aspect=panel.aspect)
            axes.set_title(panel.name)
            axes.set_axis_off()
        return figure

    def outside(self, name: str) -> float | list[float]:
        """What a map is where preprocessing cropped the scan: air, and background for certain."""
        match name:
            case "image":
                return float(self.case.image[0].min())
            case "probability":
                return [1.0] + [0.0] * (len(self.record["task"]["classes"]) - 1)
            case _:
                return 0.0

    def __repr__(self) -> str:
        said = [f"{n}: {v['mean']:.2f} ml" for n, v in self.volumes_ml.items()]
        said += [f"{n}: {v['probability']:.2f}" for n, v in self.findings.items()]
        return f"Prediction({self.record['case']}, {self.verdict}; {', '.join(said)})"

    def _repr_html_(self) -> str:
        page = case_page(self.record, self.case, self.maps, self.config)
        return f'<iframe width="100%" height="620" srcdoc="{html.escape(page)}"></iframe>'

    def _own(self, name: str) -> Shaped[np.ndarray, "..."] | None:
        found = self.maps.get(name)
        return (
            None if found is None else restore(found, self.case.geometry, fill=self.outside(name))
        )
