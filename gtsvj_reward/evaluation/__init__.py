"""How well scores agree with what people prefer."""
