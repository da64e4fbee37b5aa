"""What structures, maps and measurements are called in DICOM's coded vocabularies.

SNOMED CT where a code is certain; else our own scheme with the name as the meaning. A wrong
standard code would be worse than an honest private one.
"""

import re
from typing import Any

SCHEME = "99PENUMBRA"

_ANATOMY = {
    "spleen": ("78961009", "Spleen"),
    "right kidney": ("9846003", "Right kidney"),
    "left kidney": ("18639004", "Left kidney"),
    "kidney": ("64033007", "Kidney"),
    "gallbladder": ("28231008", "Gallbladder"),
    "esophagus": ("32849002", "Esophagus"),
    "liver": ("10200004", "Liver"),
    "stomach": ("69695003", "Stomach"),
    "aorta": ("15825003", "Aorta"),
    "inferior vena cava": ("64131007", "Inferior vena cava"),
    "pancreas": ("15776009", "Pancreas"),
    "bladder": ("89837001", "Urinary bladder"),
    "lung": ("39607008", "Lung"),
    "heart": ("80891009", "Heart"),
}
_SYNONYMS = {
    "oesophagus": "esophagus",
    "postcava": "inferior vena cava",
    "ivc": "inferior vena cava",
    "kidney right": "right kidney",
    "kidney left": "left kidney",
}
MAPS = {
    "epistemic": ("EPI", "Epistemic variance", "sum over classes of Var_t(p), 0..1"),
    "aleatoric": ("ALE", "Aleatoric variance", "1 - mean over draws of |p|^2, 0..1"),
    "entropy_nats": ("ENT", "Predictive entropy", "entropy of the mean probability in nats"),
    "attention": ("ATT", "Gate attention", "composite of the decoder's gates, 0..1"),
}
VERDICTS = {
    "accept": ("ACC", "Accepted by the model's own rules"),
    "review": ("REV", "Review by a reader advised"),
    "reject": ("REJ", "Prediction rejected"),
}


def private(value: str, meaning: str) -> Any:
    """A code of our own scheme."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=value[:16], scheme_designator=SCHEME, meaning=meaning[:64])


def structure(name: str) -> tuple[Any, Any]:
    """Category and type of a segmented structure; an unknown name gets a private code."""
    from highdicom.sr import CodedConcept

    plain = re.sub(r"[\s_-]+", " ", name.strip().lower())
    plain = _SYNONYMS.get(plain, plain)
    if plain in _ANATOMY:
        value, meaning = _ANATOMY[plain]
        category = CodedConcept("123037004", "SCT", "Anatomical Structure")
        return category, CodedConcept(value, "SCT", meaning)
    slug = re.sub(r"[^A-Z0-9]", "", plain.upper())[:16] or "STRUCTURE"
    return CodedConcept("85756007", "SCT", "Tissue"), private(slug, name or "structure")
