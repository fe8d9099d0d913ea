"""Known data-set layouts: one a file, each with ``cases(root) -> Iterator[Case]``."""
