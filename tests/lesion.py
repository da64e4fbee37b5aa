"""The task of the noise cases that ``case`` makes: a lesion to outline and to find."""

from penumbra.types import Task

TASK = Task(
    modality="mri",
    channels=("flair",),
    classes=("background", "lesion"),
    label_values={0: 0, 1: 1},
    regions={"WT": (1,)},
    findings=("lesion present",),
)
