"""Random patches from the store: drawing, augmentation, loading."""
