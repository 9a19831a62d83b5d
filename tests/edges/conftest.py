"""Real Valkey and S3, as the integration tests have them."""

from tests.integration.conftest import s3_endpoint, valkey_url

__all__ = ["s3_endpoint", "valkey_url"]
