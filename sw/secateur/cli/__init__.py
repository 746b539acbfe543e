"""The command line, an application per group of commands."""
