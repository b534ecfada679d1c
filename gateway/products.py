"""The product registry: which products exist, what pays for them, and who may call them.

The product is the first segment of the path. It alone decides whether a call is billable; nothing
else that a caller sends can change that.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

PERSONAL_API_KEY = "personal_api_key"
OAUTH_RUN = "oauth_run"
OAUTH_PRODUCT = "oauth_product"
OAUTH_CLIENT = "oauth_client"


@dataclass(frozen=True, slots=True)
class Product:
    """One product. `bucket` is the quota resource that pays for it; None means unmetered."""

    name: str
    bucket: str | None
    token_kinds: frozenset[str]
    aliases: tuple[str, ...] = ()
    small_models_only: bool = False
    needs_unmetered_gateway: bool = False

    @property
    def billable(self) -> bool:
        """Whether its calls cost credits."""
        return self.bucket is not None


PRODUCTS = (
    Product("slack_app", "ai_credits", frozenset({OAUTH_RUN, OAUTH_PRODUCT})),
    Product(
        "slack_app_routing",
        "ai_credits",
        frozenset({OAUTH_PRODUCT, OAUTH_RUN, PERSONAL_API_KEY}),
        aliases=("slack-posthog-code",),
        small_models_only=True,
    ),
    Product(
        "posthog_code",
        "posthog_code_credits",
        frozenset({OAUTH_CLIENT, OAUTH_PRODUCT, OAUTH_RUN}),
    ),
    Product(
        "llm_gateway",
        None,
        frozenset({PERSONAL_API_KEY}),
        needs_unmetered_gateway=True,
    ),
)
_BY_NAME = {name: product for product in PRODUCTS for name in (product.name, *product.aliases)}
BUCKETS = tuple(dict.fromkeys(product.bucket for product in PRODUCTS if product.bucket))
KNOWN_NAMES = tuple(product.name for product in PRODUCTS)
NAMES = tuple(_BY_NAME)  # with the aliases


def find(name: str) -> Product | None:
    """Return the product with this name or alias, or None."""
    return _BY_NAME.get(name)


def is_small(model: str, patterns: list[str]) -> bool:
    """Return whether the model matches one of the operator's shell-style patterns."""
    return any(fnmatchcase(model.lower(), pattern) for pattern in patterns)
