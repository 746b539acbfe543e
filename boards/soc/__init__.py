"""The engine in systems of other builders."""
