"""Files to cases: benchmark readers, geometry, preprocessing, the store, splits and patches."""
