"""Many modules run beside each other, as trainings of a study or of a benchmark."""
