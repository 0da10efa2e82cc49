"""``python -m penstock``: see `penstock.cli`."""

from penstock.cli import main

raise SystemExit(main())
