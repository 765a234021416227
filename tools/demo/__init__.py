"""How the demo's codec and base transformer were trained."""
