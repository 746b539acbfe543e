"""From a quantised graph to the compiler's network."""
