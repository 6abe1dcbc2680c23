from tests.cli.conftest import embedded_cli, valkey

__all__ = ["embedded_cli", "valkey"]
