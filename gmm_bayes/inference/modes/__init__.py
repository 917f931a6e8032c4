"""The posterior's modes: looked for, gone to, and weighed."""
