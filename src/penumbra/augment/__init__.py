"""Views of a case: geometry, grey values, acquisition and masking inside clinical ranges."""

from penumbra.augment.compose import View, augment, shift, two_views
from penumbra.augment.display import slice_to_display, to_display
from penumbra.augment.profile import ACQUISITION, INTENSITY, families, profile_for

__all__ = [
    "ACQUISITION",
    "INTENSITY",
    "View",
    "augment",
    "families",
    "profile_for",
    "shift",
    "slice_to_display",
    "to_display",
    "two_views",
]
