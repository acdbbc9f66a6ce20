"""`python -m pytest_membudget` is the `membudget` command."""

from pytest_membudget.cli import main

raise SystemExit(main())
