"""The engine behind a serial line: frames, accesses, UART."""
