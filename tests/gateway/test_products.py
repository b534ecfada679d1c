"""The gateway and billing agree about which bucket pays for which product."""

from billing import products as billing
from gateway.products import BUCKETS, PRODUCTS
from quota.resources import RESOURCES


def test_billing_has_the_same_products_buckets_and_aliases():
    assert {product.name: product.bucket for product in PRODUCTS} == billing.BUCKETS
    aliases = {alias: product.name for product in PRODUCTS for alias in product.aliases}
    assert aliases == billing.ALIASES


def test_every_bucket_is_a_quota_resource():
    assert set(BUCKETS) <= RESOURCES.keys()
