"""A study of how many labels a training needs, by what it starts from."""
