from tests.backends.conftest import google

__all__ = ["google"]
