"""Known data-set layouts: one layout a file, with ``cases(root) -> Iterator[Case]``."""
