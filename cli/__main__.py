"""``python -m cli`` is ``aegis-tasks``."""

from cli.main import main

main()
