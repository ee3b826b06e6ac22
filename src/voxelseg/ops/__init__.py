"""Fast forms of single operations, each beside its slow obvious twin that the tests hold it against."""
