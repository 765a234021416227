"""The study: the paper's claims in a small world; run it with `make study`."""
