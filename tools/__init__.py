"""What makes and checks the repository: run from the checkout, `python -m tools.check_tree`."""
