"""`python -m worker.cli`, the same as `switchboard`."""

from worker.cli import main

main()
