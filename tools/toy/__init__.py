"""How the models of the toy world were trained, measured and bundled."""
