"""From scans to arrays that a network reads: crop, normalise, resample, store."""
