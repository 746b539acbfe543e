"""The engine's pipeline, in the order in which data flow: fetch, issue, address, lanes, drain."""
