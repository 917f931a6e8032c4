"""Where work runs: devices, memory, the compiler, threads, a bar, blocks of rows."""
