"""From a location to an fsspec filesystem, and what each family does differently."""
