"""Scripts for the repository: run from the checkout, `python -m tools.check_tree`."""
